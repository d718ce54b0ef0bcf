//! Tasks and exit codes: options, log, bind, run, code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use mcp_bridge::address::Address;
use mcp_bridge::assembly::{self, Prepared, Unusable};
use mcp_bridge::child::Unrunnable;
use mcp_bridge::cli::{self, Options, Task};
use mcp_bridge::http::Http;
use mcp_bridge::probe::{check, check::Checked, health, text};
use mcp_bridge::reaper::Reaper;
use mcp_bridge::server::listener::Listener;
use mcp_bridge::sessions::{NoSession, Sessions};
use mcp_bridge::shutdown::{self, Outcome, Steps};
use mcp_bridge::signals::Signals;
use mcp_bridge::{container, drain, dumpable, heap, log, oom_score, open_files, server};
use tracing::{error, info, warn};

// Exit codes.
const DRAINED: u8 = 0; // every session and child ended as it should
const OUT_OF_TIME: u8 = 1; // the shutdown ran out of time and what was left has been killed
const CANNOT_LISTEN: u8 = 2;
const USAGE: u8 = 64; // EX_USAGE of sysexits(3)
const NOT_EXECUTABLE: u8 = 126; // as in a shell: the command is there and cannot be run
const NOT_FOUND: u8 = 127; // as in a shell: the command is not there
const SIGNALED: u8 = 128; // as in a shell: plus the number of the signal

fn main() -> ExitCode {
    heap::keep_large_buffers_apart();
    oom_score::open();
    let concealed = dumpable::clear();
    let arguments = std::env::args_os().skip(1).collect();
    let code = match cli::parse(arguments, &assembly::Environment, container::evidence()) {
        Ok(Task::Serve(options)) => serve(&options, concealed),
        Ok(Task::Check(options)) => check(&options),
        Ok(Task::Install(directory)) => install(&directory),
        Ok(Task::HealthCheck(addresses)) => health_check(&addresses),
        Ok(Task::Print(text)) => {
            // Asked for, so it is an answer and not a log line: the one thing that goes to stdout.
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        Err(why) => say(&why, USAGE),
    };
    code.into()
}

fn serve(options: &Options, concealed: io::Result<()>) -> u8 {
    log::start(options.log);
    if let Err(error) = concealed {
        let why = "other processes of this user, servers too, can read the bridge's environment and memory";
        warn!(event = "bridge.readable", error = error.to_string(), "{why}");
    }
    for name in &options.unknown_variables {
        warn!(event = "options.unknown_variable", name, "this variable sets no option; see --help");
    }
    let prepared = match Prepared::find(options) {
        Ok(prepared) => prepared,
        Err(why) => {
            let code = unusable(&why);
            error!(event = why.event(), code, "{why}");
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
            error!(
                event = "bridge.no_runtime",
                error = error.to_string(),
                "cannot start; raise the limits of open files and memory"
            );
            CANNOT_LISTEN
        }
    };
    log::flush();
    code
}

async fn run(options: &Options, prepared: Prepared, open_files: Option<u64>) -> u8 {
    let Prepared { command, tokens, metadata } = prepared;
    let listener = match Listener::bind(&options.listen, options.socket_mode).await {
        Ok(listener) => listener,
        Err(why) => {
            error!(event = "listen.failed", "{why}");
            return CANNOT_LISTEN;
        }
    };
    let (mut signals, reaper) = match Signals::listen().and_then(|signals| Ok((signals, Reaper::start()?))) {
        Ok(started) => started,
        Err(error) => {
            error!(
                event = "bridge.no_runtime",
                error = error.to_string(),
                "cannot start; raise the limits of open files and memory"
            );
            return CANNOT_LISTEN;
        }
    };
    let server_config = assembly::server_config(options, open_files);
    assembly::log_start(options, &listener, &server_config, open_files, tokens.is_some());
    let sessions = Sessions::new(assembly::sessions_config(options), command, reaper.clone());
    if let Err(NoSession::Spawn { error, resource }) = sessions.prewarm() {
        if !resource {
            error!(event = "child.spawn_failed", error = error.to_string(), "the server cannot be started");
            return NOT_EXECUTABLE;
        }
        warn!(
            event = "child.spawn_failed",
            error = error.to_string(),
            resource,
            "the server cannot be started yet"
        );
    }
    let http = assembly::http_config(options, &listener, tokens.clone(), metadata);
    let http = Arc::new(Http::new(http, Arc::clone(&sessions)));
    if let Some(tokens) = &tokens {
        let http = Arc::downgrade(&http);
        tokens.on_change(move |valid| {
            if let Some(http) = http.upgrade() {
                http.keep_callers(valid);
            }
        });
    }
    tokio::spawn(heap::give_back_when_quiet());
    let (drain, watch) = drain::channel();
    let server = tokio::spawn(server::serve(listener, server_config, Arc::clone(&http).service(), watch));

    let mut stop = async || shutdown::requested(&mut signals, &sessions, tokens.as_deref()).await;
    let first = stop().await;
    let steps = Steps::within(options.shutdown_timeout);
    let code = match shutdown::run(first, stop(), steps, &http, &sessions, drain).await {
        Outcome::Drained => DRAINED,
        Outcome::OutOfTime => OUT_OF_TIME,
        Outcome::Forced(signal) => SIGNALED + signal.number(),
    };
    reaper.kill_orphans();
    server.abort();
    info!(event = "bridge.exit", code, left = sessions.count(), "the bridge exits");
    code
}

/// Starts the server once, and says whether it works: 0 or 1.
fn check(options: &Options) -> u8 {
    for name in &options.unknown_variables {
        say(&format!("the variable {name} sets no option; see --help"), 0);
    }
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

/// Asks whether a bridge is ready: 0 or 1. Where it is started with several addresses, any of them will do.
fn health_check(addresses: &[Address]) -> u8 {
    let mut why = String::new();
    for address in addresses {
        match health::ask(address) {
            Ok(()) => return 0,
            Err(error) => why = error,
        }
    }
    say(&why, 1)
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
