//! Faults of a child that writes what is nearly a message, or what was written to it: nobody waits for an answer that has
//! come and cannot be taken.

use std::time::{Duration, Instant};

use crate::beside::{Beside, assert_fault, assert_goes_on, call};
use crate::support::{Bridge, Value, example, initialize, json, text_of, tool_call};

/// Answers each call with this line, in which `ID` stands for the id.
#[track_caller]
fn verbatim(line: &str) -> Beside {
    let line = line.replace('\'', r"'\''");
    Beside::with_script(&[], &format!(r#"exec "$0" verbatim '{line}'"#))
}

#[test]
fn what_names_a_call_and_cannot_be_taken_ends_it_at_once_and_says_why() {
    for (line, why) in [
        (r#"{"jsonrpc":"2.0","id":ID,"result":{"x":NaN}}"#, "NaN and Infinity are not JSON"),
        (r#"{"jsonrpc":"2.0","id":ID,"result":{"x":"a\x09b"}}"#, "a raw control character"),
        (r#"{"id":ID,"result":{}}"#, r#""jsonrpc" must be "2.0""#),
        (r#"{"jsonrpc":"1.0","id":ID,"result":{}}"#, r#""jsonrpc" must be "2.0""#),
        (r#"{"jsonrpc":"2.0","id":ID,"result":{},"result":{}}"#, r#""result" occurs twice"#),
        (r#"{"jsonrpc":"2.0","id":ID,"result":{},"error":{}}"#, "either a result or an error"),
        (r#"{"jsonrpc":"2.0","id":ID,"result":{"secret":1,},}"#, "a comma before a closing bracket"),
        (r#"{"jsonrpc":"2.0","id":ID,"result":{"text":"half of it"#, "cut off"),
        ("{'jsonrpc': '2.0', 'id': ID, 'result': {}}", "double quotes"),
        (r#"\x1b[0m{"jsonrpc":"2.0","result":{"x":NaN},"id":ID}\x1b[0m and more"#, "NaN and Infinity"),
    ] {
        let beside = verbatim(line);
        let bad = beside.bad();
        beside.during(|| {
            let answer = call(&bad).answer();
            assert_eq!(answer["id"], 7, "{line}");
            assert_fault(&answer, "invalid_response", &json!({}));
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains(why) && message.contains("at byte"), "{line}: {message}");
            assert!(!message.contains("secret"), "nothing of the payload");
            beside.logged(&bad, &["WARN", r#"event="child.nearly_message""#, &why.replace('"', "\\\"")]);
            assert_goes_on(&bad);
        });
        beside.finish();
    }
}

#[test]
fn what_is_whole_is_taken_whatever_stands_about_it() {
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"a"}]}}"#;
    const NOTE: &str =
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    for line in [
        format!(r"\x1b[32m{ANSWER}\x1b[0m"),
        format!("mcp server 1.0 is ready{ANSWER}"),
        format!("> {ANSWER}"),
        format!("{ANSWER} # sent"),
        format!("{NOTE}{ANSWER}"),
        format!("{ANSWER}{NOTE}"),
        format!("{{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":NaN}}{ANSWER}"),
    ] {
        let beside = verbatim(&line);
        let bad = beside.bad();
        beside.during(|| {
            assert_eq!(text_of(&call(&bad).answer()), "a", "{line}");
            beside.logged(&bad, &["WARN", r#"event="child.nearly_message""#]);
            assert_goes_on(&bad);
        });
        beside.finish();
    }
}

#[test]
fn a_log_line_that_quotes_a_message_is_none() {
    let line = r#"INFO got {"jsonrpc":"2.0","id":ID,"method":"roots/list"} DEBUG sent {"jsonrpc":"2.0","id":ID,"resul…\x0a{"level":"error","id":ID,"error":"x"}\x0a{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"a"}]}}"#;
    let beside = verbatim(line);
    let bad = beside.bad();
    beside.during(|| {
        assert_eq!(text_of(&call(&bad).answer()), "a");
        beside.logged(&bad, &["WARN", r#"event="child.stdout_noise""#, "INFO got"]);
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
fn an_initialize_that_is_answered_with_no_message_is_502_at_once() {
    let beside = Beside::with_script(
        &[],
        r#"exec "$0" verbatim '{"jsonrpc":"2.0","id":ID,"result":{"x":Infinity}}' init"#,
    );
    beside.arm();
    beside.during(|| {
        let mut response = beside.bridge.post(initialize("me", "2025-06-18").to_string());
        response.expect(502, "it cannot be taken");
        assert_eq!(response.header("mcp-bridge-error"), Some("invalid_response"));
        let answer = response.json();
        assert_eq!(answer["id"], "me");
        assert!(answer["error"]["message"].as_str().unwrap().contains("NaN and Infinity"), "{answer}");
    });
    beside.finish();
}

#[test]
fn a_command_that_copies_its_input_fails_at_once_and_is_called_so() {
    for options in [&[][..], &["--session-key", "shared"]] {
        let bridge = Bridge::start(&[&["--lazy"], options].concat(), &["cat"]);
        let began = Instant::now();
        let mut response = bridge.post(initialize("me", "2025-06-18").to_string());
        response.expect(502, "it answers nothing");
        assert!(began.elapsed() < Duration::from_secs(60), "not after --init-timeout");
        assert_eq!(response.header("mcp-bridge-error"), Some("child_echo"));
        let said = bridge.logged("that it echoes", |line| line.contains(r#"event="child.echo""#));
        assert!(said.contains("a terminal?"), "{said}");
    }
}

#[test]
fn what_a_terminal_echoes_reaches_no_client_and_ends_no_call() {
    let beside = Beside::start(&[], "terminal");
    let bad = beside.bad();
    beside.during(|| {
        let mut listening = bad.listen();
        for _ in 0..3 {
            assert_eq!(text_of(&call(&bad).answer()), "a");
            assert_eq!(bad.ping().status, 200);
        }
        let unknown = json!({ "jsonrpc": "2.0", "id": 8, "method": "of/its/own" }).to_string();
        assert_eq!(bad.post(unknown).answer()["error"]["code"], -32601);
        bad.notify("notifications/of_its_own", json!({}));
        beside.logged(&bad, &["WARN", r#"event="child.echo""#, "a terminal?"]);
        assert_eq!(bad.text("echo", json!({ "text": "last" })), "last");
        assert_goes_on(&bad);
        assert!(listening.event().is_none(), "nothing comes back");
    });
    let said = beside.bridge.log().iter().filter(|line| line.contains("child.echo")).count();
    assert_eq!(said, 1);
    beside.finish();
}

#[test]
fn progress_under_the_ids_of_two_calls_reaches_each_its_own() {
    let bridge = Bridge::start(&[], &[&example("hostile"), "progress_by_id"]);
    let session = bridge.session();
    for token in [None, Some("t")] {
        for id in [1, 2] {
            let mut own = tool_call(id, "echo", json!({ "text": "mine" }));
            if let Some(token) = token {
                own["params"]["_meta"] = json!({ "progressToken": token });
            }
            let waiting = session.begin(tool_call(3 - id, "sleep", json!({ "ms": 200 })).to_string());
            let mut response = session.post(own.to_string());
            let told = response.event().unwrap().json();
            assert_eq!(told["method"], "notifications/progress", "{told}");
            let want = token.map_or(json!(id), Value::from);
            let params = &told["params"];
            assert_eq!((&params["progressToken"], &params["message"]), (&want, &json!("mine")));
            assert_eq!(text_of(&response.answer()), "mine");
            waiting.response().answer();
        }
    }
}
