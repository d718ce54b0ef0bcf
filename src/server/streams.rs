//! The streams of an HTTP/2 connection: whether its peer takes what they answer. A stream whose window stays shut is
//! reset, and no other one of its connection notices (RFC 9113 §5.4.2).
//!
//! hyper hands a piece of a response to h2 and asks for the next one only when the peer has let some of it through, so a
//! stuck stream asks for nothing: its body can't end it. Its task can: hyper has one for each stream, and h2 sends
//! RST_STREAM with CANCEL for a stream that nobody holds any more, if its end has not been queued yet. Hence the end of
//! a long response is handed over only when all before it has been written.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::exchanges::{Exchange, Exchanges};
use super::pace::{Pace, Peer, log_slow};
use crate::sync::lock;

/// The largest piece that h2 is given at once, in bytes: what it has been given it keeps until the peer takes it.
pub(super) const MAX_PIECE: usize = 64 * 1024;

/// Up to this length, in bytes, a response is given to h2 with its end: a frame and a wakeup less. Such a stream can't be
/// reset any more, but no other peer suffers from it: a window is smaller only where the client itself made it so. Every
/// proxy that was looked at begins with the 65,535 of RFC 9113 §6.9.2 or more.
const WITH_END: u64 = 16 * 1024;

/// The streams of one connection.
#[derive(Clone, Debug)]
pub(super) struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    exchanges: Exchanges,
    peer: Peer,
    patience: Duration,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// By the numbers of their exchanges.
    streams: HashMap<u64, Weak<Stream>>,
    /// The one for which hyper is about to start a task.
    latest: Weak<Stream>,
}

/// Why a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// No exchange has been going on for too long.
    Idle,
    /// The peer takes nothing of streams that cannot be reset.
    Stuck,
}

impl Streams {
    /// `patience`: as in [`Pace::new`].
    pub(super) fn new(exchanges: Exchanges, peer: Peer, patience: Duration) -> Self {
        Self(Arc::new(Shared { exchanges, peer, patience, open: Mutex::default() }))
    }

    /// A request has come.
    pub(super) fn begin(&self) -> Arc<Stream> {
        let exchange = self.0.exchanges.begin(None);
        let number = exchange.number();
        let stream = Arc::new(Stream {
            streams: self.clone(),
            exchange,
            progress: Mutex::new(Progress {
                handed: 0,
                taken: 0,
                seen: 0,
                asked: false,
                rested: false,
                waited: false,
                pace: Pace::new(self.0.patience),
                end: None,
                task: None,
            }),
        });
        let mut open = self.open();
        open.streams.insert(number, Arc::downgrade(&stream));
        open.latest = Arc::downgrade(&stream);
        stream
    }

    /// Waits until the connection must end, and resets streams until then. Pings show that a peer is alive, not that it
    /// does anything. `idle`: how long no exchange may be going on.
    pub(super) async fn expiry(&self, idle: Duration) -> Expiry {
        let interval = idle.min(self.0.patience) / 4;
        loop {
            sleep(interval).await;
            if self.is_stuck(interval) {
                return Expiry::Stuck;
            }
            if self.0.exchanges.idle_since().is_some_and(|since| since.elapsed() >= idle) {
                return Expiry::Idle;
            }
        }
    }

    /// Resets the streams whose peer is too slow, `interval` after the last look. Whether there are some that can't be.
    ///
    /// The interval is what was meant to pass and not what did: while this process stood still, so did they.
    fn is_stuck(&self, interval: Duration) -> bool {
        let streams: Vec<_> = self.open().streams.values().filter_map(Weak::upgrade).collect();
        // They share what the peer takes: a line that is slow for all of them is no fault of one.
        let share = streams.iter().filter(|stream| stream.progress().waits()).count() as u64;
        let slow: Vec<_> =
            streams.iter().filter(|stream| stream.progress().is_slow(interval, share)).collect();
        let (begun, starved): (Vec<_>, Vec<_>) =
            slow.into_iter().partition(|stream| stream.progress().taken > 0);
        let mut left = Vec::new();
        let mut resets = 0;
        for streams in [begun, starved] {
            // What a stream was given may be what shut the connection's window for those that were given nothing.
            let spared = resets > 0;
            let (reset, kept): (Vec<_>, Vec<_>) =
                streams.into_iter().partition(|stream| !spared && stream.reset());
            resets += reset.len();
            left.extend(kept);
        }
        for _ in 0..resets {
            log_slow(self.0.peer, self.0.patience, "stream");
        }
        if resets == 0 {
            return !left.is_empty();
        }
        left.iter().for_each(|stream| stream.progress().pace.refill());
        false
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        lock(&self.0.open)
    }
}

/// Starts the tasks of streams.
impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        // hyper asks the service about a request, then starts the task that waits for the answer, and writes it.
        let stream = std::mem::take(&mut self.open().latest).upgrade();
        let task = tokio::spawn(task).abort_handle();
        if let Some(stream) = stream {
            stream.progress().task = Some(task);
        }
    }
}

/// A stream, from its request to the last byte of the response that the peer took.
#[derive(Debug)]
pub(super) struct Stream {
    streams: Streams,
    exchange: Exchange,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// How many bytes h2 has been given.
    handed: u64,
    /// How many of them have been written.
    taken: u64,
    /// How many had been at the last look.
    seen: u64,
    /// Whether h2 has asked for more than there is so far.
    asked: bool,
    /// Whether the peer had taken all there was, once since the last look.
    rested: bool,
    /// Whether bytes waited at the last look.
    waited: bool,
    pace: Pace,
    /// Who waits for the last byte to be written.
    end: Option<Waker>,
    task: Option<AbortHandle>,
}

impl Progress {
    fn waits(&self) -> bool {
        self.handed > self.taken
    }

    /// Whether the peer is too slow, `interval` after the last look, as one of so many for whose bytes it lets wait.
    fn is_slow(&mut self, interval: Duration, share: u64) -> bool {
        let taken = self.taken - self.seen;
        self.seen = self.taken;
        let (rested, waited) = (self.rested, self.waited);
        self.rested = self.asked && !self.waits();
        self.waited = self.waits();
        if rested {
            self.pace.refill();
        }
        !rested && waited && self.waited && self.pace.waited(interval, taken.saturating_mul(share))
    }
}

impl Stream {
    /// Ends it with RST_STREAM. Whether that was possible.
    fn reset(&self) -> bool {
        let progress = self.progress();
        let task = progress.task.as_ref().filter(|task| !task.is_finished());
        task.inspect(|task| task.abort()).is_some()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.open().streams.remove(&self.exchange.number());
    }
}

/// The body of a response over HTTP/2, in pieces that are watched.
#[derive(Debug)]
pub(super) struct Watched<B> {
    body: B,
    /// What is left of a piece that was too large.
    rest: Bytes,
    /// Whether the body has ended.
    ended: bool,
    stream: Arc<Stream>,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, stream: Arc<Stream>) -> Self {
        Self { body, rest: Bytes::new(), ended: false, stream }
    }

    fn piece(&mut self, mut bytes: Bytes) -> Piece {
        if bytes.len() > MAX_PIECE {
            self.rest = bytes.split_off(MAX_PIECE);
        }
        let mut progress = self.stream.progress();
        progress.asked = false;
        progress.handed += bytes.len() as u64;
        drop(progress);
        Piece { bytes, stream: Arc::clone(&self.stream) }
    }

    /// Whether the end may follow.
    fn poll_end(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut progress = self.stream.progress();
        if progress.handed <= WITH_END || !progress.waits() {
            return Poll::Ready(());
        }
        progress.end = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Body for Watched<B> {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, io::Error>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(Frame::data(this.piece(rest)))));
        }
        if this.ended {
            return this.poll_end(context).map(|()| None);
        }
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => {
                Poll::Ready(Some(frame.map(|frame| frame.map_data(|bytes| this.piece(bytes)))))
            }
            Poll::Ready(None) => {
                this.ended = true;
                this.poll_end(context).map(|()| None)
            }
            Poll::Pending => {
                let mut progress = this.stream.progress();
                progress.asked = true;
                progress.rested |= !progress.waits();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream() && self.stream.progress().handed <= WITH_END
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

/// A piece of a response, in the hands of h2.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    stream: Arc<Stream>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        let mut progress = self.stream.progress();
        progress.taken += count as u64;
        if !progress.waits() {
            progress.rested |= progress.asked;
            if let Some(end) = progress.end.take() {
                drop(progress);
                end.wake();
            }
        }
    }
}
