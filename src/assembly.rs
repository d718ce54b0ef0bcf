//! Options and what the system has become the configurations of the parts.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;
use tracing::{info, warn};

use crate::child::{self, Command, Unrunnable};
use crate::cli::{self, EnvSource, KeySource, OnExit, Options};
use crate::http::guard::Trust;
use crate::http::metadata::Metadata;
use crate::http::problem::Problem;
use crate::proto::ids::Ids;
use crate::proto::link::{Limits, Readiness};
use crate::proto::version::Era;
use crate::server::listener::Listener;
use crate::shutdown::Steps;
use crate::token::Tokens;
use crate::{http, open_files, probe, server, session, sessions};

#[derive(Debug)]
pub struct Environment;

impl EnvSource for Environment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

/// What the options name and the system must have.
#[derive(Debug)]
pub struct Prepared {
    /// What each session runs.
    pub command: Command,
    /// The tokens that are let in; `None`: no token is asked for.
    pub tokens: Option<Arc<Tokens>>,
    /// What a client without a token is told.
    pub metadata: Option<Metadata>,
}

/// Why the options cannot be used on this system.
#[derive(Debug)]
pub enum Unusable {
    /// An option, or the file it names. A sentence for the operator.
    Option(String),
    Command(Unrunnable),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(why) => f.write_str(why),
            Self::Command(why) => why.fmt(f),
        }
    }
}

impl Unusable {
    pub fn event(&self) -> &'static str {
        match self {
            Self::Command(Unrunnable::NotFound { .. } | Unrunnable::NotExecutable { .. }) => {
                "child.command_missing"
            }
            Self::Command(Unrunnable::NoDirectory { .. }) | Self::Option(_) => "options.unusable",
        }
    }
}

impl Prepared {
    /// Finds the command, and reads the token file and the metadata.
    ///
    /// # Errors
    /// The first thing that is missing or wrong.
    pub fn find(options: &Options) -> Result<Self, Unusable> {
        Ok(Self {
            tokens: tokens(options).map_err(Unusable::Option)?.map(Arc::new),
            metadata: metadata(options).map_err(Unusable::Option)?,
            command: command(options).map_err(Unusable::Command)?,
        })
    }
}

fn tokens(options: &Options) -> Result<Option<Tokens>, String> {
    match (&options.token_file, &options.token) {
        (Some(file), _) => Tokens::from_file(file.clone()).map(Some),
        (None, Some(text)) => Tokens::from_text(text).map(Some),
        (None, None) => Ok(None),
    }
}

fn metadata(options: &Options) -> Result<Option<Metadata>, String> {
    match &options.resource_metadata {
        Some(url) => Metadata::new(url.clone(), &options.authorization_server).map(Some),
        None if options.authorization_server.is_empty() => Ok(None),
        None => {
            Err("--authorization-server needs --resource-metadata, the URL where clients find it".to_owned())
        }
    }
}

fn command(options: &Options) -> Result<Command, Unrunnable> {
    let minimal = child::EnvPolicy::MINIMAL.into_iter().map(Into::into);
    let passed = options.pass_env.iter().map(Into::into);
    let environment = child::EnvPolicy {
        only: options.clean_env.then(|| minimal.chain(passed).collect()),
        never: options.env_from_header.iter().map(|(variable, _)| variable.into()).collect(),
        set: options.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    Command::new(&options.command, options.cwd.clone(), environment)
}

fn limits(options: &Options) -> Limits {
    Limits {
        init_timeout: options.init_timeout,
        request_timeout: options.request_timeout,
        max_in_flight: options.max_in_flight,
        respawn: options.on_exit == OnExit::Respawn,
        restore: restored(&options.restore),
        ready: Readiness {
            delay: options.ready_delay,
            refusal: options.ready_retry.clone().map(Arc::new),
            timeout: options.ready_timeout,
        },
        ids: secret_ids,
        state: secret_state,
    }
}

/// The tools whose last calls a new child is sent again.
fn restored(tools: &[String]) -> Option<Arc<[Box<str>]>> {
    (!tools.is_empty()).then(|| tools.iter().map(|tool| tool.as_str().into()).collect())
}

fn secret_ids() -> Ids {
    // Where the system has no random numbers there is no session id, and so no session.
    Ids::secret(getrandom::u64().unwrap_or_default())
}

fn secret_state() -> u128 {
    // As for ids: without random numbers there is no session.
    let half = || u128::from(getrandom::u64().unwrap_or_default());
    half() << 64 | half()
}

/// What the server speaks; `None`: the operator has not said it.
fn era(options: &Options) -> Option<Era> {
    match options.era {
        cli::Era::Auto => None,
        cli::Era::Legacy => Some(Era::Legacy),
        cli::Era::Modern => Some(Era::Modern),
    }
}

/// How `--check` probes the server. The list of tools has the time of a handshake, and what the server needs to be ready.
pub fn probe_config(options: &Options) -> probe::Config {
    let mut limits = limits(options);
    let retried = limits.ready.refusal.as_ref().map_or(Duration::ZERO, |_| limits.ready.timeout);
    let listing = limits.init_timeout + limits.ready.delay + retried;
    limits.request_timeout = limits.request_timeout.min(listing);
    limits.respawn = false;
    probe::Config {
        era: era(options),
        limits,
        max_message: options.max_message,
        stop_grace: options.stop_grace,
    }
}

pub fn sessions_config(options: &Options) -> sessions::Config {
    let steps = Steps::within(options.shutdown_timeout);
    sessions::Config {
        max_sessions: options.max_sessions,
        replica: options.replica.clone(),
        // One child ahead of the first session by default: its client does not wait for the process to start. A child
        // whose environment depends on its client cannot be started before there is one.
        prewarm: options.warm.max(usize::from(!options.lazy && options.env_from_header.is_empty())),
        warm: options.warm,
        evict: options.evict,
        max_starting: options.max_starting,
        env_from_clients: !options.env_from_header.is_empty(),
        era: era(options),
        stop_grace: options.stop_grace,
        at_shutdown: (steps.term, steps.kill),
        session: session::Config {
            fault_text: |id, fault| Problem::Fault(fault).row().json(Some(id)),
            limits: limits(options),
            idle_timeout: options.idle_timeout,
            unclaimed_timeout: options.unclaimed_timeout,
            is_on_lane: false,
            sse_after: options.sse_after,
            max_lifetime: options.max_lifetime,
            max_body: options.max_body,
            max_message: options.max_message,
            replay_buffer: options.replay_buffer,
            prime: options.prime,
        },
    }
}

/// How connections are served. `open_files`: the limit, as [`open_files::raise`] returned it.
pub fn server_config(options: &Options, open_files: Option<u64>) -> server::Config {
    server::Config {
        max_connections: options.max_connections.unwrap_or_else(|| open_files::for_connections(open_files)),
        header_timeout: options.header_timeout,
        idle_timeout: options.connection_idle_timeout,
        response_timeout: options.body_timeout,
    }
}

pub fn http_config(
    options: &Options,
    listener: &Listener,
    tokens: Option<Arc<Tokens>>,
    metadata: Option<Metadata>,
) -> http::Config {
    let header = |name: &String| HeaderName::try_from(name).ok();
    let named = |(variable, name): &(String, String)| header(name).map(|header| (variable.clone(), header));
    let session_key = match &options.session_key {
        Some(KeySource::Header(name)) => header(name).map(http::SessionKey::Header),
        Some(KeySource::Shared) => Some(http::SessionKey::Shared),
        None => None,
    };
    let share = match options.share {
        cli::Share::None => http::Share::None,
        cli::Share::Key => http::Share::Key,
        cli::Share::All => http::Share::All,
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
        share,
        env_from_header: options.env_from_header.iter().filter_map(named).collect(),
        max_body: options.max_body,
        body_timeout: options.body_timeout,
        h2_window: server::H2_STREAM_WINDOW as usize,
        request_timeout: options.request_timeout,
        keep_alive: options.keep_alive,
        prime: options.prime,
        sse_compat: options.sse_compat,
    }
}

/// Logs where the bridge listens and why, and what it has been told.
pub fn log_start(
    options: &Options,
    listener: &Listener,
    server: &server::Config,
    open_files: Option<u64>,
    token: bool,
) {
    let listen = listener.urls(&options.path).join(" ");
    info!(event = "bridge.start", listen, because = options.listen_because, "the bridge listens");
    info!(
        event = "bridge.options",
        command = options.command_line(),
        token,
        max_sessions = options.max_sessions,
        max_connections = server.max_connections,
        idle_timeout = options.idle_timeout.as_secs_f64(),
        request_timeout = options.request_timeout.as_secs_f64(),
        max_body = options.max_body,
        max_message = options.max_message,
        version = env!("CARGO_PKG_VERSION"),
        "the command that the bridge serves, and the limits"
    );
    let wanted = open_files::wanted(options.max_sessions, server.max_connections);
    if let Some(limit) = open_files.filter(|limit| *limit < wanted) {
        warn!(
            event = "limits.too_few_files",
            limit,
            wanted,
            "the limit of open files is too low for so many sessions and connections; raise it, or lower --max-sessions"
        );
    }
    if !token && listener.is_reachable() {
        let why =
            "other machines can reach this address and use the server without a token; see --token-file";
        warn!(event = "auth.none", "{why}");
    }
}
