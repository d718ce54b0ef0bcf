//! The loop of a session.
//!
//! Its laws: it awaits nothing but its own `select!` branches, so that no reader and no stuck pipe can hold it; the
//! machine decides and the loop moves bytes; and death has an order: name the reason, close the mailbox, fail the
//! queue. A caller that races with it either cannot send or gets an answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::core::Core;
use super::reader::{Delivery, Feed};
use super::{Command, Config, End, Exit, Shared, Stop};
use crate::proto::line::LineDecoder;
use crate::proto::message::Message;

/// How long the child's last words are read after it exited, or its exit waited for after its last word. A
/// grandchild can hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// How long calls in flight may still be answered by a child that has closed its stdin.
const CLOSED_STDIN_GRACE: Duration = Duration::from_secs(5);

/// How long what is queued for stdin is written after the session ended.
const FLUSH: Duration = Duration::from_millis(500);

/// The loop of a session, not yet running.
#[derive(Debug)]
pub struct Worker {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: mpsc::Receiver<Command>,
    pub(super) initialize: Message,
    pub(super) streams: bool,
    pub(super) feed: Feed,
}

/// What is left of a session: why it ended, and the child's stdout, which must be read on while the child leaves.
#[derive(Debug)]
pub struct Ended<R> {
    /// Why.
    pub why: End,
    /// The child's stdout.
    pub stdout: R,
}

/// What is known of a child that is about to be gone.
#[derive(Debug)]
struct Dying {
    exit: Option<Exit>,
    stdout_ended: bool,
    stdin_closed: bool,
    /// Nothing is in flight any more.
    served: bool,
    until: Instant,
}

impl Dying {
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
}

impl Worker {
    /// Runs the session until it ends. Dropping stdin at the end is the child's sign to leave.
    pub async fn run<W, R>(
        mut self,
        mut stdin: W,
        mut stdout: R,
        exit: impl Future<Output = Exit>,
    ) -> Ended<R>
    where
        W: AsyncWrite + Unpin,
        R: AsyncRead + Unpin,
    {
        let mut core = Core::new(self.config, &self.shared);
        core.open(&self.initialize, self.streams, self.feed);
        let mut decoder = LineDecoder::new(self.config.max_message);
        let mut stop = self.shared.stop.subscribe();
        let left = Arc::clone(&self.shared.left);
        let mut dying: Option<Dying> = None;
        let mut armed = Instant::now() + self.config.limits.init_timeout;
        tokio::pin! {
            let exit = exit;
            let timer = sleep_until(armed);
        }

        let why = loop {
            if let Some(why) = core.over() {
                break why;
            }
            match *stop.borrow_and_update() {
                Stop::Now(why) => break why,
                Stop::WhenIdle if core.in_flight() == 0 => break End::Shutdown,
                Stop::WhenIdle | Stop::No => {}
            }
            if let Some(dying) = &mut dying {
                if dying.stdin_closed && core.in_flight() == 0 && !dying.served {
                    // Most likely it is about to exit, and its exit says more than the closed pipe.
                    dying.served = true;
                    dying.until = dying.until.min(Instant::now() + LAST_WORDS);
                }
                let complete = dying.exit.is_some() && dying.stdout_ended;
                if complete || dying.until <= Instant::now() {
                    break dying.end();
                }
            }
            // The timer is moved only forward in urgency: nearly every deadline is later than the one it is set to.
            let deadline = dying.as_ref().map(|dying| dying.until).into_iter().chain(core.deadline()).min();
            if let Some(deadline) = deadline
                && (deadline < armed || timer.is_elapsed())
            {
                armed = deadline;
                timer.as_mut().reset(armed);
            }
            tokio::select! {
                status = &mut exit, if dying.as_ref().is_none_or(|dying| dying.exit.is_none()) => {
                    let dying = dying.get_or_insert_with(|| Dying::begin(LAST_WORDS));
                    dying.exit = Some(status);
                    dying.until = dying.until.min(Instant::now() + LAST_WORDS);
                }
                read = stdout.read_buf(decoder.buffer()),
                    if dying.as_ref().map_or(!core.is_full(), |dying| {
                        !dying.stdout_ended && (dying.exit.is_some() || !core.is_full())
                    }) =>
                {
                    while let Some(frame) = decoder.next() {
                        core.frame(frame);
                    }
                    if matches!(read, Ok(0) | Err(_)) {
                        core.last_line(&mut decoder);
                        let dying = dying.get_or_insert_with(|| Dying::begin(LAST_WORDS));
                        dying.stdout_ended = true;
                        dying.until = dying.until.min(Instant::now() + LAST_WORDS);
                    }
                }
                written = stdin.write(&core.stdin),
                    if !core.stdin.is_empty() && dying.as_ref().is_none_or(|dying| !dying.stdin_closed) =>
                {
                    match written {
                        Ok(count) if count > 0 => core.written(count),
                        _ => {
                            let dying = dying.get_or_insert_with(|| Dying::begin(CLOSED_STDIN_GRACE));
                            dying.stdin_closed = true;
                        }
                    }
                }
                Some(command) = self.mailbox.recv(), if core.accepting() && dying.is_none() => {
                    core.command(command);
                    // Many lines per write(2): whatever else has come goes along.
                    while core.accepting() && let Ok(command) = self.mailbox.try_recv() {
                        core.command(command);
                    }
                }
                () = left.notified() => core.sweep(),
                _ = stop.changed() => {}
                () = &mut timer, if deadline.is_some() => {}
            }
            core.expire();
            core.settle_idle();
        };

        let _ = self.shared.ended.set(why);
        self.mailbox.close();
        self.shared.room.close();
        while let Ok(command) = self.mailbox.try_recv() {
            let (Command::Post { feed, .. } | Command::Listen { feed, .. }) = command;
            feed.push(Delivery::Gone(why));
        }
        core.fail(why);
        if !core.stdin.is_empty() && dying.is_none() {
            let _ = timeout(FLUSH, stdin.write_all(&core.stdin)).await;
        }
        Ended { why, stdout }
    }
}

#[cfg(test)]
mod tests;
