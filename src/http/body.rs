//! Bodies of requests: bounded bytes in, one message or a batch out.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use super::head::Kept;
use super::problem::{Problem, TooSlow};
use super::response::Rejection;
use crate::log_limit::SharedLogLimit;
use crate::proto::incoming::MAX_BATCH;
use crate::proto::json::{elements, is_array};
use crate::proto::message::{Malformed, Message};
use crate::proto::version::Revision;
use crate::session::{BodyPermit, Coming, NoMemory, Posted, Session};
use crate::sessions::Sessions;

mod pace;

use pace::Pace;

/// How fast a body must come, in bytes per second.
const RATE: usize = 64 * 1024;

/// How fast it must come while others wait for the memory that it holds, and how far it may fall behind: a small one, and
/// a large one.
const WANTED_RATE: usize = 256 * 1024;
const WANTED_SLACK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// How often a body that comes slowly is asked whether others wait.
const TICK: Duration = Duration::from_millis(500);

/// How late a timer is at least if this process stood still: that time is not the client's.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// How long a body that is too slow has for what came meanwhile and was not read.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// What a connection over HTTP/1 may have read of a body that is not taken, in bytes.
const H1_BUFFER: usize = 16 * 1024;

static SLOW: SharedLogLimit = SharedLogLimit::new("http.slow_body");

/// Reads the bodies of requests, as far as there is memory for them.
#[derive(Debug)]
pub(super) struct Bodies {
    limits: Limits,
    sessions: Arc<Sessions>,
}

/// What holds for each body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The longest one, in bytes.
    pub(super) max: usize,
    /// How long a client may let the bridge wait for it.
    pub(super) body_timeout: Duration,
    /// How long its request may wait, from the time when its head was read.
    pub(super) request_timeout: Duration,
    /// What an HTTP/2 connection may hold of a body that is not taken, in bytes.
    pub(super) h2_window: usize,
}

impl Bodies {
    pub(super) fn new(limits: Limits, sessions: Arc<Sessions>) -> Self {
        Self { limits, sessions }
    }

    /// The longest body, in bytes.
    pub(super) fn max(&self) -> usize {
        self.limits.max
    }

    /// Waits for something that a request needs before it can be forwarded, until its deadline.
    ///
    /// # Errors
    /// [`Problem::NotForwarded`].
    pub(super) async fn in_time<F: Future>(&self, head: &Kept, waiting: F) -> Result<F::Output, Problem> {
        let limit = self.limits.request_timeout;
        timeout_at(head.arrived + limit, waiting).await.map_err(|_| Problem::NotForwarded(limit))
    }

    /// Waits until a session has memory for a body that has been read already.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub(super) async fn take(
        &self,
        head: &Kept,
        session: &Session,
        length: usize,
    ) -> Result<BodyPermit, Problem> {
        let taken = self.in_time(head, session.bodies().take(length)).await?;
        taken.map_err(|why| no_memory(why, Some(session)))
    }

    /// The same for a body that has lost its session.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub(super) async fn take_anonymous(&self, head: &Kept, length: usize) -> Result<BodyPermit, Problem> {
        let taken = self.in_time(head, self.sessions.anonymous().take(length)).await?;
        taken.map_err(|why| no_memory(why, None))
    }

    /// Reads a body, with a permit to hold it: of the session that it is for, where there is one. The time for which it
    /// waits for memory is not its client's.
    ///
    /// # Errors
    /// [`Problem::BodyTooLarge`], [`Problem::BodyTimeout`], [`Problem::BodyBroken`], [`Problem::Crowded`],
    /// [`Problem::NotForwarded`] where there was no memory for it until the request's deadline, or
    /// [`Problem::SessionEnded`]: what is for no session any more is not read.
    pub(super) async fn read(
        &self,
        head: &Kept,
        body: Incoming,
        session: Option<&Session>,
    ) -> Result<(Bytes, BodyPermit), Problem> {
        let Limits { max, body_timeout, h2_window, .. } = self.limits;
        let length = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(max));
        let budget = session.map_or(self.sessions.anonymous(), Session::bodies);
        let no_memory = |why| no_memory(why, session);
        if session.is_some_and(|session| session.end_reason().is_some()) {
            return Err(no_memory(NoMemory::Closed));
        }
        let unread = if head.is_h2 { h2_window } else { H1_BUFFER };
        let mut coming = budget.begin(length, unread);
        let mut watch = Watch::new(body_timeout, head.arrived);
        let mut body = Limited::new(body, max);
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        tokio::pin! {
            let timer = sleep_until(watch.pace.due());
        }
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = &mut timer => {
                    let now = Instant::now();
                    let lag = now.saturating_duration_since(timer.deadline());
                    if lag > STOOD_STILL {
                        watch.pause(lag);
                    }
                    if let Some(slow) = watch.look(budget.is_wanted(&coming), coming.is_large(), now) {
                        log_slow(session, first.len() + rest.len(), now - head.arrived);
                        return Err(Problem::BodyTimeout(slow));
                    }
                    timer.as_mut().reset(watch.next(&coming, now));
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => Problem::BodyTooLarge(max),
                false => Problem::BodyBroken,
            })?;
            let Ok(data) = frame.into_data() else { continue }; // trailers
            let (before, came) = (first.len() + rest.len(), data.len());
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
            let read = before + came;
            if !budget.try_grow(&mut coming, before, read).map_err(no_memory)? {
                let waiting = Instant::now();
                self.in_time(head, budget.grow(&mut coming, read)).await?.map_err(no_memory)?;
                watch.pause(waiting.elapsed());
            }
            if before > 0 || !body.is_end_stream() {
                let now = Instant::now();
                watch.came(came, now);
                if before == 0 {
                    timer.as_mut().reset(watch.next(&coming, now));
                }
            }
        }
        let body = if rest.is_empty() { first } else { rest.freeze() };
        if !budget.try_complete(&mut coming, body.len()).map_err(no_memory)? {
            self.in_time(head, budget.grow(&mut coming, body.len())).await?.map_err(no_memory)?;
        }
        Ok((body, coming.into_permit()))
    }
}

/// Why a body has no memory, as its client is told.
fn no_memory(why: NoMemory, session: Option<&Session>) -> Problem {
    match (why, session) {
        (NoMemory::Crowded, _) => Problem::Crowded,
        (NoMemory::Closed, Some(session)) => Problem::SessionEnded(session.why_closed()),
        (NoMemory::Closed, None) => Problem::Draining,
    }
}

fn log_slow(session: Option<&Session>, bytes: usize, within: Duration) {
    let Some(count) = SLOW.take() else { return };
    warn!(
        event = "http.slow_body",
        sid = session.map(|session| session.id().short()),
        bytes,
        within = within.as_secs_f64(),
        count,
        "a request is given up because its body comes too slowly; see --body-timeout"
    );
}

/// Looks after the client of one body.
struct Watch {
    body_timeout: Duration,
    pace: Pace,
    /// Since others wait for its memory.
    wanted: Option<Pace>,
    /// Whether it was too slow at the last look.
    late: bool,
}

impl Watch {
    fn new(body_timeout: Duration, now: Instant) -> Self {
        Self { body_timeout, pace: Pace::begin(RATE, body_timeout, now), wanted: None, late: false }
    }

    /// Notes that so many bytes have come.
    fn came(&mut self, bytes: usize, now: Instant) {
        self.pace.came(bytes, now);
        if let Some(wanted) = &mut self.wanted {
            wanted.came(bytes, now);
        }
    }

    /// Leaves out a time for which the client was not waited for.
    fn pause(&mut self, time: Duration) {
        self.pace.pause(time);
        if let Some(wanted) = &mut self.wanted {
            wanted.pause(time);
        }
    }

    /// Whether the body is too slow, and for what.
    fn look(&mut self, is_wanted: bool, is_large: bool, now: Instant) -> Option<TooSlow> {
        let (small, large) = WANTED_SLACK;
        let slack = if is_large { large } else { small }.min(self.body_timeout);
        self.wanted = match self.wanted.take() {
            _ if !is_wanted => None,
            None => Some(Pace::begin(WANTED_RATE, slack, now)),
            wanted => wanted,
        };
        let slow = if self.pace.due() <= now {
            TooSlow { slack: self.body_timeout, rate: RATE, wanted: false }
        } else if self.wanted.as_ref().is_some_and(|wanted| wanted.due() <= now) {
            TooSlow { slack, rate: WANTED_RATE, wanted: true }
        } else {
            self.late = false;
            return None;
        };
        std::mem::replace(&mut self.late, true).then_some(slow)
    }

    /// When to look next.
    fn next(&self, coming: &Coming, now: Instant) -> Instant {
        if self.late {
            return now + LAST_LOOK;
        }
        let due = self.wanted.as_ref().map_or(self.pace.due(), |wanted| wanted.due().min(self.pace.due()));
        if coming.is_in_the_way() { due.min(now + TICK) } else { due }
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
