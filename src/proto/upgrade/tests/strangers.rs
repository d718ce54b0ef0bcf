//! Clients that are strangers to each other: what is not clearly of one's own call reaches nobody.

use super::*;
use crate::proto::lingering::{LINGER, MAX_LINGERING};
use crate::proto::link::OWN_LIMIT;
use crate::proto::link::Readiness;
use crate::proto::questions::CLEAR_WITHIN;
use crate::proto::testing::cancel;
use questions::ASKED;

/// The child is at work on a call of two clients each: their ids at the child.
fn two(strangers: bool) -> (Harness<Upgrade>, String, String) {
    let mut session = Harness::shared(strangers);
    let one = session.passed(2, &Ask::able("7"));
    let other = session.passed(3, &Ask::able("7"));
    (session, one, other)
}

#[test]
fn a_question_waits_until_the_others_call_has_ended_and_then_reaches_the_right_one() {
    for (ends, asks) in [(2, 3), (3, 2)] {
        let (mut session, one, other) = two(STRANGERS);
        assert_eq!(session.says(&elicitation("\"q\"", "?")), []);
        assert_eq!(session.gathered(), [], "it may be either's");
        assert!(session.front.held_bytes() > 0, "it is counted while it waits");
        let (ended, goes_on) = if ends == 2 { (one, other) } else { (other, one) };
        session.says(&child_result(&ended, ""));
        let state = session.asked(asks, "7", &[("elicitation_1", &elicited("?"))]);
        session.send(4, &Ask::able("7").again("8", &state, &format!(r#""elicitation_1":{ACCEPTED}"#)));
        let want = format!(r#"{{"jsonrpc":"2.0","id":"q","result":{ACCEPTED}}}"#);
        assert_eq!(session.stdin(), [want]);
        session.says(&child_result(&goes_on, ""));
        session.assert_empty();
    }
}

#[test]
fn a_call_that_fails_has_ended_too() {
    let (mut session, one, _) = two(STRANGERS);
    session.says(&elicitation("1", "?"));
    session.says(&error(&one));
    session.asked(3, "7", &[("elicitation_1", &elicited("?"))]);
}

#[test]
fn an_answer_that_nobody_can_take_ends_its_call_as_well() {
    for kind in 0..2 {
        let (mut session, one, _) = two(STRANGERS);
        session.says(&elicitation("1", "?"));
        if kind == 0 {
            session.too_long(&format!(r#"{{"jsonrpc":"2.0","id":{one},"result":["#));
        } else {
            session.broken(&format!(r#"{{"jsonrpc":"2.0","id":{one},"result":{{}},"error":{{}}}}"#));
        }
        session.asked(3, "7", &[("elicitation_1", &elicited("?"))]);
    }
}

#[test]
fn questions_of_which_it_does_not_become_clear_whose_they_are_are_refused_each_after_its_time() {
    let (mut session, one, other) = two(STRANGERS);
    session.says(&elicitation("1", "?"));
    session.pass(secs(1));
    session.says(&question("\"2\"", "roots/list", ""));
    session.at(CLEAR_WITHIN - Duration::from_nanos(1));
    assert!(session.stdin().is_empty());
    session.at(CLEAR_WITHIN);
    assert_eq!(session.stdin(), [refusal_of("1", UNCLEAR)]);
    session.at(CLEAR_WITHIN + secs(1));
    assert_eq!(session.stdin(), [refusal_of("\"2\"", UNCLEAR)]);
    for (stream, wire) in [(2, one), (3, other)] {
        let told = session.says(&child_result(&wire, ""));
        assert_eq!(told, [answer(stream, &complete("7", "")).unwrap()]);
    }
    session.assert_empty();
}

#[test]
fn a_question_among_three_waits_for_two_ends() {
    let (mut session, one, other) = two(STRANGERS);
    session.passed(4, &Ask::able("9"));
    session.says(&elicitation("1", "?"));
    session.says(&child_result(&one, ""));
    assert_eq!(session.gathered(), []);
    session.says(&child_result(&other, ""));
    session.asked(4, "9", &[("elicitation_1", &elicited("?"))]);
}

#[test]
fn a_call_that_begins_after_the_question_has_not_asked_it() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "?"));
    session.passed(3, &Ask::able("9"));
    session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
}

#[test]
fn a_question_that_turns_out_to_be_of_a_client_that_cannot_be_asked_is_refused() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.passed(3, &Ask::tool("7"));
    session.says(&elicitation("1", "?"));
    session.says(&child_result(&wire, ""));
    assert_eq!(session.stdin(), [refusal_of("1", UNSERVED)]);
}

#[test]
fn a_question_may_be_of_a_request_that_cannot_ask_and_then_reaches_nobody() {
    let mut session = Harness::shared(STRANGERS);
    let list = session.passed(2, &Ask { method: "resources/list", ..Ask::able("7") });
    let call = session.passed(3, &Ask::able("7"));
    session.says(&elicitation("1", "?"));
    assert_eq!(session.gathered(), [], "servers of the session era ask whenever they like");
    session.says(&child_result(&list, ""));
    session.asked(3, "7", &[("elicitation_1", &elicited("?"))]);
    session.says(&child_result(&call, ""));
    session.stdin();
    session.passed(4, &Ask { method: "resources/list", ..Ask::able("7") });
    let call = session.passed(5, &Ask::able("7"));
    session.says(&elicitation("2", "?"));
    session.says(&child_result(&call, ""));
    assert_eq!(session.stdin(), [refusal_of("2", NOBODYS)]);
}

// Calls that have ended for their clients and may not have for the child.

#[test]
fn a_call_whose_client_has_gone_counts_until_the_child_has_answered_it() {
    let (mut session, one, _) = two(STRANGERS);
    session.leave(2);
    session.stdin();
    session.says(&elicitation("1", "?"));
    assert_eq!(session.gathered(), [], "the child may still be at work on it");
    assert_eq!(told(session.says(&child_result(&one, ""))), []);
    session.asked(3, "7", &[("elicitation_1", &elicited("?"))]);
}

#[test]
fn a_question_of_a_call_whose_client_has_gone_is_answered_in_its_place() {
    let mut session = Harness::shared(STRANGERS);
    for stream in [2, 3] {
        session.passed(stream, &Ask::able("7"));
        session.leave(stream);
        session.stdin();
        session.says(&elicitation("1", "?"));
        assert_eq!(session.stdin(), [given_up("1")]);
    }
}

#[test]
fn a_call_that_ended_without_an_answer_counts_for_some_time() {
    for times_out in [true, false] {
        let mut session = Harness::shared(STRANGERS);
        session.passed(2, &Ask::able("7"));
        let ends = if times_out { UPGRADED.request_timeout } else { Duration::ZERO };
        session.at(ends);
        session.leave(2);
        session.stdin();
        session.passed(3, &Ask::able("8"));
        session.pass(LINGER - Duration::from_nanos(1));
        session.says(&elicitation("1", "?"));
        assert_eq!(told(session.pass(CLEAR_WITHIN)), []);
        assert_eq!(session.stdin(), [refusal_of("1", UNCLEAR)], "it may be of the one that has ended");
        session.says(&elicitation("2", "?"));
        session.asked(3, "8", &[("elicitation_1", &elicited("?"))]);
    }
}

#[test]
fn who_leaves_often_does_not_make_the_bridge_forget_anothers_call() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(1, &Ask::able("7"));
    session.leave(1);
    let mut left = Vec::new();
    for stream in 2..2 + MAX_LINGERING as u64 {
        left.push(session.passed(stream, &Ask::able("7")));
        session.leave(stream);
    }
    for wire in left {
        session.says(&child_result(&wire, ""));
    }
    let wire = session.passed(9999, &Ask::able("7").level("debug"));
    session.stdin();
    session.says(&elicitation("1", "?"));
    assert_eq!(session.stdin(), [refusal_of("1", UNCLEAR)]);
    assert_eq!(session.says(LOG), nobody());
    session.pass(LINGER.max(OWN_LIMIT));
    assert_eq!(session.says(LOG), [event(9999, LOG).unwrap()]);
    session.says(&child_result(&wire, ""));
    session.assert_empty();
}

#[test]
fn an_answer_that_lost_its_id_is_given_to_nobody_while_it_may_be_a_late_one() {
    for text in [r#"{"jsonrpc":"2.0","id":null,"result":{"secret":1}}"#, r#"{"jsonrpc":"2.0","error":{}}"#] {
        let mut session = Harness::shared(STRANGERS);
        session.passed(2, &Ask::able("7"));
        session.leave(2);
        let wire = session.passed(3, &Ask::able("8"));
        let told = session.says(text);
        let line = session.line();
        let cancelled = (&line["method"], line["params"]["requestId"].to_string());
        assert_eq!(cancelled, (&"notifications/cancelled".into(), wire));
        let [Output::Unanswered { stream: StreamId(3), why: Unanswered::Invalid(_), .. }] = &told[..] else {
            panic!("{told:?}");
        };
        session.pass(LINGER);
        session.passed(4, &Ask::able("9"));
        assert!(matches!(&session.says(text)[..], [Output::Answer { stream: StreamId(4), .. }]));
        session.assert_empty();
    }
}

// Calls whose clients have been asked.

#[test]
fn a_call_that_waits_for_its_client_has_not_asked_what_comes_later() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    session.asked(2, "7", &[("elicitation_1", &elicited("a"))]);
    session.passed(3, &Ask::able("8"));
    session.says(&elicitation("2", "b"));
    assert_eq!(session.pass(ASKED - Duration::from_nanos(1)), [], "it may ask more at once");
    assert_eq!(session.pass(Duration::from_nanos(1)), []);
    session.asked(3, "8", &[("elicitation_1", &elicited("b"))]);
    session.passed(4, &Ask::able("9"));
    session.pass(ASKED);
    session.says(&elicitation("3", "c"));
    session.asked(4, "9", &[("elicitation_1", &elicited("c"))]);
}

#[test]
fn what_a_call_asks_at_once_is_not_anothers_because_the_first_question_is_out() {
    let mut session = Harness::shared(STRANGERS);
    let ask = Ask::able("7");
    session.passed(2, &ask);
    session.says(&elicitation("1", "a"));
    let other = session.passed(3, &Ask::able("8"));
    session.says(&elicitation("2", "b")); // of the first one too
    let state = session.asked(2, "7", &[("elicitation_1", &elicited("a"))]);
    assert_eq!(session.pass(ASKED), [], "it goes to nobody");
    session.says(&child_result(&other, ""));
    let told = session.send(4, &ask.again("9", &state, r#""elicitation_1":{}"#));
    asked(&told, 4, "9", &[("elicitation_2", &elicited("b"))]);
}

#[test]
fn a_call_that_has_waited_for_long_may_ask_several_things_at_once_again() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    session.asked(2, "7", &[("elicitation_1", &elicited("a"))]);
    session.pass(10 * ASKED);
    session.says(&cancel("1"));
    session.says(&elicitation("2", "b"));
    session.passed(3, &Ask::able("8"));
    session.says(&elicitation("3", "c")); // of the first one too
    assert_eq!(session.pass(ASKED), []);
    assert_eq!(session.pass(ASKED), [], "it goes to nobody");
}

#[test]
fn a_question_that_can_only_be_of_a_call_that_waits_for_its_client_is_asked_with_the_others() {
    let mut session = Harness::shared(STRANGERS);
    let ask = Ask::able("7");
    session.passed(2, &ask);
    session.says(&elicitation("1", "a"));
    let state = session.asked(2, "7", &[("elicitation_1", &elicited("a"))]);
    session.pass(10 * ASKED);
    session.says(&elicitation("2", "b"));
    assert!(session.stdin().is_empty());
    let told = session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#));
    asked(&told, 3, "8", &[("elicitation_2", &elicited("b"))]);
}

// What else may befall a question that waits.

#[test]
fn the_child_takes_back_a_question_that_waits() {
    let (mut session, one, _) = two(STRANGERS);
    session.says(&elicitation("1", "?"));
    session.says(&cancel("1"));
    session.says(&child_result(&one, ""));
    assert_eq!(session.gathered(), []);
    assert!(session.stdin().is_empty());
}

#[test]
fn questions_that_wait_are_bounded_in_number() {
    let (mut session, ..) = two(STRANGERS);
    for number in 0..64 {
        session.says(&elicitation(&number.to_string(), "?"));
    }
    assert!(session.stdin().is_empty());
    session.says(&elicitation("99", "?"));
    let why = "too many requests wait for it to become clear whose they are";
    assert_eq!(session.stdin(), [refusal_of("99", why)]);
}

#[test]
fn a_client_that_leaves_takes_no_question_from_the_other() {
    let (mut session, one, other) = two(STRANGERS);
    session.says(&elicitation("1", "?"));
    session.leave(3);
    assert_eq!(session.stdin(), [withdrawn(&other)]);
    session.says(&child_result(&other, ""));
    session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
    session.says(&child_result(&one, ""));
}

#[test]
fn a_question_of_a_call_that_is_broken_off_reaches_no_other() {
    let refusal =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":0,"message":"cancelled"}}}}"#);
    let is_error = |id: &str| child_result(id, r#""content":[],"isError":true"#);
    for answer in [&refusal as &dyn Fn(&str) -> String, &is_error] {
        let (mut session, one, other) = two(STRANGERS);
        session.says(&elicitation("1", "?"));
        session.leave(3);
        session.stdin();
        session.says(&answer(&other));
        let why = "it is unclear to which of several calls this belongs";
        assert_eq!(session.stdin(), [refusal_of("1", why)]);
        assert_eq!(session.gathered(), []);
        session.says(&child_result(&one, ""));
    }
}

#[test]
fn a_call_that_is_sent_again_may_still_have_asked() {
    let refusal = Some(std::sync::Arc::new(regex_lite::Regex::new("not ready").unwrap()));
    let ready = Readiness { delay: Duration::ZERO, refusal, timeout: secs(60) };
    let mut session = Harness::greeted(Limits { ready, ..UPGRADED }, STRANGERS, CAPABILITIES);
    let refused =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":1,"message":"not ready"}}}}"#);
    let one = session.passed(2, &Ask::able("7"));
    let other = session.passed(3, &Ask::able("8"));
    session.says(&elicitation("1", "?"));
    assert_eq!(told(session.says(&refused(&one))), []);
    session.says(&child_result(&other, ""));
    let state = session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
    session.pass(secs(1));
    let again = session.stdin().pop().expect("it is sent again");
    let again = serde_json::from_str::<Value>(&again).unwrap()["id"].to_string();
    assert_eq!(told(session.says(&refused(&again))), [], "and once more, while its client is away");
    session.send(4, &Ask::able("7").again("9", &state, r#""elicitation_1":{}"#));
    session.pass(secs(5));
    let last = session.stdin().pop().expect("it is sent again");
    let last = serde_json::from_str::<Value>(&last).unwrap()["id"].to_string();
    assert_eq!(session.says(&child_result(&last, "")), [answer(4, &complete("9", "")).unwrap()]);
    session.assert_empty();
}

// Those with one key.

#[test]
fn of_clients_with_one_key_the_newest_that_can_be_asked_it_is_asked() {
    let mut session = Harness::shared(KIN);
    session.passed(2, &Ask::able("6"));
    session.passed(3, &Ask::able("7"));
    session.passed(4, &Ask::tool("8"));
    session.says(&elicitation("1", "?"));
    session.asked(3, "7", &[("elicitation_1", &elicited("?"))]);
    session.says(&elicitation("2", "?"));
    session.asked(2, "6", &[("elicitation_1", &elicited("?"))]);
    session.says(&elicitation("3", "?"));
    assert!(session.stdin().is_empty(), "it waits for the newest that is away");
}

#[test]
fn of_clients_with_one_key_the_newest_is_told_what_none_can_be_asked() {
    let mut session = Harness::shared(KIN);
    let one = session.passed(2, &Ask::tool("7"));
    let other = session.passed(3, &Ask::tool("8"));
    session.says(&elicitation("1", "?"));
    let told = session.says(&error(&other));
    assert_eq!(told, [declined(3, "8", Declined::Capability(Capability::Elicitation))]);
    assert_eq!(session.says(&error(&one)), [answer(2, &error("7")).unwrap()]);
}

#[test]
fn of_clients_with_one_key_who_has_left_is_not_asked() {
    let (mut session, ..) = two(KIN);
    session.leave(3);
    session.says(&elicitation("1", "?"));
    session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
}

// Log lines.

const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":1}}"#;

fn nobody() -> [Output; 1] {
    [dropped(Dropped::Unrelated).unwrap()]
}

#[test]
fn a_log_line_reaches_nobody_while_it_may_be_anothers() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::tool("7").level("debug"));
    assert_eq!(session.says(LOG), [event(2, LOG).unwrap()]);
    let list = session.passed(3, &Ask::new("8", "resources/list"));
    assert_eq!(session.says(LOG), nobody(), "it may be about the list");
    session.leave(3);
    assert_eq!(session.says(LOG), nobody(), "the child may be at work on it");
    session.says(&child_result(&list, "")); // late
    assert_eq!(session.says(LOG), [event(2, LOG).unwrap()]);
}

#[test]
fn a_log_line_reaches_nobody_for_some_time_after_any_request_ended_without_an_answer() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::new("8", "resources/list"));
    session.leave(2);
    session.passed(3, &Ask::tool("7").level("debug"));
    assert_eq!(session.says(LOG), nobody());
    session.pass(LINGER);
    assert_eq!(session.says(LOG), [event(3, LOG).unwrap()]);
}

#[test]
fn a_log_line_reaches_the_newest_of_one_key_that_wants_it() {
    let mut session = Harness::shared(KIN);
    session.passed(2, &Ask::tool("7").level("debug"));
    session.passed(3, &Ask::tool("7").level("error"));
    session.passed(4, &Ask::tool("7").level("emergency"));
    session.passed(5, &Ask::tool("7"));
    assert_eq!(session.says(LOG), [event(3, LOG).unwrap()]);
    session.leave(3);
    assert_eq!(session.says(LOG), [event(2, LOG).unwrap()]);
}
