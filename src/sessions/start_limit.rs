//! How many children may be starting at once, and when to stop trying: what protects the machine from a storm of starts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use crate::session::End;
use crate::sync;

/// How long a start counts as one: interpreters have read their modules by then, and one that hangs must not keep
/// others from starting.
pub(super) const MAX_START: Duration = Duration::from_secs(5);

/// So many starts that fail within this time are a crash loop.
const CRASHES: (usize, Duration) = (5, Duration::from_secs(30));

/// The first and the longest pause between two starts while each fails.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How many children may start at once, and for how long none.
#[derive(Debug)]
pub(super) struct StartLimit {
    permits: Arc<Semaphore>,
    crashes: Mutex<Crashes>,
}

/// The starts that failed since one succeeded.
#[derive(Debug, Default)]
struct Crashes {
    /// When the newest of them failed, at most as many as make a crash loop.
    recent: VecDeque<Instant>,
    /// How many pauses there have been.
    pauses: u32,
    /// When the newest pause ends.
    until: Option<Instant>,
}

/// The permit for one start; returned by being dropped.
#[derive(Debug)]
pub(super) struct StartPermit(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl StartLimit {
    /// At most so many starts at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_once)), crashes: Mutex::default() }
    }

    /// Waits until one more child may start. Each caller holds a seat, so that no more wait than there are seats.
    pub(super) async fn acquire(&self) -> Option<StartPermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok().map(StartPermit)
    }

    /// For how long no child is to be started, because all that were started failed.
    pub(super) fn pause(&self) -> Option<Duration> {
        let until = self.lock().until?;
        until.checked_duration_since(Instant::now()).filter(|pause| !pause.is_zero())
    }

    /// A child of a new session has answered `initialize`, or its session has ended before, for this reason.
    pub(super) fn note_start(&self, started: Result<(), End>) {
        match started {
            Ok(()) => self.succeeded(),
            // A child that answered with an error does run, and one whose session ended first may.
            Err(End::Exited(_) | End::StdoutClosed | End::StdinClosed | End::InitTimeout(_)) => {
                self.note_crash()
            }
            Err(_) => {}
        }
    }

    /// Notes that a child ended before it was of use.
    pub(super) fn note_crash(&self) {
        if let Some(pause) = self.failed() {
            warn!(
                event = "child.crash_loop",
                ?pause,
                "every server fails at its start; none is started meanwhile"
            );
        }
    }

    fn succeeded(&self) {
        *self.lock() = Crashes::default();
    }

    /// Returns the pause, if this failure begins one.
    fn failed(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut crashes = self.lock();
        if crashes.until.is_some_and(|until| now < until) {
            return None; // it was started before the pause, and says nothing new
        }
        let (count, within) = CRASHES;
        crashes.recent.push_back(now);
        while crashes.recent.len() > count {
            crashes.recent.pop_front();
        }
        let first = crashes.recent.front().copied();
        let looping = crashes.recent.len() == count && first.is_some_and(|first| now - first <= within);
        // In a crash loop each further failure continues it, however far apart the failures are.
        if !looping && crashes.pauses == 0 {
            return None;
        }
        crashes.pauses += 1;
        let pause = backoff(crashes.pauses);
        crashes.until = Some(now + pause);
        Some(pause)
    }

    fn lock(&self) -> MutexGuard<'_, Crashes> {
        sync::lock(&self.crashes)
    }
}

/// The pause before the next try, where `pauses` counts this one: random between nothing and a limit that doubles (full
/// jitter), so that those that failed together do not try together.
pub(super) fn backoff(pauses: u32) -> Duration {
    let (first, last) = PAUSES;
    let limit = first.saturating_mul(1 << pauses.saturating_sub(1).min(10)).min(last);
    let random = getrandom::u32().unwrap_or(u32::MAX);
    limit.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_fifth_failure_within_thirty_seconds_begins_a_pause_and_a_success_ends_it() {
        let starts = StartLimit::new(1);
        for _ in 0..4 {
            assert_eq!(starts.failed(), None);
        }
        assert_eq!(starts.pause(), None);
        let pause = starts.failed().expect("a loop");
        assert!(pause <= Duration::from_secs(1), "{pause:?}");
        assert!(starts.pause().is_none_or(|left| left <= pause));
        if let Some(left) = starts.pause() {
            assert_eq!(starts.failed(), None, "it was started before the pause");
            assert_eq!(starts.pause(), Some(left));
        }
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(starts.pause(), None, "the next may be tried");
        assert!(starts.failed().is_some(), "a failure after the pause is the same loop");
        starts.succeeded();
        assert_eq!((starts.pause(), starts.failed()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_are_no_loop() {
        let starts = StartLimit::new(1);
        for _ in 0..20 {
            assert_eq!(starts.failed(), None);
            tokio::time::advance(Duration::from_secs(8)).await;
        }
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_are_spread_from_nothing() {
        for (pauses, limit) in [(1, 1), (2, 2), (3, 4), (6, 30), (1000, 30)] {
            let drawn: Vec<Duration> = (0..200).map(|_| backoff(pauses)).collect();
            let (least, most) = (drawn.iter().min(), drawn.iter().max());
            let limit = Duration::from_secs(limit);
            assert!(most.is_some_and(|most| *most <= limit && *most > limit / 2), "{pauses}: {most:?}");
            assert!(least.is_some_and(|least| *least < limit / 4), "{pauses}: {least:?}");
        }
    }
}
