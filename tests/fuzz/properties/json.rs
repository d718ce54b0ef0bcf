//! The oracle for JSON: full parses by `serde_json`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// What a full parse says of a text.
pub(super) enum Parsed {
    Json(Value),
    NotJson,
    /// A full parse minds numbers beyond f64, halves of surrogate pairs and depth. The bridge never reads such a value,
    /// and whether it means something is between its peers.
    Unsaid,
}

impl Parsed {
    pub(super) fn of(text: &[u8]) -> Self {
        const STRICTER: [&str; 5] = [
            "recursion limit exceeded",
            "number out of range",
            "lone leading surrogate in hex escape",
            "unexpected end of hex escape",
            "invalid unicode code point",
        ];
        match serde_json::from_slice(text) {
            Ok(value) => Self::Json(value),
            Err(error) if STRICTER.iter().any(|why| error.to_string().starts_with(why)) => Self::Unsaid,
            Err(_) => Self::NotJson,
        }
    }
}

/// The members of an object in their order, which a `Value` does not tell apart when they have one name.
pub(super) struct Members(pub(super) Vec<(String, Value)>);

impl Members {
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    pub(super) fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|member| member.0 == name).count()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|member| member.0 == name).map(|member| &member.1)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}
