//! Clients of a bridge, good and bad: where it listens, what is said to it, and sessions.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mcp_bridge_bench::http::Connection;
use mcp_bridge_bench::message::{INITIALIZE, INITIALIZED, VERSION};
use mcp_bridge_bench::{Failure, Outcome};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::{sleep, timeout};

/// How long anything that must come is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const BOTH: &str = "application/json, text/event-stream";
pub(crate) const JSON: &str = "application/json";

/// The receive buffer of a client that shall hold as little as possible, in bytes; the kernel has a least of its own
/// (`SO_RCVBUF` in socket(7)).
const NARROW: u32 = 4096;

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub(crate) type Stream = Box<dyn Io>;

/// Where the bridge listens.
#[derive(Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    pub(crate) async fn connect(&self) -> Outcome<Stream> {
        self.connect_with(None).await
    }

    /// A connection of a client that does not mean to read much.
    pub(crate) async fn connect_narrow(&self) -> Outcome<Stream> {
        self.connect_with(Some(NARROW)).await
    }

    async fn connect_with(&self, buffer: Option<u32>) -> Outcome<Stream> {
        match self {
            Self::Tcp(address) => {
                let socket = TcpSocket::new_v4()?;
                if let Some(bytes) = buffer {
                    socket.set_recv_buffer_size(bytes)?;
                }
                let stream = socket.connect(*address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }

    pub(crate) async fn open(&self) -> Outcome<Connection<Stream>> {
        Ok(Connection::over(self.connect().await?))
    }

    /// Opens a connection, sends this and reads nothing.
    pub(crate) async fn send_unread(&self, request: &[u8]) -> Outcome<Stream> {
        let mut stream = self.connect_narrow().await?;
        timeout(PATIENCE, stream.write_all(request)).await??;
        Ok(stream)
    }
}

/// A POST to the endpoint.
pub(crate) fn post(session: Option<&str>, accept: &str, body: &str) -> Vec<u8> {
    let session = session.map_or(String::new(), |id| format!("Mcp-Session-Id: {id}\r\n"));
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: {accept}\r\n\
         {session}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A POST as of the transport of 2024-11-05, to the path that its stream has named.
pub(crate) fn post_to(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The `initialize` of a session whose child behaves as `mode` says.
pub(crate) fn initialize(mode: &str, version: &str) -> String {
    INITIALIZE.replace(r#""bench""#, &format!("\"{mode}\"")).replace(VERSION, version)
}

/// The head of a POST that announces so many bytes of body.
pub(crate) fn announce(session: Option<&str>, length: usize) -> Vec<u8> {
    let head = String::from_utf8_lossy(&post(session, BOTH, "")).into_owned();
    head.replace("Content-Length: 0", &format!("Content-Length: {length}")).into_bytes()
}

/// A GET that listens, from the beginning of the stream on if it is to be replayed.
pub(crate) fn listen(session: &str, replay: bool) -> Vec<u8> {
    let last = if replay { "Last-Event-ID: 0-0\r\n" } else { "" };
    format!(
        "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nMcp-Session-Id: {session}\r\n{last}\r\n"
    )
    .into_bytes()
}

pub(crate) fn call(id: usize, tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    )
}

/// A call whose answer has so many bytes.
pub(crate) fn big(id: usize, bytes: usize) -> String {
    call(id, "big", &format!(r#"{{"bytes":{bytes}}}"#))
}

/// Opens a session whose child behaves as `mode` says, in the current revision.
pub(crate) async fn open(connection: &mut Connection<Stream>, mode: &str) -> Outcome<String> {
    open_as(connection, mode, VERSION).await
}

pub(crate) async fn open_as(
    connection: &mut Connection<Stream>,
    mode: &str,
    version: &str,
) -> Outcome<String> {
    let initialize = initialize(mode, version);
    let response = timeout(PATIENCE, connection.exchange(&post(None, BOTH, &initialize))).await??;
    let (200, Some(id)) = (response.status, response.session) else {
        return Err(refused("initialize", response.status, &response.body));
    };
    let id = id.to_owned();
    let response = timeout(PATIENCE, connection.exchange(&post(Some(&id), BOTH, INITIALIZED))).await??;
    match response.status {
        202 => Ok(id),
        status => Err(refused("notifications/initialized", status, &response.body)),
    }
}

/// How long after each other listeners come that take over from each other: each shall have begun.
pub(crate) const TURN: Duration = Duration::from_millis(5);

/// A session that keeps 380 events of 10 KB, nearly as much as it may by default.
pub(crate) async fn full_ring(address: &Address) -> Outcome<String> {
    let session = open(&mut address.open().await?, "notes 380 10000").await?;
    // A call that asked whether they are there would get them.
    sleep(Duration::from_millis(500)).await;
    Ok(session)
}

/// One call that must be answered with 200, whatever the answer says.
pub(crate) async fn answered(connection: &mut Connection<Stream>, request: &[u8]) -> Outcome<usize> {
    let response = timeout(PATIENCE, connection.exchange(request)).await.map_err(|_| "no answer came")??;
    match response.status {
        200 => Ok(response.body.len()),
        status => Err(refused("a call", status, &response.body)),
    }
}

pub(crate) fn refused(what: &str, status: u16, body: &[u8]) -> Failure {
    let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
    format!("{what} got status {status}: {body}").into()
}

/// What a case says of itself must be true, or its numbers are about something else.
pub(crate) fn claim(holds: bool, what: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(format!("not true: {what}").into()) }
}
