//! The only `waitpid` of the program.
//!
//! Two waiters steal each other's exit statuses: a `waitpid(-1)` loop beside tokio's own process support loses a
//! third of them, and std panics when the status of a failed exec is taken from it. So tokio's `process` feature is
//! not compiled in, and this module alone reaps: the children it was told of, whose status it delivers, and, as PID 1
//! or subreaper, the orphans they leave behind (wait(2), prctl(2) PR_SET_CHILD_SUBREAPER).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::yield_now;
use tracing::{debug, warn};

use crate::exit_status::ExitStatus;
use crate::sync;

/// How often ended processes are looked for without SIGCHLD: an end that was missed would keep its session for ever.
const SAFETY_NET: Duration = Duration::from_secs(1);

/// How many processes are reaped in one turn of the loop: a thousand that end at once must not stop the sessions.
const PER_TURN: usize = 64;

/// How many times, and how far apart, what is left when the program ends is killed.
const ORPHAN_ROUNDS: u32 = 20;
const ORPHAN_PAUSE: Duration = Duration::from_millis(10);

/// The one waiter. Clones share its state.
#[derive(Clone, Debug)]
pub struct Reaper {
    /// The processes whose status is wanted. An entry goes while its pid is still reserved.
    adopted: Arc<Mutex<HashMap<Pid, Adopted>>>,
    /// Our children, orphans that became ours included (proc(5), /proc/pid/task/tid/children). Open all the time: when
    /// descriptors have run out, processes must be found all the same. `None`: there is no /proc.
    children: Arc<Option<File>>,
    /// Whether some orphans may descend from none of the adopted.
    has_strangers: bool,
}

/// A process whose status is wanted.
#[derive(Debug)]
struct Adopted {
    since: Instant,
    status: watch::Sender<Option<ExitStatus>>,
}

/// The end of one process. Each clone sees it.
#[derive(Clone, Debug)]
pub struct ExitWatch(watch::Receiver<Option<ExitStatus>>);

impl ExitWatch {
    /// Waits until the process has been reaped. Cancel safe.
    pub async fn wait(&mut self) -> ExitStatus {
        match self.0.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(ExitStatus::Unknown),
            Err(_) => ExitStatus::Unknown, // the reaper is gone
        }
    }

    /// The status, if the process has been reaped. Before that its pid cannot be given to another process.
    pub fn status(&self) -> Option<ExitStatus> {
        *self.0.borrow()
    }
}

impl Reaper {
    /// Makes orphans ours and starts reaping. Must be called on the runtime that also spawns the children, before the
    /// first of them.
    ///
    /// # Errors
    /// Where SIGCHLD cannot be listened to.
    pub fn start() -> io::Result<Self> {
        // No-op for PID 1; elsewhere it makes a grandchild whose parent died our child instead of init's.
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            warn!(
                event = "reaper.no_subreaper",
                error = error.to_string(),
                "orphaned processes of servers are left to init"
            );
        }
        let children = File::open("/proc/thread-self/children").ok();
        let mut reaper = Self { adopted: Arc::default(), children: Arc::new(children), has_strangers: false };
        // Process 1 is given the orphans of `docker exec` too, and a shell may have started others before it became us.
        reaper.has_strangers = nix::unistd::getpid().as_raw() == 1 || !reaper.children().is_empty();
        let mut child_ended = signal(SignalKind::child())?;
        let task = reaper.clone();
        tokio::spawn(async move {
            loop {
                let _ = tokio::time::timeout(SAFETY_NET, child_ended.recv()).await;
                while task.reap_some() {
                    yield_now().await;
                }
            }
        });
        Ok(reaper)
    }

    /// Takes charge of a process just spawned. There must be no await between spawn and this call: the reaper's task
    /// could run in between and take the process for an orphan.
    pub fn adopt(&self, pid: Pid) -> ExitWatch {
        let (sender, receiver) = watch::channel(None);
        self.lock().insert(pid, Adopted { since: Instant::now(), status: sender });
        ExitWatch(receiver)
    }

    /// Reaps what has ended, at most [`PER_TURN`] processes; returns whether there may be more. Signals coalesce, so one
    /// of them may stand for many ends.
    fn reap_some(&self) -> bool {
        for _ in 0..PER_TURN {
            // Looked at first and taken afterwards: while the process is a zombie its pid, and with it the number of
            // its process group, cannot be given to another.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let pid = match waitid(Id::All, flags) {
                Ok(status) => status.pid(),
                Err(Errno::EINTR) => continue,
                // A signal that nix has no name for ended it: a real-time one (signal(7)).
                Err(Errno::EINVAL) => self.ended_without_a_name(flags),
                Err(_) => None, // ECHILD: there is no child at all
            };
            let Some(pid) = pid else { return false };
            let adopted = self.lock().remove(&pid);
            if adopted.is_some() {
                // What the child left running in its own group goes with it.
                let _ = killpg(pid, Signal::SIGKILL);
            }
            let status = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => ExitStatus::Code(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => ExitStatus::Signal(signal.as_str()),
                Err(Errno::EINVAL) => ExitStatus::Signal("SIGRT"),
                _ => ExitStatus::Unknown,
            };
            match adopted {
                Some(adopted) => {
                    let _ = adopted.status.send(Some(status)); // the session may be over already
                }
                None => {
                    debug!(
                        event = "reaper.orphan",
                        pid = pid.as_raw(),
                        status = status.to_string(),
                        "an orphaned process of a server has exited"
                    );
                }
            }
        }
        true
    }

    /// The process that waitid(2) has just reported and nix could not describe.
    fn ended_without_a_name(&self, flags: WaitPidFlag) -> Option<Pid> {
        let adopted: Vec<Pid> = self.lock().keys().copied().collect();
        let unnamed = |pid: &Pid| waitid(Id::Pid(*pid), flags) == Err(Errno::EINVAL);
        adopted.into_iter().chain(self.children()).find(unnamed)
    }

    /// Orphans that became ours: what a child started and left behind.
    pub fn orphans(&self) -> Vec<Pid> {
        let adopted = self.lock();
        self.children().into_iter().filter(|pid| !adopted.contains_key(pid)).collect()
    }

    /// Whether some orphans may descend from none of the processes that are or were adopted.
    pub fn has_strangers(&self) -> bool {
        self.has_strangers
    }

    /// The process that was adopted before all others that live.
    pub fn oldest(&self) -> Option<Pid> {
        self.lock().iter().min_by_key(|(_, adopted)| adopted.since).map(|(pid, _)| *pid)
    }

    /// Kills whatever is left: children, and orphans of theirs that left their group and became ours. As process 1 the
    /// kernel does it when we exit; elsewhere they would live on.
    pub fn kill_orphans(&self) {
        // Killing a parent makes its children ours, so one look is not enough; the bound is for what will not die.
        for _ in 0..ORPHAN_ROUNDS {
            while self.reap_some() {}
            let children = self.children();
            if children.is_empty() {
                return;
            }
            for pid in children {
                debug!(
                    event = "reaper.kill",
                    pid = pid.as_raw(),
                    "a process that is left when the bridge exits is killed"
                );
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(ORPHAN_PAUSE); // the last thing the program does; nothing else runs any more
        }
    }

    fn children(&self) -> Vec<Pid> {
        let read = |mut file: &File| {
            let mut list = String::new();
            file.rewind().and_then(|()| file.read_to_string(&mut list)).map(|_| list)
        };
        let list = self.children.as_ref().as_ref().map(read).and_then(Result::ok).unwrap_or_default();
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Adopted>> {
        sync::lock(&self.adopted)
    }
}
