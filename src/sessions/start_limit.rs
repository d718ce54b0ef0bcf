//! How many children may be starting at once, and who is next: what protects the machine from a storm of starts, and one
//! caller's starts from those of another.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use super::blame::Cause;
use crate::proto::message::Request;
use crate::secret::Digest;
use crate::sync;

/// How long a start counts as one: interpreters have read their modules by then, and one that hangs must not keep
/// others from starting.
pub(super) const MAX_START: Duration = Duration::from_secs(5);

/// How long a start that has failed keeps its place: so many per second and place can fail at most, whoever asks for them
/// and whatever they say.
pub(super) const AFTER_FAILURE: Duration = Duration::from_millis(25);

/// How many children may start at once.
#[derive(Clone, Debug)]
pub(super) struct StartLimit(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    all: usize,
    /// Whether any words have worked: until then all are alike.
    any_worked: bool,
    /// Whose starts go on: one entry for each.
    taken: Vec<Digest>,
    /// Who waits, oldest first. Each holds a seat, so that no more wait than there are seats.
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    group: Digest,
    words: Digest,
    /// Whether its words have worked before.
    worked: bool,
    grant: oneshot::Sender<StartPermit>,
}

/// The permit for one start; returned by being dropped.
#[derive(Debug)]
pub(super) struct StartPermit {
    limit: StartLimit,
    group: Digest,
}

/// What a start holds until its child has answered or is gone.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// `None` for a warm child.
    pub(super) permit: Option<StartPermit>,
    /// Whether clients bring the server down, and its words have not worked.
    pub(super) is_suspect: bool,
    /// What the child was asked, if a trial may ask it again.
    pub(super) initialize: Option<Request>,
}

impl StartLimit {
    /// At most so many starts at once; and one more, of a caller of whom none is going on.
    pub(super) fn new(at_once: usize) -> Self {
        Self(Arc::new(Mutex::new(Places {
            all: at_once,
            any_worked: false,
            taken: Vec::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Waits until one more child may start. Those whose words have `worked` before come first, and then the caller of whom
    /// the fewest are starting. `None`: it had to give way.
    pub(super) async fn acquire(&self, cause: &Cause, worked: bool) -> Option<StartPermit> {
        let (grant, granted) = oneshot::channel();
        self.lock().wait(Waiter { group: cause.group, words: cause.words, worked, grant });
        self.grant();
        granted.await.ok()
    }

    /// These words have worked.
    pub(super) fn note_worked(&self, words: &Digest) {
        let mut places = self.lock();
        places.any_worked = true;
        places
            .waiting
            .iter_mut()
            .filter(|waiter| waiter.words == *words)
            .for_each(|waiter| waiter.worked = true);
    }

    /// Lets the last of those who wait go away whose words have not worked: its seat is needed by somebody whose words
    /// have `worked`, or of whom fewer wait. Returns whether there is one.
    pub(super) fn give_way(&self, to: &Cause, worked: bool) -> bool {
        let mut places = self.lock();
        let waiting = |group: &Digest| places.waiting.iter().filter(|waiter| waiter.group == *group).count();
        let mine = waiting(&to.group);
        let gives_way = |waiter: &Waiter| {
            !waiter.worked && !waiter.grant.is_closed() && (worked || waiting(&waiter.group) > mine + 1)
        };
        let last = places.waiting.iter().rposition(gives_way);
        last.is_some_and(|place| places.waiting.remove(place).is_some())
    }

    fn grant(&self) {
        while let Some(Waiter { group, grant, .. }) = { self.lock().next() } {
            // Returned where whoever waited has left.
            let _ = grant.send(StartPermit { limit: self.clone(), group });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        sync::lock(&self.0)
    }
}

impl Places {
    fn wait(&mut self, waiter: Waiter) {
        self.waiting.retain(|waiter| !waiter.grant.is_closed()); // of clients that have left
        self.waiting.push_back(waiter);
    }

    /// Takes a place for whoever is next, if there is one.
    fn next(&mut self) -> Option<Waiter> {
        let going_on = |group: &Digest| self.taken.iter().filter(|taken| *taken == group).count();
        let free = self.taken.len() < self.all;
        let spare = self.taken.len() == self.all;
        let preferred = |waiter: &Waiter| waiter.worked || !self.any_worked;
        let may_start =
            |waiter: &Waiter| free || (spare && preferred(waiter) && going_on(&waiter.group) == 0);
        let places = self.waiting.iter().enumerate().filter(|(_, waiter)| may_start(waiter));
        let (place, _) = places.min_by_key(|(_, waiter)| (!preferred(waiter), going_on(&waiter.group)))?;
        let waiter = self.waiting.remove(place)?;
        self.taken.push(waiter.group);
        Some(waiter)
    }
}

impl Drop for StartPermit {
    fn drop(&mut self) {
        let mut places = self.limit.lock();
        if let Some(place) = places.taken.iter().position(|taken| *taken == self.group) {
            places.taken.swap_remove(place);
        }
        drop(places);
        self.limit.grant();
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    fn cause(name: &str) -> Cause {
        Cause::of(Some(Digest::of(name.as_bytes())), &Request::own("initialize", "{}"), &[])
    }

    async fn now(limit: &StartLimit, name: &str, worked: bool) -> Option<StartPermit> {
        timeout(Duration::ZERO, limit.acquire(&cause(name), worked)).await.ok().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_takes_all_places_and_another_still_starts_at_once() {
        let limit = StartLimit::new(2);
        let held = [now(&limit, "a", false).await, now(&limit, "a", false).await];
        assert!(held.iter().all(Option::is_some));
        assert!(now(&limit, "a", false).await.is_none());
        let spare = now(&limit, "b", false).await;
        assert!(spare.is_some(), "nobody's words have worked: all are alike");
        assert!(now(&limit, "c", false).await.is_none(), "there is one");
        drop(spare);
        limit.note_worked(&cause("c").words);
        assert!(now(&limit, "b", false).await.is_none(), "it is for words that have worked");
        assert!(now(&limit, "c", true).await.is_some());
        drop(held);
        assert!(now(&limit, "b", false).await.is_some());
        assert!(limit.lock().waiting.iter().all(|waiter| waiter.grant.is_closed()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_with_words_that_never_worked_gives_way_to_those_that_have_and_to_callers_of_fewer() {
        let limit = StartLimit::new(1);
        let held = now(&limit, "a", true).await;
        let wait = |name: &'static str| {
            let limit = limit.clone();
            tokio::spawn(async move { limit.acquire(&cause(name), false).await.is_some() })
        };
        let of_a: Vec<_> = (0..3).map(|_| wait("a")).collect();
        tokio::task::yield_now().await;
        assert!(!limit.give_way(&cause("a"), false), "not to its like");
        assert!(limit.give_way(&cause("b"), false));
        assert!(limit.give_way(&cause("b"), false));
        assert!(!limit.give_way(&cause("b"), false), "one of each is fair");
        assert!(limit.give_way(&cause("b"), true));
        assert!(!limit.give_way(&cause("b"), true), "nobody is left");
        for task in of_a {
            assert!(!task.await.expect("an end"));
        }
        let last = wait("a");
        tokio::task::yield_now().await;
        limit.note_worked(&cause("a").words);
        assert!(!limit.give_way(&cause("b"), true), "its words have worked meanwhile");
        drop(held);
        assert!(last.await.expect("a place"));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_take_turns_and_words_that_have_worked_come_first() {
        let limit = StartLimit::new(1);
        limit.note_worked(&cause("a").words);
        let first = now(&limit, "a", true).await.expect("a place");
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let wait = |name: &'static str, worked| {
            let (limit, tell) = (limit.clone(), tell.clone());
            async move {
                let permit = limit.acquire(&cause(name), worked).await;
                let _ = tell.send(name);
                tokio::task::yield_now().await;
                drop(permit);
            }
        };
        let tasks = [("bad", false), ("bad", false), ("a", true), ("a", true)];
        let tasks: Vec<_> = tasks.map(|(name, worked)| tokio::spawn(wait(name, worked))).into();
        tokio::task::yield_now().await;
        drop(first);
        for task in tasks {
            task.await.expect("a permit");
        }
        let order: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        assert_eq!(order, ["a", "a", "bad", "bad"]);
        assert!(limit.lock().taken.is_empty());
    }
}
