//! JSON objects as text, of which members are left out or put in: what stays is as its sender wrote it.

use super::json::{members, unquote};

/// Whether a JSON object has this member, and it is not null.
pub fn has(object: &str, wanted: &str) -> bool {
    let mut has = false;
    let _ = members(object, |name, value| {
        has |= unquote(name) == wanted && object.get(value) != Some("null");
    });
    has
}

/// Members of a JSON object that are kept.
#[derive(Debug, Default)]
pub struct Kept(String);

impl Kept {
    /// How long the object is as far as it has come, in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `name`: in its quotes.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(name);
        self.0.push(':');
        self.0.push_str(value);
    }

    pub fn end(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}

/// A JSON object without these members.
pub fn without(object: &str, unwanted: &[&str]) -> String {
    let mut kept = Kept::default();
    let read = members(object, |name, value| {
        if !unwanted.contains(&&*unquote(name)) {
            kept.push(name, object.get(value).unwrap_or_default());
        }
    });
    if read.is_some() { kept.end() } else { object.to_owned() }
}

/// A JSON object with another member before all others.
pub fn with_first(object: &str, member: &str) -> String {
    let rest = object.get(1..).unwrap_or("}");
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    format!("{{{member}{comma}{rest}")
}
