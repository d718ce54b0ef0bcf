//! A running process: how it is made to end, and what it leaves running.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::command::{TAG_VARIABLE, Tag};
use crate::reaper::{ExitWatch, Reaper};

/// How long after SIGTERM a process group gets SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long after SIGKILL a process is given up on: it hangs in the kernel (state D).
const KILL_GRACE: Duration = Duration::from_secs(1);

/// How often, and how far apart, leftovers of a child are looked for.
const LEFTOVER_ROUNDS: u32 = 50;
const LEFTOVER_PAUSE: Duration = Duration::from_millis(10);
/// A process that leads its own group.
#[derive(Clone, Debug)]
pub struct Process {
    pub(super) pid: Pid,
    pub(super) tag: Tag,
    /// Its end.
    pub exit: ExitWatch,
}

/// How a process was made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// By itself, when its stdin ended.
    Eof,
    /// By SIGTERM.
    Term,
    /// By SIGKILL.
    Kill,
    /// Not at all: it hangs in the kernel.
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
    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its name among all children there ever were; a pid is given to another process when this one is gone.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Sees the process out: its stdin has been closed, which is the one sign that every server understands; after
    /// `grace` its group gets SIGTERM, and [`TERM_GRACE`] (or `grace`, if that is shorter) later SIGKILL.
    pub async fn terminate(&mut self, grace: Duration) -> Termination {
        let steps = [
            (None, grace, Termination::Eof),
            (Some(Signal::SIGTERM), TERM_GRACE.min(grace), Termination::Term),
            (Some(Signal::SIGKILL), KILL_GRACE, Termination::Kill),
        ];
        for (signal, patience, stopped_by) in steps {
            if let Some(signal) = signal {
                if self.exit.status().is_some() {
                    return stopped_by;
                }
                warn!(event = "child.kill", pid = self.pid(), %signal);
                self.signal(signal);
            }
            if timeout(patience, self.exit.wait()).await.is_ok() {
                return stopped_by;
            }
        }
        warn!(
            event = "child.unkillable",
            pid = self.pid(),
            "it hangs in the kernel; the bridge goes on without it"
        );
        Termination::Unkillable
    }

    /// Kills what the process left running outside of its group. Orphans of ours carry its tag in their environment; what
    /// they have started in turn becomes ours when they are gone.
    pub async fn kill_leftovers(&self, reaper: &Reaper) {
        let mut clean = 0;
        for _ in 0..LEFTOVER_ROUNDS {
            let left: Vec<Pid> = reaper.orphans().into_iter().filter(|pid| self.has_tag(*pid)).collect();
            // Whoever was killed with the group may still be on its way out, and its children not yet ours.
            clean = if left.is_empty() { clean + 1 } else { 0 };
            if clean == 2 {
                return;
            }
            for pid in left {
                warn!(
                    event = "child.leftover",
                    pid = pid.as_raw(),
                    child = self.pid(),
                    "started by a child that has ended; killed"
                );
                let _ = killpg(pid, Signal::SIGKILL); // where it leads a group of its own
                let _ = kill(pid, Signal::SIGKILL);
            }
            sleep(LEFTOVER_PAUSE).await;
        }
    }

    /// Whether this process descends from ours, as long as its environment has not been changed (proc(5)).
    fn has_tag(&self, pid: Pid) -> bool {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let ours = format!("{TAG_VARIABLE}={}", self.tag);
        environment.split(|byte| *byte == 0).any(|variable| variable == ours.as_bytes())
    }

    /// Kills the whole group at once.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Sends a signal to the group, or to the process where it has left its group. Nothing after it was reaped: its
    /// number may be somebody else's by then.
    fn signal(&self, signal: Signal) {
        if self.exit.status().is_some() {
            return;
        }
        // A stopped process does not see SIGTERM before it goes on.
        let goes_on = (signal == Signal::SIGTERM).then_some(Signal::SIGCONT);
        for signal in [signal].into_iter().chain(goes_on) {
            if killpg(self.pid, signal) == Err(Errno::ESRCH) {
                let _ = kill(self.pid, signal);
            }
        }
    }
}
