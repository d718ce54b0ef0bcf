//! What a server has written before, or in place of, its answer to `initialize`, and what that most likely means. The log
//! of a session and the report of `--check` say it in the same words.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::BytesMut;
use memchr::memmem;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// How much of a line is looked at, in bytes.
const LOOKED_AT: usize = 1024;

/// A server prints its answers for people.
pub const OVER_LINES: &str = "does it print a message over several lines? a message must be on one line";

/// Signs; clones of their owner's `Arc` see the same ones.
#[derive(Debug, Default)]
pub struct FirstWords(AtomicU8);

const STDOUT: u8 = 1;
const STDERR: u8 = 1 << 1;
const URL: u8 = 1 << 2;
const HEADER: u8 = 1 << 3;
const BRACE: u8 = 1 << 4;
/// An answer came when stdin had been closed.
const LATE: u8 = 1 << 5;

/// Reads the rest of a server's stdout, once its stdin has been closed. Does not return.
pub async fn read_on<T>(stdout: Option<&mut Receiver>, words: &FirstWords) -> T {
    if let Some(stdout) = stdout {
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        while let Ok(1..) = stdout.read_buf(&mut buffer).await {
            words.after_the_end(&buffer);
            buffer.clear();
        }
    }
    std::future::pending().await
}

/// How a server has failed to answer `initialize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// It ran on and did not answer in time.
    Silent,
    /// It exited with code 0.
    ExitedWell,
}

impl FirstWords {
    /// Takes a line of stdout that is no message.
    pub fn stdout(&self, line: impl AsRef<[u8]>) {
        let line = line.as_ref();
        self.look(STDOUT, line);
        let is_header = line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:"));
        self.add(if is_header { HEADER } else { 0 } | if line.starts_with(b"{") { BRACE } else { 0 });
    }

    /// Takes a line of stderr.
    pub fn stderr(&self, line: impl AsRef<[u8]>) {
        self.look(STDERR, line.as_ref());
    }

    /// Takes what came on stdout after stdin had been closed.
    pub fn after_the_end(&self, bytes: &[u8]) {
        if memmem::find(bytes, br#""jsonrpc""#).is_some() {
            self.add(LATE);
        }
    }

    fn look(&self, from: u8, line: &[u8]) {
        let seen = self.0.load(Ordering::Relaxed);
        if seen & from != 0 && seen & URL != 0 {
            return;
        }
        let line = line.get(..LOOKED_AT).unwrap_or(line);
        // Where something listens, and not any link: an address of this machine, or of all, or one with a port.
        let has_url = memmem::find_iter(line, b"://").any(|at| {
            let (scheme, rest) = line.split_at(at);
            let host = rest.get(3..).unwrap_or_default();
            let is_http = scheme.ends_with(b"http") || scheme.ends_with(b"https");
            let own: [&[u8]; 5] = [b"localhost", b"127.", b"0.0.0.0", b"[::", b"*:"];
            let end = host.iter().position(|byte| b"/ \t\r\"')".contains(byte)).unwrap_or(host.len());
            let colon = host.get(..end).unwrap_or_default().iter().rposition(|byte| *byte == b':');
            let has_port = colon.is_some_and(|at| host.get(at + 1).is_some_and(u8::is_ascii_digit));
            is_http && (has_port || own.iter().any(|own| host.starts_with(own)))
        });
        self.add(from | if has_url { URL } else { 0 });
    }

    fn add(&self, signs: u8) {
        self.0.fetch_or(signs, Ordering::Relaxed);
    }

    /// What is most likely wrong.
    pub fn hint(&self, how: Unanswered) -> Option<&'static str> {
        let signs = self.0.load(Ordering::Relaxed);
        let has = |sign| signs & sign != 0;
        Some(match how {
            _ if has(HEADER) => {
                "it writes Content-Length headers, as language servers do; MCP has one message per line"
            }
            _ if has(URL) => {
                "it names a URL: it seems to listen on a port itself; look for its option that selects stdio"
            }
            Unanswered::Silent if has(LATE) => {
                "it answered only when its stdin was closed: its stdout is buffered; PYTHONUNBUFFERED=1 or stdbuf -oL may help"
            }
            Unanswered::ExitedWell if !has(STDOUT | STDERR) => {
                "it exited with code 0 and wrote nothing: is its stdin connected? docker run needs -i"
            }
            Unanswered::ExitedWell => return None,
            _ if has(BRACE) => OVER_LINES,
            _ if has(STDOUT) => {
                "it wrote lines to stdout that are not messages: is it an MCP server, and does it need an option for stdio?"
            }
            _ if has(STDERR) => "it wrote nothing to stdout; its lines on stderr may say what it waits for",
            _ => {
                "it wrote nothing at all: does it wait for something, or does it need an option to speak MCP on stdin and stdout?"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_wrote_in_place_of_an_answer_says_what_is_wrong() {
        use Unanswered::{ExitedWell, Silent};
        type Row<'r> = (&'r [&'r str], &'r [&'r str], &'r str, Unanswered, &'r str);
        let table: &[Row<'_>] = &[
            (&[], &[], "", Silent, "nothing at all"),
            (&[], &["loading a model"], "", Silent, "lines on stderr"),
            (&[], &["see https://example.com/docs"], "", Silent, "lines on stderr"),
            (&["welcome"], &[], "", Silent, "not messages"),
            (
                &["INFO: Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C)"],
                &[],
                "",
                Silent,
                "listen on a port itself",
            ),
            (&[], &["Listening on http://localhost:3000/mcp"], "", Silent, "listen on a port itself"),
            (&[], &["serving at https://0.0.0.0:8443"], "", ExitedWell, "listen on a port itself"),
            (&["MCP server at http://myhost:8000/sse"], &[], "", Silent, "listen on a port itself"),
            (&["Content-Length: 120", "{"], &[], "", Silent, "language servers"),
            (&["content-length:7"], &[], "", Silent, "language servers"),
            (&["{", r#"  "jsonrpc": "2.0","#], &[], "", Silent, "over several lines"),
            (&[], &["ready"], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Silent, "PYTHONUNBUFFERED=1"),
            (&[], &[], "bye", Silent, "nothing at all"),
            (&[], &[], "", ExitedWell, "docker run needs -i"),
        ];
        for (stdout, stderr, late, how, want) in table {
            let words = FirstWords::default();
            stdout.iter().for_each(|line| words.stdout(line));
            stderr.iter().for_each(|line| words.stderr(line));
            words.after_the_end(late.as_bytes());
            let hint = words.hint(*how).unwrap_or_default();
            assert!(hint.contains(want), "{stdout:?} {stderr:?} {late:?}: {hint}");
        }
        let words = FirstWords::default();
        words.stderr("usage: server --stdio");
        assert_eq!(words.hint(ExitedWell), None, "its own words say it");
    }
}
