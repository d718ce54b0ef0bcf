//! Sessions that share a child of the session era, each over a lane of its own. Each of them speaks as if it had the child
//! for itself; the child sees one client, the bridge, with one handshake.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Front, Origin, Readers, Refusal};
use crate::proto::ids::{ClientId, StreamId};
use crate::proto::incoming::Incoming;
use crate::proto::link::{Limits, Link};
use crate::proto::message::{Message, Request};
use crate::proto::nearly::Broken;
use crate::proto::output::Out;

/// The front of a child that several sessions share.
#[derive(Debug)]
pub struct Shared {
    link: Link<()>,
    lanes: BTreeSet<StreamId>,
}

impl Shared {
    /// Begins with the bridge's own `initialize`.
    pub fn open(limits: Limits, initialize: &Request, now: Duration, out: &mut Out) -> Self {
        Self { link: Link::open(limits, initialize, true, now, out), lanes: BTreeSet::new() }
    }
}

impl Front for Shared {
    fn client(&mut self, _: Message, _: Origin<'_>, _: Duration, _: &mut Out) -> Result<(), Refusal> {
        Ok(())
    }

    fn child(&mut self, _: Incoming<'_>, _: Duration, _: Readers<'_>, _: &mut Out) {}

    fn child_too_long(&mut self, _: &[u8], _: &mut Out) {}

    fn child_broken(&mut self, _: &Broken<'_>, _: &mut Out) -> bool {
        false
    }

    fn awaits(&self, answer: &Incoming<'_>) -> bool {
        self.link.awaits(answer)
    }

    fn expire(&mut self, _: Duration, _: Readers<'_>, _: &mut Out) {}

    fn next_deadline(&self) -> Option<Duration> {
        self.link.next_deadline()
    }

    fn reader_left(&mut self, stream: StreamId, _: bool, _: Duration, _: &mut Out) {
        self.lanes.remove(&stream);
    }

    fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    fn accepting(&self) -> bool {
        self.link.accepting()
    }

    fn held_bytes(&self) -> usize {
        self.link.held_bytes()
    }

    fn join(&mut self, lane: StreamId) {
        self.lanes.insert(lane);
    }

    fn has_lanes(&self) -> bool {
        !self.lanes.is_empty()
    }

    fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        Vec::new()
    }

    #[cfg(test)]
    fn check(&self) {
        self.link.check();
    }
}
