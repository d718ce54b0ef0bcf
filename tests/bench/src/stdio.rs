//! The echo server driven directly over its pipes, without HTTP and without a bridge: the limit.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::Outcome;
use crate::message::{self, Numbers, Template};
use crate::programs::program;
use crate::window::{self, Latencies, Window};

pub(crate) struct Server {
    process: Child,
    stdin: pipe::Sender,
    output: Output,
}

/// What comes out of a server, line by line.
struct Output {
    stdout: pipe::Receiver,
    received: Vec<u8>,
    /// Where the line begins that comes next, and how far its end was looked for.
    begin: usize,
    searched: usize,
}

impl Server {
    pub(crate) async fn open() -> Outcome<Self> {
        let mut process =
            Command::new(program("echo")?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = OwnedFd::from(process.stdin.take().ok_or("no stdin")?);
        let stdout = OwnedFd::from(process.stdout.take().ok_or("no stdout")?);
        let output = Output {
            stdout: pipe::Receiver::from_owned_fd(stdout)?,
            received: Vec::new(),
            begin: 0,
            searched: 0,
        };
        let mut server = Self { process, stdin: pipe::Sender::from_owned_fd(stdin)?, output };
        server.write(&format!("{}\n", message::INITIALIZE)).await?;
        server.output.line().await?;
        server.write(&format!("{}\n", message::INITIALIZED)).await?;
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    async fn write(&mut self, text: &str) -> io::Result<()> {
        self.stdin.write_all(text.as_bytes()).await
    }

    /// Ends it as a bridge does.
    async fn close(self) -> Outcome<()> {
        let Self { mut process, stdin, mut output } = self;
        drop(stdin);
        if output.receive().await? > 0 {
            return Err("the echo server said something that it was not asked for".into());
        }
        match process.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("the echo server ended with {status}").into()),
        }
    }
}

impl Output {
    async fn receive(&mut self) -> io::Result<usize> {
        self.received.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        self.stdout.read_buf(&mut self.received).await
    }

    /// The next line, if it is there.
    fn next(&mut self) -> Option<&[u8]> {
        let Some(at) = memchr(b'\n', &self.received[self.searched..]) else {
            self.searched = self.received.len();
            return None;
        };
        let line = self.begin..self.searched + at;
        self.begin = line.end + 1;
        self.searched = self.begin;
        Some(&self.received[line])
    }

    async fn line(&mut self) -> Outcome<&[u8]> {
        while memchr(b'\n', &self.received[self.begin..]).is_none() {
            if self.receive().await? == 0 {
                return Err("the echo server has ended".into());
            }
        }
        self.next().ok_or_else(|| "no line".into())
    }
}

/// Keeps calls in flight with one server.
pub(crate) struct Caller {
    server: Server,
    in_flight: usize,
    numbers: Numbers,
    call: Template,
    answer: Template,
}

impl Caller {
    pub(crate) fn new(server: Server, in_flight: usize, numbers: Numbers, text_length: usize) -> Self {
        let call = Template::new(message::call(text_length) + "\n");
        let answer = Template::new(message::answer(text_length));
        Self { server, in_flight, numbers, call, answer }
    }

    pub(crate) async fn end(self) -> Outcome<()> {
        self.server.close().await
    }
}

impl window::Caller for Caller {
    async fn work(&mut self, window: &Window) -> Outcome<Latencies> {
        let mut latencies = Latencies::default();
        let mut waiting = VecDeque::new();
        let mut batch = Vec::new();
        let mut missing = self.in_flight;
        loop {
            let now = Instant::now();
            for _ in 0..missing {
                let number = self.numbers.another();
                batch.extend_from_slice(self.call.with(number));
                waiting.push_back((number, now));
            }
            self.server.stdin.write_all(&batch).await?;
            batch.clear();
            missing = 0;
            if waiting.is_empty() {
                return Ok(latencies);
            }
            if self.server.output.receive().await? == 0 {
                return Err("the echo server has ended".into());
            }
            let now = Instant::now();
            while let Some(line) = self.server.output.next() {
                let (number, sent) = waiting.pop_front().ok_or("an answer to nothing")?;
                check(line, self.answer.with(number))?;
                latencies.add(now - sent, window);
                missing += usize::from(!window.is_over());
            }
        }
    }
}

/// Starts servers one after the other, each for a handshake and one call.
pub(crate) struct Churn {
    numbers: Numbers,
    call: Template,
    answer: Template,
}

impl Churn {
    pub(crate) fn new(numbers: Numbers, text_length: usize) -> Self {
        let call = Template::new(message::call(text_length) + "\n");
        Self { numbers, call, answer: Template::new(message::answer(text_length)) }
    }
}

impl window::Caller for Churn {
    async fn work(&mut self, window: &Window) -> Outcome<Latencies> {
        let mut latencies = Latencies::default();
        while !window.is_over() {
            let begin = Instant::now();
            let number = self.numbers.another();
            let mut server = Server::open().await?;
            server.stdin.write_all(self.call.with(number)).await?;
            check(server.output.line().await?, self.answer.with(number))?;
            server.close().await?;
            latencies.add(begin.elapsed(), window);
        }
        Ok(latencies)
    }
}

/// Whether an answer is exactly the one that its call must get.
pub(crate) fn check(answer: &[u8], right: &[u8]) -> Outcome<()> {
    if answer == right {
        return Ok(());
    }
    let begin = |text: &[u8]| String::from_utf8_lossy(&text[..text.len().min(300)]).into_owned();
    Err(format!("a wrong answer:\n{}\ninstead of\n{}", begin(answer), begin(right)).into())
}
