//! Freed memory goes back to the system, in a moment when nothing has to wait for that.
//!
//! glibc keeps what was freed between things that are still in use; a sidecar that once passed on a large answer would
//! hold that memory for good (malloc_trim(3)). malloc_trim locks the heap while it looks through all of it: for about a
//! millisecond per 10 MB, for 70 ms where 500 MB are free in holes of 20 KB. The loop stands still meanwhile, and would
//! if another thread did it, because its next allocation needs the lock. So it is done when the loop has nothing to do
//! or, if that never happens, little. While it has much to do, what was freed is soon used again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::sleep;

/// How much must have been freed to be worth it, in bytes.
const WORTH: usize = 4 * 1024 * 1024;

/// The loop is quiet when it had nothing to do for this time.
const QUIET: Duration = Duration::from_millis(100);

/// After this many intervals that were not quiet, an interval with little to do is enough.
const PATIENCE: u32 = 100;

/// The loop has little to do when it is busy for less than one part in this many of the time.
const LITTLE: u32 = 50;

/// How often the loop parks for the one timer that measures [`QUIET`].
const OWN_PARKS: u64 = 2;

/// Bytes that were freed since memory went back last.
static FREED: AtomicUsize = AtomicUsize::new(0);

/// Wakes [`give_back_when_quiet`] when [`WORTH`] has been freed.
static WORTH_IT: Notify = Notify::const_new();

/// Notes that so many bytes have been freed, or will be in a moment. Costs two atomic operations at most.
pub fn note_freed(bytes: usize) {
    let before = FREED.fetch_add(bytes, Ordering::Relaxed);
    if before < WORTH && before.saturating_add(bytes) >= WORTH {
        WORTH_IT.notify_one();
    }
}

/// The shortest bytes that are [`noted`], in bytes.
const LARGE: usize = 64 * 1024;

/// The same bytes. If they are many it is noted when they are freed, which may be long from now: whoever reads them takes
/// its time.
pub fn noted(bytes: Bytes) -> Bytes {
    if bytes.len() < LARGE { bytes } else { Bytes::from_owner(Noted(bytes)) }
}

struct Noted(Bytes);

impl AsRef<[u8]> for Noted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        note_freed(self.0.len());
    }
}

/// Gives freed memory back, again and again; never returns. To be spawned once, on a runtime of one thread.
pub async fn give_back_when_quiet() {
    loop {
        WORTH_IT.notified().await;
        quiet(PATIENCE).await;
        FREED.store(0, Ordering::Relaxed);
        trim();
    }
}

/// Waits until the loop is quiet, or quiet enough after so many rounds.
async fn quiet(patience: u32) {
    let metrics = Handle::current().metrics();
    for round in 0_u32.. {
        let (parks, busy) = (metrics.worker_park_count(0), metrics.worker_total_busy_duration(0));
        sleep(QUIET).await;
        let parks = metrics.worker_park_count(0).saturating_sub(parks);
        let busy = metrics.worker_total_busy_duration(0).saturating_sub(busy);
        if parks <= OWN_PARKS || (round >= patience && busy < QUIET / LITTLE) {
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

/// From this size on a buffer has pages of its own, which go back when it is freed; in bytes. Below it pages are used
/// again, which is what messages of a megabyte want.
const OWN_PAGES: i32 = 2 * 1024 * 1024;

/// How much may be free at the end of the heap before it goes back at once, in bytes.
const SPARE: i32 = 8 * 1024 * 1024;

/// Keeps large buffers out of the heap. To be called first.
///
/// glibc raises the size from which on a buffer has pages of its own when one is freed, up to 32 MiB (mallopt(3)): then
/// bodies that come at the same time, each into a buffer of its full length, use other parts of the heap each time, and all of
/// those count for the container although little is in use at any time.
pub fn keep_large_buffers_apart() {
    set(OWN_PAGES, SPARE);
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn set(own_pages: i32, spare: i32) {
    // SAFETY: mallopt has no preconditions but that no other thread allocates meanwhile (attributes(7): MT-Unsafe init),
    // and there is none yet. Where it fails all stays as it was.
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, own_pages);
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, spare);
    }
}

#[cfg(not(target_env = "gnu"))]
fn set(_: i32, _: i32) {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Instant;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// Does so much work every 10 ms while it waits with this patience. Asserts that work without end is or is not
    /// waited for, and that the end of it is noticed.
    async fn assert_waits(work: Duration, patience: u32, without_end: bool) {
        let working = Rc::new(Cell::new(true));
        let goes_on = Rc::clone(&working);
        let local = LocalSet::new();
        local.spawn_local(async move {
            while goes_on.get() {
                let begin = Instant::now();
                while begin.elapsed() < work {}
                sleep(Duration::from_millis(10)).await;
            }
        });
        let waited = local.run_until(async move {
            let waiting = spawn_local(quiet(patience));
            if without_end {
                sleep(10 * QUIET).await;
                assert!(!waiting.is_finished(), "the loop is not quiet");
                working.set(false);
            }
            waiting.await
        });
        tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it is quiet").expect("no panic");
    }

    #[tokio::test]
    async fn a_loop_that_works_is_not_quiet() {
        assert_waits(Duration::from_millis(5), 0, true).await;
    }

    #[tokio::test]
    async fn a_loop_that_has_little_to_do_is_not_quiet_at_first() {
        assert_waits(Duration::ZERO, u32::MAX, true).await;
    }

    #[tokio::test]
    async fn a_loop_that_always_has_little_to_do_is_quiet_enough_after_a_while() {
        assert_waits(Duration::ZERO, 3, false).await;
    }
}
