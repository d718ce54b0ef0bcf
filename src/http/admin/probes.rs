//! Probes: is the event loop alive, and does the bridge take new sessions.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::http::problem::Problem;
use crate::http::response::{Body, empty, refuse};
use crate::sessions::Sessions;

/// The answer to a probe; `None` where the request is none. No check of Host or Origin and no detail: a kubelet calls
/// the pod by its address.
pub(in crate::http) fn answer(parts: &Parts, sessions: &Sessions) -> Option<Response<Body>> {
    let (status, text) = match parts.uri.path() {
        "/healthz" => (StatusCode::OK, "ok\n"),
        "/readyz" if sessions.is_ready() => (StatusCode::OK, "ready\n"),
        "/readyz" if sessions.is_taking() => {
            (StatusCode::SERVICE_UNAVAILABLE, "every start of the server fails\n")
        }
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        _ => return None,
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Some(refuse(&Problem::Method("GET, HEAD"), None));
    }
    let mut response = empty(status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    *response.body_mut() = Body::full(text.into());
    Some(response)
}
