//! P4 under load: fifty clients use the same ids at the same time, and all that anybody hears is their own.
//!
//! Each message carries the id of its session, which nobody can guess, and the id of its call; one that stands in any
//! other stream fails the test. `ISOLATION_CALLS` sets how many calls each session makes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::http::Connection;
use crate::support::{Bridge, Request, Response, Session, Value, json, reason, text_of};

const SESSIONS: usize = 50;
const THREADS: usize = 10;

/// How many calls of a session are in flight at once.
const IN_FLIGHT: usize = 4;

/// How often a call that tells something does.
const TIMES: u64 = 2;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Answered after a while.
    Plain,
    /// The same, with progress and log messages before.
    Telling,
    /// The same, with the connection broken off in the middle of the stream and the stream resumed on another one.
    Broken,
    /// Cancelled while it is in flight.
    Cancelled,
}

/// The same in each run, and without any pattern that two sessions share.
fn random(session: usize, id: u64) -> u64 {
    let seed = (session as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (id + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (seed ^ (seed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
}

struct Caller {
    number: usize,
    session: Session,
    idle: Vec<Connection>,
    /// Log messages that have come on streams of calls.
    logs: u64,
}

impl Caller {
    fn payload(&self, id: u64) -> String {
        format!("{} {id}", self.session.id)
    }

    fn connection(&mut self) -> Connection {
        self.idle.pop().unwrap_or_else(|| Connection::open(self.session.address))
    }

    fn write(&mut self, request: Request) -> Connection {
        let mut connection = self.connection();
        connection.write(&self.session.headers(request).to_bytes(&self.session.address.to_string()));
        connection
    }

    fn begin(&mut self, id: u64, kind: Kind) -> Connection {
        let times = if matches!(kind, Kind::Telling | Kind::Broken) { TIMES } else { 0 };
        let least = match kind {
            Kind::Plain | Kind::Telling => 0,
            Kind::Broken => 20,
            Kind::Cancelled => 100,
        };
        let ms = least + random(self.number, id) % 8;
        let arguments = json!({ "text": self.payload(id), "ms": ms, "times": times });
        // The progress tokens of all sessions are the same too.
        let params = json!({ "name": "tell", "arguments": arguments, "_meta": { "progressToken": id } });
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        self.write(Request::post("/mcp", call.to_string()))
    }

    /// What happens while the call is in flight. Returns where its answer will come.
    fn disturb(&mut self, id: u64, kind: Kind, connection: Connection) -> Connection {
        match kind {
            Kind::Plain | Kind::Telling => connection,
            Kind::Broken => {
                let mut stream = connection.response();
                let event = stream.event().unwrap();
                if event.data.as_deref().is_some_and(|data| !data.is_empty()) {
                    self.note(&event.json());
                }
                drop(stream);
                let resume = Request::listen("/mcp").header("Last-Event-ID", &event.id.unwrap());
                self.write(resume)
            }
            Kind::Cancelled => {
                let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } });
                let mut accepted = self.write(Request::post("/mcp", cancel.to_string())).response();
                accepted.expect(202, "a cancellation");
                self.idle.push(accepted.into_connection());
                connection
            }
        }
    }

    fn finish(&mut self, id: u64, kind: Kind, connection: Connection) {
        let mut response = connection.response();
        response.expect(200, "a call");
        let answer = self.answer(&mut response);
        assert_eq!(answer["id"], id, "{answer}");
        if kind == Kind::Cancelled && answer.get("error").is_some() {
            assert_eq!(reason(&answer), "cancelled");
        } else {
            assert_eq!(
                text_of(&answer),
                self.payload(id),
                "the answer to call {id} of session {}",
                self.number
            );
        }
        self.idle.push(response.into_connection());
    }

    /// Reads a body to its end; its last message is the answer.
    fn answer(&mut self, response: &mut Response) -> Value {
        let mut messages = response.messages();
        let answer = messages.pop().unwrap();
        messages.iter().for_each(|message| self.note(message));
        answer
    }

    /// Checks whose notification this is.
    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        if message["method"] == "notifications/message" {
            assert_own_log(&self.session, message);
            self.logs += 1;
        } else {
            assert_eq!(message["method"], "notifications/progress", "{message}");
            let id = params["progressToken"].as_u64().unwrap();
            assert_eq!(params["message"], self.payload(id), "{message}");
        }
    }
}

fn assert_own_log(session: &Session, message: &Value) {
    assert_eq!(message["method"], "notifications/message", "{message}");
    let data = message["params"]["data"].as_str().unwrap();
    assert_eq!(data.split(' ').next(), Some(&*session.id), "{message}");
}

/// Ends the listeners, also when the test fails: their threads are waited for.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Hears log messages that belong to no call, until the session is over. Returns how many there were.
fn listen(session: &Session, mut stream: Response, over: &AtomicBool) -> u64 {
    let mut heard = Vec::new();
    // Most log messages come on streams of calls: it may be silent for as long as the storm lasts.
    while !over.load(Ordering::Relaxed) {
        if stream.is_silent_for(Duration::from_millis(500)) {
            continue;
        }
        match stream.event() {
            Some(event) if event.data.as_deref().is_some_and(|data| !data.is_empty()) => {
                heard.push(event.json())
            }
            Some(_) => {}
            None => break,
        }
    }
    heard.extend(stream.messages());
    heard.iter().for_each(|message| assert_own_log(session, message));
    heard.len() as u64
}

/// All sessions make `calls` calls with the ids 0.., and end.
#[track_caller]
fn storm(calls: u64, kind: fn(usize, u64) -> Kind) {
    let bridge = Bridge::start(&["--prime"], &["hostile", "good"]);
    let mut callers: Vec<Caller> = (0..SESSIONS)
        .map(|number| {
            let session = bridge.initialize_as("2025-11-25");
            session.notify("notifications/initialized", json!({}));
            Caller { number, session, idle: Vec::new(), logs: 0 }
        })
        .collect();
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over(over);
        let listening: Vec<_> = callers
            .iter()
            .map(|caller| {
                let (session, stream) = (caller.session.clone(), caller.session.listen());
                scope.spawn(move || listen(&session, stream, over))
            })
            .collect();
        thread::scope(|scope| {
            for callers in callers.chunks_mut(SESSIONS / THREADS) {
                scope.spawn(move || work(callers, calls, kind));
            }
        });
        let (mut wanted, mut in_time) = (0, 0);
        for caller in &callers {
            let all = (0..calls).map(|id| kind(caller.number, id));
            let cancelled = all.filter(|kind| *kind == Kind::Cancelled).count();
            wanted += cancelled;
            let seen = caller.session.seen();
            let count = |method: &str| seen.iter().filter(|entry| entry["method"] == method).count();
            assert_eq!(count("tools/call") as u64, calls + 1, "each call reached one child, and `seen` did");
            assert!(count("notifications/cancelled") <= cancelled, "nobody else's call was cancelled");
            in_time += count("notifications/cancelled");
            assert_eq!(caller.session.delete().status, 204);
        }
        over.store(true, Ordering::Relaxed);
        assert!(wanted == 0 || in_time > 0, "of {wanted} cancellations not one came in time");
        for (caller, listening) in callers.iter().zip(listening) {
            let telling = |id: &u64| matches!(kind(caller.number, *id), Kind::Telling | Kind::Broken);
            let told = (0..calls).filter(telling).count() as u64 * TIMES;
            assert_eq!(caller.logs + listening.join().unwrap(), told, "each log message came once");
        }
    });
}

/// The calls of some sessions, one after the other in small groups: all of a group are in flight together.
fn work(callers: &mut [Caller], calls: u64, kind: fn(usize, u64) -> Kind) {
    let ids: Vec<u64> = (0..calls).collect();
    for group in ids.chunks(IN_FLIGHT) {
        let mut flying = Vec::new();
        for (index, caller) in callers.iter_mut().enumerate() {
            for id in group {
                let kind = kind(caller.number, *id);
                flying.push((index, *id, kind, caller.begin(*id, kind)));
            }
        }
        let disturbed: Vec<_> = flying
            .into_iter()
            .map(|(index, id, kind, connection)| {
                (index, id, kind, callers[index].disturb(id, kind, connection))
            })
            .collect();
        for (index, id, kind, connection) in disturbed {
            callers[index].finish(id, kind, connection);
        }
    }
}

#[test]
fn fifty_sessions_with_a_thousand_equal_ids_each_hear_their_own_only() {
    let calls = std::env::var("ISOLATION_CALLS").ok().map_or(1000, |calls| calls.parse().unwrap());
    storm(calls, |session, id| match random(session, id) / 8 % 100 {
        0 => Kind::Broken,
        1 => Kind::Cancelled,
        2..20 => Kind::Telling,
        _ => Kind::Plain,
    });
}

#[test]
fn calls_with_equal_ids_that_are_broken_off_and_resumed_stay_in_their_sessions() {
    storm(20, |_, _| Kind::Broken);
}

#[test]
fn a_cancellation_ends_no_call_with_the_same_id_of_another_session() {
    storm(
        20,
        |session, id| if (session as u64 + id).is_multiple_of(2) { Kind::Cancelled } else { Kind::Plain },
    );
}
