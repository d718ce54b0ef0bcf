//! Faults of a child that does not start: it is not there, dies before it has answered `initialize`, or never answers.
//! Each with its exact answer, its log line, and a session beside it that does not notice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::beside::{Beside, assert_fault};
use crate::support::{
    self, Bridge, Request, Scratch, Session, Value, assert_refused, bridge_command, eventually, example,
    initialize, json, run, run_command,
};

// ---------------------------------------------------------------------------------------------- the command

#[test]
fn a_command_that_cannot_run_ends_the_start_with_the_code_of_a_shell_and_one_event() {
    let scratch = Scratch::new();
    let file = scratch.write("not-executable", "#!/bin/sh\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    for (command, code) in [("no-such-command-anywhere", 127), ("/no/such/file", 127), (&file, 126)] {
        let finished = run(&["--listen", "127.0.0.1:0"], &[command]);
        assert_eq!(finished.code, Some(code), "{}", finished.stderr);
        let event = format!(r#"event="child.command_missing" code={code}"#);
        let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains(&event)).collect();
        assert!(matches!(lines[..], [line] if line.contains(command)), "{}", finished.stderr);
        assert!(!finished.stderr.contains("bridge.start"), "nothing was ever served: {}", finished.stderr);
    }
}

#[test]
fn a_command_is_looked_for_where_it_will_run() {
    let scratch = Scratch::new();
    let folder = scratch.path("app");
    fs::create_dir_all(Path::new(&folder).join("bin")).unwrap();
    for link in ["app/run", "app/bin/server", "elsewhere"] {
        std::os::unix::fs::symlink(example("notebook"), scratch.path(link)).unwrap();
    }
    let path = format!("bin:{}", std::env::var("PATH").unwrap());
    // The bridge itself is started in the folder above.
    let started = |command: &str, options: &[&str]| {
        let mut bridge = bridge_command(&[&["--cwd", "app"], options].concat(), &[command]);
        bridge.current_dir(scratch.path("")).env("PATH", &path);
        bridge
    };
    for command in ["./run", "bin/server", "server"] {
        let checked = run_command(started(command, &["--check"]));
        assert_eq!(checked.code, Some(0), "{command}: {}", checked.stderr);
        let bridge = Bridge::spawn(started(command, &["--listen", "127.0.0.1:0"]));
        let session = bridge.session();
        assert!(session.text("whoami", json!({})).contains("/app"), "{command}: it runs there");
    }
    for command in ["./elsewhere", "app/run"] {
        for options in [&["--check"][..], &["--listen", "127.0.0.1:0"]] {
            let finished = run_command(started(command, options));
            assert_eq!(finished.code, Some(127), "{command} {options:?}: {}", finished.stderr);
            assert!(finished.stderr.contains("not found"), "{}", finished.stderr);
        }
    }
}

#[test]
fn a_command_that_cannot_run_is_told_by_what_is_wrong_with_it() {
    let scratch = Scratch::new();
    let script = |name: &str, text: &str| {
        let file = scratch.write(name, text);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    };
    let orphan = script("orphan", "#!/nonexistent/python\n");
    script("here.py", "#!/bin/sh\n");
    let folder = scratch.path("");
    for (command, code, sentence) in [
        (&*orphan, 126, "its interpreter /nonexistent/python was not found"),
        ("here.py", 127, "did you mean ./here.py?"),
        ("npx -y some-server", 127, "write the command as separate words"),
        (folder.trim_end_matches('/'), 126, "is a directory, not a program"),
    ] {
        for options in [&["--check"][..], &["--listen", "127.0.0.1:0"]] {
            let mut bridge = bridge_command(options, &[command]);
            bridge.current_dir(&folder);
            let finished = run_command(bridge);
            assert_eq!(finished.code, Some(code), "{command}: {}", finished.stderr);
            assert!(finished.stderr.contains(sentence), "{command}: {}", finished.stderr);
        }
    }
}

#[test]
fn a_command_that_is_lost_later_is_503_until_it_is_back() {
    let scratch = Scratch::new();
    let command = scratch.path("server");
    // A link and no copy: the kernel runs no file that a fork of this process may still hold open for writing.
    std::os::unix::fs::symlink(example("hostile"), &command).unwrap();
    let bridge = Bridge::start(&["--lazy"], &[&command, "good"]);
    let good = bridge.session();

    let hidden = scratch.path("hidden");
    for (number, damage) in ["gone", "not executable"].into_iter().enumerate() {
        fs::rename(&command, &hidden).unwrap();
        if damage == "not executable" {
            scratch.write("server", "");
        }
        let mut response = bridge.post(initialize("me", "2025-06-18").to_string());
        let refusal = assert_refused(&mut response, 503, "spawn_failed");
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("me"), &json!(-32603)), "{damage}");
        assert!(response.header("retry-after").is_some(), "it may be in the middle of an update");
        assert_eq!(response.header("mcp-session-id"), None);
        let told = || bridge.log().iter().filter(|line| line.contains("child.spawn_failed")).count();
        eventually("the log says so", || told() == number + 1);
        assert_eq!(good.text("echo", json!({ "text": "unharmed" })), "unharmed");
        fs::rename(&hidden, &command).unwrap();
        assert_eq!(bridge.session().text("echo", json!({ "text": "back" })), "back");
    }
    assert_eq!(bridge.zombies(), [], "a child that never became the server is reaped too");
}

// ---------------------------------------------------------------------------------------------- before the answer

struct Failed {
    mode: &'static str,
    token: &'static str,
    data: Value,
    /// How the end of the session is logged.
    status: &'static str,
}

/// `initialize` is 502 with this error and names no session.
#[track_caller]
fn check(options: &[&str], fault: &Failed) -> Beside {
    let beside = Beside::start(options, fault.mode);
    beside.arm();
    beside.during(|| {
        let mut response = beside.bridge.post(initialize("me", "2025-06-18").to_string());
        response.expect(502, fault.mode);
        assert_eq!(response.header("mcp-session-id"), None, "there is no session");
        assert_eq!(response.header("mcp-bridge-error"), Some(fault.token));
        let answer = response.json();
        assert_eq!(answer["id"], "me");
        assert_fault(&answer, fault.token, &fault.data);
        let words = [r#"event="session.end""#, &format!("reason=\"{}\"", fault.token), fault.status];
        beside.bridge.logged(&format!("{words:?}"), |line| words.iter().all(|word| line.contains(word)));
    });
    beside
}

#[test]
fn a_child_that_exits_before_its_answer_to_initialize_is_502_with_its_code() {
    let codes = [
        ("exit_before_init 0", 0, r#"status="exit code 0""#),
        ("exit_before_init 3", 3, r#"status="exit code 3""#),
        ("exit_at_start 5", 5, r#"status="exit code 5""#),
    ];
    for (mode, code, status) in codes {
        let data = json!({ "exit_code": code, "cause": "child_exited" });
        check(&[], &Failed { mode, token: "child_exited", data, status }).finish();
    }
}

#[test]
fn a_child_that_takes_its_time_to_fail_is_502_too() {
    for ms in [600, 2000] {
        for accept in ["text/event-stream", "application/json, text/event-stream"] {
            let bridge = Bridge::start(&["--lazy"], &["hostile", "exit_before_init", "3", &ms.to_string()]);
            let request = Request::post("/mcp", initialize("me", "2025-06-18").to_string());
            let mut response = bridge.send(request.with("Accept", accept));
            response.expect(502, "no head says that there is a session before there is one");
            assert_eq!(response.header("mcp-session-id"), None);
            assert_eq!(response.header("mcp-bridge-error"), Some("child_exited"));
            let answer = response.json();
            assert_eq!((&answer["id"], &answer["error"]["data"]["exit_code"]), (&json!("me"), &json!(3)));
        }
    }
}

#[test]
fn a_child_that_takes_its_time_to_refuse_is_heard_and_has_no_session() {
    for ms in [0, 600, 2000] {
        for accept in ["text/event-stream", "application/json, text/event-stream"] {
            let bridge = Bridge::start(&["--lazy"], &["hostile", "refuse_init", &ms.to_string()]);
            let request = Request::post("/mcp", initialize("me", "2025-06-18").to_string());
            let mut response = bridge.send(request.with("Accept", accept));
            response.expect(200, "the child's own error is passed on");
            assert_eq!(response.header("mcp-session-id"), None, "{ms} ms, {accept}");
            assert_eq!(response.answer()["error"]["message"], "this server cannot start: no licence");
        }
    }
}

#[test]
fn a_child_that_takes_its_time_to_start_has_a_session_and_one_that_takes_long_begins_a_stream() {
    for (ms, keep_alive) in [(0, "15s"), (1000, "15s"), (2000, "300ms")] {
        let options = ["--lazy", "--keep-alive", keep_alive];
        let bridge = Bridge::start(&options, &["hostile", "slow_init", &ms.to_string()]);
        let mut response = bridge.post(initialize("me", "2025-06-18").to_string());
        assert_eq!(response.status, 200);
        let streams = ms > 0;
        assert_eq!(response.is_sse(), streams, "an answer after --sse-after is a stream");
        if keep_alive != "15s" {
            response.wait_for_comments(1);
        }
        let session = Session::from_response(bridge.address, &mut response);
        assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    }
}

#[test]
fn a_child_that_crashes_before_its_answer_to_initialize_is_502_with_its_signal() {
    for (mode, signal, status) in [
        ("signal_before_init SEGV", "SIGSEGV", r#"status="signal SIGSEGV""#),
        ("signal_before_init KILL", "SIGKILL", r#"status="signal SIGKILL""#),
    ] {
        let data = json!({ "signal": signal, "cause": "child_exited" });
        check(&[], &Failed { mode, token: "child_exited", data, status }).finish();
    }
}

#[test]
fn the_last_words_of_such_a_child_are_in_the_log_and_not_in_the_answer() {
    let beside = Beside::start(&[], "exit_before_init 1");
    beside.arm();
    let mut response = beside.bridge.post(initialize("me", "2025-06-18").to_string());
    assert!(!response.text().contains("plugin"), "stderr may hold secrets: it is for the operator");
    beside.bridge.logged("stderr is logged under the session", |line| {
        line.contains(r#"event="child.stderr" sid=""#) && line.contains("cannot load the plugin")
    });
    beside.finish();
}

#[test]
fn a_child_that_never_answers_initialize_is_502_and_leaves_no_process() {
    let options = ["--init-timeout", "3s", "--sse-after", "10s"];
    let data = json!({ "cause": "init_timeout" });
    let fault = Failed { mode: "hang_init", token: "init_timeout", data, status: r#"stopped_by="eof""# };
    let beside = check(&options, &fault);
    support::eventually("the child is gone", || beside.bridge.processes().len() == 1);
    beside.finish();
}
