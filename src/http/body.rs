//! Bodies of requests: bounded bytes in, one message or a batch out.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::problem::Problem;
use super::response::Rejection;
use crate::proto::json::{elements, is_array};
use crate::proto::message::{Malformed, Message};
use crate::proto::version::Revision;
use crate::session::{BodyBudget, BodyPermit, Posted, Session};

/// How many messages a batch may have: each costs more memory than its few bytes of the body.
const MAX_BATCH: usize = 1000;

/// How much of a body that does not say its length is read without leave, in bytes. A body without a session needs none
/// up to this length at all: most are `initialize`, and must not wait for somebody else's slow megabytes.
const SMALL: usize = 64 * 1024;

/// What holds for all bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    /// The longest body, in bytes.
    pub(super) max: usize,
    timeout: Duration,
    /// For bodies that name no session.
    anonymous: BodyBudget,
}

impl Bodies {
    /// `max`: the longest body, in bytes; `timeout`: how long one may take.
    pub(super) fn new(max: usize, timeout: Duration) -> Self {
        Self { max, timeout, anonymous: BodyBudget::new(max) }
    }

    /// Reads a body, with leave to hold it: of the session that it is for, where there is one.
    ///
    /// # Errors
    /// The [`Problem`].
    pub(super) async fn read(
        &self,
        body: Incoming,
        session: Option<&Session>,
    ) -> Result<(Bytes, Option<BodyPermit>), Problem> {
        let leave = session.map_or(Leave::Lobby(&self.anonymous), Leave::Session);
        read(body, self.max, self.timeout, leave).await
    }
}

/// Who gives leave to hold a body: memory is bounded for each session, and for all bodies together that name none.
#[derive(Clone, Copy, Debug)]
enum Leave<'l> {
    /// The session that the body is for: one whose child does not read makes its clients wait with their bodies.
    Session(&'l Session),
    /// Nobody has a session yet.
    Lobby(&'l BodyBudget),
}

impl Leave<'_> {
    async fn take(self, bytes: usize) -> Result<Option<BodyPermit>, Problem> {
        match self {
            Self::Session(session) => {
                let permit = session.body_permit(bytes).await;
                permit.map(Some).map_err(Problem::SessionEnded)
            }
            Self::Lobby(_) if bytes <= SMALL => Ok(None),
            Self::Lobby(budget) => Ok(budget.take(bytes).await),
        }
    }
}

/// Reads a request body of at most `max` bytes within a `limit` of time, with leave to hold it.
///
/// # Errors
/// [`Problem::BodyTooLarge`], [`Problem::BodyTimeout`], [`Problem::BodyBroken`], or [`Problem::SessionNotFound`] where
/// the session has ended meanwhile: what nobody will take is not read.
async fn read(
    body: Incoming,
    max: usize,
    limit: Duration,
    leave: Leave<'_>,
) -> Result<(Bytes, Option<BodyPermit>), Problem> {
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(max));
    // Waiting for leave does not count as the client's slowness where it is a session's own.
    let mut permit = match (announced, leave) {
        (Some(length), Leave::Session(_)) => leave.take(length).await?,
        _ => None,
    };
    let mut body = Limited::new(body, max);
    let read = async {
        if let (Some(length), Leave::Lobby(_)) = (announced, leave) {
            permit = leave.take(length).await?;
        }
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => Problem::BodyTooLarge(max),
                false => Problem::BodyBroken,
            })?;
            let Ok(data) = frame.into_data() else { continue }; // trailers
            if first.is_empty() && rest.is_empty() {
                first = data; // most bodies come in one piece, which is then not copied
                continue;
            }
            if rest.is_empty() {
                // A buffer that grows by doubling would cost up to three times the body.
                rest.reserve(announced.unwrap_or(first.len() + data.len()).min(max));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
            if announced.is_none() && permit.is_none() && rest.len() > SMALL {
                permit = leave.take(max).await?;
            }
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    };
    match timeout(limit, read).await {
        Ok(read) => read.map(|body| (body, permit)),
        Err(_) => Err(Problem::BodyTimeout(limit)),
    }
}

/// Reads what was posted: one message, or a batch where the session's revision has them.
///
/// # Errors
/// The refusal.
pub(super) fn parse(body: &Bytes, revision: Option<Revision>) -> Result<Posted, Rejection> {
    if !is_array(body) {
        return parse_one(body.clone()).map(Posted::One);
    }
    let text = std::str::from_utf8(body).map_err(|_| Problem::Parse)?;
    let elements = elements(text).ok_or(Problem::Parse)?;
    if !revision.is_some_and(Revision::batches) {
        return Err(Problem::Batch(revision).into());
    }
    if elements.is_empty() {
        return Err(Problem::Invalid("an empty batch").into());
    }
    if elements.len() > MAX_BATCH {
        return Err(Problem::Invalid("a batch of more than 1000 messages").into());
    }
    let messages = elements
        .into_iter()
        .map(|element| parse_one(body.slice_ref(element.as_bytes())))
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
