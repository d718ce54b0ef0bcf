//! URLs that a child of the session era needs a client to open before it serves a request (2025-11-25
//! `client/elicitation`, "URL Elicitation Required Error").

use super::incoming::Incoming;
use super::json::{elements, slice, unquote, value_at};

/// The code of an error that says so.
pub const URL_NEEDED: i64 = -32042;

/// The elicitations that such an error names: the parameters of each.
pub fn elicitations<'t>(answer: &'t Incoming<'_>) -> impl Iterator<Item = &'t str> {
    let text = slice(answer.text(), 0..answer.text().len());
    let list = value_at(text, &["error", "data", "elicitations"]).and_then(|span| text.get(span));
    list.into_iter().flat_map(elements).flatten()
}

/// The `elicitationId` in these parameters.
pub fn elicitation_id(params: &str) -> Option<Box<str>> {
    let token = value_at(params, &["elicitationId"]).and_then(|span| params.get(span))?;
    token.starts_with('"').then(|| unquote(token).into())
}
