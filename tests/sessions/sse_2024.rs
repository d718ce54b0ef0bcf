//! The HTTP+SSE transport of 2024-11-05 behind `--sse-compat`: one stream for everything, and a place to post to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    self, Bridge, Event, Request, Response, Value, assert_refused, eventually, initialize, json, reason,
    text_of, tool_call, within,
};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

fn start(options: &[&str], command: &[&str]) -> Bridge {
    Bridge::start(&[&["--sse-compat", "--lazy"], options].concat(), command)
}

/// A client of the old transport.
struct Client<'b> {
    bridge: &'b Bridge,
    stream: Response,
    /// Where it posts.
    endpoint: String,
}

impl<'b> Client<'b> {
    /// Opens the stream and learns where to post.
    #[track_caller]
    fn open(bridge: &'b Bridge) -> Self {
        let mut stream = bridge.send(Request::listen("/sse"));
        assert_eq!((stream.status, stream.is_sse()), (200, true), "GET /sse is answered with a stream");
        let first = stream.event().unwrap();
        assert_eq!(first.event.as_deref(), Some("endpoint"), "{first:?}");
        Client { bridge, stream, endpoint: format!("/{}", first.data.unwrap()) } // relative to /sse
    }

    /// Opens the stream and completes the handshake.
    #[track_caller]
    fn connect(bridge: &'b Bridge) -> Self {
        let mut client = Self::open(bridge);
        client.post(initialize(0, "2024-11-05").to_string());
        let greeting = client.message();
        assert_eq!(
            (&greeting["id"], &greeting["result"]["protocolVersion"]),
            (&json!(0), &json!("2024-11-05"))
        );
        client.post(INITIALIZED);
        client
    }

    fn send(&self, body: impl AsRef<[u8]>) -> Response {
        self.bridge.send(Request::post(&self.endpoint, body))
    }

    /// A message that is accepted; what comes of it comes on the stream.
    #[track_caller]
    fn post(&self, body: impl AsRef<[u8]>) {
        let mut response = self.send(body);
        response.expect(202, "a message is accepted");
        assert!(response.bytes().is_empty(), "nothing comes but on the stream");
    }

    #[track_caller]
    fn message(&mut self) -> Value {
        let event = self.stream.event().unwrap();
        assert_eq!(event.event.as_deref(), Some("message"), "{event:?}");
        event.json()
    }

    #[track_caller]
    fn call(&mut self, id: u64, tool: &str, arguments: Value) -> Value {
        self.post(tool_call(id, tool, arguments).to_string());
        let answer = self.message();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// Reads messages until the answer to `id`, which is the last of them.
    #[track_caller]
    fn until(&mut self, id: u64) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            let message = self.message();
            let last = message["id"] == id && message.get("method").is_none();
            messages.push(message);
            if last {
                return messages;
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- off by default

#[test]
fn without_the_option_there_is_nothing_and_the_endpoint_is_named() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    for request in [
        Request::listen("/sse"),
        Request::post("/sse", initialize(0, "2024-11-05").to_string()),
        Request::listen("/message"),
        Request::post("/message", PING),
        Request::post("/message?sessionId=x", initialize(0, "2024-11-05").to_string()),
    ] {
        let mut response = bridge.send(request);
        assert!(matches!(response.status, 404 | 405), "clients tell by this: {}", response.status);
        assert!(response.text().contains("/mcp"), "the endpoint is named");
    }
    assert_eq!(bridge.processes(), []);
}

// ---------------------------------------------------------------------------------------------- the stream

#[test]
fn the_first_event_says_where_to_post() {
    let bridge = start(&[], &["notebook"]);
    let mut stream = bridge.send(Request::listen("/sse"));
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert!(stream.header("cache-control").is_some_and(|cache| cache.contains("no-cache")));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    assert_eq!(stream.header("mcp-session-id"), None);
    let Event { event, data, id, .. } = stream.event().unwrap();
    assert_eq!((event.as_deref(), id), (Some("endpoint"), None));
    let session = data.as_deref().unwrap().strip_prefix("message?sessionId=").expect("a relative reference");
    assert!(
        session.len() >= 32 && session.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
        "{session}"
    );
}

#[test]
fn each_stream_has_a_place_of_its_own_to_post_to() {
    let bridge = start(&[], &["notebook"]);
    let clients: Vec<Client<'_>> = (0..10).map(|_| Client::open(&bridge)).collect();
    let places: std::collections::HashSet<&str> = clients.iter().map(|client| &*client.endpoint).collect();
    assert_eq!(places.len(), 10);
}

#[test]
fn a_stream_alone_starts_no_child() {
    let bridge = start(&[], &["notebook"]);
    let client = Client::open(&bridge);
    assert_eq!(bridge.processes(), []);
    client.post(initialize(0, "2024-11-05").to_string());
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn an_answer_comes_on_the_stream_and_the_post_is_202() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    assert_eq!(text_of(&client.call(1, "list_notes", json!({}))), "no notes yet");
    assert_eq!(text_of(&client.call(2, "echo", json!({ "text": "a" }))), "a");
}

#[test]
fn answers_come_as_they_are_ready_each_with_its_id() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    client.post(tool_call("slow", "slow", json!({ "seconds": 0.4 })).to_string());
    client.post(tool_call(7, "slow", json!({ "seconds": 0.2 })).to_string());
    client.post(tool_call("7", "echo", json!({ "text": "quick" })).to_string());
    let ids: Vec<Value> = (0..3).map(|_| client.message()["id"].clone()).collect();
    assert_eq!(ids, [json!("7"), json!(7), json!("slow")]);
}

#[test]
fn progress_and_logs_come_on_the_stream_before_the_answer() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "count", "arguments": { "to": 5, "delay_ms": 5 }, "_meta": { "progressToken": "t" } },
    });
    client.post(call.to_string());
    let messages = client.until(1);
    let steps: Vec<u64> =
        messages.iter().filter_map(|message| message["params"]["progress"].as_u64()).collect();
    assert_eq!((steps, messages.len()), (vec![1, 2, 3, 4, 5], 6));

    client.post(tool_call(2, "log", json!({ "level": "error", "message": "look" })).to_string());
    let messages = client.until(2);
    assert_eq!((messages.len(), &messages[0]["params"]["data"]), (2, &json!("look")));
}

#[test]
fn what_the_child_says_unasked_comes_on_the_stream_once() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    for id in 1..=5 {
        client.post(tool_call(id, "add_note", json!({ "title": id.to_string(), "text": "x" })).to_string());
    }
    let messages: Vec<Value> = (0..10).map(|_| client.message()).collect();
    let changed = |message: &&Value| message["method"] == "notifications/resources/list_changed";
    assert_eq!(messages.iter().filter(changed).count(), 5, "{messages:?}");
    assert!(client.stream.is_silent_for(Duration::from_millis(100)));
}

#[test]
fn a_question_comes_on_the_stream_and_its_answer_is_posted() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    client.post(tool_call(1, "confirm_clear", json!({})).to_string());
    let question = client.message();
    assert_eq!(question["method"], "elicitation/create");
    let yes = json!({ "action": "accept", "content": { "confirm": true } });
    client.post(json!({ "jsonrpc": "2.0", "id": question["id"], "result": yes }).to_string());
    assert_eq!(text_of(client.until(1).last().unwrap()), "cleared 0 notes");
}

#[test]
fn a_silent_stream_is_kept_alive_by_comments() {
    let bridge = start(&["--keep-alive", "50ms"], &["notebook"]);
    Client::open(&bridge).stream.wait_for_comments(3);
    let mut client = Client::connect(&bridge);
    client.stream.wait_for_comments(3);
    assert_eq!(text_of(&client.call(1, "echo", json!({ "text": "a" }))), "a");
}

#[test]
fn events_are_framed_as_on_any_other_stream() {
    let bridge = start(&[], &["hostile", "cr"]);
    let client = &mut Client::connect(&bridge);
    client.post(tool_call(1, "echo", json!({ "text": "a" })).to_string());
    let event = client.stream.event().unwrap();
    assert!(!event.raw.contains('\r'), "{event:?}");
    assert_eq!(event.raw.lines().filter(|line| line.starts_with("data:")).count(), 1);
    assert_eq!(text_of(&event.json()), "a");
}

#[test]
fn no_event_holds_what_some_readers_take_for_the_end_of_a_line() {
    let bridge = start(&[], &["hostile", "good"]);
    let mut client = Client::connect(&bridge);
    let text = "x\u{85}é\u{2028}—\u{2029}".repeat(20_000);
    client.post(tool_call(1, "echo", json!({ "text": text })).to_string());
    let event = client.stream.event().unwrap();
    assert!(!event.raw.contains(['\u{85}', '\u{2028}', '\u{2029}']));
    assert!(text_of(&event.json()) == text);
}

#[test]
fn a_large_answer_fits_into_one_event() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    let text = "0123456789".repeat(200_000);
    assert!(text_of(&client.call(1, "echo", json!({ "text": text }))) == text);
}

#[test]
fn the_child_sees_one_handshake_even_if_its_client_never_says_initialized() {
    let bridge = start(&[], &["hostile", "strict"]);
    let mut client = Client::open(&bridge);
    client.post(initialize(0, "2024-11-05").to_string());
    client.post(tool_call(1, "seen", json!({})).to_string());
    let seen: Vec<Value> = serde_json::from_str(&text_of(client.until(1).last().unwrap())).unwrap();
    let methods: Vec<&str> = seen.iter().filter_map(|entry| entry["method"].as_str()).collect();
    assert_eq!(methods, ["initialize", "notifications/initialized", "tools/call"]);
}

#[test]
fn a_cancellation_reaches_the_child_under_its_own_id() {
    let bridge = start(&[], &["hostile", "late"]);
    let mut client = Client::connect(&bridge);
    client.post(tool_call("mine", "echo", json!({})).to_string());
    client.post(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine"}}"#);
    let answer = client.message();
    assert_eq!((&answer["id"], text_of(&answer)), (&json!("mine"), "too late".to_owned()));
}

#[test]
fn a_request_too_many_is_refused_on_the_stream() {
    let bridge = start(&["--max-in-flight", "1"], &["notebook"]);
    let mut client = Client::connect(&bridge);
    client.post(tool_call(1, "slow", json!({ "seconds": 0.3 })).to_string());
    client.post(tool_call(2, "echo", json!({ "text": "a" })).to_string());
    let refusal = client.message();
    assert_eq!((&refusal["id"], reason(&refusal)), (&json!(2), "too_many_inflight"));
    assert_eq!(client.message()["id"], 1);
}

// ---------------------------------------------------------------------------------------------- several clients

#[test]
fn two_clients_have_a_child_each_and_hear_nothing_of_each_other() {
    let bridge = start(&[], &["notebook"]);
    let (mut mine, mut other) = (Client::connect(&bridge), Client::connect(&bridge));
    mine.post(tool_call(1, "add_note", json!({ "title": "mine", "text": "x" })).to_string());
    let heard: Vec<Value> = (0..2).map(|_| mine.message()).collect();
    assert_eq!(heard.len(), 2);
    assert_eq!(text_of(&other.call(1, "list_notes", json!({}))), "no notes yet");
    assert!(other.stream.is_silent_for(Duration::from_millis(100)));
    assert_eq!(bridge.processes().len(), 2);
}

#[test]
fn equal_ids_of_many_clients_do_not_mix() {
    let bridge = start(&[], &["notebook"]);
    let mut clients: Vec<Client<'_>> = (0..8).map(|_| Client::connect(&bridge)).collect();
    for round in 0..5 {
        for (n, client) in clients.iter().enumerate() {
            let arguments = json!({ "seconds": 0.02, "text": format!("{n}/{round}") });
            client.post(tool_call(round, "slow", arguments).to_string());
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(text_of(&client.message()), format!("waited 0.02 s: {n}/{round}"));
        }
    }
}

#[test]
fn an_answer_to_the_question_of_another_child_goes_nowhere() {
    let bridge = start(&[], &["notebook"]);
    let (mut mine, other) = (Client::connect(&bridge), Client::connect(&bridge));
    mine.post(tool_call(1, "list_roots", json!({})).to_string());
    let question = mine.message();
    let answer = |uri: &str| {
        json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [{ "uri": uri }] } }).to_string()
    };
    assert_refused(&mut other.send(answer("file:///wrong")), 400, "unknown_response");
    mine.post(answer("file:///right"));
    assert_eq!(text_of(&mine.message()), "file:///right");
}

#[test]
fn streamable_http_is_served_beside_it() {
    let bridge = start(&[], &["notebook"]);
    let mut old = Client::connect(&bridge);
    let new = bridge.session();
    assert_eq!(new.text("list_notes", json!({})), "no notes yet");
    assert_eq!(text_of(&old.call(1, "list_notes", json!({}))), "no notes yet");
}

#[test]
fn the_names_of_one_transport_mean_nothing_in_the_other() {
    let bridge = start(&[], &["notebook"]);
    let old = Client::connect(&bridge);
    let id = old.endpoint.split_once('=').unwrap().1;
    assert_refused(
        &mut bridge.send(Request::post("/mcp", PING).header("Mcp-Session-Id", id)),
        404,
        "session_not_found",
    );
    let new = bridge.session();
    let request = Request::post(&format!("/message?sessionId={}", new.id), PING);
    assert_refused(&mut bridge.send(request), 404, "session_not_found");
    let request = new.headers(Request::post("/message", PING));
    assert_refused(&mut bridge.send(request), 404, "session_not_found");
}

// ---------------------------------------------------------------------------------------------- the end

#[test]
fn closing_the_stream_ends_the_child() {
    let bridge = start(&[], &["notebook"]);
    let client = Client::connect(&bridge);
    assert_eq!(bridge.processes().len(), 1);
    let endpoint = client.endpoint.clone();
    drop(client);
    eventually("the child is gone", || bridge.processes().is_empty());
    assert_refused(&mut bridge.send(Request::post(&endpoint, PING)), 404, "session_not_found");
    bridge.logged("the reason", |line| line.contains("session.end") && line.contains("disconnected"));
}

#[test]
fn closing_the_stream_in_the_middle_of_a_call_ends_the_child() {
    let bridge = start(&[], &["hostile", "hang"]);
    let client = Client::connect(&bridge);
    client.post(tool_call(1, "echo", json!({})).to_string());
    drop(client);
    eventually("the child is gone", || bridge.processes().is_empty());
}

#[test]
fn closing_the_stream_while_the_child_starts_ends_the_child() {
    let bridge = start(&["--stop-grace", "200ms"], &["hostile", "hang_init"]);
    let client = Client::open(&bridge);
    client.post(initialize(0, "2024-11-05").to_string());
    assert_eq!(bridge.processes().len(), 1);
    drop(client);
    eventually("the child is gone", || bridge.processes().is_empty());
}

#[test]
fn closing_one_stream_leaves_the_others_alone() {
    let bridge = start(&[], &["notebook"]);
    let (mut mine, other) = (Client::connect(&bridge), Client::connect(&bridge));
    drop(other);
    eventually("the other child is gone", || bridge.processes().len() == 1);
    assert_eq!(text_of(&mine.call(1, "list_notes", json!({}))), "no notes yet");
}

#[test]
fn the_death_of_the_child_ends_each_call_with_an_error_and_then_the_stream() {
    let bridge = start(&[], &["hostile", "die_in_call", "3", "4"]);
    let mut client = Client::connect(&bridge);
    for id in 1..=4 {
        client.post(tool_call(id, "echo", json!({})).to_string());
    }
    for id in 1..=4 {
        let answer = client.message();
        assert_eq!((&answer["id"], reason(&answer)), (&json!(id), "child_exited"));
        assert_eq!(answer["error"]["data"]["exit_code"], 3);
    }
    assert_eq!(client.stream.event(), None, "the stream ends properly");
    eventually("nothing more can be posted", || client.send(PING).status == 404);
}

#[test]
fn the_death_of_an_idle_child_ends_the_stream() {
    let bridge = start(&[], &["hostile", "exit_after", "1"]);
    let mut client = Client::connect(&bridge);
    assert_eq!(text_of(&client.call(1, "echo", json!({ "text": "last" }))), "last");
    assert_eq!(client.stream.event(), None);
}

#[test]
fn a_child_that_fails_to_start_is_an_error_on_the_stream_and_then_its_end() {
    let bridge = start(&[], &["hostile", "exit_before_init", "3"]);
    let mut client = Client::open(&bridge);
    client.post(initialize("i", "2024-11-05").to_string());
    let answer = client.message();
    assert_eq!((&answer["id"], reason(&answer)), (&json!("i"), "child_exited"));
    assert_eq!(client.stream.event(), None);
}

#[test]
fn a_child_that_is_dead_before_it_is_asked_is_one_error_on_the_stream_and_then_its_end() {
    for _ in 0..10 {
        let bridge = start(&[], &["hostile", "exit_at_start", "3"]);
        let mut client = Client::open(&bridge);
        client.post(initialize("i", "2024-11-05").to_string());
        let answer = client.message();
        assert_eq!((&answer["id"], reason(&answer)), (&json!("i"), "child_exited"));
        assert_eq!(client.stream.event(), None);
    }
}

#[test]
fn a_child_that_refuses_initialize_says_so_itself() {
    let bridge = start(&[], &["hostile", "refuse_init"]);
    let mut client = Client::open(&bridge);
    client.post(initialize("i", "2024-11-05").to_string());
    let answer = client.message();
    assert_eq!(
        (&answer["id"], &answer["error"]["message"]),
        (&json!("i"), &json!("this server cannot start: no licence"))
    );
    assert_eq!(client.stream.event(), None);
}

#[test]
fn a_stopping_bridge_ends_its_streams() {
    let mut bridge = start(&["--shutdown-timeout", "2s"], &["notebook"]);
    let mut stream = Client::connect(&bridge).stream;
    bridge.signal(Signal::SIGTERM);
    assert_eq!(stream.event(), None);
    assert_eq!(bridge.exit_code(), 0);
}

#[test]
fn a_stream_that_never_began_a_session_ends_with_the_bridge() {
    let mut bridge = start(&["--shutdown-timeout", "2s"], &["notebook"]);
    let mut stream = Client::open(&bridge).stream;
    bridge.signal(Signal::SIGTERM);
    assert_eq!(stream.event(), None);
    assert_eq!(bridge.exit_code(), 0);
}

// ---------------------------------------------------------------------------------------------- refusals

#[test]
fn a_second_initialize_is_400_and_does_not_reach_the_child() {
    let bridge = start(&[], &["hostile", "good"]);
    let mut client = Client::connect(&bridge);
    let mut again = client.send(initialize("again", "2024-11-05").to_string());
    assert_eq!(assert_refused(&mut again, 400, "already_initialized")["id"], "again");
    let seen = text_of(&client.call(1, "seen", json!({})));
    assert_eq!(seen.matches("\"initialize\"").count(), 1, "{seen}");
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn two_initializes_at_once_start_one_child() {
    let bridge = start(&[], &["hostile", "slow_init", "200"]);
    let mut client = Client::open(&bridge);
    let begun: Vec<support::http::Connection> = (0..5)
        .map(|id| {
            let mut connection = support::http::Connection::open(bridge.address);
            let request = Request::post(&client.endpoint, initialize(id, "2024-11-05").to_string());
            connection.write(&request.to_bytes("localhost"));
            connection
        })
        .collect();
    let mut statuses: Vec<u16> = begun.into_iter().map(|connection| connection.response().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 400, 400, 400, 400]);
    assert_eq!(client.message()["result"]["serverInfo"]["name"], "hostile");
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn an_initialize_whose_client_left_while_it_waited_for_a_seat_may_be_repeated() {
    let bridge = start(&["--max-sessions", "1"], &["hostile", "slow_exit", "1500"]);
    drop(Client::connect(&bridge));
    let mut client = Client::open(&bridge);
    let mut waiting = support::http::Connection::open(bridge.address);
    let request = Request::post(&client.endpoint, initialize("left", "2024-11-05").to_string());
    waiting.write(&request.to_bytes("localhost"));
    std::thread::sleep(Duration::from_millis(300));
    drop(waiting);
    within(Duration::from_secs(6), "a session begins", || {
        let again = client.send(initialize("again", "2024-11-05").to_string());
        again.status == 202 || !client.stream.is_silent_for(Duration::from_millis(50))
    });
    assert_eq!(client.message()["result"]["serverInfo"]["name"], "hostile");
}

#[test]
fn a_message_before_initialize_is_400_and_starts_no_child() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::open(&bridge);
    for body in [PING, INITIALIZED, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#] {
        assert_refused(&mut client.send(body), 400, "invalid_request");
    }
    assert_eq!(bridge.processes(), []);
    client.post(initialize(0, "2024-11-05").to_string());
    assert_eq!(client.message()["id"], 0, "the stream is unharmed");
}

#[test]
fn a_place_that_no_stream_has_is_404() {
    let bridge = start(&[], &["notebook"]);
    let client = Client::connect(&bridge);
    let id = client.endpoint.split_once('=').unwrap().1;
    for path in [
        "/message".to_owned(),
        "/message?".to_owned(),
        "/message?sessionId=".to_owned(),
        "/message?sessionId=unknown".to_owned(),
        "/message?sessionId=%00".to_owned(),
        format!("/message?sessionId={}", &id[1..]),
        format!("/message?sessionid={id}"),
        format!("/message?session={id}"),
        format!("/message?sessionId={id}x"),
    ] {
        let mut response = bridge.send(Request::post(&path, PING));
        assert!(response.status == 404, "{path}: {}", response.status);
        assert_eq!(assert_refused(&mut response, 404, "session_not_found")["id"], Value::Null);
    }
    client.post(PING);
}

#[test]
fn what_is_no_message_is_400_and_the_stream_goes_on() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    for (body, token) in [
        ("", "parse_error"),
        ("{", "parse_error"),
        ("{}", "invalid_request"),
        ("[]", "invalid_request"),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "invalid_request"),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "invalid_request"),
        (r#"{"jsonrpc":"2.0","id":99,"result":{}}"#, "unknown_response"),
    ] {
        let mut response = client.send(body);
        assert!(response.status == 400, "{body}: {}", response.status);
        assert_refused(&mut response, 400, token);
    }
    assert_eq!(text_of(&client.call(1, "list_notes", json!({}))), "no notes yet");
}

#[test]
fn an_id_in_flight_twice_gets_one_refusal_and_one_answer() {
    let bridge = start(&[], &["notebook"]);
    let mut client = Client::connect(&bridge);
    client.post(tool_call(1, "slow", json!({ "seconds": 0.3 })).to_string());
    let mut again = client.send(PING);
    let refusal = match again.status {
        202 => client.message(),
        _ => assert_refused(&mut again, 400, "duplicate_id"),
    };
    assert_eq!((&refusal["id"], reason(&refusal)), (&json!(1), "duplicate_id"));
    assert_eq!(text_of(&client.message()), "waited 0.3 s");
}

#[test]
fn a_body_of_another_type_or_size_is_refused() {
    let bridge = start(&["--max-body", "1KiB"], &["notebook"]);
    let client = Client::open(&bridge);
    let request = Request::post(&client.endpoint, PING).with("Content-Type", "text/plain");
    assert_refused(&mut bridge.send(request), 415, "unsupported_media_type");
    assert_refused(&mut client.send("x".repeat(2000)), 413, "payload_too_large");
}

#[test]
fn a_foreign_origin_or_host_is_403_on_both_paths() {
    let bridge = start(&[], &["notebook"]);
    let client = Client::connect(&bridge);
    for request in
        [Request::listen("/sse"), Request::post(&client.endpoint, PING), Request::new("OPTIONS", "/sse")]
    {
        for origin in ["https://evil.example", "null"] {
            let mut response = bridge.send(request.clone().header("Origin", origin));
            assert_refused(&mut response, 403, "origin_forbidden");
            assert_eq!(response.header("access-control-allow-origin"), None);
        }
        assert_refused(&mut bridge.send(request.header("Host", "evil.example")), 403, "host_forbidden");
    }
}

#[test]
fn a_page_of_an_allowed_origin_may_use_both_paths() {
    let bridge = start(&["--allow-origin", "https://app.example"], &["notebook"]);
    let client = Client::connect(&bridge);
    for (status, request) in [
        (200, Request::listen("/sse")),
        (202, Request::post(&client.endpoint, PING)),
        (204, Request::new("OPTIONS", "/sse").header("Access-Control-Request-Method", "GET")),
        (204, Request::new("OPTIONS", "/message").header("Access-Control-Request-Method", "POST")),
    ] {
        let response = bridge.send(request.header("Origin", "https://app.example"));
        assert_eq!(response.status, status);
        assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    }
}

#[test]
fn other_methods_are_405_and_name_those_allowed() {
    let bridge = start(&[], &["notebook"]);
    // A client that tries Streamable HTTP first learns from this that it must open the stream.
    for (method, path, allowed) in [
        ("POST", "/sse", "GET"),
        ("DELETE", "/sse", "GET"),
        ("GET", "/message", "POST"),
        ("DELETE", "/message", "POST"),
    ] {
        let response = bridge.send(Request::new(method, path).header("Accept", "*/*"));
        assert_eq!(response.status, 405, "{method} {path}");
        assert!(response.header("allow").is_some_and(|allow| allow.contains(allowed)), "{method} {path}");
    }
}

#[test]
fn a_stream_needs_a_client_that_takes_one() {
    let bridge = start(&[], &["notebook"]);
    let request = Request::new("GET", "/sse").header("Accept", "application/json");
    assert_refused(&mut bridge.send(request), 406, "not_acceptable");
}

#[test]
fn one_session_too_many_is_503_and_the_stream_may_try_again() {
    let bridge = start(&["--max-sessions", "1"], &["notebook"]);
    let first = Client::connect(&bridge);
    let mut second = Client::open(&bridge);
    let mut refused = second.send(initialize(0, "2024-11-05").to_string());
    assert!(refused.header("retry-after").is_some());
    assert_refused(&mut refused, 503, "too_many_sessions");
    drop(first);
    eventually("there is room again", || second.send(initialize(0, "2024-11-05").to_string()).status == 202);
    assert_eq!(second.message()["id"], 0);
}

/// Whether the bridge makes it wait or ends its stream: what it does not read is not kept without end.
#[test]
fn a_client_that_posts_and_does_not_read_costs_no_memory() {
    let bridge = start(&[], &["notebook"]);
    let client = Client::connect(&bridge);
    let before = support::proc::peak_memory(bridge.pid());
    let text = "x".repeat(150_000);
    let mut answered = 0;
    for id in 1..=400_u64 {
        let body = tool_call(id, "echo", json!({ "text": text })).to_string();
        let mut socket = TcpStream::connect(bridge.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.write_all(&Request::post(&client.endpoint, body).to_bytes("localhost")).unwrap();
        let mut status = [0; 12];
        if socket.read_exact(&mut status).is_err() || !status.ends_with(b"202") {
            break;
        }
        answered += 1;
    }
    let grown = (support::proc::peak_memory(bridge.pid()) - before) >> 20;
    assert!(grown < 40, "{grown} MiB for {answered} answers of 150 KB that nobody reads");
}

#[test]
fn streams_that_close_at_once_leave_nothing_behind() {
    let bridge = start(&[], &["notebook"]);
    let open_and_close = |count: usize| {
        for _ in 0..count {
            drop(Client::open(&bridge));
        }
    };
    open_and_close(200);
    let before = support::proc::resident_memory(bridge.pid());
    open_and_close(6_000);
    let grown = support::proc::resident_memory(bridge.pid()).saturating_sub(before) >> 10;
    assert!(grown < 1024, "{grown} KiB for streams that are no more");
}
