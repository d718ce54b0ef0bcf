//! What the bridge does about starts that fail: it notes whose fault that may be, and where it may be the server's, it
//! starts a child of its own and sends it a handshake that has worked before, or else asks in its own name.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::Sessions;
use super::blame::{Blame, Cause, Verdict, backoff};
use super::era::Shown;
use super::registry::Live;
use super::sibling::{Purpose, Tried};
use super::snapshot::State;
use crate::log_limit::SharedLogLimit;
use crate::proto::message::Request;
use crate::proto::version::Era;
use crate::session::{End, Session};
use crate::sync;

/// A session that has been opened within this time and is still there shows that the server starts.
const RECENT: Duration = Duration::from_secs(300);

/// What it means that a server starts which has failed in clients' hands.
const BY_CLIENTS: &str = "it fails with what clients send in initialize or in headers";

static CLIENTS_LOOPS: SharedLogLimit = SharedLogLimit::new("client.crash_loop");
static CRASH_LOOPS: SharedLogLimit = SharedLogLimit::with("child.crash_loop", 10, Duration::from_secs(10));
static TRIALS: SharedLogLimit = SharedLogLimit::with("child.trial", 10, Duration::from_secs(10));

impl Sessions {
    /// For how long no child is to be started at all.
    pub(super) fn paused(&self) -> Option<Duration> {
        self.blame().pause(Instant::now())
    }

    pub(super) fn blame(&self) -> MutexGuard<'_, Blame> {
        sync::lock(&self.blame)
    }

    /// A child that a client asked for has answered `initialize`, or its session has ended before, for this reason.
    pub(super) fn note_start(
        self: &Arc<Self>,
        cause: &Cause,
        initialize: Option<Request>,
        started: Result<(), End>,
    ) {
        match started {
            Ok(()) => {
                if cause.era == Era::Legacy {
                    self.note_era(Shown::Sessions, "a session's server has answered initialize");
                }
                self.blame().succeeded(cause, initialize, Instant::now());
                self.starts.note_worked(&cause.words);
            }
            // A server of 2026-07-28 alone does nothing else, and is no worse for it: its clients are translated then.
            Err(End::Refused) if cause.era == Era::Legacy && self.known_era() != Some(Era::Legacy) => {
                let this = Arc::clone(self);
                tokio::spawn(async move {
                    if this.era().await == Era::Legacy {
                        this.note_refused();
                    }
                });
            }
            Err(End::Refused) => {
                self.note_not_opened(cause);
                self.note_refused();
            }
            // A child whose session ended first may run.
            Err(
                End::Exited(_)
                | End::StdoutClosed
                | End::StdinClosed
                | End::InitTimeout(_)
                | End::Echoed
                | End::Invalid(_),
            ) => {
                self.note_not_opened(cause);
                self.note_failure(cause);
            }
            Err(_) => {}
        }
    }

    /// A server has refused what it is asked first. That can be the client's words, which change nothing for others.
    fn note_refused(self: &Arc<Self>) {
        let due = self.blame().refused(self.is_serving(), Instant::now());
        self.begin_trial(due);
    }

    /// A server that does not answer in the era that it is known to speak may have changed.
    fn note_not_opened(&self, cause: &Cause) {
        if cause.era == Era::Modern {
            self.forget_era("a session's server has not answered server/discover");
        }
    }

    fn note_failure(self: &Arc<Self>, cause: &Cause) {
        let (now, serving) = (Instant::now(), self.is_serving());
        let verdict = self.blame().failed(cause, serving, now);
        match verdict {
            Verdict::Nothing => {}
            Verdict::PauseOfAll(pause) => log_crash_loop(pause),
            Verdict::PauseOfOne(pause) => {
                if let Some(count) = CLIENTS_LOOPS.take() {
                    warn!(
                        event = "client.crash_loop",
                        pause = pause.as_secs_f64(),
                        count,
                        "the server fails at each start with what one client sends; others are served"
                    );
                }
            }
        }
        let due = self.blame().begin_trial(serving, now);
        self.begin_trial(due);
    }

    fn begin_trial(self: &Arc<Self>, due: bool) {
        if due {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.try_server(BY_CLIENTS).await });
        }
    }

    /// Tries a server that is known not to start until it does: where the bridge is not ready because of it, no client
    /// may come that would.
    fn watch_broken(self: &Arc<Self>) {
        if !self.blame().begin_watch() {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            for tries in 1.. {
                sleep(this.paused().unwrap_or_else(|| backoff(tries))).await;
                if this.blame().end_watch() || !this.is_taking() {
                    break;
                }
                let due = this.blame().begin_watched_trial(Instant::now());
                if due {
                    this.try_server("a server has answered").await;
                }
            }
            this.refill(); // children that were to be kept warm have died too
        });
    }

    /// A child ended before a session took it: no client has caused that.
    pub(super) fn note_unused(self: &Arc<Self>) {
        let serving = self.is_serving();
        let pause = self.blame().failed_by_itself(serving, Instant::now());
        pause.into_iter().for_each(log_crash_loop);
        self.watch_broken();
    }

    /// Whether a session serves that was opened not long ago, and whose child was.
    fn is_serving(&self) -> bool {
        let serves = |live: &Live<Session>| live.state == State::Open && live.began.elapsed() < RECENT;
        self.lock().live().any(|live| live.server.is_none() && serves(live))
    }

    /// Finds out whether the server fails by itself.
    ///
    /// `works_why`: what it means if it does not.
    async fn try_server(self: &Arc<Self>, works_why: &str) {
        let patience = self.config.session.limits.init_timeout;
        let purpose = Purpose { sid: "trial", patience, may_be_warm: false };
        let last_good = self.blame().last_good();
        let tried = match last_good {
            Some(initialize) => match self.try_with(&initialize, purpose).await {
                Tried::Fails(_) | Tried::Silent(_) => self.try_own(purpose).await,
                tried => tried,
            },
            None => self.try_own(purpose).await,
        };
        let works = match tried {
            Tried::NotMade => None,
            Tried::Works(shown) => {
                self.note_era(shown, "a server that was started for a trial has answered");
                log_trial(true, works_why, "the server starts");
                Some(true)
            }
            Tried::Fails(why) | Tried::Silent(why) => {
                log_trial(false, &why, "the server fails without a client too");
                Some(false)
            }
        };
        let serving = self.is_serving();
        let pause = self.blame().tried(works, serving, Instant::now());
        pause.into_iter().for_each(log_crash_loop);
        self.watch_broken();
    }
}

fn log_trial(works: bool, why: &str, message: &str) {
    if let Some(count) = TRIALS.take() {
        warn!(event = "child.trial", works, why, count, "{message}");
    }
}

fn log_crash_loop(pause: Duration) {
    if let Some(count) = CRASH_LOOPS.take() {
        warn!(
            event = "child.crash_loop",
            pause = pause.as_secs_f64(),
            count,
            "every start of the server fails; the bridge waits before it tries again"
        );
    }
}
