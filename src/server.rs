//! From a listener to requests: accepts connections, guards them in time and number, and ends them in order.
//!
//! Three limits that hyper has in one knob, or not at all, are kept apart here: how long a connection may be silent
//! before its first byte, how long a request head may take, and how long a connection may idle between requests. The
//! last one must be longer than a load balancer's own, or the balancer sends a request into a closing connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::drain::Watch;
use crate::http::Http;

mod guarded;
pub mod listener;

use guarded::{Exchanges, Guarded, Tracked, sniff};
use listener::{Accepted, Listener};

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

/// How long accepting pauses when the process is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// When a dead peer is noticed: first probe after 30 s, then every 10 s, three of them; data unacknowledged for 30 s.
const TCP_KEEPALIVE: (u32, u32, u32) = (30, 10, 3);
const TCP_USER_TIMEOUT: u32 = 30_000;

/// Serves connections until the signal; those that are there then finish what they are doing.
pub async fn serve(listener: Listener, config: Config, http: Arc<Http>, mut stop: Watch) {
    let permits = Arc::new(Semaphore::new(config.max_connections));
    loop {
        // Taken before accept: what we cannot serve waits in the kernel and not in our memory.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.signaled() => return,
        };
        let (http, stop) = (Arc::clone(&http), stop.clone());
        match accepted {
            Ok(Accepted::Tcp(stream)) => {
                tune(&stream);
                tokio::spawn(async move {
                    connection(stream, config, http, stop).await;
                    drop(permit);
                });
            }
            Ok(Accepted::Unix(stream)) => {
                tokio::spawn(async move {
                    connection(stream, config, http, stop).await;
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

/// Why a connection over HTTP/2 must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Nobody has asked for anything for too long.
    Idle,
    /// The peer has taken nothing of a response for too long.
    Stuck,
}

/// Waits until a connection over HTTP/2 must end: pings show that its peer is there, and not that it is of use.
/// `idle_timeout`: `None` where it is ending already.
async fn outlived(exchanges: &Exchanges, idle_timeout: Option<Duration>, patience: Duration) -> Over {
    let look = idle_timeout.unwrap_or(patience).min(patience) / 4;
    loop {
        sleep(look).await;
        if exchanges.is_stuck(patience) {
            return Over::Stuck;
        }
        let idle = exchanges.idle_since().map(|since| since.elapsed());
        if idle.zip(idle_timeout).is_some_and(|(idle, limit)| idle >= limit) {
            return Over::Idle;
        }
    }
}

async fn connection<S>(mut stream: S, config: Config, http: Arc<Http>, mut stop: Watch)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sniffed = tokio::select! {
        sniffed = timeout(config.header_timeout, sniff(&mut stream)) => sniffed,
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
            let (http, exchange) = (Arc::clone(&http), exchanges.begin(is_h2));
            async move {
                let response = http.handle(request).await;
                Ok::<_, Infallible>(response.map(|body| Tracked::new(body, exchange)))
            }
        })
    };
    // Only HTTP/1 sends requests one after the other; HTTP/2 has pings instead.
    let head_timeout = (!is_h2).then_some(config.header_timeout);
    let io = TokioIo::new(Guarded::new(stream, first, exchanges.clone(), head_timeout));
    let served = if is_h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_H2_STREAMS)
            .max_header_list_size(MAX_HEAD as u32 / 2)
            .keep_alive_interval(config.header_timeout)
            .keep_alive_timeout(config.header_timeout)
            .serve_connection(io, service);
        tokio::pin!(connection);
        let mut idle_timeout = Some(config.idle_timeout);
        loop {
            tokio::select! {
                served = &mut connection => break served,
                () = stop.signaled(), if idle_timeout.is_some() => {}
                over = outlived(&exchanges, idle_timeout, config.response_timeout) => if over == Over::Stuck {
                    debug!(event = "conn.timeout", phase = "response");
                    return;
                }
            }
            // Once: what is going on may end.
            if idle_timeout.take().is_some() {
                connection.as_mut().graceful_shutdown();
            }
        }
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.idle_timeout)
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
