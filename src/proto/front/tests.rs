//! What a front on its link must do: first single rules, then every order of events around one call, then properties
//! over whole sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use super::single::{MAX_PENDING, MAX_RECENT, Single};
use super::*;
use crate::proto::echo::{ECHO_GRACE, TERMINAL_GRACE};
use crate::proto::ids::Ids;
use crate::proto::incoming::Incoming;
use crate::proto::link::{CANCEL_GRACE, Limits, Readiness};
use crate::proto::nearly::{Part, Wrong, look};
use crate::proto::output::{Dropped, Handshake, Note};
use crate::proto::testing::*;

mod keyed;
mod modern;
mod restored;
mod retry;
mod shared;

pub(in crate::proto) const LIMITS: Limits = Limits {
    init_timeout: secs(10),
    request_timeout: secs(100),
    max_in_flight: 4,
    respawn: false,
    restore: None,
    ready: Readiness::AT_ONCE,
    ids: Ids::counted,
    state: || 1,
};

const LISTENING: u64 = StreamId::LISTENING.0;

pub(in crate::proto) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A front between clients and a child that a test plays.
pub(in crate::proto) struct Harness<F = Single> {
    pub(in crate::proto) front: F,
    pub(in crate::proto) now: Duration,
    /// The streams that have a reader.
    pub(in crate::proto) live: BTreeSet<u64>,
    /// Those that can be resumed.
    pub(in crate::proto) resumable: BTreeSet<u64>,
    pub(in crate::proto) out: Out,
    /// How the newest handshake has ended.
    pub(in crate::proto) handshake: Option<Handshake>,
}

impl Harness {
    /// The child has `initialize`, which came under the id `"init"` on stream 1.
    fn starting_with(limits: Limits) -> Self {
        Self::begin(limits, r#"{"jsonrpc":"2.0","id":"init","method":"initialize"}"#)
    }

    fn starting() -> Self {
        Self::starting_with(LIMITS)
    }

    /// The child has answered `initialize`, and the client has not said `initialized`.
    fn answered() -> Self {
        let mut session = Self::starting();
        session.child(&result("1"));
        session.stdin();
        session
    }

    /// The handshake is over.
    fn open() -> Self {
        Self::open_with(LIMITS)
    }

    fn open_with(limits: Limits) -> Self {
        let mut session = Self::starting_with(limits);
        session.client(2, &note("notifications/initialized")).unwrap();
        session.child(&result("1"));
        session.stdin();
        session
    }

    fn begin(limits: Limits, initialize: &str) -> Self {
        let mut out = Out::default();
        let from = Origin {
            stream: StreamId(1),
            takes: Takes::Events,
            arrived: Duration::ZERO,
            mirrored: Mirrored::nothing(),
        };
        let front =
            Single::open(limits, message(initialize).request().unwrap(), from, Duration::ZERO, &mut out);
        Self { live: BTreeSet::from([1]), ..Self::of(front, out) }
    }
}

impl<F: Front + Debug> Harness<F> {
    /// With this front, which has put out so much.
    fn of(front: F, out: Out) -> Self {
        Self {
            front,
            now: Duration::ZERO,
            live: BTreeSet::new(),
            resumable: BTreeSet::new(),
            out,
            handshake: None,
        }
    }

    /// What has come out since this was last asked, the end of a handshake aside.
    pub(in crate::proto) fn outputs(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.out.take() {
            match output {
                Output::Handshake(how) if how != Handshake::TimedOut => self.handshake = Some(how),
                other => outputs.push(other),
            }
        }
        outputs
    }

    /// The one thing that has come out, if any.
    fn output(&mut self) -> Option<Output> {
        let mut outputs = self.outputs();
        assert!(outputs.len() <= 1, "one message has at most one effect: {outputs:?}");
        outputs.pop()
    }

    /// A client posts a message; `stream` is the one of its answer.
    fn client(&mut self, stream: u64, text: &str) -> Result<Option<Output>, Refusal> {
        self.post(stream, Takes::Events, text)
    }

    pub(in crate::proto) fn post(
        &mut self,
        stream: u64,
        takes: Takes,
        text: &str,
    ) -> Result<Option<Output>, Refusal> {
        let from =
            Origin { stream: StreamId(stream), takes, arrived: self.now, mirrored: Mirrored::nothing() };
        self.front.client(message(text), from, self.now, &mut self.out)?;
        Ok(self.output())
    }

    /// A client calls and reads its stream. What comes back is the id under which the child sees the call.
    fn call(&mut self, stream: u64, id: &str) -> String {
        self.call_with(stream, Takes::Events, &request(id, "tools/call"))
    }

    pub(in crate::proto) fn call_with(&mut self, stream: u64, takes: Takes, text: &str) -> String {
        self.live.insert(stream);
        assert_eq!(self.post(stream, takes, text), Ok(None), "the call is taken: {text}");
        let line = self.stdin().pop().expect("an open session passes a call on at once");
        serde_json::from_str::<Value>(&line).unwrap()["id"].to_string()
    }

    /// Whether a line of the child is a message at all. If so, what it does is done.
    pub(in crate::proto) fn is_message(&mut self, text: &str) -> bool {
        let readers = readers(&self.live, &self.resumable);
        let Ok(message) = Incoming::peek(text) else { return false };
        self.front.child(message, self.now, &readers, &mut self.out);
        true
    }

    /// The child writes a message.
    pub(in crate::proto) fn child(&mut self, text: &str) -> Option<Output> {
        assert!(self.is_message(text), "this is a message: {text}");
        self.output()
    }

    /// The child sends a message that begins like this and is too long to take.
    pub(in crate::proto) fn too_long(&mut self, head: &str) -> Vec<Output> {
        self.front.child_too_long(head.as_bytes(), &mut self.out);
        self.outputs()
    }

    /// The child writes a line that is nearly a response.
    pub(in crate::proto) fn broken(&mut self, text: &str) -> Vec<Output> {
        for part in look(text).parts {
            let Part::Broken(broken) = part else { panic!("it is broken: {text}") };
            self.front.child_broken(&broken, &mut self.out);
        }
        self.outputs()
    }

    fn awaits(&self, text: &str) -> bool {
        self.front.awaits(&Incoming::peek(text).unwrap())
    }

    /// The lines that the child has received since this was last asked.
    pub(in crate::proto) fn stdin(&mut self) -> Vec<String> {
        let text = String::from_utf8(self.out.stdin.split().to_vec()).expect("stdin is UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'), "a line ends with LF: {text:?}");
        assert!(!text.contains('\r'), "Python ends a line at a lone CR: {text:?}");
        text.lines().map(str::to_owned).collect()
    }

    /// The one line that the child has received.
    pub(in crate::proto) fn line(&mut self) -> Value {
        let [line] = &self.stdin()[..] else { panic!("the child receives one line") };
        serde_json::from_str(line).expect("which is JSON")
    }

    /// What ends when it is `now`.
    pub(in crate::proto) fn at(&mut self, now: Duration) -> Vec<Output> {
        self.now = now;
        self.front.expire(now, &readers(&self.live, &self.resumable), &mut self.out);
        self.outputs()
    }

    /// Does what must change nothing and write nothing.
    pub(in crate::proto) fn unchanged<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let state = |session: &Self| format!("{:?} {:?}", session.front, session.out);
        let before = state(self);
        let told = act(self);
        assert_eq!(state(self), before, "this changes nothing");
        told
    }

    /// A client posts what needs no forwarding.
    pub(in crate::proto) fn swallowed(&mut self, text: &str) {
        let fate = self.unchanged(|session| session.client(99, text));
        let swallowed = matches!(fate, Ok(Some(Output::Note(Note::Swallowed(_)))));
        assert!(swallowed, "this needs no forwarding: {text}: {fate:?}");
    }

    pub(in crate::proto) fn assert_nothing_in_flight(&self) {
        self.front.check();
        assert_eq!(self.front.in_flight(), 0, "calls that ended leave nothing behind");
    }

    pub(in crate::proto) fn refused(&self) -> bool {
        self.handshake == Some(Handshake::Refused)
    }

    pub(in crate::proto) fn is_open(&self) -> bool {
        matches!(self.handshake, Some(Handshake::Done(_)))
    }

    /// The version that the child has answered.
    fn negotiated(&self) -> Option<&str> {
        if let Some(Handshake::Done(version)) = &self.handshake { version.as_deref() } else { None }
    }
}

fn readers(live: &BTreeSet<u64>, resumable: &BTreeSet<u64>) -> impl Fn(StreamId) -> Readership {
    move |stream| match stream {
        stream if live.contains(&stream.0) => Readership::Present,
        stream if resumable.contains(&stream.0) => Readership::MayResume,
        _ => Readership::Absent,
    }
}

pub(in crate::proto) fn client_id(token: &str) -> ClientId {
    ClientId(Id::parse(token).unwrap())
}

pub(in crate::proto) fn error(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"no"}}}}"#)
}

pub(in crate::proto) fn answer(stream: u64, text: &str) -> Option<Output> {
    let success = text.contains(r#""result""#);
    let message = Bytes::copy_from_slice(text.as_bytes());
    Some(Output::Answer { stream: StreamId(stream), message, success })
}

pub(in crate::proto) fn event(stream: u64, text: &str) -> Option<Output> {
    let message = Bytes::copy_from_slice(text.as_bytes());
    Some(Output::Message { stream: StreamId(stream), message })
}

pub(in crate::proto) fn unanswered(stream: u64, id: &str, why: Unanswered) -> Output {
    Output::Unanswered { stream: StreamId(stream), id: client_id(id), why }
}

pub(in crate::proto) fn dropped(why: Dropped) -> Option<Output> {
    Some(Output::Note(Note::Dropped(why)))
}

fn replied(to: &'static str) -> Option<Output> {
    Some(Output::Note(Note::Replied(to)))
}

// The handshake.

#[test]
fn the_child_sees_initialize_first_and_under_the_bridges_own_id() {
    let mut session = Harness::starting();
    assert_eq!(session.stdin(), [request("1", "initialize")]);
    assert!(session.handshake.is_none(), "nothing is answered yet");
}

#[test]
fn the_child_is_told_initialized_once_and_before_all_else_however_the_client_goes_about_it() {
    // What happens: `A` the child answers initialize, `i` the client says initialized, `r` and `n` it sends a
    // request and a notification. What the child then has seen, in the same letters.
    let table = [
        ("A", ""),
        ("Ai", "i"),
        ("Aii", "i"),
        ("iA", "i"),
        ("iiAi", "i"),
        ("Ar", "ir"),
        ("An", "in"),
        ("Ari", "ir"),
        ("Airi", "ir"),
        ("rA", "ir"),
        ("nA", "in"),
        ("rAi", "ir"),
        ("riAi", "ir"),
        ("nrinAnir", "inrnnr"),
        ("rn", ""),
        ("ri", ""),
    ];
    for (events, want) in table {
        let mut session = Harness::starting();
        session.stdin();
        for (place, event) in events.chars().enumerate() {
            match event {
                'A' => drop(session.child(&result("1"))),
                'i' => drop(session.client(9, &note("notifications/initialized"))),
                'n' => drop(session.client(9, &note("n"))),
                _ => drop(session.client(9, &request(&place.to_string(), "r"))),
            }
        }
        let methods: Vec<String> = session
            .stdin()
            .iter()
            .map(|line| message(line).method().replace("notifications/initialized", "i"))
            .collect();
        assert_eq!(methods.concat(), want, "after {events}");
    }
}

#[test]
fn the_clients_own_initialized_is_passed_on_when_it_comes_in_time() {
    let mut session = Harness::answered();
    let text = r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":{"_meta":{"x":1}}}"#;
    assert_eq!(session.client(2, text), Ok(None));
    assert_eq!(session.stdin(), [text]);
}

#[test]
fn a_request_before_initialized_waits_for_it() {
    let mut session = Harness::starting();
    session.stdin();
    assert_eq!(session.client(2, &request("7", "ping")), Ok(None));
    assert!(session.stdin().is_empty(), "servers refuse what comes before initialized");
    assert_eq!(session.front.in_flight(), 2, "it is in flight all the same");
    session.child(&result("1"));
    assert_eq!(session.stdin(), [note("notifications/initialized"), request("2", "ping")]);
}

#[test]
fn an_answer_to_a_request_that_still_waits_is_no_answer() {
    let mut session = Harness::starting();
    session.client(2, &request("7", "tools/call")).unwrap();
    let told = session.child(&result("2"));
    assert_eq!(told, dropped(Dropped::UnknownId), "the child cannot know an id before it has seen it");
    assert_eq!(session.front.in_flight(), 2);
}

#[test]
fn a_second_initialize_is_refused_and_changes_nothing() {
    for mut session in [Harness::starting(), Harness::answered(), Harness::open()] {
        for id in ["\"init\"", "1", "\"other\""] {
            let refused = session.unchanged(|session| session.client(2, &request(id, "initialize")));
            assert_eq!(refused, Err(Refusal::AlreadyInitialized(client_id(id))), "one handshake per child");
        }
    }
}

#[test]
fn the_answer_to_initialize_goes_to_the_client_as_it_is() {
    let mut session = Harness::starting();
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2099-01-01","capabilities":{}}}"#;
    assert_eq!(session.child(text), answer(1, &text.replace(r#""id":1"#, r#""id":"init""#)));
    assert!(session.handshake.is_some() && !session.refused());
}

#[test]
fn the_negotiated_version_is_what_the_child_answered() {
    let table = [
        (r#"{"protocolVersion":"2025-06-18"}"#, Some("2025-06-18")),
        (r#"{"x":1,"protocol\u0056ersion" : "2025-06\u002d18"}"#, Some("2025-06-18")),
        (r#"{"protocolVersion":"2099-01-01"}"#, Some("2099-01-01")),
        (r#"{"protocolVersion":7}"#, None),
        (r#"{"_meta":{"protocolVersion":"2025-06-18"}}"#, None),
        ("{}", None),
        ("[]", None),
    ];
    for (member, version) in table {
        let mut session = Harness::starting();
        assert_eq!(session.negotiated(), None, "nothing is negotiated before the answer");
        session.child(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{member}}}"#));
        assert_eq!(session.negotiated(), version, "{member}");
    }
}

#[test]
fn a_refused_initialize_is_passed_on_and_nothing_more_is_written() {
    let mut session = Harness::starting();
    session.client(2, &note("notifications/initialized")).unwrap();
    session.client(3, &request("7", "tools/call")).unwrap();
    session.client(4, &note("n")).unwrap();
    session.stdin();
    assert_eq!(session.child(&error("1")), answer(1, &error("\"init\"")));
    assert!(session.refused(), "the session is over");
    assert!(session.stdin().is_empty(), "a child that refused is told no more");
    let ended = session.front.abandon();
    assert_eq!(ended, [(StreamId(3), client_id("7"))], "what waited still gets its end");
}

#[test]
fn an_initialize_without_answer_expires_after_its_own_timeout() {
    let mut session = Harness::starting();
    session.client(2, &request("7", "tools/call")).unwrap();
    assert_eq!(session.at(LIMITS.init_timeout - Duration::from_nanos(1)), []);
    assert_eq!(session.at(LIMITS.init_timeout), [Output::Handshake(Handshake::TimedOut)]);
    let ended = [(StreamId(1), client_id("\"init\"")), (StreamId(2), client_id("7"))];
    assert_eq!(session.front.abandon(), ended, "initialize and what waited for it get their end");
}

#[test]
fn initialize_cannot_be_cancelled() {
    Harness::starting().swallowed(&cancel("\"init\"")); // 2025-11-25 `basic/utilities/cancellation`
}

#[test]
fn the_id_of_initialize_is_free_again_after_its_answer() {
    let mut session = Harness::starting();
    let again = request("\"init\"", "tools/call");
    assert_eq!(session.client(2, &again), Err(Refusal::DuplicateId(client_id("\"init\""))));
    session.child(&result("1"));
    assert_eq!(session.client(2, &again), Ok(None));
}

#[test]
fn what_waits_for_the_handshake_is_bounded_in_number() {
    let mut session = Harness::starting();
    for sent in 0..LIMITS.max_in_flight {
        assert!(session.front.accepting(), "{sent} messages wait");
        session.client(2, &note("n")).unwrap();
    }
    assert!(!session.front.accepting(), "a client that does not wait for the handshake is made to");
    session.child(&result("1"));
    assert!(session.front.accepting(), "nothing waits any more");
}

#[test]
fn what_waits_for_the_handshake_is_bounded_in_bytes() {
    let mut session = Harness::starting();
    let big =
        format!(r#"{{"jsonrpc":"2.0","method":"n","params":{{"x":"{}"}}}}"#, "x".repeat(4 * 1024 * 1024));
    session.client(2, &big).unwrap();
    assert!(session.front.accepting());
    session.client(2, &big).unwrap();
    assert!(!session.front.accepting());
    session.child(&result("1"));
    assert!(session.front.accepting());
    session.front.check();
}

// Ids.

#[test]
fn an_answer_carries_the_clients_id_as_the_client_spelt_it() {
    let ids =
        ["0", "-0", "1", "\"1\"", "-7", "\"\"", "\"a\\u0062\\/\"", "\"é\"", "123456789012345678901234567890"];
    for id in ids {
        let mut session = Harness::open();
        let wire = session.call(2, id);
        assert_eq!(session.child(&result(&wire)), answer(2, &result(id)));
        let wire = session.call(3, id);
        assert_eq!(session.child(&error(&wire)), answer(3, &error(id)), "an ended id may be used again");
        session.assert_nothing_in_flight();
    }
}

#[test]
fn ids_that_look_alike_name_different_requests() {
    for (one, other) in
        [("1", "\"1\""), ("0", "\"0\""), ("9007199254740992", "9007199254740993"), ("\"a\"", "\"A\"")]
    {
        let mut session = Harness::open();
        let first = session.call(2, one);
        let second = session.call(3, other);
        assert_ne!(first, second, "the child must be able to tell {one} from {other}");
        assert_eq!(session.child(&result(&second)), answer(3, &result(other)));
        assert_eq!(session.child(&result(&first)), answer(2, &result(one)));
    }
}

#[test]
fn an_id_in_flight_is_refused_and_the_first_request_goes_on() {
    for (first, again) in [("7", "7"), ("\"a\"", "\"\\u0061\""), ("0", "-0")] {
        let mut session = Harness::open();
        let wire = session.call(2, first);
        let refused = session.unchanged(|session| session.client(3, &request(again, "tools/call")));
        let Err(Refusal::DuplicateId(id)) = refused else { panic!("{again} is in flight: {refused:?}") };
        assert_eq!(id.0.as_json(), again, "the refusal names the id as the second request spelt it");
        assert_eq!(session.child(&result(&wire)), answer(2, &result(first)));
    }
}

#[test]
fn an_echo_of_the_id_is_read_in_any_spelling_of_its_number() {
    for echo in ["2", "2.0", "2e0", "20e-1", "\"2\"", "\"2.0\""] {
        let mut session = Harness::open();
        session.call(2, "7");
        assert_eq!(session.child(&result(echo)), answer(2, &result("7")), "Lua and PHP children echo floats");
    }
}

#[test]
fn an_answer_to_nothing_reaches_nobody() {
    let mut session = Harness::open();
    session.call(2, "7");
    for id in ["3", "99", "2.5", "-2", "\"7\"", "\"x\"", "\"\"", "true", "{}", "[2]", "1e300"] {
        let told = session.unchanged(|session| session.child(&result(id)));
        assert_eq!(told, dropped(Dropped::UnknownId), "{id} was never asked");
    }
}

#[test]
fn an_answer_that_lost_its_id_is_the_only_calls() {
    for text in [r#"{"jsonrpc":"2.0","id":null,"result":1}"#, r#"{"jsonrpc":"2.0","result":1}"#] {
        let mut session = Harness::open();
        session.call(2, "7");
        assert!(matches!(session.child(text), Some(Output::Answer { stream: StreamId(2), .. })), "{text}");
        session.call(3, "8");
        session.call(4, "9");
        assert_eq!(session.child(text), dropped(Dropped::UnknownId), "it may be either's: {text}");
    }
}

#[test]
fn a_second_answer_is_late() {
    let mut session = Harness::open();
    let wire = session.call(2, "7");
    session.child(&result(&wire));
    for text in [result(&wire), error(&wire), result("1")] {
        assert_eq!(session.child(&text), dropped(Dropped::Late), "the first answer wins: {text}");
    }
}

#[test]
fn a_late_answer_never_reaches_the_next_request_with_the_same_id() {
    let mut session = Harness::open();
    let first = session.call(2, "7");
    session.child(&result(&first));
    let second = session.call(3, "7");
    assert_eq!(session.child(&result(&first)), dropped(Dropped::Late));
    assert_eq!(session.child(&error(&second)), answer(3, &error("7")));
}

#[test]
fn an_error_without_an_id_belongs_to_the_only_call() {
    let table = [
        (r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, r#"{"jsonrpc":"2.0","id":7,"error":{}}"#),
        (r#" {"jsonrpc":"2.0","error":{}}"#, r#" {"id":7,"jsonrpc":"2.0","error":{}}"#),
    ];
    for (text, want) in table {
        let mut session = Harness::open();
        session.call(2, "7");
        let want = Some(Output::Answer { stream: StreamId(2), message: want.into(), success: false });
        assert_eq!(session.child(text), want, "the child could not read the id of what it got: {text}");
    }
}

#[test]
fn an_error_without_an_id_belongs_to_nobody_where_it_is_not_clear_whose_it_is() {
    let mut session = Harness::open();
    assert_eq!(session.child(&error("null")), dropped(Dropped::UnknownId), "nothing is in flight");
    session.call(2, "7");
    session.call(3, "8");
    assert_eq!(session.child(&error("null")), dropped(Dropped::UnknownId), "it may be either's");
    assert_eq!(session.front.in_flight(), 2);
}

#[test]
fn an_error_without_an_id_is_not_about_a_request_that_still_waits() {
    let mut session = Harness::starting();
    session.client(2, &request("7", "tools/call")).unwrap();
    assert_eq!(session.child(&error("null")), answer(1, &error("\"init\"")), "the child has only initialize");
}

#[test]
fn an_answer_too_long_to_take_ends_the_request_it_names() {
    let mut session = Harness::open();
    let first = session.call(2, "7");
    session.call(3, "8");
    let head = format!(r#"{{"jsonrpc":"2.0","id":{first},"result":{{"text":"aaaa"#);
    assert_eq!(session.too_long(&head), [unanswered(2, "7", Unanswered::TooLong)]);
    assert_eq!(session.too_long(&head), [], "it has ended");
    assert_eq!(session.front.in_flight(), 1, "the other one goes on");
}

#[test]
fn an_answer_too_long_to_take_that_names_nobody_ends_the_only_request() {
    let head = r#"{"jsonrpc":"2.0","result":{"text":"aaaa"#;
    let mut session = Harness::open();
    assert_eq!(session.too_long(head), [], "nothing is in flight");
    session.call(2, "7");
    session.call(3, "8");
    assert_eq!(session.too_long(head), [Output::AnswerToUnknown], "it may be either's");
    session.child(&result("3"));
    assert_eq!(session.too_long(head), [unanswered(2, "7", Unanswered::TooLong)]);
    session.assert_nothing_in_flight();
}

#[test]
fn a_handshake_too_long_to_take_ends_the_session() {
    let mut session = Harness::starting();
    let head = r#"{"jsonrpc":"2.0","id":1,"result":{"x":"aaaa"#;
    assert_eq!(session.too_long(head), [unanswered(1, "\"init\"", Unanswered::TooLong)]);
    assert!(session.refused(), "there is no session without its answer");
}

#[test]
fn what_is_too_long_and_no_answer_ends_no_call() {
    for head in [
        r#"{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":"aaa"#,
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"aaa"#,
        r#"{"jsonrpc":"2.0","id":"x","result":"aaa"#,
        "a log line of many megabytes",
    ] {
        let mut session = Harness::open();
        session.call(2, "7");
        let told = session.too_long(head);
        assert!(told.iter().all(|told| matches!(told, Output::Note(Note::Replied(_)))), "{head}: {told:?}");
        assert_eq!(session.front.in_flight(), 1, "{head}");
    }
}

#[test]
fn the_child_is_told_when_its_request_is_too_long() {
    let mut session = Harness::open();
    session.stdin();
    session.too_long(r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":"aaa"#);
    let told = session.stdin();
    assert!(
        matches!(&told[..], [line] if line.contains(r#""id":"q","error":"#)),
        "or it waits for ever: {told:?}"
    );
}

#[test]
fn progress_is_found_by_a_token_that_the_child_keeps_as_a_float() {
    let mut session = Harness::open();
    session.call_with(2, Takes::Events, &call("7", "1"));
    assert_eq!(session.child(&progress("1.0", 1)), event(2, &progress("1.0", 1)));
}

#[test]
fn what_comes_while_others_wait_for_the_handshake_does_not_overtake_them() {
    let mut session = Harness::starting();
    session.stdin();
    session.client(2, &note("first")).unwrap();
    session.child(&result("1"));
    session.client(2, &note("second")).unwrap();
    let order = [note("notifications/initialized"), note("first"), note("second")];
    assert_eq!(session.stdin(), order);
}

// Requests and notifications of the client.

#[test]
fn a_request_too_many_is_told_so_and_a_place_is_free_again_with_each_end() {
    let mut session = Harness::open();
    for call in 0..LIMITS.max_in_flight {
        session.call(2, &call.to_string());
    }
    let fate = session.unchanged(|session| session.client(3, &request("99", "ping")));
    assert_eq!(fate, Ok(Some(unanswered(3, "99", Unanswered::Overload))), "the child has as much as it may");
    session.child(&result("2"));
    assert_eq!(session.client(3, &request("99", "ping")), Ok(None));
}

#[test]
fn a_notification_passes_when_the_session_is_full() {
    let mut session = Harness::open();
    for call in 0..LIMITS.max_in_flight {
        session.call(2, &call.to_string());
    }
    assert_eq!(session.client(3, &note("n")), Ok(None));
    assert_eq!(session.client(3, &cancel("0")), Ok(None));
    assert_eq!(session.stdin().len(), 2);
}

// Cancellation.

#[test]
fn a_cancellation_names_the_childs_id_and_is_otherwise_as_it_was() {
    let mut session = Harness::open();
    session.call(2, "3"); // in the child's own numbering this is another request
    let text = r#"{ "params" : {"reason":"requestId","x":{"requestId":3},"requestId" : 3 },"jsonrpc":"2.0","method":"notifications\/cancelled"}"#;
    assert_eq!(session.client(3, text), Ok(None));
    assert_eq!(session.stdin(), [text.replace(r#""requestId" : 3"#, r#""requestId" : 2"#)]);
}

#[test]
fn a_cancellation_of_nothing_in_flight_goes_no_further() {
    let mut session = Harness::open();
    session.call(2, "7");
    let ended = session.call(3, "8");
    session.child(&result(&ended));
    for id in ["8", "2", "3", "1", "\"7\"", "\"init\"", "7.0", "null", "{}", "[7]", "true"] {
        session.swallowed(&cancel(id)); // to the child it may be another request
    }
}

#[test]
fn a_cancellation_is_understood_in_another_spelling_of_the_id() {
    let mut session = Harness::open();
    let wire = session.call(2, "\"a\"");
    assert_eq!(session.client(3, &cancel("\"\\u0061\"")), Ok(None));
    assert_eq!(session.stdin(), [cancel(&wire)]);
}

#[test]
fn a_cancellation_that_names_no_request_passes_as_it_is() {
    for params in ["", r#","params":{}"#, r#","params":{"reason":"x"}"#] {
        let mut session = Harness::open();
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled"{params}}}"#);
        assert_eq!(session.client(2, &text), Ok(None));
        assert_eq!(session.stdin(), [text], "what the bridge need not change it does not judge");
    }
}

#[test]
fn a_cancelled_request_that_waits_has_ended_and_is_never_written() {
    let mut session = Harness::starting();
    session.client(2, &request("7", "tools/call")).unwrap();
    let withdrawn = session.client(3, &cancel("7"));
    assert_eq!(withdrawn, Ok(Some(unanswered(2, "7", Unanswered::Cancelled))));
    session.client(4, &request("7", "ping")).unwrap();
    session.stdin();
    session.child(&result("1"));
    let want = [note("notifications/initialized"), request("3", "ping")];
    assert_eq!(session.stdin(), want, "the child gets neither the call nor its cancellation");
}

#[test]
fn a_request_is_cancelled_once() {
    let mut session = Harness::open();
    session.call(2, "7");
    session.client(3, &cancel("7")).unwrap();
    session.now = secs(1);
    session.swallowed(&cancel("7"));
    assert_eq!(session.front.next_deadline(), Some(CANCEL_GRACE), "the grace does not begin anew");
}

#[test]
fn a_cancelled_request_keeps_its_id_until_it_has_ended() {
    let mut session = Harness::open();
    session.call(2, "7");
    session.client(3, &cancel("7")).unwrap();
    assert_eq!(session.client(4, &request("7", "ping")), Err(Refusal::DuplicateId(client_id("7"))));
    assert_eq!(session.at(CANCEL_GRACE), [unanswered(2, "7", Unanswered::Cancelled)]);
    assert_eq!(session.client(4, &request("7", "ping")), Ok(None));
}

// Timeouts.

#[test]
fn a_request_that_times_out_is_cancelled_with_the_child() {
    let mut session = Harness::open();
    session.now = secs(3);
    let wire = session.call(2, "\"a\"");
    assert_eq!(session.at(secs(103) - Duration::from_nanos(1)), []);
    assert_eq!(session.at(secs(103)), [unanswered(2, "\"a\"", Unanswered::Timeout)]);
    let told = session.line();
    assert_eq!(told["method"], "notifications/cancelled");
    assert_eq!(told["params"]["requestId"].to_string(), wire, "under the id that it knows");
    assert_eq!(session.child(&result(&wire)), dropped(Dropped::Late));
}

#[test]
fn a_request_that_times_out_while_it_waits_is_never_written() {
    let mut session = Harness::starting_with(Limits { request_timeout: secs(2), ..LIMITS });
    session.stdin();
    session.client(2, &request("7", "tools/call")).unwrap();
    assert_eq!(session.at(secs(2)), [unanswered(2, "7", Unanswered::Timeout)]);
    session.child(&result("1"));
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
    session.assert_nothing_in_flight();
}

#[test]
fn requests_time_out_oldest_first() {
    let mut session = Harness::open();
    for (stream, id) in [(2, "9"), (3, "8"), (4, "7")] {
        session.now += secs(1);
        session.call(stream, id);
    }
    let want = [unanswered(2, "9", Unanswered::Timeout), unanswered(3, "8", Unanswered::Timeout)];
    assert_eq!(session.at(secs(102)), want);
    assert_eq!(session.front.next_deadline(), Some(secs(103)));
}

#[test]
fn the_next_deadline_is_the_earliest_of_all_there_are() {
    let mut session = Harness::starting();
    assert_eq!(session.front.next_deadline(), Some(secs(10)), "initialize");
    session.child(&result("1"));
    assert_eq!(session.front.next_deadline(), None, "nothing waits");
    session.call(2, "7");
    assert_eq!(session.front.next_deadline(), Some(secs(100)), "the oldest call");
    session.now = secs(1);
    session.call(3, "8");
    assert_eq!(session.front.next_deadline(), Some(secs(100)), "still the oldest call");
    session.child(&request("1", "x/ask"));
    assert_eq!(session.front.next_deadline(), Some(secs(61)), "the child's request");
    session.client(4, &cancel("8")).unwrap();
    assert_eq!(session.front.next_deadline(), Some(secs(6)), "the cancelled call");
    session.child(&result("3"));
    assert_eq!(session.front.next_deadline(), Some(secs(61)), "what was answered has no deadline");
    session.client(4, &result("1")).unwrap();
    session.child(&result("2"));
    assert_eq!(session.front.next_deadline(), None);
}

// What the child sends unasked.

#[test]
fn a_line_that_is_no_message_is_noise() {
    for text in [
        "",
        "Server listening on stdio",
        "[info] ready",
        "42",
        "{}",
        r#"{"level":"info"}"#,
        r#"{"id":2,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":2,"result":{}"#,
        r#"{"jsonrpc":"2.0","id":2,"id":2,"result":{}}"#,
        r#"[{"jsonrpc":"2.0","id":2,"result":{}}]"#,
    ] {
        let mut session = Harness::open();
        session.call(2, "7");
        assert!(!session.unchanged(|session| session.is_message(text)), "{text:?}");
    }
}

#[test]
fn what_stdio_gives_no_call_goes_to_the_newest_that_can_take_it() {
    type Prepare = fn(&mut Harness);
    let table: [(&str, Prepare, u64); 8] = [
        ("nothing is in flight", |_| {}, LISTENING),
        ("one call", |session| drop(session.call(2, "7")), 2),
        (
            "one call that takes JSON alone",
            |session| drop(session.call_with(2, Takes::AnswerOnly, &request("7", "tools/call"))),
            LISTENING,
        ),
        (
            "one call whose client has left",
            |session| {
                session.call(2, "7");
                session.live.remove(&2);
            },
            LISTENING,
        ),
        (
            "one call that is cancelled",
            |session| {
                session.call(2, "7");
                session.client(3, &cancel("7")).unwrap();
                session.stdin();
            },
            LISTENING,
        ),
        (
            "two calls",
            |session| {
                session.call(3, "7");
                session.call(2, "8");
            },
            2,
        ),
        (
            "two calls, and the client of the newer has left",
            |session| {
                session.call(2, "7");
                session.call(3, "8");
                session.live.remove(&3);
            },
            2,
        ),
        (
            "two calls, and the newer is answered",
            |session| {
                session.call(2, "7");
                let newer = session.call(3, "8");
                session.child(&result(&newer));
            },
            2,
        ),
    ];
    for (case, prepare, stream) in table {
        let mut session = Harness::open();
        prepare(&mut session);
        for text in [
            note("notifications/message"),
            request("1", "sampling/createMessage"),
            request("\"b\"", "elicitation/create"),
            request("3", "roots/list"),
        ] {
            assert_eq!(session.child(&text), event(stream, &text), "{case}: {text}");
        }
        assert!(session.stdin().is_empty(), "{case}: the bridge does not answer in a client's place");
    }
}

#[test]
fn a_log_line_during_the_handshake_goes_with_initialize() {
    let mut session = Harness::starting();
    session.client(2, &request("7", "tools/call")).unwrap();
    session.live.insert(2);
    let text = note("notifications/message");
    assert_eq!(session.child(&text), event(1, &text), "a request that waits has nothing to do with it");
}

#[test]
fn what_concerns_no_call_goes_to_the_listening_stream() {
    let mut session = Harness::open();
    session.call(2, "7");
    for text in [
        note("notifications/tools/list_changed"),
        note("notifications/resources/updated"),
        note("notifications/elicitation/complete"),
        note("notifications/tasks/status"),
        note("x/of-a-later-revision"),
        request("1", "x/of-a-later-revision"),
        progress("\"unknown\"", 1),
        note("notifications/progress"),
        cancel("7"),
    ] {
        assert_eq!(session.child(&text), event(LISTENING, &text));
    }
}

#[test]
fn progress_goes_to_the_call_that_asked_for_it() {
    let mut session = Harness::open();
    let first = session.call_with(2, Takes::Events, &call("7", "1"));
    session.call_with(3, Takes::Events, &call("8", "\"1\""));
    session.call_with(4, Takes::Events, &call("9", "\"\\u0061\""));
    for (token, stream) in [("1", 2), ("\"1\"", 3), ("\"a\"", 4), ("7", LISTENING), ("99", LISTENING)] {
        assert_eq!(session.child(&progress(token, 1)), event(stream, &progress(token, 1)), "token {token}");
    }
    session.child(&result(&first));
    assert_eq!(session.child(&progress("1", 1)), event(LISTENING, &progress("1", 1)), "its call has ended");
}

/// Tutorials show servers that report progress under the id of the request.
#[test]
fn progress_under_the_id_of_a_call_is_that_calls_and_bears_the_name_that_its_client_knows() {
    let mut session = Harness::open_with(Limits { max_in_flight: 9, ..LIMITS });
    let plain = session.call(2, "2");
    let spelt = session.call(3, "\"\\u0061\"");
    let named = session.call_with(4, Takes::Events, &call("1", "\"t\""));
    let exact = session.call_with(5, Takes::Events, &call("9", &plain));
    let json = session.call_with(6, Takes::AnswerOnly, &request("10", "tools/call"));
    for (child, stream, client) in [
        (&*spelt, 3, "\"\\u0061\""),
        (&format!("{spelt}.0"), 3, "\"\\u0061\""),
        (&format!("\"{spelt}\""), 3, "\"\\u0061\""),
        (&named, 4, "\"t\""),
        (&exact, 5, &plain),
        // It is the token of another call, which asked for it by that name.
        (&plain, 5, &plain),
    ] {
        assert_eq!(session.child(&progress(child, 1)), event(stream, &progress(client, 1)), "{child}");
    }
    assert_eq!(session.child(&progress(&json, 1)), dropped(Dropped::NotStreamable));
    session.child(&result(&exact));
    assert_eq!(session.child(&progress(&plain, 1)), event(2, &progress("2", 1)));
    let mut session = Harness::starting();
    assert_eq!(
        session.child(&progress("1", 1)),
        event(1, &progress("\"init\"", 1)),
        "initialize is a call too"
    );
}

#[test]
fn what_was_to_be_an_answer_ends_the_call_that_it_names() {
    let nearly = r#"{"jsonrpc":"2.0","id":<>,"result":NaN}"#;
    let named = |id: &str| nearly.replace("<>", id);
    let wrong = |at| Wrong { what: "NaN and Infinity are not JSON", at };
    let mut session = Harness::open();
    for id in ["2", "\"3\"", "4.0"] {
        session.call(2, "7");
        let why = Unanswered::Invalid(wrong(named(id).len() - 4));
        assert_eq!(session.broken(&named(id)), [unanswered(2, "7", why)], "{id}");
    }
    session.call(2, "7");
    assert_eq!(session.broken(&named("9")), [], "nobody has asked under this id");
    assert_eq!(session.broken(&named("2")), [], "its call has ended");
    assert_eq!(session.broken(r#"{"jsonrpc":"2.0","id":5,"method":"roots/list","params":NaN}"#), []);
    assert_eq!(session.broken(r#"{"jsonrpc":"2.0","params":NaN}"#), [], "nothing says that it is an answer");
    let nameless = r#"{"jsonrpc":"2.0","result":NaN}"#;
    assert_eq!(session.broken(nameless), [unanswered(2, "7", Unanswered::Invalid(wrong(26)))]);
    session.call(2, "7");
    session.call(3, "8");
    assert_eq!(session.broken(nameless), [], "it may be either's");
    assert_eq!(session.broken(r#"{"jsonrpc":"2.0","id":6,"id":7,"result":{}}"#), [], "so may this");
    assert_eq!(session.front.in_flight(), 2);
    let one = session.broken(r#"{"jsonrpc":"2.0","id":6,"id":99,"result":{}}"#);
    assert!(matches!(one[..], [Output::Unanswered { stream: StreamId(2), .. }]), "{one:?}");
}

#[test]
fn a_handshake_that_nobody_can_take_ends_the_session_at_once() {
    let mut session = Harness::starting();
    let ended = session.broken(r#"{"id":1,"result":{}}"#);
    let wrong = Wrong { what: "\"jsonrpc\" must be \"2.0\"", at: 0 };
    assert_eq!(ended, [unanswered(1, "\"init\"", Unanswered::Invalid(wrong))]);
    assert_eq!(session.handshake, Some(Handshake::Invalid(wrong)));
}

#[test]
fn an_answer_in_a_line_of_words_counts_while_it_is_waited_for() {
    let mut session = Harness::open();
    session.call(2, "7");
    assert!(session.awaits(&result("2")) && !session.awaits(&result("9")));
    assert!(!session.awaits(&request("2", "roots/list")) && !session.awaits(&note("n")));
    session.child(&result("2"));
    assert!(!session.awaits(&result("2")), "it has been answered");
}

#[test]
fn what_only_clients_say_is_an_echo_and_is_said_once() {
    let mut session = Harness::open();
    let echoed = [request("2", "tools/call"), request("3", "tools/list"), note("notifications/initialized")];
    assert_eq!(session.child(&echoed[0]), Some(Output::Note(Note::Echo)));
    for text in &echoed {
        assert_eq!(session.unchanged(|session| session.child(text)), None, "{text}");
    }
    for both in ["ping", "notifications/cancelled", "notifications/progress", "tasks/list"] {
        assert_ne!(session.child(&request("\"x\"", both)), None, "servers say this too: {both}");
    }
}

#[test]
fn an_initialize_that_comes_back_has_a_little_time_to_be_answered() {
    let mut session = Harness::starting_with(Limits { init_timeout: secs(120), ..LIMITS });
    let echo = session.stdin().pop().unwrap();
    assert_eq!(session.child(&echo), Some(Output::Note(Note::Echo)));
    session.at(ECHO_GRACE / 2);
    assert_eq!(session.child(&echo), None);
    assert_eq!(session.front.next_deadline(), Some(ECHO_GRACE), "it begins once");
    session.at(ECHO_GRACE);
    assert_eq!(session.handshake, Some(Handshake::Echoed));
    let mut session = Harness::starting_with(Limits { init_timeout: secs(120), ..LIMITS });
    let mut behind_cr = Incoming::peek(&echo).unwrap();
    behind_cr.crlf = true;
    session.front.child(behind_cr, Duration::ZERO, &|_| Readership::Present, &mut session.out);
    assert_eq!(
        session.front.next_deadline(),
        Some(TERMINAL_GRACE),
        "a terminal echoes for a server that starts"
    );
    let mut session = Harness::starting();
    session.child(&echo);
    assert!(session.child(&result("1")).is_some(), "a server behind a terminal answers as well");
    assert!(!session.refused() && session.handshake.is_some());
}

#[test]
fn progress_waits_in_the_stream_of_a_client_that_has_left() {
    let mut session = Harness::open();
    session.call_with(2, Takes::Events, &call("7", "1"));
    session.live.remove(&2);
    assert_eq!(session.child(&progress("1", 1)), event(2, &progress("1", 1)), "it can come back and resume");
}

#[test]
fn progress_for_a_client_that_takes_json_alone_is_dropped() {
    let mut session = Harness::open();
    session.call_with(2, Takes::AnswerOnly, &call("7", "1"));
    assert_eq!(session.child(&progress("1", 1)), dropped(Dropped::NotStreamable));
}

#[test]
fn a_token_used_twice_is_the_newer_calls() {
    let mut session = Harness::open();
    let older = session.call_with(2, Takes::Events, &call("7", "1"));
    let newer = session.call_with(3, Takes::Events, &call("8", "1"));
    assert_eq!(session.child(&progress("1", 1)), event(3, &progress("1", 1)));
    session.child(&result(&older));
    assert_eq!(
        session.child(&progress("1", 1)),
        event(3, &progress("1", 1)),
        "though the older one has ended"
    );
    session.child(&result(&newer));
    session.assert_nothing_in_flight();
}

// What the child asks.

#[test]
fn a_ping_is_answered_by_the_bridge_where_nobody_listens() {
    for id in ["1", "\"p\"", "0"] {
        let mut session = Harness::open();
        session.call(2, "7");
        assert_eq!(session.child(&request(id, "ping")), replied("ping"));
        assert_eq!(session.stdin(), [result(id)], "a child that gets no pong may leave");
        session.live.insert(LISTENING);
        assert_eq!(session.child(&request(id, "ping")), event(LISTENING, &request(id, "ping")));
    }
}

#[test]
fn a_ping_is_answered_during_the_handshake_too() {
    let mut session = Harness::starting();
    session.stdin();
    assert_eq!(session.child(&request("1", "ping")), replied("ping"));
    assert_eq!(session.stdin(), [result("1")]);
    assert_eq!(session.front.in_flight(), 1, "a request with the id of initialize does not answer it");
}

#[test]
fn a_request_of_the_child_with_an_id_of_the_clients_is_no_answer() {
    let mut session = Harness::open();
    let wire = session.call(2, "7");
    for id in [&wire, "7"] {
        let text = request(id, "sampling/createMessage");
        assert_eq!(session.child(&text), event(2, &text));
        let answered = result(id);
        assert_eq!(session.client(3, &answered), Ok(None));
        assert_eq!(session.stdin(), [answered], "its answer goes to the child");
    }
    assert_eq!(session.child(&result(&wire)), answer(2, &result("7")), "and the call is still answered");
}

#[test]
fn a_request_of_the_child_without_a_usable_id_is_answered_with_an_error() {
    let long = format!("\"{}\"", "x".repeat(crate::proto::ids::MAX_ID));
    for id in ["null", "1.5", "1.0", "true", "{}", "[1]", &long] {
        let mut session = Harness::open();
        let told = session.child(&request(id, "roots/list"));
        assert!(
            matches!(told, Some(Output::Note(Note::Replied(_) | Note::LongId))),
            "no client could answer it: {told:?}"
        );
        let reply = session.line();
        let echoed = if id == long { "null" } else { id };
        assert_eq!((&*reply["id"].to_string(), &reply["error"]["code"]), (echoed, &Value::from(-32600)));
        assert_eq!(session.front.child_requests(), (0, 0));
    }
}

#[test]
fn an_id_of_the_child_that_is_too_long_is_not_echoed_whatever_it_asks() {
    let fits = format!("\"{}\"", "x".repeat(crate::proto::ids::MAX_ID - 2));
    let long = |length| format!("\"{}\"", "x".repeat(length));
    for (id, echoed) in [(fits.clone(), &*fits), (long(8 * 1024), "null"), (long(1_000_000), "null")] {
        for method in ["ping", "roots/list", "nonsense"] {
            let mut session = Harness::open();
            let told = session.child(&request(&id, method));
            if let Some(Output::Note(note)) = told {
                assert_eq!(note == Note::LongId, echoed == "null", "{} bytes: {note:?}", id.len());
                assert_eq!(session.line()["id"].to_string(), echoed);
            }
            let mut session = Harness::open();
            session.too_long(&request(&id, method).replace('}', ",\"params\":["));
            assert!(session.out.stdin.len() < 10_000, "{} bytes: {}", id.len(), session.out.stdin.len());
        }
    }
}

#[test]
fn the_requests_of_a_child_that_wait_are_bounded() {
    let mut session = Harness::open();
    for id in 0..MAX_PENDING {
        let text = request(&id.to_string(), "roots/list");
        assert_eq!(session.child(&text), event(LISTENING, &text));
    }
    assert!(matches!(session.child(&request("9999", "roots/list")), Some(Output::Note(Note::Replied(_)))));
    assert_eq!(session.front.child_requests().0, MAX_PENDING);
    assert_eq!(session.line()["error"]["code"], -32603);
}

#[test]
fn a_clients_answer_reaches_the_child_once_and_as_it_is() {
    let mut session = Harness::open();
    session.child(&request("\"a\"", "elicitation/create"));
    let text = r#"{"result" : {"action":"accept"}, "id":"\u0061","jsonrpc":"2.0"}"#;
    assert_eq!(session.client(2, text), Ok(None));
    assert_eq!(session.stdin(), [text]);
    session.swallowed(text);
}

#[test]
fn an_answer_to_what_the_child_never_asked_is_refused() {
    let mut session = Harness::open();
    session.child(&request("1", "roots/list"));
    for id in ["2", "\"1\"", "0", "\"init\""] {
        for text in [result(id), error(id)] {
            let refused = session.unchanged(|session| session.client(2, &text));
            assert_eq!(refused, Err(Refusal::UnknownResponse), "no client injects answers: {text}");
        }
    }
}

#[test]
fn a_request_of_the_child_that_nobody_hears_is_answered_with_an_error() {
    let mut session = Harness::open();
    session.now = secs(3);
    session.child(&request("\"q\"", "elicitation/create"));
    assert_eq!(session.at(secs(3) + LISTENER_GRACE - Duration::from_nanos(1)), []);
    assert_eq!(session.at(secs(3) + LISTENER_GRACE), [Output::Note(Note::NoListener)]);
    let reply = session.line();
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&Value::from("q"), &Value::from(-32603)));
    session.swallowed(&result("\"q\"")); // the child has an answer already
}

#[test]
fn a_request_of_the_child_that_somebody_heard_may_take_its_time() {
    let mut session = Harness::open();
    session.live.insert(LISTENING);
    session.child(&request("1", "roots/list"));
    session.live.remove(&LISTENING); // its stream may end, the client has it all the same
    assert_eq!(session.at(LISTENER_GRACE * 10), [], "a person may be thinking about the answer");
    assert_eq!(session.front.next_deadline(), None);
}

#[test]
fn a_request_of_the_child_that_waited_for_a_listener_may_take_its_time_too() {
    let mut session = Harness::open();
    session.child(&request("1", "roots/list"));
    session.live.insert(LISTENING);
    assert_eq!(session.at(LISTENER_GRACE), [], "a client came to listen");
    session.live.remove(&LISTENING);
    assert_eq!(session.at(LISTENER_GRACE * 10), []);
}

#[test]
fn what_stdio_gives_no_call_waits_where_a_client_can_come_back_unless_one_listens() {
    let mut session = Harness::open();
    session.call(2, "7");
    session.call(3, "8");
    session.live.clear();
    let asked = [request("1", "roots/list"), request("2", "roots/list"), request("3", "roots/list")];
    assert_eq!(session.child(&asked[0]), event(LISTENING, &asked[0]), "neither stream can be resumed");
    session.resumable = BTreeSet::from([2]);
    assert_eq!(session.child(&asked[1]), event(2, &asked[1]), "its client is told when it resumes");
    assert_eq!(session.child(&cancel("2")), event(2, &cancel("2")), "and that it is taken back");
    session.live.insert(LISTENING);
    assert_eq!(session.child(&asked[2]), event(LISTENING, &asked[2]), "a client that listens gets it now");
}

#[test]
fn a_request_taken_back_after_its_stream_ended_is_told_to_whoever_listens() {
    let mut session = Harness::open();
    let call = session.call(2, "7");
    session.live.insert(2);
    session.child(&request("1", "elicitation/create"));
    session.child(&result(&call));
    session.live.remove(&2);
    let back = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert!(matches!(session.child(back), Some(Output::Message { stream: StreamId::LISTENING, .. })));
}

#[test]
fn a_child_takes_its_request_back_where_it_asked() {
    let mut session = Harness::open();
    session.call(2, "7");
    session.child(&request("1", "elicitation/create"));
    session.call(3, "8");
    assert_eq!(session.child(&cancel("1")), event(2, &cancel("1")), "not with the newest call");
    session.swallowed(&result("1")); // an answer that crosses it
    assert_eq!(session.front.child_requests().0, 0, "the child waits for nothing any more");
}

#[test]
fn ended_requests_of_the_child_are_remembered_up_to_a_bound() {
    let mut session = Harness::open();
    for id in 0..=MAX_RECENT {
        session.child(&request(&id.to_string(), "roots/list"));
        session.client(2, &result(&id.to_string())).unwrap();
    }
    assert_eq!(session.front.child_requests().1, MAX_RECENT);
    assert_eq!(session.client(2, &result("0")), Err(Refusal::UnknownResponse), "the oldest is forgotten");
    session.swallowed(&result("1"));
}

// The end.

#[test]
fn a_session_that_ends_gives_every_request_its_end_oldest_first() {
    let mut session = Harness::open();
    let answered = session.call(2, "9");
    session.call_with(3, Takes::Events, &call("\"\\u0061\"", "1"));
    session.call(4, "7");
    session.client(5, &cancel("7")).unwrap();
    session.child(&result(&answered));
    let ended = session.front.abandon();
    let ended: Vec<_> = ended.iter().map(|(stream, id)| (stream.0, id.0.as_json())).collect();
    assert_eq!(ended, [(3, "\"\\u0061\""), (4, "7")]);
    assert_eq!(session.front.abandon(), [], "and once");
    session.assert_nothing_in_flight();
}

// Every order of what can befall one call.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// The child answers `initialize`.
    Handshake,
    /// The client cancels the call.
    Cancel,
    /// The child answers it.
    Answer,
    /// The child answers it, and the answer is too long.
    TooLong,
    /// The grace of a cancelled call passes.
    Grace,
    /// The request timeout passes.
    Timeout,
}

use Blow::*;

const BLOWS: [Blow; 6] = [Handshake, Cancel, Answer, TooLong, Grace, Timeout];

/// How a call ended that was posted during the handshake, and what the child has seen of it.
fn befall(blows: &[Blow]) -> (Vec<&'static str>, String) {
    let mut session = Harness::starting_with(Limits { init_timeout: secs(1_000_000), ..LIMITS });
    session.client(2, &request("\"\\u0061\"", "call")).unwrap();
    let mut ends = Vec::new();
    let mut end = |how, stream: StreamId, id: &Id| {
        assert_eq!(
            (stream.0, id.as_json()),
            (2, "\"\\u0061\""),
            "an end goes to the stream that asked: {blows:?}"
        );
        ends.push(how);
    };
    for blow in blows {
        match blow {
            Handshake => drop(session.child(&result("1"))),
            Cancel => {
                if let Ok(Some(Output::Unanswered { stream, id, .. })) = session.client(3, &cancel("\"a\"")) {
                    end("withdrawn", stream, &id.0);
                }
            }
            Answer => {
                if let Some(Output::Answer { stream, message, .. }) = session.child(&result("2")) {
                    assert_eq!(message, result("\"\\u0061\""));
                    end("answered", stream, &client_id("\"\\u0061\"").0);
                }
            }
            TooLong => {
                let head = r#"{"jsonrpc":"2.0","id":2,"result":[0"#;
                for output in session.too_long(head) {
                    let Output::Unanswered { stream, id, .. } = output else { panic!("{output:?}") };
                    end("too long", stream, &id.0);
                }
            }
            Grace | Timeout => {
                let pause = if *blow == Grace { CANCEL_GRACE } else { LIMITS.request_timeout };
                for expired in session.at(session.now + pause) {
                    match expired {
                        Output::Unanswered { stream, id, why: Unanswered::Timeout } => {
                            end("timed out", stream, &id.0);
                        }
                        Output::Unanswered { stream, id, why: Unanswered::Cancelled } => {
                            end("cancelled", stream, &id.0);
                        }
                        other => panic!("{other:?} after {blows:?}"),
                    }
                }
            }
        }
    }
    for (stream, id) in session.front.abandon() {
        if stream != StreamId(1) {
            end("abandoned", stream, &id.0);
        }
    }
    session.assert_nothing_in_flight();
    let mut seen = session.stdin();
    seen.retain(|line| !line.contains("initialize"));
    let seen: Vec<String> =
        seen.iter().map(|line| message(line).method().replace("notifications/", "")).collect();
    (ends, seen.join(" "))
}

#[test]
fn how_a_call_ends_is_decided_by_what_comes_first() {
    let table: [(&[Blow], &str, &str); 16] = [
        (&[], "abandoned", ""),
        (&[Cancel, Handshake], "withdrawn", ""),
        (&[Timeout, Handshake], "timed out", ""),
        (&[Timeout, Cancel, Handshake], "timed out", ""),
        (&[Answer, TooLong, Handshake, Answer], "answered", "call"),
        (&[Handshake], "abandoned", "call"),
        (&[Handshake, Cancel], "abandoned", "call cancelled"),
        (&[Handshake, Answer, Cancel, Timeout], "answered", "call"),
        (&[Handshake, Cancel, Answer, Grace], "answered", "call cancelled"),
        (&[Handshake, Cancel, Grace, Answer], "cancelled", "call cancelled"),
        (&[Handshake, Cancel, Timeout, Answer], "cancelled", "call cancelled"),
        (&[Handshake, Timeout, Answer, Cancel], "timed out", "call cancelled"),
        (&[Handshake, Timeout, Cancel, Answer], "timed out", "call cancelled"),
        (&[Handshake, Grace, Answer], "answered", "call"),
        (&[Handshake, TooLong, Cancel, Answer], "too long", "call"),
        (&[Handshake, Cancel, TooLong, Grace], "too long", "call cancelled"),
    ];
    for (blows, end, seen) in table {
        assert_eq!(befall(blows), (vec![end], seen.to_owned()), "{blows:?}");
    }
}

#[test]
fn a_call_ends_exactly_once_in_every_order_of_events() {
    let count = BLOWS.len();
    for order in 0..count.pow(5) {
        let blows: Vec<Blow> = (0..5).map(|place| BLOWS[order / count.pow(place) % count]).collect();
        let (ends, seen) = befall(&blows);
        assert_eq!(ends.len(), 1, "exactly one end, not {ends:?}, after {blows:?}");
        let possible = ["", "call", "call cancelled"].contains(&&*seen);
        assert!(possible, "a call and its cancellation are written once, not {seen:?}, after {blows:?}");
    }
}

// Transparency.

/// Members that would not survive being read and written again.
const MEMBERS: [&str; 11] = [
    r#""_meta":{"a":1,"a":2,"":null}"#,
    r#""n":[1e400,-0.0,1.50,123456789012345678901234567890,1E+2]"#,
    r#""escaped":"\"id\":9, \\ \/ \r\n \u0000 \ud83d\ude00 \ud800""#,
    "\"raw\":\"é 日本 😀 \u{2028}\u{feff}\u{7f}\"",
    r#""id2":1"#,
    r#""Idea":2"#,
    r#""\u0000i\u0064":3"#,
    r#""nested":{"id":4,"jsonrpc":"1.0","method":"initialize","error":{}}"#,
    r#""deep":[[[[[[[[[[[[{}]]]]]]]]]]]]"#,
    r#""resultType":"task""#,
    r#""twice":1,"twice":2"#,
];

const GAPS: [&str; 7] = ["", "", " ", "\t", "\n", "\r", "\r\n  "];

/// A message of the members `own` and others, in any order and layout.
fn any_text(own: &'static [&'static str]) -> impl Strategy<Value = String> {
    let members = prop::sample::subsequence(&MEMBERS[..], 0..=MEMBERS.len())
        .prop_map(move |others| [own, &others[..]].concat())
        .prop_shuffle();
    (members, prop::collection::vec(select(&GAPS[..]), 1..20)).prop_map(|(members, gaps)| {
        let mut gaps = gaps.iter().cycle();
        let mut spaced = |token: &str| [token, gaps.next().unwrap()].concat();
        let mut text = spaced("") + &spaced("{");
        for (place, member) in members.iter().enumerate() {
            text += &spaced(if place > 0 { "," } else { "" });
            text += &spaced(member);
        }
        text + &spaced("}")
    })
}

/// The text as it may stand on one line.
fn on_one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

fn any_id() -> impl Strategy<Value = &'static str> {
    select(vec!["0", "-0", "7", "\"7\"", "\"\"", "\"\\u0061\\/\"", "\"é\\n\"", "12345678901234567890"])
}

proptest! {
    #[test]
    fn of_a_request_and_its_answer_nothing_but_the_id_changes(
        id in any_id(),
        asked in any_text(
            &[r#""jsonrpc":"2.0""#, r#""id":@"#, r#""m\u0065thod" : "tools\/call""#, r#""params":[ 1.0]"#]
        ),
        answered in any_text(&[r#""json\u0072pc" : "2.0""#, r#""\u0069d" :@"#, r#""result":{"id" : 1.0 }"#]),
        early in any::<bool>(),
    ) {
        let mut session = if early { Harness::starting() } else { Harness::open() };
        session.stdin();
        prop_assert_eq!(session.client(2, &asked.replace('@', id)), Ok(None));
        if early {
            session.child(&result("1"));
        }
        prop_assert_eq!(session.stdin().pop(), Some(on_one_line(&asked.replace('@', "2"))));
        let told = session.child(&answered.replace('@', "2.0"));
        prop_assert_eq!(told, answer(2, &on_one_line(&answered).replace('@', id)));
    }

    #[test]
    fn of_what_needs_no_id_nothing_changes(
        noted in any_text(
            &[r#""jsonrpc":"2.0""#, r#""method" : "notifications\/x""#, r#""params":{ "b":1,"a":2}"#]
        ),
        asked in any_text(&[r#""jsonrpc":"2.0""#, r#""method" : "roots/list""#, r#""id":"\u0061""#]),
        answered in any_text(&[r#""jsonrpc":"2.0""#, r#""error" : {"code" :0}"#, r#""id":"a""#]),
    ) {
        let mut session = Harness::open();
        for text in [&noted, &asked] {
            prop_assert_eq!(session.child(text), event(LISTENING, &on_one_line(text)));
        }
        for text in [&noted, &answered] {
            prop_assert_eq!(session.client(2, text), Ok(None));
            prop_assert_eq!(session.stdin(), [on_one_line(text)]);
        }
    }

    #[test]
    fn of_a_cancellation_nothing_but_the_id_changes(
        id in any_id(),
        text in any_text(&[
            r#""jsonrpc":"2.0""#,
            r#""method" : "notifications\/cancelled""#,
            r#""params":{"reason":"\"requestId\":1", "request\u0049d" :@ , "x":1.0 }"#,
        ]),
    ) {
        let mut session = Harness::open();
        let wire = session.call(2, id);
        prop_assert_eq!(session.client(3, &text.replace('@', id)), Ok(None));
        prop_assert_eq!(session.stdin(), [on_one_line(&text.replace('@', &wire))]);
    }

    #[test]
    fn no_line_of_a_child_makes_it_panic(
        lines in prop::collection::vec(
            prop_oneof!["\\PC{0,60}", any_text(&[r#""jsonrpc":"2.0""#]), any_text(&[r#""jsonrpc":"2.0""#, r#""id":2"#])],
            0..8,
        ),
    ) {
        let mut session = Harness::open();
        session.call(2, "7");
        for line in lines {
            session.is_message(&line);
            session.too_long(&line);
        }
    }
}

// Whole sessions.

/// Ids as either side spells them, with the value they denote.
const IDS: [(&str, usize); 11] = [
    ("1", 1),
    ("\"1\"", 2),
    ("0", 3),
    ("-0", 3),
    ("\"0\"", 4),
    ("2", 5),
    ("\"a\"", 6),
    ("\"\\u0061\"", 6),
    ("\"\"", 7),
    ("9007199254740992", 8),
    ("9007199254740993", 9),
];

type SpeltId = (&'static str, usize);

/// What either side does next.
#[derive(Clone, Debug)]
enum Step {
    Request(SpeltId, Takes),
    Initialize(SpeltId),
    Notify,
    Initialized,
    Cancel(SpeltId),
    Respond(SpeltId),
    /// A client leaves a stream or comes back to it.
    Move(Index),
    /// The child answers a call, perhaps again, and echoes its id in one of several spellings.
    Reply(Index, usize, bool),
    NamelessError,
    Stray(&'static str),
    Ask(SpeltId, &'static str),
    TakeBack(SpeltId),
    Progress(Index),
    Log,
    Noise,
    /// Seconds pass; `true`: the session's timer fires at each deadline, and not only at the end.
    Wait(u64, bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let id = || select(&IDS[..]);
    let strays = vec!["4294967296", "\"x\"", "1.5", "-3", "[]"];
    let methods = vec!["ping", "roots/list", "elicitation/create", "x/y"];
    prop_oneof![
        8 => (id(), any::<bool>()).prop_map(|(id, events)| Step::Request(id, takes(events))),
        1 => id().prop_map(Step::Initialize),
        3 => Just(Step::Notify),
        2 => Just(Step::Initialized),
        4 => id().prop_map(Step::Cancel),
        3 => id().prop_map(Step::Respond),
        2 => any::<Index>().prop_map(Step::Move),
        8 => (any::<Index>(), 0usize..5, prop::bool::weighted(0.9))
            .prop_map(|(call, echo, success)| Step::Reply(call, echo, success)),
        1 => Just(Step::NamelessError),
        1 => select(strays).prop_map(Step::Stray),
        3 => (id(), select(methods)).prop_map(|(id, method)| Step::Ask(id, method)),
        1 => id().prop_map(Step::TakeBack),
        3 => any::<Index>().prop_map(Step::Progress),
        2 => Just(Step::Log),
        1 => Just(Step::Noise),
        3 => (select(vec![0, 1, 4, 5, 20, 40]), any::<bool>())
            .prop_map(|(seconds, punctual)| Step::Wait(seconds, punctual)),
    ]
}

/// A request that was taken. The streams of a [`World`] have the numbers of its messages.
#[derive(Debug)]
struct Sent {
    id: SpeltId,
    takes: Takes,
    since: Duration,
    /// The id under which the child has seen it.
    wire: Option<String>,
    cancelled: Option<Duration>,
    /// Whether the child has seen a cancellation of it.
    told: bool,
    ended: bool,
}

/// A session, and what its two sides know of it.
struct World {
    session: Harness,
    limits: Limits,
    /// The number of the client's newest message.
    newest: u64,
    calls: BTreeMap<u64, Sent>,
    /// Notifications that were taken and that the child has not seen.
    notes: BTreeSet<u64>,
    /// The number of the newest message that the child has seen.
    seen: u64,
    /// Whether the client has said `initialized`.
    said: bool,
    /// Whether the child has been told.
    initialized: bool,
    /// What the child asks, by the value of its id: spelling, stream, since when.
    asked: BTreeMap<usize, (&'static str, u64, Duration)>,
    /// The values under which it has asked before.
    forgotten: BTreeSet<usize>,
    /// Whether the child has refused `initialize` or not answered it in time.
    failed: bool,
}

/// The client's message number `number`.
fn numbered(number: u64, id: Option<&str>, method: &str) -> String {
    let id = id.map_or(String::new(), |id| format!(r#""id":{id},"#));
    let params = format!(r#"{{"number":{number},"_meta":{{"progressToken":{}}}}}"#, token(number));
    format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{params}}}"#)
}

fn token(number: u64) -> String {
    // None may be the id of a request: servers take those for tokens.
    if number.is_multiple_of(2) { (number + (1 << 40)).to_string() } else { format!("\"t{number}\"") }
}

impl World {
    fn new(limits: Limits, id: SpeltId) -> Self {
        let session = Harness::begin(limits.clone(), &numbered(1, Some(id.0), "initialize"));
        let mut world = Self {
            session,
            limits,
            newest: 1,
            calls: BTreeMap::new(),
            notes: BTreeSet::new(),
            seen: 0,
            said: false,
            initialized: false,
            asked: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            failed: false,
        };
        world.taken(1, id, Takes::Events);
        world.check();
        world
    }

    fn taken(&mut self, number: u64, id: SpeltId, takes: Takes) {
        let since = self.session.now;
        let sent = Sent { id, takes, since, wire: None, cancelled: None, told: false, ended: false };
        self.calls.insert(number, sent);
        self.session.live.insert(number);
    }

    fn in_flight(&self) -> impl DoubleEndedIterator<Item = (u64, &Sent)> {
        self.calls.iter().filter(|(_, call)| !call.ended).map(|(number, call)| (*number, call))
    }

    fn in_flight_as(&self, id: SpeltId) -> Option<u64> {
        self.in_flight().find(|(_, call)| call.id.1 == id.1).map(|(number, _)| number)
    }

    fn calls_with_child(&self) -> Vec<u64> {
        self.in_flight().filter(|(_, call)| call.wire.is_some()).map(|(number, _)| number).collect()
    }

    /// Where a message goes that stdio gives no call.
    fn related(&self) -> u64 {
        let takes = |(number, call): &(u64, &Sent)| {
            call.takes == Takes::Events
                && call.wire.is_some()
                && call.cancelled.is_none()
                && self.session.live.contains(number)
        };
        self.in_flight().rev().find(takes).map_or(LISTENING, |(number, _)| number)
    }

    /// Notes that a request has ended, and checks that it is its only end and goes to the stream that asked.
    fn end(&mut self, stream: StreamId, id: &ClientId) -> &Sent {
        let call = self.calls.get_mut(&stream.0).expect("only what was taken can end");
        assert!(!call.ended, "a request ends once");
        assert_eq!(id.0.as_json(), call.id.0, "a client finds its id as it spelt it");
        call.ended = true;
        call
    }

    fn take(&mut self, step: Step) {
        match step {
            // A session takes nothing from its clients while too much waits for the handshake.
            Step::Request(..) | Step::Notify if !self.session.front.accepting() => {}
            Step::Request(id, takes) => self.request(id, takes),
            Step::Initialize(id) => {
                let text = request(id.0, "initialize");
                let refused = self.session.unchanged(|session| session.client(9, &text));
                assert_eq!(refused, Err(Refusal::AlreadyInitialized(client_id(id.0))));
            }
            Step::Notify => {
                self.newest += 1;
                self.notes.insert(self.newest);
                let text = numbered(self.newest, None, "n");
                assert_eq!(self.session.client(self.newest, &text), Ok(None));
            }
            Step::Initialized => {
                let fate = self.session.client(9, &note("notifications/initialized"));
                assert!(
                    matches!(fate, Ok(None | Some(Output::Note(Note::Swallowed(_))))),
                    "never refused: {fate:?}"
                );
                self.said = true;
            }
            Step::Cancel(id) => self.cancel(id),
            Step::Respond(id) => self.respond(id),
            Step::Move(stream) => {
                let stream = stream.index(self.newest as usize + 1) as u64;
                if !self.session.live.remove(&stream) {
                    self.session.live.insert(stream);
                }
            }
            Step::Reply(call, echo, success) => {
                let seen: Vec<u64> =
                    self.calls.iter().filter(|(_, call)| call.wire.is_some()).map(|(n, _)| *n).collect();
                self.reply(seen[call.index(seen.len())], echo, success);
            }
            Step::NamelessError => self.nameless_error(),
            Step::Stray(id) => {
                let told = self.session.unchanged(|session| session.child(&result(id)));
                assert_eq!(told, dropped(Dropped::UnknownId), "nothing is answered that was not asked");
            }
            Step::Ask(id, method) => self.ask(id, method),
            Step::TakeBack(id) => {
                let asked = self.asked.remove(&id.1);
                self.forgotten.extend(asked.map(|_| id.1));
                let asked_on =
                    asked.map(|(_, stream, _)| stream).filter(|stream| self.session.live.contains(stream));
                let stream = asked_on.unwrap_or(LISTENING);
                assert_eq!(self.session.child(&cancel(id.0)), event(stream, &cancel(id.0)));
            }
            Step::Progress(call) => {
                let number = *call.get(&self.calls.keys().copied().collect::<Vec<_>>());
                let text = progress(&token(number), 1);
                let want = match &self.calls[&number] {
                    Sent { ended: true, .. } => event(LISTENING, &text),
                    Sent { takes: Takes::Events, .. } => event(number, &text),
                    Sent { takes: Takes::AnswerOnly, .. } => dropped(Dropped::NotStreamable),
                };
                assert_eq!(self.session.unchanged(|session| session.child(&text)), want);
            }
            Step::Log => {
                let text = note("notifications/message");
                let want = event(self.related(), &text);
                assert_eq!(self.session.unchanged(|session| session.child(&text)), want);
            }
            Step::Noise => {
                assert!(!self.session.unchanged(|session| session.is_message("Listening on stdio")));
            }
            Step::Wait(seconds, punctual) => self.wait(secs(seconds), punctual),
        }
        self.check();
    }

    fn request(&mut self, id: SpeltId, takes: Takes) {
        self.newest += 1;
        let number = self.newest;
        let text = numbered(number, Some(id.0), "call");
        if self.in_flight_as(id).is_some() {
            let refused = Err(Refusal::DuplicateId(client_id(id.0)));
            assert_eq!(self.session.unchanged(|session| session.post(number, takes, &text)), refused);
        } else if self.in_flight().filter(|(number, _)| *number != 1).count() >= self.limits.max_in_flight {
            let overload = Ok(Some(unanswered(number, id.0, Unanswered::Overload)));
            assert_eq!(self.session.unchanged(|session| session.post(number, takes, &text)), overload);
        } else {
            assert_eq!(self.session.post(number, takes, &text), Ok(None));
            self.taken(number, id, takes);
        }
    }

    fn cancel(&mut self, id: SpeltId) {
        let text = cancel(id.0);
        let target = self.in_flight_as(id).filter(|number| *number != 1);
        match target.map(|number| &self.calls[&number]) {
            Some(Sent { wire: None, .. }) => match self.session.client(9, &text) {
                Ok(Some(Output::Unanswered { stream, id, why: Unanswered::Cancelled })) => {
                    self.end(stream, &id);
                }
                fate => panic!("a request that waits ends when it is cancelled: {fate:?}"),
            },
            Some(Sent { cancelled: None, .. }) => {
                assert_eq!(self.session.client(9, &text), Ok(None));
                let now = self.session.now;
                self.calls.entry(target.unwrap()).and_modify(|call| call.cancelled = Some(now));
            }
            _ => self.session.swallowed(&text),
        }
    }

    fn respond(&mut self, id: SpeltId) {
        let text = result(id.0);
        if self.asked.remove(&id.1).is_some() {
            assert_eq!(self.session.client(9, &text), Ok(None));
            self.forgotten.insert(id.1);
            assert_eq!(self.replies(), [text], "an answer reaches the child as it is");
        } else if self.forgotten.contains(&id.1) {
            self.session.swallowed(&text);
        } else {
            let fate = self.session.unchanged(|session| session.client(9, &text));
            assert_eq!(fate, Err(Refusal::UnknownResponse), "no client injects answers");
        }
    }

    fn reply(&mut self, number: u64, echo: usize, success: bool) {
        let call = &self.calls[&number];
        let wire = call.wire.as_ref().expect("a child answers what it has seen");
        let echo = ["@", "@.0", "@e0", "@0E-1", "\"@\""][echo].replace('@', wire);
        let text = if success { result } else { error };
        if call.ended {
            let told = self.session.unchanged(|session| session.child(&text(&echo)));
            assert_eq!(told, dropped(Dropped::Late));
        } else {
            assert_eq!(self.session.child(&text(&echo)), answer(number, &text(call.id.0)));
            self.answered(number, success);
        }
    }

    fn nameless_error(&mut self) {
        if let [number] = self.calls_with_child()[..] {
            let want = answer(number, &error(self.calls[&number].id.0));
            assert_eq!(self.session.child(&error("null")), want);
            self.answered(number, false);
        } else {
            let told = self.session.unchanged(|session| session.child(&error("null")));
            assert_eq!(told, dropped(Dropped::UnknownId));
        }
    }

    fn answered(&mut self, number: u64, success: bool) {
        self.calls.entry(number).and_modify(|call| call.ended = true);
        self.failed |= number == 1 && !success;
    }

    fn ask(&mut self, id: SpeltId, method: &'static str) {
        let text = request(id.0, method);
        if method == "ping" && !self.session.live.contains(&LISTENING) {
            assert_eq!(self.session.child(&text), replied("ping"));
            assert_eq!(self.replies(), [result(id.0)], "a child gets its pong");
        } else if !self.asked.contains_key(&id.1) {
            let related = matches!(method, "roots/list" | "elicitation/create");
            let stream = if related { self.related() } else { LISTENING };
            assert_eq!(self.session.child(&text), event(stream, &text));
            self.asked.insert(id.1, (id.0, stream, self.session.now));
        }
    }

    fn wait(&mut self, pause: Duration, punctual: bool) {
        let until = self.session.now + pause;
        while punctual
            && !self.failed
            && let Some(deadline) = self.session.front.next_deadline().filter(|deadline| *deadline <= until)
        {
            if deadline > self.session.now {
                let before = deadline - Duration::from_nanos(1);
                let early = self.session.unchanged(|session| session.at(before));
                assert_eq!(early, [], "nothing ends before its time");
            }
            self.expire(deadline);
            let next = self.session.front.next_deadline();
            assert!(next.is_none_or(|next| next > deadline), "it meant something");
        }
        if !self.failed {
            self.expire(until);
        }
        self.session.now = until;
        if !self.failed {
            let next = self.session.front.next_deadline();
            assert!(next.is_none_or(|deadline| deadline > until), "no deadline is left behind");
            assert!(self.in_flight().all(|(number, call)| until < self.due(number, call)), "all is on time");
        }
    }

    /// When a request ends at the latest.
    fn due(&self, number: u64, call: &Sent) -> Duration {
        let timeout = if number == 1 { self.limits.init_timeout } else { self.limits.request_timeout };
        let cancelled = call.cancelled.map(|cancelled| cancelled + CANCEL_GRACE);
        cancelled.into_iter().fold(call.since + timeout, Duration::min)
    }

    /// Sees that what ends when it is `now` ends rightly.
    fn expire(&mut self, now: Duration) {
        let mut unanswered = 0;
        for expired in self.session.at(now) {
            match expired {
                Output::Handshake(Handshake::TimedOut) => {
                    assert!(!self.calls[&1].ended && now >= self.limits.init_timeout);
                    self.failed = true;
                }
                Output::Unanswered { stream, id, why: Unanswered::Timeout } => {
                    let since = self.end(stream, &id).since;
                    assert!(now >= since + self.limits.request_timeout, "a request has all its time");
                }
                Output::Unanswered { stream, id, why: Unanswered::Cancelled } => {
                    let cancelled = self.end(stream, &id).cancelled.expect("the client cancelled it");
                    assert!(now >= cancelled + CANCEL_GRACE, "an answer may cross a cancellation");
                }
                Output::Note(Note::NoListener) => unanswered += 1,
                other => panic!("{other:?}"),
            }
        }
        let replies = self.replies();
        assert_eq!(replies.len(), unanswered, "the child gets an answer to each of them");
        for reply in replies {
            let reply = message(&reply);
            let id = reply.id().unwrap();
            let (_, value) = IDS.iter().find(|(token, _)| *token == id.as_json()).unwrap();
            let (token, stream, since) = self.asked.remove(value).expect("the child waits for this");
            assert_eq!(id.as_json(), token, "a child finds its id as it spelt it");
            assert!(now >= since + LISTENER_GRACE && !self.session.live.contains(&stream));
            self.forgotten.insert(*value);
        }
    }

    /// Reads what the child has received, and returns the answers to what it asked.
    fn replies(&mut self) -> Vec<String> {
        let mut replies = Vec::new();
        for line in self.session.stdin() {
            let value: Value = serde_json::from_str(&line).expect("the child receives JSON");
            let number = value["params"]["number"].as_u64();
            match value["method"].as_str() {
                None => replies.push(line),
                Some("notifications/initialized") => {
                    assert!(self.calls[&1].ended, "initialized follows the answer to initialize");
                    assert!(!self.initialized, "initialized is said once");
                    self.initialized = true;
                }
                Some("notifications/cancelled") => {
                    let wire = value["params"]["requestId"].to_string();
                    let call = self.calls.values_mut().find(|call| call.wire.as_ref() == Some(&wire));
                    let call = call.expect("only what the child has seen is cancelled");
                    assert!(call.cancelled.is_some() || call.ended, "nothing is cancelled for no reason");
                    assert!(!call.told, "and once");
                    call.told = true;
                }
                Some(_) => self.arrived(number.expect("a message of the client"), &value["id"]),
            }
        }
        replies
    }

    /// The child has received the client's message of this number.
    fn arrived(&mut self, number: u64, id: &Value) {
        assert!(number > self.seen, "messages arrive once and in order");
        assert!(number == 1 || self.initialized, "nothing but initialize comes before initialized");
        self.seen = number;
        if id.is_null() {
            assert!(self.notes.remove(&number), "a notification arrives that was taken");
            return;
        }
        let wire = Some(id.to_string());
        assert!(self.calls.values().all(|call| call.wire != wire), "no id is used twice with a child");
        let call = self.calls.get_mut(&number).expect("a request arrives that was taken");
        assert!(!call.ended, "what has ended is not begun");
        call.wire = wire;
    }

    /// What holds after each step.
    fn check(&mut self) {
        assert!(self.replies().is_empty(), "the child receives no answer to what it did not ask");
        if self.calls[&1].ended && !self.failed {
            assert!(self.initialized || !self.said, "initialized is not lost");
            assert!(self.notes.is_empty(), "no notification waits after the handshake");
            assert!(self.in_flight().all(|(_, call)| call.wire.is_some()), "and no request");
        }
        let next = self.session.front.next_deadline().unwrap_or(Duration::MAX);
        let due = |(number, call)| next <= self.due(number, call);
        assert!(self.failed || self.in_flight().all(due), "none is forgotten");
        let front = &self.session.front;
        assert_eq!(front.in_flight(), self.in_flight().count());
        assert!(front.in_flight() <= self.limits.max_in_flight + 1, "the handshake is no call of a client");
        front.check();
        assert!(front.held() <= self.limits.max_in_flight, "what waits is bounded");
        let (pending, recent) = front.child_requests();
        assert_eq!(pending, self.asked.len());
        assert!(recent <= MAX_RECENT);
    }

    /// The child answers all that it has, or dies.
    fn finish(mut self, dies: bool) {
        while !dies && !self.failed && self.in_flight().count() > 0 {
            self.reply(self.calls_with_child()[0], 0, true);
            self.check();
        }
        let left: Vec<_> =
            self.in_flight().map(|(number, call)| (StreamId(number), client_id(call.id.0))).collect();
        let abandoned = self.session.front.abandon();
        assert_eq!(abandoned, left, "what is in flight ends, oldest first");
        for (stream, id) in &abandoned {
            self.end(*stream, id);
        }
        self.session.assert_nothing_in_flight();
        assert_eq!(self.session.front.held(), 0);
        assert!(self.calls.values().all(|call| call.ended), "each request that was taken has its end");
    }
}

proptest! {
    #[test]
    fn whatever_either_side_does_each_request_ends_once_and_all_else_arrives_once_and_in_order(
        initialize in select(&IDS[..]),
        max_in_flight in 1usize..6,
        steps in prop::collection::vec(any_step(), 0..120),
        dies in any::<bool>(),
        ids in select(&[Ids::counted as fn() -> Ids, || Ids::secret(3)][..]),
    ) {
        let limits =
            Limits { init_timeout: secs(60), request_timeout: secs(30), max_in_flight, ids, ..LIMITS };
        let mut world = World::new(limits, initialize);
        for step in steps {
            if !world.failed {
                world.take(step);
            }
        }
        world.finish(dies);
    }
}
