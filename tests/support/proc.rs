//! What the kernel says about processes. It cannot be fooled by what the bridge believes.

use std::fs;

#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub group: u32,
    pub session: u32,
    pub state: char,
    pub name: String,
}

pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| get(entry.file_name().to_str()?.parse().ok()?)).collect()
}

pub fn get(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself contain some.
    let (name, rest) = (stat.split_once('(')?.1.rsplit_once(')')?.0, stat.rsplit_once(')')?.1);
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse().ok();
    Some(Process {
        pid,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        state: fields.first()?.chars().next()?,
        name: name.to_owned(),
    })
}

pub fn children(pid: u32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == pid).collect()
}

/// Running processes that carry this `NAME=value` in their environment. A zombie has none.
pub fn with_environment(pair: &str) -> Vec<Process> {
    let carries = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == pair.as_bytes())
    };
    all().into_iter().filter(carries).collect()
}

pub fn is_alive(pid: u32) -> bool {
    get(pid).is_some_and(|process| !matches!(process.state, 'Z' | 'X'))
}

pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Whether the kernel shows what a bridge has open: of what is not dumpable, to root alone. If not, says so.
pub fn shows_files_of_a_bridge() -> bool {
    let shows = fs::read_dir("/proc/1/fd").is_ok();
    if !shows {
        eprintln!("skipped: what the bridge has open is shown to root alone");
    }
    shows
}

/// How many IPv4 connections to this port of ours some process has open at this end (proc(5), /proc/net/tcp).
pub fn connections_at(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_open = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields[1], fields[3], fields[9]);
        local.ends_with(&format!(":{port:04X}")) && state != "0A" && inode != "0"
    };
    table.lines().skip(1).filter(is_open).count()
}

/// The largest resident set so far, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// The resident set, in bytes.
pub fn resident_memory(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
