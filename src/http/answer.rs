//! The forms of an answer: whole as JSON if it comes soon, a stream of events if it does not.

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::{Body, EventStream};
use super::guard::Accepts;
use super::reply::{self, Problem, empty, json};
use super::{Http, Refused};
use crate::proto::ids::{EventId, Id};
use crate::proto::version::Revision;
use crate::session::Session;
use crate::session::stream::{Delivery, Event, Payload, Reader};

/// What decides the form of an answer.
#[derive(Debug)]
pub(super) enum First {
    /// Nothing to answer.
    Accepted,
    /// Refused.
    Refused(Problem),
    /// The events so far, and whether they are all.
    Events { events: Vec<Event>, complete: bool },
}

impl Http {
    /// Waits for what decides the form of the answer: whole as JSON if it comes soon, a stream if it does not or if
    /// something else comes before it.
    pub(super) async fn first(&self, reader: &Reader, accepts: Accepts) -> First {
        let mut events = Vec::new();
        loop {
            match reader.next().await {
                Some(Delivery::Event(event)) => {
                    let (answer, last) = (event.payload.is_answer(), event.last);
                    if answer || accepts.stream {
                        events.push(event);
                    }
                    if last && accepts.json {
                        return First::Events { events, complete: true };
                    }
                    if accepts.stream && !(answer && accepts.json) {
                        return First::Events { events, complete: false };
                    }
                }
                Some(Delivery::Pending) => return First::Events { events, complete: false },
                Some(Delivery::Accepted) => return First::Accepted,
                Some(Delivery::Refused(refusal)) => return First::Refused(Problem::Refused(refusal)),
                Some(Delivery::NotForwarded(limit)) => return First::Refused(Problem::NotForwarded(limit)),
                Some(Delivery::NoReplay) => return First::Refused(Problem::NoReplay),
                Some(Delivery::Gone(end)) => return First::Refused(Problem::SessionNotFound(Some(end))),
                // Cut off before it began: the stream breaks as it would have later, and the session is as it was.
                Some(Delivery::Lagged) if accepts.stream => return First::Events { events, complete: false },
                // The session says something before it lets go of a reader, so this is the end of the session.
                Some(Delivery::Lagged) | None => return First::Refused(Problem::SessionNotFound(None)),
            }
        }
    }

    /// The answer in the form that `first` decides.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn answer(
        &self,
        session: &Session,
        reader: Reader,
        first: First,
        accepts: Accepts,
        id: Option<Id>,
    ) -> Result<Response<Body>, Refused> {
        match first {
            First::Accepted => Ok(empty(StatusCode::ACCEPTED)),
            // A lost session is nobody's request: with an id, Go's SDK takes it for an answer and stays.
            First::Refused(problem @ Problem::SessionNotFound(_)) => Err((problem, None)),
            First::Refused(problem) => Err((problem, id)),
            First::Events { events, complete: true } => Ok(whole(events)),
            First::Events { events, complete: false } => {
                debug_assert!(accepts.stream, "a client that takes JSON only gets JSON");
                let stream = events.first().map(|event| event.id).or_else(|| reader.position());
                let prime = stream.filter(|_| self.primes(session)).map(|id| EventId { place: 0, ..id });
                let stream = EventStream::new(events, reader, self.config.keep_alive, prime, id);
                Ok(event_stream(Body::Stream(Box::new(stream))))
            }
        }
    }

    /// Whether streams of this session begin with an event that carries only an id.
    pub(super) fn primes(&self, session: &Session) -> bool {
        self.config.prime && session.revision().is_some_and(Revision::priming)
    }
}

/// The events as one JSON answer: the message, or an array of them for a batch.
fn whole(events: Vec<Event>) -> Response<Body> {
    let mut reason = None;
    let mut messages: Vec<Bytes> = events
        .into_iter()
        .map(|event| match event.payload {
            Payload::Message(message) | Payload::Answer { message, .. } => message,
            Payload::Fault { id, fault } => {
                let row = Problem::Fault(fault).row();
                reason = Some(row.reason);
                row.json(Some(&id.0))
            }
        })
        .collect();
    let body = match messages.pop() {
        Some(message) if messages.is_empty() => message,
        last => {
            messages.extend(last);
            [b"[", messages.join(&b","[..]).as_slice(), b"]"].concat().into()
        }
    };
    let mut response = json(StatusCode::OK, body);
    if let Some(reason) = reason {
        response.headers_mut().insert(reply::MCP_BRIDGE_ERROR, HeaderValue::from_static(reason));
    }
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
