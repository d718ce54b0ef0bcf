//! Parsers that read a message otherwise than the bridge: what stands in front of it, and the server behind it.

use std::fmt;

use mcp_bridge::proto::message::Message;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

const REVISION: &str = "io.modelcontextprotocol/protocolVersion";

/// Methods and the parameter that decides what the bridge does.
const SUBJECTS: [(&str, &str); 6] = [
    ("initialize", "protocolVersion"),
    ("notifications/cancelled", "requestId"),
    ("notifications/progress", "progressToken"),
    ("resources/subscribe", "uri"),
    ("resources/unsubscribe", "uri"),
    ("tools/call", "name"),
];

/// How a parser finds a member by its name.
#[derive(Clone, Copy, Debug)]
enum Reader {
    First,
    Last,
    FirstOfAnyCase,
    LastOfAnyCase,
    LastUpToNul,
}

const READERS: [Reader; 5] =
    [Reader::First, Reader::Last, Reader::FirstOfAnyCase, Reader::LastOfAnyCase, Reader::LastUpToNul];

/// What a reader makes of a message: the parts by which the bridge decides, or which it rewrites.
#[derive(Debug, PartialEq)]
struct Reading {
    id: Option<Value>,
    method: Option<Value>,
    result: bool,
    error: bool,
    token: Option<Value>,
    revision: bool,
    subject: Option<Value>,
}

/// The members of an object in their order, each value as it stands in the text.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Simple case folding (Unicode, CaseFolding.txt), as far as it reaches ASCII.
fn folded(name: &str) -> String {
    name.replace('ſ', "s").replace('\u{212a}', "k").to_ascii_lowercase()
}

impl Reader {
    fn find<'m>(self, members: &'m Members, wanted: &str) -> Option<&'m str> {
        let same = |(name, value): &'m (String, Box<RawValue>)| {
            let same = match self {
                Self::First | Self::Last => name == wanted,
                Self::FirstOfAnyCase | Self::LastOfAnyCase => folded(name) == folded(wanted),
                Self::LastUpToNul => name.split('\0').next() == Some(wanted),
            };
            same.then_some(value.get())
        };
        match self {
            Self::First | Self::FirstOfAnyCase => members.0.iter().find_map(same),
            Self::Last | Self::LastOfAnyCase | Self::LastUpToNul => members.0.iter().rev().find_map(same),
        }
    }

    /// `None` where a value means nothing to this parser: a number beyond f64, half a surrogate pair.
    fn read(self, text: &[u8]) -> Option<Reading> {
        let members: Members = serde_json::from_slice(text).ok()?;
        let value = |text: Option<&str>| text.map(serde_json::from_str::<Value>).transpose().ok();
        let inner = |text: Option<&str>| text.and_then(|text| serde_json::from_str::<Members>(text).ok());
        let null = |name| self.find(&members, name).is_some_and(|text| text == "null");
        let (result, error) =
            (self.find(&members, "result").is_some(), self.find(&members, "error").is_some());
        let method = value(self.find(&members, "method"))?;
        let name = method.as_ref().and_then(Value::as_str).unwrap_or_default();
        let name = if matches!(self, Self::LastUpToNul) {
            name.split('\0').next().unwrap_or_default()
        } else {
            name
        };
        let (subject, name) = (
            SUBJECTS.iter().find(|(method, _)| *method == name).map(|(_, subject)| *subject),
            method.is_some().then(|| Value::from(name)),
        );
        let params = inner(self.find(&members, "params"));
        let meta = params.as_ref().and_then(|params| inner(self.find(params, "_meta")));
        Some(Reading {
            id: value(self.find(&members, "id"))?,
            result: result && !(error && null("result")),
            error: error && !(result && null("error")),
            token: value(meta.as_ref().and_then(|meta| self.find(meta, "progressToken")))?,
            revision: meta.as_ref().is_some_and(|meta| self.find(meta, REVISION).is_some()),
            subject: value(subject.and_then(|subject| self.find(params.as_ref()?, subject)))?,
            method: name,
        })
    }
}

/// What the bridge takes from a client, all readers read as it does.
pub(super) fn agree(message: &Message) {
    let text = message.text();
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    let at = |span: std::ops::Range<usize>| serde_json::from_slice::<Value>(&text[span]).ok();
    for reader in READERS {
        let Some(reading) = reader.read(text) else { continue };
        assert_eq!(message.id().and_then(|id| value(id.as_json())), reading.id, "{reader:?}: the id");
        assert_eq!(message.names_revision(), reading.revision, "{reader:?}: the revision");
        let method = reading.method.as_ref().and_then(Value::as_str);
        match message {
            Message::Request(request) => {
                assert_eq!(Some(&*request.method()), method, "{reader:?}: the method");
                assert!(!reading.result && !reading.error, "{reader:?} takes a request for an answer");
                assert_eq!(request.token().and_then(at), reading.token, "{reader:?}: the token");
                assert_eq!(request.subject().and_then(value), reading.subject, "{reader:?}: the parameter");
            }
            Message::Notification(notification) => {
                assert_eq!(Some(&*notification.method()), method, "{reader:?}: the method");
                assert!(!reading.result && !reading.error, "{reader:?} takes a notification for an answer");
                let subject = notification.subject().and_then(at);
                assert_eq!(subject, reading.subject, "{reader:?}: the parameter");
            }
            Message::Response(_) => {
                assert_eq!(method, None, "{reader:?} takes an answer for a question");
                assert!(reading.result != reading.error, "{reader:?}: a result or an error");
            }
        }
    }
}

/// Whether readers may differ on a message: a name comes twice, or is another's in any case or up to a NUL; a method is
/// one of the protocol's in that way.
pub(super) fn may_differ(text: &[u8]) -> bool {
    let loose = |name: &str| {
        let name: String = name.chars().filter(|char| *char != char::REPLACEMENT_CHARACTER).collect();
        folded(&name.replace(['ı', 'İ'], "i")).split('\0').next().unwrap_or_default().to_owned()
    };
    fn names(text: &str, depth: usize, found: &mut Vec<Vec<String>>) {
        let Ok(members) = serde_json::from_str::<Members>(text) else { return };
        if depth > 0 {
            members.0.iter().for_each(|(_, value)| names(value.get(), depth - 1, found));
        }
        found.push(members.0.into_iter().map(|(name, _)| name).collect());
    }
    let text = String::from_utf8_lossy(text);
    let mut found = Vec::new();
    names(&text, 2, &mut found);
    let known = [
        "jsonrpc",
        "id",
        "method",
        "params",
        "result",
        "error",
        "_meta",
        "progressToken",
        REVISION,
        "requestId",
        "protocolVersion",
        "capabilities",
        "clientInfo",
        "uri",
        "level",
        "name",
        "arguments",
        "taskId",
    ];
    let twice = |names: &Vec<String>| {
        let mut all: Vec<String> = names.iter().map(|name| loose(name)).collect();
        all.sort();
        all.windows(2).any(|pair| pair[0] == pair[1])
    };
    let alike = |name: &String| known.iter().any(|known| known != name && folded(known) == loose(name));
    let positional = Reader::Last.read(text.as_bytes()).is_some_and(|reading| {
        let method = reading.method.as_ref().and_then(Value::as_str).unwrap_or_default();
        // A call without a name goes to its server, which refuses it itself.
        let mut positional = SUBJECTS.iter().filter(|(subject, _)| *subject != "tools/call");
        positional.any(|(subject, _)| *subject == method) && reading.subject.is_none()
    });
    let odd = Reader::Last.read(text.as_bytes()).is_some_and(|reading| {
        let method = reading.method.as_ref().and_then(Value::as_str).unwrap_or_default();
        let control = method.chars().any(|char| char.is_control() || char == char::REPLACEMENT_CHARACTER);
        control || method != loose(method) // some capital, or a letter that is folded
    });
    found.iter().any(|names| twice(names) || names.iter().any(alike)) || positional || odd
}
