//! The envelope of a JSON-RPC message: what kind it is and where its parts lie, without parsing what is inside.
//!
//! Three things that a derived serde struct would let pass are refused here, each with a test: an array read as a
//! struct, `"id": null` read as an absent id, and invalid UTF-8 in a part that is skipped.

use std::borrow::Cow;

use bytes::Bytes;

use super::ids::{Id, MAX_ID};
use super::json::{Span, is_json, members, slice, unquote, value_at};

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
    /// What else is known of the inside of a message that was read in pieces; `None`: it is looked at when it is asked
    /// for.
    pub(super) inside: Option<Box<Inside>>,
}

/// Where members lie inside of `params` or `result` that a front asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) progress_token: Option<Span>,
    pub(super) request_id: Option<Span>,
    pub(super) protocol_version: Option<Span>,
}

impl Inside {
    /// Takes note of a member.
    pub(super) fn note(&mut self, name: &str, value: Span) {
        let slot = match &*unquote(name) {
            "progressToken" => &mut self.progress_token,
            "requestId" => &mut self.request_id,
            "protocolVersion" => &mut self.protocol_version,
            _ => return,
        };
        *slot = Some(value);
    }
}

/// The longest token that is looked at for what it says, in bytes. A longer one is no method, name or id of ours.
pub(super) const MAX_TOKEN: usize = 2 * MAX_ID;

impl Envelope {
    /// Reads the envelope of one message.
    ///
    /// # Errors
    /// [`Malformed`], where the text is not exactly one message.
    pub fn peek(text: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(text).map_err(|_| Malformed::Parse)?;
        let mut members = Members::default();
        let complete = members.read(text);
        if complete.is_none() {
            // It may be JSON all the same: an array, a number.
            return Err(if !text.trim_ascii_start().starts_with('{') && is_json(text) {
                Malformed::Invalid(None, "a message is a JSON object")
            } else {
                Malformed::Parse
            });
        }
        Self::of(members, text.as_bytes())
    }

    /// The envelope of the message whose members are these.
    pub(super) fn of(members: Members, text: &[u8]) -> Result<Self, Malformed> {
        let part = |span: &Option<Span>| span.clone().map(|span| token(text, span));
        let invalid = |why| Err(Malformed::Invalid(part(&members.id).and_then(Id::parse), why));
        // Two readers that disagree on which one counts let a message past the one that inspects it.
        if members.twice {
            return invalid("a member occurs twice");
        }
        if part(&members.jsonrpc).is_none_or(|token| unquote(token) != "2.0") {
            return invalid("\"jsonrpc\" must be \"2.0\"");
        }
        // Servers that come from JSON-RPC 1.0 send both, one of them null.
        let null = |span: &Option<Span>| part(span) == Some("null");
        let (result, error) = (members.result.is_some(), members.error.is_some());
        let (result, error) = match (result, error) {
            (true, true) if null(&members.error) => (true, false),
            (true, true) if null(&members.result) => (false, true),
            both => both,
        };
        let kind = match (members.method.is_some(), members.id.is_some(), result, error) {
            (true, true, false, false) => Kind::Request,
            (true, false, false, false) => Kind::Notification,
            (false, _, true, false) => Kind::Success,
            (false, _, false, true) => Kind::Failure,
            (true, ..) => return invalid("a message has either a method or a result or an error"),
            (false, _, true, true) => return invalid("a response has either a result or an error"),
            (false, _, false, false) => return invalid("a message needs a method, a result or an error"),
        };
        if part(&members.method).is_some_and(|token| !token.starts_with('"')) {
            return invalid("\"method\" must be a string");
        }
        Ok(Self { kind, id: members.id, method: members.method, params: members.params, inside: None })
    }

    /// The method of a request or notification; empty for a response.
    pub fn method<'t>(&self, text: &'t [u8]) -> Cow<'t, str> {
        self.method.clone().map_or(Cow::Borrowed(""), |span| unquote(token(text, span)))
    }

    /// The id in the text, where it is one a peer may use.
    pub fn id(&self, text: &[u8]) -> Option<Id> {
        Id::parse(token(text, self.id.clone()?))
    }

    /// Where `params.progressToken` lies in the text.
    pub fn progress_token(&self, text: &[u8]) -> Option<Span> {
        match &self.inside {
            Some(inside) => inside.progress_token.clone(),
            None => param(text, self.params.as_ref(), &["progressToken"]),
        }
    }

    /// Where `params.requestId` lies in the text.
    pub fn request_id(&self, text: &[u8]) -> Option<Span> {
        match &self.inside {
            Some(inside) => inside.request_id.clone(),
            None => param(text, self.params.as_ref(), &["requestId"]),
        }
    }

    /// Where `result.protocolVersion` lies in the text.
    pub fn protocol_version(&self, text: &[u8]) -> Option<Span> {
        match &self.inside {
            Some(inside) => inside.protocol_version.clone(),
            None => value_at(slice(text, 0..text.len()), &["result", "protocolVersion"]),
        }
    }
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
    /// an integer (spec `basic`), and at most [`MAX_ID`](super::ids::MAX_ID) bytes long.
    ///
    /// # Errors
    /// [`Malformed`], where the text is not exactly one such message.
    pub fn parse(text: Bytes) -> Result<Self, Malformed> {
        const BAD_ID: Malformed =
            Malformed::Invalid(None, "\"id\" must be a string or an integer, not longer than 8 KiB");
        let envelope = Envelope::peek(&text)?;
        let id = envelope.id(&text);
        // A child that looks at the method alone would take either for the handshake, which it must see once.
        match (envelope.kind, &*envelope.method(&text)) {
            (Kind::Notification, "initialize") => {
                return Err(Malformed::Invalid(None, "\"initialize\" needs an id"));
            }
            (Kind::Request, "notifications/initialized") if id.is_some() => {
                return Err(Malformed::Invalid(id, "\"notifications/initialized\" must have no id"));
            }
            _ => {}
        }
        let Envelope { kind, id: id_span, method, params, .. } = envelope;
        Ok(match (kind, id, id_span, method) {
            (Kind::Request, Some(id), Some(id_span), Some(method)) => {
                Self::Request(Request { text, id, id_span, method, params })
            }
            (Kind::Notification, _, _, Some(method)) => {
                Self::Notification(Notification { text, method, params })
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

    /// Where the value at `path` inside its `params` lies in the text.
    pub fn param(&self, path: &[&str]) -> Option<Span> {
        match self {
            Self::Request(request) => request.param(path),
            Self::Notification(notification) => notification.param(path),
            Self::Response(_) => None,
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
        let params = method.end + behind.len()..text.len() - 1;
        Self { text: text.into(), id, id_span, method, params: Some(params) }
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

    /// The text of its `params`; empty where there are none.
    pub fn params(&self) -> &str {
        self.params.clone().map_or("", |span| slice(&self.text, span))
    }

    /// Where the value at `path` inside its `params` lies in the text.
    pub fn param(&self, path: &[&str]) -> Option<Span> {
        param(&self.text, self.params.as_ref(), path)
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
    params: Option<Span>,
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

    /// Where the value at `path` inside its `params` lies in the text.
    pub fn param(&self, path: &[&str]) -> Option<Span> {
        param(&self.text, self.params.as_ref(), path)
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

/// Where the value at `path` inside the object at `params` lies in the text.
fn param(text: &[u8], params: Option<&Span>, path: &[&str]) -> Option<Span> {
    let params = params?;
    let span = value_at(slice(text, params.clone()), path)?;
    Some(params.start + span.start..params.start + span.end)
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
    let mut members = Members::default();
    let _ = members.read(text); // it cannot be complete
    let id = members.id.and_then(|span| Some((span.end, text.get(span)?)));
    // A number that touches the cut may go on behind it.
    let id = id.filter(|(end, token)| *end < text.len() || token.ends_with('"')).map(|(_, token)| token);
    match (members.method, id) {
        (Some(_), id) => Head::Call(id),
        // An id is followed by a method, a result or an error, and the last two are what grows so long.
        (None, Some(id)) => Head::Answer(id),
        (None, None) => Head::Unclear,
    }
}

/// Where the members lie that JSON-RPC knows.
#[derive(Debug, Default)]
pub(super) struct Members {
    jsonrpc: Option<Span>,
    id: Option<Span>,
    method: Option<Span>,
    pub(super) params: Option<Span>,
    pub(super) result: Option<Span>,
    error: Option<Span>,
    /// One of them occurs twice: this is where the last one lies.
    twice: bool,
}

impl Members {
    /// `None` where the text is not exactly one JSON object; what came before the fault is noted.
    fn read(&mut self, text: &str) -> Option<()> {
        members(text, |name, value| self.note(name, value))
    }

    /// Takes note of a member.
    pub(super) fn note(&mut self, name: &str, value: Span) {
        let slot = match &*unquote(name) {
            "jsonrpc" => &mut self.jsonrpc,
            "id" => &mut self.id,
            "method" => &mut self.method,
            "params" => &mut self.params,
            "result" => &mut self.result,
            "error" => &mut self.error,
            _ => return, // a later revision may know it
        };
        self.twice |= slot.replace(value).is_some();
    }
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
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#, Some("2"), "a member occurs twice"),
            (r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"x"}"#, Some("2"), "a member occurs twice"),
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
        for text in [
            r#"{"jsonrpc":"2.0","method":"initialize"}"#,
            r#"{"jsonrpc":"2.0","id":5,"method":"notifications/initialized"}"#,
        ] {
            assert!(matches!(Message::parse(text.into()), Err(Malformed::Invalid(..))), "{text}");
        }
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
