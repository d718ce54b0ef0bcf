//! What the bridge says to requests that are wrong, or only look right: one row per rule, in raw bytes.
//!
//! Each row is an `initialize` that would start a child if it were let in; none is. After each, a session on another
//! connection is served as before.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use Want::{Bare, Closed, Refused};

use crate::h2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RST_STREAM, block};
use crate::support::{self, Bridge, PATIENCE, Session, initialize, json};

#[derive(Debug)]
enum Want {
    /// Refused by the bridge: the status, and the token in `Mcp-Bridge-Error`.
    Refused(u16, &'static str),
    /// Refused before it was understood as a request: one of these statuses, and no more.
    Bare(&'static [u16]),
    /// Not worth a word, or at most 400.
    Closed,
}

/// The name of the rule, what is sent, and what must come back.
type Row = (&'static str, Vec<u8>, Want);

struct House {
    bridge: Bridge,
    session: Session,
}

impl House {
    fn new() -> Self {
        let bridge = Bridge::start(&["--lazy", "--max-body", "4KiB"], &["hostile", "good"]);
        let session = bridge.session();
        House { bridge, session }
    }

    /// Writes the bytes and reads everything up to the end of the connection.
    #[track_caller]
    fn exchange(&self, name: &str, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.bridge.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        // A server that closes with bytes unread resets the connection; what came before counts.
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}: the connection ends");
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[track_caller]
    fn check(&self, rows: Vec<Row>) {
        for (name, bytes, want) in rows {
            let answer = self.exchange(name, &bytes);
            let status: u16 = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            let head = answer.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
            let token = head.lines().find_map(|line| line.strip_prefix("mcp-bridge-error: "));
            let right = match want {
                Refused(expected, reason) => status == expected && token == Some(reason),
                Bare(expected) => expected.contains(&status) && token.is_none(),
                Closed => matches!(status, 0 | 400) && token.is_none(),
            };
            assert!(right, "{name}: {want:?} is expected, not {answer:?}");
            // 100 (Continue) would be one more.
            assert!(
                answer.matches("HTTP/1.1 ").count() <= 1,
                "{name}: one answer to one request: {answer:?}"
            );
            self.is_unharmed(name);
        }
    }

    #[track_caller]
    fn is_unharmed(&self, name: &str) {
        assert_eq!(self.session.text("echo", json!({ "text": name })), name, "the neighbour is served");
        assert_eq!(self.bridge.processes().len(), 1, "{name}: no child but the neighbour's");
    }
}

/// An `initialize` with this request line, these lines in its head, and this body.
fn request(line: &str, lines: &[&str], body: &str) -> Vec<u8> {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let json = "Content-Type: application/json\r\nConnection: close";
    format!("{line}\r\n{json}\r\n{lines}\r\n{body}").into_bytes()
}

const LINE: &str = "POST /mcp HTTP/1.1";
const HOST: &str = "Host: localhost";
const CHUNKED: &str = "Transfer-Encoding: chunked";

fn body() -> String {
    initialize(0, "2025-06-18").to_string()
}

fn length() -> String {
    format!("Content-Length: {}", body().len())
}

/// A POST whose head has these lines too, and whose body has a length.
fn with(lines: &[&str]) -> Vec<u8> {
    request(LINE, &[&[HOST, &length()], lines].concat(), &body())
}

/// One whose body is framed by these lines.
fn framed(lines: &[&str], body: &str) -> Vec<u8> {
    request(LINE, &[&[HOST], lines].concat(), body)
}

/// One whose body is in chunks as given.
fn chunks(body: &str) -> Vec<u8> {
    framed(&[CHUNKED], body)
}

fn one_chunk() -> String {
    format!("{:x}\r\n{}\r\n0\r\n\r\n", body().len(), body())
}

// ---------------------------------------------------------------------------------------------- who is meant

#[test]
fn hosts_and_origins() {
    let hosts = |line: &str, hosts: &[&str]| request(line, &[hosts, &[&length()]].concat(), &body());
    let invalid = || Refused(400, "invalid_request");
    let mut not_ascii = hosts(LINE, &["Host: localhost?"]);
    let place = not_ascii.iter().position(|byte| *byte == b'?').unwrap();
    not_ascii[place] = 0xe9;
    let mut origin_not_ascii = with(&["Origin: http://localhost?"]);
    let place = origin_not_ascii.iter().position(|byte| *byte == b'?').unwrap();
    origin_not_ascii[place] = 0xe9;
    House::new().check(vec![
        ("no Host", hosts(LINE, &[]), invalid()),
        ("two Hosts", hosts(LINE, &[HOST, HOST]), invalid()),
        ("two Hosts that differ", hosts(LINE, &[HOST, "Host: 127.0.0.1"]), invalid()),
        ("a Host that is not ASCII", not_ascii, invalid()),
        ("an empty Host", hosts(LINE, &["Host:"]), Refused(403, "host_forbidden")),
        ("a foreign Host", hosts(LINE, &["Host: evil.example"]), Refused(403, "host_forbidden")),
        (
            "two names in Host",
            hosts(LINE, &["Host: localhost, evil.example"]),
            Refused(403, "host_forbidden"),
        ),
        ("a user in Host", hosts(LINE, &["Host: localhost@evil.example"]), Refused(403, "host_forbidden")),
        ("another target", hosts("POST http://evil.example/mcp HTTP/1.1", &[HOST]), invalid()),
        (
            "a target with a user",
            hosts("POST http://localhost@evil.example/mcp HTTP/1.1", &[HOST]),
            invalid(),
        ),
        (
            "a foreign target and Host",
            hosts("POST http://evil.example/mcp HTTP/1.1", &["Host: evil.example"]),
            Refused(403, "host_forbidden"),
        ),
        ("a target without a host", hosts("POST http:///mcp HTTP/1.1", &[HOST]), Bare(&[400])),
        ("two Origins", with(&["Origin: http://localhost", "Origin: http://localhost"]), invalid()),
        ("an empty Origin", with(&["Origin:"]), Refused(403, "origin_forbidden")),
        ("the origin null", with(&["Origin: null"]), Refused(403, "origin_forbidden")),
        (
            "two origins in one",
            with(&["Origin: http://localhost, http://evil.example"]),
            Refused(403, "origin_forbidden"),
        ),
        ("an Origin that is not ASCII", origin_not_ascii, Refused(403, "origin_forbidden")),
        (
            "an Origin that equals a Host",
            hosts(LINE, &["Host: evil.example", "Origin: http://evil.example"]),
            Refused(403, "host_forbidden"),
        ),
    ]);
}

// ---------------------------------------------------------------------------------------------- once and whole

/// A program in front may have read the other one of two, or the other end of a list.
#[test]
fn a_header_with_one_value_comes_once_and_a_list_is_read_to_its_end() {
    let invalid = || Refused(400, "invalid_request");
    let typed = |kind: &str| {
        let head =
            [LINE, HOST, &length(), "Connection: close", &format!("Content-Type: {kind}")].join("\r\n");
        format!("{head}\r\n\r\n{}", body()).into_bytes()
    };
    House::new().check(vec![
        ("two types", with(&["Content-Type: application/json"]), invalid()),
        ("two types that differ", with(&["content-type: text/plain"]), invalid()),
        ("types in a list", typed("application/json, text/plain"), Refused(415, "unsupported_media_type")),
        (
            "types behind a parameter",
            typed("application/json; a=b, text/plain"),
            Refused(415, "unsupported_media_type"),
        ),
        (
            "two codings",
            with(&["Content-Encoding: identity", "Content-Encoding: gzip"]),
            Refused(415, "unsupported_media_type"),
        ),
        (
            "codings in a list",
            with(&["Content-Encoding: identity, gzip"]),
            Refused(415, "unsupported_media_type"),
        ),
        (
            "an empty coding",
            with(&["Content-Encoding: identity", "Content-Encoding:"]),
            Refused(415, "unsupported_media_type"),
        ),
        ("two sessions", with(&["Mcp-Session-Id: a", "Mcp-Session-Id: a"]), invalid()),
        (
            "two versions",
            with(&["MCP-Protocol-Version: 2025-06-18", "mcp-protocol-version: 2025-06-18"]),
            invalid(),
        ),
        ("two events", with(&["Last-Event-ID: 1-1", "Last-Event-ID: 1-2"]), invalid()),
        ("two expectations", with(&["Expect: 100-continue", "Expect: 200-ok"]), invalid()),
        (
            "expectations in a list",
            with(&["Expect: 100-continue, 200-ok"]),
            Refused(417, "expectation_failed"),
        ),
        (
            "far and near",
            with(&["Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"]),
            Refused(403, "origin_forbidden"),
        ),
    ]);
}

// ---------------------------------------------------------------------------------------------- where a body ends

#[test]
fn codings_and_lengths() {
    let (body, chunk) = (body(), one_chunk());
    let length = body.len();
    let coded = |lines: &[&str]| framed(lines, &chunk);
    let long = |line: &str| framed(&[line], &body);
    let unsupported = || Refused(501, "unsupported_coding");
    let bare = || Bare(&[400]);
    House::new().check(vec![
        ("gzip, chunked", coded(&["Transfer-Encoding: gzip, chunked"]), unsupported()),
        ("chunked, chunked", coded(&["Transfer-Encoding: chunked, chunked"]), unsupported()),
        ("gzip and chunked in two lines", coded(&["Transfer-Encoding: gzip", CHUNKED]), unsupported()),
        ("chunked twice", coded(&[CHUNKED, CHUNKED]), Refused(400, "invalid_request")),
        ("chunked, gzip", coded(&["Transfer-Encoding: chunked, gzip"]), bare()),
        ("chunked, identity", coded(&["Transfer-Encoding: chunked, identity"]), bare()),
        ("identity", coded(&["Transfer-Encoding: identity"]), bare()),
        ("xchunked", coded(&["Transfer-Encoding: xchunked"]), bare()),
        ("\"chunked\"", coded(&["Transfer-Encoding: \"chunked\""]), bare()),
        ("an empty coding", coded(&["Transfer-Encoding:"]), bare()),
        ("a vertical tab", coded(&["Transfer-Encoding: \x0bchunked"]), bare()),
        ("a space before the colon", coded(&["Transfer-Encoding : chunked"]), bare()),
        ("a folded line", coded(&["X: y", " Transfer-Encoding: chunked"]), bare()),
        ("a bare CR", coded(&["X: y\rTransfer-Encoding: chunked"]), bare()),
        ("a NUL", coded(&["X: \0", CHUNKED]), bare()),
        ("chunked in HTTP/1.0", request("POST /mcp HTTP/1.0", &[HOST, CHUNKED], &chunk), bare()),
        (
            "a compressed body",
            framed(&["Content-Encoding: gzip", CHUNKED], &chunk),
            Refused(415, "unsupported_media_type"),
        ),
        // The coding counts, as RFC 9112 §6.3 says, and what is left belongs to nobody.
        (
            "a length beside a coding",
            framed(&["Content-Length: 4", CHUNKED], "2\r\n{}\r\n0\r\n\r\n"),
            Refused(400, "invalid_request"),
        ),
        ("two lengths", coded(&[&format!("Content-Length: {length}"), "Content-Length: 5"]), bare()),
        ("a list of lengths", long(&format!("Content-Length: {length}, {length}")), bare()),
        ("a length with a plus", long(&format!("Content-Length: +{length}")), bare()),
        ("a length below zero", long("Content-Length: -1"), bare()),
        ("a length in hexadecimal", long(&format!("Content-Length: 0x{length:x}")), bare()),
        ("a length with a fraction", long(&format!("Content-Length: {length}.0")), bare()),
        ("an empty length", long("Content-Length:"), bare()),
        ("a length beyond 64 bits", long("Content-Length: 18446744073709551616"), bare()),
        (
            "the longest length",
            long("Content-Length: 9223372036854775807"),
            Refused(413, "payload_too_large"),
        ),
        ("no body at all", framed(&[], ""), Refused(400, "parse_error")),
        ("a body without a length", framed(&[], &body), Refused(400, "parse_error")),
    ]);
}

#[test]
fn chunk_tricks() {
    let (body, chunk) = (body(), one_chunk());
    let length = body.len();
    let data = format!("{body}\r\n0\r\n\r\n");
    let broken = || Refused(400, "invalid_request");
    let many: String = (0..2000).map(|n| format!("X-{n}: y\r\n")).collect();
    House::new().check(vec![
        ("a size with 0x", chunks(&format!("0x{chunk}")), broken()),
        ("a size below zero", chunks(&format!("-{chunk}")), broken()),
        ("a size with a plus", chunks(&format!("+{chunk}")), broken()),
        ("a size that is no number", chunks(&format!("g{chunk}")), broken()),
        ("no size", chunks(&format!("\r\n{data}")), broken()),
        ("a size beyond 64 bits", chunks(&format!("10000000000000000{length:x}\r\n{data}")), broken()),
        ("a size with a comma", chunks(&format!("{length:x},1\r\n{data}")), broken()),
        ("a size that ends with LF", chunks(&format!("{length:x}\n{data}")), broken()),
        ("a size that ends with CR", chunks(&format!("{length:x}\r{data}")), broken()),
        ("data longer than its size", chunks(&format!("{:x}\r\n{data}", length - 1)), broken()),
        ("data shorter than its size", chunks(&format!("{:x}\r\n{data}", length + 1)), broken()),
        ("data that ends with LF", chunks(&format!("{length:x}\r\n{body}\n0\r\n\r\n")), broken()),
        ("LF in an extension", chunks(&format!("{length:x};a=\nb\r\n{data}")), broken()),
        ("a bare CR in an extension", chunks(&format!("{length:x};a=\rb\r\n{data}")), broken()),
        ("20 KB of extension", chunks(&format!("{length:x};{}\r\n{data}", "a".repeat(20_000))), broken()),
        (
            "20 KB of extensions in many chunks",
            chunks(&format!("1;{}\r\n \r\n", "a".repeat(200)).repeat(100)),
            broken(),
        ),
        ("trailers without end", chunks(&format!("{length:x}\r\n{body}\r\n0\r\n{many}\r\n")), broken()),
        (
            "a trailer that is none",
            chunks(&format!("{length:x}\r\n{body}\r\n0\r\nno colon\r\n\r\n")),
            broken(),
        ),
        (
            "more than the limit",
            chunks(&format!("1001\r\n{}\r\n0\r\n\r\n", " ".repeat(4097))),
            Refused(413, "payload_too_large"),
        ),
    ]);
}

/// Whatever stands in it, and whether it is read or not.
#[test]
fn the_body_of_a_refused_request_is_never_taken_for_a_request() {
    let house = House::new();
    let inner = String::from_utf8(with(&[])).unwrap();
    let last = "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let outer = |line: &str, more: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {}\r\n\r\n{inner}{last}",
            inner.len()
        )
    };
    for (status, bytes) in [
        (404, outer("POST /other", "")),
        (405, outer("PUT /mcp", "")),
        (405, outer("GET /mcp", "")),
        (405, outer("DELETE /mcp", "")),
        (204, outer("OPTIONS /mcp", "")),
        (200, outer("GET /healthz", "")),
        (415, outer("POST /mcp", "Content-Type: text/plain\r\n")),
        (403, outer("POST /mcp", "Origin: https://evil.example\r\n")),
        (400, outer("POST /mcp", "Content-Type: application/json\r\n")),
    ] {
        let answer = house.exchange(&bytes, bytes.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{bytes}: {answer}");
        // Either the connection ends, or the body was thrown away and the last request is answered.
        assert!(answer.matches("HTTP/1.1 ").count() <= 2, "{bytes}: {answer}");
        house.is_unharmed("a request in a body");
    }
}

// ---------------------------------------------------------------------------------------------- before the body

#[test]
fn whoever_is_refused_is_not_asked_for_the_body() {
    let expecting = |line: &str, lines: &[&str]| {
        let head = ["Expect: 100-continue", "Content-Length: 4096"];
        request(
            line,
            &[&head[usize::from(lines.iter().any(|line| line.starts_with("Expect")))..], lines].concat(),
            "",
        )
    };
    let post = |more: &str| expecting(LINE, &[HOST, more]);
    let large = request(LINE, &[HOST, "Expect: 100-continue", "Content-Length: 4097"], "");
    House::new().check(vec![
        ("a foreign host", expecting(LINE, &["Host: evil.example"]), Refused(403, "host_forbidden")),
        ("no host", expecting(LINE, &[]), Refused(400, "invalid_request")),
        ("a foreign origin", post("Origin: https://evil.example"), Refused(403, "origin_forbidden")),
        ("another path", expecting("POST /x HTTP/1.1", &[HOST]), Refused(404, "not_found")),
        ("another method", expecting("PUT /mcp HTTP/1.1", &[HOST]), Refused(405, "method_not_allowed")),
        ("another coding", post("Content-Encoding: br"), Refused(415, "unsupported_media_type")),
        ("another form of answer", post("Accept: text/html"), Refused(406, "not_acceptable")),
        ("too long a body", large, Refused(413, "payload_too_large")),
        ("an unknown session", post("Mcp-Session-Id: unknown"), Refused(404, "session_not_found")),
        ("an empty session", post("Mcp-Session-Id:"), Refused(400, "invalid_request")),
        ("another expectation", post("Expect: miracles"), Refused(417, "expectation_failed")),
        ("a second expectation", post("Expect: 100-continue, miracles"), Refused(417, "expectation_failed")),
        ("an empty expectation", post("Expect:"), Refused(417, "expectation_failed")),
    ]);
}

#[test]
fn heads_that_are_too_large() {
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let lines = |lines: &str| with(&[lines.trim_end()]);
    let target = |length: usize| {
        let line = format!("POST /mcp?{} HTTP/1.1", "x".repeat(length));
        request(&line, &[HOST, &self::length()], &body())
    };
    House::new().check(vec![
        // Host, type, connection and length are fields too.
        ("101 fields", lines(&fields(97)), Bare(&[431])),
        ("10,000 fields", lines(&fields(10_000)), Bare(&[0, 431])),
        ("one of 300 KB", lines(&format!("X: {}", "y".repeat(300_000))), Bare(&[0, 431])),
        ("a name of 300 KB", lines(&format!("{}: y", "x".repeat(300_000))), Bare(&[0, 400, 431])),
        ("a target of 70 KB", target(70_000), Bare(&[0, 414, 431])),
    ]);
}

// ---------------------------------------------------------------------------------------------- what it is at all

#[test]
fn versions_and_other_protocols() {
    let version = |version: &str| request(&format!("POST /mcp {version}"), &[HOST, &length()], &body());
    let raw = |bytes: &[u8]| bytes.to_vec();
    House::new().check(vec![
        ("HTTP/0.9", raw(b"GET /mcp\r\n\r\n"), Closed),
        ("HTTP/1.2", version("HTTP/1.2"), Closed),
        ("HTTP/1.10", version("HTTP/1.10"), Closed),
        ("HTTP/2.0 in a line", version("HTTP/2.0"), Closed),
        ("HTTP/3.0", version("HTTP/3.0"), Closed),
        ("http/1.1", version("http/1.1"), Closed),
        ("no version", version(""), Closed),
        ("a TLS hello", raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"), Closed),
        ("SSH", raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), Closed),
        ("a line of the stdio transport", raw(format!("{}\n\r\n\r\n", body()).as_bytes()), Closed),
        ("zeros", raw(&[0; 64]), Closed),
        ("every byte", raw(&(0..=255).collect::<Vec<u8>>()), Closed),
        ("nearly the preface of HTTP/2", raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"), Closed),
    ]);
}

#[test]
fn methods_and_targets() {
    let line = |line: &str| request(line, &[HOST, &length()], &body());
    let not_allowed = || Refused(405, "method_not_allowed");
    let not_found = || Refused(404, "not_found");
    let mut not_ascii = line("POST /mc? HTTP/1.1");
    not_ascii[8] = 0xf0;
    let mut rows = vec![
        ("OPTIONS *", line("OPTIONS * HTTP/1.1"), not_allowed()),
        ("POST *", line("POST * HTTP/1.1"), not_allowed()),
        ("CONNECT", line("CONNECT localhost:80 HTTP/1.1"), Refused(405, "method_not_allowed")),
        ("PRI", line("PRI * HTTP/1.1"), not_allowed()),
        ("TRACE", line("TRACE /mcp HTTP/1.1"), not_allowed()),
        ("HEAD", line("HEAD /mcp HTTP/1.1"), not_allowed()),
        ("a method in lower case", line("post /mcp HTTP/1.1"), not_allowed()),
        ("GET without a session", line("GET /mcp HTTP/1.1"), not_allowed()),
        ("DELETE without a session", line("DELETE /mcp HTTP/1.1"), not_allowed()),
        ("no method", line(" /mcp HTTP/1.1"), Closed),
        ("a method that is none", line("PO(ST /mcp HTTP/1.1"), Closed),
        ("a NUL in the target", line("POST /mcp\0 HTTP/1.1"), Closed),
        ("a space in the target", line("POST /mcp x HTTP/1.1"), Closed),
        ("a target that is not ASCII", not_ascii, Bare(&[0, 400])),
        ("a target without a slash", line("POST mcp HTTP/1.1"), not_found()),
    ];
    for path in [
        "/mcp/../x",
        "//mcp",
        "/mcp//",
        "/./mcp",
        "/mcp/.",
        "/x/../mcp",
        "/mcp/%2e%2e/mcp",
        "/%2e/mcp",
        "/mcp%2F",
        "/mcp%00",
        "/mcp%20",
        "/%6dcp",
        "/MCP",
        "/mcp;x=1",
        "/mcp\\",
        "/mcpx",
        "/x?/mcp",
        "/etc/passwd",
        "/message",
        "/sse",
    ] {
        rows.push((path, line(&format!("POST {path} HTTP/1.1")), not_found()));
    }
    let house = House::new();
    house.check(rows);
    for path in ["/mcp", "/mcp/", "/", "/mcp?x", "/mcp?/../x", "/mcp/?sessionId=x"] {
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let length = format!("Content-Length: {}", ping.len());
        let bytes = request(&format!("POST {path} HTTP/1.1"), &[HOST, &length], ping);
        house.check(vec![("the endpoint", bytes, Refused(400, "session_required"))]);
    }
}

// ---------------------------------------------------------------------------------------------- ids

#[test]
fn names_of_sessions() {
    let house = House::new();
    let gone = house.bridge.session();
    gone.delete();
    support::eventually("its child is gone", || house.bridge.processes().len() == 1);
    let named = |id: &str| with(&[&format!("Mcp-Session-Id: {id}")]);
    let (live, long) = (house.session.id.clone(), "x".repeat(10_000));
    let not_found = || Refused(404, "session_not_found");
    let invalid = || Refused(400, "invalid_request");
    let mut not_ascii = named("a?b");
    let place = not_ascii.iter().position(|byte| *byte == b'?').unwrap();
    not_ascii[place] = 0xe9;
    let swapped: String = live
        .chars()
        .map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    assert_ne!(swapped, live, "an id has letters");
    house.check(vec![
        ("an unknown one", named("unknown"), not_found()),
        ("one of the client's choice", named(&"a".repeat(live.len())), not_found()),
        ("one of the client's choice, again", named(&"a".repeat(live.len())), not_found()),
        ("10 KB", named(&long), not_found()),
        ("an empty one", named(""), invalid()),
        ("not ASCII", not_ascii, invalid()),
        ("with a space", named("a b"), invalid()),
        ("a list", named(&format!("{live}, {live}")), invalid()),
        ("a list without a space", named(&format!("{live},{live}")), not_found()),
        ("in quotes", named(&format!("\"{live}\"")), not_found()),
        ("cut off", named(&live[1..]), not_found()),
        ("one byte longer", named(&format!("{live}0")), not_found()),
        ("in the other case", named(&swapped), not_found()),
        ("a path", named("../../etc/passwd"), not_found()),
        ("twice", with(&[&format!("Mcp-Session-Id: {live}"), &format!("Mcp-Session-Id: {live}")]), invalid()),
        ("a live one", named(&live), Refused(400, "already_initialized")),
        ("one that is over", named(&gone.id), Refused(404, "session_terminated")),
        ("one that is over, again", named(&gone.id), Refused(404, "session_terminated")),
    ]);
}

#[test]
fn names_of_events() {
    let house = House::new();
    let get = |id: &[u8]| {
        let line = format!("Mcp-Session-Id: {}", house.session.id);
        let head = request("GET /mcp HTTP/1.1", &[HOST, "Accept: text/event-stream", &line], "");
        [&head[..head.len() - 2], b"Last-Event-ID: ", id, b"\r\n\r\n"].concat()
    };
    let long = "1".repeat(10_000);
    let rows = [
        ("no id", get(b"x")),
        ("of another server", get(b"5f2e9b1c-7d0a-4c39-9a51-0d6c6c2f8f11_000001")),
        ("below zero", get(b"-1-1")),
        ("with a plus", get(b"+1-1")),
        ("with a zero in front", get(b"01-1")),
        ("with a space", get(b"1 -1")),
        ("in hexadecimal", get(b"0x1-1")),
        ("beyond 64 bits", get(b"18446744073709551616-1")),
        ("the largest", get(b"18446744073709551615-18446744073709551615")),
        ("10 KB", get(long.as_bytes())),
        ("not ASCII", get(b"1-1\xe9")),
        ("of a stream that never was", get(b"7777-1")),
        ("of an event that has not been yet", get(b"0-7777")),
    ];
    house.check(rows.map(|(name, bytes)| (name, bytes, Refused(400, "no_replay"))).into());
}

// ---------------------------------------------------------------------------------------------- HTTP/2

#[test]
fn the_same_over_http_2() {
    let house = House::new();
    let authority = house.bridge.address.to_string();
    let (body, long) = (body(), "y".repeat(40_000));
    let (longer, shorter) = ((body.len() + 1).to_string(), (body.len() - 1).to_string());
    let json = ("content-type", "application/json");
    let pseudo = |method, path, more: &[(&'static str, &'static str)]| {
        let authority = (":authority", authority.as_str());
        let mut fields = vec![(":method", method), (":scheme", "http"), (":path", path), authority, json];
        fields.extend(more);
        block(&fields)
    };
    let post = |more| pseudo("POST", "/mcp", more);
    let base = [(":method", "POST"), (":scheme", "http"), (":path", "/mcp")];
    let and = |more: &[(&str, &str)]| block(&[&base, more].concat());
    // 0: the stream is reset, or the whole connection ended.
    let rows: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("no authority", and(&[json]), &[400]),
        ("a foreign authority", and(&[(":authority", "evil.example"), json]), &[403]),
        ("a Host that says otherwise", post(&[("host", "evil.example")]), &[400]),
        ("a foreign origin", post(&[("origin", "https://evil.example")]), &[403]),
        ("another path", pseudo("POST", "/mcp/../mcp", &[]), &[404]),
        ("an empty path", pseudo("POST", "", &[]), &[0]),
        ("a star", pseudo("POST", "*", &[]), &[405]),
        ("PUT", pseudo("PUT", "/mcp", &[]), &[405]),
        ("CONNECT", block(&[(":method", "CONNECT"), (":authority", &authority), json]), &[405]),
        ("an expectation", post(&[("expect", "miracles")]), &[417]),
        ("a session twice", post(&[("mcp-session-id", "a"), ("mcp-session-id", "a")]), &[400]),
        ("an unknown session", post(&[("mcp-session-id", "unknown")]), &[404]),
        ("a head of 40 KB", and(&[(":authority", &authority), json, ("x", &long)]), &[0, 431]),
        ("connection", post(&[("connection", "close")]), &[0]),
        ("transfer-encoding", post(&[("transfer-encoding", "chunked")]), &[0]),
        ("te that is not trailers", post(&[("te", "gzip")]), &[0]),
        ("a name in upper case", post(&[("X-Upper", "y")]), &[0]),
        ("a line feed in a value", post(&[("x", "a\nb: c")]), &[0]),
        ("a pseudo-header twice", and(&[(":path", "/mcp"), (":authority", &authority), json]), &[0]),
        ("a pseudo-header at the end", and(&[json, (":authority", &authority)]), &[0]),
        ("a pseudo-header that is none", and(&[(":authority", &authority), (":x", "y"), json]), &[0]),
        (
            "no method",
            block(&[(":scheme", "http"), (":path", "/mcp"), (":authority", &authority), json]),
            &[0],
        ),
        (
            "a length beyond the body",
            and(&[(":authority", &authority), json, ("content-length", &longer)]),
            &[0, 400],
        ),
        (
            "a length below the body",
            and(&[(":authority", &authority), json, ("content-length", &shorter)]),
            &[0, 400],
        ),
    ];
    for (name, head, expected) in rows {
        let mut client = Http2::open(house.bridge.address);
        // Longer than one frame may be, so it goes on in others.
        let mut parts = head.chunks(16_000).peekable();
        let mut kind = HEADERS;
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
            client.send(kind, last, 1, part);
            kind = CONTINUATION;
        }
        client.send(DATA, END_STREAM, 1, body.as_bytes());
        let status = loop {
            match client.polite_frame() {
                None => break 0,
                Some(frame) if frame.kind == GOAWAY || (frame.kind == RST_STREAM && frame.stream == 1) => {
                    break 0;
                }
                Some(frame) if frame.kind == HEADERS => break frame.status(),
                Some(_) => {}
            }
        };
        assert!(expected.contains(&status), "{name}: {expected:?} is expected, not {status}");
        house.is_unharmed(name);
    }
}
