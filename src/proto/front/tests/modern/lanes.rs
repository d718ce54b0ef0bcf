//! Sessions with lanes to a child of 2026-07-28.

use super::*;
use crate::proto::front::modern::{LANE_MARGIN, MAX_OF_LANES};

/// A session whose child serves the lanes 10 and 11, and whoever else comes.
fn joined_for(strangers: bool) -> Harness<Modern> {
    let mut session = open_for(strangers);
    session.front.join(StreamId(10));
    session.front.join(StreamId(11));
    session
}

fn joined() -> Harness<Modern> {
    joined_for(true)
}

/// What a client asks the child that knows the request as `seen`.
fn seen(session: &mut Harness<Modern>, text: &str, seen: &str) {
    assert_eq!(session.stdin(), [text], "the child knows it as {seen}");
}

#[test]
fn a_lane_has_its_own_ids_and_no_answer_ends_it() {
    let text = |id: &str, token: &str| {
        format!(
            r#" {{ "params" : {{ "_meta" : {{ "progressToken" : {token} , {META} }} }} , "method" : "x/y" , "id" : {id} , "jsonrpc" : "2.0" }} "#
        )
    };
    for id in NAMES {
        let mut session = joined();
        for (stream, child) in [(10, "2"), (11, "3"), (12, "4")] {
            assert_eq!(session.client(stream, &text(id, "\"t\"")), Ok(None));
            seen(&mut session, &text(child, child), child);
        }
        for (stream, child) in [(12, "4"), (10, "2"), (11, "3")] {
            assert_eq!(session.child(&progress(child, 1)), event(stream, &progress("\"t\"", 1)));
            assert_eq!(session.child(&result(child)), answer(stream, &result(id)));
            assert_eq!(session.child(&result(child)), dropped(Dropped::Late));
            session.front.check();
        }
        assert_eq!(session.client(10, &text(id, "1")), Ok(None), "the lane goes on, and the id is free");
        assert!(session.front.has_lanes());
    }
}

#[test]
fn a_second_request_with_an_id_of_the_same_lane_changes_nothing() {
    let mut session = joined();
    let call = session.call(10, "7");
    let listen = session.listen(10, "8");
    for text in [request("7", "x"), request("8", "x"), listening("7")] {
        let told = session.unchanged(|session| session.client(10, &text));
        assert!(matches!(told, Err(Refusal::DuplicateId(_))), "{told:?}");
    }
    assert_eq!(session.child(&result(&call)), answer(10, &result("7")));
    assert_eq!(session.child(&ended(&listen)), answer(10, &ended("8")));
    session.assert_nothing_in_flight();
}

#[test]
fn a_lane_cancels_its_own_call_and_no_other() {
    for id in NAMES {
        let mut session = joined();
        let (own, other) = (session.call(10, id), session.call(11, id));
        let over_http = session.call(12, id);
        let text = r#"{"params":{"reason":"x", "requestId" : @ },"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
        assert_eq!(session.client(10, &text.replace('@', id)), Ok(None));
        assert_eq!(session.stdin(), [text.replace('@', &own)]);
        session.front.check();
        assert_eq!(session.front.in_flight(), 3, "the answer may be on its way");
        assert!(matches!(
            session.client(10, &text.replace('@', id)),
            Ok(Some(Output::Note(Note::Swallowed(_))))
        ));
        assert_eq!(session.child(&result(&own)), answer(10, &result(id)));
        for (stream, seen) in [(11, other), (12, over_http)] {
            assert_eq!(session.child(&result(&seen)), answer(stream, &result(id)));
        }
        session.assert_nothing_in_flight();
    }
    let mut session = joined();
    session.call(10, "7");
    session.client(10, &cancel("7")).unwrap();
    assert_eq!(session.at(CANCEL_GRACE), [unanswered(10, "7", Unanswered::Cancelled)]);
    session.assert_nothing_in_flight();
}

#[test]
fn a_cancellation_that_names_no_request_of_its_lane_goes_no_further() {
    let mut session = joined();
    let own = session.call(10, "\"a\"");
    let listen = session.listen(10, "\"b\"");
    session.call(11, "\"c\"");
    session.call(12, "\"d\"");
    let nameless = note("notifications/cancelled");
    let texts =
        [own, listen, "\"c\"".into(), "\"d\"".into(), "1".into(), "null".into()].map(|id| cancel(&id));
    for text in texts.into_iter().chain([nameless]) {
        let told = session.unchanged(|session| session.client(10, &text));
        assert!(matches!(told, Ok(Some(Output::Note(Note::Swallowed(_))))), "{text}: {told:?}");
    }
}

#[test]
fn what_a_lane_cancels_before_the_child_serves_the_child_never_sees() {
    let mut session = starting_with(LIMITS, true);
    session.front.join(StreamId(10));
    session.stdin();
    session.client(10, &asking("7", "server/discover", "")).unwrap();
    session.client(10, &asking("8", "tools/call", "")).unwrap();
    session.client(10, &listening("9")).unwrap();
    let told = session.client(10, &cancel("8"));
    assert_eq!(told, Ok(Some(unanswered(10, "8", Unanswered::Cancelled))));
    assert_eq!(session.client(10, &cancel("9")), Ok(None), "a subscription has no answer then");
    assert_eq!(session.child(&result("1")), None);
    assert_eq!(session.stdin(), [asking("2", "server/discover", "")], "and the first request has waited");
    assert_eq!(session.child(&result("2")), answer(10, &result("7")));
    session.assert_nothing_in_flight();
}

#[test]
fn a_lane_ends_a_subscription_at_once() {
    let mut session = joined();
    let (own, other) = (session.listen(10, "7"), session.listen(11, "7"));
    let changed = "notifications/prompts/list_changed";
    assert_eq!(session.client(10, &cancel("7")), Ok(None));
    assert_eq!(session.stdin(), [cancel(&own)]);
    session.front.check();
    let late = [
        (of_subscription(changed, &own), Dropped::Unrelated),
        (cancel(&own), Dropped::Unrelated),
        (ended(&own), Dropped::Late),
    ];
    for (text, why) in late {
        assert_eq!(session.child(&text), dropped(why), "{text}");
    }
    let told = session.child(&of_subscription(changed, &other));
    assert_eq!(told, event(11, &of_subscription(changed, "7")));
    assert_eq!(session.at(secs(1000)), [], "nothing is left to end");
    let again = session.listen(10, "7");
    let told = session.child(&of_subscription(changed, &again));
    assert_eq!(told, event(10, &of_subscription(changed, "7")));
}

#[test]
fn a_child_ends_a_subscription_of_a_lane_as_over_stdio() {
    for id in NAMES {
        let mut session = joined();
        let first = session.listen(10, id);
        let acknowledged = "notifications/subscriptions/acknowledged";
        let told = session.child(&of_subscription(acknowledged, &first));
        assert_eq!(told, event(10, &of_subscription(acknowledged, id)));
        let text =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"reason":"é", "requestId" :@}}"#;
        let told = session.child(&text.replace('@', &first));
        assert_eq!(told, event(10, &text.replace('@', id)));
        session.assert_nothing_in_flight();
        let second = session.listen(10, id);
        assert_eq!(session.child(&ended(&second)), answer(10, &ended(id)));
        session.assert_nothing_in_flight();
    }
}

#[test]
fn a_lane_that_leaves_takes_along_all_that_it_has_asked_and_nobody_is_told() {
    let mut session = joined();
    let gone = [session.call(10, "7"), session.call(10, "8"), session.listen(10, "9")];
    let (other, over_http) = (session.call(11, "7"), session.call(12, "7"));
    assert_eq!(left(&mut session, 10), []);
    let told: Vec<_> = session
        .stdin()
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["params"]["requestId"].to_string())
        .collect();
    assert_eq!(told, gone);
    session.front.check();
    assert!(session.front.has_lanes());
    assert_eq!(session.child(&result(&gone[0])), dropped(Dropped::Late));
    assert_eq!(session.child(&of_subscription("x", &gone[2])), dropped(Dropped::Unrelated));
    assert_eq!(session.child(&error("null")), dropped(Dropped::UnknownId), "it may be for who has left");
    for (stream, seen) in [(11, other), (12, over_http)] {
        assert_eq!(session.child(&result(&seen)), answer(stream, &result("7")));
    }
    assert_eq!(left(&mut session, 11), []);
    assert!(!session.front.has_lanes());
    session.assert_nothing_in_flight();
}

#[test]
fn a_session_sees_to_its_deadline_itself_and_the_server_only_later() {
    let mut session = joined();
    let (of_lane, over_http) = (session.call(10, "7"), session.call(12, "7"));
    assert_eq!(session.at(secs(100)), [unanswered(12, "7", Unanswered::Timeout)]);
    assert_eq!(session.line()["params"]["requestId"].to_string(), over_http);
    assert_eq!(session.at(secs(100) + LANE_MARGIN - secs(1)), []);
    assert_eq!(session.at(secs(100) + LANE_MARGIN), [unanswered(10, "7", Unanswered::Timeout)]);
    assert_eq!(session.line()["params"]["requestId"].to_string(), of_lane);
    session.assert_nothing_in_flight();
}

#[test]
fn lanes_take_no_place_of_other_clients_nor_those_of_theirs() {
    let mut session = joined();
    for number in 0..20 {
        session.call(10 + number % 2, &number.to_string());
        session.listen(10 + number % 2, &(100 + number).to_string());
    }
    let overload = |stream| Ok(Some(unanswered(stream, "7", Unanswered::Overload)));
    for stream in 20..24 {
        session.call(stream, "7");
        session.listen(stream + 10, "7");
    }
    assert_eq!(session.client(40, &request("7", "x")), overload(40));
    assert_eq!(session.client(40, &listening("7")), overload(40));
    session.call(10, "200");
    session.listen(11, "200");
    session.front.check();
}

#[test]
fn what_all_lanes_ask_together_is_bounded() {
    let mut session = joined();
    for number in 0..MAX_OF_LANES {
        assert_eq!(session.client(10 + number as u64 % 2, &request(&number.to_string(), "x")), Ok(None));
    }
    let overload = Ok(Some(unanswered(10, "\"a\"", Unanswered::Overload)));
    assert_eq!(session.client(10, &request("\"a\"", "x")), overload);
    assert_eq!(session.client(10, &listening("\"a\"")), Ok(None), "a subscription is no call");
    assert_eq!(session.child(&result("2")), answer(10, &result("0")));
    assert_eq!(session.client(10, &request("\"b\"", "x")), Ok(None));
    session.front.check();
}

#[test]
fn a_lane_has_no_headers_that_its_calls_could_be_compared_with() {
    let mut session = joined();
    session.front.forgets_tools();
    let call = |id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{{META}}},"name":"a","arguments":{{"x":"1"}}}}}}"#
        )
    };
    assert_eq!(session.client(10, &call("7")), Ok(None));
    assert_eq!(session.stdin(), [call("2")], "nor is the child asked for its tools");
}

#[test]
fn what_sessions_had_is_declined_to_a_lane_and_what_else_it_says_passes() {
    let mut session = joined();
    for method in ["initialize", "ping", "logging/setLevel"] {
        let declined = unanswered(10, "7", Unanswered::Declined(Declined::Method));
        assert_eq!(session.client(10, &request("7", method)), Ok(Some(declined)), "{method}");
    }
    let told = session.unchanged(|session| session.client(10, &note("notifications/initialized")));
    assert!(matches!(told, Ok(Some(Output::Note(Note::Swallowed(_))))));
    assert_eq!(session.client(10, &result("7")), Err(Refusal::UnknownResponse));
    assert!(session.stdin().is_empty());
    assert_eq!(session.client(10, &note("x/y")), Ok(None));
    assert_eq!(session.stdin(), [note("x/y")]);
    session.assert_nothing_in_flight();
}

#[test]
fn a_log_message_is_of_the_lane_that_has_all_calls() {
    let logged_call = |session: &mut Harness<Modern>, stream, id: &str| {
        session.call_with(stream, Takes::Events, &logged(id))
    };
    let mut session = joined();
    let first = logged_call(&mut session, 10, "7");
    session.call(10, "8");
    assert_eq!(session.child(&log("a")), event(10, &log("a")), "whichever of its calls it is of");
    session.listen(11, "7");
    assert_eq!(session.child(&log("a")), event(10, &log("a")), "a subscription is no call");
    for stream in [11, 12] {
        let other = logged_call(&mut session, stream, "9");
        assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated), "it may be of {stream}");
        session.child(&result(&other));
    }
    let cancelled = logged_call(&mut session, 11, "9");
    session.client(11, &cancel("9")).unwrap();
    assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated), "the child may be at work on it yet");
    session.child(&result(&cancelled));
    assert_eq!(session.child(&log("a")), event(10, &log("a")));
    session.child(&result(&first));
    assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated), "what is left has not asked");
    // One that has left may be spoken of.
    logged_call(&mut session, 10, "7");
    logged_call(&mut session, 11, "9");
    left(&mut session, 11);
    assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated));
    session.now += CANCEL_GRACE;
    assert_eq!(session.child(&log("a")), event(10, &log("a")));
    // Two over HTTP are two.
    let mut session = joined();
    logged_call(&mut session, 12, "7");
    logged_call(&mut session, 13, "7");
    assert_eq!(session.child(&log("a")), dropped(Dropped::Unrelated));
    // Those who are no strangers share.
    let mut session = joined_for(false);
    logged_call(&mut session, 10, "7");
    session.call(11, "7");
    assert_eq!(session.child(&log("a")), event(10, &log("a")));
}

#[test]
fn subscriptions_of_lanes_stay_when_others_are_ended_and_end_with_the_child() {
    let mut session = joined();
    let own = session.listen(10, "7");
    session.call(10, "8");
    session.listen(12, "7");
    session.front.farewell(&mut session.out);
    assert_eq!(session.outputs(), [answer(12, &ended("7")).unwrap()]);
    let told = session.child(&of_subscription("x", &own));
    assert_eq!(told, event(10, &of_subscription("x", "7")));
    assert_eq!(session.front.abandon(), ["7", "8"].map(|id| (StreamId(10), client_id(id))));
    session.front.check();
}

#[test]
fn a_call_that_is_sent_again_is_cancelled_under_its_newest_id() {
    let ready = Readiness {
        delay: Duration::ZERO,
        refusal: Some(regex_lite::Regex::new("not ready").unwrap().into()),
        timeout: secs(30),
    };
    let mut session = starting_with(Limits { ready, ..LIMITS }, true);
    session.front.join(StreamId(10));
    session.child(&result("1"));
    session.stdin();
    let first = session.call(10, "7");
    let refusal = error(&first).replace("\"message\":\"", "\"message\":\"not ready ");
    assert_eq!(session.child(&refusal), Some(Output::Note(Note::NotReady)));
    session.front.check();
    while session.stdin().is_empty() {
        session.at(session.now + Duration::from_millis(100));
    }
    session.client(10, &cancel("7")).unwrap();
    let told = session.line()["params"]["requestId"].to_string();
    assert_ne!(told, first);
    assert_eq!(session.child(&result(&told)), answer(10, &result("7")));
    session.assert_nothing_in_flight();
}

/// What happens next, to the request or lane of this number.
#[derive(Clone, Copy, Debug)]
enum Act {
    Call(u64, usize),
    Listen(u64, usize),
    Cancel(u64, usize),
    Answer(usize),
    EndListen(usize),
    Leave(u64),
    Wait(u64),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (10..14_u64, 0..3_usize).prop_map(|(lane, id)| Act::Call(lane, id)),
        2 => (10..14_u64, 0..3_usize).prop_map(|(lane, id)| Act::Listen(lane, id)),
        3 => (10..14_u64, 0..3_usize).prop_map(|(lane, id)| Act::Cancel(lane, id)),
        3 => (0..30_usize).prop_map(Act::Answer),
        1 => (0..30_usize).prop_map(Act::EndListen),
        1 => (10..14_u64).prop_map(Act::Leave),
        1 => (0..200_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_lanes_do_each_request_of_theirs_ends_once_and_for_its_lane(
        acts in proptest::collection::vec(any_act(), 0..60),
    ) {
        let mut session = open();
        // What each lane waits for, and what that is.
        let mut waiting: BTreeMap<(u64, usize), bool> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Call(lane, id) | Act::Listen(lane, id) => {
                    session.front.join(StreamId(lane));
                    let listens = matches!(act, Act::Listen(..));
                    let name = id.to_string();
                    let text = if listens { listening(&name) } else { asking(&name, "x", "") };
                    let told = session.client(lane, &text);
                    match waiting.contains_key(&(lane, id)) {
                        true => prop_assert!(matches!(told, Err(Refusal::DuplicateId(_)))),
                        false => {
                            prop_assert_eq!(told, Ok(None));
                            waiting.insert((lane, id), listens);
                        }
                    }
                }
                Act::Cancel(lane, id) => {
                    session.front.join(StreamId(lane));
                    let told = session.client(lane, &cancel(&id.to_string())).unwrap();
                    prop_assert!(told.is_none_or(|told| matches!(told, Output::Note(_))));
                    if waiting.get(&(lane, id)) == Some(&true) {
                        waiting.remove(&(lane, id));
                    }
                }
                Act::Answer(number) => drop(session.is_message(&result(&number.to_string()))),
                Act::EndListen(number) => drop(session.is_message(&cancel(&number.to_string()))),
                Act::Leave(lane) => {
                    prop_assert_eq!(left(&mut session, lane), []);
                    waiting.retain(|(of, _), _| *of != lane);
                }
                Act::Wait(seconds) => {
                    session.now += secs(seconds);
                    session.front.expire(session.now, &|_| Readership::Present, &mut session.out);
                }
            }
            for output in session.outputs() {
                let (stream, id) = match output {
                    Output::Answer { stream, message, .. } => {
                        (stream, serde_json::from_slice::<Value>(&message).unwrap()["id"].to_string())
                    }
                    Output::Message { stream, message } => {
                        let message: Value = serde_json::from_slice(&message).unwrap();
                        (stream, message["params"]["requestId"].to_string())
                    }
                    Output::Unanswered { stream, id, .. } => (stream, id.0.as_json().to_owned()),
                    _ => continue,
                };
                let ended = waiting.remove(&(stream.0, id.parse().unwrap()));
                prop_assert!(ended.is_some(), "{:?} of {:?} ends once", id, stream);
            }
            session.front.check();
            let calls = waiting.values().filter(|listens| !**listens).count();
            prop_assert_eq!(session.front.in_flight(), calls);
        }
    }
}
