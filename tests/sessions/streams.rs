//! Which message goes to which stream, what a stream looks like, and how a broken one is taken up again.

use std::time::{Duration, Instant};

use crate::support::http::Connection;
use crate::support::{self, Bridge, Event, Request, Response, Session, Value, json, proc, text_of};

fn start(options: &[&str]) -> (Bridge, Session) {
    let bridge = Bridge::start(options, &["notebook"]);
    let session = bridge.session();
    (bridge, session)
}

/// Starts `count` with a progress token.
fn start_count(session: &Session, token: &str, to: u64, delay_ms: u64) -> Response {
    let call = json!({
        "jsonrpc": "2.0", "id": token, "method": "tools/call",
        "params": {
            "name": "count", "arguments": { "to": to, "delay_ms": delay_ms }, "_meta": { "progressToken": token },
        },
    });
    session.post(call.to_string())
}

/// Starts a call for a client that takes nothing but a stream.
fn start_stream(session: &Session, tool: &str, arguments: Value) -> Response {
    let body = support::tool_call(session.next_id(), tool, arguments).to_string();
    session.headers(Request::post("/mcp", body)).with("Accept", "text/event-stream").send(session.address)
}

fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["method"].as_str().unwrap_or("answer")).collect()
}

// ---------------------------------------------------------------------------------------------- the form of an answer

#[test]
fn a_quick_answer_is_plain_json() {
    let (_bridge, session) = start(&[]);
    let mut response = session.ping();
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json()["result"], json!({}));
}

#[test]
fn a_slow_answer_becomes_a_stream_long_before_it_is_there() {
    let (_bridge, session) = start(&[]);
    let begun = Instant::now();
    let mut response = session.start_call("slow", json!({ "seconds": 2 }));
    assert!(response.is_sse());
    assert!(begun.elapsed() < Duration::from_millis(1500), "headers come at once: {:?}", begun.elapsed());
    assert_eq!(text_of(&response.answer()), "waited 2 s");
}

#[test]
fn a_call_that_is_answered_soon_costs_one_write_to_the_server_and_one_to_the_client() {
    const CALLS: u64 = 300;
    let (bridge, session) = start(&["--sse-after", "2s"]);
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    let path = format!("/proc/{}/io", bridge.pid());
    let writes = || -> u64 {
        let io = std::fs::read_to_string(&path).unwrap();
        io.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap().parse().unwrap()
    };
    let mut connection = Connection::open(session.address);
    let mut before = 0;
    for call in 0..CALLS + 20 {
        if call == 20 {
            before = writes(); // the connection is open, and its timers are set
        }
        let body = json!({ "jsonrpc": "2.0", "id": session.next_id(), "method": "ping" }).to_string();
        let request = session.headers(Request::post("/mcp", body));
        connection.write(&request.to_bytes(&session.address.to_string()));
        let mut response = connection.response();
        assert_eq!(response.json()["result"], json!({}));
        connection = response.into_connection();
    }
    let more = (writes() - before).saturating_sub(2 * CALLS);
    assert!(more < CALLS / 10, "{more} writes of {CALLS} calls, to wake the runtime for a timer");
}

#[test]
fn sse_after_says_when_an_answer_becomes_a_stream() {
    let (_bridge, session) = start(&["--sse-after", "15s"]);
    let mut response = session.start_call("slow", json!({ "seconds": 0.5 }));
    assert!(!response.is_sse());
    assert_eq!(text_of(&response.json()), "waited 0.5 s");

    let (_bridge, session) = start(&["--sse-after", "0s"]);
    let mut response = session.start_call("slow", json!({ "seconds": 0.1 }));
    assert!(response.is_sse());
    assert_eq!(text_of(&response.answer()), "waited 0.1 s");
}

#[test]
fn a_waiting_stream_is_kept_alive_by_comments() {
    let (_bridge, session) = start(&["--keep-alive", "100ms"]);
    let mut response = session.start_call("slow", json!({ "seconds": 1 }));
    assert_eq!(text_of(&response.answer()), "waited 1 s");
    assert!(response.comments.len() >= 3, "{:?}", response.comments);
    assert!(response.comments.iter().all(|comment| comment == "keep-alive"), "{:?}", response.comments);
}

#[test]
fn a_listening_stream_is_kept_alive_by_comments() {
    let (_bridge, session) = start(&["--keep-alive", "100ms"]);
    let mut stream = session.listen();
    stream.wait_for_comments(3);
    assert!(stream.comments.iter().all(|comment| comment == "keep-alive"), "{:?}", stream.comments);
}

#[test]
fn an_event_is_three_lines_and_a_blank_one() {
    let (_bridge, session) = start(&[]);
    let text = start_stream(&session, "echo", json!({ "text": "a" })).text();
    let lines: Vec<&str> = text.split('\n').collect();
    let [event, id, data, "", ""] = lines[..] else { panic!("{text:?}") };
    assert_eq!(event, "event: message");
    assert!(id.strip_prefix("id: ").is_some_and(|id| id.contains('-')), "{id}");
    let answer: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(text_of(&answer), "a");
}

#[test]
fn a_child_cannot_inject_events() {
    let bridge = Bridge::start(&[], &["hostile", "cr"]);
    let event = start_stream(&bridge.session(), "echo", json!({ "text": "a" })).event().unwrap();
    assert!(!event.raw.contains('\r'));
    assert_eq!(text_of(&event.json()), "a");
}

#[test]
fn a_large_answer_fits_into_one_event() {
    let (_bridge, session) = start(&[]);
    let text = "0123456789".repeat(300_000);
    assert!(text_of(&start_stream(&session, "echo", json!({ "text": text })).answer()) == text);
}

// ---------------------------------------------------------------------------------------------- progress and logs

#[test]
fn progress_goes_to_the_stream_of_its_call_and_the_answer_comes_last() {
    let (_bridge, session) = start(&[]);
    let messages = start_count(&session, "token", 5, 1).messages();
    let steps: Vec<&Value> = messages[..5].iter().map(|message| &message["params"]["progress"]).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5]);
    assert!(messages[..5].iter().all(|message| message["params"]["progressToken"] == "token"));
    assert_eq!(text_of(&messages[5]), "counted to 5");
}

#[test]
fn progress_of_parallel_calls_does_not_mix() {
    let (_bridge, session) = start(&[]);
    let calls: Vec<Connection> = (0..10_u64)
        .map(|n| {
            let call = json!({
                "jsonrpc": "2.0", "id": n, "method": "tools/call",
                "params": { "name": "count", "arguments": { "to": n + 3, "delay_ms": 5 }, "_meta": { "progressToken": n } },
            });
            session.begin(call.to_string())
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let messages = call.response().messages();
        assert_eq!(messages.len(), n + 4, "its own progress and its answer");
        assert!(messages[..n + 3].iter().all(|message| message["params"]["progressToken"] == n));
        assert_eq!(text_of(&messages[n + 3]), format!("counted to {}", n + 3));
    }
}

#[test]
fn a_log_message_goes_to_the_only_call_in_flight() {
    let (_bridge, session) = start(&[]);
    let mut stream = session.listen();
    let messages = session.start_call("log", json!({ "level": "error", "message": "look" })).messages();
    assert_eq!(methods(&messages), ["notifications/message", "answer"]);
    assert_eq!(messages[0]["params"]["data"], "look");
    assert!(stream.is_silent_for(Duration::from_millis(100)), "no message goes to two streams");
}

#[test]
fn a_log_message_with_several_calls_in_flight_goes_to_the_newest() {
    let (_bridge, session) = start(&[]);
    let mut older = session.start_call("slow", json!({ "seconds": 1 }));
    let newer = session.start_call("log", json!({ "level": "error", "message": "look" })).messages();
    assert_eq!(methods(&newer), ["notifications/message", "answer"]);
    assert_eq!(methods(&older.messages()), ["answer"]);
}

#[test]
fn a_client_that_accepts_only_json_misses_nothing() {
    let (bridge, session) = start(&[]);
    let call = support::tool_call(1, "log", json!({ "level": "error", "message": "look" })).to_string();
    let request = session.headers(Request::post("/mcp", call)).with("Accept", "application/json");
    assert_eq!(text_of(&bridge.send(request).json()), "logged");
    assert_eq!(session.listen().message()["params"]["data"], "look", "it waits for a stream");
}

// ---------------------------------------------------------------------------------------------- the listening stream

#[test]
fn list_changed_goes_to_the_listening_stream() {
    let (_bridge, session) = start(&[]);
    let mut stream = session.listen();
    let mut call = session.start_call("add_note", json!({ "title": "a", "text": "b" }));
    assert_eq!(methods(&call.messages()), ["answer"]);
    assert_eq!(stream.message()["method"], "notifications/resources/list_changed");
}

#[test]
fn what_comes_before_anybody_listens_is_kept() {
    let (_bridge, session) = start(&[]);
    session.request("resources/subscribe", json!({ "uri": "note:///a" }));
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    let mut stream = session.listen();
    assert_eq!(stream.message()["method"], "notifications/resources/list_changed");
    assert_eq!(
        stream.message(),
        json!({
            "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "note:///a" },
        })
    );
}

#[test]
fn a_newer_listener_supersedes_the_older() {
    let (_bridge, session) = start(&[]);
    let mut older = session.listen();
    let mut newer = session.listen();
    assert_eq!(older.event(), None, "the older stream ends properly");
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    assert_eq!(newer.message()["method"], "notifications/resources/list_changed");
    assert!(newer.is_silent_for(Duration::from_millis(100)), "once");
}

#[test]
fn no_answer_ever_comes_on_the_listening_stream() {
    let (_bridge, session) = start(&[]);
    let mut stream = session.listen();
    drop(session.begin(support::tool_call(1, "slow", json!({ "seconds": 0.3 })).to_string()));
    assert!(stream.is_silent_for(Duration::from_millis(700)));
}

#[test]
fn a_listener_that_went_away_is_replaced_without_loss() {
    let (_bridge, session) = start(&[]);
    drop(session.listen());
    for n in 0..3 {
        session.text("add_note", json!({ "title": n.to_string(), "text": "b" }));
    }
    // What was written into the dead stream before its end was noticed can be resumed, so a fresh listener may get less.
    let mut stream = session.listen();
    session.text("add_note", json!({ "title": "last", "text": "b" }));
    assert_eq!(stream.message()["method"], "notifications/resources/list_changed");
}

// ---------------------------------------------------------------------------------------------- questions of the child

#[test]
fn an_elicitation_comes_on_the_stream_of_its_call_and_is_answered_by_post() {
    for (result, text) in [
        (json!({ "action": "accept", "content": { "confirm": true } }), "cleared 1 notes"),
        (json!({ "action": "accept", "content": { "confirm": false } }), "kept 1 notes"),
        (json!({ "action": "decline" }), "kept 1 notes"),
    ] {
        let (_bridge, session) = start(&[]);
        session.text("add_note", json!({ "title": "a", "text": "b" }));
        let mut call = session.start_call("confirm_clear", json!({}));
        let question = call.message();
        assert_eq!(question["method"], "elicitation/create");
        assert_eq!(question["params"]["message"], "Delete all 1 notes?");
        session.respond(&question["id"], result);
        assert_eq!(text_of(&call.answer()), text);
    }
}

#[test]
fn a_question_may_be_refused() {
    let (_bridge, session) = start(&[]);
    let mut call = session.start_call("list_roots", json!({}));
    let question = call.message();
    let refusal =
        json!({ "jsonrpc": "2.0", "id": question["id"], "error": { "code": -1, "message": "not today" } });
    session.post(refusal.to_string()).expect(202, "an error is a response too");
    let answer = call.answer();
    assert_eq!((text_of(&answer), &answer["result"]["isError"]), ("not today".to_owned(), &json!(true)));
}

#[test]
fn sampling_and_roots_work_the_same_way() {
    let (_bridge, session) = start(&[]);
    session.text("add_note", json!({ "title": "milk", "text": "two litres" }));
    let mut call = session.start_call("summarize", json!({}));
    let question = call.message();
    assert_eq!(question["method"], "sampling/createMessage");
    assert!(
        question["params"]["messages"][0]["content"]["text"].as_str().unwrap().contains("milk: two litres")
    );
    session.respond(
        &question["id"],
        json!({ "role": "assistant", "content": { "type": "text", "text": "buy milk" } }),
    );
    assert_eq!(text_of(&call.answer()), "summary: buy milk");

    let mut call = session.start_call("list_roots", json!({}));
    let question = call.message();
    session.respond(&question["id"], json!({ "roots": [{ "uri": "file:///a" }, { "uri": "file:///b" }] }));
    assert_eq!(text_of(&call.answer()), "file:///a\nfile:///b");
}

#[test]
fn a_question_outside_of_any_call_goes_to_the_listening_stream_even_if_that_opens_later() {
    let bridge = Bridge::start(&[], &["hostile", "sample"]);
    let session = bridge.session();
    std::thread::sleep(Duration::from_millis(200)); // the question is most likely there already; it may also come later
    let mut stream = session.listen();
    let question = stream.message();
    assert_eq!(question["method"], "sampling/createMessage");
    session.respond(
        &question["id"],
        json!({ "role": "assistant", "content": { "type": "text", "text": "here" } }),
    );
    let seen = session.seen();
    let answer =
        seen.iter().find(|entry| entry.get("result").is_some()).expect("the answer reaches the child");
    assert_eq!((&answer["id"], &answer["result"]["content"]["text"]), (&json!("ask-1"), &json!("here")));
}

#[test]
fn a_question_is_answered_once() {
    let (_bridge, session) = start(&[]);
    let mut call = session.start_call("list_roots", json!({}));
    let question = call.message();
    session.respond(&question["id"], json!({ "roots": [{ "uri": "file:///first" }] }));
    let again = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [] } }).to_string();
    let status = session.post(again).status;
    assert!(matches!(status, 202 | 400), "{status}");
    assert_eq!(text_of(&call.answer()), "file:///first");
}

// ---------------------------------------------------------------------------------------------- resumption

#[test]
fn a_broken_stream_is_taken_up_where_it_broke() {
    let (_bridge, session) = start(&[]);
    let mut call = start_count(&session, "token", 10, 50);
    let seen: Vec<Event> = (0..3).map(|_| call.event().unwrap()).collect();
    drop(call);

    let mut resumed = session.resume(seen[2].id.as_deref().expect("events carry ids"));
    resumed.expect(200, "the event is known");
    let rest = resumed.messages();
    let steps: Vec<u64> = rest.iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert_eq!(steps, (4..=10).collect::<Vec<_>>(), "nothing twice, nothing lost");
    let answer = rest.last().unwrap();
    assert_eq!((&answer["id"], text_of(answer)), (&json!("token"), "counted to 10".to_owned()));
}

#[test]
fn an_answer_that_nobody_took_can_be_had_later() {
    let (_bridge, session) = start(&[]);
    let mut call = start_count(&session, "token", 3, 100);
    let first = call.event().unwrap().id.unwrap();
    drop(call);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(text_of(&session.resume(&first).answer()), "counted to 3");
    assert_eq!(text_of(&session.resume(&first).answer()), "counted to 3", "and once more");
}

#[test]
fn a_listening_stream_is_taken_up_too() {
    let (_bridge, session) = start(&[]);
    for uri in ["note:///a", "note:///b", "note:///c"] {
        session.request("resources/subscribe", json!({ "uri": uri }));
    }
    let mut stream = session.listen();
    session.text("add_note", json!({ "title": "a", "text": "x" }));
    stream.event().unwrap();
    let last = stream.event().unwrap();
    drop(stream);
    session.text("add_note", json!({ "title": "b", "text": "x" }));
    let mut resumed = session.resume(last.id.as_deref().unwrap());
    resumed.expect(200, "the event is known");
    session.text("add_note", json!({ "title": "c", "text": "x" }));
    let uris: Vec<Value> = (0..4).map(|_| resumed.message()["params"]["uri"].clone()).collect();
    assert_eq!(uris, [Value::Null, json!("note:///b"), Value::Null, json!("note:///c")]);
}

#[test]
fn only_the_stream_of_the_event_is_replayed() {
    let (_bridge, session) = start(&[]);
    let mut first = start_count(&session, "first", 3, 20);
    let mut second = start_count(&session, "second", 3, 20);
    let event = first.event().unwrap().id.unwrap();
    second.messages();
    first.messages();
    let replayed = session.resume(&event).messages();
    assert_eq!(replayed.len(), 3);
    assert_eq!(replayed[2]["id"], "first");
    assert!(replayed[..2].iter().all(|message| message["params"]["progressToken"] == "first"));
}

#[test]
fn an_event_id_that_cannot_be_honoured_is_400_not_an_empty_stream() {
    let (_bridge, session) = start(&["--replay-buffer", "16KiB"]);
    let mut call = start_count(&session, "old", 2, 1);
    let evicted = call.event().unwrap().id.unwrap();
    call.messages();
    session.resume(&evicted).expect(200, "the event is still there");
    start_count(&session, "many", 300, 0).messages();
    for id in [&*evicted, "nonsense", "-", "1-", "-1", "999-0", "99999999999999999999-1", "é"] {
        assert_eq!(session.resume(id).status, 400, "{id:?}: an empty stream would be resumed for ever");
    }
}

#[test]
fn event_ids_are_unique_within_a_session() {
    let (_bridge, session) = start(&["--sse-after", "0s"]);
    let mut ids = std::collections::HashSet::new();
    for n in 0..5 {
        let mut stream = start_count(&session, &n.to_string(), 3, 0);
        while let Some(event) = stream.event() {
            assert!(ids.insert(event.id.expect("each event has an id")), "an id came twice");
        }
    }
    assert_eq!(ids.len(), 20);
}

// ---------------------------------------------------------------------------------------------- priming

#[test]
fn there_is_no_priming_event_unless_asked_for() {
    let bridge = Bridge::start(&["--sse-after", "0s"], &["notebook"]);
    let session = bridge.initialize_as("2025-11-25");
    let mut call = session.start_call("slow", json!({ "seconds": 0.4 }));
    let event = call.event().unwrap();
    assert_eq!((event.retry.as_deref(), text_of(&event.json())), (None, "waited 0.4 s".to_owned()));
}

#[test]
fn a_priming_event_is_sent_only_to_clients_of_a_revision_that_has_it() {
    let bridge = Bridge::start(&["--prime", "--sse-after", "0s"], &["notebook"]);
    for (version, primed) in [("2025-06-18", false), ("2025-11-25", true)] {
        let session = bridge.initialize_as(version);
        let mut call = session.start_call("slow", json!({ "seconds": 0.4 }));
        let first = call.event().unwrap();
        assert_eq!(first.data.as_deref() == Some(""), primed, "{version}: {first:?}");
        if primed {
            assert!(first.id.is_some() && first.retry.is_some(), "{first:?}");
            let id = first.id.unwrap();
            drop(call);
            assert_eq!(
                text_of(&session.resume(&id).answer()),
                "waited 0.4 s",
                "a primed stream can be resumed"
            );
        }
    }
}
