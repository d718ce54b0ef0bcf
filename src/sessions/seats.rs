//! Places for sessions: how many clients wait for one, and which session is evicted for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::blame::{Cause, Lately};
use super::registry::Live;
use super::snapshot::State;
use super::start_limit::MAX_START;
use super::{NoSession, Sessions};
use crate::child::TERM_GRACE;
use crate::session::{End, Session};

/// After how long a session whose client has sent nothing since `initialize` was answered gives its place to another client.
/// Clients send `initialized` at once, or do not.
const UNCLAIMED: Duration = Duration::from_secs(10);

/// A place for one session and its child; free again when it is dropped.
pub(super) type Seat = OwnedSemaphorePermit;

/// As many places as there may be sessions.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    all: usize,
    /// How many clients wait for one.
    waiting: AtomicUsize,
    /// How many are held for a moment only.
    lent: Arc<AtomicUsize>,
}

/// A seat for a moment: who wants one may wait for it. Free again when it is dropped.
#[derive(Debug)]
pub(super) struct LentSeat {
    _seat: Seat, // free before it is no longer counted as one that will be
    _lent: Lent,
}

#[derive(Debug)]
struct Lent(Arc<AtomicUsize>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts as a client that waits, until it is dropped.
struct Waiting<'s>(&'s AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seats {
    pub(super) fn new(all: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(all)), all, waiting: AtomicUsize::new(0), lent: Arc::default() }
    }

    pub(super) fn try_take(&self) -> Option<Seat> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// The same seat for a moment.
    pub(super) fn lend(&self, seat: Seat) -> LentSeat {
        self.lent.fetch_add(1, Ordering::Relaxed);
        LentSeat { _seat: seat, _lent: Lent(Arc::clone(&self.lent)) }
    }

    pub(super) async fn take(&self) -> Option<Seat> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// Waits until every seat is free.
    pub(super) async fn all_free(&self) {
        let _ = self.free.acquire_many(u32::try_from(self.all).unwrap_or(u32::MAX)).await;
    }

    /// How many clients wait for a seat.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }
}

impl Sessions {
    /// A seat. If one is about to be free because a child is leaving, waits for it: a client that closes a session and
    /// opens the next should not be turned away. A client whose words have worked, or of whose caller fewer wait, takes
    /// the seat of one whose words have not and whose child has not been started. Where words that have not worked hold
    /// more than half of the seats with children that do not answer, one whose words have takes that of the longest such
    /// start.
    pub(super) async fn take_seat(&self, cause: &Cause) -> Result<Seat, NoSession> {
        if let Some(seat) = self.seats.try_take() {
            return Ok(seat);
        }
        let full = || NoSession::Full(self.config.max_sessions);
        let (has_worked, may_evict) = {
            let blame = self.blame();
            (blame.has_worked(cause), blame.is_trusted(cause, Lately::One, Instant::now()))
        };
        let gives_way = || self.starts.give_way(cause, has_worked) || (has_worked && self.end_stuck_start());
        let evicts = async || may_evict && self.evict(false).await;
        // While the idle sessions were asked, another one may have ended.
        if !self.is_seat_coming() && !gives_way() && !evicts().await && !self.is_seat_coming() {
            return self.seats.try_take().ok_or_else(full);
        }
        let seat = self.next_seat().await;
        if !self.is_taking() {
            return Err(NoSession::Draining);
        }
        seat.ok_or_else(full)
    }

    /// A seat that a child has which is leaving, if no client waits for that one.
    pub(super) async fn coming_seat(&self) -> Option<Seat> {
        if self.is_seat_coming() { self.next_seat().await } else { self.seats.try_take() }
    }

    /// Waits for a seat for as long as a child may take to leave.
    async fn next_seat(&self) -> Option<Seat> {
        let _waiting = self.seats.wait();
        let patience = self.config.stop_grace + TERM_GRACE;
        timeout(patience, self.seats.take()).await.ok().flatten()
    }

    /// Ends the longest start that has had its time and whose words have not worked before, if such starts hold more than
    /// half of the seats.
    fn end_stuck_start(&self) -> bool {
        let longest = {
            let registry = self.lock();
            let is_stuck = |live: &&Live<Session>| {
                live.state == State::Starting && !live.has_worked && live.began.elapsed() >= MAX_START
            };
            let stuck = registry.live().filter(is_stuck);
            let count = stuck.clone().count();
            let longest = stuck.min_by_key(|live| live.began).map(|live| live.session.clone());
            longest.filter(|_| count > self.config.max_sessions / 2)
        };
        longest.inspect(|session| self.end(session, End::Evicted)).is_some()
    }

    /// Whether more children are leaving, or were started for a moment, than clients wait for their seats.
    fn is_seat_coming(&self) -> bool {
        self.lock().leaving() + self.seats.lent.load(Ordering::Relaxed) > self.seats.waiting()
    }

    /// Ends the session that no client has claimed for the longest time, or else, if the operator wants it, that has been
    /// idle for the longest time. The session itself decides: one that a client has posted to meanwhile goes on, and the
    /// next is asked.
    ///
    /// `on_lanes`: of those on lanes, which give way among themselves; else of those with a child.
    pub(super) async fn evict(&self, on_lanes: bool) -> bool {
        for (session, is_claimed) in self.idle(on_lanes) {
            if is_claimed && !self.config.evict {
                break;
            }
            let why = if is_claimed { End::Evicted } else { End::Unclaimed };
            if session.end_if_idle(why).await {
                self.retire(session.id(), why);
                return true;
            }
        }
        false
    }

    /// The idle sessions and whether a client has claimed them: first those that none has for [`UNCLAIMED`], and of both
    /// the longest idle one first.
    fn idle(&self, on_lanes: bool) -> Vec<(Session, bool)> {
        let registry = self.lock();
        let mut idle: Vec<_> = registry
            .live()
            .filter(|live| live.server.is_some() == on_lanes)
            .filter_map(|live| {
                let stats = live.session.stats();
                let since = stats.idle_since?;
                // The wait for an answer to `initialize` is none of the client's; a slow client is not robbed.
                let is_claimed = stats.is_claimed
                    || self.config.session.unclaimed_timeout.is_none()
                    || since.elapsed() < UNCLAIMED;
                Some((is_claimed, since, live.session.clone()))
            })
            .collect();
        idle.sort_unstable_by_key(|(is_claimed, since, _)| (*is_claimed, *since));
        idle.into_iter().map(|(is_claimed, _, session)| (session, is_claimed)).collect()
    }
}
