//! What a child gets from the environment of the bridge.

use std::collections::BTreeSet;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{
    self, Bridge, Request, Response, Scratch, Session, Value, assert_refused, initialize, json, reason, run,
    tool_call,
};

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
    let set = environment(
        &["--env", "A=1", "--env", "B=x=y", "--env", "C=", "--env", "D=1", "--env", "D=2"],
        |bridge| {
            bridge.env("A", "old").env("C", "old");
        },
    );
    assert_eq!((&set["A"], &set["B"]), (&json!("1"), &json!("x=y")));
    assert_eq!(
        (&set["C"], &set["D"]),
        (&json!(""), &json!("2")),
        "empty is a value, and the last one counts"
    );

    let clean = environment(&["--clean-env", "--pass-env", "KEPT", "--env", "A=1"], |bridge| {
        bridge.env("KEPT", "yes").env("DROPPED", "no");
    });
    assert_eq!((&clean["KEPT"], &clean["A"], &clean["DROPPED"]), (&json!("yes"), &json!("1"), &Value::Null));
    assert!(clean["PATH"].is_string(), "a program without PATH finds nothing");
}

#[test]
fn a_clean_environment_has_what_every_program_expects_and_nothing_else() {
    let options = ["--clean-env", "--pass-env", "KEPT", "--pass-env", "FUNCTION", "--pass-env", "NOT_THERE"];
    let expected = ["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"];
    let seen = environment(&options, |bridge| {
        let path = std::env::var_os("PATH").unwrap();
        bridge.env_clear().envs(expected.map(|name| (name, "x"))).env("PATH", path);
        bridge.env("KEPT", "yes").env("FUNCTION", "() { :; }").env("DROPPED", "no").env("LANG", "C");
    });
    let names: BTreeSet<&str> = seen.as_object().unwrap().keys().map(String::as_str).collect();
    // The bridge's own mark on what its children leave behind.
    let all: BTreeSet<&str> = expected.into_iter().chain(["KEPT", "MCP_BRIDGE_CHILD"]).collect();
    assert_eq!(names, all, "a value that an old bash would run is not passed on either");
}

#[test]
fn a_child_runs_where_it_is_told_to() {
    let scratch = Scratch::new();
    let directory = scratch.path("");
    let bridge = Bridge::start(&["--cwd", &directory], &["notebook"]);
    let cwd = bridge.session().look("whoami")["cwd"].as_str().unwrap().to_owned();
    assert_eq!(cwd.trim_end_matches('/'), directory.trim_end_matches('/'));
}

// ---------------------------------------------------------------------------------------------- from a header

const OPTION: &[&str] = &["--env-from-header", "USER_KEY=X-User-Key"];

fn hello() -> Request {
    Request::post("/mcp", initialize(0, "2025-06-18").to_string())
}

/// A session that was opened with this header.
#[track_caller]
fn session_of(bridge: &Bridge, key: &str) -> Session {
    let mut response = bridge.send(hello().header("X-User-Key", key));
    response.expect(200, "a session");
    Session::from_response(bridge.address, &mut response)
}

fn key(session: &Session) -> Value {
    session.look("echo_env")["USER_KEY"].clone()
}

#[test]
fn each_session_has_the_value_that_its_own_client_sent() {
    let bridge = Bridge::start(OPTION, &["hostile", "good"]);
    let users: Vec<String> = (0..8).map(|n| format!("key of user {n}")).collect();
    let sessions: Vec<Session> = std::thread::scope(|scope| {
        let opening: Vec<_> = users.iter().map(|user| scope.spawn(|| session_of(&bridge, user))).collect();
        opening.into_iter().map(|session| session.join().unwrap()).collect()
    });
    let without = bridge.session();
    for (user, session) in users.iter().zip(&sessions) {
        assert_eq!(key(session), *user);
    }
    assert_eq!(key(&without), Value::Null, "no header, no variable");
}

#[test]
fn several_headers_become_several_variables_whatever_their_case() {
    let options = [
        "--env-from-header",
        "A_KEY=x-first",
        "--env-from-header",
        "b_2!=X-Second",
        "--env-from-header",
        "C!=X-Third",
    ];
    let bridge = Bridge::start(&options, &["hostile", "good"]);
    let request = hello().header("X-FIRST", "1").header("x-second", "two, and = more");
    let seen = Session::from_response(bridge.address, &mut bridge.send(request)).look("echo_env");
    assert_eq!((&seen["A_KEY"], &seen["b_2"]), (&json!("1"), &json!("two, and = more")));
    assert_eq!(
        (&seen["C"], &seen["X_FIRST"], &seen["HTTP_X_FIRST"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn without_the_option_no_header_reaches_a_child() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let request =
        hello().header("X-User-Key", "canary").header("User-Agent", "canary").header("Cookie", "canary");
    let session = Session::from_response(bridge.address, &mut bridge.send(request));
    assert!(!session.look("echo_env").to_string().contains("canary"));
}

#[test]
fn an_absent_header_is_an_unset_variable_even_where_the_bridge_has_it() {
    let bridge = Bridge::start_with(OPTION, &["hostile", "good"], |bridge| {
        bridge.env("USER_KEY", "of the operator");
    });
    assert_eq!(key(&session_of(&bridge, "of the user")), "of the user");
    assert_eq!(key(&bridge.session()), Value::Null, "nobody acts with the operator's own credentials");
    assert_eq!(key(&session_of(&bridge, "")), Value::Null, "an empty header is absent");
}

#[test]
fn a_header_wins_over_a_variable_that_the_operator_set() {
    let bridge = Bridge::start(&[OPTION, &["--env", "USER_KEY=default"]].concat(), &["hostile", "good"]);
    assert_eq!(key(&session_of(&bridge, "of the user")), "of the user");
}

#[test]
fn a_clean_environment_has_the_variables_from_headers_too() {
    let bridge = Bridge::start(&[OPTION, &["--clean-env"]].concat(), &["hostile", "good"]);
    assert_eq!(key(&session_of(&bridge, "of the user")), "of the user");
}

#[test]
fn a_value_is_up_to_8_kib_of_visible_characters_and_blanks() {
    let bridge = Bridge::start(OPTION, &["hostile", "good"]);
    let longest = "x".repeat(8 * 1024);
    for value in ["a b", "!~", &longest] {
        assert_eq!(key(&session_of(&bridge, value)), value);
    }
    let before = bridge.processes();
    let too_long = format!("{longest}x");
    for value in [&too_long, "a\tb", "ä", "a\u{80}b"] {
        let mut refused = bridge.send(hello().header("X-User-Key", value));
        let answer = assert_refused(&mut refused, 400, "invalid_request");
        assert_eq!(refused.header("mcp-session-id"), None, "{value:?}");
        assert_eq!(answer["id"], 0, "initialize failed: {answer}");
        assert!(value.len() > 9 || !answer.to_string().contains(value), "it is not given back: {answer}");
    }
    // No header at all for any server (RFC 9110 §5.5).
    for value in ["a\u{1}b", "a\u{0}b", "a\u{7f}b", "a\u{1b}b"] {
        let refused = bridge.send(hello().header("X-User-Key", value));
        assert_eq!(refused.status, 400, "{value:?}");
        assert_eq!(refused.header("mcp-session-id"), None, "{value:?}");
    }
    assert_refused(
        &mut bridge.send(hello().header("X-User-Key", "a").header("x-user-key", "a")),
        400,
        "invalid_request",
    );
    assert_eq!(bridge.processes(), before, "no child was started for any of them");
}

#[test]
fn a_value_cannot_bring_a_second_variable() {
    let bridge = Bridge::start(OPTION, &["hostile", "good"]);
    let mut response: Response = bridge.send(hello().header("X-User-Key", "a LD_PRELOAD=/x USER_NAME=b"));
    let seen = Session::from_response(bridge.address, &mut response).look("echo_env");
    assert_eq!(seen["USER_KEY"], "a LD_PRELOAD=/x USER_NAME=b");
    assert_eq!((&seen["LD_PRELOAD"], &seen["USER_NAME"]), (&Value::Null, &Value::Null));
}

#[test]
fn later_requests_change_nothing() {
    let bridge = Bridge::start(OPTION, &["hostile", "good"]);
    let (with, without) = (session_of(&bridge, "first"), bridge.session());
    for (session, expected) in [(&with, json!("first")), (&without, Value::Null)] {
        for values in [&["second"][..], &["a", "b"], &["ä"]] {
            let call = tool_call(1, "echo_env", json!({})).to_string();
            let request = session.headers(Request::post("/mcp", call));
            let request = values.iter().fold(request, |request, value| request.header("X-User-Key", value));
            let mut response = bridge.send(request);
            response.expect(200, "only initialize is looked at");
            let seen: Value = serde_json::from_str(&support::text_of(&response.answer())).unwrap();
            assert_eq!(seen["USER_KEY"], expected, "{values:?}");
        }
    }
}

#[test]
fn a_respawned_child_has_the_value_of_its_session() {
    let bridge = Bridge::start(&[OPTION, &["--on-exit", "respawn"]].concat(), &["hostile", "good"]);
    let users = ["ada", "grace"].map(|user| (user, session_of(&bridge, user)));
    for (user, session) in &users {
        let first = session.look("pids")["pid"].clone();
        assert_eq!(reason(&session.call("exit", json!({ "code": 3 }))), "child_exited");
        assert_eq!(key(session), *user);
        assert_ne!(session.look("pids")["pid"], first, "it is another process");
    }
}

#[test]
fn a_client_of_the_old_transport_sends_it_with_initialize_too() {
    let bridge = Bridge::start(&[OPTION, &["--sse-compat"]].concat(), &["hostile", "good"]);
    // On the stream it means nothing: the child is started by `initialize`.
    let mut stream = bridge.send(Request::listen("/sse").header("X-User-Key", "of the stream"));
    let endpoint = format!("/{}", stream.event().unwrap().data.unwrap()); // relative to /sse
    let post = |body: Value| Request::post(&endpoint, body.to_string());
    bridge.send(post(initialize(0, "2024-11-05")).header("X-User-Key", "ada")).expect(202, "begun");
    assert_eq!(stream.message()["id"], 0);
    let later = post(tool_call(1, "echo_env", json!({}))).header("X-User-Key", "second");
    bridge.send(later).expect(202, "a call");
    let seen: Value = serde_json::from_str(&support::text_of(&stream.message())).unwrap();
    assert_eq!(seen["USER_KEY"], "ada");
}

#[test]
fn a_later_message_of_the_old_transport_may_have_any_header() {
    let bridge = Bridge::start(&[OPTION, &["--sse-compat"]].concat(), &["hostile", "good"]);
    let mut stream = bridge.send(Request::listen("/sse"));
    let endpoint = format!("/{}", stream.event().unwrap().data.unwrap()); // relative to /sse
    bridge.send(Request::post(&endpoint, initialize(0, "2024-11-05").to_string())).expect(202, "begun");
    assert_eq!(stream.message()["id"], 0);
    let later = Request::post(&endpoint, tool_call(1, "echo_env", json!({})).to_string());
    let later = later.header("X-User-Key", "a").header("X-User-Key", "b");
    bridge.send(later).expect(202, "only initialize is looked at, as on the endpoint");
}

#[test]
fn no_value_of_a_header_is_ever_logged() {
    let options = [OPTION, &["--on-exit", "respawn", "--env", "OTHER_KEY=canary"]].concat();
    let mut bridge = Bridge::start_with(&options, &["hostile", "good"], |bridge| {
        bridge.env("RUST_LOG", "trace");
    });
    let session = session_of(&bridge, "canary");
    session.call("exit", json!({ "code": 3 }));
    assert_eq!(key(&session), "canary");
    for request in [
        hello().header("X-User-Key", "canary").header("X-User-Key", "canary"),
        hello().header("X-User-Key", &"canary".repeat(2000)),
        hello().header("X-User-Key", "canary").header("Origin", "http://evil.example"),
        session.headers(Request::post("/mcp", "no JSON")).header("X-User-Key", "canary"),
    ] {
        assert!(bridge.send(request).status >= 400);
    }
    bridge.signal(Signal::SIGUSR1);
    bridge.signal(Signal::SIGTERM);
    bridge.exit_code();
    bridge.logged("it said all", |line| line.contains("bridge.exit"));
    let log = bridge.log().join("\n");
    assert!(log.contains("http.refused") && log.contains("session.start"), "{log}");
    assert!(!log.contains("canary"), "{log}");
}

#[test]
fn no_child_is_started_ahead_of_its_client() {
    let bridge = Bridge::start(OPTION, &["hostile", "good"]);
    bridge.get("/readyz").expect(200, "it is ready all the same");
    assert_eq!(bridge.processes(), [], "its environment is not known yet");
    let sessions = ["ada", "grace"].map(|user| (user, session_of(&bridge, user)));
    for (user, session) in &sessions {
        assert_eq!(key(session), *user);
    }
    assert_eq!(bridge.processes().len(), 2, "nor for the next one");
}

#[test]
fn a_bridge_does_not_start_where_a_client_would_choose_what_runs() {
    for (option, sentence) in [
        ("LD_PRELOAD=X-User", "--env-from-header is \"LD_PRELOAD=X-User\": LD_PRELOAD decides what"),
        ("PATH=X-User", "PATH decides what a loader, a shell or an interpreter runs"),
        ("bash_env=X-User", "no client may set it"),
        ("BUN_OPTIONS!=X-User", "no client may set it"),
        ("NOTES=X-User", "NOTES does not look like the name of a credential, an account or an address"),
        ("NOTES=X-User", "write NOTES!=x-user"),
    ] {
        let finished = run(&["--env-from-header", option], &["hostile", "good"]);
        assert_eq!(finished.code, Some(64), "{}", finished.stderr);
        assert!(finished.stderr.contains(sentence), "{}", finished.stderr);
    }
}
