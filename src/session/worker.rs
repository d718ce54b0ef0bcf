//! The loop of a session.
//!
//! Its laws: it awaits nothing but its own `select!` branches, so that no reader and no stuck pipe can hold it; the
//! front decides and the loop moves bytes; what is there already is taken before a deadline counts; and death has an
//! order: name the reason, close the mailbox, fail the queue. A caller that races with it either cannot send or gets an
//! answer.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::alarm::Alarm;
use super::core::Core;
use super::inbox::Post;
use super::stream::Delivery;
use super::streams::{Leaving, see_off};
use super::{Command, Config, End, NotTaken, Shared, Stop, Whose};
use crate::first_words::FirstWords;
use crate::late;
use crate::proto::line::LineDecoder;
use crate::proto::message::Request;
use crate::sync::lock;

/// How long stdout is read after the child exited, and how long its exit is waited for after stdout ended. A
/// grandchild can hold the pipe open for ever.
const DRAIN_STDOUT: Duration = Duration::from_millis(250);

/// How long calls in flight may still be answered by a child that has closed its stdin.
const CLOSED_STDIN_GRACE: Duration = Duration::from_secs(5);

/// For how many turns of the loop a deadline that has passed waits for what is ready: more than it takes to empty a pipe.
/// The process may have stood still, and what came in time must count.
const MAX_LATE_TURNS: u32 = 64;

/// The same for turns in which nothing is ready here: a request may still be on its way through HTTP.
const MAX_QUIET_TURNS: u32 = late::TURNS;

/// How long a buffer that has grown for a large message is kept for the next one.
const KEEP_LARGE: Duration = Duration::from_secs(1);

/// After so many bytes of stdout other tasks have their turn, though there is more to read.
const READ_TURN: usize = 128 * 1024;

/// After so many lines of stdout other tasks have their turn. Each may cost as much as there are calls in flight.
const LINES_TURN: usize = 256;

/// How long the queue for stdin is written after the session ended.
const FINAL_FLUSH: Duration = Duration::from_millis(500);

/// The loop of a session, not yet running.
#[derive(Debug)]
pub struct Worker {
    pub(super) config: Config,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: mpsc::Receiver<Command>,
    /// What the child is told first.
    pub(super) initialize: Request,
    pub(super) whose: Whose,
}

/// A child as its session sees it.
pub struct Pipes<W, R> {
    /// Its stdin. Dropping it tells the child to exit.
    pub stdin: W,
    pub stdout: R,
    /// How it ended.
    pub exit: Pin<Box<dyn Future<Output = End> + Send>>,
    /// Told how its handshake ended.
    pub answered: Answered,
    /// Told what it writes that is no message.
    pub first_words: Arc<FirstWords>,
}

/// Told once: that a child has answered `initialize` with a result, or why it was lost, or its session ended, before.
pub type Answered = oneshot::Sender<Result<(), End>>;

/// What a child's session says about its start.
pub(super) struct Start {
    pub(super) answered: Answered,
    pub(super) first_words: Arc<FirstWords>,
}

/// What the loop holds of a child.
struct Child<W, R> {
    stdin: W,
    stdout: R,
    exit: Pin<Box<dyn Future<Output = End> + Send>>,
}

impl<W, R> Pipes<W, R> {
    fn split(self) -> (Child<W, R>, Start) {
        let Self { stdin, stdout, exit, answered, first_words } = self;
        (Child { stdin, stdout, exit }, Start { answered, first_words })
    }
}

/// A child that a session has lost.
#[derive(Debug)]
pub struct LostChild<R> {
    /// Why it is lost.
    pub why: End,
    /// Its stdout, which must be read on until the child exits.
    pub stdout: Option<R>,
    /// How many children in a row have been lost within 30 s of their start, this one included; 0: it has served and left in
    /// good order.
    pub count: u32,
    /// Whether the session had nothing in flight with it: it is not by its doing.
    pub was_idle: bool,
}

/// How a session ended, and its child's stdout, which must be read on until the child exits.
#[derive(Debug)]
pub struct Ended<R> {
    pub why: End,
    /// Whether a child had answered `initialize` with a result.
    pub opened: bool,
    /// The child's stdout; `None` between two children.
    pub stdout: Option<R>,
}

/// A child that has exited, or has closed a pipe and is about to exit.
#[derive(Debug)]
struct Exiting {
    exit: Option<End>,
    stdout_ended: bool,
    stdin_closed: bool,
    /// Nothing is in flight any more.
    served: bool,
    until: Instant,
    /// `until` has passed.
    timed_out: bool,
}

impl Exiting {
    fn begin(grace: Duration, now: Instant) -> Self {
        Self {
            exit: None,
            stdout_ended: false,
            stdin_closed: false,
            served: false,
            until: now + grace,
            timed_out: false,
        }
    }

    fn set_exit(&mut self, exit: End, now: Instant) {
        self.exit = Some(exit);
        self.until = self.until.min(now + DRAIN_STDOUT);
    }

    fn set_stdout_ended(&mut self, now: Instant) {
        self.stdout_ended = true;
        self.until = self.until.min(now + DRAIN_STDOUT);
    }

    fn expire(&mut self, now: Instant) {
        self.timed_out = self.until <= now;
    }

    /// How it ended, once that is clear.
    fn end_reason(&mut self, in_flight: usize, now: Instant) -> Option<End> {
        if self.stdin_closed && in_flight == 0 && !self.served {
            // Most likely it is about to exit, and its exit says more than the closed pipe.
            self.served = true;
            self.until = self.until.min(now + DRAIN_STDOUT);
        }
        let complete = self.exit.is_some() && self.stdout_ended;
        if !complete && !self.timed_out {
            return None;
        }
        Some(match self {
            Self { exit: Some(exit), .. } => *exit,
            Self { stdout_ended: true, .. } => End::StdoutClosed,
            _ => End::StdinClosed,
        })
    }
}

/// What the loop has waited for.
#[expect(clippy::large_enum_variant, reason = "it is made and taken apart in one turn, and mostly a post")]
enum Woken<W, R> {
    /// A reader is gone or has caught up, or the session is to end.
    Attention,
    Exited(End),
    /// The next child; `None`: there will be none.
    Replaced(Option<Pipes<W, R>>),
    Posted(Command),
    Written(io::Result<usize>),
    Read(io::Result<usize>),
    /// Other tasks have had their turn.
    Rested,
    /// A deadline has passed, or had before, and nothing else is ready.
    Alarm,
}

impl Worker {
    /// Runs the session until it ends. `respawn` is asked for another child where the session outlives one; its answer
    /// `None` ends the session too.
    pub async fn run<W, R, F, N>(self, first: Pipes<W, R>, mut respawn: F) -> Ended<R>
    where
        W: AsyncWrite + Unpin,
        R: AsyncRead + Unpin,
        F: FnMut(LostChild<R>) -> N,
        N: Future<Output = Option<Pipes<W, R>>>,
    {
        let Self { config, shared, mut mailbox, initialize, whose } = self;
        let (max_message, init_timeout) = (config.max_message, config.limits.init_timeout);
        let mut now = Instant::now();
        // The time by which deadlines are judged: it stands still while what came in time may still be on its way.
        let mut judged = now;
        let (first, start) = first.split();
        let mut core = Core::open(config, &shared, &initialize, whose, start, now);
        drop(initialize);
        let mut decoder = LineDecoder::new(max_message);
        let mut child = Some(first);
        let mut exiting: Option<Exiting> = None;
        let mut respawning: Option<(End, Pin<Box<N>>)> = None;
        let mut alarm = Alarm::new(now + init_timeout);
        let (mut late_turns, mut quiet_turns) = (0, 0);
        let mut shrink_at: Option<Instant> = None;
        let mut attention = pin!(shared.attention.notified());
        // It is kept over turns of the loop: whatever else is ready, its own turn comes.
        let mut rest = pin!(yield_now());
        let mut read_since_rest = 0;
        // Whether lines have been read that have not been looked at.
        let mut has_lines = false;

        let why = loop {
            let stop = *lock(&shared.stop);
            if let Stop::Now(why) = stop {
                break why;
            }
            // All that is in the mailbox: many lines go into one write, and no session ends as idle while a post waits.
            while let Ok(command) = mailbox.try_recv() {
                core.command(command, now);
            }
            if exiting.is_none() {
                core.forward(now, judged);
            }
            core.settle(decoder.waiting(), now);

            if stop == Stop::WhenIdle {
                core.farewell(now); // who listens is not kept until the last call is done
                if !core.is_busy() {
                    break End::Shutdown;
                }
            }
            // What the child has written before it ended counts.
            let ending = exiting.as_mut().filter(|_| !has_lines);
            let end_reason = core
                .end_reason(judged)
                .or_else(|| ending.and_then(|exiting| exiting.end_reason(core.in_flight(), now)));
            if let Some(why) = end_reason {
                let was_idle = core.in_flight() == 0;
                let lost = if stop == Stop::No { core.child_lost(why, now) } else { None };
                let Some(count) = lost else { break why };
                (decoder, has_lines) = (LineDecoder::new(max_message), false);
                exiting = None;
                let stdout = child.take().map(|child| child.stdout);
                respawning = Some((why, Box::pin(respawn(LostChild { why, stdout, count, was_idle }))));
                continue;
            }

            if shrink_at.is_none() && (decoder.is_large() || core.is_large()) {
                shrink_at = Some(now + KEEP_LARGE);
            }
            let until = exiting.as_ref().map(|exiting| exiting.until);
            let deadline = [until, shrink_at, core.deadline()].into_iter().flatten().min();
            if let Some(deadline) = deadline {
                alarm.arm(deadline);
            }
            let takes = takes_stdout(exiting.as_ref(), core.is_full());
            let reads = takes && exiting.as_ref().is_none_or(|exiting| !exiting.stdout_ended);
            let reads_on = takes && has_lines;
            let is_tired = reads && read_since_rest >= READ_TURN;
            let reads = reads && !has_lines && !is_tired;
            let writes = !core.stdin().is_empty() && writes_stdin(exiting.as_ref());
            let awaits_exit = exiting.as_ref().is_none_or(|exiting| exiting.exit.is_none());
            let (stdin, stdout, exit) = match &mut child {
                Some(Child { stdin, stdout, exit }) => (Some(stdin), Some(stdout), Some(exit)),
                None => (None, None, None),
            };
            let replacement = respawning.as_mut().map(|(_, replacement)| replacement);
            // Only the runtime's own turn finds out what is ready: see `late`.
            let was_late = late_turns > 0;
            if was_late {
                yield_now().await;
            }
            // In this order: a child that never stops writing delays nothing but the alarm, and that not for ever.
            let woken = tokio::select! {
                biased;
                () = attention.as_mut() => Woken::Attention,
                exit = present(exit), if awaits_exit => Woken::Exited(exit),
                child = present(replacement) => Woken::Replaced(child),
                Some(command) = mailbox.recv() => Woken::Posted(command),
                written = present(stdin.map(|stdin| stdin.write(core.stdin()))), if writes => Woken::Written(written),
                () = rest.as_mut(), if reads_on || is_tired => Woken::Rested,
                read = present(stdout.map(|stdout| stdout.read_buf(decoder.buffer()))), if reads => Woken::Read(read),
                () = std::future::ready(()), if was_late => Woken::Alarm,
                () = alarm.wait(), if deadline.is_some() => Woken::Alarm,
            };

            now = Instant::now();
            let is_late = deadline.is_some_and(|deadline| deadline <= now);
            let is_quiet = is_late && matches!(woken, Woken::Alarm);
            // A long line takes many turns, and has come before its end was looked at.
            late_turns = if is_late { late_turns + u32::from(!matches!(woken, Woken::Rested)) } else { 0 };
            quiet_turns = if is_quiet { quiet_turns + 1 } else { 0 };
            match woken {
                Woken::Attention => {
                    attention.set(shared.attention.notified());
                    core.sweep(now);
                }
                Woken::Exited(exit) => {
                    exiting.get_or_insert_with(|| Exiting::begin(DRAIN_STDOUT, now)).set_exit(exit, now);
                }
                Woken::Replaced(replacement) => {
                    let lost = respawning.take().map(|(why, _)| why);
                    match (replacement.map(Pipes::split), lost) {
                        (None, Some(why)) => break why,
                        (None, None) => {}
                        (Some((next, start)), _) => {
                            child = Some(next);
                            core.handshake(start, now);
                        }
                    }
                }
                Woken::Posted(command) => core.command(command, now),
                Woken::Written(Ok(count)) if count > 0 => core.written(count),
                Woken::Written(_) => {
                    let exiting = exiting.get_or_insert_with(|| Exiting::begin(CLOSED_STDIN_GRACE, now));
                    exiting.stdin_closed = true;
                }
                Woken::Rested => {
                    rest.set(yield_now());
                    read_since_rest = 0;
                    if reads_on {
                        has_lines = take_lines(&mut decoder, &mut core, now);
                    }
                }
                Woken::Read(read) => {
                    read_since_rest += read.as_ref().map_or(0, |count| *count);
                    has_lines = take_lines(&mut decoder, &mut core, now);
                    if matches!(read, Ok(0) | Err(_)) {
                        core.last_line(&mut decoder, now);
                        has_lines = core.has_long_line();
                        let exiting = exiting.get_or_insert_with(|| Exiting::begin(DRAIN_STDOUT, now));
                        exiting.set_stdout_ended(now);
                    }
                }
                Woken::Alarm => {}
            }
            if late_turns >= MAX_LATE_TURNS || quiet_turns > MAX_QUIET_TURNS {
                (late_turns, quiet_turns) = (0, 0);
                judged = now;
                core.expire(now);
                if let Some(exiting) = &mut exiting {
                    exiting.expire(now);
                }
                if shrink_at.take_if(|at| *at <= now).is_some() {
                    decoder.shrink();
                    core.shrink();
                }
            }
        };

        let readers = close(&shared, &mut mailbox, &mut core, why, now);
        if !readers.is_empty() {
            // A task of its own: the end of a session waits for no reader.
            tokio::spawn(see_off(shared.id.clone(), readers));
        }
        if let (Some(child), None, false) = (&mut child, &exiting, core.stdin().is_empty()) {
            let _ = timeout(FINAL_FLUSH, child.stdin.write_all(core.stdin())).await;
        }
        Ended { why, opened: core.opened, stdout: child.map(|child| child.stdout) }
    }
}

/// The end of a session, in the order that leaves no caller without an answer: names the reason, closes the mailbox,
/// fails what is queued. Returns the readers that are to be seen off.
fn close(
    shared: &Shared,
    mailbox: &mut mpsc::Receiver<Command>,
    core: &mut Core<'_>,
    why: End,
    now: Instant,
) -> Vec<Leaving> {
    let _ = shared.ended.set(why);
    mailbox.close();
    shared.bodies.close();
    while let Ok(command) = mailbox.try_recv() {
        match command {
            Command::Post(Post { feed, posted, .. }) => {
                feed.push(Delivery::NotTaken(NotTaken::new(why, posted)));
            }
            Command::Listen { feed, .. } | Command::Join(feed) => feed.push(Delivery::Gone(why)),
            Command::FromLane(_) => {} // its session is told by the end of the lane
            Command::EndIfIdle { .. } => {} // the session ends without this question
        }
    }
    core.fail(why, now)
}

/// Takes what has been read of the child: a piece of a long line, or some lines. Returns whether there may be more.
fn take_lines(decoder: &mut LineDecoder, core: &mut Core<'_>, now: Instant) -> bool {
    core.read_on(now);
    for _ in 0..LINES_TURN {
        if core.has_long_line() {
            return true;
        }
        let Some(frame) = decoder.next() else { return false };
        core.frame(frame, now);
    }
    true
}

/// Whether what the child writes is taken: it waits while a reader has too much waiting, but not once it has exited.
fn takes_stdout(exiting: Option<&Exiting>, is_full: bool) -> bool {
    exiting.is_some_and(|exiting| exiting.exit.is_some()) || !is_full
}

fn writes_stdin(exiting: Option<&Exiting>) -> bool {
    exiting.is_none_or(|exiting| !exiting.stdin_closed)
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
