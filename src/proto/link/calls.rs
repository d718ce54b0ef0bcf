//! The requests of clients that have no answer yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::outgoing::Outgoing;
use super::repeated::Called;
use super::restore::Effect;
use super::retry::{FIRST_PAUSE, Retry};
use crate::proto::ids::{BridgeId, Ids, echoed};

/// Bytes of requests that are kept to be sent again; one beyond it is sent once.
const MAX_KEPT: usize = 8 * 1024 * 1024;

/// A request of a client.
#[derive(Debug)]
pub(super) struct Call<C> {
    /// What the front knows of it.
    pub(super) caller: C,
    /// When the child must have answered; `None`: it may leave the request open as long as the client wants.
    pub(super) deadline: Option<Duration>,
    /// When a cancelled call ends at the latest; `None`: it is not cancelled.
    pub(super) cancelled: Option<Duration>,
    /// Whether it was handed to the child: from then on it may have happened.
    pub(super) forwarded: bool,
    /// What its success changes in the child that a successor must be told again.
    pub(super) effect: Option<Effect>,
    /// What a successor is sent again if it succeeds.
    pub(super) called: Option<Box<Called>>,
    /// How it is sent again, should the child refuse it as not ready.
    pub(super) retry: Option<Box<Retry>>,
}

impl<C> Call<C> {
    /// When it ends without an answer.
    fn end(&self) -> Option<Duration> {
        self.cancelled.into_iter().chain(self.deadline).min()
    }

    /// Whether it is one that the child leaves open, and no call.
    pub(super) fn is_open_ended(&self) -> bool {
        self.deadline.is_none()
    }

    /// Bytes of it in [`called`](Self::called).
    fn called_bytes(&self) -> usize {
        self.called.as_ref().map_or(0, |called| called.len())
    }
}

/// All of them, by the ids under which the child knows them: oldest first.
#[derive(Debug)]
pub(super) struct Calls<C> {
    ids: Ids,
    table: BTreeMap<BridgeId, Call<C>>,
    /// How many of them are open-ended.
    open_ended: usize,
    /// When each of the others ends without an answer.
    ends: BTreeSet<(Duration, BridgeId)>,
    /// Those that wait to be sent again, by when they will be.
    retry_due: BTreeSet<(Duration, BridgeId)>,
    /// Bytes of the requests in [`Call::retry`].
    kept: usize,
    /// Bytes of those in [`Call::called`].
    called: usize,
}

impl<C> Calls<C> {
    pub(super) fn new(ids: Ids) -> Self {
        Self {
            ids,
            table: BTreeMap::new(),
            open_ended: 0,
            ends: BTreeSet::new(),
            retry_due: BTreeSet::new(),
            kept: 0,
            called: 0,
        }
    }

    /// How many there are, those that are open-ended aside.
    pub(super) fn len(&self) -> usize {
        self.table.len() - self.open_ended
    }

    /// How many are open-ended.
    pub(super) fn open_ended(&self) -> usize {
        self.open_ended
    }

    /// Bytes of calls that are remembered if they succeed.
    pub(super) fn called_bytes(&self) -> usize {
        self.called
    }

    /// Gives out an id that no other request to the child has.
    pub(super) fn reserve(&mut self) -> BridgeId {
        self.ids.next(|id| self.table.contains_key(&id))
    }

    pub(super) fn insert(&mut self, call: Call<C>) -> BridgeId {
        let id = self.reserve();
        self.open_ended += usize::from(call.is_open_ended());
        self.called += call.called_bytes();
        self.ends.extend(call.end().map(|end| (end, id)));
        self.table.insert(id, call);
        id
    }

    /// Takes a call out: it has ended.
    pub(super) fn remove(&mut self, id: BridgeId) -> Option<Call<C>> {
        let call = self.table.remove(&id)?;
        self.open_ended -= usize::from(call.is_open_ended());
        self.called -= call.called_bytes();
        if let Some(end) = call.end() {
            self.ends.remove(&(end, id));
        }
        if let Some(retry) = &call.retry {
            self.kept -= retry.request.len();
            if let Some(due) = retry.due {
                self.retry_due.remove(&(due, id));
            }
        }
        Some(call)
    }

    /// Takes out those that the child may have seen, oldest first.
    pub(super) fn drain_forwarded(&mut self) -> Vec<(BridgeId, Call<C>)> {
        let forwarded = self.table.iter().filter(|(_, call)| call.forwarded).map(|(id, _)| *id);
        let forwarded: Vec<_> = forwarded.collect();
        forwarded.into_iter().filter_map(|id| Some((id, self.remove(id)?))).collect()
    }

    /// Takes all out, oldest first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Call<C>> + use<C> {
        self.ends.clear();
        self.retry_due.clear();
        (self.open_ended, self.kept, self.called) = (0, 0, 0);
        std::mem::take(&mut self.table).into_values()
    }

    pub(super) fn get(&self, id: BridgeId) -> Option<&Call<C>> {
        self.table.get(&id)
    }

    /// What its front knows of it may change, its deadlines must not.
    pub(super) fn get_mut(&mut self, id: BridgeId) -> Option<&mut Call<C>> {
        self.table.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (BridgeId, &Call<C>)> {
        self.table.iter().map(|(id, call)| (*id, call))
    }

    /// Whether the child has the call and has not answered.
    pub(super) fn is_with_child(&self, id: BridgeId) -> bool {
        self.get(id).is_some_and(|call| call.forwarded)
    }

    /// The id that a child echoed, if it was given out at all.
    pub(super) fn echoed(&self, token: &str) -> Option<BridgeId> {
        self.ids.find(echoed(token)?)
    }

    /// The call that ends first without an answer, and when.
    pub(super) fn next_end(&self) -> Option<(Duration, BridgeId)> {
        self.ends.first().copied()
    }

    pub(super) fn set_forwarded(&mut self, id: BridgeId) {
        if let Some(call) = self.table.get_mut(&id) {
            call.forwarded = true;
        }
    }

    /// Notes that a call is cancelled and ends at `grace` at the latest.
    pub(super) fn set_cancelled(&mut self, id: BridgeId, grace: Duration) {
        if let Some(call) = self.table.get_mut(&id) {
            if let Some(end) = call.end() {
                self.ends.remove(&(end, id));
            }
            call.cancelled = Some(grace);
            self.ends.extend(call.end().map(|end| (end, id)));
        }
    }

    /// Keeps a call's request, so that it can be sent again.
    pub(super) fn keep_for_retry(&mut self, id: BridgeId, request: &Outgoing) {
        let length = request.len();
        if let Some(call) = self.table.get_mut(&id)
            && call.retry.is_none()
            && self.kept + length <= MAX_KEPT
        {
            self.kept += length;
            call.retry = Some(Box::new(Retry::new(request.detached())));
        }
    }

    /// Keeps no request any more.
    pub(super) fn keep_none(&mut self) {
        if std::mem::take(&mut self.kept) > 0 {
            self.retry_due.clear();
            self.table.values_mut().for_each(|call| call.retry = None);
        }
    }

    /// The child has refused a call that is sent again, at `until` at the latest, under a new id: the old one has been
    /// answered. Returns the new one; `None`: the call is none of these.
    pub(super) fn reschedule(&mut self, id: BridgeId, now: Duration, until: Duration) -> Option<BridgeId> {
        let kept = |call: &Call<C>| call.retry.is_some() && call.cancelled.is_none();
        if !self.table.get(&id).is_some_and(kept) {
            return None;
        }
        let mut call = self.table.remove(&id)?;
        if let Some(end) = call.end() {
            self.ends.remove(&(end, id));
        }
        let new = self.reserve();
        call.forwarded = false;
        if let Some(retry) = &mut call.retry {
            self.retry_due.insert((retry.reschedule(now, until), new));
        }
        self.ends.extend(call.end().map(|end| (end, new)));
        self.table.insert(new, call);
        Some(new)
    }

    /// When the next call is due that is sent again.
    pub(super) fn next_retry(&self) -> Option<Duration> {
        self.retry_due.first().map(|(due, _)| *due)
    }

    /// Takes a call that is due from those that wait, with its request.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<(BridgeId, Outgoing)> {
        let (due, id) = self.retry_due.first().copied().filter(|(due, _)| *due <= now)?;
        self.retry_due.remove(&(due, id));
        let retry = self.table.get_mut(&id)?.retry.as_mut()?;
        retry.due = None;
        Some((id, retry.request.clone()))
    }

    /// Lets all that are due wait for another pause.
    pub(super) fn postpone_due(&mut self, now: Duration) {
        while let Some((due, id)) = self.retry_due.first().copied().filter(|(due, _)| *due <= now) {
            self.retry_due.remove(&(due, id));
            let later = now + FIRST_PAUSE;
            if let Some(retry) = self.table.get_mut(&id).and_then(|call| call.retry.as_mut()) {
                retry.due = Some(later);
                self.retry_due.insert((later, id));
            }
        }
    }

    /// Takes out of all that wait their requests, the first to be sent first.
    pub(super) fn take_waiting(&mut self) -> Vec<(BridgeId, Outgoing)> {
        let waiting = std::mem::take(&mut self.retry_due);
        let requests = waiting.into_iter().filter_map(|(_, id)| {
            let retry = self.table.get_mut(&id)?.retry.take()?;
            self.kept -= retry.request.len();
            Some((id, retry.request))
        });
        requests.collect()
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// That every index says what the table says.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let ends = self.table.iter().filter_map(|(id, call)| Some((call.end()?, *id)));
        assert_eq!(self.ends, ends.collect(), "each call ends at its time");
        let open_ended = self.table.values().filter(|call| call.is_open_ended()).count();
        assert_eq!(self.open_ended, open_ended, "each open-ended one is counted");
        let retries = || self.table.iter().filter_map(|(id, call)| Some((*id, call.retry.as_ref()?)));
        let due = retries().filter_map(|(id, retry)| Some((retry.due?, id)));
        assert_eq!(self.retry_due, due.collect(), "each call that waits has its time");
        let kept: usize = retries().map(|(_, retry)| retry.request.len()).sum();
        assert_eq!(self.kept, kept, "each byte that is kept is counted");
        let called: usize = self.table.values().map(Call::called_bytes).sum();
        assert_eq!(self.called, called, "each byte that may be remembered is counted");
    }
}
