//! A session without its pipes: every step is synchronous. It turns what comes from either side into what the machine
//! is asked, and gives what the machine says to the streams.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::log_limit::LogLimit;
use super::stream::{Delivery, Feed, Payload};
use super::streams::Streams;
use super::{Command, Config, End, Fault, MAX_STDIN_QUEUE, Posted, Shared, Stats};
use crate::proto::ids::{ClientId, StreamId};
use crate::proto::json::{elements, is_array};
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::machine::{Dropped, Expired, Fate, Machine, Refusal, Told, TooLong};
use crate::proto::message::{Kind, Message};

/// A buffer for stdin that grew beyond this many bytes is given back once it is empty.
const KEEP: usize = 64 * 1024;

/// How long a child must live for its loss to count as the first.
const STABLE: Duration = Duration::from_secs(30);

/// After how many failed handshakes in a row the session ends.
const MAX_FAILED_HANDSHAKES: u32 = 5;

/// How much of a noisy line is logged, in characters.
const NOISE_WIDTH: usize = 256;

/// The session without its pipes: every step is synchronous.
pub(super) struct Core<'s> {
    config: Config,
    shared: &'s Shared,
    machine: Machine,
    streams: Streams,
    /// Bytes for the child's stdin.
    pub(super) stdin: BytesMut,
    began: Instant,
    active: Instant,
    /// Whether the session was idle at the end of the last turn.
    idle: bool,
    /// Why the session must end, once that is clear.
    ending: Option<End>,
    losses: Losses,
    /// Notified when the present child, which is not the first, has answered `initialize`.
    answered: Option<Arc<Notify>>,
    /// Clients of a shared session whose `initialize` waits for the child's answer to the bridge's own.
    waiting_inits: Vec<(StreamId, ClientId)>,
    /// Whether the first child has answered `initialize` with a result.
    opened: bool,
    noise: LogLimit,
    invalid: LogLimit,
    dropped: LogLimit,
    not_ready: LogLimit,
}

/// The children that the session has lost.
#[derive(Debug)]
struct Losses {
    /// When the present child was started.
    since: Instant,
    /// How many in a row have been lost within [`STABLE`] of their start.
    in_a_row: u32,
    /// How many of them have not answered `initialize` with a result.
    failed_handshakes: u32,
}

impl<'s> Core<'s> {
    pub(super) fn new(config: Config, shared: &'s Shared) -> Self {
        let began = Instant::now();
        Self {
            machine: Machine::new(config.limits.clone()),
            streams: Streams::new(shared.id.clone(), config.replay_buffer, config.prime),
            config,
            shared,
            stdin: BytesMut::new(),
            began,
            active: began,
            idle: false,
            ending: None,
            losses: Losses { since: began, in_a_row: 0, failed_handshakes: 0 },
            answered: None,
            waiting_inits: Vec::new(),
            opened: false,
            noise: LogLimit::new(),
            invalid: LogLimit::new(),
            dropped: LogLimit::new(),
            not_ready: LogLimit::new(),
        }
    }

    fn sid(&self) -> &str {
        self.shared.id.short()
    }

    /// Why the session must end by itself.
    pub(super) fn end_reason(&self) -> Option<End> {
        if self.machine.refused() {
            return Some(End::Refused);
        }
        if self.ending.is_some() {
            return self.ending;
        }
        let now = Instant::now();
        if let Some(limit) = self.config.max_lifetime
            && now >= self.began + limit
        {
            return Some(End::Lifetime(limit));
        }
        self.idle_deadline().filter(|deadline| *deadline <= now).map(|_| End::Idle(self.config.idle_timeout))
    }

    /// Notes the moment when the session became idle, and lets others know.
    pub(super) fn settle_idle(&mut self) {
        let idle = self.is_idle();
        if idle && !self.idle {
            self.active = Instant::now();
        }
        self.idle = idle;
        let stats = Stats {
            idle_since: idle.then_some(self.active),
            in_flight: self.in_flight(),
            stdin_queue: self.stdin.len(),
        };
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn is_idle(&self) -> bool {
        self.in_flight() == 0 && !self.streams.is_live(StreamId::LISTENING)
    }

    fn idle_deadline(&self) -> Option<Instant> {
        self.is_idle().then(|| self.active + self.config.idle_timeout)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let protocol = self.machine.next_deadline().map(|deadline| self.began + deadline);
        let lifetime = self.config.max_lifetime.map(|limit| self.began + limit);
        [protocol, lifetime, self.streams.next_deadline(), self.idle_deadline()].into_iter().flatten().min()
    }

    /// How many requests have no answer.
    pub(super) fn in_flight(&self) -> usize {
        self.machine.in_flight() + self.waiting_inits.len()
    }

    /// Whether there is room for a further message.
    pub(super) fn accepting(&self) -> bool {
        self.machine.accepting() && self.stdin.len() < MAX_STDIN_QUEUE
    }

    pub(super) fn written(&mut self, count: usize) {
        self.stdin.advance(count);
        if self.stdin.is_empty() && self.stdin.capacity() > KEEP {
            self.stdin = BytesMut::new(); // an idle session keeps no big buffer
        }
    }

    pub(super) fn open(&mut self, initialize: &Message, first: Option<(Feed, bool)>) {
        let now = self.began.elapsed();
        match first {
            Some((feed, streams)) => {
                let stream = self.streams.add(feed, 1);
                self.machine.open(initialize, stream, streams, now, &mut self.stdin);
            }
            None => self.machine.open_shared(initialize, now, &mut self.stdin),
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        self.active = Instant::now();
        match command {
            Command::Post { posted, permit, streams, feed } => {
                self.post(posted, streams, feed);
                drop(permit); // the message is in a bounded queue now
            }
            Command::Listen { after, feed } => self.streams.listen(after, feed),
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
        let stream = self.streams.add(feed, requests);
        for message in messages {
            let id = message.id().map(ClientId);
            let request = message.kind() == Kind::Request;
            let Err(refusal) = self.pass_on(message, stream, streams) else { continue };
            if alone {
                self.streams.refuse(stream, refusal);
            } else if let (true, Some(id)) = (request, id) {
                self.deliver(stream, Payload::Fault { id, fault: Fault::Refused(refusal) });
            }
        }
    }

    fn pass_on(&mut self, message: Message, stream: StreamId, streams: bool) -> Result<(), Refusal> {
        if self.machine.is_shared()
            && message.kind() == Kind::Request
            && message.method() == "initialize"
            && let Some(id) = message.id()
        {
            let id = ClientId(id);
            if self.waiting_inits.len() >= self.config.limits.max_in_flight {
                let fault = Fault::Overload(self.config.limits.max_in_flight);
                self.deliver(stream, Payload::Fault { id, fault });
            } else {
                self.waiting_inits.push((stream, id));
                self.answer_waiting_inits();
            }
            return Ok(());
        }
        let now = self.began.elapsed();
        match self.machine.client(message, stream, streams, now, &mut self.stdin)? {
            Fate::Taken => {}
            Fate::Swallowed(why) => debug!(event = "client.swallowed", sid = self.sid(), why),
            Fate::Overload(id) => {
                let fault = Fault::Overload(self.config.limits.max_in_flight);
                self.deliver(stream, Payload::Fault { id, fault });
            }
            Fate::Withdrawn(stream, id) => {
                self.deliver(stream, Payload::Fault { id, fault: Fault::Cancelled })
            }
        }
        Ok(())
    }

    /// Answers the `initialize` of clients of a shared session with the child's recorded result.
    fn answer_waiting_inits(&mut self) {
        while let Some((stream, id)) = self.waiting_inits.pop() {
            let Some(message) = self.machine.greeting(&id) else {
                self.waiting_inits.push((stream, id));
                return;
            };
            self.deliver(stream, Payload::Answer { message, success: true });
        }
    }

    /// Whether some reader has so much waiting that the child is not to be read.
    pub(super) fn is_full(&self) -> bool {
        self.streams.is_full()
    }

    /// Looks at the readers: some are gone, or have caught up.
    pub(super) fn sweep(&mut self) {
        let now = self.began.elapsed();
        for stream in self.streams.sweep(Instant::now()) {
            self.machine.unheard(stream, now);
        }
        // Without its reader nobody can come back for the answer to an `initialize`.
        let streams = &mut self.streams;
        self.waiting_inits.retain(|(stream, _)| {
            let waits = streams.is_live(*stream);
            if !waits {
                streams.remove(*stream);
            }
            waits
        });
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::Line(line) => self.line(line.bytes()),
            Frame::TooLong { head, length } => {
                let max = self.config.max_message;
                let whose = self.machine.too_long(head, &mut self.stdin);
                warn!(
                    event = "child.message_too_long",
                    sid = self.sid(),
                    length,
                    max,
                    in_flight = self.machine.in_flight(),
                    "raise --max-message if the server is right to send this much"
                );
                match whose {
                    TooLong::Call(stream, id) => {
                        self.deliver(stream, Payload::Fault { id, fault: Fault::TooLong(max) });
                    }
                    TooLong::Nobody => {}
                    TooLong::Unclear => self.ending = Some(End::TooLong(max)),
                }
            }
        }
    }

    /// The child's stdout has ended: what is there without a line end counts if it is a whole message.
    pub(super) fn last_line(&mut self, decoder: &mut LineDecoder) {
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
                if let Some(count) = self.invalid.take() {
                    warn!(event = "child.invalid_utf8", sid = self.sid(), bytes = line.len(), count);
                }
                repaired = String::from_utf8_lossy(line);
                &*repaired
            }
        };
        if !is_array(line) {
            return self.message(text);
        }
        match elements(text) {
            Some(messages) if !messages.is_empty() => {
                messages.into_iter().for_each(|text| self.message(text))
            }
            _ => self.noisy(text),
        }
    }

    fn message(&mut self, text: &str) {
        let now = self.began.elapsed();
        let streams = &self.streams;
        let told = self.machine.child(text, now, &|stream| streams.is_live(stream), &mut self.stdin);
        if !self.opened && self.machine.is_open() {
            self.opened = true;
            if let Some(version) = self.machine.negotiated() {
                let _ = self.shared.negotiated.set(version.into());
            }
            self.shared.opened.send_replace(Some(Ok(())));
            self.answer_waiting_inits();
        }
        match told {
            Told::Answer { stream, message, success } => {
                self.deliver(stream, Payload::Answer { message, success });
            }
            Told::Event { stream, message } => self.deliver(stream, Payload::Message(message)),
            Told::Restored { method, success: true } => {
                if method == "initialize" {
                    self.losses.failed_handshakes = 0;
                    self.tell_answered();
                }
                debug!(event = "child.restored", sid = self.sid(), method);
            }
            Told::Restored { method, success: false } => {
                warn!(
                    event = "child.not_restored",
                    sid = self.sid(),
                    method,
                    "the new child refuses what the old one took"
                );
            }
            Told::Replied(to) => debug!(event = "child.replied", sid = self.sid(), to),
            Told::NotReady => {
                if let Some(count) = self.not_ready.take() {
                    info!(event = "child.not_ready", sid = self.sid(), count, "it is asked again");
                }
            }
            Told::Dropped(Dropped::Noise) => self.noisy(text),
            Told::Dropped(why) => {
                if let Some(count) = self.dropped.take() {
                    info!(event = "child.dropped", sid = self.sid(), why = why.as_str(), count);
                }
            }
        }
        while self.machine.release(&mut self.stdin) {}
    }

    /// stdout carries messages only, but many servers print a banner or a log line there.
    fn noisy(&mut self, text: &str) {
        let Some(count) = self.noise.take() else { return };
        let line: String = text.chars().take(NOISE_WIDTH).collect();
        let hint = if text.starts_with('{') {
            "looks like JSON: a message must stand on one line"
        } else {
            "not a message: a server logs to stderr, not to stdout"
        };
        warn!(event = "child.stdout_noise", sid = self.sid(), count, line = ?line, hint);
    }

    fn deliver(&mut self, stream: StreamId, payload: Payload) {
        self.streams.deliver(stream, payload, Instant::now());
    }

    pub(super) fn expire(&mut self) {
        if self.is_full() {
            self.streams.relieve(Instant::now());
        }
        let now = self.began.elapsed();
        loop {
            let streams = &self.streams;
            let expired = self.machine.expire(now, &|stream| streams.is_live(stream), &mut self.stdin);
            match expired {
                None => break,
                Some(Expired::Initialize) => {
                    self.ending = Some(End::InitTimeout(self.config.limits.init_timeout));
                    return;
                }
                Some(Expired::Request(stream, id)) => {
                    let after = self.config.limits.request_timeout;
                    warn!(event = "request.timeout", sid = self.sid(), ?after, "see --request-timeout");
                    self.deliver(stream, Payload::Fault { id, fault: Fault::Timeout(after) });
                }
                Some(Expired::Cancelled(stream, id)) => {
                    self.deliver(stream, Payload::Fault { id, fault: Fault::Cancelled });
                }
                Some(Expired::Unheard) => warn!(
                    event = "child.request_unheard",
                    sid = self.sid(),
                    "the server asked its client something, and no client listened"
                ),
            }
        }
        while self.machine.release(&mut self.stdin) {} // the delay may be over
    }

    /// The child is lost. If the session goes on with another, fails the calls that the child had and returns how many
    /// children have been lost in a row; `None`: the session ends.
    pub(super) fn child_lost(&mut self, why: End) -> Option<u32> {
        let can = self.config.limits.respawn && why.is_loss() && self.machine.can_restart();
        if !can || self.losses.failed_handshakes == MAX_FAILED_HANDSHAKES {
            return None;
        }
        if self.losses.since.elapsed() >= STABLE {
            self.losses.in_a_row = 0;
        }
        self.losses.in_a_row += 1;
        self.losses.failed_handshakes += 1;
        self.tell_answered();
        self.ending = None;
        self.stdin = BytesMut::new();
        for (stream, id) in self.machine.lose() {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Lost(why) });
        }
        Some(self.losses.in_a_row)
    }

    /// Notes that the present child is no longer starting.
    fn tell_answered(&mut self) {
        if let Some(answered) = self.answered.take() {
            answered.notify_one();
        }
    }

    /// Begins the handshake with a new child.
    pub(super) fn handshake(&mut self, answered: Arc<Notify>) {
        self.losses.since = Instant::now();
        self.answered = Some(answered);
        self.machine.greet(self.began.elapsed(), &mut self.stdin);
    }

    /// Ends everything that is in flight, and every stream.
    pub(super) fn fail(&mut self, why: End) {
        let waiting_inits = std::mem::take(&mut self.waiting_inits);
        for (stream, id) in self.machine.abandon().into_iter().chain(waiting_inits) {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Ended(why) });
        }
        self.streams.end();
    }
}
