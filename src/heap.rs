//! Freed memory goes back to the system, in a moment when nothing has to wait for that.
//!
//! glibc keeps what was freed between things that are still in use; a sidecar that once passed on a large answer would
//! hold that memory for good (malloc_trim(3)). malloc_trim locks the heap while it looks through all of it: for about a
//! millisecond per 10 MB, for 70 ms where 500 MB are free in holes of 20 KB. The loop stands still meanwhile, and would
//! if another thread did it, because its next allocation needs the lock. So it is done when the loop is quiet. While it
//! is not quiet, what was freed is soon used again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::sleep;

/// How much must have been freed to be worth it, in bytes.
const WORTH: usize = 4 * 1024 * 1024;

/// The loop is quiet when it had next to nothing to do for this time.
const QUIET: Duration = Duration::from_millis(100);

/// How much is next to nothing: one part of so many.
const NEXT_TO_NOTHING: u32 = 50;

/// Bytes that were freed since memory went back last.
static FREED: AtomicUsize = AtomicUsize::new(0);

/// Tells [`give_back_when_quiet`] that it is worth it.
static WORTH_IT: Notify = Notify::const_new();

/// Takes note that so many bytes have been freed, or will be in a moment. Costs next to nothing.
pub fn note_freed(bytes: usize) {
    let before = FREED.fetch_add(bytes, Ordering::Relaxed);
    if before < WORTH && before.saturating_add(bytes) >= WORTH {
        WORTH_IT.notify_one();
    }
}

/// Gives freed memory back, again and again; never returns. To be spawned once, on a runtime of one thread.
pub async fn give_back_when_quiet() {
    loop {
        WORTH_IT.notified().await;
        quiet().await;
        FREED.store(0, Ordering::Relaxed);
        trim();
    }
}

/// Waits until the loop is quiet.
async fn quiet() {
    let loops = Handle::current().metrics();
    let busy = || loops.worker_total_busy_duration(0);
    loop {
        let before = busy();
        sleep(QUIET).await;
        if busy().saturating_sub(before) < QUIET / NEXT_TO_NOTHING {
            return;
        }
    }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Instant;

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    #[tokio::test]
    async fn it_is_not_quiet_while_the_loop_has_work() {
        let work = Rc::new(Cell::new(true));
        let working = Rc::clone(&work);
        let local = LocalSet::new();
        local.spawn_local(async move {
            while working.get() {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(5) {}
                sleep(Duration::from_millis(5)).await;
            }
        });
        let waited = local.run_until(async move {
            let waiting = spawn_local(quiet());
            sleep(5 * QUIET).await;
            assert!(!waiting.is_finished(), "half of the time is work");
            work.set(false);
            yield_now().await;
            waiting.await
        });
        tokio::time::timeout(Duration::from_secs(20), waited)
            .await
            .expect("it is quiet now")
            .expect("no panic");
    }
}
