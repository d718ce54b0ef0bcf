//! What a child writes to stderr becomes log lines.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::first_words::FirstWords;
use crate::log_limit::SharedLogLimit;
use crate::proto::line::{Frame, LineDecoder};
use crate::reaper::ExitWatch;

/// The longest line of a child's stderr that is logged, in bytes; the rest of it is cut off.
const MAX_LINE: usize = 8 * 1024;

/// Lines of one child's stderr that are logged per second; what is more is read, counted and dropped.
const MAX_RATE: u32 = 1000;

/// How long stderr is read after the child's end: a grandchild may hold it open for ever.
const DRAIN_STDERR: Duration = Duration::from_millis(250);

static SUSPECTS: SharedLogLimit = SharedLogLimit::with("child.stderr", 100, Duration::from_secs(1));

/// Logs what the child writes to stderr, line by line. It is always read: a child whose stderr is full stands still.
///
/// What the many children say that clients bring down (`is_suspect`) has a limit for all of them.
pub(super) async fn log(
    mut stderr: Receiver,
    sid: Arc<OnceLock<String>>,
    mut exit: ExitWatch,
    first_words: Arc<FirstWords>,
    is_suspect: bool,
) {
    let mut decoder = LineDecoder::new(MAX_LINE);
    let mut until: Option<Instant> = None;
    let (mut second, mut lines, mut suppressed) = (Instant::now(), 0, 0_u64);
    let sid = || sid.get().map_or("-", String::as_str);
    let log_suppressed = |lines: u64| {
        if lines > 0 {
            warn!(
                event = "child.stderr_suppressed",
                sid = sid(),
                lines,
                "a server writes too much to stderr"
            );
        }
    };
    let mut log = |line: &[u8]| {
        first_words.stderr(line);
        if second.elapsed() >= Duration::from_secs(1) {
            log_suppressed(suppressed);
            (second, lines, suppressed) = (Instant::now(), 0, 0);
        }
        if is_suspect && SUSPECTS.take().is_none() {
            return;
        }
        if lines == MAX_RATE {
            suppressed += 1;
            return;
        }
        lines += 1;
        info!(
            event = "child.stderr",
            sid = sid(),
            line = &*String::from_utf8_lossy(line),
            "a server writes to stderr"
        );
    };
    loop {
        let deadline = until.unwrap_or_else(Instant::now);
        tokio::select! {
            read = stderr.read_buf(decoder.buffer()) => {
                while let Some(frame) = decoder.next() {
                    match frame {
                        Frame::Line(line) => log(line.bytes()),
                        Frame::Long(line) => log(line.get(..MAX_LINE).unwrap_or(&line)),
                        Frame::TooLong { head, .. } => log(head.get(..MAX_LINE).unwrap_or(head)),
                    }
                }
                if matches!(read, Ok(0) | Err(_)) {
                    break;
                }
                // There may be more at once, and a pipe holds tens of thousands of the shortest lines.
                yield_now().await;
            }
            _ = exit.wait(), if until.is_none() => until = Some(Instant::now() + DRAIN_STDERR),
            () = sleep_until(deadline), if until.is_some() => break,
        }
    }
    if let Some(Frame::Line(line)) = decoder.finish() {
        log(line.bytes());
    }
    log_suppressed(suppressed);
}
