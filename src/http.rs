//! Which request means what: Streamable HTTP (2025-03-26 to 2025-11-25, `basic/transports`) on top of sessions.
//!
//! The rule behind the status codes: once a request was handed to the child it may have happened, so its answer is
//! HTTP 200 with a JSON-RPC result or error, whatever went wrong. A status that a gateway would retry must not stand
//! for work that has been done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::proto::front::Refusal;
use crate::proto::ids::{ClientId, Id, SessionId};
use crate::proto::json::{elements, is_array};
use crate::proto::message::{Malformed, Message};
use crate::proto::version::Revision;
use crate::secret::{Digest, Tokens};
use crate::session::stream::{Delivery, Payload};
use crate::session::{BodyBudget, BodyPermit, End, Posted, Session};
use crate::sessions::{Found, NoSession, Opening, Sessions};

pub mod admin;
mod answer;
pub mod body;
mod compat;
pub mod guard;
mod keyed;
pub mod reply;

use admin::Metadata;
use answer::{First, event_stream};
use body::{Body, EventStream, Leave};
use compat::Compat;
use guard::{Accepts, MCP_PROTOCOL_VERSION, MCP_SESSION_ID, Trust};
pub use keyed::SessionKey;
use reply::{Problem, empty, refuse};

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
    /// Who is let in; `None`: everybody.
    pub tokens: Option<Arc<Tokens>>,
    /// What is told to who has no token.
    pub metadata: Option<Metadata>,
    /// What names the sessions of clients that carry no `Mcp-Session-Id`; `None`: they have none.
    pub session_key: Option<SessionKey>,
    /// Variables of a child's environment, and the headers of `initialize` that they are taken from.
    pub env_from_header: Vec<(String, HeaderName)>,
    /// The longest request body, in bytes.
    pub max_body: usize,
    /// How long a request body may take.
    pub body_timeout: Duration,
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
    /// For bodies that name no session.
    lobby: BodyBudget,
    /// Open streams of the old transport; `None` where it is not offered.
    compat: Option<Compat>,
}

/// A request's head, checked.
struct Asking<'p> {
    parts: &'p Parts,
    /// Whose token it carries.
    caller: Option<Digest>,
    /// When it was read: the deadline of the request counts from then on.
    arrived: Instant,
}

/// A refusal and the id of the request it is about.
type Refused = (Problem, Option<Id>);

impl Http {
    /// The face of these sessions.
    pub fn new(config: Config, sessions: Arc<Sessions>) -> Self {
        let compat = config.sse_compat.then(Compat::default);
        let lobby = BodyBudget::new(config.max_body);
        Self { config, sessions, lobby, compat }
    }

    /// Ends what belongs to no session and would go on for ever: the bridge is stopping.
    pub fn drain(&self) {
        if let Some(compat) = &self.compat {
            compat.close_fresh();
        }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let arrived = Instant::now();
        let (parts, body) = request.into_parts();
        if let Some(response) = admin::answer(&parts, &self.sessions) {
            return response;
        }
        let origin = parts.headers.get(ORIGIN).cloned();
        let checked = self.check_head(&parts);
        let allowed = checked.is_ok() || matches!(checked, Err(Problem::Unauthorized { .. }));
        let alone = |problem| (problem, None);
        let answered = match checked {
            Err(problem) => Err(alone(problem)),
            Ok(caller) => {
                let asking = Asking { parts: &parts, caller, arrived };
                match parts.method {
                    Method::OPTIONS => Ok(options(&parts.headers)),
                    _ if self.is_metadata(&parts) => self.metadata(&parts).map_err(alone),
                    _ if self.is_compat(&parts) => self.compat(&asking, body).await,
                    Method::POST => self.post(&asking, body).await,
                    Method::GET => self.get(&asking).await.map_err(alone),
                    Method::DELETE => self.delete(&asking).map_err(alone),
                    _ => Err(alone(Problem::Method(METHODS))),
                }
            }
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
    fn check_head(&self, parts: &Parts) -> Result<Option<Digest>, Problem> {
        let path = parts.uri.path();
        if parts.method == Method::CONNECT || path == "*" {
            return Err(Problem::Method(METHODS)); // neither names a path
        }
        let ours = path == self.config.path
            || path.strip_suffix('/').is_some_and(|path| path == self.config.path)
            || (path == "/" && matches!(parts.method, Method::POST | Method::OPTIONS))
            || self.is_compat(parts)
            || self.is_metadata(parts);
        if !ours {
            return Err(Problem::Path(self.config.path.clone()));
        }
        let checked =
            self.config.trust.check_host(parts).and_then(|()| self.config.trust.check_origin(&parts.headers));
        if let Err(problem @ (Problem::Host(_) | Problem::Origin(_))) = &checked {
            warn!(event = "http.forbidden", reason = problem.row().reason, hint = %problem.row().message);
        }
        checked?;
        match &self.config.tokens {
            // A preflight carries no credentials (Fetch, "CORS protocol"), and the metadata says how to get some.
            Some(tokens) if parts.method != Method::OPTIONS && !self.is_metadata(parts) => {
                let given = guard::bearer(&parts.headers)?;
                let caller = given.and_then(|token| tokens.check(token));
                if caller.is_none() {
                    let metadata = self.config.metadata.as_ref().map(|metadata| metadata.url.clone());
                    return Err(Problem::Unauthorized { given: given.is_some(), metadata });
                }
                Ok(caller)
            }
            _ => Ok(None),
        }
    }

    fn is_metadata(&self, parts: &Parts) -> bool {
        let metadata = self.config.metadata.as_ref();
        metadata.is_some_and(|metadata| metadata.is_at(parts.uri.path(), &self.config.path))
    }

    fn metadata(&self, parts: &Parts) -> Result<Response<Body>, Problem> {
        match (&self.config.metadata, &parts.method) {
            (Some(metadata), &Method::GET | &Method::HEAD) => Ok(metadata.answer()),
            _ => Err(Problem::Method("GET, HEAD, OPTIONS")),
        }
    }

    fn is_compat(&self, parts: &Parts) -> bool {
        self.compat.is_some() && matches!(parts.uri.path(), compat::SSE | compat::MESSAGE)
    }

    async fn compat(&self, asking: &Asking<'_>, body: Incoming) -> Result<Response<Body>, Refused> {
        let alone = |problem| (problem, None);
        let Asking { parts, caller, .. } = asking;
        let Some(compat) = &self.compat else { return Err(alone(Problem::Path(self.config.path.clone()))) };
        if parts.uri.path() == compat::SSE {
            return compat.open(parts, *caller, &self.sessions, self.config.keep_alive).map_err(alone);
        }
        if parts.method != Method::POST {
            return Err(alone(Problem::Method("POST, OPTIONS")));
        }
        guard::check_body_head(&parts.headers, self.config.max_body).map_err(alone)?;
        let (session, connection) = compat.find(parts, *caller).map_err(alone)?;
        let environment = guard::environment(&parts.headers, &self.config.env_from_header);
        let (body, room) = self.read(body, session.as_ref()).await?;
        compat::post(&connection, body, room, environment, &self.sessions, asking.arrived).await
    }

    async fn read(
        &self,
        body: Incoming,
        session: Option<&Session>,
    ) -> Result<(Bytes, Option<BodyPermit>), Refused> {
        let leave = session.map_or(Leave::Lobby(&self.lobby), Leave::Session);
        let read = body::read(body, self.config.max_body, self.config.body_timeout, leave).await;
        read.map_err(|problem| (problem, None))
    }

    async fn post(&self, asking: &Asking<'_>, body: Incoming) -> Result<Response<Body>, Refused> {
        let headers = &asking.parts.headers;
        let accepts = guard::accepts(headers);
        if !accepts.json && !accepts.stream {
            return Err((Problem::NotAcceptable, None));
        }
        guard::check_body_head(headers, self.config.max_body).map_err(|problem| (problem, None))?;
        let named = guard::session_id(headers).map_err(|problem| (problem, None))?;
        let keyed = match named {
            None => self.keyed(asking).map_err(|problem| (problem, None))?,
            Some(_) => None,
        };
        // Before the body: whoever lost a session should not have to send it first.
        let session = match named {
            None => keyed.as_ref().and_then(|keyed| self.sessions.find_keyed(keyed.key)),
            Some(id) => Some(self.find(id, asking.caller).map_err(|problem| (problem, None))?),
        };
        let (body, room) = self.read(body, session.as_ref()).await?;
        let posted = parse(&body, session.as_ref())?;
        let session = match (session, &keyed, &posted) {
            // Its client can find out that there is no such thing here, and begin anew.
            (_, Some(_), Posted::One(message)) if is_modern(headers, message) => None,
            (None, Some(keyed), Posted::One(message)) => Some(self.open_keyed(keyed, asking, message).await?),
            (session, ..) => session,
        };
        match session {
            Some(session) if session.is_shared() => {
                let again = posted.clone();
                match (self.post_to(&session, asking, posted, room, accepts).await, keyed, &again) {
                    // It ended before it took the request. Its client knows of no session that it could have lost.
                    (Err((Problem::SessionNotFound(Some(_)), _)), Some(keyed), Posted::One(message)) => {
                        let session = self.open_keyed(&keyed, asking, message).await?;
                        self.post_to(&session, asking, again, None, accepts).await
                    }
                    (answered, ..) => answered,
                }
            }
            Some(session) => self.post_to(&session, asking, posted, room, accepts).await,
            None => self.post_alone(asking, posted, accepts).await,
        }
    }

    /// A POST within a session.
    async fn post_to(
        &self,
        session: &Session,
        asking: &Asking<'_>,
        posted: Posted,
        room: Option<BodyPermit>,
        accepts: Accepts,
    ) -> Result<Response<Body>, Refused> {
        let id = request_id(&posted);
        guard::check_version(&asking.parts.headers, session.negotiated())
            .map_err(|problem| (problem, id.clone()))?;
        if let Posted::One(message) = &posted
            && !session.is_shared()
            && message.request().is_some()
            && message.method() == "initialize"
        {
            let refusal = message.id().map(|id| Refusal::AlreadyInitialized(ClientId(id.clone())));
            return Err((refusal.map_or(Problem::SessionRequired, Problem::Refused), id));
        }
        let reader = session.post(posted, room, accepts.takes(), asking.arrived).await.map_err(gone)?;
        let first = self.first(&reader, accepts).await;
        self.answer(session, reader, first, accepts, id)
    }

    /// A POST without a session: `initialize` opens one, and nothing else is served.
    async fn post_alone(
        &self,
        asking: &Asking<'_>,
        posted: Posted,
        accepts: Accepts,
    ) -> Result<Response<Body>, Refused> {
        let Posted::One(message) = posted else { return Err((Problem::SessionRequired, None)) };
        let id = message.id().cloned();
        let modern = is_modern(&asking.parts.headers, &message);
        let initialize = match message {
            Message::Request(request) if request.method() == "initialize" => request,
            Message::Request(_) if modern => return Err((Problem::Modern, id)),
            _ if modern => return Ok(empty(StatusCode::ACCEPTED)),
            _ => return Err((Problem::SessionRequired, id)),
        };
        let environment = guard::environment(&asking.parts.headers, &self.config.env_from_header);
        let opening = Opening {
            initialize,
            takes: accepts.takes(),
            owner: asking.caller,
            environment: environment.map_err(|problem| (problem, id.clone()))?,
        };
        let (session, reader) = match self.sessions.start(opening).await {
            Ok(started) => started,
            Err(error) => return Err((no_session(&error), id)),
        };
        let unclaimed = Unclaimed { sessions: &self.sessions, session: Some(&session) };
        let first = self.first(&reader, accepts).await;
        let started = match &first {
            First::Events { events, .. } => match events.last().map(|event| &event.payload) {
                Some(Payload::Fault { fault, .. }) => return Err((Problem::StartFailed(fault.clone()), id)),
                Some(Payload::Answer { success, .. }) => *success,
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

    async fn get(&self, asking: &Asking<'_>) -> Result<Response<Body>, Problem> {
        let headers = &asking.parts.headers;
        let named = guard::session_id(headers)?.ok_or(Problem::Method(METHODS_ALONE))?;
        if !guard::accepts(headers).stream {
            return Err(Problem::NotAcceptableForGet);
        }
        let session = self.find(named, asking.caller)?;
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

    fn delete(&self, asking: &Asking<'_>) -> Result<Response<Body>, Problem> {
        let headers = &asking.parts.headers;
        let named = guard::session_id(headers)?.ok_or(Problem::Method(METHODS_ALONE))?;
        let session = self.find(named, asking.caller)?;
        guard::check_version(headers, session.negotiated())?;
        self.sessions.end(&session, End::Deleted);
        Ok(empty(StatusCode::NO_CONTENT))
    }

    fn find(&self, named: Option<SessionId>, caller: Option<Digest>) -> Result<Session, Problem> {
        match named.map(|id| self.sessions.find(&id, caller)) {
            Some(Found::Live(session)) => Ok(session),
            Some(Found::Ended(end)) => Err(Problem::SessionNotFound(Some(end))),
            Some(Found::Unknown) | None => Err(Problem::SessionNotFound(None)),
        }
    }
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
    let elements = elements(text).ok_or((Problem::Parse, None))?;
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
        Posted::One(message) => message.request().map(|request| request.id().clone()),
        _ => None,
    }
}

/// Whether the message is of the modern era, which has no sessions (2026-07-28 `basic/versioning`).
fn is_modern(headers: &HeaderMap, message: &Message) -> bool {
    let header = headers.get(MCP_PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
    message.method() == "server/discover"
        || header.and_then(Revision::parse).is_some_and(Revision::modern)
        || message.param(&["_meta", "io.modelcontextprotocol/protocolVersion"]).is_some()
}

fn gone(end: End) -> Refused {
    (Problem::SessionNotFound(Some(end)), None)
}

fn no_session(error: &NoSession) -> Problem {
    match error {
        NoSession::Full(limit) => Problem::Full(*limit),
        NoSession::Draining => Problem::Draining,
        NoSession::Crashing(pause) => Problem::Crashing(*pause),
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
