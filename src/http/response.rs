//! Responses: their bodies, and the forms that all of them have.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

use super::json_body::JsonBody;
use super::problem::Problem;
use super::sse::{EventStream, MergedStream};
use crate::proto::ids::Id;

/// Where the reason token stands.
pub const MCP_BRIDGE_ERROR: HeaderName = HeaderName::from_static("mcp-bridge-error");

const NOSNIFF: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    Empty,
    /// A whole one; `None` once it has been sent.
    Full(Option<Bytes>),
    /// The answers of one POST, as they are taken.
    Json(Box<JsonBody>),
    /// Server-sent events of one stream.
    Stream(Box<EventStream>),
    /// Server-sent events of all streams of a client of the old transport.
    Merged(Box<MergedStream>),
}

impl Body {
    pub fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Json(body) => {
                body.poll_chunk(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
            Self::Stream(stream) => {
                stream.poll_chunk(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
            Self::Merged(stream) => {
                stream.poll_chunk(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Json(body) => body.is_over(),
            Self::Stream(_) | Self::Merged(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Json(body) => match body.left() {
                Some(left) => SizeHint::with_exact(left as u64),
                None => SizeHint::default(),
            },
            Self::Stream(_) | Self::Merged(_) => SizeHint::default(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Rejection {
    pub(super) problem: Problem,
    /// The id of the request, where it is known; without it the JSON-RPC error has the id `null`.
    pub(super) id: Option<Id>,
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self { problem, id: None }
    }
}

impl Problem {
    /// Refuses the request of this id.
    pub(super) fn about(self, id: Option<&Id>) -> Rejection {
        Rejection { problem: self, id: id.cloned() }
    }
}

impl Rejection {
    pub(super) fn response(&self) -> Response<Body> {
        let row = self.problem.row();
        let mut response = json(row.status, Body::full(row.json(self.id.as_ref())));
        let headers = response.headers_mut();
        headers.insert(MCP_BRIDGE_ERROR, HeaderValue::from_static(row.reason));
        if let Problem::Method(allowed) = self.problem {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if matches!(self.problem, Problem::ContentEncoding) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity")); // RFC 9110 §15.5.16
        }
        if let Some(seconds) = self.problem.retry_after() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(challenge) = self.problem.challenge()
            && let Ok(challenge) = HeaderValue::try_from(challenge)
        {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

pub fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = empty(status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = body;
    response
}

pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NOSNIFF.0, NOSNIFF.1);
    response
}

/// An answer that is a stream of events. Nothing in between may hold it back or change it.
pub(super) fn event_stream(events: Body) -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    *response.body_mut() = events;
    response
}
