//! What goes to the child, and what waits until the child may see it.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::proto::ids::BridgeId;
use crate::proto::json::{Span, splice};
use crate::proto::message::{Notification, Request};

/// Bytes of messages that wait; beyond it the session takes no new message.
pub const MAX_HELD: usize = 8 * 1024 * 1024;

/// A request as it goes to the child.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// As it came.
    pub request: Request,
    /// Where its progress token lies, if the child is to see the bridge's own id there too.
    pub token: Option<Span>,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.request.text().len()
    }

    pub(super) fn detached(&self) -> Self {
        Self { request: self.request.detached(), token: self.token.clone() }
    }

    /// Appends it under this id.
    pub(super) fn write(&self, id: BridgeId, out: &mut BytesMut) {
        let (id, text, id_span) = (id.to_string(), self.request.text(), self.request.id_span());
        match self.token.clone() {
            None => splice(out, text, id_span, id.as_bytes()),
            Some(token) => {
                // The later one first: it does not move the other.
                let (first, second) =
                    if token.start < id_span.start { (token, id_span) } else { (id_span, token) };
                let mut once = BytesMut::new();
                splice(&mut once, text, second, id.as_bytes());
                splice(out, &once, first, id.as_bytes());
            }
        }
        out.extend_from_slice(b"\n");
    }
}

/// A message on its way to the child.
#[derive(Debug)]
pub(super) enum Message {
    Request(BridgeId, Outgoing),
    Notification(Notification),
}

impl Message {
    fn len(&self) -> usize {
        match self {
            Self::Request(_, request) => request.len(),
            Self::Notification(notification) => notification.text().len(),
        }
    }

    /// The same in a buffer of its own: it waits, and must not keep the body alive in which it came.
    fn detached(&self) -> Self {
        match self {
            Self::Request(id, request) => Self::Request(*id, request.detached()),
            Self::Notification(notification) => Self::Notification(notification.detached()),
        }
    }
}

/// Messages that wait until the child may see them, in their order.
#[derive(Debug, Default)]
pub(super) struct Held {
    queue: VecDeque<Message>,
    bytes: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether a further message may wait, besides at most `max` others.
    pub(super) fn has_room(&self, max: usize) -> bool {
        self.bytes < MAX_HELD && self.queue.len() < max
    }

    pub(super) fn push(&mut self, message: &Message) {
        self.bytes += message.len();
        self.queue.push_back(message.detached());
    }

    /// Lets a message wait before all others.
    pub(super) fn push_first(&mut self, message: Message) {
        self.bytes += message.len();
        self.queue.push_front(message);
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.queue.pop_front()?;
        self.bytes -= message.len();
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(message)
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.bytes, self.queue.iter().map(Message::len).sum::<usize>(), "each byte is counted");
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::proto::ids::Ids;
    use crate::proto::message::Message as Posted;

    #[test]
    fn what_waits_does_not_keep_the_body_alive_in_which_it_came() {
        let texts = [r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#, r#"{"jsonrpc":"2.0","method":"x"}"#];
        for text in texts {
            let body = Bytes::from([text.as_bytes(), &[b' '; 100_000]].concat());
            let message = match Posted::parse(body.slice(..text.len())).unwrap() {
                Posted::Request(request) => {
                    Message::Request(Ids::counted().next(|_| false), Outgoing { request, token: None })
                }
                Posted::Notification(notification) => Message::Notification(notification),
                Posted::Response(_) => panic!("{text}"),
            };
            let mut held = Held::default();
            held.push(&message);
            drop(message);
            assert!(body.is_unique(), "{text}");
            assert_eq!(held.bytes(), text.len());
        }
    }
}
