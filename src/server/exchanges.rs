//! The exchanges of a connection, from a request's head to the end of the response's body: whether the connection idles.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::sync::lock;

/// The exchanges of one connection.
#[derive(Clone, Debug)]
pub(super) struct Exchanges(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// How many have begun.
    begun: u64,
    /// How long the body is of the request that began the last one, in bytes, where its head says that.
    body_length: Option<u64>,
    /// What has been read of the last request.
    received: Received,
    /// What is known of the length of the response to the last one.
    length: Length,
    /// How many are going on.
    running: usize,
    /// Since when none is.
    idle_since: Instant,
}

/// What is known of the length of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// It has not begun, or its head says it, or it ends with the connection.
    Unknown,
    /// It comes in chunks (RFC 9112 §7.1).
    Chunked,
    /// It comes in chunks, and ends only when its peer has enough.
    Endless,
}

/// What has been read of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    /// How many exchanges had begun before it.
    pub(super) before: u64,
    /// Bytes behind its head; `None` where the head's end was not seen.
    pub(super) beyond: Option<u64>,
    /// Whether an empty line is among them, with which a body in chunks ends (RFC 9112 §7.1).
    pub(super) has_blank: bool,
}

impl Exchanges {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            begun: 0,
            body_length: None,
            received: Received::default(),
            length: Length::Unknown,
            running: 0,
            idle_since: Instant::now(),
        })))
    }

    /// A request has come. `body_length`: of its body, in bytes, where its head says that.
    pub(super) fn begin(&self, body_length: Option<u64>) -> Exchange {
        let mut state = self.lock();
        state.begun += 1;
        state.body_length = body_length;
        state.length = Length::Unknown;
        state.running += 1;
        Exchange { exchanges: self.clone(), number: state.begun }
    }

    /// How many have begun so far.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// How long the body is of the request that began the last one, in bytes, where its head says that.
    pub(super) fn body_length(&self) -> Option<u64> {
        self.lock().body_length
    }

    /// More was read.
    pub(super) fn receive(&self, received: Received) {
        self.lock().received = received;
    }

    /// Whether the body of the last request has been read to its end, by hyper at least; `None` where that is not known.
    pub(super) fn has_body(&self) -> Option<bool> {
        self.lock().has_body()
    }

    /// What is known of the length of the response to the last request.
    pub(super) fn length(&self) -> Length {
        self.lock().length
    }

    /// Since when no exchange is going on; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.running == 0).then_some(state.idle_since)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    fn has_body(&self) -> Option<bool> {
        if self.body_length == Some(0) {
            return Some(true);
        }
        let received = Some(self.received).filter(|received| received.before + 1 == self.begun)?;
        let beyond = received.beyond?;
        Some(match self.body_length {
            Some(length) => beyond >= length,
            None => received.has_blank,
        })
    }
}

#[derive(Debug)]
pub(super) struct Exchange {
    exchanges: Exchanges,
    number: u64,
}

impl Exchange {
    /// Its place among those of its connection, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Its response comes.
    pub(super) fn respond(&self, length: Length) {
        self.exchanges.lock().length = length;
    }

    /// Whether a part of the request's body is still to come.
    pub(super) fn lacks_body(&self) -> bool {
        self.exchanges.lock().has_body() == Some(false)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.exchanges.lock();
        state.running -= 1;
        state.idle_since = Instant::now();
    }
}

/// A body that ends its exchange when it is dropped.
#[derive(Debug)]
pub(super) struct Tracked<B> {
    body: B,
    _exchange: Exchange,
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, exchange: Exchange) -> Self {
        Self { body, _exchange: exchange }
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
