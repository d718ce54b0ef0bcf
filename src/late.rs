//! Deadlines that look at what is there first.
//!
//! A process that stood still (SIGSTOP, a frozen cgroup, a starved CPU) finds its timers expired before it has seen what
//! came meanwhile: epoll_wait(2) of a process that was stopped returns EINTR, without events (signal(7)), and the timers
//! are looked at all the same. What came in time must count, so whoever finds a deadline passed lets some turns of the
//! runtime go by first. In each of them it asks the kernel what is ready, and every task that has something to do does it.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

/// So many turns are enough for what lies in a socket to go through accept, HTTP and a session's mailbox.
pub const TURNS: u32 = 16;

/// Lets everything that is ready happen first. It is over after [`TURNS`] turns of the runtime, however much that is.
pub async fn what_is_ready_first() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}

/// The output of a future that is there within this time, or was when the process went on; `None`: it was not.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    tokio::select! {
        biased;
        output = &mut future => Some(output),
        () = async { sleep(limit).await; what_is_ready_first().await } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_some_turns_after_the_deadline_is_in_time_and_what_never_comes_is_not() {
        let told = Arc::new(Notify::new());
        let teller = Arc::clone(&told);
        tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            for _ in 0..TURNS / 2 {
                yield_now().await; // as the request goes from task to task
            }
            teller.notify_one();
        });
        assert!(timeout(Duration::from_secs(1), told.notified()).await.is_some());
        assert!(timeout(Duration::from_secs(1), told.notified()).await.is_none());
    }
}
