//! What a session hands to one HTTP exchange, or to the lane of another session: an ordered queue, bounded in bytes, from
//! the session's [`Feed`] to the [`Reader`] of the exchange or lane.
//!
//! Not a channel of the runtime, because three questions must have exact answers: how many bytes wait (a reader that
//! stops is cut off, never waited for), which event was taken last (what a successor has to be given again), and
//! whether the reader was dropped before the end (an answer without a reader is logged).
//!
//! What waits for a client waits here and not in its exchange: hyper does not ask the body of an exchange whose peer takes
//! nothing, so that only from here it can be dropped. An exchange takes a piece at a time, when there is somewhere to
//! put it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{End, Fault, NotTaken};
use crate::account::{Account, Held, Place};
use crate::heap;
use crate::proto::front::Refusal;
use crate::proto::ids::{ClientId, EventId};
use crate::sync::lock;

/// How many bytes may wait for a reader before the session stops reading its child. A reader that goes on taking slows
/// the child down; one that does not is cut off, see [`Feed::cut`], and can resume from the session's replay buffer.
pub(super) const MAX_UNSENT: usize = 1024 * 1024;

/// Bytes that weigh no more than the exchange that carries them: the number of exchanges is their limit.
pub const SMALL: usize = 4 * 1024;

/// The largest piece that an exchange takes at once, in bytes. With the text around it, it is one of the pieces of 64 KiB
/// that HTTP/2 is given.
const MAX_PIECE: usize = 64 * 1024 - 256;

/// Bytes that the exchanges of a session may have handed to their connections before each may only hand a [`SMALL`] piece:
/// what a connection has been given cannot be taken back.
const MAX_HANDED: usize = 1024 * 1024;

/// What an event costs in a queue beside its message, in bytes.
const OVERHEAD: usize = size_of::<Delivery>();

/// One thing that a session gives to a reader.
#[derive(Debug)]
pub enum Delivery {
    /// What was posted is on its way to the child, or the stream is attached.
    Accepted,
    /// What was posted is not for the child.
    Refused(Refusal),
    /// The stream cannot be resumed there: the event is unknown, or what followed it is no longer kept.
    NoReplay,
    /// The session ended before the stream was attached.
    Gone(End),
    /// The session ended before it took what was posted, which is given back.
    NotTaken(NotTaken),
    /// Notifications or responses that could not be forwarded within this time, the request timeout: the child has not
    /// seen them.
    NotForwarded(Duration),
    Event(Event),
    /// The answer has not come within [`Config::sse_after`](super::Config::sse_after): the client is to get a stream of
    /// events. Said once at most, and not behind an event that is no answer.
    Pending,
    /// The reader took too little for too long: it has been cut off.
    Lagged,
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place, which is its SSE id.
    pub id: EventId,
    pub payload: Payload,
    /// Whether the stream ends with it.
    pub last: bool,
}

/// What an event carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A notification or request of the child.
    Message(Bytes),
    /// The child's answer to a request, with the client's id.
    Answer {
        message: Bytes,
        /// Whether it is a result and not an error.
        success: bool,
    },
    /// The bridge's answer in place of the child's.
    Fault { id: ClientId, fault: Fault },
}

impl Payload {
    /// Whether it ends a request.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Self::Message(_))
    }

    /// What the child wrote.
    fn message(&self) -> Option<&Bytes> {
        match self {
            Self::Message(message) | Self::Answer { message, .. } => Some(message),
            Self::Fault { .. } => None,
        }
    }

    /// Its size in bytes, near enough for a bound.
    pub fn size(&self) -> usize {
        match self {
            Self::Message(message) | Self::Answer { message, .. } => message.len(),
            Self::Fault { id, .. } => id.0.as_json().len() + 256,
        }
    }
}

/// What an exchange takes of its queue at once.
#[derive(Debug)]
pub enum Taken {
    Whole(Delivery),
    /// A part of the message of an event, which is too long to be taken at once.
    Part(Part),
}

#[derive(Debug)]
pub struct Part {
    /// The event.
    pub id: EventId,
    /// Shares the memory of the whole message: to be copied and dropped.
    pub bytes: Bytes,
    /// Whether the event is an answer.
    pub answer: bool,
    /// Whether it is the first part.
    pub begins: bool,
    /// Whether it is the last part.
    pub ends: bool,
    /// Whether the stream ends with the event.
    pub last: bool,
}

/// What became of an event that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Queued,
    /// It is queued, and more than `MAX_UNSENT` bytes wait now.
    Full,
    Gone,
}

/// What all queues of a session have in common.
#[derive(Debug)]
pub struct Outlet {
    account: Arc<Account>,
    /// Told when a reader is dropped before the end, or has caught up, or when all readers together have.
    attention: Arc<Notify>,
    /// The session waits until so many bytes or fewer are left in its queues; 0: it does not wait.
    enough: AtomicUsize,
}

impl Outlet {
    pub fn new(account: Arc<Account>, attention: Arc<Notify>) -> Self {
        Self { account, attention, enough: AtomicUsize::new(0) }
    }

    /// Bytes that wait in all queues of the session.
    pub(super) fn waiting(&self) -> usize {
        self.account.at(Place::Readers)
    }

    /// Asks to be told through `attention` when so many bytes or fewer are left; 0: not to be told.
    pub(super) fn tell_at(&self, enough: usize) {
        self.enough.store(enough, Ordering::Relaxed);
    }

    /// Bytes have left a queue.
    fn left(&self) {
        let enough = self.enough.load(Ordering::Relaxed);
        if enough > 0 && self.waiting() <= enough {
            self.attention.notify_one();
        }
    }

    /// Whether the connections of its exchanges have so much in hand that each may get no more than a [`SMALL`] piece.
    fn is_scarce(&self) -> bool {
        self.account.at(Place::Responses) >= MAX_HANDED
    }
}

/// A piece in the hands of a connection. Its end is told to the queue that it comes from.
struct Handed {
    piece: Bytes,
    queue: Arc<Shared>,
    _held: Held,
}

impl AsRef<[u8]> for Handed {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.handed = queue.handed.saturating_sub(self.piece.len());
        if queue.handed == 0 {
            queue.wake();
        }
    }
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Delivery>,
    /// How many bytes of the message of the first event have been taken.
    begun: usize,
    /// How many bytes the exchange has handed to its connection, which has not dropped them.
    handed: usize,
    /// What the events weigh that have not been taken to their ends.
    held: Held,
    /// `MAX_UNSENT` was reached, and the reader has not taken half of it since.
    full: bool,
    /// The reader took something since this was last asked.
    progress: bool,
    /// How many bytes it has taken since it was last marked.
    taken: usize,
    waker: Option<Waker>,
    /// No more will be queued.
    closed: bool,
    /// The reader is dropped.
    reader_gone: bool,
    /// Where the reader stands: the event before the first it gets, then the last it took.
    position: Option<EventId>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    outlet: Arc<Outlet>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Drops what waits.
    fn clear(&self, queue: &mut Queue) {
        queue.waiting = VecDeque::new();
        queue.begun = 0;
        if queue.held.bytes() > 0 {
            heap::note_freed(queue.held.bytes());
            queue.held.resize(0);
            self.outlet.left();
        }
    }
}

/// The session's end of the queue. Dropping it ends the stream behind what is queued.
#[derive(Debug)]
pub struct Feed(Arc<Shared>);

/// The HTTP exchange's end of the queue.
#[derive(Debug)]
pub struct Reader(Arc<Shared>);

/// A new queue.
pub fn queue(outlet: &Arc<Outlet>) -> (Feed, Reader) {
    let queue = Queue {
        waiting: VecDeque::new(),
        begun: 0,
        handed: 0,
        held: outlet.account.hold(Place::Readers, 0),
        full: false,
        progress: false,
        taken: 0,
        waker: None,
        closed: false,
        reader_gone: false,
        position: None,
    };
    let shared = Arc::new(Shared { queue: Mutex::new(queue), outlet: Arc::clone(outlet) });
    (Feed(Arc::clone(&shared)), Reader(shared))
}

impl Feed {
    /// Sets the event behind which the stream begins or continues.
    pub fn begin(&self, position: EventId) {
        self.0.lock().position = Some(position);
    }

    /// Queues an event, unless the reader is gone.
    pub fn offer(&self, event: Event) -> Offered {
        let mut queue = self.0.lock();
        if queue.reader_gone || queue.closed {
            return Offered::Gone;
        }
        queue.push(Delivery::Event(event));
        if queue.held.bytes() > MAX_UNSENT && queue.waiting.len() > 1 {
            queue.full = true;
            return Offered::Full;
        }
        Offered::Queued
    }

    /// Whether too much waits for the reader. The session is told when that is over.
    pub fn is_full(&self) -> bool {
        let queue = self.0.lock();
        queue.full && !queue.reader_gone && !queue.closed
    }

    /// How many bytes wait for the reader.
    pub fn waiting(&self) -> usize {
        self.0.lock().held.bytes()
    }

    /// Whether the reader took something since this was last asked.
    pub fn has_progress(&self) -> bool {
        std::mem::take(&mut self.0.lock().progress)
    }

    /// From now on [`has_progress`](Self::has_progress) and [`taken_since_mark`](Self::taken_since_mark) count.
    pub fn mark(&self) {
        let mut queue = self.0.lock();
        queue.progress = false;
        queue.taken = 0;
    }

    /// How many bytes the reader has taken since it was last marked.
    pub fn taken_since_mark(&self) -> usize {
        self.0.lock().taken
    }

    /// Cuts the reader off: it takes too little. What waits is dropped, and the stream breaks instead of ending.
    pub fn cut(&self) {
        let mut queue = self.0.lock();
        self.0.clear(&mut queue);
        if !queue.reader_gone {
            queue.waiting.push_back(Delivery::Lagged);
        }
        queue.close();
    }

    /// Queues a delivery however much is waiting: the first one, or an event from the replay buffer, which is bounded.
    pub fn push(&self, delivery: Delivery) {
        let mut queue = self.0.lock();
        if !queue.reader_gone {
            queue.push(delivery);
        }
    }

    /// Ends the stream at once; what waits is taken back, because another reader will get it. That the stream was attached
    /// stays true.
    pub fn supersede(&self) {
        let mut queue = self.0.lock();
        let attached = matches!(queue.waiting.front(), Some(Delivery::Accepted));
        self.0.clear(&mut queue);
        if attached {
            queue.waiting.push_back(Delivery::Accepted);
        }
        queue.close();
    }

    /// Ends the stream behind what is queued.
    pub fn finish(&self) {
        self.0.lock().close();
    }

    /// Whether the reader is there and has not been cut off.
    pub fn is_live(&self) -> bool {
        let queue = self.0.lock();
        !queue.reader_gone && !queue.closed
    }

    /// The place of the last event that the reader took.
    pub fn taken(&self) -> u64 {
        self.0.lock().position.map_or(0, |event| event.place)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What a delivery weighs in a queue, in bytes.
fn weight(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Event(event) => event.payload.size() + OVERHEAD,
        _ => 0,
    }
}

impl Queue {
    fn push(&mut self, delivery: Delivery) {
        self.held.resize(self.held.bytes() + weight(&delivery));
        self.waiting.push_back(delivery);
        self.wake();
    }

    /// The first delivery, which has been taken to its end.
    fn pop(&mut self, outlet: &Outlet) -> Option<Delivery> {
        let delivery = self.waiting.pop_front()?;
        if let Delivery::Event(event) = &delivery {
            self.taken += event.payload.size() - self.begun;
            self.begun = 0;
            self.held.resize(self.held.bytes().saturating_sub(weight(&delivery)));
            self.position = Some(event.id);
            self.progress = true;
            if self.full && (self.held.bytes() <= MAX_UNSENT / 2 || self.waiting.len() <= 1) {
                self.full = false;
                outlet.attention.notify_one();
            }
            outlet.left();
        }
        Some(delivery)
    }

    /// The next part of the message of the first event, if it is too long to be taken at once. `max` is in bytes, and may be
    /// exceeded by what is left of a character.
    fn part(&mut self, max: usize, outlet: &Outlet) -> Option<Part> {
        let Some(Delivery::Event(event)) = self.waiting.front() else { return None };
        let message = event.payload.message()?;
        if self.begun == 0 && message.len() <= max {
            return None;
        }
        let mut end = self.begun.saturating_add(max.max(1)).min(message.len());
        // To the end of a character (RFC 3629 §3), which may have to be written otherwise.
        while message.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
            end += 1;
        }
        let part = Part {
            id: event.id,
            bytes: message.slice(self.begun..end),
            answer: event.payload.is_answer(),
            begins: self.begun == 0,
            ends: end == message.len(),
            last: event.last,
        };
        self.progress = true;
        if part.ends {
            self.pop(outlet);
        } else {
            self.taken += part.bytes.len();
            self.begun = end;
        }
        Some(part)
    }

    fn close(&mut self) {
        self.closed = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for what comes next; `None`: nothing will.
    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        if self.closed {
            return Poll::Ready(None);
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Reader {
    /// The next delivery; `None` at the end of the stream.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut queue = self.0.lock();
        match queue.pop(&self.0.outlet) {
            Some(delivery) => Poll::Ready(Some(delivery)),
            None => queue.wait(context),
        }
    }

    /// The next delivery, or of an event whose message has more than `max` bytes the next so many; `None` at the end of
    /// the stream. Where connections have much in hand, there is none until this one has dropped what it was handed.
    pub fn poll_take(&self, max: usize, context: &Context<'_>) -> Poll<Option<Taken>> {
        let mut queue = self.0.lock();
        if queue.handed > 0
            && self.0.outlet.is_scarce()
            && matches!(queue.waiting.front(), Some(Delivery::Event(_)))
        {
            queue.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some(part) = queue.part(max, &self.0.outlet) {
            return Poll::Ready(Some(Taken::Part(part)));
        }
        match queue.pop(&self.0.outlet) {
            Some(delivery) => Poll::Ready(Some(Taken::Whole(delivery))),
            None => queue.wait(context),
        }
    }

    /// The next delivery, if there is one already.
    pub fn take(&self) -> Option<Delivery> {
        self.0.lock().pop(&self.0.outlet)
    }

    /// The next delivery; `None` at the end of the stream. Losing the future loses nothing.
    pub async fn next(&self) -> Option<Delivery> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Looks at what waits, how many bytes that is and whether nothing will follow, until `look` has seen enough. Takes
    /// nothing.
    pub fn poll_look<T>(
        &self,
        look: impl FnOnce(&VecDeque<Delivery>, usize, bool) -> Option<T>,
        context: &Context<'_>,
    ) -> Poll<T> {
        let mut queue = self.0.lock();
        let seen = look(&queue.waiting, queue.held.bytes(), queue.closed);
        match seen {
            Some(seen) => Poll::Ready(seen),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Looks at what waits. Takes nothing.
    pub fn look<T>(&self, look: impl FnOnce(&VecDeque<Delivery>) -> T) -> T {
        look(&self.0.lock().waiting)
    }

    /// Where the reader stands: before the first event, the one before it. `None` while the session has not
    /// attached the stream.
    pub fn position(&self) -> Option<EventId> {
        self.0.lock().position
    }

    /// How many bytes may be handed to the connection at once.
    pub fn piece(&self) -> usize {
        if self.0.outlet.is_scarce() { SMALL } else { MAX_PIECE }
    }

    /// Counts a piece as handed to the connection, until that has dropped it.
    pub fn hand(&self, piece: Bytes) -> Bytes {
        let _held = self.0.outlet.account.hold(Place::Responses, piece.len());
        self.0.lock().handed += piece.len();
        Bytes::from_owner(Handed { piece, queue: Arc::clone(&self.0), _held })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.reader_gone = true;
        self.0.clear(&mut queue);
        if !queue.closed {
            self.0.outlet.attention.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::StreamId;

    fn event(place: u64, size: usize) -> Event {
        let payload = Payload::Message(vec![b'x'; size].into());
        Event { id: EventId { stream: StreamId(1), place }, payload, last: false }
    }

    fn outlet() -> Arc<Outlet> {
        Arc::new(Outlet::new(Arc::default(), Arc::default()))
    }

    fn pair() -> (Feed, Reader) {
        queue(&outlet())
    }

    async fn places(reader: &Reader) -> Vec<u64> {
        let mut places = Vec::new();
        while let Some(delivery) = reader.next().await {
            match delivery {
                Delivery::Event(event) => places.push(event.id.place),
                other => panic!("unexpected {other:?}"),
            }
        }
        places
    }

    #[tokio::test]
    async fn what_was_queued_before_the_end_is_still_read() {
        let (feed, reader) = pair();
        assert_eq!(feed.offer(event(1, 10)), Offered::Queued);
        assert_eq!(feed.offer(event(2, 10)), Offered::Queued);
        drop(feed);
        assert_eq!(places(&reader).await, [1, 2]);
    }

    #[tokio::test]
    async fn a_reader_is_full_until_it_has_taken_half_and_one_event_of_any_size_passes() {
        let (feed, reader) = pair();
        assert_eq!(feed.offer(event(1, 3 * MAX_UNSENT)), Offered::Queued, "a big message alone is no lag");
        assert_eq!(feed.offer(event(2, MAX_UNSENT / 2)), Offered::Full);
        assert!(feed.is_full() && !feed.has_progress());
        assert!(matches!(reader.next().await, Some(Delivery::Event(event)) if event.id.place == 1));
        assert!(!feed.is_full() && feed.has_progress());
        assert!(!feed.has_progress(), "asked and answered");
        assert!(matches!(reader.next().await, Some(Delivery::Event(event)) if event.id.place == 2));
    }

    #[tokio::test]
    async fn a_reader_that_is_cut_off_learns_that_there_was_more() {
        let (feed, reader) = pair();
        feed.push(Delivery::Event(event(1, 10)));
        feed.cut();
        assert!(matches!(reader.next().await, Some(Delivery::Lagged)));
        assert!(reader.next().await.is_none());
        assert!(!feed.is_live());
    }

    #[tokio::test]
    async fn a_superseded_reader_gives_back_what_it_has_not_taken() {
        let (feed, reader) = pair();
        for place in 1..=3 {
            feed.push(Delivery::Event(event(place, 1)));
        }
        assert!(matches!(reader.next().await, Some(Delivery::Event(event)) if event.id.place == 1));
        feed.supersede();
        assert_eq!(feed.taken(), 1, "2 and 3 are for the successor");
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn a_long_message_is_taken_in_parts_and_weighs_all_until_its_end() {
        let outlet = outlet();
        let (feed, reader) = queue(&outlet);
        feed.offer(event(1, 1000));
        feed.offer(event(2, 10));
        let before = outlet.waiting();
        let context = Context::from_waker(Waker::noop());
        let take = || reader.poll_take(400, &context);
        for (begins, ends, length) in [(true, false, 400), (false, false, 400), (false, true, 200)] {
            assert_eq!(outlet.waiting(), before, "a part of it keeps all of it in memory");
            assert_eq!(reader.position(), None, "a successor must be given all of it again");
            let Poll::Ready(Some(Taken::Part(part))) = take() else { panic!("a part") };
            assert_eq!((part.begins, part.ends, part.bytes.len()), (begins, ends, length));
        }
        assert_eq!(reader.position().map(|id| id.place), Some(1));
        assert_eq!(feed.taken_since_mark(), 1000);
        assert!(matches!(take(), Poll::Ready(Some(Taken::Whole(Delivery::Event(_))))));
        assert_eq!(outlet.waiting(), 0);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        for max in 1..9 {
            let (feed, reader) = pair();
            let message = "aé\u{2028}😀".repeat(50);
            let payload = Payload::Message(message.clone().into());
            feed.offer(Event { id: EventId { stream: StreamId(1), place: 1 }, payload, last: false });
            let context = Context::from_waker(Waker::noop());
            let mut taken = String::new();
            loop {
                let Poll::Ready(Some(Taken::Part(part))) = reader.poll_take(max, &context) else { panic!() };
                assert!(part.bytes.len() < max + 4);
                taken += std::str::from_utf8(&part.bytes).unwrap();
                if part.ends {
                    break;
                }
            }
            assert_eq!(taken, message);
        }
    }

    #[tokio::test]
    async fn what_is_dropped_half_taken_weighs_nothing() {
        for drop_it in [Feed::cut, Feed::supersede] {
            let outlet = outlet();
            let (feed, reader) = queue(&outlet);
            feed.offer(event(1, 1000));
            feed.offer(event(2, 1000));
            let context = Context::from_waker(Waker::noop());
            assert!(matches!(reader.poll_take(400, &context), Poll::Ready(Some(Taken::Part(_)))));
            drop_it(&feed);
            assert_eq!(outlet.waiting(), 0);
            assert!(!matches!(reader.next().await, Some(Delivery::Event(_))));
        }
    }

    #[tokio::test]
    async fn a_superseded_reader_that_was_attached_is_told_so() {
        let (feed, reader) = pair();
        feed.push(Delivery::Accepted);
        feed.push(Delivery::Event(event(1, 1)));
        feed.supersede();
        assert!(matches!(reader.next().await, Some(Delivery::Accepted)));
        assert!(reader.next().await.is_none());
    }

    #[test]
    fn where_connections_have_much_in_hand_each_gets_one_small_piece() {
        let outlet = outlet();
        let (feed, reader) = queue(&outlet);
        let context = Context::from_waker(Waker::noop());
        feed.offer(event(1, 10));
        feed.offer(event(2, 10));
        let mut handed = Vec::new();
        while reader.piece() > SMALL {
            handed.push(reader.hand(vec![b'x'; reader.piece()].into()));
            assert!(handed.len() <= 17, "a MiB, and no more");
        }
        assert!(reader.poll_take(SMALL, &context).is_pending(), "it has not dropped what it was handed");
        let (other_feed, other) = queue(&outlet);
        other_feed.offer(event(1, 10));
        assert!(other.poll_take(SMALL, &context).is_ready(), "another one has been handed nothing");
        let slice = handed.remove(0).slice(..1);
        assert_eq!(reader.piece(), SMALL, "a slice keeps all of it in memory");
        drop(slice);
        assert!(reader.piece() > SMALL);
        assert!(reader.poll_take(SMALL, &context).is_ready());
    }

    #[tokio::test]
    async fn leaving_early_is_told_and_leaving_at_the_end_is_not() {
        let outlet = outlet();
        let (feed, reader) = queue(&outlet);
        drop(reader);
        outlet.attention.notified().await;
        assert_eq!(feed.offer(event(1, 1)), Offered::Gone);

        let (feed, reader) = queue(&outlet);
        drop(feed);
        drop(reader);
        let told =
            tokio::time::timeout(std::time::Duration::from_millis(10), outlet.attention.notified()).await;
        assert!(told.is_err(), "a finished exchange wakes no loop");
    }
}
