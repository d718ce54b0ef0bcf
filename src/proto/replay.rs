//! The ring of events from which a client that lost its connection resumes (2025-11-25 `basic/transports`,
//! "Resumability and Redelivery").

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::ids::{EventId, StreamId};

/// What one event costs beside its payload, in bytes: without it, many tiny events would weigh nothing.
const OVERHEAD: usize = 320;

/// Why a stream cannot be resumed behind a given event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReplay {
    /// There is no such stream, or it never had such an event.
    Unknown,
    /// Events behind it have left the ring.
    Evicted,
}

impl NoReplay {
    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Evicted => "evicted",
        }
    }
}

/// Recent events of all streams of one session, bounded in bytes.
///
/// When it is full, the oldest event that is no answer goes first, and answers only when nothing else is left: a lost
/// notification is a gap, a lost answer is a call that never ends. But streams that have ended and were delivered to the
/// end keep at most half of the ring, or old answers would soon fill it.
#[derive(Debug)]
pub struct ReplayBuffer<T> {
    max: usize,
    held: usize,
    streams: HashMap<StreamId, Stream<T>>,
    /// Streams that have ended and were delivered to the end, oldest first.
    finished: VecDeque<StreamId>,
    /// How many bytes their events have.
    finished_held: usize,
    /// Where the events are that are no answers, by age; and those that are.
    notifications: BTreeMap<u64, EventId>,
    answers: BTreeMap<u64, EventId>,
    next_age: u64,
}

#[derive(Debug)]
struct Stream<T> {
    /// The place of the newest event, whether or not it is still here.
    newest: u64,
    ended: bool,
    /// Whether it has ended and was delivered to the end.
    finished: bool,
    events: VecDeque<Stored<T>>,
}

#[derive(Debug)]
struct Stored<T> {
    place: u64,
    age: u64,
    payload: T,
    size: usize,
    answer: bool,
}

impl<T> Default for Stream<T> {
    fn default() -> Self {
        Self { newest: 0, ended: false, finished: false, events: VecDeque::new() }
    }
}

impl<T: Clone> ReplayBuffer<T> {
    /// A ring for at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            held: 0,
            streams: HashMap::new(),
            finished: VecDeque::new(),
            finished_held: 0,
            notifications: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_age: 0,
        }
    }

    /// How much memory the events take, in bytes.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Keeps an event of `size` bytes. Places of one stream come in ascending order without gaps. Returns how many
    /// events of streams that go on, or that were not delivered, had to go for it.
    pub fn push(&mut self, id: EventId, payload: T, size: usize, answer: bool) -> usize {
        let size = size + OVERHEAD;
        let age = self.next_age;
        self.next_age += 1;
        let stream = self.streams.entry(id.stream).or_default();
        stream.newest = id.place;
        stream.events.push_back(Stored { place: id.place, age, payload, size, answer });
        self.held += size;
        let index = if answer { &mut self.answers } else { &mut self.notifications };
        index.insert(age, id);
        let mut lost = 0;
        while self.held > self.max {
            if (self.finished_held > self.max / 2 || self.notifications.is_empty())
                && let Some(finished) = self.finished.pop_front()
            {
                self.forget(finished);
                continue;
            }
            let Some((_, oldest)) = self.notifications.pop_first().or_else(|| self.answers.pop_first())
            else {
                break;
            };
            lost += usize::from(self.evict(oldest));
        }
        lost
    }

    /// Forgets a whole stream.
    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for event in stream.events {
            self.held -= event.size;
            self.finished_held -= if stream.finished { event.size } else { 0 };
            let index = if event.answer { &mut self.answers } else { &mut self.notifications };
            index.remove(&event.age);
        }
    }

    /// Forgets an event. Returns whether a client may still resume to it.
    fn evict(&mut self, id: EventId) -> bool {
        let Some(stream) = self.streams.get_mut(&id.stream) else { return false };
        let wanted = !stream.finished;
        let place = stream.events.iter().position(|event| event.place == id.place);
        if let Some(event) = place.and_then(|place| stream.events.remove(place)) {
            self.held -= event.size;
            self.finished_held -= if stream.finished { event.size } else { 0 };
        }
        if stream.ended && stream.events.is_empty() {
            self.streams.remove(&id.stream);
        }
        wanted
    }

    /// Notes an event that need not be kept, so that a client which saw it can resume behind it.
    pub fn note_unstored(&mut self, id: EventId) {
        self.streams.entry(id.stream).or_default().newest = id.place;
    }

    /// Notes that no further event of the stream will come. `delivered`: a reader was there to the end.
    pub fn end(&mut self, id: StreamId, delivered: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.ended = true;
        if stream.events.is_empty() {
            self.streams.remove(&id);
        } else if delivered {
            stream.finished = true;
            self.finished_held += stream.events.iter().map(|event| event.size).sum::<usize>();
            self.finished.push_back(id);
        }
    }

    /// The events of the stream behind `last`, in order: what a client has missed that saw `last` and no more.
    ///
    /// # Errors
    /// [`NoReplay`], where they are not all here.
    pub fn replay(&self, last: EventId) -> Result<Vec<(EventId, T)>, NoReplay> {
        let Some(stream) = self.streams.get(&last.stream) else { return Err(NoReplay::Unknown) };
        if last.place > stream.newest {
            return Err(NoReplay::Unknown);
        }
        let missed = self.kept_after(last);
        let complete = missed.len() as u64 == stream.newest - last.place;
        if complete { Ok(missed) } else { Err(NoReplay::Evicted) }
    }

    /// The events of the stream behind `last` that are still here, whatever has left the ring.
    pub fn kept_after(&self, last: EventId) -> Vec<(EventId, T)> {
        let events = self.streams.get(&last.stream).map(|stream| &stream.events).into_iter().flatten();
        let behind = events.filter(|event| event.place > last.place);
        behind
            .map(|event| (EventId { stream: last.stream, place: event.place }, event.payload.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(stream: u64, place: u64) -> EventId {
        EventId { stream: StreamId(stream), place }
    }

    fn places(events: Vec<(EventId, &'static str)>) -> Vec<u64> {
        events.into_iter().map(|(id, _)| id.place).collect()
    }

    #[test]
    fn replay_gives_what_follows_on_that_stream_only() {
        let mut log = ReplayBuffer::new(10_000);
        log.push(id(1, 1), "a", 1, false);
        log.push(id(2, 1), "x", 1, false);
        log.push(id(1, 2), "b", 1, false);
        log.push(id(1, 3), "c", 1, true);
        assert_eq!(log.replay(id(1, 1)), Ok(vec![(id(1, 2), "b"), (id(1, 3), "c")]));
        assert_eq!(log.replay(id(1, 3)), Ok(vec![]), "nothing was missed");
        assert_eq!(log.replay(id(1, 4)), Err(NoReplay::Unknown));
        assert_eq!(log.replay(id(3, 0)), Err(NoReplay::Unknown));
    }

    #[test]
    fn a_skipped_event_can_be_resumed_behind_but_not_before() {
        let mut log = ReplayBuffer::new(1000);
        log.note_unstored(id(1, 1));
        assert_eq!(log.replay(id(1, 1)), Ok(vec![]));
        assert_eq!(log.replay(id(1, 0)), Err(NoReplay::Evicted));
        log.push(id(1, 2), "b", 1, true);
        assert_eq!(log.replay(id(1, 1)), Ok(vec![(id(1, 2), "b")]));
    }

    #[test]
    fn answers_outlive_notifications() {
        let mut log = ReplayBuffer::new(4 * (OVERHEAD + 1));
        log.push(id(1, 1), "note", 1, false);
        log.push(id(1, 2), "answer", 1, true);
        for place in 1..=5 {
            log.push(id(2, place), "note", 1, false);
        }
        assert_eq!(log.replay(id(1, 1)), Ok(vec![(id(1, 2), "answer")]));
        assert_eq!(log.replay(id(2, 1)), Err(NoReplay::Evicted));
        assert_eq!(places(log.kept_after(id(2, 0))), [3, 4, 5]);
    }

    #[test]
    fn answers_that_were_heard_keep_at_most_half_of_the_ring() {
        let mut log = ReplayBuffer::new(10 * (OVERHEAD + 1));
        for stream in 1..=20 {
            log.push(id(stream, 2), "heard answer", 1, true);
            log.end(StreamId(stream), true);
        }
        for place in 1..=5 {
            assert_eq!(log.push(id(0, place), "note", 1, false), 0, "nothing that may be wanted is lost");
        }
        assert_eq!(places(log.kept_after(id(0, 0))), [1, 2, 3, 4, 5], "notifications have their half");
        assert_eq!(log.push(id(0, 6), "note", 1, false), 1, "a note went, and that is told");
        assert_eq!(
            log.replay(id(20, 1)),
            Ok(vec![(id(20, 2), "heard answer")]),
            "the newest answers have theirs"
        );
        assert_eq!(log.replay(id(10, 1)), Err(NoReplay::Unknown));
    }

    #[test]
    fn an_event_larger_than_the_ring_is_not_kept_and_nothing_else_breaks() {
        let mut log = ReplayBuffer::new(1000);
        log.push(id(1, 1), "small", 1, false);
        log.push(id(1, 2), "huge", 5000, true);
        assert_eq!(log.held, 0);
        assert_eq!(log.replay(id(1, 1)), Err(NoReplay::Evicted));
        log.end(StreamId(1), false);
        assert_eq!(log.replay(id(1, 1)), Err(NoReplay::Unknown), "nothing of an ended, empty stream is kept");
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_its_bound_and_replays_exactly_the_tail_or_refuses(
            events in prop::collection::vec((1u64..5, 0usize..400, any::<bool>()), 0..200),
            max in 0usize..5000,
        ) {
            let mut log = ReplayBuffer::new(max);
            let mut newest = HashMap::<u64, u64>::new();
            for (stream, size, answer) in events {
                let place = newest.entry(stream).or_default();
                *place += 1;
                log.push(id(stream, *place), (stream, *place), size, answer);
                prop_assert!(log.held <= max);
            }
            for (stream, newest) in newest {
                for seen in 0..=newest {
                    if let Ok(events) = log.replay(id(stream, seen)) {
                        let want: Vec<_> =
                            (seen + 1..=newest).map(|place| (id(stream, place), (stream, place))).collect();
                        prop_assert_eq!(events, want, "exactly once and in order");
                    }
                }
            }
        }

        #[test]
        fn ended_streams_leave_nothing_behind(streams in 1u64..200) {
            let mut log = ReplayBuffer::new(2000);
            for stream in 1..=streams {
                log.push(id(stream, 2), (), 100, false);
                log.end(StreamId(stream), stream % 2 == 0);
                prop_assert_eq!(log.notifications.len(), log.streams.len());
                let finished = log.streams.values().filter(|stream| stream.finished);
                prop_assert_eq!(log.finished_held, finished.map(|stream| stream.events[0].size).sum::<usize>());
            }
            prop_assert!(log.streams.len() <= 2000 / (100 + OVERHEAD));
        }
    }
}
