//! For probes: is the loop alive, and does it take new sessions.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::body::Body;
use super::reply::{Problem, empty, refuse};
use crate::sessions::Sessions;

/// The answer to a probe; `None` where the request is none. No check of Host or Origin and no detail: a kubelet calls
/// the pod by its address.
pub fn answer(parts: &Parts, sessions: &Sessions) -> Option<Response<Body>> {
    let (status, text) = match parts.uri.path() {
        "/healthz" => (StatusCode::OK, "ok\n"),
        "/readyz" if sessions.is_ready() => (StatusCode::OK, "ready\n"),
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
