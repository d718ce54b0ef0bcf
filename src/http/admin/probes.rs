//! Probes: is the event loop alive, and does the bridge take new sessions. They need no token, so they tell nothing else.

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::http::response::{Body, empty};
use crate::sessions::{NotReady, Sessions};

pub(in crate::http) fn health() -> Response<Body> {
    text(StatusCode::OK, "ok\n")
}

pub(in crate::http) fn ready(sessions: &Sessions) -> Response<Body> {
    let why = match sessions.not_ready() {
        None => return text(StatusCode::OK, "ready\n"),
        Some(NotReady::Draining) => "stopping\n",
        Some(NotReady::Crashing(_)) => "every start of the server fails\n",
        Some(NotReady::Failing) => {
            "the server failed at its start, and none has answered since
"
        }
    };
    text(StatusCode::SERVICE_UNAVAILABLE, why)
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = empty(status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    *response.body_mut() = Body::full(text.into());
    response
}
