//! Calls of tools that a new child is sent again, because they made the lost one what it was.
//!
//! Of each tool that an operator names, the last call is remembered that has succeeded. A new child is sent them one after
//! the other, in the order in which the lost one was sent them. Nobody but the bridge waits for the answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::outgoing::Outgoing;
use super::retry::Retry;
use crate::proto::ids::BridgeId;
use crate::proto::incoming::Incoming;
use crate::proto::json::{Span, slice, unquote, value_at};
use crate::proto::message::{Kind, MAX_TOKEN, Request, refusal};
use crate::proto::object::{has, without};
use crate::proto::output::{NotRestored, Note, Out};

/// The longest call that is remembered, and the longest answer that is looked at, in bytes.
const MAX_CALL: usize = 64 * 1024;

/// Bytes of calls that are remembered, those included that have no answer yet.
const MAX_CALLS: usize = 1024 * 1024;

/// The calls that a new child must be sent.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// By the places of their tools among those that the operator names.
    calls: BTreeMap<usize, Last>,
    /// How many bytes these are.
    bytes: usize,
    /// Whether it has been said that a call is not remembered.
    said: bool,
}

/// The last call of a tool that has succeeded.
#[derive(Debug)]
struct Last {
    /// Under which the child knew it: of two calls the one that was sent earlier has the lesser.
    id: BridgeId,
    /// `None`: it cannot be sent again, and one before it would bring back what held no more.
    request: Option<Outgoing>,
}

/// A call of a tool that an operator names.
#[derive(Clone, Debug)]
pub(super) struct Called {
    /// The place of the tool.
    tool: usize,
    /// What is remembered of it if it succeeds; `None`: nothing can be.
    request: Option<Outgoing>,
}

impl Called {
    /// How many bytes it keeps.
    pub(super) fn len(&self) -> usize {
        self.request.as_ref().map_or(0, Outgoing::len)
    }
}

impl Remembered {
    /// What this request is, if it calls one of these tools. `in_flight`: bytes of such calls that have no answer yet.
    pub(super) fn called(&self, tools: &[Box<str>], request: &Request, in_flight: usize) -> Option<Called> {
        if tools.is_empty() || request.method() != "tools/call" {
            return None;
        }
        let name = request
            .subject()
            .filter(|token| token.starts_with('"') && token.len() <= MAX_TOKEN)
            .map(unquote)?;
        let tool = tools.iter().position(|tool| **tool == *name)?;
        let length = request.text().len();
        let fits = length <= MAX_CALL && self.bytes + in_flight + length <= MAX_CALLS;
        // The answer to a call that is a task says no more than that it has begun (2025-11-25 `basic/utilities/tasks`).
        let is_task = || request.params().is_some_and(|params| has(slice(request.text(), params), "task"));
        let request = (fits && !is_task()).then(|| Outgoing { request: unwatched(request), token: None });
        Some(Called { tool, request })
    }

    /// Takes note of a call that the child knew by this id and has answered with a result.
    pub(super) fn answered(
        &mut self,
        Called { tool, request }: Called,
        id: BridgeId,
        answer: &Incoming<'_>,
        out: &mut Out,
    ) {
        let is_long = answer.text().len() > MAX_CALL;
        if self.calls.get(&tool).is_some_and(|last| last.id > id) || !is_long && !has_succeeded(answer) {
            return;
        }
        let request = request.filter(|_| !is_long);
        if request.is_none() && !std::mem::replace(&mut self.said, true) {
            out.note(Note::NotRemembered(tool));
        }
        self.bytes += request.as_ref().map_or(0, Outgoing::len);
        let before = self.calls.insert(tool, Last { id, request });
        self.bytes -= before.and_then(|last| last.request).map_or(0, |request| request.len());
    }

    /// Forgets the call of a tool.
    fn forget(&mut self, tool: usize) {
        let request = self.calls.get_mut(&tool).and_then(|last| last.request.take());
        self.bytes -= request.map_or(0, |request| request.len());
    }

    /// The tools whose calls are remembered, in the order in which these were sent.
    fn in_order(&self) -> VecDeque<usize> {
        let mut all: Vec<_> = self.calls.iter().filter(|(_, last)| last.request.is_some()).collect();
        all.sort_unstable_by_key(|(_, last)| last.id);
        all.into_iter().map(|(tool, _)| *tool).collect()
    }

    fn request(&self, tool: usize) -> Option<&Outgoing> {
        self.calls.get(&tool)?.request.as_ref()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let requests = self.calls.values().filter_map(|last| last.request.as_ref());
        assert_eq!(self.bytes, requests.map(Outgoing::len).sum::<usize>(), "each byte is counted");
    }
}

/// The same in a buffer of its own, and without its progress token: nobody waits for progress.
fn unwatched(request: &Request) -> Request {
    let (Some(params), Some(meta), Some(_)) = (request.params(), request.meta(), request.token()) else {
        return request.detached();
    };
    let part = |span: Span| slice(request.text(), span);
    let (before, behind) = (part(params.start..meta.start), part(meta.end..params.end));
    let params = [before, &without(part(meta), &["progressToken"]), behind].concat();
    request.with_params(&params, None)
}

/// Whether a call's answer says that it is done: it is a result, and neither one that is an error nor one on the way to
/// another (2026-07-28 `basic/index`, "`resultType`").
fn has_succeeded(answer: &Incoming<'_>) -> bool {
    let text = slice(answer.text(), 0..answer.text().len());
    let member = |name| value_at(text, &["result", name]).and_then(|span| text.get(span));
    answer.envelope.kind == Kind::Success
        && member("isError") != Some("true")
        && member("resultType").is_none_or(|token| unquote(token) == "complete")
}

/// The calls that the present child is sent.
#[derive(Debug)]
pub(super) struct Repeating {
    /// The tool whose call is under way.
    tool: usize,
    retry: Retry,
    state: State,
    /// The tools whose calls follow.
    waiting: VecDeque<usize>,
}

/// How far the call is that is under way.
#[derive(Debug)]
enum State {
    /// The child has it under this id.
    Sent { id: BridgeId, deadline: Duration },
    /// The child has refused it because it is not ready: when it is sent again.
    Refused { due: Duration },
    /// What the child has answered can be taken by nobody.
    Unreadable,
}

/// What is to be done with the call that is under way.
pub(super) enum Due {
    /// It is sent again.
    Again,
    /// It has ended so. The child may still be at work on the request with this id.
    Ended(NotRestored, Option<BridgeId>),
}

impl Repeating {
    /// Begins; `None`: there is none to be sent. The call is under way as soon as it has been [`sent`](Self::send).
    pub(super) fn begin(remembered: &Remembered) -> Option<Self> {
        Self::next_of(remembered.in_order(), remembered)
    }

    fn next_of(mut waiting: VecDeque<usize>, remembered: &Remembered) -> Option<Self> {
        let tool = waiting.pop_front()?;
        let retry = Retry::new(remembered.request(tool)?.clone());
        Some(Self { tool, retry, state: State::Refused { due: Duration::ZERO }, waiting })
    }

    /// Sends the call under this id.
    pub(super) fn send(&mut self, id: BridgeId, deadline: Duration, out: &mut Out) {
        self.state = State::Sent { id, deadline };
        self.retry.request.write(id, &mut out.stdin);
    }

    /// The id under which the child has the call.
    pub(super) fn id(&self) -> Option<BridgeId> {
        if let State::Sent { id, .. } = self.state { Some(id) } else { None }
    }

    /// The child has refused the call as not ready, which is believed until then.
    pub(super) fn refused(&mut self, now: Duration, until: Duration) {
        self.state = State::Refused { due: self.retry.reschedule(now, until) };
    }

    /// What the child has answered can be taken by nobody.
    pub(super) fn unreadable(&mut self) {
        self.state = State::Unreadable;
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Duration {
        match self.state {
            State::Sent { deadline: when, .. } | State::Refused { due: when } => when,
            State::Unreadable => Duration::ZERO,
        }
    }

    /// What is to be done now.
    pub(super) fn due(&self, now: Duration) -> Option<Due> {
        if now < self.deadline() {
            return None;
        }
        Some(match self.state {
            State::Sent { id, .. } => Due::Ended(NotRestored::Timeout, Some(id)),
            State::Refused { .. } => Due::Again,
            State::Unreadable => Due::Ended(NotRestored::Unreadable, None),
        })
    }

    /// The call has ended with this answer: how.
    pub(super) fn answered(answer: &Incoming<'_>) -> Result<(), NotRestored> {
        if answer.envelope.kind == Kind::Failure {
            let (code, said) = refusal(slice(answer.text(), 0..answer.text().len()));
            return Err(NotRestored::Error { code: code.to_owned(), said });
        }
        let is_good = answer.text().len() > MAX_CALL || has_succeeded(answer);
        if is_good { Ok(()) } else { Err(NotRestored::ToolError) }
    }

    /// The call has ended. Returns its tool, and the next one if there is any. One that the child has not answered is
    /// forgotten: the next child may die of it too.
    pub(super) fn end(
        self,
        how: &Result<(), NotRestored>,
        remembered: &mut Remembered,
    ) -> (usize, Option<Self>) {
        if matches!(how, Err(NotRestored::Timeout | NotRestored::Lost)) {
            remembered.forget(self.tool);
        }
        (self.tool, Self::next_of(self.waiting, remembered))
    }

    /// The child is lost. Returns the tool whose call it had not answered, which is forgotten.
    pub(super) fn lost(self, remembered: &mut Remembered) -> Option<usize> {
        self.id()?;
        Some(self.end(&Err(NotRestored::Lost), remembered).0)
    }
}
