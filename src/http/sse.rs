//! Server-sent events (HTML, "Server-sent events"): one stream of a session, or all streams of a client merged. The only
//! place that knows how they are spelt.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use memchr::memchr2_iter;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::problem::Problem;
use crate::proto::ids::{EventId, Id};
use crate::proto::version::Era;
use crate::session::NotTaken;
use crate::session::stream::{Delivery, Part, Payload, Reader, Taken};

/// What a client waits before it reconnects to a primed stream, in milliseconds.
const RETRY: &str = "1000";

/// Says when a stream has been silent for so long that a comment is due.
#[derive(Debug)]
struct KeepAlive {
    pause: Duration,
    /// Made at the first wait: most streams that begin with an answer never wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl KeepAlive {
    fn new(pause: Duration) -> Self {
        Self { pause, timer: None }
    }

    /// Something was sent.
    fn restart(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + self.pause);
        }
    }

    /// The comment, when it is due.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        let pause = self.pause;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        std::task::ready!(timer.as_mut().poll(context));
        self.restart();
        Poll::Ready(Bytes::from_static(b": keep-alive\n\n"))
    }
}

/// Events as they come, and a comment when none has come for a while.
#[derive(Debug)]
pub struct EventStream {
    reader: Reader,
    /// Whether its events have ids, behind which it can be resumed, and how a lost server is told: as the era has it.
    era: Era,
    /// The request that is answered, for an error the session makes of it before it counts as an event.
    id: Option<Id>,
    prime: Option<EventId>,
    /// Whether an event has been written in part: no comment may come in between.
    begun: bool,
    keep_alive: KeepAlive,
    ending: Option<Ending>,
}

/// How a stream ends, once that is clear.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// Every event has been sent.
    Complete,
    /// Its reader has been cut off, or superseded within an event. Not a proper end: the client must know that there is
    /// more, and where to resume.
    Broken,
}

impl EventStream {
    /// A stream of what the reader gets. After each `pause` without an event it sends a comment, which keeps idle limits of
    /// proxies away. `prime`: begin with an event that carries this id and no data. `id`: the request's, where there is one.
    pub fn new(reader: Reader, pause: Duration, prime: Option<EventId>, id: Option<Id>) -> Self {
        let keep_alive = KeepAlive::new(pause);
        Self { reader, era: Era::Legacy, id, prime, begun: false, keep_alive, ending: None }
    }

    /// The same for a request of 2026-07-28, whose streams cannot be resumed (`basic/transports/streamable-http`).
    pub fn modern(reader: Reader, pause: Duration, id: Id) -> Self {
        Self { era: Era::Modern, ..Self::new(reader, pause, None, Some(id)) }
    }

    /// What an event is known by on this stream.
    fn event_id(&self, id: EventId) -> Option<EventId> {
        (self.era == Era::Legacy).then_some(id)
    }

    pub(super) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        let mut chunk = BytesMut::new();
        if let Some(id) = self.prime.take() {
            // A data line must be there: without one no event is dispatched and the id is not remembered.
            push(&mut chunk, &["id: ", &id.to_string(), "\nretry: ", RETRY, "\ndata: \n\n"]);
        }
        // What is there goes out in one chunk, up to a piece that the connection can be given.
        let most = self.reader.piece();
        while self.ending.is_none() && chunk.len() < most {
            let Poll::Ready(next) = self.reader.poll_take(most - chunk.len(), context) else { break };
            match next {
                Some(Taken::Part(part)) => {
                    encode_part(&mut chunk, self.event_id(part.id), &part);
                    self.begun = !part.ends;
                    if part.ends && part.last {
                        self.ending = Some(Ending::Complete);
                    }
                }
                Some(Taken::Whole(Delivery::Event(event))) => {
                    encode(&mut chunk, self.event_id(event.id), &event.payload);
                    if event.last {
                        self.ending = Some(Ending::Complete);
                    }
                }
                Some(Taken::Whole(Delivery::Lagged)) => self.ending = Some(Ending::Broken),
                Some(Taken::Whole(other)) => {
                    if encode_refusal(&mut chunk, other, self.id.as_ref(), self.era) {
                        self.ending = Some(Ending::Complete);
                    }
                }
                None if self.begun => self.ending = Some(Ending::Broken),
                None => self.ending = Some(Ending::Complete),
            }
        }
        if !chunk.is_empty() {
            self.keep_alive.restart();
            return Poll::Ready(Some(Ok(self.reader.hand(chunk.freeze()))));
        }
        match self.ending {
            Some(Ending::Complete) => Poll::Ready(None),
            Some(Ending::Broken) => {
                self.ending = Some(Ending::Complete);
                Poll::Ready(Some(Err(lagged())))
            }
            None if self.begun => Poll::Pending,
            None => self.keep_alive.poll(context).map(|comment| Some(Ok(comment))),
        }
    }
}

/// One reader of a merged stream.
#[derive(Debug)]
pub struct Member {
    pub reader: Reader,
    /// The request that it answers.
    pub id: Option<Id>,
    /// Whether the merged stream ends with it.
    pub main: bool,
    /// Whether one of its events has been written in part.
    begun: bool,
}

impl Member {
    pub fn new(reader: Reader, id: Option<Id>, main: bool) -> Self {
        Self { reader, id, main, begun: false }
    }
}

/// What a merged stream belongs to. It is dropped with the stream.
pub trait Owner: Send + Sync {
    /// Whether no reader has been asked for yet.
    fn is_unused(&self) -> bool;
}

/// Everything a client of the 2024-11-05 transport gets: one stream for all answers and notifications.
pub struct MergedStream {
    /// The event that names where to post.
    endpoint: Option<Bytes>,
    coming: mpsc::Receiver<Member>,
    members: Vec<Member>,
    /// The main reader has ended.
    over: bool,
    keep_alive: KeepAlive,
    /// Until the first reader has come.
    unused: Option<Unused>,
    owner: Box<dyn Owner>,
}

/// Ends a stream that is of no use. The timer is the stream's own, so that nothing outlives the stream.
struct Unused {
    limit: Duration,
    /// Made at the first wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Unused {
    fn poll_over(&mut self, owner: &dyn Owner, context: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        while timer.as_mut().poll(context).is_ready() {
            if owner.is_unused() {
                return true;
            }
            timer.as_mut().reset(Instant::now() + limit);
        }
        false
    }
}

impl std::fmt::Debug for MergedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MergedStream").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl MergedStream {
    /// A stream that begins by saying where to post and goes on with what all the readers get that come in. It ends with
    /// the main one of them, or when no further reader can come and all have ended, or when its owner is unused after
    /// `unused_limit`. `pause`: as in [`EventStream::new`].
    pub fn new(
        endpoint: &str,
        coming: mpsc::Receiver<Member>,
        pause: Duration,
        unused_limit: Duration,
        owner: Box<dyn Owner>,
    ) -> Self {
        let endpoint = Some(format!("event: endpoint\ndata: {endpoint}\n\n").into());
        Self {
            endpoint,
            coming,
            members: Vec::new(),
            over: false,
            keep_alive: KeepAlive::new(pause),
            unused: Some(Unused { limit: unused_limit, timer: None }),
            owner,
        }
    }

    pub(super) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        if let Some(endpoint) = self.endpoint.take() {
            return Poll::Ready(Some(Ok(endpoint)));
        }
        let mut open = true;
        loop {
            match self.take(context) {
                Taking::Some(piece) => {
                    self.keep_alive.restart();
                    return Poll::Ready(Some(Ok(piece)));
                }
                Taking::Broken => return Poll::Ready(Some(Err(lagged()))),
                Taking::Wait => return Poll::Pending,
                Taking::None => {}
            }
            // Nobody joins while something waits: what a client does not read shall not grow.
            match self.coming.poll_recv(context) {
                Poll::Ready(Some(member)) => {
                    self.members.push(member);
                    self.unused = None;
                }
                Poll::Ready(None) => {
                    open = false;
                    break;
                }
                Poll::Pending => break,
            }
        }
        let is_over = self.over
            || (!open && self.members.is_empty())
            || self.unused.as_mut().is_some_and(|unused| unused.poll_over(self.owner.as_ref(), context));
        if is_over {
            return Poll::Ready(None);
        }
        self.keep_alive.poll(context).map(|comment| Some(Ok(comment)))
    }

    /// Takes a piece of what waits for the members. An event that has been begun goes first: no other may come in between.
    fn take(&mut self, context: &Context<'_>) -> Taking {
        let (mut chunk, mut at) = (BytesMut::new(), 0);
        let (mut length, mut last) = (0, 0);
        if let Some(begun) = self.members.iter().position(|member| member.begun) {
            self.members.swap(0, begun);
        }
        while let Some(Member { reader, id, main, begun }) = self.members.get_mut(at) {
            let most = reader.piece();
            let left = loop {
                if chunk.len() >= most {
                    break false;
                }
                let Poll::Ready(next) = reader.poll_take(most - chunk.len(), context) else { break false };
                match next {
                    Some(Taken::Part(part)) => {
                        *begun = !part.ends;
                        encode_part(&mut chunk, None, &part);
                    }
                    Some(Taken::Whole(Delivery::Event(event))) => encode(&mut chunk, None, &event.payload),
                    Some(Taken::Whole(Delivery::Lagged)) => return Taking::Broken,
                    Some(Taken::Whole(other)) => {
                        encode_refusal(&mut chunk, other, id.as_ref(), Era::Legacy);
                    }
                    None if *begun => return Taking::Broken,
                    None => {
                        self.over |= *main;
                        break true;
                    }
                }
            };
            if chunk.is_empty() && *begun {
                return Taking::Wait;
            }
            if *begun || chunk.len() >= most {
                let piece = reader.hand(chunk.freeze());
                // Whoever comes behind is first the next time.
                let next = (at + usize::from(!*begun)).min(self.members.len());
                self.members.rotate_left(next);
                return Taking::Some(piece);
            }
            if left && chunk.is_empty() {
                self.members.remove(at);
                continue;
            }
            if chunk.len() > length {
                (length, last) = (chunk.len(), at);
            }
            at += 1;
        }
        match self.members.get(last) {
            Some(member) if !chunk.is_empty() => Taking::Some(member.reader.hand(chunk.freeze())),
            _ => Taking::None,
        }
    }
}

/// What a merged stream has taken from its members.
enum Taking {
    None,
    /// An event has been begun, and its rest cannot be written yet.
    Wait,
    Some(Bytes),
    /// The stream cannot go on.
    Broken,
}

fn lagged() -> io::Error {
    io::Error::other("the client reads too slowly")
}

/// Writes JSON, whole or a part of it that ends with a character. Beside LF and CR, which it does not hold raw here, many
/// readers of events take U+0085, U+2028 and U+2029 for the end of a line. In valid JSON these stand only within strings,
/// where their escapes mean the same.
fn data(out: &mut BytesMut, json: &[u8]) {
    let mut written = 0;
    for at in memchr2_iter(0xC2, 0xE2, json) {
        let (length, escape) = match json.get(at..).unwrap_or_default() {
            [0xC2, 0x85, ..] => (2, "\\u0085"),
            [0xE2, 0x80, 0xA8, ..] => (3, "\\u2028"),
            [0xE2, 0x80, 0xA9, ..] => (3, "\\u2029"),
            _ => continue,
        };
        out.extend_from_slice(json.get(written..at).unwrap_or_default());
        push(out, &[escape]);
        written = at + length;
    }
    out.extend_from_slice(json.get(written..).unwrap_or_default());
}

/// Writes one event (HTML, "Server-sent events"): LF only, one `data:` line.
fn encode(out: &mut BytesMut, id: Option<EventId>, what: &Payload) {
    let fault;
    let message = match what {
        Payload::Message(message) | Payload::Answer { message, .. } => message,
        Payload::Fault { id, fault: why } => {
            fault = Problem::Fault(why.clone()).row().json(Some(&id.0));
            &fault
        }
    };
    out.reserve(message.len() + 64);
    begin(out, id);
    data(out, message);
    push(out, &["\n\n"]);
}

/// Writes a part of an event.
fn encode_part(out: &mut BytesMut, id: Option<EventId>, part: &Part) {
    out.reserve(part.bytes.len() + 64);
    if part.begins {
        begin(out, id);
    }
    data(out, &part.bytes);
    if part.ends {
        push(out, &["\n\n"]);
    }
}

/// Writes what stands before the message of an event.
fn begin(out: &mut BytesMut, id: Option<EventId>) {
    push(out, &["event: message\n"]);
    if let Some(id) = id {
        push(out, &["id: ", &id.to_string(), "\n"]);
    }
    push(out, &["data: "]);
}

/// Writes a delivery that came in place of events, once the head of the answer is out. Returns whether the stream ends
/// with it.
fn encode_refusal(out: &mut BytesMut, delivery: Delivery, id: Option<&Id>, era: Era) -> bool {
    let problem = match (delivery, era) {
        (Delivery::Refused(refusal), _) => Problem::Refused(refusal),
        (Delivery::NotTaken(NotTaken { why, .. }) | Delivery::Gone(why), Era::Legacy) => {
            Problem::SessionEnded(why)
        }
        (Delivery::NotTaken(NotTaken { why, .. }) | Delivery::Gone(why), Era::Modern) => {
            Problem::ServerEnded(why)
        }
        _ => return false,
    };
    push(out, &["event: message\ndata: "]);
    data(out, &problem.row().json(id));
    push(out, &["\n\n"]);
    true
}

fn push(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::proto::ids::StreamId;
    use crate::session::End;
    use crate::session::stream::{Event, Outlet, queue};

    fn written(json: &[u8]) -> String {
        let mut out = BytesMut::new();
        data(&mut out, json);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_readers_take_for_the_end_of_a_line_is_escaped_and_means_the_same() {
        for text in [
            "",
            "plain",
            "\u{2028}",
            "\u{2029}\u{2028}\u{85}",
            "a\u{85}b\u{2028}c\u{2029}",
            "\u{c2}\u{84}\u{86}\u{a0}",
            "\u{2027}\u{202a}\u{2038}\u{20a8}",
            "\u{e2}\u{80}\u{a8}",
            "日本語 — “quotes” …",
            "😀\u{2028}😀",
        ] {
            let json = format!("[\"{text}\"]");
            let line = written(json.as_bytes());
            assert!(!line.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{line:?}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&line).unwrap(), [text]);
            if !text.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
                assert_eq!(line, json, "and nothing else is changed");
            }
        }
    }

    /// What is next on the stream.
    async fn next(stream: &mut EventStream) -> Option<Result<Bytes, io::Error>> {
        std::future::poll_fn(|context| stream.poll_chunk(context)).await
    }

    #[tokio::test]
    async fn a_stream_that_is_superseded_within_an_event_breaks_and_between_events_it_ends() {
        for (length, breaks) in [(300_000, true), (300, false)] {
            let outlet = Arc::new(Outlet::new(Arc::default(), Arc::default()));
            let (feed, reader) = queue(&outlet);
            let id = EventId { stream: StreamId(1), place: 1 };
            let payload = Payload::Message(vec![b'x'; length].into());
            feed.push(Delivery::Event(Event { id, payload, last: false }));
            let mut stream = EventStream::new(reader, Duration::from_secs(15), None, None);
            let part = next(&mut stream).await.unwrap().unwrap();
            assert_eq!(part.ends_with(b"\n\n"), !breaks, "{length} bytes");
            feed.supersede();
            let end = next(&mut stream).await;
            assert_eq!(end.is_some_and(|end| end.is_err()), breaks, "{length} bytes");
            assert!(next(&mut stream).await.is_none());
        }
    }

    #[tokio::test]
    async fn a_stream_of_2026_07_28_has_no_event_ids_and_tells_of_a_lost_server_in_its_own_way() {
        let outlet = Arc::new(Outlet::new(Arc::default(), Arc::default()));
        let request = Id::parse("\"mine\"").unwrap();
        for length in [10, 300_000] {
            let (feed, reader) = queue(&outlet);
            let id = EventId { stream: StreamId(1), place: 1 };
            let message = format!("\"{}\"", "x".repeat(length)).into();
            feed.push(Delivery::Event(Event { id, payload: Payload::Message(message), last: false }));
            feed.push(Delivery::Gone(End::Shutdown));
            let mut stream = EventStream::modern(reader, Duration::from_secs(15), request.clone());
            let mut text = Vec::new();
            while let Some(piece) = next(&mut stream).await {
                text.extend_from_slice(&piece.unwrap());
            }
            let text = String::from_utf8(text).unwrap();
            assert!(
                text.lines().all(|line| !line.starts_with("id:") && !line.starts_with("retry:")),
                "{length}"
            );
            let last = text.trim_end().lines().last().unwrap();
            assert!(last.contains("\"id\":\"mine\"") && last.contains("-32603"), "{last}");
        }
    }
}
