//! The rules of both eras, one claim each (2026-07-28 `basic`, `server`).

use super::*;
use crate::proto::link::OWN_LIMIT;

// What the child has said of itself.

#[test]
fn the_child_is_greeted_by_the_bridge_and_told_initialized_once() {
    let mut session = Harness::upgrade(UPGRADED, STRANGERS);
    let [line] = &session.stdin()[..] else { panic!("one line") };
    let want = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"2025-11-25","capabilities":{{"elicitation":{{"form":{{}},"url":{{}}}},"sampling":{{"tools":{{}}}},"roots":{{}}}},"clientInfo":{{"name":"mcp-bridge","version":"{}"}}}}}}"#,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(*line, want);
    assert_eq!(session.says(&greeting("{}")), [], "no client has asked for it");
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
}

/// What a client is told that discovers a child with these capabilities.
fn discovered(id: &str, capabilities: &str) -> String {
    child_result(
        id,
        &format!(
            r#""resultType":"complete","_meta":{{{SERVER}}},"ttlMs":0,"cacheScope":"private","supportedVersions":["2026-07-28","2025-06-18"],"capabilities":{capabilities},"instructions":"Ask \"me\".""#
        ),
    )
}

#[test]
fn discover_is_answered_from_the_handshake_and_the_child_does_not_see_it() {
    let capabilities = r#"{"logging":{},"tools":{"listChanged":true},"x":{"n":1e400}}"#;
    let mut session = Harness::greeted(UPGRADED, STRANGERS, capabilities);
    for id in ["7", "\"\\u0061\"", "-0"] {
        let told = session.send(2, &Ask::new(id, "server/discover"));
        assert_eq!(told, [answer(2, &discovered(id, capabilities)).unwrap()]);
    }
    assert!(session.stdin().is_empty());
    session.assert_empty();
}

#[test]
fn discover_waits_for_the_handshake_and_each_client_gets_its_own_id() {
    let mut session = Harness::upgrade(Limits { max_in_flight: 3, ..UPGRADED }, STRANGERS);
    session.stdin();
    for (stream, id) in [(2, "7"), (3, "7"), (4, "\"a\"")] {
        assert_eq!(session.send(stream, &Ask::new(id, "server/discover")), []);
    }
    assert_eq!(session.front.in_flight(), 3);
    let full = session.send(5, &Ask::new("9", "server/discover"));
    assert_eq!(full, [unanswered(5, "9", Unanswered::Overload)], "what waits is bounded");
    assert_eq!(session.leave(3), [unanswered(3, "7", Unanswered::Cancelled)], "it does not come back");
    let told = session.says(&greeting("{}"));
    let want = [(2, "7"), (4, "\"a\"")].map(|(stream, id)| answer(stream, &discovered(id, "{}")).unwrap());
    assert_eq!(told, want);
    session.assert_empty();
}

#[test]
fn what_is_no_part_of_the_new_revision_is_not_discovered() {
    let capabilities = r#"{"tasks":{"list":{}},"tools":{},"experimental":{"tasks":1}}"#;
    let mut session = Harness::greeted(UPGRADED, STRANGERS, capabilities);
    let told = session.send(2, &Ask::new("7", "server/discover"));
    let want = discovered("7", r#"{"tools":{},"experimental":{"tasks":1}}"#);
    assert_eq!(told, [answer(2, &want).unwrap()]);
}

#[test]
fn a_child_that_says_little_or_nonsense_of_itself_is_discovered_all_the_same() {
    let members = [
        "",
        r#""capabilities":[],"serverInfo":"s","instructions":7,"protocolVersion":{}"#,
        r#""capabilities":null,"serverInfo":null,"instructions":null,"protocolVersion":null"#,
    ];
    for members in members {
        let mut session = Harness::upgrade(UPGRADED, STRANGERS);
        session.says(&child_result("1", members));
        let told = session.send(2, &Ask::new("7", "server/discover"));
        let want = r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","supportedVersions":["2026-07-28"],"capabilities":{}}}"#;
        assert_eq!(told, [answer(2, want).unwrap()], "{members}");
        let wire = session.passed(3, &Ask::tool("8"));
        let told = session.says(&child_result(&wire, ""));
        let want = child_result("8", r#""resultType":"complete""#);
        assert_eq!(told, [answer(3, &want).unwrap()], "{members}: a server without a name has none");
    }
}

#[test]
fn a_greeting_may_stand_on_several_lines_and_its_parts_are_sent_on_one() {
    let mut session = Harness::upgrade(UPGRADED, STRANGERS);
    session.says("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"capabilities\":{\r\n\"tools\":\n{}},\"serverInfo\":{\n}}}");
    let told = session.send(2, &Ask::new("7", "server/discover"));
    let [Output::Answer { message, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(!message.contains(&b'\n') && !message.contains(&b'\r'), "{message:?}");
    assert!(serde_json::from_slice::<Value>(message).is_ok(), "{message:?}");
}

#[test]
fn a_handshake_that_fails_ends_all_that_waited_for_it() {
    let begun = || {
        let mut session = Harness::upgrade(UPGRADED, STRANGERS);
        session.send(2, &Ask::new("7", "server/discover"));
        session.send(3, &Ask::tool("8"));
        session.send(4, &Ask::new("9", "prompts/list"));
        session
    };
    let left = |mut session: Harness<Upgrade>| {
        let mut left = session.front.abandon();
        left.sort_by_key(|(stream, _)| *stream);
        let want = [(2, "7"), (3, "8"), (4, "9")].map(|(stream, id)| (StreamId(stream), client_id(id)));
        assert_eq!(left, want);
        session.assert_empty();
    };
    let mut session = begun();
    session.says(&error("1"));
    assert!(session.refused());
    left(session);
    let mut session = begun();
    assert_eq!(session.at(UPGRADED.init_timeout), [Output::Handshake(Handshake::TimedOut)]);
    left(session);
    let mut session = begun();
    let long = "x".repeat(MAX_GREETING);
    session.says(&child_result("1", &format!(r#""instructions":"{long}""#)));
    assert!(session.refused(), "what is too long to be kept");
    left(session);
}

// Requests.

#[test]
fn a_request_reaches_the_child_under_another_id_and_without_what_its_era_does_not_know() {
    let mut session = Harness::shared(STRANGERS);
    let table = [
        (Ask::tool("7"), r#""method":"tools/call","params":{"name":"t"}"#),
        (Ask::new("\"a\"", "prompts/list"), r#""method":"prompts/list","params":{}"#),
        (
            Ask::new("7", "completion/complete").with(r#""ref" : {"n":1e400, "n":2}"#),
            r#""method":"completion/complete","params":{"ref":{"n":1e400, "n":2}}"#,
        ),
        (
            Ask::tool("7").meta(r#""traceparent":"00-1""#).meta(r#""io.modelcontextprotocol.x/y":1"#),
            r#""method":"tools/call","params":{"name":"t","_meta":{"traceparent":"00-1","io.modelcontextprotocol.x/y":1}}"#,
        ),
        (Ask::new("7", "x/of-tomorrow"), r#""method":"x/of-tomorrow","params":{}"#),
        (
            Ask::tool("7").with(r#""inputResponses":{"a":{}}"#),
            r#""method":"tools/call","params":{"name":"t"}"#,
        ),
        (
            Ask::new("7", "tools/list").with(r#""requestState":"s","inputResponses":{}"#),
            r#""method":"tools/list","params":{}"#,
        ),
    ];
    for (number, (ask, want)) in table.into_iter().enumerate() {
        assert_eq!(session.send(2 + number as u64, &ask), []);
        let want = format!(r#"{{"jsonrpc":"2.0","id":{},{want}}}"#, number + 2);
        assert_eq!(session.stdin(), [want]);
    }
}

#[test]
fn a_request_of_several_lines_reaches_the_child_on_one() {
    let mut session = Harness::shared(STRANGERS);
    assert_eq!(session.send(2, &Ask::tool("7").with("\n\"a\"\r\n:[1,\n2]")), []);
    let want = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t","a":[1, 2]}}"#;
    assert_eq!(session.stdin(), [want]);
}

#[test]
fn what_the_new_revision_has_no_more_is_refused_and_the_child_does_not_see_it() {
    let mut session = Harness::shared(STRANGERS);
    let removed = [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/x",
        "tasks/get",
        "tasks/result",
        "tasks/list",
        "tasks/cancel",
    ];
    for method in removed {
        let told = session.send(2, &Ask::new("7", method));
        assert_eq!(told, [declined(2, "7", Declined::Method)], "{method}");
    }
    assert!(session.stdin().is_empty());
    session.assert_empty();
}

#[test]
fn a_notification_of_a_client_is_taken_and_cancels_nobodys_request() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::tool("7"));
    for text in [note("x"), note("notifications/initialized"), crate::proto::testing::cancel("7")] {
        session.swallowed(&text);
    }
    assert!(session.stdin().is_empty());
    assert_eq!(session.says(&child_result(&wire, "")), [answer(2, &complete("7", "")).unwrap()]);
}

#[test]
fn a_response_of_a_client_is_refused() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "?"));
    let fate = session.unchanged(|session| session.post(9, Takes::Events, &child_result("1", "")));
    assert_eq!(fate, Err(Refusal::UnknownResponse), "no client injects answers");
}

#[test]
fn parameters_that_are_no_object_are_refused() {
    let mut session = Harness::shared(STRANGERS);
    for params in ["[]", "7", "\"x\"", "null"] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"prompts/get","params":{params}}}"#);
        let told = session.post(2, Takes::Events, &text).unwrap();
        let why = Declined::Params("\"params\" must be an object");
        assert_eq!(told, Some(declined(2, "7", why)), "{params}");
    }
    session.assert_empty();
}

#[test]
fn a_request_too_many_is_told_so_and_a_place_is_free_again_with_each_end() {
    let mut session = Harness::greeted(Limits { max_in_flight: 2, ..UPGRADED }, STRANGERS, CAPABILITIES);
    let wire = session.passed(2, &Ask::tool("7"));
    session.passed(3, &Ask::tool("7"));
    assert_eq!(session.send(4, &Ask::tool("7")), [unanswered(4, "7", Unanswered::Overload)]);
    session.says(&child_result(&wire, ""));
    session.passed(4, &Ask::tool("7"));
}

#[test]
fn a_request_without_an_answer_times_out_and_the_child_is_told() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::tool("7"));
    assert_eq!(session.pass(UPGRADED.request_timeout - Duration::from_nanos(1)), []);
    assert_eq!(session.at(UPGRADED.request_timeout), [unanswered(2, "7", Unanswered::Timeout)]);
    let line = session.line();
    assert_eq!(
        (&line["method"], line["params"]["requestId"].to_string()),
        (&"notifications/cancelled".into(), wire)
    );
    session.assert_empty();
}

// Results.

#[test]
fn a_result_gets_what_the_new_revision_demands_and_is_otherwise_as_it_was() {
    let kept = r#""ttlMs":0,"cacheScope":"private","#;
    let typed = r#""resultType":"complete","#;
    let meta = format!(r#""_meta":{{{SERVER}}}"#);
    let all = format!("{typed}{kept}{meta}");
    let call = format!("{typed}{meta}");
    let own = r#""_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"}}"#;
    // Method, the child's result, the client's.
    let table = [
        ("tools/call", "{}".to_owned(), format!("{{{call}}}")),
        ("tools/call", "{ }".to_owned(), format!("{{{call} }}")),
        ("tools/call", r#"{"content":[]}"#.to_owned(), format!(r#"{{{call},"content":[]}}"#)),
        ("tools/call", "{\n\"x\" :\t1 }".to_owned(), format!("{{{call}, \"x\" :\t1 }}")),
        ("tools/call", r#"{"_meta":{}}"#.to_owned(), format!("{{{typed}{meta}}}")),
        ("tools/call", r#"{"_meta":{ }}"#.to_owned(), format!(r#"{{{typed}"_meta":{{{SERVER} }}}}"#)),
        (
            "tools/call",
            r#"{"x":1,"_meta":{"a":1,"a":2}}"#.to_owned(),
            format!(r#"{{{typed}"x":1,"_meta":{{{SERVER},"a":1,"a":2}}}}"#),
        ),
        ("tools/call", format!("{{{own}}}"), format!("{{{typed}{own}}}")),
        ("tools/call", r#"{"_meta":null}"#.to_owned(), format!(r#"{{{typed}"_meta":null}}"#)),
        ("tools/call", r#"{"_meta":[]}"#.to_owned(), format!(r#"{{{typed}"_meta":[]}}"#)),
        ("tools/call", r#"{"resultType":"x"}"#.to_owned(), format!(r#"{{{meta},"resultType":"x"}}"#)),
        ("tools/list", "{}".to_owned(), format!("{{{all}}}")),
        ("prompts/list", r#"{"prompts":[]}"#.to_owned(), format!(r#"{{{all},"prompts":[]}}"#)),
        ("resources/list", "{}".to_owned(), format!("{{{all}}}")),
        ("resources/templates/list", "{}".to_owned(), format!("{{{all}}}")),
        ("resources/read", "{}".to_owned(), format!("{{{all}}}")),
        ("prompts/get", "{}".to_owned(), format!("{{{call}}}")),
        ("completion/complete", "{}".to_owned(), format!("{{{call}}}")),
        ("x", "{}".to_owned(), format!("{{{call}}}")),
        (
            "tools/list",
            r#"{"x":{"ttlMs":9,"cacheScope":"public","resultType":"x","_meta":{}}}"#.to_owned(),
            format!(r#"{{{all},"x":{{"ttlMs":9,"cacheScope":"public","resultType":"x","_meta":{{}}}}}}"#),
        ),
        (
            "tools/list",
            r#"{"ttlMs":9,"cacheScope":"public"}"#.to_owned(),
            format!(r#"{{{call},"ttlMs":9,"cacheScope":"public"}}"#),
        ),
        (
            "tools/list",
            r#"{"ttlMs":9}"#.to_owned(),
            format!(r#"{{{typed}"cacheScope":"private",{meta},"ttlMs":9}}"#),
        ),
        (
            "tools/list",
            r#"{"cacheScope":"public"}"#.to_owned(),
            format!(r#"{{{typed}"ttlMs":0,{meta},"cacheScope":"public"}}"#),
        ),
        ("tools/call", "[]".to_owned(), "[]".to_owned()),
        ("tools/list", "7".to_owned(), "7".to_owned()),
        ("tools/list", "null".to_owned(), "null".to_owned()),
        ("tools/call", "\"{}\"".to_owned(), "\"{}\"".to_owned()),
    ];
    for (method, before, after) in table {
        let mut session = Harness::shared(STRANGERS);
        let wire = session.passed(2, &Ask::new("\"\\u0061\"", method));
        let wrap = |id: &str, result: &str| format!(r#"{{ "result":{result} ,"jsonrpc":"2.0","id" : {id}}}"#);
        let told = session.says(&wrap(&wire, &before));
        assert_eq!(told, [answer(2, &wrap("\"\\u0061\"", &after)).unwrap()], "{method} {before}");
        session.assert_empty();
    }
}

#[test]
fn a_large_result_is_edited_where_it_lies() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::tool("7"));
    let long = format!(r#""content":[{}"a"],"z":{{"_meta":1}}"#, "[1.0 ,{}],".repeat(100_000));
    let told = session.says(&child_result(&wire, &long));
    assert!(told == [answer(2, &complete("7", &long)).unwrap()]);
}

#[test]
fn an_answer_that_lost_its_id_gets_its_clients() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::tool("7"));
    let told = session.says(r#"{"jsonrpc":"2.0","result":{}}"#);
    let want =
        format!(r#"{{"id":7,"jsonrpc":"2.0","result":{{"resultType":"complete","_meta":{{{SERVER}}}}}}}"#);
    assert_eq!(told, [answer(2, &want).unwrap()]);
}

#[test]
fn an_error_of_the_child_stays_as_it_is_but_for_codes_that_are_no_more() {
    let table = [
        ("tools/call", "-32601", "-32601"),
        ("x", "-32601", "-32601"),
        ("tools/call", "0", "0"),
        ("tools/call", "32600", "32600"),
        ("tools/call", "-1.5", "-1.5"),
        ("tools/call", "\"x\"", "\"x\""),
        ("resources/read", "-32002", "-32602"),
        ("tools/call", "-32002", "-32002"),
        ("tools/list", "-32042", "-32603"),
        ("tools/call", "-32042", "-32603"),
    ];
    for (method, before, after) in table {
        let mut session = Harness::shared(STRANGERS);
        let wire = session.passed(2, &Ask { method, ..Ask::able("7") });
        let wrap = |id: &str, code: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","error":{{"message":"-32002","data":{{"code":-32002}}, "code" : {code} }},"id":{id}}}"#
            )
        };
        let told = session.says(&wrap(&wire, before));
        assert_eq!(told, [answer(2, &wrap("7", after)).unwrap()], "{method} {before}");
    }
}

// URLs that are to be opened first (2025-11-25 `client/elicitation`, "URL Elicitation Required Error").

fn urls_needed(id: &str, elicitations: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32042,"message":"m","data":{{"elicitations":{elicitations}}}}}}}"#
    )
}

const URL: &str = r#"{"mode":"url","elicitationId":"e","url":"https://x/","message":"m","_meta":{"x":1}}"#;

#[test]
fn urls_that_the_child_needs_opened_are_asked_for_and_the_next_request_begins_anew() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    let told = session.says(&urls_needed(&wire, &format!("[{URL},{URL}]")));
    let asked = r#"{"method":"elicitation/create","params":{"mode":"url","url":"https://x/","message":"m"}}"#;
    let want = format!(
        r#"{{"jsonrpc":"2.0","id":7,"result":{{"resultType":"input_required","inputRequests":{{"elicitation_1":{asked},"elicitation_2":{asked}}}}}}}"#
    );
    assert_eq!(told, [answer(2, &want).unwrap()]);
    session.assert_empty();
    let again = Ask::able("8").with(r#""inputResponses":{"elicitation_1":{"action":"accept"}}"#);
    assert_eq!(session.send(3, &again), []);
    assert_eq!(session.stdin(), [called("3")]);
}

#[test]
fn a_client_that_opens_no_urls_is_told_that_they_are_needed() {
    for declares in ["{}", r#"{"elicitation":{}}"#, r#"{"sampling":{},"elicitation":{"form":{}}}"#] {
        let mut session = Harness::shared(STRANGERS);
        let wire = session.passed(2, &Ask::tool("7").declaring(declares));
        let told = session.says(&urls_needed(&wire, &format!("[{URL}]")));
        let why = Declined::Capability(Capability::Elicitation);
        assert_eq!(told, [declined(2, "7", why)], "{declares}");
        session.assert_empty();
    }
}

#[test]
fn of_what_is_to_be_opened_only_urls_are_asked_for() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    let told = session.says(&urls_needed(&wire, &format!(r#"[7,{{"message":"form"}},{URL},[]]"#)));
    let [Output::Answer { message, .. }] = &told[..] else { panic!("{told:?}") };
    let value: Value = serde_json::from_slice(message).unwrap();
    let asked = value["result"]["inputRequests"].as_object().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked["elicitation_1"]["params"]["mode"], "url");
}

#[test]
fn more_urls_than_one_answer_may_ask_are_cut() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    let told = session.says(&urls_needed(&wire, &format!("[{}]", [URL; 40].join(","))));
    let [Output::Answer { message, .. }] = &told[..] else { panic!("{told:?}") };
    let value: Value = serde_json::from_slice(message).unwrap();
    assert_eq!(value["result"]["inputRequests"].as_object().unwrap().len(), MAX_QUESTIONS);
}

// Progress.

#[test]
fn equal_tokens_of_two_clients_are_told_apart() {
    let mut session = Harness::shared(STRANGERS);
    for token in ["1", "\"\\u0061\"", "0"] {
        let one = session.passed(2, &Ask::tool("7").token(token));
        let other = session.passed(3, &Ask::tool("7").token(token));
        assert_eq!(session.says(&progress(&one, 1)), [event(2, &progress(token, 1)).unwrap()]);
        assert_eq!(session.says(&progress(&other, 2)), [event(3, &progress(token, 2)).unwrap()]);
        for wire in [one, other] {
            session.says(&child_result(&wire, ""));
            assert_eq!(session.says(&progress(&wire, 3)), [dropped(Dropped::Unrelated).unwrap()]);
        }
    }
}

#[test]
fn the_child_sees_a_token_that_nobody_else_has() {
    let mut session = Harness::shared(STRANGERS);
    session.send(2, &Ask::tool("7").token("\"secret\""));
    let want =
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t","_meta":{"progressToken":2}}}"#;
    assert_eq!(session.stdin(), [want]);
}

#[test]
fn progress_that_names_no_call_or_one_that_wants_none_reaches_nobody() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::tool("7"));
    for token in [&*wire, "1", "99", "\"x\"", "null", "{}"] {
        assert_eq!(session.says(&progress(token, 1)), [dropped(Dropped::Unrelated).unwrap()], "{token}");
    }
    let ask = Ask::tool("8").token("1");
    session.send_as(3, &ask, &Mirrored::default(), Takes::AnswerOnly);
    let told = session.says(&progress("3", 1));
    assert_eq!(told, [dropped(Dropped::NotStreamable).unwrap()], "it takes its answer alone");
}

// Log lines.

fn log(level: &str, text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":"{text}"}}}}"#
    )
}

fn set_level(id: &str, level: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#)
}

#[test]
fn the_child_is_told_the_level_before_the_request_that_asks_for_it_and_once() {
    let mut session = Harness::shared(STRANGERS);
    session.send(2, &Ask::tool("7").level("info"));
    assert_eq!(session.stdin(), [set_level("2", "info"), called("3")]);
    session.send(3, &Ask::tool("8").level("info"));
    assert_eq!(session.stdin(), [called("4")], "it has been told");
    session.send(4, &Ask::tool("9"));
    assert_eq!(session.stdin(), [called("5")], "no log lines are asked for");
}

#[test]
fn the_child_is_told_the_lowest_level_that_is_wanted() {
    let mut session = Harness::shared(STRANGERS);
    let send = |session: &mut Harness<Upgrade>, stream, level: &str| {
        session.send(stream, &Ask::tool("7").level(level));
        let lines = session.stdin();
        lines.iter().find_map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            value["params"]["level"].as_str().map(str::to_owned)
        })
    };
    assert_eq!(send(&mut session, 2, "warning").as_deref(), Some("warning"));
    assert_eq!(send(&mut session, 3, "emergency"), None, "the first one wants more");
    assert_eq!(send(&mut session, 4, "debug").as_deref(), Some("debug"));
    assert_eq!(send(&mut session, 5, "error"), None);
    session.leave(4);
    assert_eq!(send(&mut session, 6, "error").as_deref(), Some("warning"), "who wanted more is gone");
}

#[test]
fn a_child_that_does_not_log_is_told_no_level() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, r#"{"prompts":{}}"#);
    session.send(2, &Ask::tool("7").level("debug"));
    assert_eq!(session.stdin(), [called("2")]);
}

#[test]
fn a_level_that_is_none_is_refused() {
    let mut session = Harness::shared(STRANGERS);
    let wrong = Declined::Params("\"io.modelcontextprotocol/logLevel\" must be a level of RFC 5424");
    for level in ["\"loud\"", "\"Debug\"", "7", "{}"] {
        let ask = Ask::tool("7").meta(&format!(r#""io.modelcontextprotocol/logLevel":{level}"#));
        assert_eq!(session.send(2, &ask), [declined(2, "7", wrong)], "{level}");
    }
    session.send(2, &Ask::tool("7").meta(r#""io.modelcontextprotocol/logLevel":null"#));
    assert_eq!(session.stdin(), [called("2")], "no level is asked for");
}

#[test]
fn a_log_line_reaches_the_only_call_if_that_has_asked_for_its_level() {
    let table = [
        (Some("debug"), "debug", true),
        (Some("info"), "debug", false),
        (Some("info"), "info", true),
        (Some("info"), "notice", true),
        (Some("warning"), "emergency", true),
        (Some("emergency"), "alert", false),
        (Some("debug"), "loud", false),
        (None, "emergency", false),
    ];
    for strangers in [STRANGERS, KIN] {
        for (wanted, level, comes) in table {
            let mut session = Harness::shared(strangers);
            let ask = wanted.map_or(Ask::tool("7"), |wanted| Ask::tool("7").level(wanted));
            session.send(2, &ask);
            let told = session.says(&log(level, "x"));
            let want = if comes { event(2, &log(level, "x")) } else { dropped(Dropped::Unrelated) };
            assert_eq!(told, [want.unwrap()], "{wanted:?} {level}");
        }
    }
}

#[test]
fn a_log_line_reaches_nobody_where_no_call_runs_or_it_takes_no_events_or_is_cancelled() {
    for strangers in [STRANGERS, KIN] {
        let mut session = Harness::shared(strangers);
        let nobody = [dropped(Dropped::Unrelated).unwrap()];
        assert_eq!(session.says(&log("error", "x")), nobody);
        let ask = Ask::tool("7").level("debug");
        session.send_as(2, &ask, &Mirrored::default(), Takes::AnswerOnly);
        assert_eq!(session.says(&log("error", "x")), nobody);
        session.leave(2);
        session.send(3, &ask);
        session.leave(3);
        assert_eq!(session.says(&log("error", "x")), nobody);
        assert_eq!(session.says(&note("notifications/message")), nobody);
    }
}

// Cancellation.

#[test]
fn closing_the_response_ends_the_request_and_cancels_it_at_the_child() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::tool("7").token("1"));
    assert_eq!(session.leave(2), [unanswered(2, "7", Unanswered::Cancelled)]);
    assert_eq!(session.stdin(), [withdrawn(&wire)]);
    assert_eq!(session.leave(2), []);
    assert!(session.stdin().is_empty(), "once");
    session.assert_empty();
    assert_eq!(session.says(&progress(&wire, 1)), [dropped(Dropped::Unrelated).unwrap()]);
    assert_eq!(session.says(&child_result(&wire, "")), [dropped(Dropped::Late).unwrap()]);
}

#[test]
fn closing_the_response_behind_the_answer_cancels_nothing() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::tool("7"));
    session.says(&child_result(&wire, ""));
    assert_eq!(session.leave(2), []);
    assert!(session.stdin().is_empty());
}

#[test]
fn a_request_that_the_child_has_not_seen_is_withdrawn() {
    let mut session = Harness::upgrade(UPGRADED, STRANGERS);
    session.stdin();
    session.send(2, &Ask::new("7", "prompts/list"));
    session.send(3, &Ask::tool("8"));
    assert_eq!(session.leave(2), [unanswered(2, "7", Unanswered::Cancelled)]);
    assert_eq!(session.leave(3), [unanswered(3, "8", Unanswered::Cancelled)]);
    session.says(&greeting(CAPABILITIES));
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
    session.assert_empty();
}

// The child's tools, whose parameters may have to stand in headers.

fn tools_list(id: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list","params":{{{params}}}}}"#)
}

#[test]
fn a_tool_call_waits_until_the_childs_tools_are_known_and_others_do_not() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, WITH_TOOLS);
    assert_eq!(session.send(2, &Ask::tool("7")), []);
    assert_eq!(session.stdin(), [tools_list("2", "")]);
    assert_eq!(session.send(3, &Ask::tool("8")), []);
    assert!(session.stdin().is_empty(), "once");
    assert_eq!(session.front.in_flight(), 2);
    session.passed(4, &Ask::new("9", "prompts/get"));
    assert_eq!(session.says(&child_result("2", r#""tools":[]"#)), []);
    assert_eq!(session.stdin(), [called("4"), called("5")]);
    session.send(5, &Ask::tool("7"));
    assert_eq!(session.stdin(), [called("6")], "they are known");
    assert_eq!(session.says(&child_result("4", "")), [answer(2, &complete("7", "")).unwrap()]);
}

#[test]
fn a_child_without_tools_is_not_asked_for_them() {
    for capabilities in ["{}", r#"{"tools":null}"#] {
        let mut session = Harness::greeted(UPGRADED, STRANGERS, capabilities);
        session.send(2, &Ask::tool("7"));
        assert_eq!(session.stdin(), [called("2")], "{capabilities}");
    }
}

#[test]
fn tool_calls_before_the_handshake_wait_for_it_and_then_for_the_tools() {
    let mut session = Harness::upgrade(UPGRADED, STRANGERS);
    session.stdin();
    session.send(2, &Ask::tool("7"));
    session.send(3, &Ask::tool("8"));
    session.says(&greeting(WITH_TOOLS));
    assert_eq!(session.stdin(), [note("notifications/initialized"), tools_list("2", "")]);
    session.says(&child_result("2", r#""tools":[]"#));
    assert_eq!(session.stdin(), [called("3"), called("4")]);
}

#[test]
fn tools_that_have_changed_are_asked_for_again_with_the_next_call() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, WITH_TOOLS);
    session.send(2, &Ask::tool("7"));
    session.says(&child_result("2", r#""tools":[]"#));
    session.stdin();
    session.says(&note("notifications/tools/list_changed"));
    assert!(session.stdin().is_empty(), "nobody calls one");
    session.send(3, &Ask::tool("8"));
    assert_eq!(session.stdin(), [tools_list("4", "")]);
}

#[test]
fn a_child_that_does_not_say_its_tools_is_called_all_the_same() {
    let begun = || {
        let mut session = Harness::greeted(UPGRADED, STRANGERS, WITH_TOOLS);
        session.send(2, &Ask::tool("7"));
        assert_eq!(session.stdin(), [tools_list("2", "")]);
        session
    };
    let mut session = begun();
    session.says(&error("2"));
    assert_eq!(session.stdin(), [called("3")], "it has refused");
    let mut session = begun();
    assert_eq!(session.pass(OWN_LIMIT), []);
    assert_eq!(session.stdin().last(), Some(&called("3")), "it has not answered");
    assert_eq!(session.says(&child_result("2", "")), [dropped(Dropped::Late).unwrap()]);
    let mut session = begun();
    assert_eq!(session.too_long(r#"{"jsonrpc":"2.0","id":2,"result":{"tools":["#), []);
    assert_eq!(session.stdin(), [called("3")], "its answer was too long");
    let mut session = begun();
    session.broken(r#"{"jsonrpc":"2.0","id":2,"result":{},"error":{}}"#);
    assert_eq!(session.stdin(), [called("3")], "its answer was none");
}

#[test]
fn the_bridges_own_requests_have_their_time_from_when_the_child_serves() {
    let ready = crate::proto::link::Readiness { delay: secs(60), refusal: None, timeout: Duration::ZERO };
    let limits = Limits { init_timeout: secs(50), request_timeout: secs(1000), ready, ..UPGRADED };
    let mut session = Harness::upgrade(limits, STRANGERS);
    session.send(2, &Ask::new("7", "prompts/get").level("info"));
    assert_eq!(session.pass(secs(49)), []);
    let logging = r#"{"logging":{},"tools":{}}"#;
    session.says(&greeting(logging));
    session.send(3, &Ask::tool("8"));
    session.stdin();
    assert_eq!(session.pass(secs(60)), []);
    let prompt = r#"{"jsonrpc":"2.0","id":3,"method":"prompts/get","params":{}}"#;
    assert_eq!(session.stdin(), [set_level("2", "info"), prompt.to_owned(), tools_list("4", "")]);
    session.says(&child_result("4", r#""tools":[]"#));
    assert_eq!(session.stdin(), [called("5")]);
}

#[test]
fn a_level_that_the_child_has_not_confirmed_is_told_again_with_the_next_call() {
    let mut session = Harness::shared(STRANGERS);
    session.send(2, &Ask::tool("7").level("info"));
    assert_eq!(session.pass(OWN_LIMIT), []);
    session.stdin();
    session.send(3, &Ask::tool("8").level("info"));
    assert_eq!(session.stdin(), [set_level("4", "info"), called("5")]);
    session.says(&error("4"));
    session.send(4, &Ask::tool("9").level("info"));
    assert_eq!(session.stdin(), [called("6")], "it has refused, and would again");
}

#[test]
fn a_child_that_says_with_each_list_that_it_has_changed_is_called_all_the_same() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, WITH_TOOLS);
    session.send(2, &Ask::tool("7"));
    session.says(&note("notifications/tools/list_changed"));
    session.stdin();
    session.says(&child_result("2", r#""tools":[]"#));
    assert_eq!(session.stdin(), [called("3")]);
    session.send(3, &Ask::tool("8"));
    assert_eq!(session.stdin(), [tools_list("4", "")], "they are not known for the next one");
}

#[test]
fn a_call_that_waits_for_the_tools_times_out_and_the_child_does_not_see_it() {
    let limits = Limits { request_timeout: secs(5), ..UPGRADED };
    let mut session = Harness::greeted(limits, STRANGERS, WITH_TOOLS);
    session.send(2, &Ask::tool("7"));
    session.stdin();
    assert_eq!(session.front.next_deadline(), Some(secs(5)));
    assert_eq!(session.at(secs(5)), [unanswered(2, "7", Unanswered::Timeout)]);
    session.says(&child_result("2", r#""tools":[]"#));
    assert!(session.stdin().is_empty());
    session.assert_empty();
}

#[test]
fn what_follows_from_an_answer_that_nobody_can_take_has_its_time_from_then_on() {
    let texts = [
        |session: &mut Harness<Upgrade>| session.too_long(r#"{"jsonrpc":"2.0","id":3,"result":["#),
        |session: &mut Harness<Upgrade>| session.broken(r#"{"jsonrpc":"2.0","id":3,"result":{},"error":{}}"#),
    ];
    for text in texts {
        let capabilities = r#"{"logging":{},"tools":{}}"#;
        let mut session = Harness::greeted(UPGRADED, STRANGERS, capabilities);
        session.pass(secs(50));
        session.send(2, &Ask::new("7", "prompts/list"));
        session.send(3, &Ask::tool("8").level("info"));
        session.stdin();
        text(&mut session);
        assert_eq!(session.stdin(), [set_level("4", "info"), called("5")]);
        assert_eq!(session.pass(OWN_LIMIT - Duration::from_nanos(1)), []);
        assert!(session.stdin().is_empty(), "the level has its time");
    }
}

#[test]
fn a_call_that_waits_for_the_tools_is_withdrawn_by_its_client() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, WITH_TOOLS);
    session.send(2, &Ask::tool("7"));
    session.send(3, &Ask::tool("8"));
    assert_eq!(session.leave(2), [unanswered(2, "7", Unanswered::Cancelled)]);
    session.stdin();
    session.says(&child_result("2", r#""tools":[]"#));
    assert_eq!(session.stdin(), [called("3")]);
    assert_eq!(session.says(&child_result("3", "")), [answer(3, &complete("8", "")).unwrap()]);
    session.assert_empty();
}

// What the child asks for itself.

#[test]
fn a_ping_of_the_child_is_answered_by_the_bridge() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    session.says(&request("\"p\"", "ping"));
    assert_eq!(session.stdin(), [r#"{"jsonrpc":"2.0","id":"p","result":{}}"#]);
}

#[test]
fn what_no_client_of_the_new_revision_can_be_asked_is_refused_to_the_child() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    for text in [
        request("1", "x/y"),
        request("1", "tasks/get"),
        r#"{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":[]}"#.to_owned(),
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{{"x":"{}"}}}}"#,
            "x".repeat(1024 * 1024)
        ),
    ] {
        session.says(&text);
        let line = session.line();
        assert_eq!((&line["id"], &line["error"]["code"]), (&1.into(), &(-32601).into()));
    }
    assert_eq!(session.gathered(), [], "its client hears nothing of it");
}
