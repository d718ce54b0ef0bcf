//! What a page of another origin may read (Fetch, "CORS protocol").

use hyper::header::{ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::{Response, StatusCode};

use super::response::{Body, empty};
use super::route::METHODS;

/// Adds what lets a page of an allowed origin read the answer (Fetch, "CORS protocol").
pub(super) fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert("access-control-allow-origin", origin);
    headers.append("vary", HeaderValue::from_static("Origin"));
    headers.insert("access-control-expose-headers", HeaderValue::from_static(EXPOSED));
}

/// The headers of an answer that a page may read beside those that all pages may (Fetch, "CORS-safelisted
/// response-header name").
const EXPOSED: &str = "Mcp-Session-Id, WWW-Authenticate, Last-Event-Id, Mcp-Protocol-Version, Mcp-Bridge-Error, \
                       Mcp-Bridge-Session, Retry-After, Allow, Accept-Encoding";

/// The headers that clients are known to send.
const ALLOWED: &str = "content-type, accept, authorization, last-event-id, mcp-session-id, mcp-protocol-version, \
                       mcp-method, mcp-name";

/// Adds what a preflight asks for. `requested`: the headers of the OPTIONS request.
///
/// The page's origin is allowed already, and what headers mean is up to options and to whatever is in front: all that it
/// asks for is allowed.
pub fn allow_preflight(headers: &mut HeaderMap, requested: &HeaderMap) {
    let mut allowed = ALLOWED.to_owned();
    let asked = requested.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let asked =
        asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    for name in asked.filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok()) {
        allowed.push_str(", ");
        allowed.push_str(name);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_may_send_the_headers_that_options_need_and_whatever_it_asks_for() {
        let mut requested = HeaderMap::new();
        requested
            .append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-t, traceparent,Mcp-Param-A"));
        requested.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-u,,not a name, x\"y"));
        let mut headers = HeaderMap::new();
        allow_preflight(&mut headers, &requested);
        let allowed = headers["access-control-allow-headers"].to_str().unwrap();
        assert_eq!(allowed, format!("{ALLOWED}, x-t, traceparent, Mcp-Param-A, x-u"));
    }
}
