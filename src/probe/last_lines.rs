//! The last lines that a server has written to stderr.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::report::clipped;
use crate::first_words::FirstWords;
use crate::proto::line::{Frame, LineDecoder};

/// How many lines are kept.
const LINES: usize = 10;

/// The longest line that is read whole, in bytes; of a longer one the beginning is kept.
const MAX_LINE: usize = 8 * 1024;

/// A server's stderr, and the last lines of it.
pub(super) struct LastLines {
    stderr: Receiver,
    decoder: LineDecoder,
    lines: VecDeque<String>,
    first_words: Arc<FirstWords>,
}

impl LastLines {
    pub(super) fn of(stderr: Receiver, first_words: Arc<FirstWords>) -> Self {
        Self { stderr, decoder: LineDecoder::new(MAX_LINE), lines: VecDeque::new(), first_words }
    }

    /// Reads until the end. Cancel safe.
    pub(super) async fn read(&mut self) {
        while let Ok(1..) = self.stderr.read_buf(self.decoder.buffer()).await {
            while let Some(frame) = self.decoder.next() {
                let line = match frame {
                    Frame::Line(line) => line.bytes(),
                    Frame::Long(_) => continue, // no line is that long here
                    Frame::TooLong { head, .. } => head,
                };
                self.first_words.stderr(line);
                keep(&mut self.lines, line);
            }
        }
    }

    /// Reads until the end, and does not return.
    pub(super) async fn read_for_ever<T>(&mut self) -> T {
        self.read().await;
        std::future::pending().await
    }

    /// The lines, oldest first.
    pub(super) fn finish(mut self) -> Vec<String> {
        if let Some(Frame::Line(line)) = self.decoder.finish() {
            self.first_words.stderr(line.bytes());
            keep(&mut self.lines, line.bytes());
        }
        self.lines.into()
    }
}

fn keep(lines: &mut VecDeque<String>, line: &[u8]) {
    if lines.len() == LINES {
        lines.pop_front();
    }
    lines.push_back(clipped(&String::from_utf8_lossy(line)));
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_each_cut_off() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut text: String = (0..25).map(|number| format!("line {number}\n")).collect();
        text += &format!("{}\n\x1b[2J\nunfinished", "x".repeat(2 * MAX_LINE));
        writer.write_all(text.as_bytes()).unwrap();
        drop(writer);
        let mut stderr = LastLines::of(Receiver::from_owned_fd(reader.into()).unwrap(), Arc::default());
        stderr.read().await;
        let mut want: Vec<String> = (18..25).map(|number| format!("line {number}")).collect();
        want.extend([clipped(&"x".repeat(MAX_LINE)), r"\u{1b}[2J".to_owned(), "unfinished".to_owned()]);
        assert_eq!(stderr.finish(), want);
    }
}
