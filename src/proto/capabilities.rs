//! What a client declares that it can be asked, in either era, and what a question needs.

use super::json::{members, unquote};
use super::object::has;
use super::output::Capability;

/// What a client declares that it can be asked for (2026-07-28 `basic/index`, "Client Capabilities").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    form: bool,
    url: bool,
    sampling: bool,
    /// Sampling with tools.
    tools: bool,
    roots: bool,
}

impl Declared {
    /// `capabilities`: the JSON object.
    pub fn parse(capabilities: &str) -> Self {
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
    pub fn allows(self, need: Need) -> bool {
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
pub enum Need {
    Form,
    Url,
    Sampling,
    SamplingWithTools,
    Roots,
}

impl Need {
    /// What a request of the child with this method needs; `None`: it is none that a client is asked.
    pub fn of(method: &str, params: &str) -> Option<Self> {
        Some(match method {
            "elicitation/create" if is_url(params) => Self::Url,
            "elicitation/create" => Self::Form,
            "sampling/createMessage" if has(params, "tools") => Self::SamplingWithTools,
            "sampling/createMessage" => Self::Sampling,
            "roots/list" => Self::Roots,
            _ => return None,
        })
    }

    pub fn capability(self) -> Capability {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
