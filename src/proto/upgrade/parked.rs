//! Calls whose clients have been asked something and are to come back: what `requestState` names.
//!
//! The name is random and known to nobody but the client that was given it, so that it needs no signature: what it stands for
//! is here. It is of use once, for some time, to the same caller and for the same request.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::proto::ids::BridgeId;

/// How long a client may take to come back: a person may have to answer.
pub(super) const PARK: Duration = Duration::from_secs(600);

/// How many calls may be parked. One gives way to another.
const MAX_PARKED: usize = 64;

/// Bytes of answers that wait for clients to come back. The oldest one gives way to another.
const MAX_DONE: usize = 8 * 1024 * 1024;

/// What a parked call is named by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State(u128);

impl State {
    /// `random`: which nobody can guess.
    pub(super) fn new(random: u128) -> Self {
        Self(random)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("mcp-bridge.").filter(|digits| digits.len() == 32)?;
        let is_ours = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if is_ours { u128::from_str_radix(digits, 16).ok().map(Self) } else { None }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mcp-bridge.{:032x}", self.0)
    }
}

/// It is a secret of the client's.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Where a parked call is. `C` is what is known of it.
#[derive(Debug)]
pub(super) enum Place<C> {
    /// The child is at work on it, under this id.
    Running(BridgeId),
    /// The child has answered meanwhile: the text of the answer.
    Done(C, String),
}

/// All parked calls.
#[derive(Debug)]
pub(super) struct Parked<C> {
    table: BTreeMap<State, (Duration, Place<C>)>,
    /// How many bytes of answers there are.
    bytes: usize,
}

impl<C> Default for Parked<C> {
    fn default() -> Self {
        Self { table: BTreeMap::new(), bytes: 0 }
    }
}

impl<C> Parked<C> {
    pub(super) fn get(&self, state: State) -> Option<&Place<C>> {
        self.table.get(&state).map(|(_, place)| place)
    }

    /// Parks a call. Returns the one that gives way to it: the oldest one of the caller who has the most. `caller`: whose
    /// a call is.
    #[must_use]
    pub(super) fn add<K: Ord>(
        &mut self,
        state: State,
        place: Place<C>,
        now: Duration,
        caller: impl Fn(&Place<C>) -> K,
    ) -> Option<Place<C>> {
        let full = self.table.len() >= MAX_PARKED;
        let oldest = if full { self.oldest_of_most(caller) } else { None };
        let gone = oldest.and_then(|state| self.take(state));
        self.table.insert(state, (now + PARK, place));
        gone
    }

    fn oldest_of_most<K: Ord>(&self, caller: impl Fn(&Place<C>) -> K) -> Option<State> {
        let mut callers = BTreeMap::<_, (usize, (Duration, State))>::new();
        for (state, (until, place)) in &self.table {
            let this = (*until, *state);
            let (count, oldest) = callers.entry(caller(place)).or_insert((0, this));
            (*count, *oldest) = (*count + 1, this.min(*oldest));
        }
        let most = callers.into_values().max_by_key(|(count, (until, _))| (*count, Reverse(*until)));
        most.map(|(_, (_, state))| state)
    }

    /// Takes a call out: its client is back, or it has ended.
    pub(super) fn take(&mut self, state: State) -> Option<Place<C>> {
        let (_, place) = self.table.remove(&state)?;
        if let Place::Done(_, text) = &place {
            self.bytes -= text.len();
        }
        Some(place)
    }

    /// The child has answered a parked call.
    pub(super) fn done(&mut self, state: State, call: C, text: String) {
        let length = text.len();
        let Some((_, place)) = self.table.get_mut(&state) else { return };
        *place = Place::Done(call, text);
        self.bytes += length;
        if length > MAX_DONE {
            self.take(state); // it would have to go last, and all others before it
            return;
        }
        while self.bytes > MAX_DONE {
            let done = self.table.iter().filter(|(_, (_, place))| matches!(place, Place::Done(..)));
            let oldest = done.min_by_key(|(_, (until, _))| *until).map(|(state, _)| *state);
            if oldest.and_then(|state| self.take(state)).is_none() {
                return;
            }
        }
    }

    /// Keeps of those that the child has answered only these.
    pub(super) fn retain(&mut self, keeps: impl Fn(&C) -> bool) {
        let bytes = &mut self.bytes;
        self.table.retain(|_, (_, place)| match place {
            Place::Done(call, text) if !keeps(call) => {
                *bytes -= text.len();
                false
            }
            Place::Done(..) | Place::Running(_) => true,
        });
    }

    /// A parked call has a new id.
    pub(super) fn renamed(&mut self, state: State, new: BridgeId) {
        if let Some((_, place @ Place::Running(_))) = self.table.get_mut(&state) {
            *place = Place::Running(new);
        }
    }

    fn oldest(&self) -> Option<(Duration, State)> {
        self.table.iter().map(|(state, (until, _))| (*until, *state)).min()
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.oldest().map(|(until, _)| until)
    }

    /// Takes out one call whose client has not come back in time.
    pub(super) fn expire(&mut self, now: Duration) -> Option<Place<C>> {
        let (_, state) = self.oldest().filter(|(until, _)| *until <= now)?;
        self.take(state)
    }

    /// Those that the child is at work on, by their ids.
    pub(super) fn at_work(&self) -> impl Iterator<Item = BridgeId> {
        self.table.values().filter_map(|(_, place)| match place {
            Place::Running(id) => Some(*id),
            Place::Done(..) => None,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The names of those that the child is at work on.
    #[cfg(test)]
    pub(super) fn running(&self) -> std::collections::HashSet<State> {
        let running = self.table.iter().filter(|(_, (_, place))| matches!(place, Place::Running(_)));
        running.map(|(state, _)| *state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_was_given_and_nothing_like_it() {
        let state = State::new(0x0123);
        assert_eq!(State::parse(&state.to_string()), Some(state));
        let hex = "0".repeat(32);
        for text in ["", "mcp-bridge.", "mcp-bridge.123", &hex, &format!("mcp-bridge.+{}", &hex[1..])] {
            assert_eq!(State::parse(text), None, "{text}");
        }
        let upper = state.to_string().replace("123", "12A").to_uppercase();
        assert_eq!(State::parse(&upper), None);
    }

    #[test]
    fn the_oldest_gives_way_and_all_end_in_time() {
        let mut parked = Parked::<()>::default();
        let id = crate::proto::ids::Ids::counted().next(|_| false);
        for number in 0..MAX_PARKED as u64 {
            let at = Duration::from_secs(number);
            assert!(parked.add(State::new(number.into()), Place::Running(id), at, |_| ()).is_none());
        }
        assert!(parked.add(State::new(1000), Place::Running(id), Duration::from_secs(64), |_| ()).is_some());
        assert!(parked.get(State::new(0)).is_none() && parked.get(State::new(1)).is_some());
        let mut ended = 0;
        while let Some(deadline) = parked.next_deadline() {
            assert!(parked.expire(deadline - Duration::from_nanos(1)).is_none());
            assert!(parked.expire(deadline).is_some());
            ended += 1;
        }
        assert_eq!(ended, MAX_PARKED);
    }

    #[test]
    fn who_has_the_most_gives_way() {
        let mut parked = Parked::default();
        let caller = |place: &Place<u8>| match place {
            Place::Done(caller, _) => *caller,
            Place::Running(_) => 0,
        };
        let done = |caller| Place::Done(caller, String::new());
        for number in 0..3 * MAX_PARKED as u64 {
            let (at, by) = (Duration::from_secs(number), if number < 3 { 1 } else { 2 });
            let gone = parked.add(State::new(number.into()), done(by), at, caller);
            assert!(gone.is_none_or(|gone| caller(&gone) == 2), "{number}");
        }
        assert!((0..3).all(|number| parked.get(State::new(number)).is_some()));
        assert!(parked.get(State::new(3)).is_none() && parked.table.len() == MAX_PARKED);
    }

    #[test]
    fn answers_that_wait_are_bounded_in_bytes() {
        let mut parked = Parked::default();
        let id = crate::proto::ids::Ids::counted().next(|_| false);
        for number in 0..20u64 {
            let state = State::new(number.into());
            assert!(parked.add(state, Place::Running(id), Duration::from_secs(number), |_| ()).is_none());
            parked.done(state, (), "x".repeat(1024 * 1024));
            assert!(parked.bytes() <= MAX_DONE);
        }
        assert!(parked.get(State::new(19)).is_some() && parked.get(State::new(0)).is_none());
        let state = State::new(20);
        assert!(parked.add(state, Place::Running(id), Duration::from_secs(20), |_| ()).is_none());
        parked.done(state, (), "x".repeat(MAX_DONE + 1));
        assert!(parked.get(state).is_none() && parked.get(State::new(19)).is_some(), "it takes none along");
        (0..20).for_each(|number| drop(parked.take(State::new(number))));
        assert_eq!((parked.bytes(), parked.is_empty()), (0, true));
    }
}
