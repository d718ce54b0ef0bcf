//! The requests of clients that have no answer yet, found by any of their names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::memory::Effect;
use super::ready::Again;
use crate::proto::ids::{BridgeId, ClientId, ProgressToken, StreamId};
use crate::proto::message::Message;

/// The id of `initialize`. It is the first message of every child.
pub(super) const HANDSHAKE: BridgeId = BridgeId(1);

/// Bytes of requests that are kept to be sent again; one beyond it is sent once.
const MAX_KEPT: usize = 8 * 1024 * 1024;

/// A request of a client.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) client: ClientId,
    /// The stream of the POST that asked.
    pub(super) stream: StreamId,
    /// Whether its stream may carry more than the answer.
    pub(super) streams: bool,
    pub(super) token: Option<ProgressToken>,
    /// When the child must have answered.
    pub(super) deadline: Duration,
    /// When a cancelled call ends at the latest.
    pub(super) cancelled: Option<Duration>,
    /// Whether the child has seen it.
    pub(super) written: bool,
    /// What its success changes in the child that a successor must be told again.
    pub(super) effect: Option<Effect>,
    /// How it is sent again, should the child refuse it as not ready.
    pub(super) again: Option<Box<Again>>,
}

/// All of them. Ids are given in ascending order and deadlines are equally far, so the first is the next to expire;
/// only the handshake has a limit of its own, and what is sent again has a new id and its old deadline.
#[derive(Debug)]
pub(super) struct Calls {
    last: BridgeId,
    table: BTreeMap<BridgeId, Call>,
    /// Of several with one id, which only clients of a shared session have, the newest.
    by_client: HashMap<ClientId, BridgeId>,
    /// Whether there have been several with one id.
    doubled: bool,
    by_token: HashMap<ProgressToken, BridgeId>,
    cancelled: BTreeSet<(Duration, BridgeId)>,
    /// Those that are sent again, by their deadlines: earlier than their ids say.
    renumbered: BTreeSet<(Duration, BridgeId)>,
    /// Those of them that are not with the child now, by when they will be.
    waiting: BTreeSet<(Duration, BridgeId)>,
    /// Bytes of the messages in [`Call::again`].
    kept: usize,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            last: BridgeId(HANDSHAKE.0 - 1),
            table: BTreeMap::new(),
            by_client: HashMap::new(),
            doubled: false,
            by_token: HashMap::new(),
            cancelled: BTreeSet::new(),
            renumbered: BTreeSet::new(),
            waiting: BTreeSet::new(),
            kept: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The id that the next call will get.
    pub(super) fn next_id(&self) -> BridgeId {
        BridgeId(self.last.0 + 1)
    }

    /// Gives out an id for a request of the bridge itself.
    pub(super) fn reserve(&mut self) -> BridgeId {
        self.last = self.next_id();
        self.last
    }

    /// Takes a call in. Of two with the same progress token the newer one gets the progress.
    pub(super) fn insert(&mut self, call: Call) -> BridgeId {
        let id = self.reserve();
        if let Some(token) = call.token.clone() {
            self.by_token.insert(token, id);
        }
        self.doubled |= self.by_client.insert(call.client.clone(), id).is_some();
        self.table.insert(id, call);
        id
    }

    /// Takes a call out: it has ended.
    pub(super) fn remove(&mut self, id: BridgeId) -> Option<Call> {
        let call = self.table.remove(&id)?;
        if self.by_client.get(&call.client) == Some(&id) {
            self.by_client.remove(&call.client);
            let older = |(_, other): &(&BridgeId, &Call)| other.client == call.client;
            if self.doubled
                && let Some((older, _)) = self.table.iter().rev().find(older)
            {
                self.by_client.insert(call.client.clone(), *older);
            }
        }
        if let Some(token) = &call.token
            && self.by_token.get(token) == Some(&id)
        {
            self.by_token.remove(token);
        }
        if let Some(deadline) = call.cancelled {
            self.cancelled.remove(&(deadline, id));
        }
        self.renumbered.remove(&(call.deadline, id));
        if let Some(again) = &call.again {
            self.kept -= again.message.text().len();
            if let Some(due) = again.due {
                self.waiting.remove(&(due, id));
            }
        }
        Some(call)
    }

    /// Takes out those that the child has seen, oldest first.
    pub(super) fn drain_written(&mut self) -> Vec<Call> {
        let written = self.table.iter().filter(|(_, call)| call.written).map(|(id, _)| *id);
        let written: Vec<_> = written.collect();
        written.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Takes all out, oldest first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Call> + use<> {
        self.by_client.clear();
        self.by_token.clear();
        self.cancelled.clear();
        self.renumbered.clear();
        self.waiting.clear();
        self.kept = 0;
        std::mem::take(&mut self.table).into_values()
    }

    pub(super) fn get(&self, id: BridgeId) -> Option<&Call> {
        self.table.get(&id)
    }

    pub(super) fn find(&self, client: &ClientId) -> Option<(BridgeId, &Call)> {
        let id = *self.by_client.get(client)?;
        Some((id, self.table.get(&id)?))
    }

    /// How many calls bear this id of a client: clients that share a session do not know of each other's.
    pub(super) fn count(&self, client: &ClientId) -> usize {
        self.table.values().filter(|call| call.client == *client).count()
    }

    pub(super) fn with_token(&self, token: &ProgressToken) -> Option<&Call> {
        self.table.get(self.by_token.get(token)?)
    }

    /// Whether the child has the call and has not answered.
    pub(super) fn is_with_child(&self, id: BridgeId) -> bool {
        self.get(id).is_some_and(|call| call.written)
    }

    /// Whether this was the id of a call that has ended.
    pub(super) fn has_ended(&self, id: BridgeId) -> bool {
        (HANDSHAKE..=self.last).contains(&id) && !self.table.contains_key(&id)
    }

    /// How many calls the child has and has not answered: none, this one, or several.
    pub(super) fn with_child(&self) -> WithChild {
        let mut written = self.table.iter().filter(|(_, call)| call.written);
        match (written.next(), written.next()) {
            (None, _) => WithChild::None,
            (Some((id, _)), None) => WithChild::One(*id),
            (Some(_), Some(_)) => WithChild::Several,
        }
    }

    /// The newest that fits.
    pub(super) fn newest(&self, fits: impl Fn(&Call) -> bool) -> Option<&Call> {
        self.table.values().rev().find(|call| fits(call))
    }

    /// `initialize`, until it is answered.
    pub(super) fn handshake(&self) -> Option<&Call> {
        self.get(HANDSHAKE)
    }

    /// The oldest but the handshake: of all others, its deadline is the first.
    pub(super) fn oldest(&self) -> Option<(BridgeId, &Call)> {
        let first = self.table.iter().find(|(id, _)| **id != HANDSHAKE).map(|(id, call)| (*id, call));
        let renumbered = self.renumbered.first().and_then(|(_, id)| Some((*id, self.get(*id)?)));
        first.into_iter().chain(renumbered).min_by_key(|(_, call)| call.deadline)
    }

    /// The cancelled call that ends first, and when.
    pub(super) fn next_cancelled(&self) -> Option<(Duration, BridgeId)> {
        self.cancelled.first().copied()
    }

    pub(super) fn set_written(&mut self, id: BridgeId) {
        if let Some(call) = self.table.get_mut(&id) {
            call.written = true;
        }
    }

    pub(super) fn set_cancelled(&mut self, id: BridgeId, deadline: Duration) {
        if let Some(call) = self.table.get_mut(&id) {
            call.cancelled = Some(deadline);
            self.cancelled.insert((deadline, id));
        }
    }

    /// Keeps a call's message, so that it can be sent again.
    pub(super) fn keep(&mut self, id: BridgeId, message: &Message) {
        let length = message.text().len();
        if let Some(call) = self.table.get_mut(&id)
            && call.again.is_none()
            && self.kept + length <= MAX_KEPT
        {
            self.kept += length;
            call.again = Some(Box::new(Again::new(message.detached())));
        }
    }

    /// Keeps no message any more.
    pub(super) fn keep_none(&mut self) {
        if std::mem::take(&mut self.kept) > 0 {
            self.waiting.clear();
            self.table.values_mut().for_each(|call| call.again = None);
        }
    }

    /// The child has refused a call that will be sent again, at `until` at the latest. It gets a new id: the old one
    /// has been answered. `false`: it is none of these.
    pub(super) fn postpone(&mut self, id: BridgeId, now: Duration, until: Duration) -> bool {
        let kept = |call: &Call| call.again.is_some() && call.cancelled.is_none();
        if !self.table.get(&id).is_some_and(kept) {
            return false;
        }
        let Some(mut call) = self.table.remove(&id) else { return false };
        self.renumbered.remove(&(call.deadline, id));
        let new = self.reserve();
        call.written = false;
        if let Some(again) = &mut call.again {
            self.waiting.insert((again.postpone(now, until), new));
        }
        self.by_client.insert(call.client.clone(), new);
        if let Some(held) = call.token.as_ref().and_then(|token| self.by_token.get_mut(token))
            && *held == id
        {
            *held = new;
        }
        self.renumbered.insert((call.deadline, new));
        self.table.insert(new, call);
        true
    }

    /// When the next call is due that is sent again.
    pub(super) fn next_again(&self) -> Option<Duration> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Takes a call that is due from those that wait, with its message.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<(BridgeId, Message)> {
        let (due, id) = self.waiting.first().copied().filter(|(due, _)| *due <= now)?;
        self.waiting.remove(&(due, id));
        let again = self.table.get_mut(&id)?.again.as_mut()?;
        again.due = None;
        Some((id, again.message.clone()))
    }

    /// Takes out of all that wait their messages, the first to be sent first.
    pub(super) fn take_waiting(&mut self) -> Vec<(BridgeId, Message)> {
        let waiting = std::mem::take(&mut self.waiting);
        let again = waiting.into_iter().filter_map(|(_, id)| {
            let again = self.table.get_mut(&id)?.again.take()?;
            self.kept -= again.message.text().len();
            Some((id, again.message))
        });
        again.collect()
    }

    /// That every call is found by each of its names, and nothing else is.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let newest: HashMap<ClientId, BridgeId> =
            self.table.iter().map(|(id, call)| (call.client.clone(), *id)).collect();
        assert_eq!(self.by_client, newest, "each call is found by its client's id, or the newest of several");
        assert!(self.doubled || newest.len() == self.table.len(), "no two have one id");
        let with_token = self.table.iter().filter(|(_, call)| call.token.is_some());
        let by_token: BTreeSet<BridgeId> = self.by_token.values().copied().collect();
        assert!(by_token.iter().eq(with_token.map(|(id, _)| id)), "each call is found by its token");
        let cancelled = self.table.iter().filter_map(|(id, call)| Some((call.cancelled?, *id)));
        assert_eq!(self.cancelled, cancelled.collect(), "each cancelled call has its grace");
        let again = || self.table.iter().filter_map(|(id, call)| Some((*id, call.again.as_ref()?)));
        let waiting = again().filter_map(|(id, again)| Some((again.due?, id)));
        assert_eq!(self.waiting, waiting.collect(), "each call that waits has its time");
        let kept: usize = again().map(|(_, again)| again.message.text().len()).sum();
        assert_eq!(self.kept, kept, "each byte that is kept is counted");
        for (deadline, id) in &self.renumbered {
            assert_eq!(self.get(*id).map(|call| call.deadline), Some(*deadline), "a call by its deadline");
        }
    }
}

/// See [`Calls::with_child`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithChild {
    None,
    One(BridgeId),
    Several,
}
