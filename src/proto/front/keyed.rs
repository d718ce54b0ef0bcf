//! Several clients that cannot be told apart, with a session that the bridge has opened in its own name. Only what
//! belongs to a request of one of them reaches a client at all.

use std::time::Duration;

use super::greeting::{Greeting, MAX_GREETING};
use super::{
    Caller, Front, Origin, Readers, Refusal, acknowledge, cancelled, expired, is_initialized, pass_progress,
    too_long, with_id,
};
use crate::proto::ids::{ClientId, StreamId};
use crate::proto::incoming::Incoming;
use crate::proto::link::{Answered, Limits, Link, Outgoing, own_reply};
use crate::proto::message::{Kind, Message, Notification, Request};
use crate::proto::nearly::Broken;
use crate::proto::output::{Dropped, Handshake, Note, Out, Output, Unanswered};

/// The front of a session that several clients share.
#[derive(Debug)]
pub struct Keyed {
    link: Link<Caller>,
    max_in_flight: usize,
    /// The first child's answer to the bridge's `initialize`.
    greeting: Option<Greeting>,
    /// Clients whose `initialize` waits for that answer.
    waiting: Vec<Caller>,
}

impl Keyed {
    /// Begins the session with the bridge's own `initialize`.
    pub fn open(limits: Limits, initialize: &Request, now: Duration, out: &mut Out) -> Self {
        Self {
            max_in_flight: limits.max_in_flight,
            link: Link::open(limits, initialize, true, now, out),
            greeting: None,
            waiting: Vec::new(),
        }
    }

    /// A client opens the session, as each of them may: it gets what the child has answered to the bridge.
    fn initialize(&mut self, caller: Caller, out: &mut Out) {
        if let Some(greeting) = &self.greeting {
            let message = greeting.for_client(&caller.client);
            out.push(Output::Answer { stream: caller.stream, message, success: true });
        } else if self.waiting.len() >= self.max_in_flight {
            caller.unanswered(Unanswered::Overload, out);
        } else {
            self.waiting.push(caller);
        }
    }

    fn request(&mut self, request: Request, from: Origin<'_>, now: Duration, out: &mut Out) {
        let (caller, token) = Caller::of(&request, from);
        if request.method() == "initialize" {
            self.initialize(caller, out);
        } else if is_initialized(&request) {
            acknowledge(&mut self.link, &caller, now, out);
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

    fn child_answer(&mut self, answer: Incoming<'_>, now: Duration, out: &mut Out) {
        match self.link.answer(&answer, now, out) {
            Answered::Call { caller, .. } => {
                let success = answer.envelope.kind == Kind::Success;
                let message = with_id(answer, &caller.client);
                out.push(Output::Answer { stream: caller.stream, message, success });
            }
            Answered::Handshake(Handshake::Done(_)) if answer.text().len() > MAX_GREETING => {
                out.note(Note::LongGreeting(MAX_GREETING));
                out.push(Output::Handshake(Handshake::Refused));
            }
            Answered::Handshake(done @ Handshake::Done(_)) => {
                out.push(Output::Handshake(done));
                self.greeting.get_or_insert_with(|| Greeting::of(&answer));
                for caller in std::mem::take(&mut self.waiting) {
                    self.initialize(caller, out);
                }
            }
            Answered::Handshake(failed) => out.push(Output::Handshake(failed)),
            Answered::Retried { .. } | Answered::Nothing => {}
        }
    }

    /// Only progress names its request.
    fn child_notification(&self, message: Incoming<'_>, out: &mut Out) {
        if message.envelope.method(message.text()) == "notifications/progress" {
            pass_progress(&self.link, message, |caller| Some(caller), out);
        } else {
            out.note(Note::Dropped(Dropped::Unrelated));
        }
    }
}

impl Front for Keyed {
    fn client(
        &mut self,
        message: Message,
        from: Origin<'_>,
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

    fn child(&mut self, message: Incoming<'_>, now: Duration, _: Readers<'_>, out: &mut Out) {
        if self.link.echoes(&message, now, out) {
            return;
        }
        match message.envelope.kind {
            Kind::Success | Kind::Failure => self.child_answer(message, now, out),
            Kind::Request => own_reply(&message, out),
            Kind::Notification => self.child_notification(message, out),
        }
    }

    fn child_too_long(&mut self, head: &[u8], out: &mut Out) {
        if let Some((_, caller, why)) = too_long(&mut self.link, head, out) {
            caller.unanswered(why, out);
        }
    }

    fn child_broken(&mut self, broken: &Broken<'_>, out: &mut Out) -> bool {
        match super::broken(&mut self.link, broken, out) {
            Ok((_, caller, why)) => {
                caller.unanswered(why, out);
                true
            }
            Err(ended) => ended,
        }
    }

    fn awaits(&self, answer: &Incoming<'_>) -> bool {
        self.link.awaits(answer)
    }

    fn expire(&mut self, now: Duration, _: Readers<'_>, out: &mut Out) {
        while let Some((_, caller, why)) = expired(&mut self.link, now, out) {
            caller.unanswered(why, out);
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

    fn held_bytes(&self) -> usize {
        self.link.held_bytes()
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
