//! Log lines to stderr, which need not be read: a full pipe must not stop the program that writes into it.
//!
//! stderr is not made non-blocking, because that would hold for every process that shares it, a person's shell among
//! them. It is asked before each write instead: a pipe that poll(2) calls writable takes PIPE_BUF bytes without
//! blocking (pipe(7)).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::printable::{Escape, escaped};
use crate::sync::lock;

/// How much may wait to be read, in bytes; lines beyond that are counted and dropped.
const MAX_WAITING: usize = 1024 * 1024;

/// What a writable pipe takes at once, in bytes: PIPE_BUF of limits.h on Linux.
const PIPE_BUF: usize = 4096;

/// How long the last lines are tried at the end of the program.
const LAST_LINES: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text,
    /// For a program: one JSON object per line.
    Json,
}

/// Begins to log, at the level that `RUST_LOG` names or else `info`.
pub fn start(format: Format) {
    let level = level(&std::env::var("RUST_LOG").unwrap_or_default());
    let layer = fmt::layer().with_writer(|| Stderr).with_ansi(false).with_target(false);
    let json = format == Format::Json;
    JSON.store(json, Ordering::Relaxed);
    let layer = if json { layer.json().flatten_event(true).boxed() } else { layer.boxed() };
    registry().with(layer.with_filter(level)).init();
}

/// What is logged. A variable that is set to nothing, as in a template whose value is missing, is not one that asks for
/// silence.
fn level(text: &str) -> Targets {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let level = if parts.is_empty() { None } else { parts.join(",").parse().ok() };
    level.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

/// What waits to be written.
#[derive(Debug)]
struct Backlog {
    bytes: VecDeque<u8>,
    dropped: u64,
}

static BACKLOG: Mutex<Backlog> = Mutex::new(Backlog { bytes: VecDeque::new(), dropped: 0 });

static JSON: AtomicBool = AtomicBool::new(false);

const DROPPED: &str = "lines of the log were dropped: stderr was not read";

/// The line about lines that were dropped. Written by hand: it is made while a line is being written.
fn dropped(lines: u64) -> String {
    let mut stamp = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut stamp)); // a String takes everything
    match JSON.load(Ordering::Relaxed) {
        true => format!(
            "{{\"timestamp\":\"{stamp}\",\"level\":\"WARN\",\"message\":\"{DROPPED}\",\"event\":\"log.dropped\",\"lines\":{lines}}}\n"
        ),
        false => format!("{stamp}  WARN {DROPPED} event=\"log.dropped\" lines={lines}\n"),
    }
}

/// Writes one log line per call. A fresh one is made for each line.
#[derive(Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Here, where every line passes, whoever recorded what: nothing that a peer or a child wrote may act on the terminal
        // or the program that reads the log. Outside of JSON's strings there is nothing to escape.
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = escaped(text, if JSON.load(Ordering::Relaxed) { Escape::Json } else { Escape::Braces });
        let mut backlog = lock(&BACKLOG);
        if backlog.dropped > 0 && backlog.bytes.is_empty() {
            let lines = std::mem::take(&mut backlog.dropped);
            backlog.bytes.extend(dropped(lines).as_bytes());
        }
        if backlog.bytes.len() + text.len() >= MAX_WAITING {
            backlog.dropped += 1;
        } else {
            backlog.bytes.extend(text.as_bytes());
            backlog.bytes.push_back(b'\n');
        }
        backlog.drain(PollTimeout::ZERO);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Backlog {
    /// Writes what stderr takes without blocking for longer than `patience` at once.
    fn drain(&mut self, patience: PollTimeout) {
        let stderr = io::stderr();
        while !self.bytes.is_empty() {
            let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
            if !matches!(poll(&mut ready, patience), Ok(1..)) {
                return;
            }
            let (first, _) = self.bytes.as_slices();
            let piece = first.get(..PIPE_BUF).unwrap_or(first);
            match nix::unistd::write(&stderr, piece) {
                Ok(written) => drop(self.bytes.drain(..written)),
                // Its reader has closed the pipe.
                Err(_) => self.bytes.clear(),
            }
        }
    }
}

/// Gives the last lines a moment to be read.
pub fn flush() {
    let until = Instant::now() + LAST_LINES;
    let mut backlog = lock(&BACKLOG);
    while !backlog.bytes.is_empty() && Instant::now() < until {
        backlog.drain(PollTimeout::from(50_u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_nothing_is_the_default_and_blanks_do_not_silence_the_log() {
        use tracing::Level;
        let logs = |text: &str, at: Level| level(text).would_enable("mcp_bridge", &at);
        for text in ["", " ", ",", "info", " info\n", "warn, info"] {
            assert!(logs(text, Level::INFO) && !logs(text, Level::DEBUG), "{text:?}");
        }
        assert!(logs(" debug ", Level::DEBUG));
        assert!(
            logs("warn, mcp_bridge=debug", Level::DEBUG)
                && !level("warn, h2=debug").would_enable("mcp_bridge", &Level::INFO)
        );
        assert!(!logs("off", Level::ERROR));
    }
}
