//! P3: each forwarded request gets exactly one response or error, with the client's own id; each accepted notification
//! reaches the child once, in order; nothing from the child is dropped silently.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    self, Bridge, Request, Response, Session, Value, assert_refused, eventually, initialize, json, reason,
    text_of, tool_call,
};

/// A session that is over: 404 with `id: null`, because one that echoes the id is taken for the failure of one call.
#[track_caller]
fn assert_over(session: &Session) -> Value {
    let mut response = session.ping();
    response.expect(404, "the session is over");
    let answer = response.json();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32001)), "{answer}");
    assert_eq!(answer["error"]["data"]["source"], "mcp-bridge");
    answer
}

/// Starts calls that the child holds, and waits until it has read them all.
fn hold_calls(session: &Session, count: u64) -> Vec<support::http::Connection> {
    let calls = (0..count)
        .map(|id| session.begin(tool_call(id, "echo", json!({ "text": "held" })).to_string()))
        .collect();
    eventually("the child has read all calls", || session.seen_count("tools/call") as u64 > count);
    calls
}

// ---------------------------------------------------------------------------------------------- the child dies

#[test]
fn a_hundred_calls_in_flight_each_get_one_error_when_the_child_is_killed() {
    let bridge = Bridge::start(&["--sse-after", "15s"], &["hostile", "die_in_call", "KILL", "100"]);
    let session = bridge.session();
    let calls: Vec<_> =
        (0..100).map(|id| session.begin(tool_call(id, "echo", json!({ "text": "x" })).to_string())).collect();
    for (id, call) in calls.into_iter().enumerate() {
        let mut response = call.response();
        response.expect(200, "a call that may have happened is not for a balancer to repeat");
        assert_eq!(response.header("mcp-bridge-error"), Some("child_exited"));
        let answer = response.answer();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32603)));
        assert_eq!(reason(&answer), "child_exited");
        let signal = answer["error"]["data"]["signal"].to_string();
        assert!(signal == "9" || signal.contains("KILL"), "the signal is named: {answer}");
    }
    assert_over(&session);
}

#[test]
fn the_error_after_an_exit_names_the_code() {
    let bridge = Bridge::start(&[], &["hostile", "die_in_call", "3"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({ "text": "x" }));
    assert_eq!(reason(&answer), "child_exited");
    assert_eq!(answer["error"]["data"]["exit_code"], 3, "{answer}");
    assert_over(&session);
}

#[test]
fn an_error_that_comes_after_a_stream_was_begun_is_its_last_event() {
    let bridge = Bridge::start(&["--sse-after", "50ms"], &["hostile", "hang"]);
    let session = bridge.session();
    let mut stream = session.start_call("echo", json!({ "text": "x" }));
    assert!(stream.is_sse());
    let exit = session.call("exit", json!({ "code": 4 }));
    assert_eq!(reason(&exit), "child_exited");
    let answer = stream.answer();
    assert_eq!((reason(&answer), &answer["error"]["data"]["exit_code"]), ("child_exited", &json!(4)));
}

#[test]
fn the_error_comes_soon_after_the_death() {
    let bridge = Bridge::start(&[], &["hostile", "hang"]);
    let session = bridge.session();
    let calls = hold_calls(&session, 3);
    let start = Instant::now();
    session.call("exit", json!({ "signal": "KILL" }));
    for call in calls {
        assert_eq!(reason(&call.response().answer()), "child_exited");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn an_answer_written_right_before_the_end_is_delivered() {
    let bridge = Bridge::start(&[], &["hostile", "exit_after", "1"]);
    let session = bridge.session();
    assert_eq!(session.text("echo", json!({ "text": "last words" })), "last words");
    eventually("the session ends with its child", || session.ping().status == 404);
    assert_over(&session);
}

#[test]
fn a_whole_answer_without_its_line_feed_is_delivered() {
    let bridge = Bridge::start(&[], &["hostile", "partial", "whole"]);
    assert_eq!(bridge.session().text("echo", json!({ "text": "a" })), "a");
}

#[test]
fn half_an_answer_is_no_answer() {
    let bridge = Bridge::start(&[], &["hostile", "partial", "half"]);
    let session = bridge.session();
    assert_eq!(reason(&session.call("echo", json!({ "text": "a" }))), "child_exited");
    assert_over(&session);
}

#[test]
fn a_child_that_leaves_while_idle_ends_its_session_and_its_stream() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let mut stream = session.listen();
    session.call("exit", json!({ "code": 0 }));
    assert_eq!(stream.event(), None, "the listening stream ends properly");
    let answer = assert_over(&session);
    assert!(answer.to_string().contains("child_exited"), "the cause is told: {answer}");
}

#[test]
fn a_child_that_closes_stdout_is_over() {
    let bridge = Bridge::start(&["--stop-grace", "200ms"], &["hostile", "close_stdout"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({ "text": "a" }));
    assert_eq!(reason(&answer), "child_stdout_closed");
    assert_over(&session);
    bridge.leaves_nothing();
}

#[test]
fn a_child_that_closes_stdin_may_still_answer() {
    let bridge = Bridge::start(&["--stop-grace", "200ms"], &["hostile", "close_stdin", "300"]);
    let session = bridge.session();
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    // The pipe is broken, so nothing that comes later can be answered, but everything must end.
    let mut later = session.start_call("echo", json!({ "text": "b" }));
    match later.status {
        404 => {}
        200 => assert!(later.answer()["error"].is_object()),
        other => panic!("a call that cannot be written: {other}"),
    }
}

// ---------------------------------------------------------------------------------------------- the child does not start

#[track_caller]
fn assert_failed_to_start(options: &[&str], mode: &[&str], token: &str) -> Value {
    let bridge = Bridge::start(&[&["--lazy"], options].concat(), &[&["hostile"], mode].concat());
    let mut response = bridge.post(initialize("me", "2025-06-18").to_string());
    response.expect(502, "the child failed to start");
    assert_eq!(response.header("mcp-session-id"), None, "there is no session");
    assert_eq!(response.header("mcp-bridge-error"), Some(token));
    let answer = response.answer();
    assert_eq!((&answer["id"], reason(&answer)), (&json!("me"), token));
    bridge.leaves_nothing();
    answer
}

#[test]
fn a_child_that_exits_before_its_answer_is_named_with_its_code() {
    let answer = assert_failed_to_start(&[], &["exit_before_init", "3"], "child_exited");
    assert_eq!(answer["error"]["data"]["exit_code"], 3);
}

#[test]
fn a_child_that_exits_at_once_is_named_with_its_code() {
    let answer = assert_failed_to_start(&[], &["exit_at_start", "5"], "child_exited");
    assert_eq!(answer["error"]["data"]["exit_code"], 5);
}

#[test]
fn a_child_that_crashes_before_its_answer_is_named_with_its_signal() {
    let answer = assert_failed_to_start(&[], &["signal_before_init", "SEGV"], "child_exited");
    let signal = answer["error"]["data"]["signal"].to_string();
    assert!(signal == "11" || signal.contains("SEGV"), "{answer}");
}

#[test]
fn a_child_that_never_answers_initialize_is_given_up() {
    let options = ["--init-timeout", "300ms", "--stop-grace", "100ms", "--sse-after", "10s"];
    assert_failed_to_start(&options, &["hang_init"], "init_timeout");
}

#[test]
fn a_child_that_is_given_up_while_its_client_waits_on_a_stream_ends_that_with_the_error() {
    let options = ["--lazy", "--init-timeout", "500ms", "--stop-grace", "100ms", "--keep-alive", "50ms"];
    let bridge = Bridge::start(&options, &["hostile", "hang_init"]);
    let mut response = bridge.post(initialize("me", "2025-06-18").to_string());
    assert!(response.is_sse());
    let answer = response.answer();
    assert_eq!((&answer["id"], reason(&answer)), (&json!("me"), "init_timeout"));
    bridge.leaves_nothing();
}

#[test]
fn the_last_words_of_a_child_that_fails_to_start_are_in_the_log() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "exit_before_init", "1"]);
    bridge.post(initialize(1, "2025-06-18").to_string()).expect(502, "the child failed to start");
    bridge.logged("stderr of the child is logged", |line| line.contains("cannot load the plugin"));
}

#[test]
fn a_bridge_survives_a_first_child_that_died_before_it_was_needed() {
    let bridge = Bridge::start(&[], &["hostile", "exit_at_start", "1"]);
    for _ in 0..3 {
        let mut response = bridge.post(initialize(1, "2025-06-18").to_string());
        assert!(matches!(response.status, 502 | 503), "{}", response.text());
    }
    bridge.get("/healthz").expect(200, "the bridge lives");
}

// ---------------------------------------------------------------------------------------------- time and cancellation

#[test]
fn a_call_that_is_never_answered_ends_at_the_request_timeout_and_the_child_is_told() {
    let bridge = Bridge::start(&["--request-timeout", "500ms"], &["hostile", "hang"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({ "text": "a" }));
    assert_eq!((reason(&answer), &answer["error"]["code"]), ("request_timeout", &json!(-32603)));

    let seen = session.seen();
    let call = seen.iter().find(|entry| entry["method"] == "tools/call").unwrap();
    let cancel = seen.iter().find(|entry| entry["method"] == "notifications/cancelled").expect("a cancel");
    assert_eq!(cancel["requestId"], call["id"], "the child knows the call by this id");
}

#[test]
fn large_calls_to_a_child_that_reads_nothing_each_end_at_the_request_timeout_whether_or_not_they_were_forwarded()
 {
    let bridge = Bridge::start(&["--lazy", "--request-timeout", "3s"], &["hostile", "deaf"]);
    let session = bridge.session();
    let text = "x".repeat(400_000); // more together than may wait
    let begun = Instant::now();
    let calls: Vec<_> = (0..40)
        .map(|id| {
            let (session, body) =
                (session.clone(), tool_call(id, "echo", json!({ "text": text })).to_string());
            thread::spawn(move || {
                let mut response = session.post(body);
                (response.status, response.answer(), begun.elapsed())
            })
        })
        .collect();
    for (id, call) in calls.into_iter().enumerate() {
        let (status, answer, took) = call.join().unwrap();
        assert_eq!(
            (status, &answer["id"], reason(&answer)),
            (200, &json!(id), "request_timeout"),
            "{answer}"
        );
        assert!(took > Duration::from_millis(2500), "call {id} after {took:?}");
        assert!(took < Duration::from_secs(12), "call {id} after {took:?}");
    }
}

#[test]
fn a_cancel_reaches_the_child_under_the_id_it_knows_and_the_call_ends() {
    let bridge = Bridge::start(&[], &["hostile", "hang"]);
    let session = bridge.session();
    let mut call = session.post(tool_call("mine", "echo", json!({ "text": "a" })).to_string());
    session.notify("notifications/cancelled", json!({ "requestId": "mine", "reason": "changed my mind" }));
    let answer = call.answer();
    assert_eq!(answer["id"], "mine");
    assert!(answer["error"].is_object(), "a cancelled call ends with an error: {answer}");

    let seen = session.seen();
    let sent = seen.iter().find(|entry| entry["method"] == "tools/call").unwrap();
    let cancel = seen.iter().find(|entry| entry["method"] == "notifications/cancelled").expect("a cancel");
    assert_eq!(cancel["requestId"], sent["id"]);
}

#[test]
fn a_child_that_answers_after_a_cancel_makes_no_second_end() {
    let bridge = Bridge::start(&[], &["hostile", "late"]);
    let session = bridge.session();
    let mut call = session.post(tool_call(7, "echo", json!({ "text": "a" })).to_string());
    session.notify("notifications/cancelled", json!({ "requestId": 7 }));
    let answer = call.answer();
    assert_eq!(answer["id"], 7);
    assert!(answer["error"].is_object() || text_of(&answer) == "too late");
    assert_eq!(session.seen_count("notifications/cancelled"), 1, "the session goes on");
}

#[test]
fn a_cancel_of_nothing_is_accepted_and_harms_nothing() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    session.notify("notifications/cancelled", json!({ "requestId": "never" }));
    session.notify("notifications/cancelled", json!({}));
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
}

#[test]
fn cancels_and_answers_may_race() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let calls: Vec<_> = (0..50_u32)
        .map(|id| {
            let seconds = f64::from(id % 5) / 1000.0;
            let call = session.begin(tool_call(id, "slow", json!({ "seconds": seconds })).to_string());
            session.notify("notifications/cancelled", json!({ "requestId": id }));
            call
        })
        .collect();
    for (id, call) in calls.into_iter().enumerate() {
        assert_eq!(call.response().answer()["id"], id, "one end, whoever won");
    }
}

#[test]
fn a_client_that_goes_away_does_not_cancel_its_call() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let call = session.start_call("sleep", json!({ "ms": 600 }));
    assert!(call.is_sse());
    drop(call);
    thread::sleep(Duration::from_millis(800));
    assert_eq!(session.seen_count("notifications/cancelled"), 0);
    assert_eq!(session.text("echo", json!({ "text": "still here" })), "still here");
}

// ---------------------------------------------------------------------------------------------- ids

#[test]
fn an_id_in_flight_twice_is_refused_and_the_first_is_unharmed() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let mut first = session.post(tool_call("same", "sleep", json!({ "ms": 500 })).to_string());
    let mut second = session.post(tool_call("same", "echo", json!({ "text": "b" })).to_string());
    let refusal = assert_refused(&mut second, 400, "duplicate_id");
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("same"), &json!(-32600)));
    assert_eq!(text_of(&first.answer()), "slept");
    let mut third = session.post(tool_call("same", "echo", json!({ "text": "c" })).to_string());
    assert_eq!(text_of(&third.answer()), "c", "an id may be used again once it is answered");
}

#[test]
fn a_number_and_a_string_are_different_ids() {
    let bridge = Bridge::start(&[], &["hostile", "shuffle", "2"]);
    let session = bridge.session();
    let calls = [json!(1), json!("1")].map(|id| {
        session.begin(tool_call(id.clone(), "echo", json!({ "text": id.to_string() })).to_string())
    });
    for (call, id) in calls.into_iter().zip([json!(1), json!("1")]) {
        let answer = call.response().answer();
        assert_eq!((&answer["id"], text_of(&answer)), (&id, id.to_string()));
    }
}

#[test]
fn answers_out_of_order_find_their_calls() {
    let bridge = Bridge::start(&[], &["hostile", "shuffle", "20"]);
    let session = bridge.session();
    let calls: Vec<_> = (0..20)
        .map(|n| session.begin(tool_call(n, "echo", json!({ "text": format!("text {n}") })).to_string()))
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call.response().answer();
        assert_eq!((&answer["id"], text_of(&answer)), (&json!(n), format!("text {n}")));
    }
}

#[test]
fn a_second_answer_is_dropped_and_logged() {
    let bridge = Bridge::start(&[], &["hostile", "dup"]);
    let session = bridge.session();
    for text in ["a", "b", "c"] {
        assert_eq!(session.text("echo", json!({ "text": text })), text);
    }
    bridge.logged("the second answer is logged", |line| line.contains("dropped"));
}

#[test]
fn answers_to_ids_that_nobody_used_are_dropped_and_logged() {
    let bridge = Bridge::start(&[], &["hostile", "unknown_id"]);
    let session = bridge.session();
    let mut stream = session.listen();
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    assert!(stream.is_silent_for(Duration::from_millis(100)), "they go to no stream either");
    bridge.logged("the stray answer is logged", |line| line.contains("dropped"));
}

#[test]
fn an_id_may_come_back_in_another_spelling_of_the_same_number() {
    for form in ["float", "exp"] {
        let bridge = Bridge::start(&[], &["hostile", "ids", form]);
        assert_eq!(bridge.session().text("echo", json!({ "text": form })), form);
    }
}

#[test]
fn an_answer_without_its_id_ends_the_only_call_in_flight() {
    for form in ["null", "missing", "string"] {
        let bridge = Bridge::start(&[], &["hostile", "ids", form]);
        let answer = bridge.session().call("echo", json!({ "text": form }));
        assert_eq!(text_of(&answer), form, "there is no doubt whose answer it is: {answer}");
    }
}

#[test]
fn a_child_may_use_the_ids_of_the_client_for_its_own_requests() {
    let bridge = Bridge::start(&[], &["hostile", "same_ids"]);
    let session = bridge.session();
    let mut call = session.start_call("echo", json!({ "text": "a" }));
    let question = call.message();
    assert_eq!(question["method"], "sampling/createMessage");
    session
        .respond(&question["id"], json!({ "role": "assistant", "content": { "type": "text", "text": "b" } }));
    assert_eq!(text_of(&call.answer()), "a|b");
}

#[test]
fn a_response_that_the_child_never_asked_for_does_not_reach_it() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let response = session.post(r#"{"jsonrpc":"2.0","id":99,"result":{}}"#);
    assert!(matches!(response.status, 202 | 400), "status {}", response.status);
    assert!(session.seen().iter().all(|entry| entry["id"] != 99));
}

// ---------------------------------------------------------------------------------------------- order, and the end by DELETE

#[test]
fn notifications_reach_the_child_once_and_in_order() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    for n in 0..100 {
        session.notify(&format!("notifications/n{n}"), json!({}));
    }
    let seen = session.seen();
    let methods: Vec<&str> = seen.iter().filter_map(|entry| entry["method"].as_str()).collect();
    let expected: Vec<String> = (0..100).map(|n| format!("notifications/n{n}")).collect();
    assert_eq!(methods[2..102], expected);
}

#[test]
fn a_deleted_session_answers_its_calls_in_flight() {
    let bridge = Bridge::start(&[], &["hostile", "hang"]);
    let session = bridge.session();
    let calls = hold_calls(&session, 5);
    assert_eq!(session.delete().status, 204);
    for (id, call) in calls.into_iter().enumerate() {
        let mut response = call.response();
        response.expect(200, "the call may have happened");
        let answer = response.answer();
        assert_eq!((&answer["id"], reason(&answer)), (&json!(id), "session_terminated"));
    }
    assert_over(&session);
}

#[test]
fn a_session_can_be_deleted_once() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let mut deleted = session.delete();
    assert_eq!((deleted.status, deleted.bytes().len()), (204, 0));
    assert_eq!(session.delete().status, 404);
    assert_over(&session);
}

#[test]
fn a_deleted_session_ends_its_listening_stream() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let mut stream = session.listen();
    assert_eq!(session.delete().status, 204);
    assert_eq!(stream.event(), None, "the stream ends properly");
}

#[test]
fn a_notification_to_a_session_that_is_over_is_not_accepted() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    session.delete();
    let response: Response = session.post(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    assert_eq!(response.status, 404);
}

#[test]
fn an_unsendable_answer_does_not_hurt_the_session() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    for _ in 0..20 {
        drop(session.begin(tool_call(session.next_id(), "echo", json!({ "text": "x" })).to_string()));
    }
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
    let half = Request::post("/mcp", "{\"jsonrpc\"").with("Content-Length", "500");
    let mut connection = support::http::Connection::open(bridge.address);
    connection.write(&session.headers(half).to_bytes("localhost"));
    drop(connection);
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
}
