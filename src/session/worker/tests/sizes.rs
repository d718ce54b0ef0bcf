//! Whatever a child writes: long, in pieces, in batches, no message at all.

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
    let batch = [result("3"), "7".into(), progress("7", 1), result("2"), news(1)].join(" , ");
    harness.child.send(&format!("[ {batch} ]")).await;
    assert_eq!(rest(&second).await, answered(3, "8"));
    let want = [format!("2-1 {}", progress("7", 1)), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&first).await, want);
    assert_eq!(available(&harness.listen(None).await).await, received_range(1..=1));
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
