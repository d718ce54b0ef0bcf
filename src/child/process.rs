//! A running process, and the ladder that ends it: end of stdin, SIGTERM, SIGKILL.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::Instant;
use tracing::warn;

use super::command::Tag;
use crate::late;
use crate::log_limit::SharedLogLimit;
use crate::reaper::ExitWatch;

/// How long after SIGTERM a process group gets SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long after SIGKILL a process is given up: it hangs in the kernel (state D).
const KILL_GRACE: Duration = Duration::from_secs(1);

/// A client that was killed cannot tell its daemon to stop what it runs.
const CONTAINER: &str = "this kills only the docker client, and the container may still be running; start it with docker run --init --rm -i";

/// Sessions can come and go as fast as clients like.
static KILLS: SharedLogLimit = SharedLogLimit::of_sessions("child.kill");

/// A process that leads a session of its own, and so a group.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) pid: Pid,
    pub(super) tag: Tag,
    /// Whether it is the client of a daemon that runs a container for it.
    pub(super) is_container_client: bool,
    pub exit: ExitWatch,
}

/// When a process whose stdin has been closed gets which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// SIGTERM.
    pub term: Instant,
    /// SIGKILL.
    pub kill: Instant,
}

impl Ladder {
    /// SIGTERM after `grace`, and SIGKILL [`TERM_GRACE`] later, or `grace` if that is shorter.
    pub fn after(grace: Duration) -> Self {
        let term = Instant::now() + grace;
        Self { term, kill: term + TERM_GRACE.min(grace) }
    }
}

/// What ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// The end of its stdin, or it ended by itself.
    Eof,
    Term,
    Kill,
    /// Nothing: it hangs in the kernel.
    Unkillable,
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eof => "eof",
            Self::Term => "term",
            Self::Kill => "kill",
            Self::Unkillable => "unkillable",
        })
    }
}

impl Process {
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its name among all children there ever were; a pid is given to another process when this one is gone.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Ends the process, whose stdin has been closed: that is the one sign that every server understands. Its group gets
    /// the signals of this ladder, or from the moment when there is `another`, of that one.
    pub async fn terminate(
        &mut self,
        mut ladder: Ladder,
        another: impl Future<Output = Ladder>,
    ) -> Termination {
        let mut another = pin!(another);
        let (mut is_changed, mut last) = (false, None);
        loop {
            let (until, next) = match last {
                None => (ladder.term, Some(Signal::SIGTERM)),
                Some(Signal::SIGTERM) => (ladder.kill, Some(Signal::SIGKILL)),
                Some(_) => (Instant::now() + KILL_GRACE, None),
            };
            let patience = until.saturating_duration_since(Instant::now());
            let ended = tokio::select! {
                biased;
                ended = late::timeout(patience, self.exit.wait()) => ended,
                other = &mut another, if !is_changed => {
                    // One that has been told to leave has no longer than it had.
                    let kill = if last.is_some() { other.kill.min(ladder.kill) } else { other.kill };
                    (ladder, is_changed) = (Ladder { term: other.term, kill }, true);
                    continue;
                }
            };
            match (ended, next) {
                (Some(_), _) => {
                    return match last {
                        None => Termination::Eof,
                        Some(Signal::SIGTERM) => Termination::Term,
                        Some(_) => Termination::Kill,
                    };
                }
                (None, None) => break,
                (None, Some(signal)) => {
                    self.log_signal(signal);
                    self.signal(signal);
                    last = Some(signal);
                }
            }
        }
        warn!(
            event = "child.unkillable",
            pid = self.pid(),
            "a server hangs in the kernel and cannot be killed; the bridge continues without it"
        );
        Termination::Unkillable
    }

    pub fn kill(&self) {
        if self.is_container_client && self.exit.status().is_none() {
            self.log_signal(Signal::SIGKILL);
        }
        self.signal(Signal::SIGKILL);
    }

    fn log_signal(&self, signal: Signal) {
        let Some(count) = KILLS.take() else { return };
        let pid = self.pid();
        let hint = (self.is_container_client && signal == Signal::SIGKILL).then_some(CONTAINER);
        warn!(
            event = "child.kill",
            pid,
            %signal,
            count,
            hint,
            "a server did not exit in time and gets a signal"
        );
    }

    /// Sends a signal to the group. Sends none once the process was reaped: its pid may be another's by then.
    fn signal(&self, signal: Signal) {
        if self.exit.status().is_some() {
            return;
        }
        // A stopped process does not see SIGTERM before it goes on.
        let goes_on = (signal == Signal::SIGTERM).then_some(Signal::SIGCONT);
        for signal in [signal].into_iter().chain(goes_on) {
            let _ = killpg(self.pid, signal);
        }
    }
}
