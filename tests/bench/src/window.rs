//! When callers are measured: they work all the time, and count only while the window is open.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::programs::cpu_time;

/// How long all callers may take to finish what they have begun.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a cell is measured in one round: all columns take turns, again and again.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// How many turns each column has that count, after one that does not.
    pub(crate) turns: usize,
    /// In each turn, how long the callers work before they are measured, and how long they are measured.
    pub(crate) run_up: Duration,
    pub(crate) window: Duration,
}

/// The window, as the callers see it.
#[derive(Clone)]
pub(crate) struct Window(Arc<AtomicU8>);

const RUN_UP: u8 = 0;
const OPEN: u8 = 1;
const OVER: u8 = 2;

impl Window {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(RUN_UP)))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OVER
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OPEN
    }
}

/// How long each of the calls took that ended while the window was open, in nanoseconds.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration, window: &Window) {
        if window.is_open() {
            self.0.push(latency.as_nanos().try_into().unwrap_or(u32::MAX));
        }
    }
}

/// Something that sends calls and checks the answers.
pub(crate) trait Caller: Send + Sized + 'static {
    /// Calls until the window is over.
    fn work(&mut self, window: &Window) -> impl Future<Output = Outcome<Latencies>> + Send;
}

/// What the turns of one column have shown so far.
#[derive(Default)]
pub(crate) struct Tally {
    latencies: Vec<u32>,
    elapsed: Duration,
    cpu: Duration,
    own_cpu: Duration,
}

/// All times are in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Speed {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processor time of the measured processes for each call; no number where none was measured.
    pub(crate) cpu: f64,
    /// That of this process.
    pub(crate) own_cpu: f64,
}

impl Tally {
    /// One turn: lets callers work, and measures them and the processes that they work with.
    pub(crate) async fn turn<C: Caller>(
        &mut self,
        callers: &mut Vec<C>,
        processes: &[u32],
        pace: Pace,
    ) -> Outcome<()> {
        let window = Window::new();
        let mut tasks = JoinSet::new();
        for mut caller in callers.drain(..) {
            let window = window.clone();
            tasks.spawn(async move { Outcome::Ok((caller.work(&window).await?, caller)) });
        }
        let own = [process::id()];
        let span = async {
            sleep(pace.run_up).await;
            let (cpu, own_cpu, begin) = (cpu_time(processes)?, cpu_time(&own)?, Instant::now());
            window.0.store(OPEN, Ordering::Relaxed);
            sleep(pace.window).await;
            window.0.store(OVER, Ordering::Relaxed);
            self.elapsed += begin.elapsed();
            self.cpu += cpu_time(processes)? - cpu;
            self.own_cpu += cpu_time(&own)? - own_cpu;
            Outcome::Ok(())
        };
        let work = async {
            while let Some(task) = tasks.join_next().await {
                let (latencies, caller) = task??;
                self.latencies.extend(latencies.0);
                callers.push(caller);
            }
            Outcome::Ok(())
        };
        let both = async { tokio::try_join!(span, work) };
        let limit = pace.run_up + pace.window + PATIENCE;
        timeout(limit, both).await.map_err(|_| "an answer did not come")??;
        Ok(())
    }

    pub(crate) fn speed(mut self) -> Outcome<Speed> {
        self.latencies.sort_unstable();
        let quantile = |of_hundred: usize| {
            let at = self.latencies.len() * of_hundred / 100;
            self.latencies.get(at).map(|&nanoseconds| f64::from(nanoseconds) / 1e3)
        };
        let (Some(p50), Some(p99)) = (quantile(50), quantile(99)) else {
            return Err("no call ended in time".into());
        };
        let calls = self.latencies.len() as f64;
        let of_call = |time: Duration| time.as_secs_f64() * 1e6 / calls;
        Ok(Speed {
            per_second: calls / self.elapsed.as_secs_f64(),
            p50,
            p99,
            cpu: if self.cpu.is_zero() { f64::NAN } else { of_call(self.cpu) },
            own_cpu: of_call(self.own_cpu),
        })
    }
}
