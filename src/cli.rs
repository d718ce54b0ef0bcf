//! The command line and `MCP_BRIDGE_*` become validated [`Options`]; nothing later checks again. No I/O.

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use argh::FromArgs;

mod completions;
mod help;
mod source;
mod table;
mod unknown;
mod values;

pub use source::EnvSource;
pub use table::Options;

use source::Source;
use table::Arguments;
use values::one_of;

use crate::address::Address;

/// The port where nothing says another.
const PORT: u16 = 8080;

/// A whole command line.
const EXAMPLE: &str = "mcp-bridge -- npx -y @modelcontextprotocol/server-everything";

/// The addresses where no option names one. In a container loopback is reachable from nowhere.
fn default_addresses(
    environment: &dyn EnvSource,
    container: Option<&'static str>,
) -> (Vec<Address>, &'static str) {
    // Platforms that run a program for its operator (Cloud Run, Heroku, Render) say so where they send the traffic. What
    // is no port is no such platform's.
    let given = environment.get("PORT").and_then(|text| text.to_str()?.parse::<u16>().ok());
    let port = given.filter(|port| *port != 0);
    let because = match (port, container) {
        (Some(_), Some(_)) => "the variable PORT, in a container",
        (Some(_), None) => "the variable PORT; --listen changes it",
        (None, Some(evidence)) => evidence,
        (None, None) => "default; --listen changes it",
    };
    let port = port.unwrap_or(PORT);
    let address = match container {
        Some(_) => Address::Tcp((Ipv6Addr::UNSPECIFIED, port).into()),
        None => Address::Localhost(port),
    };
    (vec![address], because)
}

/// How many tools may be restored.
const MAX_RESTORED: usize = 64;

/// What becomes of a session whose child exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    End,
    /// It gets a new child and keeps its id.
    Respawn,
}

/// Where the session key of a request without `Mcp-Session-Id` comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The value of this header, whose name is in lower case.
    Header(String),
    /// Nothing: all such requests have one session.
    Shared,
}

/// What the operator knows of the revisions that the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Nothing: the bridge finds it out.
    Auto,
    /// Those with `initialize`.
    Legacy,
    /// 2026-07-28 alone.
    Modern,
}

/// Which clients share a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    None,
    /// Those of the same key.
    Key,
    All,
}

/// What the program was asked to do.
#[derive(Debug)]
pub enum Task {
    Serve(Box<Options>),
    /// Say whether the options are good and the server works.
    Check(Box<Options>),
    /// Copy the program into this directory.
    Install(PathBuf),
    /// Say whether the bridge on these addresses is ready.
    HealthCheck(Vec<Address>),
    /// Print this text to stdout.
    Print(String),
}

impl Options {
    /// The server's command as it would be typed into a shell.
    pub fn command_line(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
        let typed = |word: &OsString| match word.to_string_lossy() {
            word if !word.is_empty() && word.chars().all(plain) => word.into_owned(),
            word => format!("'{}'", word.replace('\'', r"'\''")),
        };
        self.command.iter().map(typed).collect::<Vec<_>>().join(" ")
    }
}

/// Reads the command line. `arguments` without the program's name; `container`: the evidence that this is a
/// container, if there is any.
///
/// # Errors
/// A sentence for the person who typed it: what is wrong, and the cure.
pub fn parse(
    arguments: Vec<OsString>,
    environment: &dyn EnvSource,
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
    if words.contains(&"--help") {
        return Ok(Task::Print(help::help()));
    }
    if words.contains(&"-h") {
        return Ok(Task::Print(help::short_help()));
    }
    if let Some(complaint) = unknown::complaint(&words) {
        return Err(format!("{complaint}\nmcp-bridge --help lists the options"));
    }
    let mut given = match Arguments::from_args(&["mcp-bridge"], &words) {
        Ok(given) => given,
        Err(exit) if exit.status.is_ok() => return Ok(Task::Print(help::help())),
        Err(exit) => return Err(refused(exit.output.trim(), separator.is_some())),
    };
    if given.version {
        return Ok(Task::Print(format!("mcp-bridge {}\n", env!("CARGO_PKG_VERSION"))));
    }
    if given.man {
        return Ok(Task::Print(help::man()));
    }
    if let Some(shell) = &given.completions {
        let script = one_of(completions::SHELLS, shell)
            .map_err(|cure| format!("--completions is {shell:?}: {cure}"))?;
        return Ok(Task::Print(script()));
    }
    if let Some(directory) = given.install.take() {
        return Ok(Task::Install(directory.into()));
    }
    let listen_because = if given.listen.is_empty() { "MCP_BRIDGE_LISTEN" } else { "--listen" };
    let mut options = Options::read(given, &Source(environment), listen_because, command)?;
    if options.listen.is_empty() {
        (options.listen, options.listen_because) = default_addresses(environment, container);
    }
    cross_check(&options)?;
    if let Some(text) = environment.get("RUST_LOG") {
        let text = text.to_string_lossy();
        values::log_level(&text).map_err(|cure| format!("RUST_LOG is {text:?}: {cure}"))?;
    }
    if options.healthcheck {
        return Ok(Task::HealthCheck(options.listen));
    }
    if options.command.is_empty() {
        return Err(format!("no server command; it goes after --, as in: {EXAMPLE}"));
    }
    Ok(if options.check { Task::Check(Box::new(options)) } else { Task::Serve(Box::new(options)) })
}

/// The sentence about a command line that argh does not take, from what it says.
fn refused(said: &str, has_command: bool) -> String {
    let no_option = said.strip_prefix("Unrecognized argument: ");
    let no_value =
        said.strip_prefix("No value provided for option '").map(|rest| rest.trim_end_matches("'."));
    match (no_option, no_value) {
        (Some(word), _) if !has_command => {
            format!("{word} is not an option; the server's command goes after --, as in: {EXAMPLE}")
        }
        (Some(word), _) => format!("{word} is not an option\nmcp-bridge --help lists the options"),
        (_, Some(option)) => format!("{option} needs a value\nmcp-bridge --help lists the options"),
        _ => format!("{said}\nmcp-bridge --help lists the options"),
    }
}

/// Checks what concerns several options at once.
fn cross_check(options: &Options) -> Result<(), String> {
    let Options { token_file, token, env_from_header, session_key, .. } = options;
    if token_file.is_some() && token.is_some() {
        return Err("--token-file and MCP_BRIDGE_TOKEN are both set: remove one of them".to_owned());
    }
    if !options.clean_env && !options.pass_env.is_empty() {
        return Err("--pass-env needs --clean-env: without it every variable is passed on".to_owned());
    }
    if options.socket_mode.is_some()
        && !options.listen.iter().any(|address| matches!(address, Address::Unix(_)))
    {
        return Err("--socket-mode needs a socket: --listen unix:PATH".to_owned());
    }
    let mut variables: Vec<&String> = env_from_header.iter().map(|(variable, _)| variable).collect();
    variables.sort_unstable();
    if let Some([variable, _]) = variables.windows(2).find(|pair| pair.first() == pair.last()) {
        return Err(format!("--env-from-header sets {variable} twice: remove one of them"));
    }
    let authorized = token_file.is_some() || token.is_some();
    if authorized && env_from_header.iter().any(|(_, header)| header == "authorization") {
        return Err(
            "--env-from-header uses Authorization, which carries the bridge's own token: use another header"
                .to_owned(),
        );
    }
    if *session_key == Some(KeySource::Shared) && !env_from_header.is_empty() {
        return Err(
            "--session-key shared and --env-from-header cannot be combined: the value of one client would be used for all"
                .to_owned(),
        );
    }
    if options.share == Share::Key && session_key.is_none() && !authorized {
        return Err(
            "--share key needs a key: --session-key, or tokens (--token-file, MCP_BRIDGE_TOKEN)".to_owned()
        );
    }
    if options.share == Share::All && !env_from_header.is_empty() {
        return Err(
            "--share all and --env-from-header cannot be combined: the value of one client would be used for all"
                .to_owned(),
        );
    }
    if !options.restore.is_empty() && options.on_exit != OnExit::Respawn {
        return Err("--restore needs --on-exit respawn: without it a session ends with its server".to_owned());
    }
    if options.restore.len() > MAX_RESTORED {
        return Err(format!("--restore names {} tools: at most {MAX_RESTORED}", options.restore.len()));
    }
    if options.warm > options.max_sessions {
        return Err(format!(
            "--warm is {} and --max-sessions {}: servers started in advance count as sessions; raise --max-sessions or lower --warm",
            options.warm, options.max_sessions
        ));
    }
    if options.warm > 0 && !env_from_header.is_empty() {
        return Err(
            "--warm and --env-from-header cannot be combined: a server started in advance has no client yet"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
