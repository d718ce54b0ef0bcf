//! A connection that ends when its peer lets the bridge wait too long: within a request head, between two requests, or
//! with bytes that it does not take.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::exchanges::Exchanges;
use super::head_end::HeadEnd;
use super::pace::{Pace, Peer, log_slow};
use crate::late;

/// How long the peer of an HTTP/1 connection may let the bridge wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the rest of a request head, from its first byte.
    pub(super) head: Duration,
    /// For the next request.
    pub(super) idle: Duration,
}

/// A connection that can be cut off.
pub(super) trait Abort {
    /// Lets the kernel drop what it holds for the peer when the connection is closed, instead of keeping it until the
    /// peer takes it or gives up.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        let _ = self.set_zero_linger();
    }
}

impl Abort for UnixStream {
    /// What has been written is with the peer already.
    fn abort(&self) {}
}

type Grace = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that gives back what was sniffed, and keeps the [`Limits`].
pub(super) struct Guarded<S> {
    stream: S,
    sniffed: Bytes,
    exchanges: Exchanges,
    peer: Peer,
    /// `None` over HTTP/2, which has pings and whose requests do not follow one another.
    limits: Option<Limits>,
    /// The last one, complete or not.
    head: Option<Head>,
    /// Whether hyper has used all that was read. Once it has a request as a whole, it reads on only when it has nothing
    /// more: so a read that finds nothing during an exchange tells.
    drained: bool,
    writing: Writing,
    /// One for the whole connection, made at the first wait. It is moved only to an earlier time, or when it fires before
    /// the deadline that holds by then, so that requests one after the other cost no timer.
    timer: Option<Pin<Box<Sleep>>>,
    /// What lies in the socket when a deadline has passed is read first.
    grace: Option<Grace>,
}

/// A request head that has begun.
#[derive(Debug)]
struct Head {
    /// How many exchanges had begun before it.
    before: u64,
    deadline: Instant,
    /// `None` where its begin was not seen.
    end: Option<HeadEnd>,
}

/// What is written, and whether the peer takes it: over HTTP/1 and HTTP/2, TCP and socket files alike. The kernel has a
/// limit of its own for TCP only, and not for a peer that takes a little now and then.
#[derive(Debug)]
struct Writing {
    pace: Pace,
    /// Bytes that the peer took since its pace was last looked at.
    taken: u64,
    /// Since when it takes none.
    blocked: Option<Instant>,
    /// Since when none waits.
    flowing: Option<Instant>,
}

impl Writing {
    fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        if let Some(since) = self.blocked.take() {
            let now = Instant::now();
            self.pace.waited(now - since, std::mem::take(&mut self.taken));
            self.flowing = Some(now);
        }
    }

    fn block(&mut self) {
        if self.blocked.is_none() {
            let now = Instant::now();
            let flowed = self.flowing.map_or(Duration::MAX, |since| now - since);
            self.pace.flowed(flowed, std::mem::take(&mut self.taken));
            self.blocked = Some(now);
        }
    }

    /// By when the peer must take some.
    fn deadline(&self) -> Option<Instant> {
        self.blocked.map(|since| since + self.pace.left())
    }
}

impl<S: Abort> Guarded<S> {
    /// `patience`: as in [`Pace::new`].
    pub(super) fn new(
        stream: S,
        sniffed: Bytes,
        exchanges: Exchanges,
        peer: Peer,
        limits: Option<Limits>,
        patience: Duration,
    ) -> Self {
        let writing = Writing { pace: Pace::new(patience), taken: 0, blocked: None, flowing: None };
        Self {
            stream,
            sniffed,
            exchanges,
            peer,
            limits,
            head: None,
            drained: true,
            writing,
            timer: None,
            grace: None,
        }
    }

    /// The head that is not complete.
    fn open_head(&self) -> Option<&Head> {
        self.head.as_ref().filter(|head| head.before == self.exchanges.begun())
    }

    /// By when the peer must have sent the rest of a head, or the next request; `None` during an exchange.
    fn read_deadline(&self) -> Option<Instant> {
        let limits = self.limits?;
        match self.open_head() {
            Some(head) => Some(head.deadline),
            None => self.exchanges.idle_since().map(|since| since + limits.idle),
        }
    }

    /// Whether one of the deadlines is over. If not, the task is woken when that may have changed: the timer runs during
    /// an exchange too, because at its end hyper does not read again.
    fn poll_late(&mut self, context: &mut Context<'_>) -> bool {
        let deadline = match (self.read_deadline(), self.writing.deadline()) {
            (Some(read), Some(write)) => Some(read.min(write)),
            (read, write) => read.or(write),
        };
        let rest = self.limits.map_or(self.writing.pace.full(), |limits| limits.idle);
        let next = || deadline.unwrap_or_else(|| Instant::now() + rest);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next())));
        if deadline.is_some_and(|deadline| deadline < timer.deadline()) {
            timer.as_mut().reset(next());
        }
        while timer.as_mut().poll(context).is_ready() {
            if deadline.is_some_and(|deadline| deadline <= timer.deadline()) {
                let first = || -> Grace { Box::pin(late::what_is_ready_first()) };
                let is_over = self.grace.get_or_insert_with(first).as_mut().poll(context).is_ready();
                if is_over {
                    self.grace = None;
                }
                return is_over;
            }
            timer.as_mut().reset(next());
        }
        false
    }

    /// Looks at what was read.
    fn read(&mut self, limits: Limits, bytes: &[u8]) {
        if self.open_head().is_none() && self.exchanges.idle_since().is_some() {
            self.begin_head(limits, self.drained);
        }
        self.drained = false;
        if let Some(end) = self.head.as_mut().and_then(|head| head.end.as_mut()) {
            end.read(bytes);
        }
    }

    /// Nothing was there to be read.
    fn read_nothing(&mut self, limits: Limits) {
        if self.exchanges.idle_since().is_none() {
            self.drained = true;
        } else if self.open_head().is_none() && !self.drained {
            // A request that was refused may have ended before its body was read: then nothing tells that hyper got rid
            // of all, but the lengths.
            match self.is_used_up() {
                true => self.drained = true,
                false => self.begin_head(limits, false), // a part of it came during the last exchange
            }
        }
    }

    /// Whether no more was read than the last request.
    fn is_used_up(&self) -> bool {
        let last = self.head.as_ref().filter(|head| head.before + 1 == self.exchanges.begun());
        let beyond = last.and_then(|head| head.end.as_ref()).and_then(HeadEnd::beyond);
        beyond.zip(self.exchanges.body_length()).is_some_and(|(beyond, length)| beyond <= length)
    }

    fn begin_head(&mut self, limits: Limits, is_seen: bool) {
        self.head = Some(Head {
            before: self.exchanges.begun(),
            deadline: Instant::now() + limits.head,
            end: is_seen.then(HeadEnd::default),
        });
    }

    /// Looks at what a write came to.
    fn wrote(
        &mut self,
        polled: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(Ok(bytes)) => self.writing.took(bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.writing.block();
                let is_late = self.poll_late(context);
                if is_late && self.writing.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                    log_slow(self.peer, self.writing.pace.full(), "connection");
                    self.stream.abort();
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        polled
    }
}

impl<S: AsyncRead + Abort + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
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
        if read.is_ready() {
            this.grace = None;
            this.read(limits, buffer.filled().get(before..).unwrap_or_default());
            return read;
        }
        this.read_nothing(limits);
        let is_late = this.poll_late(context);
        if is_late && this.read_deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            let phase = if this.open_head().is_some() { "head" } else { "idle" };
            debug!(event = "conn.timeout", phase, peer = %this.peer, "a peer did not send a request in time");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Abort + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(polled, context)
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
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.wrote(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
