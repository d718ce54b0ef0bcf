//! What the child says: to whom each line goes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::calls::{Call, HANDSHAKE, WithChild};
use super::words::{Dropped, Told, TooLong};
use super::{Asked, INITIALIZED, LISTENER_GRACE, Live, MAX_ASKED, Machine, Own, Phase, reply};
use crate::proto::ids::{BridgeId, ChildId, Id, ProgressToken, StreamId};
use crate::proto::json::{splice, value_at};
use crate::proto::line::push_one_line;
use crate::proto::message::{Envelope, Head, Kind, peek_head};

impl Machine {
    /// Takes a line of the child. What the bridge answers the child itself goes to `out`.
    pub fn child(&mut self, text: &str, now: Duration, live: Live<'_>, out: &mut BytesMut) -> Told {
        let Ok(envelope) = Envelope::peek(text.as_bytes()) else { return Told::Dropped(Dropped::Noise) };
        match envelope.kind {
            Kind::Success | Kind::Failure => self.child_answer(text, &envelope, now, out),
            Kind::Request => self.child_request(text, &envelope, now, live, out),
            Kind::Notification => self.child_notification(text, &envelope, live),
        }
    }

    fn child_answer(&mut self, text: &str, envelope: &Envelope, now: Duration, out: &mut BytesMut) -> Told {
        let token = envelope.id.clone().and_then(|span| text.get(span)).unwrap_or("null");
        let id = match token {
            // An error about a request whose id the child could not read (JSON-RPC 2.0 §5), or a child that loses ids:
            // with one call in flight there is no doubt whose answer it is.
            "null" => match self.calls.with_child() {
                WithChild::One(id) if self.own.is_empty() => Some(id),
                WithChild::None if self.own.len() == 1 => self.own.keys().next().copied(),
                _ => None,
            },
            _ => BridgeId::echoed(token),
        };
        let Some(id) = id else { return Told::Dropped(Dropped::UnknownId) };
        let success = envelope.kind == Kind::Success;
        if let Some(own) = self.own.remove(&id) {
            return self.own_answered(own, text, envelope, now, out);
        }
        if !self.calls.is_with_child(id) {
            let ended = self.calls.has_ended(id);
            return Told::Dropped(if ended { Dropped::Late } else { Dropped::UnknownId });
        }
        if let Some(until) = self.excused.filter(|until| now < *until)
            && self.limits.ready.is_refusal(text, success)
            && self.calls.postpone(id, now, until)
        {
            return Told::NotReady;
        }
        let Some(call) = self.calls.remove(id) else { return Told::Dropped(Dropped::Late) };
        if id == HANDSHAKE {
            self.handshake_answered(text, success, now, out);
        }
        if let (true, Some(effect)) = (success, call.effect) {
            self.memory.note(effect);
        }
        let client = call.client.0.as_json().as_bytes();
        let mut message = BytesMut::new();
        match envelope.id.clone() {
            Some(span) => splice(&mut message, text.as_bytes(), span, client),
            None => {
                let after_brace = text.find('{').map_or(0, |brace| brace + 1);
                let member = [b"\"id\":".as_slice(), client, b","].concat();
                splice(&mut message, text.as_bytes(), after_brace..after_brace, &member);
            }
        }
        Told::Answer { stream: call.stream, message: message.freeze(), success }
    }

    fn handshake_answered(&mut self, text: &str, success: bool, now: Duration, out: &mut BytesMut) {
        let early = self.phase == Phase::Starting { initialized: true };
        if !success {
            self.phase = Phase::Refused;
            return;
        }
        self.phase = Phase::Answered;
        self.note_negotiated(text);
        if early || !self.held.is_empty() {
            self.say_initialized(INITIALIZED, now, out);
        }
    }

    fn own_answered(
        &mut self,
        own: Own,
        text: &str,
        envelope: &Envelope,
        now: Duration,
        out: &mut BytesMut,
    ) -> Told {
        let success = envelope.kind == Kind::Success;
        if own.deadline.is_some() {
            if success {
                self.note_negotiated(text);
                if let (true, None, Some(id)) = (self.shared, &self.greeting, envelope.id.clone()) {
                    self.greeting = Some((Bytes::copy_from_slice(text.as_bytes()), id));
                }
                if let Some(effect) = own.effect {
                    self.memory.note(effect);
                }
                self.say_initialized(INITIALIZED, now, out);
                if self.delayed.is_none() {
                    self.restore(out);
                }
            } else {
                self.phase = Phase::Refused;
            }
        }
        Told::Restored { method: own.method, success }
    }

    /// Remembers which version the first child of the session has chosen.
    fn note_negotiated(&mut self, text: &str) {
        if self.negotiated.is_none() {
            self.negotiated = value_at(text, &["result", "protocolVersion"])
                .and_then(|span| text.get(span))
                .and_then(|token| serde_json::from_str::<Box<str>>(token).ok());
        }
    }

    /// Tells the child what is remembered. The session's first one has nothing to be told.
    pub(super) fn restore(&mut self, out: &mut BytesMut) {
        let requests: Vec<_> = self.memory.requests().cloned().collect();
        for request in requests {
            self.ask(&request, None, out);
        }
    }

    fn child_request(
        &mut self,
        text: &str,
        envelope: &Envelope,
        now: Duration,
        live: Live<'_>,
        out: &mut BytesMut,
    ) -> Told {
        let token = envelope.id.clone().and_then(|span| text.get(span)).unwrap_or("null");
        let method = envelope.method(text.as_bytes());
        if method == "ping" && !live(StreamId::LISTENING) {
            reply(out, token, r#""result":{}"#);
            return Told::Replied("ping");
        }
        let Some(id) = envelope.id(text.as_bytes()).map(ChildId) else {
            reply(out, token, r#""error":{"code":-32600,"message":"\"id\" must be a string or an integer"}"#);
            return Told::Replied("a request without a usable id");
        };
        if self.shared {
            // The bridge has declared no capability that this could be about.
            reply(
                out,
                token,
                r#""error":{"code":-32601,"message":"no client of this session serves requests"}"#,
            );
            return Told::Replied("a request in a shared session");
        }
        if self.asked.len() >= MAX_ASKED {
            reply(out, token, r#""error":{"code":-32603,"message":"too many requests wait for the client"}"#);
            return Told::Replied("too many requests of the child");
        }
        let related = matches!(&*method, "sampling/createMessage" | "elicitation/create" | "roots/list");
        let stream = if related { self.related_stream(live) } else { StreamId::LISTENING };
        let unheard = (!live(stream)).then(|| now + LISTENER_GRACE);
        self.asked.insert(id, Asked { stream, unheard });
        Told::Event { stream, message: one_line(text) }
    }

    fn child_notification(&mut self, text: &str, envelope: &Envelope, live: Live<'_>) -> Told {
        if self.shared {
            return self.shared_notification(text, envelope);
        }
        let stream = match &*envelope.method(text.as_bytes()) {
            "notifications/progress" => match self.progress_of(text, envelope) {
                Some(call) if !call.streams => return Told::Dropped(Dropped::NotStreamable),
                Some(call) => call.stream,
                None => StreamId::LISTENING,
            },
            "notifications/cancelled" => self.child_cancelled(text, envelope, live),
            "notifications/message" => self.related_stream(live),
            _ => StreamId::LISTENING,
        };
        Told::Event { stream, message: one_line(text) }
    }

    /// In a shared session only progress says whose it is: under a token of the bridge's own, which is the call's id.
    fn shared_notification(&self, text: &str, envelope: &Envelope) -> Told {
        let progress = envelope.method(text.as_bytes()) == "notifications/progress";
        let params = envelope.params(text.as_bytes());
        let span = value_at(params, &["progressToken"]).filter(|_| progress);
        let call = span.clone().and_then(|span| BridgeId::echoed(params.get(span)?));
        let call = call.and_then(|id| self.calls.get(id));
        let start = envelope.params.as_ref().map_or(0, |params| params.start);
        match (span, call.map(|call| (call, call.token.as_ref()))) {
            (Some(_), Some((Call { streams: false, .. }, _))) => Told::Dropped(Dropped::NotStreamable),
            (Some(span), Some((call, Some(token)))) => {
                let mut message = BytesMut::new();
                let span = start + span.start..start + span.end;
                splice(&mut message, text.as_bytes(), span, token.0.as_json().as_bytes());
                Told::Event { stream: call.stream, message: message.freeze() }
            }
            _ => Told::Dropped(Dropped::Nobodys),
        }
    }

    fn progress_of(&self, text: &str, envelope: &Envelope) -> Option<&Call> {
        let params = envelope.params(text.as_bytes());
        let token = value_at(params, &["progressToken"]).and_then(|span| params.get(span))?;
        // Children that keep numbers as floats echo 7 as 7.0.
        let token = Id::parse(token).or_else(|| Id::parse(&BridgeId::echoed(token)?.to_string()))?;
        self.calls.with_token(&ProgressToken(token))
    }

    /// The child takes back one of its own requests: the client hears it where it heard the request.
    fn child_cancelled(&mut self, text: &str, envelope: &Envelope, live: Live<'_>) -> StreamId {
        let params = envelope.params(text.as_bytes());
        let id = value_at(params, &["requestId"]).and_then(|span| Id::parse(params.get(span)?)).map(ChildId);
        let Some((id, asked)) = id.and_then(|id| self.asked.remove_entry(&id)) else {
            return StreamId::LISTENING;
        };
        self.forget(id);
        if live(asked.stream) { asked.stream } else { StreamId::LISTENING }
    }

    /// stdio does not say which call a log line or a question belongs to. With one call in flight it is that one's;
    /// with several, the newest that can take it; with none, it is for the listening stream.
    fn related_stream(&self, live: Live<'_>) -> StreamId {
        let takes =
            |call: &Call| call.streams && call.written && call.cancelled.is_none() && live(call.stream);
        self.calls.newest(takes).map_or(StreamId::LISTENING, |call| call.stream)
    }

    /// Takes note of a message that began with `head` and was too long to take. What the bridge answers the child goes
    /// to `out`.
    pub fn too_long(&mut self, head: &[u8], out: &mut BytesMut) -> TooLong {
        let id = match peek_head(head) {
            Head::NoMessage | Head::Call(None) => return TooLong::Nobody,
            Head::Call(Some(token)) => {
                reply(out, token, r#""error":{"code":-32603,"message":"the request is too long"}"#);
                return TooLong::Nobody;
            }
            Head::Answer(token) => match BridgeId::echoed(token) {
                Some(id) => id,
                None => return TooLong::Nobody,
            },
            Head::Unclear => match self.calls.with_child() {
                WithChild::None if self.own.is_empty() => return TooLong::Nobody,
                WithChild::One(id) if self.own.is_empty() => id,
                _ => return TooLong::Unclear,
            },
        };
        if self.own.remove(&id).is_some_and(|own| own.deadline.is_some()) {
            self.phase = Phase::Refused;
        }
        if !self.calls.is_with_child(id) {
            return TooLong::Nobody;
        }
        if id == HANDSHAKE {
            self.phase = Phase::Refused;
        }
        match self.calls.remove(id) {
            Some(call) => TooLong::Call(call.stream, call.client),
            None => TooLong::Nobody,
        }
    }
}

fn one_line(text: &str) -> Bytes {
    let mut message = BytesMut::with_capacity(text.len());
    push_one_line(&mut message, text.as_bytes());
    message.freeze()
}
