//! Clients of 2026-07-28 at the door: which message is theirs, who serves it, what is refused and how. A server of the
//! session era is behind it.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::{Connection, Event};
use crate::support::{
    Bridge, Request, Response, Scratch, Session, Value, assert_refused, eventually, json, recorded, text_of,
    tool_call,
};

const REVISION: &str = "2026-07-28";

const BY_HEADER: [&str; 3] = ["--session-key", "header:X-User", "--lazy"];

fn by_header(more: &[&str], command: &[&str]) -> Bridge {
    Bridge::start(&[&BY_HEADER, more].concat(), command)
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": { "name": "modern", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// A message as the SDKs send it, but for its key.
fn message(body: &Value) -> Request {
    let method = body["method"].as_str().unwrap_or_default();
    let request = Request::post("/mcp", body.to_string());
    let request = request.header("MCP-Protocol-Version", REVISION).header("Mcp-Method", method);
    match (method, &body["params"]) {
        ("tools/call" | "prompts/get", params) => {
            request.header("Mcp-Name", params["name"].as_str().unwrap())
        }
        ("resources/read", params) => request.header("Mcp-Name", params["uri"].as_str().unwrap()),
        _ => request,
    }
}

fn body(id: impl Into<Value>, method: &str, mut params: Value) -> Value {
    params["_meta"] = meta();
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })
}

fn request(method: &str, params: Value) -> Request {
    message(&body("mine", method, params))
}

fn call(tool: &str, arguments: Value) -> Request {
    request("tools/call", json!({ "name": tool, "arguments": arguments }))
}

fn of(request: Request, user: &str) -> Request {
    request.header("X-User", user)
}

/// The process that serves a user.
fn pid(bridge: &Bridge, user: &str) -> Value {
    let answer = bridge.send(of(call("whoami", json!({})), user)).answer();
    let who: Value = serde_json::from_str(&text_of(&answer)).unwrap();
    who["pid"].clone()
}

/// A server of the session era that answers each method as its name says.
const BY_METHOD: &str = r#"
    while read -r line; do
        id=${line#*\"id\":}; id=${id%%[,\}]*}
        error() { printf '{"jsonrpc":"2.0","id":%s,"error":{"code":%s,"message":"so it is"}}\n' "$id" "$1"; }
        case $line in
            *'"method":"x/error'*) code=${line#*x/error}; error "${code%%\"*}" ;;
            *'"id"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}\n' "$id" ;;
        esac
    done"#;

// Which era a message is of.

#[test]
fn both_eras_are_served_on_one_endpoint_at_the_same_time() {
    let bridge = by_header(&[], &["notebook"]);
    let session = bridge.session();
    session.call("add_note", json!({ "title": "of the session", "text": "a" }));
    let mut response =
        bridge.send(of(call("add_note", json!({ "title": "of the key", "text": "b" })), "ada"));
    response.expect(200, "a modern call");
    assert_eq!(response.header("mcp-session-id"), None, "this era has no sessions");
    assert_eq!(response.header("mcp-bridge-session"), None);
    assert_eq!(response.json()["id"], "mine");
    assert_eq!(session.text("list_notes", json!({})), "1. of the session");
    let mut listed = bridge.send(of(call("list_notes", json!({})), "ada"));
    assert_eq!(text_of(&listed.answer()), "1. of the key");
    let mut keyed =
        bridge.send(of(Request::post("/mcp", tool_call(1, "list_notes", json!({})).to_string()), "ada"));
    assert_eq!(text_of(&keyed.answer()), "no notes yet", "a key of the other era is another one");
    assert_eq!(bridge.processes().len(), 3);
}

#[test]
fn a_live_session_has_all_that_names_it_and_one_that_has_ended_is_lost_for_all() {
    for options in [&BY_HEADER[..], &["--lazy"]] {
        let bridge = Bridge::start(options, &["notebook"]);
        let session = bridge.session();
        session.call("add_note", json!({ "title": "mine", "text": "a" }));
        let in_session = || of(session.headers(call("list_notes", json!({}))), "ada");
        assert_eq!(text_of(&bridge.send(in_session()).answer()), "1. mine");
        session.delete().expect(204, "the session ends");
        // Such clients look for a 404 to begin anew.
        let mut lost = bridge.send(in_session());
        assert_eq!(assert_refused(&mut lost, 404, "session_terminated")["id"], Value::Null);
    }
}

#[test]
fn a_session_id_that_was_never_ours_is_ignored_where_the_era_is_served() {
    let bridge = by_header(&[], &["notebook"]);
    for id in ["of-another-server", "", &"a".repeat(48)] {
        let foreign = |request: Request| of(request.header("Mcp-Session-Id", id), "ada");
        assert_eq!(bridge.send(foreign(request("tools/list", json!({})))).status, 200, "{id:?}");
    }
    let unserved = Bridge::start(&["--lazy"], &["notebook"]);
    let foreign = |request: Request| request.header("Mcp-Session-Id", "of-another-server");
    assert_refused(&mut unserved.send(foreign(request("tools/list", json!({})))), 404, "session_not_found");
    let bare = Request::post("/mcp", tool_call(1, "list_notes", json!({})).to_string());
    let bare = foreign(bare).header("MCP-Protocol-Version", REVISION);
    for bridge in [&unserved, &Bridge::start(&["--lazy"], &["notebook"])] {
        assert_refused(&mut bridge.send(bare.clone()), 404, "session_not_found");
    }
}

#[test]
fn an_initialize_opens_a_session_unless_it_says_itself_that_it_is_modern() {
    let scratch = Scratch::new();
    let command = recorded(&scratch, "hostile good");
    let bridge = by_header(&[], &command.iter().map(String::as_str).collect::<Vec<_>>());
    let initialize = crate::support::initialize(1, "2025-11-25").to_string();
    let by_head = Request::post("/mcp", &initialize).header("MCP-Protocol-Version", REVISION);
    let mut response = bridge.send(by_head.header("Mcp-Method", "initialize"));
    response.expect(200, "clients that have fallen back send their newest revision");
    assert!(response.header("mcp-session-id").is_some());

    let mut removed = bridge.send(of(request("initialize", json!({ "protocolVersion": REVISION })), "ada"));
    let answer = assert_refused(&mut removed, 404, "method_not_found");
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("mine"), &json!(-32601)));
    assert_eq!(removed.header("mcp-session-id"), None);
    assert_eq!(scratch.read("stdin").matches("\"initialize\"").count(), 1, "no server has seen it");
}

#[test]
fn a_method_that_was_removed_is_404_and_no_server_sees_it() {
    let bridge = by_header(&[], &["hostile", "good"]);
    for method in ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"] {
        let mut response = bridge.send(of(request(method, json!({ "uri": "a:b", "level": "info" })), "ada"));
        assert_eq!(assert_refused(&mut response, 404, "method_not_found")["error"]["code"], -32601);
    }
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_notification_is_dropped_and_an_answer_or_a_batch_is_refused() {
    let bridge = by_header(&[], &["hostile", "good"]);
    let cancel = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": "mine", "_meta": meta() },
    });
    for body in [&cancel, &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })] {
        let mut response = bridge.send(of(message(body), "ada"));
        assert_eq!((response.status, response.bytes()), (202, vec![]), "{body}");
    }
    let answer = json!({ "jsonrpc": "2.0", "id": 7, "result": {} });
    let refused = assert_refused(&mut bridge.send(of(message(&answer), "ada")), 400, "invalid_request");
    assert_eq!((&refused["error"]["code"], &refused["id"]), (&json!(-32600), &Value::Null));
    let batch = json!([body(1, "tools/list", json!({})), body(2, "tools/list", json!({}))]);
    let refused = assert_refused(&mut bridge.send(of(message(&batch), "ada")), 400, "invalid_request");
    assert_eq!(refused["error"]["code"], -32600);
    assert_eq!(bridge.processes(), [], "none of them opens a session");
    let open = bridge.send(of(call("seen", json!({})), "ada")).answer();
    assert!(!text_of(&open).contains("notifications/cancelled"), "{open}");
}

// Who is served.

#[test]
fn where_nobody_has_said_who_shares_a_server_clients_are_told_to_begin_with_initialize() {
    for (options, code, reason) in
        [(&["--lazy"][..], -32022, "no_modern_era"), (&BY_HEADER, -32600, "key_required")]
    {
        // No request has the header of the key.
        let bridge = Bridge::start(&[options, &["--era", "legacy"]].concat(), &["notebook"]);
        let began = Instant::now();
        let discover =
            assert_refused(&mut bridge.send(request("server/discover", json!({}))), 200, "no_modern_era");
        assert!(began.elapsed().as_secs() < 5);
        assert_eq!((&discover["id"], &discover["error"]["code"]), (&json!("mine"), &json!(-32601)));
        for modern in [request("tools/list", json!({})), call("whoami", json!({}))] {
            let error = assert_refused(&mut bridge.send(modern), 400, reason);
            let (id, error) = (&error["id"], &error["error"]);
            assert_eq!((id, &error["code"]), (&json!("mine"), &json!(code)));
            if code != -32022 {
                assert!(error["message"].as_str().unwrap().contains("x-user"), "{error}");
                continue;
            }
            let legacy = json!(["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]);
            assert_eq!(
                (&error["data"]["supported"], &error["data"]["requested"]),
                (&legacy, &json!(REVISION))
            );
            let sentence = error["message"].as_str().unwrap();
            assert!(sentence.contains("--session-key") && sentence.contains("--share"), "{sentence}");
        }
        assert_eq!(bridge.processes(), [], "none of them starts a server");
    }
}

#[test]
fn each_key_has_a_server_of_its_own_and_its_clients_share_it() {
    let bridge = by_header(&[], &["notebook"]);
    let (ada, grace) = (pid(&bridge, "ada"), pid(&bridge, "grace"));
    assert_ne!(ada, grace);
    assert_eq!(pid(&bridge, "ada"), ada);
    assert_eq!(bridge.processes().len(), 2);
}

#[test]
fn a_header_that_becomes_a_variable_is_part_of_each_key() {
    let bridge = by_header(&["--env-from-header", "TENANT=X-Tenant"], &["notebook"]);
    let pid_of = |tenant: &str| {
        let request = of(call("whoami", json!({})), "ada").header("X-Tenant", tenant);
        let who: Value = serde_json::from_str(&text_of(&bridge.send(request).answer())).unwrap();
        who["pid"].clone()
    };
    let (first, second) = (pid_of("a"), pid_of("b"));
    assert_ne!(first, second);
    assert_eq!(pid_of("a"), first);
}

#[test]
fn a_server_that_has_ended_is_replaced_and_its_clients_need_no_new_beginning() {
    let bridge = by_header(&[], &["notebook"]);
    let before = pid(&bridge, "ada");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(before.as_i64().unwrap()).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    bridge.logged("the session ends", |line| line.contains("session.end"));
    assert_ne!(pid(&bridge, "ada"), before);
}

// What is refused.

#[test]
fn what_head_and_message_say_otherwise_is_refused_with_the_id_and_no_server_sees_it() {
    let bridge = by_header(&[], &["hostile", "good"]);
    let echo = || of(call("echo", json!({ "text": "a" })), "ada");
    let table = [
        (echo().without("MCP-Protocol-Version"), -32020, "header_mismatch"),
        (echo().with("MCP-Protocol-Version", "2025-11-25"), -32020, "header_mismatch"),
        (echo().with("MCP-Protocol-Version", "v999"), -32020, "header_mismatch"),
        (echo().without("Mcp-Method"), -32020, "header_mismatch"),
        (echo().with("Mcp-Method", "TOOLS/CALL"), -32020, "header_mismatch"),
        (echo().without("Mcp-Name"), -32020, "header_mismatch"),
        (echo().with("Mcp-Name", "other"), -32020, "header_mismatch"),
        (echo().with("Mcp-Name", "=?base64?ZWNobw?="), -32020, "header_mismatch"),
        (echo().header("Mcp-Param-A", "1").header("Mcp-Param-A", "1"), -32020, "header_mismatch"),
        (
            of(message(&json!({ "jsonrpc": "2.0", "id": "mine", "method": "tools/list" })), "ada"),
            -32602,
            "invalid_params",
        ),
    ];
    for (number, (request, code, token)) in table.into_iter().enumerate() {
        let answer = assert_refused(&mut bridge.send(request), 400, token);
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("mine"), &json!(code)), "{number}");
    }
    for name in ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version"] {
        let twice = echo().header(name, "tools/call");
        assert_refused(&mut bridge.send(twice), 400, "invalid_request");
    }
    let other = "v999.0.0";
    let mut unknown = body("mine", "server/discover", json!({}));
    unknown["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(other);
    let unknown = of(message(&unknown).with("MCP-Protocol-Version", other), "ada");
    let error = &assert_refused(&mut bridge.send(unknown), 400, "unsupported_protocol_version")["error"];
    assert_eq!(error["code"], -32022);
    assert_eq!(
        (&error["data"]["supported"], &error["data"]["requested"]),
        (&json!([REVISION]), &json!(other))
    );
    assert_eq!(bridge.processes(), []);
    let spelt = echo().without("Mcp-Name").header("mcp-name", " =?base64?ZWNobw==?= ");
    assert_eq!(text_of(&bridge.send(spelt).answer()), "a", "and what means the same is served");
}

#[test]
fn a_stream_of_notifications_needs_a_client_that_takes_one() {
    let bridge = by_header(&[], &["sh", "-c", BY_METHOD]);
    let listen = || of(request("subscriptions/listen", json!({ "notifications": {} })), "ada");
    let refused =
        assert_refused(&mut bridge.send(listen().with("Accept", "application/json")), 406, "not_acceptable");
    assert_eq!(refused["id"], "mine");
    assert_eq!(bridge.processes(), []);
    let mut stream = bridge.send(listen());
    assert!(stream.is_sse());
    let first = stream.event().and_then(|event| event.data).expect("an event");
    let first: Value = serde_json::from_str(&first).expect("a message");
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "mine");
}

// How it is answered.

#[test]
fn an_error_has_the_status_of_its_code_for_a_modern_client_and_200_for_another() {
    let bridge = by_header(&["--sse-after", "10s"], &["sh", "-c", BY_METHOD]);
    let session: Session = bridge.session();
    for (code, status) in [
        (-32601, 404),
        (-32020, 400),
        (-32021, 400),
        (-32022, 400),
        (-32602, 200),
        (-32603, 200),
        (-32002, 200),
        (0, 200),
        (7, 200),
    ] {
        let method = format!("x/error{code}");
        for accept in ["application/json, text/event-stream", "application/json", "text/event-stream"] {
            let mut response = bridge.send(of(request(&method, json!({})), "ada").with("Accept", accept));
            response.expect(status, &method);
            assert_eq!(response.header("mcp-bridge-error"), None, "it is the server's own");
            let answer = response.answer();
            let error = json!({ "code": code, "message": "so it is" });
            assert_eq!((&answer["id"], &answer["error"]), (&json!("mine"), &error));
        }
        let legacy = json!({ "jsonrpc": "2.0", "id": 1, "method": method }).to_string();
        session.post(&legacy).expect(200, "a gateway must not take the server's word for its own");
        let keyed = Request::post("/mcp", &legacy);
        bridge.send(of(keyed, "ada")).expect(200, "with a key too");
    }
}

#[test]
fn a_slow_answer_is_a_stream_that_cannot_be_resumed_and_ends_with_it() {
    let bridge = by_header(&["--sse-after", "50ms", "--keep-alive", "200ms", "--prime"], &["notebook"]);
    let mut response = bridge.send(of(call("slow", json!({ "seconds": 1.0 })), "ada"));
    assert_eq!((response.status, response.is_sse()), (200, true));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    assert_eq!(response.header("mcp-session-id"), None);
    let events = all(&mut response);
    assert!(!response.comments.is_empty(), "it is kept alive");
    assert!(events.iter().all(|event| event.id.is_none() && event.retry.is_none()), "{events:?}");
    let [.., last] = &events[..] else { panic!("there is an answer") };
    assert_eq!(text_of(&last.json()), "waited 1.0 s");
    assert!(events.iter().all(|event| event.data.is_some()), "no priming: {events:?}");
}

fn all(response: &mut Response) -> Vec<Event> {
    std::iter::from_fn(|| response.event()).collect()
}

#[test]
fn a_get_or_delete_without_a_session_is_405_and_names_what_is_offered() {
    for options in [&["--lazy"][..], &BY_HEADER] {
        let bridge = Bridge::start(options, &["notebook"]);
        for method in ["GET", "DELETE"] {
            let request = Request::new(method, "/mcp").header("Accept", "text/event-stream");
            let mut response = bridge.send(of(request.header("MCP-Protocol-Version", REVISION), "ada"));
            assert_refused(&mut response, 405, "method_not_allowed");
            assert_eq!(response.header("allow"), Some("POST, OPTIONS"));
        }
    }
}

/// Closing the response is how a client of this era cancels (`basic/patterns/cancellation`).
#[test]
fn a_client_that_closes_its_connection_cancels_its_call_at_the_server() {
    let bridge = by_header(&["--sse-after", "50ms"], &["hostile", "hang"]);
    let mut connection = Connection::open(bridge.address);
    connection.write(&of(call("echo", json!({ "text": "a" })), "ada").to_bytes("localhost"));
    let response = connection.response();
    assert!(response.is_sse());
    drop(response);
    eventually("the server is told", || {
        let seen = bridge.send(of(call("seen", json!({})), "ada")).answer();
        text_of(&seen).contains("notifications/cancelled")
    });
}

#[test]
fn so_does_one_that_closes_it_just_before_the_response_begins() {
    let bridge = by_header(&["--sse-after", "300ms", "--keep-alive", "1h"], &["hostile", "hang"]);
    let cancelled = || {
        let seen = bridge.send(of(call("seen", json!({})), "ada")).answer();
        text_of(&seen).matches("notifications/cancelled").count()
    };
    assert_eq!(cancelled(), 0, "the server has started");
    for (count, ms) in [50, 210, 240, 270, 350].into_iter().enumerate() {
        let mut connection = Connection::open(bridge.address);
        connection.write(&of(call("echo", json!({ "text": "a" })), "ada").to_bytes("localhost"));
        thread::sleep(Duration::from_millis(ms));
        drop(connection);
        eventually("the server is told", || cancelled() > count);
    }
}
