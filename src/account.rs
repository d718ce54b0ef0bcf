//! One account of the bytes that wait: for a child, for a client, or for memory.
//!
//! Each session has one, and so has all that names no session yet. Nothing is limited here: what fills a place keeps the
//! limit of it, and this says how much there is, in one number and by places.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::sync::lock;

/// Where bytes wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bodies of requests that are being read, or are read and not forwarded, and heads that wait with them.
    Bodies,
    /// Messages that the session holds for a child that is not ready for them.
    Held,
    /// What is to be written to the child's stdin.
    Stdin,
    /// What is read of the child's stdout: a line that has no end yet.
    Stdout,
    /// Events kept for resumption.
    Replay,
    /// Events that no exchange has taken.
    Readers,
    /// Answers that an exchange has taken and the peer's connection has not.
    Responses,
}

impl Place {
    pub const ALL: [Self; 7] =
        [Self::Bodies, Self::Held, Self::Stdin, Self::Stdout, Self::Replay, Self::Readers, Self::Responses];

    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bodies => "bodies",
            Self::Held => "held",
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Replay => "replay",
            Self::Readers => "readers",
            Self::Responses => "responses",
        }
    }
}

/// How many bytes wait in each place.
#[derive(Debug, Default)]
pub struct Account([AtomicUsize; Place::ALL.len()]);

impl Account {
    /// Counts so many bytes until what is returned is dropped.
    pub fn hold(self: &Arc<Self>, place: Place, bytes: usize) -> Held {
        self.of(place).fetch_add(bytes, Ordering::Relaxed);
        Held { account: Arc::clone(self), place, bytes }
    }

    /// Sets what waits in a place whose whole size its only owner knows. Not for places where anything is
    /// [held](Self::hold).
    pub fn set(&self, place: Place, bytes: usize) {
        self.of(place).store(bytes, Ordering::Relaxed);
    }

    /// How many bytes wait in this place.
    pub fn at(&self, place: Place) -> usize {
        self.of(place).load(Ordering::Relaxed)
    }

    /// How many bytes wait in all places together.
    pub fn total(&self) -> usize {
        Place::ALL.into_iter().map(|place| self.at(place)).fold(0, usize::saturating_add)
    }

    #[expect(clippy::indexing_slicing, reason = "there is one for each place")]
    fn of(&self, place: Place) -> &AtomicUsize {
        &self.0[place as usize]
    }
}

/// All accounts of the bridge, those of ended sessions among them as long as anything counts in them.
#[derive(Debug, Default)]
pub struct Accounts(Mutex<Vec<Weak<Account>>>);

impl Accounts {
    /// A new account.
    pub fn open(&self) -> Arc<Account> {
        let account = Arc::default();
        self.add(&account);
        account
    }

    pub fn add(&self, account: &Arc<Account>) {
        let mut all = lock(&self.0);
        if all.len() == all.capacity() {
            all.retain(|account| account.strong_count() > 0);
        }
        all.push(Arc::downgrade(account));
    }

    /// How many bytes wait in all of them together.
    pub fn total(&self) -> usize {
        let all = lock(&self.0);
        all.iter().filter_map(Weak::upgrade).map(|account| account.total()).fold(0, usize::saturating_add)
    }
}

/// Bytes that are counted as waiting. Dropping it takes them off the account.
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
    place: Place,
    bytes: usize,
}

impl Held {
    /// Counts another number of bytes from now on.
    pub fn resize(&mut self, bytes: usize) {
        let counter = self.account.of(self.place);
        if bytes >= self.bytes {
            counter.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            counter.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.of(self.place).fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let account = Arc::new(Account::default());
        let mut body = account.hold(Place::Bodies, 10);
        let answer = account.hold(Place::Responses, 5);
        assert_eq!((account.at(Place::Bodies), account.total()), (10, 15));
        body.resize(30);
        assert_eq!(account.at(Place::Bodies), 30);
        body.resize(1);
        account.set(Place::Stdin, 7);
        assert_eq!((body.bytes(), account.total()), (1, 13));
        drop((body, answer));
        assert_eq!(account.total(), 7);
    }

    #[test]
    fn an_account_that_is_gone_leaves_nothing_behind() {
        let accounts = Accounts::default();
        let (kept, held) = (accounts.open(), accounts.open().hold(Place::Responses, 5));
        kept.set(Place::Stdin, 7);
        for _ in 0..1000 {
            accounts.open().set(Place::Stdin, 1);
        }
        assert_eq!(accounts.total(), 12, "what is held counts, though its session is gone");
        assert!(lock(&accounts.0).capacity() < 100);
        drop(held);
        assert_eq!(accounts.total(), 7);
    }

    #[test]
    fn each_place_has_a_counter_and_a_name_of_its_own() {
        let account = Account::default();
        for (bytes, place) in Place::ALL.into_iter().enumerate() {
            account.set(place, bytes);
        }
        let mut names = Vec::new();
        for (bytes, place) in Place::ALL.into_iter().enumerate() {
            assert_eq!(account.at(place), bytes);
            assert!(!names.contains(&place.as_str()));
            names.push(place.as_str());
        }
    }
}
