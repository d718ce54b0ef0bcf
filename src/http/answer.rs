//! The forms of an answer: whole as JSON if it comes soon, a stream of events if it does not.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::head::Accepts;
use super::json_body::{JsonBody, Outline, text};
use super::problem::Problem;
use super::response::{Body, MCP_BRIDGE_ERROR, Rejection, empty, event_stream, json};
use super::sse::EventStream;
use crate::proto::ids::{EventId, Id};
use crate::proto::version::Revision;
use crate::session::stream::{Delivery, Reader, SMALL};
use crate::session::{NotTaken, Session};

/// How many bytes of answers may wait for the last one. Then what is there is written.
const MAX_COLLECTED: usize = 64 * 1024;

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
    /// JSON, of what the reader has and will get.
    Json,
    /// A stream of events, of what the reader has and will get.
    Stream,
    /// The reader has nothing and will get nothing: the session has ended, or another one has taken its place.
    Over,
}

impl Answers {
    /// Waits for what decides the form of the answer: whole as JSON if it comes soon, a stream if it does not or if
    /// something else comes before it. What it looks at stays with the reader, which is bounded.
    pub(super) async fn form(&self, reader: &Reader, accepts: Accepts) -> Form {
        self.form_at(reader, accepts, true).await
    }

    /// As [`form`](Self::form), for the request that opens a session: a stream does not begin before the answer is there, or
    /// a comment on it would be due. A head that is out says that there is a session, and names it; if the child then does
    /// not start, clients keep the name, lose the reason and look for a session that never was.
    ///
    /// `began`: from when on it has been waited for.
    pub(super) async fn form_of_opening(&self, reader: &Reader, accepts: Accepts, began: Instant) -> Form {
        let answered = timeout_at(began + self.keep_alive, self.form_at(reader, accepts, false)).await;
        match answered {
            Ok(form) => form,
            Err(_) => self.form(reader, accepts).await,
        }
    }

    /// `early`: whether a stream begins as soon as it is clear that there will be one.
    async fn form_at(&self, reader: &Reader, accepts: Accepts, early: bool) -> Form {
        let (mut seen, mut streams) = (0, false);
        let mut look = |waiting: &VecDeque<Delivery>, bytes: usize, closed: bool| {
            for delivery in waiting.iter().skip(seen) {
                seen += 1;
                match delivery {
                    Delivery::Event(event) if event.payload.is_answer() && accepts.json && !streams => {
                        if event.last {
                            return Some(Some(Form::Json));
                        }
                    }
                    Delivery::Event(event) if !early && !event.payload.is_answer() => {
                        streams = accepts.stream;
                    }
                    Delivery::Pending if !early => streams = accepts.stream,
                    // Cut off before it began: it breaks as it would have later, and the session is as it was.
                    Delivery::Event(_) | Delivery::Pending | Delivery::Lagged if accepts.stream => {
                        return Some(Some(Form::Stream));
                    }
                    Delivery::Event(_) | Delivery::Pending => {}
                    Delivery::Lagged => return Some(Some(Form::Json)),
                    _ => return Some(None),
                }
            }
            if closed && waiting.is_empty() {
                return Some(Some(Form::Over));
            }
            let decided = closed || bytes > MAX_COLLECTED;
            decided.then_some(Some(if accepts.stream { Form::Stream } else { Form::Json }))
        };
        if let Some(form) = poll_fn(|context| reader.poll_look(&mut look, context)).await {
            return form;
        }
        match reader.next().await {
            Some(Delivery::Accepted) => Form::Accepted,
            Some(Delivery::Refused(refusal)) => Form::Refused(Problem::Refused(refusal)),
            Some(Delivery::NotForwarded(limit)) => Form::Refused(Problem::NotForwarded(limit)),
            Some(Delivery::NoReplay) => Form::Refused(Problem::NoReplay),
            Some(Delivery::NotTaken(not_taken)) => Form::NotTaken(not_taken),
            Some(Delivery::Gone(why)) => Form::Refused(Problem::SessionEnded(why)),
            Some(Delivery::Event(_) | Delivery::Pending | Delivery::Lagged) | None => Form::Over,
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
        let form = match (form, session.end_reason()) {
            (Form::Over, Some(why)) => Form::Refused(Problem::SessionEnded(why)),
            (Form::Over, None) if !accepts.stream => Form::Json,
            (form, _) => form,
        };
        match form {
            Form::Accepted => Ok(empty(StatusCode::ACCEPTED)),
            // Without the request's id: with one, Go's SDK takes it for an answer and stays with the lost session.
            Form::NotTaken(NotTaken { why, .. }) => Err(Problem::SessionEnded(why).into()),
            Form::Refused(Problem::SessionEnded(why)) => Err(Problem::SessionEnded(why).into()),
            Form::Refused(problem) => Err(problem.about(id.as_ref())),
            Form::Json => Ok(json_answer(reader, StatusCode::OK)),
            Form::Stream | Form::Over => {
                debug_assert!(accepts.stream, "a client that takes JSON only gets JSON");
                let prime = reader.position().filter(|_| self.primes(session));
                let prime = prime.map(|id| EventId { place: 0, ..id });
                let stream = EventStream::new(reader, self.keep_alive, prime, id);
                Ok(event_stream(Body::Stream(Box::new(stream))))
            }
        }
    }

    /// Whether streams of this session begin with an event that carries only an id.
    pub(super) fn primes(&self, session: &Session) -> bool {
        self.prime && session.revision().is_some_and(Revision::priming)
    }
}

/// What the reader has and will get as JSON.
pub(super) fn json_answer(reader: Reader, status: StatusCode) -> Response<Body> {
    let outline = reader.look(Outline::of);
    let body = match small_answer(&reader, &outline) {
        Some(answer) => Body::full(answer),
        None => Body::Json(Box::new(JsonBody::new(reader, &outline))),
    };
    let mut response = json(status, body);
    if let Some(reason) = outline.reason {
        response.headers_mut().insert(MCP_BRIDGE_ERROR, HeaderValue::from_static(reason));
    }
    response
}

/// A single answer that is not worth being counted.
fn small_answer(reader: &Reader, outline: &Outline) -> Option<Bytes> {
    if !outline.is_single() || outline.length()? > SMALL {
        return None;
    }
    match reader.take()? {
        Delivery::Event(event) => Some(text(&event.payload, &mut None)),
        _ => None,
    }
}
