//! What the seed decides: the options of the bridge, the faults of its children in their order, what each client does in
//! each of its sessions, and what is done to harm it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A mode of `hostile` that is soaked.
pub struct Mode {
    /// Its words.
    pub line: &'static str,
    /// How often it is drawn.
    pub weight: u64,
    /// The errors of the bridge that its calls may end with. One that begins with `child_` may end the session too.
    pub reasons: &'static [&'static str],
}

impl Mode {
    pub fn name(&self) -> &'static str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// Whether its client may be too slow for it.
    pub fn floods(&self) -> bool {
        matches!(self.name(), "flood_stdout" | "huge_note")
    }
}

const fn mode(line: &'static str, weight: u64, reasons: &'static [&'static str]) -> Mode {
    Mode { line, weight, reasons }
}

const NONE: &[&str] = &[];
const LATE: &[&str] = &["request_timeout"];
const DIES: &[&str] = &["child_exited"];
const DIES_LATE: &[&str] = &["child_exited", "request_timeout"];

pub const MODES: &[Mode] = &[
    mode("good", 30, NONE),
    mode("strict", 3, NONE),
    mode("exit_at_start 3", 2, NONE),
    mode("exit_before_init 4", 2, NONE),
    mode("signal_before_init SEGV", 2, NONE),
    mode("hang_init", 1, NONE),
    mode("refuse_init", 2, NONE),
    mode("slow_init 300", 3, NONE),
    mode("not_ready 200", 2, NONE),
    mode("exit_after 3", 4, DIES),
    mode("die_in_call 7", 2, DIES_LATE),
    mode("die_in_call KILL 2", 2, DIES_LATE),
    mode("partial half", 2, DIES),
    mode("partial whole", 2, DIES),
    mode("close_stdout", 2, &["child_stdout_closed", "child_exited"]),
    mode("close_stdin 100", 2, &["child_stdin_closed", "child_exited", "request_timeout"]),
    mode("ignore_term", 2, NONE),
    mode("slow_exit 300", 2, NONE),
    mode("hang", 2, LATE),
    mode("late", 2, LATE),
    mode("shuffle 2", 2, LATE),
    mode("dup", 3, NONE),
    mode("unknown_id", 3, NONE),
    mode("ids float", 1, NONE),
    mode("ids exp", 1, NONE),
    mode("ids string", 1, NONE),
    mode("batch", 4, NONE),
    mode("same_ids", 4, LATE),
    mode("sample", 2, NONE),
    mode("deaf", 1, LATE),
    mode("noise", 3, NONE),
    mode("junk_json", 2, NONE),
    mode("bad_utf8", 2, NONE),
    mode("framing", 2, NONE),
    mode("cr", 2, NONE),
    mode("pretty", 1, LATE),
    mode("huge 300000", 2, NONE),
    mode("deep 100", 1, NONE),
    mode("spew pings 50", 2, NONE),
    mode("spew null-ids 1000", 1, NONE),
    mode("spew doubled 10", 1, NONE),
    mode("spew big-ids 100000", 1, NONE),
    mode("spew array 40000", 2, NONE),
    mode("spew invalid 300000", 1, NONE),
    mode("huge_note 300000", 1, LATE),
    mode("flood_stdout", 2, LATE),
    mode("flood_stderr", 1, NONE),
    mode("wrapper", 3, NONE),
    mode("grandchild", 2, NONE),
    mode("daemon", 2, NONE),
    mode("orphans 3", 2, NONE),
    mode("setpgid", 2, NONE),
    mode("setsid", 2, NONE),
];

/// SplitMix64: each number of a stream is a hash of its place in it, so one seed gives as many streams as are wanted.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of this name.
    pub fn new(seed: u64, name: &[u64]) -> Self {
        let mut random = Self(seed);
        for part in name {
            random.0 = random.next().wrapping_add(*part);
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    /// An index, drawn by these weights.
    fn weighted(&mut self, weights: impl Iterator<Item = u64> + Clone) -> usize {
        let mut place = self.below(weights.clone().sum());
        weights
            .take_while(|weight| {
                let behind = place >= *weight;
                place = place.wrapping_sub(*weight);
                behind
            })
            .count()
    }
}

#[derive(Clone, Debug)]
pub enum Action {
    /// A call that comes back with what it was given.
    Echo {
        bytes: usize,
    },
    /// Calls at the same time, each so many milliseconds long; 0 is an echo.
    Burst(Vec<u64>),
    /// A slow call, cancelled after a while.
    Cancel {
        ms: u64,
        after: u64,
    },
    /// A call whose stream is left after so many events, and resumed if one of them had an id.
    BreakOff {
        ms: u64,
        events: usize,
    },
    /// A call whose stream is resumed after so many events while the first reader is still there.
    TakeOver {
        ms: u64,
        events: usize,
    },
    /// So many calls one after the other on one connection.
    Reuse(u64),
    /// A call that nobody waits for.
    Forget {
        ms: u64,
    },
    /// A big answer that nobody reads.
    Unread {
        bytes: usize,
    },
    /// Two calls at the same time with one id.
    Twice {
        ms: u64,
    },
    /// Several calls and a notification in one POST.
    Batch(u64),
    /// A stream of what the child says unasked takes over from the one before.
    Listen,
    /// That stream is left.
    Unlisten,
    /// A request that must be refused: a row of `Client::refusals`.
    Malformed(u64),
    /// The child is told to end: by exit code or signal.
    Exit(&'static str),
    Pause {
        ms: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    Delete,
    DeleteTwice,
    /// While a call is in flight.
    DeleteInCall,
    /// Nothing: the idle timeout sees to it.
    Abandon,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Opening {
    Proper,
    /// The client goes without waiting for the answer.
    HangUp,
    /// The client goes in the middle of its own request.
    Half,
}

/// One session of one client.
#[derive(Clone, Debug)]
pub struct SessionPlan {
    pub opening: Opening,
    pub version: &'static str,
    /// The client takes no event streams.
    pub json_only: bool,
    /// How often it says `initialized`.
    pub initialized: u64,
    pub actions: Vec<Action>,
    pub ending: Ending,
}

impl SessionPlan {
    pub fn new(seed: u64, client: u64, session: u64) -> Self {
        let mut random = Random::new(seed, &[1, client, session]);
        let opening = match random.below(30) {
            0 => Opening::HangUp,
            1 => Opening::Half,
            _ => Opening::Proper,
        };
        Self {
            opening,
            version: random.of(&["2025-03-26", "2025-06-18", "2025-11-25", "2025-11-25"]),
            json_only: random.one_in(6),
            initialized: random.of(&[0, 1, 1, 1, 1, 2]),
            actions: (0..1 + random.below(12)).map(|_| Action::new(&mut random)).collect(),
            ending: random.of(&[
                Ending::Delete,
                Ending::Delete,
                Ending::Delete,
                Ending::DeleteTwice,
                Ending::DeleteInCall,
                Ending::Abandon,
            ]),
        }
    }
}

impl Action {
    fn new(random: &mut Random) -> Self {
        let length = |random: &mut Random| random.of(&[0, 10, 40, 100, 300]);
        match random.below(34) {
            0..8 => Self::Echo { bytes: random.of(&[0, 10, 1000, 100_000]) },
            8..13 => Self::Burst((0..2 + random.below(5)).map(|_| length(random)).collect()),
            13..15 => Self::Cancel { ms: 50 + random.below(400), after: random.below(200) },
            15..19 => Self::BreakOff { ms: length(random), events: random.of(&[0, 1, 1, 1, 2]) },
            19 => Self::Forget { ms: length(random) },
            20 => Self::Unread { bytes: random.of(&[1000, 1_000_000]) },
            21..23 => Self::Twice { ms: length(random) },
            23..25 => Self::Batch(1 + random.below(6)),
            25..27 => Self::Listen,
            27 => Self::Unlisten,
            28..30 => Self::Malformed(random.below(64)),
            30 if random.one_in(2) => Self::Exit(random.of(&["0", "9", "KILL", "SEGV", "TERM"])),
            31 => Self::Reuse(2 + random.below(10)),
            32 => Self::TakeOver { ms: length(random), events: 1 },
            _ => Self::Pause { ms: random.of(&[10, 100, 300, 1300]) },
        }
    }
}

/// What a client does that wishes the others ill.
#[derive(Clone, Copy, Debug)]
pub enum Mischief {
    /// So many `initialize` that each child ends on.
    BadStarts(u64),
    /// So many bodies that are announced and do not come, in a session or in none.
    SlowBodies { count: u64, in_session: bool },
    /// So many big answers that nobody reads, on a connection each.
    UnreadAnswers(u64),
    /// So many big answers of one batch, for a client that takes JSON alone and does not read.
    UnreadBatch(u64),
    /// So many listeners that ask for everything again and do not read.
    Resumptions(u64),
    /// A stream of an HTTP/2 connection that takes nothing, beside one that does.
    StuckStream,
    /// So many requests from an origin of this length.
    Origins { count: u64, length: usize },
    /// An array of so many numbers instead of a message.
    Array(usize),
}

impl Mischief {
    /// The nth thing that a rogue does.
    pub fn new(seed: u64, rogue: u64, nth: u64) -> Self {
        let mut random = Random::new(seed, &[3, rogue, nth]);
        match random.below(8) {
            0 => Self::BadStarts(1 + random.below(8)),
            1 => Self::SlowBodies { count: 1 + random.below(4), in_session: random.one_in(2) },
            2 => Self::UnreadAnswers(1 + random.below(6)),
            3 => Self::UnreadBatch(2 + random.below(20)),
            4 => Self::Resumptions(2 + random.below(20)),
            5 => Self::StuckStream,
            6 => Self::Origins { count: 1 + random.below(10), length: random.of(&[10, 1000, 50_000]) },
            _ => Self::Array(random.of(&[2, 1001, 100_000])),
        }
    }
}

pub struct Plan {
    pub seed: u64,
    pub length: Duration,
    pub options: Vec<String>,
    /// How many children wait for a session once the bridge is at rest, and how many at most.
    pub warm: usize,
    pub ahead: usize,
    /// Whether an idle session may be ended for another one.
    pub evict: bool,
}

impl Plan {
    /// The plan of this seed.
    pub fn new(seed: u64, length: Duration) -> Self {
        let mut random = Random::new(seed, &[0]);
        let (warm, lazy, evict) = (random.of(&[0, 0, 1, 3]), random.one_in(2), random.one_in(3));
        let mut options = format!(
            "--max-sessions 12 --idle-timeout 1s --init-timeout 3s --request-timeout 3s --stop-grace 300ms \
             --warm {warm} --sse-after {} --keep-alive {} --replay-buffer {}",
            random.of(&["0ms", "20ms", "250ms"]),
            random.of(&["50ms", "1s"]),
            random.of(&["1MiB", "4MiB"]),
        );
        for (name, on) in [("lazy", lazy), ("evict", evict), ("prime", random.one_in(2))] {
            options += &if on { format!(" --{name}") } else { String::new() };
        }
        let options = options.split_whitespace().map(str::to_owned).collect();
        let ahead = usize::max(warm, usize::from(!lazy));
        Self { seed, length, options, warm, ahead, evict }
    }

    /// From `SOAK_SEED`, or a seed of its own, and `SOAK`, or 6 seconds.
    pub fn from_environment() -> Self {
        let seed = std::env::var("SOAK_SEED").map(|seed| seed.parse().expect("SOAK_SEED is a number"));
        let seed = seed.unwrap_or_else(|_| RandomState::new().build_hasher().finish() % 1_000_000);
        let length = std::env::var("SOAK").unwrap_or_else(|_| "6s".to_owned());
        let number = length.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &length[number.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            unit => panic!("SOAK is a duration such as 90s, 2m or 1h, and {unit:?} is no unit"),
        };
        let number: u64 = number.parse().expect("SOAK begins with a number");
        Self::new(seed, Duration::from_secs((number * unit).max(2)))
    }

    /// The modes of the children, a line each.
    pub fn modes(&self) -> String {
        let mut random = Random::new(self.seed, &[2]);
        let weights = MODES.iter().map(|mode| mode.weight);
        (0..1000).map(|_| format!("{}\n", MODES[random.weighted(weights.clone())].line)).collect()
    }
}
