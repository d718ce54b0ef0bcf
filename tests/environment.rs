//! What a child gets from the environment of the bridge.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test shall fail loudly")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use support::{Bridge, Scratch, Value};

fn environment(options: &[&str], change: impl FnOnce(&mut Command)) -> Value {
    Bridge::start_with(options, &["hostile", "good"], change).session().look("echo_env")
}

#[test]
fn a_child_inherits_the_environment_but_no_option_of_the_bridge() {
    let seen = environment(&[], |bridge| {
        bridge.env("APP_KEY", "value").env("MCP_BRIDGE_MAX_SESSIONS", "5");
    });
    assert_eq!(seen["APP_KEY"], "value");
    let names: BTreeSet<&String> = seen.as_object().unwrap().keys().collect();
    assert!(!names.iter().any(|name| name.starts_with("MCP_BRIDGE_MAX")), "{names:?}");
}

#[test]
fn what_a_service_manager_tells_the_bridge_is_not_for_children() {
    let seen = environment(&[], |bridge| {
        bridge.env("NOTIFY_SOCKET", "/run/x").env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    });
    for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"] {
        assert_eq!(seen[name], Value::Null, "a child would act in the name of the bridge");
    }
}

#[test]
fn a_child_runs_where_it_is_told_to() {
    let scratch = Scratch::new();
    let directory = scratch.path("");
    let bridge = Bridge::start(&["--cwd", &directory], &["notebook"]);
    let cwd = bridge.session().look("whoami")["cwd"].as_str().unwrap().to_owned();
    assert_eq!(cwd.trim_end_matches('/'), directory.trim_end_matches('/'));
}
