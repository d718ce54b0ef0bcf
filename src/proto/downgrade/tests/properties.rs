//! Whatever the client and the child do, in whatever order: each request ends once, and nothing is left behind.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

const METHODS: [&str; 8] = [
    "tools/call",
    "tools/call",
    "prompts/get",
    "resources/read",
    "tools/list",
    "ping",
    "tasks/get",
    "notifications/initialized",
];

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The child answers `server/discover`, if it has not.
    Greet,
    Call {
        id: u8,
        method: &'static str,
        events: bool,
    },
    Level(u8),
    Subscribe(u8, bool, &'static str),
    Initialized,
    Cancel(u8),
    /// The client answers a question, with a result or with an error.
    Answer(Index, bool),
    /// The child answers a request that it has.
    Reply(Index, Reply),
    /// It agrees to the subscriptions that it has read, to all of what they are about or to nothing.
    Acknowledge(Index, bool),
    /// It ends a subscription with a notification.
    End(Index),
    Listen(bool),
    Leave(Index, bool),
    /// Another child comes.
    Respawn,
    /// Milliseconds pass; `true`: the timer fires at each deadline, and not only at the end.
    Wait(u64, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Result,
    Error,
    NoMethod,
    Ask,
    AskTwice,
    AskRoots,
    State,
    Nonsense,
    TooLong,
}

fn any_step() -> impl Strategy<Value = Step> {
    let replies = vec![
        Reply::Result,
        Reply::Error,
        Reply::NoMethod,
        Reply::Ask,
        Reply::Ask,
        Reply::AskTwice,
        Reply::AskRoots,
        Reply::State,
        Reply::Nonsense,
        Reply::TooLong,
    ];
    let id = || 0..6u8;
    prop_oneof![
        3 => Just(Step::Greet),
        10 => (id(), select(&METHODS[..]), any::<bool>())
            .prop_map(|(id, method, events)| Step::Call { id, method, events }),
        1 => id().prop_map(Step::Level),
        4 => (id(), any::<bool>(), select(vec!["u", "v", "w"]))
            .prop_map(|(id, subscribes, uri)| Step::Subscribe(id, subscribes, uri)),
        1 => Just(Step::Initialized),
        3 => id().prop_map(Step::Cancel),
        8 => (any::<Index>(), any::<bool>()).prop_map(|(question, ok)| Step::Answer(question, ok)),
        10 => (any::<Index>(), select(replies)).prop_map(|(wire, reply)| Step::Reply(wire, reply)),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(wire, all)| Step::Acknowledge(wire, all)),
        1 => any::<Index>().prop_map(Step::End),
        2 => any::<bool>().prop_map(Step::Listen),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(stream, took_all)| Step::Leave(stream, took_all)),
        1 => Just(Step::Respawn),
        6 => (select(vec![0, 500, 1_000, 5_000, 60_000, 100_000]), any::<bool>())
            .prop_map(|(time, punctual)| Step::Wait(time, punctual)),
    ]
}

/// What the child has read and not answered.
#[derive(Debug)]
struct Work {
    method: String,
    uris: Vec<String>,
}

struct World {
    session: Harness<Downgrade>,
    /// The client's requests that have no answer, by their streams.
    open: BTreeMap<u64, String>,
    newest: u64,
    work: BTreeMap<String, Work>,
    /// The questions that the client has and has not answered.
    questions: BTreeSet<u64>,
    is_greeted: bool,
    capabilities: &'static str,
}

impl World {
    fn new(max_in_flight: usize, capabilities: &'static str) -> Self {
        let limits = Limits { max_in_flight, respawn: true, init_timeout: secs(1_000_000), ..DOWNGRADED };
        let mut world = Self {
            session: Harness::starting(limits, &initialize("2025-11-25", r#"{"elicitation":{}}"#)),
            open: BTreeMap::from([(1, "\"init\"".to_owned())]),
            newest: 1,
            work: BTreeMap::new(),
            questions: BTreeSet::new(),
            is_greeted: false,
            capabilities,
        };
        world.settle(Vec::new());
        world
    }

    /// Looks at all that has come out.
    fn settle(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Answer { stream, message, .. } => {
                    let message: Value = serde_json::from_slice(&message).unwrap();
                    self.ends(stream, &message["id"].to_string());
                }
                Output::Unanswered { stream, id, .. } => self.ends(stream, id.0.as_json()),
                Output::Message { stream, message } => {
                    let is_open = stream == StreamId::LISTENING || self.open.contains_key(&stream.0);
                    assert!(is_open, "nothing comes behind an answer");
                    let message: Value = serde_json::from_slice(&message).unwrap();
                    let number = |id: &Value| id.as_str().unwrap()["mcp-bridge-".len()..].parse().unwrap();
                    match message["method"].as_str().unwrap() {
                        "elicitation/create" => {
                            assert!(self.questions.insert(number(&message["id"])), "each is asked once");
                        }
                        "notifications/cancelled" => {
                            assert!(self.questions.remove(&number(&message["params"]["requestId"])));
                        }
                        method => assert!(method.ends_with("updated"), "{method}"),
                    }
                }
                Output::Handshake(_) | Output::AnswerToUnknown => panic!("the child serves"),
                Output::Note(_) => {}
            }
        }
        for line in self.session.stdin() {
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["method"] == "notifications/cancelled" {
                self.work.remove(&line["params"]["requestId"].to_string());
                continue;
            }
            let meta = &line["params"]["_meta"];
            assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28", "{line}");
            let uris = line["params"]["notifications"]["resourceSubscriptions"].as_array();
            let uris = uris.into_iter().flatten().map(|uri| uri.as_str().unwrap().to_owned()).collect();
            let method = line["method"].as_str().unwrap().to_owned();
            let before = self.work.insert(line["id"].to_string(), Work { method, uris });
            assert!(before.is_none(), "each request has an id of its own");
        }
        self.session.front.check();
        let in_flight = self.session.front.in_flight();
        assert_eq!(in_flight, self.open.len(), "each request that is open is in flight, and nothing else");
    }

    fn ends(&mut self, stream: StreamId, id: &str) {
        let ended = self.open.remove(&stream.0);
        assert_eq!(ended.as_deref(), Some(id), "each request ends once, with its own id");
        self.session.live.remove(&stream.0);
    }

    fn post(&mut self, events: bool, text: &str) {
        let message = message(text);
        let takes = if events { Takes::Events } else { Takes::AnswerOnly };
        let mut stream = 0;
        if let Some(id) = message.id().filter(|_| message.request().is_some()) {
            self.newest += 1;
            stream = self.newest;
            self.session.live.insert(stream);
            self.open.insert(stream, id.as_json().to_owned());
        }
        match self.session.sent(stream, takes, text) {
            Ok(outputs) => self.settle(outputs),
            Err(_) => {
                self.open.remove(&stream);
                self.settle(Vec::new());
            }
        }
    }

    fn child(&mut self, text: &str) {
        let outputs = self.session.says(text);
        self.settle(outputs);
    }

    fn wire(&self, wire: Index, listens: Option<bool>) -> Option<String> {
        let is = |work: &Work| match listens {
            None => work.method != "server/discover",
            Some(_) => work.method == "subscriptions/listen",
        };
        let wires: Vec<_> = self.work.iter().filter(|(_, work)| is(work)).map(|(wire, _)| wire).collect();
        (!wires.is_empty()).then(|| wire.get(&wires).to_string())
    }

    fn greet(&mut self) {
        let wire = self.work.iter().find(|(_, work)| work.method == "server/discover");
        let Some(wire) = wire.map(|(wire, _)| wire.clone()) else { return };
        self.work.remove(&wire);
        self.is_greeted = true;
        self.child(&discovered(&wire, self.capabilities));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Greet => self.greet(),
            Step::Call { id, method, events } => self.post(events, &request(&id.to_string(), method)),
            Step::Level(id) => {
                self.post(true, &with(&id.to_string(), "logging/setLevel", r#""level":"info""#));
            }
            Step::Subscribe(id, subscribes, uri) => {
                let method = if subscribes { "resources/subscribe" } else { "resources/unsubscribe" };
                self.post(true, &with(&id.to_string(), method, &format!(r#""uri":"{uri}""#)));
            }
            Step::Initialized => self.post(true, &note("notifications/initialized")),
            Step::Cancel(id) => self.post(true, &cancel(&id.to_string())),
            Step::Answer(question, ok) => {
                let questions: Vec<_> = self.questions.iter().copied().collect();
                if questions.is_empty() {
                    return;
                }
                let number = *question.get(&questions);
                self.questions.remove(&number);
                let text = if ok { accept(number) } else { error(&format!("\"mcp-bridge-{number}\"")) };
                self.post(true, &text);
            }
            Step::Reply(wire, reply) => {
                if let Some(wire) = self.wire(wire, None) {
                    self.reply(&wire, reply);
                }
            }
            Step::Acknowledge(wire, all) => {
                let Some(wire) = self.wire(wire, Some(true)) else { return };
                let uris: Vec<_> = self.work[&wire].uris.iter().map(|uri| format!("\"{uri}\"")).collect();
                let uris = if all { uris.join(",") } else { String::new() };
                self.child(&acknowledged(&wire, &format!(r#""resourceSubscriptions":[{uris}]"#)));
                self.child(&of_subscription(&wire, "notifications/resources/updated", r#","uri":"u""#));
            }
            Step::End(wire) => {
                if let Some(wire) = self.wire(wire, Some(true)) {
                    self.work.remove(&wire);
                    self.child(&cancel(&wire));
                }
            }
            Step::Listen(true) => drop(self.session.live.insert(LISTENING)),
            Step::Listen(false) => {
                self.session.leave(LISTENING, false);
            }
            Step::Leave(stream, took_all) => {
                let streams: Vec<_> = self.open.keys().copied().collect();
                if !streams.is_empty() {
                    self.session.leave(*stream.get(&streams), took_all);
                }
            }
            Step::Respawn if self.is_greeted => {
                self.work.clear();
                for (stream, id) in self.session.front.child_lost() {
                    self.ends(stream, id.0.as_json());
                }
                self.session.out.clear();
                self.session.front.restart(self.session.now, &mut self.session.out);
                self.settle(Vec::new());
            }
            Step::Respawn => {}
            Step::Wait(time, punctual) => self.wait(Duration::from_millis(time), punctual),
        }
    }

    fn reply(&mut self, wire: &str, reply: Reply) {
        self.work.remove(wire);
        let roots = r#""r":{"method":"roots/list"}"#;
        let text = match reply {
            Reply::Result => child_result(wire, r#""resultType":"complete","x":1"#),
            Reply::Error => error(wire),
            Reply::NoMethod => {
                format!(r#"{{"jsonrpc":"2.0","id":{wire},"error":{{"code":-32601,"message":"no"}}}}"#)
            }
            Reply::Ask => asks(wire, &form("k"), "\"s\""),
            Reply::AskTwice => asks(wire, &format!("{},{}", form("k"), form("l")), ""),
            Reply::AskRoots => asks(wire, &format!("{},{roots}", form("k")), ""),
            Reply::State => asks(wire, "", "\"s\""),
            Reply::Nonsense => asks(wire, "", ""),
            Reply::TooLong => {
                let outputs = self.session.too_long(&format!(r#"{{"jsonrpc":"2.0","id":{wire},"result":["#));
                return self.settle(outputs);
            }
        };
        self.child(&text);
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
    }

    fn finish(mut self, dies: bool) {
        if dies {
            self.session.front.farewell(&mut self.session.out);
            let outputs = self.session.outputs();
            self.settle(outputs);
            for (stream, id) in self.session.front.abandon() {
                self.ends(stream, id.0.as_json());
            }
        } else {
            self.greet();
            self.wait(DOWNGRADED.request_timeout + CANCEL_GRACE, true);
        }
        assert!(self.open.is_empty(), "each request has its end: {:?}", self.open);
        assert!(self.questions.is_empty(), "the client is told of each question that needs no answer");
        self.session.assert_empty();
    }
}

proptest! {
    #[test]
    fn whatever_anybody_does_each_request_ends_once(
        capabilities in select(vec![
            CAPABILITIES,
            "{}",
            r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#,
        ]),
        max_in_flight in select(vec![2usize, 5, 100]),
        steps in prop::collection::vec(any_step(), 0..150),
        dies in any::<bool>(),
    ) {
        let mut world = World::new(max_in_flight, capabilities);
        for step in steps {
            world.take(step);
        }
        world.finish(dies);
    }
}

/// JSON of any kind, with names and values that the front looks for.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "null",
        "true",
        "0",
        "2",
        "3",
        "-1.5e3",
        "-32602",
        "\"\"",
        "\"2\"",
        "\"url\"",
        "\"info\"",
        "\"complete\"",
        "\"input_required\"",
        "\"elicitation/create\"",
        "\"roots/list\"",
        "\"2026-07-28\"",
        "[]",
        "{}",
        "\"mcp-bridge-1\"",
        "\"\\ud800\"",
        " { } ",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 40, 5, |inner| {
        let names = select(vec![
            "_meta",
            "mode",
            "method",
            "params",
            "code",
            "message",
            "progressToken",
            "requestState",
            "inputRequests",
            "inputResponses",
            "level",
            "resultType",
            "ttlMs",
            "cacheScope",
            "capabilities",
            "supportedVersions",
            "requestId",
            "uri",
            "notifications",
            "resourceSubscriptions",
            "io.modelcontextprotocol/clientCapabilities",
            "io.modelcontextprotocol/serverInfo",
            "io.modelcontextprotocol/subscriptionId",
            "elicitation",
            "roots",
            "\\u005fmeta",
            "",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(" ,"))),
            prop::collection::vec((names, inner), 0..6).prop_map(|members| {
                let members: Vec<_> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// A message of the child or of the client, with JSON of any kind in it.
fn any_text(methods: &'static [&'static str]) -> impl Strategy<Value = String> {
    let id = || select(vec!["1", "2", "3", "4", "\"2\"", "2.0", "null", "\"mcp-bridge-1\""]);
    let asked = any_json().prop_map(|json| format!(r#"{{"resultType":"input_required","inputRequests":{{"k":{{"method":"elicitation/create","params":{json}}}}},"requestState":{json}}}"#));
    prop_oneof![
        (id(), select(methods), any_json()).prop_map(|(id, method, params)| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
        }),
        (select(methods), any_json()).prop_map(|(method, params)| {
            format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
        }),
        (id(), prop_oneof![any_json(), asked])
            .prop_map(|(id, result)| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)),
        (id(), any_json())
            .prop_map(|(id, error)| format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)),
    ]
}

const OF_CLIENTS: [&str; 9] = [
    "tools/call",
    "prompts/get",
    "resources/read",
    "tools/list",
    "logging/setLevel",
    "resources/subscribe",
    "notifications/initialized",
    "notifications/cancelled",
    "x",
];

const OF_CHILDREN: [&str; 7] = [
    "elicitation/create",
    "ping",
    "notifications/message",
    "notifications/progress",
    "notifications/cancelled",
    "notifications/subscriptions/acknowledged",
    "notifications/resources/updated",
];

proptest! {
    #[test]
    fn no_message_of_either_side_makes_the_front_panic_and_what_it_writes_is_json(
        opening in any_json(),
        is_greeted in any::<bool>(),
        messages in prop::collection::vec(
            prop_oneof![
                any_text(&OF_CLIENTS).prop_map(|text| (true, text)),
                any_text(&OF_CHILDREN).prop_map(|text| (false, text)),
            ],
            0..30,
        ),
    ) {
        let opening = format!(r#"{{"jsonrpc":"2.0","id":"init","method":"initialize","params":{opening}}}"#);
        let opening = match Message::parse(opening.into()) {
            Ok(opening) => std::str::from_utf8(opening.text()).unwrap().to_owned(),
            Err(_) => initialize("2025-11-25", DECLARED),
        };
        let mut session = Harness::starting(DOWNGRADED, &opening);
        if is_greeted {
            session.says(&discovered("1", CAPABILITIES));
        }
        let mut open = BTreeSet::new();
        for (number, (is_clients, text)) in messages.iter().enumerate() {
            let stream = number as u64 + 2;
            if !is_clients {
                session.is_message(text);
                session.front.child_too_long(text.get(..40).unwrap_or(text).as_bytes(), &mut session.out);
            } else if let Ok(message) = Message::parse(text.clone().into()) {
                let is_request = message.request().is_some();
                let from = Origin {
                    stream: StreamId(stream),
                    takes: Takes::Events,
                    arrived: session.now,
                    mirrored: Mirrored::nothing(),
                };
                if session.front.client(message, from, session.now, &mut session.out).is_ok() && is_request {
                    open.insert(stream);
                }
            }
            session.front.check();
            let mut outputs = session.outputs();
            outputs.extend(session.pass(Duration::from_millis(900)));
            for output in outputs {
                if let Output::Answer { stream, .. } | Output::Unanswered { stream, .. } = &output {
                    prop_assert!(open.remove(&stream.0) || stream.0 == 1, "each request ends once");
                }
                if let Output::Answer { message, .. } | Output::Message { message, .. } = output {
                    prop_assert!(crate::proto::json::is_json(std::str::from_utf8(&message).unwrap()));
                    prop_assert!(!message.contains(&b'\n'));
                }
            }
            for line in session.stdin() {
                prop_assert!(crate::proto::json::is_json(&line), "{}", line);
            }
        }
        for (stream, _) in session.front.abandon() {
            prop_assert!(open.remove(&stream.0) || stream.0 == 1, "each request ends once");
        }
        prop_assert!(open.is_empty(), "no request is lost: {open:?}");
        session.front.check();
    }
}
