//! Sessions without HTTP before them: what happens between two turns of the loop, where no client can look.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;
use std::{env, process};

use bytes::Bytes;
use mcp_bridge::account::Place;
use mcp_bridge::assembly::{self, Prepared};
use mcp_bridge::cli::{self, EnvSource, Task};
use mcp_bridge::proto::front::Takes;
use mcp_bridge::proto::message::Message;
use mcp_bridge::proto::version::Era;
use mcp_bridge::reaper::Reaper;
use mcp_bridge::session::stream::{Delivery, Payload, Reader};
use mcp_bridge::session::{End, Posted, Session};
use mcp_bridge::sessions::{Found, NoSession, Opening, Sessions, State};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{self, example, initialize, json};

/// Set where a test runs in a process of its own: the reaper reaps for its whole process.
const ALONE: &str = "INSIDE_TEST";

/// Runs this test of this file in a process of its own.
#[track_caller]
fn assert_passes_alone(test: &str, body: impl AsyncFnOnce()) {
    if env::var(ALONE).is_ok_and(|alone| alone == test) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime
            .block_on(async { timeout(Duration::from_secs(60), body()).await.expect("this hangs") });
    }
    let mut command = process::Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("inside::{test}")]).env(ALONE, test);
    let finished = support::run_command(command);
    let said = finished.stdout + &finished.stderr;
    assert_eq!(finished.code, Some(0), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

struct NoVariables;

impl EnvSource for NoVariables {
    fn get(&self, _: &str) -> Option<OsString> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The sessions of a bridge with these options.
fn sessions(options: &[&str], reaper: &Reaper) -> Arc<Sessions> {
    let hostile = example("hostile");
    let words = options.iter().copied().chain(["--", &hostile, "good"]).map(OsString::from).collect();
    let Ok(Task::Serve(options)) = cli::parse(words, &NoVariables, None) else {
        panic!("these options serve")
    };
    let Prepared { command, .. } = Prepared::find(&options).expect("the command is there");
    Sessions::new(assembly::sessions_config(&options), command, reaper.clone())
}

fn message(text: String) -> Message {
    Message::parse(Bytes::from(text)).expect("a message")
}

/// A session after its handshake.
async fn open(sessions: &Arc<Sessions>) -> Session {
    try_open(sessions).await.expect("there is a seat")
}

async fn try_open(sessions: &Arc<Sessions>) -> Result<Session, NoSession> {
    let Message::Request(initialize) = message(initialize(1, "2025-06-18").to_string()) else { panic!() };
    let opening = Opening::own(initialize, None, Vec::new(), Era::Legacy);
    let (session, reader) = sessions.start(opening).await?;
    assert!(answer(&reader).await.contains("serverInfo"));
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
    assert!(matches!(post(&session, initialized).await.next().await, Some(Delivery::Accepted)));
    Ok(session)
}

async fn post(session: &Session, text: String) -> Reader {
    let posted = Posted::One(message(text));
    session.post(posted, None, Takes::AnswerOnly, Instant::now()).await.expect("the session is there")
}

async fn answer(reader: &Reader) -> String {
    loop {
        if let Some(Delivery::Event(event)) = reader.next().await
            && let Payload::Answer { message, .. } = event.payload
        {
            return String::from_utf8(message.to_vec()).expect("JSON is UTF-8");
        }
    }
}

/// Waits until `done`.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_session_that_has_just_been_posted_to_is_not_evicted_and_the_next_is() {
    let test = "a_session_that_has_just_been_posted_to_is_not_evicted_and_the_next_is";
    assert_passes_alone(test, async || {
        let sessions = sessions(&["--lazy", "--evict", "--max-sessions", "2"], &Reaper::start().unwrap());
        let (first, second) = (open(&sessions).await, open(&sessions).await);
        for session in [&first, &second] {
            until(|| session.stats().idle_since.is_some()).await;
        }
        assert!(first.stats().idle_since < second.stats().idle_since, "the first would be evicted");
        // Its loop cannot have seen this call when the third session asks for a seat.
        let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" }).to_string();
        let reader = post(&first, call).await;
        assert!(first.stats().idle_since.is_some());
        let third = open(&sessions).await;
        assert!(answer(&reader).await.contains("\"id\":7"), "the call has its answer");
        assert!(matches!(sessions.find(first.id(), None), Found::Live(_)));
        assert!(matches!(sessions.find(second.id(), None), Found::Ended(End::Evicted)));
        assert!(matches!(sessions.find(third.id(), None), Found::Live(_)));
    });
}

#[test]
fn nothing_watches_a_warm_child_any_more_once_a_session_has_it() {
    assert_passes_alone("nothing_watches_a_warm_child_any_more_once_a_session_has_it", async || {
        let (reaper, tasks) = (Reaper::start().unwrap(), || Handle::current().metrics().num_alive_tasks());
        let is_open = |sessions: &Sessions| sessions.snapshot().sessions[0].state == State::Open;
        let (before, lazy) = (tasks(), sessions(&["--lazy"], &reaper));
        let _cold = open(&lazy).await;
        until(|| is_open(&lazy)).await; // the task that waits for that has ended
        let of_a_session = tasks() - before;

        let (before, warm) = (tasks(), sessions(&[], &reaper));
        warm.prewarm().expect("it is started");
        let _warm = open(&warm).await;
        until(|| is_open(&warm) && tasks() - before == of_a_session).await;
    });
}

#[test]
fn a_snapshot_says_what_each_session_does_and_why_no_new_one_would_start() {
    assert_passes_alone(
        "a_snapshot_says_what_each_session_does_and_why_no_new_one_would_start",
        async || {
            let sessions = sessions(&["--warm", "1", "--max-sessions", "3"], &Reaper::start().unwrap());
            sessions.prewarm().expect("it is started");
            let session = open(&sessions).await;
            until(|| sessions.snapshot().warm == 1).await;
            until(|| sessions.snapshot().sessions[0].idle.is_some()).await;
            let snapshot = sessions.snapshot();
            assert_eq!((snapshot.sessions.len(), snapshot.processes, snapshot.max_sessions), (1, 2, 3));
            assert_eq!((snapshot.leaving, snapshot.waiting, snapshot.not_ready), (0, 0, None));
            let of_it = &snapshot.sessions[0];
            assert_eq!((&*of_it.sid, of_it.keyed, of_it.state), (session.id().short(), false, State::Open));
            assert_eq!((of_it.in_flight, of_it.waiting[Place::Stdin as usize]), (0, 0));
            assert!(of_it.pid.is_some() && of_it.idle <= Some(of_it.age), "{of_it:?}");

            sessions.end(&session, End::Deleted);
            let leaving = sessions.snapshot();
            assert_eq!(
                (leaving.sessions.len(), leaving.leaving, leaving.processes),
                (0, 1, 2),
                "its child is there"
            );
            until(|| sessions.snapshot().leaving == 0).await;
            sessions.drain();
            assert_eq!(sessions.snapshot().not_ready.map(|why| why.as_str()), Some("draining"));
            assert!(matches!(try_open(&sessions).await, Err(NoSession::Draining)));
            sessions.drained().await;
            assert_eq!(sessions.snapshot().processes, 0);
        },
    );
}
