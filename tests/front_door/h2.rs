//! An HTTP/2 client of single frames (RFC 9113), with prior knowledge: it can say what no library would let it say.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const ENHANCE_YOUR_CALM: u32 = 11;
pub const CANCEL: u32 = 8;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The bytes of a frame.
    pub fn bytes(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// That the client gives up a stream.
    pub fn cancel(stream: u32) -> Vec<u8> {
        Self::bytes(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
    }

    /// The error code of a RST_STREAM.
    pub fn reset_error(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    /// The error code of a GOAWAY.
    pub fn error(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }

    /// By how much a WINDOW_UPDATE opens its window.
    pub fn increment(&self) -> usize {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap()) as usize
    }

    /// The status in a block of headers; the first field is `:status`, of the static table or with its name from there
    /// (RFC 7541 §6.1, §6.2, appendix A).
    pub fn status(&self) -> u16 {
        match self.payload[0] {
            indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            0x08 | 0x18 | 0x48 if self.payload[1] & 0x80 == 0 => {
                String::from_utf8_lossy(&self.payload[2..5]).parse().expect("three digits")
            }
            0x08 | 0x18 | 0x48 => digits(&self.payload[2..]),
            other => panic!("{other:#x}: a status that this connection has had before"),
        }
    }
}

/// Three digits in Huffman's code: 0, 1 and 2 have five bits, the others six (RFC 7541, appendix B).
fn digits(code: &[u8]) -> u16 {
    let bits: u32 = code.iter().take(3).fold(0, |bits, byte| bits << 8 | u32::from(*byte));
    let (mut at, mut number) = (24, 0);
    for _ in 0..3 {
        let five = bits >> (at - 5) & 0x1f;
        let digit = if five <= 2 { five } else { (bits >> (at - 6) & 0x3f) - 0x19 + 3 };
        at -= if five <= 2 { 5 } else { 6 };
        number = number * 10 + u16::try_from(digit).unwrap();
    }
    number
}

/// A block of headers: literals that are not indexed, with new names, without Huffman (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
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

pub struct Http2 {
    socket: TcpStream,
    authority: String,
    next_stream: u32,
}

impl Http2 {
    /// A connection whose client has introduced itself.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the bridge accepts connections");
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Http2 { socket, authority: address.to_string(), next_stream: 1 };
        client.write(&[PREFACE, &Frame::bytes(SETTINGS, 0, 0, &[])].concat());
        client
    }

    pub fn patience(&self, limit: Duration) {
        self.socket.set_read_timeout(Some(limit)).unwrap();
    }

    /// Writes raw bytes; whether the other side still took them.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&Frame::bytes(kind, flags, stream, payload))
    }

    pub fn new_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    /// The block of a request's headers.
    pub fn head(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let pseudo =
            [(":method", method), (":scheme", "http"), (":path", path), (":authority", &self.authority)];
        block(&[&pseudo, fields].concat())
    }

    /// Sends a request, with a body or without, and returns its stream.
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: Option<&[u8]>) -> u32 {
        let (stream, head) = (self.new_stream(), self.head(method, path, fields));
        self.send(HEADERS, END_HEADERS | if body.is_none() { END_STREAM } else { 0 }, stream, &head);
        if let Some(body) = body {
            self.send(DATA, END_STREAM, stream, body);
        }
        stream
    }

    /// The next frame, as it came: nothing is acknowledged. `None` at the end of the connection.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.socket.read_exact(&mut head) {
            assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "no frame came");
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.socket.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], flags: head[4], stream: number(&head[5..]) & 0x7fff_ffff, payload })
    }

    /// As [`frame`](Self::frame), by a client that behaves: settings and pings are acknowledged, and what was read may
    /// be sent again.
    #[track_caller]
    pub fn polite_frame(&mut self) -> Option<Frame> {
        let frame = self.frame()?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                self.send(SETTINGS, ACK, 0, &[]);
            }
            PING if frame.flags & ACK == 0 => {
                self.send(PING, ACK, 0, &frame.payload);
            }
            DATA if !frame.payload.is_empty() => {
                let length = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                self.send(WINDOW_UPDATE, 0, 0, &length);
                if frame.flags & END_STREAM == 0 {
                    self.send(WINDOW_UPDATE, 0, frame.stream, &length);
                }
            }
            _ => {}
        }
        Some(frame)
    }

    /// As [`polite_frame`](Self::polite_frame), but for a stream of which nothing is taken.
    #[track_caller]
    pub fn frame_but_for(&mut self, stuck: &[u32]) -> Option<Frame> {
        let frame = self.frame()?;
        let length = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
            PING if frame.flags & ACK == 0 => self.send(PING, ACK, 0, &frame.payload),
            DATA if !frame.payload.is_empty()
                && frame.flags & END_STREAM == 0
                && !stuck.contains(&frame.stream) =>
            {
                self.send(WINDOW_UPDATE, 0, frame.stream, &length)
            }
            _ => true,
        };
        Some(frame)
    }

    /// Does nothing for a while but what a client must that behaves.
    #[track_caller]
    pub fn stay(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.patience(left);
            let there = self.socket.peek(&mut [0]);
            self.patience(PATIENCE);
            if there.is_ok() {
                self.polite_frame().expect("the connection goes on");
            }
        }
    }

    /// The whole answer on a stream, politely read: its status and its body.
    #[track_caller]
    pub fn answer(&mut self, stream: u32) -> (u16, String) {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let frame = self.polite_frame().expect("the answer comes before the end of the connection");
            assert_ne!(frame.kind, GOAWAY, "the connection goes on");
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS => status = frame.status(),
                DATA => body.extend(&frame.payload),
                RST_STREAM => return (status, String::from_utf8(body).unwrap()),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return (status, String::from_utf8(body).unwrap());
            }
        }
    }

    /// Reads all frames to the end of the connection beside what the test goes on writing: a peer that cannot write
    /// does not read either.
    pub fn drain(&self) -> Drain {
        let socket = self.socket.try_clone().unwrap();
        let mut reader = Http2 { socket, authority: String::new(), next_stream: 0 };
        let frames = Arc::<Mutex<Vec<Frame>>>::default();
        let read = Arc::clone(&frames);
        let thread = thread::spawn(move || {
            while let Some(frame) = reader.frame() {
                read.lock().unwrap().push(frame);
            }
        });
        Drain { frames, thread }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// What has come on a connection.
pub struct Drain {
    frames: Arc<Mutex<Vec<Frame>>>,
    thread: JoinHandle<()>,
}

impl Drain {
    /// How many such frames have come so far.
    pub fn count(&self, wanted: impl Fn(&Frame) -> bool) -> usize {
        self.frames.lock().unwrap().iter().filter(|frame| wanted(frame)).count()
    }

    /// The first such frame that has come.
    pub fn find(&self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        self.frames.lock().unwrap().iter().find(|frame| wanted(frame)).cloned()
    }

    /// Waits for the end of the connection and returns all.
    #[track_caller]
    pub fn join(self) -> Vec<Frame> {
        self.thread.join().expect("the connection ends");
        std::mem::take(&mut self.frames.lock().unwrap())
    }
}
