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
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::drain::Watch;

mod deadlines;
mod exchanges;
pub mod listener;
mod sniff;

use deadlines::{Guarded, Limits};
use exchanges::{Exchanges, Expiry, Tracked};
use listener::{Accepted, Listener};
use sniff::{Protocol, sniff};

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
    /// How long an HTTP/2 peer may take nothing of a response. Over HTTP/1 the kernel notices that, see
    /// TCP_USER_TIMEOUT.
    pub response_timeout: Duration,
}

/// The largest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection.
const MAX_H2_STREAMS: u32 = 128;

/// What an HTTP/2 peer may send of bodies that are not read because there is no memory for them: hyper holds it, and the
/// account of bodies counts this much for each that waits. One stream that waits so must not hold up the others of its connection, hence a few times as much
/// for all of them together. In bytes. A client sends no more than a window in a round trip: with this one, a body of
/// 10 MiB takes 8 s where a round trip takes 100 ms.
pub const H2_STREAM_WINDOW: u32 = 128 * 1024;
const H2_CONNECTION_WINDOW: u32 = 512 * 1024;

/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When a dead peer is noticed: first probe after 30 s, then every 10 s, three of them; data unacknowledged for 30 s.
const TCP_KEEPALIVE: (u32, u32, u32) = (30, 10, 3);
const TCP_USER_TIMEOUT: u32 = 30_000;

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
                tokio::spawn(async move {
                    connection(stream, config, service, stop).await;
                    drop(permit);
                });
            }
            Ok(Accepted::Unix(stream)) => {
                tokio::spawn(async move {
                    connection(stream, config, service, stop).await;
                    drop(permit);
                });
            }
            // A peer that gave up while it waited (accept(2)).
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                warn!(event = "accept.failed", %error, "no connection can be accepted, descriptors or memory are lacking");
                sleep(ACCEPT_PAUSE).await; // without it the loop would burn a whole core
            }
        }
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
        debug!(event = "conn.setsockopt", %error, "a socket option cannot be set");
    }
}

async fn connection<C, S, B>(mut stream: C, config: Config, service: S, mut stop: Watch)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
    S: Send + 'static,
    B: Body<Data = Bytes, Error = io::Error> + Unpin + Send + 'static,
{
    let sniffed = tokio::select! {
        sniffed = timeout(config.header_timeout, sniff(&mut stream)) => sniffed,
        () = stop.signaled() => return,
    };
    let (protocol, first) = match sniffed {
        Ok(Ok(sniffed)) => sniffed,
        Ok(Err(_)) => return, // closed before its first byte, or within a preface
        Err(_) => {
            debug!(event = "conn.timeout", phase = "sniff", "a new connection did not send enough in time");
            return;
        }
    };
    let exchanges = Exchanges::new(protocol);
    let limits = match protocol {
        Protocol::Http1 => Some(Limits { head: config.header_timeout, idle: config.idle_timeout }),
        Protocol::Http2 => None,
    };
    let io = TokioIo::new(Guarded::new(stream, first, exchanges.clone(), limits));
    let tracked = {
        let exchanges = exchanges.clone();
        service_fn(move |request| {
            let (exchange, answering) = (exchanges.begin(), service.call(request));
            async move {
                let response = answering.await?;
                Ok::<_, Infallible>(response.map(|body| Tracked::new(body, exchange)))
            }
        })
    };
    let served = match protocol {
        Protocol::Http1 => {
            // hyper's own header timeout would make and drop a timer for each request.
            let connection = http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(MAX_HEAD)
                .serve_connection(io, tracked);
            tokio::pin!(connection);
            tokio::select! {
                served = &mut connection => served,
                () = stop.signaled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_H2_STREAMS)
                .initial_stream_window_size(H2_STREAM_WINDOW)
                .initial_connection_window_size(H2_CONNECTION_WINDOW)
                .max_header_list_size(MAX_HEAD as u32 / 2)
                .keep_alive_interval(config.header_timeout)
                .keep_alive_timeout(config.header_timeout)
                .serve_connection(io, tracked);
            tokio::pin!(connection);
            let mut idle_timeout = Some(config.idle_timeout);
            loop {
                tokio::select! {
                    served = &mut connection => break served,
                    () = stop.signaled(), if idle_timeout.is_some() => {}
                    expiry = exchanges.expiry(idle_timeout, config.response_timeout) => {
                        if expiry == Expiry::Stuck {
                            debug!(event = "conn.timeout", phase = "response", "a peer did not read a response in time");
                            return;
                        }
                    }
                }
                // Once: what is going on may end.
                if idle_timeout.take().is_some() {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    if let Err(error) = served {
        debug!(event = "conn.error", %error, "a connection ended with an error");
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

    #[tokio::test]
    async fn accepting_ends_with_the_signal_while_all_connections_are_taken() {
        let config = Config {
            max_connections: 1,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
        };
        let listener = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
        let url = listener.url().unwrap();
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
        let ended = timeout(Duration::from_secs(10), accepting).await;
        assert!(ended.is_ok(), "it waits for the connection of an exchange that does not end");
        assert!(!draining.is_finished(), "the exchange goes on");
    }
}
