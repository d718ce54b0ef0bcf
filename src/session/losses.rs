//! The children that a session has lost, and when it gives up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a child must live for its loss to count as the first.
const STABLE: Duration = Duration::from_secs(30);

/// After how many failed handshakes in a row the session ends.
const MAX_FAILED_HANDSHAKES: u32 = 5;

#[derive(Debug)]
pub(super) struct Losses {
    /// When the present child was started.
    since: Instant,
    /// How many in a row have been lost within [`STABLE`] of their start.
    in_a_row: u32,
    /// How many of them have not answered `initialize` with a result.
    failed_handshakes: u32,
    /// Notified when the present child, which is not the first, has answered `initialize` or is lost.
    answered: Option<Arc<Notify>>,
}

impl Losses {
    /// None yet; the first child was started now.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, in_a_row: 0, failed_handshakes: 0, answered: None }
    }

    /// Whether another child is worth a try.
    pub(super) fn may_respawn(&self) -> bool {
        self.failed_handshakes < MAX_FAILED_HANDSHAKES
    }

    /// The present child is lost. Returns how many have been lost in a row.
    pub(super) fn add(&mut self, now: Instant) -> u32 {
        if now >= self.since + STABLE {
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
        self.failed_handshakes += 1;
        self.start_is_over();
        self.in_a_row
    }

    /// Another child was started now.
    pub(super) fn respawned(&mut self, answered: Arc<Notify>, now: Instant) {
        self.since = now;
        self.answered = Some(answered);
    }

    /// The present child has answered `initialize` with a result.
    pub(super) fn handshake_done(&mut self) {
        self.failed_handshakes = 0;
        self.start_is_over();
    }

    fn start_is_over(&mut self) {
        if let Some(answered) = self.answered.take() {
            answered.notify_one();
        }
    }
}
