//! The processes that are measured, or take part: how they are started, looked at and ended.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tokio::time::sleep;

use crate::{Failure, Outcome};

/// How long a program may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// Memory has settled once it is the same so many times in a row, and how often it is looked at.
const SETTLED: usize = 5;
const SETTLE_LOOK: Duration = Duration::from_millis(100);

/// One of the programs beside this one.
pub fn program(name: &str) -> Outcome<PathBuf> {
    Ok(env::current_exe()?.with_file_name(name))
}

/// A process that serves HTTP. It ends when this is dropped, or when this program ends.
pub struct Server {
    process: Child,
    log: Option<PathBuf>,
    pub address: SocketAddr,
}

impl Server {
    /// Starts bare hyper, which gives this answer to everything.
    pub fn floor(answer: &[u8]) -> Outcome<Self> {
        let mut process =
            tied(program("floor")?.as_os_str())?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        process.stdin.take().ok_or("no stdin")?.write_all(answer)?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| format!("floor: no address: {line:?}"))?;
        Ok(Self { process, log: None, address })
    }

    /// Starts a bridge before the echo server, with defaults but for the port, which the kernel chooses, and for these
    /// options.
    pub async fn bridge(name: &str, path: &Path, more: &[&str]) -> Outcome<Self> {
        let options = [&["--listen", "127.0.0.1:0"], more].concat();
        Self::start(name, path, &options, "echo").await
    }

    /// Starts a bridge with these options, one of which says where it listens, before one of the programs beside this one.
    /// Over a unix socket it has no `address`.
    pub async fn start(name: &str, path: &Path, options: &[&str], child: &str) -> Outcome<Self> {
        let log = program(&format!("{name}.log"))?;
        let process = tied(path.as_os_str())?
            .args(options)
            .arg("--")
            .arg(program(child)?)
            .env_remove("RUST_LOG") // its first lines name the port
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut server = Self { process, log: Some(log), address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let begin = Instant::now();
        loop {
            if let Some(start) = first_line(&server.log()) {
                server.address.set_port(port(start).unwrap_or(0));
                return Ok(server);
            }
            if begin.elapsed() > PATIENCE || server.process.try_wait()?.is_some() {
                return Err(server.with_log(format!("{name} did not start").into()));
            }
            sleep(LOOK).await;
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.as_ref().and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// An error, together with the end of the bridge's log.
    pub fn with_log(&self, error: Failure) -> Failure {
        match self.log {
            Some(_) => format!("{error}\nthe end of the bridge's log:\n{}", tail(&self.log())).into(),
            None => error,
        }
    }

    /// Ends a bridge in order. The floor is simply killed.
    pub async fn end(mut self) -> Outcome<()> {
        if self.log.is_none() {
            return Ok(());
        }
        let stopped = self.stop().await;
        stopped.map_err(|error| self.with_log(error))
    }

    async fn stop(&mut self) -> Outcome<()> {
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGTERM)?;
        let begin = Instant::now();
        loop {
            match self.process.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("it ended with {status}").into()),
                None if begin.elapsed() > PATIENCE => return Err("it did not end".into()),
                None => sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended by itself
        let _ = self.process.wait();
    }
}

/// A command that is killed as soon as this program has ended. To be started on the main thread: the kernel looks at
/// the thread that started a process, not at its process (PR_SET_PDEATHSIG in prctl(2)).
fn tied(program_path: &OsStr) -> Outcome<Command> {
    let mut command = Command::new(program("tied")?);
    command.arg(process::id().to_string()).arg(program_path);
    Ok(command)
}

/// The last lines of a text.
fn tail(text: &str) -> &str {
    const LINES: usize = 20;
    let begin = text.trim_end().rmatch_indices('\n').nth(LINES - 1).map_or(0, |(at, _)| at + 1);
    &text[begin..]
}

/// The line of a log that names the address, once it is whole.
fn first_line(log: &str) -> Option<&str> {
    let whole = &log[..=log.rfind('\n')?];
    whole.lines().find(|line| line.contains("bridge.start"))
}

/// The port in the line that names the address.
fn port(start: &str) -> Option<u16> {
    let (_, rest) = start.split_once("http://127.0.0.1:")?;
    let digits = rest.find(|character: char| !character.is_ascii_digit())?;
    rest[..digits].parse().ok()
}

/// How much processor time processes have had so far, user and system, as utime and stime in proc(5) but exact.
pub fn cpu_time(processes: &[u32]) -> Outcome<Duration> {
    let time = |&process| -> Outcome<Duration> {
        Ok(clock_getcpuclockid(Pid::from_raw(i32::try_from(process)?))?.now()?.into())
    };
    processes.iter().map(time).sum()
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, PartialEq)]
pub struct Memory {
    pub resident: f64,
    /// Pages that it has written and shares with no other process.
    pub private_dirty: f64,
}

impl Memory {
    pub fn of(process: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let member = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            let number = value.and_then(|value| value.parse().ok());
            number.ok_or_else(|| io::Error::other(format!("smaps_rollup has no {name}")))
        };
        Ok(Self { resident: member("Rss:")?, private_dirty: member("Private_Dirty:")? })
    }

    /// That of a process which has nothing to do, as soon as it no longer changes.
    pub async fn settled(process: u32) -> Outcome<Self> {
        let begin = Instant::now();
        let (mut memory, mut same) = (Self::of(process)?, 0);
        while same < SETTLED && begin.elapsed() < PATIENCE {
            sleep(SETTLE_LOOK).await;
            let now = Self::of(process)?;
            same = if now == memory { same + 1 } else { 0 };
            memory = now;
        }
        Ok(memory)
    }
}
