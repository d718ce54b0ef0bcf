//! A line that is no message as it stands, and may be nearly one: what in it is a message all the same, and what names a
//! request that would wait for ever if nobody looked.
//!
//! A child may print what it likes, and a line of its log may quote a message. So there are two rules. Alone on its
//! line, or with nothing but escapes and a prompt about it, an object is what it is. With words about it, it counts as
//! the answer to a call that the child has, and as nothing else: a quoted request is no request. That the answer is
//! quoted makes no difference, because the child alone can know the id (see [`Ids`](super::ids::Ids)): what is quoted is
//! what it has answered, or is about to. Of what is broken nothing is passed on, and with words before it it does not
//! even end a call: logs cut what they quote.

use std::borrow::Cow;

use super::incoming::Incoming;
use super::json::value_end;
use super::message::{MAX_TOKEN, Malformed};

/// How much of a line is looked at, in bytes: all of it is looked at in one go.
const MAX_LOOK: usize = 1024 * 1024;

/// How many objects of a line are looked at.
const MAX_PARTS: usize = 1000;

/// How many ids of one object are looked at.
const MAX_IDS: usize = 4;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// One of a few sentences: nothing of the line is in it.
    pub what: &'static str,
    /// Where in the line, in bytes.
    pub at: usize,
}

/// What a line comes to.
#[derive(Debug, Default)]
pub struct Nearly<'l> {
    /// What may be taken, in its order.
    pub parts: Vec<Part<'l>>,
    /// What is wrong with it; `None`: there is nothing like a message in it.
    pub wrong: Option<Wrong>,
}

/// A part of a line.
#[derive(Debug)]
pub enum Part<'l> {
    /// A whole message.
    Message {
        message: Incoming<'l>,
        /// It counts only if it answers a request that the child has.
        quoted: bool,
    },
    /// What cannot be taken, and is no request.
    Broken(Broken<'l>),
}

/// What was to be a response, as far as one can tell.
#[derive(Debug)]
pub struct Broken<'l> {
    /// The tokens of its ids, each once. There are several where two readers would read two.
    pub ids: Vec<&'l str>,
    /// Whether there is a result or an error.
    pub answers: bool,
    pub wrong: Wrong,
}

/// As much of a line as is looked at, and a little more, so that it is seen to go on. What is no UTF-8 becomes three times
/// as long when it is repaired, and a line may have many megabytes.
pub fn beginning(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line.get(..MAX_LOOK + 8).unwrap_or(line))
}

/// Looks at a line that is no message.
///
/// Of a line of a child as it came, [`beginning`] is all that is needed.
pub fn look(line: &str) -> Nearly<'_> {
    let ends = (MAX_LOOK.saturating_sub(3)..=MAX_LOOK).rev();
    let text = ends.into_iter().find_map(|end| line.get(..end)).unwrap_or(line);
    let mut nearly = Nearly::default();
    let (mut behind, mut is_bare, mut is_first) = (0, true, true);
    let mut found = Vec::new();
    while let Some(start) = memchr::memchr(b'{', text.as_bytes().get(behind..).unwrap_or_default()) {
        let start = behind + start;
        let before_is_bare = is_bare_text(text.get(behind..start).unwrap_or_default());
        is_bare &= before_is_bare;
        if found.len() == MAX_PARTS {
            is_bare = false;
            break;
        }
        let (end, part) = object(text, start, text.len() < line.len());
        // Words before it: it may be quoted, and cut.
        found.push((part, is_first && before_is_bare));
        is_first = false;
        behind = end.unwrap_or(text.len());
    }
    is_bare &= is_bare_text(text.get(behind..).unwrap_or_default());
    let broken = found.iter().any(|(part, _)| !matches!(part, Object::Whole(_)));
    let quoted = !is_bare || broken;
    for (part, may_end) in found {
        match part {
            Object::Whole(message) => {
                let what = if is_bare { "other text about a message" } else { "words about a message" };
                nearly.wrong.get_or_insert(Wrong { what, at: 0 });
                nearly.parts.push(Part::Message { message, quoted });
            }
            Object::Broken(broken) => {
                nearly.wrong = Some(broken.wrong);
                if may_end {
                    nearly.parts.push(Part::Broken(broken));
                }
            }
            Object::Other(Some(wrong)) => nearly.wrong = nearly.wrong.or(Some(wrong)),
            Object::Other(None) => {}
        }
    }
    nearly
}

/// What an object of a line is.
enum Object<'l> {
    Whole(Incoming<'l>),
    Broken(Broken<'l>),
    /// Neither a message nor nearly a response: and what is wrong with it, if it looks like one.
    Other(Option<Wrong>),
}

/// The object that begins at `start`, and where it ends; `None`: not in this text. `is_cut`: that goes on behind its end.
fn object(text: &str, start: usize, is_cut: bool) -> (Option<usize>, Object<'_>) {
    let sketch = Sketch::of(text, start);
    let (end, wrong) = match value_end(text, start) {
        Ok(end) => match Incoming::peek(text.get(start..end).unwrap_or_default()) {
            Ok(message) => return (Some(end), Object::Whole(message)),
            Err(Malformed::Invalid(_, what)) => (Some(end), Wrong { what, at: start }),
            Err(Malformed::Parse) => (Some(end), Wrong { what: NO_JSON, at: start }),
        },
        Err(at) => (sketch.end, Wrong { what: fault(text, at, is_cut), at }),
    };
    let part = if !sketch.is_message {
        // What begins like one over several lines is worth a word.
        Object::Other((start == 0).then_some(wrong))
    } else if sketch.has_method && !sketch.has_answer {
        Object::Other(Some(wrong))
    } else {
        Object::Broken(Broken { ids: sketch.ids, answers: sketch.answers, wrong })
    };
    (end, part)
}

const NO_JSON: &str = "it is not JSON";

/// What is wrong at the first byte that is no JSON.
fn fault(text: &str, at: usize, is_cut: bool) -> &'static str {
    let rest = text.get(at..).unwrap_or_default();
    let before = text.get(..at).unwrap_or_default();
    match rest.as_bytes().first() {
        None if is_cut => "it is not JSON, or too long to look at with what is about it",
        None => "it is cut off: a message must be on one line",
        Some(0..0x20) => "a raw control character in it: strings escape those",
        Some(b'N' | b'I') => "NaN and Infinity are not JSON",
        Some(b'-') if rest.starts_with("-I") => "NaN and Infinity are not JSON",
        Some(b'}' | b']') if before.trim_ascii_end().ends_with(',') => "a comma before a closing bracket",
        Some(b'\'') => "strings need double quotes",
        Some(b'T' | b'F' | b'u') => "None, True, False and undefined are not JSON",
        Some(b'\\') => "an escape that JSON does not have",
        Some(b'/' | b'#') => "comments are not JSON",
        Some(_) => NO_JSON,
    }
}

/// Whether there is nothing but escapes, white space, brackets of arrays and what prompts are made of. Words are not
/// among it: a line of a log has some.
fn is_bare_text(text: &str) -> bool {
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // ECMA-48: CSI ends at a letter or the like, OSC and its kin at BEL or ESC \, all else is one character.
            '\u{1b}' => match characters.next() {
                Some('[') => while characters.next_if(|next| !('@'..='~').contains(next)).is_some() {},
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while characters.next_if(|next| !matches!(next, '\u{7}' | '\u{1b}')).is_some() {}
                    continue;
                }
                Some('(' | ')') => {}
                _ => continue,
            },
            '\u{9b}' => while characters.next_if(|next| !('@'..='~').contains(next)).is_some() {},
            '\\' | '>' | '$' | '#' | '%' | '?' | '[' | ']' | ',' | ';' | '\u{feff}' => continue,
            other if other.is_whitespace() || other.is_control() => continue,
            _ => return false,
        }
        characters.next(); // which ends the sequence
    }
    true
}

/// What the members of an object seem to be, whatever is wrong with it.
#[derive(Default)]
struct Sketch<'l> {
    /// Where it ends; `None`: it does not.
    end: Option<usize>,
    /// Whether it is meant as a message: it says so, or has nothing but what a message has. A line of a structured log may
    /// have an id and a result too.
    is_message: bool,
    has_method: bool,
    answers: bool,
    /// Whether a result or an error is there that is not null: some libraries write all members of both.
    has_answer: bool,
    ids: Vec<&'l str>,
}

impl<'l> Sketch<'l> {
    /// Strings may have either quotes and any characters, and names may have none.
    fn of(text: &'l str, start: usize) -> Self {
        let mut sketch = Self::default();
        let (mut names_jsonrpc, mut has_others) = (false, false);
        let bytes = text.as_bytes();
        let (mut at, mut depth) = (start, 0_usize);
        let mut name: Option<&str> = None;
        let mut value = start;
        // Whether the name of a member comes next.
        let mut is_name = false;
        while let Some(byte) = bytes.get(at) {
            let from = at;
            at += 1;
            match byte {
                b'{' | b'[' => {
                    depth += 1;
                    is_name = depth == 1;
                }
                b'}' | b']' | b',' if depth == 1 => {
                    if let Some(name) = name.take() {
                        sketch.note(name, text.get(value..from).unwrap_or_default().trim());
                    }
                    is_name = *byte == b',';
                    if !is_name {
                        sketch.end = Some(at);
                        break;
                    }
                }
                b'}' | b']' => depth -= 1,
                b':' if depth == 1 && name.is_some() && value <= from && is_name => {
                    value = at;
                    is_name = false;
                }
                b'"' | b'\'' => {
                    at = string_end(bytes, at, *byte);
                    let rest = bytes.get(at..).unwrap_or_default().trim_ascii_start();
                    if depth == 1 && !is_name && name.is_some() && from > value && rest.starts_with(b":") {
                        // A comma is missing before it.
                        if let Some(name) = name.take() {
                            sketch.note(name, text.get(value..from).unwrap_or_default().trim());
                        }
                        is_name = true;
                    }
                    if depth == 1 && is_name {
                        name = text.get(from + 1..at.saturating_sub(1));
                        value = at;
                    }
                }
                byte if depth == 1 && is_name && (byte.is_ascii_alphabetic() || *byte == b'_') => {
                    let rest = bytes.get(from..).unwrap_or_default();
                    at = from
                        + rest
                            .iter()
                            .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
                            .count();
                    name = text.get(from..at);
                    value = at;
                }
                _ => {}
            }
            if is_name
                && depth == 1
                && let Some(name) = name.filter(|_| value == at)
            {
                match name {
                    name if name.eq_ignore_ascii_case("jsonrpc") => names_jsonrpc = true,
                    name if KNOWN.iter().any(|known| name.eq_ignore_ascii_case(known)) => {}
                    _ => has_others = true,
                }
            }
        }
        // The last of an object that is cut off. Its value may go on behind the cut, but for a string that is closed.
        if let Some(name) = name.filter(|_| sketch.end.is_none() && !is_name) {
            let token = text.get(value..).unwrap_or_default().trim();
            let is_id = name.eq_ignore_ascii_case("id");
            sketch.note(name, if is_id && !token.ends_with('"') { "" } else { token });
        }
        sketch.is_message =
            names_jsonrpc || (!has_others && !sketch.ids.is_empty() && (sketch.answers || sketch.has_method));
        sketch
    }

    fn note(&mut self, name: &str, value: &'l str) {
        if name.eq_ignore_ascii_case("id") {
            let quotes: &[char] = &['\''];
            let value = value.trim_matches(quotes);
            let token = value_end(value, 0).ok().and_then(|end| value.get(..end));
            if let Some(value) = token
                && value.len() <= MAX_TOKEN
                && self.ids.len() < MAX_IDS
                && !self.ids.contains(&value)
            {
                self.ids.push(value);
            }
        }
        self.has_method |= name.eq_ignore_ascii_case("method") && value != "null";
        if name.eq_ignore_ascii_case("result") || name.eq_ignore_ascii_case("error") {
            self.answers = true;
            self.has_answer |= value != "null";
        }
    }
}

/// What a message may have.
const KNOWN: [&str; 5] = ["id", "method", "params", "result", "error"];

/// Where the string ends that begins before `at`, behind its quote.
fn string_end(text: &[u8], mut at: usize, quote: u8) -> usize {
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'\\' => at += 1,
            byte if *byte == quote => break,
            _ => {}
        }
    }
    at.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::{note, request, result};

    /// What is found, in words.
    fn parts(line: &str) -> Vec<String> {
        let parts = look(line).parts.into_iter().map(|part| match part {
            Part::Message { message, quoted } => {
                let kind = message.envelope.kind;
                format!("{kind:?}{}", if quoted { " quoted" } else { "" })
            }
            Part::Broken(Broken { ids, answers, .. }) => format!("broken {} {answers}", ids.join("|")),
        });
        parts.collect()
    }

    #[test]
    fn of_a_line_of_megabytes_no_more_is_repaired_than_is_looked_at() {
        let line = vec![0xff; 60 * MAX_LOOK];
        assert!(beginning(&line).len() <= 4 * MAX_LOOK);
        let answer = [br#"{"jsonrpc":"2.0","id":7,"result":"#.as_slice(), &line].concat();
        let begins = beginning(&answer);
        let parts = look(&begins).parts;
        assert!(matches!(&parts[..], [Part::Broken(broken)] if broken.ids == ["7"]), "{parts:?}");
    }

    #[test]
    fn what_is_whole_is_found_whatever_stands_about_it() {
        let (answer, note, ask) = (result("7"), note("n"), request("1", "roots/list"));
        for (line, want) in [
            (format!("\u{1b}[32m{answer}\u{1b}[0m"), vec!["Success"]),
            (format!("\u{1b}]0;title\u{7}{note}"), vec!["Notification"]),
            (format!("\u{1b}[?2004h> {ask}"), vec!["Request"]),
            (format!(">>> {answer};"), vec!["Success"]),
            (format!("{answer}{note}"), vec!["Success", "Notification"]),
            (format!("{answer} {ask}\t{answer}"), vec!["Success", "Request", "Success"]),
            (format!("Server started{answer}"), vec!["Success quoted"]),
            (format!("{answer} sent"), vec!["Success quoted"]),
            (format!("INFO got {ask} at 5"), vec!["Request quoted"]),
            (format!("{{a}} {answer}"), vec!["Success quoted"]),
            (format!("data: {answer}"), vec!["Success quoted"]),
            (format!("{answer}Content-Length: 70"), vec!["Success quoted"]),
            (format!("{answer}}}"), vec!["Success quoted"]),
            (format!("{answer}\0"), vec!["Success"]),
            (format!("\u{feff}\u{feff}{answer}"), vec!["Success"]),
            (format!("[{answer}, {note}"), vec!["Success", "Notification"]),
        ] {
            assert_eq!(parts(&line), want, "{line:?}");
        }
    }

    #[test]
    fn what_is_broken_names_its_request_and_says_what_is_wrong_and_where() {
        for (line, ids, what, at) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"x":NaN}}"#, "7", "NaN and", 38),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"x":-Infinity}}"#, "7", "NaN and", 38),
            ("{\"jsonrpc\":\"2.0\",\"result\":\"a\tb\",\"id\":7}", "7", "control", 28),
            ("{\"jsonrpc\":\"2.0\",\"result\":\"a\u{1}b\",\"id\":7}", "7", "control", 28),
            (r#"{"id":7,"result":{}}"#, "7", "\"jsonrpc\" must", 0),
            (r#"{"jsonrpc":"1.0","id":7,"result":{}}"#, "7", "\"jsonrpc\" must", 0),
            (r#"{"Jsonrpc":"2.0","Id":7,"Result":{}}"#, "7", "\"jsonrpc\" must", 0),
            (r#"{"jsonrpc":"2.0","id":7,"id":7,"result":{}}"#, "7", "\"id\" occurs twice", 0),
            (r#"{"jsonrpc":"2.0","id":7,"id":8,"result":{}}"#, "7|8", "\"id\" occurs twice", 0),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{}}"#, "7", "either a result", 0),
            (r#"{"jsonrpc":"2.0","id":7}"#, "7", "needs a method", 0),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":1,}}"#, "7", "a comma", 40),
            (r#"{"jsonrpc":"2.0","id":7,"result":[1,]}"#, "7", "a comma", 36),
            (r#"{"jsonrpc":"2.0","id":7,"result":{},}"#, "7", "a comma", 36),
            (r#"{"jsonrpc":"2.0","id":"7","result":{"text":"half"#, "\"7\"", "cut off", 48),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"x":True}}"#, "7", "None, True", 38),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"x":undefined}}"#, "7", "None, True", 38),
            (r#"{"jsonrpc":"2.0","id":7,"result":"\x41"}"#, "7", "an escape", 34),
            (r#"{"jsonrpc":"2.0","id":7 "result":{}}"#, "7", "not JSON", 24),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":"C:\Users"}}"#, "7", "an escape", 41),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":"an "inner" quote"}}"#, "7", "not JSON", 43),
            (r#"{"jsonrpc":"2.0","id":7,"result":{"a":"an " inner quote"}}"#, "7", "not JSON", 44),
            (r#"{"jsonrpc":"2.0","id":7,"result":{}"#, "7", "cut off", 35),
            (r#"{"jsonrpc":2.0,"id":7,"result":{}}"#, "7", "\"jsonrpc\" must", 0),
            (r#"{"jsonrpc":"2.0","id":7,"method":null,"result":{}}"#, "7", "either a method", 0),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","result":{}}"#, "7", "either a method", 0),
            ("{'jsonrpc': '2.0', 'id': 7, 'result': {}}", "7", "double quotes", 1),
            ("{ jsonrpc: '2.0', id: 7, result: { a: [Object] } }", "7", "not JSON", 2),
            ("[{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":NaN}]", "7", "NaN and", 34),
        ] {
            let nearly = look(line);
            let [Part::Broken(broken)] = &nearly.parts[..] else { panic!("{line}: {nearly:?}") };
            assert_eq!(broken.ids.join("|"), ids, "{line}");
            assert!(broken.wrong.what.contains(what), "{line}: {:?}", broken.wrong);
            assert_eq!(broken.wrong.at, at, "{line}: {:?}", broken.wrong);
        }
    }

    #[test]
    fn what_a_log_may_say_ends_no_call() {
        for line in [
            r#"{"level":"error","id":7,"error":"x"}"#,
            r#"{"level":"error","id":7,"result":NaN}"#,
            r#"DEBUG sent {"jsonrpc":"2.0","id":7,"result":{...}}"#,
            r#"DEBUG sent {"jsonrpc":"2.0","id":7,"resu"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"roots/list","params":NaN}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"roots/list","result":null,"error":null}"#,
            r#"{"msg":{"jsonrpc":"2.0","id":7,"result":{}}}"#,
            r#"{"msg":"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}"}"#,
            r#"{"msg":{"jsonrpc":"2.0","id":7,"result":NaN}}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":{"jsonrpc":"2.0","id":7,"result":{"a":NaN}}}"#,
            "{}",
            "[]",
            "Listening on stdio",
            "{",
        ] {
            assert_eq!(parts(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn a_message_behind_what_is_broken_counts_only_as_an_answer() {
        let line = format!(r#"{{"jsonrpc":"2.0","id":7,"result":NaN}}{}"#, result("8"));
        assert_eq!(parts(&line), ["broken 7 true", "Success quoted"]);
    }

    #[test]
    fn a_line_of_any_brackets_costs_little() {
        for part in ["{", "{\"", "[{", "{\"a\":", "{}", "'{", "{\"id\":1},", "\u{1b}[{"] {
            let began = std::time::Instant::now();
            look(&part.repeat(3 * MAX_LOOK / part.len()));
            assert!(began.elapsed().as_secs() < 5, "{part}");
        }
    }
}
