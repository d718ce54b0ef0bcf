//! A session's children, one after the other: gives their pipes to the session's loop and ends them.

use std::ffi::OsString;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Sessions;
use super::blame::{Cause, backoff};
use super::pipes::{Stdin, Stdout};
use super::seats::Seat;
use super::snapshot::State;
use super::start_limit::{AFTER_FAILURE, Held, MAX_START};
use crate::child::{Child, Process, Termination};
use crate::first_words::{FirstWords, Unanswered};
use crate::late;
use crate::log_limit::SharedLogLimit;
use crate::proto::ids::SessionId;
use crate::session::worker::{Ended, LostChild, Pipes, Worker};
use crate::session::{End, ExitStatus, Session};
use crate::sync;

/// After how many starts in a row that the system refused the session is given up.
pub(super) const MAX_REFUSED: u32 = 5;

/// Looks after the children of one session. When it is dropped the session's seat is free.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) sessions: Arc<Sessions>,
    pub(super) session: Session,
    /// What the client's headers add to the children's environment.
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) cause: Cause,
    /// Whether it was started while clients brought the server down, with words that had not worked.
    pub(super) is_suspect: bool,
    pub(super) seat: Option<Seat>,
    /// The present child, and what it writes that is no message.
    pub(super) process: Mutex<Option<(Process, Arc<FirstWords>)>>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.seat.take());
        self.sessions.retire(self.session.id(), End::Shutdown); // where the runtime has ended before the session
        self.sessions.seat_freed();
    }
}

/// See the limits of `session.start`.
static ENDS: SharedLogLimit = SharedLogLimit::of_sessions("session.end");
pub(super) static LOSSES: SharedLogLimit = SharedLogLimit::of_sessions("child.lost");
static SLOW_STARTS: SharedLogLimit = SharedLogLimit::new("child.slow_start");
pub(super) static RESPAWNS: SharedLogLimit = SharedLogLimit::of_sessions("child.respawned");
static SUSPECT_ENDS: SharedLogLimit = SharedLogLimit::new("session.end");

/// What finds a session's next child. One type for all: there is one loop.
pub(super) type Respawn = Box<
    dyn FnMut(LostChild<Stdout>) -> Pin<Box<dyn Future<Output = Option<Pipes<Stdin, Stdout>>> + Send>> + Send,
>;

/// How a child ended.
#[derive(Debug)]
struct Gone {
    status: ExitStatus,
    stopped_by: Termination,
    first_words: Arc<FirstWords>,
}

impl Supervisor {
    /// Runs the session to its end, and its last child to its own.
    ///
    /// `start`: what the start of the child holds.
    pub(super) async fn run(self: Arc<Self>, worker: Worker, child: Child<Arc<FirstWords>>, start: Held) {
        let began = Instant::now();
        let this = Arc::clone(&self);
        let respawn: Respawn = Box::new(move |lost| Box::pin(Arc::clone(&this).respawn(lost)));
        let first = self.attach(child, start, true);
        let Ended { why, opened, stdout } = worker.run(first, respawn).await;
        self.sessions.retire(self.session.id(), why);

        let gone = self.terminate(stdout).await;
        let first_words = gone.as_ref().map(|gone| Arc::clone(&gone.first_words));
        let hint = hint(why, first_words.filter(|_| !opened).as_deref());
        let end = SessionEnd { sid: self.session.id().short(), server: None, why, opened };
        end.log(Some(described(gone)), began.elapsed(), hint, self.is_suspect);
    }

    /// The session has lost its child: ends it and starts another, after a pause if it was not the first.
    async fn respawn(self: Arc<Self>, lost: LostChild<Stdout>) -> Option<Pipes<Stdin, Stdout>> {
        let (id, sid) = (self.session.id(), self.session.id().short());
        let LostChild { why, stdout, count, .. } = lost;
        self.sessions.lock().note(id, State::Restarting, None);
        // A task of its own: it must be done even if the session ends meanwhile.
        let this = Arc::clone(&self);
        let gone = tokio::spawn(async move { this.terminate(stdout).await }).await;
        let (status, stopped_by) = described(gone.ok().flatten());
        let pause = if count > 1 { backoff(count - 1) } else { Duration::ZERO };
        if LOSSES.take().is_some() {
            warn!(
                event = "child.lost",
                sid,
                reason = why.cause(),
                status = &*status,
                stopped_by = &*stopped_by,
                count,
                pause = pause.as_secs_f64(),
                "a session has lost its server and continues with a new one"
            );
        }
        sleep(pause).await;
        for refused in 1..=MAX_REFUSED {
            let permit = Some(self.sessions.starts.acquire(&self.cause, true).await?);
            if !self.sessions.is_taking() {
                return None;
            }
            let name = Arc::new(OnceLock::from(sid.to_owned()));
            match self.sessions.spawn(&self.environment, name, false) {
                Ok(child) => {
                    let pid = child.process.pid();
                    if RESPAWNS.take().is_some() {
                        info!(event = "child.respawned", sid, pid, "a session has a new server");
                    }
                    self.sessions.lock().note(id, State::Restarting, Some(child.process.tag().clone()));
                    self.set_current(&child);
                    return Some(self.attach(child, Held { permit, ..Held::default() }, false));
                }
                Err(error) => {
                    warn!(
                        event = "child.spawn_failed",
                        sid,
                        error = error.to_string(),
                        "a server cannot be started"
                    );
                    sleep(backoff(refused)).await;
                }
            }
        }
        None
    }

    /// The child as the session's loop takes it; its start is watched from now on.
    fn attach(&self, child: Child<Arc<FirstWords>>, held: Held, is_first: bool) -> Pipes<Stdin, Stdout> {
        let Child { process, stdin, stdout, stderr: first_words } = child;
        let (answered, is_answered) = oneshot::channel();
        let id = self.session.id().clone();
        let cause = self.cause.clone();
        let start = Start { id, cause, child: process.clone(), is_first, held, is_answered };
        tokio::spawn(start.watch(Arc::clone(&self.sessions)));
        let mut exit = process.exit;
        Pipes {
            stdin: Stdin::Process(stdin),
            stdout: Stdout::Process(stdout),
            exit: Box::pin(async move { End::Exited(exit.wait().await) }),
            answered,
            first_words,
        }
    }

    fn set_current(&self, child: &Child<Arc<FirstWords>>) {
        *sync::lock(&self.process) = Some((child.process.clone(), Arc::clone(&child.stderr)));
    }

    /// Ends the present child, if there is one.
    async fn terminate(&self, stdout: Option<Stdout>) -> Option<Gone> {
        let stdout = stdout.and_then(Stdout::into_process);
        let (process, first_words) = sync::lock(&self.process).take()?;
        let stopped_by = self.sessions.terminate(process.clone(), stdout, &first_words).await;
        let status = process.exit.status().unwrap_or(ExitStatus::Unknown);
        Some(Gone { status, stopped_by, first_words })
    }
}

/// The end of a session, for the log.
pub(super) struct SessionEnd<'s> {
    pub(super) sid: &'s str,
    /// The server that it shared.
    pub(super) server: Option<&'s str>,
    pub(super) why: End,
    /// Whether a child has answered its `initialize`.
    pub(super) opened: bool,
}

impl SessionEnd<'_> {
    /// `child`: how its own child ended, and what stopped that; `lasted`: how long the session was there.
    pub(super) fn log(
        self,
        child: Option<(String, String)>,
        lasted: Duration,
        hint: Option<&str>,
        is_suspect: bool,
    ) {
        let Self { sid, server, why, opened } = self;
        let limit = if is_suspect && !opened { &SUSPECT_ENDS } else { &ENDS };
        let Some(count) = limit.take() else { return };
        let (status, stopped_by) = child.unzip();
        let (reason, seconds) = (why.cause(), lasted.as_secs());
        // A server that ends in good order before it was of any use is trouble too.
        if why.is_trouble() || (matches!(why, End::Exited(_)) && !opened) {
            warn!(
                event = "session.end",
                sid, server, reason, status, stopped_by, seconds, count, hint, "a session has ended"
            );
        } else {
            info!(
                event = "session.end",
                sid, server, reason, status, stopped_by, seconds, count, hint, "a session has ended"
            );
        }
    }
}

/// A child that has not answered `initialize`.
struct Start {
    id: SessionId,
    cause: Cause,
    child: Process,
    is_first: bool,
    held: Held,
    is_answered: oneshot::Receiver<Result<(), End>>,
}

impl Start {
    /// Waits for the answer, and notes it. The permit is given back when the child had its time: others may start then.
    async fn watch(self, sessions: Arc<Sessions>) {
        let Self { id, cause, child, is_first, mut held, mut is_answered } = self;
        let answered = match late::timeout(MAX_START, &mut is_answered).await {
            Some(answered) => answered,
            None => {
                sessions.log_slow_start(&id, child.pid());
                drop(held.permit.take());
                is_answered.await
            }
        };
        let Ok(answered) = answered else { return }; // the runtime has ended before the session
        if answered.is_ok() {
            sessions.lock().note_open(&id, child.tag());
        }
        // Later children of a session fail on its own account: it is given up after some of them.
        if is_first || answered.is_ok() {
            sessions.note_start(&cause, held.initialize.take(), answered);
        }
        if answered.is_err() {
            sleep(AFTER_FAILURE).await;
        }
        drop(held);
    }
}

impl Sessions {
    fn log_slow_start(&self, id: &SessionId, pid: i32) {
        let Some(count) = SLOW_STARTS.take() else { return };
        warn!(
            event = "child.slow_start",
            sid = id.short(),
            pid,
            seconds = MAX_START.as_secs(),
            limit = self.config.session.limits.init_timeout.as_secs_f64(),
            count,
            "a server has not answered initialize yet; see --init-timeout for how long it may take"
        );
    }
}

/// The fields `status` and `stopped_by` of a log line.
fn described(gone: Option<Gone>) -> (String, String) {
    match gone {
        Some(Gone { status, stopped_by, .. }) => (status.to_string(), stopped_by.to_string()),
        None => ("not started".to_owned(), "none".to_owned()),
    }
}

const SLOW: &str = "see --init-timeout; --warm helps with servers that start slowly";
const UNCLAIMED: &str =
    "no request came with its id; see --unclaimed-timeout, and --session-key for clients that send no id";

/// What may be behind an end.
///
/// `first_words`: what the child wrote, where it has not answered `initialize`.
pub(super) fn hint(why: End, first_words: Option<&FirstWords>) -> Option<&'static str> {
    let said = |how| first_words.and_then(|words| words.hint(how));
    match why {
        End::Unclaimed => Some(UNCLAIMED),
        End::Exited(ExitStatus::Code(0)) => said(Unanswered::ExitedWell),
        End::InitTimeout(_) => said(Unanswered::Silent).or(Some(SLOW)),

        // A child that was not asked to leave is killed by the kernel and nothing else.
        End::Exited(ExitStatus::Signal("SIGKILL")) => Some("out of memory? see the container's memory limit"),
        End::Echoed => Some(
            "the command sends back its input: does it run in a terminal? a server needs pipes: docker run -i without -t",
        ),
        _ => None,
    }
}
