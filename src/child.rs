//! One process in a process group of its own: its pipes, its environment, how it is asked to leave and what it leaves.
//!
//! Spawning happens on the main thread and nowhere else: the kernel sends a child its parent-death signal when the
//! *thread* that spawned it ends (prctl(2), PR_SET_PDEATHSIG), and the main thread ends with the program.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::reaper::{ExitWatch, Reaper};

/// How long after SIGTERM a process group gets SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long after SIGKILL a process is given up on: it hangs in the kernel (state D).
const KILL_GRACE: Duration = Duration::from_secs(1);

/// How often, and how far apart, leftovers of a child are looked for.
const CLEAR_UP_ROUNDS: u32 = 50;
const CLEAR_UP_PAUSE: Duration = Duration::from_millis(10);

/// Added to the child's `oom_score_adj`: when memory runs out, one session should die and not the bridge.
const OOM_SCORE_ADJ: &[u8] = b"300";

/// The command that every session runs.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, resolved.
    pub program: PathBuf,
    /// `argv[0]` as the operator wrote it.
    pub name: OsString,
    /// The arguments behind it.
    pub arguments: Vec<OsString>,
    /// The working directory; `None`: the bridge's own.
    pub directory: Option<PathBuf>,
    /// The whole environment, less what single children get in addition.
    pub environment: Vec<(OsString, OsString)>,
    tags: Arc<Tags>,
}

/// What a child inherits, and what it gets in addition.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The variables it inherits if they are there; `None`: all, less what is the bridge's own.
    pub only: Option<Vec<OsString>>,
    /// The variables it does not inherit: a client may give them, and where one does not they are not set.
    pub never: Vec<OsString>,
    /// Variables to set.
    pub set: Vec<(OsString, OsString)>,
}

impl Environment {
    /// What every program expects to find, and no secret is kept in: what the SDKs' own clients give to a server.
    pub const MINIMAL: [&str; 6] = ["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"];

    fn of_child(self) -> Vec<(OsString, OsString)> {
        // A value that begins like a shell function is run by an old bash (CVE-2014-6271).
        let harmless = |value: &OsStr| !value.as_encoded_bytes().starts_with(b"()");
        let wanted = |name: &OsStr, value: &OsStr| match &self.only {
            _ if self.never.iter().any(|never| never == name) => false,
            Some(only) => only.iter().any(|one| one == name) && harmless(value),
            None => true,
        };
        let mut environment: Vec<_> =
            std::env::vars_os().filter(|(name, value)| !is_ours(name) && wanted(name, value)).collect();
        environment.extend(self.set);
        environment
    }
}

/// The variable that tells the processes of one child from those of another, wherever they have gone.
const TAG: &str = "MCP_BRIDGE_CHILD";

/// Gives each child a name that no other has, nor one of another bridge.
#[derive(Debug)]
struct Tags {
    bridge: u64,
    last: AtomicU64,
}

impl Tags {
    fn new() -> Arc<Self> {
        // Without random numbers two bridges in one container might share a name; they do not see each other's orphans.
        Arc::new(Self { bridge: getrandom::u64().unwrap_or_default(), last: AtomicU64::new(0) })
    }

    fn next(&self) -> Arc<str> {
        format!("{:016x}.{}", self.bridge, self.last.fetch_add(1, Ordering::Relaxed)).into()
    }
}

/// Why a command cannot be run.
#[derive(Debug, PartialEq, Eq)]
pub enum Unrunnable {
    /// There is no such file.
    NotFound {
        /// As it was written.
        name: OsString,
        /// Where it was looked for.
        path: String,
    },
    /// There is, but it may not be executed.
    NotExecutable {
        /// As it was written.
        name: OsString,
    },
    /// The working directory is none.
    NoDirectory {
        /// As it was written.
        directory: PathBuf,
    },
}

impl fmt::Display for Unrunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name, path } => {
                write!(f, "{} is not there: no such file, and not in PATH={path}", name.display())
            }
            Self::NotExecutable { name } => write!(f, "{} is there and not executable", name.display()),
            Self::NoDirectory { directory } => write!(f, "--cwd is {}: not a directory", directory.display()),
        }
    }
}

/// Finds the file that `name` stands for, as execvp(3) would: through `path` unless it has a slash. A file that may not
/// be executed is passed over if a later directory has one that may.
fn resolve(name: &OsStr, path: &str) -> Result<PathBuf, Unrunnable> {
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![name.into()]
    } else {
        std::env::split_paths(path).map(|directory| directory.join(name)).collect()
    };
    let mut why = Unrunnable::NotFound { name: name.to_owned(), path: path.to_owned() };
    for candidate in candidates {
        let Ok(metadata) = std::fs::metadata(&candidate) else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            return Ok(candidate);
        }
        why = Unrunnable::NotExecutable { name: name.to_owned() };
    }
    Err(why)
}

/// Whether a variable is the bridge's own: its settings are none of the server's business, nor is what a service manager
/// says to the bridge. sd_notify(3) and sd_listen_fds(3) are for the process they were given to.
fn is_ours(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"MCP_BRIDGE_")
        || [&b"NOTIFY_SOCKET"[..], b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES"].contains(&name)
}

/// A running process and its three pipes, less those that somebody has taken.
#[derive(Debug)]
pub struct Child<E = Receiver> {
    /// Who it is.
    pub process: Process,
    /// Its stdin.
    pub stdin: Sender,
    /// Its stdout.
    pub stdout: Receiver,
    /// Its stderr.
    pub stderr: E,
}

impl Command {
    /// The command in `words`, its program found.
    ///
    /// # Errors
    /// [`Unrunnable`].
    pub fn new(
        words: &[OsString],
        directory: Option<PathBuf>,
        environment: Environment,
    ) -> Result<Self, Unrunnable> {
        let (name, arguments) =
            words.split_first().map(|(name, rest)| (name.clone(), rest.to_vec())).unwrap_or_default();
        let environment = environment.of_child();
        let path = environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let path = path.unwrap_or_default();
        let program = resolve(&name, &path.to_string_lossy())?;
        if let Some(directory) = directory.clone().filter(|directory| !directory.is_dir()) {
            return Err(Unrunnable::NoDirectory { directory });
        }
        Ok(Self { program, name, arguments, directory, environment, tags: Tags::new() })
    }

    /// Starts the process, with more variables in its environment. Blocks for the time of a fork and exec, about 0.3 ms.
    ///
    /// # Errors
    /// What fork(2), pipe(2) or execve(2) said.
    pub fn spawn(&self, more: &[(OsString, OsString)], reaper: &Reaper) -> io::Result<Child> {
        let tag = self.tags.next();
        let mut command = process::Command::new(&self.program);
        command.arg0(&self.name).args(&self.arguments).env_clear();
        command.envs(self.environment.iter().chain(more).map(|(name, value)| (name, value)));
        command.env(TAG, &*tag);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        prepare(&mut command);

        let mut child = command.spawn()?;
        // From here to adopt() nothing may be awaited, see there. std's Child has no Drop: it does not wait.
        let pid = Pid::from_raw(child.id().cast_signed());
        let process = Process { pid, tag, exit: reaper.adopt(pid) };
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("a pipe is missing"));
        };
        let pipes = || {
            Ok((
                Sender::from_owned_fd(OwnedFd::from(stdin))?,
                Receiver::from_owned_fd(OwnedFd::from(stdout))?,
                Receiver::from_owned_fd(OwnedFd::from(stderr))?,
            ))
        };
        match pipes() {
            Ok((stdin, stdout, stderr)) => Ok(Child { process, stdin, stdout, stderr }),
            Err(error) => {
                process.kill();
                Err(error)
            }
        }
    }
}

/// Sets up what must happen between fork and exec.
#[allow(unsafe_code)]
fn prepare(command: &mut process::Command) {
    let parent = nix::unistd::getpid().as_raw();
    let open_files = original_open_files();
    // SAFETY: between fork and exec in a process that may have threads only async-signal-safe calls are allowed
    // (signal-safety(7)). The closure makes direct system calls with values computed before, takes no lock and
    // allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // If the bridge is killed its direct children go too. The parent may have died before this call.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != parent {
                libc::_exit(127);
            }
            // Dispositions other than "ignore" are reset by execve(2), ignored ones and the mask are inherited.
            for signal in [
                libc::SIGHUP,
                libc::SIGINT,
                libc::SIGQUIT,
                libc::SIGTERM,
                libc::SIGUSR1,
                libc::SIGUSR2,
                libc::SIGPIPE,
                libc::SIGCHLD,
            ] {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
            if let Some((soft, hard)) = open_files {
                let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            }
            let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if score >= 0 {
                libc::write(score, OOM_SCORE_ADJ.as_ptr().cast(), OOM_SCORE_ADJ.len());
                libc::close(score);
            }
            // What the bridge itself inherited without CLOEXEC is none of the child's business. Marked and not
            // closed: std reports a failed exec through a pipe of its own.
            libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            Ok(())
        });
    }
}

/// The limit of open files, soft and hard, that the bridge was started with.
static OPEN_FILES: std::sync::OnceLock<(u64, u64)> = std::sync::OnceLock::new();

fn original_open_files() -> Option<(u64, u64)> {
    OPEN_FILES.get().copied()
}

/// Raises the soft limit of open files to the hard one. Each session takes three pipes and each client a socket, but
/// children must see the limit as it was: programs that use select(2) break on descriptors beyond 1023. Returns how
/// many files may be open then.
pub fn raise_open_files() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let _ = OPEN_FILES.set((soft, hard));
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        debug!(event = "limits.open_files", %error, soft, hard);
        return Some(soft);
    }
    Some(hard)
}

/// A process that leads its own group.
#[derive(Clone, Debug)]
pub struct Process {
    pid: Pid,
    tag: Arc<str>,
    /// Its end.
    pub exit: ExitWatch,
}

/// How a process was made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// By itself, when its stdin ended.
    Eof,
    /// By SIGTERM.
    Term,
    /// By SIGKILL.
    Kill,
    /// Not at all: it hangs in the kernel.
    Unkillable,
}

impl fmt::Display for Farewell {
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

    /// Sees the process out: its stdin has been closed, which is the one sign that every server understands; after
    /// `grace` its group gets SIGTERM, and [`TERM_GRACE`] (or `grace`, if that is shorter) later SIGKILL.
    pub async fn see_out(&mut self, grace: Duration) -> Farewell {
        let steps = [
            (None, grace, Farewell::Eof),
            (Some(Signal::SIGTERM), TERM_GRACE.min(grace), Farewell::Term),
            (Some(Signal::SIGKILL), KILL_GRACE, Farewell::Kill),
        ];
        for (signal, patience, farewell) in steps {
            if let Some(signal) = signal {
                if self.exit.status().is_some() {
                    return farewell;
                }
                warn!(event = "child.kill", pid = self.pid(), %signal);
                self.signal(signal);
            }
            if timeout(patience, self.exit.wait()).await.is_ok() {
                return farewell;
            }
        }
        warn!(
            event = "child.unkillable",
            pid = self.pid(),
            "it hangs in the kernel; the bridge goes on without it"
        );
        Farewell::Unkillable
    }

    /// Kills what the process left running outside of its group. Orphans of ours carry its tag in their environment; what
    /// they have started in turn becomes ours when they are gone.
    pub async fn clear_up(&self, reaper: &Reaper) {
        let mut clean = 0;
        for _ in 0..CLEAR_UP_ROUNDS {
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
            sleep(CLEAR_UP_PAUSE).await;
        }
    }

    /// Whether this process descends from ours, as long as its environment has not been changed (proc(5)).
    fn has_tag(&self, pid: Pid) -> bool {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let ours = format!("{TAG}={}", self.tag);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_execvp_finds_it() {
        let found = |name: &str, path: &str| resolve(OsStr::new(name), path);
        let not_executable = |name: &str| Err(Unrunnable::NotExecutable { name: name.into() });
        assert_eq!(found("sh", "/nonexistent:/bin"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(found("/bin/sh", ""), Ok(PathBuf::from("/bin/sh")));
        assert!(matches!(found("no-such-program", "/bin"), Err(Unrunnable::NotFound { .. })));
        assert_eq!(found("/etc/passwd", ""), not_executable("/etc/passwd"));
        assert_eq!(found("/etc", ""), not_executable("/etc"));
        assert_eq!(found("passwd", "/etc:/nonexistent"), not_executable("passwd"));
    }
}
