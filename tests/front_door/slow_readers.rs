//! Peers that ask and do not take the answer, over TCP, a socket file and HTTP/2: each loses what it did not take, and
//! nobody else anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::h2::{
    ACK, CANCEL, DATA, END_STREAM, Frame, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::support::http::{Connection, Response};
use crate::support::{
    Bridge, PATIENCE, Request, Scratch, Session, bridge_command, eventually, initialize, json, proc,
    tool_call,
};

const PING_REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

const LIMIT: Duration = Duration::from_secs(2);
const BODY: [&str; 2] = ["--body-timeout", "2s"];

/// What a client allows for all streams together, so that none is stuck because of another.
const LARGE: u32 = 1 << 28;

/// A bridge whose child answers each call with so many bytes.
fn start(length: usize) -> Bridge {
    Bridge::start(&BODY, &["hostile", "huge", &length.to_string()])
}

fn call(id: usize) -> Vec<u8> {
    tool_call(id, "echo", json!({})).to_string().into_bytes()
}

// ---------------------------------------------------------------------------------------------- HTTP/1

/// Whether the other side has ended this connection, although what it wrote has not been read.
fn has_ended(socket: &impl AsFd, limit: Duration) -> bool {
    let mut watched = [PollFd::new(socket.as_fd(), PollFlags::empty())]; // POLLHUP and POLLERR come unasked
    poll(&mut watched, u16::try_from(limit.as_millis()).unwrap()) == Ok(1)
}

/// Reads a KiB of an answer every now and then, until the connection ends.
#[track_caller]
fn read_in_drops(mut socket: impl Read + Write + AsFd, request: &[u8]) {
    socket.write_all(request).unwrap();
    let (began, mut read) = (Instant::now(), 0);
    while !has_ended(&socket, LIMIT / 10) {
        read += socket.read(&mut [0; 1024]).unwrap_or_default();
        assert!(began.elapsed() < PATIENCE, "its exchange ends; it has read {read} bytes");
    }
}

#[test]
fn an_answer_that_nobody_takes_over_tcp_ends_with_its_connection_and_the_log_says_whose_it_was() {
    let bridge = start(8_000_000);
    // Each of a session of its own: one with so much waiting for several clients would cut them off by itself.
    let sessions: Vec<_> = (0..3).map(|_| bridge.session()).collect();
    let before = proc::resident_memory(bridge.pid());
    let sockets: Vec<_> = sessions
        .iter()
        .zip(0..)
        .map(|(session, id)| {
            let request = session.headers(Request::post("/mcp", call(id))).to_bytes("localhost");
            let mut socket = TcpStream::connect(bridge.address).unwrap();
            setsockopt(&socket, sockopt::RcvBuf, &4096).unwrap();
            socket.write_all(&request).unwrap();
            socket
        })
        .collect();
    for socket in &sockets {
        assert!(has_ended(socket, PATIENCE * 2), "its connection ends, and the kernel keeps nothing for it");
        let peer = socket.local_addr().unwrap().to_string();
        let line = bridge
            .logged("the line names the peer", |line| line.contains("conn.slow") && line.contains(&peer));
        assert!(line.contains("--body-timeout"), "and the option: {line}");
    }
    for session in &sessions {
        session.ping().expect(200, "the session is unharmed");
    }
    eventually("their memory is free", || proc::resident_memory(bridge.pid()) < before + (16 << 20));
}

#[test]
fn an_answer_that_is_taken_in_drops_over_tcp_ends_with_its_connection() {
    let bridge = start(8_000_000);
    let session = bridge.session();
    let request = session.headers(Request::post("/mcp", call(1))).to_bytes("localhost");
    let socket = TcpStream::connect(bridge.address).unwrap();
    setsockopt(&socket, sockopt::RcvBuf, &4096).unwrap();
    read_in_drops(socket, &request);
    session.ping().expect(200, "the session is unharmed");
}

/// A bridge that listens on a socket file.
struct Local {
    scratch: Scratch,
    process: std::process::Child,
}

impl Local {
    fn start(command: &[&str]) -> Self {
        let scratch = Scratch::new();
        let listen = format!("unix:{}", scratch.path("bridge.sock"));
        let mut bridge = bridge_command(&[&BODY[..], &["--listen", &listen]].concat(), command);
        let local = Local { scratch, process: bridge.stderr(Stdio::null()).spawn().unwrap() };
        eventually("the socket exists", || UnixStream::connect(local.scratch.path("bridge.sock")).is_ok());
        local
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.scratch.path("bridge.sock")).unwrap()
    }

    fn send(&self, request: Request) -> Response {
        let mut connection = Connection::over(Box::new(self.connect()));
        connection.write(&request.to_bytes("localhost"));
        connection.response()
    }

    /// So many calls within a new session.
    fn calls(&self, count: usize) -> Vec<Vec<u8>> {
        let mut greeting = self.send(Request::post("/mcp", initialize(0, "2025-06-18").to_string()));
        let id = greeting.header("mcp-session-id").unwrap().to_owned();
        greeting.answer();
        let within = |body: &[u8]| Request::post("/mcp", body).header("Mcp-Session-Id", &id);
        let initialized = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        self.send(within(initialized)).expect(202, "the session is open");
        (0..count).map(|id| within(&call(id)).to_bytes("localhost")).collect()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_answer_that_nobody_takes_over_a_socket_file_ends_with_its_connection() {
    let bridge = Local::start(&["hostile", "huge", "8000000"]);
    let calls = bridge.calls(4);
    let mut sockets: Vec<_> = (0..3).map(|_| bridge.connect()).collect();
    sockets.iter_mut().zip(&calls).for_each(|(socket, call)| socket.write_all(call).unwrap());
    for socket in &sockets {
        assert!(has_ended(socket, PATIENCE * 2), "its connection ends");
    }
    read_in_drops(bridge.connect(), &calls[3]);
}

#[test]
fn a_reader_that_is_slow_and_above_the_floor_gets_all() {
    let bridge = Local::start(&["hostile", "huge", "3000000"]);
    let mut socket = bridge.connect();
    socket.write_all(&bridge.calls(1)[0]).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut buffer, mut read, began) = (vec![0; 64 << 10], 0, Instant::now());
    while read < 3_000_000 {
        thread::sleep(Duration::from_millis(100));
        let length = socket.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "it goes on after {read} bytes");
        read += length;
    }
    assert!(began.elapsed() > LIMIT, "it took longer than nothing may be taken");
}

// ---------------------------------------------------------------------------------------------- HTTP/2

/// A client of a session that gives back no window but where it is said.
struct Client {
    http2: Http2,
    id: String,
}

impl Client {
    /// `window`: of each stream.
    fn open(bridge: &Bridge, session: &Session, window: u32) -> Self {
        let mut http2 = Http2::open(bridge.address);
        http2.send(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        http2.send(WINDOW_UPDATE, 0, 0, &LARGE.to_be_bytes());
        http2.patience(PATIENCE);
        Client { http2, id: session.id.clone() }
    }

    fn post(&mut self, body: &[u8]) -> u32 {
        let id = self.id.clone();
        let fields =
            [("content-type", "application/json"), ("accept", "application/json"), ("mcp-session-id", &*id)];
        self.http2.request("POST", "/mcp", &fields, Some(body))
    }

    /// Reads until such a frame comes; of the stuck streams nothing is taken.
    #[track_caller]
    fn until(&mut self, stuck: &[u32], wanted: impl Fn(&Frame) -> bool) -> Frame {
        let began = Instant::now();
        loop {
            let frame = self.http2.frame_but_for(stuck).expect("the connection goes on");
            if wanted(&frame) {
                return frame;
            }
            assert!(began.elapsed() < PATIENCE, "it comes, and not only {frame:?}");
            assert_ne!(frame.kind, GOAWAY, "one stream's trouble is not the connection's");
            assert_ne!(frame.kind, RST_STREAM, "{frame:?}");
        }
    }

    #[track_caller]
    fn is_reset(&mut self, stuck: u32) {
        let frame = self.until(&[stuck], |frame| frame.kind == RST_STREAM && frame.stream == stuck);
        assert_eq!(frame.reset_error(), CANCEL);
    }

    #[track_caller]
    fn ping(&mut self, stuck: &[u32]) {
        let stream = self.post(PING_REQUEST.as_bytes());
        self.until(stuck, |frame| frame.stream == stream && frame.flags & END_STREAM != 0);
    }
}

#[test]
fn a_stream_of_which_nothing_is_taken_is_reset_and_the_others_of_its_connection_go_on() {
    for length in ["200000", "66000", "30000"] {
        let bridge = Bridge::start(&BODY, &["hostile", "huge", length]);
        let (session, other) = (bridge.session(), bridge.session());
        let mut client = Client::open(&bridge, &session, 20_000);
        let fields = [("accept", "text/event-stream"), ("mcp-session-id", &*other.id)];
        let listening = client.http2.request("GET", "/mcp", &fields, None);
        client.until(&[], |frame| frame.stream == listening && frame.kind == HEADERS);
        let stuck = client.post(&call(1));
        client.until(&[stuck], |frame| frame.stream == stuck && frame.kind == DATA);
        let began = Instant::now();
        client.ping(&[stuck]);
        client.is_reset(stuck);
        assert!(began.elapsed() > LIMIT - LIMIT / 4, "{length}: not before its time: {:?}", began.elapsed());
        client.ping(&[]);
        bridge.logged("the line names the peer", |line| {
            line.contains("conn.slow") && line.contains("127.0.0.1:") && line.contains("stream")
        });
        // The stream that was open beside it still is.
        other.delete().expect(204, "the session ends");
        client.until(&[], |frame| frame.stream == listening && frame.flags & END_STREAM != 0);
        session.ping().expect(200, "the session is unharmed");
    }
}

#[test]
fn a_stream_that_is_taken_in_drops_is_reset() {
    let bridge = start(2_000_000);
    let session = bridge.session();
    let mut client = Client::open(&bridge, &session, 20_000);
    let stuck = client.post(&call(1));
    let began = Instant::now();
    // A drop for each piece of it that comes, and a little pause.
    loop {
        let frame = client.http2.frame_but_for(&[stuck]).expect("the connection goes on");
        match frame.kind {
            RST_STREAM => break assert_eq!((frame.stream, frame.reset_error()), (stuck, CANCEL)),
            DATA => {
                thread::sleep(Duration::from_millis(50));
                client.http2.send(WINDOW_UPDATE, 0, stuck, &500_u32.to_be_bytes());
            }
            _ => assert_ne!(frame.kind, GOAWAY),
        }
        assert!(began.elapsed() < PATIENCE, "it is too slow");
    }
    client.ping(&[]);
}

#[test]
fn what_a_reset_stream_had_of_the_connections_window_is_for_the_others() {
    let bridge = start(200_000);
    let session = bridge.session();
    let mut http2 = Http2::open(bridge.address);
    http2.send(SETTINGS, 0, 0, &[&[0, 4][..], &(1_u32 << 20).to_be_bytes()].concat());
    let mut client = Client { http2, id: session.id.clone() };
    let stuck = client.post(&call(1));
    // Its window would hold all, that of the connection holds 65,535 bytes, and none of them is given back.
    let mut taken = 0;
    while taken < 65_535 {
        taken += client.until(&[stuck], |frame| frame.kind == DATA).payload.len();
    }
    let waiting = client.post(PING_REQUEST.as_bytes());
    client.is_reset(stuck);
    client.http2.send(WINDOW_UPDATE, 0, 0, &65_535_u32.to_be_bytes());
    client.until(&[], |frame| frame.stream == waiting && frame.flags & END_STREAM != 0);
    client.ping(&[]);
}

/// What is so short goes out with the end of its stream, and cannot be reset; only this peer suffers.
#[test]
fn a_peer_that_has_no_window_for_even_short_answers_is_told_and_let_go() {
    let bridge = start(1);
    let session = bridge.session();
    let mut client = Client::open(&bridge, &session, 10);
    let stuck = client.post(PING_REQUEST.as_bytes());
    client.until(&[stuck], |frame| frame.stream == stuck && frame.kind == HEADERS);
    let (mut told, began) = (false, Instant::now());
    while let Some(frame) = client.http2.frame_but_for(&[stuck]) {
        told |= frame.kind == GOAWAY;
        assert!(began.elapsed() < PATIENCE, "the connection ends");
    }
    assert!(told, "GOAWAY comes before the end (RFC 9113 §5.4.1)");
    eventually("its connection has ended", || bridge.connections() == 0);
    session.ping().expect(200, "the session is unharmed");
}

#[test]
fn an_event_stream_that_has_nothing_to_send_is_not_slow_over_http_2() {
    let bridge = start(1);
    let session = bridge.session();
    let mut client = Client::open(&bridge, &session, 65_535);
    let fields = [("accept", "text/event-stream"), ("mcp-session-id", &*session.id)];
    let listening = client.http2.request("GET", "/mcp", &fields, None);
    client.until(&[], |frame| frame.stream == listening && frame.kind == HEADERS);
    let began = Instant::now();
    while began.elapsed() < LIMIT * 2 {
        client.ping(&[]);
        thread::sleep(Duration::from_millis(50));
    }
    session.delete().expect(204, "the session ends");
    client.until(&[], |frame| frame.stream == listening && frame.flags & END_STREAM != 0);
}

#[test]
fn a_whole_answer_arrives_whole_over_http_2_whatever_its_length() {
    for length in [0, 1, 16_000, 16_384, 17_000, 65_535, 70_000, 300_000] {
        let bridge = Bridge::start(&[], &["hostile", "huge", &length.to_string()]);
        let session = bridge.session();
        let mut client = Client::open(&bridge, &session, 65_535);
        let stream = client.post(&call(1));
        let (status, body) = client.http2.answer(stream);
        assert_eq!(status, 200);
        assert_eq!(body.matches('x').count(), length + body.matches("text").count(), "{length}");
    }
}

/// GOAWAY comes with a PING, which shows that the peer has read it; whoever answers all others and not this one stays
/// no longer.
#[test]
fn a_peer_that_does_not_confirm_the_end_is_left() {
    let options = ["--lazy", "--header-timeout", "500ms", "--connection-idle-timeout", "500ms"];
    let bridge = Bridge::start(&options, &["notebook"]);
    let mut client = Http2::open(bridge.address);
    let mut ignored: Option<Vec<u8>> = None;
    let mut told = false;
    while let Some(frame) = client.frame() {
        match frame.kind {
            GOAWAY => told = true,
            PING if frame.flags & ACK == 0 => {
                if told && ignored.is_none() {
                    ignored = Some(frame.payload.clone());
                }
                if ignored.as_ref() != Some(&frame.payload) {
                    client.send(PING, ACK, 0, &frame.payload);
                }
            }
            _ => {}
        }
    }
    assert!(told && ignored.is_some(), "it is told before");
}
