//! Whatever clients and the child do, in whatever order: each request ends once, and what is of one client reaches no other.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::proto::lingering::LINGER;
use crate::proto::testing::any_text;

/// How many clients there are. All use the same ids and tokens.
const CLIENTS: u8 = 3;

const IDS: [&str; 3] = ["7", "\"7\"", "0"];

const METHODS: [&str; 6] =
    ["tools/call", "tools/call", "prompts/get", "resources/list", "server/discover", "ping"];

/// Longer than any session here.
const INIT_TIMEOUT: Duration = secs(1_000_000);

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The child answers `initialize`.
    Greet,
    Call {
        client: u8,
        id: &'static str,
        method: &'static str,
        able: bool,
        level: Option<&'static str>,
        events: bool,
    },
    /// A client closes a response.
    Leave(Index),
    /// A client that was asked comes back.
    Return(Index, Manner),
    /// The child answers what it is at work on.
    Reply(Index, Reply),
    /// It asks something for that.
    Ask(Index, &'static str),
    TakeBack(Index),
    Log(Index, &'static str),
    Progress(Index),
    ListChanged,
    /// Milliseconds pass; `true`: the timer fires at each deadline, and not only at the end.
    Wait(u64, bool),
}

/// How a client comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// With answers to all of it.
    Ready,
    /// Without any.
    Empty,
    /// It is another client, which has got hold of the state.
    Stranger,
    /// With another request.
    Otherwise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Result,
    ToolError,
    Error,
    UrlsNeeded,
    TooLong,
    /// An answer that lost its id.
    Nameless,
}

fn any_step() -> impl Strategy<Value = Step> {
    let level = select(vec![None, Some("debug"), Some("error")]);
    let call = (0..CLIENTS, select(&IDS[..]), select(&METHODS[..]), any::<bool>(), level, any::<bool>());
    let manners = vec![Manner::Ready, Manner::Ready, Manner::Empty, Manner::Stranger, Manner::Otherwise];
    let replies = vec![
        Reply::Result,
        Reply::Result,
        Reply::ToolError,
        Reply::Error,
        Reply::UrlsNeeded,
        Reply::TooLong,
        Reply::Nameless,
    ];
    let questions = vec!["elicitation/create", "sampling/createMessage", "roots/list"];
    prop_oneof![
        2 => Just(Step::Greet),
        8 => call.prop_map(|(client, id, method, able, level, events)| {
            Step::Call { client, id, method, able, level, events }
        }),
        2 => any::<Index>().prop_map(Step::Leave),
        5 => (any::<Index>(), select(manners)).prop_map(|(parked, manner)| Step::Return(parked, manner)),
        6 => (any::<Index>(), select(replies)).prop_map(|(call, reply)| Step::Reply(call, reply)),
        8 => (any::<Index>(), select(questions)).prop_map(|(call, method)| Step::Ask(call, method)),
        1 => any::<Index>().prop_map(Step::TakeBack),
        3 => (any::<Index>(), select(vec!["debug", "error"])).prop_map(|(call, level)| Step::Log(call, level)),
        2 => any::<Index>().prop_map(Step::Progress),
        1 => Just(Step::ListChanged),
        6 => (select(vec![0, 10, 20, 1_000, 5_000, 60_000, 100_000]), any::<bool>())
            .prop_map(|(time, punctual)| Step::Wait(time, punctual)),
    ]
}

/// A request of a client. Their streams have their numbers.
#[derive(Debug)]
struct Sent {
    client: u8,
    ask: Ask,
    ended: bool,
}

/// What the child is at work on.
#[derive(Debug)]
struct Work {
    /// Whose it is; `None`: the bridge's own.
    client: Option<u8>,
    method: String,
    /// When the child was told that its client has gone.
    withdrawn: Option<Duration>,
}

/// What the child has asked and not been answered.
#[derive(Debug)]
struct Asked {
    wire: String,
    since: Duration,
}

/// A client that was asked.
#[derive(Clone, Debug)]
struct Away {
    client: u8,
    ask: Ask,
    state: String,
    keys: Vec<String>,
}

struct World {
    session: Harness<Upgrade>,
    strangers: bool,
    capabilities: &'static str,
    greeted: bool,
    /// The newest number of a request, and of a question.
    newest: u64,
    asked_last: u64,
    sent: BTreeMap<u64, Sent>,
    work: BTreeMap<String, Work>,
    /// What the child has answered without saying what.
    lost: BTreeSet<String>,
    asked: BTreeMap<String, Asked>,
    away: Vec<Away>,
}

/// What stands in all that is of this client.
fn mark(client: u8) -> String {
    format!("of client {client}")
}

impl World {
    fn new(strangers: bool, capabilities: &'static str, max_in_flight: usize) -> Self {
        let limits = Limits { max_in_flight, init_timeout: INIT_TIMEOUT, ..UPGRADED };
        let mut world = Self {
            session: Harness::upgrade(limits, strangers),
            strangers,
            capabilities,
            greeted: false,
            newest: 0,
            asked_last: 0,
            sent: BTreeMap::new(),
            work: BTreeMap::new(),
            lost: BTreeSet::new(),
            asked: BTreeMap::new(),
            away: Vec::new(),
        };
        world.settle(Vec::new());
        world
    }

    /// Sees that what has come out is for those who may get it, and takes note of it.
    fn settle(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Answer { stream, message, .. } => self.answered(stream, &message),
                Output::Message { stream, message } => {
                    let sent = &self.sent[&stream.0];
                    assert!(!sent.ended, "nothing follows the end of a stream");
                    self.is_for(sent.client, &message);
                }
                Output::Unanswered { stream, id, .. } => {
                    let sent = self.sent.get_mut(&stream.0).expect("only what was sent ends");
                    assert!(!std::mem::replace(&mut sent.ended, true), "each request ends once");
                    assert_eq!(id.0.as_json(), sent.ask.id);
                }
                Output::AnswerToUnknown | Output::Note(_) => {}
                Output::Handshake(other) => panic!("{other:?}"),
            }
        }
        for line in self.session.stdin() {
            self.child_reads(&line);
        }
        self.session.front.check();
    }

    fn answered(&mut self, stream: StreamId, message: &[u8]) {
        let sent = self.sent.get_mut(&stream.0).expect("only what was sent is answered");
        assert!(!std::mem::replace(&mut sent.ended, true), "each request ends once");
        let value: Value = serde_json::from_slice(message).expect("JSON");
        assert_eq!(value["id"].to_string(), sent.ask.id, "each client finds its own id");
        assert!(value["error"].is_object() || value["result"]["resultType"].is_string(), "{value}");
        assert_ne!(value["error"]["code"], -32042);
        let result = &value["result"];
        if let Some(state) = result["requestState"].as_str() {
            let requests = result["inputRequests"].as_object().expect("what is asked");
            assert!(!requests.is_empty());
            let keys = requests.keys().cloned().collect();
            let (client, ask, state) = (sent.client, sent.ask.clone(), state.to_owned());
            self.away.push(Away { client, ask, state, keys });
        }
        self.is_for(self.sent[&stream.0].client, message);
    }

    /// Sees that nothing in this is of another client than this.
    fn is_for(&self, client: u8, message: &[u8]) {
        let text = std::str::from_utf8(message).expect("UTF-8");
        for other in (0..CLIENTS).filter(|other| self.strangers && *other != client) {
            assert!(!text.contains(&mark(other)), "{text} reached client {client}");
        }
    }

    /// The child reads a line.
    fn child_reads(&mut self, line: &str) {
        let value: Value = serde_json::from_str(line).expect("the child receives JSON");
        let Some(method) = value["method"].as_str() else { return self.child_is_answered(&value) };
        match method {
            "initialize" | "notifications/initialized" => {}
            "notifications/cancelled" => {
                let wire = value["params"]["requestId"].to_string();
                if self.lost.remove(&wire) {
                    return;
                }
                let work = self.work.get_mut(&wire).expect("what the child has is cancelled");
                assert!(work.withdrawn.replace(self.session.now).is_none(), "once");
            }
            method => {
                assert!(!line.contains("io.modelcontextprotocol/"), "{line}");
                let number = value["params"]["number"].as_u64();
                let client = number.map(|number| self.sent[&number].client);
                let work = Work { client, method: method.to_owned(), withdrawn: None };
                assert!(self.work.insert(value["id"].to_string(), work).is_none(), "ids are unique");
            }
        }
    }

    fn child_is_answered(&mut self, value: &Value) {
        let asked =
            self.asked.remove(&value["id"].to_string()).expect("what the child waits for is answered");
        if let Some(from) = value["result"]["from"].as_u64() {
            let whose = self.work.get(&asked.wire).and_then(|work| work.client);
            assert!(!self.strangers || whose.map(u64::from) == Some(from), "it is another's answer");
        }
    }

    /// What the child may still say something about, by its own word and for as long as anybody cares.
    fn at_work(&self) -> Vec<String> {
        let now = self.session.now;
        let counts = |work: &Work| work.withdrawn.is_none_or(|withdrawn| now < withdrawn + LINGER);
        self.work.iter().filter(|(_, work)| counts(work)).map(|(wire, _)| wire.clone()).collect()
    }

    fn pick<T: Clone>(index: Index, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| index.get(from).clone())
    }

    fn mirrored(client: u8) -> Mirrored {
        Mirrored { caller: Some([client; 32]), params: Vec::new() }
    }

    fn send(&mut self, client: u8, ask: Ask, events: bool) {
        let takes = crate::proto::testing::takes(events);
        self.sent.insert(self.newest, Sent { client, ask: ask.clone(), ended: false });
        let outputs = self.session.send_as(self.newest, &ask, &Self::mirrored(client), takes);
        self.settle(outputs);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Greet => self.greet(),
            Step::Call { client, id, method, able, level, events } => {
                self.newest += 1;
                let number = format!(r#""number":{}"#, self.newest);
                let ask = if able { Ask::able(id) } else { Ask::tool(id) };
                let mut ask = Ask { method, ..ask }.with(&number).token("1");
                if let Some(level) = level {
                    ask = ask.level(level);
                }
                self.send(client, ask, events);
            }
            Step::Leave(stream) if self.newest > 0 => {
                let outputs = self.session.leave(1 + stream.index(self.newest as usize) as u64);
                self.settle(outputs);
            }
            Step::Return(away, manner) => {
                if let Some(away) = Self::pick(away, &self.away) {
                    self.come_back(&away, manner);
                }
            }
            Step::Reply(call, reply) => {
                let works: Vec<_> = self.work.keys().cloned().collect();
                if let Some(wire) = Self::pick(call, &works) {
                    self.reply(&wire, reply);
                }
            }
            Step::Ask(call, method) => {
                if let Some(wire) = Self::pick(call, &self.at_work()) {
                    self.ask(&wire, method);
                }
            }
            Step::TakeBack(asked) => {
                let ids: Vec<_> = self.asked.keys().cloned().collect();
                if let Some(id) = Self::pick(asked, &ids) {
                    self.asked.remove(&id);
                    self.child(&crate::proto::testing::cancel(&id));
                }
            }
            Step::Log(call, level) => {
                let wire = Self::pick(call, &self.at_work());
                if let Some(client) = wire.and_then(|wire| self.work[&wire].client) {
                    let text = format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":"{}"}}}}"#,
                        mark(client)
                    );
                    self.child(&text);
                }
            }
            Step::Progress(call) => {
                let works: Vec<_> = self.work.keys().cloned().collect();
                if let Some(wire) = Self::pick(call, &works) {
                    let whose = self.work[&wire].client.map_or(String::new(), mark);
                    let text = format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{wire},"message":"{whose}"}}}}"#
                    );
                    self.child(&text);
                }
            }
            Step::ListChanged if self.greeted => self.child(&note("notifications/tools/list_changed")),
            Step::Wait(time, punctual) => self.wait(Duration::from_millis(time), punctual),
            Step::Leave(_) | Step::ListChanged => {}
        }
    }

    fn child(&mut self, text: &str) {
        assert!(self.session.is_message(text), "{text}");
        let outputs = self.session.outputs();
        self.settle(outputs);
    }

    fn greet(&mut self) {
        if !std::mem::replace(&mut self.greeted, true) {
            self.child(&greeting(self.capabilities));
            assert!(self.session.is_open());
        }
    }

    fn come_back(&mut self, away: &Away, manner: Manner) {
        let client = if manner == Manner::Stranger { (away.client + 1) % CLIENTS } else { away.client };
        let answers: Vec<_> = match manner {
            Manner::Empty => Vec::new(),
            _ => away.keys.iter().map(|key| format!(r#""{key}":{{"from":{client}}}"#)).collect(),
        };
        self.newest += 1;
        let id = IDS[self.newest as usize % IDS.len()];
        let mut ask = away.ask.clone();
        if manner == Manner::Otherwise {
            ask = ask.with(r#""other":1"#);
        }
        // What it sends the next time is the first request once more, without the answers of this one.
        let again = ask.again(id, &away.state, &answers.join(","));
        self.sent.insert(
            self.newest,
            Sent { client, ask: Ask { id: id.to_owned(), ..away.ask.clone() }, ended: false },
        );
        let before = self.away.len();
        let outputs = self.session.send_as(self.newest, &again, &Self::mirrored(client), Takes::Events);
        let refused = matches!(outputs[..], [Output::Unanswered { why: Unanswered::Declined(_), .. }]);
        self.settle(outputs);
        if matches!(manner, Manner::Stranger | Manner::Otherwise) {
            assert!(refused && self.away.len() == before, "a state is bound to its caller and its request");
        }
    }

    /// Whether the child waits for an answer before it can go on with this.
    fn waits(&self, wire: &str) -> bool {
        self.asked.values().any(|asked| asked.wire == wire)
    }

    fn reply(&mut self, wire: &str, reply: Reply) {
        if self.waits(wire) {
            return; // a call that waits for an answer does not end
        }
        let work = self.work.remove(wire).expect("it is at work on it");
        let of = work.client.map_or(String::new(), mark);
        let url = format!(r#"{{"mode":"url","url":"{of}"}}"#);
        let now = self.session.now;
        let text = match reply {
            Reply::Result if work.client.is_none() => child_result(wire, r#""tools":[]"#),
            // Of a child that loses ids the bridge's own requests are answered with theirs.
            Reply::Nameless if work.client.is_none() => child_result(wire, ""),
            Reply::Nameless if work.withdrawn.is_some_and(|withdrawn| withdrawn + LINGER <= now) => return,
            Reply::Result => child_result(wire, &format!(r#""content":"{of}""#)),
            Reply::ToolError => child_result(wire, &format!(r#""isError":true,"content":"{of}""#)),
            Reply::Error => {
                format!(r#"{{"jsonrpc":"2.0","id":{wire},"error":{{"code":-1,"message":"{of}"}}}}"#)
            }
            Reply::UrlsNeeded => format!(
                r#"{{"jsonrpc":"2.0","id":{wire},"error":{{"code":-32042,"message":"{of}","data":{{"elicitations":[{url}]}}}}}}"#
            ),
            Reply::TooLong => {
                let head = format!(r#"{{"jsonrpc":"2.0","id":{wire},"result":["{of}"#);
                let outputs = self.session.too_long(&head);
                return self.settle(outputs);
            }
            Reply::Nameless => {
                self.lost.insert(wire.to_owned());
                format!(r#"{{"jsonrpc":"2.0","id":null,"result":{{"content":"{of}"}}}}"#)
            }
        };
        self.child(&text);
    }

    fn ask(&mut self, wire: &str, method: &'static str) {
        let now = self.session.now;
        let late = |asked: &Asked| asked.wire == wire && asked.since + GATHER <= now;
        let work = &self.work[wire];
        let Some(client) = work.client.filter(|_| !self.asked.values().any(late)) else {
            return; // it asks all that it needs at once, or one thing after the other
        };
        assert!(METHODS.contains(&&*work.method));
        self.asked_last += 1;
        let id = format!("\"q{}\"", self.asked_last);
        self.asked.insert(id.clone(), Asked { wire: wire.to_owned(), since: now });
        self.child(&question(&id, method, &format!(r#""message":"{}""#, mark(client))));
    }

    fn wait(&mut self, time: Duration, punctual: bool) {
        let until = self.session.now + time;
        while punctual
            && let Some(deadline) = self.session.front.next_deadline().filter(|deadline| *deadline <= until)
        {
            let outputs = self.session.at(deadline.max(self.session.now));
            self.settle(outputs);
            let next = self.session.front.next_deadline();
            assert!(next.is_none_or(|next| next > deadline), "it meant something");
        }
        let outputs = self.session.at(until);
        self.settle(outputs);
        let next = self.session.front.next_deadline();
        assert!(next.is_none_or(|next| next > until), "no deadline is left behind");
        for asked in self.asked.values().filter(|_| time > Duration::ZERO && self.away.is_empty()) {
            let waits = until < asked.since + UPGRADED.request_timeout + LINGER + time;
            assert!(waits, "the child does not wait for ever");
        }
    }

    /// All clients leave, and the child answers what it has.
    fn finish(mut self, dies: bool) {
        self.greet();
        if dies {
            for (stream, id) in self.session.front.abandon() {
                let sent = self.sent.get_mut(&stream.0).expect("only what was sent ends");
                assert!(!std::mem::replace(&mut sent.ended, true), "each request ends once");
                assert_eq!(id.0.as_json(), sent.ask.id);
            }
        } else {
            for stream in 1..=self.newest {
                let outputs = self.session.leave(stream);
                self.settle(outputs);
            }
            self.wait(parked::PARK, true);
            self.wait(2 * INIT_TIMEOUT, true);
            assert!(self.asked.is_empty(), "the child waits for no answer");
            while let Some(wire) = self.work.keys().next().cloned() {
                self.reply(&wire, Reply::Result);
            }
        }
        self.session.assert_empty();
        assert_eq!(self.session.front.lingering.next_deadline(), None);
        assert!(self.sent.values().all(|sent| sent.ended), "each request has its end");
        assert!(self.session.front.next_deadline().is_none());
    }
}

proptest! {
    #[test]
    fn whatever_anybody_does_each_request_ends_once_and_strangers_learn_nothing_of_each_other(
        strangers in any::<bool>(),
        capabilities in select(vec![CAPABILITIES, WITH_TOOLS, "{}", r#"{"tools":{},"logging":{}}"#]),
        max_in_flight in select(vec![2usize, 5, 100]),
        steps in prop::collection::vec(any_step(), 0..120),
        dies in any::<bool>(),
    ) {
        let mut world = World::new(strangers, capabilities, max_in_flight);
        for step in steps {
            world.take(step);
        }
        world.finish(dies);
    }
}

const OF_CLIENTS: [&str; 7] = [
    "tools/call",
    "prompts/get",
    "tools/list",
    "server/discover",
    "subscriptions/listen",
    "notifications/cancelled",
    "x",
];

const OF_CHILDREN: [&str; 9] = [
    "elicitation/create",
    "sampling/createMessage",
    "roots/list",
    "ping",
    "notifications/message",
    "notifications/progress",
    "notifications/cancelled",
    "notifications/tools/list_changed",
    "notifications/resources/updated",
];

proptest! {
    #[test]
    fn no_message_of_either_side_makes_the_front_panic_and_what_it_writes_is_json(
        strangers in any::<bool>(),
        messages in prop::collection::vec(
            prop_oneof![
                any_text(&OF_CLIENTS).prop_map(|text| (true, text)),
                any_text(&OF_CHILDREN).prop_map(|text| (false, text)),
            ],
            0..30,
        ),
    ) {
        let mut session = Harness::upgrade(UPGRADED, strangers);
        for (number, (is_clients, text)) in messages.iter().enumerate() {
            if !is_clients {
                session.is_message(text);
                session.front.child_too_long(text.get(..40).unwrap_or(text).as_bytes(), &mut session.out);
            } else if let Ok(message) = Message::parse(text.clone().into()) {
                let from = Origin {
                    stream: StreamId(number as u64),
                    takes: Takes::Events,
                    arrived: session.now,
                    mirrored: &Mirrored::default(),
                };
                let _ = session.front.client(message, from, session.now, &mut session.out);
            }
            session.front.check();
            let mut outputs = session.outputs();
            outputs.extend(session.pass(Duration::from_millis(15)));
            for output in outputs {
                if let Output::Answer { message, .. } | Output::Message { message, .. } = output {
                    prop_assert!(crate::proto::json::is_json(std::str::from_utf8(&message).unwrap()));
                    prop_assert!(!message.contains(&b'\n'));
                }
            }
            for line in session.stdin() {
                prop_assert!(crate::proto::json::is_json(&line), "{}", line);
            }
        }
        session.front.abandon();
        session.front.check();
    }
}
