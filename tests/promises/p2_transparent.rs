//! P2: within one era every byte inside a message arrives as it was sent. Only the id is spliced, and raw line breaks
//! between tokens become spaces.

use crate::support::{self, Bridge, Scratch, Session, eventually, json, recorded, text_of};

/// A session with a child that keeps what it reads and writes.
struct Recorded {
    scratch: Scratch,
    session: Session,
    _bridge: Bridge,
}

impl Recorded {
    fn start(server: &str) -> Self {
        let scratch = Scratch::new();
        let command = recorded(&scratch, server);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let bridge = Bridge::start(&["--lazy"], &command);
        Recorded { session: bridge.session(), scratch, _bridge: bridge }
    }

    /// The line on the child's stdin that contains this text.
    #[track_caller]
    fn line_with(&self, text: &str) -> String {
        let mut found = None;
        eventually("the child is sent the message", || {
            let stdin = self.scratch.read("stdin");
            found = stdin
                .split_inclusive('\n')
                .find(|line| line.contains(text) && line.ends_with('\n'))
                .map(str::to_owned);
            found.is_some()
        });
        found.unwrap_or_default()
    }
}

/// Both halves around the place of the id arrive, with some other id in between.
#[track_caller]
fn assert_spliced(line: &str, before: &str, after: &str) {
    let id = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(&format!("{after}\n")));
    let id = id.unwrap_or_else(|| panic!("{before}…{after} arrived as {line}"));
    assert!(!id.is_empty() && id.len() < 40 && !id.contains(' '), "an id of the bridge's own: {id:?}");
}

#[test]
fn every_byte_of_a_request_but_its_id_reaches_the_child() {
    let recorded = Recorded::start("notebook");
    let before =
        r#"{ "params" :{"arguments":{"text":"\u00e9é\/ \ud83d\ude00 😀","n":123456789012345678901234567890,"#;
    let middle =
        r#""f":1.0e+40,"z":0.10,"text2":"\u2028","a":{"a":1,"a":2}},"name":"echo" } ,  "jsonrpc":"2.0","#;
    let tail = r#" "id"  : "#;
    let after = r#" ,"future":[null,{ }],"method":"tools\/call"}"#;
    let before = [before, middle, tail].concat();
    let mut response = recorded.session.post(format!(r#"{before}"mine"{after}"#));
    assert_eq!(text_of(&response.answer()), "éé/ 😀 😀");
    assert_spliced(&recorded.line_with("future"), &before, after);
}

#[test]
fn every_byte_of_a_notification_reaches_the_child() {
    let recorded = Recorded::start("hostile good");
    let body =
        r#"{"method":"notifications/vendor/thing","jsonrpc":"2.0", "params":{"deep":[1e999,-0,"\u0000"]} }"#;
    recorded.session.post(body).expect(202, "an unknown notification passes");
    assert_eq!(recorded.line_with("vendor"), format!("{body}\n"));
}

#[test]
fn the_initialize_request_itself_is_not_edited() {
    let recorded = Recorded::start("notebook");
    let line = recorded.line_with("\"initialize\"");
    let sent = support::initialize(0, "2025-06-18").to_string();
    let (before, after) = sent.split_once("\"id\":0").unwrap();
    assert_spliced(&line, &format!("{before}\"id\":"), after);
}

#[test]
fn a_pretty_printed_body_becomes_one_line() {
    let recorded = Recorded::start("notebook");
    let body = "{\r\n\t\"jsonrpc\": \"2.0\",\r\"method\":\n\n\"tools/call\",\r\n \"params\": {\n\"name\": \"echo\",\n\
                \"arguments\": {\"text\": \"a\\nb\"}\n},\n\"id\": 77\r\n}\r\n";
    let mut response = recorded.session.post(body);
    assert_eq!(text_of(&response.answer()), "a\nb");
    let line = recorded.line_with("\"a\\nb\"");
    assert!(!line.contains('\r'), "a lone CR ends a line for some servers: {line:?}");
    let flat = body.replace(['\r', '\n'], " ");
    let (before, after) = flat.trim_end().split_once("77").unwrap();
    assert_spliced(&format!("{}\n", line.trim_end()), before, after);
}

#[test]
fn every_byte_of_an_answer_but_its_id_reaches_the_client() {
    let recorded = Recorded::start("notebook");
    let mut response = recorded.session.post(support::tool_call("mine", "whoami", json!({})).to_string());
    let body = response.text();
    let stdout = recorded.scratch.read("stdout");
    let line = stdout.lines().find(|line| line.contains("pid")).unwrap();
    let (before, after) =
        line.split_once("\"id\":").map(|(before, after)| (before, after.split_once(',').unwrap().1)).unwrap();
    assert_eq!(body.trim_end(), format!(r#"{before}"id":"mine",{after}"#));
}

#[test]
fn an_id_comes_back_byte_for_byte() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let ids = [
        "0",
        "1",
        "-1",
        "9007199254740993",
        "123456789012345678901234567890",
        r#""""#,
        r#""1""#,
        r#""é😀""#,
        r#""\u0061\/\n\"""#,
        r#""a b""#,
    ];
    for id in ids {
        let mut response = session.post(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
        response.expect(200, id);
        let body = response.text();
        assert!(body.contains(&format!(r#""id":{id}"#)), "{id} came back as {body}");
    }
}

#[test]
fn an_id_as_long_as_a_page_comes_back() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let id = "x".repeat(4000);
    let mut response = bridge.session().post(format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"ping"}}"#));
    assert_eq!(response.json()["id"], id);
}

#[test]
fn an_unknown_method_is_for_the_child_to_refuse() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let answer = bridge.session().request("vendor/future", json!({ "a": 1 }));
    assert_eq!(answer["error"], json!({ "code": -32601, "message": "method not found: vendor/future" }));
}

#[test]
fn an_error_code_outside_of_the_standard_passes() {
    let bridge = Bridge::start(&[], &["hostile", "strict"]);
    let session = bridge.session();
    let answer = session.request("resources/read", json!({}));
    assert_eq!(answer["error"]["code"], -32601);
    let bridge = Bridge::start(&[], &["notebook"]);
    let answer = bridge.session().request("resources/read", json!({ "uri": "note:///none" }));
    assert_eq!(answer["error"]["code"], -32002);
}

#[test]
fn any_text_survives_the_round_trip() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    let texts = [
        "",
        "\0\u{1}\u{7f}",
        "\r\n\t\"\\/",
        "\u{2028}\u{2029}\u{feff}",
        "🦀é漢\u{10ffff}",
        "data: x\n\nevent: y\n\n",
    ];
    for text in texts {
        assert_eq!(session.text("echo", json!({ "text": text })), text);
    }
}

#[test]
fn a_text_of_megabytes_survives_the_round_trip() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let text = "0123456789abcdef".repeat(4 * 65_536);
    assert!(bridge.session().text("echo", json!({ "text": text })) == text, "4 MiB there and back");
}

#[test]
fn deep_nesting_passes_towards_the_child() {
    let recorded = Recorded::start("hostile good");
    let nested = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/deep","params":{{"a":{nested}}}}}"#);
    recorded.session.post(&body).expect(202, "deep nesting is legal JSON");
    assert!(recorded.line_with("notifications/deep") == format!("{body}\n"));
}

#[test]
fn deep_nesting_passes_towards_the_client() {
    let bridge = Bridge::start(&[], &["hostile", "deep", "100000"]);
    let mut response = bridge.session().post(support::tool_call(5, "echo", json!({})).to_string());
    response.expect(200, "deep nesting is legal JSON");
    let body = response.text();
    let nested = ["[".repeat(100_000), "]".repeat(100_000)].concat();
    assert!(body.contains(&nested), "the nesting arrives, not {} bytes", body.len());
}

// ---------------------------------------------------------------------------------------------- untidy children

/// A call of a child that is untidy in this way is answered as if it were not.
#[track_caller]
fn assert_understood(mode: &[&str]) -> Bridge {
    let bridge = Bridge::start(&[], &[&["hostile"], mode].concat());
    let session = bridge.session();
    for text in ["a", "b"] {
        assert_eq!(session.text("echo", json!({ "text": text })), text, "{mode:?}");
    }
    bridge
}

#[test]
fn banners_and_log_lines_on_stdout_are_skipped_and_reported() {
    let bridge = assert_understood(&["noise"]);
    let line = bridge.logged("noise is reported", |line| line.contains("welcome to hostile"));
    assert!(!line.contains('\u{1b}'), "escape sequences do not reach the terminal of the operator: {line:?}");
}

#[test]
fn json_that_is_no_message_is_skipped() {
    assert_understood(&["junk_json"]);
}

#[test]
fn byte_order_marks_crlf_and_blank_lines_do_not_matter() {
    assert_understood(&["framing"]);
}

#[test]
fn carriage_returns_between_tokens_become_spaces() {
    let bridge = assert_understood(&["cr"]);
    let mut response = bridge.session().start_call("echo", json!({ "text": "a" }));
    assert!(!response.text().contains('\r'));
}

#[test]
fn a_batch_of_the_child_is_taken_apart() {
    assert_understood(&["batch"]);
}

#[test]
fn a_broken_character_is_repaired_not_dropped() {
    let bridge = Bridge::start(&[], &["hostile", "bad_utf8"]);
    assert_eq!(bridge.session().text("echo", json!({ "text": "a" })), "\u{fffd}a");
}

#[test]
fn a_pretty_printing_child_is_named_in_the_log_and_its_call_still_ends() {
    let bridge = Bridge::start(&["--request-timeout", "1s"], &["hostile", "pretty"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({ "text": "a" }));
    assert_eq!(support::reason(&answer), "request_timeout");
    bridge
        .logged("the log says why", |line| line.contains("\\\"jsonrpc\\\"") || line.contains("\"jsonrpc\""));
}
