//! The children that a session has lost, and when it gives up.

use std::time::Duration;

use tokio::time::Instant;

use super::worker::Answered;
use super::{End, ExitStatus};

/// How long a child must live for its loss to count as the first.
const STABLE: Duration = Duration::from_secs(30);

/// After how many failed handshakes in a row the session ends.
const MAX_FAILED_HANDSHAKES: u32 = 5;

/// What a child has done since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Nothing,
    /// It has answered `initialize` with a result.
    Opened,
    /// It has answered a call too.
    Served,
}

#[derive(Debug)]
pub(super) struct Losses {
    /// When the present child was started.
    since: Instant,
    /// How many in a row have been lost within [`STABLE`] of their start.
    in_a_row: u32,
    /// How many of them have not answered `initialize` with a result.
    failed_handshakes: u32,
    /// What the present child has done.
    proof: Proof,
    /// Where to report how the handshake with the present child ends; `None`: it has been reported.
    answered: Option<Answered>,
}

impl Losses {
    /// None yet; the first child was started now.
    pub(super) fn new(answered: Answered, now: Instant) -> Self {
        Self {
            since: now,
            in_a_row: 0,
            failed_handshakes: 0,
            proof: Proof::Nothing,
            answered: Some(answered),
        }
    }

    /// Whether another child is worth a try.
    pub(super) fn may_respawn(&self) -> bool {
        self.failed_handshakes < MAX_FAILED_HANDSHAKES
    }

    /// The present child is lost. Returns how many have been lost in a row; 0: it is no loss, because some servers serve
    /// a call or some and leave in good order.
    pub(super) fn add(&mut self, why: End, now: Instant) -> u32 {
        let is_done = self.proof == Proof::Served && why == End::Exited(ExitStatus::Code(0));
        if is_done || now >= self.since + STABLE {
            self.in_a_row = 0;
        }
        self.in_a_row += u32::from(!is_done);
        self.failed_handshakes += 1;
        self.tell_answered(Err(why));
        self.in_a_row
    }

    /// Whether the present child has not answered `initialize`.
    pub(super) fn is_starting(&self) -> bool {
        self.proof == Proof::Nothing
    }

    /// Whether the present child has answered `initialize` and no call.
    pub(super) fn is_unproven(&self) -> bool {
        self.proof == Proof::Opened
    }

    /// The present child has answered a call.
    pub(super) fn answered_a_call(&mut self) {
        self.proof = Proof::Served;
    }

    /// Another child was started now.
    pub(super) fn respawned(&mut self, answered: Answered, now: Instant) {
        self.since = now;
        self.proof = Proof::Nothing;
        self.answered = Some(answered);
    }

    /// The present child has answered `initialize` with a result.
    pub(super) fn handshake_done(&mut self) {
        self.failed_handshakes = 0;
        self.proof = Proof::Opened;
        self.tell_answered(Ok(()));
    }

    /// Reports how the handshake with the present child has ended, once.
    pub(super) fn tell_answered(&mut self, how: Result<(), End>) {
        if let Some(answered) = self.answered.take() {
            let _ = answered.send(how); // the receiver may be gone
        }
    }
}
