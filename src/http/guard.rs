//! What a request must look like before anybody reads its body: pure functions over its head.

use std::ffi::OsString;
use std::net::IpAddr;

use hyper::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{Uri, Version};

use super::reply::Problem;
use crate::proto::front::Takes;
use crate::proto::ids::{EventId, SessionId};
use crate::proto::version::Revision;

/// `Mcp-Session-Id` (2025-03-26 `basic/transports`, "Session Management").
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// `MCP-Protocol-Version` (2025-06-18 `basic/transports`).
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// `Last-Event-ID` (HTML, "Server-sent events").
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whom a browser's page, or a name that points here, may be.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Whether the listener is reached through loopback only. Then only loopback names are ours: a page on another
    /// name that resolves here (DNS rebinding) is not.
    pub loopback: bool,
    /// Further origins, `scheme://host[:port]`, lower case.
    pub origins: Vec<String>,
    /// Further names for `Host`, without port, lower case.
    pub hosts: Vec<String>,
}

impl Trust {
    /// Checks `Host`, and that no second one says otherwise (RFC 9112 §3.2).
    ///
    /// # Errors
    /// [`Problem::Header`] or [`Problem::Host`].
    pub fn check_host(&self, parts: &Parts) -> Result<(), Problem> {
        let mut hosts = parts.headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Problem::Header("two Host headers"));
        }
        let host = match host {
            Some(host) => Some(host.to_str().map_err(|_| Problem::Header("Host is not ASCII"))?),
            None => None,
        };
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let host = match (host, authority) {
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(Problem::Header("Host and the request target name different hosts"));
            }
            (Some(host), _) => host,
            (None, Some(authority)) => authority,
            (None, None) if parts.version <= Version::HTTP_10 => return Ok(()),
            (None, None) => return Err(Problem::Header("no Host header")),
        };
        if !self.loopback && self.hosts.is_empty() {
            return Ok(()); // behind a balancer any name may be ours, and browsers are stopped by Origin
        }
        let name = host_name(host).to_ascii_lowercase();
        let known = (self.loopback && is_loopback(&name)) || self.hosts.contains(&name);
        if known { Ok(()) } else { Err(Problem::Host(host.to_owned())) }
    }

    /// Checks `Origin`. Absent: the client is no browser. Present: it must be listed, or be of this machine where
    /// only this machine can reach us. That it equals `Host` proves nothing: under DNS rebinding it does.
    ///
    /// # Errors
    /// [`Problem::Origin`].
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            // A page's image or frame makes a GET without Origin; browsers say then how far away the page is (Fetch Metadata).
            return match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
                None | Some(b"none" | b"same-origin") => Ok(()),
                Some(site) => Err(Problem::Origin(format!("({})", String::from_utf8_lossy(site)))),
            };
        };
        let shown = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        if origins.next().is_some() {
            return Err(Problem::Header("two Origin headers"));
        }
        let origin = shown.to_ascii_lowercase();
        let local = || {
            let uri: Option<Uri> = origin.parse().ok();
            let authority = uri.as_ref().and_then(Uri::authority);
            let bare =
                uri.as_ref().is_some_and(|uri| uri.query().is_none() && matches!(uri.path(), "/" | ""));
            let scheme =
                uri.as_ref().and_then(Uri::scheme_str).is_some_and(|s| matches!(s, "http" | "https"));
            bare && scheme
                && !origin.ends_with('/')
                && !origin.contains('#') // which the parser drops
                && authority.is_some_and(|authority| {
                    !authority.as_str().contains('@') && is_loopback(host_name(authority.as_str()))
                })
        };
        if self.origins.contains(&origin) || (self.loopback && local()) {
            Ok(())
        } else {
            Err(Problem::Origin(shown))
        }
    }
}

/// The host of `host[:port]` (RFC 3986 §3.2), without the brackets of an IPv6 address.
fn host_name(authority: &str) -> &str {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((authority, "")),
        None => {
            let colon = authority.find(':').unwrap_or(authority.len());
            authority.split_at(colon)
        }
    };
    let is_port = |port: &str| {
        port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if port.is_empty() || is_port(port) { host } else { authority } // no address, and so nobody's
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The bearer token of a request (RFC 6750 §2.1), where there is one. Never from the query: that is logged by others.
///
/// # Errors
/// [`Problem::Header`] for two of them: what stands in front may have checked the other one.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::Header("two Authorization headers"));
    }
    let value = value.as_bytes();
    let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(space);
    // Another scheme is a token that is not ours.
    Ok(Some(if scheme.eq_ignore_ascii_case(b"bearer") { token.trim_ascii() } else { b"" }))
}

/// The longest value that a header may give to a child, in bytes.
const MAX_FROM_HEADER: usize = 8 * 1024;

/// The variables that a child gets from the headers of its client's `initialize`. A header that is not there is a
/// variable that is not set.
///
/// # Errors
/// [`Problem::Header`], where a value is too long, occurs twice or is no text.
pub fn environment(
    headers: &HeaderMap,
    wanted: &[(String, HeaderName)],
) -> Result<Vec<(OsString, OsString)>, Problem> {
    let mut environment = Vec::new();
    for (variable, header) in wanted {
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(Problem::Header("a header that becomes a variable of the server occurs twice"));
        }
        // What begins like a shell function is run by an old bash (CVE-2014-6271).
        let harmless =
            |text: &&str| text.len() <= MAX_FROM_HEADER && !text.contains('\t') && !text.starts_with("()");
        let text = value.to_str().ok().filter(harmless);
        let Some(text) = text else {
            let why = "a header that becomes a variable of the server is longer than 8 KiB or has other than visible characters";
            return Err(Problem::Header(why));
        };
        environment.push((variable.into(), text.into()));
    }
    Ok(environment)
}

/// Which forms of an answer the client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    /// `application/json`.
    pub json: bool,
    /// `text/event-stream`.
    pub stream: bool,
}

impl Accepts {
    /// What the stream of an answer may carry.
    pub fn takes(self) -> Takes {
        if self.stream { Takes::Events } else { Takes::AnswerOnly }
    }
}

/// Reads `Accept` (RFC 9110 §12.5.1). None at all means anything.
pub fn accepts(headers: &HeaderMap) -> Accepts {
    if !headers.contains_key(ACCEPT) {
        return Accepts { json: true, stream: true };
    }
    Accepts {
        json: prefers(headers, "application", "json"),
        stream: prefers(headers, "text", "event-stream"),
    }
}

/// Whether the most specific range that matches the type has a weight above zero.
fn prefers(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let mut best: Option<(u8, bool)> = None;
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parameters = range.split(';').map(str::trim);
        let Some((left, right)) = parameters.next().and_then(|range| range.split_once('/')) else { continue };
        let specific = match (left.eq_ignore_ascii_case(kind), right.eq_ignore_ascii_case(subtype)) {
            (true, true) => 2,
            (true, false) if right == "*" => 1,
            _ if left == "*" && right == "*" => 0,
            _ => continue,
        };
        let zero = parameters
            .filter_map(|parameter| parameter.split_once('='))
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .any(|(_, weight)| weight.trim().parse().is_ok_and(|weight: f32| weight <= 0.0));
        if best.is_none_or(|(so_far, _)| specific >= so_far) {
            best = Some((specific, !zero));
        }
    }
    best.is_some_and(|(_, wanted)| wanted)
}

/// Checks what the head says of the body of a POST: framing, type, coding and announced length.
///
/// A page on another site can send a POST without asking first only as text/plain, form or multipart: the type is
/// what stops it (Fetch, "CORS-safelisted request-header").
///
/// # Errors
/// The [`Problem`].
pub fn check_body_head(headers: &HeaderMap, max_body: usize) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Problem::TransferEncoding);
        }
        if codings.next().is_some() {
            return Err(Problem::Header("two Transfer-Encoding headers"));
        }
    }
    if headers.get(EXPECT).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Problem::Expectation);
    }
    let essence = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    };
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    if !types.next().is_some_and(essence) || types.next().is_some() {
        return Err(Problem::MediaType);
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Problem::ContentEncoding);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max_body)) {
        return Err(Problem::BodyTooLarge(max_body));
    }
    Ok(())
}

/// The session that a request names; `Some(None)` is a name that no session of this bridge can have.
///
/// # Errors
/// [`Problem::SessionHeader`] for what is no session id at all (spec: visible ASCII only), or two of them.
pub fn session_id(headers: &HeaderMap) -> Result<Option<Option<SessionId>>, Problem> {
    let mut values = headers.get_all(MCP_SESSION_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::SessionHeader("occurs twice"));
    }
    let visible = |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    let Some(value) = value.to_str().ok().filter(visible) else {
        return Err(Problem::SessionHeader("must be one or more visible ASCII characters"));
    };
    // Another server's id is well-formed too: its client must hear 404 to begin anew.
    Ok(Some(SessionId::parse(value)))
}

/// Checks `MCP-Protocol-Version` within a session: any known revision, or what the child negotiated. Clients are
/// known to send another than the negotiated one.
///
/// # Errors
/// [`Problem::Version`].
pub fn check_version(headers: &HeaderMap, negotiated: Option<&str>) -> Result<(), Problem> {
    for value in headers.get_all(MCP_PROTOCOL_VERSION) {
        let text = String::from_utf8_lossy(value.as_bytes());
        if Revision::parse(&text).is_none() && negotiated != Some(&*text) {
            return Err(Problem::Version(text.into_owned()));
        }
    }
    Ok(())
}

/// The event behind which a GET wants to go on.
///
/// # Errors
/// [`Problem::NoReplay`] for what is no event id of ours.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    value.to_str().ok().and_then(EventId::parse).map(Some).ok_or(Problem::NoReplay)
}

/// Adds what lets a page of an allowed origin read the answer (Fetch, "CORS protocol").
pub fn add_cors(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert("access-control-allow-origin", origin);
    headers.append("vary", HeaderValue::from_static("Origin"));
    let exposed = "Mcp-Session-Id, WWW-Authenticate, Last-Event-Id, Mcp-Protocol-Version, Mcp-Bridge-Error";
    headers.insert("access-control-expose-headers", HeaderValue::from_static(exposed));
}

/// Adds the answer to a preflight. `requested`: the headers of the OPTIONS request.
pub fn add_preflight(headers: &mut HeaderMap, requested: &HeaderMap) {
    const ALLOWED: &str = "content-type, accept, authorization, last-event-id, mcp-session-id, mcp-protocol-version, \
                           mcp-method, mcp-name";
    let mut allowed = ALLOWED.to_owned();
    let asked = requested.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    for name in asked.unwrap_or_default().split(',').map(str::trim) {
        if name.to_ascii_lowercase().starts_with("mcp-param-") {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
    }
    headers.insert("access-control-allow-methods", HeaderValue::from_static("GET, POST, DELETE, OPTIONS"));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        headers.insert("access-control-allow-headers", allowed);
    }
    headers.insert("access-control-max-age", HeaderValue::from_static("7200"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method("POST").uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        head("/mcp", list).headers
    }

    fn local() -> Trust {
        Trust { loopback: true, ..Trust::default() }
    }

    #[test]
    fn host_on_a_loopback_listener() {
        for host in
            ["localhost", "localhost:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:80", "[::1]", "LOCALHOST:1"]
        {
            assert!(local().check_host(&head("/mcp", &[("host", host)])).is_ok(), "{host} is this machine");
        }
        for host in [
            "evil.example.com",
            "localhost.evil.com",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "",
            "[::2]",
            "[::1].evil",
            "[::1",
        ] {
            let checked = local().check_host(&head("/mcp", &[("host", host)]));
            assert!(matches!(checked, Err(Problem::Host(_))), "{host} is not this machine: {checked:?}");
        }
        let named = Trust { hosts: vec!["bridge.local".into()], ..local() };
        assert!(named.check_host(&head("/mcp", &[("host", "Bridge.Local:80")])).is_ok());
    }

    #[test]
    fn host_in_a_container_is_any_name_unless_names_are_given() {
        let open = Trust::default();
        assert!(open.check_host(&head("/mcp", &[("host", "svc.ns:8080")])).is_ok());
        let named = Trust { hosts: vec!["svc.ns".into()], ..Trust::default() };
        assert!(named.check_host(&head("/mcp", &[("host", "svc.ns:8080")])).is_ok());
        assert!(named.check_host(&head("/mcp", &[("host", "other")])).is_err());
    }

    #[test]
    fn missing_doubled_and_contradicting_hosts() {
        let open = Trust::default();
        assert!(matches!(open.check_host(&head("/mcp", &[])), Err(Problem::Header(_))));
        assert!(matches!(
            open.check_host(&head("/mcp", &[("host", "a"), ("host", "a")])),
            Err(Problem::Header(_))
        ));
        let absolute = head("http://evil/mcp", &[("host", "good")]);
        assert!(matches!(open.check_host(&absolute), Err(Problem::Header(_))));
        assert!(open.check_host(&head("http://good/mcp", &[("host", "good")])).is_ok());
    }

    #[test]
    fn origin_on_a_loopback_listener() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5", "HTTP://LOCALHOST"] {
            assert!(
                local().check_origin(&headers(&[("origin", origin)])).is_ok(),
                "{origin} is this machine"
            );
        }
        for origin in [
            "null",
            "",
            "http://evil.example.com",
            "http://localhost.evil.com",
            "http://localhost/",
            "localhost",
            "http://localhost@evil.com",
            "http://evil@localhost",
            "file://localhost",
            "http://127.0.0.1.evil.com",
            "http://localhost:80/x",
            "http://localhost?x",
        ] {
            let checked = local().check_origin(&headers(&[("origin", origin)]));
            assert!(matches!(checked, Err(Problem::Origin(_))), "{origin:?} must be refused");
        }
        assert!(local().check_origin(&headers(&[])).is_ok(), "no browser");
        assert!(
            local()
                .check_origin(&headers(&[("origin", "http://localhost"), ("origin", "http://localhost")]))
                .is_err()
        );
    }

    #[test]
    fn origin_on_an_open_listener_must_be_listed_exactly() {
        let trust = Trust { origins: vec!["https://app.example".into()], ..Trust::default() };
        assert!(trust.check_origin(&headers(&[("origin", "https://app.example")])).is_ok());
        for origin in
            ["https://app.example.evil", "http://app.example", "https://app.example:444", "http://localhost"]
        {
            assert!(trust.check_origin(&headers(&[("origin", origin)])).is_err(), "{origin}");
        }
    }

    #[test]
    fn accept_is_read_as_media_ranges() {
        let table = [
            (&[][..], (true, true)),
            (&["application/json, text/event-stream"], (true, true)),
            (&["text/event-stream,application/json;q=0.1"], (true, true)),
            (&["*/*"], (true, true)),
            (&["application/json"], (true, false)),
            (&["Application/JSON; charset=utf-8"], (true, false)),
            (&["text/event-stream"], (false, true)),
            (&["text/*"], (false, true)),
            (&["application/*", "text/event-stream"], (true, true)),
            (&["*/*, text/event-stream;q=0"], (true, false)),
            (&["text/event-stream;q=0, */*"], (true, false)),
            (&["application/json;q=0.0"], (false, false)),
            (&["text/html"], (false, false)),
            (&["application/jsonx"], (false, false)),
            (&[""], (false, false)),
        ];
        for (values, (json, stream)) in table {
            let list: Vec<_> = values.iter().map(|value| ("accept", *value)).collect();
            assert_eq!(accepts(&headers(&list)), Accepts { json, stream }, "{values:?}");
        }
    }

    #[test]
    fn the_head_of_a_body() {
        let json = ("content-type", "application/json");
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[json], "ok"),
            (&[("content-type", "APPLICATION/JSON;charset=utf-8")], "ok"),
            (&[json, ("content-length", "100")], "ok"),
            (&[json, ("content-length", "101")], "payload_too_large"),
            (&[json, ("content-length", "99999999999999999999")], "ok"), // hyper has refused it already
            (&[json, ("transfer-encoding", "Chunked")], "ok"),
            (&[json, ("transfer-encoding", "gzip, chunked")], "unsupported_coding"),
            (&[json, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], "invalid_request"),
            (&[json, ("content-encoding", "gzip")], "unsupported_media_type"),
            (&[json, ("content-encoding", "identity")], "ok"),
            (&[json, ("expect", "100-Continue")], "ok"),
            (&[json, ("expect", "bogus")], "expectation_failed"),
            (&[], "unsupported_media_type"),
            (&[("content-type", "text/plain")], "unsupported_media_type"),
            (&[("content-type", "application/json-patch+json")], "unsupported_media_type"),
        ];
        for (list, want) in table {
            let seen = match check_body_head(&headers(list), 100) {
                Ok(()) => "ok",
                Err(problem) => problem.row().reason,
            };
            assert_eq!(seen, *want, "{list:?}");
        }
    }

    #[test]
    fn a_foreign_session_id_is_well_formed_and_an_impossible_one_is_not() {
        let read = |value: &str| session_id(&headers(&[("mcp-session-id", value)]));
        assert!(matches!(read(&"a".repeat(48)), Ok(Some(Some(_)))));
        assert!(matches!(read("some_other.server's~id"), Ok(Some(None))), "its client must hear 404");
        assert!(matches!(read(&"a".repeat(10_000)), Ok(Some(None))));
        assert!(matches!(read("a b"), Err(Problem::SessionHeader(_))));
        assert!(matches!(read(""), Err(Problem::SessionHeader(_))));
        let twice = headers(&[("mcp-session-id", "a"), ("mcp-session-id", "b")]);
        assert!(matches!(session_id(&twice), Err(Problem::SessionHeader(_))));
        assert!(matches!(session_id(&headers(&[])), Ok(None)));
    }

    #[test]
    fn any_known_version_passes_and_so_does_the_negotiated_one() {
        let check =
            |value: &str, negotiated| check_version(&headers(&[("mcp-protocol-version", value)]), negotiated);
        assert!(check("2025-03-26", Some("2025-11-25")).is_ok(), "the conformance suite sends such pairs");
        assert!(check("2026-07-28", Some("2026-07-28")).is_ok(), "rmcp does, where the server echoes it");
        assert!(check("2099-01-01", Some("2099-01-01")).is_ok());
        assert!(matches!(check("2099-01-01", Some("2025-11-25")), Err(Problem::Version(_))));
        assert!(matches!(check("", None), Err(Problem::Version(_))));
        assert!(check_version(&headers(&[]), None).is_ok());
    }
}
