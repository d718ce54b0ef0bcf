//! stdio framing: one JSON-RPC message per line, ended by LF (spec `basic/transports`, "stdio").
//!
//! The reader fills [`LineDecoder::buffer`], the decoder looks at it; neither knows where the bytes come from.
//! "Need more bytes" is `None`, never an error.

use bytes::{Buf, BytesMut};

/// How much of an overlong line is kept, in bytes: enough to find the id of the message it was.
pub const HEAD: usize = 64 * 1024;

/// A buffer that grew beyond this (bytes) is large.
const KEEP: usize = 64 * 1024;

/// The least room (bytes) a read is offered. A pipe holds 64 KiB by default, see pipe(7).
const ROOM: usize = 8 * 1024;

/// A line longer than this (bytes) is handed out with its buffer: it takes too long to be looked at in one go.
pub const LONG: usize = 256 * 1024;

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole line.
    Line(Line<'a>),
    /// A whole line that is [`LONG`], as it came but for its LF. It may be blank.
    Long(BytesMut),
    /// A line longer than the limit. Its first [`HEAD`] bytes are here, the rest is lost.
    TooLong {
        /// The beginning of the line.
        head: &'a [u8],
        /// How long the line was, in bytes.
        length: usize,
    },
}

/// One line from the child: not blank, without its line end and without a byte order mark.
///
/// It need not be a message, nor UTF-8: banners and log lines come this way too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    text: &'a [u8],
    crlf: bool,
}

impl<'a> Line<'a> {
    /// The line in `raw`, or `None` where it is blank.
    ///
    /// Servers on Windows runtimes end lines with CR LF, and some begin the first one with a byte order mark,
    /// which JSON parsers refuse (RFC 8259 §8.1).
    fn trim(raw: &'a [u8]) -> Option<Self> {
        let crlf = raw.ends_with(b"\r");
        let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
        let text = raw.trim_ascii();
        (!text.is_empty()).then_some(Self { text, crlf })
    }

    pub fn bytes(self) -> &'a [u8] {
        self.text
    }

    /// Whether it ended with CR LF, as a terminal writes it.
    pub fn crlf(self) -> bool {
        self.crlf
    }
}

/// Cuts a stream of bytes into lines, at most `max` bytes each.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: BytesMut,
    /// The most that the buffer has been able to hold. Its own capacity does not tell: that leaves out what has been
    /// taken from the front.
    largest: usize,
    /// Bytes at the front of the buffer that the last frame borrowed; they go with the next call.
    lent: usize,
    /// Bytes behind `lent` that are known to hold no LF, so that a long line is searched once and not per read.
    searched: usize,
    max: usize,
    /// The line that is being thrown away because it is too long: its head, and its length so far.
    overlong: Option<Overlong>,
}

#[derive(Debug, Default)]
struct Overlong {
    head: BytesMut,
    length: usize,
    ended: bool,
}

impl LineDecoder {
    /// A decoder that lets lines of at most `max` bytes pass.
    pub fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), largest: 0, lent: 0, searched: 0, max, overlong: None }
    }

    /// Where the reader appends, with room for at least one read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.give_back();
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < ROOM {
            // Doubling: a line of n bytes costs O(n) copies, however small the reads are.
            self.buffer.reserve(self.buffer.len().max(ROOM));
        }
        self.largest = self.largest.max(self.buffer.capacity());
        &mut self.buffer
    }

    /// Whether the buffer has grown for a large message. [`shrink`](Self::shrink) gives it back.
    pub fn is_large(&self) -> bool {
        self.largest > KEEP
    }

    /// Gives a large buffer back to the allocator, unless bytes are in it.
    pub fn shrink(&mut self) {
        self.give_back();
        if self.is_large() && self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.largest = 0;
        }
    }

    /// The next frame, or `None` where the reader has to bring more bytes first.
    #[allow(clippy::should_implement_trait)] // it lends from the decoder, which Iterator cannot say
    pub fn next(&mut self) -> Option<Frame<'_>> {
        self.give_back();
        if self.overlong.is_some() {
            return self.skip();
        }
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(offset) = memchr::memchr(b'\n', unsearched) else {
                self.searched = self.buffer.len();
                break;
            };
            let end = self.searched + offset;
            self.searched = 0;
            if end > self.max {
                break;
            }
            if end > LONG {
                return Some(Frame::Long(self.take_line(end)));
            }
            let blank = self.buffer.get(..end).and_then(Line::trim).is_none();
            if blank {
                self.buffer.advance(end + 1);
                continue;
            }
            self.lent = end + 1;
            return self.buffer.get(..end).and_then(Line::trim).map(Frame::Line);
        }
        // A limit of `max` means that no more than `max` bytes of one line are ever held.
        if self.buffer.len() > self.max {
            self.searched = 0;
            self.overlong = Some(Overlong::default());
            return self.skip();
        }
        None
    }

    /// What is left when the stream has ended: a last line without its LF.
    pub fn finish(&mut self) -> Option<Frame<'_>> {
        self.give_back();
        if self.buffer.len() > LONG && self.overlong.is_none() {
            return Some(Frame::Long(self.take_line(self.buffer.len())));
        }
        Line::trim(&self.buffer).map(Frame::Line)
    }

    /// Takes the line that ends there out with its buffer. What has been read behind it goes to a new one, so that it
    /// does not keep the large one alive.
    fn take_line(&mut self, end: usize) -> BytesMut {
        let rest = BytesMut::from(self.buffer.get(end + 1..).unwrap_or_default());
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        (self.largest, self.searched) = (self.buffer.capacity(), 0);
        line
    }

    /// How many bytes have been read and are of no frame yet.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.lent
    }

    fn give_back(&mut self) {
        self.buffer.advance(self.lent);
        self.lent = 0;
        if self.overlong.as_ref().is_some_and(|line| line.ended) {
            self.overlong = None;
        }
    }

    /// Throws the overlong line away as far as it has come.
    fn skip(&mut self) -> Option<Frame<'_>> {
        let line = self.overlong.as_mut()?;
        let (gone, ended) = match memchr::memchr(b'\n', &self.buffer) {
            Some(end) => (end, true),
            None => (self.buffer.len(), false),
        };
        let room = HEAD - line.head.len();
        line.head.extend_from_slice(self.buffer.get(..gone.min(room)).unwrap_or_default());
        line.length += gone;
        line.ended = ended;
        self.buffer.advance(gone + usize::from(ended));
        ended.then_some(Frame::TooLong { head: &line.head, length: line.length })
    }
}

/// Appends one line made of `parts` to what goes to the child.
///
/// A raw CR or LF inside the parts becomes a space. Between JSON tokens that changes nothing, and inside a JSON
/// string it cannot occur (RFC 8259 §7); Python's text streams end a line at a lone CR too.
pub fn push_line(out: &mut BytesMut, parts: &[&[u8]]) {
    out.reserve(parts.iter().map(|part| part.len()).sum::<usize>() + 1);
    for part in parts {
        push_one_line(out, part);
    }
    out.extend_from_slice(b"\n");
}

/// Appends `part` with each raw CR and LF replaced by a space.
pub fn push_one_line(out: &mut BytesMut, part: &[u8]) {
    let start = out.len();
    out.extend_from_slice(part);
    join_lines(out.get_mut(start..).unwrap_or_default());
}

/// Replaces each raw CR and LF by a space.
pub fn join_lines(text: &mut [u8]) {
    // Without a branch, which the compiler turns into vector instructions: megabytes of them cost no more than none.
    for byte in text {
        *byte = if (*byte == b'\r') | (*byte == b'\n') { b' ' } else { *byte };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Seen {
        Line(Vec<u8>),
        TooLong(Vec<u8>, usize),
    }

    fn drain(decoder: &mut LineDecoder, seen: &mut Vec<Seen>) {
        while let Some(frame) = decoder.next() {
            seen.push(match frame {
                Frame::Line(line) => Seen::Line(line.bytes().to_vec()),
                Frame::Long(line) => Seen::Line(line.to_vec()),
                Frame::TooLong { head, length } => Seen::TooLong(head.to_vec(), length),
            });
        }
    }

    fn decode(max: usize, chunks: &[&[u8]]) -> (Vec<Seen>, Option<Vec<u8>>) {
        let mut decoder = LineDecoder::new(max);
        let mut seen = Vec::new();
        for chunk in chunks {
            decoder.buffer().extend_from_slice(chunk);
            drain(&mut decoder, &mut seen);
        }
        let rest = decoder.finish().map(|frame| match frame {
            Frame::Line(line) => line.bytes().to_vec(),
            other => panic!("{other:?}"),
        });
        (seen, rest)
    }

    fn lines(text: &[&str]) -> Vec<Seen> {
        text.iter().map(|line| Seen::Line(line.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_split_point_gives_the_same_lines() {
        let input = b"\xef\xbb\xbf{\"a\":1}\r\n\r\n  \n{\"b\":\"\xc3\xa9\"} \n\n{\"c\":3}\nrest";
        let want = (lines(&["{\"a\":1}", "{\"b\":\"é\"}", "{\"c\":3}"]), Some(b"rest".to_vec()));
        for first in 0..=input.len() {
            for second in first..=input.len() {
                let chunks = [&input[..first], &input[first..second], &input[second..]];
                assert_eq!(decode(1024, &chunks), want, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let (seen, _) = decode(4, &[b"1234\n12345\n12\n"]);
        assert_eq!(
            seen,
            [Seen::Line(b"1234".to_vec()), Seen::TooLong(b"12345".to_vec(), 5), Seen::Line(b"12".to_vec())]
        );
    }

    #[test]
    fn an_overlong_line_keeps_its_head_and_holds_no_more_than_the_limit() {
        let mut decoder = LineDecoder::new(100);
        let mut seen = Vec::new();
        for _ in 0..10_000 {
            decoder.buffer().extend_from_slice(&[b'x'; 50]);
            drain(&mut decoder, &mut seen);
            assert!(
                decoder.buffer.capacity() < 64 * 1024,
                "the buffer grew to {}",
                decoder.buffer.capacity()
            );
        }
        assert!(seen.is_empty(), "the line has not ended yet");
        decoder.buffer().extend_from_slice(b"\n{}\n");
        drain(&mut decoder, &mut seen);
        assert_eq!(seen.len(), 2);
        assert!(matches!(&seen[0], Seen::TooLong(head, 500_000) if head.len() > 100 && head.len() <= HEAD));
        assert_eq!(seen[1], Seen::Line(b"{}".to_vec()));
    }

    #[test]
    fn an_overlong_line_is_the_same_at_every_split_point() {
        let input = b"ab\n0123456789\ncd\n";
        for split in 0..=input.len() {
            let (seen, rest) = decode(5, &[&input[..split], &input[split..]]);
            assert_eq!(rest, None);
            assert_eq!(seen.len(), 3, "split at {split}");
            assert!(matches!(&seen[1], Seen::TooLong(head, 10) if b"0123456789".starts_with(head)));
            assert_eq!(seen[2], Seen::Line(b"cd".to_vec()));
        }
    }

    #[test]
    fn a_long_line_takes_its_buffer_along_and_what_follows_has_another() {
        for length in [LONG + 1, (1 << 20) - 1, 1 << 20, 1_100_000] {
            let mut decoder = LineDecoder::new(1 << 30);
            // As a reader fills it: as much as there is room for.
            let mut input = Bytes::from([&vec![b'x'; length], &b"\n{}\n{\"half\":"[..]].concat());
            let mut seen = Vec::new();
            while !input.is_empty() {
                let buffer = decoder.buffer();
                let room = buffer.capacity() - buffer.len();
                buffer.extend_from_slice(&input.split_to(room.min(input.len())));
                drain(&mut decoder, &mut seen);
            }
            assert!(seen == [Seen::Line(vec![b'x'; length]), Seen::Line(b"{}".to_vec())], "{length} bytes");
            assert_eq!(decoder.waiting(), b"{\"half\":".len());
            assert!(!decoder.is_large() && !decoder.buffer().try_reclaim(LONG), "{length} bytes stay");
        }
    }

    #[test]
    fn a_long_last_line_without_its_end_is_handed_out_with_its_buffer() {
        let mut decoder = LineDecoder::new(1 << 30);
        decoder.buffer().extend_from_slice(&vec![b'x'; LONG + 1]);
        assert_eq!(decoder.next(), None);
        assert!(matches!(decoder.finish(), Some(Frame::Long(line)) if line.len() == LONG + 1));
        assert_eq!(decoder.waiting(), 0);
    }

    #[test]
    fn a_big_buffer_is_given_back_when_it_is_empty() {
        let mut decoder = LineDecoder::new(1 << 30);
        let line = [&[b'x'; LONG - 100], &b"\n"[..]].concat();
        decoder.buffer().extend_from_slice(&line);
        assert!(matches!(decoder.next(), Some(Frame::Line(_))));
        decoder.buffer();
        assert!(decoder.is_large());
        decoder.shrink();
        assert!(!decoder.buffer().try_reclaim(KEEP + 1), "the buffer is still there");
    }

    #[test]
    fn raw_line_ends_become_spaces() {
        let mut out = BytesMut::new();
        push_line(&mut out, &[b"{\r\n\"id\":", b"7", b"\n}\r"]);
        assert_eq!(&out[..], b"{  \"id\":7 } \n");
    }

    proptest! {
        #[test]
        fn what_was_pushed_comes_out_again(
            messages in prop::collection::vec("\\{[ -~]{0,40}\\}", 0..8),
            cuts in prop::collection::vec(0usize..400, 0..6),
        ) {
            let mut wire = BytesMut::new();
            for message in &messages {
                push_line(&mut wire, &[message.as_bytes()]);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= wire.len()).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
            let (seen, rest) = decode(1024, &chunks);
            prop_assert_eq!(rest, None);
            let want: Vec<Seen> = messages.iter().map(|text| Seen::Line(text.as_bytes().to_vec())).collect();
            prop_assert_eq!(seen, want);
        }
    }
}
