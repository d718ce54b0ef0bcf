//! Children that are started before a session wants them.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use tokio::sync::OwnedSemaphorePermit;

use crate::child::Child;

/// A child that no session has yet, and its seat.
#[derive(Debug)]
pub(super) struct WarmChild {
    pub(super) child: Child<()>,
    /// Told which session gets the child, so that its log lines carry the session's name.
    pub(super) sid: Arc<OnceLock<String>>,
    pub(super) seat: OwnedSemaphorePermit,
}

/// The children that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct WarmPool {
    waiting: VecDeque<WarmChild>,
    /// How many have died unused since one was taken.
    failures: u32,
}

impl WarmPool {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, started: WarmChild) {
        self.waiting.push_back(started);
    }

    /// The oldest that is alive. One that has died is removed by whoever watches it.
    pub(super) fn take(&mut self) -> Option<WarmChild> {
        let alive = self.waiting.iter().position(|started| started.child.process.exit.status().is_none())?;
        self.failures = 0;
        self.waiting.remove(alive)
    }

    /// Removes one that died; `None` if a session had taken it. Otherwise, how many have died unused by now.
    pub(super) fn retire(&mut self, pid: i32) -> Option<u32> {
        let place = self.waiting.iter().position(|started| started.child.process.pid() == pid)?;
        self.waiting.remove(place);
        self.failures += 1;
        Some(self.failures)
    }

    pub(super) fn take_all(&mut self) -> Vec<WarmChild> {
        self.waiting.drain(..).collect()
    }
}
