//! The streams of one session: their readers, the events kept for resumption, and what happens to a reader that takes
//! too little.
//!
//! It knows neither the child nor the protocol, so that one loop can hold the streams of several sessions.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::Config;
use super::stream::{Delivery, Event, Feed, MAX_UNSENT, Offered, Outlet, Payload, SMALL};
use crate::log_limit::{LogLimit, SharedLogLimit};
use crate::proto::front::{Readership, Refusal, Takes};
use crate::proto::ids::{EventId, SessionId, StreamId};
use crate::proto::replay::ReplayBuffer;

static CUTS: SharedLogLimit = SharedLogLimit::new("stream.cut");

/// How many bytes may wait for all readers of a session together, beside what waits for one of them, before the session
/// stops reading its child.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// How long a reader may take nothing, while the child is not read because of what waits for it, before it is cut off.
const STUCK: Duration = Duration::from_secs(1);

/// The same for a lane: its session itself does not read it while a reader of its own is given [`STUCK`].
const STUCK_LANE: Duration = Duration::from_secs(5);

/// The same for some seconds after some reader has been cut off: clients that share a session should not wait for each
/// one of another client's readers in turn.
const STUCK_AGAIN: Duration = Duration::from_millis(250);
const AGAIN: Duration = Duration::from_secs(10);

/// Readers that take nothing and have less waiting are cut off only as far as that is needed, in bytes.
const SPARED: usize = 64 * 1024;

/// How long the child may not be read because of a reader that does take something, and holds up no other session.
const TOO_SLOW: Duration = Duration::from_secs(30);

/// For how long a lane may hold up the others all in all, and for how long all streams of a session that has one: its
/// client loses a stream before the session loses its lane. Both come back six times as slowly as they go.
const HOLD_OF_LANE: Duration = Duration::from_secs(60);
const HOLD_ON_LANE: Duration = Duration::from_secs(5);
const BACK: u32 = 6;

/// For how long the child was not read because of a reader that goes on taking, but more slowly than the child writes. Such a
/// one has too much waiting again and again, and never for long.
#[derive(Debug)]
struct Held {
    spent: Duration,
    /// When that was so.
    at: Instant,
}

impl Held {
    fn new(now: Instant) -> Self {
        Self { spent: Duration::ZERO, at: now }
    }

    /// How much is left of so much.
    fn left(&self, all: Duration, now: Instant) -> Duration {
        let back = now.saturating_duration_since(self.at) / BACK;
        all.saturating_sub(self.spent.saturating_sub(back))
    }

    /// It has been held up since then.
    fn add(&mut self, since: Instant, now: Instant) {
        let back = since.saturating_duration_since(self.at) / BACK;
        self.spent = self.spent.saturating_sub(back) + now.saturating_duration_since(since.max(self.at));
        self.at = now;
    }
}

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
    /// Whether it is another session's way to the child, and no answer ends it.
    is_lane: bool,
    /// How long a lane has held up the others.
    held: Option<Held>,
}

/// A reader that has too much waiting.
#[derive(Debug)]
struct Full {
    since: Instant,
    /// Until when it may be so, whatever the reader takes.
    until: Instant,
    /// When it was last seen to take something.
    checked: Instant,
    /// How long it may take nothing.
    stuck: Duration,
}

/// That all readers together have too much waiting.
#[derive(Clone, Copy, Debug)]
struct Overdue {
    since: Instant,
    /// Until when it may be so, whatever the readers take.
    until: Instant,
    /// When the readers were last looked at.
    checked: Instant,
}

/// All streams of one session.
#[derive(Debug)]
pub(super) struct Streams {
    session: SessionId,
    /// Whether streams begin with an event that carries only an id, so that they can be resumed from the start.
    prime: bool,
    /// Whether streams can be resumed at all.
    resumable: bool,
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
    /// How long its streams have held up the child, where that is shared with other sessions.
    held: Option<Held>,
    /// Streams whose readers have too much waiting.
    full: BTreeMap<StreamId, Full>,
    /// Streams that have ended, but not for their readers, as far as much waits for those. Readers that have come to the
    /// end are forgotten when it grows.
    leaving: Vec<(StreamId, Feed)>,
    /// Set while all readers together have too much waiting.
    overdue: Option<Overdue>,
    /// Lanes that have taken nothing since then, as long as all readers have too much waiting.
    quiet_lanes: BTreeMap<StreamId, Instant>,
    /// Until when readers have less time than [`STUCK`].
    impatient_until: Option<Instant>,
    /// Streams that cannot be resumed and whose readers have been cut off: nobody will read them.
    cut: Vec<StreamId>,
    outlet: Arc<Outlet>,
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
    pub(super) fn new(session: SessionId, config: &Config, outlet: Arc<Outlet>) -> Self {
        let mut replay = ReplayBuffer::new(config.replay_buffer);
        replay.note_unstored(EventId { stream: StreamId::LISTENING, place: 0 });
        let listening = Stream {
            feed: None,
            place: 0,
            unanswered: 0,
            pending_at: None,
            known: false,
            is_lane: false,
            held: None,
        };
        Self {
            session,
            prime: config.prime,
            resumable: config.replay_buffer > 0,
            sse_after: config.sse_after,
            table: BTreeMap::from([(StreamId::LISTENING, listening)]),
            last: StreamId::LISTENING,
            replay,
            delivered_to: 0,
            undecided: StreamId::LISTENING,
            held: config.is_on_lane.then(|| Held::new(Instant::now())),
            full: BTreeMap::new(),
            leaving: Vec::new(),
            overdue: None,
            quiet_lanes: BTreeMap::new(),
            impatient_until: None,
            cut: Vec::new(),
            outlet,
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
        let place = 0;
        let (known, is_lane, held) = (false, false, None);
        let feed = Some(feed);
        self.table.insert(stream, Stream { feed, place, unanswered, pending_at, known, is_lane, held });
        stream
    }

    /// A new stream that goes on until its reader leaves: another session's way to the child. `None`: that has left.
    pub(super) fn add_lane(&mut self, feed: Feed) -> Option<StreamId> {
        if !feed.is_live() {
            return None; // nobody would tell again that it has left
        }
        self.last.0 += 1;
        let stream = self.last;
        feed.begin(EventId { stream, place: 0 });
        feed.push(Delivery::Accepted);
        let (place, unanswered, pending_at, known) = (0, usize::MAX, None, false);
        let held = Some(Held::new(Instant::now()));
        let lane = Stream { feed: Some(feed), place, unanswered, pending_at, known, is_lane: true, held };
        self.table.insert(stream, lane);
        Some(stream)
    }

    /// Forgets such a stream: its reader has left. Others stay, because they can be resumed or answered in vain. Returns
    /// whether it was one.
    pub(super) fn close_lane(&mut self, id: StreamId) -> bool {
        let is_lane = self.table.get(&id).is_some_and(|stream| stream.is_lane);
        if is_lane {
            self.table.remove(&id);
            self.full.remove(&id);
            self.quiet_lanes.remove(&id);
        }
        is_lane
    }

    /// Whether this is a lane whose reader has not been cut off.
    pub(super) fn has_lane(&self, id: StreamId) -> bool {
        self.table.get(&id).is_some_and(|stream| stream.is_lane && stream.feed.is_some())
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
    pub(super) fn listen(&mut self, after: Option<EventId>, feed: Feed, now: Instant) {
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
                    debug!(event = "stream.no_replay", sid, id = %after, why = why.as_str(), "a stream cannot be resumed after this event");
                    feed.push(Delivery::NoReplay);
                    return;
                }
            },
        };
        feed.push(Delivery::Accepted);
        for (_, event) in missed {
            feed.push(Delivery::Event(event));
        }
        match self.table.get_mut(&stream) {
            Some(stream) => {
                stream.pending_at = None;
                stream.known = true;
                if let Some(older) = stream.feed.replace(feed) {
                    older.supersede();
                }
            }
            // A stream whose last answer is given ends behind it.
            None => {
                self.leaving.retain(|(id, older)| {
                    let superseded = *id == stream;
                    if superseded {
                        older.supersede();
                    }
                    !superseded
                });
                self.leave(stream, feed);
            }
        }
        self.watch(now);
    }

    /// A stream has ended: what waits for its reader is still to be taken.
    fn leave(&mut self, id: StreamId, feed: Feed) {
        feed.finish();
        if feed.waiting() <= SMALL {
            return;
        }
        if self.leaving.len() == self.leaving.capacity() {
            self.leaving.retain(|(_, feed)| feed.waiting() > 0);
            self.leaving.reserve(self.leaving.len());
        }
        self.leaving.push((id, feed));
    }

    /// Gives an event to its stream.
    pub(super) fn deliver(&mut self, id: StreamId, payload: Payload, now: Instant) {
        let sid = self.session.short();
        let Some(stream) = self.table.get_mut(&id) else {
            debug!(
                event = "response.undeliverable",
                sid,
                stream = id.0,
                "no client reads this answer any more"
            );
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
        let keep = self.resumable
            && !stream.is_lane
            && (id == StreamId::LISTENING || stream.place > 1 || self.prime);
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
        } else if !last && self.resumable && !stream.is_lane {
            self.replay.note_unstored(event.id);
        }
        let offered = stream.feed.as_ref().map_or(Offered::Gone, |feed| feed.offer(event));
        stream.known |= offered != Offered::Gone;
        match offered {
            Offered::Queued => {}
            Offered::Full => {
                if let Some(feed) = stream.feed.as_ref().filter(|_| !self.full.contains_key(&id)) {
                    feed.has_progress(); // what it took before does not count
                    let stuck = if stream.is_lane { STUCK_LANE } else { STUCK };
                    let limit = match (&stream.held, &self.held) {
                        (Some(held), _) => held.left(HOLD_OF_LANE, now),
                        (None, Some(held)) => held.left(HOLD_ON_LANE, now),
                        (None, None) => TOO_SLOW,
                    };
                    self.full.insert(id, Full { since: now, until: now + limit, checked: now, stuck });
                }
            }
            Offered::Gone if !keep => debug!(
                event = "response.undeliverable",
                sid,
                stream = id.0,
                "no client reads this answer any more"
            ),
            Offered::Gone => {}
        }
        if answer && !stream.is_lane {
            stream.unanswered = stream.unanswered.saturating_sub(1);
        }
        if last {
            self.replay.end(id, offered != Offered::Gone);
            self.full.remove(&id);
            if let Some(feed) = self.table.remove(&id).and_then(|stream| stream.feed) {
                self.leave(id, feed);
            }
        }
        self.watch(now);
    }

    /// Whether a stream has a reader. A client can resume it behind an event that it has seen, which may be the one that
    /// primes it.
    pub(super) fn readership(&self, id: StreamId) -> Readership {
        match self.table.get(&id) {
            Some(Stream { feed: Some(feed), .. }) if feed.is_live() => Readership::Present,
            Some(Stream { known: true, is_lane: false, .. }) => Readership::MayResume,
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

    /// Whether [`sweep`](Self::sweep) has something to tell that no reader has caused.
    pub(super) fn has_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Whether some reader, or all together, have so much waiting that the child is not to be read.
    pub(super) fn is_full(&self) -> bool {
        !self.full.is_empty() || self.overdue.is_some()
    }

    /// The queues of all readers.
    fn feeds(&self) -> impl Iterator<Item = (StreamId, &Feed)> {
        let streams = self.table.iter().filter_map(|(id, stream)| Some((*id, stream.feed.as_ref()?)));
        streams.chain(self.leaving.iter().map(|(id, feed)| (*id, feed)))
    }

    /// How much waits for one reader, if all the others have too much waiting: one message of any size passes.
    fn excess(&self) -> Option<usize> {
        if self.outlet.waiting() <= MAX_WAITING {
            return None;
        }
        let waiting = self.feeds().map(|(_, feed)| feed.waiting());
        let (all, most) = waiting.fold((0, 0), |(all, most), bytes| (all + bytes, most.max(bytes)));
        (all - most > MAX_WAITING).then_some(most)
    }

    /// Notices when all readers together have too much waiting, and when that is over.
    fn watch(&mut self, now: Instant) {
        let excess = self.excess();
        self.outlet.tell_at(excess.map_or(0, |most| MAX_WAITING + most));
        if excess.is_none() {
            if let (Some(Overdue { since, .. }), Some(held)) = (self.overdue.take(), &mut self.held) {
                held.add(since, now);
            }
            self.quiet_lanes.clear();
        } else if self.overdue.is_none() {
            self.feeds().for_each(|(_, feed)| feed.mark());
            let limit = self.held.as_ref().map_or(TOO_SLOW, |held| held.left(HOLD_ON_LANE, now));
            self.overdue = Some(Overdue { since: now, until: now + limit, checked: now });
        }
    }

    /// When [`expire`](Self::expire) is due.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let full = self.full.values().map(|full| full.until.min(full.checked + full.stuck)).min();
        let overdue = self.overdue.as_ref().map(|overdue| overdue.checked + self.patience(overdue.checked));
        [self.next_pending().map(|(_, at)| at), full, overdue].into_iter().flatten().min()
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
            self.relieve_all(now);
        }
    }

    /// Looks at the readers that have too much waiting. One that goes on taking slows the child down; one that takes
    /// nothing, or too little, must not hold up the other streams of the session, and is cut off.
    fn relieve(&mut self, now: Instant) {
        let sid = self.session.short();
        let (table, delivered_to) = (&mut self.table, &mut self.delivered_to);
        let (cut, of_all, resumable) = (&mut self.cut, &mut self.held, self.resumable);
        self.full.retain(|id, full| {
            let Some(stream) = table.get_mut(id) else { return false };
            let held = stream.held.as_mut().or(of_all.as_mut());
            let Some(feed) = stream.feed.as_ref().filter(|feed| feed.is_full()) else {
                held.into_iter().for_each(|held| held.add(full.since, now));
                return false;
            };
            if now < full.until.min(full.checked + full.stuck) {
                return true;
            }
            full.checked = now;
            if feed.has_progress() && now < full.until {
                return true;
            }
            let is_too_slow = !stream.is_lane && held.is_some() && full.until <= now;
            held.into_iter().for_each(|held| held.add(full.since, now));
            if let Some(count) = CUTS.take() {
                let why = match stream.is_lane {
                    false if is_too_slow => "a client reads more slowly than a server writes that other sessions share; its stream is cut off, and it can resume it",
                    false => "a client does not read its stream; the stream is cut off, and the client can resume it",
                    true => "a session does not read what a server says that it shares: its lane is cut off",
                };
                let (stream, waiting) = (id.0, feed.waiting());
                warn!(event = "stream.cut", sid, stream, waiting, count, "{why}");
            }
            if *id == StreamId::LISTENING {
                *delivered_to = feed.taken().max(*delivered_to);
            }
            feed.cut();
            stream.feed = None;
            if !resumable {
                cut.push(*id);
            }
            false
        });
    }

    /// How long readers may take nothing from now on.
    fn patience(&self, now: Instant) -> Duration {
        if self.impatient_until.is_some_and(|until| now < until) { STUCK_AGAIN } else { STUCK }
    }

    /// Looks at all readers while they have too much waiting together. Those that take nothing are cut off, the one with
    /// most first; if that does not help for too long, those that have taken least, until the child can be read.
    fn relieve_all(&mut self, now: Instant) {
        let Some(Overdue { since, until, checked }) = self.overdue else { return };
        if now < checked + self.patience(checked) {
            return;
        }
        self.overdue = Some(Overdue { since, until, checked: now });
        let is_late = until <= now;
        let mut slow: Vec<_> = self
            .feeds()
            .filter(|(_, feed)| feed.waiting() > SMALL)
            .map(|(id, feed)| (feed.has_progress(), id, feed.waiting(), feed.taken_since_mark()))
            .collect();
        for (progress, id, ..) in &mut slow {
            *progress |= self.has_time(*id, *progress, checked, now);
        }
        slow.retain(|(progress, ..)| is_late || !progress);
        slow.sort_by_key(|(progress, id, waiting, taken)| match progress {
            false => (false, Reverse(*waiting), *id),
            true => (true, Reverse(usize::MAX - taken), *id),
        });
        for (progress, id, waiting, taken) in slow {
            if (progress || waiting < SPARED) && self.excess().is_none() {
                break;
            }
            self.impatient_until = Some(now + AGAIN);
            if let Some(count) = CUTS.take() {
                let (sid, stream) = (self.session.short(), id.0);
                let why =
                    "a client does not read what it asked for, and its session waits: its stream is cut off";
                warn!(event = "stream.cut", sid, stream, waiting, taken, count, "{why}");
            }
            self.cut_off(id);
        }
        self.watch(now);
    }

    /// Whether a reader that has taken nothing since it was `checked` has more time than others: a lane has [`STUCK_LANE`].
    fn has_time(&mut self, id: StreamId, progress: bool, checked: Instant, now: Instant) -> bool {
        if !self.has_lane(id) {
            return false;
        }
        if progress {
            self.quiet_lanes.remove(&id);
            return true;
        }
        now < *self.quiet_lanes.entry(id).or_insert(checked) + STUCK_LANE
    }

    /// Cuts off the reader of a stream.
    fn cut_off(&mut self, id: StreamId) {
        self.note_delivered();
        self.full.remove(&id);
        if let Some(feed) = self.table.get_mut(&id).and_then(|stream| stream.feed.take()) {
            feed.cut();
            if !self.resumable {
                self.cut.push(id);
            }
        }
        self.leaving.retain(|(leaving, feed)| {
            let is_it = *leaving == id;
            if is_it {
                feed.cut();
            }
            !is_it
        });
    }

    /// Forgets readers that are gone, and notices those that have caught up. Returns the streams whose readers
    /// have left, or will never be, and whether each had taken everything.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<(StreamId, bool)> {
        self.relieve(now);
        self.watch(now);
        self.note_delivered();
        let mut left: Vec<_> = self.cut.drain(..).map(|id| (id, false)).collect();
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

    /// Ends every stream behind what is queued for it. Returns the readers for whom much waits, which are to be
    /// [seen off](see_off).
    pub(super) fn end(&mut self) -> Vec<Leaving> {
        let open = std::mem::take(&mut self.table).into_values();
        let open =
            open.filter_map(|stream| Some((stream.feed?, if stream.is_lane { STUCK_LANE } else { STUCK })));
        let leaving = std::mem::take(&mut self.leaving).into_iter().map(|(_, feed)| (feed, STUCK));
        let mut all: Vec<_> = open.chain(leaving).map(|(feed, stuck)| Leaving { feed, stuck }).collect();
        all.iter().for_each(|reader| reader.feed.finish());
        all.retain(|reader| reader.feed.waiting() > SPARED);
        all
    }
}

/// A reader of a session that has ended.
#[derive(Debug)]
pub(super) struct Leaving {
    feed: Feed,
    /// How long it may take nothing.
    stuck: Duration,
}

/// Looks after the readers of a session that has ended. They may take what waits for them; one that takes nothing, or
/// has not taken enough in time, is cut off: sessions can end as fast as clients like, and each would leave as much
/// behind as a session may hold.
pub(super) async fn see_off(session: SessionId, readers: Vec<Leaving>) {
    let began = Instant::now();
    let with_time = |Leaving { feed, stuck }| {
        feed.mark();
        (feed, stuck, began + stuck)
    };
    let mut readers: Vec<_> = readers.into_iter().map(with_time).collect();
    let too_slow = began + TOO_SLOW;
    while !readers.is_empty() {
        sleep(STUCK).await;
        let now = Instant::now();
        let is_late = now >= too_slow;
        readers.retain_mut(|(feed, stuck, until)| {
            let waiting = feed.waiting();
            if waiting <= SPARED {
                return false;
            }
            if feed.has_progress() {
                *until = now + *stuck;
            }
            if now < *until && !(is_late && waiting > MAX_UNSENT) {
                return true;
            }
            if let Some(count) = CUTS.take() {
                let sid = session.short();
                let why =
                    "a client does not read what is left of a session that has ended: its stream is cut off";
                warn!(event = "stream.cut", sid, waiting, taken = feed.taken_since_mark(), count, "{why}");
            }
            feed.cut();
            false
        });
    }
}
