//! Who stops the program and what else it is told by signals; one signal that tells everyone to stop, and the knowledge
//! of when everyone has.

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

/// The signals that the program listens to, in the order in which they come.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
    user1: Signal,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// SIGTERM: what orchestrators send.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGHUP: the terminal has been closed; or, to a program that reads a file, "read it again".
    Hangup,
    /// SIGQUIT, Ctrl-\: now.
    Quit,
    /// SIGUSR1: how are you?
    User1,
}

impl Heard {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Hangup => "SIGHUP",
            Self::Quit => "SIGQUIT",
            Self::User1 => "SIGUSR1",
        }
    }

    /// The exit code that shells give a program which it ended.
    pub fn exit_code(self) -> u8 {
        let number = match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::User1 => 10,
            Self::Terminate => 15,
        };
        128 + number
    }
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
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Terminate,
            _ = self.interrupt.recv() => Heard::Interrupt,
            _ = self.hangup.recv() => Heard::Hangup,
            _ = self.quit.recv() => Heard::Quit,
            _ = self.user1.recv() => Heard::User1,
        }
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
