//! How a child is made to leave: the end of stdin, then SIGTERM, then SIGKILL, each for its whole process group.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    self, Bridge, Scratch, eventually, example, initialize, json, proc, reason, text_of, within,
};

/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_secs(3);

/// A bridge with one child at a time that runs a shell script; `$0` is the server, `$1` a directory to write to.
fn shell(options: &[&str], scratch: &Scratch, script: &str) -> Bridge {
    let command = ["sh", "-c", script, &example("hostile"), &scratch.path("")];
    Bridge::start(&[&["--lazy"], options].concat(), &command)
}

/// The last line about a session, which says how its child left.
#[track_caller]
fn assert_stopped_by(bridge: &Bridge, stopped_by: &str) {
    let line = bridge.logged("the session ends", |line| line.contains("session.end"));
    assert!(line.contains(&format!("stopped_by=\"{stopped_by}\"")), "{stopped_by}: {line}");
}

// ---------------------------------------------------------------------------------------------- the steps and their times

#[test]
fn by_default_a_child_has_five_seconds_until_sigterm_and_two_more_until_sigkill() {
    let scratch = Scratch::new();
    let script = r#"trap ': > "$1/term"' TERM; "$0" good; while :; do sleep 0.1; done"#;
    let bridge = shell(&[], &scratch, script);
    let session = bridge.session();
    let start = Instant::now();
    session.delete();
    let term = scratch.path("term");
    within(Duration::from_secs(5) + SLACK, "SIGTERM comes", || Path::new(&term).exists());
    assert!(start.elapsed() >= Duration::from_secs(5), "SIGTERM after {:?}", start.elapsed());
    within(Duration::from_secs(2) + SLACK, "SIGKILL comes", || bridge.processes().is_empty());
    assert!(start.elapsed() >= Duration::from_secs(7), "SIGKILL after {:?}", start.elapsed());
    assert_stopped_by(&bridge, "kill");
}

#[test]
fn a_child_that_leaves_by_itself_is_sent_no_signal() {
    let scratch = Scratch::new();
    let script = r#"trap ': > "$1/term"' TERM; "$0" slow_exit 700; sleep 0.3"#;
    let bridge = shell(&["--stop-grace", "20s"], &scratch, script);
    bridge.session().delete();
    bridge.leaves_nothing();
    assert_stopped_by(&bridge, "eof");
    assert!(!Path::new(&scratch.path("term")).exists());
}

#[test]
fn a_child_that_needs_sigterm_may_clean_up_on_it() {
    let scratch = Scratch::new();
    let script = r#"trap 'sleep 0.5; : > "$1/clean"; exit 0' TERM; "$0" good; while :; do sleep 0.1; done"#;
    let bridge = shell(&["--stop-grace", "3s"], &scratch, script);
    bridge.session().delete();
    bridge.leaves_nothing();
    assert_stopped_by(&bridge, "term");
    assert!(Path::new(&scratch.path("clean")).exists());
}

#[test]
fn sigterm_is_for_the_whole_group() {
    let scratch = Scratch::new();
    let script = r#"
        sh -c 'trap ": > \"$0/helper\"; exit 0" TERM; while :; do sleep 0.1; done' "$1" &
        trap 'wait; exit 0' TERM
        "$0" good
        while :; do sleep 0.1; done"#;
    let bridge = shell(&["--stop-grace", "3s"], &scratch, script);
    bridge.session().delete();
    bridge.leaves_nothing();
    assert_stopped_by(&bridge, "term");
    assert!(Path::new(&scratch.path("helper")).exists(), "the helper has been asked too");
}

#[test]
fn a_stopped_child_is_woken_to_see_sigterm() {
    let bridge = Bridge::start(&["--lazy", "--stop-grace", "2s"], &["hostile", "good"]);
    let session = bridge.session();
    let pid = session.look("pids")["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGSTOP).unwrap();
    session.delete();
    bridge.leaves_nothing();
    assert_stopped_by(&bridge, "term");
}

#[test]
fn a_child_that_reads_nothing_leaves_too() {
    let bridge = Bridge::start(&["--lazy", "--stop-grace", "300ms"], &["hostile", "deaf"]);
    let session = bridge.session();
    let call = session.start_call("echo", json!({ "text": "x".repeat(1 << 20) }));
    session.delete();
    bridge.leaves_nothing();
    assert_stopped_by(&bridge, "term");
    drop(call);
}

#[test]
fn what_a_child_writes_while_it_leaves_is_read() {
    // More than a pipe holds: nobody reading it would stop the child, and a closed pipe would kill it.
    let scratch = Scratch::new();
    let script =
        r#""$0" good; for to in 1 2; do head -c 1000000 /dev/zero >&$to || exit 1; done; : > "$1/done""#;
    let bridge = shell(&["--stop-grace", "20s"], &scratch, script);
    bridge.session().delete();
    bridge.leaves_nothing();
    assert_stopped_by(&bridge, "eof");
    assert!(Path::new(&scratch.path("done")).exists());
}

// ---------------------------------------------------------------------------------------------- wrappers

/// `sh` gives background processes no stdin unless it is handed over.
const BACKGROUND: &str = r#"exec 3<&0; "$0" good <&3 3<&- & exec 3<&-;"#;

#[test]
fn no_wrapper_leaves_anything() {
    let in_background = format!("{BACKGROUND} wait");
    let stays = BACKGROUND.replace("good", "ignore_term");
    let stays = format!("trap exit TERM; {stays} wait");
    let with_deaf_helper =
        format!(r#"sh -c 'trap "" TERM; while :; do sleep 1; done' & {BACKGROUND} wait $!"#);
    let wrappers = [
        ("server in the background", &*in_background, "eof"),
        ("shell in a shell", r#"sh -c '"$0" good; exit' "$0"; exit"#, "eof"),
        ("like npx", r#"env A=1 sh -c 'env B=2 "$0" good; exit $?' "$0"; exit $?"#, "eof"),
        ("waits for more than its server", r#"sleep 600 & "$0" good; wait"#, "term"),
        ("with a helper that ignores SIGTERM", &*with_deaf_helper, "eof"),
        (
            "ignores SIGTERM, its child does not",
            r#"trap : TERM; "$0" good; while :; do sleep 1; done"#,
            "kill",
        ),
        ("takes SIGTERM, its child does not", &*stays, "term"),
    ];
    for (name, script, stopped_by) in wrappers {
        let scratch = Scratch::new();
        let bridge = shell(&["--stop-grace", "1s"], &scratch, script);
        let session = bridge.session();
        session.text("echo", json!({ "text": name }));
        assert!(bridge.processes().len() >= 2, "{name}: {:?}", bridge.processes());
        session.delete();
        bridge.leaves_nothing();
        assert_stopped_by(&bridge, stopped_by);
    }
}

#[test]
fn a_wrapper_that_dies_first_takes_its_server_along() {
    let scratch = Scratch::new();
    let script = format!(r#"{BACKGROUND} until [ -e "$1/die" ]; do sleep 0.05; done; exit 7"#);
    let bridge = shell(&[], &scratch, &script);
    let session = bridge.session();
    let mut call = session.start_call("sleep", json!({ "ms": 600_000 }));
    scratch.write("die", "");
    let answer = call.answer();
    assert_eq!((reason(&answer), &answer["error"]["data"]["exit_code"]), ("child_exited", &json!(7)));
    session.ping().expect(404, "the session is over");
    bridge.leaves_nothing();
}

#[test]
fn a_launcher_that_leaves_its_server_behind_has_failed_to_start_it() {
    let scratch = Scratch::new();
    // It gives the server a moment, or the end of the group would come before there is a server.
    let script = format!("{BACKGROUND} sleep 0.3; exit 0");
    let bridge = shell(&[], &scratch, &script);
    let start = Instant::now();
    let mut response = bridge.post(initialize(1, "2025-06-18").to_string());
    // The server may well have answered: then its session is a short one.
    if response.status == 200 {
        let session = support::Session::from_response(bridge.address, &mut response);
        eventually("the session is over", || session.ping().status == 404);
    } else {
        assert_eq!(reason(&response.answer()), "child_exited");
    }
    bridge.leaves_nothing();
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}

// ---------------------------------------------------------------------------------------------- pipes that others hold

#[test]
fn a_process_of_the_group_that_holds_the_pipes_delays_no_end() {
    let scratch = Scratch::new();
    let bridge = shell(&[], &scratch, r#"sleep 600 & exec "$0" good"#);
    let session = bridge.session();
    let start = Instant::now();
    let answer = session.call("exit", json!({ "code": 3 }));
    assert_eq!((reason(&answer), &answer["error"]["data"]["exit_code"]), ("child_exited", &json!(3)));
    bridge.leaves_nothing();
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}

#[test]
fn the_pipes_of_an_ended_session_are_closed_whoever_else_holds_them() {
    let scratch = Scratch::new();
    // Away before the server starts, so that the end of the group cannot catch it.
    let script = r#"
        setsid sh -c ': > "$0/away"; exec sleep 20' "$1" &
        until [ -e "$1/away" ]; do sleep 0.01; done
        exec "$0" good"#;
    let bridge = shell(&["--max-sessions", "1"], &scratch, script);
    bridge.get("/healthz").expect(200, "it lives");
    let before = proc::open_files(bridge.pid());
    for _ in 0..5 {
        let _ = fs::remove_file(scratch.path("away"));
        // There is one seat: it is free at once, or there would be no next session.
        let session = bridge.session();
        assert_eq!(text_of(&session.call("echo", json!({ "text": "a" }))), "a");
        let start = Instant::now();
        assert_eq!(session.delete().status, 204);
        within(SLACK, "the pipes are closed", || proc::open_files(bridge.pid()) <= before);
        assert!(start.elapsed() < SLACK);
    }
    let left = || bridge.log().iter().filter(|line| line.contains(r#"stopped_by="eof""#)).count();
    within(SLACK, "each child left by itself", || left() == 5);
}
