//! A child: what it is told, and which of its answers ends which request.
//!
//! A link knows one child at a time: the handshake, the bridge's own ids, the requests in flight and their deadlines,
//! what waits, what is sent again, and what a new child must be told. The eras differ in the handshake alone: a child of
//! 2026-07-28 has none, and is asked `server/discover` in its place, so that it is clear when it serves. A link does not
//! know clients: of each request it keeps what its [front](super::front) gave along, and hands that back when the request
//! ends. Nor does it know whether the child is a process or a lane to one. Time is a [`Duration`] since the session began.
//!
//! A long file with one idea: each step with the child changes the handshake, the requests in flight and what waits
//! together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::echo::{ECHO_GRACE, TERMINAL_GRACE, is_of_client};
use super::ids::{BridgeId, Ids};
use super::incoming::Incoming;
use super::json::{Span, splice, unquote};
use super::message::{Head, Kind, Notification, Request, peek_head};
use super::nearly::Broken;
use super::output::{self, Dropped, NotRestored, Note, Out, Unanswered};
use super::version::Era;

mod calls;
mod handshake;
mod outcome;
mod outgoing;
mod repeated;
mod restore;
mod retry;

use calls::{Call, Calls};
use handshake::{Asked, Handshake};
pub use handshake::{
    era_of, own_discover, own_initialize, own_initialize_of_all, own_modern, own_reply, wanted_revision,
};
pub use outcome::{Answered, Expired, Untaken};
use outgoing::{Held, Message};
pub use outgoing::{MAX_HELD, Outgoing};
use repeated::{Called, Due, Remembered, Repeating};
use restore::{Effect, Restore};
pub use retry::Readiness;

/// How long a cancelled request waits for an answer that crossed the cancellation, before it ends with an error.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// How long the bridge waits for the child's answers to requests of its own, from when it serves.
pub const OWN_LIMIT: Duration = Duration::from_secs(10);

/// The longest `protocolVersion` that is one, in bytes with its quotes: a date has ten. It is kept as long as the session.
const MAX_REVISION: usize = 64;

/// How much may wait for the child's stdin when a refused request is sent again, in bytes: a child that refuses what it
/// has not read does not fill the queue.
const RESEND_ROOM: usize = 4 * 1024 * 1024;

const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The limits that an operator sets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long the child may take to answer `initialize`.
    pub init_timeout: Duration,
    /// How long any other request may take, from its arrival.
    pub request_timeout: Duration,
    /// How many requests of one session may be in flight.
    pub max_in_flight: usize,
    /// Whether the session outlives its child: then what a new one must be told is remembered.
    pub respawn: bool,
    /// The tools whose last calls a new child is sent again, a few; `None`: none.
    pub restore: Option<Arc<[Box<str>]>>,
    /// What is known of a server that needs time before it is ready.
    pub ready: Readiness,
    /// What gives out the ids of a link. The key of secret ones is random, and so comes from outside.
    pub ids: fn() -> Ids,
    /// What names a request that waits for its client to come back. It is random, and so comes from outside.
    pub state: fn() -> u128,
}

/// The link to a child. `C` is what a front remembers of each request.
#[derive(Debug)]
pub struct Link<C> {
    era: Era,
    limits: Limits,
    handshake: Handshake,
    calls: Calls<C>,
    held: Held,
    /// Until when messages wait although the handshake is over: [`Readiness::delay`].
    hold_until: Option<Duration>,
    /// Until when the child may say that it is not ready, while it may: [`Readiness::timeout`].
    retry_until: Option<Duration>,
    /// Requests of the bridge itself that the child has not answered, by their methods. Nothing waits for the answers.
    own: BTreeMap<BridgeId, String>,
    restore: Restore,
    remembered: Remembered,
    /// The calls that this child is sent again. All that clients send waits for their ends.
    repeating: Option<Repeating>,
    /// The tool whose call the lost child has not answered when it was sent again.
    lost_with: Option<usize>,
    /// Whether it has been said that this child echoes.
    echoes: bool,
}

impl<C> Link<C> {
    /// Begins the handshake with the session's first child: with `initialize`, or with the `server/discover` of a child of
    /// 2026-07-28. `initialized`: the bridge says `initialized` as soon as the child has answered, and does not wait for a
    /// client to say it.
    pub fn open(
        limits: Limits,
        initialize: &Request,
        initialized: bool,
        now: Duration,
        out: &mut Out,
    ) -> Self {
        let mut link = Self {
            era: era_of(initialize),
            calls: Calls::new((limits.ids)()),
            limits,
            handshake: Handshake::Starting { asked: None, initialized },
            held: Held::default(),
            hold_until: None,
            retry_until: None,
            own: BTreeMap::new(),
            restore: Restore::default(),
            remembered: Remembered::default(),
            repeating: None,
            lost_with: None,
            echoes: false,
        };
        let initialize = Outgoing { request: initialize.clone(), token: None };
        let effect = if link.limits.respawn { Effect::of(&initialize) } else { None };
        link.initialize(&initialize, effect, now, out);
        link
    }

    fn initialize(&mut self, request: &Outgoing, effect: Option<Effect>, now: Duration, out: &mut Out) {
        let id = self.calls.reserve();
        let deadline = now + self.limits.init_timeout;
        if let Handshake::Starting { asked, .. } = &mut self.handshake {
            *asked = Some(Asked { id, deadline, effect: effect.map(Box::new), echoed: false });
        }
        request.write(id, &mut out.stdin);
    }

    /// Whether a new child can be told what this one was told.
    pub fn can_restart(&self) -> bool {
        self.restore.initialize().is_some()
    }

    /// The child is gone and another will come: returns the requests that it may have seen, oldest first. What it has
    /// not seen waits for the other one, and so does what it has refused as not ready.
    pub fn child_lost(&mut self) -> Vec<(BridgeId, C)> {
        self.handshake = Handshake::AGAIN;
        (self.hold_until, self.retry_until) = (None, None);
        self.own.clear();
        let repeating = self.repeating.take();
        self.lost_with = repeating.and_then(|repeating| repeating.lost(&mut self.remembered));
        self.echoes = false;
        for (id, request) in self.calls.take_waiting().into_iter().rev() {
            self.held.push_first(Message::Request(id, request));
        }
        self.calls.drain_forwarded().into_iter().map(|(id, call)| (id, call.caller)).collect()
    }

    /// Begins the handshake with a new child as that with the first one began.
    pub fn restart(&mut self, now: Duration, out: &mut Out) {
        if let Some(tool) = self.lost_with.take() {
            out.note(Note::CallRestored { tool, how: Err(NotRestored::Lost) });
        }
        if let Some(initialize) = self.restore.initialize().cloned() {
            self.initialize(&initialize, None, now, out);
        }
    }

    /// How many requests of clients have no answer yet, those that are left open aside.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// How many requests of clients are left open: see [`listen`](Self::listen).
    pub fn listens(&self) -> usize {
        self.calls.open_ended()
    }

    /// Whether this request is in flight and left open.
    pub fn is_listen(&self, id: BridgeId) -> bool {
        self.calls.get(id).is_some_and(Call::is_open_ended)
    }

    /// Whether [`Limits::max_in_flight`] requests are in flight.
    pub fn is_full(&self) -> bool {
        self.calls.len() >= self.limits.max_in_flight
    }

    /// Whether it takes a further message: what waits for the handshake is bounded.
    pub fn accepting(&self) -> bool {
        self.held.has_room(self.limits.max_in_flight)
    }

    /// Until when what is passed on now may wait before the child serves it; `None`: it does not.
    pub fn serves_at(&self) -> Option<Duration> {
        let Readiness { delay, refusal, timeout } = &self.limits.ready;
        let retry = if refusal.is_some() { *timeout } else { Duration::ZERO };
        let handshake = self.handshake.asked().map(|asked| asked.deadline + *delay + retry);
        handshake.or(self.retry_until).or(self.hold_until)
    }

    /// How many bytes wait for the child to be ready.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// What the front knows of this request, if it is in flight.
    pub fn caller(&self, id: BridgeId) -> Option<&C> {
        self.calls.get(id).map(|call| &call.caller)
    }

    /// The request that the child names by this token, and what the front knows of it, if it is in flight.
    pub fn named(&self, token: &str) -> Option<&C> {
        self.caller(self.id_named(token)?)
    }

    /// The id that the child names by this token, if the link has given it out.
    pub fn id_named(&self, token: &str) -> Option<BridgeId> {
        self.calls.echoed(token)
    }

    /// The same, to be changed.
    pub fn caller_mut(&mut self, id: BridgeId) -> Option<&mut C> {
        self.calls.get_mut(id).map(|call| &mut call.caller)
    }

    /// All requests in flight and what the front knows of them, oldest first.
    pub fn callers(&self) -> impl Iterator<Item = (BridgeId, &C)> {
        self.calls.iter().map(|(id, call)| (id, &call.caller))
    }

    /// The front's knowledge of the calls that the child is at work on, newest first.
    pub fn at_work(&self) -> impl Iterator<Item = &C> {
        let calls = self.calls.iter().rev().map(|(_, call)| call);
        let is_at_work =
            |call: &&Call<C>| call.forwarded && call.cancelled.is_none() && !call.is_open_ended();
        calls.filter(is_at_work).map(|call| &call.caller)
    }

    /// The requests that the child has and has not answered, also those that have been cancelled, oldest first.
    pub fn forwarded(&self) -> impl Iterator<Item = (BridgeId, &C)> {
        let calls = self.calls.iter().filter(|(_, call)| call.forwarded);
        calls.map(|(id, call)| (id, &call.caller))
    }

    /// Passes a request on that came at `arrived`, or holds it until the child may see it. Returns its id.
    pub fn request(
        &mut self,
        caller: C,
        request: Outgoing,
        arrived: Duration,
        now: Duration,
        out: &mut Out,
    ) -> BridgeId {
        self.request_until(caller, request, arrived + self.limits.request_timeout, now, out)
    }

    /// Asks the child something in the bridge's own name. It has [`OWN_LIMIT`] for it from when it serves.
    pub fn ask(&mut self, caller: C, request: Request, now: Duration, out: &mut Out) -> BridgeId {
        let deadline = self.serves_at().map_or(now, |serves| serves.max(now)) + OWN_LIMIT;
        self.request_until(caller, Outgoing { request, token: None }, deadline, now, out)
    }

    /// The same for a request that has another deadline.
    fn request_until(
        &mut self,
        caller: C,
        request: Outgoing,
        deadline: Duration,
        now: Duration,
        out: &mut Out,
    ) -> BridgeId {
        self.pass_on(caller, request, Some(deadline), now, out)
    }

    /// The same for a request that the child answers when its client shall hear no more of it, and that is no call until
    /// then: it has no deadline, and [`in_flight`](Self::in_flight) does not count it.
    pub fn listen(&mut self, caller: C, request: Outgoing, now: Duration, out: &mut Out) -> BridgeId {
        self.pass_on(caller, request, None, now, out)
    }

    fn pass_on(
        &mut self,
        caller: C,
        request: Outgoing,
        deadline: Option<Duration>,
        now: Duration,
        out: &mut Out,
    ) -> BridgeId {
        let respawn = self.limits.respawn;
        let effect = if respawn { Effect::of(&request) } else { None };
        let called = if respawn { self.called(&request.request) } else { None };
        let id = self.calls.insert(Call {
            caller,
            deadline,
            cancelled: None,
            forwarded: false,
            effect,
            called: called.map(Box::new),
            retry: None,
        });
        self.write_or_hold(Message::Request(id, request), now, out);
        id
    }

    /// What is remembered of a call if it succeeds.
    fn called(&self, request: &Request) -> Option<Called> {
        let tools = self.limits.restore.as_ref()?;
        self.remembered.called(tools, request, self.calls.called_bytes())
    }

    /// Passes a notification on, or holds it until the child may see it.
    pub fn notification(&mut self, notification: Notification, now: Duration, out: &mut Out) {
        if notification.method() == "notifications/initialized" {
            self.initialized(notification.text(), now, out);
        } else {
            self.write_or_hold(Message::Notification(notification), now, out);
        }
    }

    /// Takes an `initialized` that some client has sent as a request. The child is told without the id.
    pub fn initialized_as_request(&mut self, now: Duration, out: &mut Out) {
        self.initialized(INITIALIZED, now, out);
    }

    /// Each child sees exactly one `initialized`, be the client's late, missing or repeated.
    fn initialized(&mut self, text: &[u8], now: Duration, out: &mut Out) {
        match &mut self.handshake {
            Handshake::Starting { initialized: true, .. } | Handshake::Open | Handshake::Failed => {
                out.note(Note::Swallowed("the server has been sent initialized already"));
            }
            Handshake::Starting { initialized, .. } => {
                *initialized = true;
                out.note(Note::Swallowed("the bridge sends initialized when the server has answered"));
            }
            Handshake::Answered => self.say_initialized(text, now, out),
        }
    }

    /// Cancels a request in flight: `text` says so, with the id at `span`. Returns what the front knows of the request if
    /// it has ended: the child has not seen it. Otherwise it ends with its answer, or after [`CANCEL_GRACE`].
    pub fn cancel(
        &mut self,
        id: BridgeId,
        text: &[u8],
        span: Span,
        now: Duration,
        out: &mut Out,
    ) -> Option<C> {
        let call = self.calls.get(id)?;
        if call.cancelled.is_some() {
            out.note(Note::Swallowed("the request was cancelled before"));
            return None;
        }
        if !call.forwarded {
            return self.calls.remove(id).map(|call| call.caller);
        }
        self.calls.set_cancelled(id, now + CANCEL_GRACE);
        splice(&mut out.stdin, text, span, id.to_string().as_bytes());
        out.stdin.extend_from_slice(b"\n");
        None
    }

    /// Ends a request in flight whose client waits for no answer any more, and tells the child if that has seen it: an answer
    /// that comes all the same is late. Returns what the front knows of it, and whether the child has seen it.
    pub fn withdraw(&mut self, id: BridgeId, out: &mut Out) -> Option<(C, bool)> {
        let call = self.calls.remove(id)?;
        if call.forwarded && call.cancelled.is_none() {
            cancelled(id, "the client has gone", out);
        }
        Some((call.caller, call.forwarded))
    }

    /// Tells the child that a request has ended which it may still be at work on.
    pub fn tell_ended(&self, id: BridgeId, out: &mut Out) {
        cancelled(id, "it is not clear whether it has been answered", out);
    }

    /// Ends a request that was left open, at the child's word. Returns what the front knows of it; `None`: it is none.
    pub fn end_listen(&mut self, id: BridgeId) -> Option<C> {
        if self.is_listen(id) { self.calls.remove(id).map(|call| call.caller) } else { None }
    }

    /// Whether the child has asked or said what only clients do: it has written back what was written to it, and nobody
    /// answers that. What is answered would come back too, and might end a call.
    pub fn echoes(&mut self, message: &Incoming<'_>, now: Duration, out: &mut Out) -> bool {
        if !is_of_client(message) {
            return false;
        }
        if matches!(&*message.envelope.method(message.text()), "initialize" | "server/discover")
            && let Handshake::Starting { asked: Some(asked), .. } = &mut self.handshake
            && !asked.echoed
        {
            asked.echoed = true;
            let grace = if message.crlf { TERMINAL_GRACE } else { ECHO_GRACE };
            asked.deadline = asked.deadline.min(now + grace);
        }
        if !std::mem::replace(&mut self.echoes, true) {
            out.note(Note::Echo);
        }
        true
    }

    /// Whether this answers a request that the child has, by its id.
    pub fn awaits(&self, answer: &Incoming<'_>) -> bool {
        matches!(answer.envelope.kind, Kind::Success | Kind::Failure)
            && answer.envelope.id.clone().is_some_and(|span| self.awaited(answer.token(span)).is_some())
    }

    /// The request with this id, if the child has it and has not answered.
    fn awaited(&self, token: &str) -> Option<BridgeId> {
        let id = self.calls.echoed(token)?;
        let is_own = self.is_handshake(id) || self.own.contains_key(&id) || self.is_repeated(id);
        (is_own || self.calls.is_with_child(id)).then_some(id)
    }

    fn is_handshake(&self, id: BridgeId) -> bool {
        self.handshake.asked().is_some_and(|asked| asked.id == id)
    }

    /// Whether the child has this call, which it is sent again.
    fn is_repeated(&self, id: BridgeId) -> bool {
        self.repeating.as_ref().and_then(Repeating::id) == Some(id)
    }

    /// Whether the child names by this token a call that it is sent again, and has not answered it.
    pub fn names_repeated(&self, token: &str) -> bool {
        self.repeating.is_some() && self.calls.echoed(token).is_some_and(|id| self.is_repeated(id))
    }

    /// Whether the child names the bridge's `initialize` by this token, and has not answered it.
    pub fn names_handshake(&self, token: &str) -> bool {
        self.calls.echoed(token).is_some_and(|id| self.is_handshake(id))
    }

    pub fn answer(&mut self, answer: &Incoming<'_>, now: Duration, out: &mut Out) -> Answered<C> {
        let token = answer.envelope.id.clone().map_or("null", |span| answer.token(span));
        let id = match token {
            // An error about a request whose id the child could not read (JSON-RPC 2.0 §5), or a child that loses ids:
            // with one request in flight there is no doubt which one it answers.
            "null" => self.only_one_with_child(),
            _ => self.calls.echoed(token),
        };
        let success = answer.envelope.kind == Kind::Success;
        let Some(id) = id else { return dropped(Dropped::UnknownId, out) };
        if self.is_handshake(id) {
            return Answered::Handshake(self.handshake_answered(answer, success, now, out));
        }
        if let Some(method) = self.own.remove(&id) {
            out.note(Note::Restored { method, success });
            return Answered::Nothing;
        }
        if self.is_repeated(id) {
            self.repeat_answered(answer, now, out);
            return Answered::Nothing;
        }
        if !self.calls.is_with_child(id) {
            let ended = self.calls.get(id).is_none();
            return dropped(if ended { Dropped::Late } else { Dropped::UnknownId }, out);
        }
        if let Some(until) = self.retry_until.filter(|until| now < *until)
            && self.limits.ready.is_refusal(answer.text(), success)
            && let Some(new) = self.calls.reschedule(id, now, until)
        {
            out.note(Note::NotReady);
            return Answered::Retried { old: id, new };
        }
        let Some(call) = self.calls.remove(id) else { return dropped(Dropped::Late, out) };
        if let (true, Some(effect)) = (success, call.effect) {
            self.restore.note(effect);
        }
        if let (true, None, Some(called)) = (success, call.cancelled, call.called) {
            self.remembered.answered(*called, id, answer, out);
        }
        Answered::Call { id, caller: call.caller }
    }

    fn handshake_answered(
        &mut self,
        answer: &Incoming<'_>,
        success: bool,
        now: Duration,
        out: &mut Out,
    ) -> output::Handshake {
        let before = std::mem::replace(&mut self.handshake, Handshake::Failed);
        let Handshake::Starting { asked, initialized } = before else { return output::Handshake::Refused };
        if !success {
            return output::Handshake::Refused;
        }
        if let Some(effect) = asked.and_then(|asked| asked.effect) {
            self.restore.note(*effect);
        }
        self.handshake = Handshake::Answered;
        if self.era == Era::Modern {
            self.begin(now, out);
        } else if initialized || !self.held.is_empty() {
            // Servers refuse what comes before `initialized`, and some clients never send it.
            self.say_initialized(INITIALIZED, now, out);
        }
        let version = answer.envelope.subject().map(|span| answer.token(span));
        let version = version.filter(|token| token.starts_with('"') && token.len() <= MAX_REVISION);
        let version = version.map(|token| unquote(token).into());
        output::Handshake::Done(version)
    }

    /// The one request that the child has not answered; `None` where there are none or several.
    fn only_one_with_child(&self) -> Option<BridgeId> {
        match self.with_child() {
            WithChild::One(id) => Some(id),
            WithChild::None | WithChild::Several => None,
        }
    }

    /// How many requests the child has not answered, the bridge's own included.
    fn with_child(&self) -> WithChild {
        let handshake = self.handshake.asked().map(|asked| asked.id);
        let calls = self.calls.iter().filter(|(_, call)| call.forwarded).map(|(id, _)| id);
        let repeated = self.repeating.as_ref().and_then(Repeating::id);
        let own = handshake.into_iter().chain(self.own.keys().copied()).chain(repeated);
        let mut all = own.chain(calls);
        match (all.next(), all.next()) {
            (None, _) => WithChild::None,
            (Some(id), None) => WithChild::One(id),
            (Some(_), Some(_)) => WithChild::Several,
        }
    }

    /// Takes note of a message of the child that began with `head` and was too long to take. A request is answered with
    /// an error.
    pub fn too_long(&mut self, head: &[u8], out: &mut Out) -> Untaken<C> {
        let id = match peek_head(head) {
            Head::NoMessage | Head::Call(None) => return Untaken::Nothing,
            Head::Call(Some(token)) => {
                let error = r#""error":{"code":-32603,"message":"the request is too long"}"#;
                out.reply(token, error, Note::Replied("a request that is too long"));
                return Untaken::Nothing;
            }
            Head::Answer(token) => match self.calls.echoed(token) {
                Some(id) => id,
                None => return Untaken::Nothing,
            },
            Head::Unclear => match self.with_child() {
                WithChild::None => return Untaken::Nothing,
                WithChild::One(id) => id,
                WithChild::Several => return Untaken::Unclear,
            },
        };
        self.untaken(id)
    }

    /// Ends the request that is named by what was to be its answer: nobody can take that, and there may be no other.
    pub fn broken(&mut self, broken: &Broken<'_>) -> Untaken<C> {
        let mut named = broken.ids.iter().filter_map(|token| self.awaited(token));
        let id = match (named.next(), named.next()) {
            (Some(id), None) => Some(id),
            (None, _) if broken.answers && broken.ids.iter().all(|token| *token == "null") => {
                self.only_one_with_child()
            }
            _ => None,
        };
        id.map_or(Untaken::Nothing, |id| self.untaken(id))
    }

    fn untaken(&mut self, id: BridgeId) -> Untaken<C> {
        if self.is_handshake(id) {
            self.handshake = Handshake::Failed;
            return Untaken::Handshake;
        }
        self.own.remove(&id);
        if self.is_repeated(id)
            && let Some(repeating) = &mut self.repeating
        {
            repeating.unreadable();
        }
        if !self.calls.is_with_child(id) {
            return Untaken::Nothing;
        }
        self.calls.remove(id).map_or(Untaken::Nothing, |call| Untaken::Call(id, call.caller))
    }

    /// When the next deadline passes.
    pub fn next_deadline(&self) -> Option<Duration> {
        let handshake = self.handshake.asked().map(|asked| asked.deadline);
        let call = self.calls.next_end().map(|(end, _)| end);
        let repeating = self.repeating.as_ref().map(Repeating::deadline);
        let ready = [self.hold_until, self.retry_until, self.calls.next_retry(), repeating];
        [handshake, call].into_iter().chain(ready).flatten().min()
    }

    /// Ends one thing whose deadline has passed. `None` when there is no more; what waited for the child to be ready has
    /// been written then.
    pub fn expire(&mut self, now: Duration, out: &mut Out) -> Option<Expired<C>> {
        if let Some(asked) = self.handshake.asked().filter(|asked| asked.deadline <= now) {
            let echoed = asked.echoed;
            self.handshake = Handshake::Failed;
            return Some(Expired::Handshake { echoed });
        }
        if let Some((end, id)) = self.calls.next_end()
            && end <= now
        {
            let call = self.calls.remove(id)?;
            if call.cancelled.is_some_and(|grace| grace <= now) {
                return Some(Expired::Call(id, call.caller, Unanswered::Cancelled));
            }
            if call.forwarded && call.cancelled.is_none() {
                cancelled(id, "the request timed out", out);
            }
            return Some(Expired::Call(id, call.caller, Unanswered::Timeout));
        }
        if self.hold_until.take_if(|until| *until <= now).is_some() {
            self.begin_work(now, out);
        }
        match self.repeating.as_ref().and_then(|repeating| repeating.due(now)) {
            None => {}
            Some(Due::Again) => self.repeat(now, out),
            Some(Due::Ended(why, id)) => {
                if let Some(id) = id {
                    cancelled(id, "the request timed out", out);
                }
                self.repeat_ended(Err(why), now, out);
            }
        }
        while out.stdin.len() < RESEND_ROOM
            && let Some((id, request)) = self.calls.take_due(now)
        {
            self.write(&Message::Request(id, request), out);
        }
        self.calls.postpone_due(now);
        // The last attempts are out by now, or it does not read: none waits for longer than this.
        if self.retry_until.take_if(|until| *until <= now).is_some() {
            self.calls.keep_none();
        }
        None
    }

    /// Ends every request of a client, oldest first. The session is over.
    pub fn abandon(&mut self) -> impl Iterator<Item = C> + use<C> {
        self.held = Held::default();
        self.calls.drain().map(|call| call.caller)
    }

    fn write_or_hold(&mut self, message: Message, now: Duration, out: &mut Out) {
        if matches!(self.handshake, Handshake::Answered) {
            self.say_initialized(INITIALIZED, now, out);
        }
        let is_early = self.handshake.is_starting() || self.hold_until.is_some() || self.repeating.is_some();
        if is_early || !self.held.is_empty() {
            self.held.push(&message);
        } else {
            self.write(&message, out);
        }
    }

    fn write(&mut self, message: &Message, out: &mut Out) {
        match message {
            Message::Notification(notification) => out.line(&[notification.text()]),
            // It may have been cancelled or timed out while it waited.
            Message::Request(id, _) if self.calls.get(*id).is_none() => {}
            Message::Request(id, request) => {
                request.write(*id, &mut out.stdin);
                self.calls.set_forwarded(*id);
                if self.retry_until.is_some() {
                    self.calls.keep_for_retry(*id, request);
                }
            }
        }
    }

    /// Ends the handshake with this `initialized`.
    fn say_initialized(&mut self, text: &[u8], now: Duration, out: &mut Out) {
        out.line(&[text]);
        self.begin(now, out);
    }

    /// The handshake is over. The times of [`Readiness`] begin here.
    fn begin(&mut self, now: Duration, out: &mut Out) {
        self.handshake = Handshake::Open;
        let Readiness { delay, refusal, timeout } = &self.limits.ready;
        self.hold_until = (!delay.is_zero()).then(|| now + *delay);
        self.retry_until = refusal.is_some().then(|| now + *delay + *timeout);
        if self.hold_until.is_none() {
            self.begin_work(now, out);
        }
    }

    /// Tells the child what is remembered, of which there is nothing for the session's first one, and then what waited.
    fn begin_work(&mut self, now: Duration, out: &mut Out) {
        let requests: Vec<_> = self.restore.requests().cloned().collect();
        for request in requests {
            let id = self.calls.reserve();
            self.own.insert(id, request.request.method().into_owned());
            request.write(id, &mut out.stdin);
        }
        self.repeating = Repeating::begin(&self.remembered);
        self.repeat(now, out);
    }

    /// Sends the child the call that is its turn to be sent again. If there is none, what waited is passed on.
    fn repeat(&mut self, now: Duration, out: &mut Out) {
        if let Some(repeating) = &mut self.repeating {
            return repeating.send(self.calls.reserve(), now + self.limits.init_timeout, out);
        }
        while let Some(message) = self.held.pop() {
            self.write(&message, out);
        }
    }

    /// The child has answered a call that it was sent again.
    fn repeat_answered(&mut self, answer: &Incoming<'_>, now: Duration, out: &mut Out) {
        let success = answer.envelope.kind == Kind::Success;
        if let Some(until) = self.retry_until.filter(|until| now < *until)
            && self.limits.ready.is_refusal(answer.text(), success)
            && let Some(repeating) = &mut self.repeating
        {
            out.note(Note::NotReady);
            return repeating.refused(now, until);
        }
        self.repeat_ended(Repeating::answered(answer), now, out);
    }

    /// A call that was sent again has ended: the next one's turn comes.
    fn repeat_ended(&mut self, how: Result<(), NotRestored>, now: Duration, out: &mut Out) {
        let Some(repeating) = self.repeating.take() else { return };
        let (tool, next) = repeating.end(&how, &mut self.remembered);
        out.note(Note::CallRestored { tool, how });
        self.repeating = next;
        self.repeat(now, out);
    }

    /// How many messages wait.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes of requests that are kept to be sent again.
    #[cfg(test)]
    pub(super) fn kept_for_retry(&self) -> usize {
        self.calls.kept()
    }

    /// That every index and every sum says what the table says.
    #[cfg(test)]
    pub(super) fn check(&self) {
        self.calls.check();
        self.remembered.check();
        self.held.len(); // which counts
    }
}

/// Tells the child that a request is cancelled.
fn cancelled(id: BridgeId, reason: &str, out: &mut Out) {
    let start = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"#;
    let parts = [start, &id.to_string(), r#","reason":""#, reason, "\"}}"];
    out.line(&parts.map(str::as_bytes));
}

fn dropped<C>(why: Dropped, out: &mut Out) -> Answered<C> {
    out.note(Note::Dropped(why));
    Answered::Nothing
}

/// How many requests the child has and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WithChild {
    None,
    One(BridgeId),
    Several,
}
