//! Calls that a new child is sent again.

use super::*;
use crate::proto::front::keyed::Keyed;
use crate::proto::output::NotRestored;

const OPENING: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#;

/// Two tools of which the last calls are restored: `open` is at place 0, `mode` at 1.
fn restoring() -> Limits {
    Limits {
        respawn: true,
        restore: Some(["open".into(), "mode".into()].into()),
        max_in_flight: 99,
        ..LIMITS
    }
}

fn call_of(id: &str, tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

fn tool_error(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[],"isError":true}}}}"#)
}

fn restored(tool: usize) -> Option<Output> {
    Some(Output::Note(Note::CallRestored { tool, how: Ok(()) }))
}

fn not_restored(tool: usize, why: NotRestored) -> Option<Output> {
    Some(Output::Note(Note::CallRestored { tool, how: Err(why) }))
}

/// The child is lost, and another one has answered `initialize`. Returns what that is told behind `initialized`.
fn replace<F: Front + Debug>(session: &mut Harness<F>) -> Vec<String> {
    session.front.child_lost();
    session.stdin();
    session.front.restart(session.now, &mut session.out);
    let id = session.line()["id"].to_string();
    session.child(&result(&id));
    let mut told = session.stdin();
    assert_eq!(told.remove(0), note("notifications/initialized"));
    told
}

/// The id under which the child is told this.
fn id_of(line: &str) -> String {
    serde_json::from_str::<Value>(line).unwrap()["id"].to_string()
}

/// The calls that another child is sent if it takes all of them: their arguments.
fn taken(session: &mut Harness) -> Vec<String> {
    let mut told = replace(session);
    let mut taken = Vec::new();
    while let Some(line) = told.pop() {
        assert!(told.is_empty(), "one after the other: {told:?}");
        let call: Value = serde_json::from_str(&line).unwrap();
        taken.push(call["params"]["arguments"].to_string());
        let note = session.child(&result(&call["id"].to_string()));
        assert!(matches!(note, Some(Output::Note(Note::CallRestored { how: Ok(()), .. }))), "{note:?}");
        told = session.stdin();
    }
    session.front.check();
    taken
}

#[test]
fn of_each_tool_the_last_call_that_succeeded_is_sent_again_in_the_order_of_the_calls() {
    // What was called: the tool, the argument, and what the child answered: `+` a result, `!` a tool's error, `-` an error.
    let table = [
        ("open 1 +", &["1"][..]),
        ("open 1 + | open 2 +", &["2"]),
        ("open 1 + | mode 2 +", &["1", "2"]),
        ("mode 1 + | open 2 +", &["1", "2"]),
        ("open 1 + | mode 2 + | open 3 +", &["2", "3"]),
        ("open 1 + | open 2 ! | open 3 -", &["1"]),
        ("open 1 - | mode 2 !", &[]),
        ("other 1 + | Open 2 + | open\\u0000 3 + | open/ 4 +", &[]),
        ("\\u006fpen 1 +", &["1"]),
    ];
    for (calls, expected) in table {
        let mut session = Harness::open_with(restoring());
        for (number, call) in calls.split(" | ").enumerate() {
            let [tool, argument, end] = call.split(' ').collect::<Vec<_>>()[..] else { panic!("{call}") };
            let stream = 10 + number as u64;
            let id = session.call_with(stream, Takes::Events, &call_of(&number.to_string(), tool, argument));
            session.child(&match end {
                "+" => result(&id),
                "!" => tool_error(&id),
                _ => error(&id),
            });
        }
        assert_eq!(taken(&mut session), expected, "after {calls}");
        assert_eq!(taken(&mut session), expected, "each later child is sent the same, after {calls}");
        session.assert_nothing_in_flight();
    }
}

#[test]
fn two_calls_of_a_tool_at_once_count_in_the_order_in_which_they_were_sent() {
    for backwards in [false, true] {
        let mut session = Harness::open_with(restoring());
        let mut ids = [1, 2].map(|call| {
            let name = call.to_string();
            session.call_with(call + 1, Takes::Events, &call_of(&name, "open", &name))
        });
        if backwards {
            ids.reverse();
        }
        for id in ids {
            session.child(&result(&id));
        }
        assert_eq!(taken(&mut session), ["2"], "backwards: {backwards}");
    }
}

#[test]
fn what_clients_send_waits_until_the_last_of_them_has_been_answered_and_the_answers_reach_nobody() {
    let mut session = Harness::open_with(restoring());
    for (id, tool) in [("7", "open"), ("8", "mode")] {
        let id = session.call_with(2, Takes::Events, &call_of(id, tool, "{}"));
        session.child(&result(&id));
    }
    let first = replace(&mut session).remove(0);
    assert_eq!(session.client(3, &request("9", "x")), Ok(None));
    assert_eq!(session.client(4, &note("n")), Ok(None));
    assert_eq!(session.stdin(), [""; 0], "the child is at work on the first");
    let told = session.child(&progress(&id_of(&first), 1));
    assert_eq!(told, dropped(Dropped::Restored), "of a child that takes the id for the token");
    assert!(session.awaits(&result(&id_of(&first))));
    assert_eq!(session.child(&result(&id_of(&first))), restored(0));
    let [second] = &session.stdin()[..] else { panic!("the other one, alone") };
    assert_eq!(session.child(&result(&id_of(second))), restored(1));
    let late = session.stdin();
    assert_eq!(late, [request(&id_of(&late[0]), "x"), note("n")]);
    assert_eq!(session.child(&result(&id_of(&first))), dropped(Dropped::Late), "it has been answered");
    assert_eq!(session.child(&result(&id_of(&late[0]))), answer(3, &result("9")));
    session.assert_nothing_in_flight();
}

#[test]
fn a_question_of_the_child_during_such_a_call_goes_to_its_client_and_the_answer_to_the_child() {
    let mut session = Harness::open_with(restoring());
    let id = session.call_with(2, Takes::Events, &call_of("7", "open", "{}"));
    session.child(&result(&id));
    replace(&mut session);
    session.live.insert(LISTENING);
    let question = request("\"q\"", "roots/list");
    assert_eq!(session.child(&question), event(LISTENING, &question));
    session.client(2, &result("\"q\"")).unwrap();
    assert_eq!(session.stdin(), [result("\"q\"")], "the child may need it to go on");
}

#[test]
fn a_call_that_fails_is_noted_and_the_rest_goes_on() {
    type Fail = fn(&mut Harness, &str) -> Vec<Output>;
    let refusal = || NotRestored::Error { code: "-1".to_owned(), said: "no".to_owned() };
    let table: [(&str, Fail, NotRestored, bool); 7] = [
        ("an error", |session, id| session.child(&error(id)).into_iter().collect(), refusal(), true),
        (
            "an error without its id",
            |session, _| session.child(&error("null")).into_iter().collect(),
            refusal(),
            true,
        ),
        (
            "a tool's error",
            |session, id| session.child(&tool_error(id)).into_iter().collect(),
            NotRestored::ToolError,
            true,
        ),
        ("no answer", |session, _| session.at(session.now + secs(10)), NotRestored::Timeout, false),
        (
            "an answer that is too long",
            |session, id| {
                session.too_long(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#));
                session.at(session.now)
            },
            NotRestored::Unreadable,
            true,
        ),
        (
            "one that is too long and says nothing of its id",
            |session, _| {
                session.too_long(r#"{"result":{"x":"#);
                session.at(session.now)
            },
            NotRestored::Unreadable,
            true,
        ),
        (
            "one that is no JSON",
            |session, id| {
                session.broken(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"x":NaN}}}}"#));
                session.at(session.now)
            },
            NotRestored::Unreadable,
            true,
        ),
    ];
    for (what, fail, why, again) in table {
        let mut session = Harness::open_with(restoring());
        for (id, tool) in [("7", "open"), ("8", "mode")] {
            let id = session.call_with(2, Takes::Events, &call_of(id, tool, &format!("\"{tool}\"")));
            session.child(&result(&id));
        }
        let first = replace(&mut session).remove(0);
        session.client(3, &request("9", "x")).unwrap();
        assert_eq!(fail(&mut session, &id_of(&first)), not_restored(0, why).into_iter().collect::<Vec<_>>());
        let mut told = session.stdin();
        if !again {
            let cancelled = told.remove(0);
            assert!(cancelled.contains("notifications/cancelled"), "{what}: {cancelled}");
            assert!(cancelled.contains(&id_of(&first)), "{what}: {cancelled}");
        }
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        assert_eq!(session.child(&result(&id_of(&told[0]))), restored(1), "{what}");
        let late = session.stdin();
        assert_eq!(late, [request(&id_of(&late[0]), "x")], "{what}");
        session.child(&result(&id_of(&late[0])));
        let expected = if again { &[r#""open""#, r#""mode""#][..] } else { &[r#""mode""#] };
        assert_eq!(taken(&mut session), expected, "what brings no answer is not tried again: {what}");
    }
}

#[test]
fn a_call_that_a_child_died_of_is_sent_to_no_other() {
    let mut session = Harness::open_with(restoring());
    for (id, tool) in [("7", "open"), ("8", "mode")] {
        let id = session.call_with(2, Takes::Events, &call_of(id, tool, &format!("\"{tool}\"")));
        session.child(&result(&id));
    }
    assert_eq!(replace(&mut session).len(), 1);
    session.client(3, &request("9", "x")).unwrap();
    assert_eq!(session.front.child_lost(), [], "no client's call was with it");
    session.front.restart(session.now, &mut session.out);
    assert_eq!(session.outputs(), not_restored(0, NotRestored::Lost).into_iter().collect::<Vec<_>>());
    let id = session.line()["id"].to_string();
    session.child(&result(&id));
    let told = session.stdin();
    assert!(told[1].contains(r#""mode""#) && told.len() == 2, "{told:?}");
    session.child(&result(&id_of(&told[1])));
    assert_eq!(session.stdin().len(), 1, "and what the client has sent");
    assert_eq!(session.front.child_lost(), [(StreamId(3), client_id("9"))]);
    session.front.check();
}

#[test]
fn a_child_that_is_lost_before_it_is_sent_any_is_not_what_such_a_call_has_done() {
    let mut session = Harness::open_with(restoring());
    let id = session.call_with(2, Takes::Events, &call_of("7", "open", "1"));
    session.child(&result(&id));
    for _ in 0..9 {
        session.front.child_lost();
        session.front.restart(session.now, &mut session.out);
        assert_eq!(session.outputs(), []);
    }
    assert_eq!(taken(&mut session), ["1"]);
}

#[test]
fn the_arguments_stay_as_they_were_and_the_progress_token_does_not() {
    // What a client sends, and what a new child is sent; in both the id is `ID`.
    let table = [
        (
            r#"{"id":ID,"params":{"arguments":{"a" : [1.0e2,"\u00e4"] },"name":"open"},"method":"tools/call","jsonrpc":"2.0"}"#,
            r#"{"id":ID,"params":{"arguments":{"a" : [1.0e2,"\u00e4"] },"name":"open"},"method":"tools/call","jsonrpc":"2.0"}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","params":{"_meta":{"progressToken":"p","x":1}, "name":"open" ,"arguments":{ }},"method":"tools/call","id":ID}"#,
            r#"{"jsonrpc":"2.0","params":{"_meta":{"x":1}, "name":"open" ,"arguments":{ }},"method":"tools/call","id":ID}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"open","_meta":{"\u0070rogressToken":7}}}"#,
            r#"{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"open","_meta":{}}}"#,
        ),
    ];
    for (sent, expected) in table {
        let mut out = Out::default();
        let keyed = Keyed::open(restoring(), message(OPENING).request().unwrap(), Duration::ZERO, &mut out);
        let mut keyed = Harness::of(keyed, out);
        keyed.child(&result("1"));
        keyed.stdin();
        let id = keyed.call_with(2, Takes::Events, &sent.replace("ID", "77"));
        keyed.child(&result(&id));
        let told = replace(&mut keyed).remove(0);
        assert_eq!(told, expected.replace("ID", &id_of(&told)), "in a session of keys");

        let mut session = Harness::open_with(restoring());
        let id = session.call_with(2, Takes::Events, &sent.replace("ID", "77"));
        session.child(&result(&id));
        let told = replace(&mut session).remove(0);
        assert_eq!(told, expected.replace("ID", &id_of(&told)));
    }
}

#[test]
fn a_call_that_was_cancelled_timed_out_or_left_changes_nothing() {
    let mut session = Harness::open_with(restoring());
    let id = session.call_with(2, Takes::Events, &call_of("1", "open", "1"));
    session.child(&result(&id));
    let cancelled = session.call_with(3, Takes::Events, &call_of("2", "open", "2"));
    session.client(3, &cancel("2")).unwrap();
    session.child(&result(&cancelled));
    let late = session.call_with(4, Takes::Events, &call_of("3", "open", "3"));
    assert_eq!(session.at(secs(100)), [unanswered(4, "3", Unanswered::Timeout)]);
    session.child(&result(&late));
    session.call_with(5, Takes::Events, &call_of("4", "open", "4"));
    assert_eq!(taken(&mut session), ["1"]);
    session.assert_nothing_in_flight();
}

#[test]
fn one_that_cannot_be_remembered_takes_the_one_before_it_along() {
    let long = format!("\"{}\"", "x".repeat(64 * 1024));
    let task = r#"1},"task":{"ttl":1},"x":{"y":1"#;
    let long_answer = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"x":{long}}}}}"#);
    let unfinished =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required"}}}}"#);
    let table: [(&str, &str, String, &[&str]); 5] = [
        ("a long call", &long, result("3"), &[]),
        ("a long call that fails", &long, tool_error("3"), &["1"]),
        ("a long answer", "2", long_answer("3"), &[]),
        ("a call that is a task", &format!("{{\"z\":{task}}}"), result("3"), &[]),
        ("a result on the way to another", "2", unfinished("3"), &["1"]),
    ];
    for (what, arguments, end, expected) in table {
        let mut session = Harness::open_with(restoring());
        let id = session.call_with(2, Takes::Events, &call_of("1", "open", "1"));
        session.child(&result(&id));
        session.call_with(3, Takes::Events, &call_of("2", "open", arguments));
        assert!(session.is_message(&end));
        let notes = session.outputs().iter().filter(|output| matches!(output, Output::Note(_))).count();
        assert_eq!(notes, usize::from(expected.is_empty()), "it is said: {what}");
        assert_eq!(taken(&mut session), expected, "{what}");
    }
}

#[test]
fn what_is_remembered_is_bounded_with_what_is_in_flight_and_is_said_once() {
    let mut session = Harness::open_with(restoring());
    let long = format!("\"{}\"", "x".repeat(60 * 1024));
    let ids: Vec<String> = (0..20)
        .map(|number| {
            session.call_with(10 + number, Takes::Events, &call_of(&number.to_string(), "open", &long))
        })
        .collect();
    session.front.check();
    let mut said = 0;
    for (number, id) in ids.iter().enumerate() {
        assert!(session.is_message(&result(id)));
        let outputs = session.outputs();
        said +=
            outputs.iter().filter(|output| matches!(output, Output::Note(Note::NotRemembered(0)))).count();
        assert_eq!(said, usize::from(number >= 17), "1 MiB: {number}");
        session.front.check();
    }
    assert_eq!(taken(&mut session), [""; 0], "the last one was not remembered");
    let id = session.call_with(2, Takes::Events, &call_of("99", "open", &long));
    session.child(&result(&id));
    assert_eq!(taken(&mut session), [long]);
}

#[test]
fn one_that_the_child_refuses_as_not_ready_is_sent_again_like_any_other() {
    let refusal = Some(std::sync::Arc::new(regex_lite::Regex::new("not ready").unwrap()));
    let ready = Readiness { delay: secs(1), refusal, timeout: secs(20) };
    let mut session = Harness::open_with(Limits { ready, ..restoring() });
    session.at(secs(1));
    let not_ready =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-1,"message":"not ready"}}}}"#);
    let id = session.call_with(2, Takes::Events, &call_of("7", "open", "1"));
    session.child(&result(&id));
    assert_eq!(replace(&mut session), [""; 0], "each child has the delay");
    session.client(3, &request("9", "x")).unwrap();
    assert_eq!(session.at(secs(2)), []);
    let first = session.line()["id"].to_string();
    assert_eq!(session.child(&not_ready(&first)), Some(Output::Note(Note::NotReady)));
    assert_eq!(session.stdin(), [""; 0], "the client's waits on");
    assert_eq!(session.front.next_deadline(), Some(secs(2) + Duration::from_millis(250)));
    session.at(secs(3));
    let second = session.line()["id"].to_string();
    assert_ne!(first, second);
    assert_eq!(session.child(&result(&second)), restored(0));
    assert_eq!(session.line()["method"], "x");
    // When it is no longer believed, it is a refusal.
    replace(&mut session);
    session.at(secs(4));
    let id = session.line()["id"].to_string();
    let refused = NotRestored::Error { code: "-1".to_owned(), said: "not ready".to_owned() };
    session.now = secs(24);
    assert_eq!(session.child(&not_ready(&id)), not_restored(0, refused));
}

#[test]
fn without_a_tool_that_is_named_nothing_is_sent_again() {
    for limits in
        [Limits { restore: None, ..restoring() }, Limits { restore: Some([].into()), ..restoring() }]
    {
        let mut session = Harness::open_with(limits);
        let id = session.call_with(2, Takes::Events, &call_of("7", "open", "1"));
        session.child(&result(&id));
        assert_eq!(taken(&mut session), [""; 0]);
    }
}

/// What can befall a call of a client while two others are being sent again, in letters: `a` and `e` the child answers or
/// refuses what it has received last, `t` a time limit of the bridge's passes, `c` the client cancels, `l` the child is
/// lost and another comes, `p` a call of a tool that is restored comes too.
const EVENTS: [char; 6] = ['a', 'e', 't', 'c', 'l', 'p'];

#[test]
fn a_clients_call_ends_exactly_once_in_every_order_of_events() {
    for order in 0..EVENTS.len().pow(5) {
        let events: String =
            (0..5).map(|place| EVENTS[order / EVENTS.len().pow(place) % EVENTS.len()]).collect();
        let mut session = Harness::open_with(restoring());
        for (id, tool) in [("1", "open"), ("2", "mode")] {
            let id = session.call_with(2, Takes::Events, &call_of(id, tool, "{}"));
            session.child(&result(&id));
        }
        let mut last = replace(&mut session).pop().map(|line| id_of(&line));
        session.live.insert(3);
        session.client(3, &request("7", "x")).unwrap();
        let (mut ends, mut calls) = (0, 1);
        let ended = |outputs: &[Output]| {
            let is_end =
                |output: &&Output| matches!(output, Output::Answer { .. } | Output::Unanswered { .. });
            outputs.iter().filter(is_end).count()
        };
        for (place, event) in events.chars().enumerate() {
            match event {
                'a' | 'e' => {
                    let Some(id) = last.take() else { continue };
                    session.is_message(&if event == 'a' { result(&id) } else { error(&id) });
                }
                't' => {
                    session.now += secs(10);
                    ends += ended(&session.at(session.now));
                }
                'c' => drop(session.front.client(
                    message(&cancel("7")),
                    Origin {
                        stream: StreamId(3),
                        takes: Takes::Events,
                        arrived: session.now,
                        mirrored: Mirrored::nothing(),
                    },
                    session.now,
                    &mut session.out,
                )),
                'p' => {
                    calls += 1;
                    let id = format!("1{place}");
                    session.client(20 + place as u64, &call_of(&id, "open", "{}")).unwrap();
                }
                _ => {
                    ends += session.front.child_lost().len();
                    session.out.clear();
                    session.front.restart(session.now, &mut session.out);
                    let id = session.line()["id"].to_string();
                    session.is_message(&result(&id));
                }
            }
            ends += ended(&session.outputs());
            let told = session.stdin();
            let requests = told.iter().filter(|line| line.contains(r#""id""#));
            last = requests.map(|line| id_of(line)).next_back().or(last);
            session.front.check();
        }
        ends += session.front.abandon().len();
        assert_eq!(ends, calls, "after {events}");
    }
}
