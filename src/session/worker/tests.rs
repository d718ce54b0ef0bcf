//! What the loop of a session must do, between a client and a child that a test plays: over pipes of a few bytes, so
//! that every message is read and written in pieces, and in paused time.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, Lines, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, sleep_until};

use super::*;
use crate::proto::front::{LISTENER_GRACE, Takes};
use crate::proto::ids::{EventId, SessionId};
use crate::proto::link::{CANCEL_GRACE, Limits, Readiness};
use crate::proto::message::Message;
use crate::session::stream::{MAX_UNSENT, Payload, Reader};
use crate::session::{MAILBOX, MAX_STDIN_QUEUE, Posted, Session};

mod ready;
mod respawn;

const CONFIG: Config = Config {
    limits: Limits {
        init_timeout: secs(10),
        request_timeout: secs(100),
        max_in_flight: 256,
        respawn: false,
        ready: Readiness::AT_ONCE,
    },
    idle_timeout: secs(1000),
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

    /// Exits. Somebody else may hold the pipes open.
    fn exit(&mut self) {
        let told = self.exit.take().map(|exit| exit.send(DIED));
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
        assert!(reader.position().is_some(), "who is attached knows where");
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
    let initialize = opening(&request("\"init\"", "initialize"));
    let id = SessionId::from_random(None, [7; 24]);
    let (session, worker, opening) = Session::new(config, id, initialize, Takes::Events);
    (session, opening, child, worker.run(first, |_| pending()))
}

/// A child's pipes: the session's ends, and the child's own.
fn pipes(size: usize) -> (Pipes<DuplexStream, DuplexStream>, Child) {
    let (stdin, childs_stdin) = duplex(size);
    let (childs_stdout, stdout) = duplex(size);
    let (exit, exited) = oneshot::channel();
    let exited = async move {
        match exited.await {
            Ok(exit) => exit,
            Err(_) => pending().await,
        }
    };
    let stdin_lines = BufReader::new(childs_stdin).lines();
    let (answered, handshake) = oneshot::channel();
    let child = Child { stdin: Some(stdin_lines), stdout: Some(childs_stdout), exit: Some(exit), handshake };
    (Pipes { stdin, stdout, exit: Box::pin(exited), answered }, child)
}

async fn post(session: &Session, text: &str, streams: bool) -> Result<Reader, End> {
    bounded(session.post(Posted::One(message(text)), None, takes(streams), Instant::now())).await
}

/// Nothing here takes a day: it waits for something that never comes.
async fn bounded<F: Future>(future: F) -> F::Output {
    timeout(secs(86_400), future).await.expect("this hangs")
}

/// Lets everybody do all they can do now.
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
        Some(Delivery::Gone(why)) => format!("gone {}", why.cause()),
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

fn takes(events: bool) -> Takes {
    if events { Takes::Events } else { Takes::AnswerOnly }
}

fn opening(text: &str) -> crate::proto::message::Request {
    message(text).request().cloned().expect("a request")
}

fn message(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap_or_else(|why| panic!("{text}: {why:?}"))
}

fn request(id: &str, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

/// A call that asks for progress.
fn call(id: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
    )
}

fn note(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
}

/// A notification that belongs to no call.
fn news(number: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"n:{number}"}}}}"#
    )
}

fn progress(token: &str, number: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{number}}}}}"#
    )
}

fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
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

const NOBODY_LISTENS: &str =
    r#"{"jsonrpc":"2.0","id":"q","error":{"code":-32603,"message":"no client listens for this request"}}"#;

// Calls and their streams.

#[tokio::test(start_paused = true)]
async fn a_quick_answer_is_all_there_is_on_its_stream() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_answered_out_of_order_get_their_own_answers() {
    let mut harness = Harness::open().await;
    let (first, second, third) =
        (harness.call("7", "2").await, harness.call("\"7\"", "3").await, harness.call("8", "4").await);
    for id in ["4", "2", "3"] {
        harness.child.send(&result(id)).await;
    }
    assert_eq!(rest(&first).await, answered(2, "7"));
    assert_eq!(rest(&second).await, answered(3, "\"7\""));
    assert_eq!(rest(&third).await, answered(4, "8"));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_client_gets_all_its_answers_on_one_stream() {
    let mut harness = Harness::open().await;
    let batch = vec![message(&request("1", "a")), message(&note("n")), message(&request("2", "b"))];
    let reader =
        harness.session.post(Posted::Batch(batch), None, Takes::Events, Instant::now()).await.unwrap();
    for line in [request("2", "a"), note("n"), request("3", "b")] {
        harness.child.expect(&line).await;
    }
    harness.child.send(&result("3")).await;
    harness.child.send(&result("2")).await;
    let want = [format!("2-1 {}", result("2")), format!("2-2 {}", result("1")), "end".into()];
    assert_eq!(rest(&reader).await, want);
}

#[tokio::test(start_paused = true)]
async fn what_the_child_says_before_it_answers_initialize_comes_before_the_answer() {
    let mut harness = Harness::starting().await;
    harness.child.send(&note("notifications/message")).await;
    harness.child.send(&result("1")).await;
    let want = [
        format!("1-1 {}", note("notifications/message")),
        format!("1-2 {}", result("\"init\"")),
        "end".into(),
    ];
    assert_eq!(rest(&harness.opening).await, want);
}

#[tokio::test(start_paused = true)]
async fn what_clients_send_before_the_handshake_is_over_reaches_the_child_behind_it_in_order() {
    let mut harness = Harness::starting().await;
    let reader = harness.post(&request("7", "tools/list")).await;
    harness.accepted(&note("n")).await;
    harness.accepted(&note("notifications/initialized")).await;
    harness.child.send(&result("1")).await;
    for line in [note("notifications/initialized"), request("2", "tools/list"), note("n")] {
        harness.child.expect(&line).await;
    }
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_handshake_is_bounded_even_if_it_comes_all_at_once() {
    let limits = Limits { max_in_flight: 4, ..CONFIG.limits };
    let mut harness = Harness::new(Config { limits, ..CONFIG }, NARROW);
    let mut readers = Vec::new();
    for number in 0..20 {
        readers.push(harness.post(&news(number)).await);
    }
    harness.child.expect(&request("1", "initialize")).await;
    settle().await;
    for (number, reader) in readers.iter().enumerate() {
        assert_eq!(!available(reader).await.is_empty(), number < 4, "message {number}");
    }
    harness.child.send(&result("1")).await;
    harness.child.expect(&note("notifications/initialized")).await;
    for number in 0..20 {
        harness.child.expect(&news(number)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn progress_comes_on_the_stream_of_its_own_call() {
    let mut harness = Harness::open().await;
    let (first, second) = (harness.call("7", "2").await, harness.call("8", "3").await);
    for (token, number) in [("8", 1), ("7", 1), ("7", 2), ("8", 2)] {
        harness.child.send(&progress(token, number)).await;
    }
    harness.child.send(&result("2")).await;
    harness.child.send(&result("3")).await;
    for (reader, stream, id) in [(first, 2, "7"), (second, 3, "8")] {
        let want = [
            format!("{stream}-1 {}", progress(id, 1)),
            format!("{stream}-2 {}", progress(id, 2)),
            format!("{stream}-3 {}", result(id)),
            "end".into(),
        ];
        assert_eq!(rest(&reader).await, want);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_stream_gets_its_answer_alone() {
    let mut harness = Harness::open().await;
    let reader = post(&harness.session, &call("7", "7"), false).await.unwrap();
    harness.child.expect(&call("2", "7")).await;
    harness.child.send(&progress("7", 1)).await;
    harness.child.send(&note("notifications/message")).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn a_call_too_many_is_answered_at_once_and_the_others_go_on() {
    let limits = Limits { max_in_flight: 1, ..CONFIG.limits };
    let mut harness = Harness::open_with(Config { limits, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    assert_eq!(rest(&harness.post(&request("8", "x")).await).await, failed(3, "8", "Overload(1)"));
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn a_second_call_with_an_id_in_flight_is_refused_and_the_first_goes_on() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    let refused = rest(&harness.post(&request("7", "x")).await).await;
    assert!(refused[0].starts_with("refused DuplicateId"), "{refused:?}");
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

// Answers that take longer.

const SSE_AFTER: Duration = Duration::from_millis(250);

/// A session whose readers are told after [`SSE_AFTER`] that an answer takes longer.
async fn impatient(sse_after: Duration) -> Harness {
    let mut harness = Harness::new(Config { sse_after, ..CONFIG }, NARROW);
    harness.child.expect(&request("1", "initialize")).await;
    harness.child.send(&result("1")).await;
    rest(&harness.opening).await;
    harness.accepted(&note("notifications/initialized")).await;
    harness.child.expect(&note("notifications/initialized")).await;
    harness
}

#[tokio::test(start_paused = true)]
async fn the_reader_of_an_answer_that_takes_longer_is_told_once_and_in_time() {
    let mut harness = impatient(SSE_AFTER).await;
    let asked = Instant::now();
    let reader = harness.call("7", "2").await;
    assert_eq!(next(&reader).await, "pending");
    assert_passed(asked, SSE_AFTER);
    sleep(10 * SSE_AFTER).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_all_that_its_reader_gets() {
    let mut harness = impatient(SSE_AFTER).await;
    for number in 2..100 {
        let id = &number.to_string();
        let reader = harness.call(id, id).await;
        sleep(Duration::from_millis(number % 200)).await;
        harness.child.send(&result(id)).await;
        assert_eq!(rest(&reader).await, answered(number, id));
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_is_told_by_its_own_time() {
    let mut harness = impatient(SSE_AFTER).await;
    let mut calls = Vec::new();
    for number in 2..10 {
        let id = &number.to_string();
        calls.push((Instant::now(), harness.call(id, id).await));
        sleep(SSE_AFTER / 10).await;
    }
    harness.child.send(&result("4")).await;
    for (index, (asked, reader)) in calls.iter().enumerate() {
        if index == 2 {
            assert_eq!(rest(reader).await, answered(4, "4"));
            continue;
        }
        assert_eq!(next(reader).await, "pending");
        assert_passed(*asked, SSE_AFTER);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_no_answer_says_itself_that_the_answer_takes_longer() {
    let mut harness = impatient(SSE_AFTER).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    sleep(2 * SSE_AFTER).await;
    harness.child.send(&result("2")).await;
    let want = [format!("2-1 {}", progress("7", 1)), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&reader).await, want);
}

#[tokio::test(start_paused = true)]
async fn one_answer_of_a_batch_in_time_leaves_the_reader_waiting_for_the_others() {
    let mut harness = impatient(SSE_AFTER).await;
    let batch = vec![message(&request("1", "a")), message(&request("2", "b"))];
    let reader =
        harness.session.post(Posted::Batch(batch), None, Takes::Events, Instant::now()).await.unwrap();
    for line in [request("2", "a"), request("3", "b")] {
        harness.child.expect(&line).await;
    }
    harness.child.send(&result("3")).await;
    assert_eq!(next(&reader).await, format!("2-1 {}", result("2")));
    assert_eq!(next(&reader).await, "pending");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_stream_is_not_told_that_its_answer_takes_longer() {
    let mut harness = impatient(SSE_AFTER).await;
    let reader = post(&harness.session, &call("7", "7"), false).await.unwrap();
    harness.child.expect(&call("2", "7")).await;
    sleep(10 * SSE_AFTER).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn where_streams_begin_at_once_no_answer_comes_before_that() {
    let mut harness = impatient(Duration::ZERO).await;
    let reader = harness.call("7", "2").await;
    let refused = rest(&harness.post(&request("7", "x")).await).await;
    assert!(refused[0].starts_with("refused DuplicateId"), "what is refused has no stream: {refused:?}");
    harness.child.send(&result("2")).await;
    assert_eq!(next(&reader).await, "pending");
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

// What the child asks.

#[tokio::test(start_paused = true)]
async fn a_question_of_the_child_goes_to_the_one_call_in_flight_and_its_answer_to_the_child() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    let question = request("2", "sampling/createMessage"); // the number of the call, and yet another id
    harness.child.send(&question).await;
    assert_eq!(next(&reader).await, format!("2-1 {question}"));
    harness.accepted(&result("2")).await;
    harness.child.expect(&result("2")).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, [format!("2-2 {}", result("7")), "end".into()]);
}

#[tokio::test(start_paused = true)]
async fn with_many_calls_in_flight_a_question_goes_to_the_newest_that_can_take_it() {
    let mut harness = Harness::open().await;
    let oldest = harness.call("7", "2").await;
    let newer = harness.call("8", "3").await;
    let left = harness.call("9", "4").await;
    drop(left);
    let _no_stream = post(&harness.session, &call("10", "10"), false).await.unwrap();
    harness.child.expect(&call("5", "10")).await;
    let question = request("\"q\"", "elicitation/create");
    harness.child.send(&question).await;
    assert_eq!(next(&newer).await, format!("3-1 {question}"));
    assert!(available(&oldest).await.is_empty(), "no question is asked twice");
}

#[tokio::test(start_paused = true)]
async fn with_no_call_in_flight_a_question_goes_to_who_listens() {
    let mut harness = Harness::open().await;
    let listener = harness.listen(None).await;
    let question = request("\"q\"", "roots/list");
    harness.child.send(&question).await;
    assert_eq!(next(&listener).await, format!("0-1 {question}"));
}

#[tokio::test(start_paused = true)]
async fn a_question_waits_for_the_first_who_listens() {
    let mut harness = Harness::open().await;
    let question = request("\"q\"", "sampling/createMessage");
    harness.child.send(&question).await;
    sleep(LISTENER_GRACE - secs(1)).await;
    assert_eq!(next(&harness.listen(None).await).await, format!("0-1 {question}"));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_hears_is_answered_with_an_error() {
    let mut harness = Harness::open().await;
    harness.child.send(&request("\"q\"", "sampling/createMessage")).await;
    let asked = Instant::now();
    harness.child.expect(NOBODY_LISTENS).await;
    assert!(asked.elapsed() <= LISTENER_GRACE + secs(1));
}

#[tokio::test(start_paused = true)]
async fn who_thinks_about_a_question_is_not_hurried() {
    let mut harness = Harness::open().await;
    let listener = harness.listen(None).await;
    harness.child.send(&request("\"q\"", "elicitation/create")).await;
    next(&listener).await;
    sleep(10 * LISTENER_GRACE).await;
    harness.accepted(&result("\"q\"")).await;
    harness.child.expect(&result("\"q\"")).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_what_the_child_never_asked_is_refused() {
    let harness = Harness::open().await;
    assert_eq!(rest(&harness.post(&result("2")).await).await, ["refused UnknownResponse", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_the_child_is_answered_when_nobody_listens() {
    let mut harness = Harness::open().await;
    harness.child.send(&request("\"p\"", "ping")).await;
    harness.child.expect(&result("\"p\"")).await;
}

// The listening stream.

#[tokio::test(start_paused = true)]
async fn who_listens_first_gets_what_came_before_and_then_what_comes() {
    let mut harness = Harness::open().await;
    harness.child.send(&news(1)).await;
    harness.child.send(&news(2)).await;
    settle().await;
    let listener = harness.listen(None).await;
    harness.child.send(&news(3)).await;
    for number in 1..=3 {
        assert_eq!(next(&listener).await, format!("0-{number} {}", news(number)));
    }
    assert!(available(&listener).await.is_empty(), "the stream stays open");
}

#[tokio::test(start_paused = true)]
async fn a_newer_listener_supersedes_the_older_and_gets_exactly_what_that_one_has_not_taken() {
    const ALL: u64 = 5;
    for (taken, before) in (0..=ALL).flat_map(|before| (0..=before).map(move |taken| (taken, before))) {
        for leaves in [false, true] {
            let mut harness = Harness::open().await;
            let older = harness.listen(None).await;
            send_news(&mut harness, 1..=before).await;
            assert_eq!(heard(&older, taken).await, heard_range(1..=taken));
            let newer = if leaves {
                drop(older);
                harness.listen(None).await
            } else {
                let newer = harness.listen(None).await;
                assert_eq!(rest(&older).await, ["end"], "what waits is for the successor");
                newer
            };
            send_news(&mut harness, before + 1..=ALL).await;
            let case = format!("{taken} of {before} taken, left: {leaves}");
            assert_eq!(available(&newer).await, heard_range(taken + 1..=ALL), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_hears_is_kept_up_to_a_bound_and_the_oldest_goes_first() {
    let mut harness = Harness::open_with(Config { replay_buffer: 1000, ..CONFIG }, NARROW).await;
    send_news(&mut harness, 1..=50).await;
    let kept = available(&harness.listen(None).await).await;
    assert!((3..=1000 / news(1).len()).contains(&kept.len()), "{} events", kept.len());
    assert_eq!(kept, heard_range(51 - kept.len() as u64..=50));
}

async fn send_news(harness: &mut Harness, numbers: RangeInclusive<u64>) {
    for number in numbers {
        harness.child.send(&news(number)).await;
    }
    settle().await;
}

/// The next so many things that the reader gets.
async fn heard(reader: &Reader, count: u64) -> Vec<String> {
    let mut heard = Vec::new();
    for _ in 0..count {
        heard.push(next(reader).await);
    }
    heard
}

/// These news, as a listener gets them.
fn heard_range(numbers: RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("0-{number} {}", news(number))).collect()
}

// Resumption.

/// Every way to cut a stream of `all` events: how many the reader has taken, how many had come when it was cut, when it
/// was resumed, and before the new reader read.
fn cuts(all: u64) -> impl Iterator<Item = [u64; 4]> {
    let upwards = move |from: u64| from..=all;
    upwards(0).flat_map(move |taken| {
        upwards(taken).flat_map(move |cut| {
            upwards(cut)
                .flat_map(move |resumed| upwards(resumed).map(move |read| [taken, cut, resumed, read]))
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_off_after_any_event_is_resumed_with_every_event_once_and_in_order() {
    const ALL: u64 = 3;
    let event = |number| match number {
        ALL => format!("2-{number} {}", result("7")),
        _ => format!("2-{number} {}", progress("7", number)),
    };
    async fn send(harness: &mut Harness, numbers: RangeInclusive<u64>) {
        for number in numbers {
            let own = if number == ALL { result("2") } else { progress("7", number) };
            for line in [news(number), own, progress("8", number)] {
                harness.child.send(&line).await;
            }
        }
        settle().await;
    }
    for [taken, cut, resumed, read] in cuts(ALL) {
        for (prime, leaves) in [(false, false), (false, true), (true, false), (true, true)] {
            if taken == 0 && !prime {
                continue; // it has seen no id
            }
            let case = format!("{taken} {cut} {resumed} {read}, primed: {prime}, left: {leaves}");
            let mut harness = Harness::open_with(Config { prime, ..CONFIG }, NARROW).await;
            let older = harness.call("7", "2").await;
            let _other = harness.call("8", "3").await;
            send(&mut harness, 1..=cut).await;
            let mut got = heard(&older, taken).await;
            let _older = (!leaves).then_some(older); // the other connection may be broken unnoticed
            send(&mut harness, cut + 1..=resumed).await;
            let newer = harness.listen(Some(&format!("2-{taken}"))).await;
            send(&mut harness, resumed + 1..=read).await;
            got.extend(available(&newer).await);
            send(&mut harness, read + 1..=ALL).await;
            if read < ALL {
                got.extend(rest(&newer).await);
            }
            let want: Vec<_> = (1..=ALL).map(event).chain(["end".into()]).collect();
            assert_eq!(got, want, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_cut_off_after_any_event_is_resumed_with_every_event_once_and_in_order() {
    const ALL: u64 = 4;
    async fn send(harness: &mut Harness, numbers: RangeInclusive<u64>) {
        for number in numbers {
            harness.child.send(&progress("7", number)).await;
            harness.child.send(&news(number)).await;
        }
        settle().await;
    }
    for [taken, cut, resumed, read] in cuts(ALL) {
        for leaves in [false, true] {
            let mut harness = Harness::open().await;
            let older = harness.listen(None).await;
            let _other = harness.call("7", "2").await;
            send(&mut harness, 1..=cut).await;
            let mut got = heard(&older, taken).await;
            let _older = (!leaves).then_some(older);
            send(&mut harness, cut + 1..=resumed).await;
            let newer = harness.listen(Some(&format!("0-{taken}"))).await;
            send(&mut harness, resumed + 1..=read).await;
            got.extend(available(&newer).await);
            send(&mut harness, read + 1..=ALL).await;
            got.extend(available(&newer).await);
            assert_eq!(got, heard_range(1..=ALL), "{taken} {cut} {resumed} {read}, left: {leaves}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The child sends an event of this stream.
    Send(usize),
    /// The child answers this call.
    Answer(usize),
    /// The reader of this stream takes so many events at most.
    Read(usize, u8),
    /// It leaves.
    Leave(usize),
    /// The client resumes this stream behind the last event it saw, whether or not the old reader is still there.
    Resume(usize),
    /// The client listens without an id.
    Listen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize).prop_map(Step::Send),
        1 => (1..3usize).prop_map(Step::Answer),
        4 => (0..3usize, 1..4u8).prop_map(|(stream, count)| Step::Read(stream, count)),
        2 => (0..3usize).prop_map(Step::Leave),
        2 => (0..3usize).prop_map(Step::Resume),
        1 => Just(Step::Listen),
    ]
}

/// One stream as its client knows it.
#[derive(Default)]
struct Followed {
    /// The number of the stream, which with calls is also the id and the token.
    number: usize,
    reader: Option<Reader>,
    /// Every event that the child has sent, as it must come.
    sent: Vec<String>,
    seen: usize,
    answered: bool,
}

impl Followed {
    async fn read(&mut self, count: usize) {
        let Some(reader) = &self.reader else { return };
        settle().await;
        for _ in 0..count {
            let next = poll_fn(|context| Poll::Ready(reader.poll_next(context))).await;
            let Poll::Ready(delivery) = next else { return };
            let text = words(delivery);
            if text == "end" {
                assert!(
                    self.answered && self.seen == self.sent.len(),
                    "a stream ends behind the answer only"
                );
                self.reader = None;
                return;
            }
            assert_eq!(Some(&text), self.sent.get(self.seen), "the next event of stream {}", self.number);
            self.seen += 1;
        }
    }

    fn is_complete(&self) -> bool {
        self.answered && self.seen == self.sent.len()
    }

    /// Whether the client knows where to resume.
    fn can_resume(&self, prime: bool) -> bool {
        !self.is_complete() && (prime || self.number == 0 || self.seen > 0)
    }

    fn last_id(&self) -> String {
        format!("{}-{}", self.number, self.seen)
    }
}

async fn follow(prime: bool, steps: &[Step]) {
    // Streams 0, 2 and 3: who listens and two calls.
    let mut harness = Harness::open_with(Config { prime, ..CONFIG }, NARROW).await;
    let mut streams = Vec::new();
    for number in [0, 2, 3] {
        let id = &number.to_string();
        let reader = if number == 0 { harness.listen(None).await } else { harness.call(id, id).await };
        streams.push(Followed { number, reader: Some(reader), ..Followed::default() });
    }
    let ends = [Step::Answer(1), Step::Answer(2)];
    for step in steps.iter().chain(&ends) {
        match *step {
            Step::Send(index) | Step::Answer(index) if !streams[index].answered => {
                let stream = &mut streams[index];
                let place = stream.sent.len() as u64 + 1;
                let token = stream.number.to_string();
                stream.answered = matches!(step, Step::Answer(_));
                let line = match index {
                    0 => news(place),
                    _ if stream.answered => result(&token),
                    _ => progress(&token, place),
                };
                harness.child.send(&line).await;
                stream.sent.push(format!("{token}-{place} {line}"));
            }
            Step::Send(_) | Step::Answer(_) => {}
            Step::Read(index, count) => streams[index].read(count.into()).await,
            Step::Leave(index) if streams[index].can_resume(prime) => streams[index].reader = None,
            Step::Resume(index) if streams[index].can_resume(prime) => {
                let reader = harness.listen(Some(&streams[index].last_id())).await;
                streams[index].reader = Some(reader);
            }
            Step::Leave(_) | Step::Resume(_) => {}
            Step::Listen => streams[0].reader = Some(harness.listen(None).await),
        }
    }
    for stream in &mut streams {
        if stream.reader.is_none() && stream.can_resume(prime) {
            stream.reader = Some(harness.listen(Some(&stream.last_id())).await);
        }
        stream.read(usize::MAX).await;
        assert_eq!(stream.seen, stream.sent.len(), "stream {} lost events", stream.number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn however_often_clients_leave_and_resume_they_see_each_event_of_a_stream_once_and_in_order(
        prime in any::<bool>(),
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        paused().block_on(follow(prime, &steps));
    }
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_resumed_leaves_its_old_reader() {
    let mut harness = Harness::open().await;
    let older = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    assert_eq!(next(&older).await, format!("2-1 {}", progress("7", 1)));
    harness.child.send(&progress("7", 2)).await;
    settle().await;
    let _newer = harness.listen(Some("2-1")).await;
    assert_eq!(rest(&older).await, ["end"], "an event is on one stream only");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_resumed_is_asked_again() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    drop(reader);
    let resumed = harness.listen(Some("2-1")).await;
    let question = request("\"q\"", "sampling/createMessage");
    harness.child.send(&question).await;
    assert_eq!(next(&resumed).await, format!("2-2 {question}"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_cannot_be_resumed_behind_what_it_never_had() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    send_news(&mut harness, 1..=1).await;
    for id in
        ["0-2", "1-0", "1-1", "1-2", "2-0", "2-2", "3-0", "3-1", "18446744073709551615-18446744073709551615"]
    {
        assert_eq!(rest(&harness.try_listen(Some(id)).await).await, ["no replay", "end"], "{id}");
    }
    assert!(EventId::parse("2-01").is_none() && EventId::parse("2").is_none(), "and what is no id is none");
}

#[tokio::test(start_paused = true)]
async fn a_stream_cannot_be_resumed_before_what_has_left_the_ring() {
    let mut harness = Harness::open_with(Config { replay_buffer: 1000, ..CONFIG }, NARROW).await;
    send_news(&mut harness, 1..=50).await;
    assert_eq!(rest(&harness.try_listen(Some("0-1")).await).await, ["no replay", "end"]);
    assert_eq!(available(&harness.listen(Some("0-48")).await).await, heard_range(49..=50));
}

#[tokio::test(start_paused = true)]
async fn a_refused_resumption_disturbs_nobody() {
    let mut harness = Harness::open().await;
    let listener = harness.listen(None).await;
    assert_eq!(rest(&harness.try_listen(Some("0-9")).await).await, ["no replay", "end"]);
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&listener).await, heard_range(1..=1));
}

#[tokio::test(start_paused = true)]
async fn answers_leave_the_ring_last() {
    let mut harness = Harness::open_with(Config { replay_buffer: 1000, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    drop(reader);
    harness.child.send(&result("2")).await;
    send_news(&mut harness, 1..=50).await;
    let want = ["accepted".into(), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&harness.try_listen(Some("2-1")).await).await, want);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ended_is_forgotten_with_its_last_event() {
    let mut harness = Harness::open_with(Config { replay_buffer: 1000, ..CONFIG }, NARROW).await;
    for call in 2..=20 {
        let id = &call.to_string();
        let reader = harness.call(id, id).await;
        harness.child.send(&progress(id, 1)).await;
        harness.child.send(&result(id)).await;
        assert_eq!(rest(&reader).await.len(), 3);
    }
    assert_eq!(rest(&harness.try_listen(Some("2-2")).await).await, ["no replay", "end"]);
    assert_eq!(rest(&harness.try_listen(Some("20-2")).await).await, ["accepted", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_primed_stream_is_resumed_from_its_start() {
    let mut harness = Harness::open_with(Config { prime: true, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    settle().await;
    assert_eq!(reader.position().map(|id| id.to_string()).as_deref(), Some("2-0"), "the id it begins with");
    drop(reader);
    let resumed = harness.listen(Some("2-0")).await;
    drop(resumed);
    harness.child.send(&result("2")).await;
    settle().await;
    let want: Vec<_> = ["accepted".into()].into_iter().chain(answered(2, "7")).collect();
    for _ in 0..2 {
        assert_eq!(rest(&harness.try_listen(Some("2-0")).await).await, want, "the answer stays in the ring");
    }
    assert_eq!(rest(&harness.try_listen(Some("2-1")).await).await, ["accepted", "end"], "it has seen all");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_does_not_end_its_call() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    drop(reader);
    settle().await;
    harness.accepted(&note("n")).await;
    harness.child.expect(&note("n")).await; // and no cancellation before it
    let refused = rest(&harness.post(&request("7", "x")).await).await;
    assert!(refused[0].starts_with("refused DuplicateId"), "it is in flight: {refused:?}");
    harness.child.send(&result("2")).await;
    let want = [format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&harness.listen(Some("2-1")).await).await, want);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_can_ask_for_is_let_go() {
    let mut harness = Harness::open().await;
    drop(harness.call("7", "2").await);
    harness.child.send(&result("2")).await;
    settle().await;
    for id in ["2-0", "2-1"] {
        assert_eq!(rest(&harness.try_listen(Some(id)).await).await, ["no replay", "end"]);
    }
    let reader = harness.call("7", "3").await;
    harness.child.send(&result("3")).await;
    assert_eq!(rest(&reader).await, answered(3, "7"), "the id is free again");
}

// Readers that lag.

/// Of the events that [`bulky`] makes, the fourth is too much for a reader that takes nothing.
const ROOMY: Config = Config { replay_buffer: 16 * MAX_UNSENT, max_message: MAX_UNSENT, ..CONFIG };

/// How long a reader may take nothing while too much waits for it, and how long too much may wait at all.
const STUCK: Duration = secs(1);
const TOO_SLOW: Duration = secs(30);

fn bulky(line: &str) -> String {
    format!("{{{}{}", " ".repeat(MAX_UNSENT * 3 / 10), &line[1..])
}

/// These news in bulk, as a listener gets them.
fn bulk_range(numbers: RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("0-{number} {}", bulky(&news(number)))).collect()
}

async fn send_bulk(harness: &mut Harness, numbers: RangeInclusive<u64>) {
    for number in numbers {
        harness.child.send(&bulky(&news(number))).await;
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_takes_nothing_is_cut_off_and_can_resume() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&lagging).await, heard_range(1..=1));
    let began = Instant::now();
    send_bulk(&mut harness, 2..=9).await;
    assert!(
        (STUCK..3 * STUCK).contains(&began.elapsed()),
        "it may have been seen taking something just before"
    );
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    let resumed = harness.listen(Some("0-1")).await;
    assert_eq!(available(&resumed).await, bulk_range(2..=9));
    send_news(&mut harness, 10..=10).await;
    assert_eq!(available(&resumed).await, heard_range(10..=10), "it is a stream like any other");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_reader_takes_nothing_is_cut_off_and_can_resume() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&lagging).await;
    let bulk: Vec<_> = (2..=9).map(|number| bulky(&progress("7", number))).collect();
    for line in &bulk {
        harness.child.send(line).await;
    }
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    let mut want: Vec<_> = (2..).zip(&bulk).map(|(place, line)| format!("2-{place} {line}")).collect();
    want.extend([format!("2-10 {}", result("7")), "end".into()]);
    assert_eq!(rest(&harness.listen(Some("2-1")).await).await, want);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_on_taking_slows_the_child_down_and_misses_nothing() {
    let harness = Harness::open_with(ROOMY, WIDE).await;
    let listener = harness.listen(None).await;
    let mut child = harness.child;
    let began = Instant::now();
    let writing = tokio::spawn(async move {
        for number in 1..=40 {
            child.send(&bulky(&news(number))).await;
        }
        child
    });
    let mut got = Vec::new();
    while got.len() < 40 {
        sleep(STUCK * 3 / 4).await;
        got.push(next(&listener).await);
    }
    assert_eq!(got, bulk_range(1..=40));
    assert!(began.elapsed() > TOO_SLOW - secs(5), "as long as it is not too slow for too long");
    drop(bounded(writing).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_caught_up_lets_the_child_go_on_at_once() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let listener = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    let began = Instant::now();
    for round in 0..5 {
        let numbers = 4 * round + 1..=4 * round + 4;
        send_bulk(&mut harness, numbers.clone()).await;
        assert_eq!(available(&listener).await, bulk_range(numbers));
    }
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    assert!(began.elapsed() < STUCK / 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_too_little_for_too_long_is_cut_off() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let listener = harness.listen(None).await;
    send_news(&mut harness, 1..=100).await;
    let began = Instant::now();
    let reading = tokio::spawn(async move {
        loop {
            sleep(STUCK / 2).await;
            if next(&listener).await == "lagged" {
                return;
            }
        }
    });
    send_bulk(&mut harness, 101..=105).await; // behind a hundred little ones
    assert_passed(began, TOO_SLOW);
    bounded(reading).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_holds_up_the_others_no_longer_than_that() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let _lagging = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    let began = Instant::now();
    send_bulk(&mut harness, 1..=20).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    assert_passed(began, STUCK);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_holds_up_nobody() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let leaving = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    send_bulk(&mut harness, 1..=4).await;
    let left = Instant::now();
    drop(leaving);
    send_bulk(&mut harness, 5..=20).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    assert_passed(left, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_much_to_catch_up_on_is_not_cut_off_by_what_comes_next() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    send_bulk(&mut harness, 1..=8).await;
    let listener = harness.listen(Some("0-0")).await;
    send_bulk(&mut harness, 9..=9).await;
    assert_eq!(available(&listener).await, bulk_range(1..=9));
}

// Timeouts.

/// Whether as much time has passed since then, give or take the steps of the clock and of the test.
#[track_caller]
fn assert_passed(since: Instant, want: Duration) {
    let passed = since.elapsed();
    let close = want..want + Duration::from_millis(10);
    assert!(close.contains(&passed), "{passed:?} passed and not {want:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_ends() {
    let harness = Harness::open().await;
    let used = Instant::now();
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(used, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_idle_since_the_last_message_of_a_client() {
    let mut harness = Harness::open().await;
    sleep(CONFIG.idle_timeout / 2).await;
    harness.accepted(&note("n")).await;
    harness.child.expect(&note("n")).await;
    let used = Instant::now();
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(used, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_idle_while_a_call_is_in_flight_and_the_time_counts_from_its_answer() {
    let limits = Limits { request_timeout: 5 * CONFIG.idle_timeout, ..CONFIG.limits };
    let mut harness = Harness::open_with(Config { limits, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    sleep(3 * CONFIG.idle_timeout).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    let used = Instant::now();
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(used, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_call_took_too_long_is_not_idle_before_that() {
    let limits = Limits { request_timeout: 3 * CONFIG.idle_timeout, ..CONFIG.limits };
    let mut harness = Harness::open_with(Config { limits, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    rest(&reader).await;
    harness.child.line().await;
    let used = Instant::now();
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(used, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_idle_while_somebody_listens_and_the_time_counts_from_when_they_leave() {
    let harness = Harness::open().await;
    let listener = harness.listen(None).await;
    sleep(3 * CONFIG.idle_timeout).await;
    assert!(!harness.is_over());
    drop(listener);
    let left = Instant::now();
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(left, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_the_child_writes_has_left_only_now() {
    for _ in 0..20 {
        let mut harness = Harness::open_with(CONFIG, WIDE).await;
        let listener = harness.listen(None).await;
        sleep(3 * CONFIG.idle_timeout).await;
        harness.child.send(&news(1)).await;
        drop(listener);
        let left = Instant::now();
        assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
        assert_passed(left, CONFIG.idle_timeout);
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_was_cut_off_has_left_only_then() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    sleep(3 * CONFIG.idle_timeout).await;
    send_bulk(&mut harness, 1..=9).await;
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    let cut = Instant::now() - Duration::from_millis(1); // the child had to write the rest
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(cut, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_talks_to_nobody_does_not_keep_its_session() {
    let mut harness = Harness::open().await;
    let used = Instant::now();
    sleep(CONFIG.idle_timeout / 2).await;
    harness.child.send(&news(1)).await;
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(used, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_at_its_age_whatever_is_in_flight() {
    let limits = Limits { request_timeout: secs(9999), ..CONFIG.limits };
    let began = Instant::now();
    let config = Config { max_lifetime: Some(secs(500)), limits, ..CONFIG };
    let mut harness = Harness::open_with(config, NARROW).await;
    let reader = harness.call("7", "2").await;
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(Lifetime(500s))"));
    assert_passed(began, secs(500));
    assert_eq!(harness.ended().await, End::Lifetime(secs(500)));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_answer_initialize_ends_the_session_and_what_waited_for_it() {
    let harness = Harness::starting().await;
    let began = Instant::now();
    let early = harness.post(&request("7", "x")).await;
    assert_eq!(rest(&harness.opening).await, failed(1, "\"init\"", "Ended(InitTimeout(10s))"));
    assert_passed(began, CONFIG.limits.init_timeout);
    assert_eq!(rest(&early).await, failed(2, "7", "Ended(InitTimeout(10s))"));
    assert_eq!(harness.ended().await, End::InitTimeout(CONFIG.limits.init_timeout));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_refuses_initialize_is_heard_and_the_session_ends() {
    let mut harness = Harness::starting().await;
    let early = harness.post(&request("7", "x")).await;
    harness.child.send(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#).await;
    let refusal = r#"1-1 {"jsonrpc":"2.0","id":"init","error":{"code":-32602,"message":"no"}}"#;
    assert_eq!(rest(&harness.opening).await, [refusal, "end"]);
    assert_eq!(rest(&early).await, failed(2, "7", "Ended(Refused)"));
    assert_eq!(harness.ended().await, End::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_answered_and_cancelled_under_the_childs_id_for_it() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    let asked = Instant::now();
    sleep(secs(40)).await;
    let later = harness.call("8", "3").await;
    assert_eq!(rest(&reader).await, failed(2, "7", "Timeout(100s)"));
    assert_passed(asked, CONFIG.limits.request_timeout);
    let cancelled = harness.child.line().await.unwrap();
    assert!(cancelled.contains("notifications/cancelled"), "{cancelled}");
    assert!(cancelled.contains(r#""requestId":2,"#), "{cancelled}");
    harness.child.send(&result("2")).await; // too late
    harness.child.send(&result("3")).await;
    assert_eq!(rest(&later).await, answered(3, "8"), "the others have their own time");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_that_the_child_does_not_answer_ends_after_a_grace() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.accepted(&cancel("7")).await;
    let cancelled = Instant::now();
    harness.child.expect(&cancel("2")).await;
    assert_eq!(rest(&reader).await, failed(2, "7", "Cancelled"));
    assert_passed(cancelled, CANCEL_GRACE);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_crosses_the_cancellation_counts() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.accepted(&cancel("7")).await;
    sleep(CANCEL_GRACE - secs(1)).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_before_the_child_has_seen_it_ends_at_once_and_is_never_seen() {
    let mut harness = Harness::starting().await;
    let reader = harness.post(&request("7", "x")).await;
    harness.accepted(&cancel("7")).await;
    assert_eq!(rest(&reader).await, failed(2, "7", "Cancelled"));
    harness.child.send(&result("1")).await;
    harness.accepted(&note("n")).await;
    harness.child.expect(&note("notifications/initialized")).await;
    harness.child.expect(&note("n")).await;
}

// How a child ends.

#[tokio::test(start_paused = true)]
async fn what_a_child_wrote_before_it_exited_is_delivered_and_the_other_calls_fail_at_once() {
    #[derive(Clone, Copy)]
    enum Last {
        Words,
        ExitStatus,
        Close,
    }
    use Last::{Close, Words};
    for pipe in [NARROW, WIDE] {
        for order in [
            [Words, Close, Last::ExitStatus],
            [Words, Last::ExitStatus, Close],
            [Last::ExitStatus, Words, Close],
        ] {
            let mut harness = Harness::open_with(CONFIG, pipe).await;
            let mut readers = Vec::new();
            for (id, seen) in [("7", "2"), ("8", "3"), ("9", "4"), ("10", "5")] {
                readers.push(harness.call(id, seen).await);
            }
            let died = Instant::now();
            for step in order {
                match step {
                    Words => {
                        let lines =
                            [result("4"), progress("7", 1), result("3"), r#"{"jsonrpc":"2.0","#.into()];
                        harness.child.write(lines.join("\n")).await;
                    }
                    Last::ExitStatus => harness.child.exit(),
                    Close => harness.child.close_stdout(),
                }
            }
            let fault = "Ended(Exited(Code(3)))";
            let first = [format!("2-1 {}", progress("7", 1)), format!("2-2 7 {fault}"), "end".into()];
            assert_eq!(rest(&readers[0]).await, first);
            assert_eq!(rest(&readers[1]).await, answered(3, "8"));
            assert_eq!(rest(&readers[2]).await, answered(4, "9"));
            assert_eq!(rest(&readers[3]).await, failed(5, "10", fault));
            assert_passed(died, Duration::ZERO);
            assert_eq!(harness.ended().await, End::Exited(DIED));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_line_of_a_child_counts_without_its_line_end() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.write(result("2")).await;
    harness.child.close_stdout();
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn a_grandchild_that_holds_stdout_open_delays_the_end_only_for_last_words() {
    let mut harness = Harness::open().await;
    let (heard, unheard) = (harness.call("7", "2").await, harness.call("8", "3").await);
    harness.child.exit();
    let died = Instant::now();
    sleep(DRAIN_STDOUT / 2).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&heard).await, answered(2, "7"));
    assert_eq!(rest(&unheard).await, failed(3, "8", "Ended(Exited(Code(3)))"));
    assert_passed(died, DRAIN_STDOUT);
}

#[tokio::test(start_paused = true)]
async fn a_grandchild_that_never_stops_writing_does_not_delay_the_end() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    let mut grandchild = harness.child.stdout.take().unwrap();
    let writing = tokio::spawn(async move {
        while grandchild.write_all(format!("{}\n", news(1)).as_bytes()).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    harness.child.exit();
    let died = Instant::now();
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(Exited(Code(3)))"));
    assert_passed(died, DRAIN_STDOUT);
    drop(bounded(harness.worker).await);
    bounded(writing).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_child_that_closes_its_stdout_and_lives_on_ends_the_session() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.close_stdout();
    let closed = Instant::now();
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(StdoutClosed)"));
    assert_passed(closed, DRAIN_STDOUT);
    assert_eq!(harness.ended().await, End::StdoutClosed);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_exits_soon_after_it_closed_its_stdout_has_exited() {
    let mut harness = Harness::open().await;
    harness.child.close_stdout();
    sleep(DRAIN_STDOUT * 4 / 5).await;
    harness.child.exit();
    assert_eq!(harness.ended().await, End::Exited(DIED));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_closed_its_stdin_may_still_answer_what_it_has() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.close_stdin();
    harness.accepted(&note("n")).await;
    settle().await;
    let late = tokio::spawn({
        let session = harness.session.clone();
        async move { post(&session, &request("8", "x"), true).await.map(|reader| (session, reader)) }
    });
    sleep(CLOSED_STDIN_GRACE - secs(1)).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    let served = Instant::now();
    assert_eq!(harness.ended().await, End::StdinClosed);
    assert_passed(served, DRAIN_STDOUT); // nothing is left to wait for but its exit
    match bounded(late).await.unwrap() {
        Ok((_, reader)) => assert_eq!(rest(&reader).await, ["gone child_stdin_closed", "end"]),
        Err(why) => assert_eq!(why, End::StdinClosed),
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_closed_its_stdin_and_does_not_answer_is_waited_for_a_while() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.close_stdin();
    harness.accepted(&note("n")).await;
    let noticed = Instant::now();
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(StdinClosed)"));
    assert_passed(noticed, CLOSED_STDIN_GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_exits_after_it_closed_its_stdin_is_not_waited_for_as_if_it_lived() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.close_stdin();
    harness.accepted(&note("n")).await;
    sleep(secs(1)).await;
    harness.child.exit(); // and somebody holds stdout open
    let died = Instant::now();
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(Exited(Code(3)))"));
    assert_passed(died, DRAIN_STDOUT);
}

// A child that does not read.

/// The child reads nothing more, and its queue is as full as it may be. `queued` are the readers of the calls in it,
/// `waiting` those of calls that have not been forwarded.
struct Deaf {
    harness: Harness,
    queued: Vec<Reader>,
    waiting: Vec<Reader>,
}

impl Deaf {
    async fn new() -> Self {
        let harness = Harness::open_with(CONFIG, WIDE).await;
        let big = format!(r#""params":"{}"}}"#, "x".repeat(MAX_STDIN_QUEUE / 4));
        let big = |id: usize| request(&id.to_string(), "x").replace('}', &format!(",{big}"));
        let mut queued = Vec::new();
        for id in 0..4 {
            queued.push(harness.post(&big(id)).await);
            settle().await;
        }
        // What the pipe itself holds has left the queue.
        queued.push(harness.post(&big(4)).await);
        settle().await;
        let mut waiting = Vec::new();
        for id in 0..2 * MAILBOX {
            waiting.push(harness.post(&request(&(100 + id).to_string(), "x")).await);
        }
        Self { harness, queued, waiting }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deaf_child_makes_posts_wait_and_nothing_else() {
    let Deaf { mut harness, queued, waiting } = Deaf::new().await;
    settle().await;
    assert!(available(&waiting[0]).await.is_empty(), "there is no room for a further message");
    let listener = harness.listen(None).await;
    harness.child.send(&news(1)).await;
    assert_eq!(available(&listener).await, heard_range(1..=1), "a client may listen meanwhile");

    harness.child.send(&result("2")).await;
    assert_eq!(rest(&queued[0]).await, answered(2, "0"), "answers come all the same");

    let mut received = Vec::new();
    while received.len() < 5 + waiting.len() {
        let line = harness.child.line().await.unwrap();
        received.push(message(&line).id().unwrap().as_json().to_owned());
    }
    let want: Vec<_> = (2..2 + received.len()).map(|id| id.to_string()).collect();
    assert_eq!(received, want, "when it reads again it gets all of it in order");
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_deaf_child_ends_at_once() {
    let Deaf { harness, queued, waiting } = Deaf::new().await;
    let ended = Instant::now();
    harness.session.end(End::Deleted);
    for (id, reader) in queued.iter().enumerate() {
        let id_on_stream = 2 + id as u64;
        assert_eq!(rest(reader).await, failed(id_on_stream, &id.to_string(), "Ended(Deleted)"));
    }
    for reader in &waiting {
        assert_eq!(rest(reader).await, ["gone deleted", "end"], "the child has not seen it");
    }
    assert_passed(ended, Duration::ZERO);
    assert_eq!(harness.ended().await, End::Deleted);
    assert_passed(ended, FINAL_FLUSH);
}

#[tokio::test(start_paused = true)]
async fn each_call_to_a_deaf_child_gets_its_one_answer_by_its_deadline_however_many_they_are() {
    const LENGTH: usize = 700_000;
    let limits = Limits { request_timeout: secs(3), ..CONFIG.limits };
    let harness = Harness::open_with(Config { limits, ..CONFIG }, NARROW).await;
    let arrived = Instant::now();
    let mut calls = Vec::new();
    for id in 0..40 {
        let session = harness.session.clone();
        calls.push(tokio::spawn(async move {
            let permit = session.body_permit(LENGTH).await.expect("the session is there");
            let big = format!(r#","params":"{}"}}"#, "x".repeat(LENGTH));
            let text = request(&id.to_string(), "x").replace('}', &big);
            let posted = Posted::One(message(&text));
            rest(&session.post(posted, Some(permit), Takes::Events, arrived).await.unwrap()).await
        }));
    }
    for (id, call) in calls.into_iter().enumerate() {
        let got = bounded(call).await.unwrap();
        assert_eq!(got.len(), 2, "call {id}: {got:?}");
        assert!(got[0].ends_with(&format!("-1 {id} Timeout(3s)")), "call {id}: {got:?}");
        assert_passed(arrived, secs(3));
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_counts_from_its_arrival() {
    let mut harness = Harness::open().await;
    sleep(secs(60)).await;
    let arrived = Instant::now() - secs(60);
    let posted = || Posted::One(message(&request("7", "x")));
    let reader = harness.session.post(posted(), None, Takes::Events, arrived).await.unwrap();
    harness.child.expect(&request("2", "x")).await;
    assert_eq!(rest(&reader).await, failed(2, "7", "Timeout(100s)"));
    assert_passed(arrived, CONFIG.limits.request_timeout);
    harness.child.line().await;
    let reader = harness.session.post(posted(), None, Takes::Events, arrived).await.unwrap();
    assert_eq!(rest(&reader).await, failed(3, "7", "Timeout(100s)"), "it came too late for the child");
    harness.accepted(&note("n")).await;
    harness.child.expect(&note("n")).await;
}

#[tokio::test(start_paused = true)]
async fn a_notification_that_a_deaf_child_leaves_no_room_for_is_refused_in_time() {
    let Deaf { harness, waiting, .. } = Deaf::new().await;
    let posted = Instant::now();
    let reader = harness.post(&note("n")).await;
    assert_eq!(rest(&reader).await, ["not forwarded 100s", "end"]);
    assert_passed(posted, CONFIG.limits.request_timeout);
    assert!(rest(&waiting[0]).await[0].ends_with("Timeout(100s)"));
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_left_before_it_was_forwarded_is_not_forwarded() {
    let Deaf { mut harness, queued, waiting } = Deaf::new().await;
    drop(waiting);
    let batch = vec![message(&request("300", "x")), message(&news(1)), message(&request("301", "x"))];
    drop(harness.session.post(Posted::Batch(batch), None, Takes::Events, Instant::now()).await.unwrap());
    drop(harness.post(&news(2)).await);
    let stays = harness.post(&request("302", "x")).await;
    for _ in &queued {
        harness.child.line().await;
    }
    harness.child.expect(&news(1)).await;
    harness.child.expect(&news(2)).await;
    harness.child.expect(&request("7", "x")).await;
    harness.child.send(&result("7")).await;
    assert!(rest(&stays).await[0].ends_with(&result("302")));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_body_waits_gives_the_memory_back() {
    let Deaf { harness, .. } = Deaf::new().await;
    let all = bounded(harness.session.body_permit(MAX_STDIN_QUEUE)).await.ok();
    let posted = Posted::One(message(&request("7", "x")));
    drop(harness.session.post(posted, all, Takes::Events, Instant::now()).await.unwrap());
    assert!(bounded(harness.session.body_permit(MAX_STDIN_QUEUE)).await.is_ok());
}

// What came in time, though the loop looks late.

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

#[tokio::test(start_paused = true)]
async fn an_answer_that_lies_in_the_pipe_counts_though_its_deadline_has_passed() {
    for _ in 0..20 {
        let (session, mut child, mut run) = by_hand().await;
        let reader = post(&session, &request("7", "x"), true).await.unwrap();
        assert!(poll_once(run.as_mut()).await.is_pending());
        child.send(&result_of("2", 60_000)).await;
        tokio::time::advance(2 * CONFIG.limits.request_timeout).await;
        assert!(poll_once(run.as_mut()).await.is_pending());
        let got = rest(&reader).await;
        assert!(got[0].starts_with("2-1 {"), "{:.100}", got[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn last_words_in_the_pipe_count_though_the_loop_comes_late_to_them() {
    for _ in 0..20 {
        let (session, mut child, mut run) = by_hand().await;
        let reader = post(&session, &request("7", "x"), true).await.unwrap();
        assert!(poll_once(run.as_mut()).await.is_pending());
        child.exit();
        assert!(poll_once(run.as_mut()).await.is_pending(), "somebody else may hold stdout open");
        child.send(&result_of("2", 60_000)).await;
        tokio::time::advance(2 * DRAIN_STDOUT).await;
        assert!(poll_once(run.as_mut()).await.is_ready());
        let got = rest(&reader).await;
        assert!(got[0].starts_with("2-1 {"), "{:.100}", got[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_mailbox_keeps_a_session_from_ending_as_idle() {
    for _ in 0..20 {
        let (session, mut child, mut run) = by_hand().await;
        tokio::time::advance(2 * CONFIG.idle_timeout).await;
        let reader = post(&session, &request("7", "x"), true).await.unwrap();
        assert!(poll_once(run.as_mut()).await.is_pending(), "the session goes on");
        child.send(&result("2")).await;
        assert!(poll_once(run.as_mut()).await.is_pending());
        assert_eq!(rest(&reader).await, answered(2, "7"));
    }
}

// How a session ends.

#[tokio::test(start_paused = true)]
async fn a_session_is_evicted_only_while_it_is_idle() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    assert!(!harness.session.end_if_idle(End::Evicted).await, "a call is in flight");
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    let listener = harness.listen(None).await;
    assert!(!harness.session.end_if_idle(End::Evicted).await, "a client listens");
    drop(listener);
    let session = harness.session.clone();
    let both = tokio::join!(session.end_if_idle(End::Evicted), session.end_if_idle(End::Evicted));
    assert_eq!(both, (true, false), "one of two that ask has ended it");
    assert_eq!(harness.ended().await, End::Evicted);
    assert!(!session.end_if_idle(End::Evicted).await, "it has ended already");
}

#[tokio::test(start_paused = true)]
async fn what_is_in_the_mailbox_keeps_a_session_from_being_evicted() {
    let (session, mut child, mut run) = by_hand().await;
    let mut evicting = Box::pin(session.end_if_idle(End::Evicted));
    assert!(poll_once(evicting.as_mut()).await.is_pending());
    let reader = post(&session, &request("7", "x"), true).await.unwrap();
    assert!(poll_once(run.as_mut()).await.is_pending(), "the session goes on");
    assert!(!evicting.await, "and the one who asked is told so");
    child.send(&result("2")).await;
    assert!(poll_once(run.as_mut()).await.is_pending());
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_fails_what_is_in_flight_and_closes_what_is_open() {
    let mut harness = Harness::open().await;
    let listener = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    harness.session.end(End::Deleted);
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(Deleted)"));
    assert_eq!(rest(&listener).await, ["end"]);
    assert_eq!(post(&harness.session, &note("n"), true).await.expect_err("it is over"), End::Deleted);
    assert_eq!(harness.session.listen(None).await.expect_err("it is over"), End::Deleted);
    assert_eq!(harness.child.line().await, None, "its stdin is closed");
    assert_eq!(harness.ended().await, End::Deleted);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_the_mailbox_at_the_end_is_told_so() {
    let (session, _opening, _child, run) = unspawned(CONFIG, NARROW);
    let call = post(&session, &request("7", "x"), true).await.unwrap();
    let listener = session.listen(None).await.unwrap();
    session.end(End::Shutdown);
    bounded(run).await;
    for reader in [call, listener] {
        assert_eq!(rest(&reader).await, ["gone shutdown", "end"]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_reason_to_end_counts() {
    let mut harness = Harness::open().await;
    harness.session.end(End::Deleted);
    harness.session.end(End::Shutdown);
    harness.session.end_when_idle();
    harness.child.exit();
    assert_eq!(harness.ended().await, End::Deleted);
}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_before_the_end_still_reaches_the_child() {
    let mut harness = Harness::open().await;
    harness.accepted(&note("n")).await;
    harness.session.end(End::Deleted);
    harness.child.expect(&note("n")).await;
    assert_eq!(harness.child.line().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_shall_end_when_idle_ends_at_once_when_it_is() {
    let harness = Harness::open().await;
    let asked = Instant::now();
    harness.session.end_when_idle();
    assert_eq!(harness.ended().await, End::Shutdown);
    assert_passed(asked, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_shall_end_when_idle_waits_for_its_calls() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.session.end_when_idle();
    sleep(secs(20)).await;
    assert!(!harness.is_over());
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    assert_eq!(harness.ended().await, End::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_still_writes_after_the_end_has_a_reader() {
    let mut harness = Harness::open().await;
    harness.session.end(End::Deleted);
    let mut stdout = bounded(harness.worker).await.unwrap().stdout;
    let (line, mut read) = (news(1), Vec::new());
    let write = async {
        harness.child.write(&line).await;
        harness.child.close_stdout();
    };
    let (read_all, ()) =
        tokio::join!(stdout.as_mut().expect("one child was there").read_to_end(&mut read), write);
    read_all.unwrap();
    assert_eq!(read, news(1).as_bytes());
}

// Posts that race with the end.

/// What can end a session.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Deleted,
    WhenIdle,
    ExitStatus,
    StdoutCloses,
    StdinCloses,
    /// Nothing but time: until then the call may be answered, or time out.
    Time,
}

impl Cause {
    fn happen(self, session: &Session, child: &mut Child) {
        match self {
            Self::Deleted => session.end(End::Deleted),
            Self::WhenIdle => session.end_when_idle(),
            Self::ExitStatus => drop(child.exit.take().map(|exit| exit.send(DIED))),
            Self::StdoutCloses => child.close_stdout(),
            Self::StdinCloses => child.close_stdin(),
            Self::Time => {}
        }
    }
}

/// Whether everything that a call got is one answer, or word that the child has not seen it.
fn is_one_answer(got: &[String]) -> bool {
    let [first, end] = got else { return false };
    end == "end" && (first.starts_with("gone ") || first.starts_with(|place: char| place.is_ascii_digit()))
}

/// All orders of these steps.
fn orders(steps: &mut Vec<u8>, order: &mut Vec<u8>, all: &mut Vec<Vec<u8>>) {
    if steps.is_empty() {
        all.push(order.clone());
    }
    for place in 0..steps.len() {
        if steps[..place].contains(&steps[place]) {
            continue;
        }
        let step = steps.remove(place);
        order.push(step);
        orders(steps, order, all);
        order.pop();
        steps.insert(place, step);
    }
}

#[tokio::test(start_paused = true)]
async fn in_whatever_order_a_post_an_answer_and_the_end_come_the_call_has_one_end() {
    let mut all = Vec::new();
    // The loop takes a step, the post takes one, the child answers, the end comes.
    orders(&mut b"wwwppae".to_vec(), &mut Vec::new(), &mut all);
    let causes =
        [Cause::Deleted, Cause::WhenIdle, Cause::ExitStatus, Cause::StdoutCloses, Cause::StdinCloses];
    for cause in causes {
        for order in &all {
            play_order(cause, order, 0).await;
        }
    }
    for order in &all {
        play_order(Cause::Deleted, order, MAILBOX).await;
    }
}

/// One order of steps, with so many messages in the mailbox before.
async fn play_order(cause: Cause, order: &[u8], mailbox: usize) {
    let (session, _opening, mut child, run) = unspawned(CONFIG, 8192);
    let (mut run, mut over) = (Box::pin(run), false);
    assert!(poll_once(run.as_mut()).await.is_pending());
    child.send(&result("1")).await;
    assert!(poll_once(run.as_mut()).await.is_pending());
    for _ in 0..mailbox {
        assert!(post(&session, &note("n"), true).await.is_ok());
    }
    let text = request("7", "x");
    let (mut posting, mut posted) = (Box::pin(post(&session, &text, true)), None);
    for step in order {
        match step {
            b'w' if !over => over = poll_once(run.as_mut()).await.is_ready(),
            b'p' if posted.is_none() => {
                if let Poll::Ready(done) = poll_once(posting.as_mut()).await {
                    posted = Some(done);
                }
            }
            b'a' if child.stdout.is_some() && !over => child.send(&result("2")).await,
            b'e' => cause.happen(&session, &mut child),
            _ => {}
        }
    }
    let running = tokio::spawn(async move {
        if !over {
            run.await;
        }
    });
    let posted = match posted {
        Some(posted) => posted,
        None => posting.await,
    };
    if let Ok(reader) = posted {
        let got = rest(&reader).await;
        let order = String::from_utf8_lossy(order);
        assert!(is_one_answer(&got), "{cause:?}, {order}, {mailbox} in the mailbox: {got:?}");
    }
    bounded(running).await.unwrap();
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % bound
    }

    fn jitter(&mut self) -> Duration {
        Duration::from_millis(self.below(30))
    }
}

/// A child that answers each call after some time, or never, until its stdin ends or it loses its pipes.
async fn answer_somehow(mut child: Child, mut dice: Dice, session: Session, cause: Cause, at: Duration) {
    let mut due = BTreeMap::new();
    let mut cause = Some(cause);
    let at = Instant::now() + at;
    loop {
        let first = due.first_key_value().map(|((at, _), _)| *at);
        let Some(stdin) = &mut child.stdin else {
            sleep(secs(60)).await;
            return;
        };
        tokio::select! {
            line = stdin.next_line() => {
                let Ok(Some(line)) = line else { return };
                // The last line may have been cut off.
                if let Some(id) = Message::parse(line.into()).ok().and_then(|message| message.id().cloned())
                    && dice.below(4) > 0
                {
                    due.insert((Instant::now() + dice.jitter(), due.len()), id.as_json().to_owned());
                }
            }
            () = sleep_until(first.unwrap_or(at)), if first.is_some() => {
                let Some((_, id)) = due.pop_first() else { continue };
                let line = format!("{}\n", result(&id));
                if let Some(stdout) = &mut child.stdout && stdout.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
            () = sleep_until(at), if cause.is_some() => {
                if let Some(cause) = cause.take() {
                    cause.happen(&session, &mut child);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_race_of_cancellation_answer_timeout_exit_and_end_leaves_a_call_without_its_one_end() {
    for seed in 0..1000 {
        let mut dice = Dice(seed);
        let limits = Limits { request_timeout: Duration::from_millis(15), ..CONFIG.limits };
        let pipe = 1 + dice.below(64) as usize;
        let harness = Harness::open_with(Config { limits, ..CONFIG }, pipe).await;
        let Harness { session, child, worker, .. } = harness;
        let causes = [
            Cause::Deleted,
            Cause::WhenIdle,
            Cause::ExitStatus,
            Cause::StdoutCloses,
            Cause::StdinCloses,
            Cause::Time,
        ];
        let cause = causes[dice.below(6) as usize];
        let playing = tokio::spawn(answer_somehow(
            child,
            Dice(seed + 1_000_000),
            session.clone(),
            cause,
            dice.jitter() * 2,
        ));
        let mut calls = Vec::new();
        for id in 0..3 {
            let (session, called, cancelled) = (session.clone(), dice.jitter(), dice.jitter());
            calls.push(tokio::spawn(async move {
                let calling = async {
                    sleep(called).await;
                    match post(&session, &request(&id.to_string(), "x"), true).await {
                        Ok(reader) => rest(&reader).await,
                        Err(why) => vec![format!("gone {}", why.cause()), "end".into()],
                    }
                };
                let cancelling = async {
                    sleep(cancelled).await;
                    if let Ok(reader) = post(&session, &cancel(&id.to_string()), true).await {
                        rest(&reader).await;
                    }
                };
                tokio::join!(calling, cancelling).0
            }));
        }
        for call in calls {
            let got =
                timeout(secs(20), call).await.unwrap_or_else(|_| panic!("seed {seed} hangs: {cause:?}"));
            let got = got.unwrap();
            assert!(is_one_answer(&got), "seed {seed}, {cause:?}: {got:?}");
        }
        session.end(End::Deleted);
        drop(bounded(worker).await.unwrap());
        bounded(playing).await.unwrap();
    }
}

// BodyPermit for bodies.

#[tokio::test(start_paused = true)]
async fn bodies_that_wait_are_bounded_together() {
    let harness = Harness::open().await;
    let half = bounded(harness.session.body_permit(MAX_STDIN_QUEUE / 2)).await.unwrap();
    let _other = bounded(harness.session.body_permit(MAX_STDIN_QUEUE / 2)).await.unwrap();
    let mut third = Box::pin(harness.session.body_permit(1));
    assert!(poll_once(third.as_mut()).await.is_pending());
    drop(half);
    assert!(poll_once(third.as_mut()).await.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_body_gives_its_room_back_when_the_session_has_taken_it() {
    let mut harness = Harness::open().await;
    let all = bounded(harness.session.body_permit(MAX_STDIN_QUEUE)).await.ok();
    let posted = Posted::One(message(&note("n")));
    let reader = harness.session.post(posted, all, Takes::Events, Instant::now()).await.unwrap();
    assert_eq!(rest(&reader).await, ["accepted", "end"]);
    harness.child.expect(&note("n")).await;
    assert!(bounded(harness.session.body_permit(MAX_STDIN_QUEUE)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_taken_keeps_its_room_until_the_session_ends() {
    let Deaf { harness, waiting, .. } = Deaf::new().await;
    let room = bounded(harness.session.body_permit(MAX_STDIN_QUEUE)).await.ok();
    let posted = Posted::One(message(&note("n")));
    let reader = harness.session.post(posted, room, Takes::Events, Instant::now()).await.unwrap();
    let mut next_body = Box::pin(harness.session.body_permit(1));
    assert!(poll_once(next_body.as_mut()).await.is_pending());
    harness.session.end(End::Deleted);
    assert_eq!(rest(&waiting[0]).await, ["gone deleted", "end"]);
    assert!(bounded(next_body).await.is_err(), "and then it is told so");
    assert_eq!(rest(&reader).await, ["gone deleted", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_the_largest_size_gets_room() {
    let max_body = 3 * MAX_STDIN_QUEUE;
    let harness = Harness::open_with(Config { max_body, ..CONFIG }, NARROW).await;
    assert!(bounded(harness.session.body_permit(max_body)).await.is_ok());
    assert!(
        bounded(harness.session.body_permit(usize::MAX)).await.is_ok(),
        "a larger one waits for all there is"
    );
}

// What a child writes.

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_long_fails_its_own_call_only() {
    let mut harness = Harness::open_with(CONFIG, WIDE).await;
    let (long, other) = (harness.call("7", "2").await, harness.call("8", "3").await);
    harness.child.send(&result_of("2", 3 * CONFIG.max_message)).await;
    assert_eq!(rest(&long).await, failed(2, "7", "TooLong(100000)"));
    harness.child.send(&result("3")).await;
    assert_eq!(rest(&other).await, answered(3, "8"));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_too_long_and_may_be_anybodys_answer_ends_the_session() {
    let mut harness = Harness::open_with(CONFIG, WIDE).await;
    let (first, second) = (harness.call("7", "2").await, harness.call("8", "3").await);
    let long = "x".repeat(CONFIG.max_message);
    harness.child.send(&format!(r#"{{"jsonrpc":"2.0","result":"{long}","id":2}}"#)).await;
    assert_eq!(rest(&first).await, failed(2, "7", "Ended(TooLong(100000))"));
    assert_eq!(rest(&second).await, failed(3, "8", "Ended(TooLong(100000))"));
    assert_eq!(harness.ended().await, End::TooLong(CONFIG.max_message));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_too_long_and_nobodys_answer_is_let_go() {
    let mut harness = Harness::open_with(CONFIG, WIDE).await;
    let reader = harness.call("7", "2").await;
    let long = "x".repeat(CONFIG.max_message);
    harness.child.send(&long).await;
    harness.child.send(&note("n").replace('}', &format!(r#","params":"{long}"}}"#))).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn noise_on_stdout_does_not_harm_the_messages_around_it() {
    let mut harness = Harness::starting().await;
    for noise in ["Listening on stdio", "\u{1b}[32mready\u{1b}[0m", "42", "\"x\"", "{}", "[]", "[1", "{", "}"]
    {
        harness.child.send(noise).await;
    }
    harness.child.write(b"\n \t \r\n\xff\xfe\n\xef\xbb\xbf").await;
    harness.child.write(format!("  {}  \r\n", result("1"))).await;
    assert_eq!(rest(&harness.opening).await, answered(1, "\"init\""));
    for line in 0..30 {
        harness.child.send(&format!("noise {line}")).await;
    }
    harness.child.write(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}\n").await;
    let listener = harness.listen(None).await;
    assert_eq!(next(&listener).await, format!("0-1 {}", note("\u{fffd}")), "what is no UTF-8 is repaired");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_a_child_is_many_messages() {
    let mut harness = Harness::open().await;
    let (first, second) = (harness.call("7", "2").await, harness.call("8", "3").await);
    let batch = [result("3"), "7".into(), progress("7", 1), result("2"), news(1)].join(" , ");
    harness.child.send(&format!("[ {batch} ]")).await;
    assert_eq!(rest(&second).await, answered(3, "8"));
    let want = [format!("2-1 {}", progress("7", 1)), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&first).await, want);
    assert_eq!(available(&harness.listen(None).await).await, heard_range(1..=1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_many_pieces_comes_whole() {
    for (pipe, size) in [(NARROW, 100_000), (1000, 10_000_000)] {
        let mut harness = Harness::open_with(Config { max_message: 2 * size, ..CONFIG }, pipe).await;
        let reader = harness.call("\"seven\"", "2").await;
        harness.child.send(&result_of("2", size)).await;
        let got = rest(&reader).await;
        assert_eq!(got.len(), 2);
        assert!(got[0] == format!("2-1 {}", result_of("\"seven\"", size)), "{} bytes", got[0].len());
    }
}

// What readers leave behind.

#[tokio::test(start_paused = true)]
async fn a_fresh_listener_after_a_lag_does_not_get_again_what_the_lagging_one_took() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    send_news(&mut harness, 1..=2).await;
    assert_eq!(available(&lagging).await, heard_range(1..=2));
    send_bulk(&mut harness, 3..=6).await;
    sleep(3 * STUCK).await;
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    drop(lagging);
    settle().await;
    let newer = harness.listen(None).await;
    let got = available(&newer).await;
    let places: Vec<_> = got.iter().map(|g| g.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["0-3", "0-4", "0-5", "0-6"]);
}

#[tokio::test(start_paused = true)]
async fn a_childs_cancellation_of_its_question_reaches_the_client_after_the_call() {
    let mut harness = Harness::open().await;
    let listener = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&request("\"q\"", "sampling/createMessage")).await;
    next(&reader).await;
    harness.child.send(&result("2")).await;
    rest(&reader).await;
    harness.child.send(&cancel("\"q\"")).await;
    assert_eq!(available(&listener).await, [format!("0-1 {}", cancel("\"q\""))]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_was_not_taken_goes_to_a_fresh_listener() {
    let mut harness = Harness::open().await;
    let a = harness.listen(None).await;
    send_news(&mut harness, 1..=5).await;
    assert_eq!(heard(&a, 5).await, heard_range(1..=5));
    drop(a);
    settle().await;
    let b = harness.listen(Some("0-3")).await; // 4 and 5 were lost on the wire
    drop(b);
    settle().await;
    assert_eq!(available(&harness.listen(None).await).await, heard_range(4..=5));
}

#[tokio::test(start_paused = true)]
async fn a_question_on_a_stream_that_lost_its_reader_is_heard_when_that_resumes() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    ask_and_leave(&mut harness, reader).await;
    sleep(secs(30)).await;
    let resumed = harness.listen(Some("2-1")).await;
    assert_eq!(next(&resumed).await, format!("2-2 {}", request("\"q\"", "sampling/createMessage")));
    sleep(secs(40)).await;
    harness.accepted(&result("\"q\"")).await;
    harness.child.expect(&result("\"q\"")).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_taken_from_a_post_that_ended_may_take_its_time() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&request("\"q\"", "sampling/createMessage")).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await.len(), 3);
    sleep(secs(30)).await;
    harness.accepted(&result("\"q\"")).await;
    harness.child.expect(&result("\"q\"")).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_its_post_did_not_take_as_its_first_event_is_answered_with_an_error() {
    // A POST reader that leaves before it takes the question (place 1, not kept): nobody will ever hear it.
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    ask_and_leave(&mut harness, reader).await;
    let _listener = harness.listen(None).await;
    assert_unheard(&mut harness).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_child_wrote_before_its_exit_is_delivered_even_if_a_reader_is_full() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let _lagging = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    send_bulk(&mut harness, 1..=4).await;
    harness.child.send(&result("2")).await; // in the pipe
    harness.child.exit();
    harness.child.close_stdout();
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_offered_and_not_taken_is_evicted_last() {
    let mut harness = Harness::open_with(Config { replay_buffer: 1000, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    harness.child.send(&result("2")).await;
    settle().await;
    drop(reader);
    send_news(&mut harness, 1..=50).await;
    let want = ["accepted".into(), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&harness.try_listen(Some("2-1")).await).await, want);
}

/// The child asks something on this reader's stream, and the reader leaves without having taken it.
async fn ask_and_leave(harness: &mut Harness, reader: Reader) {
    harness.child.send(&request("\"q\"", "sampling/createMessage")).await;
    settle().await;
    drop(reader);
}

/// The child hears in time that nobody listens.
async fn assert_unheard(harness: &mut Harness) {
    let asked = Instant::now();
    harness.child.expect(NOBODY_LISTENS).await;
    assert_eq!(asked.elapsed().as_secs(), LISTENER_GRACE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_question_that_its_reader_did_not_take_is_answered_with_an_error() {
    let limits = Limits { request_timeout: secs(5000), ..CONFIG.limits };
    let mut harness = Harness::open_with(Config { limits, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    ask_and_leave(&mut harness, reader).await;
    assert_unheard(&mut harness).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_its_listener_did_not_take_is_answered_with_an_error() {
    let mut harness = Harness::open().await;
    let reader = harness.listen(None).await;
    ask_and_leave(&mut harness, reader).await;
    assert_unheard(&mut harness).await;
}

#[tokio::test(start_paused = true)]
async fn newer_listener_gone_before_attached_leaves_the_older_alone() {
    let mut harness = Harness::open().await;
    let older = harness.listen(None).await;
    let newer = harness.session.listen(None).await.unwrap();
    drop(newer);
    settle().await;
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&older).await, heard_range(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_took_something_before_is_cut_after_a_second_all_the_same() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&lagging).await, heard_range(1..=1));
    let began = Instant::now();
    send_bulk(&mut harness, 2..=9).await;
    assert_passed(began, STUCK);
}
