//! Clients and a server that do not speak the same, and sessions that share a server, as a record of their traffic.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use mcp_bridge::proto::downgrade::Downgrade;
use mcp_bridge::proto::front::shared::Shared;
use mcp_bridge::proto::front::{Front, Mirrored, Origin, Readership, Refusal, Takes};
use mcp_bridge::proto::ids::{ClientId, Id, Ids, StreamId};
use mcp_bridge::proto::incoming::{Found, Incoming, LongLine};
use mcp_bridge::proto::link::{Limits, Readiness, own_initialize_of_all};
use mcp_bridge::proto::message::{Envelope, Head, Kind, Message, Request, peek_head};
use mcp_bridge::proto::nearly::{Part, beginning, look};
use mcp_bridge::proto::output::{Handshake, Out, Output};
use mcp_bridge::proto::upgrade::Upgrade;
use mcp_bridge::proto::version::Revision;

use super::one_line;

const LIMITS: Limits = Limits {
    restore: None,
    init_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(100),
    max_in_flight: 4,
    respawn: false,
    ready: Readiness::AT_ONCE,
    ids: Ids::counted,
    state,
};

thread_local!(static STATES: Cell<u128> = const { Cell::new(0) });

/// Each names one call, and counts so that a record can name it.
fn state() -> u128 {
    STATES.set(STATES.get() + 1);
    STATES.get()
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{},"sampling":{},"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}}"#;

/// What a server of sessions says of itself, and what one of 2026-07-28.
const GREETING: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"logging":{},"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true,"listChanged":true},"tasks":{}},"serverInfo":{"name":"s","version":"1"}}}"#;
const DISCOVERED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"logging":{},"tools":{"listChanged":true},"prompts":{},"resources":{"subscribe":true,"listChanged":true}},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}}"#;

/// What no server of the one era and of the other must see.
const OF_2026: [&str; 2] = ["server/discover", "subscriptions/listen"];
const OF_SESSIONS: [&str; 6] = [
    "initialize",
    "notifications/initialized",
    "logging/setLevel",
    "ping",
    "resources/subscribe",
    "resources/unsubscribe",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Upgrade,
    Downgrade,
    Shared,
}

struct Session {
    which: Which,
    front: Box<dyn Front>,
    now: Duration,
    last_stream: StreamId,
    /// The lanes by the digits that name them now.
    lanes: BTreeMap<u8, StreamId>,
    /// Streams whose readers have left.
    left: HashSet<StreamId>,
    /// Requests that were taken and have no end yet.
    open: HashSet<(StreamId, ClientId)>,
    /// Those of them that stay open: they are no calls.
    listens: HashSet<StreamId>,
    /// The ids under which the child knows requests.
    written: HashSet<u64>,
    /// How often the child has asked something under each id and has no answer.
    asked: HashMap<Id, usize>,
    greeted: bool,
    initialized: bool,
    out: Out,
    over: bool,
}

/// Whatever either side says and whenever, each request ends exactly once, with its own id and on its own stream or lane;
/// nothing comes out where nobody is; the child is given whole messages of its era, each request under an id of its own, and
/// no answer to what it has not asked.
///
/// The first line says of which front the record is: upgrade, downgrade, shared. Each further line is a step, and its first
/// byte says which: `>` a client posts and takes a stream, `=` it posts and takes JSON alone, a digit and `>`: the lane of
/// that name says it; `<` the child says, `!` the child says what is too long, `+` milliseconds pass, `@` the client of a
/// stream leaves, or the lane of that name.
///
/// Here clients of 2026-07-28 over a server of sessions; whatever the first line says.
pub fn upgrade(data: &[u8]) {
    play(Which::Upgrade, data);
}

/// The same of a client of sessions over a server of 2026-07-28.
pub fn downgrade(data: &[u8]) {
    play(Which::Downgrade, data);
}

/// The same of sessions that share a server of sessions.
pub fn shared(data: &[u8]) {
    play(Which::Shared, data);
}

fn play(which: Which, data: &[u8]) {
    STATES.set(0);
    let mut session = Session::open(which, data.len().is_multiple_of(2));
    let mut lines = data.split(|byte| *byte == b'\n').skip(1).peekable();
    // Most of what follows is worth more with a child that serves.
    if !lines.peek().is_some_and(|line| line.starts_with(b"<")) {
        session.child(if which == Which::Downgrade { DISCOVERED } else { GREETING }.as_bytes());
        session.settle();
    }
    for line in lines {
        session.step(line);
        if session.over {
            break;
        }
    }
    session.finish();
}

impl Session {
    fn open(which: Which, strangers: bool) -> Self {
        let mut out = Out::default();
        let now = Duration::ZERO;
        let initialize = request(INITIALIZE);
        let mut open = HashSet::new();
        let front: Box<dyn Front> = match which {
            Which::Upgrade => Box::new(Upgrade::open(
                LIMITS,
                &own_initialize_of_all(Revision::R2025_11_25),
                strangers,
                now,
                &mut out,
            )),
            Which::Shared => {
                Box::new(Shared::open(LIMITS, &own_initialize_of_all(Revision::R2025_11_25), now, &mut out))
            }
            Which::Downgrade => {
                open.insert((StreamId(1), ClientId(initialize.id().clone())));
                let mirrored = Mirrored::nothing();
                let from = Origin { stream: StreamId(1), takes: Takes::Events, arrived: now, mirrored };
                Box::new(Downgrade::open(LIMITS, &initialize, from, now, &mut out))
            }
        };
        let mut session = Self {
            which,
            front,
            now,
            last_stream: StreamId(1),
            lanes: BTreeMap::new(),
            left: HashSet::new(),
            open,
            listens: HashSet::new(),
            written: HashSet::new(),
            asked: HashMap::new(),
            greeted: false,
            initialized: false,
            out,
            over: false,
        };
        session.settle();
        session
    }

    fn step(&mut self, line: &[u8]) {
        let Some((sort, rest)) = line.split_first() else { return };
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.trim().parse::<u32>().ok());
        match sort {
            b'>' => self.client(b'1', rest, Takes::Events),
            b'=' => self.client(b'1', rest, Takes::AnswerOnly),
            b'0'..=b'9' => self.client(*sort, rest.strip_prefix(b">").unwrap_or(rest), Takes::Events),
            b'!' => {
                // A request that is too long is answered as others are.
                if let Head::Call(Some(token)) = peek_head(rest)
                    && let Some(id) = Id::parse(token)
                {
                    *self.asked.entry(id).or_default() += 1;
                }
                self.front.child_too_long(rest, &mut self.out);
            }
            b'+' => self.wait(Duration::from_millis(u64::from(number().unwrap_or(1000)))),
            b'@' => self.leave(number().unwrap_or(0)),
            b'<' => self.child(rest),
            _ => self.child(line),
        }
        self.settle();
    }

    /// The stream of what a client says: a new one, or its lane.
    fn stream(&mut self, name: u8) -> StreamId {
        if self.which == Which::Shared
            && let Some(lane) = self.lanes.get(&name)
        {
            return *lane;
        }
        self.last_stream.0 += 1;
        if self.which == Which::Shared {
            self.lanes.insert(name, self.last_stream);
            self.front.join(self.last_stream);
            assert!(self.front.has_lanes());
        }
        self.last_stream
    }

    fn client(&mut self, name: u8, body: &[u8], takes: Takes) {
        let Ok(message) = Message::parse(Bytes::copy_from_slice(body)) else { return };
        let stream = self.stream(name);
        if !self.front.accepting() {
            return;
        }
        let id = message.request().map(|request| ClientId(request.id().clone()));
        let is_listen = message.request().is_some_and(|request| request.method() == "subscriptions/listen");
        let running = id.as_ref().is_some_and(|id| match self.which {
            Which::Upgrade => false,
            Which::Downgrade => self.open.iter().any(|(_, open)| open == id),
            Which::Shared => self.open.contains(&(stream, id.clone())),
        });
        let from = Origin { stream, takes, arrived: self.now, mirrored: Mirrored::nothing() };
        match self.front.client(message, from, self.now, &mut self.out) {
            Ok(()) => {
                assert!(!running, "two requests with one id");
                if is_listen && self.which == Which::Upgrade {
                    self.listens.insert(stream);
                }
                self.open.extend(id.map(|id| (stream, id)));
            }
            Err(Refusal::DuplicateId(of)) => assert!(running && Some(of) == id),
            Err(Refusal::AlreadyInitialized(of)) => assert_eq!(Some(of), id),
            Err(Refusal::UnknownResponse) => assert_eq!(id, None),
        }
    }

    fn child(&mut self, line: &[u8]) {
        let mut line = LongLine::new(line.into(), usize::MAX);
        loop {
            let text = match line.step() {
                Found::Message(message) => {
                    Self::says(&mut self.asked, &message);
                    let (lanes, left) = (self.lanes.clone(), self.left.clone());
                    let readers = |stream| readership(self.which, &lanes, &left, stream);
                    self.front.child(message, self.now, &readers, &mut self.out);
                    self.take_outputs();
                    continue;
                }
                Found::Pause | Found::Invalid(_) => continue,
                Found::Stray(text) => (beginning(text).into_owned(), false),
                Found::Noise(text) => (beginning(text).into_owned(), true),
                Found::TooLong { .. } | Found::End => return,
            };
            let (text, ends) = text;
            for part in look(&text).parts {
                match part {
                    Part::Message { message, quoted } if !quoted || self.front.awaits(&message) => {
                        Self::says(&mut self.asked, &message);
                        let (lanes, left) = (self.lanes.clone(), self.left.clone());
                        let readers = |stream| readership(self.which, &lanes, &left, stream);
                        self.front.child(message, self.now, &readers, &mut self.out);
                    }
                    Part::Message { .. } => {}
                    Part::Broken(broken) => {
                        self.front.child_broken(&broken, &mut self.out);
                    }
                }
                self.take_outputs();
            }
            if ends {
                return;
            }
        }
    }

    /// The child says this: if it asks something, it may have an answer.
    fn says(asked: &mut HashMap<Id, usize>, message: &Incoming<'_>) {
        if message.envelope.kind == Kind::Request
            && let Some(id) = message.envelope.id(message.text())
        {
            *asked.entry(id).or_default() += 1;
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        let (lanes, left) = (self.lanes.clone(), self.left.clone());
        let readers = |stream| readership(self.which, &lanes, &left, stream);
        self.front.expire(self.now, &readers, &mut self.out);
        self.take_outputs();
        assert!(self.front.next_deadline().is_none_or(|next| next > self.now), "a deadline has passed");
    }

    fn leave(&mut self, number: u32) {
        let stream = match self.which {
            Which::Shared => {
                let name = b'0' + (number % 10) as u8;
                let Some(lane) = self.lanes.get(&name).copied() else { return };
                self.front.reader_left(lane, false, self.now, &mut self.out);
                self.take_outputs();
                self.lanes.remove(&name);
                lane
            }
            Which::Upgrade | Which::Downgrade => {
                let stream = StreamId(number.into());
                self.front.reader_left(stream, false, self.now, &mut self.out);
                self.take_outputs();
                stream
            }
        };
        self.left.insert(stream);
        if self.which != Which::Downgrade {
            // A lane's session is over, and who has listened is told nothing; all else must have ended.
            let rest = self.open.extract_if(|(open, _)| *open == stream).count();
            let is_listen = self.listens.remove(&stream);
            assert!(rest == 0 || is_listen || self.which == Which::Shared, "who has left waits for nothing");
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.out.take() {
            match output {
                Output::Answer { stream, message, success } => {
                    let envelope = Envelope::peek(&message).expect("an answer is a message");
                    assert_eq!(envelope.kind == Kind::Success, success);
                    one_line(&message);
                    self.ended(stream, ClientId(envelope.id(&message).expect("the client's id")));
                }
                Output::Message { stream, message } => {
                    let is_there = match self.which {
                        Which::Upgrade => self.open.iter().any(|(open, _)| *open == stream),
                        Which::Downgrade => stream <= self.last_stream,
                        Which::Shared => self.lanes.values().any(|lane| *lane == stream),
                    };
                    assert!(is_there, "nobody has {stream:?}");
                    let envelope = Envelope::peek(&message).expect("it is a message");
                    let may_ask = self.which != Which::Upgrade && envelope.kind == Kind::Request;
                    assert!(may_ask || envelope.kind == Kind::Notification, "it is for nobody to answer");
                    one_line(&message);
                }
                Output::Unanswered { stream, id, .. } => self.ended(stream, id),
                Output::Handshake(Handshake::Done(_)) | Output::Note(_) => {}
                Output::Handshake(_) | Output::AnswerToUnknown => self.over = true,
            }
        }
    }

    fn ended(&mut self, stream: StreamId, id: ClientId) {
        let call = (stream, id);
        let own = self.open.take(&call).unwrap_or_else(|| panic!("{call:?} ended and was not running"));
        assert_eq!(own.1.0.as_json(), call.1.0.as_json(), "a client finds its id as it spelt it");
        self.listens.remove(&stream);
    }

    /// Looks at all that has come out.
    fn settle(&mut self) {
        self.take_outputs();
        let out = self.out.stdin.split().freeze();
        self.out.left(out.len());
        assert!(out.is_empty() || out.ends_with(b"\n"), "the child gets whole lines");
        for line in out[..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.given(line);
        }
        if !self.over {
            let calls = self.open.len() - self.listens.len();
            // One that will stay open counts until the handshake is over.
            let in_flight = self.front.in_flight();
            assert!((calls..=self.open.len()).contains(&in_flight), "{in_flight} of {:?}", self.open);
        }
    }

    fn given(&mut self, line: &[u8]) {
        one_line(line);
        let envelope = Envelope::peek(line).expect("the child gets messages");
        let method = envelope.method(line);
        let is_modern = self.which == Which::Downgrade;
        let foreign: &[&str] = match self.which {
            Which::Upgrade => &OF_2026,
            Which::Downgrade => &OF_SESSIONS,
            Which::Shared => &[], // whatever its clients say
        };
        let is_call = matches!(envelope.kind, Kind::Request | Kind::Notification);
        assert!(!is_call || !foreign.contains(&&*method), "its era has no {method}");
        match envelope.kind {
            Kind::Request => {
                let id = envelope.id.clone().and_then(|id| std::str::from_utf8(&line[id]).ok()?.parse().ok());
                assert!(self.written.insert(id.expect("an id of the bridge")), "two requests as {id:?}");
                let first = !std::mem::replace(&mut self.greeted, true);
                if is_modern {
                    assert_eq!(method == "server/discover", first, "it is asked that first, and once");
                    let text = std::str::from_utf8(line).expect("it is UTF-8");
                    assert!(text.contains("io.modelcontextprotocol/protocolVersion"), "{text}");
                } else {
                    assert_eq!(method == "initialize", first, "initialize comes first, and once");
                    assert!(self.initialized || first, "a request before initialized");
                }
            }
            Kind::Notification if method == "notifications/initialized" => {
                assert!(!std::mem::replace(&mut self.initialized, true), "initialized twice");
            }
            Kind::Notification => {}
            Kind::Success | Kind::Failure => {
                // What has no usable id is answered without one.
                if let Some(id) = envelope.id(line) {
                    let asked = self.asked.get_mut(&id).filter(|count| **count > 0);
                    *asked.unwrap_or_else(|| {
                        panic!("the child has asked this: {}", String::from_utf8_lossy(line))
                    }) -= 1;
                }
            }
        }
    }

    fn finish(mut self) {
        if !self.over {
            self.front.farewell(&mut self.out);
            self.take_outputs();
        }
        for (stream, id) in self.front.abandon() {
            self.ended(stream, id);
        }
        assert!(self.open.is_empty(), "without an end: {:?}", self.open);
        assert_eq!(self.front.in_flight(), 0);
    }
}

fn request(text: &str) -> Request {
    match Message::parse(Bytes::copy_from_slice(text.as_bytes())) {
        Ok(Message::Request(request)) => request,
        other => panic!("it is a request: {other:?}"),
    }
}

/// A lane is read as long as it is there; every third stream of a client can be resumed.
fn readership(
    which: Which,
    lanes: &BTreeMap<u8, StreamId>,
    left: &HashSet<StreamId>,
    stream: StreamId,
) -> Readership {
    let is_read = match which {
        Which::Shared => lanes.values().any(|lane| *lane == stream),
        Which::Upgrade | Which::Downgrade => !left.contains(&stream),
    };
    match stream {
        _ if is_read => Readership::Present,
        stream if stream.0.is_multiple_of(3) && which == Which::Downgrade => Readership::MayResume,
        _ => Readership::Absent,
    }
}
