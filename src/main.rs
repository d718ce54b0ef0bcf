//! Tasks and exit codes: options, log, bind, run, code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use mcp_bridge::assembly::{self, Prepared, Unusable};
use mcp_bridge::child::Unrunnable;
use mcp_bridge::cli::{self, LogFormat, Options, Task};
use mcp_bridge::http::Http;
use mcp_bridge::probe::{check, check::Checked, health, text};
use mcp_bridge::reaper::Reaper;
use mcp_bridge::server::listener::Listener;
use mcp_bridge::sessions::{NoSession, Sessions};
use mcp_bridge::shutdown::{self, Outcome, Steps};
use mcp_bridge::signals::Signals;
use mcp_bridge::{container, drain, log, open_files, server};
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
/// What shells add to the number of the signal that ended a program.
const SIGNALED: u8 = 128;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).collect();
    let code = match cli::parse(arguments, &Environment, container::evidence()) {
        Ok(Task::Serve(options)) => serve(&options),
        Ok(Task::Check(options)) => check(&options),
        Ok(Task::Install(directory)) => install(&directory),
        Ok(Task::HealthCheck(address)) => u8::from(!health::is_ready(&address)),
        Ok(Task::Print(text)) => {
            // Asked for, so it is an answer and not a log line: the one thing that goes to stdout.
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        Err(why) => say(&why, USAGE),
    };
    code.into()
}

fn serve(options: &Options) -> u8 {
    log::start(options.log == LogFormat::Json);
    for name in &options.unknown_variables {
        warn!(event = "options.unknown_variable", name, "no option is called this; see --help");
    }
    let prepared = match Prepared::find(options) {
        Ok(prepared) => prepared,
        Err(why) => {
            let event = match why {
                Unusable::Command(Unrunnable::NotFound { .. } | Unrunnable::NotExecutable { .. }) => {
                    "child.command_missing"
                }
                Unusable::Command(Unrunnable::NoDirectory { .. }) | Unusable::Option(_) => "options.unusable",
            };
            let code = unusable(&why);
            error!(event, code, "{why}");
            return code;
        }
    };
    let open_files = open_files::raise();
    // One thread, and it is the main one: children die with the thread that started them (see child.rs).
    let runtime =
        open_files::check().and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
    let code = match runtime {
        Ok(runtime) => runtime.block_on(run(options, prepared, open_files)),
        Err(error) => {
            error!(event = "bridge.no_runtime", %error, "raise the limits of open files and memory");
            CANNOT_LISTEN
        }
    };
    log::flush();
    code
}

async fn run(options: &Options, prepared: Prepared, open_files: Option<u64>) -> u8 {
    let Prepared { command, tokens, metadata } = prepared;
    let bound = async {
        let (signals, reaper) = (Signals::listen()?, Reaper::start()?);
        let listener = Listener::bind(&options.listen).await?;
        let url = listener.url()?;
        Ok::<_, io::Error>((signals, reaper, listener, url))
    };
    let (mut signals, reaper, listener, url) = match bound.await {
        Ok(bound) => bound,
        Err(error) => {
            error!(event = "listen.failed", listen = ?options.listen, %error, "--listen takes another address");
            return CANNOT_LISTEN;
        }
    };
    let sessions = Sessions::new(assembly::sessions_config(options), command, reaper.clone());
    match sessions.prewarm() {
        Ok(()) => {}
        // It may be there for the first session.
        Err(NoSession::Spawn { error, resource: true }) => {
            warn!(event = "child.spawn_failed", %error, resource = true)
        }
        Err(NoSession::Spawn { error, .. }) => {
            error!(event = "child.spawn_failed", %error);
            return NOT_EXECUTABLE;
        }
        Err(_) => {} // the pool is off
    }
    let server_config = assembly::server_config(options, open_files);
    info!(
        event = "bridge.start",
        listen = format!("{url}{}", options.path),
        because = options.listen_because,
        command = ?options.command,
        era = "legacy",
        token = tokens.is_some(),
        max_sessions = options.max_sessions,
        max_connections = server_config.max_connections,
        idle_timeout = ?options.idle_timeout,
        request_timeout = ?options.request_timeout,
        max_body = options.max_body,
        max_message = options.max_message,
        version = env!("CARGO_PKG_VERSION"),
    );
    if tokens.is_none() && listener.is_reachable() {
        warn!(
            event = "auth.none",
            "whoever reaches this address can use the server; --token-file asks for a token"
        );
    }
    let http = assembly::http_config(options, &listener, tokens.clone(), metadata);
    let http = Arc::new(Http::new(http, Arc::clone(&sessions)));
    let (drain, watch) = drain::channel();
    let server = tokio::spawn(server::serve(listener, server_config, Arc::clone(&http).service(), watch));

    let first = shutdown::requested(&mut signals, &sessions, tokens.as_deref()).await;
    info!(event = "bridge.stopping", signal = first.name(), sessions = sessions.count(), within = ?options.shutdown_timeout);
    let second = shutdown::requested(&mut signals, &sessions, tokens.as_deref());
    let steps = Steps::within(options.shutdown_timeout);
    let code = match shutdown::run(first, second, steps, &http, &sessions, drain).await {
        Outcome::Drained => DRAINED,
        Outcome::OutOfTime => OUT_OF_TIME,
        Outcome::Forced(signal) => SIGNALED + signal.number(),
    };
    reaper.kill_orphans();
    server.abort();
    info!(event = "bridge.exit", code, left = sessions.count());
    code
}

/// Starts the server once, and says whether it works: 0 or 1.
fn check(options: &Options) -> u8 {
    match Prepared::find(options).map(|found| check::run(&found.command, &assembly::probe_config(options))) {
        Ok(Checked::Probed(report)) => say(&text::of(&report), u8::from(report.failure.is_some())),
        Ok(Checked::NotStarted(why)) => say(&why, NOT_EXECUTABLE),
        Ok(Checked::Stopped(signal)) => SIGNALED + signal.number(),
        Err(why) => say(&why.to_string(), unusable(&why)),
    }
}

fn unusable(why: &Unusable) -> u8 {
    match why {
        Unusable::Command(Unrunnable::NotFound { .. }) => NOT_FOUND,
        Unusable::Command(Unrunnable::NotExecutable { .. }) => NOT_EXECUTABLE,
        Unusable::Command(Unrunnable::NoDirectory { .. }) | Unusable::Option(_) => USAGE,
    }
}

/// Copies this program into a directory: an init container fills a shared volume with it, without a shell.
fn install(directory: &Path) -> u8 {
    match std::fs::copy("/proc/self/exe", directory.join("mcp-bridge")) {
        Ok(_) => 0,
        Err(error) => say(&format!("--install is {directory:?}: {error}"), USAGE),
    }
}

/// Writes one sentence for the person at the terminal, in one write(2). Hands back the `code`.
fn say(text: &str, code: u8) -> u8 {
    let _ = io::stderr().write_all(format!("mcp-bridge: {text}\n").as_bytes());
    code
}

struct Environment;

impl cli::EnvSource for Environment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}
