//! The text that stands in a header which mirrors a part of its message (2026-07-28 `basic/transports/streamable-http`,
//! "Value Encoding").

use std::borrow::Cow;

const PREFIX: &[u8] = b"=?base64?";
const SUFFIX: &[u8] = b"?=";

/// Why a value stands for no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// It has other than visible ASCII characters, spaces and tabs.
    Characters,
    /// What is between the markers is no base64.
    Base64,
}

/// The text that a header's value stands for: itself, or what is in it in base64 between the markers. The markers are
/// case-sensitive, and what has only one of them is itself.
///
/// # Errors
/// [`Undecodable`].
pub fn decode(value: &[u8]) -> Result<Cow<'_, [u8]>, Undecodable> {
    let value = trim(value);
    if !value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err(Undecodable::Characters);
    }
    match value.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)) {
        None => Ok(Cow::Borrowed(value)),
        Some(encoded) => base64(encoded).map(Cow::Owned).ok_or(Undecodable::Base64),
    }
}

/// Without the white space around a value (RFC 9110 §5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Decodes base64 (RFC 4648 §4) with its padding. Each text has one spelling: bits that are left over are zero.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut groups = text.chunks(4).peekable();
    while let Some(group) = groups.next() {
        let &[first, second, third, fourth] = group else { return None };
        let padding = match (third, fourth) {
            (b'=', b'=') => 2,
            (_, b'=') => 1,
            _ => 0,
        };
        if padding > 0 && groups.peek().is_some() {
            return None;
        }
        let digit = |byte, is_padding: bool| if is_padding { Some(0) } else { digit(byte) };
        let bits = digit(first, false)? << 18
            | digit(second, false)? << 12
            | digit(third, padding == 2)? << 6
            | digit(fourth, padding > 0)?;
        let [_, bytes @ ..] = bits.to_be_bytes();
        let (kept, left) = bytes.split_at(3 - padding);
        if left.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u32> {
    let digit = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(digit.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_is_itself_or_what_stands_between_the_markers() {
        let table: [(&str, &str); 16] = [
            ("us-west1", "us-west1"),
            ("  a b\t", "a b"),
            ("", ""),
            // The specification's own examples.
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
            ("=?base64?IHBhZGRlZCA=?=", " padded "),
            ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
            ("=?base64??=", ""),
            ("=?base64?SGVsbG8=?=", "Hello"),
            ("SGVsbG8=", "SGVsbG8="),
            ("=?base64?SGVsbG8=", "=?base64?SGVsbG8="),
            ("SGVsbG8=?=", "SGVsbG8=?="),
            ("=?BASE64?SGVsbG8=?=", "=?BASE64?SGVsbG8=?="),
            ("=?base64?=", "=?base64?="),
            ("=?base64", "=?base64"),
            ("?=", "?="),
        ];
        for (value, text) in table {
            assert_eq!(decode(value.as_bytes()).as_deref(), Ok(text.as_bytes()), "{value:?}");
        }
    }

    #[test]
    fn what_is_no_base64_or_no_header_is_refused() {
        for value in [
            "=?base64?SGVsbG8?=",
            "=?base64?SGVs!!!bG8=?=",
            "=?base64?SGVsbG8==?=",
            "=?base64?SGVsbG9=?=",
            "=?base64?SGVsbG8=SGVs?=",
            "=?base64?====?=",
            "=?base64?S===?=",
            "=?base64?S=Vs?=",
            "=?base64?SGVs bG8h?=",
            "=?base64?SGVs_-8=?=",
            "=?base64?A?=",
            "caf\u{e9}",
            "a\u{0}b",
            "a\nb",
            "a\u{7f}",
        ] {
            assert!(decode(value.as_bytes()).is_err(), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..40), marked: bool) {
            let value = if marked { [PREFIX, &value, SUFFIX].concat() } else { value };
            if let Ok(text) = decode(&value) {
                prop_assert!(text.len() <= value.len());
            }
        }

        #[test]
        fn each_base64_that_is_read_is_the_only_spelling_of_what_it_says(text in "[A-Za-z0-9+/]{0,12}={0,2}") {
            if let Some(bytes) = base64(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        #[test]
        fn every_text_reads_back_as_it_was_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(base64(encode(&bytes).as_bytes()), Some(bytes));
        }
    }

    /// RFC 4648 §4, the other way.
    fn encode(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
                out.push(if place > group.len() { '=' } else { char::from(digit) });
            }
        }
        out
    }
}
