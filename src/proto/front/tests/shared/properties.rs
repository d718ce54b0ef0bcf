//! Whatever sessions and the child do, in whatever order: each call ends once, and what is of one session reaches no other.

use super::*;
use crate::proto::testing::any_text;

/// How many sessions there are at a time. All use the same ids and tokens.
const SEATS: usize = 3;

const IDS: [&str; 3] = ["7", "\"7\"", "0"];

const URIS: [&str; 3] = ["a:/", "a:/b", "a:/bc"];

/// Longer than any session here.
const INIT_TIMEOUT: Duration = secs(1_000_000);

/// What happens next. `usize` is the place of a session.
#[derive(Clone, Debug)]
enum Step {
    /// The child answers `initialize`.
    Greet,
    Call(usize, &'static str, bool),
    SetLevel(usize, &'static str, &'static str),
    /// `true`: it subscribes.
    Subscribe(usize, &'static str, &'static str, bool),
    /// A session cancels what it calls by this id.
    Cancel(usize, &'static str),
    /// It ends, and another one comes.
    Leave(usize),
    /// The child answers what it is at work on.
    Reply(Index, Reply),
    /// It asks something for that.
    Ask(Index, &'static str),
    TakeBack(Index),
    /// A session answers a question, be it its own or not.
    Answer(usize, Index),
    Log(Index, &'static str),
    Progress(Index),
    Updated(&'static str),
    /// Milliseconds pass; `true`: the timer fires at each deadline, and not only at the end.
    Wait(u64, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Result,
    Error,
    TooLong,
    /// An answer that lost its id.
    Nameless,
}

fn any_step() -> impl Strategy<Value = Step> {
    let seat = || 0..SEATS;
    let id = || select(&IDS[..]);
    let level = || select(vec!["debug", "info", "error"]);
    let replies = vec![Reply::Result, Reply::Result, Reply::Error, Reply::TooLong, Reply::Nameless];
    let questions = vec!["elicitation/create", "sampling/createMessage", "roots/list", "x"];
    let times = vec![0, 10, 1_000, 5_000, 60_000, 160_000];
    prop_oneof![
        2 => Just(Step::Greet),
        8 => (seat(), id(), any::<bool>()).prop_map(|(seat, id, token)| Step::Call(seat, id, token)),
        2 => (seat(), id(), level()).prop_map(|(seat, id, level)| Step::SetLevel(seat, id, level)),
        4 => (seat(), id(), select(&URIS[..]), any::<bool>())
            .prop_map(|(seat, id, uri, wants)| Step::Subscribe(seat, id, uri, wants)),
        2 => (seat(), id()).prop_map(|(seat, id)| Step::Cancel(seat, id)),
        2 => seat().prop_map(Step::Leave),
        8 => (any::<Index>(), select(replies)).prop_map(|(call, reply)| Step::Reply(call, reply)),
        8 => (any::<Index>(), select(questions)).prop_map(|(call, method)| Step::Ask(call, method)),
        1 => any::<Index>().prop_map(Step::TakeBack),
        6 => (seat(), any::<Index>()).prop_map(|(seat, asked)| Step::Answer(seat, asked)),
        3 => (any::<Index>(), level()).prop_map(|(call, level)| Step::Log(call, level)),
        2 => any::<Index>().prop_map(Step::Progress),
        2 => select(&URIS[..]).prop_map(Step::Updated),
        5 => (select(times), any::<bool>()).prop_map(|(time, punctual)| Step::Wait(time, punctual)),
    ]
}

/// A request of a session.
#[derive(Debug)]
struct Sent {
    lane: u64,
    id: String,
    ended: bool,
    /// What it subscribes to.
    uri: Option<&'static str>,
}

/// What the child is at work on.
#[derive(Debug)]
struct Work {
    /// Whose it is; `None`: the bridge's own.
    lane: Option<u64>,
    method: String,
    /// When the child was told that it is cancelled.
    withdrawn: Option<Duration>,
}

/// What the child has asked and not been answered.
#[derive(Debug)]
struct Asked {
    wire: String,
    lane: u64,
    /// Whether that has it.
    given: bool,
}

struct World {
    session: Harness<Shared>,
    greeted: bool,
    /// The lane of each seat.
    seats: [u64; SEATS],
    newest_lane: u64,
    asked_last: u64,
    sent: Vec<Sent>,
    work: BTreeMap<String, Work>,
    /// What the child has answered without saying what.
    lost: BTreeSet<String>,
    asked: BTreeMap<String, Asked>,
    /// What the child has been asked to tell of.
    subscribed: BTreeSet<String>,
    /// Who has been told that it hears of what.
    holds: BTreeSet<(u64, &'static str)>,
}

/// What stands in all that is of this lane.
fn mark(lane: u64) -> String {
    format!("of lane {lane}.")
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            session: Harness::shared(Limits { init_timeout: INIT_TIMEOUT, ..LIMITS }),
            greeted: false,
            seats: [0; SEATS],
            newest_lane: 0,
            asked_last: 0,
            sent: Vec::new(),
            work: BTreeMap::new(),
            lost: BTreeSet::new(),
            asked: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            holds: BTreeSet::new(),
        };
        world.settle(Vec::new());
        (0..SEATS).for_each(|seat| world.sit(seat));
        world
    }

    /// A session begins. The client of each other one can be asked what there is.
    fn sit(&mut self, seat: usize) {
        self.newest_lane += 1;
        let lane = self.newest_lane;
        self.seats[seat] = lane;
        self.session.front.join(StreamId(lane));
        let declared = if lane.is_multiple_of(2) { DECLARED[0] } else { DECLARED[2] };
        self.send(lane, "\"init\"", &opening("\"init\"", declared), None);
    }

    fn send(&mut self, lane: u64, id: &str, text: &str, uri: Option<&'static str>) {
        let is_open = self.open(lane, id).is_some();
        if !is_open {
            self.sent.push(Sent { lane, id: id.to_owned(), ended: false, uri });
        }
        match self.session.try_lane(lane, text) {
            Ok(outputs) => {
                assert!(!is_open, "an id is of one request");
                self.settle(outputs);
            }
            Err(why) => assert!(is_open && why == Refusal::DuplicateId(client_id(id)), "{why:?}"),
        }
    }

    /// The request of this lane that has this id and no end.
    fn open(&self, lane: u64, id: &str) -> Option<usize> {
        let id = client_id(id);
        self.sent.iter().position(|sent| sent.lane == lane && client_id(&sent.id) == id && !sent.ended)
    }

    fn end(&mut self, lane: u64, id: &str) -> usize {
        let place = self.open(lane, id).expect("what was sent ends, and once");
        assert_eq!(self.sent[place].id, id, "each finds its own id");
        self.sent[place].ended = true;
        place
    }

    /// Sees that what has come out is for those who may get it, and takes note of it.
    fn settle(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Answer { stream: StreamId(lane), message, success } => {
                    let value: Value = serde_json::from_slice(&message).expect("JSON");
                    let place = self.end(lane, &value["id"].to_string());
                    if let Some(uri) = self.sent[place].uri.filter(|_| success) {
                        self.holds.insert((lane, uri));
                    }
                    self.is_for(lane, &message);
                }
                Output::Message { stream: StreamId(lane), message } => {
                    assert!(self.seats.contains(&lane), "it is there");
                    let value: Value = serde_json::from_slice(&message).expect("JSON");
                    if let Some(asked) = self.asked.get_mut(&value["id"].to_string()) {
                        assert!(asked.lane == lane && !std::mem::replace(&mut asked.given, true));
                    }
                    self.is_for(lane, &message);
                }
                Output::Unanswered { stream: StreamId(lane), id, .. } => {
                    self.end(lane, id.0.as_json());
                }
                Output::AnswerToUnknown | Output::Note(_) => {}
                Output::Handshake(other) => panic!("{other:?}"),
            }
        }
        for line in self.session.stdin() {
            self.child_reads(&line);
        }
        self.session.front.check();
        for (lane, uri) in &self.holds {
            assert!(self.subscribed.contains(*uri), "lane {lane} hears of {uri}");
        }
    }

    /// Sees that nothing in this is of another lane than this.
    fn is_for(&self, lane: u64, message: &[u8]) {
        let text = std::str::from_utf8(message).expect("UTF-8");
        assert!(!text.contains("of lane ") || text.contains(&mark(lane)), "{text} reached lane {lane}");
    }

    /// The child reads a line.
    fn child_reads(&mut self, line: &str) {
        let value: Value = serde_json::from_str(line).expect("the child receives JSON");
        let Some(method) = value["method"].as_str() else { return self.child_is_answered(&value) };
        let uri = || value["params"]["uri"].as_str().expect("a URI").to_owned();
        match method {
            "initialize" | "notifications/initialized" => return,
            "notifications/cancelled" => {
                let wire = value["params"]["requestId"].to_string();
                if !self.lost.remove(&wire) {
                    let work = self.work.get_mut(&wire).expect("what the child has is cancelled");
                    assert!(work.withdrawn.replace(self.session.now).is_none(), "once");
                }
                return;
            }
            "resources/subscribe" => drop(self.subscribed.insert(uri())),
            "resources/unsubscribe" => drop(self.subscribed.remove(&uri())),
            _ => {}
        }
        let work =
            Work { lane: value["params"]["lane"].as_u64(), method: method.to_owned(), withdrawn: None };
        let wire = value["id"].to_string();
        if let Some(token) = value["params"]["_meta"].get("progressToken") {
            assert_eq!(token.to_string(), wire, "the child sees no token of a client");
        }
        assert!(self.work.insert(wire, work).is_none(), "ids are unique");
    }

    fn child_is_answered(&mut self, value: &Value) {
        let asked =
            self.asked.remove(&value["id"].to_string()).expect("what was asked is answered, and once");
        if let Some(from) = value["result"]["from"].as_u64() {
            assert!(asked.given && asked.lane == from, "it is another's answer");
        }
    }

    /// What the child may still say something about, by its own word and for as long as anybody cares.
    fn at_work(&self) -> Vec<String> {
        let now = self.session.now;
        let counts = |work: &Work| {
            work.lane.is_some() && work.withdrawn.is_none_or(|withdrawn| now < withdrawn + LINGER)
        };
        self.work.iter().filter(|(_, work)| counts(work)).map(|(wire, _)| wire.clone()).collect()
    }

    fn pick<T: Clone>(index: Index, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| index.get(from).clone())
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Greet => self.greet(),
            Step::Call(seat, id, token) => {
                let meta = if token { r#","_meta":{"progressToken":"t"}"# } else { "" };
                self.request(seat, id, "tools/call", &meta.replacen(',', "", 1), None);
            }
            Step::SetLevel(seat, id, level) => {
                self.request(seat, id, "logging/setLevel", &format!(r#""level":"{level}""#), None);
            }
            Step::Subscribe(seat, id, uri, wants) => {
                let method = if wants { "resources/subscribe" } else { "resources/unsubscribe" };
                if !wants && self.open(self.seats[seat], id).is_none() {
                    self.holds.remove(&(self.seats[seat], uri));
                    // What it has asked for before comes to nothing.
                    let lane = self.seats[seat];
                    let asked =
                        self.sent.iter_mut().filter(|sent| sent.lane == lane && sent.uri == Some(uri));
                    asked.for_each(|sent| sent.uri = None);
                }
                self.request(seat, id, method, &format!(r#""uri":"{uri}""#), Some(uri).filter(|_| wants));
            }
            Step::Cancel(seat, id) => {
                let outputs = self.session.lane(self.seats[seat], &cancel(id));
                self.settle(outputs);
            }
            Step::Leave(seat) => {
                self.leave(seat);
                self.sit(seat);
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
                if let Some(id) = Self::pick(asked, &ids)
                    && let Some(Asked { lane, .. }) = self.asked.remove(&id)
                {
                    self.child(&format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"{}"}}}}"#,
                        mark(lane)
                    ));
                }
            }
            Step::Answer(seat, asked) => {
                let ids: Vec<_> = self.asked.keys().cloned().collect();
                if let Some(id) = Self::pick(asked, &ids) {
                    self.answer(self.seats[seat], &id);
                }
            }
            Step::Log(call, level) => {
                if let Some(wire) = Self::pick(call, &self.at_work()) {
                    let of = self.work[&wire].lane.map_or(String::new(), mark);
                    self.child(&format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":"{of}"}}}}"#
                    ));
                }
            }
            Step::Progress(call) => {
                let works: Vec<_> = self.work.keys().cloned().collect();
                if let Some(wire) = Self::pick(call, &works) {
                    let of = self.work[&wire].lane.map_or(String::new(), mark);
                    self.child(&format!(
                        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{wire},"message":"{of}"}}}}"#
                    ));
                }
            }
            Step::Updated(uri) => self.update(uri),
            Step::Wait(time, punctual) => self.wait(Duration::from_millis(time), punctual),
        }
    }

    fn request(&mut self, seat: usize, id: &str, method: &str, member: &str, uri: Option<&'static str>) {
        let lane = self.seats[seat];
        let comma = if member.is_empty() { "" } else { "," };
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"lane":{lane}{comma}{member}}}}}"#
        );
        self.send(lane, id, &text, uri);
    }

    fn child(&mut self, text: &str) {
        let outputs = self.session.says(text);
        self.settle(outputs);
    }

    fn greet(&mut self) {
        if !std::mem::replace(&mut self.greeted, true) {
            self.child(ANSWER);
            assert!(self.session.is_open());
        }
    }

    fn leave(&mut self, seat: usize) {
        let lane = std::mem::take(&mut self.seats[seat]);
        self.holds.retain(|(holder, _)| *holder != lane);
        let outputs = self.session.leaves(lane);
        self.settle(outputs);
        assert!(self.sent.iter().all(|sent| sent.lane != lane || sent.ended), "all that it has sent ends");
        assert!(self.asked.values().all(|asked| asked.lane != lane || !asked.given), "its questions do");
    }

    /// Who holds a resource or what it is in hears of it, and nobody else but those who have asked.
    fn update(&mut self, uri: &'static str) {
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":"{uri}"}}}}"#
        );
        let outputs = self.session.says(&text);
        let told: Vec<_> = told(outputs)
            .iter()
            .map(|output| match output {
                Output::Message { stream, .. } => stream.0,
                other => panic!("{other:?}"),
            })
            .collect();
        let told_once: BTreeSet<_> = told.iter().copied().collect();
        assert_eq!(told.len(), told_once.len());
        let covers = |wanted: &str| wanted == uri || wanted == "a:/";
        let holds = self.holds.iter().filter(|(_, wanted)| covers(wanted)).map(|(lane, _)| *lane);
        let holds: BTreeSet<_> = holds.collect();
        assert!(holds.is_subset(&told_once), "{holds:?} {told_once:?}");
        let asks = |lane: &u64| {
            let is_open = |sent: &&Sent| sent.lane == *lane && !sent.ended;
            self.sent.iter().filter(is_open).any(|sent| sent.uri.is_some_and(covers))
        };
        assert!(told_once.iter().all(|lane| holds.contains(lane) || asks(lane)));
    }

    /// Whether the child waits for an answer before it can go on with this.
    fn waits(&self, wire: &str) -> bool {
        self.asked.values().any(|asked| asked.wire == wire)
    }

    fn reply(&mut self, wire: &str, reply: Reply) {
        if self.waits(wire) {
            return; // a call that waits for an answer does not end
        }
        let now = self.session.now;
        let work = &self.work[wire];
        // What the child takes, it takes when it reads it.
        let is_taken = work.lane.is_none() || work.method.starts_with("resources/");
        let reply = if is_taken { Reply::Result } else { reply };
        if reply == Reply::Nameless && work.withdrawn.is_some_and(|withdrawn| withdrawn + LINGER <= now) {
            return;
        }
        let work = self.work.remove(wire).expect("it is at work on it");
        let of = work.lane.map_or(String::new(), mark);
        let text = match reply {
            Reply::Result => format!(r#"{{"jsonrpc":"2.0","id":{wire},"result":{{"content":"{of}"}}}}"#),
            Reply::Error => {
                format!(r#"{{"jsonrpc":"2.0","id":{wire},"error":{{"code":-1,"message":"{of}"}}}}"#)
            }
            Reply::TooLong => {
                let outputs =
                    self.session.too_long(&format!(r#"{{"jsonrpc":"2.0","id":{wire},"result":["{of}"#));
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
        let lane = self.work[wire].lane.expect("it asks for what is a session's");
        self.asked_last += 1;
        let id = format!("\"q{}\"", self.asked_last);
        self.asked.insert(id.clone(), Asked { wire: wire.to_owned(), lane, given: false });
        self.child(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"message":"{}"}}}}"#,
            mark(lane)
        ));
    }

    fn answer(&mut self, lane: u64, id: &str) {
        let asked = &self.asked[id];
        let is_its = asked.lane == lane && asked.given;
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"from":{lane}}}}}"#);
        match self.session.try_lane(lane, &text) {
            Ok(outputs) => {
                assert!(is_its, "who was not asked does not answer");
                self.settle(outputs);
            }
            Err(why) => assert!(!is_its && why == Refusal::UnknownResponse),
        }
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

    /// All sessions end, and the child answers what it has.
    fn finish(mut self, dies: bool) {
        self.greet();
        if dies {
            for (StreamId(lane), id) in self.session.front.abandon() {
                self.end(lane, id.0.as_json());
            }
            assert!(self.sent.iter().all(|sent| sent.ended), "each request has its end");
            self.session.front.check();
            return;
        }
        (0..SEATS).for_each(|seat| self.leave(seat));
        self.wait(CLEAR_WITHIN, true);
        assert!(self.asked.is_empty(), "the child waits for no answer");
        assert!(self.subscribed.is_empty(), "the child tells nobody of what nobody wants");
        while let Some(wire) = self.work.keys().next().cloned() {
            self.reply(&wire, Reply::Result);
        }
        self.wait(2 * INIT_TIMEOUT, true);
        self.session.assert_empty();
        assert!(!self.session.front.has_lanes());
    }
}

proptest! {
    #[test]
    fn whatever_anybody_does_each_call_ends_once_and_sessions_learn_nothing_of_each_other(
        steps in prop::collection::vec(any_step(), 0..120),
        dies in any::<bool>(),
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.finish(dies);
    }
}

const OF_SESSIONS: [&str; 9] = [
    "initialize",
    "tools/call",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/get",
    "notifications/cancelled",
    "notifications/progress",
    "x",
];

const OF_CHILDREN: [&str; 9] = [
    "elicitation/create",
    "sampling/createMessage",
    "x",
    "ping",
    "notifications/message",
    "notifications/progress",
    "notifications/cancelled",
    "notifications/elicitation/complete",
    "notifications/resources/updated",
];

proptest! {
    #[test]
    fn no_message_of_either_side_makes_the_front_panic_and_what_it_writes_is_json(
        messages in prop::collection::vec(
            prop_oneof![
                (1..=2u64, any_text(&OF_SESSIONS)),
                any_text(&OF_CHILDREN).prop_map(|text| (0, text)),
            ],
            0..30,
        ),
    ) {
        let mut session = Harness::shared(LIMITS);
        (1..=2).for_each(|lane| session.front.join(StreamId(lane)));
        for (lane, text) in &messages {
            if *lane == 0 {
                session.is_message(text);
                session.front.child_too_long(text.get(..40).unwrap_or(text).as_bytes(), &mut session.out);
            } else if crate::proto::message::Message::parse(text.clone().into()).is_ok() {
                let _ = session.unchecked(*lane, text);
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
        (1..=2).for_each(|lane| drop(session.leaves(lane)));
        session.front.abandon();
        session.front.check();
    }
}
