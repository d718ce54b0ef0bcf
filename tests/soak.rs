//! Sessions come and go with random faults, beside clients that wish them ill, and P3 (exactly one end), P4 (isolation)
//! and P6 (nothing left behind) hold all the while; after each wave memory, descriptors and processes are where they began,
//! and most of the time the bridge had answered at once.
//!
//! `SOAK=2m SOAK_SEED=7 cargo test --release --test soak -- --nocapture`. The seed decides the options of the bridge, the
//! faults of its children in the order in which they start, and what each client means to do in its n-th session. Which
//! client gets which child, how their steps interleave, and how far a plan gets, is up to the machine.

#![allow(unreachable_pub, reason = "its modules are used nowhere else")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test shall fail loudly"
)]

#[path = "soak/client.rs"]
mod client;
#[allow(dead_code, reason = "the soak says less than the front door's tests")]
#[path = "front_door/h2.rs"]
mod h2;
#[path = "soak/judge.rs"]
mod judge;
#[path = "soak/plan.rs"]
mod plan;
#[path = "soak/probe.rs"]
mod probe;
#[path = "soak/rogue.rs"]
mod rogue;
mod support;

use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use client::Client;
use nix::sys::signal::Signal;
use plan::Plan;
use rogue::Rogue;
use support::{Bridge, Scratch, Session, eventually, initialize, json, proc, tool_call};

const CLIENTS: u64 = 6;

/// Clients that wish the others ill.
const ROGUES: u64 = 2;

/// The longest wave; a short run has two.
const WAVE: Duration = Duration::from_secs(10);

/// How much more memory late waves may leave than early ones: a flood leaves holes that the next one fills. The calmest of
/// the last waves is compared with the wildest of the first ones.
const SLACK: u64 = 4 << 20;
const WAVES: usize = 3;

struct Soak {
    plan: Plan,
    bridge: Bridge,
    scratch: Scratch,
    failed: AtomicBool,
    counts: Mutex<BTreeMap<String, u64>>,
    /// Descriptors of the bridge without any child.
    files: usize,
    /// Resident after each wave.
    memory: Vec<u64>,
    peak: u64,
}

#[test]
fn under_random_faults_each_call_has_one_end_nobody_sees_anothers_and_nothing_is_left() {
    let plan = Plan::from_environment();
    let (seed, begun) = (plan.seed, Instant::now());
    eprintln!("soak: seed {seed}, {:?}, {}", plan.length, plan.options.join(" "));
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    let mut rogues: Vec<Rogue> = (0..ROGUES).map(Rogue::new).collect();
    let mut soak = Soak::start(plan);
    let run = catch_unwind(AssertUnwindSafe(|| soak.run(&mut clients, &mut rogues)));
    eprintln!("soak: seed {seed}, {} s, {}", begun.elapsed().as_secs(), soak.summary());
    if run.is_err() {
        let log = soak.bridge.log();
        let tail = log[log.len().saturating_sub(60)..].join("\n");
        drop(soak);
        for client in clients {
            eprintln!("client {}:\n{}", client.number, client.trace.lines());
        }
        for rogue in rogues {
            eprintln!("rogue {}:\n{}", rogue.number, rogue.trace.lines());
        }
        panic!("a promise is broken; the log of the bridge ends with\n{tail}\nagain with SOAK_SEED={seed}");
    }
}

impl Soak {
    fn start(plan: Plan) -> Self {
        let scratch = Scratch::new();
        let modes = scratch.write("modes", "good\n");
        let options: Vec<&str> = plan.options.iter().map(String::as_str).collect();
        let bridge = Bridge::start(&options, &["hostile", "any", &modes]);
        let (failed, counts) = (AtomicBool::new(false), Mutex::default());
        Self { plan, bridge, scratch, failed, counts, files: 0, memory: Vec::new(), peak: 0 }
    }

    fn run(&mut self, clients: &mut [Client], rogues: &mut [Rogue]) {
        self.greet();
        self.nothing_is_left();
        eventually("children wait for a session", || self.waiting().len() >= self.plan.warm);
        eventually("no connection is open", || self.bridge.connections() == 0);
        self.files = self.files_at_rest();
        let mut left = self.plan.length;
        while !left.is_zero() {
            let wave = left.min(WAVE).min(self.plan.length / 2);
            left -= wave;
            self.wave(clients, rogues, Instant::now() + wave);
            self.greet();
            self.nothing_is_left();
            self.is_back_where_it_began();
        }
        self.stop();
    }

    fn wave(&self, clients: &mut [Client], rogues: &mut [Rogue], until: Instant) {
        self.set_modes(&self.plan.modes());
        thread::scope(|scope| {
            for client in clients {
                let name = format!("client {}", client.number);
                scope.spawn(|| self.may_fail(name, || client.wave(self, until)));
            }
            for rogue in rogues {
                let name = format!("rogue {}", rogue.number);
                scope.spawn(|| self.may_fail(name, || rogue.wave(self, until)));
            }
            scope.spawn(|| self.may_fail("the probe".to_owned(), || probe::wave(self, until)));
        });
        assert!(!self.failed.load(Ordering::Relaxed), "no client has seen a broken promise");
    }

    fn may_fail(&self, name: String, act: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(act)).is_err() && !self.failed.swap(true, Ordering::Relaxed) {
            eprintln!("soak: the first to fail is {name}");
        }
    }

    /// For children that start from now on. In one step: some may be starting.
    fn set_modes(&self, modes: &str) {
        fs::rename(self.scratch.write("next", modes), self.scratch.path("modes")).unwrap();
    }

    /// Whatever was before, the bridge is there and a good child serves.
    fn greet(&self) {
        self.set_modes("good\n");
        assert_eq!(self.bridge.get("/healthz").status, 200);
        eventually("a good session works", || {
            let mut response = self.bridge.post(initialize(0, "2025-06-18").to_string());
            if response.status != 200 || response.header("mcp-session-id").is_none() {
                return false;
            }
            let session = Session::from_response(self.bridge.address, &mut response);
            let good = session.greeting["result"]["serverInfo"]["version"] == "good";
            if good {
                assert_eq!(session.text("echo", json!({ "text": "fresh" })), "fresh");
            }
            session.delete();
            good
        });
    }

    // ------------------------------------------------------------------------------------------ P6

    /// No process but the children that wait for a session, and no zombie.
    fn nothing_is_left(&self) {
        let deadline = Instant::now() + support::PATIENCE;
        loop {
            let waiting = self.waiting();
            let mut left = self.bridge.processes();
            // What a waiting child has started is its own, in whatever group it is.
            let theirs: HashSet<String> = waiting.iter().filter_map(|pid| tag(*pid)).collect();
            left.retain(|process| tag(process.pid).is_none_or(|tag| !theirs.contains(&tag)));
            left.retain(|process| !waiting.contains(&process.pid));
            left.extend(self.bridge.zombies());
            if left.is_empty() && waiting.len() <= self.plan.ahead {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:?}; waiting: {waiting:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The children that no session has taken yet, as the log has it and the kernel knows them.
    fn waiting(&self) -> HashSet<u32> {
        let log = self.bridge.log();
        let pid = |line: &str| line.split("pid=").nth(1)?.split(' ').next()?.parse().ok();
        let of = |event: &str| -> HashSet<u32> {
            let event = format!("event=\"{event}\"");
            log.iter().filter(|line| line.contains(&event)).filter_map(|line| pid(line)).collect()
        };
        let taken = of("session.start");
        of("child.warm").into_iter().filter(|pid| !taken.contains(pid) && proc::is_alive(*pid)).collect()
    }

    /// Three pipes belong to each child that waits, and do not count.
    fn files_at_rest(&self) -> usize {
        proc::open_files(self.bridge.pid()).saturating_sub(3 * self.waiting().len())
    }

    fn is_back_where_it_began(&mut self) {
        let deadline = Instant::now() + support::PATIENCE;
        while self.files_at_rest() != self.files {
            let (now, before) = (self.files_at_rest(), self.files);
            assert!(Instant::now() < deadline, "{before} descriptors before, {now} now");
            thread::sleep(Duration::from_millis(20));
        }
        let count = WAVES.min(self.memory.len().div_ceil(2));
        let early = self.memory.iter().take(count).max().unwrap_or(&u64::MAX).saturating_add(SLACK);
        // What is freed goes back once the bridge has had nothing to do for a while.
        let deadline = Instant::now() + support::PATIENCE;
        while proc::resident_memory(self.bridge.pid()) > early && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        self.memory.push(proc::resident_memory(self.bridge.pid()));
        self.peak = proc::peak_memory(self.bridge.pid());
        let late = self.memory.iter().rev().take(count).min().unwrap_or(&0);
        assert!(*late <= early, "it grows: bytes resident after each wave {:?}", self.memory);
        let panics: Vec<String> =
            self.bridge.log().into_iter().filter(|line| line.contains("panicked at")).collect();
        assert!(panics.is_empty(), "{panics:?}");
    }

    /// SIGTERM in the middle of calls: all are answered, the exit code is 0, and nothing is left.
    fn stop(&mut self) {
        self.set_modes(&self.plan.modes());
        let calls: Vec<_> = (0..6)
            .filter_map(|_| {
                let mut response = self.bridge.post(initialize(0, "2025-06-18").to_string());
                response.header("mcp-session-id")?;
                let session = Session::from_response(self.bridge.address, &mut response);
                Some(session.begin(tool_call("last", "sleep", json!({ "ms": 300 })).to_string()))
            })
            .collect();
        self.bridge.signal(Signal::SIGTERM);
        for call in calls {
            let mut response = call.response();
            let body = response.text();
            assert!(matches!(response.status, 200 | 404), "{}: {body}", response.status);
            assert!(response.status == 404 || body.contains(r#""last""#), "{body}");
        }
        assert_eq!(self.bridge.exit_code(), 0);
        assert_eq!(self.bridge.processes(), [], "nothing is left once the bridge has ended");
    }

    // ------------------------------------------------------------------------------------------ what happened

    fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    fn summary(&self) -> String {
        let counts = self.counts.lock().unwrap();
        let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        let memory: Vec<String> = self.memory.iter().map(|bytes| (bytes >> 10).to_string()).collect();
        let (files, peak) = (self.files, self.peak >> 10);
        format!(
            "descriptors {files}, KiB peak {peak} after each wave {}; {}",
            memory.join(" "),
            counts.join(", ")
        )
    }
}

/// Which child of the bridge a process descends from (src/README.md, *Processes*).
fn tag(pid: u32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    variables.filter_map(|text| text.strip_prefix("MCP_BRIDGE_CHILD=").map(str::to_owned)).next()
}
