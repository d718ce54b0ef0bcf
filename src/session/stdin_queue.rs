//! How much of the queue for the child's stdin has been written.

use bytes::{Buf, BytesMut};

use crate::proto::line::{HEAD, LONG};
use crate::proto::message::{Envelope, Head, Kind, peek_head};

/// A queue that grew beyond this many bytes is large.
const KEEP: usize = 64 * 1024;

/// Where the writer stands in the queue. A line leaves the queue with its last byte, so that it is known which messages
/// a lost child did not get or got only in part.
#[derive(Debug, Default)]
pub(super) struct StdinCursor {
    /// How many bytes of the first line have been written.
    written: usize,
    /// The most that the queue has been able to hold. Its own capacity does not tell: that leaves out what has been
    /// taken from the front.
    largest: usize,
}

impl StdinCursor {
    /// What is still to be written.
    pub(super) fn rest<'q>(&self, queue: &'q [u8]) -> &'q [u8] {
        queue.get(self.written..).unwrap_or_default()
    }

    /// Notes that the first `count` bytes of [`rest`](Self::rest) have been written. Returns how many bytes have left the
    /// queue.
    pub(super) fn advance(&mut self, queue: &mut BytesMut, count: usize) -> usize {
        self.largest = self.largest.max(queue.capacity());
        let just_written = self.rest(queue).get(..count).unwrap_or_default();
        let last_end = memchr::memrchr(b'\n', just_written).map(|end| self.written + end + 1);
        self.written += count;
        let left = last_end.unwrap_or(0);
        queue.advance(left);
        self.written -= left;
        left
    }

    /// Whether the queue has grown for a large message. [`shrink`](Self::shrink) gives it back.
    pub(super) fn is_large(&self) -> bool {
        self.largest > KEEP
    }

    /// Gives a large queue back to the allocator, unless bytes are in it.
    pub(super) fn shrink(&mut self, queue: &mut BytesMut) {
        if self.is_large() && queue.is_empty() {
            *queue = BytesMut::new();
            self.largest = 0;
        }
    }
}

/// Messages of clients that a child did not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) notifications: usize,
    pub(super) responses: usize,
}

impl Lost {
    /// What goes with this queue. Requests are not counted: each of them gets its answer. Nor are the notifications that
    /// are of use to the lost child alone.
    pub(super) fn of(queue: &[u8]) -> Self {
        let mut lost = Self::default();
        for line in queue.split(|byte| *byte == b'\n') {
            if line.len() > LONG {
                // How a long one begins is enough, and costs little.
                match peek_head(line.get(..HEAD).unwrap_or(line)) {
                    Head::Call(None) => lost.notifications += 1,
                    Head::Answer(_) => lost.responses += 1,
                    Head::Call(Some(_)) | Head::NoMessage | Head::Unclear => {}
                }
                continue;
            }
            let Ok(envelope) = Envelope::peek(line) else { continue };
            match envelope.kind {
                Kind::Request => {}
                Kind::Notification => {
                    let moot = ["notifications/initialized", "notifications/cancelled"];
                    lost.notifications += usize::from(!moot.contains(&&*envelope.method(line)));
                }
                Kind::Success | Kind::Failure => lost.responses += 1,
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_leaves_the_queue_with_its_last_byte_however_it_is_written() {
        let text = b"{\"a\":1}\n\n{\"bb\":2}\n{}\n";
        for step in 1..=text.len() {
            let (mut queue, mut cursor) = (BytesMut::from(&text[..]), StdinCursor::default());
            let mut got = Vec::new();
            while !cursor.rest(&queue).is_empty() {
                let part = cursor.rest(&queue);
                let part = part[..step.min(part.len())].to_vec();
                cursor.advance(&mut queue, part.len());
                got.extend(part);
                let begun = got.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                assert_eq!(queue, text[begun..], "{step} bytes at a time, {} written", got.len());
            }
            assert_eq!(got, text);
        }
    }

    #[test]
    fn an_empty_queue_gives_a_large_buffer_back() {
        for step in [1000, 1 << 20, 3 << 20] {
            let text = [&[b'x'; 1 << 20], &b"\n{}\n"[..]].concat();
            let mut queue = BytesMut::with_capacity(text.len());
            queue.extend_from_slice(&text);
            let mut cursor = StdinCursor::default();
            while !cursor.rest(&queue).is_empty() {
                let count = step.min(cursor.rest(&queue).len());
                cursor.advance(&mut queue, count);
            }
            assert!(cursor.is_large());
            cursor.shrink(&mut queue);
            assert!(!queue.try_reclaim(KEEP + 1), "{step} bytes at a time: the buffer is still there");
        }
    }

    #[test]
    fn what_is_lost_with_a_queue_is_counted_by_its_kind() {
        let lines = [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":"q","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"q","error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#,
            "",
        ];
        let lost = Lost::of(lines.join("\n").as_bytes());
        assert_eq!(lost, Lost { notifications: 2, responses: 2 });
        assert_eq!(Lost::of(b""), Lost::default());

        let long = |head: &str| format!(r#"{head},"result":"{}"}}"#, "x".repeat(LONG));
        let lines = [
            long(r#"{"jsonrpc":"2.0","method":"notifications/progress""#),
            long(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call""#),
            long(r#"{"jsonrpc":"2.0","id":"q""#),
        ];
        let lost = Lost::of(lines.join("\n").as_bytes());
        assert_eq!(lost, Lost { notifications: 1, responses: 1 }, "a long one is known by its beginning");
    }
}
