//! How often one thing is logged. What a peer or a child can cause at will must not fill the disk of whoever keeps the log.

use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::sync::lock;

/// How many lines of one kind are logged at once before there is only one per [`PAUSE`].
const BURST: u32 = 10;

/// How long it takes until one more line may be logged; after ten quiet minutes ten may come at once again.
const PAUSE: Duration = Duration::from_secs(60);

/// Log lines of one kind that somebody can cause at will: a few at once, then one a minute with the count.
///
/// For what one owner logs; what many causes share takes [`SharedLogLimit`].
#[derive(Debug)]
pub struct LogLimit {
    burst: u32,
    pause: Duration,
    /// When all that may come at once may come again: the further ahead, the more have come (the "virtual scheduling"
    /// of ITU-T I.371, which needs no timer).
    full: Option<Instant>,
    count: u64,
    left_out: u64,
    /// When the last line was logged.
    told: Option<Instant>,
}

impl LogLimit {
    /// None so far: ten at once, then one a minute.
    pub const fn new() -> Self {
        Self::with(BURST, PAUSE)
    }

    /// None so far: `burst` at once, then one per `pause`.
    pub const fn with(burst: u32, pause: Duration) -> Self {
        Self { burst, pause, full: None, count: 0, left_out: 0, told: None }
    }

    /// How many there have been with this one, if it is to be logged. The line says this count: what is missing
    /// between the counts of two lines was left out.
    pub fn take(&mut self) -> Option<u64> {
        self.count += 1;
        let now = Instant::now();
        if !self.wait(now).is_zero() {
            self.left_out += 1;
            return None;
        }
        self.full = Some(self.full.map_or(now, |full| full.max(now)) + self.pause);
        (self.left_out, self.told) = (0, Some(now));
        Some(self.count)
    }

    /// How long it takes until one more may be logged.
    fn wait(&self, now: Instant) -> Duration {
        let ahead = self.pause.saturating_mul(self.burst.saturating_sub(1));
        self.full.map_or(Duration::ZERO, |full| full.saturating_duration_since(now + ahead))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`LogLimit`] for lines that any peer can cause: where peers share it, one must not hide that there were others,
/// so those left out last are told when nothing else told them: event `log.left_out`.
#[derive(Debug)]
pub struct SharedLogLimit {
    /// The event of its lines.
    event: &'static str,
    limit: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: LogLimit,
    /// Whether a task waits to tell how many were left out.
    telling: bool,
}

impl SharedLogLimit {
    /// For lines with this event: ten at once, then one a minute.
    pub const fn new(event: &'static str) -> Self {
        Self::with(event, BURST, PAUSE)
    }

    /// For lines with this event that come with each session: a thousand at once, then twenty a second. Clients can open
    /// and end sessions as fast as they like, and so many are no news.
    pub const fn of_sessions(event: &'static str) -> Self {
        Self::with(event, 1000, Duration::from_millis(50))
    }

    /// For lines with this event: `burst` at once, then one per `pause`.
    pub const fn with(event: &'static str, burst: u32, pause: Duration) -> Self {
        Self { event, limit: Mutex::new(Shared { limit: LogLimit::with(burst, pause), telling: false }) }
    }

    /// As [`LogLimit::take`]. A task of the runtime tells what was left out.
    pub fn take(&'static self) -> Option<u64> {
        let mut shared = lock(&self.limit);
        let count = shared.limit.take();
        if count.is_none()
            && !shared.telling
            && let Ok(runtime) = Handle::try_current()
        {
            shared.telling = true;
            runtime.spawn(self.tell());
        }
        count
    }

    /// Waits until no line has told for one pause how many were left out, and tells it.
    async fn tell(&'static self) {
        loop {
            let now = Instant::now();
            let wait = {
                let mut shared = lock(&self.limit);
                if shared.limit.left_out == 0 {
                    shared.telling = false;
                    return;
                }
                shared.limit.told.map_or(Duration::ZERO, |told| {
                    // The next line of this kind, which says the count too, may come first.
                    (told + 2 * shared.limit.pause).saturating_duration_since(now)
                })
            };
            if !wait.is_zero() {
                sleep(wait).await;
                continue;
            }
            let (count, lines) = {
                let mut shared = lock(&self.limit);
                shared.limit.told = Some(now);
                (shared.limit.count, std::mem::take(&mut shared.limit.left_out))
            };
            warn!(
                event = "log.left_out",
                of = self.event,
                lines,
                count,
                "lines of one kind were left out of the log, because there were too many"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn ten_lines_at_once_then_one_a_minute_and_each_says_how_many_there_were() {
        let mut limit = LogLimit::new();
        let logged: Vec<_> = (0..1000).filter_map(|_| limit.take()).collect();
        assert_eq!(logged, (1..=10).collect::<Vec<_>>());
        advance(Duration::from_secs(59)).await;
        assert_eq!(limit.take(), None);
        advance(Duration::from_secs(1)).await;
        assert_eq!((limit.take(), limit.take()), (Some(1002), None));
        advance(Duration::from_secs(3600)).await;
        assert_eq!((0..1000).filter_map(|_| limit.take()).count(), 10, "it was quiet for long");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_left_out_last_is_told_when_no_line_tells_it() {
        static LIMIT: SharedLogLimit = SharedLogLimit::new("test");
        let left_out = || lock(&LIMIT.limit).limit.left_out;
        let logged = (0..50).filter(|_| LIMIT.take().is_some()).count();
        assert_eq!(logged, 10);
        assert_eq!(left_out(), 40);
        sleep(Duration::from_secs(61)).await;
        assert_eq!((LIMIT.take(), left_out()), (Some(51), 0), "a line tells it");
        assert_eq!((LIMIT.take(), left_out()), (None, 1));
        sleep(Duration::from_secs(200)).await;
        assert_eq!(left_out(), 0, "and the task tells the rest");
        assert!(!lock(&LIMIT.limit).telling);
    }
}
