//! What comes out of the protocol core: bytes for the child's stdin, and one queue of all that is for others.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::ids::{ClientId, MAX_ID, StreamId};
use super::line::push_line;
use super::nearly::Wrong;

/// Where every part of the core puts its output.
#[derive(Debug, Default)]
pub struct Out {
    /// What is on its way to the child.
    pub stdin: BytesMut,
    replies: Replies,
    queue: VecDeque<Output>,
}

/// Where in the queue for stdin the bridge's own replies to the child are. A child that asks without end and does not
/// read is read no further: what it causes is counted apart from what clients send it, so that one which is busy
/// answering them is not stopped.
#[derive(Debug, Default)]
struct Replies {
    /// In bytes since the beginning; those that follow each other are one.
    spans: VecDeque<Range<u64>>,
    /// How many bytes have left the queue.
    left: u64,
    bytes: usize,
}

impl Replies {
    fn add(&mut self, span: Range<usize>) {
        self.bytes += span.len();
        let span = self.left + span.start as u64..self.left + span.end as u64;
        match self.spans.back_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => self.spans.push_back(span),
        }
    }

    fn leave(&mut self, count: usize) {
        self.left += count as u64;
        while let Some(first) = self.spans.front_mut()
            && first.start < self.left
        {
            let gone = self.left.min(first.end) - first.start;
            self.bytes -= usize::try_from(gone).unwrap_or(self.bytes);
            first.start += gone;
            if first.is_empty() {
                self.spans.pop_front();
            }
        }
        if self.spans.is_empty() {
            self.spans = VecDeque::new();
        }
    }
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

    /// Answers a request of the child: `token` is its id as it stands, `member` the result or error. An id that is too
    /// long, of which the token is empty or too long, is not echoed, and that is noted instead of `note`.
    pub(super) fn reply(&mut self, token: &str, member: &str, note: Note) {
        let fits = (1..=MAX_ID).contains(&token.len());
        self.note(if fits { note } else { Note::LongId });
        let token = if fits { token } else { "null" };
        let start = self.stdin.len();
        self.line(&[br#"{"jsonrpc":"2.0","id":"#, token.as_bytes(), b",", member.as_bytes(), b"}"]);
        self.replies.add(start..self.stdin.len());
    }

    /// How many bytes wait that answer the child's own requests in the bridge's name.
    pub fn unread_replies(&self) -> usize {
        self.replies.bytes
    }

    /// Notes that so many bytes have left [`stdin`](Self::stdin) at the front.
    pub fn left(&mut self, count: usize) {
        if !self.replies.spans.is_empty() {
            self.replies.leave(count);
        } else {
            self.replies.left += count as u64;
        }
    }

    /// Drops what is on its way to the child: that is gone.
    pub fn clear(&mut self) {
        (self.stdin, self.replies) = (BytesMut::new(), Replies::default());
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
    /// What names the request can be taken by nobody; why.
    Invalid(Wrong),
    /// [`Limits::max_in_flight`](super::link::Limits::max_in_flight) requests are in flight already.
    Overload,
    /// It is of 2026-07-28 and not served as it came.
    Declined(Declined),
    /// The token of its caller opens the bridge no more.
    Revoked,
}

/// Why a request of 2026-07-28 is not served as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// This revision has no such method any more (2026-07-28 `changelog`).
    Method,
    /// A header says other than the message; which and how (`basic/transports/streamable-http`, "Server Validation").
    Header(&'static str),
    /// The server needs this of the client, which has not declared it (`basic/index`, "Client Capabilities").
    Capability(Capability),
    /// The `requestState` is not one that this request was given; how (`basic/patterns/mrtr`).
    State(&'static str),
    /// Its parameters are not usable; how.
    Params(&'static str),
}

/// What a server may ask of a client (2026-07-28 `basic/patterns/mrtr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    Elicitation,
    Sampling,
    Roots,
}

impl Capability {
    /// As a client declares it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Elicitation => "elicitation",
            Self::Sampling => "sampling",
            Self::Roots => "roots",
        }
    }
}

/// How a handshake has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// The child has answered `initialize` with a result, and with this `protocolVersion` in it.
    Done(Option<Box<str>>),
    Refused,
    /// The child has not answered within [`Limits::init_timeout`](super::link::Limits::init_timeout).
    TimedOut,
    /// The child has written `initialize` back and has not answered in [its time](super::echo::ECHO_GRACE).
    Echoed,
    /// What the child has answered can be taken by nobody; why.
    Invalid(Wrong),
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
    /// A new child has been sent a call again that the lost one had answered.
    CallRestored {
        /// The place of its tool in [`Limits::restore`](super::link::Limits::restore).
        tool: usize,
        how: Result<(), NotRestored>,
    },
    /// The last call of this tool cannot be remembered, and so none of it is: it or its answer is too long, it is a task, or
    /// too much is remembered. The place as above.
    NotRemembered(usize),
    /// The id of a request of the child is longer than [`MAX_ID`]: the answer has null in its place.
    LongId,
    /// The child's answer to `initialize` is longer than the so many bytes that can be kept for the session's clients.
    LongGreeting(usize),
    /// The child has refused a request because it is not ready: that will be sent again.
    NotReady,
    /// A message of the child reaches no client.
    Dropped(Dropped),
    /// The child has written back what was written to it.
    Echo,
}

/// Why a call that a new child was sent again has not succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRestored {
    /// The child has answered with an error: its code and its message, as far as they may be shown.
    Error { code: String, said: String },
    /// The tool has answered that it failed.
    ToolError,
    /// The child has not answered within [`Limits::init_timeout`](super::link::Limits::init_timeout).
    Timeout,
    /// The child was lost before it answered.
    Lost,
    /// The answer is too long to take, or no message.
    Unreadable,
}

impl NotRestored {
    /// As it stands in the log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Error { .. } => "error",
            Self::ToolError => "tool_error",
            Self::Timeout => "timeout",
            Self::Lost => "server_lost",
            Self::Unreadable => "unreadable",
        }
    }
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
    /// It belongs to a call that the bridge has sent again.
    Restored,
}

impl Dropped {
    /// As it stands in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::UnknownId => "unknown_id",
            Self::NotStreamable => "not_streamable",
            Self::Unrelated => "shared",
            Self::Restored => "restored",
        }
    }
}
