//! What the child asks before it answers, as the new revision has it: an answer that asks, and the request once more
//! (2026-07-28 `basic/patterns/mrtr`).

use super::*;
use crate::proto::testing::cancel;

const UNKNOWN: Declined = Declined::State("\"requestState\" is not known here, or has expired");

const OTHER: Declined =
    Declined::State("\"requestState\" belongs to another request: method and parameters must be the same");

fn reply(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A call whose client has been asked one thing, by the child under the id `"q"`: the call, its id at the child, the state.
fn asking(session: &mut Harness<Upgrade>, stream: u64) -> (Ask, String, String) {
    let ask = Ask::able("7");
    let wire = session.passed(stream, &ask);
    assert_eq!(session.says(&elicitation("\"q\"", "?")), []);
    let state = session.asked(stream, "7", &[("elicitation_1", &elicited("?"))]);
    (ask, wire, state)
}

#[test]
fn a_question_becomes_an_answer_and_the_next_request_goes_on_where_the_first_stopped() {
    for strangers in [STRANGERS, KIN] {
        let mut session = Harness::shared(strangers);
        let (ask, wire, state) = asking(&mut session, 2);
        assert_eq!(session.front.in_flight(), 0, "its request has ended");
        assert!(session.stdin().is_empty());
        let again = ask.again("\"b\"", &state, &format!(r#""elicitation_1":{ACCEPTED}"#));
        assert_eq!(session.send(3, &again), []);
        assert_eq!(session.stdin(), [reply("\"q\"", ACCEPTED)], "it is not called again");
        let told = session.says(&child_result(&wire, r#""content":[]"#));
        assert_eq!(told, [answer(3, &complete("\"b\"", r#""content":[]"#)).unwrap()]);
        session.assert_empty();
    }
}

#[test]
fn what_a_client_is_asked_is_what_the_child_asks_without_what_its_era_alone_knows() {
    // Method and parameters of the child, the key, method and parameters for the client.
    let table = [
        ("elicitation/create", r#"{"message":"m"}"#, "elicitation", r#"{"mode":"form","message":"m"}"#),
        ("elicitation/create", "{}", "elicitation", r#"{"mode":"form"}"#),
        ("elicitation/create", r#"{"mode":null,"a":1}"#, "elicitation", r#"{"mode":"form","a":1}"#),
        ("elicitation/create", r#"{"a":1,"mode":"form"}"#, "elicitation", r#"{"a":1,"mode":"form"}"#),
        (
            "elicitation/create",
            r#"{"mode":"url","elicitationId":"e","url":"u","_meta":{"x":1},"task":{"ttl":1}}"#,
            "elicitation",
            r#"{"mode":"url","url":"u"}"#,
        ),
        (
            "sampling/createMessage",
            r#"{"messages":[{ "a" : 1.50 }],"tools":[],"maxTokens":1}"#,
            "sampling",
            r#"{"messages":[{ "a" : 1.50 }],"tools":[],"maxTokens":1}"#,
        ),
        ("roots/list", r#"{"_meta":{"progressToken":1}}"#, "roots", "{}"),
    ];
    for (method, params, key, wanted) in table {
        let mut session = Harness::shared(STRANGERS);
        session.passed(2, &Ask::able("7"));
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        assert_eq!(session.says(&text), []);
        let question = format!(r#"{{"method":"{method}","params":{wanted}}}"#);
        session.asked(2, "7", &[(&format!("{key}_1"), &question)]);
    }
}

#[test]
fn a_question_without_parameters_has_none_for_its_client() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    session.says(&request("1", "roots/list"));
    session.asked(2, "7", &[("roots_1", r#"{"method":"roots/list","params":{}}"#)]);
}

#[test]
fn a_question_of_several_lines_is_asked_on_one() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    session.says("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\",\n\"params\":{\"a\":\r\n[1]}}");
    let question = r#"{"method":"roots/list","params":{"a":[1]}}"#;
    let told = session.gathered();
    let [Output::Answer { message, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(!message.contains(&b'\n') && !message.contains(&b'\r'));
    let value: Value = serde_json::from_slice(message).unwrap();
    let want: Value = serde_json::from_str(question).unwrap();
    assert_eq!(value["result"]["inputRequests"]["roots_1"], want);
}

#[test]
fn an_answer_of_several_lines_reaches_the_child_on_one() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, _, state) = asking(&mut session, 2);
    session.send(3, &ask.again("8", &state, "\"elicitation_1\"\n:{\n\"action\":\r\"decline\"\r\n}"));
    assert_eq!(session.stdin(), [reply("\"q\"", r#"{ "action": "decline"  }"#)]);
}

#[test]
fn what_the_child_asks_soon_after_is_asked_with_the_first() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    assert_eq!(session.pass(GATHER - Duration::from_nanos(1)), []);
    session.says(&question("2", "roots/list", ""));
    session.says(&elicitation("3", "c"));
    let told = session.pass(Duration::from_nanos(1));
    let roots = r#"{"method":"roots/list","params":{}}"#;
    let (a, c) = (elicited("a"), elicited("c"));
    let questions = [("elicitation_1", &*a), ("roots_2", roots), ("elicitation_3", &*c)];
    let state = asked(&told, 2, "7", &questions);
    let answers = format!(r#""roots_2":{{"roots":[]}},"elicitation_1":{ACCEPTED},"elicitation_3":{{}}"#);
    session.send(3, &Ask::able("8").again("8", &state, &answers));
    let want = [reply("1", ACCEPTED), reply("2", r#"{"roots":[]}"#), reply("3", "{}")];
    assert_eq!(session.stdin(), want);
    session.says(&child_result(&wire, ""));
    session.assert_empty();
}

#[test]
fn the_child_may_ask_again_when_it_has_been_answered() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, wire, mut state) = asking(&mut session, 2);
    for round in 2..6 {
        let key = format!("elicitation_{}", round - 1);
        let stream = round + 1;
        assert_eq!(session.send(stream, &ask.again("8", &state, &format!(r#""{key}":{{}}"#))), []);
        assert_eq!(session.stdin(), [reply("\"q\"", "{}")]);
        session.says(&elicitation("\"q\"", "more"));
        let key = format!("elicitation_{round}");
        let next = session.asked(stream, "8", &[(&key, &elicited("more"))]);
        assert_ne!(next, state, "each state is of use once");
        state = next;
    }
    session.send(9, &ask.again("9", &state, r#""elicitation_5":{}"#));
    assert_eq!(session.says(&child_result(&wire, "")), [answer(9, &complete("9", "")).unwrap()]);
    session.assert_empty();
}

#[test]
fn what_the_child_asks_while_its_client_is_away_is_asked_when_that_is_back() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, wire, state) = asking(&mut session, 2);
    session.says(&elicitation("2", "more"));
    assert_eq!(session.gathered(), [], "there is nobody to ask");
    let told = session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#));
    let state = asked(&told, 3, "8", &[("elicitation_2", &elicited("more"))]);
    assert_eq!(session.stdin(), [reply("\"q\"", "{}")]);
    session.send(4, &ask.again("9", &state, r#""elicitation_2":{}"#));
    assert_eq!(session.stdin(), [reply("2", "{}")]);
    session.says(&child_result(&wire, ""));
    session.assert_empty();
}

#[test]
fn what_was_not_answered_is_asked_again_and_what_was_not_asked_is_ignored() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    session.says(&elicitation("2", "b"));
    let (a, b) = (elicited("a"), elicited("b"));
    let state = session.asked(2, "7", &[("elicitation_1", &a), ("elicitation_2", &b)]);
    let some = Ask::able("8").again("8", &state, r#""elicitation_2":{"x":2},"elicitation_9":7,"other":[]"#);
    let told = session.send(3, &some);
    let state = asked(&told, 3, "8", &[("elicitation_1", &a)]);
    assert_eq!(session.stdin(), [reply("2", r#"{"x":2}"#)], "what was answered is passed on");
    let none = Ask::able("9").again("9", &state, "");
    let told = session.send(4, &none);
    let state = asked(&told, 4, "9", &[("elicitation_1", &a)]);
    assert!(session.stdin().is_empty());
    let twice = Ask::able("9").again("9", &state, r#""elicitation_2":{},"elicitation_1":{"x":1}"#);
    assert_eq!(session.send(5, &twice), []);
    assert_eq!(session.stdin(), [reply("1", r#"{"x":1}"#)], "an answer is given once");
    session.says(&child_result(&wire, ""));
    session.assert_empty();
}

#[test]
fn a_repetition_without_usable_answers_is_asked_again() {
    for responses in [r#""inputResponses":[]"#, r#""inputResponses":null"#, r#""x":1"#] {
        let mut session = Harness::shared(STRANGERS);
        let (ask, ..) = asking(&mut session, 2);
        let state = session.front.parked.running().into_iter().next().unwrap();
        let again = Ask { id: "8".into(), ..ask.with(&format!(r#"{responses},"requestState":"{state}""#)) };
        if responses.contains("\"x\"") {
            assert_eq!(session.send(3, &again), [declined(3, "8", OTHER)]);
        } else {
            asked(&session.send(3, &again), 3, "8", &[("elicitation_1", &elicited("?"))]);
        }
    }
}

#[test]
fn an_answer_that_is_no_object_is_refused_and_can_be_given_again() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, _, state) = asking(&mut session, 2);
    for value in ["7", "null", "[]", "\"x\""] {
        let again = ask.again("8", &state, &format!(r#""elicitation_1":{value}"#));
        let why = Declined::Params("each of \"inputResponses\" must be an object");
        assert_eq!(session.send(3, &again), [declined(3, "8", why)], "{value}");
    }
    session.send(4, &ask.again("8", &state, r#""elicitation_1":{}"#));
    assert_eq!(session.stdin(), [reply("\"q\"", "{}")]);
}

// States.

#[test]
fn a_state_that_was_never_given_is_refused_and_nothing_is_called() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, _, state) = asking(&mut session, 2);
    let other = format!("{}f", &state[..state.len() - 1]);
    for wrong in ["", "x", "mcp-bridge.", &state.to_uppercase(), &format!("{state} "), &other] {
        let told = session.send(3, &ask.again("8", wrong, r#""elicitation_1":{}"#));
        assert_eq!(told, [declined(3, "8", UNKNOWN)], "{wrong:?}");
    }
    let number = Ask { id: "8".into(), ..ask.clone().with(r#""requestState":7"#) };
    assert_eq!(session.send(3, &number), [declined(3, "8", UNKNOWN)]);
    assert!(session.stdin().is_empty());
    session.send(4, &ask.again("8", &state, r#""elicitation_1":{}"#));
    assert_eq!(session.stdin(), [reply("\"q\"", "{}")], "the right one is still good");
}

#[test]
fn a_state_is_of_use_to_the_caller_that_it_was_given_to() {
    let mirrored = |caller: Option<u8>| Mirrored { caller: caller.map(|byte| [byte; 32]), params: vec![] };
    for (one, other) in [(Some(1), Some(2)), (None, Some(1)), (Some(1), None)] {
        let mut session = Harness::shared(STRANGERS);
        let ask = Ask::able("7");
        assert_eq!(session.send_as(2, &ask, &mirrored(one), Takes::Events), []);
        session.says(&elicitation("1", "?"));
        let state = session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
        session.stdin();
        let again = ask.again("8", &state, r#""elicitation_1":{}"#);
        let told = session.send_as(3, &again, &mirrored(other), Takes::Events);
        assert_eq!(told, [declined(3, "8", UNKNOWN)], "it does not learn that there is one");
        assert!(session.stdin().is_empty());
        assert_eq!(session.send_as(4, &again, &mirrored(one), Takes::Events), []);
        assert_eq!(session.stdin(), [reply("1", "{}")]);
    }
}

#[test]
fn a_state_is_of_use_for_the_request_that_it_was_given_for() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, _, state) = asking(&mut session, 2);
    let others = [
        Ask::able("8").with(r#""arguments":{}"#),
        Ask { method: "prompts/get", ..ask.clone() },
        Ask { params: vec![r#""name":"u""#.to_owned()], ..ask.clone() },
    ];
    for other in others {
        let told = session.send(3, &other.again("8", &state, r#""elicitation_1":{}"#));
        assert_eq!(told, [declined(3, "8", OTHER)], "{other:?}");
    }
    let unable = Ask::new("8", "tools/list").with(&format!(r#""requestState":"{state}""#));
    assert_eq!(session.send(3, &unable), [], "which has no such thing");
    session.stdin();
    let moved = ask.meta(r#""progressToken":9"#).again("8", &state, r#""elicitation_1":{}"#);
    assert_eq!(session.send(4, &moved), [], "what is in `_meta` is of each request");
    assert_eq!(session.stdin(), [reply("\"q\"", "{}")]);
}

#[test]
fn the_head_of_a_repetition_must_say_what_its_arguments_say() {
    let mut session = Harness::greeted(UPGRADED, STRANGERS, WITH_TOOLS);
    let ask = Ask::able("7").with(r#""arguments":{"x":"1"}"#);
    let head = |value: &str| Mirrored { params: vec![("x".into(), value.as_bytes().into())], caller: None };
    assert_eq!(session.send_as(2, &ask, &head("1"), Takes::Events), []);
    session.stdin();
    let schema = r#"{"type":"object","properties":{"x":{"type":"string","x-mcp-header":"X"}}}"#;
    session.says(&child_result("2", &format!(r#""tools":[{{"name":"t","inputSchema":{schema}}}]"#)));
    assert_eq!(session.stdin().len(), 1, "it is called");
    session.says(&elicitation("\"q\"", "?"));
    let state = session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
    let again = ask.again("8", &state, &format!(r#""elicitation_1":{ACCEPTED}"#));
    for head in [head("2"), Mirrored::default()] {
        let refused = session.send_as(3, &again, &head, Takes::Events);
        let is_of_head = |output: &Output| {
            matches!(output, Output::Unanswered { why: Unanswered::Declined(Declined::Header(_)), .. })
        };
        assert!(refused.len() == 1 && refused.iter().all(is_of_head), "{refused:?}");
    }
    assert_eq!(session.send_as(4, &again, &head("1"), Takes::Events), []);
    assert_eq!(session.stdin(), [reply("\"q\"", ACCEPTED)], "the state was not used up");
}

#[test]
fn a_state_is_of_use_once() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, _, state) = asking(&mut session, 2);
    let again = ask.again("8", &state, r#""elicitation_1":{}"#);
    assert_eq!(session.send(3, &again), []);
    session.stdin();
    assert_eq!(session.send(4, &again), [declined(4, "8", UNKNOWN)]);
    assert!(session.stdin().is_empty());
}

#[test]
fn a_client_that_does_not_come_back_in_time_has_its_call_cancelled_and_its_question_answered() {
    let mut session =
        Harness::greeted(Limits { request_timeout: 10 * parked::PARK, ..UPGRADED }, STRANGERS, CAPABILITIES);
    let (ask, wire, state) = asking(&mut session, 2);
    session.says(&question("5", "sampling/createMessage", ""));
    session.says(&question("6", "roots/list", ""));
    assert_eq!(session.pass(parked::PARK - Duration::from_nanos(1)), []);
    assert!(session.stdin().is_empty());
    session.pass(Duration::from_nanos(1));
    let gone = r#""error":{"code":-32603,"message":"the client has not answered"}"#;
    let want = [
        withdrawn(&wire),
        given_up("\"q\""),
        format!(r#"{{"jsonrpc":"2.0","id":5,{gone}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":6,{gone}}}"#),
    ];
    assert_eq!(session.stdin(), want);
    let told = session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#));
    assert_eq!(told, [declined(3, "8", UNKNOWN)]);
    assert_eq!(session.says(&child_result(&wire, "")), [dropped(Dropped::Late).unwrap()]);
    session.assert_empty();
}

// What befalls a call whose client is away.

#[test]
fn an_answer_that_comes_while_its_client_is_away_waits_for_it() {
    let texts = [
        (child_result("2", "\"x\"\n:1"), complete("8", "\"x\" :1")),
        (error("2"), error("8")),
        (r#"{"jsonrpc":"2.0","error":{}}"#.to_owned(), r#"{"id":8,"jsonrpc":"2.0","error":{}}"#.to_owned()),
    ];
    for (text, want) in texts {
        let mut session = Harness::shared(STRANGERS);
        let (ask, _, state) = asking(&mut session, 2);
        assert_eq!(told(session.says(&text)), []);
        assert_eq!(session.stdin(), [given_up("\"q\"")], "the child waits for nothing any more");
        let other = ask.clone().with(r#""y":1"#).again("8", &state, "");
        assert_eq!(session.send(3, &other), [declined(3, "8", OTHER)]);
        let again = ask.again("8", &state, r#""elicitation_1":{}"#);
        assert_eq!(session.send(4, &again), [answer(4, &want).unwrap()]);
        assert!(session.stdin().is_empty());
        assert_eq!(session.send(5, &again), [declined(5, "8", UNKNOWN)], "once");
        session.assert_empty();
    }
}

#[test]
fn answers_whose_clients_do_not_come_back_are_forgotten() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, wire, state) = asking(&mut session, 2);
    session.says(&child_result(&wire, ""));
    assert!(session.front.held_bytes() > 0, "it is counted while it waits");
    assert_eq!(session.front.next_deadline().map(|at| at >= parked::PARK), Some(true));
    assert_eq!(session.pass(parked::PARK), []);
    session.assert_empty();
    let told = session.send(3, &ask.again("8", &state, ""));
    assert_eq!(told, [declined(3, "8", UNKNOWN)]);
}

#[test]
fn a_question_that_the_child_takes_back_is_asked_no_more() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    session.says(&elicitation("2", "b"));
    session.says(&cancel("1"));
    let state = session.asked(2, "7", &[("elicitation_2", &elicited("b"))]);
    session.says(&cancel("2"));
    session.says(&cancel("2"));
    let again = Ask::able("8").again("8", &state, r#""elicitation_2":{}"#);
    assert_eq!(session.send(3, &again), [], "it goes on all the same");
    assert!(session.stdin().is_empty(), "nobody waits for the answer");
    assert_eq!(session.says(&child_result(&wire, "")), [answer(3, &complete("8", "")).unwrap()]);
    session.assert_empty();
}

#[test]
fn a_call_whose_only_question_is_taken_back_goes_on_as_if_it_had_asked_nothing() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    session.says(&cancel("1"));
    assert_eq!(session.gathered(), []);
    session.says(&elicitation("1", "b"));
    session.says(&child_result("99", ""));
    assert_eq!(session.says(&child_result(&wire, "")).last(), answer(2, &complete("7", "")).as_ref());
    assert_eq!(session.gathered(), []);
    session.assert_empty();
}

#[test]
fn a_child_that_answers_before_its_client_was_asked_is_believed() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    assert_eq!(told(session.says(&child_result(&wire, ""))), [answer(2, &complete("7", "")).unwrap()]);
    assert_eq!(session.stdin(), [given_up("1")]);
    assert_eq!(session.gathered(), []);
    session.assert_empty();
}

#[test]
fn closing_a_response_that_has_asked_is_no_cancellation() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, wire, state) = asking(&mut session, 2);
    assert_eq!(session.leave(2), []);
    assert!(session.stdin().is_empty());
    session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#));
    assert_eq!(session.says(&child_result(&wire, "")), [answer(3, &complete("8", "")).unwrap()]);
}

#[test]
fn closing_the_response_of_a_repetition_cancels_the_call() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, wire, state) = asking(&mut session, 2);
    session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#));
    session.stdin();
    session.leave(2);
    assert!(session.stdin().is_empty(), "that one has ended");
    session.leave(3);
    assert_eq!(session.stdin(), [withdrawn(&wire)]);
}

#[test]
fn a_client_that_leaves_before_it_was_asked_has_its_question_answered() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "?"));
    session.leave(2);
    assert_eq!(session.stdin(), [withdrawn(&wire), given_up("1")]);
    assert_eq!(session.gathered(), []);
}

#[test]
fn a_call_that_times_out_while_its_client_is_away_is_not_there_when_that_is_back() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, wire, state) = asking(&mut session, 2);
    let ended = session.at(UPGRADED.request_timeout);
    assert_eq!(told(ended), [], "no request of its client waits");
    let lines = session.stdin();
    let [told_it, answered] = &lines[..] else { panic!("{lines:?}") };
    assert!(
        told_it.contains("notifications/cancelled") && told_it.contains(&format!(":{wire},")),
        "{told_it}"
    );
    assert_eq!(*answered, given_up("\"q\""));
    let told = session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#));
    assert_eq!(told, [declined(3, "8", UNKNOWN)]);
    session.assert_empty();
}

#[test]
fn an_answer_too_long_for_a_client_that_is_away_ends_its_call() {
    let mut session = Harness::shared(STRANGERS);
    let (ask, wire, state) = asking(&mut session, 2);
    let head = format!(r#"{{"jsonrpc":"2.0","id":{wire},"result":["#);
    assert_eq!(told(session.too_long(&head)), []);
    assert_eq!(session.stdin(), [given_up("\"q\"")]);
    let told = session.send(3, &ask.again("8", &state, ""));
    assert_eq!(told, [declined(3, "8", UNKNOWN)]);
    session.assert_empty();
}

#[test]
fn a_child_that_is_lost_takes_the_calls_along_whose_clients_are_away() {
    let mut session = Harness::shared(STRANGERS);
    asking(&mut session, 2);
    session.passed(3, &Ask::able("8"));
    session.says(&elicitation("9", "?"));
    assert_eq!(session.front.child_lost(), [(StreamId(3), client_id("8"))]);
    session.assert_empty();
}

#[test]
fn the_session_is_not_idle_while_a_client_is_away() {
    let mut session = Harness::shared(STRANGERS);
    assert!(!session.front.is_listening());
    let (ask, wire, state) = asking(&mut session, 2);
    assert!(session.front.is_listening());
    session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#));
    assert!(!session.front.is_listening());
    session.says(&child_result(&wire, ""));
    session.assert_empty();
}

// What a client can be asked.

#[test]
fn what_a_client_has_not_declared_is_refused_to_the_child_at_once_and_its_failure_is_explained() {
    let table = [
        ("{}", "elicitation/create", "", Capability::Elicitation),
        (r#"{"elicitation":{"url":{}}}"#, "elicitation/create", "", Capability::Elicitation),
        (r#"{"elicitation":{}}"#, "elicitation/create", r#""mode":"url""#, Capability::Elicitation),
        (r#"{"elicitation":{}}"#, "sampling/createMessage", "", Capability::Sampling),
        (r#"{"sampling":{}}"#, "sampling/createMessage", r#""tools":[]"#, Capability::Sampling),
        (r#"{"sampling":{}}"#, "roots/list", "", Capability::Roots),
    ];
    let failures = [|wire: &str| error(wire), |wire: &str| child_result(wire, r#""isError":true"#)];
    for strangers in [STRANGERS, KIN] {
        for (declares, method, params, capability) in table {
            for failure in failures {
                let mut session = Harness::shared(strangers);
                let wire = session.passed(2, &Ask::tool("7").declaring(declares));
                session.says(&question("1", method, params));
                let refused = refusal_of("1", UNSERVED);
                assert_eq!(session.stdin(), [refused]);
                assert_eq!(session.gathered(), [], "its client is not asked");
                let why = Declined::Capability(capability);
                assert_eq!(session.says(&failure(&wire)), [declined(2, "7", why)], "{declares} {method}");
                session.assert_empty();
            }
        }
    }
}

#[test]
fn what_the_repetition_does_not_declare_is_not_asked_again() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::able("7"));
    session.says(&elicitation("1", "a"));
    session.says(&question("2", "roots/list", ""));
    let roots = r#"{"method":"roots/list","params":{}}"#;
    let state = session.asked(2, "7", &[("elicitation_1", &elicited("a")), ("roots_2", roots)]);
    let again = Ask::tool("8").declaring(r#"{"roots":{}}"#).again("8", &state, "");
    let outputs = told(session.send(3, &again));
    let state = asked(&outputs, 3, "8", &[("roots_2", roots)]);
    assert_eq!(session.stdin(), [refusal_of("1", UNSERVED)]);
    assert_eq!(session.send(4, &Ask::tool("9").again("9", &state, r#""roots_2":{}"#)), []);
    assert_eq!(session.stdin(), [reply("2", "{}")], "an answer is an answer");
    let why = Declined::Capability(Capability::Elicitation);
    assert_eq!(session.says(&error(&wire)), [declined(4, "9", why)]);
    session.assert_empty();
}

#[test]
fn a_client_that_declares_more_the_second_time_lacks_nothing() {
    let mut session = Harness::shared(STRANGERS);
    let ask = Ask::tool("7").declaring(r#"{"roots":{}}"#);
    let wire = session.passed(2, &ask);
    session.says(&elicitation("1", "a"));
    session.says(&question("2", "roots/list", ""));
    let state = session.asked(2, "7", &[("roots_1", r#"{"method":"roots/list","params":{}}"#)]);
    session.send(3, &Ask::able("8").again("8", &state, r#""roots_1":{}"#));
    assert_eq!(session.says(&error(&wire)), [answer(3, &error("8")).unwrap()]);
}

#[test]
fn a_call_that_does_without_what_its_client_has_not_declared_has_its_result() {
    let mut session = Harness::shared(STRANGERS);
    let wire = session.passed(2, &Ask::tool("7"));
    session.says(&elicitation("1", "?"));
    let told = session.says(&child_result(&wire, r#""isError":false"#));
    assert_eq!(told, [answer(2, &complete("7", r#""isError":false"#)).unwrap()]);
}

#[test]
fn a_question_that_no_call_can_belong_to_is_refused_to_the_child() {
    let why = "no call is running that this can belong to";
    for strangers in [STRANGERS, KIN] {
        let mut session = Harness::shared(strangers);
        session.says(&elicitation("1", "?"));
        assert_eq!(session.stdin(), [refusal_of("1", why)]);
        session.passed(2, &Ask { method: "prompts/list", ..Ask::able("7") });
        session.says(&elicitation("2", "?"));
        assert_eq!(session.stdin(), [refusal_of("2", why)], "{strangers}");
        assert_eq!(session.gathered(), []);
    }
}

#[test]
fn three_kinds_of_requests_may_be_answered_with_a_question() {
    for method in ["tools/call", "prompts/get", "resources/read"] {
        let mut session = Harness::shared(STRANGERS);
        let ask = Ask { method, ..Ask::able("7") };
        let wire = session.passed(2, &ask);
        session.says(&elicitation("1", "?"));
        let state = session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
        assert_eq!(session.send(3, &ask.again("8", &state, r#""elicitation_1":{}"#)), []);
        assert_eq!(session.stdin(), [reply("1", "{}")], "{method}");
        assert_eq!(session.says(&child_result(&wire, "")).len(), 1);
    }
}

#[test]
fn a_client_that_takes_its_answer_alone_is_asked_all_the_same() {
    let mut session = Harness::shared(STRANGERS);
    session.send_as(2, &Ask::able("7"), &Mirrored::default(), Takes::AnswerOnly);
    session.says(&elicitation("1", "?"));
    session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
}

#[test]
fn progress_and_log_lines_go_to_the_request_that_is_open() {
    let mut session = Harness::shared(STRANGERS);
    let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error"}}"#;
    let ask = Ask::able("7").token("1").level("debug");
    session.passed(2, &ask);
    session.says(&elicitation("1", "?"));
    assert_eq!(session.says(&progress("3", 1)), [event(2, &progress("1", 1)).unwrap()]);
    let state = session.asked(2, "7", &[("elicitation_1", &elicited("?"))]);
    for text in [&progress("3", 2), log] {
        let nobody = [dropped(Dropped::Unrelated).unwrap()];
        assert_eq!(session.says(text), nobody, "nothing follows the answer of a stream");
    }
    let again = Ask::able("7").token("\"b\"").level("error").again("8", &state, r#""elicitation_1":{}"#);
    session.send(3, &again);
    assert_eq!(session.says(&progress("3", 3)), [event(3, &progress("\"b\"", 3)).unwrap()]);
    assert_eq!(session.says(log), [event(3, log).unwrap()]);
}

// Bounds.

#[test]
fn a_call_has_a_bounded_number_of_questions_at_once() {
    let mut session = Harness::shared(STRANGERS);
    session.passed(2, &Ask::able("7"));
    for number in 0..MAX_QUESTIONS {
        session.says(&elicitation(&number.to_string(), "?"));
    }
    assert!(session.stdin().is_empty());
    session.says(&elicitation("99", "?"));
    assert_eq!(session.stdin(), [refusal_of("99", "this call has asked too much at once")]);
    let told = session.gathered();
    let [Output::Answer { message, .. }] = &told[..] else { panic!("{told:?}") };
    let value: Value = serde_json::from_slice(message).unwrap();
    assert_eq!(value["result"]["inputRequests"].as_object().unwrap().len(), MAX_QUESTIONS);
}

#[test]
fn all_questions_together_are_bounded_in_bytes_and_counted() {
    for strangers in [STRANGERS, KIN] {
        let mut session = Harness::shared(strangers);
        session.passed(2, &Ask::able("7"));
        session.passed(3, &Ask::able("8"));
        let long = "x".repeat(1_000_000);
        for number in 0..8 {
            session.says(&elicitation(&number.to_string(), &long));
            assert!(session.front.held_bytes() > (number + 1) * 1_000_000);
        }
        assert!(session.stdin().is_empty());
        session.says(&elicitation("99", &long));
        assert_eq!(session.stdin(), [refusal_of("99", "too much is asked at once")], "{strangers}");
        session.pass(secs(10));
        session.says(&cancel("3"));
        session.leave(2);
        session.leave(3);
    }
}

#[test]
fn who_has_been_asked_much_and_is_away_gives_way_to_who_is_asked_less() {
    let mut session = Harness::shared(KIN);
    let long = "x".repeat(1_000_000);
    for stream in 2..10 {
        session.passed(stream, &Ask::able("7"));
        session.says(&elicitation(&format!("\"{stream}\""), &long));
        session.gathered();
    }
    assert!(session.stdin().is_empty(), "nobody is refused anything");
    session.passed(20, &Ask::able("7"));
    session.says(&elicitation("\"q\"", &"y".repeat(500_000)));
    let told = session.stdin();
    assert_eq!(told.len(), 2, "one call is cancelled, and its question answered");
    assert!(told.iter().any(|line| line.contains(r#""action":"cancel""#)), "{told:?}");
    assert_eq!(told_of(&session.gathered()), 1, "the client is asked");
}

fn told_of(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Answer { stream: StreamId(20), .. })).count()
}

#[test]
fn the_oldest_client_that_is_away_gives_way_to_another() {
    const MAX_PARKED: u64 = 64;
    let mut session = Harness::greeted(UPGRADED, KIN, CAPABILITIES);
    let mut states = Vec::new();
    for stream in 0..=MAX_PARKED {
        let ask = Ask::able("7").with(&format!(r#""n":{stream}"#));
        let wire = session.passed(stream, &ask);
        let id = format!("{stream}");
        session.says(&elicitation(&id, "?"));
        let told = told(session.gathered());
        states.push((asked(&told, stream, "7", &[("elicitation_1", &elicited("?"))]), ask, wire));
    }
    let (state, ask, wire) = &states[0];
    assert_eq!(session.stdin(), [withdrawn(wire), given_up("0")]);
    let gone = session.send(100, &ask.again("8", state, r#""elicitation_1":{}"#));
    assert_eq!(gone, [declined(100, "8", UNKNOWN)]);
    let (state, ask, _) = &states[1];
    assert_eq!(session.send(101, &ask.again("8", state, r#""elicitation_1":{}"#)), []);
    assert_eq!(session.stdin(), [reply("1", "{}")]);
}
