//! How much memory the bodies of requests may take until a session has taken them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a budget holds at least, in bytes. It always holds one body of the largest size.
const MIN_BUDGET: usize = 4 * 1024 * 1024;

/// Bodies are counted in units of this many bytes.
const UNIT: usize = 1024;

/// The right to hold one request body. Dropping it gives the bytes back to the budget.
#[derive(Debug)]
pub struct BodyPermit {
    units: OwnedSemaphorePermit,
    /// Whether the body may grow to the largest size without further units.
    reserve: Option<OwnedSemaphorePermit>,
}

impl BodyPermit {
    /// How many bytes are missing until it covers so many.
    fn missing(&self, bytes: usize) -> usize {
        match &self.reserve {
            Some(_) => 0,
            None => bytes.saturating_sub(self.units.num_permits() * UNIT),
        }
    }
}

/// The memory for bodies that are on their way to one place.
///
/// A body of known length gets all that it needs at once, or waits with nothing. One of unknown length grows while it
/// holds a part, and two of those could wait for each other's parts for ever. So there is one reserve beside the budget,
/// large enough for any body: of those that cannot grow one gets it, needs no more units, and gives back all when it has
/// come to its end.
#[derive(Debug)]
pub struct BodyBudget {
    free: Arc<Semaphore>,
    /// The whole budget, in units of [`UNIT`] bytes.
    units: u32,
    reserve: Arc<Semaphore>,
}

impl BodyBudget {
    /// A budget of 4 MiB, or of one body of the largest size where that is more. `max_body` is in bytes.
    pub fn new(max_body: usize) -> Self {
        let units = u32::try_from(max_body.max(MIN_BUDGET).div_ceil(UNIT)).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(units as usize)), units, reserve: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until this many bytes are free; more than the whole budget counts as all of it. `None` once the budget
    /// is closed.
    pub async fn take(&self, bytes: usize) -> Option<BodyPermit> {
        let units = Arc::clone(&self.free).acquire_many_owned(self.units_of(bytes)).await.ok()?;
        Some(BodyPermit { units, reserve: None })
    }

    /// Waits until the body of this permit may be so many bytes long. `None` once the budget is closed.
    pub async fn grow(&self, permit: &mut BodyPermit, bytes: usize) -> Option<()> {
        let missing = permit.missing(bytes);
        if missing == 0 {
            return Some(());
        }
        tokio::select! {
            biased;
            units = Arc::clone(&self.free).acquire_many_owned(self.units_of(missing)) => {
                permit.units.merge(units.ok()?);
            }
            reserve = Arc::clone(&self.reserve).acquire_owned() => permit.reserve = Some(reserve.ok()?),
        }
        Some(())
    }

    fn units_of(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).clamp(1, self.units as usize);
        u32::try_from(units).unwrap_or(self.units)
    }

    /// Closes the budget: every waiter gets `None`.
    pub(super) fn close(&self) {
        self.free.close();
        self.reserve.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const MIB: usize = 1024 * 1024;

    async fn soon<F: Future>(waiting: F) -> Option<F::Output> {
        timeout(Duration::from_millis(1), waiting).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_known_length_waits_with_nothing() {
        let budget = BodyBudget::new(4 * MIB);
        let most = budget.take(3 * MIB).await.unwrap();
        assert!(soon(budget.take(2 * MIB)).await.is_none(), "1 MiB is left");
        let rest = soon(budget.take(MIB)).await;
        assert!(rest.is_some(), "the waiter that gave up holds nothing");
        drop(most);
        assert!(soon(budget.take(3 * MIB)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_grow_together_beyond_the_budget_end_one_after_the_other() {
        let budget = Arc::new(BodyBudget::new(4 * MIB));
        let growing: Vec<_> = (0..8)
            .map(|_| {
                let budget = Arc::clone(&budget);
                tokio::spawn(async move {
                    let mut permit = budget.take(64 * 1024).await.unwrap();
                    for length in (0..=4 * MIB).step_by(64 * 1024) {
                        budget.grow(&mut permit, length).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for body in growing {
            timeout(Duration::from_secs(60), body).await.expect("none waits for ever").unwrap();
        }
        assert!(soon(budget.take(4 * MIB)).await.is_some(), "all is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_that_grows_holds_only_what_it_has() {
        let budget = BodyBudget::new(4 * MIB);
        let mut slow = budget.take(64 * 1024).await.unwrap();
        budget.grow(&mut slow, MIB).await.unwrap();
        assert!(soon(budget.take(3 * MIB)).await.is_some(), "the rest is for others");
    }

    #[tokio::test(start_paused = true)]
    async fn every_waiter_learns_that_the_budget_is_closed() {
        let budget = BodyBudget::new(4 * MIB);
        let mut all = budget.take(3 * MIB).await.unwrap();
        budget.grow(&mut all, 4 * MIB).await.unwrap();
        let mut one =
            BodyPermit { units: Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(), reserve: None };
        let _reserve = budget.reserve.acquire().await.unwrap();
        let (taken, grown, ()) =
            tokio::join!(budget.take(1), budget.grow(&mut one, MIB), async { budget.close() });
        assert!(taken.is_none() && grown.is_none());
    }
}
