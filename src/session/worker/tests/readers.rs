//! Readers that take too little.

use super::*;

/// Of the events that [`bulky`] makes, the fourth is too much for a reader that takes nothing.
const ROOMY: Config = Config { replay_buffer: 16 * MAX_UNSENT, max_message: MAX_UNSENT, ..CONFIG };

/// How long a reader may take nothing while too much waits for it, and how long too much may wait at all.
const STUCK: Duration = secs(1);
const TOO_SLOW: Duration = secs(30);

fn bulky(line: &str) -> String {
    format!("{{{}{}", " ".repeat(MAX_UNSENT * 3 / 10), &line[1..])
}

/// These news in bulk, as a listener gets them.
fn bulk_range(numbers: RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| format!("0-{number} {}", bulky(&news(number)))).collect()
}

async fn send_bulk(harness: &mut Harness, numbers: RangeInclusive<u64>) {
    for number in numbers {
        harness.child.send(&bulky(&news(number))).await;
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_takes_nothing_is_cut_off_and_can_resume() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&lagging).await, received_range(1..=1));
    let began = Instant::now();
    send_bulk(&mut harness, 2..=9).await;
    assert!(
        (STUCK..3 * STUCK).contains(&began.elapsed()),
        "it may have been seen taking something just before"
    );
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    let resumed = harness.listen(Some("0-1")).await;
    assert_eq!(available(&resumed).await, bulk_range(2..=9));
    send_news(&mut harness, 10..=10).await;
    assert_eq!(available(&resumed).await, received_range(10..=10), "it is a stream like any other");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_reader_takes_nothing_is_cut_off_and_can_resume() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&lagging).await;
    let bulk: Vec<_> = (2..=9).map(|number| bulky(&progress("7", number))).collect();
    for line in &bulk {
        harness.child.send(line).await;
    }
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    let mut want: Vec<_> = (2..).zip(&bulk).map(|(place, line)| format!("2-{place} {line}")).collect();
    want.extend([format!("2-10 {}", result("7")), "end".into()]);
    assert_eq!(rest(&harness.listen(Some("2-1")).await).await, want);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_on_taking_slows_the_child_down_and_misses_nothing() {
    let harness = Harness::open_with(ROOMY, WIDE).await;
    let listener = harness.listen(None).await;
    let mut child = harness.child;
    let began = Instant::now();
    let writing = tokio::spawn(async move {
        for number in 1..=40 {
            child.send(&bulky(&news(number))).await;
        }
        child
    });
    let mut got = Vec::new();
    while got.len() < 40 {
        sleep(STUCK * 3 / 4).await;
        got.push(next(&listener).await);
    }
    assert_eq!(got, bulk_range(1..=40));
    assert!(began.elapsed() > TOO_SLOW - secs(5), "as long as it is not too slow for too long");
    drop(bounded(writing).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_slows_down_a_child_of_other_sessions_too_is_cut_off_before_long() {
    let harness = Harness::open_with(Config { is_on_lane: true, ..ROOMY }, WIDE).await;
    let listener = harness.listen(None).await;
    let mut child = harness.child;
    let began = Instant::now();
    let writing = tokio::spawn(async move {
        for number in 1..=40 {
            child.send(&bulky(&news(number))).await;
        }
        child
    });
    let mut taken = 0;
    while next(&listener).await != "lagged" {
        taken += 1;
        sleep(STUCK * 3 / 4).await;
    }
    let passed = began.elapsed();
    assert!((secs(5)..secs(10)).contains(&passed), "{passed:?}, {taken} events");
    drop(bounded(writing).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_caught_up_lets_the_child_go_on_at_once() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let listener = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    let began = Instant::now();
    for round in 0..5 {
        let numbers = 4 * round + 1..=4 * round + 4;
        send_bulk(&mut harness, numbers.clone()).await;
        assert_eq!(available(&listener).await, bulk_range(numbers));
    }
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    assert!(began.elapsed() < STUCK / 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_too_little_for_too_long_is_cut_off() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let listener = harness.listen(None).await;
    send_news(&mut harness, 1..=100).await;
    let began = Instant::now();
    let reading = tokio::spawn(async move {
        loop {
            sleep(STUCK / 2).await;
            if next(&listener).await == "lagged" {
                return;
            }
        }
    });
    send_bulk(&mut harness, 101..=105).await; // behind a hundred little ones
    assert_passed(began, TOO_SLOW);
    bounded(reading).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_holds_up_the_others_no_longer_than_that() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let _lagging = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    let began = Instant::now();
    send_bulk(&mut harness, 1..=20).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    assert_passed(began, STUCK);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_holds_up_nobody() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let leaving = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    send_bulk(&mut harness, 1..=4).await;
    let left = Instant::now();
    drop(leaving);
    send_bulk(&mut harness, 5..=20).await;
    harness.child.send(&result("2")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"));
    assert_passed(left, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_much_to_catch_up_on_is_not_cut_off_by_what_comes_next() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    send_bulk(&mut harness, 1..=8).await;
    let listener = harness.listen(Some("0-0")).await;
    send_bulk(&mut harness, 9..=9).await;
    assert_eq!(available(&listener).await, bulk_range(1..=9));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_was_cut_off_has_left_only_then() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    sleep(3 * CONFIG.idle_timeout).await;
    send_bulk(&mut harness, 1..=9).await;
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    let cut = Instant::now() - Duration::from_millis(1); // the child had to write the rest
    assert_eq!(harness.ended().await, End::Idle(CONFIG.idle_timeout));
    assert_passed(cut, CONFIG.idle_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_listener_after_a_lag_does_not_get_again_what_the_lagging_one_took() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    send_news(&mut harness, 1..=2).await;
    assert_eq!(available(&lagging).await, received_range(1..=2));
    send_bulk(&mut harness, 3..=6).await;
    sleep(3 * STUCK).await;
    assert_eq!(rest(&lagging).await, ["lagged", "end"]);
    drop(lagging);
    settle().await;
    let newer = harness.listen(None).await;
    let got = available(&newer).await;
    let places: Vec<_> = got.iter().map(|g| g.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["0-3", "0-4", "0-5", "0-6"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_child_wrote_before_its_exit_is_delivered_even_if_a_reader_is_full() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let _lagging = harness.listen(None).await;
    let reader = harness.call("7", "2").await;
    send_bulk(&mut harness, 1..=4).await;
    harness.child.send(&result("2")).await; // in the pipe
    harness.child.exit();
    harness.child.close_stdout();
    assert_eq!(rest(&reader).await, answered(2, "7"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_took_something_before_is_cut_after_a_second_all_the_same() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let lagging = harness.listen(None).await;
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&lagging).await, received_range(1..=1));
    let began = Instant::now();
    send_bulk(&mut harness, 2..=9).await;
    assert_passed(began, STUCK);
}

#[tokio::test(start_paused = true)]
async fn behind_the_end_of_its_session_a_reader_that_takes_nothing_is_cut_off() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let (listener, reader) = (harness.listen(None).await, harness.call("7", "2").await);
    send_bulk(&mut harness, 1..=3).await;
    harness.child.send(&result_of("2", MAX_UNSENT / 2)).await;
    settle().await;
    let session = harness.session.clone();
    session.end(End::Deleted);
    assert_eq!(harness.ended().await, End::Deleted);
    assert!(session.account().at(Place::Readers) > MAX_UNSENT);
    sleep(2 * STUCK).await;
    assert_eq!(session.account().at(Place::Readers), 0, "nothing is left of what waited");
    assert_eq!(rest(&listener).await, ["lagged", "end"]);
    assert_eq!(rest(&reader).await, ["lagged", "end"]);
}

#[tokio::test(start_paused = true)]
async fn behind_the_end_of_its_session_a_reader_that_goes_on_gets_all_there_is() {
    let mut harness = Harness::open_with(ROOMY, WIDE).await;
    let listener = harness.listen(None).await;
    send_bulk(&mut harness, 1..=3).await;
    harness.session.end(End::Deleted);
    for number in 1..=3 {
        sleep(STUCK * 3 / 4).await;
        assert_eq!(next(&listener).await, bulk_range(number..=number).remove(0));
    }
    assert_eq!(next(&listener).await, "end");
}
