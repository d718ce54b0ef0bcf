//! A JSON answer that is written as its client takes it: what it does not take stays in the session's queue, where it is
//! counted and can be dropped.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};

use super::problem::Problem;
use crate::session::stream::{Delivery, Event, Part, Payload, Reader, Taken};

/// What waits in a queue, as a JSON answer.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// How many answers there are.
    answers: usize,
    /// How long their texts are together, in bytes.
    texts: usize,
    /// Whether the last one is among them.
    pub(super) complete: bool,
    /// Why the bridge answers one of them itself.
    pub(super) reason: Option<&'static str>,
}

impl Outline {
    pub(super) fn of(waiting: &VecDeque<Delivery>) -> Self {
        let mut outline = Self::default();
        for delivery in waiting {
            let Delivery::Event(Event { payload, last, .. }) = delivery else { continue };
            if !payload.is_answer() {
                continue;
            }
            outline.answers += 1;
            outline.complete |= last;
            outline.texts += match payload {
                Payload::Message(message) | Payload::Answer { message, .. } => message.len(),
                Payload::Fault { .. } => text(payload, &mut outline.reason).len(),
            };
        }
        outline
    }

    /// Whether there is one answer and no more will come.
    pub(super) fn is_single(&self) -> bool {
        self.complete && self.answers == 1
    }

    /// The length of the whole, in bytes, where that is known.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self { complete: false, .. } => None,
            Self { answers: 1, texts, .. } => Some(*texts),
            Self { answers, texts, .. } => Some(texts + answers + 1), // brackets, and commas between
        }
    }
}

/// The JSON text of an answer. `reason`: set where it is the bridge's own.
pub(super) fn text(payload: &Payload, reason: &mut Option<&'static str>) -> Bytes {
    match payload {
        Payload::Message(message) | Payload::Answer { message, .. } => message.clone(),
        Payload::Fault { id, fault } => {
            let row = Problem::Fault(fault.clone()).row();
            *reason = Some(row.reason);
            row.json(Some(&id.0))
        }
    }
}

/// The answers of one POST: one by itself, several as an array.
#[derive(Debug)]
pub struct JsonBody {
    reader: Reader,
    is_array: bool,
    /// Whether no answer has been begun.
    is_first: bool,
    /// How many bytes are still to be given, where that is known.
    left: Option<usize>,
    ended: bool,
}

impl JsonBody {
    pub(super) fn new(reader: Reader, outline: &Outline) -> Self {
        let left = outline.length();
        Self { reader, is_array: !outline.is_single(), is_first: true, left, ended: false }
    }

    pub(super) fn left(&self) -> Option<usize> {
        self.left
    }

    pub(super) fn is_over(&self) -> bool {
        self.ended
    }

    pub(super) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let most = self.reader.piece();
        let mut chunk = BytesMut::new();
        while chunk.len() < most && !self.ended {
            let Poll::Ready(taken) = self.reader.poll_take(most - chunk.len(), context) else { break };
            match taken {
                Some(Taken::Whole(Delivery::Event(event))) if event.payload.is_answer() => {
                    let text = text(&event.payload, &mut None);
                    if !self.is_array && chunk.is_empty() {
                        self.ended = true;
                        return Poll::Ready(Some(Ok(self.give(text))));
                    }
                    self.begin(&mut chunk, text.len());
                    chunk.extend_from_slice(&text);
                    self.end(&mut chunk, event.last);
                }
                Some(Taken::Part(Part { bytes, answer: true, begins, ends, last, .. })) => {
                    if begins {
                        self.begin(&mut chunk, bytes.len());
                    }
                    chunk.extend_from_slice(&bytes);
                    if ends {
                        self.end(&mut chunk, last);
                    }
                }
                // A client that takes no events gets the answers alone.
                Some(Taken::Part(_) | Taken::Whole(Delivery::Event(_) | Delivery::Pending)) => {}
                // Without its end: a length that is not reached, or an array that is not closed.
                Some(Taken::Whole(_)) | None => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(io::Error::other(
                        "the answer is not taken, or taken elsewhere",
                    ))));
                }
            }
        }
        if chunk.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(self.give(chunk.freeze())))) }
    }

    fn begin(&mut self, chunk: &mut BytesMut, length: usize) {
        chunk.reserve(length + 2);
        if self.is_array {
            chunk.extend_from_slice(if self.is_first { b"[" } else { b"," });
        }
        self.is_first = false;
    }

    fn end(&mut self, chunk: &mut BytesMut, last: bool) {
        if last {
            self.ended = true;
            if self.is_array {
                chunk.extend_from_slice(b"]");
            }
        }
    }

    fn give(&mut self, piece: Bytes) -> Bytes {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(piece.len());
        }
        self.reader.hand(piece)
    }
}
