//! One signal that tells all tasks to stop, and the knowledge of when all have.

use tokio::sync::watch;

/// Sends "stop". Not `Clone`: one task stops the program.
#[derive(Debug)]
pub struct Drain(watch::Sender<bool>);

/// Receives "stop"; dropped by its task when that has stopped.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<bool>);

/// A signal and its first watch.
pub fn channel() -> (Drain, Watch) {
    let (sender, receiver) = watch::channel(false);
    (Drain(sender), Watch(receiver))
}

impl Drain {
    /// Tells every [`Watch`] to stop and waits until all of them are dropped. It waits without limit: the deadline
    /// belongs to the caller.
    pub async fn drain(self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Watch {
    /// Waits for the signal. It stays given: a late watcher returns at once.
    pub async fn signaled(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await; // a dropped Drain means stop too
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_the_last_watch() {
        let (drain, mut watch) = channel();
        let other = watch.clone();
        let worker = tokio::spawn(async move {
            watch.signaled().await;
            drop(watch);
        });
        let mut drained = tokio::spawn(drain.drain());
        worker.await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(10), &mut drained).await;
        assert!(early.is_err(), "one watch is left");
        drop(other);
        drained.await.unwrap();
    }

    #[tokio::test]
    async fn a_watch_made_late_hears_the_signal() {
        let (drain, watch) = channel();
        let keep = watch.clone();
        let drained = tokio::spawn(drain.drain());
        tokio::task::yield_now().await;
        keep.clone().signaled().await;
        drop((keep, watch));
        drained.await.unwrap();
    }
}
