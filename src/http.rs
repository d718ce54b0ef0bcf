//! The HTTP face of the bridge: head → route → answer → CORS.
//!
//! The rule behind the status codes: once a request was handed to the child it may have happened, so its answer is
//! HTTP 200 with a JSON-RPC result or error, whatever went wrong. A status that a gateway would retry must not stand
//! for work that has been done.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, Uri};
use tokio::time::Instant;
use tracing::{Level, debug, enabled};

use crate::printable::cut;
use crate::secret::Digest;
use crate::sessions::Sessions;
use crate::token::Tokens;

mod admin;
mod answer;
mod body;
pub mod cors;
pub mod guard;
pub mod head;
mod json_body;
mod keyed;
mod legacy;
pub mod metadata;
mod modern;
mod opening;
mod post;
pub mod problem;
pub mod response;
mod route;
mod sharing;
pub mod sse;
mod sse_2024;

use admin::probes;
use answer::Answers;
use body::Bodies;
use guard::{Guard, Trust};
use head::Head;
pub use keyed::{SessionKey, Share};
use legacy::Legacy;
use metadata::Metadata;
use modern::Modern;
use post::Posts;
use problem::Problem;
use response::{Body, Rejection};
use route::{Paths, Route};
use sharing::Sharing;
use sse_2024::Sse2024;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Config {
    /// The endpoint's path, without a trailing slash.
    pub path: String,
    pub trust: Trust,
    /// The tokens that are let in; `None`: no token is asked for.
    pub tokens: Option<Arc<Tokens>>,
    /// The metadata that says how to get a token.
    pub metadata: Option<Metadata>,
    /// What names the sessions of clients that carry no `Mcp-Session-Id`; `None`: they have none.
    pub session_key: Option<SessionKey>,
    /// Which clients share a server.
    pub share: Share,
    /// Variables of a child's environment, and the headers of `initialize` that they are taken from.
    pub env_from_header: Vec<(String, HeaderName)>,
    /// The longest request body, in bytes.
    pub max_body: usize,
    /// How long a request body may stand still.
    pub body_timeout: Duration,
    /// How many bytes of a body that is not read HTTP/2 holds.
    pub h2_window: usize,
    /// How long a request may wait until it is forwarded, from the time when its head was read.
    pub request_timeout: Duration,
    /// After how long without an event a stream gets a comment.
    pub keep_alive: Duration,
    /// Whether event streams begin with an event that carries only an id.
    pub prime: bool,
    /// Whether the transport of 2024-11-05 is offered beside the endpoint.
    pub sse_compat: bool,
}

#[derive(Debug)]
pub struct Http {
    paths: Paths,
    guard: Guard,
    /// The metadata of the protected resource, where it is served here.
    metadata: Option<Bytes>,
    sessions: Arc<Sessions>,
    posts: Posts,
    /// `None` where the old transport is not offered.
    sse_2024: Option<Sse2024>,
}

impl Http {
    pub fn new(config: Config, sessions: Arc<Sessions>) -> Self {
        let limits = body::Limits {
            max: config.max_body,
            body_timeout: config.body_timeout,
            request_timeout: config.request_timeout,
            h2_window: config.h2_window,
        };
        let bodies = Arc::new(Bodies::new(limits, Arc::clone(&sessions)));
        let env_from_header: Arc<[_]> = config.env_from_header.into();
        let metadata = config.metadata.as_ref().and_then(Metadata::document);
        let sharing = Sharing { share: config.share, session_key: config.session_key };
        let answers = Answers { keep_alive: config.keep_alive, prime: config.prime };
        Self {
            paths: Paths { endpoint: config.path, metadata: metadata.is_some(), sse_2024: config.sse_compat },
            guard: Guard {
                trust: config.trust,
                tokens: config.tokens,
                metadata: config.metadata.map(|metadata| metadata.url),
            },
            metadata,
            posts: Posts {
                bodies: Arc::clone(&bodies),
                legacy: Legacy {
                    sessions: Arc::clone(&sessions),
                    bodies: Arc::clone(&bodies),
                    answers,
                    sharing: sharing.clone(),
                    env_from_header: Arc::clone(&env_from_header),
                },
                modern: Modern {
                    sessions: Arc::clone(&sessions),
                    bodies: Arc::clone(&bodies),
                    answers,
                    sharing: sharing.clone(),
                    env_from_header: Arc::clone(&env_from_header),
                },
            },
            sse_2024: config.sse_compat.then(|| {
                Sse2024::new(Arc::clone(&sessions), bodies, sharing, env_from_header, config.keep_alive)
            }),
            sessions,
        }
    }

    /// Ends the streams that belong to no session: the bridge is stopping, and they would go on for ever.
    pub fn drain(&self) {
        if let Some(sse_2024) = &self.sse_2024 {
            sse_2024.close_fresh();
        }
    }

    /// Ends what all callers but these have begun.
    pub fn keep_callers(&self, callers: &[Digest]) {
        self.sessions.keep_callers(callers);
        if let Some(sse_2024) = &self.sse_2024 {
            sse_2024.keep_callers(callers);
        }
    }

    /// [`Self::handle`] as a service for connections.
    pub fn service(
        self: Arc<Self>,
    ) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone
    {
        service_fn(move |request| {
            let http = Arc::clone(&self);
            async move { Ok(http.handle(request).await) }
        })
    }

    /// Answers one request, whose head has just been read.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let arrived = Instant::now();
        let (mut parts, body) = request.into_parts();
        // Neither the sentence, in which headers of the client may stand, nor its query.
        let path = enabled!(Level::DEBUG).then(|| cut(parts.uri.path()).into_owned());
        let (route, page) = self.admit(&parts);
        let answered = match route {
            Ok(route) => self.answer(route, &mut parts, arrived, body).await,
            Err(problem) => Err(problem.into()),
        };
        let mut response = answered.unwrap_or_else(|rejection| {
            let (method, path, reason) = (&parts.method, path.as_deref(), rejection.problem.row().reason);
            debug!(event = "http.refused", %method, path, reason, "a request is refused");
            rejection.response()
        });
        if let Some(origin) = page {
            cors::allow(response.headers_mut(), origin);
        }
        response
    }

    /// The route of a request, and the origin of the page that may read the answer, whatever that is.
    fn admit(&self, parts: &Parts) -> (Result<Route, Problem>, Option<HeaderValue>) {
        match self.paths.route(&parts.method, parts.uri.path()) {
            Ok(route) if route.is_probe() => (Ok(route), None),
            Ok(route) => match self.guard.admit(parts) {
                Ok(page) => (Ok(route), page),
                Err(problem) => (Err(problem), None),
            },
            Err(problem) => (Err(problem), self.guard.page(parts)),
        }
    }

    async fn answer(
        &self,
        route: Route,
        parts: &mut Parts,
        arrived: Instant,
        body: Incoming,
    ) -> Result<Response<Body>, Rejection> {
        let caller = if route.needs_token() { self.guard.caller(&parts.headers)? } else { None };
        let (headers, query, version) = (&parts.headers, parts.uri.query(), parts.version);
        let head = &Head { headers, version, query, caller, arrived };
        let absent = || self.paths.absent(parts.uri.path());
        match route {
            Route::Health => Ok(probes::health()),
            Route::Ready => Ok(probes::ready(&self.sessions)),
            Route::Options => Ok(cors::options(head.headers)),
            Route::Metadata => Ok(metadata::answer(self.metadata.as_ref().ok_or_else(absent)?)),
            Route::Post => {
                let posting = self.posts.posting(head)?;
                forget(parts);
                self.posts.post(posting, body).await
            }
            Route::Get => self.posts.legacy.get(head).await,
            Route::Delete => self.posts.legacy.delete(head),
            Route::OpenSse => self.sse_2024.as_ref().ok_or_else(absent)?.open(head),
            Route::PostMessage => {
                let sse_2024 = self.sse_2024.as_ref().ok_or_else(absent)?;
                let posting = sse_2024.posting(head)?;
                forget(parts);
                sse_2024.post(posting, body).await
            }
            Route::NotAllowed(methods) => Err(Problem::Method(methods).into()),
        }
    }
}

/// Gives a head's memory back: it may be 64 KiB, and its request may wait for an hour.
fn forget(parts: &mut Parts) {
    parts.headers = HeaderMap::new();
    parts.uri = Uri::default();
}
