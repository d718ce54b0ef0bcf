//! What the loop of a session must do, between a client and a child that a test plays: over pipes of a few bytes, so
//! that every message is read and written in pieces, and in paused time.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::Poll;

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, Lines, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, sleep_until};

use super::*;
use crate::account::Place;
use crate::exit_status::ExitStatus;
use crate::proto::front::{LISTENER_GRACE, Takes};
use crate::proto::ids::{EventId, Ids, SessionId};
use crate::proto::link::{CANCEL_GRACE, Limits, Readiness};
use crate::proto::message::Message;
use crate::proto::testing::*;
use crate::proto::version::Era;
use crate::session::stream::{MAX_UNSENT, Payload, Reader};
use crate::session::{MAILBOX, MAX_STDIN_QUEUE, Posted, Session};

mod calls;
mod deaf;
mod downgrade;
mod end;
mod exits;
mod handshake;
mod lanes;
mod modern;
mod questions;
mod races;
mod readers;
mod ready;
mod respawn;
mod sizes;
mod streams;
mod timeouts;

const CONFIG: Config = Config {
    fault_text: |_, _| bytes::Bytes::new(),
    limits: Limits {
        init_timeout: secs(10),
        request_timeout: secs(100),
        max_in_flight: 256,
        respawn: false,
        restore: None,
        ready: Readiness::AT_ONCE,
        ids: Ids::counted,
        state: || 1,
    },
    idle_timeout: secs(1000),
    unclaimed_timeout: None,
    is_on_lane: false,
    sse_after: Duration::MAX,
    max_lifetime: None,
    max_body: 1024 * 1024,
    max_message: 100_000,
    replay_buffer: 64 * 1024,
    prime: false,
};

/// Bytes that a pipe holds: no message goes through it in one piece.
const NARROW: usize = 8;

/// The same, for tests of sizes.
const WIDE: usize = 64 * 1024;

const DIED: ExitStatus = ExitStatus::Code(3);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A session between a client and a child that a test plays.
///
/// `initialize` comes on stream 1 and reaches the child as request 1; what is posted first after it as 2, and so on.
struct Harness {
    session: Session,
    /// The reader of the answer to `initialize`.
    opening: Reader,
    child: Child,
    worker: JoinHandle<Ended<DuplexStream>>,
}

/// The child's ends of its pipes, and its exit.
struct Child {
    stdin: Option<Lines<BufReader<DuplexStream>>>,
    stdout: Option<DuplexStream>,
    exit: Option<oneshot::Sender<ExitStatus>>,
    /// How the session says that its handshake ended.
    handshake: oneshot::Receiver<Result<(), End>>,
}

impl Child {
    /// Receives exactly this line.
    async fn expect(&mut self, line: &str) {
        assert_eq!(self.line().await.as_deref(), Some(line), "the child receives");
    }

    /// The next line that the child receives; `None` at the end of its stdin.
    async fn line(&mut self) -> Option<String> {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        bounded(stdin.next_line()).await.expect("stdin is UTF-8")
    }

    async fn send(&mut self, line: &str) {
        self.write(&format!("{line}\n")).await;
    }

    async fn write(&mut self, text: impl AsRef<[u8]>) {
        let stdout = self.stdout.as_mut().expect("stdout is open");
        bounded(stdout.write_all(text.as_ref())).await.expect("stdout is always read");
    }

    /// How the session says that the handshake ended; `None`: it has not said it.
    async fn handshake(&mut self) -> Option<Result<(), End>> {
        settle().await;
        self.handshake.try_recv().ok()
    }

    fn close_stdin(&mut self) {
        self.stdin = None;
    }

    fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Exits. Another process may hold the pipes open.
    fn exit(&mut self) {
        self.exit_with(DIED);
    }

    fn exit_with(&mut self, status: ExitStatus) {
        let told = self.exit.take().map(|exit| exit.send(status));
        assert!(told.is_none_or(|told| told.is_ok()), "the exit is waited for");
    }
}

impl Harness {
    /// The child has not received anything.
    fn new(config: Config, pipe: usize) -> Self {
        let (session, opening, child, run) = unspawned(config, pipe);
        Self { session, opening, child, worker: tokio::spawn(run) }
    }

    /// The child has `initialize` and has not answered it.
    async fn starting() -> Self {
        let mut harness = Self::new(CONFIG, NARROW);
        harness.child.expect(&request("1", "initialize")).await;
        harness
    }

    /// The handshake is over.
    async fn open() -> Self {
        Self::open_with(CONFIG, NARROW).await
    }

    async fn open_with(config: Config, pipe: usize) -> Self {
        let mut harness = Self::new(config, pipe);
        harness.child.expect(&request("1", "initialize")).await;
        harness.child.send(&result("1")).await;
        assert_eq!(rest(&harness.opening).await, [format!("1-1 {}", result("\"init\"")), "end".into()]);
        harness.accepted(&note("notifications/initialized")).await;
        harness.child.expect(&note("notifications/initialized")).await;
        harness
    }

    async fn post(&self, text: &str) -> Reader {
        post(&self.session, text, true).await.expect("the session is there")
    }

    /// A client posts what needs no answer.
    async fn accepted(&self, text: &str) {
        assert_eq!(rest(&self.post(text).await).await, ["accepted", "end"], "this is for the child: {text}");
    }

    /// A client calls, with its id as progress token, and the child receives it as request `seen`.
    async fn call(&mut self, id: &str, seen: &str) -> Reader {
        let reader = self.post(&call(id, id)).await;
        self.child.expect(&call(seen, id)).await;
        reader
    }

    /// Listens, behind the event `after` or without an id, and is attached.
    async fn listen(&self, after: Option<&str>) -> Reader {
        let reader = self.try_listen(after).await;
        assert_eq!(next(&reader).await, "accepted");
        assert!(reader.position().is_some(), "an attached reader knows its place");
        reader
    }

    async fn try_listen(&self, after: Option<&str>) -> Reader {
        let after = after.map(|id| EventId::parse(id).expect("an event id"));
        bounded(self.session.listen(after)).await.expect("the session is there")
    }

    /// Why the session ended, once it has.
    async fn ended(self) -> End {
        bounded(self.worker).await.unwrap().why
    }

    fn is_over(&self) -> bool {
        self.worker.is_finished()
    }
}

/// A session whose loop does not run.
fn unspawned(
    config: Config,
    pipe: usize,
) -> (Session, Reader, Child, impl Future<Output = Ended<DuplexStream>> + use<>) {
    let (first, child) = pipes(pipe);
    let initialize = parsed_request(&request("\"init\"", "initialize"));
    let id = SessionId::from_random(None, [7; 24]);
    let (session, worker, opening) = Session::new(config, id, initialize, Takes::Events, Era::Legacy);
    (session, opening, child, worker.run(first, |_| pending()))
}

/// A child's pipes: the session's ends, and the child's own.
fn pipes(size: usize) -> (Pipes<DuplexStream, DuplexStream>, Child) {
    let (stdin, childs_stdin) = duplex(size);
    let (childs_stdout, stdout) = duplex(size);
    let (exit, exited) = oneshot::channel();
    let exited = async move {
        match exited.await {
            Ok(exit) => End::Exited(exit),
            Err(_) => pending().await,
        }
    };
    let stdin_lines = BufReader::new(childs_stdin).lines();
    let (answered, handshake) = oneshot::channel();
    let child = Child { stdin: Some(stdin_lines), stdout: Some(childs_stdout), exit: Some(exit), handshake };
    (Pipes { stdin, stdout, exit: Box::pin(exited), answered, first_words: Arc::default() }, child)
}

async fn post(session: &Session, text: &str, streams: bool) -> Result<Reader, End> {
    let posting = session.post(Posted::One(message(text)), None, takes(streams), Instant::now());
    bounded(posting).await.map_err(|not_taken| not_taken.why)
}

/// Nothing here takes a day: it waits for something that never comes.
async fn bounded<F: Future>(future: F) -> F::Output {
    timeout(secs(86_400), future).await.expect("this hangs")
}

/// Lets every task do all that it can do now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

async fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    let mut future = Some(future);
    let polled = poll_fn(|context| Poll::Ready(future.take().map(|future| future.poll(context)))).await;
    yield_now().await; // a task may do only so much in one go
    polled.expect("polled once")
}

/// A delivery in words.
fn words(delivery: Option<Delivery>) -> String {
    match delivery {
        None => "end".into(),
        Some(Delivery::Accepted) => "accepted".into(),
        Some(Delivery::Refused(why)) => format!("refused {why:?}"),
        Some(Delivery::NoReplay) => "no replay".into(),
        Some(Delivery::Lagged) => "lagged".into(),
        Some(Delivery::Pending) => "pending".into(),
        Some(Delivery::NotForwarded(after)) => format!("not forwarded {after:?}"),
        Some(Delivery::NotTaken(NotTaken { why, .. }) | Delivery::Gone(why)) => {
            format!("gone {}", why.cause())
        }
        Some(Delivery::Event(event)) => match event.payload {
            Payload::Message(text) | Payload::Answer { message: text, .. } => {
                format!("{} {}", event.id, std::str::from_utf8(&text).expect("UTF-8"))
            }
            Payload::Fault { id, fault } => format!("{} {} {fault:?}", event.id, id.0.as_json()),
        },
    }
}

/// What comes next.
async fn next(reader: &Reader) -> String {
    words(bounded(reader.next()).await)
}

/// What there is now, without waiting.
async fn available(reader: &Reader) -> Vec<String> {
    settle().await;
    let mut found = Vec::new();
    while let Poll::Ready(delivery) = poll_fn(|context| Poll::Ready(reader.poll_next(context))).await {
        let end = delivery.is_none();
        found.push(words(delivery));
        if end {
            break;
        }
    }
    found
}

/// Everything up to the end.
async fn rest(reader: &Reader) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        found.push(next(reader).await);
        if found.last().is_some_and(|last| last == "end") {
            return found;
        }
    }
}

/// A notification that belongs to no call.
fn news(number: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"n:{number}"}}}}"#
    )
}

fn result_of(id: &str, size: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{}"}}"#, "x".repeat(size))
}

/// The answer to a call, as the only thing on its stream.
fn answered(stream: u64, id: &str) -> Vec<String> {
    vec![format!("{stream}-1 {}", result(id)), "end".into()]
}

/// The bridge's own answer to a call, as the only thing on its stream.
fn failed(stream: u64, id: &str, fault: &str) -> Vec<String> {
    vec![format!("{stream}-1 {id} {fault}"), "end".into()]
}

async fn send_news(harness: &mut Harness, numbers: RangeInclusive<u64>) {
    for number in numbers {
        harness.child.send(&news(number)).await;
    }
    settle().await;
}

/// The next so many things that the reader gets.
async fn received(reader: &Reader, count: u64) -> Vec<String> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(next(reader).await);
    }
    events
}

/// These news, as a listener gets them.
fn received_range(numbers: RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("0-{number} {}", news(number))).collect()
}

/// Whether as much time has passed since then, give or take the steps of the clock and of the test.
#[track_caller]
fn assert_passed(since: Instant, want: Duration) {
    let passed = since.elapsed();
    let close = want..want + Duration::from_millis(10);
    assert!(close.contains(&passed), "{passed:?} passed and not {want:?}");
}

/// A session whose handshake is over and whose loop runs only when it is polled.
async fn by_hand() -> (Session, Child, Pin<Box<impl Future<Output = Ended<DuplexStream>>>>) {
    let (session, opening, mut child, run) = unspawned(CONFIG, WIDE);
    let mut run = Box::pin(run);
    assert!(poll_once(run.as_mut()).await.is_pending());
    child.send(&result("1")).await;
    assert!(poll_once(run.as_mut()).await.is_pending());
    drop(opening);
    drop(post(&session, &note("notifications/initialized"), true).await.unwrap());
    assert!(poll_once(run.as_mut()).await.is_pending());
    (session, child, run)
}
