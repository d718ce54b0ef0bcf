//! The era of 2026-07-28 (`basic/versioning`), which has no sessions: each request says by itself what a handshake would
//! have said. Its clients share a server, and are served where that is said or is the server's nature.

use std::sync::Arc;

use hyper::header::HeaderName;
use hyper::{Response, StatusCode};

use super::answer::{Answers, Form, json_answer};
use super::body::Bodies;
use super::head::{Accepts, Head, Kept};
use super::opening::{self, not_started};
use super::problem::Problem;
use super::response::{Body, Rejection, empty, event_stream};
use super::sharing::{Company, Key, Sharing};
use super::sse::EventStream;
use crate::proto::front::Mirrored;
use crate::proto::ids::Id;
use crate::proto::link::{own_discover, own_initialize_of_all};
use crate::proto::message::{Message, Request, refusal};
use crate::proto::version::{Era, Revision};
use crate::session::stream::{Delivery, Payload};
use crate::session::{BodyPermit, Clients, NotTaken, Posted, Session};
use crate::sessions::{Opening, Server, Sessions};

mod mirror;

use mirror::Mirror;

/// Opens a stream of what the server tells unasked (`basic/patterns/subscriptions`).
const LISTEN: &str = "subscriptions/listen";

const DISCOVER: &str = "server/discover";

/// The endpoint, as this era has it.
#[derive(Debug)]
pub(super) struct Modern {
    pub(super) sessions: Arc<Sessions>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) answers: Answers,
    pub(super) sharing: Sharing,
    pub(super) env_from_header: Arc<[(String, HeaderName)]>,
}

/// What the head of a POST that may be of this era says: of the message, and of whose it is.
#[derive(Debug)]
pub(super) struct Addressed {
    mirror: Result<Mirror, &'static str>,
    key: Result<Key, Problem>,
    /// The session of the key, where there is one.
    session: Option<Session>,
}

impl Addressed {
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}

/// A request that is served, and where.
struct Placed<'p> {
    head: &'p Kept,
    accepts: Accepts,
    id: Id,
    listens: bool,
    key: &'p Key,
    mirrored: Mirrored,
}

/// Why there is no answer of a session.
enum Failure {
    /// It ended before it took the request, and gave it back: it can be posted to another one.
    NotTaken(NotTaken),
    Rejected(Rejection),
}

/// Whether a message that is in no session is of this era. It says so by itself, but for `initialize`, which only the
/// session era has, or its head says it.
pub(super) fn is_modern(head: &Kept, message: &Message) -> bool {
    match message.request() {
        // Clients that have fallen back go on with the header of their newest revision.
        Some(request) if request.method() == "initialize" => {
            mirror::revision(request).is_some_and(Revision::modern)
        }
        _ => {
            message.names_revision()
                || message.method() == DISCOVER
                || head.revision().is_some_and(Revision::modern)
        }
    }
}

/// In this era there is no session that could be lost, but servers end.
pub(super) fn without_session(problem: Problem) -> Problem {
    match problem {
        Problem::SessionEnded(why) => Problem::ServerEnded(why),
        problem => problem,
    }
}

impl Modern {
    /// Reads the head of a POST that is in no session and may be of this era.
    pub(super) fn address(&self, head: &Head<'_>) -> Addressed {
        let key = self.sharing.key(head, &self.env_from_header);
        let session = key.as_ref().ok().and_then(|key| self.find(key));
        Addressed { mirror: Mirror::of(head.headers), key, session }
    }

    /// The session of a key: of the server, or on a lane of it where that is a server of sessions.
    fn find(&self, key: &Key) -> Option<Session> {
        let session = self.sessions.find_keyed(key.digest)?;
        match session.clients() {
            Some(Clients::Sessions) => self.sessions.find_keyed(key.on_lane()),
            _ => Some(session),
        }
    }

    /// Answers a message of this era. `addressed`: `None` where its head does not say that it is one. `lost`: it names a
    /// session that is not here, and why that is refused.
    pub(super) async fn post(
        &self,
        head: &Kept,
        addressed: Option<Box<Addressed>>,
        lost: Option<Problem>,
        message: Message,
        permit: BodyPermit,
        accepts: Accepts,
    ) -> Result<Response<Body>, Rejection> {
        let is_marked = message.names_revision();
        let request = match message {
            // There are none that a server needs, and a cancellation could name what is another client's.
            Message::Notification(_) => return Ok(empty(StatusCode::ACCEPTED)),
            Message::Response(_) => {
                return Err(
                    Problem::Invalid("2026-07-28 has no responses of clients; see inputResponses").into()
                );
            }
            Message::Request(request) => request,
        };
        let id = request.id().clone();
        let about = |problem: Problem| problem.about(Some(&id));
        let is_discover = request.method() == DISCOVER;
        if !is_discover && !is_marked {
            return Err(lost.map_or_else(|| about(mirror::unmarked()), Rejection::from));
        }
        let company = match &addressed {
            Some(addressed) => addressed.key.as_ref().map_err(|problem| about(problem.clone()))?.company,
            None => self.sharing.company(head.caller),
        };
        // What a server speaks may have to be found out. Where it does not matter, what is refused anyway does not ask.
        let is_served = match company {
            Company::Unsaid => {
                let era = self.bodies.in_time(head, self.sessions.era()).await.map_err(about)?;
                company.is_served(era)
            }
            Company::Own | Company::Strangers => true,
        };
        if !is_served {
            return Err(match lost {
                _ if is_discover => about(Problem::Modern),
                // It has been in a session, as those are who speak so and have an id: it shall begin a new one.
                Some(lost) => lost.into(),
                None => about(match self.sharing.header() {
                    Some(header) => Problem::KeyMissing(header.to_string()),
                    None => Problem::NotShared(mirror::named(&request)),
                }),
            });
        }
        let (mirror, place) = match addressed.map(|addressed| *addressed) {
            Some(Addressed { mirror, key, session }) => (mirror, Some((key.map_err(about)?, session))),
            None => (Ok(Mirror::default()), None),
        };
        let mirror = mirror.map_err(|why| about(mirror::mismatch(why)))?;
        mirror::check(&head.asked, &mirror, &request).map_err(about)?;
        let Some((key, session)) = place else {
            return Err(about(mirror::mismatch("MCP-Protocol-Version is missing")));
        };
        let listens = request.method() == LISTEN;
        if listens && !accepts.stream {
            return Err(about(Problem::NotAcceptableForListen));
        }
        let caller = head.caller.as_ref().map(|caller| *caller.as_bytes());
        let mirrored = Mirrored { caller, params: mirror.params };
        let placed = Placed { head, accepts, id, listens, key: &key, mirrored };
        self.serve(placed, session, request, permit).await
    }

    /// Serves a request in the session of its key, which is opened if need be. In place of a session that ends before it
    /// took the request it gets one new one.
    async fn serve(
        &self,
        placed: Placed<'_>,
        found: Option<Session>,
        request: Request,
        permit: BodyPermit,
    ) -> Result<Response<Body>, Rejection> {
        let about = |problem: Problem| without_session(problem).about(Some(&placed.id));
        let length = request.text().len();
        let posted = Posted::One(Message::Request(request));
        let (session, permit) = match found {
            Some(session) => (session, permit),
            None => self.open(&placed, length, permit).await.map_err(about)?,
        };
        let NotTaken { posted, .. } = match self.post_to(&session, &placed, posted, permit).await {
            Err(Failure::NotTaken(not_taken)) => not_taken,
            Err(Failure::Rejected(rejection)) => return Err(rejection),
            Ok(response) => return Ok(response),
        };
        let permit = self.bodies.take_anonymous(placed.head, length).await.map_err(about)?;
        let (session, permit) = self.open(&placed, length, permit).await.map_err(about)?;
        match self.post_to(&session, &placed, *posted, permit).await {
            Err(Failure::NotTaken(NotTaken { why, .. })) => Err(about(Problem::ServerEnded(why))),
            Err(Failure::Rejected(rejection)) => Err(rejection),
            Ok(response) => Ok(response),
        }
    }

    /// Opens the session of a key, and moves the body of its first request into the session's budget.
    async fn open(
        &self,
        placed: &Placed<'_>,
        length: usize,
        permit: BodyPermit,
    ) -> Result<(Session, BodyPermit), Problem> {
        let key @ Key { digest, company, owner, environment } = placed.key;
        let server = self.sessions.find_keyed(*digest).and_then(|server| server.clients());
        let era = match server {
            Some(clients) => clients.child(), // it has been opened, for clients of whichever era
            None => self.bodies.in_time(placed.head, self.sessions.era_for_modern()).await?,
        };
        if !company.is_served(era) {
            // It has shown in the meantime that it has sessions.
            return Err(Problem::NotShared(Revision::R2026_07_28.as_str().to_owned()));
        }
        let server = opening::server(&self.sharing, key);
        // A session on a lane is one of the session era; the server is opened in its own.
        let (name, child) = match &server {
            Server::Own => (*digest, era),
            Server::Shared(_) => (key.on_lane(), Era::Legacy),
        };
        let opening =
            Opening { server, ..Opening::own(first_words(child), *owner, environment.clone(), era) };
        let opened = self.sessions.keyed(name, opening, company.clients(child)).await;
        let session = opened.map_err(|error| not_started(&error))?;
        drop(permit); // first: who waits for a session's memory must not hold up those who have none
        let permit = self.bodies.take(placed.head, &session, length).await?;
        Ok((session, permit))
    }

    async fn post_to(
        &self,
        session: &Session,
        placed: &Placed<'_>,
        posted: Posted,
        permit: BodyPermit,
    ) -> Result<Response<Body>, Failure> {
        let Placed { head, accepts, id, listens, mirrored, .. } = placed;
        let posting =
            session.post_mirrored(posted, Some(permit), accepts.takes(), head.arrived, mirrored.clone());
        let reader = posting.await.map_err(Failure::NotTaken)?;
        let refused = |problem: Problem| Failure::Rejected(without_session(problem).about(Some(id)));
        let form = self.answers.form(&reader, *accepts).await;
        let status = reader.look(|waiting| waiting.iter().find_map(status));
        let is_failure = status.is_some_and(|status| status != StatusCode::OK);
        match form {
            Form::NotTaken(not_taken) => Err(Failure::NotTaken(not_taken)),
            Form::Refused(problem) => Err(refused(problem)),
            Form::Over => Err(refused(Problem::ServerEnded(session.why_closed()))),
            Form::Accepted => Ok(empty(StatusCode::ACCEPTED)),
            // Whatever the client accepts: a status tells what an event cannot, and clients look for it.
            Form::Json | Form::Stream if is_failure => {
                Ok(json_answer(reader, status.unwrap_or(StatusCode::OK)))
            }
            Form::Json if !(*listens && accepts.stream) => Ok(json_answer(reader, StatusCode::OK)),
            Form::Json | Form::Stream => {
                let stream = EventStream::modern(reader, self.answers.keep_alive, id.clone());
                Ok(event_stream(Body::Stream(Box::new(stream))))
            }
        }
    }
}

/// What the bridge says first to a child that is opened in this era, in its own name.
fn first_words(era: Era) -> Request {
    match era {
        Era::Legacy => own_initialize_of_all(Revision::R2025_11_25),
        Era::Modern => own_discover(),
    }
}

/// The HTTP status of an answer (`basic/transports/streamable-http`; `basic/index`): `None` for what does not decide it,
/// and of a stream that has begun with something else it is 200.
fn status(delivery: &Delivery) -> Option<StatusCode> {
    let Delivery::Event(event) = delivery else { return None };
    Some(match &event.payload {
        Payload::Fault { fault, .. } => Problem::Fault(fault.clone()).row().status,
        Payload::Answer { message, success: false, .. } => {
            let text = std::str::from_utf8(message).unwrap_or_default();
            status_of(refusal(text).0)
        }
        Payload::Answer { .. } | Payload::Message(_) => StatusCode::OK,
    })
}

/// The same of an error with this code. What a handler answers is no failure of HTTP.
fn status_of(code: &str) -> StatusCode {
    match code {
        "-32601" => StatusCode::NOT_FOUND,
        "-32020" | "-32021" | "-32022" => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::parse_one;
    use crate::http::head::MCP_PROTOCOL_VERSION;
    use crate::proto::ids::{EventId, StreamId};
    use crate::session::stream::Event;
    use hyper::Version;
    use hyper::header::{HeaderMap, HeaderValue};
    use tokio::time::Instant;

    fn head(version: Option<&str>) -> Kept {
        let mut headers = HeaderMap::new();
        if let Some(version) = version {
            headers.insert(MCP_PROTOCOL_VERSION, HeaderValue::from_str(version).expect("a value"));
        }
        let arrived = Instant::now();
        Head { headers: &headers, version: Version::HTTP_11, query: None, caller: None, arrived }.keep()
    }

    #[test]
    fn a_message_is_told_by_its_body_and_then_by_its_head() {
        let meta = |revision: &str| {
            format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{revision}"}}}}"#)
        };
        let call = |method: &str, params: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
        };
        let note = |params: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#)
        };
        let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#.to_owned();
        let (legacy, modern) = (Some("2025-11-25"), Some("2026-07-28"));
        let table = [
            (None, call("tools/list", "{}"), false),
            (legacy, call("tools/list", "{}"), false),
            (modern, call("tools/list", "{}"), true),
            (Some("2099-01-01"), call("tools/list", "{}"), false),
            (None, call("tools/list", &meta("2026-07-28")), true),
            (legacy, call("tools/list", &meta("2026-07-28")), true),
            (None, call("tools/list", &meta("v999.0.0")), true),
            (None, call("server/discover", "{}"), true),
            (None, call("initialize", "{}"), false),
            (modern, call("initialize", "{}"), false),
            (modern, call("initialize", &meta("2025-11-25")), false),
            (modern, call("initialize", &meta("v999.0.0")), false),
            (None, call("initialize", &meta("2026-07-28")), true),
            (None, note("{}"), false),
            (modern, note("{}"), true),
            (None, note(&meta("2026-07-28")), true),
            (None, response.clone(), false),
            (modern, response, true),
        ];
        for (version, text, want) in table {
            let message = parse_one(text.clone().into()).expect("a message");
            assert_eq!(is_modern(&head(version), &message), want, "{version:?} {text}");
        }
    }

    #[test]
    fn an_answer_has_the_status_of_what_it_says() {
        let error = |code: &str| {
            let message = format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"no"}}}}"#);
            Payload::Answer { message: message.into(), success: false }
        };
        let success = Payload::Answer {
            message: r#"{"id":1,"result":{"error":{"code":-32601}}}"#.into(),
            success: true,
        };
        let long = format!(r#"{{"x":"{}","error":{{"code":-32601}}}}"#, "x".repeat(100_000));
        let table = [
            (error("-32601"), 404),
            (error("-32020"), 400),
            (error("-32021"), 400),
            (error("-32022"), 400),
            (error("-32602"), 200),
            (error("-32603"), 200),
            (error("-32002"), 200),
            (error("0"), 200),
            (error("\"-32601\""), 200),
            (success, 200),
            (Payload::Answer { message: long.into(), success: false }, 200),
            (Payload::Message(r#"{"method":"notifications/progress"}"#.into()), 200),
        ];
        for (payload, want) in table {
            let shown = format!("{payload:.200?}");
            let id = EventId { stream: StreamId(1), place: 1 };
            let got = status(&Delivery::Event(Event { id, payload, last: true }));
            assert_eq!(got.map(|status| status.as_u16()), Some(want), "{shown}");
        }
        assert_eq!(status(&Delivery::Pending), None);
    }
}
