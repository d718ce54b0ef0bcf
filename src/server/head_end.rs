//! Where the head of a request ends in what was read, and how much was read beyond it. hyper knows, and does not say.

use memchr::memchr;

/// Looks for the empty line that ends a head (RFC 9112 §2.1); those before its first line do not count (§2.2).
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// Whether there has been a line.
    begun: bool,
    /// What there is of the next one.
    line: Line,
    beyond: Option<u64>,
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
    /// More was read.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        if let Some(beyond) = &mut self.beyond {
            *beyond += bytes.len() as u64;
            return;
        }
        let mut rest = bytes;
        while let Some((line, next)) = memchr(b'\n', rest).and_then(|end| rest.split_at_checked(end)) {
            rest = next.get(1..).unwrap_or_default();
            let is_empty = matches!((self.line, line), (Line::Empty, [] | [b'\r']) | (Line::Return, []));
            self.line = Line::Empty;
            if is_empty && self.begun {
                self.beyond = Some(rest.len() as u64);
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
        for (head, body) in
            heads.into_iter().flat_map(|head| ["", "\r\n\r\n", "{}", "\n"].map(|body| (head, body)))
        {
            let bytes = [head, body].concat().into_bytes();
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                let mut end = HeadEnd::default();
                end.read(first);
                assert_eq!(end.beyond().is_some(), cut >= head.len(), "{head:?} {cut}");
                end.read(second);
                assert_eq!(end.beyond(), Some(body.len() as u64), "{head:?} {cut}");
            }
        }
    }
}
