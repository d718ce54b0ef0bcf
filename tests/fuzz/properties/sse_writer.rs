//! What is written as server-sent events is what a client reads.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::Body as _;
use mcp_bridge::http::response::Body;
use mcp_bridge::http::sse::{EventStream, Member, MergedStream, Owner};
use mcp_bridge::proto::front::Refusal;
use mcp_bridge::proto::ids::{ClientId, EventId, Id, StreamId};
use mcp_bridge::proto::line::push_one_line;
use mcp_bridge::session::Fault;
use mcp_bridge::session::stream::{Delivery, Event, Outlet, Payload, Reader, queue};
use serde_json::Value;
use tokio::sync::mpsc;

use super::flat;
use super::sse::{Received, receive};

/// Stands between two messages: it occurs raw in no JSON.
const SEPARATOR: char = '\x1e';

const STREAM: StreamId = StreamId(7);

struct Used;

impl Owner for Used {
    fn is_unused(&self) -> bool {
        false
    }
}

/// Any texts, sent as one event each, are read as exactly these events: nothing is lost and nothing is slipped in.
pub fn sse_writer(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let texts: Vec<&str> = text.split(SEPARATOR).collect();

    let prime = EventId { stream: STREAM, place: 0 };
    let stream = EventStream::new(reader(&texts), Duration::MAX, Some(prime), None);
    let events = receive(&written(Body::Stream(Box::new(stream))));
    let (primed, events) = events.split_first().expect("the event that primes");
    assert_eq!(*primed, Received { kind: "message".into(), data: String::new(), id: "7-0".into() });
    check(events, &texts, |place| format!("7-{place}"));

    // Clients of the 2024-11-05 transport get the same without ids, behind the event that says where to post.
    let (sender, coming) = mpsc::channel(1);
    sender.try_send(Member::new(reader(&texts), None, true)).expect("there is room");
    let stream =
        MergedStream::new("/messages?sessionId=1", coming, Duration::MAX, Duration::MAX, Box::new(Used));
    let events = receive(&written(Body::Merged(Box::new(stream))));
    let (endpoint, events) = events.split_first().expect("the event that names the endpoint");
    assert_eq!((&*endpoint.kind, &*endpoint.data), ("endpoint", "/messages?sessionId=1"));
    check(events, &texts, |_| String::new());

    refusal(&text);
}

/// A finished stream: an id alone stands for a call that failed, all else is the child's.
fn reader(texts: &[&str]) -> Reader {
    let (feed, reader) = queue(&Arc::new(Outlet::new(Arc::default(), Arc::default())));
    for (place, text) in (1..).zip(texts) {
        let payload = match id(text) {
            Some(id) => Payload::Fault { id: ClientId(id), fault: Fault::Cancelled },
            None => {
                let mut message = BytesMut::new();
                push_one_line(&mut message, text.as_bytes());
                let message = message.freeze();
                if place % 2 == 0 {
                    Payload::Answer { message, success: true }
                } else {
                    Payload::Message(message)
                }
            }
        };
        feed.push(Delivery::Event(Event { id: EventId { stream: STREAM, place }, payload, last: false }));
    }
    reader
}

/// The id that the text is, as it would come out of a message.
fn id(text: &str) -> Option<Id> {
    let token = text.trim() == text && serde_json::from_str::<Value>(text).is_ok();
    token.then(|| Id::parse(text)).flatten()
}

fn written(body: Body) -> Bytes {
    let mut body = pin!(body);
    let mut out = BytesMut::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
        out.extend_from_slice(&frame.expect("no error").into_data().expect("no trailers"));
    }
    assert!(!out.contains(&b'\r'), "lines end with LF alone");
    out.freeze()
}

fn check(events: &[Received], texts: &[&str], name: impl Fn(usize) -> String) {
    assert_eq!(events.len(), texts.len(), "one event for each message: {events:?}");
    for (place, (event, text)) in (1..).zip(events.iter().zip(texts)) {
        assert_eq!((&*event.kind, &event.id), ("message", &name(place)));
        match id(text) {
            Some(id) => check_error(&event.data, &id),
            None => assert_eq!(event.data.as_bytes(), in_event(text).as_bytes(), "the message"),
        }
    }
}

/// A message in one line, without what some readers take for the end of a line.
fn in_event(text: &str) -> String {
    let line = String::from_utf8(flat(text.as_bytes())).expect("it was UTF-8");
    line.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn check_error(message: &str, id: &Id) {
    let message: Value = serde_json::from_str(message).expect("an error is JSON");
    assert_eq!(message["id"], serde_json::from_str::<Value>(id.as_json()).unwrap(), "it names the call");
    assert_eq!(message["error"]["data"]["source"], "mcp-bridge");
}

/// A refusal that comes when the stream has begun is one event too.
fn refusal(text: &str) {
    let Some(id) = id(text) else { return };
    let (feed, reader) = queue(&Arc::new(Outlet::new(Arc::default(), Arc::default())));
    feed.push(Delivery::Refused(Refusal::DuplicateId(ClientId(id.clone()))));
    let stream = EventStream::new(reader, Duration::MAX, None, Some(id.clone()));
    let events = receive(&written(Body::Stream(Box::new(stream))));
    assert_eq!(events.len(), 1);
    check_error(&events[0].data, &id);
}
