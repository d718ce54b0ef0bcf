//! The log levels of sessions that share a child: it has one, and is told the lowest that any of them has set (2025-11-25
//! `server/utilities/logging`).

use std::collections::BTreeMap;

use crate::proto::ids::{BridgeId, StreamId};
use crate::proto::level::Level;

/// What a session counts as having set that has set nothing, where another one has.
const UNSET: Level = Level::Info;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Those of the lanes that have set one.
    lanes: BTreeMap<StreamId, Set>,
    /// What the child has been told last; `None`: nothing, or it is not known whether it has taken it.
    told: Option<Level>,
}

/// What one lane has set.
#[derive(Debug, Default)]
struct Set {
    /// What the child has taken.
    taken: Option<Level>,
    /// What it has not answered, oldest first.
    asked: Vec<(BridgeId, Level)>,
}

impl Set {
    /// What counts: the newest that has not been refused.
    fn level(&self) -> Option<Level> {
        self.asked.last().map(|(_, level)| *level).or(self.taken)
    }
}

impl Levels {
    /// The lowest of all.
    fn lowest(&self) -> Option<Level> {
        self.lanes.values().filter_map(Set::level).min()
    }

    /// What the child is to be told when this lane sets this.
    pub(super) fn lowest_with(&self, lane: StreamId, level: Level) -> Level {
        let others = self.lanes.iter().filter(|(other, _)| **other != lane);
        others.filter_map(|(_, set)| set.level()).min().map_or(level, |lowest| lowest.min(level))
    }

    /// The child has been told so with the request of this id.
    pub(super) fn asked(&mut self, lane: StreamId, id: BridgeId, level: Level) {
        self.lanes.entry(lane).or_default().asked.push((id, level));
        self.told = self.lowest();
    }

    /// The request of this id has ended; `taken`: with a result.
    pub(super) fn ended(&mut self, lane: StreamId, id: BridgeId, taken: bool) {
        let Some(set) = self.lanes.get_mut(&lane) else { return };
        let Some(place) = set.asked.iter().position(|(asked, _)| *asked == id) else { return };
        if taken {
            set.taken = set.asked.drain(..=place).next_back().map(|(_, level)| level); // what is older is over
        } else {
            set.asked.remove(place);
        }
        if set.level().is_none() {
            self.lanes.remove(&lane);
        }
    }

    /// The session of this lane has ended.
    pub(super) fn left(&mut self, lane: StreamId) {
        self.lanes.remove(&lane);
    }

    /// What the child is to be told in the bridge's own name, if it is not what it has been told.
    pub(super) fn correction(&mut self) -> Option<Level> {
        let lowest = self.lowest().filter(|lowest| self.told != Some(*lowest))?;
        self.told = Some(lowest);
        Some(lowest)
    }

    /// The child may not know what it was told in the bridge's own name. It is told again when something changes.
    pub(super) fn correction_failed(&mut self) {
        self.told = None;
    }

    /// Whether a line of this level is for this lane.
    pub(super) fn allows(&self, lane: StreamId, level: Option<Level>) -> bool {
        let wanted = match self.lanes.get(&lane).and_then(Set::level) {
            None if self.lanes.is_empty() => return true,
            set => set.unwrap_or(UNSET),
        };
        level.is_none_or(|level| wanted <= level)
    }

    /// A request has a new id.
    pub(super) fn renamed(&mut self, lane: StreamId, old: BridgeId, new: BridgeId) {
        let asked = self.lanes.get_mut(&lane).into_iter().flat_map(|set| &mut set.asked);
        asked.filter(|(id, _)| *id == old).for_each(|(id, _)| *id = new);
    }

    /// That each lane here has set something; the requests that have no answer.
    #[cfg(test)]
    pub(super) fn check(&self) -> impl Iterator<Item = (StreamId, BridgeId)> {
        assert!(self.lanes.values().all(|set| set.level().is_some()));
        self.lanes.iter().flat_map(|(lane, set)| set.asked.iter().map(|(id, _)| (*lane, *id)))
    }

    #[cfg(test)]
    pub(super) fn lanes(&self) -> impl Iterator<Item = StreamId> {
        self.lanes.keys().copied()
    }
}
