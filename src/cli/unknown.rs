//! Words on the command line that are no option: what was most likely meant.

use super::table::{Entry, Kind, TABLE};

/// Options of other bridges and of programs in general, and what is the same here.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["--port", "-p"], "write --listen 127.0.0.1:PORT, or --listen :PORT for all addresses"),
    (&["--host", "--bind", "--address", "--addr", "-H"], "write --listen IP:PORT"),
    (
        &["--stdio", "--command", "--cmd", "--exec", "-c"],
        "the server's command goes after --, as separate words",
    ),
    (&["--cors", "--cors-origin", "--allow-origins"], "write --allow-origin SCHEME://HOST"),
    (
        &["--token", "--api-key", "--auth-token", "--bearer-token", "--secret"],
        "every process of the machine can read a command line; use --token-file or the variable MCP_BRIDGE_TOKEN",
    ),
    (&["-v", "--verbose", "--debug", "--log-level", "--loglevel"], "set RUST_LOG=debug"),
    (&["-q", "--quiet"], "set RUST_LOG=warn"),
    (&["--stateful", "--session-mode"], "each session has a server of its own; there is nothing to turn on"),
    (&["--stateless"], "--session-key shared serves requests without a session"),
    (&["--timeout"], "write --request-timeout, --idle-timeout or --init-timeout"),
    (&["--session-timeout"], "write --idle-timeout"),
    (&["--health-endpoint", "--healthEndpoint"], "/healthz and /readyz are always served"),
    (
        &["--output-transport", "--outputTransport", "--transport"],
        "Streamable HTTP is always served; --sse-compat adds the transport of 2024-11-05",
    ),
    (
        &["--ssePath", "--sse-path", "--messagePath", "--message-path"],
        "--sse-compat offers /sse and /message",
    ),
    (&["--streamableHttpPath", "--endpoint", "--mcp-path"], "write --path"),
    (
        &["--config", "-f", "--env-file"],
        "there is no configuration file; each option can also be a variable MCP_BRIDGE_...",
    ),
    (
        &[
            "--tls",
            "--https",
            "--ssl",
            "--tls-cert",
            "--tls-key",
            "--cert",
            "--key",
            "--certfile",
            "--keyfile",
        ],
        "there is no TLS here; put a proxy that has it in front, as docker/README.md shows",
    ),
    (&["--header", "--headers"], "--env-from-header gives the value of a header to the server"),
    (&["-e"], "write --env NAME=VALUE"),
];

/// How many letters may be wrong.
const MAX_WRONG: usize = 2;

/// What is wrong with the first word that is no option, and what was most likely meant. `words`: the command line up to
/// `--`, with `--name=value` in two. `None`: each word is an option or the value of one.
pub(super) fn complaint(words: &[&str]) -> Option<String> {
    let mut words = words.iter();
    let mut switch: Option<&Entry> = None;
    while let Some(word) = words.next() {
        match (entry(word), switch) {
            (Some(entry), _) if entry.value().is_some() => {
                words.next();
                switch = None;
            }
            (Some(entry), _) => switch = Some(entry),
            (None, Some(switch)) if !word.starts_with('-') && is_truth(word) => {
                let flag = switch.flag();
                let variable = switch.variable().unwrap_or_default();
                return Some(format!(
                    "{flag} takes no value: {flag} alone turns it on; {word} is for {variable}"
                ));
            }
            (None, _) if word.starts_with('-') && word.len() > 1 => return Some(unknown(word)),
            (None, _) => switch = None,
        }
    }
    None
}

fn entry(word: &str) -> Option<&'static Entry> {
    let is_short = |short: char| word.strip_prefix('-').is_some_and(|rest| rest.chars().eq([short]));
    TABLE.iter().find(|entry| match entry.kind {
        Kind::Secret { .. } => false,
        Kind::Task { short: Some(short), .. } if is_short(short) => true,
        _ => entry.flag() == word,
    })
}

fn is_truth(word: &str) -> bool {
    matches!(word, "0" | "1" | "true" | "false" | "yes" | "no" | "on" | "off")
}

fn unknown(word: &str) -> String {
    let there_is_none = format!("there is no option {word}");
    if let Some((_, instead)) = ELSEWHERE.iter().find(|(names, _)| names.contains(&word)) {
        return format!("{there_is_none}: {instead}");
    }
    let flags = TABLE.iter().filter(|entry| !matches!(entry.kind, Kind::Secret { .. })).map(Entry::flag);
    let lower = word.to_ascii_lowercase().replace('_', "-");
    let nearest = flags.map(|flag| (distance(&lower, &flag), flag)).min();
    match nearest {
        Some((wrong, flag)) if wrong <= MAX_WRONG => format!("{there_is_none}: did you mean {flag}?"),
        _ => there_is_none,
    }
}

/// How many letters must be changed, put in or left out, or exchanged with their neighbour, to make one word of the
/// other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    let mut left: Option<char> = None;
    for (row, letter) in one.iter().enumerate() {
        let mut next = Vec::with_capacity(last.len());
        next.push(row + 1);
        for (column, goal) in other.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let changed = at(&last, column) + usize::from(letter != goal);
            let mut best = changed.min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            let is_exchanged = column > 0 && left == Some(*goal) && other.get(column - 1) == Some(letter);
            if is_exchanged {
                best = best.min(at(&before, column - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
        left = Some(*letter);
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_are_wrong_are_counted() {
        for (one, other, wrong) in [
            ("", "", 0),
            ("", "abc", 3),
            ("--idle-timout", "--idle-timeout", 1),
            ("--idle-tiemout", "--idle-timeout", 1),
            ("--wram", "--warm", 1),
            ("--lisen", "--listen", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), wrong, "{one} {other}");
            assert_eq!(distance(other, one), wrong, "{other} {one}");
        }
    }

    #[test]
    fn what_is_typed_elsewhere_is_no_option_here() {
        for (names, _) in ELSEWHERE {
            for name in *names {
                assert!(entry(name).is_none(), "{name}");
            }
        }
    }
}
