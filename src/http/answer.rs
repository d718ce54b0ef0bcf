//! The forms of an answer: whole as JSON if it comes soon, a stream of events if it does not.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};

use super::head::Accepts;
use super::problem::Problem;
use super::response::{Body, MCP_BRIDGE_ERROR, Rejection, empty, event_stream, json};
use super::sse::EventStream;
use crate::proto::ids::{EventId, Id};
use crate::proto::version::Revision;
use crate::session::stream::{Delivery, Event, Payload, Reader};
use crate::session::{NotTaken, Session};

#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    /// After how long without an event a stream gets a comment.
    pub(super) keep_alive: Duration,
    /// Whether event streams begin with an event that carries only an id.
    pub(super) prime: bool,
}

#[derive(Debug)]
pub(super) enum Form {
    /// Nothing to answer.
    Accepted,
    /// The session ended before it took what was posted.
    NotTaken(NotTaken),
    Refused(Problem),
    Answer(Event),
    Batch(Vec<Event>),
    /// A stream that begins with these events.
    Stream(Vec<Event>),
}

impl Answers {
    /// Waits for what decides the form of the answer: whole as JSON if it comes soon, a stream if it does not or if
    /// something else comes before it.
    pub(super) async fn form(&self, reader: &Reader, accepts: Accepts) -> Form {
        let mut events = Vec::new();
        loop {
            match reader.next().await {
                Some(Delivery::Event(event)) => {
                    let (answer, last) = (event.payload.is_answer(), event.last);
                    if last && accepts.json && events.is_empty() {
                        return Form::Answer(event);
                    }
                    if answer || accepts.stream {
                        events.push(event);
                    }
                    if last && accepts.json {
                        return Form::Batch(events);
                    }
                    if accepts.stream && !(answer && accepts.json) {
                        return Form::Stream(events);
                    }
                }
                Some(Delivery::Pending) => return Form::Stream(events),
                Some(Delivery::Accepted) => return Form::Accepted,
                Some(Delivery::Refused(refusal)) => return Form::Refused(Problem::Refused(refusal)),
                Some(Delivery::NotForwarded(limit)) => return Form::Refused(Problem::NotForwarded(limit)),
                Some(Delivery::NoReplay) => return Form::Refused(Problem::NoReplay),
                Some(Delivery::NotTaken(not_taken)) => return Form::NotTaken(not_taken),
                // Cut off before it began: the stream breaks as it would have later, and the session is as it was.
                Some(Delivery::Lagged) if accepts.stream => return Form::Stream(events),
                // A reader gets a first delivery before the session drops its stream, so this is the end of the session.
                Some(Delivery::Lagged | Delivery::Gone(_)) | None => {
                    return Form::Refused(Problem::SessionNotFound);
                }
            }
        }
    }

    /// The response in this form.
    pub(super) fn respond(
        &self,
        session: &Session,
        reader: Reader,
        form: Form,
        accepts: Accepts,
        id: Option<Id>,
    ) -> Result<Response<Body>, Rejection> {
        match form {
            Form::Accepted => Ok(empty(StatusCode::ACCEPTED)),
            // Without the request's id: with one, Go's SDK takes it for an answer and stays with the lost session.
            Form::NotTaken(NotTaken { why, .. }) => Err(Problem::SessionEnded(why).into()),
            Form::Refused(Problem::SessionNotFound) => Err(Problem::SessionNotFound.into()),
            Form::Refused(problem) => Err(problem.about(id.as_ref())),
            Form::Answer(event) => {
                let mut reason = None;
                let message = message(event.payload, &mut reason);
                Ok(json_answer(message, reason))
            }
            Form::Batch(events) => {
                let mut reason = None;
                let messages: Vec<_> =
                    events.into_iter().map(|event| message(event.payload, &mut reason)).collect();
                let batch = [b"[", messages.join(&b","[..]).as_slice(), b"]"].concat();
                Ok(json_answer(batch.into(), reason))
            }
            Form::Stream(events) => {
                debug_assert!(accepts.stream, "a client that takes JSON only gets JSON");
                let stream = events.first().map(|event| event.id).or_else(|| reader.position());
                let prime = stream.filter(|_| self.primes(session)).map(|id| EventId { place: 0, ..id });
                let stream = EventStream::new(events, reader, self.keep_alive, prime, id);
                Ok(event_stream(Body::Stream(Box::new(stream))))
            }
        }
    }

    /// Whether streams of this session begin with an event that carries only an id.
    pub(super) fn primes(&self, session: &Session) -> bool {
        self.prime && session.revision().is_some_and(Revision::priming)
    }
}

/// The message that an event carries. `reason`: set where it is the bridge's own.
fn message(payload: Payload, reason: &mut Option<&'static str>) -> Bytes {
    match payload {
        Payload::Message(message) | Payload::Answer { message, .. } => message,
        Payload::Fault { id, fault } => {
            let row = Problem::Fault(fault).row();
            *reason = Some(row.reason);
            row.json(Some(&id.0))
        }
    }
}

fn json_answer(body: Bytes, reason: Option<&'static str>) -> Response<Body> {
    let mut response = json(StatusCode::OK, body);
    if let Some(reason) = reason {
        response.headers_mut().insert(MCP_BRIDGE_ERROR, HeaderValue::from_static(reason));
    }
    response
}
