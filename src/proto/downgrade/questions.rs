//! What a child of 2026-07-28 needs from its client before it can answer (`basic/patterns/mrtr`), as requests that a client
//! of the session era is sent, and the client's answers as the child is given them.

use crate::printable::cut;
use crate::proto::capabilities::{Declared, Need};
use crate::proto::ids::Id;
use crate::proto::json::{members, quote, unquote};
use crate::proto::line::join_lines;
use crate::proto::message::{Envelope, Kind};
use crate::proto::object::{with_first, without};
use crate::proto::output::Capability;
use crate::proto::version::Revision;

use super::answer::said;

/// How many questions one call may have at once.
pub(super) const MAX_QUESTIONS: usize = 16;

/// What the id of a question begins with. They are strings, which no other request on the way to the client has for an id.
const PREFIX: &str = "mcp-bridge-";

/// Names a question; each of a session has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(pub(super) u64);

impl Number {
    /// The one that a client names by this id.
    pub(super) fn parse(id: &Id) -> Option<Self> {
        let text = unquote(id.as_json());
        let number = Self(text.strip_prefix(PREFIX)?.parse().ok()?);
        (number.to_string() == text).then_some(number)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// Something that the child asks.
#[derive(Debug)]
pub(super) struct Asked {
    /// The name by which the child knows it.
    key: Box<str>,
    need: Need,
    method: Box<str>,
    /// The JSON object; empty, where there is none.
    params: Box<str>,
}

/// What a result that is none yet says.
#[derive(Debug)]
pub(super) struct Needed {
    pub(super) asked: Vec<Asked>,
    /// To be given back, as it stands.
    pub(super) state: Option<Box<str>>,
}

impl Needed {
    /// `result`: of type `input_required`. `declared`: what the client can be asked.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub(super) fn of(result: &str, declared: Declared, revision: Revision) -> Result<Self, String> {
        let mut needed = Self { asked: Vec::new(), state: None };
        let (mut wrong, mut is_request) = (None, true);
        let read = members(result, |name, value| {
            let value = result.get(value).unwrap_or_default();
            match &*unquote(name) {
                "requestState" if value != "null" => needed.state = Some(value.into()),
                "inputRequests" if value != "null" => {
                    let read = members(value, |key, request| {
                        let request = value.get(request).unwrap_or_default();
                        match Asked::of(key, request) {
                            _ if wrong.is_some() => {}
                            None => is_request = false,
                            Some(asked) => {
                                wrong = asked.hindrance(declared, revision);
                                // Of two with one name a reader takes the later one.
                                needed.asked.retain(|before| unquote(&before.key) != unquote(key));
                                needed.asked.push(asked);
                            }
                        }
                        if needed.asked.len() > MAX_QUESTIONS {
                            wrong.get_or_insert_with(|| format!("more than {MAX_QUESTIONS} things at once"));
                        }
                    });
                    is_request &= read.is_some();
                }
                _ => {}
            }
        });
        match wrong {
            Some(wrong) => Err(format!("The server asks the client for {wrong}")),
            None if !is_request || read.is_none() => {
                Err("The server asks the client for something that is no request to a client".to_owned())
            }
            None if needed.asked.is_empty() && needed.state.is_none() => {
                Err("The server needs something of the client and does not say what".to_owned())
            }
            None => Ok(needed),
        }
    }

    /// How many bytes of it are kept.
    pub(super) fn kept(&self) -> usize {
        let keys: usize = self.asked.iter().map(|asked| asked.key.len()).sum();
        keys + self.state.as_ref().map_or(0, |state| state.len())
    }
}

impl Asked {
    fn of(key: &str, request: &str) -> Option<Self> {
        let (mut method, mut params) = ("", "");
        members(request, |name, value| match &*unquote(name) {
            "method" => method = request.get(value).unwrap_or_default(),
            "params" => params = request.get(value).unwrap_or_default(),
            _ => {}
        })?;
        let method = unquote(method);
        let need = Need::of(&method, params)?;
        let params = match params {
            "null" | "" if need == Need::Roots => "",
            params if params.starts_with('{') => params,
            _ => return None,
        };
        Some(Self { key: key.into(), need, method: method.into(), params: params.into() })
    }

    /// What its client cannot be asked.
    fn hindrance(&self, declared: Declared, revision: Revision) -> Option<String> {
        let what = self.need.capability().as_str();
        if self.need == Need::Url && revision < Revision::R2025_11_25 {
            return Some(format!("{what} of a URL, which {revision} does not have"));
        }
        (!declared.allows(self.need)).then(|| match self.need {
            Need::Url => format!("{what} of a URL, which it has not declared"),
            Need::SamplingWithTools => format!("{what} with tools, which it has not declared"),
            Need::Form | Need::Sampling | Need::Roots => format!("{what}, which it has not declared"),
        })
    }

    /// The request that its client is sent.
    pub(super) fn request(&self, number: Number, revision: Revision) -> Vec<u8> {
        let params = match self.need {
            // 2025-11-25 has brought the modes (`client/elicitation`).
            Need::Form if revision < Revision::R2025_11_25 => without(&self.params, &["mode"]),
            // It demands a name for each, and 2026-07-28 knows none.
            Need::Url => {
                let id = format!(r#""elicitationId":"{number}""#);
                with_first(&without(&self.params, &["elicitationId"]), &id)
            }
            _ => (*self.params).to_owned(),
        };
        let params = if params.is_empty() { params } else { format!(r#","params":{params}"#) };
        let mut text =
            format!(r#"{{"jsonrpc":"2.0","id":"{number}","method":"{}"{params}}}"#, self.method).into_bytes();
        join_lines(&mut text);
        text
    }
}

/// A question that the client has been asked.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) number: Number,
    key: Box<str>,
    need: Need,
    /// The client's answer, as the child is given it.
    answer: Option<Box<str>>,
}

impl Question {
    pub(super) fn new(number: Number, asked: Asked) -> Self {
        Self { number, key: asked.key, need: asked.need, answer: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.answer.is_none()
    }

    /// Takes the client's response. Returns how many bytes of it are kept.
    ///
    /// # Errors
    /// Why there is nothing that the child could be given.
    pub(super) fn answered(&mut self, response: &[u8]) -> Result<usize, String> {
        let text = std::str::from_utf8(response).unwrap_or_default();
        let envelope = Envelope::peek(response).ok();
        let result = envelope.filter(|envelope| envelope.kind == Kind::Success);
        let result = result.and_then(|envelope| text.get(envelope.result?));
        let answer = match (result.filter(|result| result.starts_with('{')), self.need.capability()) {
            (Some(result), _) => result,
            // The client does not show it, or has lost it: nobody has answered.
            (None, Capability::Elicitation) => r#"{"action":"cancel"}"#,
            (None, what @ (Capability::Sampling | Capability::Roots)) => {
                let what = what.as_str();
                return Err(match said(text) {
                    said if said.is_empty() => {
                        format!("The server needs the client's {what}, and the client gives none")
                    }
                    said => {
                        format!("The server needs the client's {what}, and the client says: {}", cut(&said))
                    }
                });
            }
        };
        self.answer = Some(answer.into());
        Ok(answer.len())
    }

    /// What its client is told when no answer is needed any more.
    pub(super) fn taken_back(&self, why: &str) -> Vec<u8> {
        let head = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":""#;
        format!("{head}{}\",\"reason\":{}}}}}", self.number, quote(why)).into_bytes()
    }
}

/// All answers, as the object that the child is given; `None`: nothing was asked.
pub(super) fn answers(questions: &[Question]) -> Option<String> {
    let given = questions.iter().filter_map(|question| Some((&question.key, question.answer.as_ref()?)));
    let given: Vec<_> = given.map(|(key, answer)| format!("{key}:{answer}")).collect();
    (!given.is_empty()).then(|| format!("{{{}}}", given.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Declared {
        Declared::parse(r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{}}"#)
    }

    fn needed(result: &str) -> Result<Needed, String> {
        Needed::of(result, all(), Revision::R2025_11_25)
    }

    #[test]
    fn what_a_child_asks_is_a_request_that_the_clients_revision_has() {
        let ask = |request: &str, revision| {
            let needed = Needed::of(&format!(r#"{{"inputRequests":{{"k":{request}}}}}"#), all(), revision);
            let asked = needed.unwrap().asked;
            let text = String::from_utf8(asked[0].request(Number(7), revision)).unwrap();
            text.strip_prefix(r#"{"jsonrpc":"2.0","id":"mcp-bridge-7","method":"#).unwrap().to_owned()
        };
        use Revision::*;
        let form = r#"{"method":"elicitation/create","params":{"mode":"form","message":"a\n"}}"#;
        assert_eq!(ask(form, R2025_06_18), r#""elicitation/create","params":{"message":"a\n"}}"#);
        assert_eq!(
            ask(form, R2025_11_25),
            r#""elicitation/create","params":{"mode":"form","message":"a\n"}}"#
        );
        let url = r#"{"method":"elicitation/create","params":{"mode":"url","url":"u"}}"#;
        let want =
            r#""elicitation/create","params":{"elicitationId":"mcp-bridge-7","mode":"url","url":"u"}}"#;
        assert_eq!(ask(url, R2025_11_25), want);
        assert_eq!(ask(r#"{"method":"roots/list"}"#, R2025_03_26), r#""roots/list"}"#);
        assert_eq!(
            ask(r#"{"method":"roots/list","params":{}}"#, R2025_03_26),
            r#""roots/list","params":{}}"#
        );
        let sampling = "{\"params\":{\"maxTokens\"\r:1},\"method\":\"sampling/createMessage\"}";
        assert_eq!(ask(sampling, R2024_11_05), r#""sampling/createMessage","params":{"maxTokens" :1}}"#);
    }

    #[test]
    fn what_a_client_cannot_be_asked_is_said() {
        let table = [
            (
                r#"{"method":"elicitation/create","params":{"mode":"url"}}"#,
                R2025_06_18,
                "elicitation of a URL, which 2025-06-18 does not have",
            ),
            (
                r#"{"method":"sampling/createMessage","params":{"tools":[]}}"#,
                R2025_11_25,
                "sampling with tools, which it has not declared",
            ),
            (r#"{"method":"ping","params":{}}"#, R2025_11_25, "something that is no request to a client"),
            (r#"{"method":"elicitation/create"}"#, R2025_11_25, "something that is no request to a client"),
            ("7", R2025_11_25, "something that is no request to a client"),
        ];
        use Revision::*;
        for (request, revision, want) in table {
            let result = format!(r#"{{"inputRequests":{{"k":{request}}}}}"#);
            let why = Needed::of(&result, all(), revision).unwrap_err();
            assert_eq!(why, format!("The server asks the client for {want}"), "{request}");
        }
        assert!(needed("{}").is_err() && needed(r#"{"inputRequests":{},"requestState":null}"#).is_err());
        assert!(needed(r#"{"inputRequests":[]}"#).is_err());
        let many: Vec<_> =
            (0..=MAX_QUESTIONS).map(|key| format!(r#""{key}":{{"method":"roots/list"}}"#)).collect();
        assert!(needed(&format!(r#"{{"inputRequests":{{{}}}}}"#, many.join(","))).is_err(), "it is bounded");
    }

    #[test]
    fn of_two_questions_with_one_name_the_later_one_is_asked() {
        let result = r#"{"inputRequests":{"k":{"method":"roots/list"},"\u006b":{"method":"elicitation/create","params":{}}}}"#;
        let needed = needed(result).unwrap();
        assert_eq!(needed.asked.len(), 1);
        assert_eq!(needed.asked[0].need, Need::Form);
    }

    #[test]
    fn what_a_client_answers_is_what_the_child_is_given() {
        let answer = |method: &str, member: &str| {
            let asked = Asked::of("\"k\"", &format!(r#"{{"method":"{method}","params":{{}}}}"#)).unwrap();
            let mut question = Question::new(Number(1), asked);
            let response = format!(r#"{{"jsonrpc":"2.0","id":"mcp-bridge-1",{member}}}"#);
            question.answered(response.as_bytes()).map(|_| answers(&[question]).unwrap())
        };
        let ok = |text: &str| Ok(format!(r#"{{"k":{text}}}"#));
        let error = r#""error":{"code":-1,"message":"I \"won't\""}"#;
        assert_eq!(answer("roots/list", r#""result":{"roots" : []}"#), ok(r#"{"roots" : []}"#));
        assert_eq!(answer("elicitation/create", error), ok(r#"{"action":"cancel"}"#));
        assert_eq!(answer("elicitation/create", r#""result":null"#), ok(r#"{"action":"cancel"}"#));
        let why = answer("sampling/createMessage", error).unwrap_err();
        assert_eq!(why, r#"The server needs the client's sampling, and the client says: I "won't""#);
        assert!(answer("roots/list", r#""result":7"#).is_err());
        let long = format!(r#""error":{{"code":-1,"message":"{}"}}"#, "x".repeat(10_000));
        assert!(answer("roots/list", &long).unwrap_err().len() < 1000, "what it says is bounded");
    }

    #[test]
    fn the_id_of_a_question_is_known_in_any_spelling_of_the_string() {
        let number = |token: &str| Number::parse(&Id::parse(token).unwrap());
        assert_eq!(number("\"mcp-bridge-7\""), Some(Number(7)));
        assert_eq!(number("\"mcp\\u002dbridge-7\""), Some(Number(7)));
        for token in ["7", "\"7\"", "\"mcp-bridge-07\"", "\"mcp-bridge-+7\"", "\"mcp-bridge-\"", "\"\""] {
            assert_eq!(number(token), None, "{token}");
        }
    }
}
