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
use crate::proto::version::Revision;
use crate::session::Fault;

/// How many bytes of such headers are kept of a head, and how many of `Mcp-Param-*`.
const MAX_MIRRORED: usize = 16 * 1024;
const MAX_PARAMS: usize = 64;

const PARAM: &str = "mcp-param-";

/// What each request has in `_meta`.
const REVISION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const CLIENT: &str = "io.modelcontextprotocol/clientInfo";
const LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// The levels of log messages (2026-07-28 `schema`, `LoggingLevel`).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Methods of the session era that this revision has no more (2026-07-28 `changelog`). No server gets them from its clients:
/// one that knows both eras would take the first for the beginning of a session.
const REMOVED: [&str; 5] =
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];

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
        let mut bytes = 0;
        let mut copy = |value: &[u8]| {
            bytes += value.len();
            let fits = bytes <= MAX_MIRRORED;
            fits.then(|| Box::from(value)).ok_or("the Mcp-* headers are longer than 16 KiB together")
        };
        let mut single =
            |name: &HeaderName| headers.get(name).map(|value| copy(value.as_bytes())).transpose();
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
            params.push((param.into(), copy(value.as_bytes())?));
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
    invalid("_meta lacks io.modelcontextprotocol/protocolVersion")
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
    if REMOVED.contains(&&*method) {
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
