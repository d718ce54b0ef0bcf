//! Options, log, bind, print, run, exit code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;
use mcp_bridge::child::{self, Command, Unrunnable, raise_open_files};
use mcp_bridge::cli::{self, LogFormat, OnExit, Options, SessionKey, Task};
use mcp_bridge::drain::{self, Drain, Heard, Signals};
use mcp_bridge::http::guard::Trust;
use mcp_bridge::http::metadata::Metadata;
use mcp_bridge::http::{self, Http};
use mcp_bridge::log;
use mcp_bridge::probe::health;
use mcp_bridge::proto::link::{Limits, Readiness};
use mcp_bridge::reaper::Reaper;
use mcp_bridge::secret::Tokens;
use mcp_bridge::server;
use mcp_bridge::server::listener::{self, Listener};
use mcp_bridge::session;
use mcp_bridge::sessions::{self, NoSession, Sessions};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

/// How long the last errors may take to the wire when the program ends at once.
const PARTING: Duration = Duration::from_millis(100);

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
        Ok(Task::Check(options)) => match Means::find(&options) {
            Ok(means) => {
                say(&format!("options are good; the command is {}", means.command.program.display()));
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
        Ok(Task::HealthCheck(address)) => u8::from(!health::is_ready(&address)).into(),
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
    let means = match Means::find(options) {
        Ok(means) => means,
        Err((why, code)) => {
            let event = if code == USAGE { "options.unusable" } else { "child.command_missing" };
            error!(event, code, "{why}");
            return code;
        }
    };
    let open_files = raise_open_files();
    // One thread, and it is the main one: children die with the thread that started them (see child.rs).
    let runtime =
        enough_files().and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(event = "bridge.no_runtime", %error, "raise the limits of open files and memory");
            return CANNOT_LISTEN;
        }
    };
    let code = runtime.block_on(run(options, means, open_files));
    log::flush();
    code
}

/// Whether there are descriptors for a beginning: tokio panics where it gets none for its signals.
fn enough_files() -> io::Result<()> {
    let pipes: io::Result<Vec<_>> = (0..FIRST_FILES / 2).map(|_| io::pipe()).collect();
    pipes.map(drop)
}

async fn run(options: &Options, means: Means, open_files: Option<u64>) -> u8 {
    let (listener, url, mut signals, reaper) = match prepare(options).await {
        Ok(prepared) => prepared,
        Err(error) => {
            error!(event = "listen.failed", listen = ?options.listen, %error, "--listen takes another address");
            return CANNOT_LISTEN;
        }
    };
    let Means { command, tokens, metadata } = means;
    let sessions = Sessions::new(sessions_config(options), command, reaper.clone());
    match sessions.start_ahead() {
        Ok(()) => {}
        // It may be there for the first session, and then it is nobody's fault.
        Err(NoSession::Spawn { error, resource: true }) => {
            warn!(event = "child.spawn_failed", %error, resource = true)
        }
        Err(NoSession::Spawn { error, .. }) => {
            error!(event = "child.spawn_failed", %error);
            return NOT_EXECUTABLE;
        }
        Err(_) => {} // none is wanted
    }
    let server_config = server_config(options, open_files);
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
    let http = http_config(options, &listener, tokens.clone(), metadata);
    let http = Arc::new(Http::new(http, Arc::clone(&sessions)));
    let (drain, watch) = drain::channel();
    let server = tokio::spawn(server::serve(listener, server_config, Arc::clone(&http).service(), watch));

    let first = stop_signal(&mut signals, &sessions, tokens.as_deref()).await;
    info!(event = "bridge.stopping", signal = first.name(), sessions = sessions.count(), within = ?options.shutdown_timeout);
    let patient = first != Heard::Quit;
    let code = tokio::select! {
        in_time = wind_down(options, &http, &sessions, drain), if patient => {
            if in_time { DRAINED } else { OUT_OF_TIME }
        }
        second = stop_signal(&mut signals, &sessions, tokens.as_deref()), if patient => second.exit_code(),
        else => first.exit_code(),
    };
    sessions.drain(); // where nobody has yet: nothing is started any more
    if sessions.count() > 0 {
        sessions.end_all();
        sessions.kill_all();
        sleep(PARTING).await;
    }
    reaper.kill_orphans();
    server.abort();
    let left = sessions.count();
    info!(event = "bridge.exit", code, left);
    code
}

/// Waits for a signal that ends the program, and does what others ask for.
async fn stop_signal(signals: &mut Signals, sessions: &Sessions, tokens: Option<&Tokens>) -> Heard {
    loop {
        match (signals.next().await, tokens.filter(|tokens| tokens.can_reload())) {
            (Heard::User1, _) => sessions.dump(),
            (Heard::Hangup, Some(tokens)) => tokens.reload(),
            (heard, _) => return heard,
        }
    }
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
async fn wind_down(options: &Options, http: &Http, sessions: &Arc<Sessions>, drain: Drain) -> bool {
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

/// What the options name and the system must have.
struct Means {
    command: Command,
    tokens: Option<Arc<Tokens>>,
    metadata: Option<Metadata>,
}

impl Means {
    /// Finds it all, or says what is wrong and with which exit code.
    fn find(options: &Options) -> Result<Self, (String, u8)> {
        let usage = |why| (why, USAGE);
        let tokens = match (&options.token_file, &options.token) {
            (Some(file), _) => Some(Tokens::from_file(file.clone()).map_err(usage)?),
            (None, Some(text)) => Some(Tokens::from_text(text).map_err(usage)?),
            (None, None) => None,
        };
        let metadata = match &options.resource_metadata {
            Some(url) => Some(Metadata::new(url.clone(), &options.authorization_servers).map_err(usage)?),
            None if options.authorization_servers.is_empty() => None,
            None => {
                return Err(usage(
                    "--authorization-server needs --resource-metadata, the URL where clients find it"
                        .to_owned(),
                ));
            }
        };
        let minimal = child::Environment::MINIMAL.into_iter().map(Into::into);
        let passed = options.pass_env.iter().map(Into::into);
        let environment = child::Environment {
            only: options.clean_env.then(|| minimal.chain(passed).collect()),
            never: options.env_from_header.iter().map(|(variable, _)| variable.into()).collect(),
            set: options.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        let command = Command::new(&options.command, options.cwd.clone(), environment).map_err(|why| {
            let code = match why {
                Unrunnable::NotFound { .. } => NOT_FOUND,
                Unrunnable::NotExecutable { .. } => NOT_EXECUTABLE,
                Unrunnable::NoDirectory { .. } => USAGE,
            };
            (why.to_string(), code)
        })?;
        Ok(Self { command, tokens: tokens.map(Arc::new), metadata })
    }
}

fn sessions_config(options: &Options) -> sessions::Config {
    sessions::Config {
        max_sessions: options.max_sessions,
        replica: options.replica.clone(),
        // One child ahead of the first session by default: its client does not wait for the process to start. A child
        // whose environment depends on its client cannot be started before there is one.
        ahead: options.warm.max(usize::from(!options.lazy && options.env_from_header.is_empty())),
        warm: options.warm,
        evict: options.evict,
        max_starting: options.max_starting,
        stop_grace: options.stop_grace,
        // Of the half that is not for calls in flight, EOF and SIGTERM get two fifths each.
        shutdown_grace: options.shutdown_timeout / 6,
        session: session::Config {
            limits: Limits {
                init_timeout: options.init_timeout,
                request_timeout: options.request_timeout,
                max_in_flight: options.max_in_flight,
                respawn: options.on_exit == OnExit::Respawn,
                ready: Readiness {
                    delay: options.ready_delay,
                    refusal: options.ready_retry.clone().map(Arc::new),
                    timeout: options.ready_timeout,
                },
            },
            idle_timeout: options.idle_timeout,
            sse_after: options.sse_after,
            max_lifetime: options.max_lifetime,
            max_body: options.max_body,
            max_message: options.max_message,
            replay_buffer: options.replay_buffer,
            prime: options.prime,
        },
    }
}

/// Descriptors that the bridge opens before it serves anybody.
const FIRST_FILES: usize = 10;

/// Descriptors that are for neither connections nor children.
const SPARE_FILES: u64 = 64;

/// Probes and a few clients must be served whatever the limit is.
const MIN_CONNECTIONS: usize = 16;

/// The most connections, where nobody says otherwise.
const MAX_CONNECTIONS: usize = 1024;

fn server_config(options: &Options, open_files: Option<u64>) -> server::Config {
    // One half of the open files is for connections, the other for the pipes of children.
    let fitting = open_files.map_or(MAX_CONNECTIONS, |files| {
        usize::try_from(files.saturating_sub(SPARE_FILES) / 2).unwrap_or(MAX_CONNECTIONS).max(MIN_CONNECTIONS)
    });
    server::Config {
        max_connections: options.max_connections.unwrap_or(MAX_CONNECTIONS.min(fitting)),
        header_timeout: options.header_timeout,
        idle_timeout: options.connection_idle_timeout,
        response_timeout: options.body_timeout,
    }
}

fn http_config(
    options: &Options,
    listener: &Listener,
    tokens: Option<Arc<Tokens>>,
    metadata: Option<Metadata>,
) -> http::Config {
    let header = |name: &String| HeaderName::try_from(name).ok();
    let named = |(variable, name): &(String, String)| header(name).map(|header| (variable.clone(), header));
    let session_key = match &options.session_key {
        Some(SessionKey::Header(name)) => header(name).map(http::SessionKey::Header),
        Some(SessionKey::Shared) => Some(http::SessionKey::Shared),
        None => None,
    };
    http::Config {
        path: options.path.clone(),
        trust: Trust {
            loopback: listener.is_loopback(),
            origins: options.allow_origin.clone(),
            hosts: options.allow_host.clone(),
        },
        tokens,
        metadata,
        session_key,
        env_from_header: options.env_from_header.iter().filter_map(named).collect(),
        max_body: options.max_body,
        body_timeout: options.body_timeout,
        request_timeout: options.request_timeout,
        keep_alive: options.keep_alive,
        prime: options.prime,
        sse_compat: options.sse_compat,
    }
}

struct Environment;

impl cli::Environment for Environment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
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
