//! What is known of a child's tools, and the calls that wait for it: some of their arguments may have to stand in headers
//! too (2026-07-28 `basic/transports/streamable-http`, "Custom Headers from Tool Parameters"), and whoever reads the message
//! must compare them.

use super::incoming::Incoming;
use super::json::{slice, unquote, values_of};
use super::message::Request;

mod params;

use params::ToolParams;

/// How many pages of the child's tools are read.
const MAX_PAGES: usize = 100;

/// How far they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    /// The child has been asked, and has given so many pages.
    Asked {
        pages: usize,
        /// They have changed since.
        again: bool,
    },
    All,
}

/// The tools of a child. `H` is a call that waits until they are known.
#[derive(Debug)]
pub struct Tools<H> {
    params: ToolParams,
    known: Known,
    held: Vec<H>,
}

impl<H> Default for Tools<H> {
    fn default() -> Self {
        Self { params: ToolParams::default(), known: Known::Nothing, held: Vec::new() }
    }
}

impl<H> Tools<H> {
    /// Whether a call can be compared with what is known. If not it is to be [held](Self::hold).
    pub fn are_known(&self) -> bool {
        self.known == Known::All
    }

    /// Whether the child has been asked for a page that it has not given.
    pub fn are_asked(&self) -> bool {
        matches!(self.known, Known::Asked { .. })
    }

    pub fn hold(&mut self, call: H) {
        self.held.push(call);
    }

    /// The calls that wait.
    pub fn held(&self) -> &[H] {
        &self.held
    }

    /// Takes those out of the calls that wait.
    pub fn take(&mut self, which: impl Fn(&H) -> bool) -> Vec<H> {
        self.held.extract_if(.., |held| which(held)).collect()
    }

    /// Whether the child is to be asked for its tools now: calls wait, and nobody has asked.
    pub fn begin(&mut self) -> bool {
        let begins = self.known == Known::Nothing && !self.held.is_empty();
        if begins {
            self.known = Known::Asked { pages: 0, again: false };
            self.params = ToolParams::default();
        }
        begins
    }

    /// The child has given a page of `tools/list`: the text of its result, or none. Returns the cursor of the next page,
    /// which it is to be asked for; `None`: that was the last one, and the calls that wait go on.
    pub fn page(&mut self, result: Option<&str>) -> Option<String> {
        let Known::Asked { pages, again } = self.known else { return None };
        if let Some(result) = result {
            self.params.learn(result);
            if let Some(cursor) = ToolParams::next_cursor(result).filter(|_| pages < MAX_PAGES) {
                self.known = Known::Asked { pages: pages + 1, again };
                return Some(cursor);
            }
        }
        // Where they have changed meanwhile the next call asks: some children say with each list that it has changed, and
        // these calls would wait for ever.
        self.known = if again { Known::Nothing } else { Known::All };
        None
    }

    /// A client has been given a page of `tools/list`, and goes by it from now on.
    pub fn learn(&mut self, answer: &Incoming<'_>) {
        if let Some(result) = answer.envelope.result.clone() {
            self.params.learn(slice(answer.text(), result));
        }
    }

    /// The child has none that it could be asked for.
    pub fn are_none(&mut self) {
        self.known = Known::All;
    }

    /// The child says that they have changed.
    pub fn changed(&mut self) {
        self.known = match self.known {
            Known::Asked { pages, .. } => Known::Asked { pages, again: true },
            Known::Nothing | Known::All => Known::Nothing,
        };
    }

    /// Whether the head of a `tools/call` says what its arguments say.
    ///
    /// # Errors
    /// How they differ.
    pub fn check(&self, call: &Request, params: &MirroredParams) -> Result<(), &'static str> {
        if self.params.is_empty() {
            return Ok(()); // as for nearly all servers
        }
        let text = call.params().map_or("{}", |span| slice(call.text(), span));
        let [name, arguments] = values_of(text, ["name", "arguments"]);
        let part = |span| text.get(span);
        let name = name.and_then(part).map_or_else(Default::default, unquote);
        self.params.check(&name, arguments.and_then(part), params)
    }
}

/// See [`Mirrored::params`](super::front::Mirrored::params).
pub type MirroredParams = [(Box<str>, Box<[u8]>)];

/// The member of the parameters of a `tools/list` that asks for the page with this cursor.
pub fn page_member(cursor: &str) -> String {
    format!("\"cursor\":{}", serde_json::Value::from(cursor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::parsed_request;

    const CALL: &str =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":"1"}}}"#;

    fn page(name: &str, next: &str) -> String {
        format!(
            r#"{{"tools":[{{"name":"{name}","inputSchema":{{"type":"object","properties":{{"x":{{"type":"string","x-mcp-header":"X"}}}}}}}}]{next}}}"#
        )
    }

    fn is_refused(tools: &Tools<u8>) -> bool {
        tools.check(&parsed_request(CALL), &[]).is_err()
    }

    #[test]
    fn the_child_is_asked_page_after_page_while_a_call_waits_and_then_they_are_known() {
        let mut tools = Tools::default();
        assert!(!tools.begin(), "nobody wants to know");
        tools.hold(1);
        assert!(tools.begin() && !tools.begin());
        assert_eq!(tools.page(Some(&page("b", r#","nextCursor":"2""#))), Some("2".to_owned()));
        assert!(!tools.are_known());
        assert_eq!(tools.page(Some(&page("a", ""))), None);
        assert!(tools.are_known() && is_refused(&tools));
        assert_eq!((tools.take(|_| true), tools.held().len()), (vec![1], 0));
    }

    #[test]
    fn tools_that_have_changed_are_asked_for_again_with_the_next_call_and_what_was_known_is_forgotten() {
        let mut tools = Tools::default();
        tools.hold(1);
        tools.begin();
        tools.page(Some(&page("a", "")));
        tools.changed();
        assert!(!tools.are_known() && tools.begin());
        tools.changed(); // while they are being read: what comes may be the old list
        tools.page(Some(&page("b", "")));
        assert!(!tools.are_known() && !is_refused(&tools));
    }

    #[test]
    fn pages_without_end_are_read_so_far_and_no_answer_is_an_answer() {
        let mut tools = Tools::default();
        tools.hold(1);
        tools.begin();
        let endless = page("a", r#","nextCursor":"x""#);
        assert_eq!((0..1000).take_while(|_| tools.page(Some(&endless)).is_some()).count(), MAX_PAGES);
        assert!(tools.are_known() && is_refused(&tools));
        tools.changed();
        tools.begin();
        assert_eq!(tools.page(None), None);
        assert!(tools.are_known() && !is_refused(&tools), "what is not known is not compared");
        tools.are_none();
        assert!(tools.are_known());
    }
}
