//! Children that answer `initialize` before they are ready: `--ready-delay`, `--ready-retry`, `--ready-timeout`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Bridge, Request, json, text_of, tool_call};

const RETRY: [&str; 2] = ["--ready-retry", "is not ready"];

#[test]
fn a_child_that_is_not_ready_for_five_seconds_is_asked_again_while_the_client_is_kept_waiting() {
    let bridge =
        Bridge::start(&[&RETRY[..], &["--keep-alive", "300ms"]].concat(), &["hostile", "not_ready", "5000"]);
    let session = bridge.session();
    let start = Instant::now();
    let mut response = session.start_call("echo", json!({ "text": "a\u{e9}\n" }));
    assert!(start.elapsed() < Duration::from_secs(4), "the stream begins while the child is not ready");
    response.wait_for_comments(3);
    assert_eq!(text_of(&response.answer()), "a\u{e9}\n", "one answer, and it is the last one");
    assert!(start.elapsed() >= Duration::from_secs(3), "the child refused it for long enough");
    let calls: Vec<_> = session.seen().into_iter().filter(|entry| entry["method"] == "tools/call").collect();
    let ids: BTreeSet<String> = calls.iter().map(|entry| entry["id"].to_string()).collect();
    assert!((4..20).contains(&calls.len()), "it was asked again, and not in haste: {calls:?}");
    assert_eq!(ids.len(), calls.len(), "each time under an id of its own");
    let line = bridge.logged("it is told", |line| line.contains("child.not_ready"));
    assert!(line.contains(&session.id[..8]), "{line}");
}

#[test]
fn a_client_that_takes_json_alone_waits_too() {
    let bridge = Bridge::start(&RETRY, &["hostile", "not_ready", "700"]);
    let session = bridge.session();
    let call = tool_call("\u{61}", "echo", json!({ "text": "a" })).to_string();
    let request = session.headers(Request::post("/mcp", call)).with("Accept", "application/json");
    let mut response = bridge.send(request);
    assert!(!response.is_sse());
    let answer = response.answer();
    assert_eq!((text_of(&answer).as_str(), &answer["id"]), ("a", &json!("a")));
    assert!(session.seen_count("tools/call") > 2, "it was refused at first");
}

#[test]
fn a_refusal_of_another_kind_comes_at_once() {
    let bridge = Bridge::start(&["--ready-retry", "still loading"], &["hostile", "not_ready", "60000"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({ "text": "a" }));
    assert_eq!(answer["error"], json!({ "code": -32603, "message": "server is not ready" }));
    assert_eq!(session.seen_count("tools/call"), 2, "once, and the question about it");
}

#[test]
fn without_ready_retry_a_refusal_is_passed_on() {
    let bridge = Bridge::start(&[], &["hostile", "not_ready", "60000"]);
    let answer = bridge.session().call("echo", json!({ "text": "a" }));
    assert_eq!(answer["error"], json!({ "code": -32603, "message": "server is not ready" }));
}

#[test]
fn a_child_that_stays_not_ready_is_believed_in_the_end() {
    let options = [&RETRY[..], &["--ready-timeout", "1s"]].concat();
    let bridge = Bridge::start(&options, &["hostile", "not_ready", "60000"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({ "text": "a" }));
    assert_eq!(answer["error"]["message"], "server is not ready");
    assert!(session.seen_count("tools/call") > 2, "it was asked more than once");
}

#[test]
fn a_call_that_waits_to_be_sent_again_can_be_cancelled() {
    let bridge = Bridge::start(&RETRY, &["hostile", "not_ready", "60000"]);
    let session = bridge.session();
    let mut response = session.post(tool_call(7, "echo", json!({ "text": "a" })).to_string());
    bridge.logged("it is refused", |line| line.contains("child.not_ready"));
    session.notify("notifications/cancelled", json!({ "requestId": 7 }));
    let reason = response.answer()["error"]["data"]["reason"].clone();
    // It waits most of the time; in between the child has it, and answers the cancelled call.
    assert!(reason == "cancelled" || reason.is_null(), "{reason}");
}

#[test]
fn ready_delay_holds_the_first_requests_back_and_no_later_ones() {
    let bridge = Bridge::start(&["--ready-delay", "2s"], &["hostile", "not_ready", "500"]);
    let start = Instant::now();
    let session = bridge.session();
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a", "the child was never asked too early");
    assert!(start.elapsed() >= Duration::from_secs(2), "held back: {:?}", start.elapsed());
    let start = Instant::now();
    session.text("echo", json!({ "text": "b" }));
    assert!(start.elapsed() < Duration::from_secs(2), "the delay is over: {:?}", start.elapsed());
}
