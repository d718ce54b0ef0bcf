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

/// Where the value ends that begins at `start`, whatever follows; `Err`: where the first byte is that is no JSON.
pub(super) fn value_end(text: &str, start: usize) -> Result<usize, usize> {
    let mut scanner = Scanner { text: text.as_bytes(), at: start };
    match scanner.value(&mut Value::default(), usize::MAX) {
        Some(Some(value)) => Ok(value.end),
        _ => Err(scanner.at),
    }
}

/// The elements of a batch one by one, each as it stands in the text. `None` is a fault, and the last: the text is not a
/// JSON array, or not from there on.
pub fn elements(text: &str) -> impl Iterator<Item = Option<&str>> {
    let mut walk = Some(Walk::array());
    std::iter::from_fn(move || {
        let mut going = walk.take()?;
        let part = going.next(text.as_bytes(), usize::MAX).and_then(|step| match step {
            Step::Value(value) => Some(text.get(value)),
            Step::Name(_) | Step::Left | Step::Pause | Step::End => None,
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
    let mut name = 0..0;
    loop {
        match walk.next(text.as_bytes(), usize::MAX)? {
            Step::Name(span) => name = span,
            Step::Value(value) => member(text.get(name.clone())?, value),
            Step::Left | Step::Pause => return None,
            Step::End => return Some(()),
        }
    }
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
    /// Where the name begins that is being read.
    name: usize,
    value: Value,
    /// How many objects have been entered and not left.
    entered: usize,
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
    /// The name of a member, in its quotes. Its value follows, or what is in it: see [`Walk::enter`].
    Name(Span),
    /// The value of a member, or an element.
    Value(Span),
    /// The end of an object that was entered: the walk stands behind it.
    Left,
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
        Self { over, at: 0, stage: Stage::Open, name: 0, value: Value::default(), entered: 0 }
    }

    fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// How far it has come, in bytes.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Goes into the value behind the name that was come to last, if it is an object: its members follow. Returns where it
    /// begins.
    fn enter(&mut self, text: &[u8]) -> Option<usize> {
        let is_object = self.stage == Stage::Value && text.get(self.at) == Some(&b'{');
        is_object.then(|| {
            self.stage = Stage::Open;
            self.entered += 1;
            self.at
        })
    }

    /// Goes on to the next part, or until it has come to the byte `until`. `None` is a fault in the grammar.
    #[inline]
    pub(super) fn next(&mut self, text: &[u8], until: usize) -> Option<Step> {
        let mut scanner = Scanner { text, at: self.at };
        let step = self.walk(&mut scanner, until);
        self.at = scanner.at;
        step
    }

    #[inline]
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
                    if scanner.at >= until {
                        return Some(Step::Pause);
                    }
                    self.stage = Stage::Value;
                    if self.over == Inside::Object {
                        self.name = scanner.at;
                        scanner.expect(b'"')?;
                        self.stage = Stage::Name;
                    }
                }
                Stage::Name => {
                    if !scanner.string_until(until)? {
                        return Some(Step::Pause);
                    }
                    let name = self.name..scanner.at;
                    scanner.skip_space();
                    scanner.expect(b':')?;
                    scanner.skip_space();
                    self.stage = Stage::Value;
                    return Some(Step::Name(name));
                }
                Stage::Value => {
                    let Some(value) = scanner.value(&mut self.value, until)? else {
                        return Some(Step::Pause);
                    };
                    self.stage = Stage::Behind;
                    return Some(Step::Value(value));
                }
                Stage::Behind => {
                    scanner.skip_space();
                    match scanner.take()? {
                        b',' => self.stage = Stage::Part,
                        byte if byte == close && self.entered > 0 => {
                            self.entered -= 1;
                            return Some(Step::Left);
                        }
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

/// A member that is looked for: its name, and what is looked for inside of it where it is an object.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its place in [`Found`], less than 32.
    pub(super) slot: usize,
    pub(super) inside: &'static [Field],
}

/// A look at a JSON object for its members and for those in it, in one pass. It can pause as a [`Walk`] can.
#[derive(Debug)]
pub(super) struct Look<const N: usize> {
    walk: Walk,
    fields: &'static [Field],
    /// What the member is whose value comes next.
    field: Option<&'static Field>,
    /// The objects that it is in, the outermost first, and where they begin.
    within: [Option<(&'static Field, usize)>; MAX_WITHIN],
    found: Found<N>,
}

/// How deep a look goes: to the members of an object in an object in the one that is looked at.
const MAX_WITHIN: usize = 2;

impl<const N: usize> Look<N> {
    pub(super) fn new(fields: &'static [Field]) -> Self {
        let found = Found { spans: [const { None }; N], twice: 0, alike: 0 };
        Self { walk: Walk::object(), fields, field: None, within: [None; MAX_WITHIN], found }
    }

    /// How far it has come, in bytes.
    pub(super) fn position(&self) -> usize {
        self.walk.position()
    }

    /// What it has found so far.
    pub(super) fn found(&self) -> &Found<N> {
        &self.found
    }

    /// Goes on until the end, or until it has come to the byte `until`. Returns whether it is the end; `None`: the text is
    /// not exactly one JSON object. What came before the fault has been found all the same.
    pub(super) fn go_on(&mut self, text: &[u8], until: usize) -> Option<bool> {
        loop {
            match self.walk.next(text, until)? {
                Step::Name(name) => {
                    let fields =
                        self.within.iter().flatten().last().map_or(self.fields, |within| within.0.inside);
                    self.field = self.found.field(text.get(name)?, fields);
                    if let Some(field) = self.field.filter(|field| !field.inside.is_empty())
                        && let Some(place) = self.within.iter_mut().find(|place| place.is_none())
                        && let Some(start) = self.walk.enter(text)
                    {
                        *place = Some((field, start));
                    }
                }
                Step::Value(value) => {
                    if let Some(field) = self.field {
                        self.found.note(field.slot, value);
                    }
                }
                Step::Left => {
                    if let Some((field, start)) = self.within.iter_mut().rev().find_map(Option::take) {
                        self.found.note(field.slot, start..self.walk.position());
                    }
                }
                Step::Pause => return Some(false),
                Step::End => return Some(true),
            }
        }
    }
}

/// What a look at an object has found, by the slots of the fields.
#[derive(Debug)]
pub(super) struct Found<const N: usize> {
    /// Where the values lie. Of a member that occurs twice, the last.
    spans: [Option<Span>; N],
    /// A bit for each slot that was filled twice.
    twice: u32,
    /// A bit for each slot whose name another member has in another spelling: see [`is_alike`].
    alike: u32,
}

impl<const N: usize> Found<N> {
    pub(super) fn at(&self, slot: usize) -> Option<&Span> {
        self.spans.get(slot)?.as_ref()
    }

    /// A bit for each member of which two readers may see different ones: it occurs twice.
    pub(super) fn twice(&self) -> u32 {
        self.twice
    }

    /// The same, because another name is taken for it by some.
    pub(super) fn alike(&self) -> u32 {
        self.alike
    }

    /// The field that a member is, if it is one.
    fn field(&mut self, name: &[u8], fields: &'static [Field]) -> Option<&'static Field> {
        /// All of a name is looked at that is as long as one of ours or may be taken for it, however it is escaped. Longer
        /// ones are told apart by how they begin.
        const BEGINNING: usize = 1024;
        let plain = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
        let plain = plain.get(..BEGINNING).unwrap_or(plain);
        let mut same = None;
        if plain.is_ascii() && memchr::memchr(b'\\', plain).is_none() {
            for field in fields.iter().filter(|field| field.name.len() == plain.len()) {
                if field.name.as_bytes() == plain {
                    same = Some(field);
                } else if field.name.as_bytes().eq_ignore_ascii_case(plain) {
                    self.alike |= 1 << field.slot;
                }
            }
        } else {
            // What is cut may end within a character.
            let plain = plain.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            // A look at the first letter spares reading the name once for each field.
            let first = Unescaped(plain.chars()).next().filter(|char| char.is_ascii() && *char != '\0');
            let begins = |field: &&Field| {
                first.is_none_or(|first| field.name.starts_with(|own: char| own.eq_ignore_ascii_case(&first)))
            };
            for field in fields.iter().filter(begins) {
                if Unescaped(plain.chars()).eq(field.name.chars()) {
                    same = Some(field);
                } else if is_alike(Unescaped(plain.chars()), field.name) {
                    self.alike |= 1 << field.slot;
                }
            }
        }
        same
    }

    fn note(&mut self, slot: usize, value: Span) {
        if let Some(place) = self.spans.get_mut(slot)
            && place.replace(value).is_some()
        {
            self.twice |= 1 << slot;
        }
    }
}

/// Whether a string may be taken for this name, which is not empty, by a reader that is less exact.
///
/// Go's encoding/json folds case as Unicode does, where a long s is an s and the Kelvin sign a k; Java's
/// `equalsIgnoreCase` takes both Turkish letters for an i; strings of C end at their first NUL; and halves of surrogate
/// pairs are dropped by some.
pub(super) fn is_alike(chars: impl Iterator<Item = char>, name: &str) -> bool {
    /// Nobody means so many halves, and looking at more would cost time for each name.
    const MAX_HALVES: usize = 8;
    let mut left = name.as_bytes();
    let mut halves = 0;
    for char in chars {
        let folded = match char {
            '\0' => return left.is_empty(),
            char::REPLACEMENT_CHARACTER if halves < MAX_HALVES => {
                halves += 1;
                continue;
            }
            char::REPLACEMENT_CHARACTER => return true,
            'ſ' => b's',
            '\u{212a}' => b'k',
            'İ' | 'ı' => b'i',
            char => match u8::try_from(char) {
                Ok(byte) if byte.is_ascii() => byte.to_ascii_lowercase(),
                _ => return false,
            },
        };
        match left.split_first() {
            Some((first, rest)) if first.to_ascii_lowercase() == folded => left = rest,
            _ => return false,
        }
    }
    left.is_empty()
}

/// The characters that a JSON string stands for, given what is between its quotes; half a surrogate pair is U+FFFD. The
/// grammar has been checked.
pub(super) struct Unescaped<'t>(std::str::Chars<'t>);

impl<'t> Unescaped<'t> {
    /// Those of a string in its quotes.
    pub(super) fn of(token: &'t str) -> Self {
        Self(token.get(1..token.len().saturating_sub(1)).unwrap_or_default().chars())
    }

    /// The four digits behind `\u`.
    fn unit(&mut self) -> Option<u32> {
        let digits = self.0.as_str().get(..4)?;
        self.0 = self.0.as_str().get(4..)?.chars();
        u32::from_str_radix(digits, 16).ok()
    }
}

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self.0.next()? {
            '\\' => Some(match self.0.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let unit = self.unit()?;
                    let before = self.0.clone();
                    let low = match unit {
                        0xd800..0xdc00 if self.0.as_str().starts_with("\\u") => {
                            self.0.nth(1).and(self.unit())
                        }
                        _ => None,
                    };
                    match low.filter(|low| (0xdc00..0xe000).contains(low)) {
                        Some(low) => char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)),
                        None => {
                            self.0 = before;
                            char::from_u32(unit)
                        }
                    }
                    .unwrap_or(char::REPLACEMENT_CHARACTER)
                }
                itself => itself,
            }),
            char => Some(char),
        }
    }
}

/// The values of these members of a JSON object, looked for in one pass that ends when all have been found. For members
/// that are known not to occur twice.
pub fn values_of<const N: usize>(object: &str, names: [&str; N]) -> [Option<Span>; N] {
    let mut values = [const { None }; N];
    let mut walk = Walk::object();
    let mut wanted = None;
    while values.iter().any(Option::is_none) {
        match walk.next(object.as_bytes(), usize::MAX) {
            Some(Step::Name(span)) => {
                let name = object.get(span).map_or(Cow::Borrowed(""), unquote);
                wanted = names.iter().position(|wanted| name == *wanted);
            }
            Some(Step::Value(span)) => {
                if let Some(value) = wanted.and_then(|place| values.get_mut(place)) {
                    *value = Some(span);
                }
            }
            Some(Step::Left | Step::Pause | Step::End) | None => break,
        }
    }
    values
}

/// That the value at a path may be another to another reader: a member on the way occurs twice, or a name beside it may be
/// taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSole;

/// The value at `path` inside a JSON object; `None`: it has none.
///
/// # Errors
/// [`NotSole`].
pub fn sole_value_at(object: &str, path: &[impl AsRef<str>]) -> Result<Option<Span>, NotSole> {
    let mut span = 0..object.len();
    for wanted in path {
        let wanted = wanted.as_ref();
        let (mut found, mut is_sole) = (None, true);
        let text = object.get(span.clone()).unwrap_or_default();
        let is_object = members(text, |name, value| {
            if Unescaped::of(name).eq(wanted.chars()) {
                is_sole &= found.replace(value).is_none();
            } else if !wanted.is_empty() && is_alike(Unescaped::of(name), wanted) {
                is_sole = false;
            }
        });
        if !is_sole {
            return Err(NotSole);
        }
        let Some(found) = is_object.and(found) else { return Ok(None) };
        span = span.start + found.start..span.start + found.end;
    }
    Ok(Some(span))
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

/// The JSON string that stands for a text.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned()) // it cannot fail
}

/// The text that a JSON string stands for; empty for another token, and where the escapes are no Unicode.
pub fn unquote(token: &str) -> Cow<'_, str> {
    let plain = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match plain {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => serde_json::from_str(token).map_or(Cow::Borrowed(""), Cow::Owned),
    }
}

/// A value of any depth that is being read, with a bit of memory per level and no recursion. At its end it is as new.
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
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    #[inline]
    fn skip_space(&mut self) {
        if let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.skip_spaces();
        }
    }

    fn skip_spaces(&mut self) {
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
        let mut is_behind = false;
        // Where it has paused. From then on only the place in this function says where it stands.
        match *phase {
            Phase::Before => {
                self.skip_space();
                *start = self.at;
            }
            Phase::Value => {}
            Phase::String if !self.string_until(until)? => return Some(None),
            Phase::Name if !self.name_until(until)? => return Some(None),
            Phase::Name => {}
            Phase::String | Phase::Behind => is_behind = true,
        }
        loop {
            if !is_behind {
                if self.at >= until {
                    *phase = Phase::Value;
                    return Some(None);
                }
                match self.peek()? {
                    b'"' => {
                        self.at += 1;
                        if !self.string_until(until)? {
                            *phase = Phase::String;
                            return Some(None);
                        }
                    }
                    b'{' => {
                        self.at += 1;
                        self.skip_space();
                        if self.peek()? != b'}' {
                            nesting.open(Inside::Object);
                            self.expect(b'"')?;
                            if !self.name_until(until)? {
                                *phase = Phase::Name;
                                return Some(None);
                            }
                            continue;
                        }
                        self.at += 1;
                    }
                    b'[' => {
                        self.at += 1;
                        self.skip_space();
                        if self.peek()? != b']' {
                            nesting.open(Inside::Array);
                            continue;
                        }
                        self.at += 1;
                    }
                    b'-' | b'0'..=b'9' => self.number()?,
                    b't' => self.literal(b"true")?,
                    b'f' => self.literal(b"false")?,
                    b'n' => self.literal(b"null")?,
                    _ => return None,
                }
            }
            is_behind = false;
            // Behind a value: what follows depends on what it stands in.
            loop {
                let Some(inside) = nesting.innermost() else {
                    *phase = Phase::Before;
                    return Some(Some(*start..self.at));
                };
                if self.at >= until {
                    *phase = Phase::Behind;
                    return Some(None);
                }
                self.skip_space();
                match (self.peek()?, inside) {
                    (b',', Inside::Object) => {
                        self.at += 1;
                        self.skip_space();
                        self.expect(b'"')?;
                        if !self.name_until(until)? {
                            *phase = Phase::Name;
                            return Some(None);
                        }
                        break;
                    }
                    (b',', Inside::Array) => {
                        self.at += 1;
                        self.skip_space();
                        break;
                    }
                    (b'}', Inside::Object) | (b']', Inside::Array) => {
                        self.at += 1;
                        nesting.close();
                    }
                    _ => return None,
                }
            }
        }
    }

    /// Goes on within the name of a member, and to the value behind it. Whether it has come there, and not to the byte
    /// `until` before that.
    #[inline]
    fn name_until(&mut self, until: usize) -> Option<bool> {
        if !self.string_until(until)? {
            return Some(false);
        }
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Some(true)
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        let is_there = self.text.get(self.at..)?.starts_with(literal);
        is_there.then(|| self.at += literal.len())
    }

    fn number(&mut self) -> Option<()> {
        let sign = usize::from(self.peek()? == b'-');
        match self.text.get(self.at + sign)? {
            b'0' => self.at += sign + 1,
            b'1'..=b'9' => {
                self.at += sign + 1;
                self.skip_digits();
            }
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
            // Where it fails it stays: that is where the fault is.
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(true);
                }
                b'\\' => match self.text.get(self.at + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
                    Some(b'u') => {
                        let digits = self.text.get(self.at + 2..self.at + 6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.at += 6;
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
    use proptest::sample::select;
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
    fn several_values_are_found_in_one_pass() {
        let object = r#"{"b":1,"x":{"a":0},"\u0061":[2],"c":3}"#;
        let found = |names| values_of(object, names).map(|span| span.map(|span| &object[span]));
        assert_eq!(found(["a", "b"]), [Some("[2]"), Some("1")]);
        assert_eq!(found(["d", "x"]), [None, Some(r#"{"a":0}"#)]);
        assert_eq!(found(["b", "b"]), [Some("1"), None]);
        assert_eq!(values_of("[1]", ["a"]), [None]);
        assert_eq!(values_of("", ["a"]), [None]);
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

    const FIELDS: &[Field] = &[
        Field {
            name: "a",
            slot: 0,
            inside: &[Field { name: "b", slot: 1, inside: &[Field { name: "c", slot: 2, inside: &[] }] }],
        },
        Field { name: "d", slot: 3, inside: &[] },
    ];

    const LOOKED_AT: [&str; 10] = [
        r#""a":{},"#,
        r#""a":{"b":{"c":[1]},"c":2},"#,
        r#""a" : { "b" : { "b" : {"c":3} , "\u0063" : {"c":4} } , "d" : 5 } , "#,
        r#""\u0061":[{"b":{"c":1}}],"#,
        r#""A":{"b":6},"#,
        r#""d":"\n\n\n\n","#,
        r#""e":{"a":{"b":{"c":1}}},"#,
        r#""a":{"b":{}},"#,
        r#""d\u0000":{},"#,
        r#"{"#,
    ];

    #[test]
    fn a_name_of_any_length_is_told_from_ours_by_how_it_begins() {
        let long = "x".repeat(100_000);
        for (name, alike) in [
            (format!("d{long}"), 0),
            (format!("\\u0064{long}"), 0),
            (format!("é{long}"), 0),
            (format!("{}é", "é".repeat(1000)), 0),
            (format!("d\\u0000{long}"), 1 << 3),
            (format!("{}{long}", "\\ud800".repeat(200)), 1 << 0 | 1 << 3),
        ] {
            let text = format!("{{\"{name}\":1}}");
            let mut look = Look::<4>::new(FIELDS);
            assert_eq!(look.go_on(text.as_bytes(), usize::MAX), Some(true));
            assert_eq!((look.found().at(3), look.found().alike()), (None, alike), "{name:.20}");
        }
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
                    if !matches!(step, Some(Step::Name(_) | Step::Value(_))) {
                        break;
                    }
                }
            }
        }

        #[test]
        fn a_look_that_pauses_finds_the_same(
            parts in prop::collection::vec(select(&LOOKED_AT[..]), 0..12), text in json_like(), pause in 1usize..20,
        ) {
            for text in [format!("{{{}\"z\":{text}}}", parts.concat()), parts.concat(), text] {
                let (mut steady, mut pausing) = (Look::<4>::new(FIELDS), Look::<4>::new(FIELDS));
                let whole = steady.go_on(text.as_bytes(), usize::MAX);
                prop_assert_eq!(whole.is_some(), text.trim_start().starts_with('{') && is_json(&text), "{}", text);
                let mut until = 0;
                let end = loop {
                    match pausing.go_on(text.as_bytes(), until) {
                        Some(false) => until = pausing.position() + pause,
                        end => break end,
                    }
                };
                prop_assert_eq!(end, whole, "{}", text);
                prop_assert_eq!(format!("{:?}", pausing.found()), format!("{:?}", steady.found()), "{}", text);
                if whole.is_some() {
                    for (slot, path) in [(0, &["a"][..]), (1, &["a", "b"]), (2, &["a", "b", "c"]), (3, &["d"])] {
                        let at = steady.found().at(slot).cloned();
                        if steady.found().twice() == 0 {
                            prop_assert_eq!(at, value_at(&text, path), "{:?} in {}", path, text);
                        }
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
