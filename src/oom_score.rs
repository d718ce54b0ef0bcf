//! Whom the kernel ends when memory runs out: a child and not the bridge (proc(5), /proc/pid/oom_score_adj).
//!
//! A child inherits the score that the bridge has at the moment of the fork. It cannot set its own: before execve(2) it is
//! a copy of the bridge, and the files in /proc of what is not dumpable belong to root.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// The score of a child.
const OF_A_CHILD: &[u8] = b"300";

/// Ours. Empty where there is no /proc, or where it may not be written.
static OWN: OnceLock<File> = OnceLock::new();

/// Opens the file of this process. To be called once, while the process is dumpable: afterwards it may not.
pub fn open() {
    if let Ok(file) = OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj") {
        let _ = OWN.set(file);
    }
}

/// Does `start` while this process has the score of a child; what it forks keeps that.
pub fn of_a_child<T>(start: impl FnOnce() -> T) -> T {
    let Some(own) = OWN.get() else { return start() };
    let mut score = [0; 16];
    let length = own.read_at(&mut score, 0).unwrap_or_default();
    // A score that may not be lowered stays, for both.
    let raised = length > 0 && own.write_at(OF_A_CHILD, 0).is_ok();
    let started = start();
    if raised {
        let _ = own.write_at(score.get(..length).unwrap_or_default(), 0);
    }
    started
}
