//! Sessions for clients that carry no `Mcp-Session-Id`: named by a header the operator chose, or shared by all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test shall fail loudly")]

mod support;

use support::{
    Bridge, Request, Response, Value, assert_refused, eventually, initialize, json, text_of, tool_call,
};

fn post(bridge: &Bridge, key: Option<&str>, body: &Value) -> Response {
    let request = Request::post("/mcp", body.to_string());
    bridge.send(match key {
        Some(key) => request.header("Authorization", key),
        None => request,
    })
}

fn call(bridge: &Bridge, key: &str, tool: &str, arguments: Value) -> String {
    text_of(&post(bridge, Some(key), &tool_call(1, tool, arguments)).answer())
}

#[test]
fn requests_with_the_same_key_share_a_session_without_any_handshake() {
    let bridge = Bridge::start(&["--session-key", "header:Authorization", "--lazy"], &["notebook"]);
    assert_eq!(
        call(&bridge, "key of ada", "add_note", json!({ "title": "a", "text": "b" })),
        "note 1 saved: a"
    );
    assert_eq!(call(&bridge, "key of ada", "list_notes", json!({})), "1. a");
    assert_eq!(call(&bridge, "key of grace", "list_notes", json!({})), "no notes yet");
    assert_eq!(bridge.processes().len(), 2);
}

#[test]
fn a_repeated_initialize_with_the_same_key_is_answered_without_the_child() {
    let bridge = Bridge::start(&["--session-key", "header:Authorization", "--lazy"], &["hostile", "strict"]);
    for id in 0..3 {
        let mut response = post(&bridge, Some("key"), &initialize(id, "2025-06-18"));
        response.expect(200, "initialize");
        let answer = response.answer();
        assert_eq!((&answer["id"], &answer["result"]["serverInfo"]["name"]), (&json!(id), &json!("hostile")));
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        post(&bridge, Some("key"), &initialized).expect(202, "initialized");
    }
    let seen: Value = serde_json::from_str(&call(&bridge, "key", "seen", json!({}))).unwrap();
    let methods: Vec<&Value> = seen.as_array().unwrap().iter().map(|entry| &entry["method"]).collect();
    assert_eq!(methods, ["initialize", "notifications/initialized", "tools/call"]);
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn parallel_first_requests_of_one_key_start_one_child() {
    let bridge = Bridge::start(&["--session-key", "header:Authorization", "--lazy"], &["notebook"]);
    let pids: std::collections::HashSet<String> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..8).map(|_| scope.spawn(|| call(&bridge, "key", "whoami", json!({})))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(pids.len(), 1);
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn equal_ids_of_clients_that_share_a_key_do_not_meet() {
    let bridge = Bridge::start(&["--session-key", "shared", "--lazy"], &["notebook"]);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let bridge = &bridge;
            scope.spawn(move || {
                let text = n.to_string();
                let arguments = json!({ "seconds": 0.1, "text": text });
                let mut response = post(bridge, None, &tool_call(1, "slow", arguments));
                response.expect(200, "different clients may use the same id at the same time");
                assert_eq!(text_of(&response.answer()), format!("waited 0.1 s: {text}"));
            });
        }
    });
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn a_request_without_the_key_is_refused() {
    let bridge = Bridge::start(&["--session-key", "header:Authorization"], &["notebook"]);
    let mut response = post(&bridge, None, &tool_call("me", "list_notes", json!({})));
    let refusal = assert_refused(&mut response, 400, "session_required");
    assert_eq!(refusal["id"], "me");
}

#[test]
fn a_key_gets_a_new_child_after_its_session_ended() {
    let bridge = Bridge::start(&["--session-key", "header:Authorization", "--lazy"], &["notebook"]);
    call(&bridge, "key", "add_note", json!({ "title": "a", "text": "b" }));
    let crash = post(&bridge, Some("key"), &tool_call(1, "crash", json!({ "code": 1 }))).answer();
    assert_eq!(support::reason(&crash), "child_exited");
    eventually("the key is free again", || {
        post(&bridge, Some("key"), &tool_call(1, "list_notes", json!({}))).status == 200
    });
    assert_eq!(call(&bridge, "key", "list_notes", json!({})), "no notes yet");
}

#[test]
fn keys_are_never_logged() {
    let bridge = Bridge::start_with(&["--session-key", "header:Authorization"], &["notebook"], |bridge| {
        bridge.env("RUST_LOG", "debug");
    });
    call(&bridge, "a-secret-key", "list_notes", json!({}));
    assert!(!bridge.log().join("\n").contains("a-secret-key"));
}
