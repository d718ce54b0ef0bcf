//! What one bad session costs the others: `cargo run --release --example pressure [-- --strict]`.
//!
//! Each scenario has a bridge of its own. Two quiet sessions make small calls one after the other; then a third session
//! does its worst beside them; then it is gone again. A child that keeps a core busy slows everybody on a small machine,
//! bridge or no bridge. Such a child runs once more beside the quiet sessions but outside of the bridge, with its output
//! read and thrown away: what is slower then is not the bridge's doing. Memory is the bridge's largest resident set as
//! the kernel counts it (`VmHWM`, proc(5)).
//!
//! Exit code 1: a scenario took more memory than its cap and 16 MiB, or did not do what it says; with `--strict` also if
//! the median of the quiet sessions more than doubled.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "these rules are for the bridge"
)]

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{cmp, env, fs, thread};

use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MIB: u64 = 1 << 20;

/// How much memory beyond its cap a scenario may take.
const MARGIN: u64 = 16;

/// How often everything is done; each ratio is the median of so many. A machine that others use too is not the same from
/// one second to the next.
const ROUNDS: usize = 3;

/// How long the quiet sessions are measured in a round: alone (each time), beside the bad session, beside its child alone.
const QUIET: Duration = Duration::from_millis(200);
const PRESSURE: Duration = Duration::from_millis(1000);
const CONTROL: Duration = Duration::from_millis(350);

/// How long it goes on before that.
const RAMP: Duration = Duration::from_millis(200);

/// How many calls at least make a median.
const SAMPLES: usize = 300;

/// How much must flow to be called a flood, in MiB.
const FLOOD: u64 = 10;

/// How many streams a client opens that reads none of them, and how often.
const STALLED: usize = 6;
const STALL_EVERY: Duration = Duration::from_millis(150);

/// How long anything that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

// ---------------------------------------------------------------------------------------------- scenarios

struct Scenario {
    name: &'static str,
    /// Arguments of the example `hostile`.
    mode: &'static str,
    client: Client,
    /// What of the session the bridge may hold, in MiB, and by which limits.
    cap: u64,
    limits: &'static str,
}

/// What the client of the bad session does.
#[derive(Clone, Copy, PartialEq)]
enum Client {
    /// Posts so many calls at once, of so many bytes each.
    Posts(usize, usize),
    /// Nothing.
    Waits,
    /// Listens, and reads what comes.
    Listens,
    /// Opens streams and reads none of them.
    Stalls,
    /// Calls again and again, and gets this at least.
    Calls { answer: &'static str, length: usize },
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the child never reads",
        mode: "deaf",
        client: Client::Posts(64, 1 << 20),
        cap: 14,
        limits: "stdin queue 4, `--max-body` 10",
    },
    Scenario {
        name: "the child floods stdout, nobody listens",
        mode: "flood_stdout",
        client: Client::Waits,
        cap: 4,
        limits: "`--replay-buffer` 4",
    },
    Scenario {
        name: "the child floods stdout, its client reads",
        mode: "flood_stdout",
        client: Client::Listens,
        cap: 5,
        limits: "`--replay-buffer` 4, unsent 1",
    },
    Scenario {
        name: "the child floods stdout, its client stops reading",
        mode: "flood_stdout",
        client: Client::Stalls,
        cap: 10,
        limits: "`--replay-buffer` 4, unsent 1 for each of 6 streams",
    },
    Scenario {
        name: "the child floods stderr",
        mode: "flood_stderr",
        client: Client::Waits,
        cap: 1,
        limits: "log 1",
    },
    Scenario {
        name: "the child writes lines of 100 MB",
        mode: "huge 100000000",
        client: Client::Calls { answer: "response_too_large", length: 0 },
        cap: 64,
        limits: "`--max-message` 64",
    },
    Scenario {
        name: "the child writes 5 million brackets in a line",
        mode: "deep 2500000",
        client: Client::Calls { answer: "[[[[", length: 5_000_000 },
        cap: 64,
        limits: "`--max-message` 64",
    },
];

fn main() -> ExitCode {
    let strict = env::args().skip(1).any(|arg| arg == "--strict");
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(missing) => {
            eprintln!("{missing} is missing: run `cargo build --release --bins --examples` first");
            return ExitCode::from(2);
        }
    };
    println!("{}. Times of a small call in another session: median / 99 % / longest.\n", machine());
    println!(
        "| one session: | what it did, in one of three rounds | calls elsewhere: quiet | beside it | ratio of medians | beside its child alone \
         | peak memory above idle | cap | limit | |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    let (mut good, mut noise) = (true, Vec::new());
    for scenario in SCENARIOS {
        match scenario.run(&programs) {
            Ok(row) => {
                println!("{}", row.to_markdown(scenario));
                noise.extend(&row.noise);
                good &= row.fits(scenario) && !(strict && row.slowdown > 2.0);
            }
            Err(error) => {
                println!("| {} | **failed: {error}** | | | | | | | | |", scenario.name);
                good = false;
            }
        }
    }
    println!(
        "\nThe medians of two quiet phases next to each other differ by a factor of {:.1}, at most {:.1}: \
         smaller ratios are noise.",
        percentile(&noise, 50).unwrap_or(f64::NAN),
        percentile(&noise, 100).unwrap_or(f64::NAN),
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn machine() -> String {
    let first = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(": ").next().unwrap_or_default().trim().to_owned()
    };
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let load = first("/proc/loadavg", "");
    format!(
        "{cores} cores ({}), Linux {}, load {} at the start",
        first("/proc/cpuinfo", "model name"),
        first("/proc/sys/kernel/osrelease", ""),
        load.split(' ').next().unwrap_or_default(),
    )
}

struct Row {
    did: String,
    quiet: Vec<Duration>,
    pressure: Vec<Duration>,
    /// By how much the median grew, the median of the rounds: beside the bad session, and beside its child alone where that is busy.
    slowdown: f64,
    control: Option<f64>,
    /// By how much the medians of two quiet phases next to each other differ: no ratio says more than this allows.
    noise: Vec<f64>,
    /// Of the bridge, beyond what it took before, in bytes.
    memory: u64,
}

impl Row {
    fn fits(&self, scenario: &Scenario) -> bool {
        self.memory <= (scenario.cap + MARGIN) * MIB
    }

    fn to_markdown(&self, scenario: &Scenario) -> String {
        let control = self.control.map_or("–".to_owned(), |ratio| format!("{ratio:.1}"));
        format!(
            "| {} | {} | {} | {} | {:.1} | {control} | {:.1} MiB | {} MiB: {} | {} MiB | {} |",
            scenario.name,
            self.did,
            times(&self.quiet),
            times(&self.pressure),
            self.slowdown,
            self.memory as f64 / MIB as f64,
            scenario.cap,
            scenario.limits,
            scenario.cap + MARGIN,
            if self.fits(scenario) { "ok" } else { "**over**" },
        )
    }
}

impl Scenario {
    fn run(&self, programs: &Programs) -> Outcome<Row> {
        let bridge = Bridge::start(programs, self.mode)?;
        let mut others = [Session::open(&bridge)?, Session::open(&bridge)?];
        let mut before = measure(&mut others, QUIET)?;
        let idle = figure(bridge.pid(), "status", "VmRSS:") * 1024;
        fs::write(&bridge.flag, "")?; // from here on new sessions get the bad child

        let (mut quiet, mut pressure) = (before.clone(), Vec::new());
        let (mut slowdowns, mut controls, mut did) = (Vec::new(), Vec::new(), String::new());
        let mut noise = Vec::new();
        for _ in 0..ROUNDS {
            let mut bad = Session::open(&bridge)?;
            let child = bridge.child_of(&bad)?;
            let (does, under) =
                beside(&mut others, PRESSURE, |stop| self.press(&bridge, &mut bad, child, stop))?;
            bad.end()?;
            wait_until("the child ends with its session", || (!alive(child)).then_some(()))?;
            let mut after = measure(&mut others, QUIET)?;
            noise.push(difference(&before, &after));
            slowdowns.push(ratio(&under, &[before, after.clone()].concat()));
            quiet.extend(&after);
            pressure.extend(under);
            did = does;

            if self.keeps_a_core_busy() {
                let ((), under) = beside(&mut others, CONTROL, |stop| self.press_outside(programs, stop))?;
                let last = measure(&mut others, QUIET)?;
                noise.push(difference(&after, &last));
                controls.push(ratio(&under, &[after, last.clone()].concat()));
                quiet.extend(&last);
                after = last;
            }
            before = after;
        }
        // The sessions' ends are in it: they must not cost more than their lives.
        let memory = (figure(bridge.pid(), "status", "VmHWM:") * 1024).saturating_sub(idle);
        let slowdown = percentile(&slowdowns, 50).unwrap_or(f64::NAN);
        Ok(Row { did, quiet, pressure, slowdown, control: percentile(&controls, 50), noise, memory })
    }

    /// Whether there is anything to compare with: a child that nobody reads stands still by itself.
    fn keeps_a_core_busy(&self) -> bool {
        !matches!(self.client, Client::Posts(..) | Client::Stalls)
    }

    /// Does its worst until told to stop; then says what that was.
    fn press(&self, bridge: &Bridge, bad: &mut Session, child: u32, stop: &AtomicBool) -> Outcome<String> {
        let (start, before) = (Instant::now(), written(child));
        let mut did = String::new();
        match self.client {
            Client::Posts(count, size) => did = post(bad, count, size, stop)?,
            Client::Waits => wait(stop),
            Client::Listens => {
                let read = listen(bad, stop)? / MIB;
                claim(read >= FLOOD, "the client reads a flood")?;
                did = format!(", {read} MiB read");
            }
            Client::Stalls => {
                let streams = stall(bad)?;
                wait(stop);
                wait_until("a reader that stops is cut off", || {
                    (bridge.logged("stream.cut") > 0).then_some(())
                })?;
                drop(streams);
                did = format!(", {STALLED} streams not read");
            }
            Client::Calls { answer, length } => {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    let got = bad.call("echo", "")?;
                    claim(got.len() >= length && got.contains(answer), "each call gets its answer")?;
                    calls += 1;
                }
                did = format!(" in {calls} lines");
            }
        }
        if matches!(self.client, Client::Posts(..)) {
            return Ok(did);
        }
        let wrote = (written(child) - before) / MIB;
        claim(wrote >= FLOOD || !self.keeps_a_core_busy(), "the child writes a flood")?;
        if self.mode == "flood_stderr" {
            claim(bridge.logged("child.stderr_suppressed") > 0, "the flood was for the log")?;
        }
        Ok(format!("{wrote} MiB in {:.1} s{did}", start.elapsed().as_secs_f64()))
    }

    /// The same child without the bridge: whatever it says is read and thrown away.
    fn press_outside(&self, programs: &Programs, stop: &AtomicBool) -> Outcome<()> {
        let mut child = Command::new(&programs.hostile)
            .args(self.mode.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = Arc::new(AtomicUsize::new(0));
        discard(child.stdout.take(), Arc::clone(&lines));
        discard(child.stderr.take(), Arc::default());
        let mut stdin = child.stdin.take().ok_or("stdin is piped")?;
        let mut say = |message: &Value| writeln!(stdin, "{message}");
        let mut press = || {
            say(&initialize())?;
            say(&initialized())?;
            if !matches!(self.client, Client::Calls { .. }) {
                wait(stop);
                return Ok(());
            }
            let mut answers = 1;
            while !stop.load(Ordering::Relaxed) {
                say(&call("echo", json!({ "text": "" })))?;
                answers += 1;
                wait_until("the child answers", || (lines.load(Ordering::Relaxed) >= answers).then_some(()))?;
            }
            Ok(())
        };
        let pressed = press();
        let _ = child.kill();
        let _ = child.wait();
        pressed
    }
}

/// Posts many calls at once to a child that reads none of them.
fn post(bad: &Session, count: usize, size: usize, stop: &AtomicBool) -> Outcome<String> {
    let mut posts = Vec::new();
    for _ in 0..count {
        let request = bad.post_request(&call("echo", json!({ "text": "x".repeat(size) })));
        let connection = TcpStream::connect(bad.address)?;
        connection.set_nonblocking(true)?;
        posts.push((connection, request, 0));
    }
    while !stop.load(Ordering::Relaxed) {
        for (connection, request, sent) in &mut posts {
            // An error is a full socket; one that was closed shows below.
            *sent += connection.write(request.get(*sent..).unwrap_or_default()).unwrap_or(0);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let mut taken = 0;
    for (connection, ..) in &mut posts {
        let mut bytes = [0; 4096];
        let length = connection.read(&mut bytes).unwrap_or(0);
        let head = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
        claim(!head.contains("data:"), "no call is answered")?;
        taken += usize::from(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"));
    }
    claim(taken > 0 && taken < count, "some calls are taken and all others wait")?;
    Ok(format!("{count} calls of {} MiB, {taken} taken, none answered", size as u64 / MIB))
}

/// Listens, and says how many bytes came.
fn listen(bad: &Session, stop: &AtomicBool) -> Outcome<u64> {
    let mut connection = TcpStream::connect(bad.address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(&bad.get_request())?;
    let (mut buffer, mut read) = (vec![0; 64 * 1024], 0);
    while !stop.load(Ordering::Relaxed) {
        let count = connection.read(&mut buffer)?;
        claim(count > 0, "the stream goes on")?;
        read += count as u64;
    }
    Ok(read)
}

/// Opens streams, those of calls and listening ones by turns, and reads none of them.
fn stall(bad: &Session) -> Outcome<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for turn in 0..STALLED {
        let mut connection = TcpStream::connect(bad.address)?;
        let slow_call = || bad.post_request(&call("sleep", json!({ "ms": 60_000 })));
        connection.write_all(&if turn % 2 == 0 { slow_call() } else { bad.get_request() })?;
        streams.push(connection);
        thread::sleep(STALL_EVERY);
    }
    Ok(streams)
}

// ---------------------------------------------------------------------------------------------- measuring

/// Small calls one after the other, by turns in each of these sessions.
fn measure(sessions: &mut [Session], length: Duration) -> Outcome<Vec<Duration>> {
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while samples.len() < SAMPLES || begin.elapsed() < length {
        claim(begin.elapsed() < PATIENCE, "the others are answered in time")?;
        for session in &mut *sessions {
            let start = Instant::now();
            let answer = session.call("echo", "hello")?;
            samples.push(start.elapsed());
            claim(answer.contains("hello"), "the others get their own answers")?;
        }
    }
    Ok(samples)
}

/// Measures while something else goes on.
fn beside<T: Send>(
    sessions: &mut [Session],
    length: Duration,
    act: impl FnOnce(&AtomicBool) -> Outcome<T> + Send,
) -> Outcome<(T, Vec<Duration>)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let actor = scope.spawn(|| act(&stop));
        thread::sleep(RAMP);
        let samples = measure(sessions, length);
        stop.store(true, Ordering::Relaxed);
        let did = actor.join().map_err(|_| "the bad client panicked")??;
        Ok((did, samples?))
    })
}

/// The value that so many of 100 do not exceed.
fn percentile<T: PartialOrd + Copy>(values: &[T], percent: usize) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(cmp::Ordering::Equal));
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied()
}

fn ratio(these: &[Duration], those: &[Duration]) -> f64 {
    let median = |of: &[Duration]| percentile(of, 50).unwrap_or_default().as_secs_f64();
    median(these) / median(those)
}

/// The ratio of the larger median to the smaller.
fn difference(these: &[Duration], those: &[Duration]) -> f64 {
    ratio(these, those).max(ratio(those, these))
}

/// Median, 99th percentile and the longest.
fn times(of: &[Duration]) -> String {
    let ms = |percent| percentile(of, percent).unwrap_or_default().as_secs_f64() * 1000.0;
    format!("{:.2} / {:.1} / {:.0} ms", ms(50), ms(99), ms(100))
}

/// A number that the kernel has about a process: the one behind `name` in a file of `/proc/PID`.
fn figure(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// How many bytes a process has written, to whomever.
fn written(pid: u32) -> u64 {
    figure(pid, "io", "wchar:")
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// What a scenario says of itself must be true, or its numbers are about something else.
fn claim(holds: bool, what: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(format!("not true: {what}").into()) }
}

fn wait(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn wait_until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> Outcome<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return Ok(value);
        }
        claim(Instant::now() < deadline, what)?;
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reads to the end, in a thread of its own, and counts the lines.
fn discard(from: Option<impl Read + Send + 'static>, lines: Arc<AtomicUsize>) {
    let Some(mut from) = from else { return };
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let ends = buffer.iter().take(count).filter(|byte| **byte == b'\n').count();
            lines.fetch_add(ends, Ordering::Relaxed);
        }
    });
}

// ---------------------------------------------------------------------------------------------- the bridge

struct Programs {
    bridge: PathBuf,
    hostile: PathBuf,
}

impl Programs {
    /// Next to this one, where cargo puts them; an error names what is missing.
    fn find() -> Result<Self, String> {
        let here = env::current_exe().map_err(|error| error.to_string())?;
        let examples = here.parent().unwrap_or(Path::new(""));
        let bridge = examples.parent().unwrap_or(Path::new("")).join("mcp-bridge");
        let hostile = examples.join("hostile");
        let missing = [&bridge, &hostile].into_iter().find(|program| !program.exists());
        match missing.map(|missing| missing.display().to_string()) {
            Some(missing) => Err(missing),
            None => Ok(Self { bridge, hostile }),
        }
    }
}

/// A bridge whose new sessions get a good child, or a bad one once the file `flag` exists.
struct Bridge {
    process: Child,
    address: SocketAddr,
    flag: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Bridge {
    fn start(programs: &Programs, mode: &str) -> Outcome<Self> {
        let flag = env::temp_dir().join(format!("mcp-bridge-pressure-{}", process::id()));
        let _ = fs::remove_file(&flag);
        let choose = format!(r#"if test -e "$1"; then exec "$0" {mode}; else exec "$0" good; fi"#);
        let mut process = Command::new(&programs.bridge)
            .args(["--listen", "127.0.0.1:0", "--lazy", "--stop-grace", "200ms", "--"])
            .args(["sh", "-c", &choose])
            .args([&programs.hostile, &flag])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = process.stderr.take();
        let log = Arc::new(Mutex::new(Vec::new()));
        // From here on the bridge is ended by its drop.
        let mut bridge =
            Self { process, address: SocketAddr::from(([127, 0, 0, 1], 0)), flag, log: Arc::clone(&log) };
        let stderr = BufReader::new(stderr.ok_or("stderr is piped")?);
        thread::spawn(move || {
            for line in stderr.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                lock(&log).push(line.chars().take(300).collect());
            }
        });
        bridge.address = wait_until("the bridge says where it listens", || {
            let log = lock(&bridge.log);
            let rest = log.iter().find_map(|line| line.split("http://").nth(1))?;
            rest.split('/').next()?.parse().ok()
        })?;
        Ok(bridge)
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How many lines of the log are about this event.
    fn logged(&self, event: &str) -> usize {
        let event = format!("event=\"{event}\"");
        lock(&self.log).iter().filter(|line| line.contains(&event)).count()
    }

    /// The child of a session, as the log names it.
    fn child_of(&self, session: &Session) -> Outcome<u32> {
        let sid = session.id.get(..8).unwrap_or_default();
        wait_until("the log names the session's child", || {
            let log = lock(&self.log);
            let line = log.iter().find(|line| line.contains("session.start") && line.contains(sid))?;
            line.split("pid=").nth(1)?.split_whitespace().next()?.parse().ok()
        })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Its children go with it: the kernel sends them its parent-death signal.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.flag);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---------------------------------------------------------------------------------------------- a client

fn initialize() -> Value {
    let client = json!({ "name": "pressure", "version": "0" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": next_id(), "method": "initialize", "params": params })
}

fn initialized() -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })
}

fn call(tool: &str, arguments: Value) -> Value {
    let params = json!({ "name": tool, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": next_id(), "method": "tools/call", "params": params })
}

fn next_id() -> usize {
    static IDS: AtomicUsize = AtomicUsize::new(0);
    IDS.fetch_add(1, Ordering::Relaxed)
}

/// One session over one connection that is kept.
struct Session {
    address: SocketAddr,
    connection: BufReader<TcpStream>,
    id: String,
}

impl Session {
    fn open(bridge: &Bridge) -> Outcome<Self> {
        let connection = TcpStream::connect(bridge.address)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut session =
            Self { address: bridge.address, connection: BufReader::new(connection), id: String::new() };
        session.send(&session.post_request(&initialize()))?;
        session.receive()?;
        session.send(&session.post_request(&initialized()))?;
        session.receive()?;
        Ok(session)
    }

    fn call(&mut self, tool: &str, text: &str) -> Outcome<String> {
        self.send(&self.post_request(&call(tool, json!({ "text": text }))))?;
        self.receive()
    }

    fn end(&mut self) -> Outcome<()> {
        self.send(&self.request("DELETE", ""))?;
        self.receive().map(drop)
    }

    fn post_request(&self, message: &Value) -> Vec<u8> {
        self.request("POST", &message.to_string())
    }

    fn get_request(&self) -> Vec<u8> {
        self.request("GET", "")
    }

    fn request(&self, method: &str, body: &str) -> Vec<u8> {
        let accept =
            if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" };
        let session =
            if self.id.is_empty() { String::new() } else { format!("Mcp-Session-Id: {}\r\n", self.id) };
        let (host, length) = (self.address, body.len());
        format!(
            "{method} /mcp HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nContent-Type: application/json\r\n\
             {session}Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn send(&mut self, request: &[u8]) -> Outcome<()> {
        Ok(self.connection.get_mut().write_all(request)?)
    }

    /// The body of the next response, be it one answer or a stream of events up to it.
    fn receive(&mut self) -> Outcome<String> {
        let status = self.line()?;
        claim(status.starts_with("HTTP/1.1 20"), &format!("2xx, not {status:?}"))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?; // the bridge writes names of headers in lower case
            match line.split_once(": ") {
                Some(("mcp-session-id", id)) => id.clone_into(&mut self.id),
                Some(("content-length", number)) => length = number.parse()?,
                Some(("transfer-encoding", _)) => chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        while chunked {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            self.read(size, &mut body)?;
            self.line()?;
            chunked = size > 0;
        }
        self.read(length, &mut body)?;
        Ok(String::from_utf8(body)?)
    }

    fn read(&mut self, count: usize, body: &mut Vec<u8>) -> Outcome<()> {
        let read = (&mut self.connection).take(count as u64).read_to_end(body)?;
        claim(read == count, "the answer is complete")
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        claim(self.connection.read_line(&mut line)? > 0, "the bridge answers")?;
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}
