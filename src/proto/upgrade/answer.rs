//! Answers of a child of the session era as results and errors of 2026-07-28. They are edited as text: what the server has
//! written stays as it is.

use bytes::Bytes;

use crate::proto::elicitation::URL_NEEDED;
use crate::proto::front::id_edit;
use crate::proto::ids::ClientId;
use crate::proto::incoming::Incoming;
use crate::proto::json::{slice, unquote, value_at};
use crate::proto::line::join_lines;
use crate::proto::message::Kind;
use crate::proto::meta::SERVER_INFO;
use crate::proto::object::without;
use crate::proto::version::Revision;

/// The longest name of a server that is repeated in each result, in bytes.
const MAX_SERVER_INFO: usize = 4 * 1024;

/// How long a result may be kept, and for whom: not at all. A server of the session era may answer otherwise after any call
/// (2026-07-28 `server/utilities/caching`).
const NOT_KEPT: [(&str, &str); 2] = [("\"ttlMs\"", "0"), ("\"cacheScope\"", "\"private\"")];

/// What a child of the session era has said of itself.
#[derive(Debug)]
pub(super) struct Greeting {
    /// The JSON object of its capabilities, as far as they are some of 2026-07-28.
    capabilities: Box<str>,
    server: Option<Box<str>>,
    instructions: Option<Box<str>>,
    revision: Option<Box<str>>,
}

impl Greeting {
    /// `answer`: to `initialize`.
    pub(super) fn of(answer: &Incoming<'_>) -> Self {
        let result = answer.envelope.result.clone().map_or("{}", |span| slice(answer.text(), span));
        let part = |name: &str| value_at(result, &[name]).and_then(|span| result.get(span));
        let object = |name: &str| part(name).filter(|value| value.starts_with('{'));
        let string = |name: &str| part(name).filter(|value| value.starts_with('"')).map(Box::from);
        Self {
            // Tasks are an extension there, with other methods (2026-07-28 `changelog`).
            capabilities: without(object("capabilities").unwrap_or("{}"), &["tasks"]).into(),
            server: object("serverInfo").filter(|info| info.len() <= MAX_SERVER_INFO).map(Box::from),
            instructions: string("instructions"),
            revision: string("protocolVersion"),
        }
    }

    /// Whether the child has declared this, and it is not null.
    pub(super) fn offers(&self, path: &[&str]) -> bool {
        let value = value_at(&self.capabilities, path).and_then(|span| self.capabilities.get(span));
        value.is_some_and(|value| !matches!(value, "null" | "false"))
    }

    /// The answer to `server/discover` (2026-07-28 `server/discover`).
    pub(super) fn discovered(&self, client: &ClientId) -> Bytes {
        let mut text = self.head(client);
        for (name, value) in NOT_KEPT {
            text.push_str(&format!("{name}:{value},"));
        }
        text.push_str(&format!("\"supportedVersions\":[\"{}\"", Revision::R2026_07_28));
        if let Some(revision) = &self.revision {
            text.push(',');
            text.push_str(revision);
        }
        text.push_str("],\"capabilities\":");
        text.push_str(&self.capabilities);
        if let Some(instructions) = &self.instructions {
            text.push_str(",\"instructions\":");
            text.push_str(instructions);
        }
        text.push_str("}}");
        one_line(text)
    }

    /// The beginning of a result of the bridge's own, up to its first further member.
    fn head(&self, client: &ClientId) -> String {
        let mut text =
            format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","#, client.0.as_json());
        self.push_meta(&mut text);
        text
    }

    fn push_meta(&self, text: &mut String) {
        if let Some(server) = &self.server {
            text.push_str(&format!("\"_meta\":{{\"{SERVER_INFO}\":{server}}},"));
        }
    }

    /// A result of the child for this client. `is_list`: one that a client may keep for some time.
    pub(super) fn complete(&self, answer: Incoming<'_>, client: &ClientId, is_list: bool) -> Bytes {
        let text = answer.text();
        let mut edits = Vec::with_capacity(3);
        edits.push(id_edit(&answer, client));
        let result = answer.envelope.result.clone();
        let opening = result.filter(|span| text.get(span.start) == Some(&b'{'));
        if let Some(opening) = opening {
            let result = slice(text, opening.clone());
            let has = |name: &str| {
                memchr::memmem::find(result.as_bytes(), name.as_bytes()).is_some()
                    && value_at(result, &[unquote(name).as_ref()]).is_some()
            };
            let mut members = String::new();
            if !answer.envelope.is_modern() {
                members.push_str("\"resultType\":\"complete\",");
            }
            for (name, value) in NOT_KEPT.into_iter().filter(|(name, _)| is_list && !has(name)) {
                members.push_str(&format!("{name}:{value},"));
            }
            match answer.envelope.meta().filter(|span| text.get(span.start) == Some(&b'{')) {
                Some(meta) => {
                    let inside = slice(text, meta.clone());
                    if let Some(server) = &self.server
                        && memchr::memmem::find(inside.as_bytes(), SERVER_INFO.as_bytes()).is_none()
                    {
                        let behind = meta.start + 1..meta.start + 1;
                        let comma = if is_empty(inside) { "" } else { "," };
                        edits.push((behind, format!("\"{SERVER_INFO}\":{server}{comma}").into_bytes()));
                    }
                }
                None if answer.envelope.meta().is_none() => self.push_meta(&mut members),
                None => {}
            }
            if is_empty(result) {
                members.pop(); // the comma
            }
            edits.push((opening.start + 1..opening.start + 1, members.into_bytes()));
        }
        answer.edited(&mut edits)
    }
}

/// Whether a JSON object has no member.
fn is_empty(object: &str) -> bool {
    object.get(1..).is_some_and(|rest| rest.trim_start().starts_with('}'))
}

/// An error of the child for this client. A resource that is not there has a code of its own in the session era, and none
/// in 2026-07-28 (`server/resources`, "Error Handling"). Nor has that one a code for URLs that are needed (`basic/index`,
/// "Error Codes"): where the client cannot be asked to open them, it is a failure.
pub(super) fn failed(answer: Incoming<'_>, client: &ClientId, is_read: bool) -> Bytes {
    const NO_RESOURCE: i64 = -32002;
    const INVALID_PARAMS: &[u8] = b"-32602";
    const INTERNAL: &[u8] = b"-32603";
    let mut edits = vec![id_edit(&answer, client)];
    match answer.error_code() {
        Some((NO_RESOURCE, span)) if is_read => edits.push((span, INVALID_PARAMS.to_vec())),
        Some((URL_NEEDED, span)) => edits.push((span, INTERNAL.to_vec())),
        _ => {}
    }
    answer.edited(&mut edits)
}

/// Whether a result says that its tool has failed.
pub(super) fn is_tool_error(answer: &Incoming<'_>) -> bool {
    let Some(result) = answer.envelope.result.clone().filter(|_| answer.envelope.kind == Kind::Success)
    else {
        return false;
    };
    let result = slice(answer.text(), result);
    value_at(result, &["isError"]).and_then(|span| result.get(span)) == Some("true")
}

/// The answer that asks a client for what its request still needs (2026-07-28 `basic/patterns/mrtr`). `asked`: by its key
/// each, the requests.
pub(super) fn input_required<'q>(
    client: &ClientId,
    asked: impl Iterator<Item = (&'q str, &'q str)>,
    state: Option<&str>,
) -> Bytes {
    let mut text = format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"input_required","inputRequests":{{"#,
        client.0.as_json()
    );
    for (number, (key, request)) in asked.enumerate() {
        if number > 0 {
            text.push(',');
        }
        text.push_str(&format!("\"{key}\":{request}"));
    }
    text.push('}');
    if let Some(state) = state {
        text.push_str(&format!(",\"requestState\":\"{state}\""));
    }
    text.push_str("}}");
    one_line(text)
}

/// A text of several parts of the child may have its line ends between tokens.
fn one_line(text: String) -> Bytes {
    let mut text = text.into_bytes();
    join_lines(&mut text);
    text.into()
}
