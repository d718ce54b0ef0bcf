//! Several clients that cannot be told apart, with a session that the bridge has opened in its own name. Only what
//! belongs to a request of one of them reaches a client at all.

use std::time::Duration;

use bytes::BytesMut;

use super::{Caller, Front, Origin, Readers, Refusal, Takes, cancelled, with_id};
use crate::proto::ids::{ClientId, StreamId};
use crate::proto::json::{Span, splice};
use crate::proto::link::{Answered, Expired, Limits, Link, Outgoing, TooLong, own_reply};
use crate::proto::message::{Envelope, Kind, Malformed, Message, Notification, Request};
use crate::proto::output::{Dropped, Handshake, Note, Out, Output, Unanswered};

/// The front of a session that several clients share.
#[derive(Debug)]
pub struct Keyed {
    link: Link<Caller>,
    max_in_flight: usize,
    /// The first child's answer to the bridge's `initialize`, and where its id lies, if it has one.
    init_result: Option<(Box<str>, Option<Span>)>,
    /// Clients whose `initialize` waits for that answer.
    waiting: Vec<Caller>,
}

impl Keyed {
    /// Begins the session with the bridge's own `initialize`.
    pub fn open(limits: Limits, initialize: &Request, now: Duration, out: &mut Out) -> Self {
        Self {
            max_in_flight: limits.max_in_flight,
            link: Link::open(limits, initialize, true, now, out),
            init_result: None,
            waiting: Vec::new(),
        }
    }

    /// A client opens the session, as each of them may: it gets what the child has answered to the bridge.
    fn initialize(&mut self, caller: Caller, out: &mut Out) {
        if let Some((answer, id)) = &self.init_result {
            deliver_init(caller, answer, id.clone(), out);
        } else if self.waiting.len() >= self.max_in_flight {
            caller.unanswered(Unanswered::Overload, out);
        } else {
            self.waiting.push(caller);
        }
    }

    fn request(&mut self, request: Request, from: Origin, now: Duration, out: &mut Out) {
        let (caller, token) = Caller::of(&request, from);
        if request.method() == "initialize" {
            self.initialize(caller, out);
        } else if self.link.is_full() {
            caller.unanswered(Unanswered::Overload, out);
        } else {
            // The child sees the bridge's own token: two clients may have chosen the same.
            self.link.request(caller, Outgoing { request, token }, from.arrived, now, out);
        }
    }

    /// A cancellation names a client's id, and several clients may have one request each of that id.
    fn notification(&mut self, notification: Notification, now: Duration, out: &mut Out) {
        let Some((client, span)) = cancelled(&notification) else {
            return self.link.notification(notification, now, out);
        };
        let named = self.link.callers().filter(|(_, caller)| Some(&caller.client) == client.as_ref());
        let named: Vec<_> = named.map(|(id, _)| id).collect();
        match named[..] {
            [id] => {
                if let Some(caller) = self.link.cancel(id, notification.text(), span, now, out) {
                    caller.unanswered(Unanswered::Cancelled, out);
                }
            }
            [] => out.note(Note::Swallowed("the cancelled request is not in flight")),
            _ => out.note(Note::Swallowed("several clients have a request of this id in flight")),
        }
    }

    fn child_answer(&mut self, text: &str, envelope: &Envelope, now: Duration, out: &mut Out) {
        match self.link.answer(text, envelope, now, out) {
            Answered::Call { caller, .. } => {
                let message = with_id(text, envelope.id.clone(), &caller.client);
                let success = envelope.kind == Kind::Success;
                out.push(Output::Answer { stream: caller.stream, message, success });
            }
            Answered::Handshake(done @ Handshake::Done(_)) => {
                out.push(Output::Handshake(done));
                self.init_result.get_or_insert_with(|| (text.into(), envelope.id.clone()));
                for caller in std::mem::take(&mut self.waiting) {
                    self.initialize(caller, out);
                }
            }
            Answered::Handshake(failed) => out.push(Output::Handshake(failed)),
            Answered::Retried { .. } | Answered::Nothing => {}
        }
    }

    /// Only progress names its request: its token is the bridge's own id of it.
    fn child_notification(&mut self, text: &str, envelope: &Envelope, out: &mut Out) {
        let progress = envelope.method(text.as_bytes()) == "notifications/progress";
        let span = envelope.subject().filter(|_| progress);
        let caller = span.clone().and_then(|span| self.link.named(text.get(span)?));
        match (span, caller) {
            (Some(_), Some(Caller { takes: Takes::AnswerOnly, .. })) => {
                out.note(Note::Dropped(Dropped::NotStreamable));
            }
            (Some(span), Some(Caller { stream, token: Some(token), .. })) => {
                let mut message = BytesMut::new();
                splice(&mut message, text.as_bytes(), span, token.0.as_json().as_bytes());
                out.push(Output::Message { stream: *stream, message: message.freeze() });
            }
            _ => out.note(Note::Dropped(Dropped::Unrelated)),
        }
    }
}

impl Front for Keyed {
    fn client(
        &mut self,
        message: Message,
        from: Origin,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        match message {
            Message::Request(request) => self.request(request, from, now, out),
            Message::Notification(notification) => self.notification(notification, now, out),
            // The child's requests are all answered by the bridge.
            Message::Response(_) => return Err(Refusal::UnknownResponse),
        }
        Ok(())
    }

    fn child(&mut self, text: &str, now: Duration, _: Readers<'_>, out: &mut Out) -> Result<(), Malformed> {
        let envelope = Envelope::peek(text.as_bytes())?;
        match envelope.kind {
            Kind::Success | Kind::Failure => self.child_answer(text, &envelope, now, out),
            Kind::Request => {
                let what = own_reply(text, &envelope, out);
                out.note(Note::Replied(what));
            }
            Kind::Notification => self.child_notification(text, &envelope, out),
        }
        Ok(())
    }

    fn child_too_long(&mut self, head: &[u8], out: &mut Out) {
        match self.link.too_long(head, out) {
            TooLong::Call(_, caller) => caller.unanswered(Unanswered::TooLong, out),
            TooLong::Handshake => out.push(Output::Handshake(Handshake::Refused)),
            TooLong::Nothing => {}
            TooLong::Unclear => out.push(Output::AnswerToUnknown),
        }
    }

    fn expire(&mut self, now: Duration, _: Readers<'_>, out: &mut Out) {
        while let Some(expired) = self.link.expire(now, out) {
            match expired {
                Expired::Handshake => out.push(Output::Handshake(Handshake::TimedOut)),
                Expired::Call(_, caller, why) => caller.unanswered(why, out),
            }
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.link.next_deadline()
    }

    /// A client that left while its `initialize` waits does not come back for the answer.
    fn reader_left(&mut self, stream: StreamId, _: bool, _: Duration, out: &mut Out) {
        for caller in self.waiting.extract_if(.., |caller| caller.stream == stream) {
            caller.unanswered(Unanswered::Cancelled, out);
        }
    }

    fn in_flight(&self) -> usize {
        self.link.in_flight() + self.waiting.len()
    }

    fn accepting(&self) -> bool {
        self.link.accepting()
    }

    fn can_restart(&self) -> bool {
        self.link.can_restart()
    }

    fn child_lost(&mut self) -> Vec<(StreamId, ClientId)> {
        self.link.child_lost().into_iter().map(|(_, caller)| (caller.stream, caller.client)).collect()
    }

    fn restart(&mut self, now: Duration, out: &mut Out) {
        self.link.restart(now, out);
    }

    fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        let callers = self.link.abandon().chain(self.waiting.drain(..));
        callers.map(|caller| (caller.stream, caller.client)).collect()
    }

    #[cfg(test)]
    fn check(&self) {
        self.link.check();
    }
}

fn deliver_init(caller: Caller, answer: &str, id: Option<Span>, out: &mut Out) {
    let message = with_id(answer, id, &caller.client);
    out.push(Output::Answer { stream: caller.stream, message, success: true });
}
