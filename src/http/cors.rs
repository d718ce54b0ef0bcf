//! What a page of another origin may read (Fetch, "CORS protocol").

use hyper::header::{ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HeaderMap, HeaderValue, ORIGIN};
use hyper::{Response, StatusCode};

use super::response::{Body, empty};
use super::route::METHODS;

/// Adds what lets a page of an allowed origin read the answer (Fetch, "CORS protocol").
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert("access-control-allow-origin", origin);
    headers.append("vary", HeaderValue::from_static("Origin"));
    let exposed = "Mcp-Session-Id, WWW-Authenticate, Last-Event-Id, Mcp-Protocol-Version, Mcp-Bridge-Error";
    headers.insert("access-control-expose-headers", HeaderValue::from_static(exposed));
}

/// Adds what a preflight asks for. `requested`: the headers of the OPTIONS request.
pub fn allow_preflight(headers: &mut HeaderMap, requested: &HeaderMap) {
    const ALLOWED: &str = "content-type, accept, authorization, last-event-id, mcp-session-id, mcp-protocol-version, \
                           mcp-method, mcp-name";
    let mut allowed = ALLOWED.to_owned();
    let asked =
        requested.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    for name in asked.flat_map(|value| value.split(',')).map(str::trim) {
        if name.to_ascii_lowercase().starts_with("mcp-param-") {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
    }
    headers.insert("access-control-allow-methods", HeaderValue::from_static(METHODS));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        headers.insert("access-control-allow-headers", allowed);
    }
    headers.insert("access-control-max-age", HeaderValue::from_static("7200"));
}

/// Answers OPTIONS: a preflight, or the question what is offered.
pub(super) fn options(headers: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    if headers.contains_key(ORIGIN) {
        allow_preflight(response.headers_mut(), headers);
    }
    response
}
