//! A session without its pipes: every step is synchronous. It gives what comes from either side to the
//! session's front, and what the front puts out to the streams.
//!
//! A long file with one idea: the steps between the loop and the parts, which have files of their own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::child_log::ChildLog;
use super::inbox::{Inbox, Post};
use super::losses::Losses;
use super::stdin_queue::{Lost, StdinCursor};
use super::stream::{Delivery, Payload};
use super::streams::{Leaving, Streams};
use super::worker::Start;
use super::{
    Clients, Command, Config, End, Fault, FromLane, MAX_STDIN_QUEUE, MAX_UNREAD_REPLIES, NotTaken, Posted,
    Shared, Stats, Whose,
};
use crate::account::Place;
use crate::first_words::FirstWords;
use crate::heap;
use crate::log_limit::SharedLogLimit;
use crate::proto::downgrade::Downgrade;
use crate::proto::echo::Echo;
use crate::proto::front::{Front, Mirrored, Origin, Refusal, Takes, keyed, modern, shared, single};
use crate::proto::ids::{ClientId, StreamId};
use crate::proto::incoming::{Found, Incoming, LongLine};
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::link::era_of;
use crate::proto::message::{Kind, MAX_REFUSAL, Message, Request};
use crate::proto::nearly::{Part, beginning, look};
use crate::proto::output::{Handshake, Note, Out, Output, Unanswered};
use crate::proto::upgrade::Upgrade;
use crate::proto::version::{Era, Revision};
use crate::sync::lock;

/// Clients and children cause these lines, in one session after the other.
static TIMEOUTS: SharedLogLimit = SharedLogLimit::new("request.timeout");
static TOO_LONG: SharedLogLimit = SharedLogLimit::new("child.message_too_long");

/// How many messages of one lane are forwarded in a row where others have said something too.
const LANE_TURN: usize = 16;

/// The session without its pipes: every step is synchronous.
pub(super) struct Core<'s> {
    config: Config,
    shared: &'s Shared,
    front: Box<dyn Front>,
    streams: Streams,
    /// Posts that have not been forwarded.
    inbox: Inbox,
    /// What sessions with lanes to the child have said and it has not been told: one piece of each at most.
    from_lanes: VecDeque<FromLane>,
    /// What the front has put out, the bytes for the child's stdin among it.
    out: Out,
    cursor: StdinCursor,
    began: Instant,
    /// When a client last did something, or when the session became idle.
    active: Instant,
    stats: Stats,
    /// Whether a client has used the session beyond its `initialize`.
    is_claimed: bool,
    /// Callers of `Session::end_if_idle` that wait for its result, each with its reason.
    end_if_idle: Vec<(End, oneshot::Sender<bool>)>,
    /// Why the session must end, once that is clear.
    ending: Option<End>,
    losses: Losses,
    /// The only callers whose requests are taken, where some are told apart and a token has been taken away.
    callers: Option<Vec<[u8; 32]>>,
    /// Whether a child has answered `initialize` with a result.
    pub(super) opened: bool,
    /// What the present child writes that is no message.
    first_words: Arc<FirstWords>,
    child_log: ChildLog,
    /// A long line of the child that is being looked at.
    long: Option<LongLine>,
    /// What comes back from a child that echoes.
    echo: Echo,
    /// Whether the line that is being looked at ended with CR LF.
    crlf: bool,
    /// Whether it has no end, because stdout has ended within it.
    is_partial: bool,
}

impl<'s> Core<'s> {
    /// Begins the session.
    pub(super) fn open(
        config: Config,
        shared: &'s Shared,
        initialize: &Request,
        whose: Whose,
        start: Start,
        began: Instant,
    ) -> Self {
        let mut streams = Streams::new(shared.id.clone(), &config, Arc::clone(&shared.outlet));
        let (limits, mut out, now) = (config.limits.clone(), Out::default(), Duration::ZERO);
        let era = if let Whose::Client(_, _, child) = whose { child } else { era_of(initialize) };
        let front: Box<dyn Front> = match whose {
            Whose::Client(feed, takes, child) => {
                let stream = streams.add(feed, 1, takes, began);
                let from = Origin { stream, takes, arrived: now, mirrored: Mirrored::nothing() };
                match child {
                    Era::Legacy => Box::new(single::Single::open(limits, initialize, from, now, &mut out)),
                    Era::Modern => Box::new(Downgrade::open(limits, initialize, from, now, &mut out)),
                }
            }
            Whose::Clients(Clients::Sessions) => {
                Box::new(shared::Shared::open(limits, initialize, now, &mut out))
            }
            Whose::Clients(Clients::Keyed) => Box::new(keyed::Keyed::open(limits, initialize, now, &mut out)),
            Whose::Clients(Clients::Upgraded { strangers }) => {
                Box::new(Upgrade::open(limits, initialize, strangers, now, &mut out))
            }
            Whose::Clients(Clients::Modern { strangers }) => {
                Box::new(modern::Modern::open(limits, initialize, strangers, now, &mut out))
            }
        };
        let child_log = ChildLog::new(shared.id.clone(), era, config.limits.restore.clone());
        Self {
            front,
            streams,
            inbox: Inbox::new(config.limits.request_timeout),
            from_lanes: VecDeque::new(),
            config,
            shared,
            out,
            cursor: StdinCursor::default(),
            began,
            active: began,
            stats: Stats::default(),
            is_claimed: shared.clients.is_some(),
            end_if_idle: Vec::new(),
            ending: None,
            losses: Losses::new(start.answered, began),
            callers: None,
            opened: false,
            first_words: start.first_words,
            child_log,
            long: None,
            echo: Echo::default(),
            crlf: false,
            is_partial: false,
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
        if let Some(limit) = self.lifetime()
            && now >= self.began + limit
        {
            return Some(End::Lifetime(limit));
        }
        let idle = self.idle_deadline().filter(|deadline| *deadline <= now)?;
        let is_unclaimed = self.unclaimed_deadline().is_some_and(|deadline| deadline <= idle);
        Some(if is_unclaimed { End::Unclaimed } else { End::Idle(self.config.idle_timeout) })
    }

    /// How long it may last. With a lane to its child it lasts until that ends, which has its own time.
    fn lifetime(&self) -> Option<Duration> {
        self.config.max_lifetime.filter(|_| !self.front.has_lanes())
    }

    /// Notes the moment when the session becomes idle, answers the questions whether it may end then, and publishes
    /// its state. `read`: how many bytes of the child's stdout wait for the end of their line.
    pub(super) fn settle(&mut self, read: usize, now: Instant) {
        let idle = self.is_idle();
        if idle && self.stats.idle_since.is_none() {
            self.active = now;
        }
        for (why, agreed) in self.end_if_idle.drain(..) {
            let is_meant = why != End::Unclaimed || !self.is_claimed;
            let ends = idle && is_meant && self.ending.is_none();
            if ends {
                self.ending = Some(why);
            }
            let _ = agreed.send(ends); // the caller may be gone
        }
        let stats = Stats {
            idle_since: idle.then_some(self.active),
            is_claimed: self.is_claimed,
            in_flight: self.in_flight() + self.inbox.len(),
        };
        let account = &self.shared.account;
        account.set(Place::Stdin, self.stdin().len());
        account.set(Place::Held, self.front.held_bytes());
        account.set(Place::Replay, self.streams.kept());
        account.set(Place::Stdout, read + self.long.as_ref().map_or(0, LongLine::size));
        if stats != self.stats {
            self.stats = stats;
            *lock(&self.shared.stats) = stats;
        }
    }

    fn is_idle(&self) -> bool {
        !self.is_busy() && !self.streams.is_live(StreamId::LISTENING) && !self.front.is_listening()
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let idle = self.stats.idle_since? + self.config.idle_timeout;
        Some(self.unclaimed_deadline().map_or(idle, |unclaimed| idle.min(unclaimed)))
    }

    /// Until when a client must have used the session's id, from the answer to `initialize` on.
    fn unclaimed_deadline(&self) -> Option<Instant> {
        let limit = self.config.unclaimed_timeout.filter(|_| !self.is_claimed)?;
        self.stats.idle_since?.checked_add(limit)
    }

    /// When the next thing is due: [`expire`](Self::expire), or an end of the session.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let front = self.front.next_deadline().map(|deadline| self.began + deadline);
        let lifetime = self.lifetime().map(|limit| self.began + limit);
        let inbox = self.inbox.next_deadline();
        let deadlines = [front, lifetime, inbox, self.streams.next_deadline(), self.idle_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// How many requests that were forwarded have no answer.
    pub(super) fn in_flight(&self) -> usize {
        self.front.in_flight()
    }

    /// Whether something that was posted has no end yet, or some session has a lane: it may ask at any time.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight() > 0 || !self.inbox.is_empty() || self.front.has_lanes()
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
        self.echo.wrote(self.cursor.rest(&self.out.stdin).get(..count).unwrap_or_default());
        let left = self.cursor.advance(&mut self.out.stdin, count);
        self.out.left(left);
        heap::note_freed(count);
    }

    /// Whether a buffer has grown for a large message. [`shrink`](Self::shrink) gives it back.
    pub(super) fn is_large(&self) -> bool {
        self.cursor.is_large()
    }

    pub(super) fn shrink(&mut self) {
        self.cursor.shrink(&mut self.out.stdin);
    }

    pub(super) fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Post(post) => {
                self.active = now;
                self.is_claimed = true;
                self.inbox.push(post);
            }
            Command::Join(feed) => {
                if let Some(lane) = self.streams.add_lane(feed) {
                    self.active = now;
                    self.front.join(lane);
                }
            }
            Command::FromLane(said) => self.from_lanes.push_back(said),
            Command::Listen { after, feed } => {
                self.active = now;
                self.is_claimed = true;
                self.streams.listen(after, feed, now);
            }
            Command::EndIfIdle { why, agreed } => self.end_if_idle.push((why, agreed)),
        }
    }

    /// Forwards what was posted and what sessions with lanes have said, in turns, as far as there is room. Nothing is for a
    /// child that is about to be given up.
    ///
    /// `judged`: the time by which deadlines count.
    pub(super) fn forward(&mut self, now: Instant, judged: Instant) {
        loop {
            let (posted, said) = (self.forward_post(now, judged), self.forward_lane(now));
            if !posted && !said {
                break;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.ending.is_none() && self.accepting()
    }

    /// Forwards the oldest post. Returns whether there was one and room for it.
    fn forward_post(&mut self, now: Instant, judged: Instant) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(mut post) = self.inbox.pop() else { return false };
        let permit = post.permit.take();
        if self.inbox.is_late(&post, judged) {
            self.not_forwarded(post, now);
        } else {
            self.post(post, now);
        }
        drop(permit); // what was forwarded is in the queue for stdin, which is bounded itself
        true
    }

    /// Forwards what the session said whose turn it is. Returns whether there was some and room for it.
    fn forward_lane(&mut self, now: Instant) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some(mut said) = self.from_lanes.pop_front() else { return false };
        if !self.streams.has_lane(said.lane) {
            return true; // it was cut off meanwhile, and all that it had asked has ended
        }
        let (takes, arrived) = (Takes::Events, self.since_begin(now));
        let from = Origin { stream: said.lane, takes, arrived, mirrored: Mirrored::nothing() };
        for _ in 0..LANE_TURN {
            let Some(message) = said.next() else { break };
            let _ = self.pass_on(message, from, now); // a session refuses what its client may not say
            if !self.has_room() {
                break;
            }
        }
        if !said.messages.is_empty() {
            self.from_lanes.push_back(said);
        }
        true
    }

    fn post(&mut self, mut post: Post, now: Instant) {
        let dropped = post.drop_requests_of_gone_client();
        self.log_dropped(dropped);
        let requests = post.messages().iter().filter(|message| message.request().is_some()).count();
        let Post { posted, takes, feed, arrived, mirrored, .. } = post;
        let caller = mirrored.as_ref().and_then(|mirrored| mirrored.caller);
        if let (Some(caller), Some(callers)) = (caller, &self.callers)
            && !callers.contains(&caller)
        {
            return feed.push(Delivery::Gone(End::Revoked)); // its token was taken away while it waited
        }
        let (arrived, mirrored) =
            (self.since_begin(arrived), mirrored.as_deref().unwrap_or(Mirrored::nothing()));
        if requests == 0 {
            let from = Origin { stream: StreamId::LISTENING, takes: Takes::AnswerOnly, arrived, mirrored };
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
        let stream = self.streams.add(feed, requests, takes, now);
        let from = Origin { stream, takes, arrived, mirrored };
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
            let sid = self.sid();
            debug!(
                event = "client.swallowed",
                sid, requests, why, "a message from a client is not passed on to the server"
            );
        }
    }

    fn log_timeout(&self, why: &'static str) {
        let Some(count) = TIMEOUTS.take() else { return };
        let (sid, after) = (self.sid(), self.config.limits.request_timeout.as_secs_f64());
        warn!(event = "request.timeout", sid, after, count, "{why}");
    }

    /// Answers a post whose deadline has passed before there was room for it.
    fn not_forwarded(&mut self, mut post: Post, now: Instant) {
        let dropped = post.drop_requests_of_gone_client();
        self.log_dropped(dropped);
        let after = self.config.limits.request_timeout;
        self.log_timeout("the server did not read a request in time; see --request-timeout");
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

    fn pass_on(&mut self, message: Message, from: Origin<'_>, now: Instant) -> Result<(), Refusal> {
        let since_begin = self.since_begin(now);
        self.front.client(message, from, since_begin, &mut self.out)?;
        self.give_out(now);
        Ok(())
    }

    /// Whether some reader, or all of them, or the child itself, have so much waiting that the child is not to be read.
    pub(super) fn is_full(&mut self) -> bool {
        let unread = self.out.unread_replies();
        if unread > MAX_UNREAD_REPLIES {
            self.child_log.replies_unread(unread);
        }
        self.streams.is_full() || unread > MAX_UNREAD_REPLIES
    }

    /// Forgets readers that are gone, reads the child again where readers have caught up, and ends what callers have begun
    /// whose tokens have been taken away.
    pub(super) fn sweep(&mut self, now: Instant) {
        let since_begin = self.since_begin(now);
        if let Some(callers) = lock(&self.shared.callers).take() {
            let keeps = |caller: &[u8; 32]| callers.contains(caller);
            self.front.keep_callers(&keeps, since_begin, &mut self.out);
            self.callers = Some(callers);
        }
        for (stream, took_all) in self.streams.sweep(now) {
            self.front.reader_left(stream, took_all, since_begin, &mut self.out);
            if self.streams.close_lane(stream) {
                self.from_lanes.retain(|said| said.lane != stream);
            }
        }
        self.give_out(now);
        let dropped = self.inbox.drop_gone();
        self.log_dropped(dropped);
    }

    pub(super) fn frame(&mut self, frame: Frame<'_>, now: Instant) {
        match frame {
            Frame::Line(line) => {
                self.crlf = line.crlf();
                self.line(line.bytes(), now);
            }
            Frame::Long(line) => {
                self.crlf = line.ends_with(b"\r");
                self.long = Some(LongLine::new(line, self.config.max_message));
            }
            Frame::TooLong { head, length } => self.too_long(head, length, now),
        }
    }

    fn too_long(&mut self, head: &[u8], length: usize, now: Instant) {
        if let Some(count) = TOO_LONG.take() {
            warn!(
                event = "child.message_too_long",
                sid = self.sid(),
                length,
                max = self.config.max_message,
                in_flight = self.in_flight(),
                count,
                "a message from the server is too long; raise --max-message if it needs to be"
            );
        }
        self.front.child_too_long(head, &mut self.out);
        self.give_out(now);
    }

    /// The child's stdout has ended: what is there without a line end counts if it is a whole message.
    pub(super) fn last_line(&mut self, decoder: &mut LineDecoder, now: Instant) {
        if let Some(frame) = decoder.finish() {
            match &frame {
                Frame::Line(line) => self.child_log.partial_line(line.bytes().len()),
                Frame::Long(line) => self.child_log.partial_line(line.len()),
                Frame::TooLong { .. } => {}
            }
            self.is_partial = true;
            self.frame(frame, now);
        }
    }

    /// Takes a line that is short enough to be looked at in one go.
    fn line(&mut self, line: &[u8], now: Instant) {
        heap::note_freed(line.len());
        match (line.first(), std::str::from_utf8(line)) {
            (Some(b'{'), Ok(text)) => match Incoming::peek(text) {
                Ok(message) => self.message(message, now),
                Err(_) => self.no_message(text, now),
            },
            _ => {
                let mut line = LongLine::new(line.into(), self.config.max_message);
                while self.piece(&mut line, now) {}
            }
        }
    }

    /// Whether a long line of the child is being looked at: nothing behind it may be read.
    pub(super) fn has_long_line(&self) -> bool {
        self.long.is_some()
    }

    /// Looks at the next piece of a long line.
    pub(super) fn read_on(&mut self, now: Instant) {
        let Some(mut line) = self.long.take() else { return };
        let size = line.size();
        if self.piece(&mut line, now) {
            self.long = Some(line);
        } else {
            heap::note_freed(size); // none of it, where it has become a message
        }
    }

    /// Looks at a piece of a line. Returns whether there is another.
    fn piece(&mut self, line: &mut LongLine, now: Instant) -> bool {
        match line.step() {
            Found::Pause => {}
            Found::Invalid(bytes) => self.child_log.invalid_utf8(bytes),
            Found::Message(message) => self.message(message, now),
            Found::Stray(text) => self.no_message(&beginning(text), now),
            Found::Noise(text) => {
                self.no_message(&beginning(text), now);
                return false;
            }
            Found::TooLong { head, length } => {
                self.too_long(head, length, now);
                return false;
            }
            Found::End => return false,
        }
        true
    }

    /// Takes what is in a line that is no message, see [`nearly`](crate::proto::nearly).
    fn no_message(&mut self, line: &str, now: Instant) {
        let nearly = look(line);
        let mut counts = false;
        for part in nearly.parts {
            match part {
                Part::Message { message, quoted } => {
                    if !quoted || self.front.awaits(&message) {
                        self.message(message, now);
                        counts = true;
                    }
                }
                // Why stdout has ended says more than that the line is half one.
                Part::Broken(_) if self.is_partial => {}
                Part::Broken(broken) => {
                    counts |= self.front.child_broken(&broken, &mut self.out);
                    self.give_out(now);
                }
            }
        }
        match nearly.wrong {
            Some(wrong) if counts => self.child_log.nearly_message(line, wrong),
            wrong => {
                self.first_words.stdout(line);
                self.child_log.noise(line, wrong);
            }
        }
    }

    fn message(&mut self, mut message: Incoming<'_>, now: Instant) {
        message.crlf = self.crlf;
        if self.echo.takes(message.text()) {
            return;
        }
        let (streams, since_begin) = (&self.streams, self.since_begin(now));
        let readers = |stream| streams.readership(stream);
        let in_flight = self.losses.is_unproven().then(|| self.front.in_flight());
        let is_error = self.losses.is_starting() && message.envelope.kind == Kind::Failure;
        // One byte more than is looked into tells that it is longer.
        let error = is_error.then(|| {
            let text = message.text();
            String::from_utf8_lossy(text.get(..=MAX_REFUSAL).unwrap_or(text)).into_owned()
        });
        self.front.child(message, since_begin, &readers, &mut self.out);
        if in_flight.is_some_and(|before| self.front.in_flight() < before) {
            self.losses.answered_a_call();
        }
        let is_refused = self.ending == Some(End::Refused);
        self.give_out(now);
        if let Some(error) = error.filter(|_| !is_refused && self.ending == Some(End::Refused)) {
            self.child_log.refused(&error);
        }
    }

    /// Gives what the front has put out to streams, session and log.
    fn give_out(&mut self, now: Instant) {
        while let Some(output) = self.out.take() {
            match output {
                Output::Message { stream, message } => {
                    self.deliver(stream, Payload::Message(heap::noted(message)), now);
                }
                Output::Answer { stream, message, success } => {
                    self.deliver(stream, Payload::Answer { message: heap::noted(message), success }, now);
                }
                Output::Unanswered { stream, id, why } => {
                    let fault = self.fault(why);
                    self.deliver(stream, Payload::Fault { id, fault }, now);
                }
                Output::Handshake(how) => self.handshake_ended(how),
                Output::AnswerToUnknown => self.ending = Some(End::TooLong(self.config.max_message)),
                Output::Note(note) => {
                    if note == Note::Echo {
                        self.echo.begin();
                    }
                    self.child_log.note(note);
                }
            }
        }
    }

    fn fault(&self, why: Unanswered) -> Fault {
        match why {
            Unanswered::Timeout => {
                let after = self.config.limits.request_timeout;
                self.log_timeout("the server did not answer a request in time; see --request-timeout");
                Fault::Timeout(after)
            }
            Unanswered::Cancelled => Fault::Cancelled,
            Unanswered::TooLong => Fault::TooLong(self.config.max_message),
            Unanswered::Invalid(wrong) => Fault::Invalid(wrong),
            Unanswered::Overload => Fault::Overload(self.config.limits.max_in_flight),
            Unanswered::Declined(why) => Fault::Declined(why),
            Unanswered::Revoked => Fault::Ended(End::Revoked),
        }
    }

    fn handshake_ended(&mut self, how: Handshake) {
        match how {
            Handshake::Done(version) => {
                if let Some(version) = version.filter(|_| !self.opened) {
                    if !Revision::parse(&version).is_some_and(Revision::priming) {
                        self.streams.prime_none();
                    }
                    let _ = self.shared.negotiated.set(version);
                }
                self.opened = true;
                self.losses.handshake_done();
            }
            Handshake::Refused => self.ending = Some(End::Refused),
            Handshake::Echoed => self.ending = Some(End::Echoed),
            Handshake::Invalid(wrong) => self.ending = Some(End::Invalid(wrong)),
            Handshake::TimedOut => self.ending = Some(End::InitTimeout(self.config.limits.init_timeout)),
        }
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
        if self.streams.has_cut() {
            self.sweep(now);
        }
    }

    /// The child is lost. If the session goes on with another, fails the calls that the child had and returns how many
    /// children have been lost in a row; `None`: the session ends.
    pub(super) fn child_lost(&mut self, why: End, now: Instant) -> Option<u32> {
        let can = self.config.limits.respawn && why.is_loss() && self.front.can_restart();
        if !can || !self.losses.may_respawn() {
            return None;
        }
        let in_a_row = self.losses.add(why, now);
        self.ending = None;
        let Lost { notifications, responses } = Lost::of(&self.out.stdin);
        if notifications + responses > 0 {
            warn!(
                event = "client.message_lost",
                sid = self.sid(),
                notifications,
                responses,
                "the server was lost before it read messages that had been accepted for it"
            );
        }
        self.out.clear();
        (self.cursor, self.long, self.echo) = (StdinCursor::default(), None, Echo::default());
        self.is_partial = false;
        for (stream, id) in self.front.child_lost() {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Lost(why) }, now);
        }
        Some(in_a_row)
    }

    /// Begins the handshake with a new child.
    pub(super) fn handshake(&mut self, start: Start, now: Instant) {
        self.losses.respawned(start.answered, now);
        self.first_words = start.first_words;
        let since_begin = self.since_begin(now);
        self.front.restart(since_begin, &mut self.out);
        self.give_out(now);
    }

    /// Ends what clients listen to, in good order: the session is about to end.
    pub(super) fn farewell(&mut self, now: Instant) {
        self.front.farewell(&mut self.out);
        self.give_out(now);
    }

    /// Ends everything that is in flight or waits, and every stream. Returns the readers that are to be seen off.
    pub(super) fn fail(&mut self, why: End, now: Instant) -> Vec<Leaving> {
        self.losses.tell_answered(Err(why));
        while let Some(post) = self.inbox.pop() {
            post.feed.push(Delivery::NotTaken(NotTaken::new(why, post.posted)));
        }
        self.from_lanes = VecDeque::new();
        // What a child has left open when it was lost has no good end.
        if !why.is_loss() {
            self.farewell(now);
        }
        for (stream, id) in self.front.abandon() {
            self.deliver(stream, Payload::Fault { id, fault: Fault::Ended(why) }, now);
        }
        self.streams.end()
    }
}
