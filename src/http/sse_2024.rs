//! The HTTP+SSE transport of 2024-11-05 (`basic/transports`), for clients that know no later one: `GET /sse` opens a stream
//! whose first event says where to post, and every answer comes on that stream. Its sessions are of the same kind as
//! the endpoint's; each ends with its stream, because no header names it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use super::body::{Bodies, parse_one};
use super::guard;
use super::head::{self, Head, Kept};
use super::legacy::ended;
use super::opening::{Place, begin, not_started};
use super::problem::Problem;
use super::response::{Body, Rejection, empty, event_stream};
use super::route::MESSAGE;
use super::sharing::Sharing;
use super::sse::{self, Member, MergedStream};
use crate::proto::front::{Refusal, Takes};
use crate::proto::ids::{ClientId, SessionId};
use crate::proto::message::{Message, Request};
use crate::proto::version::Era;
use crate::secret::Digest;
use crate::session::stream::Delivery;
use crate::session::{BodyPermit, End, NotTaken, Posted, Session};
use crate::sessions::{Opening, Sessions};
use crate::sync::lock;

/// How long a stream may be open before its client sends `initialize`.
const UNUSED_LIMIT: Duration = Duration::from_secs(60);

/// How many readers may wait to join a stream. The POSTs of a client that does not read its stream wait, too.
const JOINING: usize = 4;

/// The old transport.
#[derive(Debug)]
pub(super) struct Sse2024 {
    sessions: Arc<Sessions>,
    bodies: Arc<Bodies>,
    sharing: Sharing,
    env_from_header: Arc<[(String, HeaderName)]>,
    keep_alive: Duration,
    connections: Arc<Mutex<Connections>>,
}

/// The open streams, by the name under which their clients post.
type Connections = HashMap<SessionId, Arc<Connection>>;

#[derive(Debug)]
struct Connection {
    owner: Option<Digest>,
    readers: mpsc::Sender<Member>,
    state: Mutex<State>,
}

/// A POST whose head has been read, and whose body has not.
pub(super) struct Posting {
    head: Kept,
    session: Option<Session>,
    connection: Arc<Connection>,
    /// Where `initialize` opens a session; `None`: it has one.
    place: Option<Result<Place, Problem>>,
}

#[derive(Clone, Debug)]
enum State {
    /// Its client has not sent `initialize`.
    Fresh,
    /// The session is being started.
    Starting,
    /// It has a session.
    Open(Session),
}

impl Sse2024 {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        bodies: Arc<Bodies>,
        sharing: Sharing,
        env_from_header: Arc<[(String, HeaderName)]>,
        keep_alive: Duration,
    ) -> Self {
        Self { sessions, bodies, sharing, env_from_header, keep_alive, connections: Arc::default() }
    }

    /// Opens a stream.
    pub(super) fn open(&self, head: &Head<'_>) -> Result<Response<Body>, Rejection> {
        if !head::accepts(head.headers).stream {
            return Err(Problem::NotAcceptableForGet.into());
        }
        if !self.sessions.is_taking() {
            return Err(Problem::Draining.into());
        }
        let id = self.sessions.new_id().map_err(|error| not_started(&error))?;
        let (readers, coming) = mpsc::channel(JOINING);
        let connection =
            Arc::new(Connection { owner: head.caller, readers, state: Mutex::new(State::Fresh) });
        // Relative to where the client opened the stream: a proxy in front may have taken a part of the path away.
        let endpoint = format!("{}?sessionId={}", MESSAGE.trim_start_matches('/'), id.as_str());
        lock(&self.connections).insert(id.clone(), connection);
        let owner =
            Owner { id, connections: Arc::clone(&self.connections), sessions: Arc::clone(&self.sessions) };
        let stream = MergedStream::new(&endpoint, coming, self.keep_alive, UNUSED_LIMIT, Box::new(owner));
        Ok(event_stream(Body::Merged(Box::new(stream))))
    }

    /// Ends the streams of clients that have not sent `initialize`.
    pub(super) fn close_fresh(&self) {
        lock(&self.connections).retain(|_, connection| !matches!(*lock(&connection.state), State::Fresh));
    }

    /// Ends the streams of all callers but these, as far as they have no session that does.
    pub(super) fn keep_callers(&self, callers: &[Digest]) {
        let is_caller = |owner: &Option<Digest>| owner.is_none_or(|owner| callers.contains(&owner));
        lock(&self.connections).retain(|_, connection| {
            is_caller(&connection.owner) || !matches!(*lock(&connection.state), State::Fresh)
        });
    }

    /// The connection that a POST is for, and its session if it has one.
    fn find(&self, head: &Head<'_>) -> Result<(Option<Session>, Arc<Connection>), Problem> {
        let query = head.query.unwrap_or_default();
        let mut ids = query.split('&').filter_map(|pair| pair.strip_prefix("sessionId="));
        let id = ids.next().and_then(SessionId::parse).filter(|_| ids.next().is_none());
        let connection = id.and_then(|id| lock(&self.connections).get(&id).cloned());
        let connection = connection.filter(|connection| connection.owner == head.caller);
        let connection = connection.ok_or(Problem::SessionNotFound)?;
        let session = match &*lock(&connection.state) {
            State::Open(session) => Some(session.clone()),
            State::Fresh | State::Starting => None,
        };
        Ok((session, connection))
    }

    /// Reads the head of a POST.
    ///
    /// # Errors
    /// What can be refused without the body.
    pub(super) fn posting(&self, head: &Head<'_>) -> Result<Posting, Problem> {
        guard::check_body_head(head.headers, self.bodies.max())?;
        let (session, connection) = self.find(head)?;
        let place = match session {
            Some(_) => None,
            None => Some(Place::of(&self.sharing, head, &self.env_from_header)),
        };
        Ok(Posting { head: head.keep(), session, connection, place })
    }

    /// Takes one message of a client; its answer comes on the client's stream.
    pub(super) async fn post(&self, posting: Posting, body: Incoming) -> Result<Response<Body>, Rejection> {
        let Posting { head, session: known, connection, place } = posting;
        let head = &head;
        let (body, permit) = self.bodies.read(head, body, known.as_ref()).await?;
        let message = parse_one(body)?;
        let message = match message {
            Message::Request(request) if request.method() == "initialize" => {
                let id = request.id().clone();
                let initialized = self.initialize(head, &connection, place, request, permit).await;
                return initialized.map_err(|problem| problem.about(Some(&id)));
            }
            message => message,
        };
        let id = message.request().map(|request| request.id().clone());
        let session = match &*lock(&connection.state) {
            State::Open(session) => session.clone(),
            State::Fresh | State::Starting => {
                return Err(Problem::Invalid("initialize comes first").about(message.id()));
            }
        };
        let permit = match known {
            Some(_) => permit,
            None => {
                drop(permit); // first: who waits for a session's memory must not hold up those who have none
                self.bodies.take(head, &session, message.text().len()).await?
            }
        };
        // A place for the answer first: a client that does not read its stream must not fill it.
        let place = match id.is_some() {
            true => self.bodies.in_time(head, connection.readers.reserve()).await?.ok(),
            false => None,
        };
        let posting = session.post(Posted::One(message), Some(permit), Takes::Events, head.arrived);
        let reader = posting.await.map_err(|not_taken| Problem::SessionEnded(not_taken.why))?;
        if let Some(place) = place {
            place.send(Member::new(reader, id, false));
            return Ok(empty(StatusCode::ACCEPTED));
        }
        match reader.next().await {
            Some(Delivery::Accepted) => Ok(empty(StatusCode::ACCEPTED)),
            Some(Delivery::Refused(refusal)) => Err(Problem::Refused(refusal).into()),
            Some(Delivery::NotForwarded(limit)) => Err(Problem::NotForwarded(limit).into()),
            Some(Delivery::NotTaken(NotTaken { why, .. })) => Err(Problem::SessionEnded(why).into()),
            _ => Err(ended(&session).into()),
        }
    }

    /// Starts the session of a connection.
    async fn initialize(
        &self,
        head: &Kept,
        connection: &Connection,
        place: Option<Result<Place, Problem>>,
        initialize: Request,
        permit: BodyPermit,
    ) -> Result<Response<Body>, Problem> {
        let id = initialize.id().clone();
        let again = || Problem::Refused(Refusal::AlreadyInitialized(ClientId(id.clone())));
        let Place { server, environment } = place.ok_or_else(again)??;
        // In one step: two initializes at once must not start two sessions.
        let before = std::mem::replace(&mut *lock(&connection.state), State::Starting);
        if !matches!(before, State::Fresh) {
            *lock(&connection.state) = before;
            return Err(again());
        }
        // A client that closes the POST while it waits for a session may post again.
        let mut starting = Starting { connection, started: false };
        let (takes, owner) = (Takes::Events, connection.owner);
        let era = self.sessions.known_era().unwrap_or(Era::Legacy);
        let opening = Opening { initialize, takes, owner, environment, era, server };
        let (session, reader) =
            begin(&self.sessions, &self.bodies, head, opening, permit, self.keep_alive).await?;
        *lock(&connection.state) = State::Open(session.clone());
        starting.started = true;
        let listening = session.listen(None).await;
        // Where the session has ended already its stream does, with what `initialize` has got.
        let _ = connection.readers.send(Member::new(reader, Some(id.clone()), listening.is_err())).await;
        if let Ok(reader) = listening {
            let _ = connection.readers.send(Member::new(reader, None, true)).await;
        }
        if connection.readers.is_closed() {
            self.sessions.end(&session, End::Disconnected); // the stream closed meanwhile
        }
        Ok(empty(StatusCode::ACCEPTED))
    }
}

/// Makes a connection fresh again if its session did not start.
struct Starting<'c> {
    connection: &'c Connection,
    started: bool,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if !self.started {
            *lock(&self.connection.state) = State::Fresh;
        }
    }
}

/// What a stream belongs to: the connection goes with the stream, and the session with the connection.
struct Owner {
    id: SessionId,
    connections: Arc<Mutex<Connections>>,
    sessions: Arc<Sessions>,
}

impl sse::Owner for Owner {
    fn is_unused(&self) -> bool {
        let connections = lock(&self.connections);
        connections.get(&self.id).is_none_or(|connection| matches!(*lock(&connection.state), State::Fresh))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Some(connection) = lock(&self.connections).remove(&self.id) else { return };
        if let State::Open(session) = &*lock(&connection.state) {
            self.sessions.end(session, End::Disconnected);
        }
    }
}
