//! What the worst child and the worst client cost the others: see "Pressure" in tests/README.md.

#![allow(clippy::disallowed_methods, reason = "these rules are for the bridge")]

mod case;
mod child;
mod http1;
mod http2;
mod neighbour;
mod peer;
mod report;
mod scene;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use case::{CASES, Case};
use mcp_bridge_bench::Outcome;
use report::Fault;
use scene::{Played, play};
use serde_json::json;
use tokio::runtime;

/// Plays each case beside a quiet neighbour, and prints the bridge's highest memory, the neighbour's times and what the log
/// said. Exit code 1: a case took more memory, time or log than it may.
#[derive(FromArgs)]
struct Options {
    /// the bridge
    #[argh(option)]
    bridge: PathBuf,

    /// only this case; may be given several times. An unknown name lists them all
    #[argh(option)]
    case: Vec<String>,

    /// each case is shorter, a minute in all
    #[argh(switch)]
    quick: bool,

    /// write every single measurement into this file too
    #[argh(option)]
    json: Option<PathBuf>,
}

/// How long each case goes on.
const LENGTH: Duration = Duration::from_secs(3);
const QUICK: Duration = Duration::from_millis(500);

/// How often a case is played before it counts that the neighbour had to wait: a small machine stalls by itself.
const ATTEMPTS: usize = 3;

fn main() -> ExitCode {
    let options: Options = argh::from_env();
    // One thread, and it is the main one: what it starts is killed when it ends.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(options)));
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(broken) => {
            eprintln!("{broken} of the cases are not as they must be");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays the cases, and says how many are not as they must be.
async fn run(options: Options) -> Outcome<usize> {
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    if let Some(name) = options.case.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("no case is called {name:?}; there are {}", names.join(", ")).into());
    }
    let length = if options.quick { QUICK } else { LENGTH };
    println!("{}. Times of the neighbour: median / longest.\n\n{}", report::machine(), report::HEAD);
    let (mut broken, mut all) = (0, Vec::new());
    let wanted = |case: &&Case| options.case.is_empty() || options.case.iter().any(|name| name == case.name);
    for case in CASES.iter().filter(wanted) {
        match attempt(case, &options.bridge, length).await {
            Ok(played) => {
                println!("{}", played.row(case));
                broken += usize::from(!played.faults(case).is_empty());
                all.push(played.json(case));
            }
            Err(error) => {
                println!(
                    "| {} | {} | **failed: {error}** | | {} | | | | |",
                    case.name,
                    case.about,
                    case.sum()
                );
                broken += 1;
                all.push(json!({ "case": case.name, "error": error.to_string(), "ok": false }));
            }
        }
    }
    if let Some(file) = options.json {
        fs::write(&file, format!("{:#}\n", json!(all)))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(broken)
}

/// Plays a case again where nothing but time is wrong.
async fn attempt(case: &Case, bridge: &Path, length: Duration) -> Outcome<Played> {
    let mut played = play(case, bridge, length).await?;
    for _ in 1..ATTEMPTS {
        if played.faults(case) != [Fault::Time] {
            break;
        }
        played = play(case, bridge, length).await?;
    }
    Ok(played)
}
