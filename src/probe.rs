//! Questions to servers: what a client would see of them.
//!
//! [`probe`] starts a server for itself, opens a session with it, has it list its tools, ends it, and says what it has
//! seen. [`health`] asks a bridge that is running.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::{Instant, sleep_until, timeout};

pub mod check;
mod client;
pub mod health;
mod last_lines;
pub mod report;
pub mod text;

use client::Client;
use last_lines::LastLines;
use report::{Report, Why};

use crate::child::{Child, Command, Ladder, Leftovers, Process};
use crate::first_words::{FirstWords, read_on};
use crate::late;
use crate::proto::line::LineDecoder;
use crate::proto::link::Limits;
use crate::proto::version::Era;
use crate::reaper::{ExitWatch, Reaper};

/// How long a server that closes a pipe, or exits, may take to do the rest of it: its exit status says more than a closed
/// pipe, and what it wrote last is still to be read.
const CLOSING: Duration = Duration::from_secs(1);

/// How long stderr is read after the end of the server: what holds it open may be no process of ours.
const DRAIN_STDERR: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
pub struct Config {
    /// What it speaks; `None`: it is asked.
    pub era: Option<Era>,
    /// Of its session. `request_timeout` is the time that the whole list of tools may take.
    pub limits: Limits,
    /// The longest message of the server, in bytes.
    pub max_message: usize,
    /// How long the server may take to exit at the end of its stdin, before SIGTERM.
    pub stop_grace: Duration,
}

/// Starts a server as a session would, opens a session with it, has it list its tools, ends it, and says what was seen.
/// One that refuses to open a session may know 2026-07-28 only, which has none: it is started again, and asked so. Once
/// `stop` is ready the server is only ended. If the future is dropped, the server is killed.
///
/// # Errors
/// What the system said where the server cannot be started.
pub async fn probe(
    command: &Command,
    config: &Config,
    reaper: &Reaper,
    stop: impl Future<Output = ()>,
) -> io::Result<Report> {
    let mut stop = std::pin::pin!(stop);
    let era = config.era.unwrap_or(Era::Legacy);
    let report = probe_as(era, command, config, reaper, stop.as_mut()).await?;
    if config.era.is_some() || !report.refuses_initialize() {
        return Ok(report);
    }
    let modern = probe_as(Era::Modern, command, config, reaper, stop).await?;
    Ok(if modern.server.is_some() { modern } else { report })
}

/// The same in one era.
async fn probe_as(
    era: Era,
    command: &Command,
    config: &Config,
    reaper: &Reaper,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> io::Result<Report> {
    let began = Instant::now();
    let Child { process, stdin, mut stdout, stderr } = command.spawn(&[], reaper)?;
    let mut process = KilledOnDrop(process);
    let first_words = Arc::new(FirstWords::default());
    let mut client = Client::open(era, config, Arc::clone(&first_words));
    let mut stderr = LastLines::of(stderr, Arc::clone(&first_words));
    let leftovers = Leftovers::new(reaper.clone());

    let run = async {
        converse(&mut client, stdin, &mut stdout, process.0.exit.clone(), began, stop).await;
        let stopped_by = tokio::select! {
            stopped_by = process.0.terminate(Ladder::after(config.stop_grace), pending()) => stopped_by,
            // A server that still writes while it ends must not die of a closed pipe.
            never = read_on(Some(&mut stdout), &first_words) => never,
        };
        let mut last = [0; 4096];
        let read = stdout.try_read(&mut last).unwrap_or(0); // it may have written and ended at once
        first_words.after_the_end(last.get(..read).unwrap_or_default());
        leftovers.kill(&process.0).await;
        stopped_by
    };
    // It is always read: a server whose stderr is full stands still.
    let stopped_by = tokio::select! {
        stopped_by = run => stopped_by,
        never = stderr.read_for_ever() => never,
    };
    let _ = timeout(DRAIN_STDERR, stderr.read()).await;
    let Client { server, tools, stray, end, .. } = client;
    Ok(Report {
        program: command.program.clone(),
        arguments: command.arguments.clone(),
        server,
        tools,
        stray,
        failure: end.and_then(Result::err),
        stopped_by,
        status: process.0.exit.status(),
        stderr: stderr.finish(),
        first_words,
    })
}

/// A server that nothing would end if the probe was dropped.
struct KilledOnDrop(Process);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        self.0.kill(); // nothing, where it has ended
    }
}

/// Moves bytes between the client and the server, until the client has ended or the server is gone. stdin is closed then.
async fn converse(
    client: &mut Client,
    mut stdin: Sender,
    stdout: &mut Receiver,
    mut exit: ExitWatch,
    began: Instant,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) {
    let mut decoder = LineDecoder::new(client.max_message());
    let (mut stdin_open, mut stdout_open, mut exited) = (true, true, None);
    // Until when the rest of an end is waited for that has begun.
    let mut closing: Option<Instant> = None;
    while client.end.is_none() {
        // Once an end has begun, it is not called a silence.
        let deadline = closing.or_else(|| Some(began + client.next_deadline()?));
        tokio::select! {
            biased; // an answer that is there counts before its deadline, however late it is looked at
            () = &mut stop => client.fail(Why::Stopped),
            written = stdin.write(client.stdin()), if stdin_open && !client.stdin().is_empty() => match written {
                Ok(count) if count > 0 => client.written(count),
                _ => stdin_open = false,
            },
            status = exit.wait(), if exited.is_none() => exited = Some(status),
            read = stdout.read_buf(decoder.buffer()), if stdout_open && !client.is_full() => {
                while let Some(frame) = decoder.next() {
                    client.frame(frame, began.elapsed());
                }
                if matches!(read, Ok(0) | Err(_)) {
                    if let Some(frame) = decoder.finish() {
                        client.frame(frame, began.elapsed());
                    }
                    stdout_open = false;
                }
            }
            () = async { sleep_until(deadline.unwrap_or(began)).await; late::what_is_ready_first().await },
                if deadline.is_some() => {}
        }
        if closing.is_none() && !(stdin_open && stdout_open && exited.is_none()) {
            closing = Some(Instant::now() + CLOSING);
        }
        let is_over = closing.is_some_and(|until| until <= Instant::now());
        match exited {
            Some(status) if !stdout_open || is_over => client.fail(Why::Exited(status)),
            None if is_over && !stdout_open => client.fail(Why::StdoutClosed),
            None if is_over => client.fail(Why::StdinClosed),
            _ if closing.is_none() => client.expire(began.elapsed()),
            _ => {}
        }
    }
}
