//! Cancellations, timeouts and answers that cross each other: whoever comes first, each call has one end.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::Connection;
use crate::support::{
    Bridge, Request, Response, Scratch, Session, Value, assert_refused, eventually, initialize, json, reason,
    recorded, text_of, tool_call,
};

/// A cancelled call whose child stays silent ends 5 s later; this much is for a busy machine.
const END: Duration = Duration::from_secs(12);

/// Connections at once.
const CLIENTS: u64 = 20;

fn start(options: &[&str], mode: &[&str]) -> (Bridge, Session) {
    let bridge = Bridge::start(options, &[&["hostile"], mode].concat());
    let session = bridge.session();
    (bridge, session)
}

fn cancel(id: impl Into<Value>) -> String {
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id.into(), "reason": "test" } })
        .to_string()
}

/// The ids under which the child has read calls, without those of `seen` itself, and those of its cancellations.
fn calls_and_cancels(session: &Session) -> (Vec<Value>, Vec<Value>) {
    let mut seen = session.seen();
    let ids = |seen: &[Value], method: &str, member: &str| -> Vec<Value> {
        seen.iter().filter(|entry| entry["method"] == method).map(|entry| entry[member].clone()).collect()
    };
    seen.pop();
    (ids(&seen, "tools/call", "id"), ids(&seen, "notifications/cancelled", "requestId"))
}

/// A number that looks random and is the same in every run.
fn jitter(seed: u64, below: u64) -> u64 {
    let mixed = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) % below
}

#[track_caller]
fn assert_one_end(answer: &Value, id: &Value) {
    assert_eq!(&answer["id"], id, "{answer}");
    if answer.get("result").is_none() {
        assert_eq!(reason(answer), "cancelled");
    }
}

// ---------------------------------------------------------------------------------------------- a client cancels

#[test]
fn a_cancel_reaches_a_silent_child_under_its_own_id_and_ends_the_call_in_every_form() {
    let (_bridge, session) = start(&[], &["hang"]);
    let begun = Instant::now();
    let forms = ["application/json, text/event-stream", "application/json", "text/event-stream"];
    let calls: Vec<Connection> = (0..)
        .zip(forms)
        .map(|(id, accept)| {
            let body = tool_call(id, "echo", json!({})).to_string();
            let request = session.headers(Request::post("/mcp", body)).with("Accept", accept);
            let mut connection = Connection::open(session.address);
            connection.write(&request.to_bytes("localhost"));
            connection
        })
        .collect();
    eventually("the child has the calls", || calls_and_cancels(&session).0.len() >= 3);
    for id in 0..3 {
        assert_eq!(session.post(cancel(id)).status, 202);
    }
    let (known, cancelled) = calls_and_cancels(&session);
    assert_eq!(cancelled.iter().collect::<HashSet<_>>(), known[..3].iter().collect::<HashSet<_>>());
    for (id, call) in calls.into_iter().enumerate() {
        let mut response = call.response();
        response.expect(200, "a cancelled call is no failure of transport");
        assert_eq!(response.is_sse(), id != 1);
        let answer = response.answer();
        assert_eq!((&answer["id"], reason(&answer)), (&json!(id), "cancelled"));
    }
    assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
}

#[test]
fn the_rest_of_a_cancellation_reaches_the_child_as_it_was_sent() {
    let scratch = Scratch::new();
    let command = recorded(&scratch, "hostile good");
    let bridge = Bridge::start(&[], &command.iter().map(String::as_str).collect::<Vec<_>>());
    let session = bridge.session();
    let mut call = session.post(tool_call("mine", "sleep", json!({ "ms": 400 })).to_string());
    let text = concat!(
        r#"{"jsonrpc":"2.0",  "method":"notifications/cancelled","params":{"_meta":{"x":1.0e2},"#,
        r#""requestId": "mine" ,"reason":"\u00e9 \"requestId\": 7"}}"#
    );
    assert_eq!(session.post(text).status, 202);
    assert_eq!(text_of(&call.answer()), "slept");
    session.ping().expect(200, "what was read before this is in the file");
    let stdin = scratch.read("stdin");
    let lines: Vec<Value> = stdin.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let known = &lines.iter().find(|line| line["method"] == "tools/call").unwrap()["id"];
    let expected = text.replace(r#""mine""#, &known.to_string());
    assert!(stdin.lines().any(|line| line == expected), "{expected}\nis not in\n{stdin}");
}

#[test]
fn a_second_cancel_of_the_same_call_goes_no_further() {
    let (_bridge, session) = start(&[], &["good"]);
    let mut call = session.start_call("sleep", json!({ "ms": 500 }));
    for _ in 0..3 {
        assert_eq!(session.post(cancel(1000)).status, 202);
    }
    assert_eq!(text_of(&call.answer()), "slept");
    assert_eq!(session.post(cancel(1000)).status, 202, "too late, and harmless");
    assert_eq!(session.seen_count("notifications/cancelled"), 1);
}

#[test]
fn a_cancel_of_another_id_or_of_the_same_digits_as_a_string_cancels_nothing() {
    let (_bridge, session) = start(&[], &["good"]);
    let call = session.begin(tool_call(7, "sleep", json!({ "ms": 300 })).to_string());
    for id in [json!("7"), json!(8), json!(2), json!(3), json!(-7)] {
        assert_eq!(session.post(cancel(id)).status, 202);
    }
    assert_eq!(text_of(&call.response().answer()), "slept");
    assert_eq!(
        calls_and_cancels(&session).1,
        Vec::<Value>::new(),
        "the child knows other ids: 2 or 3 may be one"
    );
}

#[test]
fn a_cancel_in_one_session_leaves_the_same_id_of_another_alone() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let (mine, other) = (bridge.session(), bridge.session());
    let calls =
        [&mine, &other].map(|session| session.begin(tool_call(7, "sleep", json!({ "ms": 300 })).to_string()));
    eventually("both calls are there", || {
        [&mine, &other].iter().all(|session| !calls_and_cancels(session).0.is_empty())
    });
    assert_eq!(other.post(cancel(7)).status, 202);
    for call in calls {
        assert_eq!(text_of(&call.response().answer()), "slept");
    }
    assert_eq!(calls_and_cancels(&mine).1.len(), 0);
    assert_eq!(calls_and_cancels(&other).1.len(), 1);
}

#[test]
fn a_call_that_is_cancelled_before_the_child_has_it_never_reaches_it_and_ends_at_once() {
    let bridge =
        Bridge::start(&["--sse-after", "20ms", "--keep-alive", "20ms"], &["hostile", "slow_init", "1500"]);
    let mut greeting = bridge.post(initialize(0, "2025-06-18").to_string());
    let id =
        greeting.header("mcp-session-id").expect("the id is known before the child has answered").to_owned();
    let post = |body: String| bridge.send(Request::post("/mcp", body).header("Mcp-Session-Id", &id));
    let mut call = post(tool_call("early", "echo", json!({ "text": "a" })).to_string());
    assert_eq!(post(cancel("early")).status, 202);
    assert_eq!(reason(&call.answer()), "cancelled");
    let mut other = post(tool_call("kept", "echo", json!({ "text": "b" })).to_string());
    assert!(other.is_sse(), "it waits for the handshake, so the cancelled one did not");
    let session = Session::from_response(bridge.address, &mut greeting);
    assert_eq!(text_of(&other.answer()), "b");
    let (calls, cancels) = calls_and_cancels(&session);
    assert_eq!((calls.len(), cancels.len()), (1, 0));
}

#[test]
fn initialize_cannot_be_cancelled() {
    let bridge =
        Bridge::start(&["--sse-after", "20ms", "--keep-alive", "20ms"], &["hostile", "slow_init", "500"]);
    let mut greeting = bridge.post(initialize("i", "2025-06-18").to_string());
    let id =
        greeting.header("mcp-session-id").expect("the id is known before the child has answered").to_owned();
    let request = Request::post("/mcp", cancel("i")).header("Mcp-Session-Id", &id);
    assert_eq!(bridge.send(request).status, 202);
    let session = Session::from_response(bridge.address, &mut greeting);
    assert_eq!(session.greeting["result"]["serverInfo"]["name"], "hostile");
    assert_eq!(session.seen_count("notifications/cancelled"), 0);
}

// ---------------------------------------------------------------------------------------------- late answers

#[test]
fn an_answer_that_crosses_the_cancel_is_delivered_while_the_post_is_open() {
    let (_bridge, session) = start(&[], &["late"]);
    let mut call = session.start_call("echo", json!({}));
    assert_eq!(session.post(cancel(1000)).status, 202);
    assert_eq!(text_of(&call.answer()), "too late");
}

#[test]
fn an_answer_that_comes_after_the_end_is_dropped_and_no_later_call_gets_it() {
    let (bridge, session) = start(&["--request-timeout", "200ms"], &["late"]);
    let answer = session.post(tool_call(1, "echo", json!({})).to_string()).answer();
    assert_eq!(reason(&answer), "request_timeout");
    bridge.logged("the late answer", |line| line.contains("child.dropped") && line.contains("late"));
    let again = session.post(tool_call(1, "pids", json!({})).to_string()).answer();
    assert!(text_of(&again).contains("pid"), "the id is free again, and its answer is the new one: {again}");
}

// ---------------------------------------------------------------------------------------------- timeouts

#[test]
fn each_call_that_times_out_is_cancelled_at_the_child_once_under_its_own_id() {
    let (_bridge, session) = start(&["--request-timeout", "300ms"], &["hang"]);
    let calls: Vec<Connection> =
        (0..5).map(|id| session.begin(tool_call(id, "echo", json!({})).to_string())).collect();
    for (id, call) in calls.into_iter().enumerate() {
        let mut response = call.response();
        response.expect(200, "a timeout is no failure of transport");
        let answer = response.answer();
        assert_eq!((&answer["id"], reason(&answer)), (&json!(id), "request_timeout"));
    }
    let (mut calls, mut cancels) = calls_and_cancels(&session);
    assert_eq!(calls.len(), 5);
    calls.sort_by_key(Value::as_u64);
    cancels.sort_by_key(Value::as_u64);
    assert_eq!(cancels, calls);
}

#[test]
fn a_call_that_timed_out_is_not_cancelled_again_by_its_client() {
    let (_bridge, session) = start(&["--request-timeout", "200ms"], &["hang"]);
    assert_eq!(reason(&session.call("echo", json!({}))), "request_timeout");
    assert_eq!(session.post(cancel(1000)).status, 202);
    assert_eq!(session.seen_count("notifications/cancelled"), 1);
}

#[test]
fn a_cancelled_call_that_times_out_first_is_cancelled_once() {
    let (_bridge, session) = start(&["--request-timeout", "700ms"], &["hang"]);
    let mut call = session.start_call("echo", json!({}));
    assert_eq!(session.post(cancel(1000)).status, 202);
    let answer = call.answer();
    assert!(matches!(reason(&answer), "request_timeout" | "cancelled"), "{answer}");
    assert_eq!(session.seen_count("notifications/cancelled"), 1);
}

#[test]
fn an_initialize_that_times_out_is_not_cancelled() {
    let scratch = Scratch::new();
    let command = recorded(&scratch, "hostile hang_init");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let bridge = Bridge::start(&["--init-timeout", "300ms", "--sse-after", "10s"], &command);
    assert_refused(&mut bridge.post(initialize(0, "2025-06-18").to_string()), 502, "init_timeout");
    bridge.logged("the session is over", |line| line.contains("session.end"));
    assert_eq!(scratch.read("stdin").lines().count(), 1, "{}", scratch.read("stdin"));
}

// ---------------------------------------------------------------------------------------------- the child cancels

/// Asks for roots on a call and takes the question back, then answers the call. Keeps what it reads in `$0`.
const FICKLE: &str = r#"
    while IFS= read -r line; do
        printf '%s\n' "$line" >> "$0"
        id=${line#*\"id\":}; id=${id%%[,\}]*}
        case $line in
            *'"initialize"'*)
                printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}\n' "$id" ;;
            *'"tools/call"'*)
                printf '{"jsonrpc":"2.0","id":"q","method":"roots/list"}\n'
                printf '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q"}}\n'
                printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"done"}]}}\n' "$id" ;;
            *'"id"'*)
                printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
        esac
    done"#;

#[test]
fn a_question_that_the_child_takes_back_is_taken_back_on_the_stream_where_it_was_asked() {
    let scratch = Scratch::new();
    let bridge = Bridge::start(&[], &["sh", "-c", FICKLE, &scratch.path("log")]);
    let session = bridge.session();
    let mut elsewhere = session.listen();
    let messages = session.start_call("any", json!({})).messages();
    let methods: Vec<&str> = messages.iter().filter_map(|message| message["method"].as_str()).collect();
    assert_eq!(methods, ["roots/list", "notifications/cancelled"]);
    assert_eq!(text_of(&messages[2]), "done");
    assert!(elsewhere.is_silent_for(Duration::from_millis(100)));
}

#[test]
fn an_answer_to_a_question_that_was_taken_back_is_accepted_and_goes_no_further() {
    let scratch = Scratch::new();
    let bridge = Bridge::start(&[], &["sh", "-c", FICKLE, &scratch.path("log")]);
    let session = bridge.session();
    session.start_call("any", json!({})).messages();
    session.respond(&json!("q"), json!({ "roots": [{ "uri": "file:///too-late" }] }));
    session.ping().expect(200, "the child has read everything before");
    assert!(!scratch.read("log").contains("too-late"));
}

// ---------------------------------------------------------------------------------------------- many at once

/// A client's two connections: calls on one, cancellations on the other.
struct Client {
    session: Session,
    calls: Option<Connection>,
    cancels: Option<Connection>,
}

impl Client {
    fn new(session: &Session) -> Self {
        let open = || Some(Connection::open(session.address));
        Client { session: session.clone(), calls: open(), cancels: open() }
    }

    fn bytes(&self, body: String) -> Vec<u8> {
        self.session.headers(Request::post("/mcp", body)).to_bytes("localhost")
    }

    fn call(&mut self, body: String) {
        let bytes = self.bytes(body);
        self.calls.as_mut().unwrap().write(&bytes);
    }

    fn answer(&mut self) -> Value {
        let mut response = self.calls.take().unwrap().response();
        response.expect(200, "a call in a race");
        let answer = response.answer();
        self.calls = Some(response.into_connection());
        answer
    }

    fn cancel(&mut self, id: u64) {
        let bytes = self.bytes(cancel(id));
        let mut connection = self.cancels.take().unwrap();
        connection.write(&bytes);
        let mut response = connection.response();
        assert_eq!((response.status, response.bytes()), (202, vec![]), "a cancellation is always accepted");
        self.cancels = Some(response.into_connection());
    }
}

#[test]
fn a_thousand_races_of_cancel_and_answer_have_a_thousand_ends() {
    let (_bridge, session) = start(&[], &["good"]);
    let workers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut connections = Client::new(&session);
            thread::spawn(move || {
                for id in client * 50..(client + 1) * 50 {
                    let begun = Instant::now();
                    let call = tool_call(id, "sleep", json!({ "ms": jitter(id, 3) })).to_string();
                    match jitter(id, 4) {
                        0 => {
                            // The cancellation may overtake its call.
                            connections.cancel(id);
                            connections.call(call);
                        }
                        1 => {
                            connections.call(call);
                            connections.cancel(id);
                        }
                        _ => {
                            connections.call(call);
                            thread::sleep(Duration::from_micros(jitter(id ^ 0x55, 4000)));
                            connections.cancel(id);
                        }
                    }
                    assert_one_end(&connections.answer(), &json!(id));
                    assert!(begun.elapsed() < END, "call {id} took {:?}", begun.elapsed());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let (calls, cancels) = calls_and_cancels(&session);
    assert_eq!(calls.iter().collect::<HashSet<_>>().len(), 1000, "each call reached the child once");
    let (calls, distinct): (HashSet<_>, HashSet<_>) = (calls.iter().collect(), cancels.iter().collect());
    assert_eq!(distinct.len(), cancels.len(), "no call is cancelled twice");
    assert!(distinct.is_subset(&calls), "the child hears of no id that it does not know");
    assert!(cancels.len() > 50, "it was a race: {} cancellations won", cancels.len());
}

#[test]
fn calls_of_a_child_that_obeys_a_cancel_in_silence_end_too() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let workers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let session = session.clone();
            thread::spawn(move || {
                let begun = Instant::now();
                let calls: Vec<(u64, Connection)> = (client * 10..(client + 1) * 10)
                    .map(|id| {
                        // Half of them would never end by themselves.
                        let seconds = if id % 2 == 0 { 600.0 } else { jitter(id, 10) as f64 / 1000.0 };
                        (id, session.begin(tool_call(id, "slow", json!({ "seconds": seconds })).to_string()))
                    })
                    .collect();
                // Twice, because the first cancellation may overtake its call. Ten requests later none does.
                for (id, _) in calls.iter().chain(&calls) {
                    thread::sleep(Duration::from_micros(jitter(*id, 2000)));
                    assert_eq!(session.post(cancel(*id)).status, 202);
                }
                for (id, call) in calls {
                    let answer = call.response().answer();
                    assert_one_end(&answer, &json!(id));
                    assert!(id % 2 == 1 || reason(&answer) == "cancelled", "{answer}");
                    assert!(begun.elapsed() < END, "call {id} took {:?}", begun.elapsed());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
}

#[test]
fn clients_that_leave_at_any_moment_cancel_nothing_and_harm_nobody() {
    let (_bridge, session) = start(&[], &["good"]);
    let workers: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let session = session.clone();
            thread::spawn(move || {
                for id in client * 20..(client + 1) * 20 {
                    let call =
                        session.begin(tool_call(id, "sleep", json!({ "ms": jitter(id, 4) })).to_string());
                    thread::sleep(Duration::from_micros(jitter(id ^ 0x99, 5000)));
                    drop(call);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let (calls, cancels) = calls_and_cancels(&session);
    assert_eq!(cancels, Vec::<Value>::new());
    assert_eq!(calls.iter().collect::<HashSet<_>>().len(), calls.len(), "no call comes twice");
    assert_eq!(session.text("echo", json!({ "text": "still here" })), "still here");
}

#[test]
fn a_session_deleted_at_any_moment_ends_each_of_its_calls() {
    let bridge = Bridge::start(&["--max-sessions", "200"], &["hostile", "good"]);
    for round in 0..40 {
        let session = bridge.session();
        let calls: Vec<Connection> = (0..5)
            .map(|id| {
                session.begin(tool_call(id, "sleep", json!({ "ms": jitter(round * 5 + id, 4) })).to_string())
            })
            .collect();
        thread::sleep(Duration::from_micros(jitter(round, 4000)));
        assert_eq!(session.delete().status, 204);
        for (id, call) in calls.into_iter().enumerate() {
            let mut response: Response = call.response();
            if response.status == 404 {
                continue; // it came after the end
            }
            response.expect(200, "a call of a session that ends");
            let answer = response.answer();
            assert_eq!(answer["id"], id);
            assert!(answer.get("result").is_some() || reason(&answer) == "session_terminated", "{answer}");
        }
    }
}
