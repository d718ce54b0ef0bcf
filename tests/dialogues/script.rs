//! The text of dialogues, read line by line: see `README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a line stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
}

/// Who says something, or is told it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Child,
    /// The client or lane with this number, and the stream of the same number.
    Client(u64),
    /// Who reads the stream that is no POST's.
    Get,
    /// The session as a whole.
    Session,
    /// What is written down for the operator.
    Log,
}

/// What a message of a client comes with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Along {
    pub(crate) json: bool,
    pub(crate) caller: Option<String>,
    pub(crate) params: Vec<(String, String)>,
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Opened(Opening),
    Named(String, String),
    Client(u64, Along, String),
    Child(String),
    /// The beginning of a line that is too long to take.
    ChildLong(String),
    Time(Duration),
    Joins(u64),
    Listens,
    Leaves(Who),
    /// Its connection is lost, and it may come back.
    IsCut(Who),
    /// Of the callers only these go on.
    Keep(Vec<String>),
    /// The child ends, and another comes where the front can go on with it.
    ChildEnds,
    /// The session ends in good order.
    Ends,
}

/// A front, and what it begins with.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) front: String,
    pub(crate) words: Vec<String>,
    /// What the bridge or the first client opens it with.
    pub(crate) first: Option<(u64, Along, String)>,
}

/// What comes of it, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) place: Place,
    pub(crate) who: Who,
    /// Whether it is the reason for which there is no message.
    pub(crate) reason: bool,
    pub(crate) text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) place: Place,
    /// The comments in front of it.
    pub(crate) comments: Vec<String>,
    /// As it is written.
    pub(crate) text: String,
    pub(crate) event: Event,
    pub(crate) expected: Vec<Expected>,
}

#[derive(Clone, Debug)]
pub(crate) struct Dialogue {
    pub(crate) place: Place,
    /// The comments in front of it: its rule, and where that is from.
    pub(crate) rule: Vec<String>,
    /// Its first line, as it is written.
    pub(crate) head: String,
    pub(crate) steps: Vec<Step>,
    /// How many of them are from another file.
    pub(crate) before: usize,
}

/// All dialogues of a file.
pub(crate) fn read(file: &Path) -> Result<Vec<Dialogue>, String> {
    let text = fs::read_to_string(file).map_err(|why| format!("{}: {why}", file.display()))?;
    parse(file, &text)
}

/// The same of the text of one.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Dialogue>, String> {
    let mut dialogues: Vec<Dialogue> = Vec::new();
    let mut comments = Vec::new();
    for (place, line) in lines(file, text) {
        let fail = |why: &str| format!("{}:{}: {why}: {line}", place.file.display(), place.line);
        if let Some(comment) = line.strip_prefix('#') {
            comments.push(comment.trim().to_owned());
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if matches!(word, "front" | "after") {
            let mut dialogue = Dialogue {
                place: place.clone(),
                rule: std::mem::take(&mut comments),
                head: line.clone(),
                steps: Vec::new(),
                before: 0,
            };
            if word == "after" {
                let (name, more) = rest.split_once(' ').unwrap_or((rest, ""));
                let before = file.with_file_name(format!("{name}.txt"));
                let before = read(&before).map_err(|why| format!("{}\n{why}", fail("cannot be read")))?;
                let [before] = &before[..] else { return Err(fail("it must be one dialogue")) };
                dialogue.steps.clone_from(&before.steps);
                dialogue.before = dialogue.steps.len();
                if let Some(Step { event: Event::Opened(opening), .. }) = opening_of(&mut dialogue) {
                    opening.words.extend(more.split_whitespace().map(str::to_owned));
                }
            } else {
                let mut words = rest.split(' ').map(str::to_owned);
                let front = words.next().unwrap_or_default();
                let opening = Opening { front, words: words.collect(), first: None };
                let event = Event::Opened(opening);
                let (comments, expected) = (Vec::new(), Vec::new());
                dialogue.steps.push(Step { place, comments, text: line, event, expected });
            }
            dialogues.push(dialogue);
            continue;
        }
        let Some(dialogue) = dialogues.last_mut() else {
            return Err(fail("a dialogue begins with \"front\" or \"after\""));
        };
        match said(&line).map_err(|why| fail(&why))? {
            Said::Expected(who, reason, text) => {
                let steps = dialogue.steps.get_mut(dialogue.before..).unwrap_or_default();
                let Some(step) = steps.last_mut() else { return Err(fail("nothing has happened here yet")) };
                step.expected.push(Expected { place, who, reason, text });
            }
            Said::Event(Event::Client(number, along, text)) if needs_first(dialogue) => {
                let Some(Step { event: Event::Opened(opening), text: head, .. }) = opening_of(dialogue)
                else {
                    unreachable!("it is that which needs it")
                };
                opening.first = Some((number, along, text));
                *head = format!("{head}\n{line}");
            }
            Said::Event(event) => {
                let (comments, expected) = (std::mem::take(&mut comments), Vec::new());
                dialogue.steps.push(Step { place, comments, text: line, event, expected });
            }
        }
    }
    Ok(dialogues)
}

/// Whether its front begins with what is said first.
fn needs_first(dialogue: &Dialogue) -> bool {
    let steps = dialogue.steps.iter().filter(|step| !matches!(step.event, Event::Named(..)));
    let mut steps = steps;
    match (steps.next(), steps.next()) {
        (Some(Step { event: Event::Opened(opening), expected, .. }), None) => {
            matches!(&*opening.front, "downgrade" | "shared")
                && opening.first.is_none()
                && expected.is_empty()
        }
        _ => false,
    }
}

fn opening_of(dialogue: &mut Dialogue) -> Option<&mut Step> {
    dialogue.steps.iter_mut().find(|step| matches!(step.event, Event::Opened(_)))
}

/// The lines of a text with their places; what begins with a space belongs to the line before.
fn lines(file: &Path, text: &str) -> Vec<(Place, String)> {
    let mut lines: Vec<(Place, String)> = Vec::new();
    for (text, line) in text.lines().zip(1..) {
        if text.trim().is_empty() {
            continue;
        }
        match lines.last_mut() {
            Some((_, last)) if text.starts_with(' ') => last.push_str(text.trim()),
            _ => lines.push((Place { file: file.to_owned(), line }, text.trim_end().to_owned())),
        }
    }
    lines
}

enum Said {
    Event(Event),
    Expected(Who, bool, String),
}

fn said(line: &str) -> Result<Said, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let event = |event| Ok(Said::Event(event));
    if let Some(time) = line.strip_prefix('+') {
        return event(Event::Time(time_of(time)?));
    }
    match word {
        "let" => {
            let (name, text) = rest.split_once(' ').ok_or("a name and its text")?;
            return event(Event::Named(name.to_owned(), text.to_owned()));
        }
        "log" => return Ok(Said::Expected(Who::Log, false, rest.to_owned())),
        "keep" => return event(Event::Keep(rest.split_whitespace().map(str::to_owned).collect())),
        "end" => return event(Event::Ends),
        _ => {}
    }
    // Options may have spaces in them, and come before what says who speaks to whom.
    let (who, along, rest) = match line.split_once('[').filter(|(who, _)| !who.contains([' ', '>', '<', '!']))
    {
        Some((who, rest)) => {
            let (along, rest) = rest.split_once(']').ok_or("\"[\" without \"]\"")?;
            (who, along, rest)
        }
        None => {
            let end = line.find([' ', '>', '<', '!']).ok_or("it is not known what this is")?;
            let (who, rest) = line.split_at(end);
            (who, "", rest)
        }
    };
    let number = who.parse::<u64>();
    let direction = rest.chars().next().unwrap_or_default();
    let text = rest.get(1..).unwrap_or_default().trim_start().to_owned();
    let who = match (who, &number) {
        ("child", _) => Who::Child,
        ("get", _) => Who::Get,
        ("session", _) => Who::Session,
        ("bridge", _) => Who::Client(0),
        (_, Ok(number)) => Who::Client(*number),
        _ => return Err("it is not known who this is".to_owned()),
    };
    match (direction, &who, &*text) {
        ('>', Who::Child, _) if along == "long" => event(Event::ChildLong(text)),
        ('>', Who::Child, _) if along.is_empty() => event(Event::Child(text)),
        ('>', Who::Client(number), _) => event(Event::Client(*number, along_of(along)?, text)),
        ('<', ..) => Ok(Said::Expected(who, false, text)),
        ('!', ..) => Ok(Said::Expected(who, true, text)),
        (' ', Who::Client(number), "joins") => event(Event::Joins(*number)),
        (' ', Who::Get, "listens") => event(Event::Listens),
        (' ', Who::Client(_) | Who::Get, "leaves") => event(Event::Leaves(who)),
        (' ', Who::Client(_) | Who::Get, "is cut") => event(Event::IsCut(who)),
        (' ', Who::Child, "ends") => event(Event::ChildEnds),
        _ => Err("it is not known what this is".to_owned()),
    }
}

fn along_of(words: &str) -> Result<Along, String> {
    let mut along = Along::default();
    for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word.split_once(' ') {
            None if word == "json" => along.json = true,
            Some(("caller", name)) => along.caller = Some(name.to_owned()),
            Some(("param", param)) => {
                let (name, value) = param.split_once('=').ok_or("param NAME=VALUE")?;
                along.params.push((name.to_owned(), value.to_owned()));
            }
            _ => return Err(format!("{word:?} is not known")),
        }
    }
    Ok(along)
}

pub(crate) fn time_of(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u64>().map_err(|_| "a time is a number and ms, s or m".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        _ => Err("a time is a number and ms, s or m".to_owned()),
    }
}
