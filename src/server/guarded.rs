//! A connection guarded in time: which protocol it speaks, and whether a request head is taking too long.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use crate::http::response::Body;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear whether the peer speaks HTTP/2, and returns what was read.
pub(super) async fn sniff<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(bool, Bytes)> {
    let mut first = BytesMut::with_capacity(H2_PREFACE.len());
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first.len() >= H2_PREFACE.len() {
            return Ok((first.starts_with(H2_PREFACE), first.freeze()));
        }
        if !H2_PREFACE.starts_with(&first) {
            return Ok((false, first.freeze()));
        }
    }
}

/// The largest piece that HTTP/2 is given at once, in bytes: what it has been given it keeps until the peer takes it.
const MAX_PIECE: usize = 64 * 1024;

/// The exchanges of a connection, from a request's head to the end of the response's body.
#[derive(Clone, Debug)]
pub(super) struct Exchanges(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Odd while an exchange is going on, as far as HTTP/1 is concerned.
    count: AtomicUsize,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    /// Exchanges with a piece of the response that the peer may not have taken, and since when, by their numbers.
    owing: HashMap<usize, Instant>,
    /// How many exchanges are going on.
    running: usize,
    /// Since when none is.
    idle: Instant,
}

impl Default for Exchanges {
    fn default() -> Self {
        let open = Mutex::new(Open { owing: HashMap::new(), running: 0, idle: Instant::now() });
        Self(Arc::new(Shared { count: AtomicUsize::new(0), open }))
    }
}

impl Exchanges {
    /// Begins an exchange. `watched`: whether [`is_stuck`](Self::is_stuck) and [`idle_since`](Self::idle_since) will be
    /// asked.
    pub(super) fn begin(&self, watched: bool) -> Exchange {
        let number = self.0.count.fetch_add(1, Ordering::Relaxed);
        if watched {
            self.open().running += 1;
        }
        Exchange { exchanges: self.clone(), number, watched }
    }

    fn count(&self) -> usize {
        self.0.count.load(Ordering::Relaxed)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the peer has taken nothing of some response for so long.
    pub(super) fn is_stuck(&self, patience: Duration) -> bool {
        self.open().owing.values().any(|since| since.elapsed() >= patience)
    }

    /// Since when no exchange is going on; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let open = self.open();
        (open.running == 0).then_some(open.idle)
    }
}

/// One exchange.
#[derive(Debug)]
pub(super) struct Exchange {
    exchanges: Exchanges,
    number: usize,
    watched: bool,
}

impl Exchange {
    /// Whether there is a piece of the response that the connection has not asked for yet, or not got rid of.
    fn owes(&self, owes: bool) {
        if !self.watched {
            return;
        }
        let mut open = self.exchanges.open();
        if owes {
            open.owing.insert(self.number, Instant::now());
        } else {
            open.owing.remove(&self.number);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.exchanges.0.count.fetch_add(1, Ordering::Relaxed);
        if self.watched {
            let mut open = self.exchanges.open();
            open.owing.remove(&self.number);
            open.running -= 1;
            open.idle = Instant::now();
        }
    }
}

/// A body that ends its exchange when it is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    /// What is left of a piece that was too large.
    rest: Bytes,
    exchange: Exchange,
}

impl Tracked {
    pub(super) fn new(body: Body, exchange: Exchange) -> Self {
        exchange.owes(true);
        Self { body, rest: Bytes::new(), exchange }
    }
}

impl HttpBody for Tracked {
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
        this.exchange.owes(polled.is_ready());
        if this.exchange.watched
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

/// A connection that gives back what was sniffed, and ends when a request head takes too long.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    sniffed: Bytes,
    exchanges: Exchanges,
    head_timeout: Option<Duration>,
    head: Option<Head>,
}

/// A request head that has begun.
#[derive(Debug)]
struct Head {
    /// The count of exchanges when it began.
    since: usize,
    deadline: Instant,
    /// Made when the peer lets us wait: nearly every head comes in one piece.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(
        stream: S,
        sniffed: Bytes,
        exchanges: Exchanges,
        head_timeout: Option<Duration>,
    ) -> Self {
        Self { stream, sniffed, exchanges, head_timeout, head: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let count = this.exchanges.count();
        if this.head.as_ref().is_some_and(|head| head.since != count) {
            this.head = None; // the head was complete: an exchange has begun
        }
        let before = buffer.filled().len();
        let read = if this.sniffed.is_empty() {
            Pin::new(&mut this.stream).poll_read(context, buffer)
        } else {
            let length = this.sniffed.len().min(buffer.remaining());
            buffer.put_slice(this.sniffed.get(..length).unwrap_or_default());
            this.sniffed.advance(length);
            Poll::Ready(Ok(()))
        };
        if let Some(limit) = this.head_timeout
            && this.head.is_none()
            && count.is_multiple_of(2)
            && buffer.filled().len() > before
        {
            this.head = Some(Head { since: count, deadline: Instant::now() + limit, timer: None });
        }
        if let Some(head) = &mut this.head {
            let late = if read.is_pending() {
                let deadline = head.deadline;
                let timer = head.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                timer.as_mut().poll(context).is_ready()
            } else {
                // A peer that always has one more byte is ready each time; the deadline counts all the same.
                head.deadline <= Instant::now()
            };
            if late {
                debug!(event = "conn.timeout", phase = "head");
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
