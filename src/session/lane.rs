//! A lane: a session's own way to a child that several sessions share. To the session it looks like a process: what the
//! session writes is for the child, what it reads is the child's words for it and nobody else, and it ends with the child.
//!
//! Both ends wait for each other, as those of a pipe do. A session that does not read is waited for only so long, because the
//! other lanes to the child wait with it: then its lane is cut, and that looks as if its child had closed stdout.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, duplex, sink};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;

use super::stream::{self, Delivery, Payload, Reader, Taken};
use super::{Command, End, Fault, FromLane, Session};
use crate::account::Place;
use crate::heap;
use crate::late;
use crate::log_limit::SharedLogLimit;
use crate::proto::ids::{Id, StreamId};
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::message::Message;

/// How many bytes may be on their way in each direction between a session and a child that it shares.
const PIPE: usize = 64 * 1024;

/// How many bytes of the child's words are written to the session at once, and taken of a longer message.
const PIECE: usize = 16 * 1024;

/// How long what a session has said waits for room at the child once the session has ended: as long as the queue for the
/// stdin of a process is written then.
const LAST_WORDS: Duration = Duration::from_millis(500);

static TOO_LONG: SharedLogLimit = SharedLogLimit::new("lane.message_too_long");

/// A session's own way to a shared child.
pub struct Lane {
    /// What the session says to the child. Dropping it ends the lane.
    pub stdin: LaneStdin,
    /// What the child says to the session.
    pub stdout: DuplexStream,
    /// Why the lane has ended.
    pub exit: Pin<Box<dyn Future<Output = End> + Send>>,
}

/// The session's end of what it says to the child. That it is dropped is known at once, whatever is in the pipe.
#[derive(Debug)]
pub struct LaneStdin {
    pipe: DuplexStream,
    _open: oneshot::Sender<()>,
}

impl AsyncWrite for LaneStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

impl Session {
    /// A lane to the child of this session, for another session. `max_message` is the longest that it may say, in bytes: what
    /// a client may send and what a front adds to it. `fault_text`: what it hears where the bridge answers in the
    /// child's place.
    ///
    /// There are as many lanes as sessions that have been given one: their number is bounded by that of sessions.
    ///
    /// # Errors
    /// Why this session has ended.
    pub async fn lane(&self, max_message: usize, fault_text: fn(&Id, Fault) -> Bytes) -> Result<Lane, End> {
        self.lane_over(PIPE, max_message, fault_text).await
    }

    /// The same with pipes of so many bytes.
    pub(super) async fn lane_over(
        &self,
        pipe: usize,
        max_message: usize,
        fault_text: fn(&Id, Fault) -> Bytes,
    ) -> Result<Lane, End> {
        let (feed, reader) = stream::queue(&self.0.outlet);
        self.send(Command::Join(feed)).await?;
        match reader.next().await {
            Some(Delivery::Accepted) => {}
            Some(Delivery::Gone(why)) => return Err(why),
            _ => return Err(self.why_closed()),
        }
        let Some(position) = reader.position() else { return Err(self.why_closed()) };
        let ((stdin, said), (heard, stdout)) = (duplex(pipe), duplex(pipe));
        let ((_open, open), (ended, exit)) = (oneshot::channel(), oneshot::channel());
        let shared = self.clone();
        tokio::spawn(async move {
            let gone = async {
                let _ = open.await; // it is dropped
                sleep(LAST_WORDS).await;
                late::what_is_ready_first().await;
            };
            tokio::select! {
                biased;
                () = pass_up(&shared, position.stream, said, max_message) => {}
                () = pass_down(&shared, &reader, heard, fault_text) => {}
                () = gone => {}
            }
            drop(reader); // the child is told what ends with it
            let _ = ended.send(shared.end_reason().unwrap_or(End::StdoutClosed)); // the session may be gone
        });
        let stdin = LaneStdin { pipe: stdin, _open };
        Ok(Lane { stdin, stdout, exit: Box::pin(async { exit.await.unwrap_or(End::Shutdown) }) })
    }
}

/// Gives the child what the session says, until that has said all. A line without an end is none: the session has ended
/// within it.
async fn pass_up(shared: &Session, lane: StreamId, mut said: DuplexStream, max_message: usize) {
    let account = shared.account();
    let mut decoder = LineDecoder::new(max_message);
    let mut begun = account.hold(Place::Bodies, 0);
    while let Ok(1..) = said.read_buf(decoder.buffer()).await {
        let mut messages = Vec::new();
        while let Some(frame) = decoder.next() {
            let line = match frame {
                Frame::Line(line) => Bytes::copy_from_slice(line.bytes()),
                Frame::Long(line) => heap::noted(line.freeze()),
                // Nobody may have let it in. What waits for its answer has its end with the lane.
                Frame::TooLong { length, .. } => return too_long(shared, length, max_message),
            };
            // What is none is an answer to a request of the child that has no usable id.
            messages.extend(Message::parse(line));
        }
        begun.resize(decoder.waiting());
        if messages.is_empty() {
            continue;
        }
        let held = account.hold(Place::Bodies, messages.iter().map(|message| message.text().len()).sum());
        let (_taken, taken) = oneshot::channel();
        let said_now = FromLane { lane, messages: messages.into(), held, _taken };
        if shared.send(Command::FromLane(said_now)).await.is_err() {
            let _ = copy(&mut said, &mut sink()).await; // the child has ended: the rest is in vain
            return;
        }
        let _ = taken.await; // it is dropped: the next turn
        if decoder.is_large() {
            decoder.shrink();
        }
    }
}

fn too_long(shared: &Session, length: usize, max: usize) {
    if let Some(count) = TOO_LONG.take() {
        let sid = shared.id().short();
        let why = "a session says more at once to a server that it shares than any client may: its lane ends";
        warn!(event = "lane.message_too_long", sid, length, max, count, "{why}");
    }
}

/// What there is for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Some bytes, and there may be more.
    Some,
    /// The child has ended.
    End,
    /// The session took too little for too long.
    Cut,
}

/// Gives the session what the child says to it, until the child has ended.
async fn pass_down(
    shared: &Session,
    reader: &Reader,
    heard: DuplexStream,
    fault_text: fn(&Id, Fault) -> Bytes,
) {
    let mut lines = BytesMut::new();
    let mut heard = Some(heard);
    loop {
        lines.clear();
        match poll_fn(|context| poll_lines(shared, reader, fault_text, &mut lines, context)).await {
            Heard::Some => {}
            Heard::End | Heard::Cut => return,
        }
        // One that reads no more may still say something: it goes on until it closes its stdin.
        let Some(pipe) = &mut heard else { continue };
        let is_written = tokio::select! {
            biased;
            written = pipe.write_all(&lines) => written.is_ok(),
            () = cut(reader) => return,
        };
        if !is_written {
            heard = None;
        }
    }
}

/// Appends what there is for the session to `lines`, and not much more than a [`PIECE`] of it.
fn poll_lines(
    shared: &Session,
    reader: &Reader,
    fault_text: fn(&Id, Fault) -> Bytes,
    lines: &mut BytesMut,
    context: &Context<'_>,
) -> Poll<Heard> {
    while lines.len() < PIECE {
        let taken = reader.poll_take(PIECE, context);
        let taken = if lines.is_empty() {
            ready!(taken)
        } else {
            // what is there goes first
            let Poll::Ready(taken) = taken else { break };
            taken
        };
        match taken {
            None if lines.is_empty() => return Poll::Ready(Heard::End),
            None => break,
            Some(Taken::Part(part)) => {
                lines.extend_from_slice(&part.bytes);
                if part.ends {
                    lines.extend_from_slice(b"\n");
                }
            }
            Some(Taken::Whole(Delivery::Event(event))) => {
                let line = match event.payload {
                    Payload::Message(message) | Payload::Answer { message, .. } => message,
                    // Its session says so itself, to all that it has asked.
                    Payload::Fault { fault: Fault::Ended(_), .. } if shared.end_reason().is_some() => {
                        continue;
                    }
                    Payload::Fault { id, fault } => fault_text(&id.0, fault),
                };
                lines.extend_from_slice(&line);
                lines.extend_from_slice(b"\n");
            }
            Some(Taken::Whole(Delivery::Lagged)) => return Poll::Ready(Heard::Cut),
            Some(Taken::Whole(_)) => {}
        }
    }
    Poll::Ready(Heard::Some)
}

/// Waits until the session has taken too little for too long.
async fn cut(reader: &Reader) {
    let is_cut = |context: &mut Context<'_>| {
        reader.poll_look(
            |waiting, _, _| matches!(waiting.front(), Some(Delivery::Lagged)).then_some(()),
            context,
        )
    };
    poll_fn(is_cut).await;
}
