//! A client that does what its plan says and judges every answer it gets. A broken promise is a panic.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Soak;
use super::judge::Outcome;
use super::plan::{Action, Ending, MODES, Mode, Opening, SessionPlan};
use super::support::http::{BOTH, Connection};
use super::support::{Request, Response, Session, Value, initialize, json, reason, tool_call};

/// What failed children may make of `initialize`.
const START_FAILURES: &[&str] = &["child_exited", "init_timeout"];

/// The newest things that a client has done.
#[derive(Default)]
pub struct Trace(Mutex<VecDeque<String>>);

impl Trace {
    pub fn begin(&self, what: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == 20 {
            lines.pop_front();
        }
        lines.push_back(what);
    }

    pub fn outcome(&self, outcome: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.back_mut() {
            line.push_str(&format!(" → {outcome}"));
        }
    }

    pub fn lines(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("  {line}\n")).collect()
    }
}

pub struct Client {
    pub number: u64,
    pub trace: Trace,
    sessions: u64,
}

impl Client {
    pub fn new(number: u64) -> Self {
        Self { number, trace: Trace::default(), sessions: 0 }
    }

    /// One session after the other until the time is over.
    pub fn wave(&mut self, soak: &Soak, until: Instant) {
        while Instant::now() < until && !soak.failed.load(Ordering::Relaxed) {
            self.sessions += 1;
            let plan = SessionPlan::new(soak.plan.seed, self.number, self.sessions);
            let begun = (plan.opening, plan.version, plan.json_only, plan.initialized, plan.ending);
            self.trace.begin(format!("session {} {begun:?}", self.sessions));
            soak.count("sessions");
            let Some(talk) = self.open(soak, &plan) else { continue };
            self.trace.outcome(&format!("{} {}", talk.mode.name(), talk.session.id));
            soak.count(&format!("mode {}", talk.mode.name()));
            for _ in 0..plan.initialized {
                let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
                talk.accepted(talk.post(&body.to_string()));
            }
            let goes_on = || Instant::now() < until && !talk.is_fed_up();
            for action in plan.actions.iter().take_while(|_| goes_on()) {
                self.trace.begin(format!("  {action:?}"));
                talk.perform(action);
            }
            self.trace.begin(format!("  {:?}", plan.ending));
            talk.finish(plan.ending);
        }
    }

    fn open<'s>(&'s self, soak: &'s Soak, plan: &'s SessionPlan) -> Option<Talk<'s>> {
        let address = soak.bridge.address;
        let accept = if plan.json_only { "application/json" } else { BOTH };
        let request = Request::post("/mcp", initialize(0, plan.version).to_string()).with("Accept", accept);
        if plan.opening != Opening::Proper {
            let bytes = request.to_bytes(&address.to_string());
            let length = if plan.opening == Opening::Half { bytes.len() / 2 } else { bytes.len() };
            Connection::open(address).write(&bytes[..length]);
            return None;
        }
        let mut response = request.send(address);
        let answer = if response.is_sse() { response.answer() } else { response.json() };
        assert_eq!(answer["id"], 0, "the answer has the id of initialize: {answer}");
        let why = match response.status {
            200 if answer.get("result").is_some() => {
                let session = Session::from_answer(address, &response, answer);
                let name = session.greeting["result"]["serverInfo"]["version"].as_str().unwrap().to_owned();
                let mode = MODES.iter().find(|mode| mode.name() == name).expect("a mode of the plan");
                let token = format!("soak/{}.{}/", self.number, self.sessions);
                return Some(Talk {
                    soak,
                    trace: &self.trace,
                    plan,
                    session,
                    token,
                    mode,
                    ids: AtomicU64::new(1),
                    told_to_exit: AtomicBool::new(false),
                    deleted: AtomicBool::new(false),
                    failures: AtomicU64::new(0),
                    listening: Mutex::new(None),
                });
            }
            200 if answer["error"]["data"].is_null() => "refused by the child",
            200 | 502 => {
                let why = reason(&answer);
                assert!(START_FAILURES.contains(&why), "{}: {answer}", response.status);
                why
            }
            503 => {
                let why = reason(&answer);
                assert!(matches!(why, "too_many_sessions" | "spawn_backoff"), "{answer}");
                thread::sleep(Duration::from_millis(50));
                why
            }
            status => panic!("initialize: {status}: {answer}"),
        };
        soak.count(&format!("initialize {why}"));
        self.trace.outcome(why);
        None
    }
}

/// A call that is ready to be sent, and the text it shall come back with.
pub struct Call {
    pub id: u64,
    pub body: Value,
    pub said: String,
}

/// One session as its client sees it.
pub struct Talk<'s> {
    pub soak: &'s Soak,
    pub trace: &'s Trace,
    pub plan: &'s SessionPlan,
    pub session: Session,
    /// Stands in front of everything this session says, and nobody else may ever see it.
    pub token: String,
    pub mode: &'static Mode,
    /// From 1 on: other sessions use the same ids at the same time.
    ids: AtomicU64,
    pub told_to_exit: AtomicBool,
    pub deleted: AtomicBool,
    /// How often the session was gone, or its child too slow.
    pub failures: AtomicU64,
    listening: Mutex<Option<Response>>,
}

impl Talk<'_> {
    fn perform(&self, action: &Action) {
        match action {
            Action::Echo { bytes } => self.make(&self.prepare(0, *bytes), &[]),
            Action::Burst(lengths) => {
                let calls: Vec<Call> = lengths.iter().map(|ms| self.prepare(*ms, 0)).collect();
                at_once(calls.iter().map(|call| || self.make(call, &[])));
            }
            Action::Twice { ms } => {
                let call = self.prepare(*ms, 0);
                at_once([(); 2].map(|()| || self.make(&call, &["duplicate_id"])));
            }
            Action::Cancel { ms, after } => {
                let call = self.prepare(*ms, 0);
                let cancel = json!({
                    "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": call.id },
                });
                thread::scope(|scope| {
                    let made = scope.spawn(|| self.make(&call, &["cancelled"]));
                    thread::sleep(Duration::from_millis(*after));
                    self.accepted(self.post(&cancel.to_string()));
                    join(made);
                });
            }
            Action::BreakOff { ms, events } => self.break_off(&self.prepare(*ms, 0), *events, false),
            Action::TakeOver { ms, events } => self.break_off(&self.prepare(*ms, 0), *events, true),
            Action::Reuse(count) => {
                let mut connection = Connection::open(self.session.address);
                for _ in 0..*count {
                    let call = self.prepare(0, 0);
                    connection.write(&self.request(&call.body.to_string()).to_bytes("localhost"));
                    let (outcome, response) = self.read(connection.response());
                    self.settle(outcome, &[&call], &[]);
                    connection = response.into_connection();
                    if self.is_fed_up() {
                        break;
                    }
                }
            }
            Action::Forget { ms } => drop(self.session.begin(self.prepare(*ms, 0).body.to_string())),
            Action::Unread { bytes } => {
                let _unread = self.session.begin(self.prepare(0, *bytes).body.to_string());
                thread::sleep(Duration::from_millis(50));
            }
            Action::Batch(size) => self.batch(*size),
            Action::Listen => self.listen(),
            Action::Unlisten => drop(self.listening.lock().unwrap().take()),
            Action::Malformed(which) => self.malformed(*which),
            Action::Exit(how) => {
                let arguments = match how.parse::<i64>() {
                    Ok(code) => json!({ "code": code }),
                    Err(_) => json!({ "signal": how }),
                };
                self.told_to_exit.store(true, Ordering::Relaxed);
                let id = self.next_id();
                let call = Call { id, body: tool_call(id, "exit", arguments), said: String::new() };
                // A child that does not read cannot be told.
                self.make(&call, &["request_timeout"]);
            }
            Action::Pause { ms } => thread::sleep(Duration::from_millis(*ms)),
        }
    }

    fn finish(&self, ending: Ending) {
        match ending {
            Ending::Abandon => return,
            Ending::Delete => self.delete(),
            Ending::DeleteTwice => at_once([(); 2].map(|()| || self.delete())),
            Ending::DeleteInCall => {
                let call = self.prepare(300, 0);
                self.deleted.store(true, Ordering::Relaxed);
                thread::scope(|scope| {
                    let made = scope.spawn(|| self.make(&call, &[]));
                    thread::sleep(Duration::from_millis(20));
                    self.delete();
                    join(made);
                });
            }
        }
        let mut ping = self.post(&json!({ "jsonrpc": "2.0", "id": 0, "method": "ping" }).to_string());
        ping.expect(404, "the id of a deleted session is gone");
        self.refused(404, &ping.json(), &[]);
        if let Some(stream) = self.listening.lock().unwrap().take() {
            self.ends(stream);
        }
    }

    // ------------------------------------------------------------------------------------------ calls

    /// A real client begins anew.
    fn is_fed_up(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= 3
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A call so long, or an echo of a text with so many further bytes.
    fn prepare(&self, ms: u64, bytes: usize) -> Call {
        let id = self.next_id();
        if ms > 0 {
            return Call { id, body: tool_call(id, "sleep", json!({ "ms": ms })), said: "slept".to_owned() };
        }
        let said = format!("{}{id}/{}", self.token, "x".repeat(bytes));
        Call { id, body: tool_call(id, "echo", json!({ "text": said })), said }
    }

    fn request(&self, body: &str) -> Request {
        let request = self.session.headers(Request::post("/mcp", body));
        request.with("Accept", if self.plan.json_only { "application/json" } else { BOTH })
    }

    pub fn post(&self, body: &str) -> Response {
        self.request(body).send(self.session.address)
    }

    /// P3: the call has exactly one end, which is its answer, or an error that its mode or `reasons` allows.
    fn make(&self, call: &Call, reasons: &[&str]) {
        let (outcome, _) = self.read(self.post(&call.body.to_string()));
        self.settle(outcome, &[call], reasons);
    }

    fn break_off(&self, call: &Call, events: usize, takes_over: bool) {
        let mut response = self.post(&call.body.to_string());
        if response.status != 200 || !response.is_sse() {
            let (outcome, _) = self.read(response);
            return self.settle(outcome, &[call], &[]);
        }
        let mut last = None;
        for _ in 0..events {
            match response.try_event() {
                Ok(Some(event)) => {
                    self.own(&event.raw);
                    if event.data.as_deref().is_some_and(|data| !data.is_empty()) {
                        let message = event.json();
                        if message.get("method").is_none() {
                            return self.settle(Outcome::Answers(vec![message]), &[call], &[]);
                        }
                        self.reply(&message);
                    }
                    last = event.id;
                }
                Ok(None) => panic!("the stream ended without the answer"),
                Err(error) => return self.is_flooded(&error),
            }
        }
        let older = takes_over.then_some(response);
        let Some(last) = last else { return self.trace.outcome("left") };
        self.soak.count("resumed");
        self.trace.outcome(&format!("left at {last}"));
        let (outcome, _) = self.read_behind(Some(last.clone()), self.session.resume(&last));
        self.settle(outcome, &[call], &[]);
        if let Some(mut older) = older {
            let mut answers = Vec::new();
            if let Err(error) = self.events(&mut older, &mut None, &mut answers) {
                self.is_flooded(&error);
            }
            assert!(answers.len() <= 1, "the answer may have been on its way to it already: {answers:?}");
        }
    }

    fn batch(&self, size: u64) {
        let calls: Vec<Call> = (0..size).map(|n| self.prepare(n * 10, 0)).collect();
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
        let bodies: Vec<&Value> = calls.iter().map(|call| &call.body).chain([&note]).collect();
        let (outcome, _) = self.read(self.post(&json!(bodies).to_string()));
        let refusals: &[&str] = if self.plan.version == "2025-03-26" { &[] } else { &["invalid_request"] };
        if let (Outcome::Answers(answers), false) = (&outcome, refusals.is_empty()) {
            panic!("no batches in {}: {answers:?}", self.plan.version);
        }
        self.settle(outcome, &calls.iter().collect::<Vec<_>>(), refusals);
    }

    fn delete(&self) {
        let was_deleted = self.deleted.swap(true, Ordering::Relaxed);
        let mut response = self.session.delete();
        match response.status {
            204 => {}
            status => self.refused(status, &response.json(), &[]),
        }
        self.trace.outcome(&format!("{} {was_deleted}", response.status));
    }

    // ------------------------------------------------------------------------------------------ the listening stream

    fn listen(&self) {
        let mut response = self.session.headers(Request::listen("/mcp")).send(self.session.address);
        if response.status != 200 {
            return self.refused(response.status, &response.json(), &[]);
        }
        assert!(response.is_sse());
        let older = self.listening.lock().unwrap().replace(response);
        if let Some(older) = older {
            self.ends(older);
        }
    }

    /// The stream has been taken over, or its session is over: it ends by itself.
    fn ends(&self, mut stream: Response) {
        let mut answers = Vec::new();
        if let Err(error) = self.events(&mut stream, &mut None, &mut answers) {
            self.is_flooded(&error);
        }
        assert_eq!(answers, [] as [Value; 0], "answers come where they were asked for");
    }

    // ------------------------------------------------------------------------------------------ requests to refuse

    fn malformed(&self, which: u64) {
        let post = |body: &str| self.session.headers(Request::post("/mcp", body));
        let ping = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;
        let rows = [
            (post(r#"{"jsonrpc":"#), 400, "parse_error"),
            (post("{}"), 400, "invalid_request"),
            (post("[]"), 400, "invalid_request"),
            (post(r#"{"jsonrpc":"2.0","id":"p","ID":3,"method":"ping"}"#), 400, "invalid_request"),
            (
                post(
                    r#"{"jsonrpc":"2.0","id":"p","method":"ping","params":{"_meta":{"progressToken":1,"progressToken":2}}}"#,
                ),
                400,
                "invalid_request",
            ),
            (post(&initialize(1, "2025-06-18").to_string()), 400, "already_initialized"),
            (post(r#"{"jsonrpc":"2.0","id":"nobody asked","result":{}}"#), 400, "unknown_response"),
            (post(ping).header("MCP-Protocol-Version", "1999-01-01"), 400, "unsupported_protocol_version"),
            (post(ping).with("Content-Type", "text/plain"), 415, "unsupported_media_type"),
            (post(ping).with("Accept", "text/html"), 406, "not_acceptable"),
            (Request::post("/mcp", ping), 400, "session_required"),
            (Request::post("/mcp", ping).header("Mcp-Session-Id", "unknown"), 404, "session_not_found"),
            (Request::post("/elsewhere", ping), 404, "not_found"),
            (Request::new("PUT", "/mcp"), 405, "method_not_allowed"),
            (
                self.session.headers(Request::listen("/mcp")).header("Last-Event-ID", "nonsense"),
                400,
                "no_replay",
            ),
            (
                self.session.headers(Request::listen("/mcp")).header("Last-Event-ID", "9999-1"),
                400,
                "no_replay",
            ),
        ];
        let which = usize::try_from(which).unwrap();
        if let Some((request, status, token)) = rows.get(which % (rows.len() + 1)) {
            let mut response = request.clone().send(self.session.address);
            let body = response.json();
            if response.status == *status && reason(&body) == *token {
                return self.trace.outcome(token);
            }
            return self.refused(response.status, &body, &[]);
        }
        // A body that breaks off: nobody is left to be told.
        let broken = post(ping).with("Content-Length", "1000").to_bytes("localhost");
        Connection::open(self.session.address).write(&broken);
    }
}

/// Runs all of them at the same time, and panics if one does.
fn at_once<F: Fn() + Send>(jobs: impl IntoIterator<Item = F>) {
    thread::scope(|scope| {
        let jobs: Vec<_> = jobs.into_iter().map(|job| scope.spawn(job)).collect();
        jobs.into_iter().for_each(join);
    });
}

fn join(thread: thread::ScopedJoinHandle<'_, ()>) {
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
