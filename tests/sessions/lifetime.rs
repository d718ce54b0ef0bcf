//! How long a session lives: `--idle-timeout`, `--max-lifetime`, `--evict`.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Bridge, Value, assert_refused, eventually, initialize, json, text_of};

#[test]
fn an_idle_session_ends() {
    let bridge = Bridge::start(&["--idle-timeout", "500ms", "--lazy"], &["notebook"]);
    let session = bridge.session();
    bridge.leaves_nothing();
    let mut response = session.ping();
    response.expect(404, "the session was idle for too long");
    let answer = response.json();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32001)));
    assert!(answer.to_string().contains("idle"), "the cause is told: {answer}");
}

#[test]
fn use_keeps_a_session_from_being_idle() {
    let bridge = Bridge::start(&["--idle-timeout", "700ms"], &["notebook"]);
    let session = bridge.session();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        session.ping().expect(200, "the session is in use");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_long_call_and_a_listener_keep_a_session_from_being_idle() {
    let bridge = Bridge::start(&["--idle-timeout", "400ms"], &["notebook"]);
    let (busy, listening) = (bridge.session(), bridge.session());
    let mut stream = listening.listen();
    let mut call = busy.start_call("slow", json!({ "seconds": 1.5 }));
    assert_eq!(text_of(&call.answer()), "waited 1.5 s");
    listening.text("add_note", json!({ "title": "a", "text": "b" }));
    assert_eq!(stream.message()["method"], "notifications/resources/list_changed");
}

#[test]
fn a_session_ends_at_its_maximum_lifetime_even_when_it_is_used() {
    let bridge = Bridge::start(&["--max-lifetime", "700ms"], &["notebook"]);
    let session = bridge.session();
    eventually("the session ends", || session.ping().status == 404);
}

#[test]
fn with_evict_the_longest_idle_session_makes_room() {
    let bridge = Bridge::start(&["--max-sessions", "2", "--evict", "--lazy"], &["notebook"]);
    let (oldest, middle) = (bridge.session(), bridge.session());
    oldest.ping().expect(200, "now the other one is the longest idle");
    let _newest = bridge.session();
    assert_eq!((oldest.ping().status, middle.ping().status), (200, 404));
}

#[test]
fn evict_spares_sessions_that_are_in_use() {
    let bridge = Bridge::start(&["--max-sessions", "2", "--evict", "--lazy"], &["notebook"]);
    let (busy, listening) = (bridge.session(), bridge.session());
    let mut call = busy.start_call("slow", json!({ "seconds": 1 }));
    let _stream = listening.listen();
    let mut third = bridge.post(initialize(0, "2025-06-18").to_string());
    assert_refused(&mut third, 503, "too_many_sessions");
    assert_eq!(text_of(&call.answer()), "waited 1 s");
}
