//! As much of an HTTP/1.1 client as is needed: one request after the other on one connection.

use std::borrow::Cow;
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;

pub struct Connection<S = TcpStream> {
    stream: S,
    received: Vec<u8>,
}

pub struct Response<'a> {
    pub status: u16,
    pub session: Option<&'a str>,
    /// The JSON, or that of the last event.
    pub body: Cow<'a, [u8]>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, received: Vec::with_capacity(16 * 1024) }
    }

    pub async fn exchange(&mut self, request: &[u8]) -> Outcome<Response<'_>> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let begin = loop {
            self.receive().await?;
            if let Some(end) = memmem::find(&self.received, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let framing = Head::parse(&self.received[..begin])?.framing;
        let chunked = match framing {
            Framing::Length(length) => {
                self.received.reserve((begin + length).saturating_sub(self.received.len()));
                while self.received.len() < begin + length {
                    self.receive().await?;
                }
                None
            }
            Framing::Chunked => loop {
                if let Some(body) = unchunk(&self.received[begin..])? {
                    break Some(body);
                }
                self.receive().await?;
            },
        };
        let head = Head::parse(&self.received[..begin])?;
        let body = match chunked {
            Some(body) => Cow::Owned(body),
            None => Cow::Borrowed(&self.received[begin..]),
        };
        let body = if head.is_event_stream { Cow::Owned(last_event(&body)?) } else { body };
        Ok(Response { status: head.status, session: head.session, body })
    }

    async fn receive(&mut self) -> Outcome<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err("the connection was closed".into()),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

struct Head<'a> {
    status: u16,
    framing: Framing,
    session: Option<&'a str>,
    is_event_stream: bool,
}

impl<'a> Head<'a> {
    fn parse(text: &'a [u8]) -> Outcome<Self> {
        let mut lines = str::from_utf8(text)?.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status line")?.parse()?;
        let mut head = Self { status, framing: Framing::Length(0), session: None, is_event_stream: false };
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("content-length") {
                head.framing = Framing::Length(value.parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("mcp-session-id") {
                head.session = Some(value);
            } else if name.eq_ignore_ascii_case("content-type") {
                head.is_event_stream = value.starts_with("text/event-stream");
            }
        }
        Ok(head)
    }
}

/// The body without its framing, if all of it is there.
fn unchunk(mut rest: &[u8]) -> Outcome<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(end) = memmem::find(rest, b"\r\n") {
        let length = usize::from_str_radix(str::from_utf8(&rest[..end])?, 16)?;
        let Some(chunk) = rest.get(end + 2..end + 2 + length + 2) else { break };
        if length == 0 {
            return Ok(Some(body));
        }
        body.extend_from_slice(&chunk[..length]);
        rest = &rest[end + 2 + length + 2..];
    }
    Ok(None)
}

fn last_event(stream: &[u8]) -> Outcome<Vec<u8>> {
    let begin = memmem::rfind(stream, b"data: ").ok_or("an event stream without an event")? + 6;
    let event = stream[begin..].split(|&byte| byte == b'\n').next();
    Ok(event.unwrap_or_default().to_vec())
}
