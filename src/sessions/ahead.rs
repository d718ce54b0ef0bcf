//! Children that are started before a session wants them.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::child::Child;

/// How long after a child died unused the next one is started: doubled from the first to the second, and a random
/// part of it, so that replicas which fail together do not try together.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A child and its place among the sessions.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child<()>,
    /// Set when a session takes the child, so that its log lines carry the session's name.
    pub(super) sid: Arc<OnceLock<String>>,
    pub(super) seat: OwnedSemaphorePermit,
}

/// The children that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    waiting: VecDeque<Started>,
    /// How many have died unused since one was taken.
    failures: u32,
}

impl Ahead {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, started: Started) {
        self.waiting.push_back(started);
    }

    /// The oldest that is alive. One that has died is removed by whoever watches it.
    pub(super) fn take(&mut self) -> Option<Started> {
        let alive = self.waiting.iter().position(|started| started.child.process.exit.status().is_none())?;
        self.failures = 0;
        self.waiting.remove(alive)
    }

    /// Removes one that died; `None` if a session had taken it. Otherwise, how long to wait before the next is
    /// started; `random` is what the pause is drawn with.
    pub(super) fn bury(&mut self, pid: i32, random: u32) -> Option<Duration> {
        let place = self.waiting.iter().position(|started| started.child.process.pid() == pid)?;
        self.waiting.remove(place);
        let (first, last) = BACKOFF;
        let limit = first.saturating_mul(1 << self.failures.min(10)).min(last);
        self.failures += 1;
        Some(limit.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }

    pub(super) fn take_all(&mut self) -> Vec<Started> {
        self.waiting.drain(..).collect()
    }
}
