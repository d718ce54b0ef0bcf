//! What the bridge does about starts that fail: it notes whose fault that may be, and where it may be the server's, it
//! starts a child of its own and sends it a handshake that has worked before, or else its own.

use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::Sessions;
use super::blame::{Blame, Cause, Verdict, backoff};
use super::snapshot::State;
use crate::child::Child;
use crate::late;
use crate::log_limit::SharedLogLimit;
use crate::proto::incoming::{Found, LongLine};
use crate::proto::line::{Frame, LineDecoder, push_line};
use crate::proto::link::own_initialize;
use crate::proto::message::{Kind, Request, refusal};
use crate::proto::version::Revision;
use crate::reaper::ExitWatch;
use crate::session::End;
use crate::sync;

/// A session that has been opened within this time and is still there shows that the server starts.
const RECENT: Duration = Duration::from_secs(300);

/// What a child may write after its end, or the children that it left, is not waited for longer.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// What it means that a server starts which has failed in clients' hands.
const BY_CLIENTS: &str = "it fails with what clients send in initialize or in headers";

static CLIENTS_LOOPS: SharedLogLimit = SharedLogLimit::new("client.crash_loop");
static CRASH_LOOPS: SharedLogLimit = SharedLogLimit::with("child.crash_loop", 10, Duration::from_secs(10));
static TRIALS: SharedLogLimit = SharedLogLimit::with("child.trial", 10, Duration::from_secs(10));

/// How a trial ended.
enum Tried {
    Works,
    Fails(String),
    /// It could not be made, which says nothing.
    NotMade,
}

impl Sessions {
    /// For how long no child is to be started at all.
    pub(super) fn paused(&self) -> Option<Duration> {
        self.blame().pause(Instant::now())
    }

    pub(super) fn blame(&self) -> MutexGuard<'_, Blame> {
        sync::lock(&self.blame)
    }

    /// A child that a client asked for has answered `initialize`, or its session has ended before, for this reason.
    pub(super) fn note_start(
        self: &Arc<Self>,
        cause: &Cause,
        initialize: Option<Request>,
        started: Result<(), End>,
    ) {
        match started {
            Ok(()) => {
                self.blame().succeeded(cause, initialize, Instant::now());
                self.starts.note_worked(&cause.words);
            }
            // That can be the client's words, which change nothing for others.
            Err(End::Refused) => {
                let due = self.blame().refused(self.is_serving(), Instant::now());
                self.begin_trial(due);
            }
            // A child whose session ended first may run.
            Err(
                End::Exited(_)
                | End::StdoutClosed
                | End::StdinClosed
                | End::InitTimeout(_)
                | End::Echoed
                | End::Invalid(_),
            ) => {
                self.note_failure(cause);
            }
            Err(_) => {}
        }
    }

    fn note_failure(self: &Arc<Self>, cause: &Cause) {
        let (now, serving) = (Instant::now(), self.is_serving());
        let verdict = self.blame().failed(cause, serving, now);
        match verdict {
            Verdict::Nothing => {}
            Verdict::PauseOfAll(pause) => log_crash_loop(pause),
            Verdict::PauseOfOne(pause) => {
                if let Some(count) = CLIENTS_LOOPS.take() {
                    warn!(
                        event = "client.crash_loop",
                        pause = pause.as_secs_f64(),
                        count,
                        "the server fails at each start with what one client sends; others are served"
                    );
                }
            }
        }
        let due = self.blame().begin_trial(serving, now);
        self.begin_trial(due);
    }

    fn begin_trial(self: &Arc<Self>, due: bool) {
        if due {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.try_server(BY_CLIENTS).await });
        }
    }

    /// Tries a server that is known not to start until it does: where the bridge is not ready because of it, no client
    /// may come that would.
    fn watch_broken(self: &Arc<Self>) {
        if !self.blame().begin_watch() {
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            for tries in 1.. {
                sleep(this.paused().unwrap_or_else(|| backoff(tries))).await;
                if this.blame().end_watch() || !this.is_taking() {
                    break;
                }
                let due = this.blame().begin_watched_trial(Instant::now());
                if due {
                    this.try_server("a server has answered initialize").await;
                }
            }
            this.refill(); // children that were to be kept warm have died too
        });
    }

    /// A child ended before a session took it: no client has caused that.
    pub(super) fn note_unused(self: &Arc<Self>) {
        let serving = self.is_serving();
        let pause = self.blame().failed_by_itself(serving, Instant::now());
        pause.into_iter().for_each(log_crash_loop);
        self.watch_broken();
    }

    /// Whether a session serves that was opened not long ago.
    fn is_serving(&self) -> bool {
        self.lock().live().any(|live| live.state == State::Open && live.began.elapsed() < RECENT)
    }

    /// Finds out whether the server fails by itself.
    ///
    /// `works_why`: what it means if it does not.
    async fn try_server(self: &Arc<Self>, works_why: &str) {
        let last_good = self.blame().last_good();
        let mut tried = Tried::NotMade;
        for initialize in last_good.into_iter().chain([own_initialize(Revision::R2025_11_25)]) {
            tried = self.try_once(&initialize).await;
            if !matches!(tried, Tried::Fails(_)) {
                break;
            }
        }
        let works = match &tried {
            Tried::NotMade => None,
            Tried::Works => Some(true),
            Tried::Fails(_) => Some(false),
        };
        match tried {
            Tried::NotMade => {}
            Tried::Works => log_trial(true, works_why, "the server starts"),
            Tried::Fails(why) => log_trial(false, &why, "the server fails without a client too"),
        }
        let serving = self.is_serving();
        let pause = self.blame().tried(works, serving, Instant::now());
        pause.into_iter().for_each(log_crash_loop);
        self.watch_broken();
    }

    /// Starts a child, waits for its answer to this `initialize`, and ends it.
    async fn try_once(&self, initialize: &Request) -> Tried {
        let mut draining = self.draining.subscribe();
        let Some(seat) = self.seats.try_take().filter(|_| draining.borrow_and_update().is_none()) else {
            return Tried::NotMade;
        };
        let sid = Arc::new(OnceLock::from("trial".to_owned()));
        let Ok(Child { process, mut stdin, mut stdout, stderr: first_words }) = self.spawn(&[], sid, true)
        else {
            return Tried::NotMade; // what is lacking then is told to clients
        };
        info!(
            event = "child.trial_start",
            pid = process.pid(),
            "a server is started to see whether it works without a client"
        );
        let mut line = BytesMut::new();
        push_line(&mut line, &[initialize.text()]);
        let answered = async {
            let _ = stdin.write_all(&line).await; // an empty pipe takes it; that nobody reads it shows otherwise
            answer(&mut stdout, process.exit.clone(), self.config.session.max_message).await
        };
        let tried = tokio::select! {
            answered = late::timeout(self.config.session.limits.init_timeout, answered) => match answered {
                Some(Answer::Result) => Tried::Works,
                Some(Answer::Refusal(error)) => Tried::Fails(format!("it refuses initialize: {error}")),
                Some(Answer::None) => Tried::Fails("it exited, or closed its stdout".to_owned()),
                None => Tried::Fails("it has not answered within --init-timeout".to_owned()),
            },
            _ = draining.changed() => Tried::NotMade,
        };
        drop(stdin);
        self.terminate(process, Some(stdout), &first_words).await;
        drop(seat); // drained() waits for it too
        tried
    }
}

/// What a child answers to `initialize`.
enum Answer {
    Result,
    /// An error: its code and message.
    Refusal(String),
    /// Nothing, before it ended or closed its stdout.
    None,
}

async fn answer(stdout: &mut Receiver, mut exit: ExitWatch, max_message: usize) -> Answer {
    let mut decoder = LineDecoder::new(max_message);
    let mut until: Option<Instant> = None;
    loop {
        let deadline = until.unwrap_or_else(Instant::now);
        tokio::select! {
            biased; // what it wrote counts, even if it has ended since
            read = stdout.read_buf(decoder.buffer()) => {
                while let Some(frame) = decoder.next() {
                    if let Some(answer) = answer_in(frame, max_message).await {
                        return answer;
                    }
                }
                if matches!(read, Ok(0) | Err(_)) {
                    return match decoder.finish() {
                        Some(frame) => answer_in(frame, max_message).await.unwrap_or(Answer::None),
                        None => Answer::None,
                    };
                }
            }
            _ = exit.wait(), if until.is_none() => until = Some(Instant::now() + LAST_WORDS),
            () = sleep_until(deadline), if until.is_some() => return Answer::None,
        }
    }
}

/// The child has been asked one thing only.
async fn answer_in(frame: Frame<'_>, max_message: usize) -> Option<Answer> {
    let line = match frame {
        Frame::Line(line) => line.bytes().into(),
        Frame::Long(line) => line,
        Frame::TooLong { .. } => return None,
    };
    let mut line = LongLine::new(line, max_message);
    loop {
        match line.step() {
            Found::Message(message) if message.envelope.kind == Kind::Success => return Some(Answer::Result),
            Found::Message(message) if message.envelope.kind == Kind::Failure => {
                let (code, message) = refusal(std::str::from_utf8(message.text()).ok()?);
                return Some(Answer::Refusal(format!("error {code}: {message}")));
            }
            Found::Message(_) | Found::Pause | Found::Invalid(_) | Found::Stray(_) => {}
            Found::Noise(_) | Found::TooLong { .. } | Found::End => return None,
        }
        yield_now().await; // a session that works may share the thread
    }
}

fn log_trial(works: bool, why: &str, message: &str) {
    if let Some(count) = TRIALS.take() {
        warn!(event = "child.trial", works, why, count, "{message}");
    }
}

fn log_crash_loop(pause: Duration) {
    if let Some(count) = CRASH_LOOPS.take() {
        warn!(
            event = "child.crash_loop",
            pause = pause.as_secs_f64(),
            count,
            "every start of the server fails; the bridge waits before it tries again"
        );
    }
}
