//! Hostile clients over HTTP/1.

use std::time::Duration;

use mcp_bridge_bench::Outcome;
use mcp_bridge_bench::message::INITIALIZED;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::peer::{self, BOTH, JSON, PATIENCE, Stream, TURN, claim, post};
use crate::scene::Scene;

/// How fast `initialize` is sent that no server takes: 33 a second.
const BAD_START: Duration = Duration::from_millis(30);

/// How many letters are in a header that fills logs.
const LONG: usize = 60_000;

/// How much of an upload is written at once.
const PIECE: usize = 64 * 1024;

/// How much a slow reader takes at a time, and how often.
const SIP: usize = 1024;
const SIP_EVERY: Duration = Duration::from_millis(50);

/// How long a session is idle before the next one: longer than it keeps what it may use again.
const IDLE: Duration = Duration::from_millis(1300);

pub(crate) enum Attack {
    /// `initialize` that makes each server exit, again and again.
    BadInitializes,
    /// So many answers of so many bytes, of a batch whose client takes no events and does not read.
    Batch { calls: usize, bytes: usize },
    /// So many calls on a connection each, whose answers have so many bytes and are not read.
    UnreadAnswers { calls: usize, bytes: usize },
    /// The same in the session that all share.
    UnreadShared { calls: usize, bytes: usize },
    /// The same, and each is read a little at a time.
    SlowlyRead { calls: usize, bytes: usize },
    /// The same over the transport of 2024-11-05: all of them come on one stream.
    UnreadOld { calls: usize, bytes: usize },
    /// So many listeners on a connection each that ask for all events again and do not read.
    Resumptions { listeners: usize },
    /// So many bodies that are announced, in the session of the neighbour, and do not come.
    Announced { bodies: usize, bytes: usize },
    /// A body that is announced without a session, in the session that all share, and does not come.
    AnnouncedShared { bodies: usize, bytes: usize },
    /// So many batches of one short message and so many bytes of spaces, for a server that is not ready.
    Spaces { batches: usize, bytes: usize, mode: &'static str },
    /// Requests with a header of 60,000 letters that may not be so: `Origin` or `Host`.
    Long(&'static str),
    /// An array of small numbers of so many bytes, without a session.
    Array { bytes: usize },
    /// The old transport's stream, opened and left.
    OldStreams,
    /// So many sessions, one after the other, that make a call of so many bytes and are idle then.
    IdleAfter { sessions: usize, bytes: usize },
}

impl Attack {
    pub(crate) async fn run(&self, scene: &Scene) -> Outcome<String> {
        match *self {
            Self::BadInitializes => {
                let bad = post(None, BOTH, r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#);
                let (mut connection, mut count) = (scene.address.open().await?, 0);
                while scene.goes_on() {
                    let response = timeout(PATIENCE, connection.exchange(&bad)).await??;
                    claim(response.status >= 500, "a bad initialize is refused")?;
                    count += 1;
                    sleep(BAD_START).await;
                }
                Ok(format!("{count} bad starts"))
            }
            Self::Batch { calls, bytes } => {
                let session = peer::open_as(&mut scene.address.open().await?, "quiet", "2025-03-26").await?;
                let batch: Vec<String> = (1..=calls).map(|id| peer::big(id, bytes)).collect();
                let request = post(Some(&session), JSON, &format!("[{}]", batch.join(",")));
                let _unread = scene.address.send_unread(&request).await?;
                sleep_until(scene.until()).await;
                Ok(format!("{calls} calls in one batch, each answer {} MiB", bytes >> 20))
            }
            Self::UnreadAnswers { calls, bytes } => {
                let session = peer::open(&mut scene.address.open().await?, "quiet").await?;
                let unread = unread(scene, Some(&session), calls, bytes).await?;
                sleep_until(scene.until()).await;
                Ok(format!("{} answers of {bytes} bytes, none read", unread.len()))
            }
            Self::UnreadShared { calls, bytes } => {
                let unread = unread(scene, None, calls, bytes).await?;
                sleep_until(scene.until()).await;
                Ok(format!("{} answers of {bytes} bytes, none read", unread.len()))
            }
            Self::SlowlyRead { calls, bytes } => {
                let session = peer::open(&mut scene.address.open().await?, "quiet").await?;
                let mut unread = unread(scene, Some(&session), calls, bytes).await?;
                let until = scene.until();
                while Instant::now() < until {
                    for stream in &mut unread {
                        let _ = timeout(Duration::from_millis(1), stream.read(&mut [0; SIP])).await;
                    }
                    sleep(SIP_EVERY).await;
                }
                Ok(format!("{calls} answers of {bytes} bytes, read slowly"))
            }
            Self::UnreadOld { calls, bytes } => {
                let (stream, path) = old_stream(scene).await?;
                let mut client = scene.address.open().await?;
                let mut say = async |body: String| {
                    let response = timeout(PATIENCE, client.exchange(&peer::post_to(&path, &body))).await??;
                    claim(response.status == 202, "it is accepted")
                };
                say(peer::initialize("quiet", "2024-11-05")).await?;
                say(INITIALIZED.to_owned()).await?;
                for id in 1..=calls {
                    say(peer::big(id, bytes)).await?;
                }
                sleep_until(scene.until()).await;
                drop(stream);
                Ok(format!("{calls} answers of {bytes} bytes on one stream, not read"))
            }
            Self::Resumptions { listeners } => {
                let session = peer::full_ring(&scene.address).await?;
                let mut unread = Vec::new();
                for _ in 0..listeners {
                    unread.push(scene.address.send_unread(&peer::listen(&session, true)).await?);
                    sleep(TURN).await;
                }
                sleep_until(scene.until()).await;
                Ok(format!("{listeners} listeners, each for 380 events of 10 KB, none read"))
            }
            Self::Announced { bodies, bytes } => {
                announce(scene, Some(&scene.neighbours_session), bodies, bytes).await
            }
            Self::AnnouncedShared { bodies, bytes } => announce(scene, None, bodies, bytes).await,
            Self::Spaces { batches, bytes, mode } => {
                let session = peer::open_as(&mut scene.address.open().await?, mode, "2025-03-26").await?;
                let batch = |id| {
                    let call = peer::call(id, "echo", "{}");
                    let head = peer::announce(Some(&session), call.len() + bytes + 2);
                    Upload {
                        head: [head, b"[".to_vec(), call.into_bytes()].concat(),
                        filler: (b' ', bytes),
                        tail: b"]",
                    }
                };
                let taken = upload(scene, (1..=batches).map(batch).collect()).await?;
                Ok(format!("{batches} batches of {} MiB of spaces, {taken} taken", bytes >> 20))
            }
            Self::Long(name) => {
                let value = "o".repeat(LONG);
                let (host, origin) = if name == "Host" { (&*value, "") } else { ("127.0.0.1", &*value) };
                let origin =
                    if name == "Origin" { format!("Origin: http://{origin}\r\n") } else { String::new() };
                let request =
                    format!("GET /mcp HTTP/1.1\r\nHost: {host}\r\n{origin}Accept: text/event-stream\r\n\r\n");
                let (mut connection, mut count) = (scene.address.open().await?, 0);
                while scene.goes_on() {
                    let response = timeout(PATIENCE, connection.exchange(request.as_bytes())).await??;
                    claim(response.status == 403, "it is refused")?;
                    count += 1;
                }
                Ok(format!("{count} requests whose {name} has {LONG} letters"))
            }
            Self::Array { bytes } => {
                let array = format!("[{}1]", "1,".repeat(bytes / 2 - 2));
                let (request, mut count) = (post(None, BOTH, &array), 0);
                while scene.goes_on() {
                    let mut connection = scene.address.open().await?;
                    let response = timeout(PATIENCE, connection.exchange(&request)).await??;
                    claim(response.status == 400, "an array is refused")?;
                    count += 1;
                }
                Ok(format!("{count} arrays of {} MiB", bytes >> 20))
            }
            Self::OldStreams => {
                let mut count = 0;
                while scene.goes_on() {
                    old_stream(scene).await?;
                    count += 1;
                }
                Ok(format!("{count} streams opened and left"))
            }
            Self::IdleAfter { sessions, bytes } => {
                let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes));
                for _ in 0..sessions {
                    let mut connection = scene.address.open().await?;
                    let session = peer::open(&mut connection, "quiet").await?;
                    let request = post(Some(&session), BOTH, &peer::call(1, "echo", &text));
                    peer::answered(&mut connection, &request).await?;
                    sleep(IDLE).await;
                }
                Ok(format!("{sessions} sessions idle after a call and an answer of {} MiB", bytes >> 20))
            }
        }
    }
}

/// Calls on a connection each, whose answers are not read.
async fn unread(scene: &Scene, session: Option<&str>, calls: usize, bytes: usize) -> Outcome<Vec<Stream>> {
    let mut unread = Vec::new();
    for id in 1..=calls {
        unread.push(scene.address.send_unread(&post(session, BOTH, &peer::big(id, bytes))).await?);
    }
    Ok(unread)
}

/// A stream of the transport of 2024-11-05, and the path that it names.
async fn old_stream(scene: &Scene) -> Outcome<(Stream, String)> {
    let request = b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n";
    let (mut stream, mut received) = (scene.address.send_unread(request).await?, String::new());
    loop {
        let path = received.split("data: ").nth(1).and_then(|rest| rest.split_once('\n'));
        if let Some((path, _)) = path {
            return Ok((stream, format!("/{}", path.trim()))); // relative to /sse
        }
        let mut buffer = [0; 256];
        let count = timeout(PATIENCE, stream.read(&mut buffer)).await??;
        claim(count > 0, "the stream names its path")?;
        received.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

/// Heads without their bodies.
async fn announce(scene: &Scene, session: Option<&str>, bodies: usize, bytes: usize) -> Outcome<String> {
    let mut open = Vec::new();
    for _ in 0..bodies {
        open.push(scene.address.send_unread(&peer::announce(session, bytes)).await?);
    }
    sleep_until(scene.until()).await;
    Ok(format!("{bodies} bodies of {} MiB announced, nothing of them sent", bytes >> 20))
}

/// A request most of whose body is one byte again and again.
pub(crate) struct Upload {
    pub(crate) head: Vec<u8>,
    pub(crate) filler: (u8, usize),
    pub(crate) tail: &'static [u8],
}

/// Sends as much of these requests as is taken until the case is over, each on a connection of its own, and says how many
/// were taken as a whole.
pub(crate) async fn upload(scene: &Scene, uploads: Vec<Upload>) -> Outcome<usize> {
    let (mut tasks, until) = (JoinSet::new(), scene.until());
    for upload in uploads {
        let mut stream = scene.address.connect().await?;
        tasks.spawn(async move {
            let send = async {
                stream.write_all(&upload.head).await?;
                let (byte, mut left) = upload.filler;
                let filler = vec![byte; left.min(PIECE)];
                while left > 0 {
                    let length = left.min(PIECE);
                    stream.write_all(&filler[..length]).await?;
                    left -= length;
                }
                stream.write_all(upload.tail).await
            };
            let sent = matches!(timeout_at(until, send).await, Ok(Ok(())));
            sleep_until(until).await;
            drop(stream);
            sent
        });
    }
    let mut taken = 0;
    while let Some(sent) = tasks.join_next().await {
        taken += usize::from(sent?);
    }
    Ok(taken)
}
