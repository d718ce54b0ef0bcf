//! JSON as text: where its parts lie, and edits of it that leave every other byte as it is.
//!
//! A message is looked at, never rebuilt. The scanner checks the whole grammar (RFC 8259), so that what passes is JSON,
//! and keeps no value: it answers with places in the text. `serde_json` is the oracle of its tests.

use std::borrow::Cow;
use std::ops::Range;

use bytes::BytesMut;

use super::line::push_one_line;

/// Where a part lies in the text, in bytes.
pub type Span = Range<usize>;

/// Whether the text is a JSON array, as a batch is, or not JSON at all.
pub fn is_array(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"[")
}

/// Whether the text is exactly one JSON value.
pub fn is_json(text: &str) -> bool {
    let mut scanner = Scanner::new(text.as_bytes());
    scanner.value(&mut Value::default(), usize::MAX).is_some() && scanner.ends()
}

/// The elements of a batch one by one, each as it stands in the text. `None` is a fault, and the last: the text is not a
/// JSON array, or not from there on.
pub fn elements(text: &str) -> impl Iterator<Item = Option<&str>> {
    let mut walk = Some(Walk::array());
    std::iter::from_fn(move || {
        let mut going = walk.take()?;
        let part = going.next(text.as_bytes(), usize::MAX).and_then(|step| match step {
            Step::Part { value, .. } => Some(text.get(value)),
            Step::End | Step::Pause => None,
        });
        let element = match part {
            Some(Some(element)) => Some(element),
            None if going.is_over() => return None,
            _ => return Some(None),
        };
        walk = Some(going);
        Some(element)
    })
}

/// Hands out the members of an object in their order: the name as it stands in its quotes, and where the value is.
/// `None` where the text is not exactly one JSON object; those that came before the fault have been handed out then.
pub(super) fn members<'t>(text: &'t str, mut member: impl FnMut(&'t str, Span)) -> Option<()> {
    let mut walk = Walk::object();
    while let Step::Part { name, value } = walk.next(text.as_bytes(), usize::MAX)? {
        member(text.get(name)?, value);
    }
    Some(())
}

/// A walk over the members of an object or the elements of an array. It can pause, because a text may be so long that
/// nobody should wait until all of it has been looked at; it keeps no text, and must be given the same one at each step.
/// That must be UTF-8, which is not checked again.
#[derive(Debug)]
pub(super) struct Walk {
    /// What is walked over.
    over: Inside,
    at: usize,
    stage: Stage,
    name: Span,
    value: Value,
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before the opening bracket.
    Open,
    /// Before a member or an element.
    Part,
    /// Within the name of a member.
    Name,
    /// Within a value.
    Value,
    /// Behind a value.
    Behind,
    /// Behind the closing bracket and all white space.
    Over,
}

/// What a step of a walk has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A member, its name in quotes, or an element, which has none.
    Part { name: Span, value: Span },
    /// So much has been looked at as was allowed.
    Pause,
    /// The end: there was nothing else in the text.
    End,
}

impl Walk {
    pub(super) fn object() -> Self {
        Self::over(Inside::Object)
    }

    pub(super) fn array() -> Self {
        Self::over(Inside::Array)
    }

    fn over(over: Inside) -> Self {
        Self { over, at: 0, stage: Stage::Open, name: 0..0, value: Value::default() }
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// How far it has come, in bytes.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Goes on to the next part, or until it has come to the byte `until`. `None` is a fault in the grammar.
    pub(super) fn next(&mut self, text: &[u8], until: usize) -> Option<Step> {
        let mut scanner = Scanner { text, at: self.at };
        let step = self.walk(&mut scanner, until);
        self.at = scanner.at;
        step
    }

    fn walk(&mut self, scanner: &mut Scanner<'_>, until: usize) -> Option<Step> {
        let (open, close) = match self.over {
            Inside::Object => (b'{', b'}'),
            Inside::Array => (b'[', b']'),
        };
        loop {
            match self.stage {
                Stage::Open => {
                    scanner.skip_space();
                    scanner.expect(open)?;
                    scanner.skip_space();
                    self.stage = if scanner.peek()? == close { Stage::Behind } else { Stage::Part };
                }
                Stage::Part => {
                    scanner.skip_space();
                    self.value = Value::default();
                    self.stage = Stage::Value;
                    if self.over == Inside::Object {
                        self.name.start = scanner.at;
                        scanner.expect(b'"')?;
                        self.stage = Stage::Name;
                    }
                }
                Stage::Name => {
                    if !scanner.string_until(until)? {
                        return Some(Step::Pause);
                    }
                    self.name.end = scanner.at;
                    scanner.skip_space();
                    scanner.expect(b':')?;
                    self.stage = Stage::Value;
                }
                Stage::Value => {
                    let Some(value) = scanner.value(&mut self.value, until)? else {
                        return Some(Step::Pause);
                    };
                    self.stage = Stage::Behind;
                    return Some(Step::Part { name: self.name.clone(), value });
                }
                Stage::Behind => {
                    scanner.skip_space();
                    match scanner.take()? {
                        b',' => self.stage = Stage::Part,
                        byte if byte == close => {
                            scanner.ends().then_some(())?;
                            self.stage = Stage::Over;
                        }
                        _ => return None,
                    }
                }
                Stage::Over => return Some(Step::End),
            }
        }
    }
}

/// The value at `path` inside a JSON object. Of a member that occurs twice, the last.
pub fn value_at(object: &str, path: &[&str]) -> Option<Span> {
    let mut span = 0..object.len();
    for wanted in path {
        let mut found = None;
        members(object.get(span.clone())?, |name, value| {
            if unquote(name) == *wanted {
                found = Some(value);
            }
        })?;
        let found = found?;
        span = span.start + found.start..span.start + found.end;
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

/// A part of a text that is known to be UTF-8, cut where tokens end.
pub(super) fn slice(text: &[u8], span: Span) -> &str {
    text.get(span).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// The text that a JSON string stands for; empty for another token, and where the escapes are no Unicode.
pub(super) fn unquote(token: &str) -> Cow<'_, str> {
    let plain = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match plain {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => serde_json::from_str(token).map_or(Cow::Borrowed(""), Cow::Owned),
    }
}

/// A value of any depth that is being read, with a bit of memory per level and no recursion.
#[derive(Debug, Default)]
struct Value {
    start: usize,
    nesting: Nesting,
    phase: Phase,
}

/// Where the reading of a value stands.
#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    /// Before its first byte.
    #[default]
    Before,
    /// Before a value that is in it, or itself.
    Value,
    /// Within a string.
    String,
    /// Before the name of a member.
    Member,
    /// Within the name of a member.
    Name,
    /// Behind a value: what follows depends on what it stands in.
    Behind,
}

/// Reads tokens one by one. `None` is a fault in the grammar, or the end of the text.
struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.take()? == wanted).then_some(())
    }

    fn skip_space(&mut self) {
        self.at += run(self.text.get(self.at..), |byte| {
            (byte == b' ') | (byte == b'\n') | (byte == b'\t') | (byte == b'\r')
        });
    }

    /// Whether nothing but white space follows.
    fn ends(&mut self) -> bool {
        self.skip_space();
        self.at == self.text.len()
    }

    /// Goes on with a value until its end, or until the byte `until`: then there is nothing inside the `Some`.
    #[expect(clippy::option_option, reason = "a fault ends it, a pause does not")]
    fn value(&mut self, value: &mut Value, until: usize) -> Option<Option<Span>> {
        let Value { start, nesting, phase } = value;
        loop {
            match *phase {
                Phase::Before => {
                    self.skip_space();
                    *start = self.at;
                    *phase = Phase::Value;
                }
                Phase::Value => {
                    if self.at >= until {
                        return Some(None);
                    }
                    *phase = Phase::Behind;
                    match self.peek()? {
                        b'"' => {
                            self.at += 1;
                            *phase = Phase::String;
                        }
                        b'{' => {
                            self.at += 1;
                            self.skip_space();
                            if self.peek()? == b'}' {
                                self.at += 1;
                            } else {
                                nesting.open(Inside::Object);
                                *phase = Phase::Member;
                            }
                        }
                        b'[' => {
                            self.at += 1;
                            self.skip_space();
                            if self.peek()? == b']' {
                                self.at += 1;
                            } else {
                                nesting.open(Inside::Array);
                                *phase = Phase::Value;
                            }
                        }
                        b'-' | b'0'..=b'9' => self.number()?,
                        b't' => self.literal(b"true")?,
                        b'f' => self.literal(b"false")?,
                        b'n' => self.literal(b"null")?,
                        _ => return None,
                    }
                }
                Phase::String => {
                    if !self.string_until(until)? {
                        return Some(None);
                    }
                    *phase = Phase::Behind;
                }
                Phase::Member => {
                    self.skip_space();
                    self.expect(b'"')?;
                    *phase = Phase::Name;
                }
                Phase::Name => {
                    if !self.string_until(until)? {
                        return Some(None);
                    }
                    self.skip_space();
                    self.expect(b':')?;
                    self.skip_space();
                    *phase = Phase::Value;
                }
                Phase::Behind => {
                    let Some(inside) = nesting.innermost() else { return Some(Some(*start..self.at)) };
                    if self.at >= until {
                        return Some(None);
                    }
                    self.skip_space();
                    match (self.take()?, inside) {
                        (b',', Inside::Object) => *phase = Phase::Member,
                        (b',', Inside::Array) => {
                            self.skip_space();
                            *phase = Phase::Value;
                        }
                        (b'}', Inside::Object) | (b']', Inside::Array) => nesting.close(),
                        _ => return None,
                    }
                }
            }
        }
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        self.at += literal.len();
        rest.starts_with(literal).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.take()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn skip_digits(&mut self) {
        self.at += run(self.text.get(self.at..), |byte| byte.is_ascii_digit());
    }

    fn digits(&mut self) -> Option<()> {
        let first = self.peek()?.is_ascii_digit();
        self.skip_digits();
        first.then_some(())
    }

    /// Goes on within a string. Whether it has come to its end, and not to the byte `until` before that.
    fn string_until(&mut self, until: usize) -> Option<bool> {
        loop {
            self.at += plain_length(self.text.get(self.at..)?);
            match self.take()? {
                b'"' => return Some(true),
                b'\\' => match self.take()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.text.get(self.at..self.at + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 4;
                    }
                    _ => return None,
                },
                _ => return None, // a raw control character
            }
            if self.at >= until {
                return Some(false);
            }
        }
    }
}

/// How many bytes at the front of the text are of a kind. Most runs of white space and digits are short, but megabytes of
/// them must cost little too.
fn run(text: Option<&[u8]>, is: impl Fn(u8) -> bool) -> usize {
    const SHORT: usize = 16;
    let text = text.unwrap_or_default();
    let mut length = text.iter().take(SHORT).take_while(|byte| is(**byte)).count();
    if length == SHORT {
        let (chunks, _) = text.get(SHORT..).unwrap_or_default().as_chunks::<32>();
        let all = |chunk: &[u8; 32]| chunk.iter().fold(1, |all, byte| all & u8::from(is(*byte))) == 1;
        length += 32 * chunks.iter().take_while(|chunk| all(chunk)).count();
        length += text.get(length..).unwrap_or_default().iter().take_while(|byte| is(**byte)).count();
    }
    length
}

/// How many bytes of a string come before a quote, a backslash or a control character. Long strings are most of a long
/// message: they are looked at 32 bytes at a time, which the compiler turns into vector instructions as long as no
/// comparison is a branch.
fn plain_length(text: &[u8]) -> usize {
    let special = |byte: &u8| (*byte == b'"') | (*byte == b'\\') | (*byte < 0x20);
    let (chunks, _) = text.as_chunks::<32>();
    let any = |chunk: &[u8; 32]| chunk.iter().fold(0, |any, byte| any | u8::from(special(byte))) != 0;
    let plain = 32 * chunks.iter().take_while(|chunk| !any(chunk)).count();
    let rest = text.get(plain..).unwrap_or_default();
    plain + rest.iter().position(special).unwrap_or(rest.len())
}

/// What a value stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Array,
    Object,
}

/// Which objects and arrays are open, one bit each: a hostile text of brackets must not cost more than its own length.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    /// The innermost levels, at most 64, the innermost in the lowest bit.
    bits: u64,
    /// The others, 64 in each.
    outer: Vec<u64>,
}

impl Nesting {
    fn open(&mut self, inside: Inside) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(inside == Inside::Object);
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<Inside> {
        (self.depth > 0).then_some(if self.bits & 1 == 1 { Inside::Object } else { Inside::Array })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::value::RawValue;

    fn all(text: &str) -> Option<Vec<&str>> {
        elements(text).collect()
    }

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
    fn of_a_member_that_occurs_twice_the_last_is_found_however_it_is_spelt() {
        let object = r#"{"a":1,"\u0061":[2]}"#;
        assert_eq!(value_at(object, &["a"]).map(|span| &object[span]), Some("[2]"));
    }

    #[test]
    fn the_elements_of_a_batch_keep_their_text() {
        let batch = "[ {\"a\": 1} ,2,\n[3] ]";
        assert_eq!(all(batch), Some(vec!["{\"a\": 1}", "2", "[3]"]));
        assert_eq!(all("[]"), Some(vec![]));
        assert_eq!(all(" [ ] "), Some(vec![]));
        for text in ["[1,]", "[1", "{}", "[1] x", "[,1]", "[1 2]", ""] {
            assert_eq!(all(text), None, "{text}");
        }
        assert_eq!(
            elements("[1,2 3]").collect::<Vec<_>>(),
            [Some("1"), Some("2"), None],
            "the first ones are there"
        );
    }

    #[test]
    fn the_grammar_is_checked_to_the_letter() {
        let table = [
            ("0", true),
            ("-0.5e+10", true),
            ("01", false),
            ("1.", false),
            (".5", false),
            ("1e", false),
            ("+1", false),
            ("-", false),
            ("\"\\u00e9\\ud800\\/\"", true), // whether half a surrogate pair means something is for its reader
            ("\"\\u00g0\"", false),
            ("\"\\x\"", false),
            ("\"a\nb\"", false),
            ("\"a", false),
            ("tru", false),
            ("nulll", false),
            ("[1,]", false),
            ("{\"a\":1,}", false),
            ("{\"a\"}", false),
            ("{a:1}", false),
            ("{1:1}", false),
            ("[}", false),
            ("{\"a\":[{}]}", true),
            ("\u{a0}1", false),
            ("1 2", false),
            ("", false),
        ];
        for (text, want) in table {
            assert_eq!(is_json(text), want, "{text}");
            assert_eq!(serde_json::from_str::<IgnoredAny>(text).is_ok(), want, "the oracle: {text}");
        }
    }

    #[test]
    fn nesting_is_remembered_at_every_depth() {
        for depth in [1, 2, 63, 64, 65, 127, 128, 129, 200] {
            // Arrays and objects by turns, so that each level is closed by its own bracket.
            let open: String = (0..depth).map(|level| if level % 3 == 0 { "{\"a\":" } else { "[" }).collect();
            let close = |level: usize| if level.is_multiple_of(3) { '}' } else { ']' };
            let closed: String = (0..depth).rev().map(close).collect();
            assert!(is_json(&format!("{open}1{closed}")), "{depth} levels");
            let wrong: String = (0..depth).rev().map(|level| close(level + 1)).collect();
            assert!(!is_json(&format!("{open}1{wrong}")), "{depth} levels, each closed by a wrong bracket");
        }
    }

    #[test]
    fn a_long_string_ends_at_the_first_quote_wherever_it_stands() {
        for length in 0..100 {
            let text = format!("[\"{}\",\"b\"]", "é".repeat(length));
            assert_eq!(elements(&text).flatten().count(), 2);
            assert!(!is_json(&format!("\"{}\u{1f}{}\"", "a".repeat(length), "a".repeat(40))), "{length}");
            assert!(is_json(&format!("\"{}\\\"{}\"", "a".repeat(length), "a".repeat(40))), "{length}");
        }
    }

    /// Text that is JSON more often than not, and nearly JSON otherwise.
    fn json_like() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            "[\\[\\]{},: \n]",
            Just("\"a\":".to_owned()),
            "\"[a-z\\\\\"\\PC]{0,40}\"",
            "-?[0-9]{1,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
            Just("true".to_owned()),
            Just("null".to_owned()),
            Just("\\u0061".to_owned()),
        ];
        let soup = prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat());
        let whole = prop::collection::vec(any::<(u8, String)>(), 0..8).prop_map(|members| {
            let map: serde_json::Map<_, _> =
                members.into_iter().map(|(name, value)| (name.to_string(), value.into())).collect();
            serde_json::to_string_pretty(&map).unwrap()
        });
        prop_oneof![soup, whole]
    }

    proptest! {
        #[test]
        fn it_takes_what_a_full_parser_takes(text in json_like()) {
            prop_assert_eq!(is_json(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
            let split = serde_json::from_str::<Vec<&RawValue>>(&text).ok();
            let split = split.map(|elements| elements.into_iter().map(RawValue::get).collect::<Vec<_>>());
            prop_assert_eq!(all(&text), split, "{}", text);
        }

        #[test]
        fn a_walk_that_pauses_comes_by_the_same_parts(text in json_like(), pause in 1usize..20) {
            for start in [Walk::object, Walk::array] {
                let mut steady = start();
                let mut pausing = start();
                let mut until = 0;
                loop {
                    let step = pausing.next(text.as_bytes(), until);
                    if step == Some(Step::Pause) {
                        prop_assert!(until <= text.len(), "{}", text);
                        until = pausing.position() + pause;
                        continue;
                    }
                    prop_assert_eq!(&steady.next(text.as_bytes(), usize::MAX), &step, "{}", text);
                    if !matches!(step, Some(Step::Part { .. })) {
                        break;
                    }
                }
            }
        }

        #[test]
        fn no_cut_and_no_changed_byte_make_it_panic(text in json_like(), cut in 0usize..60, byte in any::<u8>()) {
            let mut bytes = text.into_bytes();
            if let Some(place) = bytes.get_mut(cut) { *place = byte; }
            let text = String::from_utf8_lossy(&bytes);
            let _ = (is_json(&text), all(&text), value_at(&text, &["a", "b"]));
            let head: String = text.chars().take(cut).collect();
            let _ = (is_json(&head), all(&head), value_at(&head, &["a"]));
        }
    }
}
