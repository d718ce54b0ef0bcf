//! The ring of events from which a client that lost its connection resumes (2025-11-25 `basic/transports`,
//! "Resumability and Redelivery").

use std::collections::{HashMap, VecDeque};

use super::ids::{EventId, StreamId};

/// What one event costs beside its payload, in bytes: without it, many tiny events would weigh nothing.
const OVERHEAD: usize = 96;

/// Why a stream cannot be resumed behind a given event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReplay {
    /// There is no such stream, or it never had such an event.
    Unknown,
    /// Events behind it have left the ring.
    Evicted,
}

/// Recent events of all streams of one session, bounded in bytes.
///
/// When it is full the oldest event that is no answer goes first, and answers only when nothing else is left:
/// a lost notification is a gap, a lost answer is a call that never ends.
#[derive(Debug)]
pub struct EventLog<T> {
    max: usize,
    held: usize,
    notes: VecDeque<Stored<T>>,
    answers: VecDeque<Stored<T>>,
    streams: HashMap<StreamId, Stream>,
}

#[derive(Debug)]
struct Stored<T> {
    id: EventId,
    payload: T,
    size: usize,
}

#[derive(Debug, Default)]
struct Stream {
    /// The place of the newest event, whether or not it is still here.
    newest: u64,
    /// How many of its events are here.
    held: usize,
    ended: bool,
}

impl<T: Clone> EventLog<T> {
    /// A ring for at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, held: 0, notes: VecDeque::new(), answers: VecDeque::new(), streams: HashMap::new() }
    }

    /// How many bytes it holds, overhead included.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Keeps an event of `size` bytes. Places of one stream come in ascending order without gaps.
    pub fn push(&mut self, id: EventId, payload: T, size: usize, answer: bool) {
        let size = size + OVERHEAD;
        let stream = self.streams.entry(id.stream).or_default();
        stream.newest = id.place;
        stream.held += 1;
        self.held += size;
        let ring = if answer { &mut self.answers } else { &mut self.notes };
        ring.push_back(Stored { id, payload, size });
        while self.held > self.max {
            let Some(oldest) = self.notes.pop_front().or_else(|| self.answers.pop_front()) else { break };
            self.held -= oldest.size;
            if let Some(stream) = self.streams.get_mut(&oldest.id.stream) {
                stream.held -= 1;
                if stream.ended && stream.held == 0 {
                    self.streams.remove(&oldest.id.stream);
                }
            }
        }
    }

    /// Notes an event that need not be kept, so that a client which saw it can resume behind it.
    pub fn skip(&mut self, id: EventId) {
        self.streams.entry(id.stream).or_default().newest = id.place;
    }

    /// Notes that no further event of the stream will come.
    pub fn end(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.ended = true;
            if stream.held == 0 {
                self.streams.remove(&id);
            }
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
        let missed = self.rest(last);
        let complete = missed.len() as u64 == stream.newest - last.place;
        if complete { Ok(missed) } else { Err(NoReplay::Evicted) }
    }

    /// The events of the stream behind `last` that are still here, whatever has left the ring.
    pub fn rest(&self, last: EventId) -> Vec<(EventId, T)> {
        let mut events: Vec<_> = self
            .notes
            .iter()
            .chain(&self.answers)
            .filter(|event| event.id.stream == last.stream && event.id.place > last.place)
            .map(|event| (event.id, event.payload.clone()))
            .collect();
        events.sort_unstable_by_key(|(id, _)| id.place);
        events
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
        let mut log = EventLog::new(10_000);
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
        let mut log = EventLog::new(1000);
        log.skip(id(1, 1));
        assert_eq!(log.replay(id(1, 1)), Ok(vec![]));
        assert_eq!(log.replay(id(1, 0)), Err(NoReplay::Evicted));
        log.push(id(1, 2), "b", 1, true);
        assert_eq!(log.replay(id(1, 1)), Ok(vec![(id(1, 2), "b")]));
    }

    #[test]
    fn answers_outlive_notifications() {
        let mut log = EventLog::new(4 * (OVERHEAD + 1));
        log.push(id(1, 1), "note", 1, false);
        log.push(id(1, 2), "answer", 1, true);
        for place in 1..=5 {
            log.push(id(2, place), "note", 1, false);
        }
        assert_eq!(log.replay(id(1, 1)), Ok(vec![(id(1, 2), "answer")]));
        assert_eq!(log.replay(id(2, 1)), Err(NoReplay::Evicted));
        assert_eq!(places(log.rest(id(2, 0))), [3, 4, 5]);
    }

    #[test]
    fn an_event_larger_than_the_ring_is_not_kept_and_nothing_else_breaks() {
        let mut log = EventLog::new(1000);
        log.push(id(1, 1), "small", 1, false);
        log.push(id(1, 2), "huge", 5000, true);
        assert_eq!(log.held(), 0);
        assert_eq!(log.replay(id(1, 1)), Err(NoReplay::Evicted));
        log.end(StreamId(1));
        assert_eq!(log.replay(id(1, 1)), Err(NoReplay::Unknown), "nothing of an ended, empty stream is kept");
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_its_bound_and_replays_exactly_the_tail_or_refuses(
            events in prop::collection::vec((1u64..5, 0usize..400, any::<bool>()), 0..200),
            max in 0usize..5000,
        ) {
            let mut log = EventLog::new(max);
            let mut newest = HashMap::<u64, u64>::new();
            for (stream, size, answer) in events {
                let place = newest.entry(stream).or_default();
                *place += 1;
                log.push(id(stream, *place), (stream, *place), size, answer);
                prop_assert!(log.held() <= max);
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
            let mut log = EventLog::new(2000);
            for stream in 1..=streams {
                log.push(id(stream, 2), (), 100, false);
                log.end(StreamId(stream));
            }
            prop_assert!(log.streams.len() <= 2000 / (100 + OVERHEAD));
        }
    }
}
