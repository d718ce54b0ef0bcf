//! What the whole-program tests share: a running bridge, a byte-level HTTP client, and a look into `/proc`.
//!
//! Standard library only and blocking: a test of an asynchronous program should not be explained by the runtime of the
//! test. Nothing here sleeps and hopes; everything that must come is waited for until [`PATIENCE`] is over.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses its own part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "these rules are for the bridge; a test shall fail loudly"
)]

pub mod http;
pub mod proc;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

pub use http::{Event, Request, Response};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
pub use serde_json::{Value, json};

/// How long a test waits for what must come. Generous, because a build machine stalls; a passing test never waits so long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Marks every process that descends from one bridge, however far it ran away: the environment is inherited.
const MARK: &str = "BRIDGE_TEST_MARK";

/// Polls until `done`, or panics with the claim that did not come true.
#[track_caller]
pub fn eventually(claim: &str, done: impl FnMut() -> bool) {
    within(PATIENCE, claim, done);
}

#[track_caller]
pub fn within(limit: Duration, claim: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {claim}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Path of a compiled example; `cargo test` builds them next to the tests.
pub fn example(name: &str) -> String {
    let deps = env::current_exe().unwrap();
    let path = deps.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples` first", path.display());
    path.into_os_string().into_string().unwrap()
}

/// A directory of this test's own that is gone at its end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = env::temp_dir().join(format!("mcp-bridge-test-{}", unique()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().unwrap()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.0.join(name)).unwrap_or_default()).into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// The command line `mcp-bridge OPTIONS -- COMMAND`. Names of examples stand for their paths.
pub fn bridge_command(options: &[&str], command: &[&str]) -> Command {
    let mut bridge = Command::new(env!("CARGO_BIN_EXE_mcp-bridge"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("MCP_BRIDGE_") || name == "RUST_LOG" {
            bridge.env_remove(name);
        }
    }
    bridge.args(options);
    if !command.is_empty() {
        bridge.arg("--").args(command.iter().map(|word| known(word)));
    }
    bridge
}

fn known(word: &str) -> String {
    if matches!(word, "notebook" | "hostile" | "modern") { example(word) } else { word.to_owned() }
}

/// The same command as process 1 of a PID namespace of its own. Where that takes rights we do not have, says so.
pub fn as_process_1(command: &Command) -> Option<Command> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["-pf", "--mount-proc", "--kill-child", "--"]);
        unshare
    };
    let mut probe = unshare();
    let works = probe.arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: `unshare -pf --mount-proc` does not work here, it takes root");
        return None;
    }
    let mut wrapped = unshare();
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    Some(wrapped)
}

/// A command whose first process is `hostile MODE` and all later ones `hostile good`: one bad child among good ones.
/// The bridge must be `--lazy`, so that the first process belongs to the first session.
pub fn first_is_hostile(scratch: &Scratch, mode: &str) -> Vec<String> {
    let script = format!(r#"if mkdir "$1" 2>/dev/null; then exec "$0" {mode}; else exec "$0" good; fi"#);
    ["sh", "-c", &script, &example("hostile"), &scratch.path("taken")].map(str::to_owned).to_vec()
}

/// A command that behaves as `server`, with all that it reads and writes also kept in two files.
pub fn recorded(scratch: &Scratch, server: &str) -> Vec<String> {
    let (name, arguments) = server.split_once(' ').unwrap_or((server, ""));
    let script = format!(r#"tee -a "$1" | "$0" {arguments} | tee -a "$2""#);
    ["sh", "-c", &script, &example(name), &scratch.path("stdin"), &scratch.path("stdout")]
        .map(str::to_owned)
        .to_vec()
}

// ---------------------------------------------------------------------------------------------- a finished run

/// What a bridge said that ended by itself.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the bridge until it ends.
#[track_caller]
pub fn run(options: &[&str], command: &[&str]) -> Finished {
    run_command(bridge_command(options, command))
}

#[track_caller]
pub fn run_command(mut command: Command) -> Finished {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bridge starts");
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        thread::spawn(move || {
            let mut text = String::new();
            let _ = from.read_to_string(&mut text);
            text
        })
    };
    let (stdout, stderr) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let status = status.unwrap_or_else(|| panic!("the bridge did not end; stderr: {stderr}"));
    Finished { code: exit_code(status), stdout, stderr }
}

fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

// ---------------------------------------------------------------------------------------------- a running bridge

#[derive(Default)]
struct Log {
    /// The lines so far, and whether the last one has been read.
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

/// A bridge that listens on a port of its own, and all processes it started.
pub struct Bridge {
    process: Child,
    mark: String,
    log: Arc<Log>,
    stdout: Option<thread::JoinHandle<Vec<u8>>>,
    pub address: SocketAddr,
}

impl Bridge {
    #[track_caller]
    pub fn start(options: &[&str], command: &[&str]) -> Self {
        Self::start_with(options, command, |_| {})
    }

    /// As [`start`](Self::start), with a last change to the command, such as its environment.
    #[track_caller]
    pub fn start_with(options: &[&str], command: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut bridge = bridge_command(&[&["--listen", "127.0.0.1:0"], options].concat(), command);
        change(&mut bridge);
        Self::spawn(bridge)
    }

    #[track_caller]
    pub fn spawn(mut bridge: Command) -> Self {
        let mark = unique();
        bridge.env(MARK, &mark).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = bridge.spawn().expect("bridge starts");

        let log = Arc::new(Log::default());
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let writer = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                writer.lines.lock().unwrap().0.push(String::from_utf8_lossy(&line).into_owned());
                writer.grown.notify_all();
            }
            writer.lines.lock().unwrap().1 = true;
            writer.grown.notify_all();
        });
        let mut stdout = process.stdout.take().unwrap();
        let stdout = Some(thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stdout, &mut bytes);
            bytes
        }));

        let mut bridge = Bridge { process, mark, log, stdout, address: ([127, 0, 0, 1], 0).into() };
        let line = bridge.logged("the start line names the URL", |line| line.contains("http://127.0.0.1:"));
        let after = line.split("http://").nth(1).unwrap();
        let end = after.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(after.len());
        bridge.address = after[..end].parse().unwrap_or_else(|_| panic!("no address in start line {line:?}"));
        bridge
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    // ------------------------------------------------------------------------------------------ log and end

    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().0.clone()
    }

    /// Waits for a line of the log and returns it.
    #[track_caller]
    pub fn logged(&self, claim: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.0.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                // The lock goes first: the log is shown once more on the way out.
                drop(lines);
                panic!("not in the log: {claim}");
            }
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All that came on stdout. The bridge must have ended.
    pub fn stdout(&mut self) -> String {
        let reader = self.stdout.take().expect("stdout is read once");
        String::from_utf8_lossy(&reader.join().unwrap()).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the end of the bridge and of its log, and returns its exit code, 128 + n for signal n.
    #[track_caller]
    pub fn exit_code(&mut self) -> i32 {
        let mut status = None;
        eventually("the bridge exits", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        eventually("the log ends with the bridge", || self.log.lines.lock().unwrap().1);
        status.and_then(exit_code).unwrap()
    }

    // ------------------------------------------------------------------------------------------ processes

    /// Everything that descends from this bridge and is alive, the bridge itself left out.
    pub fn processes(&self) -> Vec<proc::Process> {
        let tag = format!("{MARK}={}", self.mark);
        let mut found = proc::with_environment(&tag);
        found.retain(|process| process.pid != self.pid());
        found
    }

    /// How many connections of clients the bridge has open.
    pub fn connections(&self) -> usize {
        proc::connections_at(self.address.port())
    }

    pub fn zombies(&self) -> Vec<proc::Process> {
        proc::children(self.pid()).into_iter().filter(|child| child.state == 'Z').collect()
    }

    #[track_caller]
    pub fn leaves_nothing(&self) {
        eventually("no process is left", || self.processes().is_empty());
        eventually("no zombie is left", || self.zombies().is_empty());
    }

    // ------------------------------------------------------------------------------------------ requests

    #[track_caller]
    pub fn send(&self, request: Request) -> Response {
        request.send(self.address)
    }

    /// POST without a session.
    #[track_caller]
    pub fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.send(Request::post("/mcp", body))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.send(Request::new("GET", path))
    }

    /// The first half of the handshake.
    #[track_caller]
    pub fn initialize(&self) -> Session {
        self.initialize_as("2025-06-18")
    }

    #[track_caller]
    pub fn initialize_as(&self, version: &str) -> Session {
        let mut response = self.post(initialize(0, version).to_string());
        response.expect(200, "initialize is answered");
        Session::from_response(self.address, &mut response)
    }

    /// A session whose handshake is complete.
    #[track_caller]
    pub fn session(&self) -> Session {
        let session = self.initialize();
        session.notify("notifications/initialized", json!({}));
        session
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("log of the bridge:\n{}", self.log().join("\n"));
        }
        let left = self.processes();
        let _ = self.process.kill();
        let _ = self.process.wait();
        for process in left.iter().chain(&self.processes()) {
            let _ = nix::sys::signal::kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

// ---------------------------------------------------------------------------------------------- a session

pub fn initialize(id: impl Into<Value>, version: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id.into(), "method": "initialize",
        "params": {
            "protocolVersion": version,
            "capabilities": { "roots": {}, "sampling": {}, "elicitation": {} },
            "clientInfo": { "name": "test", "version": "0" },
        },
    })
}

pub fn tool_call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id.into(), "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    })
}

/// The client's side of one session. Clones may be used from several threads.
#[derive(Clone)]
pub struct Session {
    pub address: SocketAddr,
    pub id: String,
    /// The child's answer to `initialize`.
    pub greeting: Value,
    /// From 1000 on: tests that write their own ids take small ones.
    next_id: Arc<AtomicU64>,
}

impl Session {
    #[track_caller]
    pub fn from_response(address: SocketAddr, response: &mut Response) -> Self {
        let greeting = response.answer();
        Self::from_answer(address, response, greeting)
    }

    /// As [`from_response`](Self::from_response), where the body has been read.
    #[track_caller]
    pub fn from_answer(address: SocketAddr, response: &Response, greeting: Value) -> Self {
        let id = response.header("mcp-session-id").expect("initialize names the session").to_owned();
        Session { address, id, greeting, next_id: Arc::new(AtomicU64::new(1000)) }
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub fn headers(&self, request: Request) -> Request {
        request.header("Mcp-Session-Id", &self.id)
    }

    /// POST of any body in this session.
    #[track_caller]
    pub fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.headers(Request::post("/mcp", body)).send(self.address)
    }

    /// Sends a POST without waiting for any answer.
    #[track_caller]
    pub fn begin(&self, body: impl AsRef<[u8]>) -> http::Connection {
        let mut connection = http::Connection::open(self.address);
        connection.write(&self.headers(Request::post("/mcp", body)).to_bytes(&self.address.to_string()));
        connection
    }

    /// Starts a tool call and returns as soon as the head of the answer is there.
    #[track_caller]
    pub fn start_call(&self, tool: &str, arguments: Value) -> Response {
        self.post(tool_call(self.next_id(), tool, arguments).to_string())
    }

    /// Sends a request and returns the whole answer. It must be HTTP 200, carry the id, and be the only one.
    #[track_caller]
    pub fn request(&self, method: &str, params: Value) -> Value {
        let id = self.next_id();
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut response = self.post(body.to_string());
        response.expect(200, method);
        let answer = response.answer();
        assert_eq!(answer["id"], id, "the answer carries the id of its request: {answer}");
        answer
    }

    #[track_caller]
    pub fn call(&self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// A call that succeeds, and its text.
    #[track_caller]
    pub fn text(&self, tool: &str, arguments: Value) -> String {
        let answer = self.call(tool, arguments);
        text_of(&answer)
    }

    /// A call of a tool whose text is JSON.
    #[track_caller]
    pub fn look(&self, tool: &str) -> Value {
        serde_json::from_str(&self.text(tool, json!({}))).unwrap()
    }

    /// The methods that the child has read so far, in order. Needs `hostile`.
    #[track_caller]
    pub fn seen(&self) -> Vec<Value> {
        self.look("seen").as_array().unwrap().clone()
    }

    /// How often the child has read this method. Needs `hostile`.
    #[track_caller]
    pub fn seen_count(&self, method: &str) -> usize {
        self.seen().iter().filter(|entry| entry["method"] == method).count()
    }

    #[track_caller]
    pub fn notify(&self, method: &str, params: Value) {
        let mut response =
            self.post(json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string());
        response.expect(202, method);
        assert!(response.bytes().is_empty(), "an accepted notification has no body");
    }

    /// Answers a request of the child.
    #[track_caller]
    pub fn respond(&self, id: &Value, result: Value) {
        let mut response = self.post(json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string());
        response.expect(202, "a response is accepted");
    }

    /// Opens the listening stream.
    #[track_caller]
    pub fn listen(&self) -> Response {
        let response = self.headers(Request::listen("/mcp")).send(self.address);
        assert_eq!((response.status, response.is_sse()), (200, true), "GET is answered with a stream");
        response
    }

    #[track_caller]
    pub fn resume(&self, last_event_id: &str) -> Response {
        self.headers(Request::listen("/mcp")).header("Last-Event-ID", last_event_id).send(self.address)
    }

    #[track_caller]
    pub fn delete(&self) -> Response {
        self.headers(Request::new("DELETE", "/mcp")).send(self.address)
    }

    /// Status of a ping: 200 in a live session, 404 after its end.
    #[track_caller]
    pub fn ping(&self) -> Response {
        self.post(json!({ "jsonrpc": "2.0", "id": self.next_id(), "method": "ping" }).to_string())
    }
}

#[track_caller]
pub fn text_of(answer: &Value) -> String {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("a tool result with text, not {answer}")).to_owned()
}

/// The reason of an error that the bridge made.
#[track_caller]
pub fn reason(answer: &Value) -> &str {
    let data = &answer["error"]["data"];
    assert_eq!(data["source"], "mcp-bridge", "the error says that the bridge made it: {answer}");
    data["reason"].as_str().unwrap_or_else(|| panic!("an error with a reason, not {answer}"))
}

/// A refusal: its status, the token in header and body, and a sentence.
#[track_caller]
pub fn assert_refused(response: &mut Response, status: u16, token: &str) -> Value {
    let body = response.text();
    assert_eq!(response.status, status, "status of the refusal {token}: {body}");
    let answer: Value =
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("a refusal is JSON, not {body:?}"));
    assert_eq!(reason(&answer), token, "reason of the refusal: {answer}");
    assert_eq!(response.header("mcp-bridge-error"), Some(token), "balancers count refusals by this header");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(
        answer["error"]["message"].as_str().is_some_and(|text| text.len() > 10),
        "says what was wrong: {answer}"
    );
    answer
}
