//! Free memory goes back to the system.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often at most: it looks through the whole heap, about a millisecond for each ten megabytes.
const PAUSE: Duration = Duration::from_secs(1);

/// To be called when something big may have ended. glibc keeps what was freed between things that are still in use; a
/// sidecar that once passed on a large answer would hold that memory for good (malloc_trim(3)).
pub fn give_back() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let Ok(mut last) = LAST.lock() else { return };
    if last.is_some_and(|last| last.elapsed() < PAUSE) {
        return;
    }
    *last = Some(Instant::now());
    trim();
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn trim() {
    // SAFETY: malloc_trim has no preconditions, locks what it touches (attributes(7): MT-Safe) and frees only what
    // is free already.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
