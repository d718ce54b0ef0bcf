//! The options as they are typed; their comments are the text of `--help`.

use argh::FromArgs;

/// The options as they are typed.
#[derive(FromArgs, Debug, Default)]
pub(super) struct Arguments {
    /// where to listen, IP:PORT or unix:PATH (127.0.0.1:8080; in a container [::]:8080)
    #[argh(option)]
    pub(super) listen: Option<String>,
    /// the endpoint's path (/mcp)
    #[argh(option)]
    pub(super) path: Option<String>,
    /// how many sessions there may be, each with a child process (64)
    #[argh(option)]
    pub(super) max_sessions: Option<String>,
    /// end a session with nothing in flight and nobody listening after this time (30m)
    #[argh(option)]
    pub(super) idle_timeout: Option<String>,
    /// end a session after this time, used or not (off)
    #[argh(option)]
    pub(super) max_lifetime: Option<String>,
    /// when all sessions are taken, end the longest idle one to make room instead of answering 503
    #[argh(switch)]
    pub(super) evict: bool,
    /// how many servers may be starting at once, from process start to the answer to initialize, at most 5s each; those
    /// that --warm starts are not counted (4)
    #[argh(option)]
    pub(super) max_starting: Option<String>,
    /// when a session's server exits: end the session, or respawn the server and keep the session's id (end)
    #[argh(option)]
    pub(super) on_exit: Option<String>,
    /// how long the server may take to answer initialize (120s)
    #[argh(option)]
    pub(super) init_timeout: Option<String>,
    /// how long it may take to answer any other request (1h)
    #[argh(option)]
    pub(super) request_timeout: Option<String>,
    /// hold a session's requests for this time after the handshake (0)
    #[argh(option)]
    pub(super) ready_delay: Option<String>,
    /// send a request again, with growing pauses, that the server refuses with an error like this (a regular expression)
    #[argh(option)]
    pub(super) ready_retry: Option<String>,
    /// with --ready-retry: for how long after the handshake and --ready-delay (120s)
    #[argh(option)]
    pub(super) ready_timeout: Option<String>,
    /// begin an event stream when the answer takes longer than this (250ms)
    #[argh(option)]
    pub(super) sse_after: Option<String>,
    /// send a comment on an event stream that was silent for this time (15s)
    #[argh(option)]
    pub(super) keep_alive: Option<String>,
    /// begin event streams with an event that carries only an id, for clients of 2025-11-25 and later
    #[argh(switch)]
    pub(super) prime: bool,
    /// offer the HTTP+SSE transport of 2024-11-05 too, at /sse and /message
    #[argh(switch)]
    pub(super) sse_compat: bool,
    /// start no server before the first session wants one
    #[argh(switch)]
    pub(super) lazy: bool,
    /// keep this many servers started for sessions to come (0; without --lazy one waits for the first session)
    #[argh(option)]
    pub(super) warm: Option<String>,
    /// the server's working directory (the bridge's own)
    #[argh(option)]
    pub(super) cwd: Option<String>,
    /// set a variable in the server's environment, NAME=VALUE; may be given several times
    #[argh(option)]
    pub(super) env: Vec<String>,
    /// give the server only HOME, LOGNAME, PATH, SHELL, TERM, USER and what other options name
    #[argh(switch)]
    pub(super) clean_env: bool,
    /// with --clean-env: pass this variable on too; may be given several times
    #[argh(option)]
    pub(super) pass_env: Vec<String>,
    /// set a variable in a session's server to a header of the initialize request, NAME=HEADER; may be given several times
    #[argh(option)]
    pub(super) env_from_header: Vec<String>,
    /// serve only who sends a token of this file as Bearer; one per line, read again when it changes
    #[argh(option)]
    pub(super) token_file: Option<String>,
    /// the URL of this resource's metadata (RFC 9728), told to who has no token
    #[argh(option)]
    pub(super) resource_metadata: Option<String>,
    /// serve that metadata, with this authorization server in it; may be given several times
    #[argh(option)]
    pub(super) authorization_server: Vec<String>,
    /// serve requests without Mcp-Session-Id too: header:NAME gives each value of that header a session, shared all one
    #[argh(option)]
    pub(super) session_key: Option<String>,
    /// let pages of this origin in, scheme://host[:port]; may be given several times
    #[argh(option)]
    pub(super) allow_origin: Vec<String>,
    /// answer to this name in Host too; may be given several times
    #[argh(option)]
    pub(super) allow_host: Vec<String>,
    /// connections served at once; further ones wait (1024, less if the limit of open files is low)
    #[argh(option)]
    pub(super) max_connections: Option<String>,
    /// how long a connection may say nothing at first, and how long a request's head may take (10s)
    #[argh(option)]
    pub(super) header_timeout: Option<String>,
    /// how long a request's body may take, and how long an HTTP/2 client may take nothing of a response (30s)
    #[argh(option)]
    pub(super) body_timeout: Option<String>,
    /// how long a connection may idle between requests; longer than a balancer's own limit (650s)
    #[argh(option)]
    pub(super) connection_idle_timeout: Option<String>,
    /// the longest request body (10MiB)
    #[argh(option)]
    pub(super) max_body: Option<String>,
    /// the longest message of the server (64MiB)
    #[argh(option)]
    pub(super) max_message: Option<String>,
    /// events kept per session for clients that reconnect (4MiB)
    #[argh(option)]
    pub(super) replay_buffer: Option<String>,
    /// requests of one session that may be in flight (256)
    #[argh(option)]
    pub(super) max_in_flight: Option<String>,
    /// how long SIGTERM may take, half of it for calls in flight (8s)
    #[argh(option)]
    pub(super) shutdown_timeout: Option<String>,
    /// how long a server may take to leave by itself at the end of its session (5s)
    #[argh(option)]
    pub(super) stop_grace: Option<String>,
    /// text or json (text); RUST_LOG sets the level, info by default
    #[argh(option)]
    pub(super) log: Option<String>,
    /// put this label in front of session ids, so that a balancer can route by it
    #[argh(option)]
    pub(super) replica: Option<String>,
    /// copy this program into a directory, then exit
    #[argh(option)]
    pub(super) install: Option<String>,
    /// check the options and the command, then exit
    #[argh(switch)]
    pub(super) check: bool,
    /// ask the bridge that listens here whether it is ready, then exit with 0 or 1
    #[argh(switch)]
    pub(super) healthcheck: bool,
    /// print the version
    #[argh(switch)]
    pub(super) version: bool,
}
