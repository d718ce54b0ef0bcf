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
    /// How many are going on.
    running: usize,
    /// Since when none is.
    idle_since: Instant,
}

impl Exchanges {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            begun: 0,
            body_length: None,
            running: 0,
            idle_since: Instant::now(),
        })))
    }

    /// A request has come. `body_length`: of its body, in bytes, where its head says that.
    pub(super) fn begin(&self, body_length: Option<u64>) -> Exchange {
        let mut state = self.lock();
        state.begun += 1;
        state.body_length = body_length;
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

    /// Since when no exchange is going on; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.running == 0).then_some(state.idle_since)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
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
