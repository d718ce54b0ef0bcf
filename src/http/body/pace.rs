//! How fast something must come: a rate, and how far it may fall behind.

use std::time::Duration;

use tokio::time::Instant;

/// A client may let the bridge wait for so long at once, and at all it must keep up a rate: what it has fallen behind
/// counts until it has caught up. It gains no more time by being fast than what it began with.
#[derive(Debug)]
pub(super) struct Pace {
    /// In bytes per second.
    rate: usize,
    slack: Duration,
    due: Instant,
}

impl Pace {
    pub(super) fn begin(rate: usize, slack: Duration, now: Instant) -> Self {
        Self { rate, slack, due: now + slack }
    }

    /// By when more must have come.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Notes that so many bytes have come.
    pub(super) fn came(&mut self, bytes: usize, now: Instant) {
        let time = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.due = (self.due + time).min(now + self.slack);
    }

    /// Leaves out a time for which nobody waited for the client.
    pub(super) fn pause(&mut self, time: Duration) {
        self.due += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK: Duration = Duration::from_secs(30);
    const RATE: usize = 64 * 1024;

    /// After how many bytes and seconds a body that comes so fast is given up, if it is within an hour.
    fn given_up(bytes_per_second: usize) -> Option<(usize, u64)> {
        let begin = Instant::now();
        let mut pace = Pace::begin(RATE, SLACK, begin);
        (1..3600).find_map(|second| {
            let now = begin + Duration::from_secs(second);
            if pace.due() <= now {
                return Some((bytes_per_second * second as usize, second));
            }
            pace.came(bytes_per_second, now);
            None
        })
    }

    #[test]
    fn a_steady_upload_may_take_as_long_as_it_takes() {
        assert_eq!(given_up(200 * 1024), None);
        assert_eq!(given_up(RATE), None);
    }

    #[test]
    fn what_comes_drop_by_drop_ends_and_what_is_slow_but_short_does_not() {
        assert_eq!(given_up(0), Some((0, 30)));
        assert_eq!(given_up(1), Some((31, 31)));
        let (bytes, seconds) = given_up(RATE / 2).unwrap();
        assert!((59..=61).contains(&seconds) && bytes > 1_900_000, "{bytes} bytes, {seconds} s");
    }

    #[test]
    fn who_was_fast_may_stand_still_for_no_longer_than_who_was_not() {
        let begin = Instant::now();
        let mut pace = Pace::begin(RATE, SLACK, begin);
        pace.came(10 << 20, begin);
        assert_eq!(pace.due(), begin + SLACK);
    }

    #[test]
    fn time_that_is_not_the_clients_does_not_count() {
        let begin = Instant::now();
        let mut pace = Pace::begin(RATE, SLACK, begin);
        pace.pause(Duration::from_secs(3600));
        assert_eq!(pace.due(), begin + Duration::from_secs(3630));
    }
}
