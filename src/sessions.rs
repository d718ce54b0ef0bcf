//! Which sessions exist. Starts them, each with a child of its own, and sees their children out.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::child::{Child, Command, Process, TERM_GRACE};
use crate::memory;
use crate::proto::front::Takes;
use crate::proto::ids::SessionId;
use crate::proto::message::Request;
use crate::reaper::{Reaper, Status};
use crate::secret::Digest;
use crate::session::stream::Reader;
use crate::session::worker::Worker;
use crate::session::{self, End, ExitStatus, Session, Stats};

mod ahead;
mod keeper;
mod keys;
mod spawning;
mod stderr;

use ahead::{Ahead, Started};
use keeper::Keeper;
use spawning::{Spawning, Start, jittered};

/// How many ended sessions are remembered, so that a late client is told why its session is gone.
const REMEMBERED: usize = 1024;

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many sessions, and so children, there may be. A child that is on its way out still counts.
    pub max_sessions: usize,
    /// What session ids begin with.
    pub replica: Option<String>,
    /// How many children are started ahead of the first session.
    pub ahead: usize,
    /// How many are kept started for sessions to come, then.
    pub warm: usize,
    /// Whether the longest idle session is ended when all are taken and one more is wanted.
    pub evict: bool,
    /// How many children may be starting at once.
    pub max_starting: usize,
    /// How long a child may take to leave after its stdin ended, before it gets SIGTERM.
    pub stop_grace: Duration,
    /// The same while the bridge itself is stopping.
    pub shutdown_grace: Duration,
    /// For each session.
    pub session: session::Config,
}

/// What opens a session.
#[derive(Debug)]
pub struct Opening {
    /// The client's `initialize`; its answer comes to the session's first reader.
    pub initialize: Request,
    /// What the stream of the answer may carry.
    pub takes: Takes,
    /// Whose session it will be; nobody else will find it.
    pub owner: Option<Digest>,
    /// What is added to the child's environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// Why no session was started.
#[derive(Debug)]
pub enum NoSession {
    /// This many sessions exist.
    Full(usize),
    /// The bridge is stopping.
    Draining,
    /// Servers fail at their start one after the other; for this time none is started.
    Crashing(Duration),
    /// The child could not be started.
    Spawn {
        /// What the system said.
        error: io::Error,
        /// Whether it was for want of a resource and may work later: processes, descriptors, memory.
        resource: bool,
    },
}

impl NoSession {
    fn spawn(error: io::Error) -> Self {
        use nix::errno::Errno;
        // ENOSPC is what epoll_ctl(2) says when a user watches too much.
        let wanting = [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ENOSPC];
        let resource = error.raw_os_error().is_some_and(|raw| wanting.contains(&Errno::from_raw(raw)));
        Self::Spawn { error, resource }
    }
}

/// What is known of a session id.
#[derive(Debug)]
pub enum Found {
    /// The session is there.
    Live(Session),
    /// It has ended.
    Ended(End),
    /// There never was one, or it is long gone.
    Unknown,
}

/// All sessions of the bridge.
#[derive(Debug)]
pub struct Sessions {
    config: Config,
    command: Command,
    reaper: Reaper,
    seats: Arc<Semaphore>,
    spawning: Spawning,
    draining: watch::Sender<bool>,
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    live: HashMap<SessionId, Owned<Session>>,
    /// All children by their pid, so that an impatient operator can end them at once.
    processes: HashMap<i32, Process>,
    /// Which session a key names.
    keys: HashMap<Digest, SessionId>,
    /// Keys whose sessions are being started.
    starting: HashMap<Digest, keys::Turn>,
    ended: HashMap<SessionId, Owned<End>>,
    ended_order: VecDeque<SessionId>,
    ahead: Ahead,
    /// Whether children are to be started ahead when a pause is over.
    refilling: bool,
    /// How many sessions have ended whose children are still leaving.
    leaving: usize,
    /// How many clients wait for a seat.
    waiting: usize,
}

/// Something that is only there for its owner.
#[derive(Debug)]
struct Owned<T> {
    owner: Option<Digest>,
    it: T,
}

impl<T> Owned<T> {
    fn show(&self, caller: Option<Digest>) -> Option<&T> {
        (self.owner == caller).then_some(&self.it)
    }
}

impl Registry {
    fn sessions(&self) -> Vec<Session> {
        self.live.values().map(|owned| owned.it.clone()).collect()
    }
}

/// A client that waits for a seat.
struct Waiting<'s>(&'s Sessions);

impl<'s> Waiting<'s> {
    fn new(sessions: &'s Sessions) -> Self {
        sessions.lock().waiting += 1;
        Self(sessions)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

impl Sessions {
    /// No sessions yet.
    pub fn new(config: Config, command: Command, reaper: Reaper) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(config.max_sessions));
        let spawning = Spawning::new(config.max_starting);
        let draining = watch::Sender::new(false);
        Arc::new(Self { config, command, reaper, seats, spawning, draining, registry: Mutex::default() })
    }

    /// Starts children ahead of the first session: its client does not wait for a process, and a command that cannot
    /// run is noticed at once.
    ///
    /// # Errors
    /// [`NoSession::Spawn`].
    pub fn start_ahead(self: &Arc<Self>) -> Result<(), NoSession> {
        self.fill(self.config.ahead).map_err(NoSession::spawn)
    }

    /// Starts children until so many wait for a session, as far as there are seats.
    fn fill(self: &Arc<Self>, target: usize) -> io::Result<()> {
        while self.is_ready() && self.lock().ahead.len() < target {
            let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else { break };
            let sid = Arc::new(OnceLock::new());
            let child = self.spawn(&[], Arc::clone(&sid))?;
            info!(event = "child.ahead", pid = child.process.pid());
            tokio::spawn(watch_unused(Arc::downgrade(self), child.process.clone()));
            self.lock().ahead.push(Started { child, sid, seat });
        }
        Ok(())
    }

    /// Replaces children that sessions have taken.
    fn refill(self: &Arc<Self>) {
        if self.config.warm == 0 {
            return;
        }
        if let Some(pause) = self.spawning.pause() {
            self.refill_after(pause);
        } else if let Err(error) = self.fill(self.config.warm) {
            warn!(event = "child.spawn_failed", %error);
            self.refill_after(jittered(u32::MAX)); // want of a resource: nobody else may come and ask
        }
    }

    /// Replaces them when a pause is over. One such plan is enough.
    fn refill_after(self: &Arc<Self>, pause: Duration) {
        if std::mem::replace(&mut self.lock().refilling, true) {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            sleep(pause).await;
            this.lock().refilling = false;
            this.refill();
        });
    }

    /// The place of a session whose children are gone can be given to another.
    fn seat_freed(self: &Arc<Self>) {
        self.lock().leaving -= 1;
        self.refill(); // a full house may have kept it from being done before
        memory::give_back();
    }

    /// Starts a session.
    ///
    /// # Errors
    /// [`NoSession`]; nothing has happened then.
    pub async fn start(self: &Arc<Self>, opening: Opening) -> Result<(Session, Reader), NoSession> {
        let takes = opening.takes;
        let open = |config, id, initialize| Session::new(config, id, initialize, takes);
        self.launch(opening, None, open).await
    }

    /// Starts a session that `open` makes, under this key if it has one.
    async fn launch<T>(
        self: &Arc<Self>,
        opening: Opening,
        key: Option<Digest>,
        open: impl FnOnce(session::Config, SessionId, Request) -> (Session, Worker, T),
    ) -> Result<(Session, T), NoSession> {
        let Opening { initialize, owner, environment, .. } = opening;
        let id = self.new_id()?;
        let (Started { child, sid, seat }, start) = self.take_child(&environment).await?;
        let _ = sid.set(id.short().to_owned());
        info!(event = "session.start", sid = id.short(), pid = child.process.pid(), keyed = key.is_some());
        let (session, worker, rest) = open(self.config.session.clone(), id.clone(), initialize);
        {
            let mut registry = self.lock();
            registry.live.insert(id.clone(), Owned { owner, it: session.clone() });
            if let Some(key) = key {
                registry.keys.insert(key, id);
            }
        }
        let keeper = Keeper {
            sessions: Arc::clone(self),
            session: session.clone(),
            environment,
            seat: Some(seat),
            process: Mutex::new(Some(child.process.clone())),
        };
        tokio::spawn(Arc::new(keeper).run(worker, child));
        tokio::spawn(Arc::clone(self).watch_start(session.clone(), start));
        Ok((session, rest))
    }

    /// Waits for the child to answer `initialize`. Others may start meanwhile once this one had its time.
    async fn watch_start(self: Arc<Self>, session: Session, start: Option<Start>) {
        self.refill(); // not by the client: it need not wait for the next one's process
        let ended = match timeout(spawning::SHARE, session.opened()).await {
            Ok(ended) => ended,
            Err(_) => {
                drop(start);
                session.opened().await
            }
        };
        self.note_start(ended.err());
    }

    /// An id that nobody can guess.
    ///
    /// # Errors
    /// [`NoSession::Spawn`], where the system has no random numbers.
    pub fn new_id(&self) -> Result<SessionId, NoSession> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| NoSession::spawn(error.into()))?;
        Ok(SessionId::from_random(self.config.replica.as_deref(), random))
    }

    /// A child: one that waits, or a new one and leave to start it.
    async fn take_child(
        &self,
        environment: &[(OsString, OsString)],
    ) -> Result<(Started, Option<Start>), NoSession> {
        self.check_open()?;
        if let Some(started) = self.lock().ahead.take() {
            return Ok((started, None));
        }
        let seat = self.take_seat().await?;
        let start = self.spawning.start().await;
        self.check_open()?; // it may have been a long wait
        let sid = Arc::new(OnceLock::new());
        let child = self.spawn(environment, Arc::clone(&sid)).map_err(NoSession::spawn)?;
        Ok((Started { child, sid, seat }, start))
    }

    fn check_open(&self) -> Result<(), NoSession> {
        if !self.is_taking() {
            return Err(NoSession::Draining);
        }
        self.spawning.pause().map_or(Ok(()), |pause| Err(NoSession::Crashing(pause)))
    }

    /// A place among [`Config::max_sessions`]. If one is about to be free because a child is leaving, waits for it:
    /// a client that closes a session and opens the next should not be turned away.
    async fn take_seat(&self) -> Result<OwnedSemaphorePermit, NoSession> {
        if let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() {
            return Ok(seat);
        }
        let full = || NoSession::Full(self.config.max_sessions);
        if !self.is_seat_coming() && !self.evict() {
            return Err(full());
        }
        let _waiting = Waiting::new(self);
        let patience = self.config.stop_grace + TERM_GRACE;
        let seat = timeout(patience, Arc::clone(&self.seats).acquire_owned()).await;
        if !self.is_taking() {
            return Err(NoSession::Draining);
        }
        seat.ok().and_then(Result::ok).ok_or_else(full)
    }

    /// Whether more children are leaving than clients wait for their seats.
    fn is_seat_coming(&self) -> bool {
        let registry = self.lock();
        registry.leaving > registry.waiting
    }

    /// Ends the session that has been idle for the longest time, if there is one and the operator wants it.
    fn evict(&self) -> bool {
        if !self.config.evict {
            return false;
        }
        let longest = {
            let registry = self.lock();
            let live = registry.live.values().map(|owned| &owned.it);
            let idle = live.filter_map(|session| Some((session.stats().idle_since?, session)));
            idle.min_by_key(|(since, _)| *since).map(|(_, session)| session.clone())
        };
        longest.is_some_and(|session| {
            self.end(&session, End::Evicted);
            true
        })
    }

    /// Starts a process. Its log lines carry the name that `sid` will have.
    fn spawn(
        &self,
        environment: &[(OsString, OsString)],
        sid: Arc<OnceLock<String>>,
    ) -> io::Result<Child<()>> {
        let Child { process, stdin, stdout, stderr } = self.command.spawn(environment, &self.reaper)?;
        tokio::spawn(stderr::log(stderr, sid, process.exit.clone()));
        self.lock().processes.insert(process.pid(), process.clone());
        Ok(Child { process, stdin, stdout, stderr: () })
    }

    /// What this caller may know of this id.
    pub fn find(&self, id: &SessionId, caller: Option<Digest>) -> Found {
        let registry = self.lock();
        let live = registry.live.get(id).and_then(|owned| owned.show(caller));
        match (live, registry.ended.get(id).and_then(|owned| owned.show(caller))) {
            (Some(session), _) => Found::Live(session.clone()),
            (None, Some(end)) => Found::Ended(*end),
            (None, None) => Found::Unknown,
        }
    }

    /// Ends a session. When this returns its id is gone; the child leaves in its own time.
    pub fn end(&self, session: &Session, why: End) {
        session.end(why);
        self.bury(session.id(), why);
    }

    fn bury(&self, id: &SessionId, why: End) {
        let mut registry = self.lock();
        let Some(Owned { owner, .. }) = registry.live.remove(id) else { return };
        registry.leaving += 1;
        registry.keys.retain(|_, named| named != id);
        if registry.ended_order.len() == REMEMBERED
            && let Some(oldest) = registry.ended_order.pop_front()
        {
            registry.ended.remove(&oldest);
        }
        registry.ended.insert(id.clone(), Owned { owner, it: why });
        registry.ended_order.push_back(id.clone());
    }

    /// Whether new sessions are taken and can be started. A full house is no reason to say no: whoever balances by this
    /// answer would take the clients of running sessions away.
    pub fn is_ready(&self) -> bool {
        self.is_taking() && self.spawning.pause().is_none()
    }

    /// Whether new sessions are taken: the bridge is not stopping.
    pub fn is_taking(&self) -> bool {
        !*self.draining.borrow()
    }

    /// Takes no new sessions, ends those with nothing in flight at once and the others when their calls are done.
    pub fn drain(self: &Arc<Self>) {
        self.draining.send_replace(true);
        let (sessions, waiting) = {
            let mut registry = self.lock();
            (registry.sessions(), registry.ahead.take_all())
        };
        for session in sessions {
            session.end_when_idle();
        }
        for Started { child, seat, .. } in waiting {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let Child { process, stdin, stdout, stderr: () } = child;
                drop(stdin);
                this.see_out(process, Some(stdout)).await;
                drop(seat); // drained() waits for it too
            });
        }
    }

    /// Ends every session now; calls in flight get an error.
    pub fn end_all(&self) {
        let sessions = self.lock().sessions();
        for session in sessions {
            session.end(End::Shutdown);
        }
    }

    /// Kills every child without further ado.
    pub fn kill_all(&self) {
        let processes: Vec<_> = self.lock().processes.values().cloned().collect();
        for process in processes {
            process.kill();
        }
    }

    /// Waits until every session has ended and every child is gone.
    pub async fn drained(&self) {
        let all = u32::try_from(self.config.max_sessions).unwrap_or(u32::MAX);
        let _ = self.seats.acquire_many(all).await;
    }

    /// Logs what there is, for whoever asks the running program.
    pub fn dump(&self) {
        let registry = self.lock();
        info!(
            event = "bridge.state",
            sessions = registry.live.len(),
            leaving = registry.leaving,
            waiting = registry.waiting,
            ahead = registry.ahead.len(),
            processes = registry.processes.len(),
            ready = self.is_ready(),
        );
        for session in registry.live.values().map(|owned| &owned.it) {
            let Stats { idle_since, in_flight, stdin_queue } = session.stats();
            let idle = idle_since.map_or(0, |since| since.elapsed().as_secs());
            info!(event = "session.state", sid = session.id().short(), in_flight, stdin_queue, idle);
        }
    }

    /// How many sessions are live.
    pub fn count(&self) -> usize {
        self.lock().live.len()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a child that ended before a session took it, and replaces it after a pause if children are kept warm.
async fn watch_unused(sessions: Weak<Sessions>, mut process: Process) {
    let status = process.exit.wait().await;
    let Some(sessions) = sessions.upgrade() else { return };
    let Some(failures) = sessions.lock().ahead.bury(process.pid()) else { return };
    process.clear_up(&sessions.reaper).await;
    sessions.lock().processes.remove(&process.pid());
    let status = &*describe(status).to_string();
    warn!(event = "child.exit", phase = "before_session", pid = process.pid(), status);
    sessions.note_crash();
    sleep(jittered(failures)).await;
    sessions.refill();
}

fn describe(status: Option<Status>) -> ExitStatus {
    match status {
        Some(Status::Exited(code)) => ExitStatus::Code(code),
        Some(Status::Signaled(signal)) => ExitStatus::Signal(signal.as_str()),
        Some(Status::SignaledRealTime) => ExitStatus::Signal("SIGRT"),
        None => ExitStatus::Unknown,
    }
}
