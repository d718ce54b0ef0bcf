//! Children that are kept started for sessions to come.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::blame::backoff;
use super::seats::Seat;
use super::{NoSession, Sessions};
use crate::child::{Child, Process, Tag};
use crate::first_words::FirstWords;
use crate::log_limit::SharedLogLimit;
use crate::sync;

/// One comes for each session that takes one.
static WARM: SharedLogLimit = SharedLogLimit::of_sessions("child.warm");

/// A child that no session has yet, and its seat.
#[derive(Debug)]
pub(super) struct Unclaimed {
    pub(super) child: Child<Arc<FirstWords>>,
    /// Set to the name of the session that gets the child: the child's log lines carry it.
    pub(super) sid: Arc<OnceLock<String>>,
    pub(super) seat: Seat,
}

/// A child in the pool.
#[derive(Debug)]
struct WarmChild {
    unclaimed: Unclaimed,
    /// Dropped when a session takes the child: the task that watches it ends.
    _claimed: oneshot::Sender<()>,
}

/// The children that wait for a session.
#[derive(Debug, Default)]
pub(super) struct WarmPool {
    pool: Mutex<Pool>,
    /// Notified when a child has been taken while a task fills the pool.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Pool {
    /// Oldest first.
    children: VecDeque<WarmChild>,
    /// How many have died unused since a session took one.
    failures: u32,
    /// Whether a task fills the pool.
    refilling: bool,
}

impl WarmPool {
    pub(super) fn len(&self) -> usize {
        self.lock().children.len()
    }

    /// The oldest child that is alive. One that has died is removed by the task that watches it.
    pub(super) fn take(&self) -> Option<Unclaimed> {
        let mut pool = self.lock();
        let is_alive = |warm: &WarmChild| warm.unclaimed.child.process.exit.status().is_none();
        let place = pool.children.iter().position(is_alive)?;
        pool.failures = 0;
        pool.children.remove(place).map(|warm| warm.unclaimed)
    }

    /// Every child.
    pub(super) fn take_all(&self) -> Vec<Unclaimed> {
        self.lock().children.drain(..).map(|warm| warm.unclaimed).collect()
    }

    fn push(&self, child: WarmChild) {
        self.lock().children.push_back(child);
    }

    /// Removes a child that has died: how many have died unused by now. `None` if a session has taken it.
    fn remove(&self, tag: &Tag) -> Option<u32> {
        let mut pool = self.lock();
        let place = pool.children.iter().position(|warm| warm.unclaimed.child.process.tag() == tag)?;
        pool.children.remove(place);
        pool.failures += 1;
        Some(pool.failures)
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        sync::lock(&self.pool)
    }
}

impl Sessions {
    /// Starts children before the first session: its client does not wait for a process, and a command that cannot run
    /// is noticed at once.
    ///
    /// # Errors
    /// [`NoSession::Spawn`].
    pub fn prewarm(self: &Arc<Self>) -> Result<(), NoSession> {
        while self.add_warm(self.config.prewarm).map_err(NoSession::spawn)? {}
        Ok(())
    }

    /// Starts a child for the pool, unless there are `target` or none is to be started.
    fn add_warm(self: &Arc<Self>, target: usize) -> io::Result<bool> {
        if !self.is_taking() || self.paused().is_some() || self.pool.len() >= target {
            return Ok(false);
        }
        let Some(seat) = self.seats.try_take() else { return Ok(false) };
        let sid = Arc::new(OnceLock::new());
        let child = self.spawn(&[], Arc::clone(&sid), false)?;
        if let Some(count) = WARM.take() {
            info!(
                event = "child.warm",
                pid = child.process.pid(),
                count,
                "a server started in advance waits for a session"
            );
        }
        let (claimed, is_claimed) = oneshot::channel();
        tokio::spawn(watch_unused(Arc::downgrade(self), child.process.clone(), is_claimed));
        self.pool.push(WarmChild { unclaimed: Unclaimed { child, sid, seat }, _claimed: claimed });
        Ok(true)
    }

    /// Replaces children that sessions have taken, in a task: one a turn of the loop, because each holds it up for the
    /// time of a fork. One such task is enough.
    pub(super) fn refill(self: &Arc<Self>) {
        if !self.is_taking() || self.pool.len() >= self.config.warm {
            return;
        }
        if std::mem::replace(&mut self.pool.lock().refilling, true) {
            self.pool.taken.notify_one();
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let pause = match this.paused() {
                    Some(pause) => pause,
                    None => match this.add_warm(this.config.warm) {
                        Ok(true) => {
                            yield_now().await;
                            continue;
                        }
                        Ok(false) => break,
                        Err(error) => {
                            warn!(
                                event = "child.spawn_failed",
                                error = error.to_string(),
                                "a server for --warm cannot be started"
                            );
                            backoff(u32::MAX) // a resource is lacking: no client waits, so the longest pause
                        }
                    },
                };
                // A session that starts meanwhile is a sign that the next try may succeed.
                let _ = timeout(pause, this.pool.taken.notified()).await;
            }
            this.pool.lock().refilling = false;
        });
    }
}

/// Removes a child that ended before a session took it, and replaces it after a pause if children are kept warm.
async fn watch_unused(sessions: Weak<Sessions>, mut process: Process, is_claimed: oneshot::Receiver<()>) {
    let status = tokio::select! {
        status = process.exit.wait() => status.to_string(),
        _ = is_claimed => return,
    };
    let Some(sessions) = sessions.upgrade() else { return };
    let Some(failures) = sessions.pool.remove(process.tag()) else { return };
    sessions.clear(&process).await;
    warn!(
        event = "child.exit",
        phase = "before_session",
        pid = process.pid(),
        status = &*status,
        "a server exited before a session used it"
    );
    sessions.note_unused();
    sleep(backoff(failures)).await;
    sessions.refill();
}
