//! How fast the bridge is, and how much it takes, beside the least that its job costs: see "Speed" in tests/README.md.

#![allow(clippy::disallowed_methods, reason = "these rules are for the bridge")]

mod cell;
mod client;
mod column;
mod report;
mod running;
mod stdio;
mod window;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use cell::{CELLS, Cell, Work};
use column::{Bridge, Column};
use mcp_bridge_bench::{Failure, Outcome, http, message, programs};
use report::{Report, Results};
use tokio::runtime;
use window::Pace;

/// Measures bridges beside bare HTTP and bare pipes, in turns. The bridge of this clone comes first by itself.
#[derive(FromArgs)]
struct Options {
    /// another bridge, NAME=PATH; may be given several times. The others are compared with the last one
    #[argh(option)]
    bridge: Vec<Bridge>,

    /// another column: the last bridge with clients of 2026-07-28 that share one server of the session era
    #[argh(switch)]
    translated: bool,

    /// how often everything is measured, 1 to 100; default 5, with --quick 3
    #[argh(option)]
    rounds: Option<usize>,

    /// less than a minute in all, with fewer turns
    #[argh(switch)]
    quick: bool,

    /// only this cell: 1x1, 1x16, 8x8, 64x1, 1MiB, churn or memory; may be given several times
    #[argh(option)]
    cell: Vec<String>,

    /// write every single measurement into this file too
    #[argh(option)]
    json: Option<PathBuf>,
}

const PACE: Pace = Pace { turns: 10, run_up: Duration::from_millis(20), window: Duration::from_millis(100) };
const QUICK: Pace = Pace { turns: 3, ..PACE };

fn main() -> ExitCode {
    let options: Options = argh::from_env();
    // One thread, and it is the main one: what it starts is killed when it ends.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(options)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Outcome<()> {
    let cells = cells(&options.cell)?;
    let (pace, rounds) = if options.quick { (QUICK, 3) } else { (PACE, 5) };
    let rounds = options.rounds.unwrap_or(rounds);
    if !(1..=100).contains(&rounds) {
        return Err("--rounds takes 1 to 100".into());
    }
    let mut report = Report::new(cells, Column::all(options.bridge, options.translated)?, rounds);
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for results in &mut report.cells {
            let done = measure(results, &report.columns, pace).await;
            done.map_err(|error| format!("{}: {error}", results.cell.name))?;
        }
    }
    print!("{report}");
    if let Some(file) = options.json {
        fs::write(&file, format!("{:#}\n", report.json()))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

fn cells(names: &[String]) -> Outcome<Vec<Cell>> {
    if let Some(name) = names.iter().find(|name| CELLS.iter().all(|cell| cell.name != **name)) {
        return Err(format!("no cell is called {name:?}; see --help").into());
    }
    let wanted = |cell: &Cell| names.is_empty() || names.iter().any(|name| name == cell.name);
    Ok(CELLS.into_iter().filter(wanted).collect())
}

/// One cell in all columns. They take turns, forwards and backwards, so that what changes on the machine meanwhile falls
/// on each of them.
async fn measure(results: &mut Results, columns: &[Column], pace: Pace) -> Outcome<()> {
    let mut running = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        if let (Work::Memory { sessions }, Column::Bridge(bridge)) = (results.cell.work, column) {
            results.columns[index].extend(bridge.footprint(sessions).await?.map(Vec::from));
        }
        if let Some(started) = column.start(results.cell.work).await? {
            running.push((index, started));
        }
    }
    for turn in 0..=pace.turns {
        for (index, running) in &mut running {
            let done = running.turn(pace, turn > 0).await;
            done.map_err(|error| format!("{}: {error}", columns[*index]))?;
        }
        running.reverse();
    }
    for (index, running) in running {
        results.columns[index].push(running.end().await?.into());
    }
    Ok(())
}
