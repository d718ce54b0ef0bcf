use std::time::Duration;

use super::*;
use crate::proto::ids::Ids;
use crate::proto::line::LineDecoder;
use crate::proto::link::Readiness;

const MAX_MESSAGE: usize = 64 * 1024;

/// A server by its script: what it writes to each line that it reads, by the method.
struct Script {
    client: Client,
    /// What the client has written, without ids.
    received: Vec<Value>,
    now: Duration,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Script {
    fn new() -> Self {
        Self::of(Era::Legacy)
    }

    fn of(era: Era) -> Self {
        let limits = Limits {
            init_timeout: secs(10),
            request_timeout: secs(20),
            max_in_flight: 4,
            respawn: false,
            restore: None,
            ready: Readiness::AT_ONCE,
            ids: Ids::counted,
            state: || 1,
        };
        let config = Config { era: None, limits, max_message: MAX_MESSAGE, stop_grace: secs(1) };
        Self {
            client: Client::open(era, &config, std::sync::Arc::default()),
            received: Vec::new(),
            now: Duration::ZERO,
        }
    }

    /// Takes what the client has written, and returns the id of the last request in it.
    fn receive(&mut self) -> Value {
        let bytes = self.client.stdin().to_vec();
        self.client.written(bytes.len());
        let mut last = Value::Null;
        for line in bytes[..].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let message: Value = serde_json::from_slice(line).unwrap();
            last = message["id"].clone();
            self.received.push(message);
        }
        last
    }

    fn say(&mut self, line: &str) -> &mut Self {
        let mut decoder = LineDecoder::new(MAX_MESSAGE);
        decoder.buffer().extend_from_slice(line.as_bytes());
        decoder.buffer().extend_from_slice(b"\n");
        while let Some(frame) = decoder.next() {
            self.client.frame(frame, self.now);
        }
        self
    }

    /// Answers the last request: `member` is its result or error.
    fn answer(&mut self, member: &str) -> &mut Self {
        let id = self.receive();
        self.say(&format!(r#"{{"jsonrpc":"2.0","id":{id},{member}}}"#))
    }

    /// Answers `initialize`.
    fn open(&mut self, capabilities: &str) -> &mut Self {
        self.answer(&format!(
            r#""result":{{"protocolVersion":"2025-06-18","capabilities":{capabilities},"serverInfo":{{"name":"s","version":"1"}}}}"#
        ))
    }

    /// Answers `server/discover`.
    fn discover(&mut self, capabilities: &str) -> &mut Self {
        self.answer(&format!(
            r#""result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{capabilities},"ttlMs":0,"cacheScope":"private","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"s","version":"1"}}}}}}"#
        ))
    }

    fn methods(&mut self) -> Vec<&str> {
        self.receive();
        self.received.iter().filter_map(|message| message["method"].as_str()).collect()
    }

    fn why(&self) -> Option<&Why> {
        self.client.end.as_ref()?.as_ref().err().map(|failure| &failure.why)
    }
}

fn listed(count: usize, names: &[&str]) -> Option<Tools> {
    Some(Tools::Listed { count, names: names.iter().map(|name| (*name).to_owned()).collect() })
}

#[test]
fn the_handshake_is_complete_before_the_tools_are_asked_for() {
    let mut script = Script::new();
    script.now = Duration::from_millis(7);
    script.open(
        r#"{"tools":{"listChanged":true},"resources":{"subscribe":true,"listChanged":false},"logging":{}}"#,
    );
    assert_eq!(script.methods(), ["initialize", "notifications/initialized", "tools/list"]);
    assert_eq!(script.client.end, None);
    script.answer(r#""result":{"tools":[{"name":"add"},{"name":"li\u0073t"}]}"#);
    assert_eq!(script.client.end, Some(Ok(())));
    assert_eq!(script.client.tools, listed(2, &["add", "list"]));
    let server = script.client.server.unwrap();
    assert_eq!((&*server.name, &*server.version, server.protocol.as_deref()), ("s", "1", Some("2025-06-18")));
    assert_eq!(server.answered_after, Duration::from_millis(7));
    assert_eq!(server.capabilities, ["logging", "resources (subscribe)", "tools (listChanged)"]);
}

#[test]
fn a_server_without_sessions_is_discovered_and_each_request_says_what_a_handshake_would() {
    let mut script = Script::of(Era::Modern);
    script.now = Duration::from_millis(7);
    script.discover(r#"{"tools":{}}"#);
    script.answer(r#""result":{"resultType":"complete","tools":[{"name":"a"}],"nextCursor":"2"}"#);
    script.answer(r#""result":{"resultType":"complete","tools":[{"name":"b"}]}"#);
    assert_eq!((&script.client.end, &script.client.tools), (&Some(Ok(())), &listed(2, &["a", "b"])));
    assert_eq!(script.methods(), ["server/discover", "tools/list", "tools/list"], "and nothing is said");
    for request in &script.received {
        let meta = &request["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28", "{request}");
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], serde_json::json!({}), "{request}");
        assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "mcp-bridge", "{request}");
    }
    let cursors: Vec<_> =
        script.received.iter().map(|request| request["params"]["cursor"].as_str()).collect();
    assert_eq!(cursors, [None, None, Some("2")]);
    let server = script.client.server.unwrap();
    assert_eq!((&*server.name, &*server.version, server.protocol.as_deref()), ("s", "1", Some("2026-07-28")));
    assert_eq!((server.answered, server.answered_after), (Question::Discover, Duration::from_millis(7)));
}

#[test]
fn an_answer_to_discover_may_lack_all_that_it_should_have() {
    for (versions, protocol) in [
        ("", None),
        (r#""supportedVersions":{"0":"2026-07-28"}"#, None),
        (r#""supportedVersions":[]"#, None),
        (r#""supportedVersions":[1,null]"#, None),
        (r#""supportedVersions":["2026-07-28",7,"2025-11-25"]"#, Some("2026-07-28, 2025-11-25")),
    ] {
        let mut script = Script::of(Era::Modern);
        script.answer(&format!(r#""result":{{{versions}}}"#));
        assert_eq!(script.client.end, Some(Ok(())), "{versions}");
        let server = script.client.server.unwrap();
        assert_eq!((&*server.name, server.protocol.as_deref()), ("", protocol), "{versions}");
    }
}

#[test]
fn a_server_that_does_not_know_discover_is_said_to_refuse_it() {
    let mut script = Script::of(Era::Modern);
    script.answer(r#""error":{"code":-32601,"message":"no"}"#);
    let why = Why::Refused { code: "-32601".to_owned(), message: "no".to_owned() };
    assert_eq!(script.client.end, Some(Err(Failure { asked: Question::Discover, why })));
}

#[test]
fn a_server_that_declares_no_tools_is_not_asked_for_them() {
    let mut script = Script::new();
    script.open(r#"{"prompts":{}}"#);
    assert_eq!(script.methods(), ["initialize", "notifications/initialized"]);
    assert_eq!((script.client.end, script.client.tools), (Some(Ok(())), Some(Tools::NotDeclared)));
}

#[test]
fn a_declared_method_that_is_not_found_is_said_and_is_no_failure() {
    let mut script = Script::new();
    script.open(r#"{"tools":{}}"#).answer(r#""error":{"code":-32601,"message":"method not found"}"#);
    assert_eq!((script.client.end, script.client.tools), (Some(Ok(())), Some(Tools::MethodNotFound)));
}

#[test]
fn all_pages_are_asked_for_with_the_cursor_as_it_came() {
    let mut script = Script::new();
    script.open(r#"{"tools":{}}"#);
    script.answer(r#""result":{"tools":[{"name":"a"}],"nextCursor":"p\u00322"}"#);
    script.answer(r#""result":{"nextCursor":"3","tools":[{"name":"b"},{}]}"#);
    script.answer(r#""result":{"tools":[],"nextCursor":""}"#);
    assert_eq!(script.client.end, Some(Ok(())));
    assert_eq!(script.client.tools, listed(3, &["a", "b", ""]));
    let cursors: Vec<_> =
        script.received.iter().skip(2).map(|page| page["params"]["cursor"].as_str()).collect();
    assert_eq!(cursors, [None, Some("p22"), Some("3")]);
}

#[test]
fn a_list_without_end_is_a_failure_and_its_names_are_bounded() {
    let mut script = Script::new();
    script.open(r#"{"tools":{}}"#);
    for _ in 0..MAX_PAGES {
        assert_eq!(script.client.end, None);
        script.answer(r#""result":{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"again"}"#);
    }
    assert_eq!(script.why(), Some(&Why::Endless(MAX_PAGES)));
    let Some(Tools::Listed { count, names }) = &script.client.tools else { panic!("tools were listed") };
    assert_eq!((*count, names.len()), (2 * MAX_PAGES, MAX_NAMES));
}

#[test]
fn all_pages_together_have_the_time_of_one_request() {
    let mut script = Script::new();
    script.open(r#"{"tools":{}}"#);
    script.now = secs(19);
    script.answer(r#""result":{"tools":[],"nextCursor":"more"}"#);
    script.client.expire(secs(19));
    assert_eq!(script.client.end, None);
    assert_eq!(script.client.next_deadline(), Some(secs(20)));
    script.client.expire(secs(20));
    assert_eq!(script.why(), Some(&Why::Silent(secs(20))));
}

#[test]
fn a_server_that_does_not_answer_initialize_has_the_time_of_the_handshake() {
    let mut script = Script::new();
    script.client.expire(secs(9));
    assert_eq!(script.client.end, None);
    script.client.expire(secs(10));
    let failure = Failure { asked: Question::Initialize, why: Why::Silent(secs(10)) };
    assert_eq!(script.client.end, Some(Err(failure)));
}

#[test]
fn a_refusal_is_told_with_code_and_message() {
    let error = r#""error":{"code":-32603,"message":"no \u0022licence\""}"#;
    let why = Why::Refused { code: "-32603".to_owned(), message: r#"no "licence""#.to_owned() };
    let mut script = Script::new();
    script.answer(error);
    assert_eq!(script.client.end, Some(Err(Failure { asked: Question::Initialize, why: why.clone() })));
    let mut script = Script::new();
    script.open(r#"{"tools":{}}"#).answer(error);
    assert_eq!(script.client.end, Some(Err(Failure { asked: Question::ListTools, why })));
}

#[test]
fn what_is_no_message_is_counted_and_the_first_is_kept() {
    let mut script = Script::new();
    script.say("\x1b[32mwelcome\x1b[0m").say("[]").say("[1,2]").say(r#"{"level":"info"}"#);
    script.say(&"x".repeat(MAX_MESSAGE + 1)).say(r#"{"jsonrpc":"2.0","method":"notifications/message"}"#);
    assert_eq!(script.client.stray, Stray { lines: 5, first: r"\u{1b}[32mwelcome\u{1b}[0m".to_owned() });
    script.open("{}");
    assert_eq!(script.client.end, Some(Ok(())));
}

#[test]
fn an_answer_that_is_too_long_is_a_failure_and_a_longer_notification_is_not() {
    let mut script = Script::new();
    let filler = "x".repeat(MAX_MESSAGE);
    script.say(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":"{filler}"}}"#));
    assert_eq!((script.why(), script.client.stray.lines), (None, 0));
    script.answer(&format!(r#""result":"{filler}""#));
    assert_eq!(script.why(), Some(&Why::TooLong(MAX_MESSAGE)));
}

#[test]
fn a_server_that_asks_back_is_answered_and_an_echo_is_none() {
    let mut script = Script::new();
    script.say(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    script.say(r#"{"jsonrpc":"2.0","id":5,"method":"roots/list"}"#);
    script.receive();
    let replies: Vec<_> =
        script.received.iter().skip(1).map(|reply| (&reply["id"], &reply["error"]["code"])).collect();
    assert_eq!(replies, [(&Value::from("p"), &Value::Null), (&Value::from(5), &Value::from(-32601))]);
    script.say(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#);
    assert_eq!(script.why(), None, "a server behind a terminal may answer yet");
    script.client.expire(crate::proto::echo::ECHO_GRACE);
    assert_eq!(script.why(), Some(&Why::Echoed));
}

#[test]
fn a_list_that_is_no_list_is_a_failure() {
    for result in [r#"{}"#, r#"{"tools":{}}"#, "[]", "7"] {
        let mut script = Script::new();
        script.open(r#"{"tools":{}}"#).answer(&format!(r#""result":{result}"#));
        assert_eq!(script.why(), Some(&Why::NoArray), "{result}");
    }
}

#[test]
fn an_answer_to_initialize_may_lack_all_that_it_should_have() {
    for result in ["{}", "[]", "7", r#"{"serverInfo":5,"capabilities":[],"protocolVersion":1}"#] {
        let mut script = Script::new();
        script.answer(&format!(r#""result":{result}"#));
        assert_eq!(script.client.end, Some(Ok(())), "{result}");
        let server = script.client.server.unwrap();
        assert_eq!((&*server.name, server.protocol, server.capabilities.len()), ("", None, 0), "{result}");
    }
}

#[test]
fn names_and_capabilities_of_any_length_are_bounded() {
    let long = "x".repeat(1000);
    let many: Vec<String> = (0..100).map(|number| format!(r#""{long}{number}":{{}}"#)).collect();
    let mut script = Script::new();
    script.client.max_message = usize::MAX;
    let id = script.receive();
    let (start, capabilities) = (format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#), many.join(","));
    let info = format!(r#"{{"name":"{long}","version":"{long}"}}"#);
    let line = format!(
        r#"{start}{{"protocolVersion":"{long}","capabilities":{{{capabilities}}},"serverInfo":{info}}}}}"#
    );
    script.client.line(line.as_bytes().into(), secs(1));
    let server = script.client.server.unwrap();
    assert_eq!(server.capabilities.len(), MAX_CAPABILITIES);
    let texts = server.capabilities.iter().chain([&server.name, &server.version]).chain(&server.protocol);
    for text in texts {
        assert!(text.chars().count() <= super::super::report::MAX_TEXT + 1, "{}", text.len());
    }
}
