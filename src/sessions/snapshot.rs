//! The state of the bridge at one moment, as plain data: for the log, for pages and for metrics.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::Sessions;
use super::registry::Live;
use crate::account::Place;
use crate::proto::ids::SessionId;
use crate::session::{Clients, Session};

/// The state of the bridge at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The live sessions, oldest first.
    pub sessions: Vec<SessionSnapshot>,
    /// Sessions that have ended and still hold a seat, because their children are not gone.
    pub leaving: usize,
    /// Clients that wait for a seat.
    pub waiting: usize,
    /// Children that wait for a session.
    pub warm: usize,
    /// Children that are not gone: of live sessions, of those that are leaving, and the warm ones.
    pub processes: usize,
    /// How many sessions with a child there may be, those that are leaving and the warm children among them, and how many
    /// on lanes.
    pub max_sessions: usize,
    /// Bytes that wait in all sessions, those that have ended among them, and in none.
    pub waiting_bytes: usize,
    /// Those that are for no session yet.
    pub anonymous_bytes: usize,
    /// Why no new session would be started; `None`: it would, as far as there are seats.
    pub not_ready: Option<NotReady>,
}

/// Why no session is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    Draining,
    /// Every child fails at its start; the next is tried after this time.
    Crashing(Duration),
    /// A child that no client has harmed failed to start, and none has answered since.
    Failing,
}

/// The state of a live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSnapshot {
    /// The short form of its id, as log lines have it: enough to recognize it, too little to use it.
    pub sid: String,
    /// Whether a key names it and not its id.
    pub keyed: bool,
    pub state: State,
    /// The process id of its child, or of that which it shares; `None` between two children.
    pub pid: Option<i32>,
    /// The short form of the id of the server that it shares.
    pub server: Option<String>,
    /// How many sessions share its child; `None`: it is none that sessions share.
    pub sessions: Option<usize>,
    /// How long ago it started.
    pub age: Duration,
    /// For how long nothing has been in flight and no client has listened; `None` while that is not so.
    pub idle: Option<Duration>,
    /// Requests without an answer.
    pub in_flight: usize,
    /// Bytes that wait, by places.
    pub waiting: [usize; Place::ALL.len()],
}

impl SessionSnapshot {
    /// Bytes that wait in all places.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.iter().copied().fold(0, usize::saturating_add)
    }
}

/// What a live session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its child has not answered `initialize`.
    Starting,
    /// Its child serves it.
    Open,
    /// It has lost its child, and the next has not answered `initialize`.
    Restarting,
}

impl State {
    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Open => "open",
            Self::Restarting => "restarting",
        }
    }
}

impl NotReady {
    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Crashing(_) => "crashing",
            Self::Failing => "failing",
        }
    }
}

impl Snapshot {
    /// Logs it: one line for the bridge and one for each session.
    pub fn log(&self) {
        info!(
            event = "bridge.state",
            sessions = self.sessions.len(),
            leaving = self.leaving,
            waiting = self.waiting,
            warm = self.warm,
            processes = self.processes,
            max_sessions = self.max_sessions,
            ready = self.not_ready.is_none(),
            not_ready = self.not_ready.map(NotReady::as_str),
            waiting_bytes = self.waiting_bytes,
            anonymous_bytes = self.anonymous_bytes,
            "this is the state of the bridge"
        );
        for session in &self.sessions {
            let [bodies, held, stdin, stdout, replay, readers, responses] =
                session.waiting.map(|bytes| Some(bytes).filter(|bytes| *bytes > 0));
            info!(
                event = "session.state",
                sid = session.sid,
                keyed = session.keyed,
                state = session.state.as_str(),
                pid = session.pid,
                server = session.server,
                sessions = session.sessions,
                in_flight = session.in_flight,
                waiting_bytes = session.waiting_bytes(),
                bodies,
                held,
                stdin,
                stdout,
                replay,
                readers,
                responses,
                idle = session.idle.unwrap_or_default().as_secs(),
                age = session.age.as_secs(),
                "this is the state of a session"
            );
        }
    }
}

impl Sessions {
    /// The present state of the bridge.
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let (warm, waiting) = (self.pool.len(), self.seats.waiting());
        let registry = self.lock();
        let mut on_lanes: HashMap<&SessionId, usize> = HashMap::new();
        for server in registry.live().filter_map(|live| live.server.as_ref()) {
            *on_lanes.entry(server).or_default() += 1;
        }
        let of_session = |live: &Live<Session>| {
            let stats = live.session.stats();
            let is_server = live.session.clients() == Some(Clients::Sessions);
            let sessions = on_lanes.get(live.session.id()).copied();
            SessionSnapshot {
                sid: live.session.id().short().to_owned(),
                keyed: live.key.is_some(),
                state: live.state,
                pid: live.child.as_ref().and_then(|tag| registry.child(tag)).map(|child| child.pid()),
                age: now.into_std().saturating_duration_since(live.began),
                server: live.server.as_ref().map(|server| server.short().to_owned()),
                sessions: if is_server { sessions.or(Some(0)) } else { sessions },
                idle: stats.idle_since.map(|since| now.saturating_duration_since(since)),
                in_flight: stats.in_flight,
                waiting: Place::ALL.map(|place| live.session.account().at(place)),
            }
        };
        let mut sessions: Vec<_> = registry.live().map(of_session).collect();
        sessions.sort_unstable_by(|one, other| other.age.cmp(&one.age).then_with(|| one.sid.cmp(&other.sid)));
        Snapshot {
            sessions,
            leaving: registry.leaving(),
            waiting,
            warm,
            processes: registry.children().len(),
            max_sessions: self.config.max_sessions,
            waiting_bytes: self.accounts.total(),
            anonymous_bytes: self.anonymous.account().total(),
            not_ready: self.not_ready(),
        }
    }

    /// Why no session would be started now, or hardly one. That all seats are taken is no reason: a balancer that goes by this answer
    /// would take the clients of running sessions away.
    pub fn not_ready(&self) -> Option<NotReady> {
        if !self.is_taking() {
            return Some(NotReady::Draining);
        }
        let failing = || self.blame().is_broken().then_some(NotReady::Failing);
        self.paused().map(NotReady::Crashing).or_else(failing)
    }
}
