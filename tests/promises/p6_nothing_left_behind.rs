//! P6: when a session ends its whole process group is gone; when the bridge ends, every child is; no zombie ever.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    self, Bridge, Scratch, Session, assert_refused, eventually, initialize, json, proc, reason, text_of,
    tool_call,
};

fn pid_of(session: &Session) -> u32 {
    u32::try_from(session.look("pids")["pid"].as_u64().unwrap()).unwrap()
}

// ---------------------------------------------------------------------------------------------- the end of a session

#[test]
fn the_process_of_a_deleted_session_is_gone() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    bridge.session().delete();
    bridge.leaves_nothing();
}

#[test]
fn what_a_wrapper_started_goes_with_it() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "wrapper"]);
    let session = bridge.session();
    assert_eq!(bridge.processes().len(), 3, "the wrapper, the server and its helper");
    session.delete();
    bridge.leaves_nothing();
}

#[test]
fn what_a_shell_started_goes_with_it() {
    let script = r#"sleep 600 & "$0" good; sleep 600"#;
    let bridge = Bridge::start(
        &["--lazy", "--stop-grace", "200ms"],
        &["sh", "-c", script, &support::example("hostile")],
    );
    let session = bridge.session();
    session.text("echo", json!({ "text": "a" }));
    session.delete();
    bridge.leaves_nothing();
}

#[test]
fn a_wrapper_that_is_killed_takes_its_group_along() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "wrapper"]);
    let session = bridge.session();
    let wrapper = session.look("pids")["ppid"].as_i64().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(wrapper).unwrap()), Signal::SIGKILL)
        .unwrap();
    bridge.leaves_nothing();
    eventually("the session is over", || session.ping().status == 404);
}

#[test]
fn a_child_that_ignores_everything_is_killed() {
    let bridge = Bridge::start(&["--lazy", "--stop-grace", "200ms"], &["hostile", "ignore_term"]);
    bridge.session().delete();
    bridge.leaves_nothing();
}

#[test]
fn a_child_that_needs_a_moment_to_leave_gets_it() {
    let scratch = Scratch::new();
    let script = r#""$0" good; sleep 0.7; touch "$1""#;
    let command = ["sh", "-c", script, &support::example("hostile"), &scratch.path("left in peace")];
    let bridge = Bridge::start(&["--lazy"], &command);
    bridge.session().delete();
    eventually("the child finishes its work", || {
        std::path::Path::new(&scratch.path("left in peace")).exists()
    });
    bridge.leaves_nothing();
}

#[test]
fn a_child_that_wants_to_be_in_another_group_or_session_is_ended_too() {
    for mode in ["setpgid", "setsid"] {
        let bridge = Bridge::start(&["--lazy", "--stop-grace", "200ms"], &["hostile", mode]);
        let session = bridge.session();
        session.text("echo", json!({ "text": mode }));
        session.delete();
        bridge.leaves_nothing();
    }
}

#[test]
fn the_end_of_a_child_is_noticed_while_a_stranger_holds_its_stdout() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "grandchild"]);
    let session = bridge.session();
    let start = Instant::now();
    assert_eq!(reason(&session.call("exit", json!({ "code": 0 }))), "child_exited");
    session.ping().expect(404, "the session is over");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn each_child_leads_a_session_and_a_group_of_its_own() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let pids = bridge.session().look("pids");
    assert_eq!((&pids["pid"], &pids["pid"]), (&pids["pgid"], &pids["sid"]));
    assert_eq!(pids["ppid"], bridge.pid());
}

#[test]
fn orphans_are_reaped() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "orphans", "30"]);
    let session = bridge.session();
    eventually("the orphans are gone", || bridge.processes().len() == 1 && bridge.zombies().is_empty());
    session.delete();
    bridge.leaves_nothing();
}

#[test]
fn children_that_come_and_go_leave_no_zombie() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    bridge.session().call("crash", json!({ "signal": "KILL" }));
                }
            });
        }
    });
    bridge.leaves_nothing();
}

// ---------------------------------------------------------------------------------------------- the end of the bridge

#[test]
fn sigterm_ends_the_bridge_with_zero_and_leaves_nothing() {
    for mode in ["good", "wrapper"] {
        let mut bridge = Bridge::start(&[], &["hostile", mode]);
        let sessions: Vec<Session> = (0..3).map(|_| bridge.session()).collect();
        bridge.signal(Signal::SIGTERM);
        assert_eq!(bridge.exit_code(), 0, "{mode}");
        assert_eq!(bridge.processes(), [], "{mode}: nothing is left once the bridge has ended");
        drop(sessions);
    }
}

#[test]
fn sigint_ends_the_bridge_with_zero_too() {
    let mut bridge = Bridge::start(&[], &["notebook"]);
    bridge.signal(Signal::SIGINT);
    assert_eq!(bridge.exit_code(), 0);
    assert_eq!(bridge.processes(), []);
}

#[test]
fn the_end_of_an_idle_bridge_is_quick() {
    let mut bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let _stream = session.listen();
    let start = Instant::now();
    bridge.signal(Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 0);
    // A child that had to be told twice would take the five seconds of --stop-grace.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn calls_in_flight_may_finish_after_sigterm() {
    let mut bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let mut call = session.start_call("slow", json!({ "seconds": 1, "text": "finished" }));
    bridge.signal(Signal::SIGTERM);
    assert_eq!(text_of(&call.answer()), "waited 1 s: finished");
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn a_call_that_does_not_finish_in_time_is_answered_before_the_end() {
    let mut bridge = Bridge::start(&["--shutdown-timeout", "2s"], &["hostile", "hang"]);
    let session = bridge.session();
    let mut call = session.post(tool_call("mine", "echo", json!({})).to_string());
    bridge.signal(Signal::SIGTERM);
    let answer = call.answer();
    assert_eq!((&answer["id"], reason(&answer)), (&json!("mine"), "shutting_down"));
    bridge.exit_code();
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_draining_bridge_takes_no_new_session_and_says_so() {
    let mut bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let mut call = session.start_call("slow", json!({ "seconds": 1.5 }));
    bridge.signal(Signal::SIGTERM);
    eventually("it is not ready any more", || bridge.get("/readyz").status == 503);
    let mut refused = bridge.post(initialize(1, "2025-06-18").to_string());
    assert_refused(&mut refused, 503, "shutting_down");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(text_of(&call.answer()), "waited 1.5 s");
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn children_that_ignore_sigterm_do_not_survive_the_bridge() {
    let mut bridge = Bridge::start(&["--shutdown-timeout", "1s"], &["hostile", "ignore_term"]);
    let _sessions = [bridge.session(), bridge.session()];
    bridge.signal(Signal::SIGTERM);
    bridge.exit_code();
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let mut bridge = Bridge::start(&["--shutdown-timeout", "60s"], &["hostile", "hang"]);
        let session = bridge.session();
        let _call = session.start_call("echo", json!({}));
        bridge.signal(signal);
        eventually("the drain has begun", || bridge.get("/readyz").status == 503);
        bridge.signal(signal);
        assert_eq!(bridge.exit_code(), code);
        assert_eq!(bridge.processes(), []);
    }
}

#[test]
fn no_child_survives_a_killed_bridge() {
    let mut bridge = Bridge::start(&[], &["hostile", "ignore_term"]);
    let sessions = [bridge.session(), bridge.session()];
    let children = sessions.each_ref().map(pid_of);
    bridge.signal(Signal::SIGKILL);
    assert_eq!(bridge.exit_code(), 128 + 9);
    eventually("the kernel ends the children", || !children.iter().any(|pid| proc::is_alive(*pid)));
}

#[test]
fn a_daemon_of_a_child_does_not_survive_the_bridge() {
    for mode in ["daemon", "grandchild"] {
        let mut bridge = Bridge::start(&[], &["hostile", mode]);
        let _session = bridge.session();
        bridge.signal(Signal::SIGTERM);
        assert_eq!(bridge.exit_code(), 0, "{mode}");
        assert_eq!(bridge.processes(), [], "{mode}");
    }
}

// ---------------------------------------------------------------------------------------------- what a child inherits

#[test]
fn a_child_gets_its_three_pipes_and_no_other_file() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let _neighbour = bridge.session();
    let open = bridge.session().look("listfd");
    let numbers: Vec<&String> = open.as_object().unwrap().keys().collect();
    assert_eq!(numbers, ["0", "1", "2"], "{open}");
}

#[test]
fn a_child_starts_with_no_signal_blocked_or_ignored() {
    let scratch = Scratch::new();
    // The C programs show what std would hide: it ignores SIGPIPE itself.
    let child = r#"grep ^Sig /proc/self/status > "$1"; exec "$0" good"#;
    let command = ["sh", "-c", child, &support::example("hostile"), &scratch.path("signals")];
    let inner = support::bridge_command(&["--listen", "127.0.0.1:0"], &command);
    // A parent such as nohup leaves signals ignored, and a bridge passes nothing of that on.
    let mut outer = std::process::Command::new("sh");
    outer
        .args(["-c", r#"trap "" HUP INT USR1 USR2 PIPE; exec "$0" "$@""#])
        .arg(inner.get_program())
        .args(inner.get_args());
    let bridge = Bridge::spawn(outer);
    let _session = bridge.session();
    let signals = scratch.read("signals");
    for set in ["SigBlk:\t", "SigIgn:\t"] {
        let mask = signals.lines().find_map(|line| line.strip_prefix(set)).expect("the shell wrote the file");
        // 32 and 33 belong to the C library, which lets nobody change them.
        let mask = u64::from_str_radix(mask, 16).unwrap() & !(0b11 << 31);
        assert_eq!(mask, 0, "{signals}");
    }
}

#[test]
fn a_child_gets_a_soft_limit_of_open_files_that_old_programs_survive() {
    let scratch = Scratch::new();
    let child = r#"ulimit -Sn > "$1"; exec "$0" good"#;
    let command = ["sh", "-c", child, &support::example("hostile"), &scratch.path("limit")];
    let inner = support::bridge_command(&["--listen", "127.0.0.1:0"], &command);
    let mut outer = std::process::Command::new("sh");
    outer.args(["-c", r#"ulimit -Sn 300; exec "$0" "$@""#]).arg(inner.get_program()).args(inner.get_args());
    let bridge = Bridge::spawn(outer);
    let _session: Session = bridge.session();
    assert_eq!(
        scratch.read("limit").trim(),
        "300",
        "select() does not work above 1024, so it is not raised for children"
    );
}

#[test]
fn stdin_of_a_child_is_closed_at_the_end_not_before() {
    let scratch = Scratch::new();
    let command =
        ["sh", "-c", r#""$0" good; echo "$?" > "$1""#, &support::example("hostile"), &scratch.path("code")];
    let bridge = Bridge::start(&["--lazy"], &command);
    let session = bridge.session();
    session.text("echo", json!({ "text": "a" }));
    assert_eq!(scratch.read("code"), "");
    session.delete();
    eventually("the server ends by itself", || scratch.read("code") == "0\n");
}
