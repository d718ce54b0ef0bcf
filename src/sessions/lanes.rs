//! Sessions that share a server: each of them is on a lane of it, and takes another lane where it outlives the server. The
//! shared server is a session too, which the bridge opens under a key; it alone has a process.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::blame::backoff;
use super::pipes::{Stdin, Stdout};
use super::registry::Live;
use super::seats::Seat;
use super::snapshot::State;
use super::supervisor::{LOSSES, MAX_REFUSED, RESPAWNS, Respawn, SessionEnd, hint};
use super::{NoSession, Opening, STARTS, Sessions};
use crate::first_words::FirstWords;
use crate::heap;
use crate::proto::downgrade::MAX_KEPT;
use crate::proto::ids::SessionId;
use crate::proto::link::{Readiness, own_discover, own_initialize_of_all, wanted_revision};
use crate::proto::message::Request;
use crate::proto::version::{Era, Revision};
use crate::secret::Digest;
use crate::session::worker::{Ended, LostChild, Pipes, Worker};
use crate::session::{self, Clients, End, Lane, Session};
use crate::sync;

/// How many bytes longer a message may be on its way to a session, because of the ids in it.
const IDS: usize = 1024;

/// How long the place of a session that ends is waited for: it has no process that must leave.
const LEAVING: Duration = Duration::from_secs(2);

/// How often a session that waits before it opens another server looks whether others have opened one.
const LOOK: Duration = Duration::from_millis(250);

/// A server that sessions share.
#[derive(Clone, Debug)]
pub struct SharedServer {
    /// What names it.
    pub key: Digest,
    /// The only caller whose sessions it has; `None` where callers share it.
    pub owner: Option<Digest>,
    /// Whether its clients are strangers to each other.
    pub strangers: bool,
}

/// How a shared server is opened, where there is none.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    server: SharedServer,
    environment: Vec<(OsString, OsString)>,
    era: Era,
    /// What its first session asks for.
    revision: Revision,
}

impl Wanted {
    pub(super) fn of(server: SharedServer, opening: &Opening) -> Self {
        let (environment, revision) = (opening.environment.clone(), wanted_revision(&opening.initialize));
        Self { server, environment, era: opening.era, revision }
    }
}

/// A lane for a session, and its place among those on lanes.
pub(super) struct Joined {
    pub(super) server: Session,
    lane: Lane,
    seat: Seat,
}

impl Joined {
    /// The era of the server.
    pub(super) fn child(&self) -> Era {
        child(&self.server)
    }
}

/// The era of a shared server.
fn child(server: &Session) -> Era {
    server.clients().map_or(Era::Legacy, Clients::child)
}

impl Sessions {
    /// The shared server, opened if there is none. Its era is that in which it was opened, which may not be the wanted one.
    pub(super) async fn server(self: &Arc<Self>, wanted: &Wanted) -> Result<Session, NoSession> {
        let Wanted { server: SharedServer { key, owner, strangers }, environment, era, revision } = wanted;
        // It may have been found out since the client was seen that the server speaks 2026-07-28 alone.
        let is_modern_only = self.known_era() == Some(Era::Modern);
        let era = if is_modern_only { Era::Modern } else { *era };
        // One that was asked with initialize before that was known refuses it, or is about to.
        if is_modern_only
            && let Some(stale) = self.find_keyed(*key)
            && stale.clients() == Some(Clients::Sessions)
        {
            self.end(&stale, End::Refused);
        }
        let (initialize, clients) = match era {
            Era::Legacy => (own_initialize_of_all(*revision), Clients::Sessions),
            Era::Modern => (own_discover(), Clients::Modern { strangers: *strangers }),
        };
        let opening = Opening::own(initialize, *owner, environment.clone(), era);
        let open = move |mut config: session::Config, id, initialize, _| {
            config.max_lifetime = None; // it lasts as long as its sessions
            let (session, worker) = Session::shared(config, id, initialize, clients);
            (session, worker, ())
        };
        let opened = self.launch(opening, Some(*key), open);
        self.of_key(*key, async { opened.await.map(|(session, ())| session) }).await
    }

    /// A lane of the shared server, and a place for the session on it.
    pub(super) async fn join(self: &Arc<Self>, wanted: &Wanted) -> Result<Joined, NoSession> {
        let seat = self.lane_seat().await?;
        let (server, lane) = self.lane(wanted).await?;
        Ok(Joined { server, lane, seat })
    }

    /// A lane of the shared server. One that has just ended is replaced, once.
    async fn lane(self: &Arc<Self>, wanted: &Wanted) -> Result<(Session, Lane), NoSession> {
        let config = &self.config.session;
        // What a session says is what its client has said, and what translation adds to that: with a call that is sent again,
        // all that its client has answered.
        let max_message = config.max_message.max(config.max_body.saturating_mul(2)).saturating_add(MAX_KEPT);
        let mut is_first = true;
        loop {
            let server = self.server(wanted).await?;
            match server.lane(max_message, config.fault_text).await {
                Ok(lane) => return Ok((server, lane)),
                Err(why) => {
                    self.retire(server.id(), why); // its supervisor may not have run yet
                    if !std::mem::take(&mut is_first) {
                        return Err(NoSession::Lost(why));
                    }
                }
            }
        }
    }

    /// A place for a session on a lane. Where all are taken, an idle one may give way as among sessions with processes.
    async fn lane_seat(&self) -> Result<Seat, NoSession> {
        if !self.is_taking() {
            return Err(NoSession::Draining);
        }
        if let Some(seat) = self.lane_seats.try_take() {
            return Ok(seat);
        }
        // Fewer sessions than places: one is ending, and has told its client so.
        let is_one_coming =
            || self.lock().live().filter(|live| live.server.is_some()).count() < self.config.max_sessions;
        let seat = if is_one_coming() || self.evict(true).await {
            timeout(LEAVING, self.lane_seats.take()).await.ok().flatten()
        } else {
            None
        };
        seat.ok_or(NoSession::Full(self.config.max_sessions))
    }

    /// Starts a session that `open` makes on this lane, under this key if it has one.
    pub(super) fn launch_on_lane<T>(
        self: &Arc<Self>,
        opening: Opening,
        wanted: Wanted,
        joined: Joined,
        key: Option<Digest>,
        open: impl FnOnce(session::Config, SessionId, Request, Era) -> (Session, Worker, T),
    ) -> Result<(Session, T), NoSession> {
        if !self.is_taking() {
            return Err(NoSession::Draining); // the bridge may have begun to stop during the wait
        }
        let id = self.new_id()?;
        let (child, Joined { server, lane, seat }) = (joined.child(), joined);
        let mut config = self.config.session.clone();
        config.is_on_lane = true;
        config.limits.ready = Readiness::AT_ONCE; // the server's own link waits until it is ready
        config.max_message = config.max_message.saturating_add(IDS); // what the server's own link has let in
        let (session, worker, rest) = open(config, id.clone(), opening.initialize, child);
        self.accounts.add(session.account());
        let owner = opening.owner;
        let live = Live {
            session: session.clone(),
            key,
            began: Instant::now().into_std(),
            child: None,
            server: None,
            state: State::Starting,
            has_worked: true,
        };
        let (is_caller, pid) = {
            let mut registry = self.lock();
            registry.add(id.clone(), owner, live);
            let pid = registry.note_lane(&id, State::Starting, server.id()).map(|child| child.pid());
            (registry.is_caller(owner), pid)
        };
        if let Some(count) = STARTS.take() {
            let (sid, server, keyed) = (id.short(), server.id().short(), key.is_some());
            info!(event = "session.start", sid, pid, server, keyed, count, "a session has started");
        }
        let supervisor = Arc::new(LaneSupervisor {
            sessions: Arc::clone(self),
            session: session.clone(),
            wanted,
            child,
            server: Mutex::new(server.id().clone()),
            blamed: AtomicU32::new(0),
            _seat: seat,
        });
        tokio::spawn(supervisor.run(worker, server.id().clone(), lane));
        if !is_caller {
            self.end(&session, End::Revoked); // its token was taken away while it waited for its lane
        }
        Ok((session, rest))
    }
}

/// Looks after the lanes of one session, one after the other. When it is dropped the session's place is free.
#[derive(Debug)]
struct LaneSupervisor {
    sessions: Arc<Sessions>,
    session: Session,
    wanted: Wanted,
    /// In which era the session speaks on its lane.
    child: Era,
    /// The server of its lane, or of its last one.
    server: Mutex<SessionId>,
    /// How many servers in a row have ended while it had calls.
    blamed: AtomicU32,
    _seat: Seat,
}

impl Drop for LaneSupervisor {
    fn drop(&mut self) {
        self.sessions.retire(self.session.id(), End::Shutdown); // where the runtime has ended before the session
        heap::note_freed(self.sessions.config.session.replay_buffer); // or about so much
    }
}

impl LaneSupervisor {
    /// Runs the session to its end.
    async fn run(self: Arc<Self>, worker: Worker, server: SessionId, lane: Lane) {
        let began = Instant::now();
        let first = self.attach(server, lane);
        let this = Arc::clone(&self);
        let respawn: Respawn = Box::new(move |lost| Box::pin(Arc::clone(&this).rejoin(lost)));
        let Ended { why, opened, .. } = worker.run(first, respawn).await;
        self.sessions.retire(self.session.id(), why);
        let server = sync::lock(&self.server).clone();
        let end = SessionEnd { sid: self.session.id().short(), server: Some(server.short()), why, opened };
        end.log(None, began.elapsed(), hint(why, None), false);
    }

    /// The session has lost its server: finds it another lane, after a pause if this was not the first loss.
    async fn rejoin(self: Arc<Self>, lost: LostChild<Stdout>) -> Option<Pipes<Stdin, Stdout>> {
        let (id, sid) = (self.session.id(), self.session.id().short());
        let LostChild { why, stdout, count, was_idle } = lost;
        drop(stdout);
        self.sessions.lock().note(id, State::Restarting, None);
        let blamed = self.blame(count, was_idle);
        let pause = if blamed > 1 { backoff(blamed - 1) } else { Duration::ZERO };
        if LOSSES.take().is_some() {
            let (reason, pause) = (why.cause(), pause.as_secs_f64());
            let server = sync::lock(&self.server).clone();
            let server = server.short();
            warn!(
                event = "child.lost",
                sid,
                server,
                reason,
                count,
                pause,
                "a session has lost its server and continues with a new one"
            );
        }
        self.pause(pause, was_idle).await;
        for refused in 1..=MAX_REFUSED {
            if !self.sessions.is_taking() {
                return None;
            }
            match self.sessions.lane(&self.wanted).await {
                // It was opened for others in the meantime, in the other era.
                Ok((server, _)) if child(&server) != self.child => return None,
                Ok((server, lane)) => {
                    let pid = {
                        let mut registry = self.sessions.lock();
                        registry.note_lane(id, State::Restarting, server.id()).map(|child| child.pid())
                    };
                    if RESPAWNS.take().is_some() {
                        let server = server.id().short();
                        info!(event = "child.respawned", sid, pid, server, "a session has a new server");
                    }
                    return Some(self.attach(server.id().clone(), lane));
                }
                Err(error) => {
                    let error = error.to_string();
                    warn!(event = "child.spawn_failed", sid, error, "a server cannot be started");
                    sleep(backoff(refused)).await;
                }
            }
        }
        None
    }

    /// How many servers in a row this session may have ended, where it has lost so many; of all, where it cannot have ended
    /// this one.
    fn blame(&self, count: u32, was_idle: bool) -> u32 {
        let before = if count > 1 { self.blamed.load(Ordering::Relaxed) } else { 0 };
        let blamed = before + u32::from(!was_idle);
        self.blamed.store(blamed, Ordering::Relaxed);
        if was_idle { count } else { blamed }
    }

    /// Waits for so long: a session whose calls end its server is not to end the next one at once. One that had none waits no
    /// longer than until there is a next server, because other sessions want one.
    async fn pause(&self, pause: Duration, was_idle: bool) {
        let until = Instant::now() + pause;
        let repeats = self.sessions.config.session.limits.restore.is_some(); // what may end the next one, too
        let lost = sync::lock(&self.server).clone();
        let has_next = || {
            let server = self.sessions.find_keyed(self.wanted.server.key);
            server.is_some_and(|server| *server.id() != lost)
        };
        while Instant::now() < until && (!was_idle || repeats || !has_next()) {
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
    }

    /// The lane as the session's loop takes it.
    fn attach(&self, server: SessionId, lane: Lane) -> Pipes<Stdin, Stdout> {
        let Lane { stdin, stdout, exit } = lane;
        let (answered, is_answered) = oneshot::channel();
        let (sessions, id) = (Arc::clone(&self.sessions), self.session.id().clone());
        *sync::lock(&self.server) = server.clone();
        tokio::spawn(async move {
            if let Ok(Ok(())) = is_answered.await {
                sessions.lock().note_lane_open(&id, &server);
            }
        });
        Pipes {
            stdin: Stdin::Lane(stdin),
            stdout: Stdout::Lane(stdout),
            exit,
            answered,
            first_words: Arc::new(FirstWords::default()),
        }
    }
}
