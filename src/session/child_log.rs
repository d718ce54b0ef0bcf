//! What a session logs about its child. The child can cause most of these lines at will, so each kind has a limit.

use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::log_limit::{LogLimit, SharedLogLimit};
use crate::proto::ids::{MAX_ID, SessionId};
use crate::proto::message::refusal;
use crate::proto::nearly::Wrong;
use crate::proto::output::{NotRestored, Note};
use crate::proto::version::Era;

/// Sessions can come and go as fast as clients like.
static REFUSALS: SharedLogLimit = SharedLogLimit::new("child.refused_initialize");

/// UnsupportedProtocolVersion (2026-07-28 `basic`, "Error Codes"): in answer to `initialize`, as servers say it that only
/// know that revision or later ones.
const UNSUPPORTED_PROTOCOL_VERSION: &str = "-32022";
const MODERN_ONLY: &str = "it speaks 2026-07-28 alone: sessions are translated for it, those of --session-key are not; see --era modern";
const NOT_MODERN: &str = "does it know 2026-07-28, as --era modern or an earlier server has said?";

/// How much of a line that is no message is logged, in characters.
const NOISE_WIDTH: usize = 256;

#[derive(Debug)]
pub(super) struct ChildLog {
    session: SessionId,
    era: Era,
    /// The tools whose calls are sent again: notes name their places.
    restore: Option<Arc<[Box<str>]>>,
    noise: LogLimit,
    invalid: LogLimit,
    dropped: LogLimit,
    not_ready: LogLimit,
    unheard: LogLimit,
    not_restored: LogLimit,
    /// The faults of lines that have been said, a few at most.
    said_wrong: Vec<&'static str>,
    /// What needs to be said once only.
    said_long_id: bool,
    said_unread: bool,
}

impl ChildLog {
    /// `era`: in which it is spoken to; `restore`: the tools whose calls are sent again.
    pub(super) fn new(session: SessionId, era: Era, restore: Option<Arc<[Box<str>]>>) -> Self {
        Self {
            session,
            era,
            restore,
            noise: LogLimit::new(),
            invalid: LogLimit::new(),
            dropped: LogLimit::new(),
            not_ready: LogLimit::new(),
            unheard: LogLimit::new(),
            not_restored: LogLimit::new(),
            said_wrong: Vec::new(),
            said_long_id: false,
            said_unread: false,
        }
    }

    /// A line is no message. Only messages belong on stdout, but many servers print a banner or a log line there.
    pub(super) fn noise(&mut self, text: &str, wrong: Option<Wrong>) {
        let Some(count) = self.noise.take() else { return };
        let line: String = text.chars().take(NOISE_WIDTH).collect();
        let hint = match wrong {
            Some(wrong) if text.starts_with(['{', '[']) => wrong.what,
            _ => "a server logs to stderr, not to stdout",
        };
        let sid = self.session.short();
        warn!(
            event = "child.stdout_noise",
            sid, count, line, hint, "the server wrote a line to stdout that is not a message"
        );
    }

    /// The child has refused `initialize`, or `server/discover`, with this error.
    pub(super) fn refused(&self, error: &str) {
        let Some(count) = REFUSALS.take() else { return };
        let (code, said) = refusal(error);
        let (method, hint) = match self.era {
            Era::Legacy => ("initialize", (code == UNSUPPORTED_PROTOCOL_VERSION).then_some(MODERN_ONLY)),
            Era::Modern => ("server/discover", Some(NOT_MODERN)),
        };
        let sid = self.session.short();
        warn!(
            event = "child.refused_initialize",
            sid,
            method,
            code,
            said = &*said,
            count,
            hint,
            "the server refuses what it is asked first; it may speak only other revisions, or lack something that it needs"
        );
    }

    /// A line is no message, and what is in it counts all the same: as a message, or as the end of a call.
    pub(super) fn nearly_message(&mut self, text: &str, Wrong { what, at }: Wrong) {
        if self.said_wrong.contains(&what) {
            return;
        }
        self.said_wrong.push(what);
        let line: String = text.chars().take(NOISE_WIDTH).collect();
        let sid = self.session.short();
        warn!(
            event = "child.nearly_message",
            sid,
            why = what,
            at,
            line,
            "the server wrote a line that is nearly a message; logged once for each kind"
        );
    }

    /// A line of so many bytes is not UTF-8.
    pub(super) fn invalid_utf8(&mut self, bytes: usize) {
        let Some(count) = self.invalid.take() else { return };
        let sid = self.session.short();
        warn!(
            event = "child.invalid_utf8",
            sid, bytes, count, "the server wrote a line that is not UTF-8; it has been repaired"
        );
    }

    /// The child is not read because so many bytes of the bridge's replies to it wait.
    pub(super) fn replies_unread(&mut self, bytes: usize) {
        if !std::mem::replace(&mut self.said_unread, true) {
            let sid = self.session.short();
            warn!(
                event = "child.replies_unread",
                sid,
                bytes,
                "the server sends requests and does not read the replies; the bridge reads no more from it until it does"
            );
        }
    }

    /// stdout ended within a line.
    pub(super) fn partial_line(&self, bytes: usize) {
        let sid = self.session.short();
        info!(event = "child.partial_line", sid, bytes, "the server closed stdout in the middle of a line");
    }

    fn tool(&self, place: usize) -> &str {
        self.restore.as_ref().and_then(|tools| tools.get(place)).map_or("", |tool| tool)
    }

    /// A new child has not taken the last call of this tool.
    fn call_not_restored(&mut self, place: usize, why: &NotRestored) {
        let Some(count) = self.not_restored.take() else { return };
        let (sid, tool) = (self.session.short(), self.tool(place));
        let (code, said) = match why {
            NotRestored::Error { code, said } => (Some(&**code), Some(&**said)),
            _ => (None, None),
        };
        let why = why.as_str();
        warn!(
            event = "child.not_restored",
            sid,
            tool,
            why,
            code,
            said,
            count,
            "the new server has not taken the last call of this tool: what that had set up in the old one is gone"
        );
    }

    pub(super) fn note(&mut self, note: Note) {
        let sid = self.session.short();
        match note {
            Note::Swallowed(why) => {
                debug!(
                    event = "client.swallowed",
                    sid, why, "a message from a client is not passed on to the server"
                );
            }
            Note::Replied(to) => {
                debug!(event = "child.replied", sid, to, "the bridge answered the server itself");
            }
            Note::Restored { method, success: true } => {
                debug!(
                    event = "child.restored",
                    sid, method, "the new server accepts this request, as the old one did"
                );
            }
            Note::Restored { method, success: false } => {
                warn!(
                    event = "child.not_restored",
                    sid, method, "the new server refuses this request, which the old one accepted"
                );
            }
            Note::CallRestored { tool, how: Ok(()) } => {
                let tool = self.tool(tool);
                debug!(
                    event = "child.restored",
                    sid, tool, "the new server has taken the last call of this tool"
                );
            }
            Note::CallRestored { tool, how: Err(why) } => self.call_not_restored(tool, &why),
            Note::NotRemembered(tool) => {
                let tool = self.tool(tool);
                debug!(
                    event = "child.not_remembered",
                    sid,
                    tool,
                    "the last call of this tool cannot be restored: it or its answer is too long, or it is a task; logged once in a session"
                );
            }
            Note::LongId => {
                if !std::mem::replace(&mut self.said_long_id, true) {
                    warn!(
                        event = "child.long_id",
                        sid,
                        max = MAX_ID,
                        "a request from the server has an id that is too long; it was answered with the id null"
                    );
                }
            }
            Note::LongGreeting(max) => {
                warn!(
                    event = "child.long_greeting",
                    sid,
                    max,
                    "the server's answer to initialize is too long to be kept for a session that clients share"
                );
            }
            Note::NotReady => {
                if let Some(count) = self.not_ready.take() {
                    info!(
                        event = "child.not_ready",
                        sid, count, "the server is not ready; the request is sent again"
                    );
                }
            }
            Note::Dropped(why) => {
                if let Some(count) = self.dropped.take() {
                    let why = why.as_str();
                    info!(
                        event = "child.dropped",
                        sid, why, count, "a message from the server reaches no client"
                    );
                }
            }
            Note::Echo => {
                warn!(
                    event = "child.echo",
                    sid,
                    "the command sends back its input: does it run in a terminal? a server needs pipes: docker run -i without -t"
                );
            }
            Note::NoListener => {
                if let Some(count) = self.unheard.take() {
                    warn!(
                        event = "child.request_unheard",
                        sid,
                        count,
                        "no client listened for a request from the server; it was answered with an error"
                    );
                }
            }
        }
    }
}
