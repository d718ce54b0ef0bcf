//! What ends by the clock, and what came in time though the loop comes late to it.

use super::*;

// Timeouts.

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

// What came in time, though the loop looks late.

#[tokio::test(start_paused = true)]
async fn an_answer_that_lies_in_the_pipe_counts_though_its_deadline_has_passed() {
    for _ in 0..20 {
        let (session, mut child, mut run) = by_hand().await;
        let reader = post(&session, &request("7", "x"), true).await.unwrap();
        assert!(poll_once(run.as_mut()).await.is_pending());
        child.send(&result_of("2", 60_000)).await;
        tokio::time::advance(2 * CONFIG.limits.request_timeout).await;
        for _ in 0..2 * MAX_LATE_TURNS {
            assert!(poll_once(run.as_mut()).await.is_pending());
        }
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
        assert!(poll_once(run.as_mut()).await.is_pending(), "another process may hold stdout open");
        child.send(&result_of("2", 60_000)).await;
        tokio::time::advance(2 * DRAIN_STDOUT).await;
        let mut turns = 0;
        while poll_once(run.as_mut()).await.is_pending() {
            turns += 1;
            assert!(turns < 2 * MAX_LATE_TURNS, "it ends");
        }
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
