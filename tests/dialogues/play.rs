//! Plays a dialogue to a front, as the loop of a session does, and compares what comes out.
//!
//! What must hold of every dialogue is looked at beside what it says: each request that was taken ends once, on its own
//! stream and under its own id; nothing comes out on a stream that nobody has; the child is given lines of one object each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use mcp_bridge::proto::downgrade::Downgrade;
use mcp_bridge::proto::front::modern::Modern;
use mcp_bridge::proto::front::shared::Shared;
use mcp_bridge::proto::front::{Front, Mirrored, Origin, Readership, Refusal, Takes};
use mcp_bridge::proto::ids::{ClientId, Ids, StreamId};
use mcp_bridge::proto::incoming::{Found, LongLine};
use mcp_bridge::proto::link::{Limits, Readiness, own_discover, own_initialize_of_all};
use mcp_bridge::proto::message::{Envelope, Kind, Message, Request};
use mcp_bridge::proto::nearly::{Part, beginning, look};
use mcp_bridge::proto::output::{Declined, Handshake, Note, Out, Output, Unanswered};
use mcp_bridge::proto::upgrade::Upgrade;
use mcp_bridge::proto::version::Revision;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::names::Names;
use crate::script::{Along, Dialogue, Event, Expected, Opening, Place, Step, Who, time_of};

/// Of the many ids of the bridge none is what a client would write, and all are the same each time.
fn ids() -> Ids {
    Ids::secret(7)
}

/// So are the states that it gives to clients that are to come back.
fn state() -> u128 {
    thread_local!(static NEXT: std::cell::Cell<u128> = const { std::cell::Cell::new(0) });
    NEXT.replace(NEXT.get().wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(99))
}

const LIMITS: Limits = Limits {
    restore: None,
    init_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(1000),
    max_in_flight: 100,
    respawn: false,
    ready: Readiness::AT_ONCE,
    ids,
    state,
};

/// What has come out for somebody: a message, or the reason why there is none.
#[derive(Clone, Debug)]
struct Said {
    who: Who,
    reason: bool,
    text: String,
}

struct Player {
    front: Box<dyn Front>,
    /// Whether streams are lanes, which no answer ends.
    lanes: bool,
    /// Whether who leaves ends its request.
    leaving_ends: bool,
    out: Out,
    now: Duration,
    joined: BTreeSet<u64>,
    /// Requests that were taken and have no end yet.
    open: BTreeSet<(u64, String)>,
    gone: BTreeSet<u64>,
    may_resume: BTreeSet<u64>,
    listens: bool,
    said: Vec<Said>,
    over: bool,
}

/// Whether a dialogue goes as it is written; `print`: writes down how it goes.
///
/// # Errors
/// What is another way.
pub(crate) fn play(dialogue: &Dialogue, print: Option<&mut String>) -> Result<(), String> {
    let mut names = Names::default();
    let version = format!("{:?}", env!("CARGO_PKG_VERSION"));
    names.set("version", &version)?;
    let mut printed = print;
    if let Some(printed) = printed.as_deref_mut() {
        for line in &dialogue.rule {
            let _ = writeln!(printed, "# {line}");
        }
        if dialogue.before > 0 {
            let _ = writeln!(printed, "{}", dialogue.head);
        }
    }
    let mut player: Option<Player> = None;
    for (number, step) in dialogue.steps.iter().enumerate() {
        let said = match happens(&mut player, step, &mut names) {
            Ok(said) => said,
            Err(why) => {
                if let Some(printed) = printed {
                    let _ = writeln!(printed, "{}\n? {why}", step.text);
                }
                return Err(format!("{}: {}\n  {why}\n", place(&step.place), step.text));
            }
        };
        let failed = compare(step, &said, &mut names);
        if let Some(printed) = printed.as_deref_mut() {
            if number >= dialogue.before {
                for comment in &step.comments {
                    let _ = writeln!(printed, "# {comment}");
                }
                step.text.lines().for_each(|line| wrap(line, printed));
                for said in said.iter().filter(|said| said.who != Who::Log || is_named(step, said)) {
                    if said.who == Who::Child {
                        let members: BTreeMap<String, &RawValue> =
                            serde_json::from_str(&said.text).unwrap_or_default();
                        if let (Some(id), Some(_)) = (members.get("id"), members.get("method")) {
                            names.call(id.get());
                        }
                    }
                    wrap(&line(said, &names), printed);
                }
            }
        } else if let Some(failed) = failed {
            return Err(format!("{}: {}\n{failed}", place(&step.place), step.text));
        }
    }
    match player {
        Some(player) => player.finish().map_err(|why| format!("{}: {why}\n", place(&dialogue.place))),
        None => Err(format!("{}: nothing has happened\n", place(&dialogue.place))),
    }
}

fn place(place: &Place) -> String {
    let file = place.file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&place.file);
    format!("{}:{}", file.display(), place.line)
}

/// Writes a line, and what is too long for one on further ones.
fn wrap(mut line: &str, printed: &mut String) {
    const WIDTH: usize = 120;
    let mut indent = "";
    while line.len() + indent.len() > WIDTH {
        let (mut inside, mut escaped, mut place) = (false, false, None);
        for (at, byte) in line.bytes().enumerate().take(WIDTH - indent.len()) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if inside => escaped = true,
                b'"' => inside = !inside,
                b',' if !inside && !line[at + 1..].starts_with(' ') => place = Some(at + 1),
                _ => {}
            }
        }
        let Some(place) = place else { break };
        let _ = writeln!(printed, "{indent}{}", &line[..place]);
        (line, indent) = (&line[place..], "  ");
    }
    let _ = writeln!(printed, "{indent}{line}");
}

fn is_named(step: &Step, said: &Said) -> bool {
    step.expected.iter().any(|expected| expected.who == said.who && expected.text == said.text)
}

/// A line as a dialogue would have it.
fn line(said: &Said, names: &Names) -> String {
    let mark = if said.reason { '!' } else { '<' };
    let text = names.shown(&said.text);
    match said.who {
        Who::Child => format!("child{mark} {text}"),
        Who::Client(number) => format!("{number}{mark} {text}"),
        Who::Get => format!("get{mark} {text}"),
        Who::Session => format!("session{mark} {text}"),
        Who::Log => format!("log {text}"),
    }
}

/// What is not as it is written, line by line. What different ones are told has no order.
fn compare(step: &Step, said: &[Said], names: &mut Names) -> Option<String> {
    let mut queues: BTreeMap<Who, VecDeque<&Said>> = BTreeMap::new();
    for said in said {
        queues.entry(said.who.clone()).or_default().push_back(said);
    }
    let (mut diff, mut differs) = (String::new(), false);
    let mut note = |sign: char, at: String, text: String| {
        differs |= sign != ' ';
        let _ = writeln!(diff, "  {sign} {at}{text}");
    };
    for Expected { place: at, who, reason, text } in &step.expected {
        let wanted = Said { who: who.clone(), reason: *reason, text: text.clone() };
        let queue = queues.entry(who.clone()).or_default();
        let got = if *who == Who::Log {
            // The operator may be told more than a rule says.
            let found = queue.iter().position(|said| names.matches(text, &said.text));
            found.and_then(|found| queue.remove(found))
        } else {
            queue.pop_front()
        };
        match got {
            Some(got) if got.reason == *reason && names.matches(text, &got.text) => {
                note(' ', String::new(), line(got, names));
            }
            got => {
                note('-', format!("{}: ", at.line), line(&wanted, &Names::default()));
                if let Some(got) = got {
                    note('+', String::new(), line(got, names));
                    if names.expand(text).is_ok_and(|text| is_value(&text, &got.text)) {
                        note('?', String::new(), "the same value, and another text".to_owned());
                    }
                }
            }
        }
    }
    for left in queues.into_values().flatten().filter(|said| said.who != Who::Log) {
        note('+', String::new(), line(left, names));
    }
    differs.then_some(diff)
}

fn is_value(one: &str, other: &str) -> bool {
    let value = |text| serde_json::from_str::<Value>(text).ok();
    value(one).is_some_and(|one| value(other) == Some(one))
}

fn happens(player: &mut Option<Player>, step: &Step, names: &mut Names) -> Result<Vec<Said>, String> {
    match (&step.event, player) {
        (Event::Named(name, text), _) => {
            names.set(name, text)?;
            Ok(Vec::new())
        }
        (Event::Opened(opening), player @ None) => {
            let player = player.insert(Player::open(opening, names)?);
            player.take_all()?;
            Ok(std::mem::take(&mut player.said))
        }
        (Event::Opened(_), Some(_)) | (_, None) => {
            Err("a dialogue has one front, and begins with it".to_owned())
        }
        (event, Some(player)) => {
            player.happens(event, names)?;
            player.take_all()?;
            Ok(std::mem::take(&mut player.said))
        }
    }
}

fn digest(name: &str) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    digest
}

impl Player {
    fn open(opening: &Opening, names: &Names) -> Result<Self, String> {
        let mut limits = LIMITS;
        let mut strangers = true;
        for word in &opening.words {
            match word.split_once('=') {
                Some(("init", time)) => limits.init_timeout = time_of(time)?,
                Some(("request", time)) => limits.request_timeout = time_of(time)?,
                Some(("in_flight", count)) => limits.max_in_flight = count.parse().map_err(|_| "a number")?,
                None if word == "kin" => strangers = false,
                None if word == "respawn" => limits.respawn = true,
                _ => return Err(format!("{word:?} is not known")),
            }
        }
        let mut out = Out::default();
        let now = Duration::ZERO;
        let mut open = BTreeSet::new();
        let front: Box<dyn Front> = match (&*opening.front, &opening.first) {
            ("upgrade", None) => Box::new(Upgrade::open(
                limits,
                &own_initialize_of_all(Revision::R2025_11_25),
                strangers,
                now,
                &mut out,
            )),
            ("modern", None) => Box::new(Modern::open(limits, &own_discover(), strangers, now, &mut out)),
            ("shared", Some((_, _, text))) => {
                Box::new(Shared::open(limits, &request(&names.expand(text)?)?, now, &mut out))
            }
            ("downgrade", Some((number, along, text))) => {
                let initialize = request(&names.expand(text)?)?;
                open.insert((*number, initialize.id().as_json().to_owned()));
                let mirrored = Mirrored::nothing();
                let takes = takes(along);
                let from = Origin { stream: StreamId(*number), takes, arrived: now, mirrored };
                Box::new(Downgrade::open(limits, &initialize, from, now, &mut out))
            }
            _ => return Err("the front is not known, or its first line is missing".to_owned()),
        };
        Ok(Self {
            front,
            lanes: opening.front == "shared",
            leaving_ends: matches!(&*opening.front, "upgrade" | "modern"),
            out,
            now,
            joined: BTreeSet::new(),
            open,
            gone: BTreeSet::new(),
            may_resume: BTreeSet::new(),
            listens: false,
            said: Vec::new(),
            over: false,
        })
    }

    fn happens(&mut self, event: &Event, names: &mut Names) -> Result<(), String> {
        if self.over {
            return Err("the session is over".to_owned());
        }
        match event {
            Event::Client(number, along, text) => self.client(*number, along, &names.expand(text)?)?,
            Event::Child(text) => self.child(&names.expand(text)?)?,
            Event::ChildLong(text) => {
                self.front.child_too_long(names.expand(text)?.as_bytes(), &mut self.out);
            }
            Event::Time(time) => self.pass(*time)?,
            Event::Joins(lane) => {
                if !self.joined.insert(*lane) {
                    return Err("it is there".to_owned());
                }
                self.front.join(StreamId(*lane));
            }
            Event::Listens => self.listens = true,
            Event::Leaves(who) | Event::IsCut(who) => self.leaves(who, matches!(event, Event::Leaves(_)))?,
            Event::Keep(callers) => {
                let kept: Vec<_> = callers.iter().map(|name| digest(name)).collect();
                self.front.keep_callers(&|caller| kept.contains(caller), self.now, &mut self.out);
            }
            Event::ChildEnds => {
                self.out.clear();
                for (stream, id) in self.front.child_lost() {
                    self.unanswered(stream, &id, "ChildEnded".to_owned())?;
                }
                if self.front.can_restart() {
                    self.front.restart(self.now, &mut self.out);
                }
            }
            Event::Ends => self.front.farewell(&mut self.out),
            Event::Opened(_) | Event::Named(..) => {}
        }
        Ok(())
    }

    fn client(&mut self, number: u64, along: &Along, text: &str) -> Result<(), String> {
        let message = Message::parse(Bytes::copy_from_slice(text.as_bytes()));
        let message = message.map_err(|why| format!("this is no message: {why:?}"))?;
        if self.lanes && !self.joined.contains(&number) {
            return Err("this lane has not joined".to_owned());
        }
        let id = message.request().map(|request| request.id().as_json().to_owned());
        let params = along.params.iter();
        let mirrored = Mirrored {
            caller: along.caller.as_deref().map(digest),
            params: params
                .map(|(name, value)| (name.to_lowercase().into(), value.as_bytes().into()))
                .collect(),
        };
        let (stream, takes) = (StreamId(number), takes(along));
        let from = Origin { stream, takes, arrived: self.now, mirrored: &mirrored };
        if !self.front.accepting() {
            return Err("no message is taken now".to_owned());
        }
        let who = Who::Client(number);
        match self.front.client(message, from, self.now, &mut self.out) {
            Ok(()) => {
                self.gone.remove(&number);
                if let Some(id) = id
                    && !self.open.insert((number, id))
                {
                    return Err("two requests of one id are taken on one stream".to_owned());
                }
            }
            Err(Refusal::DuplicateId(ClientId(id))) => {
                let text = format!("{} DuplicateId", id.as_json());
                self.said.push(Said { who, reason: true, text });
            }
            Err(Refusal::AlreadyInitialized(ClientId(id))) => {
                let text = format!("{} AlreadyInitialized", id.as_json());
                self.said.push(Said { who, reason: true, text });
            }
            Err(Refusal::UnknownResponse) => {
                self.said.push(Said { who, reason: true, text: "UnknownResponse".to_owned() });
            }
        }
        Ok(())
    }

    /// As the loop of a session takes a line.
    fn child(&mut self, text: &str) -> Result<(), String> {
        let mut line = LongLine::new(text.as_bytes().into(), usize::MAX);
        let mut taken = false;
        loop {
            let (open, listens, may_resume) = (self.open.clone(), self.listens, self.may_resume.clone());
            let joined = self.joined.clone();
            let readers = |stream: StreamId| readership(&open, &joined, listens, &may_resume, stream);
            match line.step() {
                Found::Message(message) => {
                    self.front.child(message, self.now, &readers, &mut self.out);
                    taken = true;
                    self.take_all()?;
                }
                Found::Pause | Found::Invalid(_) => {}
                Found::Stray(text) | Found::Noise(text) => {
                    let text = beginning(text).into_owned();
                    for part in look(&text).parts {
                        match part {
                            Part::Message { message, quoted } if !quoted || self.front.awaits(&message) => {
                                self.front.child(message, self.now, &readers, &mut self.out);
                            }
                            Part::Message { .. } => {}
                            Part::Broken(broken) => {
                                self.front.child_broken(&broken, &mut self.out);
                            }
                        }
                        taken = true;
                        self.take_all()?;
                    }
                    if taken {
                        return Ok(());
                    }
                    return Err("this is no message".to_owned());
                }
                Found::TooLong { .. } | Found::End => return Ok(()),
            }
        }
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let until = self.now + time;
        while let Some(at) = self.front.next_deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.expire()?;
            if self.front.next_deadline().is_some_and(|next| next <= self.now) {
                return Err("a deadline has passed and is still there".to_owned());
            }
        }
        self.now = until;
        self.expire()
    }

    fn expire(&mut self) -> Result<(), String> {
        let (open, listens, may_resume) = (self.open.clone(), self.listens, self.may_resume.clone());
        let joined = self.joined.clone();
        let readers = |stream: StreamId| readership(&open, &joined, listens, &may_resume, stream);
        self.front.expire(self.now, &readers, &mut self.out);
        self.take_all()
    }

    fn leaves(&mut self, who: &Who, took_all: bool) -> Result<(), String> {
        let stream = match who {
            Who::Client(number) => *number,
            _ => StreamId::LISTENING.0,
        };
        if *who == Who::Get && !std::mem::take(&mut self.listens) {
            return Err("nobody listens".to_owned());
        }
        self.gone.insert(stream);
        if !took_all {
            self.may_resume.insert(stream);
        }
        self.front.reader_left(StreamId(stream), took_all, self.now, &mut self.out);
        if self.leaving_ends {
            self.take_all()?;
            // Who has listened is told nothing.
            self.open.retain(|(open, _)| *open != stream);
        }
        if self.joined.remove(&stream) {
            self.take_all()?;
            // Its session is over and needs no answers.
            self.open.retain(|(lane, _)| *lane != stream);
            self.said.retain(|said| said.who != Who::Client(stream));
        }
        Ok(())
    }

    /// Looks at all that has come out.
    fn take_all(&mut self) -> Result<(), String> {
        let stdin = self.out.stdin.split();
        self.out.left(stdin.len());
        let stdin = std::str::from_utf8(&stdin).map_err(|_| "the child is given what is no UTF-8")?;
        if !stdin.is_empty() && !stdin.ends_with('\n') {
            return Err("the child is given half a line".to_owned());
        }
        for line in stdin.lines() {
            // Not as values: numbers may be larger than any of Rust's.
            let object = serde_json::from_str::<BTreeMap<String, &RawValue>>(line);
            if line.contains('\r') || object.is_err() {
                return Err(format!("the child is given a line that is no object: {line}"));
            }
            self.said.push(Said { who: Who::Child, reason: false, text: line.to_owned() });
        }
        while let Some(output) = self.out.take() {
            self.output(output)?;
        }
        Ok(())
    }

    fn output(&mut self, output: Output) -> Result<(), String> {
        let said = |who, reason, text| Said { who, reason, text };
        match output {
            Output::Message { stream, message } => {
                let (who, text) = (who_is(stream), text_of(&message)?);
                let is_there = stream == StreamId::LISTENING
                    || self.joined.contains(&stream.0)
                    || self.open.iter().any(|(open, _)| *open == stream.0);
                if !is_there && !self.gone.contains(&stream.0) {
                    return Err(format!("nobody reads stream {}: {text}", stream.0));
                }
                self.said.push(said(who, false, text));
            }
            Output::Answer { stream, message, success } => {
                let text = text_of(&message)?;
                let envelope = Envelope::peek(&message).map_err(|why| format!("{why:?}: {text}"))?;
                if envelope.kind != (if success { Kind::Success } else { Kind::Failure }) {
                    return Err(format!("it is said to be another kind of answer: {text}"));
                }
                let id = envelope.id(&message).ok_or_else(|| format!("an answer without an id: {text}"))?;
                self.ended(stream, id.as_json())?;
                self.said.push(said(who_is(stream), false, text));
            }
            Output::Unanswered { stream, id, why } => {
                // The sentence that goes with it is not what a rule is about.
                let why = match why {
                    Unanswered::Invalid(_) => "Invalid".to_owned(),
                    Unanswered::Declined(Declined::Header(_)) => "Declined(Header)".to_owned(),
                    Unanswered::Declined(Declined::State(_)) => "Declined(State)".to_owned(),
                    Unanswered::Declined(Declined::Params(_)) => "Declined(Params)".to_owned(),
                    why => format!("{why:?}"),
                };
                self.unanswered(stream, &id, why)?;
            }
            Output::Handshake(done @ Handshake::Done(_)) => {
                self.said.push(said(Who::Log, false, format!("{done:?}")));
            }
            Output::Handshake(failed) => {
                self.over = true;
                let failed = match failed {
                    Handshake::Invalid(_) => "Invalid".to_owned(),
                    failed => format!("{failed:?}"),
                };
                self.said.push(said(Who::Session, true, failed));
            }
            Output::AnswerToUnknown => {
                self.over = true;
                self.said.push(said(Who::Session, true, "AnswerToUnknown".to_owned()));
            }
            Output::Note(note) => {
                let text = match note {
                    Note::Dropped(why) => format!("Dropped({why:?})"),
                    note => format!("{note:?}"),
                };
                self.said.push(said(Who::Log, false, text));
            }
        }
        Ok(())
    }

    fn unanswered(&mut self, stream: StreamId, id: &ClientId, why: String) -> Result<(), String> {
        self.ended(stream, id.0.as_json())?;
        let text = format!("{} {why}", id.0.as_json());
        self.said.push(Said { who: who_is(stream), reason: true, text });
        Ok(())
    }

    fn ended(&mut self, stream: StreamId, id: &str) -> Result<(), String> {
        if self.open.remove(&(stream.0, id.to_owned())) {
            return Ok(());
        }
        Err(format!("request {id} of stream {} ends and was not there", stream.0))
    }

    /// What has no end yet ends with the session.
    fn finish(mut self) -> Result<(), String> {
        for (stream, ClientId(id)) in self.front.abandon() {
            self.ended(stream, id.as_json())?;
        }
        match self.open.first() {
            None => Ok(()),
            Some((stream, id)) => Err(format!("request {id} of stream {stream} never ends")),
        }
    }
}

fn request(text: &str) -> Result<Request, String> {
    match Message::parse(Bytes::copy_from_slice(text.as_bytes())) {
        Ok(Message::Request(request)) => Ok(request),
        other => Err(format!("this is no request: {other:?}")),
    }
}

fn takes(along: &Along) -> Takes {
    if along.json { Takes::AnswerOnly } else { Takes::Events }
}

fn who_is(stream: StreamId) -> Who {
    if stream == StreamId::LISTENING { Who::Get } else { Who::Client(stream.0) }
}

fn text_of(message: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(message).map_err(|_| "what comes out is no UTF-8")?;
    if text.contains(['\r', '\n']) {
        return Err(format!("what comes out is no line: {text}"));
    }
    Ok(text.to_owned())
}

fn readership(
    open: &BTreeSet<(u64, String)>,
    joined: &BTreeSet<u64>,
    listens: bool,
    may_resume: &BTreeSet<u64>,
    stream: StreamId,
) -> Readership {
    let is_open = open.iter().any(|(open, _)| *open == stream.0) || joined.contains(&stream.0);
    if may_resume.contains(&stream.0) {
        Readership::MayResume
    } else if if stream == StreamId::LISTENING { listens } else { is_open } {
        Readership::Present
    } else {
        Readership::Absent
    }
}
