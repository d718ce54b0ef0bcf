//! A session without its pipes: every step is synchronous. It gives what comes from either side to the
//! session's front, and what the front puts out to the streams.

use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::inbox::{Inbox, Post};
use super::log_limit::LogLimit;
use super::stdin_queue::{Lost, StdinCursor};
use super::stream::{Delivery, Feed, Payload};
use super::streams::Streams;
use super::worker::Answered;
use super::{Command, Config, End, Fault, MAX_STDIN_QUEUE, Posted, Shared, Stats};
use crate::heap;
use crate::proto::front::{Front, Origin, Refusal, Takes, keyed, single};
use crate::proto::ids::{ClientId, StreamId};
use crate::proto::json::{elements, is_array};
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::message::{Message, Request};
use crate::proto::output::{Handshake, Note, Out, Output, Unanswered};
use crate::sync::lock;

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
    /// Posts that have not been forwarded.
    inbox: Inbox,
    /// What the front has put out, the bytes for the child's stdin among it.
    out: Out,
    cursor: StdinCursor,
    began: Instant,
    /// When a client last did something, or when the session became idle.
    active: Instant,
    stats: Stats,
    /// Questions whether the session may end for this reason because it is idle.
    end_if_idle: Vec<(End, oneshot::Sender<bool>)>,
    /// Why the session must end, once that is clear.
    ending: Option<End>,
    losses: Losses,
    /// For how the handshake with the present child ends; `None`: that has been said.
    answered: Option<Answered>,
    /// Whether a child has answered `initialize` with a result.
    pub(super) opened: bool,
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
        answered: Answered,
        began: Instant,
    ) -> Self {
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
            inbox: Inbox::new(config.limits.request_timeout),
            config,
            shared,
            out,
            cursor: StdinCursor::default(),
            began,
            active: began,
            stats: Stats::default(),
            end_if_idle: Vec::new(),
            ending: None,
            losses: Losses { since: began, in_a_row: 0, failed_handshakes: 0 },
            answered: Some(answered),
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

    /// The time since the session began, which is the front's clock.
    fn since_begin(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Why the session must end by itself.
    pub(super) fn end_reason(&self, now: Instant) -> Option<End> {
        if self.ending.is_some() {
            return self.ending;
        }
        if let Some(limit) = self.config.max_lifetime
            && now >= self.began + limit
        {
            return Some(End::Lifetime(limit));
        }
        self.idle_deadline().filter(|deadline| *deadline <= now).map(|_| End::Idle(self.config.idle_timeout))
    }

    /// Notes the moment when the session becomes idle, answers who wants to end it then, and lets others see its state.
    pub(super) fn settle(&mut self, now: Instant) {
        let idle = self.is_idle();
        if idle && self.stats.idle_since.is_none() {
            self.active = now;
        }
        for (why, agreed) in self.end_if_idle.drain(..) {
            let ends = idle && self.ending.is_none();
            if ends {
                self.ending = Some(why);
            }
            let _ = agreed.send(ends); // its asker may be gone
        }
        let stats = Stats {
            idle_since: idle.then_some(self.active),
            in_flight: self.in_flight(),
            stdin_queue: self.stdin().len(),
        };
        if stats != self.stats {
            self.stats = stats;
            *lock(&self.shared.stats) = stats;
        }
    }

    fn is_idle(&self) -> bool {
        !self.is_busy() && !self.streams.is_live(StreamId::LISTENING)
    }

    fn idle_deadline(&self) -> Option<Instant> {
        self.is_idle().then(|| self.active + self.config.idle_timeout)
    }

    /// When the next thing is due: [`expire`](Self::expire), or an end of the session.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let front = self.front.next_deadline().map(|deadline| self.began + deadline);
        let lifetime = self.config.max_lifetime.map(|limit| self.began + limit);
        let inbox = self.inbox.next_deadline();
        let deadlines = [front, lifetime, inbox, self.streams.next_deadline(), self.idle_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// How many requests that were forwarded have no answer.
    pub(super) fn in_flight(&self) -> usize {
        self.front.in_flight()
    }

    /// Whether something that was posted has no end yet.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight() > 0 || !self.inbox.is_empty()
    }

    /// Whether there is room for a further message.
    fn accepting(&self) -> bool {
        self.front.accepting() && self.stdin().len() < MAX_STDIN_QUEUE
    }

    /// What is to be written to the child's stdin.
    pub(super) fn stdin(&self) -> &[u8] {
        self.cursor.rest(&self.out.stdin)
    }

    /// Notes that so many bytes of [`stdin`](Self::stdin) have been written.
    pub(super) fn written(&mut self, count: usize) {
        self.cursor.advance(&mut self.out.stdin, count);
        heap::note_freed(count);
    }

    pub(super) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Post(post) => {
                self.active = now;
                self.inbox.push(post);
            }
            Command::Listen { after, feed } => {
                self.active = now;
                self.streams.listen(after, feed);
            }
            Command::EndIfIdle { why, agreed } => self.end_if_idle.push((why, agreed)),
        }
    }

    /// Forwards what was posted, as far as there is room.
    pub(super) fn forward(&mut self, now: Instant) {
        while self.accepting()
            && let Some(mut post) = self.inbox.pop()
        {
            let permit = post.permit.take();
            if self.inbox.is_late(&post, now) {
                self.not_forwarded(post, now);
            } else {
                self.post(post, now);
            }
            drop(permit); // what was forwarded is in the queue for stdin, which is bounded itself
        }
    }

    fn post(&mut self, mut post: Post, now: Instant) {
        let dropped = post.drop_requests_of_gone_client();
        self.log_dropped(dropped);
        let requests = post.messages().iter().filter(|message| message.request().is_some()).count();
        let Post { posted, takes, feed, arrived, .. } = post;
        let arrived = self.since_begin(arrived);
        if requests == 0 {
            let from = Origin { stream: StreamId::LISTENING, takes: Takes::AnswerOnly, arrived };
            feed.push(match posted {
                Posted::One(message) => match self.pass_on(message, from, now) {
                    Ok(()) => Delivery::Accepted,
                    Err(refusal) => Delivery::Refused(refusal),
                },
                Posted::Batch(messages) => {
                    for message in messages {
                        let _ = self.pass_on(message, from, now); // there is no place for a refusal
                    }
                    Delivery::Accepted
                }
            });
            return;
        }
        let from = Origin { stream: self.streams.add(feed, requests, takes, now), takes, arrived };
        match posted {
            Posted::One(message) => {
                if let Err(refusal) = self.pass_on(message, from, now) {
                    self.streams.refuse(from.stream, refusal);
                }
            }
            Posted::Batch(messages) => {
                for message in messages {
                    let id = message.request().map(|request| ClientId(request.id().clone()));
                    if let (Err(refusal), Some(id)) = (self.pass_on(message, from, now), id) {
                        let fault = Fault::Refused(refusal);
                        self.deliver(from.stream, Payload::Fault { id, fault }, now);
                    }
                }
            }
        }
    }

    fn log_dropped(&self, requests: usize) {
        if requests > 0 {
            let why = "its client left before it was forwarded";
            debug!(event = "client.swallowed", sid = self.sid(), requests, why);
        }
    }

    /// The time of a post is over before there was room for it.
    fn not_forwarded(&mut self, mut post: Post, now: Instant) {
        let dropped = post.drop_requests_of_gone_client();
        self.log_dropped(dropped);
        let after = self.config.limits.request_timeout;
        warn!(
            event = "request.timeout",
            sid = self.sid(),
            ?after,
            "the child does not read its stdin; see --request-timeout"
        );
        let requests = post.messages().iter().filter_map(Message::request);
        let ids: Vec<_> = requests.map(|request| ClientId(request.id().clone())).collect();
        if ids.is_empty() {
            return post.feed.push(Delivery::NotForwarded(after));
        }
        let stream = self.streams.add(post.feed, ids.len(), post.takes, now);
        for id in ids {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Timeout(after) }, now);
        }
    }

    fn pass_on(&mut self, message: Message, from: Origin, now: Instant) -> Result<(), Refusal> {
        let since_begin = self.since_begin(now);
        self.front.client(message, from, since_begin, &mut self.out)?;
        self.give_out(now);
        Ok(())
    }

    /// Whether some reader has so much waiting that the child is not to be read.
    pub(super) fn is_full(&self) -> bool {
        self.streams.is_full()
    }

    /// Looks at the readers: some are gone, or have caught up.
    pub(super) fn sweep(&mut self, now: Instant) {
        let since_begin = self.since_begin(now);
        for (stream, took_all) in self.streams.sweep(now) {
            self.front.reader_left(stream, took_all, since_begin, &mut self.out);
        }
        self.give_out(now);
        let dropped = self.inbox.drop_gone();
        self.log_dropped(dropped);
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>, now: Instant) {
        match frame {
            Frame::Line(line) => self.line(line.bytes(), now),
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
                self.give_out(now);
            }
        }
    }

    /// The child's stdout has ended: what is there without a line end counts if it is a whole message.
    pub(super) fn last_line(&mut self, decoder: &mut LineDecoder, now: Instant) {
        if let Some(line) = decoder.finish() {
            info!(event = "child.partial_line", sid = self.sid(), bytes = line.bytes().len());
            self.line(line.bytes(), now);
        }
    }

    fn line(&mut self, line: &[u8], now: Instant) {
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
            return self.message(text, now);
        }
        match elements(text) {
            Some(messages) if !messages.is_empty() => {
                messages.into_iter().for_each(|text| self.message(text, now))
            }
            _ => self.noisy(text),
        }
    }

    fn message(&mut self, text: &str, now: Instant) {
        let (streams, since_begin) = (&self.streams, self.since_begin(now));
        let readers = |stream| streams.readership(stream);
        if self.front.child(text, since_begin, &readers, &mut self.out).is_err() {
            return self.noisy(text);
        }
        self.give_out(now);
    }

    /// Gives what the front has put out to streams, session and log.
    fn give_out(&mut self, now: Instant) {
        while let Some(output) = self.out.take() {
            match output {
                Output::Message { stream, message } => self.deliver(stream, Payload::Message(message), now),
                Output::Answer { stream, message, success } => {
                    self.deliver(stream, Payload::Answer { message, success }, now);
                }
                Output::Unanswered { stream, id, why } => {
                    let fault = self.fault(why);
                    self.deliver(stream, Payload::Fault { id, fault }, now);
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
                if let Some(version) = version.filter(|_| !self.opened) {
                    let _ = self.shared.negotiated.set(version);
                }
                self.opened = true;
                self.losses.failed_handshakes = 0;
                self.tell_answered(Ok(()));
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

    fn deliver(&mut self, stream: StreamId, payload: Payload, now: Instant) {
        self.streams.deliver(stream, payload, now);
    }

    /// Does all that is due.
    pub(super) fn expire(&mut self, now: Instant) {
        for post in self.inbox.take_late(now) {
            self.not_forwarded(post, now);
        }
        self.streams.expire(now);
        let (streams, since_begin) = (&self.streams, self.since_begin(now));
        let readers = |stream| streams.readership(stream);
        self.front.expire(since_begin, &readers, &mut self.out);
        self.give_out(now);
    }

    /// The child is lost. If the session goes on with another, fails the calls that the child had and returns how many
    /// children have been lost in a row; `None`: the session ends.
    pub(super) fn child_lost(&mut self, why: End, now: Instant) -> Option<u32> {
        let can = self.config.limits.respawn && why.is_loss() && self.front.can_restart();
        if !can || self.losses.failed_handshakes == MAX_FAILED_HANDSHAKES {
            return None;
        }
        if now >= self.losses.since + STABLE {
            self.losses.in_a_row = 0;
        }
        self.losses.in_a_row += 1;
        self.losses.failed_handshakes += 1;
        self.tell_answered(Err(why));
        self.ending = None;
        let Lost { notifications, responses } = Lost::of(&self.out.stdin);
        if notifications + responses > 0 {
            warn!(
                event = "client.message_lost",
                sid = self.sid(),
                notifications,
                responses,
                "the child was lost before it read what had been accepted for it"
            );
        }
        (self.out.stdin, self.cursor) = (BytesMut::new(), StdinCursor::default());
        for (stream, id) in self.front.child_lost() {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Lost(why) }, now);
        }
        Some(self.losses.in_a_row)
    }

    /// Says how the handshake with the present child ended, once.
    fn tell_answered(&mut self, how: Result<(), End>) {
        if let Some(answered) = self.answered.take() {
            let _ = answered.send(how); // no one may wait for it
        }
    }

    /// Begins the handshake with a new child.
    pub(super) fn handshake(&mut self, answered: Answered, now: Instant) {
        self.losses.since = now;
        self.answered = Some(answered);
        let since_begin = self.since_begin(now);
        self.front.restart(since_begin, &mut self.out);
    }

    /// Ends everything that is in flight or waits, and every stream.
    pub(super) fn fail(&mut self, why: End, now: Instant) {
        self.tell_answered(Err(why));
        while let Some(post) = self.inbox.pop() {
            post.feed.push(Delivery::Gone(why));
        }
        for (stream, id) in self.front.abandon() {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Ended(why) }, now);
        }
        self.streams.end();
    }
}
