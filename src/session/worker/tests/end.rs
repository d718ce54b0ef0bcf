//! How a session ends.

use super::*;

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
    assert!(!evicting.await, "and the question is answered");
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

#[tokio::test(start_paused = true)]
async fn a_session_whose_id_no_client_uses_ends_and_one_that_is_used_once_does_not() {
    for (uses, why, seconds) in [
        (None, End::Unclaimed, 60),
        (Some("post"), End::Idle(secs(1000)), 1000),
        (Some("listen"), End::Idle(secs(1000)), 1000),
    ] {
        let config = Config { unclaimed_timeout: Some(secs(60)), ..CONFIG };
        let (session, opening, mut child, run) = unspawned(config, NARROW);
        let worker = tokio::spawn(run);
        child.expect(&request("1", "initialize")).await;
        sleep(secs(9)).await; // which is the child's time and not the client's
        child.send(&result("1")).await;
        rest(&opening).await;
        let used = Instant::now();
        match uses {
            Some("post") => {
                drop(rest(&post(&session, &note("notifications/initialized"), true).await.unwrap()).await)
            }
            Some(_) => drop(session.listen(None).await.unwrap()),
            None => {}
        }
        assert_eq!(bounded(worker).await.unwrap().why, why);
        assert_eq!(used.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_used_meanwhile_is_not_taken_for_unclaimed() {
    let harness = Harness::open().await;
    let session = harness.session.clone();
    rest(&post(&session, &note("notifications/initialized"), true).await.unwrap()).await;
    assert!(!session.end_if_idle(End::Unclaimed).await);
    assert!(session.end_if_idle(End::Evicted).await, "idle it is");
}
