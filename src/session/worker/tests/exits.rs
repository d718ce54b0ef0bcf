//! How a child ends.

use super::*;

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
    let (answered_call, lost_call) = (harness.call("7", "2").await, harness.call("8", "3").await);
    harness.child.exit();
    let died = Instant::now();
    sleep(DRAIN_STDOUT / 2).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&answered_call).await, answered(2, "7"));
    assert_eq!(rest(&lost_call).await, failed(3, "8", "Ended(Exited(Code(3)))"));
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
    harness.child.exit(); // and another process holds stdout open
    let died = Instant::now();
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(Exited(Code(3)))"));
    assert_passed(died, DRAIN_STDOUT);
}
