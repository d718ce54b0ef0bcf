//! Whose fault it is that starts fail. A server that ends on what one client sends is that client's trouble; a server that
//! ends whatever it gets is everybody's, and only then is nobody served and is the bridge not ready.
//!
//! Clients can send other words each time, so what they send proves nothing about the server however often it fails. What
//! does: a child that ended before any client's word reached it, and a trial, in which the bridge starts a child of its own
//! with a handshake that has worked before (see `trial.rs`).

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::link::era_of;
use crate::proto::message::Request;
use crate::proto::version::Era;
use crate::secret::Digest;

/// So many starts that fail within this time are a crash loop.
const CRASHES: (usize, Duration) = (5, Duration::from_secs(30));

/// The first and the longest pause between two starts while each fails.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a trial speaks for the server.
const TRIAL: Duration = Duration::from_secs(30);

/// How many causes are remembered that fail, and how many that have worked; beyond that the oldest is forgotten.
const REMEMBERED: usize = 1024;

/// The longest `initialize` that is kept for a trial, in bytes.
const MAX_KEPT: usize = 16 * 1024;

/// Where a trial proves nothing, because the server needs variables from its clients' headers: if what so many different
/// clients say has worked and fails now, and nothing has worked since, it is not them.
const CLIENTS: usize = 3;

/// What a child is started for: who asks for it and with which words.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// All that its client does to the child: `initialize` without its id, and the variables from the client's headers;
    /// of this caller.
    pub(super) words: Digest,
    /// Whom it is counted for where places are shared out: the caller, or where nobody has a token, the words.
    pub(super) group: Digest,
    /// The caller and the variables.
    who: Digest,
    /// What the child speaks, if it answers.
    pub(super) era: Era,
}

impl Cause {
    pub(super) fn of(
        caller: Option<Digest>,
        initialize: &Request,
        environment: &[(OsString, OsString)],
    ) -> Self {
        let (text, id) = (initialize.text(), initialize.id_span());
        let (before, behind) = (text.get(..id.start), text.get(id.end..));
        let token = caller.as_ref().map_or(&[] as &[u8], |caller| caller.as_bytes());
        let variables = environment.iter().flat_map(|(name, value)| [name, value]);
        let variables = variables.map(|text| text.as_encoded_bytes());
        let who = Digest::of_all([token].into_iter().chain(variables));
        let words = Digest::of_all([who.as_bytes(), before.unwrap_or_default(), behind.unwrap_or_default()]);
        Self { words, group: caller.unwrap_or(words), who, era: era_of(initialize) }
    }
}

/// What follows from a start that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Nothing,
    /// No child is started for this cause for so long.
    PauseOfOne(Duration),
    /// No child is started at all for so long.
    PauseOfAll(Duration),
}

/// For how long no child is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// For this cause, because each start with it fails.
    One(Duration),
    /// For nobody, because all starts fail.
    All(Duration),
}

/// What is known of the starts so far.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// Whether a child can be started without any client.
    has_trials: bool,
    /// The failures that no client has caused.
    nobody: Crashes,
    /// The failures of causes that fail, and when each failed last.
    failing: Recent<Crashes>,
    /// The causes that have worked.
    worked: Recent<()>,
    /// When starts that clients asked for failed last.
    failures: VecDeque<Instant>,
    /// The same, since one succeeded.
    in_a_row: VecDeque<Instant>,
    /// Whose words had worked and have failed since anything succeeded.
    turned: Vec<Digest>,
    /// When the last trial began; it counts for [`TRIAL`].
    tried: Option<Instant>,
    /// Whether a child that no client has harmed failed to start, and none has started since.
    is_broken: bool,
    /// Whether somebody tries the server again and again because of that.
    is_watched: bool,
    /// Whether a trial goes on, and no client has had a child since it began.
    trying: bool,
    /// The `initialize` that worked last.
    last_good: Option<Request>,
}

impl Blame {
    /// Nothing yet. `has_trials`: a child can be started without any client's headers.
    pub(super) fn new(has_trials: bool) -> Self {
        Self { has_trials, ..Self::default() }
    }

    /// For how long no child is to be started at all.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        self.nobody.pause(now)
    }

    /// For how long no child is to be started for this cause.
    pub(super) fn check(&self, cause: &Cause, now: Instant) -> Option<Pause> {
        let of_one = || self.failing.get(&cause.words)?.pause(now).map(Pause::One);
        self.nobody.pause(now).map(Pause::All).or_else(of_one)
    }

    /// Whether a start of this cause may take what others could need: it has worked, or nothing that would show that
    /// causes like it fail has happened `lately`.
    pub(super) fn is_trusted(&self, cause: &Cause, lately: Lately, now: Instant) -> bool {
        let (count, within) = CRASHES;
        let wanted = if lately == Lately::One { 1 } else { count };
        let recent = self.failures.iter().rev().take_while(|at| now < **at + within).count();
        recent < wanted || self.has_worked(cause)
    }

    /// Whether a start of this cause has succeeded.
    pub(super) fn has_worked(&self, cause: &Cause) -> bool {
        self.worked.get(&cause.words).is_some()
    }

    /// A child has answered a client's `initialize`.
    pub(super) fn succeeded(&mut self, cause: &Cause, initialize: Option<Request>, now: Instant) {
        self.nobody = Crashes::default();
        self.is_broken = false;
        self.in_a_row.clear();
        self.turned.clear();
        self.trying = false;
        self.failing.remove(&cause.words);
        self.worked.insert(cause.words, now);
        if initialize.is_some() {
            self.last_good = initialize;
        }
    }

    /// The same in a buffer of its own, if a trial may ask it again.
    pub(super) fn kept(&self, initialize: &Request) -> Option<Request> {
        (self.has_trials && initialize.text().len() <= MAX_KEPT).then(|| initialize.detached())
    }

    /// A child that a client asked for failed. `serving`: other children serve, so it can't be the server.
    pub(super) fn failed(&mut self, cause: &Cause, serving: bool, now: Instant) -> Verdict {
        push(&mut self.failures, now);
        push(&mut self.in_a_row, now);
        if self.has_worked(cause) && !self.turned.contains(&cause.who) && self.turned.len() < CLIENTS {
            self.turned.push(cause.who);
        }
        if !self.has_trials
            && self.turned.len() == CLIENTS
            && !serving
            && let Some(pause) = self.nobody.failed(now)
        {
            return Verdict::PauseOfAll(pause);
        }
        let Some(pause) = self.failing.insert(cause.words, now).failed(now) else { return Verdict::Nothing };
        self.worked.remove(&cause.words); // it does not any more
        Verdict::PauseOfOne(pause)
    }

    /// A child has answered a client's `initialize` with an error. Its client is told what it says each time, so this alone
    /// begins no pause. Returns whether it is time for a trial, which then begins.
    pub(super) fn refused(&mut self, serving: bool, now: Instant) -> bool {
        push(&mut self.in_a_row, now);
        let never_worked = self.last_good.is_none();
        self.begin_trial_if(never_worked, serving, now)
    }

    /// A child ended of which no client had asked anything. Returns the pause that begins.
    pub(super) fn failed_by_itself(&mut self, serving: bool, now: Instant) -> Option<Duration> {
        if serving {
            return None;
        }
        self.is_broken = true;
        self.nobody.failed(now)
    }

    /// Whether a child that no client has harmed failed to start, and none has started since.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Whether somebody is needed to try the server again and again, who then must do it.
    pub(super) fn begin_watch(&mut self) -> bool {
        self.has_trials && self.is_broken && !std::mem::replace(&mut self.is_watched, true)
    }

    /// Whether the one who tries the server is needed no longer.
    pub(super) fn end_watch(&mut self) -> bool {
        self.is_watched = self.is_broken;
        !self.is_broken
    }

    /// Begins a trial of a server that is known not to start. It begins no pause: a client that comes is told what happens.
    pub(super) fn begin_watched_trial(&mut self, now: Instant) -> bool {
        let due = self.is_broken && !self.trying;
        if due {
            self.tried = Some(now);
        }
        due
    }

    /// Whether it is time for a trial, which then begins.
    pub(super) fn begin_trial(&mut self, serving: bool, now: Instant) -> bool {
        self.begin_trial_if(false, serving, now)
    }

    fn begin_trial_if(&mut self, is_suspect: bool, serving: bool, now: Instant) -> bool {
        let looping = self.nobody.pauses > 0;
        let (count, within) = CRASHES;
        let first = self.in_a_row.front().filter(|_| self.in_a_row.len() == count);
        let suspected = is_suspect || looping || first.is_some_and(|first| now <= *first + within);
        let spoken = self.tried.is_some_and(|tried| now < tried + TRIAL) && !looping;
        let due = self.has_trials
            && !self.trying
            && suspected
            && !spoken
            && !serving
            && self.nobody.pause(now).is_none();
        if due {
            (self.tried, self.trying) = (Some(now), true);
        }
        due
    }

    /// With which `initialize` a trial is to be made before that of the bridge itself.
    pub(super) fn last_good(&self) -> Option<Request> {
        self.last_good.clone()
    }

    /// How the trial ended; `None`: it could not be made. Returns the pause that begins.
    pub(super) fn tried(&mut self, works: Option<bool>, serving: bool, now: Instant) -> Option<Duration> {
        let counts = std::mem::take(&mut self.trying);
        match works {
            Some(true) => {
                self.nobody = Crashes::default();
                self.is_broken = false;
                self.in_a_row.clear();
                None
            }
            Some(false) if counts && !serving => {
                self.is_broken = true;
                self.nobody.begin_pause(now)
            }
            _ => None,
        }
    }
}

/// Notes one more of as many as make a crash loop.
fn push(failures: &mut VecDeque<Instant>, now: Instant) {
    failures.push_back(now);
    if failures.len() > CRASHES.0 {
        failures.pop_front();
    }
}

/// How much must have failed in the last half minute for a cause that has not worked to be suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lately {
    One,
    /// As many as make a crash loop.
    Many,
}

/// Starts that failed since one succeeded.
#[derive(Debug, Default)]
struct Crashes {
    /// When the newest of them failed, at most as many as make a crash loop.
    recent: VecDeque<Instant>,
    /// How many pauses there have been.
    pauses: u32,
    /// When the newest pause ends.
    until: Option<Instant>,
}

impl Crashes {
    fn pause(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|pause| !pause.is_zero())
    }

    /// Returns the pause, if this failure begins one.
    fn failed(&mut self, now: Instant) -> Option<Duration> {
        if self.pause(now).is_some() {
            return None; // it was started before the pause, and says nothing new
        }
        let (count, within) = CRASHES;
        self.recent.push_back(now);
        while self.recent.len() > count {
            self.recent.pop_front();
        }
        let first = self.recent.front().copied();
        let looping = self.recent.len() == count && first.is_some_and(|first| now - first <= within);
        // In a crash loop each further failure continues it, however far apart the failures are.
        if looping || self.pauses > 0 { self.begin_pause(now) } else { None }
    }

    fn begin_pause(&mut self, now: Instant) -> Option<Duration> {
        if self.pause(now).is_some() {
            return None;
        }
        self.pauses += 1;
        let pause = backoff(self.pauses);
        self.until = Some(now + pause);
        Some(pause)
    }
}

/// A few digests and what is known of each; the one that was touched longest ago makes room.
#[derive(Debug)]
struct Recent<T>(HashMap<Digest, (Instant, T)>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Default> Recent<T> {
    fn get(&self, digest: &Digest) -> Option<&T> {
        self.0.get(digest).map(|(_, known)| known)
    }

    fn insert(&mut self, digest: Digest, now: Instant) -> &mut T {
        if self.0.len() >= REMEMBERED
            && !self.0.contains_key(&digest)
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(digest, _)| *digest)
        {
            self.0.remove(&oldest);
        }
        let (at, known) = self.0.entry(digest).or_insert_with(|| (now, T::default()));
        *at = now;
        known
    }

    fn remove(&mut self, digest: &Digest) {
        self.0.remove(digest);
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
    use tokio::time::advance;

    fn cause(words: &str) -> Cause {
        Cause::of(None, &Request::own("initialize", words), &[])
    }

    fn of_token(token: &str, words: &str) -> Cause {
        Cause::of(
            Some(Digest::of(b"all")),
            &Request::own("initialize", words),
            &[("TOKEN".into(), token.into())],
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_fifth_failure_within_thirty_seconds_begins_a_pause_and_a_success_ends_it() {
        let now = Instant::now();
        let mut crashes = Crashes::default();
        for _ in 0..4 {
            assert_eq!(crashes.failed(now), None);
        }
        assert_eq!(crashes.pause(now), None);
        let pause = crashes.failed(now).expect("a loop");
        assert!(pause <= Duration::from_secs(1), "{pause:?}");
        if let Some(left) = crashes.pause(now) {
            assert_eq!(left, pause);
            assert_eq!(crashes.failed(now), None, "it was started before the pause");
        }
        let now = now + Duration::from_secs(3600);
        assert_eq!(crashes.pause(now), None, "the next may be tried");
        assert!(crashes.failed(now).is_some(), "a failure after the pause is the same loop");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_are_no_loop() {
        let mut crashes = Crashes::default();
        for _ in 0..20 {
            assert_eq!(crashes.failed(Instant::now()), None);
            advance(Duration::from_secs(8)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_client_sends_is_that_clients_trouble() {
        let mut blame = Blame::new(true);
        let now = Instant::now();
        let (bad, good) = (cause(r#"{"a":1}"#), cause(r#"{"a":2}"#));
        let verdicts: Vec<_> = (0..5).map(|_| blame.failed(&bad, false, now)).collect();
        assert!(matches!(verdicts[4], Verdict::PauseOfOne(_)), "{verdicts:?}");
        assert_eq!((blame.pause(now), blame.check(&good, now)), (None, None));
        // The id is no word of the client's, and a pause may have been drawn short.
        let again = std::iter::repeat_with(|| blame.failed(&bad, false, now)).take(1000);
        assert!(again.last().is_some_and(|last| last == Verdict::Nothing));
        assert!(matches!(blame.check(&bad, now), Some(Pause::One(_))));
        blame.succeeded(&bad, None, now);
        assert_eq!(blame.check(&bad, now), None);
        assert!(blame.has_worked(&bad));
        for _ in 0..5 {
            blame.failed(&bad, false, now);
        }
        assert!(!blame.has_worked(&bad), "it worked once, and is preferred no longer");
    }

    #[tokio::test(start_paused = true)]
    async fn other_words_each_time_are_never_everybodys_trouble_and_fill_no_memory() {
        let mut blame = Blame::new(true);
        let good = cause("{}");
        blame.succeeded(&good, None, Instant::now());
        for number in 0..2000 {
            let now = Instant::now();
            blame.failed(&cause(&format!(r#"{{"a":{number}}}"#)), false, now);
            if blame.begin_trial(false, now) {
                assert_eq!(blame.tried(Some(true), false, now), None);
            }
            assert_eq!((blame.pause(now), blame.check(&good, now)), (None, None));
            advance(Duration::from_millis(30)).await;
        }
        assert!(blame.failing.0.len() <= REMEMBERED);
        let now = Instant::now();
        assert!(blame.is_trusted(&good, Lately::One, now), "it has worked");
        assert!(!blame.is_trusted(&cause(r#"{"new":1}"#), Lately::Many, now));
        advance(Duration::from_secs(31)).await;
        assert!(blame.is_trusted(&cause(r#"{"new":1}"#), Lately::One, Instant::now()), "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_comes_after_five_failures_in_a_row_and_one_in_half_a_minute_is_enough() {
        let mut blame = Blame::new(true);
        let now = Instant::now();
        let fail = |blame: &mut Blame, now| {
            blame.failed(&cause("{}"), false, now);
        };
        (0..4).for_each(|_| fail(&mut blame, now));
        assert!(!blame.begin_trial(false, now));
        fail(&mut blame, now);
        assert!(!blame.begin_trial(true, now), "a session serves: it is not the server");
        assert!(blame.begin_trial(false, now));
        assert!(!blame.begin_trial(false, now), "it goes on");
        assert!(blame.tried(Some(false), false, now).is_some(), "the server does not start");
        let later = now + Duration::from_secs(2);
        assert!(blame.begin_trial(false, later), "in a crash loop each failure is a reason");
        blame.tried(Some(true), false, later);
        fail(&mut blame, later);
        assert!(!blame.begin_trial(false, later), "it works: one failure says nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_trial_can_be_made_three_clients_whose_words_had_worked_show_that_it_is_the_server() {
        let mut blame = Blame::new(false);
        let now = Instant::now();
        let fail = |blame: &mut Blame, cause: &Cause| {
            (0..20).map(|_| blame.failed(cause, false, now)).any(|v| matches!(v, Verdict::PauseOfAll(_)))
        };
        for token in ["a", "b", "c"] {
            blame.succeeded(&of_token(token, "{}"), None, now);
        }
        blame.succeeded(&of_token("a", r#"{"other":1}"#), None, now);
        blame.succeeded(&of_token("a", r#"{"third":1}"#), None, now);
        for words in ["{}", r#"{"other":1}"#, r#"{"third":1}"#] {
            assert!(!fail(&mut blame, &of_token("a", words)), "a token that has run out");
        }
        for number in 0..100 {
            assert!(!fail(&mut blame, &of_token(&format!("never worked {number}"), "{}")));
        }
        assert!(!fail(&mut blame, &of_token("b", "{}")));
        assert!(fail(&mut blame, &of_token("c", "{}")));
        assert!(blame.pause(now).is_some() || blame.nobody.pauses > 0);
        assert!(!blame.begin_trial(false, now));
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_session_serves_nothing_begins_a_pause_of_all() {
        let mut blame = Blame::new(true);
        let now = Instant::now();
        assert!((0..20).all(|_| blame.failed_by_itself(true, now).is_none()));
        for _ in 0..5 {
            blame.failed(&cause("{}"), false, now);
        }
        assert!(blame.begin_trial(false, now));
        assert_eq!(blame.tried(Some(false), true, now), None, "a session serves by now");
        for _ in 0..5 {
            blame.failed(&cause("{}"), false, now);
        }
        let later = now + TRIAL;
        for _ in 0..5 {
            blame.failed(&cause("{}"), false, later);
        }
        assert!(blame.begin_trial(false, later));
        blame.succeeded(&cause(r#"{"good":1}"#), None, later);
        assert_eq!(blame.tried(Some(false), false, later), None, "a client has had a child by now");
        assert!((0..20).any(|_| blame.failed_by_itself(false, now).is_some()));
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
