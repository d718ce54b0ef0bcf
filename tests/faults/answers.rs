//! Faults of a child in what it answers: nothing at all, twice, too late, under another id, or with its own end. Each with
//! its exact answer, its log line, and a session beside it that does not notice.

use std::time::Duration;

use crate::beside::{
    Answer, Beside, Fault, REQUEST_TIMEOUT, Then, assert_fault, assert_goes_on, call, check,
};
use crate::support::{Value, eventually, json, text_of, tool_call, within};

// ---------------------------------------------------------------------------------------------- it ends

#[test]
fn a_child_that_exits_with_zero_ends_its_session_and_is_no_trouble() {
    let beside = check(&Fault {
        mode: "exit_after 1",
        options: &[],
        answer: Answer::Text("a"),
        log: &["INFO", r#"event="session.end""#, r#"reason="child_exited""#, r#"status="exit code 0""#],
        then: Then::Over("child_exited", json!({ "exit_code": 0 })),
    });
    beside.finish();
}

#[test]
fn a_child_that_dies_in_a_call_is_named_by_its_end_and_is_trouble() {
    let code = Fault {
        mode: "die_in_call 3",
        options: &[],
        answer: Answer::Fault("child_exited", json!({ "exit_code": 3, "cause": "child_exited" })),
        log: &["WARN", r#"event="session.end""#, r#"reason="child_exited""#, r#"status="exit code 3""#],
        then: Then::Over("child_exited", json!({ "exit_code": 3 })),
    };
    let signal = Fault {
        mode: "die_in_call KILL",
        answer: Answer::Fault("child_exited", json!({ "signal": "SIGKILL", "cause": "child_exited" })),
        log: &["WARN", r#"event="session.end""#, r#"reason="child_exited""#, r#"status="signal SIGKILL""#],
        then: Then::Over("child_exited", json!({ "signal": "SIGKILL" })),
        ..code
    };
    for fault in [code, signal] {
        check(&fault).finish();
    }
}

#[test]
fn a_hundred_calls_of_a_child_that_dies_each_end_once_and_no_call_of_its_neighbour_does() {
    let beside = Beside::start(&["--sse-after", "15s"], "die_in_call KILL 100");
    let bad = beside.bad();
    beside.during(|| {
        let held: Vec<_> =
            (0..100).map(|id| bad.begin(tool_call(id, "echo", json!({})).to_string())).collect();
        for (id, call) in held.into_iter().enumerate() {
            let mut response = call.response();
            response.expect(200, "it may have happened, so nobody may repeat it");
            let answer = response.json();
            assert_eq!(answer["id"], id);
            assert_fault(&answer, "child_exited", &json!({ "signal": "SIGKILL" }));
        }
        beside.assert_over(&bad, "child_exited", &json!({ "signal": "SIGKILL" }));
    });
    beside.finish();
}

#[test]
fn a_child_that_closes_stdout_is_over_though_it_lives() {
    let beside = check(&Fault {
        mode: "close_stdout",
        options: &[],
        answer: Answer::Fault("child_stdout_closed", json!({ "cause": "child_stdout_closed" })),
        log: &[r#"event="session.end""#, r#"reason="child_stdout_closed""#, r#"stopped_by="eof""#],
        then: Then::Over("child_stdout_closed", json!({})),
    });
    beside.finish();
}

#[test]
fn a_child_that_closes_stdin_may_answer_what_it_has_and_then_is_over() {
    let beside = Beside::start(&[], "close_stdin 100");
    let bad = beside.bad();
    beside.during(|| {
        assert_eq!(text_of(&call(&bad).answer()), "a");
        let answer = call(&bad).answer();
        assert_eq!(answer["id"], 7);
        assert_fault(&answer, "child_stdin_closed", &json!({ "cause": "child_stdin_closed" }));
        beside.assert_over(&bad, "child_stdin_closed", &json!({}));
        beside.logged(&bad, &[r#"event="session.end""#, r#"stopped_by="term""#]);
    });
    beside.finish();
}

#[test]
fn a_line_without_an_end_counts_if_it_is_whole() {
    let whole = Fault {
        mode: "partial whole",
        options: &[],
        answer: Answer::Text("a"),
        log: &[r#"event="child.partial_line""#, "bytes="],
        then: Then::Over("child_exited", json!({ "exit_code": 1 })),
    };
    let half = Fault {
        mode: "partial half",
        answer: Answer::Fault("child_exited", json!({ "exit_code": 1 })),
        then: Then::Over("child_exited", json!({ "exit_code": 1 })),
        ..whole
    };
    for fault in [whole, half] {
        check(&fault).finish();
    }
}

// ---------------------------------------------------------------------------------------------- it does not answer

#[test]
fn a_child_that_never_answers_loses_one_call_and_is_told() {
    let beside = Beside::start(REQUEST_TIMEOUT, "hang");
    let bad = beside.bad();
    beside.during(|| {
        let answer = call(&bad).answer();
        assert_eq!(answer["id"], 7);
        assert_fault(&answer, "request_timeout", &json!({}));
        beside.logged(&bad, &["WARN", r#"event="request.timeout""#, "after=3.0", "--request-timeout"]);
        let seen = bad.seen();
        let cancelled: Vec<&Value> =
            seen.iter().filter(|entry| entry["method"] == "notifications/cancelled").collect();
        let called = seen.iter().find(|entry| entry["method"] == "tools/call").unwrap();
        assert!(matches!(cancelled[..], [one] if one["requestId"] == called["id"]), "{seen:?}");
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
fn an_answer_that_comes_after_the_timeout_is_dropped_and_logged() {
    let beside = check(&Fault {
        mode: "late",
        options: REQUEST_TIMEOUT,
        answer: Answer::Fault("request_timeout", json!({})),
        log: &[r#"event="child.dropped""#, r#"why="late""#],
        then: Then::GoesOn,
    });
    beside.finish();
}

// ---------------------------------------------------------------------------------------------- ids

#[test]
fn of_two_answers_the_first_counts_and_the_second_is_logged() {
    let beside = check(&Fault {
        mode: "dup",
        options: &[],
        answer: Answer::Text("a"),
        log: &[r#"event="child.dropped""#, r#"why="late""#],
        then: Then::GoesOn,
    });
    beside.finish();
}

#[test]
fn answers_under_ids_that_nobody_used_reach_nobody_and_are_logged() {
    let beside = check(&Fault {
        mode: "unknown_id",
        options: &[],
        answer: Answer::Text("a"),
        log: &[r#"event="child.dropped""#, r#"why="unknown_id""#],
        then: Then::GoesOn,
    });
    beside.finish();
}

#[test]
fn an_id_in_another_spelling_or_lost_finds_the_only_call() {
    for mode in ["ids float", "ids exp", "ids string", "ids null", "ids missing"] {
        let fault = Fault { mode, options: &[], answer: Answer::Text("a"), log: &[], then: Then::GoesOn };
        check(&fault).finish();
    }
}

#[test]
fn an_answer_that_lost_its_id_goes_to_nobody_while_several_wait() {
    let beside = Beside::start(REQUEST_TIMEOUT, "ids null");
    let bad = beside.bad();
    beside.during(|| {
        let calls = [1, 2].map(|id| bad.begin(tool_call(id, "sleep", json!({ "ms": 500 })).to_string()));
        for (id, call) in (1..).zip(calls) {
            let answer = call.response().answer();
            assert_eq!(answer["id"], id);
            assert_fault(&answer, "request_timeout", &json!({}));
        }
        beside.logged(&bad, &[r#"event="child.dropped""#, r#"why="unknown_id""#]);
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
fn answers_in_any_order_find_their_calls() {
    let beside = Beside::start(&[], "shuffle 50");
    let bad = beside.bad();
    beside.during(|| {
        let calls: Vec<_> = (0..50)
            .map(|id| bad.begin(tool_call(id, "echo", json!({ "text": format!("text {id}") })).to_string()))
            .collect();
        for (id, call) in calls.into_iter().enumerate() {
            let answer = call.response().answer();
            assert_eq!((&answer["id"], text_of(&answer)), (&json!(id), format!("text {id}")));
        }
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
fn a_child_may_ask_under_the_id_of_the_call_it_answers() {
    let beside = Beside::start(&[], "same_ids");
    let bad = beside.bad();
    beside.during(|| {
        let mut stream = call(&bad);
        let question = stream.message();
        assert_eq!(question["method"], "sampling/createMessage");
        bad.respond(&question["id"], json!({ "content": { "type": "text", "text": "b" } }));
        assert_eq!(text_of(&stream.answer()), "a|b");
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
fn a_batch_of_the_child_is_taken_apart_and_each_part_finds_its_way() {
    let beside = Beside::start(&[], "batch");
    let bad = beside.bad();
    beside.during(|| {
        let messages = call(&bad).messages();
        assert!(
            matches!(&messages[..], [said, answer] if said["params"]["data"] == "in a batch" && text_of(answer) == "a"),
            "{messages:?}"
        );
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
#[ignore = "waits for a minute: `cargo test -- --ignored`"]
fn a_question_that_nobody_hears_for_a_minute_is_answered_with_an_error_and_logged() {
    let beside = Beside::start(&[], "sample");
    let bad = beside.bad();
    beside.during(|| {
        // No call of this session before that: the question would be asked on the stream of the call.
        within(Duration::from_secs(80), "the bridge gives up", || {
            beside.bridge.log().iter().any(|line| line.contains("child.request_unheard"))
        });
        beside.logged(&bad, &["WARN", r#"event="child.request_unheard""#]);
        let seen = bad.seen();
        let told = seen.iter().find(|entry| entry["id"] == "ask-1").expect("the child has its answer");
        assert_eq!(told["error"]["code"], -32603, "{told}");
        assert_goes_on(&bad);
    });
    eventually("it is said once", || {
        beside.bridge.log().iter().filter(|line| line.contains("child.request_unheard")).count() == 1
    });
    beside.finish();
}
