//! The session era (2025-03-26 to 2025-11-25, `basic/transports`): what POSTs carry, GET and DELETE of the endpoint.

use std::collections::VecDeque;
use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::time::Instant;

use super::answer::{Answers, Form};
use super::body::Bodies;
use super::head::{self, Accepts, Asked, Head, Kept, MCP_SESSION_ID, Named};
use super::keyed::{Keyed, Share};
use super::opening::{Place, Unclaimed, begin};
use super::problem::Problem;
use super::response::{Body, Rejection, empty, event_stream};
use super::sharing::Sharing;
use super::sse::EventStream;
use crate::proto::ids::Id;
use crate::proto::message::Message;
use crate::proto::version::Era;
use crate::secret::Digest;
use crate::session::stream::{Delivery, Payload};
use crate::session::{BodyPermit, End, NotTaken, Posted, Session};
use crate::sessions::{Found, Opening, Sessions};

/// Says that a session was opened for this request.
const MCP_BRIDGE_SESSION: HeaderName = HeaderName::from_static("mcp-bridge-session");

/// What is offered to a request that names no session: there is nothing to listen to and nothing to end.
const METHODS_WITHOUT_SESSION: &str = "POST, OPTIONS";

/// The endpoint, as the session era has it.
#[derive(Debug)]
pub(super) struct Legacy {
    pub(super) sessions: Arc<Sessions>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) answers: Answers,
    pub(super) sharing: Sharing,
    pub(super) env_from_header: Arc<[(String, HeaderName)]>,
}

/// Where a POST goes.
pub(super) enum Target {
    /// To the session that it names.
    Session(Session),
    /// To the session of a key; `None`: that is still to be opened.
    Key(Keyed, Option<Session>),
    /// The same, but for `initialize`, which opens a session with an id beside it.
    KeyOrNew(Keyed, Option<Session>),
    /// To none: only `initialize` is served, and where.
    None(Result<Place, Problem>),
    /// To the session that it names, which is not here: why it is refused.
    Lost(Problem),
}

impl Target {
    pub(super) fn session(&self) -> Option<&Session> {
        match self {
            Self::Session(session) => Some(session),
            Self::Key(_, session) | Self::KeyOrNew(_, session) => session.as_ref(),
            Self::None(_) | Self::Lost(_) => None,
        }
    }
}

/// Why a POST within a session has no answer of the session.
enum Failure {
    /// The session ended before it took what was posted, and gave it back: it can be posted to another one.
    NotTaken(NotTaken),
    /// Refused, or lost after it was taken.
    Rejected(Rejection),
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Failure> for Rejection {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotTaken(not_taken) => Problem::SessionEnded(not_taken.why).into(),
            Failure::Rejected(rejection) => rejection,
        }
    }
}

impl Legacy {
    /// Answers what a POST carries.
    pub(super) async fn post(
        &self,
        head: &Kept,
        target: Target,
        posted: Posted,
        permit: BodyPermit,
        accepts: Accepts,
    ) -> Result<Response<Body>, Rejection> {
        match target {
            Target::Session(session) => Ok(self.post_to(&session, head, posted, permit, accepts).await?),
            Target::KeyOrNew(keyed, _) if opens(&posted) => {
                self.post_without_session(head, Ok(keyed.place), posted, permit, accepts).await
            }
            Target::Key(keyed, found) | Target::KeyOrNew(keyed, found) => {
                self.post_keyed(&keyed, found, head, posted, permit, accepts).await
            }
            Target::None(place) => self.post_without_session(head, place, posted, permit, accepts).await,
            Target::Lost(problem) => Err(problem.into()),
        }
    }

    /// Where a POST goes, by its head.
    ///
    /// # Errors
    /// What can be refused without the body.
    pub(super) fn target(&self, head: &Head<'_>) -> Result<Target, Problem> {
        let named = head::session(head.headers)?;
        let lost = match &named {
            Named::None => None,
            named => match self.find(named, head.caller) {
                Ok(session) => return Ok(Target::Session(session)),
                Err(Problem::SessionNotFound) if self.is_as_none(named) => Some(Problem::SessionNotFound),
                Err(problem) => return Err(problem),
            },
        };
        let keyed = Keyed::of(&self.sharing, head, &self.env_from_header)?;
        let find = |keyed: &Keyed| self.sessions.find_keyed(keyed.key);
        match (keyed, lost) {
            (Some(keyed), None) if self.sharing.share != Share::None => {
                let session = find(&keyed);
                Ok(Target::KeyOrNew(keyed, session))
            }
            (Some(keyed), _) => {
                let session = find(&keyed);
                Ok(Target::Key(keyed, session))
            }
            (None, Some(lost)) => Err(lost),
            (None, None) => Ok(Target::None(Place::of(&self.sharing, head, &self.env_from_header))),
        }
    }

    /// Whether an id that names no session is as good as none. Platforms put one of their own on every request. A session
    /// of a key has no id, so that no client waits for a 404 to begin anew; where there are others beside it, clients may.
    fn is_as_none(&self, named: &Named) -> bool {
        let may_be_ours = matches!(named, Named::Id(id) if id.is_random());
        self.sharing.session_key.is_some() && (self.sharing.share == Share::None || !may_be_ours)
    }

    async fn post_to(
        &self,
        session: &Session,
        head: &Kept,
        posted: Posted,
        permit: BodyPermit,
        accepts: Accepts,
    ) -> Result<Response<Body>, Failure> {
        let id = request_id(&posted);
        let opens = opens(&posted);
        head.asked.check(session.negotiated()).map_err(|problem| problem.about(id.as_ref()))?;
        let posting = session.post(posted, Some(permit), accepts.takes(), head.arrived);
        let reader = posting.await.map_err(Failure::NotTaken)?;
        let form = match opens {
            true => self.answers.form_of_opening(&reader, accepts, Instant::now()).await,
            false => self.answers.form(&reader, accepts).await,
        };
        match form {
            Form::NotTaken(not_taken) => Err(Failure::NotTaken(not_taken)),
            _ if opens
                && session.negotiated().is_none()
                && let Some(Payload::Fault { fault, .. }) = reader.look(last_event) =>
            {
                Err(Problem::StartFailed(fault).about(id.as_ref()).into())
            }
            form => Ok(self.answers.respond(session, reader, form, accepts, id)?),
        }
    }

    /// A POST to the session of a key, which is opened if need be.
    async fn post_keyed(
        &self,
        keyed: &Keyed,
        found: Option<Session>,
        head: &Kept,
        posted: Posted,
        permit: BodyPermit,
        accepts: Accepts,
    ) -> Result<Response<Body>, Rejection> {
        let (session, permit, mut is_new) = match (found, &posted) {
            (Some(session), _) => (session, permit, false),
            (None, Posted::One(message)) => {
                let (session, permit) = self.open(keyed, head, message, permit).await?;
                (session, permit, true)
            }
            (None, Posted::Batch(_)) => return Err(Problem::SessionRequired.into()),
        };
        let mut response = match self.post_to(&session, head, posted, permit, accepts).await {
            // Its client named a key and no session: in place of one that has ended it gets a new one.
            Err(Failure::NotTaken(NotTaken { posted, why })) => match *posted {
                Posted::One(message) => {
                    let permit = self.bodies.take_anonymous(head, message.text().len()).await?;
                    let (session, permit) = self.open(keyed, head, &message, permit).await?;
                    is_new = true;
                    self.post_to(&session, head, Posted::One(message), permit, accepts).await?
                }
                Posted::Batch(_) => return Err(Problem::SessionEnded(why).into()),
            },
            answered => answered?,
        };
        if is_new {
            // Its state begins here, and its client has no id whose loss would tell.
            response.headers_mut().insert(MCP_BRIDGE_SESSION, HeaderValue::from_static("new"));
        }
        Ok(response)
    }

    /// Opens the session of a key, and moves the body of its first message into the session's budget.
    async fn open(
        &self,
        keyed: &Keyed,
        head: &Kept,
        first: &Message,
        permit: BodyPermit,
    ) -> Result<(Session, BodyPermit), Rejection> {
        let session = keyed.open(&self.sessions, head, first).await?;
        drop(permit); // first: who waits for a session's memory must not hold up those who have none
        let permit = self.bodies.take(head, &session, first.text().len()).await?;
        Ok((session, permit))
    }

    /// A POST without a session: `initialize` opens one, and nothing else is served.
    async fn post_without_session(
        &self,
        head: &Kept,
        place: Result<Place, Problem>,
        posted: Posted,
        permit: BodyPermit,
        accepts: Accepts,
    ) -> Result<Response<Body>, Rejection> {
        let Posted::One(message) = posted else { return Err(Problem::SessionRequired.into()) };
        let initialize = match message {
            Message::Request(request) if request.method() == "initialize" => request,
            message => return Err(Problem::SessionRequired.about(message.id())),
        };
        let id = initialize.id().clone();
        let (takes, owner) = (accepts.takes(), head.caller);
        let Place { server, environment } = place.map_err(|problem| problem.about(Some(&id)))?;
        let era = self.sessions.known_era().unwrap_or(Era::Legacy);
        let opening = Opening { initialize, takes, owner, environment, era, server };
        let (began, patience) = (Instant::now(), self.answers.keep_alive);
        // Boxed: each connection has room for the largest future that may come on it.
        let begun = Box::pin(begin(&self.sessions, &self.bodies, head, opening, permit, patience)).await;
        let (session, reader) = begun.map_err(|problem| problem.about(Some(&id)))?;
        let unclaimed = Unclaimed::new(&self.sessions, &session);
        let form = self.answers.form_of_opening(&reader, accepts, began).await;
        let opened = match reader.look(last_event) {
            Some(Payload::Fault { fault, .. }) => {
                return Err(Problem::StartFailed(fault).about(Some(&id)));
            }
            Some(Payload::Answer { success, .. }) => success,
            Some(Payload::Message(_)) => true,
            None => matches!(form, Form::Stream),
        };
        let mut response = self.answers.respond(&session, reader, form, accepts, Some(id))?;
        unclaimed.claim();
        if opened && let Ok(value) = HeaderValue::from_str(session.id().as_str()) {
            response.headers_mut().insert(MCP_SESSION_ID, value);
        }
        Ok(response)
    }

    /// Answers a GET: a stream of what the child sends unasked, or of what followed an event.
    pub(super) async fn get(&self, head: &Head<'_>) -> Result<Response<Body>, Rejection> {
        let named = named(head)?;
        if !head::accepts(head.headers).stream {
            return Err(Problem::NotAcceptableForGet.into());
        }
        let session = self.named(&named, head)?;
        Asked::of(head.headers).check(session.negotiated())?;
        let after = head::last_event_id(head.headers)?;
        let reader = session.listen(after).await.map_err(Problem::SessionEnded)?;
        match reader.next().await {
            Some(Delivery::Accepted) => {}
            Some(Delivery::NoReplay) => return Err(Problem::NoReplay.into()),
            Some(Delivery::Gone(end)) => return Err(Problem::SessionEnded(end).into()),
            _ => return Err(ended(&session).into()),
        }
        let prime = if after.is_none() && self.answers.primes(&session) { reader.position() } else { None };
        let stream = EventStream::new(reader, self.answers.keep_alive, prime, None);
        Ok(event_stream(Body::Stream(Box::new(stream))))
    }

    /// Answers a DELETE: the session ends.
    pub(super) fn delete(&self, head: &Head<'_>) -> Result<Response<Body>, Rejection> {
        let session = self.named(&named(head)?, head)?;
        Asked::of(head.headers).check(session.negotiated())?;
        self.sessions.end(&session, End::Deleted);
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// The session that a GET or DELETE is for. With keys a foreign id is as good as none, as it is for POST.
    fn named(&self, named: &Named, head: &Head<'_>) -> Result<Session, Problem> {
        self.find(named, head.caller).map_err(|problem| match problem {
            Problem::SessionNotFound if self.is_as_none(named) => Problem::Method(METHODS_WITHOUT_SESSION),
            problem => problem,
        })
    }

    fn find(&self, named: &Named, caller: Option<Digest>) -> Result<Session, Problem> {
        let Named::Id(id) = named else { return Err(Problem::SessionNotFound) };
        match self.sessions.find(id, caller) {
            Found::Live(session) => Ok(session),
            Found::Ended(end) => Err(Problem::SessionEnded(end)),
            Found::Unknown => Err(Problem::SessionNotFound),
        }
    }
}

/// Why a session has given no answer at all.
pub(super) fn ended(session: &Session) -> Problem {
    session.end_reason().map_or(Problem::SessionNotFound, Problem::SessionEnded)
}

/// The session that a GET or DELETE must name.
fn named(head: &Head<'_>) -> Result<Named, Problem> {
    match head::session(head.headers)? {
        Named::None => Err(Problem::Method(METHODS_WITHOUT_SESSION)),
        named => Ok(named),
    }
}

/// The last event that waits: where `initialize` has been answered, the answer.
fn last_event(waiting: &VecDeque<Delivery>) -> Option<Payload> {
    waiting.iter().rev().find_map(|delivery| match delivery {
        Delivery::Event(event) => Some(event.payload.clone()),
        _ => None,
    })
}

fn request_id(posted: &Posted) -> Option<Id> {
    match posted {
        Posted::One(message) => message.request().map(|request| request.id().clone()),
        Posted::Batch(_) => None,
    }
}

fn opens(posted: &Posted) -> bool {
    matches!(posted, Posted::One(message) if is_initialize(message))
}

/// Whether the message opens a session.
pub(super) fn is_initialize(message: &Message) -> bool {
    message.request().is_some_and(|request| request.method() == "initialize")
}
