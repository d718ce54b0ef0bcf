//! Batches: several messages in one POST, in the one revision that has them (2025-03-26) and in no other.

use crate::support::{
    Bridge, Request, Response, Scratch, Session, Value, assert_refused, eventually, initialize, json, reason,
    recorded, text_of, tool_call,
};

const WITH_BATCHES: &str = "2025-03-26";
const WITHOUT: [&str; 3] = ["2024-11-05", "2025-06-18", "2025-11-25"];

fn start(options: &[&str], command: &[&str]) -> (Bridge, Session) {
    let bridge = Bridge::start(options, command);
    let session = bridge.initialize_as(WITH_BATCHES);
    assert_eq!(session.greeting["result"]["protocolVersion"], WITH_BATCHES);
    session.notify("notifications/initialized", json!({}));
    (bridge, session)
}

/// A session whose child's stdin is kept in `stdin` of the scratch directory.
fn start_recorded(scratch: &Scratch) -> (Bridge, Session) {
    let command = recorded(scratch, "notebook");
    start(&[], &command.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What the child has read behind the handshake, line by line.
fn lines(scratch: &Scratch, session: &Session) -> Vec<String> {
    // A line is written to the file before the next one is read.
    session.request("the/last", json!({}));
    let stdin = scratch.read("stdin");
    let lines = stdin.lines().skip(2).filter(|line| !line.contains("the/last"));
    lines.map(str::to_owned).collect()
}

fn echo(id: impl Into<Value>, text: &str) -> Value {
    tool_call(id, "echo", json!({ "text": text }))
}

/// The answers of a batch in the order of their texts or errors, whatever order they came in.
#[track_caller]
fn sorted(response: &mut Response) -> Vec<Value> {
    response.expect(200, "the batch is answered");
    let mut answers = match response.is_sse() {
        true => response.messages(),
        false => response.json().as_array().unwrap().clone(),
    };
    answers.sort_by_key(|answer| answer["id"].to_string());
    answers
}

fn ids(answers: &[Value]) -> Vec<&Value> {
    answers.iter().map(|answer| &answer["id"]).collect()
}

#[track_caller]
fn assert_alive(session: &Session) {
    assert_eq!(session.text("echo", json!({ "text": "still here" })), "still here");
}

// ---------------------------------------------------------------------------------------------- towards the child

#[test]
fn a_batch_reaches_the_child_as_one_line_per_message_in_order_and_never_as_an_array() {
    let scratch = Scratch::new();
    let (_bridge, session) = start_recorded(&scratch);
    let batch = concat!(
        "[ {\"jsonrpc\":\"2.0\",\"id\":\"a\",  \"method\":\"ping\"},\n\t",
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{\"big\":123456789012345678901234567890}} ,",
        "\r\n{\"method\":\"ping\",\n\"id\":7,\"jsonrpc\":\"2.0\",\"future\":[[1]]}]"
    );
    assert_eq!(sorted(&mut session.post(batch)).len(), 2);
    let lines = lines(&scratch, &session);
    let (before, after) = (r#"{"jsonrpc":"2.0","id":"#, r#",  "method":"ping"}"#);
    assert!(lines[0].starts_with(before) && lines[0].ends_with(after), "{lines:?}");
    assert_eq!(
        lines[1],
        r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"big":123456789012345678901234567890}}"#
    );
    let (before, after) = (r#"{"method":"ping", "id":"#, r#","jsonrpc":"2.0","future":[[1]]}"#);
    assert!(lines[2].starts_with(before) && lines[2].ends_with(after), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
}

// ---------------------------------------------------------------------------------------------- the form of the answer

#[test]
fn a_batch_that_is_answered_soon_is_answered_by_one_array() {
    let (_bridge, session) = start(&[], &["notebook"]);
    let batch = json!([echo(1, "a"), echo(2, "b"), echo(3, "c")]);
    let mut response = session.post(batch.to_string());
    assert_eq!(response.header("content-type"), Some("application/json"));
    let answers = sorted(&mut response);
    assert_eq!(answers.iter().map(text_of).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_batch_of_one_request_is_answered_by_one_object() {
    let (_bridge, session) = start(&[], &["notebook"]);
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    for batch in [json!([echo(1, "a")]), json!([note, echo(1, "a"), note])] {
        let mut response = session.post(batch.to_string());
        assert_eq!(text_of(&response.json()), "a");
    }
}

#[test]
fn a_batch_that_takes_its_time_is_answered_by_one_event_each_as_they_come() {
    let (_bridge, session) = start(&["--sse-after", "20ms"], &["notebook"]);
    let slow = tool_call("slow", "slow", json!({ "seconds": 0.3 }));
    let slower = tool_call("slower", "slow", json!({ "seconds": 0.6 }));
    let mut response = session.post(json!([slower, echo("quick", "a"), slow]).to_string());
    assert!(response.is_sse());
    let answers = response.messages();
    assert_eq!(ids(&answers), ["quick", "slow", "slower"]);
}

#[test]
fn a_client_that_takes_only_streams_gets_one_event_each() {
    let (bridge, session) = start(&[], &["notebook"]);
    let batch = json!([echo(1, "a"), echo(2, "b")]).to_string();
    let mut response =
        bridge.send(session.headers(Request::post("/mcp", batch)).with("Accept", "text/event-stream"));
    assert!(response.is_sse());
    let answers = response.messages();
    assert_eq!(ids(&answers), [1, 2]);
}

#[test]
fn a_client_that_takes_only_json_gets_one_array_however_long_it_takes() {
    let (bridge, session) = start(&["--sse-after", "20ms"], &["notebook"]);
    let batch = json!([tool_call(1, "slow", json!({ "seconds": 0.3 })), echo(2, "b")]).to_string();
    let mut response =
        bridge.send(session.headers(Request::post("/mcp", batch)).with("Accept", "application/json"));
    assert_eq!(ids(&sorted(&mut response)), [1, 2]);
}

#[test]
fn progress_within_a_batch_comes_on_its_stream() {
    let (_bridge, session) = start(&[], &["notebook"]);
    let count = |id: &str| {
        json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": "count", "arguments": { "to": 3, "delay_ms": 5 }, "_meta": { "progressToken": id } },
        })
    };
    let messages = session.post(json!([count("x"), count("y")]).to_string()).messages();
    for token in ["x", "y"] {
        let own: Vec<&Value> = messages
            .iter()
            .filter(|message| message["id"] == token || message["params"]["progressToken"] == token)
            .collect();
        assert_eq!(own.len(), 4, "{messages:?}");
        assert_eq!(own[3]["id"], token, "the answer comes behind its progress");
    }
    assert_eq!(messages.len(), 8);
    assert!(messages[7].get("result").is_some(), "the stream ends with the last answer");
}

#[test]
fn ids_of_a_batch_come_back_with_their_types() {
    let (_bridge, session) = start(&[], &["notebook"]);
    let batch = json!([echo(1, "number"), echo("1", "string"), echo("", "empty"), echo(-5, "negative")]);
    let answers = sorted(&mut session.post(batch.to_string()));
    let mut pairs: Vec<(String, String)> =
        answers.iter().map(|answer| (answer["id"].to_string(), text_of(answer))).collect();
    pairs.sort();
    let expected = [("\"\"", "empty"), ("\"1\"", "string"), ("-5", "negative"), ("1", "number")];
    assert_eq!(pairs, expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
}

// ---------------------------------------------------------------------------------------------- what else may stand in it

#[test]
fn of_a_mixed_batch_only_the_requests_are_answered() {
    let scratch = Scratch::new();
    let (_bridge, session) = start_recorded(&scratch);
    let mut call = session.start_call("list_roots", json!({}));
    let question = call.message();
    let batch = json!([
        { "jsonrpc": "2.0", "method": "notifications/first" },
        echo("a", "a"),
        { "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [{ "uri": "file:///a" }] } },
        echo("b", "b"),
        { "jsonrpc": "2.0", "method": "notifications/last" },
    ]);
    let answers = sorted(&mut session.post(batch.to_string()));
    assert_eq!(ids(&answers), ["a", "b"]);
    assert_eq!(text_of(&call.answer()), "file:///a", "the response in the batch reached the child");
    let lines = lines(&scratch, &session);
    let place = |part: &str| lines.iter().position(|line| line.contains(part)).expect("it reached the child");
    assert!(place("notifications/first") < place("notifications/last"), "{lines:?}");
}

#[test]
fn a_batch_without_a_request_is_202_without_a_body() {
    let (_bridge, session) = start(&[], &["hostile", "same_ids"]);
    let note = |name: &str| json!({ "jsonrpc": "2.0", "method": name });
    let mut call = session.start_call("echo", json!({ "text": "a" }));
    let question = call.message();
    let response =
        json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "content": { "text": "b" } } });
    let batches = [
        json!([note("notifications/1")]),
        json!([note("notifications/2"), response, note("notifications/3")]),
    ];
    for batch in batches {
        let mut response = session.post(batch.to_string());
        assert_eq!((response.status, response.bytes()), (202, vec![]), "{batch}");
    }
    assert_eq!(text_of(&call.answer()), "a|b");
    for n in 1..=3 {
        assert_eq!(session.seen_count(&format!("notifications/{n}")), 1);
    }
}

#[test]
fn an_empty_batch_is_400() {
    let (_bridge, session) = start(&[], &["notebook"]);
    for empty in ["[]", " [ \n] "] {
        let refusal = assert_refused(&mut session.post(empty), 400, "invalid_request");
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&Value::Null, &json!(-32600)));
    }
    assert_alive(&session);
}

#[test]
fn a_batch_with_initialize_in_it_is_400_and_none_of_it_reaches_the_child() {
    let (_bridge, session) = start(&[], &["hostile", "good"]);
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    for batch in [
        json!([note, initialize(1, WITH_BATCHES)]),
        json!([initialize(1, WITH_BATCHES), note]),
        json!([initialize(1, WITH_BATCHES)]),
    ] {
        let refusal = assert_refused(&mut session.post(batch.to_string()), 400, "invalid_request");
        assert_eq!(refusal["error"]["code"], -32600);
    }
    assert_eq!(session.seen_count("initialize"), 1);
    assert_eq!(session.seen_count("notifications/x"), 0);
}

#[test]
fn a_batch_with_a_bad_element_is_400_and_none_of_it_reaches_the_child() {
    let (_bridge, session) = start(&[], &["hostile", "good"]);
    let fine = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let bad = [
        "1",
        "null",
        "\"ping\"",
        "[]",
        "{}",
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
    ];
    for element in bad {
        for batch in [format!("[{fine},{element}]"), format!("[{element},{fine}]")] {
            let mut response = session.post(&batch);
            response.expect(400, &batch);
            assert_eq!(response.json()["error"]["code"], -32600, "{batch}");
        }
    }
    assert_eq!(session.seen_count("notifications/x"), 0);
}

#[test]
fn a_batch_that_is_no_json_is_a_parse_error() {
    let (_bridge, session) = start(&[], &["notebook"]);
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for batch in [
        "[".to_owned(),
        format!("[{ping}"),
        format!("[{ping},]"),
        format!("[{ping}]x"),
        format!("[{ping} {ping}]"),
    ] {
        assert_refused(&mut session.post(&batch), 400, "parse_error");
    }
    assert_alive(&session);
}

#[test]
fn of_an_id_that_comes_twice_in_one_batch_only_the_first_is_taken() {
    let scratch = Scratch::new();
    let (_bridge, session) = start_recorded(&scratch);
    let mut response =
        session.post(json!([echo(1, "first"), echo(1, "second"), echo(2, "other")]).to_string());
    if response.status == 200 {
        let answers = sorted(&mut response);
        assert_eq!(ids(&answers), [1, 1, 2], "one end for each");
        let (failed, fine): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer["error"].is_object());
        assert_eq!(fine.into_iter().map(text_of).collect::<Vec<_>>(), ["first", "other"]);
        assert_eq!(reason(failed[0]), "duplicate_id");
    } else {
        assert_refused(&mut response, 400, "duplicate_id");
    }
    assert!(lines(&scratch, &session).iter().all(|line| !line.contains("second")));
}

// ---------------------------------------------------------------------------------------------- one end for each

#[test]
fn a_child_that_dies_ends_each_request_of_a_batch() {
    let (_bridge, session) = start(&[], &["hostile", "die_in_call", "3", "2"]);
    let batch = json!([echo(1, "a"), echo(2, "b")]).to_string();
    let answers = sorted(&mut session.post(batch));
    assert_eq!(ids(&answers), [1, 2]);
    for answer in &answers {
        assert_eq!((reason(answer), &answer["error"]["data"]["exit_code"]), ("child_exited", &json!(3)));
    }
}

#[test]
fn requests_of_a_batch_over_the_limit_fail_alone() {
    let (_bridge, session) = start(&["--max-in-flight", "2"], &["notebook"]);
    let slow = |id: u64| tool_call(id, "slow", json!({ "seconds": 0.5 }));
    let mut first = session.post(slow(0).to_string());
    let answers = sorted(&mut session.post(json!([slow(1), slow(2)]).to_string()));
    assert_eq!(ids(&answers), [1, 2]);
    assert_eq!(text_of(&answers[0]), "waited 0.5 s");
    assert_eq!(reason(&answers[1]), "too_many_inflight");
    assert_eq!(text_of(&first.answer()), "waited 0.5 s");
}

#[test]
fn a_timeout_ends_one_request_of_a_batch_and_the_others_have_their_answers() {
    let (_bridge, session) = start(&["--request-timeout", "300ms"], &["notebook"]);
    let batch = json!([tool_call(1, "slow", json!({ "seconds": 60 })), echo(2, "b")]).to_string();
    let answers = sorted(&mut session.post(batch));
    assert_eq!(reason(&answers[0]), "request_timeout");
    assert_eq!(text_of(&answers[1]), "b");
}

#[test]
fn a_broken_off_batch_is_resumed_like_any_stream() {
    let (_bridge, session) = start(&["--sse-after", "0s"], &["notebook"]);
    let slow = tool_call("slow", "slow", json!({ "seconds": 0.2 }));
    let mut response = session.post(
        json!([echo("quick", "a"), slow, tool_call("slower", "slow", json!({ "seconds": 0.3 }))]).to_string(),
    );
    let first = response.event().unwrap();
    assert_eq!(first.json()["id"], "quick");
    drop(response);
    let rest = session.resume(first.id.as_deref().unwrap()).messages();
    assert_eq!(ids(&rest), ["slow", "slower"]);
}

// ---------------------------------------------------------------------------------------------- where there are none

#[test]
fn revisions_without_batches_refuse_them_and_the_child_sees_nothing() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let batch = json!([{ "jsonrpc": "2.0", "method": "notifications/x" }, echo(1, "a")]).to_string();
    for version in WITHOUT.iter().chain(&["2026-07-28", "2099-01-01"]) {
        let session = bridge.initialize_as(version);
        assert_eq!(session.greeting["result"]["protocolVersion"], *version);
        session.notify("notifications/initialized", json!({}));
        for body in [&*batch, "[]"] {
            let refusal = assert_refused(&mut session.post(body), 400, "invalid_request");
            assert_eq!(
                (&refusal["id"], &refusal["error"]["code"]),
                (&Value::Null, &json!(-32600)),
                "{version}"
            );
        }
        assert_eq!(session.seen_count("notifications/x"), 0, "{version}");
    }
}

#[test]
fn the_negotiated_revision_decides_and_not_the_header() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let batch = json!([echo(1, "a"), echo(2, "b")]).to_string();
    let send = |session: &Session, version: &str| {
        let request = session.headers(Request::post("/mcp", &batch));
        bridge.send(request.header("MCP-Protocol-Version", version))
    };
    let without = bridge.session();
    assert_refused(&mut send(&without, WITH_BATCHES), 400, "invalid_request");
    let with = bridge.initialize_as(WITH_BATCHES);
    assert_eq!(sorted(&mut send(&with, "2025-06-18")).len(), 2);
}

#[test]
fn a_batch_without_a_session_is_400_and_starts_no_child() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let bodies = [
        json!([initialize(1, WITH_BATCHES)]).to_string(),
        json!([initialize(1, WITH_BATCHES), { "jsonrpc": "2.0", "method": "notifications/initialized" }])
            .to_string(),
        json!([echo(1, "a")]).to_string(),
        json!([{ "jsonrpc": "2.0", "method": "notifications/x" }]).to_string(),
        "[]".to_owned(),
    ];
    for body in bodies {
        for version in [None, Some(WITH_BATCHES)] {
            let request = Request::post("/mcp", &body);
            let request = match version {
                None => request,
                Some(version) => request.header("MCP-Protocol-Version", version),
            };
            let mut response = bridge.send(request);
            response.expect(400, &body);
            assert_eq!(response.header("mcp-session-id"), None);
        }
    }
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_batch_before_the_revision_is_known_is_taken_or_refused_but_never_lost() {
    let bridge =
        Bridge::start(&["--sse-after", "20ms", "--keep-alive", "20ms"], &["hostile", "slow_init", "500"]);
    let mut response = bridge.post(initialize(0, WITH_BATCHES).to_string());
    assert!(response.is_sse(), "the session has its id before the child has answered");
    let id = response.header("mcp-session-id").expect("the session's id").to_owned();
    let batch = json!([echo(1, "a"), echo(2, "b")]).to_string();
    let mut statuses = Vec::new();
    eventually("the batch is taken", || {
        let mut answered = bridge.send(Request::post("/mcp", &batch).header("Mcp-Session-Id", &id));
        statuses.push(answered.status);
        answered.status == 200 && sorted(&mut answered).len() == 2
    });
    assert_eq!(response.answer()["id"], 0);
    assert!(statuses.iter().all(|status| matches!(status, 200 | 400)), "{statuses:?}");
}
