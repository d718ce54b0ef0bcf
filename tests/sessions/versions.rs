//! Which revision is spoken: the child and its client settle it, and the header on later requests may vary.

use crate::support::{
    self, Bridge, Request, Response, Scratch, Session, Value, assert_refused, initialize, json, recorded,
    tool_call,
};

/// Every published revision.
const KNOWN: [&str; 5] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// What is none of them.
const UNKNOWN: [&str; 10] = [
    "1999-01-01",
    "2099-01-01",
    "2025-06-17",
    "2025-6-18",
    "20250618",
    "2025-06-18x",
    "DRAFT-2026-v1",
    "latest",
    "1.0",
    "",
];

const PING: &str = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;

/// A child that answers `initialize` with whatever revision it is asked for.
fn start_with(version: &str) -> (Bridge, Session) {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = open(&bridge, version);
    (bridge, session)
}

#[track_caller]
fn open(bridge: &Bridge, version: &str) -> Session {
    let session = bridge.initialize_as(version);
    assert_eq!(session.greeting["result"]["protocolVersion"], version);
    session.notify("notifications/initialized", json!({}));
    session
}

fn versioned(session: &Session, request: Request, version: &str) -> Response {
    session.headers(request).header("MCP-Protocol-Version", version).send(session.address)
}

#[track_caller]
fn assert_version_refused(response: &mut Response, version: &str) -> Value {
    assert!(response.status == 400, "{version:?}: status {} instead of 400", response.status);
    let refusal = assert_refused(response, 400, "unsupported_protocol_version");
    assert_eq!(refusal["error"]["code"], -32600, "-32022 would make a client think we are modern");
    let message = refusal["error"]["message"].as_str().unwrap();
    assert!(KNOWN[1..4].iter().all(|known| message.contains(known)), "the known ones are named: {message}");
    refusal
}

// ---------------------------------------------------------------------------------------------- what is negotiated

#[test]
fn the_childs_choice_reaches_the_client_whatever_it_is() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    for version in KNOWN.iter().chain(&UNKNOWN) {
        let session = bridge.initialize_as(version);
        assert_eq!(session.greeting["result"]["protocolVersion"], *version);
        session.delete().expect(204, version);
    }
}

#[test]
fn a_child_that_knows_better_is_not_corrected() {
    let bridge = Bridge::start(&[], &["notebook"]);
    for asked in ["2026-07-28", "2099-01-01", "", "banana"] {
        let session = bridge.initialize_as(asked);
        assert_eq!(session.greeting["result"]["protocolVersion"], "2025-11-25", "asked for {asked:?}");
        session.delete().expect(204, asked);
    }
}

#[test]
fn the_clients_wish_reaches_the_child_as_it_was_sent() {
    for asked in KNOWN.iter().chain(&UNKNOWN) {
        let scratch = Scratch::new();
        let command = recorded(&scratch, "notebook");
        let bridge = Bridge::start(&[], &command.iter().map(String::as_str).collect::<Vec<_>>());
        let session = bridge.initialize_as(asked);
        session.ping().expect(200, "what was read before this is in the file");
        let line: Value = serde_json::from_str(scratch.read("stdin").lines().next().unwrap()).unwrap();
        assert_eq!(line["params"], initialize(0, asked)["params"]);
    }
}

#[test]
fn a_header_on_initialize_does_not_decide_anything() {
    let bridge = Bridge::start(&[], &["notebook"]);
    for header in KNOWN {
        let request = Request::post("/mcp", initialize(0, "2025-03-26").to_string());
        let mut response = bridge.send(request.header("MCP-Protocol-Version", header));
        response.expect(200, header);
        let session = Session::from_response(bridge.address, &mut response);
        assert_eq!(session.greeting["result"]["protocolVersion"], "2025-03-26", "header {header}");
        session.delete().expect(204, header);
    }
}

// ---------------------------------------------------------------------------------------------- the header

#[test]
fn a_client_that_sends_no_header_is_served_in_every_revision() {
    for version in KNOWN.iter().chain(&["2099-01-01"]) {
        let (_bridge, session) = start_with(version);
        assert_eq!(session.post(PING).json()["result"], json!({}), "{version}");
        session.notify("notifications/x", json!({}));
        session.listen();
        session.delete().expect(204, version);
    }
}

#[test]
fn each_known_revision_is_taken_whichever_was_negotiated() {
    for negotiated in KNOWN {
        let (_bridge, session) = start_with(negotiated);
        for header in KNOWN {
            let claim = format!("{header} where {negotiated} was negotiated");
            let mut response = versioned(&session, Request::post("/mcp", PING), header);
            response.expect(200, &claim);
            assert_eq!(response.json()["result"], json!({}), "{claim}");
            let stream = versioned(&session, Request::listen("/mcp"), header);
            assert_eq!((stream.status, stream.is_sse()), (200, true), "{claim}");
        }
    }
}

#[test]
fn an_unknown_revision_is_400_for_a_request_and_its_id_comes_back() {
    let (_bridge, session) = start_with("2025-11-25");
    for version in UNKNOWN {
        let refusal =
            assert_version_refused(&mut versioned(&session, Request::post("/mcp", PING), version), version);
        assert_eq!(refusal["id"], "p");
    }
    assert_eq!(session.seen_count("ping"), 0, "nothing was forwarded");
}

#[test]
fn an_unknown_revision_is_400_for_a_notification_which_does_not_reach_the_child() {
    let (_bridge, session) = start_with("2025-11-25");
    let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let refusal =
        assert_version_refused(&mut versioned(&session, Request::post("/mcp", note), "banana"), "banana");
    assert_eq!(refusal["id"], Value::Null);
    assert_eq!(session.seen_count("notifications/x"), 0);
}

#[test]
fn an_unknown_revision_is_400_for_a_get() {
    let (_bridge, session) = start_with("2025-11-25");
    for version in UNKNOWN {
        assert_version_refused(&mut versioned(&session, Request::listen("/mcp"), version), version);
    }
}

#[test]
fn an_unknown_revision_is_400_for_a_delete_and_the_session_lives_on() {
    let (_bridge, session) = start_with("2025-11-25");
    for version in UNKNOWN {
        assert_version_refused(&mut versioned(&session, Request::new("DELETE", "/mcp"), version), version);
    }
    session.ping().expect(200, "the session is unharmed");
}

#[test]
fn two_revisions_are_400_whichever_they_are() {
    let (_bridge, session) = start_with("2025-11-25");
    for pair in [["2025-11-25", "banana"], ["banana", "2025-11-25"], ["2025-11-25", "2025-11-25"]] {
        let request = session.headers(Request::post("/mcp", PING));
        let request =
            pair.iter().fold(request, |request, version| request.header("MCP-Protocol-Version", version));
        let refusal = assert_refused(&mut request.send(session.address), 400, "invalid_request");
        assert_eq!(refusal["error"]["message"], "Bad request: two mcp-protocol-version headers");
    }
}

#[test]
fn a_revision_we_never_heard_of_is_good_where_it_was_negotiated_and_only_there() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let (here, elsewhere) = (open(&bridge, "2099-01-01"), open(&bridge, "2025-11-25"));
    versioned(&here, Request::post("/mcp", PING), "2099-01-01").expect(200, "it was negotiated");
    assert_eq!(versioned(&here, Request::listen("/mcp"), "2099-01-01").status, 200);
    assert_version_refused(
        &mut versioned(&elsewhere, Request::post("/mcp", PING), "2099-01-01"),
        "elsewhere",
    );
    assert_version_refused(&mut versioned(&here, Request::post("/mcp", PING), "2099-01-02"), "another one");
    for known in KNOWN {
        versioned(&here, Request::post("/mcp", PING), known).expect(200, known);
    }
}

#[test]
fn a_child_that_names_no_revision_is_served_all_the_same() {
    let script = r#"
        while read -r line; do
            id=${line#*\"id\":}; id=${id%%[,\}]*}
            case $line in
                *'"id"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
            esac
        done"#;
    let bridge = Bridge::start(&[], &["sh", "-c", script]);
    let session = bridge.session();
    assert_eq!(session.greeting["result"], json!({}), "nothing is added");
    session.ping().expect(200, "no header");
    for known in KNOWN {
        versioned(&session, Request::post("/mcp", PING), known).expect(200, known);
    }
    assert_version_refused(&mut versioned(&session, Request::post("/mcp", PING), "banana"), "banana");
}

// ---------------------------------------------------------------------------------------------- the modern era

/// Rust's SDK asks for its newest revision; a child that echoes it gets a legacy session with modern headers.
#[test]
fn a_session_that_negotiated_the_modern_revision_is_a_session_like_any_other() {
    let (_bridge, session) = start_with("2026-07-28");
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "echo", "arguments": { "text": "a" },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let modern = |body: String, method: &str| {
        let request = session.headers(Request::post("/mcp", body));
        request.header("MCP-Protocol-Version", "2026-07-28").header("Mcp-Method", method)
    };
    let mut response =
        modern(call.to_string(), "tools/call").header("Mcp-Name", "echo").send(session.address);
    assert_eq!(support::text_of(&response.answer()), "a");
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" }).to_string();
    assert_eq!(modern(note, "notifications/x").send(session.address).status, 202);
    assert_eq!(session.seen_count("notifications/x"), 1, "it is forwarded, not swallowed as a modern one");
    let mut unknown =
        modern(r#"{"jsonrpc":"2.0","id":2,"method":"server/discover"}"#.to_owned(), "server/discover")
            .send(session.address);
    unknown.expect(200, "what the child does not know is for the child to say");
    assert_eq!(unknown.json()["error"]["code"], -32601);
    assert_eq!(session.seen_count("server/discover"), 1);
}

#[test]
fn a_modern_request_without_a_session_is_told_to_begin_with_initialize_and_starts_no_child() {
    let bridge = Bridge::start(&["--lazy", "--era", "legacy"], &["notebook"]);
    let meta = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } });
    let list =
        |params: Value| json!({ "jsonrpc": "2.0", "id": "m", "method": "tools/list", "params": params });
    let by_header =
        Request::post("/mcp", list(json!({})).to_string()).header("MCP-Protocol-Version", "2026-07-28");
    let by_meta = Request::post("/mcp", list(meta.clone()).to_string());
    let by_both =
        by_meta.clone().header("MCP-Protocol-Version", "2026-07-28").header("Mcp-Method", "tools/list");
    let discover = json!({ "jsonrpc": "2.0", "id": "m", "method": "server/discover", "params": meta });
    for (request, status, token, code) in [
        (Request::post("/mcp", discover.to_string()), 200, "no_modern_era", -32601),
        (by_header, 400, "invalid_params", -32602),
        (by_meta, 400, "no_modern_era", -32022),
        (by_both, 400, "no_modern_era", -32022),
    ] {
        let mut response = bridge.send(request);
        let answer = assert_refused(&mut response, status, token);
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("m"), &json!(code)));
        assert_eq!(response.header("mcp-session-id"), None);
    }
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_legacy_request_without_a_session_is_400_whichever_legacy_revision_it_names() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let call = tool_call(1, "echo", json!({ "text": "a" })).to_string();
    for version in &KNOWN[..4] {
        let request = Request::post("/mcp", &call).header("MCP-Protocol-Version", version);
        assert_eq!(assert_refused(&mut bridge.send(request), 400, "session_required")["id"], 1);
    }
    assert_eq!(bridge.processes(), []);
}
