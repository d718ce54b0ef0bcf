//! Bodies of requests: bounded bytes in, one message or a batch out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, sleep, timeout_at};

use super::head::Head;
use super::problem::Problem;
use super::response::Rejection;
use crate::proto::incoming::MAX_BATCH;
use crate::proto::json::{elements, is_array};
use crate::proto::message::{Malformed, Message};
use crate::proto::version::Revision;
use crate::session::{BodyBudget, BodyPermit, Posted, Session};

/// What the permit of a body of unknown length begins with, and by how much it grows, in bytes.
const STEP: usize = 16 * 1024;

/// The longest body that names no session and is counted among the small ones, in bytes: most of them are `initialize`,
/// which must not wait behind megabytes.
const SMALL: usize = 64 * 1024;

/// How many bytes of small bodies there may be at once.
const SMALL_BUDGET: usize = 8 * 1024 * 1024;

/// Reads the bodies of requests, as far as there is memory for them.
#[derive(Debug)]
pub(super) struct Bodies {
    limits: Limits,
    /// For bodies that name no session: small ones, and all others.
    small: BodyBudget,
    large: BodyBudget,
}

/// What holds for each body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The longest one, in bytes.
    pub(super) max: usize,
    /// How long a client may take to send it.
    pub(super) body_timeout: Duration,
    /// How long its request may wait, from the time when its head was read.
    pub(super) request_timeout: Duration,
}

/// The memory that a body is counted against.
#[derive(Clone, Copy, Debug)]
enum Budget<'b> {
    /// That of its session: one whose child does not read makes its own clients wait with their bodies.
    Session(&'b Session),
    /// That of the small bodies which name no session.
    Small(&'b Bodies),
    /// That of the others.
    Large(&'b Bodies),
}

impl Budget<'_> {
    async fn take(self, bytes: usize) -> Result<BodyPermit, Problem> {
        match self {
            Self::Session(session) => session.body_permit(bytes).await.map_err(Problem::SessionEnded),
            Self::Small(bodies) => bodies.small.take(bytes).await.ok_or(Problem::Draining),
            Self::Large(bodies) => bodies.large.take(bytes).await.ok_or(Problem::Draining),
        }
    }

    /// Lets the body of this permit become so many bytes long.
    async fn grow(&mut self, permit: &mut BodyPermit, bytes: usize) -> Result<(), Problem> {
        match *self {
            Self::Session(session) => {
                session.grow_body_permit(permit, bytes).await.map_err(Problem::SessionEnded)
            }
            Self::Small(bodies) if bytes > SMALL => {
                *self = Self::Large(bodies);
                *permit = self.take(bytes).await?;
                Ok(())
            }
            Self::Small(bodies) => bodies.small.grow(permit, bytes).await.ok_or(Problem::Draining),
            Self::Large(bodies) => bodies.large.grow(permit, bytes).await.ok_or(Problem::Draining),
        }
    }
}

impl Bodies {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, small: BodyBudget::new(SMALL_BUDGET), large: BodyBudget::new(limits.max) }
    }

    /// The longest body, in bytes.
    pub(super) fn max(&self) -> usize {
        self.limits.max
    }

    /// Waits for something that a request needs before it can be forwarded, until its deadline.
    ///
    /// # Errors
    /// [`Problem::NotForwarded`].
    pub(super) async fn in_time<F: Future>(&self, head: &Head<'_>, waiting: F) -> Result<F::Output, Problem> {
        let limit = self.limits.request_timeout;
        timeout_at(head.arrived + limit, waiting).await.map_err(|_| Problem::NotForwarded(limit))
    }

    /// Reads a body, with a permit to hold it: of the session that it is for, where there is one. The time for which it
    /// waits for the permit is not counted as the client's.
    ///
    /// # Errors
    /// [`Problem::BodyTooLarge`], [`Problem::BodyTimeout`], [`Problem::BodyBroken`], [`Problem::NotForwarded`] where there
    /// was no memory for it until the request's deadline, or [`Problem::SessionEnded`]: what is for no session any more
    /// is not read.
    pub(super) async fn read(
        &self,
        head: &Head<'_>,
        body: Incoming,
        session: Option<&Session>,
    ) -> Result<(Bytes, BodyPermit), Problem> {
        let Limits { max, body_timeout, .. } = self.limits;
        let length = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(max));
        let mut budget = match session {
            Some(session) => Budget::Session(session),
            None if length.is_some_and(|length| length > SMALL) => Budget::Large(self),
            None => Budget::Small(self),
        };
        let mut permit = self.in_time(head, budget.take(length.unwrap_or(STEP))).await??;
        let mut covered = length.unwrap_or(STEP);
        let mut body = Limited::new(body, max);
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        tokio::pin! {
            let timer = sleep(body_timeout);
        }
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = &mut timer => return Err(Problem::BodyTimeout(body_timeout)),
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => Problem::BodyTooLarge(max),
                false => Problem::BodyBroken,
            })?;
            let Ok(data) = frame.into_data() else { continue }; // trailers
            if first.is_empty() && rest.is_empty() {
                first = data; // most bodies come in one piece, which is then not copied
            } else {
                if rest.is_empty() {
                    // A buffer that grows by doubling would cost up to three times the body.
                    rest.reserve(length.unwrap_or(first.len() + data.len()).min(max));
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
            let read = first.len() + rest.len();
            if read <= covered {
                continue;
            }
            let waiting = Instant::now();
            covered = read.next_multiple_of(STEP).min(max);
            self.in_time(head, budget.grow(&mut permit, covered)).await??;
            let deadline = timer.deadline() + waiting.elapsed();
            timer.as_mut().reset(deadline);
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, permit))
    }
}

/// Reads what was posted: one message, or a batch where the session's revision has them.
pub(super) fn parse(body: Bytes, revision: Option<Revision>) -> Result<Posted, Rejection> {
    if !is_array(&body) {
        return parse_one(body).map(Posted::One);
    }
    // Whatever else is wrong with it: nothing is looked at that is refused anyway.
    if !revision.is_some_and(Revision::batches) {
        return Err(Problem::Batch(revision).into());
    }
    let text = std::str::from_utf8(&body).map_err(|_| Problem::Parse)?;
    let mut count = 0;
    for element in elements(text) {
        element.ok_or(Problem::Parse)?;
        count += 1;
        if count > MAX_BATCH {
            return Err(Problem::Invalid("a batch of more than 1000 messages").into());
        }
    }
    if count == 0 {
        return Err(Problem::Invalid("an empty batch").into());
    }
    // Each in a buffer of its own: one that waits, or is kept, does not keep the others alive.
    let messages = elements(text)
        .flatten()
        .map(|element| parse_one(Bytes::copy_from_slice(element.as_bytes())))
        .collect::<Result<Vec<_>, _>>()?;
    if messages.iter().any(|message| message.method() == "initialize") {
        // 2025-03-26 `basic/lifecycle`
        return Err(Problem::Invalid("initialize must not be part of a batch").into());
    }
    Ok(Posted::Batch(messages))
}

/// Reads one message.
///
/// # Errors
/// The refusal, with the message's id where it has a usable one.
pub(super) fn parse_one(text: Bytes) -> Result<Message, Rejection> {
    Message::parse(text).map_err(|malformed| match malformed {
        Malformed::Parse => Problem::Parse.into(),
        Malformed::Invalid(id, why) => Problem::Invalid(why).about(id.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str, revision: Option<Revision>) -> Option<Problem> {
        parse(Bytes::copy_from_slice(body.as_bytes()), revision).err().map(|rejection| rejection.problem)
    }

    #[test]
    fn an_array_is_not_looked_at_where_the_revision_has_none() {
        for body in ["[1,", "[", "[{}]", "[\u{fffd}"] {
            for revision in [None, Some(Revision::R2025_11_25)] {
                assert!(matches!(refusal(body, revision), Some(Problem::Batch(_))), "{body}");
            }
            assert!(
                !matches!(refusal(body, Some(Revision::R2025_03_26)), None | Some(Problem::Batch(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn an_array_is_not_looked_at_beyond_its_thousandth_element() {
        let elements = |count: usize| vec!["1"; count].join(",");
        let too_many = |body: &str| matches!(refusal(body, Some(Revision::R2025_03_26)), Some(Problem::Invalid(why)) if why.contains("1000"));
        assert!(!too_many(&format!("[{}]", elements(MAX_BATCH))));
        assert!(too_many(&format!("[{}]", elements(MAX_BATCH + 1))));
        assert!(too_many(&format!("[{}, and this is no JSON", elements(MAX_BATCH + 1))));
    }

    #[test]
    fn a_message_of_a_batch_does_not_keep_the_body_alive() {
        let body =
            Bytes::from(format!(r#"[{{"jsonrpc":"2.0","id":1,"method":"ping"}}{}]"#, " ".repeat(10_000)));
        let posted = parse(body.clone(), Some(Revision::R2025_03_26));
        assert!(matches!(&posted, Ok(Posted::Batch(messages)) if messages.len() == 1));
        assert!(body.is_unique());
    }
}
