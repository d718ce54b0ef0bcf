//! Frames depend on the bytes and never on how they came.

use mcp_bridge::proto::line::{Frame, HEAD, LineDecoder};

use super::Dice;

/// Stands for [`RUN`] bytes, so that a short input reaches past [`HEAD`]. It occurs in no UTF-8.
const LONG: u8 = 0xfe;
const RUN: usize = 40_000;

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Line(Vec<u8>),
    TooLong { head: Vec<u8>, length: usize },
}

/// Any bytes, cut anywhere, give the frames of a plain split at LF.
pub fn framing(data: &[u8]) {
    let input = stretched(data);
    let mut dice = Dice::new(data);
    for max in [3, 64, HEAD - 1, 1 << 20] {
        let want = split(&input, max);
        assert_eq!(decode(max, [&input[..]]), want, "in one piece");
        if input.len() < RUN {
            assert_eq!(decode(max, input.chunks(1)), want, "byte by byte");
        }
        let largest = 1 + input.len() / (1 + dice.roll(64));
        let mut rest = &input[..];
        let cuts = std::iter::from_fn(|| {
            let (chunk, tail) = rest.split_at(rest.len().min(1 + dice.roll(largest)));
            rest = tail;
            (!chunk.is_empty()).then_some(chunk)
        });
        assert_eq!(decode(max, cuts), want, "in pieces of up to {largest}");
    }
}

fn stretched(data: &[u8]) -> Vec<u8> {
    let mut runs = 0;
    data.iter().fold(Vec::new(), |mut input, byte| {
        let run = *byte == LONG && runs < 2;
        runs += usize::from(run);
        input.resize(input.len() + if run { RUN } else { 1 }, if run { b'x' } else { *byte });
        input
    })
}

/// The frames, and what is left when the stream ends.
type Frames = (Vec<Seen>, Option<Vec<u8>>);

fn decode<'d>(max: usize, chunks: impl IntoIterator<Item = &'d [u8]>) -> Frames {
    let mut decoder = LineDecoder::new(max);
    let mut seen = Vec::new();
    for chunk in chunks {
        decoder.buffer().extend_from_slice(chunk);
        while let Some(frame) = decoder.next() {
            seen.extend(match frame {
                Frame::Line(line) => Some(Seen::Line(line.bytes().to_vec())),
                Frame::Long(line) => trimmed(&line).map(Seen::Line),
                Frame::TooLong { head, length } => Some(Seen::TooLong { head: head.to_vec(), length }),
            });
        }
        assert!(decoder.buffer().len() <= max, "more than {max} bytes of one line are held");
    }
    let rest = decoder.finish().and_then(|frame| match frame {
        Frame::Line(line) => Some(line.bytes().to_vec()),
        Frame::Long(line) => trimmed(&line),
        Frame::TooLong { .. } => panic!("it has no end"),
    });
    (seen, rest)
}

fn split(input: &[u8], max: usize) -> Frames {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().filter(|line| line.len() <= max).and_then(trimmed);
    let seen = lines.into_iter().filter_map(|line| match line.len() <= max {
        true => trimmed(line).map(Seen::Line),
        false => Some(Seen::TooLong { head: line[..line.len().min(HEAD)].to_vec(), length: line.len() }),
    });
    (seen.collect(), last)
}

/// Without one byte order mark and the white space around; `None` where nothing is left.
fn trimmed(line: &[u8]) -> Option<Vec<u8>> {
    let line = if line.starts_with("\u{feff}".as_bytes()) { &line[3..] } else { line };
    let first = line.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let last = line.iter().rposition(|byte| !byte.is_ascii_whitespace())?;
    Some(line[first..=last].to_vec())
}
