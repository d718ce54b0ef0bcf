//! P5: every queue, buffer, map and timer has a cap whose effect is written down. Memory does not grow with time.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::http::Connection;
use crate::support::{
    Bridge, Request, assert_refused, eventually, initialize, json, proc, reason, text_of, tool_call,
};

const MIB: u64 = 1 << 20;

// ---------------------------------------------------------------------------------------------- sizes

#[test]
fn a_body_that_announces_too_much_is_refused_before_it_is_sent() {
    let bridge = Bridge::start(&["--max-body", "1MiB"], &["notebook"]);
    let session = bridge.session();
    let request = session.headers(Request::post("/mcp", "")).with("Content-Length", "2000000");
    assert_refused(&mut bridge.send(request), 413, "payload_too_large");
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
}

#[test]
fn a_body_that_grows_too_large_is_refused_when_it_does() {
    let bridge = Bridge::start(&["--max-body", "1MiB"], &["notebook"]);
    let session = bridge.session();
    let request = session
        .headers(Request::post("/mcp", ""))
        .without("Content-Length")
        .with("Transfer-Encoding", "chunked");
    let mut connection = Connection::open(bridge.address);
    connection.write(&request.to_bytes("localhost"));
    for _ in 0..20 {
        connection.write(format!("10000\r\n{}\r\n", " ".repeat(0x10000)).as_bytes());
    }
    assert_refused(&mut connection.response(), 413, "payload_too_large");
}

#[test]
fn a_body_right_at_the_limit_passes() {
    let bridge = Bridge::start(&["--max-body", "4096"], &["notebook"]);
    let session = bridge.session();
    let call = tool_call(1, "echo", json!({ "text": "" })).to_string();
    let fitting = format!("{call}{}", " ".repeat(4096 - call.len()));
    assert_eq!(text_of(&session.post(&fitting).answer()), "");
    assert_refused(&mut session.post(format!("{fitting} ")), 413, "payload_too_large");
}

#[test]
fn a_message_of_the_child_over_the_limit_fails_its_own_call_only() {
    let bridge = Bridge::start(&["--max-message", "1MiB"], &["hostile", "huge", "3000000"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({}));
    assert_eq!((reason(&answer), &answer["error"]["code"]), ("response_too_large", &json!(-32603)));
    assert_eq!(session.seen_count("initialize"), 1, "the session goes on");
}

#[test]
fn a_line_without_end_costs_no_more_memory_than_the_limit() {
    let bridge = Bridge::start(&["--max-message", "8MiB"], &["hostile", "huge", "64000000"]);
    let answer = bridge.session().call("echo", json!({}));
    assert_eq!(reason(&answer), "response_too_large");
    let peak = proc::peak_memory(bridge.pid());
    assert!(peak < 40 * MIB, "{} MiB for a limit of 8 MiB", peak / MIB);
}

#[test]
fn a_flood_that_nobody_listens_to_costs_no_memory() {
    let bridge = Bridge::start(&["--replay-buffer", "1MiB"], &["hostile", "flood_stdout"]);
    let session = bridge.session();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        session.text("echo", json!({ "text": "a" }));
    }
    let peak = proc::peak_memory(bridge.pid());
    assert!(peak < 40 * MIB, "{} MiB", peak / MIB);
}

#[test]
fn a_flood_that_is_not_read_costs_no_memory() {
    let bridge = Bridge::start(&["--replay-buffer", "1MiB"], &["hostile", "flood_stdout"]);
    let session = bridge.session();
    let unread = session.listen();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        session.text("echo", json!({ "text": "a" }));
    }
    drop(unread);
    let peak = proc::peak_memory(bridge.pid());
    assert!(peak < 40 * MIB, "{} MiB", peak / MIB);
}

#[test]
fn the_memory_of_large_answers_goes_back_while_their_session_lives_on() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let before = proc::resident_memory(bridge.pid());
    let large = "x".repeat(9_000_000);
    for _ in 0..3 {
        assert_eq!(session.text("echo", json!({ "text": large })), large);
    }
    let grown = || proc::resident_memory(bridge.pid()).saturating_sub(before) / MIB;
    eventually("what is free is given back", || grown() < 14);
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
}

#[test]
fn a_deaf_child_costs_no_memory() {
    let bridge = Bridge::start(&[], &["hostile", "deaf"]);
    let session = bridge.session();
    let before = proc::resident_memory(bridge.pid());
    let text = "x".repeat(1 << 20);
    let calls: Vec<_> =
        (0..40).map(|id| session.begin(tool_call(id, "echo", json!({ "text": text })).to_string())).collect();
    thread::sleep(Duration::from_millis(500));
    let grown = proc::peak_memory(bridge.pid()).saturating_sub(before);
    assert!(grown < 21 * MIB, "{} MiB more for 40 MiB that the child does not take", grown / MIB);
    drop(calls);
}

#[test]
fn an_idle_session_keeps_no_memory_of_its_large_messages() {
    let bridge = Bridge::start(&["--lazy", "--max-body", "32MiB"], &["hostile", "good"]);
    let session = bridge.session();
    session.text("echo", json!({ "text": "a" }));
    let before = proc::resident_memory(bridge.pid());
    let text = "x".repeat(20 << 20);
    assert_eq!(session.text("echo", json!({ "text": text })).len(), text.len());
    eventually("the memory is given back", || proc::resident_memory(bridge.pid()) < before + 10 * MIB);
}

#[test]
fn noise_of_a_child_does_not_fill_the_log() {
    let bridge = Bridge::start(&[], &["hostile", "noise"]);
    let session = bridge.session();
    for _ in 0..200 {
        session.text("echo", json!({ "text": "a" }));
    }
    assert!(bridge.log().len() < 100, "{} lines for 400 lines of noise", bridge.log().len());
}

#[test]
fn a_flood_on_stderr_does_not_fill_the_log() {
    let bridge = Bridge::start(&[], &["hostile", "flood_stderr"]);
    let session = bridge.session();
    thread::sleep(Duration::from_secs(1));
    session.text("echo", json!({ "text": "a" }));
    let log = bridge.log();
    assert!(log.len() < 5_000, "{} lines", log.len());
    let longest = log.iter().map(String::len).max().unwrap_or(0);
    assert!(longest < 10_000, "a line of {longest} bytes");
    assert!(!log.iter().any(|line| line.contains('\u{1b}')), "control characters are escaped");
}

// ---------------------------------------------------------------------------------------------- numbers

#[test]
fn one_session_too_many_is_refused_until_another_one_ends() {
    let bridge = Bridge::start(&["--max-sessions", "2", "--lazy"], &["notebook"]);
    let (first, _second) = (bridge.session(), bridge.session());
    let mut third = bridge.post(initialize("third", "2025-06-18").to_string());
    let refusal = assert_refused(&mut third, 503, "too_many_sessions");
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("third"), &json!(-32603)));
    assert!(third.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(
        refusal["error"]["message"].as_str().unwrap().contains("--max-sessions"),
        "the cure is named: {refusal}"
    );
    assert_eq!(third.header("mcp-session-id"), None);

    first.delete();
    eventually("the seat is free", || bridge.post(initialize(0, "2025-06-18").to_string()).status == 200);
}

#[test]
fn a_hundred_parallel_initializes_never_make_more_sessions_than_allowed() {
    let bridge = Bridge::start(&["--max-sessions", "5", "--lazy"], &["notebook"]);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let starts: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| bridge.post(initialize(0, "2025-06-18").to_string()).status))
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 95);
    assert_eq!(bridge.processes().len(), 5);
}

#[test]
fn one_call_too_many_in_flight_is_refused_without_a_status_that_kills_clients() {
    let bridge = Bridge::start(&["--max-in-flight", "4"], &["hostile", "hang"]);
    let session = bridge.session();
    let held: Vec<_> =
        (0..4).map(|id| session.start_call("echo", json!({ "text": id.to_string() }))).collect();
    let mut fifth = session.post(tool_call("fifth", "echo", json!({})).to_string());
    fifth.expect(200, "several clients do not survive 429");
    assert_eq!(fifth.header("mcp-bridge-error"), Some("too_many_inflight"));
    let answer = fifth.json();
    assert_eq!((&answer["id"], reason(&answer)), (&json!("fifth"), "too_many_inflight"));
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("--max-in-flight"),
        "the cure is named: {answer}"
    );
    drop(held);
}

// ---------------------------------------------------------------------------------------------- time

#[test]
fn a_client_that_sends_half_a_head_does_not_keep_the_bridge() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let mut half: Vec<Connection> = (0..50).map(|_| Connection::open(bridge.address)).collect();
    for connection in &mut half {
        connection.write(b"POST /mcp HTTP/1.1\r\nHost: local");
    }
    assert_eq!(bridge.session().text("list_notes", json!({})), "no notes yet");
}

#[test]
fn sessions_that_come_and_go_leave_no_file_open() {
    let bridge = Bridge::start(&["--lazy", "--stop-grace", "200ms"], &["notebook"]);
    bridge.session().delete();
    bridge.leaves_nothing();
    let before = proc::open_files(bridge.pid());
    for _ in 0..30 {
        let session = bridge.session();
        session.text("list_notes", json!({}));
        session.delete();
    }
    bridge.leaves_nothing();
    eventually("all files are closed again", || proc::open_files(bridge.pid()) <= before);
}

#[test]
fn children_that_fail_to_start_leave_no_file_open() {
    let options = ["--lazy", "--init-timeout", "50ms", "--stop-grace", "50ms"];
    let bridge = Bridge::start(&options, &["hostile", "hang_init"]);
    let fail = || assert!(matches!(bridge.post(initialize(0, "2025-06-18").to_string()).status, 502 | 503));
    fail();
    bridge.leaves_nothing();
    let before = proc::open_files(bridge.pid());
    for _ in 0..15 {
        fail();
    }
    bridge.leaves_nothing();
    eventually("all files are closed again", || proc::open_files(bridge.pid()) <= before);
}

// ---------------------------------------------------------------------------------------------- the account

/// What a line of SIGUSR1's answer says under this name; 0 where it is left out.
fn field(line: &str, name: &str) -> u64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(&format!("{name}=")));
    value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name} in {line}")))
}

/// Asks with SIGUSR1 until the line of this event is as wanted.
#[track_caller]
fn accounted(bridge: &Bridge, event: &str, wanted: impl Fn(&str) -> bool) -> String {
    let event = format!("event=\"{event}\"");
    let mut last = String::new();
    eventually("what waits is counted", || {
        let before = bridge.log().len();
        bridge.signal(Signal::SIGUSR1);
        eventually("it answers", || {
            bridge.log()[before..].iter().any(|line| line.contains("event=\"bridge.state\""))
        });
        thread::sleep(Duration::from_millis(50));
        let log = bridge.log();
        last = log[before..].iter().find(|line| line.contains(&event)).cloned().unwrap_or_default();
        wanted(&last)
    });
    last
}

/// Waits until so much of the one session is counted at this place, and until none is any more.
#[track_caller]
fn assert_counted(bridge: &Bridge, place: &str, at_least: u64, end: impl FnOnce()) {
    let line = accounted(bridge, "session.state", |line| field(line, place) >= at_least);
    assert!(field(&line, "waiting_bytes") >= field(&line, place), "{line}");
    accounted(bridge, "bridge.state", |line| field(line, "waiting_bytes") >= at_least);
    end();
    accounted(bridge, "bridge.state", |line| field(line, "waiting_bytes") < at_least);
}

/// A body of which so many bytes have come.
fn half_a_body(bridge: &Bridge, request: Request, bytes: usize) -> Connection {
    let request = request.with("Content-Length", "9000000").to_bytes("localhost");
    let mut connection = Connection::open(bridge.address);
    connection.write(&[request, vec![b' '; bytes]].concat());
    connection
}

#[test]
fn bodies_count_in_their_session() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let half = half_a_body(&bridge, session.headers(Request::post("/mcp", "")), 300_000);
    assert_counted(&bridge, "bodies", 300_000, || drop(half));
}

#[test]
fn bodies_that_wait_for_a_child_count_until_they_are_forwarded() {
    let bridge = Bridge::start(&[], &["hostile", "deaf"]);
    let session = bridge.session();
    let text = "x".repeat(1 << 20);
    let calls: Vec<_> =
        (0..7).map(|id| session.begin(tool_call(id, "echo", json!({ "text": text })).to_string())).collect();
    let line = accounted(&bridge, "session.state", |line| field(line, "bodies") >= 2 * MIB);
    assert!(field(&line, "stdin") >= 3 * MIB, "{line}");
    drop(calls);
    accounted(&bridge, "session.state", |line| field(line, "bodies") == 0);
}

#[test]
fn bodies_without_a_session_count_for_the_bridge() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let half = half_a_body(&bridge, Request::post("/mcp", ""), 300_000);
    let line = accounted(&bridge, "bridge.state", |line| field(line, "anonymous_bytes") >= 300_000);
    assert!(field(&line, "waiting_bytes") >= field(&line, "anonymous_bytes"), "{line}");
    drop(half);
    accounted(&bridge, "bridge.state", |line| field(line, "anonymous_bytes") == 0);
}

#[test]
fn what_a_child_does_not_read_counts() {
    let bridge = Bridge::start(&[], &["hostile", "deaf"]);
    let session = bridge.session();
    let text = "x".repeat(1 << 20);
    let call = session.begin(tool_call(1, "echo", json!({ "text": text })).to_string());
    assert_counted(&bridge, "stdin", 900_000, || _ = session.delete());
    drop(call);
}

#[test]
fn messages_that_are_held_count() {
    let bridge = Bridge::start(&["--ready-delay", "60s"], &["hostile", "good"]);
    let session = bridge.session();
    let text = "x".repeat(300_000);
    let call = session.begin(tool_call(1, "echo", json!({ "text": text })).to_string());
    assert_counted(&bridge, "held", 300_000, || _ = session.delete());
    drop(call);
}

#[test]
fn half_a_line_of_a_child_counts() {
    let answer = r#"{"jsonrpc":"2.0","id":\1,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"a","version":"1"}}}"#;
    let answer = format!(r#"sed -E 's/.*"id":([0-9]+).*/{answer}/'"#);
    let script = format!(
        "read a; echo \"$a\" | {answer}; read b; head -c 300000 /dev/zero | tr '\\0' x; exec sleep 600"
    );
    let bridge = Bridge::start(&["--lazy"], &["sh", "-c", &script]);
    let session = bridge.session();
    assert_counted(&bridge, "stdout", 300_000, || _ = session.delete());
}

#[test]
fn events_that_are_kept_for_resumption_count_with_all_that_they_cost() {
    let bridge = Bridge::start(&["--replay-buffer", "1MiB"], &["hostile", "flood_stdout"]);
    let session = bridge.session();
    assert_counted(&bridge, "replay", 700_000, || _ = session.delete());
}

#[test]
fn events_that_nobody_takes_count() {
    let bridge = Bridge::start(&[], &["hostile", "flood_stdout"]);
    let session = bridge.session();
    let unread = session.listen();
    let line = accounted(&bridge, "session.state", |line| field(line, "readers") >= 100_000);
    assert!(field(&line, "waiting_bytes") >= field(&line, "readers"), "{line}");
    drop(unread);
}

#[test]
fn an_answer_that_its_client_does_not_read_counts() {
    let bridge = Bridge::start(&[], &["hostile", "huge", "9000000"]);
    let session = bridge.session();
    let request = session.headers(Request::post("/mcp", tool_call(1, "echo", json!({})).to_string()));
    let mut unread = Connection::open(bridge.address);
    unread.write(&request.with("Accept", "application/json").to_bytes("localhost"));
    assert_counted(&bridge, "readers", 1_000_000, || drop(unread));
}
