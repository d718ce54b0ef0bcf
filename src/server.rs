//! From a listener to requests: accepts connections, guards them in time and number, and ends them in order.
//!
//! Three limits that hyper has in one knob, or not at all, are kept apart here: how long a connection may be silent
//! before its first byte, how long a request head may take, and how long a connection may idle between requests. The
//! last one must be longer than a load balancer's own, or the balancer sends a request into a closing connection.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tracing::{debug, warn};

use crate::cli::Address;
use crate::drain::Watch;
use crate::http::Http;
use crate::http::body::Body;

/// How many connections are served at once; further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 1024;

/// How long a new connection may say nothing, or stop in the middle of an HTTP/2 preface.
const SNIFF_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the head of a request may take from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may idle between requests. Balancers keep theirs for 60 s (ALB) to 600 s (GCP), and whoever
/// closes first must be the one who sends requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(650);

/// The largest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection.
const MAX_H2_STREAMS: u32 = 128;

/// How often a silent HTTP/2 peer is pinged, and how long it may take to answer.
const H2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a health check waits for the bridge.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// When a dead peer is noticed: first probe after 30 s, then every 10 s, three of them; data unacknowledged for 30 s.
const TCP_KEEPALIVE: (u32, u32, u32) = (30, 10, 3);
const TCP_USER_TIMEOUT: u32 = 30_000;

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A socket file, removed at the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds. `[::]` falls back to `0.0.0.0` on a kernel without IPv6; a socket file that nobody listens on any more
    /// is replaced.
    ///
    /// # Errors
    /// What socket(2), bind(2) or listen(2) said.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => match TcpListener::bind(address).await {
                Err(error)
                    if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
                        && address.ip().is_unspecified() =>
                {
                    TcpListener::bind(("0.0.0.0", address.port())).await.map(Self::Tcp)
                }
                bound => bound.map(Self::Tcp),
            },
            Address::Unix(path) => {
                let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
                let listener = match UnixListener::bind(path) {
                    Err(error) if in_use(&error) && tokio::net::UnixStream::connect(path).await.is_err() => {
                        std::fs::remove_file(path)?;
                        UnixListener::bind(path)?
                    }
                    bound => bound?,
                };
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Whether only this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(listener) => listener.local_addr().is_ok_and(|address| address.ip().is_loopback()),
            Self::Unix(..) => false, // no browser reaches it, and no name resolves to it
        }
    }

    /// The base URL that reaches it.
    ///
    /// # Errors
    /// What getsockname(2) said.
    pub fn url(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => format!("http://{}", listener.local_addr()?),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Asks the bridge that listens on `address` whether it takes new sessions. Blocks; for a program that does nothing
/// else, in images that hold no other client.
pub fn is_ready(address: &Address) -> bool {
    fn ask(mut stream: impl Read + Write) -> io::Result<bool> {
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    }
    let asked = match address {
        Address::Tcp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            // A bridge on [::] may have fallen back to IPv4.
            let addresses =
                [SocketAddr::new(ip, address.port()), (Ipv4Addr::LOCALHOST, address.port()).into()];
            let connect = |address| std::net::TcpStream::connect_timeout(address, HEALTH_TIMEOUT);
            addresses.iter().find_map(|address| connect(address).ok()).map(|stream| {
                stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
                ask(stream)
            })
        }
        Address::Unix(path) => std::os::unix::net::UnixStream::connect(path).ok().map(|stream| {
            stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
            ask(stream)
        }),
    };
    matches!(asked, Some(Ok(true)))
}

/// What shows that this process lives in a container, where loopback would be reachable for nobody.
pub fn container_evidence() -> Option<&'static str> {
    if nix::unistd::getpid().as_raw() == 1 {
        return Some("in a container: this is process 1");
    }
    let files = [
        ("/.dockerenv", "in a container: /.dockerenv is there"),
        ("/run/.containerenv", "in a container: /run/.containerenv is there"),
    ];
    if let Some((_, because)) = files.into_iter().find(|(file, _)| std::path::Path::new(file).exists()) {
        return Some(because);
    }
    std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| "in a container: KUBERNETES_SERVICE_HOST is set")
}

/// Serves connections until the signal; those that are there then finish what they are doing.
pub async fn serve(listener: Listener, http: Arc<Http>, mut stop: Watch) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Taken before accept: what we cannot serve waits in the kernel and not in our memory.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stop.signaled() => return,
        };
        let (http, stop) = (Arc::clone(&http), stop.clone());
        match accepted {
            Ok(Accepted::Tcp(stream)) => {
                tune(&stream);
                tokio::spawn(async move {
                    connection(stream, http, stop).await;
                    drop(permit);
                });
            }
            Ok(Accepted::Unix(stream)) => {
                tokio::spawn(async move {
                    connection(stream, http, stop).await;
                    drop(permit);
                });
            }
            // A peer that gave up while it waited (accept(2)).
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                warn!(event = "accept.failed", %error, "out of descriptors or memory; pausing");
                sleep(ACCEPT_PAUSE).await; // without it the loop would burn a whole core
            }
        }
    }
}

enum Accepted {
    Tcp(TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
        Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Without TCP_NODELAY the last piece of an answer waits for the peer's delayed acknowledgement, 40 ms.
fn tune(stream: &TcpStream) {
    let (idle, interval, count) = TCP_KEEPALIVE;
    let set = || -> nix::Result<()> {
        setsockopt(stream, sockopt::TcpNoDelay, &true)?;
        setsockopt(stream, sockopt::KeepAlive, &true)?;
        setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
        setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
        setsockopt(stream, sockopt::TcpKeepCount, &count)?;
        setsockopt(stream, sockopt::TcpUserTimeout, &TCP_USER_TIMEOUT)
    };
    if let Err(error) = set() {
        debug!(event = "conn.setsockopt", %error);
    }
}

async fn connection<S>(mut stream: S, http: Arc<Http>, mut stop: Watch)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sniffed = tokio::select! {
        sniffed = timeout(SNIFF_TIMEOUT, sniff(&mut stream)) => sniffed,
        () = stop.signaled() => return,
    };
    let (is_h2, first) = match sniffed {
        Ok(Ok(sniffed)) => sniffed,
        Ok(Err(_)) => return, // it left without a word
        Err(_) => {
            debug!(event = "conn.timeout", phase = "sniff");
            return;
        }
    };
    let exchanges = Exchanges::default();
    let service = {
        let exchanges = exchanges.clone();
        service_fn(move |request: hyper::Request<Incoming>| {
            let (http, exchange) = (Arc::clone(&http), exchanges.begin());
            async move {
                let response = http.handle(request).await;
                Ok::<_, Infallible>(response.map(|body| Tracked { body, _exchange: exchange }))
            }
        })
    };
    // Only HTTP/1 sends requests one after the other; HTTP/2 has pings instead.
    let head_timeout = (!is_h2).then_some(HEAD_TIMEOUT);
    let io = TokioIo::new(Guarded::new(stream, first, exchanges, head_timeout));
    let served = if is_h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_H2_STREAMS)
            .max_header_list_size(MAX_HEAD as u32 / 2)
            .keep_alive_interval(H2_PING.0)
            .keep_alive_timeout(H2_PING.1)
            .serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            served = &mut connection => served,
            () = stop.signaled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            served = &mut connection => served,
            () = stop.signaled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = served {
        debug!(event = "conn.error", %error);
    }
    drop(stop); // its being alive is what the drain waits for
}

/// Reads until it is clear whether the peer speaks HTTP/2, and returns what was read.
async fn sniff<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(bool, Bytes)> {
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

/// Counts the exchanges of a connection: odd while one is going on, as far as HTTP/1 is concerned.
#[derive(Clone, Debug, Default)]
struct Exchanges(Arc<AtomicUsize>);

impl Exchanges {
    fn begin(&self) -> Exchange {
        self.0.fetch_add(1, Ordering::Relaxed);
        Exchange(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One exchange, from the request's head to the end of the response's body.
#[derive(Debug)]
struct Exchange(Exchanges);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A body that ends its exchange when it is dropped.
#[derive(Debug)]
struct Tracked {
    body: Body,
    _exchange: Exchange,
}

impl HttpBody for Tracked {
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

/// A connection that gives back what was sniffed, and ends when a request head takes too long.
#[derive(Debug)]
struct Guarded<S> {
    stream: S,
    sniffed: Bytes,
    exchanges: Exchanges,
    head_timeout: Option<Duration>,
    /// Runs from the first byte of a head, together with the count of exchanges at that time.
    head: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Guarded<S> {
    fn new(stream: S, sniffed: Bytes, exchanges: Exchanges, head_timeout: Option<Duration>) -> Self {
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
        if this.head.as_ref().is_some_and(|(since, _)| *since != count) {
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
            this.head = Some((count, Box::pin(sleep(limit))));
        }
        if let Some((_, timer)) = &mut this.head
            && read.is_pending()
            && timer.as_mut().poll(context).is_ready()
        {
            debug!(event = "conn.timeout", phase = "head");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        // A peer that always has one more byte is ready each time; the deadline counts all the same.
        if let Some((_, timer)) = &this.head
            && timer.deadline() <= Instant::now()
        {
            debug!(event = "conn.timeout", phase = "head");
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
