//! What strangers can make the bridge write into its log: few lines, short ones, nothing that acts on who reads them, and
//! nothing that is secret.

use std::process::Command;

use crate::support::{Bridge, Request, Scratch, Session, assert_refused, eventually, initialize, json};

fn lines(bridge: &Bridge, event: &str) -> Vec<String> {
    bridge.log().into_iter().filter(|line| line.contains(&format!("event=\"{event}\""))).collect()
}

#[test]
fn of_what_a_stranger_sends_a_little_comes_back_and_stands_in_the_log_ten_times() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let long = format!("http://{}", "a".repeat(50_000));
    for _ in 0..200 {
        let refused = assert_refused(
            &mut bridge.send(Request::new("GET", "/mcp").header("Origin", &long)),
            403,
            "origin_forbidden",
        );
        assert!(refused.to_string().len() < 700, "{refused}");
    }
    let refused = assert_refused(
        &mut bridge.send(Request::new("GET", "/mcp").with("Host", &"b".repeat(50_000))),
        403,
        "host_forbidden",
    );
    assert!(refused.to_string().len() < 700, "{refused}");
    bridge.get("/healthz").expect(200, "all has been logged that is to be");
    let forbidden = lines(&bridge, "http.forbidden");
    assert_eq!(forbidden.len(), 10, "then one a minute");
    assert!(forbidden.iter().all(|line| line.len() < 700), "{}", forbidden[0].len());
    assert!(forbidden[9].contains("count=10 "), "{}", forbidden[9]);
}

#[test]
fn somebody_who_tries_tokens_is_seen_and_no_token_is() {
    let scratch = Scratch::new();
    let file = scratch.write("token", "the-token-of-this-bridge-0001\n");
    let bridge = Bridge::start(&["--lazy", "--token-file", &file], &["hostile", "good"]);
    bridge.send(Request::new("GET", "/mcp")).expect(401, "no token is no guess");
    assert!(lines(&bridge, "auth.refused").is_empty());
    for number in 0..100 {
        let guess = format!("Bearer guessed-SECRET-{number}");
        bridge.send(Request::new("GET", "/mcp").header("Authorization", &guess)).expect(401, "a guess");
    }
    let refused = lines(&bridge, "auth.refused");
    assert_eq!(refused.len(), 10);
    assert!(refused[0].contains("WARN") && refused[9].ends_with("count=10"), "{refused:?}");
    assert!(!bridge.log().join("").contains("SECRET"));
}

#[test]
fn no_character_that_acts_on_a_terminal_or_a_reader_stands_in_either_form_of_the_log() {
    // ESC, DEL, C1 (CSI), a line separator, bidirectional overrides, a mark: from stderr, stdout, and a header.
    let acts = "A\x1b[31m\x07\x7f\u{85}\u{9b}31m\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}\u{feff}Z";
    for form in ["text", "json"] {
        let script = r#"printf '%s\n' "$1" >&2; printf '%s\n' "$1"; exec "$0" good"#;
        let hostile = crate::support::example("hostile");
        let bridge = Bridge::start(&["--log", form], &["sh", "-c", script, &hostile, acts]);
        let origin = format!("http://{}", "A\u{9b}31m\u{202e}\u{2028}\u{85}Z");
        bridge.send(Request::new("GET", "/mcp").header("Origin", &origin)).expect(403, "a foreign page");
        bridge.session();
        for event in ["child.stderr", "child.stdout_noise", "http.forbidden"] {
            let line = bridge.logged(event, |line| line.contains(event));
            let bad = |c: &char| {
                c.is_control()
                    || ('\u{200b}'..='\u{200f}').contains(c)
                    || ('\u{2028}'..='\u{202e}').contains(c)
                    || ('\u{2066}'..='\u{2069}').contains(c)
                    || *c == '\u{feff}'
            };
            assert_eq!(line.chars().find(bad), None, "{form}: {line:?}");
            assert!(line.contains("202e"), "it is there, written out: {line}");
            if form == "json" {
                let value: serde_json::Value = serde_json::from_str(&line).expect("an object");
                if event == "child.stderr" {
                    assert_eq!(value["line"], acts, "a program reads what was written");
                }
            }
        }
    }
}

#[test]
fn at_any_level_no_id_token_payload_header_or_query_stands_in_the_log() {
    let scratch = Scratch::new();
    let token = "MARKED-token-of-this-bridge-0001";
    let file = scratch.write("token", &format!("{token}\n"));
    let options = ["--token-file", &file, "--env-from-header", "CREDENTIAL=X-Credential", "--sse-compat"];
    let bridge = Bridge::start_with(&options, &["hostile", "good"], |command: &mut Command| {
        command.env("RUST_LOG", "trace,hyper=trace,h2=trace,mcp_bridge=trace");
    });
    let with = |request: Request| {
        request
            .header("Authorization", &format!("Bearer {token}"))
            .header("X-Credential", "MARKED-credential")
            .header("X-Other", "MARKED-header")
            .header("Cookie", "MARKED=cookie")
    };
    let mut message = initialize("MARKED-id", "2025-06-18");
    message["params"]["clientInfo"]["name"] = json!("MARKED-client");
    let mut response = bridge.send(with(Request::post("/mcp?key=MARKED-query", message.to_string())));
    response.expect(200, "it opens");
    let session = Session::from_response(bridge.address, &mut response);
    let post =
        |body: serde_json::Value| bridge.send(session.headers(with(Request::post("/mcp", body.to_string()))));
    let call = |id: &str| {
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": "echo", "arguments": { "text": "MARKED-payload" }, "_meta": { "progressToken": "MARKED-progress" } } })
    };
    post(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).expect(202, "taken");
    post(call("MARKED-call")).expect(200, "answered");
    // What is refused, and what nobody waits for.
    post(
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "MARKED-gone" } }),
    );
    post(json!({ "jsonrpc": "2.0", "id": "MARKED-response", "result": { "MARKED": 1 } }))
        .expect(400, "never asked");
    post(json!({ "jsonrpc": "2.0", "id": "MARKED-again", "method": "initialize" })).expect(400, "it is open");
    post(json!({ "jsonrpc": "2.0", "id": { "MARKED": 1 }, "method": "ping" })).expect(400, "no id");
    let slow = json!({ "jsonrpc": "2.0", "id": "MARKED-twice", "method": "tools/call",
        "params": { "name": "sleep", "arguments": { "ms": 2000, "MARKED": 1 } } });
    let bytes = session.headers(with(Request::post("/mcp", slow.to_string()))).to_bytes("localhost");
    let mut first = crate::support::http::Connection::open(bridge.address);
    first.write(&bytes);
    let line = |line: &String| line.contains("duplicate_id");
    eventually("an id in flight twice is refused", || {
        post(slow.clone());
        bridge.log().iter().any(line)
    });
    for (name, value) in [
        ("Mcp-Session-Id", "MARKED-session"),
        ("Mcp-Protocol-Version", "MARKED-version"),
        ("Last-Event-ID", "MARKED-event"),
        ("Accept", "MARKED/accept"),
        ("Content-Type", "MARKED/type"),
    ] {
        bridge.send(with(Request::post("/mcp", call("MARKED-refused").to_string())).with(name, value));
        bridge.send(session.headers(with(Request::listen("/mcp"))).with(name, value));
    }
    bridge
        .send(Request::new("GET", "/mcp").header("Authorization", "Bearer MARKED-guess"))
        .expect(401, "a guess");
    bridge.send(with(Request::post("/message?sessionId=MARKED-session", call("MARKED-old").to_string())));
    bridge.send(with(Request::post("/mcp", "MARKED is no JSON"))).expect(400, "no JSON");
    drop(first);
    bridge.send(session.headers(with(Request::new("DELETE", "/mcp")))).expect(204, "it ends");
    bridge.logged("the end", |line| line.contains("session.end"));
    let told = |line: &String| line.contains("MARKED") || line.contains(&session.id);
    assert_eq!(bridge.log().into_iter().find(told), None);
    assert!(lines(&bridge, "http.refused").len() >= 10, "there are such lines: {:#?}", bridge.log());
}
