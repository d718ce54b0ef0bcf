//! Answers and notifications of a child of 2026-07-28 as a client of the session era knows them. They are edited as text:
//! what the server has written stays as it is.

use bytes::Bytes;

use crate::printable::cut;
use crate::proto::front::id_edit;
use crate::proto::ids::ClientId;
use crate::proto::incoming::Incoming;
use crate::proto::json::{Span, Step, Walk, elements, quote, slice, unquote, value_at};
use crate::proto::line::join_lines;
use crate::proto::message::{MAX_REFUSAL, refusal};
use crate::proto::meta::SERVER_INFO;
use crate::proto::object::{cuts, without};
use crate::proto::subscription::SUBSCRIPTION_ID;
use crate::proto::version::Revision;

/// The codes of errors that the bridge gives, or puts in the place of others (JSON-RPC 2.0 §5.1; 2025-11-25
/// `server/resources`, "Error Handling").
pub(super) const NO_METHOD: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
pub(super) const INTERNAL: i64 = -32603;
const NO_RESOURCE: i64 = -32002;

/// The codes that 2026-07-28 has for what a client of the session era cannot have done wrong (`basic/index`, "Error Codes").
const OF_MODERN: std::ops::RangeInclusive<i64> = -32022..=-32020;

/// The members that must be objects in the session era (2025-11-25 `server/tools`, "Structured Content", "Output Schema").
const STRUCTURED: &str = "structuredContent";
const SCHEMA: &str = "outputSchema";

/// The members of a result that the session era does not know (2026-07-28 `changelog`, `server/utilities/caching`).
const OF_RESULTS: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];

/// What a server is called that does not say.
const NAMELESS: &str = r#"{"name":"mcp-server","version":"unknown"}"#;

/// What an answer is to, as far as its form in the session era depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// The call of a tool.
    Call,
    /// A question for the list of tools.
    Tools,
    /// The reading of a resource that it names.
    Read,
    Other,
}

/// What a child offers, as far as the bridge does it in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) logging: bool,
    pub(super) subscribe: bool,
    pub(super) tools_changed: bool,
    pub(super) prompts_changed: bool,
    pub(super) resources_changed: bool,
}

impl Offers {
    /// `answer`: to `server/discover`. `None`: the child does not speak 2026-07-28.
    pub(super) fn of(answer: &Incoming<'_>) -> Option<Self> {
        let result = result_of(answer);
        let versions = part(result, &["supportedVersions"])?;
        let modern = Revision::R2026_07_28.as_str();
        if !elements(versions).flatten().any(|version| unquote(version) == modern) {
            return None;
        }
        let capabilities = part(result, &["capabilities"]).unwrap_or("{}");
        let offers =
            |path: &[&str]| part(capabilities, path).is_some_and(|value| !matches!(value, "null" | "false"));
        Some(Self {
            logging: offers(&["logging"]),
            subscribe: offers(&["resources", "subscribe"]),
            tools_changed: offers(&["tools", "listChanged"]),
            prompts_changed: offers(&["prompts", "listChanged"]),
            resources_changed: offers(&["resources", "listChanged"]),
        })
    }

    /// What a subscription to the lists asks for, as `params.notifications`; `None`: the child tells of no list.
    pub(super) fn lists(self) -> Option<String> {
        let lists = [
            ("toolsListChanged", self.tools_changed),
            ("promptsListChanged", self.prompts_changed),
            ("resourcesListChanged", self.resources_changed),
        ];
        let wanted = lists.into_iter().filter(|(_, offered)| *offered);
        let wanted: Vec<_> = wanted.map(|(name, _)| format!("\"{name}\":true")).collect();
        (!wanted.is_empty()).then(|| format!("{{{}}}", wanted.join(",")))
    }
}

/// The answer to `initialize` that says what this one to `server/discover` says (2026-07-28 `server/discover`).
pub(super) fn initialized(answer: &Incoming<'_>, client: &ClientId, revision: Revision) -> Bytes {
    let result = result_of(answer);
    let object = |path: &[&str]| part(result, path).filter(|value| value.starts_with('{'));
    // Neither extensions nor what the tasks of the session era were are served by such a child.
    let capabilities = without(object(&["capabilities"]).unwrap_or("{}"), &["extensions", "tasks"]);
    let server = object(&["_meta", SERVER_INFO]).unwrap_or(NAMELESS);
    let instructions = part(result, &["instructions"]).filter(|value| value.starts_with('"'));
    let instructions = instructions.map_or_else(String::new, |text| format!(",\"instructions\":{text}"));
    let id = client.0.as_json();
    let mut text = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{revision}","capabilities":{capabilities},"serverInfo":{server}{instructions}}}}}"#
    )
    .into_bytes();
    join_lines(&mut text);
    text.into()
}

/// The type of a result as it stands, as far as it may be shown.
pub(super) fn type_of(answer: &Incoming<'_>) -> String {
    cut(part(result_of(answer), &["resultType"]).unwrap_or_default()).into_owned()
}

/// A result of the child for this client.
pub(super) fn complete(answer: Incoming<'_>, client: &ClientId, to: To) -> Bytes {
    let mut edits = vec![id_edit(&answer, client)];
    if let Some(result) = answer.envelope.result.clone() {
        lower(&answer, &result, SERVER_INFO, &OF_RESULTS, &mut edits);
        let text = slice(answer.text(), result.clone());
        let inside = match to {
            To::Call => wrapped(text),
            To::Tools => schemas(text),
            To::Read | To::Other => Vec::new(),
        };
        let start = result.start;
        edits.extend(inside.into_iter().map(|(span, new)| (start + span.start..start + span.end, new)));
    }
    answer.edited(&mut edits)
}

/// Puts structured content that is no object into one, under the name that SDKs give it there. 2026-07-28 allows any
/// value (`changelog`), and clients of the session era cannot read the result then.
fn wrapped(result: &str) -> Vec<(Span, Vec<u8>)> {
    let value = occurs(result, STRUCTURED).then(|| value_at(result, &[STRUCTURED])).flatten();
    let value = value.filter(|value| !result.get(value.clone()).unwrap_or_default().starts_with('{'));
    let Some((value, last)) =
        value.and_then(|value| Some((value.clone(), *result.as_bytes().get(value.end - 1)?)))
    else {
        return Vec::new();
    };
    // Behind it may begin what is cut out.
    let end = (value.end - 1..value.end, vec![last, b'}']);
    vec![(value.start..value.start, br#"{"result":"#.to_vec()), end]
}

/// Takes schemas out of a list of tools that describe other things than objects. 2026-07-28 allows them (`changelog`), and
/// for one of them clients of the session era cannot read the whole list. Without it the tool is as one that has none.
fn schemas(result: &str) -> Vec<(Span, Vec<u8>)> {
    let tools = occurs(result, SCHEMA).then(|| value_at(result, &["tools"])).flatten();
    let tools = tools.unwrap_or_default();
    let list = result.get(tools.clone()).unwrap_or_default();
    let mut edits = Vec::new();
    let mut walk = Walk::array();
    while let Some(Step::Value(span)) = walk.next(list.as_bytes(), usize::MAX) {
        let tool = list.get(span.clone()).unwrap_or_default();
        let is_other = || part(tool, &[SCHEMA, "type"]).is_none_or(|root| unquote(root) != "object");
        if occurs(tool, SCHEMA) && part(tool, &[SCHEMA]).is_some() && is_other() {
            let start = tools.start + span.start;
            let cuts = cuts(tool, &[SCHEMA]).into_iter();
            edits.extend(cuts.map(|cut| (start + cut.start..start + cut.end, Vec::new())));
        }
    }
    edits
}

fn occurs(text: &str, name: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), name.as_bytes()).is_some()
}

/// A notification of the child without the name of its subscription, which is the bridge's own.
pub(super) fn unsubscribed(message: Incoming<'_>) -> Bytes {
    let mut edits = Vec::new();
    if let Some(params) = message.envelope.params.clone() {
        lower(&message, &params, SUBSCRIPTION_ID, &[], &mut edits);
    }
    message.edited(&mut edits)
}

/// Takes these members out of a part of the message, and this one out of its `_meta`, of which nothing is left that would
/// be empty then.
fn lower(
    message: &Incoming<'_>,
    object: &Span,
    in_meta: &str,
    unwanted: &[&str],
    edits: &mut Vec<(Span, Vec<u8>)>,
) {
    let cut_from = |object: &Span, unwanted: &[&str]| {
        let cuts = cuts(slice(message.text(), object.clone()), unwanted).into_iter();
        let start = object.start;
        cuts.map(move |cut| (start + cut.start..start + cut.end, Vec::new())).collect::<Vec<_>>()
    };
    let (mut unwanted, mut inside) = (unwanted.to_vec(), Vec::new());
    if let Some(meta) = message.envelope.meta() {
        inside = cut_from(&meta, &[in_meta]);
        if !inside.is_empty() && without(slice(message.text(), meta), &[in_meta]) == "{}" {
            unwanted.push("_meta");
            inside.clear();
        }
    }
    edits.extend(cut_from(object, &unwanted));
    edits.extend(inside);
}

/// The code under which the session era knows an error.
fn lowered_code(code: i64, to: To) -> i64 {
    match code {
        // 2026-07-28 `server/resources`, "Error Handling"
        INVALID_PARAMS if to == To::Read => NO_RESOURCE,
        code if OF_MODERN.contains(&code) => INTERNAL,
        code => code,
    }
}

/// An error of the child for this client.
pub(super) fn failed(answer: Incoming<'_>, client: &ClientId, to: To) -> Bytes {
    let mut edits = vec![id_edit(&answer, client)];
    if let Some((code, span)) = answer.error_code() {
        let lowered = lowered_code(code, to);
        edits.extend((lowered != code).then(|| (span, lowered.to_string().into_bytes())));
    }
    answer.edited(&mut edits)
}

/// An error, as several clients' requests may be answered with it: the text of the object.
#[derive(Clone, Debug)]
pub(super) struct Failure(String);

impl Failure {
    /// The bridge's own. `reason`: a word for programs.
    pub(super) fn own(code: i64, reason: &str, message: &str) -> Self {
        let message = quote(message);
        Self(format!(
            r#"{{"code":{code},"message":{message},"data":{{"source":"mcp-bridge","reason":"{reason}"}}}}"#
        ))
    }

    /// The child's own, as far as it is not too long to be repeated.
    pub(super) fn of(answer: &Incoming<'_>) -> Self {
        let text = slice(answer.text(), 0..answer.text().len());
        let code = answer.error_code().map_or(INTERNAL, |(code, _)| lowered_code(code, To::Other));
        match part(text, &["error"]) {
            Some(error) if error.len() <= MAX_REFUSAL => {
                let mut error = error.to_owned();
                if let Some(span) = value_at(&error, &["code"]) {
                    error.replace_range(span, &code.to_string());
                }
                Self(error)
            }
            _ => Self::own(code, "invalid_response", "the server has answered with a long error"),
        }
    }

    /// The answer to this client.
    pub(super) fn answer(&self, client: &ClientId) -> Bytes {
        let id = client.0.as_json();
        let mut text = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{}}}"#, self.0).into_bytes();
        join_lines(&mut text);
        text.into()
    }
}

/// The answer that says no more than that all is well.
pub(super) fn done(client: &ClientId) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, client.0.as_json()).into()
}

/// What an error says, as far as it may be shown.
pub(super) fn said(error: &str) -> String {
    refusal(error).1
}

fn result_of<'t>(answer: &'t Incoming<'_>) -> &'t str {
    answer.envelope.result.clone().map_or("{}", |span| slice(answer.text(), span))
}

fn part<'t>(object: &'t str, path: &[&str]) -> Option<&'t str> {
    object.get(value_at(object, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::Id;

    fn client() -> ClientId {
        ClientId(Id::parse("\"c\"").unwrap())
    }

    fn text(bytes: Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_result_loses_what_the_session_era_does_not_know_and_nothing_else() {
        let server = r#""io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}"#;
        let table = [
            (r#"{"resultType":"complete"}"#.to_owned(), "{}"),
            (
                r#"{"content":[ {"x" : 1e400} ] , "resultType":"complete"}"#.to_owned(),
                r#"{"content":[ {"x" : 1e400} ]}"#,
            ),
            (
                r#"{"ttlMs":0,"tools":[],"cacheScope":"private","resultType":"complete","nextCursor":"n"}"#
                    .to_owned(),
                r#"{"tools":[],"nextCursor":"n"}"#,
            ),
            (format!(r#"{{"resultType":"complete","_meta":{{{server}}},"a":1}}"#), r#"{"a":1}"#),
            (format!(r#"{{"a":1,"_meta":{{ {server} }},"resultType":"complete"}}"#), r#"{"a":1}"#),
            (
                format!(r#"{{"_meta":{{"x":1, {server}, "y":2}},"a":{{"ttlMs":1}}}}"#),
                r#"{"_meta":{"x":1, "y":2},"a":{"ttlMs":1}}"#,
            ),
            (r#"{"_meta":{},"a":"resultType"}"#.to_owned(), r#"{"_meta":{},"a":"resultType"}"#),
            ("null".to_owned(), "null"),
            ("[1]".to_owned(), "[1]"),
        ];
        for (result, want) in table {
            for line in [
                format!(r#"{{"jsonrpc":"2.0","id":3,"result":{result}}}"#),
                format!(r#"{{"result":{result},"id":3,"jsonrpc":"2.0"}}"#),
            ] {
                let answer = Incoming::peek(&line).unwrap();
                let want = line.replace(&result, want).replace("\"id\":3", "\"id\":\"c\"");
                assert_eq!(text(complete(answer, &client(), To::Other)), want);
            }
        }
    }

    #[test]
    fn structured_content_is_an_object_and_schemas_are_those_of_objects() {
        let object = r#""structuredContent":{"a" : [1e400]}"#;
        let calls = [
            (r#""structuredContent":[1e400 , 2]"#, r#""structuredContent":{"result":[1e400 , 2]}"#),
            (r#""structuredContent" : null"#, r#""structuredContent" : {"result":null}"#),
            (r#""x":1,"structuredContent":7"#, r#""x":1,"structuredContent":{"result":7}"#),
            (r#""structuredContent":"x""#, r#""structuredContent":{"result":"x"}"#),
            (object, object),
            (r#""content":["structuredContent"]"#, r#""content":["structuredContent"]"#),
        ];
        let good = r#""outputSchema":{ "type" : "object" }"#;
        let lists = [
            (r#""tools":[{"outputSchema":{"type":"array"},"name":"a"}]"#, r#""tools":[{"name":"a"}]"#),
            (
                r#""tools":[ {"name":"a", "outputSchema":{"anyOf":[{"type":"object"}]} } , {"name":"b"}]"#,
                r#""tools":[ {"name":"a" } , {"name":"b"}]"#,
            ),
            (r#""tools":[{"outputSchema":true}, 7]"#, r#""tools":[{}, 7]"#),
            (
                r#""tools":[{"outputSchema":{"type":["object","null"]}},{"outputSchema":{"type":"object"}}]"#,
                r#""tools":[{},{"outputSchema":{"type":"object"}}]"#,
            ),
            (r#""tools":{"outputSchema":7}"#, r#""tools":{"outputSchema":7}"#),
            (good, good),
        ];
        let calls = calls.map(|(before, after)| (To::Call, before, after));
        let lists = lists.map(|(before, after)| (To::Tools, before, after));
        for (to, before, after) in calls.into_iter().chain(lists) {
            let line = |id: &str, result: &str, rest: &str| {
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{result}{rest}}}}}"#)
            };
            for rest in ["", r#","resultType":"complete""#] {
                let sent = line("3", before, rest);
                let lowered = |to| text(complete(Incoming::peek(&sent).unwrap(), &client(), to));
                assert_eq!(lowered(to), line("\"c\"", after, ""));
                assert_eq!(lowered(To::Other), line("\"c\"", before, ""), "it is another's");
            }
        }
    }

    #[test]
    fn the_codes_of_errors_are_those_of_the_session_era() {
        let table = [
            (-32602, To::Call, -32602),
            (-32602, To::Other, -32602),
            (-32602, To::Read, -32002),
            (-32020, To::Read, -32603),
            (-32021, To::Other, -32603),
            (-32022, To::Tools, -32603),
            (-32023, To::Other, -32023),
            (-32601, To::Read, -32601),
            (7, To::Read, 7),
        ];
        for (code, to, want) in table {
            let line = |id: &str, code: i64| {
                format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"message":"-32602","code":{code},"data":[1]}}}}"#
                )
            };
            let (before, after) = (line("3", code), line("\"c\"", want));
            let answer = || Incoming::peek(&before).unwrap();
            assert_eq!(text(failed(answer(), &client(), to)), after);
            if to != To::Read {
                assert_eq!(text(Failure::of(&answer()).answer(&client())), after);
            }
        }
    }

    #[test]
    fn a_notification_of_a_subscription_does_not_name_it() {
        let id = r#""io.modelcontextprotocol/subscriptionId":7"#;
        let table = [
            (format!(r#","params":{{"_meta":{{{id}}}}}"#), r#","params":{}"#),
            (
                format!(r#","params":{{"uri":"u","_meta":{{{id}, "x":1}}}}"#),
                r#","params":{"uri":"u","_meta":{"x":1}}"#,
            ),
            (String::new(), ""),
            (r#","params":[1]"#.to_owned(), r#","params":[1]"#),
        ];
        for (params, want) in table {
            let line = |params: &str| format!(r#"{{"jsonrpc":"2.0","method":"n"{params}}}"#);
            let before = line(&params);
            assert_eq!(text(unsubscribed(Incoming::peek(&before).unwrap())), line(want));
        }
    }
}
