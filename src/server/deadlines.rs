//! A connection that ends when its peer lets the bridge wait too long: within a request head, between two requests, or
//! with bytes that it does not take; and that does not end where its peer has only nothing more to say.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::exchanges::{Exchanges, Length, Received};
use super::half_close::{self, HalfClose};
use super::head_end::HeadEnd;
use super::pace::{Pace, Peer, log_slow};
use crate::{heap, late};

/// What a connection holds during an exchange, near enough, in bytes.
const EXCHANGE: usize = 32 * 1024;

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

    /// Whether the peer has closed it in both directions, as far as this end has been told.
    fn is_gone(&self) -> bool;
}

/// POLLRDHUP alone is the end of what the peer sends; POLLHUP and POLLERR, which need not be asked for, are the end of both
/// directions (poll(2)).
fn has_hung_up(socket: &impl AsFd) -> bool {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

impl Abort for TcpStream {
    fn abort(&self) {
        let _ = self.set_zero_linger();
    }

    fn is_gone(&self) -> bool {
        has_hung_up(self)
    }
}

impl Abort for UnixStream {
    /// What has been written is with the peer already.
    fn abort(&self) {}

    fn is_gone(&self) -> bool {
        has_hung_up(self)
    }
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
    /// Since the peer has sent its last byte.
    half_close: Option<HalfClose>,
    /// The exchange for which something was written last, by its number.
    answered: u64,
    /// Whether the first byte of the next response has been written ahead of it.
    ahead: bool,
    /// Whether this end has given up waiting, or the connection has failed: there is nobody to be considerate of.
    broken: bool,
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
            half_close: None,
            answered: 0,
            ahead: false,
            broken: false,
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
        let in_chunks = self.open_head().is_some() || self.exchanges.body_length().is_none();
        let Some(head) = &mut self.head else { return };
        if let Some(end) = &mut head.end {
            end.read(bytes, in_chunks);
        }
        let (before, end) = (head.before, head.end.as_ref());
        let beyond = end.and_then(HeadEnd::beyond);
        let has_blank = end.is_some_and(HeadEnd::has_blank);
        self.exchanges.receive(Received { before, beyond, has_blank });
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
            Poll::Ready(Ok(bytes)) => {
                self.writing.took(bytes);
                self.answered = self.exchanges.begun();
                if let Some(half_close) = &mut self.half_close {
                    half_close.wrote(self.answered, context);
                }
            }
            Poll::Ready(Err(_)) => self.broken = true,
            Poll::Pending => {
                self.writing.block();
                let is_late = self.poll_late(context);
                if is_late && self.writing.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                    log_slow(self.peer, self.writing.pace.full(), "connection");
                    self.stream.abort();
                    self.broken = true;
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Abort + Unpin> Guarded<S> {
    /// The peer has sent its last byte. While an exchange goes on for which it has sent all, that is no reason to leave it
    /// without the answer (RFC 9112 §9.6), and hyper, which would end the exchange, is not told.
    fn poll_half_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let exchange = self.exchanges.begun();
        // Whoever has begun to listen does not half-close: there is nothing that would end the stream.
        let listened = self.half_close.is_none()
            && self.answered == exchange
            && self.exchanges.length() == Length::Endless;
        let half_close = self.half_close.get_or_insert_default();
        if self.exchanges.idle_since().is_some() || self.exchanges.has_body() == Some(false) || listened {
            return Poll::Ready(Ok(()));
        }
        loop {
            if self.stream.is_gone() {
                self.broken = true;
                heap::note_freed(EXCHANGE); // those who leave often do so together
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let begun = self.answered == exchange;
            let is_quiet = !half_close.has_written(exchange) && self.writing.blocked.is_none();
            let ahead = if begun && is_quiet && self.exchanges.length() == Length::Chunked {
                half_close::ZERO
            } else {
                std::task::ready!(half_close.poll_look(exchange, context));
                if self.exchanges.length() == Length::Endless {
                    return Poll::Ready(Ok(())); // it has what there was
                }
                if begun || !is_quiet {
                    continue;
                }
                half_close::AHEAD
            };
            match Pin::new(&mut self.stream).poll_write(context, ahead) {
                Poll::Ready(Ok(_)) => {
                    self.ahead = ahead == half_close::AHEAD;
                    half_close.wrote(exchange, context);
                }
                Poll::Ready(Err(error)) => {
                    self.broken = true;
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => std::task::ready!(half_close.poll_look(exchange, context)),
            }
        }
    }
}

impl<S: Abort> Guarded<S> {
    /// The connection, where the peer has been answered and may still send: it would be reset in the middle of that, and
    /// lose the answer.
    pub(super) fn is_sending(&self) -> bool {
        let is_over = self.broken || self.half_close.is_some();
        let is_read = self.open_head().is_none() && self.exchanges.has_body() == Some(true);
        let has_all = is_read && (self.exchanges.body_length().is_none() || self.is_used_up());
        !is_over && !has_all
    }

    pub(super) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Abort + Unpin> AsyncRead for Guarded<S> {
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
        if matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before && buffer.remaining() > 0 {
            return this.poll_half_closed(context);
        }
        if read.is_ready() {
            this.grace = None;
            this.broken |= matches!(read, Poll::Ready(Err(_)));
            this.read(limits, buffer.filled().get(before..).unwrap_or_default());
            return read;
        }
        this.read_nothing(limits);
        let is_late = this.poll_late(context);
        if is_late && this.read_deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            let phase = if this.open_head().is_some() { "head" } else { "idle" };
            this.broken = true;
            debug!(
                event = "conn.timeout",
                phase,
                peer = this.peer.to_string(),
                "a client did not send a request in time"
            );
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Abort + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (ahead, bytes) = match (this.ahead, bytes) {
            (true, [_, rest @ ..]) => (1, rest),
            _ => (0, bytes),
        };
        let polled = match (ahead, bytes) {
            (1, []) => Poll::Ready(Ok(0)),
            _ => Pin::new(&mut this.stream).poll_write(context, bytes),
        };
        if matches!(polled, Poll::Ready(Ok(_))) {
            this.ahead &= ahead == 0;
        }
        this.wrote(polled, context).map_ok(|count| count + ahead)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(half_close) = &mut this.half_close
            && this.exchanges.idle_since().is_some()
        {
            half_close.end(this.exchanges.begun(), context);
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.ahead {
            let first = parts.iter().find(|part| !part.is_empty());
            return self.poll_write(context, first.map_or(&[], |part| &**part));
        }
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(context, parts);
        this.wrote(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
