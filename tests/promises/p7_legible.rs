//! P7: every refusal says what was wrong and which option changes it; every end of a session has one logged reason.
//! Also: the start line, exit codes and options.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::http::Connection;
use crate::support::{
    self, Bridge, Request, Scratch, Value, assert_refused, bridge_command, eventually, initialize, json, run,
    run_command,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

// ---------------------------------------------------------------------------------------------- exit codes

#[test]
fn a_command_that_does_not_exist_is_127_and_named() {
    for command in ["no-such-command-anywhere", "/no/such/file"] {
        let finished = run(&["--listen", "127.0.0.1:0"], &[command]);
        assert_eq!(finished.code, Some(127), "{}", finished.stderr);
        assert!(finished.stderr.contains(command), "{}", finished.stderr);
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_126_and_named() {
    let scratch = Scratch::new();
    let file = scratch.write("not-executable", "#!/bin/sh\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let directory = scratch.path("");
    for command in [&file, &directory] {
        let finished = run(&["--listen", "127.0.0.1:0"], &[command]);
        assert_eq!(finished.code, Some(126), "{}", finished.stderr);
        assert!(finished.stderr.contains(command.as_str()), "{}", finished.stderr);
    }
}

#[test]
fn wrong_usage_is_64_and_names_option_and_value() {
    let cases: [(&[&str], &[&str]); 10] = [
        (&["--idle-timeout", "banana"], &["idle-timeout", "banana"]),
        (&["--idle-timeout", "5"], &["idle-timeout", "5"]),
        (&["--listen", "server:80"], &["listen", "server:80"]),
        (&["--listen", "127.0.0.1:99999"], &["listen", "99999"]),
        (&["--max-sessions", "-1"], &["max-sessions", "-1"]),
        (&["--max-sessions", "0"], &["max-sessions", "0"]),
        (&["--max-body", "lots"], &["max-body", "lots"]),
        (&["--path", "no-slash"], &["path", "no-slash"]),
        (&["--env", "NOEQUALS"], &["env", "NOEQUALS"]),
        (&["--no-such-option"], &["no-such-option"]),
    ];
    for (options, named) in cases {
        let finished = run(options, &["notebook"]);
        assert_eq!(finished.code, Some(64), "{options:?}: {}", finished.stderr);
        for word in named {
            assert!(finished.stderr.contains(word), "{options:?} must name {word:?}: {}", finished.stderr);
        }
        assert_eq!(finished.stdout, "", "stdout is not for errors");
    }
}

#[test]
fn no_command_at_all_is_64_and_shows_how_to_give_one() {
    let finished = run(&["--listen", "127.0.0.1:0"], &[]);
    assert_eq!(finished.code, Some(64));
    assert!(finished.stderr.contains("-- "), "{}", finished.stderr);
}

#[test]
fn a_port_in_use_is_2_and_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = run(&["--listen", &address], &["notebook"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains(&address), "{}", finished.stderr);
}

#[test]
fn help_and_version_go_to_stdout_with_zero() {
    let help = run(&["--help"], &[]);
    assert_eq!((help.code, &*help.stderr), (Some(0), ""));
    let options = "listen path max-sessions idle-timeout init-timeout request-timeout sse-after keep-alive prime lazy \
                   warm max-lifetime evict sse-compat allow-origin allow-host env cwd max-body max-message replay-buffer \
                   max-in-flight shutdown-timeout stop-grace log check healthcheck version";
    for option in options.split_whitespace() {
        assert!(help.stdout.contains(&format!("--{option}")), "--help names --{option}");
    }
    let version = run(&["--version"], &[]);
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", version.stdout);
}

#[test]
fn check_tells_whether_the_bridge_would_start() {
    assert_eq!(run(&["--check"], &["notebook"]).code, Some(0));
    assert_eq!(run(&["--check"], &["no-such-command-anywhere"]).code, Some(127));
    assert_eq!(run(&["--check", "--idle-timeout", "banana"], &["notebook"]).code, Some(64));
}

// ---------------------------------------------------------------------------------------------- what it says

#[test]
fn the_start_line_names_url_and_command_and_stdout_stays_empty() {
    let mut bridge = Bridge::start(&["--path", "/tools"], &["notebook"]);
    let url = format!("http://{}/tools", bridge.address);
    bridge.logged("the start line names the URL to paste", |line| line.contains(&url));
    bridge
        .send(Request::post("/tools", initialize(0, "2025-06-18").to_string()))
        .expect(200, "the path is served");
    bridge.signal(Signal::SIGTERM);
    bridge.exit_code();
    assert_eq!(bridge.stdout(), "");
}

#[test]
fn every_end_of_a_session_is_logged_once_with_its_reason() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let (deleted, exited) = (bridge.session(), bridge.session());
    deleted.delete();
    exited.call("exit", json!({ "code": 3 }));
    let ended = |reason: &str| {
        let log = bridge.log();
        log.iter()
            .filter(|line| line.contains("session") && line.contains("end") && line.contains(reason))
            .count()
    };
    for reason in ["deleted", "child_exited"] {
        eventually("the end is logged", || ended(reason) > 0);
        assert_eq!(ended(reason), 1, "{reason}:\n{}", bridge.log().join("\n"));
    }
}

#[test]
fn neither_session_ids_nor_payloads_nor_credentials_are_logged() {
    let bridge = Bridge::start_with(&[], &["notebook"], |bridge| {
        bridge.env("RUST_LOG", "debug").env("MCP_BRIDGE_TOKEN", TOKEN);
    });
    let authorized = |request: Request| request.header("Authorization", &format!("Bearer {TOKEN}"));
    let mut response =
        bridge.send(authorized(Request::post("/mcp", initialize(0, "2025-06-18").to_string())));
    response.expect(200, "initialize");
    let id = response.header("mcp-session-id").unwrap().to_owned();
    let call = support::tool_call(1, "echo", json!({ "text": "a private payload" })).to_string();
    bridge.send(authorized(Request::post("/mcp", call).header("Mcp-Session-Id", &id))).expect(200, "a call");
    bridge
        .send(authorized(Request::new("DELETE", "/mcp").header("Mcp-Session-Id", &id)))
        .expect(204, "the end");
    let log = bridge.log().join("\n");
    for secret in [&*id, "a private payload", TOKEN] {
        assert!(!log.contains(secret), "{secret:?} is in the log:\n{log}");
    }
}

#[test]
fn with_log_json_every_line_is_an_object() {
    let mut bridge = Bridge::start(&["--log", "json", "--lazy"], &["hostile", "noise"]);
    let session = bridge.session();
    session.text("echo", json!({ "text": "a" }));
    session.delete();
    bridge.signal(Signal::SIGTERM);
    bridge.exit_code();
    for line in bridge.log() {
        assert!(serde_json::from_str::<Value>(&line).is_ok_and(|line| line.is_object()), "{line}");
    }
}

#[test]
fn stderr_of_a_child_is_in_the_log() {
    let bridge = Bridge::start(&[], &["notebook"]);
    bridge.session();
    bridge.logged("what the child says is kept", |line| line.contains("notebook ready"));
}

// ---------------------------------------------------------------------------------------------- options

#[test]
fn options_may_come_from_the_environment_and_flags_win() {
    let bridge = Bridge::start_with(&["--path", "/flag"], &["notebook"], |bridge| {
        bridge
            .env("MCP_BRIDGE_PATH", "/variable")
            .env("MCP_BRIDGE_MAX_SESSIONS", "1")
            .env("MCP_BRIDGE_LAZY", "true");
    });
    let body = initialize(0, "2025-06-18").to_string();
    assert_eq!(bridge.send(Request::post("/variable", &body)).status, 404, "the flag wins");
    assert_eq!(bridge.send(Request::post("/flag", &body)).status, 200);
    assert_refused(&mut bridge.send(Request::post("/flag", &body)), 503, "too_many_sessions");
}

#[test]
fn a_wrong_variable_is_64_and_named() {
    let mut bridge = bridge_command(&["--listen", "127.0.0.1:0"], &["notebook"]);
    bridge.env("MCP_BRIDGE_IDLE_TIMEOUT", "banana");
    let finished = run_command(bridge);
    assert_eq!(finished.code, Some(64), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("MCP_BRIDGE_IDLE_TIMEOUT") && finished.stderr.contains("banana"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_replica_label_is_the_front_of_the_session_id() {
    let bridge = Bridge::start(&["--replica", "pod-1"], &["notebook"]);
    let session = bridge.session();
    assert!(session.id.starts_with("pod-1"), "{}", session.id);
    assert!(session.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    session.ping().expect(200, "a labelled session works");
}

#[test]
fn a_unix_socket_serves_as_well() {
    let scratch = Scratch::new();
    let path = scratch.path("bridge.sock");
    let mut bridge = bridge_command(&["--listen", &format!("unix:{path}")], &["notebook"]).spawn().unwrap();
    eventually("the socket exists", || UnixStream::connect(&path).is_ok());
    let mut connection = Connection::over(Box::new(UnixStream::connect(&path).unwrap()));
    connection.write(&Request::post("/mcp", initialize(0, "2025-06-18").to_string()).to_bytes("localhost"));
    let mut response = connection.response();
    assert_eq!(response.status, 200);
    assert_eq!(response.answer()["result"]["serverInfo"]["name"], "notebook");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(bridge.id().cast_signed()), Signal::SIGTERM).unwrap();
    let code = bridge.wait().unwrap().code();
    assert_eq!(code, Some(0));
    assert!(!std::path::Path::new(&path).exists(), "the socket is removed at the end");
}

#[test]
fn a_socket_file_that_a_dead_bridge_left_is_no_obstacle() {
    let scratch = Scratch::new();
    let path = scratch.path("bridge.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut bridge = bridge_command(&["--listen", &format!("unix:{path}")], &["notebook"]).spawn().unwrap();
    eventually("the socket is served", || UnixStream::connect(&path).is_ok());
    {
        bridge.kill().unwrap();
        bridge.wait().unwrap();
    }
}

#[test]
fn install_puts_a_copy_into_a_directory() {
    let scratch = Scratch::new();
    let finished = run(&["--install", &scratch.path("")], &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let copy = scratch.path("mcp-bridge");
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "everybody may run it");
    let mut version = Command::new(copy);
    version.arg("--version");
    assert_eq!(run_command(version).code, Some(0));
}
