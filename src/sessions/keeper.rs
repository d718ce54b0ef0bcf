//! A session's children, one after the other: hands them to the session's loop and sees them out.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{copy, sink};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::spawning::{SHARE, Start, jittered};
use super::{Sessions, describe};
use crate::child::{Child, Farewell, Process};
use crate::session::worker::{Ended, LostChild, Pipes, Worker};
use crate::session::{End, ExitStatus, Session};

/// After how many starts in a row that the system refused the session is given up.
const MAX_REFUSED: u32 = 5;

/// Looks after the children of one session. The session's seat is free when it is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) sessions: Arc<Sessions>,
    pub(super) session: Session,
    /// What the client's headers add to the children's environment.
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) seat: Option<OwnedSemaphorePermit>,
    /// The present child.
    pub(super) process: Mutex<Option<Process>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.seat.take());
        self.sessions.bury(self.session.id(), End::Shutdown); // where the runtime has ended before the session
        self.sessions.seat_freed();
    }
}

impl Keeper {
    /// Runs the session to its end, and its last child to its own.
    pub(super) async fn run(self: Arc<Self>, worker: Worker, child: Child<()>) {
        let began = Instant::now();
        let keeper = Arc::clone(&self);
        let next = move |lost| Arc::clone(&keeper).another(lost);
        let Ended { why, stdout } = worker.run(pipes(child), next).await;
        self.sessions.bury(self.session.id(), why);
        let opened = self.session.opened().await.is_ok();

        let sid = self.session.id().short();
        let left = self.see_out(stdout).await;
        let (status, farewell) = left.unwrap_or_else(|| ("no child".to_owned(), "none".to_owned()));
        let (status, farewell) = (&*status, &*farewell);
        let seconds = began.elapsed().as_secs();
        // A server that ends in good order before it was of any use is trouble too.
        if why.is_trouble() || (matches!(why, End::Exited(_)) && !opened) {
            let hint = hint(why);
            warn!(event = "session.end", sid, reason = why.cause(), status, farewell, seconds, hint);
        } else {
            info!(event = "session.end", sid, reason = why.cause(), status, farewell, seconds);
        }
    }

    /// The session has lost its child: sees it out and starts another, after a pause if it was not the first.
    async fn another(self: Arc<Self>, lost: LostChild<Receiver>) -> Option<Pipes<Sender, Receiver>> {
        let sid = self.session.id().short();
        let LostChild { why, stdout, count } = lost;
        // A task of its own: it must be done even if the session ends meanwhile.
        let keeper = Arc::clone(&self);
        let left = tokio::spawn(async move { keeper.see_out(stdout).await }).await;
        let (status, farewell) = left.ok().flatten().unwrap_or_default();
        let pause = if count > 1 { jittered(count - 1) } else { Duration::ZERO };
        warn!(
            event = "child.lost",
            sid,
            reason = why.cause(),
            status = &*status,
            farewell = &*farewell,
            count,
            ?pause,
            "its session goes on with another one"
        );
        sleep(pause).await;
        for refused in 1..=MAX_REFUSED {
            let start = self.sessions.spawning.start().await?;
            if !self.sessions.is_taking() {
                return None;
            }
            let name = Arc::new(OnceLock::from(sid.to_owned()));
            match self.sessions.spawn(&self.environment, name) {
                Ok(child) => {
                    info!(event = "child.respawned", sid, pid = child.process.pid());
                    self.hold(child.process.clone());
                    let pipes = pipes(child);
                    tokio::spawn(give_back(start, Arc::clone(&pipes.answered)));
                    return Some(pipes);
                }
                Err(error) => {
                    warn!(event = "child.spawn_failed", sid, %error);
                    sleep(jittered(refused)).await;
                }
            }
        }
        None
    }

    fn hold(&self, process: Process) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// Sees the present child out, if there is one: its status and what made it go.
    async fn see_out(&self, stdout: Option<Receiver>) -> Option<(String, String)> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let farewell = self.sessions.see_out(process.clone(), stdout).await;
        Some((describe(process.exit.status()).to_string(), farewell.to_string()))
    }
}

/// A child that comes in the place of another is starting until it has answered, or is lost, or had its time.
async fn give_back(start: Start, answered: Arc<Notify>) {
    let _ = tokio::time::timeout(SHARE, answered.notified()).await;
    drop(start);
}

/// What may be behind an end.
fn hint(why: End) -> Option<&'static str> {
    match why {
        // Nobody but the kernel kills a child that we have not asked to leave.
        End::Exited(ExitStatus::Signal("SIGKILL")) => Some("out of memory? see the container's memory limit"),
        End::InitTimeout(_) => Some("see --init-timeout, and --warm for servers that start slowly"),
        _ => None,
    }
}

/// The child as its session sees it.
fn pipes(child: Child<()>) -> Pipes<Sender, Receiver> {
    let Child { process, stdin, stdout, stderr: () } = child;
    let mut exit = process.exit;
    let exit = Box::pin(async move { describe(exit.wait().await) });
    Pipes { stdin, stdout, exit, answered: Arc::default() }
}

impl Sessions {
    /// Sees a process out whose stdin has been closed, and then whatever it left running.
    pub(super) async fn see_out(&self, mut process: Process, stdout: Option<Receiver>) -> Farewell {
        let mut draining = self.draining.subscribe();
        let leave = async {
            let stopping = *draining.borrow_and_update();
            if !stopping {
                tokio::select! {
                    farewell = process.see_out(self.config.stop_grace) => return farewell,
                    _ = draining.changed() => {} // the bridge has less patience now than the session had
                }
            }
            process.see_out(self.config.shutdown_grace).await
        };
        // A child that still writes while it leaves must not die of a closed pipe.
        let read_on = async {
            if let Some(mut stdout) = stdout {
                let _ = copy(&mut stdout, &mut sink()).await;
            }
            std::future::pending::<Farewell>().await
        };
        let farewell = tokio::select! {
            farewell = leave => farewell,
            never = read_on => never,
        };
        process.clear_up(&self.reaper).await;
        self.lock().processes.remove(&process.pid());
        farewell
    }

    /// Whether a session that ended so failed to start.
    pub(super) fn note_start(&self, ended: Option<End>) {
        match ended {
            None => self.spawning.succeeded(),
            // A server that answers with an error runs; one that was not waited for may.
            Some(End::Exited(_) | End::StdoutClosed | End::StdinClosed | End::InitTimeout(_)) => {
                self.note_crash()
            }
            Some(_) => {}
        }
    }

    /// A child ended before it was of use.
    pub(super) fn note_crash(&self) {
        if let Some(pause) = self.spawning.failed() {
            warn!(
                event = "child.crash_loop",
                ?pause,
                "every server fails at its start; none is started meanwhile"
            );
        }
    }
}
