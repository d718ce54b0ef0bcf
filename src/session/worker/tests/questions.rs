//! What the child asks its client.

use super::*;

const NOBODY_LISTENS: &str =
    r#"{"jsonrpc":"2.0","id":"q","error":{"code":-32603,"message":"no client listens for this request"}}"#;

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
    // A POST reader that leaves before it takes the question (place 1, not kept): no client will ever get it.
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    ask_and_leave(&mut harness, reader).await;
    let _listener = harness.listen(None).await;
    assert_answered_for_want_of_a_listener(&mut harness).await;
}

/// The child asks something on this reader's stream, and the reader leaves without having taken it.
async fn ask_and_leave(harness: &mut Harness, reader: Reader) {
    harness.child.send(&request("\"q\"", "sampling/createMessage")).await;
    settle().await;
    drop(reader);
}

/// The child is told in time that no client listens.
async fn assert_answered_for_want_of_a_listener(harness: &mut Harness) {
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
    assert_answered_for_want_of_a_listener(&mut harness).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_its_listener_did_not_take_is_answered_with_an_error() {
    let mut harness = Harness::open().await;
    let reader = harness.listen(None).await;
    ask_and_leave(&mut harness, reader).await;
    assert_answered_for_want_of_a_listener(&mut harness).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_does_not_wait_on_a_stream_of_which_its_client_knows_no_event() {
    for prime in [false, true] {
        let mut harness = Harness::open_with(Config { prime, ..CONFIG }, NARROW).await;
        drop(harness.call("7", "2").await);
        settle().await;
        harness.child.send(&progress("7", 1)).await;
        let question = request("\"q\"", "sampling/createMessage");
        harness.child.send(&question).await;
        settle().await;
        let listener = harness.listen(None).await;
        assert_eq!(available(&listener).await, [format!("0-1 {question}")], "primed: {prime}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_waits_on_a_stream_that_was_begun() {
    let config = Config { prime: true, sse_after: secs(1), ..CONFIG };
    let mut harness = Harness::open_with(config, NARROW).await;
    let reader = harness.call("7", "2").await;
    assert_eq!(next(&reader).await, "pending");
    drop(reader);
    settle().await;
    let question = request("\"q\"", "sampling/createMessage");
    harness.child.send(&question).await;
    settle().await;
    let resumed = harness.listen(Some("2-0")).await;
    assert_eq!(available(&resumed).await, [format!("2-1 {question}")]);
}

#[tokio::test(start_paused = true)]
async fn a_question_does_not_wait_on_a_stream_that_an_older_revision_leaves_unprimed() {
    let config = Config { prime: true, sse_after: secs(1), ..CONFIG };
    for (version, stream) in [("2025-06-18", 0), ("2025-11-25", 2)] {
        let mut harness = Harness::new(config.clone(), NARROW);
        harness.child.expect(&request("1", "initialize")).await;
        let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":"{version}"}}}}"#);
        harness.child.send(&answer).await;
        harness.accepted(&note("notifications/initialized")).await;
        harness.child.expect(&note("notifications/initialized")).await;
        let reader = harness.call("7", "2").await;
        assert_eq!(next(&reader).await, "pending");
        drop(reader);
        settle().await;
        let question = request("\"q\"", "sampling/createMessage");
        harness.child.send(&question).await;
        settle().await;
        let resumed = harness.listen(Some(&format!("{stream}-0"))).await;
        assert_eq!(available(&resumed).await, [format!("{stream}-1 {question}")], "{version}");
    }
}
