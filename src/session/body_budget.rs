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
    _units: OwnedSemaphorePermit,
}

/// The memory for bodies that are on their way to one place.
#[derive(Debug)]
pub struct BodyBudget {
    free: Arc<Semaphore>,
    /// The whole budget, in units of [`UNIT`] bytes.
    units: u32,
}

impl BodyBudget {
    /// A budget of 4 MiB, or of one body of the largest size where that is more. `max_body` is in bytes.
    pub fn new(max_body: usize) -> Self {
        let units = u32::try_from(max_body.max(MIN_BUDGET).div_ceil(UNIT)).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits until this many bytes are free; more than the whole budget counts as all of it. `None` once the budget
    /// is closed.
    pub async fn take(&self, bytes: usize) -> Option<BodyPermit> {
        let units = Arc::clone(&self.free).acquire_many_owned(self.units_of(bytes)).await.ok()?;
        Some(BodyPermit { _units: units })
    }

    fn units_of(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).clamp(1, self.units as usize);
        u32::try_from(units).unwrap_or(self.units)
    }

    /// Closes the budget: every waiter gets `None`.
    pub(super) fn close(&self) {
        self.free.close();
    }
}
