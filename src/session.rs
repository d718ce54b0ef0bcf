//! One session: a [`Session`] handle that HTTP uses, and the [`worker::Worker`] loop that owns the protocol state,
//! the child's pipes and the readers. Its child is a process, or a [`Lane`] to that of another session; to the loop both
//! are two pipes and an end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc::error::SendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::account::{Account, Held};
pub use crate::exit_status::ExitStatus;
use crate::proto::front::{Mirrored, Takes};
use crate::proto::ids::{EventId, Id, SessionId, StreamId};
use crate::proto::link::Limits;
use crate::proto::message::{Message, Request};
use crate::proto::version::{Era, Revision};
use crate::sync::lock;

mod alarm;
mod body_budget;
mod child_log;
mod core;
mod end;
mod inbox;
mod lane;
mod losses;
mod stdin_queue;
pub mod stream;
mod streams;
pub mod worker;

pub use body_budget::{BodyBudget, BodyPermit, Coming, NoMemory};
use bytes::Bytes;
pub use end::{End, Fault};
use inbox::Post;
pub use lane::{Lane, LaneStdin};
use stream::{Feed, Outlet, Reader};
use worker::Worker;

/// How many commands may wait for the loop. It takes all of them in each turn.
const MAILBOX: usize = 64;

/// Bytes for the child's stdin beyond which nothing is forwarded: a child that does not read makes its own clients wait
/// and no others.
const MAX_STDIN_QUEUE: usize = 4 * 1024 * 1024;

/// Bytes of requests with tiny bodies that may be on their way to one session, and as many with small ones.
const SMALL_BODIES: usize = 2 * 1024 * 1024;

/// Bytes of the bridge's own replies to a child beyond which that is not read: it asks and does not read the answers.
/// What clients send it is not counted, because a child may well write before it reads what it has got.
const MAX_UNREAD_REPLIES: usize = 1024 * 1024;

/// What an operator sets for all sessions.
#[derive(Clone, Debug)]
pub struct Config {
    /// Timeouts and bounds of the protocol.
    pub limits: Limits,
    /// How long a session may have nothing in flight and no client that listens.
    pub idle_timeout: Duration,
    /// How long a session may be without a second request of its client, after the answer to `initialize`.
    pub unclaimed_timeout: Option<Duration>,
    /// How long an answer may take before its reader is told to begin a stream of events.
    pub sse_after: Duration,
    /// How long a session may last at all. One to whose child others have lanes lasts until the last of them has ended.
    pub max_lifetime: Option<Duration>,
    /// The longest request body, in bytes.
    pub max_body: usize,
    /// The longest message taken from a child, in bytes.
    pub max_message: usize,
    /// Bytes of events kept per session for resumption.
    pub replay_buffer: usize,
    /// Whether streams begin with an event that carries only an id, so that they can be resumed from the start.
    pub prime: bool,
    /// Whether its child is a lane: what holds it up holds up other sessions.
    pub is_on_lane: bool,
    /// The JSON-RPC error that tells the client of a request with this id of a fault.
    pub fault_text: fn(&Id, Fault) -> Bytes,
}

/// What one POST carries.
#[derive(Clone, Debug)]
pub enum Posted {
    One(Message),
    Batch(Vec<Message>),
}

/// Messages that are given back, because the session ended before it took them: the child has not seen them, and they
/// may be posted to another session.
#[derive(Debug)]
pub struct NotTaken {
    /// Why the session ended.
    pub why: End,
    pub posted: Box<Posted>,
}

impl NotTaken {
    fn new(why: End, posted: Posted) -> Self {
        Self { why, posted: Box::new(posted) }
    }
}

/// The clients that share a session, and what its child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Clients of the session era that carry no `Mcp-Session-Id`, over a child of it.
    Keyed,
    /// Clients of 2026-07-28 over a child of the session era.
    Upgraded {
        /// Whether they are strangers to each other: then none may get what may be another's.
        strangers: bool,
    },
    /// Other sessions over a child of the session era, each with a [`Lane`] of its own.
    Sessions,
    /// Clients of 2026-07-28 over a child of it, and sessions with a [`Lane`], which speak that revision for
    /// their clients.
    Modern {
        /// See [`Upgraded`](Self::Upgraded).
        strangers: bool,
    },
}

impl Clients {
    /// The era of the child.
    pub fn child(self) -> Era {
        match self {
            Self::Keyed | Self::Upgraded { .. } | Self::Sessions => Era::Legacy,
            Self::Modern { .. } => Era::Modern,
        }
    }
}

/// Whose a session is.
#[derive(Debug)]
enum Whose {
    /// A client's, which has opened it: where the answer goes, what that stream may carry, and the era of the child.
    Client(Feed, Takes, Era),
    /// It has been opened by the bridge.
    Clients(Clients),
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all commands are posts")]
enum Command {
    /// Forward these messages.
    Post(Post),
    /// Give another session its lane, which is the stream of this reader.
    Join(Feed),
    /// Forward what another session says to the child, and say so when that is done.
    FromLane(FromLane),
    /// Attach a reader to the listening stream, or to another behind the event `after`.
    Listen { after: Option<EventId>, feed: Feed },
    /// End for this reason, but only if the session is idle; say whether it does.
    EndIfIdle { why: End, agreed: oneshot::Sender<bool> },
}

/// What another session says to the child.
#[derive(Debug)]
struct FromLane {
    lane: StreamId,
    messages: VecDeque<Message>,
    /// What they weigh that have not been forwarded.
    held: Held,
    /// Dropped when all of it has been taken: there may be more then. So each lane has one of these at most.
    _taken: oneshot::Sender<()>,
}

impl FromLane {
    /// The next message, which leaves the account.
    fn next(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.held.resize(self.held.bytes().saturating_sub(message.text().len()));
        Some(message)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Go on.
    No,
    /// End when nothing is in flight.
    WhenIdle,
    /// End now.
    Now(End),
}

/// The state of a session as others may see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Since when nothing is in flight and no client listens; `None` while that is not so.
    pub idle_since: Option<Instant>,
    /// Whether a client has used it beyond its `initialize`.
    pub is_claimed: bool,
    /// Requests without an answer, and posts that have not been forwarded.
    pub in_flight: usize,
}

/// The handle of a session.
#[derive(Clone, Debug)]
pub struct Session(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: SessionId,
    /// The clients that share it, for whom the bridge opens it in its own name; `None`: it is one client's.
    clients: Option<Clients>,
    mailbox: mpsc::Sender<Command>,
    account: Arc<Account>,
    bodies: BodyBudget,
    stop: Mutex<Stop>,
    /// The only callers that go on, until the loop has seen to it.
    callers: Mutex<Option<Vec<[u8; 32]>>>,
    /// Wakes the loop: [`Shared::stop`] has changed, or a reader is gone or has caught up.
    attention: Arc<Notify>,
    /// What the queues for its readers have in common.
    outlet: Arc<Outlet>,
    stats: Mutex<Stats>,
    negotiated: OnceLock<Box<str>>,
    ended: OnceLock<End>,
}

impl Session {
    /// A session and its loop. `initialize` is the request that opens it; its answer comes to the reader.
    /// `takes`: what its stream may carry. `child`: the era of the child.
    pub fn new(
        config: Config,
        id: SessionId,
        initialize: Request,
        takes: Takes,
        child: Era,
    ) -> (Self, Worker, Reader) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let session = Self::handle(config.max_body, id, sender, None);
        let (feed, reader) = stream::queue(&session.0.outlet);
        let shared = Arc::clone(&session.0);
        let whose = Whose::Client(feed, takes, child);
        (session, Worker { config, shared, mailbox, initialize, whose }, reader)
    }

    /// A session that several clients share and that the bridge opens in its own name, and its loop. `first`: what it
    /// says to the child first, `initialize` or `server/discover`.
    pub fn shared(mut config: Config, id: SessionId, first: Request, clients: Clients) -> (Self, Worker) {
        if clients != Clients::Keyed {
            // 2026-07-28 has no resumption (`basic/transports/streamable-http`), and no state that another child could
            // be told.
            (config.replay_buffer, config.prime, config.limits.respawn) = (0, false, false);
        }
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let session = Self::handle(config.max_body, id, sender, Some(clients));
        let shared = Arc::clone(&session.0);
        (session, Worker { config, shared, mailbox, initialize: first, whose: Whose::Clients(clients) })
    }

    fn handle(
        max_body: usize,
        id: SessionId,
        mailbox: mpsc::Sender<Command>,
        clients: Option<Clients>,
    ) -> Self {
        let (account, attention) = (Arc::<Account>::default(), Arc::<Notify>::default());
        let outlet = Arc::new(Outlet::new(Arc::clone(&account), Arc::clone(&attention)));
        Self(Arc::new(Shared {
            id,
            clients,
            mailbox,
            bodies: BodyBudget::new(SMALL_BODIES, max_body, Arc::clone(&account)),
            account,
            stop: Mutex::new(Stop::No),
            callers: Mutex::default(),
            attention,
            outlet,
            stats: Mutex::default(),
            negotiated: OnceLock::new(),
            ended: OnceLock::new(),
        }))
    }

    /// The clients that share it; `None`: it is one client's.
    pub fn clients(&self) -> Option<Clients> {
        self.0.clients
    }

    /// Why it ended, where it has: it takes nothing any more.
    pub fn end_reason(&self) -> Option<End> {
        self.0.ended.get().copied()
    }

    pub fn id(&self) -> &SessionId {
        &self.0.id
    }

    /// The `protocolVersion` in the child's answer to `initialize`, once that has come.
    pub fn negotiated(&self) -> Option<&str> {
        self.0.negotiated.get().map(|version| &**version)
    }

    /// The negotiated revision, where the bridge knows it.
    pub fn revision(&self) -> Option<Revision> {
        self.negotiated().and_then(Revision::parse)
    }

    /// The bytes that wait in it, or for it.
    pub fn account(&self) -> &Arc<Account> {
        &self.0.account
    }

    /// How it is.
    pub fn stats(&self) -> Stats {
        *lock(&self.0.stats)
    }

    /// The memory for bodies of requests that are for this session. It is closed when the session ends.
    pub fn bodies(&self) -> &BodyBudget {
        &self.0.bodies
    }

    /// Why it takes nothing any more.
    pub fn why_closed(&self) -> End {
        self.end_reason().unwrap_or(End::Shutdown)
    }

    /// Posts messages whose request's head was read at `arrived`: a request that has no answer after
    /// [`Limits::request_timeout`] from then on gets a [`Fault::Timeout`], whether or not the child has read it.
    /// `takes`: what the stream of the answers may carry. The permit of the body is given back once its messages have
    /// been forwarded.
    ///
    /// For requests the reader gets their events; otherwise it gets [`stream::Delivery::Accepted`],
    /// [`stream::Delivery::Refused`] or [`stream::Delivery::NotForwarded`].
    ///
    /// # Errors
    /// [`NotTaken`], where the session has ended. If it ends later, the reader gets [`stream::Delivery::NotTaken`].
    pub async fn post(
        &self,
        posted: Posted,
        permit: Option<BodyPermit>,
        takes: Takes,
        arrived: Instant,
    ) -> Result<Reader, NotTaken> {
        self.deliver(posted, permit, takes, arrived, None).await
    }

    /// The same for a message of 2026-07-28, with what else its head says.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn post_mirrored(
        &self,
        posted: Posted,
        permit: Option<BodyPermit>,
        takes: Takes,
        arrived: Instant,
        mirrored: Mirrored,
    ) -> Result<Reader, NotTaken> {
        self.deliver(posted, permit, takes, arrived, Some(Box::new(mirrored))).await
    }

    async fn deliver(
        &self,
        posted: Posted,
        permit: Option<BodyPermit>,
        takes: Takes,
        arrived: Instant,
        mirrored: Option<Box<Mirrored>>,
    ) -> Result<Reader, NotTaken> {
        let (feed, reader) = stream::queue(&self.0.outlet);
        let post = Post { posted, permit, takes, feed, arrived, mirrored };
        let sent = self.0.mailbox.send(Command::Post(post)).await;
        match sent {
            Err(SendError(Command::Post(post))) => Err(NotTaken::new(self.why_closed(), post.posted)),
            _ => Ok(reader),
        }
    }

    /// Listens to what the child sends unasked, or resumes a stream behind the event `after`.
    ///
    /// # Errors
    /// Why the session ended, where it has.
    pub async fn listen(&self, after: Option<EventId>) -> Result<Reader, End> {
        let (feed, reader) = stream::queue(&self.0.outlet);
        self.send(Command::Listen { after, feed }).await?;
        Ok(reader)
    }

    async fn send(&self, command: Command) -> Result<(), End> {
        let sent = self.0.mailbox.send(command).await;
        sent.map_err(|_| self.why_closed())
    }

    /// Ends what callers other than these have begun in a session that several share. Each is the digest of a token.
    pub fn keep_callers(&self, callers: Vec<[u8; 32]>) {
        *lock(&self.0.callers) = Some(callers);
        self.0.attention.notify_one();
    }

    /// Ends the session now; what is in flight gets an error.
    pub fn end(&self, why: End) {
        let mut stop = lock(&self.0.stop);
        if !matches!(*stop, Stop::Now(_)) {
            *stop = Stop::Now(why);
            self.0.attention.notify_one();
        }
    }

    /// Ends the session as soon as nothing is in flight.
    pub fn end_when_idle(&self) {
        let mut stop = lock(&self.0.stop);
        if *stop == Stop::No {
            *stop = Stop::WhenIdle;
            self.0.attention.notify_one();
        }
    }

    /// Ends the session if nothing is in flight, no client listens, and nothing that was posted before waits for the
    /// loop. Returns whether this call ends it.
    pub async fn end_if_idle(&self, why: End) -> bool {
        let (agreed, answer) = oneshot::channel();
        self.send(Command::EndIfIdle { why, agreed }).await.is_ok() && answer.await.unwrap_or(false)
    }
}
