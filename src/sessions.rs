//! Which sessions exist. Starts them, each with a child of its own, and sees their children out.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, copy, sink};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::child::{Child, Command, Process};
use crate::proto::ids::SessionId;
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::message::Message;
use crate::reaper::{Exit as ProcessEnd, Reaper, Status};
use crate::session::reader::Reader;
use crate::session::worker::{Ended, Worker};
use crate::session::{self, End, Exit, Session};

/// How many ended sessions are remembered, so that a late client is told why its session is gone.
const REMEMBERED: usize = 1024;

/// The longest line of a child's stderr that is logged, in bytes; the rest of it is cut off.
const STDERR_LINE: usize = 8 * 1024;

/// Lines of one child's stderr that are logged per second; what is more is read, counted and dropped.
const STDERR_RATE: u32 = 1000;

/// How long stderr is read after the child's end: a grandchild may hold it open for ever.
const STDERR_LAST_WORDS: Duration = Duration::from_millis(250);

/// What an operator sets.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many sessions, and so children, there may be. A child that is on its way out still counts.
    pub max_sessions: usize,
    /// Whether no child is started before the first session wants one.
    pub lazy: bool,
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
    /// The child started ahead of the first session.
    spare: Option<Started>,
    draining: bool,
}

/// A child whose stderr is being logged.
#[derive(Debug)]
struct Started {
    child: Child<()>,
    /// Set when a session takes the child, so that its log lines carry the session's name.
    sid: Arc<OnceLock<String>>,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(config: Config, command: Command, reaper: Reaper) -> Arc<Self> {
        let seats = Arc::new(Semaphore::new(config.max_sessions));
        Arc::new(Self { config, command, reaper, seats, registry: Mutex::default() })
    }

    /// Starts one child ahead of the first session, unless the operator wants none: the first client does not wait
    /// for the process, and a command that cannot run is noticed at once.
    ///
    /// # Errors
    /// What the attempt to start the child said.
    pub fn start_ahead(&self) -> io::Result<()> {
        if !self.config.lazy {
            let started = self.spawn()?;
            info!(event = "child.ahead", pid = started.child.process.pid());
            self.lock().spare = Some(started);
        }
        Ok(())
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
        let seat = self.take_seat().await?;
        let id = Self::new_id()?;
        let Started { child, sid } = self.take_child().map_err(NoSession::spawn)?;
        let _ = sid.set(id.short().to_owned());
        info!(event = "session.start", sid = id.short(), pid = child.process.pid());
        let (session, worker, reader) = Session::new(self.config.session, id.clone(), initialize, streams);
        {
            let mut registry = self.lock();
            registry.live.insert(id.clone(), session.clone());
            registry.processes.insert(id, child.process.clone());
        }
        tokio::spawn(Arc::clone(self).run(session.clone(), worker, child, seat));
        Ok((session, reader))
    }

    /// An id that nobody can guess.
    ///
    /// # Errors
    /// [`NoSession::Spawn`], where the system has no random numbers.
    pub fn new_id() -> Result<SessionId, NoSession> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| NoSession::spawn(error.into()))?;
        Ok(SessionId::from_random(random))
    }

    /// A place among [`Config::max_sessions`]. If one is about to be free because a child is leaving, waits for it:
    /// a client that closes a session and opens the next should not be turned away.
    async fn take_seat(&self) -> Result<OwnedSemaphorePermit, NoSession> {
        if self.lock().draining {
            return Err(NoSession::Draining);
        }
        if let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() {
            return Ok(seat);
        }
        let leaving = {
            let registry = self.lock();
            registry.processes.len() > registry.live.len()
        };
        if leaving {
            let patience = self.config.stop_grace;
            let seat = timeout(patience, Arc::clone(&self.seats).acquire_owned()).await;
            if self.lock().draining {
                return Err(NoSession::Draining);
            }
            if let Ok(Ok(seat)) = seat {
                return Ok(seat);
            }
        }
        Err(NoSession::Full(self.config.max_sessions))
    }

    fn take_child(&self) -> io::Result<Started> {
        let spare = self.lock().spare.take();
        match spare {
            Some(spare) if spare.child.process.exit.status().is_none() => Ok(spare),
            Some(spare) => {
                let status = &*describe(spare.child.process.exit.status()).to_string();
                warn!(
                    event = "child.exit",
                    phase = "before_session",
                    pid = spare.child.process.pid(),
                    status
                );
                self.spawn()
            }
            None => self.spawn(),
        }
    }

    fn spawn(&self) -> io::Result<Started> {
        let Child { process, stdin, stdout, stderr } = self.command.spawn(&self.reaper)?;
        let sid = Arc::new(OnceLock::new());
        tokio::spawn(log_stderr(stderr, Arc::clone(&sid), process.exit.clone()));
        Ok(Started { child: Child { process, stdin, stdout, stderr: () }, sid })
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
        let (sessions, spare) = {
            let mut registry = self.lock();
            registry.draining = true;
            (registry.live.values().cloned().collect::<Vec<_>>(), registry.spare.take())
        };
        for session in sessions {
            session.end_when_idle();
        }
        if let Some(Started { child: Child { mut process, .. }, .. }) = spare {
            // Its stdin is closed here. It counts as a seat so that drained() waits for it too.
            let seat = Arc::clone(&self.seats).try_acquire_owned();
            let grace = self.config.shutdown_grace;
            tokio::spawn(async move {
                process.see_out(grace).await;
                drop(seat);
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

fn describe(status: Option<Status>) -> Exit {
    match status {
        Some(Status::Exited(code)) => Exit::Code(code),
        Some(Status::Signaled(signal)) => Exit::Signal(signal.as_str()),
        None => Exit::Unknown,
    }
}

/// Logs what the child says on stderr, line by line. It is always read: a child whose stderr is full stands still.
async fn log_stderr(
    mut stderr: tokio::net::unix::pipe::Receiver,
    sid: Arc<OnceLock<String>>,
    mut exit: ProcessEnd,
) {
    let mut decoder = LineDecoder::new(STDERR_LINE);
    let mut until: Option<Instant> = None;
    let (mut second, mut lines, mut suppressed) = (Instant::now(), 0, 0_u64);
    let sid = || sid.get().map_or("-", String::as_str);
    let mut log = |line: &[u8]| {
        if second.elapsed() >= Duration::from_secs(1) {
            if suppressed > 0 {
                warn!(event = "child.stderr_suppressed", sid = sid(), lines = suppressed);
            }
            (second, lines, suppressed) = (Instant::now(), 0, 0);
        }
        if lines == STDERR_RATE {
            suppressed += 1;
            return;
        }
        lines += 1;
        info!(event = "child.stderr", sid = sid(), line = &*String::from_utf8_lossy(line));
    };
    loop {
        let deadline = until.unwrap_or_else(Instant::now);
        tokio::select! {
            read = stderr.read_buf(decoder.buffer()) => {
                while let Some(frame) = decoder.next() {
                    match frame {
                        Frame::Line(line) => log(line.bytes()),
                        Frame::TooLong { head, .. } => log(head.get(..STDERR_LINE).unwrap_or(head)),
                    }
                }
                if matches!(read, Ok(0) | Err(_)) {
                    break;
                }
            }
            _ = exit.wait(), if until.is_none() => until = Some(Instant::now() + STDERR_LAST_WORDS),
            () = sleep_until(deadline), if until.is_some() => break,
        }
    }
    if let Some(line) = decoder.finish() {
        log(line.bytes());
    }
    if suppressed > 0 {
        warn!(event = "child.stderr_suppressed", sid = sid(), lines = suppressed);
    }
}
