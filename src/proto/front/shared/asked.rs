//! What the child has asked of sessions that share it, each of one of them, and which has no answer yet.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::proto::capabilities::Need;
use crate::proto::elicitation::elicitation_id;
use crate::proto::ids::{ChildId, Id, ProgressToken, StreamId};
use crate::proto::incoming::Incoming;
use crate::proto::json::{slice, value_at};
use crate::proto::questions::Waits;

/// How many questions one session may have at once, and how many bytes their names may be.
const MAX_OF_LANE: usize = 256;
const MAX_NAMES: usize = 256 * 1024;

/// A request of the child for the client of a session.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) child: ChildId,
    /// `None`: it is none of those that the protocol knows.
    pub(super) need: Option<Need>,
    /// By which its client names it in progress.
    token: Option<ProgressToken>,
    /// The name by which the child says later that it is complete (2025-11-25 `client/elicitation`).
    pub(super) elicitation: Option<Box<str>>,
    /// As the child wrote it.
    pub(super) line: Bytes,
}

impl Question {
    pub(super) fn of(child: ChildId, request: Incoming<'_>) -> Self {
        let params = request.envelope.params.clone().map_or("{}", |span| slice(request.text(), span));
        let need = Need::of(&request.envelope.method(request.text()), params);
        let meta = request.envelope.meta().map_or("{}", |span| slice(request.text(), span));
        let token = value_at(meta, &["progressToken"]).and_then(|span| Id::parse(meta.get(span)?));
        let is_elicitation = matches!(need, Some(Need::Form | Need::Url));
        let elicitation = is_elicitation.then(|| elicitation_id(params)).flatten();
        Self { child, need, token: token.map(ProgressToken), elicitation, line: request.into_line() }
    }
}

impl Waits for Question {
    fn child(&self) -> &ChildId {
        &self.child
    }

    fn bytes(&self) -> usize {
        self.line.len()
    }
}

/// What is kept of a question that a session has.
#[derive(Debug)]
struct Pending {
    lane: StreamId,
    need: Option<Need>,
    token: Option<ProgressToken>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Asked {
    table: HashMap<ChildId, Pending>,
    /// How many each lane has, and how many bytes their names are.
    lanes: BTreeMap<StreamId, (usize, usize)>,
}

fn names(child: &ChildId, token: Option<&ProgressToken>) -> usize {
    child.0.as_json().len() + token.map_or(0, |token| token.0.as_json().len())
}

impl Asked {
    pub(super) fn has(&self, child: &ChildId) -> bool {
        self.table.contains_key(child)
    }

    /// Takes note of a question that this lane gets. Returns whether there is room for it.
    #[must_use]
    pub(super) fn add(&mut self, lane: StreamId, question: &Question) -> bool {
        let (count, bytes) = self.lanes.get(&lane).copied().unwrap_or_default();
        let bytes = bytes + names(&question.child, question.token.as_ref());
        if count >= MAX_OF_LANE || bytes > MAX_NAMES {
            return false;
        }
        self.lanes.insert(lane, (count + 1, bytes));
        let pending = Pending { lane, need: question.need, token: question.token.clone() };
        self.table.insert(question.child.clone(), pending);
        true
    }

    /// A lane has answered. Returns whether it was asked.
    #[must_use]
    pub(super) fn answered(&mut self, lane: StreamId, child: &ChildId) -> bool {
        let is_its = self.table.get(child).is_some_and(|pending| pending.lane == lane);
        is_its && self.take(child).is_some()
    }

    /// The child takes a question back. Returns the lane that has it.
    pub(super) fn take(&mut self, child: &ChildId) -> Option<StreamId> {
        // The lane may spell the id otherwise than the child did.
        let (child, Pending { lane, token, .. }) = self.table.remove_entry(child)?;
        if let Some((count, bytes)) = self.lanes.get_mut(&lane) {
            (*count, *bytes) = (*count - 1, *bytes - names(&child, token.as_ref()));
            if *count == 0 {
                self.lanes.remove(&lane);
            }
        }
        Some(lane)
    }

    /// The session of this lane has ended. Returns what it has not answered, and what each needed.
    pub(super) fn left(&mut self, lane: StreamId) -> Vec<(ChildId, Option<Need>)> {
        if self.lanes.remove(&lane).is_none() {
            return Vec::new();
        }
        let gone = self.table.extract_if(|_, pending| pending.lane == lane);
        let mut gone: Vec<_> = gone.map(|(child, pending)| (child, pending.need)).collect();
        gone.sort_by(|(one, _), (other, _)| one.0.as_json().cmp(other.0.as_json()));
        gone
    }

    /// Whether this names progress of a question that the lane has.
    pub(super) fn has_token(&self, lane: StreamId, token: &ProgressToken) -> bool {
        self.lanes.contains_key(&lane)
            && self
                .table
                .values()
                .any(|pending| pending.lane == lane && pending.token.as_ref() == Some(token))
    }

    /// Bytes of all names.
    pub(super) fn bytes(&self) -> usize {
        self.lanes.values().map(|(_, bytes)| bytes).sum()
    }

    /// That every sum says what the table says; the lanes that have questions.
    #[cfg(test)]
    pub(super) fn check(&self) -> impl Iterator<Item = StreamId> {
        let mut lanes = BTreeMap::<_, (usize, usize)>::new();
        for (child, pending) in &self.table {
            let (count, bytes) = lanes.entry(pending.lane).or_default();
            (*count, *bytes) = (*count + 1, *bytes + names(child, pending.token.as_ref()));
        }
        assert_eq!(self.lanes, lanes);
        lanes.into_keys()
    }
}
