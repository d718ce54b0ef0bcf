//! `--on-exit respawn`: a session that outlives its child.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test shall fail loudly")]

mod support;

use support::{Bridge, Scratch, eventually, example, json, reason};

#[test]
fn a_respawned_child_is_greeted_once_too_and_the_session_lives_on() {
    let bridge = Bridge::start(&["--on-exit", "respawn"], &["hostile", "strict"]);
    let session = bridge.session();
    let first = session.look("pids")["pid"].clone();
    let lost = session.call("exit", json!({ "code": 3 }));
    assert_eq!(reason(&lost), "child_exited");
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    assert_ne!(session.look("pids")["pid"], first);
    let seen = session.seen();
    let methods: Vec<&str> = seen.iter().filter_map(|entry| entry["method"].as_str()).collect();
    assert_eq!(methods[..2], ["initialize", "notifications/initialized"], "the new child saw {methods:?}");
    assert!(methods[2..].iter().all(|method| *method == "tools/call"), "the new child saw {methods:?}");
}

#[test]
fn a_respawned_child_gets_the_log_level_and_the_subscriptions_back() {
    let bridge = Bridge::start(&["--on-exit", "respawn"], &["notebook"]);
    let session = bridge.session();
    session.request("logging/setLevel", json!({ "level": "error" }));
    session.request("resources/subscribe", json!({ "uri": "note:///a" }));
    session.call("crash", json!({ "signal": "KILL" }));

    let mut logged = session.start_call("log", json!({ "level": "warning", "message": "below the level" }));
    assert_eq!(logged.messages().len(), 1, "the level is still error");
    let mut stream = session.listen();
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    let methods: Vec<String> =
        (0..2).map(|_| stream.message()["method"].as_str().unwrap().to_owned()).collect();
    assert_eq!(methods, ["notifications/resources/list_changed", "notifications/resources/updated"]);
}

#[test]
fn a_call_that_crashes_its_child_says_so_under_respawn_and_the_next_call_works() {
    let bridge = Bridge::start(&["--on-exit", "respawn"], &["notebook"]);
    let session = bridge.session();
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    let lost = session.call("crash", json!({ "code": 3 }));
    assert_eq!(reason(&lost), "child_exited");
    let text = lost["error"]["message"].as_str().unwrap().to_lowercase();
    assert!(text.contains("state") || text.contains("memory"), "it says that state was lost: {text}");
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
}

#[test]
fn a_child_that_crashes_at_every_respawn_ends_its_session_in_the_end() {
    let scratch = Scratch::new();
    // The first process serves, all later ones die at once.
    let script = r#"if mkdir "$1" 2>/dev/null; then exec "$0" good; else exit 9; fi"#;
    let command = ["sh", "-c", script, &example("hostile"), &scratch.path("taken")];
    let bridge = Bridge::start(&["--lazy", "--on-exit", "respawn"], &command);
    let session = bridge.session();
    session.call("exit", json!({ "code": 1 }));
    eventually("the session is given up", || session.ping().status == 404);
}
