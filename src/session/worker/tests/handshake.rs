//! Before and until the child has answered `initialize`.

use super::*;

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
