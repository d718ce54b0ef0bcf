//! Children that need time after the handshake.

use std::sync::Arc;

use regex_lite::Regex;

use super::*;

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What a child says that is not ready is sent again, for 20 seconds.
fn retrying() -> Limits {
    let refusal = Some(Arc::new(Regex::new("(?i)not ready|still loading").unwrap()));
    Limits { ready: Readiness { delay: Duration::ZERO, refusal, timeout: secs(20) }, ..LIMITS }
}

/// Requests wait for 5 seconds after the handshake.
fn delayed() -> Limits {
    Limits { ready: Readiness { delay: secs(5), ..Readiness::AT_ONCE }, ..LIMITS }
}

fn not_ready(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"server is not ready"}}}}"#)
}

/// The child refuses what it has under this id.
fn refuse(session: &mut Harness, id: &str) {
    assert_eq!(session.child(&not_ready(id)), Some(Output::Note(Note::NotReady)));
    assert_eq!(session.stdin(), [""; 0], "not at once");
}

/// What the child receives when it is `now`.
fn received(session: &mut Harness, now: Duration) -> Vec<String> {
    assert_eq!(session.at(now), [], "nothing ends");
    session.front.check();
    session.stdin()
}

#[test]
fn a_refusal_is_an_error_or_a_failed_tool_whose_text_matches() {
    let answer = |member: &str| format!(r#"{{"jsonrpc":"2.0","id":2,{member}}}"#);
    let failed = |content: &str| answer(&format!(r#""result":{{"content":[{content}],"isError":true}}"#));
    let long = format!(r#"{{"type":"text","text":"not ready {}"}}"#, "x".repeat(16 * 1024));
    let table = [
        (not_ready("2"), true),
        (answer(r#""error":{"code":1,"message":"Still Loading the index"}"#), true),
        (answer(r#""error":{"message":"not\u0020ready"},"result":null"#), true),
        (answer(r#""error":{"code":1,"message":"no such file"}"#), false),
        (answer(r#""error":{"code":1,"message":"no","data":"not ready"}"#), false),
        (answer(r#""error":{"code":1,"message":["not ready"]}"#), false),
        (answer(r#""error":"not ready""#), false),
        (failed(r#"{"type":"text","text":"not ready"}"#), true),
        (failed(r#"{"type":"image","data":""},{"type":"text","text":"st\u0069ll loading"}"#), true),
        (failed(r#"{"type":"text","text":"no such file"}"#), false),
        (failed(r#"{"type":"x","data":"not ready"}"#), false),
        (failed(""), false),
        (failed(&long), false),
        (answer(r#""result":{"content":[{"type":"text","text":"not ready"}]}"#), false),
        (answer(r#""result":{"content":[{"type":"text","text":"not ready"}],"isError":false}"#), false),
        (answer(r#""result":{"isError":true,"content":"not ready"}"#), false),
        (answer(r#""result":{"message":"not ready"}"#), false),
        (answer(r#""result":"not ready""#), false),
    ];
    for (text, refused) in table {
        let mut session = Harness::open_with(retrying());
        session.call(2, "7");
        assert_eq!(session.child(&text) == Some(Output::Note(Note::NotReady)), refused, "{text}");
    }
}

#[test]
fn without_a_pattern_no_answer_is_a_refusal_and_no_request_is_kept() {
    let mut session = Harness::open();
    let id = session.call(2, "7");
    assert_eq!(session.front.kept_for_retry(), 0);
    assert_eq!(session.child(&not_ready(&id)), answer(2, &not_ready("7")));
}

#[test]
fn a_refused_request_is_sent_again_as_it_was_under_a_new_id_and_only_the_last_answer_is_shown() {
    let mut session = Harness::open_with(retrying());
    let text = |id: &str| call(id, "\"t\"");
    let id = session.call_with(2, Takes::Events, &text("\"\\u0061\""));
    refuse(&mut session, &id);
    assert_eq!(received(&mut session, millis(249)), [""; 0]);
    assert_eq!(received(&mut session, millis(250)), [text("3")]);
    assert_eq!(
        session.child(&progress("\"t\"", 1)),
        event(2, &progress("\"t\"", 1)),
        "progress finds the call"
    );
    assert_eq!(session.child(&result(&id)), dropped(Dropped::Late), "the old id is over");
    assert_eq!(session.child(&result("3")), answer(2, &result("\"\\u0061\"")));
    session.assert_nothing_in_flight();
}

#[test]
fn pauses_grow_and_the_last_attempt_is_at_the_end_of_the_time() {
    let mut session = Harness::open_with(retrying());
    let mut id = session.call(2, "7").parse::<u64>().unwrap();
    let mut times = Vec::new();
    while session.child(&not_ready(&id.to_string())) == Some(Output::Note(Note::NotReady)) {
        let due = session.front.next_deadline().unwrap();
        id += 1;
        assert_eq!(received(&mut session, due), [request(&id.to_string(), "tools/call")]);
        times.push(due.as_millis());
    }
    assert_eq!(times, [250, 750, 1750, 3750, 7750, 12750, 17750, 20000]);
    session.assert_nothing_in_flight();
}

#[test]
fn when_the_time_is_over_a_refusal_is_delivered_and_no_request_is_kept() {
    let mut session = Harness::open_with(retrying());
    let early = session.call(2, "7");
    assert_eq!(session.front.next_deadline(), Some(secs(20)));
    session.now = secs(20); // the timer may be late
    assert_eq!(session.child(&not_ready(&early)), answer(2, &not_ready("7")));
    let kept = session.call(2, "8").parse().unwrap();
    assert_eq!(received(&mut session, secs(20)), [""; 0]);
    let later = session.call(2, "9").parse().unwrap();
    assert_eq!(session.front.kept_for_retry(), 0);
    for id in [kept, later] {
        let id: u64 = id;
        assert!(matches!(session.child(&not_ready(&id.to_string())), Some(Output::Answer { .. })));
    }
}

#[test]
fn the_time_begins_with_initialized_and_not_before() {
    let mut session = Harness::starting_with(retrying());
    session.now = secs(9);
    session.child(&result("1"));
    session.now = secs(1000);
    session.stdin();
    session.client(2, &request("7", "tools/call")).unwrap();
    session.stdin();
    refuse(&mut session, "2");
    assert_eq!(session.front.next_deadline(), Some(secs(1000) + millis(250)));
}

#[test]
fn an_initialize_that_is_refused_is_not_sent_again() {
    let mut session = Harness::starting_with(retrying());
    session.stdin();
    assert!(matches!(session.child(&not_ready("1")), Some(Output::Answer { success: false, .. })));
    assert!(session.refused());
}

#[test]
fn an_error_that_lost_its_id_is_a_refusal_of_the_only_call() {
    let mut session = Harness::open_with(retrying());
    session.call(2, "7");
    refuse(&mut session, "null");
    assert_eq!(received(&mut session, millis(250)), [request("3", "tools/call")]);
}

#[test]
fn a_cancelled_request_is_not_sent_again() {
    let mut session = Harness::open_with(retrying());
    let id = session.call(2, "7");
    refuse(&mut session, &id);
    let withdrawn = Some(unanswered(2, "7", Unanswered::Cancelled));
    assert_eq!(session.client(3, &cancel("7")), Ok(withdrawn), "while it waits it ends at once");
    session.assert_nothing_in_flight();
    let id = session.call(4, "7");
    session.client(5, &cancel("7")).unwrap();
    assert_eq!(session.child(&not_ready(&id)), answer(4, &not_ready("7")), "the child has answered it");
    session.stdin();
    assert_eq!(received(&mut session, secs(20)), [""; 0]);
    session.assert_nothing_in_flight();
}

#[test]
fn a_cancellation_names_the_newest_id() {
    let mut session = Harness::open_with(retrying());
    let id = session.call(2, "7");
    refuse(&mut session, &id);
    received(&mut session, millis(250));
    session.client(3, &cancel("7")).unwrap();
    assert_eq!(session.stdin(), [cancel("3")]);
}

#[test]
fn the_request_timeout_counts_from_the_first_time() {
    let mut session = Harness::open_with(Limits { request_timeout: secs(10), ..retrying() });
    let first = session.call(2, "7");
    let second = session.call(3, "8");
    session.now = secs(2);
    session.call(4, "9");
    refuse(&mut session, &second);
    refuse(&mut session, &first);
    assert_eq!(received(&mut session, secs(3)).len(), 2);
    refuse(&mut session, "6");
    assert_eq!(received(&mut session, secs(4)).len(), 1);
    let timed_out = |stream, id| unanswered(stream, id, Unanswered::Timeout);
    let mut ended = session.at(secs(10));
    ended.sort_by_key(|expired| format!("{expired:?}"));
    assert_eq!(ended, [timed_out(2, "7"), timed_out(3, "8")], "both, though their ids are the newest");
    assert_eq!(session.at(secs(12)), [timed_out(4, "9")]);
    session.assert_nothing_in_flight();
}

#[test]
fn a_session_that_ends_ends_what_waits_too() {
    let mut session = Harness::open_with(retrying());
    let id = session.call(2, "7");
    refuse(&mut session, &id);
    assert_eq!(session.front.in_flight(), 1);
    assert_eq!(session.front.abandon(), [(StreamId(2), client_id("7"))]);
    session.assert_nothing_in_flight();
    assert_eq!(session.front.next_deadline(), Some(secs(20)), "of the whole session only");
}

#[test]
fn what_a_lost_child_refused_is_for_the_next_one_and_comes_before_what_came_later() {
    let mut session = Harness::begin(
        Limits { respawn: true, max_in_flight: 9, ..retrying() },
        r#"{"jsonrpc":"2.0","id":"init","method":"initialize"}"#,
    );
    session.client(2, &note("notifications/initialized")).unwrap();
    session.child(&result("1"));
    session.stdin();
    let (first, second, third) = (session.call(2, "7"), session.call(3, "8"), session.call(4, "9"));
    refuse(&mut session, &first);
    refuse(&mut session, &second);
    received(&mut session, millis(250));
    refuse(&mut session, "6");
    refuse(&mut session, "5");
    assert_eq!(session.front.child_lost(), [(StreamId(4), client_id("9"))], "which the child had: {third}");
    session.front.check();
    session.client(5, &request("10", "later")).unwrap();
    session.now = secs(30);
    session.front.restart(session.now, &mut session.out);
    assert_eq!(session.stdin(), [request("10", "initialize")]);
    session.child(&result("10"));
    let lines: Vec<String> = session.stdin();
    assert_eq!(lines[0], note("notifications/initialized"));
    let ids: Vec<Value> =
        lines[1..].iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, [7, 8, 9], "those that were due first, then what came later");
    // The next child has as much time, and begins with the shortest pause.
    refuse(&mut session, "7");
    assert_eq!(session.front.next_deadline(), Some(secs(30) + millis(250)));
    assert_eq!(received(&mut session, secs(30) + millis(250)), [request("11", "tools/call")]);
    assert_eq!(session.child(&result("11")), answer(3, &result("8")));
}

#[test]
fn what_is_kept_is_bounded_in_bytes() {
    let mut session = Harness::open_with(retrying());
    let big = |id: &str| {
        let filler = "x".repeat(5 * 1024 * 1024);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"call","params":"{filler}"}}"#)
    };
    let first = session.call_with(2, Takes::Events, &big("7"));
    let second = session.call_with(3, Takes::Events, &big("8"));
    assert!(
        matches!(session.child(&not_ready(&second)), Some(Output::Answer { .. })),
        "one too many is sent once"
    );
    refuse(&mut session, &first);
    session.front.check();
}

#[test]
fn a_refused_request_keeps_its_place_among_those_that_may_be_in_flight() {
    let mut session = Harness::open_with(Limits { max_in_flight: 1, ..retrying() });
    let id = session.call(2, "7");
    refuse(&mut session, &id);
    assert_eq!(session.client(3, &request("8", "x")), Ok(Some(unanswered(3, "8", Unanswered::Overload))));
    assert_eq!(session.client(3, &request("7", "x")), Err(Refusal::DuplicateId(client_id("7"))));
}

/// What can befall a call whose child may refuse it, in letters: `r` and `a` the child refuses and answers what it has
/// received last, `p` a pause passes, `c` the client cancels, `w` the time to get ready passes, `t` the request timeout
/// passes, `l` the child is lost and another comes.
const EVENTS: [char; 7] = ['r', 'a', 'p', 'c', 'w', 't', 'l'];

#[test]
fn a_call_that_is_sent_again_ends_exactly_once_in_every_order_of_events() {
    for order in 0..EVENTS.len().pow(5) {
        let events: String =
            (0..5).map(|place| EVENTS[order / EVENTS.len().pow(place) % EVENTS.len()]).collect();
        let mut session = Harness::open_with(Limits { respawn: true, ..retrying() });
        let mut with_child = Some(session.call(2, "7"));
        let mut ends = 0;
        for event in events.chars() {
            let id = with_child.clone().unwrap_or("2".to_owned());
            match event {
                'r' | 'a' => {
                    let text = if event == 'r' { not_ready(&id) } else { result(&id) };
                    match session.child(&text) {
                        Some(Output::Answer { .. }) => ends += 1,
                        Some(Output::Note(Note::NotReady)) => with_child = None,
                        told => {
                            let dropped = matches!(told, Some(Output::Note(Note::Dropped(_))));
                            assert!(dropped, "{told:?} after {events}");
                        }
                    }
                }
                'c' => {
                    let told = session.client(3, &cancel("7"));
                    ends += usize::from(matches!(told, Ok(Some(Output::Unanswered { .. }))));
                }
                'l' => {
                    ends += session.front.child_lost().len();
                    session.stdin();
                    session.front.restart(session.now, &mut session.out);
                    let id = session.line()["id"].to_string();
                    session.child(&result(&id));
                }
                _ => {
                    let pause = match event {
                        'p' => millis(250),
                        'w' => secs(20),
                        _ => secs(100),
                    };
                    ends += session.at(session.now + pause).len();
                    let next = session.front.next_deadline();
                    assert!(next.is_none_or(|next| next > session.now), "a deadline is left after {events}");
                }
            }
            session.front.check();
            for line in session.stdin() {
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["method"] == "tools/call" {
                    let id = Some(line["id"].to_string());
                    assert_ne!(with_child, id, "each time under an id of its own");
                    with_child = id;
                }
            }
        }
        ends += session.front.abandon().len();
        assert_eq!(ends, 1, "exactly one end after {events}");
        session.assert_nothing_in_flight();
    }
}

// The delay.

#[test]
fn what_comes_after_the_handshake_waits_for_the_delay_in_order_and_initialized_does_not() {
    let mut session = Harness::starting_with(delayed());
    session.stdin();
    session.client(2, &request("6", "early")).unwrap();
    session.now = secs(1);
    session.child(&result("1"));
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
    session.client(3, &request("7", "ping")).unwrap();
    session.client(4, &note("n")).unwrap();
    session.client(5, &request("8", "tools/call")).unwrap();
    assert_eq!(session.front.next_deadline(), Some(secs(6)));
    assert_eq!(received(&mut session, secs(6) - millis(1)), [""; 0]);
    let want = [request("2", "early"), request("3", "ping"), note("n"), request("4", "tools/call")];
    assert_eq!(received(&mut session, secs(6)), want);
    assert_eq!(session.call(6, "9"), "5", "and then nothing waits");
}

#[test]
fn the_delay_begins_with_initialized() {
    let mut session = Harness::starting_with(delayed());
    session.child(&result("1"));
    session.stdin();
    session.now = secs(50);
    session.client(2, &request("7", "x")).unwrap();
    assert_eq!(session.stdin(), [note("notifications/initialized")], "the bridge says it at once");
    assert_eq!(received(&mut session, secs(55)), [request("2", "x")]);
}

#[test]
fn a_request_that_waits_for_the_delay_can_be_cancelled_and_times_out() {
    let mut session = Harness::open_with(Limits { request_timeout: secs(4), ..delayed() });
    session.client(2, &request("7", "x")).unwrap();
    session.client(3, &request("8", "x")).unwrap();
    let withdrawn = Some(unanswered(2, "7", Unanswered::Cancelled));
    assert_eq!(session.client(4, &cancel("7")), Ok(withdrawn));
    assert_eq!(session.at(secs(4)), [unanswered(3, "8", Unanswered::Timeout)]);
    assert_eq!(received(&mut session, secs(5)), [""; 0]);
}

#[test]
fn an_answer_to_the_childs_own_question_does_not_wait_for_the_delay() {
    let mut session = Harness::open_with(delayed());
    session.child(&request("\"q\"", "roots/list"));
    session.client(2, &result("\"q\"")).unwrap();
    assert_eq!(session.stdin(), [result("\"q\"")], "the child may need it to get ready");
}

#[test]
fn each_child_has_the_delay_and_what_is_remembered_is_told_behind_it() {
    let level = |id: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{"level":"error"}}}}"#)
    };
    let mut session = Harness::open_with(Limits { respawn: true, ..delayed() });
    received(&mut session, secs(5));
    session.call_with(2, Takes::Events, &level("7"));
    session.child(&result("2"));
    session.front.child_lost();
    session.client(3, &request("8", "x")).unwrap();
    session.front.restart(session.now, &mut session.out);
    session.stdin();
    session.now = secs(7);
    session.child(&result("4"));
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
    assert_eq!(received(&mut session, secs(12)), [level("5"), request("3", "x")]);
}

#[test]
fn a_child_that_is_lost_during_the_delay_has_seen_nothing_of_what_waits() {
    let mut session = Harness::open_with(Limits { respawn: true, ..delayed() });
    session.client(2, &request("7", "x")).unwrap();
    assert_eq!(session.front.child_lost(), []);
    assert_eq!(session.front.in_flight(), 1);
    assert_eq!(received(&mut session, secs(5)), [""; 0], "the delay was the lost child's");
}

#[test]
fn the_time_to_get_ready_begins_behind_the_delay() {
    let ready = Readiness { delay: secs(30), ..retrying().ready };
    let mut session = Harness::open_with(Limits { ready, ..LIMITS });
    session.client(2, &request("7", "x")).unwrap();
    assert_eq!(received(&mut session, secs(30)), [request("2", "x")]);
    refuse(&mut session, "2");
    session.now = secs(50);
    assert_eq!(session.at(secs(50)), []);
    assert_eq!(session.child(&not_ready("3")), answer(2, &not_ready("7")));
}
