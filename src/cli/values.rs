//! How the values of options are written. Each error says what to write; [`super::source`] puts the option's name and the
//! value in front of it.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use regex_lite::Regex;

use super::{Era, KeySource, OnExit, Share};
use crate::address::Address;
use crate::log::Format;

/// The most that a count may be.
const MAX_COUNT: usize = 100_000;

/// The longest name of a tool, in bytes.
const MAX_TOOL: usize = 1024;

/// What one of these words stands for.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)], text: &str) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("write {}", words.join(" or "))
    })
}

pub(super) fn on_exit(text: &str) -> Result<OnExit, String> {
    one_of(&[("end", OnExit::End), ("respawn", OnExit::Respawn)], text)
}

/// The name of a tool, which may be anything (`server/tools` advises at most 128 characters).
pub(super) fn tool(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.len() <= MAX_TOOL && !text.contains(char::is_control);
    if good { Ok(text.to_owned()) } else { Err("write the name of a tool".to_owned()) }
}

pub(super) fn era(text: &str) -> Result<Era, String> {
    one_of(&[("auto", Era::Auto), ("legacy", Era::Legacy), ("modern", Era::Modern)], text)
}

pub(super) fn share(text: &str) -> Result<Share, String> {
    one_of(&[("none", Share::None), ("key", Share::Key), ("all", Share::All)], text)
}

pub(super) fn log_format(text: &str) -> Result<Format, String> {
    one_of(&[("text", Format::Text), ("json", Format::Json)], text)
}

/// Levels of the log: one for all, or some as `part=level`, between commas. What is no level would be taken for the name
/// of a part, and nothing would be logged.
pub(super) fn log_level(text: &str) -> Result<(), String> {
    let known = |level: &str| {
        ["error", "warn", "info", "debug", "trace", "off"].iter().any(|one| one.eq_ignore_ascii_case(level))
    };
    let good =
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).all(|one| match one.split_once('=') {
            Some((part, level)) => !part.is_empty() && known(level),
            None => known(one),
        });
    if good { Ok(()) } else { Err("write error, warn, info, debug or off".to_owned()) }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=MAX_COUNT).contains(&number) => Ok(number),
        _ => Err(format!("write a number from 1 to {MAX_COUNT}")),
    }
}

pub(super) fn count_or_zero(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { count(text).map_err(|_| format!("write a number from 0 to {MAX_COUNT}")) }
}

/// A path of the file system. Whether a file is there shows when it is used.
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("write a path".to_owned()) } else { Ok(text.into()) }
}

/// A year: what is longer is a typing error.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

pub(super) fn address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        // sun_path of unix(7) holds 108 bytes with the closing NUL.
        return match path.len() {
            1..=107 => Ok(Address::Unix(path.into())),
            _ => Err("the path of a socket must have 1 to 107 bytes".to_owned()),
        };
    }
    if text.starts_with('/') {
        return Err(format!("write unix:{text} for a socket file"));
    }
    let port = |prefix: &str| text.strip_prefix(prefix)?.parse::<u16>().ok();
    if let Some(port) = port(":") {
        return Ok(Address::Tcp((Ipv6Addr::UNSPECIFIED, port).into()));
    }
    if let Some(port) = port("localhost:") {
        return Ok(Address::Localhost(port));
    }
    text.parse::<SocketAddr>().map(Address::Tcp).map_err(|_| {
        "write IP:PORT, as in 127.0.0.1:8080 or [::]:8080, or :PORT, localhost:PORT or unix:PATH; other names are not \
         resolved"
            .to_owned()
    })
}

/// Permissions of a file in octal.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let octal = text.strip_prefix("0o").unwrap_or(text);
    let digits = (1..=4).contains(&octal.len()) && octal.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(octal, 8) {
        // Without the right to write nobody can connect (unix(7)).
        Ok(mode) if digits && mode <= 0o777 && mode & 0o200 != 0 => Ok(mode),
        _ => Err("write permissions in octal that let the owner write, as in 600, 660 or 666".to_owned()),
    }
}

/// Paths with a meaning of their own.
const RESERVED: [&str; 4] = ["/healthz", "/readyz", "/sse", "/message"];

/// The path of the endpoint, without a slash at its end.
pub(super) fn path(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let ours = !RESERVED.contains(&path) && !path.starts_with("/.well-known");
    if text.starts_with('/') && ours && path.bytes().all(plain) {
        return Ok(path.to_owned());
    }
    let with_slash = format!("/{text}");
    if !text.starts_with('/') && self::path(&with_slash).is_ok() {
        return Err(format!("write {with_slash}"));
    }
    Err("write a path such as /mcp, of letters, digits and /-._~, other than /healthz and /readyz".to_owned())
}

/// The longest label that fits into a session id, in characters.
const MAX_REPLICA: usize = 79;

pub(super) fn replica(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && (1..=MAX_REPLICA).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("write 1 to {MAX_REPLICA} letters, digits and dashes"))
    }
}

pub(super) fn origin(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let cure = || "write scheme://host or scheme://host:port, without a path and without *".to_owned();
    let (scheme, host) = text.split_once("://").ok_or_else(cure)?;
    let scheme_rest = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte); // RFC 3986 §3.1
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(scheme_rest) {
        return Err(cure());
    }
    let web = matches!(scheme, "http" | "https");
    if host == "*" {
        // Programs make up a host for each of their pages, as in vscode-webview://1b2c3d.
        return if web { Err("pages of any website could call; name the host".to_owned()) } else { Ok(text) };
    }
    if let Some(host) = host.strip_suffix('/').filter(|_| web) {
        return Err(format!("browsers send no / at the end; write {scheme}://{host}"));
    }
    if host.is_empty()
        || !host.bytes().all(|byte| byte.is_ascii_graphic())
        || host.contains(['/', '*', '@', '?', '#'])
    {
        return Err(cure());
    }
    // RFC 6454 §6.2: the port of the scheme is left out.
    let default = if scheme == "https" { ":443" } else { ":80" };
    if let Some(host) = host.strip_suffix(default).filter(|_| web) {
        return Err(format!("browsers leave out the default port; write {scheme}://{host}"));
    }
    let port = if host.ends_with(']') { None } else { host.rsplit_once(':').map(|(_, port)| port) };
    if web && port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with(['0', '+'])) {
        return Err("write a port from 1 to 65535".to_owned());
    }
    Ok(text)
}

pub(super) fn host(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', ' ']) {
        return Err("write a host name without scheme, port and path".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

pub(super) fn url(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\<>".contains(&byte);
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.starts_with('/') && text.bytes().all(plain) => {
            Ok(text.to_owned())
        }
        _ => Err("write a URL, as in https://login.example.com".to_owned()),
    }
}

/// The name of an environment variable (POSIX.1-2024, base definitions 8.1).
pub(super) fn variable_name(text: &str) -> Result<String, String> {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        Ok(text.to_owned())
    } else {
        Err("write the name of a variable: letters, digits and _".to_owned())
    }
}

pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// Variables that decide what a loader, a shell, an interpreter or a package manager runs, by their whole names.
const NEVER: &[&str] = &[
    "PATH",
    "HOME",
    "PWD",
    "SHELL",
    "ENV",
    "IFS",
    "CDPATH",
    "SHELLOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "FPATH",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "TMPDIR",
    "TMP",
    "TEMP",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "MANPAGER",
    "BROWSER",
    "LESSOPEN",
    "LESSCLOSE",
    "LESSKEY",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "TCLLIBPATH",
    "GOROOT",
    "GOTOOLCHAIN",
    "CC",
    "CXX",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "SSLKEYLOGFILE",
];

/// The same, by how they begin.
const NEVER_FAMILIES: &[&str] = &[
    // loaders
    "LD_",
    "DYLD_",
    "GLIBC_",
    "MALLOC_",
    "GTK_",
    "QT_",
    "GIO_",
    "GST_",
    "GI_TYPELIB",
    "OPENSSL_",
    "SSL_CERT",
    // shells, and what they start
    "BASH",
    "GIT_",
    "SSH_",
    "SUDO_",
    "XDG_",
    "KUBE",
    // interpreters
    "NODE_",
    "TS_NODE",
    "BUN_",
    "DENO_",
    "ELECTRON_",
    "PYTHON",
    "PERL",
    "RUBY",
    "GEM_",
    "BUNDLE_",
    "LUA_",
    "JAVA_",
    "_JAVA_",
    "JDK_",
    "IBM_JAVA",
    "OPENJ9_",
    "DOTNET_",
    "CORECLR_",
    "COMPLUS_",
    "COR_",
    "ERL_",
    "ELIXIR_",
    "R_",
    "JULIA_",
    "GUILE_",
    // package managers and compilers
    "NPM_",
    "PNPM_",
    "YARN_",
    "COREPACK_",
    "UV_",
    "PIP_",
    "PIPX_",
    "POETRY_",
    "CONDA_",
    "CARGO_",
    "RUST",
    "NIX_",
    "MCP_BRIDGE_",
];

/// The same, by a word of theirs.
const NEVER_WORDS: &[&str] = &["PRELOAD", "EXECUTABLE", "BINARY", "ASKPASS", "INTERPRETER"];

/// The same, by how their last words end.
const NEVER_LAST: &[&str] = &[
    "PRELOAD",
    "REQUIRE",
    "PLUGIN",
    "PLUGINS",
    "MODULE",
    "MODULES",
    "MODULEPATH",
    "CLASSPATH",
    "OPTIONS",
    "OPTS",
    "FLAGS",
    "ARGS",
    "COMMAND",
    "CMD",
    "EXEC",
    "WRAPPER",
    "HOOK",
    "HOOKS",
    "SHELL",
    "EDITOR",
    "PAGER",
    "CONFIG",
    "PROXY",
    "REGISTRY",
    "CERT",
    "CERTS",
    "BUNDLE",
    "STARTUP",
    "LOADER",
    "HOME",
];

/// Last words of variables that say who somebody is, where something is or which part of it is meant: what servers take
/// from each of their users.
const HARMLESS_LAST: &[&str] = &[
    "TOKEN",
    "KEY",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PAT",
    "AUTH",
    "AUTHORIZATION",
    "BEARER",
    "JWT",
    "COOKIE",
    "CREDENTIAL",
    "CREDENTIALS",
    "USER",
    "USERNAME",
    "LOGIN",
    "EMAIL",
    "ID",
    "UUID",
    "NAME",
    "ACCOUNT",
    "ORG",
    "ORGANIZATION",
    "TEAM",
    "TENANT",
    "WORKSPACE",
    "PROJECT",
    "SUBSCRIPTION",
    "DOMAIN",
    "SUBDOMAIN",
    "SITE",
    "URL",
    "URI",
    "HOST",
    "HOSTNAME",
    "PORT",
    "ENDPOINT",
    "REGION",
    "ZONE",
    "DATABASE",
    "SCHEMA",
    "LOCALE",
    "TIMEZONE",
];

/// Those of them that stand at the end of longer words too, as in PGPASSWORD and apiKey.
const HARMLESS_END: &[&str] = &["TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "USER", "USERNAME"];

/// Words of variables that say where more is loaded from, as in PLAYWRIGHT_DOWNLOAD_HOST: their last words tell too little.
const SOURCES: &[&str] = &[
    "PROXY", "MIRROR", "INDEX", "CONFIG", "PLUGIN", "PLUGINS", "MODULE", "DOWNLOAD", "INSTALL", "UPDATE",
    "CDN", "SCRIPT", "HOOK", "COMMAND", "CMD", "LOADER", "INIT",
];

/// What a client may do with a variable, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Harmless,
    /// It may decide what runs.
    Unknown,
    /// It decides what runs.
    Never,
}

fn kind_of_variable(name: &str) -> Kind {
    let name = name.to_ascii_uppercase();
    // API_KEY_2 is a key.
    let numbered = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let last = numbered.rsplit('_').next().unwrap_or_default();
    let has_word = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    let ends = |words: &[&str]| words.iter().any(|word| last.ends_with(word));
    if NEVER.contains(&&*name)
        || NEVER_FAMILIES.iter().any(|family| name.starts_with(family))
        || has_word(NEVER_WORDS)
        || ends(NEVER_LAST)
    {
        Kind::Never
    } else if !has_word(SOURCES) && (HARMLESS_LAST.contains(&last) || ends(HARMLESS_END)) {
        Kind::Harmless
    } else {
        Kind::Unknown
    }
}

/// `NAME=HEADER`; `NAME!=HEADER`, where the name does not tell that no value of it can do harm.
pub(super) fn env_from_header(text: &str) -> Result<(String, String), String> {
    let cure = || "write NAME=HEADER, as in GITHUB_TOKEN=X-GitHub-Token".to_owned();
    let (name, header) = text.split_once('=').ok_or_else(cure)?;
    let (name, is_known_harmless) = match name.strip_suffix('!') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let name = variable_name(name).map_err(|_| cure())?;
    let header = header_name(header).ok_or_else(cure)?;
    match kind_of_variable(&name) {
        Kind::Never => {
            Err(format!("{name} decides what a loader, a shell or an interpreter runs; no client may set it"))
        }
        Kind::Unknown if !is_known_harmless => Err(format!(
            "{name} does not look like the name of a credential, an account or an address; if no value that a client sends can make \
             the server run or load something, write {name}!={header}"
        )),
        Kind::Unknown | Kind::Harmless => Ok((name, header)),
    }
}

/// A header's name in lower case: a token (RFC 9110 §5.6.2) without the characters that header names do not have in
/// practice.
fn header_name(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_ascii_lowercase())
}

pub(super) fn key_source(text: &str) -> Result<KeySource, String> {
    if text == "shared" {
        return Ok(KeySource::Shared);
    }
    let name = text.strip_prefix("header:").and_then(header_name);
    let cure = || "write shared, or header:NAME as in header:Authorization".to_owned();
    name.map(KeySource::Header).ok_or_else(cure)
}

pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let pattern = Regex::new(text)
        .map_err(|why| format!("{why}; write a regular expression, as in 'not ready|(?i)still loading'"))?;
    // Most likely a typing error, such as a | at the end; it would send again what was not refused.
    if pattern.is_match("") {
        return Err("it matches any text; write what the server says only while it is not ready".to_owned());
    }
    Ok(pattern)
}

/// A duration above zero.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// A duration above zero, or none.
pub(super) fn time_or_off(text: &str) -> Result<Option<Duration>, String> {
    if is_off(text) { Ok(None) } else { some_time(text).map(Some) }
}

/// What stands for an option that is not given, as texts about options spell it.
pub(super) fn is_off(text: &str) -> bool {
    matches!(text, "off" | "none")
}

/// How many milliseconds a unit of time has.
fn unit_of_time(unit: &str) -> Option<u64> {
    match unit {
        "ms" => Some(1),
        "s" | "sec" => Some(1000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let cure = || "write a number with ms, s, m, h or d, as in 250ms, 15s, 30m, 1h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| cure())?;
    let milliseconds = match unit {
        "" if number == 0 => Some(0),
        "" => return Err(format!("the unit is missing; write {number}s, {number}m or {number}ms")),
        unit => unit_of_time(unit).ok_or_else(cure)?.checked_mul(number),
    };
    let duration = milliseconds.map(Duration::from_millis).filter(|duration| *duration <= MAX_DURATION);
    duration.ok_or_else(|| "must not be longer than a year".to_owned())
}

pub(super) fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    // K, MB and MiB are the same here: a limit is no measurement.
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => 64,
    };
    let bytes =
        number.parse::<u64>().ok().filter(|_| shift < 64).and_then(|number| number.checked_mul(1 << shift));
    match bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
        Some(bytes) if (1..=4 << 30).contains(&bytes) => Ok(bytes),
        _ => Err("write a size from 1 to 4GiB, as in 512KiB or 10MiB".to_owned()),
    }
}

/// The least that a message may be allowed to have, in bytes: an `initialize` and its answer have a few hundred each.
const MIN_MESSAGE: usize = 512;

/// The size of a message.
pub(super) fn message_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        size if size < MIN_MESSAGE => {
            let unit = if text.bytes().all(|byte| byte.is_ascii_digit()) {
                "; the unit is missing: write KiB or MiB after the number"
            } else {
                ""
            };
            Err(format!("{size} bytes are too few for a handshake{unit}"))
        }
        size => Ok(size),
    }
}
