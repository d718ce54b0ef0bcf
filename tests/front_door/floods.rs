//! Numbers and sizes: each limit right at it and one beyond, and floods of everything that a peer can send for nothing.
//! Memory stays flat, and whoever was there before is served meanwhile.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::h2::{
    ACK, CONTINUATION, DATA, Drain, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS,
    Http2, PING, SETTINGS, WINDOW_UPDATE,
};
use crate::support::http::Connection;
use crate::support::{
    Bridge, Request, Session, assert_refused, bridge_command, eventually, initialize, json, proc, text_of,
    tool_call,
};

const MIB: u64 = 1 << 20;

/// How much a flood may cost: what a few connections and the allocator need, and no multiple of the flood.
const SLACK: u64 = 8 * MIB;

/// What an idle connection may cost.
const IDLE_CONNECTION: u64 = 32 * 1024;

const MAX_CONNECTIONS: usize = 1024;
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 100;
const MAX_H2_LIST: usize = 32 * 1024;
/// How much of a body may be sent over HTTP/2 before the other side asks for more (RFC 9113 §6.9.2).
const WINDOW: usize = 65_535;
const MAX_BATCH: usize = 1000;
const MAX_ID: usize = 8 * 1024;

const PING_REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn options() -> Vec<u8> {
    Request::new("OPTIONS", "/mcp").to_bytes("localhost")
}

/// Asks and is answered, and keeps the connection.
#[track_caller]
fn ask(mut connection: Connection, request: &[u8], status: u16) -> Connection {
    connection.write(request);
    let mut response = connection.response();
    response.expect(status, "the connection is served");
    response.bytes();
    response.into_connection()
}

/// A client that works while others flood.
struct Witness {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Witness {
    /// `session` is asked again and again, over one connection and over new ones.
    fn new(session: &Session) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (session, ended, counted) = (session.clone(), Arc::clone(&stop), Arc::clone(&calls));
        let thread = thread::spawn(move || {
            let ping = session.headers(Request::post("/mcp", PING_REQUEST)).to_bytes("localhost");
            let mut connection = Connection::open(session.address);
            while !ended.load(Ordering::Relaxed) {
                connection = ask(connection, &ping, 200);
                assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Witness { stop, calls, thread }
    }

    /// Waits for some more calls, all of which are answered.
    #[track_caller]
    fn is_served(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        eventually("calls of the old session are answered", || {
            assert!(!self.thread.is_finished(), "every call is answered");
            self.calls.load(Ordering::Relaxed) > before + 2
        });
    }

    #[track_caller]
    fn end(self) {
        self.is_served();
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// What a flood may not make grow.
struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    fn of(bridge: &Bridge) -> Self {
        Memory { pid: bridge.pid(), before: proc::resident_memory(bridge.pid()) }
    }

    #[track_caller]
    fn stayed_within(&self, slack: u64, claim: &str) {
        let grown = proc::peak_memory(self.pid).saturating_sub(self.before);
        assert!(grown < slack, "{claim}: {} KiB more at its peak", grown / 1024);
    }
}

// ---------------------------------------------------------------------------------------------- at the limit

#[test]
fn a_batch_may_have_a_thousand_messages() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.initialize_as("2025-03-26");
    session.notify("notifications/initialized", json!({}));
    let batch = |count: usize| {
        let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
        format!("[{}]", vec![note; count].join(","))
    };
    assert_eq!(session.post(batch(MAX_BATCH)).status, 202);
    assert_refused(&mut session.post(batch(MAX_BATCH + 1)), 400, "invalid_request");
    assert_eq!(session.seen_count("notifications/x"), MAX_BATCH);
}

#[test]
fn an_id_may_have_eight_kibibytes() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let call = |length: usize| tool_call("x".repeat(length - 2), "echo", json!({ "text": "a" })).to_string();
    let answer = session.post(call(MAX_ID)).answer();
    assert_eq!((text_of(&answer), answer["id"].as_str().unwrap().len()), ("a".to_owned(), MAX_ID - 2));
    assert_refused(&mut session.post(call(MAX_ID + 1)), 400, "invalid_request");
    let digits = format!(r#"{{"jsonrpc":"2.0","id":{},"method":"ping"}}"#, "1".repeat(MAX_ID + 1));
    assert_refused(&mut session.post(digits), 400, "invalid_request");
}

#[test]
fn a_head_may_have_a_hundred_fields_and_64_kibibytes() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let address = bridge.address;
    let host = Request::new("OPTIONS", "/mcp").header("Host", "localhost");
    let fields =
        |count: usize| (1..count).fold(host.clone(), |request, n| request.header(&format!("X-{n}"), "y"));
    assert_eq!(fields(MAX_FIELDS).send(address).status, 204);
    assert_eq!(fields(MAX_FIELDS + 1).send(address).status, 431);

    let empty = host.clone().header("X", "").to_bytes("").len();
    let long = |length: usize| {
        let mut connection = Connection::open(address);
        connection.write(&host.clone().header("X", &"y".repeat(length - empty)).to_bytes(""));
        connection.try_response().map(|response| response.status)
    };
    assert_eq!(long(MAX_HEAD), Some(204));
    // How much beyond it is seen depends on how the bytes arrive, but never more than twice as much is kept.
    assert!(matches!(long(2 * MAX_HEAD + 1), None | Some(431)));
}

#[test]
fn a_list_of_headers_over_http_2_may_have_32_kibibytes() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let authority = bridge.address.to_string();
    // Each field counts with 32 bytes more than it has (RFC 9113 §6.5.2).
    let known = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "/mcp"), (":authority", &*authority)];
    let size: usize =
        known.iter().chain(&[("x", "")]).map(|(name, value)| name.len() + value.len() + 32).sum();
    let mut client = Http2::open(bridge.address);
    let mut ask = |length: usize| {
        let head = client.head("OPTIONS", "/mcp", &[("x", &"y".repeat(length - size))]);
        let stream = client.new_stream();
        let (first, rest) = head.split_at(16_000);
        let (second, third) = rest.split_at(16_000);
        client.send(HEADERS, END_STREAM, stream, first);
        client.send(CONTINUATION, 0, stream, second);
        client.send(CONTINUATION, END_HEADERS, stream, third);
        client.answer(stream).0
    };
    // Whether a list of exactly this size fits is the library's business.
    assert_eq!(ask(MAX_H2_LIST - 1), 204);
    assert_eq!(ask(MAX_H2_LIST + 1), 431);
}

#[test]
fn a_body_may_have_as_many_bytes_as_the_option_says_however_it_comes() {
    let bridge = Bridge::start(&["--max-body", "100000"], &["notebook"]);
    let session = bridge.session();
    let body = |length: usize| PING_REQUEST.to_owned() + &" ".repeat(length - PING_REQUEST.len());
    let chunked = |length: usize| {
        let chunks: String = body(length)
            .as_bytes()
            .chunks(999)
            .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)))
            .collect();
        let request = session.headers(Request::post("/mcp", "")).without("Content-Length");
        let mut connection = Connection::open(bridge.address);
        connection.write(&request.header("Transfer-Encoding", "chunked").to_bytes("localhost"));
        connection.write(format!("{chunks}0\r\n\r\n").as_bytes());
        connection.response()
    };
    chunked(100_000).expect(200, "right at the limit");
    assert_refused(&mut chunked(100_001), 413, "payload_too_large");

    let mut client = Http2::open(bridge.address);
    // What a client may send is known only when the settings are acknowledged.
    let first = client.request("OPTIONS", "/mcp", &[], None);
    assert_eq!(client.answer(first).0, 204);
    let mut over_http_2 = |length: usize, more: &[(&str, &str)]| {
        let fields = [("content-type", "application/json"), ("mcp-session-id", &*session.id)];
        let head = client.head("POST", "/mcp", &[&fields, more].concat());
        let stream = client.new_stream();
        client.send(HEADERS, END_HEADERS, stream, &head);
        let mut window = WINDOW;
        for part in body(length).as_bytes().chunks(16_000) {
            while window < part.len() {
                let frame = client.polite_frame().expect("the connection goes on");
                if frame.kind == WINDOW_UPDATE && frame.stream == stream {
                    window += frame.increment();
                }
            }
            window -= part.len();
            client.send(DATA, 0, stream, part);
        }
        client.send(DATA, END_STREAM, stream, b"");
        client.answer(stream)
    };
    assert_eq!(over_http_2(100_000, &[]).0, 200);
    let (status, answer) = over_http_2(100_001, &[]);
    assert!(status == 413 && answer.contains("payload_too_large"), "{status} {answer}");
    assert_eq!(over_http_2(100_000, &[]).0, 200, "the connection goes on");
}

// ---------------------------------------------------------------------------------------------- connections

/// What this process may have open; the bridge raises its own limit likewise.
fn raise_open_files() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

#[test]
fn a_connection_beyond_the_limit_waits_for_another_to_leave() {
    if raise_open_files() < 2 * MAX_CONNECTIONS as u64 {
        eprintln!("skipped: fewer than {} files may be open", 2 * MAX_CONNECTIONS);
        return;
    }
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let ping = session.headers(Request::post("/mcp", PING_REQUEST)).to_bytes("localhost");
    let mut mine = ask(Connection::open(bridge.address), &ping, 200);
    let memory = Memory::of(&bridge);

    let mut idle: Vec<Connection> =
        (0..1000).map(|_| ask(Connection::open(bridge.address), &options(), 204)).collect();
    memory.stayed_within(1000 * IDLE_CONNECTION, "a thousand idle connections");
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a", "there is room for a new one");

    // Those of before are closed by their client; until the bridge has seen it they count.
    eventually("what was closed is gone", || proc::open_files(bridge.pid()) < 1000 + 30);
    idle.extend((1001..MAX_CONNECTIONS).map(|_| ask(Connection::open(bridge.address), &options(), 204)));
    let mut late = TcpStream::connect(bridge.address).expect("the kernel lets it wait");
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    std::io::Write::write_all(&mut late, &options()).unwrap();
    assert!(std::io::Read::read(&mut late, &mut [0]).is_err(), "nobody is there for one more");
    mine = ask(mine, &ping, 200);
    drop(idle.pop());
    let late = Connection::over(Box::new(late));
    assert_eq!(late.response().status, 204, "its turn has come");

    drop(idle);
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a");
    drop(mine);
}

#[test]
fn a_bridge_without_descriptors_goes_on_with_what_it_has_and_does_not_spin() {
    let inner =
        bridge_command(&["--listen", "127.0.0.1:0", "--max-connections", "1000"], &["hostile", "good"]);
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n 48; exec "$0" "$@""#]).arg(inner.get_program()).args(inner.get_args());
    let bridge = Bridge::spawn(command);
    let session = bridge.session();
    let ping = session.headers(Request::post("/mcp", PING_REQUEST)).to_bytes("localhost");
    let mut mine = ask(Connection::open(bridge.address), &ping, 200);

    let many: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(bridge.address).unwrap()).collect();
    bridge.logged("it says what is missing", |line| line.contains("accept.failed"));
    let (began, before) = (Instant::now(), bridge.log().len());
    let used = processor_time(bridge.pid());
    while began.elapsed() < Duration::from_secs(1) {
        mine = ask(mine, &ping, 200);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(processor_time(bridge.pid()) - used < Duration::from_millis(500), "it waits, and does not spin");
    assert!(bridge.log().len() - before < 50, "nor does it fill the log");
    drop(many);
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a", "there is room again");
}

/// What the kernel has given it so far; a hundred ticks a second (proc(5)).
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

// ---------------------------------------------------------------------------------------------- requests

#[test]
fn ten_thousand_initializes_take_four_seats_and_no_more() {
    let bridge = Bridge::start(&["--lazy", "--max-sessions", "4"], &["hostile", "good"]);
    let session = bridge.session();
    let others = Mutex::new((0..3).map(|_| bridge.session().id).collect::<Vec<_>>());
    let witness = Witness::new(&session);
    let (accepted, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // The first thousand warm up what lasts: buffers, and the memory of ends.
    let flood = |count: usize| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let initialize = initialize(0, "2025-06-18").to_string();
                    let request = Request::post("/mcp", initialize).to_bytes("localhost");
                    let mut connection = Connection::open(bridge.address);
                    for n in 0..count / 4 {
                        connection.write(&request);
                        let mut response = connection.response();
                        match (response.status, response.header("mcp-session-id").map(str::to_owned)) {
                            (200, Some(id)) => {
                                others.lock().unwrap().push(id);
                                accepted.fetch_add(1, Ordering::Relaxed);
                            }
                            (503, None) => _ = refused.fetch_add(1, Ordering::Relaxed),
                            other => panic!("a session, or 503: {other:?}"),
                        }
                        response.bytes();
                        connection = response.into_connection();
                        let leaving = if n % 250 == 249 { others.lock().unwrap().pop() } else { None };
                        if let Some(id) = leaving {
                            let end = Request::new("DELETE", "/mcp").header("Mcp-Session-Id", &id);
                            connection = ask(connection, &end.to_bytes("localhost"), 204);
                        }
                        assert!(others.lock().unwrap().len() <= 3, "never more than four");
                    }
                });
            }
        });
    };
    flood(1000);
    let (memory, files) = (Memory::of(&bridge), proc::open_files(bridge.pid()));
    flood(9000);
    memory.stayed_within(SLACK, "nine thousand initializes");
    witness.end();
    let (accepted, refused) = (accepted.into_inner(), refused.into_inner());
    assert_eq!(accepted + refused, 10_000, "each is answered");
    assert!(accepted >= 10, "a free seat is taken: {accepted}");
    assert!(bridge.processes().len() <= 4, "one child a seat: {:?}", bridge.processes());
    // The witness has left, and a child or two may be on their way.
    eventually("no file is left open", || proc::open_files(bridge.pid()) <= files + 6);
}

#[test]
fn heads_without_end_cost_nothing() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let witness = Witness::new(&session);
    witness.is_served();
    let memory = Memory::of(&bridge);
    let bombs = [
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: {}", "y".repeat(300_000)),
        format!("GET /mcp HTTP/1.1\r\n{}", "X: y\r\n".repeat(50_000)),
        format!("GET /{}", "x".repeat(300_000)),
        "\r\n".repeat(150_000),
        "x".repeat(300_000),
    ];
    for n in 0..300 {
        let mut connection = Connection::open(bridge.address);
        connection.write(bombs[n % bombs.len()].as_bytes());
    }
    witness.end();
    memory.stayed_within(SLACK, "300 heads of 300 KB");
}

/// Clients that know a session wait for room; these have none, and what they send is for nobody yet.
#[test]
fn bodies_of_strangers_cost_no_multiple_of_their_size() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let witness = Witness::new(&session);
    witness.is_served();
    let memory = Memory::of(&bridge);
    let request = Request::post("/mcp", "").with("Content-Length", "9000000").to_bytes("localhost");
    let senders: Vec<_> = (0..20)
        .map(|_| {
            let (address, request) = (bridge.address, request.clone());
            thread::spawn(move || {
                let socket = TcpStream::connect(address).unwrap();
                socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                let _ = std::io::Write::write_all(&mut &socket, &request);
                // Whoever is made to wait stops here.
                let _ = std::io::Write::write_all(&mut &socket, &vec![b' '; 8_000_000]);
                socket
            })
        })
        .collect();
    let held: Vec<TcpStream> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    witness.end();
    memory.stayed_within(48 * MIB, "160 MB of unfinished bodies");
    drop(held);
}

/// The same with a session: one body at a time has room, however many come without their length.
#[test]
fn bodies_without_a_length_wait_for_room_in_their_session() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let memory = Memory::of(&bridge);
    let request = session.headers(Request::post("/mcp", "")).without("Content-Length");
    let request = request.header("Transfer-Encoding", "chunked").to_bytes("localhost");
    let senders: Vec<_> = (0..20)
        .map(|_| {
            let (address, request) = (bridge.address, request.clone());
            thread::spawn(move || {
                let socket = TcpStream::connect(address).unwrap();
                socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                let chunk = format!("7a1200\r\n{}", " ".repeat(7_999_999));
                let _ = std::io::Write::write_all(&mut &socket, &request);
                let _ = std::io::Write::write_all(&mut &socket, chunk.as_bytes());
                socket
            })
        })
        .collect();
    let held: Vec<TcpStream> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    memory.stayed_within(48 * MIB, "160 MB of unfinished bodies");
    drop(held);
    session.ping().expect(200, "who leaves makes room");
}

// ---------------------------------------------------------------------------------------------- HTTP/2

enum End {
    /// The bridge ends the connection and says that it is too much.
    Calm,
    /// The bridge ends the connection, whatever it says.
    Goaway,
    /// All of it is acknowledged or ignored, and the next request is answered.
    Served,
}

type Attack = fn(&mut Http2);

const HTTP_2_FLOODS: [(&str, Attack, End); 12] = [
    (
        "rapid reset",
        |client| reset(client, |client, stream| _ = client.write(&Frame::cancel(stream))),
        End::Calm,
    ),
    // A window of 2^31 and a step of none are errors that make the bridge reset the stream itself.
    (
        "made to reset",
        |client| reset(client, |client, stream| _ = client.send(WINDOW_UPDATE, 0, stream, &[0; 4])),
        End::Goaway,
    ),
    (
        "20,000 streams",
        |client| {
            let head = client.head("POST", "/mcp", &[("content-type", "application/json")]);
            for _ in 0..20_000 {
                let stream = client.new_stream();
                if !client.send(HEADERS, END_HEADERS, stream, &head) {
                    break;
                }
            }
        },
        End::Goaway,
    ),
    ("CONTINUATION without end", |client| continuations(client, &[0; 1]), End::Goaway),
    (
        "large CONTINUATION without end",
        |client| continuations(client, &[0, 1, b'x', 1, b'y'].repeat(3000)),
        End::Goaway,
    ),
    ("empty CONTINUATION without end", |client| continuations(client, b""), End::Goaway),
    (
        "empty DATA",
        |client| {
            let (stream, head) =
                (client.new_stream(), client.head("POST", "/mcp", &[("content-type", "application/json")]));
            client.send(HEADERS, END_HEADERS, stream, &head);
            repeat(client, DATA, stream, b"");
        },
        End::Goaway,
    ),
    (
        "a list that unfolds",
        |client| {
            // One field of 4 KB goes into the table, then each byte of the block stands for it (RFC 7541 §6.1, §6.2.1).
            let mut head = client.head("OPTIONS", "/mcp", &[]);
            head.extend([0x40, 1, b'x', 127, 0x81, 0x1e]);
            head.extend([b'y'; 127 + 0x1e * 128 + 1]);
            head.extend([0xbe; 10_000]);
            let stream = client.new_stream();
            client.send(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        },
        End::Calm,
    ),
    ("SETTINGS", |client| repeat(client, SETTINGS, 0, b""), End::Served),
    ("PING", |client| repeat(client, PING, 0, &[7; 8]), End::Served),
    ("WINDOW_UPDATE", |client| repeat(client, WINDOW_UPDATE, 0, &[0, 0, 0, 1]), End::Served),
    ("frames that nobody knows", |client| repeat(client, 0xbe, 0, &[7; 100]), End::Served),
];

fn repeat(client: &mut Http2, kind: u8, stream: u32, payload: &[u8]) {
    let frames = Frame::bytes(kind, 0, stream, payload).repeat(100);
    for _ in 0..200 {
        if !client.write(&frames) {
            break;
        }
    }
}

fn reset(client: &mut Http2, how: fn(&mut Http2, u32)) {
    for _ in 0..2000 {
        let stream = client.request("GET", "/mcp", &[("accept", "text/event-stream")], None);
        how(client, stream);
    }
}

fn continuations(client: &mut Http2, part: &[u8]) {
    let (stream, head) = (client.new_stream(), client.head("OPTIONS", "/mcp", &[]));
    client.send(HEADERS, END_STREAM, stream, &head);
    repeat(client, CONTINUATION, stream, part);
}

#[test]
fn floods_of_http_2_frames_end_their_connection_or_do_nothing() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let witness = Witness::new(&session);
    witness.is_served();
    let memory = Memory::of(&bridge);
    for (name, attack, end) in HTTP_2_FLOODS {
        let mut client = Http2::open(bridge.address);
        let frames = client.drain();
        attack(&mut client);
        if matches!(end, End::Served) {
            let last = client.request("OPTIONS", "/mcp", &[], None);
            eventually(name, || frames.count(|frame| frame.kind == HEADERS && frame.stream == last) == 1);
            client.finish();
            let echoes =
                frames.join().iter().filter(|frame| frame.kind == PING && frame.flags == ACK).count();
            assert_eq!(echoes, if name == "PING" { 20_000 } else { 0 }, "{name}: each is answered");
        } else {
            let frames = frames.join();
            let error = frames.iter().find(|frame| frame.kind == GOAWAY).map(Frame::error);
            match end {
                End::Calm => assert_eq!(error, Some(ENHANCE_YOUR_CALM), "{name}"),
                _ => assert!(error.is_some_and(|error| error != 0), "{name}: {error:?}"),
            }
        }
        witness.is_served();
        memory.stayed_within(SLACK, name);
    }
    witness.end();
    assert_eq!(bridge.processes().len(), 1, "nothing was started");
}

/// Their ids are told to nobody, so nobody could ever end them.
#[test]
fn initializes_that_are_taken_back_leave_no_child() {
    let bridge = Bridge::start(&["--lazy", "--max-sessions", "4"], &["hostile", "slow_init", "3000"]);
    let session = bridge.session();
    let witness = Witness::new(&session);
    let body = initialize(0, "2025-06-18").to_string();
    let mut client = Http2::open(bridge.address);
    let mut start =
        || client.request("POST", "/mcp", &[("content-type", "application/json")], Some(body.as_bytes()));
    let streams = [start(), start(), start()];
    eventually("each has a child", || bridge.processes().len() == 4);
    for stream in streams {
        client.write(&Frame::cancel(stream));
    }
    eventually("only the old session has one", || bridge.processes().len() == 1);

    let mut client = Http2::open(bridge.address);
    let frames = client.drain();
    for _ in 0..1000 {
        let stream =
            client.request("POST", "/mcp", &[("content-type", "application/json")], Some(body.as_bytes()));
        client.write(&Frame::cancel(stream));
    }
    let error = frames.join().iter().find(|frame| frame.kind == GOAWAY).map(Frame::error);
    assert_eq!(error, Some(ENHANCE_YOUR_CALM));
    witness.end();
    eventually("only the old session has one", || bridge.processes().len() == 1);
}

/// Sends bodies over HTTP/2 as far as the other side lets it, and ends none of them.
struct Uploads {
    client: Http2,
    drain: Drain,
    /// What may still be sent of each body, by its stream.
    bodies: Vec<(u32, usize)>,
    sent: usize,
}

impl Uploads {
    fn open(bridge: &Bridge, count: usize, length: usize) -> Self {
        let mut client = Http2::open(bridge.address);
        let drain = client.drain();
        client.send(SETTINGS, ACK, 0, &[]);
        let fields =
            [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        let bodies = (0..count)
            .map(|_| {
                let (stream, head) = (client.new_stream(), client.head("POST", "/mcp", &fields));
                client.send(HEADERS, END_HEADERS, stream, &head);
                (stream, length)
            })
            .collect();
        Uploads { client, drain, bodies, sent: 0 }
    }

    /// How much the windows of the connection and of its streams have been opened (RFC 9113 §5.2).
    fn windows(&self) -> HashMap<u32, usize> {
        let windows = RefCell::new(HashMap::new());
        self.drain.count(|frame| {
            if frame.kind == WINDOW_UPDATE {
                *windows.borrow_mut().entry(frame.stream).or_default() += frame.increment();
            }
            false
        });
        windows.into_inner()
    }

    /// Sends a frame of each body that may go on; whether there was one.
    fn push(&mut self) -> bool {
        let (windows, length) =
            (self.windows(), self.bodies.iter().map(|(_, left)| *left).max().unwrap_or(0));
        let opened = |stream: &u32| WINDOW + windows.get(stream).copied().unwrap_or(0);
        let mut progress = false;
        for (stream, left) in &mut self.bodies {
            let own = opened(stream).saturating_sub(length - *left);
            let piece = (*left).min(16_384).min(own).min(opened(&0).saturating_sub(self.sent));
            if piece > 0 && self.client.send(DATA, 0, *stream, &vec![b' '; piece]) {
                *left -= piece;
                self.sent += piece;
                progress = true;
            }
        }
        progress
    }
}

/// Each is too short to be worth a thought, and there are a thousand of them.
#[test]
fn unfinished_bodies_that_name_no_session_are_bounded_together() {
    const BODY: usize = 60 * 1024;
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let memory = Memory::of(&bridge);
    let mut uploads: Vec<_> = (0..8).map(|_| Uploads::open(&bridge, 120, BODY)).collect();
    let mut progress = Instant::now();
    while progress.elapsed() < Duration::from_secs(1) {
        if uploads.iter_mut().map(Uploads::push).filter(|pushed| *pushed).count() > 0 {
            progress = Instant::now();
        }
        thread::sleep(Duration::from_millis(5));
    }
    let sent: usize = uploads.iter().map(|upload| upload.sent).sum();
    memory.stayed_within(4 * SLACK, &format!("{} MiB of unfinished bodies were taken", sent as u64 / MIB));
    uploads.iter().for_each(|upload| upload.client.finish());
    let session = bridge.session();
    assert_eq!(session.text("echo", json!({ "text": "a" })), "a", "what they held is given back");
}

#[test]
fn an_initialize_does_not_wait_behind_megabytes_that_name_no_session() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let mut large: Vec<_> = (0..8).map(|_| Connection::open(bridge.address)).collect();
    for connection in &mut large {
        let request = Request::post("/mcp", "").with("Content-Length", &(4 * MIB).to_string());
        connection.write(&request.to_bytes("localhost"));
        connection.write(&[b' '; 4096]);
    }
    assert_eq!(bridge.session().text("list_notes", json!({})), "no notes yet");
    let chunked = Request::post("/mcp", "").without("Content-Length").with("Transfer-Encoding", "chunked");
    let mut connection = Connection::open(bridge.address);
    let body = initialize(1, "2025-06-18").to_string();
    connection.write(&chunked.to_bytes("localhost"));
    connection.write(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes());
    connection.response().expect(200, "its length is not known, and it is short all the same");
}

/// Such a client gets nothing before the answer, which may take an hour.
#[test]
fn a_call_that_waits_for_its_answer_as_json_keeps_no_memory_of_its_body() {
    const CALLS: usize = 30;
    let text = "x".repeat(MIB as usize);
    for options in [&["--lazy"][..], &["--lazy", "--session-key", "shared"]] {
        let bridge = Bridge::start(options, &["hostile", "hang"]);
        let session = (options.len() == 1).then(|| bridge.session());
        let post = |id: String, tool: &str, arguments| {
            let request = Request::post("/mcp", tool_call(id, tool, arguments).to_string());
            let request = request.with("Accept", "application/json");
            session.as_ref().map_or(request.clone(), |session| session.headers(request.clone()))
        };
        let seen = || {
            let seen = text_of(&bridge.send(post("look".into(), "seen", json!({}))).answer());
            seen.matches("tools/call").count()
        };
        seen();
        let memory = Memory::of(&bridge);
        let mut waiting = Vec::new();
        for number in 0..CALLS {
            let before = seen();
            let mut connection = Connection::open(bridge.address);
            let call = post(format!("call {number}"), "echo", json!({ "text": text }));
            connection.write(&call.to_bytes("localhost"));
            waiting.push(connection);
            let mut looks = 0;
            eventually("the child has read it", || {
                looks += 1;
                seen() > before + looks
            });
        }
        memory.stayed_within(2 * SLACK, &format!("{CALLS} calls of a MiB in flight, {options:?}"));
    }
}

// ---------------------------------------------------------------------------------------------- slow uploads

/// Uploads to where `headers` say that announce 10 MiB, send so many bytes, and then stand still.
fn stand_still(bridge: &Bridge, session: Option<&Session>, count: usize, sent: usize) -> Vec<Connection> {
    let request = Request::post("/mcp", "").with("Content-Length", "10000000");
    let request = session.map_or(request.clone(), |session| session.headers(request.clone()));
    let request = [request.to_bytes("localhost"), vec![b' '; sent]].concat();
    let open = |_| {
        let mut connection = Connection::open(bridge.address);
        connection.write(&request);
        connection
    };
    (0..count).map(open).collect()
}

/// Neither a call, a ping nor a cancellation, whoever shares the session with whom; and no other upload.
#[test]
fn uploads_that_stand_still_hold_nobody_up() {
    for options in [&["--body-timeout", "1h"][..], &["--body-timeout", "1h", "--session-key", "shared"]] {
        let bridge = Bridge::start(options, &["notebook"]);
        let session = (options.len() == 2).then(|| bridge.session());
        let post = |body: String| {
            let request = Request::post("/mcp", body);
            bridge.send(session.as_ref().map_or(request.clone(), |session| session.headers(request.clone())))
        };
        post(PING_REQUEST.to_owned()).expect(200, "its session is there");
        for sent in [0, 1, 100_000] {
            let still = stand_still(&bridge, session.as_ref(), 20, sent);
            let began = Instant::now();
            for _ in 0..20 {
                post(PING_REQUEST.to_owned()).expect(200, "a ping");
                let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } });
                post(cancelled.to_string()).expect(202, "a cancellation");
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{options:?} {sent}: {:?}", began.elapsed());
            let text = "x".repeat(5_000_000);
            let call = tool_call(1, "echo", json!({ "text": text })).to_string();
            assert_eq!(text_of(&post(call).answer()).len(), text.len(), "a large call");
            drop(still);
        }
    }
}

#[test]
fn an_upload_that_keeps_memory_from_others_is_given_up_and_named() {
    let bridge = Bridge::start(&["--body-timeout", "9s"], &["notebook"]);
    let session = bridge.session();
    let still = stand_still(&bridge, Some(&session), 16, 100_000);
    let text = "x".repeat(200_000);
    assert_eq!(session.text("echo", json!({ "text": text })), text);
    let sid = format!("sid=\"{}\"", &session.id[..8]);
    bridge.logged("who was slow", |line| {
        line.contains(r#"event="http.slow_body""#) && line.contains(&sid) && line.contains("bytes=100000")
    });
    let mut wanted = 0;
    for connection in still {
        let refusal = assert_refused(&mut connection.response(), 408, "request_timeout");
        let message = refusal["error"]["message"].to_string();
        wanted += usize::from(message.contains("256 KiB/s") && message.contains("others wait"));
    }
    assert!(wanted > 0, "it is told what for");
}

/// Beyond what may wait: at once, and not after an hour. One connection's requests are no more than may wait.
#[test]
fn more_bodies_than_may_wait_are_refused_at_once_and_small_ones_are_served() {
    let bridge = Bridge::start(&["--body-timeout", "1h"], &["notebook"]);
    let session = bridge.session();
    let memory = Memory::of(&bridge);
    let length = (10 * MIB).to_string();
    let fields = [
        ("content-type", "application/json"),
        ("mcp-session-id", &*session.id),
        ("content-length", &*length),
    ];
    let drains: Vec<_> = (0..4)
        .map(|_| {
            let mut client = Http2::open(bridge.address);
            let drain = client.drain();
            let head = client.head("POST", "/mcp", &fields);
            for _ in 0..128 {
                let stream = client.new_stream();
                client.send(HEADERS, END_HEADERS, stream, &head);
                client.send(DATA, 0, stream, &[b' '; 500]);
            }
            (client, drain)
        })
        .collect();
    let refused =
        || -> usize { drains.iter().map(|(_, drain)| drain.count(|frame| frame.kind == HEADERS)).sum() };
    eventually("those beyond are refused", || refused() > 200);
    assert!(refused() < 4 * 128 - 128, "as many as one connection has may wait: {} are refused", refused());
    session.ping().expect(200, "a small one");
    memory.stayed_within(4 * SLACK, "512 requests that wait");
    let refusal = drains.iter().find_map(|(_, drain)| {
        drain.find(|frame| {
            frame.kind == DATA && String::from_utf8_lossy(&frame.payload).contains("not_forwarded")
        })
    });
    assert!(refusal.is_some(), "it says that it may be sent again");
    drains.iter().for_each(|(client, _)| client.finish());
}

/// A request that waits for its body, as one that waits for its answer, needs little of its head.
#[test]
fn requests_that_wait_do_not_keep_their_heads() {
    const HEADS: usize = 28 * 1024;
    let bridge = Bridge::start(&["--body-timeout", "1h"], &["hostile", "hang"]);
    let session = bridge.session();
    let call = tool_call(1, "echo", json!({ "text": "a" })).to_string();
    for body in [None, Some(&call)] {
        let memory = Memory::of(&bridge);
        let clients: Vec<_> = (0..5)
            .map(|_| {
                let mut client = Http2::open(bridge.address);
                let filler = "y".repeat(HEADS / 4);
                let mut fields = vec![("content-type", "application/json"), ("mcp-session-id", &*session.id)];
                fields.extend(["x-a", "x-b", "x-c", "x-d"].map(|name| (name, &*filler)));
                let head = client.head("POST", "/mcp", &fields);
                let (first, rest) = head.split_at(16_000);
                for number in 0..120 {
                    let stream = client.new_stream();
                    client.send(HEADERS, 0, stream, first);
                    client.send(CONTINUATION, END_HEADERS, stream, rest);
                    if let Some(body) = body {
                        let body = body.replace("\"id\":1", &format!("\"id\":\"{number}\""));
                        client.send(DATA, END_STREAM, stream, body.as_bytes());
                    }
                }
                client
            })
            .collect();
        session.ping().expect(200, "a client beside them");
        memory.stayed_within(2 * SLACK, "17 MB of heads");
        drop(clients);
    }
}

#[test]
fn a_slow_initialize_holds_no_other_one_up() {
    let bridge = Bridge::start(&["--lazy", "--body-timeout", "1h"], &["notebook"]);
    let slow: Vec<_> = (0..300)
        .map(|_| {
            let mut connection = Connection::open(bridge.address);
            let request = Request::post("/mcp", "").with("Content-Length", "60000").to_bytes("localhost");
            connection.write(&[request, vec![b' '; 50_000]].concat());
            connection
        })
        .collect();
    let began = Instant::now();
    let session = bridge.session();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(session.text("list_notes", json!({})), "no notes yet");
    drop(slow);
}
