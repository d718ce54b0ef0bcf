//! Servers that answer `initialize` before they are ready: what an operator knows of them, and what a refusal is.

use std::sync::Arc;
use std::time::Duration;

use regex_lite::Regex;

use super::outgoing::Outgoing;
use crate::proto::json::{elements, slice, value_at};

/// The pause before a refused request is sent again for the first time; it doubles with each refusal.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The longest answer that is looked at, in bytes: a refusal is a sentence.
const MAX_REFUSAL: usize = 16 * 1024;

/// What an operator knows of a server that needs time.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// How long requests wait after the handshake.
    pub delay: Duration,
    /// What the server says when it refuses a request because it is not ready; such a request is sent again.
    pub refusal: Option<Arc<Regex>>,
    /// How long after the handshake and the delay that is believed.
    pub timeout: Duration,
}

impl Readiness {
    /// The server is ready when it says so.
    pub const AT_ONCE: Self = Self { delay: Duration::ZERO, refusal: None, timeout: Duration::ZERO };

    /// Whether this answer says that the server is not ready: an error, or a result of a tool that is one.
    pub(super) fn is_refusal(&self, answer: &[u8], success: bool) -> bool {
        let Some(pattern) = &self.refusal else { return false };
        if answer.len() > MAX_REFUSAL {
            return false;
        }
        let answer = slice(answer, 0..answer.len());
        let at = |object: &str, path: &[&str]| {
            let text = object.get(value_at(object, path)?)?;
            serde_json::from_str::<String>(text).ok()
        };
        let says = |text: Option<String>| text.is_some_and(|text| pattern.is_match(&text));
        if !success {
            return says(at(answer, &["error", "message"]));
        }
        let part = |path: &[&str]| value_at(answer, path).and_then(|span| answer.get(span));
        part(&["result", "isError"]) == Some("true")
            && part(&["result", "content"])
                .is_some_and(|content| elements(content).flatten().any(|block| says(at(block, &["text"]))))
    }
}

/// How a call is sent again.
#[derive(Debug)]
pub(super) struct Retry {
    pub(super) request: Outgoing,
    /// When it is due; `None`: the child has it.
    pub(super) due: Option<Duration>,
    /// The next pause.
    pause: Duration,
}

impl Retry {
    pub(super) fn new(request: Outgoing) -> Self {
        Self { request, due: None, pause: FIRST_PAUSE }
    }

    /// The child has refused it: when it is due.
    pub(super) fn reschedule(&mut self, now: Duration, until: Duration) -> Duration {
        let due = (now + self.pause).min(until);
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        self.due = Some(due);
        due
    }
}
