//! What a request of 2026-07-28 says beside its parameters, and the same request as a child of the session era may see it.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::proto::capabilities::Declared;
use crate::proto::json::{Span, members, slice, unquote};
use crate::proto::level::Level;
use crate::proto::message::Request;
use crate::proto::meta::RESERVED;
use crate::proto::object::Kept;

/// What comes with a request that is repeated because the server has asked something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) state: Box<str>,
    /// The JSON object of the answers, by the keys of what was asked.
    pub(super) responses: Box<str>,
}

/// A request of 2026-07-28, taken apart.
#[derive(Debug)]
pub(super) struct Lowered {
    /// As the child may see it: without what the session era does not know.
    pub(super) request: Request,
    /// From which level on its client wants log lines; `None`: none.
    pub(super) level: Option<Level>,
    pub(super) declared: Declared,
    pub(super) answers: Option<Answers>,
    /// What it is, so that its repetition can be told from another request: its method and its parameters.
    pub(super) fingerprint: u64,
}

/// Takes a request apart.
///
/// # Errors
/// What is wrong with its parameters.
pub(super) fn lower(request: &Request) -> Result<Lowered, &'static str> {
    const NO_OBJECT: &str = "\"params\" must be an object";
    const NO_LEVEL: &str = "\"io.modelcontextprotocol/logLevel\" must be a level of RFC 5424";
    let text = request.text();
    let mut lowered = Lowered {
        request: request.clone(),
        level: None,
        declared: Declared::default(),
        answers: None,
        fingerprint: hash(&*request.method()),
    };
    let Some(span) = request.params() else { return Ok(lowered) };
    let params = slice(text, span.clone());
    let (mut kept, mut state, mut responses) = (Kept::default(), None, None);
    let mut token = None;
    let mut is_level = true;
    members(params, |name, value| {
        let value = params.get(value).unwrap_or_default();
        match &*unquote(name) {
            "_meta" => {
                let mut rest = Kept::default();
                let is_object = members(value, |key, inside| {
                    let inside = value.get(inside).unwrap_or_default();
                    match unquote(key).strip_prefix(RESERVED) {
                        Some("logLevel") => {
                            lowered.level = Level::parse(inside);
                            is_level = lowered.level.is_some() || inside == "null";
                        }
                        Some("clientCapabilities") => lowered.declared = Declared::parse(inside),
                        Some(_) => {}
                        None => {
                            rest.push(key, inside);
                            if unquote(key) == "progressToken" {
                                token = Some(rest.len() - inside.len()..rest.len());
                            }
                        }
                    }
                });
                match is_object {
                    // Servers of the SDKs that know both eras refuse an empty one in a session.
                    Some(()) if rest.is_empty() => {}
                    Some(()) => {
                        let meta = rest.end();
                        kept.push(name, &meta);
                        let before = kept.len() - meta.len();
                        token = token.take().map(|span: Span| before + span.start..before + span.end);
                    }
                    None => kept.push(name, value),
                }
            }
            // 2026-07-28 has none, and nobody could ask for the answer (2025-11-25 `basic/utilities/tasks`).
            "task" => {}
            "inputResponses" => responses = Some(value),
            // Some clients write null for what they leave out.
            "requestState" => state = Some(unquote(value)).filter(|_| value != "null"),
            known => {
                kept.push(name, value);
                lowered.fingerprint ^= hash((known, value)); // members have no order
            }
        }
    })
    .ok_or(NO_OBJECT)?;
    if !is_level {
        return Err(NO_LEVEL);
    }
    lowered.answers = state.map(|state| Answers {
        state: state.into(),
        responses: responses.filter(|responses| responses.starts_with('{')).unwrap_or("{}").into(),
    });
    lowered.request = request.with_params(&kept.end(), token);
    Ok(lowered)
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::parsed_request;

    fn lowered(params: &str) -> Lowered {
        let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}"#);
        lower(&parsed_request(&text)).unwrap()
    }

    fn params(lowered: &Lowered) -> &str {
        slice(lowered.request.text(), lowered.request.params().unwrap())
    }

    #[test]
    fn what_the_session_era_does_not_know_is_taken_out_and_all_else_stays_as_it_is() {
        let meta = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#;
        let table = [
            (format!(r#"{{"name":"a","_meta":{{{meta}}}}}"#), r#"{"name":"a"}"#),
            (format!(r#"{{"_meta":{{{meta}}}}}"#), "{}"),
            (
                format!(r#"{{"_meta":{{"x":1,{meta},"progressToken":"p", "traceparent" : "00"}},"name":"a"}}"#),
                r#"{"_meta":{"x":1,"progressToken":"p","traceparent":"00"},"name":"a"}"#,
            ),
            (
                r#"{ "name" : "a" , "arguments" : { "n" : 1e400, "n" : 12345678901234567890 } , "requestState":"s","inputResponses":{}}"#
                    .to_owned(),
                r#"{"name":"a","arguments":{ "n" : 1e400, "n" : 12345678901234567890 }}"#,
            ),
            (r#"{"task":{"ttl":1},"name":"a","arguments":{"task":1}}"#.to_owned(), r#"{"name":"a","arguments":{"task":1}}"#),
            (r#"{"_meta":7}"#.to_owned(), r#"{"_meta":7}"#),
        ];
        for (before, after) in table {
            assert_eq!(params(&lowered(&before)), after, "{before}");
        }
    }

    #[test]
    fn a_state_that_is_null_is_none() {
        assert_eq!(lowered(r#"{"name":"a","requestState":null,"inputResponses":null}"#).answers, None);
        assert!(lowered(r#"{"name":"a","requestState":7}"#).answers.is_some());
    }

    #[test]
    fn the_progress_token_is_found_in_what_is_left() {
        let request = lowered(
            r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":"p"}}"#,
        )
        .request;
        assert_eq!(request.text().get(request.token().unwrap()), Some(br#""p""#.as_slice()));
    }

    #[test]
    fn what_is_left_is_the_request_that_its_text_is() {
        let params = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":7},"name":"a"}"#;
        for text in [
            format!(r#"{{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{params}}}"#),
            format!(r#"{{"params":{params} , "method":"tools/call","id":"x","jsonrpc":"2.0"}}"#),
            format!(r#"{{"method":"tools/call","params":{params},"id":"x","jsonrpc":"2.0"}}"#),
        ] {
            let request = lower(&parsed_request(&text)).unwrap().request;
            let parsed = parsed_request(std::str::from_utf8(request.text()).unwrap());
            let parts = |request: &Request| {
                (request.id_span(), request.method().into_owned(), request.params(), request.token())
            };
            assert_eq!(parts(&request), parts(&parsed), "{text}");
        }
    }

    #[test]
    fn a_repetition_has_the_fingerprint_of_the_first_and_no_other_request_has_it() {
        let print = |method: &str, params: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#);
            lower(&parsed_request(&text)).unwrap().fingerprint
        };
        let first = print("tools/call", r#"{"name":"a","arguments":{"x":1},"_meta":{"progressToken":1}}"#);
        let same = r#"{"arguments":{"x":1},"name":"a","requestState":"s","inputResponses":{"q":{}},"_meta":{"progressToken":2}}"#;
        assert_eq!(first, print("tools/call", same));
        for (method, params) in [
            ("prompts/get", r#"{"name":"a","arguments":{"x":1}}"#),
            ("tools/call", r#"{"name":"b","arguments":{"x":1}}"#),
            ("tools/call", r#"{"name":"a","arguments":{"x":2}}"#),
            ("tools/call", r#"{"name":"a"}"#),
        ] {
            assert_ne!(first, print(method, params), "{method} {params}");
        }
    }
}
