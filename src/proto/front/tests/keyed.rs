//! Sessions that the bridge opens in its own name, for clients that share them and cannot be told apart.

use super::*;
use crate::proto::front::keyed::Keyed;
use crate::proto::message::Envelope;

/// As the bridge writes it.
const OWN: &str =
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

/// As the child gets it.
const FIRST: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

const ANSWER: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"é"}}}"#;

const RESPAWN: Limits = Limits { respawn: true, ..LIMITS };

/// The spellings of ids and tokens that peers use.
const NAMES: [&str; 8] =
    ["7", r#""7""#, r#""""#, r#""a\u0062\"c""#, "-5", "-0", "123456789012345678901234567890", r#""é {}""#];

fn starting_with(limits: Limits) -> Harness<Keyed> {
    let mut out = Out::default();
    let front = Keyed::open(limits, message(OWN).request().unwrap(), Duration::ZERO, &mut out);
    Harness::of(front, out)
}

fn open_with(limits: Limits) -> Harness<Keyed> {
    let mut session = starting_with(limits);
    assert_eq!(session.child(ANSWER), None);
    assert!(session.is_open());
    session.stdin();
    session
}

fn open() -> Harness<Keyed> {
    open_with(LIMITS)
}

/// What a client is answered that opens the session with this id.
fn init_result(session: &mut Harness<Keyed>, id: &str) -> Option<String> {
    match session.client(99, &request(id, "initialize")) {
        Ok(Some(Output::Answer { stream: StreamId(99), message, success: true })) => {
            Some(String::from_utf8(message.to_vec()).unwrap())
        }
        Ok(None) => None,
        other => panic!("{other:?}"),
    }
}

// The handshake.

#[test]
fn the_bridge_greets_the_child_itself_and_says_initialized_once() {
    let mut session = starting_with(LIMITS);
    assert_eq!(session.stdin(), [FIRST]);
    assert_eq!(session.handshake, None);
    assert_eq!(session.front.in_flight(), 0, "it is no call of a client");
    assert_eq!(session.child(ANSWER), None, "no client has asked for it");
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
    assert!(session.is_open());
    assert_eq!(session.negotiated(), Some("2025-06-18"));
    session.swallowed(&note("notifications/initialized"));
}

#[test]
fn what_clients_say_during_the_handshake_waits_and_follows_in_order() {
    let mut session = starting_with(LIMITS);
    session.stdin();
    session.swallowed(&note("notifications/initialized"));
    for stream in [2, 3] {
        assert_eq!(session.client(stream, &request("7", "tools/call")), Ok(None));
    }
    session.client(4, &note("n")).unwrap();
    assert!(session.stdin().is_empty(), "servers refuse what comes before initialized");
    session.child(ANSWER);
    let want = [
        note("notifications/initialized"),
        request("2", "tools/call"),
        request("3", "tools/call"),
        note("n"),
    ];
    assert_eq!(session.stdin(), want);
}

#[test]
fn a_client_that_opens_the_session_during_the_handshake_waits_for_its_answer() {
    let mut session = starting_with(LIMITS);
    for stream in 1..=4 {
        assert_eq!(session.client(stream, &request("7", "initialize")), Ok(None));
    }
    assert_eq!(session.front.in_flight(), 4);
    let overload = Ok(Some(unanswered(5, "7", Unanswered::Overload)));
    assert_eq!(session.client(5, &request("7", "initialize")), overload);
    session.front.reader_left(StreamId(3), true, session.now, &mut session.out);
    assert_eq!(session.outputs(), [unanswered(3, "7", Unanswered::Cancelled)], "it does not come back");
    assert!(session.is_message(ANSWER));
    let want = ANSWER.replace(r#""id":1"#, r#""id":7"#);
    assert_eq!(session.outputs(), [1, 2, 4].map(|stream| answer(stream, &want).unwrap()));
    session.front.check();
    assert_eq!(session.front.in_flight(), 0);
}

#[test]
fn each_client_is_greeted_with_the_childs_answer_and_its_own_id() {
    let answers = [
        ANSWER,
        r#"{"result":{"id":1},"jsonrpc":"2.0", "id" : 1 }"#,
        r#"{"id":1.0,"jsonrpc":"2.0","result":{}}"#,
        r#"{"id":"1","jsonrpc":"2.0","result":{}}"#,
    ];
    for answer in answers {
        let mut session = starting_with(LIMITS);
        session.child(answer);
        let span = Envelope::peek(answer.as_bytes()).unwrap().id.unwrap();
        for id in NAMES {
            let want = format!("{}{id}{}", &answer[..span.start], &answer[span.end..]);
            assert_eq!(init_result(&mut session, id), Some(want));
        }
    }
}

#[test]
fn the_answer_of_a_child_that_loses_ids_reaches_each_client_under_its_own() {
    let mut session = starting_with(LIMITS);
    assert_eq!(session.client(1, &request("7", "initialize")), Ok(None));
    assert!(session.is_message(r#"{"jsonrpc":"2.0","result":{}}"#));
    assert_eq!(session.outputs(), [answer(1, r#"{"id":7,"jsonrpc":"2.0","result":{}}"#).unwrap()]);
    assert_eq!(init_result(&mut session, "8").as_deref(), Some(r#"{"id":8,"jsonrpc":"2.0","result":{}}"#));
    session.assert_nothing_in_flight();
}

#[test]
fn a_child_that_refuses_the_bridge_greets_nobody_and_is_told_no_more() {
    let mut session = starting_with(LIMITS);
    session.client(2, &request("7", "tools/call")).unwrap();
    session.client(3, &request("7", "tools/call")).unwrap();
    session.stdin();
    session.child(&error("1"));
    assert!(session.refused() && !session.is_open());
    assert_eq!(init_result(&mut session, "8"), None);
    assert!(session.stdin().is_empty());
    let ended = [(2, "7"), (3, "7"), (99, "8")].map(|(stream, id)| (StreamId(stream), client_id(id)));
    assert_eq!(session.front.abandon(), ended, "what waited gets its end");
}

#[test]
fn a_child_that_does_not_answer_the_bridge_has_the_time_of_a_handshake() {
    let mut session = starting_with(LIMITS);
    assert_eq!(session.front.next_deadline(), Some(secs(10)));
    assert_eq!(session.at(secs(9)), []);
    assert_eq!(session.at(secs(10)).first(), Some(&Output::Handshake(Handshake::TimedOut)));
    let mut session = open();
    assert_eq!(session.front.next_deadline(), None);
    assert_eq!(session.at(secs(1000)), [], "it has answered");
}

// Ids.

#[test]
fn equal_ids_of_several_clients_do_not_meet_in_any_order_of_answers() {
    for id in NAMES {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut session = open();
            let calls: Vec<(u64, String)> =
                (10..13).map(|stream| (stream, session.call(stream, id))).collect();
            let names: BTreeSet<&String> = calls.iter().map(|(_, name)| name).collect();
            assert_eq!(names.len(), 3, "the child sees three ids");
            for index in order {
                let (stream, name) = &calls[index];
                assert_eq!(session.child(&result(name)), answer(*stream, &result(id)), "{id} {order:?}");
                assert_eq!(session.child(&result(name)), dropped(Dropped::Late));
            }
            session.assert_nothing_in_flight();
        }
    }
}

#[test]
fn all_clients_together_have_the_places_of_one_session() {
    let mut session = open();
    let names: Vec<String> = (1..=4).map(|stream| session.call(stream, "7")).collect();
    assert_eq!(session.client(5, &request("7", "ping")), Ok(Some(unanswered(5, "7", Unanswered::Overload))));
    session.child(&result(&names[2]));
    assert_eq!(session.client(5, &request("7", "ping")), Ok(None));
}

#[test]
fn calls_of_one_id_time_out_one_by_one() {
    let mut session = open();
    let first = session.call(2, "7");
    session.now = secs(1);
    let second = session.call(3, "7");
    assert_eq!(session.at(secs(100)), [unanswered(2, "7", Unanswered::Timeout)]);
    assert_eq!(session.line()["params"]["requestId"].to_string(), first);
    assert_eq!(session.child(&result(&second)), answer(3, &result("7")));
    session.assert_nothing_in_flight();
}

// Progress.

/// Both ends of a request that asks for progress.
fn asking(text: &str, id: &str, token: &str) -> String {
    text.replace("<id>", id).replace("<token>", token)
}

#[test]
fn the_child_reads_the_calls_id_in_the_place_of_its_token() {
    let table = [
        r#"{"jsonrpc":"2.0","id":<id>,"method":"m","params":{"_meta":{"progressToken":<token>}}}"#,
        r#"{"params":{"_meta":{"progressToken":<token>},"name":"x"},"jsonrpc":"2.0","method":"m","id":<id>}"#,
        r#"{"method":"m","params":{"_meta":{"x":1,"progressToken":<token>,"y":2}},"id":<id>,"jsonrpc":"2.0"}"#,
        r#" { "id" : <id> , "params" : { "_meta" : { "progressToken" : <token> } } , "jsonrpc" : "2.0" , "method" : "m" } "#,
        r#"{"jsonrpc":"2.0","id":<id>,"method":"m","params":{"arguments":{"_meta":{"progressToken":9}},"_meta":{"progressToken":<token>}}}"#,
    ];
    for text in table {
        for (id, token) in NAMES.iter().flat_map(|id| NAMES.map(|token| (id, token))) {
            let mut session = open();
            assert_eq!(session.client(2, &asking(text, id, token)), Ok(None));
            assert_eq!(session.stdin(), [asking(text, "2", "2")], "{id} {token}");
            assert_eq!(session.child(&progress("2", 1)), event(2, &progress(token, 1)));
            assert_eq!(session.child(&result("2")), answer(2, &result(id)));
        }
    }
}

#[test]
fn raw_line_ends_between_an_id_and_a_token_do_not_shift_either() {
    for line_end in ["\n", "\r\n", "\r"] {
        for text in [
            "{\"id\":<id>,<>\"jsonrpc\":\"2.0\",<>\"method\":\"m\",\"params\":{<>\"_meta\":{\"progressToken\":<token><>}}}",
            "{<>\"params\":{\"_meta\":{<>\"progressToken\":<token>}},<>\"id\":<id>,<>\"jsonrpc\":\"2.0\",\"method\":\"m\"}",
        ] {
            let mut session = open();
            let sent = asking(text, "\"seven\"", "\"some token\"").replace("<>", line_end);
            assert_eq!(session.client(2, &sent), Ok(None));
            let read = asking(text, "2", "2").replace("<>", &" ".repeat(line_end.len()));
            assert_eq!(session.stdin(), [read]);
        }
    }
}

#[test]
fn what_is_no_token_reaches_no_child_either() {
    // A child that takes such a thing for a token would report under what may be another call's id.
    for token in ["3.0", "true", "null", r#"{"progressToken":3}"#, "[3]"] {
        let mut session = open();
        session.client(2, &call("1", token)).unwrap();
        assert_eq!(session.stdin(), [call("2", "2")]);
        assert_eq!(session.child(&progress("2", 1)), dropped(Dropped::Unrelated), "it was not asked for");
    }
}

#[test]
fn progress_is_told_under_the_clients_token_however_the_child_spells_its_own() {
    for child in ["2", "2.0", r#""2""#, "2e0"] {
        for token in NAMES {
            let mut session = open();
            session.call_with(2, Takes::Events, &call("1", token));
            assert_eq!(session.child(&progress(child, 1)), event(2, &progress(token, 1)));
            let last = r#"{"params":{"progress":2,"message":"progressToken", "progressToken" : <token> },"method":"notifications/progress","jsonrpc":"2.0"}"#;
            assert_eq!(
                session.child(&last.replace("<token>", child)),
                event(2, &last.replace("<token>", token))
            );
        }
    }
}

#[test]
fn equal_tokens_of_several_clients_do_not_meet() {
    let mut session = open();
    let calls: Vec<(u64, String)> = (10..13)
        .map(|stream| (stream, session.call_with(stream, Takes::Events, &call("1", "\"t\""))))
        .collect();
    for (stream, name) in calls.iter().rev() {
        assert_eq!(session.child(&progress(name, 1)), event(*stream, &progress("\"t\"", 1)));
    }
    session.child(&result(&calls[2].1));
    assert_eq!(
        session.child(&progress(&calls[0].1, 1)),
        event(10, &progress("\"t\"", 1)),
        "its call goes on"
    );
    assert_eq!(session.child(&progress(&calls[2].1, 1)), dropped(Dropped::Unrelated), "its call has ended");
}

#[test]
fn progress_under_the_id_of_a_call_bears_the_id_that_its_client_gave_it() {
    let mut session = open();
    session.call(2, "1");
    session.call(3, "1");
    session.call_with(4, Takes::Events, &call("1", "2"));
    for (child, stream, client) in [("2", 2, "1"), ("3", 3, "1"), ("4", 4, "2")] {
        assert_eq!(session.child(&progress(child, 1)), event(stream, &progress(client, 1)), "{child}");
    }
}

#[test]
fn progress_that_nobody_asked_for_reaches_nobody() {
    let mut session = open();
    session.call_with(2, Takes::Events, &call("1", "3"));
    session.call(3, "1");
    session.call_with(4, Takes::AnswerOnly, &call("1", "5"));
    let without = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
    let listed = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":[2]}"#;
    let log = progress("2", 1).replace("notifications/progress", "notifications/message");
    let table = [
        (progress("1", 1), Dropped::Unrelated, "the handshake"),
        (progress("99", 1), Dropped::Unrelated, "a call that never was"),
        (progress("\"t\"", 1), Dropped::Unrelated, "a token that was not given out"),
        (progress("null", 1), Dropped::Unrelated, "no token"),
        (without.to_owned(), Dropped::Unrelated, "none at all"),
        (listed.to_owned(), Dropped::Unrelated, "no members"),
        (log, Dropped::Unrelated, "no progress"),
        (progress("4", 1), Dropped::NotStreamable, "a client that takes JSON only"),
    ];
    for (text, why, what) in table {
        let told = session.unchanged(|session| session.child(&text));
        assert_eq!(told, dropped(why), "{what}");
    }
}

#[test]
fn a_token_whose_name_is_spelt_with_escapes_is_a_token() {
    let mut session = open();
    let text = call("1", "\"t\"").replace("progressToken", r"progress\u0054oken");
    session.client(2, &text).unwrap();
    assert_eq!(session.child(&progress("2", 1)), event(2, &progress("\"t\"", 1)));
}

// Cancellation.

#[test]
fn a_cancellation_names_the_one_call_with_this_id() {
    for id in NAMES {
        let mut session = open();
        let other = session.call(2, "\"other\"");
        let name = session.call(3, id);
        assert_eq!(session.client(4, &cancel(id)), Ok(None));
        assert_eq!(session.stdin(), [cancel(&name)]);
        session.swallowed(&cancel(id));
        assert_eq!(session.at(CANCEL_GRACE), [unanswered(3, id, Unanswered::Cancelled)]);
        assert_eq!(session.child(&result(&other)), answer(2, &result("\"other\"")), "the other goes on");
        session.assert_nothing_in_flight();
    }
}

#[test]
fn a_cancellation_that_may_mean_several_calls_means_none() {
    for (one, other) in [("7", "7"), (r#""a""#, r#""\u0061""#), ("0", "-0")] {
        let mut session = open();
        session.call(2, one);
        session.call(3, other);
        session.swallowed(&cancel(one));
        session.swallowed(&cancel(other));
    }
    let mut session = starting_with(LIMITS);
    session.client(2, &request("7", "tools/call")).unwrap();
    session.client(3, &request("7", "tools/call")).unwrap();
    session.swallowed(&cancel("7"));
}

#[test]
fn a_cancellation_of_nothing_in_flight_goes_no_further_than_the_bridge() {
    let mut session = open();
    let name = session.call(2, "7");
    for id in ["1", "\"7\"", "8", &name, "null", "0"] {
        session.swallowed(&cancel(id));
    }
}

#[test]
fn a_call_that_waits_for_the_handshake_is_withdrawn() {
    let mut session = starting_with(LIMITS);
    session.stdin();
    session.client(2, &request("7", "tools/call")).unwrap();
    assert_eq!(session.client(3, &cancel("7")), Ok(Some(unanswered(2, "7", Unanswered::Cancelled))));
    session.child(ANSWER);
    assert_eq!(session.stdin(), [note("notifications/initialized")]);
    session.assert_nothing_in_flight();
}

#[test]
fn a_cancellation_means_the_newer_call_when_the_older_has_ended() {
    let mut session = open();
    let (older, newer) = (session.call(2, "7"), session.call(3, "7"));
    session.child(&result(&older));
    assert_eq!(session.client(4, &cancel("7")), Ok(None));
    assert_eq!(session.stdin(), [cancel(&newer)]);
}

#[test]
fn a_cancellation_means_the_older_call_when_the_newer_has_ended() {
    let mut session = open();
    let (older, newer) = (session.call(2, "7"), session.call(3, "7"));
    session.child(&result(&newer));
    assert_eq!(session.client(4, &cancel("7")), Ok(None));
    assert_eq!(session.stdin(), [cancel(&older)]);
}

// What the child says unasked.

#[test]
fn what_the_child_tells_everybody_reaches_nobody() {
    let texts = [
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":"secret"}}"#
            .to_owned(),
        note("notifications/tools/list_changed"),
        r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"note:///a"}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"progressToken":2}}"#.to_owned(),
        note("x"),
    ];
    let (idle, mut busy) = (open(), open());
    busy.call_with(2, Takes::Events, &call("1", "2"));
    for mut session in [idle, busy, starting_with(LIMITS)] {
        for text in &texts {
            let told = session.unchanged(|session| session.child(text));
            assert_eq!(told, dropped(Dropped::Unrelated), "{text}");
        }
    }
}

#[test]
fn what_the_child_asks_is_answered_at_once_and_reaches_nobody() {
    let mut session = open();
    session.call(2, "7");
    for method in ["sampling/createMessage", "elicitation/create", "roots/list", "tasks/get", "x"] {
        for id in ["7", "2", r#""ask-\u0031""#, "-0"] {
            assert!(
                matches!(session.child(&request(id, method)), Some(Output::Note(Note::Replied(_)))),
                "{method}"
            );
            let line = session.stdin().concat();
            assert!(line.contains(&format!(r#""id":{id},"error""#)), "{line}");
            assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["error"]["code"], -32601, "{method}");
            let refused = session.client(3, &result(id));
            assert_eq!(refused, Err(Refusal::UnknownResponse), "no client can answer in its place");
        }
    }
    for id in ["7", "\"p\"", "1.5"] {
        assert_eq!(session.child(&request(id, "ping")), replied("ping"));
        assert_eq!(session.stdin(), [result(id)]);
    }
    session.child(&request("null", "roots/list"));
    assert_eq!(session.line()["error"]["code"], -32600);
    assert_eq!(session.at(LISTENER_GRACE), [], "nothing waits for a listener");
}

// With `respawn`.

#[test]
fn a_new_child_is_greeted_as_the_first_one_was_and_clients_as_before() {
    let mut session = open_with(RESPAWN);
    assert!(session.front.can_restart());
    let level = r#"{"jsonrpc":"2.0","id":<id>,"method":"logging/setLevel","params":{"_meta":{"progressToken":<token>},"level":"error"}}"#;
    let name = session.call_with(2, Takes::Events, &asking(level, "7", "\"t\""));
    session.child(&result(&name));
    let old = [session.call_with(3, Takes::Events, &call("7", "\"t\"")), session.call(4, "7")];
    assert_eq!(session.front.child_lost(), [(StreamId(3), client_id("7")), (StreamId(4), client_id("7"))]);
    session.client(5, &request("7", "tools/call")).unwrap();
    session.front.restart(session.now, &mut session.out);
    let [second_initialize] = &session.stdin()[..] else { panic!("it gets initialize, and the rest waits") };
    let name = message(second_initialize).id().unwrap().as_json().to_owned();
    assert_eq!(*second_initialize, FIRST.replace(r#""id":1"#, &format!(r#""id":{name}"#)));

    let other = ANSWER.replace(r#""id":1"#, &format!(r#""id":{name}"#)).replace("2025-06-18", "2024-11-05");
    assert_eq!(session.child(&other), None);
    let lines = session.stdin();
    assert_eq!(lines[0], note("notifications/initialized"));
    let level_again = message(&lines[1]).id().unwrap().as_json().to_owned();
    assert_eq!(
        lines[1],
        asking(level, &level_again, &level_again),
        "no client's token comes back as a call's id"
    );
    let call = message(&lines[2]).id().unwrap().as_json().to_owned();
    assert_eq!((lines.len(), &lines[2]), (3, &request(&call, "tools/call")));
    assert!(!old.contains(&name) && !old.contains(&level_again) && !old.contains(&call));

    let answered = init_result(&mut session, "1");
    assert_eq!(answered.as_deref(), Some(ANSWER), "what clients have been told stays true");
    for late in old {
        assert_eq!(session.child(&progress(&late, 1)), dropped(Dropped::Unrelated));
        assert_eq!(session.child(&result(&late)), dropped(Dropped::Late));
    }
    assert_eq!(session.child(&result(&call)), answer(5, &result("7")));
    session.assert_nothing_in_flight();
}

#[test]
fn a_child_that_never_opened_its_session_has_no_successor() {
    let mut session = starting_with(RESPAWN);
    assert!(!session.front.can_restart());
    session.child(&error("1"));
    assert!(!session.front.can_restart());
    assert!(!open().front.can_restart(), "not without `respawn` either");
}

#[test]
fn a_greeting_that_is_too_long_to_be_kept_ends_the_session_and_a_version_that_is_none_is_not_kept() {
    let mut session = starting_with(LIMITS);
    let padded = |length: usize| ANSWER.replace("é", &"é".repeat(length / 2));
    assert_eq!(session.child(&padded(MAX_GREETING)), Some(Output::Note(Note::LongGreeting(MAX_GREETING))));
    assert!(session.refused());
    let mut session = starting_with(LIMITS);
    session.child(&padded(MAX_GREETING - 1000));
    assert!(session.is_open());

    for (length, kept) in [(62, true), (63, false), (1_000_000, false)] {
        let version = "2".repeat(length);
        let mut session = starting_with(LIMITS);
        session.child(&ANSWER.replace("2025-06-18", &version));
        assert!(session.is_open());
        assert_eq!(session.negotiated(), kept.then_some(&*version), "{length} characters");
    }
}
