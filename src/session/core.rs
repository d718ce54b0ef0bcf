//! A session without its pipes: every step is synchronous. It gives what comes from either side to the
//! session's front, and what the front puts out to the streams.

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
use crate::heap;
use crate::proto::front::{Front, Origin, Refusal, Takes, keyed, single};
use crate::proto::ids::{ClientId, StreamId};
use crate::proto::json::{elements, is_array};
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::message::{Message, Request};
use crate::proto::output::{Handshake, Note, Out, Output, Unanswered};

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
    front: Box<dyn Front>,
    streams: Streams,
    /// What the front has put out, the bytes for the child's stdin among it.
    pub(super) out: Out,
    began: Instant,
    active: Instant,
    /// Whether the session was idle at the end of the last turn.
    idle: bool,
    /// Why the session must end, once that is clear.
    ending: Option<End>,
    losses: Losses,
    /// Notified when the present child, which is not the first, has answered `initialize`.
    answered: Option<Arc<Notify>>,
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
    /// Begins the session: `first` is where the answer to `initialize` goes; `None`: it is the bridge's own.
    pub(super) fn open(
        config: Config,
        shared: &'s Shared,
        initialize: &Request,
        first: Option<(Feed, Takes)>,
    ) -> Self {
        let began = Instant::now();
        let mut streams = Streams::new(shared.id.clone(), &config);
        let (limits, mut out, now) = (config.limits.clone(), Out::default(), Duration::ZERO);
        let front: Box<dyn Front> = match first {
            Some((feed, takes)) => {
                let from = Origin { stream: streams.add(feed, 1, takes, began), takes, arrived: now };
                Box::new(single::Single::open(limits, initialize, from, now, &mut out))
            }
            None => Box::new(keyed::Keyed::open(limits, initialize, now, &mut out)),
        };
        Self {
            front,
            streams,
            config,
            shared,
            out,
            began,
            active: began,
            idle: false,
            ending: None,
            losses: Losses { since: began, in_a_row: 0, failed_handshakes: 0 },
            answered: None,
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
            stdin_queue: self.out.stdin.len(),
        };
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn is_idle(&self) -> bool {
        self.in_flight() == 0 && !self.streams.is_live(StreamId::LISTENING)
    }

    fn idle_deadline(&self) -> Option<Instant> {
        self.is_idle().then(|| self.active + self.config.idle_timeout)
    }

    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let protocol = self.front.next_deadline().map(|deadline| self.began + deadline);
        let lifetime = self.config.max_lifetime.map(|limit| self.began + limit);
        [protocol, lifetime, self.streams.next_deadline(), self.idle_deadline()].into_iter().flatten().min()
    }

    /// How many requests have no answer.
    pub(super) fn in_flight(&self) -> usize {
        self.front.in_flight()
    }

    /// Whether there is room for a further message.
    pub(super) fn accepting(&self) -> bool {
        self.front.accepting() && self.out.stdin.len() < MAX_STDIN_QUEUE
    }

    pub(super) fn written(&mut self, count: usize) {
        let stdin = &mut self.out.stdin;
        stdin.advance(count);
        heap::note_freed(count);
        if stdin.is_empty() && stdin.capacity() > KEEP {
            *stdin = BytesMut::new(); // an idle session keeps no big buffer
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        self.active = Instant::now();
        match command {
            Command::Post { posted, permit, takes, feed } => {
                self.post(posted, takes, feed);
                drop(permit); // the message is in a bounded queue now
            }
            Command::Listen { after, feed } => self.streams.listen(after, feed),
        }
    }

    fn post(&mut self, posted: Posted, takes: Takes, feed: Feed) {
        let alone = matches!(posted, Posted::One(_));
        let messages = posted.into_messages();
        let requests = messages.iter().filter(|message| message.request().is_some()).count();
        if requests == 0 {
            let mut first = Delivery::Accepted;
            for message in messages {
                if let Err(refusal) = self.pass_on(message, StreamId::LISTENING, Takes::AnswerOnly)
                    && alone
                {
                    first = Delivery::Refused(refusal);
                }
            }
            feed.push(first);
            return;
        }
        let stream = self.streams.add(feed, requests, takes, Instant::now());
        for message in messages {
            let id = message.request().map(|request| ClientId(request.id().clone()));
            let Err(refusal) = self.pass_on(message, stream, takes) else { continue };
            if alone {
                self.streams.refuse(stream, refusal);
            } else if let Some(id) = id {
                self.deliver(stream, Payload::Fault { id, fault: Fault::Refused(refusal) });
            }
        }
    }

    fn pass_on(&mut self, message: Message, stream: StreamId, takes: Takes) -> Result<(), Refusal> {
        let now = self.began.elapsed();
        let from = Origin { stream, takes, arrived: now };
        self.front.client(message, from, now, &mut self.out)?;
        self.give_out();
        Ok(())
    }

    /// Whether some reader has so much waiting that the child is not to be read.
    pub(super) fn is_full(&self) -> bool {
        self.streams.is_full()
    }

    /// Looks at the readers: some are gone, or have caught up.
    pub(super) fn sweep(&mut self) {
        let now = self.began.elapsed();
        for (stream, took_all) in self.streams.sweep(Instant::now()) {
            self.front.reader_left(stream, took_all, now, &mut self.out);
        }
        self.give_out();
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::Line(line) => self.line(line.bytes()),
            Frame::TooLong { head, length } => {
                warn!(
                    event = "child.message_too_long",
                    sid = self.sid(),
                    length,
                    max = self.config.max_message,
                    in_flight = self.in_flight(),
                    "raise --max-message if the server is right to send this much"
                );
                self.front.child_too_long(head, &mut self.out);
                self.give_out();
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
        heap::note_freed(line.len());
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
        let streams = &self.streams;
        let has_reader = |stream| streams.is_live(stream);
        if self.front.child(text, self.began.elapsed(), &has_reader, &mut self.out).is_err() {
            return self.noisy(text);
        }
        self.give_out();
    }

    /// Gives what the front has put out to streams, session and log.
    fn give_out(&mut self) {
        while let Some(output) = self.out.take() {
            match output {
                Output::Message { stream, message } => self.deliver(stream, Payload::Message(message)),
                Output::Answer { stream, message, success } => {
                    self.deliver(stream, Payload::Answer { message, success });
                }
                Output::Unanswered { stream, id, why } => {
                    let fault = self.fault(why);
                    self.deliver(stream, Payload::Fault { id, fault });
                }
                Output::Handshake(how) => self.handshake_ended(how),
                Output::AnswerToUnknown => self.ending = Some(End::TooLong(self.config.max_message)),
                Output::Note(note) => self.log(note),
            }
        }
    }

    fn fault(&self, why: Unanswered) -> Fault {
        match why {
            Unanswered::Timeout => {
                let after = self.config.limits.request_timeout;
                warn!(event = "request.timeout", sid = self.sid(), ?after, "see --request-timeout");
                Fault::Timeout(after)
            }
            Unanswered::Cancelled => Fault::Cancelled,
            Unanswered::TooLong => Fault::TooLong(self.config.max_message),
            Unanswered::Overload => Fault::Overload(self.config.limits.max_in_flight),
        }
    }

    fn handshake_ended(&mut self, how: Handshake) {
        match how {
            Handshake::Done(version) => {
                if !self.opened {
                    self.opened = true;
                    if let Some(version) = version {
                        let _ = self.shared.negotiated.set(version);
                    }
                    self.shared.opened.send_replace(Some(Ok(())));
                }
                self.losses.failed_handshakes = 0;
                self.tell_answered();
            }
            Handshake::Refused => self.ending = Some(End::Refused),
            Handshake::TimedOut => self.ending = Some(End::InitTimeout(self.config.limits.init_timeout)),
        }
    }

    fn log(&mut self, note: Note) {
        let sid = self.shared.id.short();
        match note {
            Note::Swallowed(why) => debug!(event = "client.swallowed", sid, why),
            Note::Replied(to) => debug!(event = "child.replied", sid, to),
            Note::Restored { method, success: true } => debug!(event = "child.restored", sid, method),
            Note::Restored { method, success: false } => {
                warn!(
                    event = "child.not_restored",
                    sid, method, "the new child refuses what the old one took"
                );
            }
            Note::NotReady => {
                if let Some(count) = self.not_ready.take() {
                    info!(event = "child.not_ready", sid, count, "it is asked again");
                }
            }
            Note::Dropped(why) => {
                if let Some(count) = self.dropped.take() {
                    info!(event = "child.dropped", sid, why = why.as_str(), count);
                }
            }
            Note::Unheard => warn!(
                event = "child.request_unheard",
                sid, "the server asked its client something, and no client listened"
            ),
        }
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
        self.streams.expire(Instant::now());
        let streams = &self.streams;
        let has_reader = |stream| streams.is_live(stream);
        self.front.expire(self.began.elapsed(), &has_reader, &mut self.out);
        self.give_out();
    }

    /// The child is lost. If the session goes on with another, fails the calls that the child had and returns how many
    /// children have been lost in a row; `None`: the session ends.
    pub(super) fn child_lost(&mut self, why: End) -> Option<u32> {
        let can = self.config.limits.respawn && why.is_loss() && self.front.can_restart();
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
        self.out.stdin = BytesMut::new();
        for (stream, id) in self.front.child_lost() {
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
        self.front.restart(self.began.elapsed(), &mut self.out);
    }

    /// Ends everything that is in flight, and every stream.
    pub(super) fn fail(&mut self, why: End) {
        for (stream, id) in self.front.abandon() {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Ended(why) });
        }
        self.streams.end();
    }
}
