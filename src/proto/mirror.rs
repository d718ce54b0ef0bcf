//! Header values that mirror what a message says (2026-07-28 `basic/transports/streamable-http`, "Value Encoding").

use std::borrow::Cow;

/// What a value begins and ends with that is encoded.
const MARKS: (&[u8], &[u8]) = (b"=?base64?", b"?=");

/// The value that a header `Mcp-Name` or `Mcp-Param-NAME` stands for, however it is encoded. `None`: it has characters that
/// no such header may have, or what is marked as base64 is none, or is no UTF-8.
pub fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = trim(value);
    let (begin, end) = MARKS;
    if value.starts_with(begin) && value.ends_with(end) {
        let encoded = value.strip_prefix(begin)?.strip_suffix(end)?;
        return String::from_utf8(base64(encoded)?).ok().map(Cow::Owned);
    }
    let is_plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    let plain = value.iter().all(is_plain).then_some(value)?;
    std::str::from_utf8(plain).ok().map(Cow::Borrowed)
}

/// Without the blanks that are no part of a header's value (RFC 9110 §5.5).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The bytes that base64 stands for (RFC 4648 §4), in its one spelling: padded, and with no bit set that means nothing. Of
/// two readers one may not see other bytes than the other.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (quads, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(3 * quads.len());
    for (place, quad) in quads.iter().enumerate() {
        let pad = match quad {
            [_, _, b'=', b'='] => 2,
            [_, _, _, b'='] => 1,
            _ => 0,
        };
        if pad > 0 && place + 1 < quads.len() {
            return None;
        }
        let mut bits = 0;
        for byte in quad.iter().take(4 - pad) {
            bits = bits << 6 | sextet(*byte)?;
        }
        bits <<= 6 * pad;
        let [_, decoded @ ..] = u32::to_be_bytes(bits);
        let (decoded, unused) = decoded.split_at(3 - pad);
        if unused.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(decoded);
    }
    Some(bytes)
}

/// The six bits that a character of the alphabet stands for.
fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(bytes: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut three = [0; 3];
            three[..chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
            for place in 0..4 {
                let index = (bits >> (18 - 6 * place)) as usize & 63;
                text.push(if place > chunk.len() { '=' } else { char::from(ALPHABET[index]) });
            }
        }
        text
    }

    #[test]
    fn the_values_of_the_specification_are_read_as_it_says() {
        let table = [
            ("us-west1", "us-west1"),
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
            ("=?base64?IHBhZGRlZCA=?=", " padded "),
            ("=?base64?bGluZTEKbGluZTI=?=", "line1\nline2"),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
            ("=?base64??=", ""),
            ("", ""),
            (" \t blanks around\tand\twithin \t", "blanks around\tand\twithin"),
            ("  =?base64?YQ==?=\t", "a"),
            ("=?BASE64?YQ==?=", "=?BASE64?YQ==?="),
            ("=?base64?YQ==", "=?base64?YQ=="),
            ("YQ==?=", "YQ==?="),
        ];
        for (value, want) in table {
            assert_eq!(decode(value.as_bytes()).as_deref(), Some(want), "{value:?}");
        }
    }

    #[test]
    fn what_two_readers_may_read_in_two_ways_has_no_value() {
        let table: [&[u8]; 15] = [
            b"caf\xc3\xa9",
            b"\xff",
            b"a\0b",
            b"a\rb",
            b"a\nb",
            b"a\x7fb",
            b"=?base64?=",          // the marks overlap
            b"=?base64?YQ?=",       // not padded
            b"=?base64?YR==?=",     // bits that mean nothing
            b"=?base64?YWJ=?=",     // the same
            b"=?base64?YQ==YQ==?=", // goes on behind its end
            b"=?base64?YQ=a?=",     // padded within
            b"=?base64?Y Q==?=",    // a blank
            b"=?base64?-_-_?=",     // another alphabet
            b"=?base64?/w==?=",     // no UTF-8
        ];
        for value in table {
            assert_eq!(decode(value), None, "{:?}", String::from_utf8_lossy(value));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(text in any::<String>()) {
            let value = format!("=?base64?{}?=", encode(text.as_bytes()));
            let decoded = decode(value.as_bytes());
            prop_assert_eq!(decoded.as_deref(), Some(&*text));
        }

        #[test]
        fn base64_has_one_spelling_for_each_value(text in "[A-Za-z0-9+/=?_ -]{0,12}") {
            if let Some(bytes) = base64(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }

        #[test]
        fn no_value_is_too_odd(value in any::<Vec<u8>>()) {
            decode(&value);
        }
    }
}
