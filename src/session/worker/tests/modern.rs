//! Sessions that clients of 2026-07-28 share.

use super::*;
use crate::proto::link::own_discover;
use crate::session::Clients;

/// A session whose child has answered `server/discover`.
async fn open() -> (Session, Child, JoinHandle<Ended<DuplexStream>>) {
    let (first, mut child) = pipes(WIDE);
    let id = SessionId::from_random(None, [7; 24]);
    let clients = Clients::Modern { strangers: true };
    let (session, worker) = Session::shared(CONFIG, id, own_discover(), clients);
    let worker = tokio::spawn(worker.run(first, |_| pending()));
    assert!(child.line().await.unwrap().contains(r#""id":1,"method":"server/discover""#));
    child.send(&result("1")).await;
    assert_eq!(child.handshake().await, Some(Ok(())));
    (session, child, worker)
}

const ID: &str = r#""io.modelcontextprotocol/subscriptionId""#;

/// A client's subscription, which the child knows as `seen` and has acknowledged.
async fn listen(session: &Session, child: &mut Child, seen: &str) -> Reader {
    let listen = |id: &str| request(id, "subscriptions/listen");
    let reader = post(session, &listen("\"l\""), true).await.unwrap();
    child.expect(&listen(seen)).await;
    child.send(&acknowledged(seen)).await;
    assert!(next(&reader).await.ends_with(&acknowledged("\"l\"")));
    reader
}

fn acknowledged(id: &str) -> String {
    let method = "notifications/subscriptions/acknowledged";
    format!(
        r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{{ID}:{id}}},"notifications":{{}}}}}}"#
    )
}

/// The answer that ends the subscription.
fn ended(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{{ID}:{id}}}}}}}"#)
}

/// What is left on the stream of a subscription.
async fn last(reader: &Reader) -> Vec<String> {
    let events = rest(reader).await;
    events
        .into_iter()
        .map(|event| event.split_once(' ').map_or(event.clone(), |(_, text)| text.into()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_subscription_keeps_its_session_from_being_idle_and_no_bridge_from_stopping() {
    let (session, mut child, worker) = open().await;
    let reader = listen(&session, &mut child, "2").await;
    sleep(10 * CONFIG.idle_timeout).await;
    assert!(!session.end_if_idle(End::Evicted).await, "a client listens");
    assert_eq!((session.stats().in_flight, session.stats().idle_since), (0, None));
    let call = post(&session, &request("7", "x"), true).await.unwrap();
    child.expect(&request("3", "x")).await;
    session.end_when_idle();
    settle().await;
    assert!(!worker.is_finished(), "the call goes on");
    child.send(&result("3")).await;
    assert_eq!(last(&call).await, [result("7"), "end".into()]);
    assert_eq!(last(&reader).await, [ended("\"l\""), "end".into()], "it ends well");
    assert_eq!(bounded(worker).await.unwrap().why, End::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_when_its_session_is_to_end_and_not_with_the_last_call() {
    let (session, mut child, worker) = open().await;
    let reader = listen(&session, &mut child, "2").await;
    let call = post(&session, &request("7", "x"), true).await.unwrap();
    child.expect(&request("3", "x")).await;
    session.end_when_idle();
    assert_eq!(last(&reader).await, [ended("\"l\""), "end".into()]);
    assert!(!worker.is_finished(), "the call goes on");
    child.send(&result("3")).await;
    assert_eq!(last(&call).await, [result("7"), "end".into()]);
    assert_eq!(bounded(worker).await.unwrap().why, End::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_whose_child_dies_does_not_end_as_if_that_had_ended_it() {
    let (session, mut child, worker) = open().await;
    let reader = listen(&session, &mut child, "2").await;
    child.close_stdout();
    child.exit();
    let fault = format!("\"l\" Ended(Exited({DIED:?}))");
    assert_eq!(last(&reader).await, [fault, "end".into()]);
    assert_eq!(bounded(worker).await.unwrap().why, End::Exited(DIED));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_its_request_and_the_session_of_the_others_goes_on() {
    let (session, mut child, worker) = open().await;
    let subscribed = listen(&session, &mut child, "2").await;
    let call = post(&session, &request("7", "x"), true).await.unwrap();
    child.expect(&request("3", "x")).await;
    let other = post(&session, &request("7", "x"), true).await.unwrap();
    child.expect(&request("4", "x")).await;
    for (reader, seen) in [(call, "3"), (subscribed, "2")] {
        drop(reader);
        let told = child.line().await.unwrap();
        let named = format!(r#""method":"notifications/cancelled","params":{{"requestId":{seen},"#);
        assert!(told.contains(&named), "{told}");
    }
    child.send(&result("3")).await;
    child.send(&result("4")).await;
    assert_eq!(last(&other).await, [result("7"), "end".into()]);
    sleep(CONFIG.idle_timeout).await;
    assert_eq!(bounded(worker).await.unwrap().why, End::Idle(CONFIG.idle_timeout), "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_reads_nothing_loses_its_stream_and_the_child_is_told() {
    let (session, mut child, _worker) = open().await;
    let deaf = listen(&session, &mut child, "2").await;
    let message = |id: &str| {
        let text = "x".repeat(50_000);
        format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"_meta":{{{ID}:{id}}},"text":"{text}"}}}}"#)
    };
    let told = async {
        loop {
            let line = child.stdin.as_mut().unwrap().next_line().await.unwrap().unwrap();
            if line.contains("notifications/cancelled") {
                return line;
            }
        }
    };
    let mut stdout = child.stdout.take().unwrap();
    let writing = async {
        loop {
            stdout.write_all(format!("{}\n", message("2")).as_bytes()).await.unwrap();
        }
    };
    tokio::select! {
        line = bounded(told) => assert!(line.contains(r#""requestId":2,"#), "{line}"),
        () = writing => unreachable!("it writes without end"),
    }
    drop(deaf);
}
