//! The HTTP+SSE transport of 2024-11-05 (`basic/transports`), for clients that never moved: `GET /sse` opens a stream
//! whose first event says where to post, and every answer comes on that stream. On the same sessions as the endpoint
//! proper; a session ends with its stream, because there is no other way to name it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::body::{Body, Joined, MergedStream};
use super::reply::{Problem, empty};
use super::{Refused, event_stream, no_session, parse_one};
use crate::proto::ids::{ClientId, SessionId};
use crate::proto::machine::Refusal;
use crate::proto::message::Kind;
use crate::session::reader::Delivery;
use crate::session::{End, Posted, Session};
use crate::sessions::Sessions;

/// Where a client begins.
pub(super) const SSE: &str = "/sse";

/// Where it posts.
pub(super) const MESSAGE: &str = "/message";

/// How long a stream may be open before its client sends `initialize`.
const PATIENCE: Duration = Duration::from_secs(60);

/// The open streams.
#[derive(Debug, Default)]
pub(super) struct Compat(Arc<Mutex<Open>>);

type Open = HashMap<SessionId, Arc<Connection>>;

#[derive(Debug)]
struct Connection {
    readers: mpsc::UnboundedSender<Joined>,
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
        sessions: &Arc<Sessions>,
        keep_alive: Duration,
    ) -> Result<Response<Body>, Problem> {
        if parts.method != Method::GET {
            return Err(Problem::Method("GET"));
        }
        if !super::guard::accepts(&parts.headers).stream {
            return Err(Problem::NotAcceptableForGet);
        }
        if !sessions.is_ready() {
            return Err(Problem::Draining);
        }
        let id = sessions.new_id().map_err(|error| no_session(&error))?;
        let (readers, coming) = mpsc::unbounded_channel();
        let connection = Arc::new(Connection { readers, state: Mutex::new(State::Fresh) });
        lock(&self.0).insert(id.clone(), connection);
        let endpoint = format!("{MESSAGE}?sessionId={}", id.as_str());
        let owner = Owner { id: id.clone(), open: Arc::clone(&self.0), sessions: Arc::clone(sessions) };
        tokio::spawn(forget_if_unused(id, Arc::downgrade(&self.0)));
        let stream = MergedStream::new(&endpoint, coming, keep_alive, Box::new(owner));
        Ok(event_stream(Body::Merged(Box::new(stream))))
    }

    /// Takes one message of a client; its answer comes on the client's stream.
    ///
    /// # Errors
    /// The refusal.
    pub(super) async fn post(
        &self,
        parts: &Parts,
        body: Bytes,
        sessions: &Arc<Sessions>,
    ) -> Result<Response<Body>, Refused> {
        let connection = self.find(parts).ok_or((Problem::SessionNotFound(None), None))?;
        let message = parse_one(body)?;
        let id = message.id();
        let request = message.kind() == Kind::Request;
        let initialize = request && message.method() == "initialize";
        // Taken out of the lock in one step: two initializes at once must not start two sessions.
        let state = {
            let mut state = lock(&connection.state);
            let before = state.clone();
            if initialize && matches!(before, State::Fresh) {
                *state = State::Starting;
            }
            before
        };
        let session = match (state, initialize) {
            (State::Fresh, true) => {
                return match sessions.start(message, true).await {
                    Ok((session, reader)) => {
                        let joined = [
                            Some(Joined { reader, id, main: false }),
                            session.listen(None).await.ok().map(|reader| Joined {
                                reader,
                                id: None,
                                main: true,
                            }),
                        ];
                        for joined in joined.into_iter().flatten() {
                            let _ = connection.readers.send(joined); // the stream may have closed meanwhile
                        }
                        *lock(&connection.state) = State::Open(session.clone());
                        if connection.readers.is_closed() {
                            sessions.end(&session, End::Disconnected);
                        }
                        Ok(empty(StatusCode::ACCEPTED))
                    }
                    Err(error) => {
                        *lock(&connection.state) = State::Fresh;
                        Err((no_session(&error), id))
                    }
                };
            }
            (State::Starting | State::Open(_), true) => {
                let refusal = id.clone().map(|id| Refusal::AlreadyInitialized(ClientId(id)));
                return Err((refusal.map_or(Problem::SessionRequired, Problem::Refused), id));
            }
            (State::Open(session), false) => session,
            (State::Fresh | State::Starting, false) => {
                return Err((Problem::Invalid("initialize comes first"), id));
            }
        };
        let gone = |end| (Problem::SessionNotFound(Some(end)), None);
        let reader = session.post(Posted::One(message), None, true).await.map_err(gone)?;
        if request {
            let _ = connection.readers.send(Joined { reader, id, main: false });
            return Ok(empty(StatusCode::ACCEPTED));
        }
        match reader.next().await {
            Some(Delivery::Accepted) => Ok(empty(StatusCode::ACCEPTED)),
            Some(Delivery::Refused(refusal)) => Err((Problem::Refused(refusal), None)),
            Some(Delivery::Gone(end)) => Err(gone(end)),
            _ => Err((Problem::SessionNotFound(None), None)),
        }
    }

    fn find(&self, parts: &Parts) -> Option<Arc<Connection>> {
        let query = parts.uri.query()?;
        let id = query.split('&').find_map(|pair| pair.strip_prefix("sessionId="))?;
        lock(&self.0).get(&SessionId::parse(id)?).cloned()
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
