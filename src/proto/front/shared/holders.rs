//! Who of the sessions that share a child has subscribed to which resource (2025-11-25 `server/resources`,
//! "Subscriptions"). The child knows one subscription to each, and ends it for all.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::ids::{BridgeId, StreamId};
use crate::proto::subscription::{MAX_URI_BYTES, MAX_URIS, covers};

/// How much all lanes together may hold, as a multiple of what one may. A lane may hold no more than is left then: one that
/// takes all that it can leaves room for the next.
const ALL: usize = 4;

/// So many subscriptions, and bytes of their URIs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    count: usize,
    bytes: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Holders {
    resources: BTreeMap<Box<str>, Resource>,
    /// What each lane holds.
    lanes: BTreeMap<StreamId, Size>,
    /// What all hold, a URI of several lanes counted as often.
    held: Size,
}

/// A resource that at least one lane holds.
#[derive(Debug, Default)]
struct Resource {
    lanes: BTreeMap<StreamId, Hold>,
    /// Whether the child may have a subscription to it.
    is_subscribed: bool,
}

/// The subscription of one lane.
#[derive(Debug, Default)]
struct Hold {
    is_confirmed: bool,
    /// The requests for it that the child has not answered.
    asked: Vec<BridgeId>,
}

/// How a request for a subscription has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    Refused,
    /// The child may have taken it.
    Unanswered,
}

impl Holders {
    /// Whether this lane may hold this too.
    pub(super) fn has_room(&self, lane: StreamId, uri: &str) -> bool {
        if self.resources.get(uri).is_some_and(|resource| resource.lanes.contains_key(&lane)) {
            return true;
        }
        let (Size { count, bytes }, held) = (self.lanes.get(&lane).copied().unwrap_or_default(), self.held);
        let (left, left_bytes) = (ALL * MAX_URIS - held.count, ALL * MAX_URI_BYTES - held.bytes);
        count < MAX_URIS.min(left) && bytes + uri.len() <= MAX_URI_BYTES.min(left_bytes)
    }

    /// A lane wants what the child has confirmed to another one, and so has it. Returns whether that is so.
    #[must_use]
    pub(super) fn join(&mut self, lane: StreamId, uri: &str) -> bool {
        let Some(resource) = self.resources.get(uri) else { return false };
        let is_confirmed = resource.lanes.iter().any(|(other, hold)| *other != lane && hold.is_confirmed);
        if is_confirmed && let Some(hold) = self.hold(lane, uri) {
            hold.is_confirmed = true;
        }
        is_confirmed
    }

    /// The child has been asked for it with the request of this id.
    pub(super) fn asked(&mut self, lane: StreamId, uri: &str, id: BridgeId) {
        if let Some(hold) = self.hold(lane, uri) {
            hold.asked.push(id);
        }
    }

    /// The hold of this lane, which it gets if it has none. It must be given a reason.
    fn hold(&mut self, lane: StreamId, uri: &str) -> Option<&mut Hold> {
        if !self.resources.contains_key(uri) {
            self.resources.insert(uri.into(), Resource::default());
        }
        let resource = self.resources.get_mut(uri)?;
        if !resource.lanes.contains_key(&lane) {
            for size in [self.lanes.entry(lane).or_default(), &mut self.held] {
                *size = Size { count: size.count + 1, bytes: size.bytes + uri.len() };
            }
        }
        Some(resource.lanes.entry(lane).or_default())
    }

    /// The request of this id has ended. Returns whether the child is to be told that nobody wants it.
    #[must_use]
    pub(super) fn ended(&mut self, lane: StreamId, uri: &str, id: BridgeId, outcome: Outcome) -> bool {
        let Some(resource) = self.resources.get_mut(uri) else { return false };
        resource.is_subscribed |= outcome != Outcome::Refused;
        let Some(hold) = resource.lanes.get_mut(&lane) else { return false };
        let Some(place) = hold.asked.iter().position(|asked| *asked == id) else { return false };
        hold.asked.remove(place);
        hold.is_confirmed |= outcome == Outcome::Taken;
        if hold.is_confirmed || !hold.asked.is_empty() {
            return false;
        }
        let was_subscribed = resource.is_subscribed;
        self.remove(lane, uri) && was_subscribed
    }

    /// A lane wants it no more. Returns whether nobody does.
    pub(super) fn unsubscribe(&mut self, lane: StreamId, uri: &str) -> bool {
        self.remove(lane, uri)
    }

    /// The session of this lane has ended. Returns what nobody wants any more.
    pub(super) fn left(&mut self, lane: StreamId) -> Vec<Box<str>> {
        let held = self.resources.iter().filter(|(_, resource)| resource.lanes.contains_key(&lane));
        let mut unwanted: Vec<_> = held.map(|(uri, _)| uri.clone()).collect();
        unwanted.retain(|uri| self.remove(lane, uri));
        unwanted
    }

    /// Takes a lane's hold away, if it has one. Returns whether there is none on this resource then.
    fn remove(&mut self, lane: StreamId, uri: &str) -> bool {
        let Some(resource) = self.resources.get_mut(uri) else { return true };
        if resource.lanes.remove(&lane).is_some()
            && let Some(size) = self.lanes.get_mut(&lane)
        {
            for size in [&mut *size, &mut self.held] {
                *size = Size { count: size.count - 1, bytes: size.bytes - uri.len() };
            }
            if size.count == 0 {
                self.lanes.remove(&lane);
            }
        }
        let is_free = resource.lanes.is_empty();
        if is_free {
            self.resources.remove(uri);
        }
        is_free
    }

    /// The lanes that hear of a change of this resource.
    pub(super) fn of(&self, uri: &str) -> BTreeSet<StreamId> {
        let resources = self.resources.iter().filter(|(wanted, _)| covers(wanted, uri));
        resources.flat_map(|(_, resource)| resource.lanes.keys().copied()).collect()
    }

    /// A request has a new id.
    pub(super) fn renamed(&mut self, lane: StreamId, uri: &str, old: BridgeId, new: BridgeId) {
        let hold = self.resources.get_mut(uri).and_then(|resource| resource.lanes.get_mut(&lane));
        let asked = hold.into_iter().flat_map(|hold| &mut hold.asked);
        asked.filter(|id| **id == old).for_each(|id| *id = new);
    }

    /// That every sum says what the table says; each hold's lane, and the requests for it that have no answer.
    #[cfg(test)]
    pub(super) fn check(&self) -> impl Iterator<Item = (StreamId, &[BridgeId])> {
        let (mut lanes, mut held) = (BTreeMap::<_, Size>::new(), Size::default());
        for (uri, resource) in &self.resources {
            for lane in resource.lanes.keys() {
                for size in [lanes.entry(*lane).or_default(), &mut held] {
                    *size = Size { count: size.count + 1, bytes: size.bytes + uri.len() };
                }
            }
        }
        assert_eq!((&self.lanes, self.held), (&lanes, held));
        assert!(lanes.values().all(|size| size.count <= MAX_URIS && size.bytes <= MAX_URI_BYTES));
        assert!(held.count <= ALL * MAX_URIS && held.bytes <= ALL * MAX_URI_BYTES);
        assert!(self.resources.values().all(|resource| !resource.lanes.is_empty()));
        let holds = self.resources.values().flat_map(|resource| &resource.lanes);
        holds.map(|(lane, hold)| {
            assert!(hold.is_confirmed || !hold.asked.is_empty(), "a hold has a reason");
            (*lane, &hold.asked[..])
        })
    }
}
