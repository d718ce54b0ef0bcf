//! Names in texts: `$name` stands for a JSON string or number that is the same wherever the name is, or for the text that
//! `let` gives it; `$_` for any. Within strings of the JSON there are none.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// What each was at first sight.
    bound: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
    /// How many were given by [`Names::call`].
    given: usize,
}

/// A piece of a text.
enum Piece<'t> {
    Text(&'t str),
    Name(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let bytes = text.as_bytes();
    let (mut pieces, mut at, mut begin, mut inside) = (Vec::new(), 0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if inside => at += 1,
            b'"' => inside = !inside,
            b'$' if !inside => {
                let name = &text[at + 1..];
                let length = name.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
                if length > 0 {
                    pieces.push(Piece::Text(&text[begin..at]));
                    pieces.push(Piece::Name(&name[..length]));
                    begin = at + 1 + length;
                    at = begin;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    pieces.push(Piece::Text(&text[begin..]));
    pieces
}

/// The length of the JSON string or number that a text begins with; 0: it begins with none.
fn token(text: &str) -> usize {
    let number = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    if !text.starts_with('"') {
        return text.bytes().take_while(|b| number(b)).count();
    }
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    0
}

impl Names {
    /// Gives a text a name.
    pub(crate) fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let text = self.expand(text)?;
        self.texts.insert(name.to_owned(), text);
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.texts.get(name).or_else(|| self.bound.get(name)).map(String::as_str)
    }

    /// The text with what its names stand for.
    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        let mut whole = String::new();
        for piece in pieces(text) {
            whole.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Name(name) => self.get(name).ok_or_else(|| format!("nothing has been ${name} yet"))?,
            });
        }
        Ok(whole)
    }

    /// Whether `said` is what `expected` says. A name that has stood for nothing yet stands for what is there, from now on
    /// and also where the rest is another one.
    pub(crate) fn matches(&mut self, expected: &str, said: &str) -> bool {
        let mut rest = said;
        for piece in pieces(expected) {
            let text = match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Name(name) => match self.get(name) {
                    Some(text) => text.to_owned(),
                    None => {
                        let found = rest[..token(rest)].to_owned();
                        if name == "_" && !found.is_empty() {
                            rest = &rest[found.len()..];
                            continue;
                        }
                        if found.is_empty() || self.bound.values().any(|other| *other == found) {
                            return false; // two names are two things
                        }
                        self.bound.insert(name.to_owned(), found.clone());
                        found
                    }
                },
            };
            let Some(behind) = rest.strip_prefix(&text) else { return false };
            rest = behind;
        }
        rest.is_empty()
    }

    /// A text as a dialogue would say it.
    pub(crate) fn shown(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        let mut texts: Vec<_> = self.texts.iter().filter(|(_, text)| text.len() > 3).collect();
        texts.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
        for (name, text) in texts {
            shown = shown.replace(text, &format!("${name}"));
        }
        for (name, token) in self.bound.iter().filter(|(_, token)| token.len() > 3) {
            shown = shown.replace(token, &format!("${name}"));
        }
        shown
    }

    /// Gives a name to what has none: the id of a request that the child is given.
    pub(crate) fn call(&mut self, token: &str) {
        if token.len() > 3 && !self.bound.values().any(|known| known == token) {
            self.given += 1;
            self.bound.insert(self.given.to_string(), token.to_owned());
        }
    }
}

#[test]
fn a_name_stands_for_one_thing_and_for_no_other() {
    let mut names = Names::default();
    assert!(names.matches(r#"{"id":$a,"s":"$a"}"#, r#"{"id":17,"s":"$a"}"#), "there is none in a string");
    assert!(names.matches(r#"{"id":$a}"#, r#"{"id":17}"#) && !names.matches(r#"{"id":$a}"#, r#"{"id":18}"#));
    assert!(!names.matches("$b", "17"), "two names are two things");
    assert!(names.matches(r#"[$c,$c]"#, r#"["x\"","x\""]"#) && !names.matches("$d", "{}"));
    assert_eq!(names.expand(r#"{"id":$a,"x":$c}"#).unwrap(), r#"{"id":17,"x":"x\""}"#);
    assert!(names.expand("$nobody").is_err());
    assert!(names.matches("[$_,$_]", "[17,18]") && names.expand("$_").is_err());
    names.set("both", r#""a":$a,"b":1"#).unwrap();
    assert!(names.matches("{$both}", r#"{"a":17,"b":1}"#));
}
