//! Which request means what: Streamable HTTP (2025-03-26 to 2025-11-25, `basic/transports`) on top of sessions.
//!
//! The rule behind the status codes: once a request was handed to the child it may have happened, so its answer is
//! HTTP 200 with a JSON-RPC result or error, whatever went wrong. A status that a gateway would retry must not stand
//! for work that has been done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::proto::ids::{ClientId, EventId, Id, SessionId};
use crate::proto::machine::Refusal;
use crate::proto::message::{Kind, Malformed, Message, elements, find, is_array};
use crate::proto::version::Revision;
use crate::session::reader::{Delivery, Event, Reader, What};
use crate::session::{End, Posted, Room, Session};
use crate::sessions::{Found, NoSession, Sessions};

pub mod admin;
pub mod body;
mod compat;
pub mod guard;
pub mod reply;

use body::{Body, EventStream};
use compat::Compat;
use guard::{Accepts, MCP_PROTOCOL_VERSION, MCP_SESSION_ID, Trust};
use reply::{Problem, empty, json, refuse};

/// How many messages a batch may have: each costs more memory than its few bytes of the body.
const MAX_BATCH: usize = 1000;

/// What the endpoint offers within a session.
const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// What it offers to a request that names none: there is nothing to listen to and nothing to end.
const METHODS_ALONE: &str = "POST, OPTIONS";

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Config {
    /// The endpoint's path, without a trailing slash.
    pub path: String,
    /// Whom we answer.
    pub trust: Trust,
    /// The longest request body, in bytes.
    pub max_body: usize,
    /// How long an answer is waited for before the response begins as an event stream.
    pub sse_after: Duration,
    /// After how long without an event a stream gets a comment.
    pub keep_alive: Duration,
    /// Whether event streams begin with an event that carries only an id.
    pub prime: bool,
    /// Whether the transport of 2024-11-05 is offered beside the endpoint.
    pub sse_compat: bool,
}

/// The HTTP face of the bridge.
#[derive(Debug)]
pub struct Http {
    config: Config,
    sessions: Arc<Sessions>,
    /// Open streams of the old transport; `None` where it is not offered.
    compat: Option<Compat>,
}

/// A refusal and the id of the request it is about.
type Refused = (Problem, Option<Id>);

impl Http {
    /// The face of these sessions.
    pub fn new(config: Config, sessions: Arc<Sessions>) -> Self {
        let compat = config.sse_compat.then(Compat::default);
        Self { config, sessions, compat }
    }

    /// Ends what belongs to no session and would go on for ever: the bridge is stopping.
    pub fn drain(&self) {
        if let Some(compat) = &self.compat {
            compat.close_fresh();
        }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Some(response) = admin::answer(&parts, &self.sessions) {
            return response;
        }
        let origin = parts.headers.get(ORIGIN).cloned();
        let checked = self.check_head(&parts);
        let allowed = checked.is_ok();
        let answered = match checked {
            Err(problem) => Err((problem, None)),
            Ok(()) if self.is_compat(&parts) => self.compat(&parts, body).await,
            Ok(()) => match parts.method {
                Method::POST => self.post(&parts.headers, body).await,
                Method::GET => self.get(&parts.headers).await.map_err(|problem| (problem, None)),
                Method::DELETE => self.delete(&parts.headers).map_err(|problem| (problem, None)),
                Method::OPTIONS => Ok(options(&parts.headers)),
                _ => Err((Problem::Method(METHODS), None)),
            },
        };
        let mut response = answered.unwrap_or_else(|(problem, id)| {
            debug!(event = "http.refused", method = %parts.method, path = parts.uri.path(), ?problem);
            refuse(&problem, id.as_ref())
        });
        if let (true, Some(origin)) = (allowed, origin) {
            guard::add_cors(response.headers_mut(), origin);
        }
        response
    }

    /// From cheap to dear, and nothing about the body before we know who asks.
    fn check_head(&self, parts: &Parts) -> Result<(), Problem> {
        let path = parts.uri.path();
        if parts.method == Method::CONNECT || path == "*" {
            return Err(Problem::Method(METHODS)); // neither names a path
        }
        let ours = path == self.config.path
            || path.strip_suffix('/').is_some_and(|path| path == self.config.path)
            || (path == "/" && matches!(parts.method, Method::POST | Method::OPTIONS))
            || self.is_compat(parts);
        if !ours {
            return Err(Problem::Path(self.config.path.clone()));
        }
        let checked =
            self.config.trust.check_host(parts).and_then(|()| self.config.trust.check_origin(&parts.headers));
        if let Err(problem @ (Problem::Host(_) | Problem::Origin(_))) = &checked {
            warn!(event = "http.forbidden", reason = problem.row().reason, hint = %problem.row().message);
        }
        checked
    }

    fn is_compat(&self, parts: &Parts) -> bool {
        self.compat.is_some() && matches!(parts.uri.path(), compat::SSE | compat::MESSAGE)
    }

    async fn compat(&self, parts: &Parts, body: Incoming) -> Result<Response<Body>, Refused> {
        let alone = |problem| (problem, None);
        let Some(compat) = &self.compat else { return Err(alone(Problem::Path(self.config.path.clone()))) };
        if parts.method == Method::OPTIONS {
            return Ok(options(&parts.headers));
        }
        if parts.uri.path() == compat::SSE {
            return compat.open(parts, &self.sessions, self.config.keep_alive).map_err(alone);
        }
        if parts.method != Method::POST {
            return Err(alone(Problem::Method("POST, OPTIONS")));
        }
        guard::check_body_head(&parts.headers, self.config.max_body).map_err(alone)?;
        let (session, connection) = compat.find(parts).map_err(alone)?;
        let (body, room) = body::read(body, self.config.max_body, session.as_ref()).await.map_err(alone)?;
        compat::post(&connection, body, room, &self.sessions).await
    }

    async fn post(&self, headers: &HeaderMap, body: Incoming) -> Result<Response<Body>, Refused> {
        let accepts = guard::accepts(headers);
        if !accepts.json && !accepts.stream {
            return Err((Problem::NotAcceptable, None));
        }
        guard::check_body_head(headers, self.config.max_body).map_err(|problem| (problem, None))?;
        let named = guard::session_id(headers).map_err(|problem| (problem, None))?;
        // Before the body: whoever lost a session should not have to send it first.
        let session = match named {
            None => None,
            Some(id) => Some(self.find(id).map_err(|problem| (problem, None))?),
        };
        let read = body::read(body, self.config.max_body, session.as_ref()).await;
        let (body, room) = read.map_err(|problem| (problem, None))?;
        let posted = parse(&body, session.as_ref())?;
        match session {
            Some(session) => self.post_to(&session, headers, posted, room, accepts).await,
            None => self.post_alone(headers, posted, accepts).await,
        }
    }

    /// A POST within a session.
    async fn post_to(
        &self,
        session: &Session,
        headers: &HeaderMap,
        posted: Posted,
        room: Option<Room>,
        accepts: Accepts,
    ) -> Result<Response<Body>, Refused> {
        let id = request_id(&posted);
        guard::check_version(headers, session.negotiated()).map_err(|problem| (problem, id.clone()))?;
        if let Posted::One(message) = &posted
            && message.kind() == Kind::Request
            && message.method() == "initialize"
        {
            let refusal = message.id().map(|id| Refusal::AlreadyInitialized(ClientId(id)));
            return Err((refusal.map_or(Problem::SessionRequired, Problem::Refused), id));
        }
        let reader = session.post(posted, room, accepts.stream).await.map_err(gone)?;
        let first = self.first(&reader, accepts).await;
        self.answer(session, reader, first, accepts, id)
    }

    /// A POST without a session: `initialize` opens one, and nothing else is served.
    async fn post_alone(
        &self,
        headers: &HeaderMap,
        posted: Posted,
        accepts: Accepts,
    ) -> Result<Response<Body>, Refused> {
        let Posted::One(message) = posted else { return Err((Problem::SessionRequired, None)) };
        let id = message.id();
        let request = message.kind() == Kind::Request;
        if !(request && message.method() == "initialize") {
            return match (is_modern(headers, &message), request) {
                (true, true) => Err((Problem::Modern, id)),
                (true, false) => Ok(empty(StatusCode::ACCEPTED)),
                (false, _) => Err((Problem::SessionRequired, id)),
            };
        }
        let (session, reader) = match self.sessions.start(message, accepts.stream).await {
            Ok(started) => started,
            Err(error) => return Err((no_session(&error), id)),
        };
        let unclaimed = Unclaimed { sessions: &self.sessions, session: Some(&session) };
        let first = self.first(&reader, accepts).await;
        let started = match &first {
            First::Events { events, .. } => match events.last().map(|event| &event.what) {
                Some(What::Fault { fault, .. }) => return Err((Problem::StartFailed(fault.clone()), id)),
                Some(What::Answer { success, .. }) => *success,
                _ => true,
            },
            _ => false,
        };
        let mut response = self.answer(&session, reader, first, accepts, id)?;
        unclaimed.claim();
        if started && let Ok(value) = HeaderValue::from_str(session.id().as_str()) {
            response.headers_mut().insert(MCP_SESSION_ID, value);
        }
        Ok(response)
    }

    /// Waits for what decides the form of the answer: whole as JSON if it comes soon, a stream if it does not or if
    /// something else comes before it.
    async fn first(&self, reader: &Reader, accepts: Accepts) -> First {
        let soon = Instant::now() + self.config.sse_after;
        // Timers round up to a millisecond, which is long enough for an answer: zero must be said, not timed.
        let at_once = accepts.stream && self.config.sse_after.is_zero();
        let accepts = Accepts { json: accepts.json && !at_once, ..accepts };
        let mut events = Vec::new();
        loop {
            let next = if accepts.stream {
                match timeout_at(soon, reader.next()).await {
                    Ok(next) => next,
                    // The session may not have taken the message yet; until then it can still be refused.
                    Err(_) => match reader.next_or_attached().await {
                        None => return First::Events { events, complete: false },
                        Some(next) => next,
                    },
                }
            } else {
                reader.next().await
            };
            match next {
                Some(Delivery::Event(event)) => {
                    let (answer, last) = (event.what.is_answer(), event.last);
                    if answer || accepts.stream {
                        events.push(event);
                    }
                    if last && accepts.json {
                        return First::Events { events, complete: true };
                    }
                    if accepts.stream && !(answer && accepts.json) {
                        return First::Events { events, complete: false };
                    }
                }
                Some(Delivery::Accepted) => return First::Accepted,
                Some(Delivery::Refused(refusal)) => return First::Refused(Problem::Refused(refusal)),
                Some(Delivery::NoReplay) => return First::Refused(Problem::NoReplay),
                Some(Delivery::Gone(end)) => return First::Refused(Problem::SessionNotFound(Some(end))),
                // Cut off before it began: the stream breaks as it would have later, and the session is as it was.
                Some(Delivery::Lagged) if accepts.stream => return First::Events { events, complete: false },
                // The session says something before it lets go of a reader, so this is the end of the session.
                Some(Delivery::Lagged) | None => return First::Refused(Problem::SessionNotFound(None)),
            }
        }
    }

    fn answer(
        &self,
        session: &Session,
        reader: Reader,
        first: First,
        accepts: Accepts,
        id: Option<Id>,
    ) -> Result<Response<Body>, Refused> {
        match first {
            First::Accepted => Ok(empty(StatusCode::ACCEPTED)),
            // A lost session is nobody's request: with an id, Go's SDK takes it for an answer and stays.
            First::Refused(problem @ Problem::SessionNotFound(_)) => Err((problem, None)),
            First::Refused(problem) => Err((problem, id)),
            First::Events { events, complete: true } => Ok(whole(events)),
            First::Events { events, complete: false } => {
                debug_assert!(accepts.stream, "a client that takes JSON only gets JSON");
                let stream = events.first().map(|event| event.id).or_else(|| reader.position());
                let prime = stream.filter(|_| self.primes(session)).map(|id| EventId { place: 0, ..id });
                let stream = EventStream::new(events, reader, self.config.keep_alive, prime, id);
                Ok(event_stream(Body::Stream(Box::new(stream))))
            }
        }
    }

    fn primes(&self, session: &Session) -> bool {
        self.config.prime && session.revision().is_some_and(Revision::priming)
    }

    async fn get(&self, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let named = guard::session_id(headers)?.ok_or(Problem::Method(METHODS_ALONE))?;
        if !guard::accepts(headers).stream {
            return Err(Problem::NotAcceptableForGet);
        }
        let session = self.find(named)?;
        guard::check_version(headers, session.negotiated())?;
        let after = guard::last_event_id(headers)?;
        let reader = session.listen(after).await.map_err(|end| Problem::SessionNotFound(Some(end)))?;
        match reader.next().await {
            Some(Delivery::Accepted) => {}
            Some(Delivery::NoReplay) => return Err(Problem::NoReplay),
            Some(Delivery::Gone(end)) => return Err(Problem::SessionNotFound(Some(end))),
            _ => return Err(Problem::SessionNotFound(None)),
        }
        let prime = if after.is_none() && self.primes(&session) { reader.position() } else { None };
        let stream = EventStream::new(Vec::new(), reader, self.config.keep_alive, prime, None);
        Ok(event_stream(Body::Stream(Box::new(stream))))
    }

    fn delete(&self, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
        let named = guard::session_id(headers)?.ok_or(Problem::Method(METHODS_ALONE))?;
        let session = self.find(named)?;
        guard::check_version(headers, session.negotiated())?;
        self.sessions.end(&session, End::Deleted);
        Ok(empty(StatusCode::NO_CONTENT))
    }

    fn find(&self, named: Option<SessionId>) -> Result<Session, Problem> {
        match named.map(|id| self.sessions.find(&id)) {
            Some(Found::Live(session)) => Ok(session),
            Some(Found::Ended(end)) => Err(Problem::SessionNotFound(Some(end))),
            Some(Found::Unknown) | None => Err(Problem::SessionNotFound(None)),
        }
    }
}

/// What decides the form of an answer.
#[derive(Debug)]
enum First {
    /// Nothing to answer.
    Accepted,
    /// Refused.
    Refused(Problem),
    /// The events so far, and whether they are all.
    Events { events: Vec<Event>, complete: bool },
}

/// Ends a session whose client leaves before it was told the id: nobody else can ever use or end it.
struct Unclaimed<'s> {
    sessions: &'s Sessions,
    session: Option<&'s Session>,
}

impl Unclaimed<'_> {
    fn claim(mut self) {
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

/// Reads what was posted: one message, or a batch where the session's revision has them.
fn parse(body: &Bytes, session: Option<&Session>) -> Result<Posted, Refused> {
    if !is_array(body) {
        return parse_one(body.clone()).map(Posted::One);
    }
    let text = std::str::from_utf8(body).map_err(|_| (Problem::Parse, None))?;
    let elements = elements(text).map_err(|_| (Problem::Parse, None))?;
    let revision = session.and_then(Session::revision);
    if !revision.is_some_and(Revision::batches) {
        return Err((Problem::Batch(revision), None));
    }
    if elements.is_empty() {
        return Err((Problem::Invalid("an empty batch"), None));
    }
    if elements.len() > MAX_BATCH {
        return Err((Problem::Invalid("a batch of more than 1000 messages"), None));
    }
    let messages = elements
        .into_iter()
        .map(|element| parse_one(body.slice_ref(element.as_bytes())))
        .collect::<Result<Vec<_>, _>>()?;
    if messages.iter().any(|message| message.method() == "initialize") {
        return Err((Problem::Invalid("initialize must not be part of a batch"), None)); // 2025-03-26 `basic/lifecycle`
    }
    Ok(Posted::Batch(messages))
}

fn parse_one(text: Bytes) -> Result<Message, Refused> {
    Message::parse(text).map_err(|malformed| match malformed {
        Malformed::Parse => (Problem::Parse, None),
        Malformed::Invalid(id, why) => (Problem::Invalid(why), id),
    })
}

fn request_id(posted: &Posted) -> Option<Id> {
    match posted {
        Posted::One(message) if message.kind() == Kind::Request => message.id(),
        _ => None,
    }
}

/// Whether the message is of the modern era, which has no sessions (2026-07-28 `basic/versioning`).
fn is_modern(headers: &HeaderMap, message: &Message) -> bool {
    let header = headers.get(MCP_PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
    message.method() == "server/discover"
        || header.and_then(Revision::parse).is_some_and(Revision::modern)
        || find(message.params(), &["_meta", "io.modelcontextprotocol/protocolVersion"]).is_some()
}

fn gone(end: End) -> Refused {
    (Problem::SessionNotFound(Some(end)), None)
}

fn no_session(error: &NoSession) -> Problem {
    match error {
        NoSession::Full(limit) => Problem::Full(*limit),
        NoSession::Draining => Problem::Draining,
        NoSession::Spawn { error, resource } => {
            warn!(event = "child.spawn_failed", %error, resource);
            Problem::Spawn { resource: *resource }
        }
    }
}

/// The answer to OPTIONS: a preflight's, or just what is offered.
fn options(headers: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
    if headers.contains_key(ORIGIN) {
        guard::add_preflight(response.headers_mut(), headers);
    }
    response
}

/// The events as one JSON answer: the message, or an array of them for a batch.
fn whole(events: Vec<Event>) -> Response<Body> {
    let mut reason = None;
    let mut messages: Vec<Bytes> = events
        .into_iter()
        .map(|event| match event.what {
            What::Message(message) | What::Answer { message, .. } => message,
            What::Fault { id, fault } => {
                let row = Problem::Fault(fault).row();
                reason = Some(row.reason);
                row.json(Some(&id.0))
            }
        })
        .collect();
    let body = match messages.pop() {
        Some(message) if messages.is_empty() => message,
        last => {
            messages.extend(last);
            [b"[", messages.join(&b","[..]).as_slice(), b"]"].concat().into()
        }
    };
    let mut response = json(StatusCode::OK, body);
    if let Some(reason) = reason {
        response.headers_mut().insert(reply::MCP_BRIDGE_ERROR, HeaderValue::from_static(reason));
    }
    response
}

/// An answer that is a stream of events. Nothing in between may hold it back or change it.
fn event_stream(events: Body) -> Response<Body> {
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    *response.body_mut() = events;
    response
}
