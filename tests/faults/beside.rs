//! One bad child among good ones. Whatever a fault does to its own session, the session beside it answers before,
//! during and after, and so does a new one.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{
    Bridge, Response, Scratch, Session, Value, eventually, example, json, reason, text_of, tool_call,
};

pub struct Beside {
    pub bridge: Bridge,
    scratch: Scratch,
    good: Session,
}

impl Beside {
    /// All children are `hostile good`, but for those that follow [`arm`](Self::arm): each of them is `hostile MODE`.
    #[track_caller]
    pub fn start(options: &[&str], mode: &str) -> Self {
        Self::with_script(options, &format!(r#"exec "$0" {mode}"#))
    }

    /// As [`start`](Self::start), with a shell script for the bad child; `$0` is `hostile`.
    #[track_caller]
    pub fn with_script(options: &[&str], bad: &str) -> Self {
        let scratch = Scratch::new();
        let script = format!(r#"if rmdir "$1" 2>/dev/null; then {bad}; else exec "$0" good; fi"#);
        let command = ["sh", "-c", &script, &example("hostile"), &scratch.path("armed")];
        // Lazy: a child started ahead would be a good one that waits for the bad session.
        let bridge = Bridge::start(&[&["--lazy", "--stop-grace", "500ms"], options].concat(), &command);
        let good = bridge.session();
        assert_answers(&good, "before");
        Beside { bridge, scratch, good }
    }

    /// The next child will be the bad one.
    #[track_caller]
    pub fn arm(&self) {
        fs::create_dir(self.scratch.path("armed")).unwrap();
    }

    /// A file that a script waits for; `armed` is its `$1`.
    #[track_caller]
    pub fn touch(&self, name: &str) {
        self.scratch.write(name, "");
    }

    /// A session with the bad child.
    #[track_caller]
    pub fn bad(&self) -> Session {
        self.arm();
        let session = self.bridge.session();
        assert!(!Path::new(&self.scratch.path("armed")).exists(), "the child of this session is the bad one");
        session
    }

    /// Provokes the fault while the good session has one call in flight and makes others.
    #[track_caller]
    pub fn during<R>(&self, provoke: impl FnOnce() -> R) -> R {
        /// Ends the neighbour's loop, also when the test fails: its thread is waited for.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = AtomicBool::new(false);
        let waiting = self.good.begin(tool_call("waiting", "sleep", json!({ "ms": 300 })).to_string());
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert_answers(&self.good, "during");
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let _over = Over(&over);
            provoke()
        });
        assert_eq!(text_of(&waiting.response().answer()), "slept", "a call that was in flight all the time");
        result
    }

    /// Afterwards: the neighbour goes on with the child it had, and a new session works.
    #[track_caller]
    pub fn assert_unharmed(&self) {
        assert_answers(&self.good, "after");
        assert_eq!(self.good.seen_count("initialize"), 1, "its child is still the same");
        let new = self.bridge.session();
        assert_answers(&new, "anew");
        assert_eq!(new.delete().status, 204);
        self.bridge.get("/readyz").expect(200, "the bridge is ready");
    }

    /// As [`assert_unharmed`](Self::assert_unharmed); the bad session must be over, and with the good one the last
    /// process goes.
    #[track_caller]
    pub fn finish(self) {
        self.assert_unharmed();
        assert_eq!(self.good.delete().status, 204);
        self.bridge.leaves_nothing();
    }

    /// Waits for the one line of the log that says all this about this session.
    #[track_caller]
    pub fn logged(&self, session: &Session, words: &[&str]) -> String {
        let sid = format!("sid=\"{}\"", &session.id[..8]);
        let said = |line: &str| line.contains(&sid) && words.iter().all(|word| line.contains(word));
        self.bridge.logged(&format!("{words:?} of {sid}"), said)
    }

    /// The session is over for this reason: the log says it, and clients are told to begin anew.
    #[track_caller]
    pub fn assert_over(&self, session: &Session, cause: &str, data: &Value) {
        eventually("the session is over", || session.ping().status == 404);
        let mut response = session.ping();
        response.expect(404, "a session that is over");
        assert_eq!(response.header("mcp-bridge-error"), Some("session_terminated"));
        let answer = response.json();
        // Null, because a 404 that echoes the id is taken for the failure of one call.
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32001)), "{answer}");
        assert_eq!(
            (reason(&answer), &answer["error"]["data"]["cause"]),
            ("session_terminated", &json!(cause))
        );
        assert_data(&answer, data);
        self.logged(session, &[r#"event="session.end""#, &format!("reason=\"{cause}\"")]);
    }
}

#[track_caller]
fn assert_answers(session: &Session, when: &str) {
    assert_eq!(session.text("echo", json!({ "text": when })), when, "the neighbour answers");
}

/// The members that the fault adds to `error.data`.
#[track_caller]
pub fn assert_data(answer: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&answer["error"]["data"][name], value, "data.{name} of {answer}");
    }
}

/// The error that the bridge gives in place of the child's answer.
#[track_caller]
pub fn assert_fault(answer: &Value, token: &str, data: &Value) {
    assert_eq!((reason(answer), &answer["error"]["code"]), (token, &json!(-32603)), "{answer}");
    assert_data(answer, data);
}

// ---------------------------------------------------------------------------------------------- a fault in one call

/// Short, but not so short that a stalled machine would lose a neighbour's call.
pub const REQUEST_TIMEOUT: &[&str] = &["--request-timeout", "3s"];

/// How the call of a fault is answered.
pub enum Answer {
    Text(&'static str),
    /// HTTP 200 with this error of the bridge: the reason, and what `data` says beside it.
    Fault(&'static str, Value),
}

/// What becomes of its session.
pub enum Then {
    GoesOn,
    /// The cause, and what `data` of the 404 says beside it.
    Over(&'static str, Value),
}

/// A fault of a mode of `hostile` that shows in one call.
pub struct Fault {
    pub mode: &'static str,
    pub options: &'static [&'static str],
    pub answer: Answer,
    /// What stands in one line of the log; empty where there is nothing to report.
    pub log: &'static [&'static str],
    pub then: Then,
}

/// Calls once, with the text "a".
pub fn call(session: &Session) -> Response {
    session.post(tool_call(7, "echo", json!({ "text": "a" })).to_string())
}

/// The session goes on, until it is deleted.
#[track_caller]
pub fn assert_goes_on(session: &Session) {
    assert_eq!(session.seen_count("initialize"), 1, "the session goes on with the child it had");
    assert_eq!(session.delete().status, 204);
}

/// Provokes the fault beside a good session: its exact answer, its log line, and what becomes of the session.
#[track_caller]
pub fn check(fault: &Fault) -> Beside {
    let beside = Beside::start(fault.options, fault.mode);
    let bad = beside.bad();
    beside.during(|| {
        let mut listening = bad.listen();
        let mut response = call(&bad);
        response.expect(200, fault.mode);
        let token = response.header("mcp-bridge-error").map(str::to_owned);
        let is_stream = response.is_sse();
        let answer = response.answer();
        assert_eq!(answer["id"], 7, "{answer}");
        match &fault.answer {
            Answer::Text(text) => assert_eq!((text_of(&answer).as_str(), token), (*text, None)),
            Answer::Fault(reason, data) => {
                assert_fault(&answer, reason, data);
                assert!(is_stream || token.as_deref() == Some(reason), "the header says {token:?}");
            }
        }
        if !fault.log.is_empty() {
            beside.logged(&bad, fault.log);
        }
        match &fault.then {
            Then::GoesOn => assert_goes_on(&bad),
            Then::Over(cause, data) => beside.assert_over(&bad, cause, data),
        }
        while let Some(event) = listening.event() {
            assert!(event.json().get("method").is_some(), "no answer comes there: {event:?}");
        }
    });
    beside
}
