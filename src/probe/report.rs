//! What a probe has seen, as plain data. All of it is bounded: a server may write what it likes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::child::Termination;
use crate::exit_status::ExitStatus;
use crate::first_words::FirstWords;
use crate::proto::nearly::Wrong;

/// The longest text of a server that is kept, in characters.
pub const MAX_TEXT: usize = 256;

#[derive(Clone, Debug)]
pub struct Report {
    /// The program that was started.
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// What the server has answered to `initialize`, or to `server/discover`; `None`: nothing good.
    pub server: Option<Server>,
    /// Its tools; `None`: it did not come to that.
    pub tools: Option<Tools>,
    /// What it wrote on stdout that is no message.
    pub stray: Stray,
    /// Why it cannot be used; `None`: it can.
    pub failure: Option<Failure>,
    pub stopped_by: Termination,
    /// How it exited; `None`: it hangs in the kernel.
    pub status: Option<ExitStatus>,
    /// The last lines that it wrote to stderr.
    pub stderr: Vec<String>,
    /// What it wrote in place of an answer.
    pub first_words: Arc<FirstWords>,
}

impl Report {
    /// Whether the server has answered `initialize` with an error.
    pub(super) fn refuses_initialize(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|Failure { asked, why }| {
            *asked == Question::Initialize && matches!(why, Why::Refused { .. })
        })
    }
}

/// What a server has answered to `initialize`, or to `server/discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// To which of them.
    pub answered: Question,
    /// How long after its start.
    pub answered_after: Duration,
    /// `serverInfo.name`; empty where it has none.
    pub name: String,
    /// `serverInfo.version`; empty where it has none.
    pub version: String,
    /// `protocolVersion`, or `supportedVersions`; `None` where it named none.
    pub protocol: Option<String>,
    /// Its capabilities, each with what it can do of it in parentheses.
    pub capabilities: Vec<String>,
}

/// The tools of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tools {
    /// It does not declare the capability, and was not asked.
    NotDeclared,
    /// It declares the capability and does not know the method `tools/list`: error -32601.
    MethodNotFound,
    Listed {
        count: usize,
        /// The names of the first of them.
        names: Vec<String>,
    },
}

/// What a server wrote on stdout that is no message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stray {
    pub lines: u64,
    /// The first of them; empty where there is none.
    pub first: String,
}

/// What a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Initialize,
    /// In place of `initialize`, in 2026-07-28.
    Discover,
    ListTools,
}

impl Question {
    pub fn method(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Discover => "server/discover",
            Self::ListTools => "tools/list",
        }
    }
}

/// Why a server cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub asked: Question,
    pub why: Why,
}

/// What a server did in place of a good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It answered with an error.
    Refused {
        /// The error's `code` as it stands there.
        code: String,
        /// The error's `message`.
        message: String,
    },
    Exited(ExitStatus),
    /// It closed its stdout and lives on.
    StdoutClosed,
    /// It closed its stdin and lives on.
    StdinClosed,
    /// It did not answer within this time.
    Silent(Duration),
    /// Its answer is longer than this many bytes.
    TooLong(usize),
    /// It sent the question back: it copies its stdin to its stdout.
    Echoed,
    /// Its answer is no message; why.
    Invalid(Wrong),
    /// It answered `tools/list` with a result in which there is no array of tools.
    NoArray,
    /// After this many pages its list of tools went on.
    Endless(usize),
    /// Nothing: the probe was told to stop.
    Stopped,
}

/// At most [`MAX_TEXT`] characters of a server's text, those that could steer a terminal as escapes.
pub(super) fn clipped(text: &str) -> String {
    let mut clipped = String::new();
    let mut characters = text.chars();
    for character in characters.by_ref().take(MAX_TEXT) {
        if character.is_control() {
            clipped.extend(character.escape_default());
        } else {
            clipped.push(character);
        }
    }
    if characters.next().is_some() {
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_clipped_and_steers_no_terminal() {
        assert_eq!(clipped("a\tb é"), "a\\tb é");
        assert_eq!(clipped("\x1b[31mred\u{9b}"), "\\u{1b}[31mred\\u{9b}");
        assert_eq!(clipped(&"é".repeat(MAX_TEXT)), "é".repeat(MAX_TEXT));
        assert_eq!(clipped(&"é".repeat(MAX_TEXT + 1)), "é".repeat(MAX_TEXT) + "…");
    }
}
