//! Clients of 2026-07-28 that share a child of it.

use super::*;
use crate::proto::front::modern::Modern;
use crate::proto::link::{OWN_LIMIT, own_discover};
use crate::proto::output::Declined;

mod lanes;

/// What a request of this revision says of its client.
const META: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;

/// The spellings of ids and tokens that clients use.
const NAMES: [&str; 7] =
    ["7", r#""7""#, r#""""#, r#""a\u0062\"c""#, "-0", "123456789012345678901234567890", r#""é {}""#];

fn starting_with(limits: Limits, strangers: bool) -> Harness<Modern> {
    let mut out = Out::default();
    let mut front = Modern::open(limits, &own_discover(), strangers, Duration::ZERO, &mut out);
    front.knows_tools();
    Harness::of(front, out)
}

fn open_for(strangers: bool) -> Harness<Modern> {
    let mut session = starting_with(LIMITS, strangers);
    assert_eq!(session.child(&result("1")), None);
    assert!(session.is_open());
    session.stdin();
    session
}

fn open() -> Harness<Modern> {
    open_for(true)
}

/// The child has been asked for a page of its tools: under which id, and with which cursor.
fn asked_for_tools(session: &mut Harness<Modern>) -> (String, Value) {
    let line = session.stdin().pop().expect("the child is asked");
    let request: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(request["method"], "tools/list", "{line}");
    (request["id"].to_string(), request["params"]["cursor"].clone())
}

/// A page of tools of which one wants its argument in a header.
fn tools(id: &str, name: &str, next: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{{next}"tools":[{{"name":"{name}","inputSchema":{{"type":"object","properties":{{"x":{{"type":"string","x-mcp-header":"X"}}}}}}}}]}}}}"#
    )
}

#[test]
fn a_tool_is_called_when_it_is_known_which_arguments_its_headers_must_say() {
    let call = |name: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"_meta":{{{META}}},"name":"{name}","arguments":{{"x":"1"}}}}}}"#
        )
    };
    let mut session = starting_with(LIMITS, true);
    session.front.forgets_tools();
    session.child(&result("1"));
    session.stdin();
    assert_eq!(session.client(2, &call("a")), Ok(None));
    let (id, cursor) = asked_for_tools(&mut session);
    assert!(cursor.is_null());
    assert_eq!(session.client(3, &call("b")), Ok(None));
    session.child(&tools(&id, "b", r#""nextCursor":"\"2","#));
    let (id, cursor) = asked_for_tools(&mut session);
    assert_eq!(cursor, "\"2");
    let why = Unanswered::Declined(Declined::Header(
        "a header Mcp-Param-* is missing: the tool asks that it mirrors an argument",
    ));
    let refused = |stream| Output::Unanswered { stream: StreamId(stream), id: ClientId(Id::from(7)), why };
    assert!(session.is_message(&tools(&id, "a", "")));
    assert_eq!(session.outputs(), [refused(2), refused(3)]);
    assert!(session.stdin().is_empty(), "the child has seen neither");
    assert_eq!(session.client(4, &call("c")), Ok(None));
    assert_eq!(session.stdin().len(), 1, "one that wants none goes on");
}

#[test]
fn a_child_that_does_not_name_its_tools_is_called_all_the_same() {
    for answer in [r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32601,"message":"no"}}"#, ""] {
        let mut session = starting_with(LIMITS, true);
        session.front.forgets_tools();
        session.child(&result("1"));
        session.stdin();
        let call = asking("7", "tools/call", "");
        session.client(2, &call).unwrap();
        session.client(3, &call).unwrap();
        let (id, _) = asked_for_tools(&mut session);
        assert_eq!(left(&mut session, 3).len(), 1, "it ends");
        match answer {
            "" => drop(session.at(OWN_LIMIT)),
            _ => drop(session.child(&answer.replace("ID", &id))),
        }
        let calls = session.stdin().into_iter().filter(|line| line.contains("tools/call")).count();
        assert_eq!(calls, 1, "that of the client which has stayed");
    }
}

#[test]
fn a_call_that_comes_first_waits_for_silent_tools_no_longer_than_any_other() {
    let mut session = starting_with(LIMITS, true);
    session.front.forgets_tools();
    session.stdin();
    assert_eq!(session.client(2, &asking("7", "tools/call", "")), Ok(None));
    assert_eq!(session.child(&result("1")), None);
    assert!(session.is_open());
    asked_for_tools(&mut session);
    session.at(session.now + crate::proto::link::OWN_LIMIT);
    assert!(session.stdin().iter().any(|line| line.contains("tools/call")), "it is called");
}

#[test]
fn calls_that_wait_for_the_tools_are_bounded_in_bytes() {
    let mut session = starting_with(LIMITS, true);
    session.front.forgets_tools();
    session.child(&result("1"));
    session.stdin();
    let long = asking("7", "tools/call", &format!(r#","filler":"{}""#, "x".repeat(4 * 1024 * 1024)));
    for stream in 2..4 {
        assert!(session.front.accepting(), "stream {stream}");
        session.client(stream, &long).unwrap();
    }
    assert!(!session.front.accepting(), "8 MiB wait");
    let (id, _) = asked_for_tools(&mut session);
    session.child(&tools(&id, "other", ""));
    assert!(session.front.accepting(), "nothing waits any more");
    assert_eq!(session.stdin().len(), 2);
}

/// A request with this much more in its `_meta`.
fn asking(id: &str, method: &str, more: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{{{META}{more}}},"name":"t"}}}}"#
    )
}

fn listening(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{{"_meta":{{{META}}},"notifications":{{"toolsListChanged":true}}}}}}"#
    )
}

/// A tool call that asks for log messages.
fn logged(id: &str) -> String {
    asking(id, "tools/call", r#","io.modelcontextprotocol/logLevel":"info""#)
}

/// A notification that belongs to a subscription.
fn of_subscription(method: &str, id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"x":1.0, "_meta" : {{"y":[],"io.modelcontextprotocol/subscriptionId" :{id} }}}}}}"#
    )
}

/// The answer that ends a subscription.
fn ended(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
    )
}

fn log(text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"error","data":"{text}"}}}}"#
    )
}

fn left<F: Front + Debug>(session: &mut Harness<F>, stream: u64) -> Vec<Output> {
    session.front.reader_left(StreamId(stream), true, session.now, &mut session.out);
    session.outputs()
}

impl Harness<Modern> {
    fn listen(&mut self, stream: u64, id: &str) -> String {
        self.call_with(stream, Takes::Events, &listening(id))
    }
}

// The first request.

#[test]
fn the_child_is_asked_what_it_is_and_told_nothing_of_a_handshake() {
    let mut session = starting_with(LIMITS, true);
    let [first] = &session.stdin()[..] else { panic!("one line") };
    let first: Value = serde_json::from_str(first).unwrap();
    assert_eq!((&first["method"], &first["id"]), (&"server/discover".into(), &1.into()));
    assert_eq!(session.client(2, &asking("7", "server/discover", "")), Ok(None));
    assert_eq!(session.client(3, &listening("7")), Ok(None));
    assert!(session.stdin().is_empty(), "it is not clear yet that it serves");
    assert_eq!((session.front.in_flight(), session.front.is_listening()), (1, true));
    assert_eq!(session.child(&result("1")), None);
    assert_eq!(session.stdin(), [asking("2", "server/discover", ""), listening("3")]);
    assert_eq!(session.child(&result("2")), answer(2, &result("7")));
}

#[test]
fn a_child_that_does_not_serve_ends_what_waits() {
    for refusal in [error("1"), error("null")] {
        let mut session = starting_with(LIMITS, true);
        session.client(2, &asking("7", "tools/call", "")).unwrap();
        session.client(3, &listening("8")).unwrap();
        session.child(&refusal);
        assert!(session.refused());
        let ended = [(2, "7"), (3, "8")].map(|(stream, id)| (StreamId(stream), client_id(id)));
        assert_eq!(session.front.abandon(), ended);
    }
    let mut session = starting_with(LIMITS, true);
    assert_eq!(session.at(secs(10)), [Output::Handshake(Handshake::TimedOut)]);
}

#[test]
fn a_child_that_writes_back_what_it_is_asked_serves_nobody() {
    let mut session = starting_with(LIMITS, true);
    let first = session.stdin().concat();
    assert_eq!(session.child(&first), Some(Output::Note(Note::Echo)));
    assert!(session.stdin().is_empty(), "it is not answered");
    assert_eq!((session.at(ECHO_GRACE), &session.handshake), (vec![], &Some(Handshake::Echoed)));
}

#[test]
fn a_lost_child_has_no_successor_in_this_session() {
    let mut session = starting_with(Limits { respawn: true, ..LIMITS }, false);
    session.child(&result("1"));
    assert!(!session.front.can_restart());
    session.call(2, "7");
    session.listen(3, "7");
    let lost = [(2, "7"), (3, "7")].map(|(stream, id)| (StreamId(stream), client_id(id)));
    assert_eq!(session.front.abandon(), lost);
    assert!(!session.front.is_listening());
    session.assert_nothing_in_flight();
}

// Requests.

#[test]
fn of_a_request_its_id_and_its_token_change_and_nothing_else() {
    let texts = [
        r#"{"jsonrpc":"2.0","id":<id>,"method":"tools/call","params":{"_meta":{<meta>,"progressToken":<token>,"traceparent":"00-1-2-01"},"name":"x","inputResponses":{"r":{"action":"accept"}},"requestState":"v1.\u0061"}}"#,
        r#" { "params" : { "requestState" : "" , "_meta" : { "progressToken" : <token> , <meta> } } , "method" : "x/y" , "id" : <id> , "jsonrpc" : "2.0" } "#,
        r#"{"jsonrpc":"2.0","id":<id>,"method":"server/discover","params":{"_meta":{<meta>,"progressToken":<token>}}}"#,
        r#"{"jsonrpc":"2.0","id":<id>,"method":"subscriptions/listen","params":{"notifications":{"future":[1.0]},"_meta":{<meta>,"progressToken":<token>}}}"#,
    ];
    for text in texts {
        let text = text.replace("<meta>", META);
        for (id, token) in NAMES.iter().flat_map(|id| NAMES.map(|token| (id, token))) {
            let with = |id: &str, token: &str| text.replace("<id>", id).replace("<token>", token);
            let mut session = open();
            assert_eq!(session.client(2, &with(id, token)), Ok(None));
            assert_eq!(session.stdin(), [with("2", "2")]);
            let end = r#"{"result":{"resultType":"input_required","requestState":"@","x":1.0},"jsonrpc":"2.0", "id" : @ }"#;
            let end = |id: &str| end.replace(r#""@""#, r#""s""#).replace('@', id);
            assert_eq!(session.child(&end("2.0")), answer(2, &end(id)));
            session.assert_nothing_in_flight();
        }
    }
}

#[test]
fn fifty_clients_with_the_same_ids_and_tokens_never_meet() {
    let limits = Limits { max_in_flight: 50, ids: || Ids::secret(7), ..LIMITS };
    let mut session = starting_with(limits, true);
    let first = serde_json::from_str::<Value>(&session.stdin().concat()).unwrap()["id"].to_string();
    session.child(&result(&first));
    let token = r#","progressToken":"t""#;
    let call = |session: &mut Harness<Modern>, stream| {
        session.call_with(stream, Takes::Events, &asking("1", "tools/call", token))
    };
    let calls: Vec<_> = (100..150).map(|stream| (stream, call(&mut session, stream))).collect();
    let listens: Vec<_> = (200..250).map(|stream| (stream, session.listen(stream, "1"))).collect();
    for (stream, name) in calls.iter().rev() {
        assert_eq!(session.child(&progress(name, 1)), event(*stream, &progress("\"t\"", 1)));
    }
    for (stream, name) in &listens {
        let told = session.child(&of_subscription("notifications/tools/list_changed", name));
        assert_eq!(told, event(*stream, &of_subscription("notifications/tools/list_changed", "1")));
    }
    assert_eq!(session.child(&log("secret")), dropped(Dropped::Unrelated));
    for (stream, name) in listens.iter().chain(&calls) {
        assert_eq!(session.child(&result(name)), answer(*stream, &result("1")));
    }
    session.assert_nothing_in_flight();
}

#[test]
fn calls_have_their_places_and_subscriptions_have_theirs() {
    let mut session = open();
    let calls: Vec<_> = (0..4).map(|stream| session.call(10 + stream, "7")).collect();
    let listens: Vec<_> = (0..4).map(|stream| session.listen(20 + stream, "7")).collect();
    let overload = |stream| Ok(Some(unanswered(stream, "7", Unanswered::Overload)));
    assert_eq!(session.client(30, &request("7", "tools/call")), overload(30));
    assert_eq!(session.client(31, &listening("7")), overload(31));
    assert_eq!(session.front.in_flight(), 4, "a subscription is no call");
    session.child(&result(&calls[1]));
    assert_eq!(session.client(31, &listening("7")), overload(31), "a call's place is none for it");
    session.child(&ended(&listens[1]));
    assert_eq!(session.client(31, &listening("7")), Ok(None));
    session.front.check();
}

#[test]
fn what_sessions_had_is_declined_and_never_reaches_the_child() {
    for method in [
        "initialize",
        "notifications/initialized",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
    ] {
        let mut session = open();
        let declined = unanswered(2, "7", Unanswered::Declined(Declined::Method));
        assert_eq!(session.client(2, &request("7", method)), Ok(Some(declined)), "{method}");
        assert!(session.stdin().is_empty());
        session.assert_nothing_in_flight();
    }
}

#[test]
fn a_client_notifies_nobody_and_answers_nothing() {
    let mut session = open();
    let name = session.call(2, "7");
    for text in [cancel("7"), cancel(&name), note("notifications/initialized"), note("x")] {
        session.swallowed(&text);
    }
    for text in [result("7"), result(&name), error(&name)] {
        let told = session.unchanged(|session| session.client(3, &text));
        assert_eq!(told, Err(Refusal::UnknownResponse));
    }
    assert_eq!(session.child(&result(&name)), answer(2, &result("7")), "the call goes on");
}

#[test]
fn a_call_times_out_and_a_subscription_does_not() {
    let mut session = open();
    let call = session.call(2, "7");
    let listen = session.listen(3, "8");
    assert_eq!(session.at(secs(100)), [unanswered(2, "7", Unanswered::Timeout)]);
    assert_eq!(session.line()["params"]["requestId"].to_string(), call);
    assert_eq!((session.front.next_deadline(), session.front.in_flight()), (None, 0));
    assert_eq!(session.at(secs(1_000_000)), []);
    assert_eq!(session.child(&ended(&listen)), answer(3, &ended("8")));
}

// Subscriptions.

#[test]
fn a_message_of_a_subscription_reaches_it_under_the_id_that_its_client_gave() {
    let methods = [
        "notifications/subscriptions/acknowledged",
        "notifications/resources/updated",
        "notifications/message",
        "x/y",
    ];
    for id in NAMES {
        for child in ["2", "2.0", r#""2""#, "2e0"] {
            let mut session = open();
            session.listen(2, id);
            for method in methods {
                let told = session.child(&of_subscription(method, child));
                assert_eq!(told, event(2, &of_subscription(method, id)), "{id} {child}");
            }
        }
    }
}

#[test]
fn what_names_no_subscription_reaches_nobody() {
    let mut session = open();
    let call = session.call(2, "7");
    session.listen(3, "7");
    assert_eq!(session.post(4, Takes::AnswerOnly, &listening("7")), Ok(None));
    let changed = "notifications/prompts/list_changed";
    let doubled = r#"{"jsonrpc":"2.0","method":"x","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":3,"io.modelcontextprotocol/subscriptionId":4}}}"#;
    let table = [
        (note(changed), Dropped::Unrelated, "it names none"),
        (of_subscription(changed, &call), Dropped::Unrelated, "a call"),
        (of_subscription(changed, "1"), Dropped::Unrelated, "the handshake"),
        (of_subscription(changed, "7"), Dropped::Unrelated, "the id of a client"),
        (of_subscription(changed, "null"), Dropped::Unrelated, "none"),
        (of_subscription(changed, "[3]"), Dropped::Unrelated, "no id"),
        (of_subscription(changed, "4"), Dropped::NotStreamable, "a client that takes JSON alone"),
        (doubled.to_owned(), Dropped::Unrelated, "two of them"),
        (progress("3", 1), Dropped::Unrelated, "progress is of calls"),
        (of_subscription("notifications/progress", "3"), Dropped::Unrelated, "the same"),
        (cancel(&call), Dropped::Unrelated, "a child cancels no call"),
        (cancel("1"), Dropped::Unrelated, "nor the handshake"),
        (cancel("99"), Dropped::Unrelated, "nor what never was"),
        (note("notifications/cancelled"), Dropped::Unrelated, "nor nothing"),
    ];
    for (text, why, what) in table {
        let told = session.unchanged(|session| session.child(&text));
        assert_eq!(told, dropped(why), "{what}");
    }
}

#[test]
fn the_answer_that_ends_a_subscription_names_it_by_its_clients_id_wherever_it_stands() {
    let texts = [
        r#"{"jsonrpc":"2.0","id":@,"result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":@}}}"#,
        r#" { "result" : { "_meta" : { "x" : "2" , "io.modelcontextprotocol/subscriptionId" : @ , "y" : 2 } } , "id" : @ , "jsonrpc" : "2.0" } "#,
        r#"{"jsonrpc":"2.0","id":@,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":@,"error":{"code":-32603,"message":"no","data":{"_meta":{"io.modelcontextprotocol/subscriptionId":3}}}}"#,
    ];
    for text in texts {
        for (id, child) in NAMES.iter().flat_map(|id| ["2", "\"2\""].map(|child| (id, child))) {
            let mut session = open();
            session.listen(2, id);
            let want = text.replace('@', id);
            assert_eq!(session.child(&text.replace('@', child)), answer(2, &want), "{id}");
            assert!(!session.front.is_listening());
            session.assert_nothing_in_flight();
        }
    }
    let mut session = open();
    session.listen(2, r#""long id""#);
    let nameless = r#"{"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":2}},"jsonrpc":"2.0"}"#;
    let want = r#"{"id":"long id","result":{"_meta":{"io.modelcontextprotocol/subscriptionId":"long id"}},"jsonrpc":"2.0"}"#;
    assert_eq!(session.child(nameless), answer(2, want));
    // What is no name of the subscription stays as it is.
    let mut session = open();
    session.listen(2, "7");
    let other = r#"{"jsonrpc":"2.0","id":@,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#;
    assert_eq!(session.child(&other.replace('@', "2")), answer(2, &other.replace('@', "7")));
}

#[test]
fn raw_line_ends_in_the_answer_that_ends_a_subscription_shift_nothing() {
    let text = "{\r\n\"result\":{\"_meta\":{\r\n\"io.modelcontextprotocol/subscriptionId\":@\r}},\r\n\"id\":@,\"jsonrpc\":\"2.0\"}";
    let mut session = open();
    session.listen(2, "\"a\"");
    let want = text.replace('@', "\"a\"").replace(['\r', '\n'], " ");
    assert_eq!(session.child(&text.replace('@', "2")), answer(2, &want));
}

#[test]
fn a_child_ends_a_subscription_with_a_notification_too_and_once() {
    for id in NAMES {
        for child in ["2", "2.0", "\"2\""] {
            let mut session = open();
            let name = session.listen(2, id);
            assert_eq!(session.child(&cancel(child)), answer(2, &ended(id)));
            assert!(session.stdin().is_empty(), "it knows");
            assert_eq!(session.child(&ended(&name)), dropped(Dropped::Late));
            assert_eq!(session.child(&cancel(child)), dropped(Dropped::Unrelated));
            assert_eq!(session.child(&of_subscription("x", child)), dropped(Dropped::Unrelated));
            assert!(!session.front.is_listening());
        }
    }
}

#[test]
fn all_subscriptions_end_well_with_their_session_and_no_call_does() {
    let mut session = open();
    session.call(2, "7");
    session.listen(3, "7");
    session.listen(4, "\"é\"");
    session.front.farewell(&mut session.out);
    assert_eq!(
        session.outputs(),
        [(3, "7"), (4, "\"é\"")].map(|(stream, id)| answer(stream, &ended(id)).unwrap())
    );
    assert_eq!(session.front.abandon(), [(StreamId(2), client_id("7"))]);
}

// Clients that leave.

#[test]
fn a_client_that_leaves_cancels_its_request_and_no_other() {
    for listens in [false, true] {
        let mut session = open();
        let begin = |session: &mut Harness<Modern>, stream| {
            if listens { session.listen(stream, "7") } else { session.call(stream, "7") }
        };
        let (gone, other) = (begin(&mut session, 2), begin(&mut session, 3));
        assert_eq!(left(&mut session, 2), [unanswered(2, "7", Unanswered::Cancelled)]);
        assert_eq!(session.line()["params"]["requestId"].to_string(), gone);
        assert_eq!(left(&mut session, 2), [], "once");
        assert_eq!(session.child(&result(&gone)), dropped(Dropped::Late));
        assert_eq!(session.child(&progress(&gone, 1)), dropped(Dropped::Unrelated));
        assert_eq!(session.child(&of_subscription("x", &gone)), dropped(Dropped::Unrelated));
        assert_eq!(session.child(&result(&other)), answer(3, &result("7")));
        session.assert_nothing_in_flight();
    }
}

#[test]
fn what_was_not_forwarded_ends_with_its_client_and_the_child_never_sees_it() {
    let mut session = starting_with(LIMITS, true);
    session.stdin();
    session.client(2, &asking("7", "tools/call", "")).unwrap();
    session.client(3, &listening("7")).unwrap();
    for stream in [2, 3] {
        assert_eq!(left(&mut session, stream), [unanswered(stream, "7", Unanswered::Cancelled)]);
    }
    assert!(session.stdin().is_empty());
    session.child(&result("1"));
    assert!(session.stdin().is_empty());
    session.assert_nothing_in_flight();
}

#[test]
fn an_answer_without_an_id_is_nobodys_once_a_client_has_left() {
    let mut session = open();
    let first = session.call(2, "7");
    assert_eq!(session.child(&error("null")), answer(2, &error("7")), "there is no doubt");
    session.call(2, "7");
    left(&mut session, 2);
    let other = session.call(3, "8");
    for nameless in [error("null"), r#"{"jsonrpc":"2.0","result":"secret"}"#.to_owned()] {
        assert_eq!(session.child(&nameless), dropped(Dropped::UnknownId), "it may be for who has left");
    }
    assert_eq!(session.child(&result(&other)), answer(3, &result("8")));
    assert_ne!(first, other);
}

// Log messages.

#[test]
fn a_log_message_reaches_the_one_call_that_it_can_be_of() {
    for strangers in [true, false] {
        let mut session = open_for(strangers);
        assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated), "there is no call");
        let silent = session.call(2, "7");
        assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated), "it did not ask");
        session.child(&result(&silent));
        session.listen(3, "7");
        assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated), "a subscription is no call");
        let call = session.call_with(4, Takes::Events, &logged("7"));
        assert_eq!(session.child(&log("a")), event(4, &log("a")));
        session.child(&result(&call));
        assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated), "it has its answer");
        let json = session.call_with(5, Takes::AnswerOnly, &logged("7"));
        assert_eq!(session.child(&log("a")), dropped(Dropped::NotStreamable));
        session.child(&result(&json));
    }
}

#[test]
fn a_log_message_that_may_be_of_several_calls_reaches_no_stranger_and_else_the_newest_that_asked() {
    let mut session = open_for(true);
    session.call_with(2, Takes::Events, &logged("7"));
    let other = session.call(3, "7");
    assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated));
    session.child(&result(&other));
    assert_eq!(session.child(&log("a")), event(2, &log("a")));

    let mut session = open_for(false);
    session.call_with(2, Takes::Events, &logged("7"));
    let newer = session.call_with(3, Takes::Events, &logged("7"));
    session.call_with(4, Takes::AnswerOnly, &logged("7"));
    session.call(5, "7");
    assert_eq!(session.child(&log("a")), event(3, &log("a")));
    session.child(&result(&newer));
    assert_eq!(session.child(&log("a")), event(2, &log("a")));
}

#[test]
fn a_log_message_of_a_call_whose_client_has_left_reaches_no_stranger() {
    let mut session = open_for(true);
    session.call_with(2, Takes::Events, &logged("7"));
    session.now = secs(1);
    left(&mut session, 2);
    session.call_with(3, Takes::Events, &logged("7"));
    assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated));
    session.now = secs(1) + CANCEL_GRACE;
    assert_eq!(session.child(&log("b")), event(3, &log("b")), "the child has had time to stop");
    // The same where it has timed out.
    assert_eq!(session.at(session.now + secs(100)), [unanswered(3, "7", Unanswered::Timeout)]);
    session.call_with(4, Takes::Events, &logged("7"));
    assert_eq!(session.child(&log("c")), dropped(Dropped::Unrelated));
    // A subscription has none.
    session.now += CANCEL_GRACE;
    session.listen(5, "7");
    left(&mut session, 5);
    assert_eq!(session.child(&log("d")), event(4, &log("d")));
}

#[test]
fn a_level_that_is_null_asks_for_nothing() {
    let mut session = open();
    let text = asking("7", "tools/call", r#","io.modelcontextprotocol/logLevel":null"#);
    session.call_with(2, Takes::Events, &text);
    assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated));
}

// What it must not do.

#[test]
fn what_the_child_asks_is_answered_at_once_and_reaches_nobody() {
    let mut session = open();
    session.call(2, "7");
    for id in ["7", "2", r#""ask-\u0031""#] {
        for method in ["sampling/createMessage", "elicitation/create", "roots/list", "x"] {
            assert!(matches!(session.child(&request(id, method)), Some(Output::Note(Note::Replied(_)))));
            let line = session.line();
            assert_eq!(line["error"]["code"], -32601, "{method}");
            assert_eq!(line["id"], serde_json::from_str::<Value>(id).unwrap());
        }
        assert_eq!(session.child(&request(id, "ping")), replied("ping"));
        assert_eq!(session.stdin(), [result(id)]);
    }
}

#[test]
fn an_answer_that_cannot_be_taken_ends_its_request() {
    for listens in [false, true] {
        let mut session = open();
        let name = if listens { session.listen(2, "7") } else { session.call(2, "7") };
        let head = format!(r#"{{"jsonrpc":"2.0","id":{name},"result":"#);
        assert_eq!(session.too_long(&head), [unanswered(2, "7", Unanswered::TooLong)]);
        session.assert_nothing_in_flight();
        let name = if listens { session.listen(3, "7") } else { session.call(3, "7") };
        let broken = format!(r#"{{"jsonrpc":"1.0","id":{name},"result":{{}}}}"#);
        assert!(matches!(
            &session.broken(&broken)[..],
            [Output::Unanswered { stream: StreamId(3), why: Unanswered::Invalid(_), .. }]
        ));
        session.assert_nothing_in_flight();
    }
}

// Whole sessions.

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Call { logs: bool, takes: Takes },
    Listen,
    Leave(Index),
    Answer(Index),
    Progress(Index),
    Changed(Index),
    Cancelled(Index),
    Log,
    Nameless,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), any::<bool>())
            .prop_map(|(logs, events)| Step::Call { logs, takes: takes(events) }),
        3 => Just(Step::Listen),
        3 => any::<Index>().prop_map(Step::Leave),
        6 => any::<Index>().prop_map(Step::Answer),
        3 => any::<Index>().prop_map(Step::Progress),
        3 => any::<Index>().prop_map(Step::Changed),
        1 => any::<Index>().prop_map(Step::Cancelled),
        2 => Just(Step::Log),
        1 => Just(Step::Nameless),
        2 => select(vec![0, 1, 5, 30, 200]).prop_map(Step::Wait),
    ]
}

/// A request as a test knows it; its stream is its place among all.
#[derive(Debug)]
struct Sent {
    name: String,
    listens: bool,
    logs: bool,
    open: bool,
}

/// A message of the child that says whose it is, in a member that no bridge reads.
fn marked(text: &str, stream: usize) -> String {
    text.replacen('{', &format!(r#"{{"of":{stream},"#), 1)
}

proptest! {
    #[test]
    fn whatever_happens_each_request_ends_once_and_nothing_reaches_another_client(
        steps in prop::collection::vec(any_step(), 0..100),
        max_in_flight in 1usize..6,
        dies in any::<bool>(),
        ids in select(&[Ids::counted as fn() -> Ids, || Ids::secret(3)][..]),
    ) {
        let limits = Limits { request_timeout: secs(60), max_in_flight, ids, ..LIMITS };
        let mut session = starting_with(limits, true);
        let first = serde_json::from_str::<Value>(&session.stdin().concat()).unwrap()["id"].to_string();
        session.child(&result(&first));
        let mut sent: Vec<Sent> = Vec::new();
        let mut cancelled = BTreeSet::new();
        for step in steps {
            let pick = |index: Index, sent: &[Sent]| (!sent.is_empty()).then(|| index.index(sent.len()));
            // Whose message the child has written, if it was one's.
            let mut whose = None;
            session.front.knows_tools(); // what else happens then has claims of its own
            match step {
                Step::Call { .. } | Step::Listen => {
                    let stream = sent.len() as u64;
                    let (text, takes, listens, logs) = match step {
                        Step::Call { logs, takes } => {
                            (if logs { logged("1") } else { request("1", "x") }, takes, false, logs)
                        }
                        _ => (listening("1"), Takes::Events, true, false),
                    };
                    let from = Origin {
                        stream: StreamId(stream),
                        takes,
                        arrived: session.now,
                        mirrored: Mirrored::nothing(),
                    };
                    session.front.client(message(&text), from, session.now, &mut session.out).unwrap();
                    sent.push(Sent { name: String::new(), listens, logs, open: true });
                }
                Step::Leave(index) => {
                    let Some(index) = pick(index, &sent) else { continue };
                    session.front.reader_left(StreamId(index as u64), false, session.now, &mut session.out);
                    prop_assert!(!session.out.stdin.is_empty() || !sent[index].open || sent[index].name.is_empty());
                }
                Step::Answer(index) | Step::Progress(index) | Step::Changed(index) | Step::Cancelled(index) => {
                    let Some(index) = pick(index, &sent).filter(|index| !sent[*index].name.is_empty()) else { continue };
                    let name = &sent[index].name;
                    let text = match step {
                        Step::Answer(_) => ended(name),
                        Step::Progress(_) => progress(name, 1),
                        Step::Changed(_) => of_subscription("notifications/tools/list_changed", name),
                        _ => cancel(name),
                    };
                    session.is_message(&marked(&text, index));
                    whose = Some(index);
                }
                Step::Log => {
                    let at_work: Vec<_> = (0..sent.len())
                        .filter(|index| sent[*index].open && !sent[*index].listens)
                        .collect();
                    session.is_message(&log("x"));
                    whose = at_work.first().copied().filter(|_| at_work.len() == 1);
                }
                Step::Nameless => { session.is_message(&error("null")); }
                Step::Wait(seconds) => {
                    session.now += secs(seconds);
                    session.front.expire(session.now, &|_| Readership::Present, &mut session.out);
                }
            }
            for line in session.stdin() {
                let line: Value = serde_json::from_str(&line).unwrap();
                match line["method"].as_str().unwrap() {
                    "notifications/cancelled" => {
                        let name = line["params"]["requestId"].to_string();
                        prop_assert!(sent.iter().any(|sent| sent.name == name && sent.open));
                        prop_assert!(cancelled.insert(name), "once");
                    }
                    _ => {
                        let name = line["id"].to_string();
                        prop_assert!(sent.iter().all(|sent| sent.name != name), "no id is used twice");
                        sent.last_mut().unwrap().name = name;
                    }
                }
            }
            let ends = |sent: &mut Vec<Sent>, stream: StreamId, id: Option<&Id>| {
                let sent = &mut sent[stream.0 as usize];
                assert!(std::mem::replace(&mut sent.open, false), "it ends once");
                assert_eq!(id.map(Id::as_json), Some("1"));
            };
            for output in session.outputs() {
                match output {
                    Output::Answer { stream, message: text, .. } => {
                        let text = String::from_utf8(text.to_vec()).unwrap();
                        if let Some(whose) = whose {
                            prop_assert_eq!(stream.0 as usize, whose);
                        }
                        ends(&mut sent, stream, message(&text).id());
                    }
                    Output::Unanswered { stream, id, .. } => ends(&mut sent, stream, Some(&id.0)),
                    Output::Message { stream, message } => {
                        let text = String::from_utf8(message.to_vec()).unwrap();
                        let index = stream.0 as usize;
                        prop_assert_eq!(Some(index), whose, "it is of this request: {}", text);
                        prop_assert!(sent[index].open, "which has not ended");
                        let is_log = text.contains("notifications/message");
                        prop_assert!(!is_log || sent[index].logs, "it asked");
                        prop_assert_eq!(text.contains("subscriptionId"), sent[index].listens);
                    }
                    Output::Note(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            let open = |listens| sent.iter().filter(|sent| sent.open && sent.listens == listens).count();
            prop_assert_eq!(session.front.in_flight(), open(false));
            prop_assert_eq!(session.front.is_listening(), open(true) > 0);
            prop_assert!(open(false) <= max_in_flight && open(true) <= max_in_flight);
            session.front.check();
        }
        if !dies {
            session.front.farewell(&mut session.out);
            for output in session.outputs() {
                let Output::Answer { stream, success: true, .. } = output else { panic!("{output:?}") };
                prop_assert!(std::mem::replace(&mut sent[stream.0 as usize].open, false));
            }
        }
        for (stream, _) in session.front.abandon() {
            prop_assert!(std::mem::replace(&mut sent[stream.0 as usize].open, false), "it ends once");
        }
        prop_assert!(sent.iter().all(|sent| !sent.open), "each request that was taken has its end");
        session.assert_nothing_in_flight();
    }

    #[test]
    fn no_line_of_a_child_makes_it_panic_and_no_request_is_lost(
        lines in prop::collection::vec(
            prop_oneof![
                "\\PC{0,60}",
                any_text(&[r#""jsonrpc":"2.0""#]),
                any_text(&[r#""jsonrpc":"2.0""#, r#""id":2"#]),
                any_text(&[r#""jsonrpc":"2.0""#, r#""id":3"#, r#""result":{"_meta":{"io.modelcontextprotocol/subscriptionId":3}}"#]),
                any_text(&[r#""jsonrpc":"2.0""#, r#""method":"notifications/x""#, r#""params":{"_meta":{"io.modelcontextprotocol/subscriptionId":3}}"#]),
            ],
            0..8,
        ),
    ) {
        let mut session = open();
        session.call(2, "7");
        session.listen(3, "7");
        let mut ended = 0;
        for line in lines {
            session.is_message(&line);
            session.too_long(&line).iter().for_each(|output| {
                ended += usize::from(matches!(output, Output::Unanswered { .. } | Output::Answer { .. }));
            });
        }
        prop_assert_eq!(ended + session.front.abandon().len(), 2);
        session.assert_nothing_in_flight();
    }
}
