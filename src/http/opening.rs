//! How a session begins, over whichever transport: which server it gets, and in which era that is spoken to.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;
use tokio::time::timeout;
use tracing::warn;

use super::body::Bodies;
use super::head::{self, Head, Kept};
use super::keyed::Share;
use super::problem::Problem;
use super::sharing::{Company, Key, Sharing};
use crate::log_limit::SharedLogLimit;
use crate::proto::version::Era;
use crate::session::stream::{Delivery, Payload, Reader};
use crate::session::{BodyPermit, End, Fault, Session};
use crate::sessions::{NoSession, Opening, Server, Sessions, SharedServer};

/// Bytes before the answer to `initialize` beyond which it is not waited for.
const MAX_BEFORE: usize = 64 * 1024;

/// The server of a session, and what that gets from the headers of the request that opens it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) server: Server,
    pub(super) environment: Vec<(OsString, OsString)>,
}

impl Place {
    /// For the session that this request opens.
    ///
    /// # Errors
    /// [`Problem::HeaderTwice`], or [`Problem::Header`].
    pub(super) fn of(
        sharing: &Sharing,
        head: &Head<'_>,
        env_from_header: &[(String, HeaderName)],
    ) -> Result<Self, Problem> {
        if sharing.share == Share::None {
            let environment = head::environment(head.headers, env_from_header)?;
            return Ok(Self { server: Server::Own, environment });
        }
        let key = sharing.key(head, env_from_header)?;
        Ok(Self { server: server(sharing, &key), environment: key.environment })
    }
}

/// The server of sessions with this key.
pub(super) fn server(sharing: &Sharing, key: &Key) -> Server {
    let strangers = match key.company {
        _ if sharing.share == Share::None => return Server::Own,
        Company::Unsaid => return Server::Own,
        Company::Own => false,
        Company::Strangers => true,
    };
    Server::Shared(SharedServer { key: key.digest, owner: key.owner, strangers })
}

static SPAWN_FAILURES: SharedLogLimit = SharedLogLimit::new("child.spawn_failed");

/// How often it is tried to open a session where it is not known what the server speaks, or where the server is shared: another
/// client may have had that opened with `initialize` before it was known.
const ATTEMPTS: u32 = 3;

/// Starts the session of a client of the session era.
///
/// Where it is not known what the server speaks, it gets `initialize`, which harms none. If it refuses that, another one
/// is asked, and if they speak 2026-07-28 alone, the client gets a session that is translated for such a server: it waits,
/// and sees one answer. `patience`: how long it may wait for the refusal.
///
/// # Errors
/// Why there is no session.
pub(super) async fn begin(
    sessions: &Arc<Sessions>,
    bodies: &Bodies,
    head: &Kept,
    opening: Opening,
    permit: BodyPermit,
    patience: Duration,
) -> Result<(Session, Reader), Problem> {
    let mut opening = opening;
    let mut permit = Some(permit);
    let is_shared = matches!(opening.server, Server::Shared(_));
    let mut attempts = if is_shared || sessions.known_era().is_none() { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let again = (attempts > 0).then(|| opening.clone());
        let started = sessions.start(opening).await;
        drop(permit.take()); // the session has the message now, and others may want to open one
        let (session, reader) = started.map_err(|error| not_started(&error))?;
        let Some(again) = again else { return Ok((session, reader)) };
        let unclaimed = Unclaimed::new(sessions, &session);
        let is_refused = timeout(patience, is_refused(&reader)).await.unwrap_or(false);
        if !is_refused || !matches!(bodies.in_time(head, sessions.era()).await, Ok(Era::Modern)) {
            unclaimed.claim();
            return Ok((session, reader));
        }
        opening = Opening { era: Era::Modern, ..again };
    }
}

/// Waits for the answer to `initialize`: whether the child has refused it.
async fn is_refused(reader: &Reader) -> bool {
    let look = |waiting: &VecDeque<Delivery>, bytes: usize, closed: bool| {
        let answer = waiting.iter().find_map(|delivery| match delivery {
            Delivery::Event(event) => match &event.payload {
                Payload::Message(_) => None,
                Payload::Answer { success, .. } => Some(!success),
                Payload::Fault { fault, .. } => Some(*fault == Fault::Ended(End::Refused)),
            },
            _ => None,
        });
        answer.or_else(|| (closed || bytes > MAX_BEFORE).then_some(false))
    };
    poll_fn(|context| reader.poll_look(look, context)).await
}

/// Ends a session whose client leaves before it was told the id: no other client can ever use or end it.
pub(super) struct Unclaimed<'s> {
    sessions: &'s Sessions,
    session: Option<&'s Session>,
}

impl<'s> Unclaimed<'s> {
    pub(super) fn new(sessions: &'s Sessions, session: &'s Session) -> Self {
        Self { sessions, session: Some(session) }
    }

    pub(super) fn claim(mut self) {
        self.session = None;
    }
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.sessions.end(session, End::Unclaimed);
        }
    }
}

/// Why there is no session, as a client is told.
pub(super) fn not_started(error: &NoSession) -> Problem {
    match error {
        NoSession::Full(limit) => Problem::Full(*limit),
        NoSession::Draining => Problem::Draining,
        NoSession::Crashing(pause) => Problem::Crashing(*pause),
        NoSession::Blamed(pause) => Problem::Blamed(*pause),
        NoSession::Lost(end) => Problem::StartFailed(Fault::Ended(*end)),
        NoSession::Spawn { error, resource } => {
            if let Some(count) = SPAWN_FAILURES.take() {
                warn!(
                    event = "child.spawn_failed",
                    error = error.to_string(),
                    resource,
                    count,
                    hint = resource.then_some(
                        "processes, open files or memory are used up: raise those limits, or lower --max-sessions"
                    ),
                    "the server cannot be started"
                );
            }
            Problem::Spawn { resource: *resource }
        }
    }
}
