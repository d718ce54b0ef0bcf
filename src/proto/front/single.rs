//! One client with a session of its own: every message of the child is for it, and goes to one of its streams.
//!
//! A long file with one idea: whose each message is. The requests of either side are kept here by their names.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{
    Caller, Front, LISTENER_GRACE, Origin, Readers, Readership, Refusal, Takes, acknowledge, cancelled,
    is_initialized, progress_token, related_stream, with_id,
};
use crate::proto::ids::{BridgeId, ChildId, ClientId, Id, ProgressToken, StreamId};
use crate::proto::incoming::Incoming;
use crate::proto::json::Span;
use crate::proto::link::{Answered, Expired, Limits, Link, Outgoing, Untaken};
use crate::proto::message::{Kind, Message, Notification, Request, Response};
use crate::proto::nearly::Broken;
use crate::proto::output::{Dropped, Handshake, Note, Out, Output, Unanswered};

/// How many requests of the child may wait for a client's answer at once.
pub(super) const MAX_PENDING: usize = 256;

/// How many of the child's requests are remembered after they ended, so that a late answer is not refused.
pub(super) const MAX_RECENT: usize = 64;

/// A request of the child that has no answer yet.
#[derive(Debug)]
struct Pending {
    stream: StreamId,
    /// When it is answered with an error, unless a client listens by then. `None`: a client has it, and a person
    /// may take any time to answer.
    answer_by: Option<Duration>,
}

/// The front of a session with one client.
#[derive(Debug)]
pub struct Single {
    link: Link<Caller>,
    /// The client's `initialize`, until it is answered.
    opener: Option<Caller>,
    by_client: HashMap<ClientId, BridgeId>,
    /// Of two requests with the same progress token the newer one gets the progress.
    by_token: HashMap<ProgressToken, BridgeId>,
    pending: HashMap<ChildId, Pending>,
    /// Requests of the child that have ended.
    recent: VecDeque<ChildId>,
}

impl Single {
    /// Begins the session with the client's `initialize`.
    pub fn open(
        limits: Limits,
        initialize: &Request,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Self {
        Self {
            link: Link::open(limits, initialize, false, now, out),
            opener: Some(Caller::of(initialize, from).0),
            by_client: HashMap::new(),
            by_token: HashMap::new(),
            pending: HashMap::new(),
            recent: VecDeque::new(),
        }
    }

    fn request(
        &mut self,
        request: Request,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let (caller, _) = Caller::of(&request, from);
        let client = caller.client.clone();
        if request.method() == "initialize" {
            return Err(Refusal::AlreadyInitialized(client));
        }
        if self.by_client.contains_key(&client) || self.opened_by(&client) {
            return Err(Refusal::DuplicateId(client));
        }
        if is_initialized(&request) {
            acknowledge(&mut self.link, &caller, now, out);
            return Ok(());
        }
        if self.link.is_full() {
            caller.unanswered(Unanswered::Overload, out);
            return Ok(());
        }
        let token = caller.token.clone();
        let id = self.link.request(caller, Outgoing { request, token: None }, from.arrived, now, out);
        self.by_client.insert(client, id);
        if let Some(token) = token {
            self.by_token.insert(token, id);
        }
        Ok(())
    }

    /// A cancellation names the client's id; the child knows another. One that names no request in flight goes no
    /// further: the child may know another request by the same number.
    fn notification(&mut self, notification: Notification, now: Duration, out: &mut Out) {
        let Some((client, span)) = cancelled(&notification) else {
            return self.link.notification(notification, now, out);
        };
        if client.as_ref().is_some_and(|client| self.opened_by(client)) {
            // 2025-11-25 `basic/utilities/cancellation`
            return out.note(Note::Swallowed("initialize cannot be cancelled"));
        }
        let Some(id) = client.and_then(|client| self.by_client.get(&client).copied()) else {
            return out.note(Note::Swallowed("the cancelled request is not in flight"));
        };
        if let Some(caller) = self.link.cancel(id, notification.text(), span, now, out) {
            self.end(id, caller, Unanswered::Cancelled, out);
        }
    }

    fn response(&mut self, response: &Response, out: &mut Out) -> Result<(), Refusal> {
        let id = ChildId(response.id().clone());
        if self.pending.remove(&id).is_some() {
            self.remember(id);
            out.line(&[response.text()]);
            return Ok(());
        }
        if self.recent.contains(&id) {
            out.note(Note::Swallowed("the server's request has ended"));
            return Ok(());
        }
        Err(Refusal::UnknownResponse)
    }

    fn child_answer(&mut self, answer: Incoming<'_>, now: Duration, out: &mut Out) {
        let success = answer.envelope.kind == Kind::Success;
        let answered = self.link.answer(&answer, now, out);
        let deliver = |caller: Caller, out: &mut Out| {
            let message = with_id(answer, &caller.client);
            out.push(Output::Answer { stream: caller.stream, message, success });
        };
        match answered {
            Answered::Call { id, caller } => {
                self.forget(id, &caller);
                deliver(caller, out);
            }
            Answered::Handshake(done @ Handshake::Done(_)) => {
                // First of all the version: it decides the form of the answer.
                out.push(Output::Handshake(done));
                if let Some(opener) = self.opener.take() {
                    deliver(opener, out);
                }
            }
            Answered::Handshake(failed) => {
                if let Some(opener) = self.opener.take() {
                    deliver(opener, out);
                }
                out.push(Output::Handshake(failed));
            }
            Answered::Retried { old, new } => {
                self.by_client.values_mut().filter(|id| **id == old).for_each(|id| *id = new);
                self.by_token.values_mut().filter(|id| **id == old).for_each(|id| *id = new);
            }
            Answered::Nothing => {}
        }
    }

    fn child_request(&mut self, message: Incoming<'_>, now: Duration, readers: Readers<'_>, out: &mut Out) {
        let token = id_token(&message);
        let method = message.envelope.method(message.text());
        if method == "ping" && readers(StreamId::LISTENING) != Readership::Present {
            return out.reply(token, r#""result":{}"#, Note::Replied("ping"));
        }
        let Some(id) = Id::parse(token).map(ChildId) else {
            let error = r#""error":{"code":-32600,"message":"\"id\" must be a string or an integer"}"#;
            return out.reply(token, error, Note::Replied("a request without a usable id"));
        };
        if self.pending.len() >= MAX_PENDING {
            let error = r#""error":{"code":-32603,"message":"too many requests wait for the client"}"#;
            return out.reply(token, error, Note::Replied("too many requests of the child"));
        }
        let related = matches!(&*method, "sampling/createMessage" | "elicitation/create" | "roots/list");
        let stream = if related { self.related_stream(readers) } else { StreamId::LISTENING };
        let answer_by = (readers(stream) != Readership::Present).then(|| now + LISTENER_GRACE);
        self.pending.insert(id, Pending { stream, answer_by });
        out.push(Output::Message { stream, message: message.into_line() });
    }

    fn child_notification(&mut self, message: Incoming<'_>, readers: Readers<'_>, out: &mut Out) {
        let stream = match &*message.envelope.method(message.text()) {
            "notifications/progress" => match self.progress_of(&message) {
                Some((Caller { takes: Takes::AnswerOnly, .. }, _)) => {
                    return out.note(Note::Dropped(Dropped::NotStreamable));
                }
                Some((caller, Some(span))) => {
                    let (stream, token) = (caller.stream, caller.token().clone());
                    let message = message.replaced(span, token.as_json().as_bytes());
                    return out.push(Output::Message { stream, message });
                }
                Some((caller, None)) => caller.stream,
                None if self.is_of_repeated(&message) => {
                    return out.note(Note::Dropped(Dropped::Restored));
                }
                None => StreamId::LISTENING,
            },
            "notifications/cancelled" => self.child_cancelled(&message, readers),
            "notifications/message" => self.related_stream(readers),
            _ => StreamId::LISTENING,
        };
        out.push(Output::Message { stream, message: message.into_line() });
    }

    /// Whose progress it is, and where the token lies if it is not the client's: many servers take the id of a request
    /// for it, and see the bridge's.
    fn progress_of(&self, message: &Incoming<'_>) -> Option<(&Caller, Option<Span>)> {
        let span = message.envelope.subject()?;
        let named = message.token(span.clone());
        let token = progress_token(named);
        let opener = self.opener.as_ref().filter(|opener| opener.token.is_some() && opener.token == token);
        let by_token = token.and_then(|token| self.by_token.get(&token));
        if let Some(caller) = by_token.and_then(|id| self.link.caller(*id)).or(opener) {
            return Some((caller, None));
        }
        let opener = self.opener.as_ref().filter(|_| self.link.names_handshake(named));
        Some((self.link.named(named).or(opener)?, Some(span)))
    }

    /// Whether it is the progress of a call that the bridge has sent again, by the bridge's own id.
    fn is_of_repeated(&self, progress: &Incoming<'_>) -> bool {
        progress.envelope.subject().is_some_and(|span| self.link.names_repeated(progress.token(span)))
    }

    /// The child takes back one of its own requests: the stream that got the request gets this too.
    fn child_cancelled(&mut self, message: &Incoming<'_>, readers: Readers<'_>) -> StreamId {
        let span = message.envelope.subject();
        let id = span.and_then(|span| Id::parse(message.token(span))).map(ChildId);
        let Some((id, pending)) = id.and_then(|id| self.pending.remove_entry(&id)) else {
            return StreamId::LISTENING;
        };
        self.remember(id);
        match readers(pending.stream) {
            Readership::Present | Readership::MayResume => pending.stream,
            Readership::Absent => StreamId::LISTENING,
        }
    }

    /// stdio does not say which call a log line or a request of the child belongs to.
    fn related_stream(&self, readers: Readers<'_>) -> StreamId {
        let callers = || self.link.at_work().chain(&self.opener);
        related_stream(|| callers().map(|caller| (caller.stream, caller.takes)), readers)
    }

    /// Whether this is the id of the client's `initialize`, and that has no answer yet.
    fn opened_by(&self, client: &ClientId) -> bool {
        self.opener.as_ref().is_some_and(|opener| opener.client == *client)
    }

    fn end(&mut self, id: BridgeId, caller: Caller, why: Unanswered, out: &mut Out) {
        self.forget(id, &caller);
        caller.unanswered(why, out);
    }

    /// A request has ended: its names are free.
    fn forget(&mut self, id: BridgeId, caller: &Caller) {
        self.by_client.remove(&caller.client);
        if let Some(token) = &caller.token
            && self.by_token.get(token) == Some(&id)
        {
            self.by_token.remove(token);
        }
    }

    /// A request of the child has ended.
    fn remember(&mut self, id: ChildId) {
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
    }

    /// Answers the child's requests that have waited too long for a client to listen.
    fn expire_pending(&mut self, now: Duration, readers: Readers<'_>, out: &mut Out) {
        let due = |pending: &Pending| pending.answer_by.is_some_and(|deadline| deadline <= now);
        while let Some((id, pending)) = self.pending.iter_mut().find(|(_, pending)| due(pending)) {
            if readers(pending.stream) == Readership::Present {
                pending.answer_by = None; // a client listens by now
                continue;
            }
            let id = id.clone();
            self.pending.remove(&id);
            let error = r#""error":{"code":-32603,"message":"no client listens for this request"}"#;
            out.reply(id.0.as_json(), error, Note::NoListener);
            self.remember(id);
        }
    }

    /// How many requests of the child wait for an answer, and how many that have ended are remembered.
    #[cfg(test)]
    pub(super) fn child_requests(&self) -> (usize, usize) {
        (self.pending.len(), self.recent.len())
    }

    /// How many messages wait for the handshake.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.link.held()
    }

    /// Bytes of requests that are kept to be sent again.
    #[cfg(test)]
    pub(super) fn kept_for_retry(&self) -> usize {
        self.link.kept_for_retry()
    }
}

impl Front for Single {
    fn client(
        &mut self,
        message: Message,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        match message {
            Message::Request(request) => self.request(request, from, now, out),
            Message::Notification(notification) => {
                self.notification(notification, now, out);
                Ok(())
            }
            Message::Response(response) => self.response(&response, out),
        }
    }

    fn child(&mut self, message: Incoming<'_>, now: Duration, readers: Readers<'_>, out: &mut Out) {
        if self.link.echoes(&message, now, out) {
            return;
        }
        match message.envelope.kind {
            Kind::Success | Kind::Failure => self.child_answer(message, now, out),
            Kind::Request => self.child_request(message, now, readers, out),
            Kind::Notification => self.child_notification(message, readers, out),
        }
    }

    fn child_too_long(&mut self, head: &[u8], out: &mut Out) {
        match self.link.too_long(head, out) {
            Untaken::Call(id, caller) => self.end(id, caller, Unanswered::TooLong, out),
            Untaken::Handshake => {
                if let Some(opener) = self.opener.take() {
                    opener.unanswered(Unanswered::TooLong, out);
                }
                out.push(Output::Handshake(Handshake::Refused));
            }
            Untaken::Nothing => {}
            Untaken::Unclear => out.push(Output::AnswerToUnknown),
        }
    }

    fn child_broken(&mut self, broken: &Broken<'_>, out: &mut Out) -> bool {
        let wrong = broken.wrong;
        match self.link.broken(broken) {
            Untaken::Call(id, caller) => self.end(id, caller, Unanswered::Invalid(wrong), out),
            Untaken::Handshake => {
                if let Some(opener) = self.opener.take() {
                    opener.unanswered(Unanswered::Invalid(wrong), out);
                }
                out.push(Output::Handshake(Handshake::Invalid(wrong)));
            }
            Untaken::Nothing | Untaken::Unclear => return false,
        }
        true
    }

    fn awaits(&self, answer: &Incoming<'_>) -> bool {
        self.link.awaits(answer)
    }

    fn expire(&mut self, now: Duration, readers: Readers<'_>, out: &mut Out) {
        while let Some(expired) = self.link.expire(now, out) {
            match expired {
                Expired::Handshake { echoed: true } => out.push(Output::Handshake(Handshake::Echoed)),
                Expired::Handshake { .. } => out.push(Output::Handshake(Handshake::TimedOut)),
                Expired::Call(id, caller, why) => self.end(id, caller, why, out),
            }
        }
        self.expire_pending(now, readers, out);
    }

    fn next_deadline(&self) -> Option<Duration> {
        let pending = self.pending.values().filter_map(|pending| pending.answer_by).min();
        self.link.next_deadline().into_iter().chain(pending).min()
    }

    /// A request of the child may never be read, if the reader of its stream has left.
    fn reader_left(&mut self, stream: StreamId, took_all: bool, now: Duration, _: &mut Out) {
        if took_all {
            return;
        }
        for pending in self.pending.values_mut().filter(|pending| pending.stream == stream) {
            pending.answer_by.get_or_insert(now + LISTENER_GRACE);
        }
    }

    fn in_flight(&self) -> usize {
        self.link.in_flight() + usize::from(self.opener.is_some())
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
        for id in std::mem::take(&mut self.pending).into_keys() {
            self.remember(id); // its client may be about to answer
        }
        let lost = self.link.child_lost();
        lost.iter().for_each(|(id, caller)| self.forget(*id, caller));
        lost.into_iter().map(|(_, caller)| (caller.stream, caller.client)).collect()
    }

    fn restart(&mut self, now: Duration, out: &mut Out) {
        self.link.restart(now, out);
    }

    fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        self.pending.clear();
        self.by_client.clear();
        self.by_token.clear();
        let callers = self.opener.take().into_iter().chain(self.link.abandon());
        callers.map(|caller| (caller.stream, caller.client)).collect()
    }

    #[cfg(test)]
    fn check(&self) {
        self.link.check();
        let by_client: HashMap<_, _> =
            self.link.callers().map(|(id, caller)| (caller.client.clone(), id)).collect();
        assert_eq!(self.by_client, by_client, "each request is found by its client's id");
        for (token, id) in &self.by_token {
            let caller = self.link.caller(*id);
            assert_eq!(
                caller.and_then(|caller| caller.token.as_ref()),
                Some(token),
                "a request by its token"
            );
        }
    }
}

/// The id's token in a request of the child, which may be one that no peer may use.
fn id_token<'t>(message: &'t Incoming<'_>) -> &'t str {
    message.envelope.id.clone().map_or("null", |span| message.token(span))
}
