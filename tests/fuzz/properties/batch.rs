//! The elements of a batch against a full parse.

use mcp_bridge::proto::json::{elements, is_array};
use serde_json::Value;

use super::json::Parsed;

/// A batch is split where a full parse splits it, each element as it stands in the text.
pub fn batch(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        let _ = is_array(data);
        return;
    };
    let split: Option<Vec<_>> = elements(text).collect();
    match Parsed::of(data) {
        Parsed::Json(value) => {
            assert_eq!(is_array(data), value.is_array(), "an array is told by its first byte");
            let elements: Option<Vec<Value>> = split.as_ref().map(|elements| {
                elements.iter().map(|element| serde_json::from_str(element).unwrap()).collect()
            });
            assert_eq!(elements.as_ref(), value.as_array(), "the elements");
        }
        Parsed::NotJson => assert!(split.is_none(), "it is no JSON, and split into {split:?}"),
        Parsed::Unsaid => {}
    }
    let Some(split) = split else { return };
    assert!(is_array(data), "what can be split begins like an array");
    // What lies between the elements is brackets, commas and white space: nothing of the text is lost.
    let mut rest = text;
    for (place, element) in split.iter().enumerate() {
        let start = element.as_ptr() as usize - rest.as_ptr() as usize;
        assert_eq!(rest[..start].trim(), if place == 0 { "[" } else { "," });
        rest = &rest[start + element.len()..];
    }
    assert_eq!(rest.split_whitespace().collect::<String>(), if split.is_empty() { "[]" } else { "]" });
    let joined = format!("[{}]", split.join(","));
    assert_eq!(
        elements(&joined).collect::<Option<Vec<_>>>().as_ref(),
        Some(&split),
        "joined and split again"
    );
}
