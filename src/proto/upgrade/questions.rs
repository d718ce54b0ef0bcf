//! What a child of the session era asks while it works, and whose call it asks for.
//!
//! stdio does not say that. Where several clients share the child, a question may be given to nobody but the one whose
//! call it belongs to: it waits until all other calls have ended that the child had when it asked, because a call that
//! waits for an answer does not end.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::proto::capabilities::Need;
use crate::proto::ids::{BridgeId, ChildId};
use crate::proto::incoming::Incoming;
use crate::proto::json::slice;
use crate::proto::object::{has, with_first, without};
use crate::proto::output::{Capability, Note, Out};

/// How long a question may wait for it to become clear whose it is.
pub(super) const CLEAR_WITHIN: Duration = Duration::from_secs(5);

/// How long after its client was asked something a call may ask more, where it may be another's.
pub(super) const ASKED: Duration = Duration::from_secs(1);

/// How many questions may wait for that at once.
const MAX_UNCLEAR: usize = 64;

/// The longest question, in bytes: it is kept until its client comes back.
const MAX_QUESTION: usize = 1024 * 1024;

/// A request of the child for a client.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) child: ChildId,
    pub(super) need: Need,
    /// As a client of 2026-07-28 is asked it: an object with method and params.
    pub(super) text: Box<str>,
}

impl Question {
    /// The question that this request of the child is; `None`: it is none, or too long.
    pub(super) fn of(child: ChildId, request: &Incoming<'_>) -> Option<Self> {
        let method = request.envelope.method(request.text());
        let params = request.envelope.params.clone().map_or("{}", |span| slice(request.text(), span));
        let need = Need::of(&method, params)?;
        if params.len() > MAX_QUESTION || !params.starts_with('{') {
            return None;
        }
        // 2026-07-28 has neither tasks nor ids of elicitations, and what is in `_meta` is between child and bridge.
        let mut params = without(params, &["_meta", "task", "elicitationId"]);
        if need == Need::Form && !has(&params, "mode") {
            // One that is null is none, and would be there twice.
            params = with_first(&without(&params, &["mode"]), r#""mode":"form""#);
        }
        Some(Self { child, need, text: format!(r#"{{"method":"{method}","params":{params}}}"#).into() })
    }

    /// Gives the child a client's answer.
    pub(super) fn answer(&self, result: &str, out: &mut Out) {
        out.line(&[
            br#"{"jsonrpc":"2.0","id":"#,
            self.child.0.as_json().as_bytes(),
            br#","result":"#,
            result.as_bytes(),
            b"}",
        ]);
    }

    /// Tells the child that nobody can be asked this.
    pub(super) fn refuse(&self, why: &'static str, out: &mut Out) {
        let error = format!(r#""error":{{"code":-32601,"message":"{why}"}}"#);
        out.reply(self.child.0.as_json(), &error, Note::Replied("a request that no client serves"));
    }

    /// Tells the child that its client does not answer any more.
    pub(super) fn give_up(&self, out: &mut Out) {
        let member = match self.need.capability() {
            Capability::Elicitation => r#""result":{"action":"cancel"}"#,
            Capability::Sampling | Capability::Roots => {
                r#""error":{"code":-32603,"message":"the client has not answered"}"#
            }
        };
        out.reply(self.child.0.as_json(), member, Note::Replied("a request whose client has gone"));
    }
}

/// A question of which it is not clear whose it is.
#[derive(Debug)]
struct Unclear {
    question: Question,
    /// The calls that it may belong to.
    among: BTreeSet<BridgeId>,
    came: Duration,
    /// When it is looked at again: a call that does not wait for an answer has mostly ended by then.
    again: Option<Duration>,
    /// When it is refused.
    until: Duration,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Undecided(Vec<Unclear>);

impl Undecided {
    /// Keeps a question until all of these calls but one have ended.
    ///
    /// # Errors
    /// The question, where too many wait.
    pub(super) fn add(
        &mut self,
        question: Question,
        among: BTreeSet<BridgeId>,
        now: Duration,
    ) -> Result<(), Question> {
        if self.0.len() >= MAX_UNCLEAR {
            return Err(question);
        }
        self.0.push(Unclear {
            question,
            among,
            came: now,
            again: Some(now + ASKED),
            until: now + CLEAR_WITHIN,
        });
        Ok(())
    }

    /// A call has ended, with its child's answer. Returns the questions of which it is clear now whose they are.
    pub(super) fn ended(&mut self, call: BridgeId) -> Vec<(BridgeId, Question)> {
        for unclear in &mut self.0 {
            if unclear.among.len() > 1 {
                unclear.among.remove(&call);
            }
        }
        self.take_clear()
    }

    /// Looks again at questions that have waited for [`ASKED`]: calls that had asked before, and whose clients still have
    /// not answered, ask one thing after the other. `asked_at`: when a call that waits for its
    /// client had asked all that it asks at once; `None`: it does not wait.
    /// Returns the questions of which it is clear now whose they are.
    pub(super) fn look_again(
        &mut self,
        now: Duration,
        asked_at: impl Fn(BridgeId) -> Option<Duration>,
    ) -> Vec<(BridgeId, Question)> {
        for unclear in &mut self.0 {
            if unclear.again.take_if(|at| *at <= now).is_some() {
                let had_asked = |id| asked_at(id).is_some_and(|at| at <= unclear.came);
                let others: BTreeSet<_> =
                    unclear.among.iter().copied().filter(|id| !had_asked(*id)).collect();
                if !others.is_empty() {
                    unclear.among = others;
                }
            }
        }
        self.take_clear()
    }

    fn take_clear(&mut self) -> Vec<(BridgeId, Question)> {
        let clear = self.0.extract_if(.., |unclear| unclear.among.len() == 1);
        let clear = clear.filter_map(|unclear| Some((*unclear.among.first()?, unclear.question)));
        clear.collect()
    }

    /// A call has a new id.
    pub(super) fn renamed(&mut self, old: BridgeId, new: BridgeId) {
        for unclear in &mut self.0 {
            if unclear.among.remove(&old) {
                unclear.among.insert(new);
            }
        }
    }

    /// The child takes a question back. Returns whether it waited here.
    pub(super) fn take_back(&mut self, child: &ChildId) -> bool {
        let before = self.0.len();
        self.0.retain(|unclear| unclear.question.child != *child);
        before > self.0.len()
    }

    /// Takes out the questions that have waited too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Question> {
        let late = self.0.extract_if(.., |unclear| unclear.until <= now);
        late.map(|unclear| unclear.question).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.0.iter().map(|unclear| unclear.again.unwrap_or(unclear.until)).min()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|unclear| unclear.question.text.len()).sum()
    }
}
