//! Probes: is the event loop alive, and does the bridge take new sessions. They need no token, so they tell nothing else.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::http::response::{Body, empty};
use crate::sessions::Sessions;

pub(in crate::http) fn health() -> Response<Body> {
    text(StatusCode::OK, "ok\n")
}

pub(in crate::http) fn ready(sessions: &Sessions) -> Response<Body> {
    if sessions.is_ready() {
        text(StatusCode::OK, "ready\n")
    } else if sessions.is_taking() {
        text(StatusCode::SERVICE_UNAVAILABLE, "every start of the server fails\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = empty(status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    *response.body_mut() = Body::full(text.into());
    response
}
