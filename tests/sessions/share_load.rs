//! P4 where sessions share a child: fifty of them use the same ids and tokens at the same time, and each hears its own only.
//!
//! Each call says the id of its session, which nobody can guess, and its own number; an answer or a progress notification
//! with any other words fails the test. `SHARE_CALLS` sets how many calls each session makes.

use std::collections::BTreeSet;
use std::thread;

use crate::support::http::Connection;
use crate::support::{Bridge, Request, Session, eventually, json, proc, text_of};

const SESSIONS: usize = 50;
const THREADS: usize = 10;

/// How many calls of a session are in flight at once: all together stay below what one child may have, 256.
const IN_FLIGHT: usize = 4;

/// One call of so many reports progress, so often.
const TELLING: u64 = 10;
const TIMES: u64 = 2;

struct Caller {
    session: Session,
    idle: Vec<Connection>,
}

impl Caller {
    fn words(&self, id: u64) -> String {
        format!("{} {id}", self.session.id)
    }

    fn begin(&mut self, id: u64) -> Connection {
        let mut connection = self.idle.pop().unwrap_or_else(|| Connection::open(self.session.address));
        let (tool, times) = if id.is_multiple_of(TELLING) { ("tell", TIMES) } else { ("echo", 0) };
        let arguments = json!({ "text": self.words(id), "times": times });
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": id } });
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params });
        let post = self.session.headers(Request::post("/mcp", call.to_string()));
        connection.write(&post.to_bytes(&self.session.address.to_string()));
        connection
    }

    /// Reads the answer to its end; how many progress notifications came before it.
    fn finish(&mut self, id: u64, connection: Connection) -> u64 {
        let mut response = connection.response();
        response.expect(200, "a call");
        let mut messages = response.messages();
        let answer = messages.pop().unwrap();
        assert_eq!((&answer["id"], text_of(&answer)), (&json!(id), self.words(id)), "the answer");
        let mut progress = 0;
        for message in &messages {
            let params = &message["params"];
            if message["method"] == "notifications/progress" {
                let own = (json!(id), json!(self.words(id)));
                assert_eq!((&params["progressToken"], &params["message"]), (&own.0, &own.1), "{message}");
                progress += 1;
            } else {
                // A log message of `tell`: where nobody can know whose it is, it is nobody's.
                let said = params["data"].as_str().unwrap_or_default();
                assert!(said.starts_with(&format!("{} ", self.session.id)), "{message}");
            }
        }
        self.idle.push(response.into_connection());
        progress
    }
}

/// The calls of some sessions, those of a group all in flight together; how many progress notifications came.
fn work(callers: &mut [Caller], calls: u64) -> u64 {
    let (mut progress, ids) = (0, (0..calls).collect::<Vec<_>>());
    for group in ids.chunks(IN_FLIGHT) {
        let mut flying = Vec::new();
        for (index, caller) in callers.iter_mut().enumerate() {
            for id in group {
                flying.push((index, *id, caller.begin(*id)));
            }
        }
        for (index, id, connection) in flying {
            progress += callers[index].finish(id, connection);
        }
    }
    progress
}

fn of(bridge: &Bridge) -> BTreeSet<u64> {
    proc::children(bridge.pid()).iter().map(|child| u64::from(child.pid)).collect()
}

fn pid_seen_by(session: &Session) -> u64 {
    session.look("pids")["pid"].as_u64().unwrap()
}

#[test]
fn fifty_sessions_on_one_child_with_a_thousand_equal_ids_each_hear_their_own_only() {
    let calls = std::env::var("SHARE_CALLS").ok().map_or(1000, |calls| calls.parse().unwrap());
    let bridge = Bridge::start(&["--share", "all"], &["hostile", "good"]);
    let mut callers: Vec<Caller> =
        (0..SESSIONS).map(|_| Caller { session: bridge.session(), idle: Vec::new() }).collect();

    let pids: BTreeSet<u64> = callers.iter().map(|caller| pid_seen_by(&caller.session)).collect();
    assert_eq!(pids.len(), 1, "the processes of all sessions: {pids:?}");
    // Another one may have been asked which era it speaks.
    eventually("there is no other process", || of(&bridge) == pids);

    let progress: u64 = thread::scope(|scope| {
        let working: Vec<_> = callers
            .chunks_mut(SESSIONS / THREADS)
            .map(|callers| scope.spawn(move || work(callers, calls)))
            .collect();
        working.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let told = SESSIONS as u64 * calls.div_ceil(TELLING) * TIMES;
    assert_eq!(progress, told, "each progress notification came once");

    let (last, others) = callers.split_last().unwrap();
    for caller in others {
        assert_eq!(caller.session.delete().status, 204);
    }
    assert_eq!(BTreeSet::from([pid_seen_by(&last.session)]), pids, "the process of the session that is left");
    assert_eq!(of(&bridge), pids, "processes");
}
