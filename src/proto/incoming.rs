//! A line of the child on its way in: what in it is a message, and the text of that as it goes on.
//!
//! A short line is looked at in one go. A [`LongLine`] is looked at in pieces, because everything that one pass costs is
//! time in which no other session is served; and it comes with its buffer, in which it is changed where it lies, because
//! each copy of it costs as much again, and the memory too.

use bytes::{Buf, Bytes, BytesMut};

use super::json::{Span, Step, Walk, slice, splice, value_at};
use super::line::{HEAD, join_lines, push_one_line};
use super::message::{Envelope, Malformed, Reading, token};

/// How many bytes of a long line are looked at in one go: of the densest JSON in about a millisecond.
const PIECE: usize = 256 * 1024;

/// How many messages an array may have. 2025-03-26 has arrays, and knows no limit; each message costs more than its bytes.
pub const MAX_BATCH: usize = 1000;

/// A message of the child, and where its parts lie.
#[derive(Debug)]
pub struct Incoming<'l> {
    text: Text<'l>,
    pub envelope: Envelope,
    /// Whether its line ended with CR LF, where somebody has looked.
    pub crlf: bool,
}

#[derive(Debug)]
enum Text<'l> {
    Lent(&'l [u8]),
    /// One that may be changed where it lies. It is one line already.
    Own(BytesMut),
}

impl<'l> Incoming<'l> {
    /// Reads a short message.
    ///
    /// # Errors
    /// [`Malformed`], where the text is no message: a banner, a log line.
    pub fn peek(text: &'l str) -> Result<Self, Malformed> {
        let (envelope, _) = Envelope::read(text)?;
        Ok(Self { envelope, text: Text::Lent(text.as_bytes()), crlf: false })
    }

    /// Its text as it came, which is UTF-8.
    pub fn text(&self) -> &[u8] {
        match &self.text {
            Text::Lent(text) => text,
            Text::Own(text) => text,
        }
    }

    /// A token of it; empty where that is longer than any of ours.
    pub fn token(&self, span: Span) -> &str {
        token(self.text(), span)
    }

    /// The code of the error that it answers, and where that lies.
    pub fn error_code(&self) -> Option<(i64, Span)> {
        let text = slice(self.text(), 0..self.text().len());
        let span = value_at(text, &["error", "code"])?;
        Some((text.get(span.clone())?.parse().ok()?, span))
    }

    /// Its text as one line.
    pub fn into_line(self) -> Bytes {
        match self.text {
            Text::Own(text) => fitted(text),
            Text::Lent(text) => {
                let mut line = BytesMut::with_capacity(text.len());
                push_one_line(&mut line, text);
                line.freeze()
            }
        }
    }

    /// Its text as one line with one range replaced.
    pub fn replaced(self, span: Span, replacement: &[u8]) -> Bytes {
        match self.text {
            Text::Own(text) => fitted(replace(text, span, replacement)),
            Text::Lent(text) => {
                let mut line = BytesMut::new();
                splice(&mut line, text, span, replacement);
                line.freeze()
            }
        }
    }
}

impl Incoming<'_> {
    /// Its text as one line with several ranges replaced, which do not overlap.
    pub fn edited(self, edits: &mut [(Span, Vec<u8>)]) -> Bytes {
        edits.sort_by_key(|(span, _)| span.start);
        let text = self.text();
        let more: usize = edits.iter().map(|(_, replacement)| replacement.len()).sum();
        let mut line = BytesMut::with_capacity(text.len() + more);
        let mut at = 0;
        for (span, replacement) in edits {
            push_one_line(&mut line, text.get(at..span.start).unwrap_or_default());
            line.extend_from_slice(replacement);
            at = span.end;
        }
        push_one_line(&mut line, text.get(at..).unwrap_or_default());
        line.freeze()
    }
}

/// A message in a buffer that is not much larger than itself: it may be kept for resumption, where its length is what
/// counts. The largest are not worth the time that it may take.
fn fitted(text: BytesMut) -> Bytes {
    const LARGEST: usize = 4 * 1024 * 1024;
    if text.len() > LARGEST || text.capacity() - text.len() < text.len() / 8 {
        return text.freeze();
    }
    let mut text = Vec::from(text);
    text.shrink_to_fit();
    text.into()
}

/// The text with one range replaced where it lies.
fn replace(mut text: BytesMut, span: Span, replacement: &[u8]) -> BytesMut {
    let (length, end) = (text.len(), span.end.min(text.len()));
    let start = span.start.min(end);
    let behind = start + replacement.len();
    if behind <= end && start <= length - end {
        // What is before it moves up: an id mostly stands near the beginning.
        text.copy_within(..start, end - behind);
        text.advance(end - behind);
    } else {
        text.resize(length.max(behind + (length - end)), 0);
        text.copy_within(end..length, behind);
        text.truncate(behind + (length - end));
    }
    if let Some(place) = text.get_mut(start..behind) {
        place.copy_from_slice(replacement);
    }
    text
}

/// A line that is being looked at piece by piece.
#[derive(Debug)]
pub struct LongLine {
    text: BytesMut,
    /// The longest line, in bytes.
    max: usize,
    /// How much is looked at in one go.
    piece: usize,
    /// How far the present pass has come.
    at: usize,
    stage: Stage,
}

/// The passes over a line, in their order.
#[derive(Debug)]
enum Stage {
    /// White space before it, and behind it.
    Front,
    Back,
    /// Whether it is UTF-8, and one line.
    Utf8,
    /// How long it is repaired.
    Measure(usize),
    /// The repaired text, as far as it has come.
    Repair(BytesMut),
    Object(Reading),
    Array {
        walk: Walk,
        count: usize,
    },
    /// Within an element that lies there.
    Element {
        walk: Walk,
        count: usize,
        span: Span,
        reading: Reading,
    },
    Over,
}

/// What a step has come to.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and mostly a message")]
pub enum Found<'l> {
    /// Nothing yet.
    Pause,
    /// It is no UTF-8 and is being repaired. How long it was, in bytes.
    Invalid(usize),
    Message(Incoming<'l>),
    /// An element of an array that is no message.
    Stray(&'l [u8]),
    /// It is no message, or no further one: what there is in place of it.
    Noise(&'l [u8]),
    /// It would be too long if it was repaired.
    TooLong {
        /// The beginning of the line.
        head: &'l [u8],
        length: usize,
    },
    /// The end of it.
    End,
}

impl LongLine {
    /// A line as it came, of which no more than `max` bytes are passed on.
    pub fn new(text: BytesMut, max: usize) -> Self {
        Self { text, max, piece: PIECE, at: 0, stage: Stage::Front }
    }

    /// How many bytes it holds.
    pub fn size(&self) -> usize {
        self.text.len() + if let Stage::Repair(repaired) = &self.stage { repaired.len() } else { 0 }
    }

    /// Looks at the next piece.
    pub fn step(&mut self) -> Found<'_> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Front => self.front(),
            Stage::Back => self.back(),
            Stage::Utf8 => self.utf8(),
            Stage::Measure(length) => self.measure(length),
            Stage::Repair(repaired) => self.repair(repaired),
            Stage::Object(reading) => self.object(reading),
            Stage::Array { walk, count } => self.array(walk, count),
            Stage::Element { walk, count, span, reading } => self.element(walk, count, span, reading),
            Stage::Over => Found::End,
        }
    }

    fn then(&mut self, stage: Stage) -> Found<'_> {
        self.stage = stage;
        Found::Pause
    }

    /// As a short line is trimmed, see [`Line`](super::line::Line).
    fn front(&mut self) -> Found<'_> {
        if self.at == 0 && self.text.starts_with(b"\xef\xbb\xbf") {
            self.text.advance(3);
        }
        self.at = 1;
        let space = self.text.iter().take(self.piece).take_while(|byte| byte.is_ascii_whitespace()).count();
        self.text.advance(space);
        self.then(if space == self.piece { Stage::Front } else { Stage::Back })
    }

    fn back(&mut self) -> Found<'_> {
        let space =
            self.text.iter().rev().take(self.piece).take_while(|byte| byte.is_ascii_whitespace()).count();
        self.text.truncate(self.text.len() - space);
        if space == self.piece {
            return self.then(Stage::Back);
        }
        self.at = 0;
        match self.text.first() {
            None => Found::End,
            Some(b'{' | b'[') => self.then(Stage::Utf8),
            Some(_) => Found::Noise(&self.text),
        }
    }

    /// The next piece of the text; a character is in one piece only.
    fn piece(&self) -> Span {
        let end = self.at.saturating_add(self.piece).min(self.text.len());
        let behind = self.text.get(..end).unwrap_or_default();
        let cut = if end == self.text.len() { None } else { (1..=3).find(|back| is_lead(behind, *back)) };
        self.at..end - cut.unwrap_or(0)
    }

    fn utf8(&mut self) -> Found<'_> {
        let piece = self.piece();
        let Some(bytes) = self.text.get_mut(piece.clone()) else { return Found::End };
        if std::str::from_utf8(bytes).is_err() {
            return self.then(Stage::Measure(self.at));
        }
        join_lines(bytes);
        self.at = piece.end;
        if self.at == self.text.len() { self.begin() } else { self.then(Stage::Utf8) }
    }

    fn measure(&mut self, length: usize) -> Found<'_> {
        let piece = self.piece();
        let chunks = self.text.get(piece.clone()).unwrap_or_default().utf8_chunks();
        let repaired = |chunk: std::str::Utf8Chunk<'_>| {
            chunk.valid().len()
                + if chunk.invalid().is_empty() { 0 } else { char::REPLACEMENT_CHARACTER.len_utf8() }
        };
        let length = length + chunks.map(repaired).sum::<usize>();
        self.at = piece.end;
        if length > self.max {
            let head = self.text.get(..HEAD).unwrap_or(&self.text);
            return Found::TooLong { head, length: self.text.len() };
        }
        if self.at < self.text.len() {
            return self.then(Stage::Measure(length));
        }
        self.at = 0;
        self.stage = Stage::Repair(BytesMut::with_capacity(length));
        Found::Invalid(self.text.len())
    }

    fn repair(&mut self, mut repaired: BytesMut) -> Found<'_> {
        let piece = self.piece();
        let mut replacement = [0; 4];
        let replacement = char::REPLACEMENT_CHARACTER.encode_utf8(&mut replacement).as_bytes();
        for chunk in self.text.get(piece.clone()).unwrap_or_default().utf8_chunks() {
            push_one_line(&mut repaired, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                repaired.extend_from_slice(replacement);
            }
        }
        self.at = piece.end;
        if self.at < self.text.len() {
            return self.then(Stage::Repair(repaired));
        }
        self.text = repaired;
        self.begin()
    }

    /// The text is UTF-8 and one line.
    fn begin(&mut self) -> Found<'_> {
        self.then(match self.text.first() {
            Some(b'[') => Stage::Array { walk: Walk::array(), count: 0 },
            _ => Stage::Object(Reading::new()),
        })
    }

    fn object(&mut self, mut reading: Reading) -> Found<'_> {
        match reading.step(&self.text, self.piece) {
            Some(None) => self.then(Stage::Object(reading)),
            Some(Some(envelope)) => Found::Message(Incoming {
                text: Text::Own(std::mem::take(&mut self.text)),
                envelope,
                crlf: false,
            }),
            None => Found::Noise(&self.text),
        }
    }

    /// Looks for the next element of an array, which is not looked at beyond the first that is no object.
    fn array(&mut self, mut walk: Walk, count: usize) -> Found<'_> {
        let (from, until) = (walk.position(), walk.position().saturating_add(self.piece));
        match walk.next(&self.text, until) {
            Some(Step::Pause) => self.then(Stage::Array { walk, count }),
            Some(Step::End) if count > 0 => Found::End,
            Some(Step::Value(value)) if count < MAX_BATCH && self.text.get(value.start) == Some(&b'{') => {
                self.element(walk, count + 1, value, Reading::new())
            }
            Some(Step::Value(value)) => Found::Noise(self.text.get(value).unwrap_or_default()),
            Some(Step::End) => Found::Noise(&self.text),
            Some(Step::Name(_) | Step::Left) | None => {
                Found::Noise(self.text.get(from..).unwrap_or_default())
            }
        }
    }

    fn element(&mut self, walk: Walk, count: usize, span: Span, mut reading: Reading) -> Found<'_> {
        let text = self.text.get(span.clone()).unwrap_or_default();
        match reading.step(text, self.piece) {
            Some(None) => {
                self.stage = Stage::Element { walk, count, span, reading };
                Found::Pause
            }
            Some(Some(envelope)) => {
                self.stage = Stage::Array { walk, count };
                Found::Message(Incoming { text: Text::Lent(text), envelope, crlf: false })
            }
            None => {
                self.stage = Stage::Array { walk, count };
                Found::Stray(text)
            }
        }
    }
}

/// Whether so many bytes before the end there begins a character of several bytes, and no other behind it.
fn is_lead(text: &[u8], back: usize) -> bool {
    text.len().checked_sub(back).and_then(|at| text.get(at)).is_some_and(|byte| *byte >= 0xc0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::{note, request, result};
    use proptest::prelude::*;

    /// What is found in a line, as text: messages begin with their kind.
    fn found(line: &[u8], max: usize, piece: usize) -> Vec<String> {
        let mut long = LongLine::new(line.into(), max);
        long.piece = piece;
        let mut found = Vec::new();
        for _ in 0..10 * line.len() + 20 {
            found.push(match long.step() {
                Found::Pause => continue,
                Found::Invalid(length) => format!("invalid {length}"),
                Found::Message(message) => {
                    let kind = message.envelope.kind;
                    format!("{kind:?} {}", String::from_utf8(message.into_line().to_vec()).unwrap())
                }
                Found::Stray(text) => format!("stray {}", String::from_utf8_lossy(text)),
                Found::Noise(text) => {
                    found.push(format!("noise {}", String::from_utf8_lossy(text)));
                    return found;
                }
                Found::TooLong { length, .. } => {
                    found.push(format!("too long {length}"));
                    return found;
                }
                Found::End => return found,
            });
        }
        panic!("it has no end: {:?}", String::from_utf8_lossy(line));
    }

    const PIECES: [usize; 5] = [4, 5, 7, 64, PIECE];

    #[test]
    fn a_line_is_the_same_however_small_the_pieces_are() {
        let answer = result("7");
        let padded = format!("\u{feff} \t {answer}\r");
        let spread = answer.replace(':', ":\r ");
        let (one, two) = (request("1", "ping"), note("n"));
        let (batch, broken) = (format!("[{one} ,{two}]"), format!("[{one},{two}"));
        let table: &[(&[u8], &[String])] = &[
            (answer.as_bytes(), &[format!("Success {answer}")]),
            (padded.as_bytes(), &[format!("Success {answer}")]),
            (spread.as_bytes(), &[format!("Success {}", answer.replace(':', ":  "))]),
            (b"", &[]),
            (b" \r\t     ", &[]),
            (b"Listening on stdio", &["noise Listening on stdio".into()]),
            (b"\xff\xfe", &["noise \u{fffd}\u{fffd}".into()]),
            (b"{\"jsonrpc\":\"2.0\"}", &["noise {\"jsonrpc\":\"2.0\"}".into()]),
            (b"{\"a\":1", &["noise {\"a\":1".into()]),
            (b"[]", &["noise []".into()]),
            (b"[1,2]", &["noise 1".into()]),
            (b"[{},7,{}]", &["stray {}".into(), "noise 7".into()]),
            (batch.as_bytes(), &[format!("Request {one}"), format!("Notification {two}")]),
            (broken.as_bytes(), &[format!("Request {one}"), format!("Notification {two}"), "noise".into()]),
        ];
        for piece in PIECES {
            for (line, want) in table {
                let got = found(line, usize::MAX, piece);
                let begins = got
                    .iter()
                    .zip(*want)
                    .all(|(got, want)| got == want || (want == "noise" && got.starts_with(want)));
                assert!(
                    got.len() == want.len() && begins,
                    "{:?}, {piece} bytes at a time: {got:?}",
                    String::from_utf8_lossy(line)
                );
            }
        }
    }

    #[test]
    fn an_array_is_not_looked_at_beyond_its_thousandth_message() {
        for (count, want) in [(MAX_BATCH, MAX_BATCH), (MAX_BATCH + 1, MAX_BATCH + 1), (50_000, MAX_BATCH + 1)]
        {
            let line = format!("[{}]", vec![note("n"); count].join(","));
            let got = found(line.as_bytes(), usize::MAX, PIECE);
            assert_eq!(got.len(), want, "{count} messages");
            assert_eq!(got.last().unwrap().starts_with("noise"), count > MAX_BATCH);
        }
    }

    #[test]
    fn what_begins_as_no_message_is_clear_at_its_first_byte() {
        let mut line = LongLine::new(vec![0xff; 1_000_000].as_slice().into(), usize::MAX);
        for step in 0.. {
            match line.step() {
                Found::Pause => assert!(step < 2, "it is clear at the first byte"),
                Found::Noise(text) => return assert_eq!(text.len(), 1_000_000),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_repaired_counts_as_long_as_it_becomes() {
        let line =
            |bad| [br#"{"jsonrpc":"2.0","id":1,"result":""#.as_slice(), &vec![0xff; bad], b"\"}"].concat();
        let (bare, bad) = (line(0).len(), 100_000);
        let long = line(bad);
        let repaired = bare + 3 * bad;
        let got = found(&long, repaired, PIECE);
        assert_eq!(got[0], format!("invalid {}", long.len()));
        assert!(got[1] == format!("Success {}", String::from_utf8_lossy(&long)));
        assert_eq!(found(&long, repaired - 1, PIECE), [format!("too long {}", long.len())]);
    }

    #[test]
    fn what_a_front_asks_for_is_found_in_a_long_message_as_in_a_short_one() {
        let table = [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"a":[1,2],"progressToken":"t","progress":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"\u0072equestId":8}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"capabilities":{},"protocolVersion":"2025-11-25"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":["protocolVersion"]}"#,
            r#"{"jsonrpc":"2.0","method":"n"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"x":{"progressToken":1},"progressToken":2},"name":""},"x":{}}"#,
            r#"{"params":{"progressToken":3,"_meta":{},"y":[]},"method":"notifications/progress","jsonrpc":"2.0","params2":{}}"#,
        ];
        for text in table {
            let short = Incoming::peek(text).unwrap();
            for piece in PIECES {
                let mut line = LongLine::new(text.as_bytes().into(), usize::MAX);
                line.piece = piece;
                let long = loop {
                    match line.step() {
                        Found::Message(message) => break message,
                        Found::Pause => {}
                        other => panic!("{text}: {other:?}"),
                    }
                };
                assert_eq!(long.envelope, short.envelope, "{text}, {piece} bytes at a time");
            }
        }
    }

    #[test]
    fn of_two_members_of_a_long_message_neither_counts() {
        let table = [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3,<>"ProgressToken":4}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":3,<>"progressToken":4}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId\u0000":3,<>"requestId":4}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18",<>"protocolVersion":"2024-11-05"}}"#,
        ];
        for text in table {
            let text = text.replace("<>", &format!("\"x\":\"{}\",", "x".repeat(3 * PIECE)));
            let mut line = LongLine::new(text.as_bytes().into(), usize::MAX);
            let message = loop {
                match line.step() {
                    Found::Message(message) => break message,
                    Found::Pause => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(message.envelope.subject(), None);
        }
        for ids in ["\"id\":1,\"id\":2", "\"id\":1,\"i\\u0064\":1"] {
            let text = format!("{{\"jsonrpc\":\"2.0\",{ids},\"result\":\"{}\"}}", "x".repeat(3 * PIECE));
            let got = found(text.as_bytes(), usize::MAX, PIECE);
            assert!(got.len() == 1 && got[0].starts_with("noise"), "it is no message");
        }
    }

    /// A piece is a bound of time: none may take longer, whatever the text is made of.
    #[test]
    fn no_piece_is_much_longer_than_it_may_be() {
        for part in ["\"params\":{},", "\"x\":1,", "\"params\":{\"_meta\":{}},", "\"a\\n\":[{}],"] {
            let text = format!("{{{}\"z\":0}}", part.repeat(10_000));
            let mut reading = Reading::new();
            let mut steps = 0;
            while let Some(None) = reading.step(text.as_bytes(), 1000) {
                steps += 1;
            }
            assert!(steps >= text.len() / 1100, "{part}: {steps} steps for {} bytes", text.len());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_repaired_and_read_as_a_whole_text_would_be(
            inside in prop::collection::vec(any::<u8>(), 0..60),
            piece in 4usize..20,
        ) {
            let line = [br#"{"jsonrpc":"2.0","id":1,"result":""#.as_slice(), &inside, b"\"}"].concat();
            if !line.contains(&b'\n') {
                let text = String::from_utf8_lossy(&line).replace('\r', " ");
                let want = match Incoming::peek(&text) {
                    Ok(message) => format!("{:?} {text}", message.envelope.kind),
                    Err(_) => format!("noise {}", text),
                };
                prop_assert_eq!(found(&line, usize::MAX, piece).pop(), Some(want));
            }
        }

        #[test]
        fn a_part_is_replaced_where_it_lies_as_in_a_copy(
            text in "[ -~]{0,40}", start in 0usize..40, length in 0usize..40, by in "[A-Z]{0,50}",
        ) {
            let start = start.min(text.len());
            let span = start..(start + length).min(text.len());
            let want = [&text[..span.start], &by, &text[span.end..]].concat();
            let got = replace(BytesMut::from(text.as_bytes()), span, by.as_bytes());
            prop_assert_eq!(&got[..], want.as_bytes());
        }
    }
}
