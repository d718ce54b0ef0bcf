//! What the machine is given and what it says.

use std::time::Duration;

use bytes::Bytes;

use super::ready::Readiness;
use crate::proto::ids::{ClientId, StreamId};

/// The limits that an operator sets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long the child may take to answer `initialize`.
    pub init_timeout: Duration,
    /// How long it may take to answer any other request.
    pub request_timeout: Duration,
    /// How many requests of one session may be in flight.
    pub max_in_flight: usize,
    /// Whether the session outlives its child: then it remembers what a new one must be told.
    pub respawn: bool,
    /// What is known of a server that needs time before it is ready.
    pub ready: Readiness,
}

/// What became of a client's message.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way to the child, or waits for the handshake.
    Taken,
    /// It needs no forwarding; why.
    Swallowed(&'static str),
    /// It is a request too many: [`Limits::max_in_flight`] are running.
    Overload(ClientId),
    /// It cancelled a request which the child has not seen, or has refused as not ready: that one has ended.
    Withdrawn(StreamId, ClientId),
}

/// Why a message is not for the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A request with this id is in flight in this session.
    DuplicateId(ClientId),
    /// The session has had its `initialize`: the request with this id repeats it.
    AlreadyInitialized(ClientId),
    /// A response to a request that the child never made.
    UnknownResponse,
}

/// What a line of the child means.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer to a request, with the client's own id.
    Answer {
        /// The stream of the POST that asked.
        stream: StreamId,
        /// The message.
        message: Bytes,
        /// Whether it is a result and not an error.
        success: bool,
    },
    /// A notification or a request for the client.
    Event {
        /// The stream it belongs to.
        stream: StreamId,
        /// The message.
        message: Bytes,
    },
    /// The bridge has answered the child itself; to what.
    Replied(&'static str),
    /// A new child has answered what the bridge told it in the client's place: which method, and whether it succeeded.
    Restored {
        /// The method.
        method: String,
        /// Whether the answer is a result and not an error.
        success: bool,
    },
    /// It refuses a request because the child is not ready: that will be sent again.
    NotReady,
    /// It reaches nobody.
    Dropped(Dropped),
}

/// Why a line of the child reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is no JSON-RPC message: a banner, a log line.
    Noise,
    /// It answers a request that has ended: cancelled, timed out, or answered before.
    Late,
    /// It answers a request that was never made.
    UnknownId,
    /// It reports progress to a client that takes nothing but JSON.
    NotStreamable,
    /// Several clients share the session, and it is not known for which of them it is.
    Nobodys,
}

impl Dropped {
    /// As it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Late => "late",
            Self::UnknownId => "unknown_id",
            Self::NotStreamable => "not_streamable",
            Self::Nobodys => "shared",
        }
    }
}

/// Whose message it was that was too long to take.
#[derive(Debug, PartialEq, Eq)]
pub enum TooLong {
    /// The answer to this request, which has ended.
    Call(StreamId, ClientId),
    /// Nobody waits for it.
    Nobody,
    /// It may be the answer to any of several requests.
    Unclear,
}

/// What a deadline that passed has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Expired {
    /// The child has not answered `initialize`: [`Limits::init_timeout`]. Said again until the session is abandoned.
    Initialize,
    /// The child has not answered a request: [`Limits::request_timeout`].
    Request(StreamId, ClientId),
    /// The child has not answered a cancelled request: [`CANCEL_GRACE`](super::CANCEL_GRACE).
    Cancelled(StreamId, ClientId),
    /// Nobody listened to a request of the child: [`LISTENER_GRACE`](super::LISTENER_GRACE). It has been answered with an error.
    Unheard,
}
