//! Clients of 2026-07-28 on one side, a child of the session era on the other, and a test that plays both: one claim per
//! rule first, what is asked in between then, then strangers, then properties over whole sessions.

use std::cell::Cell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::proto::front::Mirrored;
use crate::proto::front::tests::{
    Harness, LIMITS, answer, client_id, dropped, error, event, secs, unanswered,
};
use crate::proto::link::own_initialize_of_all;
use crate::proto::output::Capability;
use crate::proto::testing::{message, note, progress, request};
use crate::proto::version::Revision;

mod between;
mod listening;
mod properties;
mod strangers;
mod table;

/// What most children here have said of themselves: they have no tools, so that nobody asks for their parameters.
const CAPABILITIES: &str = r#"{"logging":{},"prompts":{"listChanged":true},"resources":{"subscribe":true}}"#;

const WITH_TOOLS: &str = r#"{"tools":{"listChanged":true}}"#;

/// As each result names the child.
const SERVER: &str = r#""io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}"#;

/// The answer to `initialize` of a child with these capabilities.
fn greeting(capabilities: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":"2025-06-18","capabilities":{capabilities},"serverInfo":{{"name":"s","version":"1"}},"instructions":"Ask \"me\"."}}}}"#
    )
}

/// Names that are no secret, and each another one.
fn counted() -> u128 {
    thread_local!(static NEXT: Cell<u128> = const { Cell::new(1) });
    NEXT.replace(NEXT.get() + 1)
}

const UPGRADED: Limits = Limits { max_in_flight: 100, state: counted, ..LIMITS };

/// Whether clients are strangers to each other.
const STRANGERS: bool = true;

/// Whether they have one key.
const KIN: bool = false;

/// A request of 2026-07-28 as a test writes it.
#[derive(Clone, Debug)]
struct Ask {
    id: String,
    method: &'static str,
    /// Further members of `params`.
    params: Vec<String>,
    /// What the client declares.
    declares: &'static str,
    /// Further members of `_meta`.
    meta: Vec<String>,
}

impl Ask {
    fn new(id: &str, method: &'static str) -> Self {
        Self { id: id.to_owned(), method, params: Vec::new(), declares: "{}", meta: Vec::new() }
    }

    fn tool(id: &str) -> Self {
        Self::new(id, "tools/call").with(r#""name":"t""#)
    }

    /// A call of a client that can be asked all there is.
    fn able(id: &str) -> Self {
        Self::tool(id).declaring(r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}}"#)
    }

    fn with(mut self, member: &str) -> Self {
        self.params.push(member.to_owned());
        self
    }

    fn declaring(mut self, capabilities: &'static str) -> Self {
        self.declares = capabilities;
        self
    }

    fn meta(mut self, member: &str) -> Self {
        self.meta.push(member.to_owned());
        self
    }

    fn level(self, level: &str) -> Self {
        self.meta(&format!(r#""io.modelcontextprotocol/logLevel":"{level}""#))
    }

    fn token(self, token: &str) -> Self {
        self.meta(&format!(r#""progressToken":{token}"#))
    }

    /// The same once more, under this id and with answers.
    fn again(&self, id: &str, state: &str, responses: &str) -> Self {
        let members = format!(r#""inputResponses":{{{responses}}},"requestState":"{state}""#);
        Self { id: id.to_owned(), ..self.clone() }.with(&members)
    }

    fn text(&self) -> String {
        let Self { id, method, params, declares, meta } = self;
        let mut meta = meta.clone();
        meta.insert(0, format!(r#""io.modelcontextprotocol/clientCapabilities":{declares}"#));
        meta.insert(0, r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#.to_owned());
        meta.push(r#""io.modelcontextprotocol/clientInfo":{"name":"c"}"#.to_owned());
        let mut params = params.clone();
        params.push(format!(r#""_meta":{{{}}}"#, meta.join(",")));
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{}}}}}"#, params.join(","))
    }
}

/// What the child sees of an [`Ask::tool`].
fn called(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"t"}}}}"#)
}

/// A result of the child with these members.
fn child_result(id: &str, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{members}}}}}"#)
}

/// The same as a client of 2026-07-28 gets it.
fn complete(id: &str, members: &str) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    child_result(id, &format!(r#""resultType":"complete","_meta":{{{SERVER}}}{comma}{members}"#))
}

/// What the child asks.
fn question(id: &str, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}}}}}"#)
}

fn elicitation(id: &str, text: &str) -> String {
    question(id, "elicitation/create", &format!(r#""message":"{text}""#))
}

/// The same as its client is asked it.
fn elicited(text: &str) -> String {
    format!(r#"{{"method":"elicitation/create","params":{{"mode":"form","message":"{text}"}}}}"#)
}

/// The answer that a child is given whose question nobody answers.
fn given_up(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"action":"cancel"}}}}"#)
}

/// What a child is told of a call whose client has gone.
fn withdrawn(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"the client has gone"}}}}"#
    )
}

/// The answer that a child is given whose question reaches nobody, and why.
fn refusal_of(id: &str, why: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"{why}"}}}}"#)
}

const ACCEPTED: &str = r#"{"action":"accept","content":{"x":1}}"#;

fn declined(stream: u64, id: &str, why: Declined) -> Output {
    unanswered(stream, id, Unanswered::Declined(why))
}

/// Those that are no notes.
fn told(mut outputs: Vec<Output>) -> Vec<Output> {
    outputs.retain(|output| !matches!(output, Output::Note(_)));
    outputs
}

impl Harness<Upgrade> {
    fn upgrade(limits: Limits, strangers: bool) -> Self {
        let mut out = Out::default();
        let front = Upgrade::open(
            limits,
            &own_initialize_of_all(Revision::R2025_11_25),
            strangers,
            Duration::ZERO,
            &mut out,
        );
        Self {
            front,
            now: Duration::ZERO,
            live: BTreeSet::new(),
            resumable: BTreeSet::new(),
            out,
            handshake: None,
        }
    }

    /// The handshake is over.
    fn greeted(limits: Limits, strangers: bool, capabilities: &str) -> Self {
        let mut session = Self::upgrade(limits, strangers);
        assert_eq!(session.says(&greeting(capabilities)), []);
        assert!(session.is_open());
        session.stdin();
        session
    }

    fn shared(strangers: bool) -> Self {
        Self::greeted(UPGRADED, strangers, CAPABILITIES)
    }

    /// A client sends this on a stream of its own; what comes out.
    fn send(&mut self, stream: u64, ask: &Ask) -> Vec<Output> {
        self.send_as(stream, ask, &Mirrored::default(), Takes::Events)
    }

    fn send_as(&mut self, stream: u64, ask: &Ask, mirrored: &Mirrored, takes: Takes) -> Vec<Output> {
        let from = Origin { stream: StreamId(stream), takes, arrived: self.now, mirrored };
        self.live.insert(stream);
        let fate = self.front.client(message(&ask.text()), from, self.now, &mut self.out);
        assert_eq!(fate, Ok(()), "{ask:?}");
        self.front.check();
        self.outputs()
    }

    /// A client's request is passed on: the id under which the child sees it.
    fn passed(&mut self, stream: u64, ask: &Ask) -> String {
        assert_eq!(self.send(stream, ask), [], "{ask:?} is passed on");
        let line = self.stdin().pop().expect("at once");
        serde_json::from_str::<Value>(&line).unwrap()["id"].to_string()
    }

    /// The child writes a message; what comes out.
    fn says(&mut self, text: &str) -> Vec<Output> {
        assert!(self.is_message(text), "{text}");
        self.front.check();
        self.outputs()
    }

    /// A client closes the response on this stream.
    fn leave(&mut self, stream: u64) -> Vec<Output> {
        self.live.remove(&stream);
        self.front.reader_left(StreamId(stream), true, self.now, &mut self.out);
        self.front.check();
        self.outputs()
    }

    /// Time passes; what ends.
    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let ended = self.at(self.now + time);
        self.front.check();
        ended
    }

    /// The clients of calls for which the child has asked something are asked now.
    fn gathered(&mut self) -> Vec<Output> {
        self.pass(GATHER)
    }

    /// The one answer that asks for more has come out on this stream, to the request with this id and with these questions.
    /// Returns the state.
    fn asked(&mut self, stream: u64, id: &str, questions: &[(&str, &str)]) -> String {
        let outputs = told(self.gathered());
        asked(&outputs, stream, id, questions)
    }

    /// Nothing is left of anything that was going on.
    fn assert_empty(&self) {
        self.assert_nothing_in_flight();
        let Upgrade { link, waiting, tools, by_stream, asking, parked, undecided, .. } = &self.front;
        assert_eq!(link.in_flight(), 0, "the child has nothing to do");
        assert!(waiting.is_empty() && tools.held().is_empty() && by_stream.is_empty() && asking.is_empty());
        assert!(parked.is_empty() && undecided.next_deadline().is_none());
        assert_eq!(self.front.held_bytes(), 0);
    }
}

/// That these are the one answer on this stream that asks this. Returns the state.
fn asked(outputs: &[Output], stream: u64, id: &str, questions: &[(&str, &str)]) -> String {
    let [Output::Answer { stream: on, message, success: true }] = outputs else { panic!("{outputs:?}") };
    assert_eq!(on.0, stream);
    let message = std::str::from_utf8(message).unwrap();
    let value: Value = serde_json::from_str(message).unwrap();
    let state = value["result"]["requestState"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned();
    let questions: Vec<_> =
        questions.iter().map(|(key, question)| format!(r#""{key}":{question}"#)).collect();
    let questions = questions.join(",");
    let want = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{questions}}},"requestState":"{state}"}}}}"#
    );
    assert_eq!(message, want);
    state
}
