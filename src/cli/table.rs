//! The options, once. What is typed, what the environment holds, [`Options`], `--help`, the man page and the shell
//! completions all come from the one table below; a new option is a new entry here, and a row in src/README.md.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use regex_lite::Regex;

use super::source::Source;
use super::values::{
    address, assignment, count, count_or_zero, duration, env_from_header, era, file, host, key_source,
    log_format, message_size, mode, on_exit, origin, path, pattern, replica, share, size, some_time,
    time_or_off, tool, url, variable_name,
};
use super::{Era, KeySource, OnExit, Share};
use crate::address::Address;
use crate::log::Format;
use crate::secret::Secret;

/// One option, for texts about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) section: &'static str,
    /// Its name as a Rust identifier; see [`Entry::flag`] and [`Entry::variable`].
    field: &'static str,
    /// What it does: a paragraph of one sentence, and perhaps another paragraph with the details.
    help: &'static str,
    /// Whether it is one of those that most people need, which `-h` lists.
    pub(super) is_common: bool,
    pub(super) kind: Kind,
}

/// How an option is given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// With a value, once. `default` is written as a value would be.
    Value { value: &'static str, default: &'static str },
    /// With a value, once or not at all.
    Optional { value: &'static str },
    /// With a value, any number of times.
    List { value: &'static str },
    /// Without a value.
    Switch,
    /// In the environment only.
    Secret { value: &'static str },
    /// On the command line only: what to do instead of serving.
    Task { value: Option<&'static str>, short: Option<char> },
}

impl Entry {
    /// As it is typed.
    pub(super) fn flag(&self) -> String {
        flag(self.field)
    }

    /// The variable that sets it too.
    pub(super) fn variable(&self) -> Option<String> {
        (!matches!(self.kind, Kind::Task { .. })).then(|| variable(self.field))
    }

    /// What it does, in one sentence without its full stop.
    pub(super) fn summary(&self) -> String {
        let first = self.help.split("\n\n").next().map(in_one_line).unwrap_or_default();
        first.trim_end_matches('.').to_owned()
    }

    /// What it does, whole, in sentences.
    pub(super) fn help(&self) -> String {
        in_one_line(self.help)
    }

    /// What its value is called, if it takes one.
    pub(super) fn value(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Value { value, .. } | Kind::Optional { value } => Some(value),
            Kind::List { value } | Kind::Secret { value } => Some(value),
            Kind::Task { value, .. } => value,
            Kind::Switch => None,
        }
    }

    /// What can be written as its value, where that is one of a few words.
    pub(super) fn words(&self) -> Vec<&'static str> {
        let is_word = |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase());
        self.value().unwrap_or_default().split('|').filter(is_word).collect()
    }
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An option as it is typed.
pub(super) fn flag(field: &str) -> String {
    format!("--{}", field.replace('_', "-"))
}

/// The variable that sets an option too.
pub(super) fn variable(field: &str) -> String {
    format!("MCP_BRIDGE_{}", field.to_ascii_uppercase())
}

/// Makes of one list what argh reads, the validated [`Options`], and what texts are made of.
macro_rules! options {
    (
        $($section:literal { $(
            $(#[doc = $help:tt])+
            $(#[common = $common:tt])?
            $(value $value:ident: $value_type:ty, $value_name:literal = $default:literal, $read_value:ident)?
            $(optional $optional:ident: $optional_type:ty, $optional_name:literal, $read_optional:ident)?
            $(list $list:ident: $list_type:ty, $list_name:literal, $read_list:ident)?
            $(switch $switch:ident)?
            $(secret $secret:ident, $secret_name:literal)?
        ;)+ })+
        instead $tasks:literal { $(
            $(#[doc = $task_help:tt])+
            $(#[common = $task_common:tt])?
            $(task $task:ident $(, $short:tt)?)?
            $(task_with $task_with:ident, $task_value:literal)?
            $(built_in $built_in:ident, $built_in_short:tt)?
        ;)+ }
    ) => {
        /// The options as they are typed.
        #[derive(FromArgs, Debug, Default)]
        #[argh(help_triggers("-h", "--help", "help"))]
        pub(super) struct Arguments {
            $($(
                $(#[argh(option)] pub(super) $value: Option<String>,)?
                $(#[argh(option)] pub(super) $optional: Option<String>,)?
                $(#[argh(option)] pub(super) $list: Vec<String>,)?
                $(#[argh(switch)] pub(super) $switch: bool,)?
            )+)+
            $(
                $(#[argh(switch $(, short = $short)?)] pub(super) $task: bool,)?
                $(#[argh(option)] pub(super) $task_with: Option<String>,)?
            )+
        }

        /// Everything an operator decides, validated.
        #[derive(Clone, Debug)]
        pub struct Options {
            $($(
                $(#[doc = $help])+
                $(pub $value: $value_type,)?
                $(pub $optional: Option<$optional_type>,)?
                $(pub $list: Vec<$list_type>,)?
                $(pub $switch: bool,)?
                $(pub $secret: Option<Secret>,)?
            )+)+
            /// Why `listen` is what it is.
            pub listen_because: &'static str,
            /// The server's command and its arguments; never empty.
            pub command: Vec<OsString>,
            /// `MCP_BRIDGE_*` variables that name no option.
            pub unknown_variables: Vec<String>,
        }

        impl Options {
            /// Reads each option from the command line, else from the environment, else from its default.
            pub(super) fn read(
                given: Arguments,
                source: &Source<'_>,
                listen_because: &'static str,
                command: Vec<OsString>,
            ) -> Result<Self, String> {
                Ok(Self {
                    $($(
                        $($value: source.value(stringify!($value), given.$value, $default, $read_value)?,)?
                        $($optional: source.optional(stringify!($optional), given.$optional, $read_optional)?,)?
                        $($list: source.list(stringify!($list), given.$list, $read_list)?,)?
                        $($switch: source.switch(stringify!($switch), given.$switch)?,)?
                        $($secret: source.secret(stringify!($secret))?,)?
                    )+)+
                    listen_because,
                    command,
                    unknown_variables: source.unknown_variables(),
                })
            }
        }

        /// All options, in the order in which texts list them.
        pub(super) const TABLE: &[Entry] = &[
            $($(
                Entry {
                    section: $section,
                    help: concat!($($help, "\n"),+),
                    is_common: options!(@common $($common)?),
                    $(field: stringify!($value), kind: Kind::Value { value: $value_name, default: $default },)?
                    $(field: stringify!($optional), kind: Kind::Optional { value: $optional_name },)?
                    $(field: stringify!($list), kind: Kind::List { value: $list_name },)?
                    $(field: stringify!($switch), kind: Kind::Switch,)?
                    $(field: stringify!($secret), kind: Kind::Secret { value: $secret_name },)?
                },
            )+)+
            $(
                Entry {
                    section: $tasks,
                    help: concat!($($task_help, "\n"),+),
                    is_common: options!(@common $($task_common)?),
                    $(field: stringify!($task), kind: Kind::Task { value: None, short: options!(@short $($short)?) },)?
                    $(field: stringify!($task_with), kind: Kind::Task { value: Some($task_value), short: None },)?
                    $(field: stringify!($built_in), kind: Kind::Task { value: None, short: Some($built_in_short) },)?
                },
            )+
        ];
    };
    (@common) => { false };
    (@common $common:tt) => { $common };
    (@short) => { None };
    (@short $short:tt) => { Some($short) };
}

// The sections stand in the order in which somebody who sets up a bridge asks for them.
options! {
    "Where to listen" {
        /// Where to listen: IP:PORT, :PORT for all addresses, localhost:PORT or unix:PATH.
        ///
        /// localhost is 127.0.0.1 and ::1; other names are not resolved. Without this option: localhost:8080, in a
        /// container :8080; if the variable PORT is set, on that port.
        #[common = true]
        list listen: Address, "ADDR", address;
        /// Path of the MCP endpoint.
        ///
        /// A slash at its end is accepted, and / works too.
        value path: String, "PATH" = "/mcp", path;
        /// Permissions of the socket file of unix:PATH, in octal, such as 660.
        ///
        /// Without this option umask(2) decides.
        optional socket_mode: u32, "MODE", mode;
        /// Serve the HTTP+SSE transport of 2024-11-05 too, at /sse and /message.
        switch sse_compat;
    }
    "Who may connect" {
        /// Require the header Authorization: Bearer TOKEN, with a token of this file.
        ///
        /// One token per line. A changed file is read again within seconds, or on SIGHUP.
        #[common = true]
        optional token_file: PathBuf, "FILE", file;
        /// The same with tokens that do not change, one per line.
        ///
        /// There is no option for them, because every process of the machine can read a command line.
        secret token, "TOKENS";
        /// Accept requests from web pages of this origin (CORS).
        ///
        /// Without this option only pages of localhost are accepted, and only on a loopback address.
        #[common = true]
        list allow_origin: String, "SCHEME://HOST[:PORT]", origin;
        /// Accept this name in the header Host too.
        ///
        /// On a loopback address localhost is accepted; on others every name, until this option is given.
        #[common = true]
        list allow_host: String, "NAME", host;
        /// URL of this resource's metadata (RFC 9728), sent to clients without a valid token.
        optional resource_metadata: String, "URL", url;
        /// Serve that metadata, with this authorization server in it.
        list authorization_server: String, "URL", url;
    }
    "The server's environment" {
        /// Working directory of the server.
        ///
        /// Without this option: that of the bridge.
        optional cwd: PathBuf, "DIR", file;
        /// Set a variable of the server.
        #[common = true]
        list env: (String, String), "NAME=VALUE", assignment;
        /// Pass on only HOME, LOGNAME, PATH, SHELL, TERM, USER and the variables that other options name.
        ///
        /// Without this option the server gets all variables of the bridge, except MCP_BRIDGE_*.
        switch clean_env;
        /// With --clean-env: pass this variable on too.
        list pass_env: String, "NAME", variable_name;
        /// Set a variable of a session's server to the value of a header of initialize.
        ///
        /// Write NAME!=HEADER if NAME does not look like the name of a credential, an account or an address.
        #[common = true]
        list env_from_header: (String, String), "NAME=HEADER", env_from_header;
    }
    "Starting the server" {
        /// Start no server before the first session needs one.
        ///
        /// Without this option one is started in advance.
        switch lazy;
        /// Keep this many servers started in advance for new sessions.
        ///
        /// They count as sessions.
        #[common = true]
        value warm: usize, "N" = "0", count_or_zero;
        /// What the server speaks: revisions with initialize (legacy), or 2026-07-28 alone (modern).
        ///
        /// With auto a server is started and asked, and ended, when that must be known.
        value era: Era, "auto|legacy|modern" = "auto", era;
        /// How many servers may be starting at once.
        ///
        /// A server is starting until it has answered initialize, but at most for 5s. Those of --warm do not count.
        value max_starting: usize, "N" = "4", count;
        /// How long a server may take to answer initialize.
        value init_timeout: Duration, "TIME" = "120s", some_time;
        /// Hold the requests of a new session for this time after the handshake.
        value ready_delay: Duration, "TIME" = "0", duration;
        /// Send a request again, with growing pauses, if the server answers with an error that matches this regular
        /// expression.
        optional ready_retry: Regex, "REGEX", pattern;
        /// With --ready-retry: for how long after the handshake and --ready-delay.
        value ready_timeout: Duration, "TIME" = "120s", some_time;
    }
    "Sessions" {
        /// How many sessions there may be, and how many server processes.
        ///
        /// More are refused with 503. Sessions that share a server (--share) are counted by themselves, and so are servers.
        #[common = true]
        value max_sessions: usize, "N" = "64", count;
        /// End a session after this time without a request in flight and without an open stream.
        #[common = true]
        value idle_timeout: Duration, "TIME" = "30m", some_time;
        /// End a session whose client sends nothing more for this time after initialize was answered.
        value unclaimed_timeout: Option<Duration>, "TIME|off" = "60s", time_or_off;
        /// End a session after this time, used or not.
        optional max_lifetime: Duration, "TIME", some_time;
        /// When all sessions are taken, end the one that is idle longest instead of answering 503.
        #[common = true]
        switch evict;
        /// When a server exits: end its session, or start a new server for it.
        ///
        /// A new server knows nothing of what the old one kept in memory.
        #[common = true]
        value on_exit: OnExit, "end|respawn" = "end", on_exit;
        /// With --on-exit respawn: send the last successful call of this tool again to a new server.
        ///
        /// For tools that set up what later calls need and may be called again, such as one that opens a project.
        list restore: String, "TOOL", tool;
        /// Serve requests without Mcp-Session-Id too.
        ///
        /// With header:NAME each value of that header has a session; with shared all such requests have the same one.
        #[common = true]
        optional session_key: KeySource, "header:NAME|shared", key_source;
        /// Which clients share a server process: none, those of one key, or all.
        ///
        /// Each keeps a session of its own, but what the server itself keeps is there for all of them. The key is that of
        /// --session-key, or else the token. Clients of 2026-07-28 have no session and need a server to share: with none they
        /// fall back to a session, but with --session-key they share by key.
        value share: Share, "none|key|all" = "none", share;
        /// Put this label in front of session ids, so that a load balancer can route by it.
        optional replica: String, "LABEL", replica;
    }
    "Answers" {
        /// How long a server may take to answer a request.
        value request_timeout: Duration, "TIME" = "1h", some_time;
        /// Start an event stream (SSE) if the answer takes longer than this.
        value sse_after: Duration, "TIME" = "250ms", duration;
        /// Send a comment on an event stream that was silent for this time.
        value keep_alive: Duration, "TIME" = "15s", some_time;
        /// Start event streams with an event that has only an id, for clients of 2025-11-25 and later.
        switch prime;
        /// Keep this much of each session's events for clients that reconnect.
        value replay_buffer: usize, "SIZE" = "4MiB", size;
    }
    "Limits" {
        /// The longest body of a request.
        value max_body: usize, "SIZE" = "10MiB", message_size;
        /// The longest message of a server.
        value max_message: usize, "SIZE" = "64MiB", message_size;
        /// How many requests of one session may be in flight.
        value max_in_flight: usize, "N" = "256", count;
        /// How many connections are served at once; more have to wait.
        ///
        /// Without this option 1024, or fewer if the limit of open files is low.
        optional max_connections: usize, "N", count;
        /// How long a new connection may send nothing, and how long the head of a request may take.
        value header_timeout: Duration, "TIME" = "10s", some_time;
        /// For how long a client may send a request's body, or read a response, more slowly than 64 KiB/s.
        value body_timeout: Duration, "TIME" = "30s", some_time;
        /// How long a connection may be idle between requests.
        ///
        /// This must be longer than the load balancer's own limit.
        // Balancers keep theirs for 60 s (ALB) to 600 s (GCP), and the side that sends requests must close first.
        value connection_idle_timeout: Duration, "TIME" = "650s", some_time;
    }
    "Stopping" {
        /// How long a server may take to exit at the end of its session before it gets SIGTERM.
        ///
        /// SIGKILL follows 2s later. When the bridge stops, --shutdown-timeout counts instead.
        value stop_grace: Duration, "TIME" = "5s", duration;
        /// How long the bridge may take to exit after SIGTERM.
        ///
        /// Of 8s requests in flight have 3.5s. A server without any has 5.1s to exit by itself, then gets SIGTERM, and
        /// 1.3s later SIGKILL.
        value shutdown_timeout: Duration, "TIME" = "8s", duration;
    }
    "Log" {
        /// Format of the log on stderr.
        ///
        /// The variable RUST_LOG sets its level: error, warn, info or debug; info by default.
        #[common = true]
        value log: Format, "text|json" = "text", log_format;
    }
    "Instead of serving" {
        /// Start the server once, open a session, list its tools, end it, and report what happened.
        ///
        /// Exits with 0 if the server works, else with 1.
        #[common = true]
        switch check;
        /// Ask the bridge that listens on --listen whether it is ready.
        ///
        /// Exits with 0 if it is, else with 1.
        #[common = true]
        switch healthcheck;
    }
    instead "Instead of serving" {
        /// Copy this program into a directory.
        task_with install, "DIR";
        /// Print the manual page, as in: mcp-bridge --man | man -l -.
        task man;
        /// Print a script that completes these options in a shell.
        task_with completions, "bash|zsh|fish";
        /// Print the version.
        #[common = true]
        task version, 'V';
        /// Print all options; -h prints those most used.
        #[common = true]
        built_in help, 'h';
    }
}
