//! What a request of 2026-07-28 must carry, and what its head says of it a second time (`basic/index`, "Per-request
//! protocol fields"; `basic/transports/streamable-http`, "Request Metadata"): pure functions over head and message.
//!
//! A program in front may act on the head and the server acts on the message, so the two must say the same. Whether
//! `Mcp-Param-*` do depends on the server's tools, and is for the session to see.

use hyper::header::{HeaderMap, HeaderName};

use crate::http::head::{Asked, MCP_METHOD, MCP_NAME};
use crate::http::problem::Problem;
use crate::printable::cut;
use crate::proto::json::{unquote, values_of};
use crate::proto::message::Request;
use crate::proto::mirrored::{Undecodable, decode};
use crate::proto::output::Declined;
use crate::proto::version::{Revision, is_removed};
use crate::session::Fault;

/// How many bytes of such headers are kept of a head while its request waits, and how many of `Mcp-Param-*`. A request is
/// counted with 8 KiB beside its body.
const MAX_MIRRORED: usize = 8 * 1024;
const MAX_PARAMS: usize = 64;

const PARAM: &str = "mcp-param-";

/// What each request has in `_meta`.
const REVISION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT: &str = "io.modelcontextprotocol/clientInfo";
const LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// The levels of log messages (2026-07-28 `schema`, `LoggingLevel`).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// What the head says of the message, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mirror {
    method: Option<Box<[u8]>>,
    name: Option<Box<[u8]>>,
    /// The fields `Mcp-Param-NAME` by their NAME in small letters.
    pub(super) params: Vec<(Box<str>, Box<[u8]>)>,
}

impl Mirror {
    /// Copies it from a head.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, &'static str> {
        let mut left = MAX_MIRRORED;
        let mut take = |bytes: usize| {
            left = left.checked_sub(bytes).ok_or("the Mcp-* headers are longer than 8 KiB together")?;
            Ok::<_, &str>(())
        };
        let mut single = |name: &HeaderName| {
            let Some(value) = headers.get(name) else { return Ok(None) };
            take(value.len()).map(|()| Some(value.as_bytes().into()))
        };
        let (method, name) = (single(&MCP_METHOD)?, single(&MCP_NAME)?);
        let mut params: Vec<(Box<str>, Box<[u8]>)> = Vec::new();
        for (header, value) in headers {
            let Some(param) = header.as_str().strip_prefix(PARAM) else { continue };
            if params.iter().any(|(known, _)| **known == *param) {
                return Err("an Mcp-Param header comes twice");
            }
            if params.len() == MAX_PARAMS {
                return Err("there are more than 64 Mcp-Param headers");
            }
            take(param.len() + value.len())?;
            params.push((param.into(), value.as_bytes().into()));
        }
        Ok(Self { method, name, params })
    }
}

/// The revision that a request names in `_meta`, as it stands there.
fn token(request: &Request) -> Option<&str> {
    let meta = std::str::from_utf8(request.text().get(request.meta()?)?).ok()?;
    let [revision] = values_of(meta, [REVISION]);
    meta.get(revision?)
}

/// The known revision that a request names in `_meta`.
pub(super) fn revision(request: &Request) -> Option<Revision> {
    Revision::parse(&unquote(token(request)?))
}

/// The beginning of what a request names there.
pub(super) fn named(request: &Request) -> String {
    cut(&unquote(token(request).unwrap_or_default())).into_owned()
}

/// What is said of a request whose head alone says that it is of this era.
pub(super) fn unmarked() -> Problem {
    invalid("_meta has no io.modelcontextprotocol/protocolVersion")
}

/// Checks a request that is served. `asked`: its `MCP-Protocol-Version`. `mirror`: the rest of what its head mirrors.
///
/// # Errors
/// The first thing that is missing or wrong, in the order in which the official conformance suite expects it.
pub(super) fn check(asked: &Asked, mirror: &Mirror, request: &Request) -> Result<(), Problem> {
    let text = |span| request.text().get(span).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let meta = request.meta().and_then(text).unwrap_or("{}");
    let names = [REVISION, CAPABILITIES, CLIENT, LEVEL];
    let [revision, capabilities, client, level] =
        values_of(meta, names).map(|span| span.and_then(|span| meta.get(span)));

    let Some(revision) = revision else {
        return Err(unmarked());
    };
    if !revision.starts_with('"') {
        return Err(invalid("io.modelcontextprotocol/protocolVersion must be a string"));
    }
    let revision = unquote(revision);
    match asked.as_str() {
        None => {
            let why = "MCP-Protocol-Version is missing; send what _meta has in io.modelcontextprotocol/protocolVersion";
            return Err(mismatch(why));
        }
        Some(version) if version != revision => {
            return Err(mismatch(
                "MCP-Protocol-Version and io.modelcontextprotocol/protocolVersion of _meta differ",
            ));
        }
        Some(_) if !Revision::parse(&revision).is_some_and(Revision::modern) => {
            return Err(Problem::NotImplemented(cut(&revision).into_owned()));
        }
        Some(_) => {}
    }
    match capabilities {
        Some(capabilities) if capabilities.starts_with('{') => {}
        Some(_) => return Err(invalid("io.modelcontextprotocol/clientCapabilities must be an object")),
        None => {
            return Err(invalid(
                "_meta lacks io.modelcontextprotocol/clientCapabilities; without any it is {}",
            ));
        }
    }
    if client.is_some_and(|client| !client.starts_with('{')) {
        return Err(invalid("io.modelcontextprotocol/clientInfo must be an object"));
    }
    if level.is_some_and(|level| !LEVELS.contains(&&*unquote(level))) {
        return Err(invalid(
            "io.modelcontextprotocol/logLevel must be debug, info, notice, warning, error, critical, alert or emergency",
        ));
    }
    let method = request.method();
    check_method(mirror.method.as_deref(), &method)?;
    if let Some(source) = Source::of(&method) {
        let arguments = request.params().and_then(text).unwrap_or("{}");
        let [value] = values_of(arguments, [source.member()]);
        source.check(mirror.name.as_deref(), value.and_then(|span| arguments.get(span)))?;
    }
    // A server that knows both eras would take some of them for the beginning of a session.
    if is_removed(&method) {
        return Err(Problem::Fault(Fault::Declined(Declined::Method)));
    }
    Ok(())
}

pub(super) fn mismatch(why: &'static str) -> Problem {
    Problem::Fault(Fault::Declined(Declined::Header(why)))
}

fn invalid(why: &'static str) -> Problem {
    Problem::Fault(Fault::Declined(Declined::Params(why)))
}

fn check_method(header_value: Option<&[u8]>, method: &str) -> Result<(), Problem> {
    match header_value.map(<[u8]>::trim_ascii) {
        None => Err(mismatch("Mcp-Method is missing; send the message's method in it")),
        Some(value) if value != method.as_bytes() => {
            Err(mismatch("Mcp-Method and the message's method differ; values are case-sensitive"))
        }
        Some(_) => Ok(()),
    }
}

/// The parameter that `Mcp-Name` mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Name,
    Uri,
    /// Of the extension for tasks (SEP-2663).
    TaskId,
}

impl Source {
    fn of(method: &str) -> Option<Self> {
        match method {
            "tools/call" | "prompts/get" => Some(Self::Name),
            "resources/read" => Some(Self::Uri),
            "tasks/get" | "tasks/update" | "tasks/cancel" => Some(Self::TaskId),
            _ => None,
        }
    }

    fn member(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Uri => "uri",
            Self::TaskId => "taskId",
        }
    }

    /// Checks `Mcp-Name` against the member's value, which is a token of JSON.
    fn check(self, header_value: Option<&[u8]>, member: Option<&str>) -> Result<(), Problem> {
        let [missing, differs, no_string] = match self {
            Self::Name => [
                "Mcp-Name is missing; send params.name in it",
                "Mcp-Name and params.name differ",
                "params.name must be a string",
            ],
            Self::Uri => [
                "Mcp-Name is missing; send params.uri in it",
                "Mcp-Name and params.uri differ",
                "params.uri must be a string",
            ],
            Self::TaskId => [
                "Mcp-Name is missing; send params.taskId in it",
                "Mcp-Name and params.taskId differ",
                "params.taskId must be a string",
            ],
        };
        // What is no Unicode reads as empty.
        let text = member.filter(|token| token.starts_with('"')).map(|token| (token, unquote(token)));
        let text = text.filter(|(token, text)| !text.is_empty() || *token == "\"\"").map(|(_, text)| text);
        match (header_value, text) {
            (None, None) => Err(invalid(no_string)),
            (None, Some(_)) => Err(mismatch(missing)),
            (Some(value), text) => match decode(value) {
                Err(Undecodable::Characters) => Err(mismatch(
                    "Mcp-Name has other than visible ASCII characters; send it as =?base64?...?=",
                )),
                Err(Undecodable::Base64) => {
                    Err(mismatch("Mcp-Name is not valid base64 between =?base64? and ?="))
                }
                Ok(value) if text.is_some_and(|text| *value == *text.as_bytes()) => Ok(()),
                Ok(_) => Err(mismatch(differs)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let parsed = list.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            (HeaderName::try_from(*name).expect("a name"), value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in parsed {
            headers.append(name, value);
        }
        headers
    }

    fn request(method: &str, params: &str) -> Request {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        match crate::http::body::parse_one(text.clone().into()) {
            Ok(crate::proto::message::Message::Request(request)) => request,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// The code and the sentence with which a request is refused; 0 where it passes.
    fn checked(list: &[(&str, &str)], method: &str, params: &str) -> (i32, String) {
        let headers = headers(list);
        let mirror = Mirror::of(&headers).map_err(mismatch);
        let checked =
            mirror.and_then(|mirror| check(&Asked::of(&headers), &mirror, &request(method, params)));
        checked.err().map_or((0, String::new()), |problem| {
            let row = problem.row();
            let status = if row.code == -32601 { 404 } else { 400 };
            assert_eq!(row.status, status, "{problem:?}");
            (row.code, row.message.into_owned())
        })
    }

    const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

    #[test]
    fn what_a_request_says_of_itself_is_checked_in_the_order_of_the_official_suite() {
        let meta = |revision: &str, rest: &str| {
            format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{revision}{rest}}}}}"#)
        };
        let whole = r#","io.modelcontextprotocol/clientCapabilities":{}"#;
        let with = |more: &str| meta(r#""2026-07-28""#, &format!("{whole}{more}"));
        let good = ["2026-07-28"];
        let table: [(&[&str], String, i32, &str); 22] = [
            (&good, with(""), 0, ""),
            (&good, with(r#","io.modelcontextprotocol/clientInfo":{"name":"a","version":"1"}"#), 0, ""),
            (&good, with(r#","io.modelcontextprotocol/logLevel":"emergency","x":1"#), 0, ""),
            (&good, "{}".into(), -32602, "_meta has no io.modelcontextprotocol/protocolVersion"),
            (&good, r#"{"_meta":7}"#.into(), -32602, "_meta has no io.modelcontextprotocol/protocolVersion"),
            (&good, "[]".into(), -32602, "_meta has no"),
            (&good, meta("20260728", whole), -32602, "protocolVersion must be a string"),
            (&good, meta("null", whole), -32602, "protocolVersion must be a string"),
            // The version in the header goes first, and whether it is known after that.
            (&[], with(""), -32020, "MCP-Protocol-Version is missing"),
            (&[], meta(r#""v999.0.0""#, whole), -32020, "MCP-Protocol-Version is missing"),
            (&good, meta(r#""v999.0.0""#, whole), -32020, "MCP-Protocol-Version and"),
            (&["2025-11-25"], with(""), -32020, "MCP-Protocol-Version and"),
            (&["2026-07-28x"], with(""), -32020, "MCP-Protocol-Version and"),
            (&["v999.0.0"], meta(r#""v999.0.0""#, whole), -32022, "\"v999.0.0\""),
            (&["2025-11-25"], meta(r#""2025-11-25""#, ""), -32022, "\"2025-11-25\""),
            (
                &good,
                meta(r#""2026-07-28""#, ""),
                -32602,
                "_meta lacks io.modelcontextprotocol/clientCapabilities",
            ),
            (
                &good,
                meta(r#""2026-07-28""#, r#","io.modelcontextprotocol/clientCapabilities":[]"#),
                -32602,
                "clientCapabilities must be an object",
            ),
            (
                &good,
                with(r#","io.modelcontextprotocol/clientInfo":null"#),
                -32602,
                "clientInfo must be an object",
            ),
            (
                &good,
                with(r#","io.modelcontextprotocol/clientInfo":"a""#),
                -32602,
                "clientInfo must be an object",
            ),
            (
                &good,
                with(r#","io.modelcontextprotocol/logLevel":"loud""#),
                -32602,
                "logLevel must be debug, info",
            ),
            (
                &good,
                with(r#","io.modelcontextprotocol/logLevel":"INFO""#),
                -32602,
                "logLevel must be debug, info",
            ),
            (
                &good,
                with(r#","io.modelcontextprotocol/logLevel":null"#),
                -32602,
                "logLevel must be debug, info",
            ),
        ];
        for (version, params, code, why) in table {
            let list: Vec<_> = version.iter().map(|version| (VERSION.0, *version)).collect();
            let list = [&list[..], &[("mcp-method", "tools/list")]].concat();
            let (got, sentence) = checked(&list, "tools/list", &params);
            assert_eq!(got, code, "{version:?} {params}: {sentence}");
            assert!(sentence.contains(why), "{version:?} {params}: {sentence:?} says {why:?}");
        }
    }

    #[test]
    fn what_the_head_mirrors_is_what_the_message_says() {
        type Row<'r> = (&'r str, &'r [(&'r str, &'r str)], String, i32, &'r str);
        let with = |rest: &str| format!("{{{rest}{META}}}");
        let named = |token: &str| with(&format!(r#""name":{token},"#));
        let uri = with(r#""uri":"file:///a b","#);
        let task = with(r#""taskId":"7","name":"x","#);
        let table: [Row<'_>; 31] = [
            ("tools/list", &[("mcp-method", "tools/list")], with(""), 0, ""),
            ("tools/list", &[("mcp-method", " tools/list ")], with(""), 0, ""),
            ("tools/list", &[], with(""), -32020, "Mcp-Method is missing"),
            ("tools/list", &[("mcp-method", "TOOLS/LIST")], with(""), -32020, "Mcp-Method and"),
            ("tools/list", &[("mcp-method", "prompts/list")], with(""), -32020, "Mcp-Method and"),
            ("tools/list", &[("mcp-method", "")], with(""), -32020, "Mcp-Method and"),
            ("tools/list", &[("mcp-method", "tools/list"), ("mcp-name", "any")], with(""), 0, ""),
            ("tools/call", &[("mcp-name", "echo")], named(r#""echo""#), 0, ""),
            ("tools/call", &[("mcp-name", "  echo  ")], named(r#""echo""#), 0, ""),
            ("tools/call", &[("mcp-name", "echo")], named(r#""\u0065cho""#), 0, ""),
            ("tools/call", &[("mcp-name", "=?base64?w6ljaG8=?=")], named(r#""écho""#), 0, ""),
            ("tools/call", &[("mcp-name", "=?base64?PT9iYXNlNjQ/YT89?=")], named(r#""=?base64?a?=""#), 0, ""),
            ("tools/call", &[("mcp-name", "=?BASE64?ZQ==?=")], named(r#""=?BASE64?ZQ==?=""#), 0, ""),
            ("tools/call", &[("mcp-name", "")], named(r#""""#), 0, ""),
            ("tools/call", &[], named(r#""echo""#), -32020, "Mcp-Name is missing"),
            ("tools/call", &[], named(r#""""#), -32020, "Mcp-Name is missing"),
            (
                "tools/call",
                &[("mcp-name", "Echo")],
                named(r#""echo""#),
                -32020,
                "Mcp-Name and params.name differ",
            ),
            (
                "tools/call",
                &[("mcp-name", "")],
                named(r#""echo""#),
                -32020,
                "Mcp-Name and params.name differ",
            ),
            ("tools/call", &[("mcp-name", "a")], named(r#""=?base64?YQ==?=""#), -32020, "differ"),
            (
                "tools/call",
                &[("mcp-name", "=?base64?YQ==?=")],
                named(r#""=?base64?YQ==?=""#),
                -32020,
                "differ",
            ),
            ("tools/call", &[("mcp-name", "=?base64?YQ?=")], named(r#""a""#), -32020, "not valid base64"),
            ("tools/call", &[("mcp-name", "écho")], named(r#""écho""#), -32020, "visible ASCII"),
            ("tools/call", &[], named("7"), -32602, "params.name must be a string"),
            ("tools/call", &[("mcp-name", "7")], named("7"), -32020, "differ"),
            ("tools/call", &[("mcp-name", "")], with(""), -32020, "differ"),
            ("tools/call", &[("mcp-name", "")], named(r#""\ud800""#), -32020, "differ"),
            ("prompts/get", &[("mcp-name", "p")], named(r#""q""#), -32020, "differ"),
            ("resources/read", &[("mcp-name", "file:///a b")], uri.clone(), 0, ""),
            ("resources/read", &[], uri, -32020, "send params.uri in it"),
            ("tasks/get", &[("mcp-name", "7")], task.clone(), 0, ""),
            ("tasks/cancel", &[("mcp-name", "x")], task, -32020, "params.taskId differ"),
        ];
        for (method, list, params, code, why) in table {
            let own = [VERSION, ("mcp-method", method)];
            let own = if method == "tools/list" { &own[..1] } else { &own[..] };
            let (got, sentence) = checked(&[own, list].concat(), method, &params);
            assert_eq!(got, code, "{method} {list:?} {params}: {sentence}");
            assert!(sentence.contains(why), "{method} {list:?} {params}: {sentence:?} says {why:?}");
        }
    }

    #[test]
    fn a_method_that_this_revision_has_no_more_is_not_found_once_the_rest_is_right() {
        for method in
            ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
        {
            let params = format!("{{{META}}}");
            assert_eq!(checked(&[VERSION, ("mcp-method", method)], method, &params).0, -32601, "{method}");
            assert_eq!(checked(&[VERSION], method, &params).0, -32020, "{method}");
        }
    }

    #[test]
    fn no_sentence_holds_what_a_peer_sent() {
        let secret = "s3cr3t";
        let params = format!(r#"{{"name":"{secret}",{META}}}"#);
        for list in [
            &[VERSION, ("mcp-method", secret)][..],
            &[VERSION, ("mcp-method", "tools/call")],
            &[VERSION, ("mcp-method", "tools/call"), ("mcp-name", "other")],
            &[("mcp-protocol-version", secret), ("mcp-method", "tools/call")],
        ] {
            let (code, sentence) = checked(list, "tools/call", &params);
            assert_eq!(code, -32020);
            assert!(!sentence.contains(secret), "{sentence}");
        }
        let long = format!("\"{}\"", "v".repeat(100_000));
        let meta = format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{long}}}}}"#);
        assert!(named(&request("tools/list", &meta)).len() < 300);
    }

    #[test]
    fn mirrored_parameters_come_as_they_are_once_each_and_bounded() {
        let mirror = Mirror::of(&headers(&[
            ("Mcp-Param-Region", " us-west1"),
            ("mcp-param-greeting", "=?base64?SGVsbG8=?="),
            ("mcp-paramx", "no"),
            ("x-mcp-param-a", "no"),
        ]));
        let params = mirror.expect("fine").params;
        let got: Vec<_> = params.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(got, [("region", &b" us-west1"[..]), ("greeting", b"=?base64?SGVsbG8=?=")]);

        let twice = [("mcp-param-a", "1"), ("mcp-param-b", "2"), ("Mcp-Param-A", "1")];
        assert!(Mirror::of(&headers(&twice)).is_err_and(|why| why.contains("twice")));
        let many = |count: usize| {
            let names: Vec<_> = (0..count).map(|number| format!("mcp-param-{number}")).collect();
            let list: Vec<_> = names.iter().map(|name| (&**name, "1")).collect();
            Mirror::of(&headers(&list)).map(|mirror| mirror.params.len())
        };
        assert_eq!(many(MAX_PARAMS), Ok(MAX_PARAMS));
        assert!(many(MAX_PARAMS + 1).is_err_and(|why| why.contains("64")));
        for names in [&["mcp-param-a"][..], &["mcp-name"], &["mcp-method"], &["mcp-name", "mcp-param-a"]] {
            let of = |length: usize| {
                let value = "v".repeat(length / names.len());
                Mirror::of(&headers(&names.iter().map(|name| (*name, &*value)).collect::<Vec<_>>()))
            };
            assert!(of(MAX_MIRRORED - 20).is_ok(), "{names:?}");
            assert!(of(MAX_MIRRORED + 2).is_err_and(|why| why.contains("8 KiB")), "{names:?}");
        }
    }
}
