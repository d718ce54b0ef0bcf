//! Subscriptions of clients, headers that mirror arguments, and callers whose token is taken away, as far as the front has a
//! part in them.

use serde_json::json;

use super::*;
use crate::proto::link::OWN_LIMIT;
use crate::proto::subscription::SUBSCRIPTION_ID;

const LISTENED: &str = r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#;

fn listen(id: &str, filter: &str) -> Ask {
    Ask::new(id, "subscriptions/listen").with(&format!(r#""notifications":{filter}"#))
}

/// What has gone out on which stream, parsed.
fn seen(outputs: &[Output]) -> Vec<(u64, Value)> {
    let message = |output: &Output| match output {
        Output::Message { stream, message } => (stream.0, serde_json::from_slice(message).unwrap()),
        other => panic!("{other:?}"),
    };
    outputs.iter().map(message).collect()
}

fn acknowledged(stream: u64, id: &Value, honoured: &Value) -> (u64, Value) {
    let params = json!({ "_meta": { SUBSCRIPTION_ID: id }, "notifications": honoured });
    let method = "notifications/subscriptions/acknowledged";
    (stream, json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

fn changed(stream: u64, id: &Value, method: &str, mut params: Value) -> (u64, Value) {
    params["_meta"] = json!({ SUBSCRIPTION_ID: id });
    (stream, json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

fn updated(uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#)
}

fn resource(id: &str, method: &str, uri: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/{method}","params":{{"uri":"{uri}"}}}}"#)
}

#[test]
fn a_subscription_before_the_handshake_is_acknowledged_with_what_the_child_has_declared() {
    let mut session = Harness::upgrade(UPGRADED, STRANGERS);
    session.stdin();
    let filter = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a"]}"#;
    assert_eq!(session.send(2, &listen("7", filter)), []);
    assert_eq!(session.send(3, &listen("7", filter)), []);
    assert_eq!(session.front.in_flight(), 2);
    assert!(session.front.held_bytes() > 0);
    assert_eq!(session.leave(3), [unanswered(3, "7", Unanswered::Cancelled)]);
    let told = session.says(&greeting(r#"{"tools":{"listChanged":true}}"#));
    assert_eq!(seen(&told), [acknowledged(2, &json!(7), &json!({ "toolsListChanged": true }))]);
    assert_eq!(session.stdin(), [note("notifications/initialized")], "it has no resources");
}

#[test]
fn changes_reach_each_who_wants_them_and_nobody_else() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, LISTENED);
    let told = session.send(2, &listen("7", r#"{"toolsListChanged":true}"#));
    assert_eq!(seen(&told), [acknowledged(2, &json!(7), &json!({ "toolsListChanged": true }))]);
    assert_eq!(
        session.send(3, &listen("\"7\"", r#"{"toolsListChanged":true,"resourceSubscriptions":["a"]}"#)),
        []
    );
    assert_eq!(session.send(4, &listen("7", r#"{"resourceSubscriptions":["a"]}"#)), []);
    assert_eq!(session.stdin(), [resource("2", "subscribe", "a")], "once");
    let all = json!({ "toolsListChanged": true, "resourceSubscriptions": ["a"] });
    let want = [
        acknowledged(3, &json!("7"), &all),
        acknowledged(4, &json!(7), &json!({ "resourceSubscriptions": ["a"] })),
    ];
    assert_eq!(seen(&session.says(&child_result("2", ""))), want);
    let method = "notifications/tools/list_changed";
    let want = [changed(2, &json!(7), method, json!({})), changed(3, &json!("7"), method, json!({}))];
    assert_eq!(seen(&session.says(&note(method))), want);
    let method = "notifications/resources/updated";
    let params = json!({ "uri": "a" });
    let want = [changed(3, &json!("7"), method, params.clone()), changed(4, &json!(7), method, params)];
    assert_eq!(seen(&session.says(&updated("a"))), want);
    let nobody = [dropped(Dropped::Unrelated).unwrap()];
    assert_eq!(session.says(&updated("b")), nobody);
    assert_eq!(session.says(&note("notifications/prompts/list_changed")), nobody);
    assert!(session.front.is_listening());
    assert_eq!(session.front.in_flight(), 0, "they wait for nothing");
    session.leave(3);
    assert!(session.stdin().is_empty(), "another one wants it");
    session.leave(4);
    assert_eq!(session.stdin(), [resource("3", "unsubscribe", "a")]);
    session.leave(2);
    assert!(!session.front.is_listening());
    session.pass(OWN_LIMIT);
    session.assert_empty();
}

#[test]
fn a_subscription_that_the_child_refuses_or_does_not_answer_is_acknowledged_without_it() {
    for answers in [true, false] {
        let mut session = Harness::greeted(UPGRADED, STRANGERS, LISTENED);
        session.send(2, &listen("7", r#"{"resourceSubscriptions":["a"]}"#));
        session.stdin();
        let told = if answers { session.says(&error("2")) } else { session.pass(OWN_LIMIT) };
        let [(2, ack)] = &seen(&told)[..] else { panic!("{told:?}") };
        assert_eq!(ack["method"], "notifications/subscriptions/acknowledged");
        assert!(!ack["params"]["notifications"].to_string().contains("\"a\""), "{ack}");
    }
}

#[test]
fn a_subscription_with_many_uris_takes_no_place_of_a_call() {
    let mut session = Harness::greeted(Limits { max_in_flight: 2, ..UPGRADED }, STRANGERS, LISTENED);
    let uris: Vec<_> = (0..900).map(|number| format!("\"u{number}\"")).collect();
    session.send(2, &listen("7", &format!(r#"{{"resourceSubscriptions":[{}]}}"#, uris.join(","))));
    assert_eq!(session.stdin().len(), 900);
    session.passed(3, &Ask::new("8", "prompts/list"));
}

#[test]
fn who_listens_is_told_the_end_of_the_session_once() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, LISTENED);
    session.send(2, &listen("7", r#"{"toolsListChanged":true}"#));
    session.front.farewell(&mut session.out);
    let end = child_result("7", &format!(r#""resultType":"complete","_meta":{{"{SUBSCRIPTION_ID}":7}}"#));
    assert_eq!(session.outputs(), [answer(2, &end).unwrap()]);
    assert_eq!(session.front.abandon(), []);
    let mut session = Harness::greeted(UPGRADED, STRANGERS, LISTENED);
    session.send(2, &listen("7", r#"{"toolsListChanged":true}"#));
    assert_eq!(session.front.abandon(), [(StreamId(2), client_id("7"))], "without a farewell too");
    session.assert_empty();
}

#[test]
fn a_filter_that_is_none_is_refused() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, LISTENED);
    for ask in [listen("7", "[]"), listen("7", "null"), Ask::new("7", "subscriptions/listen")] {
        let told = session.send(2, &ask);
        let [Output::Unanswered { why: Unanswered::Declined(Declined::Params(_)), .. }] = &told[..] else {
            panic!("{told:?}");
        };
    }
    assert!(!session.front.is_listening());
}

// What waits for the handshake or the tools.

#[test]
fn what_waits_early_is_bounded_in_bytes() {
    for capabilities in [None, Some(WITH_TOOLS)] {
        let mut session = match capabilities {
            None => Harness::upgrade(UPGRADED, STRANGERS),
            Some(capabilities) => Harness::greeted(UPGRADED, STRANGERS, capabilities),
        };
        let ask = Ask::tool("7").with(&format!(r#""x":"{}""#, "x".repeat(4 * 1024 * 1024)));
        session.send(2, &ask);
        assert!(session.front.accepting());
        session.send(3, &ask);
        assert!(!session.front.accepting() && session.front.held_bytes() >= 8 * 1024 * 1024);
        session.leave(3);
        assert!(session.front.accepting());
    }
}

// Headers that mirror arguments (2026-07-28 `basic/transports/streamable-http`).

#[test]
fn a_call_whose_headers_say_other_than_its_arguments_is_refused_and_the_child_does_not_see_it() {
    let header = |value: Option<&str>| Mirrored {
        caller: None,
        params: value.map(|value| ("region".into(), value.as_bytes().into())).into_iter().collect(),
    };
    let mut session = Harness::greeted(UPGRADED, STRANGERS, WITH_TOOLS);
    let ask = Ask::tool("7").with(r#""arguments":{"r":"eu"}"#);
    for (stream, value) in [(2, Some("us")), (3, Some("eu")), (4, None)] {
        assert_eq!(session.send_as(stream, &ask, &header(value), Takes::Events), []);
    }
    let page = |tools: &str, cursor: &str| format!(r#""tools":[{tools}]{cursor}"#);
    session.says(&child_result("2", &page("", r#","nextCursor":"a\"b""#)));
    let next = r#"{"jsonrpc":"2.0","id":3,"method":"tools/list","params":{"cursor":"a\"b"}}"#;
    assert_eq!(session.stdin().pop().as_deref(), Some(next), "all pages are read");
    let tool = r#"{"name":"t","inputSchema":{"properties":{"r":{"type":"string","x-mcp-header":"Region"}}}}"#;
    let told = session.says(&child_result("3", &page(tool, "")));
    let declined = |output: &Output| match output {
        Output::Unanswered { stream, why: Unanswered::Declined(Declined::Header(_)), .. } => stream.0,
        other => panic!("{other:?}"),
    };
    assert_eq!(told.iter().map(declined).collect::<Vec<_>>(), [2, 4]);
    let passed =
        r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"t","arguments":{"r":"eu"}}}"#;
    assert_eq!(session.stdin(), [passed]);
    assert_eq!(session.front.in_flight(), 1);
    let told = session.send_as(5, &ask, &header(Some("us")), Takes::Events);
    assert_eq!(told.iter().map(declined).collect::<Vec<_>>(), [5], "and now at once");
}

// Callers whose token is taken away.

#[test]
fn all_that_a_caller_has_begun_ends_with_its_token_and_others_go_on() {
    let of = |caller: u8| Mirrored { caller: Some([caller; 32]), params: Vec::new() };
    let mut session = Harness::upgrade(UPGRADED, KIN);
    session.send_as(1, &Ask::new("1", "server/discover"), &of(1), Takes::Events);
    session.send_as(2, &Ask::new("1", "server/discover"), &of(2), Takes::Events);
    session.send_as(3, &Ask::tool("2"), &of(1), Takes::Events);
    let keeps = |caller: &[u8; 32]| *caller == [2; 32];
    let take_away = |session: &mut Harness<Upgrade>| {
        session.front.keep_callers(&keeps, session.now, &mut session.out);
        session.front.check();
        let mut outputs = told(session.outputs());
        outputs.sort_by_key(|output| match output {
            Output::Unanswered { stream, .. } => stream.0,
            other => panic!("{other:?}"),
        });
        outputs
    };
    let revoked = |stream, id| unanswered(stream, id, Unanswered::Revoked);
    assert_eq!(take_away(&mut session), [revoked(1, "1"), revoked(3, "2")]);
    assert_eq!(session.says(&greeting(LISTENED)).len(), 1, "the other one discovers");
    session.stdin();
    for (caller, first) in [(1, 10), (2, 20)] {
        let mirrored = of(caller);
        session.send_as(first, &listen("1", r#"{"toolsListChanged":true}"#), &mirrored, Takes::Events);
        let ask = Ask { method: "prompts/get", ..Ask::able("2") };
        session.send_as(first + 1, &ask, &mirrored, Takes::Events);
        session.says(&elicitation(&format!("{first}"), "?"));
        session.asked(first + 1, "2", &[("elicitation_1", &elicited("?"))]);
        session.pass(secs(2));
        session.send_as(first + 2, &Ask::new("3", "prompts/list"), &mirrored, Takes::Events);
        session.send_as(first + 3, &Ask::tool("4"), &mirrored, Takes::Events);
    }
    session.stdin();
    assert_eq!(take_away(&mut session), [revoked(10, "1"), revoked(12, "3"), revoked(13, "4")]);
    assert!(session.stdin().contains(&given_up("10")), "who was away does not come back");
    assert_eq!(session.front.in_flight(), 2);
    assert_eq!(session.front.parked.running().len(), 1);
    assert_eq!(take_away(&mut session), []);
}

#[test]
fn what_the_child_leaves_unanswered_of_the_bridges_own_is_bounded_and_takes_no_place_of_a_call() {
    let mut session = Harness::greeted(Limits { max_in_flight: 3, ..UPGRADED }, STRANGERS, CAPABILITIES);
    for number in 0..2 * MAX_OWN as u64 {
        let level = if number % 2 == 0 { "debug" } else { "error" };
        let id = session.passed(number + 2, &Ask::tool("7").level(level));
        assert_eq!(told(session.says(&child_result(&id, ""))).len(), 1, "{number}");
    }
    assert!(session.front.link.in_flight() <= MAX_OWN);
    let mut session = Harness::shared(STRANGERS);
    let uris: Vec<_> = (0..900).map(|number| format!("\"x:{number}\"")).collect();
    let wants = format!(r#""notifications":{{"resourceSubscriptions":[{}]}}"#, uris.join(","));
    let ask = Ask::new("7", "subscriptions/listen").with(&wants);
    let mut refused = 0;
    for stream in 2..40 {
        refused += told(session.send(stream, &ask)).len();
        session.leave(stream);
        session.stdin();
    }
    assert!(refused > 30 && session.front.link.in_flight() <= 4 * MAX_OWN, "who comes and goes is told so");
    session.passed(50, &Ask::tool("8"));
    session.leave(50);
    session.pass(crate::proto::link::OWN_LIMIT);
    assert_eq!(told(session.send(60, &ask)), [], "each of them has its time");
    session.leave(60);
    session.pass(crate::proto::link::OWN_LIMIT);
    session.assert_empty();
}
