//! What the server speaks, as far as it decides whether clients of 2026-07-28 are served, and in which era their child is
//! opened.
//!
//! No session's child is asked, which would be bound by the question: a server that is started for it is asked, once, and
//! only when somebody must know.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Sessions;
use super::sibling::{Purpose, Tried};
use crate::log_limit::SharedLogLimit;
use crate::proto::link::own_discover;
use crate::proto::version::Era;
use crate::sync;

/// How long a server may take to answer the question at most: a client waits for it.
const ERA_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take for the second question at least.
const LEAST: Duration = Duration::from_secs(2);

/// For how long it is not asked again when it has not said it, or when it was asked anew because it seemed to have changed.
const PAUSE: Duration = Duration::from_secs(30);

/// Why a server has not said it.
const NOT_STARTED: &str = "none could be started for the question";

static UNKNOWN: SharedLogLimit = SharedLogLimit::new("server.era_unknown");

/// What an answer has shown of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It answers `initialize`, and so can open sessions.
    Sessions,
    /// It answers `server/discover`, and so speaks 2026-07-28.
    Modern,
    /// The same, and it refuses `initialize`.
    ModernOnly,
    /// It does not answer `server/discover` as one that speaks 2026-07-28.
    NotModern,
}

/// The answer to a question about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Known(bool),
    /// A server is being asked.
    Asking,
    /// Nothing, and no server is asked until this time.
    Unknown(Option<Instant>),
}

/// A question about the server: one of all who want to know has it asked, and all of them hear the answer.
#[derive(Debug)]
struct Question(watch::Sender<Answer>);

impl Question {
    fn new(given: Option<bool>) -> Self {
        Self(watch::Sender::new(given.map_or(Answer::Unknown(None), Answer::Known)))
    }

    fn known(&self) -> Option<bool> {
        match *self.0.borrow() {
            Answer::Known(known) => Some(known),
            Answer::Asking | Answer::Unknown(_) => None,
        }
    }

    /// Whether a server is to be asked, by whoever gets this answer.
    fn begin(&self, now: Instant) -> bool {
        self.change(
            Answer::Asking,
            |answer| matches!(answer, Answer::Unknown(until) if until.is_none_or(|until| until <= now)),
        )
    }

    /// It is known now. Returns whether that is news.
    fn settle(&self, known: bool) -> bool {
        self.change(Answer::Known(known), |answer| answer != Answer::Known(known))
    }

    /// The server that was asked has not said it. Returns whether nothing else has.
    fn give_up(&self, now: Instant) -> bool {
        self.change(Answer::Unknown(Some(now + PAUSE)), |answer| answer == Answer::Asking)
    }

    /// It has been known to be so, and may not be any more. Returns whether it was.
    fn forget(&self, known: bool) -> bool {
        self.change(Answer::Unknown(None), |answer| answer == Answer::Known(known))
    }

    fn change(&self, new: Answer, is_due: impl FnOnce(Answer) -> bool) -> bool {
        self.0.send_if_modified(|answer| {
            let is_due = is_due(*answer);
            if is_due {
                *answer = new;
            }
            is_due
        })
    }

    /// What is known when no server is being asked any more.
    async fn settled(&self) -> Option<bool> {
        let mut answer = self.0.subscribe();
        let _ = answer.wait_for(|answer| *answer != Answer::Asking).await; // it is open as long as this is
        self.known()
    }
}

/// What the server speaks.
#[derive(Debug)]
pub(super) struct ServerEra {
    /// Whether it can open sessions.
    sessions: Question,
    /// Whether it speaks 2026-07-28.
    modern: Question,
    /// Whether the operator has said it, and nothing that a server does changes it.
    is_given: bool,
    /// When it was last forgotten.
    forgotten: Mutex<Option<Instant>>,
    /// How long the first question has taken, where a server was asked.
    took: Mutex<Option<Duration>>,
}

impl ServerEra {
    /// `given`: what the operator says.
    pub(super) fn new(given: Option<Era>) -> Self {
        Self {
            sessions: Question::new(given.map(|era| era == Era::Legacy)),
            modern: Question::new(given.map(|era| era == Era::Modern)),
            is_given: given.is_some(),
            forgotten: Mutex::default(),
            took: Mutex::default(),
        }
    }

    fn note_took(&self, took: Duration) {
        *sync::lock(&self.took) = Some(took);
    }

    fn took(&self) -> Option<Duration> {
        *sync::lock(&self.took)
    }

    /// A server has shown what it speaks. Returns whether that is news.
    ///
    /// One that has opened a session once can do so, however it answers later.
    fn learn(&self, shown: Shown, now: Instant) -> bool {
        let has_sessions = self.sessions.known();
        match shown {
            _ if self.is_given => false,
            Shown::Sessions => self.sessions.settle(true),
            Shown::Modern => self.modern.settle(true),
            Shown::ModernOnly if has_sessions == Some(true) => self.modern.settle(true),
            Shown::ModernOnly => self.modern.settle(true) | self.sessions.settle(false),
            Shown::NotModern if has_sessions == Some(false) => self.forget(now), // it cannot be neither
            Shown::NotModern => self.modern.settle(false),
        }
    }

    /// A server that was known to speak 2026-07-28 does not. Returns whether that is forgotten.
    ///
    /// It may be what one client adds to the environment that has it fail: then it is asked anew, though not each time.
    fn forget(&self, now: Instant) -> bool {
        let mut forgotten = sync::lock(&self.forgotten);
        if self.is_given || forgotten.is_some_and(|at| now < at + PAUSE) {
            return false;
        }
        let was_known = self.modern.forget(true) | self.sessions.forget(false);
        if was_known {
            *forgotten = Some(now);
        }
        was_known
    }

    /// In one word.
    fn as_str(&self) -> &'static str {
        match (self.sessions.known(), self.modern.known()) {
            (Some(true), Some(true)) => "dual",
            (Some(true), _) => "legacy",
            (_, Some(true)) => "modern",
            _ => "unknown",
        }
    }
}

impl Sessions {
    /// What the server speaks: [`Era::Legacy`] if it can open sessions, whatever else it can do, [`Era::Modern`] if it only
    /// knows 2026-07-28 (`basic/versioning`).
    ///
    /// Where neither the operator nor a session has shown it, a server is started and asked, for at most twice 20 s, by
    /// one of all who want to know. If it does not say it, it is taken for legacy, and asked again after 30 s.
    pub async fn era(self: &Arc<Self>) -> Era {
        if self.may_ask() && self.era.sessions.begin(Instant::now()) {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.ask_for_sessions().await }); // the client may leave, and others wait
        }
        if self.era.sessions.settled().await == Some(false) { Era::Modern } else { Era::Legacy }
    }

    /// In which era a child for clients of 2026-07-28 is opened: in theirs, if the server speaks it.
    ///
    /// Of one that can open sessions that must be asked, in the same way, for at most 20 s. One that refuses it is not asked
    /// again.
    pub async fn era_for_modern(self: &Arc<Self>) -> Era {
        if self.era().await == Era::Modern {
            return Era::Modern;
        }
        let has_sessions = self.era.sessions.known().is_some();
        if has_sessions && self.may_ask() && self.era.modern.begin(Instant::now()) {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.ask_for_modern().await });
        }
        if self.era.modern.settled().await == Some(true) { Era::Modern } else { Era::Legacy }
    }

    fn may_ask(&self) -> bool {
        self.is_taking() && self.paused().is_none()
    }

    /// The era as of [`era`](Self::era), if it is known.
    pub fn known_era(&self) -> Option<Era> {
        self.era.sessions.known().map(|has_sessions| if has_sessions { Era::Legacy } else { Era::Modern })
    }

    /// A server has shown this; in which of its answers.
    pub(super) fn note_era(&self, shown: Shown, why: &str) {
        if self.era.learn(shown, Instant::now()) {
            self.log_era(why);
        }
    }

    /// A server that was known to speak 2026-07-28 has shown that it does not, or not any more: it is asked again when
    /// somebody must know.
    pub(super) fn forget_era(&self, why: &str) {
        if self.era.forget(Instant::now()) {
            self.log_era(why);
        }
    }

    fn log_era(&self, why: &str) {
        info!(event = "server.era", era = self.era.as_str(), why, "this is known of what the server speaks");
    }

    async fn ask_for_sessions(self: &Arc<Self>) {
        let begun = Instant::now();
        let why = match self.try_own(self.era_purpose(ERA_TIMEOUT)).await {
            Tried::Works(shown) => {
                self.era.note_took(begun.elapsed());
                let why = match shown {
                    Shown::ModernOnly => "it refuses initialize and has answered server/discover",
                    Shown::Sessions => "it has answered initialize",
                    Shown::Modern | Shown::NotModern => "it has answered server/discover",
                };
                self.note_era(shown, why);
                // What it was asked depends on what was known then, which may be another thing by now.
                self.era.sessions.give_up(Instant::now());
                return;
            }
            Tried::Fails(why) | Tried::Silent(why) => why,
            Tried::NotMade => NOT_STARTED.to_owned(),
        };
        if self.era.sessions.give_up(Instant::now()) {
            self.log_unknown(
                &why,
                "it is unknown which revisions the server speaks, so clients are told to start with initialize; see --era",
            );
        }
    }

    async fn ask_for_modern(self: &Arc<Self>) {
        // One that has answered the other question soon does not need long for this one: some never answer it.
        let patience = self.era.took().map_or(ERA_TIMEOUT, |took| LEAST + 2 * took);
        let why = match self.try_with(&own_discover(), self.era_purpose(patience)).await {
            Tried::Works(Shown::NotModern) => {
                let why = "its answer to server/discover does not name 2026-07-28 in supportedVersions";
                return self.note_era(Shown::NotModern, why);
            }
            Tried::Works(shown) => return self.note_era(shown, "it has answered server/discover"),
            Tried::Fails(why) => return self.note_era(Shown::NotModern, &why),
            Tried::Silent(why) => why,
            Tried::NotMade => NOT_STARTED.to_owned(),
        };
        if self.era.modern.give_up(Instant::now()) {
            self.log_unknown(
                &why,
                "the server does not say whether it speaks 2026-07-28, and has a session for clients that do; --era legacy \
                 says that it does not",
            );
        }
    }

    fn era_purpose(&self, patience: Duration) -> Purpose {
        let patience = patience.min(ERA_TIMEOUT).min(self.config.session.limits.init_timeout);
        Purpose { sid: "era", patience, may_be_warm: true }
    }

    fn log_unknown(&self, why: &str, message: &str) {
        if self.is_taking()
            && let Some(count) = UNKNOWN.take()
        {
            warn!(event = "server.era_unknown", why, count, "{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it has sessions, and whether it speaks 2026-07-28.
    fn known(era: &ServerEra) -> (Option<bool>, Option<bool>) {
        (era.sessions.known(), era.modern.known())
    }

    #[test]
    fn what_the_operator_says_no_server_changes() {
        for (given, want) in [(Era::Legacy, (true, false)), (Era::Modern, (false, true))] {
            let era = ServerEra::new(Some(given));
            let now = Instant::now();
            assert!(!era.sessions.begin(now) && !era.modern.begin(now), "nobody is asked");
            for shown in [Shown::Sessions, Shown::Modern, Shown::ModernOnly, Shown::NotModern] {
                assert!(!era.learn(shown, now), "{shown:?}");
            }
            assert!(!era.forget(now));
            assert_eq!(known(&era), (Some(want.0), Some(want.1)));
        }
    }

    #[test]
    fn a_server_that_has_opened_a_session_has_sessions_whatever_was_heard_before_and_later() {
        let era = ServerEra::new(None);
        assert!(era.sessions.begin(Instant::now()));
        assert!(era.learn(Shown::ModernOnly, Instant::now()));
        assert_eq!((known(&era), era.as_str()), ((Some(false), Some(true)), "modern"));
        assert!(era.learn(Shown::Sessions, Instant::now()), "it was asked while it could not do it");
        assert!(!era.learn(Shown::ModernOnly, Instant::now()));
        assert_eq!((known(&era), era.as_str()), ((Some(true), Some(true)), "dual"));
    }

    #[test]
    fn a_server_that_has_changed_is_asked_again() {
        let now = Instant::now();
        let only = ServerEra::new(None);
        only.learn(Shown::ModernOnly, now);
        assert!(only.forget(now) && !only.forget(now));
        assert_eq!((known(&only), only.as_str()), ((None, None), "unknown"));
        assert!(only.sessions.begin(now));

        let dual = ServerEra::new(None);
        assert!(dual.learn(Shown::Sessions, now) && dual.learn(Shown::Modern, now));
        assert!(dual.forget(now));
        assert_eq!((known(&dual), dual.as_str()), ((Some(true), None), "legacy"));
        assert!(!dual.sessions.begin(now) && dual.modern.begin(now));
        assert!(dual.learn(Shown::NotModern, now) && !dual.forget(now + PAUSE), "there is nothing to forget");
        assert!(!dual.modern.begin(now + PAUSE), "it has said it");
    }

    #[test]
    fn a_server_that_says_another_thing_each_time_is_not_asked_each_time() {
        let now = Instant::now();
        let era = ServerEra::new(None);
        assert!(era.learn(Shown::Sessions, now) && era.learn(Shown::Modern, now));
        assert!(era.forget(now));
        assert!(era.learn(Shown::Modern, now));
        assert!(!era.forget(now + PAUSE / 2), "it has just been asked for that");
        assert!(era.forget(now + PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_all_who_want_to_know_asks_and_all_hear_the_answer() {
        let era = Arc::new(ServerEra::new(None));
        assert!(era.sessions.begin(Instant::now()));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let era = Arc::clone(&era);
                tokio::spawn(
                    async move { (era.sessions.begin(Instant::now()), era.sessions.settled().await) },
                )
            })
            .collect();
        tokio::task::yield_now().await;
        era.learn(Shown::ModernOnly, Instant::now());
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), (false, Some(false)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_say_it_is_asked_again_after_a_pause() {
        let question = Question::new(None);
        assert!(question.begin(Instant::now()));
        assert!(question.give_up(Instant::now()));
        assert_eq!((question.known(), question.settled().await), (None, None));
        tokio::time::advance(PAUSE - Duration::from_secs(1)).await;
        assert!(!question.begin(Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(question.begin(Instant::now()));
    }

    #[test]
    fn a_session_that_opens_while_a_server_is_asked_has_the_last_word() {
        let era = ServerEra::new(None);
        assert!(era.sessions.begin(Instant::now()));
        assert!(era.learn(Shown::Sessions, Instant::now()));
        assert!(!era.sessions.give_up(Instant::now()), "the server that was asked said nothing");
        assert_eq!(known(&era), (Some(true), None));
    }
}
