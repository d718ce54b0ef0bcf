//! A client that wishes the others ill. It judges little: that the others do not suffer is for them to see.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Soak;
use super::client::Trace;
use super::h2::{self, Http2};
use super::plan::Mischief;
use super::support::http::{BOTH, Connection};
use super::support::{Request, initialize, json, tool_call};

/// How long it holds what it has got hold of.
const HOLD: Duration = Duration::from_millis(300);

/// A big answer, in bytes; and one whose call fits in a frame and a window of HTTP/2 (RFC 9113 §4.2, §6.9.2).
const BIG: usize = 500_000;
const FRAME: usize = 15_000;

const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

/// What a stuck stream takes, in bytes.
const WINDOW: u32 = 1000;

/// What a slow body is announced to have, in bytes.
const ANNOUNCED: usize = 5_000_000;

pub struct Rogue {
    pub number: u64,
    pub trace: Trace,
    done: u64,
}

impl Rogue {
    pub fn new(number: u64) -> Self {
        Self { number, trace: Trace::default(), done: 0 }
    }

    /// One thing after the other until the time is over.
    pub fn wave(&mut self, soak: &Soak, until: Instant) {
        while Instant::now() < until && !soak.failed.load(Ordering::Relaxed) {
            self.done += 1;
            let mischief = Mischief::new(soak.plan.seed, self.number, self.done);
            self.trace.begin(format!("{mischief:?}"));
            soak.count("mischief");
            self.perform(soak, mischief);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn perform(&self, soak: &Soak, mischief: Mischief) {
        let address = soak.bridge.address;
        match mischief {
            Mischief::BadStarts(count) => {
                let bad = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize" });
                for _ in 0..count {
                    let response = Request::post("/mcp", bad.to_string()).send(address);
                    self.trace.outcome(&response.status.to_string());
                }
            }
            Mischief::SlowBodies { count, in_session } => {
                let session = Session::open(soak);
                let head = Request::post("/mcp", "{").with("Content-Length", &ANNOUNCED.to_string());
                let head = match &session {
                    Some(session) if in_session => session.own(head),
                    _ => head,
                };
                self.hold((0..count).map(|_| unread(soak, &head)).collect());
            }
            Mischief::UnreadAnswers(count) => {
                let Some(session) = Session::open(soak) else { return };
                let calls = (0..count).map(|id| session.own(Request::post("/mcp", big(id))));
                self.hold(calls.map(|call| unread(soak, &call)).collect());
            }
            Mischief::UnreadBatch(count) => {
                let Some(session) = Session::open(soak) else { return };
                let calls: Vec<String> = (0..count).map(big).collect();
                let batch = Request::post("/mcp", format!("[{}]", calls.join(",")));
                self.hold(vec![unread(soak, &session.own(batch.with("Accept", "application/json")))]);
            }
            Mischief::Resumptions(count) => {
                let Some(session) = Session::open(soak) else { return };
                let tell = tool_call(0, "tell", json!({ "text": "x".repeat(1000), "times": 100 }));
                let mut open = vec![unread(soak, &session.own(Request::post("/mcp", tell.to_string())))];
                let again = session.own(Request::listen("/mcp")).header("Last-Event-ID", "0-0");
                open.extend((0..count).map(|_| unread(soak, &again)));
                self.hold(open);
            }
            Mischief::StuckStream => {
                let (Some(stuck), Some(well)) = (Session::open(soak), Session::open(soak)) else { return };
                self.stuck_stream(soak, &stuck, &well);
            }
            Mischief::Origins { count, length } => {
                let origin = format!("http://{}", "o".repeat(length));
                for _ in 0..count {
                    let request = Request::listen("/mcp").header("Origin", &origin);
                    request.send(address).expect(403, "a foreign origin is refused");
                }
            }
            Mischief::Array(count) => {
                let array = format!("[{}1]", "1,".repeat(count - 1));
                Request::post("/mcp", array).send(address).expect(400, "an array of numbers is refused");
            }
        }
    }

    fn hold(&self, open: Vec<Connection>) {
        thread::sleep(HOLD);
        drop(open);
    }

    /// A stream that takes nothing, and one that must have its end all the same.
    fn stuck_stream(&self, soak: &Soak, stuck: &Session<'_>, well: &Session<'_>) {
        let mut connection = Http2::open(soak.bridge.address);
        let setting = [&INITIAL_WINDOW_SIZE[..], &WINDOW.to_be_bytes()].concat();
        connection.send(h2::SETTINGS, 0, 0, &setting);
        let mut post = |session: &Session<'_>, body: &str| {
            let fields =
                [("content-type", "application/json"), ("accept", BOTH), ("mcp-session-id", &session.id)];
            connection.request("POST", "/mcp", &fields, Some(body.as_bytes()))
        };
        post(stuck, &echo(0, FRAME));
        let well = post(well, &tool_call(0, "sleep", json!({ "ms": 300 })).to_string());
        loop {
            let frame = connection.frame().expect("the connection goes on");
            assert_ne!(frame.kind, h2::GOAWAY, "the connection goes on");
            let length = u32::try_from(frame.payload.len()).unwrap();
            if frame.kind == h2::DATA && length > 0 {
                connection.send(h2::WINDOW_UPDATE, 0, 0, &length.to_be_bytes());
                if frame.stream == well && frame.flags & h2::END_STREAM == 0 {
                    connection.send(h2::WINDOW_UPDATE, 0, well, &length.to_be_bytes());
                }
            }
            let ends = matches!(frame.kind, h2::DATA | h2::HEADERS) && frame.flags & h2::END_STREAM != 0;
            if frame.stream == well && (ends || frame.kind == h2::RST_STREAM) {
                assert!(ends, "a stream that takes what comes is not reset");
                return;
            }
        }
    }
}

/// A session that ends when its rogue is through with it.
struct Session<'s> {
    soak: &'s Soak,
    id: String,
}

impl<'s> Session<'s> {
    /// `None`: there is no place, or its child did not start.
    fn open(soak: &'s Soak) -> Option<Self> {
        let response = soak.bridge.post(initialize(0, "2025-03-26").to_string());
        let id = response.header("mcp-session-id")?.to_owned();
        Some(Self { soak, id })
    }

    fn own(&self, request: Request) -> Request {
        request.header("Mcp-Session-Id", &self.id)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = self.own(Request::new("DELETE", "/mcp")).send(self.soak.bridge.address);
        }
    }
}

fn big(id: u64) -> String {
    echo(id, BIG)
}

fn echo(id: u64, bytes: usize) -> String {
    tool_call(id, "echo", json!({ "text": "x".repeat(bytes) })).to_string()
}

/// Sends a request and reads nothing.
fn unread(soak: &Soak, request: &Request) -> Connection {
    let mut connection = Connection::open(soak.bridge.address);
    connection.write(&request.to_bytes("localhost"));
    connection
}
