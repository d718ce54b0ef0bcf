//! Places for sessions: how many clients wait for one, and which session is evicted for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{NoSession, Sessions};
use crate::child::TERM_GRACE;
use crate::session::{End, Session};

/// A place for one session and its child; free again when it is dropped.
pub(super) type Seat = OwnedSemaphorePermit;

/// As many places as there may be sessions.
#[derive(Debug)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    all: usize,
    /// How many clients wait for one.
    waiting: AtomicUsize,
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
        Self { free: Arc::new(Semaphore::new(all)), all, waiting: AtomicUsize::new(0) }
    }

    pub(super) fn try_take(&self) -> Option<Seat> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    async fn take(&self) -> Option<Seat> {
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
    /// opens the next should not be turned away.
    pub(super) async fn take_seat(&self) -> Result<Seat, NoSession> {
        if let Some(seat) = self.seats.try_take() {
            return Ok(seat);
        }
        let full = || NoSession::Full(self.config.max_sessions);
        // While the idle sessions were asked, another one may have ended.
        if !self.is_seat_coming() && !self.evict().await && !self.is_seat_coming() {
            return self.seats.try_take().ok_or_else(full);
        }
        let _waiting = self.seats.wait();
        let patience = self.config.stop_grace + TERM_GRACE;
        let seat = timeout(patience, self.seats.take()).await;
        if !self.is_taking() {
            return Err(NoSession::Draining);
        }
        seat.ok().flatten().ok_or_else(full)
    }

    /// Whether more children are leaving than clients wait for their seats.
    fn is_seat_coming(&self) -> bool {
        self.lock().leaving() > self.seats.waiting()
    }

    /// Ends the session that has been idle for the longest time, if there is one and the operator wants it. The session
    /// itself decides: one that a client has posted to meanwhile goes on, and the next is asked.
    async fn evict(&self) -> bool {
        if !self.config.evict {
            return false;
        }
        for session in self.idle() {
            if session.end_if_idle(End::Evicted).await {
                self.retire(session.id(), End::Evicted);
                return true;
            }
        }
        false
    }

    /// The idle sessions, the longest idle one first.
    fn idle(&self) -> Vec<Session> {
        let registry = self.lock();
        let mut idle: Vec<_> = registry
            .live()
            .filter_map(|live| Some((live.session.stats().idle_since?, live.session.clone())))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.into_iter().map(|(_, session)| session).collect()
    }
}
