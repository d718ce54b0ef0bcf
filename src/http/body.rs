//! Bodies: bounded bytes in, JSON or an event stream out. The only place that knows how SSE is spelt.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, timeout};

use super::reply::Problem;
use crate::proto::ids::{EventId, Id};
use crate::session::reader::{Delivery, Event, Reader, What};

/// How long a whole request body may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client waits before it reconnects to a primed stream, in milliseconds.
const RETRY: &str = "1000";

/// Reads a request body of at most `max` bytes.
///
/// # Errors
/// [`Problem::BodyTooLarge`], [`Problem::BodyTimeout`], or [`Problem::BodyBroken`].
pub async fn read(body: Incoming, max: usize) -> Result<Bytes, Problem> {
    match timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::BodyTooLarge(max)),
        Ok(Err(_)) => Err(Problem::BodyBroken),
        Err(_) => Err(Problem::BodyTimeout(BODY_TIMEOUT)),
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// None.
    Empty,
    /// A whole one; `None` once it has been sent.
    Full(Option<Bytes>),
    /// Server-sent events.
    Stream(Box<EventStream>),
}

impl Body {
    /// A whole body.
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
            Self::Stream(stream) => {
                stream.poll_chunk(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Events as they come, and a comment when none has come for a while.
#[derive(Debug)]
pub struct EventStream {
    /// What has been taken from the reader already.
    first: VecDeque<Event>,
    reader: Reader,
    /// The request that is answered, for an error the session makes of it before it counts as an event.
    id: Option<Id>,
    prime: Option<EventId>,
    pause: Duration,
    /// Made at the first wait: most streams that begin with an answer never wait.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl EventStream {
    /// A stream that begins with `first` and goes on with what the reader gets. After each `pause` without an event
    /// it sends a comment, which keeps idle limits of proxies away. `prime`: begin with an event that carries this
    /// id and no data. `id`: the request's, where there is one.
    pub fn new(
        first: Vec<Event>,
        reader: Reader,
        pause: Duration,
        prime: Option<EventId>,
        id: Option<Id>,
    ) -> Self {
        Self { first: first.into(), reader, id, prime, pause, timer: None, ended: false }
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut chunk = BytesMut::new();
        if let Some(id) = self.prime.take() {
            // A data line must be there: without one no event is dispatched and the id is not remembered.
            push(&mut chunk, &["id: ", &id.to_string(), "\nretry: ", RETRY, "\ndata: \n\n"]);
        }
        // Whatever is there goes out in one chunk.
        loop {
            let next = match self.first.pop_front() {
                Some(event) => Poll::Ready(Some(Delivery::Event(event))),
                None => self.reader.poll_next(context),
            };
            match next {
                Poll::Ready(Some(Delivery::Event(event))) => {
                    self.ended = event.last;
                    encode(&mut chunk, event.id, &event.what);
                }
                Poll::Ready(Some(Delivery::Refused(refusal))) => {
                    self.ended = true;
                    let message = Problem::Refused(refusal).row().json(self.id.as_ref());
                    push(&mut chunk, &["event: message\ndata: ", &String::from_utf8_lossy(&message), "\n\n"]);
                }
                Poll::Ready(Some(Delivery::Gone(end))) => {
                    self.ended = true;
                    let message = Problem::SessionNotFound(Some(end)).row().json(self.id.as_ref());
                    push(&mut chunk, &["event: message\ndata: ", &String::from_utf8_lossy(&message), "\n\n"]);
                }
                Poll::Ready(Some(Delivery::Accepted | Delivery::NoReplay)) => {}
                // Not a proper end: the client must know that there is more, and where to resume.
                Poll::Ready(Some(Delivery::Lagged)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(io::Error::other("the client reads too slowly"))));
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
            if self.ended {
                break;
            }
        }
        if !chunk.is_empty() {
            if let Some(timer) = &mut self.timer {
                timer.as_mut().reset(Instant::now() + self.pause);
            }
            return Poll::Ready(Some(Ok(chunk.freeze())));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let pause = self.pause;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        match timer.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                timer.as_mut().reset(Instant::now() + pause);
                Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))))
            }
        }
    }
}

/// Writes one event (HTML, "Server-sent events"): LF only, one `data:` line. A message holds no raw CR or LF here.
fn encode(out: &mut BytesMut, id: EventId, what: &What) {
    let fault;
    let message = match what {
        What::Message(message) | What::Answer { message, .. } => message,
        What::Fault { id, fault: why } => {
            fault = Problem::Fault(why.clone()).row().json(Some(&id.0));
            &fault
        }
    };
    out.reserve(message.len() + 64);
    push(out, &["event: message\nid: ", &id.to_string(), "\ndata: "]);
    out.extend_from_slice(message);
    out.extend_from_slice(b"\n\n");
}

fn push(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}
