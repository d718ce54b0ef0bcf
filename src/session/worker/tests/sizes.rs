//! Whatever a child writes: long, in pieces, in batches, no message at all.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::yield_now;

use super::*;

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
    let batch = [result("3"), "{}".into(), progress("7", 1), result("2"), news(1), "7".into(), news(2)];
    harness.child.send(&format!("[ {} ]", batch.join(" , "))).await;
    assert_eq!(rest(&second).await, answered(3, "8"));
    let want = [format!("2-1 {}", progress("7", 1)), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&first).await, want);
    let listener = harness.listen(None).await;
    assert_eq!(available(&listener).await, received_range(1..=1), "what is no object ends it");
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

/// Counts the turns that another task has while something is awaited.
async fn turns_of_others<F: Future>(waiting: F) -> (F::Output, usize) {
    let turns = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&turns);
    let counting = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, Relaxed);
            yield_now().await;
        }
    });
    let output = waiting.await;
    counting.abort();
    (output, turns.load(Relaxed))
}

#[tokio::test(start_paused = true)]
async fn while_a_long_line_is_looked_at_others_have_their_turns() {
    const SIZE: usize = 4 * 1024 * 1024;
    let config = Config { max_message: 2 * SIZE, ..CONFIG };
    let answer = result_of("2", SIZE);
    let noise = [format!("[{}1]", "1,".repeat(SIZE / 2)), format!("{}x", " ".repeat(SIZE)), "{".repeat(SIZE)];
    for (line, least) in [(&answer, SIZE), (&noise[0], 0), (&noise[1], SIZE), (&noise[2], 0)] {
        let mut harness = Harness::open_with(config.clone(), 2 * SIZE).await;
        let reader = harness.call("7", "2").await;
        let (got, turns) = turns_of_others(async {
            harness.child.send(line).await;
            harness.child.send(&result("2")).await;
            rest(&reader).await
        })
        .await;
        assert_eq!(got.len(), 2);
        assert!(turns > least / (256 * 1024), "{} ...: {turns} turns", &line[..40]);
    }
}

#[tokio::test(start_paused = true)]
async fn among_many_short_lines_others_have_their_turns() {
    const LINES: usize = 20_000;
    let mut harness = Harness::open_with(CONFIG, 16 * 1024 * 1024).await;
    let reader = harness.call("7", "2").await;
    let lines = [vec![note("n"); LINES].join("\n"), result("2")].join("\n");
    let (got, turns) = turns_of_others(async {
        harness.child.send(&lines).await;
        rest(&reader).await
    })
    .await;
    assert_eq!(got, answered(2, "7"));
    assert!(turns > LINES / 300, "{turns} turns");
}

#[tokio::test(start_paused = true)]
async fn long_lines_count_that_a_child_wrote_before_its_end() {
    const SIZE: usize = 4 * 1024 * 1024;
    let config = Config { max_message: 2 * SIZE, ..CONFIG };
    let batch = |size| format!("[{},{}]", result_of("2", size), result("3"));
    for (line, end) in [(batch(SIZE), "\n"), (batch(SIZE), ""), (batch(1000), "")] {
        let mut harness = Harness::open_with(config.clone(), 4 * SIZE).await;
        let (first, second) = (harness.call("7", "2").await, harness.call("8", "3").await);
        harness.child.write(format!("{line}{end}")).await;
        harness.child.close_stdout();
        harness.child.exit();
        assert_eq!(rest(&first).await.len(), 2, "{} bytes", line.len());
        assert_eq!(rest(&second).await, answered(3, "8"));
        assert_eq!(harness.ended().await, End::Exited(DIED));
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_line_of_a_lost_child_is_not_read_on() {
    let config = Config { max_message: 1 << 24, ..CONFIG };
    let mut harness = Harness::open_with(config, 1 << 24).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&result_of("2", 1 << 23)).await;
    harness.session.end(End::Deleted);
    assert_eq!(rest(&reader).await, failed(2, "7", "Ended(Deleted)"));
    assert_eq!(harness.ended().await, End::Deleted);
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_session_is_in_its_account() {
    let mut harness = Harness::starting().await;
    let at = |harness: &Harness, place| harness.session.account().at(place);
    let held = harness.post(&request("7", "tools/call")).await;
    settle().await;
    assert_eq!(at(&harness, Place::Held), request("7", "tools/call").len());
    harness.child.write(&b"{\"half\":"[..]).await;
    settle().await;
    assert_eq!(at(&harness, Place::Stdout), b"{\"half\":".len());
    harness.child.write("}\n").await;
    harness.child.send(&result("1")).await;
    harness.child.send(&news(1)).await;
    settle().await;
    let waiting = [Place::Held, Place::Stdout, Place::Stdin].map(|place| at(&harness, place));
    assert_eq!(waiting[..2], [0, 0]);
    assert!(waiting[2] > 0, "the child has not read what waited: {waiting:?}");
    assert!(at(&harness, Place::Replay) > news(1).len(), "nobody has heard it");
    harness.child.expect(&note("notifications/initialized")).await;
    harness.child.expect(&request("2", "tools/call")).await;
    settle().await;
    assert_eq!(at(&harness, Place::Stdin), 0);
    drop(held);
}
