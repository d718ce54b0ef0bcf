//! The quiet neighbour: a client that makes one small thing after the other and looks at how long each takes.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mcp_bridge_bench::http::Connection;
use mcp_bridge_bench::{Failure, Outcome};
use tokio::runtime;
use tokio::time::{sleep, timeout};

use crate::peer::{self, Address, BOTH, PATIENCE, Stream};

/// How long it rests between two things: a closed loop would keep a processor busy by itself. Sessions are opened seldom:
/// the quieter a bridge is, the less a good start can say against the bad ones.
const REST: Duration = Duration::from_millis(1);
const REST_AFTER_SESSION: Duration = Duration::from_millis(200);

/// What it does.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Makes calls in a session of its own.
    Calls,
    /// Makes calls without a session id, in the session that all share.
    Shared,
    /// Opens sessions, makes a call in each and deletes it.
    Opens,
    /// Asks whether the bridge is alive; for bridges whose sessions have to wait.
    Asks,
}

const QUIET: u8 = 0;
const BESIDE: u8 = 1;
const OVER: u8 = 2;

#[derive(Default)]
pub(crate) struct Times {
    pub(crate) quiet: Vec<Duration>,
    pub(crate) beside: Vec<Duration>,
}

impl Times {
    fn add(&mut self, phase: u8, took: Duration) {
        if phase == QUIET { &mut self.quiet } else { &mut self.beside }.push(took);
    }
}

pub(crate) struct Neighbour {
    phase: Arc<AtomicU8>,
    times: Arc<Mutex<Times>>,
    thread: JoinHandle<Outcome<()>>,
    /// Its session, where it has one of its own.
    pub(crate) session: String,
}

impl Neighbour {
    /// Begins, with what is counted as quiet.
    pub(crate) fn start(kind: Kind, address: Address) -> Outcome<Self> {
        let (phase, times) = (Arc::new(AtomicU8::new(QUIET)), Arc::new(Mutex::default()));
        let (told, session) = mpsc::channel();
        let thread = thread::spawn({
            let (phase, times) = (Arc::clone(&phase), Arc::clone(&times));
            move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let mut client = Client::open(kind, address).await?;
                    let _ = told.send(client.session.clone());
                    client.live(&phase, &times).await
                })
            }
        });
        let session = wait_for(&session);
        let neighbour = Self { phase, times, thread, session: session.clone().unwrap_or_default() };
        match session {
            Some(_) => Ok(neighbour),
            None => Err(neighbour.end().err().unwrap_or_else(|| "the neighbour did not begin".into())),
        }
    }

    /// From here on what it does is beside the bad one.
    pub(crate) fn beside(&self) {
        self.phase.store(BESIDE, Ordering::Relaxed);
    }

    /// What it is doing is waited for, and counts.
    pub(crate) fn end(self) -> Outcome<Times> {
        self.phase.store(OVER, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the neighbour panicked")??;
        Ok(std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn wait_for(session: &Receiver<String>) -> Option<String> {
    session.recv_timeout(PATIENCE).ok()
}

struct Client {
    kind: Kind,
    connection: Connection<Stream>,
    session: String,
}

impl Client {
    async fn open(kind: Kind, address: Address) -> Outcome<Self> {
        let mut connection = address.open().await?;
        let session = match kind {
            Kind::Calls => peer::open(&mut connection, "quiet").await?,
            Kind::Shared | Kind::Opens | Kind::Asks => String::new(),
        };
        Ok(Self { kind, connection, session })
    }

    async fn live(&mut self, phase: &AtomicU8, times: &Mutex<Times>) -> Outcome<()> {
        for number in 1.. {
            let begin = Instant::now();
            let done = timeout(PATIENCE, self.act(number)).await;
            let took = begin.elapsed();
            done.map_err(|_| blame("it was not answered"))?.map_err(blame)?;
            let now = phase.load(Ordering::Relaxed);
            times.lock().unwrap_or_else(PoisonError::into_inner).add(now, took);
            if now == OVER {
                break;
            }
            sleep(if self.kind == Kind::Opens { REST_AFTER_SESSION } else { REST }).await;
        }
        Ok(())
    }

    async fn act(&mut self, number: usize) -> Outcome<()> {
        match self.kind {
            Kind::Calls | Kind::Shared => self.call(number).await,
            Kind::Opens => {
                self.session = peer::open(&mut self.connection, "quiet").await?;
                self.call(number).await?;
                let session = &self.session;
                let delete =
                    format!("DELETE /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nMcp-Session-Id: {session}\r\n\r\n");
                self.connection.exchange(delete.as_bytes()).await?;
                self.session.clear();
                Ok(())
            }
            Kind::Asks => {
                let asked = self.connection.exchange(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
                match asked.await?.status {
                    200 => Ok(()),
                    status => Err(format!("/healthz is {status}").into()),
                }
            }
        }
    }

    async fn call(&mut self, number: usize) -> Outcome<()> {
        let session = Some(self.session.as_str()).filter(|id| !id.is_empty());
        let text = format!("the neighbour's {number}");
        let call = peer::call(number, "echo", &format!(r#"{{"text":"{text}"}}"#));
        let response = self.connection.exchange(&peer::post(session, BOTH, &call)).await?;
        let own = memchr::memmem::find(&response.body, text.as_bytes()).is_some();
        match response.status {
            200 if own => Ok(()),
            status => Err(peer::refused("a call", status, &response.body)),
        }
    }
}

fn blame(error: impl Into<Failure>) -> Failure {
    format!("the neighbour: {}", error.into()).into()
}
