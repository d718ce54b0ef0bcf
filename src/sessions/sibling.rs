//! Servers that are started to be asked one thing, and ended: no session has one or will have it, because what a server
//! is asked first may bind it. One of both eras that was asked in one of them refuses the other.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::Sessions;
use super::era::Shown;
use super::seats::LentSeat;
use crate::child::Child;
use crate::first_words::FirstWords;
use crate::late;
use crate::proto::incoming::{Found, LongLine};
use crate::proto::json::{elements, is_array, unquote, value_at};
use crate::proto::line::{Frame, LineDecoder, push_line};
use crate::proto::link::{era_of, own_discover, own_initialize};
use crate::proto::message::{Kind, Request, refusal};
use crate::proto::version::{Era, Revision};
use crate::reaper::ExitWatch;

/// What a child may write after its end, or the children that it left, is not waited for longer.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// The longest answer to `server/discover` that is looked into, in bytes: that is done on the loop of all sessions.
const MAX_DISCOVERED: usize = 1024 * 1024;

/// What a server is started for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    /// What stands in its log lines in place of a session's name.
    pub(super) sid: &'static str,
    /// How long it may take to answer.
    pub(super) patience: Duration,
    /// Whether it may be a warm child where those have all the seats that there are. No session gets that one then.
    pub(super) may_be_warm: bool,
}

/// What came of asking a server.
#[derive(Debug)]
pub(super) enum Tried {
    /// It has answered with a result; what that shows.
    Works(Shown),
    /// It has refused, or has ended; why.
    Fails(String),
    /// It has not answered in time; the same.
    Silent(String),
    /// It was not asked, which says nothing.
    NotMade,
}

/// What a server answers.
enum Heard {
    /// A result.
    Result {
        /// Whether it names 2026-07-28 as `server/discover` does.
        names_modern: bool,
    },
    /// An error: its code and message.
    Refusal(String),
    /// Nothing, before it ended or closed its stdout.
    End,
    /// Nothing in time.
    Silence,
    /// The bridge is stopping.
    Stopped,
}

impl Heard {
    /// What it means as the answer to this request.
    fn to(self, request: &Request, patience: Duration) -> Tried {
        let method = request.method();
        match self {
            Self::Result { names_modern } => Tried::Works(match era_of(request) {
                Era::Legacy => Shown::Sessions,
                Era::Modern if names_modern => Shown::Modern,
                Era::Modern => Shown::NotModern,
            }),
            Self::Refusal(error) => Tried::Fails(format!("it refuses {method}: {error}")),
            Self::End => Tried::Fails("it exited, or closed its stdout".to_owned()),
            Self::Silence => Tried::Silent(format!("it has not answered {method} within {patience:?}")),
            Self::Stopped => Tried::NotMade,
        }
    }
}

/// A server that no session gets, and its seat.
struct Sibling {
    child: Child<Arc<FirstWords>>,
    seat: LentSeat,
}

impl Sessions {
    /// Asks a server in the bridge's own name, in the era that it is known to speak. Where none is known it is asked with
    /// `initialize`, which harms no server, and if it refuses that, another one with `server/discover`.
    pub(super) async fn try_own(self: &Arc<Self>, purpose: Purpose) -> Tried {
        let (initialize, discover) = (own_initialize(Revision::R2025_11_25), own_discover());
        let known = self.known_era();
        if known == Some(Era::Modern) {
            return self.try_with(&discover, purpose).await;
        }
        let Some(child) = self.sibling(purpose).await else { return Tried::NotMade };
        let heard = self.ask(child, &initialize, purpose.patience).await;
        let is_refused = matches!(heard, Heard::Refusal(_));
        let as_legacy = heard.to(&initialize, purpose.patience);
        if known.is_some() || !is_refused {
            return as_legacy;
        }
        match self.try_with(&discover, purpose).await {
            Tried::Works(Shown::Modern) => Tried::Works(Shown::ModernOnly),
            Tried::NotMade => Tried::NotMade,
            Tried::Works(_) | Tried::Fails(_) | Tried::Silent(_) => as_legacy,
        }
    }

    /// Asks a server with these words: an `initialize`, or `server/discover`.
    pub(super) async fn try_with(self: &Arc<Self>, request: &Request, purpose: Purpose) -> Tried {
        let Some(child) = self.sibling(purpose).await else { return Tried::NotMade };
        self.ask(child, request, purpose.patience).await.to(request, purpose.patience)
    }

    /// Starts a server that no session gets. The seat of one that was asked before and leaves may be the only one: it is
    /// waited for. `None`: the bridge is stopping, or something is lacking for it.
    async fn sibling(&self, purpose: Purpose) -> Option<Sibling> {
        let sid = purpose.sid.to_owned();
        if !self.is_taking() {
            return None;
        }
        let free = self.seats.try_take();
        let warm = |is_full: bool| if is_full && purpose.may_be_warm { self.pool.take() } else { None };
        let (child, seat) = match warm(free.is_none()) {
            Some(warm) => {
                let _ = warm.sid.set(sid);
                (warm.child, warm.seat)
            }
            None => {
                let seat = if free.is_some() { free } else { self.coming_seat().await }?;
                if !self.is_taking() {
                    return None;
                }
                // What is lacking where it cannot be started is told to clients.
                (self.spawn(&[], Arc::new(OnceLock::from(sid)), true).ok()?, seat)
            }
        };
        let pid = child.process.pid();
        info!(
            event = "child.trial_start",
            sid = purpose.sid,
            pid,
            "a server without a session is started, to ask it one request"
        );
        Some(Sibling { child, seat: self.seats.lend(seat) })
    }

    /// Sends the child one request, and begins to end it as soon as it has answered. The task that does has its seat.
    async fn ask(self: &Arc<Self>, sibling: Sibling, request: &Request, patience: Duration) -> Heard {
        let Sibling { child, seat } = sibling;
        let Child { process, mut stdin, mut stdout, stderr: first_words } = child;
        let mut draining = self.draining.subscribe();
        let mut line = BytesMut::new();
        push_line(&mut line, &[request.text()]);
        let answered = async {
            let _ = stdin.write_all(&line).await; // an empty pipe takes it; that nobody reads it shows otherwise
            answer(&mut stdout, process.exit.clone(), self.config.session.max_message).await
        };
        let heard = tokio::select! {
            heard = late::timeout(patience, answered) => heard.unwrap_or(Heard::Silence),
            _ = draining.wait_for(Option::is_some) => Heard::Stopped,
        };
        drop(stdin);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            this.terminate(process, Some(stdout), &first_words).await;
            drop(seat); // drained() waits for it too
            this.refill();
        });
        heard
    }
}

async fn answer(stdout: &mut Receiver, mut exit: ExitWatch, max_message: usize) -> Heard {
    let mut decoder = LineDecoder::new(max_message);
    let mut until: Option<Instant> = None;
    loop {
        let deadline = until.unwrap_or_else(Instant::now);
        tokio::select! {
            biased; // what it wrote counts, even if it has ended since
            read = stdout.read_buf(decoder.buffer()) => {
                while let Some(frame) = decoder.next() {
                    if let Some(heard) = answer_in(frame, max_message).await {
                        return heard;
                    }
                }
                if matches!(read, Ok(0) | Err(_)) {
                    return match decoder.finish() {
                        Some(frame) => answer_in(frame, max_message).await.unwrap_or(Heard::End),
                        None => Heard::End,
                    };
                }
            }
            _ = exit.wait(), if until.is_none() => until = Some(Instant::now() + LAST_WORDS),
            () = sleep_until(deadline), if until.is_some() => return Heard::End,
        }
    }
}

/// The child has been asked one thing only.
async fn answer_in(frame: Frame<'_>, max_message: usize) -> Option<Heard> {
    let line = match frame {
        Frame::Line(line) => line.bytes().into(),
        Frame::Long(line) => line,
        Frame::TooLong { .. } => return None,
    };
    let mut line = LongLine::new(line, max_message);
    loop {
        match line.step() {
            Found::Message(message) if message.envelope.kind == Kind::Success => {
                return Some(Heard::Result { names_modern: names_modern(message.text()) });
            }
            Found::Message(message) if message.envelope.kind == Kind::Failure => {
                let (code, message) = refusal(std::str::from_utf8(message.text()).ok()?);
                return Some(Heard::Refusal(format!("error {code}: {message}")));
            }
            Found::Message(_) | Found::Pause | Found::Invalid(_) | Found::Stray(_) => {}
            Found::Noise(_) | Found::TooLong { .. } | Found::End => return None,
        }
        yield_now().await; // a session that works may share the thread
    }
}

/// Whether an answer to `server/discover` names 2026-07-28 among the revisions that the server supports (2026-07-28
/// `server/discover`): some servers answer each method with a result.
fn names_modern(answer: &[u8]) -> bool {
    let Some(answer) = std::str::from_utf8(answer).ok().filter(|text| text.len() <= MAX_DISCOVERED) else {
        return false;
    };
    let versions = value_at(answer, &["result", "supportedVersions"]).and_then(|span| answer.get(span));
    let versions = versions.filter(|versions| is_array(versions.as_bytes()));
    let mut versions = versions.into_iter().flat_map(elements).flatten();
    versions.any(|version| unquote(version) == Revision::R2026_07_28.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_names_2026_07_28_counts() {
        let names = |versions: &str| {
            let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"supportedVersions":{versions}}}}}"#);
            names_modern(answer.as_bytes())
        };
        for versions in [r#"["2026-07-28"]"#, r#"[ "2027-01-01", null, "2026\u002d07-28" ]"#] {
            assert!(names(versions), "{versions}");
        }
        for versions in [
            "[]",
            "null",
            r#""2026-07-28""#,
            r#"["2025-11-25"]"#,
            r#"[["2026-07-28"]]"#,
            r#"{"2026-07-28":0}"#,
        ] {
            assert!(!names(versions), "{versions}");
        }
        let elsewhere = br#"{"jsonrpc":"2.0","id":1,"result":{},"supportedVersions":["2026-07-28"]}"#;
        assert!(!names_modern(elsewhere));
        let long = format!(r#"["2026-07-28","{}"]"#, "x".repeat(MAX_DISCOVERED));
        assert!(!names(&long), "it is too long to be looked into");
    }
}
