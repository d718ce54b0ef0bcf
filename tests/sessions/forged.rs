//! Messages that the bridge and a server behind it could read in two ways: one client of a shared session would answer,
//! cancel or hear the calls of another.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::support::{
    Bridge, Request, Response, Value, assert_refused, example, initialize, json, text_of, tool_call,
};

/// Servers by how they read, and whether each is fooled.
const READERS: [&[&str]; 4] = [
    &["hostile", "good"],
    &["hostile", "reads", "fold"],
    &["hostile", "reads", "first"],
    &["hostile", "reads", "nul"],
];

/// What an attacker sends to reach the call that the child knows by the number `<>`.
const FORGED: &[&str] = &[
    // Answers to it.
    r#"{"jsonrpc":"2.0","id":"a","ID":<>,"method":"tools/call","params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    r#"{"jsonrpc":"2.0","ID":<>,"id":"a","method":"tools/call","params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","iD":<>,"method":"tools/call","params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    r#"{"jsonrpc":"2.0","id":<>,"id":"a","method":"tools/call","params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","\u0069d":<>,"method":"tools/call","params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","id\u0000":<>,"method":"tools/call","params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    r#"{"jsonrpc":"2.0","method":"tools/call","Id":<>,"params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    r#"{"jsonrpc":"2.0","method":"tools/call","id\u0000\u0000":<>,"params":{"name":"echo","arguments":{"text":"FORGED"}}}"#,
    // Progress to it.
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"tell","arguments":{"text":"FORGED","times":1},"_meta":{"progressToken":"x","PROGRESSTOKEN":<>}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"tell","arguments":{"text":"FORGED","times":1},"_meta":{"progreſſToKen":<>}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"tell","arguments":{"text":"FORGED","times":1},"_meta":{"progressToken":<>,"progressToken":"x"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"tell","arguments":{"text":"FORGED","times":1},"_meta":{"progressToken":<>},"_meta":{"progressToken":"x"}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"tell","arguments":{"text":"FORGED","times":1},"_META":{"progressToken":<>}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","Params":{"name":"tell","arguments":{"text":"FORGED","times":1},"_meta":{"progressToken":<>}}}"#,
    r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"tell","arguments":{"text":"FORGED","times":1},"_meta":{"progressToken\u0000x":<>}}}"#,
    // Cancellations of it.
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine","RequestId":<>}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"REQUESTID":<>}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":<>,"requestId":"mine"}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId\u0000":<>}}"#,
    r#"{"jsonrpc":"2.0","method":"x","Method":"notifications/cancelled","params":{"requestId":<>}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled\u0000","params":{"requestId":<>}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":[<>]}"#,
    // The handshake once more.
    r#"{"jsonrpc":"2.0","id":7,"method":"ping","Method":"initialize"}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"initialize\u0000"}"#,
    r#"{"jsonrpc":"2.0","id":7,"method":"initialize","method":"ping"}"#,
];

fn post(bridge: &Bridge, text: String) -> Response {
    bridge.send(Request::post("/mcp", text))
}

/// What the child has read, by the attacker's own call.
fn seen(bridge: &Bridge) -> Vec<Value> {
    let mut response = post(bridge, tool_call("seen", "seen", json!({})).to_string());
    serde_json::from_str(&text_of(&response.answer())).unwrap()
}

#[test]
fn nobody_answers_cancels_or_hears_the_call_of_another_client_of_a_shared_session() {
    for reader in READERS {
        let bridge = Bridge::start(&["--session-key", "shared", "--lazy", "--sse-after", "0ms"], reader);
        let mut victims = tool_call("victim", "tell", json!({ "text": "mine", "ms": 2000, "times": 2 }));
        victims["params"]["_meta"] = json!({ "progressToken": "mine" });
        let mut victim = post(&bridge, victims.to_string());
        // More than any attacker has: the very number.
        let calls = seen(&bridge);
        let call = calls.iter().find(|entry| entry["method"] == "tools/call").unwrap();
        let number = call["id"].to_string();
        for forged in FORGED {
            let mut response = post(&bridge, forged.replace("<>", &number));
            let refusal = assert_refused(&mut response, 400, "invalid_request");
            let message = refusal["error"]["message"].as_str().unwrap();
            assert!(message.contains('"'), "{forged}: which member it is: {message}");
        }
        let messages = victim.messages();
        let (answer, progress) = messages.split_last().unwrap();
        assert_eq!((&answer["id"], &*text_of(answer)), (&json!("victim"), "mine"), "{reader:?}");
        assert_eq!(progress.len(), 2, "{progress:?}");
        for told in progress {
            assert_eq!(
                (&told["params"]["progressToken"], &told["params"]["message"]),
                (&json!("mine"), &json!("mine"))
            );
        }
        let methods: Vec<String> = seen(&bridge)
            .iter()
            .map(|entry| entry["method"].as_str().unwrap_or_default().to_owned())
            .collect();
        let want = ["initialize", "notifications/initialized", "tools/call", "tools/call", "tools/call"];
        assert_eq!(methods, want, "{reader:?} has read nothing of what was forged");
    }
}

/// A gateway in front of a session of one's own decides by what it reads, too.
#[test]
fn in_a_session_of_ones_own_nothing_can_be_read_in_two_ways_either() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "reads", "fold"]);
    let session = bridge.initialize_as("2025-03-26");
    for forged in FORGED {
        let forged = forged.replace("<>", "3");
        assert_refused(&mut session.post(&forged), 400, "invalid_request");
        let batch = format!(r#"[{{"jsonrpc":"2.0","id":1,"method":"ping"}},{forged}]"#);
        assert_refused(&mut session.post(&batch), 400, "invalid_request");
    }
    let mut opening = initialize(1, "2025-06-18").to_string();
    opening.insert_str(opening.len() - 1, r#","Method":"ping""#);
    assert_refused(&mut post(&bridge, opening), 400, "invalid_request");
    assert_eq!(session.seen().iter().filter(|entry| entry["method"] == "initialize").count(), 1);
}

/// Otherwise the tests above prove nothing.
#[test]
fn the_readers_of_these_tests_are_fooled_where_nothing_stands_before_them() {
    for (how, forged) in [("fold", FORGED[0]), ("first", FORGED[3]), ("nul", FORGED[5])] {
        let mut child = Command::new(example("hostile"))
            .args(["reads", how])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{}", forged.replace("<>", "77")).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], 77, "{how}");
        let _ = child.wait();
    }
}

#[test]
fn the_numbers_that_a_child_sees_cannot_be_guessed_from_ones_own() {
    let numbers = |bridge: &Bridge| -> Vec<u64> {
        (1..20).for_each(|_| drop(seen(bridge)));
        seen(bridge).iter().filter_map(|entry| entry["id"].as_u64()).collect()
    };
    let start = || Bridge::start(&["--session-key", "shared", "--lazy"], &["hostile", "good"]);
    let (one, other) = (numbers(&start()), numbers(&start()));
    assert_eq!((one.len(), other.len()), (21, 21), "the handshake, and twenty calls");
    let all: BTreeSet<u64> = one.iter().chain(&other).copied().collect();
    assert!(all.len() > 40, "the same numbers: {one:?} {other:?}");
    assert!(all.iter().all(|number| (1 << 20..1 << 31).contains(number)), "{all:?}");
    let steps: BTreeSet<i64> =
        one.windows(2).map(|pair| pair[1].cast_signed() - pair[0].cast_signed()).collect();
    assert!(steps.len() > 15 && steps.iter().any(|step| *step < 0), "they count: {one:?}");
}
