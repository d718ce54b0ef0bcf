//! The command line and `MCP_BRIDGE_*` become validated [`Options`]; nothing later checks again. No I/O.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use argh::FromArgs;
use regex_lite::Regex;

mod arguments;
mod values;

use arguments::Arguments;
use values::{
    MAX_COUNT, address, assignment, duration, env_from_header, host, origin, path, pattern, replica,
    session_key, size, some_time, url, variable,
};

use crate::address::Address;
use crate::secret::Secret;

/// The endpoint when nobody says otherwise.
const LOCAL: &str = "127.0.0.1:8080";

/// The same in a container, where loopback would be reachable for nobody.
const CONTAINER: &str = "[::]:8080";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person.
    Text,
    /// For a program: one JSON object per line.
    Json,
}

/// What becomes of a session whose child exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// It ends.
    End,
    /// It gets a new child and keeps its id.
    Respawn,
}

/// What names the session of a request that carries no `Mcp-Session-Id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionKey {
    /// The value of this header, whose name is in lower case.
    Header(String),
    /// Nothing: all such requests have one session.
    Shared,
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
    /// See `--max-starting`.
    pub max_starting: usize,
    /// See `--on-exit`.
    pub on_exit: OnExit,
    /// See `--init-timeout`.
    pub init_timeout: Duration,
    /// See `--request-timeout`.
    pub request_timeout: Duration,
    /// See `--ready-delay`.
    pub ready_delay: Duration,
    /// See `--ready-retry`.
    pub ready_retry: Option<Regex>,
    /// See `--ready-timeout`.
    pub ready_timeout: Duration,
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
    /// See `--session-key`.
    pub session_key: Option<SessionKey>,
    /// See `--replica`.
    pub replica: Option<String>,
    /// See `--cwd`.
    pub cwd: Option<PathBuf>,
    /// See `--env`.
    pub env: Vec<(String, String)>,
    /// See `--clean-env`.
    pub clean_env: bool,
    /// See `--pass-env`.
    pub pass_env: Vec<String>,
    /// See `--env-from-header`: the variable, and the header's name in lower case.
    pub env_from_header: Vec<(String, String)>,
    /// See `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `MCP_BRIDGE_TOKEN`, for want of a file.
    pub token: Option<Secret>,
    /// See `--resource-metadata`.
    pub resource_metadata: Option<String>,
    /// See `--authorization-server`.
    pub authorization_servers: Vec<String>,
    /// See `--allow-origin`; lower case.
    pub allow_origin: Vec<String>,
    /// See `--allow-host`; lower case.
    pub allow_host: Vec<String>,
    /// See `--max-connections`; `None`: as many as fit.
    pub max_connections: Option<usize>,
    /// See `--header-timeout`.
    pub header_timeout: Duration,
    /// See `--body-timeout`.
    pub body_timeout: Duration,
    /// See `--connection-idle-timeout`.
    pub connection_idle_timeout: Duration,
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
    fn get(&self, name: &str) -> Option<OsString>;
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
    fn text(&self, option: &str, given: Option<String>) -> Result<Option<(String, String)>, String> {
        let variable = self.variable(option);
        match given {
            Some(text) => Ok(Some((text, format!("--{option}")))),
            None => Ok(self.get(&variable)?.map(|text| (text, variable))),
        }
    }

    /// A variable that is no text is a mistake, and never as good as none: it may be a token.
    fn get(&self, variable: &str) -> Result<Option<String>, String> {
        let text = self.environment.get(variable).map(OsString::into_string).transpose();
        text.map_err(|_| format!("{variable} is not UTF-8"))
    }

    fn value<T>(
        &self,
        option: &str,
        given: Option<String>,
        default: T,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        match self.text(option, given)? {
            None => Ok(default),
            Some((text, name)) => read(text.trim()).map_err(|cure| format!("{name} is {text:?}: {cure}")),
        }
    }

    fn list(&self, option: &str, given: Vec<String>) -> Result<Vec<(String, String)>, String> {
        let variable = self.variable(option);
        if !given.is_empty() {
            return Ok(given.into_iter().map(|text| (text, format!("--{option}"))).collect());
        }
        let text = self.get(&variable)?.unwrap_or_default();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(|line| (line.to_owned(), variable.clone())).collect())
    }

    /// Each entry of a list, read.
    fn each<T>(
        &self,
        option: &str,
        given: Vec<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let read = |(text, name): (String, String)| {
            read(&text).map_err(|cure| format!("{name} is {text:?}: {cure}"))
        };
        self.list(option, given)?.into_iter().map(read).collect()
    }

    /// What must not stand on a command line, where every process of the machine can read it.
    fn secret(&self, option: &str) -> Result<Option<Secret>, String> {
        Ok(self.get(&self.variable(option))?.map(Secret::new))
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
    let (listen, listen_because) = match (source.text("listen", given.listen)?, container) {
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
    let warm = source.value("warm", given.warm, 0, |text| match text {
        "0" => Ok(0),
        _ => positive(text),
    })?;
    let token_file = source.text("token-file", given.token_file)?.map(|(text, _)| PathBuf::from(text));
    let token = source.secret("token")?;
    if token_file.is_some() && token.is_some() {
        return Err("--token-file and MCP_BRIDGE_TOKEN are both given: which one counts?".to_owned());
    }
    let clean_env = source.switch("clean-env", given.clean_env)?;
    let pass_env = source.each("pass-env", given.pass_env, variable)?;
    if !clean_env && !pass_env.is_empty() {
        return Err("--pass-env needs --clean-env: without it every variable is passed on".to_owned());
    }
    let env_from_header = source.each("env-from-header", given.env_from_header, env_from_header)?;
    let mut variables: Vec<&String> = env_from_header.iter().map(|(variable, _)| variable).collect();
    variables.sort();
    if let Some([variable, _]) = variables.windows(2).find(|pair| pair.first() == pair.last()) {
        return Err(format!("--env-from-header gives {variable} twice: which header counts?"));
    }
    let authorized = token_file.is_some() || token.is_some();
    if authorized && env_from_header.iter().any(|(_, header)| header == "authorization") {
        return Err(
            "--env-from-header takes Authorization, which carries the bridge's own token: use another header"
                .to_owned(),
        );
    }
    let session_key =
        source.value("session-key", given.session_key, None, |text| session_key(text).map(Some))?;
    if session_key == Some(SessionKey::Shared) && !env_from_header.is_empty() {
        return Err("--session-key shared and --env-from-header exclude each other: one client's value would serve all".to_owned());
    }
    if warm > 0 && !env_from_header.is_empty() {
        return Err(
            "--warm and --env-from-header exclude each other: a server started ahead has no client yet"
                .to_owned(),
        );
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
        max_starting: source.value("max-starting", given.max_starting, 4, positive)?,
        on_exit: source.value("on-exit", given.on_exit, OnExit::End, |text| match text {
            "end" => Ok(OnExit::End),
            "respawn" => Ok(OnExit::Respawn),
            _ => Err("write end or respawn".to_owned()),
        })?,
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
        ready_delay: source.value("ready-delay", given.ready_delay, Duration::ZERO, duration)?,
        ready_retry: source.value("ready-retry", given.ready_retry, None, |text| pattern(text).map(Some))?,
        ready_timeout: source.value(
            "ready-timeout",
            given.ready_timeout,
            Duration::from_secs(120),
            some_time,
        )?,
        sse_after: source.value("sse-after", given.sse_after, Duration::from_millis(250), duration)?,
        keep_alive: source.value("keep-alive", given.keep_alive, Duration::from_secs(15), some_time)?,
        prime: source.switch("prime", given.prime)?,
        sse_compat: source.switch("sse-compat", given.sse_compat)?,
        lazy: source.switch("lazy", given.lazy)?,
        warm,
        session_key,
        replica: source.value("replica", given.replica, None, |text| replica(text).map(Some))?,
        cwd: source.text("cwd", given.cwd)?.map(|(text, _)| PathBuf::from(text)),
        env: source.each("env", given.env, assignment)?,
        clean_env,
        pass_env,
        env_from_header,
        token_file,
        token,
        resource_metadata: source
            .value("resource-metadata", given.resource_metadata, None, |text| url(text).map(Some))?,
        authorization_servers: source.each("authorization-server", given.authorization_server, url)?,
        allow_origin: source.each("allow-origin", given.allow_origin, origin)?,
        allow_host: source.each("allow-host", given.allow_host, host)?,
        max_connections: source
            .value("max-connections", given.max_connections, None, |text| positive(text).map(Some))?,
        header_timeout: source.value(
            "header-timeout",
            given.header_timeout,
            Duration::from_secs(10),
            some_time,
        )?,
        body_timeout: source.value("body-timeout", given.body_timeout, Duration::from_secs(30), some_time)?,
        // Balancers keep theirs for 60 s (ALB) to 600 s (GCP), and whoever closes first must be the one who sends requests.
        connection_idle_timeout: source.value(
            "connection-idle-timeout",
            given.connection_idle_timeout,
            Duration::from_secs(650),
            some_time,
        )?,
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
    // A bridge's own child may be a bridge: what tells its processes apart is not meant either.
    let service = |name: &str| {
        name.starts_with("MCP_BRIDGE_SERVICE_")
            || name.starts_with("MCP_BRIDGE_PORT")
            || name == "MCP_BRIDGE_CHILD"
    };
    let unknown = |name: &String| name.starts_with("MCP_BRIDGE_") && !known.contains(name) && !service(name);
    let mut names: Vec<String> = source.environment.names().into_iter().filter(unknown).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
