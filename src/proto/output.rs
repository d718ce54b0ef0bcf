//! What comes out of the protocol core: bytes for the child's stdin, and one queue of all that is for others.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::ids::{ClientId, StreamId};
use super::line::push_line;

/// Where every part of the core puts its output.
#[derive(Debug, Default)]
pub struct Out {
    /// What is on its way to the child.
    pub stdin: BytesMut,
    queue: VecDeque<Output>,
}

impl Out {
    /// The oldest output that has not been taken.
    pub fn take(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(super) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    pub(super) fn note(&mut self, note: Note) {
        self.push(Output::Note(note));
    }

    /// One line for the child.
    pub(super) fn line(&mut self, parts: &[&[u8]]) {
        push_line(&mut self.stdin, parts);
    }

    /// Answers a request of the child: `token` is its id as it stands, `member` the result or error.
    pub(super) fn reply(&mut self, token: &str, member: &str) {
        self.line(&[br#"{"jsonrpc":"2.0","id":"#, token.as_bytes(), b",", member.as_bytes(), b"}"]);
    }
}

/// One thing that the core has to say to others than the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A notification or a request of the child.
    Message {
        /// The stream it belongs to.
        stream: StreamId,
        message: Bytes,
    },
    /// The child's answer to a request, with the client's own id.
    Answer {
        /// The stream of the POST that asked.
        stream: StreamId,
        message: Bytes,
        /// Whether it is a result and not an error.
        success: bool,
    },
    /// A request ends without an answer of the child: the session answers it with an error.
    Unanswered {
        /// The stream of the POST that asked.
        stream: StreamId,
        /// The client's own id.
        id: ClientId,
        why: Unanswered,
    },
    /// How the handshake with the present child has ended.
    Handshake(Handshake),
    /// An answer was too long to take, and nothing in it says which of several requests it ends.
    AnswerToUnknown,
    /// For the log.
    Note(Note),
}

/// Why a request ends without an answer of the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The child has not answered in time: [`Limits::request_timeout`](super::link::Limits::request_timeout).
    Timeout,
    /// The client cancelled it. The child has not seen it, or has not answered within
    /// [`CANCEL_GRACE`](super::link::CANCEL_GRACE).
    Cancelled,
    /// The answer is too long to take.
    TooLong,
    /// [`Limits::max_in_flight`](super::link::Limits::max_in_flight) requests are in flight already.
    Overload,
}

/// How a handshake has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The child has answered `initialize` with a result, and with this `protocolVersion` in it.
    Done(Option<Box<str>>),
    Refused,
    /// The child has not answered within [`Limits::init_timeout`](super::link::Limits::init_timeout).
    TimedOut,
}

/// What an operator may want to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A message of a client needs no forwarding; why.
    Swallowed(&'static str),
    /// The bridge has answered a request of the child itself; which.
    Replied(&'static str),
    /// No client listened to a request of the child for [`LISTENER_GRACE`](super::front::LISTENER_GRACE): the bridge has
    /// answered it with an error.
    NoListener,
    /// A new child has answered what the bridge told it in the client's place.
    Restored {
        method: String,
        /// Whether the answer is a result and not an error.
        success: bool,
    },
    /// The child has refused a request because it is not ready: that will be sent again.
    NotReady,
    /// A message of the child reaches no client.
    Dropped(Dropped),
}

/// Why a message of the child reaches no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It answers a request that has ended: cancelled, timed out, or answered before.
    Late,
    /// It answers a request that was never made.
    UnknownId,
    /// It reports progress to a client that takes nothing but JSON.
    NotStreamable,
    /// Several clients share the session, and it does not name a request of one of them.
    Unrelated,
}

impl Dropped {
    /// As it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::UnknownId => "unknown_id",
            Self::NotStreamable => "not_streamable",
            Self::Unrelated => "shared",
        }
    }
}
