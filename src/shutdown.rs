//! What a stop signal sets in motion, and how long each step has.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::info;

use crate::child::TERM_GRACE;
use crate::drain::Drain;
use crate::http::Http;
use crate::sessions::Sessions;
use crate::signals::{Signal, Signals};
use crate::token::Tokens;

/// How long the last errors may take to the wire when the program ends at once.
const FINAL_FLUSH: Duration = Duration::from_millis(100);

/// The longest time that is kept for SIGKILL to work.
const KILL: Duration = Duration::from_secs(1);

/// How long each step of an orderly shutdown has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// For all of them.
    pub total: Duration,
    /// For calls in flight.
    pub calls: Duration,
    /// When children get SIGTERM that are still there, counted from the signal.
    pub term: Duration,
    /// When they get SIGKILL.
    pub kill: Duration,
    /// When they are given up.
    pub children: Duration,
    /// For the last bytes of answers.
    pub answers: Duration,
}

impl Steps {
    /// The steps of a shutdown that takes no longer than `total`: an eighth for the last bytes, and half of the rest for
    /// calls in flight. A child whose calls are done is told so by the end of its stdin, at once if it has none, and has
    /// all that is left of the time; from its end only what SIGTERM and SIGKILL take is kept back.
    pub fn within(total: Duration) -> Self {
        let answers = total / 8;
        let children = total - answers;
        let kill = children - (total / 16).min(KILL);
        let term = kill - (total / 6).min(TERM_GRACE);
        Self { total, calls: children / 2, term, kill, children, answers }
    }
}

/// How the shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was asked to end has ended.
    Drained,
    /// The time was over and what was left has been killed.
    OutOfTime,
    /// This signal asked for the end at once, and what was left has been killed.
    Forced(Signal),
}

/// Waits for a signal that ends the program; serves the others meanwhile.
pub async fn requested(signals: &mut Signals, sessions: &Sessions, tokens: Option<&Tokens>) -> Signal {
    loop {
        match (signals.next().await, tokens.filter(|tokens| tokens.can_reload())) {
            (Signal::User1, _) => sessions.snapshot().log(),
            (Signal::Hangup, Some(tokens)) => tokens.reload(),
            (signal, _) => return signal,
        }
    }
}

/// Ends everything in order within the `steps`; a second signal, or SIGQUIT as the `first`, ends it at once. Kills what
/// is left.
pub async fn run(
    first: Signal,
    second: impl Future<Output = Signal>,
    steps: Steps,
    http: &Http,
    sessions: &Arc<Sessions>,
    drain: Drain,
) -> Outcome {
    info!(
        event = "bridge.stopping",
        signal = first.name(),
        sessions = sessions.count(),
        within = steps.total.as_secs_f64(),
        "the bridge stops"
    );
    let outcome = if first == Signal::Quit {
        drop(drain); // connections end, and nothing waits for them
        Outcome::Forced(first)
    } else {
        tokio::select! {
            outcome = in_order(steps, http, sessions, drain) => outcome,
            second = second => Outcome::Forced(second),
        }
    };
    sessions.drain(); // a forced end has skipped it: nothing is started any more
    if sessions.count() > 0 {
        sessions.end_all();
        sessions.kill_all();
        sleep(FINAL_FLUSH).await;
    }
    outcome
}

/// The listener stays open meanwhile: a balancer needs a moment to look elsewhere.
async fn in_order(steps: Steps, http: &Http, sessions: &Arc<Sessions>, drain: Drain) -> Outcome {
    sessions.drain();
    http.drain();
    let mut in_time = timeout(steps.calls, sessions.drained()).await.is_ok();
    if !in_time {
        sessions.end_all(); // those with calls in flight: the others have ended
        in_time = timeout(steps.children - steps.calls, sessions.drained()).await.is_ok();
    }
    // A request that is still being sent, or an old answer that is still being read, belongs to no session.
    let _ = timeout(steps.answers, drain.drain()).await;
    if in_time { Outcome::Drained } else { Outcome::OutOfTime }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_without_calls_has_what_the_end_does_not_need() {
        let of = |total| {
            let steps = Steps::within(Duration::from_millis(total));
            [steps.calls, steps.term, steps.kill, steps.children, steps.total].map(|time| time.as_millis())
        };
        assert_eq!(of(8_000), [3_500, 5_166, 6_500, 7_000, 8_000]);
        assert_eq!(of(24_000), [10_500, 18_000, 20_000, 21_000, 24_000]);
        assert_eq!(of(0), [0; 5]);
        for total in (0..100_000).step_by(77) {
            let times = of(total);
            assert!(times.is_sorted(), "{times:?}");
        }
    }
}
