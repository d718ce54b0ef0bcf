//! What the server speaks, as far as it decides whether clients of 2026-07-28 are served.
//!
//! It is never learnt from a session's child, which would be bound by the question: a server that is started for it is
//! asked, once, and only when somebody must know.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Sessions;
use super::sibling::{Purpose, Tried};
use crate::log_limit::SharedLogLimit;
use crate::proto::version::Era;

/// How long a server may take to answer the question at most: a client waits for it.
const ERA_TIMEOUT: Duration = Duration::from_secs(20);

/// For how long it is not asked again when it has not said it.
const PAUSE: Duration = Duration::from_secs(30);

static UNKNOWN: SharedLogLimit = SharedLogLimit::new("server.era_unknown");

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    Known(Era),
    /// A server is being asked.
    Asking,
    /// Nothing, and no server is asked until this time.
    Unknown(Option<Instant>),
}

/// The era of the server, once it is known, for all who wait for it.
#[derive(Debug)]
pub(super) struct ServerEra {
    knowledge: watch::Sender<Knowledge>,
    /// Whether the operator has said it, and nothing that a server does changes it.
    is_given: bool,
}

impl ServerEra {
    /// `given`: what the operator says.
    pub(super) fn new(given: Option<Era>) -> Self {
        let knowledge = given.map_or(Knowledge::Unknown(None), Knowledge::Known);
        Self { knowledge: watch::Sender::new(knowledge), is_given: given.is_some() }
    }

    fn known(&self) -> Option<Era> {
        match *self.knowledge.borrow() {
            Knowledge::Known(era) => Some(era),
            Knowledge::Asking | Knowledge::Unknown(_) => None,
        }
    }

    /// Whether a server is to be asked, by whoever gets this answer.
    fn begin(&self, now: Instant) -> bool {
        self.knowledge.send_if_modified(|knowledge| {
            let is_due =
                matches!(knowledge, Knowledge::Unknown(until) if until.is_none_or(|until| until <= now));
            if is_due {
                *knowledge = Knowledge::Asking;
            }
            is_due
        })
    }

    /// A server has shown what it speaks. Returns whether that is news.
    ///
    /// One that has opened a session once can do so, however it answers the question later.
    fn learn(&self, era: Era) -> bool {
        let new = Knowledge::Known(era);
        self.knowledge.send_if_modified(|knowledge| {
            let is_news = !self.is_given && *knowledge != new && *knowledge != Knowledge::Known(Era::Legacy);
            if is_news {
                *knowledge = new;
            }
            is_news
        })
    }

    /// The server that was asked has not said it. Returns whether nothing else has.
    fn give_up(&self, now: Instant) -> bool {
        self.knowledge.send_if_modified(|knowledge| {
            let is_asking = *knowledge == Knowledge::Asking;
            if is_asking {
                *knowledge = Knowledge::Unknown(Some(now + PAUSE));
            }
            is_asking
        })
    }

    /// The era, when no server is being asked any more. What may have sessions is taken to have them.
    async fn settled(&self) -> Era {
        let mut knowledge = self.knowledge.subscribe();
        match knowledge.wait_for(|knowledge| *knowledge != Knowledge::Asking).await.as_deref() {
            Ok(Knowledge::Known(era)) => *era,
            Ok(Knowledge::Asking | Knowledge::Unknown(_)) | Err(_) => Era::Legacy,
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
        let may_start = self.is_taking() && self.paused().is_none();
        if may_start && self.era.begin(Instant::now()) {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.find_era().await }); // the client may leave, and others wait
        }
        self.era.settled().await
    }

    /// The era, if it is known.
    pub(super) fn known_era(&self) -> Option<Era> {
        self.era.known()
    }

    /// A server has answered in this era; in which of its answers that showed.
    pub(super) fn note_era(&self, era: Era, why: &'static str) {
        if self.era.learn(era) {
            info!(event = "server.era", era = era.as_str(), why, "it is known what the server speaks");
        }
    }

    async fn find_era(self: &Arc<Self>) {
        let patience = ERA_TIMEOUT.min(self.config.session.limits.init_timeout);
        let purpose = Purpose { sid: "era", patience, may_be_warm: true };
        let why = match self.try_own(purpose).await {
            Tried::Works(Era::Legacy) => return self.note_era(Era::Legacy, "it has answered initialize"),
            Tried::Works(Era::Modern) => {
                return self.note_era(Era::Modern, "it refuses initialize and has answered server/discover");
            }
            Tried::Fails(why) => why,
            Tried::NotMade => "none could be started for the question".to_owned(),
        };
        if self.era.give_up(Instant::now())
            && self.is_taking()
            && let Some(count) = UNKNOWN.take()
        {
            warn!(
                event = "server.era_unknown",
                why,
                count,
                "the server does not say what it speaks, and clients are told to begin with initialize; --era says it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_says_no_server_changes() {
        for given in [Era::Legacy, Era::Modern] {
            let era = ServerEra::new(Some(given));
            assert!(!era.begin(Instant::now()), "nobody is asked");
            assert!(!era.learn(Era::Legacy) && !era.learn(Era::Modern));
            assert_eq!(era.known(), Some(given));
        }
    }

    #[test]
    fn a_server_that_has_opened_a_session_is_legacy_whatever_was_heard_before_and_later() {
        let era = ServerEra::new(None);
        assert!(era.begin(Instant::now()));
        assert!(era.learn(Era::Modern));
        assert!(era.learn(Era::Legacy), "it was asked while it could not do it");
        assert!(!era.learn(Era::Modern));
        assert_eq!(era.known(), Some(Era::Legacy));
    }

    #[tokio::test(start_paused = true)]
    async fn one_of_all_who_want_to_know_asks_and_all_hear_the_answer() {
        let era = Arc::new(ServerEra::new(None));
        assert!(era.begin(Instant::now()));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let era = Arc::clone(&era);
                tokio::spawn(async move { (era.begin(Instant::now()), era.settled().await) })
            })
            .collect();
        tokio::task::yield_now().await;
        era.learn(Era::Modern);
        for waiting in waiting {
            assert_eq!(waiting.await.unwrap(), (false, Era::Modern));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_say_it_is_taken_for_legacy_and_asked_again_after_a_pause() {
        let era = ServerEra::new(None);
        assert!(era.begin(Instant::now()));
        assert!(era.give_up(Instant::now()));
        assert_eq!((era.known(), era.settled().await), (None, Era::Legacy));
        tokio::time::advance(PAUSE - Duration::from_secs(1)).await;
        assert!(!era.begin(Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(era.begin(Instant::now()));
    }

    #[test]
    fn a_session_that_opens_while_a_server_is_asked_has_the_last_word() {
        let era = ServerEra::new(None);
        assert!(era.begin(Instant::now()));
        assert!(era.learn(Era::Legacy));
        assert!(!era.give_up(Instant::now()), "the server that was asked said nothing");
        assert_eq!(era.known(), Some(Era::Legacy));
    }
}
