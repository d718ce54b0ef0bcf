//! Where the head of a request ends in what was read, and how much was read beyond it. hyper knows, and does not say.

use memchr::{memchr, memmem};

/// The end of a line, and an empty one.
const BLANK: &[u8] = b"\r\n\r\n";

/// Looks for the empty line that ends a head (RFC 9112 §2.1); those before its first line do not count (§2.2).
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// Whether there has been a line.
    begun: bool,
    /// What there is of the next one.
    line: Line,
    beyond: Option<u64>,
    /// Whether there was an empty line behind it.
    blank: bool,
    /// The last bytes behind it.
    tail: [u8; 3],
}

#[derive(Clone, Copy, Debug, Default)]
enum Line {
    #[default]
    Empty,
    /// A carriage return, which may belong to the line's end.
    Return,
    Text,
}

impl HeadEnd {
    /// More was read. `in_chunks`: whether its body may come in chunks, so that the end of that is to be looked for too.
    pub(super) fn read(&mut self, bytes: &[u8], in_chunks: bool) {
        if let Some(beyond) = &mut self.beyond {
            *beyond += bytes.len() as u64;
            if in_chunks {
                self.look_for_blank(bytes);
            }
            return;
        }
        let mut rest = bytes;
        while let Some((line, next)) = memchr(b'\n', rest).and_then(|end| rest.split_at_checked(end)) {
            rest = next.get(1..).unwrap_or_default();
            let is_empty = matches!((self.line, line), (Line::Empty, [] | [b'\r']) | (Line::Return, []));
            self.line = Line::Empty;
            if is_empty && self.begun {
                self.beyond = Some(rest.len() as u64);
                self.look_for_blank(rest);
                return;
            }
            self.begun |= !is_empty;
        }
        self.line = match (self.line, rest) {
            (line, []) => line,
            (Line::Empty, [b'\r']) => Line::Return,
            _ => Line::Text,
        };
    }

    /// How many bytes were read after the head; `None`: its end has not been read.
    pub(super) fn beyond(&self) -> Option<u64> {
        self.beyond
    }

    fn look_for_blank(&mut self, bytes: &[u8]) {
        let mut seam = [0; 6];
        for (to, from) in seam.iter_mut().zip(self.tail.iter().chain(bytes)) {
            *to = *from;
        }
        self.blank |= memmem::find(&seam, BLANK).is_some() || memmem::find(bytes, BLANK).is_some();
        for byte in bytes.get(bytes.len().saturating_sub(self.tail.len())..).unwrap_or_default() {
            self.tail.rotate_left(1);
            self.tail[2] = *byte;
        }
    }

    /// Whether there was an empty line behind the head. A body in chunks ends with one (RFC 9112 §7.1), and seldom holds
    /// one.
    pub(super) fn has_blank(&self) -> bool {
        self.blank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_reads_begin_and_end() {
        let heads = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nA: \r\r\nHost: a\n\n",
            "\r\n\nGET /\r\n\r\n",
        ];
        for (head, body) in heads.into_iter().flat_map(|head| {
            ["", "\r\n\r\n", "{}", "\n", "2\r\n{}\r\n0\r\n\r\nGET /"].map(|body| (head, body))
        }) {
            let bytes = [head, body].concat().into_bytes();
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                let mut end = HeadEnd::default();
                end.read(first, true);
                assert_eq!(end.beyond().is_some(), cut >= head.len(), "{head:?} {cut}");
                end.read(second, true);
                assert_eq!(end.beyond(), Some(body.len() as u64), "{head:?} {cut}");
                assert_eq!(end.has_blank(), body.contains("\r\n\r\n"), "{head:?} {body:?} {cut}");
            }
        }
    }
}
