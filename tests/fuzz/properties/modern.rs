//! Clients of 2026-07-28 that share a child, as a record of their traffic.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use mcp_bridge::proto::front::modern::Modern;
use mcp_bridge::proto::front::{Front, Mirrored, Origin, Readership, Refusal, Takes};
use mcp_bridge::proto::ids::{Id, Ids, StreamId};
use mcp_bridge::proto::incoming::{Found, LongLine};
use mcp_bridge::proto::link::{Limits, Readiness, own_discover};
use mcp_bridge::proto::message::{Envelope, Kind, Message};
use mcp_bridge::proto::output::{Handshake, Out, Output};

use super::one_line;

const LIMITS: Limits = Limits {
    init_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(100),
    max_in_flight: 4,
    respawn: false,
    restore: None,
    ready: Readiness::AT_ONCE,
    ids: Ids::counted,
    state: || 1,
};

/// What must never reach a child that others use too.
const OF_SESSIONS: [&str; 3] = ["initialize", "notifications/initialized", "logging/setLevel"];

struct Session {
    front: Modern,
    now: Duration,
    last_stream: StreamId,
    /// Requests that were taken and have no end yet, with their clients' ids; each has a stream of its own.
    open: BTreeMap<StreamId, Id>,
    /// The ids under which the child knows requests.
    written: HashSet<u64>,
    out: Out,
    over: bool,
}

/// Whatever either side says and whenever, each request ends exactly once, with its own id and on its own stream; nothing
/// reaches a stream without a request; and the child is given whole messages, each request under an id of its own, and
/// nothing of the session era.
///
/// Each line is a step, and its first byte says which: `>` a client posts and takes a stream, `=` it posts and takes JSON
/// alone, `<` the child says, `!` the child says what is too long, `+` seconds pass, `@` the client of a stream leaves.
pub fn modern(data: &[u8]) {
    let mut out = Out::default();
    let front = Modern::open(LIMITS, &own_discover(), data.len().is_multiple_of(2), Duration::ZERO, &mut out);
    let mut session = Session {
        front,
        now: Duration::ZERO,
        last_stream: StreamId(0),
        open: BTreeMap::new(),
        written: HashSet::new(),
        out,
        over: false,
    };
    session.settle();
    // Most of what follows is worth more with a child that serves.
    if !data.starts_with(b"<") {
        session.child(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    }
    for line in data.split(|byte| *byte == b'\n') {
        session.step(line);
        session.settle();
        if session.over {
            break;
        }
    }
    session.finish();
}

impl Session {
    fn step(&mut self, line: &[u8]) {
        let Some((sort, rest)) = line.split_first() else { return };
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.trim().parse::<u16>().ok());
        match sort {
            b'>' => self.client(rest, Takes::Events),
            b'=' => self.client(rest, Takes::AnswerOnly),
            b'<' => self.child(rest),
            b'!' => self.front.child_too_long(rest, &mut self.out),
            b'+' => {
                self.now += Duration::from_secs(u64::from(number().unwrap_or(1)));
                self.front.expire(self.now, &|_| Readership::Present, &mut self.out);
                let next = self.front.next_deadline();
                assert!(next.is_none_or(|next| next > self.now), "a deadline has passed");
            }
            b'@' => {
                let stream = StreamId(u64::from(number().unwrap_or(0)));
                self.front.reader_left(stream, false, self.now, &mut self.out);
                self.take_outputs();
                assert!(!self.open.contains_key(&stream), "who has left waits for nothing");
            }
            _ => self.child(line),
        }
        self.take_outputs();
    }

    fn client(&mut self, body: &[u8], takes: Takes) {
        if !self.front.accepting() {
            return;
        }
        let Ok(message) = Message::parse(Bytes::copy_from_slice(body)) else { return };
        self.last_stream.0 += 1;
        let from =
            Origin { stream: self.last_stream, takes, arrived: self.now, mirrored: Mirrored::nothing() };
        let id = message.request().map(|request| request.id().clone());
        match self.front.client(message, from, self.now, &mut self.out) {
            Ok(()) => self.open.extend(id.map(|id| (self.last_stream, id))),
            Err(refusal) => assert_eq!((refusal, id), (Refusal::UnknownResponse, None)),
        }
    }

    fn child(&mut self, line: &[u8]) {
        let mut line = LongLine::new(line.into(), usize::MAX);
        loop {
            match line.step() {
                Found::Message(message) => {
                    self.front.child(message, self.now, &|_| Readership::Present, &mut self.out);
                    self.take_outputs();
                }
                Found::Pause | Found::Invalid(_) | Found::Stray(_) => {}
                Found::Noise(_) | Found::TooLong { .. } | Found::End => return,
            }
        }
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.out.take() {
            match output {
                Output::Answer { stream, message, success } => {
                    let envelope = Envelope::peek(&message).expect("an answer is a message");
                    assert_eq!(envelope.kind == Kind::Success, success);
                    one_line(&message);
                    self.ended(stream, &envelope.id(&message).expect("the client's id"));
                }
                Output::Message { stream, message } => {
                    assert!(self.open.contains_key(&stream), "no request has {stream:?}");
                    let envelope = Envelope::peek(&message).expect("it is a message");
                    assert_eq!(envelope.kind, Kind::Notification, "nobody is asked");
                    one_line(&message);
                }
                Output::Unanswered { stream, id, .. } => self.ended(stream, &id.0),
                Output::Handshake(Handshake::Done(_)) | Output::Note(_) => {}
                Output::Handshake(_) | Output::AnswerToUnknown => self.over = true,
            }
        }
    }

    fn ended(&mut self, stream: StreamId, id: &Id) {
        let own = self.open.remove(&stream).expect("it was running");
        assert_eq!(own.as_json(), id.as_json(), "a client finds its id as it spelt it");
    }

    /// Looks at what the child was given.
    fn settle(&mut self) {
        assert!(self.front.in_flight() <= self.open.len() && self.open.len() <= 2 * LIMITS.max_in_flight);
        assert_eq!(self.front.is_listening(), self.front.in_flight() < self.open.len());
        let out = self.out.stdin.split().freeze();
        assert!(out.is_empty() || out.ends_with(b"\n"), "the child gets whole lines");
        for line in out[..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            one_line(line);
            let envelope = Envelope::peek(line).expect("the child gets messages");
            assert!(!OF_SESSIONS.contains(&&*envelope.method(line)), "it has no sessions");
            match envelope.kind {
                Kind::Request => {
                    let id = envelope.id.and_then(|id| std::str::from_utf8(&line[id]).ok()?.parse().ok());
                    assert!(self.written.insert(id.expect("an id of the bridge")), "two requests as {id:?}");
                }
                Kind::Notification => assert_eq!(envelope.method(line), "notifications/cancelled"),
                Kind::Success | Kind::Failure => {} // it has asked
            }
        }
    }

    fn finish(mut self) {
        if !self.over {
            self.front.farewell(&mut self.out);
            self.take_outputs();
            assert!(!self.front.is_listening());
        }
        for (stream, id) in self.front.abandon() {
            self.ended(stream, &id.0);
        }
        assert!(self.open.is_empty(), "without an end: {:?}", self.open);
        assert_eq!(self.front.in_flight(), 0);
    }
}
