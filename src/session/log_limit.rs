//! How often one thing is logged.

use std::time::Duration;

use tokio::time::Instant;

/// How many log lines of one kind the child can cause before they are rationed to one per [`RATION_PAUSE`].
const RATION: u64 = 10;

/// See [`RATION`].
const RATION_PAUSE: Duration = Duration::from_secs(60);

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
        if self.count > RATION && self.logged.elapsed() < RATION_PAUSE {
            return None;
        }
        self.logged = Instant::now();
        Some(self.count)
    }
}
