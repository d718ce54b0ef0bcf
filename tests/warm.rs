//! Children that are started before a session needs them, and the option not to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test shall fail loudly")]

mod support;

use std::collections::HashSet;

use support::{Bridge, eventually, json};

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
