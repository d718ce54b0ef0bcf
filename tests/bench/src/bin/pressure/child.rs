//! Hostile children, and what their clients do: each is a mode of the program `unruly`.

use std::time::Duration;

use mcp_bridge_bench::Outcome;
use tokio::io::AsyncReadExt;
use tokio::time::{sleep, sleep_until, timeout};

use crate::http1::{Upload, upload};
use crate::peer::{self, BOTH, PATIENCE, claim, post};
use crate::scene::Scene;

/// How long after each other streams are opened that nobody reads.
const STALL_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Attack {
    pub(crate) mode: &'static str,
    pub(crate) client: Client,
}

/// What the client of the bad child does.
pub(crate) enum Client {
    /// Nothing.
    Waits,
    /// Listens, and reads what comes.
    Listens,
    /// Opens so many streams, those of calls and listening ones by turns, and reads none of them.
    Stalls(usize),
    /// Calls again and again, and takes any answer.
    Calls,
    /// Posts so many calls at once, of so many bytes each.
    Posts(usize, usize),
    /// Opens so many sessions, and waits.
    Opens(usize),
}

impl Attack {
    pub(crate) async fn run(&self, scene: &Scene) -> Outcome<String> {
        let mut connection = scene.address.open().await?;
        let session = peer::open(&mut connection, self.mode).await?;
        match self.client {
            Client::Waits => {
                sleep_until(scene.until()).await;
                Ok(format!("for {:.1} s", scene.begun.elapsed().as_secs_f64()))
            }
            Client::Listens => {
                let mut stream = scene.address.send_unread(&peer::listen(&session, false)).await?;
                let (mut buffer, mut read) = (vec![0; 64 * 1024], 0);
                while scene.goes_on() {
                    let count = timeout(PATIENCE, stream.read(&mut buffer)).await??;
                    claim(count > 0, "the stream goes on")?;
                    read += count;
                }
                Ok(format!("{} MiB read", read >> 20))
            }
            Client::Stalls(count) => {
                let mut streams = Vec::new();
                for turn in 0..count {
                    let call = post(Some(&session), BOTH, &peer::call(turn, "slow", r#"{"ms":60000}"#));
                    let request = if turn % 2 == 0 { call } else { peer::listen(&session, false) };
                    streams.push(scene.address.send_unread(&request).await?);
                    sleep(STALL_EVERY).await;
                }
                sleep_until(scene.until()).await;
                Ok(format!("{count} streams not read"))
            }
            Client::Calls => {
                let mut count = 0;
                while scene.goes_on() || count == 0 {
                    count += 1;
                    let request = post(Some(&session), BOTH, &peer::call(count, "echo", "{}"));
                    peer::answered(&mut connection, &request).await?;
                }
                Ok(format!("{count} such lines"))
            }
            Client::Posts(count, bytes) => {
                let call = |id| {
                    let (head, tail) = (peer::call(id, "echo", "{\"text\":\""), b"\"}}}");
                    let head = head.trim_end_matches('}').as_bytes();
                    let announced = peer::announce(Some(&session), head.len() + bytes + tail.len());
                    Upload { head: [&announced, head].concat(), filler: (b'x', bytes), tail }
                };
                let taken = upload(scene, (0..count).map(call).collect()).await?;
                Ok(format!("{count} calls of {} MiB, {taken} sent", bytes >> 20))
            }
            Client::Opens(count) => {
                for _ in 1..count {
                    peer::open(&mut connection, self.mode).await?;
                }
                sleep_until(scene.until()).await;
                Ok(format!("{count} sessions"))
            }
        }
    }
}
