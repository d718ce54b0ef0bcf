//! The exchanges of a connection, from a request's head to the end of the response's body: whether the connection idles,
//! and whether its peer takes what it asked for.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep};

use super::sniff::Protocol;
use crate::sync::lock;

/// The largest piece that HTTP/2 is given at once, in bytes: what it has been given it keeps until the peer takes it.
const MAX_PIECE: usize = 64 * 1024;

/// The exchanges of one connection.
#[derive(Clone, Debug)]
pub(super) struct Exchanges(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    protocol: Protocol,
    /// How many have begun.
    begun: u64,
    /// How many are going on.
    running: usize,
    /// Since when none is.
    idle_since: Instant,
    /// Over HTTP/2: exchanges with a piece of the response that the peer may not have taken, and since when, by their
    /// numbers. Over HTTP/1 the kernel notices a peer that takes nothing (TCP_USER_TIMEOUT).
    untaken: HashMap<u64, Instant>,
}

/// Why a connection over HTTP/2 must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// No exchange has been going on for too long.
    Idle,
    /// The peer has taken nothing of a response for too long.
    Stuck,
}

impl Exchanges {
    pub(super) fn new(protocol: Protocol) -> Self {
        let state =
            State { protocol, begun: 0, running: 0, idle_since: Instant::now(), untaken: HashMap::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn begin(&self) -> Exchange {
        let mut state = self.lock();
        state.begun += 1;
        state.running += 1;
        Exchange { exchanges: self.clone(), number: state.begun, is_h2: state.protocol == Protocol::Http2 }
    }

    /// How many have begun so far.
    pub(super) fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// Since when no exchange is going on; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.running == 0).then_some(state.idle_since)
    }

    /// Whether the peer has taken nothing of some response for so long.
    fn is_stuck(&self, limit: Duration) -> bool {
        self.lock().untaken.values().any(|since| since.elapsed() >= limit)
    }

    /// Waits until a connection over HTTP/2 must end: pings show that its peer is alive, not that it does anything.
    /// `idle_timeout`: `None` where the connection is ending already.
    pub(super) async fn expiry(&self, idle_timeout: Option<Duration>, response_timeout: Duration) -> Expiry {
        let interval = idle_timeout.unwrap_or(response_timeout).min(response_timeout) / 4;
        loop {
            sleep(interval).await;
            if self.is_stuck(response_timeout) {
                return Expiry::Stuck;
            }
            let idle = self.idle_since().map(|since| since.elapsed());
            if idle.zip(idle_timeout).is_some_and(|(idle, limit)| idle >= limit) {
                return Expiry::Idle;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

#[derive(Debug)]
pub(super) struct Exchange {
    exchanges: Exchanges,
    number: u64,
    is_h2: bool,
}

impl Exchange {
    /// Whether there is a piece of the response that the connection has not asked for yet, or not got rid of.
    fn set_untaken(&self, untaken: bool) {
        if !self.is_h2 {
            return;
        }
        let mut state = self.exchanges.lock();
        if untaken {
            state.untaken.insert(self.number, Instant::now());
        } else {
            state.untaken.remove(&self.number);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.exchanges.lock();
        state.untaken.remove(&self.number);
        state.running -= 1;
        state.idle_since = Instant::now();
    }
}

/// A body that ends its exchange when it is dropped.
#[derive(Debug)]
pub(super) struct Tracked<B> {
    body: B,
    /// What is left of a piece that was too large.
    rest: Bytes,
    exchange: Exchange,
}

impl<B> Tracked<B> {
    pub(super) fn new(body: B, exchange: Exchange) -> Self {
        exchange.set_untaken(true);
        Self { body, rest: Bytes::new(), exchange }
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Tracked<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let mut polled = match this.rest.is_empty() {
            true => Pin::new(&mut this.body).poll_frame(context),
            false => Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest))))),
        };
        this.exchange.set_untaken(polled.is_ready());
        if this.exchange.is_h2
            && let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(data) = frame.data_mut().filter(|data| data.len() > MAX_PIECE)
        {
            this.rest = data.split_off(MAX_PIECE);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
