//! The cases, and how much each may cost.

use std::fmt;
use std::time::Duration;

use mcp_bridge_bench::Outcome;

use crate::neighbour::Kind;
use crate::scene::Scene;
use crate::{child, http1, http2};

const KIB: u64 = 1;
const MIB: u64 = 1024 * KIB;

/// How much more than the sum of its parts a case may take: the allocator, the kernel's rounding, the sessions themselves.
const MARGIN: u64 = 16 * MIB;

pub(crate) enum Attack {
    Child(child::Attack),
    Http1(http1::Attack),
    Http2(http2::Attack),
}

impl Attack {
    pub(crate) async fn run(&self, scene: &Scene) -> Outcome<String> {
        match self {
            Self::Child(attack) => attack.run(scene).await,
            Self::Http1(attack) => attack.run(scene).await,
            Self::Http2(attack) => attack.run(scene).await,
        }
    }
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Who does what.
    pub(crate) about: &'static str,
    /// Options of the bridge, beyond the defaults.
    pub(crate) options: &'static [&'static str],
    pub(crate) over_unix: bool,
    pub(crate) neighbour: Kind,
    pub(crate) attack: Attack,
    /// What of this the bridge may hold.
    pub(crate) parts: &'static [Part],
    /// The longest that the neighbour may wait.
    pub(crate) longest: Duration,
    /// How many KiB of log this may write.
    pub(crate) log: u64,
}

/// What the bridge may hold, as "Limits" in src/README.md says.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    /// Messages queued for one child.
    Stdin,
    /// Bodies longer than 64 KiB that wait: of one session, or of all requests that name none.
    Bodies,
    /// Short bodies of requests that name no session.
    ShortBodies,
    /// Replies of the bridge that a child does not read.
    Replies,
    /// A message of the child while it is passed on.
    Message,
    /// Answers of one session that are not read: what waits, what its connections have in hand, and one beside.
    Answers,
    /// What so many sessions keep for clients that come back.
    Replay(u64),
    /// What so many streams have not sent.
    Unsent(u64),
    /// One piece of so many streams on its way.
    Pieces(u64),
    /// What so many HTTP/2 streams, on so many connections, have sent and the bridge has not read.
    Windows { streams: u64, connections: u64 },
    /// So many requests, without their heads and bodies.
    Requests(u64),
    /// So many heads of so many KiB.
    Heads { count: u64, kib: u64 },
    /// Messages that are held for a child which is not ready.
    Held,
    /// Lines of the log that are not read.
    Log,
}

impl Part {
    /// In KiB.
    fn size(self, options: &[&str]) -> u64 {
        let option = |name: &str, default: u64| {
            let value = options.iter().skip_while(|option| **option != name).nth(1);
            value.and_then(|value| value.strip_suffix("MiB")?.parse().ok()).unwrap_or(default) * MIB
        };
        let (max_body, max_message) = (option("--max-body", 10), option("--max-message", 64));
        match self {
            Self::Stdin => 4 * MIB,
            Self::Bodies => 4 * MIB + max_body,
            Self::ShortBodies | Self::Held => 8 * MIB,
            Self::Replies | Self::Log => MIB,
            Self::Message => 2 * max_message,
            Self::Answers => 5 * MIB + max_message,
            Self::Replay(sessions) => sessions * option("--replay-buffer", 4),
            Self::Unsent(streams) => streams * MIB,
            Self::Pieces(streams) => streams * 64 * KIB,
            Self::Windows { streams, connections } => (streams * 128 * KIB).min(connections * 512 * KIB),
            Self::Requests(count) => count * 12,
            Self::Heads { count, kib } => count * kib,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("stdin queue"),
            Self::Bodies => f.write_str("long bodies, 4 and `--max-body`"),
            Self::ShortBodies => f.write_str("short bodies"),
            Self::Replies => f.write_str("replies"),
            Self::Message => f.write_str("2 × `--max-message`"),
            Self::Answers => f.write_str("answers, 4 and 1 and `--max-message`"),
            Self::Replay(1) => f.write_str("`--replay-buffer`"),
            Self::Replay(sessions) => write!(f, "{sessions} × `--replay-buffer`"),
            Self::Unsent(1) => f.write_str("unsent"),
            Self::Unsent(streams) => write!(f, "{streams} × unsent"),
            Self::Pieces(streams) => write!(f, "{streams} × 64 KiB"),
            Self::Windows { streams, connections } => {
                write!(f, "windows of {streams} streams on {connections} connections")
            }
            Self::Requests(count) => write!(f, "{count} requests"),
            Self::Heads { count, kib } => write!(f, "{count} heads of {kib} KiB"),
            Self::Held => f.write_str("held messages"),
            Self::Log => f.write_str("log"),
        }
    }
}

impl Case {
    /// How much the bridge may take, in KiB.
    pub(crate) fn allowed(&self) -> u64 {
        self.parts.iter().map(|part| part.size(self.options)).sum::<u64>() + MARGIN
    }

    /// The sum as people read it, in MiB.
    pub(crate) fn sum(&self) -> String {
        let mib = |kib: u64| (kib as f64 / 1024.0 * 10.0).round() / 10.0;
        let part = |part: &Part| format!("{part} {} + ", mib(part.size(self.options)));
        let parts: String = self.parts.iter().map(part).collect();
        format!("{parts}{} = {}", mib(MARGIN), mib(self.allowed()))
    }
}

const PLAIN: Case = Case {
    name: "",
    about: "",
    options: &[],
    over_unix: false,
    neighbour: Kind::Calls,
    attack: Attack::Http1(http1::Attack::OldStreams),
    parts: &[],
    longest: Duration::from_millis(100),
    log: MIB,
};

/// A case of a child, by the name of its mode.
const fn child(
    name: &'static str,
    about: &'static str,
    mode: &'static str,
    client: child::Client,
    parts: &'static [Part],
) -> Case {
    Case { name, about, attack: Attack::Child(child::Attack { mode, client }), parts, ..PLAIN }
}

const fn http1(
    name: &'static str,
    about: &'static str,
    attack: http1::Attack,
    options: &'static [&'static str],
    parts: &'static [Part],
) -> Case {
    Case { name, about, options, attack: Attack::Http1(attack), parts, ..PLAIN }
}

const fn http2(
    name: &'static str,
    about: &'static str,
    attack: http2::Attack,
    options: &'static [&'static str],
    parts: &'static [Part],
) -> Case {
    Case { name, about, options, attack: Attack::Http2(attack), parts, ..PLAIN }
}

use child::Client::{Calls, Listens, Opens, Posts, Stalls, Waits};

const SMALL_MESSAGES: &[&str] = &["--max-message", "8MiB"];
const SMALL_EVENTS: &[&str] = &["--max-message", "8MiB", "--sse-after", "0ms"];

const SMALL_OLD: &[&str] = &["--max-message", "8MiB", "--sse-compat"];
const SMALL_SHARED: &[&str] = &["--max-message", "8MiB", "--session-key", "shared"];

/// An answer of 6 MB does not fit in any buffer of the kernel.
const UNREAD: usize = 6_000_000;

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    // A child that floods or does not read.
    child("deaf", "the child never reads", "deaf", Posts(64, 1 << 20), &[Part::Stdin, Part::Bodies]),
    child("stdout-unheard", "the child floods stdout, nobody listens", "floods notes", Waits, &[Part::Replay(1)]),
    child("stdout-read", "the child floods stdout, its client reads", "floods notes", Listens, &[Part::Replay(1), Part::Unsent(1)]),
    child("stdout-stalled", "the child floods stdout, its client stops reading", "floods notes", Stalls(6), &[Part::Replay(1), Part::Unsent(6)]),
    child("stdout-noise", "the child floods stdout with what is no message", "floods noise", Waits, &[]),
    child("stdout-strangers", "the child floods stdout with answers to nothing", "floods answers", Waits, &[]),
    Case { log: 16 * MIB, ..child("stderr", "the child floods stderr", "floods stderr", Waits, &[Part::Log]) },
    // A child that makes the bridge write.
    child("pings", "the child pings without end and reads no reply", "floods pings", Waits, &[Part::Replies]),
    child("null-ids", "the same with the id null", "floods null-ids", Waits, &[Part::Replies]),
    child("big-ids", "the same with ids of 1 MiB", "floods big-ids", Waits, &[Part::Replies]),
    child("questions", "the child asks for sampling without end, nobody listens", "floods questions", Waits, &[Part::Replies, Part::Replay(1)]),
    child("strange-requests", "the child asks for what nobody knows, without end", "floods strangers", Waits, &[Part::Replies, Part::Replay(1)]),
    // A child's long lines.
    child("too-long", "the child writes lines of 100 MB", "prints too-long", Calls, &[Part::Message]),
    child("brackets", "the child writes 5 million brackets in a line", "prints brackets", Calls, &[Part::Message]),
    child("array-ones", "the child writes an array of 60 MiB of numbers", "prints ones", Calls, &[Part::Message]),
    child("array-objects", "… of empty objects", "prints objects", Calls, &[Part::Message]),
    child("array-strings", "… of empty strings", "prints strings", Calls, &[Part::Message]),
    child("array-arrays", "… of empty arrays", "prints arrays", Calls, &[Part::Message]),
    child("array-notes", "… of notifications", "prints notes", Calls, &[Part::Message, Part::Replay(1), Part::Unsent(1)]),
    child("array-null-ids", "… of pings with the id null", "prints null-ids", Calls, &[Part::Message, Part::Replies]),
    child("array-pings", "… of pings", "prints requests", Calls, &[Part::Message, Part::Replies]),
    child("array-vector", "the child writes an array of 10 MiB of numbers", "prints vector", Calls, &[Part::Message]),
    child("array-small", "the child writes an array of 1 MiB of numbers", "prints small", Calls, &[Part::Message]),
    child("invalid-utf8", "the child writes 60 MiB that are no UTF-8 in an answer", "prints invalid", Calls, &[Part::Message]),
    child("invalid-noise", "the child writes 60 MiB that are no UTF-8 by themselves", "prints invalid-noise", Calls, &[Part::Message]),
    child("long-version", "children that say a protocol version of 40 MiB", "version 41943040", Opens(4), &[Part::Message]),
    child("tiny-events", "children that write 60,000 notifications of 31 bytes, nobody listens", "notes 60000 0", Opens(8), &[Part::Replay(8)]),
    // A client over HTTP/1.
    Case {
        neighbour: Kind::Opens,
        longest: Duration::from_millis(1000),
        ..http1("bad-initializes", "a client's bad initialize makes each server exit", http1::Attack::BadInitializes, &[], &[])
    },
    http1("batch", "a client of a JSON-only batch does not read", http1::Attack::Batch { calls: 200, bytes: 2 << 20 }, SMALL_MESSAGES, &[Part::Answers, Part::Message]),
    http1("unread", "a client reads no answer", http1::Attack::UnreadAnswers { calls: 60, bytes: UNREAD }, SMALL_MESSAGES, &[Part::Answers, Part::Message]),
    http1("unread-events", "a client reads no answer, as event streams", http1::Attack::UnreadAnswers { calls: 40, bytes: UNREAD }, SMALL_EVENTS, &[Part::Answers, Part::Message, Part::Replay(1)]),
    Case {
        over_unix: true,
        ..http1("unread-unix", "a client over a unix socket reads no answer", http1::Attack::UnreadAnswers { calls: 20, bytes: UNREAD }, SMALL_MESSAGES, &[Part::Answers, Part::Message])
    },
    http1("slowly-read", "a client reads its answers slowly", http1::Attack::SlowlyRead { calls: 20, bytes: UNREAD }, SMALL_MESSAGES, &[Part::Answers, Part::Message]),
    http1("unread-old", "a client of the old transport reads no answer", http1::Attack::UnreadOld { calls: 40, bytes: UNREAD }, SMALL_OLD, &[Part::Answers, Part::Message, Part::Replay(1)]),
    Case {
        neighbour: Kind::Shared,
        // A second until the first client is cut off, and 250 ms for each one then.
        longest: Duration::from_secs(6),
        ..http1("unread-shared", "a client of a shared session reads no answer", http1::Attack::UnreadShared { calls: 20, bytes: UNREAD }, SMALL_SHARED, &[Part::Answers, Part::Message])
    },
    http1("resumptions", "a client asks for all events again and again and does not read", http1::Attack::Resumptions { listeners: 100 }, &[], &[Part::Replay(1), Part::Pieces(100)]),
    Case {
        neighbour: Kind::Shared,
        ..http1("slow-shared", "clients of a shared session announce bodies and do not send them", http1::Attack::AnnouncedShared { bodies: 3, bytes: 10 << 20 }, &["--session-key", "shared"], &[Part::Bodies])
    },
    http1("slow-own", "a client announces bodies, does not send them, and makes calls in the same session", http1::Attack::Announced { bodies: 3, bytes: 10 << 20 }, &[], &[Part::Bodies]),
    Case {
        neighbour: Kind::Asks,
        ..http1("held-batches", "batches of one short message and 10 MB of spaces wait for a server", http1::Attack::Spaces { batches: 40, bytes: 10_000_000, mode: "quiet" }, &["--ready-delay", "20s"], &[Part::Bodies, Part::Held])
    },
    http1("held-respawn", "… for a server that is being replaced", http1::Attack::Spaces { batches: 40, bytes: 10_000_000, mode: "leaves" }, &["--on-exit", "respawn"], &[Part::Bodies, Part::Held]),
    http1("origins", "a client comes with an origin of 60,000 letters", http1::Attack::Long("Origin"), &[], &[Part::Log]),
    http1("hosts", "… with a host of 60,000 letters", http1::Attack::Long("Host"), &[], &[Part::Log]),
    http1("array-body", "a client posts an array of 10 MiB without a session", http1::Attack::Array { bytes: 10_000_000 }, &[], &[Part::Bodies]),
    http1("old-streams", "a client opens streams of the old transport and leaves", http1::Attack::OldStreams, &["--sse-compat"], &[]),
    http1("idle-after", "sessions are idle after a call of 8 MiB", http1::Attack::IdleAfter { sessions: 3, bytes: 8 << 20 }, &["--max-message", "9MiB"], &[Part::Bodies, Part::Message]),
    // A client over HTTP/2.
    http2("unread-h2", "a client over HTTP/2 takes no answer", http2::Attack::UnreadAnswers { calls: 60, bytes: UNREAD }, SMALL_MESSAGES, &[Part::Answers, Part::Message]),
    http2("unread-events-h2", "… as event streams", http2::Attack::UnreadAnswers { calls: 40, bytes: UNREAD }, SMALL_EVENTS, &[Part::Answers, Part::Message, Part::Replay(1)]),
    http2("resumptions-h2", "a client over HTTP/2 asks for all events again and again and does not read", http2::Attack::Resumptions { listeners: 100 }, &[], &[Part::Replay(1), Part::Pieces(100)]),
    http2("stuck-stream", "one stream of an HTTP/2 connection takes nothing, beside another one", http2::Attack::StuckStream, &["--max-message", "8MiB", "--body-timeout", "1s"], &[Part::Answers]),
    http2("slow-uploads", "HTTP/2 connections upload all but the end of a body, for no session", http2::Attack::SlowBodies { connections: 100, streams: 1, bytes: 10_000_000, in_session: false }, &[], &[Part::Bodies, Part::ShortBodies, Part::Windows { streams: 100, connections: 100 }]),
    http2("slow-uploads-session", "… in one session", http2::Attack::SlowBodies { connections: 100, streams: 1, bytes: 10_000_000, in_session: true }, &[], &[Part::Stdin, Part::Bodies, Part::Windows { streams: 100, connections: 100 }]),
    http2("short-uploads", "HTTP/2 streams upload all but the end of a short body, for no session", http2::Attack::SlowBodies { connections: 8, streams: 120, bytes: 60_000, in_session: false }, &[], &[Part::ShortBodies, Part::Windows { streams: 960, connections: 8 }, Part::Requests(960)]),
    http2("heads", "HTTP/2 streams send a long head and no body", http2::Attack::Heads { connections: 10, streams: 120, bytes: 28_000 }, &[], &[Part::Heads { count: 1200, kib: 28 }]),
];
