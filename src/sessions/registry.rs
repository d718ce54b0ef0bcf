//! Which sessions and children there are: plain data, without locks, tasks or clocks.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::snapshot::State;
use crate::child::Tag;
use crate::proto::ids::SessionId;
use crate::secret::Digest;
use crate::session::End;

/// How many ended sessions are remembered, so that a late client is told why its session is gone.
const REMEMBERED: usize = 1024;

/// `S` is a handle of a session, `P` one of a child.
#[derive(Debug)]
pub(super) struct Registry<S, P> {
    live: HashMap<SessionId, Owned<Live<S>>>,
    /// Which session a key names.
    keys: HashMap<Digest, SessionId>,
    ended: HashMap<SessionId, Owned<End>>,
    /// The ids in `ended`, oldest first.
    ended_order: VecDeque<SessionId>,
    /// The children that are not gone, what they left running included. By tag and not by pid: a pid can belong to
    /// another process before its child is taken out of here.
    children: HashMap<Tag, P>,
    /// How many sessions have ended whose children are not gone.
    leaving: usize,
    /// Who may have sessions; `None`: whoever was let in.
    callers: Option<Vec<Digest>>,
}

/// A session that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Live<S> {
    pub(super) session: S,
    /// The key that names it; `None`: its id does.
    pub(super) key: Option<Digest>,
    pub(super) began: Instant,
    /// Its present child, or that of the server that it shares.
    pub(super) child: Option<Tag>,
    /// The server that it shares: it is on a lane of it, and takes no place among children.
    pub(super) server: Option<SessionId>,
    pub(super) state: State,
    /// Whether what it was opened with had worked before.
    pub(super) has_worked: bool,
}

/// Something that is only there for its owner.
#[derive(Debug)]
struct Owned<T> {
    owner: Option<Digest>,
    value: T,
}

impl<T> Owned<T> {
    fn visible_to(&self, caller: Option<Digest>) -> Option<&T> {
        (self.owner == caller).then_some(&self.value)
    }
}

impl<S, P> Default for Registry<S, P> {
    fn default() -> Self {
        Self {
            live: HashMap::new(),
            keys: HashMap::new(),
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            children: HashMap::new(),
            leaving: 0,
            callers: None,
        }
    }
}

impl<S, P> Registry<S, P> {
    /// Adds a session that only `owner` finds.
    pub(super) fn add(&mut self, id: SessionId, owner: Option<Digest>, live: Live<S>) {
        if let Some(key) = live.key {
            self.keys.insert(key, id.clone());
        }
        self.live.insert(id, Owned { owner, value: live });
    }

    /// Only these callers may have sessions from now on. Returns the sessions of all others.
    pub(super) fn keep_callers(&mut self, callers: &[Digest]) -> Vec<&S> {
        self.callers = Some(callers.to_vec());
        let revoked = self.live.values().filter(|owned| !self.is_caller(owned.owner));
        revoked.map(|owned| &owned.value.session).collect()
    }

    /// Whether this caller may have sessions: it may have been let in before its token was taken away.
    pub(super) fn is_caller(&self, caller: Option<Digest>) -> bool {
        match (&self.callers, caller) {
            (Some(callers), Some(caller)) => callers.contains(&caller),
            _ => true,
        }
    }

    /// The live session of this id, if it is the caller's.
    pub(super) fn find(&self, id: &SessionId, caller: Option<Digest>) -> Option<&S> {
        self.live.get(id)?.visible_to(caller).map(|live| &live.session)
    }

    /// Why the session of this id ended, if it has, is remembered and was the caller's.
    pub(super) fn ended(&self, id: &SessionId, caller: Option<Digest>) -> Option<End> {
        self.ended.get(id)?.visible_to(caller).copied()
    }

    pub(super) fn keyed(&self, key: &Digest) -> Option<&S> {
        self.live.get(self.keys.get(key)?).map(|owned| &owned.value.session)
    }

    /// Takes a session out of the live ones, for this reason; the seat of its child is taken until [`Self::left`]. Nothing happens
    /// if that was done before.
    pub(super) fn retire(&mut self, id: &SessionId, why: End) {
        let Some(Owned { owner, value: live }) = self.live.remove(id) else { return };
        if live.server.is_none() {
            self.leaving += 1;
        }
        // The key may name a later session by now.
        if let Some(key) = live.key
            && self.keys.get(&key) == Some(id)
        {
            self.keys.remove(&key);
        }
        if self.ended_order.len() == REMEMBERED
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.ended.insert(id.clone(), Owned { owner, value: why });
        self.ended_order.push_back(id.clone());
    }

    /// Notes that the last child of a retired session is gone: its seat is free.
    pub(super) fn left(&mut self) {
        self.leaving -= 1;
    }

    /// How many retired sessions still hold a seat.
    pub(super) fn leaving(&self) -> usize {
        self.leaving
    }

    pub(super) fn live(&self) -> impl ExactSizeIterator<Item = &Live<S>> + Clone {
        self.live.values().map(|owned| &owned.value)
    }

    /// Notes what a live session is doing, and with which child; nothing happens if it has been retired.
    pub(super) fn note(&mut self, id: &SessionId, state: State, child: Option<Tag>) {
        if let Some(Owned { value: live, .. }) = self.live.get_mut(id) {
            (live.state, live.child) = (state, child);
        }
    }

    /// Notes that this child of a live session has answered `initialize`; nothing happens if the session has lost it since.
    pub(super) fn note_open(&mut self, id: &SessionId, child: &Tag) {
        if let Some(Owned { value: live, .. }) = self.live.get_mut(id)
            && live.child.as_ref() == Some(child)
        {
            live.state = State::Open;
        }
    }

    /// Notes what a live session is doing on a lane of this server. Returns the server's child.
    pub(super) fn note_lane(&mut self, id: &SessionId, state: State, server: &SessionId) -> Option<&P> {
        let child = self.live.get(server).and_then(|owned| owned.value.child.clone());
        if let Some(Owned { value: live, .. }) = self.live.get_mut(id) {
            (live.state, live.child, live.server) = (state, child.clone(), Some(server.clone()));
        }
        self.children.get(&child?)
    }

    /// Notes that a live session has been opened on a lane of this server; nothing happens if it has lost it since.
    pub(super) fn note_lane_open(&mut self, id: &SessionId, server: &SessionId) {
        if let Some(Owned { value: live, .. }) = self.live.get_mut(id)
            && live.server.as_ref() == Some(server)
        {
            live.state = State::Open;
        }
    }

    pub(super) fn add_child(&mut self, tag: Tag, child: P) {
        self.children.insert(tag, child);
    }

    /// Forgets a child: it and all that it left running are gone.
    pub(super) fn remove_child(&mut self, tag: &Tag) {
        self.children.remove(tag);
    }

    pub(super) fn child(&self, tag: &Tag) -> Option<&P> {
        self.children.get(tag)
    }

    pub(super) fn children(&self) -> impl ExactSizeIterator<Item = &P> {
        self.children.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sessions and children are told apart by a number alone.
    type Numbers = Registry<u32, u32>;

    fn id(number: u32) -> SessionId {
        let mut random = [0; 24];
        random[..4].copy_from_slice(&number.to_be_bytes());
        SessionId::from_random(None, random)
    }

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn live(session: u32, key: Option<Digest>) -> Live<u32> {
        Live {
            session,
            key,
            began: Instant::now(),
            child: None,
            server: None,
            state: State::Starting,
            has_worked: false,
        }
    }

    #[test]
    fn a_session_and_its_end_are_there_for_its_owner_alone() {
        let mut registry = Numbers::default();
        let (ours, theirs) = (Some(digest("ours")), Some(digest("theirs")));
        registry.add(id(1), ours, live(1, None));
        for (caller, found) in [(ours, Some(&1)), (theirs, None), (None, None)] {
            assert_eq!(registry.find(&id(1), caller), found);
        }
        registry.retire(&id(1), End::Deleted);
        for (caller, ended) in [(ours, Some(End::Deleted)), (theirs, None), (None, None)] {
            assert_eq!((registry.find(&id(1), caller), registry.ended(&id(1), caller)), (None, ended));
        }
    }

    #[test]
    fn who_is_no_caller_any_more_loses_its_sessions_and_gets_no_other() {
        let mut registry = Numbers::default();
        let (stays, goes) = (Some(digest("stays")), Some(digest("goes")));
        registry.add(id(1), stays, live(1, None));
        registry.add(id(2), goes, live(2, Some(digest("key"))));
        assert!(registry.is_caller(goes), "nothing was taken away");
        assert_eq!(registry.keep_callers(&[digest("stays"), digest("new")]), [&2]);
        assert_eq!([stays, goes, None].map(|caller| registry.is_caller(caller)), [true, false, true]);
        assert_eq!(registry.keep_callers(&[digest("goes")]), [&1]);
    }

    #[test]
    fn a_session_is_retired_once_and_holds_its_seat_until_its_child_has_left() {
        let mut registry = Numbers::default();
        registry.add(id(1), None, live(1, None));
        registry.retire(&id(1), End::Deleted);
        registry.retire(&id(1), End::Shutdown);
        assert_eq!((registry.live().len(), registry.leaving()), (0, 1));
        assert_eq!(registry.ended(&id(1), None), Some(End::Deleted), "the first reason");
        registry.left();
        assert_eq!(registry.leaving(), 0);
    }

    #[test]
    fn a_session_on_a_lane_shows_its_servers_child_and_holds_no_seat_of_one() {
        let mut registry = Numbers::default();
        let (tag, pid) = (Tag::of("child"), 4711);
        registry.add_child(tag.clone(), pid);
        registry.add(id(1), None, Live { child: Some(tag), ..live(1, Some(digest("key"))) });
        registry.add(id(2), None, live(2, None));
        assert_eq!(registry.note_lane(&id(2), State::Starting, &id(1)), Some(&pid));
        registry.note_lane_open(&id(2), &id(3));
        let state =
            |registry: &Numbers| registry.live().find(|live| live.session == 2).map(|live| live.state);
        assert_eq!(state(&registry), Some(State::Starting), "another server than the one that it has by now");
        registry.note_lane_open(&id(2), &id(1));
        assert_eq!(state(&registry), Some(State::Open));
        registry.retire(&id(2), End::Deleted);
        assert_eq!(registry.leaving(), 0);
        registry.retire(&id(1), End::Deleted);
        assert_eq!(registry.leaving(), 1);
        assert_eq!(registry.note_lane(&id(2), State::Starting, &id(1)), None, "both have ended");
    }

    #[test]
    fn a_key_names_its_newest_session_until_that_is_retired() {
        let mut registry = Numbers::default();
        let key = digest("key");
        registry.add(id(1), None, live(1, Some(key)));
        assert_eq!(registry.keyed(&key), Some(&1));
        registry.add(id(2), None, live(2, Some(key)));
        registry.retire(&id(1), End::Deleted);
        assert_eq!(registry.keyed(&key), Some(&2), "the older one's end is not the newer one's");
        registry.retire(&id(2), End::Deleted);
        assert_eq!(registry.keyed(&key), None);
        assert!(registry.keys.is_empty());
    }

    #[test]
    fn the_ends_of_so_many_sessions_are_remembered_and_the_oldest_are_forgotten_first() {
        let mut registry = Numbers::default();
        let count = u32::try_from(REMEMBERED).unwrap() + 2;
        for number in 0..count {
            registry.add(id(number), None, live(number, None));
            registry.retire(&id(number), End::Deleted);
        }
        let known = |number| registry.ended(&id(number), None).is_some();
        assert_eq!([0, 1, 2, count - 1].map(known), [false, false, true, true]);
        assert_eq!((registry.ended.len(), registry.ended_order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn a_child_is_not_taken_for_the_one_that_has_its_pid_by_now() {
        let mut registry = Numbers::default();
        let (gone, new, pid) = (Tag::of("gone"), Tag::of("new"), 4711);
        registry.add_child(gone.clone(), pid);
        registry.add_child(new.clone(), pid); // the kernel gave it the number while leftovers were looked for
        registry.remove_child(&gone);
        assert_eq!((registry.child(&gone), registry.child(&new)), (None, Some(&pid)));
        assert_eq!(registry.children().len(), 1);
    }

    #[test]
    fn what_a_session_does_is_noted_until_it_is_retired() {
        let mut registry = Numbers::default();
        let (first, second) = (Tag::of("first"), Tag::of("second"));
        registry.add(id(1), None, live(1, None));
        let now = |registry: &Numbers| registry.live().map(|live| (live.state, live.child.clone())).next();
        registry.note(&id(1), State::Restarting, Some(first.clone()));
        registry.note_open(&id(1), &first);
        assert_eq!(now(&registry), Some((State::Open, Some(first.clone()))));
        registry.note(&id(1), State::Restarting, Some(second.clone()));
        registry.note_open(&id(1), &first);
        assert_eq!(now(&registry), Some((State::Restarting, Some(second.clone()))), "the first is lost");
        registry.retire(&id(1), End::Deleted);
        registry.note_open(&id(1), &second);
        assert_eq!(now(&registry), None);
    }
}
