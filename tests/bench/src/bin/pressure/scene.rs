//! One case as it is played: a bridge of its own, the quiet neighbour, the bad one beside it, and what was measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcp_bridge_bench::programs::{Server, program};
use mcp_bridge_bench::{Failure, Outcome};
use tokio::time::{Instant, sleep};

use crate::case::Case;
use crate::neighbour::{Neighbour, Times};
use crate::peer::Address;

/// How long the neighbour is measured alone before, and how long the bad one may go on at least once it has set itself up.
const QUIET: Duration = Duration::from_millis(200);
const LEAST: Duration = Duration::from_millis(300);

/// What attacks know.
pub(crate) struct Scene {
    pub(crate) address: Address,
    pub(crate) neighbours_session: String,
    pub(crate) begun: Instant,
    length: Duration,
}

impl Scene {
    pub(crate) fn until(&self) -> Instant {
        (self.begun + self.length).max(Instant::now() + LEAST)
    }

    pub(crate) fn goes_on(&self) -> bool {
        self.begun.elapsed() < self.length
    }
}

/// What a case came to.
pub(crate) struct Played {
    pub(crate) did: String,
    /// Resident memory of the bridge at its highest (`VmHWM` in proc(5)), beyond what it had before, in KiB.
    pub(crate) memory: u64,
    pub(crate) times: Times,
    pub(crate) log: String,
}

/// Plays a case for so long.
pub(crate) async fn play(case: &Case, bridge: &Path, length: Duration) -> Outcome<Played> {
    let socket = Socket(program("pressure.sock")?);
    let unix = format!("unix:{}", socket.0.display());
    let listen = if case.over_unix { &unix } else { "127.0.0.1:0" };
    let options = [&["--listen", listen, "--lazy", "--stop-grace", "200ms"], case.options].concat();
    // Each case has a bridge of its own, so that its highest memory is that of the case.
    let server = Server::start("pressure", bridge, &options, "unruly").await?;
    let done = act(case, &server, &socket.0, length).await;
    done.map_err(|error| brief(error, &server))
}

async fn act(case: &Case, server: &Server, socket: &Path, length: Duration) -> Outcome<Played> {
    let address =
        if case.over_unix { Address::Unix(socket.to_owned()) } else { Address::Tcp(server.address) };
    let neighbour = Neighbour::start(case.neighbour, address.clone())?;
    sleep(QUIET).await;
    let idle = memory(server.id(), "VmRSS:")?;
    neighbour.beside();
    let neighbours_session = neighbour.session.clone();
    let scene = Scene { address, neighbours_session, begun: Instant::now(), length };
    let did = case.attack.run(&scene).await;
    let times = neighbour.end();
    let memory = memory(server.id(), "VmHWM:")?.saturating_sub(idle);
    // What the neighbour suffered says more than what became of the bad one.
    let times = times?;
    Ok(Played { did: did?, memory, times, log: server.log() })
}

/// An error in one line, and what the log says of it.
fn brief(error: Failure, server: &Server) -> Failure {
    let panicked = server.log().lines().any(|line| line.contains("panicked"));
    format!("{error}{}", if panicked { "; the bridge panicked" } else { "" }).into()
}

/// A number of KiB that the kernel knows of a process.
fn memory(process: u32, name: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    let value = value.ok_or("the bridge is gone")?;
    Ok(value.parse()?)
}

/// A socket file that does not stay.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
