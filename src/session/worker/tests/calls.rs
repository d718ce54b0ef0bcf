//! Calls and their streams.

use super::*;

// Calls and their answers.

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
