//! A small stateful MCP server on stdio: a notebook that lives in memory and dies with its process.
//!
//! It is the demo of the README and the well-behaved child of the tests, so it does in few lines what servers in the
//! field do: it refuses calls before the handshake is complete, reports progress, logs, asks the client for a
//! confirmation or a completion in the middle of a call, and stops a call that the client cancels.
//!
//! Read it from the bottom up: `main` reads lines, `METHODS` and `TOOLS` say what exists, the functions say how.

#![allow(clippy::indexing_slicing, reason = "`Value[…]` is null for what is missing; it never panics")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{env, process, thread};

use serde_json::{Map, Value, json};

const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
const URI_PREFIX: &str = "note:///";

const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const RESOURCE_NOT_FOUND: i64 = -32002;
/// Servers on the Go SDK refuse early requests with a plain error, which its JSON-RPC layer sends as code 0.
const TOO_EARLY: i64 = 0;

// ---------------------------------------------------------------------------------------------- types

/// How far the handshake has come.
#[derive(Default, PartialEq)]
enum Phase {
    #[default]
    Fresh,
    Greeted,
    Ready,
}

struct Note {
    title: String,
    text: String,
}

/// Everything a session remembers.
#[derive(Default)]
struct State {
    phase: Phase,
    /// What the client said it can do: a server must not ask for more.
    client: Value,
    notes: Vec<Note>,
    subscribed: BTreeSet<String>,
    /// Index into [`LEVELS`] below which log messages are not sent; unset means "info".
    level: Option<usize>,
}

/// What can arrive for a call that is waiting.
enum Wake {
    Cancelled,
    /// The client's answer to a request of ours.
    Answer(Result<Value, String>),
}

/// Who is waiting for what. A call is known by its id as JSON text, because `1` and `"1"` are different ids.
#[derive(Default)]
struct Waiting {
    calls: HashMap<String, Sender<Wake>>,
    asked: HashMap<u64, Sender<Wake>>,
    last_id: u64,
}

#[derive(Default)]
struct Server {
    state: Mutex<State>,
    waiting: Mutex<Waiting>,
}

struct Request {
    id: Value,
    method: String,
    params: Value,
}

struct RpcError(i64, String);

/// `None` means that a thread answers later, or nobody if the call is cancelled.
type Answer = Result<Option<Value>, RpcError>;
type Method = fn(&Arc<Server>, &Request) -> Answer;

/// Why a tool gave no text.
enum Stop {
    /// Shown to the model as a result with `isError`, so that it can correct itself.
    Failed(String),
    /// The client no longer wants an answer.
    Cancelled,
}

impl<S: Into<String>> From<S> for Stop {
    fn from(text: S) -> Self {
        Stop::Failed(text.into())
    }
}

struct Field {
    name: &'static str,
    kind: &'static str,
    required: bool,
}

const fn required(name: &'static str, kind: &'static str) -> Field {
    Field { name, kind, required: true }
}

const fn optional(name: &'static str, kind: &'static str) -> Field {
    Field { name, kind, required: false }
}

struct Tool {
    name: &'static str,
    about: &'static str,
    /// One table for both the schema that clients see and the check before a call.
    fields: &'static [Field],
    /// A tool that waits on time or on the client gets a thread, so that pings and cancels still come through.
    waits: bool,
    run: fn(&Call) -> Result<String, Stop>,
}

/// One running tool call.
struct Call {
    server: Arc<Server>,
    arguments: Map<String, Value>,
    progress_token: Option<Value>,
    wake: Sender<Wake>,
    mailbox: Receiver<Wake>,
}

// ---------------------------------------------------------------------------------------------- the two tables

const METHODS: &[(&str, Method)] = &[
    ("initialize", initialize),
    ("ping", |_, _| Ok(Some(json!({})))),
    ("logging/setLevel", set_level),
    ("tools/list", |_, _| Ok(Some(json!({ "tools": TOOLS.iter().map(Tool::describe).collect::<Vec<_>>() })))),
    ("tools/call", call_tool),
    ("resources/list", list_resources),
    ("resources/templates/list", |_, _| Ok(Some(json!({ "resourceTemplates": [] })))),
    ("resources/read", read_resource),
    ("resources/subscribe", subscribe),
    ("resources/unsubscribe", unsubscribe),
];

#[rustfmt::skip]
const TOOLS: &[Tool] = &[
    Tool { name: "add_note", about: "Save a note; the same title again replaces its text", waits: false, run: add_note,
           fields: &[required("title", "string"), required("text", "string")] },
    Tool { name: "list_notes", about: "List the titles", waits: false, run: list_notes, fields: &[] },
    Tool { name: "read_note", about: "Read one note", waits: false, run: read_note, fields: &[required("title", "string")] },
    Tool { name: "delete_note", about: "Delete one note", waits: false, run: delete_note, fields: &[required("title", "string")] },
    Tool { name: "confirm_clear", about: "Delete all notes if the user agrees", waits: true, run: confirm_clear, fields: &[] },
    Tool { name: "summarize", about: "Let the client's model summarize all notes", waits: true, run: summarize, fields: &[] },
    Tool { name: "list_roots", about: "Ask the client for its roots", waits: true, run: list_roots, fields: &[] },
    Tool { name: "echo", about: "Answer the text as given", waits: false, run: |call| Ok(call.text("text").to_owned()),
           fields: &[required("text", "string")] },
    Tool { name: "slow", about: "Answer after a while", waits: true, run: slow,
           fields: &[required("seconds", "number"), optional("text", "string")] },
    Tool { name: "count", about: "Count up and report progress", waits: true, run: count,
           fields: &[required("to", "integer"), optional("delay_ms", "integer")] },
    Tool { name: "log", about: "Send a log message to the client", waits: false, run: log,
           fields: &[required("level", "string"), required("message", "string")] },
    Tool { name: "whoami", about: "Process id, directory and NOTEBOOK_* variables", waits: false, run: whoami, fields: &[] },
    Tool { name: "crash", about: "End this process, by exit code or by signal", waits: true, run: crash,
           fields: &[optional("code", "integer"), optional("signal", "string")] },
];

// ---------------------------------------------------------------------------------------------- methods

fn initialize(server: &Arc<Server>, request: &Request) -> Answer {
    let mut state = server.state();
    if state.phase != Phase::Fresh {
        return Err(RpcError(INVALID_REQUEST, r#"duplicate "initialize" received"#.into()));
    }
    state.phase = Phase::Greeted;
    state.client = request.params["capabilities"].clone();
    let asked = request.params["protocolVersion"].as_str().unwrap_or_default();
    let newest = REVISIONS[REVISIONS.len() - 1];
    Ok(Some(json!({
        "protocolVersion": if REVISIONS.contains(&asked) { asked } else { newest },
        "capabilities": {
            "tools": { "listChanged": true },
            "resources": { "subscribe": true, "listChanged": true },
            "logging": {},
        },
        "serverInfo": { "name": "notebook", "version": env!("CARGO_PKG_VERSION") },
        "instructions": "A notebook kept in memory. It is forgotten when the session ends.",
    })))
}

fn set_level(server: &Arc<Server>, request: &Request) -> Answer {
    let name = request.params["level"].as_str().unwrap_or_default();
    let level = LEVELS.iter().position(|known| *known == name);
    server.state().level = Some(level.ok_or_else(|| RpcError(INVALID_PARAMS, unknown_level(name)))?);
    Ok(Some(json!({})))
}

fn call_tool(server: &Arc<Server>, request: &Request) -> Answer {
    let name = request.params["name"].as_str().unwrap_or_default();
    let tool = TOOLS.iter().find(|tool| tool.name == name);
    let tool = tool.ok_or_else(|| RpcError(INVALID_PARAMS, format!("unknown tool {name:?}")))?;

    let (wake, mailbox) = mpsc::channel();
    let call = Call {
        server: Arc::clone(server),
        arguments: request.params["arguments"].as_object().cloned().unwrap_or_default(),
        progress_token: request.params["_meta"].get("progressToken").cloned(),
        wake,
        mailbox,
    };
    if !tool.waits {
        return Ok(tool.call(&call));
    }
    let key = request.id.to_string();
    server.waiting().calls.insert(key.clone(), call.wake.clone());
    let id = request.id.clone();
    thread::spawn(move || {
        let result = tool.call(&call);
        call.server.waiting().calls.remove(&key);
        if let Some(result) = result {
            send(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
        }
    });
    Ok(None)
}

fn list_resources(server: &Arc<Server>, _: &Request) -> Answer {
    let state = server.state();
    let describe = |note: &Note| json!({ "uri": note.uri(), "name": note.title, "mimeType": "text/plain" });
    Ok(Some(json!({ "resources": state.notes.iter().map(describe).collect::<Vec<_>>() })))
}

fn read_resource(server: &Arc<Server>, request: &Request) -> Answer {
    let uri = request.params["uri"].as_str().unwrap_or_default();
    let state = server.state();
    let note = state.notes.iter().find(|note| note.uri() == uri);
    let note = note.ok_or_else(|| RpcError(RESOURCE_NOT_FOUND, format!("resource not found: {uri}")))?;
    Ok(Some(json!({ "contents": [{ "uri": uri, "mimeType": "text/plain", "text": note.text }] })))
}

/// A note may be subscribed before it is written: its arrival is then the first update.
fn subscribe(server: &Arc<Server>, request: &Request) -> Answer {
    let uri = request.params["uri"].as_str().unwrap_or_default();
    if !uri.starts_with(URI_PREFIX) {
        return Err(RpcError(RESOURCE_NOT_FOUND, format!("resource not found: {uri}")));
    }
    server.state().subscribed.insert(uri.to_owned());
    Ok(Some(json!({})))
}

fn unsubscribe(server: &Arc<Server>, request: &Request) -> Answer {
    server.state().subscribed.remove(request.params["uri"].as_str().unwrap_or_default());
    Ok(Some(json!({})))
}

// ---------------------------------------------------------------------------------------------- tools

fn add_note(call: &Call) -> Result<String, Stop> {
    let note = Note { title: call.text("title").to_owned(), text: call.text("text").to_owned() };
    let (title, uri) = (note.title.clone(), note.uri());
    let mut state = call.server.state();
    let known = state.notes.iter().position(|old| old.title == title);
    let index = known.unwrap_or(state.notes.len());
    match state.notes.get_mut(index) {
        Some(old) => *old = note,
        None => state.notes.push(note),
    }
    if known.is_none() {
        notify("notifications/resources/list_changed", json!({}));
    }
    if state.subscribed.contains(&uri) {
        notify("notifications/resources/updated", json!({ "uri": uri }));
    }
    Ok(format!("note {} saved: {title}", index + 1))
}

fn list_notes(call: &Call) -> Result<String, Stop> {
    let state = call.server.state();
    if state.notes.is_empty() {
        return Ok("no notes yet".into());
    }
    let lines = state.notes.iter().enumerate().map(|(index, note)| format!("{}. {}", index + 1, note.title));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn read_note(call: &Call) -> Result<String, Stop> {
    let title = call.text("title");
    let state = call.server.state();
    let note = state.notes.iter().find(|note| note.title == title);
    Ok(note.ok_or_else(|| format!("there is no note {title:?}"))?.text.clone())
}

fn delete_note(call: &Call) -> Result<String, Stop> {
    let title = call.text("title");
    let mut state = call.server.state();
    let index = state.notes.iter().position(|note| note.title == title);
    state.notes.remove(index.ok_or_else(|| format!("there is no note {title:?}"))?);
    notify("notifications/resources/list_changed", json!({}));
    Ok(format!("note deleted: {title}"))
}

fn confirm_clear(call: &Call) -> Result<String, Stop> {
    let count = call.server.state().notes.len();
    let answer = call.ask(
        "elicitation",
        "elicitation/create",
        json!({
            "message": format!("Delete all {count} notes?"),
            "requestedSchema": {
                "type": "object",
                "properties": { "confirm": { "type": "boolean", "title": "Yes, delete them" } },
                "required": ["confirm"],
            },
        }),
    )?;
    let mut state = call.server.state();
    let count = state.notes.len();
    if answer["action"] != "accept" || answer["content"]["confirm"] != true {
        return Ok(format!("kept {count} notes"));
    }
    state.notes.clear();
    notify("notifications/resources/list_changed", json!({}));
    Ok(format!("cleared {count} notes"))
}

fn summarize(call: &Call) -> Result<String, Stop> {
    let notes: Vec<String> =
        call.server.state().notes.iter().map(|note| format!("{}: {}", note.title, note.text)).collect();
    let prompt = format!("Summarize these notes in one sentence.\n\n{}", notes.join("\n"));
    let answer = call.ask(
        "sampling",
        "sampling/createMessage",
        json!({
            "messages": [{ "role": "user", "content": { "type": "text", "text": prompt } }],
            "maxTokens": 200,
        }),
    )?;
    // Revision 2025-11-25 allows a list of blocks where earlier ones have a single block.
    let content = &answer["content"];
    let text = content["text"].as_str().or_else(|| content[0]["text"].as_str());
    Ok(format!("summary: {}", text.unwrap_or("(the client answered without text)")))
}

fn list_roots(call: &Call) -> Result<String, Stop> {
    let answer = call.ask("roots", "roots/list", json!({}))?;
    let roots = answer["roots"].as_array().cloned().unwrap_or_default();
    let uris: Vec<&str> = roots.iter().filter_map(|root| root["uri"].as_str()).collect();
    Ok(if uris.is_empty() { "no roots".into() } else { uris.join("\n") })
}

fn slow(call: &Call) -> Result<String, Stop> {
    let seconds = &call.arguments["seconds"];
    let length = Duration::try_from_secs_f64(seconds.as_f64().unwrap_or(-1.0));
    call.wait(length.map_err(|error| format!("argument \"seconds\": {error}"))?)?;
    let text = call.text("text");
    Ok(if text.is_empty() { format!("waited {seconds} s") } else { format!("waited {seconds} s: {text}") })
}

fn count(call: &Call) -> Result<String, Stop> {
    let to = call.arguments["to"].as_u64().ok_or("argument \"to\" must not be negative")?;
    let delay = call.arguments.get("delay_ms").and_then(Value::as_u64).unwrap_or(0);
    for step in 1..=to {
        call.wait(Duration::from_millis(delay))?;
        if let Some(token) = &call.progress_token {
            let message = format!("{step} of {to}");
            notify(
                "notifications/progress",
                json!({ "progressToken": token, "progress": step, "total": to, "message": message }),
            );
        }
    }
    Ok(format!("counted to {to}"))
}

fn log(call: &Call) -> Result<String, Stop> {
    let name = call.text("level");
    let level = LEVELS.iter().position(|known| *known == name).ok_or_else(|| unknown_level(name))?;
    if level >= call.server.state().level.unwrap_or(1) {
        notify(
            "notifications/message",
            json!({ "level": name, "logger": "notebook", "data": call.text("message") }),
        );
    }
    Ok("logged".into())
}

fn whoami(_: &Call) -> Result<String, Stop> {
    let cwd = env::current_dir().map_err(|error| format!("no current directory: {error}"))?;
    let ours: BTreeMap<String, String> = env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with("NOTEBOOK_"))
        .collect();
    Ok(json!({ "pid": process::id(), "cwd": cwd.to_string_lossy(), "env": ours }).to_string())
}

#[allow(clippy::exit, clippy::disallowed_methods, reason = "to end at once is what this tool is for")]
fn crash(call: &Call) -> Result<String, Stop> {
    let signal = call.text("signal");
    if signal.is_empty() {
        let code = call.arguments.get("code").and_then(Value::as_i64).unwrap_or(1);
        process::exit(i32::try_from(code).unwrap_or(1));
    }
    let sent = process::Command::new("kill").args(["-s", signal, &process::id().to_string()]).status();
    call.wait(Duration::from_secs(1))?;
    Err(match sent {
        Ok(status) if status.success() => format!("still here after signal {signal}").into(),
        _ => format!("cannot send signal {signal:?}; it is a name as in KILL or TERM").into(),
    })
}

// ---------------------------------------------------------------------------------------------- how it works

impl Note {
    fn uri(&self) -> String {
        let mut uri = URI_PREFIX.to_owned();
        for byte in self.title.bytes() {
            match byte {
                _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => uri.push(char::from(byte)),
                _ => uri.push_str(&format!("%{byte:02X}")),
            }
        }
        uri
    }
}

impl Tool {
    fn describe(&self) -> Value {
        let properties: Map<String, Value> =
            self.fields.iter().map(|field| (field.name.to_owned(), json!({ "type": field.kind }))).collect();
        let required: Vec<&str> =
            self.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        json!({
            "name": self.name,
            "description": self.about,
            "inputSchema": { "type": "object", "properties": properties, "required": required },
        })
    }

    /// The result of the call, or `None` if nobody wants it any more.
    fn call(&self, call: &Call) -> Option<Value> {
        let (text, failed) = match self.check(&call.arguments).and_then(|()| (self.run)(call)) {
            Ok(text) => (text, false),
            Err(Stop::Failed(text)) => (text, true),
            Err(Stop::Cancelled) => return None,
        };
        Some(json!({ "content": [{ "type": "text", "text": text }], "isError": failed }))
    }

    fn check(&self, arguments: &Map<String, Value>) -> Result<(), Stop> {
        for field in self.fields {
            let fits = match arguments.get(field.name) {
                None => !field.required,
                Some(value) => match field.kind {
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    _ => value.is_number(),
                },
            };
            if !fits {
                return Err(format!("argument {:?} must be of type {}", field.name, field.kind).into());
            }
        }
        Ok(())
    }
}

impl Call {
    fn text(&self, name: &str) -> &str {
        self.arguments.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn wait(&self, length: Duration) -> Result<(), Stop> {
        match self.mailbox.recv_timeout(length) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Stop::Cancelled),
        }
    }

    /// Sends a request of our own and waits for the client's answer, or for the cancellation of this call.
    fn ask(&self, capability: &str, method: &str, params: Value) -> Result<Value, Stop> {
        if self.server.state().client.get(capability).is_none() {
            return Err(format!("this client does not offer {capability}").into());
        }
        let id = {
            let mut waiting = self.server.waiting();
            waiting.last_id += 1;
            let id = waiting.last_id;
            waiting.asked.insert(id, self.wake.clone());
            id
        };
        send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let woken = self.mailbox.recv();
        self.server.waiting().asked.remove(&id);
        match woken {
            Ok(Wake::Answer(answer)) => Ok(answer?),
            Ok(Wake::Cancelled) | Err(_) => Err(Stop::Cancelled),
        }
    }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receive(self: &Arc<Self>, line: &[u8]) {
        let Ok(mut message) = serde_json::from_slice::<Value>(line) else {
            return send_error(&Value::Null, &RpcError(-32700, "this line is not JSON".into()));
        };
        let id = message.get("id").cloned();
        let params = message.get_mut("params").map(Value::take).unwrap_or_default();
        match (message["method"].as_str(), id) {
            (Some(method), Some(id)) => self.request(&Request { id, method: method.to_owned(), params }),
            (Some(method), None) => self.notification(method, &params),
            (None, Some(id)) => self.response(&id, &message),
            (None, None) => send_error(&Value::Null, &RpcError(INVALID_REQUEST, "not a message".into())),
        }
    }

    fn request(self: &Arc<Self>, request: &Request) {
        let early = self.state().phase != Phase::Ready && !matches!(&*request.method, "initialize" | "ping");
        let known = METHODS.iter().find(|(name, _)| *name == request.method);
        let answer = match known {
            _ if early => {
                let text = format!("method {:?} is invalid during session initialization", request.method);
                Err(RpcError(TOO_EARLY, text))
            }
            Some((_, method)) => method(self, request),
            None => Err(RpcError(METHOD_NOT_FOUND, format!("method not found: {}", request.method))),
        };
        match answer {
            Ok(Some(result)) => send(&json!({ "jsonrpc": "2.0", "id": request.id, "result": result })),
            Ok(None) => {}
            Err(error) => send_error(&request.id, &error),
        }
    }

    fn notification(&self, method: &str, params: &Value) {
        match method {
            "notifications/initialized" => {
                let mut state = self.state();
                if state.phase == Phase::Greeted {
                    state.phase = Phase::Ready;
                }
            }
            "notifications/cancelled" => {
                if let Some(call) = self.waiting().calls.get(&params["requestId"].to_string()) {
                    let _ = call.send(Wake::Cancelled);
                }
            }
            _ => {}
        }
    }

    fn response(&self, id: &Value, message: &Value) {
        let asked = id.as_u64().and_then(|id| self.waiting().asked.remove(&id));
        let answer = match message.get("error") {
            None => Ok(message["result"].clone()),
            Some(error) => Err(error["message"].as_str().unwrap_or("the client refused").to_owned()),
        };
        if let Some(call) = asked {
            let _ = call.send(Wake::Answer(answer));
        }
    }
}

fn unknown_level(name: &str) -> String {
    format!("unknown log level {name:?}; use one of {}", LEVELS.join(", "))
}

fn notify(method: &str, params: Value) {
    send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
}

fn send_error(id: &Value, RpcError(code, text): &RpcError) {
    send(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } }));
}

/// One locked write for a whole message: threads never mix their lines. If it fails, the client is gone, and the end
/// of stdin will say so.
fn send(message: &Value) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(format!("{message}\n").as_bytes()).and_then(|()| stdout.flush());
}

fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

fn main() -> io::Result<()> {
    say("notebook ready");
    let server = Arc::new(Server::default());
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    while stdin.read_until(b'\n', &mut line)? > 0 {
        if !line.trim_ascii().is_empty() {
            server.receive(&line);
        }
        line.clear();
    }
    say("notebook closed");
    Ok(())
}
