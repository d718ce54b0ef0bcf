//! P1: each child sees exactly one `initialize` and one `notifications/initialized`, in that order, before anything else
//! but `ping`, whatever clients do.

use std::collections::HashSet;
use std::thread;

use crate::support::{
    Bridge, Request, Session, Value, assert_refused, eventually, initialize, json, text_of, tool_call,
};

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Both halves of the handshake came once, and no request but `ping` came in between.
#[track_caller]
fn assert_one_handshake(session: &Session) {
    let seen: Vec<Value> = session.seen().into_iter().filter(|entry| entry["method"] != "ping").collect();
    let methods: Vec<&str> = seen.iter().filter_map(|entry| entry["method"].as_str()).collect();
    assert_eq!(methods[..2], ["initialize", "notifications/initialized"], "the child saw {methods:?}");
    let again = methods[2..].iter().filter(|method| methods[..2].contains(method)).count();
    assert_eq!(again, 0, "the child saw {methods:?}");
}

#[test]
fn a_request_before_initialized_waits_for_it() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.initialize();
    let early = session.begin(tool_call(1, "list_notes", json!({})).to_string());
    session.ping().expect(200, "ping needs no handshake");
    session.notify("notifications/initialized", json!({}));
    assert_eq!(text_of(&early.response().answer()), "no notes yet");
}

#[test]
fn many_early_requests_all_reach_the_child_after_the_handshake() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.initialize();
    let early: Vec<_> = (0..20)
        .map(|n| session.begin(tool_call(n, "echo", json!({ "text": n.to_string() })).to_string()))
        .collect();
    session.ping().expect(200, "ping needs no handshake");
    session.notify("notifications/initialized", json!({}));
    for (n, early) in early.into_iter().enumerate() {
        let answer = early.response().answer();
        assert_eq!((&answer["id"], text_of(&answer)), (&json!(n), n.to_string()));
    }
    assert_one_handshake(&session);
}

#[test]
fn a_client_that_never_sends_initialized_is_served_all_the_same() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.initialize();
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    assert_one_handshake(&session);
    session.notify("notifications/initialized", json!({}));
    assert_one_handshake(&session);
}

#[test]
fn an_initialized_with_an_id_is_taken_for_what_it_means_and_answered() {
    for early in [false, true] {
        let bridge = Bridge::start(&[], &["hostile", "strict"]);
        let session = bridge.initialize();
        if early {
            session.notify("notifications/initialized", json!({}));
        }
        for id in [json!(1), json!("one"), json!(1)] {
            let request = json!({ "jsonrpc": "2.0", "id": id, "method": "notifications/initialized" });
            let mut response = session.post(request.to_string());
            response.expect(200, "a request is answered");
            assert_eq!(response.answer(), json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
        }
        assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
        assert_one_handshake(&session);
        let told = session.seen().into_iter().find(|entry| entry["method"] == "notifications/initialized");
        assert_eq!(told.unwrap().get("id"), None, "the child is told, and not asked");
    }
}

#[test]
fn a_repeated_initialized_reaches_the_child_once() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.initialize();
    for _ in 0..5 {
        session.notify("notifications/initialized", json!({}));
    }
    assert_one_handshake(&session);
}

#[test]
fn parallel_initialized_notifications_reach_the_child_once() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.initialize();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| session.post(INITIALIZED).expect(202, "a repeated initialized is accepted"));
        }
    });
    assert_one_handshake(&session);
}

#[test]
fn a_second_initialize_is_refused_and_never_reaches_the_child() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.session();
    let mut again = session.post(initialize("again", "2025-06-18").to_string());
    let refusal = assert_refused(&mut again, 400, "already_initialized");
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("again"), &json!(-32600)));
    assert_one_handshake(&session);
    assert_eq!(session.text("echo", json!({ "text": "unharmed" })), "unharmed");
}

#[test]
fn a_second_initialize_is_refused_even_before_initialized() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.initialize();
    assert_refused(&mut session.post(initialize(1, "2025-06-18").to_string()), 400, "already_initialized");
    session.notify("notifications/initialized", json!({}));
    assert_one_handshake(&session);
}

#[test]
fn parallel_initializes_without_a_session_make_one_session_and_one_child_each() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let sessions: Vec<Session> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| bridge.session())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let ids: HashSet<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
    let pids: HashSet<u64> =
        sessions.iter().map(|session| session.look("whoami")["pid"].as_u64().unwrap()).collect();
    assert_eq!((ids.len(), pids.len()), (8, 8));
}

#[test]
fn the_answer_to_initialize_is_the_childs_own() {
    let bridge = Bridge::start(&[], &["notebook"]);
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = bridge.initialize_as(version);
        assert_eq!(session.greeting["id"], 0);
        assert_eq!(session.greeting["result"]["protocolVersion"], version);
        assert_eq!(session.greeting["result"]["serverInfo"]["name"], "notebook");
        let capabilities = json!({
            "tools": { "listChanged": true },
            "resources": { "subscribe": true, "listChanged": true },
            "logging": {},
        });
        assert_eq!(session.greeting["result"]["capabilities"], capabilities, "capabilities are not edited");
    }
}

#[test]
fn an_early_notification_reaches_the_child_after_the_handshake() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.initialize();
    session.notify("notifications/roots/list_changed", json!({}));
    session.notify("notifications/initialized", json!({}));
    assert_one_handshake(&session);
    assert_eq!(session.seen_count("notifications/roots/list_changed"), 1);
}

#[test]
fn a_stream_may_be_opened_before_initialized() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.initialize();
    let mut stream = session.listen();
    session.notify("notifications/initialized", json!({}));
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    assert_eq!(stream.message()["method"], "notifications/resources/list_changed");
}

#[test]
fn requests_wait_while_the_child_takes_its_time_to_start() {
    let bridge = Bridge::start(&[], &["hostile", "slow_init", "700"]);
    let session = bridge.session();
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
}

#[test]
fn a_child_that_refuses_to_initialize_makes_no_session() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "refuse_init"]);
    let mut response = bridge.post(initialize(7, "2025-06-18").to_string());
    response.expect(200, "the child's own error is passed on");
    assert_eq!(response.header("mcp-session-id"), None);
    let answer = response.answer();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));
    assert_eq!(answer["error"]["message"], "this server cannot start: no licence");
    eventually("the child is gone", || bridge.processes().is_empty());
}

#[test]
fn an_initialize_for_an_unknown_session_makes_none() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let request = Request::post("/mcp", initialize(1, "2025-06-18").to_string());
    let mut response = bridge.send(request.header("Mcp-Session-Id", "chosen-by-the-client"));
    response.expect(404, "session ids are never chosen by the client");
    assert_eq!(response.header("mcp-session-id"), None);
}
