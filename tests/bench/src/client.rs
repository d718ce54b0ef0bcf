//! Clients over HTTP: of a bridge, with sessions, and of the floor, which has none.

use std::net::SocketAddr;
use std::time::Instant;

use crate::http::Connection;
use crate::message::{self, Numbers, Template};
use crate::stdio::check;
use crate::window::{self, Latencies, Window};
use crate::{Failure, Outcome};

/// A session with a bridge, by its id.
#[derive(Clone)]
pub(crate) struct Session(Option<String>);

impl Session {
    /// What stands for a session where there is none: a head of the usual length.
    pub(crate) fn none() -> Self {
        Self(Some("0".repeat(32)))
    }

    /// A client of 2026-07-28 has none.
    pub(crate) fn modern() -> Self {
        Self(None)
    }

    pub(crate) async fn open(connection: &mut Connection) -> Outcome<Self> {
        let response = connection.exchange(post(None, message::INITIALIZE).as_bytes()).await?;
        let session = match (response.status, response.session) {
            (200, Some(id)) => Self(Some(id.to_owned())),
            (status, _) => return Err(unexpected("initialize", status, &response.body)),
        };
        let request = post(Some(&session), message::INITIALIZED);
        let response = connection.exchange(request.as_bytes()).await?;
        match response.status {
            202 => Ok(session),
            status => Err(unexpected("notifications/initialized", status, &response.body)),
        }
    }

    async fn close(self, connection: &mut Connection) -> Outcome<()> {
        let request = format!(
            "DELETE /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nMcp-Session-Id: {}\r\nMCP-Protocol-Version: {}\r\n\r\n",
            self.0.unwrap_or_default(),
            message::VERSION
        );
        let response = connection.exchange(request.as_bytes()).await?;
        match response.status {
            200 | 204 => Ok(()),
            status => Err(unexpected("DELETE", status, &response.body)),
        }
    }
}

fn post(session: Option<&Session>, body: &str) -> String {
    let session = match session {
        Some(Session(Some(id))) => {
            format!("Mcp-Session-Id: {id}\r\nMCP-Protocol-Version: {}\r\n", message::VERSION)
        }
        Some(Session(None)) => format!(
            "MCP-Protocol-Version: {}\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n",
            message::MODERN
        ),
        None => String::new(),
    };
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\n{session}Content-Length: {length}\r\n\r\n{body}"
    )
}

fn unexpected(what: &str, status: u16, body: &[u8]) -> Failure {
    format!("{what} got status {status}: {}", String::from_utf8_lossy(body)).into()
}

/// One caller of a session, on a connection of its own.
pub(crate) struct Caller {
    connection: Connection,
    numbers: Numbers,
    call: Template,
    answer: Template,
    /// How many calls are measured as one.
    calls_per_sample: usize,
}

impl Caller {
    pub(crate) async fn connect(
        address: SocketAddr,
        session: &Session,
        numbers: Numbers,
        text_length: usize,
        calls_per_sample: usize,
    ) -> Outcome<Self> {
        let (call, answer) = match session {
            Session(Some(_)) => (message::call(text_length), message::answer(text_length)),
            Session(None) => (message::modern_call(text_length), message::modern_answer(text_length)),
        };
        Ok(Self {
            connection: Connection::open(address).await?,
            numbers,
            call: Template::new(post(Some(session), &call)),
            answer: Template::new(answer),
            calls_per_sample,
        })
    }

    async fn call(&mut self) -> Outcome<()> {
        let number = self.numbers.another();
        exchange(&mut self.connection, self.call.with(number), self.answer.with(number)).await
    }
}

impl window::Caller for Caller {
    async fn work(&mut self, window: &Window) -> Outcome<Latencies> {
        let mut latencies = Latencies::default();
        while !window.is_over() {
            let begin = Instant::now();
            for _ in 0..self.calls_per_sample {
                self.call().await?;
            }
            latencies.add(begin.elapsed(), window);
        }
        Ok(latencies)
    }
}

/// Opens sessions one after the other, each for one call, and deletes them.
pub(crate) struct Churn {
    connection: Connection,
    numbers: Numbers,
    text_length: usize,
}

impl Churn {
    /// How many requests a session takes from its beginning to its end.
    pub(crate) const REQUESTS: usize = 4;

    pub(crate) async fn connect(address: SocketAddr, numbers: Numbers, text_length: usize) -> Outcome<Self> {
        Ok(Self { connection: Connection::open(address).await?, numbers, text_length })
    }
}

impl window::Caller for Churn {
    async fn work(&mut self, window: &Window) -> Outcome<Latencies> {
        let mut latencies = Latencies::default();
        while !window.is_over() {
            let begin = Instant::now();
            let number = self.numbers.another();
            let session = begin_session(&mut self.connection, number, self.text_length).await?;
            session.close(&mut self.connection).await?;
            latencies.add(begin.elapsed(), window);
        }
        Ok(latencies)
    }
}

/// Opens a session, and makes one call in it.
pub(crate) async fn begin_session(
    connection: &mut Connection,
    number: u32,
    text_length: usize,
) -> Outcome<Session> {
    let session = Session::open(connection).await?;
    let mut call = Template::new(post(Some(&session), &message::call(text_length)));
    let mut answer = Template::new(message::answer(text_length));
    exchange(connection, call.with(number), answer.with(number)).await?;
    Ok(session)
}

/// One call, whose answer is checked.
async fn exchange(connection: &mut Connection, call: &[u8], answer: &[u8]) -> Outcome<()> {
    let response = connection.exchange(call).await?;
    match response.status {
        200 => check(&response.body, answer),
        status => Err(unexpected("a call", status, &response.body)),
    }
}
