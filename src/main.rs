//! Options, log, bind, print, run, exit code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use mcp_bridge::child::{Command, Unrunnable, raise_open_files};
use mcp_bridge::cli::{self, LogFormat, Options, Task};
use mcp_bridge::drain::{self, Drain, Signals};
use mcp_bridge::http::guard::Trust;
use mcp_bridge::http::{self, Http};
use mcp_bridge::log;
use mcp_bridge::proto::machine::Limits;
use mcp_bridge::reaper::Reaper;
use mcp_bridge::server;
use mcp_bridge::server::listener::{self, Listener};
use mcp_bridge::session;
use mcp_bridge::sessions::{self, Sessions};
use tokio::time::timeout;
use tracing::{error, info, warn};

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
    log::start(options.log == LogFormat::Json);
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

async fn prepare(options: &Options) -> io::Result<(Listener, String, Signals, Reaper)> {
    let stop = Signals::listen()?;
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

/// The server's command, or what is wrong with it and the exit code that says so.
fn command(options: &Options) -> Result<Command, (String, u8)> {
    let set = options.env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let command = Command::new(&options.command, options.cwd.clone(), set).map_err(|why| {
        let code = match why {
            Unrunnable::NotFound { .. } => NOT_FOUND,
            Unrunnable::NotExecutable { .. } => NOT_EXECUTABLE,
            Unrunnable::NoDirectory { .. } => USAGE,
        };
        (why.to_string(), code)
    })?;
    Ok(command)
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

struct Environment;

impl cli::Environment for Environment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

/// Copies this program into a directory: an init container fills a shared volume with it, without a shell.
fn install(directory: &Path) -> io::Result<()> {
    std::fs::copy("/proc/self/exe", directory.join("mcp-bridge")).map(|_| ())
}

/// One sentence for the person at the terminal, in one write(2).
fn say(text: &str) {
    let _ = io::stderr().write_all(format!("mcp-bridge: {text}\n").as_bytes());
}
