//! The time limits of a connection, one by one: whoever is slow on purpose is let go, whoever works is not.
//!
//! In each test one limit is short and the others are an hour, so that no other one can have ended the connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::h2::{ACK, DATA, END_HEADERS, Frame, HEADERS, Http2, PING, PREFACE};
use crate::support::http::Connection;
use crate::support::{
    Bridge, PATIENCE, Request, Session, assert_refused, eventually, json, reason, text_of, tool_call,
};

const PING_REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// Long enough that a test can do something before, short enough to wait for.
const SHORT: Duration = Duration::from_millis(500);

const HEADER: &str = "--header-timeout";
const BODY: &str = "--body-timeout";
const IDLE: &str = "--connection-idle-timeout";

/// A bridge for which this limit is short.
fn start(short: &str) -> Bridge {
    start_with(&[short], &["notebook"])
}

fn start_with(short: &[&str], command: &[&str]) -> Bridge {
    let mut options = vec!["--lazy", "--sse-after", "20ms"];
    for limit in [HEADER, BODY, IDLE] {
        options.extend([limit, if short.contains(&limit) { "500ms" } else { "1h" }]);
    }
    Bridge::start(&options, command)
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Sends `first`, then `drop` again and again, until the other side ends the connection; what it said before.
#[track_caller]
fn dribble(socket: &mut TcpStream, first: &[u8], drop: &[u8]) -> String {
    let _ = socket.write_all(first);
    // Reading is the pause between two drops.
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (deadline, mut said) = (Instant::now() + PATIENCE, Vec::new());
    loop {
        let mut buffer = [0; 4096];
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => said.extend(&buffer[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let _ = socket.write_all(drop);
            }
            Err(_) => break, // reset: it closed with a drop unread
        }
        assert!(Instant::now() < deadline, "the connection is ended; it said {:?}", String::from_utf8(said));
    }
    String::from_utf8(said).unwrap()
}

/// Waits for the end of the connection, without a word before it.
#[track_caller]
fn assert_ended_in_silence(bridge: &Bridge, first: &[u8], drop: &[u8]) {
    let began = Instant::now();
    assert_eq!(dribble(&mut connect(bridge.address), first, drop), "", "nobody is there to read a word");
    assert!(began.elapsed() >= SHORT, "not before its time: {:?}", began.elapsed());
}

/// The head of a POST that announces a body, and perhaps a part of that.
fn post(bridge: &Bridge, framing: &str, part: &str) -> Vec<u8> {
    let host = bridge.address;
    let head =
        format!("POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{framing}\r\n");
    format!("{head}\r\n{part}").into_bytes()
}

// ---------------------------------------------------------------------------------------------- too slow

#[test]
fn a_connection_that_says_nothing_is_ended() {
    let bridge = start(HEADER);
    assert_ended_in_silence(&bridge, b"", b"");
}

#[test]
fn a_connection_that_stops_within_the_preface_of_http_2_is_ended() {
    let bridge = start(HEADER);
    assert_ended_in_silence(&bridge, b"PRI", b"");
    assert_ended_in_silence(&bridge, &PREFACE[..PREFACE.len() - 1], b"");
}

#[test]
fn a_head_that_comes_drop_by_drop_is_ended() {
    let bridge = start(HEADER);
    let head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: ";
    assert_ended_in_silence(&bridge, head, b"y");
    assert_ended_in_silence(&bridge, head, b"y\r\nX: ");
    assert_ended_in_silence(&bridge, b"G", b"");
}

#[test]
fn a_second_head_has_no_more_time_than_the_first() {
    let bridge = start(HEADER);
    let mut socket = connect(bridge.address);
    let whole = Request::new("OPTIONS", "/mcp").to_bytes("localhost");
    let said = dribble(&mut socket, &whole, b"X");
    assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    assert!(said.starts_with("HTTP/1.1 204"), "{said}");
}

/// What one client sends: pieces, with a pause before each but the first.
fn in_pieces(bridge: &Bridge, pieces: &[&[u8]]) -> TcpStream {
    let mut socket = connect(bridge.address);
    for (place, piece) in pieces.iter().enumerate() {
        if place > 0 {
            thread::sleep(SHORT / 2);
        }
        socket.write_all(piece).unwrap();
    }
    socket
}

/// Requests as a client may send them, by name: none of them leaves a head half sent.
fn whole_requests(session: &Session) -> Vec<(&'static str, Vec<u8>)> {
    let options = Request::new("OPTIONS", "/mcp").to_bytes("localhost");
    let ping = session.headers(Request::post("/mcp", PING_REQUEST)).to_bytes("localhost");
    let call = tool_call(1, "slow", json!({ "seconds": 0.8 })).to_string();
    let chunk = format!("{:x}\r\n{PING_REQUEST}\r\n0\r\n", PING_REQUEST.len()).into_bytes();
    vec![
        ("one", options.clone()),
        ("two at once", [&*options, &*options].concat()),
        ("a call", session.headers(Request::post("/mcp", call)).to_bytes("localhost")),
        ("a body", ping.clone()),
        ("two bodies", [&*ping, &*options, &*ping].concat()),
        ("a body in chunks", [&*chunked(session), &*chunk, b"\r\n"].concat()),
        ("a body with a trailer", [&*chunked(session), &*chunk, b"X: y\r\n\r\n"].concat()),
        ("refused", Request::new("PUT", "/mcp").to_bytes("localhost")),
        (
            "refused with its body",
            Request::post("/mcp", "{}").header("Mcp-Session-Id", "no").to_bytes("localhost"),
        ),
    ]
}

/// hyper has them, but this request is not complete for all that.
#[test]
fn a_head_that_begins_before_the_answer_to_the_one_before_has_no_more_time_than_any() {
    let bridge = start(HEADER);
    let session = bridge.session();
    thread::scope(|scope| {
        for (name, request) in whole_requests(&session) {
            for part in [&b"G"[..], b"GET /healthz HTTP/1.1\r\nHo", b"POST /mcp HTTP/1.1\r\nHost: a\r\n"] {
                let (bridge, sent) = (&bridge, [&*request, part].concat());
                scope.spawn(move || {
                    let began = Instant::now();
                    let mut socket = in_pieces(bridge, &[&sent]);
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    let ended = socket.read_to_end(&mut Vec::new());
                    assert!(ended.is_ok(), "{name}: it is ended: {ended:?}");
                    assert!(began.elapsed() >= SHORT, "{name}: not before its time");
                });
            }
        }
    });
    let call = tool_call(9, "slow", json!({ "seconds": 1 })).to_string();
    let call = session.headers(Request::post("/mcp", call)).to_bytes("localhost");
    let mut during = in_pieces(&bridge, &[&call, b"GET /healthz HT"]);
    during.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(during.read_to_end(&mut Vec::new()).is_ok(), "sent during a call: it is ended");
}

#[test]
fn a_connection_without_half_a_head_may_idle_whatever_it_carried() {
    let bridge = start(HEADER);
    let session = bridge.session();
    let options = Request::new("OPTIONS", "/mcp").to_bytes("localhost");
    thread::scope(|scope| {
        for (name, request) in whole_requests(&session) {
            let (bridge, options) = (&bridge, &options);
            scope.spawn(move || {
                let (head, rest) = request.split_at(request.len() - 1);
                for pieces in [&[&*request][..], &[head, rest]] {
                    // Some refusals end the connection where the body is not there yet.
                    if name.starts_with("refused") && pieces.len() > 1 {
                        continue;
                    }
                    let mut socket = in_pieces(bridge, pieces);
                    socket.set_read_timeout(Some(SHORT * 4)).unwrap();
                    let mut said = Vec::new();
                    let silent = socket.read_to_end(&mut said).is_err();
                    assert!(silent, "{name}: it goes on: {}", String::from_utf8_lossy(&said));
                    socket.write_all(options).unwrap();
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                    let length = socket.read(&mut [0; 4096]).unwrap();
                    assert_ne!(length, 0, "{name}: and is served");
                }
            });
        }
    });
}

/// The bytes that begin it are read with the request before it, and nothing may come after them.
#[test]
fn a_body_that_comes_drop_by_drop_is_408_and_the_end() {
    let bridge = start(BODY);
    let session = bridge.session();
    let named = format!("Mcp-Session-Id: {}\r\n", session.id);
    let cases = [
        (format!("{named}Content-Length: 100000"), "{", " "),
        (format!("{named}Transfer-Encoding: chunked"), "1\r\n{\r\n", "1\r\n \r\n"),
        (format!("{named}Transfer-Encoding: chunked"), "1;", "a"),
        ("Content-Length: 100000".to_owned(), "{", " "),
        ("Content-Length: 100000".to_owned(), "", ""),
    ];
    for (framing, part, drop) in cases {
        let began = Instant::now();
        let said = dribble(&mut connect(bridge.address), &post(&bridge, &framing, part), drop.as_bytes());
        assert!(said.starts_with("HTTP/1.1 408"), "{framing} {part:?}: {said:?}");
        assert!(said.to_lowercase().contains("mcp-bridge-error: request_timeout"), "{framing}: {said}");
        assert!(said.contains(BODY), "the cure is named: {said}");
        assert!(began.elapsed() >= SHORT, "not before its time: {:?}", began.elapsed());
    }
    assert_eq!(bridge.processes().len(), 1, "half an initialize starts nothing");
    session.ping().expect(200, "the session is unharmed");
}

#[test]
fn a_body_that_comes_drop_by_drop_over_http_2_is_408_and_its_neighbours_go_on() {
    let bridge = start(BODY);
    let session = bridge.session();
    let fields = [("content-type", "application/json"), ("mcp-session-id", &*session.id)];
    let mut client = Http2::open(bridge.address);
    let head = client.head("POST", "/mcp", &fields);
    let slow = client.new_stream();
    client.send(HEADERS, END_HEADERS, slow, &head);
    client.send(DATA, 0, slow, b"{");
    let (status, body) = client.answer(slow);
    assert_eq!(status, 408, "{body}");
    assert!(body.contains("request_timeout"), "{body}");
    let next = client.request("POST", "/mcp", &fields, Some(PING_REQUEST.as_bytes()));
    assert_eq!(client.answer(next).0, 200);
}

/// Nobody wants its body, so no limit is needed to get rid of it.
#[test]
fn a_refused_request_whose_body_does_not_come_holds_no_connection() {
    let bridge = start_with(&[], &["notebook"]);
    let body = "Content-Length: 100000";
    let cases = [
        (404, post(&bridge, &format!("Mcp-Session-Id: unknown\r\n{body}"), "{")),
        (403, post(&bridge, &format!("Origin: https://evil.example\r\n{body}"), "{")),
        (413, post(&bridge, "Content-Length: 99999999", "{")),
    ];
    for (status, request) in cases {
        let said = dribble(&mut connect(bridge.address), &request, b" ");
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
    }
}

#[test]
fn a_connection_that_idles_after_a_request_is_ended() {
    let bridge = start(IDLE);
    let began = Instant::now();
    let said =
        dribble(&mut connect(bridge.address), &Request::new("OPTIONS", "/mcp").to_bytes("localhost"), b"");
    assert!(said.starts_with("HTTP/1.1 204"), "{said}");
    assert!(began.elapsed() >= SHORT, "not before its time: {:?}", began.elapsed());
}

#[test]
fn an_http_2_connection_that_idles_is_ended_although_its_peer_is_alive() {
    let bridge = start(IDLE);
    let mut client = Http2::open(bridge.address);
    let stream = client.request("OPTIONS", "/mcp", &[], None);
    assert_eq!(client.answer(stream).0, 204);
    while client.polite_frame().is_some() {}
}

/// Such a peer is gone, or keeps a connection for nothing: it is asked whether it lives, and has a while to say so.
#[test]
fn an_http_2_peer_that_is_silent_is_asked_and_then_given_up() {
    const LIMIT: Duration = Duration::from_secs(70);
    let bridge = Bridge::start(&["--lazy", HEADER, "2s"], &["notebook"]);
    let open = |more: &[u8]| {
        let mut client = Http2::open(bridge.address);
        client.patience(LIMIT);
        client.write(more);
        client
    };
    let mut alive = open(b"");
    let ended = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&ended);
    let alive = thread::spawn(move || {
        while alive.polite_frame().expect("whoever answers stays").kind != PING {}
        while !stop.load(Ordering::Relaxed) {
            let stream = alive.request("OPTIONS", "/mcp", &[], None);
            assert_eq!(alive.answer(stream).0, 204, "whoever answers is served");
            thread::sleep(Duration::from_millis(100));
        }
    });
    let half_a_head = Frame::bytes(HEADERS, 0, 1, &[0, 1, b'x', 1, b'y']);
    for (name, client) in
        [("silent", open(b"")), ("half a head", open(&half_a_head)), ("half a frame", open(b"\0\0"))]
            .map(|(name, client)| (name, client.drain()))
    {
        let frames = client.join();
        let asked = frames.iter().any(|frame| frame.kind == PING && frame.flags & ACK == 0);
        assert!(asked || name != "silent", "{name}: it is asked first: {frames:?}");
    }
    ended.store(true, Ordering::Relaxed);
    alive.join().expect("whoever answers stays");
}

// ---------------------------------------------------------------------------------------------- slow, but at work

#[test]
fn a_body_may_take_longer_than_a_head() {
    let bridge = start_with(&[HEADER, IDLE], &["notebook"]);
    let session = bridge.session();
    let request = session.headers(Request::post("/mcp", PING_REQUEST)).to_bytes("localhost");
    let (head, body) = request.split_at(request.len() - PING_REQUEST.len());
    let mut connection = Connection::open(bridge.address);
    connection.write(head);
    for byte in body {
        thread::sleep(SHORT / 20);
        connection.write(&[*byte]);
    }
    assert_eq!(connection.response().answer()["result"], json!({}));
}

#[test]
fn a_connection_may_idle_longer_than_a_head_takes() {
    let bridge = start_with(&[HEADER, BODY], &["notebook"]);
    let session = bridge.session();
    let request = session.headers(Request::post("/mcp", PING_REQUEST)).to_bytes("localhost");
    let mut connection = Connection::open(bridge.address);
    let mut http2 = Http2::open(bridge.address);
    for _ in 0..2 {
        connection.write(&request);
        let mut response = connection.response();
        assert_eq!(response.answer()["result"], json!({}));
        connection = response.into_connection();
        let stream = http2.request("OPTIONS", "/mcp", &[], None);
        assert_eq!(http2.answer(stream).0, 204);
        http2.stay(SHORT * 3);
    }
}

#[test]
fn an_answer_may_take_longer_than_all_limits() {
    let bridge = start_with(&[HEADER, BODY, IDLE], &["notebook"]);
    let session = bridge.session();
    let call = |id: u32| tool_call(id, "slow", json!({ "seconds": 2 })).to_string();
    let (mut stream, mut plain) = (Connection::open(bridge.address), Connection::open(bridge.address));
    for (id, connection, accept) in
        [(1, &mut stream, "text/event-stream"), (2, &mut plain, "application/json")]
    {
        let request = session.headers(Request::post("/mcp", call(id))).with("Accept", accept);
        connection.write(&request.to_bytes("localhost"));
    }
    let mut http2 = Http2::open(bridge.address);
    let fields = [("content-type", "application/json"), ("mcp-session-id", &*session.id)];
    let third = http2.request("POST", "/mcp", &fields, Some(call(3).as_bytes()));
    let (status, body) = http2.answer(third);
    assert!(status == 200 && body.contains("waited 2 s"), "{status} {body}");
    assert_eq!(text_of(&stream.response().answer()), "waited 2 s");
    assert_eq!(text_of(&plain.response().json()), "waited 2 s");
}

#[test]
fn a_listener_may_hear_nothing_for_longer_than_all_limits() {
    let bridge = start_with(&[HEADER, BODY, IDLE], &["notebook"]);
    let session = bridge.session();
    let mut listening = session.listen();
    assert!(listening.is_silent_for(SHORT * 3));
    session.text("add_note", json!({ "title": "a", "text": "b" }));
    assert_eq!(listening.message()["method"], "notifications/resources/list_changed");
}

#[test]
fn the_time_of_an_answer_is_no_idle_time() {
    let options = ["--sse-after", "20ms", IDLE, "3s"];
    let bridge = Bridge::start(&options, &["notebook"]);
    let session = bridge.session();
    let mut connection = Connection::open(bridge.address);
    let call = tool_call(1, "slow", json!({ "seconds": 4 })).to_string();
    for body in [&*call, PING_REQUEST] {
        connection.write(&session.headers(Request::post("/mcp", body)).to_bytes("localhost"));
        let mut response = connection.response();
        assert!(response.answer().get("result").is_some());
        connection = response.into_connection();
    }
}

// ---------------------------------------------------------------------------------------------- what waits

/// The head of a POST to a session whose body comes in chunks.
fn chunked(session: &Session) -> Vec<u8> {
    let request = session.headers(Request::post("/mcp", "")).without("Content-Length");
    request.with("Transfer-Encoding", "chunked").to_bytes("localhost")
}

fn chunk(length: usize) -> Vec<u8> {
    format!("{length:x}\r\n{}\r\n", " ".repeat(length)).into_bytes()
}

#[test]
fn a_slow_body_of_unknown_length_holds_up_no_other_of_its_session() {
    let bridge = start_with(&[], &["notebook"]);
    let session = bridge.session();
    let mut slow = Connection::open(bridge.address);
    slow.write(&chunked(&session));
    slow.write(&chunk(200_000));
    let text = "x".repeat(1 << 20);
    assert_eq!(session.text("echo", json!({ "text": text })), text);
    let call = tool_call(7, "echo", json!({ "text": "slow" })).to_string();
    slow.write(format!("{:x}\r\n{call}\r\n0\r\n\r\n", call.len()).as_bytes());
    assert_eq!(text_of(&slow.response().answer()), "slow", "and is served when it comes to its end");
}

#[test]
fn bodies_of_unknown_length_that_fill_the_memory_together_are_all_served() {
    let bridge = Bridge::start(&["--max-body", "4MiB"], &["notebook"]);
    let session = bridge.session();
    let mut growing: Vec<_> = (0..6).map(|_| Connection::open(bridge.address)).collect();
    for connection in &mut growing {
        connection.write(&chunked(&session));
    }
    thread::scope(|scope| {
        for (id, mut connection) in growing.into_iter().enumerate() {
            scope.spawn(move || {
                for _ in 0..30 {
                    connection.write(&chunk(100_000));
                }
                let call = tool_call(id, "echo", json!({ "text": "a" })).to_string();
                connection.write(format!("{:x}\r\n{call}\r\n0\r\n\r\n", call.len()).as_bytes());
                assert_eq!(text_of(&connection.response().answer()), "a");
            });
        }
    });
}

/// A session whose child reads nothing, with so many calls that no other body has room.
fn overfull(request_timeout: &str) -> (Bridge, Session, Vec<Connection>) {
    let options = [BODY, "500ms", "--request-timeout", request_timeout, "--max-body", "4MiB", "--lazy"];
    let bridge = Bridge::start(&options, &["hostile", "deaf"]);
    let session = bridge.session();
    let text = "x".repeat(700_000);
    let calls =
        (100..120).map(|id| session.begin(tool_call(id, "echo", json!({ "text": text })).to_string()));
    let calls = calls.collect();
    thread::sleep(SHORT);
    (bridge, session, calls)
}

#[test]
fn the_time_for_which_a_body_waits_for_memory_is_not_its_clients() {
    let (bridge, session, _calls) = overfull("3s");
    let call = tool_call(1, "echo", json!({ "text": "a" })).to_string();
    let mut neighbour = Connection::open(bridge.address);
    neighbour.write(&chunked(&session));
    neighbour.write(&chunk(300_000));
    neighbour.write(format!("{:x}\r\n{call}\r\n0\r\n\r\n", call.len()).as_bytes());
    let mut response = neighbour.response();
    let status = response.status;
    assert_ne!(status, 408, "it was not slow: {}", response.text());
}

#[test]
fn each_call_to_a_child_that_reads_nothing_has_one_answer_by_its_deadline() {
    let limit = Duration::from_secs(3);
    let bridge = Bridge::start(&["--request-timeout", "3s"], &["hostile", "deaf"]);
    let session = bridge.session();
    let text = "x".repeat(700_000);
    let began = Instant::now();
    thread::scope(|scope| {
        for id in 0..40 {
            let (session, text) = (&session, &text);
            scope.spawn(move || {
                let call = tool_call(id, "echo", json!({ "text": text })).to_string();
                let mut response = session.begin(call).response();
                // Without memory for its body its id is not known.
                if response.status == 503 {
                    assert_refused(&mut response, 503, "not_forwarded");
                    return;
                }
                let answer = response.answer();
                assert_eq!((&answer["id"], reason(&answer)), (&json!(id), "request_timeout"));
            });
        }
    });
    let took = began.elapsed();
    assert!(took >= limit && took < limit + PATIENCE / 2, "{took:?}");
}

#[test]
fn a_body_for_which_there_is_no_memory_by_its_deadline_is_503_and_may_be_sent_again() {
    let options = [BODY, "1h", "--request-timeout", "1s", "--lazy"];
    let bridge = Bridge::start(&options, &["notebook"]);
    let session = bridge.session();
    let announced = session.headers(Request::post("/mcp", "")).with("Content-Length", "1000000");
    let unfinished = [announced.to_bytes("localhost"), vec![b' '; 100_000]].concat();
    let mut uploads: Vec<_> = (0..16).map(|_| Connection::open(bridge.address)).collect();
    uploads.iter_mut().for_each(|connection| connection.write(&unfinished));
    let call = tool_call(1, "echo", json!({ "text": "x".repeat(200_000) })).to_string();
    let refused = || {
        let mut response = session.post(&call);
        (response.status == 503).then(|| {
            assert!(response.header("retry-after").is_some(), "nothing has happened");
            let refusal = assert_refused(&mut response, 503, "not_forwarded");
            let message = refusal["error"]["message"].to_string();
            assert!(message.contains("--request-timeout"), "the cure is named: {message}");
        })
    };
    eventually("the uploads have all turns", || refused().is_some());
    drop(uploads);
    eventually("the same call is served", || refused().is_none());
}

#[test]
fn a_body_that_comes_steadily_may_take_longer_than_it_may_stand_still() {
    let bridge = start(BODY);
    let session = bridge.session();
    let text = "x".repeat(1 << 20);
    let call = tool_call(1, "echo", json!({ "text": text })).to_string();
    let request = session.headers(Request::post("/mcp", &call)).to_bytes("localhost");
    let mut connection = Connection::open(bridge.address);
    let began = Instant::now();
    for part in request.chunks(20 * 1024) {
        connection.write(part); // 400 KiB/s
        thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() > SHORT * 4, "{:?}", began.elapsed());
    assert_eq!(text_of(&connection.response().answer()).len(), text.len());
}

#[test]
fn a_body_that_never_stands_still_and_is_too_slow_all_the_same_is_408() {
    let bridge = start(BODY);
    let session = bridge.session();
    let request = session.headers(Request::post("/mcp", "")).with("Content-Length", "1000000");
    let said = dribble(&mut connect(bridge.address), &request.to_bytes("localhost"), &[b' '; 200]); // 10 KB/s
    assert!(said.starts_with("HTTP/1.1 408"), "{said:?}");
    let sid = format!("sid=\"{}\"", &session.id[..8]);
    bridge.logged("who was slow", |line| line.contains("http.slow_body") && line.contains(&sid));
}
