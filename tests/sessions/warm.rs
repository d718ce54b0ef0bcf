//! Children that are started before a session needs them, and the option not to.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::{Bridge, Request, eventually, example, initialize, json};

#[test]
fn a_child_started_ahead_is_the_child_of_the_first_session() {
    let bridge = Bridge::start(&[], &["notebook"]);
    eventually("one child is started ahead", || bridge.processes().len() == 1);
    let ahead = bridge.processes()[0].pid;
    assert_eq!(bridge.session().look("whoami")["pid"], ahead);
}

#[test]
fn a_lazy_bridge_starts_no_child_before_the_first_session() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    bridge.get("/healthz").expect(200, "the bridge lives");
    assert_eq!(bridge.processes(), []);
    assert_eq!(bridge.session().text("list_notes", json!({})), "no notes yet");
}

/// A server that needs its time before it reads anything, as interpreters do; here five seconds, elsewhere ninety.
const SLOW: [&str; 3] = ["sh", "-c", r#"sleep 5; exec "$0" good"#];

#[test]
fn a_server_that_starts_slowly_answers_its_client_at_once_if_it_was_kept_warm() {
    let server = example("hostile");
    let bridge = Bridge::start(&["--warm", "1"], &[SLOW[0], SLOW[1], SLOW[2], &server]);
    let has_started = || bridge.processes().iter().any(|process| process.name == "hostile");
    eventually("the server has had its time", has_started);
    let begun = Instant::now();
    let session = bridge.session();
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    assert!(begun.elapsed() < Duration::from_secs(4), "not after a start: {:?}", begun.elapsed());
}

#[test]
fn a_client_of_a_server_that_starts_slowly_is_kept_on_the_line() {
    let server = example("hostile");
    let options = ["--lazy", "--keep-alive", "200ms"];
    let bridge = Bridge::start(&options, &[SLOW[0], SLOW[1], SLOW[2], &server]);
    let request = Request::post("/mcp", initialize(1, "2025-06-18").to_string());
    let mut response = bridge.send(request);
    assert!(response.is_sse(), "its head comes long before the answer");
    let text = response.text();
    assert!(text.matches(": keep-alive").count() >= 5, "{text}");
    assert!(text.contains("serverInfo"), "{text}");
}

#[test]
fn warm_children_are_replaced_as_they_are_taken() {
    let bridge = Bridge::start(&["--warm", "2"], &["notebook"]);
    for sessions in 0..3 {
        eventually("two children are ready", || bridge.processes().len() == sessions + 2);
        let ready: HashSet<u64> = bridge.processes().iter().map(|process| process.pid.into()).collect();
        let taken = bridge.session().look("whoami")["pid"].as_u64().unwrap();
        assert!(ready.contains(&taken), "a session takes a child that is ready");
    }
}
