//! Messages as tests write them.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;

use super::front::Takes;
use super::message::{Message, Request};

/// What the stream of a POST may carry: events, or the answer alone.
pub(crate) fn takes(events: bool) -> Takes {
    if events { Takes::Events } else { Takes::AnswerOnly }
}

/// The message that this text is.
pub(crate) fn message(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap_or_else(|why| panic!("{text}: {why:?}"))
}

/// The request that this text is.
pub(crate) fn parsed_request(text: &str) -> Request {
    message(text).request().cloned().expect("a request")
}

/// A request without parameters.
pub(crate) fn request(id: &str, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

/// A tool call that asks for progress.
pub(crate) fn call(id: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
    )
}

/// A notification without parameters.
pub(crate) fn note(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
}

/// Progress of the call with this token.
pub(crate) fn progress(token: &str, number: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{number}}}}}"#
    )
}

/// The cancellation of a request.
pub(crate) fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

pub(crate) fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

/// JSON of any kind, with names and values that fronts look for.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "null",
        "true",
        "0",
        "2",
        "3",
        "-1.5e3",
        "\"\"",
        "\"2\"",
        "\"form\"",
        "\"url\"",
        "\"debug\"",
        "[]",
        "{}",
        "\"mcp-bridge.00000000000000000000000000000001\"",
        "\"\\ud800\"",
        " { } ",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 40, 5, |inner| {
        let names = select(vec![
            "_meta",
            "mode",
            "elicitations",
            "data",
            "code",
            "nextCursor",
            "tools",
            "progressToken",
            "requestState",
            "inputResponses",
            "elicitation_1",
            "level",
            "resultType",
            "ttlMs",
            "cacheScope",
            "isError",
            "capabilities",
            "serverInfo",
            "protocolVersion",
            "requestId",
            "elicitationId",
            "uri",
            "notifications",
            "resourceSubscriptions",
            "name",
            "arguments",
            "inputSchema",
            "properties",
            "x-mcp-header",
            "io.modelcontextprotocol/clientCapabilities",
            "io.modelcontextprotocol/logLevel",
            "elicitation",
            "\\u005fmeta",
            "",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(" ,"))),
            prop::collection::vec((names, inner), 0..6).prop_map(|members| {
                let members: Vec<_> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// A message of the child or of a client, with JSON of any kind in it.
pub(crate) fn any_text(methods: &'static [&'static str]) -> impl Strategy<Value = String> {
    let id = || select(vec!["1", "2", "3", "4", "\"2\"", "2.0", "null", "\"q\""]);
    prop_oneof![
        (id(), select(methods), any_json()).prop_map(|(id, method, params)| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
        }),
        (select(methods), any_json()).prop_map(|(method, params)| {
            format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
        }),
        (id(), any_json())
            .prop_map(|(id, result)| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)),
        (id(), any_json())
            .prop_map(|(id, error)| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)),
    ]
}
