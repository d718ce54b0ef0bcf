//! Options, log, bind, print, run, exit code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use mcp_bridge::child::{Command, Unrunnable, raise_open_files, resolve};
use mcp_bridge::cli::{self, LogFormat, Options, Task};
use mcp_bridge::drain::{self, Drain};
use mcp_bridge::http::guard::Trust;
use mcp_bridge::http::{self, Http};
use mcp_bridge::log;
use mcp_bridge::proto::machine::Limits;
use mcp_bridge::reaper::Reaper;
use mcp_bridge::server;
use mcp_bridge::server::listener::{self, Listener};
use mcp_bridge::session;
use mcp_bridge::sessions::{self, Sessions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::{error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

/// Every process that was asked to end has ended.
const DRAINED: u8 = 0;
/// The drain ran out of time and what was left has been killed.
const OUT_OF_TIME: u8 = 1;
/// The address cannot be listened on, or the health check failed.
const CANNOT_LISTEN: u8 = 2;
/// EX_USAGE of sysexits(3).
const USAGE: u8 = 64;
/// What shells say of a command that is there and cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// What shells say of a command that is not there.
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).collect();
    match cli::parse(arguments, &Environment, listener::container_evidence()) {
        Ok(Task::Serve(options)) => serve(&options).into(),
        Ok(Task::Check(options)) => match command(&options) {
            Ok(command) => {
                say(&format!("options are good; the command is {}", command.program.display()));
                ExitCode::SUCCESS
            }
            Err((why, code)) => {
                say(&why);
                code.into()
            }
        },
        Ok(Task::Install(directory)) => match install(&directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("--install is {directory:?}: {error}"));
                USAGE.into()
            }
        },
        Ok(Task::HealthCheck(address)) => u8::from(!listener::is_ready(&address)).into(),
        Ok(Task::Print(text)) => {
            // Asked for, so it is an answer and not a log line: the one thing that goes to stdout.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&why);
            USAGE.into()
        }
    }
}

fn serve(options: &Options) -> u8 {
    start_log(options.log);
    for name in &options.unknown_variables {
        warn!(event = "options.unknown_variable", name, "no option is called this; see --help");
    }
    let command = match command(options) {
        Ok(command) => command,
        Err((why, code)) => {
            error!(event = "child.command_missing", code, "{why}");
            return code;
        }
    };
    raise_open_files();
    // One thread, and it is the main one: children die with the thread that started them (see child.rs).
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(event = "bridge.no_runtime", %error);
            return CANNOT_LISTEN;
        }
    };
    let code = runtime.block_on(run(options, command));
    log::flush();
    code
}

async fn run(options: &Options, command: Command) -> u8 {
    let (listener, url, mut stop, reaper) = match prepare(options).await {
        Ok(prepared) => prepared,
        Err(error) => {
            error!(event = "listen.failed", listen = ?options.listen, %error, "--listen takes another address");
            return CANNOT_LISTEN;
        }
    };
    let sessions = Sessions::new(sessions_config(options), command, reaper.clone());
    if let Err(error) = sessions.start_ahead() {
        error!(event = "child.spawn_failed", %error);
        return NOT_EXECUTABLE;
    }
    info!(
        event = "bridge.start",
        listen = format!("{url}{}", options.path),
        because = options.listen_because,
        command = ?options.command,
        era = "legacy",
        max_sessions = options.max_sessions,
        idle_timeout = ?options.idle_timeout,
        request_timeout = ?options.request_timeout,
        max_body = options.max_body,
        max_message = options.max_message,
        version = env!("CARGO_PKG_VERSION"),
    );
    let http = Arc::new(Http::new(http_config(options, &listener), Arc::clone(&sessions)));
    let (drain, watch) = drain::channel();
    let server = tokio::spawn(server::serve(listener, Arc::clone(&http), watch));

    let first = stop.next().await;
    info!(event = "bridge.stopping", signal = first.name, sessions = sessions.count(), within = ?options.shutdown_timeout);
    let code = tokio::select! {
        in_time = wind_down(options, &http, &sessions, drain), if first.patient => {
            if in_time { DRAINED } else { OUT_OF_TIME }
        }
        second = stop.next(), if first.patient => 128 + second.number,
        else => 128 + first.number,
    };
    sessions.kill_all();
    reaper.kill_orphans();
    server.abort();
    let left = sessions.count();
    info!(event = "bridge.exit", code, left);
    code
}

async fn prepare(options: &Options) -> io::Result<(Listener, String, Stop, Reaper)> {
    let stop = Stop::new()?;
    let reaper = Reaper::start()?;
    let listener = Listener::bind(&options.listen).await?;
    let url = listener.url()?;
    Ok((listener, url, stop, reaper))
}

/// Ends everything in order. The listener stays open meanwhile: a balancer needs a moment to look elsewhere. Whether
/// all sessions ended in time.
async fn wind_down(options: &Options, http: &Http, sessions: &Sessions, drain: Drain) -> bool {
    // An eighth of the time is for the last bytes on the wire, half of the rest for calls in flight.
    let last = options.shutdown_timeout / 8;
    let half = (options.shutdown_timeout - last) / 2;
    sessions.drain();
    http.drain();
    let mut in_time = timeout(half, sessions.drained()).await.is_ok();
    if !in_time {
        sessions.end_all();
        in_time = timeout(half, sessions.drained()).await.is_ok();
    }
    // Who is still sending a request, or reading an old answer, belongs to no session and has had its time.
    let _ = timeout(last, drain.drain()).await;
    in_time
}

fn command(options: &Options) -> Result<Command, (String, u8)> {
    let Some((name, arguments)) = options.command.split_first() else {
        return Err(("no server command".to_owned(), USAGE));
    };
    let set: Vec<(OsString, OsString)> =
        options.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let path = options.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    let path = path.or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
    let program = resolve(Path::new(name), &path).map_err(|why| match why {
        Unrunnable::NotFound => {
            (format!("{} is not there: no such file, and not in PATH={path}", name.display()), NOT_FOUND)
        }
        Unrunnable::NotExecutable => {
            (format!("{} is there and not executable", name.display()), NOT_EXECUTABLE)
        }
    })?;
    if let Some(directory) = &options.cwd
        && !directory.is_dir()
    {
        return Err((format!("--cwd is {}: not a directory", directory.display()), USAGE));
    }
    // The bridge's own settings are none of the server's business, nor is what a service manager says to the bridge:
    // sd_notify(3) and sd_listen_fds(3) are for the process they were given to.
    let ours = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(b"MCP_BRIDGE_")
            || [&b"NOTIFY_SOCKET"[..], b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES"].contains(&name)
    };
    let unset = std::env::vars_os().map(|(name, _)| name).filter(ours).collect();
    let (name, arguments) = (name.clone(), arguments.to_vec());
    Ok(Command { program, name, arguments, directory: options.cwd.clone(), set, unset })
}

fn sessions_config(options: &Options) -> sessions::Config {
    sessions::Config {
        max_sessions: options.max_sessions,
        replica: options.replica.clone(),
        // One child ahead of the first session by default: its client does not wait for the process to start.
        ahead: options.warm.max(usize::from(!options.lazy)),
        warm: options.warm,
        evict: options.evict,
        stop_grace: options.stop_grace,
        // Of the half that is not for calls in flight, EOF and SIGTERM get two fifths each.
        shutdown_grace: options.shutdown_timeout / 6,
        session: session::Config {
            limits: Limits {
                init_timeout: options.init_timeout,
                request_timeout: options.request_timeout,
                max_in_flight: options.max_in_flight,
            },
            idle_timeout: options.idle_timeout,
            max_lifetime: options.max_lifetime,
            max_body: options.max_body,
            max_message: options.max_message,
            replay_buffer: options.replay_buffer,
            prime: options.prime,
        },
    }
}

fn http_config(options: &Options, listener: &Listener) -> http::Config {
    http::Config {
        path: options.path.clone(),
        trust: Trust {
            loopback: listener.is_loopback(),
            origins: options.allow_origin.clone(),
            hosts: options.allow_host.clone(),
        },
        max_body: options.max_body,
        sse_after: options.sse_after,
        keep_alive: options.keep_alive,
        prime: options.prime,
        sse_compat: options.sse_compat,
    }
}

/// The signals that end the program, in the order in which they come.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
}

/// One of them.
struct StopSignal {
    name: &'static str,
    number: u8,
    /// Whether calls in flight may finish.
    patient: bool,
}

impl Stop {
    /// Registered before the first child is started: as process 1 the kernel drops what nobody listens to.
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> StopSignal {
        let (name, number, patient) = tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 15, true), // what orchestrators send
            _ = self.interrupt.recv() => ("SIGINT", 2, true),   // Ctrl-C
            _ = self.hangup.recv() => ("SIGHUP", 1, true),      // the terminal has been closed
            _ = self.quit.recv() => ("SIGQUIT", 3, false),      // Ctrl-\: now
        };
        StopSignal { name, number, patient }
    }
}

struct Environment;

impl cli::Environment for Environment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

fn start_log(format: LogFormat) {
    let level = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let level = level.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let layer = fmt::layer().with_writer(|| log::Stderr).with_ansi(false).with_target(false);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    registry().with(layer.with_filter(level)).init();
}

/// Copies this program into a directory: an init container fills a shared volume with it, without a shell.
fn install(directory: &Path) -> io::Result<()> {
    std::fs::copy("/proc/self/exe", directory.join("mcp-bridge")).map(|_| ())
}

/// One sentence for the person at the terminal, in one write(2).
fn say(text: &str) {
    let _ = io::stderr().write_all(format!("mcp-bridge: {text}\n").as_bytes());
}
