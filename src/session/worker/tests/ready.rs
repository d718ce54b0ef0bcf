//! Children that need time after the handshake.

use regex_lite::Regex;

use super::*;

fn config(delay: Duration) -> Config {
    let refusal = Some(Arc::new(Regex::new("not ready").expect("a pattern")));
    let ready = Readiness { delay, refusal, timeout: secs(20) };
    Config { limits: Limits { ready, ..CONFIG.limits }, ..CONFIG }
}

fn not_ready(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"not ready"}}}}"#)
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_sent_again_by_the_clock_and_its_stream_shows_the_last_answer_alone() {
    let mut harness = Harness::open_with(config(Duration::ZERO), NARROW).await;
    let reader = harness.call("7", "2").await;
    let mut began = Instant::now();
    for (seen, pause) in [(2, 250), (3, 500), (4, 1000), (5, 2000)] {
        harness.child.send(&not_ready(&seen.to_string())).await;
        assert_eq!(available(&reader).await, [""; 0], "a refusal is not shown");
        harness.child.expect(&call(&(seen + 1).to_string(), "7")).await;
        assert_eq!(began.elapsed().as_millis(), pause, "after a pause that grows");
        began = Instant::now();
    }
    harness.child.send(&progress("7", 1)).await;
    harness.child.send(&result("6")).await;
    let want = [format!("2-1 {}", progress("7", 1)), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&reader).await, want);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_never_gets_ready_is_believed_in_the_end() {
    let mut harness = Harness::open_with(config(Duration::ZERO), NARROW).await;
    let reader = harness.call("7", "2").await;
    for seen in 2..=9 {
        harness.child.send(&not_ready(&seen.to_string())).await;
        harness.child.expect(&call(&(seen + 1).to_string(), "7")).await;
    }
    harness.child.send(&not_ready("10")).await;
    assert_eq!(rest(&reader).await, [format!("2-1 {}", not_ready("7")), "end".into()]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_to_be_sent_again_gets_its_end_when_the_session_ends() {
    let mut harness = Harness::open_with(config(Duration::ZERO), NARROW).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&not_ready("2")).await;
    settle().await;
    harness.child.exit();
    harness.child.close_stdout();
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(Exited(Code(3)))"));
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_the_delay_though_the_child_says_nothing_meanwhile() {
    let mut harness = Harness::open_with(config(secs(5)), NARROW).await;
    let began = Instant::now();
    let first = harness.post(&call("7", "7")).await;
    let second = harness.post(&call("8", "8")).await;
    harness.child.expect(&call("2", "7")).await;
    assert!((secs(4)..=secs(5)).contains(&began.elapsed()), "held for {:?}", began.elapsed());
    harness.child.expect(&call("3", "8")).await;
    for (reader, seen, stream, id) in [(first, "2", 2, "7"), (second, "3", 3, "8")] {
        harness.child.send(&result(seen)).await;
        assert_eq!(rest(&reader).await, answered(stream, id));
    }
}
