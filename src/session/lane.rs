//! A lane: a session's own way to a child that several sessions share. To the session it looks like a process: what the
//! session writes is for the child, what it reads is the child's words for it and nobody else, and it ends with the child.

use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;

use super::stream::{self, Delivery, Payload, Reader};
use super::{Command, End, Fault, FromLane, Session};
use crate::proto::ids::{Id, StreamId};
use crate::proto::line::{Frame, LineDecoder};
use crate::proto::message::Message;
use bytes::Bytes;

/// How many bytes may be on their way in each direction between a session and a child that it shares.
const PIPE: usize = 64 * 1024;

/// A session's own way to a shared child.
pub struct Lane {
    /// What the session says to the child. Dropping it ends the lane.
    pub stdin: DuplexStream,
    /// What the child says to the session.
    pub stdout: DuplexStream,
    /// Why the lane has ended.
    pub exit: Pin<Box<dyn Future<Output = End> + Send>>,
}

impl Session {
    /// A lane to the child of this session, for another session. `max_message` is the longest that it may say, in bytes;
    /// `fault_text`: what it hears where the bridge answers in the child's place.
    ///
    /// # Errors
    /// Why this session has ended.
    pub async fn lane(&self, max_message: usize, fault_text: fn(&Id, Fault) -> Bytes) -> Result<Lane, End> {
        let (feed, reader) = stream::queue(&self.0.outlet);
        self.send(Command::Join(feed)).await?;
        match reader.next().await {
            Some(Delivery::Accepted) => {}
            Some(Delivery::Gone(why)) => return Err(why),
            _ => return Err(self.why_closed()),
        }
        let Some(position) = reader.position() else { return Err(self.why_closed()) };
        let ((stdin, said), (heard, stdout)) = (duplex(PIPE), duplex(PIPE));
        let (ended, exit) = oneshot::channel();
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = pass_up(&shared, position.stream, said, max_message) => {}
                () = pass_down(&reader, heard, fault_text) => {}
            }
            drop(reader); // the child is told what ends with it
            let _ = ended.send(shared.end_reason().unwrap_or(End::StdoutClosed)); // the session may be gone
        });
        Ok(Lane { stdin, stdout, exit: Box::pin(async { exit.await.unwrap_or(End::Shutdown) }) })
    }
}

/// Gives the child what the session says, until that has said all.
async fn pass_up(shared: &Session, lane: StreamId, mut said: DuplexStream, max_message: usize) {
    let mut decoder = LineDecoder::new(max_message);
    while let Ok(1..) = said.read_buf(decoder.buffer()).await {
        let mut messages = Vec::new();
        while let Some(frame) = decoder.next() {
            let line = match frame {
                Frame::Line(line) => Bytes::copy_from_slice(line.bytes()),
                Frame::Long(line) => line.into(),
                Frame::TooLong { .. } => continue, // nobody has let one in
            };
            messages.extend(Message::parse(line));
        }
        if messages.is_empty() {
            continue;
        }
        let (_taken, taken) = oneshot::channel();
        if shared.send(Command::FromLane(FromLane { lane, messages, _taken })).await.is_err() {
            return;
        }
        let _ = taken.await; // it is dropped: the next turn
    }
}

/// Gives the session what the child says to it, until the child has ended.
async fn pass_down(reader: &Reader, mut heard: DuplexStream, fault_text: fn(&Id, Fault) -> Bytes) {
    while let Some(delivery) = reader.next().await {
        let line = match delivery {
            Delivery::Event(event) => match event.payload {
                Payload::Message(message) | Payload::Answer { message, .. } => message,
                // Its session says so itself, to all that it has asked.
                Payload::Fault { fault: Fault::Ended(_) | Fault::Lost(_), .. } => continue,
                Payload::Fault { id, fault } => fault_text(&id.0, fault),
            },
            Delivery::Lagged => return,
            _ => continue,
        };
        if heard.write_all(&line).await.is_err() || heard.write_all(b"\n").await.is_err() {
            return;
        }
    }
}
