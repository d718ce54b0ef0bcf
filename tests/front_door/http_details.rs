//! HTTP as it is really spoken: media ranges, preflights, paths, framing, old and new versions of the protocol, and
//! clients that can do only half of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::http::Connection;
use crate::support::{
    Bridge, PATIENCE, Request, Response, Scratch, Session, Value, assert_refused, bridge_command, eventually,
    initialize, json, text_of, tool_call,
};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn start(options: &[&str]) -> (Bridge, Session) {
    let bridge = Bridge::start(options, &["notebook"]);
    let session = bridge.session();
    (bridge, session)
}

/// Sends raw bytes and reads everything up to the end of the connection.
#[track_caller]
fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = socket.write_all(bytes.as_ref());
    let mut answer = Vec::new();
    // A server that closes with bytes unread resets the connection; what came before counts.
    if let Err(error) = socket.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection ends");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status in the first line; 0 where there is none.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A POST within the session, with further lines in its head and a body as given.
fn raw_post(session: &Session, lines: &str, body: &str) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nMcp-Session-Id: {}\r\nContent-Type: application/json\r\n{lines}\r\n{body}",
        session.id
    )
}

fn ping(session: &Session) -> Request {
    session.headers(Request::post("/mcp", PING))
}

#[track_caller]
fn assert_alive(session: &Session) {
    assert_eq!(session.text("echo", json!({ "text": "still here" })), "still here");
}

// ---------------------------------------------------------------------------------------------- media types

#[test]
fn the_form_of_an_answer_follows_the_most_specific_media_range() {
    let (_bridge, session) = start(&[]);
    const JSON: Option<&str> = Some("application/json");
    const SSE: Option<&str> = Some("text/event-stream");
    let table: &[(&[&str], Option<&str>)] = &[
        (&[], JSON),
        (&["*/*"], JSON),
        (&["application/*"], JSON),
        (&["text/*"], SSE),
        (&["text/*, application/json;q=0"], SSE),
        (&["*/*;q=0.1, application/json;q=0"], SSE),
        (&["*/*, text/event-stream;q=0"], JSON),
        (&["*/*;q=0, application/json"], JSON),
        (&["text/html, application/xhtml+xml, */*;q=0.8"], JSON),
        (&["TEXT/EVENT-STREAM"], SSE),
        (&["application/json;charset=utf-8;q=0.5"], JSON),
        (&["text/event-stream", "application/json"], JSON),
        (&["text/html", "text/event-stream"], SSE),
        (&[" application/json ,, "], JSON),
        (&["application/json; q = 0", "text/event-stream"], SSE),
        (&["text/html"], None),
        (&["application/*;q=0, text/plain"], None),
        (&["*/*;q=0"], None),
        (&["application/json-seq, text/event-streams"], None),
        (&["json"], None),
        (&[""], None),
    ];
    for (accept, form) in table {
        let request = accept
            .iter()
            .fold(ping(&session).without("Accept"), |request, accept| request.header("Accept", accept));
        let mut response = request.send(session.address);
        match form {
            Some(form) => {
                response.expect(200, &format!("{accept:?}"));
                assert_eq!(response.header("content-type"), Some(*form), "{accept:?}");
                assert_eq!(response.answer()["result"], json!({}), "{accept:?}");
            }
            None => {
                assert_refused(&mut response, 406, "not_acceptable");
            }
        }
    }
}

#[test]
fn a_get_needs_to_take_a_stream() {
    let (_bridge, session) = start(&[]);
    let get = |accept: &str| {
        session.headers(Request::new("GET", "/mcp")).header("Accept", accept).send(session.address)
    };
    for accept in
        ["text/event-stream", "*/*", "text/*", "application/json, text/event-stream", "text/html, */*;q=0.1"]
    {
        let response = get(accept);
        assert_eq!((response.status, response.is_sse()), (200, true), "{accept}");
    }
    for accept in ["application/json", "text/html", "*/*, text/event-stream;q=0", "text/event-streams"] {
        assert_refused(&mut get(accept), 406, "not_acceptable");
    }
}

#[test]
fn a_delete_may_accept_anything() {
    for accept in ["*/*", "application/json", "text/html"] {
        let (bridge, session) = start(&[]);
        let request = session.headers(Request::new("DELETE", "/mcp")).header("Accept", accept);
        assert_eq!(bridge.send(request).status, 204, "{accept}");
    }
}

#[test]
fn a_content_type_counts_by_its_essence() {
    let (bridge, session) = start(&[]);
    for kind in [
        "application/json",
        "APPLICATION/JSON",
        "application/json;charset=utf-8",
        "application/json ; charset=\"utf-8\"; x=y",
        "application/json;",
    ] {
        bridge.send(ping(&session).with("Content-Type", kind)).expect(200, kind);
    }
    for kind in [
        "application/*",
        "*/*",
        "json",
        "application",
        "application/",
        "application/json-rpc",
        "application/vnd.api+json",
        "text/json",
        "text/plain;application/json",
        "multipart/form-data; boundary=application/json",
    ] {
        assert_refused(
            &mut bridge.send(ping(&session).with("Content-Type", kind)),
            415,
            "unsupported_media_type",
        );
    }
}

#[test]
fn types_are_sent_in_lower_case_and_bare() {
    let (_bridge, patient) = start(&["--sse-after", "20s"]);
    assert_eq!(patient.ping().header("content-type"), Some("application/json"));
    let (_bridge, session) = start(&["--sse-after", "20ms"]);
    assert_eq!(session.post("{").header("content-type"), Some("application/json"));
    assert_eq!(session.listen().header("content-type"), Some("text/event-stream"));
    let slow = session.start_call("slow", json!({ "seconds": 0.2 }));
    assert_eq!(slow.header("content-type"), Some("text/event-stream"));
}

// ---------------------------------------------------------------------------------------------- browsers

const APP: &str = "https://app.example";

#[track_caller]
fn assert_no_cors(response: &Response) {
    let cors = response.headers.iter().find(|(name, _)| name.starts_with("access-control-"));
    assert_eq!(cors, None, "an origin that is not allowed learns nothing");
}

#[test]
fn a_preflight_allows_every_header_that_clients_send() {
    let bridge = Bridge::start(&["--allow-origin", APP], &["notebook"]);
    let request = Request::new("OPTIONS", "/mcp")
        .header("Origin", APP)
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "content-type, Mcp-Param-Region,mcp-param-x, traceparent, x-t",
        );
    let response = bridge.send(request);
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    let methods = response.header("access-control-allow-methods").unwrap();
    assert!(["GET", "POST", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    let allowed = response.header("access-control-allow-headers").unwrap().to_lowercase();
    let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
    for name in [
        "content-type",
        "accept",
        "authorization",
        "last-event-id",
        "mcp-session-id",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "mcp-param-region",
        "mcp-param-x",
        "traceparent", // what is in front may need what is none of ours
        "x-t",
    ] {
        assert!(allowed.contains(&name), "{name} in {allowed:?}");
    }
    let vary = response.header("vary").unwrap_or_default().to_lowercase();
    assert!(vary.contains("origin"), "{vary}");
}

#[test]
fn a_preflight_of_another_origin_is_403_and_learns_nothing() {
    let bridge = Bridge::start(&["--allow-origin", APP], &["notebook"]);
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.evil",
        "http://app.example",
        "https://APP.example:1",
    ] {
        let request = Request::new("OPTIONS", "/mcp").header("Origin", origin);
        let mut response = bridge.send(request.header("Access-Control-Request-Method", "POST"));
        assert_refused(&mut response, 403, "origin_forbidden");
        assert_no_cors(&response);
    }
}

#[test]
fn options_without_an_origin_says_what_there_is() {
    let (bridge, _session) = start(&[]);
    let response = bridge.send(Request::new("OPTIONS", "/mcp"));
    assert_eq!(response.status, 204);
    let allow = response.header("allow").unwrap();
    assert!(["GET", "POST", "DELETE", "OPTIONS"].iter().all(|method| allow.contains(method)), "{allow}");
    assert_no_cors(&response);
}

#[test]
fn a_page_of_an_allowed_origin_may_read_every_kind_of_answer() {
    let (bridge, session) = start(&["--allow-origin", APP, "--sse-after", "20ms"]);
    let slow = tool_call(2, "slow", json!({ "seconds": 0.2 })).to_string();
    let answers = [
        ("JSON", 200, ping(&session)),
        ("a POST stream", 200, session.headers(Request::post("/mcp", slow))),
        ("a GET stream", 200, session.headers(Request::listen("/mcp"))),
        (
            "202",
            202,
            session.headers(Request::post("/mcp", r#"{"jsonrpc":"2.0","method":"notifications/x"}"#)),
        ),
        ("400", 400, session.headers(Request::post("/mcp", "{"))),
        ("404", 404, Request::post("/mcp", PING).header("Mcp-Session-Id", "unknown")),
        ("404 of a wrong path", 404, session.headers(Request::post("/else", PING))),
        ("405", 405, session.headers(Request::new("PUT", "/mcp"))),
        ("406", 406, ping(&session).with("Accept", "text/html")),
        ("415", 415, ping(&session).with("Content-Type", "text/plain")),
        ("204", 204, session.headers(Request::new("DELETE", "/mcp"))),
    ];
    for (claim, status, request) in answers {
        let mut response = bridge.send(request.header("Origin", APP));
        response.expect(status, claim);
        assert_eq!(response.header("access-control-allow-origin"), Some(APP), "{claim}");
        let exposed = response.header("access-control-expose-headers").unwrap_or_default().to_lowercase();
        for name in [
            "mcp-session-id",
            "www-authenticate",
            "last-event-id",
            "mcp-protocol-version",
            "mcp-bridge-error",
            "retry-after",
        ] {
            assert!(exposed.contains(name), "{claim}: {name} in {exposed}");
        }
    }
}

#[test]
fn an_answer_to_no_origin_has_no_cors_headers() {
    let (bridge, session) = start(&["--allow-origin", APP]);
    assert_no_cors(&bridge.send(ping(&session)));
}

#[test]
fn an_origin_is_refused_before_anything_else_is_looked_at() {
    let (bridge, session) = start(&[]);
    let refused = |request: Request| {
        let mut response = bridge.send(request.header("Origin", "https://evil.example"));
        assert_refused(&mut response, 403, "origin_forbidden");
        assert_no_cors(&response);
    };
    refused(session.headers(Request::post("/mcp", "{")));
    refused(ping(&session).with("Content-Type", "text/plain"));
    refused(ping(&session).with("Accept", "text/html"));
    refused(Request::post("/mcp", PING).header("Mcp-Session-Id", "unknown"));
    refused(Request::post("/mcp", initialize(0, "2025-06-18").to_string()));
    refused(Request::new("PUT", "/mcp"));
    refused(Request::post("/", PING));
    refused(Request::post("/mcp/", PING));
}

// ---------------------------------------------------------------------------------------------- methods

#[test]
fn a_method_that_is_not_offered_is_405_with_or_without_a_session() {
    let (bridge, session) = start(&[]);
    for method in ["PUT", "PATCH", "HEAD", "TRACE", "QUERY", "post", "PROPFIND"] {
        for request in [Request::new(method, "/mcp"), session.headers(Request::new(method, "/mcp"))] {
            let response = bridge.send(request);
            assert_eq!(response.status, 405, "{method}");
            let allow = response.header("allow").unwrap_or_default();
            assert!(allow.contains("POST"), "{method}: {allow}");
        }
    }
}

#[test]
fn the_answer_to_head_has_no_body_and_the_connection_goes_on() {
    let (bridge, session) = start(&[]);
    let two = [
        session.headers(Request::new("HEAD", "/mcp")).to_bytes("localhost"),
        ping(&session).header("Connection", "close").to_bytes("localhost"),
    ];
    let answer = exchange(bridge.address, two.concat());
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(status(head), 405);
    assert_eq!(status(rest), 200, "nothing stands between the two heads: {answer}");
}

#[test]
fn trace_gives_nothing_back() {
    let (bridge, session) = start(&[]);
    let request = session.headers(Request::new("TRACE", "/mcp")).header("Cookie", "secret=1");
    let mut response = bridge.send(request);
    assert_eq!(response.status, 405);
    assert!(!response.text().contains("secret"), "not what was sent");
}

#[test]
fn connect_is_405() {
    let (bridge, _session) = start(&[]);
    let request = "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n";
    let answer = exchange(bridge.address, request);
    assert_eq!(status(&answer), 405, "{answer}");
}

#[test]
fn options_of_everything_is_405() {
    let (bridge, _session) = start(&[]);
    let request = "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(bridge.address, request);
    assert_eq!(status(&answer), 405, "{answer}");
}

#[test]
fn an_offer_to_upgrade_is_not_taken() {
    let (bridge, session) = start(&[]);
    for (upgrade, more) in
        [("h2c", "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"), ("websocket", "Sec-WebSocket-Version: 13\r\n")]
    {
        let lines = format!(
            "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: {upgrade}\r\n{more}Content-Length: {}\r\n",
            PING.len()
        );
        assert_eq!(status(&exchange(bridge.address, raw_post(&session, &lines, PING))), 200, "{upgrade}");
    }
}

// ---------------------------------------------------------------------------------------------- paths

#[test]
fn a_trailing_slash_is_served_and_not_redirected() {
    let (bridge, session) = start(&[]);
    let mut post = bridge.send(session.headers(Request::post("/mcp/", PING)));
    assert_eq!((post.status, post.json()["result"].clone()), (200, json!({})));
    let get = bridge.send(session.headers(Request::listen("/mcp/")));
    assert_eq!((get.status, get.is_sse()), (200, true));
    assert_eq!(bridge.send(Request::new("OPTIONS", "/mcp/")).status, 204);
    assert_eq!(bridge.send(session.headers(Request::new("DELETE", "/mcp/"))).status, 204);
}

#[test]
fn a_path_that_only_looks_like_the_endpoint_is_404() {
    let (bridge, session) = start(&[]);
    let paths = [
        "/mcp//",
        "//mcp",
        "/mcp/.",
        "/./mcp",
        "/mcp/../mcp",
        "/x/../mcp",
        "/mcp%2F",
        "/mcp/%2e%2e/mcp",
        "/%6Dcp",
        "/mcp%00",
        "/mcp%0d%0aX:1",
        "/mcp;x=1",
        "/mcp.json",
        "/mcpx",
        "/mc",
        "/Mcp",
        "/mcp\\",
        "/index.html",
        "/.well-known/oauth-protected-resource",
        "/etc/passwd",
    ];
    for path in paths {
        for request in [Request::post(path, PING), Request::listen(path), Request::new("DELETE", path)] {
            let mut response = bridge.send(session.headers(request));
            let text = response.text();
            assert_eq!(response.status, 404, "{path}: {text}");
            assert!(text.contains("/mcp"), "the right path is named: {text}");
            assert_eq!(response.header("location"), None, "{path}");
        }
    }
    assert_alive(&session);
}

#[test]
fn a_query_does_not_matter() {
    let (bridge, session) = start(&[]);
    for path in ["/mcp?", "/mcp?a=b", "/mcp/?x", "/mcp?/other", "/?x", "/mcp?sessionId=other"] {
        bridge.send(session.headers(Request::post(path, PING))).expect(200, path);
    }
}

#[test]
fn the_root_is_the_endpoint_for_every_method() {
    let (bridge, session) = start(&[]);
    bridge.send(session.headers(Request::post("/", PING))).expect(200, "POST");
    let mut stream = bridge.send(session.headers(Request::listen("/")));
    stream.expect(200, "GET");
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    bridge.send(session.headers(Request::new("PUT", "/"))).expect(405, "PUT");
    for request in [Request::listen("/"), Request::new("DELETE", "/")] {
        bridge.send(request).expect(405, "as at the endpoint itself, where there is no session");
    }
    assert_alive(&session);
    bridge.send(session.headers(Request::new("DELETE", "/"))).expect(204, "DELETE");
    session.ping().expect(404, "it has ended");
}

#[test]
fn the_root_can_be_all_there_is() {
    let bridge = Bridge::start(&["--path", "/"], &["notebook"]);
    let mut response = bridge.send(Request::post("/", initialize(0, "2025-06-18").to_string()));
    let session = Session::from_response(bridge.address, &mut response);
    bridge.send(session.headers(Request::listen("/"))).expect(200, "GET");
    let mut elsewhere = bridge.send(session.headers(Request::post("/mcp", PING)));
    elsewhere.expect(404, "another path");
    assert!(elsewhere.text().contains("the MCP endpoint is /\""), "the right path is named");
    bridge.send(session.headers(Request::new("DELETE", "/"))).expect(204, "DELETE");
}

#[test]
fn the_endpoint_is_where_the_option_says() {
    let bridge = Bridge::start(&["--path", "/api/v1/tools"], &["notebook"]);
    let body = initialize(0, "2025-06-18").to_string();
    let mut response = bridge.send(Request::post("/api/v1/tools", &body));
    let session = Session::from_response(bridge.address, &mut response);
    for path in ["/api/v1/tools", "/api/v1/tools/", "/"] {
        bridge.send(session.headers(Request::post(path, PING))).expect(200, path);
    }
    for path in ["/mcp", "/api/v1", "/api/v1/tools/x", "/tools"] {
        let mut response = bridge.send(session.headers(Request::post(path, PING)));
        response.expect(404, path);
        assert!(response.text().contains("/api/v1/tools"), "the right path is named");
    }
    bridge.logged("the start line names it", |line| line.contains("/api/v1/tools"));
}

// ---------------------------------------------------------------------------------------------- hosts

#[test]
fn an_absolute_target_must_name_the_same_host() {
    let (bridge, session) = start(&[]);
    let send = |target: &str, host: &str| {
        let lines = format!("Connection: close\r\nContent-Length: {}\r\n", PING.len());
        let request = raw_post(&session, &lines, PING);
        let request =
            request.replacen("/mcp", target, 1).replacen("Host: localhost", &format!("Host: {host}"), 1);
        status(&exchange(bridge.address, request))
    };
    assert_eq!(send("http://localhost/mcp", "localhost"), 200);
    assert_eq!(send("http://LOCALHOST:81/mcp", "localhost:81"), 200);
    assert_eq!(send("http://evil.example/mcp", "localhost"), 400);
    assert_eq!(send("http://localhost/mcp", "127.0.0.1"), 400);
    assert_eq!(send("http://localhost:81/mcp", "localhost:82"), 400);
    assert_eq!(send("http://evil.example/mcp", "evil.example"), 403);
}

#[test]
fn one_host_header_is_needed_and_no_more() {
    let (bridge, session) = start(&[]);
    let lines = format!("Connection: close\r\nContent-Length: {}\r\n", PING.len());
    let fine = raw_post(&session, &lines, PING);
    assert_eq!(status(&exchange(bridge.address, &fine)), 200);
    for hosts in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nHost: evil.example\r\n"] {
        let request = fine.replacen("Host: localhost\r\n", hosts, 1);
        assert_eq!(status(&exchange(bridge.address, &request)), 400, "{hosts:?}");
    }
    let probe =
        exchange(bridge.address, "GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: 10.0.0.7:8080\r\n\r\n");
    assert_eq!(status(&probe), 200, "a kubelet calls the pod by its address");
}

#[test]
fn names_of_headers_have_no_case() {
    let (bridge, session) = start(&[]);
    let lines =
        format!("Connection: close\r\ncOnTeNt-LeNgTh: {}\r\nACCEPT: text/event-stream\r\n", PING.len());
    let request = raw_post(&session, &lines, PING).replace("Mcp-Session-Id", "mCP-sESSION-iD");
    let answer = exchange(bridge.address, request);
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("text/event-stream"), "{answer}");
}

// ---------------------------------------------------------------------------------------------- framing

#[test]
fn a_transfer_coding_other_than_chunked_is_501() {
    let (bridge, session) = start(&[]);
    let body = format!("{:x}\r\n{PING}\r\n0\r\n\r\n", PING.len());
    for coding in ["gzip, chunked", "deflate,chunked"] {
        let request =
            raw_post(&session, &format!("Connection: close\r\nTransfer-Encoding: {coding}\r\n"), &body);
        let answer = exchange(bridge.address, request);
        assert_eq!(status(&answer), 501, "{coding}: {answer}");
        assert!(answer.contains("unsupported_coding"), "{answer}");
    }
    let fine = raw_post(&session, "Connection: close\r\nTransfer-Encoding: CHUNKED\r\n", &body);
    assert_eq!(status(&exchange(bridge.address, fine)), 200);
}

#[test]
fn a_body_that_two_readers_would_cut_differently_is_refused_and_never_forwarded() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let note = r#"{"jsonrpc":"2.0","method":"notifications/smuggled"}"#;
    let chunked = format!("{:x}\r\n{note}\r\n0\r\n\r\n", note.len());
    let length = note.len();
    let cases = [
        (format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length + 1), note.to_owned()),
        (format!("Content-Length: {length}, {length}\r\n"), note.to_owned()),
        (format!("Content-Length: +{length}\r\n"), note.to_owned()),
        (format!("Content-Length: -{length}\r\n"), note.to_owned()),
        (format!("Content-Length: 0x{length:x}\r\n"), note.to_owned()),
        ("Content-Length: 99999999999999999999999\r\n".to_owned(), note.to_owned()),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding : chunked\r\n".to_owned(), chunked.clone()),
        ("X: y\r\n Transfer-Encoding: chunked\r\n".to_owned(), chunked.clone()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("0x{chunked}")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("-{chunked}")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\n{note}\n0\n\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x}\r\n{note}xx0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{length:x};a=\n{note}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("ffffffffffffffff1\r\n{note}\r\n0\r\n\r\n")),
    ];
    for (lines, body) in cases {
        let answer =
            exchange(bridge.address, raw_post(&session, &format!("Connection: close\r\n{lines}"), &body));
        assert!(matches!(status(&answer), 0 | 400..=599), "{lines:?} {body:?}: {answer}");
    }
    assert_eq!(session.seen_count("notifications/smuggled"), 0);
}

#[test]
fn a_connection_on_which_length_and_coding_disagree_is_not_used_again() {
    let (bridge, session) = start(&[]);
    let body = format!("{:x}\r\n{PING}\r\n0\r\n\r\n", PING.len());
    let first = raw_post(&session, "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &body);
    let second = raw_post(&session, &format!("Content-Length: {}\r\n", PING.len()), PING);
    let answer = exchange(bridge.address, first + &second);
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer, then the end: {answer}");
}

#[test]
fn a_body_that_is_shorter_than_announced_does_not_reach_the_child() {
    let bridge = Bridge::start(&[], &["hostile", "good"]);
    let session = bridge.session();
    let note = r#"{"jsonrpc":"2.0","method":"notifications/short"}"#;
    for lines in
        [format!("Content-Length: {}\r\n", note.len() + 1), "Transfer-Encoding: chunked\r\n".to_owned()]
    {
        let body =
            if lines.starts_with('C') { note.to_owned() } else { format!("{:x}\r\n{note}\r\n", note.len()) };
        let mut socket = TcpStream::connect(bridge.address).unwrap();
        socket.write_all(raw_post(&session, &lines, &body).as_bytes()).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.read_to_string(&mut answer);
        assert!(matches!(status(&answer), 0 | 400), "{answer}");
    }
    assert_eq!(session.seen_count("notifications/short"), 0);
}

#[test]
fn whoever_will_be_refused_is_not_told_to_continue() {
    let (bridge, session) = start(&["--max-body", "1KiB"]);
    let cases = [
        (403, "Origin: https://evil.example\r\nContent-Length: 500\r\n"),
        (413, "Content-Length: 2000\r\n"),
        (406, "Accept: text/html\r\nContent-Length: 500\r\n"),
        (415, "Content-Encoding: gzip\r\nContent-Length: 500\r\n"),
        (404, "Mcp-Session-Id: unknown\r\nContent-Length: 500\r\n"),
    ];
    for (expected, lines) in cases {
        let mut request =
            raw_post(&session, &format!("Expect: 100-continue\r\nConnection: close\r\n{lines}"), "");
        if expected == 404 {
            request = request.replacen(&format!("Mcp-Session-Id: {}\r\n", session.id), "", 1);
        }
        let answer = exchange(bridge.address, request);
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(!answer.contains("100 Continue"), "the body would be sent for nothing: {answer}");
    }
}

#[test]
fn an_expectation_that_nobody_knows_is_417() {
    let (bridge, session) = start(&[]);
    let lines = format!("Expect: miracles\r\nConnection: close\r\nContent-Length: {}\r\n", PING.len());
    let answer = exchange(bridge.address, raw_post(&session, &lines, PING));
    assert_eq!(status(&answer), 417, "{answer}");
    assert!(answer.contains("expectation_failed"), "{answer}");
}

#[test]
fn a_long_head_is_served_and_an_overlong_one_is_refused() {
    let (bridge, session) = start(&[]);
    let send = |lines: String| {
        let lines = format!("{lines}Connection: close\r\nContent-Length: {}\r\n", PING.len());
        status(&exchange(bridge.address, raw_post(&session, &lines, PING)))
    };
    let fields = |count: usize, length: usize| -> String {
        (0..count).map(|n| format!("X-{n}: {}\r\n", "y".repeat(length))).collect()
    };
    assert_eq!(send(fields(50, 600)), 200, "30 KB in 50 fields");
    assert_eq!(send(fields(90, 10)), 200, "nearly a hundred fields");
    assert_eq!(send(fields(101, 10)), 431, "more than a hundred fields");
    assert!(matches!(send(fields(1, 70_000)), 0 | 431), "one field over 64 KiB");
    assert!(matches!(send(fields(50, 2000)), 0 | 431), "100 KB in 50 fields");
}

#[test]
fn an_overlong_target_is_refused() {
    let (bridge, session) = start(&[]);
    let target = format!("/mcp?{}", "x".repeat(70_000));
    let request = ping(&session).header("Connection", "close").to_bytes("localhost");
    let request = String::from_utf8(request).unwrap().replacen("/mcp", &target, 1);
    let answer = exchange(bridge.address, request);
    assert!(matches!(status(&answer), 0 | 404 | 414 | 431), "{}", &answer[..answer.len().min(200)]);
    assert_alive(&session);
}

#[test]
fn bare_line_feeds_and_blank_lines_before_a_request_do_no_harm() {
    let (bridge, session) = start(&[]);
    let lines = format!("Connection: close\r\nContent-Length: {}\r\n", PING.len());
    let request = raw_post(&session, &lines, PING);
    for request in [format!("\r\n\r\n{request}"), request.replace("\r\n", "\n")] {
        let answer = exchange(bridge.address, request);
        assert!(matches!(status(&answer), 200 | 400), "{answer}");
    }
    assert_alive(&session);
}

// ---------------------------------------------------------------------------------------------- connections

#[test]
fn requests_in_one_write_are_answered_in_order_whatever_their_form() {
    let (bridge, session) = start(&["--sse-after", "20ms"]);
    let mut connection = Connection::open(bridge.address);
    let slow = tool_call("slow", "slow", json!({ "seconds": 0.2 })).to_string();
    let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let requests: Vec<u8> = [&*slow, PING, note]
        .iter()
        .flat_map(|body| session.headers(Request::post("/mcp", body)).to_bytes("localhost"))
        .collect();
    connection.write(&requests);

    let mut first = connection.response();
    assert!(first.is_sse());
    assert_eq!(text_of(&first.answer()), "waited 0.2 s");
    let mut second = first.into_connection().response();
    assert_eq!(second.answer()["result"], json!({})); // in either form, on a busy machine
    let third = second.into_connection().response();
    assert_eq!(third.status, 202);
}

#[test]
fn a_connection_is_used_again_after_every_kind_of_answer() {
    let (bridge, session) = start(&["--sse-after", "20ms"]);
    let slow = tool_call("slow", "slow", json!({ "seconds": 0.1 })).to_string();
    let requests = [
        ping(&session),
        session.headers(Request::post("/mcp", slow)),
        session.headers(Request::post("/mcp", r#"{"jsonrpc":"2.0","method":"notifications/x"}"#)),
        session.headers(Request::post("/mcp", "{")),
        session.headers(Request::new("PUT", "/mcp")),
        Request::new("GET", "/other"),
        Request::new("OPTIONS", "/mcp"),
        Request::post("/mcp", PING).header("Mcp-Session-Id", "unknown"),
        ping(&session),
    ];
    let mut connection = Connection::open(bridge.address);
    let mut statuses = Vec::new();
    for request in requests {
        connection.write(&request.to_bytes("localhost"));
        let mut response = connection.response();
        statuses.push(response.status);
        response.bytes();
        connection = response.into_connection();
    }
    assert_eq!(statuses, [200, 200, 202, 400, 405, 404, 204, 404, 200]);
}

#[test]
fn a_client_that_wants_to_close_is_obliged() {
    let (bridge, session) = start(&[]);
    let answer = exchange(bridge.address, ping(&session).header("Connection", "close").to_bytes("localhost"));
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
}

// ---------------------------------------------------------------------------------------------- HTTP/1.0

fn old(request: Request) -> String {
    String::from_utf8(request.to_bytes("localhost")).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1)
}

#[test]
fn an_http_1_0_client_gets_json_with_a_length_and_then_the_end() {
    let (bridge, session) = start(&[]);
    for request in [old(ping(&session)), old(ping(&session)).replacen("Host: localhost\r\n", "", 1)] {
        let answer = exchange(bridge.address, request);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(status(head), 200, "{head}");
        assert!(head.to_lowercase().contains(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["result"], json!({}));
    }
}

#[test]
fn an_http_1_0_client_gets_a_stream_that_ends_with_the_connection() {
    let (bridge, session) = start(&["--sse-after", "20ms", "--keep-alive", "50ms"]);
    let slow = tool_call("slow", "slow", json!({ "seconds": 0.3 })).to_string();
    let answer = exchange(bridge.address, old(session.headers(Request::post("/mcp", slow))));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert_eq!(status(&head), 200);
    assert!(head.contains("text/event-stream"), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    assert!(body.starts_with(": keep-alive\n\n"), "comments, not chunks: {body:?}");
    assert!(body.ends_with("\n\n") && body.contains("waited 0.3 s"), "{body:?}");
}

// ---------------------------------------------------------------------------------------------- HTTP/2

/// As much of an HTTP/2 client (RFC 9113) as it takes to ask and to listen, with prior knowledge and no HPACK state.
struct Http2 {
    socket: TcpStream,
    authority: String,
    next_stream: u32,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING_FRAME: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What came on one stream.
#[derive(Default)]
struct Answer {
    /// The first byte of the header block: an entry of the static table (RFC 7541, appendix A).
    status: u8,
    pieces: Vec<String>,
    ended: bool,
    reset: bool,
}

const STATUS_200: u8 = 0x88;
const STATUS_204: u8 = 0x89;
const STATUS_400: u8 = 0x8c;

impl Http2 {
    fn open(bridge: &Bridge) -> Self {
        let mut socket = TcpStream::connect(bridge.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut client = Http2 { socket, authority: bridge.address.to_string(), next_stream: 1 };
        client.send(SETTINGS, 0, 0, &[]);
        client
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.socket.write_all(&frame).unwrap();
    }

    /// Sends a request and returns its stream.
    fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let authority = self.authority.clone();
        let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", &authority)];
        let mut block = Vec::new();
        for (name, value) in pseudo.iter().chain(headers) {
            // A literal that is not indexed, with a new name, both without Huffman (RFC 7541 §6.2.2).
            block.push(0);
            for text in [name, value] {
                let length = u8::try_from(text.len()).unwrap();
                assert!(length < 127, "longer ones take a second byte");
                block.push(length);
                block.extend(text.bytes());
            }
        }
        self.send(HEADERS, END_HEADERS | if body.is_none() { END_STREAM } else { 0 }, stream, &block);
        if let Some(body) = body {
            self.send(DATA, END_STREAM, stream, body.as_bytes());
        }
        stream
    }

    fn post(&mut self, session: &Session, body: &str) -> u32 {
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-session-id", &session.id),
        ];
        self.request("POST", "/mcp", &headers, Some(body))
    }

    #[track_caller]
    fn frame(&mut self) -> Frame {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).unwrap();
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.socket.read_exact(&mut payload).unwrap();
        let frame =
            Frame { kind: head[3], flags: head[4], stream: number(&head[5..]) & 0x7fff_ffff, payload };
        match frame.kind {
            SETTINGS | PING_FRAME if frame.flags & ACK == 0 => {
                let echoed = if frame.kind == PING_FRAME { frame.payload.clone() } else { Vec::new() };
                self.send(frame.kind, ACK, 0, &echoed);
            }
            GOAWAY => panic!("the bridge ends the connection: {:?}", frame.payload),
            _ => {}
        }
        frame
    }

    /// Reads what comes on these streams until `done`.
    #[track_caller]
    fn read(&mut self, streams: &[u32], done: impl Fn(&[Answer]) -> bool) -> Vec<Answer> {
        let mut answers: Vec<Answer> = streams.iter().map(|_| Answer::default()).collect();
        while !done(&answers) {
            let frame = self.frame();
            let Some(at) = streams.iter().position(|stream| *stream == frame.stream) else { continue };
            let answer = &mut answers[at];
            match frame.kind {
                HEADERS => answer.status = frame.payload[0],
                DATA if !frame.payload.is_empty() => {
                    answer.pieces.push(String::from_utf8(frame.payload).unwrap());
                }
                RST_STREAM => (answer.reset, answer.ended) = (true, true),
                _ => {}
            }
            answer.ended |= matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
        }
        answers
    }

    #[track_caller]
    fn answer(&mut self, stream: u32) -> Answer {
        self.read(&[stream], |answers| answers[0].ended).remove(0)
    }
}

#[test]
fn http_2_answers_a_post_with_json() {
    let (bridge, session) = start(&[]);
    let mut client = Http2::open(&bridge);
    for id in 1..=3 {
        let stream = client.post(&session, &tool_call(id, "echo", json!({ "text": "é" })).to_string());
        let answer = client.answer(stream);
        assert_eq!(answer.status, STATUS_200);
        let message: Value = serde_json::from_str(&answer.pieces.concat()).unwrap();
        assert_eq!((&message["id"], text_of(&message)), (&json!(id), "é".to_owned()));
    }
}

#[test]
fn http_2_opens_sessions_too() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let mut client = Http2::open(&bridge);
    let headers = [("content-type", "application/json")];
    let stream = client.request("POST", "/mcp", &headers, Some(&initialize(0, "2025-06-18").to_string()));
    let answer = client.answer(stream);
    assert_eq!(answer.status, STATUS_200);
    let message: Value = serde_json::from_str(&answer.pieces.concat()).unwrap();
    assert_eq!(message["result"]["serverInfo"]["name"], "notebook");
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn http_2_answers_a_post_with_a_stream_whose_events_come_as_they_happen() {
    let (bridge, session) = start(&[]);
    let mut client = Http2::open(&bridge);
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "count", "arguments": { "to": 3, "delay_ms": 60 }, "_meta": { "progressToken": "t" } },
    });
    let stream = client.post(&session, &call.to_string());
    let answer = client.answer(stream);
    assert_eq!(answer.status, STATUS_200);
    assert!(answer.pieces.len() >= 3, "an event does not wait for the next: {:?}", answer.pieces);
    let text = answer.pieces.concat();
    assert!(text.starts_with("event: message\nid: ") && text.ends_with("\n\n"), "{text}");
    assert!(text.contains("counted to 3"), "{text}");
    assert!(!answer.reset);
}

#[test]
fn http_2_serves_a_quick_call_while_a_slow_one_and_a_listener_wait_on_the_same_connection() {
    let (bridge, session) = start(&["--sse-after", "20ms", "--keep-alive", "50ms"]);
    let mut client = Http2::open(&bridge);
    let listening = client.request(
        "GET",
        "/mcp",
        &[("accept", "text/event-stream"), ("mcp-session-id", &session.id)],
        None,
    );
    let slow = client.post(&session, &tool_call(1, "slow", json!({ "seconds": 1 })).to_string());
    let quick =
        client.post(&session, &tool_call(2, "add_note", json!({ "title": "a", "text": "b" })).to_string());
    let answers = client.read(&[listening, slow, quick], |answers| {
        answers[2].ended && answers[0].pieces.concat().contains("list_changed")
    });
    assert!(answers[2].pieces.concat().contains("note 1 saved"));
    assert!(!answers[1].ended && !answers[0].ended);
    let rest = client.read(&[slow], |answers| answers[0].ended).remove(0);
    assert!(rest.pieces.concat().contains("waited 1 s"), "{:?}", rest.pieces);
}

#[test]
fn http_2_refuses_what_http_1_refuses() {
    let (bridge, session) = start(&[]);
    let mut client = Http2::open(&bridge);
    let stream = client.post(&session, "{");
    let answer = client.answer(stream);
    assert_eq!(answer.status, STATUS_400);
    assert!(answer.pieces.concat().contains("parse_error"));

    let headers = [("content-type", "application/json"), ("origin", "https://evil.example")];
    let stream = client.request("POST", "/mcp", &headers, Some(PING));
    assert!(client.answer(stream).pieces.concat().contains("origin_forbidden"));

    client.authority = "evil.example".to_owned();
    let stream = client.post(&session, PING);
    assert!(client.answer(stream).pieces.concat().contains("host_forbidden"));
}

#[test]
fn http_2_ends_a_session_and_its_listener() {
    let (bridge, session) = start(&[]);
    let mut client = Http2::open(&bridge);
    let named = [("mcp-session-id", &*session.id), ("accept", "text/event-stream")];
    let listening = client.request("GET", "/mcp", &named, None);
    client.read(&[listening], |answers| answers[0].status == STATUS_200);
    let deleted = client.request("DELETE", "/mcp", &named[..1], None);
    let answers = client.read(&[listening, deleted], |answers| answers.iter().all(|answer| answer.ended));
    assert_eq!(answers[1].status, STATUS_204);
    assert!(!answers[0].reset, "the stream ends in order");
}

#[test]
fn an_http_2_stream_that_is_reset_is_no_cancellation_and_harms_no_other() {
    let bridge = Bridge::start(&["--sse-after", "20ms"], &["hostile", "good"]);
    let session = bridge.session();
    let mut client = Http2::open(&bridge);
    let slow = client.post(&session, &tool_call(1, "sleep", json!({ "ms": 300 })).to_string());
    client.read(&[slow], |answers| answers[0].status == STATUS_200);
    client.send(RST_STREAM, 0, slow, &8_u32.to_be_bytes());
    let other = client.post(&session, &tool_call(2, "sleep", json!({ "ms": 400 })).to_string());
    assert!(client.answer(other).pieces.concat().contains("slept"));
    assert_eq!(session.seen_count("notifications/cancelled"), 0);
}

// ---------------------------------------------------------------------------------------------- half a client

fn json_only(request: Request) -> Request {
    request.with("Accept", "application/json")
}

#[test]
fn progress_does_not_break_a_client_that_takes_only_json() {
    let (bridge, session) = start(&["--sse-after", "0s"]);
    let mut listening = session.listen();
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "count", "arguments": { "to": 5, "delay_ms": 10 }, "_meta": { "progressToken": "t" } },
    });
    let mut response = bridge.send(json_only(session.headers(Request::post("/mcp", call.to_string()))));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(text_of(&response.json()), "counted to 5");
    assert!(
        listening.is_silent_for(Duration::from_millis(100)),
        "progress belongs to its call and to no other stream"
    );
}

#[test]
fn a_question_during_a_call_of_a_client_that_takes_only_json_comes_on_its_listening_stream() {
    let (bridge, session) = start(&[]);
    let body = tool_call(1, "list_roots", json!({})).to_string();
    let mut call = Connection::open(bridge.address);
    call.write(&json_only(session.headers(Request::post("/mcp", body))).to_bytes("localhost"));
    let question = session.listen().message();
    assert_eq!(question["method"], "roots/list");
    let answer =
        json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [{ "uri": "file:///a" }] } });
    let request = json_only(session.headers(Request::post("/mcp", answer.to_string())));
    assert_eq!(bridge.send(request).status, 202);
    let mut response = call.response();
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(text_of(&response.json()), "file:///a");
}

#[test]
fn a_client_that_takes_only_json_can_do_everything_else() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let body = initialize(0, "2025-06-18").to_string();
    let mut response = bridge.send(json_only(Request::post("/mcp", body)));
    let session = Session::from_response(bridge.address, &mut response);
    let post = |body: &str| bridge.send(json_only(session.headers(Request::post("/mcp", body))));
    assert_eq!(post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).status, 202);
    assert_eq!(post(PING).json()["result"], json!({}));
    assert_eq!(bridge.send(json_only(session.headers(Request::new("DELETE", "/mcp")))).status, 204);
}

#[test]
fn a_client_that_takes_only_streams_can_do_everything() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let stream_only = |body: &str, session: Option<&str>| {
        let request = Request::post("/mcp", body).with("Accept", "text/event-stream");
        bridge.send(match session {
            Some(id) => request.header("Mcp-Session-Id", id),
            None => request,
        })
    };
    let mut response = stream_only(&initialize(0, "2025-06-18").to_string(), None);
    assert!(response.is_sse());
    let id = response.header("mcp-session-id").unwrap().to_owned();
    assert_eq!(response.answer()["result"]["serverInfo"]["name"], "notebook");
    let mut noted = stream_only(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Some(&id));
    assert_eq!((noted.status, noted.bytes()), (202, vec![]));
    let mut call = stream_only(&tool_call(1, "list_roots", json!({})).to_string(), Some(&id));
    let question = call.message();
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "roots": [] } });
    assert_eq!(stream_only(&answer.to_string(), Some(&id)).status, 202);
    assert_eq!(text_of(&call.answer()), "no roots");
}

// ---------------------------------------------------------------------------------------------- the unix socket

/// A bridge that does not outlive a test that fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_unix_socket_carries_sessions_streams_and_refusals() {
    let scratch = Scratch::new();
    let path = scratch.path("bridge.sock");
    let mut command = bridge_command(&["--listen", &format!("unix:{path}")], &["notebook"]);
    let mut bridge = Ended(command.stderr(Stdio::null()).spawn().unwrap());
    eventually("the socket exists", || UnixStream::connect(&path).is_ok());
    let send = |request: Request| {
        let mut connection = Connection::over(Box::new(UnixStream::connect(&path).unwrap()));
        connection.write(&request.to_bytes("localhost"));
        connection.response()
    };
    let mut greeting = send(Request::post("/mcp", initialize(0, "2025-06-18").to_string()));
    let id = greeting.header("mcp-session-id").unwrap().to_owned();
    assert_eq!(greeting.answer()["result"]["serverInfo"]["name"], "notebook");
    let within = |request: Request| send(request.header("Mcp-Session-Id", &id));
    let mut listening = within(Request::listen("/mcp"));
    let mut slow = within(Request::post("/mcp", tool_call(1, "slow", json!({ "seconds": 0.4 })).to_string()));
    assert!(slow.is_sse());
    within(Request::post("/mcp", tool_call(2, "add_note", json!({ "title": "a", "text": "b" })).to_string()))
        .answer();
    assert_eq!(listening.message()["method"], "notifications/resources/list_changed");
    assert_eq!(text_of(&slow.answer()), "waited 0.4 s");
    assert_eq!(within(Request::post("/mcp", PING).header("Origin", "https://evil.example")).status, 403);
    assert_eq!(within(Request::new("DELETE", "/mcp")).status, 204);
    assert_eq!(listening.event(), None);

    let pid = nix::unistd::Pid::from_raw(bridge.0.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let code = bridge.0.wait().unwrap().code();
    assert_eq!(code, Some(0));
}

// ---------------------------------------------------------------------------------------------- delay

/// Without TCP_NODELAY a small packet waits for the acknowledgement of the one before, which a peer may delay by 40 ms.
/// Whether it does depends on the machine, so strace tells what the bridge asks the kernel for.
#[test]
fn a_stream_does_not_wait_for_acknowledgements() {
    let (bridge, session) = start(&[]);
    let scratch = Scratch::new();
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=setsockopt", "-o", &scratch.path("calls"), "-p", &bridge.pid().to_string()]);
    strace.stdout(Stdio::null()).stderr(std::fs::File::create(scratch.path("said")).unwrap());
    let Ok(mut strace) = strace.spawn() else {
        eprintln!("skipped: there is no strace");
        return;
    };
    let mut ended = false;
    eventually("strace is attached", || {
        ended = strace.try_wait().unwrap().is_some();
        ended || scratch.read("said").contains("attached")
    });
    if ended {
        eprintln!("skipped: this machine does not let strace trace: {}", scratch.read("said").trim());
        return;
    }
    assert_eq!(bridge.send(ping(&session)).answer()["result"], json!({}));
    eventually("the connection sends at once", || scratch.read("calls").contains("TCP_NODELAY, [1]"));
    drop(bridge);
    strace.wait().unwrap();
}
