//! `--help` and the manual page.

use std::fmt::Write;

use super::table::{Entry, Kind, TABLE};

/// How wide the help is, and where its right column begins.
const WIDTH: usize = 80;
const COLUMN: usize = 27;

const INTRODUCTION: &str = "\
Usage: mcp-bridge [OPTIONS] -- COMMAND [ARGUMENTS...]

Turns a stdio MCP server into a Streamable HTTP backend: one child process per
session.

Each option can be set in the environment too: --max-sessions as
MCP_BRIDGE_MAX_SESSIONS, a switch as 1 or 0, a list with one entry per line. The
command line wins. Times are written 250ms, 15s, 30m, 1h; sizes 512KiB, 10MiB.
";

pub(super) fn help() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut section = "";
    for entry in TABLE {
        if entry.section != section {
            section = entry.section;
            text = format!("{text}\n{section}:\n");
        }
        let mut line = format!("  {}", synopsis(entry, |name| name.to_owned(), |value| value.to_owned()));
        for words in wrapped(&format!("{}{}", entry.help(), remark(entry)), WIDTH - COLUMN) {
            if line.len() >= COLUMN {
                text = format!("{text}{line}\n");
                line = String::new();
            }
            text = format!("{text}{line:COLUMN$}{words}\n");
            line = String::new();
        }
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

/// What the table knows beside the help.
fn remark(entry: &Entry) -> String {
    match entry.kind {
        Kind::Value { default, .. } => format!(" [default: {default}]"),
        Kind::List { .. } => " [repeatable]".to_owned(),
        _ => String::new(),
    }
}

/// The words of a text in lines of at most this width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
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
        let mut help = entry.help().chars();
        let first = help.next().map(|c| c.to_ascii_uppercase()).unwrap_or_default();
        let _ = writeln!(page, "{first}{}.", roff(&format!("{}{}", help.as_str(), remark(entry))));
    }
    page.push_str(MAN_BEHIND);
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
is a server of the Model Context Protocol that speaks on stdin and stdout.
The bridge serves it over HTTP:
each session, named by the header
.BR Mcp\-Session\-Id ,
has one child process of its own.
.PP
The bridge can be process 1 of a container: it reaps orphans and handles signals.
.SH OPTIONS
Times are written 250ms, 15s, 30m, 1h; sizes 512KiB, 10MiB.
";

const MAN_BEHIND: &str = r#"
.SH ENVIRONMENT
Each option above, but the last ones from
.B \-\-install
on, can be set in the environment too:
.B \-\-max\-sessions
as
.BR MCP_BRIDGE_MAX_SESSIONS ,
a switch as 1 or 0, a list with one entry per line.
The command line wins.
Children do not get these variables.
.TP
.B RUST_LOG
Level of the log:
.BR error ", " warn ", " info " or " debug .
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT ", " SIGHUP
Serve the requests in flight, end all sessions and exit, within
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
All sessions have ended as they should; or
.B \-\-check
says that the server works.
.TP
.B 1
.B \-\-shutdown\-timeout
was over and what was left has been killed; or
.B \-\-healthcheck
says that the bridge is not ready,
.B \-\-check
that the server does not work.
.TP
.B 2
The address cannot be listened on.
.TP
.B 64
An option is wrong.
.TP
.BR 126 ", " 127
.I COMMAND
is not executable; it is not there.
.TP
.BR 130 ", " 131 ", " 143
A second SIGINT, SIGQUIT, a second SIGTERM; for
.B \-\-check
the first one too.
.SH EXAMPLES
.nf
mcp\-bridge \-\- npx \-y @modelcontextprotocol/server\-everything
mcp\-bridge \-\-listen unix:/run/mcp \-\-on\-exit respawn \-\- mcp\-server\-time
.fi
"#;
