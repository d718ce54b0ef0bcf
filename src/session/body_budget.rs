//! How much memory the bodies of requests may take, from their first byte until a session has taken them.
//!
//! Memory is taken as bytes come: a body that is announced and does not come holds none. There are three sizes, each with
//! memory of its own, so that a call does not wait for an upload; and a ping, a cancellation or an `initialize` waits
//! for nothing that comes slowly, because tiny bodies take memory only when they have come to their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::account::{Account, Held, Place};
use crate::heap;

/// The longest tiny body, in bytes. What has come of one is no more than its request costs anyway.
const TINY: usize = 4 * 1024;

/// The longest small body, in bytes.
const SMALL: usize = 64 * 1024;

/// The least memory for large bodies, in bytes, beside that for one of the largest size.
const MIN_LARGE: usize = 4 * 1024 * 1024;

/// How many large bodies may be on their way at once. Each is in the way of others only so long as it comes slowly, and
/// those that wait for their turn hold nothing.
const TURNS: usize = 16;

/// How many bytes of tiny and small bodies, and of large ones, may wait for memory: in hand, and where the bridge cannot count
/// them, see [`BodyBudget::begin`]. It is no less than what the 128 requests of one HTTP/2 connection can cause.
const MAX_WAITING: (usize, usize) = (10 * 1024 * 1024, 20 * 1024 * 1024);

/// Memory is counted in units of this many bytes.
const UNIT: usize = 1024;

/// By how much the memory of a large body grows at least, in bytes.
const STEP: usize = 64 * 1024;

/// What a request costs beside its body, as measured, in bytes: without it a million tiny ones would weigh nothing.
const REQUEST: usize = 8 * 1024;

/// Why there is no memory for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMemory {
    /// As much as may waits for it already.
    Crowded,
    /// Whatever the bodies were for has ended.
    Closed,
}

/// How long a body is, as far as that is known: as it was announced, or as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    Tiny,
    Small,
    Large,
}

impl Size {
    fn of(bytes: usize) -> Self {
        if bytes <= TINY {
            Self::Tiny
        } else if bytes <= SMALL {
            Self::Small
        } else {
            Self::Large
        }
    }
}

/// The right to hold one request body, and its place in the account. Dropping it gives the memory back.
#[derive(Debug)]
pub struct BodyPermit {
    held: Held,
    #[expect(dead_code, reason = "held for its drop")]
    memory: Option<OwnedSemaphorePermit>,
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        if self.held.bytes() > SMALL {
            heap::note_freed(self.held.bytes());
        }
    }
}

/// A body that is on its way, and the memory that it has taken. Dropping it gives that back.
#[derive(Debug)]
pub struct Coming {
    held: Held,
    /// The length of the body, where it is announced.
    announced: Option<usize>,
    /// What may lie between the peer and the bridge while it waits, in bytes.
    unread: usize,
    size: Size,
    /// It has come to its end.
    whole: bool,
    units: Option<OwnedSemaphorePermit>,
    /// Set where it may grow to the largest size without further units.
    reserve: Option<OwnedSemaphorePermit>,
    /// Set while it comes, if it is large.
    turn: Option<OwnedSemaphorePermit>,
}

impl Coming {
    /// Whether it keeps memory from others, or a turn.
    pub fn is_in_the_way(&self) -> bool {
        self.units.is_some() || self.reserve.is_some()
    }

    /// Whether it is longer than 64 KiB, or announced to be.
    pub fn is_large(&self) -> bool {
        self.size == Size::Large
    }

    /// It is whole, and [has](BodyBudget::try_complete) the memory that it needs.
    pub fn into_permit(self) -> BodyPermit {
        BodyPermit { held: self.held, memory: self.reserve.or(self.units) }
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.units {
            Some(units) => units.merge(more),
            None => self.units = Some(more),
        }
    }

    /// How many bytes it may have.
    fn covered(&self) -> usize {
        match &self.reserve {
            Some(_) => usize::MAX,
            None => self.units.as_ref().map_or(0, |units| units.num_permits() * UNIT),
        }
    }
}

/// The memory for bodies that are on their way to one place.
#[derive(Debug)]
pub struct BodyBudget {
    tiny: Pool,
    small: Pool,
    large: Pool,
    account: Arc<Account>,
}

impl BodyBudget {
    /// Memory for `small` bytes of requests with bodies up to 4 KiB, for as many with bodies up to 64 KiB, and for longer
    /// ones 4 MiB or one of the largest size, and one of that size beside. `max_body` is in bytes.
    pub fn new(small: usize, max_body: usize, account: Arc<Account>) -> Self {
        let (waiting_small, waiting_large) = MAX_WAITING;
        Self {
            tiny: Pool::new(small, Semaphore::MAX_PERMITS, waiting_small),
            small: Pool::new(small, Semaphore::MAX_PERMITS, waiting_small),
            large: Pool::new(max_body.max(MIN_LARGE), TURNS, waiting_large),
            account,
        }
    }

    /// Where its bytes are counted.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// A body that has not come, and holds no memory yet.
    ///
    /// `length`: where it is announced. `unread`: how many bytes of it others than the caller hold while it waits and is
    /// not read: an HTTP/2 window, a buffer.
    pub fn begin(&self, length: Option<usize>, unread: usize) -> Coming {
        Coming {
            held: self.account.hold(Place::Bodies, REQUEST),
            announced: length,
            unread,
            size: Size::of(length.unwrap_or(0)),
            whole: false,
            units: None,
            reserve: None,
            turn: None,
        }
    }

    /// Lets a body have so many bytes, of which all but `before` have just been read, if memory is free. If not, the
    /// caller [waits](Self::grow) with them.
    ///
    /// # Errors
    /// [`NoMemory::Closed`].
    pub fn try_grow(&self, body: &mut Coming, before: usize, bytes: usize) -> Result<bool, NoMemory> {
        body.held.resize(body.held.bytes() + (bytes - before));
        let size = body.size.max(Size::of(bytes));
        if size != body.size {
            // What has come meanwhile is counted among what waits: shorter ones must not wait for this one's turn.
            (body.size, body.units, body.reserve) = (size, None, None);
        }
        if size == Size::Tiny { Ok(true) } else { self.pool(body).try_grow(body, bytes) }
    }

    /// The body has come to its end with so many bytes: takes the memory that it still needs, if that is free. If not,
    /// the caller [waits](Self::grow) for it.
    ///
    /// # Errors
    /// [`NoMemory::Closed`].
    pub fn try_complete(&self, body: &mut Coming, bytes: usize) -> Result<bool, NoMemory> {
        (body.turn, body.whole) = (None, true);
        if body.is_large() { Ok(true) } else { self.pool(body).try_grow(body, bytes) }
    }

    /// Waits until a body may have so many bytes.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub async fn grow(&self, body: &mut Coming, bytes: usize) -> Result<(), NoMemory> {
        let pool = self.pool(body);
        let in_hand = bytes.saturating_sub(body.covered());
        let unread = match body.announced {
            Some(length) => body.unread.min(length.saturating_sub(bytes)),
            None => body.unread,
        };
        let _waiting = pool.wait(REQUEST + in_hand + unread)?;
        let counted = body.held.bytes();
        body.held.resize(counted + unread);
        pool.grow(body, bytes).await?;
        body.held.resize(counted);
        Ok(())
    }

    /// Waits for the memory of a body that has been read already.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub async fn take(&self, bytes: usize) -> Result<BodyPermit, NoMemory> {
        let mut body = self.begin(Some(bytes), 0);
        if !self.try_grow(&mut body, 0, bytes)? {
            self.grow(&mut body, bytes).await?;
        }
        if !self.try_complete(&mut body, bytes)? {
            self.grow(&mut body, bytes).await?;
        }
        Ok(body.into_permit())
    }

    /// Whether others wait for what this body holds.
    pub fn is_wanted(&self, body: &Coming) -> bool {
        body.is_in_the_way() && self.pool(body).waiting.load(Ordering::Relaxed) > 0
    }

    fn pool(&self, body: &Coming) -> &Pool {
        match body.size {
            Size::Tiny => &self.tiny,
            Size::Small => &self.small,
            Size::Large => &self.large,
        }
    }

    /// Closes the budget: every waiter gets [`NoMemory::Closed`].
    pub(super) fn close(&self) {
        for pool in [&self.tiny, &self.small, &self.large] {
            pool.free.close();
            pool.reserve.close();
            pool.turns.close();
        }
    }
}

/// The memory for bodies of one kind.
///
/// A body grows while it holds a part, and two of those could wait for each other's parts for ever. So there is one
/// reserve beside the memory that they share, large enough for any body: of those that cannot grow one gets it, gives its
/// part back, needs no more, and gives back all when a session has taken it.
#[derive(Debug)]
struct Pool {
    free: Arc<Semaphore>,
    /// All of it, in units of [`UNIT`] bytes.
    units: usize,
    reserve: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    /// How many bytes wait for memory, as they were counted at the beginning of their wait.
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Counts as waiting until it is dropped.
struct Waiting<'p> {
    waiting: &'p AtomicUsize,
    bytes: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Pool {
    fn new(bytes: usize, turns: usize, max_waiting: usize) -> Self {
        let units = bytes.div_ceil(UNIT);
        Self {
            free: Arc::new(Semaphore::new(units)),
            units,
            reserve: Arc::new(Semaphore::new(1)),
            turns: Arc::new(Semaphore::new(turns)),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Counts a body as waiting with so many bytes.
    fn wait(&self, bytes: usize) -> Result<Waiting<'_>, NoMemory> {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Waiting { waiting: &self.waiting, bytes };
        if before >= self.max_waiting { Err(NoMemory::Crowded) } else { Ok(waiting) }
    }

    /// How many units are missing until the body may have so many bytes.
    fn missing(body: &Coming, bytes: usize) -> usize {
        let wanted = match body.size {
            Size::Large => bytes.next_multiple_of(STEP),
            // While it comes it weighs what has come: many that send a little and no more must leave room for others.
            Size::Small if !body.whole => bytes,
            Size::Small | Size::Tiny => bytes + REQUEST,
        };
        let units = body.units.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        wanted.div_ceil(UNIT).saturating_sub(units)
    }

    fn try_grow(&self, body: &mut Coming, bytes: usize) -> Result<bool, NoMemory> {
        let missing = if body.reserve.is_some() { 0 } else { Self::missing(body, bytes) };
        if missing == 0 && body.is_in_the_way() {
            return Ok(true);
        }
        if self.free.is_closed() {
            return Err(NoMemory::Closed);
        }
        if body.is_large() && body.turn.is_none() {
            match Arc::clone(&self.turns).try_acquire_owned() {
                Ok(turn) => body.turn = Some(turn),
                Err(_) => return Ok(false),
            }
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        match Arc::clone(&self.free).try_acquire_many_owned(missing) {
            Ok(units) => body.add(units),
            Err(_) => return Ok(false),
        }
        Ok(true)
    }

    async fn grow(&self, body: &mut Coming, bytes: usize) -> Result<(), NoMemory> {
        let closed = |_| NoMemory::Closed;
        if body.is_large() && body.turn.is_none() {
            body.turn = Some(Arc::clone(&self.turns).acquire_owned().await.map_err(closed)?);
        }
        let missing = Self::missing(body, bytes);
        let units = async {
            // One that needs more than there is would only keep it from others.
            if missing > self.units {
                return std::future::pending().await;
            }
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            Arc::clone(&self.free).acquire_many_owned(missing).await
        };
        tokio::select! {
            biased;
            units = units => body.add(units.map_err(closed)?),
            reserve = Arc::clone(&self.reserve).acquire_owned() => {
                body.reserve = Some(reserve.map_err(closed)?);
                body.units = None;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    const MIB: usize = 1024 * 1024;
    const SMALL_BUDGET: usize = 2 * MIB;

    fn budget() -> Arc<BodyBudget> {
        Arc::new(BodyBudget::new(SMALL_BUDGET, 4 * MIB, Arc::default()))
    }

    async fn soon<F: Future>(waiting: F) -> Option<F::Output> {
        timeout(Duration::from_millis(1), waiting).await.ok()
    }

    /// Lets a body come in pieces of this size.
    async fn read(
        budget: &BodyBudget,
        permit: &mut Coming,
        from: usize,
        to: usize,
        piece: usize,
    ) -> Result<(), NoMemory> {
        let mut read = from;
        while read < to {
            let before = read;
            read = (read + piece).min(to);
            if !budget.try_grow(permit, before, read)? {
                budget.grow(permit, read).await?;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// A body of announced length of which so many bytes have come.
    async fn begun(budget: &BodyBudget, length: usize, read_so_far: usize) -> Coming {
        let mut permit = budget.begin(Some(length), 0);
        soon(read(budget, &mut permit, 0, read_so_far, 16 * 1024)).await.expect("there is memory").unwrap();
        permit
    }

    /// Whether all that the budget has is free, and nothing is counted.
    fn assert_all_free(budget: &BodyBudget) {
        let unlimited = Semaphore::MAX_PERMITS;
        for (pool, turns) in [(&budget.tiny, unlimited), (&budget.small, unlimited), (&budget.large, TURNS)] {
            let free = (pool.free.available_permits(), pool.reserve.available_permits());
            assert_eq!(free, (pool.units, 1));
            assert_eq!((pool.turns.available_permits(), pool.waiting.load(Ordering::Relaxed)), (turns, 0));
        }
        assert_eq!(budget.account.total(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_has_sent_nothing_holds_nothing() {
        let budget = budget();
        let silent: Vec<_> = (0..1000).map(|_| budget.begin(Some(10 * MIB), 0)).collect();
        assert!(silent.iter().all(|permit| !permit.is_in_the_way()));
        assert!(soon(budget.take(10 * MIB)).await.is_some());
        drop(silent);
        assert_all_free(&budget);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_holds_what_it_has_sent_and_the_rest_is_for_others() {
        let budget = budget();
        let slow = begun(&budget, 10 * MIB, 100_000).await;
        assert_eq!(budget.account.at(Place::Bodies), 100_000 + REQUEST);
        assert!(soon(budget.take(3 * MIB)).await.is_some());
        drop(slow);
        assert_all_free(&budget);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_waits_for_no_large_one() {
        let budget = budget();
        let mut large = Vec::new();
        for _ in 0..TURNS {
            large.push(begun(&budget, 10 * MIB, 200_000).await);
        }
        let all = soon(budget.take(10 * MIB)).await;
        assert!(all.is_none(), "the large ones have all turns");
        assert!(soon(budget.take(SMALL)).await.is_some() && soon(budget.take(100)).await.is_some());
        let mut grows = budget.begin(None, 0);
        assert_eq!(soon(read(&budget, &mut grows, 0, SMALL, 1000)).await, Some(Ok(())), "of unknown length");
        assert!(soon(read(&budget, &mut grows, SMALL, SMALL + 1, 1)).await.is_none(), "now it is large");
        assert_eq!(budget.small.free.available_permits(), budget.small.units, "and holds no small one up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_short_bodies_that_stop_at_their_beginning_leave_room_for_whole_ones() {
        let budget = BodyBudget::new(2 * MIB, 10 * MIB, Arc::default());
        let mut stopped = Vec::new();
        for _ in 0..1000 {
            stopped.push(begun(&budget, 60_000, 600).await);
        }
        let whole = soon(budget.take(30_000)).await;
        assert!(whole.is_some_and(|taken| taken.is_ok()), "it does not wait, and is not refused");
        let mut ends = stopped.pop().unwrap();
        assert_eq!(budget.try_complete(&mut ends, 600), Ok(true));
        let units = ends.units.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        assert_eq!(units, (600 + REQUEST).div_ceil(UNIT), "a whole one weighs what its request costs");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tiny_body_waits_for_no_unfinished_one() {
        let budget = budget();
        let mut slow = Vec::new();
        for sent in [1, TINY - 1, TINY, 50_000] {
            for _ in 0..SMALL_BUDGET / sent.max(4096) {
                let mut permit = budget.begin(Some(sent + 1), 0);
                let _ = soon(read(&budget, &mut permit, 0, sent, 16 * 1024)).await;
                slow.push(permit);
            }
        }
        assert!(soon(budget.take(50_000)).await.is_none(), "no longer one has memory");
        assert!(soon(budget.take(TINY)).await.is_some());
        drop(slow);
        assert_all_free(&budget);
    }

    #[tokio::test(start_paused = true)]
    async fn longer_bodies_wait_for_no_shorter_ones() {
        let budget = budget();
        let mut taken = Vec::new();
        for length in [100, 50_000] {
            while let Some(permit) = soon(budget.take(length)).await {
                taken.push(permit.unwrap());
            }
        }
        assert!(taken.len() > 200, "{} fit", taken.len());
        assert!(soon(budget.take(10 * MIB)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_grow_together_beyond_the_memory_end_one_after_the_other() {
        let budget = budget();
        let growing: Vec<_> = (0..40)
            .map(|_| {
                let budget = Arc::clone(&budget);
                tokio::spawn(async move {
                    let mut permit = budget.begin(None, 0);
                    read(&budget, &mut permit, 0, 10 * MIB, 64 * 1024).await
                })
            })
            .collect();
        for body in growing {
            let ended = timeout(Duration::from_secs(60), body).await.expect("none waits for ever");
            assert_eq!(ended.unwrap(), Ok(()));
        }
        assert_all_free(&budget);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_waits_than_may_and_who_is_refused_is_told_at_once() {
        let budget = budget();
        let mut large = Vec::new();
        for _ in 0..TURNS {
            large.push(begun(&budget, 10 * MIB, 200_000).await);
        }
        let waits = |length: usize| {
            let budget = Arc::clone(&budget);
            tokio::spawn(async move {
                let mut permit = budget.begin(Some(length), 128 * 1024);
                read(&budget, &mut permit, 0, 1, 1).await
            })
        };
        let waiting: Vec<_> = (0..128).map(|_| waits(10 * MIB)).collect();
        sleep(Duration::from_millis(1)).await;
        assert!(waiting.iter().all(|body| !body.is_finished()), "one HTTP/2 connection can cause so many");
        assert!(budget.account.at(Place::Bodies) >= 128 * 128 * 1024, "what lies in its windows is counted");
        let beyond: Vec<_> = (0..50).map(|_| waits(10 * MIB)).collect();
        sleep(Duration::from_millis(1)).await;
        let refused = beyond.iter().filter(|body| body.is_finished()).count();
        assert!((20..50).contains(&refused), "{refused} of them");
        assert_eq!(soon(waits(100)).await.unwrap().unwrap(), Ok(()), "small ones do not wait there");
        drop(large);
        for body in waiting {
            assert_eq!(body.await.unwrap(), Ok(()));
        }
        for body in beyond {
            let ended = body.await.unwrap();
            assert!(matches!(ended, Ok(()) | Err(NoMemory::Crowded)), "{ended:?}");
        }
        assert_all_free(&budget);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_memory_learns_that_others_want_it() {
        let budget = budget();
        let (silent, mut slow) = (budget.begin(Some(10 * MIB), 0), begun(&budget, 10 * MIB, MIB).await);
        assert!(!budget.is_wanted(&slow));
        let mut reserve = budget.begin(None, 0);
        read(&budget, &mut reserve, 0, 10 * MIB, 10 * MIB).await.unwrap();
        let small = begun(&budget, 50_000, 20_000).await;
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.take(10 * MIB).await.map(drop) }
        });
        sleep(Duration::from_millis(1)).await;
        assert!(budget.is_wanted(&slow) && budget.is_wanted(&reserve));
        assert!(!budget.is_wanted(&silent) && !budget.is_wanted(&small), "what they hold is of no use to it");
        drop(reserve);
        waiting.await.unwrap().unwrap();
        assert!(!budget.is_wanted(&slow));
        assert_eq!(budget.try_complete(&mut slow, MIB), Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn every_waiter_learns_that_the_budget_is_closed() {
        let budget = budget();
        let mut grown = begun(&budget, 10 * MIB, 4 * MIB).await;
        let _reserve = Arc::clone(&budget.large.reserve).try_acquire_owned().unwrap();
        let (taken, grown, ()) =
            tokio::join!(budget.take(10 * MIB), read(&budget, &mut grown, 4 * MIB, 5 * MIB, MIB), async {
                budget.close()
            });
        assert_eq!((taken.map(drop), grown), (Err(NoMemory::Closed), Err(NoMemory::Closed)));
        assert_eq!(budget.take(1).await.map(drop), Err(NoMemory::Closed));
    }

    #[derive(Clone, Debug)]
    struct Body {
        length: usize,
        announced: bool,
        piece: usize,
        /// After how many bytes its client leaves.
        leaves: usize,
        /// For how long it waits for its session.
        held: u64,
    }

    fn body() -> impl Strategy<Value = Body> {
        let sizes = prop_oneof![1..TINY + 2, 1..SMALL + 2, SMALL..12 * MIB];
        (sizes, any::<bool>(), 1_000..300_000_usize, 0..20 * MIB, 0..100_u64).prop_map(
            |(length, announced, piece, leaves, held)| Body { length, announced, piece, leaves, held },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever comes, stops, leaves and is kept: each body comes to its end, and all is given back.
        #[test]
        fn no_bodies_wait_for_each_other_for_ever(bodies in prop::collection::vec(body(), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async move {
                let budget = budget();
                let all: Vec<_> = bodies.into_iter().map(|body| {
                    let budget = Arc::clone(&budget);
                    tokio::spawn(async move {
                        let announced = body.announced.then_some(body.length);
                        let mut permit = budget.begin(announced, 16 * 1024);
                        let length = body.length.min(body.leaves);
                        let _ = read(&budget, &mut permit, 0, length, body.piece).await;
                        if body.length == length && budget.try_complete(&mut permit, length) == Ok(false) {
                            let _ = budget.grow(&mut permit, length).await;
                        }
                        sleep(Duration::from_millis(body.held)).await;
                    })
                }).collect();
                for body in all {
                    timeout(Duration::from_secs(3600), body).await.expect("it ends").unwrap();
                }
                assert_all_free(&budget);
            });
        }
    }
}
