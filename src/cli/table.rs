//! The options, once. What is typed, what the environment holds, [`Options`], `--help`, the man page and the shell
//! completions all come from the one table below; a new option is a new entry here, and a row in the README.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use regex_lite::Regex;

use super::source::Source;
use super::values::{
    address, assignment, count, count_or_zero, duration, env_from_header, era, file, host, key_source,
    log_format, message_size, mode, on_exit, origin, path, pattern, replica, share, size, some_time,
    time_or_off, url, variable_name,
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
    /// What it does, in one sentence without a capital and without a full stop.
    help: &'static str,
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

    /// What it does, in one sentence without a capital and without a full stop.
    pub(super) fn help(&self) -> &'static str {
        self.help.trim_start()
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
            $(value $value:ident: $value_type:ty, $value_name:literal = $default:literal, $read_value:ident)?
            $(optional $optional:ident: $optional_type:ty, $optional_name:literal, $read_optional:ident)?
            $(list $list:ident: $list_type:ty, $list_name:literal, $read_list:ident)?
            $(switch $switch:ident)?
            $(secret $secret:ident, $secret_name:literal)?
        ;)+ })+
        instead $tasks:literal { $(
            $(#[doc = $task_help:tt])+
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
                    help: concat!($($help),+),
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
                    help: concat!($($task_help),+),
                    $(field: stringify!($task), kind: Kind::Task { value: None, short: options!(@short $($short)?) },)?
                    $(field: stringify!($task_with), kind: Kind::Task { value: Some($task_value), short: None },)?
                    $(field: stringify!($built_in), kind: Kind::Task { value: None, short: Some($built_in_short) },)?
                },
            )+
        ];
    };
    (@short) => { None };
    (@short $short:tt) => { Some($short) };
}

options! {
    "Listening" {
        /// where to listen; :PORT is all addresses, localhost:PORT both of this machine's own; other names are not resolved;
        /// by default port 8080, or PORT if that variable is set, of localhost, in a container of all addresses
        list listen: Address, "IP:PORT|unix:PATH", address;
        /// permissions of the file of unix:PATH, in octal, as in 660; else umask(2) decides
        optional socket_mode: u32, "MODE", mode;
        /// path of the endpoint; a trailing slash is tolerated, and / works too
        value path: String, "PATH" = "/mcp", path;
        /// connections served at once, further ones wait; 1024 by default, less if the limit of open files is low
        optional max_connections: usize, "N", count;
        /// how long a new connection may send nothing, and how long the head of a request may take
        value header_timeout: Duration, "TIME" = "10s", some_time;
        /// how far a request's body may fall behind 64 KiB/s, and how long a client may read nothing of a response, or less
        value body_timeout: Duration, "TIME" = "30s", some_time;
        /// how long a connection may idle between requests; must be longer than a balancer's own limit
        // Balancers keep theirs for 60 s (ALB) to 600 s (GCP), and the side that sends requests must close first.
        value connection_idle_timeout: Duration, "TIME" = "650s", some_time;
        /// the longest request body
        value max_body: usize, "SIZE" = "10MiB", message_size;
        /// offer the HTTP+SSE transport of 2024-11-05 too, at /sse and /message
        switch sse_compat;
    }
    "Access" {
        /// accept only requests that carry a token of this file as Bearer; one token per line; read again when it
        /// changes
        optional token_file: PathBuf, "FILE", file;
        /// the same for tokens that do not change, one per line; there is no option because every process of the
        /// machine can read a command line
        secret token, "TOKENS";
        /// URL of this resource's metadata (RFC 9728), told to clients without a token
        optional resource_metadata: String, "URL", url;
        /// serve that metadata, with this authorization server in it
        list authorization_server: String, "URL", url;
        /// allow requests from pages of this origin
        list allow_origin: String, "SCHEME://HOST[:PORT]", origin;
        /// accept this name in the header Host too
        list allow_host: String, "NAME", host;
    }
    "Sessions" {
        /// how many sessions there may be, each with a child process
        value max_sessions: usize, "N" = "64", count;
        /// end a session after this time with no request in flight and no stream open
        value idle_timeout: Duration, "TIME" = "30m", some_time;
        /// end a session whose client sends no second request for this time after initialize was answered, or off
        value unclaimed_timeout: Option<Duration>, "TIME|off" = "60s", time_or_off;
        /// end a session after this time, used or not
        optional max_lifetime: Duration, "TIME", some_time;
        /// when all sessions are taken, end the longest idle one to make room instead of answering 503
        switch evict;
        /// serve requests without Mcp-Session-Id too: with header:NAME each value of that header has a session, with
        /// shared all have the same one
        optional session_key: KeySource, "header:NAME|shared", key_source;
        /// which clients of 2026-07-28, which has no sessions, share a server: none, so that they fall back to a session
        /// of their own; those of one key, that of --session-key or else the token; or all. --session-key means key
        value share: Share, "none|key|all" = "none", share;
        /// requests of one session that may be in flight
        value max_in_flight: usize, "N" = "256", count;
        /// put this label in front of session ids, so that a balancer can route by it
        optional replica: String, "LABEL", replica;
    }
    "Answers" {
        /// how long the server may take to answer a request
        value request_timeout: Duration, "TIME" = "1h", some_time;
        /// begin an event stream when the answer takes longer than this
        value sse_after: Duration, "TIME" = "250ms", duration;
        /// send a comment on an event stream that was silent for this time
        value keep_alive: Duration, "TIME" = "15s", some_time;
        /// begin event streams with an event that carries only an id, for clients of 2025-11-25 and later
        switch prime;
        /// size of the events kept per session for clients that reconnect
        value replay_buffer: usize, "SIZE" = "4MiB", size;
        /// the longest message of the server
        value max_message: usize, "SIZE" = "64MiB", message_size;
    }
    "The server's start" {
        /// start no server before the first session needs one; otherwise one waits for it
        switch lazy;
        /// keep this many servers started for sessions to come
        value warm: usize, "N" = "0", count_or_zero;
        /// how many servers may be starting at once, from the start of the process to the answer to initialize, at most
        /// 5s each; those that --warm starts are not counted
        value max_starting: usize, "N" = "4", count;
        /// what the server speaks: legacy, the revisions with initialize; modern, 2026-07-28 alone; auto: when that must be
        /// known, a server is started and asked, and ended
        value era: Era, "auto|legacy|modern" = "auto", era;
        /// how long the server may take to answer initialize
        value init_timeout: Duration, "TIME" = "120s", some_time;
        /// hold a session's requests for this time after the handshake
        value ready_delay: Duration, "TIME" = "0", duration;
        /// send a request again, with growing pauses, if the server refuses it with an error that matches this regular
        /// expression
        optional ready_retry: Regex, "REGEX", pattern;
        /// with --ready-retry: for how long after the handshake and --ready-delay
        value ready_timeout: Duration, "TIME" = "120s", some_time;
    }
    "The server's environment" {
        /// working directory of the server; the bridge's own by default
        optional cwd: PathBuf, "DIR", file;
        /// set a variable
        list env: (String, String), "NAME=VALUE", assignment;
        /// pass on only HOME, LOGNAME, PATH, SHELL, TERM, USER and what other options name
        switch clean_env;
        /// with --clean-env: pass this variable on too
        list pass_env: String, "NAME", variable_name;
        /// set a variable of a session's server to the value of a header of its initialize request; NAME!=HEADER, where
        /// NAME does not end as a credential, an account or an address does
        list env_from_header: (String, String), "NAME=HEADER", env_from_header;
    }
    "The end" {
        /// when the server of a session exits: end the session, or respawn the server and keep the session's id
        value on_exit: OnExit, "end|respawn" = "end", on_exit;
        /// how long a server may take to exit by itself at the end of its session, before SIGTERM; SIGKILL follows 2s later;
        /// when the bridge stops, see --shutdown-timeout
        value stop_grace: Duration, "TIME" = "5s", duration;
        /// how long the bridge may take to exit after SIGTERM; of 8s requests in flight have 3.5s, and a server without any has
        /// 5.1s to exit by itself before SIGTERM and 1.3s more before SIGKILL
        value shutdown_timeout: Duration, "TIME" = "8s", duration;
    }
    "Log" {
        /// format of the log, which goes to stderr; RUST_LOG sets the level, info by default
        value log: Format, "text|json" = "text", log_format;
    }
    "Instead of serving" {
        /// start the server once, open a session with it, list its tools, end it and say what was seen, then exit with 0 or
        /// 1
        switch check;
        /// ask the bridge that listens on --listen whether it is ready, then exit with 0 or 1
        switch healthcheck;
    }
    instead "Instead of serving" {
        /// copy this program into a directory, then exit
        task_with install, "DIR";
        /// print the manual page, to be read by man(1)
        task man;
        /// print a script that completes these options in a shell
        task_with completions, "bash|zsh|fish";
        /// print the version
        task version, 'V';
        /// print this text
        built_in help, 'h';
    }
}
