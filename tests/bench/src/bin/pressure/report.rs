//! What came of the cases: a table for people, JSON for programs, and whether all of it is as it must be.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use crate::case::Case;
use crate::scene::Played;

/// Events that are no answer to anything.
const USUAL: [&str; 3] = ["bridge.start", "session.start", "session.end"];

/// How many events are shown.
const EVENTS: usize = 3;

/// How much longer than its longest quiet call the neighbour may wait where a machine stalls by itself.
const STALL: u32 = 2;

pub(crate) const HEAD: &str = "\
| case | | what it did | peak above idle | allowed, MiB | neighbour: quiet | beside it | log | |
|---|---|---|---|---|---|---|---|---|";

/// The machine, in one line.
pub(crate) fn machine() -> String {
    let first = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.rsplit(": ").next().unwrap_or_default().trim().to_owned()
    };
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let (processor, kernel) = (first("/proc/cpuinfo", "model name"), first("/proc/sys/kernel/osrelease", ""));
    let load = first("/proc/loadavg", "");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores ({processor}), Linux {kernel}, load {load} at the start")
}

/// What is wrong with a case.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Memory,
    /// May be the machine's.
    Time,
    Log,
}

impl Played {
    pub(crate) fn faults(&self, case: &Case) -> Vec<Fault> {
        let limit = case.longest.max(longest(&self.times.quiet) * STALL);
        let faults = [
            (Fault::Memory, self.memory > case.allowed()),
            (Fault::Time, longest(&self.times.beside) > limit || self.times.beside.is_empty()),
            (Fault::Log, self.log.len() as u64 > case.log * 1024),
        ];
        faults.into_iter().filter(|(_, is_there)| *is_there).map(|(fault, _)| fault).collect()
    }

    pub(crate) fn row(&self, case: &Case) -> String {
        let faults = self.faults(case);
        let mark = |fault, text: String| if faults.contains(&fault) { format!("**{text}**") } else { text };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            case.name,
            case.about,
            self.did,
            mark(Fault::Memory, format!("{:.1} MiB", self.memory as f64 / 1024.0)),
            case.sum(),
            times(&self.times.quiet),
            mark(Fault::Time, times(&self.times.beside)),
            mark(Fault::Log, self.said()),
            if faults.is_empty() { "ok" } else { "**over**" },
        )
    }

    pub(crate) fn json(&self, case: &Case) -> Value {
        let milliseconds = |times: &[Duration]| -> Vec<f64> {
            times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
        };
        json!({
            "case": case.name,
            "did": self.did,
            "peak_kib": self.memory,
            "allowed_kib": case.allowed(),
            "quiet_ms": milliseconds(&self.times.quiet),
            "beside_ms": milliseconds(&self.times.beside),
            "log_bytes": self.log.len(),
            "events": self.events().into_iter().collect::<BTreeMap<_, _>>(),
            "ok": self.faults(case).is_empty(),
        })
    }

    /// The events that say something, the most frequent first.
    fn events(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for line in self.log.lines() {
            let event = line.split("event=\"").nth(1).and_then(|rest| rest.split('"').next());
            let event = event.filter(|event| !USUAL.contains(event));
            *counts.entry(event.unwrap_or_default().to_owned()).or_default() += usize::from(event.is_some());
        }
        let mut counts: Vec<_> = counts.into_iter().filter(|(event, _)| !event.is_empty()).collect();
        counts.sort_by_key(|(_, count)| usize::MAX - *count);
        counts
    }

    fn said(&self) -> String {
        let events = self.events();
        let shown = events.iter().take(EVENTS).map(|(event, count)| format!("{count} × `{event}`"));
        let mut shown: Vec<_> = shown.collect();
        if events.len() > EVENTS {
            shown.push("…".to_owned());
        }
        let events = if shown.is_empty() { "–".to_owned() } else { shown.join(", ") };
        format!("{events}; {} KiB", self.log.len() / 1024)
    }
}

fn longest(times: &[Duration]) -> Duration {
    times.iter().max().copied().unwrap_or_default()
}

/// Median and the longest.
fn times(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    format!("{:.2} / {:.1} ms", ms(median), ms(longest(times)))
}
