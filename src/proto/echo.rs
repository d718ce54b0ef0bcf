//! A child that writes back what is written to it: a terminal before it echoes its input, or it is no server at all.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::time::Duration;

use super::incoming::Incoming;
use super::message::Kind;

/// How long a child may still answer whose `initialize` has come back: a program that has read it is at work and answers
/// soon if it ever does.
pub const ECHO_GRACE: Duration = Duration::from_secs(1);

/// The same where the line ended with CR LF: a terminal echoes before the server behind it has even started (termios(3):
/// ECHO, ONLCR).
pub const TERMINAL_GRACE: Duration = Duration::from_secs(10);

/// How many of the lines that were written last are known.
const MAX_LINES: usize = 64;

/// What clients ask servers and say to them, and never the other way round (2025-11-25 and 2026-07-28 `schema.ts`,
/// `ClientRequest` and `ClientNotification`). Both may ping, cancel, report progress and ask for tasks.
const OF_CLIENTS: [&str; 16] = [
    "initialize",
    "completion/complete",
    "logging/setLevel",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tools/call",
    "tools/list",
    "notifications/initialized",
    "notifications/roots/list_changed",
];

/// Whether only a client says this.
pub fn is_of_client(message: &Incoming<'_>) -> bool {
    matches!(message.envelope.kind, Kind::Request | Kind::Notification)
        && OF_CLIENTS.contains(&&*message.envelope.method(message.text()))
}

/// The lines that were written to a child last, from the moment when it is known to echo: nothing is kept of what others
/// are told.
#[derive(Debug, Default)]
pub struct Echo {
    lines: Option<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// What a line that was written hashes to.
    written: VecDeque<u64>,
    /// The line that is being written; `None` until the first one begins.
    line: Option<DefaultHasher>,
}

impl Echo {
    /// The child is known to echo.
    pub fn begin(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Notes what has been written to it.
    pub fn wrote(&mut self, bytes: &[u8]) {
        let Some(Lines { written, line }) = &mut self.lines else { return };
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            if let Some(line) = line {
                line.write(text);
            }
            if ends {
                // What it began in the middle of is not known.
                if let Some(line) = line.replace(DefaultHasher::new()) {
                    if written.len() == MAX_LINES {
                        written.pop_front();
                    }
                    written.push_back(line.finish());
                }
            }
        }
    }

    /// Whether this message is a line that was written, which comes back once.
    pub fn takes(&mut self, text: &[u8]) -> bool {
        let Some(Lines { written, .. }) = &mut self.lines else { return false };
        let mut hasher = DefaultHasher::new();
        hasher.write(text);
        let hash = hasher.finish();
        let place = written.iter().position(|written| *written == hash);
        place.is_some_and(|place| written.remove(place).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_written_is_known_once_however_it_was_cut() {
        let mut echo = Echo::default();
        echo.wrote(b"before\n");
        echo.begin();
        echo.wrote(b"half a line\nab");
        echo.wrote(b"c\nd\nd\n");
        for (text, known) in
            [("before", false), ("half a line", false), ("abc", true), ("abc", false), ("ab", false)]
        {
            assert_eq!(echo.takes(text.as_bytes()), known, "{text}");
        }
        assert!(echo.takes(b"d") && echo.takes(b"d") && !echo.takes(b"d"));
    }

    #[test]
    fn a_few_lines_are_known_and_no_more() {
        let mut echo = Echo::default();
        echo.begin();
        for line in 0..1000 {
            echo.wrote(format!("{line}\n").as_bytes());
        }
        assert!(!echo.takes(b"900") && echo.takes(b"999"));
        assert!(echo.lines.unwrap().written.len() < MAX_LINES);
    }
}
