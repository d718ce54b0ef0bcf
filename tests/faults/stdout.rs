//! Faults of a child in the bytes it writes on stdout: no message, half a message, too long a message. Each with its exact
//! answer, its log line, and a session beside it that does not notice.

use crate::beside::{
    Answer, Beside, Fault, REQUEST_TIMEOUT, Then, assert_fault, assert_goes_on, call, check,
};
use crate::support::{Request, eventually, json, proc, reason, text_of, tool_call};

// ---------------------------------------------------------------------------------------------- bytes that are no message

#[test]
fn noise_on_stdout_is_skipped_and_ten_lines_of_it_are_logged_without_escapes() {
    let beside = Beside::start(&[], "noise");
    let bad = beside.bad();
    beside.during(|| {
        for _ in 0..20 {
            assert_eq!(text_of(&call(&bad).answer()), "a");
        }
        beside.logged(&bad, &["WARN", r#"event="child.stdout_noise""#, "count=1 ", "welcome to hostile"]);
        assert_goes_on(&bad);
        beside.logged(&bad, &[r#"event="session.end""#]);
    });
    let log = beside.bridge.log();
    let noise = log.iter().filter(|line| line.contains("child.stdout_noise")).count();
    assert_eq!(noise, 10, "then one a minute:\n{}", log.join("\n"));
    assert!(!log.iter().any(|line| line.contains('\u{1b}')), "no escape reaches the operator's terminal");
    beside.finish();
}

#[test]
fn json_that_is_no_message_is_noise() {
    let beside = Beside::start(&[], "junk_json");
    let bad = beside.bad();
    beside.during(|| {
        assert_eq!(text_of(&call(&bad).answer()), "a");
        for junk in [r#"42"#, r#"\"x\""#, "{}", "[]", "null", r#"{\"jsonrpc\":\"2.0\"}"#] {
            let line = format!(r#"line="{junk}""#);
            beside.logged(&bad, &["WARN", r#"event="child.stdout_noise""#, &line]);
        }
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
fn a_broken_character_is_repaired_and_logged() {
    let beside = check(&Fault {
        mode: "bad_utf8",
        options: &[],
        answer: Answer::Text("\u{fffd}a"),
        log: &["WARN", r#"event="child.invalid_utf8""#, "bytes="],
        then: Then::GoesOn,
    });
    beside.finish();
}

#[test]
fn broken_characters_that_are_no_message_and_odd_white_space_are_noise() {
    let beside = Beside::with_script(&[], r#"printf '\377\376\n\v\n'; exec "$0" good"#);
    let bad = beside.bad();
    beside.during(|| {
        assert_eq!(text_of(&call(&bad).answer()), "a");
        beside.logged(&bad, &[r#"event="child.stdout_noise""#, "\u{fffd}\u{fffd}"]);
        beside.logged(&bad, &[r#"event="child.stdout_noise""#, r#"line="\u{b}""#]);
        assert_goes_on(&bad);
    });
    beside.finish();
}

#[test]
fn what_is_no_utf8_counts_as_long_as_it_is_repaired() {
    const BYTES: usize = 10_000_000;
    for (max, fits) in [("29000000", false), ("31000000", true)] {
        let beside = Beside::start(&["--max-message", max], &format!("binary {BYTES}"));
        let bad = beside.bad();
        beside.during(|| {
            let mut response = call(&bad);
            let answer = response.answer();
            if fits {
                let text = answer["result"]["binary"].as_str().unwrap();
                assert!(text.chars().count() == BYTES && text.chars().all(|c| c == '\u{fffd}'));
                beside.logged(&bad, &["WARN", r#"event="child.invalid_utf8""#]);
            } else {
                assert_fault(&answer, "response_too_large", &json!({}));
                beside.logged(&bad, &["WARN", r#"event="child.message_too_long""#, "--max-message"]);
            }
        });
        if !fits {
            let peak = proc::peak_memory(beside.bridge.pid());
            assert!(peak < 32 << 20, "{} MiB for a line of {BYTES} bytes", peak >> 20);
        }
        beside.assert_unharmed();
    }
}

#[test]
fn byte_order_marks_crlf_and_blank_lines_are_not_even_noise() {
    let beside = check(&Fault {
        mode: "framing",
        options: &[],
        answer: Answer::Text("a"),
        log: &[],
        then: Then::GoesOn,
    });
    assert!(!beside.bridge.log().iter().any(|line| line.contains("child.stdout_noise")));
    beside.finish();
}

#[test]
fn a_carriage_return_between_tokens_ends_no_line_of_a_stream() {
    let beside = Beside::start(&[], "cr");
    let bad = beside.bad();
    beside.during(|| {
        for form in ["application/json", "text/event-stream"] {
            let request = Request::post("/mcp", tool_call(7, "echo", json!({ "text": "a" })).to_string());
            let mut response = beside.bridge.send(bad.headers(request.with("Accept", form)));
            assert_eq!(response.header("content-type"), Some(form));
            let body = response.text();
            assert!(!body.contains('\r'), "{body:?}");
            let message = body.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&body);
            assert_eq!(text_of(&serde_json::from_str(message).unwrap()), "a");
        }
        assert_goes_on(&bad);
    });
    beside.finish();
}

/// Where readers of events see the end of a line, though the standard knows only CR and LF.
const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

#[test]
fn what_some_readers_take_for_the_end_of_a_line_is_escaped_in_events_and_left_alone_in_json() {
    let beside = Beside::start(&["--max-message", "32MiB"], "good");
    let session = beside.bad();
    let ends: String = LINE_ENDS.iter().collect();
    // At each place of a piece, however events are cut.
    let long = (0..200_000).map(|n| LINE_ENDS[n % 3]).collect::<String>();
    let spread: String = (0..40).map(|n| "x".repeat(5000 + n) + &ends + "é—“日😀").collect();
    for text in ["a", &format!("a{ends}b"), &ends, &long, &spread] {
        for form in ["application/json", "text/event-stream"] {
            let body = tool_call(7, "echo", json!({ "text": text })).to_string();
            let mut response =
                beside.bridge.send(session.headers(Request::post("/mcp", body).with("Accept", form)));
            assert_eq!(response.header("content-type"), Some(form));
            let body = response.text();
            let is_raw = body.contains(LINE_ENDS);
            assert_eq!(is_raw, form == "application/json" && text.contains(LINE_ENDS), "{form}");
            let message = body.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&body);
            assert!(text_of(&serde_json::from_str(message).unwrap()) == text, "{form}, {} bytes", text.len());
        }
    }
    // The bridge's own words hold the client's id.
    let id = format!("id{ends}");
    let body = tool_call(&*id, "sleep", json!({ "ms": 5000 })).to_string();
    let request = session.headers(Request::post("/mcp", body)).with("Accept", "text/event-stream");
    let mut response = beside.bridge.send(request);
    assert_eq!(session.delete().status, 204);
    let event = response.event().unwrap();
    assert!(!event.raw.contains(LINE_ENDS), "{event:?}");
    assert_eq!((reason(&event.json()), &event.json()["id"]), ("session_terminated", &json!(id)));
    beside.finish();
}

#[test]
fn a_message_over_many_lines_is_noise_and_the_log_says_why() {
    let beside = check(&Fault {
        mode: "pretty",
        options: REQUEST_TIMEOUT,
        answer: Answer::Fault("request_timeout", json!({})),
        log: &["WARN", r#"event="child.stdout_noise""#, "a message must be on one line"],
        then: Then::GoesOn,
    });
    beside.finish();
}

#[test]
fn an_answer_over_the_limit_fails_its_own_call_and_names_the_option() {
    let beside = check(&Fault {
        mode: "huge 100000000",
        options: &["--max-message", "1MiB"],
        answer: Answer::Fault("response_too_large", json!({})),
        log: &["WARN", r#"event="child.message_too_long""#, "max=1048576", "--max-message"],
        then: Then::GoesOn,
    });
    let peak = proc::peak_memory(beside.bridge.pid());
    assert!(peak < 32 << 20, "{} MiB for a line of 100 MB and a limit of 1 MiB", peak >> 20);
    beside.finish();
}

#[test]
fn an_overlong_answer_that_may_be_anybodys_ends_the_session() {
    let answer = r#"printf '{"jsonrpc":"2.0","result":"'; head -c 2000000 /dev/zero | tr '\0' a; echo '"}'"#;
    let script = format!(r#"(until [ -e "$1.go" ]; do sleep 0.05; done; {answer}) & exec "$0" hang"#);
    let beside = Beside::with_script(&["--max-message", "1MiB"], &script);
    let bad = beside.bad();
    beside.during(|| {
        let calls = [1, 2].map(|id| bad.begin(tool_call(id, "echo", json!({})).to_string()));
        eventually("the child has both calls", || bad.seen_count("tools/call") > 2);
        beside.touch("armed.go");
        for (id, call) in (1..).zip(calls) {
            let answer = call.response().answer();
            assert_eq!(answer["id"], id);
            assert_fault(&answer, "response_too_large", &json!({ "cause": "response_too_large" }));
        }
        beside.logged(&bad, &["WARN", r#"event="child.message_too_long""#, "in_flight=2"]);
        beside.assert_over(&bad, "response_too_large", &json!({}));
    });
    beside.finish();
}

#[test]
fn an_array_of_millions_is_noise_and_costs_no_more_than_its_length() {
    const MIB: usize = 32;
    for (element, noise) in [("1,", r#"line="1""#), ("{},", r#"line="{}""#)] {
        let count = (MIB << 20) / element.len();
        let array = format!(r"printf '['; yes '{element}' | head -n {count} | tr -d '\n'; echo '1]'");
        let script = format!(r#"(until [ -e "$1.go" ]; do sleep 0.05; done; {array}) & exec "$0" good"#);
        let beside = Beside::with_script(&[], &script);
        let bad = beside.bad();
        beside.during(|| {
            beside.touch("armed.go");
            eventually("the array is noise", || {
                beside
                    .bridge
                    .log()
                    .iter()
                    .any(|line| line.contains("child.stdout_noise") && line.contains(noise))
            });
            assert_eq!(text_of(&call(&bad).answer()), "a");
            assert_goes_on(&bad);
        });
        let peak = proc::peak_memory(beside.bridge.pid());
        assert!(peak < (MIB as u64 + 24) << 20, "{} MiB for an array of {MIB} MiB", peak >> 20);
        beside.finish();
    }
}

#[test]
fn deep_nesting_passes() {
    let beside = Beside::start(&[], "deep 200000");
    let bad = beside.bad();
    beside.during(|| {
        let mut response = call(&bad);
        response.expect(200, "deep nesting is legal JSON");
        let body = response.text();
        assert!(body.contains(&["[".repeat(200_000), "]".repeat(200_000)].concat()), "{} bytes", body.len());
        assert_goes_on(&bad);
    });
    beside.finish();
}
