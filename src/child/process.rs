//! A running process, and the ladder that ends it: end of stdin, SIGTERM, SIGKILL.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::timeout;
use tracing::warn;

use super::command::Tag;
use crate::log_limit::SharedLogLimit;
use crate::reaper::ExitWatch;

/// How long after SIGTERM a process group gets SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long after SIGKILL a process is given up: it hangs in the kernel (state D).
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Sessions can come and go as fast as clients like.
static KILLS: SharedLogLimit = SharedLogLimit::of_sessions("child.kill");

/// A process that leads a session of its own, and so a group.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) pid: Pid,
    pub(super) tag: Tag,
    pub exit: ExitWatch,
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

    /// Ends the process, whose stdin has been closed: that is the one sign that every server understands. After `grace`
    /// its group gets SIGTERM, and [`TERM_GRACE`] later, or `grace` if that is shorter, SIGKILL.
    pub async fn terminate(&mut self, grace: Duration) -> Termination {
        let steps = [
            (None, grace, Termination::Eof),
            (Some(Signal::SIGTERM), TERM_GRACE.min(grace), Termination::Term),
            (Some(Signal::SIGKILL), KILL_GRACE, Termination::Kill),
        ];
        for (signal, patience, stopped_by) in steps {
            if let Some(signal) = signal {
                if let Some(count) = KILLS.take() {
                    let pid = self.pid();
                    warn!(event = "child.kill", pid, %signal, count, "a child did not end in time and gets a signal");
                }
                self.signal(signal);
            }
            if timeout(patience, self.exit.wait()).await.is_ok() {
                return stopped_by;
            }
        }
        warn!(
            event = "child.unkillable",
            pid = self.pid(),
            "a child hangs in the kernel and does not die; the bridge goes on without it"
        );
        Termination::Unkillable
    }

    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
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
