//! Faults of a child as a process: it reads nothing, floods its pipes, stays, leaves its group or others behind, or eats
//! the machine. Each with its exact answer, its log line, and a session beside it that does not notice.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::unistd::Pid;

use crate::beside::{Beside, assert_fault};
use crate::support::{
    self, Bridge, Session, bridge_command, eventually, initialize, json, proc, text_of, tool_call,
};

fn pid_of(session: &Session, which: &str) -> Pid {
    Pid::from_raw(i32::try_from(session.look("pids")[which].as_i64().unwrap()).unwrap())
}

/// Ends the session by DELETE and waits for the log line of its end, which says how the child was made to go.
#[track_caller]
fn assert_deleted(beside: &Beside, session: &Session, stopped_by: &str) {
    assert_eq!(session.delete().status, 204);
    let stopped_by = format!("stopped_by=\"{stopped_by}\"");
    beside.logged(session, &[r#"event="session.end""#, r#"reason="deleted""#, &stopped_by]);
    beside.assert_over(session, "deleted", &json!({}));
}

// ---------------------------------------------------------------------------------------------- its pipes

#[test]
fn a_child_that_reads_nothing_times_out_and_can_be_ended() {
    let beside = Beside::start(&["--request-timeout", "3s"], "deaf");
    let bad = beside.bad();
    beside.during(|| {
        let text = "x".repeat(1 << 20); // more than a pipe holds
        let answer = bad.call("echo", json!({ "text": text }));
        assert_fault(&answer, "request_timeout", &json!({}));
        beside.logged(&bad, &["WARN", r#"event="request.timeout""#]);
        assert_deleted(&beside, &bad, "term");
        beside.bridge.logged("how it was ended", |line| {
            line.contains(r#"event="child.kill""#) && line.contains("signal=SIGTERM")
        });
    });
    beside.finish();
}

#[test]
fn a_child_that_asks_without_end_and_reads_nothing_is_not_read_on_and_can_be_ended() {
    let hello =
        r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"c","version":"0"}}"#;
    let long_id = "i".repeat(50_000);
    let script = format!(
        r#"read -r line; id=${{line##*'"id":'}}; id=${{id%%[!0-9]*}}
        echo '{{"jsonrpc":"2.0","id":'$id',"result":{hello}}}'
        echo '{{"jsonrpc":"2.0","id":"{long_id}","method":"roots/list"}}'
        exec yes '{{"jsonrpc":"2.0","id":null,"method":"ping"}}'"#
    );
    let beside = Beside::with_script(&["--request-timeout", "3s"], &script);
    let bad = beside.bad();
    beside.during(|| {
        beside.logged(&bad, &["WARN", r#"event="child.long_id""#]);
        beside.logged(&bad, &["WARN", r#"event="child.replies_unread""#, "bytes="]);
        assert_fault(&bad.call("echo", json!({})), "request_timeout", &json!({}));
        assert_deleted(&beside, &bad, "term");
    });
    let log = beside.bridge.log();
    for event in ["child.long_id", "child.replies_unread"] {
        assert_eq!(log.iter().filter(|line| line.contains(event)).count(), 1, "{event} is said once");
    }
    let peak = proc::peak_memory(beside.bridge.pid());
    assert!(peak < 48 << 20, "{} MiB", peak >> 20);
    beside.finish();
}

#[test]
fn a_listener_that_does_not_read_a_flood_is_cut_off_and_the_session_goes_on() {
    let beside = Beside::start(&["--replay-buffer", "256KiB"], "flood_stdout");
    let bad = beside.bad();
    beside.during(|| {
        let unread = bad.listen();
        beside.logged(&bad, &["WARN", r#"event="stream.cut""#, "the client can resume"]);
        beside.logged(&bad, &[r#"event="stream.evicted""#, "--replay-buffer"]);
        assert_eq!(bad.text("echo", json!({ "text": "a" })), "a");
        assert_eq!(bad.delete().status, 204);
        drop(unread);
    });
    beside.finish();
}

#[test]
fn a_flood_on_stderr_is_read_rationed_and_counted() {
    let beside = Beside::start(&[], "flood_stderr");
    let bad = beside.bad();
    beside.during(|| {
        beside.logged(&bad, &["WARN", r#"event="child.stderr_suppressed""#, "lines="]);
        assert_eq!(bad.text("echo", json!({ "text": "a" })), "a");
        assert_eq!(bad.delete().status, 204);
        beside.logged(&bad, &[r#"event="session.end""#]);
    });
    let log = beside.bridge.log();
    let longest = log.iter().map(String::len).max().unwrap_or_default();
    assert!((8_192..10_000).contains(&longest), "lines are cut at 8 KiB, not at {longest}");
    assert!(!log.iter().any(|line| line.contains('\u{1b}')), "control characters are escaped");
    beside.finish();
}

// ---------------------------------------------------------------------------------------------- it, and others, stay

#[test]
fn the_end_of_a_child_is_its_exit_even_if_a_stranger_holds_its_pipes() {
    let beside = Beside::start(&[], "grandchild");
    let bad = beside.bad();
    beside.during(|| {
        let began = Instant::now();
        assert_fault(&bad.call("exit", json!({ "code": 4 })), "child_exited", &json!({ "exit_code": 4 }));
        beside.logged(&bad, &[r#"event="session.end""#, r#"status="exit code 4""#]);
        assert!(began.elapsed() < Duration::from_secs(10), "the stranger stays for a minute");
        beside.assert_over(&bad, "child_exited", &json!({ "exit_code": 4 }));
    });
    beside.assert_unharmed();
}

#[test]
fn a_wrapper_that_is_killed_takes_its_server_along() {
    let beside = Beside::start(&[], "wrapper");
    let bad = beside.bad();
    beside.during(|| {
        let server = pid_of(&bad, "pid");
        let held = bad.begin(tool_call("held", "sleep", json!({ "ms": 60_000 })).to_string());
        eventually("the server has the call", || bad.seen_count("tools/call") > 1);
        kill(pid_of(&bad, "ppid"), Signal::SIGKILL).unwrap();
        let answer = held.response().answer();
        assert_eq!(answer["id"], "held");
        assert_fault(&answer, "child_exited", &json!({ "signal": "SIGKILL" }));
        beside.assert_over(&bad, "child_exited", &json!({ "signal": "SIGKILL" }));
        eventually("the server is gone", || !proc::is_alive(server.as_raw().cast_unsigned()));
    });
    beside.finish();
}

#[test]
fn a_child_that_ignores_eof_and_sigterm_is_killed_and_each_step_is_logged() {
    let beside = Beside::start(&[], "ignore_term");
    let bad = beside.bad();
    let pid = pid_of(&bad, "pid");
    beside.during(|| {
        assert_deleted(&beside, &bad, "kill");
        for signal in ["SIGTERM", "SIGKILL"] {
            let line = format!(r#"event="child.kill" pid={pid} signal={signal}"#);
            beside.bridge.logged(&line, |said| said.contains("WARN") && said.contains(&line));
        }
    });
    beside.finish();
}

#[test]
fn orphans_are_reaped_while_others_work() {
    let beside = Beside::start(&[], "orphans 100");
    let bad = beside.bad();
    beside.during(|| {
        eventually("only the two servers are left", || {
            beside.bridge.processes().len() == 2 && beside.bridge.zombies().is_empty()
        });
        assert_eq!(bad.text("echo", json!({ "text": "a" })), "a");
        assert_deleted(&beside, &bad, "eof");
    });
    beside.finish();
}

#[test]
fn a_child_leaves_neither_its_group_nor_its_session_and_is_ended_as_others_are() {
    for mode in ["setpgid", "setsid"] {
        let beside = Beside::start(&[], mode);
        let bad = beside.bad();
        beside.during(|| {
            let child = proc::get(pid_of(&bad, "pid").as_raw().cast_unsigned()).unwrap();
            assert_eq!((child.group, child.session), (child.pid, child.pid), "{mode}");
            // Stopped, it does not notice the end of stdin; SIGTERM comes with SIGCONT, or it would not see that.
            kill(pid_of(&bad, "pid"), Signal::SIGSTOP).unwrap();
            assert_deleted(&beside, &bad, "term");
        });
        beside.finish();
    }
}

// ---------------------------------------------------------------------------------------------- what it inherits

#[test]
fn a_file_that_the_bridge_inherited_does_not_reach_a_child() {
    let inner = bridge_command(&["--listen", "127.0.0.1:0"], &["hostile", "good"]);
    let mut outer = std::process::Command::new("sh");
    outer.args(["-c", r#"exec 7</etc/passwd 9>/dev/null; exec "$0" "$@""#]);
    let bridge = Bridge::spawn({
        outer.arg(inner.get_program()).args(inner.get_args());
        outer
    });
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    let inherited = fs::read_link(format!("/proc/{}/fd/7", bridge.pid())).unwrap();
    assert_eq!(inherited.to_str(), Some("/etc/passwd"), "the bridge did inherit it");
    let open = bridge.session().look("listfd");
    let numbers: Vec<&String> = open.as_object().unwrap().keys().collect();
    assert_eq!(numbers, ["0", "1", "2"], "{open}");
}

#[test]
fn a_signal_that_the_bridge_inherited_blocked_is_not_blocked_in_a_child() {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR1);
    blocked.add(Signal::SIGHUP);
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before)).unwrap();
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None).unwrap();

    let mask = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap().to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    };
    let wanted = 1 << (Signal::SIGUSR1 as u64 - 1) | 1 << (Signal::SIGHUP as u64 - 1);
    let of_the_bridge = fs::read_to_string(format!("/proc/{}/status", bridge.pid())).unwrap();
    assert_eq!(mask(&of_the_bridge) & wanted, wanted, "the bridge did inherit them");
    let of_the_child = bridge.session().text("sigstate", json!({}));
    assert_eq!(mask(&of_the_child), 0, "{of_the_child}");
}

// ---------------------------------------------------------------------------------------------- it eats the machine

#[test]
fn when_memory_runs_out_a_child_goes_before_the_bridge() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let score = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let child = pid_of(&bridge.session(), "pid").as_raw().cast_unsigned();
    assert_eq!(score(child).trim(), "300");
    let bridge: i32 = score(bridge.pid()).trim().parse().unwrap();
    assert!(bridge < 300, "{bridge}");
}

#[test]
fn a_child_that_spins_slows_no_session_down_to_a_stop() {
    let beside = Beside::with_script(&[], r#"(while :; do :; done) & exec "$0" good"#);
    let bad = beside.bad();
    beside.during(|| {
        for _ in 0..20 {
            assert_eq!(bad.text("echo", json!({ "text": "a" })), "a");
        }
        assert_deleted(&beside, &bad, "eof");
    });
    beside.finish();
}

// ---------------------------------------------------------------------------------------------- order

#[test]
fn a_child_that_answers_a_cancelled_call_has_its_answer_delivered() {
    let beside = Beside::start(&[], "late");
    let bad = beside.bad();
    beside.during(|| {
        let call = bad.begin(tool_call(7, "echo", json!({ "text": "a" })).to_string());
        eventually("the child has the call", || bad.seen_count("tools/call") > 1);
        bad.notify("notifications/cancelled", json!({ "requestId": 7 }));
        let answer = call.response().answer();
        assert_eq!((&answer["id"], text_of(&answer)), (&json!(7), "too late".to_owned()));
        assert_deleted(&beside, &bad, "eof");
    });
    let log = beside.bridge.log();
    assert!(!log.iter().any(|line| line.contains("child.dropped")), "nothing was lost:\n{}", log.join("\n"));
    beside.finish();
}

#[test]
fn a_child_that_refuses_what_comes_before_initialized_gets_nothing_before_it() {
    let beside = Beside::start(&[], "strict");
    beside.arm();
    beside.during(|| {
        // No `initialized` at all at first: that is where clients differ.
        let bad = beside.bridge.initialize();
        let early: Vec<_> = (0..5)
            .map(|id| bad.begin(tool_call(id, "echo", json!({ "text": "early" })).to_string()))
            .collect();
        bad.notify("notifications/initialized", json!({}));
        for (id, call) in early.into_iter().enumerate() {
            let answer = call.response().answer();
            assert_eq!((&answer["id"], text_of(&answer)), (&json!(id), "early".to_owned()));
        }
        let seen = bad.seen();
        let methods: Vec<_> = seen.iter().filter_map(|entry| entry["method"].as_str()).collect();
        assert_eq!(methods[..2], ["initialize", "notifications/initialized"], "{seen:?}");
        assert_eq!(bad.seen_count("notifications/initialized"), 1);
        let mut second = bad.post(initialize("again", "2025-06-18").to_string());
        let refusal = support::assert_refused(&mut second, 400, "already_initialized");
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("again"), &json!(-32600)));
        assert_eq!(bad.seen_count("initialize"), 1);
        assert_deleted(&beside, &bad, "eof");
    });
    beside.finish();
}
