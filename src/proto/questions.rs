//! What a child of the session era asks while it works, and whose call it asks for.
//!
//! stdio does not say that. Where several clients share the child, a question may be given to nobody but the one whose
//! call it belongs to: it waits until all calls of others have ended that the child had when it asked, because a call that
//! waits for an answer does not end. One that was cancelled does, with an error: what may have been its question is nobody's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::capabilities::Need;
use super::ids::{BridgeId, ChildId};
use super::incoming::Incoming;
use super::json::{slice, value_at};
use super::message::Kind;
use super::output::{Capability, Note, Out};

/// How long a question may wait for it to become clear whose it is.
pub(super) const CLEAR_WITHIN: Duration = Duration::from_secs(5);

/// How many questions may wait for that at once.
const MAX_UNCLEAR: usize = 64;

/// Why a question of the child reaches nobody.
pub(super) const NOBODYS: &str = "no call is running that this can belong to";
pub(super) const UNSERVED: &str = "the client of this call does not serve such requests";
pub(super) const UNCLEAR: &str = "it is unclear to which of several calls this belongs";
pub(super) const TOO_MANY_UNCLEAR: &str = "too many requests wait for it to become clear whose they are";

/// Tells the child that nobody can be asked this.
pub(super) fn refuse(child: &ChildId, why: &'static str, out: &mut Out) {
    let error = format!(r#""error":{{"code":-32601,"message":"{why}"}}"#);
    out.reply(child.0.as_json(), &error, Note::Replied("a request that no client serves"));
}

/// Tells the child that the client does not answer any more. `need`: what its request needed of the client, if it is one
/// of those that the protocol knows.
pub(super) fn give_up(child: &ChildId, need: Option<Need>, out: &mut Out) {
    let member = match need.map(Need::capability) {
        Some(Capability::Elicitation) => r#""result":{"action":"cancel"}"#,
        Some(Capability::Sampling | Capability::Roots) | None => {
            r#""error":{"code":-32603,"message":"the client has not answered"}"#
        }
    };
    out.reply(child.0.as_json(), member, Note::Replied("a request whose client has gone"));
}

/// Whether the answer to a call that was cancelled says that the child has broken it off, and not that it was done: servers
/// answer so, and what they had asked for the call is over without a word.
pub(super) fn is_broken_off(answer: &Incoming<'_>) -> bool {
    let is_error = || {
        let text = slice(answer.text(), 0..answer.text().len());
        let span = value_at(text, &["result", "isError"]);
        span.is_some_and(|span| text.get(span) == Some("true"))
    };
    answer.envelope.kind == Kind::Failure || is_error()
}

/// A question as it waits.
pub(super) trait Waits {
    fn child(&self) -> &ChildId;

    /// How many bytes are kept of it.
    fn bytes(&self) -> usize;
}

/// A question of which it is not clear whose it is.
#[derive(Debug)]
struct Unclear<Q, O> {
    question: Q,
    /// The calls that it may belong to, and whose each is.
    among: BTreeMap<BridgeId, O>,
    came: Duration,
    /// When it is looked at again.
    again: Option<Duration>,
    /// When it is refused.
    until: Duration,
}

impl<Q, O: Copy + Eq> Unclear<Q, O> {
    /// Whose it is, if all the calls are one's.
    fn owner(&self) -> Option<O> {
        sole_owner(&self.among)
    }
}

/// Whose all of these calls are; `None`: there are none, or they are of several.
pub(super) fn sole_owner<O: Copy + Eq>(among: &BTreeMap<BridgeId, O>) -> Option<O> {
    let mut owners = among.values();
    let first = owners.next()?;
    owners.all(|owner| owner == first).then_some(*first)
}

/// All of them. `Q` is what waits, `O` is whose a call is, to whom the question goes.
#[derive(Debug)]
pub(super) struct Undecided<Q, O>(Vec<Unclear<Q, O>>);

impl<Q, O> Default for Undecided<Q, O> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Q: Waits, O: Copy + Eq> Undecided<Q, O> {
    /// Keeps a question until all of these calls have ended but those of one. `again`: when it is
    /// [looked at again](Self::look_again).
    ///
    /// # Errors
    /// The question, where too many wait.
    pub(super) fn add(
        &mut self,
        question: Q,
        among: BTreeMap<BridgeId, O>,
        again: Option<Duration>,
        now: Duration,
    ) -> Result<(), Q> {
        if self.0.len() >= MAX_UNCLEAR {
            return Err(question);
        }
        self.0.push(Unclear { question, among, came: now, again, until: now + CLEAR_WITHIN });
        Ok(())
    }

    /// A call has ended, with its child's answer. Returns the questions of which it is clear now whose they are.
    pub(super) fn ended(&mut self, call: BridgeId) -> Vec<(O, Q)> {
        for unclear in &mut self.0 {
            if unclear.among.len() > 1 {
                unclear.among.remove(&call);
            }
        }
        self.take_clear()
    }

    /// A call has ended that was cancelled before, and [is broken off](is_broken_off). Returns the questions that may be
    /// its: who else had a call would be shown what is another's.
    pub(super) fn broken_off(&mut self, call: BridgeId) -> Vec<Q> {
        let its = self.0.extract_if(.., |unclear| unclear.among.contains_key(&call));
        its.map(|unclear| unclear.question).collect()
    }

    /// Looks again at the questions for which it is time: calls that had asked before, and whose clients still have
    /// not answered, ask one thing after the other. `asked_at`: when a call that waits for its
    /// client had asked all that it asks at once; `None`: it does not wait.
    /// Returns the questions of which it is clear now whose they are.
    pub(super) fn look_again(
        &mut self,
        now: Duration,
        asked_at: impl Fn(BridgeId) -> Option<Duration>,
    ) -> Vec<(O, Q)> {
        for unclear in &mut self.0 {
            if unclear.again.take_if(|at| *at <= now).is_some() {
                let had_asked = |id| asked_at(id).is_some_and(|at| at <= unclear.came);
                let others = unclear.among.iter().filter(|(id, _)| !had_asked(**id));
                let others: BTreeMap<_, _> = others.map(|(id, owner)| (*id, *owner)).collect();
                if !others.is_empty() {
                    unclear.among = others;
                }
            }
        }
        self.take_clear()
    }

    fn take_clear(&mut self) -> Vec<(O, Q)> {
        let clear = self.0.extract_if(.., |unclear| unclear.owner().is_some());
        clear.filter_map(|unclear| Some((unclear.owner()?, unclear.question))).collect()
    }

    /// A call has a new id. `owner`: whose it is under that.
    pub(super) fn renamed(&mut self, old: BridgeId, new: BridgeId, owner: O) {
        for unclear in &mut self.0 {
            if unclear.among.remove(&old).is_some() {
                unclear.among.insert(new, owner);
            }
        }
    }

    /// The child takes a question back. Returns whether it waited here.
    pub(super) fn take_back(&mut self, child: &ChildId) -> bool {
        let before = self.0.len();
        self.0.retain(|unclear| unclear.question.child() != child);
        before > self.0.len()
    }

    /// Whether a question with this id waits.
    pub(super) fn has(&self, child: &ChildId) -> bool {
        self.0.iter().any(|unclear| unclear.question.child() == child)
    }

    /// Takes out the questions that have waited too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Q> {
        let late = self.0.extract_if(.., |unclear| unclear.until <= now);
        late.map(|unclear| unclear.question).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.0.iter().map(|unclear| unclear.again.unwrap_or(unclear.until)).min()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|unclear| unclear.question.bytes()).sum()
    }

    /// That each waits with reason.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.0.iter().all(|unclear| unclear.owner().is_none()), "what is clear does not wait");
        assert!(self.0.len() <= MAX_UNCLEAR);
    }
}
