//! The limit of open files: raised for the bridge, as it was for its children, and divided between connections and the
//! pipes of children.

use std::io;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::debug;

/// How many files must be openable for a start: the runtime, its signals, the listener.
const FIRST_FILES: usize = 10;

/// Descriptors that are for neither connections nor children.
const SPARE_FILES: u64 = 64;

/// Probes and a few clients must be served whatever the limit is.
const MIN_CONNECTIONS: usize = 16;

/// The most connections if no option names a number.
const MAX_CONNECTIONS: usize = 1024;

/// The limit, soft and hard, that the bridge was started with.
static ORIGINAL: OnceLock<(u64, u64)> = OnceLock::new();

/// The limit, soft and hard, that the bridge was started with. `None` if it was not raised.
pub fn original() -> Option<(u64, u64)> {
    ORIGINAL.get().copied()
}

/// Raises the soft limit to the hard one: each session takes three pipes and each client a socket. Children must get
/// the [`original`] limit: programs that use select(2) break on descriptors beyond 1023. Returns how many files may be
/// open now.
pub fn raise() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let _ = ORIGINAL.set((soft, hard));
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        debug!(
            event = "limits.open_files",
            error = error.to_string(),
            soft,
            hard,
            "the limit of open files cannot be raised"
        );
        return Some(soft);
    }
    Some(hard)
}

/// Checks that a start has the descriptors it needs: tokio panics if it gets none for its signals.
///
/// # Errors
/// What pipe(2) said.
pub fn check() -> io::Result<()> {
    let pipes: io::Result<Vec<_>> = (0..FIRST_FILES / 2).map(|_| io::pipe()).collect();
    pipes.map(drop)
}

/// How many connections to serve at once if `limit` files may be open: one half of them is for connections, the other
/// for the pipes of children.
pub fn for_connections(limit: Option<u64>) -> usize {
    let half = limit.map(|limit| limit.saturating_sub(SPARE_FILES) / 2);
    let fitting = half.and_then(|half| usize::try_from(half).ok()).unwrap_or(MAX_CONNECTIONS);
    fitting.clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// How many files may have to be open at once: a session takes the three pipes of its server, and a connection a socket.
pub fn wanted(sessions: usize, connections: usize) -> u64 {
    let wanted = sessions.saturating_mul(3).saturating_add(connections);
    u64::try_from(wanted).unwrap_or(u64::MAX).saturating_add(SPARE_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_half_of_the_files() {
        let table = [
            (None, 1024),
            (Some(0), 16),
            (Some(64), 16),
            (Some(256), 96),
            (Some(1024), 480),
            (Some(1 << 20), 1024),
            (Some(u64::MAX), 1024),
        ];
        for (limit, connections) in table {
            assert_eq!(for_connections(limit), connections, "{limit:?}");
        }
    }
}
