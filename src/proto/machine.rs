//! A legacy session as a state machine: one message in, at most one out.
//!
//! It knows which requests are in flight under which ids, which phase the handshake is in, and where each message
//! of the child belongs. What goes to the child is appended to the bytes for its stdin; what goes to a client is
//! returned. Time is a [`Duration`] since the session began, and whether somebody reads a stream is asked through a
//! function, so that every rule here is a table in a test.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::ids::{BridgeId, ChildId, ClientId, Id, ProgressToken, StreamId};
use super::json::{Span, splice, value_at};
use super::line::push_line;
use super::message::{Kind, Message};

mod calls;
mod child;
mod memory;
mod ready;
mod words;

use calls::{Call, Calls, HANDSHAKE};
use memory::{Effect, Memory};
pub use ready::Readiness;
pub use words::{Dropped, Expired, Fate, Limits, Refusal, Told, TooLong};

/// How long a cancelled call waits for an answer that crossed the cancellation, before it ends with an error.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// How long a child's request waits for a client to listen, before the bridge answers it with an error.
pub const LISTENER_GRACE: Duration = Duration::from_secs(60);

/// How many requests of the child may wait for a client's answer at once.
const MAX_ASKED: usize = 256;

/// How many of the child's requests are remembered after they ended, so that a late answer is no offence.
const MAX_FORGOTTEN: usize = 64;

/// Bytes of requests held back until the handshake is over; beyond it the session takes no new message.
const MAX_HELD: usize = 8 * 1024 * 1024;

const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `initialize` is with the child. `true`: the client's `initialized` is here already.
    Starting { initialized: bool },
    /// The child has answered; nobody has said `initialized` yet.
    Answered,
    /// The child has been told `initialized`.
    Open,
    /// The child has refused `initialize`.
    Refused,
}

#[derive(Debug)]
struct Asked {
    stream: StreamId,
    /// When it is answered with an error, unless somebody listens by then. `None`: a client has it, and the person who
    /// is thinking about it is not hurried.
    unheard: Option<Duration>,
}

/// One session's protocol state.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    phase: Phase,
    calls: Calls,
    held: VecDeque<(Message, Option<BridgeId>)>,
    held_bytes: usize,
    /// Until when requests wait although the handshake is over: [`Readiness::delay`].
    delayed: Option<Duration>,
    /// Until when the child may say that it is not ready, while it may: [`Readiness::timeout`].
    excused: Option<Duration>,
    asked: HashMap<ChildId, Asked>,
    forgotten: VecDeque<ChildId>,
    negotiated: Option<Box<str>>,
    /// Requests of the bridge itself that the child has not answered; among them the handshake with a new child.
    own: BTreeMap<BridgeId, Own>,
    memory: Memory,
    /// Whether clients share the session that cannot be told apart.
    shared: bool,
    /// The child's answer to the bridge's `initialize`, and where its id stands.
    greeting: Option<(Bytes, Span)>,
}

/// A request of the bridge itself.
#[derive(Debug)]
struct Own {
    method: String,
    effect: Option<Effect>,
    /// When the child must have answered; nothing waits for the answers to what follows the handshake.
    deadline: Option<Duration>,
}

/// Whether somebody reads a stream.
pub type Live<'l> = &'l dyn Fn(StreamId) -> bool;

impl Machine {
    /// A session that has not begun.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            phase: Phase::Starting { initialized: false },
            calls: Calls::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            delayed: None,
            excused: None,
            asked: HashMap::new(),
            forgotten: VecDeque::new(),
            negotiated: None,
            own: BTreeMap::new(),
            memory: Memory::default(),
            shared: false,
            greeting: None,
        }
    }

    /// Begins the session with the client's `initialize`, which must be the first message it takes.
    pub fn open(
        &mut self,
        initialize: &Message,
        stream: StreamId,
        streams: bool,
        now: Duration,
        out: &mut BytesMut,
    ) {
        let Some(client) = initialize.id().map(ClientId) else { return };
        let id = self.register(client, initialize, stream, streams, now);
        self.write_request(initialize, id, out);
    }

    /// Begins the session in the bridge's own name, for clients that share it and cannot be told apart.
    pub fn open_shared(&mut self, initialize: &Message, now: Duration, out: &mut BytesMut) {
        self.shared = true;
        self.phase = Phase::Starting { initialized: true };
        self.ask(initialize, Some(now + self.limits.init_timeout), out);
    }

    /// Whether several clients share the session.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The answer to a client's `initialize` in a session that the bridge has opened: what the child answered to the
    /// bridge's own. `None`: it has not answered yet.
    pub fn greeting(&self, client: &ClientId) -> Option<Bytes> {
        let (answer, id) = self.greeting.as_ref()?;
        let mut message = BytesMut::new();
        splice(&mut message, answer, id.clone(), client.0.as_json().as_bytes());
        Some(message.freeze())
    }

    /// Whether a new child can be told what this one was.
    pub fn can_restart(&self) -> bool {
        self.memory.initialize().is_some()
    }

    /// The child is gone and another will come: returns the requests that went with it. What it has not seen waits
    /// for the other one, and so does what it has refused as not ready.
    pub fn lose(&mut self) -> Vec<(StreamId, ClientId)> {
        self.phase = Phase::Starting { initialized: true };
        (self.delayed, self.excused) = (None, None);
        self.own.clear();
        for (id, message) in self.calls.take_waiting().into_iter().rev() {
            self.held_bytes += message.text().len();
            self.held.push_front((message, Some(id)));
        }
        for id in std::mem::take(&mut self.asked).into_keys() {
            self.forget(id); // its client may be about to answer
        }
        self.calls.drain_written().into_iter().map(|call| (call.stream, call.client)).collect()
    }

    /// Greets a new child as the client greeted the first one.
    pub fn greet(&mut self, now: Duration, out: &mut BytesMut) {
        let Some(initialize) = self.memory.initialize().cloned() else { return };
        self.ask(&initialize, Some(now + self.limits.init_timeout), out);
    }

    fn ask(&mut self, request: &Message, deadline: Option<Duration>, out: &mut BytesMut) {
        let id = self.calls.reserve();
        // What restores is known already.
        let opens = deadline.is_some() && self.limits.respawn && self.memory.initialize().is_none();
        let effect = if opens { Effect::of(request) } else { None };
        self.own.insert(id, Own { method: request.method().into_owned(), effect, deadline });
        self.write_request(request, id, out);
    }

    /// What the child answered as `protocolVersion`; `None` before, or where it answered none.
    pub fn negotiated(&self) -> Option<&str> {
        self.negotiated.as_deref()
    }

    /// Whether the child has refused `initialize`, which ends the session.
    pub fn refused(&self) -> bool {
        self.phase == Phase::Refused
    }

    /// Whether the child has answered `initialize` with a result.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Answered | Phase::Open)
    }

    /// Whether the child has answered `initialize`.
    pub fn started(&self) -> bool {
        !matches!(self.phase, Phase::Starting { .. })
    }

    /// How many requests of clients have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Whether it takes a further message: what is held back for the handshake is bounded.
    pub fn accepting(&self) -> bool {
        self.held_bytes < MAX_HELD && self.held.len() < self.limits.max_in_flight
    }

    /// Takes a message of a client. `streams`: whether the stream may carry more than the answer.
    ///
    /// # Errors
    /// [`Refusal`], where the message is not for the child. It has changed nothing then.
    pub fn client(
        &mut self,
        message: Message,
        stream: StreamId,
        streams: bool,
        now: Duration,
        out: &mut BytesMut,
    ) -> Result<Fate, Refusal> {
        match message.kind() {
            Kind::Request => self.client_request(message, stream, streams, now, out),
            Kind::Notification => Ok(self.client_notification(message, now, out)),
            Kind::Success | Kind::Failure => self.client_response(&message, out),
        }
    }

    fn client_request(
        &mut self,
        message: Message,
        stream: StreamId,
        streams: bool,
        now: Duration,
        out: &mut BytesMut,
    ) -> Result<Fate, Refusal> {
        let Some(client) = message.id().map(ClientId) else {
            return Ok(Fate::Swallowed("a request without a usable id"));
        };
        if message.method() == "initialize" {
            return Err(Refusal::AlreadyInitialized(client));
        }
        if !self.shared && self.calls.find(&client).is_some() {
            return Err(Refusal::DuplicateId(client));
        }
        // The handshake is the bridge's need and not one of the client's calls.
        let handshake = usize::from(self.calls.handshake().is_some());
        if self.calls.len() - handshake >= self.limits.max_in_flight {
            return Ok(Fate::Overload(client));
        }
        let id = self.register(client, &message, stream, streams, now);
        self.write_or_hold(message, Some(id), now, out);
        Ok(Fate::Taken)
    }

    fn client_notification(&mut self, message: Message, now: Duration, out: &mut BytesMut) -> Fate {
        match &*message.method() {
            "notifications/initialized" => return self.client_initialized(&message, now, out),
            "notifications/cancelled" => return self.client_cancelled(&message, now, out),
            _ => {}
        }
        self.write_or_hold(message, None, now, out);
        Fate::Taken
    }

    /// Each child sees exactly one `initialized`, be the client's late, missing or repeated.
    fn client_initialized(&mut self, message: &Message, now: Duration, out: &mut BytesMut) -> Fate {
        match &mut self.phase {
            Phase::Starting { initialized: true } | Phase::Open | Phase::Refused => {
                Fate::Swallowed("initialized has been said")
            }
            Phase::Starting { initialized } => {
                *initialized = true;
                Fate::Swallowed("initialized follows when the child has answered")
            }
            Phase::Answered => {
                self.say_initialized(message.text(), now, out);
                Fate::Taken
            }
        }
    }

    /// A cancellation names the client's id; the child knows another. One that names no request in flight goes no
    /// further: to the child the same number may be somebody else's request.
    fn client_cancelled(&mut self, message: &Message, now: Duration, out: &mut BytesMut) -> Fate {
        let params = message.params();
        let Some(span) = value_at(params, &["requestId"]) else {
            self.write_or_hold(message.clone(), None, now, out);
            return Fate::Taken;
        };
        let id = params.get(span.clone()).and_then(Id::parse).map(ClientId);
        if self.shared && id.as_ref().is_some_and(|id| self.calls.count(id) > 1) {
            return Fate::Swallowed("several clients have a request of this id in flight");
        }
        let Some((id, call)) = id.and_then(|id| self.calls.find(&id)) else {
            return Fate::Swallowed("the cancelled request is not in flight");
        };
        if id == HANDSHAKE {
            return Fate::Swallowed("initialize cannot be cancelled"); // 2025-11-25 `basic/utilities/cancellation`
        }
        if !call.written {
            let withdrawn = Fate::Withdrawn(call.stream, call.client.clone());
            self.calls.remove(id);
            return withdrawn;
        }
        if call.cancelled.is_some() {
            return Fate::Swallowed("the request has been cancelled before");
        }
        self.calls.set_cancelled(id, now + CANCEL_GRACE);
        let start = message.envelope().params.as_ref().map_or(0, |params| params.start);
        splice(out, message.text(), start + span.start..start + span.end, id.to_string().as_bytes());
        out.extend_from_slice(b"\n");
        Fate::Taken
    }

    fn client_response(&mut self, message: &Message, out: &mut BytesMut) -> Result<Fate, Refusal> {
        let Some(id) = message.id().map(ChildId) else { return Err(Refusal::UnknownResponse) };
        if self.asked.remove(&id).is_some() {
            self.forget(id);
            push_line(out, &[message.text()]);
            return Ok(Fate::Taken);
        }
        if self.forgotten.contains(&id) {
            return Ok(Fate::Swallowed("the child's request has ended"));
        }
        Err(Refusal::UnknownResponse)
    }

    /// Writes the oldest message that waited for the handshake. `false`: nothing waits, or it must wait on.
    pub fn release(&mut self, out: &mut BytesMut) -> bool {
        if self.phase != Phase::Open || self.delayed.is_some() {
            return false;
        }
        let Some((message, id)) = self.held.pop_front() else { return false };
        self.held_bytes -= message.text().len();
        match id {
            None => push_line(out, &[message.text()]),
            // It may have been cancelled or timed out while it waited.
            Some(id) if self.calls.get(id).is_some() => self.write_request(&message, id, out),
            Some(_) => {}
        }
        true
    }

    /// When the child must have answered `initialize`, while it has not.
    fn handshake_deadline(&self) -> Option<Duration> {
        let own = self.own.values().find_map(|own| own.deadline);
        own.or_else(|| self.calls.handshake().map(|call| call.deadline))
    }

    /// When the next deadline passes.
    pub fn next_deadline(&self) -> Option<Duration> {
        let handshake = self.handshake_deadline();
        let oldest = self.calls.oldest().map(|(_, call)| call.deadline);
        let cancelled = self.calls.next_cancelled().map(|(deadline, _)| deadline);
        let asked = self.asked.values().filter_map(|asked| asked.unheard).min();
        let ready = [self.delayed, self.excused, self.calls.next_again()];
        [handshake, oldest, cancelled, asked].into_iter().chain(ready).flatten().min()
    }

    /// Ends one thing whose deadline has passed; `None` when there is no more. What waited for the child to be ready
    /// is written or can be [released](Self::release) then.
    pub fn expire(&mut self, now: Duration, live: Live<'_>, out: &mut BytesMut) -> Option<Expired> {
        if self.handshake_deadline().is_some_and(|deadline| deadline <= now) {
            return Some(Expired::Initialize);
        }
        if let Some((deadline, id)) = self.calls.next_cancelled()
            && deadline <= now
        {
            let call = self.calls.remove(id)?;
            return Some(Expired::Cancelled(call.stream, call.client));
        }
        if let Some((id, call)) = self.calls.oldest()
            && call.deadline <= now
        {
            if call.written && call.cancelled.is_none() {
                let id = id.to_string();
                let (start, end) = (
                    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#,
                    r#","reason":"the request timed out"}}"#,
                );
                push_line(out, &[start.as_bytes(), id.as_bytes(), end.as_bytes()]);
            }
            let call = self.calls.remove(id)?;
            return Some(Expired::Request(call.stream, call.client));
        }
        let due = |asked: &Asked| asked.unheard.is_some_and(|deadline| deadline <= now);
        while let Some((id, asked)) = self.asked.iter_mut().find(|(_, asked)| due(asked)) {
            if live(asked.stream) {
                asked.unheard = None; // somebody came to listen meanwhile
                continue;
            }
            let id = id.clone();
            self.asked.remove(&id);
            let error = r#""error":{"code":-32603,"message":"no client listens for this request"}"#;
            reply(out, id.0.as_json(), error);
            self.forget(id);
            return Some(Expired::Unheard);
        }
        self.pass_ready_times(now, out);
        None
    }

    fn pass_ready_times(&mut self, now: Duration, out: &mut BytesMut) {
        if self.delayed.take_if(|until| *until <= now).is_some() {
            self.restore(out);
        }
        while let Some((id, message)) = self.calls.take_due(now) {
            self.write_request(&message, id, out);
        }
        // The last attempts are out by now: none waits for longer than this.
        if self.excused.take_if(|until| *until <= now).is_some() {
            self.calls.keep_none();
        }
    }

    /// The reader of this stream left and had not taken everything: what the child asked there may be unheard.
    pub fn unheard(&mut self, stream: StreamId, now: Duration) {
        for asked in self.asked.values_mut().filter(|asked| asked.stream == stream) {
            asked.unheard.get_or_insert(now + LISTENER_GRACE);
        }
    }

    /// Ends every request of a client that has no answer yet, oldest first. The session is over.
    pub fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        self.held.clear();
        self.held_bytes = 0;
        self.asked.clear();
        self.calls.drain().map(|call| (call.stream, call.client)).collect()
    }

    fn register(
        &mut self,
        client: ClientId,
        message: &Message,
        stream: StreamId,
        streams: bool,
        now: Duration,
    ) -> BridgeId {
        let params = message.params();
        let token = token_in(params).and_then(|span| Id::parse(params.get(span)?)).map(ProgressToken);
        let handshake = self.calls.next_id() == HANDSHAKE;
        let timeout = if handshake { self.limits.init_timeout } else { self.limits.request_timeout };
        let deadline = now + timeout;
        let effect = if self.limits.respawn { Effect::of(message) } else { None };
        self.calls.insert(Call {
            client,
            stream,
            streams,
            token,
            deadline,
            cancelled: None,
            written: false,
            effect,
            again: None,
        })
    }

    fn write_or_hold(&mut self, message: Message, id: Option<BridgeId>, now: Duration, out: &mut BytesMut) {
        if self.phase == Phase::Answered {
            // Servers refuse what comes before `initialized`, and some clients never send it.
            self.say_initialized(INITIALIZED, now, out);
        }
        if !self.started() || self.delayed.is_some() || !self.held.is_empty() {
            self.held_bytes += message.text().len();
            self.held.push_back((message, id));
            return;
        }
        match id {
            Some(id) => self.write_request(&message, id, out),
            None => push_line(out, &[message.text()]),
        }
    }

    fn write_request(&mut self, message: &Message, id: BridgeId, out: &mut BytesMut) {
        let Some(span) = message.envelope().id.clone() else { return };
        let name = id.to_string();
        let token = if self.shared { token_span(message) } else { None };
        match token {
            None => splice(out, message.text(), span, name.as_bytes()),
            Some(token) => {
                // The later one first: it does not move the other.
                let (first, second) = if token.start < span.start { (token, span) } else { (span, token) };
                let mut once = BytesMut::new();
                splice(&mut once, message.text(), second, name.as_bytes());
                splice(out, &once, first, name.as_bytes());
            }
        }
        out.extend_from_slice(b"\n");
        self.calls.set_written(id);
        if self.excused.is_some() {
            self.calls.keep(id, message);
        }
    }

    /// Ends the handshake with these words. A child that needs time has it from here on.
    fn say_initialized(&mut self, text: &[u8], now: Duration, out: &mut BytesMut) {
        push_line(out, &[text]);
        self.phase = Phase::Open;
        let Readiness { delay, refusal, timeout } = &self.limits.ready;
        self.delayed = (!delay.is_zero()).then(|| now + *delay);
        self.excused = refusal.is_some().then(|| now + *delay + *timeout);
    }

    fn forget(&mut self, id: ChildId) {
        if self.forgotten.len() == MAX_FORGOTTEN {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(id);
    }
}

/// Where the progress token stands in a request.
fn token_span(message: &Message) -> Option<Span> {
    let start = message.envelope().params.as_ref()?.start;
    let span = token_in(message.params())?;
    Some(start + span.start..start + span.end)
}

/// Where the progress token stands in a request's `params`.
fn token_in(params: &str) -> Option<Span> {
    // Most requests have none, and a look at the bytes is cheaper than one at the members. Names may be spelt with \u.
    let may_be = |needle| memchr::memmem::find(params.as_bytes(), needle).is_some();
    let looked = may_be(b"progressToken") || may_be(b"\\u");
    looked.then(|| value_at(params, &["_meta", "progressToken"])).flatten()
}

/// Answers a request of the child: `token` is its id as it stands, `member` the result or error.
fn reply(out: &mut BytesMut, token: &str, member: &str) {
    push_line(out, &[br#"{"jsonrpc":"2.0","id":"#, token.as_bytes(), b",", member.as_bytes(), b"}"]);
}

#[cfg(test)]
mod tests;
