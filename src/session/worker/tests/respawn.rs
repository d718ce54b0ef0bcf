//! A session that outlives its child.

use tokio::sync::mpsc;

use super::*;

/// A session that gets further children when a test gives them.
struct Respawning {
    harness: Harness,
    /// Which child was lost, and how many so far.
    lost: mpsc::UnboundedReceiver<(End, u32)>,
    /// The next child; `None`: there is none.
    give: mpsc::UnboundedSender<Option<Pipes<DuplexStream, DuplexStream>>>,
}

impl Respawning {
    /// The first child has had its handshake.
    async fn open() -> Self {
        let limits = Limits { respawn: true, ..CONFIG.limits };
        Self::open_with(Config { limits, ..CONFIG }).await
    }

    async fn open_with(config: Config) -> Self {
        let mut session = Self::starting(config).await;
        let Harness { child, opening, .. } = &mut session.harness;
        child.send(&result("1")).await;
        assert_eq!(rest(opening).await, [format!("1-1 {}", result("\"init\"")), "end".into()]);
        session.harness.accepted(&note("notifications/initialized")).await;
        session.harness.child.expect(&note("notifications/initialized")).await;
        session
    }

    async fn starting(config: Config) -> Self {
        let (first, mut child) = pipes(NARROW);
        let id = SessionId::from_random(None, [7; 24]);
        let initialize = parsed_request(&request("\"init\"", "initialize"));
        let (session, worker, opening) = Session::new(config, id, initialize, Takes::Events, Era::Legacy);
        let (give, given) = mpsc::unbounded_channel();
        let (tell, lost) = mpsc::unbounded_channel();
        let given = Arc::new(tokio::sync::Mutex::new(given));
        let next = move |lost: LostChild<DuplexStream>| {
            let given = Arc::clone(&given);
            tell.send((lost.why, lost.count)).expect("the test listens");
            async move { given.lock().await.recv().await.flatten() }
        };
        let worker = tokio::spawn(worker.run(first, next));
        child.expect(&request("1", "initialize")).await;
        Self { harness: Harness { session, opening, child, worker }, lost, give }
    }

    /// The child exits.
    async fn die(&mut self) -> (End, u32) {
        self.harness.child.exit();
        self.harness.child.close_stdout();
        bounded(self.lost.recv()).await.expect("the session goes on")
    }

    /// Another child comes, and gets `initialize` under this id.
    async fn another(&mut self, id: &str) {
        let (next, child) = pipes(NARROW);
        self.give.send(Some(next)).expect("the session waits for it");
        self.harness.child = child;
        self.harness.child.expect(&request(id, "initialize")).await;
    }

    /// The same, and it answers.
    async fn good_child(&mut self, id: &str) {
        self.another(id).await;
        self.harness.child.send(&result(id)).await;
        self.harness.child.expect(&note("notifications/initialized")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_with_the_child_ends_and_one_that_comes_later_is_for_the_next_child() {
    let mut session = Respawning::open().await;
    let lost = session.harness.call("7", "2").await;
    assert_eq!(session.die().await, (End::Exited(DIED), 1));
    assert_eq!(rest(&lost).await, failed(2, "7", "Lost(Exited(Code(3)))"));
    let later = session.harness.post(&call("8", "8")).await;
    assert_eq!(available(&later).await, [""; 0], "it waits for a child");
    session.good_child("4").await;
    session.harness.child.expect(&call("3", "8")).await;
    session.harness.child.send(&result("3")).await;
    assert_eq!(rest(&later).await, answered(3, "8"));
}

#[tokio::test(start_paused = true)]
async fn of_each_child_it_is_said_once_whether_it_has_answered_initialize() {
    let mut session = Respawning::open().await;
    assert_eq!(session.harness.child.handshake().await, Some(Ok(())));
    session.die().await;
    session.another("2").await;
    assert_eq!(session.harness.child.handshake().await, None, "it has not answered");
    session.die().await;
    assert_eq!(session.harness.child.handshake().await, Some(Err(End::Exited(DIED))), "it was lost before");
    session.another("3").await;
    session.harness.session.end(End::Deleted);
    let told = session.harness.child.handshake().await;
    assert_eq!(told, Some(Err(End::Deleted)), "its session has ended before");
    assert!(bounded(session.harness.worker).await.unwrap().opened, "one of them had answered");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_child_never_answered_was_not_opened() {
    let mut harness = Harness::starting().await;
    harness.child.exit();
    harness.child.close_stdout();
    let Ended { why, opened, .. } = bounded(harness.worker).await.unwrap();
    assert_eq!((why, opened), (End::Exited(DIED), false));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_closes_its_stdout_is_lost_too() {
    let mut session = Respawning::open().await;
    session.harness.child.close_stdout();
    assert_eq!(bounded(session.lost.recv()).await, Some((End::StdoutClosed, 1)));
    session.good_child("2").await;
}

#[tokio::test(start_paused = true)]
async fn a_listening_client_goes_on_listening() {
    let mut session = Respawning::open().await;
    let listening = session.harness.listen(None).await;
    session.die().await;
    session.good_child("2").await;
    session.harness.child.send(&news(1)).await;
    assert_eq!(next(&listening).await, format!("0-1 {}", news(1)));
}

#[tokio::test(start_paused = true)]
async fn the_log_level_and_live_subscriptions_are_told_to_the_next_child_and_refused_ones_are_not() {
    let subscribe = |id: &str, verb: &str, uri: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/{verb}","params":{{"uri":"{uri}"}}}}"#)
    };
    let level = |id: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{"level":"error"}}}}"#)
    };
    let mut session = Respawning::open().await;
    let asked = [
        (level("11"), level("2"), true),
        (subscribe("12", "subscribe", "a"), subscribe("3", "subscribe", "a"), true),
        (subscribe("13", "subscribe", "b"), subscribe("4", "subscribe", "b"), true),
        (subscribe("14", "subscribe", "c"), subscribe("5", "subscribe", "c"), false),
        (subscribe("15", "unsubscribe", "a"), subscribe("6", "unsubscribe", "a"), true),
    ];
    for (index, (posted, seen, granted)) in asked.iter().enumerate() {
        let reader = session.harness.post(posted).await;
        session.harness.child.expect(seen).await;
        let id = (index + 2).to_string();
        let refused = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602,"message":"no"}}}}"#);
        session.harness.child.send(&if *granted { result(&id) } else { refused }).await;
        rest(&reader).await;
    }
    session.die().await;
    session.good_child("7").await;
    session.harness.child.expect(&level("8")).await;
    session.harness.child.expect(&subscribe("9", "subscribe", "b")).await;
    session.harness.child.send(&result("8")).await;
    session.harness.child.send(&result("9")).await;
    let reader = session.harness.call("20", "10").await;
    session.harness.child.send(&result("10")).await;
    assert_eq!(rest(&reader).await, answered(7, "20"), "nothing of it reaches the client");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_get_through_its_first_handshake_ends_the_session() {
    let limits = Limits { respawn: true, ..CONFIG.limits };
    let mut session = Respawning::starting(Config { limits, ..CONFIG }).await;
    session.harness.child.exit();
    session.harness.child.close_stdout();
    assert_eq!(rest(&session.harness.opening).await, failed(1, "\"init\"", "Ended(Exited(Code(3)))"));
    assert_eq!(session.harness.ended().await, End::Exited(DIED));
}

#[tokio::test(start_paused = true)]
async fn five_children_that_do_not_get_through_the_handshake_end_the_session() {
    let mut session = Respawning::open().await;
    assert_eq!(session.die().await, (End::Exited(DIED), 1));
    let waiting = session.harness.post(&call("8", "8")).await;
    settle().await;
    for count in 2..=5 {
        session.another(&(count + 1).to_string()).await;
        assert_eq!(session.die().await, (End::Exited(DIED), count));
    }
    session.another("7").await;
    session.harness.child.exit();
    session.harness.child.close_stdout();
    assert_eq!(rest(&waiting).await, failed(2, "8", "Ended(Exited(Code(3)))"));
    assert_eq!(session.harness.ended().await, End::Exited(DIED));
}

#[tokio::test(start_paused = true)]
async fn a_new_child_that_never_answers_the_handshake_is_lost_like_one_that_exits() {
    let mut session = Respawning::open().await;
    session.die().await;
    session.another("2").await;
    assert_eq!(bounded(session.lost.recv()).await, Some((End::InitTimeout(secs(10)), 2)));
    session.good_child("3").await;
}

#[tokio::test(start_paused = true)]
async fn a_new_child_that_refuses_the_handshake_is_lost_like_one_that_exits() {
    let mut session = Respawning::open().await;
    session.die().await;
    session.another("2").await;
    session.harness.child.send(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":"no"}}"#).await;
    assert_eq!(bounded(session.lost.recv()).await, Some((End::Refused, 2)));
    session.good_child("3").await;
}

#[tokio::test(start_paused = true)]
async fn losses_far_apart_are_each_the_first() {
    let mut session = Respawning::open().await;
    for id in 2..=20 {
        sleep(secs(31)).await;
        assert_eq!(session.die().await, (End::Exited(DIED), 1));
        session.good_child(&id.to_string()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_child_can_be_had_the_session_ends_with_the_reason_of_the_loss() {
    let mut session = Respawning::open().await;
    session.die().await;
    let waiting = session.harness.post(&call("8", "8")).await;
    settle().await;
    session.give.send(None).expect("the session waits");
    assert_eq!(rest(&waiting).await, failed(2, "8", "Ended(Exited(Code(3)))"));
    assert_eq!(session.harness.ended().await, End::Exited(DIED));
}

#[tokio::test(start_paused = true)]
async fn a_session_between_two_children_can_be_ended() {
    for why in [End::Deleted, End::Shutdown] {
        let mut session = Respawning::open().await;
        session.die().await;
        let waiting = session.harness.post(&call("8", "8")).await;
        settle().await;
        session.harness.session.end(why);
        assert_eq!(rest(&waiting).await, failed(2, "8", &format!("Ended({why:?})")));
        assert_eq!(session.harness.ended().await, why);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_when_idle_gets_no_further_child() {
    let mut session = Respawning::open().await;
    let lost = session.harness.call("7", "2").await;
    session.harness.session.end_when_idle();
    session.harness.child.exit();
    session.harness.child.close_stdout();
    assert_eq!(rest(&lost).await, failed(2, "7", "Ended(Exited(Code(3)))"));
    assert_eq!(session.harness.ended().await, End::Exited(DIED));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_question_of_the_lost_child_reaches_nobody() {
    let mut session = Respawning::open().await;
    let _listening = session.harness.listen(None).await;
    session.harness.child.send(&request("\"q\"", "sampling/createMessage")).await;
    settle().await;
    session.die().await;
    session.good_child("2").await;
    session.harness.accepted(&result("\"q\"")).await;
    let reader = session.harness.call("7", "3").await;
    session.harness.child.send(&result("3")).await;
    assert_eq!(rest(&reader).await, answered(2, "7"), "the next child saw the call and nothing before it");
}

#[tokio::test(start_paused = true)]
async fn an_initialize_too_long_to_remember_makes_the_session_end_with_its_child() {
    let limits = Limits { respawn: true, ..CONFIG.limits };
    let (first, mut child) = pipes(WIDE);
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"x":"{}"}}}}"#,
        "x".repeat(8 * 1024)
    );
    let id = SessionId::from_random(None, [7; 24]);
    let (session, worker, opening) =
        Session::new(Config { limits, ..CONFIG }, id, parsed_request(&long), Takes::Events, Era::Legacy);
    let worker = tokio::spawn(worker.run(first, |_| pending()));
    child.line().await;
    child.send(&result("1")).await;
    rest(&opening).await;
    child.exit();
    child.close_stdout();
    assert_eq!(bounded(worker).await.unwrap().why, End::Exited(DIED));
    drop(session);
}

#[tokio::test(start_paused = true)]
async fn what_comes_when_a_child_has_just_refused_the_handshake_is_for_the_next_one() {
    let limits = Limits { respawn: true, ..CONFIG.limits };
    let config = Config { limits, ..CONFIG };
    let initialize = parsed_request(&request("\"init\"", "initialize"));
    let id = SessionId::from_random(None, [7; 24]);
    let (session, worker, _opening) = Session::new(config, id, initialize, Takes::Events, Era::Legacy);
    let Worker { config, shared, mut mailbox, initialize, whose } = worker;
    let now = Instant::now();
    let mut core = Core::open(config, &shared, &initialize, whose, start(), now);
    let answer = |core: &mut Core<'_>, text: &str| {
        let mut decoder = LineDecoder::new(1000);
        decoder.buffer().extend_from_slice(format!("{text}\n").as_bytes());
        core.frame(decoder.next().expect("a line"), now);
    };
    answer(&mut core, &result("1"));
    assert!(core.child_lost(End::Exited(DIED), now).is_some());
    core.handshake(start(), now);
    answer(&mut core, r#"{"jsonrpc":"2.0","id":2,"error":{"code":1,"message":"no"}}"#);

    let (said, called) = (note("notifications/x"), call("7", "7"));
    let noted = post(&session, &said, true).await.unwrap();
    let calling = post(&session, &called, true).await.unwrap();
    while let Ok(command) = mailbox.try_recv() {
        core.command(command, now);
    }
    core.forward(now, now);
    assert_eq!(core.end_reason(now), Some(End::Refused));
    assert!(core.child_lost(End::Refused, now).is_some());
    core.forward(now, now);
    core.handshake(start(), now);
    answer(&mut core, &result("4"));
    let stdin = std::str::from_utf8(core.stdin()).unwrap();
    assert!(stdin.contains(&said), "what was accepted is not lost: {stdin}");
    assert!(stdin.contains("tools/call"), "the child that refused has not seen the call: {stdin}");
    assert_eq!(rest(&noted).await, ["accepted", "end"]);
    assert_eq!(available(&calling).await, [""; 0]);
}

/// The start of a child, which nobody watches.
fn start() -> Start {
    Start { answered: oneshot::channel().0, first_words: Arc::default() }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_serves_a_call_and_leaves_in_good_order_is_no_loss() {
    let mut session = Respawning::open().await;
    let well = ExitStatus::Code(0);
    for (id, next) in [("2", "3"), ("4", "5"), ("6", "7")] {
        let reader = session.harness.call(&format!("1{id}"), id).await;
        session.harness.child.send(&result(id)).await;
        rest(&reader).await;
        session.harness.child.exit_with(well);
        session.harness.child.close_stdout();
        assert_eq!(bounded(session.lost.recv()).await, Some((End::Exited(well), 0)));
        session.good_child(next).await;
    }
    session.harness.child.exit_with(well);
    session.harness.child.close_stdout();
    assert_eq!(bounded(session.lost.recv()).await, Some((End::Exited(well), 1)), "it was of no use");
    session.good_child("8").await;
    let reader = session.harness.call("19", "9").await;
    session.harness.child.send(&result("9")).await;
    rest(&reader).await;
    assert_eq!(session.die().await, (End::Exited(DIED), 2), "this is no good order");
}

// Calls that a new child is sent again.

/// A call of a tool, with the argument 1.
fn call_of(id: &str, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":[1]}}}}"#
    )
}

impl Respawning {
    /// The first child has answered a call each of two tools whose calls are restored, under the ids 2 and 3.
    async fn remembering() -> Self {
        let restore = Some(["open".into(), "mode".into()].into());
        let limits = Limits { respawn: true, restore, ..CONFIG.limits };
        let mut session = Self::open_with(Config { limits, ..CONFIG }).await;
        for (id, tool) in [("2", "open"), ("3", "mode")] {
            let reader = session.harness.post(&call_of(&format!("1{id}"), tool)).await;
            session.harness.child.expect(&call_of(id, tool)).await;
            session.harness.child.send(&result(id)).await;
            rest(&reader).await;
        }
        session
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_child_is_sent_the_calls_that_made_the_old_one_what_it_was_and_then_what_waited() {
    let mut session = Respawning::remembering().await;
    session.die().await;
    let later = session.harness.post(&call("8", "8")).await;
    session.good_child("4").await;
    session.harness.child.expect(&call_of("6", "open")).await;
    settle().await;
    session.harness.child.send(&result("6")).await;
    session.harness.child.expect(&call_of("7", "mode")).await;
    assert_eq!(available(&later).await, [""; 0], "it waits until the last one is answered");
    session.harness.child.send(&result("7")).await;
    session.harness.child.expect(&call("5", "8")).await;
    session.harness.child.send(&result("5")).await;
    assert_eq!(rest(&later).await, answered(4, "8"), "and nothing of the others reaches the client");
}

#[tokio::test(start_paused = true)]
async fn a_new_child_that_does_not_answer_such_a_call_serves_all_the_same() {
    let mut session = Respawning::remembering().await;
    session.die().await;
    let later = session.harness.post(&call("8", "8")).await;
    session.good_child("4").await;
    session.harness.child.expect(&call_of("6", "open")).await;
    let asked = Instant::now();
    session.harness.child.expect(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":6,"reason":"the request timed out"}}"#,
    ).await;
    assert!((secs(10)..secs(11)).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    session.harness.child.expect(&call_of("7", "mode")).await;
    session.harness.child.send(r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"no"}}"#).await;
    session.harness.child.expect(&call("5", "8")).await;
    session.harness.child.send(&result("5")).await;
    assert_eq!(rest(&later).await, answered(4, "8"));
}

#[tokio::test(start_paused = true)]
async fn children_that_die_of_such_calls_are_replaced_until_none_is_left_and_what_waits_is_served_then() {
    let mut session = Respawning::remembering().await;
    assert_eq!(session.die().await, (End::Exited(DIED), 1));
    let later = session.harness.post(&call("8", "8")).await;
    session.good_child("4").await;
    session.harness.child.expect(&call_of("6", "open")).await;
    assert_eq!(session.die().await, (End::Exited(DIED), 2), "the pause before the next one grows");
    session.good_child("7").await;
    session.harness.child.expect(&call_of("8", "mode")).await;
    assert_eq!(session.die().await, (End::Exited(DIED), 3));
    session.good_child("9").await;
    session.harness.child.expect(&call("5", "8")).await;
    session.harness.child.send(&result("5")).await;
    assert_eq!(rest(&later).await, answered(4, "8"), "it had been sent to none of them");
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_in_order_while_its_child_is_sent_such_calls() {
    let mut session = Respawning::remembering().await;
    session.die().await;
    let waiting = session.harness.post(&call("8", "8")).await;
    session.good_child("4").await;
    session.harness.child.expect(&call_of("6", "open")).await;
    session.harness.session.end(End::Deleted);
    assert_eq!(rest(&waiting).await, failed(4, "8", "Ended(Deleted)"));
    assert_eq!(session.harness.ended().await, End::Deleted);
}
