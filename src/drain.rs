//! Who stops the program, one signal that tells everyone, and the knowledge of when everyone has stopped.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Says "stop". Purposefully not `Clone`: there is one who stops the program.
#[derive(Debug)]
pub struct Drain(watch::Sender<bool>);

/// Hears "stop", and by being dropped says "I have".
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

/// The signals that end the program, in the order in which they come.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct StopSignal {
    /// Its name.
    pub name: &'static str,
    /// Its number; a shell says 128 more.
    pub number: u8,
    /// Whether calls in flight may finish.
    pub patient: bool,
}

impl Signals {
    /// Listens. To be called before the first child is started: for process 1 the kernel drops what nobody listens to.
    ///
    /// # Errors
    /// What sigaction(2) said.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) -> StopSignal {
        let (name, number, patient) = tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 15, true), // what orchestrators send
            _ = self.interrupt.recv() => ("SIGINT", 2, true),   // Ctrl-C
            _ = self.hangup.recv() => ("SIGHUP", 1, true),      // the terminal has been closed
            _ = self.quit.recv() => ("SIGQUIT", 3, false),      // Ctrl-\: now
        };
        StopSignal { name, number, patient }
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
