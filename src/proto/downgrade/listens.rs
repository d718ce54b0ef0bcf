//! What the bridge asks a child of 2026-07-28 to tell of, in its client's place: the lists that the child offers, and the
//! resources that the client has subscribed to (2026-07-28 `basic/patterns/subscriptions`).
//!
//! There a subscription says once all that it is about. So each change of the resources is another subscription, which is
//! made before the one that it replaces is ended: until it has been acknowledged the old one counts, and from then on it
//! alone. One is made at a time. What the client wants changed meanwhile waits, and is changed all at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::ids::BridgeId;
use crate::proto::json::quote;
use crate::proto::subscription::{MAX_URI_BYTES, MAX_URIS};

/// The pause before a subscription is made again that the child has ended. It doubles until the child acknowledges one.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Names a request of the client that waits for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(pub(super) u64);

/// When a subscription is made again.
#[derive(Debug)]
struct Pause {
    until: Option<Duration>,
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { until: None, next: FIRST_PAUSE }
    }
}

impl Pause {
    fn begin(&mut self, now: Duration) {
        self.until = Some(now + self.next);
        self.next = (2 * self.next).min(LONGEST_PAUSE);
    }

    fn is_over(&mut self, now: Duration) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }
}

/// The subscription to the lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    id: Option<BridgeId>,
    pause: Pause,
    /// The child knows no subscriptions.
    is_over: bool,
}

impl Lists {
    /// Whether one is to be made now.
    pub(super) fn is_wanted(&self) -> bool {
        self.id.is_none() && self.pause.until.is_none() && !self.is_over
    }

    /// It has been asked for under this id.
    pub(super) fn asked(&mut self, id: BridgeId) {
        self.id = Some(id);
    }

    pub(super) fn is(&self, id: BridgeId) -> bool {
        self.id == Some(id)
    }

    pub(super) fn acknowledged(&mut self) {
        self.pause = Pause::default();
    }

    /// The child has ended it. `for_good`: it knows no subscriptions.
    pub(super) fn ended(&mut self, for_good: bool, now: Duration) {
        self.id = None;
        if for_good {
            self.is_over = true;
        } else {
            self.pause.begin(now);
        }
    }

    /// The child is gone that had these subscriptions: the next one is asked at once.
    pub(super) fn lost(&mut self, lost: impl Fn(BridgeId) -> bool) {
        if self.id.is_none_or(lost) {
            *self = Self::default();
        }
    }

    /// Ends it. Returns the id under which the child may have it.
    pub(super) fn end(&mut self) -> Option<BridgeId> {
        std::mem::take(self).id
    }

    /// Whether a pause is over.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        self.pause.is_over(now)
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.pause.until
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> Option<BridgeId> {
        self.id
    }

    pub(super) fn renamed(&mut self, old: BridgeId, new: BridgeId) {
        self.id.iter_mut().filter(|id| **id == old).for_each(|id| *id = new);
    }
}

/// A change that the client wants.
#[derive(Clone, Debug)]
struct Change {
    ticket: Ticket,
    uri: Arc<str>,
    subscribes: bool,
}

/// A subscription that has not been acknowledged.
#[derive(Debug)]
struct Making {
    id: BridgeId,
    uris: BTreeSet<Arc<str>>,
    changes: Vec<Change>,
    /// When it must have been.
    until: Duration,
}

/// What is to be done next.
#[derive(Debug)]
pub(super) enum Turn {
    /// The child is to be asked for this, and then [`Resources::made`] is told.
    Make(Make),
    /// These have come to nothing that the child must be told, or to the end of this subscription.
    Done { tickets: Vec<Ticket>, end: Option<BridgeId> },
}

/// A subscription that is to be made.
#[derive(Debug)]
pub(super) struct Make {
    uris: BTreeSet<Arc<str>>,
    changes: Vec<Change>,
}

impl Make {
    /// What it asks for, as `params.notifications`.
    pub(super) fn notifications(&self) -> String {
        let uris: Vec<_> = self.uris.iter().map(|uri| quote(uri)).collect();
        format!("{{\"resourceSubscriptions\":[{}]}}", uris.join(","))
    }
}

/// What an acknowledgement has decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// The subscriptions that are to be ended: the one that has been replaced, and one that is about nothing.
    pub(super) end: Vec<BridgeId>,
    /// Those who waited, and whether they have what they wanted.
    pub(super) tickets: Vec<(Ticket, bool)>,
}

/// The subscriptions to resources.
#[derive(Debug, Default)]
pub(super) struct Resources {
    /// What the client has subscribed to.
    uris: BTreeSet<Arc<str>>,
    /// The subscription that counts; `None`: the child has ended it, or there is nothing to subscribe to.
    current: Option<BridgeId>,
    making: Option<Making>,
    /// What waits for it.
    queue: Vec<Change>,
    pause: Pause,
    /// Whether one is to be made although nothing changes.
    again: bool,
}

impl Resources {
    /// Whether so long a URI would be too much.
    pub(super) fn is_full(&self, uri: &str) -> bool {
        let waiting = self.making.iter().flat_map(|making| &making.changes).chain(&self.queue);
        let waiting = waiting.filter(|change| change.subscribes).map(|change| &change.uri);
        let (count, bytes) = self
            .uris
            .iter()
            .chain(waiting)
            .fold((0, 0), |(count, bytes), uri| (count + 1, bytes + uri.len()));
        !self.uris.contains(uri) && (count >= MAX_URIS || bytes + uri.len() > MAX_URI_BYTES)
    }

    /// The client wants a change. What it lets go of is kept under the text by which it is known, or under none: only what
    /// it subscribes to needs room.
    pub(super) fn change(&mut self, ticket: Ticket, uri: &str, subscribes: bool) {
        let uri = if subscribes { uri.into() } else { self.known(uri).unwrap_or_default() };
        self.queue.push(Change { ticket, uri, subscribes });
    }

    fn known(&self, uri: &str) -> Option<Arc<str>> {
        let making = self.making.iter().flat_map(|making| &making.uris);
        let waiting = self.queue.iter().map(|change| &change.uri);
        self.uris.get(uri).or_else(|| making.chain(waiting).find(|known| ***known == *uri)).cloned()
    }

    /// The client does not want a change any more. One that the child has been asked for takes place.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.queue.retain(|change| change.ticket != ticket);
    }

    /// What is to be done next; `None`: nothing, until something else happens.
    pub(super) fn turn(&mut self) -> Option<Turn> {
        if self.making.is_some() || (self.queue.is_empty() && !self.again) {
            return None;
        }
        let changes = std::mem::take(&mut self.queue);
        (self.again, self.pause.until) = (false, None);
        let mut uris = self.uris.clone();
        for change in &changes {
            if change.subscribes {
                uris.insert(Arc::clone(&change.uri));
            } else {
                uris.remove(&change.uri);
            }
        }
        let tickets = || changes.iter().map(|change| change.ticket).collect();
        if uris.is_empty() {
            self.uris = uris;
            return Some(Turn::Done { tickets: tickets(), end: self.current.take() });
        }
        if uris == self.uris && self.current.is_some() {
            return Some(Turn::Done { tickets: tickets(), end: None });
        }
        Some(Turn::Make(Make { uris, changes }))
    }

    /// The child has been asked for it under this id, and must acknowledge it by then.
    pub(super) fn made(&mut self, id: BridgeId, Make { uris, changes }: Make, until: Duration) {
        self.making = Some(Making { id, uris, changes, until });
    }

    /// Whether this subscription counts.
    pub(super) fn is(&self, id: BridgeId) -> bool {
        self.current == Some(id)
    }

    /// The child has acknowledged a subscription, with so many URIs. `None`: it is not the one that is being made.
    pub(super) fn acknowledged(
        &mut self,
        id: BridgeId,
        honoured: impl Fn(&str) -> bool,
    ) -> Option<Acknowledged> {
        let Making { uris, changes, .. } = self.making.take_if(|making| making.id == id)?;
        let mut end: Vec<_> = self.current.replace(id).into_iter().collect();
        self.uris = uris.iter().filter(|uri| honoured(uri)).cloned().collect();
        // One that was subscribed to and let go of before this is not what the child was asked for.
        let has = |change: &Change| {
            !change.subscribes || !uris.contains(&change.uri) || self.uris.contains(&change.uri)
        };
        let tickets = changes.iter().map(|change| (change.ticket, has(change))).collect();
        if self.uris.is_empty() {
            end.extend(self.current.take());
        }
        self.pause = Pause::default();
        Some(Acknowledged { end, tickets })
    }

    /// A subscription has ended that was not ended by the client. `for_good`: the child knows none. Returns those who waited
    /// for it, in vain: what they wanted is not changed.
    pub(super) fn ended(&mut self, id: BridgeId, for_good: bool, now: Duration) -> Vec<Ticket> {
        let making = self.making.take_if(|making| making.id == id);
        if self.current.take_if(|current| *current == id).is_none() && making.is_none() {
            return Vec::new();
        }
        if for_good && self.current.is_none() && self.making.is_none() {
            self.uris.clear();
        }
        if self.current.is_none() && self.making.is_none() && !self.uris.is_empty() {
            self.pause.begin(now);
        }
        let changes = making.into_iter().flat_map(|making| making.changes);
        changes.map(|change| change.ticket).collect()
    }

    /// The child is gone that had these subscriptions: the next one is asked at once for what the client has subscribed to.
    /// Returns those who waited for the one that was being made.
    pub(super) fn lost(&mut self, lost: impl Fn(BridgeId) -> bool) -> Vec<Ticket> {
        self.current = None;
        self.pause = Pause::default();
        let making = self.making.take_if(|making| lost(making.id));
        self.again = self.making.is_none() && !self.uris.is_empty();
        let changes = making.into_iter().flat_map(|making| making.changes);
        changes.map(|change| change.ticket).collect()
    }

    /// Ends all. Returns the subscriptions that the child may have.
    pub(super) fn end(&mut self) -> impl Iterator<Item = BridgeId> + use<> {
        let Self { current, making, .. } = std::mem::take(self);
        current.into_iter().chain(making.map(|making| making.id))
    }

    /// Takes out all that waits for its turn: the child serves none of it.
    pub(super) fn take_queue(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.queue).into_iter().map(|change| change.ticket).collect()
    }

    /// Does what is due. Returns the subscription that the child has not acknowledged in time.
    pub(super) fn expire(&mut self, now: Duration) -> Option<BridgeId> {
        self.again |= self.pause.is_over(now);
        self.making.as_ref().filter(|making| making.until <= now).map(|making| making.id)
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let making = self.making.as_ref().map(|making| making.until);
        self.pause.until.into_iter().chain(making).min()
    }

    pub(super) fn renamed(&mut self, old: BridgeId, new: BridgeId) {
        let making = self.making.as_mut().map(|making| &mut making.id);
        self.current.iter_mut().chain(making).filter(|id| **id == old).for_each(|id| *id = new);
    }

    /// The subscriptions that the child may have.
    #[cfg(test)]
    pub(super) fn ids(&self) -> impl Iterator<Item = BridgeId> {
        self.current.into_iter().chain(self.making.as_ref().map(|making| making.id))
    }

    /// How many bytes of URIs wait for their turn.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.queue.iter().map(|change| change.uri.len()).sum()
    }

    /// What the client has subscribed to.
    #[cfg(test)]
    pub(super) fn uris(&self) -> Vec<&str> {
        self.uris.iter().map(|uri| &**uri).collect()
    }
}
