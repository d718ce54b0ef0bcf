//! Hostile clients over HTTP/2, of single frames (RFC 9113): what no library would let them do.

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_bridge_bench::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::peer::{self, Address, BOTH, PATIENCE, Stream, TURN, claim};
use crate::scene::Scene;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Windows before anybody has said anything (RFC 9113 §6.9.2), and the largest frame (§4.2).
const WINDOW: i64 = 65_535;
const FRAME: usize = 16_384;

/// How long the bridge of a [stuck stream](Attack::StuckStream) waits for a peer that takes nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) enum Attack {
    /// So many calls on one connection, whose answers have so many bytes and may not be sent: no stream has a window.
    UnreadAnswers { calls: usize, bytes: usize },
    /// So many listeners on one connection that ask for all events again and read nothing.
    Resumptions { listeners: usize },
    /// A stream that takes nothing, beside one that does, on one connection.
    StuckStream,
    /// So many connections, each with so many bodies of so many bytes of which the last byte is missing.
    SlowBodies { connections: usize, streams: usize, bytes: usize, in_session: bool },
    /// So many connections, each with so many heads of so many bytes, whose body does not begin.
    Heads { connections: usize, streams: usize, bytes: usize },
}

impl Attack {
    pub(crate) async fn run(&self, scene: &Scene) -> Outcome<String> {
        match *self {
            Self::UnreadAnswers { calls, bytes } => {
                let session = peer::open(&mut scene.address.open().await?, "quiet").await?;
                let mut connection = Connection::open(&scene.address, Some(0)).await?;
                for id in 1..=calls {
                    connection.post(Some(&session), &peer::big(id, bytes)).await?;
                }
                connection.stay(scene.until()).await?;
                Ok(format!("{calls} answers of {bytes} bytes on one connection, none read"))
            }
            Self::Resumptions { listeners } => {
                let session = peer::full_ring(&scene.address).await?;
                let mut connection = Connection::open(&scene.address, None).await?;
                for _ in 0..listeners {
                    let fields = [
                        ("accept", "text/event-stream"),
                        ("mcp-session-id", &session),
                        ("last-event-id", "0-0"),
                    ];
                    connection.head("GET", &fields, true).await?;
                    sleep(TURN).await;
                }
                sleep_until(scene.until()).await;
                Ok(format!(
                    "{listeners} listeners on one connection, each for 380 events of 10 KB, none read"
                ))
            }
            Self::StuckStream => stuck_stream(scene).await,
            Self::SlowBodies { connections, streams, bytes, in_session } => {
                let session = match in_session {
                    true => Some(peer::open(&mut scene.address.open().await?, "quiet").await?),
                    false => None,
                };
                let (mut uploads, until) = (JoinSet::new(), scene.until());
                for _ in 0..connections {
                    let mut connection = Connection::open(&scene.address, None).await?;
                    let session = session.clone();
                    uploads.spawn(async move {
                        let mut left = BTreeMap::new();
                        for _ in 0..streams {
                            let stream = connection.announce(session.as_deref(), bytes + 1).await?;
                            left.insert(stream, bytes);
                        }
                        connection.upload(left, until).await
                    });
                }
                let mut sent = 0;
                while let Some(upload) = uploads.join_next().await {
                    sent += upload??;
                }
                let whose = if in_session { "in one session" } else { "for no session" };
                Ok(format!(
                    "{connections} × {streams} bodies of {bytes} bytes {whose}, {} MiB taken",
                    sent >> 20
                ))
            }
            Self::Heads { connections, streams, bytes } => {
                let (mut open, mut sent) = (Vec::new(), 0);
                let filler = "x".repeat(bytes);
                for _ in 0..connections {
                    let mut connection = Connection::open(&scene.address, None).await?;
                    for _ in 0..streams {
                        let fields = [
                            ("content-type", "application/json"),
                            ("content-length", "9"),
                            ("x-filler", &filler),
                        ];
                        // A bridge may close a connection that asks for too much.
                        sent += usize::from(connection.head("POST", &fields, false).await.is_ok());
                    }
                    open.push(connection);
                }
                sleep_until(scene.until()).await;
                Ok(format!("{connections} × {streams} heads of {bytes} bytes, {sent} sent"))
            }
        }
    }
}

/// The stuck stream must not cost the other one its answer, which comes after the bridge has lost its patience.
async fn stuck_stream(scene: &Scene) -> Outcome<String> {
    let mut client = scene.address.open().await?;
    let (stuck, well) = (peer::open(&mut client, "quiet").await?, peer::open(&mut client, "quiet").await?);
    let mut connection = Connection::open(&scene.address, None).await?;
    let bytes = 200_000;
    connection.post(Some(&stuck), &peer::big(1, bytes)).await?;
    let wait = 2 * BODY_TIMEOUT;
    let slow = peer::call(1, "slow", &format!(r#"{{"ms":{}}}"#, wait.as_millis()));
    let slow = connection.post(Some(&well), &slow).await?;
    let limit = Instant::now() + wait + PATIENCE;
    loop {
        let frame = connection.frame(limit).await.map_err(|error| format!("the well stream: {error}"))?;
        match frame {
            Some(frame) if frame.kind == GOAWAY => return claim(false, "no GOAWAY").map(|()| String::new()),
            Some(frame) if frame.stream == slow && frame.flags & END_STREAM != 0 => break,
            Some(frame) if frame.kind == DATA => connection.give_back(0, frame.length).await?,
            _ => {}
        }
    }
    Ok(format!("{bytes} bytes that one stream does not take; the answer on the other one came"))
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
    payload: Vec<u8>,
}

struct Connection {
    from: ReadHalf<Stream>,
    to: WriteHalf<Stream>,
    next_stream: u32,
    /// What of the next frame has come.
    received: Vec<u8>,
}

impl Connection {
    /// A connection whose client has introduced itself, and lets each stream take so much.
    async fn open(address: &Address, window: Option<u32>) -> Outcome<Self> {
        let (from, to) = tokio::io::split(address.connect_narrow().await?);
        let mut connection = Self { from, to, next_stream: 1, received: Vec::new() };
        let setting =
            window.map(|window| [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat());
        connection.write(PREFACE).await?;
        connection.send(SETTINGS, 0, 0, &setting.unwrap_or_default()).await?;
        Ok(connection)
    }

    async fn write(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(timeout_at(Instant::now() + PATIENCE, self.to.write_all(bytes)).await??)
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Outcome<()> {
        let length = u32::try_from(payload.len())?.to_be_bytes();
        self.write(&[&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()).await
    }

    /// Sends the head of a request, and returns its stream.
    async fn head(&mut self, method: &str, fields: &[(&str, &str)], ends: bool) -> Outcome<u32> {
        let pseudo =
            [(":method", method), (":scheme", "http"), (":path", "/mcp"), (":authority", "127.0.0.1")];
        let block = block(&[&pseudo, fields].concat());
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut frames = block.chunks(FRAME).peekable();
        let (mut kind, mut flags) = (HEADERS, if ends { END_STREAM } else { 0 });
        while let Some(part) = frames.next() {
            flags |= if frames.peek().is_none() { END_HEADERS } else { 0 };
            self.send(kind, flags, stream, part).await?;
            (kind, flags) = (CONTINUATION, 0);
        }
        Ok(stream)
    }

    async fn announce(&mut self, session: Option<&str>, length: usize) -> Outcome<u32> {
        let length = length.to_string();
        let mut fields =
            vec![("content-type", "application/json"), ("accept", BOTH), ("content-length", &*length)];
        fields.extend(session.map(|id| ("mcp-session-id", id)));
        self.head("POST", &fields, false).await
    }

    async fn post(&mut self, session: Option<&str>, body: &str) -> Outcome<u32> {
        let stream = self.announce(session, body.len()).await?;
        self.send(DATA, END_STREAM, stream, body.as_bytes()).await?;
        Ok(stream)
    }

    async fn give_back(&mut self, stream: u32, length: usize) -> Outcome<()> {
        if length == 0 {
            return Ok(());
        }
        self.send(WINDOW_UPDATE, 0, stream, &u32::try_from(length)?.to_be_bytes()).await
    }

    /// The next frame, or nothing if none comes by then. Settings and pings are acknowledged.
    async fn frame(&mut self, until: Instant) -> Outcome<Option<Frame>> {
        loop {
            if let Some(frame) = self.take_frame() {
                if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
                    let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
                    self.send(frame.kind, ACK, 0, payload).await?;
                }
                return Ok(Some(frame));
            }
            match timeout_at(until, self.from.read_buf(&mut self.received)).await {
                Ok(Ok(0)) => return Err("the connection was closed".into()),
                Ok(read) => drop(read?),
                Err(_) => return Ok(None),
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let head = self.received.get(..9)?;
        let length = number(&head[..3]) as usize;
        let (kind, flags, stream) = (head[3], head[4], number(&head[5..]) & 0x7fff_ffff);
        let payload = self.received.get(9..9 + length)?.to_vec();
        self.received.drain(..9 + length);
        Some(Frame { kind, flags, stream, length, payload })
    }

    /// Answers pings, and nothing else, until then.
    async fn stay(&mut self, until: Instant) -> Outcome<()> {
        while self.frame(until).await?.is_some() {}
        Ok(())
    }

    /// Sends as much of these bodies as the windows allow until then, and says how many bytes that was. A bridge may
    /// refuse streams, or the connection.
    async fn upload(&mut self, mut left: BTreeMap<u32, usize>, until: Instant) -> Outcome<usize> {
        let (mut initial, mut connection, mut sent) = (WINDOW, WINDOW, 0);
        // How much more than the initial window each stream has been given, less what it has sent.
        let mut given: BTreeMap<u32, i64> = left.keys().map(|stream| (*stream, 0)).collect();
        let bytes = vec![b' '; FRAME];
        loop {
            for (stream, left) in &mut left {
                let given = given.entry(*stream).or_default();
                loop {
                    let room = (initial + *given).min(connection).max(0) as usize;
                    let length = room.min(*left).min(FRAME);
                    if length == 0 {
                        break;
                    }
                    if self.send(DATA, 0, *stream, &bytes[..length]).await.is_err() {
                        return Ok(sent);
                    }
                    *left -= length;
                    *given -= length as i64;
                    connection -= length as i64;
                    sent += length;
                }
            }
            let Ok(Some(frame)) = self.frame(until).await else { return Ok(sent) };
            match frame.kind {
                WINDOW_UPDATE => {
                    let more = number(&frame.payload) & 0x7fff_ffff;
                    match frame.stream {
                        0 => connection += more,
                        stream => *given.entry(stream).or_default() += more,
                    }
                }
                SETTINGS => {
                    for setting in frame.payload.chunks_exact(6) {
                        if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                            initial = number(&setting[2..]);
                        }
                    }
                }
                HEADERS | RST_STREAM => drop(left.remove(&frame.stream)), // it was refused
                _ => {}
            }
        }
    }
}

fn number(bytes: &[u8]) -> i64 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// A block of headers: literals that are not indexed, with new names, without Huffman (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits (RFC 7541 §5.1).
            match text.len() {
                length @ 0..127 => block.push(length as u8),
                length => {
                    block.push(127);
                    let mut rest = length - 127;
                    while rest >= 128 {
                        block.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    block.push(rest as u8);
                }
            }
            block.extend(text.bytes());
        }
    }
    block
}
