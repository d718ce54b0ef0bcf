//! What a request of 2026-07-28 says beside its parameters, and the same request as a child of the session era may see it.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::proto::json::{Span, members, slice, unquote};
use crate::proto::message::Request;
use crate::proto::output::Capability;

/// What the names in `_meta` begin with that the specification has reserved (2026-07-28 `basic/index`, "`_meta`").
const RESERVED: &str = "io.modelcontextprotocol/";

/// How grave a log line is (RFC 5424 §6.2.1), the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    const NAMES: [(Self, &'static str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    /// The level that a JSON string names.
    pub(super) fn parse(token: &str) -> Option<Self> {
        let name = unquote(token);
        Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(level, _)| level)
    }

    pub(super) fn as_str(self) -> &'static str {
        Self::NAMES.into_iter().find(|(level, _)| *level == self).map_or("debug", |(_, name)| name)
    }
}

/// What a client declares that it can be asked for (2026-07-28 `basic/index`, "Client Capabilities").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    form: bool,
    url: bool,
    sampling: bool,
    /// Sampling with tools.
    tools: bool,
    roots: bool,
}

impl Declared {
    /// `capabilities`: the JSON object.
    fn parse(capabilities: &str) -> Self {
        let mut declared = Self::default();
        let _ = members(capabilities, |name, value| {
            let inside = capabilities.get(value).unwrap_or_default();
            if !inside.starts_with('{') {
                return;
            }
            match &*unquote(name) {
                "elicitation" => {
                    (declared.form, declared.url) = (has(inside, "form"), has(inside, "url"));
                    // One that names no mode has the first one (2026-07-28 `client/elicitation`).
                    declared.form |= !declared.url;
                }
                "sampling" => (declared.sampling, declared.tools) = (true, has(inside, "tools")),
                "roots" => declared.roots = true,
                _ => {}
            }
        });
        declared
    }

    /// Whether the client can be asked this.
    pub(super) fn allows(self, need: Need) -> bool {
        match need {
            Need::Form => self.form,
            Need::Url => self.url,
            Need::Sampling => self.sampling,
            Need::SamplingWithTools => self.sampling && self.tools,
            Need::Roots => self.roots,
        }
    }
}

/// What a client must have declared to be asked something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Form,
    Url,
    Sampling,
    SamplingWithTools,
    Roots,
}

impl Need {
    /// What a request of the child with this method needs; `None`: it is none that a client is asked.
    pub(super) fn of(method: &str, params: &str) -> Option<Self> {
        Some(match method {
            "elicitation/create" if is_url(params) => Self::Url,
            "elicitation/create" => Self::Form,
            "sampling/createMessage" if has(params, "tools") => Self::SamplingWithTools,
            "sampling/createMessage" => Self::Sampling,
            "roots/list" => Self::Roots,
            _ => return None,
        })
    }

    pub(super) fn capability(self) -> Capability {
        match self {
            Self::Form | Self::Url => Capability::Elicitation,
            Self::Sampling | Self::SamplingWithTools => Capability::Sampling,
            Self::Roots => Capability::Roots,
        }
    }
}

fn is_url(params: &str) -> bool {
    let mut is_url = false;
    let _ = members(params, |name, value| {
        is_url |= unquote(name) == "mode" && unquote(params.get(value).unwrap_or_default()) == "url";
    });
    is_url
}

/// Whether a JSON object has this member, and it is not null.
pub(super) fn has(object: &str, wanted: &str) -> bool {
    let mut has = false;
    let _ = members(object, |name, value| {
        has |= unquote(name) == wanted && object.get(value) != Some("null");
    });
    has
}

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
                                token = Some(rest.0.len() - inside.len()..rest.0.len());
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
                        let before = kept.0.len() - meta.len();
                        token = token.take().map(|span: Span| before + span.start..before + span.end);
                    }
                    None => kept.push(name, value),
                }
            }
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

/// Members of a JSON object that are kept.
#[derive(Debug, Default)]
struct Kept(String);

impl Kept {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `name`: in its quotes.
    fn push(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(name);
        self.0.push(':');
        self.0.push_str(value);
    }

    fn end(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}

/// A JSON object without these members.
pub(super) fn without(object: &str, unwanted: &[&str]) -> String {
    let mut kept = Kept::default();
    let read = members(object, |name, value| {
        if !unwanted.contains(&&*unquote(name)) {
            kept.push(name, object.get(value).unwrap_or_default());
        }
    });
    if read.is_some() { kept.end() } else { object.to_owned() }
}

/// A JSON object with another member before all others.
pub(super) fn with_first(object: &str, member: &str) -> String {
    let rest = object.get(1..).unwrap_or("}");
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    format!("{{{member}{comma}{rest}")
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
    fn a_client_declares_what_it_can_be_asked() {
        let table = [
            ("{}", Need::Form, false),
            (r#"{"elicitation":{}}"#, Need::Form, true),
            (r#"{"elicitation":{}}"#, Need::Url, false),
            (r#"{"elicitation":{"url":{}}}"#, Need::Url, true),
            (r#"{"elicitation":{"url":{}}}"#, Need::Form, false),
            (r#"{"elicitation":{"url":{},"form":{}}}"#, Need::Form, true),
            (r#"{"elicitation":true}"#, Need::Form, false),
            (r#"{"sampling":{}}"#, Need::Sampling, true),
            (r#"{"sampling":{}}"#, Need::SamplingWithTools, false),
            (r#"{"sampling":{"tools":{}}}"#, Need::SamplingWithTools, true),
            (r#"{"roots":{}}"#, Need::Roots, true),
            (r#"{"sampling":{}}"#, Need::Roots, false),
            ("[]", Need::Roots, false),
        ];
        for (declared, need, allowed) in table {
            assert_eq!(Declared::parse(declared).allows(need), allowed, "{declared} {need:?}");
        }
    }

    #[test]
    fn what_a_request_of_the_child_needs_depends_on_its_parameters() {
        let table = [
            ("elicitation/create", r#"{"message":"?"}"#, Some(Need::Form)),
            ("elicitation/create", r#"{"mode":"url"}"#, Some(Need::Url)),
            ("sampling/createMessage", r#"{"tools":null}"#, Some(Need::Sampling)),
            ("sampling/createMessage", r#"{"tools":[]}"#, Some(Need::SamplingWithTools)),
            ("roots/list", "", Some(Need::Roots)),
            ("ping", "", None),
        ];
        for (method, params, need) in table {
            assert_eq!(Need::of(method, params), need, "{method} {params}");
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

    #[test]
    fn levels_have_an_order_and_names() {
        for pair in Level::NAMES.windows(2) {
            assert!(pair[0].0 < pair[1].0);
        }
        for (level, name) in Level::NAMES {
            assert_eq!(Level::parse(&format!("\"{name}\"")), Some(level));
            assert_eq!(level.as_str(), name);
        }
        assert_eq!(Level::parse("\"Debug\""), None);
        assert_eq!(Level::parse("7"), None);
    }
}
