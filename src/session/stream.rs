//! What a session hands to one HTTP exchange: an ordered queue, bounded in bytes, from the session's [`Feed`] to the
//! exchange's [`Reader`].
//!
//! Not a channel of the runtime, because three questions must have exact answers: how many bytes wait (a reader that
//! stops is cut off, never waited for), which event was taken last (what a successor has to be given again), and
//! whether the reader was dropped before the end (an answer without a reader is logged).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{End, Fault, NotTaken};
use crate::proto::front::Refusal;
use crate::proto::ids::{ClientId, EventId};
use crate::sync::lock;

/// How many bytes may wait for a reader before the session stops reading its child. A reader that goes on taking slows
/// the child down; one that does not is cut off, see [`Feed::cut`], and can resume from the session's replay buffer.
pub(super) const MAX_UNSENT: usize = 1024 * 1024;

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

    /// Its size in bytes, near enough for a bound.
    pub fn size(&self) -> usize {
        match self {
            Self::Message(message) | Self::Answer { message, .. } => message.len(),
            Self::Fault { id, .. } => id.0.as_json().len() + 256,
        }
    }
}

/// What became of an event that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Queued,
    /// It is queued, and more than `MAX_UNSENT` bytes wait now.
    Full,
    Gone,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Delivery>,
    unsent: usize,
    /// `MAX_UNSENT` was reached, and the reader has not taken half of it since.
    full: bool,
    /// The reader took something since this was last asked.
    progress: bool,
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
    /// Told when a reader is dropped before the end, or has caught up.
    attention: Arc<Notify>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

/// The session's end of the queue. Dropping it ends the stream behind what is queued.
#[derive(Debug)]
pub struct Feed(Arc<Shared>);

/// The HTTP exchange's end of the queue.
#[derive(Debug)]
pub struct Reader(Arc<Shared>);

/// A new queue. `attention` is told when the reader is dropped before the end, or has caught up.
pub fn queue(attention: Arc<Notify>) -> (Feed, Reader) {
    let shared = Arc::new(Shared { queue: Mutex::default(), attention });
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
        let size = event.payload.size();
        queue.push(Delivery::Event(event), size);
        if queue.unsent > MAX_UNSENT && queue.waiting.len() > 1 {
            queue.full = true;
            return Offered::Full;
        }
        Offered::Queued
    }

    /// Whether too much waits for the reader. It is told through the session's `attention` when that is over.
    pub fn is_full(&self) -> bool {
        let queue = self.0.lock();
        queue.full && !queue.reader_gone && !queue.closed
    }

    /// Whether the reader took something since this was last asked.
    pub fn has_progress(&self) -> bool {
        std::mem::take(&mut self.0.lock().progress)
    }

    /// Cuts the reader off: it takes too little. What waits is dropped, and the stream breaks instead of ending.
    pub fn cut(&self) {
        let mut queue = self.0.lock();
        queue.waiting.clear();
        queue.waiting.push_back(Delivery::Lagged);
        queue.close();
    }

    /// Queues a delivery however much is waiting: the first one, or an event from the replay buffer, which is bounded.
    pub fn push(&self, delivery: Delivery) {
        let size = if let Delivery::Event(event) = &delivery { event.payload.size() } else { 0 };
        self.0.lock().push(delivery, size);
    }

    /// Ends the stream at once; what waits is taken back, because another reader will get it.
    pub fn supersede(&self) {
        let mut queue = self.0.lock();
        queue.waiting.clear();
        queue.close();
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
        self.0.lock().close();
    }
}

impl Queue {
    fn push(&mut self, delivery: Delivery, size: usize) {
        self.unsent += size;
        self.waiting.push_back(delivery);
        self.wake();
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
}

impl Reader {
    /// The next delivery; `None` at the end of the stream.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut queue = self.0.lock();
        match queue.waiting.pop_front() {
            Some(delivery) => {
                if let Delivery::Event(event) = &delivery {
                    queue.unsent -= event.payload.size();
                    queue.position = Some(event.id);
                    queue.progress = true;
                    if queue.full && queue.unsent <= MAX_UNSENT / 2 {
                        queue.full = false;
                        self.0.attention.notify_one();
                    }
                }
                Poll::Ready(Some(delivery))
            }
            None if queue.closed => Poll::Ready(None),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next delivery; `None` at the end of the stream. Losing the future loses nothing.
    pub async fn next(&self) -> Option<Delivery> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Where the reader stands: before the first event, the one before it. `None` while the session has not
    /// attached the stream.
    pub fn position(&self) -> Option<EventId> {
        self.0.lock().position
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.reader_gone = true;
        queue.waiting.clear();
        if !queue.closed {
            self.0.attention.notify_one();
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

    fn pair() -> (Feed, Reader) {
        queue(Arc::new(Notify::new()))
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
    async fn leaving_early_is_told_and_leaving_at_the_end_is_not() {
        let attention = Arc::new(Notify::new());
        let (feed, reader) = queue(Arc::clone(&attention));
        drop(reader);
        attention.notified().await;
        assert_eq!(feed.offer(event(1, 1)), Offered::Gone);

        let (feed, reader) = queue(Arc::clone(&attention));
        drop(feed);
        drop(reader);
        let told = tokio::time::timeout(std::time::Duration::from_millis(10), attention.notified()).await;
        assert!(told.is_err(), "a finished exchange wakes no loop");
    }
}
