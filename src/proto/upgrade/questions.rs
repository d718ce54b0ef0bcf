//! What a child of the session era asks while it works, as a client of 2026-07-28 is asked it.

use std::time::Duration;

use crate::proto::capabilities::Need;
use crate::proto::ids::ChildId;
use crate::proto::incoming::Incoming;
use crate::proto::json::slice;
use crate::proto::object::{has, with_first, without};
use crate::proto::output::Out;
use crate::proto::questions::{Waits, give_up, refuse};

/// How long after its client was asked something a call may ask more, where it may be another's.
pub(super) const ASKED: Duration = Duration::from_secs(1);

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
        refuse(&self.child, why, out);
    }

    /// Tells the child that its client does not answer any more.
    pub(super) fn give_up(&self, out: &mut Out) {
        give_up(&self.child, Some(self.need), out);
    }
}

impl Waits for Question {
    fn child(&self) -> &ChildId {
        &self.child
    }

    fn bytes(&self) -> usize {
        self.text.len()
    }
}
