//! A session from the first byte to the last, as a record of its traffic.

use std::collections::HashSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mcp_bridge::proto::ids::{ClientId, StreamId};
use mcp_bridge::proto::json::{elements, is_array};
use mcp_bridge::proto::machine::{Expired, Fate, Limits, Machine, Readiness, Refusal, Told, TooLong};
use mcp_bridge::proto::message::{Envelope, Kind, Message};

use super::flat;

const LIMITS: Limits = Limits {
    init_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(100),
    max_in_flight: 4,
    respawn: true,
    ready: Readiness::AT_ONCE,
};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"init","method":"initialize","params":{}}"#;

struct Session {
    machine: Machine,
    now: Duration,
    last_stream: StreamId,
    /// Streams that nobody reads.
    deaf: HashSet<StreamId>,
    /// Requests that were taken and have no end yet.
    open: HashSet<(StreamId, ClientId)>,
    /// The ids under which the child knows requests.
    written: HashSet<u64>,
    initialized: bool,
    /// Whether the child has been greeted.
    greeted: bool,
    /// The bytes for the child.
    out: BytesMut,
}

/// Whatever either side says and whenever, each request ends exactly once, with its own id and on its own stream; the
/// child is given whole messages, each request under an id of its own, and is told `initialized` at most once.
///
/// Each line is a step, and its first byte says which: `>` a client posts and takes a stream, `=` it posts and takes JSON
/// alone, `<` the child says, `!` the child says what is too long, `+` seconds pass, `@` a stream's reader comes or goes, `~` the child is lost and another comes.
pub fn machine(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n').peekable();
    let first = lines.next_if(|line| line.starts_with(b">")).map(|line| Bytes::copy_from_slice(&line[1..]));
    let opens = |message: &Message| message.kind() == Kind::Request && message.method() == "initialize";
    let initialize = first
        .and_then(|text| Message::parse(text).ok().filter(opens))
        .unwrap_or_else(|| Message::parse(Bytes::from_static(INITIALIZE.as_bytes())).expect("a request"));
    let mut session = Session::open(&initialize);
    for line in lines {
        if !session.step(line) || session.machine.refused() {
            break;
        }
        session.settle();
    }
    session.finish();
}

impl Session {
    fn open(initialize: &Message) -> Self {
        let mut session = Self {
            machine: Machine::new(LIMITS),
            now: Duration::ZERO,
            last_stream: StreamId(1),
            deaf: HashSet::new(),
            open: HashSet::new(),
            written: HashSet::new(),
            initialized: false,
            greeted: false,
            out: BytesMut::new(),
        };
        session.machine.open(initialize, StreamId(1), true, session.now, &mut session.out);
        session.open.insert((StreamId(1), ClientId(initialize.id().expect("an id"))));
        session.settle();
        session
    }

    /// Whether the session goes on.
    fn step(&mut self, line: &[u8]) -> bool {
        let Some((sort, rest)) = line.split_first() else { return true };
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.trim().parse::<u16>().ok());
        match sort {
            b'>' => self.client(rest, true),
            b'=' => self.client(rest, false),
            b'<' => self.child(rest),
            b'!' => return self.too_long(rest),
            b'+' => return self.wait(Duration::from_secs(u64::from(number().unwrap_or(1)))),
            b'@' => {
                let stream = StreamId(u64::from(number().unwrap_or(0)));
                if !self.deaf.remove(&stream) {
                    self.deaf.insert(stream);
                    self.machine.unheard(stream, self.now);
                }
            }
            b'~' => self.another(),
            _ => self.child(line),
        }
        true
    }

    fn client(&mut self, body: &[u8], streams: bool) {
        let texts = match std::str::from_utf8(body) {
            Ok(text) if is_array(body) => elements(text).unwrap_or_default(),
            Ok(text) => vec![text],
            Err(_) => return,
        };
        self.last_stream.0 += 1;
        if !self.machine.accepting() {
            return;
        }
        for text in texts {
            if let Ok(message) = Message::parse(Bytes::copy_from_slice(text.as_bytes())) {
                self.post(message, streams);
            }
        }
    }

    fn post(&mut self, message: Message, streams: bool) {
        let request = message.id().map(ClientId).filter(|_| message.kind() == Kind::Request);
        let running = request.as_ref().is_some_and(|id| self.open.iter().any(|call| call.1 == *id));
        match self.machine.client(message, self.last_stream, streams, self.now, &mut self.out) {
            Ok(Fate::Taken) => {
                assert!(!running, "two requests with one id");
                self.open.extend(request.map(|id| (self.last_stream, id)));
            }
            Ok(Fate::Swallowed(_)) => assert_eq!(request, None, "a request was swallowed"),
            Ok(Fate::Overload(id)) => assert_eq!(Some(id), request),
            Ok(Fate::Withdrawn(stream, id)) => self.ended(stream, id),
            Err(Refusal::DuplicateId(id)) => assert!(running && Some(id) == request),
            Err(Refusal::AlreadyInitialized(id)) => assert_eq!(Some(id), request),
            Err(Refusal::UnknownResponse) => assert_eq!(request, None),
        }
    }

    fn child(&mut self, line: &[u8]) {
        let text = &*String::from_utf8_lossy(line);
        let texts = if is_array(line) { elements(text).unwrap_or_default() } else { vec![text] };
        for text in texts {
            let deaf = &self.deaf;
            let live = |stream| !deaf.contains(&stream);
            match self.machine.child(text, self.now, &live, &mut self.out) {
                Told::Answer { stream, message, success } => {
                    let envelope = Envelope::peek(&message).expect("an answer is a message");
                    assert_eq!(envelope.kind == Kind::Success, success);
                    one_line(&message);
                    self.ended(stream, ClientId(envelope.id(&message).expect("the client's id")));
                }
                Told::Event { stream, message } => {
                    assert!(stream <= self.last_stream, "nobody posted to {stream:?}");
                    assert_eq!(message, flat(text.as_bytes()), "it is passed on as it is");
                }
                Told::Replied(_) | Told::Restored { .. } | Told::NotReady | Told::Dropped(_) => {}
            }
        }
    }

    /// What the lost child has seen ends with it; the next one is greeted like the first.
    fn another(&mut self) {
        if !self.machine.can_restart() {
            return;
        }
        self.out.clear();
        for (stream, id) in self.machine.lose() {
            self.ended(stream, id);
        }
        (self.initialized, self.greeted) = (false, false);
        self.machine.greet(self.now, &mut self.out);
    }

    fn too_long(&mut self, head: &[u8]) -> bool {
        match self.machine.too_long(head, &mut self.out) {
            TooLong::Call(stream, id) => self.ended(stream, id),
            TooLong::Nobody => {}
            TooLong::Unclear => return false,
        }
        true
    }

    fn wait(&mut self, pause: Duration) -> bool {
        self.now += pause;
        let deaf = self.deaf.clone();
        let live = |stream| !deaf.contains(&stream);
        while let Some(expired) = self.machine.expire(self.now, &live, &mut self.out) {
            match expired {
                Expired::Initialize => return false,
                Expired::Request(stream, id) | Expired::Cancelled(stream, id) => self.ended(stream, id),
                Expired::Unheard => {}
            }
        }
        assert!(self.machine.next_deadline().is_none_or(|next| next > self.now), "a deadline has passed");
        true
    }

    fn ended(&mut self, stream: StreamId, id: ClientId) {
        let call = (stream, id);
        assert!(self.open.remove(&call), "{call:?} ended and was not running");
    }

    /// Looks at what the child was given.
    fn settle(&mut self) {
        while self.machine.release(&mut self.out) {}
        assert_eq!(self.machine.in_flight(), self.open.len(), "in flight is what has not ended");
        let out = std::mem::take(&mut self.out).freeze();
        assert!(out.is_empty() || out.ends_with(b"\n"), "the child gets whole lines");
        let lines = out[..].split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            one_line(line);
            let envelope = Envelope::peek(line).expect("the child gets messages");
            if envelope.kind == Kind::Request {
                let id = envelope.id.clone().and_then(|id| std::str::from_utf8(&line[id]).ok()?.parse().ok());
                assert!(self.written.insert(id.expect("an id of the bridge")), "two requests as {id:?}");
                let first = !std::mem::replace(&mut self.greeted, true);
                assert_eq!(envelope.method(line) == "initialize", first, "initialize comes first, and once");
                assert!(self.initialized || first, "a request before initialized");
            } else if envelope.method(line) == "notifications/initialized" {
                assert!(!self.initialized, "initialized twice");
                self.initialized = true;
            }
        }
    }

    fn finish(mut self) {
        for (stream, id) in self.machine.abandon() {
            self.ended(stream, id);
        }
        assert!(self.open.is_empty(), "without an end: {:?}", self.open);
        assert_eq!(self.machine.in_flight(), 0);
    }
}

fn one_line(message: &[u8]) {
    assert!(!message.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "a message is one line");
}
