//! How fast a peer must take what it asked for.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::info;

use crate::log_limit::SharedLogLimit;

/// What a peer must take, in bytes per second, while bytes wait for it.
const FLOOR: u32 = 64 * 1024;

/// The patience with one peer, as time. It runs out while bytes wait, comes back with each byte that the peer takes and
/// with time in which nothing waits, and is never more than it was at first. So a peer may stop for so long, or be slower
/// than [`FLOOR`] for a while, and one that takes a byte now and then is let go all the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    full: Duration,
    left: Duration,
}

impl Pace {
    pub(super) fn new(patience: Duration) -> Self {
        Self { full: patience, left: patience }
    }

    /// The patience at first.
    pub(super) fn full(&self) -> Duration {
        self.full
    }

    /// How long bytes may wait from now on if the peer takes none.
    pub(super) fn left(&self) -> Duration {
        self.left
    }

    /// Bytes waited for so long, and meanwhile the peer took so many. Whether that was too slow.
    pub(super) fn waited(&mut self, time: Duration, taken: u64) -> bool {
        self.left = self.left.saturating_add(worth(taken)).saturating_sub(time).min(self.full);
        self.left.is_zero()
    }

    /// Nothing waited for so long, and so many bytes were taken at once.
    pub(super) fn flowed(&mut self, time: Duration, taken: u64) {
        self.left = self.left.saturating_add(time).saturating_add(worth(taken)).min(self.full);
    }

    /// The peer starts afresh.
    pub(super) fn refill(&mut self) {
        self.left = self.full;
    }
}

/// The longest time in which so many bytes may be taken.
fn worth(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / u64::from(FLOOR))
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// `None`: it is gone already.
    Tcp(Option<SocketAddr>),
    /// The process that connected, where the kernel knows it.
    Unix(Option<i32>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(Some(address)) => address.fmt(f),
            Self::Tcp(None) => f.write_str("unknown"),
            Self::Unix(Some(pid)) => write!(f, "process {pid}"),
            Self::Unix(None) => f.write_str("a local process"),
        }
    }
}

/// Any peer can be slow, as often as it likes.
static SLOW: SharedLogLimit = SharedLogLimit::new("conn.slow");

/// Says who was slow, and what has ended because of it.
pub(super) fn log_slow(peer: Peer, patience: Duration, ended: &'static str) {
    if let Some(count) = SLOW.take() {
        info!(
            event = "conn.slow",
            peer = peer.to_string(),
            ended,
            patience = patience.as_secs_f64(),
            floor = FLOOR,
            count,
            "a client does not read its response: nothing within --body-timeout, or less than {FLOOR} bytes a second"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds it is too slow to take so many bytes every `period` seconds, within an hour.
    fn ends(taken: u64, period: u32) -> Option<u32> {
        let mut pace = Pace::new(PATIENCE);
        (1..3600 / period).find(|_| pace.waited(period * SECOND, taken)).map(|times| times * period)
    }

    #[test]
    fn who_takes_nothing_has_all_the_patience_and_no_more() {
        assert_eq!(ends(0, 1), Some(30));
        assert_eq!(ends(0, 29), Some(58));
    }

    #[test]
    fn who_takes_a_little_now_and_then_is_too_slow_too() {
        assert_eq!(ends(1, 1), Some(30));
        assert_eq!(ends(64 * 1024, 10), Some(40));
        assert_eq!(ends(32 * 1024, 1), Some(60));
        assert_eq!(ends(64 * 1024 - 1, 1), None, "the rate itself, but for rounding");
    }

    #[test]
    fn who_takes_the_floor_or_more_is_never_too_slow() {
        assert_eq!(ends(64 * 1024, 1), None);
        assert_eq!(ends(20 * 64 * 1024, 20), None, "in lumps, as kernels and proxies do");
    }

    #[test]
    fn what_was_taken_fast_is_no_credit_for_later() {
        let mut pace = Pace::new(PATIENCE);
        pace.flowed(SECOND, u64::MAX);
        assert_eq!(pace.left(), PATIENCE);
        assert!(pace.waited(PATIENCE, 0));
    }

    #[test]
    fn a_reader_that_catches_up_has_its_patience_back() {
        let mut pace = Pace::new(PATIENCE);
        assert!(!pace.waited(29 * SECOND, 0));
        pace.flowed(10 * SECOND, 0);
        assert_eq!(pace.left(), 11 * SECOND);
        pace.flowed(Duration::MAX, 0);
        assert_eq!(pace.left(), PATIENCE);
    }
}
