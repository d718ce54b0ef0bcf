//! What a client of the session era has said of itself, and its requests as a child of 2026-07-28 may see them: each says
//! all of that again (2026-07-28 `basic/index`, "`_meta`").

use crate::proto::capabilities::Declared;
use crate::proto::json::{members, slice, unquote, value_at};
use crate::proto::level::Level;
use crate::proto::message::Request;
use crate::proto::meta::{CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, PROTOCOL_VERSION, RESERVED};
use crate::proto::object::{Kept, has, with_first, without};
use crate::proto::version::Revision;

/// The longest capabilities, and the longest description of a client, that are repeated in each request, in bytes. A client
/// with longer capabilities has none; of a longer description the icons are left out, and then all of it.
const MAX_CAPABILITIES: usize = 8 * 1024;
const MAX_CLIENT_INFO: usize = 4 * 1024;

/// What a client said in its `initialize`.
#[derive(Debug)]
pub(super) struct Profile {
    /// The members of `_meta` that each request gets.
    meta: Box<str>,
    pub(super) declared: Declared,
    /// The revision that the session has.
    pub(super) revision: Revision,
}

impl Profile {
    pub(super) fn of(initialize: &Request) -> Self {
        let params = initialize.params().map_or("{}", |span| slice(initialize.text(), span));
        let object = |name| {
            let value = value_at(params, &[name]).and_then(|span| params.get(span));
            value.filter(|value| value.starts_with('{'))
        };
        let asked = initialize.subject().and_then(|token| Revision::parse(&unquote(token)));
        let revision = asked.filter(|revision| !revision.modern()).unwrap_or(Revision::R2025_11_25);
        let capabilities = object("capabilities").filter(|declared| declared.len() <= MAX_CAPABILITIES);
        let capabilities =
            capabilities.map_or_else(|| "{}".to_owned(), |declared| raised(declared, revision));
        let info = object("clientInfo").map(|info| {
            if info.len() > MAX_CLIENT_INFO { without(info, &["icons"]) } else { info.to_owned() }
        });
        let info = info.filter(|info| info.len() <= MAX_CLIENT_INFO);
        let info = info.map_or_else(String::new, |info| format!("\"{CLIENT_INFO}\":{info},"));
        let modern = Revision::R2026_07_28;
        Self {
            meta: format!(
                "\"{PROTOCOL_VERSION}\":\"{modern}\",{info}\"{CLIENT_CAPABILITIES}\":{capabilities}"
            )
            .into(),
            declared: Declared::parse(&capabilities),
            revision,
        }
    }

    /// A request that the bridge makes for this client. `more`: what else is in `params`, a comma before each member.
    pub(super) fn own(&self, method: &str, more: &str) -> Request {
        Request::own(method, &format!("{{\"_meta\":{{{}}}{more}}}", self.meta))
    }

    /// A request of the client as the child may see it; `None`: its `params` are no object. What the client says under names
    /// that are reserved is not its to say.
    pub(super) fn raise(&self, request: &Request, level: Option<Level>) -> Option<Request> {
        let level =
            level.map_or_else(String::new, |level| format!(",\"{LOG_LEVEL}\":\"{}\"", level.as_str()));
        let mut meta = format!("{}{level}", self.meta);
        let span = request.params();
        let params = span.clone().map_or("null", |span| slice(request.text(), span));
        if params == "null" {
            return Some(request.with_params(&format!("{{\"_meta\":{{{meta}}}}}"), None));
        }
        if !params.starts_with('{') {
            return None;
        }
        let start = span.map_or(0, |span| span.start);
        let before = request.meta().map(|span| span.start - start..span.end - start);
        if let Some(before) = before.clone() {
            let before = params.get(before).unwrap_or_default();
            let _ = members(before, |name, value| {
                if !unquote(name).starts_with(RESERVED) {
                    meta.push_str(&[",", name, ":", before.get(value).unwrap_or_default()].concat());
                }
            });
        }
        let params = match before {
            Some(before) => {
                let (first, last) = (params.get(..before.start), params.get(before.end..));
                [first.unwrap_or_default(), "{", &meta, "}", last.unwrap_or_default()].concat()
            }
            None => with_first(params, &format!("\"_meta\":{{{meta}}}")),
        };
        Some(request.with_params(&params, None))
    }
}

/// Capabilities without what 2026-07-28 does not know: tasks of the session era, and the announcement that the roots change
/// (2026-07-28 `changelog`). Nor does a session carry extensions of that revision, whose results a client of the session era
/// could not take. Nor elicitation of URLs before 2025-11-25, of which the client is not asked then: a child that knows may
/// do without.
fn raised(capabilities: &str, revision: Revision) -> String {
    let mut kept = Kept::default();
    let read = members(capabilities, |name, value| {
        let value = capabilities.get(value).unwrap_or_default();
        match &*unquote(name) {
            "extensions" | "tasks" => {}
            "roots" => kept.push(name, &without(value, &["listChanged"])),
            "elicitation" if revision < Revision::R2025_11_25 && has(value, "url") => {
                // One that names no mode would have forms.
                if has(value, "form") {
                    kept.push(name, &without(value, &["url"]));
                }
            }
            _ => kept.push(name, value),
        }
    });
    if read.is_some() { kept.end() } else { "{}".to_owned() }
}

/// The same request once more, with the client's answers to what the child has asked. `state`: the child's `requestState`,
/// as it came; `answers`: the JSON object, where there are any (2026-07-28 `basic/patterns/mrtr`).
pub(super) fn again(request: &Request, answers: Option<&str>, state: Option<&str>) -> Request {
    const NAMES: [&str; 2] = ["inputResponses", "requestState"];
    let params = request.params().map_or("{}", |span| slice(request.text(), span));
    let params = without(params, &NAMES);
    let more = NAMES.into_iter().zip([answers, state]);
    let more: Vec<_> =
        more.filter_map(|(name, value)| value.map(|value| format!("\"{name}\":{value}"))).collect();
    request.with_params(&with_first(&params, &more.join(",")), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::parsed_request;

    fn profile(params: &str) -> Profile {
        Profile::of(&parsed_request(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{params}}}"#
        )))
    }

    fn params(request: &Request) -> &str {
        slice(request.text(), request.params().unwrap())
    }

    const VERSION: &str = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;

    #[test]
    fn what_a_client_says_of_itself_is_said_again_as_far_as_the_new_revision_knows_it() {
        let table = [
            ("{}", "{}"),
            (
                r#"{"capabilities":{"extensions":{"a/b":{}},"tasks":{"list":{}},"roots":{"listChanged":true}}}"#,
                r#"{"roots":{}}"#,
            ),
            (
                r#"{"capabilities":{"experimental":{"tasks":1},"roots":{"x" : 1,"listChanged":true},"y":[ 1e400 ]}}"#,
                r#"{"experimental":{"tasks":1},"roots":{"x":1},"y":[ 1e400 ]}"#,
            ),
            (r#"{"capabilities":[]}"#, "{}"),
            (r#"{"capabilities":{"roots":7}}"#, r#"{"roots":7}"#),
        ];
        for (said, want) in table {
            let request = profile(said).own("x", "");
            let meta = r#""io.modelcontextprotocol/clientCapabilities":"#;
            assert_eq!(params(&request), format!("{{\"_meta\":{{{VERSION},{meta}{want}}}}}"), "{said}");
        }
    }

    #[test]
    fn a_client_of_a_revision_without_elicitation_of_urls_does_not_offer_it() {
        let table = [
            ("2025-11-25", r#"{"url":{}}"#, r#"{"elicitation":{"url":{}}}"#),
            ("2025-06-18", r#"{"url":{}}"#, "{}"),
            ("2025-06-18", r#"{"form":{"x" : 1},"url":{}}"#, r#"{"elicitation":{"form":{"x" : 1}}}"#),
            ("2025-06-18", "{ }", r#"{"elicitation":{ }}"#),
            ("2027-01-01", r#"{"url":{}}"#, r#"{"elicitation":{"url":{}}}"#),
        ];
        for (revision, declared, want) in table {
            let said =
                format!(r#"{{"protocolVersion":"{revision}","capabilities":{{"elicitation":{declared}}}}}"#);
            let request = profile(&said).own("x", "");
            assert!(
                params(&request).ends_with(&format!("Capabilities\":{want}}}}}")),
                "{}",
                params(&request)
            );
        }
    }

    #[test]
    fn a_client_that_says_too_much_of_itself_says_less_in_each_request() {
        let icons = format!(r#""icons":["{}"]"#, "x".repeat(MAX_CLIENT_INFO));
        let request = profile(&format!(r#"{{"clientInfo":{{"name":"c",{icons}}}}}"#)).own("x", "");
        assert!(params(&request).contains(r#"clientInfo":{"name":"c"}"#));
        let long = "x".repeat(MAX_CAPABILITIES);
        let profile = profile(&format!(
            r#"{{"clientInfo":{{"name":"{long}"}},"capabilities":{{"roots":{{}},"x":"{long}"}}}}"#
        ));
        assert!(!params(&profile.own("x", "")).contains("clientInfo"));
        assert!(!profile.declared.allows(crate::proto::capabilities::Need::Roots));
    }

    #[test]
    fn a_request_gets_what_the_new_revision_demands_and_all_else_stays_as_it_is() {
        let profile = profile(r#"{"clientInfo":{"name":"c"}}"#);
        let own = format!(
            r#"{VERSION},"io.modelcontextprotocol/clientInfo":{{"name":"c"}},"io.modelcontextprotocol/clientCapabilities":{{}}"#
        );
        let level = r#""io.modelcontextprotocol/logLevel":"error""#;
        let table = [
            ("", None, format!(r#"{{"_meta":{{{own}}}}}"#)),
            (r#","params":null"#, Some(Level::Error), format!(r#"{{"_meta":{{{own},{level}}}}}"#)),
            (r#","params":{ }"#, None, format!(r#"{{"_meta":{{{own}}} }}"#)),
            (
                r#","params":{ "name" : "a" , "arguments" : { "n" : 1e400, "n" : 12345678901234567890 } }"#,
                None,
                format!(
                    r#"{{"_meta":{{{own}}}, "name" : "a" , "arguments" : {{ "n" : 1e400, "n" : 12345678901234567890 }} }}"#
                ),
            ),
            (
                r#","params":{"name":"a", "_meta" : { "x" : 1,"progressToken":7, "io.modelcontextprotocol/logLevel":"debug","io.modelcontextprotocol/clientCapabilities":{"roots":{}} } ,"b":2}"#,
                Some(Level::Error),
                format!(r#"{{"name":"a", "_meta" : {{{own},{level},"x":1,"progressToken":7}} ,"b":2}}"#),
            ),
            (r#","params":{"_meta":7}"#, None, format!(r#"{{"_meta":{{{own}}}}}"#)),
        ];
        for (before, level, want) in table {
            for text in [
                format!(r#"{{"jsonrpc":"2.0","id":"x","method":"tools/call"{before}}}"#),
                format!(r#"{{"method":"tools/call"{before},"jsonrpc":"2.0","id":"x"}}"#),
            ] {
                let request = profile.raise(&parsed_request(&text), level).unwrap();
                assert_eq!(params(&request), want, "{text}");
                let parsed = parsed_request(std::str::from_utf8(request.text()).unwrap());
                let parts =
                    |request: &Request| (request.id_span(), request.method().into_owned(), request.params());
                assert_eq!(parts(&request), parts(&parsed), "{text}");
            }
        }
        let list = parsed_request(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}"#);
        assert!(profile.raise(&list, None).is_none(), "an array has no place for it");
    }

    #[test]
    fn a_request_is_repeated_with_the_answers_and_the_state_of_this_round_alone() {
        let first = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{ "requestState" : 1 },"requestState":"old","inputResponses":{}}}"#;
        let first = parsed_request(first);
        let table = [
            (
                Some(r#"{"k":{}}"#),
                Some(r#""s""#),
                r#"{"inputResponses":{"k":{}},"requestState":"s","arguments":{ "requestState" : 1 }}"#,
            ),
            (None, Some(r#""\u0073""#), r#"{"requestState":"\u0073","arguments":{ "requestState" : 1 }}"#),
            (Some("{}"), None, r#"{"inputResponses":{},"arguments":{ "requestState" : 1 }}"#),
        ];
        for (answers, state, want) in table {
            assert_eq!(params(&again(&first, answers, state)), want);
        }
    }
}
