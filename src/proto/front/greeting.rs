//! What a child has answered to the bridge's own `initialize`, kept for all whom the bridge has not let open the session.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::proto::ids::ClientId;
use crate::proto::incoming::Incoming;
use crate::proto::json::{Span, quote, slice, splice, unquote, value_at};
use crate::proto::line::join_lines;
use crate::proto::object::{has, without};
use crate::proto::version::Revision;

/// The longest answer to `initialize` that is kept for the clients of a session, in bytes.
pub(in crate::proto) const MAX_GREETING: usize = 1024 * 1024;

/// One line, before and behind its id.
#[derive(Debug)]
pub(super) struct Greeting {
    before: Box<[u8]>,
    behind: Box<[u8]>,
}

impl Greeting {
    /// `answer`: to `initialize`.
    pub(super) fn of(answer: &Incoming<'_>) -> Self {
        let text = answer.text();
        let part = |span: Range<usize>| text.get(span).unwrap_or_default();
        let (mut before, mut behind) = match answer.envelope.id.clone() {
            Some(id) => (part(0..id.start).to_vec(), part(id.end..text.len()).to_vec()),
            None => {
                let behind_brace = memchr::memchr(b'{', text).map_or(0, |brace| brace + 1);
                let before = [part(0..behind_brace), b"\"id\":"].concat();
                (before, [b",", part(behind_brace..text.len())].concat())
            }
        };
        join_lines(&mut before);
        join_lines(&mut behind);
        Self { before: before.into(), behind: behind.into() }
    }

    /// The same without the tasks that the child offers, if it does.
    pub(super) fn without_tasks(answer: &Incoming<'_>) -> Self {
        let text = slice(answer.text(), 0..answer.text().len());
        let capabilities = value_at(text, &["result", "capabilities"]);
        let capabilities =
            capabilities.filter(|span| has(text.get(span.clone()).unwrap_or_default(), "tasks"));
        let edited = capabilities.and_then(|span| {
            let (before, behind) = (text.get(..span.start)?, text.get(span.end..)?);
            Some([before, &without(text.get(span)?, &["tasks"]), behind].concat())
        });
        match edited.as_deref().map(Incoming::peek) {
            Some(Ok(edited)) => Self::of(&edited),
            Some(Err(_)) | None => Self::of(answer),
        }
    }

    /// With the id of the client that asks for it.
    pub(super) fn for_client(&self, client: &ClientId) -> Bytes {
        [&self.before, client.0.as_json().as_bytes(), &self.behind].concat().into()
    }

    /// The same in the revision that this client wants, where the child speaks a later one: a client that does not know that
    /// hangs up (2025-11-25 `basic/lifecycle`, "Version Negotiation"), and what a later revision adds it can ignore.
    pub(super) fn in_revision(&self, wanted: Revision, client: &ClientId) -> Bytes {
        let answer = self.for_client(client);
        let text = slice(&answer, 0..answer.len());
        let span = value_at(text, &["result", "protocolVersion"]);
        let is_later = |span: &Span| {
            let spoken = text.get(span.clone()).and_then(|token| Revision::parse(&unquote(token)));
            spoken.is_some_and(|spoken| wanted < spoken)
        };
        match span.filter(is_later) {
            Some(span) => {
                let mut line = BytesMut::new();
                splice(&mut line, &answer, span, quote(wanted.as_str()).as_bytes());
                line.freeze()
            }
            None => answer,
        }
    }
}
