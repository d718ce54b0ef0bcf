//! JSON objects as text, of which members are left out or put in: what stays is as its sender wrote it.

use super::json::{Span, Step, Walk, members, unquote};

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

/// Where these members of a JSON object lie, each with a comma, so that without them it is an object again. Of a member
/// that occurs twice, only the first may be among them. It looks no further than the last one that there can be.
pub fn cuts(object: &str, unwanted: &[&str]) -> Vec<Span> {
    let occurs = |name: &&&str| memchr::memmem::find(object.as_bytes(), name.as_bytes()).is_some();
    let mut left = unwanted.iter().filter(occurs).count();
    let mut cuts: Vec<Span> = Vec::new();
    let mut walk = Walk::object();
    let (mut name, mut before, mut is_kept) = (0..0, 0, false);
    // Where a cut begins that goes on to the next member that is kept: there is none before it.
    let mut leading = None;
    while left > 0 || leading.is_some() {
        match walk.next(object.as_bytes(), usize::MAX) {
            Some(Step::Name(span)) => {
                name = span;
                if left == 0
                    && let Some(start) = leading.take()
                {
                    cuts.push(start..name.start);
                }
            }
            Some(Step::Value(value)) => {
                let is_unwanted = unwanted.contains(&&*unquote(object.get(name.clone()).unwrap_or_default()));
                left -= usize::from(is_unwanted && left > 0);
                if is_unwanted && is_kept {
                    cuts.push(before..value.end);
                } else if is_unwanted {
                    leading.get_or_insert(name.start);
                } else {
                    is_kept = true;
                    cuts.extend(leading.take().map(|start| start..name.start));
                }
                before = value.end;
            }
            Some(Step::End) => {
                cuts.extend(leading.take().map(|start| start..before));
                break;
            }
            Some(Step::Left | Step::Pause) | None => break,
        }
    }
    cuts
}

/// A JSON object with another member before all others.
pub fn with_first(object: &str, member: &str) -> String {
    let rest = object.get(1..).unwrap_or("}");
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    format!("{{{member}{comma}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_out_of_an_object_leaves_an_object() {
        let table = [
            ("{}", "{}"),
            (r#"{"x":1}"#, "{}"),
            (r#"{ "x" : 1 }"#, "{  }"),
            (r#"{"x":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":2,"x":1}"#, r#"{"a":2}"#),
            (r#"{"x":1,"y":{"x":3}, "a":2}"#, r#"{"a":2}"#),
            (r#"{"a":2 ,"x":1, "y":3 , "b":{"x":1}}"#, r#"{"a":2 , "b":{"x":1}}"#),
            (r#"{"y":0,"x":1}"#, "{}"),
            (r#"{"a":"x","b":"\"y\""}"#, r#"{"a":"x","b":"\"y\""}"#),
            (r#"{"x":1,"a":0,"y":1,"b":0}"#, r#"{"a":0,"b":0}"#),
        ];
        for (object, want) in table {
            let mut left = object.to_owned();
            for span in cuts(object, &["x", "y"]).into_iter().rev() {
                left.replace_range(span, "");
            }
            assert_eq!(left, want, "{object}");
        }
        assert!(cuts("[1]", &["1"]).is_empty() && cuts("{\"x\"", &["x"]).is_empty());
    }
}
