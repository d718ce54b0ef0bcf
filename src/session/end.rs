//! Why a session ended, and why a request got the bridge's answer in place of the child's.

use std::time::Duration;

use crate::exit_status::ExitStatus;
use crate::proto::front::Refusal;
use crate::proto::nearly::Wrong;
use crate::proto::output::Declined;

/// Why a session ended. Each end has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A client sent DELETE.
    Deleted,
    /// The stream of a client of the 2024-11-05 transport closed, which is the only sign such a client gives.
    Disconnected,
    /// No client has used the session's id: it left before it was told it, or sent nothing with it in time.
    Unclaimed,
    /// Nothing was in flight and no client listened for this long.
    Idle(Duration),
    /// It lasted as long as a session may last.
    Lifetime(Duration),
    /// The token that began it is no longer among those that open the bridge.
    Revoked,
    /// It was the longest idle one when another needed its place.
    Evicted,
    /// The bridge is stopping.
    Shutdown,
    /// The child answered `initialize` with an error.
    Refused,
    /// The child did not answer `initialize` within this time.
    InitTimeout(Duration),
    /// The child wrote `initialize` back and did not answer it.
    Echoed,
    /// What the child answered to `initialize` is no message; why.
    Invalid(Wrong),
    Exited(ExitStatus),
    /// The child closed its stdout and lives on.
    StdoutClosed,
    /// The child closed its stdin and lives on.
    StdinClosed,
    /// The child sent a message longer than this many bytes, and nothing in it said whose answer it was.
    TooLong(usize),
}

impl End {
    /// As it stands in the log and in `data.cause` of later refusals.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Disconnected => "disconnected",
            Self::Unclaimed => "unclaimed",
            Self::Idle(_) => "idle",
            Self::Lifetime(_) => "lifetime",
            Self::Revoked => "token_revoked",
            Self::Evicted => "evicted",
            Self::Shutdown => "shutdown",
            Self::Refused => "initialize_refused",
            Self::InitTimeout(_) => "init_timeout",
            Self::Echoed => "child_echo",
            Self::Invalid(_) => "invalid_response",
            Self::Exited(_) => "child_exited",
            Self::StdoutClosed => "child_stdout_closed",
            Self::StdinClosed => "child_stdin_closed",
            Self::TooLong(_) => "response_too_large",
        }
    }

    /// Whether an operator should look at it.
    pub fn is_trouble(self) -> bool {
        !matches!(
            self,
            Self::Deleted
                | Self::Disconnected
                | Self::Idle(_)
                | Self::Lifetime(_)
                | Self::Revoked
                | Self::Evicted
                | Self::Shutdown
                | Self::Exited(ExitStatus::Code(0))
        )
    }

    /// Whether it is the child's failure, which a new child may not repeat.
    pub(super) fn is_loss(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::InitTimeout(_)
                | Self::Echoed
                | Self::Invalid(_)
                | Self::Exited(_)
                | Self::StdoutClosed
                | Self::StdinClosed
                | Self::TooLong(_)
        )
    }
}

/// Why a request got the bridge's answer in place of the child's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The session ended while it was in flight.
    Ended(End),
    /// The child ended while it was in flight, for this reason, and the session goes on with a new one.
    Lost(End),
    /// No answer within the request timeout.
    Timeout(Duration),
    /// The client cancelled it, and the child did not answer.
    Cancelled,
    /// The child's answer is longer than this many bytes.
    TooLong(usize),
    /// The child's answer is no message; why.
    Invalid(Wrong),
    /// This many requests of the session are in flight already.
    Overload(usize),
    /// It stood in a batch and could not be taken.
    Refused(Refusal),
    /// It is of 2026-07-28 and not served as it came.
    Declined(Declined),
}
