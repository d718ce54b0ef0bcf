//! How often one thing is logged.

use std::time::Duration;

use tokio::time::Instant;

/// How many log lines of one kind a child can cause before there is only one per [`PAUSE`].
const BURST: u64 = 10;

/// See [`BURST`].
const PAUSE: Duration = Duration::from_secs(60);

/// Log lines that the child can cause at will: a few at once, then one a minute with the count.
#[derive(Debug)]
pub(super) struct LogLimit {
    count: u64,
    logged: Instant,
}

impl LogLimit {
    /// None so far.
    pub(super) fn new() -> Self {
        Self { count: 0, logged: Instant::now() }
    }

    /// How many there have been, if it is time to say so.
    pub(super) fn take(&mut self) -> Option<u64> {
        self.count += 1;
        if self.count > BURST && self.logged.elapsed() < PAUSE {
            return None;
        }
        self.logged = Instant::now();
        Some(self.count)
    }
}
