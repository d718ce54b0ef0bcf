//! The columns: what is measured against each other, and how each is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, io};

use crate::Outcome;
use crate::cell::{TEXT, Work};
use crate::client::{self, Session};
use crate::http::Connection;
use crate::message::{self, FIRST, Numbers, Template};
use crate::programs::{Memory, Server};
use crate::running::{Caller, Running};
use crate::stdio;

/// What is measured against each other.
pub(crate) enum Column {
    /// The echo server over its pipes.
    Pipe,
    /// Bare hyper.
    Floor,
    Bridge(Bridge),
}

#[derive(Clone)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    path: PathBuf,
    /// Whether its callers are clients of 2026-07-28 that share a server of the session era.
    translates: bool,
}

impl Bridge {
    /// The same with clients of 2026-07-28.
    fn translated(&self) -> Self {
        Self { name: "translated".to_owned(), translates: true, ..self.clone() }
    }
}

impl FromStr for Bridge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("NAME=PATH is wanted")?;
        if name.is_empty() || !name.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter)) {
            return Err(format!("{name:?} is no name of letters, digits, '-', '_' and '.'"));
        }
        let path = PathBuf::from(path).canonicalize().map_err(|error| format!("{path}: {error}"))?;
        Ok(Self { name: name.to_owned(), path, translates: false })
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pipe => "pipe",
            Self::Floor => "floor",
            Self::Bridge(bridge) => &bridge.name,
        })
    }
}

impl Column {
    /// Where the columns that are no bridges stand among all.
    pub(crate) const PIPE: usize = 0;
    pub(crate) const FLOOR: usize = 1;

    /// All columns, for these bridges. `translated`: the last one has another with clients of 2026-07-28, before all others.
    pub(crate) fn all(mut bridges: Vec<Bridge>, translated: bool) -> Outcome<Vec<Self>> {
        let mut columns = vec![Self::Pipe, Self::Floor];
        if let Some(last) = bridges.last().filter(|_| translated) {
            bridges.insert(0, last.translated());
        }
        for bridge in bridges {
            if columns.iter().any(|column| column.to_string() == bridge.name) {
                return Err(format!("two columns are called {:?}", bridge.name).into());
            }
            columns.push(Self::Bridge(bridge));
        }
        Ok(columns)
    }

    /// Starts what is measured, and connects all that will call it. `None`: there is nothing to call.
    pub(crate) async fn start(&self, work: Work) -> Outcome<Option<Running>> {
        let running = match (self, work) {
            (Self::Pipe, Work::Calls { sessions, in_flight, text }) => {
                let (mut callers, mut processes) = (Vec::new(), Vec::new());
                for session in 0..sessions {
                    let server = stdio::Server::open().await?;
                    processes.push(server.id());
                    let caller = stdio::Caller::new(server, in_flight, Numbers::of(session), text);
                    callers.push(Caller::Pipe(caller));
                }
                Running::new(callers, processes, None)
            }
            (Self::Pipe, Work::Churn { at_once }) => {
                let churn = |caller| Caller::PipeChurn(stdio::Churn::new(Numbers::of(caller), TEXT));
                Running::new((0..at_once).map(churn).collect(), Vec::new(), None)
            }
            (Self::Floor, Work::Calls { sessions, in_flight, text }) => {
                floor(sessions * in_flight, text, 1).await?
            }
            (Self::Floor, Work::Churn { at_once }) => floor(at_once, TEXT, client::Churn::REQUESTS).await?,
            (Self::Bridge(bridge), Work::Calls { sessions, in_flight, text }) => {
                let server = bridge.start().await?;
                let callers = callers(server.address, sessions, in_flight, text, bridge.translates).await;
                Running::new(
                    callers.map_err(|error| server.with_log(error))?,
                    vec![server.id()],
                    Some(server),
                )
            }
            // Without sessions there is nothing that comes and goes.
            (Self::Bridge(Bridge { translates: true, .. }), Work::Churn { .. }) => return Ok(None),
            (Self::Bridge(bridge), Work::Churn { at_once }) => {
                let server = bridge.start().await?;
                let mut callers = Vec::new();
                for caller in 0..at_once {
                    let churn = client::Churn::connect(server.address, Numbers::of(caller), TEXT).await?;
                    callers.push(Caller::HttpChurn(churn));
                }
                Running::new(callers, vec![server.id()], Some(server))
            }
            (_, Work::Memory { .. }) => return Ok(None),
        };
        Ok(Some(running))
    }
}

/// Bare hyper, and callers that always ask for the answer that it gives.
async fn floor(callers: usize, text: usize, calls_per_sample: usize) -> Outcome<Running> {
    let server = Server::floor(Template::new(message::answer(text)).with(FIRST))?;
    let mut all = Vec::new();
    for _ in 0..callers {
        let (session, numbers) = (Session::none(), Numbers::constant());
        let caller =
            client::Caller::connect(server.address, &session, numbers, text, calls_per_sample).await?;
        all.push(Caller::Http(caller));
    }
    Ok(Running::new(all, vec![server.id()], Some(server)))
}

/// Sessions with a bridge, and so many callers in each.
async fn callers(
    address: SocketAddr,
    sessions: usize,
    in_flight: usize,
    text: usize,
    translates: bool,
) -> Outcome<Vec<Caller>> {
    let mut callers = Vec::new();
    for _ in 0..sessions {
        let session = match translates {
            true => Session::modern(),
            false => Session::open(&mut Connection::open(address).await?).await?,
        };
        for _ in 0..in_flight {
            let numbers = Numbers::of(callers.len());
            let caller = client::Caller::connect(address, &session, numbers, text, 1).await?;
            callers.push(Caller::Http(caller));
        }
    }
    Ok(callers)
}

/// How much memory a bridge has taken, in KiB.
#[derive(Clone, Copy)]
pub(crate) struct Footprint {
    /// Before the first session; one child is started ahead.
    pub(crate) idle: Memory,
    /// Private_Dirty for each session beyond the first one.
    pub(crate) session: f64,
}

impl Bridge {
    async fn start(&self) -> Outcome<Server> {
        let options: &[&str] = if self.translates { &["--share", "all"] } else { &[] };
        Server::bridge(&self.name, &self.path, options).await
    }

    /// Each session has had one call, and no connection. `None`: the kernel does not let this user look.
    pub(crate) async fn footprint(&self, sessions: usize) -> Outcome<Option<Footprint>> {
        if self.translates {
            return Ok(None);
        }
        let server = self.start().await?;
        if let Err(error) = Memory::of(server.id())
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            eprintln!("the memory of {} is not measured: {error}", self.name);
            return Ok(None);
        }
        let footprint = async {
            let idle = Memory::settled(server.id()).await?;
            let mut private_dirty = Vec::new();
            for more in [1, sessions - 1] {
                let mut connection = Connection::open(server.address).await?;
                for _ in 0..more {
                    client::begin_session(&mut connection, FIRST, TEXT).await?;
                }
                drop(connection);
                private_dirty.push(Memory::settled(server.id()).await?.private_dirty);
            }
            let session = (private_dirty[1] - private_dirty[0]) / (sessions - 1) as f64;
            Outcome::Ok(Footprint { idle, session })
        };
        let footprint = footprint.await.map_err(|error| server.with_log(error))?;
        server.end().await?;
        Ok(Some(footprint))
    }
}
