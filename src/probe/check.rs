//! `--check`: one probe as all that a program does, until a signal ends it.

use std::io;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::report::Report;
use super::{Config, probe};
use crate::child::Command;
use crate::open_files;
use crate::reaper::Reaper;
use crate::signals::{Signal, Signals};

/// How a check ended.
#[derive(Debug)]
pub enum Checked {
    /// The server was started, and this was seen.
    Probed(Box<Report>),
    /// The system did not start it, or had nothing left for the check itself. A sentence for the operator.
    NotStarted(String),
    /// This signal asked for the end before there was a result.
    Stopped(Signal),
}

/// Probes the server. A signal ends it in order, a second one or SIGQUIT at once; either way no process is left. Blocks;
/// to be called on the main thread, because children die with the thread that started them.
pub fn run(command: &Command, config: &Config) -> Checked {
    let runtime = open_files::check().and_then(|()| Builder::new_current_thread().enable_all().build());
    let checked = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let (mut signals, reaper) = (Signals::listen()?, Reaper::start()?);
            let checked = until_signal(command, config, &mut signals, &reaper).await;
            reaper.kill_orphans();
            checked
        })
    });
    let program = command.program.display();
    checked.unwrap_or_else(|error| Checked::NotStarted(format!("{program} cannot be started: {error}")))
}

async fn until_signal(
    command: &Command,
    config: &Config,
    signals: &mut Signals,
    reaper: &Reaper,
) -> io::Result<Checked> {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let mut probing = std::pin::pin!(probe(command, config, reaper, stopped));
    let first = tokio::select! {
        probed = &mut probing => return probed.map(Box::new).map(Checked::Probed),
        signal = requested(signals) => signal,
    };
    if first != Signal::Quit {
        drop(stop);
        tokio::select! {
            _ = probing => {}
            _ = requested(signals) => {}
        }
    }
    Ok(Checked::Stopped(first))
}

/// Waits for a signal that ends the program.
async fn requested(signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Signal::User1 => {}
            signal => return signal,
        }
    }
}
