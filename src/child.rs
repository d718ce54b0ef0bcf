//! One process in a session of its own, and its pipes.
//!
//! Spawning happens on the main thread and nowhere else: the kernel sends a child its parent-death signal when the
//! *thread* that spawned it ends (prctl(2), PR_SET_PDEATHSIG), and the main thread ends with the program.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::libc;
use nix::unistd::Pid;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::oom_score;
use crate::open_files;
use crate::reaper::Reaper;

mod command;
mod leftovers;
mod process;

pub use command::{Command, EnvPolicy, Tag, Unrunnable};
pub use leftovers::Leftovers;
pub use process::{Ladder, Process, TERM_GRACE, Termination};

use command::TAG_VARIABLE;

/// A running process and its three pipes, less those that have been taken.
#[derive(Debug)]
pub struct Child<E = Receiver> {
    pub process: Process,
    pub stdin: Sender,
    pub stdout: Receiver,
    pub stderr: E,
}

impl Command {
    /// Starts the process, with more variables in its environment. Blocks for the time of a fork and exec, about 0.3 ms.
    ///
    /// # Errors
    /// What fork(2), pipe(2) or execve(2) said.
    pub fn spawn(&self, more: &[(OsString, OsString)], reaper: &Reaper) -> io::Result<Child> {
        let tag = self.tags.next();
        let mut command = std::process::Command::new(&self.program);
        command.arg0(&self.name).args(&self.arguments).env_clear();
        command.envs(self.environment.iter().chain(more).map(|(name, value)| (name, value)));
        command.env(TAG_VARIABLE, &tag);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);

        let mut child = oom_score::of_a_child(|| command.spawn())?;
        // From here to adopt() nothing may be awaited, see there. std's Child has no Drop: it does not wait.
        let pid = Pid::from_raw(child.id().cast_signed());
        let is_container_client = self.runs_container();
        let process = Process { pid, tag, is_container_client, exit: reaper.adopt(pid) };
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
fn prepare(command: &mut std::process::Command) {
    let parent = nix::unistd::getpid().as_raw();
    let open_files = open_files::original();
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
            // It leads a session, and with it a group, which it can leave no more (setsid(2)): it has no terminal to write to or to
            // wait for, and no child of another session may join its group (setpgid(2)).
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
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
            // The child gets no descriptor that the bridge itself inherited without CLOEXEC. Marked and not closed: std
            // reports a failed exec through a pipe of its own.
            libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            Ok(())
        });
    }
}
