//! A client of the session era with a session of its own over a child of 2026-07-28.

use std::time::Duration;

use super::front::Origin;
use super::front::single::Single;
use super::link::Limits;
use super::message::Request;
use super::output::Out;

/// The front of such a session.
#[derive(Debug)]
pub struct Downgrade(Single);

impl Downgrade {
    /// Begins the session with the client's `initialize`, for which the child is asked `server/discover`.
    pub fn open(
        limits: Limits,
        initialize: &Request,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Self {
        Self(Single::open(limits, initialize, from, now, out))
    }

    /// Stands in for it.
    pub fn into_front(self) -> Single {
        self.0
    }
}
