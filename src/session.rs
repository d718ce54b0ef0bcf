//! One session: a [`Session`] handle that HTTP talks to, and the [`Worker`] loop that owns the protocol state, the
//! child's pipes and the readers.
//!
//! Laws of the loop: it awaits nothing but its own `select!` branches, so that no reader and no stuck pipe can hold
//! it; the machine decides and the loop moves bytes; and death has an order: name the reason, close the mailbox,
//! fail the queue. A caller that races with it either cannot send or gets an answer.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::proto::ids::{ClientId, EventId, SessionId, StreamId};
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::log::EventLog;
use crate::proto::machine::{Drop as Dropped, Expired, Fate, Limits, Machine, Refusal, Told};
use crate::proto::message::{Kind, Message, elements, is_array};
use crate::proto::version::Revision;

pub mod reader;

use reader::{Delivery, Event, Feed, Reader, Unsent, What};

/// Messages that wait for the loop. A POST waits for a place; the loop takes them in bunches.
const MAILBOX: usize = 64;

/// Bytes for the child's stdin beyond which the session takes no new message: a child that does not read makes its
/// own clients wait and nobody else.
const MAX_STDIN_QUEUE: usize = 8 * 1024 * 1024;

/// How long the child's last words are read after it exited, or its exit waited for after its last word. A
/// grandchild can hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// How long calls in flight may still be answered by a child that has closed its stdin.
const CLOSED_STDIN_GRACE: Duration = Duration::from_secs(5);

/// How long what is queued for stdin is written after the session ended.
const FLUSH: Duration = Duration::from_millis(500);

/// How many noisy lines of the child are logged one by one; from then on once per [`NOISE_PAUSE`].
const NOISE_LINES: u64 = 10;

/// See [`NOISE_LINES`].
const NOISE_PAUSE: Duration = Duration::from_secs(60);

/// How much of a noisy line is logged, in characters.
const NOISE_WIDTH: usize = 256;

/// What an operator sets for all sessions.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Timeouts and bounds of the protocol.
    pub limits: Limits,
    /// How long a session may have nothing in flight and nobody listening.
    pub idle_timeout: Duration,
    /// The longest message taken from a child, in bytes.
    pub max_message: usize,
    /// Bytes of events kept per session for resumption.
    pub replay_buffer: usize,
    /// Whether streams begin with an event that carries only an id, so that they can be resumed from the start.
    pub prime: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal of this name ended it.
    Signal(&'static str),
    /// It ended, but somebody else took its status.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

/// Why a session ended. Each end has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A client sent DELETE.
    Deleted,
    /// The client left before it was told the session's id: nobody can ever use it.
    Unclaimed,
    /// Nothing in flight and nobody listening for this long.
    Idle(Duration),
    /// The bridge is stopping.
    Shutdown,
    /// The child answered `initialize` with an error.
    Refused,
    /// The child did not answer `initialize` within this time.
    InitTimeout(Duration),
    /// The child exited.
    Exited(Exit),
    /// The child closed its stdout and lives on.
    StdoutClosed,
    /// The child closed its stdin and lives on.
    StdinClosed,
    /// The child sent a message longer than this many bytes, and nothing in it said whose answer it was.
    TooLong(usize),
}

impl End {
    /// As it stands in the log and in `data.cause` of later refusals.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Unclaimed => "unclaimed",
            Self::Idle(_) => "idle",
            Self::Shutdown => "shutdown",
            Self::Refused => "initialize_refused",
            Self::InitTimeout(_) => "init_timeout",
            Self::Exited(_) => "child_exited",
            Self::StdoutClosed => "child_stdout_closed",
            Self::StdinClosed => "child_stdin_closed",
            Self::TooLong(_) => "response_too_large",
        }
    }

    /// Whether an operator should look at it.
    pub fn is_trouble(self) -> bool {
        !matches!(self, Self::Deleted | Self::Idle(_) | Self::Shutdown | Self::Exited(Exit::Code(0)))
    }
}

/// Why a request got the bridge's answer in place of the child's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The session ended while it was in flight.
    Ended(End),
    /// No answer within the request timeout.
    Timeout(Duration),
    /// The client cancelled it, and the child did not answer.
    Cancelled,
    /// The child's answer is longer than this many bytes.
    TooLong(usize),
    /// This many requests of the session are in flight already.
    Overload(usize),
    /// It stood in a batch and could not be taken.
    Refused(Refusal),
}

/// What one POST carries.
#[derive(Debug)]
pub enum Posted {
    /// One message.
    One(Message),
    /// A batch.
    Batch(Vec<Message>),
}

impl Posted {
    fn into_messages(self) -> Vec<Message> {
        match self {
            Self::One(message) => vec![message],
            Self::Batch(messages) => messages,
        }
    }
}

#[derive(Debug)]
enum Command {
    Post { posted: Posted, streams: bool, feed: Feed },
    Listen { after: Option<EventId>, feed: Feed },
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

/// The handle of a session.
#[derive(Clone, Debug)]
pub struct Session(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: SessionId,
    mailbox: mpsc::Sender<Command>,
    stop: watch::Sender<Stop>,
    left: Arc<Notify>,
    negotiated: OnceLock<Box<str>>,
    ended: OnceLock<End>,
}

impl Session {
    /// A session and its loop. `initialize` is the request that opens it; its answer comes to the reader.
    /// `streams`: whether the client takes an event stream.
    pub fn new(config: Config, id: SessionId, initialize: Message, streams: bool) -> (Self, Worker, Reader) {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let left = Arc::new(Notify::new());
        let (feed, reader) = reader::queue(Arc::clone(&left));
        let shared = Arc::new(Shared {
            id,
            mailbox: sender,
            stop: watch::Sender::new(Stop::No),
            left,
            negotiated: OnceLock::new(),
            ended: OnceLock::new(),
        });
        let worker = Worker { config, shared: Arc::clone(&shared), mailbox, initialize, streams, feed };
        (Self(shared), worker, reader)
    }

    /// The session's id.
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

    /// Passes messages on. `streams`: whether the client takes an event stream. Waits while the session is full.
    ///
    /// For requests the reader gets their events; otherwise it gets [`Delivery::Accepted`] or
    /// [`Delivery::Refused`].
    ///
    /// # Errors
    /// Why the session ended, where it has.
    pub async fn post(&self, posted: Posted, streams: bool) -> Result<Reader, End> {
        let (feed, reader) = reader::queue(Arc::clone(&self.0.left));
        self.send(Command::Post { posted, streams, feed }).await?;
        Ok(reader)
    }

    /// Listens to what the child sends unasked, or resumes a stream behind the event `after`.
    ///
    /// # Errors
    /// Why the session ended, where it has.
    pub async fn listen(&self, after: Option<EventId>) -> Result<Reader, End> {
        let (feed, reader) = reader::queue(Arc::clone(&self.0.left));
        self.send(Command::Listen { after, feed }).await?;
        Ok(reader)
    }

    async fn send(&self, command: Command) -> Result<(), End> {
        let sent = self.0.mailbox.send(command).await;
        sent.map_err(|_| self.0.ended.get().copied().unwrap_or(End::Shutdown))
    }

    /// Ends the session now; what is in flight gets an error.
    pub fn end(&self, why: End) {
        self.0.stop.send_if_modified(|stop| {
            let first = !matches!(stop, Stop::Now(_));
            if first {
                *stop = Stop::Now(why);
            }
            first
        });
    }

    /// Ends the session as soon as nothing is in flight.
    pub fn end_when_idle(&self) {
        self.0.stop.send_if_modified(|stop| {
            let first = *stop == Stop::No;
            if first {
                *stop = Stop::WhenIdle;
            }
            first
        });
    }
}

/// The loop of a session, not yet running.
#[derive(Debug)]
pub struct Worker {
    config: Config,
    shared: Arc<Shared>,
    mailbox: mpsc::Receiver<Command>,
    initialize: Message,
    streams: bool,
    feed: Feed,
}

/// What is left of a session: why it ended, and the child's stdout, which must be read on while the child leaves.
#[derive(Debug)]
pub struct Ended<R> {
    /// Why.
    pub why: End,
    /// The child's stdout.
    pub stdout: R,
}

/// What is known of a child that is about to be gone.
#[derive(Debug)]
struct Dying {
    exit: Option<Exit>,
    stdout_ended: bool,
    stdin_closed: bool,
    until: Instant,
}

impl Dying {
    fn end(&self) -> End {
        match self {
            Self { exit: Some(exit), .. } => End::Exited(*exit),
            Self { stdout_ended: true, .. } => End::StdoutClosed,
            _ => End::StdinClosed,
        }
    }
}

impl Worker {
    /// Runs the session until it ends. Dropping stdin at the end is the child's sign to leave.
    pub async fn run<W, R>(
        mut self,
        mut stdin: W,
        mut stdout: R,
        exit: impl Future<Output = Exit>,
    ) -> Ended<R>
    where
        W: AsyncWrite + Unpin,
        R: AsyncRead + Unpin,
    {
        let mut core = Core::new(self.config, &self.shared);
        core.open(&self.initialize, self.streams, self.feed);
        let mut decoder = LineDecoder::new(self.config.max_message);
        let mut stop = self.shared.stop.subscribe();
        let left = Arc::clone(&self.shared.left);
        let mut dying: Option<Dying> = None;
        let mut armed = Instant::now() + self.config.limits.init_timeout;
        tokio::pin! {
            let exit = exit;
            let timer = sleep_until(armed);
        }

        let why = loop {
            if let Some(why) = core.over() {
                break why;
            }
            match *stop.borrow_and_update() {
                Stop::Now(why) => break why,
                Stop::WhenIdle if core.machine.in_flight() == 0 => break End::Shutdown,
                Stop::WhenIdle | Stop::No => {}
            }
            if let Some(dying) = &dying {
                let complete = dying.exit.is_some() && dying.stdout_ended;
                let served = dying.stdin_closed && core.machine.in_flight() == 0;
                if complete || served || dying.until <= Instant::now() {
                    break dying.end();
                }
            }
            // The timer is moved only forward in urgency: nearly every deadline is later than the one it is set to.
            let deadline = dying.as_ref().map(|dying| dying.until).into_iter().chain(core.deadline()).min();
            if let Some(deadline) = deadline
                && (deadline < armed || timer.is_elapsed())
            {
                armed = deadline;
                timer.as_mut().reset(armed);
            }
            tokio::select! {
                status = &mut exit, if dying.as_ref().is_none_or(|dying| dying.exit.is_none()) => {
                    let dying = dying.get_or_insert_with(|| Dying::begin(LAST_WORDS));
                    dying.exit = Some(status);
                    dying.until = dying.until.min(Instant::now() + LAST_WORDS);
                }
                read = stdout.read_buf(decoder.buffer()),
                    if dying.as_ref().is_none_or(|dying| !dying.stdout_ended) =>
                {
                    while let Some(frame) = decoder.next() {
                        core.frame(frame);
                    }
                    if matches!(read, Ok(0) | Err(_)) {
                        core.last_line(&mut decoder);
                        let dying = dying.get_or_insert_with(|| Dying::begin(LAST_WORDS));
                        dying.stdout_ended = true;
                        dying.until = dying.until.min(Instant::now() + LAST_WORDS);
                    }
                }
                written = stdin.write(&core.stdin),
                    if !core.stdin.is_empty() && dying.as_ref().is_none_or(|dying| !dying.stdin_closed) =>
                {
                    match written {
                        Ok(count) if count > 0 => core.written(count),
                        _ => {
                            let dying = dying.get_or_insert_with(|| Dying::begin(CLOSED_STDIN_GRACE));
                            dying.stdin_closed = true;
                        }
                    }
                }
                Some(command) = self.mailbox.recv(), if core.accepting() && dying.is_none() => {
                    core.command(command);
                    // Many lines per write(2): whatever else has come goes along.
                    while core.accepting() && let Ok(command) = self.mailbox.try_recv() {
                        core.command(command);
                    }
                }
                () = left.notified() => core.sweep(),
                _ = stop.changed() => {}
                () = &mut timer, if deadline.is_some() => {}
            }
            core.expire();
        };

        let _ = self.shared.ended.set(why);
        self.mailbox.close();
        while let Ok(command) = self.mailbox.try_recv() {
            let (Command::Post { feed, .. } | Command::Listen { feed, .. }) = command;
            feed.push(Delivery::Gone(why));
        }
        core.fail(why);
        if !core.stdin.is_empty() && dying.is_none() {
            let _ = timeout(FLUSH, stdin.write_all(&core.stdin)).await;
        }
        Ended { why, stdout }
    }
}

impl Dying {
    fn begin(grace: Duration) -> Self {
        Self { exit: None, stdout_ended: false, stdin_closed: false, until: Instant::now() + grace }
    }
}

/// One stream of the session: the answer to a POST, or what a GET listens to.
#[derive(Debug)]
struct Stream {
    feed: Option<Feed>,
    /// The place of its newest event.
    place: u64,
    /// How many of its requests have no answer.
    unanswered: usize,
}

/// The session without its pipes: every step is synchronous.
struct Core<'s> {
    config: Config,
    shared: &'s Shared,
    machine: Machine,
    log: EventLog<Event>,
    streams: HashMap<StreamId, Stream>,
    last_stream: StreamId,
    /// The place of the newest event of the listening stream that some reader took.
    heard: u64,
    /// What is on its way to the child.
    stdin: BytesMut,
    began: Instant,
    active: Instant,
    /// The length of an answer that was too long and could not be told whose it was.
    lost: bool,
    noise: u64,
    noise_logged: Instant,
}

impl<'s> Core<'s> {
    fn new(config: Config, shared: &'s Shared) -> Self {
        let began = Instant::now();
        let mut log = EventLog::new(config.replay_buffer);
        log.skip(EventId { stream: StreamId::LISTENING, place: 0 });
        let listening = Stream { feed: None, place: 0, unanswered: 0 };
        Self {
            config,
            shared,
            machine: Machine::new(config.limits),
            log,
            streams: HashMap::from([(StreamId::LISTENING, listening)]),
            last_stream: StreamId::LISTENING,
            heard: 0,
            stdin: BytesMut::new(),
            began,
            active: began,
            lost: false,
            noise: 0,
            noise_logged: began,
        }
    }

    fn sid(&self) -> &str {
        self.shared.id.short()
    }

    /// Why the session must end by itself.
    fn over(&self) -> Option<End> {
        if self.machine.refused() {
            return Some(End::Refused);
        }
        if self.lost {
            return Some(End::TooLong(self.config.max_message));
        }
        let now = Instant::now();
        if !self.machine.started() && now >= self.began + self.config.limits.init_timeout {
            return Some(End::InitTimeout(self.config.limits.init_timeout));
        }
        self.idle_deadline().filter(|deadline| *deadline <= now).map(|_| End::Idle(self.config.idle_timeout))
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let idle = self.machine.in_flight() == 0 && !is_live(&self.streams, StreamId::LISTENING);
        idle.then(|| self.active + self.config.idle_timeout)
    }

    fn deadline(&self) -> Option<Instant> {
        let protocol = self.machine.next_deadline().map(|deadline| self.began + deadline);
        protocol.into_iter().chain(self.idle_deadline()).min()
    }

    fn accepting(&self) -> bool {
        self.machine.accepting() && self.stdin.len() < MAX_STDIN_QUEUE
    }

    fn written(&mut self, count: usize) {
        self.stdin.advance(count);
        if self.stdin.is_empty() && self.stdin.capacity() > MAILBOX * 1024 {
            self.stdin = BytesMut::new(); // an idle session keeps no big buffer
        }
    }

    fn open(&mut self, initialize: &Message, streams: bool, feed: Feed) {
        let stream = self.add_stream(feed, 1);
        self.machine.open(initialize, stream, streams, self.began.elapsed(), &mut self.stdin);
    }

    fn add_stream(&mut self, feed: Feed, unanswered: usize) -> StreamId {
        self.last_stream.0 += 1;
        let stream = self.last_stream;
        let start = EventId { stream, place: 0 };
        feed.begin(start);
        if self.config.prime {
            self.log.skip(start);
        }
        self.streams.insert(stream, Stream { feed: Some(feed), place: 0, unanswered });
        stream
    }

    fn command(&mut self, command: Command) {
        self.active = Instant::now();
        match command {
            Command::Post { posted, streams, feed } => self.post(posted, streams, feed),
            Command::Listen { after, feed } => self.listen(after, feed),
        }
    }

    fn post(&mut self, posted: Posted, streams: bool, feed: Feed) {
        let alone = matches!(posted, Posted::One(_));
        let messages = posted.into_messages();
        let requests = messages.iter().filter(|message| message.kind() == Kind::Request).count();
        if requests == 0 {
            let mut first = Delivery::Accepted;
            for message in messages {
                if let Err(refusal) = self.pass_on(message, StreamId::LISTENING, false)
                    && alone
                {
                    first = Delivery::Refused(refusal);
                }
            }
            feed.push(first);
            return;
        }
        let stream = self.add_stream(feed, requests);
        for message in messages {
            let id = message.id().map(ClientId);
            let request = message.kind() == Kind::Request;
            let Err(refusal) = self.pass_on(message, stream, streams) else { continue };
            if alone {
                if let Some(Stream { feed: Some(feed), .. }) = self.streams.remove(&stream) {
                    self.log.end(stream);
                    feed.push(Delivery::Refused(refusal));
                }
            } else if let (true, Some(id)) = (request, id) {
                self.deliver(stream, What::Fault { id, fault: Fault::Refused(refusal) });
            }
        }
    }

    fn pass_on(&mut self, message: Message, stream: StreamId, streams: bool) -> Result<(), Refusal> {
        let now = self.began.elapsed();
        match self.machine.client(message, stream, streams, now, &mut self.stdin)? {
            Fate::Taken => {}
            Fate::Swallowed(why) => debug!(event = "client.swallowed", sid = self.sid(), why),
            Fate::Overload(id) => {
                let fault = Fault::Overload(self.config.limits.max_in_flight);
                self.deliver(stream, What::Fault { id, fault });
            }
            Fate::Withdrawn(stream, id) => self.deliver(stream, What::Fault { id, fault: Fault::Cancelled }),
        }
        Ok(())
    }

    fn listen(&mut self, after: Option<EventId>, feed: Feed) {
        let (stream, missed) = match after {
            None => {
                self.settle_heard();
                let heard = EventId { stream: StreamId::LISTENING, place: self.heard };
                feed.begin(heard);
                (StreamId::LISTENING, self.log.rest(heard))
            }
            Some(after) => match self.log.replay(after) {
                Ok(missed) => {
                    feed.begin(after);
                    (after.stream, missed)
                }
                Err(why) => {
                    debug!(event = "stream.no_replay", sid = self.sid(), id = %after, ?why);
                    feed.push(Delivery::NoReplay);
                    return;
                }
            },
        };
        feed.push(Delivery::Accepted);
        for (_, event) in missed {
            feed.push(Delivery::Event(event));
        }
        // A stream whose last answer is given ends behind it.
        let Some(stream) = self.streams.get_mut(&stream) else { return };
        if let Some(older) = stream.feed.replace(feed) {
            older.supersede();
        }
    }

    /// Remembers how far the listening stream has been heard, before its reader is replaced or forgotten.
    fn settle_heard(&mut self) {
        if let Some(Stream { feed: Some(feed), .. }) = self.streams.get(&StreamId::LISTENING) {
            self.heard = self.heard.max(feed.taken());
        }
    }

    /// Forgets readers that have left.
    fn sweep(&mut self) {
        self.active = Instant::now();
        self.settle_heard();
        for stream in self.streams.values_mut() {
            if stream.feed.as_ref().is_some_and(|feed| !feed.is_live()) {
                stream.feed = None;
            }
        }
    }

    fn frame(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::Line(line) => self.line(line.bytes()),
            Frame::TooLong { head, length } => {
                let max = self.config.max_message;
                let call = self.machine.too_long(head);
                warn!(
                    event = "child.message_too_long",
                    sid = self.sid(),
                    length,
                    max,
                    whose = call.is_some(),
                    "raise --max-message if the server is right to send this much"
                );
                match call {
                    Some((stream, id)) => {
                        self.deliver(stream, What::Fault { id, fault: Fault::TooLong(max) })
                    }
                    None => self.lost = true,
                }
            }
        }
    }

    /// The child's stdout has ended: what is there without a line end counts if it is a whole message.
    fn last_line(&mut self, decoder: &mut LineDecoder) {
        if let Some(line) = decoder.finish() {
            info!(event = "child.partial_line", sid = self.sid(), bytes = line.bytes().len());
            self.line(line.bytes());
        }
    }

    fn line(&mut self, line: &[u8]) {
        let repaired;
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(_) => {
                warn!(event = "child.invalid_utf8", sid = self.sid(), bytes = line.len());
                repaired = String::from_utf8_lossy(line);
                &*repaired
            }
        };
        if !is_array(line) {
            return self.message(text);
        }
        match elements(text) {
            Ok(messages) if !messages.is_empty() => messages.into_iter().for_each(|text| self.message(text)),
            _ => self.noisy(text),
        }
    }

    fn message(&mut self, text: &str) {
        let now = self.began.elapsed();
        let streams = &self.streams;
        let told = self.machine.child(text, now, &|stream| is_live(streams, stream), &mut self.stdin);
        match told {
            Told::Answer { stream, message, success } => {
                self.active = Instant::now();
                if let (None, Some(version)) = (self.shared.negotiated.get(), self.machine.negotiated()) {
                    let _ = self.shared.negotiated.set(version.into());
                }
                self.deliver(stream, What::Answer { message, success });
            }
            Told::Event { stream, message } => self.deliver(stream, What::Message(message)),
            Told::Replied(to) => debug!(event = "child.replied", sid = self.sid(), to),
            Told::Dropped(Dropped::Noise) => self.noisy(text),
            Told::Dropped(why) => info!(event = "child.dropped", sid = self.sid(), why = why.as_str()),
        }
        while self.machine.release(&mut self.stdin) {}
    }

    /// stdout carries messages only, but many servers print a banner or a log line there.
    fn noisy(&mut self, text: &str) {
        self.noise += 1;
        if self.noise > NOISE_LINES && self.noise_logged.elapsed() < NOISE_PAUSE {
            return;
        }
        self.noise_logged = Instant::now();
        let line: String = text.chars().take(NOISE_WIDTH).collect();
        let hint = if text.starts_with('{') {
            "looks like JSON: a message must stand on one line"
        } else {
            "not a message: a server logs to stderr, not to stdout"
        };
        warn!(event = "child.stdout_noise", sid = self.sid(), count = self.noise, line = ?line, hint);
    }

    /// Gives an event to its stream.
    fn deliver(&mut self, id: StreamId, what: What) {
        let sid = self.shared.id.short();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.place += 1;
        let answer = what.is_answer();
        let last = answer && stream.unanswered <= 1;
        let event = Event { id: EventId { stream: id, place: stream.place }, what, last };
        // Nobody can ask for the first event of a POST again: only an id that was seen can be resumed behind.
        let keep = id == StreamId::LISTENING || stream.place > 1 || self.config.prime;
        if keep {
            self.log.push(event.id, event.clone(), event.what.size(), answer);
        } else if !last {
            self.log.skip(event.id);
        }
        match stream.feed.as_ref().map(|feed| feed.offer(event)) {
            Some(Ok(())) => {}
            Some(Err(Unsent::Lagging)) => {
                warn!(event = "stream.cut", sid, stream = id.0, "the client does not read; it can resume");
                stream.feed = None;
            }
            None | Some(Err(Unsent::Gone)) if !keep => {
                debug!(event = "response.undeliverable", sid, stream = id.0);
            }
            None | Some(Err(Unsent::Gone)) => {}
        }
        if answer {
            stream.unanswered = stream.unanswered.saturating_sub(1);
        }
        if last {
            self.log.end(id);
            self.streams.remove(&id);
        }
    }

    fn expire(&mut self) {
        let now = self.began.elapsed();
        loop {
            let streams = &self.streams;
            let expired = self.machine.expire(now, &|stream| is_live(streams, stream), &mut self.stdin);
            match expired {
                None | Some(Expired::Initialize) => return, // over() ends the session
                Some(Expired::Request(stream, id)) => {
                    let after = self.config.limits.request_timeout;
                    warn!(event = "request.timeout", sid = self.sid(), ?after, "see --request-timeout");
                    self.deliver(stream, What::Fault { id, fault: Fault::Timeout(after) });
                }
                Some(Expired::Cancelled(stream, id)) => {
                    self.deliver(stream, What::Fault { id, fault: Fault::Cancelled });
                }
                Some(Expired::Unheard) => warn!(
                    event = "child.request_unheard",
                    sid = self.sid(),
                    "the server asked its client something, and no client listened"
                ),
            }
        }
    }

    /// Ends everything that is in flight, and every stream.
    fn fail(&mut self, why: End) {
        for (stream, id) in self.machine.abandon() {
            self.deliver(stream, What::Fault { id, fault: Fault::Ended(why) });
        }
        self.streams.clear();
    }
}

fn is_live(streams: &HashMap<StreamId, Stream>, stream: StreamId) -> bool {
    streams.get(&stream).and_then(|stream| stream.feed.as_ref()).is_some_and(Feed::is_live)
}
