//! Clients that do not read what they asked for: it costs no memory, and it is at their own expense.

use std::thread;
use std::time::{Duration, Instant};

use crate::h2::{END_HEADERS, END_STREAM, Frame, HEADERS, Http2, SETTINGS, WINDOW_UPDATE};
use crate::support::http::Connection;
use crate::support::{Bridge, Request, Session, Value, eventually, json, proc, text_of, tool_call, within};

const MIB: u64 = 1 << 20;

/// What the answers to a call of `hostile huge` are long.
const LONG: usize = 1_000_000;

/// How many of them are asked for. Together they are far beyond [`SLACK`].
const MANY: u64 = 32;

/// What may lie in memory for one session: 4 MiB, a message or two on their way, and as much for the bridge itself.
const SLACK: u64 = 24 * MIB;

/// Settings whose streams may each be sent so many bytes.
fn window(bytes: u32) -> Vec<u8> {
    Frame::bytes(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat())
}

fn start(options: &[&str]) -> Bridge {
    Bridge::start(options, &["hostile", "huge", &LONG.to_string()])
}

/// A session of the revision that has batches.
fn batching(bridge: &Bridge) -> Session {
    let session = bridge.initialize_as("2025-03-26");
    session.notify("notifications/initialized", json!({}));
    session
}

fn batch(count: u64) -> String {
    Value::from_iter((1..=count).map(|id| tool_call(id, "echo", json!({})))).to_string()
}

fn begin(session: &Session, accept: &str, body: &str) -> Connection {
    let request = session.headers(Request::post("/mcp", body)).with("Accept", accept);
    let mut connection = Connection::open(session.address);
    connection.write(&request.to_bytes("localhost"));
    connection
}

#[track_caller]
fn assert_bounded(bridge: &Bridge, claim: &str) {
    let peak = proc::peak_memory(bridge.pid());
    assert!(peak < SLACK, "{claim}: {} MiB", peak / MIB);
}

#[track_caller]
fn cut(bridge: &Bridge) {
    bridge.logged("that a client does not read", |line| line.contains("stream.cut"));
}

/// The session goes on behind all that was asked for and not read.
#[track_caller]
fn assert_goes_on(session: &Session) {
    let begun = Instant::now();
    assert_eq!(session.seen_count("initialize"), 1);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn answers_that_are_not_read_stop_their_own_child_and_fill_no_memory() {
    let bridge = start(&[]);
    let session = bridge.session();
    let unread: Vec<_> =
        (0..MANY).map(|id| session.begin(tool_call(id, "echo", json!({})).to_string())).collect();
    cut(&bridge);
    assert_goes_on(&session);
    assert_bounded(&bridge, "answers over HTTP/1");
    drop(unread);
}

#[test]
fn answers_that_are_not_read_on_one_http_2_connection_fill_no_memory() {
    for bytes in [0, 1, 1 << 30] {
        let bridge = start(&[]);
        let session = bridge.session();
        let mut client = Http2::open(bridge.address);
        client.write(&window(bytes));
        client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        let fields = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-session-id", &session.id),
        ];
        for id in 0..MANY {
            let call = tool_call(id, "echo", json!({})).to_string();
            client.request("POST", "/mcp", &fields, Some(call.as_bytes()));
        }
        cut(&bridge);
        assert_goes_on(&session);
        assert_bounded(&bridge, &format!("answers over HTTP/2 with windows of {bytes}"));
    }
}

#[test]
fn events_that_are_not_read_fill_no_memory_when_their_streams_have_ended() {
    let bridge = start(&["--sse-after", "0ms"]);
    let session = bridge.session();
    let accept = "text/event-stream";
    let unread: Vec<_> =
        (0..MANY).map(|id| begin(&session, accept, &tool_call(id, "echo", json!({})).to_string())).collect();
    cut(&bridge);
    assert_goes_on(&session);
    assert_bounded(&bridge, "answers as events");
    drop(unread);
}

#[test]
fn the_merged_stream_of_the_old_transport_that_is_not_read_fills_no_memory() {
    let bridge = start(&["--sse-compat"]);
    let mut stream = bridge.send(Request::listen("/sse"));
    let endpoint = format!("/{}", stream.event().unwrap().data.unwrap()); // relative to /sse
    let post = |body: String| bridge.send(Request::post(&endpoint, body)).expect(202, "it is accepted");
    post(crate::support::initialize(0, "2024-11-05").to_string());
    assert_eq!(stream.message()["id"], 0);
    post(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
    // They wait for one another: the stream takes a few at a time.
    let unread: Vec<_> = (1..=MANY)
        .map(|id| {
            let mut connection = Connection::open(bridge.address);
            let call = tool_call(id, "echo", json!({})).to_string();
            connection.write(&Request::post(&endpoint, call).to_bytes("localhost"));
            connection
        })
        .collect();
    cut(&bridge);
    assert_bounded(&bridge, "answers of the old transport");
    drop(unread);
}

#[test]
fn a_batch_that_is_not_read_is_not_collected() {
    for (accept, options) in
        [("application/json", &[][..]), ("application/json, text/event-stream", &["--sse-after", "20s"][..])]
    {
        let bridge = start(options);
        let session = batching(&bridge);
        let unread = begin(&session, accept, &batch(MANY));
        cut(&bridge);
        assert_goes_on(&session);
        assert_bounded(&bridge, accept);
        drop(unread);
    }
}

#[test]
fn a_long_batch_that_is_read_is_one_array_and_fills_no_memory() {
    let bridge = start(&[]);
    let session = batching(&bridge);
    let mut response = begin(&session, "application/json", &batch(MANY)).response();
    assert_eq!((response.status, response.header("content-length")), (200, None));
    let answers = response.json();
    let answers = answers.as_array().unwrap();
    let mut ids: Vec<_> = answers.iter().map(|answer| answer["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, Vec::from_iter(1..=MANY));
    assert!(answers.iter().all(|answer| text_of(answer).len() == LONG));
    assert_bounded(&bridge, "a batch");
}

#[test]
fn a_short_batch_is_whole_and_says_how_long_it_is() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = batching(&bridge);
    let mut response = begin(&session, "application/json", &batch(3)).response();
    let length: usize = response.header("content-length").expect("its length").parse().unwrap();
    let text = response.text();
    assert_eq!(text.len(), length);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().len(), 3);
}

#[test]
fn an_answer_that_is_cut_off_does_not_look_whole() {
    let bridge = start(&[]);
    let session = bridge.session();
    let unread: Vec<_> =
        (0..8).map(|id| session.begin(tool_call(id, "echo", json!({})).to_string())).collect();
    cut(&bridge);
    assert_goes_on(&session);
    let bodies = unread.into_iter().map(|connection| connection.response().try_bytes());
    let whole = bodies.filter(|body| body.as_ref().is_ok_and(|body| body.len() >= LONG)).count();
    assert!((1..8).contains(&whole), "{whole} of 8 answers are whole, the others break off");
}

#[test]
fn a_slow_client_that_goes_on_reading_gets_all_of_a_batch() {
    let bridge = start(&[]);
    let session = batching(&bridge);
    let mut response = begin(&session, "application/json", &batch(5)).response();
    let mut bytes = Vec::new();
    // About 3 MB/s, for longer than a client that takes nothing may do so.
    while let Some(piece) = response.next_piece() {
        bytes.extend(piece);
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap().as_array().unwrap().len(), 5);
    assert!(!bridge.log().iter().any(|line| line.contains("stream.cut")), "it went on reading");
}

#[test]
fn clients_of_a_shared_session_wait_only_a_while_for_one_that_does_not_read() {
    let bridge = start(&["--session-key", "shared"]);
    let ping = || {
        let body = json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" }).to_string();
        let mut response = bridge.send(Request::post("/mcp", body));
        response.expect(200, "a ping of another client");
        response.answer()
    };
    assert_eq!(ping()["result"], json!({}));
    let unread: Vec<_> = (0..12)
        .map(|id| {
            let mut connection = Connection::open(bridge.address);
            let call = tool_call(id, "echo", json!({})).to_string();
            connection.write(&Request::post("/mcp", call).to_bytes("localhost"));
            connection
        })
        .collect();
    within(Duration::from_secs(15), "others are answered", || ping()["result"] == json!({}));
    cut(&bridge);
    assert_bounded(&bridge, "a shared session");
    drop(unread);
}

#[test]
fn a_stream_that_another_one_took_over_at_once_is_empty_and_not_a_lost_session() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    for _ in 0..20 {
        let mut client = Http2::open(bridge.address);
        let fields = [("accept", "text/event-stream"), ("mcp-session-id", &*session.id)];
        let head = client.head("GET", "/mcp", &fields);
        let both = [1, 3].map(|stream| Frame::bytes(HEADERS, END_HEADERS | END_STREAM, stream, &head));
        client.write(&both.concat());
        assert_eq!(client.answer(1), (200, String::new()), "the older one was attached, and ends");
    }
    assert_eq!(session.ping().status, 200);
}

#[test]
fn streams_that_are_resumed_again_and_again_and_not_read_fill_no_memory() {
    const GETS: u32 = 100;
    let bridge = Bridge::start(&["--lazy"], &["hostile", "flood_stdout"]);
    let session = bridge.session();
    // Until the ring is full of what nobody has read.
    eventually("events are lost", || {
        session.text("echo", json!({ "text": "a" }));
        bridge.log().iter().any(|line| line.contains("stream.evicted"))
    });
    let before = proc::peak_memory(bridge.pid());
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Http2::open(bridge.address);
        client.write(&window(1 << 30));
        client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        let fields = [("accept", "text/event-stream"), ("mcp-session-id", &*session.id)];
        for _ in 0..GETS {
            client.request("GET", "/mcp", &fields, None);
        }
        clients.push(client);
    }
    assert_goes_on(&session);
    let grown = proc::peak_memory(bridge.pid()).saturating_sub(before);
    assert!(grown < SLACK, "{} MiB for {GETS} streams on each of 3 connections", grown / MIB);
}
