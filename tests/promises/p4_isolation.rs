//! P4: no answer, progress, log or sampling request ever reaches another client, and no session slows another one.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Bridge, Scratch, Session, Value, example, first_is_hostile, json, reason, text_of, tool_call,
};

#[test]
fn fifty_sessions_with_equal_ids_get_their_own_answers() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let sessions: Vec<Session> = (0..50).map(|_| bridge.session()).collect();
    thread::scope(|scope| {
        for (name, session) in sessions.iter().enumerate() {
            scope.spawn(move || {
                // All sessions use the ids 0..20 at the same time; the delays mix the order of the answers.
                let calls: Vec<_> = (0..20_u64)
                    .map(|id| {
                        let seconds = ((name as u64 * 7 + id * 13) % 50) as f64 / 1000.0;
                        let arguments = json!({ "seconds": seconds, "text": format!("{name}-{id}") });
                        (seconds, session.begin(tool_call(id, "slow", arguments).to_string()))
                    })
                    .collect();
                for (id, (seconds, call)) in calls.into_iter().enumerate() {
                    let answer = call.response().answer();
                    let expected = format!("waited {} s: {name}-{id}", json!(seconds));
                    assert_eq!((&answer["id"], text_of(&answer)), (&json!(id), expected));
                }
            });
        }
    });
}

#[test]
fn each_session_keeps_its_own_state() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let sessions: Vec<Session> = (0..4).map(|_| bridge.session()).collect();
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!(
            session.text("add_note", json!({ "title": format!("of {n}"), "text": "x" })),
            format!("note 1 saved: of {n}")
        );
    }
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!(session.text("list_notes", json!({})), format!("1. of {n}"));
    }
    let pids: HashSet<String> =
        sessions.iter().map(|session| session.look("whoami")["pid"].to_string()).collect();
    assert_eq!(pids.len(), 4, "one process each");
}

#[test]
fn the_death_of_one_child_leaves_the_others_and_their_calls_alone() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let (doomed, other) = (bridge.session(), bridge.session());
    let mut call = other.start_call("slow", json!({ "seconds": 1, "text": "unharmed" }));
    assert_eq!(reason(&doomed.call("crash", json!({ "signal": "KILL" }))), "child_exited");
    assert_eq!(other.text("list_notes", json!({})), "no notes yet");
    assert_eq!(text_of(&call.answer()), "waited 1 s: unharmed");
}

#[test]
fn the_end_of_one_session_leaves_the_others_alone() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let (first, second) = (bridge.session(), bridge.session());
    let mut stream = second.listen();
    assert_eq!(first.delete().status, 204);
    second.text("add_note", json!({ "title": "a", "text": "b" }));
    assert_eq!(stream.message()["method"], "notifications/resources/list_changed");
}

#[test]
fn equal_progress_tokens_of_two_sessions_do_not_mix() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let sessions = [bridge.session(), bridge.session()];
    thread::scope(|scope| {
        for (n, session) in sessions.iter().enumerate() {
            scope.spawn(move || {
                let to = 20 + n;
                let call = json!({
                    "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                    "params": {
                        "name": "count", "arguments": { "to": to, "delay_ms": 5 }, "_meta": { "progressToken": "same" },
                    },
                });
                let messages = session.post(call.to_string()).messages();
                let (answer, progress) = messages.split_last().unwrap();
                assert_eq!(text_of(answer), format!("counted to {to}"));
                let totals: Vec<&Value> = progress.iter().map(|message| &message["params"]["total"]).collect();
                assert_eq!(totals, vec![&json!(to); to]);
            });
        }
    });
}

#[test]
fn a_question_of_one_child_reaches_its_own_client_only() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let (asked, other) = (bridge.session(), bridge.session());
    let mut elsewhere = other.listen();
    let mut call = asked.start_call("summarize", json!({}));
    let question = call.message();
    assert_eq!(question["method"], "sampling/createMessage");

    // The other child may have asked under the same id; this one has not, so nobody gets this answer.
    let forged = json!({ "role": "assistant", "content": { "type": "text", "text": "forged" } });
    other.post(json!({ "jsonrpc": "2.0", "id": question["id"], "result": forged }).to_string());
    let real = json!({ "role": "assistant", "content": { "type": "text", "text": "real" } });
    asked.respond(&question["id"], real);
    assert_eq!(text_of(&call.answer()), "summary: real");
    assert!(elsewhere.is_silent_for(Duration::from_millis(100)));
}

#[test]
fn the_log_of_one_child_reaches_its_own_client_only() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let (loud, quiet) = (bridge.session(), bridge.session());
    let mut elsewhere = quiet.listen();
    for n in 0..10 {
        loud.text("add_note", json!({ "title": n.to_string(), "text": "x" }));
        loud.text("log", json!({ "level": "error", "message": "private" }));
    }
    assert!(elsewhere.is_silent_for(Duration::from_millis(200)));
}

#[test]
fn events_of_one_session_cannot_be_replayed_in_another() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let (mine, other) = (bridge.session(), bridge.session());
    let mut call = mine.start_call("log", json!({ "level": "error", "message": "private" }));
    let event = call.event().expect("the log message").id.expect("events carry ids");
    let mut replay = other.resume(&event);
    if replay.status == 200 {
        assert!(replay.is_silent_for(Duration::from_millis(200)), "nothing of another session");
    } else {
        assert_eq!(replay.status, 400);
        assert!(!replay.text().contains("private"));
    }
}

// ---------------------------------------------------------------------------------------------- a bad neighbour

/// The first session has a child of this mode, the second one a good child.
fn neighbours(scratch: &Scratch, mode: &str, options: &[&str]) -> (Bridge, Session, Session) {
    let command = first_is_hostile(scratch, mode);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let bridge = Bridge::start(&[&["--lazy"], options].concat(), &command);
    let (bad, good) = (bridge.session(), bridge.session());
    assert_eq!(bad.greeting["result"]["serverInfo"]["version"], mode.split(' ').next().unwrap());
    assert_eq!(good.greeting["result"]["serverInfo"]["version"], "good");
    (bridge, bad, good)
}

#[track_caller]
fn assert_served_promptly(session: &Session) {
    for n in 0..50 {
        let start = Instant::now();
        assert_eq!(session.text("echo", json!({ "text": n.to_string() })), n.to_string());
        assert!(start.elapsed() < Duration::from_secs(5), "a neighbour waits {:?}", start.elapsed());
    }
}

#[test]
fn a_child_that_floods_stdout_does_not_stop_its_neighbours() {
    let scratch = Scratch::new();
    let (_bridge, _bad, good) = neighbours(&scratch, "flood_stdout", &[]);
    assert_served_promptly(&good);
}

#[test]
fn a_child_that_floods_stderr_does_not_stop_its_neighbours_nor_itself() {
    let scratch = Scratch::new();
    let (_bridge, bad, good) = neighbours(&scratch, "flood_stderr", &[]);
    assert_served_promptly(&good);
    assert_eq!(bad.text("echo", json!({ "text": "me too" })), "me too");
}

#[test]
fn a_child_that_reads_nothing_does_not_stop_its_neighbours() {
    let scratch = Scratch::new();
    let (_bridge, deaf, good) = neighbours(&scratch, "deaf", &[]);
    let text = "x".repeat(1 << 20);
    let calls: Vec<_> =
        (0..20).map(|id| deaf.begin(tool_call(id, "echo", json!({ "text": text })).to_string())).collect();
    assert_served_promptly(&good);
    assert_eq!(deaf.delete().status, 204, "it can be ended while its pipe is full");
    drop(calls);
    assert_served_promptly(&good);
}

#[test]
fn a_client_that_does_not_read_does_not_stop_other_calls_of_its_session() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let text = "x".repeat(1 << 20); // four of which may wait for the clients of one session
    let unread: Vec<_> =
        (0..3).map(|id| session.begin(tool_call(id, "echo", json!({ "text": text })).to_string())).collect();
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
    for call in unread {
        assert!(text_of(&call.response().answer()) == text, "and what was not read is kept");
    }
}

#[test]
fn ids_of_sessions_are_long_random_and_of_letters_digits_and_dashes() {
    let bridge = Bridge::start(&["--max-sessions", "100"], &[&example("notebook")]);
    let ids: Vec<String> = (0..20).map(|_| bridge.initialize().id).collect();
    for id in &ids {
        assert!((32..=128).contains(&id.len()), "192 bits need 32 characters or more: {id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{id}");
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
}
