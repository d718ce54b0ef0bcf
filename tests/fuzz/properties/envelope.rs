//! The envelope of a message against a full parse.

use bytes::{Bytes, BytesMut};
use mcp_bridge::proto::ids::{Id, MAX_ID};
use mcp_bridge::proto::json::{splice, value_at};
use mcp_bridge::proto::message::{Envelope, Head, Kind, Malformed, Message, peek_head};
use serde_json::Value;

use super::json::{Members, Parsed};
use super::{Dice, flat, readers};

const NAMED: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Where the bridge looks for what it needs.
const PATHS: [&[&str]; 5] = [
    &["id"],
    &["params", "requestId"],
    &["params", "progressToken"],
    &["params", "_meta", "progressToken"],
    &["result", "protocolVersion"],
];

/// What is taken for a message is one, with the same kind, id and method; what is not is none; a new id changes nothing
/// else; and what is cut off is not taken for something else.
pub fn envelope(data: &[u8]) {
    let peeked = Envelope::peek(data);
    let parsed = Parsed::of(data);
    match &parsed {
        Parsed::Json(value) => {
            same_as_parsed(data, &peeked);
            same_where_found(data, value);
        }
        Parsed::NotJson => assert_eq!(peeked, Err(Malformed::Parse), "it is no JSON"),
        Parsed::Unsaid => {}
    }
    let Ok(envelope) = peeked else {
        assert!(Message::parse(Bytes::copy_from_slice(data)).is_err(), "no envelope, no message");
        let _ = peek_head(data);
        return;
    };
    spliced(data, &envelope, &parsed);
    cut(data, &envelope);
}

fn same_as_parsed(data: &[u8], peeked: &Result<Envelope, Malformed>) {
    let members = Members::of(data);
    let kind = members.as_ref().and_then(kind);
    assert_eq!(peeked.as_ref().ok().map(|envelope| envelope.kind), kind, "the kind of {peeked:?}");
    let message = Message::parse(Bytes::copy_from_slice(data));
    let (Some(members), Some(kind)) = (&members, kind) else {
        assert!(message.is_err(), "no envelope, no message");
        let Err(Malformed::Invalid(id, _)) = peeked else { panic!("it is JSON, and not {peeked:?}") };
        if let Some(id) = id {
            let id = ("id".to_owned(), serde_json::from_str(id.as_json()).unwrap());
            let own = members.into_iter().flat_map(|members| members.0).any(|member| member == id);
            assert!(own, "{peeked:?} names another id");
        }
        return;
    };
    let envelope = peeked.as_ref().unwrap();
    let at = |span: &Option<std::ops::Range<usize>>| {
        span.clone().map(|span| serde_json::from_slice::<Value>(&data[span]).unwrap())
    };
    assert_eq!(at(&envelope.id).as_ref(), members.get("id"), "the id");
    assert_eq!(at(&envelope.method).as_ref(), members.get("method"), "the method");
    assert_eq!(at(&envelope.params).as_ref(), members.get("params"), "the params");
    let method = members.get("method").and_then(Value::as_str).unwrap_or_default();
    assert_eq!(envelope.method(data), method, "the method's text");

    let token = envelope.id.clone().map_or(&b""[..], |span| &data[span]);
    let usable = usable(token, members.get("id"));
    assert_eq!(envelope.id(data).is_some(), usable, "a string or an integer, and not too long");
    let allowed = match kind {
        Kind::Request => usable,
        Kind::Notification => method != "initialize",
        Kind::Success | Kind::Failure => usable,
    };
    assert!(allowed || message.is_err(), "a client may not send it: {message:?}");
    assert!(!allowed || message.is_ok() || readers::may_differ(data), "a client may send it: {message:?}");
    if let Ok(message) = &message {
        readers::agree(message);
        assert_eq!(message.text(), data);
        let as_kind = match message {
            Message::Request(_) => kind == Kind::Request,
            Message::Notification(_) => kind == Kind::Notification,
            Message::Response(_) => matches!(kind, Kind::Success | Kind::Failure),
        };
        assert!(as_kind, "{kind:?} is no {message:?}");
        assert_eq!(message.method(), method);
    }
}

fn usable(token: &[u8], id: Option<&Value>) -> bool {
    let fits = token.len() <= MAX_ID;
    match id {
        Some(Value::String(_)) => fits,
        Some(Value::Number(_)) => fits && token.iter().all(|byte| matches!(byte, b'-' | b'0'..=b'9')),
        _ => false,
    }
}

/// JSON-RPC 2.0 §4 and §5, with what the bridge decides on top: no named member twice; an id of null is one; of result
/// and error one may be null.
fn kind(members: &Members) -> Option<Kind> {
    let has = |name| members.get(name).is_some();
    let null = |name| members.get(name).is_some_and(Value::is_null);
    if NAMED.iter().any(|name| members.count(name) > 1) || members.get("jsonrpc")?.as_str() != Some("2.0") {
        return None;
    }
    if has("method") {
        let alone = !has("result") && !has("error") && members.get("method")?.is_string();
        return alone.then_some(if has("id") { Kind::Request } else { Kind::Notification });
    }
    match (has("result"), has("error")) {
        (true, false) => Some(Kind::Success),
        (false, true) => Some(Kind::Failure),
        (true, true) if null("error") => Some(Kind::Success),
        (true, true) if null("result") => Some(Kind::Failure),
        _ => None,
    }
}

fn same_where_found(data: &[u8], value: &Value) {
    let text = std::str::from_utf8(data).unwrap();
    for path in PATHS {
        let want = path.iter().try_fold(value, |value, name| value.as_object()?.get(*name));
        let found = value_at(text, path).map(|span| serde_json::from_str::<Value>(&text[span]).unwrap());
        assert_eq!(found.as_ref(), want, "at {path:?}");
    }
}

fn spliced(data: &[u8], envelope: &Envelope, parsed: &Parsed) {
    let Some(span) = envelope.id.clone() else { return };
    let flat = flat(data);
    for id in ["18446744073709551615", r#""\u0061\"\\""#] {
        let mut out = BytesMut::new();
        splice(&mut out, data, span.clone(), id.as_bytes());
        let want = [&flat[..span.start], id.as_bytes(), &flat[span.end..]].concat();
        assert_eq!(out, want, "all other bytes are as they were");
        let again = Envelope::peek(&out).expect("it is still a message");
        assert_eq!((again.kind, again.id(&out)), (envelope.kind, Id::parse(id)));
        if let Parsed::Json(value) = parsed {
            let mut want = value.clone();
            want["id"] = serde_json::from_str(id).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), want);
        }
    }
}

/// Of a message that was cut off, an id is the message's own, and no answer has a method in front of its id.
fn cut(data: &[u8], envelope: &Envelope) {
    let own = envelope.id.clone().map(|span| &data[span]);
    let asks = matches!(envelope.kind, Kind::Request | Kind::Notification);
    let mut dice = Dice::new(data);
    for _ in 0..16 {
        let length = dice.roll(data.len());
        match peek_head(&data[..length]) {
            Head::Call(id) => {
                assert!(asks, "cut at {length}, an answer looks like a call");
                assert!(id.is_none_or(|id| Some(id.as_bytes()) == own), "cut at {length}, it has another id");
            }
            Head::Answer(id) => {
                assert_eq!(Some(id.as_bytes()), own, "cut at {length}, it has another id");
            }
            Head::Unclear | Head::NoMessage => {}
        }
    }
}
