//! The rules of both eras, one claim each (2026-07-28 `basic`, `server`; 2025-11-25 `basic/lifecycle`).

use super::*;
use crate::proto::nearly::{Part, look};

// The handshake.

#[test]
fn initialize_asks_the_child_to_discover_itself_and_says_who_asks() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-06-18", DECLARED));
    // This revision has no elicitation of URLs.
    assert_eq!(session.stdin(), [raised("1", "server/discover", "").replace(r#","url":{}"#, "")]);
    let told = session.says(&discovered("1", CAPABILITIES));
    let want = format!(
        r#"{{"jsonrpc":"2.0","id":"init","result":{{"protocolVersion":"2025-06-18","capabilities":{CAPABILITIES},"serverInfo":{{"name":"s","version":"1"}},"instructions":"Ask \"me\"."}}}}"#
    );
    assert_eq!(told, answered(1, &want));
    assert_eq!(session.handshake, Some(Handshake::Done(Some("2025-06-18".into()))));
    assert!(session.stdin().is_empty());
    session.assert_empty();
}

#[test]
fn the_revision_decides_the_form_of_the_answer_and_so_comes_first() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-06-18", "{}"));
    session.is_message(&discovered("1", "{}"));
    assert!(matches!(session.out.take(), Some(Output::Handshake(Handshake::Done(Some(_))))));
    assert!(matches!(session.out.take(), Some(Output::Answer { success: true, .. })));
}

#[test]
fn the_session_has_the_revision_that_its_client_asks_for_if_it_is_one_of_sessions() {
    let table = [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
        ("", "2025-11-25"),
    ];
    for (asked, want) in table {
        let mut session = Harness::starting(DOWNGRADED, &initialize(asked, "{}"));
        let told = session.says(&discovered("1", "{}"));
        assert_eq!(session.handshake, Some(Handshake::Done(Some(want.into()))), "{asked}");
        let [Output::Answer { message, .. }] = &told[..] else { panic!("{told:?}") };
        let message: Value = serde_json::from_slice(message).unwrap();
        assert_eq!(message["result"]["protocolVersion"], want, "{asked}");
    }
    let mut session = Harness::starting(DOWNGRADED, &request("\"init\"", "initialize"));
    session.says(&discovered("1", "{}"));
    assert_eq!(session.handshake, Some(Handshake::Done(Some("2025-11-25".into()))), "one that asks for none");
}

#[test]
fn a_child_that_says_little_or_nonsense_of_itself_is_a_server_all_the_same() {
    let versions = r#""supportedVersions":["x",7,"2026-07-28"]"#;
    let table = [
        (String::new(), "{}"),
        (
            r#","capabilities":[],"instructions":7,"_meta":{"io.modelcontextprotocol/serverInfo":"s"}"#
                .to_owned(),
            "{}",
        ),
        (
            r#","capabilities":{"extensions":{"x":{}},"tasks":{},"a" : { "tasks":1e400}},"resultType":null"#
                .to_owned(),
            r#"{"a":{ "tasks":1e400}}"#,
        ),
    ];
    for (more, capabilities) in table {
        let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", "{}"));
        let want = format!(
            r#"{{"jsonrpc":"2.0","id":"init","result":{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"serverInfo":{{"name":"mcp-server","version":"unknown"}}}}}}"#
        );
        let line = child_result("1", &format!("{versions}{more}"));
        assert_eq!(session.says(&line), answered(1, &want), "{more}");
        assert!(session.is_open());
    }
}

#[test]
fn a_greeting_may_stand_on_several_lines_and_its_parts_are_sent_on_one() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", "{}"));
    let told = session.says("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"supportedVersions\":[\r\"2026-07-28\"],\"capabilities\":{\r\"tools\":\r{}}}}");
    let [Output::Answer { message, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(!message.contains(&b'\r'), "{message:?}");
}

#[test]
fn a_child_that_refuses_or_speaks_another_revision_refuses_the_session() {
    let none = failure(
        "\"init\"",
        -32603,
        "invalid_response",
        "The server has answered server/discover and does not support 2026-07-28",
    );
    let table = [
        (error("1"), error("\"init\"")),
        (
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"no","data":[1]}}"#.to_owned(),
            r#"{"jsonrpc":"2.0","id":"init","error":{"code":-32603,"message":"no","data":[1]}}"#.to_owned(),
        ),
        (child_result("1", ""), none.clone()),
        (child_result("1", r#""supportedVersions":["2027-01-01"]"#), none.clone()),
        (child_result("1", r#""supportedVersions":"2026-07-28""#), none.clone()),
        (child_result("1", r#""resultType":"task","supportedVersions":["2026-07-28"]"#), none),
    ];
    for (line, want) in table {
        let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", "{}"));
        assert_eq!(session.says(&line), answered(1, &want), "{line}");
        assert!(session.refused(), "{line}");
        session.assert_empty();
    }
}

#[test]
fn an_answer_to_discover_that_nobody_can_take_ends_the_session() {
    let begun = || Harness::starting(DOWNGRADED, &initialize("2025-11-25", "{}"));
    let mut session = begun();
    let told = session.too_long(r#"{"jsonrpc":"2.0","id":1,"result":{"#);
    assert_eq!(told, [unanswered(1, "\"init\"", Unanswered::TooLong)]);
    assert!(session.refused());
    let mut session = begun();
    let line = r#"{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}"#;
    let parts = look(line).parts;
    let Some(Part::Broken(broken)) = parts.first() else { panic!("it is broken") };
    assert!(session.front.child_broken(broken, &mut session.out));
    assert!(matches!(session.outputs()[..], [Output::Unanswered { why: Unanswered::Invalid(_), .. }]));
    assert!(matches!(session.handshake, Some(Handshake::Invalid(_))));
    let mut session = begun();
    assert_eq!(session.at(DOWNGRADED.init_timeout), [Output::Handshake(Handshake::TimedOut)]);
    assert_eq!(session.front.abandon(), [(StreamId(1), client_id("\"init\""))]);
    session.assert_empty();
}

#[test]
fn what_comes_early_waits_for_the_handshake() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", DECLARED));
    session.stdin();
    assert_eq!(session.send(2, &request("7", "ping")), answered(2, &result("7")), "the bridge answers that");
    assert_eq!(session.send(3, &request("8", "tools/list")), []);
    assert_eq!(session.send(4, &with("9", "logging/setLevel", r#""level":"info""#)), []);
    assert_eq!(session.send(5, &with("10", "resources/subscribe", r#""uri":"u""#)), []);
    assert_eq!(session.front.in_flight(), 4);
    assert!(session.stdin().is_empty());
    let outputs = session.says(&discovered("1", CAPABILITIES));
    assert!(matches!(outputs[..], [Output::Answer { stream: StreamId(1), .. }, _]), "{outputs:?}");
    assert_eq!(outputs[1], answer(4, &result("9")).unwrap());
    let listen = r#""notifications":{"resourceSubscriptions":["u"]}"#;
    let want = [
        raised("2", "tools/list", ""),
        with("3", "subscriptions/listen", &format!(r#""_meta":{{{META}}},{listen}"#)),
    ];
    assert_eq!(session.stdin(), want);
}

#[test]
fn initialized_goes_no_further_however_it_is_said() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", "{}"));
    session.stdin();
    session.send(2, &note("notifications/initialized"));
    session.says(&discovered("1", "{}"));
    session.send(2, &note("notifications/initialized"));
    let as_request = session.send(3, &request("7", "notifications/initialized"));
    assert_eq!(as_request, answered(3, &result("7")));
    assert!(session.stdin().is_empty());
    let again = session.sent(4, Takes::Events, &initialize("2025-11-25", "{}"));
    assert_eq!(again, Err(Refusal::AlreadyInitialized(client_id("\"init\""))));
}

// Requests.

#[test]
fn each_request_says_who_asks_and_keeps_its_arguments_byte_for_byte() {
    let mut session = Harness::open();
    let arguments = r#""arguments" : { "n" : 1e400, "n" : 12345678901234567890 }"#;
    session.send(3, &with("\"\\u0061\"", "tools/call", arguments));
    assert_eq!(session.stdin(), [with("2", "tools/call", &format!(r#""_meta":{{{META}}},{arguments}"#))]);
    let told = session.says(&child_result(
        "2",
        &format!(r#""resultType":"complete","content":[ 1e400 ],"_meta":{{{SERVER}}}"#),
    ));
    assert_eq!(told, answered(3, &child_result("\"\\u0061\"", r#""content":[ 1e400 ]"#)));
    session.send(3, &request("7", "x/unknown"));
    assert_eq!(session.stdin(), [raised("3", "x/unknown", "")], "without parameters, too");
    assert_eq!(session.says(&child_result("3", "")), answered(3, &child_result("7", "")));
    session.assert_empty();
}

#[test]
fn a_request_whose_parameters_are_no_object_is_answered_with_an_error() {
    let mut session = Harness::open();
    let list = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":[1]}"#;
    let want = failure("7", -32602, "invalid_params", "\"params\" must be an object");
    assert_eq!(session.send(3, list), answered(3, &want));
    assert!(session.stdin().is_empty());
    session.assert_empty();
}

#[test]
fn what_such_a_child_does_not_have_the_bridge_answers_itself() {
    let mut session = Harness::open();
    assert_eq!(session.send(3, &request("7", "ping")), answered(3, &result("7")));
    for method in ["tasks/get", "tasks/list", "server/discover", "subscriptions/listen", "notifications/x"] {
        let want = failure("7", -32601, "method_not_found", &format!("Method not found: {method}"));
        assert_eq!(session.send(3, &request("7", method)), answered(3, &want));
    }
    for method in ["notifications/roots/list_changed", "notifications/x"] {
        assert!(matches!(session.send(3, &note(method))[..], [Output::Note(Note::Swallowed(_))]), "{method}");
    }
    session.send(3, &progress("\"mcp-bridge-1\"", 1));
    assert!(session.stdin().is_empty());
    session.assert_empty();
}

#[test]
fn an_id_in_flight_is_not_taken_twice_wherever_its_request_is() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", DECLARED));
    let duplicate = |session: &mut Harness<Downgrade>, id: &str| {
        let fate = session.sent(9, Takes::Events, &request(id, "tools/list"));
        assert_eq!(fate, Err(Refusal::DuplicateId(client_id(id))));
    };
    duplicate(&mut session, "\"init\"");
    session.send(3, &with("6", "logging/setLevel", r#""level":"info""#));
    duplicate(&mut session, "6");
    session.says(&discovered("1", CAPABILITIES));
    session.stdin();
    let id = session.passed(3, &tool("7"));
    duplicate(&mut session, "7");
    session.says(&asks(&id, &form("k"), ""));
    duplicate(&mut session, "7");
    session.send(3, &accept(1));
    let id = session.seen();
    duplicate(&mut session, "7");
    session.says(&child_result(&id, ""));
    session.passed(3, &tool("7"));
}

#[test]
fn what_is_in_flight_is_bounded_and_what_the_client_is_asked_for_counts() {
    let mut session =
        Harness::greeted(Limits { max_in_flight: 2, ..LIMITS }, "2025-11-25", DECLARED, CAPABILITIES);
    session.stdin();
    let id = session.passed(3, &tool("7"));
    session.says(&asks(&id, &form("k"), ""));
    session.send(4, &with("8", "resources/subscribe", r#""uri":"u""#));
    for method in ["tools/list", "logging/setLevel"] {
        assert_eq!(session.send(5, &request("9", method)), [unanswered(5, "9", Unanswered::Overload)]);
    }
    assert_eq!(session.send(5, &request("9", "ping")), answered(5, &result("9")));
    session.send(3, &accept(1));
    assert_eq!(session.front.in_flight(), 2, "the same call goes on");
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_child_and_ends_with_its_answer_or_after_the_grace() {
    let mut session = Harness::open();
    let id = session.passed(3, &tool("7"));
    assert_eq!(session.send(4, &cancel("7")), []);
    assert_eq!(session.stdin(), [cancel(&id)]);
    assert_eq!(session.says(&child_result(&id, r#""a":1"#)), answered(3, &child_result("7", r#""a":1"#)));
    let id = session.passed(3, &tool("7"));
    session.send(4, &cancel("7"));
    assert_eq!(session.pass(CANCEL_GRACE), [unanswered(3, "7", Unanswered::Cancelled)]);
    assert_eq!(session.says(&asks(&id, &form("k"), "")), [dropped(Dropped::Late).unwrap()]);
    let id = session.passed(3, &tool("7"));
    session.send(4, &cancel("7"));
    let told = session.says(&asks(&id, &form("k"), ""));
    assert_eq!(told, [unanswered(3, "7", Unanswered::Cancelled)], "nobody is asked for it");
    for unknown in ["8", "\"7\"", "null", "{}"] {
        assert!(matches!(session.send(4, &cancel(unknown))[..], [Output::Note(Note::Swallowed(_))]));
    }
    session.assert_empty();
}

#[test]
fn initialize_is_not_cancelled() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", "{}"));
    session.stdin();
    let told = session.send(2, &cancel("\"init\""));
    assert_eq!(told, [Output::Note(Note::Swallowed("initialize cannot be cancelled"))]);
    assert!(session.stdin().is_empty());
}

#[test]
fn a_call_that_waits_for_the_handshake_is_cancelled_at_once() {
    let mut session = Harness::starting(DOWNGRADED, &initialize("2025-11-25", "{}"));
    session.send(2, &tool("7"));
    session.send(3, &with("8", "resources/subscribe", r#""uri":"u""#));
    assert_eq!(session.send(4, &cancel("7")), [unanswered(2, "7", Unanswered::Cancelled)]);
    assert_eq!(session.send(4, &cancel("8")), [unanswered(3, "8", Unanswered::Cancelled)]);
    session.says(&discovered("1", CAPABILITIES));
    session.assert_empty();
}

#[test]
fn a_call_has_its_time_from_its_arrival_and_its_child_is_told() {
    let mut session = Harness::open();
    let id = session.passed(3, &tool("7"));
    assert_eq!(session.pass(DOWNGRADED.request_timeout), [unanswered(3, "7", Unanswered::Timeout)]);
    let [line] = &session.stdin()[..] else { panic!("one line") };
    assert!(line.contains(&format!(r#""requestId":{id}"#)));
    session.assert_empty();
}

#[test]
fn an_answer_that_nobody_can_take_ends_its_call() {
    let mut session = Harness::open();
    let id = session.passed(3, &tool("7"));
    let told = session.too_long(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"#));
    assert_eq!(told, [unanswered(3, "7", Unanswered::TooLong)]);
    let id = session.passed(3, &tool("7"));
    let told = session.broken(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":NaN}}"#));
    assert!(matches!(told[..], [Output::Unanswered { why: Unanswered::Invalid(_), .. }]), "{told:?}");
    session.assert_empty();
}

// Results and errors.

#[test]
fn a_result_of_a_type_that_the_client_does_not_know_is_an_error() {
    let mut session = Harness::open();
    let id = session.passed(3, &tool("7"));
    let told = session.says(&child_result(&id, r#""resultType":"task","taskId":"x""#));
    let why = "The server has answered with a result that the client does not know: \"task\"";
    assert_eq!(told, answered(3, &failure("7", -32603, "invalid_response", why)));
    let id = session.passed(3, &request("7", "tools/list"));
    let told = session.says(&asks(&id, &form("k"), ""));
    let why = "The server needs something of the client for a request that has no room for it";
    assert_eq!(told, answered(3, &unserved("7", why)));
    session.assert_empty();
}

#[test]
fn a_resource_that_is_not_there_has_the_code_of_the_session_era() {
    let refuse = |params: &str, method: &str| {
        let mut session = Harness::open();
        let id = session.passed(3, &with("7", method, params));
        let error = |id: &str, code: i64| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"}}}}"#)
        };
        let told = session.says(&error(&id, -32602));
        [-32602, -32002].into_iter().find(|code| told == answered(3, &error("7", *code))).unwrap()
    };
    assert_eq!(refuse(r#""uri":"u""#, "resources/read"), -32002);
    assert_eq!(refuse(r#""uri":7"#, "resources/read"), -32602, "here the parameters are what is wrong");
    assert_eq!(refuse("", "resources/read"), -32602);
    assert_eq!(refuse(r#""uri":"u""#, "prompts/get"), -32602);
}

// What the child says unasked.

#[test]
fn progress_goes_to_its_call_with_the_clients_own_token() {
    let mut session = Harness::open();
    let id = session.passed(3, &call("7", "\"p\""));
    assert_eq!(session.says(&progress("\"p\"", 1)), events(3, &[progress("\"p\"", 1)]));
    assert_eq!(session.says(&progress(&id, 2)), events(3, &[progress("\"p\"", 2)]), "the request's own id");
    session.says(&child_result(&id, ""));
    let id = session.passed(4, &tool("7"));
    assert_eq!(session.says(&progress(&id, 3)), events(4, &[progress("7", 3)]), "where it has named none");
    assert_eq!(session.says(&progress("\"p\"", 4)), events(LISTENING, &[progress("\"p\"", 4)]));
    session.says(&child_result(&id, ""));
    session.sent(5, Takes::AnswerOnly, &call("8", "9")).unwrap();
    assert_eq!(session.says(&progress("9.0", 5)), [dropped(Dropped::NotStreamable).unwrap()]);
}

#[test]
fn a_log_line_goes_to_the_newest_call_that_can_take_it_or_to_who_listens() {
    let mut session = Harness::open();
    let line = note("notifications/message");
    let on = |session: &mut Harness<Downgrade>| {
        let told = session.says(&line);
        let [Output::Message { stream, .. }] = told[..] else { panic!("{told:?}") };
        stream.0
    };
    assert_eq!(on(&mut session), LISTENING);
    session.passed(3, &tool("7"));
    session.passed(4, &tool("8"));
    assert_eq!(on(&mut session), 4);
    session.leave(4, true);
    assert_eq!(on(&mut session), 3);
    session.leave(3, true);
    session.resumable.insert(3);
    assert_eq!(on(&mut session), 3, "its client can come back for it");
    session.live.insert(LISTENING);
    assert_eq!(on(&mut session), LISTENING);
}

#[test]
fn the_level_is_said_with_each_request_from_when_it_is_set() {
    let mut session = Harness::open();
    let set = |id: &str, level: &str| with(id, "logging/setLevel", &format!(r#""level":"{level}""#));
    assert_eq!(session.send(3, &set("7", "error")), answered(3, &result("7")));
    assert!(session.stdin().is_empty(), "the child is told with the next request");
    session.send(3, &request("8", "tools/list"));
    let level = format!(r#""_meta":{{{META},"io.modelcontextprotocol/logLevel":"error"}}"#);
    assert_eq!(session.stdin(), [with("2", "tools/list", &level)]);
    let told = session.send(4, &set("9", "Error"));
    assert!(
        matches!(&told[..], [Output::Answer { message, success: false, .. }] if message.windows(6).any(|part| part == b"-32602"))
    );
    for params in ["", r#""level":7"#] {
        let told = session.send(4, &with("9", "logging/setLevel", params));
        assert!(matches!(told[..], [Output::Answer { success: false, .. }]), "{params}");
    }
    let mut session = Harness::greeted(DOWNGRADED, "2025-11-25", DECLARED, "{}");
    let want = failure("7", -32601, "method_not_found", "Method not found: logging/setLevel");
    assert_eq!(session.send(3, &set("7", "error")), answered(3, &want), "such a child logs nothing");
    session.assert_empty();
}

#[test]
fn a_child_that_asks_is_answered_by_the_bridge() {
    let mut session = Harness::open();
    session.says(&request("7", "ping"));
    assert_eq!(session.stdin(), [result("7")]);
    session.says(&request("8", "roots/list"));
    let [line] = &session.stdin()[..] else { panic!("one line") };
    assert!(line.contains("-32601"));
}

#[test]
fn an_unknown_notification_reaches_who_listens() {
    let mut session = Harness::open();
    assert_eq!(session.says(&note("notifications/x")), events(LISTENING, &[note("notifications/x")]));
}

// Another child.

fn respawning(capabilities: &str) -> Harness<Downgrade> {
    let mut session =
        Harness::greeted(Limits { respawn: true, ..DOWNGRADED }, "2025-11-25", DECLARED, capabilities);
    session.stdin();
    session
}

#[test]
fn a_new_child_is_asked_as_the_first_one_was_and_level_and_subscriptions_are_what_they_were() {
    let capabilities = r#"{"logging":{},"tools":{"listChanged":true},"resources":{"subscribe":true}}"#;
    let mut session = respawning(capabilities);
    assert!(session.front.can_restart());
    session.send(3, &with("7", "logging/setLevel", r#""level":"info""#));
    session.send(3, &with("8", "resources/subscribe", r#""uri":"u""#));
    let listen = session.seen();
    let told = session.says(&acknowledged(&listen, r#""resourceSubscriptions":["u"]"#));
    assert_eq!(told, answered(3, &result("8")));
    session.passed(4, &tool("9"));
    let id = session.passed(5, &tool("10"));
    session.says(&asks(&id, &form("k"), "\"s\""));
    session.send(6, &with("11", "resources/subscribe", r#""uri":"v""#));
    session.send(7, &with("12", "resources/unsubscribe", r#""uri":"v""#));
    session.stdin();
    let mut lost = session.front.child_lost();
    lost.sort_by_key(|(stream, _)| *stream);
    assert_eq!(lost, [(StreamId(4), client_id("9")), (StreamId(6), client_id("11"))]);
    session.front.check();
    session.out.clear();
    assert_eq!(session.send(8, &request("13", "tools/list")), []);
    session.front.restart(session.now, &mut session.out);
    let id = session.line();
    assert_eq!(id["method"], "server/discover");
    let told = session.says(&discovered(&id["id"].to_string(), capabilities));
    assert_eq!(told, [], "the client has opened its session already");
    assert!(session.is_open());
    let lines = session.stdin();
    let methods: Vec<String> = lines
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", line["method"].as_str().unwrap(), line["params"]["notifications"])
        })
        .collect();
    let want = [
        "tools/list null",
        r#"subscriptions/listen {"toolsListChanged":true}"#,
        r#"subscriptions/listen {"resourceSubscriptions":["u"]}"#,
    ];
    assert_eq!(methods, want);
    assert!(lines[0].contains(r#"logLevel":"info""#));
    assert_eq!(session.send(9, &accept(1)), [], "what the client was asked for goes on");
    let again = session.line();
    assert_eq!(again["params"]["requestState"], "s");
}

#[test]
fn a_new_child_that_does_not_serve_ends_the_session() {
    let mut session = respawning("{}");
    session.front.child_lost();
    session.front.restart(session.now, &mut session.out);
    let id = session.seen();
    assert_eq!(session.says(&child_result(&id, r#""supportedVersions":[]"#)), []);
    assert!(session.refused());
}

#[test]
fn a_session_that_is_not_to_outlive_its_child_does_not() {
    assert!(!Harness::open().front.can_restart());
}

// The end.

#[test]
fn at_the_end_the_child_hears_no_more_and_each_request_is_given_back() {
    let mut session = Harness::greeted(
        DOWNGRADED,
        "2025-11-25",
        DECLARED,
        r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#,
    );
    let lists = session.stdin().len();
    assert_eq!(lists, 2, "server/discover and a subscription");
    let id = session.passed(3, &tool("7"));
    session.says(&asks(&id, &form("k"), ""));
    session.passed(4, &tool("8"));
    session.send(5, &with("9", "resources/subscribe", r#""uri":"u""#));
    session.stdin();
    session.front.farewell(&mut session.out);
    assert_eq!(session.outputs(), events(3, &[taken_back(1, "the session ends")]));
    assert_eq!(session.stdin(), [withdrawn("2"), withdrawn("5")]);
    session.front.check();
    let mut left = session.front.abandon();
    left.sort_by_key(|(stream, _)| *stream);
    assert_eq!(left, [(3, "7"), (4, "8"), (5, "9")].map(|(stream, id)| (StreamId(stream), client_id(id))));
    session.assert_empty();
    assert_eq!(session.front.next_deadline(), None);
}
