//! What the child needs of the client before it answers (2026-07-28 `basic/patterns/mrtr`).

use super::*;

#[test]
fn the_client_is_asked_and_the_same_request_goes_again_with_its_answers() {
    let mut session = Harness::open();
    let arguments = r#""name":"t","arguments":{ "n" : 1e400 }"#;
    let id = session.passed(3, &with("7", "tools/call", arguments));
    let told = session.says(&asks(&id, &format!("{},{}", form("a"), form("b")), r#""\u0073""#));
    assert_eq!(told, events(3, &[elicited(1, "a"), elicited(2, "b")]));
    assert!(session.stdin().is_empty());
    assert_eq!(session.front.in_flight(), 1);
    assert_eq!(session.send(4, &accept(2)), [], "in any order");
    assert_eq!(session.send(5, &accept(1)), []);
    let answers =
        r#""inputResponses":{"a":{"action":"accept"},"b":{"action":"accept"}},"requestState":"\u0073""#;
    assert_eq!(
        session.stdin(),
        [with("3", "tools/call", &format!(r#"{answers},"_meta":{{{META}}},{arguments}"#))]
    );
    let told = session.says(&child_result("3", r#""resultType":"complete","content":[]"#));
    assert_eq!(told, answered(3, &child_result("7", r#""content":[]"#)));
    session.assert_empty();
}

#[test]
fn each_method_that_may_ask_does() {
    for method in ["tools/call", "prompts/get", "resources/read"] {
        let mut session = Harness::open();
        let id = session.passed(3, &request("7", method));
        assert_eq!(session.says(&asks(&id, &form("k"), "")), events(3, &[elicited(1, "k")]), "{method}");
        session.send(4, &accept(1));
        assert_eq!(
            session.stdin(),
            [raised("3", method, r#""inputResponses":{"k":{"action":"accept"}},"#)],
            "{method}: without a state there is none"
        );
    }
}

#[test]
fn a_state_alone_is_given_back_after_a_pause() {
    for requests in ["", r#""inputRequests":{},"#, r#""inputRequests":null,"#] {
        let mut session = Harness::open();
        let id = session.passed(3, &tool("7"));
        let line =
            child_result(&id, &format!(r#""resultType":"input_required",{requests}"requestState":"s""#));
        assert_eq!(session.says(&line), []);
        assert!(session.stdin().is_empty(), "the child may have too much to do");
        assert_eq!(session.front.next_deadline(), Some(FIRST_PAUSE));
        assert_eq!(session.pass(FIRST_PAUSE), []);
        let again = format!(r#""requestState":"s","_meta":{{{META}}},"name":"t""#);
        assert_eq!(session.stdin(), [with("3", "tools/call", &again)]);
    }
}

#[test]
fn the_answers_of_one_round_are_not_those_of_the_next_and_the_rounds_are_counted() {
    let mut session = Harness::open();
    let mut id = session.passed(3, &tool("7"));
    for round in 1..=MAX_ROUNDS as u64 {
        let key = format!("k{round}");
        let told = session.says(&asks(&id, &form(&key), &format!("\"s{round}\"")));
        assert_eq!(told, events(3, &[elicited(round, &key)]));
        session.send(4, &accept(round));
        let line = session.line();
        let params = &line["params"];
        assert_eq!(params["requestState"], format!("s{round}"));
        assert_eq!(params["inputResponses"].as_object().unwrap().len(), 1, "{params}");
        id = line["id"].to_string();
    }
    let why = "The server has asked to be asked again 8 times and does not answer";
    assert_eq!(session.says(&asks(&id, &form("k"), "")), answered(3, &unserved("7", why)));
    session.assert_empty();
}

#[test]
fn the_pauses_double_and_a_call_can_be_cancelled_and_time_out_in_one() {
    let mut session = Harness::open();
    let mut id = session.passed(3, &tool("7"));
    let mut all = Duration::ZERO;
    for pause in [250, 500, 1000, 2000, 4000, 5000, 5000].map(Duration::from_millis) {
        session.says(&asks(&id, "", "\"s\""));
        all += pause;
        assert_eq!(session.front.next_deadline(), Some(all));
        session.pass(pause);
        id = session.seen();
    }
    session.says(&asks(&id, "", "\"s\""));
    assert_eq!(session.send(4, &cancel("7")), [unanswered(3, "7", Unanswered::Cancelled)]);
    session.assert_empty();
    let limits = Limits { request_timeout: Duration::from_millis(100), ..DOWNGRADED };
    let mut session = Harness::greeted(limits, "2025-11-25", DECLARED, CAPABILITIES);
    session.stdin();
    let id = session.passed(3, &tool("7"));
    session.says(&asks(&id, "", "\"s\""));
    assert_eq!(session.pass(FIRST_PAUSE), [unanswered(3, "7", Unanswered::Timeout)], "this is the child's");
    session.assert_empty();
}

#[test]
fn a_child_that_gives_nothing_but_states_ends_its_call_too() {
    let mut session = Harness::open();
    let mut id = session.passed(3, &tool("7"));
    for _ in 0..MAX_ROUNDS {
        assert_eq!(session.says(&asks(&id, "", "\"s\"")), []);
        session.pass(LONGEST_PAUSE);
        id = session.seen();
    }
    assert!(matches!(session.says(&asks(&id, "", "\"s\""))[..], [Output::Answer { success: false, .. }]));
    session.assert_empty();
}

#[test]
fn what_the_client_has_not_declared_it_is_not_asked() {
    let mut session = Harness::greeted(DOWNGRADED, "2025-11-25", r#"{"elicitation":{}}"#, CAPABILITIES);
    session.stdin();
    for (request, what) in [
        (r#""a":{"method":"sampling/createMessage","params":{}}"#, "sampling, which it has not declared"),
        (r#""a":{"method":"roots/list"}"#, "roots, which it has not declared"),
        (
            r#""a":{"method":"elicitation/create","params":{"mode":"url"}}"#,
            "elicitation of a URL, which it has not declared",
        ),
    ] {
        let id = session.passed(3, &tool("7"));
        let told = session.says(&asks(&id, &format!("{},{request}", form("k")), ""));
        let why = format!("The server asks the client for {what}");
        assert_eq!(told, answered(3, &unserved("7", &why)), "and nothing of the rest either");
    }
    session.assert_empty();
}

#[test]
fn a_client_that_shows_nothing_is_one_that_cancels_and_one_that_gives_nothing_ends_the_call() {
    let refusal = |number: u64| {
        format!(
            r#"{{"jsonrpc":"2.0","id":"mcp-bridge-{number}","error":{{"code":-1,"message":"no \"way\""}}}}"#
        )
    };
    let mut session = Harness::open();
    let id = session.passed(3, &tool("7"));
    session.says(&asks(&id, &form("k"), ""));
    session.send(4, &refusal(1));
    assert_eq!(session.line()["params"]["inputResponses"]["k"]["action"], "cancel");
    let id = session.passed(5, &tool("8"));
    session.says(&asks(&id, &format!(r#"{},"r":{{"method":"roots/list"}}"#, form("k")), ""));
    let told = session.send(4, &refusal(3));
    let why = "The server needs the client's roots, and the client says: no \"way\"";
    let want = [
        event(5, &taken_back(2, "the server's request has ended")).unwrap(),
        answer(5, &unserved("8", why)).unwrap(),
    ];
    assert_eq!(told, want);
    assert!(session.stdin().is_empty(), "the child knows nothing of it");
}

#[test]
fn questions_go_where_somebody_reads_them() {
    let table: [(Takes, &[u64], &[u64], u64); 6] = [
        (Takes::Events, &[3], &[], 3),
        (Takes::Events, &[3, LISTENING], &[], 3),
        (Takes::Events, &[LISTENING], &[3], LISTENING),
        (Takes::Events, &[], &[3], 3),
        (Takes::Events, &[], &[], LISTENING),
        (Takes::AnswerOnly, &[3], &[], LISTENING),
    ];
    for (takes, live, resumable, want) in table {
        let mut session = Harness::open();
        session.sent(3, takes, &tool("7")).unwrap();
        let id = session.seen();
        session.live = live.iter().copied().collect();
        session.resumable = resumable.iter().copied().collect();
        let told = session.says(&asks(&id, &form("k"), ""));
        assert_eq!(told, events(want, &[elicited(1, "k")]), "{takes:?} {live:?} {resumable:?}");
    }
}

#[test]
fn where_nobody_comes_to_read_the_questions_the_call_ends() {
    let asked = || {
        let mut session = Harness::open();
        session.sent(3, Takes::AnswerOnly, &tool("7")).unwrap();
        let id = session.seen();
        session.says(&asks(&id, &form("k"), ""));
        session
    };
    let mut session = asked();
    assert_eq!(session.front.next_deadline(), Some(LISTENER_GRACE));
    let why = "The server needs something of the client, and no client listens for it";
    let want = [
        event(LISTENING, &taken_back(1, "the server's request has ended")).unwrap(),
        answer(3, &unserved("7", why)).unwrap(),
    ];
    assert_eq!(told(session.pass(LISTENER_GRACE)), want);
    session.assert_empty();
    let mut session = asked();
    session.live.insert(LISTENING);
    assert_eq!(session.pass(LISTENER_GRACE), [], "one listens by now, and a person may take any time");
    session.leave(LISTENING, false);
    assert_eq!(session.front.next_deadline(), Some(DOWNGRADED.request_timeout), "before that comes its own");
    let mut session = asked();
    session.live.insert(LISTENING);
    session.pass(secs(10));
    session.leave(LISTENING, true);
    assert_eq!(session.front.next_deadline(), Some(LISTENER_GRACE));
}

#[test]
fn the_time_of_a_call_goes_on_while_a_person_thinks_and_while_it_is_repeated() {
    let mut session = Harness::open();
    let id = session.passed(3, &tool("7"));
    session.pass(secs(40));
    session.says(&asks(&id, &form("k"), ""));
    assert_eq!(session.pass(secs(59)), []);
    let ended = session.pass(secs(1));
    let why = "The server needs something of the client, which has not given it in time";
    let want =
        [event(3, &taken_back(1, "the request timed out")).unwrap(), answer(3, &unserved("7", why)).unwrap()];
    assert_eq!(ended, want, "it is not the child that has not answered");
    session.assert_empty();
    let id = session.passed(3, &tool("7"));
    session.pass(secs(40));
    session.says(&asks(&id, &form("k"), ""));
    session.pass(secs(40));
    session.send(4, &accept(2));
    session.stdin();
    assert_eq!(session.pass(secs(20)), [unanswered(3, "7", Unanswered::Timeout)]);
    assert_eq!(session.stdin().len(), 1, "the child is told");
    session.assert_empty();
}

#[test]
fn a_client_that_cancels_while_it_is_asked_is_asked_no_more() {
    let mut session = Harness::open();
    let id = session.passed(3, &tool("7"));
    session.says(&asks(&id, &format!("{},{}", form("a"), form("b")), ""));
    session.send(4, &accept(1));
    let told = session.send(4, &cancel("7"));
    let want = [
        event(3, &taken_back(2, "the request was cancelled")).unwrap(),
        unanswered(3, "7", Unanswered::Cancelled),
    ];
    assert_eq!(told, want);
    assert!(session.stdin().is_empty(), "the child has nothing to cancel");
    let late = session.send(4, &accept(2));
    assert_eq!(late, [Output::Note(Note::Swallowed("the server's request has ended"))]);
    session.assert_empty();
}

#[test]
fn a_response_to_what_was_never_asked_is_refused_and_a_late_one_is_not() {
    let mut session = Harness::open();
    let unknown = Err(Refusal::UnknownResponse);
    assert_eq!(session.sent(4, Takes::Events, &accept(1)), unknown);
    let id = session.passed(3, &tool("7"));
    session.says(&asks(&id, &form("k"), ""));
    for text in [accept(2), accept(0), result("1"), result("\"mcp-bridge-01\""), error("\"k\"")] {
        assert_eq!(session.sent(4, Takes::Events, &text), unknown, "{text}");
    }
    session.send(4, &accept(1));
    assert_eq!(session.stdin().len(), 1);
    assert!(matches!(session.send(4, &accept(1))[..], [Output::Note(Note::Swallowed(_))]));
    assert!(session.stdin().is_empty(), "it counts once");
}

#[test]
fn two_calls_are_asked_at_once_and_each_gets_its_own_answers() {
    let mut session = Harness::open();
    let first = session.passed(3, &tool("7"));
    let second = session.passed(4, &tool("8"));
    assert_eq!(session.says(&asks(&second, &form("b"), "\"2\"")), events(4, &[elicited(1, "b")]));
    assert_eq!(session.says(&asks(&first, &form("a"), "\"1\"")), events(3, &[elicited(2, "a")]));
    session.send(5, &accept(2));
    let line = session.line();
    assert_eq!(
        (&line["params"]["requestState"], &line["params"]["inputResponses"]["a"]["action"]),
        (&"1".into(), &"accept".into())
    );
    let told = session.says(&child_result(&line["id"].to_string(), ""));
    assert_eq!(told, answered(3, &child_result("7", "")));
    session.send(5, &accept(1));
    assert_eq!(session.line()["params"]["requestState"], "2");
}

#[test]
fn progress_of_a_repetition_has_the_clients_token_too() {
    let mut session = Harness::open();
    let id = session.passed(3, &call("7", "\"p\""));
    session.says(&asks(&id, &form("k"), ""));
    session.send(4, &accept(1));
    let line = session.line();
    assert_eq!(line["params"]["_meta"]["progressToken"], "p");
    assert_eq!(session.says(&progress("\"p\"", 1)), events(3, &[progress("\"p\"", 1)]));
    assert_eq!(session.says(&progress(&line["id"].to_string(), 2)), events(3, &[progress("\"p\"", 2)]));
}

#[test]
fn what_is_kept_for_repetition_is_bounded_and_a_call_beyond_it_is_served_all_the_same() {
    let mut session = Harness::open();
    let long = |id: &str| with(id, "tools/call", &format!(r#""a":"{}""#, "x".repeat(MAX_KEPT / 2)));
    let first = session.passed(3, &long("7"));
    let second = session.passed(4, &long("8"));
    assert!((MAX_KEPT / 2..=MAX_KEPT).contains(&session.front.held_bytes()), "the second is not kept");
    let told = session.says(&asks(&second, &form("k"), ""));
    assert!(matches!(told[..], [Output::Answer { success: false, .. }]), "it cannot be sent again");
    let third = session.passed(4, &long("9"));
    assert_eq!(session.says(&child_result(&third, "")), answered(4, &child_result("9", "")));
    assert_eq!(session.says(&asks(&first, &form("k"), "")), events(3, &[elicited(1, "k")]));
    let much =
        format!(r#"{{"jsonrpc":"2.0","id":"mcp-bridge-1","result":{{"a":"{}"}}}}"#, "x".repeat(MAX_KEPT / 2));
    let told = session.send(5, &much);
    assert!(
        matches!(told[..], [Output::Answer { stream: StreamId(3), success: false, .. }]),
        "nor are answers"
    );
    session.assert_empty();
}

#[test]
fn so_much_is_asked_at_once_and_no_more() {
    let mut session =
        Harness::greeted(Limits { max_in_flight: 1000, ..LIMITS }, "2025-11-25", DECLARED, CAPABILITIES);
    session.stdin();
    let many: Vec<_> = (0..questions::MAX_QUESTIONS).map(|key| form(&format!("k{key}"))).collect();
    let many = many.join(",");
    for call in 0..MAX_PENDING / questions::MAX_QUESTIONS {
        let id = session.passed(3, &tool(&call.to_string()));
        assert_eq!(session.says(&asks(&id, &many, "")).len(), questions::MAX_QUESTIONS);
    }
    let id = session.passed(4, &tool("\"last\""));
    let why = "The server asks the client for too much at once";
    assert_eq!(session.says(&asks(&id, &form("k"), "")), answered(4, &unserved("\"last\"", why)));
}

#[test]
fn a_refusal_by_a_server_that_is_not_ready_does_not_lose_the_call() {
    use crate::proto::link::Readiness;
    let ready = Readiness {
        refusal: Some(std::sync::Arc::new(regex_lite::Regex::new("not ready").unwrap())),
        timeout: secs(30),
        ..Readiness::AT_ONCE
    };
    let capabilities = r#"{"tools":{"listChanged":true}}"#;
    let mut session = Harness::greeted(Limits { ready, ..DOWNGRADED }, "2025-11-25", DECLARED, capabilities);
    session.stdin();
    let refusal =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"not ready"}}}}"#);
    session.says(&refusal("2")); // the subscription
    let id = session.passed(3, &call("7", "\"p\""));
    assert_eq!(session.says(&refusal(&id)), [Output::Note(Note::NotReady)]);
    session.pass(secs(1));
    let ids: Vec<_> = session
        .stdin()
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string())
        .collect();
    let [listen, id] = &ids[..] else { panic!("{ids:?}") };
    let list = "notifications/tools/list_changed";
    assert_eq!(session.says(&of_subscription(listen, list, "")).len(), 1);
    assert_eq!(session.says(&progress("\"p\"", 1)), events(3, &[progress("\"p\"", 1)]));
    assert_eq!(session.says(&asks(id, &form("k"), "")), events(3, &[elicited(1, "k")]));
    session.send(4, &accept(1));
    let id = session.seen();
    session.says(&child_result(&id, ""));
    session.assert_empty();
}
