//! Sessions that share a child of the session era, each over a lane of its own. Each of them speaks as if it had the child
//! for itself; the child sees one client, the bridge, with one handshake.
//!
//! A lane is a stream that no answer ends. Sessions are strangers to each other: of what the child says, a lane gets what
//! names a call of its own, what can be of no other's call, and what is for all. The rest reaches nobody.
//!
//! A long file with one idea: whose each message is. What is counted over all lanes has rooms of its own: who holds which
//! resource, the log levels, and what the child has asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::greeting::{Greeting, MAX_GREETING};
use super::{
    Caller, Front, Origin, Readers, Refusal, acknowledge, cancelled, expired, is_initialized, pass_progress,
    too_long, with_id,
};
use crate::proto::capabilities::Declared;
use crate::proto::elicitation::{URL_NEEDED, elicitation_id, elicitations};
use crate::proto::ids::{BridgeId, ChildId, ClientId, Id, ProgressToken, StreamId};
use crate::proto::incoming::Incoming;
use crate::proto::json::{Span, slice, unquote, value_at};
use crate::proto::level::Level;
use crate::proto::lingering::Lingering;
use crate::proto::link::{Answered, Limits, Link, MAX_HELD, Outgoing, own_reply, wanted_revision};
use crate::proto::message::{Kind, Message, Notification, Request, Response};
use crate::proto::nearly::{Broken, Wrong};
use crate::proto::object::cuts;
use crate::proto::output::{Dropped, Handshake, Note, Out, Output, Unanswered};
use crate::proto::questions::{
    NOBODYS, TOO_MANY_UNCLEAR, UNCLEAR, UNSERVED, Undecided, Waits, give_up, is_broken_off, refuse,
    sole_owner,
};
use crate::proto::subscription::{UPDATED, uri_params};
use crate::proto::version::Revision;

mod asked;
mod holders;
mod levels;

use asked::{Asked, Question};
use holders::{Holders, Outcome};
use levels::Levels;

/// How many sessions may have a lane. One more hears nothing.
const MAX_LANES: usize = 64 * 1024;

/// How many requests of all lanes may be without an answer; beyond it they are refused. Each session has a limit of its
/// own: this one is for the sum.
pub(super) const MAX_CALLS: usize = 64 * 1024;

/// How much longer a call may take here than at its session, which ends it and says so: what has not ended by then is left
/// over.
pub(super) const MARGIN: Duration = Duration::from_secs(60);

/// Of how many calls a question may be one's. Where there are more it does not become clear in time.
const MAX_AMONG: usize = 1024;

/// The longest question that waits until it is clear whose it is, and all of them together, in bytes. One beyond it is
/// refused.
pub(super) const MAX_QUESTION: usize = 1024 * 1024;
const MAX_UNDECIDED: usize = MAX_HELD;

/// How many elicitations of one lane are remembered, and how long their names may be, in bytes: of others it is not told
/// that they are complete.
pub(super) const MAX_ELICITATIONS: usize = 64;
const MAX_ELICITATION: usize = 1024;

/// How many requests of the bridge's own the child may leave without an answer before it is asked no more. Each gives up
/// after [`OWN_LIMIT`](crate::proto::link::OWN_LIMIT).
const MAX_OWN: usize = 1000;

/// What a session is answered that asks for what the bridge does not pass on.
const NO_METHOD: &str = r#""error":{"code":-32601,"message":"Sessions that share a server cannot ask it this","data":{"source":"mcp-bridge","reason":"method_not_found"}}"#;

/// What a request at the link is.
#[derive(Debug)]
enum Who {
    Lane(Call),
    Own(Own),
}

impl Who {
    fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Lane(call) => Some(&call.caller),
            Self::Own(_) => None,
        }
    }

    fn lane(&self) -> Option<StreamId> {
        self.caller().map(|caller| caller.stream)
    }
}

/// A request of a lane.
#[derive(Debug)]
struct Call {
    caller: Caller,
    what: What,
    /// Whether the child has been told that its client has cancelled it.
    is_cancelled: bool,
}

/// What is to be done at its end, beside its answer.
#[derive(Debug)]
enum What {
    Plain,
    Level,
    Subscribe(Box<str>),
}

/// A request of the bridge's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Level,
    Unsubscribe,
}

/// A session that shares the child.
#[derive(Debug, Default)]
struct Lane {
    /// Whether it has got the child's greeting.
    is_greeted: bool,
    /// What its client can be asked.
    declared: Declared,
    /// In which revision its client wants to be answered.
    wanted: Option<Revision>,
    calls: HashMap<ClientId, BridgeId>,
    /// Its elicitations of which the child may say that they are complete, the newest last.
    elicitations: VecDeque<Box<str>>,
}

impl Lane {
    fn remember(&mut self, elicitation: Box<str>) {
        if elicitation.len() > MAX_ELICITATION || self.elicitations.contains(&elicitation) {
            return;
        }
        if self.elicitations.len() == MAX_ELICITATIONS {
            self.elicitations.pop_front();
        }
        self.elicitations.push_back(elicitation);
    }
}

/// The front of a child that several sessions share.
#[derive(Debug)]
pub struct Shared {
    link: Link<Who>,
    /// The newest time that is known.
    latest: Duration,
    lanes: BTreeMap<StreamId, Lane>,
    /// How many calls they have.
    calls: usize,
    greeting: Option<Greeting>,
    /// Lanes whose `initialize` waits for it.
    waiting: Vec<Caller>,
    lingering: Lingering<StreamId>,
    undecided: Undecided<Question, StreamId>,
    asked: Asked,
    levels: Levels,
    holders: Holders,
}

impl Shared {
    /// Begins with the bridge's own `initialize`.
    pub fn open(limits: Limits, initialize: &Request, now: Duration, out: &mut Out) -> Self {
        let limits = Limits {
            // Its sessions open another one: nothing is kept to be said to a next child.
            respawn: false,
            request_timeout: limits.request_timeout.saturating_add(MARGIN),
            max_in_flight: MAX_CALLS,
            ..limits
        };
        Self {
            link: Link::open(limits, initialize, true, now, out),
            latest: now,
            lanes: BTreeMap::new(),
            calls: 0,
            greeting: None,
            waiting: Vec::new(),
            lingering: Lingering::default(),
            undecided: Undecided::default(),
            asked: Asked::default(),
            levels: Levels::default(),
            holders: Holders::default(),
        }
    }

    fn request(
        &mut self,
        request: Request,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let (caller, token) = Caller::of(&request, from);
        let (lane, method) = (from.stream, request.method().into_owned());
        let waits = |waiting: &Caller| waiting.stream == lane && waiting.client == caller.client;
        if self.lanes.get(&lane).is_some_and(|lane| lane.calls.contains_key(&caller.client))
            || self.waiting.iter().any(waits)
        {
            return Err(Refusal::DuplicateId(caller.client));
        }
        let is_full = self.calls + self.waiting.len() >= MAX_CALLS;
        match &*method {
            "initialize" => {
                if let Some(lane) = self.lanes.get_mut(&lane) {
                    lane.declared = declared(&request);
                    lane.wanted = Some(wanted_revision(&request));
                }
                self.initialize(caller, is_full, out);
            }
            _ if is_initialized(&request) => acknowledge(&mut self.link, &caller, now, out),
            // Tasks are named by ids that another session could list. And what is named like a notification is one for a
            // child that looks at the method alone.
            method if method.starts_with("tasks/") || method.starts_with("notifications/") => {
                reply(&caller, NO_METHOD, false, out);
            }
            _ if is_full => caller.unanswered(Unanswered::Overload, out),
            "logging/setLevel" => self.set_level(caller, Outgoing { request, token }, from.arrived, now, out),
            "resources/subscribe" | "resources/unsubscribe" => {
                let outgoing = Outgoing { request, token };
                self.subscription(caller, outgoing, &method, from.arrived, now, out);
            }
            // The child sees the bridge's own token: two lanes may have the same.
            _ => {
                let outgoing = without_task(request, token);
                self.pass_on(caller, What::Plain, outgoing, from.arrived, now, out);
            }
        }
        Ok(())
    }

    /// A session opens the child, as each of them does: it gets what that has answered to the bridge.
    fn initialize(&mut self, caller: Caller, is_full: bool, out: &mut Out) {
        if let Some(greeting) = &self.greeting {
            let stream = caller.stream;
            let lane = self.lanes.get_mut(&stream);
            let wanted = lane.and_then(|lane| {
                lane.is_greeted = true;
                lane.wanted
            });
            let message = greeting.in_revision(wanted.unwrap_or(Revision::R2025_11_25), &caller.client);
            out.push(Output::Answer { stream, message, success: true });
        } else if is_full {
            caller.unanswered(Unanswered::Overload, out);
        } else {
            self.waiting.push(caller);
        }
    }

    fn pass_on(
        &mut self,
        caller: Caller,
        what: What,
        outgoing: Outgoing,
        arrived: Duration,
        now: Duration,
        out: &mut Out,
    ) -> BridgeId {
        let (lane, client) = (caller.stream, caller.client.clone());
        let id = self.link.request(
            Who::Lane(Call { caller, what, is_cancelled: false }),
            outgoing,
            arrived,
            now,
            out,
        );
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.calls.insert(client, id);
        }
        self.calls += 1;
        id
    }

    /// A lane sets its log level. The child is told the lowest of all; one that is none is its to answer.
    fn set_level(
        &mut self,
        caller: Caller,
        outgoing: Outgoing,
        arrived: Duration,
        now: Duration,
        out: &mut Out,
    ) {
        let request = &outgoing.request;
        let params = request.params().map_or("", |span| slice(request.text(), span));
        let span = value_at(params, &["level"]);
        let level = span.clone().and_then(|span| Level::parse(params.get(span)?));
        let (Some(span), Some(level)) = (span, level) else {
            self.pass_on(caller, What::Plain, outgoing, arrived, now, out);
            return;
        };
        let lane = caller.stream;
        let lowest = self.levels.lowest_with(lane, level);
        let outgoing = if lowest == level {
            outgoing
        } else {
            with_params(request, span, &format!("\"{}\"", lowest.as_str()))
        };
        let id = self.pass_on(caller, What::Level, outgoing, arrived, now, out);
        self.levels.asked(lane, id, level);
    }

    /// A lane wants to hear of a resource, or no more.
    fn subscription(
        &mut self,
        caller: Caller,
        outgoing: Outgoing,
        method: &str,
        arrived: Duration,
        now: Duration,
        out: &mut Out,
    ) {
        let uri = outgoing.request.subject().filter(|token| token.starts_with('"'));
        let (lane, uri) = (caller.stream, uri.map(|token| Box::<str>::from(unquote(token))));
        match uri {
            Some(uri) if method == "resources/subscribe" => {
                if !self.holders.has_room(lane, &uri) {
                    return caller.unanswered(Unanswered::Overload, out);
                }
                // The child has said yes, and one that counts would tell of each change twice.
                if self.holders.join(lane, &uri) {
                    return reply(&caller, r#""result":{}"#, true, out);
                }
                let what = What::Subscribe(uri.clone());
                let id = self.pass_on(caller, what, outgoing, arrived, now, out);
                self.holders.asked(lane, &uri, id);
            }
            // It would end another's, too.
            Some(uri) if !self.holders.unsubscribe(lane, &uri) => {
                reply(&caller, r#""result":{}"#, true, out);
            }
            _ => {
                self.pass_on(caller, What::Plain, outgoing, arrived, now, out);
            }
        }
    }

    /// Asks the child something in the bridge's own name, where it answers such requests.
    fn own(&mut self, own: Own, method: &str, params: &str, now: Duration, out: &mut Out) {
        if self.own_in_flight() < MAX_OWN {
            self.link.ask(Who::Own(own), Request::own(method, params), now, out);
        }
    }

    /// How many such requests have no answer.
    fn own_in_flight(&self) -> usize {
        self.link.in_flight().saturating_sub(self.calls)
    }

    fn release(&mut self, uri: &str, now: Duration, out: &mut Out) {
        self.own(Own::Unsubscribe, "resources/unsubscribe", &uri_params(uri), now, out);
    }

    /// Tells the child the lowest level that a lane has set, where that is another one than it has been told.
    fn correct_level(&mut self, now: Duration, out: &mut Out) {
        if self.own_in_flight() < MAX_OWN
            && let Some(level) = self.levels.correction()
        {
            let params = format!(r#"{{"level":"{}"}}"#, level.as_str());
            self.own(Own::Level, "logging/setLevel", &params, now, out);
        }
    }

    /// A notification of a lane: none may touch what is another's.
    fn notification(&mut self, notification: Notification, lane: StreamId, now: Duration, out: &mut Out) {
        let swallowed = match &*notification.method() {
            "notifications/initialized" => "the bridge says initialized itself",
            "notifications/cancelled" => return self.cancel(&notification, lane, now, out),
            "notifications/progress" if self.is_progress_of(&notification, lane) => {
                return self.link.notification(notification, now, out);
            }
            "notifications/progress" => "it is progress of nothing that the server has asked this session",
            // The child could not ask whose.
            "notifications/roots/list_changed" => "sessions that share a server have no roots in common",
            _ => return self.link.notification(notification, now, out),
        };
        out.note(Note::Swallowed(swallowed));
    }

    fn is_progress_of(&self, notification: &Notification, lane: StreamId) -> bool {
        let token = notification.subject().map(|span| slice(notification.text(), span));
        let token = token.and_then(Id::parse).map(ProgressToken);
        token.is_some_and(|token| self.asked.has_token(lane, &token))
    }

    fn cancel(&mut self, notification: &Notification, lane: StreamId, now: Duration, out: &mut Out) {
        let named = cancelled(notification);
        let id = named.and_then(|(client, span)| {
            let lane = self.lanes.get(&lane)?;
            Some((*lane.calls.get(&client?)?, span))
        });
        let Some((id, span)) = id else {
            return out.note(Note::Swallowed("the cancelled request is not in flight"));
        };
        if let Some(who) = self.link.cancel(id, notification.text(), span, now, out) {
            self.end(id, who, Unanswered::Cancelled, true, now, out);
        } else if let Some(Who::Lane(call)) = self.link.caller_mut(id) {
            call.is_cancelled = true;
        }
    }

    /// A lane's answer to what the child has asked it.
    fn response(&mut self, response: &Response, lane: StreamId, out: &mut Out) -> Result<(), Refusal> {
        if !self.asked.answered(lane, &ChildId(response.id().clone())) {
            return Err(Refusal::UnknownResponse);
        }
        out.line(&[response.text()]);
        Ok(())
    }

    /// A request ends without an answer of the child. `is_over`: the child is not at work on it either.
    fn end(&mut self, id: BridgeId, who: Who, why: Unanswered, is_over: bool, now: Duration, out: &mut Out) {
        match who {
            Who::Lane(call) => {
                if call.is_cancelled {
                    self.broken_off(id, out); // its answer may have said so
                }
                self.over(id, &call, Outcome::Unanswered, is_over, now, out);
                call.caller.unanswered(why, out);
            }
            Who::Own(own) => self.own_ended(own, false),
        }
    }

    fn own_ended(&mut self, own: Own, success: bool) {
        if own == Own::Level && !success {
            self.levels.correction_failed();
        }
    }

    /// A call is not at the link any more. `is_over`: see [`end`](Self::end).
    fn over(
        &mut self,
        id: BridgeId,
        call: &Call,
        outcome: Outcome,
        is_over: bool,
        now: Duration,
        out: &mut Out,
    ) {
        let Call { caller, what, .. } = call;
        let lane = caller.stream;
        self.calls -= 1;
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.calls.remove(&caller.client);
        }
        if is_over {
            self.decide(id, out);
        } else {
            self.lingering.add(id, lane, now);
        }
        match what {
            What::Plain => {}
            What::Level => {
                self.levels.ended(lane, id, outcome == Outcome::Taken);
                self.correct_level(now, out);
            }
            What::Subscribe(uri) => {
                if self.holders.ended(lane, uri, id, outcome) {
                    self.release(uri, now, out);
                }
            }
        }
    }

    /// The child is not at work on this call any more: it may be clear now whose its questions are.
    fn decide(&mut self, id: BridgeId, out: &mut Out) {
        for (lane, question) in self.undecided.ended(id) {
            self.assign(lane, question, out);
        }
    }

    /// The child has broken this call off: what may have been its questions are over.
    fn broken_off(&mut self, id: BridgeId, out: &mut Out) {
        for question in self.undecided.broken_off(id) {
            refuse(&question.child, UNCLEAR, out);
        }
    }

    fn child_answer(&mut self, answer: Incoming<'_>, now: Duration, out: &mut Out) {
        let token = answer.envelope.id.clone().map_or("null", |span| answer.token(span));
        let doubtful = token == "null" && self.lingering.doubts(now);
        if let Some(id) = self.link.id_named(token)
            && self.lingering.answered(id)
        {
            if is_broken_off(&answer) {
                self.broken_off(id, out);
            }
            self.decide(id, out);
        }
        let success = answer.envelope.kind == Kind::Success;
        match self.link.answer(&answer, now, out) {
            Answered::Call { id, caller: who } if doubtful => {
                let what = "it has no id, and may be the late one to another request";
                if !matches!(&who, Who::Lane(call) if call.is_cancelled) {
                    self.link.tell_ended(id, out);
                }
                self.end(id, who, Unanswered::Invalid(Wrong { what, at: 0 }), false, now, out);
            }
            Answered::Call { caller: Who::Own(own), .. } => self.own_ended(own, success),
            Answered::Call { id, caller: Who::Lane(call) } => {
                let outcome = if success { Outcome::Taken } else { Outcome::Refused };
                if call.is_cancelled && is_broken_off(&answer) {
                    self.broken_off(id, out);
                }
                self.over(id, &call, outcome, true, now, out);
                let Call { caller, .. } = call;
                if !success {
                    self.remember_elicitations(caller.stream, &answer);
                }
                let message = with_id(answer, &caller.client);
                out.push(Output::Answer { stream: caller.stream, message, success });
            }
            Answered::Handshake(how) => self.greeted(how, &answer, out),
            Answered::Retried { old, new } => self.renamed(old, new),
            Answered::Nothing => {}
        }
    }

    /// The child has answered the bridge's `initialize`.
    fn greeted(&mut self, how: Handshake, answer: &Incoming<'_>, out: &mut Out) {
        if answer.text().len() > MAX_GREETING {
            out.note(Note::LongGreeting(MAX_GREETING));
            return out.push(Output::Handshake(Handshake::Refused));
        }
        if !matches!(how, Handshake::Done(_)) {
            // Why it refuses, each session can tell its client.
            let refusal = Greeting::of(answer);
            for caller in std::mem::take(&mut self.waiting) {
                let (stream, message) = (caller.stream, refusal.for_client(&caller.client));
                out.push(Output::Answer { stream, message, success: false });
            }
            return out.push(Output::Handshake(how));
        }
        out.push(Output::Handshake(how));
        self.greeting = Some(Greeting::without_tasks(answer));
        for caller in std::mem::take(&mut self.waiting) {
            self.initialize(caller, false, out);
        }
    }

    /// A call has a new id at the link.
    fn renamed(&mut self, old: BridgeId, new: BridgeId) {
        let Some(Who::Lane(Call { caller, what, .. })) = self.link.caller(new) else { return };
        let lane = caller.stream;
        if let Some(id) = self.lanes.get_mut(&lane).and_then(|lane| lane.calls.get_mut(&caller.client)) {
            *id = new;
        }
        self.undecided.renamed(old, new, lane);
        match what {
            What::Plain => {}
            What::Level => self.levels.renamed(lane, old, new),
            What::Subscribe(uri) => self.holders.renamed(lane, uri, old, new),
        }
    }

    /// The child needs URLs to be opened before it serves this lane's request, and says later when they have been.
    fn remember_elicitations(&mut self, lane: StreamId, error: &Incoming<'_>) {
        let Some(lane) = self.lanes.get_mut(&lane) else { return };
        if error.error_code().is_some_and(|(code, _)| code == URL_NEEDED) {
            elicitations(error).filter_map(elicitation_id).for_each(|id| lane.remember(id));
        }
    }

    /// The calls that the child may be at work on, and whose each is.
    fn at_work(&self) -> impl Iterator<Item = (BridgeId, StreamId)> {
        let forwarded = self.link.forwarded().filter_map(|(id, who)| Some((id, who.lane()?)));
        forwarded.chain(self.lingering.calls())
    }

    /// Whether the child has a call of some lane.
    fn is_at_work(&self) -> bool {
        self.link.forwarded().any(|(_, who)| who.lane().is_some())
    }

    /// The one lane that can be meant by what names nobody: only its calls are with the child.
    fn only_lane(&self, now: Duration) -> Option<StreamId> {
        if !self.is_at_work() || self.lingering.is_crowded(now) {
            return None;
        }
        let mut lanes = self.at_work().map(|(_, lane)| lane);
        let first = lanes.next()?;
        lanes.all(|lane| lane == first).then_some(first)
    }

    fn child_request(&mut self, message: Incoming<'_>, now: Duration, out: &mut Out) {
        let token = message.envelope.id.clone().map_or("null", |span| message.token(span));
        let id = Id::parse(token).filter(|_| message.envelope.method(message.text()) != "ping");
        let Some(child) = id.map(ChildId) else { return own_reply(&message, out) };
        if self.asked.has(&child) || self.undecided.has(&child) {
            return refuse(&child, "a request with this id has no answer yet", out);
        }
        if !self.is_at_work() {
            // It may be of a call that has ended, and whose session asks nobody any more.
            let question = Question::of(child, message);
            return if self.lingering.doubts(now) {
                give_up(&question.child, question.need, out);
            } else {
                refuse(&question.child, NOBODYS, out);
            };
        }
        let among: BTreeMap<_, _> = self.at_work().take(MAX_AMONG + 1).collect();
        if self.lingering.is_crowded(now) || among.len() > MAX_AMONG {
            return refuse(&child, UNCLEAR, out);
        }
        let question = Question::of(child, message);
        if let Some(lane) = sole_owner(&among) {
            return self.assign(lane, question, out);
        }
        if !among.values().any(|lane| self.serves(*lane, &question)) {
            return refuse(&question.child, UNSERVED, out);
        }
        if question.bytes() > MAX_QUESTION || self.undecided.bytes() + question.bytes() > MAX_UNDECIDED {
            return refuse(&question.child, "it is too long to wait until it is clear whose it is", out);
        }
        if let Err(question) = self.undecided.add(question, among, None, now) {
            refuse(&question.child, TOO_MANY_UNCLEAR, out);
        }
    }

    /// Whether the client of this lane can be asked this.
    fn serves(&self, lane: StreamId, question: &Question) -> bool {
        let declared = self.lanes.get(&lane).map(|lane| lane.declared);
        declared.is_some_and(|declared| question.need.is_none_or(|need| declared.allows(need)))
    }

    /// A question belongs to a call of this lane.
    fn assign(&mut self, lane: StreamId, question: Question, out: &mut Out) {
        let serves = self.serves(lane, &question);
        let Some(known) = self.lanes.get_mut(&lane) else {
            return give_up(&question.child, question.need, out);
        };
        if !serves {
            return refuse(&question.child, UNSERVED, out);
        }
        if !self.asked.add(lane, &question) {
            return refuse(&question.child, "this session is asked too much at once", out);
        }
        if let Some(elicitation) = question.elicitation {
            known.remember(elicitation);
        }
        out.push(Output::Message { stream: lane, message: question.line });
    }

    fn child_notification(&mut self, message: Incoming<'_>, now: Duration, out: &mut Out) {
        match &*message.envelope.method(message.text()).into_owned() {
            "notifications/progress" => pass_progress(&self.link, message, Who::caller, out),
            "notifications/cancelled" => self.taken_back(message, out),
            UPDATED => {
                let uri = message.envelope.subject().map(|span| slice(message.text(), span));
                let lanes = uri.map(|uri| self.holders.of(&unquote(uri))).unwrap_or_default();
                tell(lanes, message, out);
            }
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => {
                let greeted = self.lanes.iter().filter(|(_, lane)| lane.is_greeted);
                tell(greeted.map(|(lane, _)| *lane), message, out);
            }
            "notifications/elicitation/complete" => {
                let lane = self.elicited(&message);
                tell(lane, message, out);
            }
            "notifications/message" => {
                let params = message.envelope.params.clone().map_or("", |span| slice(message.text(), span));
                let level = value_at(params, &["level"]).and_then(|span| Level::parse(params.get(span)?));
                let lane = self.only_lane(now).filter(|lane| self.levels.allows(*lane, level));
                tell(lane, message, out);
            }
            _ => tell(self.only_lane(now), message, out),
        }
    }

    /// The child takes a question back: who has got it gets this too.
    fn taken_back(&mut self, message: Incoming<'_>, out: &mut Out) {
        let named = message.envelope.subject().and_then(|span| Id::parse(message.token(span)));
        let lane = match named.map(ChildId) {
            Some(child) if self.undecided.take_back(&child) => return,
            Some(child) => self.asked.take(&child),
            None => None,
        };
        tell(lane, message, out);
    }

    /// The lane whose client has been asked the elicitation that is complete now.
    fn elicited(&mut self, message: &Incoming<'_>) -> Option<StreamId> {
        let params = message.envelope.params.clone().map(|span| slice(message.text(), span))?;
        let id = elicitation_id(params)?;
        let mut asked = self.lanes.iter_mut().filter(|(_, lane)| lane.elicitations.contains(&id));
        let (stream, lane) = asked.next()?;
        if asked.next().is_some() {
            return None; // the child has given the same name twice
        }
        lane.elicitations.retain(|known| *known != id);
        Some(*stream)
    }
}

/// What the client of a session declares in its `initialize`.
fn declared(initialize: &Request) -> Declared {
    let params = initialize.params().map_or("", |span| slice(initialize.text(), span));
    let capabilities = value_at(params, &["capabilities"]).and_then(|span| params.get(span));
    Declared::parse(capabilities.unwrap_or("{}"))
}

/// A request that makes no task: the session has not been offered any, and a server that offers none serves such a request as
/// any other (2025-11-25 `basic/utilities/tasks`, "Task Support and Handling"). What the child said or asked later for a
/// task of one session would be taken for what another one has asked.
fn without_task(request: Request, token: Option<Span>) -> Outgoing {
    let params = slice(request.text(), request.params().unwrap_or_default());
    match cuts(params, &["task"]).into_iter().next() {
        Some(cut) => with_params(&request, cut, ""),
        None => Outgoing { request, token },
    }
}

/// A request with another text in place of a part of its parameters; `span`: where that lies in them. No token lies within.
fn with_params(request: &Request, span: Span, new: &str) -> Outgoing {
    let place = request.params().unwrap_or_default();
    let params = slice(request.text(), place.clone());
    let (before, behind) = (params.get(..span.start).unwrap_or(""), params.get(span.end..).unwrap_or(""));
    let moved = |at: usize| {
        let at = at - place.start;
        if at < span.end { at } else { at - span.len() + new.len() }
    };
    let token = request.token().map(|token| moved(token.start)..moved(token.end));
    let request = request.with_params(&[before, new, behind].concat(), token);
    let token = request.token();
    Outgoing { request, token }
}

/// Answers a lane in the child's place.
fn reply(caller: &Caller, member: &str, success: bool, out: &mut Out) {
    let message = format!(r#"{{"jsonrpc":"2.0","id":{},{member}}}"#, caller.client.0.as_json()).into();
    out.push(Output::Answer { stream: caller.stream, message, success });
}

/// Gives a message of the child to these lanes.
fn tell(lanes: impl IntoIterator<Item = StreamId>, message: Incoming<'_>, out: &mut Out) {
    let mut lanes = lanes.into_iter().peekable();
    if lanes.peek().is_none() {
        return out.note(Note::Dropped(Dropped::Unrelated));
    }
    let message = message.into_line();
    for stream in lanes {
        out.push(Output::Message { stream, message: message.clone() });
    }
}

impl Front for Shared {
    fn client(
        &mut self,
        message: Message,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        self.latest = now;
        if !self.lanes.contains_key(&from.stream) {
            out.note(Note::Swallowed("its session has no lane to the server"));
            return Ok(());
        }
        match message {
            Message::Request(request) => self.request(request, from, now, out)?,
            Message::Notification(notification) => self.notification(notification, from.stream, now, out),
            Message::Response(response) => self.response(&response, from.stream, out)?,
        }
        Ok(())
    }

    fn child(&mut self, message: Incoming<'_>, now: Duration, _: Readers<'_>, out: &mut Out) {
        self.latest = now;
        if self.link.echoes(&message, now, out) {
            return;
        }
        match message.envelope.kind {
            Kind::Success | Kind::Failure => self.child_answer(message, now, out),
            Kind::Request => self.child_request(message, now, out),
            Kind::Notification => self.child_notification(message, now, out),
        }
    }

    fn child_too_long(&mut self, head: &[u8], out: &mut Out) {
        if let Some((id, who, why)) = too_long(&mut self.link, head, out) {
            // It may name nothing, and be the late answer to another.
            let is_over = !self.lingering.doubts(self.latest);
            self.end(id, who, why, is_over, self.latest, out);
        }
    }

    fn child_broken(&mut self, broken: &Broken<'_>, out: &mut Out) -> bool {
        match super::broken(&mut self.link, broken, out) {
            Ok((id, who, why)) => {
                let is_over = !self.lingering.doubts(self.latest);
                self.end(id, who, why, is_over, self.latest, out);
                true
            }
            Err(ended) => ended,
        }
    }

    fn awaits(&self, answer: &Incoming<'_>) -> bool {
        self.link.awaits(answer)
    }

    fn expire(&mut self, now: Duration, _: Readers<'_>, out: &mut Out) {
        self.latest = now;
        while let Some((id, who, why)) = expired(&mut self.link, now, out) {
            self.end(id, who, why, false, now, out);
        }
        // What came before may still be what such a call has asked: that goes to nobody.
        self.lingering.expire(now);
        for question in self.undecided.expire(now) {
            refuse(&question.child, UNCLEAR, out);
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        let waiting = [self.lingering.next_deadline(), self.undecided.next_deadline()];
        waiting.into_iter().flatten().chain(self.link.next_deadline()).min()
    }

    /// The session of this lane has ended.
    fn reader_left(&mut self, lane: StreamId, _: bool, now: Duration, out: &mut Out) {
        self.latest = now;
        let Some(Lane { calls, .. }) = self.lanes.remove(&lane) else { return };
        for caller in self.waiting.extract_if(.., |caller| caller.stream == lane) {
            caller.unanswered(Unanswered::Cancelled, out);
        }
        let unwanted = self.holders.left(lane);
        self.levels.left(lane);
        let asked = self.asked.left(lane);
        let mut calls: Vec<_> = calls.into_values().collect();
        calls.sort();
        for id in calls {
            if let Some((who, was_seen)) = self.link.withdraw(id, out) {
                self.end(id, who, Unanswered::Cancelled, !was_seen, now, out);
            }
        }
        // Behind the cancellations: the child is not to go on with a call because this has an end.
        for (child, need) in asked {
            give_up(&child, need, out);
        }
        for uri in unwanted {
            self.release(&uri, now, out);
        }
        self.correct_level(now, out);
    }

    fn in_flight(&self) -> usize {
        self.calls + self.waiting.len()
    }

    fn accepting(&self) -> bool {
        self.link.accepting()
    }

    fn held_bytes(&self) -> usize {
        self.link.held_bytes() + self.undecided.bytes() + self.asked.bytes()
    }

    fn join(&mut self, lane: StreamId) {
        if self.lanes.len() < MAX_LANES {
            self.lanes.entry(lane).or_default();
        }
    }

    fn has_lanes(&self) -> bool {
        !self.lanes.is_empty()
    }

    fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        self.calls = 0;
        for lane in self.lanes.values_mut() {
            lane.calls.clear();
            lane.elicitations.clear();
        }
        self.lingering.clear();
        (self.undecided, self.asked) = Default::default();
        (self.levels, self.holders) = Default::default();
        let waiting = self.waiting.drain(..);
        let calls = self.link.abandon().filter_map(|who| match who {
            Who::Lane(call) => Some(call.caller),
            Who::Own(_) => None,
        });
        waiting.chain(calls).map(|caller| (caller.stream, caller.client)).collect()
    }

    #[cfg(test)]
    fn check(&self) {
        use std::collections::BTreeSet;

        self.link.check();
        self.undecided.check();
        let mut calls = BTreeMap::<_, HashMap<_, _>>::new();
        for (id, who) in self.link.callers() {
            if let Some(caller) = who.caller() {
                calls.entry(caller.stream).or_default().insert(caller.client.clone(), id);
            }
        }
        assert_eq!(self.calls, calls.values().map(HashMap::len).sum::<usize>(), "each call is counted");
        let busy = self.lanes.iter().filter(|(_, lane)| !lane.calls.is_empty());
        let by_lane: BTreeMap<_, _> = busy.map(|(lane, known)| (*lane, known.calls.clone())).collect();
        assert_eq!(by_lane, calls, "each call is found by its lane and its client's id");
        let whats = |is: fn(&What) -> bool| {
            let calls = self.link.callers().filter_map(move |(id, who)| match who {
                Who::Lane(call) if is(&call.what) => Some((call.caller.stream, id)),
                _ => None,
            });
            calls.collect::<BTreeSet<_>>()
        };
        let setting: BTreeSet<_> = self.levels.check().collect();
        assert!(setting.is_subset(&whats(|what| matches!(what, What::Level))), "a level that is asked for");
        let subscribing = whats(|what| matches!(what, What::Subscribe(_)));
        for (lane, asked) in self.holders.check() {
            assert!(self.lanes.contains_key(&lane), "who holds a resource is there");
            assert!(asked.iter().all(|id| subscribing.contains(&(lane, *id))));
        }
        let present = |lane: &StreamId| self.lanes.contains_key(lane);
        assert!(self.asked.check().all(|lane| present(&lane)), "who was asked is there");
        assert!(self.levels.lanes().all(|lane| present(&lane)), "who has set a level is there");
        assert!(self.waiting.iter().all(|caller| present(&caller.stream)), "who waits is there");
        assert!(self.waiting.is_empty() || self.greeting.is_none());
    }
}
