//! The streams of one session: their readers, the events kept for resumption, and what happens to a reader that takes
//! too little.
//!
//! It knows neither the child nor the protocol, so that one loop can hold the streams of several sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Config;
use super::stream::{Delivery, Event, Feed, Offered, Payload};
use crate::log_limit::{LogLimit, SharedLogLimit};
use crate::proto::front::{Readership, Refusal, Takes};
use crate::proto::ids::{EventId, SessionId, StreamId};
use crate::proto::replay::ReplayBuffer;

static CUTS: SharedLogLimit = SharedLogLimit::new("stream.cut");

/// How long a reader that has too much waiting may take nothing before it is cut off.
const STUCK: Duration = Duration::from_secs(1);

/// How long it may have too much waiting at all: the child is not read meanwhile.
const TOO_SLOW: Duration = Duration::from_secs(30);

/// One stream: the answer to a POST, or what a GET listens to.
#[derive(Debug)]
struct Stream {
    feed: Option<Feed>,
    /// The place of its newest event.
    place: u64,
    /// How many of its requests have no answer.
    unanswered: usize,
    /// When the reader is told that the answer takes longer. `None`: never, or it is clear already.
    pending_at: Option<Instant>,
    /// Whether the client may know the id of an event, behind which it can resume.
    known: bool,
}

/// A reader that has too much waiting.
#[derive(Debug)]
struct Full {
    since: Instant,
    /// When it was last seen to take something.
    checked: Instant,
}

/// All streams of one session.
#[derive(Debug)]
pub(super) struct Streams {
    session: SessionId,
    /// Whether streams begin with an event that carries only an id, so that they can be resumed from the start.
    prime: bool,
    /// How long an answer may take before its reader is told to begin a stream of events.
    sse_after: Duration,
    table: BTreeMap<StreamId, Stream>,
    /// The newest stream.
    last: StreamId,
    replay: ReplayBuffer<Event>,
    /// The place of the newest event of the listening stream that a reader took.
    delivered_to: u64,
    /// Every older stream has no [`Stream::pending_at`]. Those of the others come in the order of the streams.
    undecided: StreamId,
    /// Streams whose readers have too much waiting.
    full: BTreeMap<StreamId, Full>,
    evicted: LogLimit,
}

impl Stream {
    /// Tells the reader that its answer takes longer, if that is due. `prime`: it then gets an id at once.
    fn tell_pending(&mut self, prime: bool, now: Instant) {
        if self.pending_at.take_if(|at| *at <= now).is_some()
            && let Some(feed) = self.feed.as_ref().filter(|feed| feed.is_live())
        {
            feed.push(Delivery::Pending);
            self.known |= prime;
        }
    }
}

impl Streams {
    /// The listening stream alone, without a reader.
    pub(super) fn new(session: SessionId, config: &Config) -> Self {
        let mut replay = ReplayBuffer::new(config.replay_buffer);
        replay.note_unstored(EventId { stream: StreamId::LISTENING, place: 0 });
        let listening = Stream { feed: None, place: 0, unanswered: 0, pending_at: None, known: false };
        Self {
            session,
            prime: config.prime,
            sse_after: config.sse_after,
            table: BTreeMap::from([(StreamId::LISTENING, listening)]),
            last: StreamId::LISTENING,
            replay,
            delivered_to: 0,
            undecided: StreamId::LISTENING,
            full: BTreeMap::new(),
            evicted: LogLimit::new(),
        }
    }

    /// A new stream for the answers to so many requests. It ends with the last of them. A client that takes
    /// nothing but the answer is not told that it takes longer.
    pub(super) fn add(&mut self, feed: Feed, unanswered: usize, takes: Takes, now: Instant) -> StreamId {
        self.last.0 += 1;
        let stream = self.last;
        let start = EventId { stream, place: 0 };
        feed.begin(start);
        if self.prime {
            self.replay.note_unstored(start);
        }
        let pending_at = match takes {
            Takes::Events => now.checked_add(self.sse_after),
            Takes::AnswerOnly => None,
        };
        self.table
            .insert(stream, Stream { feed: Some(feed), place: 0, unanswered, pending_at, known: false });
        stream
    }

    /// No stream is primed from now on: the client's revision does not know it.
    pub(super) fn prime_none(&mut self) {
        self.prime = false;
    }

    /// Ends a stream that has no event yet: its one message is not for the child.
    pub(super) fn refuse(&mut self, id: StreamId, refusal: Refusal) {
        if let Some(feed) = self.table.remove(&id).and_then(|stream| stream.feed) {
            self.replay.end(id, true);
            feed.push(Delivery::Refused(refusal));
        }
    }

    /// Gives `feed` what the child sends unasked, or resumes a stream behind the event `after`. It takes the place of
    /// the stream's older reader.
    pub(super) fn listen(&mut self, after: Option<EventId>, feed: Feed) {
        if !feed.is_live() {
            return; // its client left while it waited in the mailbox
        }
        let (stream, missed) = match after {
            None => {
                self.note_delivered();
                let last = EventId { stream: StreamId::LISTENING, place: self.delivered_to };
                feed.begin(last);
                (StreamId::LISTENING, self.replay.kept_after(last))
            }
            Some(after) => match self.replay.replay(after) {
                Ok(missed) => {
                    if after.stream == StreamId::LISTENING {
                        self.delivered_to = after.place; // the client has seen that much
                    }
                    feed.begin(after);
                    (after.stream, missed)
                }
                Err(why) => {
                    let sid = self.session.short();
                    debug!(event = "stream.no_replay", sid, id = %after, why = why.as_str(), "a stream cannot be resumed there");
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
        let Some(stream) = self.table.get_mut(&stream) else { return };
        stream.pending_at = None;
        stream.known = true;
        if let Some(older) = stream.feed.replace(feed) {
            older.supersede();
        }
    }

    /// Gives an event to its stream.
    pub(super) fn deliver(&mut self, id: StreamId, payload: Payload, now: Instant) {
        let sid = self.session.short();
        let Some(stream) = self.table.get_mut(&id) else {
            debug!(event = "response.undeliverable", sid, stream = id.0, "an answer has no reader any more");
            return;
        };
        stream.place += 1;
        let answer = payload.is_answer();
        stream.tell_pending(self.prime, now);
        if !answer {
            stream.pending_at = None; // the event itself decides for a stream
        }
        let last = answer && stream.unanswered <= 1;
        let event = Event { id: EventId { stream: id, place: stream.place }, payload, last };
        // No client can ask for the first event of a POST again: only behind an id that it has seen can it resume.
        let keep = id == StreamId::LISTENING || stream.place > 1 || self.prime;
        if keep {
            let lost = self.replay.push(event.id, event.clone(), event.payload.size(), answer);
            if lost > 0
                && let Some(count) = self.evicted.take()
            {
                info!(
                    event = "stream.evicted",
                    sid, lost, count, "events can no longer be resumed; see --replay-buffer"
                );
            }
        } else if !last {
            self.replay.note_unstored(event.id);
        }
        let offered = stream.feed.as_ref().map_or(Offered::Gone, |feed| feed.offer(event));
        stream.known |= offered != Offered::Gone;
        match offered {
            Offered::Queued => {}
            Offered::Full => {
                if let Some(feed) = stream.feed.as_ref().filter(|_| !self.full.contains_key(&id)) {
                    feed.has_progress(); // what it took before does not count
                    self.full.insert(id, Full { since: now, checked: now });
                }
            }
            Offered::Gone if !keep => debug!(
                event = "response.undeliverable",
                sid,
                stream = id.0,
                "an answer has no reader any more"
            ),
            Offered::Gone => {}
        }
        if answer {
            stream.unanswered = stream.unanswered.saturating_sub(1);
        }
        if last {
            self.replay.end(id, offered != Offered::Gone);
            self.table.remove(&id);
            self.full.remove(&id);
        }
    }

    /// Whether a stream has a reader. A client can resume it behind an event that it has seen, which may be the one that
    /// primes it.
    pub(super) fn readership(&self, id: StreamId) -> Readership {
        match self.table.get(&id) {
            Some(Stream { feed: Some(feed), .. }) if feed.is_live() => Readership::Present,
            Some(Stream { known: true, .. }) => Readership::MayResume,
            Some(_) | None => Readership::Absent,
        }
    }

    /// Whether a stream has a reader.
    pub(super) fn is_live(&self, id: StreamId) -> bool {
        self.table.get(&id).and_then(|stream| stream.feed.as_ref()).is_some_and(Feed::is_live)
    }

    /// How many bytes are kept for resumption.
    pub(super) fn kept(&self) -> usize {
        self.replay.held()
    }

    /// Whether some reader has so much waiting that the child is not to be read.
    pub(super) fn is_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// When [`expire`](Self::expire) is due.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let full = self.full.values().map(|full| full.checked + STUCK).min();
        [self.next_pending().map(|(_, at)| at), full].into_iter().flatten().min()
    }

    /// The stream whose reader is told next that its answer takes longer, and when.
    fn next_pending(&mut self) -> Option<(StreamId, Instant)> {
        while let Some((id, stream)) = self.table.range(self.undecided..).next() {
            if let Some(at) = stream.pending_at {
                return Some((*id, at));
            }
            self.undecided = StreamId(id.0 + 1);
        }
        None
    }

    /// Does what is due: tells readers whose answers take longer, and looks at those that have too much waiting.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((id, at)) = self.next_pending()
            && at <= now
            && let Some(stream) = self.table.get_mut(&id)
        {
            stream.tell_pending(self.prime, now);
        }
        if self.is_full() {
            self.relieve(now);
        }
    }

    /// Looks at the readers that have too much waiting. One that goes on taking slows the child down; one that takes
    /// nothing, or too little, must not hold up the other streams of the session, and is cut off.
    fn relieve(&mut self, now: Instant) {
        let sid = self.session.short();
        let (table, delivered_to) = (&mut self.table, &mut self.delivered_to);
        self.full.retain(|id, full| {
            let Some(stream) = table.get_mut(id) else { return false };
            let Some(feed) = stream.feed.as_ref().filter(|feed| feed.is_full()) else { return false };
            if now < full.checked + STUCK {
                return true;
            }
            full.checked = now;
            if feed.has_progress() && now < full.since + TOO_SLOW {
                return true;
            }
            if let Some(count) = CUTS.take() {
                warn!(
                    event = "stream.cut",
                    sid,
                    stream = id.0,
                    count,
                    "a client does not read its stream, which is cut; it can resume"
                );
            }
            if *id == StreamId::LISTENING {
                *delivered_to = feed.taken().max(*delivered_to);
            }
            feed.cut();
            stream.feed = None;
            false
        });
    }

    /// Forgets readers that are gone, and notices those that have caught up. Returns the streams whose readers
    /// have left, and whether each had taken everything.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<(StreamId, bool)> {
        self.relieve(now);
        self.note_delivered();
        let mut left = Vec::new();
        for (id, stream) in &mut self.table {
            if let Some(feed) = stream.feed.take_if(|feed| !feed.is_live()) {
                left.push((*id, feed.taken() == stream.place));
            }
        }
        left
    }

    /// Remembers how far the listening stream has been read, before its reader is replaced or forgotten.
    fn note_delivered(&mut self) {
        if let Some(Stream { feed: Some(feed), .. }) = self.table.get(&StreamId::LISTENING) {
            self.delivered_to = self.delivered_to.max(feed.taken());
        }
    }

    /// Ends every stream behind what is queued for it.
    pub(super) fn end(&mut self) {
        self.table.clear();
    }
}
