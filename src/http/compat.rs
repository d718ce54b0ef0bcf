//! The HTTP+SSE transport of 2024-11-05 (`basic/transports`), for clients that never moved: `GET /sse` opens a stream
//! whose first event says where to post, and every answer comes on that stream. On the same sessions as the endpoint
//! proper; a session ends with its stream, because there is no other way to name it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::answer::event_stream;
use super::body::{Body, Joined, MergedStream};
use super::reply::{Problem, empty};
use super::{Refused, no_session, parse_one};
use crate::proto::front::{Refusal, Takes};
use crate::proto::ids::{ClientId, SessionId};
use crate::proto::message::{Message, Request};
use crate::secret::Digest;
use crate::session::stream::Delivery;
use crate::session::{BodyPermit, End, Posted, Session};
use crate::sessions::{Opening, Sessions};

/// Where a client begins.
pub(super) const SSE: &str = "/sse";

/// Where it posts.
pub(super) const MESSAGE: &str = "/message";

/// How long a stream may be open before its client sends `initialize`.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many readers may wait to join a stream. A client that does not read its stream waits with its posts.
const JOINING: usize = 4;

/// The open streams.
#[derive(Debug, Default)]
pub(super) struct Compat(Arc<Mutex<Open>>);

type Open = HashMap<SessionId, Arc<Connection>>;

#[derive(Debug)]
pub(super) struct Connection {
    /// Whose it is.
    owner: Option<Digest>,
    readers: mpsc::Sender<Joined>,
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
enum State {
    Fresh,
    Starting,
    Open(Session),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Compat {
    /// Opens a stream.
    ///
    /// # Errors
    /// [`Problem`].
    pub(super) fn open(
        &self,
        parts: &Parts,
        owner: Option<Digest>,
        sessions: &Arc<Sessions>,
        keep_alive: Duration,
    ) -> Result<Response<Body>, Problem> {
        if parts.method != Method::GET {
            return Err(Problem::Method("GET"));
        }
        if !super::guard::accepts(&parts.headers).stream {
            return Err(Problem::NotAcceptableForGet);
        }
        if !sessions.is_taking() {
            return Err(Problem::Draining);
        }
        let id = sessions.new_id().map_err(|error| no_session(&error))?;
        let (readers, coming) = mpsc::channel(JOINING);
        let connection = Arc::new(Connection { owner, readers, state: Mutex::new(State::Fresh) });
        lock(&self.0).insert(id.clone(), connection);
        let endpoint = format!("{MESSAGE}?sessionId={}", id.as_str());
        let owner = Owner { id: id.clone(), open: Arc::clone(&self.0), sessions: Arc::clone(sessions) };
        tokio::spawn(forget_if_unused(id, Arc::downgrade(&self.0)));
        let stream = MergedStream::new(&endpoint, coming, keep_alive, Box::new(owner));
        Ok(event_stream(Body::Merged(Box::new(stream))))
    }

    /// Ends the streams of clients that have not sent `initialize`.
    pub(super) fn close_fresh(&self) {
        lock(&self.0).retain(|_, connection| !matches!(*lock(&connection.state), State::Fresh));
    }

    /// The connection that a POST is for, and its session if it has one.
    ///
    /// # Errors
    /// [`Problem::SessionNotFound`].
    pub(super) fn find(
        &self,
        parts: &Parts,
        caller: Option<Digest>,
    ) -> Result<(Option<Session>, Arc<Connection>), Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let id = query.split('&').find_map(|pair| pair.strip_prefix("sessionId=")).and_then(SessionId::parse);
        let connection = id.and_then(|id| lock(&self.0).get(&id).cloned());
        let connection = connection.filter(|connection| connection.owner == caller);
        let connection = connection.ok_or(Problem::SessionNotFound(None))?;
        let session = match &*lock(&connection.state) {
            State::Open(session) => Some(session.clone()),
            State::Fresh | State::Starting => None,
        };
        Ok((session, connection))
    }
}

/// Takes one message of a client; its answer comes on the client's stream.
///
/// # Errors
/// The refusal.
pub(super) async fn post(
    connection: &Connection,
    body: Bytes,
    room: Option<BodyPermit>,
    environment: Result<Vec<(OsString, OsString)>, Problem>,
    sessions: &Arc<Sessions>,
    arrived: Instant,
) -> Result<Response<Body>, Refused> {
    let message = parse_one(body)?;
    let id = message.id().cloned();
    let message = match message {
        Message::Request(request) if request.method() == "initialize" => {
            let environment = environment.map_err(|problem| (problem, id.clone()))?;
            let answered = initialize(connection, request, environment, sessions).await;
            return answered.map_err(|problem| (problem, id));
        }
        message => message,
    };
    let request = message.request().is_some();
    let session = match &*lock(&connection.state) {
        State::Open(session) => session.clone(),
        State::Fresh | State::Starting => return Err((Problem::Invalid("initialize comes first"), id)),
    };
    let gone = |end| (Problem::SessionNotFound(Some(end)), None);
    // A place for the answer first: what the client does not read it may not ask for.
    let place = if request { connection.readers.reserve().await.ok() } else { None };
    let reader = session.post(Posted::One(message), room, Takes::Events, arrived).await.map_err(gone)?;
    if let Some(place) = place {
        place.send(Joined { reader, id, main: false });
        return Ok(empty(StatusCode::ACCEPTED));
    }
    match reader.next().await {
        Some(Delivery::Accepted) => Ok(empty(StatusCode::ACCEPTED)),
        Some(Delivery::Refused(refusal)) => Err((Problem::Refused(refusal), None)),
        Some(Delivery::Gone(end)) => Err(gone(end)),
        Some(Delivery::NotForwarded(limit)) => Err((Problem::NotForwarded(limit), None)),
        _ => Err((Problem::SessionNotFound(None), None)),
    }
}

/// Starts the session of a connection.
async fn initialize(
    connection: &Connection,
    request: Request,
    environment: Vec<(OsString, OsString)>,
    sessions: &Arc<Sessions>,
) -> Result<Response<Body>, Problem> {
    let id = request.id().clone();
    // In one step: two initializes at once must not start two sessions.
    let before = std::mem::replace(&mut *lock(&connection.state), State::Starting);
    if !matches!(before, State::Fresh) {
        *lock(&connection.state) = before;
        return Err(Problem::Refused(Refusal::AlreadyInitialized(ClientId(id))));
    }
    // If the client leaves while it waits for a place it may try again.
    let mut starting = Starting { connection, started: false };
    let (takes, owner) = (Takes::Events, connection.owner);
    let opening = Opening { initialize: request, takes, owner, environment };
    let (session, reader) = sessions.start(opening).await.map_err(|error| no_session(&error))?;
    *lock(&connection.state) = State::Open(session.clone());
    starting.started = true;
    let _ = connection.readers.send(Joined { reader, id: Some(id), main: false }).await;
    if let Ok(reader) = session.listen(None).await {
        let _ = connection.readers.send(Joined { reader, id: None, main: true }).await;
    }
    if connection.readers.is_closed() {
        sessions.end(&session, End::Disconnected); // the stream closed meanwhile
    }
    Ok(empty(StatusCode::ACCEPTED))
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

/// Ends the stream of a client that says nothing.
async fn forget_if_unused(id: SessionId, open: Weak<Mutex<Open>>) {
    sleep(PATIENCE).await;
    let Some(open) = open.upgrade() else { return };
    let mut open = lock(&open);
    if open.get(&id).is_some_and(|connection| matches!(*lock(&connection.state), State::Fresh)) {
        open.remove(&id); // the last sender of its readers: the stream ends
    }
}

/// Goes with the stream, and the session with it.
struct Owner {
    id: SessionId,
    open: Arc<Mutex<Open>>,
    sessions: Arc<Sessions>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Some(connection) = lock(&self.open).remove(&self.id) else { return };
        if let State::Open(session) = &*lock(&connection.state) {
            self.sessions.end(session, End::Disconnected);
        }
    }
}
