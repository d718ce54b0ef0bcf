//! Sessions that share a child: what each side says and what comes of it, as a table of dialogues; then what a table cannot
//! hold.

use super::*;
use crate::proto::front::shared::{MARGIN, MAX_CALLS, MAX_ELICITATIONS, MAX_QUESTION, Shared};
use crate::proto::lingering::{LINGER, MAX_LINGERING};
use crate::proto::link::OWN_LIMIT;
use crate::proto::questions::CLEAR_WITHIN;
use crate::proto::subscription::MAX_URIS;

mod properties;
mod table;

/// As the bridge writes it.
const OWN: &str =
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#;

/// What the client of lane A can be asked, of lane B, and of lane C.
const DECLARED: [&str; 3] =
    [r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#, r#"{"elicitation":{}}"#, "{}"];

const LANES: [&str; 3] = ["A", "B", "C"];

impl Harness<Shared> {
    fn shared(limits: Limits) -> Self {
        let mut out = Out::default();
        let front = Shared::open(limits, message(OWN).request().unwrap(), Duration::ZERO, &mut out);
        Self::of(front, out)
    }

    /// Three lanes have their greeting.
    fn three(limits: Limits) -> Self {
        let mut session = Self::shared(limits);
        assert!(session.is_message(ANSWER));
        for (lane, declared) in (1..).zip(DECLARED) {
            session.front.join(StreamId(lane));
            session.lane(lane, &opening("\"init\"", declared));
        }
        session.stdin();
        session
    }

    /// A lane says this: what comes out.
    fn lane(&mut self, lane: u64, text: &str) -> Vec<Output> {
        self.try_lane(lane, text).unwrap_or_else(|why| panic!("{text}: {why:?}"))
    }

    fn try_lane(&mut self, lane: u64, text: &str) -> Result<Vec<Output>, Refusal> {
        self.unchecked(lane, text)?;
        self.front.check();
        Ok(self.outputs())
    }

    fn unchecked(&mut self, lane: u64, text: &str) -> Result<(), Refusal> {
        let (stream, arrived, mirrored) = (StreamId(lane), self.now, Mirrored::nothing());
        let from = Origin { stream, takes: Takes::Events, arrived, mirrored };
        self.front.client(message(text), from, self.now, &mut self.out)
    }

    /// The child says this: what comes out.
    fn says(&mut self, text: &str) -> Vec<Output> {
        assert!(self.is_message(text), "{text}");
        self.front.check();
        self.outputs()
    }

    fn leaves(&mut self, lane: u64) -> Vec<Output> {
        self.front.reader_left(StreamId(lane), true, self.now, &mut self.out);
        self.front.check();
        self.outputs()
    }

    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let ended = self.at(self.now + time);
        self.front.check();
        ended
    }

    /// Nothing is left of anything that was going on.
    fn assert_empty(&self) {
        self.assert_nothing_in_flight();
        assert_eq!((self.front.held_bytes(), self.front.next_deadline()), (0, None));
    }
}

/// A session's `initialize`, for a client with these capabilities.
fn opening(id: &str, capabilities: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{{"protocolVersion":"2025-06-18","capabilities":{capabilities}}}}}"#
    )
}

/// Those that are no notes.
fn told(mut outputs: Vec<Output>) -> Vec<Output> {
    outputs.retain(|output| !matches!(output, Output::Note(_)));
    outputs
}

/// What has come out, as the table writes it; what a lane is told in the order of lanes, and what the child is told last.
fn written(session: &mut Harness<Shared>, outputs: Vec<Output>) -> Vec<String> {
    let name = |stream: StreamId| LANES[stream.0 as usize - 1];
    let short = |message: &str| message.replacen(r#""jsonrpc":"2.0","#, "", 1);
    let line = |message: &[u8]| short(std::str::from_utf8(message).unwrap());
    let mut written: Vec<_> = outputs
        .into_iter()
        .filter_map(|output| match output {
            Output::Message { stream, message } => Some(format!("{} {}", name(stream), line(&message))),
            Output::Answer { stream, message, success } => {
                assert_eq!(success, !line(&message).contains("\"error\":"), "whether it is a result");
                Some(format!("{} {}", name(stream), line(&message)))
            }
            Output::Unanswered { stream, id, why } => {
                Some(format!("{} {} ends: {why:?}", name(stream), id.0.as_json()))
            }
            Output::Note(Note::Dropped(why)) => Some(format!("dropped: {}", why.as_str())),
            Output::Note(_) => None,
            other => Some(format!("{other:?}")),
        })
        .collect();
    written.extend(session.stdin().iter().map(|line| format!("child {}", short(line))));
    written
}

/// Who does what, and what comes of it. Messages are written without their `jsonrpc`.
type Step<'t> = (&'t str, &'t str, &'t [&'t str]);

fn play(about: &str, steps: &[Step<'_>]) {
    let mut session = Harness::three(LIMITS);
    for (who, says, wants) in steps {
        let text = says.replacen('{', r#"{"jsonrpc":"2.0","#, 1);
        let lane = LANES.iter().position(|lane| lane == who).map(|place| place as u64 + 1);
        let outputs = match (*who, lane) {
            (_, Some(lane)) if *says == "leaves" => session.leaves(lane),
            (_, Some(lane)) => match session.try_lane(lane, &text) {
                Ok(outputs) => outputs,
                Err(refusal) => {
                    assert_eq!([&*format!("refused: {refusal:?}")], *wants, "{about}: {who} {says}");
                    continue;
                }
            },
            ("child", _) => session.says(&text),
            ("ms", _) => session.pass(Duration::from_millis(says.parse().unwrap())),
            _ => panic!("{who}"),
        };
        let got = written(&mut session, outputs);
        assert_eq!(got, *wants, "{about}: {who} {says}");
    }
    for lane in 1..=3 {
        session.leaves(lane);
    }
    session.pass(LINGER.max(OWN_LIMIT));
    session.assert_empty();
}

// The handshake.

#[test]
fn a_session_is_greeted_with_the_childs_answer_and_without_its_tasks() {
    let table = [
        (
            r#"{"capabilities":{"tools":{},"tasks":{"list":{}}, "x":1}}"#,
            r#"{"capabilities":{"tools":{},"x":1}}"#,
        ),
        (r#"{"capabilities":{"tasks":{}}}"#, r#"{"capabilities":{}}"#),
        (r#"{ "capabilities" : { } , "tasks":1}"#, r#"{ "capabilities" : { } , "tasks":1}"#),
        ("{}", "{}"),
        ("[]", "[]"),
    ];
    for (says, gets) in table {
        let mut session = Harness::shared(LIMITS);
        (1..=2).for_each(|lane| session.front.join(StreamId(lane)));
        assert_eq!(session.lane(1, &opening("7", "{}")), [], "it waits for the child");
        assert_eq!(session.front.in_flight(), 1);
        let greeting = |id: &str, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        assert_eq!(session.says(&greeting("1", says)), [answer(1, &greeting("7", gets)).unwrap()]);
        assert!(session.is_open());
        for id in ["\"init\"", "\"again\""] {
            assert_eq!(session.lane(2, &opening(id, "{}")), [answer(2, &greeting(id, gets)).unwrap()]);
        }
        assert_eq!(session.lane(2, &note("notifications/initialized")).len(), 1, "it is swallowed");
        assert_eq!(session.stdin().len(), 2, "the child has one handshake");
        session.assert_empty();
    }
}

#[test]
fn each_session_that_waits_is_told_why_the_child_refuses() {
    let mut session = Harness::shared(LIMITS);
    (1..=3).for_each(|lane| session.front.join(StreamId(lane)));
    (1..=3).for_each(|lane| drop(session.lane(lane, &opening("7", "{}"))));
    assert_eq!(session.leaves(2), [unanswered(2, "7", Unanswered::Cancelled)]);
    let want = [1, 3].map(|lane| answer(lane, &error("7")).unwrap());
    assert_eq!(session.says(&error("1")), want);
    assert!(session.refused());
    session.assert_nothing_in_flight();
}

#[test]
fn what_is_too_long_to_be_kept_greets_nobody() {
    let long = "x".repeat(MAX_GREETING);
    for text in [
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"x":"{long}"}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":1,"message":"{long}"}}}}"#),
    ] {
        let mut session = Harness::shared(LIMITS);
        session.front.join(StreamId(1));
        session.lane(1, &opening("7", "{}"));
        assert_eq!(session.says(&text), [Output::Note(Note::LongGreeting(MAX_GREETING))]);
        assert!(session.refused());
        assert_eq!(session.front.abandon(), [(StreamId(1), client_id("7"))]);
    }
}

#[test]
fn a_lane_that_has_not_joined_is_ignored() {
    let mut session = Harness::shared(LIMITS);
    session.stdin();
    assert!(!session.front.has_lanes());
    for text in [opening("7", "{}"), request("7", "ping"), note("n"), result("7"), cancel("7")] {
        assert_eq!(told(session.lane(1, &text)), []);
    }
    assert_eq!(session.leaves(1), []);
    session.says(ANSWER);
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
    session.front.join(StreamId(1));
    assert!(session.front.has_lanes());
    session.leaves(1);
    assert!(!session.front.has_lanes());
    session.assert_empty();
}

// Calls.

#[test]
fn a_call_has_more_time_here_than_at_its_session() {
    let mut session = Harness::three(LIMITS);
    let id = session.call(1, "7");
    let until = LIMITS.request_timeout + MARGIN;
    assert_eq!(session.front.next_deadline(), Some(until));
    assert_eq!(session.at(until), [unanswered(1, "7", Unanswered::Timeout)]);
    assert_eq!(session.line()["params"]["requestId"].to_string(), id);
    session.pass(LINGER);
    session.assert_empty();
}

#[test]
fn calls_of_all_sessions_together_are_bounded() {
    let mut session = Harness::three(LIMITS);
    for number in 0..MAX_CALLS {
        session.unchecked(1 + number as u64 % 3, &request(&number.to_string(), "ping")).unwrap();
    }
    assert_eq!(session.outputs(), []);
    session.stdin();
    assert_eq!(session.lane(1, &request("\"x\"", "ping")), [unanswered(1, "\"x\"", Unanswered::Overload)]);
    session.says(&result("2"));
    assert_eq!(session.lane(1, &request("\"x\"", "ping")), []);
    assert_eq!(session.front.abandon().len(), MAX_CALLS);
    session.assert_nothing_in_flight();
}

#[test]
fn the_end_of_the_child_ends_calls_and_openings_oldest_first() {
    let mut session = Harness::three(LIMITS);
    session.call(2, "7");
    session.call(1, "7");
    session.call(2, "8");
    let ended = [(2, "7"), (1, "7"), (2, "8")].map(|(lane, id)| (StreamId(lane), client_id(id)));
    assert_eq!(session.front.abandon(), ended);
    session.assert_empty();
    let mut session = Harness::shared(LIMITS);
    (1..=2).for_each(|lane| session.front.join(StreamId(lane)));
    session.lane(2, &opening("7", "{}"));
    session.lane(1, &opening("7", "{}"));
    assert_eq!(session.front.abandon(), [2, 1].map(|lane| (StreamId(lane), client_id("7"))));
}

#[test]
fn answers_that_nobody_can_take_end_their_calls() {
    let mut session = Harness::three(LIMITS);
    let (one, other) = (session.call(1, "7"), session.call(2, "7"));
    let head = format!(r#"{{"jsonrpc":"2.0","id":{other},"result":["#);
    assert_eq!(session.too_long(&head), [unanswered(2, "7", Unanswered::TooLong)]);
    let broken = session.broken(&format!(r#"{{"jsonrpc":"2.0","id":{one},"result":NaN}}"#));
    assert!(matches!(
        broken[..],
        [Output::Unanswered { stream: StreamId(1), why: Unanswered::Invalid(_), .. }]
    ));
    session.assert_empty();
    (1..=2).for_each(|lane| drop(session.call(lane, "7")));
    assert_eq!(session.too_long(r#"{"jsonrpc":"2.0","result":["#), [Output::AnswerToUnknown]);
}

#[test]
fn ids_that_the_front_keeps_follow_a_request_that_is_sent_again() {
    let refusal = std::sync::Arc::new(regex_lite::Regex::new("not ready").unwrap());
    let ready = Readiness { refusal: Some(refusal), timeout: secs(60), ..Readiness::AT_ONCE };
    let mut session = Harness::three(Limits { ready, ..LIMITS });
    let not_ready =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":1,"message":"not ready"}}}}"#);
    let subscribe = r#"{"jsonrpc":"2.0","id":7,"method":"resources/subscribe","params":{"uri":"u"}}"#;
    let level = r#"{"jsonrpc":"2.0","id":8,"method":"logging/setLevel","params":{"level":"debug"}}"#;
    for (lane, text) in [(1, subscribe), (1, level), (2, &request("9", "tools/call"))] {
        assert_eq!(session.lane(lane, text), []);
    }
    session.says(&question("\"q\"", "elicitation/create"));
    for id in 2..=4 {
        assert_eq!(told(session.says(&not_ready(&id.to_string()))), []);
    }
    session.stdin();
    assert_eq!(session.pass(secs(1)), []);
    assert_eq!(session.stdin().len(), 3, "they are sent again");
    assert_eq!(session.says(&result("6")), [answer(1, &result("8")).unwrap()]);
    assert_eq!(
        session.says(&result("5")),
        [event(2, &question("\"q\"", "elicitation/create")).unwrap(), answer(1, &result("7")).unwrap(),]
    );
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"u"}}"#;
    assert_eq!(session.says(changed), [event(1, changed).unwrap()]);
    session.lane(2, &cancel("9"));
    assert_eq!(session.line()["params"]["requestId"], 7);
}

/// What the child asks.
fn question(id: &str, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{}}}}"#)
}

// Bounds.

#[test]
fn questions_that_wait_are_bounded() {
    let mut session = Harness::three(LIMITS);
    (1..=2).for_each(|lane| drop(session.call(lane, "7")));
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":"long","method":"elicitation/create","params":{{"x":"{}"}}}}"#,
        "x".repeat(MAX_QUESTION)
    );
    session.says(&long);
    assert_eq!(session.line()["error"]["code"], -32601);
    for number in 0..64 {
        session.says(&question(&number.to_string(), "elicitation/create"));
    }
    assert!(session.stdin().is_empty(), "they wait");
    session.says(&question("64", "elicitation/create"));
    assert_eq!(session.line()["id"], 64);
    session.pass(CLEAR_WITHIN);
    assert_eq!(session.stdin().len(), 64);
    assert_eq!(session.front.held_bytes(), 0);
}

#[test]
fn questions_that_a_session_leaves_unanswered_are_bounded_and_touch_no_other_session() {
    let mut session = Harness::three(LIMITS);
    let id = session.call(1, "7");
    for number in 0..256 {
        assert_eq!(session.says(&question(&number.to_string(), "roots/list")).len(), 1);
    }
    assert_eq!(told(session.says(&question("256", "roots/list"))), []);
    assert_eq!(session.line()["id"], 256);
    session.says(&result(&id));
    session.call(2, "7");
    assert_eq!(session.says(&question("257", "elicitation/create")).len(), 1);
    session.leaves(1);
    assert_eq!(session.stdin().len(), 256, "each of them is answered");
}

#[test]
fn subscriptions_are_bounded() {
    let mut session = Harness::three(LIMITS);
    let subscribe = |uri: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":"{uri}","method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#
        )
    };
    for number in 0..MAX_URIS {
        session.unchecked(1, &subscribe(&format!("u{number}"))).unwrap();
    }
    assert_eq!(session.outputs(), []);
    session.front.check();
    let overload = |lane| unanswered(lane, "\"u\"", Unanswered::Overload);
    assert_eq!(session.lane(1, &subscribe("u")), [overload(1)]);
    assert_eq!(session.lane(2, &subscribe("u")), [], "what one takes is not the others'");
    session.leaves(2);
    for (lane, takes) in (4..).zip([MAX_URIS, MAX_URIS, 500, 250, 125]) {
        session.front.join(StreamId(lane));
        let is_taken = |number: &usize| {
            session.unchecked(lane, &subscribe(&format!("u{number}"))).unwrap();
            session.outputs().is_empty()
        };
        assert_eq!((0..=MAX_URIS).take_while(is_taken).count(), takes, "there is room for the next");
    }
    session.front.check();
    let long = "x".repeat(crate::proto::ids::MAX_ID - 2);
    let mut session = Harness::three(LIMITS);
    let taken = (0..200)
        .filter(|number| session.lane(1, &subscribe(&format!("{number:04}{}", &long[4..]))).is_empty());
    assert_eq!(taken.count(), 1024 * 1024 / long.len());
}

#[test]
fn the_newest_elicitations_of_a_session_are_remembered() {
    let mut session = Harness::three(LIMITS);
    session.call(1, "7");
    for number in 0..=MAX_ELICITATIONS {
        let asks = format!(
            r#"{{"jsonrpc":"2.0","id":{number},"method":"elicitation/create","params":{{"mode":"url","elicitationId":"e{number}"}}}}"#
        );
        assert_eq!(session.says(&asks).len(), 1);
    }
    let complete = |number: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{{"elicitationId":"e{number}"}}}}"#
        )
    };
    assert_eq!(session.says(&complete(0)), [dropped(Dropped::Unrelated).unwrap()]);
    assert_eq!(session.says(&complete(1)), [event(1, &complete(1)).unwrap()]);
    assert_eq!(session.says(&complete(MAX_ELICITATIONS)).len(), 1);
}

#[test]
fn where_too_many_calls_have_ended_without_an_answer_all_is_doubtful_for_a_while() {
    let mut session = Harness::three(LIMITS);
    for number in 0..=MAX_LINGERING as u64 {
        session.front.join(StreamId(10 + number));
        session.call(10 + number, "7");
        session.leaves(10 + number);
    }
    session.stdin();
    session.call(1, "7");
    let log = note("notifications/message");
    assert_eq!(session.says(&log), [dropped(Dropped::Unrelated).unwrap()]);
    session.says(&question("1", "roots/list"));
    assert_eq!(session.line()["error"]["code"], -32601);
    session.pass(LINGER);
    assert_eq!(session.says(&log), [event(1, &log).unwrap()]);
}
