//! What is said: messages in which only a number changes from call to call.

/// Stands for the number, in as many places as it is needed.
const MARK: &str = "@@@@@@@@@@";

/// The first number. All that follow have as many digits, so a message keeps its length; none exceeds an `int32`.
pub const FIRST: u32 = 1_000_000_000;

/// How many numbers are apart from each other two callers that may be at work at the same time.
pub const APART: u32 = 1_000_000;

pub const VERSION: &str = "2025-11-25";

/// The revision that has no sessions.
pub const MODERN: &str = "2026-07-28";

/// The handshake, for every number.
pub const INITIALIZE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","#,
    r#""capabilities":{},"clientInfo":{"name":"bench","version":"0"}}}"#,
);
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A text with a number in it.
#[derive(Clone)]
pub struct Template {
    text: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    pub fn new(text: String) -> Self {
        let places = text.match_indices(MARK).map(|(at, _)| at).collect();
        Self { text: text.into_bytes(), places }
    }

    pub fn with(&mut self, number: u32) -> &[u8] {
        let mut digits = [b'0'; MARK.len()];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        for &at in &self.places {
            self.text[at..at + MARK.len()].copy_from_slice(&digits);
        }
        &self.text
    }
}

/// The call of a tool with a text of so many bytes: the number is its id, and a part of the text.
pub fn call(length: usize) -> String {
    let text = text(length);
    format!(
        r#"{{"jsonrpc":"2.0","id":{MARK},"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}"}}}}}}"#
    )
}

/// The same of a client of 2026-07-28.
pub fn modern_call(length: usize) -> String {
    let text = text(length);
    format!(
        r#"{{"jsonrpc":"2.0","id":{MARK},"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"{text}"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"0"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}

/// The one right answer to that, where the echo server's is translated.
pub fn modern_answer(length: usize) -> String {
    let text = text(length);
    format!(
        r#"{{"jsonrpc":"2.0","id":{MARK},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/serverInfo":{{"name":"echo","version":"0"}}}},"content":[{{"type":"text","text":"{text}"}}]}}}}"#
    )
}

/// The one right answer to it, byte for byte.
pub fn answer(length: usize) -> String {
    let text = text(length);
    format!(r#"{{"jsonrpc":"2.0","id":{MARK},"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
}

fn text(length: usize) -> String {
    let text = format!("call {MARK} ");
    let rest = "x".repeat(length.saturating_sub(text.len()));
    text + &rest
}

/// The numbers of one caller, for as long as the measurement lasts. A server that gives the same answer to all is
/// asked with the same number again and again.
pub struct Numbers {
    first: u32,
    step: u32,
    done: u32,
}

impl Numbers {
    /// The numbers of the nth caller.
    pub fn of(caller: usize) -> Self {
        Self { first: FIRST + caller as u32 * APART, step: 1, done: 0 }
    }

    /// The first number, again and again.
    pub fn constant() -> Self {
        Self { first: FIRST, step: 0, done: 0 }
    }

    pub fn another(&mut self) -> u32 {
        self.done = (self.done + self.step) % APART;
        self.first + self.done
    }
}
