//! A stdio MCP server that misbehaves on demand: `hostile MODE [ARG…]`, one mode per fault seen in the field.
//!
//! Apart from its fault it is a minimal correct server, so that a test can see what the fault did to the neighbours:
//! initialize, ping, and the tools of [`TOOLS`]. `seen` tells what this process has read so far, which is how a test
//! looks at the wire from the child's side.

#![allow(clippy::indexing_slicing, reason = "`Value[…]` is null for what is missing; it never panics")]
#![allow(clippy::exit, reason = "ending at the worst moment is what half of the modes are for")]

use std::io::{self, BufRead, Seek, Write};
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, fs, thread};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{Pid, close, getpgid, getppid, getsid, setpgid, setsid};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[rustfmt::skip]
const MODES: &[(&str, &str)] = &[
    ("good",                        "no fault at all"),
    ("any FILE",                    "one of the modes in FILE, a line each: every process takes the next line, and ends on `initialize` without `params`"),
    ("strict",                      "refuses requests before `initialized` and every second `initialize`, like the Go SDK"),
    // starting
    ("exit_at_start CODE",          "ends before it reads anything"),
    ("exit_before_init CODE [MS]",  "ends on `initialize`, unanswered, after a while"),
    ("signal_before_init SIGNAL",   "dies by a signal on `initialize`, unanswered"),
    ("hang_init",                   "never answers `initialize`"),
    ("refuse_init [MS]",            "answers `initialize` with an error, after a while"),
    ("slow_init MS",                "answers `initialize` after a while"),
    ("not_ready MS",                "refuses calls for a while after `initialized`: \"server is not ready\""),
    // ending
    ("exit_after N",                "ends with 0 after its N-th answered call"),
    ("die_in_call HOW [N]",         "answers no call; on the N-th (1st) it ends by exit code or signal name"),
    ("partial half|whole",          "ends in the middle of an answer, or right before its line feed"),
    ("close_stdout",                "closes stdout on the first call, then lives on"),
    ("close_stdin [MS]",            "closes stdin on the first call, answers it later, then lives on"),
    ("ignore_term",                 "stays after the end of stdin and after SIGTERM"),
    ("slow_exit MS",                "leaves only a while after the end of stdin"),
    // answering
    ("hang",                        "never answers a call"),
    ("late",                        "answers a call only after it was cancelled"),
    ("shuffle N",                   "collects N calls, then answers them backwards"),
    ("dup",                         "answers each call twice, the second time with \"again\""),
    ("unknown_id",                  "sends answers to ids nobody used before each real one"),
    ("ids float|exp|string|null|missing", "spells the id of each answer differently"),
    ("reads fold|first|nul",        "takes names of members in any case, like Go; the first of two; up to a NUL, like cJSON"),
    ("batch",                       "answers in an array, next to a notification"),
    ("same_ids",                    "asks for sampling under the very id of the call, and answers with what it gets"),
    ("sample",                      "asks for sampling outside of any call"),
    ("deaf",                        "stops reading stdin once `initialize` is answered"),
    ("verbatim LINE [init]",        "answers each call, or `initialize`, with this line; ID stands for the id, and \\xNN for a byte"),
    ("progress_by_id",              "reports progress of each call under the id of the request, then answers"),
    ("terminal",                    "writes back each line that it reads before it does anything, as a terminal does"),
    // bytes
    ("noise",                       "prints a banner, log lines and ANSI colours between its messages"),
    ("junk_json",                   "prints JSON that is no JSON-RPC before each answer"),
    ("bad_utf8",                    "puts a byte that is no UTF-8 into each text"),
    ("binary BYTES",                "answers each call with so many bytes that are no UTF-8"),
    ("framing",                     "starts lines with a BOM, ends them with CRLF, prints blank lines"),
    ("cr",                          "puts bare carriage returns between the tokens"),
    ("pretty",                      "prints each answer to a call over many lines"),
    ("huge BYTES",                  "answers each call with a text of that size"),
    ("deep N",                      "answers each call with N nested arrays"),
    ("spew WHAT N",                 "before each answer: N pings, null-ids or doubled; or big-ids, array, invalid of N bytes"),
    ("huge_note BYTES",             "sends a notification of that size before each answer"),
    ("flood_stdout",                "sends log notifications without end"),
    ("flood_stderr",                "writes to stderr without end: short, long and binary lines"),
    // processes
    ("wrapper",                     "like npx: the server is a child of this process, and so is a helper"),
    ("grandchild",                  "leaves a process of another session behind that holds stdout open"),
    ("daemon",                      "leaves a process of another session behind that holds nothing"),
    ("orphans N",                   "leaves N processes behind that end at once and want to be reaped"),
    ("secret_daemon",               "the same, and nobody but root may look at it"),
    ("setpgid",                     "tries to move to the process group of its parent"),
    ("setsid",                      "tries to move to another session"),
    ("idle [SECONDS]",              "is no server: waits (60 s), then ends"),
];

const TOOLS: &[(&str, &str)] = &[
    ("echo", "{text} -> the text"),
    ("sleep", "{ms} -> \"slept\", later"),
    ("tell", "{text, ms, times} -> the text, later; before that so often as progress and as a log message"),
    ("seen", "all messages read so far: [{method, id, requestId}, …], answers with their result or error"),
    ("exit", "{code?, signal?} ends the process without an answer"),
    ("listfd", "the open file descriptors and what they are"),
    ("sigstate", "the Sig* lines of /proc/self/status"),
    ("echo_env", "the environment"),
    ("pids", "{pid, pgid, sid, ppid}"),
];

/// Calls of these are answered in every mode: a test must be able to look.
const NEVER_FAULTY: [&str; 6] = ["seen", "exit", "listfd", "sigstate", "echo_env", "pids"];

struct Server {
    mode: String,
    args: Vec<String>,
    /// Whether it ends on a bad `initialize`, as many servers do.
    picky: bool,
    log: Mutex<Log>,
    /// Told whenever `log` grew.
    news: Condvar,
}

/// The names that a reader looks for.
const NAMES: [&str; 10] = [
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "_meta",
    "progressToken",
    "requestId",
    "protocolVersion",
];

/// JSON with each member of an object as it came, also where two have one name.
enum Tree {
    Object(Vec<(String, Self)>),
    Array(Vec<Self>),
    Other(Value),
}

impl Tree {
    /// `insert` says which members an object has.
    fn into_value(
        self,
        insert: &mut impl FnMut(&mut serde_json::Map<String, Value>, String, Value),
    ) -> Value {
        match self {
            Self::Object(members) => {
                let mut object = serde_json::Map::new();
                for (name, value) in members {
                    let value = value.into_value(insert);
                    insert(&mut object, name, value);
                }
                Value::Object(object)
            }
            Self::Array(elements) => elements.into_iter().map(|element| element.into_value(insert)).collect(),
            Self::Other(value) => value,
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = Deserialize::deserialize(deserializer)?;
        let text = raw.get();
        let parsed = match text.bytes().next() {
            Some(b'{') => serde_json::from_str(text).map(|Members(members)| Self::Object(members)),
            Some(b'[') => serde_json::from_str(text).map(Self::Array),
            _ => serde_json::from_str(text).map(Self::Other),
        };
        parsed.map_err(D::Error::custom)
    }
}

/// The members of an object in their order.
struct Members(Vec<(String, Tree)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[derive(Default)]
struct Log {
    /// One entry per message, as `seen` shows it.
    seen: Vec<Value>,
    initializes: usize,
    ready: bool,
    /// Calls that came in, and calls that were answered.
    calls: usize,
    answered: usize,
    held: Vec<(Value, String)>,
}

fn main() {
    let mut args: Vec<String> = env::args().skip(1).collect();
    let picky = args.first().is_some_and(|mode| mode == "any");
    if picky {
        args = next_line(args.get(1).map_or("", String::as_str)).unwrap_or_default();
    }
    let mode = if args.is_empty() { "--help".to_owned() } else { args.remove(0) };
    if mode == "--help" || !MODES.iter().any(|(usage, _)| usage.split(' ').next() == Some(&mode)) {
        let table = |rows: &[(&str, &str)]| -> String {
            rows.iter().map(|(name, about)| format!("  {name:<36}{about}\n")).collect()
        };
        let text =
            format!("usage: hostile MODE [ARG…]\n\nmodes:\n{}\ntools:\n{}", table(MODES), table(TOOLS));
        let code = if mode == "--help" { 0 } else { 64 };
        write_to(if code == 0 { 1 } else { 2 }, text.as_bytes());
        process::exit(code);
    }
    let server = Arc::new(Server { mode, args, picky, log: Mutex::default(), news: Condvar::new() });
    server.start();
    server.read_stdin();
    server.stop();
}

impl Server {
    // ------------------------------------------------------------------------------------------ the process

    fn start(self: &Arc<Self>) {
        match &*self.mode {
            "exit_at_start" => {
                write_to(2, b"NOTEBOOK_TOKEN is not set\n");
                end(&self.arg(0, "1"));
            }
            "ignore_term" => {
                // Blocked, not ignored: that needs no unsafe code, and nobody outside can tell the difference.
                let _ = SigSet::all().thread_block();
            }
            "noise" => write_to(1, b"\x1b[32mwelcome to hostile 1.0\x1b[0m\n  * listening on stdio\n"),
            "framing" => write_to(1, b"\xef\xbb\xbf\r\n\n   \n"),
            "wrapper" => {
                let helper = again("idle").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
                let server = again("good").spawn().and_then(|mut server| wait(&mut server));
                drop(helper);
                process::exit(server.unwrap_or(1));
            }
            "grandchild" => leave_behind(Stdio::inherit(), "open"),
            "daemon" => leave_behind(Stdio::null(), "open"),
            "secret_daemon" => leave_behind(Stdio::null(), "secret"),
            "orphans" => {
                // The shell in the middle ends first, so its children become orphans before they end.
                for _ in 0..self.number(0, 1) {
                    let shell =
                        Command::new("sh").args(["-c", "sleep 0.1 & exit 0"]).stdout(Stdio::null()).spawn();
                    let _ = shell.and_then(|mut shell| wait(&mut shell));
                }
            }
            "setpgid" | "setsid" => {
                // A leader cannot start a session; if it could join another group it would be none any more.
                let _ = getpgid(Some(getppid())).and_then(|group| setpgid(Pid::from_raw(0), group));
                if self.mode == "setsid" {
                    let _ = setsid();
                }
            }
            "idle" => {
                if self.args.get(2).is_some_and(|arg| arg == "secret") {
                    let _ = nix::sys::prctl::set_dumpable(false); // as ssh-agent and gpg-agent do
                }
                if self.args.get(1).is_some_and(|arg| arg == "setsid") {
                    let _ = setsid();
                }
                thread::sleep(Duration::from_secs(self.number(0, 60)));
                process::exit(0);
            }
            "flood_stdout" | "flood_stderr" => {
                let server = Arc::clone(self);
                thread::spawn(move || server.flood());
            }
            _ => {}
        }
    }

    fn read_stdin(self: &Arc<Self>) {
        let mut stdin = io::stdin().lock();
        let mut line = Vec::new();
        while let Ok(1..) = stdin.read_until(b'\n', &mut line) {
            if self.mode == "terminal" {
                write_to(1, &[line.trim_ascii_end(), b"\r\n"].concat());
            }
            let read = match &*self.mode {
                "reads" => serde_json::from_slice(&line).map(|tree| self.reading(tree)),
                _ => serde_json::from_slice(&line),
            };
            match read {
                Ok(message) => self.receive(&message),
                Err(error) => self.log().seen.push(json!({ "unreadable": error.to_string() })),
            }
            line.clear();
        }
    }

    /// The message as a parser reads it that is not exact.
    fn reading(&self, message: Tree) -> Value {
        let how = self.arg(0, "fold");
        let fold = |text: &str| text.replace('ſ', "s").replace('\u{212a}', "k").to_lowercase();
        let known = |name: &str| NAMES.into_iter().find(|known| fold(known) == fold(name)).map(str::to_owned);
        message.into_value(&mut |members, name, value| match &*how {
            "first" => {
                members.entry(name).or_insert(value);
            }
            "nul" => {
                let name = name.split('\0').next().unwrap_or_default().to_owned();
                members.insert(name, value);
            }
            _ => {
                members.insert(known(&name).unwrap_or(name), value);
            }
        })
    }

    /// What is left to do at the end of stdin.
    fn stop(&self) {
        match &*self.mode {
            "ignore_term" => loop {
                thread::sleep(Duration::from_secs(60));
            },
            "slow_exit" => thread::sleep(self.millis(0, 1000)),
            _ => {}
        }
    }

    fn flood(&self) {
        drop(self.wait_until(|log| log.ready));
        for n in 0_u64.. {
            if self.mode == "flood_stdout" {
                let data = format!("{n} {}", "x".repeat(100));
                let params = json!({ "level": "info", "data": data });
                self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params }));
            } else if n % 1000 == 999 {
                write_to(2, &[&[b'x'; 100_000][..], b"\n\xff\xfe\x00\x1b[31m\n"].concat());
            } else {
                write_to(2, format!("line {n}\n").as_bytes());
            }
        }
    }

    // ------------------------------------------------------------------------------------------ the protocol

    fn receive(self: &Arc<Self>, message: &Value) {
        let mut entry = message.clone();
        if let Some(entry) = entry.as_object_mut() {
            entry.retain(|name, _| matches!(&**name, "id" | "method" | "result" | "error"));
            if let Some(request) = message["params"].get("requestId") {
                entry.insert("requestId".to_owned(), request.clone());
            }
        }
        self.log().seen.push(entry);
        self.news.notify_all();

        let params = &message["params"];
        match (message["method"].as_str(), message.get("id")) {
            (Some("initialize"), Some(id)) => self.initialize(id, params),
            (Some("notifications/initialized"), None) => self.initialized(),
            (Some("ping"), Some(id)) => self.answer(id, json!({})),
            (Some(method), Some(id)) if self.mode == "strict" && !self.log().ready => {
                self.refuse(id, 0, &format!("method {method:?} is invalid during session initialization"));
            }
            (Some("tools/list"), Some(id)) => {
                let describe = |(name, about): &(&str, &str)| json!({ "name": name, "description": about, "inputSchema": { "type": "object" } });
                self.answer(id, json!({ "tools": TOOLS.iter().map(describe).collect::<Vec<_>>() }));
            }
            (Some("tools/call"), Some(id)) => self.call(id, params),
            (Some("notifications/cancelled"), None) => self.cancelled(&params["requestId"]),
            (Some(method), Some(id)) => self.refuse(id, -32601, &format!("method not found: {method}")),
            _ => {}
        }
    }

    fn initialize(self: &Arc<Self>, id: &Value, params: &Value) {
        self.log().initializes += 1;
        if self.picky && params.is_null() {
            write_to(2, b"hostile: initialize has no params\n");
            end("1");
        }
        match &*self.mode {
            "exit_before_init" => {
                thread::sleep(self.millis(1, 0));
                write_to(2, b"hostile: cannot load the plugin\n");
                end(&self.arg(0, "1"));
            }
            "signal_before_init" => end(&self.arg(0, "SEGV")),
            "hang_init" => return,
            "verbatim" if self.arg(1, "") == "init" => return self.verbatim(id),
            "refuse_init" => {
                thread::sleep(self.millis(0, 0));
                return self.refuse(id, -32603, "this server cannot start: no licence");
            }
            "slow_init" => thread::sleep(self.millis(0, 1000)),
            "strict" if self.log().initializes > 1 => {
                return self.refuse(id, -32600, r#"duplicate "initialize" received"#);
            }
            _ => {}
        }
        self.answer(
            id,
            json!({
                "protocolVersion": params["protocolVersion"],
                "capabilities": { "tools": {}, "logging": {} },
                "serverInfo": { "name": "hostile", "version": self.mode },
            }),
        );
        if self.mode == "deaf" {
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
    }

    fn initialized(self: &Arc<Self>) {
        let server = Arc::clone(self);
        match &*self.mode {
            "sample" => self.ask(&json!("ask-1")),
            "not_ready" => {
                thread::spawn(move || {
                    thread::sleep(server.millis(0, 1000));
                    server.log().ready = true;
                });
                return;
            }
            _ => {}
        }
        self.log().ready = true;
        self.news.notify_all();
    }

    fn cancelled(self: &Arc<Self>, id: &Value) {
        if self.mode != "late" {
            return;
        }
        let (server, id) = (Arc::clone(self), id.clone());
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            server.answer(&id, text("too late"));
        });
    }

    fn call(self: &Arc<Self>, id: &Value, params: &Value) {
        let arguments = &params["arguments"];
        let tool = params["name"].as_str().unwrap_or_default();
        if NEVER_FAULTY.contains(&tool) {
            return self.answer(id, text(&self.look(tool, arguments)));
        }
        let said = arguments["text"].as_str().unwrap_or_default().to_owned();
        let length = arguments["ms"].as_u64().unwrap_or(0);
        if tool == "sleep" {
            let (server, id) = (Arc::clone(self), id.clone());
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(length));
                server.answer_call(&id, "slept");
            });
        } else if tool == "tell" {
            let (server, id) = (Arc::clone(self), id.clone());
            let (times, token) =
                (arguments["times"].as_u64().unwrap_or(0), params["_meta"]["progressToken"].clone());
            thread::spawn(move || {
                for n in 1..=times {
                    server.tell(&token, n, &said);
                }
                thread::sleep(Duration::from_millis(length));
                server.answer_call(&id, &said);
            });
        } else {
            self.answer_call(id, &said);
        }
    }

    /// The calls that every mode answers.
    fn look(&self, tool: &str, arguments: &Value) -> String {
        match tool {
            "seen" => json!(self.log().seen).to_string(),
            "exit" => end(arguments["signal"]
                .as_str()
                .unwrap_or(&arguments["code"].as_i64().unwrap_or(0).to_string())),
            "listfd" => {
                let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
                // The descriptor that reads the directory is gone when its link is read.
                let open: serde_json::Map<String, Value> = entries
                    .filter_map(|entry| {
                        Some((entry.file_name().into_string().ok()?, fs::read_link(entry.path()).ok()?))
                    })
                    .filter(|(_, target)| !target.ends_with("fd"))
                    .map(|(fd, target)| (fd, json!(target.to_string_lossy())))
                    .collect();
                json!(open).to_string()
            }
            "sigstate" => {
                let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
                status.lines().filter(|line| line.starts_with("Sig")).collect::<Vec<_>>().join("\n")
            }
            "echo_env" => {
                let pairs = env::vars_os().map(|(name, value)| {
                    (name.to_string_lossy().into_owned(), json!(value.to_string_lossy()))
                });
                json!(pairs.collect::<serde_json::Map<_, _>>()).to_string()
            }
            _ => {
                let group = getpgid(None).map_or(0, Pid::as_raw);
                let session = getsid(None).map_or(0, Pid::as_raw);
                let parent = getppid().as_raw();
                json!({ "pid": process::id(), "pgid": group, "sid": session, "ppid": parent }).to_string()
            }
        }
    }

    // ------------------------------------------------------------------------------------------ the faults of calls

    fn answer_call(self: &Arc<Self>, id: &Value, said: &str) {
        let nth = {
            let mut log = self.log();
            log.calls += 1;
            log.calls
        };
        let plain = json!({ "jsonrpc": "2.0", "id": id, "result": text(said) }).to_string();
        match &*self.mode {
            "hang" | "late" => {}
            "not_ready" if !self.log().ready => self.refuse(id, -32603, "server is not ready"),
            "die_in_call" => {
                if nth >= self.number(1, 1) {
                    end(&self.arg(0, "1"));
                }
            }
            "exit_after" => {
                self.answer(id, text(said));
                let mut log = self.log();
                log.answered += 1;
                if log.answered >= self.number(0, 1) {
                    process::exit(0);
                }
            }
            "partial" => {
                let whole = self.arg(0, "half") == "whole";
                write_to(1, &plain.as_bytes()[..if whole { plain.len() } else { plain.len() / 2 }]);
                process::exit(1);
            }
            "close_stdout" => {
                let _ = close(1);
            }
            "close_stdin" => {
                let _ = close(0);
                thread::sleep(self.millis(0, 100));
                self.answer(id, text(said));
                loop {
                    thread::sleep(Duration::from_secs(60));
                }
            }
            "shuffle" => {
                let mut log = self.log();
                log.held.push((id.clone(), said.to_owned()));
                if log.held.len() as u64 >= self.number(0, 2) {
                    let held = std::mem::take(&mut log.held);
                    drop(log);
                    for (id, said) in held.into_iter().rev() {
                        self.answer(&id, text(&said));
                    }
                }
            }
            "dup" => {
                self.answer(id, text(said));
                self.answer(id, text("again"));
            }
            "unknown_id" => {
                self.answer(&json!(987_654_321), text("for nobody"));
                self.answer(&json!("nobody"), text("for nobody"));
                self.answer(id, text(said));
            }
            "ids" => {
                let spelt = match &*self.arg(0, "float") {
                    "float" => format!("{id}.0"),
                    "exp" => format!("{id}e0"),
                    "string" => json!(id.to_string()).to_string(),
                    _ => "null".to_owned(),
                };
                let id =
                    if self.arg(0, "") == "missing" { String::new() } else { format!(r#""id":{spelt},"#) };
                self.write(format!(r#"{{"jsonrpc":"2.0",{id}"result":{}}}"#, text(said)).as_bytes());
            }
            "batch" => {
                let params = json!({ "level": "info", "data": "in a batch" });
                let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params });
                self.write(format!("[{note},{plain}]").as_bytes());
            }
            "same_ids" => {
                self.ask(id);
                let (server, id, said) = (Arc::clone(self), id.clone(), said.to_owned());
                thread::spawn(move || {
                    let answered = |entry: &&Value| entry["id"] == id && entry.get("result").is_some();
                    let log = server.wait_until(|log| log.seen.iter().any(|entry| answered(&entry)));
                    let answer = log.seen.iter().find(answered).cloned().unwrap_or_default();
                    drop(log);
                    let sampled = answer["result"]["content"]["text"].as_str().unwrap_or("nothing");
                    server.answer(&id, text(&format!("{said}|{sampled}")));
                });
            }
            "verbatim" => self.verbatim(id),
            "progress_by_id" => {
                let params = json!({ "progressToken": id, "progress": 1, "message": said });
                self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }));
                self.answer(id, text(said));
            }
            "junk_json" => {
                for junk in
                    ["42", r#""x""#, "{}", "[]", "null", "true", r#"["2.0",1,null]"#, r#"{"jsonrpc":"2.0"}"#]
                {
                    self.write(junk.as_bytes());
                }
                self.answer(id, text(said));
            }
            "bad_utf8" => {
                let mut bytes = plain.into_bytes();
                if let Some(at) = bytes.windows(5).position(|window| window == b"text\"") {
                    // After `"text":"`, where the text starts.
                    bytes.insert(at + 7, 0xff);
                }
                self.write(&bytes);
            }
            "cr" => self.write(plain.replace(",\"", ",\r\"").replace(":{", ":\r{").as_bytes()),
            "pretty" => {
                let message = json!({ "jsonrpc": "2.0", "id": id, "result": text(said) });
                self.write(format!("{message:#}").as_bytes());
            }
            "spew" => {
                self.spew(nth);
                self.answer(id, text(said));
            }
            "huge_note" => {
                let params = json!({ "level": "info", "data": "x".repeat(self.number(0, 1024)) });
                self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params }));
                self.answer(id, text(said));
            }
            "huge" => self.answer(id, text(&"x".repeat(self.number(0, 1024)))),
            "binary" => {
                let [before, after] = [r#"{"jsonrpc":"2.0","result":{"binary":""#, r#""},"id":"#];
                let message =
                    [before.as_bytes(), &vec![0xff; self.number(0, 1024)], after.as_bytes()].concat();
                self.write(&[&message, id.to_string().as_bytes(), b"}"].concat());
            }
            "deep" => {
                let depth = self.number(0, 1000);
                let nested = ["[".repeat(depth), "]".repeat(depth)].concat();
                let id = id.to_string();
                self.write(
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"deep":{nested}}}}}"#).as_bytes(),
                );
            }
            _ => self.answer(id, text(said)),
        }
    }

    /// What makes a bridge reply, repair or search.
    fn spew(&self, nth: usize) {
        let count = self.number(1, 100);
        let lines = |line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n");
        let ping = |n| format!(r#"{{"jsonrpc":"2.0","id":"{nth}/{n}","method":"ping"}}"#);
        let text = match &*self.arg(0, "pings") {
            "null-ids" => lines(&|_| r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.to_owned()),
            "doubled" => lines(&|_| r#"{"jsonrpc":"2.0","id":1,"ID":2,"id":3,"method":"ping"}"#.to_owned()),
            "big-ids" => ping(count).replacen('/', &"/".repeat(count), 1),
            "array" => format!("[{}1]", "1,".repeat(count / 2)),
            "invalid" => return self.write(&vec![0xff; count]),
            _ => lines(&ping),
        };
        self.write(text.as_bytes());
    }

    // ------------------------------------------------------------------------------------------ sending

    fn verbatim(&self, id: &Value) {
        let line = self.arg(0, "").replace("ID", &id.to_string());
        let mut parts = line.split("\\x");
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            let (byte, rest) = part.split_at(2);
            bytes.push(u8::from_str_radix(byte, 16).unwrap_or(b'?'));
            bytes.extend_from_slice(rest.as_bytes());
        }
        self.write(&bytes);
    }

    fn answer(&self, id: &Value, result: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }

    fn refuse(&self, id: &Value, code: i64, message: &str) {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }));
    }

    fn ask(&self, id: &Value) {
        let content = json!({ "type": "text", "text": "are you there?" });
        let params = json!({ "messages": [{ "role": "user", "content": content }], "maxTokens": 10 });
        self.send(
            &json!({ "jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": params }),
        );
    }

    fn tell(&self, token: &Value, n: u64, said: &str) {
        let progress = json!({ "progressToken": token, "progress": n, "message": said });
        let log = json!({ "level": "info", "data": said });
        for (method, params) in [("progress", progress), ("message", log)] {
            self.send(
                &json!({ "jsonrpc": "2.0", "method": format!("notifications/{method}"), "params": params }),
            );
        }
    }

    fn send(&self, message: &Value) {
        self.write(message.to_string().as_bytes());
    }

    fn write(&self, message: &[u8]) {
        let (before, after): (&[u8], &[u8]) = match &*self.mode {
            "noise" => {
                (b"2026-01-01 00:00:00 \x1b[33mWARN\x1b[0m hostile: about to answer\n{not json\n", b"\n")
            }
            "framing" => (b"\xef\xbb\xbf", b"  \r\n\r\n\n"),
            _ => (b"", b"\n"),
        };
        write_to(1, &[before, message, after].concat());
    }

    // ------------------------------------------------------------------------------------------ small things

    fn arg(&self, index: usize, default: &str) -> String {
        self.args.get(index).map_or(default, String::as_str).to_owned()
    }

    fn number<N: std::str::FromStr>(&self, index: usize, default: N) -> N {
        self.args.get(index).and_then(|arg| arg.parse().ok()).unwrap_or(default)
    }

    fn millis(&self, index: usize, default: u64) -> Duration {
        Duration::from_millis(self.number(index, default))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until(&self, done: impl Fn(&Log) -> bool) -> MutexGuard<'_, Log> {
        self.news.wait_while(self.log(), |log| !done(log)).unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": false })
}

/// One `write` under one lock, so that threads do not mix their lines. A reader that is gone is none of our business.
fn write_to(fd: i32, bytes: &[u8]) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = match fd {
        1 => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        _ => io::stderr().write_all(bytes),
    };
}

/// The words of the line whose turn it is, from the top again after the last one. Whoever appends a byte to a file is
/// told by the kernel where that is: a turn that nobody else has.
fn next_line(path: &str) -> io::Result<Vec<String>> {
    let mut turns = fs::OpenOptions::new().create(true).append(true).open(format!("{path}.turns"))?;
    turns.write_all(b".")?;
    let turn = usize::try_from(turns.stream_position()? - 1).unwrap_or(0);
    let text = fs::read_to_string(path)?;
    let line = text.lines().nth(turn % text.lines().count().max(1)).unwrap_or_default();
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

/// Ends by exit code (`3`) or by signal (`KILL`, `SIGSEGV`).
fn end(how: &str) -> ! {
    if let Ok(code) = how.parse() {
        process::exit(code);
    }
    if let Ok(signal) = format!("SIG{}", how.trim_start_matches("SIG")).parse::<Signal>() {
        // Twice, because the first SIGSEGV only takes std's own handler away.
        let _ = raise(signal).and_then(|()| raise(signal));
    }
    process::abort();
}

/// This program again, in another mode.
fn again(mode: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap_or_else(|_| "hostile".into()));
    command.arg(mode);
    command
}

/// Returns once the new process has left our session: before that, a kill of our group would take it along.
fn leave_behind(stdout: Stdio, kind: &str) {
    let idle = again("idle")
        .args(["60", "setsid", kind])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn();
    let Ok(pid) = idle.map(|idle| Pid::from_raw(idle.id().cast_signed())) else { return };
    while getsid(Some(pid)).is_ok_and(|session| session != pid) {
        thread::sleep(Duration::from_millis(1));
    }
}

#[allow(clippy::disallowed_methods, reason = "the rule is for the bridge")]
fn wait(child: &mut process::Child) -> io::Result<i32> {
    Ok(child.wait()?.code().unwrap_or(1))
}
