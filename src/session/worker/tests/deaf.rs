//! A child that does not read its stdin, and the memory that bodies take meanwhile.

use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;
use crate::session::MAX_UNREAD_REPLIES;

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
    assert_eq!(available(&listener).await, received_range(1..=1), "a client may listen meanwhile");

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
    for id in 0..20 {
        let session = harness.session.clone();
        calls.push(tokio::spawn(async move {
            let permit = session.bodies().take(LENGTH).await.expect("the session is there");
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
    let all = bounded(harness.session.bodies().take(ALL)).await.ok();
    let posted = Posted::One(message(&request("7", "x")));
    let reader = harness.session.post(posted, all, Takes::Events, Instant::now()).await.unwrap();
    settle().await;
    assert!(harness.session.account().at(Place::Bodies) > ALL, "it is counted while it waits");
    drop(reader);
    settle().await;
    assert_eq!(harness.session.account().at(Place::Bodies), 0);
    assert!(bounded(harness.session.bodies().take(ALL)).await.is_ok());
}

/// A child that asks and does not read: its questions are so many MiB. Returns where it goes on writing.
fn ask_without_end(harness: &mut Harness, ask: &str, mib: usize) -> JoinHandle<DuplexStream> {
    let mut stdout = harness.child.stdout.take().unwrap();
    let ask = format!("{ask}\n");
    let count = (mib * 1024 * 1024).div_ceil(ask.len());
    tokio::spawn(async move {
        for _ in 0..count {
            if stdout.write_all(ask.as_bytes()).await.is_err() {
                break;
            }
        }
        stdout
    })
}

#[tokio::test(start_paused = true)]
async fn a_deaf_child_that_asks_without_end_is_not_read_until_it_reads() {
    let long_id = format!("\"{}\"", "p".repeat(7 * 1024));
    let asks = [request("1", "ping"), request(&long_id, "ping"), request("null", "roots/list")];
    for ask in asks {
        let mut harness = Harness::open_with(CONFIG, WIDE).await;
        let asking = ask_without_end(&mut harness, &ask, 4);
        settle().await;
        let queue = harness.session.account().at(Place::Stdin);
        assert!(queue < 2 * MAX_UNREAD_REPLIES, "{queue} bytes wait for it");
        assert!(!asking.is_finished(), "it is not read");
        while !asking.is_finished() {
            bounded(harness.child.line()).await.expect("an answer");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_child_that_asks_and_does_not_read_time_out_and_it_can_be_ended() {
    let mut harness = Harness::open_with(CONFIG, WIDE).await;
    let call = harness.call("7", "2").await;
    let asking = ask_without_end(&mut harness, &request("1", "ping"), 4);
    assert_eq!(rest(&call).await, failed(2, "7", "Timeout(100s)"));
    assert!(!asking.is_finished());
    harness.session.end(End::Deleted);
    assert_eq!(harness.ended().await, End::Deleted);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_writes_much_before_it_reads_is_read_however_much_waits_for_it() {
    let Deaf { mut harness, queued, .. } = Deaf::new().await;
    assert!(harness.session.account().at(Place::Stdin) >= MAX_STDIN_QUEUE);
    let listener = harness.listen(None).await;
    let mut stdout = harness.child.stdout.take().unwrap();
    let writing = tokio::spawn(async move {
        for place in 1..=2000 {
            // A few questions among it are answered behind what waits.
            let line = if place % 100 == 0 { request("1", "ping") } else { news(place) };
            stdout.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
        stdout.write_all(format!("{}\n", result("2")).as_bytes()).await.unwrap();
        stdout
    });
    let drained = tokio::spawn(async move { rest(&listener).await });
    assert_eq!(rest(&queued[0]).await, answered(2, "0"), "it has been read to the end");
    drop((bounded(writing).await.unwrap(), drained));
}

// Memory for bodies.

/// The largest body that leaves no memory for another one.
const ALL: usize = 10 * 1024 * 1024;

#[tokio::test(start_paused = true)]
async fn a_body_gives_its_room_back_when_the_session_has_taken_it() {
    let mut harness = Harness::open().await;
    let all = bounded(harness.session.bodies().take(ALL)).await.ok();
    let posted = Posted::One(message(&note("n")));
    let reader = harness.session.post(posted, all, Takes::Events, Instant::now()).await.unwrap();
    assert_eq!(rest(&reader).await, ["accepted", "end"]);
    harness.child.expect(&note("n")).await;
    assert_eq!(harness.session.account().at(Place::Bodies), 0);
    assert!(bounded(harness.session.bodies().take(ALL)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_taken_keeps_its_room_until_the_session_ends() {
    let Deaf { harness, waiting, .. } = Deaf::new().await;
    let room = bounded(harness.session.bodies().take(ALL)).await.ok();
    let posted = Posted::One(message(&note("n")));
    let reader = harness.session.post(posted, room, Takes::Events, Instant::now()).await.unwrap();
    let mut next_body = Box::pin(harness.session.bodies().take(ALL));
    assert!(poll_once(next_body.as_mut()).await.is_pending());
    assert!(bounded(harness.session.bodies().take(100)).await.is_ok(), "small ones have room of their own");
    harness.session.end(End::Deleted);
    assert_eq!(rest(&waiting[0]).await, ["gone deleted", "end"]);
    assert!(bounded(next_body).await.is_err(), "and then it is told so");
    assert_eq!(rest(&reader).await, ["gone deleted", "end"]);
}
