//! Posts, answers and cancellations that race with the end.

use super::*;

/// What can end a session.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Deleted,
    WhenIdle,
    ExitStatus,
    StdoutCloses,
    StdinCloses,
    /// Nothing but time: until then the call may be answered, or time out.
    Time,
}

impl Cause {
    fn happen(self, session: &Session, child: &mut Child) {
        match self {
            Self::Deleted => session.end(End::Deleted),
            Self::WhenIdle => session.end_when_idle(),
            Self::ExitStatus => drop(child.exit.take().map(|exit| exit.send(DIED))),
            Self::StdoutCloses => child.close_stdout(),
            Self::StdinCloses => child.close_stdin(),
            Self::Time => {}
        }
    }
}

/// Whether everything that a call got is one answer, or word that the child has not seen it.
fn is_one_answer(got: &[String]) -> bool {
    let [first, end] = got else { return false };
    end == "end" && (first.starts_with("gone ") || first.starts_with(|place: char| place.is_ascii_digit()))
}

/// All orders of these steps.
fn orders(steps: &mut Vec<u8>, order: &mut Vec<u8>, all: &mut Vec<Vec<u8>>) {
    if steps.is_empty() {
        all.push(order.clone());
    }
    for place in 0..steps.len() {
        if steps[..place].contains(&steps[place]) {
            continue;
        }
        let step = steps.remove(place);
        order.push(step);
        orders(steps, order, all);
        order.pop();
        steps.insert(place, step);
    }
}

#[tokio::test(start_paused = true)]
async fn in_whatever_order_a_post_an_answer_and_the_end_come_the_call_has_one_end() {
    let mut all = Vec::new();
    // The loop takes a step, the post takes one, the child answers, the end comes.
    orders(&mut b"wwwppae".to_vec(), &mut Vec::new(), &mut all);
    let causes =
        [Cause::Deleted, Cause::WhenIdle, Cause::ExitStatus, Cause::StdoutCloses, Cause::StdinCloses];
    for cause in causes {
        for order in &all {
            play_order(cause, order, 0).await;
        }
    }
    for order in &all {
        play_order(Cause::Deleted, order, MAILBOX).await;
    }
}

/// One order of steps, with so many messages in the mailbox before.
async fn play_order(cause: Cause, order: &[u8], mailbox: usize) {
    let (session, _opening, mut child, run) = unspawned(CONFIG, 8192);
    let (mut run, mut over) = (Box::pin(run), false);
    assert!(poll_once(run.as_mut()).await.is_pending());
    child.send(&result("1")).await;
    assert!(poll_once(run.as_mut()).await.is_pending());
    for _ in 0..mailbox {
        assert!(post(&session, &note("n"), true).await.is_ok());
    }
    let text = request("7", "x");
    let (mut posting, mut posted) = (Box::pin(post(&session, &text, true)), None);
    for step in order {
        match step {
            b'w' if !over => over = poll_once(run.as_mut()).await.is_ready(),
            b'p' if posted.is_none() => {
                if let Poll::Ready(done) = poll_once(posting.as_mut()).await {
                    posted = Some(done);
                }
            }
            b'a' if child.stdout.is_some() && !over => child.send(&result("2")).await,
            b'e' => cause.happen(&session, &mut child),
            _ => {}
        }
    }
    let running = tokio::spawn(async move {
        if !over {
            run.await;
        }
    });
    let posted = match posted {
        Some(posted) => posted,
        None => posting.await,
    };
    if let Ok(reader) = posted {
        let got = rest(&reader).await;
        let order = String::from_utf8_lossy(order);
        assert!(is_one_answer(&got), "{cause:?}, {order}, {mailbox} in the mailbox: {got:?}");
    }
    bounded(running).await.unwrap();
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % bound
    }

    fn jitter(&mut self) -> Duration {
        Duration::from_millis(self.below(30))
    }
}

/// A child that answers each call after some time, or never, until its stdin ends or it loses its pipes.
async fn answer_somehow(mut child: Child, mut dice: Dice, session: Session, cause: Cause, at: Duration) {
    let mut due = BTreeMap::new();
    let mut cause = Some(cause);
    let at = Instant::now() + at;
    loop {
        let first = due.first_key_value().map(|((at, _), _)| *at);
        let Some(stdin) = &mut child.stdin else {
            sleep(secs(60)).await;
            return;
        };
        tokio::select! {
            line = stdin.next_line() => {
                let Ok(Some(line)) = line else { return };
                // The last line may have been cut off.
                if let Some(id) = Message::parse(line.into()).ok().and_then(|message| message.id().cloned())
                    && dice.below(4) > 0
                {
                    due.insert((Instant::now() + dice.jitter(), due.len()), id.as_json().to_owned());
                }
            }
            () = sleep_until(first.unwrap_or(at)), if first.is_some() => {
                let Some((_, id)) = due.pop_first() else { continue };
                let line = format!("{}\n", result(&id));
                if let Some(stdout) = &mut child.stdout && stdout.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
            () = sleep_until(at), if cause.is_some() => {
                if let Some(cause) = cause.take() {
                    cause.happen(&session, &mut child);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_race_of_cancellation_answer_timeout_exit_and_end_leaves_a_call_without_its_one_end() {
    for seed in 0..1000 {
        let mut dice = Dice(seed);
        let limits = Limits { request_timeout: Duration::from_millis(15), ..CONFIG.limits };
        let pipe = 1 + dice.below(64) as usize;
        let harness = Harness::open_with(Config { limits, ..CONFIG }, pipe).await;
        let Harness { session, child, worker, .. } = harness;
        let causes = [
            Cause::Deleted,
            Cause::WhenIdle,
            Cause::ExitStatus,
            Cause::StdoutCloses,
            Cause::StdinCloses,
            Cause::Time,
        ];
        let cause = causes[dice.below(6) as usize];
        let playing = tokio::spawn(answer_somehow(
            child,
            Dice(seed + 1_000_000),
            session.clone(),
            cause,
            dice.jitter() * 2,
        ));
        let mut calls = Vec::new();
        for id in 0..3 {
            let (session, called, cancelled) = (session.clone(), dice.jitter(), dice.jitter());
            calls.push(tokio::spawn(async move {
                let calling = async {
                    sleep(called).await;
                    match post(&session, &request(&id.to_string(), "x"), true).await {
                        Ok(reader) => rest(&reader).await,
                        Err(why) => vec![format!("gone {}", why.cause()), "end".into()],
                    }
                };
                let cancelling = async {
                    sleep(cancelled).await;
                    if let Ok(reader) = post(&session, &cancel(&id.to_string()), true).await {
                        rest(&reader).await;
                    }
                };
                tokio::join!(calling, cancelling).0
            }));
        }
        for call in calls {
            let got =
                timeout(secs(20), call).await.unwrap_or_else(|_| panic!("seed {seed} hangs: {cause:?}"));
            let got = got.unwrap();
            assert!(is_one_answer(&got), "seed {seed}, {cause:?}: {got:?}");
        }
        session.end(End::Deleted);
        drop(bounded(worker).await.unwrap());
        bounded(playing).await.unwrap();
    }
}
