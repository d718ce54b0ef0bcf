//! One column at work.

use crate::Outcome;
use crate::programs::Server;
use crate::window::{self, Latencies, Pace, Speed, Tally, Window};
use crate::{client, stdio};

/// What calls, in any of the columns.
pub(crate) enum Caller {
    Pipe(stdio::Caller),
    PipeChurn(stdio::Churn),
    Http(client::Caller),
    HttpChurn(client::Churn),
}

impl window::Caller for Caller {
    async fn work(&mut self, window: &Window) -> Outcome<Latencies> {
        match self {
            Self::Pipe(caller) => caller.work(window).await,
            Self::PipeChurn(churn) => churn.work(window).await,
            Self::Http(caller) => caller.work(window).await,
            Self::HttpChurn(churn) => churn.work(window).await,
        }
    }
}

/// What was started of a column for one round of a cell. It rests between its turns.
pub(crate) struct Running {
    callers: Vec<Caller>,
    /// The processes whose processor time is measured.
    processes: Vec<u32>,
    /// The HTTP server, if there is one.
    server: Option<Server>,
    tally: Tally,
}

impl Running {
    pub(crate) fn new(callers: Vec<Caller>, processes: Vec<u32>, server: Option<Server>) -> Self {
        Self { callers, processes, server, tally: Tally::default() }
    }

    /// One turn, which counts or does not.
    pub(crate) async fn turn(&mut self, pace: Pace, counts: bool) -> Outcome<()> {
        let mut nothing = Tally::default();
        let tally = if counts { &mut self.tally } else { &mut nothing };
        let turn = tally.turn(&mut self.callers, &self.processes, pace).await;
        turn.map_err(|error| match &self.server {
            Some(server) => server.with_log(error),
            None => error,
        })
    }

    /// Ends everything in order.
    pub(crate) async fn end(self) -> Outcome<Speed> {
        for caller in self.callers {
            if let Caller::Pipe(caller) = caller {
                caller.end().await?;
            }
        }
        if let Some(server) = self.server {
            server.end().await?;
        }
        self.tally.speed()
    }
}
