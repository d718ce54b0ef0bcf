//! One timer for all deadlines of a loop.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that goes off at the next deadline at the latest, and perhaps before it.
///
/// Moving a timer forward costs a write to the runtime's eventfd, and most deadlines go away long before they pass: so
/// it is moved only where it would go off too late, and one that went off too early is set again.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: Pin<Box<Sleep>>,
}

impl Alarm {
    /// An alarm that goes off at `deadline`.
    pub(super) fn new(deadline: Instant) -> Self {
        Self { timer: Box::pin(sleep_until(deadline)) }
    }

    /// Sees to it that the alarm goes off at `deadline` at the latest. Returns whether the timer had to be moved.
    pub(super) fn arm(&mut self, deadline: Instant) -> bool {
        let late = self.timer.is_elapsed() || deadline < self.timer.deadline();
        if late {
            self.timer.as_mut().reset(deadline);
        }
        late
    }

    /// Waits until the alarm goes off. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self) {
        self.timer.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_that_go_away_before_they_pass_hardly_move_the_timer() {
        let began = Instant::now();
        let idle = began + millis(1_000_000);
        let mut alarm = Alarm::new(idle);
        let mut moves = 0;
        for _ in 0..1000 {
            // A call, which is answered after a millisecond.
            moves += u32::from(alarm.arm(Instant::now() + millis(250)));
            tokio::select! {
                biased;
                () = alarm.wait() => moves += u32::from(alarm.arm(Instant::now() + millis(249))),
                () = tokio::time::sleep(millis(1)) => {}
            }
            moves += u32::from(alarm.arm(idle));
        }
        assert!(moves <= 10, "{moves} moves in a second with a thousand deadlines");
    }

    #[tokio::test(start_paused = true)]
    async fn the_alarm_goes_off_at_the_earliest_deadline_and_again_at_the_next() {
        let began = Instant::now();
        let mut alarm = Alarm::new(began + millis(500));
        assert!(alarm.arm(began + millis(100)), "an earlier deadline moves the timer");
        assert!(!alarm.arm(began + millis(300)), "a later one does not");
        alarm.wait().await;
        assert_eq!(began.elapsed(), millis(100));
        assert!(alarm.arm(began + millis(300)), "a timer that went off is set again");
        alarm.wait().await;
        assert_eq!(began.elapsed(), millis(300));
    }
}
