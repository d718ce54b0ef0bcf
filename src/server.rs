//! From a listener to requests: accepts connections, limits their number and their times, and ends them in order. What a
//! request means is up to the service that is passed in.
//!
//! Three limits that hyper has in one knob, or not at all, are kept apart here: how long a connection may be silent
//! before its first byte, how long a request head may take, and how long a connection may idle between requests. The
//! last one must be longer than a load balancer's own, or the balancer sends a request into a closing connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::drain::Watch;
use crate::late;
use crate::log_limit::SharedLogLimit;

mod deadlines;
mod exchanges;
mod half_close;
mod head_end;
mod linger;
pub mod listener;
mod pace;
mod sniff;
mod streams;

use deadlines::{Abort, Guarded, Limits};
use exchanges::{Exchanges, Length, Tracked};
use linger::{Patience, linger};
use listener::{Accepted, Listener};
use pace::{Peer, log_slow};
use sniff::{Protocol, sniff};
use streams::{Expiry, MAX_PIECE, Streams, Watched};

/// What an operator sets.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many connections are served at once; further ones wait in the listen queue.
    pub max_connections: usize,
    /// How long a new connection may say nothing or stop in the middle of an HTTP/2 preface, and then how long the head
    /// of a request may take from its first byte. An HTTP/2 peer that is silent for so long is pinged, and has as long
    /// to answer.
    pub header_timeout: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of a response, or less than a floor rate. Over HTTP/2 this holds for each stream.
    pub response_timeout: Duration,
}

/// The largest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection, and the largest head of one, in bytes, as HPACK counts them (RFC 7541 §4.1).
/// Heads that wait for their bodies lie in memory, for --body-timeout at most.
const MAX_H2_STREAMS: u32 = 128;
const MAX_H2_HEAD: u32 = 32 * 1024;

/// What an HTTP/2 peer may send of bodies that are not read because there is no memory for them: hyper holds it, and the
/// account of bodies counts this much for each that waits. One stream that waits so must not hold up the others of its connection, hence a few times as much
/// for all of them together. In bytes. A client sends no more than a window in a round trip: with this one, a body of
/// 10 MiB takes 8 s where a round trip takes 100 ms.
pub const H2_STREAM_WINDOW: u32 = 128 * 1024;
const H2_CONNECTION_WINDOW: u32 = 512 * 1024;

/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often that is logged.
static NOT_ACCEPTED: SharedLogLimit = SharedLogLimit::new("accept.failed");

/// When a dead peer is noticed: first probe after 30 s, then every 10 s, three of them; data unacknowledged for 30 s.
const TCP_KEEPALIVE: (u32, u32, u32) = (30, 10, 3);
const TCP_USER_TIMEOUT: u32 = 30_000;

/// How much the kernel takes for a peer that does not take it, in bytes beside what is on the way (tcp(7)). By default it
/// is up to 4 MiB (net.ipv4.tcp_wmem), a third of which must be free before more can be written: a slow peer would seem to
/// take nothing for seconds, and all that counts for the container but in no budget.
const TCP_NOTSENT_LOWAT: u32 = 128 * 1024;

/// Serves connections until the signal; those that are there then finish what they are doing.
pub async fn serve<S, B>(listener: Listener, config: Config, service: S, mut stop: Watch)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data = Bytes, Error = io::Error> + Unpin + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(config.max_connections));
    loop {
        // Taken before accept: what cannot be served waits in the kernel and not in this process's memory.
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = stop.signaled() => return,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.signaled() => return,
        };
        let (service, stop) = (service.clone(), stop.clone());
        match accepted {
            Ok(Accepted::Tcp(stream)) => {
                tune(&stream);
                let peer = Peer::Tcp(stream.peer_addr().ok());
                tokio::spawn(async move {
                    connection(stream, peer, config, service, stop).await;
                    drop(permit);
                });
            }
            Ok(Accepted::Unix(stream)) => {
                let peer = Peer::Unix(stream.peer_cred().ok().and_then(|peer| peer.pid()));
                tokio::spawn(async move {
                    connection(stream, peer, config, service, stop).await;
                    drop(permit);
                });
            }
            Err(error) if is_of_one_peer(&error) => {}
            Err(error) => {
                if let Some(count) = NOT_ACCEPTED.take() {
                    let why = "no connection can be accepted for lack of file descriptors or memory";
                    warn!(event = "accept.failed", error = error.to_string(), count, "{why}");
                }
                sleep(ACCEPT_PAUSE).await; // without it the loop would burn a whole core
            }
        }
    }
}

/// Whether accept(2) speaks of the connection that it has taken off the queue, and the next one may be well: its peer
/// gave up while it waited, or the network to it failed.
fn is_of_one_peer(error: &io::Error) -> bool {
    use Errno::{ECONNABORTED, ECONNREFUSED, ECONNRESET, EINTR, EOPNOTSUPP, EPROTO, ETIMEDOUT};
    use Errno::{EHOSTDOWN, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENONET, ENOPROTOOPT};
    error.raw_os_error().is_some_and(|code| {
        matches!(
            Errno::from_raw(code),
            ECONNABORTED
                | ECONNREFUSED
                | ECONNRESET
                | EINTR
                | EOPNOTSUPP
                | EPROTO
                | ETIMEDOUT
                | EHOSTDOWN
                | EHOSTUNREACH
                | ENETDOWN
                | ENETUNREACH
                | ENONET
                | ENOPROTOOPT
        )
    })
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
    let unsent = || socket2::SockRef::from(stream).set_tcp_notsent_lowat(TCP_NOTSENT_LOWAT);
    if let Err(error) = set().map_err(io::Error::from).and_then(|()| unsent()) {
        debug!(event = "conn.setsockopt", error = error.to_string(), "a socket option cannot be set");
    }
}

async fn connection<C, S, B>(mut stream: C, peer: Peer, config: Config, service: S, mut stop: Watch)
where
    C: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
    S: Send + 'static,
    B: Body<Data = Bytes, Error = io::Error> + Unpin + Send + 'static,
{
    let sniffed = tokio::select! {
        sniffed = late::timeout(config.header_timeout, sniff(&mut stream)) => sniffed,
        () = stop.signaled() => return,
    };
    let (protocol, first) = match sniffed {
        Some(Ok(sniffed)) => sniffed,
        Some(Err(_)) => return, // closed before its first byte, or within a preface
        None => {
            debug!(
                event = "conn.timeout",
                phase = "sniff",
                peer = peer.to_string(),
                "a new connection did not send enough in time"
            );
            return;
        }
    };
    let exchanges = Exchanges::new();
    let limits = match protocol {
        Protocol::Http1 => Some(Limits { head: config.header_timeout, idle: config.idle_timeout }),
        Protocol::Http2 => None,
    };
    let patience = config.response_timeout;
    let io = TokioIo::new(Guarded::new(stream, first, exchanges.clone(), peer, limits, patience));
    let served = match protocol {
        Protocol::Http1 => {
            let tracked = service_fn(move |request: Request<Incoming>| {
                let exchange = exchanges.begin(request.body().size_hint().exact());
                let (is_get, is_current) =
                    (request.method() == Method::GET, request.version() == Version::HTTP_11);
                let answering = service.call(request);
                async move {
                    let mut response = answering.await?;
                    if is_current && response.body().size_hint().exact().is_none() {
                        exchange.respond(if is_get { Length::Endless } else { Length::Chunked });
                    }
                    if exchange.lacks_body() {
                        // What is to come of it is not read, so that no other request can follow.
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(response.map(|body| Tracked::new(body, exchange)))
                }
            });
            // hyper's own header timeout would make and drop a timer for each request.
            let mut connection = http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(MAX_HEAD)
                .serve_connection(io, tracked);
            let served = tokio::select! {
                served = &mut connection => served,
                () = stop.signaled() => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            };
            let guarded = connection.into_parts().io.into_inner();
            // hyper answers a head that it does not understand.
            let is_answered = served.as_ref().map_or_else(hyper::Error::is_parse, |()| true);
            if is_answered && guarded.is_sending() {
                let patience = Patience { whole: patience, silence: config.header_timeout };
                linger(&mut guarded.into_stream(), patience, &mut stop).await;
            }
            served
        }
        Protocol::Http2 => {
            let streams = Streams::new(exchanges, peer, patience);
            let watched = service_fn({
                let streams = streams.clone();
                move |request| {
                    let (stream, answering) = (streams.begin(), service.call(request));
                    async move {
                        let response = answering.await?;
                        Ok::<_, Infallible>(response.map(|body| Watched::new(body, stream)))
                    }
                }
            });
            let connection = http2::Builder::new(streams.clone())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_H2_STREAMS)
                .initial_stream_window_size(H2_STREAM_WINDOW)
                .initial_connection_window_size(H2_CONNECTION_WINDOW)
                .max_header_list_size(MAX_H2_HEAD)
                .max_send_buf_size(MAX_PIECE)
                .keep_alive_interval(config.header_timeout)
                .keep_alive_timeout(config.header_timeout)
                .serve_connection(io, watched);
            tokio::pin!(connection);
            let mut ending = false;
            loop {
                // A peer that has been told to leave must only confirm that, and need not be waited for.
                let idle = if ending { config.header_timeout } else { config.idle_timeout };
                let expiry = tokio::select! {
                    served = &mut connection => break served,
                    () = stop.signaled(), if !ending => Expiry::Idle,
                    expiry = streams.expiry(idle) => expiry,
                };
                if expiry == Expiry::Stuck {
                    log_slow(peer, patience, "connection");
                }
                if ending {
                    return;
                }
                // What is going on may end.
                connection.as_mut().graceful_shutdown();
                ending = true;
            }
        }
    };
    if let Err(error) = served {
        debug!(event = "conn.error", error = error.to_string(), "a connection ended with an error");
    }
    drop(stop); // the drain waits until this is dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::drain;
    use http_body_util::{BodyExt, Empty};
    use tokio::io::AsyncWriteExt;
    use tokio::sync::Notify;

    #[test]
    fn only_what_all_connections_lack_makes_accepting_pause() {
        let is_of_one = |code: Errno| is_of_one_peer(&io::Error::from_raw_os_error(code as i32));
        for code in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EPERM] {
            assert!(!is_of_one(code), "{code}: it would fail again at once");
        }
        for code in [Errno::ECONNABORTED, Errno::EPROTO, Errno::EHOSTUNREACH] {
            assert!(is_of_one(code), "{code}");
        }
    }

    #[tokio::test]
    async fn accepting_ends_with_the_signal_while_all_connections_are_taken() {
        let config = Config {
            max_connections: 1,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
        };
        let listener = Listener::bind(&[Address::Tcp(([127, 0, 0, 1], 0).into())], None).await.unwrap();
        let url = listener.urls("").remove(0);
        let called = Arc::new(Notify::new());
        let service = service_fn({
            let called = Arc::clone(&called);
            move |_: Request<Incoming>| {
                called.notify_one();
                async {
                    std::future::pending::<()>().await;
                    Ok(Response::new(Empty::<Bytes>::new().map_err(io::Error::other)))
                }
            }
        });
        let (drain, watch) = drain::channel();
        let accepting = tokio::spawn(serve(listener, config, service, watch));
        let mut client = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        called.notified().await;
        let draining = tokio::spawn(drain.drain());
        let ended = tokio::time::timeout(Duration::from_secs(10), accepting).await;
        assert!(ended.is_ok(), "it waits for the connection of an exchange that does not end");
        assert!(!draining.is_finished(), "the exchange goes on");
    }
}
