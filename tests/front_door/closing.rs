//! How connections end: an answer that comes before its request was read to the end arrives all the same, and whoever has
//! only nothing more to say has not left.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::http::Connection;
use crate::support::{
    Bridge, PATIENCE, Request, Scratch, Session, eventually, initialize, json, text_of, tool_call, within,
};

const MIB: usize = 1 << 20;

/// A socket that can be closed in one direction.
trait Stream: Read + Write + Send {
    fn end(&self);
    fn patient(self) -> Self
    where
        Self: Sized;
}

impl Stream for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn patient(self) -> Self {
        self.set_read_timeout(Some(PATIENCE)).unwrap();
        self
    }
}

impl Stream for UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    fn patient(self) -> Self {
        self.set_read_timeout(Some(PATIENCE)).unwrap();
        self
    }
}

fn tcp(bridge: &Bridge) -> TcpStream {
    TcpStream::connect(bridge.address).unwrap().patient()
}

/// All that comes. A reset is a failed test.
#[track_caller]
fn rest(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap_or_else(|error| panic!("{error} after {:?}", bytes.len()));
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_else(|| panic!("a status in {response:?}"))
}

/// Writes a request as many libraries do, which look for the answer only when they have written all; half-closed after
/// that or not.
#[track_caller]
fn answer(mut stream: impl Stream, request: &[u8], half_closed: bool) -> String {
    stream.write_all(request).expect("all of it is taken");
    if half_closed {
        stream.end();
    }
    rest(&mut stream)
}

/// The head of a POST, and 6 MiB of a body.
fn long(change: impl FnOnce(Request) -> Request) -> Vec<u8> {
    let post = Request::post("/mcp", "").with("Content-Length", &(6 * MIB).to_string());
    let mut bytes = change(post.header("Authorization", "Bearer a-token-of-a-test")).to_bytes("localhost");
    bytes.resize(bytes.len() + 6 * MIB, b' ');
    bytes
}

/// Requests that are refused for their heads, with the statuses.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let chunked = |post: Request| post.without("Content-Length").header("Transfer-Encoding", "chunked");
    let lost = |post: Request| post.header("Mcp-Session-Id", "6a1b0e6e52d24d8c8ab5c1a4b0d3e7f2");
    let mut chunks =
        chunked(lost(Request::post("/mcp", "")).header("Authorization", "Bearer a-token-of-a-test"))
            .to_bytes("localhost");
    for _ in 0..96 {
        chunks.extend_from_slice(b"10000\r\n");
        chunks.resize(chunks.len() + 0x10000, b' ');
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let get = Request::new("GET", "/mcp").header("Content-Length", &(6 * MIB).to_string());
    vec![
        ("404", long(lost)),
        ("404", chunks),
        ("400", long(|post| post.header("Mcp-Session-Id", "a").header("Mcp-Session-Id", "b"))),
        ("401", long(|post| post.without("Authorization"))),
        ("403", long(|post| post.header("Origin", "http://elsewhere.example"))),
        ("404", long(|_| Request::post("/elsewhere", "").with("Content-Length", &(6 * MIB).to_string()))),
        ("405", long(|_| get.header("Authorization", "Bearer a-token-of-a-test"))),
        ("406", long(|post| post.with("Accept", "text/plain"))),
        ("413", long(|post| post.with("Content-Length", "50000000"))),
        ("415", long(|post| post.with("Content-Type", "text/plain"))),
        ("417", long(|post| post.header("Expect", "something-else"))),
        (
            "400",
            [&b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n"[..], &[b' '; 6 * MIB]].concat(),
        ),
        ("431", [&b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nA: "[..], &[b'a'; 6 * MIB]].concat()),
    ]
}

/// A bridge that listens on a port and on a socket file, lets in who has the token, and has one child at most.
fn start(scratch: &Scratch, options: &[&str]) -> (Bridge, String) {
    let path = scratch.path("socket");
    let unix = format!("unix:{path}");
    let listen = ["--listen", &unix, "--lazy"];
    let bridge = Bridge::start_with(&[&listen, options].concat(), &["hostile", "good"], |bridge| {
        bridge.env("MCP_BRIDGE_TOKEN", "a-token-of-a-test");
    });
    (bridge, path)
}

#[test]
fn a_refusal_before_a_long_body_reaches_a_client_that_writes_all_of_it_first() {
    let scratch = Scratch::new();
    let (bridge, path) = start(&scratch, &[]);
    for (wanted, request) in refused() {
        for half_closed in [false, true] {
            // It has announced more than it sends, so that it is the one who ends.
            let half_closed = half_closed || wanted == "413" || wanted == "431";
            let mut responses = vec![answer(tcp(&bridge), &request, half_closed)];
            responses.push(answer(UnixStream::connect(&path).unwrap().patient(), &request, half_closed));
            for response in responses {
                assert_eq!(status(&response), wanted, "{response}");
                assert!(response.to_ascii_lowercase().contains("connection: close"), "{response}");
            }
        }
    }
    eventually("all connections are gone", || bridge.connections() == 0);
}

#[test]
fn a_refusal_reaches_a_client_that_sends_its_body_slowly() {
    let scratch = Scratch::new();
    let (bridge, _) = start(&scratch, &[]);
    let request = long(|post| post.header("Mcp-Session-Id", "6a1b0e6e52d24d8c8ab5c1a4b0d3e7f2"));
    let mut stream = tcp(&bridge);
    for piece in request.chunks(request.len() / 20) {
        stream.write_all(piece).expect("it is taken");
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(status(&rest(&mut stream)), "404");
}

#[test]
fn what_a_client_says_behind_a_refusal_is_not_read_as_a_request() {
    let scratch = Scratch::new();
    let (bridge, _) = start(&scratch, &[]);
    let mut request = long(|post| post.header("Mcp-Session-Id", "6a1b0e6e52d24d8c8ab5c1a4b0d3e7f2"));
    request.extend(Request::new("GET", "/healthz").to_bytes("localhost"));
    let responses = answer(tcp(&bridge), &request, false);
    assert_eq!(responses.matches("HTTP/1.1 ").count(), 1, "{responses}");
}

#[test]
fn a_short_body_of_a_refused_request_does_not_cost_the_connection() {
    let scratch = Scratch::new();
    let (bridge, _) = start(&scratch, &[]);
    let refused = Request::post("/mcp", "{}").header("Authorization", "Bearer a-token-of-a-test");
    let refused = refused.header("Mcp-Session-Id", "6a1b0e6e52d24d8c8ab5c1a4b0d3e7f2").to_bytes("localhost");
    let health = Request::new("GET", "/healthz").to_bytes("localhost");
    let responses = answer(tcp(&bridge), &[refused, health].concat(), true);
    assert_eq!(responses.matches("HTTP/1.1 ").count(), 2, "{responses}");
    assert!(!responses.to_ascii_lowercase().contains("connection: close"), "{responses}");
}

#[test]
fn a_body_that_comes_too_slowly_is_refused_with_408_that_arrives() {
    let scratch = Scratch::new();
    let (bridge, _) = start(&scratch, &["--body-timeout", "500ms"]);
    let mut stream = tcp(&bridge);
    let request = long(|post| post);
    stream.write_all(&request[..request.len() / 2]).unwrap();
    thread::sleep(Duration::from_millis(800));
    let sent = stream.write_all(&request[request.len() / 2..]);
    assert!(sent.is_ok(), "{sent:?}");
    assert_eq!(status(&rest(&mut stream)), "408");
}

#[test]
fn a_client_that_sends_for_ever_is_cut_off_and_one_that_is_silent_too() {
    let scratch = Scratch::new();
    let (bridge, _) = start(&scratch, &["--body-timeout", "2s", "--header-timeout", "1s"]);
    let head = long(|post| post.header("Mcp-Session-Id", "6a1b0e6e52d24d8c8ab5c1a4b0d3e7f2"));
    let mut silent = tcp(&bridge);
    silent.write_all(&head[..1000]).unwrap();
    let mut sender = tcp(&bridge);
    sender.write_all(&head).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while sender.write_all(&[b' '; 1000]).is_ok() {
        assert!(Instant::now() < deadline, "it is cut off");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status(&rest(&mut silent)), "404");
    eventually("both connections are gone", || bridge.connections() == 0);
}

#[test]
fn a_client_that_goes_on_sending_delays_no_stop() {
    let scratch = Scratch::new();
    let (mut bridge, _) = start(&scratch, &[]);
    let head = long(|post| post.header("Mcp-Session-Id", "6a1b0e6e52d24d8c8ab5c1a4b0d3e7f2"));
    let mut silent = tcp(&bridge);
    silent.write_all(&head[..1000]).unwrap();
    let mut first = [0];
    silent.read_exact(&mut first).unwrap();
    let begun = Instant::now();
    bridge.signal(Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 0);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

// ---------------------------------------------------------------------------------------------- half-closed

fn post(session: &Session, body: impl AsRef<[u8]>) -> Request {
    session.headers(Request::post("/mcp", body))
}

fn sleep(ms: u64) -> String {
    tool_call(1, "sleep", json!({ "ms": ms })).to_string()
}

#[test]
fn whoever_has_sent_all_gets_the_answer_whatever_its_form_and_however_late() {
    let bridge = Bridge::start(&["--sse-after", "300ms"], &["hostile", "good"]);
    let session = bridge.session();
    for accept in ["application/json", "text/event-stream", "application/json, text/event-stream"] {
        for ms in [0, 100, 2000] {
            let request = post(&session, sleep(ms)).with("Accept", accept).to_bytes("localhost");
            let begun = Instant::now();
            let response = answer(tcp(&bridge), &request, true);
            assert_eq!(status(&response), "200", "{response}");
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains("slept"), "{response}");
            let late = begun.elapsed().saturating_sub(Duration::from_millis(ms));
            assert!(
                late < Duration::from_secs(10),
                "the connection ends with the answer, not {late:?} later"
            );
        }
    }
    let body = sleep(600);
    let chunked = post(&session, "").without("Content-Length").header("Transfer-Encoding", "chunked");
    let mut request = chunked.to_bytes("localhost");
    request.extend(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes());
    assert!(answer(tcp(&bridge), &request, true).contains("slept"), "a chunked body");
}

#[test]
fn whoever_half_closes_during_a_stream_gets_the_rest_in_chunks_that_any_reader_takes() {
    let bridge = Bridge::start(&["--sse-after", "0ms", "--keep-alive", "300ms"], &["hostile", "good"]);
    let session = bridge.session();
    for ms in [0, 30, 400] {
        let mut socket = tcp(&bridge);
        socket.write_all(&post(&session, sleep(1500)).to_bytes("localhost")).unwrap();
        let half = socket.try_clone().unwrap();
        let mut response = Connection::over(Box::new(socket)).response();
        assert!(response.is_sse());
        thread::sleep(Duration::from_millis(ms));
        half.end();
        assert_eq!(text_of(&response.answer()), "slept");
    }
}

#[test]
fn whoever_has_sent_all_gets_all_answers_of_requests_one_behind_the_other() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let requests: Vec<_> = [0, 600, 0, 600, 0]
        .iter()
        .flat_map(|ms| post(&session, sleep(*ms)).with("Accept", "application/json").to_bytes("localhost"))
        .collect();
    let responses = answer(tcp(&bridge), &requests, true);
    assert_eq!(responses.matches("HTTP/1.1 200 OK\r\n").count(), 5, "{responses}");
    assert_eq!(responses.matches("slept").count(), 5, "{responses}");
}

#[test]
fn any_request_is_answered_though_nothing_follows_it() {
    let scratch = Scratch::new();
    let (bridge, path) = start(&scratch, &["--sse-compat"]);
    let authorized = |request: Request| request.header("Authorization", "Bearer a-token-of-a-test");
    for (wanted, request) in [
        ("200", Request::new("GET", "/healthz")),
        ("200", authorized(Request::post("/mcp", initialize(1, "2025-06-18").to_string()))),
        ("400", authorized(Request::post("/mcp", "{"))),
        ("404", authorized(Request::post("/mcp", "{}").header("Mcp-Session-Id", "x"))),
        ("401", Request::post("/mcp", "{}")),
        ("405", authorized(Request::listen("/mcp"))),
        ("200", authorized(Request::listen("/sse"))),
        ("204", authorized(Request::new("OPTIONS", "/mcp"))),
    ] {
        let request = request.to_bytes("localhost");
        let responses = [
            answer(tcp(&bridge), &request, true),
            answer(UnixStream::connect(&path).unwrap().patient(), &request, true),
        ];
        for response in responses {
            assert_eq!(status(&response), wanted, "{response}");
        }
    }
    eventually("nobody listens who has hung up", || bridge.connections() == 0);
}

#[test]
fn a_body_that_ends_too_soon_is_none_at_once() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let request = post(&session, sleep(0)).to_bytes("localhost");
    let begun = Instant::now();
    answer(tcp(&bridge), &request[..request.len() - 3], true);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(session.seen_count("tools/call"), 1, "the call that looks");
}

/// A client that has closed its socket looks as one that has only sent all, until something is written to it.
#[test]
fn a_client_that_has_closed_is_found_out_while_its_answer_is_awaited() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let unix = format!("unix:{path}");
    let bridge = Bridge::start(&["--listen", &unix, "--lazy"], &["hostile", "hang_init"]);
    let request = Request::post("/mcp", initialize(1, "2025-06-18").to_string());
    for accept in ["application/json", "application/json, text/event-stream"] {
        let request = request.clone().with("Accept", accept).to_bytes("localhost");
        let mut clients: [Box<dyn Stream>; 2] =
            [Box::new(tcp(&bridge)), Box::new(UnixStream::connect(&path).unwrap())];
        clients.iter_mut().for_each(|client| client.write_all(&request).unwrap());
        eventually("their children are starting", || bridge.processes().len() == 2);
        drop(clients);
        within(Duration::from_secs(15), "nothing is kept for those who left", || {
            bridge.processes().is_empty() && bridge.connections() == 0
        });
    }
}

#[test]
fn a_listener_that_has_closed_is_gone_soon() {
    let bridge = Bridge::start(&["--idle-timeout", "1s"], &["hostile", "good"]);
    let session = bridge.session();
    drop(session.listen());
    within(Duration::from_secs(10), "its session is idle, and ends", || bridge.processes().is_empty());
}
