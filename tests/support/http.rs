//! An HTTP/1.1 client that hides nothing: every byte it sends was given by the test, every byte that arrives is kept.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;

pub const BOTH: &str = "application/json, text/event-stream";

// ---------------------------------------------------------------------------------------------- request

#[derive(Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Request { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A POST as clients send it.
    pub fn post(path: &str, body: impl AsRef<[u8]>) -> Self {
        let mut request =
            Self::new("POST", path).header("Content-Type", "application/json").header("Accept", BOTH);
        request.body = body.as_ref().to_vec();
        let length = request.body.len();
        request.header("Content-Length", &length.to_string())
    }

    /// A GET that asks for a stream.
    pub fn listen(path: &str) -> Self {
        Self::new("GET", path).header("Accept", "text/event-stream")
    }

    /// Adds a header; a name may come twice.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Takes a header away.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Gives a header another value.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.without(name).header(name, value)
    }

    pub fn to_bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    #[track_caller]
    pub fn send(self, address: SocketAddr) -> Response {
        let mut connection = Connection::open(address);
        connection.write(&self.to_bytes(&address.to_string()));
        connection.response()
    }
}

// ---------------------------------------------------------------------------------------------- connection

/// The half of a socket that tests need. Tests of the unix socket use the same client.
pub trait Socket: Read + Write + Send {
    fn read_timeout(&self, limit: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn read_timeout(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }
}

impl Socket for UnixStream {
    fn read_timeout(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))
    }
}

pub struct Connection {
    socket: BufReader<Box<dyn Socket>>,
}

impl Connection {
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the bridge accepts connections");
        socket.set_nodelay(true).unwrap();
        Self::over(Box::new(socket))
    }

    pub fn over(socket: Box<dyn Socket>) -> Self {
        socket.read_timeout(PATIENCE).unwrap();
        Connection { socket: BufReader::new(socket) }
    }

    /// Writes raw bytes. That the other side has closed is for the reader to find out.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.get_mut().write_all(bytes);
    }

    /// Reads the head of the next response.
    #[track_caller]
    pub fn response(self) -> Response {
        self.try_response().expect("a response")
    }

    #[track_caller]
    pub fn try_response(mut self) -> Option<Response> {
        let (status, headers) = loop {
            let line = self.line()?;
            let status: u16 = line.split(' ').nth(1).and_then(|code| code.parse().ok())?;
            let mut headers = Vec::new();
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').expect("a header has a colon");
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            if status != 100 {
                break (status, headers);
            }
        };
        let find =
            |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let framing = match (find("transfer-encoding"), find("content-length")) {
            (Some(_), _) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().expect("a length")),
            _ if matches!(status, 202 | 204 | 304) => Framing::Length(0),
            _ => Framing::UntilClose,
        };
        Some(Response {
            connection: self,
            status,
            headers,
            framing,
            pending: Vec::new(),
            comments: Vec::new(),
        })
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.socket.read_until(b'\n', &mut line) {
            Ok(1..) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Err(error) if is_timeout(&error) => panic!("nothing came for {PATIENCE:?}"),
            _ => None,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

// ---------------------------------------------------------------------------------------------- response

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    Ended,
}

/// A response whose head has arrived; its body is read as it comes.
pub struct Response {
    connection: Connection,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    framing: Framing,
    pending: Vec<u8>,
    /// Comments of the stream so far, without the colon.
    pub comments: Vec<String>,
}

/// One event of a stream. `raw` are its bytes without the blank line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<String>,
    pub raw: String,
}

impl Event {
    #[track_caller]
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().expect("an event with data");
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data:?}"))
    }
}

impl Response {
    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// Panics with the body if the status is another one.
    #[track_caller]
    pub fn expect(&mut self, status: u16, claim: &str) {
        let got = self.status;
        assert!(got == status, "{claim}: status {got} instead of {status}: {}", self.text());
    }

    pub fn is_sse(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The next piece of the body, `None` at its proper end. A body that is cut short is a failed test.
    #[track_caller]
    fn piece(&mut self) -> Option<Vec<u8>> {
        self.try_piece().unwrap_or_else(|error| panic!("the body is not cut short: {error}"))
    }

    fn try_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let socket = &mut self.connection.socket;
        let wanted = match self.framing {
            Framing::Ended | Framing::Length(0) => return Ok(None),
            Framing::Length(left) => left,
            Framing::UntilClose => usize::MAX,
            Framing::Chunked => {
                let size = self.connection.line().ok_or_else(cut)?;
                let size = size.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).map_err(|_| cut())?;
                let mut chunk = vec![0; size + 2];
                self.connection.socket.read_exact(&mut chunk)?;
                chunk.truncate(size);
                if size == 0 {
                    self.framing = Framing::Ended;
                    return Ok(None);
                }
                return Ok(Some(chunk));
            }
        };
        let buffer = socket.fill_buf()?;
        let piece = buffer[..buffer.len().min(wanted)].to_vec();
        socket.consume(piece.len());
        match &mut self.framing {
            Framing::Length(_) if piece.is_empty() => return Err(cut()),
            Framing::Length(left) => *left -= piece.len(),
            _ if piece.is_empty() => self.framing = Framing::Ended,
            _ => {}
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// The next piece of the body, as it came; `None` at its proper end.
    #[track_caller]
    pub fn next_piece(&mut self) -> Option<Vec<u8>> {
        self.piece()
    }

    /// The rest of a body that may break off.
    ///
    /// # Errors
    /// Where it does.
    pub fn try_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.pending);
        while let Some(piece) = self.try_piece()? {
            bytes.extend(piece);
        }
        Ok(bytes)
    }

    /// The rest of the body.
    #[track_caller]
    pub fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.pending);
        let deadline = Instant::now() + PATIENCE;
        while let Some(piece) = self.piece() {
            assert!(Instant::now() < deadline, "the body does not end, only comments come");
            bytes.extend(piece);
        }
        bytes
    }

    #[track_caller]
    pub fn text(&mut self) -> String {
        String::from_utf8(self.bytes()).expect("the body is UTF-8")
    }

    #[track_caller]
    pub fn json(&mut self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The next event of a stream; comments go to `comments`. `None` at the proper end of the stream.
    #[track_caller]
    pub fn event(&mut self) -> Option<Event> {
        self.try_event().unwrap_or_else(|error| panic!("the body is not cut short: {error}"))
    }

    /// As [`event`](Self::event), for a stream that may break off.
    ///
    /// # Errors
    /// How it broke off.
    #[track_caller]
    pub fn try_event(&mut self) -> io::Result<Option<Event>> {
        let deadline = Instant::now() + PATIENCE;
        let mut searched = 0; // a long event comes in many pieces
        loop {
            while let Some(end) = self.pending[searched..].windows(2).position(|window| window == b"\n\n") {
                let block: Vec<u8> = self.pending.drain(..searched + end + 2).collect();
                searched = 0;
                let block = String::from_utf8(block).expect("a stream is UTF-8");
                if let Some(event) = self.parse(block.trim_end_matches('\n')) {
                    return Ok(Some(event));
                }
            }
            searched = self.pending.len().saturating_sub(1);
            assert!(Instant::now() < deadline, "only comments come");
            match self.try_piece()? {
                Some(piece) => self.pending.extend(piece),
                None => {
                    assert!(self.pending.iter().all(|byte| *byte == b'\n'), "the last event is complete");
                    return Ok(None);
                }
            }
        }
    }

    fn parse(&mut self, block: &str) -> Option<Event> {
        assert!(!block.contains('\r'), "a carriage return would end a line of the stream: {block:?}");
        let mut event = Event { raw: block.to_owned(), ..Event::default() };
        for line in block.split('\n') {
            let (field, value) =
                line.split_once(':').unwrap_or_else(|| panic!("a field has a colon: {line:?}"));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => self.comments.push(value),
                "id" => event.id = Some(value),
                "event" => event.event = Some(value),
                "retry" => event.retry = Some(value),
                "data" => {
                    assert!(event.data.is_none(), "one data line per event: {block:?}");
                    event.data = Some(value);
                }
                _ => panic!("only known fields: {block:?}"),
            }
        }
        (event.data.is_some() || event.id.is_some() || event.retry.is_some()).then_some(event)
    }

    /// The next message of a stream.
    #[track_caller]
    pub fn message(&mut self) -> Value {
        self.event().expect("one more message before the end of the stream").json()
    }

    /// All messages up to the end of the body, in either form.
    #[track_caller]
    pub fn messages(&mut self) -> Vec<Value> {
        if !self.is_sse() {
            return vec![self.json()];
        }
        let mut messages = Vec::new();
        while let Some(event) = self.event() {
            if event.data.as_deref().is_some_and(|data| !data.is_empty()) {
                messages.push(event.json());
            }
        }
        messages
    }

    /// The answer to a request, in either form. It must be the last message, and the only one that is a response.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        let mut messages = self.messages();
        let answer = messages.pop().expect("an answer before the end of the body");
        assert!(answer.get("method").is_none(), "the last message of the body is the answer: {answer}");
        assert!(
            messages.iter().all(|message| message.get("method").is_some()),
            "one answer only: {messages:?}"
        );
        answer
    }

    /// Reads until so many comments have come. No event may come before.
    #[track_caller]
    pub fn wait_for_comments(&mut self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.comments.len() < count {
            assert!(Instant::now() < deadline, "{count} comments come");
            let piece = self.piece().expect("the stream goes on");
            self.pending.extend(piece);
            while let Some(end) = self.pending.windows(2).position(|window| window == b"\n\n") {
                let block: Vec<u8> = self.pending.drain(..end + 2).collect();
                let block = String::from_utf8(block).expect("a stream is UTF-8");
                assert_eq!(self.parse(block.trim_end_matches('\n')), None, "only comments come");
            }
        }
    }

    /// Whether nothing but comments arrives for a while.
    #[track_caller]
    pub fn is_silent_for(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self.pending.windows(2).any(|window| window == b"\n\n") && !self.pending.starts_with(b":") {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.connection.socket.get_ref().read_timeout(left).unwrap();
            let more = self.connection.socket.fill_buf().map(|bytes| bytes.len());
            self.connection.socket.get_ref().read_timeout(PATIENCE).unwrap();
            match more {
                Err(error) if is_timeout(&error) => return true,
                Ok(1..) => {
                    if let Some(piece) = self.piece() {
                        let is_comment = piece.starts_with(b":");
                        self.pending.extend(piece);
                        if !is_comment {
                            return false;
                        }
                    }
                }
                _ => return false,
            }
        }
    }

    /// The connection below, for the next request on it. The body must have been read.
    pub fn into_connection(self) -> Connection {
        self.connection
    }
}
