//! `--on-exit respawn`: a session that outlives its child.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::{
    Bridge, Request, Scratch, Session, Value, assert_refused, eventually, example, initialize, json, proc,
    reason, recorded, text_of, tool_call,
};

const RESPAWN: &[&str] = &["--lazy", "--on-exit", "respawn"];

/// The first child is `hostile strict`, each later one this script; `$0` is `hostile`, `$1` a directory.
fn first_and_later(scratch: &Scratch, later: &str) -> Vec<String> {
    let script = format!(
        r#"echo >> "$1/starts"; if mkdir "$1/taken" 2>/dev/null; then exec "$0" strict; fi; {later}"#
    );
    ["sh", "-c", &script, &example("hostile"), &scratch.path("")].map(str::to_owned).to_vec()
}

/// A later child that begins only when the test says so, by the file `go`.
const WHEN_TOLD: &str = r#"while [ ! -e "$1/go" ]; do sleep 0.02; done; exec "$0" strict"#;

#[track_caller]
fn start(options: &[&str], command: &[String]) -> Bridge {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    Bridge::start(&[RESPAWN, options].concat(), &command)
}

fn starts(scratch: &Scratch) -> usize {
    scratch.read("starts").lines().count()
}

/// The child ends, and the call that made it end says so.
#[track_caller]
fn lose(session: &Session) -> Value {
    let lost = session.call("exit", json!({ "code": 3 }));
    assert_eq!(reason(&lost), "child_exited");
    lost
}

fn group(pid: u32) -> Pid {
    Pid::from_raw(proc::get(pid).unwrap().group.cast_signed())
}

fn echo(session: &Session) {
    assert_eq!(session.text("echo", json!({ "text": "on" })), "on");
}

fn methods(seen: &[Value]) -> Vec<&str> {
    seen.iter().filter_map(|entry| entry["method"].as_str()).collect()
}

// ---------------------------------------------------------------------------------------------- what goes with a child

#[test]
fn accepted_notifications_that_a_lost_child_had_not_read_are_logged() {
    let bridge = Bridge::start(RESPAWN, &["hostile", "deaf"]);
    let session = bridge.session();
    let long = "x".repeat(300_000); // more than a pipe holds
    for text in [&*long, "short"] {
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": { "text": text } });
        session.post(note.to_string()).expect(202, "the notification is accepted");
    }
    let child = bridge.processes().remove(0).pid;
    killpg(group(child), Signal::SIGKILL).unwrap();
    let line = bridge.logged("what is lost", |line| line.contains("event=\"client.message_lost\""));
    assert!(line.contains("notifications=2 responses=0"), "{line}");
}

// ---------------------------------------------------------------------------------------------- what the next child is told

#[test]
fn a_respawned_child_is_greeted_once_too_and_the_session_lives_on() {
    let bridge = Bridge::start(&["--on-exit", "respawn"], &["hostile", "strict"]);
    let session = bridge.session();
    let first = session.look("pids")["pid"].clone();
    lose(&session);
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    assert_ne!(session.look("pids")["pid"], first);
    let seen = session.seen();
    let methods = methods(&seen);
    assert_eq!(methods[..2], ["initialize", "notifications/initialized"], "the new child saw {methods:?}");
    assert!(methods[2..].iter().all(|method| *method == "tools/call"), "the new child saw {methods:?}");
}

#[test]
fn an_initialized_that_comes_after_the_loss_is_said_once_to_the_next_child() {
    let bridge = Bridge::start(RESPAWN, &["hostile", "strict"]);
    let session = bridge.initialize();
    killpg(group(bridge.processes()[0].pid), Signal::SIGKILL).unwrap();
    bridge.logged("another child comes", |line| line.contains(r#"event="child.respawned""#));
    session.notify("notifications/initialized", json!({}));
    let seen = session.seen();
    assert_eq!(methods(&seen), ["initialize", "notifications/initialized", "tools/call"]);
}

#[test]
fn a_respawned_child_gets_the_log_level_and_the_subscriptions_back() {
    let bridge = Bridge::start(&["--on-exit", "respawn"], &["notebook"]);
    let session = bridge.session();
    session.request("logging/setLevel", json!({ "level": "error" }));
    session.request("resources/subscribe", json!({ "uri": "note:///a" }));
    session.call("crash", json!({ "signal": "KILL" }));

    let mut logged = session.start_call("log", json!({ "level": "warning", "message": "below the level" }));
    assert_eq!(logged.messages().len(), 1, "the level is still error");
    let mut stream = session.listen();
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    let methods: Vec<String> =
        (0..2).map(|_| stream.message()["method"].as_str().unwrap().to_owned()).collect();
    assert_eq!(methods, ["notifications/resources/list_changed", "notifications/resources/updated"]);
}

#[test]
fn a_respawned_child_is_told_what_holds_and_not_what_was_refused_or_taken_back() {
    let scratch = Scratch::new();
    let bridge = start(&[], &recorded(&scratch, "notebook"));
    let session = bridge.session();
    let subscription = |uri: &str| json!({ "uri": uri });
    for (method, params, granted) in [
        ("logging/setLevel", json!({ "level": "warning" }), true),
        ("logging/setLevel", json!({ "level": "error" }), true),
        ("logging/setLevel", json!({ "level": "no such level" }), false),
        ("resources/subscribe", subscription("note:///kept"), true),
        ("resources/subscribe", subscription("note:///taken-back"), true),
        ("resources/subscribe", json!({}), false),
        ("resources/unsubscribe", subscription("note:///taken-back"), true),
    ] {
        let answer = session.request(method, params);
        assert_eq!(answer.get("result").is_some(), granted, "{method}: {answer}");
    }
    let server = u32::try_from(session.look("whoami")["pid"].as_u64().unwrap()).unwrap();
    // `tee` writes to the server first, and to the file behind that.
    eventually("the file has all of it", || scratch.read("stdin").contains("whoami"));
    let before = scratch.read("stdin").lines().count();
    killpg(group(server), Signal::SIGKILL).unwrap();
    bridge.logged("another child comes", |line| line.contains(r#"event="child.respawned""#));
    session.text("list_notes", json!({}));

    eventually("and what the next one is told", || scratch.read("stdin").contains("list_notes"));
    let read = scratch.read("stdin");
    let lines: Vec<Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &Value)> =
        lines[before..].iter().map(|line| (line["method"].as_str().unwrap(), &line["params"])).collect();
    let expected = [
        ("initialize", &lines[0]["params"]),
        ("notifications/initialized", &Value::Null), // the bridge says it itself
        ("logging/setLevel", &json!({ "level": "error" })),
        ("resources/subscribe", &subscription("note:///kept")),
        ("tools/call", &json!({ "name": "list_notes", "arguments": {} })),
    ];
    assert_eq!(told, expected);
}

#[test]
fn each_child_of_a_session_has_a_tag_of_its_own_and_the_variables_of_its_client() {
    let options = ["--on-exit", "respawn", "--env-from-header", "USER_NAME=X-User"];
    let bridge = Bridge::start(&options, &["hostile", "good"]);
    let request = Request::post("/mcp", initialize(0, "2025-06-18").to_string()).header("X-User", "ada");
    let session = Session::from_response(bridge.address, &mut bridge.send(request));
    let mut tags = Vec::new();
    for _ in 0..3 {
        let environment = session.look("echo_env");
        assert_eq!(environment["USER_NAME"], "ada");
        let tag = environment["MCP_BRIDGE_CHILD"].as_str().unwrap().to_owned();
        assert!(!tags.contains(&tag), "{tag} after {tags:?}");
        tags.push(tag);
        lose(&session);
    }
}

// ---------------------------------------------------------------------------------------------- what it is sent again

/// What the server that `recorded` writes down has been told since its file had so many lines, up to this tool.
fn told_until(scratch: &Scratch, before: usize, tool: &str) -> Vec<Value> {
    let since = |text: &str| text.lines().skip(before).map(str::to_owned).collect::<Vec<_>>();
    eventually("the next server is told it", || {
        since(&scratch.read("stdin")).iter().any(|line| line.contains(tool))
    });
    since(&scratch.read("stdin")).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Kills the server of a session that `recorded` writes down. Returns how many lines it has been told.
fn kill_recorded(bridge: &Bridge, scratch: &Scratch, session: &Session) -> usize {
    let server = u32::try_from(session.look("whoami")["pid"].as_u64().unwrap()).unwrap();
    eventually("the file has all of it", || scratch.read("stdin").contains("whoami"));
    let before = scratch.read("stdin").lines().count();
    killpg(group(server), Signal::SIGKILL).unwrap();
    bridge.logged("another child comes", |line| line.contains(r#"event="child.respawned""#));
    before
}

#[test]
fn a_respawned_child_has_what_the_last_call_of_a_restored_tool_had_set_up() {
    let scratch = Scratch::new();
    let bridge = start(&["--restore", "add_note"], &recorded(&scratch, "notebook"));
    let session = bridge.session();
    session.request("logging/setLevel", json!({ "level": "error" }));
    session.request("resources/subscribe", json!({ "uri": "note:///b" }));
    session.text("add_note", json!({ "title": "a", "text": "1" }));
    let mut call = tool_call(7, "add_note", json!({ "title": "b", "text": "2" }));
    call["params"]["_meta"] = json!({ "progressToken": "p" });
    session.post(call.to_string()).answer();
    let refused = session.call("add_note", json!({ "title": 3 }));
    assert_eq!(refused["result"]["isError"], true, "which changes nothing: {refused}");
    let before = kill_recorded(&bridge, &scratch, &session);
    assert_eq!(session.text("list_notes", json!({})), "1. b", "the note of the last call, and no other");

    let told = told_until(&scratch, before, "list_notes");
    let named: Vec<_> = told.iter().map(|line| line["method"].as_str().unwrap()).collect();
    let expected = [
        "initialize",
        "notifications/initialized",
        "logging/setLevel",
        "resources/subscribe",
        "tools/call",
        "tools/call",
    ];
    assert_eq!(named, expected);
    let params = json!({ "name": "add_note", "arguments": { "title": "b", "text": "2" }, "_meta": {} });
    assert_eq!(told[4]["params"], params, "once, and nobody waits for its progress");
    assert_eq!(told[5]["params"]["name"], "list_notes");
    let log = bridge.log();
    assert!(!log.iter().any(|line| line.contains("child.not_restored")), "{log:?}");
}

#[test]
fn restored_calls_come_in_their_order_and_one_that_is_refused_is_logged() {
    let scratch = Scratch::new();
    let tools = ["--restore", "delete_note", "--restore", "count", "--restore", "add_note"];
    let bridge = start(&tools, &recorded(&scratch, "notebook"));
    let session = bridge.session();
    for (tool, arguments) in [
        ("add_note", json!({ "title": "a", "text": "1" })),
        ("add_note", json!({ "title": "b", "text": "2" })),
        ("delete_note", json!({ "title": "a" })),
        ("count", json!({ "to": 2 })),
    ] {
        session.text(tool, arguments);
    }
    let before = kill_recorded(&bridge, &scratch, &session);
    assert_eq!(session.text("list_notes", json!({})), "1. b");
    let told = told_until(&scratch, before, "list_notes");
    let tools: Vec<_> = told.iter().filter_map(|line| line["params"]["name"].as_str()).collect();
    assert_eq!(tools, ["add_note", "delete_note", "count", "list_notes"]);
    let line = bridge.logged("the refusal", |line| line.contains(r#"event="child.not_restored""#));
    assert!(line.contains(r#"tool="delete_note" why="tool_error""#), "{line}");
    let log = bridge.log();
    assert_eq!(log.iter().filter(|line| line.contains("child.not_restored")).count(), 1);
}

#[test]
fn clients_of_a_key_find_what_one_of_them_has_set_up() {
    let options = ["--session-key", "shared", "--restore", "add_note"];
    let bridge = Bridge::start(&[RESPAWN, &options].concat(), &["notebook"]);
    let call = |tool: &str, arguments: Value| {
        text_of(&bridge.post(tool_call(1, tool, arguments).to_string()).answer()).to_owned()
    };
    call("add_note", json!({ "title": "a", "text": "1" }));
    killpg(group(bridge.processes()[0].pid), Signal::SIGKILL).unwrap();
    bridge.logged("another child comes", |line| line.contains(r#"event="child.respawned""#));
    assert_eq!(call("list_notes", json!({})), "1. a");
}

#[test]
fn a_call_that_a_server_dies_of_when_it_is_restored_is_restored_no_more() {
    let scratch = Scratch::new();
    let bridge = start(&["--restore", "echo"], &first_and_later(&scratch, r#"exec "$0" die_in_call 3"#));
    let session = bridge.session();
    echo(&session);
    lose(&session);
    let seen = session.seen();
    assert_eq!(methods(&seen), ["initialize", "notifications/initialized", "tools/call"]);
    assert_eq!(starts(&scratch), 3, "the second one died of it");
    let line = bridge.logged("what it died of", |line| line.contains(r#"event="child.not_restored""#));
    assert!(line.contains(r#"tool="echo" why="server_lost""#), "{line}");
    bridge.logged("the pause grows", |line| line.contains("child.lost") && line.contains("count=2"));
}

// ---------------------------------------------------------------------------------------------- what the client sees

#[test]
fn a_call_that_crashes_its_child_says_so_under_respawn_and_the_next_call_works() {
    let bridge = Bridge::start(&["--on-exit", "respawn"], &["notebook"]);
    let session = bridge.session();
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    let lost = session.call("crash", json!({ "code": 3 }));
    assert_eq!(reason(&lost), "child_exited");
    let text = lost["error"]["message"].as_str().unwrap().to_lowercase();
    assert!(text.contains("state") || text.contains("memory"), "it says that state was lost: {text}");
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
}

#[test]
fn every_call_in_flight_says_once_how_the_child_ended_and_that_another_one_comes() {
    for (end, name, value) in [
        (json!({ "code": 0 }), "exit_code", json!(0)),
        (json!({ "code": 3 }), "exit_code", json!(3)),
        (json!({ "signal": "KILL" }), "signal", json!("SIGKILL")),
    ] {
        let bridge = Bridge::start(RESPAWN, &["hostile", "good"]);
        let session = bridge.session();
        let mut calls: Vec<_> =
            (0..3).map(|_| session.start_call("sleep", json!({ "ms": 600_000 }))).collect();
        let mut answers = vec![session.call("exit", end)];
        answers.extend(calls.iter_mut().map(|call| call.answer()));
        for answer in answers {
            let data = &answer["error"]["data"];
            assert_eq!(
                (reason(&answer), &data["cause"], &data["respawned"], &data[name]),
                ("child_exited", &json!("child_exited"), &json!(true), &value),
            );
        }
        echo(&session);
    }
}

#[test]
fn a_child_that_closes_its_stdout_is_replaced_too() {
    let options = [RESPAWN, &["--stop-grace", "500ms"]].concat();
    let bridge = Bridge::start(&options, &["hostile", "close_stdout"]);
    let session = bridge.session();
    let lost = session.call("echo", json!({ "text": "a" }));
    assert_eq!((reason(&lost), &lost["error"]["data"]["respawned"]), ("child_stdout_closed", &json!(true)));
    assert_eq!(session.seen_count("initialize"), 1);
    assert_eq!(bridge.processes().len(), 1, "the old one is gone");
}

#[test]
fn what_comes_while_there_is_no_child_waits_for_the_next_one() {
    let scratch = Scratch::new();
    let bridge = start(&["--keep-alive", "200ms"], &first_and_later(&scratch, WHEN_TOLD));
    let session = bridge.session();
    let mut listening = session.listen();
    lose(&session);
    let mut first = session.start_call("echo", json!({ "text": "first" }));
    session.notify("notifications/roots/list_changed", json!({}));
    let mut second = session.start_call("echo", json!({ "text": "second" }));
    first.wait_for_comments(2);
    listening.wait_for_comments(2);
    assert_eq!(starts(&scratch), 2);

    scratch.write("go", "");
    assert_eq!((text_of(&first.answer()), text_of(&second.answer())), ("first".into(), "second".into()));
    let seen = session.seen();
    let expected = [
        "initialize",
        "notifications/initialized",
        "tools/call",
        "notifications/roots/list_changed",
        "tools/call",
        "tools/call",
    ];
    assert_eq!(methods(&seen), expected);
}

#[test]
fn a_call_that_waits_for_the_next_child_can_time_out_and_be_cancelled() {
    let scratch = Scratch::new();
    let bridge = start(&["--request-timeout", "1s"], &first_and_later(&scratch, WHEN_TOLD));
    let session = bridge.session();
    lose(&session);
    assert_eq!(reason(&session.call("echo", json!({ "text": "late" }))), "request_timeout");
    let mut cancelled = session.post(tool_call(7, "echo", json!({ "text": "unwanted" })).to_string());
    session.notify("notifications/cancelled", json!({ "requestId": 7 }));
    assert_eq!(reason(&cancelled.answer()), "cancelled");
    scratch.write("go", "");
    echo(&session);
    let seen = session.seen();
    let expected = ["initialize", "notifications/initialized", "tools/call", "tools/call"];
    assert_eq!(methods(&seen), expected, "the next child hears of neither");
}

#[test]
fn the_listening_stream_goes_on_with_the_next_child_and_is_resumed_across_the_loss() {
    let bridge = Bridge::start(RESPAWN, &["notebook"]);
    let session = bridge.session();
    let mut stream = session.listen();
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    let before = stream.event().unwrap();
    session.call("crash", json!({ "signal": "KILL" }));
    session.text("add_note", json!({ "title": "c", "text": "d" }));
    let after = stream.event().unwrap();
    assert_eq!(after.json()["method"], "notifications/resources/list_changed");
    assert_ne!(before.id, after.id);
    drop(stream);
    let mut resumed = session.resume(before.id.as_ref().unwrap());
    assert_eq!(resumed.event(), Some(after), "what the new child said, and nothing twice");
}

#[test]
fn a_call_that_was_lost_with_its_child_can_be_asked_for_after_the_loss() {
    let bridge = Bridge::start(RESPAWN, &["notebook"]);
    let session = bridge.session();
    let mut call = tool_call(7, "count", json!({ "to": 1000, "delay_ms": 50 }));
    call["params"]["_meta"] = json!({ "progressToken": "p" });
    let mut stream = session.post(call.to_string());
    stream.event().unwrap();
    let last = stream.event().unwrap().id.unwrap();
    drop(stream);
    session.call("crash", json!({ "code": 3 }));
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
    let answer = session.resume(&last).answer();
    assert_eq!((&answer["id"], reason(&answer)), (&json!(7), "child_exited"));
}

// ---------------------------------------------------------------------------------------------- when no child will do

#[test]
fn a_child_that_crashes_at_every_respawn_ends_its_session_in_the_end() {
    let scratch = Scratch::new();
    let bridge = start(&[], &first_and_later(&scratch, "exit 9"));
    let session = bridge.session();
    lose(&session);
    let answer = session.call("echo", json!({ "text": "it waits" }));
    let data = &answer["error"]["data"];
    assert_eq!(
        (reason(&answer), &data["exit_code"], &data["respawned"]),
        ("child_exited", &json!(9), &Value::Null)
    );
    eventually("the session is given up", || session.ping().status == 404);
    assert_eq!(starts(&scratch), 6, "the first and five in its place");

    bridge.logged("the session ends", |line| line.contains("session.end"));
    let log = bridge.log();
    let lost: Vec<&String> = log.iter().filter(|line| line.contains(r#"event="child.lost""#)).collect();
    for (line, count) in lost.iter().zip(1..) {
        assert!(line.contains(&format!("count={count} ")) && line.contains("pause="), "{count}: {line}");
    }
    assert_eq!(lost.len(), 5);
    assert!(lost[0].contains("pause=0.0") && lost[0].contains(r#"status="exit code 3""#), "{}", lost[0]);
    bridge.leaves_nothing();
}

#[test]
fn a_first_child_that_never_answers_its_client_is_not_replaced() {
    let scratch = Scratch::new();
    let script = r#"echo >> "$1/starts"; exec "$0" exit_before_init 3"#;
    let command = ["sh", "-c", script, &example("hostile"), &scratch.path("")].map(str::to_owned);
    let bridge = start(&[], &command);
    assert_refused(&mut bridge.post(initialize(0, "2025-06-18").to_string()), 502, "child_exited");
    bridge.leaves_nothing();
    assert_eq!(starts(&scratch), 1);
}

#[test]
fn a_session_between_two_children_can_be_deleted() {
    for (later, losses) in [("exec sleep 60", 1), ("exit 9", 3)] {
        let scratch = Scratch::new();
        let bridge = start(&["--stop-grace", "500ms"], &first_and_later(&scratch, later));
        let session = bridge.session();
        lose(&session);
        let mut waiting = session.start_call("echo", json!({ "text": "a" }));
        let count = format!("count={losses} ");
        bridge.logged(later, |line| line.contains("child.lost") && line.contains(&count));
        assert_eq!(session.delete().status, 204, "{later}");
        assert_eq!(reason(&waiting.answer()), "session_terminated", "{later}");
        assert_eq!(session.ping().status, 404, "{later}");
        bridge.logged("the session ends", |line| line.contains("session.end"));
        bridge.leaves_nothing();
        let before = starts(&scratch);
        let other = bridge.post(initialize(0, "2025-06-18").to_string());
        drop(other);
        eventually("no child came for the deleted one", || starts(&scratch) == before + 1);
    }
}

#[test]
fn a_session_between_two_children_does_not_keep_the_bridge_from_ending() {
    for (later, losses) in [("exec sleep 60", 1), ("exit 9", 3)] {
        let scratch = Scratch::new();
        let mut bridge = start(&["--shutdown-timeout", "4s"], &first_and_later(&scratch, later));
        let session = bridge.session();
        lose(&session);
        let mut waiting = session.start_call("echo", json!({ "text": "a" }));
        let count = format!("count={losses} ");
        bridge.logged(later, |line| line.contains("child.lost") && line.contains(&count));
        bridge.signal(Signal::SIGTERM);
        let stopped = Instant::now();
        let answer = waiting.answer();
        assert!(matches!(reason(&answer), "shutting_down" | "child_exited"), "{later}: {answer}");
        assert_eq!(bridge.exit_code(), 0, "{later}");
        assert!(stopped.elapsed() < Duration::from_secs(8), "{later}: {:?}", stopped.elapsed());
        assert_eq!(bridge.processes(), [], "{later}");
    }
}

// ---------------------------------------------------------------------------------------------- what others notice

#[test]
fn nothing_of_a_wrapper_that_lost_its_server_is_left_when_the_next_one_comes() {
    let bridge = Bridge::start(RESPAWN, &["hostile", "wrapper"]);
    let session = bridge.session();
    let before: Vec<u32> = bridge.processes().iter().map(|process| process.pid).collect();
    assert_eq!(before.len(), 3, "the wrapper, the server and its helper");
    lose(&session);
    echo(&session);
    eventually("three others", || {
        let now = bridge.processes();
        now.len() == 3 && now.iter().all(|process| !before.contains(&process.pid))
    });
    assert_eq!(bridge.zombies(), []);
}

#[test]
fn a_session_keeps_its_seat_and_needs_no_second_one() {
    let bridge = Bridge::start(&[RESPAWN, &["--max-sessions", "1"]].concat(), &["hostile", "strict"]);
    let session = bridge.session();
    let opening = initialize(0, "2025-06-18").to_string();
    for _ in 0..3 {
        lose(&session);
        assert_refused(&mut bridge.post(&opening), 503, "too_many_sessions");
        echo(&session);
        assert_refused(&mut bridge.post(&opening), 503, "too_many_sessions");
    }
    assert_eq!(session.delete().status, 204);
    echo(&bridge.session());
}

#[test]
fn a_respawned_server_that_has_answered_keeps_no_other_from_starting() {
    let bridge = Bridge::start(&[RESPAWN, &["--max-starting", "1"]].concat(), &["hostile", "good"]);
    let session = bridge.session();
    lose(&session);
    echo(&session);
    let asked = Instant::now();
    bridge.session();
    assert!(asked.elapsed() < Duration::from_secs(3), "it waited for {:?}", asked.elapsed());
}

#[test]
fn by_default_a_session_ends_with_its_child() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let session = bridge.session();
    let lost = lose(&session);
    assert_eq!(lost["error"]["data"]["respawned"], Value::Null);
    assert_eq!(session.ping().status, 404);
    bridge.leaves_nothing();
    let log = bridge.log();
    assert!(!log.iter().any(|line| line.contains("child.lost") || line.contains("child.respawned")));
}

#[test]
fn sessions_that_come_crash_and_go_leave_their_seats_and_nothing_else() {
    // Every seat but those of the two that are kept warm is used at some time.
    let options = ["--max-sessions", "8", "--warm", "2", "--max-starting", "64", "--stop-grace", "500ms"];
    let bridge = Bridge::start(&[&["--on-exit", "respawn"], &options[..]].concat(), &["hostile", "good"]);
    thread::scope(|scope| {
        for client in 0..6 {
            let bridge = &bridge;
            scope.spawn(move || {
                for round in 0..6 {
                    let session = bridge.session();
                    for step in 0..(client + round) % 4 {
                        let exit = tool_call(1, "exit", json!({ "code": step }));
                        let exits = session.begin(exit.to_string());
                        let crossing =
                            session.begin(tool_call(2, "echo", json!({ "text": "a" })).to_string());
                        let answer = crossing.response().answer();
                        assert_eq!(answer["id"], 2, "with one child or with the next: {answer}");
                        if (step + round) % 2 == 0 {
                            assert_eq!(reason(&exits.response().answer()), "child_exited");
                        }
                    }
                    assert_eq!(session.delete().status, 204);
                }
            });
        }
    });
    eventually("two wait, and nobody leaves", || {
        bridge.signal(Signal::SIGUSR1);
        let log = bridge.log();
        let state = log.iter().rfind(|line| line.contains(r#"event="bridge.state""#));
        state.is_some_and(|line| line.contains("sessions=0 leaving=0 waiting=0 warm=2 processes=2 "))
    });
    assert_eq!((bridge.processes().len(), bridge.zombies().len()), (2, 0));
    let all: Vec<Session> = (0..8).map(|_| bridge.session()).collect();
    all.iter().for_each(echo);
    assert_refused(&mut bridge.post(initialize(0, "2025-06-18").to_string()), 503, "too_many_sessions");
}
