//! The envelope of a JSON-RPC message: what kind it is and where its parts lie, without parsing what is inside.
//!
//! Three things that a derived serde struct would let pass are refused here, each with a test: an array read as a
//! struct, `"id": null` read as an absent id, and invalid UTF-8 in a part that is skipped.
//!
//! So is what two readers may read in two ways: a message passes programs in front of the bridge that inspect it and a
//! server behind it, and each has a parser of its own. Every member that the bridge reads or rewrites occurs once in
//! what a client sends, and no other name beside it may be taken for it. The tables at the end of this file say which those are.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::ids::{Id, MAX_ID};
use super::json::{Field, Found, Look, Span, Unescaped, is_alike, is_json, slice, unquote, value_at};
use crate::printable::cut;

/// What kind of message it is (JSON-RPC 2.0 §4, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result.
    Success,
    /// Has an error.
    Failure,
}

/// Why a text is not a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not UTF-8, or not JSON.
    Parse,
    /// JSON, but not a JSON-RPC 2.0 message of MCP: its id where it has a usable one, and what is wrong with it.
    Invalid(Option<Id>, &'static str),
}

/// The parts of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub kind: Kind,
    /// The id's token; absent in a notification, in an error about an id that could not be read, and in the answers of
    /// servers that lose it.
    pub id: Option<Span>,
    /// The method's token, in its quotes.
    pub method: Option<Span>,
    /// The value of `params`.
    pub params: Option<Span>,
    /// The value of `result`.
    pub result: Option<Span>,
    read: Read,
}

/// The members inside `params` or `result` that the bridge reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    /// The value of `_meta.progressToken`.
    token: Option<Span>,
    /// The value of `_meta`, in `params` or in `result`.
    meta: Option<Span>,
    /// Whether `params._meta` names a revision, as requests of 2026-07-28 do, or `result` its `resultType`, as results of
    /// it do.
    is_modern: bool,
    result_type: ResultType,
    /// Whether `params._meta` asks for log messages, as a request of 2026-07-28 may.
    asks_for_logs: bool,
    /// The value of `_meta["io.modelcontextprotocol/subscriptionId"]`, in `params` or in `result`.
    subscription: Option<Span>,
    /// The one that the message is about: see [`Envelope::subject`].
    subject: Option<Span>,
}

/// The type of a result (2026-07-28 `basic/index`, "`resultType`").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultType {
    /// It has none, as results of the session era, or null in its place.
    #[default]
    None,
    Complete,
    /// The server needs something of the client first.
    InputRequired,
    Other,
}

/// The longest token that is looked at for what it says, in bytes. A longer one is no method, name or id of ours.
pub(super) const MAX_TOKEN: usize = 2 * MAX_ID;

impl Envelope {
    /// Reads the envelope of one message.
    ///
    /// # Errors
    /// [`Malformed`], where the text is not exactly one message.
    pub fn peek(text: &[u8]) -> Result<Self, Malformed> {
        Self::read(utf8(text)?).map(|(envelope, _)| envelope)
    }

    /// The same, with what else has been found.
    pub(super) fn read(text: &str) -> Result<(Self, Reading), Malformed> {
        let mut reading = Reading::new();
        if reading.look.go_on(text.as_bytes(), usize::MAX).is_none() {
            // It may be JSON all the same: an array, a number.
            return Err(if !text.trim_ascii_start().starts_with('{') && is_json(text) {
                Malformed::Invalid(None, "a message is a JSON object")
            } else {
                Malformed::Parse
            });
        }
        Ok((Self::of(reading.look.found(), text.as_bytes())?, reading))
    }

    /// The envelope of the message in which this has been found.
    fn of(found: &Found<SLOTS>, text: &[u8]) -> Result<Self, Malformed> {
        let at = |slot: usize| found.at(slot).cloned();
        let part = |slot: usize| at(slot).map(|span| token(text, span));
        let invalid = |why| Err(Malformed::Invalid(part(ID).and_then(Id::parse), why));
        if let Some(sentences) = sentences(found.twice() & ENVELOPE) {
            return invalid(sentences.twice);
        }
        if part(JSONRPC).is_none_or(|token| unquote(token) != "2.0") {
            return invalid("\"jsonrpc\" must be \"2.0\"");
        }
        // Servers that come from JSON-RPC 1.0 send both, one of them null.
        let null = |slot| part(slot) == Some("null");
        let (result, error) = match (at(RESULT).is_some(), at(ERROR).is_some()) {
            (true, true) if null(ERROR) => (true, false),
            (true, true) if null(RESULT) => (false, true),
            both => both,
        };
        let kind = match (at(METHOD).is_some(), at(ID).is_some(), result, error) {
            (true, true, false, false) => Kind::Request,
            (true, false, false, false) => Kind::Notification,
            (false, _, true, false) => Kind::Success,
            (false, _, false, true) => Kind::Failure,
            (true, ..) => return invalid("a message has either a method or a result or an error"),
            (false, _, true, true) => return invalid("a response has either a result or an error"),
            (false, _, false, false) => return invalid("a message needs a method, a result or an error"),
        };
        if at(METHOD).is_some_and(|span| text.get(span.start) != Some(&b'"')) {
            return invalid("\"method\" must be a string");
        }
        let subject = match kind {
            Kind::Request | Kind::Notification => {
                part(METHOD).and_then(|token| Method::find(&unquote(token))?.subject)
            }
            Kind::Success => Some(VERSION),
            Kind::Failure => None,
        };
        let doubted = found.twice() | found.alike();
        let subject = subject.filter(|slot| doubted & (1 << slot) == 0);
        let (meta, modern, subscription) = match kind {
            Kind::Request | Kind::Notification => (META, REVISION, META_SUBSCRIPTION),
            Kind::Success | Kind::Failure => (RESULT_META, RESULT_TYPE, RESULT_SUBSCRIPTION),
        };
        let read = Read {
            token: at(TOKEN),
            meta: at(meta),
            is_modern: at(modern).is_some(),
            result_type: part(RESULT_TYPE).filter(|_| kind == Kind::Success).map_or_else(
                ResultType::default,
                |token| match &*unquote(token) {
                    _ if token == "null" => ResultType::None,
                    "complete" => ResultType::Complete,
                    "input_required" => ResultType::InputRequired,
                    _ => ResultType::Other,
                },
            ),
            asks_for_logs: part(META_LEVEL).is_some_and(|level| level != "null"),
            subscription: Some(subscription).filter(|slot| doubted & (1 << slot) == 0).and_then(at),
            subject: subject.and_then(at),
        };
        let result = at(RESULT).filter(|_| kind == Kind::Success);
        Ok(Self { kind, id: at(ID), method: at(METHOD), params: at(PARAMS), result, read })
    }

    /// Whether `text`, which a client has sent, is read in one way by all.
    fn check(&self, text: &[u8], found: &Found<SLOTS>) -> Result<(), &'static str> {
        let method = self.method.clone().map_or("\"\"", |span| slice(text, span));
        // Strings of C end at NUL, and half a surrogate pair is dropped by some: "initialize\u0000" is theirs to answer.
        if Unescaped::of(method).any(|char| char.is_control() || char == char::REPLACEMENT_CHARACTER) {
            return Err("\"method\" has a control character, or half a surrogate pair");
        }
        let known = Method::find(&unquote(method));
        if known.is_none() && METHODS.iter().any(|known| is_alike(Unescaped::of(method), known.name)) {
            return Err("\"method\" is spelt almost like one of the protocol's");
        }
        let strict = ALWAYS | known.map_or(0, |method| method.strict);
        if let Some(sentences) = sentences(found.twice() & strict) {
            return Err(sentences.twice);
        }
        if let Some(sentences) = sentences(found.alike() & strict) {
            return Err(sentences.alike);
        }
        let params = self.params.clone().map_or("null", |span| slice(text, span));
        // Of a call the bridge only looks whether it is of a certain tool: a server refuses a bad one itself.
        if known.is_some_and(|method| method.subject.is_some_and(|slot| slot != NAME))
            && params != "null"
            && !params.starts_with('{')
        {
            return Err("\"params\" must be an object");
        }
        Ok(())
    }

    /// The method of a request or notification; empty for a response.
    pub fn method<'t>(&self, text: &'t [u8]) -> Cow<'t, str> {
        self.method.clone().map_or(Cow::Borrowed(""), |span| unquote(token(text, span)))
    }

    /// The id in the text, where it is one a peer may use.
    pub fn id(&self, text: &[u8]) -> Option<Id> {
        Id::parse(token(text, self.id.clone()?))
    }

    /// Where the member lies that the message is about, if the bridge reads it: in `params` `requestId` of a cancellation,
    /// `progressToken` of progress, `protocolVersion` of `initialize`, `uri` of a subscription, `name` of a call; in `result`
    /// the `protocolVersion` that a child answers. `None` too where the text has two of them.
    pub fn subject(&self) -> Option<Span> {
        self.read.subject.clone()
    }

    /// The value of `_meta` in `params` or in `result`.
    pub fn meta(&self) -> Option<Span> {
        self.read.meta.clone()
    }

    /// Where the id lies of the subscription that it belongs to (2026-07-28 `basic/patterns/subscriptions`). `None` too where
    /// the text has two of them.
    pub fn subscription(&self) -> Option<Span> {
        self.read.subscription.clone()
    }

    /// Whether it is of 2026-07-28 by its own word: a request or notification names the revision, a result its type.
    pub fn is_modern(&self) -> bool {
        self.read.is_modern
    }

    /// What its `result` says that it is.
    pub fn result_type(&self) -> ResultType {
        self.read.result_type
    }
}

/// The reading of one message, which can pause: what has been found so far.
#[derive(Debug)]
pub(super) struct Reading {
    look: Look<SLOTS>,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { look: Look::new(ENVELOPE_FIELDS) }
    }

    /// Reads on, as far as so many bytes. `None`: the text is no message; nothing inside the `Some`: it goes on.
    #[expect(clippy::option_option, reason = "what is no message ends it, a pause does not")]
    pub(super) fn step(&mut self, text: &[u8], piece: usize) -> Option<Option<Envelope>> {
        let until = self.look.position().saturating_add(piece);
        if !self.look.go_on(text, until)? {
            return Some(None);
        }
        Envelope::of(self.look.found(), text).ok().map(Some)
    }
}

fn utf8(text: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(text).map_err(|_| Malformed::Parse)
}

/// A token of a text that is known to be UTF-8; empty where it is longer than [`MAX_TOKEN`].
pub(super) fn token(text: &[u8], span: Span) -> &str {
    if span.len() > MAX_TOKEN { "" } else { slice(text, span) }
}

/// One message of a client, by what it is.
#[derive(Clone, Debug)]
pub enum Message {
    Request(Request),
    Notification(Notification),
    /// It answers a request of the server.
    Response(Response),
}

impl Message {
    /// Reads one message, with the rules for what a client sends: the id of a request or response is a string or
    /// an integer (spec `basic`), and at most [`MAX_ID`] bytes long.
    ///
    /// # Errors
    /// [`Malformed`], where the text is not exactly one such message.
    pub fn parse(text: Bytes) -> Result<Self, Malformed> {
        const BAD_ID: Malformed =
            Malformed::Invalid(None, "\"id\" must be a string or an integer, not longer than 8 KiB");
        let (envelope, reading) = Envelope::read(utf8(&text)?)?;
        let id = envelope.id(&text);
        if let Err(why) = envelope.check(&text, reading.look.found()) {
            return Err(Malformed::Invalid(id, why));
        }
        // A child that looks at the method alone would take it for the handshake, which it must see once.
        if envelope.kind == Kind::Notification && envelope.method(&text) == "initialize" {
            return Err(Malformed::Invalid(None, "\"initialize\" needs an id"));
        }
        let Envelope { kind, id: id_span, method, params, read, .. } = envelope;
        Ok(match (kind, id, id_span, method) {
            (Kind::Request, Some(id), Some(id_span), Some(method)) => {
                Self::Request(Request { text, id, id_span, method, params, read })
            }
            (Kind::Notification, _, _, Some(method)) => {
                Self::Notification(Notification { text, method, read })
            }
            (Kind::Success | Kind::Failure, Some(id), ..) => Self::Response(Response { text, id }),
            _ => return Err(BAD_ID),
        })
    }

    /// Its text, as it came.
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Request(request) => &request.text,
            Self::Notification(notification) => &notification.text,
            Self::Response(response) => &response.text,
        }
    }

    pub fn request(&self) -> Option<&Request> {
        if let Self::Request(request) = self { Some(request) } else { None }
    }

    /// Its method; empty for a response.
    pub fn method(&self) -> Cow<'_, str> {
        match self {
            Self::Request(request) => request.method(),
            Self::Notification(notification) => notification.method(),
            Self::Response(_) => Cow::Borrowed(""),
        }
    }

    /// Whether it names the revision by itself, in `params._meta`, as messages of 2026-07-28 do.
    pub fn names_revision(&self) -> bool {
        match self {
            Self::Request(request) => request.read.is_modern,
            Self::Notification(notification) => notification.read.is_modern,
            Self::Response(_) => false,
        }
    }

    /// The id by which its client knows it: that of a request or of what a response answers; `None` for a notification.
    pub fn id(&self) -> Option<&Id> {
        match self {
            Self::Request(request) => Some(&request.id),
            Self::Notification(_) => None,
            Self::Response(response) => Some(&response.id),
        }
    }
}

/// A request of a client: its text as it came, and where its parts lie.
#[derive(Clone, Debug)]
pub struct Request {
    text: Bytes,
    id: Id,
    id_span: Span,
    method: Span,
    params: Option<Span>,
    read: Read,
}

impl Request {
    /// A request of the bridge's own. `params` is the text of a JSON object.
    pub fn own(method: &str, params: &str) -> Self {
        let (head, middle, behind) = (r#"{"jsonrpc":"2.0","id":"#, r#","method":"#, r#","params":"#);
        let id = Id::from(0);
        let method = format!("\"{method}\"");
        let text = [head, id.as_json(), middle, &method, behind, params, "}"].concat();
        let id_span = head.len()..head.len() + id.as_json().len();
        let method = id_span.end + middle.len()..id_span.end + middle.len() + method.len();
        let params = text.len() - 1 - params.len()..text.len() - 1;
        Self { text: text.into(), id, id_span, method, params: Some(params), read: Read::default() }
    }

    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub fn id(&self) -> &Id {
        &self.id
    }

    pub fn id_span(&self) -> Span {
        self.id_span.clone()
    }

    pub fn method(&self) -> Cow<'_, str> {
        unquote(slice(&self.text, self.method.clone()))
    }

    /// Where its progress token lies in the text: `params._meta.progressToken`.
    pub fn token(&self) -> Option<Span> {
        self.read.token.clone()
    }

    /// The member of `params` that its method is about: see [`Envelope::subject`].
    pub fn subject(&self) -> Option<&str> {
        self.read.subject.clone().map(|span| slice(&self.text, span))
    }

    /// Where its `params` lie in the text.
    pub fn params(&self) -> Option<Span> {
        self.params.clone()
    }

    /// Where its `params._meta` lies in the text.
    pub fn meta(&self) -> Option<Span> {
        self.read.meta.clone()
    }

    /// Whether it asks for log messages about itself (2026-07-28 `server/utilities/logging`).
    pub fn asks_for_logs(&self) -> bool {
        self.read.asks_for_logs
    }

    /// The same with other parameters, or with some where it had none: the text of a JSON object, and where in it the
    /// progress token lies.
    pub fn with_params(&self, params: &str, token: Option<Span>) -> Self {
        const MEMBER: &str = ",\"params\":";
        let Some(before) = self.params() else {
            // Behind the method, as the value that it has from then on.
            let at = self.method.end;
            let mut text = BytesMut::with_capacity(self.text.len() + MEMBER.len() + "null".len());
            for part in [self.text.get(..at), Some(MEMBER.as_bytes()), Some(b"null"), self.text.get(at..)] {
                text.extend_from_slice(part.unwrap_or_default());
            }
            let (length, id) = (text.len() - self.text.len(), self.id_span());
            let id_span = if id.start < at { id } else { id.start + length..id.end + length };
            let place = Some(at + MEMBER.len()..at + length);
            let with_null = Self { text: text.freeze(), id_span, params: place, ..self.clone() };
            return with_null.with_params(params, token);
        };
        let mut text = BytesMut::with_capacity(self.text.len() + params.len());
        text.extend_from_slice(self.text.get(..before.start).unwrap_or_default());
        text.extend_from_slice(params.as_bytes());
        text.extend_from_slice(self.text.get(before.end..).unwrap_or_default());
        // What stands behind them has moved.
        let moved = |span: Span| match span.start < before.end {
            true => span,
            false => span.start - before.len() + params.len()..span.end - before.len() + params.len(),
        };
        let inside = |span: Span| before.start + span.start..before.start + span.end;
        Self {
            text: text.freeze(),
            id: self.id.clone(),
            id_span: moved(self.id_span.clone()),
            method: moved(self.method.clone()),
            params: Some(before.start..before.start + params.len()),
            read: Read { token: token.map(inside), ..Read::default() },
        }
    }

    /// The same in a buffer of its own: one that is kept for long must not keep the body alive in which it came.
    pub fn detached(&self) -> Self {
        Self { text: Bytes::copy_from_slice(&self.text), ..self.clone() }
    }
}

/// A notification of a client: its text as it came, and where its parts lie.
#[derive(Clone, Debug)]
pub struct Notification {
    text: Bytes,
    method: Span,
    read: Read,
}

impl Notification {
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The same in a buffer of its own: one that waits must not keep the body alive in which it came.
    pub fn detached(&self) -> Self {
        Self { text: Bytes::copy_from_slice(&self.text), ..self.clone() }
    }

    pub fn method(&self) -> Cow<'_, str> {
        unquote(slice(&self.text, self.method.clone()))
    }

    /// Where the member of `params` lies that its method is about: see [`Envelope::subject`].
    pub fn subject(&self) -> Option<Span> {
        self.read.subject.clone()
    }
}

/// A client's answer to a request of the server: its text as it came, and the id.
#[derive(Clone, Debug)]
pub struct Response {
    text: Bytes,
    id: Id,
}

impl Response {
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The id of the request that it answers.
    pub fn id(&self) -> &Id {
        &self.id
    }
}

/// What the beginning of a message that was cut off tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Head<'t> {
    /// It does not begin as a JSON object.
    NoMessage,
    /// It is a request with this id, or a notification.
    Call(Option<&'t str>),
    /// It answers the request with this id.
    Answer(&'t str),
    /// It may be anything.
    Unclear,
}

/// Reads the beginning of a message that was cut off.
pub fn peek_head(head: &[u8]) -> Head<'_> {
    // The cut may have gone through a character.
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => {
            head.get(..error.valid_up_to()).and_then(|head| std::str::from_utf8(head).ok()).unwrap_or("")
        }
    };
    if !text.trim_start().starts_with('{') {
        return Head::NoMessage;
    }
    let mut look = Look::<SLOTS>::new(ENVELOPE_FIELDS);
    look.go_on(text.as_bytes(), usize::MAX); // it cannot be complete
    let found = look.found();
    if found.twice() & ENVELOPE != 0 {
        return Head::Unclear;
    }
    let id = found.at(ID).cloned().and_then(|span| Some((span.end, text.get(span)?)));
    // A number that touches the cut may go on behind it.
    let id = id.filter(|(end, token)| *end < text.len() || token.ends_with('"')).map(|(_, token)| token);
    match (found.at(METHOD), id) {
        (Some(_), id) => Head::Call(id),
        // An id is followed by a method, a result or an error, and the last two are what grows so long.
        (None, Some(id)) => Head::Answer(id),
        (None, None) => Head::Unclear,
    }
}

/// Declares the members that are looked for, each with its slot, and what is said where two readers may differ.
macro_rules! members {
    ($($constant:ident = $path:literal,)*) => {
        members!(@slots 0usize; $($constant,)*);
        /// By their slots.
        const SENTENCES: &[Sentences] = &[$(Sentences {
            twice: concat!("\"", $path, "\" occurs twice"),
            alike: concat!("a member is spelt almost like \"", $path, "\""),
        }),*];
        const SLOTS: usize = SENTENCES.len();
    };
    (@slots $slot:expr; $constant:ident, $($rest:ident,)*) => {
        const $constant: usize = $slot;
        members!(@slots $slot + 1; $($rest,)*);
    };
    (@slots $slot:expr;) => {};
}

members! {
    JSONRPC = "jsonrpc",
    ID = "id",
    METHOD = "method",
    PARAMS = "params",
    RESULT = "result",
    ERROR = "error",
    META = "params._meta",
    TOKEN = "params._meta.progressToken",
    REVISION = "params._meta.io.modelcontextprotocol/protocolVersion",
    META_CAPABILITIES = "params._meta.io.modelcontextprotocol/clientCapabilities",
    META_CLIENT = "params._meta.io.modelcontextprotocol/clientInfo",
    META_LEVEL = "params._meta.io.modelcontextprotocol/logLevel",
    META_SUBSCRIPTION = "params._meta.io.modelcontextprotocol/subscriptionId",
    REQUEST_ID = "params.requestId",
    PROGRESS_TOKEN = "params.progressToken",
    PROTOCOL_VERSION = "params.protocolVersion",
    CAPABILITIES = "params.capabilities",
    CLIENT_INFO = "params.clientInfo",
    URI = "params.uri",
    LEVEL = "params.level",
    NAME = "params.name",
    ARGUMENTS = "params.arguments",
    TASK = "params.task",
    TASK_ID = "params.taskId",
    NOTIFICATIONS = "params.notifications",
    INPUT_RESPONSES = "params.inputResponses",
    REQUEST_STATE = "params.requestState",
    VERSION = "result.protocolVersion",
    RESULT_META = "result._meta",
    RESULT_TYPE = "result.resultType",
    RESULT_SUBSCRIPTION = "result._meta.io.modelcontextprotocol/subscriptionId",
}

/// What is wrong with a message in which a member may be read in two ways.
struct Sentences {
    twice: &'static str,
    alike: &'static str,
}

/// The sentences about the first of these members.
fn sentences(members: u32) -> Option<&'static Sentences> {
    SENTENCES.get(usize::try_from(members.trailing_zeros()).ok()?)
}

const fn field(name: &'static str, slot: usize) -> Field {
    Field { name, slot, inside: &[] }
}

const ENVELOPE_FIELDS: &[Field] = &[
    field("jsonrpc", JSONRPC),
    field("id", ID),
    field("method", METHOD),
    Field { name: "params", slot: PARAMS, inside: PARAMS_FIELDS },
    Field { name: "result", slot: RESULT, inside: RESULT_FIELDS },
    field("error", ERROR),
];

/// What is read of the parameters, of whatever method. Which of them must be unmistakable depends on the method: those of
/// one that is not known here may have any names.
const PARAMS_FIELDS: &[Field] = &[
    Field { name: "_meta", slot: META, inside: META_FIELDS },
    field("requestId", REQUEST_ID),
    field("progressToken", PROGRESS_TOKEN),
    field("protocolVersion", PROTOCOL_VERSION),
    field("capabilities", CAPABILITIES),
    field("clientInfo", CLIENT_INFO),
    field("uri", URI),
    field("level", LEVEL),
    field("name", NAME),
    field("arguments", ARGUMENTS),
    field("task", TASK),
    field("taskId", TASK_ID),
    field("notifications", NOTIFICATIONS),
    field("inputResponses", INPUT_RESPONSES),
    field("requestState", REQUEST_STATE),
];

const META_FIELDS: &[Field] = &[
    field("progressToken", TOKEN),
    field("io.modelcontextprotocol/protocolVersion", REVISION),
    field("io.modelcontextprotocol/clientCapabilities", META_CAPABILITIES),
    field("io.modelcontextprotocol/clientInfo", META_CLIENT),
    field("io.modelcontextprotocol/logLevel", META_LEVEL),
    field("io.modelcontextprotocol/subscriptionId", META_SUBSCRIPTION),
];

const RESULT_FIELDS: &[Field] = &[
    field("protocolVersion", VERSION),
    Field { name: "_meta", slot: RESULT_META, inside: RESULT_META_FIELDS },
    field("resultType", RESULT_TYPE),
];

const RESULT_META_FIELDS: &[Field] = &[field("io.modelcontextprotocol/subscriptionId", RESULT_SUBSCRIPTION)];

/// The members of the envelope.
const ENVELOPE: u32 = 1 << JSONRPC | 1 << ID | 1 << METHOD | 1 << PARAMS | 1 << RESULT | 1 << ERROR;

/// What must be unmistakable in every message.
const ALWAYS: u32 = ENVELOPE
    | 1 << META
    | 1 << TOKEN
    | 1 << REVISION
    | 1 << META_CAPABILITIES
    | 1 << META_CLIENT
    | 1 << META_LEVEL
    | 1 << META_SUBSCRIPTION;

/// What a client sends with a request that it repeats because the server has asked something (2026-07-28
/// `basic/patterns/mrtr`).
const ANSWERS: u32 = 1 << INPUT_RESPONSES | 1 << REQUEST_STATE;

/// A method whose parameters the bridge reads, or those who inspect messages in front of it do.
struct Method {
    name: &'static str,
    /// The parameter that the bridge reads.
    subject: Option<usize>,
    /// Those that must be unmistakable.
    strict: u32,
}

impl Method {
    fn find(name: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.name == name)
    }
}

const fn method(name: &'static str, subject: Option<usize>, strict: u32) -> Method {
    Method { name, subject, strict }
}

/// No other method may be spelt almost like one of these.
const METHODS: &[Method] = &[
    method("tools/call", Some(NAME), 1 << NAME | 1 << ARGUMENTS | 1 << TASK | ANSWERS),
    method(
        "initialize",
        Some(PROTOCOL_VERSION),
        1 << PROTOCOL_VERSION | 1 << CAPABILITIES | 1 << CLIENT_INFO,
    ),
    method("notifications/initialized", None, 0),
    method("notifications/cancelled", Some(REQUEST_ID), 1 << REQUEST_ID),
    method("notifications/progress", Some(PROGRESS_TOKEN), 1 << PROGRESS_TOKEN),
    method("resources/subscribe", Some(URI), 1 << URI),
    method("resources/unsubscribe", Some(URI), 1 << URI),
    method("resources/read", None, 1 << URI | ANSWERS),
    method("prompts/get", None, 1 << NAME | 1 << ARGUMENTS | ANSWERS),
    method("server/discover", None, 0),
    method("subscriptions/listen", Some(NOTIFICATIONS), 1 << NOTIFICATIONS),
    method("notifications/resources/updated", Some(URI), 1 << URI),
    method("logging/setLevel", None, 1 << LEVEL),
    method("tasks/get", None, 1 << TASK_ID),
    method("tasks/result", None, 1 << TASK_ID),
    method("tasks/cancel", None, 1 << TASK_ID),
    method("tasks/update", None, 1 << TASK_ID),
    method("server/discover", None, 0),
    method("ping", None, 0),
];

/// The longest error that [`refusal`] looks into, in bytes: it is read on the loop of all sessions, for one log line.
pub const MAX_REFUSAL: usize = 64 * 1024;

/// The `code` and the `message` of an error answer, as far as they may be shown; `?` in place of a code that is no number,
/// and of one in an error that is longer than [`MAX_REFUSAL`].
pub fn refusal(text: &str) -> (&str, String) {
    if text.len() > MAX_REFUSAL {
        return ("?", String::new());
    }
    let token = |name| value_at(text, &["error", name]).and_then(|span| text.get(span));
    let is_number =
        |code: &&str| code.len() <= 20 && code.bytes().all(|byte| b"-+.eE0123456789".contains(&byte));
    let message = token("message").filter(|token| token.starts_with('"'));
    let message = message.map(|token| cut(&unquote(token)).into_owned());
    (token("code").filter(is_number).unwrap_or("?"), message.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::json::splice;
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn peek(text: &str) -> Result<Envelope, Malformed> {
        Envelope::peek(text.as_bytes())
    }

    fn invalid(text: &str) -> (Option<String>, &'static str) {
        match peek(text) {
            Err(Malformed::Invalid(id, why)) => (id.map(|id| id.as_json().to_owned()), why),
            other => panic!("{text} should be refused as invalid, got {other:?}"),
        }
    }

    #[test]
    fn an_error_of_megabytes_is_not_looked_into_for_a_log_line() {
        let error = |data: usize| {
            let data = "[],".repeat(data);
            format!(r#"{{"id":1,"error":{{"code":-32022,"message":"no","data":[{data}0]}},"jsonrpc":"2.0"}}"#)
        };
        assert_eq!(refusal(&error(10)), ("-32022", "no".to_owned()));
        assert_eq!(refusal(&error(MAX_REFUSAL)), ("?", String::new()));
    }

    #[test]
    fn the_four_kinds() {
        let table = [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request),
            (r#" { "method" : "x" , "params":{"a":[1]}, "jsonrpc":"2.0" } "#, Kind::Notification),
            (r#"{"jsonrpc":"2.0","id":"a","result":null}"#, Kind::Success),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#, Kind::Failure),
            (r#"{"jsonrpc":"2.0","error":{"code":1}}"#, Kind::Failure),
            (r#"{"jsonrpc":"2.0","result":1}"#, Kind::Success),
            (r#"{"\u006asonrpc":"2.0","\u0069d":1,"method":"ping"}"#, Kind::Request),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","id2":2,"future":{}}"#, Kind::Request),
        ];
        for (text, kind) in table {
            assert_eq!(peek(text).map(|envelope| envelope.kind), Ok(kind), "{text}");
        }
    }

    #[test]
    fn an_array_is_never_read_as_a_message() {
        assert_eq!(invalid(r#"["2.0",1,"ping",null,null,null]"#).1, "a message is a JSON object");
        assert_eq!(invalid(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#).1, "a message is a JSON object");
    }

    #[test]
    fn a_null_id_is_never_read_as_absent() {
        let text = br#"{"jsonrpc":"2.0","id":null,"method":"tools/call"}"#;
        let envelope = Envelope::peek(text).expect("an envelope");
        assert_eq!(envelope.kind, Kind::Request, "a request with a bad id is not a notification");
        assert!(matches!(Message::parse(Bytes::from_static(text)), Err(Malformed::Invalid(None, _))));
        let text = br#"{"jsonrpc":"2.0","id":1,"result":null}"#;
        assert_eq!(Envelope::peek(text).map(|envelope| envelope.kind), Ok(Kind::Success));
    }

    #[test]
    fn invalid_utf8_is_refused_where_it_is_skipped_too() {
        let text = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"params\":{\"a\":\"\xff\"}}";
        assert_eq!(Envelope::peek(text), Err(Malformed::Parse));
    }

    #[test]
    fn what_is_not_json_is_a_parse_error() {
        for text in [
            "",
            " ",
            "{",
            "nope",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"} x",
            "{\"a\":\"\n\"}",
            "\u{feff}{\"jsonrpc\":\"2.0\",\"method\":\"x\"}",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\u{0}",
        ] {
            assert_eq!(peek(text), Err(Malformed::Parse), "{text:?}");
        }
    }

    #[test]
    fn what_is_json_but_no_message_keeps_its_id() {
        let table = [
            (r#"{"id":1,"method":"x"}"#, Some("1"), "\"jsonrpc\" must be \"2.0\""),
            (r#"{"jsonrpc":2.0,"id":1,"method":"x"}"#, Some("1"), "\"jsonrpc\" must be \"2.0\""),
            (r#"{"jsonrpc":"1.0","id":"a","method":"x"}"#, Some("\"a\""), "\"jsonrpc\" must be \"2.0\""),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, Some("2"), "\"id\" occurs twice"),
            (r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"x"}"#, Some("2"), "\"id\" occurs twice"),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Some("1"), "\"method\" must be a string"),
            (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, Some("1"), "\"method\" must be a string"),
            (r#"{"jsonrpc":"2.0","id":1.5}"#, None, "a message needs a method, a result or an error"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","result":1}"#,
                Some("1"),
                "a message has either a method or a result or an error",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#,
                Some("1"),
                "a response has either a result or an error",
            ),
            ("42", None, "a message is a JSON object"),
            ("\"x\"", None, "a message is a JSON object"),
            ("null", None, "a message is a JSON object"),
        ];
        for (text, id, why) in table {
            assert_eq!(invalid(text), (id.map(str::to_owned), why), "{text}");
        }
    }

    #[test]
    fn a_null_beside_a_result_or_an_error_is_as_good_as_absent() {
        let kind = |text| peek(text).map(|envelope| envelope.kind);
        assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#), Ok(Kind::Success));
        assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{}}"#), Ok(Kind::Failure));
    }

    #[test]
    fn nothing_but_the_handshake_may_look_like_it() {
        let text = r#"{"jsonrpc":"2.0","method":"initialize"}"#;
        assert!(matches!(Message::parse(text.into()), Err(Malformed::Invalid(..))), "{text}");
    }

    /// What becomes of a message of a client: `None` if it passes.
    fn refused(text: &str) -> Option<(Option<String>, &'static str)> {
        match Message::parse(Bytes::copy_from_slice(text.as_bytes())) {
            Ok(_) => None,
            Err(Malformed::Invalid(id, why)) => Some((id.map(|id| id.as_json().to_owned()), why)),
            Err(Malformed::Parse) => panic!("{text} is JSON"),
        }
    }

    /// Ways to write a name so that readers which fold case, stop at a NUL or drop half a surrogate pair take it for
    /// `name`, and exact ones do not.
    fn alike(name: &str) -> Vec<String> {
        let mut all = vec![
            name.to_uppercase(),
            name.chars()
                .map(|char| if char == 'e' || char == 'i' { char.to_ascii_uppercase() } else { char })
                .collect(),
            format!("{name}\\u0000"),
            format!("{name}\\u0000x"),
            format!("{name}\\ud800"),
            format!("\\uDC00{name}"),
            format!("\\ud800\\u{:04x}{}", name.as_bytes()[0], &name[1..]),
        ];
        all.extend(
            [("s", "ſ"), ("k", "\u{212a}"), ("k", "\\u212A"), ("i", "ı"), ("I", "İ"), ("s", "\\u017f")]
                .iter()
                .filter(|(from, _)| name.contains(from))
                .map(|(from, to)| name.replacen(from, to, 1)),
        );
        all.retain(|spelt| spelt != name);
        all
    }

    /// Where a member stands that the bridge reads, the message around it, and its name.
    const READ: &[(&str, &str, &str)] = &[
        ("jsonrpc", r#"{"jsonrpc":"2.0","id":7,"method":"m",<>}"#, "jsonrpc"),
        ("id", r#"{"jsonrpc":"2.0","id":7,"method":"m",<>}"#, "id"),
        ("method", r#"{"jsonrpc":"2.0","id":7,"method":"m",<>}"#, "method"),
        ("params", r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{},<>}"#, "params"),
        ("result", r#"{"jsonrpc":"2.0","id":7,"result":{},<>}"#, "result"),
        ("error", r#"{"jsonrpc":"2.0","id":7,"error":{},<>}"#, "error"),
        ("params._meta", r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"_meta":{},<>}}"#, "_meta"),
        (
            "params._meta.progressToken",
            r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"_meta":{"progressToken":1,<>}}}"#,
            "progressToken",
        ),
        (
            "params._meta.io.modelcontextprotocol/protocolVersion",
            r#"{"jsonrpc":"2.0","id":7,"method":"m","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"x",<>}}}"#,
            "io.modelcontextprotocol/protocolVersion",
        ),
        (
            "params.protocolVersion",
            r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"x",<>}}"#,
            "protocolVersion",
        ),
        (
            "params.capabilities",
            r#"{"params":{"capabilities":{},<>},"jsonrpc":"2.0","id":7,"method":"initialize"}"#,
            "capabilities",
        ),
        (
            "params.clientInfo",
            r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"clientInfo":{},<>}}"#,
            "clientInfo",
        ),
        (
            "params.requestId",
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3,<>}}"#,
            "requestId",
        ),
        (
            "params.progressToken",
            r#"{"jsonrpc":"2.0","method":"notifications\/progress","params":{"progressToken":3,<>}}"#,
            "progressToken",
        ),
        (
            "params.uri",
            r#"{"params":{"uri":"a",<>},"jsonrpc":"2.0","id":7,"method":"resources/subscribe"}"#,
            "uri",
        ),
        (
            "params.uri",
            r#"{"jsonrpc":"2.0","id":7,"method":"resources/unsubscribe","params":{"uri":"a",<>}}"#,
            "uri",
        ),
        (
            "params.level",
            r#"{"jsonrpc":"2.0","id":7,"method":"logging/setLevel","params":{"level":"a",<>}}"#,
            "level",
        ),
        ("params.name", r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a",<>}}"#, "name"),
        (
            "params.arguments",
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"arguments":{},<>}}"#,
            "arguments",
        ),
        (
            "params.taskId",
            r#"{"jsonrpc":"2.0","id":7,"method":"tasks/cancel","params":{"taskId":"a",<>}}"#,
            "taskId",
        ),
    ];

    #[test]
    fn a_member_that_the_bridge_reads_occurs_once_and_in_its_spelling() {
        for (path, around, name) in READ {
            let id = around.contains("\"id\":7").then_some("7");
            let escaped = format!("\\u{:04x}{}", name.as_bytes()[0], &name[1..]);
            for again in [(*name).to_owned(), escaped] {
                let text = around.replace("<>", &format!("\"{again}\":null"));
                let (told, why) = refused(&text).unwrap_or_else(|| panic!("{text} passes"));
                assert_eq!(why, format!("\"{path}\" occurs twice"), "{text}");
                // Of two ids the last is as good as the first.
                assert_eq!(told.as_deref(), id.filter(|_| *name != "id"), "{text}");
            }
            for spelt in alike(name) {
                for beside in ["", ",\"x\":1"] {
                    let text = around.replace("<>", &format!("\"{spelt}\":null{beside}"));
                    let want = format!("a member is spelt almost like \"{path}\"");
                    assert_eq!(refused(&text), Some((id.map(str::to_owned), &*want.leak())), "{text}");
                    // The same without the one that is spelt right.
                    let (before, after) = text.split_once(&format!("\"{spelt}\"")).unwrap();
                    let Some(own) = before.rfind(&format!("\"{name}\":")) else { panic!("{text}") };
                    if before[own..].matches(',').count() == 1 && around.contains("params") {
                        let alone = format!("{}\"{spelt}\"{after}", &before[..own]);
                        assert!(refused(&alone).is_some(), "{alone} passes");
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_bridge_does_not_read_may_have_any_names() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":{"ID":1,"id":2,"id":3,"Method":"initialize","_META":{"PROGRESSTOKEN":1},"Name":"y"}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"x/own","params":{"Name":"a","name":"b","URI":1,"RequestID":3,"requestId":3,"requestId":4,"level":1,"Level":2}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"_meta":{"example.com/ID":1,"x":1,"x":2,"io.modelcontextprotocol/related-task":{"taskId":1,"TASKID":2}}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"Result":1,"result":2,"ID":1,"content":{"Method":1}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"","Error":1,"data":{"ID":1}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"m","ids":1,"i d":2,"idx":3,"paramſ_":1,"x":1,"x":2}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"x/own","params":[{"requestId":1,"RequestId":2}]}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"Tools/call2"}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":""}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":null}"#,
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[test]
    fn a_method_that_others_may_take_for_one_of_the_protocols_is_refused() {
        for known in METHODS {
            for spelt in alike(known.name) {
                for id in ["", r#""id":7,"#] {
                    let text = format!(r#"{{"jsonrpc":"2.0",{id}"method":"{spelt}"}}"#);
                    let (_, why) = refused(&text).unwrap_or_else(|| panic!("{text} passes"));
                    assert!(why.starts_with("\"method\" "), "{text}: {why}");
                }
            }
        }
        for spelt in ["x\\u0000", "\\u0000", "a\\nb", "\u{7f}", "\u{9b}m", "\\ud800", "x\\udc00y"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{spelt}"}}"#);
            let (id, why) = refused(&text).unwrap_or_else(|| panic!("{text} passes"));
            assert_eq!(
                (id.as_deref(), why),
                (Some("7"), "\"method\" has a control character, or half a surrogate pair")
            );
        }
        let escaped = r#"{"jsonrpc":"2.0","method":"\u0069nitialize"}"#;
        assert_eq!(
            refused(escaped).map(|(_, why)| why),
            Some("\"initialize\" needs an id"),
            "it is the same method"
        );
    }

    #[test]
    fn parameters_that_the_bridge_reads_are_not_given_by_position() {
        let text = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":[3]}"#;
        assert_eq!(refused(text), Some((None, "\"params\" must be an object")));
    }

    #[test]
    fn of_two_members_of_a_child_neither_counts() {
        for text in [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3,"progressToken":4}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3,"ProgressToken":4}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3,"requestId":4}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","protocolVersion":"2024-11-05"}}"#,
        ] {
            assert_eq!(peek(text).map(|envelope| envelope.subject()), Ok(None), "{text}");
        }
        assert_eq!(peek_head(br#"{"jsonrpc":"2.0","id":3,"id":4,"result":{"text":"aaaa"#), Head::Unclear);
    }

    #[test]
    fn five_million_brackets_neither_overflow_the_stack_nor_fail() {
        let depth = 5_000_000;
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        );
        assert_eq!(peek(&text).map(|envelope| envelope.kind), Ok(Kind::Request));
    }

    #[test]
    fn the_beginning_of_a_message_tells_whose_it_is() {
        let cut = "{\"id\":\"q\",\"result\":\"é".as_bytes().split_last().unwrap().1;
        let table = [
            (&br#"{"jsonrpc":"2.0","id":17,"result":{"text":"aaaa"#[..], Head::Answer("17")),
            (cut, Head::Answer("\"q\"")),
            (br#"{"jsonrpc":"2.0","result":{"id":17"#, Head::Unclear),
            (br#"{"jsonrpc":"2.0","result":1,"id":12"#, Head::Unclear), // it may have been 123
            (br#"{"jsonrpc":"2.0","id":1,"method":"x","params":["#, Head::Call(Some("1"))),
            (br#"{"method":"x","params":["#, Head::Call(None)),
            (b"lots of log", Head::NoMessage),
            (b"[1,2,", Head::NoMessage),
        ];
        for (head, want) in table {
            assert_eq!(peek_head(head), want, "{}", String::from_utf8_lossy(head));
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "[\"\\\\\r\n\t]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-z]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn splicing_an_id_changes_the_id_and_no_other_byte(
            params in any_json(), old in any::<i64>(), new in any::<u64>(), pretty in any::<bool>(),
        ) {
            let message = json!({"future": params.clone(), "id": old, "jsonrpc": "2.0", "method": "m", "params": params});
            let text = if pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) };
            let text = text.unwrap();
            let envelope = peek(&text).unwrap();
            let span = envelope.id.clone().unwrap();
            let mut out = BytesMut::new();
            splice(&mut out, text.as_bytes(), span.clone(), new.to_string().as_bytes());
            let out = String::from_utf8(out.to_vec()).unwrap();
            // Raw line ends can only stand between tokens; everything else is as it was.
            let flat = text.replace('\n', " ");
            prop_assert_eq!(&out[..span.start], &flat[..span.start]);
            prop_assert!(out.ends_with(&flat[span.end..]));
            let mut want = message;
            want["id"] = new.into();
            prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), want);
        }

        #[test]
        fn the_envelope_agrees_with_a_full_parse(value in any_json(), id in any_json(), method in any_json()) {
            let mut object = serde_json::Map::new();
            object.insert("jsonrpc".into(), "2.0".into());
            if !id.is_null() { object.insert("id".into(), id.clone()); }
            if !method.is_null() { object.insert("method".into(), method.clone()); }
            else { object.insert("result".into(), value); }
            let text = serde_json::to_string(&object).unwrap();
            let want = match (&method, &id) {
                (Value::String(_), Value::Null) => Some(Kind::Notification),
                (Value::String(_), _) => Some(Kind::Request),
                (Value::Null, _) => Some(Kind::Success),
                _ => None,
            };
            prop_assert_eq!(peek(&text).ok().map(|envelope| envelope.kind), want);
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::peek(&text);
            let _ = peek_head(&text);
            let _ = super::super::json::value_at(&String::from_utf8_lossy(&text), &["a", "b"]);
        }

        #[test]
        fn no_cut_of_a_message_makes_it_panic(value in any_json(), cut in 0usize..200) {
            let text = serde_json::to_vec(&json!({"jsonrpc": "2.0", "id": 3, "result": value})).unwrap();
            let head = &text[..cut.min(text.len())];
            let _ = peek_head(head);
            let _ = Envelope::peek(head);
        }
    }
}
