//! A front speaks for the clients of one session: it knows which of them sent each request, and which of them each
//! message of the child is for. Beneath it is a [link](super::link) to the child; what comes out goes into [`Out`].
//!
//! [`single::Single`] has one client with a session of its own, [`keyed::Keyed`] several that cannot be told apart,
//! [`shared::Shared`] sessions that share a child of the session era, [`modern::Modern`] clients of 2026-07-28, and such
//! sessions, over a child of it. Those that translate are [`Upgrade`](super::upgrade::Upgrade) and
//! [`Downgrade`](super::downgrade::Downgrade). A session's loop knows its front as [`Front`] alone.

use std::time::Duration;

use bytes::Bytes;

use super::ids::{BridgeId, ClientId, Id, ProgressToken, StreamId, echoed};
use super::incoming::Incoming;
use super::json::Span;
use super::link::{Expired, Link, Untaken};
use super::message::{Message, Notification, Request};
use super::nearly::Broken;
use super::output::{Dropped, Handshake, Note, Out, Output, Unanswered};

mod greeting;
pub mod keyed;
pub mod modern;
pub mod shared;
pub mod single;

pub(super) use greeting::MAX_GREETING;

/// How long a request of the child waits for a client to listen, before the bridge answers it with an error.
pub const LISTENER_GRACE: Duration = Duration::from_secs(60);

/// What the stream of a POST may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Its answer alone: the client accepts nothing but JSON.
    AnswerOnly,
    /// Other events before it.
    Events,
}

/// What a message of a client comes with.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'m> {
    pub stream: StreamId,
    /// What that may carry.
    pub takes: Takes,
    /// When its head was read: a request's deadline counts from then on, wherever it has waited.
    pub arrived: Duration,
    /// What its head says of it; empty in the session era.
    pub mirrored: &'m Mirrored,
}

/// What the head of a request of 2026-07-28 says beside its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// The digest of the caller's token; `None` where no token is asked for.
    pub caller: Option<[u8; 32]>,
    /// The fields `Mcp-Param-NAME`, each with its NAME in small letters and its value as it came (2026-07-28
    /// `basic/transports/streamable-http`, "Custom Headers from Tool Parameters").
    pub params: Vec<(Box<str>, Box<[u8]>)>,
}

impl Mirrored {
    /// What a message of the session era comes with.
    pub fn nothing() -> &'static Self {
        static NOTHING: Mirrored = Mirrored { caller: None, params: Vec::new() };
        &NOTHING
    }
}

/// Why a message is not for the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A request with this id is in flight in this session.
    DuplicateId(ClientId),
    /// The session has had its `initialize`: the request with this id repeats it.
    AlreadyInitialized(ClientId),
    /// A response to a request that the child never made.
    UnknownResponse,
}

/// Whether a stream has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readership {
    /// A reader is there.
    Present,
    /// The reader has left, and can resume behind an event that it has seen.
    MayResume,
    /// Nothing reads it, and nothing can resume it.
    Absent,
}

/// The readership of each stream.
pub type Readers<'r> = &'r dyn Fn(StreamId) -> Readership;

/// Whether the caller with this digest goes on: see [`Mirrored::caller`].
pub type Keeps<'k> = &'k dyn Fn(&[u8; 32]) -> bool;

/// The clients of one session, as its loop sees them. `now` is the time since the session began.
pub trait Front: Send {
    /// Takes a message of a client.
    ///
    /// # Errors
    /// [`Refusal`], where the message is not for the child. It has changed nothing then.
    fn client(
        &mut self,
        message: Message,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal>;

    /// Takes a message of the child.
    fn child(&mut self, message: Incoming<'_>, now: Duration, readers: Readers<'_>, out: &mut Out);

    /// Takes note of a message of the child that began with `head` and was too long to take.
    fn child_too_long(&mut self, head: &[u8], out: &mut Out);

    /// Takes note of what was to be a response of the child and is none. Returns whether a request has ended with it.
    fn child_broken(&mut self, broken: &Broken<'_>, out: &mut Out) -> bool;

    /// Whether this answers a request that the child has.
    fn awaits(&self, answer: &Incoming<'_>) -> bool;

    /// Ends all whose deadline has passed.
    fn expire(&mut self, now: Duration, readers: Readers<'_>, out: &mut Out);

    /// When the next deadline passes.
    fn next_deadline(&self) -> Option<Duration>;

    /// The reader of a stream has left. `took_all`: it had taken every event that there was.
    fn reader_left(&mut self, stream: StreamId, took_all: bool, now: Duration, out: &mut Out);

    /// How many requests of clients have no answer yet.
    fn in_flight(&self) -> usize;

    /// Whether there is room for a further message: what waits for the handshake is bounded.
    fn accepting(&self) -> bool;

    /// How many bytes wait for the child to be ready, or for clients to come back.
    fn held_bytes(&self) -> usize;

    /// Another session has its lane to the child from now on: a stream for all that the child says to it, which no answer
    /// ends. What it tells the child comes through [`client`](Self::client), from this stream, and it leaves with
    /// [`reader_left`](Self::reader_left).
    fn join(&mut self, _lane: StreamId) {}

    /// Whether another session has its lane to the child.
    fn has_lanes(&self) -> bool {
        false
    }

    /// Whether some client listens to what the child sends unasked: the session is not idle then.
    fn is_listening(&self) -> bool {
        false
    }

    /// Of clients whose callers are told apart, only these go on: ends what all others have begun.
    fn keep_callers(&mut self, _: Keeps<'_>, _: Duration, _: &mut Out) {}

    /// The session is about to end: says what clients are to be told before [`abandon`](Self::abandon).
    fn farewell(&mut self, _: &mut Out) {}

    /// Whether the session can go on with another child. Where it cannot, the next request of its clients opens another one.
    fn can_restart(&self) -> bool {
        false
    }

    /// The child is gone and another will come: ends the requests that it may have seen and returns them, oldest first.
    fn child_lost(&mut self) -> Vec<(StreamId, ClientId)> {
        self.abandon()
    }

    /// Begins the handshake with the new child.
    fn restart(&mut self, _: Duration, _: &mut Out) {}

    /// The session is over: ends every request and returns them, oldest first.
    fn abandon(&mut self) -> Vec<(StreamId, ClientId)>;

    /// That every index and every sum says what the tables say.
    #[cfg(test)]
    fn check(&self);
}

/// What a front remembers of a request in flight.
#[derive(Debug)]
struct Caller {
    client: ClientId,
    stream: StreamId,
    takes: Takes,
    token: Option<ProgressToken>,
    /// Whether it has something in place of a token that is none.
    odd_token: bool,
    /// Whether it asks for log messages, as only a client of 2026-07-28 does.
    wants_logs: bool,
    /// Whether its result names tools.
    lists_tools: bool,
    /// See [`Mirrored::caller`].
    owner: Option<[u8; 32]>,
}

impl Caller {
    /// The caller of this request, and where its progress token lies in the text.
    fn of(request: &Request, from: Origin<'_>) -> (Self, Option<Span>) {
        let span = request.token();
        let token = span.clone().and_then(|span| std::str::from_utf8(request.text().get(span)?).ok());
        let token = token.and_then(Id::parse).map(ProgressToken);
        let Origin { stream, takes, .. } = from;
        let odd_token = span.is_some() && token.is_none();
        let (client, wants_logs) = (ClientId(request.id().clone()), request.asks_for_logs());
        let (lists_tools, owner) = (request.method() == "tools/list", from.mirrored.caller);
        (Self { client, stream, takes, token, odd_token, wants_logs, lists_tools, owner }, span)
    }

    /// The token by which its client knows progress of this request. Servers take the id of a request for it where the
    /// client has named none, and without a bridge between them the client would see its own.
    fn token(&self) -> &Id {
        self.token.as_ref().map_or(&self.client.0, |token| &token.0)
    }

    /// Ends its request without an answer of the child.
    fn unanswered(self, why: Unanswered, out: &mut Out) {
        out.push(Output::Unanswered { stream: self.stream, id: self.client, why });
    }
}

/// Whether this is `initialized`, sent as a request: some clients give an id to everything. It must not reach the child,
/// which would take it for the handshake, or answer that it knows no such method; and a refusal would end such a client.
pub(super) fn is_initialized(request: &Request) -> bool {
    request.method() == "notifications/initialized"
}

/// Takes it for what it means, and answers it.
fn acknowledge<C>(link: &mut Link<C>, caller: &Caller, now: Duration, out: &mut Out) {
    link.initialized_as_request(now, out);
    let message = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, caller.client.0.as_json()).into();
    out.push(Output::Answer { stream: caller.stream, message, success: true });
}

/// The id that a cancellation names, and where it lies in the text; `None` where the notification is none, or names none.
pub(super) fn cancelled(notification: &Notification) -> Option<(Option<ClientId>, Span)> {
    if notification.method() != "notifications/cancelled" {
        return None;
    }
    let span = notification.subject()?;
    let token = notification.text().get(span.clone()).and_then(|token| std::str::from_utf8(token).ok());
    Some((token.and_then(Id::parse).map(ClientId), span))
}

/// The progress token that a child of one client names. Children that keep numbers as floats echo 7 as 7.0.
pub(super) fn progress_token(named: &str) -> Option<ProgressToken> {
    Id::parse(named).or_else(|| Id::parse(&echoed(named)?.to_string())).map(ProgressToken)
}

/// The stream for what belongs to one of a client's calls, the newest first, if it does not say to which: the newest that
/// can take it. Where there is none, it is for the listening stream; and where nothing reads, for the newest call whose
/// client can come back for it.
pub(super) fn related_stream<I: Iterator<Item = (StreamId, Takes)>>(
    calls: impl Fn() -> I,
    readers: Readers<'_>,
) -> StreamId {
    let newest = |wanted| {
        let mut calls = calls().filter(|(_, takes)| *takes == Takes::Events);
        calls.find(|(stream, _)| readers(*stream) == wanted)
    };
    let related = newest(Readership::Present).or_else(|| match readers(StreamId::LISTENING) {
        Readership::Present => None,
        _ => newest(Readership::MayResume),
    });
    related.map_or(StreamId::LISTENING, |(stream, _)| stream)
}

/// Gives a message of the child to the client whose request it is of, as that client is to see it.
fn pass_on(caller: Option<&Caller>, message: impl FnOnce(&Caller) -> Bytes, out: &mut Out) {
    match caller {
        None => out.note(Note::Dropped(Dropped::Unrelated)),
        Some(Caller { takes: Takes::AnswerOnly, .. }) => out.note(Note::Dropped(Dropped::NotStreamable)),
        Some(caller) => {
            let message = message(caller);
            out.push(Output::Message { stream: caller.stream, message });
        }
    }
}

/// Gives progress to the client whose request it names. Its token is the bridge's own id of it, also where the client has
/// named none and the server takes the id of the request.
fn pass_progress<C>(
    link: &Link<C>,
    message: Incoming<'_>,
    client: for<'c> fn(&'c C) -> Option<&'c Caller>,
    out: &mut Out,
) {
    let Some(span) = message.envelope.subject() else {
        return out.note(Note::Dropped(Dropped::Unrelated));
    };
    let id = link.id_named(message.token(span.clone())).filter(|id| !link.is_listen(*id));
    let caller = id.and_then(|id| client(link.caller(id)?)).filter(|caller| !caller.odd_token);
    pass_on(caller, |caller| message.replaced(span, caller.token().as_json().as_bytes()), out);
}

/// A request of a client that ends without an answer of the child.
type Ended<C> = (BridgeId, C, Unanswered);

/// The request whose answer is too long to take, of clients of whom none has opened the session.
pub(super) fn too_long<C>(link: &mut Link<C>, head: &[u8], out: &mut Out) -> Option<Ended<C>> {
    match link.too_long(head, out) {
        Untaken::Call(id, caller) => return Some((id, caller, Unanswered::TooLong)),
        Untaken::Handshake => out.push(Output::Handshake(Handshake::Refused)),
        Untaken::Nothing => {}
        Untaken::Unclear => out.push(Output::AnswerToUnknown),
    }
    None
}

/// The request whose answer is none, likewise; `Err`: whether something else has ended with it.
pub(super) fn broken<C>(link: &mut Link<C>, broken: &Broken<'_>, out: &mut Out) -> Result<Ended<C>, bool> {
    let wrong = broken.wrong;
    match link.broken(broken) {
        Untaken::Call(id, caller) => Ok((id, caller, Unanswered::Invalid(wrong))),
        Untaken::Handshake => {
            out.push(Output::Handshake(Handshake::Invalid(wrong)));
            Err(true)
        }
        Untaken::Nothing | Untaken::Unclear => Err(false),
    }
}

/// A request whose deadline has passed, likewise; `None`: there are no more.
pub(super) fn expired<C>(link: &mut Link<C>, now: Duration, out: &mut Out) -> Option<Ended<C>> {
    loop {
        match link.expire(now, out)? {
            Expired::Handshake { echoed: true } => out.push(Output::Handshake(Handshake::Echoed)),
            Expired::Handshake { .. } => out.push(Output::Handshake(Handshake::TimedOut)),
            Expired::Call(id, caller, why) => return Some((id, caller, why)),
        }
    }
}

/// The edit that gives an answer its client's id; a child that lost the id gets it back.
pub(super) fn id_edit(answer: &Incoming<'_>, client: &ClientId) -> (Span, Vec<u8>) {
    let id = client.0.as_json();
    match answer.envelope.id.clone() {
        Some(span) => (span, id.into()),
        None => {
            let behind_brace = memchr::memchr(b'{', answer.text()).map_or(0, |brace| brace + 1);
            (behind_brace..behind_brace, format!("\"id\":{id},").into())
        }
    }
}

/// The text of an answer with its id replaced.
fn with_id(answer: Incoming<'_>, client: &ClientId) -> Bytes {
    let (span, id) = id_edit(&answer, client);
    answer.replaced(span, &id)
}

#[cfg(test)]
pub(in crate::proto) mod tests;
