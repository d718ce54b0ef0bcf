//! Clients of 2026-07-28 that share a child of the session era (the child sees one client, the bridge, with one handshake).
//!
//! Each rule has its line in the table of both eras: a request loses what the session era does not know, a result gets what
//! 2026-07-28 demands, and what the child asks while it works becomes an answer that asks the client, whose next request
//! goes on where the first one stopped (`basic/patterns/mrtr`). That call waits here meanwhile: the child is at work on it.
//!
//! Clients that share a child are told apart by their calls alone. What may be another's reaches nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::capabilities::{Declared, Need};
use super::elicitation::{URL_NEEDED, elicitations};
use super::front::{self, Front, Keeps, MAX_GREETING, Origin, Readers, Refusal, Takes, expired, too_long};
use super::ids::{BridgeId, ChildId, ClientId, Id, ProgressToken, StreamId};
use super::incoming::Incoming;
use super::json::{slice, unquote, value_at};
use super::level::Level;
use super::line::join_lines;
use super::lingering::Lingering;
use super::link::{Answered, Limits, Link, Outgoing, own_reply};
use super::message::{Kind, Message, Request};
use super::nearly::{Broken, Wrong};
use super::object::without;
use super::output::{Declined, Dropped, Handshake, Note, Out, Output, Unanswered};
use super::questions::{NOBODYS, TOO_MANY_UNCLEAR, UNCLEAR, UNSERVED, Undecided, is_broken_off, sole_owner};
use super::subscription::uri_params;
use super::tools::{Tools, page_member};
use super::version::is_removed;

mod answer;
pub mod listens;
mod parked;
mod questions;
mod request;

use answer::{Greeting, failed, input_required, is_tool_error};
use listens::{Added, Listens, NotAdded, Offered};
use parked::{Parked, Place, State};
use questions::{ASKED, Question};
use request::{Answers, Lowered, lower};

/// How long further questions of the same call are waited for before its client is asked.
const GATHER: Duration = Duration::from_millis(20);

/// How many questions one call may have at once.
const MAX_QUESTIONS: usize = 16;

/// Bytes of all questions that wait for their clients' answers.
const MAX_ASKED: usize = 8 * 1024 * 1024;

/// Bytes of requests that wait for the handshake, or until the child's tools are known; beyond it no message is taken.
const MAX_EARLY: usize = 8 * 1024 * 1024;

/// How many requests of the bridge's own the child may leave without an answer before it is asked no more. Each gives up
/// after [`OWN_LIMIT`](super::link::OWN_LIMIT).
const MAX_OWN: usize = 1000;

/// What kind of request it is, as far as its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct What {
    /// The server may ask the client for more before it answers (2026-07-28 `basic/patterns/mrtr`, "Supported Requests").
    asks: bool,
    /// Its result says how long it may be kept (2026-07-28 `server/utilities/caching`).
    is_kept: bool,
    is_read: bool,
    /// Its result names tools.
    lists_tools: bool,
}

impl What {
    fn of(method: &str) -> Self {
        let is_read = method == "resources/read";
        Self {
            asks: is_read || matches!(method, "tools/call" | "prompts/get"),
            is_kept: is_read
                || matches!(
                    method,
                    "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list"
                ),
            is_read,
            lists_tools: method == "tools/list",
        }
    }
}

/// A request of a client.
#[derive(Debug)]
struct Call {
    client: ClientId,
    /// Where its answer goes; `None`: it is parked, and its client comes back for it.
    stream: Option<StreamId>,
    takes: Takes,
    token: Option<ProgressToken>,
    /// From which level on its client wants log lines.
    level: Option<Level>,
    declared: Declared,
    what: What,
    fingerprint: u64,
    /// See [`Mirrored::caller`](super::front::Mirrored::caller).
    caller: Option<[u8; 32]>,
    /// What the child has asked for it and its client has not answered, by the keys of the questions.
    questions: Vec<(Box<str>, Question)>,
    /// How many it has asked so far.
    asked: usize,
    /// When its client is asked.
    asks_at: Option<Duration>,
    /// What the child has asked and its client cannot be asked.
    lacks: Option<Need>,
    /// Under what it is parked.
    state: Option<State>,
    /// When the newest question came.
    asked_at: Duration,
}

impl Call {
    /// Bytes of what it has been asked.
    fn asked_bytes(&self) -> usize {
        self.questions.iter().map(|(_, question)| question.text.len()).sum()
    }

    /// Whether the child waits for its client's answer.
    fn waits_for_client(&self) -> bool {
        self.state.is_some() && !self.questions.is_empty()
    }
}

/// What a request at the link is.
#[derive(Debug)]
enum Caller {
    Client(Box<Call>),
    /// The bridge's own.
    Own(Own),
}

#[derive(Debug)]
enum Own {
    /// A page of the child's tools.
    Tools,
    Level,
    Subscribe(Box<str>),
    Unsubscribe,
}

/// A call that waits until the child's tools are known.
#[derive(Debug)]
struct Held {
    call: Box<Call>,
    stream: StreamId,
    request: Request,
    params: Vec<(Box<str>, Box<[u8]>)>,
    arrived: Duration,
}

/// A `server/discover` or `subscriptions/listen`, which is answered from what the child has said of itself.
#[derive(Debug)]
struct Waiting {
    stream: StreamId,
    client: ClientId,
    /// See [`Mirrored::caller`](super::front::Mirrored::caller).
    caller: Option<[u8; 32]>,
    /// The text of `params.notifications`; `None`: it discovers.
    wants: Option<Box<str>>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.wants.as_ref().map_or(0, |wants| wants.len())
    }
}

/// The front of clients of 2026-07-28 over a child of the session era.
#[derive(Debug)]
pub struct Upgrade {
    link: Link<Caller>,
    max_in_flight: usize,
    request_timeout: Duration,
    /// The newest time that is known.
    latest: Duration,
    /// Whether the clients are strangers to each other.
    strangers: bool,
    new_state: fn() -> u128,
    greeting: Option<Greeting>,
    /// What waits for it.
    waiting: Vec<Waiting>,
    tools: Tools<Held>,
    /// The calls whose clients wait for the answer.
    by_stream: BTreeMap<StreamId, BridgeId>,
    /// When the clients of calls are asked.
    asking: BTreeSet<(Duration, BridgeId)>,
    parked: Parked<Box<Call>>,
    undecided: Undecided<Question, BridgeId>,
    /// Calls of strangers that have ended without an answer.
    lingering: Lingering<()>,
    /// The level that the child has been told.
    level: Option<Level>,
    listens: Listens,
    /// The clients that listen, and their callers.
    listeners: BTreeMap<StreamId, (ClientId, Option<[u8; 32]>)>,
}

impl Upgrade {
    /// Begins with the bridge's own `initialize`. `strangers`: whether the clients may be strangers to each other.
    pub fn open(limits: Limits, initialize: &Request, strangers: bool, now: Duration, out: &mut Out) -> Self {
        // Its clients' next requests open another session: nothing is kept to be said to a next child.
        let limits = Limits { respawn: false, ..limits };
        Self {
            max_in_flight: limits.max_in_flight,
            request_timeout: limits.request_timeout,
            latest: now,
            strangers,
            new_state: limits.state,
            link: Link::open(limits, initialize, true, now, out),
            greeting: None,
            waiting: Vec::new(),
            tools: Tools::default(),
            by_stream: BTreeMap::new(),
            asking: BTreeSet::new(),
            parked: Parked::default(),
            undecided: Undecided::default(),
            lingering: Lingering::default(),
            level: None,
            listens: Listens::default(),
            listeners: BTreeMap::new(),
        }
    }

    fn request(&mut self, request: &Request, from: Origin<'_>, now: Duration, out: &mut Out) {
        let (stream, client) = (from.stream, ClientId(request.id().clone()));
        let method = request.method();
        match &*method {
            // Tasks are an extension there, with other methods than in the session era. And what is named like a
            // notification is one for a child that looks at the method alone.
            method
                if is_removed(method)
                    || method.starts_with("tasks/")
                    || method.starts_with("notifications/") =>
            {
                decline(stream, client, Declined::Method, out)
            }
            "server/discover" | "subscriptions/listen" => {
                let wants = request.subject().unwrap_or_default().into();
                let wants = (method == "subscriptions/listen").then_some(wants);
                let caller = from.mirrored.caller;
                self.greeted(Waiting { stream, client, caller, wants }, now, out);
            }
            method => match lower(request) {
                Ok(lowered) => self.call(What::of(method), client, lowered, from, now, out),
                Err(why) => decline(stream, client, Declined::Params(why), out),
            },
        }
    }

    /// Serves what is answered from the handshake when that is over.
    fn greeted(&mut self, waiting: Waiting, now: Duration, out: &mut Out) {
        let Some(greeting) = &self.greeting else {
            let Waiting { stream, .. } = waiting;
            return if self.in_flight() < self.max_in_flight {
                self.waiting.push(waiting);
            } else {
                unanswered(stream, waiting.client, Unanswered::Overload, out);
            };
        };
        let Waiting { stream, client, caller, wants } = waiting;
        match wants {
            None => {
                let message = greeting.discovered(&client);
                out.push(Output::Answer { stream, message, success: true });
            }
            Some(wants) => {
                let offered = Offered {
                    tools: greeting.offers(&["tools", "listChanged"]),
                    prompts: greeting.offers(&["prompts", "listChanged"]),
                    resources: greeting.offers(&["resources", "listChanged"]),
                    subscribe: greeting.offers(&["resources", "subscribe"]),
                };
                // A client that subscribes and leaves in a loop would add requests that a slow child has not answered.
                let added = if self.own_in_flight() < MAX_OWN {
                    self.listens.add(stream, client.clone(), &wants, offered)
                } else {
                    Err(NotAdded::Full)
                };
                match added {
                    Ok(Added { subscribe, events }) => {
                        self.listeners.insert(stream, (client, caller));
                        for uri in subscribe {
                            let params = uri_params(&uri);
                            self.own(Own::Subscribe(uri), "resources/subscribe", &params, now, out);
                        }
                        self.tell(events, out);
                    }
                    Err(NotAdded::Invalid(why)) => decline(stream, client, Declined::Params(why), out),
                    Err(NotAdded::Full) => unanswered(stream, client, Unanswered::Overload, out),
                }
            }
        }
    }

    fn call(
        &mut self,
        what: What,
        client: ClientId,
        lowered: Lowered,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) {
        let Lowered { request, level, declared, answers, fingerprint } = lowered;
        let token = request.token().and_then(|span| Id::parse(slice(request.text(), span)));
        let call = Box::new(Call {
            client,
            stream: Some(from.stream),
            takes: from.takes,
            token: token.map(ProgressToken),
            level,
            declared,
            what,
            fingerprint,
            caller: from.mirrored.caller,
            questions: Vec::new(),
            asked: 0,
            asks_at: None,
            lacks: None,
            state: None,
            asked_at: Duration::ZERO,
        });
        if let Some(answers) = answers.filter(|_| what.asks) {
            // The head of a repetition must say what its message says, too.
            let is_tool = request.method() == "tools/call";
            match self.tools.check(&request, &from.mirrored.params) {
                Err(why) if is_tool => decline(from.stream, call.client, Declined::Header(why), out),
                _ => self.resume(call, from.stream, &answers, now, out),
            }
        } else if self.in_flight() >= self.max_in_flight {
            // Parked calls wait for a person, and the bridge's own requests are nobody's: neither takes a place.
            unanswered(from.stream, call.client, Unanswered::Overload, out);
        } else {
            let params = if request.method() == "tools/call" { Some(&from.mirrored.params) } else { None };
            match params {
                Some(params) if !self.tools.are_known() => {
                    let (params, stream, arrived) = (params.clone(), from.stream, from.arrived);
                    self.tools.hold(Held { call, stream, request, params, arrived });
                    self.learn_tools(now, out);
                }
                Some(params) => self.call_tool(call, from.stream, request, params, from.arrived, now, out),
                None => self.pass_on(call, from.stream, request, from.arrived, now, out),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is of one request")]
    fn call_tool(
        &mut self,
        call: Box<Call>,
        stream: StreamId,
        request: Request,
        mirrored: &[(Box<str>, Box<[u8]>)],
        arrived: Duration,
        now: Duration,
        out: &mut Out,
    ) {
        match self.tools.check(&request, mirrored) {
            Ok(()) => self.pass_on(call, stream, request, arrived, now, out),
            Err(why) => decline(stream, call.client, Declined::Header(why), out),
        }
    }

    fn pass_on(
        &mut self,
        call: Box<Call>,
        stream: StreamId,
        request: Request,
        arrived: Duration,
        now: Duration,
        out: &mut Out,
    ) {
        self.set_level(call.level, now, out);
        let token = request.token();
        let id = self.link.request(Caller::Client(call), Outgoing { request, token }, arrived, now, out);
        self.by_stream.insert(stream, id);
    }

    /// Tells the child the lowest level that a client wants, where that is another one than it has been told.
    fn set_level(&mut self, new: Option<Level>, now: Duration, out: &mut Out) {
        let Some(new) = new else { return };
        if !self.greeting.as_ref().is_none_or(|greeting| greeting.offers(&["logging"])) {
            return;
        }
        let wanted = self.by_stream.values().filter_map(|id| self.call_of(*id)?.level);
        let lowest = wanted.min().map_or(new, |lowest| lowest.min(new));
        if self.level != Some(lowest) && self.own_in_flight() < MAX_OWN {
            self.level = Some(lowest);
            self.own(
                Own::Level,
                "logging/setLevel",
                &format!(r#"{{"level":"{}"}}"#, lowest.as_str()),
                now,
                out,
            );
        }
    }

    /// Asks the child something in the bridge's own name.
    fn own(&mut self, own: Own, method: &str, params: &str, now: Duration, out: &mut Out) {
        self.link.ask(Caller::Own(own), Request::own(method, params), now, out);
    }

    /// How many such requests have no answer.
    fn own_in_flight(&self) -> usize {
        self.link.in_flight().saturating_sub(self.by_stream.len() + self.parked.at_work().count())
    }

    fn call_of(&self, id: BridgeId) -> Option<&Call> {
        match self.link.caller(id)? {
            Caller::Client(call) => Some(call),
            Caller::Own(_) => None,
        }
    }

    fn call_of_mut(&mut self, id: BridgeId) -> Option<&mut Call> {
        match self.link.caller_mut(id)? {
            Caller::Client(call) => Some(call),
            Caller::Own(_) => None,
        }
    }

    /// Asks for the child's tools, where a call waits for them.
    fn learn_tools(&mut self, now: Duration, out: &mut Out) {
        let Some(greeting) = &self.greeting else { return };
        if !greeting.offers(&["tools"]) {
            self.tools.are_none();
            self.tools_known(now, out);
        } else if self.tools.begin() {
            self.own(Own::Tools, "tools/list", "{}", now, out);
        }
    }

    fn tools_known(&mut self, now: Duration, out: &mut Out) {
        for Held { call, stream, request, params, arrived } in self.tools.take(|_| true) {
            self.call_tool(call, stream, request, &params, arrived, now, out);
        }
    }

    fn tools_page(&mut self, result: Option<&str>, now: Duration, out: &mut Out) {
        match self.tools.page(result) {
            Some(cursor) => {
                let params = format!("{{{}}}", page_member(&cursor));
                self.own(Own::Tools, "tools/list", &params, now, out);
            }
            None => self.tools_known(now, out),
        }
    }

    fn listens_no_more(&mut self, stream: StreamId, now: Duration, out: &mut Out) {
        self.listeners.remove(&stream);
        for uri in self.listens.remove(stream).into_iter().flatten() {
            self.own(Own::Unsubscribe, "resources/unsubscribe", &uri_params(&uri), now, out);
        }
    }

    fn tell(&self, events: Vec<(StreamId, bytes::Bytes)>, out: &mut Out) {
        for (stream, message) in events {
            out.push(Output::Message { stream, message });
        }
    }

    /// The client of a parked call is back with its answers.
    fn resume(&mut self, call: Box<Call>, stream: StreamId, answers: &Answers, now: Duration, out: &mut Out) {
        const UNKNOWN: &str = "\"requestState\" is not known here, or has expired";
        let decline = |call: Box<Call>, why, out: &mut Out| decline(stream, call.client, why, out);
        let state = State::parse(&answers.state);
        let parked = state.and_then(|state| match self.parked.get(state)? {
            Place::Running(id) => self.call_of(*id),
            Place::Done(call, _) => Some(&**call),
        });
        let (Some(state), Some(parked)) = (state, parked.filter(|parked| parked.caller == call.caller))
        else {
            return decline(call, Declined::State(UNKNOWN), out);
        };
        if parked.fingerprint != call.fingerprint {
            let why = "\"requestState\" belongs to another request: method and parameters must be the same";
            return decline(call, Declined::State(why), out);
        }
        let answer_to = |key: &str| {
            let span = value_at(&answers.responses, &[key])?;
            answers.responses.get(span)
        };
        if parked.questions.iter().filter_map(|(key, _)| answer_to(key)).any(|text| !text.starts_with('{')) {
            return decline(call, Declined::Params("each of \"inputResponses\" must be an object"), out);
        }
        match self.parked.take(state) {
            Some(Place::Done(parked, text)) => match Incoming::peek(&text) {
                Ok(answer) => self.deliver(Box::new(Call { lacks: parked.lacks, ..*call }), answer, out),
                Err(_) => decline(call, Declined::State(UNKNOWN), out),
            },
            Some(Place::Running(id)) => {
                let Some(running) = self.call_of_mut(id) else { return };
                let Call { client, takes, token, level, declared, .. } = *call;
                (running.client, running.stream, running.state) = (client, Some(stream), None);
                (running.takes, running.token, running.level) = (takes, token, level);
                running.declared = declared;
                running.lacks = running.lacks.filter(|need| !declared.allows(*need));
                for (key, question) in std::mem::take(&mut running.questions) {
                    if let Some(answer) = answer_to(&key) {
                        question.answer(answer, out);
                    } else if declared.allows(question.need) {
                        running.questions.push((key, question));
                    } else {
                        running.lacks = Some(question.need);
                        question.refuse(UNSERVED, out);
                    }
                }
                let asks_again = !running.questions.is_empty();
                self.by_stream.insert(stream, id);
                if asks_again {
                    self.ask(id, now, out);
                } else {
                    self.set_level(level, now, out);
                }
            }
            None => {}
        }
    }

    /// Answers a call with what the child asks. It is parked until its client comes back.
    fn ask(&mut self, id: BridgeId, now: Duration, out: &mut Out) {
        let state = State::new((self.new_state)());
        let Some(call) = self.call_of_mut(id) else { return };
        let asked_at = call.asks_at.take();
        let Some(stream) = call.stream.take() else { return };
        call.state = Some(state);
        let asked = call.questions.iter().map(|(key, question)| (&**key, &*question.text));
        let message = input_required(&call.client, asked, Some(&state.to_string()));
        if let Some(at) = asked_at {
            self.asking.remove(&(at, id));
        }
        self.by_stream.remove(&stream);
        out.push(Output::Answer { stream, message, success: true });
        let link = &self.link;
        let caller = |place: &Place<Box<Call>>| match place {
            Place::Running(id) => match link.caller(*id)? {
                Caller::Client(call) => call.caller,
                Caller::Own(_) => None,
            },
            Place::Done(call, _) => call.caller,
        };
        if let Some(gone) = self.parked.add(state, Place::Running(id), now, caller) {
            self.give_up(gone, now, out);
        }
    }

    /// The client of a parked call has not come back.
    fn give_up(&mut self, place: Place<Box<Call>>, now: Duration, out: &mut Out) {
        if let Place::Running(id) = place {
            self.cancel(id, Unanswered::Cancelled, now, out);
        }
    }

    /// The client of a call is gone: the child is told, and what it has asked is answered.
    fn cancel(&mut self, id: BridgeId, why: Unanswered, now: Duration, out: &mut Out) {
        if let Some((caller, was_seen)) = self.link.withdraw(id, out) {
            self.end(id, caller, why, !was_seen, now, out);
        }
    }

    /// A call is not at the link any more. `answered`: the child is not at work on it either.
    fn over(&mut self, id: BridgeId, call: &Call, answered: bool, now: Duration, out: &mut Out) {
        if let Some(stream) = call.stream {
            self.by_stream.remove(&stream);
        }
        if let Some(at) = call.asks_at {
            self.asking.remove(&(at, id));
        }
        if answered {
            for (id, question) in self.undecided.ended(id) {
                self.assign(id, question, now, out);
            }
        } else if self.strangers {
            self.lingering.add(id, (), now);
        }
    }

    /// The child has answered a call after its end: it is not at work on that any more. If it has broken it off, what may
    /// have been its questions are over.
    fn not_lingering(&mut self, id: BridgeId, answer: &Incoming<'_>, now: Duration, out: &mut Out) {
        if !self.lingering.answered(id) {
            return;
        }
        if is_broken_off(answer) {
            for question in self.undecided.broken_off(id) {
                question.refuse(UNCLEAR, out);
            }
        }
        for (id, question) in self.undecided.ended(id) {
            self.assign(id, question, now, out);
        }
    }

    /// A call ends without an answer of the child. `answered`: see [`over`](Self::over).
    fn end(
        &mut self,
        id: BridgeId,
        caller: Caller,
        why: Unanswered,
        answered: bool,
        now: Duration,
        out: &mut Out,
    ) {
        match caller {
            Caller::Client(call) => {
                call.questions.iter().for_each(|(_, question)| question.give_up(out));
                call.state.and_then(|state| self.parked.take(state));
                self.over(id, &call, answered, now, out);
                if let Some(stream) = call.stream {
                    unanswered(stream, call.client, why, out);
                }
            }
            Caller::Own(own) => {
                if matches!(own, Own::Level) {
                    self.level = None; // it may not know it
                }
                self.own_answered(own, None, now, out);
            }
        }
    }

    fn own_answered(&mut self, own: Own, result: Option<&str>, now: Duration, out: &mut Out) {
        match own {
            Own::Tools => self.tools_page(result, now, out),
            Own::Subscribe(uri) => {
                let events = self.listens.subscribed(&uri, result.is_some());
                self.tell(events, out);
            }
            Own::Level | Own::Unsubscribe => {}
        }
    }

    fn child_answer(&mut self, answer: Incoming<'_>, now: Duration, out: &mut Out) {
        let token = answer.envelope.id.clone().map_or("null", |span| answer.token(span));
        let doubtful = token == "null" && self.lingering.doubts(now);
        if let Some(id) = self.link.id_named(token) {
            self.not_lingering(id, &answer, now, out);
        }
        match self.link.answer(&answer, now, out) {
            Answered::Call { id, caller } if doubtful => {
                let what = "it has no id, and may be the late one to another request";
                self.link.tell_ended(id, out);
                self.end(id, caller, Unanswered::Invalid(Wrong { what, at: 0 }), false, now, out);
            }
            Answered::Call { caller: Caller::Own(own), .. } => {
                let text = answer.text();
                let result = answer.envelope.result.clone().map(|span| slice(text, span));
                self.own_answered(own, result, now, out);
            }
            Answered::Call { id, caller: Caller::Client(call) } => {
                self.over(id, &call, true, now, out);
                if call.what.lists_tools {
                    self.tools.learn(&answer);
                }
                call.questions.iter().for_each(|(_, question)| question.give_up(out));
                match call.state {
                    None => self.deliver(call, answer, out),
                    Some(state) => {
                        let mut text = answer.text().to_vec();
                        join_lines(&mut text);
                        if let Ok(text) = String::from_utf8(text) {
                            self.parked.done(state, call, text);
                        }
                    }
                }
            }
            Answered::Handshake(Handshake::Done(_)) if answer.text().len() > MAX_GREETING => {
                out.note(Note::LongGreeting(MAX_GREETING));
                out.push(Output::Handshake(Handshake::Refused));
            }
            Answered::Handshake(done @ Handshake::Done(_)) => {
                out.push(Output::Handshake(done));
                self.greeting = Some(Greeting::of(&answer));
                for waiting in std::mem::take(&mut self.waiting) {
                    self.greeted(waiting, now, out);
                }
                if !self.tools.held().is_empty() {
                    self.learn_tools(now, out);
                }
            }
            Answered::Handshake(failed) => out.push(Output::Handshake(failed)),
            Answered::Retried { old, new } => self.renamed(old, new),
            Answered::Nothing => {}
        }
    }

    /// A call has a new id at the link.
    fn renamed(&mut self, old: BridgeId, new: BridgeId) {
        self.by_stream.values_mut().filter(|id| **id == old).for_each(|id| *id = new);
        self.undecided.renamed(old, new, new);
        let Some(call) = self.call_of(new) else { return };
        let (asks_at, state) = (call.asks_at, call.state);
        if let Some(at) = asks_at
            && self.asking.remove(&(at, old))
        {
            self.asking.insert((at, new));
        }
        if let Some(state) = state {
            self.parked.renamed(state, new);
        }
    }

    /// Gives a client the child's answer.
    fn deliver(&self, call: Box<Call>, answer: Incoming<'_>, out: &mut Out) {
        let Some(stream) = call.stream else { return };
        let failure = answer.envelope.kind == Kind::Failure;
        if let Some(need) = call.lacks.filter(|_| failure || is_tool_error(&answer)) {
            return decline(stream, call.client, Declined::Capability(need.capability()), out);
        }
        if failure && let Some((URL_NEEDED, _)) = answer.error_code().filter(|_| call.what.asks) {
            return url_needed(stream, call, answer, out);
        }
        let message = if failure {
            failed(answer, &call.client, call.what.is_read)
        } else if let Some(greeting) = &self.greeting {
            greeting.complete(answer, &call.client, call.what.is_kept)
        } else {
            return; // nothing is passed on before the handshake
        };
        out.push(Output::Answer { stream, message, success: !failure });
    }

    fn child_request(&mut self, message: &Incoming<'_>, now: Duration, out: &mut Out) {
        let token = message.envelope.id.clone().map_or("null", |span| message.token(span));
        let question = Id::parse(token).and_then(|id| Question::of(ChildId(id), message));
        let Some(question) = question else { return own_reply(message, out) };
        // The parked call with the most bytes of questions ends, if those are more than this question's.
        while self.asked_bytes() + question.text.len() > MAX_ASKED {
            let asked = |id| self.call_of(id).map_or(0, Call::asked_bytes);
            let most = self.parked.at_work().map(|id| (asked(id), id)).max();
            match most.filter(|(bytes, _)| *bytes > question.text.len()) {
                Some((_, id)) => self.cancel(id, Unanswered::Cancelled, now, out),
                None => return question.refuse("too much is asked at once", out),
            }
        }
        let calls = self.link.forwarded().filter_map(|(id, caller)| match caller {
            Caller::Client(call) => Some((id, &**call)),
            Caller::Own(_) => None,
        });
        if self.strangers {
            // Not those for which the child has been waiting for an answer: it asks what it needs at once, or one thing
            // after the other.
            let waits = |call: &Call| call.waits_for_client() && call.asked_at + ASKED <= now;
            let (waiting, running): (Vec<_>, Vec<_>) = calls.partition(|(_, call)| waits(call));
            if running.is_empty() && self.lingering.doubts(now) {
                return question.give_up(out);
            }
            let running = if running.is_empty() { waiting } else { running };
            let ended = self.lingering.calls().map(|(id, ())| id);
            let among = running.into_iter().map(|(id, _)| id).chain(ended);
            let among: BTreeMap<_, _> = among.map(|id| (id, id)).collect();
            if among.is_empty() {
                question.refuse(NOBODYS, out);
            } else if self.lingering.is_crowded(now) {
                question.refuse(UNCLEAR, out);
            } else if let Some(id) = sole_owner(&among) {
                self.assign(id, question, now, out);
            } else {
                // A call that does not wait for an answer has mostly ended by then.
                let again = Some(now + ASKED);
                if let Err(question) = self.undecided.add(question, among, again, now) {
                    question.refuse(TOO_MANY_UNCLEAR, out);
                }
            }
        } else {
            // A call whose client can be asked this goes first, then one whose client waits, then the newest.
            let running = calls.filter(|(_, call)| call.what.asks);
            let rank = |call: &Call| (call.declared.allows(question.need), call.stream.is_some());
            match running.map(|(id, call)| (rank(call), id)).max() {
                Some((_, id)) => self.assign(id, question, now, out),
                None => question.refuse(NOBODYS, out),
            }
        }
    }

    /// Bytes of what waits for the handshake, or until the child's tools are known.
    fn early_bytes(&self) -> usize {
        let held = self.tools.held().iter().map(|held| held.request.text().len());
        held.chain(self.waiting.iter().map(Waiting::bytes)).sum()
    }

    /// Bytes of all questions.
    fn asked_bytes(&self) -> usize {
        let calls = self.asking.iter().map(|(_, id)| *id).chain(self.parked.at_work());
        let questions = calls.filter_map(|id| self.call_of(id)).map(Call::asked_bytes);
        questions.sum::<usize>() + self.undecided.bytes()
    }

    /// A question belongs to this call.
    fn assign(&mut self, id: BridgeId, question: Question, now: Duration, out: &mut Out) {
        let Some(call) = self.call_of_mut(id) else { return question.give_up(out) };
        if !call.what.asks {
            return question.refuse(NOBODYS, out);
        }
        if !call.declared.allows(question.need) {
            call.lacks = Some(question.need);
            return question.refuse(UNSERVED, out);
        }
        if call.questions.len() >= MAX_QUESTIONS {
            return question.refuse("this call has asked too much at once", out);
        }
        call.asked += 1;
        call.asked_at = now;
        let key = format!("{}_{}", question.need.capability().as_str(), call.asked);
        call.questions.push((key.into(), question));
        if call.stream.is_some() && call.asks_at.is_none() {
            let at = now + GATHER;
            call.asks_at = Some(at);
            self.asking.insert((at, id));
        }
    }

    /// The child takes a question back.
    fn taken_back(&mut self, child: &ChildId) {
        if self.undecided.take_back(child) {
            return;
        }
        let ids: Vec<_> = self.link.callers().map(|(id, _)| id).collect();
        for id in ids {
            let Some(call) = self.call_of_mut(id) else { continue };
            let before = call.questions.len();
            call.questions.retain(|(_, question)| question.child != *child);
            if before == call.questions.len() {
                continue;
            }
            if call.questions.is_empty()
                && let Some(at) = call.asks_at.take()
            {
                self.asking.remove(&(at, id));
            }
            return;
        }
    }

    fn child_notification(&mut self, message: Incoming<'_>, now: Duration, out: &mut Out) {
        let method = message.envelope.method(message.text()).into_owned();
        match &*method {
            "notifications/progress" => self.progress(message, out),
            "notifications/message" => self.log_line(message, now, out),
            "notifications/cancelled" => {
                let span = message.envelope.subject();
                if let Some(id) = span.and_then(|span| Id::parse(message.token(span))) {
                    self.taken_back(&ChildId(id));
                }
            }
            _ => {
                if method == "notifications/tools/list_changed" {
                    self.tools.changed();
                }
                let uri = message.envelope.subject().map(|span| unquote(message.token(span)).into_owned());
                let text = slice(message.text(), 0..message.text().len());
                let events = self.listens.changed(&method, uri.as_deref(), text);
                if events.is_empty() {
                    out.note(Note::Dropped(Dropped::Unrelated));
                }
                self.tell(events, out);
            }
        }
    }

    fn progress(&self, message: Incoming<'_>, out: &mut Out) {
        let span = message.envelope.subject();
        let caller = span.clone().and_then(|span| self.link.named(message.token(span)));
        let (Some(span), Some(Caller::Client(call))) = (span, caller) else {
            return out.note(Note::Dropped(Dropped::Unrelated));
        };
        match (&call.token, call.stream) {
            (Some(_), Some(_)) if call.takes == Takes::AnswerOnly => {
                out.note(Note::Dropped(Dropped::NotStreamable));
            }
            (Some(token), Some(stream)) => {
                let message = message.replaced(span, token.0.as_json().as_bytes());
                out.push(Output::Message { stream, message });
            }
            _ => out.note(Note::Dropped(Dropped::Unrelated)),
        }
    }

    /// A log line goes to the call that it belongs to, and only if that has asked for such lines (2026-07-28
    /// `server/utilities/logging`).
    fn log_line(&self, message: Incoming<'_>, now: Duration, out: &mut Out) {
        let params = message.envelope.params.clone().map_or("{}", |span| slice(message.text(), span));
        let level = value_at(params, &["level"]).and_then(|span| Level::parse(params.get(span)?));
        let wants = |call: &Call| match (call.level, level) {
            (Some(wanted), Some(level)) => wanted <= level && call.takes == Takes::Events,
            _ => false,
        };
        let running = || {
            self.link.forwarded().filter_map(|(_, caller)| match caller {
                Caller::Client(call) => Some(&**call),
                Caller::Own(_) => None,
            })
        };
        let call = if self.strangers {
            let alone = !self.lingering.doubts(now) && running().count() == 1;
            running().next().filter(|_| alone).filter(|call| wants(call))
        } else {
            running().filter(|call| wants(call) && call.stream.is_some()).last()
        };
        match call.and_then(|call| call.stream) {
            Some(stream) => out.push(Output::Message { stream, message: message.into_line() }),
            None => out.note(Note::Dropped(Dropped::Unrelated)),
        }
    }
}

fn unanswered(stream: StreamId, id: ClientId, why: Unanswered, out: &mut Out) {
    out.push(Output::Unanswered { stream, id, why });
}

fn decline(stream: StreamId, id: ClientId, why: Declined, out: &mut Out) {
    unanswered(stream, id, Unanswered::Declined(why), out);
}

/// The child needs the client to open URLs before it serves the request (2025-11-25 `client/elicitation`, "URL Elicitation
/// Required Error"): the client is asked that, and then sends the request again.
fn url_needed(stream: StreamId, call: Box<Call>, answer: Incoming<'_>, out: &mut Out) {
    let need = Need::Url;
    if !call.declared.allows(need) {
        return decline(stream, call.client, Declined::Capability(need.capability()), out);
    }
    let asked: Vec<_> = elicitations(&answer)
        .filter(|params| Need::of("elicitation/create", params) == Some(need))
        .take(MAX_QUESTIONS)
        .enumerate()
        .map(|(number, params)| {
            let params = without(params, &["_meta", "elicitationId"]);
            let request = format!(r#"{{"method":"elicitation/create","params":{params}}}"#);
            (format!("elicitation_{}", number + 1), request)
        })
        .collect();
    if asked.is_empty() {
        let message = failed(answer, &call.client, false);
        return out.push(Output::Answer { stream, message, success: false });
    }
    let asked = asked.iter().map(|(key, request)| (&**key, &**request));
    out.push(Output::Answer { stream, message: input_required(&call.client, asked, None), success: true });
}

impl Front for Upgrade {
    fn client(
        &mut self,
        message: Message,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        self.latest = now;
        match message {
            Message::Request(request) => self.request(&request, from, now, out),
            // 2026-07-28 has no notification of a client over HTTP (`basic/transports/streamable-http`).
            Message::Notification(_) => out.note(Note::Swallowed("this revision has no such notification")),
            Message::Response(_) => return Err(Refusal::UnknownResponse),
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
            Kind::Request => self.child_request(&message, now, out),
            Kind::Notification => self.child_notification(message, now, out),
        }
    }

    fn child_too_long(&mut self, head: &[u8], out: &mut Out) {
        if let Some((id, caller, why)) = too_long(&mut self.link, head, out) {
            self.end(id, caller, why, true, self.latest, out);
        }
    }

    fn child_broken(&mut self, broken: &Broken<'_>, out: &mut Out) -> bool {
        match front::broken(&mut self.link, broken, out) {
            Ok((id, caller, why)) => {
                self.end(id, caller, why, true, self.latest, out);
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
            unanswered(held.stream, held.call.client, Unanswered::Timeout, out);
        }
        while let Some((id, caller, why)) = expired(&mut self.link, now, out) {
            self.end(id, caller, why, false, now, out);
        }
        while let Some((at, id)) = self.asking.first().copied()
            && at <= now
        {
            self.asking.remove(&(at, id));
            self.ask(id, now, out);
        }
        while let Some(place) = self.parked.expire(now) {
            self.give_up(place, now, out);
        }
        // What came before may still be what such a call has asked: that goes to nobody.
        self.lingering.expire(now);
        if self.undecided.next_deadline().is_some_and(|at| at <= now) {
            let calls = self.parked.at_work().filter_map(|id| Some((id, self.call_of(id)?)));
            let waiting = calls.filter(|(_, call)| call.waits_for_client());
            let waiting: BTreeMap<_, _> = waiting.map(|(id, call)| (id, call.asked_at + GATHER)).collect();
            for (id, question) in self.undecided.look_again(now, |id| waiting.get(&id).copied()) {
                self.assign(id, question, now, out);
            }
        }
        for question in self.undecided.expire(now) {
            question.refuse(UNCLEAR, out);
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        let asking = self.asking.first().map(|(at, _)| *at);
        let lingering = self.lingering.next_deadline();
        let held = self.tools.held().iter().map(|held| held.arrived + self.request_timeout).min();
        let waiting = [self.parked.next_deadline(), self.undecided.next_deadline(), asking, lingering, held];
        waiting.into_iter().flatten().chain(self.link.next_deadline()).min()
    }

    /// Who closes the response cancels the request (2026-07-28 `basic/patterns/cancellation`).
    fn reader_left(&mut self, stream: StreamId, _: bool, now: Duration, out: &mut Out) {
        if let Some(id) = self.by_stream.get(&stream).copied() {
            return self.cancel(id, Unanswered::Cancelled, now, out);
        }
        self.listens_no_more(stream, now, out);
        for waiting in self.waiting.extract_if(.., |waiting| waiting.stream == stream) {
            unanswered(stream, waiting.client, Unanswered::Cancelled, out);
        }
        for held in self.tools.take(|held| held.stream == stream) {
            unanswered(stream, held.call.client, Unanswered::Cancelled, out);
        }
    }

    fn in_flight(&self) -> usize {
        self.by_stream.len() + self.waiting.len() + self.tools.held().len()
    }

    fn accepting(&self) -> bool {
        self.link.accepting() && self.early_bytes() < MAX_EARLY
    }

    fn held_bytes(&self) -> usize {
        self.link.held_bytes() + self.early_bytes() + self.parked.bytes() + self.asked_bytes()
    }

    /// Those who wait for a person to answer come back.
    fn is_listening(&self) -> bool {
        !self.listens.is_empty() || !self.parked.is_empty()
    }

    fn keep_callers(&mut self, keeps: Keeps<'_>, now: Duration, out: &mut Out) {
        let goes = |caller: &Option<[u8; 32]>| caller.as_ref().is_some_and(|caller| !keeps(caller));
        let calls = self.link.callers().filter_map(|(id, caller)| match caller {
            Caller::Client(call) if goes(&call.caller) => Some(id),
            _ => None,
        });
        for id in calls.collect::<Vec<_>>() {
            self.cancel(id, Unanswered::Revoked, now, out);
        }
        self.parked.retain(|call| !goes(&call.caller));
        for waiting in self.waiting.extract_if(.., |waiting| goes(&waiting.caller)) {
            unanswered(waiting.stream, waiting.client, Unanswered::Revoked, out);
        }
        for held in self.tools.take(|held| goes(&held.call.caller)) {
            unanswered(held.stream, held.call.client, Unanswered::Revoked, out);
        }
        let listeners = self.listeners.iter().filter(|(_, (_, caller))| goes(caller));
        let listeners: Vec<_> = listeners.map(|(stream, (client, _))| (*stream, client.clone())).collect();
        for (stream, client) in listeners {
            self.listens_no_more(stream, now, out);
            unanswered(stream, client, Unanswered::Revoked, out);
        }
    }

    fn farewell(&mut self, out: &mut Out) {
        self.listeners.clear();
        for (stream, message) in self.listens.ends() {
            out.push(Output::Answer { stream, message, success: true });
        }
    }

    fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        self.by_stream.clear();
        self.asking.clear();
        self.lingering.clear();
        (self.parked, self.undecided, self.listens) = Default::default();
        let calls = self.link.abandon().filter_map(|caller| match caller {
            Caller::Client(call) => Some((call.stream?, call.client)),
            Caller::Own(_) => None,
        });
        let held = self.tools.take(|_| true).into_iter().map(|held| (held.stream, held.call.client));
        let waiting = self.waiting.drain(..).map(|waiting| (waiting.stream, waiting.client));
        let listeners = std::mem::take(&mut self.listeners).into_iter();
        let listeners = listeners.map(|(stream, (client, _))| (stream, client));
        calls.chain(waiting).chain(held).chain(listeners).collect()
    }

    #[cfg(test)]
    fn check(&self) {
        self.link.check();
        self.undecided.check();
        let calls = || {
            self.link.callers().filter_map(|(id, caller)| match caller {
                Caller::Client(call) => Some((id, &**call)),
                Caller::Own(_) => None,
            })
        };
        let by_stream: BTreeMap<_, _> = calls().filter_map(|(id, call)| Some((call.stream?, id))).collect();
        assert_eq!(self.by_stream, by_stream, "each call whose client waits is found by its stream");
        for (_, call) in calls().filter(|(_, call)| !call.questions.is_empty()) {
            assert!(call.asks_at.is_some() || call.state.is_some(), "no question is forgotten");
        }
        assert_eq!(self.listeners.len(), self.listens.len(), "each that listens has its caller");
        let asking: BTreeSet<_> = calls().filter_map(|(id, call)| Some((call.asks_at?, id))).collect();
        assert_eq!(self.asking, asking, "each call that asks has its time");
        let parked: std::collections::HashSet<_> = calls().filter_map(|(_, call)| call.state).collect();
        assert_eq!(self.parked.running(), parked, "each call that is parked has its place");
    }
}

#[cfg(test)]
mod tests;
