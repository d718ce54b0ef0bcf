//! The end of the bridge: who gets an answer, how long it may take, and that it is the same as process 1.
//!
//! What is left of children is P6's business, see `tests/promises/p6_nothing_left_behind.rs`.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::http::Connection;
use crate::support::{
    self, Bridge, Request, Response, Session, assert_refused, bridge_command, eventually, initialize, json,
    proc, reason, text_of, tool_call,
};

/// `docker stop` kills after so long.
const DOCKER: Duration = Duration::from_secs(10);

/// What a busy machine may add to a time.
const SLACK: Duration = Duration::from_millis(1500);

fn pid_of(session: &Session) -> u32 {
    u32::try_from(session.look("pids")["pid"].as_u64().unwrap()).unwrap()
}

// ---------------------------------------------------------------------------------------------- fifty calls

/// Starts fifty calls in five sessions, each of its own length, and returns when all are in flight.
fn fifty_calls(bridge: &Bridge, milliseconds: impl Fn(u64) -> u64) -> Vec<Response> {
    let sessions: Vec<Session> = (0..5).map(|_| bridge.session()).collect();
    let begun: Vec<Connection> = (0..50)
        .zip(sessions.iter().cycle())
        .map(|(id, session)| {
            session.begin(tool_call(id, "sleep", json!({ "ms": milliseconds(id) })).to_string())
        })
        .collect();
    // The head of a stream comes when the answer has been waited for.
    let calls: Vec<Response> = begun.into_iter().map(Connection::response).collect();
    assert!(calls.iter().all(|call| call.status == 200 && call.is_sse()));
    calls
}

#[test]
fn fifty_calls_in_flight_at_sigterm_get_fifty_answers() {
    let mut bridge = Bridge::start(&[], &["hostile", "good"]);
    let length = |id: u64| 1000 + id * 5000 / 49;
    let first = Instant::now();
    let calls = fifty_calls(&bridge, length);
    let last = Instant::now();
    bridge.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    let until = stopped + Duration::from_millis(3500);

    let mut finished = 0;
    for (id, mut call) in (0..).zip(calls) {
        let answer = call.answer();
        assert_eq!(answer["id"], id);
        let length = Duration::from_millis(length(id));
        if answer.get("result").is_some() {
            assert_eq!(text_of(&answer), "slept");
            assert!(first + length < until + SLACK, "{length:?} are too long to have been waited for");
            finished += 1;
        } else {
            assert_eq!(reason(&answer), "shutting_down");
            assert!(last + length + SLACK > until, "{length:?} are short enough to be waited for");
        }
    }
    assert!((1..50).contains(&finished), "some are short enough and some are not: {finished}");
    assert_eq!(bridge.exit_code(), 0);
    assert!(stopped.elapsed() < DOCKER, "{:?}", stopped.elapsed());
    assert_eq!(bridge.processes(), []);
}

#[test]
fn with_more_time_fifty_calls_get_their_results() {
    let mut bridge = Bridge::start(&["--shutdown-timeout", "25s"], &["hostile", "good"]);
    let calls = fifty_calls(&bridge, |id| 4000 + id * 20);
    bridge.signal(Signal::SIGTERM);
    for (id, mut call) in (0..).zip(calls) {
        let answer = call.answer();
        assert_eq!((&answer["id"], &*text_of(&answer)), (&json!(id), "slept"));
    }
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn by_default_dockers_ten_seconds_are_enough_for_the_worst_children() {
    // They answer no call in time, and leave neither at the end of stdin nor on SIGTERM.
    let mut bridge = Bridge::start(&[], &["hostile", "ignore_term"]);
    let calls = fifty_calls(&bridge, |_| 600_000);
    bridge.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    for (id, mut call) in (0..).zip(calls) {
        let answer = call.answer();
        assert_eq!((&answer["id"], reason(&answer)), (&json!(id), "shutting_down"));
    }
    bridge.exit_code();
    assert!(stopped.elapsed() < DOCKER, "{:?}", stopped.elapsed());
    assert_eq!(bridge.processes(), []);
}

// ---------------------------------------------------------------------------------------------- while it drains

#[test]
fn while_it_drains_live_sessions_are_served_and_idle_ones_leave() {
    let mut bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let (busy, idle) = (bridge.session(), bridge.session());
    let idle_child = pid_of(&idle);
    let mut stream = busy.listen();
    let mut call = busy.start_call("sleep", json!({ "ms": 2500 }));
    bridge.signal(Signal::SIGTERM);
    eventually("it is not ready any more", || bridge.get("/readyz").status == 503);
    bridge.get("/healthz").expect(200, "it is not to be restarted either");
    eventually("the idle child leaves", || !proc::is_alive(idle_child));
    assert_eq!(idle.ping().status, 404, "its session is over");
    assert_eq!(busy.text("echo", json!({ "text": "still here" })), "still here");
    assert_eq!(text_of(&call.answer()), "slept");
    assert_eq!(stream.event(), None, "the stream ends properly");
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn a_client_that_waits_for_a_seat_is_told_of_the_shutdown() {
    let options = ["--lazy", "--max-sessions", "1"];
    let mut bridge = Bridge::start(&options, &["hostile", "slow_exit", "1500"]);
    bridge.session().delete();
    let mut waiting = Connection::open(bridge.address);
    let request = Request::post("/mcp", initialize(1, "2025-06-18").to_string());
    waiting.write(&request.to_bytes(&bridge.address.to_string()));
    // What was sent before is accepted before.
    bridge.get("/healthz").expect(200, "it lives");
    bridge.signal(Signal::SIGTERM);
    assert_refused(&mut waiting.response(), 503, "shutting_down");
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn a_handshake_in_flight_is_answered_before_the_end() {
    let mut bridge = Bridge::start(&["--shutdown-timeout", "2s"], &["hostile", "hang_init"]);
    let mut response = bridge.post(initialize("me", "2025-06-18").to_string());
    assert!(response.is_sse(), "it waits");
    bridge.signal(Signal::SIGTERM);
    let answer = response.answer();
    assert_eq!((&answer["id"], reason(&answer)), (&json!("me"), "shutting_down"));
    bridge.exit_code();
    assert_eq!(bridge.processes(), []);
}

#[test]
fn children_that_wait_for_a_session_leave_too() {
    for mode in ["good", "ignore_term"] {
        let mut bridge = Bridge::start(&["--warm", "3", "--shutdown-timeout", "4s"], &["hostile", mode]);
        eventually("three children wait", || bridge.processes().len() == 3);
        bridge.signal(Signal::SIGTERM);
        assert_eq!(bridge.exit_code(), 0, "{mode}: they have been waited for");
        assert_eq!(bridge.processes(), [], "{mode}");
    }
}

#[test]
fn peers_that_stand_still_do_not_hold_the_bridge() {
    let mut bridge = Bridge::start(&["--shutdown-timeout", "4s", "--lazy"], &["hostile", "huge", "20000000"]);
    let session = bridge.session();
    let open = |bytes: &[u8]| {
        let mut connection = Connection::open(bridge.address);
        connection.write(bytes);
        connection
    };
    let half_a_body = Request::post("/mcp", "{").with("Content-Length", "500").to_bytes("localhost");
    let _silent = open(b"");
    let _half_a_head = open(b"POST /mcp HTTP/1.1\r\nHost: loc");
    let _half_a_body = open(&half_a_body);
    let _idle = bridge.get("/healthz").into_connection();
    let _does_not_read = session.start_call("echo", json!({}));
    bridge.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    assert_eq!(bridge.exit_code(), 0);
    assert!(stopped.elapsed() < Duration::from_secs(4) + SLACK, "{:?}", stopped.elapsed());
}

#[test]
fn what_does_not_end_in_time_is_killed_and_the_exit_code_says_so() {
    // What is queued for a child is written for a moment after the end of its session, longer than there is here.
    let mut bridge = Bridge::start(&["--shutdown-timeout", "400ms", "--lazy"], &["hostile", "deaf"]);
    let session = bridge.session();
    let _call = session.start_call("echo", json!({ "text": "x".repeat(1 << 20) }));
    bridge.signal(Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 1);
    assert_eq!(bridge.processes(), []);
}

// ---------------------------------------------------------------------------------------------- other signals

#[test]
fn sighup_lets_calls_finish_like_sigterm() {
    let mut bridge = Bridge::start(&[], &["notebook"]);
    let mut call = bridge.session().start_call("slow", json!({ "seconds": 1 }));
    bridge.signal(Signal::SIGHUP);
    assert_eq!(text_of(&call.answer()), "waited 1 s");
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn sigquit_ends_everything_at_once() {
    let mut bridge = Bridge::start(&["--shutdown-timeout", "60s"], &["hostile", "ignore_term"]);
    let _call = bridge.session().start_call("sleep", json!({ "ms": 600_000 }));
    bridge.signal(Signal::SIGQUIT);
    assert_eq!(bridge.exit_code(), 131);
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_second_signal_may_be_another_one() {
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    for (first, second, code) in
        [(SIGTERM, SIGINT, 130), (SIGINT, SIGTERM, 143), (SIGHUP, SIGHUP, 129), (SIGTERM, SIGQUIT, 131)]
    {
        let mut bridge = Bridge::start(&["--shutdown-timeout", "60s"], &["hostile", "ignore_term"]);
        let _call = bridge.session().start_call("sleep", json!({ "ms": 600_000 }));
        bridge.signal(first);
        eventually("the drain has begun", || bridge.get("/readyz").status == 503);
        bridge.signal(second);
        assert_eq!(bridge.exit_code(), code, "{first}, then {second}");
        assert_eq!(bridge.processes(), []);
    }
}

// ---------------------------------------------------------------------------------------------- SIGKILL

#[test]
fn children_are_started_by_the_main_thread() {
    // They are killed when the thread that started them ends, and this one ends with the bridge.
    let bridge = Bridge::start(&["--warm", "1"], &["hostile", "good"]);
    let session = pid_of(&bridge.session());
    let main = bridge.pid();
    eventually("all children are those of the main thread", || {
        let theirs = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
        let theirs: Vec<u32> = theirs.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        let all = proc::children(main);
        all.len() == 2 && theirs.contains(&session) && all.iter().all(|child| theirs.contains(&child.pid))
    });
}

#[test]
fn no_child_that_waits_for_a_session_survives_a_killed_bridge() {
    let mut bridge = Bridge::start(&["--warm", "2"], &["hostile", "ignore_term"]);
    eventually("two children wait", || bridge.processes().len() == 2);
    bridge.signal(Signal::SIGKILL);
    bridge.exit_code();
    eventually("the kernel ends the children", || bridge.processes().is_empty());
}

// ---------------------------------------------------------------------------------------------- as process 1

/// A bridge that is process 1, and its number outside. `None` where the kernel does not let us.
fn process_1(options: &[&str], command: &[&str]) -> Option<(Bridge, Pid)> {
    let inner = bridge_command(&[&["--listen", "127.0.0.1:0"], options].concat(), command);
    let bridge = Bridge::spawn(support::as_process_1(&inner)?);
    let pid = proc::children(bridge.pid())[0].pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = status.lines().find(|line| line.starts_with("NSpid:")).unwrap();
    assert!(number.ends_with("\t1"), "{number}");
    Some((bridge, Pid::from_raw(pid.cast_signed())))
}

#[test]
fn process_1_lets_calls_finish_on_every_signal_that_asks_it_to_stop() {
    // The kernel drops what process 1 has no handler for.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let Some((mut bridge, pid)) = process_1(&[], &["notebook"]) else { return };
        let mut call = bridge.session().start_call("slow", json!({ "seconds": 1 }));
        kill(pid, signal).unwrap();
        assert_eq!(text_of(&call.answer()), "waited 1 s", "{signal}");
        assert_eq!(bridge.exit_code(), 0, "{signal}");
        assert_eq!(bridge.processes(), [], "{signal}");
    }
}

#[test]
fn process_1_ends_at_once_on_sigquit_and_on_a_second_signal() {
    for (first, second, code) in [(None, Signal::SIGQUIT, 131), (Some(Signal::SIGTERM), Signal::SIGTERM, 143)]
    {
        let started = process_1(&["--shutdown-timeout", "60s"], &["hostile", "ignore_term"]);
        let Some((mut bridge, pid)) = started else { return };
        let _call = bridge.session().start_call("sleep", json!({ "ms": 600_000 }));
        if let Some(first) = first {
            kill(pid, first).unwrap();
            eventually("the drain has begun", || bridge.get("/readyz").status == 503);
        }
        kill(pid, second).unwrap();
        assert_eq!(bridge.exit_code(), code);
        assert_eq!(bridge.processes(), []);
    }
}

#[test]
fn a_killed_process_1_takes_even_daemons_along() {
    let Some((bridge, pid)) = process_1(&["--lazy"], &["hostile", "daemon"]) else { return };
    let _session = bridge.session();
    assert_eq!(bridge.processes().len(), 3, "the bridge, its child and the daemon");
    kill(pid, Signal::SIGKILL).unwrap();
    eventually("the kernel ends everything", || bridge.processes().is_empty());
}
