//! Which sessions exist. Starts them, each with a child of its own, and sees their children out.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{copy, sink};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::child::{Child, Command, Process, TERM_GRACE};
use crate::proto::ids::SessionId;
use crate::proto::message::Message;
use crate::reaper::{Reaper, Status};
use crate::session::reader::Reader;
use crate::session::worker::{Ended, Worker};
use crate::session::{self, End, Exit, Session};

mod ahead;
mod stderr;

use ahead::{Ahead, Started};

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
    /// How long a child may take to leave after its stdin ended, before it gets SIGTERM.
    pub stop_grace: Duration,
    /// The same while the bridge itself is stopping.
    pub shutdown_grace: Duration,
    /// For each session.
    pub session: session::Config,
}

/// Why no session was started.
#[derive(Debug)]
pub enum NoSession {
    /// This many sessions exist.
    Full(usize),
    /// The bridge is stopping.
    Draining,
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
        let wanting = [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE];
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
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    live: HashMap<SessionId, Session>,
    /// Processes of live and leaving sessions, so that an impatient operator can end them at once.
    processes: HashMap<SessionId, Process>,
    ended: HashMap<SessionId, End>,
    ended_order: VecDeque<SessionId>,
    ahead: Ahead,
    /// How many clients wait for a seat.
    waiting: usize,
    draining: bool,
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
        Arc::new(Self { config, command, reaper, seats, registry: Mutex::default() })
    }

    /// Starts children ahead of the first session: its client does not wait for a process, and a command that cannot
    /// run is noticed at once.
    ///
    /// # Errors
    /// What the attempt to start a child said.
    pub fn start_ahead(self: &Arc<Self>) -> io::Result<()> {
        self.fill(self.config.ahead)
    }

    /// Starts children until so many wait for a session, as far as there are seats.
    fn fill(self: &Arc<Self>, target: usize) -> io::Result<()> {
        while self.is_ready() && self.lock().ahead.len() < target {
            let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else { break };
            let started = self.spawn(seat)?;
            info!(event = "child.ahead", pid = started.child.process.pid());
            tokio::spawn(watch_unused(Arc::downgrade(self), started.child.process.clone()));
            self.lock().ahead.push(started);
        }
        Ok(())
    }

    /// Replaces children that sessions have taken.
    fn refill(self: &Arc<Self>) {
        if let Err(error) = self.fill(self.config.warm) {
            warn!(event = "child.spawn_failed", %error);
        }
    }

    /// Starts a session. `initialize` opens it, and its answer comes to the reader; `streams`: whether the client
    /// takes an event stream.
    ///
    /// # Errors
    /// [`NoSession`]; nothing has happened then.
    pub async fn start(
        self: &Arc<Self>,
        initialize: Message,
        streams: bool,
    ) -> Result<(Session, Reader), NoSession> {
        let id = self.new_id()?;
        let Started { child, sid, seat } = self.take_child().await?;
        let _ = sid.set(id.short().to_owned());
        info!(event = "session.start", sid = id.short(), pid = child.process.pid());
        let (session, worker, reader) = Session::new(self.config.session, id.clone(), initialize, streams);
        {
            let mut registry = self.lock();
            registry.live.insert(id.clone(), session.clone());
            registry.processes.insert(id, child.process.clone());
        }
        tokio::spawn(Arc::clone(self).run(session.clone(), worker, child, seat));
        if self.config.warm > 0 {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.refill() }); // this client need not wait for the next one's process
        }
        Ok((session, reader))
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

    /// A child: one that waits, or a new one.
    async fn take_child(&self) -> Result<Started, NoSession> {
        if !self.is_ready() {
            return Err(NoSession::Draining);
        }
        if let Some(started) = self.lock().ahead.take() {
            return Ok(started);
        }
        let seat = self.take_seat().await?;
        self.spawn(seat).map_err(NoSession::spawn)
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
        if !self.is_ready() {
            return Err(NoSession::Draining);
        }
        seat.ok().and_then(Result::ok).ok_or_else(full)
    }

    /// Whether more children are leaving than clients wait for their seats.
    fn is_seat_coming(&self) -> bool {
        let registry = self.lock();
        registry.processes.len().saturating_sub(registry.live.len()) > registry.waiting
    }

    /// Ends the session that has been idle for the longest time, if there is one and the operator wants it.
    fn evict(&self) -> bool {
        if !self.config.evict {
            return false;
        }
        let longest = {
            let registry = self.lock();
            let idle = registry.live.values().filter_map(|session| Some((session.idle_since()?, session)));
            idle.min_by_key(|(since, _)| *since).map(|(_, session)| session.clone())
        };
        longest.is_some_and(|session| {
            self.end(&session, End::Evicted);
            true
        })
    }

    fn spawn(&self, seat: OwnedSemaphorePermit) -> io::Result<Started> {
        let Child { process, stdin, stdout, stderr } = self.command.spawn(&self.reaper)?;
        let sid = Arc::new(OnceLock::new());
        tokio::spawn(stderr::log(stderr, Arc::clone(&sid), process.exit.clone()));
        Ok(Started { child: Child { process, stdin, stdout, stderr: () }, sid, seat })
    }

    async fn run(
        self: Arc<Self>,
        session: Session,
        worker: Worker,
        child: Child<()>,
        seat: OwnedSemaphorePermit,
    ) {
        let began = Instant::now();
        let Child { mut process, stdin, stdout, stderr: () } = child;
        let mut exit = process.exit.clone();
        let exit = async move { describe(exit.wait().await) };
        let Ended { why, mut stdout } = worker.run(stdin, stdout, exit).await;
        self.bury(session.id(), why);

        let sid = session.id().short();
        let grace = if self.lock().draining { self.config.shutdown_grace } else { self.config.stop_grace };
        // A child that still writes while it leaves must not die of a closed pipe.
        let mut nowhere = sink();
        let read_on = async {
            let _ = copy(&mut stdout, &mut nowhere).await;
            std::future::pending::<()>().await;
        };
        let farewell = tokio::select! {
            farewell = process.see_out(grace) => farewell,
            () = read_on => return, // it never ends
        };
        let status = &*describe(process.exit.status()).to_string();
        let farewell = &*farewell.to_string();
        let seconds = began.elapsed().as_secs();
        if why.is_trouble() {
            warn!(event = "session.end", sid, reason = why.cause(), status, farewell, seconds);
        } else {
            info!(event = "session.end", sid, reason = why.cause(), status, farewell, seconds);
        }
        self.lock().processes.remove(session.id());
        drop(seat);
        if self.config.warm > 0 {
            self.refill(); // a full house may have kept it from being done before
        }
    }

    /// What is known of this id.
    pub fn find(&self, id: &SessionId) -> Found {
        let registry = self.lock();
        match (registry.live.get(id), registry.ended.get(id)) {
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
        if registry.live.remove(id).is_none() {
            return;
        }
        if registry.ended_order.len() == REMEMBERED
            && let Some(oldest) = registry.ended_order.pop_front()
        {
            registry.ended.remove(&oldest);
        }
        registry.ended.insert(id.clone(), why);
        registry.ended_order.push_back(id.clone());
    }

    /// Whether new sessions are taken. A full house is no reason to say no: whoever balances by this answer would
    /// take the clients of running sessions away.
    pub fn is_ready(&self) -> bool {
        !self.lock().draining
    }

    /// Takes no new sessions, ends those with nothing in flight at once and the others when their calls are done.
    pub fn drain(&self) {
        let (sessions, waiting) = {
            let mut registry = self.lock();
            registry.draining = true;
            (registry.live.values().cloned().collect::<Vec<_>>(), registry.ahead.take_all())
        };
        for session in sessions {
            session.end_when_idle();
        }
        for Started { child, seat, .. } in waiting {
            let grace = self.config.shutdown_grace;
            tokio::spawn(async move {
                let Child { mut process, stdin, .. } = child;
                drop(stdin);
                process.see_out(grace).await;
                drop(seat); // drained() waits for it too
            });
        }
    }

    /// Ends every session now; calls in flight get an error.
    pub fn end_all(&self) {
        let sessions: Vec<_> = self.lock().live.values().cloned().collect();
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
    let random = getrandom::u32().unwrap_or(u32::MAX);
    let Some(pause) = sessions.lock().ahead.bury(process.pid(), random) else { return };
    let status = &*describe(status).to_string();
    warn!(event = "child.exit", phase = "before_session", pid = process.pid(), status);
    if sessions.config.warm > 0 {
        sleep(pause).await;
        sessions.refill();
    }
}

fn describe(status: Option<Status>) -> Exit {
    match status {
        Some(Status::Exited(code)) => Exit::Code(code),
        Some(Status::Signaled(signal)) => Exit::Signal(signal.as_str()),
        None => Exit::Unknown,
    }
}
