//! What a listening client gets, and how a stream is resumed.

use super::*;

// The listening stream.

#[tokio::test(start_paused = true)]
async fn who_listens_first_gets_what_came_before_and_then_what_comes() {
    let mut harness = Harness::open().await;
    harness.child.send(&news(1)).await;
    harness.child.send(&news(2)).await;
    settle().await;
    let listener = harness.listen(None).await;
    harness.child.send(&news(3)).await;
    for number in 1..=3 {
        assert_eq!(next(&listener).await, format!("0-{number} {}", news(number)));
    }
    assert!(available(&listener).await.is_empty(), "the stream stays open");
}

#[tokio::test(start_paused = true)]
async fn a_newer_listener_supersedes_the_older_and_gets_exactly_what_that_one_has_not_taken() {
    const ALL: u64 = 5;
    for (taken, before) in (0..=ALL).flat_map(|before| (0..=before).map(move |taken| (taken, before))) {
        for leaves in [false, true] {
            let mut harness = Harness::open().await;
            let older = harness.listen(None).await;
            send_news(&mut harness, 1..=before).await;
            assert_eq!(received(&older, taken).await, received_range(1..=taken));
            let newer = if leaves {
                drop(older);
                harness.listen(None).await
            } else {
                let newer = harness.listen(None).await;
                assert_eq!(rest(&older).await, ["end"], "what waits is for the successor");
                newer
            };
            send_news(&mut harness, before + 1..=ALL).await;
            let case = format!("{taken} of {before} taken, left: {leaves}");
            assert_eq!(available(&newer).await, received_range(taken + 1..=ALL), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_hears_is_kept_up_to_a_bound_and_the_oldest_goes_first() {
    let mut harness = Harness::open_with(Config { replay_buffer: 2000, ..CONFIG }, NARROW).await;
    send_news(&mut harness, 1..=50).await;
    let kept = available(&harness.listen(None).await).await;
    assert!((3..=2000 / news(1).len()).contains(&kept.len()), "{} events", kept.len());
    assert_eq!(kept, received_range(51 - kept.len() as u64..=50));
}

// Resumption.

/// Every way to cut a stream of `all` events: how many the reader has taken, how many had come when it was cut, when it
/// was resumed, and before the new reader read.
fn cuts(all: u64) -> impl Iterator<Item = [u64; 4]> {
    let upwards = move |from: u64| from..=all;
    upwards(0).flat_map(move |taken| {
        upwards(taken).flat_map(move |cut| {
            upwards(cut)
                .flat_map(move |resumed| upwards(resumed).map(move |read| [taken, cut, resumed, read]))
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_off_after_any_event_is_resumed_with_every_event_once_and_in_order() {
    const ALL: u64 = 3;
    let event = |number| match number {
        ALL => format!("2-{number} {}", result("7")),
        _ => format!("2-{number} {}", progress("7", number)),
    };
    async fn send(harness: &mut Harness, numbers: RangeInclusive<u64>) {
        for number in numbers {
            let own = if number == ALL { result("2") } else { progress("7", number) };
            for line in [news(number), own, progress("8", number)] {
                harness.child.send(&line).await;
            }
        }
        settle().await;
    }
    for [taken, cut, resumed, read] in cuts(ALL) {
        for (prime, leaves) in [(false, false), (false, true), (true, false), (true, true)] {
            if taken == 0 && !prime {
                continue; // it has seen no id
            }
            let case = format!("{taken} {cut} {resumed} {read}, primed: {prime}, left: {leaves}");
            let mut harness = Harness::open_with(Config { prime, ..CONFIG }, NARROW).await;
            let older = harness.call("7", "2").await;
            let _other = harness.call("8", "3").await;
            send(&mut harness, 1..=cut).await;
            let mut got = received(&older, taken).await;
            let _older = (!leaves).then_some(older); // the other connection may be broken unnoticed
            send(&mut harness, cut + 1..=resumed).await;
            let newer = harness.listen(Some(&format!("2-{taken}"))).await;
            send(&mut harness, resumed + 1..=read).await;
            got.extend(available(&newer).await);
            send(&mut harness, read + 1..=ALL).await;
            if read < ALL {
                got.extend(rest(&newer).await);
            }
            let want: Vec<_> = (1..=ALL).map(event).chain(["end".into()]).collect();
            assert_eq!(got, want, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_cut_off_after_any_event_is_resumed_with_every_event_once_and_in_order() {
    const ALL: u64 = 4;
    async fn send(harness: &mut Harness, numbers: RangeInclusive<u64>) {
        for number in numbers {
            harness.child.send(&progress("7", number)).await;
            harness.child.send(&news(number)).await;
        }
        settle().await;
    }
    for [taken, cut, resumed, read] in cuts(ALL) {
        for leaves in [false, true] {
            let mut harness = Harness::open().await;
            let older = harness.listen(None).await;
            let _other = harness.call("7", "2").await;
            send(&mut harness, 1..=cut).await;
            let mut got = received(&older, taken).await;
            let _older = (!leaves).then_some(older);
            send(&mut harness, cut + 1..=resumed).await;
            let newer = harness.listen(Some(&format!("0-{taken}"))).await;
            send(&mut harness, resumed + 1..=read).await;
            got.extend(available(&newer).await);
            send(&mut harness, read + 1..=ALL).await;
            got.extend(available(&newer).await);
            assert_eq!(got, received_range(1..=ALL), "{taken} {cut} {resumed} {read}, left: {leaves}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The child sends an event of this stream.
    Send(usize),
    /// The child answers this call.
    Answer(usize),
    /// The reader of this stream takes so many events at most.
    Read(usize, u8),
    /// It leaves.
    Leave(usize),
    /// The client resumes this stream behind the last event it saw, whether or not the old reader is still there.
    Resume(usize),
    /// The client listens without an id.
    Listen,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize).prop_map(Step::Send),
        1 => (1..3usize).prop_map(Step::Answer),
        4 => (0..3usize, 1..4u8).prop_map(|(stream, count)| Step::Read(stream, count)),
        2 => (0..3usize).prop_map(Step::Leave),
        2 => (0..3usize).prop_map(Step::Resume),
        1 => Just(Step::Listen),
    ]
}

/// One stream as its client knows it.
#[derive(Default)]
struct Followed {
    /// The number of the stream, which with calls is also the id and the token.
    number: usize,
    reader: Option<Reader>,
    /// Every event that the child has sent, as it must come.
    sent: Vec<String>,
    seen: usize,
    answered: bool,
}

impl Followed {
    async fn read(&mut self, count: usize) {
        let Some(reader) = &self.reader else { return };
        settle().await;
        for _ in 0..count {
            let next = poll_fn(|context| Poll::Ready(reader.poll_next(context))).await;
            let Poll::Ready(delivery) = next else { return };
            let text = words(delivery);
            if text == "end" {
                assert!(
                    self.answered && self.seen == self.sent.len(),
                    "a stream ends behind the answer only"
                );
                self.reader = None;
                return;
            }
            assert_eq!(Some(&text), self.sent.get(self.seen), "the next event of stream {}", self.number);
            self.seen += 1;
        }
    }

    fn is_complete(&self) -> bool {
        self.answered && self.seen == self.sent.len()
    }

    /// Whether the client knows where to resume.
    fn can_resume(&self, prime: bool) -> bool {
        !self.is_complete() && (prime || self.number == 0 || self.seen > 0)
    }

    fn last_id(&self) -> String {
        format!("{}-{}", self.number, self.seen)
    }
}

async fn follow(prime: bool, steps: &[Step]) {
    // Streams 0, 2 and 3: the listening one and two calls.
    let mut harness = Harness::open_with(Config { prime, ..CONFIG }, NARROW).await;
    let mut streams = Vec::new();
    for number in [0, 2, 3] {
        let id = &number.to_string();
        let reader = if number == 0 { harness.listen(None).await } else { harness.call(id, id).await };
        streams.push(Followed { number, reader: Some(reader), ..Followed::default() });
    }
    let ends = [Step::Answer(1), Step::Answer(2)];
    for step in steps.iter().chain(&ends) {
        match *step {
            Step::Send(index) | Step::Answer(index) if !streams[index].answered => {
                let stream = &mut streams[index];
                let place = stream.sent.len() as u64 + 1;
                let token = stream.number.to_string();
                stream.answered = matches!(step, Step::Answer(_));
                let line = match index {
                    0 => news(place),
                    _ if stream.answered => result(&token),
                    _ => progress(&token, place),
                };
                harness.child.send(&line).await;
                stream.sent.push(format!("{token}-{place} {line}"));
            }
            Step::Send(_) | Step::Answer(_) => {}
            Step::Read(index, count) => streams[index].read(count.into()).await,
            Step::Leave(index) if streams[index].can_resume(prime) => streams[index].reader = None,
            Step::Resume(index) if streams[index].can_resume(prime) => {
                let reader = harness.listen(Some(&streams[index].last_id())).await;
                streams[index].reader = Some(reader);
            }
            Step::Leave(_) | Step::Resume(_) => {}
            Step::Listen => streams[0].reader = Some(harness.listen(None).await),
        }
    }
    for stream in &mut streams {
        if stream.reader.is_none() && stream.can_resume(prime) {
            stream.reader = Some(harness.listen(Some(&stream.last_id())).await);
        }
        stream.read(usize::MAX).await;
        assert_eq!(stream.seen, stream.sent.len(), "stream {} lost events", stream.number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn however_often_clients_leave_and_resume_they_see_each_event_of_a_stream_once_and_in_order(
        prime in any::<bool>(),
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        paused().block_on(follow(prime, &steps));
    }
}

fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_resumed_leaves_its_old_reader() {
    let mut harness = Harness::open().await;
    let older = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    assert_eq!(next(&older).await, format!("2-1 {}", progress("7", 1)));
    harness.child.send(&progress("7", 2)).await;
    settle().await;
    let _newer = harness.listen(Some("2-1")).await;
    assert_eq!(rest(&older).await, ["end"], "an event is on one stream only");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_resumed_is_asked_again() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    drop(reader);
    let resumed = harness.listen(Some("2-1")).await;
    let question = request("\"q\"", "sampling/createMessage");
    harness.child.send(&question).await;
    assert_eq!(next(&resumed).await, format!("2-2 {question}"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_cannot_be_resumed_behind_what_it_never_had() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    send_news(&mut harness, 1..=1).await;
    for id in
        ["0-2", "1-0", "1-1", "1-2", "2-0", "2-2", "3-0", "3-1", "18446744073709551615-18446744073709551615"]
    {
        assert_eq!(rest(&harness.try_listen(Some(id)).await).await, ["no replay", "end"], "{id}");
    }
    assert!(EventId::parse("2-01").is_none() && EventId::parse("2").is_none(), "and what is no id is none");
}

#[tokio::test(start_paused = true)]
async fn a_stream_cannot_be_resumed_before_what_has_left_the_ring() {
    let mut harness = Harness::open_with(Config { replay_buffer: 2000, ..CONFIG }, NARROW).await;
    send_news(&mut harness, 1..=50).await;
    assert_eq!(rest(&harness.try_listen(Some("0-1")).await).await, ["no replay", "end"]);
    assert_eq!(available(&harness.listen(Some("0-48")).await).await, received_range(49..=50));
}

#[tokio::test(start_paused = true)]
async fn a_refused_resumption_disturbs_nobody() {
    let mut harness = Harness::open().await;
    let listener = harness.listen(None).await;
    assert_eq!(rest(&harness.try_listen(Some("0-9")).await).await, ["no replay", "end"]);
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&listener).await, received_range(1..=1));
}

#[tokio::test(start_paused = true)]
async fn answers_leave_the_ring_last() {
    let mut harness = Harness::open_with(Config { replay_buffer: 2000, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    drop(reader);
    harness.child.send(&result("2")).await;
    send_news(&mut harness, 1..=50).await;
    let want = ["accepted".into(), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&harness.try_listen(Some("2-1")).await).await, want);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ended_is_forgotten_with_its_last_event() {
    let mut harness = Harness::open_with(Config { replay_buffer: 2000, ..CONFIG }, NARROW).await;
    for call in 2..=20 {
        let id = &call.to_string();
        let reader = harness.call(id, id).await;
        harness.child.send(&progress(id, 1)).await;
        harness.child.send(&result(id)).await;
        assert_eq!(rest(&reader).await.len(), 3);
    }
    assert_eq!(rest(&harness.try_listen(Some("2-2")).await).await, ["no replay", "end"]);
    assert_eq!(rest(&harness.try_listen(Some("20-2")).await).await, ["accepted", "end"]);
}

#[tokio::test(start_paused = true)]
async fn a_primed_stream_is_resumed_from_its_start() {
    let mut harness = Harness::open_with(Config { prime: true, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    settle().await;
    assert_eq!(reader.position().map(|id| id.to_string()).as_deref(), Some("2-0"), "the id it begins with");
    drop(reader);
    let resumed = harness.listen(Some("2-0")).await;
    drop(resumed);
    harness.child.send(&result("2")).await;
    settle().await;
    let want: Vec<_> = ["accepted".into()].into_iter().chain(answered(2, "7")).collect();
    for _ in 0..2 {
        assert_eq!(rest(&harness.try_listen(Some("2-0")).await).await, want, "the answer stays in the ring");
    }
    assert_eq!(rest(&harness.try_listen(Some("2-1")).await).await, ["accepted", "end"], "it has seen all");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_does_not_end_its_call() {
    let mut harness = Harness::open().await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    drop(reader);
    settle().await;
    harness.accepted(&note("n")).await;
    harness.child.expect(&note("n")).await; // and no cancellation before it
    let refused = rest(&harness.post(&request("7", "x")).await).await;
    assert!(refused[0].starts_with("refused DuplicateId"), "it is in flight: {refused:?}");
    harness.child.send(&result("2")).await;
    let want = [format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&harness.listen(Some("2-1")).await).await, want);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_can_ask_for_is_let_go() {
    let mut harness = Harness::open().await;
    drop(harness.call("7", "2").await);
    harness.child.send(&result("2")).await;
    settle().await;
    for id in ["2-0", "2-1"] {
        assert_eq!(rest(&harness.try_listen(Some(id)).await).await, ["no replay", "end"]);
    }
    let reader = harness.call("7", "3").await;
    harness.child.send(&result("3")).await;
    assert_eq!(rest(&reader).await, answered(3, "7"), "the id is free again");
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_was_not_taken_goes_to_a_fresh_listener() {
    let mut harness = Harness::open().await;
    let a = harness.listen(None).await;
    send_news(&mut harness, 1..=5).await;
    assert_eq!(received(&a, 5).await, received_range(1..=5));
    drop(a);
    settle().await;
    let b = harness.listen(Some("0-3")).await; // 4 and 5 were lost on the wire
    drop(b);
    settle().await;
    assert_eq!(available(&harness.listen(None).await).await, received_range(4..=5));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_offered_and_not_taken_is_evicted_last() {
    let mut harness = Harness::open_with(Config { replay_buffer: 2000, ..CONFIG }, NARROW).await;
    let reader = harness.call("7", "2").await;
    harness.child.send(&progress("7", 1)).await;
    next(&reader).await;
    harness.child.send(&result("2")).await;
    settle().await;
    drop(reader);
    send_news(&mut harness, 1..=50).await;
    let want = ["accepted".into(), format!("2-2 {}", result("7")), "end".into()];
    assert_eq!(rest(&harness.try_listen(Some("2-1")).await).await, want);
}

#[tokio::test(start_paused = true)]
async fn newer_listener_gone_before_attached_leaves_the_older_alone() {
    let mut harness = Harness::open().await;
    let older = harness.listen(None).await;
    let newer = harness.session.listen(None).await.unwrap();
    drop(newer);
    settle().await;
    send_news(&mut harness, 1..=1).await;
    assert_eq!(available(&older).await, received_range(1..=1));
}
