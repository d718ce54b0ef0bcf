//! A connection that ends when its peer lets the bridge wait too long: within a request head, or between two requests.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::exchanges::Exchanges;

/// How long the peer of an HTTP/1 connection may let the bridge wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the rest of a request head, from its first byte.
    pub(super) head: Duration,
    /// For the next request.
    pub(super) idle: Duration,
}

/// A connection that gives back what was sniffed, and keeps the [`Limits`].
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    sniffed: Bytes,
    exchanges: Exchanges,
    /// `None` over HTTP/2, which has pings and whose requests do not follow one another.
    limits: Option<Limits>,
    head: Option<Head>,
    /// One for the whole connection, made at the first wait. It is moved only to an earlier time, or when it fires before
    /// the deadline that holds by then, so that requests one after the other cost no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

/// A request head that has begun.
#[derive(Debug)]
struct Head {
    /// How many exchanges had begun before it.
    before: u64,
    deadline: Instant,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, sniffed: Bytes, exchanges: Exchanges, limits: Option<Limits>) -> Self {
        Self { stream, sniffed, exchanges, limits, head: None, timer: None }
    }

    /// By when the peer must have sent the rest of a head, or the next request; `None` during an exchange.
    fn deadline(&self, limits: Limits) -> Option<Instant> {
        match &self.head {
            Some(head) => Some(head.deadline),
            None => self.exchanges.idle_since().map(|since| since + limits.idle),
        }
    }

    /// Whether the deadline is over. If not, the task is woken when that may have changed: the timer runs during an
    /// exchange too, because at its end hyper does not read again.
    fn poll_late(&mut self, limits: Limits, context: &mut Context<'_>) -> bool {
        let deadline = self.deadline(limits);
        let next = || deadline.unwrap_or_else(|| Instant::now() + limits.idle);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next())));
        if deadline.is_some_and(|deadline| deadline < timer.deadline()) {
            timer.as_mut().reset(next());
        }
        while timer.as_mut().poll(context).is_ready() {
            if deadline.is_some_and(|deadline| deadline <= timer.deadline()) {
                return true;
            }
            timer.as_mut().reset(next());
        }
        false
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let begun = this.exchanges.begun();
        if this.head.as_ref().is_some_and(|head| head.before != begun) {
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
        let Some(limits) = this.limits else { return read };
        if this.head.is_none() && this.exchanges.idle_since().is_some() && buffer.filled().len() > before {
            this.head = Some(Head { before: begun, deadline: Instant::now() + limits.head });
        }
        let late = match &read {
            Poll::Pending => this.poll_late(limits, context),
            // A peer that always has one more byte is ready each time; the deadline of a head counts all the same.
            Poll::Ready(_) => this.head.as_ref().is_some_and(|head| head.deadline <= Instant::now()),
        };
        if late {
            let phase = if this.head.is_some() { "head" } else { "idle" };
            debug!(event = "conn.timeout", phase, "a peer did not send a request in time");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
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
