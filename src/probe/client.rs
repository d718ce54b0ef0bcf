//! A client that opens one session, or discovers a server that has none, and lists the tools, without I/O: lines in,
//! bytes for stdin out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde_json::Value;

use super::Config;
use super::report::{Failure, Question, Server, Stray, Tools, Why, clipped};
use crate::first_words::FirstWords;
use crate::proto::incoming::{Found, Incoming, LongLine};
use crate::proto::json::{elements, is_array, value_at};
use crate::proto::line::Frame;
use crate::proto::link::{
    Answered, Expired, Limits, Link, Outgoing, Untaken, own_discover, own_initialize, own_modern, own_reply,
};
use crate::proto::message::{self, Head, Kind, Request, peek_head};
use crate::proto::nearly::{Part, beginning, look};
use crate::proto::output::{Handshake, Out};
use crate::proto::version::{Era, Revision};

/// Bytes of replies that may wait for a server that asks and does not read.
const MAX_UNREAD_REPLIES: usize = 1024 * 1024;

/// The most pages of tools that are asked for.
const MAX_PAGES: usize = 100;

/// How many tools are kept by name.
const MAX_NAMES: usize = 50;

/// How many capabilities are kept, and how many of the things that one of them can do.
const MAX_CAPABILITIES: usize = 20;

/// How many of the versions that a server supports are kept.
const MAX_VERSIONS: usize = 8;

/// Who a server is, in `_meta` of its results (2026-07-28 `basic`).
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// A session with one server, and what has been learnt in it.
pub(super) struct Client {
    era: Era,
    limits: Limits,
    max_message: usize,
    link: Link<()>,
    out: Out,
    asked: Question,
    /// When the first page of tools was asked for, and how many have come.
    listing_since: Duration,
    pages: usize,
    pub(super) server: Option<Server>,
    pub(super) tools: Option<Tools>,
    pub(super) stray: Stray,
    first_words: Arc<FirstWords>,
    /// Whether the line that is being looked at ended with CR LF.
    crlf: bool,
    /// How it has ended, once it has.
    pub(super) end: Option<Result<(), Failure>>,
}

impl Client {
    /// Begins with `initialize`, in the name of the newest revision that has one, or with `server/discover`.
    pub(super) fn open(era: Era, config: &Config, first_words: Arc<FirstWords>) -> Self {
        let mut out = Out::default();
        let (first, asked) = match era {
            Era::Legacy => (own_initialize(Revision::R2025_11_25), Question::Initialize),
            Era::Modern => (own_discover(), Question::Discover),
        };
        Self {
            era,
            link: Link::open(config.limits.clone(), &first, true, Duration::ZERO, &mut out),
            limits: config.limits.clone(),
            max_message: config.max_message,
            out,
            asked,
            listing_since: Duration::ZERO,
            pages: 0,
            server: None,
            tools: None,
            stray: Stray::default(),
            first_words,
            crlf: false,
            end: None,
        }
    }

    pub(super) fn max_message(&self) -> usize {
        self.max_message
    }

    /// What is on its way to the server.
    pub(super) fn stdin(&self) -> &[u8] {
        &self.out.stdin
    }

    /// So many bytes of [`stdin`](Self::stdin) have been written.
    pub(super) fn written(&mut self, count: usize) {
        self.out.stdin.advance(count);
        self.out.left(count);
    }

    /// Whether so much waits that answers the server's own requests that it is not to be read.
    pub(super) fn is_full(&self) -> bool {
        self.out.unread_replies() > MAX_UNREAD_REPLIES
    }

    /// When the server must have answered.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.link.next_deadline()
    }

    /// Ends it, if it has not ended.
    pub(super) fn fail(&mut self, why: Why) {
        let asked = self.asked;
        self.end.get_or_insert(Err(Failure { asked, why }));
    }

    /// Takes what the server wrote.
    pub(super) fn frame(&mut self, frame: Frame<'_>, now: Duration) {
        match frame {
            Frame::Line(line) => {
                self.crlf = line.crlf();
                self.line(line.bytes().into(), now);
            }
            Frame::Long(line) => {
                self.crlf = line.ends_with(b"\r");
                self.line(line, now);
            }
            Frame::TooLong { head, .. } => self.too_long(head),
        }
        self.forget_notes();
    }

    fn too_long(&mut self, head: &[u8]) {
        match self.link.too_long(head, &mut self.out) {
            Untaken::Call(..) | Untaken::Handshake | Untaken::Unclear => {
                self.fail(Why::TooLong(self.max_message));
            }
            Untaken::Nothing if peek_head(head) == Head::NoMessage => self.stray(head),
            Untaken::Nothing => {}
        }
    }

    fn line(&mut self, line: BytesMut, now: Duration) {
        let mut line = LongLine::new(line, self.max_message);
        loop {
            match line.step() {
                Found::Pause | Found::Invalid(_) => {}
                Found::Message(message) => self.message(message, now),
                Found::Stray(text) => self.no_message(text, now),
                Found::Noise(text) => return self.no_message(text, now),
                Found::TooLong { head, .. } => return self.too_long(head),
                Found::End => return,
            }
        }
    }

    pub(super) fn expire(&mut self, now: Duration) {
        while let Some(expired) = self.link.expire(now, &mut self.out) {
            self.fail(match expired {
                Expired::Handshake { echoed: true } => Why::Echoed,
                Expired::Handshake { .. } => Why::Silent(self.limits.init_timeout),
                Expired::Call(..) => Why::Silent(self.limits.request_timeout),
            });
        }
        self.forget_notes();
    }

    /// Drops the notes: they are for the log of a session.
    fn forget_notes(&mut self) {
        while self.out.take().is_some() {}
    }

    fn stray(&mut self, line: &[u8]) {
        self.first_words.stdout(line);
        if self.stray.lines == 0 {
            self.stray.first = clipped(&beginning(line));
        }
        self.stray.lines += 1;
    }

    /// Takes what is in a line that is no message, as a session does.
    fn no_message(&mut self, line: &[u8], now: Duration) {
        let text = beginning(line);
        for part in look(&text).parts {
            match part {
                Part::Message { message, quoted } => {
                    if !quoted || self.link.awaits(&message) {
                        self.message(message, now);
                    }
                }
                Part::Broken(broken) => match self.link.broken(&broken) {
                    Untaken::Call(..) | Untaken::Handshake => self.fail(Why::Invalid(broken.wrong)),
                    Untaken::Nothing | Untaken::Unclear => {}
                },
            }
        }
        self.stray(line);
    }

    fn message(&mut self, mut message: Incoming<'_>, now: Duration) {
        message.crlf = self.crlf;
        let message = &message;
        if self.link.echoes(message, now, &mut self.out) {
            return;
        }
        let (kind, text) = (message.envelope.kind, std::str::from_utf8(message.text()).unwrap_or_default());
        let success = kind == Kind::Success;
        match kind {
            Kind::Notification => {}
            Kind::Request => own_reply(message, &mut self.out),
            Kind::Success | Kind::Failure => match self.link.answer(message, now, &mut self.out) {
                Answered::Handshake(Handshake::Done(protocol)) => self.opened(text, protocol, now),
                Answered::Handshake(_) => self.fail(refusal(text)),
                Answered::Call { .. } if success => self.page(text, now),
                Answered::Call { .. } => match refusal(text) {
                    Why::Refused { code, .. } if code == "-32601" => self.listed(Tools::MethodNotFound),
                    why => self.fail(why),
                },
                Answered::Retried { .. } | Answered::Nothing => {}
            },
        }
    }

    /// The server has answered `initialize` or `server/discover`.
    fn opened(&mut self, text: &str, protocol: Option<Box<str>>, now: Duration) {
        let (info, protocol): (&[&str], _) = match self.era {
            Era::Legacy => (&["result", "serverInfo"], protocol.map(|protocol| clipped(&protocol))),
            Era::Modern => (&["result", "_meta", SERVER_INFO], versions(text)),
        };
        let info = |name| string(text, &[info, &[name]].concat()).unwrap_or_default();
        let capabilities = token(text, &["result", "capabilities"]).unwrap_or_default();
        self.server = Some(Server {
            answered: self.asked,
            answered_after: now,
            name: info("name"),
            version: info("version"),
            protocol,
            capabilities: in_words(capabilities),
        });
        if value_at(capabilities, &["tools"]).is_none() {
            return self.listed(Tools::NotDeclared);
        }
        self.asked = Question::ListTools;
        self.listing_since = now;
        self.list(None, now);
    }

    /// Asks for the first page of tools, or for that behind this cursor.
    fn list(&mut self, cursor: Option<&str>, now: Duration) {
        let member = cursor.map(|cursor| format!(r#""cursor":{cursor}"#)).unwrap_or_default();
        let request = match self.era {
            Era::Legacy => Request::own("tools/list", &format!("{{{member}}}")),
            Era::Modern if cursor.is_none() => own_modern("tools/list", ""),
            Era::Modern => own_modern("tools/list", &format!(",{member}")),
        };
        let request = Outgoing { request, token: None };
        // All pages together have the time of one request.
        self.link.request((), request, self.listing_since, now, &mut self.out);
    }

    /// The server has sent a page of tools.
    fn page(&mut self, text: &str, now: Duration) {
        let Some(page) = token(text, &["result", "tools"]).filter(|page| is_array(page.as_bytes())) else {
            return self.fail(Why::NoArray);
        };
        let (mut count, mut names) = match self.tools.take() {
            Some(Tools::Listed { count, names }) => (count, names),
            _ => (0, Vec::new()),
        };
        for tool in elements(page).flatten() {
            count += 1;
            if names.len() < MAX_NAMES {
                names.push(string(tool, &["name"]).unwrap_or_default());
            }
        }
        let tools = Tools::Listed { count, names };
        self.pages += 1;
        // The absent one is the end; null and the empty string are what servers send in its place.
        let cursor =
            token(text, &["result", "nextCursor"]).filter(|cursor| !matches!(*cursor, "null" | r#""""#));
        match cursor {
            None => self.listed(tools),
            Some(_) if self.pages == MAX_PAGES => {
                self.tools = Some(tools);
                self.fail(Why::Endless(MAX_PAGES));
            }
            Some(cursor) => {
                self.tools = Some(tools);
                self.list(Some(cursor), now);
            }
        }
    }

    /// The list of tools is complete, or there is none.
    fn listed(&mut self, tools: Tools) {
        self.tools = Some(tools);
        self.end.get_or_insert(Ok(()));
    }
}

/// The value at `path`, as it stands in the text.
fn token<'t>(text: &'t str, path: &[&str]) -> Option<&'t str> {
    text.get(value_at(text, path)?)
}

/// The versions that an answer to `server/discover` names, a few at most.
fn versions(text: &str) -> Option<String> {
    let versions =
        token(text, &["result", "supportedVersions"]).filter(|token| is_array(token.as_bytes()))?;
    let versions =
        elements(versions).flatten().filter_map(|token| serde_json::from_str::<String>(token).ok());
    let versions: Vec<_> = versions.take(MAX_VERSIONS).map(|version| clipped(&version)).collect();
    (!versions.is_empty()).then(|| versions.join(", "))
}

/// The string at `path`.
fn string(text: &str, path: &[&str]) -> Option<String> {
    let string = serde_json::from_str::<String>(token(text, path)?).ok()?;
    Some(clipped(&string))
}

fn refusal(text: &str) -> Why {
    let (code, message) = message::refusal(text);
    Why::Refused { code: code.to_owned(), message: clipped(&message) }
}

/// Each capability, with what is true of it: `resources (listChanged, subscribe)`.
fn in_words(capabilities: &str) -> Vec<String> {
    let capabilities: BTreeMap<String, Value> = serde_json::from_str(capabilities).unwrap_or_default();
    let in_words = |(name, can): (&String, &Value)| {
        let can = can.as_object().into_iter().flatten().filter(|(_, can)| **can != Value::Bool(false));
        let can: Vec<_> = can.take(MAX_CAPABILITIES).map(|(name, _)| clipped(name)).collect();
        let name = clipped(name);
        if can.is_empty() { name } else { format!("{name} ({})", can.join(", ")) }
    };
    capabilities.iter().take(MAX_CAPABILITIES).map(in_words).collect()
}

#[cfg(test)]
mod tests;
