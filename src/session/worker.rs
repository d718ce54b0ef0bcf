//! The loop of a session.
//!
//! Its laws: it awaits nothing but its own `select!` branches, so that no reader and no stuck pipe can hold it; the
//! machine decides and the loop moves bytes; and death has an order: name the reason, close the mailbox, fail the
//! queue. A caller that races with it either cannot send or gets an answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use super::alarm::Alarm;
use super::core::Core;
use super::stream::{Delivery, Feed};
use super::{Command, Config, End, ExitStatus, Shared, Stop};
use crate::proto::front::Takes;
use crate::proto::line::LineDecoder;
use crate::proto::message::Request;

/// How long stdout is read after the child exited, and how long its exit is waited for after stdout ended. A
/// grandchild can hold the pipe open for ever.
const DRAIN_STDOUT: Duration = Duration::from_millis(250);

/// How long calls in flight may still be answered by a child that has closed its stdin.
const CLOSED_STDIN_GRACE: Duration = Duration::from_secs(5);

/// How long the queue for stdin is written after the session ended.
const FINAL_FLUSH: Duration = Duration::from_millis(500);

/// The loop of a session, not yet running.
#[derive(Debug)]
pub struct Worker {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: mpsc::Receiver<Command>,
    pub(super) initialize: Request,
    /// Where the answer to `initialize` goes, and what that may carry; `None`: it is the bridge's own.
    pub(super) first: Option<(Feed, Takes)>,
}

/// A child as its session sees it.
pub struct Pipes<W, R> {
    /// Its stdin. Dropping it tells the child to exit.
    pub stdin: W,
    /// Its stdout.
    pub stdout: R,
    /// Its exit.
    pub exit: Pin<Box<dyn Future<Output = ExitStatus> + Send>>,
    /// Notified when a child that replaces another has answered `initialize`, or is lost before.
    pub answered: Arc<Notify>,
}

/// A child that a session has lost.
#[derive(Debug)]
pub struct LostChild<R> {
    /// Why it is lost.
    pub why: End,
    /// Its stdout, which must be read on until the child exits.
    pub stdout: Option<R>,
    /// How many children in a row have been lost within 30 s of their start, this one included.
    pub count: u32,
}

/// How a session ended, and its child's stdout, which must be read on until the child exits.
#[derive(Debug)]
pub struct Ended<R> {
    /// Why.
    pub why: End,
    /// The child's stdout; `None` between two children.
    pub stdout: Option<R>,
}

/// What is known of a child that has exited, or has closed a pipe and is about to exit.
#[derive(Debug)]
struct Exiting {
    exit: Option<ExitStatus>,
    stdout_ended: bool,
    stdin_closed: bool,
    /// Nothing is in flight any more.
    served: bool,
    until: Instant,
}

impl Exiting {
    fn begin(grace: Duration) -> Self {
        Self {
            exit: None,
            stdout_ended: false,
            stdin_closed: false,
            served: false,
            until: Instant::now() + grace,
        }
    }

    fn end(&self) -> End {
        match self {
            Self { exit: Some(exit), .. } => End::Exited(*exit),
            Self { stdout_ended: true, .. } => End::StdoutClosed,
            _ => End::StdinClosed,
        }
    }

    /// How it ended, once that is clear.
    fn end_reason(&mut self, in_flight: usize) -> Option<End> {
        if self.stdin_closed && in_flight == 0 && !self.served {
            // Most likely it is about to exit, and its exit says more than the closed pipe.
            self.served = true;
            self.until = self.until.min(Instant::now() + DRAIN_STDOUT);
        }
        let complete = self.exit.is_some() && self.stdout_ended;
        (complete || self.until <= Instant::now()).then(|| self.end())
    }
}

impl Worker {
    /// Runs the session until it ends. `next` is asked for another child where the session outlives one; its answer
    /// `None` ends the session too.
    pub async fn run<W, R, F, N>(mut self, first: Pipes<W, R>, mut next: F) -> Ended<R>
    where
        W: AsyncWrite + Unpin,
        R: AsyncRead + Unpin,
        F: FnMut(LostChild<R>) -> N,
        N: Future<Output = Option<Pipes<W, R>>>,
    {
        let (max_message, init_timeout) = (self.config.max_message, self.config.limits.init_timeout);
        let mut core = Core::open(self.config, &self.shared, &self.initialize, self.first);
        let mut decoder = LineDecoder::new(max_message);
        let mut stop = self.shared.stop.subscribe();
        let attention = Arc::clone(&self.shared.attention);
        let mut child = Some(first);
        let mut respawning: Option<(End, Pin<Box<N>>)> = None;
        let mut exiting: Option<Exiting> = None;
        let mut alarm = Alarm::new(Instant::now() + init_timeout);

        let why = loop {
            let stopping = *stop.borrow_and_update();
            match stopping {
                Stop::Now(why) => break why,
                Stop::WhenIdle if core.in_flight() == 0 => break End::Shutdown,
                Stop::WhenIdle | Stop::No => {}
            }
            let end_reason = core
                .end_reason()
                .or_else(|| exiting.as_mut().and_then(|exiting| exiting.end_reason(core.in_flight())));
            if let Some(why) = end_reason {
                let lost = if stopping == Stop::No { core.child_lost(why) } else { None };
                let Some(count) = lost else { break why };
                decoder = LineDecoder::new(max_message);
                exiting = None;
                let stdout = child.take().map(|child| child.stdout);
                respawning = Some((why, Box::pin(next(LostChild { why, stdout, count }))));
                continue;
            }
            let deadline =
                exiting.as_ref().map(|exiting| exiting.until).into_iter().chain(core.deadline()).min();
            if let Some(deadline) = deadline {
                alarm.arm(deadline);
            }
            let (stdin, stdout, exit) = match &mut child {
                Some(Pipes { stdin, stdout, exit, .. }) => (Some(stdin), Some(stdout), Some(exit)),
                None => (None, None, None),
            };
            tokio::select! {
                status = present(exit), if exiting.as_ref().is_none_or(|exiting| exiting.exit.is_none()) => {
                    let exiting = exiting.get_or_insert_with(|| Exiting::begin(DRAIN_STDOUT));
                    exiting.exit = Some(status);
                    exiting.until = exiting.until.min(Instant::now() + DRAIN_STDOUT);
                }
                read = present(stdout.map(|stdout| stdout.read_buf(decoder.buffer()))),
                    if exiting.as_ref().map_or(!core.is_full(), |exiting| {
                        !exiting.stdout_ended && (exiting.exit.is_some() || !core.is_full())
                    }) =>
                {
                    while let Some(frame) = decoder.next() {
                        core.frame(frame);
                    }
                    if matches!(read, Ok(0) | Err(_)) {
                        core.last_line(&mut decoder);
                        let exiting = exiting.get_or_insert_with(|| Exiting::begin(DRAIN_STDOUT));
                        exiting.stdout_ended = true;
                        exiting.until = exiting.until.min(Instant::now() + DRAIN_STDOUT);
                    }
                }
                written = present(stdin.map(|stdin| stdin.write(&core.out.stdin))),
                    if !core.out.stdin.is_empty() && exiting.as_ref().is_none_or(|exiting| !exiting.stdin_closed) =>
                {
                    match written {
                        Ok(count) if count > 0 => core.written(count),
                        _ => {
                            let exiting = exiting.get_or_insert_with(|| Exiting::begin(CLOSED_STDIN_GRACE));
                            exiting.stdin_closed = true;
                        }
                    }
                }
                replacement = present(respawning.as_mut().map(|(_, respawning)| respawning)) => {
                    let lost = respawning.take().map(|(why, _)| why);
                    child = replacement;
                    match (&child, lost) {
                        (None, Some(why)) => break why,
                        (None, None) => {}
                        (Some(child), _) => core.handshake(Arc::clone(&child.answered)),
                    }
                }
                Some(command) = self.mailbox.recv(), if core.accepting() && exiting.is_none() => {
                    core.command(command);
                    // Many lines per write(2): whatever else has come goes along.
                    while core.accepting() && let Ok(command) = self.mailbox.try_recv() {
                        core.command(command);
                    }
                }
                () = attention.notified() => core.sweep(),
                _ = stop.changed() => {}
                () = alarm.wait(), if deadline.is_some() => {}
            }
            core.expire();
            core.settle_idle();
        };

        let _ = self.shared.ended.set(why);
        self.shared.opened.send_if_modified(|opened| opened.replace(opened.unwrap_or(Err(why))).is_none());
        self.mailbox.close();
        self.shared.body_budget.close();
        while let Ok(command) = self.mailbox.try_recv() {
            let (Command::Post { feed, .. } | Command::Listen { feed, .. }) = command;
            feed.push(Delivery::Gone(why));
        }
        core.fail(why);
        if let (Some(child), None, false) = (&mut child, &exiting, core.out.stdin.is_empty()) {
            let _ = timeout(FINAL_FLUSH, child.stdin.write_all(&core.out.stdin)).await;
        }
        Ended { why, stdout: child.map(|child| child.stdout) }
    }
}

/// Waits for a future that is there; for ever, if none is.
async fn present<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
