//! JSON as text: where its parts lie, and edits of it that leave every other byte as it is.

use std::borrow::Cow;
use std::ops::Range;

use bytes::BytesMut;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::line::push_one_line;

/// Where a part lies in the text, in bytes.
pub type Span = Range<usize>;

/// Whether the text is a JSON array, as a batch is.
pub fn is_array(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"[")
}

/// The elements of a batch, each as it stands in the text.
/// `None` where the text is not a JSON array.
pub fn elements(text: &str) -> Option<Vec<&str>> {
    struct Elements;
    impl<'de> Visitor<'de> for Elements {
        type Value = Vec<&'de str>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = seq.next_element::<&'de RawValue>()? {
                elements.push(element.get());
            }
            Ok(elements)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let elements = reader.deserialize_seq(Elements).ok()?;
    reader.end().ok()?;
    Some(elements)
}

/// The value at `path` inside a JSON object, as a range of its text. Of a member that occurs twice, the last.
pub fn value_at(object: &str, path: &[&str]) -> Option<Span> {
    let mut span = 0..object.len();
    for name in path {
        let inner = object.get(span.clone())?;
        let mut member = Member { name, value: None };
        read_object(inner, &mut member).ok()?;
        let value = member.value?.get();
        let start = value.as_ptr() as usize - object.as_ptr() as usize;
        span = start..start + value.len();
    }
    Some(span)
}

/// Appends `text` with one range replaced, and with raw line ends as spaces.
pub fn splice(out: &mut BytesMut, text: &[u8], span: Span, replacement: &[u8]) {
    out.reserve(text.len() + replacement.len() + 1);
    push_one_line(out, text.get(..span.start).unwrap_or_default());
    out.extend_from_slice(replacement);
    push_one_line(out, text.get(span.end..).unwrap_or_default());
}

pub(super) fn slice(text: &[u8], span: Span) -> &str {
    // The envelope was read from UTF-8 and its spans end at token borders.
    text.get(span).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

pub(super) fn unquote(token: &str) -> Cow<'_, str> {
    let plain = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match plain {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => serde_json::from_str(token).map_or(Cow::Borrowed(""), Cow::Owned),
    }
}

/// Takes the members of an object one by one. `false` refuses the object.
pub(super) trait Take<'de> {
    fn member(&mut self, name: &str, value: &'de RawValue) -> bool;
}

struct Member<'n, 'de> {
    name: &'n str,
    value: Option<&'de RawValue>,
}

impl<'de> Take<'de> for Member<'_, 'de> {
    fn member(&mut self, name: &str, value: &'de RawValue) -> bool {
        if name == self.name {
            self.value = Some(value);
        }
        true
    }
}

pub(super) fn read_object<'de, M: Take<'de>>(text: &'de str, members: &mut M) -> serde_json::Result<()> {
    struct Object<'m, M>(&'m mut M);
    impl<'de, M: Take<'de>> Visitor<'de> for Object<'_, M> {
        type Value = ();
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key_seed(Name)? {
                let value = map.next_value::<&'de RawValue>()?;
                if !self.0.member(&name, value) {
                    return Err(serde::de::Error::custom("refused"));
                }
            }
            Ok(())
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Object(members))?;
    reader.end()
}

/// A member's name, borrowed unless it is spelt with escapes.
struct Name;

impl<'de> serde::de::DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }
    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_at_its_path() {
        let object = r#"{"_meta":{"x":1,"progressToken": "t\"1" },"name":"echo"}"#;
        let span = value_at(object, &["_meta", "progressToken"]).expect("a token");
        assert_eq!(&object[span], r#""t\"1""#);
        assert_eq!(value_at(object, &["_meta", "y"]), None);
        assert_eq!(value_at(object, &["name", "y"]), None);
        assert_eq!(value_at("[1]", &["name"]), None);
        assert_eq!(value_at("", &["name"]), None);
    }

    #[test]
    fn the_elements_of_a_batch_keep_their_text() {
        let batch = "[ {\"a\": 1} ,2,\n[3] ]";
        assert_eq!(elements(batch), Some(vec!["{\"a\": 1}", "2", "[3]"]));
        assert_eq!(elements("[]"), Some(vec![]));
        for text in ["[1,]", "[1", "{}", "[1] x"] {
            assert_eq!(elements(text), None, "{text}");
        }
    }
}
