//! A client of the session era on one side, a child of 2026-07-28 on the other, and a test that plays both: one claim per
//! rule first, then what is asked in between, then subscriptions in every order, then properties over whole sessions.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::proto::front::Mirrored;
use crate::proto::front::tests::{
    Harness, LIMITS, answer, client_id, dropped, error, event, secs, unanswered,
};
use crate::proto::link::CANCEL_GRACE;
use crate::proto::testing::{call, cancel, message, note, progress, request, result};

mod between;
mod listening;
mod properties;
mod table;

/// What most children here have said of themselves: they tell of no lists, so that nobody subscribes to them.
const CAPABILITIES: &str = r#"{"logging":{},"tools":{},"resources":{"subscribe":true}}"#;

const DOWNGRADED: Limits = Limits { max_in_flight: 100, ..LIMITS };

const SERVER: &str = r#""io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}"#;

/// What most clients here declare.
const DECLARED: &str =
    r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{"listChanged":true},"tasks":{}}"#;

/// The members of `_meta` with which the child is told of such a client.
const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#;

const LISTENING: u64 = 0;

/// A client's `initialize`, under the id `"init"`.
fn initialize(revision: &str, declared: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"init","method":"initialize","params":{{"protocolVersion":"{revision}","capabilities":{declared},"clientInfo":{{"name":"c","version":"1"}}}}}}"#
    )
}

/// The answer to `server/discover` of a child with these capabilities.
fn discovered(id: &str, capabilities: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{capabilities},"instructions":"Ask \"me\".","ttlMs":0,"cacheScope":"private","_meta":{{{SERVER}}}}}}}"#
    )
}

/// A request with these parameters.
fn with(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}}}}}"#)
}

fn tool(id: &str) -> String {
    with(id, "tools/call", r#""name":"t""#)
}

/// What the child sees of it; `more`: members before its own.
fn raised(id: &str, method: &str, more: &str) -> String {
    with(id, method, &format!(r#"{more}"_meta":{{{META}}}"#))
}

/// A result of the child with these members.
fn child_result(id: &str, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{members}}}}}"#)
}

/// A result that asks for this.
fn asks(id: &str, requests: &str, state: &str) -> String {
    let state = if state.is_empty() { String::new() } else { format!(r#","requestState":{state}"#) };
    child_result(id, &format!(r#""resultType":"input_required","inputRequests":{{{requests}}}{state}"#))
}

fn form(key: &str) -> String {
    format!(
        r#""{key}":{{"method":"elicitation/create","params":{{"mode":"form","message":"{key}","requestedSchema":{{}}}}}}"#
    )
}

/// The same as its client is asked it.
fn elicited(number: u64, key: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"mcp-bridge-{number}","method":"elicitation/create","params":{{"mode":"form","message":"{key}","requestedSchema":{{}}}}}}"#
    )
}

/// What a client is told of a question that needs no answer.
fn taken_back(number: u64, why: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":"mcp-bridge-{number}","reason":"{why}"}}}}"#
    )
}

/// A client's answer to a question.
fn accept(number: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"mcp-bridge-{number}","result":{{"action":"accept"}}}}"#)
}

/// What a child is told of a request that the bridge has ended.
fn withdrawn(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"the client has gone"}}}}"#
    )
}

/// An acknowledgement of a subscription.
fn acknowledged(id: &str, notifications: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"notifications":{{{notifications}}}}}}}"#
    )
}

fn of_subscription(id: &str, method: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}{more}}}}}"#
    )
}

/// An error of the bridge's own.
fn failure(id: &str, code: i64, reason: &str, why: &str) -> String {
    let why = crate::proto::json::quote(why);
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{why},"data":{{"source":"mcp-bridge","reason":"{reason}"}}}}}}"#
    )
}

fn unserved(id: &str, why: &str) -> String {
    failure(id, -32603, "missing_input", why)
}

/// Those that are no notes.
fn told(mut outputs: Vec<Output>) -> Vec<Output> {
    outputs.retain(|output| !matches!(output, Output::Note(_)));
    outputs
}

impl Harness<Downgrade> {
    /// The child has been asked `server/discover`, under the id 1; the client's request came on stream 1.
    fn starting(limits: Limits, initialize: &str) -> Self {
        let mut out = Out::default();
        let from = Origin {
            stream: StreamId(1),
            takes: Takes::Events,
            arrived: Duration::ZERO,
            mirrored: Mirrored::nothing(),
        };
        let request = crate::proto::testing::parsed_request(initialize);
        let front = Downgrade::open(limits, &request, from, Duration::ZERO, &mut out);
        Self {
            front,
            now: Duration::ZERO,
            live: BTreeSet::from([1]),
            resumable: BTreeSet::new(),
            out,
            handshake: None,
        }
    }

    /// The handshake is over, and the client has said `initialized`.
    fn greeted(limits: Limits, revision: &str, declared: &str, capabilities: &str) -> Self {
        let mut session = Self::starting(limits, &initialize(revision, declared));
        session.says(&discovered("1", capabilities));
        assert!(session.is_open());
        session.live.remove(&1);
        session.send(2, &note("notifications/initialized"));
        session
    }

    fn open() -> Self {
        let mut session = Self::greeted(DOWNGRADED, "2025-11-25", DECLARED, CAPABILITIES);
        session.stdin();
        session
    }

    fn sent(&mut self, stream: u64, takes: Takes, text: &str) -> Result<Vec<Output>, Refusal> {
        let from =
            Origin { stream: StreamId(stream), takes, arrived: self.now, mirrored: Mirrored::nothing() };
        let fate = self.front.client(message(text), from, self.now, &mut self.out);
        self.front.check();
        let outputs = self.outputs();
        fate.map(|()| outputs)
    }

    /// The client posts this, and reads the stream of the answer; what comes out.
    fn send(&mut self, stream: u64, text: &str) -> Vec<Output> {
        if message(text).request().is_some() {
            self.live.insert(stream);
        }
        self.sent(stream, Takes::Events, text).unwrap_or_else(|why| panic!("{text}: {why:?}"))
    }

    /// A client's request is passed on: the id under which the child sees it.
    fn passed(&mut self, stream: u64, text: &str) -> String {
        assert_eq!(self.send(stream, text), [], "{text} is passed on");
        id_of(&self.stdin().pop().expect("at once"))
    }

    /// The id of the one line that the child has received.
    fn seen(&mut self) -> String {
        let [line] = &self.stdin()[..] else { panic!("the child receives one line") };
        id_of(line)
    }

    /// The child writes a message; what comes out.
    fn says(&mut self, text: &str) -> Vec<Output> {
        assert!(self.is_message(text), "{text}");
        self.front.check();
        self.outputs()
    }

    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let ended = self.at(self.now + time);
        self.front.check();
        ended
    }

    fn leave(&mut self, stream: u64, took_all: bool) -> Vec<Output> {
        self.live.remove(&stream);
        self.front.reader_left(StreamId(stream), took_all, self.now, &mut self.out);
        self.outputs()
    }

    /// Nothing is left of anything that was going on, subscriptions aside.
    fn assert_empty(&self) {
        self.assert_nothing_in_flight();
        let Downgrade { by_client, by_token, asking, questions, waiting, kept, .. } = &self.front;
        assert!(by_client.is_empty() && by_token.is_empty() && asking.is_empty() && questions.is_empty());
        assert!(waiting.is_empty() && *kept == 0);
        assert_eq!(self.front.held_bytes(), 0);
    }
}

/// The id of a message, which may have numbers that are too large for others.
fn id_of(line: &str) -> String {
    let message = Incoming::peek(line).unwrap();
    message.token(message.envelope.id.clone().unwrap()).to_owned()
}

fn events(stream: u64, texts: &[String]) -> Vec<Output> {
    texts.iter().map(|text| event(stream, text).unwrap()).collect()
}

fn answered(stream: u64, text: &str) -> Vec<Output> {
    vec![answer(stream, text).unwrap()]
}
