//! Who of the sessions that share a child has subscribed to which resource (2025-11-25 `server/resources`,
//! "Subscriptions"). The child knows one subscription to each, and ends it for all.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::ids::{BridgeId, StreamId};
use crate::proto::subscription::{MAX_URI_BYTES, MAX_URIS, covers};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Holders {
    resources: BTreeMap<Box<str>, Resource>,
    /// Bytes of the URIs.
    bytes: usize,
    /// How many there are, a URI of several lanes counted as often.
    held: usize,
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
        match self.resources.get(uri) {
            Some(resource) if resource.lanes.contains_key(&lane) => true,
            Some(_) => self.held < MAX_URIS,
            None => self.held < MAX_URIS && self.bytes + uri.len() <= MAX_URI_BYTES,
        }
    }

    /// A lane wants what the child has confirmed to another one, and so has it. Returns whether that is so.
    #[must_use]
    pub(super) fn join(&mut self, lane: StreamId, uri: &str) -> bool {
        let Some(resource) = self.resources.get_mut(uri) else { return false };
        let is_confirmed = resource.lanes.iter().any(|(other, hold)| *other != lane && hold.is_confirmed);
        if is_confirmed {
            self.held += usize::from(!resource.lanes.contains_key(&lane));
            resource.lanes.entry(lane).or_default().is_confirmed = true;
        }
        is_confirmed
    }

    /// The child has been asked for it with the request of this id.
    pub(super) fn asked(&mut self, lane: StreamId, uri: &str, id: BridgeId) {
        if !self.resources.contains_key(uri) {
            self.bytes += uri.len();
            self.resources.insert(uri.into(), Resource::default());
        }
        let Some(resource) = self.resources.get_mut(uri) else { return };
        self.held += usize::from(!resource.lanes.contains_key(&lane));
        resource.lanes.entry(lane).or_default().asked.push(id);
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
        self.held -= usize::from(resource.lanes.remove(&lane).is_some());
        let is_free = resource.lanes.is_empty();
        if is_free {
            self.resources.remove(uri);
            self.bytes -= uri.len();
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
        assert_eq!(self.bytes, self.resources.keys().map(|uri| uri.len()).sum::<usize>());
        assert_eq!(self.held, self.resources.values().map(|resource| resource.lanes.len()).sum::<usize>());
        assert!(self.held <= MAX_URIS && self.bytes <= MAX_URI_BYTES);
        assert!(self.resources.values().all(|resource| !resource.lanes.is_empty()));
        let holds = self.resources.values().flat_map(|resource| &resource.lanes);
        holds.map(|(lane, hold)| {
            assert!(hold.is_confirmed || !hold.asked.is_empty(), "a hold has a reason");
            (*lane, &hold.asked[..])
        })
    }
}
