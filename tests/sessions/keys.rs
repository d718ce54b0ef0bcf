//! Sessions for clients that carry no `Mcp-Session-Id`: named by a header the operator chose, or shared by all.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::thread;

use crate::support::http::Connection;
use crate::support::proc;
use crate::support::{
    Bridge, Request, Response, Scratch, Value, assert_refused, eventually, first_is_hostile, initialize,
    json, reason, recorded, run, text_of, tool_call,
};

const BY_HEADER: [&str; 3] = ["--session-key", "header:Authorization", "--lazy"];

const SHARED: [&str; 3] = ["--session-key", "shared", "--lazy"];

fn by_header(more: &[&str], command: &[&str]) -> Bridge {
    Bridge::start(&[&BY_HEADER, more].concat(), command)
}

fn shared(more: &[&str], command: &[&str]) -> Bridge {
    Bridge::start(&[&SHARED, more].concat(), command)
}

fn with_key(key: Option<&str>, body: &Value) -> Request {
    let request = Request::post("/mcp", body.to_string());
    match key {
        Some(key) => request.header("Authorization", key),
        None => request,
    }
}

fn post(bridge: &Bridge, key: Option<&str>, body: &Value) -> Response {
    bridge.send(with_key(key, body))
}

fn call(bridge: &Bridge, key: &str, tool: &str, arguments: Value) -> String {
    text_of(&post(bridge, Some(key), &tool_call(1, tool, arguments)).answer())
}

/// The process that serves a key.
fn pid(bridge: &Bridge, key: &str) -> String {
    let who: Value = serde_json::from_str(&call(bridge, key, "whoami", json!({}))).unwrap();
    who["pid"].to_string()
}

/// What the child of a key has read so far. Needs `hostile`.
fn seen(bridge: &Bridge, key: &str) -> Vec<Value> {
    serde_json::from_str(&call(bridge, key, "seen", json!({}))).unwrap()
}

fn seen_methods(bridge: &Bridge, key: &str) -> Vec<String> {
    seen(bridge, key).iter().filter_map(|entry| entry["method"].as_str().map(str::to_owned)).collect()
}

fn initialized() -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })
}

fn cancel(id: impl Into<Value>) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id.into() } })
}

// What a client needs, which is little.

#[test]
fn a_plain_curl_is_served_by_either_kind() {
    for (options, key) in [(BY_HEADER, Some("Bearer of-ada")), (SHARED, None)] {
        let bridge = Bridge::start(&options, &["notebook"]);
        for accept in [None, Some("*/*"), Some("application/json")] {
            let request = with_key(key, &tool_call("one", "echo", json!({ "text": "a" }))).without("Accept");
            let mut response = bridge.send(match accept {
                Some(accept) => request.header("Accept", accept),
                None => request,
            });
            response.expect(200, "nothing but a body is needed");
            assert_eq!(response.header("content-type"), Some("application/json"), "{accept:?}");
            assert_eq!(response.header("mcp-session-id"), None, "the session has no id for its clients");
            let answer = response.json();
            assert_eq!((&answer["id"], &*text_of(&answer)), (&json!("one"), "a"));
        }
        assert_eq!(bridge.processes().len(), 1);
    }
}

#[test]
fn a_slow_answer_is_a_stream_for_a_client_that_takes_one() {
    let bridge = shared(&["--sse-after", "50ms"], &["notebook"]);
    for (accept, streams) in [("*/*", true), ("text/event-stream", true), ("application/json", false)] {
        let request = with_key(None, &tool_call(1, "slow", json!({ "seconds": 0.5 })));
        let mut response = bridge.send(request.with("Accept", accept));
        assert_eq!((response.status, response.is_sse()), (200, streams), "{accept}");
        assert_eq!(response.header("mcp-session-id"), None);
        assert_eq!(text_of(&response.answer()), "waited 0.5 s");
    }
}

#[test]
fn there_is_nothing_to_listen_to_and_nothing_to_end_without_an_id() {
    for options in [BY_HEADER, SHARED] {
        let bridge = Bridge::start(&options, &["notebook"]);
        call(&bridge, "key", "list_notes", json!({}));
        for method in ["GET", "DELETE"] {
            let request = Request::new(method, "/mcp").header("Accept", "text/event-stream");
            let mut response = bridge.send(request.header("Authorization", "key"));
            assert_refused(&mut response, 405, "method_not_allowed");
            assert_eq!(response.header("allow"), Some("POST, OPTIONS"));
        }
        assert_eq!(bridge.processes().len(), 1, "the session goes on");
    }
}

fn modern(number: usize) -> Request {
    let meta =
        json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" }, "name": "echo" });
    let request = |method: &str, params: &Value| {
        with_key(Some("key"), &json!({ "jsonrpc": "2.0", "id": 9, "method": method, "params": params }))
    };
    match number {
        0 => request("server/discover", &json!({})),
        1 => request("tools/call", &meta),
        _ => request("tools/list", &json!({})).header("MCP-Protocol-Version", "2026-07-28"),
    }
}

fn assert_none_is_served(bridge: &Bridge) {
    for (number, token) in ["invalid_params", "header_mismatch", "invalid_params"].into_iter().enumerate() {
        assert_eq!(assert_refused(&mut bridge.send(modern(number)), 400, token)["id"], 9);
    }
}

#[test]
fn modern_requests_that_lack_what_they_need_open_no_session() {
    for options in [BY_HEADER, SHARED] {
        let bridge = Bridge::start(&options, &["notebook"]);
        assert_none_is_served(&bridge);
        eventually("the servers that were asked leave, and no other is there", || {
            bridge.processes().is_empty()
        });
    }
}

#[test]
fn modern_requests_do_not_reach_a_session_of_the_other_era() {
    let bridge = by_header(&[], &["hostile", "good"]);
    assert_eq!(seen_methods(&bridge, "key").len(), 3);
    assert_none_is_served(&bridge);
    let seen = seen_methods(&bridge, "key");
    assert_eq!(seen, ["initialize", "notifications/initialized", "tools/call", "tools/call"]);
}

#[test]
fn options_that_cannot_be_meant_end_the_start() {
    for (options, why) in [
        (&["--session-key", "shared", "--env-from-header", "TENANT=X-Tenant"][..], "cannot be combined"),
        (&["--session-key", "cookie"], "header:NAME"),
        (&["--session-key", "header:"], "header:NAME"),
        (&["--session-key", "header:two words"], "header:NAME"),
        (&["--session-key", "Shared"], "header:NAME"),
    ] {
        let ended = run(options, &["notebook"]);
        assert_eq!(ended.code, Some(64), "{options:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{options:?}: {}", ended.stderr);
    }
}

// The handshake.

#[test]
fn requests_with_the_same_key_share_a_session_without_any_handshake() {
    let bridge = by_header(&[], &["notebook"]);
    assert_eq!(
        call(&bridge, "key of ada", "add_note", json!({ "title": "a", "text": "b" })),
        "note 1 saved: a"
    );
    assert_eq!(call(&bridge, "key of ada", "list_notes", json!({})), "1. a");
    assert_eq!(call(&bridge, "key of grace", "list_notes", json!({})), "no notes yet");
    assert_eq!(bridge.processes().len(), 2);
}

#[test]
fn the_bridge_opens_the_session_in_its_own_name_and_promises_nothing() {
    let scratch = Scratch::new();
    let command = recorded(&scratch, "hostile good");
    let bridge = shared(&[], &command.iter().map(String::as_str).collect::<Vec<_>>());
    let mut response = post(&bridge, None, &initialize("mine", "2025-06-18"));
    response.expect(200, "initialize");
    call(&bridge, "", "echo", json!({ "text": "a" }));
    let stdin = scratch.read("stdin");
    let first: Value = serde_json::from_str(stdin.lines().next().unwrap()).unwrap();
    assert_eq!(first["params"]["clientInfo"]["name"], "mcp-bridge");
    assert_eq!(first["params"]["capabilities"], json!({}), "no client can serve what this would promise");
    assert_eq!(stdin.matches("\"initialize\"").count(), 1);
}

#[test]
fn a_repeated_initialize_with_the_same_key_is_answered_without_the_child() {
    let bridge = by_header(&[], &["hostile", "strict"]);
    for id in 0..3 {
        let mut response = post(&bridge, Some("key"), &initialize(id, "2025-06-18"));
        response.expect(200, "initialize");
        assert_eq!(response.header("mcp-session-id"), None, "the session has no id for its clients");
        let answer = response.answer();
        assert_eq!((&answer["id"], &answer["result"]["serverInfo"]["name"]), (&json!(id), &json!("hostile")));
        post(&bridge, Some("key"), &initialized()).expect(202, "initialized");
    }
    assert_eq!(
        seen_methods(&bridge, "key"),
        ["initialize", "notifications/initialized", "tools/call"],
        "one handshake per child"
    );
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn clients_that_open_a_session_while_its_child_starts_get_one_answer_each_with_their_own_id() {
    let bridge = by_header(&["--sse-after", "10s"], &["hostile", "slow_init", "1000"]);
    let ids = ["1", "\"1\"", r#""a\u0062""#, "123456789012345678901234567890"];
    let body =
        |id: &str| initialize(0, "2025-06-18").to_string().replace("\"id\":0", &format!("\"id\":{id}"));
    let answer = |id: &str| {
        let request = Request::post("/mcp", body(id)).header("Authorization", "key");
        let mut response = bridge.send(request);
        response.expect(200, "initialize");
        response.text()
    };
    let early: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = ids.map(|id| scope.spawn(move || answer(id))).into();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let late = ids.map(answer);
    for (id, texts) in ids.iter().zip(early.iter().zip(&late)) {
        let want = early[0].replace("\"id\":1,", &format!("\"id\":{id},"));
        assert!(want.contains(&format!("\"id\":{id},")), "{want}");
        assert_eq!((texts.0, texts.1), (&want, &want), "all but the id is the child's, byte for byte");
    }
    assert_eq!(seen_methods(&bridge, "key").iter().filter(|method| *method == "initialize").count(), 1);
}

#[test]
fn the_first_client_of_a_key_says_which_revision_the_child_is_asked_for() {
    let bridge = by_header(&[], &["hostile", "good"]); // which takes any revision
    let negotiated = |key: &str, offer: &str| {
        let answer = post(&bridge, Some(key), &initialize(1, offer)).answer();
        answer["result"]["protocolVersion"].as_str().unwrap().to_owned()
    };
    for (offer, want) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
    ] {
        assert_eq!(negotiated(offer, offer), want);
        assert_eq!(negotiated(offer, "2025-06-18"), want, "the record, whatever is offered later");
    }
    let first = |key: &str, version: Option<&str>| {
        let request = with_key(Some(key), &tool_call(1, "list_notes", json!({})));
        let request = version
            .into_iter()
            .fold(request, |request, version| request.header("MCP-Protocol-Version", version));
        bridge.send(request).expect(200, "a call opens the session");
        negotiated(key, "2024-11-05")
    };
    assert_eq!(first("says it in the header", Some("2025-03-26")), "2025-03-26");
    assert_eq!(first("does not say it", None), "2025-11-25");
}

/// A client that has fallen back may go on sending the header of its newest revision.
#[test]
fn an_initialize_opens_the_session_of_its_key_whatever_its_header_says() {
    let bridge = by_header(&[], &["hostile", "good"]);
    for claim in ["it opens the session", "the session is there"] {
        let request = with_key(Some("key"), &initialize(1, "2025-11-25"));
        let answer = bridge.send(request.header("MCP-Protocol-Version", "2026-07-28")).answer();
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{claim}: {answer}");
    }
}

/// The call may take an hour, and a client that takes only JSON gets nothing before its answer.
#[test]
fn the_first_call_of_a_key_does_not_keep_the_memory_for_bodies_without_a_session() {
    let text = "x".repeat(6 << 20); // two of them are more than there is memory for
    let bridge = by_header(&[], &["hostile", "hang"]);
    let large = |key: &str, tool: &str| {
        let request = with_key(Some(key), &tool_call(1, tool, json!({ "text": text })));
        request.with("Accept", "application/json").to_bytes("localhost")
    };
    let mut hanging = Connection::open(bridge.address);
    hanging.write(&large("one", "echo"));
    bridge.logged("the call has opened a session", |line| line.contains("session.start"));
    let (mut other, call) = (TcpStream::connect(bridge.address).unwrap(), large("other", "echo"));
    // This blocks while the bridge does not read. The connection stays open: a client that leaves is served no more.
    let sent = thread::spawn(move || other.write_all(&call).map(|()| other));
    eventually("the first call of another key is taken", || {
        bridge.log().iter().filter(|line| line.contains("session.start")).count() == 2
    });
    drop(sent.join().unwrap().unwrap());
}

#[test]
fn any_message_may_be_the_first_of_a_key() {
    let bridge = by_header(&[], &["hostile", "strict"]);
    post(&bridge, Some("key"), &initialized()).expect(202, "a notification");
    post(&bridge, Some("key"), &initialized()).expect(202, "a notification again");
    assert_eq!(seen_methods(&bridge, "key"), ["initialize", "notifications/initialized", "tools/call"]);
    let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    assert_refused(&mut post(&bridge, Some("other"), &answer), 400, "unknown_response");
}

#[test]
fn batches_are_taken_where_the_session_has_them() {
    let bridge = by_header(&[], &["notebook"]);
    let batch = |ids: [i32; 2]| {
        let calls = ids.map(|id| tool_call(id, "echo", json!({ "text": "a" })));
        post(&bridge, Some("key"), &json!(calls))
    };
    assert_refused(&mut batch([1, 2]), 400, "invalid_request");
    post(&bridge, Some("key"), &initialize(0, "2025-03-26")).expect(200, "initialize");
    for ids in [[1, 2], [1, 1]] {
        let mut response = batch(ids);
        response.expect(200, "a batch");
        let answers: Value = response.json();
        let mut got: Vec<i64> =
            answers.as_array().unwrap().iter().filter_map(|one| one["id"].as_i64()).collect();
        got.sort_unstable();
        assert_eq!(got, ids.map(i64::from));
    }
}

// Whose session it is.

#[test]
fn every_value_of_the_header_has_a_child_of_its_own() {
    let bridge = by_header(&[], &["notebook"]);
    let values = ["a", "b", "A", "aa", "a a", "é", &"x".repeat(4000)];
    let pids: Vec<String> = values.iter().map(|value| pid(&bridge, value)).collect();
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), values.len(), "{pids:?}");
    let again: Vec<String> = values.iter().map(|value| pid(&bridge, value)).collect();
    assert_eq!(pids, again);
    assert_eq!(
        pid(&bridge, "  a\t"),
        pids[0],
        "white space around it is not part of a value (RFC 9110 §5.5)"
    );
    assert_eq!(bridge.processes().len(), values.len());
}

#[test]
fn a_request_without_the_key_is_refused() {
    let bridge = by_header(&[], &["notebook"]);
    let mut response = post(&bridge, None, &tool_call("me", "list_notes", json!({})));
    let refusal = assert_refused(&mut response, 400, "session_required");
    assert_eq!(refusal["id"], "me");
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_foreign_session_id_is_as_good_as_none() {
    for (options, key) in [(BY_HEADER, Some("ada")), (SHARED, None)] {
        let bridge = Bridge::start(&options, &["notebook"]);
        let foreign = |request: Request| bridge.send(request.header("Mcp-Session-Id", "platform~1/2=3"));
        foreign(with_key(key, &initialize(0, "2025-06-18"))).expect(200, "initialize");
        foreign(with_key(key, &initialized())).expect(202, "initialized");
        let mut answer =
            foreign(with_key(key, &tool_call(1, "add_note", json!({ "title": "a", "text": "b" }))));
        answer.expect(200, "a call");
        let listed = bridge.send(with_key(key, &tool_call(2, "list_notes", json!({})))).answer();
        assert_eq!(text_of(&listed), "1. a", "the same session, with and without the id");
        for method in ["GET", "DELETE"] {
            let request = Request::new(method, "/mcp").header("Accept", "text/event-stream");
            let request = if let Some(key) = key { request.header("Authorization", key) } else { request };
            assert_refused(&mut foreign(request), 405, "method_not_allowed");
        }
        assert_eq!(bridge.processes().len(), 1);
    }
    let bridge = by_header(&[], &["notebook"]);
    let mut lost = bridge.send(with_key(None, &initialized()).header("Mcp-Session-Id", "unknown"));
    assert_refused(&mut lost, 404, "session_not_found");
}

#[test]
fn the_id_of_a_platform_can_be_the_key() {
    let bridge = Bridge::start(&["--session-key", "header:Mcp-Session-Id", "--lazy"], &["notebook"]);
    let post = |id: &str, body: &Value| {
        bridge.send(Request::post("/mcp", body.to_string()).header("Mcp-Session-Id", id))
    };
    for id in ["one", "two"] {
        post(id, &initialize(0, "2025-06-18")).expect(200, "initialize");
        post(id, &tool_call(1, "add_note", json!({ "title": id, "text": "x" }))).expect(200, "a call");
    }
    for id in ["one", "two"] {
        let notes = text_of(&post(id, &tool_call(2, "list_notes", json!({}))).answer());
        assert_eq!(notes, format!("1. {id}"), "each id has a child of its own");
    }
    assert_eq!(bridge.processes().len(), 2);
}

#[test]
fn the_first_answer_of_a_session_that_the_bridge_opened_says_so() {
    const HEADER: &str = "mcp-bridge-session";
    let bridge = by_header(&[], &["notebook"]);
    let new = |body: &Value| {
        let response = post(&bridge, Some("ada"), body);
        response.header(HEADER).map(str::to_owned)
    };
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(new(&ping).as_deref(), Some("new"));
    assert_eq!(new(&ping), None, "it is there");
    let before = pid(&bridge, "ada");
    post(&bridge, Some("ada"), &tool_call(1, "crash", json!({ "code": 3 })));
    eventually("the next one is told that the state is gone", || new(&ping).as_deref() == Some("new"));
    assert_ne!(pid(&bridge, "ada"), before);
    let own = bridge.session();
    assert_eq!(own.ping().header(HEADER), None, "an id tells by itself");
}

#[test]
fn an_empty_key_is_no_key_and_names_no_session_that_all_would_share() {
    for header in ["Authorization", "X-Key"] {
        let bridge = Bridge::start(&["--session-key", &format!("header:{header}"), "--lazy"], &["notebook"]);
        let blank = |value: &str, body: &Value| {
            bridge.send(Request::post("/mcp", body.to_string()).header(header, value))
        };
        let schemes = ["Bearer", "bearer ", "Basic "];
        for value in ["", " ", "\t"].iter().chain(schemes.iter().filter(|_| header == "Authorization")) {
            let mut response = blank(value, &tool_call("me", "list_notes", json!({})));
            let refusal = assert_refused(&mut response, 400, "session_required");
            assert_eq!(refusal["id"], "me", "{value:?}");
        }
        assert_eq!(bridge.processes(), []);
        if header == "X-Key" {
            let pid = text_of(&blank("Bearer", &tool_call(1, "whoami", json!({}))).answer());
            assert!(!pid.is_empty(), "elsewhere it is a value like any other");
        }
    }
}

#[test]
fn a_key_that_comes_twice_is_refused() {
    let bridge = by_header(&[], &["notebook"]);
    for (one, other) in [("a", "b"), ("a", "a"), ("", "a")] {
        let request = with_key(Some(one), &tool_call(1, "list_notes", json!({})));
        assert_refused(&mut bridge.send(request.header("authorization", other)), 400, "invalid_request");
    }
    assert_eq!(bridge.processes(), []);
}

#[test]
fn one_key_under_two_tokens_names_two_sessions() {
    let scratch = Scratch::new();
    let tokens = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    let file = scratch.write("token", &tokens.join("\n"));
    let bridge =
        Bridge::start(&["--session-key", "header:X-Key", "--lazy", "--token-file", &file], &["notebook"]);
    let send = |token: &str| {
        let request = Request::post("/mcp", tool_call(1, "whoami", json!({})).to_string());
        bridge.send(request.header("X-Key", "same").header("Authorization", &format!("Bearer {token}")))
    };
    assert_refused(&mut send("nobody's token at all"), 401, "unauthorized");
    assert_eq!(bridge.processes(), [], "nothing is started for a stranger");
    let [ada, grace] = tokens.map(|token| text_of(&send(token).answer()));
    assert_ne!(ada, grace);
    assert_eq!(tokens.map(|token| text_of(&send(token).answer())), [ada, grace]);
    assert_eq!(bridge.processes().len(), 2);
}

#[test]
fn a_shared_session_is_shared_by_the_callers_of_one_token() {
    let scratch = Scratch::new();
    let tokens = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    let file = scratch.write("token", &tokens.join("\n"));
    let bridge = shared(&["--token-file", &file], &["notebook"]);
    let pids = tokens.map(|token| pid(&bridge, &format!("Bearer {token}")));
    assert_ne!(pids[0], pids[1], "a caller never meets another one");
    assert_eq!(tokens.map(|token| pid(&bridge, &format!("Bearer {token}"))), pids);
}

#[test]
fn what_the_child_gets_from_headers_is_part_of_the_key() {
    let bridge = by_header(
        &["--env-from-header", "NOTEBOOK_A!=X-A", "--env-from-header", "NOTEBOOK_B!=X-B"],
        &["notebook"],
    );
    let who = |headers: &[(&str, &str)]| {
        let request = with_key(Some("key"), &tool_call(1, "whoami", json!({})));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let who: Value = serde_json::from_str(&text_of(&bridge.send(request).answer())).unwrap();
        (who["pid"].to_string(), who["env"].clone())
    };
    let table = [
        (&[][..], json!({})),
        (&[("X-A", "a")], json!({ "NOTEBOOK_A": "a" })),
        (&[("X-A", "b")], json!({ "NOTEBOOK_A": "b" })),
        (&[("X-B", "a")], json!({ "NOTEBOOK_B": "a" })),
        (&[("X-A", "a"), ("X-B", "a")], json!({ "NOTEBOOK_A": "a", "NOTEBOOK_B": "a" })),
    ];
    let mut pids = HashSet::new();
    for (headers, environment) in &table {
        let (pid, got) = who(headers);
        assert_eq!(got, *environment);
        assert_eq!(who(headers).0, pid);
        assert!(pids.insert(pid), "{headers:?}");
    }
    assert_eq!(bridge.processes().len(), table.len());
    let mut bad = bridge.send(with_key(Some("key"), &initialized()).header("X-A", "a").header("X-A", "b"));
    assert_refused(&mut bad, 400, "invalid_request");
}

#[test]
fn a_client_with_an_id_has_its_own_session_beside_those_of_keys() {
    let bridge = by_header(&[], &["notebook"]);
    let session = bridge.session();
    let own = session.look("whoami")["pid"].to_string();
    let with_both = |id: &str| {
        let request = with_key(Some("key"), &tool_call(1, "whoami", json!({})));
        bridge.send(request.header("Mcp-Session-Id", id))
    };
    let keyed = pid(&bridge, "key");
    assert_ne!(own, keyed);
    assert!(text_of(&with_both(&session.id).answer()).contains(&own), "the id counts");
    assert!(text_of(&with_both("0000-unknown").answer()).contains(&keyed), "a foreign id does not");
    assert_eq!(session.delete().status, 204);
    assert_refused(&mut with_both(&session.id), 404, "session_terminated");
    assert_eq!(pid(&bridge, "key"), keyed);
}

// Clients that cannot be told apart.

#[test]
fn equal_ids_of_clients_that_share_a_key_do_not_meet() {
    let bridge = shared(&[], &["notebook"]);
    thread::scope(|scope| {
        for n in 0..8 {
            let bridge = &bridge;
            scope.spawn(move || {
                let text = n.to_string();
                let arguments = json!({ "seconds": 0.1, "text": text });
                let mut response = post(bridge, None, &tool_call(1, "slow", arguments));
                response.expect(200, "different clients may use the same id at the same time");
                assert_eq!(text_of(&response.answer()), format!("waited 0.1 s: {text}"));
            });
        }
    });
    assert_eq!(bridge.processes().len(), 1);
}

/// A call that reports progress in so many steps, each with the number of them all.
fn count(to: usize) -> Value {
    let mut call = tool_call(1, "count", json!({ "to": to }));
    call["params"]["_meta"] = json!({ "progressToken": "t" });
    call
}

#[test]
fn twenty_clients_of_one_key_with_equal_ids_and_tokens_get_what_is_theirs_and_nothing_else() {
    let bridge = by_header(&[], &["notebook"]);
    thread::scope(|scope| {
        for client in 1..=20 {
            let bridge = &bridge;
            scope.spawn(move || {
                for round in 0..15 {
                    let messages = post(bridge, Some("key"), &count(client)).messages();
                    let (answer, progress) = messages.split_last().unwrap();
                    assert_eq!((&answer["id"], text_of(answer)), (&json!(1), format!("counted to {client}")));
                    let got: Vec<Value> = progress.iter().map(|message| message["params"].clone()).collect();
                    let want: Vec<Value> = (1..=client)
                        .map(|step| {
                            json!({
                                "progressToken": "t", "progress": step, "total": client,
                                "message": format!("{step} of {client}"),
                            })
                        })
                        .collect();
                    assert_eq!(got, want, "client {client}");
                    let text = format!("{client}/{round} {}", "é\u{1f980}\n".repeat(client * 20));
                    assert_eq!(call(bridge, "key", "echo", json!({ "text": text })), text);
                }
            });
        }
    });
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn a_cancellation_ends_the_one_call_with_this_id() {
    let bridge = by_header(&["--sse-after", "0ms"], &["hostile", "late"]);
    seen(&bridge, "key"); // a call that waits for the handshake would be withdrawn
    let mut other = post(&bridge, Some("key"), &tool_call("8", "echo", json!({})));
    let mut cancelled = post(&bridge, Some("key"), &tool_call(8, "echo", json!({})));
    post(&bridge, Some("key"), &cancel(8)).expect(202, "a cancellation");
    let answer = cancelled.answer();
    assert_eq!(
        (&answer["id"], &*text_of(&answer)),
        (&json!(8), "too late"),
        "the child was told of this one"
    );
    post(&bridge, Some("key"), &cancel("8")).expect(202, "a cancellation");
    assert_eq!(text_of(&other.answer()), "too late", "and only now of the other");
}

#[test]
fn a_cancellation_that_may_mean_several_calls_ends_none() {
    let bridge = by_header(&["--sse-after", "0ms"], &["hostile", "late"]);
    let _both = [(); 2].map(|()| post(&bridge, Some("key"), &tool_call(8, "echo", json!({}))));
    post(&bridge, Some("key"), &cancel(8)).expect(202, "a cancellation");
    post(&bridge, Some("key"), &cancel(9)).expect(202, "a cancellation of nothing");
    let methods = seen_methods(&bridge, "key");
    assert_eq!(methods.iter().filter(|method| *method == "tools/call").count(), 3);
    assert!(!methods.contains(&"notifications/cancelled".to_owned()), "{methods:?}");
}

#[test]
fn log_lines_of_one_clients_call_reach_no_client() {
    let bridge = shared(&["--sse-after", "0ms"], &["notebook"]);
    let mut slow = post(&bridge, None, &tool_call(1, "slow", json!({ "seconds": 1 })));
    let said = json!({ "level": "error", "message": "about one client's call" });
    let mut log = post(&bridge, None, &tool_call(1, "log", said));
    assert_eq!(log.messages().len(), 1);
    let mut note = post(&bridge, None, &tool_call(1, "add_note", json!({ "title": "a", "text": "b" })));
    assert_eq!(note.messages().len(), 1, "that the list has changed is nobody's either");
    assert_eq!(slow.messages().len(), 1);
}

#[test]
fn what_the_server_asks_its_client_is_answered_by_the_bridge() {
    let bridge = by_header(&[], &["hostile", "sample"]);
    let is_answer = |entry: &&Value| entry["id"] == "ask-1" && entry.get("error").is_some();
    eventually("the server has its answer", || seen(&bridge, "key").iter().any(|entry| is_answer(&entry)));
    let seen = seen(&bridge, "key");
    assert_eq!(seen.iter().find(is_answer).unwrap()["error"]["code"], -32601);
    let answer = json!({ "jsonrpc": "2.0", "id": "ask-1", "result": {} });
    assert_refused(&mut post(&bridge, Some("key"), &answer), 400, "unknown_response");
}

// Start, limits and end.

#[test]
fn parallel_first_requests_of_one_key_start_one_child_and_none_waits_in_silence() {
    let options = ["--sse-after", "50ms", "--keep-alive", "100ms"];
    let bridge = by_header(&options, &["hostile", "slow_init", "1500"]);
    thread::scope(|scope| {
        for n in 0..20 {
            let bridge = &bridge;
            scope.spawn(move || {
                let text = n.to_string();
                let mut response = post(bridge, Some("key"), &tool_call(1, "echo", json!({ "text": text })));
                assert!(response.is_sse());
                response.wait_for_comments(2);
                assert_eq!(text_of(&response.answer()), text);
            });
        }
    });
    assert_eq!(bridge.processes().len(), 1);
    let methods = seen_methods(&bridge, "key");
    assert_eq!(methods.iter().filter(|method| *method == "initialize").count(), 1);
    assert_eq!(bridge.log().iter().filter(|line| line.contains("session.start")).count(), 1);
}

#[test]
fn requests_of_one_key_that_wait_for_leave_to_start_a_server_start_one() {
    let bridge = by_header(&["--max-starting", "1"], &["hostile", "slow_init", "800"]);
    thread::scope(|scope| {
        scope.spawn(|| call(&bridge, "other", "echo", json!({ "text": "a" })));
        eventually("another key's server is starting", || bridge.processes().len() == 1);
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(call(&bridge, "key", "echo", json!({ "text": "b" })), "b"));
        }
    });
    assert_eq!(bridge.log().iter().filter(|line| line.contains("session.start")).count(), 2);
    assert_eq!(bridge.processes().len(), 2);
}

#[test]
fn a_key_without_a_place_is_refused_and_the_others_go_on() {
    let bridge = by_header(&["--max-sessions", "1"], &["notebook"]);
    let first = pid(&bridge, "a");
    let mut full = post(&bridge, Some("b"), &tool_call("me", "list_notes", json!({})));
    let refusal = assert_refused(&mut full, 503, "too_many_sessions");
    assert_eq!(refusal["id"], "me");
    assert_eq!(full.header("retry-after"), Some("5"));
    let mut full = post(&bridge, Some("b"), &initialize("me", "2025-06-18"));
    assert_eq!(assert_refused(&mut full, 503, "too_many_sessions")["id"], "me");
    assert_refused(&mut post(&bridge, Some("b"), &initialized()), 503, "too_many_sessions");
    assert_eq!(pid(&bridge, "a"), first);
}

#[test]
fn an_idle_session_ends_and_the_key_gets_a_new_one_with_the_next_request() {
    let bridge = by_header(&["--idle-timeout", "300ms"], &["notebook"]);
    let first = pid(&bridge, "key");
    eventually("the idle session ends", || bridge.processes().is_empty());
    bridge.logged("why it ended", |line| line.contains("session.end") && line.contains("idle"));
    assert_ne!(pid(&bridge, "key"), first);
}

#[test]
fn a_call_in_flight_keeps_its_session_from_being_idle() {
    let bridge = by_header(&["--idle-timeout", "200ms"], &["notebook"]);
    assert_eq!(call(&bridge, "key", "slow", json!({ "seconds": 1 })), "waited 1 s");
}

#[test]
fn an_initialize_in_flight_keeps_its_session_from_being_idle() {
    let bridge = by_header(&["--idle-timeout", "300ms"], &["hostile", "slow_init", "1500"]);
    let answer = post(&bridge, Some("key"), &initialize(1, "2025-06-18")).answer();
    assert_eq!(answer["result"]["serverInfo"]["name"], "hostile", "{answer}");
}

#[test]
fn an_initialize_in_flight_is_answered_before_the_bridge_stops() {
    let mut bridge = by_header(&["--sse-after", "0ms"], &["hostile", "slow_init", "1500"]);
    let mut response = post(&bridge, Some("key"), &initialize(1, "2025-06-18"));
    bridge.signal(nix::sys::signal::Signal::SIGTERM);
    let answer = response.answer();
    assert_eq!(answer["result"]["serverInfo"]["name"], "hostile", "{answer}");
    bridge.exit_code();
}

#[test]
fn clients_that_leave_while_the_child_starts_cost_no_memory() {
    let bridge = by_header(&[], &["hostile", "hang_init"]);
    let leave = |count| {
        for _ in 0..count {
            let body = initialize("x".repeat(8000), "2025-06-18");
            let mut connection = Connection::open(bridge.address);
            connection.write(&with_key(Some("key"), &body).to_bytes("localhost"));
        }
    };
    leave(300); // as many as may be in flight, and some more
    let before = proc::resident_memory(bridge.pid());
    leave(3000);
    eventually("the memory of those who left is free again", || {
        proc::resident_memory(bridge.pid()) < before + 8 * 1024 * 1024
    });
}

#[test]
fn every_call_learns_of_the_childs_end_and_the_next_request_has_a_new_child() {
    let bridge = by_header(&["--sse-after", "0ms"], &["notebook"]);
    call(&bridge, "key", "add_note", json!({ "title": "a", "text": "b" }));
    let mut calls =
        [1, 1, 2].map(|id| post(&bridge, Some("key"), &tool_call(id, "slow", json!({ "seconds": 60 }))));
    let crash = post(&bridge, Some("key"), &tool_call(1, "crash", json!({ "code": 7 }))).answer();
    assert_eq!((reason(&crash), &crash["error"]["data"]["exit_code"]), ("child_exited", &json!(7)));
    assert_eq!(call(&bridge, "key", "list_notes", json!({})), "no notes yet", "at once");
    for (id, response) in [1, 1, 2].iter().zip(&mut calls) {
        let answer = response.answer();
        assert_eq!((reason(&answer), &answer["id"]), ("child_exited", &json!(id)));
    }
    eventually("one child is left", || bridge.processes().len() == 1);
}

#[test]
fn a_request_that_comes_while_the_child_dies_has_a_new_one() {
    // Once stdout has ended the session waits for the exit and takes nothing more.
    let scratch = Scratch::new();
    let command = first_is_hostile(&scratch, "close_stdout");
    let bridge = by_header(&[], &command.iter().map(String::as_str).collect::<Vec<_>>());
    thread::scope(|scope| {
        let lost = scope
            .spawn(|| post(&bridge, Some("key"), &tool_call(1, "echo", json!({ "text": "a" }))).answer());
        let closed = || {
            let child = bridge.processes().into_iter().find(|process| process.name == "hostile");
            child.is_some_and(|child| std::fs::read_link(format!("/proc/{}/fd/1", child.pid)).is_err())
        };
        // It leaves soon after: if that was too soon to be seen, the request comes behind its end.
        eventually("the child has closed its stdout", || closed() || lost.is_finished());
        let mut response = post(&bridge, Some("key"), &tool_call(2, "echo", json!({ "text": "b" })));
        response.expect(200, "a client that knows of no session");
        assert_eq!(text_of(&response.answer()), "b");
        assert_eq!(reason(&lost.join().unwrap()), "child_stdout_closed");
    });
}

#[test]
fn with_respawn_the_session_of_a_key_goes_on_and_says_what_is_lost() {
    let bridge = by_header(&["--on-exit", "respawn"], &["notebook"]);
    let first = pid(&bridge, "key");
    let greeting = post(&bridge, Some("key"), &initialize(1, "2024-11-05")).answer();
    let lost = post(&bridge, Some("key"), &tool_call(1, "crash", json!({ "code": 3 }))).answer();
    assert_eq!((reason(&lost), &lost["error"]["data"]["respawned"]), ("child_exited", &json!(true)));
    let text = lost["error"]["message"].as_str().unwrap();
    assert!(text.contains("state is lost") && text.contains("new server"), "{text}");
    assert_ne!(pid(&bridge, "key"), first);
    assert_eq!(post(&bridge, Some("key"), &initialize(1, "2025-06-18")).answer(), greeting);
    assert_eq!(bridge.log().iter().filter(|line| line.contains("session.start")).count(), 1);
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn an_initialized_with_an_id_is_answered_and_goes_no_further() {
    let bridge = by_header(&[], &["hostile", "strict"]);
    let request = json!({ "jsonrpc": "2.0", "id": "x", "method": "notifications/initialized" });
    for _ in 0..2 {
        let mut response = post(&bridge, Some("key"), &request);
        response.expect(200, "a request is answered");
        assert_eq!(response.answer(), json!({ "jsonrpc": "2.0", "id": "x", "result": {} }));
    }
    let told =
        || seen_methods(&bridge, "key").into_iter().filter(|method| method.contains("initialized")).count();
    assert_eq!(told(), 1);
}

#[test]
fn a_failed_start_is_told_to_each_request_and_the_next_one_tries_again() {
    for (mode, why) in [
        ("exit_at_start 3", "child_exited"),
        ("exit_before_init 3", "child_exited"),
        ("signal_before_init SEGV", "child_exited"),
        ("refuse_init", "session_terminated"),
        ("hang_init", "init_timeout"),
    ] {
        for body in [tool_call("me", "echo", json!({ "text": "a" })), initialize("me", "2025-06-18")] {
            let scratch = Scratch::new();
            let command = first_is_hostile(&scratch, mode);
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let bridge = by_header(&["--init-timeout", "1s"], &command);
            let mut failed = post(&bridge, Some("key"), &body);
            let opens = body["method"] == "initialize";
            assert_eq!(failed.status, if opens { 502 } else { 200 }, "{mode}: {body}");
            let failed = failed.answer();
            assert_eq!((reason(&failed), &failed["id"]), (why, &json!("me")), "{mode}: {failed}");
            let mut again = post(&bridge, Some("key"), &body);
            again.expect(200, mode);
            assert!(again.answer().get("result").is_some(), "{mode}");
        }
    }
}

#[test]
fn keys_are_never_logged() {
    for options in
        [&BY_HEADER[..], &["--session-key", "header:Authorization", "--log", "json", "--max-sessions", "1"]]
    {
        let mut bridge = Bridge::start_with(options, &["notebook"], |bridge| {
            bridge.env("RUST_LOG", "trace");
        });
        let key = "a-secret-key";
        call(&bridge, key, "list_notes", json!({}));
        post(&bridge, Some(key), &initialize(1, "2025-06-18")).expect(200, "initialize");
        post(&bridge, Some(key), &initialized()).expect(202, "swallowed");
        post(&bridge, Some(key), &cancel(5)).expect(202, "swallowed");
        let twice = with_key(Some(key), &initialized()).header("Authorization", key);
        bridge.send(twice).expect(400, "twice");
        bridge.send(Request::listen("/mcp").header("Authorization", key)).expect(405, "no id");
        post(&bridge, Some(&format!("{key}-2")), &tool_call(1, "list_notes", json!({})));
        post(&bridge, Some(key), &tool_call(1, "crash", json!({ "code": 1 })));
        bridge.logged("the session's end", |line| line.contains("session.end"));
        bridge.signal(nix::sys::signal::Signal::SIGTERM);
        bridge.exit_code();
        let log = bridge.log().join("\n");
        assert!(log.contains("http.refused"), "it says much: {log}");
        assert!(!log.contains(key));
    }
}
