//! What a request must look like, and what it is answered if it does not: methods, headers, bodies, status codes.

use std::time::Duration;

use crate::support::http::{BOTH, Connection};
use crate::support::{
    Bridge, Request, Response, Session, Value, assert_refused, initialize, json, text_of, tool_call,
};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn start() -> (Bridge, Session) {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.session();
    (bridge, session)
}

/// Sends raw bytes and reads the head of the answer.
fn raw(bridge: &Bridge, bytes: impl AsRef<[u8]>) -> Option<Response> {
    let mut connection = Connection::open(bridge.address);
    connection.write(bytes.as_ref());
    connection.try_response()
}

#[track_caller]
fn assert_alive(session: &Session) {
    session.ping().expect(200, "the session is unharmed");
}

// ---------------------------------------------------------------------------------------------- sessions

#[test]
fn only_the_answer_to_initialize_names_the_session() {
    let (_bridge, session) = start();
    for mut response in
        [session.ping(), session.post(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#), session.listen()]
    {
        assert_eq!(response.header("mcp-session-id"), None, "a client may adopt any such header");
        if !response.is_sse() {
            response.bytes();
        }
    }
}

#[test]
fn a_request_without_a_session_is_refused_and_told_what_to_send() {
    let (bridge, _session) = start();
    let refusal = assert_refused(
        &mut bridge.post(tool_call("me", "echo", json!({})).to_string()),
        400,
        "session_required",
    );
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!("me"), &json!(-32600)));
    assert!(refusal["error"]["message"].as_str().unwrap().contains("Mcp-Session-Id"), "{refusal}");
}

#[test]
fn an_unknown_session_is_404_with_a_null_id() {
    let (bridge, session) = start();
    let long = "x".repeat(2000);
    let (first, rest) = session.id.split_at(1);
    let near = format!("{}{rest}", if first == "0" { "1" } else { "0" });
    for id in ["unknown", &near, rest, &long] {
        for request in [Request::post("/mcp", PING), Request::listen("/mcp"), Request::new("DELETE", "/mcp")]
        {
            let mut response = bridge.send(request.header("Mcp-Session-Id", id));
            response.expect(404, "no such session");
            let answer = response.json();
            assert_eq!(answer["id"], Value::Null, "an echoed id would look like the failure of one call");
            assert_eq!(answer["error"]["code"], -32001);
            assert!(
                answer["error"]["message"].as_str().unwrap().starts_with("Session not found"),
                "{answer}"
            );
        }
    }
    assert_alive(&session);
}

#[test]
fn two_session_headers_are_refused() {
    let (bridge, session) = start();
    let request = session.headers(session.headers(Request::post("/mcp", PING)));
    assert_eq!(bridge.send(request).status, 400);
    assert_alive(&session);
}

#[test]
fn an_empty_session_header_is_refused() {
    let (bridge, _session) = start();
    let status = bridge.send(Request::post("/mcp", PING).header("Mcp-Session-Id", "")).status;
    assert!(matches!(status, 400 | 404), "{status}");
}

#[test]
fn a_get_or_delete_without_a_session_is_405() {
    let (bridge, _session) = start();
    for request in [Request::listen("/mcp"), Request::new("DELETE", "/mcp")] {
        let mut response = bridge.send(request);
        response.expect(405, "there is nothing to listen to");
        assert!(response.header("allow").is_some_and(|allow| allow.contains("POST")));
    }
}

#[test]
fn a_modern_probe_costs_no_child_and_makes_the_client_fall_back() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let probe = json!({
        "jsonrpc": "2.0", "id": "probe", "method": "server/discover",
        "params": { "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        } },
    });
    let request = Request::post("/mcp", probe.to_string()).header("MCP-Protocol-Version", "2026-07-28");
    let mut response = bridge.send(request.header("Mcp-Method", "server/discover"));
    response.expect(200, "clients of all kinds take this for an old server");
    assert_eq!(response.header("mcp-session-id"), None);
    let answer = response.json();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("probe"), &json!(-32601)));
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_client_that_names_a_newer_version_in_a_live_session_is_served() {
    let (bridge, session) = start();
    for version in ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"] {
        let request = session.headers(Request::post("/mcp", PING)).header("MCP-Protocol-Version", version);
        bridge.send(request).expect(200, version);
    }
}

#[test]
fn an_unknown_protocol_version_is_refused() {
    let (bridge, session) = start();
    for version in ["1999-01-01", "banana", ""] {
        let request = session.headers(Request::post("/mcp", PING)).header("MCP-Protocol-Version", version);
        let refusal = assert_refused(&mut bridge.send(request), 400, "unsupported_protocol_version");
        assert!(
            refusal["error"]["message"].as_str().unwrap().contains("2025-06-18"),
            "the known ones are named: {refusal}"
        );
    }
    assert_alive(&session);
}

// ---------------------------------------------------------------------------------------------- bodies

#[test]
fn a_notification_or_response_is_202_without_a_body() {
    let (_bridge, session) = start();
    let mut response = session.post(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
    assert_eq!((response.status, response.bytes()), (202, vec![]));
}

#[test]
fn what_is_no_json_is_a_parse_error() {
    let (_bridge, session) = start();
    let bodies: [&[u8]; 14] = [
        b"",
        b" ",
        b"{",
        b"nonsense",
        b"{'jsonrpc':'2.0'}",
        b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}x",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}{}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",}",
        b"{\"jsonrpc\":\"2.0\",\"id\":01,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\xffng\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\nng\"}",
        b"\0{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\0",
    ];
    for body in bodies {
        let name = String::from_utf8_lossy(body).into_owned();
        let mut response = session.post(body);
        response.expect(400, &name);
        let refusal = assert_refused(&mut session.post(body), 400, "parse_error");
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&Value::Null, &json!(-32700)), "{name}");
    }
    assert_alive(&session);
}

#[test]
fn what_is_json_but_no_message_is_an_invalid_request() {
    let (_bridge, session) = start();
    let bodies = [
        ("null", "42"),
        ("null", "null"),
        ("null", r#""ping""#),
        ("null", "{}"),
        ("null", "[]"),
        ("null", r#"["2.0",1,"ping"]"#),
        ("1", r#"{"id":1,"method":"ping"}"#),
        ("1", r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#),
        ("1", r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#),
        ("null", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#),
        ("null", r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#),
        ("null", r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#),
        ("null", r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#),
        ("null", r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#),
        ("1", r#"{"jsonrpc":"2.0","id":1}"#),
        ("1", r#"{"jsonrpc":"2.0","id":1,"Method":"ping"}"#),
        ("1", r#"{"jsonrpc":"2.0","id":1,"method":7}"#),
        ("1", r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#),
        ("1", r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}"#),
    ];
    for (id, body) in bodies {
        let mut response = session.post(body);
        response.expect(400, body);
        let refusal = assert_refused(&mut session.post(body), 400, "invalid_request");
        assert_eq!(
            (refusal["id"].to_string(), &refusal["error"]["code"]),
            (id.to_owned(), &json!(-32600)),
            "{body}"
        );
    }
    assert_alive(&session);
}

#[test]
fn members_that_come_twice_are_refused_because_two_readers_would_see_two_messages() {
    let (_bridge, session) = start();
    let bodies = [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},"params":{"name":"crash"}}"#,
    ];
    for body in bodies {
        let mut response = session.post(body);
        response.expect(400, body);
    }
    assert_alive(&session);
}

#[test]
fn a_batch_is_refused_where_the_revision_has_none() {
    let (_bridge, session) = start();
    assert_refused(&mut session.post(format!("[{PING}]")), 400, "invalid_request");
    assert_alive(&session);
}

#[test]
fn a_batch_is_taken_apart_where_the_revision_has_it() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let session = bridge.initialize_as("2025-03-26");
    session.notify("notifications/initialized", json!({}));
    let batch = json!([
        tool_call(1, "echo", json!({ "text": "a" })),
        { "jsonrpc": "2.0", "method": "notifications/x" },
        tool_call(2, "echo", json!({ "text": "b" })),
    ]);
    let mut response = session.post(batch.to_string());
    response.expect(200, "the batch is answered");
    let mut answers: Vec<Value> = Vec::new();
    for message in response.messages() {
        match message {
            Value::Array(messages) => answers.extend(messages),
            message => answers.push(message),
        }
    }
    answers.sort_by_key(|answer| answer["id"].as_u64());
    let texts: Vec<(u64, String)> =
        answers.iter().map(|answer| (answer["id"].as_u64().unwrap(), text_of(answer))).collect();
    assert_eq!(texts, [(1, "a".to_owned()), (2, "b".to_owned())]);
    assert_refused(&mut session.post("[]"), 400, "invalid_request");
}

#[test]
fn a_content_type_other_than_json_is_415() {
    let (bridge, session) = start();
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "text/event-stream", ""]
    {
        let request = session.headers(Request::post("/mcp", PING)).with("Content-Type", kind);
        assert_refused(&mut bridge.send(request), 415, "unsupported_media_type");
    }
    let without = session.headers(Request::post("/mcp", PING)).without("Content-Type");
    assert_refused(&mut bridge.send(without), 415, "unsupported_media_type");
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=\"UTF-8\""]
    {
        let request = session.headers(Request::post("/mcp", PING)).with("Content-Type", kind);
        bridge.send(request).expect(200, kind);
    }
}

#[test]
fn a_compressed_body_is_415() {
    let (bridge, session) = start();
    let request = session.headers(Request::post("/mcp", PING)).header("Content-Encoding", "gzip");
    let refused = bridge.send(request);
    assert_eq!(refused.status, 415);
    assert_eq!(refused.header("accept-encoding"), Some("identity"), "what is taken instead");
    let request = session.headers(Request::post("/mcp", PING)).header("Content-Encoding", "identity");
    assert_eq!(bridge.send(request).status, 200);
}

// ---------------------------------------------------------------------------------------------- accept

#[test]
fn what_a_client_accepts_is_read_not_compared() {
    let (bridge, session) = start();
    let fine = [
        BOTH,
        "text/event-stream, application/json",
        "*/*",
        "application/*",
        "text/*",
        "application/json",
        "text/event-stream",
        "Application/JSON;q=0.5,\ttext/html",
        "application/json;q=1.0, text/event-stream;q=0",
    ];
    for accept in fine {
        let request = session.headers(Request::post("/mcp", PING)).with("Accept", accept);
        let mut response = bridge.send(request);
        response.expect(200, accept);
        assert_eq!(response.answer()["result"], json!({}), "{accept}");
    }
    let without = session.headers(Request::post("/mcp", PING)).without("Accept");
    bridge.send(without).expect(200, "no Accept accepts everything");
    for accept in ["text/html", "application/xml, image/*", "application/json;q=0, text/event-stream;q=0"] {
        let request = session.headers(Request::post("/mcp", PING)).with("Accept", accept);
        assert_refused(&mut bridge.send(request), 406, "not_acceptable");
    }
}

#[test]
fn a_client_that_accepts_only_json_gets_json_however_long_it_takes() {
    let (bridge, session) = start();
    let call = tool_call(1, "slow", json!({ "seconds": 0.6 })).to_string();
    let request = session.headers(Request::post("/mcp", call)).with("Accept", "application/json");
    let mut response = bridge.send(request);
    assert!(!response.is_sse());
    assert_eq!(text_of(&response.json()), "waited 0.6 s");
}

#[test]
fn a_client_that_accepts_only_streams_gets_a_stream_however_fast_it_is() {
    let (bridge, session) = start();
    let request = session.headers(Request::post("/mcp", PING)).with("Accept", "text/event-stream");
    let mut response = bridge.send(request);
    assert!(response.is_sse());
    assert_eq!(response.answer()["result"], json!({}));
}

#[test]
fn a_get_that_does_not_accept_a_stream_is_406() {
    let (bridge, session) = start();
    let request = session.headers(Request::new("GET", "/mcp")).header("Accept", "application/json");
    assert_refused(&mut bridge.send(request), 406, "not_acceptable");
}

// ---------------------------------------------------------------------------------------------- methods and paths

#[test]
fn other_methods_are_405_and_name_those_allowed() {
    let (bridge, session) = start();
    for method in ["PUT", "PATCH", "HEAD", "TRACE", "BREW"] {
        let response = bridge.send(session.headers(Request::new(method, "/mcp")));
        assert_eq!(response.status, 405, "{method}");
        let allow = response.header("allow").unwrap_or_default().to_owned();
        assert!(["GET", "POST", "DELETE"].iter().all(|method| allow.contains(method)), "{allow}");
    }
    assert_alive(&session);
}

#[test]
fn another_path_is_404_and_names_the_right_one() {
    let (bridge, session) = start();
    for path in ["/other", "/MCP", "//mcp", "/mcp/../x", "/mcp%00", "/%6dcp", "/sse", "/mcp/x"] {
        let mut response = bridge.send(session.headers(Request::post(path, PING)));
        response.expect(404, path);
        assert!(response.text().contains("/mcp"), "{path}");
    }
    for path in ["/mcp", "/mcp/", "/mcp?query=1", "/"] {
        bridge.send(session.headers(Request::post(path, PING))).expect(200, path);
    }
}

#[test]
fn answers_are_not_for_caches_and_give_no_product_away() {
    let (_bridge, session) = start();
    let stream = session.listen();
    for response in [&session.ping(), &session.post("{"), &stream] {
        let cache = response.header("cache-control").unwrap_or_default();
        assert!(cache.contains("no-store") || cache.contains("no-cache"), "{:?}", response.headers);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("server"), None);
    }
    assert_eq!(stream.header("x-accel-buffering"), Some("no"), "nginx would hold the stream back");
    assert_eq!(stream.header("content-type"), Some("text/event-stream"), "some clients compare bytes");
    assert_eq!(session.ping().header("content-type"), Some("application/json"));
}

// ---------------------------------------------------------------------------------------------- browsers

#[test]
fn a_foreign_origin_is_403_everywhere() {
    let (bridge, session) = start();
    let origins = [
        "http://evil.example",
        "null",
        "http://127.0.0.1.evil.example",
        "file://",
        "http://localhost@evil.example",
    ];
    for origin in origins {
        for request in [Request::post("/mcp", PING), Request::listen("/mcp"), Request::new("DELETE", "/mcp")]
        {
            let mut response = bridge.send(session.headers(request).header("Origin", origin));
            assert_refused(&mut response, 403, "origin_forbidden");
            assert_eq!(response.header("access-control-allow-origin"), None);
        }
    }
    assert_alive(&session);
}

#[test]
fn a_local_origin_is_served_while_the_bridge_is_local() {
    let (bridge, session) = start();
    for origin in ["http://localhost:6274", "http://127.0.0.1", "http://[::1]:8080"] {
        let request = session.headers(Request::post("/mcp", PING)).header("Origin", origin);
        let mut response = bridge.send(request);
        response.expect(200, origin);
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
        assert!(response.header("vary").is_some_and(|vary| vary.to_lowercase().contains("origin")));
    }
}

#[test]
fn an_allowed_origin_is_served_and_may_read_the_session_id() {
    let bridge = Bridge::start(&["--allow-origin", "https://app.example"], &["notebook"]);
    let request = Request::post("/mcp", initialize(0, "2025-06-18").to_string())
        .header("Origin", "https://app.example");
    let response = bridge.send(request);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://app.example"));
    let exposed = response.header("access-control-expose-headers").unwrap_or_default().to_lowercase();
    assert!(exposed.contains("mcp-session-id"), "{exposed}");
    for near in ["https://app.example:444", "http://app.example", "https://app.example.evil.example"] {
        let request = Request::post("/mcp", PING).header("Origin", near);
        assert_refused(&mut bridge.send(request), 403, "origin_forbidden");
    }
}

#[test]
fn a_preflight_is_answered_for_allowed_origins_only() {
    let bridge = Bridge::start(&["--allow-origin", "https://app.example"], &["notebook"]);
    let preflight = |origin: &str| {
        let request = Request::new("OPTIONS", "/mcp").header("Origin", origin);
        bridge.send(request.header("Access-Control-Request-Method", "POST"))
    };
    let allowed = preflight("https://app.example");
    assert_eq!(allowed.status, 204);
    let methods = allowed.header("access-control-allow-methods").unwrap_or_default();
    assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    let headers = allowed.header("access-control-allow-headers").unwrap_or_default().to_lowercase();
    for name in
        ["content-type", "accept", "authorization", "last-event-id", "mcp-session-id", "mcp-protocol-version"]
    {
        assert!(headers.contains(name), "{name} in {headers}");
    }
    assert_eq!(preflight("https://evil.example").status, 403);
}

#[test]
fn a_foreign_host_is_403_while_the_bridge_is_local_and_names_the_option() {
    let (bridge, session) = start();
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"] {
        let mut response = bridge.send(session.headers(Request::post("/mcp", PING)).header("Host", host));
        let refusal = assert_refused(&mut response, 403, "host_forbidden");
        assert!(refusal["error"]["message"].as_str().unwrap().contains("--allow-host"), "{refusal}");
    }
    for host in ["localhost", "localhost:1234", "127.0.0.1", "[::1]:80", "LOCALHOST"] {
        bridge.send(session.headers(Request::post("/mcp", PING)).header("Host", host)).expect(200, host);
    }
}

#[test]
fn an_allowed_host_is_served() {
    let bridge = Bridge::start(&["--allow-host", "tools.internal"], &["notebook"]);
    let request =
        Request::post("/mcp", initialize(0, "2025-06-18").to_string()).header("Host", "tools.internal:8080");
    bridge.send(request).expect(200, "the host is on the list");
}

// ---------------------------------------------------------------------------------------------- bytes

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let (bridge, session) = start();
    let mut connection = Connection::open(bridge.address);
    let requests: Vec<u8> = (1..=3)
        .flat_map(|id| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            session.headers(Request::post("/mcp", body)).to_bytes("localhost")
        })
        .collect();
    connection.write(&requests);
    for id in 1..=3 {
        let mut response = connection.response();
        assert_eq!(response.json()["id"], id);
        connection = response.into_connection();
    }
}

#[test]
fn a_connection_can_be_used_again_after_a_refusal() {
    let (bridge, session) = start();
    let mut connection = Connection::open(bridge.address);
    for body in ["{", "[]", "{}", PING] {
        connection.write(&session.headers(Request::post("/mcp", body)).to_bytes("localhost"));
        let mut response = connection.response();
        assert_eq!(response.status, if body == PING { 200 } else { 400 }, "{body}");
        response.bytes();
        connection = response.into_connection();
    }
}

#[test]
fn a_chunked_body_is_as_good_as_one_with_a_length() {
    let (bridge, session) = start();
    let request = session
        .headers(Request::post("/mcp", ""))
        .without("Content-Length")
        .header("Transfer-Encoding", "chunked");
    let mut bytes = request.to_bytes("localhost");
    for part in PING.as_bytes().chunks(7) {
        bytes.extend(format!("{:x}\r\n", part.len()).bytes());
        bytes.extend(part);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    assert_eq!(raw(&bridge, bytes).unwrap().json()["result"], json!({}));
}

#[test]
fn a_body_that_comes_byte_by_byte_is_waited_for() {
    let (bridge, session) = start();
    let mut connection = Connection::open(bridge.address);
    for byte in session.headers(Request::post("/mcp", PING)).to_bytes("localhost") {
        connection.write(&[byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(connection.response().json()["result"], json!({}));
}

#[test]
fn a_client_that_expects_100_continue_is_told_to_go_on_only_if_it_will_be_served() {
    let (bridge, session) = start();
    let request = session.headers(Request::post("/mcp", "")).with("Content-Length", &PING.len().to_string());
    let mut connection = Connection::open(bridge.address);
    connection.write(&request.header("Expect", "100-continue").to_bytes("localhost"));
    connection.write(PING.as_bytes());
    assert_eq!(connection.response().json()["result"], json!({}));

    let refused = Request::post("/mcp", "").with("Content-Length", "1000").header("Expect", "100-continue");
    let refused = refused.header("Origin", "http://evil.example");
    assert_eq!(raw(&bridge, refused.to_bytes("localhost")).unwrap().status, 403, "before the body is sent");
}

#[test]
fn http_1_0_works() {
    let (bridge, session) = start();
    let request = session.headers(Request::post("/mcp", PING)).to_bytes("localhost");
    let request = String::from_utf8(request).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(raw(&bridge, request).unwrap().json()["result"], json!({}));
}

#[test]
fn requests_that_two_readers_would_read_differently_are_refused() {
    let (bridge, session) = start();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let cases = [
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{PING}"),
        format!("{head}Content-Length: +40\r\n\r\n{PING}"),
        format!("{head}Content-Length: 40\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("POST /mcp HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{PING}"),
        format!("{head}Host: other\r\nContent-Length: {}\r\n\r\n{PING}", PING.len()),
    ];
    for case in cases {
        let status = raw(&bridge, &case).map(|response| response.status);
        assert!(matches!(status, None | Some(400..=599)), "{status:?} for {case:?}");
    }
    assert_alive(&session);
}

#[test]
fn bytes_that_are_no_http_end_the_connection_and_nothing_else() {
    let (bridge, session) = start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"hello\r\n\r\n",
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let status = raw(&bridge, [bytes, b"\r\n\r\n"].concat()).map(|response| response.status);
        assert!(matches!(status, None | Some(400..=505)), "{status:?} for {bytes:?}");
    }
    assert_alive(&session);
}

#[test]
fn headers_without_end_are_refused() {
    let (bridge, session) = start();
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "y".repeat(300_000));
    for headers in [many, large] {
        let status = raw(&bridge, format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
        assert!(matches!(status.map(|response| response.status), None | Some(431)));
    }
    assert_alive(&session);
}
