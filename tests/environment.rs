//! What a child gets from the environment of the bridge.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test shall fail loudly")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use support::{Bridge, Request, Scratch, Session, Value, initialize, json};

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
fn the_environment_of_a_child_can_be_chosen() {
    let set = environment(&["--env", "A=1", "--env", "B=x=y"], |bridge| {
        bridge.env("A", "old");
    });
    assert_eq!((&set["A"], &set["B"]), (&json!("1"), &json!("x=y")));

    let clean = environment(&["--clean-env", "--pass-env", "KEPT", "--env", "A=1"], |bridge| {
        bridge.env("KEPT", "yes").env("DROPPED", "no");
    });
    assert_eq!((&clean["KEPT"], &clean["A"], &clean["DROPPED"]), (&json!("yes"), &json!("1"), &Value::Null));
    assert!(clean["PATH"].is_string(), "a program without PATH finds nothing");
}

#[test]
fn a_variable_may_come_from_a_header_of_initialize() {
    let bridge = Bridge::start(&["--env-from-header", "USER_NAME=X-User"], &["hostile", "good"]);
    for user in ["ada", "grace"] {
        let request = Request::post("/mcp", initialize(0, "2025-06-18").to_string()).header("X-User", user);
        let session = Session::from_response(bridge.address, &mut bridge.send(request));
        assert_eq!(session.look("echo_env")["USER_NAME"], user);
    }
    assert_eq!(bridge.session().look("echo_env")["USER_NAME"], Value::Null);
}

#[test]
fn a_child_runs_where_it_is_told_to() {
    let scratch = Scratch::new();
    let directory = scratch.path("");
    let bridge = Bridge::start(&["--cwd", &directory], &["notebook"]);
    let cwd = bridge.session().look("whoami")["cwd"].as_str().unwrap().to_owned();
    assert_eq!(cwd.trim_end_matches('/'), directory.trim_end_matches('/'));
}
