//! `--help`, `-h` and the manual page.

use std::fmt::Write;

use super::table::{Entry, Kind, TABLE};

/// How wide the help is, and where its right column begins.
const WIDTH: usize = 80;
const COLUMN: usize = 27;

const INTRODUCTION: &str = "\
Usage: mcp-bridge [OPTIONS] -- COMMAND [ARGUMENTS...]

Serves a stdio MCP server over Streamable HTTP: one server process per session.

For example, this serves http://localhost:8080/mcp:
  mcp-bridge -- npx -y @modelcontextprotocol/server-everything
";

/// How options are written.
const NOTATION: &str = "
Each option can be set in the environment too: --max-sessions 9 as
MCP_BRIDGE_MAX_SESSIONS=9, a switch as 1 or 0, a list with one entry per line.
The command line wins. Times are written 250ms, 15s, 30m, 1h; sizes 512KiB,
10MiB.
";

/// What `--help` prints: all options, whole.
pub(super) fn help() -> String {
    let mut text = format!("{INTRODUCTION}{NOTATION}");
    let mut section = "";
    for entry in TABLE {
        if entry.section != section {
            section = entry.section;
            text = format!("{text}\n{section}:\n");
        }
        text.push_str(&row(entry, &entry.help()));
    }
    text
}

/// What `-h` prints: what most people need, on one screen.
pub(super) fn short_help() -> String {
    let mut text = format!("{INTRODUCTION}\nThe options that most people need; --help prints all of them:\n");
    for entry in TABLE.iter().filter(|entry| entry.is_common) {
        text.push_str(&row(entry, &entry.summary()));
    }
    text
}

/// An option in the left column and a text about it in the right one.
fn row(entry: &Entry, help: &str) -> String {
    let mut text = String::new();
    let mut line = format!("  {}", synopsis(entry, |name| name.to_owned(), |value| value.to_owned()));
    for words in wrapped(&format!("{help}{}", remark(entry)), WIDTH - COLUMN) {
        if line.len() >= COLUMN {
            text = format!("{text}{line}\n");
            line = String::new();
        }
        text = format!("{text}{line:COLUMN$}{words}\n");
        line = String::new();
    }
    text
}

/// How an option is typed, its names and its value each in a face of their own.
fn synopsis(entry: &Entry, name: impl Fn(&str) -> String, value: impl Fn(&str) -> String) -> String {
    let mut text = match entry.kind {
        Kind::Task { short: Some(short), .. } => {
            format!("{}, {}", name(&format!("-{short}")), name(&entry.flag()))
        }
        Kind::Secret { .. } => name(&entry.variable().unwrap_or_default()),
        _ => name(&entry.flag()),
    };
    if let Some(word) = entry.value() {
        let separator = if matches!(entry.kind, Kind::Secret { .. }) { "=" } else { " " };
        text = format!("{text}{separator}{}", value(word));
    }
    text
}

/// A space at which no line is broken.
const NO_BREAK: char = '\u{a0}';

/// What the table knows beside the help.
fn remark(entry: &Entry) -> String {
    match entry.kind {
        Kind::Value { default, .. } => format!(" [default:{NO_BREAK}{default}]"),
        Kind::List { .. } => " [repeatable]".to_owned(),
        _ => String::new(),
    }
}

/// The words of a text, with one space between them, in lines of at most this width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word.replace(NO_BREAK, " "));
    }
    lines.push(line);
    lines
}

/// The manual page, as man(7) wants it.
pub(super) fn man() -> String {
    let mut page = format!(".TH MCP\\-BRIDGE 1 \"\" \"mcp\\-bridge {}\" \"\"\n", env!("CARGO_PKG_VERSION"));
    page.push_str(MAN_BEFORE);
    let mut section = "";
    for entry in TABLE {
        if entry.section != section {
            section = entry.section;
            let _ = writeln!(page, ".SS {}", roff(section)); // a String takes everything
        }
        let bold = |text: &str| format!("\\fB{}\\fR", roff(text));
        let italic = |text: &str| format!("\\fI{}\\fR", roff(text));
        let _ = writeln!(page, ".TP\n{}", synopsis(entry, bold, italic));
        let help = format!("{}{}", entry.help(), remark(entry).replace(NO_BREAK, " "));
        let _ = writeln!(page, "{}", roff(&help));
    }
    page.push_str(MAN_AFTER);
    page
}

/// A text in which roff sees nothing to interpret.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

const MAN_BEFORE: &str = r"
.SH NAME
mcp\-bridge \- turn a stdio MCP server into a stateful Streamable HTTP backend
.SH SYNOPSIS
.B mcp\-bridge
.RI [ OPTIONS ]
.B \-\-
.I COMMAND
.RI [ ARGUMENTS ...]
.SH DESCRIPTION
.I COMMAND
is an MCP server (Model Context Protocol) that speaks on stdin and stdout.
The bridge serves it over Streamable HTTP:
each session, named by the header
.BR Mcp\-Session\-Id ,
has a server process of its own.
.PP
The bridge can be process 1 of a container: it reaps orphans and handles signals.
.SH EXAMPLES
.nf
mcp\-bridge \-\- npx \-y @modelcontextprotocol/server\-everything
mcp\-bridge \-\-listen unix:/run/mcp \-\-on\-exit respawn \-\- mcp\-server\-time
.fi
.PP
Clients connect to http://localhost:8080/mcp if no option says otherwise.
.SH OPTIONS
Times are written 250ms, 15s, 30m, 1h; sizes 512KiB, 10MiB.
";

const MAN_AFTER: &str = r#"
.SH ENVIRONMENT
Each option above can be set in the environment too, except the last ones from
.B \-\-install
on:
.B \-\-max\-sessions 9
as
.BR MCP_BRIDGE_MAX_SESSIONS=9 ,
a switch as 1 or 0, a list with one entry per line.
The command line wins.
Servers do not get these variables.
.TP
.B RUST_LOG
Level of the log:
.BR error ", " warn ", " info " or " debug .
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT ", " SIGHUP
Finish the requests in flight, end all sessions and exit, within
.BR \-\-shutdown\-timeout .
A second signal ends the bridge at once.
With
.B \-\-token\-file
SIGHUP reads that file again instead.
.TP
.B SIGQUIT
End at once.
.TP
.B SIGUSR1
Log the state of the bridge and of each session.
.SH EXIT STATUS
.TP
.B 0
All sessions ended in time; or
.B \-\-check
found that the server works,
.B \-\-healthcheck
that the bridge is ready.
.TP
.B 1
.B \-\-shutdown\-timeout
was over, and what was left was killed; or
.B \-\-check
found that the server does not work,
.B \-\-healthcheck
that the bridge is not ready.
.TP
.B 2
The bridge cannot listen on an address of
.BR \-\-listen .
.TP
.B 64
An option is wrong, or the command is missing.
.TP
.BR 126 ", " 127
.I COMMAND
is not executable; not found.
.TP
.BR 130 ", " 131 ", " 143
A second SIGINT; SIGQUIT; a second SIGTERM. With
.B \-\-check
the first one.
"#;
