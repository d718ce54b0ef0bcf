//! The children that a session has lost, and when it gives up.

use std::time::Duration;

use tokio::time::Instant;

use super::End;
use super::worker::Answered;

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
    /// Where to report how the handshake with the present child ends; `None`: it has been reported.
    answered: Option<Answered>,
}

impl Losses {
    /// None yet; the first child was started now.
    pub(super) fn new(answered: Answered, now: Instant) -> Self {
        Self { since: now, in_a_row: 0, failed_handshakes: 0, answered: Some(answered) }
    }

    /// Whether another child is worth a try.
    pub(super) fn may_respawn(&self) -> bool {
        self.failed_handshakes < MAX_FAILED_HANDSHAKES
    }

    /// The present child is lost. Returns how many have been lost in a row.
    pub(super) fn add(&mut self, why: End, now: Instant) -> u32 {
        if now >= self.since + STABLE {
            self.in_a_row = 0;
        }
        self.in_a_row += 1;
        self.failed_handshakes += 1;
        self.tell_answered(Err(why));
        self.in_a_row
    }

    /// Another child was started now.
    pub(super) fn respawned(&mut self, answered: Answered, now: Instant) {
        self.since = now;
        self.answered = Some(answered);
    }

    /// The present child has answered `initialize` with a result.
    pub(super) fn handshake_done(&mut self) {
        self.failed_handshakes = 0;
        self.tell_answered(Ok(()));
    }

    /// Reports how the handshake with the present child has ended, once.
    pub(super) fn tell_answered(&mut self, how: Result<(), End>) {
        if let Some(answered) = self.answered.take() {
            let _ = answered.send(how); // the receiver may be gone
        }
    }
}
