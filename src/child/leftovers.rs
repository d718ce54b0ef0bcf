//! What ended children have left running outside of their process groups: found, and killed.
//!
//! Its tag says whose it is. Where that cannot be read, because the process has cleared its environment or is not dumpable
//! (ssh-agent is not), its age does: what is older than every child that lives was started by one that does not.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::warn;

use super::command::{TAG_VARIABLE, Tag};
use super::process::Process;
use crate::log_limit::SharedLogLimit;
use crate::reaper::Reaper;
use crate::sync;

/// A server can leave as many as it likes.
static LEFTOVERS: SharedLogLimit = SharedLogLimit::of_sessions("child.leftover");

/// How many orphans are looked at in one turn of the loop. Each costs the read of a file in /proc, and sessions that have
/// nothing to do with it wait meanwhile.
const PER_TURN: usize = 16;

/// How many times, and how far apart, a child's leftovers are looked for.
const ROUNDS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// So many rounds in a row without leftovers are the end: members of the killed group may not be reaped yet, and what
/// they have started not yet ours.
const CLEAN_ROUNDS: u32 = 2;

/// Kills leftovers. Each round serves all children that have ended meanwhile. Clones share their state.
#[derive(Clone, Debug)]
pub struct Leftovers<S = Reaper> {
    system: S,
    searches: Arc<Mutex<Searches>>,
}

#[derive(Debug, Default)]
struct Searches {
    of: HashMap<Tag, Search>,
    /// Whether a task is running the searches.
    running: bool,
}

#[derive(Debug)]
struct Search {
    /// The child, for the log.
    pid: i32,
    rounds: u32,
    clean: u32,
    /// Dropped when the search is over.
    _over: oneshot::Sender<()>,
}

/// What is asked of the system.
trait System: Clone + Send + Sync + 'static {
    /// Processes that became ours when their parents ended.
    fn orphans(&self) -> Vec<Pid>;
    /// The environment that a process was started with, variables ended by zero bytes; empty if it is gone or does not
    /// show it.
    fn environment(&self, pid: Pid) -> Vec<u8>;
    /// When a process was started, in ticks of a clock that all have in common; `None` if it has ended.
    fn start(&self, pid: Pid) -> Option<u64>;
    /// When the oldest child that lives was started, after all time if there is none: an orphan that was started before
    /// descends from a child that has ended. `None` if that is not so, or not known.
    fn oldest_child(&self) -> Option<u64>;
    /// Kills the process, and its group if it leads one.
    fn kill(&self, pid: Pid);
}

impl System for Reaper {
    fn orphans(&self) -> Vec<Pid> {
        Reaper::orphans(self)
    }

    fn environment(&self, pid: Pid) -> Vec<u8> {
        std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
    }

    fn start(&self, pid: Pid) -> Option<u64> {
        // Everybody may read it. The name in parentheses may itself have some; the 22nd field is the 20th behind it (proc(5)).
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
    }

    fn oldest_child(&self) -> Option<u64> {
        match self.oldest() {
            _ if self.has_strangers() => None,
            Some(child) => self.start(child),
            None => Some(u64::MAX),
        }
    }

    fn kill(&self, pid: Pid) {
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = kill(pid, Signal::SIGKILL);
    }
}

impl Leftovers {
    pub fn new(reaper: Reaper) -> Self {
        Self { system: reaper, searches: Arc::default() }
    }

    /// Kills what a child that has ended left running. Returns when nothing is left, or does not die.
    pub async fn kill(&self, child: &Process) {
        self.search(child.tag(), child.pid()).await;
    }
}

#[allow(private_bounds, reason = "the parameter is for tests")]
impl<S: System> Leftovers<S> {
    async fn search(&self, tag: &Tag, pid: i32) {
        let (over, is_over) = oneshot::channel();
        let is_first = {
            let mut searches = sync::lock(&self.searches);
            searches.of.insert(tag.clone(), Search { pid, rounds: 0, clean: 0, _over: over });
            !std::mem::replace(&mut searches.running, true)
        };
        if is_first {
            tokio::spawn(self.clone().run());
        }
        let _ = is_over.await;
    }

    /// Round after round, until no search is left.
    async fn run(self) {
        loop {
            let of: HashMap<Tag, i32> = {
                let searches = sync::lock(&self.searches);
                searches.of.iter().map(|(tag, search)| (tag.clone(), search.pid)).collect()
            };
            let found = self.round(&of).await;
            {
                let mut searches = sync::lock(&self.searches);
                searches.of.retain(|tag, search| {
                    if of.contains_key(tag) {
                        search.rounds += 1;
                        search.clean = if found.contains(tag) { 0 } else { search.clean + 1 };
                    }
                    search.clean < CLEAN_ROUNDS && search.rounds < ROUNDS
                });
                if searches.of.is_empty() {
                    searches.running = false;
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Looks at each orphan once and kills those that carry one of the tags, or are of no living child. Returns the tags
    /// that were found, all of them for the latter.
    async fn round(&self, of: &HashMap<Tag, i32>) -> HashSet<Tag> {
        let mut found = HashSet::new();
        let oldest = self.system.oldest_child(); // a child that starts during the round is younger than these orphans
        for (place, pid) in self.system.orphans().into_iter().enumerate() {
            if place > 0 && place % PER_TURN == 0 {
                yield_now().await;
            }
            // No await between look and kill: the pid cannot be given to another process before the reaper has run.
            let environment = self.system.environment(pid);
            let tagged = tags(&environment).find_map(|tag| of.get_key_value(tag));
            let is_older =
                || self.system.start(pid).zip(oldest).is_some_and(|(start, oldest)| start < oldest);
            if tagged.is_none() && !is_older() {
                continue;
            }
            if let Some(count) = LEFTOVERS.take() {
                warn!(
                    event = "child.leftover",
                    pid = pid.as_raw(),
                    child = tagged.map(|(_, child)| child),
                    count,
                    "a process that a server started and left behind is killed"
                );
            }
            self.system.kill(pid);
            match tagged {
                Some((tag, _)) => drop(found.insert(tag.clone())),
                None => found.extend(of.keys().cloned()),
            }
        }
        found
    }
}

/// The tags in an environment. They are those of the child that a process descends from, unless it has changed its
/// environment (proc(5)).
fn tags(environment: &[u8]) -> impl Iterator<Item = &str> {
    let variables = environment.split(|byte| *byte == 0);
    let values =
        variables.filter_map(|variable| variable.strip_prefix(TAG_VARIABLE.as_bytes())?.strip_prefix(b"="));
    values.filter_map(|value| str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    /// Orphans with their environments; those that are killed are gone, but for what cannot be killed.
    #[derive(Clone, Default)]
    struct Orphans(Arc<State>);

    #[derive(Default)]
    struct State {
        live: Mutex<HashMap<i32, Vec<u8>>>,
        /// Becomes an orphan when the process of this number is killed.
        heirs: Mutex<HashMap<i32, i32>>,
        immortal: AtomicBool,
        /// How many environments have been read.
        looks: AtomicUsize,
        /// The children that live. The number of a process is the moment of its start.
        living: Mutex<Vec<i32>>,
        has_strangers: AtomicBool,
    }

    impl Orphans {
        fn add(&self, pid: i32, tag: &str) {
            let environment = format!("A=1\0{TAG_VARIABLE}={tag}\0Z=2\0").into_bytes();
            sync::lock(&self.0.live).insert(pid, environment);
        }

        fn left(&self) -> Vec<i32> {
            let mut left: Vec<i32> = sync::lock(&self.0.live).keys().copied().collect();
            left.sort_unstable();
            left
        }

        fn looks(&self) -> usize {
            self.0.looks.load(Ordering::Relaxed)
        }
    }

    impl System for Orphans {
        fn orphans(&self) -> Vec<Pid> {
            self.left().into_iter().map(Pid::from_raw).collect()
        }

        fn environment(&self, pid: Pid) -> Vec<u8> {
            self.0.looks.fetch_add(1, Ordering::Relaxed);
            sync::lock(&self.0.live).get(&pid.as_raw()).cloned().unwrap_or_default()
        }

        fn start(&self, pid: Pid) -> Option<u64> {
            u64::try_from(pid.as_raw()).ok()
        }

        fn oldest_child(&self) -> Option<u64> {
            let oldest =
                sync::lock(&self.0.living).iter().min().map_or(u64::MAX, |pid| pid.unsigned_abs().into());
            (!self.0.has_strangers.load(Ordering::Relaxed)).then_some(oldest)
        }

        fn kill(&self, pid: Pid) {
            if self.0.immortal.load(Ordering::Relaxed) {
                return;
            }
            let environment = sync::lock(&self.0.live).remove(&pid.as_raw()).unwrap_or_default();
            if let Some(heir) = sync::lock(&self.0.heirs).remove(&pid.as_raw()) {
                sync::lock(&self.0.live).insert(heir, environment);
            }
        }
    }

    fn leftovers(orphans: &Orphans) -> Leftovers<Orphans> {
        Leftovers { system: orphans.clone(), searches: Arc::default() }
    }

    #[tokio::test]
    async fn sixty_four_children_that_end_at_once_cost_their_neighbours_a_bounded_look_a_turn() {
        const ENDED: usize = 64;
        const OTHERS: usize = 200;
        let orphans = Orphans::default();
        (0..OTHERS).for_each(|pid| orphans.add(1000 + i32::try_from(pid).unwrap(), "another"));
        sync::lock(&orphans.0.living).push(999); // whose they are
        let leftovers = leftovers(&orphans);
        let mut ended = JoinSet::new();
        for child in 0..ENDED {
            let (leftovers, tag) = (leftovers.clone(), format!("child {child}"));
            orphans.add(i32::try_from(child).unwrap(), &tag);
            ended.spawn(async move { leftovers.search(&Tag::of(&tag), 1).await });
        }
        let (mut before, mut most) = (0, 0);
        while !ended.is_empty() {
            yield_now().await; // a neighbour's turn
            while ended.try_join_next().is_some() {}
            most = most.max(orphans.looks() - before);
            before = orphans.looks();
        }
        assert!(most <= PER_TURN, "{most} looks between two turns of a neighbour");
        // One round that finds them and two that find nothing, and one that a late comer has missed: not 64 times that.
        let looks = orphans.looks();
        assert!(looks <= 4 * (OTHERS + ENDED), "{looks} looks");
        assert_eq!(orphans.left().len(), OTHERS, "those of a child that lives are not touched");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_leftover_has_started_is_killed_after_it() {
        let orphans = Orphans::default();
        orphans.add(7, "child");
        sync::lock(&orphans.0.heirs).extend([(7, 8), (8, 9)]);
        leftovers(&orphans).search(&Tag::of("child"), 1).await;
        assert!(orphans.left().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leftover_that_does_not_die_is_given_up_and_no_task_is_left() {
        let orphans = Orphans::default();
        orphans.add(7, "child");
        orphans.0.immortal.store(true, Ordering::Relaxed);
        let leftovers = leftovers(&orphans);
        leftovers.search(&Tag::of("child"), 1).await;
        assert_eq!(orphans.looks(), ROUNDS as usize);
        let searches = sync::lock(&leftovers.searches);
        assert!(searches.of.is_empty() && !searches.running);
    }

    #[tokio::test(start_paused = true)]
    async fn what_shows_no_tag_is_killed_when_it_is_older_than_every_child_that_lives() {
        let orphans = Orphans::default();
        let hidden = |pid| drop(sync::lock(&orphans.0.live).insert(pid, Vec::new()));
        [5, 15, 16, 25].into_iter().for_each(hidden);
        sync::lock(&orphans.0.living).extend([30, 16]);
        let leftovers = leftovers(&orphans);
        orphans.0.has_strangers.store(true, Ordering::Relaxed);
        leftovers.search(&Tag::of("child"), 1).await;
        assert_eq!(orphans.left(), [5, 15, 16, 25], "they may be of nobody's");
        orphans.0.has_strangers.store(false, Ordering::Relaxed);
        leftovers.search(&Tag::of("child"), 1).await;
        assert_eq!(orphans.left(), [16, 25], "those may be of the child that is as old or older");
        sync::lock(&orphans.0.living).pop();
        leftovers.search(&Tag::of("another"), 1).await;
        assert!(orphans.left().is_empty());
    }

    #[test]
    fn a_tag_is_a_whole_variable() {
        let of = |text: &str| tags(text.as_bytes()).map(str::to_owned).collect::<Vec<_>>();
        let (name, none) = (TAG_VARIABLE, Vec::<String>::new());
        assert_eq!(of(&format!("{name}=a\0X{name}=b\0{name}X=c\0{name}=d")), ["a", "d"]);
        assert_eq!([of(""), of(name), of(&format!("X={name}=a"))], [none.clone(), none.clone(), none]);
    }
}
