//! Clients of 2026-07-28 that share a child of it. There are no sessions between them: each request says for itself all
//! that is to be known of its client, and a message of the child reaches a client only where it names one of its requests.
//!
//! Sessions with lanes to the child are clients too, that speak as over stdio: one has many requests on its stream, ends them
//! with notifications, and has no heads that the child's tools could want compared.

use std::time::Duration;

use bytes::Bytes;

use super::{
    Caller, Front, Keeps, Origin, Readers, Refusal, Takes, cancelled, expired, id_edit, pass_on,
    pass_progress, too_long, with_id,
};
use crate::proto::ids::{BridgeId, ClientId, StreamId};
use crate::proto::incoming::Incoming;
use crate::proto::json::{Span, slice};
use crate::proto::link::{Answered, CANCEL_GRACE, Limits, Link, MAX_HELD, Outgoing, own_modern, own_reply};
use crate::proto::message::{Kind, Message, Notification, Request};
use crate::proto::nearly::Broken;
use crate::proto::output::{Declined, Dropped, Handshake, Note, Out, Output, Unanswered};
use crate::proto::subscription::graceful_end;
use crate::proto::tools::{Tools, page_member};
use crate::proto::version::is_removed;

mod lanes;

use lanes::Lanes;

/// How much longer a call of a lane may take than others: its session has the same limit and cancels it itself.
pub const LANE_MARGIN: Duration = Duration::from_secs(60);

/// How many calls of all lanes together may be in flight, and how many subscriptions there may be. Each session has its own
/// limit; this one bounds the memory that all of them take.
pub const MAX_OF_LANES: usize = 16 * 1024;

/// What a request at the link is.
#[derive(Debug)]
enum Who {
    Client(Caller),
    /// The bridge's own, for a page of the child's tools.
    Tools,
}

impl Who {
    fn client(&self) -> Option<&Caller> {
        match self {
            Self::Client(caller) => Some(caller),
            Self::Tools => None,
        }
    }
}

/// A call that waits until the child's tools are known.
#[derive(Debug)]
struct Held {
    caller: Caller,
    call: Outgoing,
    params: Vec<(Box<str>, Box<[u8]>)>,
    arrived: Duration,
}

/// The front of a session of such clients.
#[derive(Debug)]
pub struct Modern {
    link: Link<Who>,
    tools: Tools<Held>,
    lanes: Lanes,
    /// Whether the child has answered `server/discover`.
    has_begun: bool,
    request_timeout: Duration,
    /// Whether the clients are strangers to each other: then none may get what may be another's.
    strangers: bool,
    /// How many calls of clients over HTTP may be in flight, and how many subscriptions there may be.
    max_in_flight: usize,
    /// The newest time that is known.
    latest: Duration,
    /// Whether the child may answer a request that has ended without its answer.
    owes_answers: bool,
    /// Until when a log message may be of such a call.
    settled_at: Duration,
}

impl Modern {
    /// Begins the session with the bridge's own `server/discover`.
    pub fn open(limits: Limits, discover: &Request, strangers: bool, now: Duration, out: &mut Out) -> Self {
        let max_in_flight = limits.max_in_flight;
        // Nothing that was said to a child of this revision holds for the next one: there is nothing to restore.
        let limits = Limits { respawn: false, ..limits };
        let request_timeout = limits.request_timeout;
        let link = Link::open(limits, discover, false, now, out);
        let tools = Tools::default();
        Self {
            link,
            tools,
            lanes: Lanes::default(),
            has_begun: false,
            request_timeout,
            strangers,
            max_in_flight,
            latest: now,
            owes_answers: false,
            settled_at: now,
        }
    }

    fn request(&mut self, request: Request, from: Origin<'_>, now: Duration, out: &mut Out) {
        let (caller, token) = Caller::of(&request, from);
        let listens = request.method() == "subscriptions/listen";
        let is_full = match listens {
            true => self.link.listens() - self.lanes.listens() >= self.max_in_flight,
            false => {
                self.link.in_flight() - self.lanes.calls() >= self.max_in_flight
                    || self.tools.held().len() >= self.max_in_flight
            }
        };
        let is_removed = is_removed(&request.method());
        let is_tool = request.method() == "tools/call";
        // The child sees the bridge's own token: two clients may have chosen the same.
        let outgoing = Outgoing { request, token };
        if is_removed {
            // A child that also knows sessions would open one, or change what it tells all.
            caller.unanswered(Unanswered::Declined(Declined::Method), out);
        } else if is_full {
            caller.unanswered(Unanswered::Overload, out);
        } else if listens {
            self.link.listen(Who::Client(caller), outgoing, now, out);
        } else if is_tool {
            let (params, arrived) = (from.mirrored.params.clone(), from.arrived);
            self.tools.hold(Held { caller, call: outgoing, params, arrived });
            self.call_tools(now, out);
        } else {
            self.link.request(Who::Client(caller), outgoing, from.arrived, now, out);
        }
    }

    /// Takes a request of a session.
    ///
    /// # Errors
    /// It has another one with this id in flight.
    fn lane_request(
        &mut self,
        request: Request,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let (caller, token) = Caller::of(&request, from);
        let client = caller.client.clone();
        if self.lanes.find(from.stream, &client).is_some() {
            return Err(Refusal::DuplicateId(client));
        }
        let listens = request.method() == "subscriptions/listen";
        let others = if listens { self.lanes.listens() } else { self.lanes.calls() };
        if is_removed(&request.method()) {
            caller.unanswered(Unanswered::Declined(Declined::Method), out);
            return Ok(());
        }
        if others >= MAX_OF_LANES {
            caller.unanswered(Unanswered::Overload, out);
            return Ok(());
        }
        let (who, outgoing) = (Who::Client(caller), Outgoing { request, token });
        let id = match listens {
            true => self.link.listen(who, outgoing, now, out),
            false => self.link.request(who, outgoing, from.arrived + LANE_MARGIN, now, out),
        };
        self.lanes.begun(from.stream, client, id, listens);
        Ok(())
    }

    /// Takes a notification of a session. A cancellation ends the request that it names, of this lane and no other; a
    /// subscription ends with it at once, because the child owes it no answer (2026-07-28 `basic/patterns/cancellation`).
    fn lane_notification(
        &mut self,
        notification: Notification,
        lane: StreamId,
        now: Duration,
        out: &mut Out,
    ) {
        let method = notification.method();
        if is_removed(&method) {
            return out.note(Note::Swallowed("2026-07-28 has no such notification"));
        }
        if method != "notifications/cancelled" {
            drop(method);
            return self.link.notification(notification, now, out);
        }
        let named = cancelled(&notification);
        let named = named.and_then(|(client, span)| Some((self.lanes.find(lane, &client?)?, span)));
        let Some((id, span)) = named else {
            return out.note(Note::Swallowed("the cancelled request is not in flight"));
        };
        let listens = self.link.is_listen(id);
        match self.link.cancel(id, notification.text(), span, now, out) {
            Some(who) if listens => self.forget(&who),
            Some(who) => self.end(who, Unanswered::Cancelled, now, out),
            None => {
                if let Some(who) = self.link.end_listen(id) {
                    self.forget(&who);
                    self.unsettled(false, now);
                }
            }
        }
    }

    /// A request has ended.
    fn forget(&mut self, who: &Who) {
        if let Some(caller) = who.client() {
            self.lanes.ended(caller.stream, &caller.client);
        }
    }

    /// Passes the calls of tools on that have waited, if the child's tools are known, or else asks for them: the child does
    /// not see the headers that it may want compared.
    fn call_tools(&mut self, now: Duration, out: &mut Out) {
        if self.tools.are_known() {
            self.pass_tools(now, out);
        } else if self.has_begun && self.tools.begin() {
            // Not before: what is asked early may wait for as long as a child may take to begin, and the calls with it.
            self.ask_tools("", now, out);
        }
    }

    fn pass_tools(&mut self, now: Duration, out: &mut Out) {
        for Held { caller, call, params, arrived } in self.tools.take(|_| true) {
            match self.tools.check(&call.request, &params) {
                Ok(()) => {
                    self.link.request(Who::Client(caller), call, arrived, now, out);
                }
                Err(why) => caller.unanswered(Unanswered::Declined(Declined::Header(why)), out),
            }
        }
    }

    /// Bytes of the calls that wait for the tools.
    fn held_for_tools(&self) -> usize {
        self.tools.held().iter().map(|held| held.call.request.text().len()).sum()
    }

    /// `more`: the cursor of the page, as another member of the parameters.
    fn ask_tools(&mut self, more: &str, now: Duration, out: &mut Out) {
        self.link.ask(Who::Tools, own_modern("tools/list", more), now, out);
    }

    fn tools_page(&mut self, result: Option<&str>, now: Duration, out: &mut Out) {
        match self.tools.page(result) {
            Some(cursor) => self.ask_tools(&format!(",{}", page_member(&cursor)), now, out),
            None => self.pass_tools(now, out),
        }
    }

    fn end(&mut self, who: Who, why: Unanswered, now: Duration, out: &mut Out) {
        self.forget(&who);
        match who {
            Who::Client(caller) => caller.unanswered(why, out),
            Who::Tools => self.tools_page(None, now, out),
        }
    }

    fn child_answer(&mut self, answer: Incoming<'_>, now: Duration, out: &mut Out) {
        let is_named = answer.envelope.id.clone().is_some_and(|span| answer.token(span) != "null");
        if !is_named && self.owes_answers {
            // It may be for one whose client has gone, though only one of another client is in flight.
            return out.note(Note::Dropped(Dropped::UnknownId));
        }
        match self.link.answer(&answer, now, out) {
            Answered::Call { caller: Who::Tools, .. } => {
                let result = answer.envelope.result.clone().map(|span| slice(answer.text(), span));
                self.tools_page(result, now, out);
            }
            Answered::Call { id, caller: Who::Client(caller) } => {
                self.lanes.ended(caller.stream, &caller.client);
                let success = answer.envelope.kind == Kind::Success;
                if caller.lists_tools {
                    self.tools.learn(&answer);
                }
                let own = answer.envelope.subscription();
                let own = own.filter(|span| self.link.id_named(answer.token(span.clone())) == Some(id));
                let message = match own {
                    Some(subscription) => with_subscription(answer, subscription, &caller.client),
                    None => with_id(answer, &caller.client),
                };
                out.push(Output::Answer { stream: caller.stream, message, success });
            }
            Answered::Handshake(how) => {
                self.has_begun = matches!(how, Handshake::Done(_));
                out.push(Output::Handshake(how));
                if self.has_begun {
                    self.call_tools(now, out);
                }
            }
            Answered::Retried { new, .. } => {
                if let Some(caller) = self.link.caller(new).and_then(Who::client) {
                    self.lanes.renamed(caller.stream, &caller.client, new);
                }
            }
            Answered::Nothing => {}
        }
    }

    fn child_notification(&mut self, message: Incoming<'_>, now: Duration, out: &mut Out) {
        let is = |method| message.envelope.method(message.text()) == method;
        if is("notifications/progress") {
            pass_progress(&self.link, message, Who::client, out);
        } else if is("notifications/cancelled") {
            self.child_cancelled(message, out);
        } else if let Some(span) = message.envelope.subscription() {
            self.subscribed(message, span, out);
        } else if is("notifications/message") {
            self.log(message, now, out);
        } else {
            out.note(Note::Dropped(Dropped::Unrelated));
        }
    }

    /// The child ends a subscription, on stdio with a notification (2026-07-28 `basic/patterns/cancellation`). Over HTTP that
    /// is the answer.
    fn child_cancelled(&mut self, message: Incoming<'_>, out: &mut Out) {
        let span = message.envelope.subject();
        let named = span.and_then(|span| Some((self.link.id_named(message.token(span.clone()))?, span)));
        let ended = named.and_then(|(id, span)| Some((self.link.end_listen(id)?, span)));
        let Some((Who::Client(caller), span)) = ended else {
            return out.note(Note::Dropped(Dropped::Unrelated));
        };
        if self.lanes.is_one(caller.stream) {
            self.lanes.ended(caller.stream, &caller.client);
            let own = caller.client.0.as_json().as_bytes();
            out.push(Output::Message { stream: caller.stream, message: message.replaced(span, own) });
        } else {
            end_gracefully(&caller, out);
        }
    }

    /// A message of a subscription, of which `span` is the id.
    fn subscribed(&mut self, message: Incoming<'_>, span: Span, out: &mut Out) {
        let named = self.link.id_named(message.token(span.clone()));
        let listen = named.filter(|id| self.link.is_listen(*id));
        if listen.is_some() && message.envelope.method(message.text()) == "notifications/tools/list_changed" {
            self.tools.changed();
        }
        let caller = listen.and_then(|id| self.link.caller(id)?.client());
        pass_on(caller, |caller| message.replaced(span, caller.client.0.as_json().as_bytes()), out);
    }

    /// A log message is of one call (2026-07-28 `server/utilities/logging`), and on stdio does not say of which. With one
    /// call in flight, or those of one lane, it is clear whose it is; with several it is the newest call's that asked, unless
    /// their clients are strangers.
    fn log(&self, message: Incoming<'_>, now: Duration, out: &mut Out) {
        let mut at_work = self.link.at_work().filter_map(Who::client).peekable();
        let newest = at_work.peek().copied();
        let asks = |caller: &&Caller| caller.wants_logs;
        let caller = if self.strangers {
            let is_clear = self.settled_at <= now && self.are_of_one_client();
            at_work.find(asks).filter(|_| is_clear)
        } else {
            let streams = |caller: &&Caller| caller.wants_logs && caller.takes == Takes::Events;
            at_work.find(streams).or_else(|| newest.filter(asks))
        };
        pass_on(caller, |_| message.into_line(), out);
    }

    /// Whether all calls in flight are of one client: there is one, or one lane has them.
    fn are_of_one_client(&self) -> bool {
        if self.link.in_flight() <= 1 || self.lanes.is_empty() {
            return self.link.in_flight() == 1;
        }
        let calls = self.link.callers().filter(|(id, _)| !self.link.is_listen(*id));
        let mut streams = calls.map(|(_, who)| who.client().map(|caller| caller.stream));
        let first = streams.next().flatten();
        first.is_some_and(|first| self.lanes.is_one(first) && streams.all(|stream| stream == Some(first)))
    }

    /// The child has no tools that anything is to be compared with.
    #[cfg(test)]
    pub(super) fn knows_tools(&mut self) {
        self.tools.are_none();
    }

    /// Nothing is known of its tools.
    #[cfg(test)]
    pub(super) fn forgets_tools(&mut self) {
        self.tools.changed();
    }

    /// The requests of clients at the link.
    fn clients(&self) -> impl Iterator<Item = (BridgeId, &Caller)> {
        self.link.callers().filter_map(|(id, who)| Some((id, who.client()?)))
    }

    /// Ends a request whose client waits for no answer.
    fn withdraw(&mut self, id: BridgeId, why: Unanswered, now: Duration, out: &mut Out) {
        let is_call = !self.link.is_listen(id);
        if let Some((who, was_seen)) = self.link.withdraw(id, out) {
            self.end(who, why, now, out);
            if was_seen {
                self.unsettled(is_call, now);
            }
        }
    }

    /// A request has ended without the child's word: that may be at work on it yet, and speak of it.
    fn unsettled(&mut self, is_call: bool, now: Duration) {
        self.owes_answers = true;
        if is_call {
            self.settled_at = now + CANCEL_GRACE;
        }
    }
}

impl Front for Modern {
    fn client(
        &mut self,
        message: Message,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let of_lane = self.lanes.is_one(from.stream);
        match message {
            Message::Request(request) if of_lane => return self.lane_request(request, from, now, out),
            Message::Notification(notification) if of_lane => {
                self.lane_notification(notification, from.stream, now, out);
            }
            Message::Request(request) => self.request(request, from, now, out),
            // There is none that a client may send over HTTP (2026-07-28 `basic/transports/streamable-http`).
            Message::Notification(_) => out.note(Note::Swallowed("clients of 2026-07-28 notify no server")),
            // The child's requests are all answered by the bridge.
            Message::Response(_) => return Err(Refusal::UnknownResponse),
        }
        Ok(())
    }

    fn child(&mut self, message: Incoming<'_>, now: Duration, _: Readers<'_>, out: &mut Out) {
        if self.link.echoes(&message, now, out) {
            return;
        }
        match message.envelope.kind {
            Kind::Success | Kind::Failure => self.child_answer(message, now, out),
            // It must not ask (2026-07-28 `basic/transports/stdio`), and one that does would wait.
            Kind::Request => own_reply(&message, out),
            Kind::Notification => self.child_notification(message, now, out),
        }
    }

    fn child_too_long(&mut self, head: &[u8], out: &mut Out) {
        if let Some((_, who, why)) = too_long(&mut self.link, head, out) {
            self.end(who, why, self.latest, out);
        }
    }

    fn child_broken(&mut self, broken: &Broken<'_>, out: &mut Out) -> bool {
        match super::broken(&mut self.link, broken, out) {
            Ok((_, who, why)) => {
                self.end(who, why, self.latest, out);
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
        let limit = self.request_timeout;
        for held in self.tools.take(|held| held.arrived + limit <= now) {
            held.caller.unanswered(Unanswered::Timeout, out);
        }
        while let Some((_, who, why)) = expired(&mut self.link, now, out) {
            self.end(who, why, now, out);
            self.unsettled(true, now);
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        let held = self.tools.held().iter().map(|held| held.arrived + self.request_timeout).min();
        self.link.next_deadline().into_iter().chain(held).min()
    }

    /// A client that closes its stream cancels its request (2026-07-28 `basic/patterns/cancellation`). A session that has
    /// ended has ended all that it asked, and nobody is told.
    fn reader_left(&mut self, stream: StreamId, _: bool, now: Duration, out: &mut Out) {
        if let Some(requests) = self.lanes.leave(stream) {
            for id in requests {
                let is_call = !self.link.is_listen(id);
                if let Some((_, true)) = self.link.withdraw(id, out) {
                    self.unsettled(is_call, now);
                }
            }
            return;
        }
        for held in self.tools.take(|held| held.caller.stream == stream) {
            held.caller.unanswered(Unanswered::Cancelled, out);
        }
        let left = self.clients().filter(|(_, caller)| caller.stream == stream);
        let left: Vec<_> = left.map(|(id, _)| id).collect();
        for id in left {
            self.withdraw(id, Unanswered::Cancelled, now, out);
        }
    }

    fn keep_callers(&mut self, keeps: Keeps<'_>, now: Duration, out: &mut Out) {
        let goes = |caller: &Caller| caller.owner.as_ref().is_some_and(|owner| !keeps(owner));
        for held in self.tools.take(|held| goes(&held.caller)) {
            held.caller.unanswered(Unanswered::Revoked, out);
        }
        let revoked = self.clients().filter(|(_, caller)| goes(caller)).map(|(id, _)| id);
        for id in revoked.collect::<Vec<_>>() {
            self.withdraw(id, Unanswered::Revoked, now, out);
        }
    }

    fn in_flight(&self) -> usize {
        // The question for its tools is the bridge's own.
        self.link.in_flight() - usize::from(self.tools.are_asked()) + self.tools.held().len()
    }

    fn accepting(&self) -> bool {
        self.link.accepting() && self.held_for_tools() < MAX_HELD
    }

    fn held_bytes(&self) -> usize {
        self.link.held_bytes() + self.held_for_tools()
    }

    fn join(&mut self, lane: StreamId) {
        self.lanes.join(lane);
    }

    fn has_lanes(&self) -> bool {
        !self.lanes.is_empty()
    }

    fn is_listening(&self) -> bool {
        self.link.listens() > 0
    }

    /// The subscriptions of lanes stay: their sessions say farewell to their own clients, and the child serves them until then.
    fn farewell(&mut self, out: &mut Out) {
        let listens = self
            .clients()
            .filter(|(id, caller)| self.link.is_listen(*id) && !self.lanes.is_one(caller.stream));
        let listens: Vec<_> = listens.map(|(id, _)| id).collect();
        for who in listens.into_iter().filter_map(|id| self.link.end_listen(id)) {
            who.client().into_iter().for_each(|caller| end_gracefully(caller, out));
        }
    }

    fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        self.lanes.end_all();
        let calls = self.link.abandon().filter_map(|who| match who {
            Who::Client(caller) => Some(caller),
            Who::Tools => None,
        });
        let held = std::mem::take(&mut self.tools).take(|_| true).into_iter().map(|held| held.caller);
        calls.chain(held).map(|caller| (caller.stream, caller.client)).collect()
    }

    #[cfg(test)]
    fn check(&self) {
        self.link.check();
        let lanes = self.lanes.check();
        let open = self.clients().filter(|(_, caller)| self.lanes.is_one(caller.stream));
        assert_eq!(lanes.len(), open.count(), "each request of a lane is in its table");
        for (lane, client, id) in lanes {
            let caller = self.link.caller(id).and_then(Who::client).expect("it is in flight");
            assert_eq!((caller.stream, &caller.client), (lane, &client));
        }
    }
}

/// Ends a subscription for its client.
fn end_gracefully(caller: &Caller, out: &mut Out) {
    let message = graceful_end(&caller.client);
    out.push(Output::Answer { stream: caller.stream, message, success: true });
}

/// The text of the answer that ends a subscription, with the client's own id in both places.
fn with_subscription(answer: Incoming<'_>, subscription: Span, client: &ClientId) -> Bytes {
    let own = client.0.as_json().as_bytes().to_vec();
    let edit = id_edit(&answer, client);
    answer.edited(&mut [edit, (subscription, own)])
}
