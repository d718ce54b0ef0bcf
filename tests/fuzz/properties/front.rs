//! A session from the first byte to the last, as a record of its traffic.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use mcp_bridge::proto::front::single::Single;
use mcp_bridge::proto::front::{Front, Mirrored, Origin, Readership, Refusal, Takes};
use mcp_bridge::proto::ids::{ClientId, Ids, StreamId};
use mcp_bridge::proto::incoming::{Found, LongLine};
use mcp_bridge::proto::json::{elements, is_array};
use mcp_bridge::proto::link::{Limits, Readiness};
use mcp_bridge::proto::message::{Envelope, Kind, Message, Request};
use mcp_bridge::proto::output::{Handshake, Note, Out, Output};

use super::{flat, one_line, readers};

const LIMITS: Limits = Limits {
    init_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(100),
    max_in_flight: 4,
    respawn: true,
    restore: None,
    ready: Readiness::AT_ONCE,
    ids: Ids::counted,
    state: || 1,
};

/// How much of a hostile kind may be in one record: each step of it takes time.
const HOSTILE: usize = 5000;

/// How much longer than what a client said a line to the child may be: an id that is too long does not come back (src/README.md,
/// *Limits*), and what else the bridge says is short.
const BRIDGE: usize = 9 * 1024;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":"init","method":"initialize","params":{}}"#;

struct Session {
    front: Single,
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
    out: Out,
    /// What is left of [`HOSTILE`].
    hostile: usize,
    /// The length of the longest thing that a client has said.
    longest: usize,
    /// Whether the handshake has failed, or an answer is lost: the session is over.
    over: bool,
}

/// Whatever either side says and whenever, each request ends exactly once, with its own id and on its own stream; the
/// child is given whole messages, each request under an id of its own, and is told `initialized` at most once.
///
/// Each line is a step, and its first byte says which: `>` a client posts and takes a stream, `=` it posts and takes JSON
/// alone, `<` the child says, `!` the child says what is too long, `*` it says much of one hostile kind, `+` seconds pass,
/// `@` a stream's reader comes or goes, `~` the child is lost and another comes.
pub fn front(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n').peekable();
    let first = lines.next_if(|line| line.starts_with(b">")).map(|line| Bytes::copy_from_slice(&line[1..]));
    let opens = |text| match Message::parse(text) {
        Ok(Message::Request(request)) if request.method() == "initialize" => Some(request),
        _ => None,
    };
    let initialize = first.and_then(opens).or_else(|| opens(INITIALIZE.into())).expect("a request");
    let mut session = Session::open(&initialize);
    for line in lines {
        session.step(line);
        session.settle();
        if session.over {
            break;
        }
    }
    session.finish();
}

impl Session {
    fn open(initialize: &Request) -> Self {
        let mut out = Out::default();
        let from = Origin {
            stream: StreamId(1),
            takes: Takes::Events,
            arrived: Duration::ZERO,
            mirrored: Mirrored::nothing(),
        };
        let mut session = Self {
            front: Single::open(LIMITS, initialize, from, Duration::ZERO, &mut out),
            now: Duration::ZERO,
            last_stream: StreamId(1),
            deaf: HashSet::new(),
            open: HashSet::new(),
            written: HashSet::new(),
            initialized: false,
            greeted: false,
            out,
            hostile: HOSTILE,
            longest: initialize.text().len(),
            over: false,
        };
        session.open.insert((StreamId(1), ClientId(initialize.id().clone())));
        session.settle();
        session
    }

    fn step(&mut self, line: &[u8]) {
        let Some((sort, rest)) = line.split_first() else { return };
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.trim().parse::<u16>().ok());
        match sort {
            b'>' => self.client(rest, Takes::Events),
            b'=' => self.client(rest, Takes::AnswerOnly),
            b'<' => self.child(rest),
            b'!' => {
                self.front.child_too_long(rest, &mut self.out);
                self.take_outputs(None);
            }
            b'*' => self.hostile(rest),
            b'+' => self.wait(Duration::from_secs(u64::from(number().unwrap_or(1)))),
            b'@' => {
                let stream = StreamId(u64::from(number().unwrap_or(0)));
                if !self.deaf.remove(&stream) {
                    self.deaf.insert(stream);
                    self.front.reader_left(stream, false, self.now, &mut self.out);
                }
            }
            b'~' => self.another(),
            _ => self.child(line),
        }
    }

    fn client(&mut self, body: &[u8], takes: Takes) {
        let texts = match std::str::from_utf8(body) {
            Ok(text) if is_array(body) => elements(text).collect::<Option<Vec<_>>>().unwrap_or_default(),
            Ok(text) => vec![text],
            Err(_) => return,
        };
        self.last_stream.0 += 1;
        self.longest = self.longest.max(body.len());
        if !self.front.accepting() {
            return;
        }
        for text in texts {
            if let Ok(message) = Message::parse(Bytes::copy_from_slice(text.as_bytes())) {
                readers::agree(&message);
                self.post(message, takes);
            }
        }
    }

    fn post(&mut self, message: Message, takes: Takes) {
        let request = message.request().map(|request| ClientId(request.id().clone()));
        let running = request.as_ref().is_some_and(|id| self.open.iter().any(|call| call.1 == *id));
        let from =
            Origin { stream: self.last_stream, takes, arrived: self.now, mirrored: Mirrored::nothing() };
        match self.front.client(message, from, self.now, &mut self.out) {
            Ok(()) => {
                assert!(request.is_none() || !running, "two requests with one id");
                self.open.extend(request.map(|id| (self.last_stream, id)));
                self.take_outputs(None);
            }
            Err(Refusal::DuplicateId(id)) => assert!(running && Some(id) == request),
            Err(Refusal::AlreadyInitialized(id)) => assert_eq!(Some(id), request),
            Err(Refusal::UnknownResponse) => assert_eq!(request, None),
        }
    }

    fn child(&mut self, line: &[u8]) {
        let mut line = LongLine::new(line.into(), usize::MAX);
        loop {
            match line.step() {
                Found::Message(message) => {
                    let text = String::from_utf8(message.text().to_vec()).expect("it is UTF-8");
                    let deaf = &self.deaf;
                    let readers = |stream| readership(deaf, stream);
                    self.front.child(message, self.now, &readers, &mut self.out);
                    self.take_outputs(Some(&text));
                }
                Found::Pause | Found::Invalid(_) | Found::Stray(_) => {}
                Found::Noise(_) | Found::TooLong { .. } | Found::End => return,
            }
        }
    }

    /// `KIND COUNT`: so many such messages, or one of this length.
    fn hostile(&mut self, words: &[u8]) {
        let text = String::from_utf8_lossy(words);
        let Some((kind, count)) = text.trim().split_once(' ') else { return };
        let count = count.trim().parse::<usize>().unwrap_or(1).min(self.hostile);
        self.hostile -= count;
        match kind {
            "null" => (0..count).for_each(|_| self.child(br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#)),
            "ask" => {
                for n in 0..count {
                    let ask = format!(r#"{{"jsonrpc":"2.0","id":"{n}","method":"sampling/createMessage"}}"#);
                    self.child(ask.as_bytes());
                }
            }
            "doubled" => {
                let doubled = br#"{"jsonrpc":"2.0","id":1,"ID":2,"id":3,"method":"ping"}"#;
                (0..count).for_each(|_| self.child(doubled));
            }
            "id" => {
                // Ten times as long: no line of a record has the length of an id that is too long.
                let id = "i".repeat(count * 10);
                self.child(format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"ping"}}"#).as_bytes());
            }
            "array" => self.child(format!("[{}1]", "1,".repeat(count)).as_bytes()),
            "notes" => {
                let note = r#"{"jsonrpc":"2.0","method":"n"}"#;
                self.child(format!("[{}]", vec![note; count].join(",")).as_bytes());
            }
            "bytes" => self.child(&vec![0xff; count]),
            _ => {}
        }
    }

    /// Looks at all that has come out; `said` is what the child said before.
    fn take_outputs(&mut self, said: Option<&str>) {
        while let Some(output) = self.out.take() {
            match output {
                Output::Answer { stream, message, success } => {
                    let envelope = Envelope::peek(&message).expect("an answer is a message");
                    assert_eq!(envelope.kind == Kind::Success, success);
                    one_line(&message);
                    self.ended(stream, ClientId(envelope.id(&message).expect("the client's id")));
                }
                Output::Message { stream, message } => {
                    assert!(stream <= self.last_stream, "no POST has {stream:?}");
                    let said = said.expect("the child said it").as_bytes();
                    assert_eq!(message, flat(said), "it is passed on as it is");
                }
                Output::Unanswered { stream, id, .. } => self.ended(stream, id),
                Output::Handshake(Handshake::Done(_)) => {}
                Output::Handshake(_) | Output::AnswerToUnknown => self.over = true,
                Output::Note(Note::Swallowed(_)) => {
                    assert_eq!(said, None, "a client's message was swallowed")
                }
                Output::Note(_) => {}
            }
        }
    }

    /// What the lost child may have seen ends with it; the next one's handshake is like the first.
    fn another(&mut self) {
        if !self.front.can_restart() {
            return;
        }
        self.out.stdin.clear();
        for (stream, id) in self.front.child_lost() {
            self.ended(stream, id);
        }
        (self.initialized, self.greeted) = (false, false);
        self.front.restart(self.now, &mut self.out);
    }

    fn wait(&mut self, pause: Duration) {
        self.now += pause;
        let deaf = self.deaf.clone();
        self.front.expire(self.now, &|stream| readership(&deaf, stream), &mut self.out);
        self.take_outputs(None);
        assert!(self.front.next_deadline().is_none_or(|next| next > self.now), "a deadline has passed");
    }

    fn ended(&mut self, stream: StreamId, id: ClientId) {
        let call = (stream, id);
        assert!(self.open.remove(&call), "{call:?} ended and was not running");
    }

    /// Looks at what the child was given.
    fn settle(&mut self) {
        assert_eq!(self.front.in_flight(), self.open.len(), "in flight is what has not ended");
        let out = self.out.stdin.split().freeze();
        assert!(out.is_empty() || out.ends_with(b"\n"), "the child gets whole lines");
        let lines = out[..].split(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.is_empty()) {
            one_line(line);
            assert!(line.len() <= self.longest + BRIDGE, "the child gets {} bytes", line.len());
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
        for (stream, id) in self.front.abandon() {
            self.ended(stream, id);
        }
        assert!(self.open.is_empty(), "without an end: {:?}", self.open);
        assert_eq!(self.front.in_flight(), 0);
    }
}

/// Every third stream that is not read can be resumed.
fn readership(deaf: &HashSet<StreamId>, stream: StreamId) -> Readership {
    match stream {
        stream if !deaf.contains(&stream) => Readership::Present,
        stream if stream.0.is_multiple_of(3) => Readership::MayResume,
        _ => Readership::Absent,
    }
}
