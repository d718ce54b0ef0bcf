//! All sessions of the bridge: starts each with a child of its own or on a lane of one that sessions share, finds it, ends it.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use crate::account::Accounts;
use crate::child::{Child, Command, Ladder, Leftovers, Process, Termination};
use crate::first_words::{FirstWords, read_on};
use crate::heap;
use crate::log_limit::SharedLogLimit;
use crate::proto::front::Takes;
use crate::proto::ids::SessionId;
use crate::proto::link::era_of;
use crate::proto::message::Request;
use crate::proto::version::Era;
use crate::reaper::Reaper;
use crate::secret::Digest;
use crate::session::stream::Reader;
use crate::session::worker::Worker;
use crate::session::{self, BodyBudget, End, Session};
use crate::sync;

mod blame;
mod era;
mod keys;
mod lanes;
mod pipes;
mod registry;
mod seats;
mod sibling;
mod snapshot;
mod start_limit;
mod stderr;
mod supervisor;
mod trial;
mod warm;

pub use lanes::SharedServer;
pub use snapshot::{NotReady, SessionSnapshot, Snapshot, State};

use blame::{Blame, Cause, Lately, Pause};
use era::ServerEra;
use keys::KeyLocks;
use lanes::Wanted;
use registry::{Live, Registry};
use seats::Seats;
use start_limit::{Held, StartLimit};
use supervisor::Supervisor;
use warm::{Unclaimed, WarmPool};

/// Sessions that come and go by the thousand are no news. Those of clients that bring the server down even less so.
static STARTS: SharedLogLimit = SharedLogLimit::of_sessions("session.start");
static SUSPECT_STARTS: SharedLogLimit = SharedLogLimit::new("session.start");

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many children there may be, and so sessions with one; and as many sessions on lanes. A child that is on its way
    /// out still counts.
    pub max_sessions: usize,
    /// What session ids begin with.
    pub replica: Option<String>,
    /// How many children are started before the first session.
    pub prewarm: usize,
    /// How many children are kept started for sessions to come, from then on.
    pub warm: usize,
    /// Whether the session that has been idle for the longest time is ended when another needs its place.
    pub evict: bool,
    /// How many children may be starting at once.
    pub max_starting: usize,
    /// Whether headers of clients add to the environment of their children: without a client there is no proof then
    /// that the server can start.
    pub env_from_clients: bool,
    /// What the server speaks; `None`: that is found out.
    pub era: Option<Era>,
    /// From the end of a child's stdin to SIGTERM.
    pub stop_grace: Duration,
    /// When a child gets SIGTERM, and when SIGKILL, after the bridge itself began to stop.
    pub at_shutdown: (Duration, Duration),
    pub session: session::Config,
}

/// What opens a session.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The client's `initialize`, or what the bridge says in its own name; the answer comes to the session's first reader.
    pub initialize: Request,
    /// What the stream of the answer may carry.
    pub takes: Takes,
    /// The only caller that will find the session.
    pub owner: Option<Digest>,
    /// What is added to the child's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// In which era a child is opened for it.
    pub era: Era,
    pub server: Server,
}

/// Which child a session gets.
#[derive(Clone, Debug)]
pub enum Server {
    /// One of its own.
    Own,
    /// One that sessions share, through a lane of the session's own.
    Shared(SharedServer),
}

impl Opening {
    /// What the bridge opens in its own name with a child of its own.
    pub fn own(
        initialize: Request,
        owner: Option<Digest>,
        environment: Vec<(OsString, OsString)>,
        era: Era,
    ) -> Self {
        Self { initialize, takes: Takes::AnswerOnly, owner, environment, era, server: Server::Own }
    }
}

/// Why no session was started.
#[derive(Debug)]
pub enum NoSession {
    /// This many sessions exist.
    Full(usize),
    Draining,
    /// Every child fails at its start; the next is tried after this time.
    Crashing(Duration),
    /// Each child that gets these words fails at its start, and others do not.
    Blamed(Duration),
    /// The child could not be started.
    Spawn {
        /// What the system said.
        error: io::Error,
        /// Whether a resource was lacking, so that it may work later: processes, descriptors, memory.
        resource: bool,
    },
    /// The server that it was to share ended, and the next one did, before it had its lane.
    Lost(End),
}

/// For the log.
impl fmt::Display for NoSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(limit) => write!(f, "all {limit} places are taken"),
            Self::Draining => f.write_str("the bridge is stopping"),
            Self::Crashing(_) | Self::Blamed(_) => f.write_str("it has failed at every start of late"),
            Self::Spawn { error, .. } => error.fmt(f),
            Self::Lost(end) => write!(f, "it ended at its start: {}", end.cause()),
        }
    }
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
    Live(Session),
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
    leftovers: Leftovers,
    seats: Seats,
    /// Places for sessions on lanes.
    lane_seats: Seats,
    starts: StartLimit,
    blame: Mutex<Blame>,
    era: ServerEra,
    pool: WarmPool,
    /// The signals of all children, once the bridge is stopping.
    draining: watch::Sender<Option<Ladder>>,
    registry: Mutex<Registry<Session, Process>>,
    key_locks: KeyLocks,
    /// The memory for bodies that name no session.
    anonymous: BodyBudget,
    accounts: Accounts,
}

/// Bytes of requests with tiny bodies that name no session, and as many with small ones. Most of them are `initialize`,
/// which should find memory at any time.
const SMALL_ANONYMOUS_BODIES: usize = 8 * 1024 * 1024;

impl Sessions {
    /// No sessions yet.
    pub fn new(config: Config, command: Command, reaper: Reaper) -> Arc<Self> {
        let accounts = Accounts::default();
        Arc::new(Self {
            seats: Seats::new(config.max_sessions),
            lane_seats: Seats::new(config.max_sessions),
            starts: StartLimit::new(config.max_starting),
            blame: Mutex::new(Blame::new(!config.env_from_clients)),
            era: ServerEra::new(config.era),
            pool: WarmPool::default(),
            draining: watch::Sender::new(None),
            registry: Mutex::default(),
            key_locks: KeyLocks::default(),
            anonymous: BodyBudget::new(SMALL_ANONYMOUS_BODIES, config.session.max_body, accounts.open()),
            accounts,
            leftovers: Leftovers::new(reaper.clone()),
            config,
            command,
            reaper,
        })
    }

    /// The memory for bodies of requests that are for no session yet.
    pub fn anonymous(&self) -> &BodyBudget {
        &self.anonymous
    }

    /// The last child of a session is gone, and its seat is free.
    fn seat_freed(self: &Arc<Self>) {
        self.lock().left();
        self.refill(); // all seats may have been taken when a warm child was
        heap::note_freed(self.config.session.replay_buffer); // or about so much
    }

    /// Starts a session.
    ///
    /// # Errors
    /// [`NoSession`]; nothing has happened then.
    pub async fn start(self: &Arc<Self>, opening: Opening) -> Result<(Session, Reader), NoSession> {
        let takes = opening.takes;
        let open = move |config, id, initialize, child| Session::new(config, id, initialize, takes, child);
        match opening.server.clone() {
            // Boxed, as what follows is: each connection has room for the largest future that may come on it.
            Server::Own => Box::pin(self.launch(opening, None, open)).await,
            Server::Shared(server) => {
                let wanted = Wanted::of(server, &opening);
                let joined = Box::pin(self.join(&wanted)).await?;
                self.launch_on_lane(opening, wanted, joined, None, open)
            }
        }
    }

    /// Starts a session that `open` makes with a child of its own, under this key if it has one.
    async fn launch<T>(
        self: &Arc<Self>,
        opening: Opening,
        key: Option<Digest>,
        open: impl FnOnce(session::Config, SessionId, Request, Era) -> (Session, Worker, T),
    ) -> Result<(Session, T), NoSession> {
        let Opening { initialize, owner, environment, era, .. } = opening;
        let id = self.new_id()?;
        let mut cause = Cause::of(owner, &initialize, &environment);
        cause.era = era;
        let (Unclaimed { child, sid, seat }, mut start) = self.take_child(&cause, &environment).await?;
        let _ = sid.set(id.short().to_owned());
        let (pid, keyed) = (child.process.pid(), key.is_some());
        let limit = if start.is_suspect { &SUSPECT_STARTS } else { &STARTS };
        if let Some(count) = limit.take() {
            info!(event = "session.start", sid = id.short(), pid, keyed, count, "a session has started");
        }
        // What is translated for a child is not what that was asked.
        let asked = Some(&initialize).filter(|initialize| era_of(initialize) == era);
        start.initialize = asked.and_then(|initialize| self.blame().kept(initialize));
        let (session, worker, rest) = open(self.config.session.clone(), id.clone(), initialize, era);
        self.accounts.add(session.account());
        let live = Live {
            session: session.clone(),
            key,
            began: Instant::now().into_std(),
            child: Some(child.process.tag().clone()),
            server: None,
            state: State::Starting,
            has_worked: self.blame().has_worked(&cause),
        };
        let is_caller = {
            let mut registry = self.lock();
            registry.add(id, owner, live);
            registry.is_caller(owner)
        };
        let supervisor = Supervisor {
            sessions: Arc::clone(self),
            session: session.clone(),
            environment,
            cause,
            is_suspect: start.is_suspect,
            seat: Some(seat),
            process: Mutex::new(Some((child.process.clone(), Arc::clone(&child.stderr)))),
        };
        tokio::spawn(Arc::new(supervisor).run(worker, child, start));
        if !is_caller {
            self.end(&session, End::Revoked); // its token was taken away while it waited for its child
        }
        self.refill();
        Ok((session, rest))
    }

    /// A random id, which cannot be guessed.
    ///
    /// # Errors
    /// [`NoSession::Spawn`], where the system has no random numbers.
    pub fn new_id(&self) -> Result<SessionId, NoSession> {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| NoSession::spawn(error.into()))?;
        Ok(SessionId::from_random(self.config.replica.as_deref(), random))
    }

    /// A warm child or a new one, and what its start holds.
    ///
    /// Words that have not worked take nothing that others need: while what clients send brings the server down, no warm
    /// child and no idle session's place; and at any time no place from words that have worked, see [`Self::take_seat`].
    async fn take_child(
        &self,
        cause: &Cause,
        environment: &[(OsString, OsString)],
    ) -> Result<(Unclaimed, Held), NoSession> {
        self.check_open(cause)?;
        let is_suspect = !self.blame().is_trusted(cause, Lately::Many, Instant::now());
        if !is_suspect && let Some(unclaimed) = self.pool.take() {
            return Ok((unclaimed, Held::default()));
        }
        let seat = match self.take_seat(cause).await {
            Ok(seat) => seat,
            // The warm children may have all the seats that there are.
            Err(full) => {
                let unclaimed = self.pool.take().ok_or(full)?;
                return Ok((unclaimed, Held { is_suspect, ..Held::default() }));
            }
        };
        let worked = self.blame().has_worked(cause);
        let Some(permit) = self.starts.acquire(cause, worked).await else {
            return Err(NoSession::Full(self.config.max_sessions)); // it gave way
        };
        self.check_open(cause)?; // the bridge may have begun to stop during the wait
        let sid = Arc::new(OnceLock::new());
        let child = self.spawn(environment, Arc::clone(&sid), is_suspect).map_err(NoSession::spawn)?;
        Ok((Unclaimed { child, sid, seat }, Held { permit: Some(permit), is_suspect, initialize: None }))
    }

    fn check_open(&self, cause: &Cause) -> Result<(), NoSession> {
        if !self.is_taking() {
            return Err(NoSession::Draining);
        }
        match self.blame().check(cause, Instant::now()) {
            None => Ok(()),
            Some(Pause::All(pause)) => Err(NoSession::Crashing(pause)),
            Some(Pause::One(pause)) => Err(NoSession::Blamed(pause)),
        }
    }

    /// Starts a child. Its log lines carry the name that `sid` will have; they are few if it is one of many that are
    /// expected to fail (`is_suspect`).
    fn spawn(
        &self,
        environment: &[(OsString, OsString)],
        sid: Arc<OnceLock<String>>,
        is_suspect: bool,
    ) -> io::Result<Child<Arc<FirstWords>>> {
        let Child { process, stdin, stdout, stderr } = self.command.spawn(environment, &self.reaper)?;
        let first_words = Arc::new(FirstWords::default());
        tokio::spawn(stderr::log(stderr, sid, process.exit.clone(), Arc::clone(&first_words), is_suspect));
        self.lock().add_child(process.tag().clone(), process.clone());
        Ok(Child { process, stdin, stdout, stderr: first_words })
    }

    /// What this caller may know of this id.
    pub fn find(&self, id: &SessionId, caller: Option<Digest>) -> Found {
        let registry = self.lock();
        match registry.find(id, caller) {
            Some(session) => Found::Live(session.clone()),
            None => registry.ended(id, caller).map_or(Found::Unknown, Found::Ended),
        }
    }

    /// Ends a session. When this returns its id is gone; the child leaves in its own time.
    pub fn end(&self, session: &Session, why: End) {
        session.end(why);
        self.retire(session.id(), why);
    }

    /// Ends the sessions of all callers but these, and those that others of them are about to begin.
    pub fn keep_callers(&self, callers: &[Digest]) {
        let revoked: Vec<Session> = self.lock().keep_callers(callers).into_iter().cloned().collect();
        for session in revoked {
            self.end(&session, End::Revoked);
        }
        let digests: Vec<_> = callers.iter().map(|caller| *caller.as_bytes()).collect();
        for session in self.all().into_iter().filter(|session| session.clients().is_some()) {
            session.keep_callers(digests.clone());
        }
    }

    fn retire(&self, id: &SessionId, why: End) {
        self.lock().retire(id, why);
    }

    /// Whether new sessions are taken: the bridge is not stopping.
    pub fn is_taking(&self) -> bool {
        self.draining.borrow().is_none()
    }

    /// Takes no new sessions, ends those with nothing in flight at once and the others when their calls are done.
    pub fn drain(self: &Arc<Self>) {
        let (term, kill) = self.config.at_shutdown;
        let now = Instant::now();
        self.draining.send_if_modified(|draining| {
            let is_first = draining.is_none();
            draining.get_or_insert(Ladder { term: now + term, kill: now + kill });
            is_first
        });
        for session in self.all() {
            session.end_when_idle();
        }
        for Unclaimed { child, seat, .. } in self.pool.take_all() {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let Child { process, stdin, stdout, stderr: first_words } = child;
                drop(stdin);
                this.terminate(process, Some(stdout), &first_words).await;
                drop(seat); // drained() waits for it too
            });
        }
    }

    /// Ends every session now; calls in flight get an error.
    pub fn end_all(&self) {
        for session in self.all() {
            session.end(End::Shutdown);
        }
    }

    /// Sends SIGKILL to every child.
    pub fn kill_all(&self) {
        for process in self.lock().children() {
            process.kill();
        }
    }

    /// Waits until every session has ended and every child is gone.
    pub async fn drained(&self) {
        self.seats.all_free().await;
        self.lane_seats.all_free().await;
    }

    /// How many sessions are live.
    pub fn count(&self) -> usize {
        self.lock().live().len()
    }

    fn all(&self) -> Vec<Session> {
        self.lock().live().map(|live| live.session.clone()).collect()
    }

    /// Ends a child whose stdin has been closed, and then what it left running.
    async fn terminate(
        &self,
        mut process: Process,
        mut stdout: Option<Receiver>,
        first_words: &FirstWords,
    ) -> Termination {
        let mut draining = self.draining.subscribe();
        let stops = async {
            match draining.wait_for(Option::is_some).await.ok().and_then(|ladder| *ladder) {
                Some(ladder) => ladder,
                None => std::future::pending().await,
            }
        };
        // A child that still writes while it ends must not die of a closed pipe.
        let stopped_by = tokio::select! {
            stopped_by = process.terminate(Ladder::after(self.config.stop_grace), stops) => stopped_by,
            never = read_on(stdout.as_mut(), first_words) => never,
        };
        if let Some(stdout) = stdout {
            let mut last = [0; 4096];
            let read = stdout.try_read(&mut last).unwrap_or(0); // it may have written and ended at once
            first_words.after_the_end(last.get(..read).unwrap_or_default());
        }
        self.clear(&process).await;
        stopped_by
    }

    /// Kills what a child that has ended left running, and forgets the child.
    async fn clear(&self, process: &Process) {
        self.leftovers.kill(process).await;
        self.lock().remove_child(process.tag());
    }

    fn lock(&self) -> MutexGuard<'_, Registry<Session, Process>> {
        sync::lock(&self.registry)
    }
}
