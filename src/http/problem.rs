//! The one table, as long as it must be: what happened → HTTP status, JSON-RPC code, reason token, sentence.
//!
//! A peer gets these sentences and nothing else: no path, no environment, no output of the child. `data.source` tells
//! the bridge's errors from the server's, and the token stands in the header `Mcp-Bridge-Error` too, where a load
//! balancer's log can count it.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;

use crate::printable::cut;
use crate::proto::front::Refusal;
use crate::proto::ids::Id;
use crate::proto::nearly::Wrong;
use crate::proto::output::Declined;
use crate::proto::version::Revision;
use crate::session::{End, ExitStatus, Fault};

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const INTERNAL_ERROR: i32 = -32603;
/// The code that the SDKs give to a lost session, of the range that JSON-RPC 2.0 §5.1 leaves to implementations.
const SESSION_NOT_FOUND: i32 = -32001;
/// Those of 2026-07-28 (`basic/index`, "Error Codes"). Clients take a server that uses one for a modern one.
const HEADER_MISMATCH: i32 = -32020;
const MISSING_CLIENT_CAPABILITY: i32 = -32021;
const UNSUPPORTED_PROTOCOL_VERSION: i32 = -32022;

/// Everything that can go wrong, as far as a peer is concerned.
#[derive(Clone, Debug)]
pub enum Problem {
    /// The body is not UTF-8 or not JSON.
    Parse,
    /// It is JSON, but not a message; what is wrong with it.
    Invalid(&'static str),
    /// A batch, in a revision that has none or before a revision is negotiated.
    Batch(Option<Revision>),
    Refused(Refusal),
    /// No session named, and the message does not open one.
    SessionRequired,
    /// `Mcp-Session-Id` is unusable; why.
    SessionHeader(&'static str),
    /// The named session does not exist, as far as the caller may know.
    SessionNotFound,
    SessionEnded(End),
    /// `MCP-Protocol-Version` names no revision.
    Version(String),
    /// `Last-Event-ID` is malformed, unknown, or too old.
    NoReplay,
    /// `server/discover` of 2026-07-28, whose clients are not served here: they begin with `initialize` then.
    Modern,
    /// Another request of 2026-07-28, whose clients are not served here; the revision that it names, or its beginning.
    NotShared(String),
    /// The same, where this header would say who shares a server, and is not there.
    KeyMissing(String),
    /// A request of the modern era in a revision that is not served in this way; which, or its beginning.
    NotImplemented(String),
    /// The server of a request of 2026-07-28 has ended before it took it, and so has another one.
    ServerEnded(End),
    /// A header is missing or contradicts another; which and how.
    Header(&'static str),
    /// This header comes twice, and has one value.
    HeaderTwice(String),
    /// `Origin` is not on the list.
    Origin(String),
    /// `Host` is not on the list.
    Host(String),
    /// No token, or one that is not known.
    Unauthorized {
        given: Given,
        /// The URL of the metadata that says how to get one (RFC 9728).
        metadata: Option<String>,
    },
    /// `Accept` allows neither JSON nor an event stream.
    NotAcceptable,
    /// `Accept` of a GET lacks `text/event-stream`.
    NotAcceptableForGet,
    /// The same of `subscriptions/listen`.
    NotAcceptableForListen,
    /// `Content-Type` is not `application/json`.
    MediaType,
    /// `Content-Encoding` is not identity.
    ContentEncoding,
    /// `Transfer-Encoding` is more than `chunked`.
    TransferEncoding,
    /// `Expect` is not `100-continue`.
    Expectation,
    /// The method is not offered here; those that are.
    Method(&'static str),
    /// Nothing is served under this path.
    Path {
        /// The endpoint's path.
        endpoint: String,
        /// Whether it is one of the transport of 2024-11-05, which is not offered.
        is_old: bool,
    },
    /// The body is longer than this many bytes.
    BodyTooLarge(usize),
    /// The body came too slowly.
    BodyTimeout(TooSlow),
    /// The body ended before its length, or its framing is wrong.
    BodyBroken,
    /// For this time there was no memory for the request's body, or its session took nothing. The child has not seen it.
    NotForwarded(Duration),
    /// As many bodies wait for memory as may. The child has not seen this one.
    Crowded,
    /// As many sessions exist as are allowed.
    Full(usize),
    Draining,
    /// Each start of the server fails; the next one is tried after this time.
    Crashing(Duration),
    /// Each start with what this client sends fails; the next one is tried after this time.
    Blamed(Duration),
    /// The child could not be started.
    Spawn {
        /// Whether a resource was lacking (EAGAIN, ENOMEM, EMFILE and the like), so that it may work later.
        resource: bool,
    },
    /// The bridge answers a request in place of the child.
    Fault(Fault),
    /// The child failed before it answered `initialize`.
    StartFailed(Fault),
}

/// What a request that is let in by no token has in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Nothing,
    /// A token that is not known.
    Token,
    /// Another scheme, or no scheme at all.
    Other,
}

/// How slowly a body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow {
    /// How long it may stand still, and how far it may fall behind the rate in all.
    pub slack: Duration,
    /// In bytes per second.
    pub rate: usize,
    /// Whether that holds because others wait for its memory.
    pub wanted: bool,
}

#[derive(Debug)]
pub struct Row {
    pub status: StatusCode,
    pub code: i32,
    pub reason: &'static str,
    /// A sentence: what happened and what to do.
    pub message: Cow<'static, str>,
    /// Further members of `error.data`, as JSON.
    pub data: Vec<(&'static str, String)>,
}

impl Problem {
    pub fn row(&self) -> Row {
        use StatusCode as S;
        let (status, code, reason, message): (S, i32, &'static str, Cow<'static, str>) = match self {
            Self::Parse => {
                (S::BAD_REQUEST, PARSE_ERROR, "parse_error", "Parse error: the body is not UTF-8 JSON".into())
            }
            Self::Invalid(why) => {
                (S::BAD_REQUEST, INVALID_REQUEST, "invalid_request", format!("Invalid request: {why}").into())
            }
            Self::Batch(revision) => {
                let revision = revision.map_or("before initialize", Revision::as_str);
                let message = format!("Invalid request: no batches here ({revision}); send each message on its own");
                (S::BAD_REQUEST, INVALID_REQUEST, "invalid_request", message.into())
            }
            Self::Refused(refusal) => {
                let (reason, message) = match refusal {
                    Refusal::DuplicateId(_) => ("duplicate_id", "Invalid request: a request with this id is already in flight"),
                    Refusal::AlreadyInitialized(_) => (
                        "already_initialized",
                        "Invalid request: the session is already initialized; send initialize without Mcp-Session-Id to open a new one",
                    ),
                    Refusal::UnknownResponse => {
                        ("unknown_response", "Invalid request: the server has sent no request with this id")
                    }
                };
                (S::BAD_REQUEST, INVALID_REQUEST, reason, message.into())
            }
            Self::SessionRequired => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "session_required",
                "Mcp-Session-Id header is required; initialize opens a session".into(),
            ),
            Self::SessionHeader(why) => {
                (S::BAD_REQUEST, INVALID_REQUEST, "invalid_request", format!("Mcp-Session-Id {why}").into())
            }
            Self::SessionNotFound => {
                (S::NOT_FOUND, SESSION_NOT_FOUND, "session_not_found", "Session not found".into())
            }
            Self::SessionEnded(_) => {
                (S::NOT_FOUND, SESSION_NOT_FOUND, "session_terminated", "Session not found".into())
            }
            Self::Version(version) => {
                let known = Revision::ALL.map(Revision::as_str).join(", ");
                let message = format!("Unsupported MCP-Protocol-Version {:?}; supported are {known}", cut(version));
                (S::BAD_REQUEST, INVALID_REQUEST, "unsupported_protocol_version", message.into())
            }
            Self::NoReplay => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "no_replay",
                "Last-Event-ID names no event that is still kept (see --replay-buffer); send GET without it".into(),
            ),
            Self::Modern => (
                S::OK,
                METHOD_NOT_FOUND,
                "no_modern_era",
                "Method not found: this endpoint serves revisions up to 2025-11-25; begin with initialize".into(),
            ),
            Self::NotShared(_) => (
                S::BAD_REQUEST,
                UNSUPPORTED_PROTOCOL_VERSION,
                "no_modern_era",
                "Clients of 2026-07-28 are not served here, because they would share a server; \
                 --session-key or --share says which of them may. Begin with initialize"
                    .into(),
            ),
            Self::KeyMissing(header) => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "key_required",
                format!(
                    "The header {header} is missing: it says who shares a server (--session-key). \
                     Send it, or begin with initialize"
                )
                .into(),
            ),
            Self::NotImplemented(requested) => (
                S::BAD_REQUEST,
                UNSUPPORTED_PROTOCOL_VERSION,
                "unsupported_protocol_version",
                format!(
                    "Unsupported protocol version {:?}; without a session only 2026-07-28 is supported; other revisions start with initialize",
                    cut(requested)
                )
                .into(),
            ),
            Self::ServerEnded(_) => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "not_forwarded",
                "The server exited before it read the request, which may be sent again".into(),
            ),
            Self::Header(why) => {
                (S::BAD_REQUEST, INVALID_REQUEST, "invalid_request", format!("Bad request: {why}").into())
            }
            Self::HeaderTwice(name) => {
                (S::BAD_REQUEST, INVALID_REQUEST, "invalid_request", format!("Bad request: two {name} headers").into())
            }
            Self::Origin(origin) => {
                let message = format!("Origin {:?} is not allowed here; --allow-origin allows it", cut(origin));
                (S::FORBIDDEN, INVALID_REQUEST, "origin_forbidden", message.into())
            }
            Self::Host(host) => {
                let message = format!("Host {:?} is not allowed here; --allow-host allows it", cut(host));
                (S::FORBIDDEN, INVALID_REQUEST, "host_forbidden", message.into())
            }
            Self::Unauthorized { given, .. } => {
                let message = match given {
                    Given::Token => "The token is not valid",
                    Given::Other => "Authorization must be: Bearer TOKEN",
                    Given::Nothing => "A token is required: Authorization: Bearer TOKEN",
                };
                (S::UNAUTHORIZED, INVALID_REQUEST, "unauthorized", message.into())
            }
            Self::NotAcceptable => (
                S::NOT_ACCEPTABLE,
                INVALID_REQUEST,
                "not_acceptable",
                "Accept must allow application/json or text/event-stream, preferably both".into(),
            ),
            Self::NotAcceptableForGet => (
                S::NOT_ACCEPTABLE,
                INVALID_REQUEST,
                "not_acceptable",
                "Accept of a GET must allow text/event-stream".into(),
            ),
            Self::NotAcceptableForListen => (
                S::NOT_ACCEPTABLE,
                INVALID_REQUEST,
                "not_acceptable",
                "Accept of subscriptions/listen must allow text/event-stream".into(),
            ),
            Self::MediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                INVALID_REQUEST,
                "unsupported_media_type",
                "Content-Type must be application/json".into(),
            ),
            Self::ContentEncoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                INVALID_REQUEST,
                "unsupported_media_type",
                "Content-Encoding is not supported; send the body as it is".into(),
            ),
            Self::TransferEncoding => (
                S::NOT_IMPLEMENTED,
                INVALID_REQUEST,
                "unsupported_coding",
                "Transfer-Encoding other than chunked is not supported".into(),
            ),
            Self::Expectation => (
                S::EXPECTATION_FAILED,
                INVALID_REQUEST,
                "expectation_failed",
                "Expect other than 100-continue is not supported".into(),
            ),
            Self::Method(allowed) => (
                S::METHOD_NOT_ALLOWED,
                INVALID_REQUEST,
                "method_not_allowed",
                match allowed.contains("POST") {
                    true => format!("Method not allowed; allowed here: {allowed}. Connect an MCP client to this address"),
                    false => format!("Method not allowed; allowed here: {allowed}"),
                }
                .into(),
            ),
            Self::Path { endpoint, is_old } => (
                S::NOT_FOUND,
                INVALID_REQUEST,
                "not_found",
                match is_old {
                    true => format!(
                        "Not found; the MCP endpoint is {endpoint}, and --sse-compat offers the transport of 2024-11-05"
                    ),
                    false => format!("Not found; the MCP endpoint is {endpoint}"),
                }
                .into(),
            ),
            Self::BodyTooLarge(limit) => (
                S::PAYLOAD_TOO_LARGE,
                INVALID_REQUEST,
                "payload_too_large",
                format!("The body is longer than {limit} bytes; --max-body sets the limit").into(),
            ),
            Self::BodyTimeout(TooSlow { slack, rate, wanted }) => {
                let rate = rate / 1024;
                let because = if *wanted { ", because others wait for its memory" } else { "" };
                let message = format!(
                    "The body came too slowly: it may be at most {slack:?} behind {rate} KiB/s{because}; \
                     --body-timeout sets the limit"
                );
                (S::REQUEST_TIMEOUT, INVALID_REQUEST, "request_timeout", message.into())
            }
            Self::BodyBroken => (
                S::BAD_REQUEST,
                INVALID_REQUEST,
                "invalid_request",
                "The body ended too early or its framing is invalid".into(),
            ),
            Self::NotForwarded(limit) => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "not_forwarded",
                format!(
                    "The server has not been sent the request within {limit:?}, so it may be sent again; \
                     --request-timeout sets the limit"
                )
                .into(),
            ),
            Self::Crowded => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "not_forwarded",
                "Too many request bodies wait for the server to read earlier ones; \
                 this one may be sent again"
                    .into(),
            ),
            Self::Full(limit) => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "too_many_sessions",
                format!("All {limit} sessions are taken; --max-sessions sets the limit").into(),
            ),
            Self::Draining => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "shutting_down",
                "The bridge is stopping and accepts no new sessions".into(),
            ),
            Self::Crashing(_) => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "spawn_backoff",
                "Every start of the server fails; the bridge's log says why. Try again later".into(),
            ),
            Self::Blamed(_) => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "spawn_backoff",
                "The server fails at each start with what this client sends in initialize or in a header; \
                 the bridge's log says why. Try again later"
                    .into(),
            ),
            Self::Spawn { resource: true } => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "spawn_resource",
                "The server could not be started for lack of memory, processes or open files; try again later".into(),
            ),
            Self::Spawn { resource: false } => (
                S::SERVICE_UNAVAILABLE,
                INTERNAL_ERROR,
                "spawn_failed",
                "The server could not be started; the bridge's log says why".into(),
            ),
            Self::Fault(Fault::Declined(why)) => declined_row(*why),
            Self::Fault(fault) | Self::StartFailed(fault) => {
                let status =
                    if matches!(self, Self::StartFailed(_)) { S::BAD_GATEWAY } else { S::OK };
                let (code, reason, message) = match self {
                    Self::StartFailed(Fault::Ended(end)) => not_started_row(*end),
                    _ => fault_row(fault),
                };
                (status, code, reason, message)
            }
        };
        Row { status, code, reason, message, data: self.data() }
    }

    /// What a program may want to know beside the token.
    fn data(&self) -> Vec<(&'static str, String)> {
        let end = match self {
            Self::NotShared(requested) => return versions(|revision| !revision.modern(), requested),
            Self::NotImplemented(requested) => return versions(Revision::modern, requested),
            Self::Fault(Fault::Declined(Declined::Capability(capability))) => {
                return vec![("requiredCapabilities", format!(r#"{{"{}":{{}}}}"#, capability.as_str()))];
            }
            Self::SessionEnded(end) | Self::ServerEnded(end) => *end,
            Self::Fault(Fault::Ended(end) | Fault::Lost(end)) | Self::StartFailed(Fault::Ended(end)) => *end,
            _ => return Vec::new(),
        };
        let mut data = vec![("cause", format!("\"{}\"", end.cause()))];
        if matches!(self, Self::Fault(Fault::Lost(_))) {
            data.push(("respawned", "true".to_owned()));
        }
        match end {
            End::Exited(ExitStatus::Code(code)) => data.push(("exit_code", code.to_string())),
            End::Exited(ExitStatus::Signal(signal)) => data.push(("signal", format!("\"{signal}\""))),
            _ => {}
        }
        data
    }

    /// After how many seconds the client may try again.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Full(_) | Self::NotForwarded(_) | Self::Crowded => Some(5),
            Self::Draining | Self::Spawn { .. } | Self::ServerEnded(_) => Some(1),
            Self::Crashing(pause) | Self::Blamed(pause) => Some(pause.as_secs() + 1),
            _ => None,
        }
    }

    /// What a client without a token must be told (RFC 6750 §3, RFC 9728 §5.1).
    pub fn challenge(&self) -> Option<String> {
        let Self::Unauthorized { given, metadata } = self else { return None };
        let error = (*given != Given::Nothing).then(|| "error=\"invalid_token\"".to_owned());
        let metadata = metadata.as_ref().map(|url| format!("resource_metadata=\"{url}\""));
        let parameters: Vec<_> = error.into_iter().chain(metadata).collect();
        Some(format!("Bearer {}", parameters.join(", ")).trim_end().to_owned())
    }
}

/// What an error about the revision says of those that are served (2026-07-28 `schema`,
/// `UnsupportedProtocolVersionError`).
fn versions(is_served: impl Fn(Revision) -> bool, requested: &str) -> Vec<(&'static str, String)> {
    let served = Revision::ALL.into_iter().filter(|revision| is_served(*revision));
    let served: Vec<_> = served.map(|revision| format!("\"{revision}\"")).collect();
    let requested = serde_json::to_string(&cut(requested)).unwrap_or_default();
    vec![("supported", format!("[{}]", served.join(","))), ("requested", requested)]
}

/// Why a request of 2026-07-28 is not served as it came. The status is its own (`basic/transports/streamable-http`), but
/// for a state that is not ours: that is for the client to see and not for a gateway.
fn declined_row(why: Declined) -> (StatusCode, i32, &'static str, Cow<'static, str>) {
    use StatusCode as S;
    match why {
        Declined::Method => (
            S::NOT_FOUND,
            METHOD_NOT_FOUND,
            "method_not_found",
            "Method not found: 2026-07-28 does not have it any more".into(),
        ),
        Declined::Header(why) => {
            (S::BAD_REQUEST, HEADER_MISMATCH, "header_mismatch", format!("Header mismatch: {why}").into())
        }
        Declined::Capability(capability) => {
            let message = format!(
                "The server needs the client's {name}; declare {name} in io.modelcontextprotocol/clientCapabilities",
                name = capability.as_str()
            );
            (S::BAD_REQUEST, MISSING_CLIENT_CAPABILITY, "missing_capability", message.into())
        }
        Declined::State(why) => {
            (S::OK, INVALID_PARAMS, "invalid_state", format!("Invalid requestState: {why}").into())
        }
        Declined::Params(why) => {
            (S::BAD_REQUEST, INVALID_PARAMS, "invalid_params", format!("Invalid params: {why}").into())
        }
    }
}

/// Why a child that never answered `initialize` serves nobody. It had no state that could be lost.
fn not_started_row(end: End) -> (i32, &'static str, Cow<'static, str>) {
    const LOG: &str = "before it answered initialize; the bridge's log has what it wrote to stderr";
    let (code, reason, message) = fault_row(&Fault::Ended(end));
    let message = match end {
        End::Exited(exit) => format!("The server ended with {exit} {LOG}").into(),
        End::StdoutClosed => format!("The server closed its stdout {LOG}").into(),
        End::StdinClosed => format!("The server closed its stdin {LOG}").into(),
        _ => message,
    };
    (code, reason, message)
}

fn fault_row(fault: &Fault) -> (i32, &'static str, Cow<'static, str>) {
    let (reason, message): (_, Cow<'static, str>) = match fault {
        Fault::Timeout(limit) => {
            let message =
                format!("The server has not answered within {limit:?}; --request-timeout sets the limit");
            ("request_timeout", message.into())
        }
        Fault::Cancelled => ("cancelled", "The request was cancelled".into()),
        Fault::TooLong(limit) => {
            let message =
                format!("The server's answer is longer than {limit} bytes; --max-message sets the limit");
            ("response_too_large", message.into())
        }
        Fault::Invalid(wrong) => ("invalid_response", invalid(*wrong).into()),
        Fault::Overload(limit) => {
            let message =
                format!("{limit} requests of this session are in flight; --max-in-flight sets the limit");
            ("too_many_inflight", message.into())
        }
        Fault::Declined(why) => {
            let (_, code, reason, message) = declined_row(*why);
            return (code, reason, message);
        }
        Fault::Refused(refusal) => {
            let row = Problem::Refused(refusal.clone()).row();
            return (row.code, row.reason, row.message);
        }
        Fault::Lost(end) => {
            let (_, reason, message) = fault_row(&Fault::Ended(*end));
            (reason, format!("{message}; the session continues with a new server").into())
        }
        Fault::Ended(end) => match end {
            End::Exited(exit) => {
                ("child_exited", format!("The server ended with {exit}; its state is lost").into())
            }
            End::StdoutClosed => {
                ("child_stdout_closed", "The server closed its stdout; its state is lost".into())
            }
            End::StdinClosed => {
                ("child_stdin_closed", "The server closed its stdin; its state is lost".into())
            }
            End::InitTimeout(limit) => {
                let message = format!(
                    "The server has not answered initialize within {limit:?}; --init-timeout sets the limit"
                );
                ("init_timeout", message.into())
            }
            End::Echoed => (
                "child_echo",
                "The server sends back what it receives and has not answered initialize: does it run in a terminal?"
                    .into(),
            ),
            End::Invalid(wrong) => ("invalid_response", invalid(*wrong).into()),
            End::TooLong(limit) => {
                let message =
                    format!("The server sent more than {limit} bytes; --max-message sets the limit");
                ("response_too_large", message.into())
            }
            End::Shutdown => ("shutting_down", "The bridge is stopping".into()),
            End::Deleted
            | End::Disconnected
            | End::Idle(_)
            | End::Lifetime(_)
            | End::Revoked
            | End::Evicted
            | End::Unclaimed => {
                ("session_terminated", "The session ended while the request was in flight".into())
            }
            End::Refused => {
                let message = "The server refused initialize. One of 2026-07-28 alone serves clients of that revision, \
                               and sessions with an id, but none of a key";
                ("session_terminated", message.into())
            }
        },
    };
    (INTERNAL_ERROR, reason, message)
}

/// The sentence about an answer of the child that is no message. Nothing of it is in there.
fn invalid(Wrong { what, at }: Wrong) -> String {
    format!("The server's answer is not a valid message: {what} (at byte {at} of its line)")
}

impl Row {
    /// The JSON-RPC error. `id` is a JSON token, or `None` for `null`.
    pub fn json(&self, id: Option<&Id>) -> Bytes {
        use std::fmt::Write;
        let id = id.map_or("null", Id::as_json);
        let message = serde_json::to_string(&self.message).unwrap_or_default();
        let mut text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"message":{message},"data":{{"source":"mcp-bridge","reason":"{}""#,
            self.code, self.reason
        );
        for (name, value) in &self.data {
            let _ = write!(text, r#","{name}":{value}"#); // writing to a String cannot fail
        }
        text.push_str("}}}");
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::output::Capability;
    use serde_json::Value;

    fn parsed(problem: &Problem, id: Option<&str>) -> Value {
        let id = id.and_then(Id::parse);
        serde_json::from_slice(&problem.row().json(id.as_ref())).expect("the table writes JSON")
    }

    #[test]
    fn a_lost_session_has_a_null_id_because_the_go_sdk_keeps_using_it_otherwise() {
        let value = parsed(&Problem::SessionNotFound, None);
        assert_eq!(value["id"], Value::Null);
        assert_eq!(value["error"]["code"], -32001);
        assert_eq!(value["error"]["message"], "Session not found");
    }

    #[test]
    fn a_dead_child_is_named_by_its_exit() {
        let end = |exit| Problem::Fault(Fault::Ended(End::Exited(exit)));
        let value = parsed(&end(ExitStatus::Code(3)), Some("\"a\""));
        assert_eq!(value["id"], "a");
        assert_eq!(value["error"]["data"]["exit_code"], 3);
        assert_eq!(value["error"]["data"]["reason"], "child_exited");
        assert_eq!(value["error"]["data"]["source"], "mcp-bridge");
        let value = parsed(&end(ExitStatus::Signal("SIGKILL")), Some("7"));
        assert_eq!(value["error"]["data"]["signal"], "SIGKILL");
        assert_eq!(
            end(ExitStatus::Code(3)).row().status,
            StatusCode::OK,
            "it was forwarded: a gateway must not retry it"
        );
    }

    #[test]
    fn a_server_that_never_answered_initialize_has_lost_no_state() {
        for (end, began) in [
            (
                End::Exited(ExitStatus::Code(3)),
                "The server ended with exit code 3 before it answered initialize",
            ),
            (End::StdoutClosed, "The server closed its stdout before it answered initialize"),
        ] {
            let row = Problem::StartFailed(Fault::Ended(end)).row();
            assert!(
                row.message.starts_with(began) && row.message.contains("the bridge's log"),
                "{}",
                row.message
            );
            assert_eq!(row.status, StatusCode::BAD_GATEWAY);
        }
    }

    #[test]
    fn what_a_peer_sent_is_quoted_safely() {
        let value = parsed(&Problem::Origin("http://x\"\r\n{}".into()), None);
        assert!(value["error"]["message"].as_str().is_some_and(|text| text.contains("--allow-origin")));
    }

    #[test]
    fn no_code_of_the_modern_era_is_used() {
        for problem in
            [Problem::Parse, Problem::Modern, Problem::SessionRequired, Problem::Version("x".into())]
        {
            let code = problem.row().code;
            assert!(
                !(-32099..=-32020).contains(&code),
                "{problem:?} would make a client think we are modern"
            );
        }
    }

    #[test]
    fn what_is_declined_has_the_codes_and_statuses_of_its_revision() {
        let table = [
            (Declined::Method, 404, -32601, "method_not_found"),
            (Declined::Header("Mcp-Name is missing"), 400, -32020, "header_mismatch"),
            (Declined::Capability(Capability::Sampling), 400, -32021, "missing_capability"),
            (Declined::State("it has expired"), 200, -32602, "invalid_state"),
            (Declined::Params("no name"), 400, -32602, "invalid_params"),
        ];
        for (why, status, code, reason) in table {
            let problem = Problem::Fault(Fault::Declined(why));
            let (row, value) = (problem.row(), parsed(&problem, Some("\"a\"")));
            assert_eq!((row.status.as_u16(), row.reason), (status, reason), "{why:?}");
            assert_eq!((&value["error"]["code"], &value["id"]), (&code.into(), &"a".into()), "{why:?}");
        }
        let missing = parsed(&Problem::Fault(Fault::Declined(Declined::Capability(Capability::Roots))), None);
        assert_eq!(missing["error"]["data"]["requiredCapabilities"], serde_json::json!({ "roots": {} }));
    }

    #[test]
    fn an_error_about_the_revision_says_which_are_served_and_which_was_asked_for() {
        let legacy = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
        for (problem, supported) in [
            (Problem::NotShared("2026-07-28".into()), &legacy[..]),
            (Problem::NotImplemented("v\"9".into()), &["2026-07-28"]),
        ] {
            let value = parsed(&problem, Some("1"));
            assert_eq!(value["error"]["code"], -32022);
            assert_eq!(value["error"]["data"]["supported"], serde_json::json!(supported));
            let asked = if let Problem::NotShared(asked) | Problem::NotImplemented(asked) = problem {
                asked
            } else {
                String::new()
            };
            assert_eq!(value["error"]["data"]["requested"], asked);
        }
        let long = parsed(&Problem::NotImplemented("v".repeat(10_000)), None);
        assert!(long["error"]["data"]["requested"].as_str().is_some_and(|asked| asked.len() < 300));
        let row = Problem::NotShared(String::new()).row();
        assert!(row.message.contains("--session-key") && row.message.contains("--share"), "{}", row.message);
    }

    #[test]
    fn a_modern_client_is_told_of_a_lost_server_in_no_code_of_the_session_era() {
        let problem = Problem::ServerEnded(End::Exited(ExitStatus::Code(3)));
        let value = parsed(&problem, Some("1"));
        assert_eq!((problem.row().status.as_u16(), &value["error"]["code"]), (503, &(-32603).into()));
        assert_eq!(value["error"]["data"]["cause"], "child_exited");
        assert!(problem.retry_after().is_some());
    }
}
