//! The guards at the door against what a browser would say of the same head.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode, Version};
use mcp_bridge::http::cors;
use mcp_bridge::http::guard::{self, Trust};
use mcp_bridge::http::head::{self, Named};
use mcp_bridge::http::problem::Problem;
use mcp_bridge::proto::version::Revision;
use serde_json::Value;

const LISTED_ORIGIN: &str = "https://app.example";
const LISTED_HOST: &str = "bridge.example";
const MAX_BODY: usize = 1000;
const NEGOTIATED: &str = "2024-10-07";

/// The head of any request is let in only where an oracle on the browser's side lets it in, and each refusal is an HTTP
/// error that says why in JSON.
pub fn headers(data: &[u8]) {
    let Some(head) = head(data) else { return };
    for (loopback, listed) in [(true, false), (false, false), (true, true), (false, true)] {
        let list = |entry: &str| if listed { vec![entry.to_owned()] } else { Vec::new() };
        let trust = Trust { loopback, origins: list(LISTED_ORIGIN), hosts: list(LISTED_HOST) };
        origin(&trust, &head.headers);
        host(&trust, &head);
    }
    accept(&head.headers);
    // What comes twice is refused whole, so that all else may look at the first.
    let single = [
        "mcp-session-id",
        "mcp-protocol-version",
        "last-event-id",
        "content-type",
        "content-length",
        "expect",
    ];
    let passed = refused(head::check_single(&head.headers)).is_some();
    assert_eq!(
        passed,
        single.iter().all(|name| values(&head.headers, name).len() < 2),
        "a header with one value"
    );
    if !passed {
        return;
    }
    body(&head.headers);
    session(&head.headers);
    version(&head.headers);
    preflight(&head.headers);
    refused(head::last_event_id(&head.headers));
}

/// A head as it stands on the wire, without what no HTTP parser lets pass.
fn head(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    if first.next() == Some(b"HTTP/1.0") {
        request = request.version(Version::HTTP_10);
    }
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            request = request.header(name, value);
        }
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// What was let in, after a look at how the rest was refused.
fn refused<T>(checked: Result<T, Problem>) -> Option<T> {
    let problem = match checked {
        Ok(passed) => return Some(passed),
        Err(problem) => problem,
    };
    let row = problem.row();
    // RFC 9112 §6.1: an unknown transfer coding is 501.
    let status = row.status.is_client_error() || row.status == StatusCode::NOT_IMPLEMENTED;
    assert!(status, "{problem:?} is {}", row.status);
    let error: Value = serde_json::from_slice(&row.json(None)).expect("a refusal is JSON");
    assert_eq!(error["error"]["data"]["reason"], row.reason);
    None
}

fn values<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

fn origin(trust: &Trust, headers: &HeaderMap) {
    let passed = refused(trust.check_origin(headers)).is_some();
    match &values(headers, "origin")[..] {
        // A browser says how far away the page is that made the request (Fetch Metadata §2.3).
        [] => {
            let sites = values(headers, "sec-fetch-site");
            let near = sites.iter().all(|site| *site == b"none" || *site == b"same-origin");
            assert_eq!(passed, near, "without Origin, and {sites:?}");
        }
        [origin] => {
            let origin = std::str::from_utf8(origin).unwrap_or_default();
            let listed = !trust.origins.is_empty() && origin.eq_ignore_ascii_case(LISTED_ORIGIN);
            let local = local_origin(origin);
            assert!(!passed || listed || (trust.loopback && local.is_some()), "{origin:?} was let in");
            let ours = listed || (trust.loopback && local == Some(true));
            assert!(passed || !ours, "{origin:?} was refused");
        }
        _ => assert!(!passed, "two origins were let in"),
    }
}

/// Whether a browser calls a page of this machine so. `Some(false)`: its host is of this machine, but no browser spells
/// the rest so.
fn local_origin(origin: &str) -> Option<bool> {
    let (scheme, authority) = origin.split_once("://")?;
    let http = ["http", "https"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
    // A fragment names no other host, and no browser sends one.
    let (authority, fragment) =
        authority.split_once('#').map_or((authority, false), |(host, _)| (host, true));
    if !http || authority.contains(['/', '?', '@', '\\']) {
        return None;
    }
    local_authority(authority).map(|whole| whole && !fragment)
}

fn local_authority(authority: &str) -> Option<bool> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.rfind(':').unwrap_or(authority.len())
    };
    let (name, port) = authority.split_at(end);
    let name = name.to_ascii_lowercase();
    // RFC 6761 and RFC 1122 §3.2.1.3; connecting to the unspecified address reaches this machine too.
    let v4 = || {
        let parts: Vec<&str> = name.split('.').collect();
        let byte = |part: &&str| part.parse::<u8>().is_ok_and(|byte| byte.to_string() == **part);
        parts.len() == 4 && (parts[0] == "127" || name == "0.0.0.0") && parts.iter().all(byte)
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    let mapped = |number: u128| number >> 24 == 0x00ff_ff7f || number == 0xffff_0000_0000;
    let v6 = || {
        let number = bare.parse().map(|name: std::net::Ipv6Addr| u128::from(name));
        number.is_ok_and(|number| number <= 1 || mapped(number))
    };
    let absolute = name.strip_suffix('.').unwrap_or(&name);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let named = absolute == "localhost" || (absolute.ends_with(".localhost") && absolute.bytes().all(plain));
    if !named && !v4() && !v6() {
        return None;
    }
    let port = port
        .strip_prefix(':')
        .map_or(port.is_empty(), |port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    Some(port && (name.starts_with('[') || !name.contains(':')))
}

fn host(trust: &Trust, head: &Parts) {
    let passed = refused(trust.check_host(head)).is_some();
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let name = match (&values(&head.headers, "host")[..], target) {
        ([name], None) => *name,
        ([name], Some(target)) if name.eq_ignore_ascii_case(target) => *name,
        ([], Some(target)) => target,
        ([], None) => return assert_eq!(passed, head.version == Version::HTTP_10, "no Host"),
        _ => return assert!(!passed, "two hosts were let in"),
    };
    if !trust.loopback && trust.hosts.is_empty() {
        return;
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let listed = !trust.hosts.is_empty()
        && name.strip_prefix(LISTED_HOST).is_some_and(|port| port.is_empty() || port.starts_with(':'));
    let local = local_authority(&name);
    assert!(!passed || listed || (trust.loopback && local.is_some()), "{name:?} was let in");
    assert!(passed || !(trust.loopback && local == Some(true)), "{name:?} was refused");
}

fn accept(headers: &HeaderMap) {
    let accepts = head::accepts(headers);
    let values = values(headers, "accept");
    let mut joined = HeaderMap::new();
    let text: Vec<&str> = headers.get_all("accept").iter().filter_map(|value| value.to_str().ok()).collect();
    if !values.is_empty() {
        joined.insert("accept", HeaderValue::from_str(&text.join(",")).unwrap());
    }
    assert_eq!(head::accepts(&joined), accepts, "RFC 9110 §5.3: several lines are one list");
    let lower = text.join(",").to_ascii_lowercase();
    assert!(values.is_empty() || !accepts.json || lower.contains("application/") || lower.contains("*/*"));
    assert!(values.is_empty() || !accepts.stream || lower.contains("text/") || lower.contains("*/*"));
    joined.append("accept", HeaderValue::from_static("text/event-stream, application/json"));
    let both = head::accepts(&joined);
    assert!(both.json && both.stream, "what is named last and whole is taken");
}

fn body(headers: &HeaderMap) {
    if refused(guard::check_body_head(headers, MAX_BODY)).is_none() {
        return;
    }
    let first = |name| values(headers, name).first().map(|value| value.to_ascii_lowercase());
    // Fetch, "CORS-safelisted request-header": the types that a page may send anywhere.
    let kind = first("content-type").expect("a type");
    let essence = kind.split(|byte| *byte == b';').next().unwrap().trim_ascii();
    assert_eq!(essence, b"application/json", "a type that a page may send anywhere was let in");
    assert!(!kind.contains(&b','), "several types were let in");
    for line in values(headers, "content-encoding") {
        let line = String::from_utf8_lossy(line).to_ascii_lowercase();
        assert!(line.split(',').all(|coding| coding.trim() == "identity"), "{line} was let in");
    }
    assert!(values(headers, "transfer-encoding").len() < 2);
    assert!(first("transfer-encoding").is_none_or(|coding| coding == b"chunked"));
    let length =
        first("content-length").and_then(|length| String::from_utf8(length).ok()?.parse::<u64>().ok());
    assert!(length.is_none_or(|length| length <= MAX_BODY as u64), "too long a body was let in");
}

fn session(headers: &HeaderMap) {
    let session = refused(head::session(headers));
    let values = values(headers, "mcp-session-id");
    let [value] = values[..] else {
        return assert_eq!(session, values.is_empty().then_some(Named::None), "one session at most");
    };
    let visible = !value.is_empty() && value.iter().all(|byte| (0x21..0x7f).contains(byte));
    let possible = visible
        && value.len() <= 128
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    assert_eq!(session.is_some(), visible, "visible ASCII is an id");
    let id = match session {
        Some(Named::Id(id)) => Some(id),
        _ => None,
    };
    assert_eq!(id.as_ref().map(|id| id.as_str().as_bytes()), possible.then_some(value), "the id as it came");
    assert!(
        id.is_none_or(|id| !format!("{id:?}").contains(id.as_str()) || value.len() <= 48),
        "ids are secret"
    );
}

/// Where it comes twice the guard has refused the request.
fn version(headers: &HeaderMap) {
    let known = |value: &[u8]| Revision::ALL.iter().any(|revision| revision.as_str().as_bytes() == value);
    let values = values(headers, "mcp-protocol-version");
    let passed = refused(head::Asked::of(headers).check(None)).is_some();
    assert_eq!(passed, values.first().is_none_or(|value| known(value)));
    let passed = refused(head::Asked::of(headers).check(Some(NEGOTIATED))).is_some();
    assert_eq!(passed, values.first().is_none_or(|value| known(value) || *value == NEGOTIATED.as_bytes()));
}

fn preflight(requested: &HeaderMap) {
    let allowed = |requested: &HeaderMap| {
        let mut headers = HeaderMap::new();
        cors::allow_preflight(&mut headers, requested);
        let allowed = headers["access-control-allow-headers"].to_str().expect("ASCII").to_owned();
        allowed.split(',').map(|name| name.trim().to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let always = allowed(&HeaderMap::new());
    let asked = values(requested, "access-control-request-headers");
    let asked: Vec<_> = asked
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    for name in allowed(requested) {
        let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
        let is_asked = asked.iter().any(|asked| asked == name.as_bytes());
        assert!(is_name && (always.contains(&name) || is_asked), "{name:?} is allowed");
    }
}
