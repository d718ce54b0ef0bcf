//! The command line and `MCP_BRIDGE_*` become validated [`Options`]; nothing later checks again. No I/O.

use std::cell::RefCell;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;

mod values;

use values::{MAX_COUNT, address, duration, origin, path, replica, size, some_time};

/// The endpoint when nobody says otherwise.
const LOCAL: &str = "127.0.0.1:8080";

/// The same in a container, where loopback would be reachable for nobody.
const CONTAINER: &str = "[::]:8080";

/// The options as they are typed.
#[derive(FromArgs, Debug, Default)]
struct Arguments {
    /// where to listen, IP:PORT or unix:PATH (127.0.0.1:8080; in a container [::]:8080)
    #[argh(option)]
    listen: Option<String>,
    /// the endpoint's path (/mcp)
    #[argh(option)]
    path: Option<String>,
    /// how many sessions there may be, each with a child process (64)
    #[argh(option)]
    max_sessions: Option<String>,
    /// end a session with nothing in flight and nobody listening after this time (30m)
    #[argh(option)]
    idle_timeout: Option<String>,
    /// end a session after this time, used or not (off)
    #[argh(option)]
    max_lifetime: Option<String>,
    /// when all sessions are taken, end the longest idle one to make room instead of answering 503
    #[argh(switch)]
    evict: bool,
    /// how long the server may take to answer initialize (120s)
    #[argh(option)]
    init_timeout: Option<String>,
    /// how long it may take to answer any other request (1h)
    #[argh(option)]
    request_timeout: Option<String>,
    /// begin an event stream when the answer takes longer than this (250ms)
    #[argh(option)]
    sse_after: Option<String>,
    /// send a comment on an event stream that was silent for this time (15s)
    #[argh(option)]
    keep_alive: Option<String>,
    /// begin event streams with an event that carries only an id, for clients of 2025-11-25 and later
    #[argh(switch)]
    prime: bool,
    /// offer the HTTP+SSE transport of 2024-11-05 too, at /sse and /message
    #[argh(switch)]
    sse_compat: bool,
    /// start no server before the first session wants one
    #[argh(switch)]
    lazy: bool,
    /// keep this many servers started for sessions to come (0; without --lazy one waits for the first session)
    #[argh(option)]
    warm: Option<String>,
    /// the server's working directory (the bridge's own)
    #[argh(option)]
    cwd: Option<String>,
    /// set a variable in the server's environment, NAME=VALUE; may be given several times
    #[argh(option)]
    env: Vec<String>,
    /// let pages of this origin in, scheme://host[:port]; may be given several times
    #[argh(option)]
    allow_origin: Vec<String>,
    /// answer to this name in Host too; may be given several times
    #[argh(option)]
    allow_host: Vec<String>,
    /// the longest request body (10MiB)
    #[argh(option)]
    max_body: Option<String>,
    /// the longest message of the server (64MiB)
    #[argh(option)]
    max_message: Option<String>,
    /// events kept per session for clients that reconnect (4MiB)
    #[argh(option)]
    replay_buffer: Option<String>,
    /// requests of one session that may be in flight (256)
    #[argh(option)]
    max_in_flight: Option<String>,
    /// how long SIGTERM may take, half of it for calls in flight (8s)
    #[argh(option)]
    shutdown_timeout: Option<String>,
    /// how long a server may take to leave by itself at the end of its session (5s)
    #[argh(option)]
    stop_grace: Option<String>,
    /// text or json (text); RUST_LOG sets the level, info by default
    #[argh(option)]
    log: Option<String>,
    /// put this label in front of session ids, so that a balancer can route by it
    #[argh(option)]
    replica: Option<String>,
    /// copy this program into a directory, then exit
    #[argh(option)]
    install: Option<String>,
    /// check the options and the command, then exit
    #[argh(switch)]
    check: bool,
    /// ask the bridge that listens here whether it is ready, then exit with 0 or 1
    #[argh(switch)]
    healthcheck: bool,
    /// print the version
    #[argh(switch)]
    version: bool,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// For a program: one JSON object per line.
    Json,
}

/// What the program was asked to do.
#[derive(Debug)]
pub enum Task {
    /// Serve.
    Serve(Box<Options>),
    /// Say whether the options and the command are good.
    Check(Box<Options>),
    /// Copy the program into this directory.
    Install(PathBuf),
    /// Say whether the bridge on this address is ready.
    HealthCheck(Address),
    /// Print a text for whoever asked for it.
    Print(String),
}

/// Everything an operator decides, validated.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: Address,
    /// Why there.
    pub listen_because: &'static str,
    /// The endpoint's path, with a leading and without a trailing slash.
    pub path: String,
    /// See `--max-sessions`.
    pub max_sessions: usize,
    /// See `--idle-timeout`.
    pub idle_timeout: Duration,
    /// See `--max-lifetime`.
    pub max_lifetime: Option<Duration>,
    /// See `--evict`.
    pub evict: bool,
    /// See `--init-timeout`.
    pub init_timeout: Duration,
    /// See `--request-timeout`.
    pub request_timeout: Duration,
    /// See `--sse-after`.
    pub sse_after: Duration,
    /// See `--keep-alive`.
    pub keep_alive: Duration,
    /// See `--prime`.
    pub prime: bool,
    /// See `--sse-compat`.
    pub sse_compat: bool,
    /// See `--lazy`.
    pub lazy: bool,
    /// See `--warm`.
    pub warm: usize,
    /// See `--replica`.
    pub replica: Option<String>,
    /// See `--cwd`.
    pub cwd: Option<PathBuf>,
    /// See `--env`.
    pub env: Vec<(String, String)>,
    /// See `--allow-origin`; lower case.
    pub allow_origin: Vec<String>,
    /// See `--allow-host`; lower case.
    pub allow_host: Vec<String>,
    /// See `--max-body`, in bytes.
    pub max_body: usize,
    /// See `--max-message`, in bytes.
    pub max_message: usize,
    /// See `--replay-buffer`, in bytes.
    pub replay_buffer: usize,
    /// See `--max-in-flight`.
    pub max_in_flight: usize,
    /// See `--shutdown-timeout`.
    pub shutdown_timeout: Duration,
    /// See `--stop-grace`.
    pub stop_grace: Duration,
    /// See `--log`.
    pub log: LogFormat,
    /// The server's command and its arguments; never empty.
    pub command: Vec<OsString>,
    /// `MCP_BRIDGE_*` variables that name no option.
    pub unknown_variables: Vec<String>,
}

/// The environment, as far as options are concerned. A seam: tests bring their own.
pub trait Environment {
    /// The value of a variable.
    fn get(&self, name: &str) -> Option<String>;
    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// Reads the command line. `arguments` without the program's name; `container`: the evidence that this is a
/// container, if there is any.
///
/// # Errors
/// A sentence for the person who typed it: what is wrong, and the cure.
pub fn parse(
    arguments: Vec<OsString>,
    environment: &dyn Environment,
    container: Option<&'static str>,
) -> Result<Task, String> {
    let separator = arguments.iter().position(|argument| argument == "--");
    let (own, command) = match separator {
        Some(place) => {
            let (own, rest) = arguments.split_at(place);
            (own.to_vec(), rest.get(1..).unwrap_or_default().to_vec())
        }
        None => (arguments, Vec::new()),
    };
    let mut words = Vec::with_capacity(own.len());
    for argument in own {
        words.push(argument.into_string().map_err(|argument| format!("{argument:?} is not UTF-8"))?);
    }
    // `--name=value` is what people type; argh knows `--name value`.
    let words: Vec<&str> = words
        .iter()
        .flat_map(|word| match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => vec![name, value],
            _ => vec![word.as_str()],
        })
        .collect();
    let given = match Arguments::from_args(&["mcp-bridge"], &words) {
        Ok(given) => given,
        Err(exit) if exit.status.is_ok() => return Ok(Task::Print(help(&exit.output))),
        Err(exit) if separator.is_none() && words.iter().any(|word| !word.starts_with('-')) => {
            return Err(format!(
                "{}\nThe server's command goes behind --: mcp-bridge [options] -- COMMAND",
                exit.output.trim()
            ));
        }
        Err(exit) => return Err(format!("{}\nmcp-bridge --help lists the options", exit.output.trim())),
    };
    if given.version {
        return Ok(Task::Print(format!("mcp-bridge {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if let Some(directory) = given.install {
        return Ok(Task::Install(directory.into()));
    }
    let source = Source { environment, asked: RefCell::default() };
    let (healthcheck, check) =
        (source.switch("healthcheck", given.healthcheck)?, source.switch("check", given.check)?);
    let options = validate(given, &source, command, container)?;
    if healthcheck {
        return Ok(Task::HealthCheck(options.listen));
    }
    if options.command.is_empty() {
        return Err(
            "no server command; it goes behind --, as in: mcp-bridge -- npx -y some-mcp-server".into()
        );
    }
    Ok(if check { Task::Check(Box::new(options)) } else { Task::Serve(Box::new(options)) })
}

/// argh's list of options below our own introduction: it would run usage, text and options into one paragraph.
fn help(generated: &str) -> String {
    let options = generated.split_once("Options:").map_or(generated, |(_, options)| options);
    format!("{INTRODUCTION}\nOptions:{options}")
}

const INTRODUCTION: &str = "\
Usage: mcp-bridge [OPTIONS] -- COMMAND [ARGUMENTS...]

Turns a stdio MCP server into a Streamable HTTP backend: one child process per session.

Each option can be set in the environment too: --max-sessions as MCP_BRIDGE_MAX_SESSIONS, a switch as 1 or 0, a list
with one entry per line. The command line wins. Durations are written 250ms, 15s, 30m, 1h; sizes 512KiB, 10MiB.
";

/// Where an option's text comes from: the command line, else the environment.
struct Source<'e> {
    environment: &'e dyn Environment,
    /// The variables of all options: each option asks for its own.
    asked: RefCell<Vec<String>>,
}

impl Source<'_> {
    fn variable(&self, option: &str) -> String {
        let name = format!("MCP_BRIDGE_{}", option.replace('-', "_").to_ascii_uppercase());
        self.asked.borrow_mut().push(name.clone());
        name
    }

    /// The text of an option and the name to blame for it.
    fn text(&self, option: &str, given: Option<String>) -> Option<(String, String)> {
        let variable = self.variable(option);
        match given {
            Some(text) => Some((text, format!("--{option}"))),
            None => self.environment.get(&variable).map(|text| (text, variable)),
        }
    }

    fn value<T>(
        &self,
        option: &str,
        given: Option<String>,
        default: T,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        match self.text(option, given) {
            None => Ok(default),
            Some((text, name)) => read(text.trim()).map_err(|cure| format!("{name} is {text:?}: {cure}")),
        }
    }

    fn list(&self, option: &str, given: Vec<String>) -> Vec<(String, String)> {
        let variable = self.variable(option);
        if !given.is_empty() {
            return given.into_iter().map(|text| (text, format!("--{option}"))).collect();
        }
        let text = self.environment.get(&variable).unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| (line.to_owned(), variable.clone())).collect()
    }

    fn switch(&self, option: &str, given: bool) -> Result<bool, String> {
        let read = |text: &str| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "" | "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("write 1 or 0".to_owned()),
        };
        Ok(self.value(option, None, false, read)? || given)
    }
}

fn validate(
    given: Arguments,
    source: &Source<'_>,
    command: Vec<OsString>,
    container: Option<&'static str>,
) -> Result<Options, String> {
    let (listen, listen_because) = match (source.text("listen", given.listen), container) {
        (Some((text, name)), _) => {
            let because = if name.starts_with("--") { "--listen" } else { "MCP_BRIDGE_LISTEN" };
            (address(text.trim()).map_err(|cure| format!("{name} is {text:?}: {cure}"))?, because)
        }
        (None, Some(evidence)) => (address(CONTAINER)?, evidence),
        (None, None) => (address(LOCAL)?, "default; --listen changes it"),
    };
    let positive = |text: &str| match text.parse::<usize>() {
        Ok(number) if (1..=MAX_COUNT).contains(&number) => Ok(number),
        _ => Err(format!("write a number from 1 to {MAX_COUNT}")),
    };
    let mut env = Vec::new();
    for (text, name) in source.list("env", given.env) {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
                env.push((key.to_owned(), value.to_owned()))
            }
            _ => return Err(format!("{name} is {text:?}: write NAME=VALUE")),
        }
    }
    let mut allow_origin = Vec::new();
    for (text, name) in source.list("allow-origin", given.allow_origin) {
        allow_origin.push(origin(&text).map_err(|cure| format!("{name} is {text:?}: {cure}"))?);
    }
    let mut allow_host = Vec::new();
    for (text, name) in source.list("allow-host", given.allow_host) {
        if text.is_empty() || text.contains(['/', ' ']) {
            return Err(format!("{name} is {text:?}: write a host name without scheme, port and path"));
        }
        allow_host.push(text.to_ascii_lowercase());
    }
    let shutdown_timeout =
        source.value("shutdown-timeout", given.shutdown_timeout, Duration::from_secs(8), duration)?;
    Ok(Options {
        listen,
        listen_because,
        path: source.value("path", given.path, "/mcp".to_owned(), path)?,
        max_sessions: source.value("max-sessions", given.max_sessions, 64, positive)?,
        idle_timeout: source.value(
            "idle-timeout",
            given.idle_timeout,
            Duration::from_secs(30 * 60),
            some_time,
        )?,
        max_lifetime: source
            .value("max-lifetime", given.max_lifetime, None, |text| some_time(text).map(Some))?,
        evict: source.switch("evict", given.evict)?,
        init_timeout: source.value(
            "init-timeout",
            given.init_timeout,
            Duration::from_secs(120),
            some_time,
        )?,
        request_timeout: source.value(
            "request-timeout",
            given.request_timeout,
            Duration::from_secs(3600),
            some_time,
        )?,
        sse_after: source.value("sse-after", given.sse_after, Duration::from_millis(250), duration)?,
        keep_alive: source.value("keep-alive", given.keep_alive, Duration::from_secs(15), some_time)?,
        prime: source.switch("prime", given.prime)?,
        sse_compat: source.switch("sse-compat", given.sse_compat)?,
        lazy: source.switch("lazy", given.lazy)?,
        warm: source.value("warm", given.warm, 0, |text| match text {
            "0" => Ok(0),
            _ => positive(text),
        })?,
        replica: source.value("replica", given.replica, None, |text| replica(text).map(Some))?,
        cwd: source.text("cwd", given.cwd).map(|(text, _)| PathBuf::from(text)),
        env,
        allow_origin,
        allow_host,
        max_body: source.value("max-body", given.max_body, 10 << 20, size)?,
        max_message: source.value("max-message", given.max_message, 64 << 20, size)?,
        replay_buffer: source.value("replay-buffer", given.replay_buffer, 4 << 20, size)?,
        max_in_flight: source.value("max-in-flight", given.max_in_flight, 256, positive)?,
        shutdown_timeout,
        stop_grace: source.value("stop-grace", given.stop_grace, Duration::from_secs(5), duration)?,
        log: source.value("log", given.log, LogFormat::Text, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("write text or json".to_owned()),
        })?,
        command,
        unknown_variables: unknown_variables(source),
    })
}

/// Variables that look meant for us and are not. What Kubernetes sets for a Service of our name is not meant.
fn unknown_variables(source: &Source<'_>) -> Vec<String> {
    let known = source.asked.borrow();
    let service = |name: &str| name.starts_with("MCP_BRIDGE_SERVICE_") || name.starts_with("MCP_BRIDGE_PORT");
    let unknown = |name: &String| name.starts_with("MCP_BRIDGE_") && !known.contains(name) && !service(name);
    let mut names: Vec<String> = source.environment.names().into_iter().filter(unknown).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Variables(HashMap<String, String>);

    impl Environment for Variables {
        fn get(&self, name: &str) -> Option<String> {
            self.0.get(name).cloned()
        }
        fn names(&self) -> Vec<String> {
            self.0.keys().cloned().collect()
        }
    }

    fn run(line: &str, variables: &[(&str, &str)], container: Option<&'static str>) -> Result<Task, String> {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        parse(arguments, &Variables(variables), container)
    }

    fn options(line: &str, variables: &[(&str, &str)]) -> Options {
        match run(line, variables, None) {
            Ok(Task::Serve(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &str, variables: &[(&str, &str)]) -> String {
        match run(line, variables, None) {
            Err(error) => error,
            other => panic!("{line} should be refused, got {other:?}"),
        }
    }

    #[test]
    fn everything_behind_the_dashes_is_the_command() {
        let options = options("--max-sessions 3 -- npx -y server --listen 1 -- x", &[]);
        assert_eq!(options.command, ["npx", "-y", "server", "--listen", "1", "--", "x"]);
        assert_eq!(options.max_sessions, 3);
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let variables =
            [("MCP_BRIDGE_MAX_SESSIONS", "5"), ("MCP_BRIDGE_IDLE_TIMEOUT", "1m"), ("MCP_BRIDGE_LAZY", "1")];
        let options = options("--max-sessions=7 -- x", &variables);
        assert_eq!(options.max_sessions, 7);
        assert_eq!(options.idle_timeout, Duration::from_secs(60));
        assert!(options.lazy);
    }

    #[test]
    fn where_to_listen_and_why() {
        let listen = |line: &str, variables: &[(&str, &str)], container| match run(line, variables, container)
        {
            Ok(Task::Serve(options)) => (options.listen, options.listen_because),
            other => panic!("{other:?}"),
        };
        let tcp = |text: &str| Address::Tcp(text.parse().expect("an address"));
        assert_eq!(listen("-- x", &[], None), (tcp(LOCAL), "default; --listen changes it"));
        assert_eq!(listen("-- x", &[], Some("pid 1")), (tcp(CONTAINER), "pid 1"));
        assert_eq!(listen("--listen [::1]:0 -- x", &[], Some("pid 1")), (tcp("[::1]:0"), "--listen"));
        assert_eq!(
            listen("-- x", &[("MCP_BRIDGE_LISTEN", "unix:/run/x")], None),
            (Address::Unix("/run/x".into()), "MCP_BRIDGE_LISTEN")
        );
    }

    #[test]
    fn each_mistake_names_the_option_the_value_and_the_cure() {
        let table = [
            ("--listen localhost:80 -- x", "--listen is \"localhost:80\": write IP:PORT"),
            ("--listen 80 -- x", "write IP:PORT"),
            ("--path mcp -- x", "--path is \"mcp\": write a path such as /mcp"),
            ("--path /healthz -- x", "other than /healthz"),
            ("--max-sessions 0 -- x", "write a number from 1"),
            ("--idle-timeout 5 -- x", "--idle-timeout is \"5\": write a number with ms, s, m or h"),
            ("--idle-timeout 0s -- x", "longer than zero"),
            ("--request-timeout 99999999h -- x", "a year"),
            ("--max-body 1X -- x", "write a size"),
            ("--env FOO -- x", "write NAME=VALUE"),
            ("--env =x -- x", "write NAME=VALUE"),
            ("--log xml -- x", "write text or json"),
            ("--allow-origin * -- x", "without a path and without *"),
            ("--allow-host http://a -- x", "without scheme"),
            ("--no-such-option -- x", "--help lists the options"),
            ("npx server", "The server's command goes behind --"),
            ("", "no server command; it goes behind --"),
            ("--", "no server command"),
        ];
        for (line, want) in table {
            let text = error(line, &[]);
            assert!(text.contains(want), "{line}: {text:?} should contain {want:?}");
        }
        let text = error("-- x", &[("MCP_BRIDGE_LOG", "xml")]);
        assert!(text.starts_with("MCP_BRIDGE_LOG is \"xml\""), "{text}");
        assert!(error("-- x", &[("MCP_BRIDGE_LAZY", "maybe")]).contains("write 1 or 0"));
    }

    #[test]
    fn durations_and_sizes() {
        let table =
            [("250ms", 250), ("15s", 15_000), ("30m", 1_800_000), ("1h", 3_600_000), ("0", 0), ("0s", 0)];
        for (text, milliseconds) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "1 s", "1d", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("512K"), Ok(512 << 10));
        assert_eq!(size("7"), Ok(7));
        for text in ["", "0", "MiB", "1TiB", "5GiB", "-1"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_come_from_the_environment_line_by_line() {
        let variables =
            [("MCP_BRIDGE_ENV", "A=1\nB=x=y,z\n"), ("MCP_BRIDGE_ALLOW_ORIGIN", "https://App.example\n")];
        let options = options("-- x", &variables);
        assert_eq!(options.env, [("A".into(), "1".into()), ("B".into(), "x=y,z".into())]);
        assert_eq!(options.allow_origin, ["https://app.example"]);
        let given = self::options("--env=C=3 --env D= --lazy -- x", &variables);
        assert_eq!(given.env, [("C".into(), "3".into()), ("D".into(), String::new())]);
        assert!(given.unknown_variables.is_empty(), "{:?}", given.unknown_variables);
    }

    #[test]
    fn a_variable_that_names_no_option_is_told_but_not_what_kubernetes_sets() {
        let variables = [
            ("MCP_BRIDGE_LISTN", "x"),
            ("MCP_BRIDGE_SERVICE_HOST", "10.0.0.1"),
            ("MCP_BRIDGE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("MCP_BRIDGE_LOG", "json"),
        ];
        assert_eq!(options("-- x", &variables).unknown_variables, ["MCP_BRIDGE_LISTN"]);
    }

    #[test]
    fn help_and_version_are_for_whoever_asked() {
        assert!(matches!(run("--help", &[], None), Ok(Task::Print(text)) if text.contains("--max-sessions")));
        assert!(
            matches!(run("--version", &[], None), Ok(Task::Print(text)) if text.starts_with("mcp-bridge 0."))
        );
        assert!(matches!(run("--healthcheck", &[], None), Ok(Task::HealthCheck(_))));
        assert!(matches!(run("--check -- x", &[], None), Ok(Task::Check(_))));
    }
}
