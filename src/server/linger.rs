//! The end of a connection whose peer is still sending, in stages (RFC 9112 §9.6). The kernel answers bytes that nobody
//! reads with a reset, and a reset takes from the peer what it has not read yet: the response that says why it was
//! refused. So this end only stops writing at first, and reads on until the peer has stopped as well.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::drain::Watch;

/// Bytes that are read and thrown away at most: a peer that never ends is cut off.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// How long a stop is delayed at most.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Bytes that are read at once.
const PIECE: usize = 16 * 1024;

/// How long a peer may go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// With everything.
    pub(super) whole: Duration,
    /// From one byte to the next.
    pub(super) silence: Duration,
}

/// Reads on until the peer has closed its end, or it is enough. This end has stopped writing.
pub(super) async fn linger(stream: &mut (impl AsyncRead + Unpin), patience: Patience, stop: &mut Watch) {
    let mut end = Instant::now() + patience.whole;
    let mut left = MAX_BYTES;
    let mut piece = vec![0; PIECE];
    let mut stopping = false;
    while left > 0 {
        let deadline = end.min(Instant::now() + patience.silence);
        let read = tokio::select! {
            () = stop.signaled(), if !stopping => {
                stopping = true;
                end = end.min(Instant::now() + MAX_DELAY);
                continue;
            }
            read = timeout_at(deadline, stream.read(&mut piece)) => read,
        };
        match read {
            Ok(Ok(count)) if count > 0 => left = left.saturating_sub(count as u64),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain;
    use tokio::io::AsyncWriteExt;

    const PATIENCE: Patience = Patience { whole: Duration::from_secs(30), silence: Duration::from_secs(10) };

    async fn lingers(mut stream: impl AsyncRead + Unpin) -> Duration {
        let (_drain, mut watch) = drain::channel();
        let begun = Instant::now();
        linger(&mut stream, PATIENCE, &mut watch).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_closes_is_not_waited_for_and_one_that_is_silent_has_a_while() {
        let (mut peer, stream) = tokio::io::duplex(1024);
        peer.write_all(b"the rest").await.unwrap();
        drop(peer);
        assert_eq!(lingers(stream).await, Duration::ZERO);
        let (_peer, stream) = tokio::io::duplex(1024);
        assert_eq!(lingers(stream).await.as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_is_cut_off_by_time_or_by_bytes() {
        let (mut peer, stream) = tokio::io::duplex(1024);
        let drops = tokio::spawn(async move {
            while peer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        assert_eq!(lingers(stream).await.as_secs(), 30);
        drops.await.unwrap();
        assert_eq!(lingers(tokio::io::repeat(b'x')).await, Duration::ZERO, "by bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_delayed_by_a_second() {
        let (_peer, mut stream) = tokio::io::duplex(1024);
        let (drain, mut watch) = drain::channel();
        let begun = Instant::now();
        let draining = tokio::spawn(drain.drain());
        linger(&mut stream, PATIENCE, &mut watch).await;
        assert_eq!(begun.elapsed(), MAX_DELAY);
        drop(watch);
        draining.await.unwrap();
    }
}
