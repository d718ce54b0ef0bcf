//! A client of the session era with a session of its own over a child of 2026-07-28.
//!
//! The bridge does for such a child what that revision has no more: the handshake, for which the child is asked
//! `server/discover`; `ping`, the level of log lines and subscriptions; and requests of the server, which there are answers
//! that ask for something, so that the same request is sent again with it (`basic/patterns/mrtr`). Each request says for
//! itself what the handshake has said.
//!
//! A long file with one idea: where each request of the client is. The child has it, or the client is asked something for
//! it, or it waits for the bridge.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::front::{
    Front, LISTENER_GRACE, Origin, Readers, Readership, Refusal, Takes, cancelled, is_initialized,
    progress_token, related_stream,
};
use super::ids::{BridgeId, ClientId, Id, ProgressToken, StreamId};
use super::incoming::Incoming;
use super::json::{Span, elements, slice, unquote, value_at};
use super::level::Level;
use super::link::{Answered, Expired, Limits, Link, OWN_LIMIT, Outgoing, Untaken, own_reply};
use super::message::{Kind, Message, Notification, Request, Response, ResultType};
use super::nearly::Broken;
use super::output::{Dropped, Handshake, Note, Out, Output, Unanswered};

mod answer;
mod listens;
mod questions;
mod request;

use answer::{
    Failure, INTERNAL, INVALID_PARAMS, NO_METHOD, Offers, To, complete, done, failed, initialized, type_of,
    unsubscribed,
};
use listens::{Lists, Make, Resources, Ticket, Turn};
use questions::{Needed, Number, Question, answers};
use request::{Profile, again};

/// How many times one call may be repeated at the child's wish.
const MAX_ROUNDS: usize = 8;

/// The pause before a call is repeated for whose repetition the child asks without a question, as one does that has too much
/// to do. It doubles until the child asks something.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many questions of all calls may wait for the client's answers at once.
const MAX_PENDING: usize = 256;

/// Bytes that are kept for calls that may be sent again: the requests, and what has been asked and answered. A call beyond
/// it is sent once, and ends with an error if the child needs something of the client for it.
pub const MAX_KEPT: usize = 8 * 1024 * 1024;

/// A request of the client that the child answers.
#[derive(Debug)]
struct Call {
    client: ClientId,
    stream: StreamId,
    takes: Takes,
    token: Option<ProgressToken>,
    /// From when on its deadline counts, however often it is sent.
    arrived: Duration,
    /// Whether the child may ask the client for more before it answers (2026-07-28 `basic/patterns/mrtr`, "Supported
    /// Requests").
    asks: bool,
    /// What its answer is to.
    to: To,
    is_cancelled: bool,
    /// How many times the child has asked for its repetition.
    rounds: usize,
    /// The next pause before it is repeated.
    pause: Duration,
    /// What is sent again; `None`: there was no room to keep it.
    kept: Option<Request>,
}

impl Call {
    fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |request| request.text().len())
    }
}

/// What a request at the link is.
#[derive(Debug)]
enum Who {
    Client(Box<Call>),
    /// The bridge's own subscription to the lists.
    Lists,
    /// The bridge's own subscription to resources.
    Resources,
}

impl Who {
    fn call(&self) -> Option<&Call> {
        match self {
            Self::Client(call) => Some(call),
            Self::Lists | Self::Resources => None,
        }
    }
}

/// A call whose client is asked something, or that waits for its repetition: the child does not have it.
#[derive(Debug)]
struct Asking {
    call: Box<Call>,
    /// Where its questions are.
    stream: StreamId,
    /// When it ends with an error, unless a client listens by then. `None`: a client has the questions.
    answer_by: Option<Duration>,
    /// When it is repeated, where the child has asked nothing.
    repeat_at: Option<Duration>,
    /// The child's `requestState`.
    state: Option<Box<str>>,
    questions: Vec<Question>,
    /// Bytes of the state, the names and the answers.
    bytes: usize,
}

/// A request that the bridge answers when it can.
#[derive(Debug)]
struct Waiter {
    client: ClientId,
    stream: StreamId,
    arrived: Duration,
}

/// Where a request of the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Child(BridgeId),
    Client(BridgeId),
    Bridge(Ticket),
}

/// The front of a session with one such client.
#[derive(Debug)]
pub struct Downgrade {
    link: Link<Who>,
    profile: Profile,
    /// The client's `initialize`, until it is answered.
    opener: Option<(ClientId, StreamId, Takes)>,
    /// What the present child offers; `None`: it has not said so yet.
    offers: Option<Offers>,
    /// Whether the client has said that it is ready, with `initialized` or by a request.
    is_ready: bool,
    level: Option<Level>,
    max_in_flight: usize,
    request_timeout: Duration,
    /// The newest time that is known.
    latest: Duration,
    by_client: HashMap<ClientId, Place>,
    /// Of two requests with the same progress token the newer one gets the progress.
    by_token: HashMap<ProgressToken, BridgeId>,
    /// By the id under which the child knew them last.
    asking: BTreeMap<BridgeId, Asking>,
    /// The questions that the client has not answered, each with its call. It may take any time within the call's own.
    questions: BTreeMap<Number, BridgeId>,
    /// How many questions there have been.
    asked: u64,
    /// Bytes of all that is kept for calls.
    kept: usize,
    waiting: BTreeMap<Ticket, Waiter>,
    tickets: u64,
    /// The levels that the client has set before the child has said whether it knows them.
    early_levels: Vec<(Ticket, Level)>,
    lists: Lists,
    resources: Resources,
}

impl Downgrade {
    /// Begins the session with the client's `initialize`, for which the child is asked `server/discover`.
    pub fn open(
        limits: Limits,
        initialize: &Request,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Self {
        let profile = Profile::of(initialize);
        let discover = profile.own("server/discover", "");
        Self {
            max_in_flight: limits.max_in_flight,
            request_timeout: limits.request_timeout,
            link: Link::open(limits, &discover, false, now, out),
            profile,
            opener: Some((ClientId(initialize.id().clone()), from.stream, from.takes)),
            offers: None,
            is_ready: false,
            level: None,
            latest: now,
            by_client: HashMap::new(),
            by_token: HashMap::new(),
            asking: BTreeMap::new(),
            questions: BTreeMap::new(),
            asked: 0,
            kept: 0,
            waiting: BTreeMap::new(),
            tickets: 0,
            early_levels: Vec::new(),
            lists: Lists::default(),
            resources: Resources::default(),
        }
    }

    // What the client says.

    fn request(
        &mut self,
        request: &Request,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) -> Result<(), Refusal> {
        let (client, stream) = (ClientId(request.id().clone()), from.stream);
        let method = request.method();
        if method == "initialize" {
            return Err(Refusal::AlreadyInitialized(client));
        }
        if self.by_client.contains_key(&client) || self.opened_by(&client) {
            return Err(Refusal::DuplicateId(client));
        }
        match &*method {
            "ping" => succeed(stream, &client, out),
            _ if is_initialized(request) => {
                self.ready(now, out);
                succeed(stream, &client, out);
            }
            // Such a child has other tasks, of which this client knows nothing, or none; and the rest is the bridge's to
            // ask. What is named like a notification is one for a child that looks at the method alone.
            "server/discover" | "subscriptions/listen" => fail(stream, &client, &no_method(&method), out),
            method if method.starts_with("tasks/") || method.starts_with("notifications/") => {
                fail(stream, &client, &no_method(method), out);
            }
            _ if self.begun() >= self.max_in_flight => {
                unanswered(stream, client, Unanswered::Overload, out);
            }
            "logging/setLevel" => self.set_level(request, client, from, now, out),
            "resources/subscribe" => self.subscribe(request, true, client, from, now, out),
            "resources/unsubscribe" => self.subscribe(request, false, client, from, now, out),
            _ => self.call(request, client, from, now, out),
        }
        Ok(())
    }

    fn call(&mut self, request: &Request, client: ClientId, from: Origin<'_>, now: Duration, out: &mut Out) {
        self.ready(now, out);
        let Some(raised) = self.profile.raise(request, self.level) else {
            let why = Failure::own(INVALID_PARAMS, "invalid_params", "\"params\" must be an object");
            return fail(from.stream, &client, &why, out);
        };
        let method = request.method();
        let asks = matches!(&*method, "tools/call" | "prompts/get" | "resources/read");
        let to = match &*method {
            "tools/call" => To::Call,
            "tools/list" => To::Tools,
            "resources/read" if parameter(request, "uri").is_some() => To::Read,
            _ => To::Other,
        };
        let token = request.token().and_then(|span| Id::parse(slice(request.text(), span)));
        let mut call = Box::new(Call {
            client,
            stream: from.stream,
            takes: from.takes,
            token: token.map(ProgressToken),
            arrived: from.arrived,
            asks,
            to,
            is_cancelled: false,
            rounds: 0,
            pause: FIRST_PAUSE,
            kept: None,
        });
        let length = raised.text().len();
        if asks && self.kept + length <= MAX_KEPT {
            self.kept += length;
            call.kept = Some(raised.clone());
        }
        self.pass_on(call, raised, now, out);
    }

    /// Gives the child a call, for the first time or again.
    fn pass_on(&mut self, call: Box<Call>, request: Request, now: Duration, out: &mut Out) {
        let (client, token, arrived) = (call.client.clone(), call.token.clone(), call.arrived);
        let id = self.link.request(Who::Client(call), Outgoing { request, token: None }, arrived, now, out);
        self.by_client.insert(client, Place::Child(id));
        if let Some(token) = token {
            self.by_token.insert(token, id);
        }
    }

    /// The child is told with each request from then on (2026-07-28 `server/utilities/logging`).
    fn set_level(
        &mut self,
        request: &Request,
        client: ClientId,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) {
        self.ready(now, out);
        let Some(level) = parameter(request, "level").and_then(Level::parse) else {
            let why =
                "\"level\" must be one of debug, info, notice, warning, error, critical, alert, emergency";
            let why = Failure::own(INVALID_PARAMS, "invalid_params", why);
            return fail(from.stream, &client, &why, out);
        };
        let ticket = self.wait(client, from);
        self.early_levels.push((ticket, level));
        self.set_levels(out);
    }

    fn set_levels(&mut self, out: &mut Out) {
        let Some(offers) = self.offers else { return };
        for (ticket, level) in std::mem::take(&mut self.early_levels) {
            if offers.logging {
                self.level = Some(level);
            }
            self.settle(ticket, offers.logging.then_some(()).ok_or(&no_method("logging/setLevel")), out);
        }
    }

    fn subscribe(
        &mut self,
        request: &Request,
        subscribes: bool,
        client: ClientId,
        from: Origin<'_>,
        now: Duration,
        out: &mut Out,
    ) {
        self.ready(now, out);
        let uri = parameter(request, "uri").map(unquote);
        let wrong = match &uri {
            None => Some((INVALID_PARAMS, "invalid_params", "\"uri\" must be a string")),
            Some(uri) if uri.is_empty() => Some((INVALID_PARAMS, "invalid_params", "\"uri\" is not usable")),
            Some(uri) if subscribes && self.resources.is_full(uri) => {
                Some((INTERNAL, "too_many_subscriptions", "This session has too many subscriptions"))
            }
            Some(_) => None,
        };
        if let Some((code, reason, message)) = wrong {
            return fail(from.stream, &client, &Failure::own(code, reason, message), out);
        }
        let ticket = self.wait(client, from);
        self.resources.change(ticket, &uri.unwrap_or_default(), subscribes);
        self.subscribe_resources(now, out);
    }

    /// Keeps a request that the bridge answers itself.
    fn wait(&mut self, client: ClientId, from: Origin<'_>) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.by_client.insert(client.clone(), Place::Bridge(ticket));
        self.waiting.insert(ticket, Waiter { client, stream: from.stream, arrived: from.arrived });
        ticket
    }

    /// Answers such a request, unless it has ended before.
    fn settle(&mut self, ticket: Ticket, how: Result<(), &Failure>, out: &mut Out) {
        if let Some(Waiter { client, stream, .. }) = self.no_more_waiting(ticket) {
            match how {
                Ok(()) => succeed(stream, &client, out),
                Err(why) => fail(stream, &client, why, out),
            }
        }
    }

    fn no_more_waiting(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket)?;
        self.by_client.remove(&waiter.client);
        Some(waiter)
    }

    /// Ends such a request without an answer. What it wanted is not done, unless the child has been asked for it by now.
    fn end_waiting(&mut self, ticket: Ticket, why: Unanswered, out: &mut Out) {
        if let Some(waiter) = self.no_more_waiting(ticket) {
            self.early_levels.retain(|(early, _)| *early != ticket);
            self.resources.withdraw(ticket);
            unanswered(waiter.stream, waiter.client, why, out);
        }
    }

    fn notification(&mut self, notification: &Notification, now: Duration, out: &mut Out) {
        if notification.method() == "notifications/initialized" {
            self.ready(now, out);
            return out.note(Note::Swallowed("2026-07-28 has no initialized"));
        }
        let Some((client, span)) = cancelled(notification) else {
            // Neither has it progress of what the server asks, nor roots whose changes are told.
            return out.note(Note::Swallowed("2026-07-28 has no such notification"));
        };
        if client.as_ref().is_some_and(|client| self.opened_by(client)) {
            // 2025-11-25 `basic/utilities/cancellation`
            return out.note(Note::Swallowed("initialize cannot be cancelled"));
        }
        match client.and_then(|client| self.by_client.get(&client).copied()) {
            None => out.note(Note::Swallowed("the cancelled request is not in flight")),
            Some(Place::Child(id)) => self.cancel(id, notification.text(), span, now, out),
            Some(Place::Client(id)) => {
                if let Some(call) = self.ask_no_more(id, "the request was cancelled", out) {
                    unanswered(call.stream, call.client, Unanswered::Cancelled, out);
                }
            }
            Some(Place::Bridge(ticket)) => self.end_waiting(ticket, Unanswered::Cancelled, out),
        }
    }

    fn cancel(&mut self, id: BridgeId, text: &[u8], span: Span, now: Duration, out: &mut Out) {
        match self.link.cancel(id, text, span, now, out) {
            Some(who) => self.end(id, who, Unanswered::Cancelled, now, out),
            None => {
                if let Some(Who::Client(call)) = self.link.caller_mut(id) {
                    call.is_cancelled = true;
                }
            }
        }
    }

    fn response(&mut self, response: &Response, now: Duration, out: &mut Out) -> Result<(), Refusal> {
        let Some(number) = Number::parse(response.id()) else { return Err(Refusal::UnknownResponse) };
        let Some(id) = self.questions.remove(&number) else {
            if (1..=self.asked).contains(&number.0) {
                out.note(Note::Swallowed("the server's request has ended"));
                return Ok(());
            }
            return Err(Refusal::UnknownResponse);
        };
        let Some(asking) = self.asking.get_mut(&id) else { return Ok(()) };
        let question = asking.questions.iter_mut().find(|question| question.number == number);
        let why = match question.map_or(Ok(0), |question| question.answered(response.text())) {
            Ok(length) if self.kept + length > MAX_KEPT => {
                Some("What the client has answered is too long to be kept".to_owned())
            }
            Ok(length) => {
                asking.bytes += length;
                self.kept += length;
                None
            }
            Err(why) => Some(why),
        };
        if let Some(why) = why {
            self.give_up(id, &why, out);
        } else if !asking.questions.iter().any(Question::is_open) {
            self.go_on(id, now, out);
        }
        Ok(())
    }

    /// Repeats a call: the client has answered all that it was asked for it.
    fn go_on(&mut self, id: BridgeId, now: Duration, out: &mut Out) {
        let Some(asking) = self.take_asking(id) else { return };
        let (call, answers) = (asking.call, answers(&asking.questions));
        let again = |request| again(request, answers.as_deref(), asking.state.as_deref());
        // It was looked for before its client was asked.
        let Some(request) = call.kept.as_ref().map(again) else { return };
        self.kept += call.kept_bytes();
        self.pass_on(call, request, now, out);
    }

    /// Takes a call out for which the client is asked something. Its names are free, and nothing of it is counted.
    fn take_asking(&mut self, id: BridgeId) -> Option<Asking> {
        let asking = self.asking.remove(&id)?;
        self.kept -= asking.bytes + asking.call.kept_bytes();
        self.by_client.remove(&asking.call.client);
        Some(asking)
    }

    /// Ends such a call, and tells the client that its answers are not needed.
    fn ask_no_more(&mut self, id: BridgeId, why: &str, out: &mut Out) -> Option<Box<Call>> {
        let asking = self.take_asking(id)?;
        self.take_back(&asking.questions, asking.stream, why, out);
        Some(asking.call)
    }

    fn take_back(&mut self, questions: &[Question], stream: StreamId, why: &str, out: &mut Out) {
        for question in questions {
            if self.questions.remove(&question.number).is_some() {
                out.push(Output::Message { stream, message: question.taken_back(why).into() });
            }
        }
    }

    /// The same with an error.
    fn give_up(&mut self, id: BridgeId, why: &str, out: &mut Out) {
        if let Some(call) = self.ask_no_more(id, "the server's request has ended", out) {
            fail(call.stream, &call.client, &unserved(why), out);
        }
    }

    /// The client is ready: the child is asked to tell it of what changes.
    fn ready(&mut self, now: Duration, out: &mut Out) {
        self.is_ready = true;
        self.subscribe_lists(now, out);
    }

    /// How many requests of the client have no answer, its `initialize` aside.
    fn begun(&self) -> usize {
        self.link.in_flight() + self.asking.len() + self.waiting.len()
    }

    /// Whether this is the id of the client's `initialize`, and that has no answer yet.
    fn opened_by(&self, client: &ClientId) -> bool {
        self.opener.as_ref().is_some_and(|(opener, ..)| opener == client)
    }

    // Subscriptions.

    fn listen(&mut self, who: Who, notifications: &str, now: Duration, out: &mut Out) -> BridgeId {
        let more = format!(",\"notifications\":{notifications}");
        let request = self.profile.own("subscriptions/listen", &more);
        self.link.listen(who, Outgoing { request, token: None }, now, out)
    }

    fn subscribe_lists(&mut self, now: Duration, out: &mut Out) {
        if self.is_ready
            && self.lists.is_wanted()
            && let Some(lists) = self.offers.and_then(Offers::lists)
        {
            let id = self.listen(Who::Lists, &lists, now, out);
            self.lists.asked(id);
        }
    }

    fn subscribe_resources(&mut self, now: Duration, out: &mut Out) {
        let Some(offers) = self.offers else { return };
        if !offers.subscribe {
            let why = "Method not found: the server offers no subscriptions to resources";
            let why = Failure::own(NO_METHOD, "method_not_found", why);
            for ticket in self.resources.take_queue() {
                self.settle(ticket, Err(&why), out);
            }
        }
        while let Some(turn) = self.resources.turn() {
            match turn {
                Turn::Make(make) => self.make(make, now, out),
                Turn::Done { tickets, end } => {
                    end.and_then(|id| self.link.withdraw(id, out));
                    tickets.into_iter().for_each(|ticket| self.settle(ticket, Ok(()), out));
                }
            }
        }
    }

    fn make(&mut self, make: Make, now: Duration, out: &mut Out) {
        let until = self.link.serves_at().map_or(now, |serves| serves.max(now)) + OWN_LIMIT;
        let id = self.listen(Who::Resources, &make.notifications(), now, out);
        self.resources.made(id, make, until);
    }

    fn acknowledged(&mut self, message: &Incoming<'_>, id: Option<BridgeId>, now: Duration, out: &mut Out) {
        let Some(id) = id.filter(|id| self.link.is_listen(*id)) else {
            return out.note(Note::Dropped(Dropped::Late));
        };
        if self.lists.is(id) {
            return self.lists.acknowledged();
        }
        let params = message.envelope.params.clone().map_or("{}", |span| slice(message.text(), span));
        let uris = value_at(params, &["notifications", "resourceSubscriptions"]);
        let uris = uris.and_then(|span| params.get(span)).map(elements).into_iter().flatten().flatten();
        let honoured: std::collections::BTreeSet<_> = uris.map(unquote).collect();
        let Some(acknowledged) = self.resources.acknowledged(id, |uri| honoured.contains(uri)) else {
            return out.note(Note::Dropped(Dropped::Late));
        };
        for id in acknowledged.end {
            self.link.withdraw(id, out);
        }
        let refused =
            Failure::own(INVALID_PARAMS, "invalid_params", "The server does not tell of this resource");
        for (ticket, has_it) in acknowledged.tickets {
            self.settle(ticket, if has_it { Ok(()) } else { Err(&refused) }, out);
        }
        self.subscribe_resources(now, out);
    }

    /// A subscription of the bridge's own has ended, and not by the bridge's word. `why`: what those are told who wait for it.
    fn listen_ended(&mut self, id: BridgeId, why: &Failure, for_good: bool, now: Duration, out: &mut Out) {
        if self.lists.is(id) {
            return self.lists.ended(for_good, now);
        }
        for ticket in self.resources.ended(id, for_good, now) {
            self.settle(ticket, Err(why), out);
        }
        self.subscribe_resources(now, out);
    }

    // What the child says.

    fn child_answer(&mut self, answer: Incoming<'_>, now: Duration, readers: Readers<'_>, out: &mut Out) {
        match self.link.answer(&answer, now, out) {
            Answered::Call { id, caller: Who::Client(call) } => {
                self.forget(id, &call);
                self.answered(id, call, answer, now, readers, out);
            }
            Answered::Call { id, .. } => {
                let failure = answer.envelope.kind == Kind::Failure;
                let code = answer.error_code().map(|(code, _)| code);
                let why = if failure { Failure::of(&answer) } else { ended_by_server() };
                self.listen_ended(id, &why, code == Some(NO_METHOD), now, out);
            }
            Answered::Handshake(how) => self.greeted(&how, answer, now, out),
            Answered::Retried { old, new } => self.renamed(old, new),
            Answered::Nothing => {}
        }
    }

    /// The child has answered `server/discover`.
    fn greeted(&mut self, how: &Handshake, answer: Incoming<'_>, now: Duration, out: &mut Out) {
        let opener = self.opener.take();
        let is_complete = matches!(how, Handshake::Done(_))
            && matches!(answer.envelope.result_type(), ResultType::None | ResultType::Complete);
        if let Some(offers) = Offers::of(&answer).filter(|_| is_complete) {
            let revision = self.profile.revision;
            // First of all the version: it decides the form of the answer.
            out.push(Output::Handshake(Handshake::Done(Some(revision.as_str().into()))));
            if let Some((client, stream, _)) = opener {
                let message = initialized(&answer, &client, revision);
                out.push(Output::Answer { stream, message, success: true });
            }
            self.offers = Some(offers);
            self.set_levels(out);
            self.subscribe_lists(now, out);
            return self.subscribe_resources(now, out);
        }
        if let Some((client, stream, _)) = opener {
            let message = if answer.envelope.kind == Kind::Failure {
                failed(answer, &client, To::Other)
            } else {
                let why = "The server has answered server/discover and does not support 2026-07-28";
                Failure::own(INTERNAL, "invalid_response", why).answer(&client)
            };
            out.push(Output::Answer { stream, message, success: false });
        }
        out.push(Output::Handshake(match how {
            Handshake::Done(_) => Handshake::Refused,
            failed => failed.clone(),
        }));
    }

    /// The child has answered a call, which is not at the link any more.
    fn answered(
        &mut self,
        id: BridgeId,
        call: Box<Call>,
        answer: Incoming<'_>,
        now: Duration,
        readers: Readers<'_>,
        out: &mut Out,
    ) {
        let stream = call.stream;
        if answer.envelope.kind == Kind::Failure {
            let message = failed(answer, &call.client, call.to);
            return out.push(Output::Answer { stream, message, success: false });
        }
        match answer.envelope.result_type() {
            ResultType::None | ResultType::Complete => {
                let message = complete(answer, &call.client, call.to);
                out.push(Output::Answer { stream, message, success: true });
            }
            ResultType::InputRequired if call.is_cancelled => {
                unanswered(stream, call.client, Unanswered::Cancelled, out);
            }
            ResultType::InputRequired if call.asks => self.ask(id, call, &answer, now, readers, out),
            ResultType::InputRequired => {
                let why = "The server needs something of the client for a request that has no room for it";
                fail(stream, &call.client, &unserved(why), out);
            }
            ResultType::Other => {
                let token = type_of(&answer);
                let why =
                    format!("The server has answered with a result that the client does not know: {token}");
                fail(stream, &call.client, &Failure::own(INTERNAL, "invalid_response", &why), out);
            }
        }
    }

    /// The child needs something of the client before it can answer this call.
    fn ask(
        &mut self,
        id: BridgeId,
        mut call: Box<Call>,
        answer: &Incoming<'_>,
        now: Duration,
        readers: Readers<'_>,
        out: &mut Out,
    ) {
        let result = answer.envelope.result.clone().map_or("{}", |span| slice(answer.text(), span));
        let Profile { declared, revision, .. } = self.profile;
        let needed = match Needed::of(result, declared, revision) {
            Err(why) => Err(why),
            Ok(_) if call.rounds >= MAX_ROUNDS => {
                Err(format!("The server has asked to be asked again {MAX_ROUNDS} times and does not answer"))
            }
            Ok(_) if call.kept.is_none() => Err(format!(
                "The server needs something of the client, and its calls are longer than {MAX_KEPT} bytes in all"
            )),
            Ok(needed) if self.kept + call.kept_bytes() + needed.kept() > MAX_KEPT => {
                Err("What the server asks is too long to be kept".to_owned())
            }
            Ok(needed) if self.questions.len() + needed.asked.len() > MAX_PENDING => {
                Err("The server asks the client for too much at once".to_owned())
            }
            Ok(needed) => Ok(needed),
        };
        let needed = match needed {
            Ok(needed) => needed,
            Err(why) => return fail(call.stream, &call.client, &unserved(&why), out),
        };
        call.rounds += 1;
        let mut repeat_at = None;
        if needed.asked.is_empty() {
            repeat_at = Some(now + call.pause);
            call.pause = (2 * call.pause).min(LONGEST_PAUSE);
        } else {
            call.pause = FIRST_PAUSE;
        }
        let stream = related_stream(|| std::iter::once((call.stream, call.takes)), readers);
        let is_unread = repeat_at.is_none() && readers(stream) != Readership::Present;
        let answer_by = is_unread.then(|| now + LISTENER_GRACE);
        let bytes = needed.kept();
        let mut questions = Vec::with_capacity(needed.asked.len());
        for asked in needed.asked {
            self.asked += 1;
            let number = Number(self.asked);
            out.push(Output::Message { stream, message: asked.request(number, revision).into() });
            self.questions.insert(number, id);
            questions.push(Question::new(number, asked));
        }
        self.kept += bytes + call.kept_bytes();
        self.by_client.insert(call.client.clone(), Place::Client(id));
        let state = needed.state;
        self.asking.insert(id, Asking { call, stream, answer_by, repeat_at, state, questions, bytes });
    }

    fn child_notification(
        &mut self,
        message: Incoming<'_>,
        now: Duration,
        readers: Readers<'_>,
        out: &mut Out,
    ) {
        let subscription = message.envelope.subscription();
        let listen = subscription.clone().map(|span| self.link.id_named(message.token(span)));
        match &*message.envelope.method(message.text()) {
            "notifications/subscriptions/acknowledged" => {
                self.acknowledged(&message, listen.flatten(), now, out);
            }
            "notifications/progress" => self.progress(message, out),
            "notifications/cancelled" => self.child_cancelled(&message, now, out),
            "notifications/message" => {
                let stream = self.stream_at_work(readers);
                out.push(Output::Message { stream, message: message.into_line() });
            }
            _ => match listen {
                // It must name its subscription, and one that does not is not lost for that.
                None => {
                    out.push(Output::Message { stream: StreamId::LISTENING, message: message.into_line() })
                }
                Some(Some(id)) if self.lists.is(id) || self.resources.is(id) => {
                    let message = unsubscribed(message);
                    out.push(Output::Message { stream: StreamId::LISTENING, message });
                }
                Some(Some(_)) => out.note(Note::Dropped(Dropped::Late)),
                Some(None) => out.note(Note::Dropped(Dropped::UnknownId)),
            },
        }
    }

    /// The stream for what does not say to which call it belongs.
    fn stream_at_work(&self, readers: Readers<'_>) -> StreamId {
        let opener = || self.opener.iter().map(|(_, stream, takes)| (*stream, *takes));
        let calls = || self.link.at_work().filter_map(Who::call).map(|call| (call.stream, call.takes));
        related_stream(|| calls().chain(opener()), readers)
    }

    /// The token is the client's own, or the bridge's id of the request, which some servers take for it.
    fn progress(&self, message: Incoming<'_>, out: &mut Out) {
        let span = message.envelope.subject();
        let named = span.clone().map_or("", |span| message.token(span));
        let of = |id: &BridgeId| self.link.caller(*id).and_then(Who::call);
        let by_token = progress_token(named).and_then(|token| of(self.by_token.get(&token)?));
        let own = span.filter(|_| by_token.is_none());
        let Some(call) = by_token.or_else(|| self.link.named(named).and_then(Who::call)) else {
            return out.push(Output::Message { stream: StreamId::LISTENING, message: message.into_line() });
        };
        let stream = call.stream;
        if call.takes == Takes::AnswerOnly {
            return out.note(Note::Dropped(Dropped::NotStreamable));
        }
        let token = call.token.as_ref().map_or(&call.client.0, |token| &token.0);
        let message = match own {
            Some(span) => message.replaced(span, token.as_json().as_bytes()),
            None => message.into_line(),
        };
        out.push(Output::Message { stream, message });
    }

    /// The child ends a subscription (2026-07-28 `basic/patterns/cancellation`).
    fn child_cancelled(&mut self, message: &Incoming<'_>, now: Duration, out: &mut Out) {
        let named = message.envelope.subject().and_then(|span| self.link.id_named(message.token(span)));
        match named.filter(|id| self.link.end_listen(*id).is_some()) {
            Some(id) => self.listen_ended(id, &ended_by_server(), false, now, out),
            None => out.note(Note::Dropped(Dropped::UnknownId)),
        }
    }

    // Ends.

    /// A call has left the link: its names are free, and nothing of it is counted.
    fn forget(&mut self, id: BridgeId, call: &Call) {
        self.kept -= call.kept_bytes();
        self.by_client.remove(&call.client);
        if let Some(token) = &call.token
            && self.by_token.get(token) == Some(&id)
        {
            self.by_token.remove(token);
        }
    }

    /// A request at the link ends without an answer of the child.
    fn end(&mut self, id: BridgeId, who: Who, why: Unanswered, now: Duration, out: &mut Out) {
        match who {
            Who::Client(call) => {
                self.forget(id, &call);
                unanswered(call.stream, call.client, why, out);
            }
            Who::Lists | Who::Resources => {
                let why = "The server's answer to a subscription cannot be taken";
                let why = Failure::own(INTERNAL, "invalid_response", why);
                self.listen_ended(id, &why, false, now, out);
            }
        }
    }

    fn renamed(&mut self, old: BridgeId, new: BridgeId) {
        let places = self.by_client.values_mut().filter(|place| **place == Place::Child(old));
        places.for_each(|place| *place = Place::Child(new));
        self.by_token.values_mut().filter(|id| **id == old).for_each(|id| *id = new);
        self.lists.renamed(old, new);
        self.resources.renamed(old, new);
    }

    fn expire_asking(&mut self, now: Duration, readers: Readers<'_>, out: &mut Out) {
        let limit = self.request_timeout;
        let late = self.asking.iter().filter(|(_, asking)| asking.call.arrived + limit <= now);
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            let is_asked = self.asking.get(&id).is_some_and(|asking| asking.repeat_at.is_none());
            match self.ask_no_more(id, "the request timed out", out) {
                // The child has done its part.
                Some(call) if is_asked => {
                    let why = "The server needs something of the client, which has not given it in time";
                    fail(call.stream, &call.client, &unserved(why), out);
                }
                Some(call) => unanswered(call.stream, call.client, Unanswered::Timeout, out),
                None => {}
            }
        }
        let due = self.asking.iter().filter(|(_, asking)| asking.repeat_at.is_some_and(|due| due <= now));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.go_on(id, now, out);
        }
        let mut unread = Vec::new();
        for (id, asking) in &mut self.asking {
            if asking.answer_by.take_if(|deadline| *deadline <= now).is_some()
                && readers(asking.stream) != Readership::Present
            {
                unread.push(*id);
            }
        }
        for id in unread {
            out.note(Note::NoListener);
            self.give_up(id, "The server needs something of the client, and no client listens for it", out);
        }
    }

    /// The subscription that is being made has not been acknowledged in time.
    fn expire_subscription(&mut self, now: Duration, out: &mut Out) {
        let late = self.resources.expire(now);
        if let Some(id) = late {
            self.link.withdraw(id, out);
            let why = "The server has not acknowledged the subscription in time";
            self.listen_ended(id, &Failure::own(INTERNAL, "request_timeout", why), false, now, out);
        }
        self.subscribe_resources(now, out);
        if self.lists.expire(now) {
            self.subscribe_lists(now, out);
        }
    }
}

fn succeed(stream: StreamId, client: &ClientId, out: &mut Out) {
    out.push(Output::Answer { stream, message: done(client), success: true });
}

fn fail(stream: StreamId, client: &ClientId, why: &Failure, out: &mut Out) {
    out.push(Output::Answer { stream, message: why.answer(client), success: false });
}

fn unanswered(stream: StreamId, id: ClientId, why: Unanswered, out: &mut Out) {
    out.push(Output::Unanswered { stream, id, why });
}

fn no_method(method: &str) -> Failure {
    let method = crate::printable::cut(method);
    Failure::own(NO_METHOD, "method_not_found", &format!("Method not found: {method}"))
}

/// The child needs what it does not get.
fn unserved(why: &str) -> Failure {
    Failure::own(INTERNAL, "missing_input", why)
}

fn ended_by_server() -> Failure {
    Failure::own(INTERNAL, "subscription_ended", "The server has ended the subscription")
}

/// A parameter of a request that is a string, as it stands.
fn parameter<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    let params = slice(request.text(), request.params()?);
    let value = params.get(value_at(params, &[name])?)?;
    value.starts_with('"').then_some(value)
}

impl Front for Downgrade {
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
            Message::Notification(notification) => {
                self.notification(&notification, now, out);
                Ok(())
            }
            Message::Response(response) => self.response(&response, now, out),
        }
    }

    fn child(&mut self, message: Incoming<'_>, now: Duration, readers: Readers<'_>, out: &mut Out) {
        self.latest = now;
        if self.link.echoes(&message, now, out) {
            return;
        }
        match message.envelope.kind {
            Kind::Success | Kind::Failure => self.child_answer(message, now, readers, out),
            // It must not ask (2026-07-28 `basic/transports/stdio`), and one that does would wait.
            Kind::Request => own_reply(&message, out),
            Kind::Notification => self.child_notification(message, now, readers, out),
        }
    }

    fn child_too_long(&mut self, head: &[u8], out: &mut Out) {
        match self.link.too_long(head, out) {
            Untaken::Call(id, who) => self.end(id, who, Unanswered::TooLong, self.latest, out),
            Untaken::Handshake => {
                if let Some((client, stream, _)) = self.opener.take() {
                    unanswered(stream, client, Unanswered::TooLong, out);
                }
                out.push(Output::Handshake(Handshake::Refused));
            }
            Untaken::Nothing => {}
            Untaken::Unclear => out.push(Output::AnswerToUnknown),
        }
    }

    fn child_broken(&mut self, broken: &Broken<'_>, out: &mut Out) -> bool {
        let wrong = broken.wrong;
        match self.link.broken(broken) {
            Untaken::Call(id, who) => self.end(id, who, Unanswered::Invalid(wrong), self.latest, out),
            Untaken::Handshake => {
                if let Some((client, stream, _)) = self.opener.take() {
                    unanswered(stream, client, Unanswered::Invalid(wrong), out);
                }
                out.push(Output::Handshake(Handshake::Invalid(wrong)));
            }
            Untaken::Nothing | Untaken::Unclear => return false,
        }
        true
    }

    fn awaits(&self, answer: &Incoming<'_>) -> bool {
        self.link.awaits(answer)
    }

    fn expire(&mut self, now: Duration, readers: Readers<'_>, out: &mut Out) {
        self.latest = now;
        while let Some(expired) = self.link.expire(now, out) {
            match expired {
                Expired::Handshake { echoed: true } => out.push(Output::Handshake(Handshake::Echoed)),
                Expired::Handshake { .. } => out.push(Output::Handshake(Handshake::TimedOut)),
                Expired::Call(id, who, why) => self.end(id, who, why, now, out),
            }
        }
        self.expire_asking(now, readers, out);
        let limit = self.request_timeout;
        let late = self.waiting.iter().filter(|(_, waiter)| waiter.arrived + limit <= now);
        for ticket in late.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.end_waiting(ticket, Unanswered::Timeout, out);
        }
        self.expire_subscription(now, out);
    }

    fn next_deadline(&self) -> Option<Duration> {
        let limit = self.request_timeout;
        let asking = self
            .asking
            .values()
            .flat_map(|asking| [Some(asking.call.arrived + limit), asking.answer_by, asking.repeat_at]);
        let waiting = self.waiting.values().map(|waiter| waiter.arrived + limit);
        let listens = [self.lists.next_deadline(), self.resources.next_deadline(), self.link.next_deadline()];
        asking.chain(listens).flatten().chain(waiting).min()
    }

    /// A question may never be read, if the reader of its stream has left.
    fn reader_left(&mut self, stream: StreamId, took_all: bool, now: Duration, _: &mut Out) {
        if took_all {
            return;
        }
        for asking in self.asking.values_mut().filter(|asking| asking.stream == stream) {
            asking.answer_by.get_or_insert(now + LISTENER_GRACE);
        }
    }

    fn in_flight(&self) -> usize {
        self.begun() + usize::from(self.opener.is_some())
    }

    fn accepting(&self) -> bool {
        self.link.accepting()
    }

    fn held_bytes(&self) -> usize {
        self.link.held_bytes() + self.kept
    }

    fn can_restart(&self) -> bool {
        self.link.can_restart()
    }

    /// Calls for which the client is asked something are not at the child, and go on: their repetition goes to the new one,
    /// which knows what it needs to know by the state, or says that it does not.
    fn child_lost(&mut self) -> Vec<(StreamId, ClientId)> {
        self.offers = None;
        let (mut lost, mut listens) = (Vec::new(), Vec::new());
        for (id, who) in self.link.child_lost() {
            match who {
                Who::Client(call) => {
                    self.forget(id, &call);
                    lost.push((call.stream, call.client));
                }
                Who::Lists | Who::Resources => listens.push(id),
            }
        }
        self.lists.lost(|id| listens.contains(&id));
        for ticket in self.resources.lost(|id| listens.contains(&id)) {
            lost.extend(self.no_more_waiting(ticket).map(|waiter| (waiter.stream, waiter.client)));
        }
        lost
    }

    fn restart(&mut self, now: Duration, out: &mut Out) {
        self.link.restart(now, out);
    }

    fn farewell(&mut self, out: &mut Out) {
        for id in self.lists.end().into_iter().chain(self.resources.end()) {
            self.link.withdraw(id, out);
        }
        for id in self.asking.keys().copied().collect::<Vec<_>>() {
            let Some(asking) = self.asking.get_mut(&id) else { continue };
            let (questions, stream) = (std::mem::take(&mut asking.questions), asking.stream);
            self.take_back(&questions, stream, "the session ends", out);
        }
    }

    fn abandon(&mut self) -> Vec<(StreamId, ClientId)> {
        self.by_client.clear();
        self.by_token.clear();
        self.questions.clear();
        self.early_levels.clear();
        (self.lists, self.resources, self.kept) = (Lists::default(), Resources::default(), 0);
        let opener = self.opener.take().map(|(client, stream, _)| (stream, client));
        let calls = self.link.abandon().filter_map(|who| match who {
            Who::Client(call) => Some((call.stream, call.client)),
            Who::Lists | Who::Resources => None,
        });
        let asking = std::mem::take(&mut self.asking).into_values();
        let asking = asking.map(|asking| (asking.call.stream, asking.call.client));
        let waiting = std::mem::take(&mut self.waiting).into_values();
        let waiting = waiting.map(|waiter| (waiter.stream, waiter.client));
        opener.into_iter().chain(asking).chain(calls).chain(waiting).collect()
    }

    #[cfg(test)]
    fn check(&self) {
        self.link.check();
        let calls = || self.link.callers().filter_map(|(id, who)| Some((id, who.call()?)));
        let at_child = calls().map(|(id, call)| (call.client.clone(), Place::Child(id)));
        let at_client =
            self.asking.iter().map(|(id, asking)| (asking.call.client.clone(), Place::Client(*id)));
        let at_bridge =
            self.waiting.iter().map(|(ticket, waiter)| (waiter.client.clone(), Place::Bridge(*ticket)));
        let by_client: HashMap<_, _> = at_child.chain(at_client).chain(at_bridge).collect();
        assert_eq!(self.by_client, by_client, "each request is found by its client's id");
        for (token, id) in &self.by_token {
            let call = self.link.caller(*id).and_then(Who::call);
            assert_eq!(call.and_then(|call| call.token.as_ref()), Some(token), "a request by its token");
        }
        let open = self.asking.iter().flat_map(|(id, asking)| {
            let open = asking.questions.iter().filter(|question| question.is_open());
            open.map(|question| (question.number, *id))
        });
        assert_eq!(self.questions, open.collect(), "each question that is open is found by its number");
        let asking: usize = self.asking.values().map(|asking| asking.bytes + asking.call.kept_bytes()).sum();
        let kept: usize = calls().map(|(_, call)| call.kept_bytes()).sum();
        assert_eq!(self.kept, asking + kept, "each byte that is kept is counted");
        assert!(self.kept <= MAX_KEPT && self.questions.len() <= MAX_PENDING);
        let listens = self.link.callers().map(|(id, _)| id).filter(|id| self.link.is_listen(*id));
        let own: std::collections::BTreeSet<_> = self.resources.ids().chain(self.lists.id()).collect();
        assert_eq!(listens.collect::<std::collections::BTreeSet<_>>(), own, "each subscription is known");
    }
}

#[cfg(test)]
mod tests;
