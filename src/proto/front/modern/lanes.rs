//! The sessions that have lanes to the child, and what each has asked that has no end yet, by the ids that it has given:
//! unlike a client over HTTP, a session ends its request with a notification that names it.

use std::collections::{BTreeMap, HashMap};

use crate::proto::ids::{BridgeId, ClientId, StreamId};

/// A request of a session that has no end yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: BridgeId,
    /// Whether it is a subscription.
    listens: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    table: BTreeMap<StreamId, HashMap<ClientId, Open>>,
    calls: usize,
    listens: usize,
}

impl Lanes {
    pub(super) fn join(&mut self, lane: StreamId) {
        self.table.entry(lane).or_default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn is_one(&self, stream: StreamId) -> bool {
        self.table.contains_key(&stream)
    }

    /// How many calls of all lanes have no end yet.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// How many subscriptions of all lanes have no end yet.
    pub(super) fn listens(&self) -> usize {
        self.listens
    }

    fn count(&mut self, listens: bool) -> &mut usize {
        if listens { &mut self.listens } else { &mut self.calls }
    }

    /// Under which id the child knows this request of a lane.
    pub(super) fn find(&self, lane: StreamId, client: &ClientId) -> Option<BridgeId> {
        self.table.get(&lane)?.get(client).map(|open| open.id)
    }

    /// A request of this lane has begun, if it is one. It has no other with this id.
    pub(super) fn begun(&mut self, lane: StreamId, client: ClientId, id: BridgeId, listens: bool) {
        if let Some(requests) = self.table.get_mut(&lane) {
            requests.insert(client, Open { id, listens });
            *self.count(listens) += 1;
        }
    }

    /// The child knows a request of this lane under another id from now on, if it is one.
    pub(super) fn renamed(&mut self, lane: StreamId, client: &ClientId, id: BridgeId) {
        if let Some(open) = self.table.get_mut(&lane).and_then(|requests| requests.get_mut(client)) {
            open.id = id;
        }
    }

    /// A request of this lane has ended, if it is one.
    pub(super) fn ended(&mut self, lane: StreamId, client: &ClientId) {
        if let Some(open) = self.table.get_mut(&lane).and_then(|requests| requests.remove(client)) {
            *self.count(open.listens) -= 1;
        }
    }

    /// The session has ended: returns the requests of its lane, oldest first. `None`: it is no lane.
    pub(super) fn leave(&mut self, lane: StreamId) -> Option<Vec<BridgeId>> {
        let requests = self.table.remove(&lane)?;
        for open in requests.values() {
            *self.count(open.listens) -= 1;
        }
        let mut ids: Vec<_> = requests.into_values().map(|open| open.id).collect();
        ids.sort_unstable();
        Some(ids)
    }

    /// All requests have ended.
    pub(super) fn end_all(&mut self) {
        self.table.values_mut().for_each(HashMap::clear);
        (self.calls, self.listens) = (0, 0);
    }

    /// That its sums say what its table says. Returns each request with its lane.
    #[cfg(test)]
    pub(super) fn check(&self) -> Vec<(StreamId, ClientId, BridgeId)> {
        let open = || self.table.values().flat_map(HashMap::values);
        assert_eq!(self.listens, open().filter(|open| open.listens).count(), "each subscription is counted");
        assert_eq!(self.calls + self.listens, open().count(), "each call is counted");
        let of = |(lane, requests): (&StreamId, &HashMap<ClientId, Open>)| {
            let of_lane = requests.iter().map(|(client, open)| (*lane, client.clone(), open.id));
            of_lane.collect::<Vec<_>>()
        };
        self.table.iter().flat_map(of).collect()
    }
}
