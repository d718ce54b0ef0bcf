//! Calls that have ended without an answer of the child. It may be at work on them all the same, and what it says then may
//! be of them: as long as that is so, it is in doubt what is for whom.

use std::collections::VecDeque;
use std::time::Duration;

use super::ids::BridgeId;
use super::link::CANCEL_GRACE;

/// How long after such an end the child may be at work on a call: it has been told, and stops (2026-07-28
/// `basic/patterns/cancellation`).
pub(super) const LINGER: Duration = CANCEL_GRACE;

/// How many such calls are remembered. Beyond them, all is doubtful for as long.
pub(super) const MAX_LINGERING: usize = 1024;

/// All of them, in the order of their ends. `O` is whose a call was.
#[derive(Debug)]
pub(super) struct Lingering<O> {
    /// Each with the time until which it is.
    calls: VecDeque<(Duration, BridgeId, O)>,
    /// Until when there may be more of them than are remembered.
    crowded_until: Duration,
}

impl<O> Default for Lingering<O> {
    fn default() -> Self {
        Self { calls: VecDeque::new(), crowded_until: Duration::ZERO }
    }
}

impl<O: Copy> Lingering<O> {
    /// A call has ended without an answer.
    pub(super) fn add(&mut self, id: BridgeId, owner: O, now: Duration) {
        if self.calls.len() == MAX_LINGERING
            && let Some((until, ..)) = self.calls.pop_front()
        {
            self.crowded_until = until;
        }
        self.calls.push_back((now + LINGER, id, owner));
    }

    /// The child has answered a call after its end: it is not at work on that any more. Returns whether the call was here.
    pub(super) fn answered(&mut self, id: BridgeId) -> bool {
        let place = self.calls.iter().position(|(_, lingering, _)| *lingering == id);
        place.and_then(|place| self.calls.remove(place)).is_some()
    }

    /// Whether the child may be at work on any.
    pub(super) fn doubts(&self, now: Duration) -> bool {
        self.is_crowded(now) || self.calls.back().is_some_and(|(until, ..)| now < *until)
    }

    /// Whether it may be at work on some that are not remembered.
    pub(super) fn is_crowded(&self, now: Duration) -> bool {
        now < self.crowded_until
    }

    /// Those that are remembered, and whose each was.
    pub(super) fn calls(&self) -> impl Iterator<Item = (BridgeId, O)> {
        self.calls.iter().map(|(_, id, owner)| (*id, *owner))
    }

    /// Forgets those on which the child is not at work any more.
    pub(super) fn expire(&mut self, now: Duration) {
        while self.calls.front().is_some_and(|(until, ..)| *until <= now) {
            self.calls.pop_front();
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.calls.front().map(|(until, ..)| *until)
    }

    pub(super) fn clear(&mut self) {
        self.calls.clear();
    }
}
