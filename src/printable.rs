//! Text of peers and children, as far as it may be shown: to a person at a terminal, to a program that reads lines.

use std::borrow::Cow;
use std::fmt::Write;

/// How much of what a peer sent is shown, in characters: in the log and in the answer that it gets.
const WIDTH: usize = 256;

/// The beginning of what a peer sent.
pub fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(WIDTH) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
    }
}

/// How a character is written that is not to be shown as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// `\u{202e}`, as Rust does.
    Braces,
    /// `\u202e`, as JSON does (RFC 8259 §7).
    Json,
}

/// The text without characters that do something: controls (C0, DEL, C1: terminals run some), separators of lines and
/// paragraphs (readers of logs split there), and what is invisible and changes the order or the look of its neighbours
/// (general category Cf of Unicode 17; CVE-2021-42574).
pub fn escaped(text: &str, escape: Escape) -> Cow<'_, str> {
    let is_plain = |byte: &u8| matches!(byte, 0x20..0x7f);
    if text.as_bytes().iter().all(is_plain) || !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 32);
    for character in text.chars() {
        // Writing to a String cannot fail.
        let _ = match escape {
            _ if !acts(character) => out.write_char(character),
            Escape::Braces => write!(out, "{}", character.escape_unicode()),
            Escape::Json => {
                let mut units = [0; 2];
                character.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
            }
        };
    }
    Cow::Owned(out)
}

fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_a_reader_is_written_out() {
        let text =
            "a\u{1b}[31m\r\n\t\u{7f}\u{85}\u{9b}\u{200e}\u{2028}\u{202e}\u{2069}\u{feff}\u{e0041}ü漢🦀z";
        let json = r"a\u001b[31m\u000d\u000a\u0009\u007f\u0085\u009b\u200e\u2028\u202e\u2069\ufeff\udb40\udc41ü漢🦀z";
        assert_eq!(escaped(text, Escape::Json), json);
        let value: String = serde_json::from_str(&format!("\"{json}\"")).expect("JSON");
        assert_eq!(value, text);
        let braces = escaped(text, Escape::Braces);
        assert!(braces.starts_with(r"a\u{1b}[31m\u{d}\u{a}\u{9}\u{7f}\u{85}"), "{braces}");
        assert!(braces.ends_with(r"\u{feff}\u{e0041}ü漢🦀z"), "{braces}");
        for plain in ["", "plain", "ünï 漢字 🦀 — “quotes”", "e\u{301}"] {
            assert!(matches!(escaped(plain, Escape::Json), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn of_a_long_text_the_beginning_is_shown() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"ü".repeat(256)), "ü".repeat(256));
        assert_eq!(cut(&"ü".repeat(60_000)), format!("{}…", "ü".repeat(256)));
    }
}
