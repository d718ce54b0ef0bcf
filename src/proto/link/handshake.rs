//! The handshake with a child: how far it has come, and what the bridge says in its own name.

use std::time::Duration;

use super::restore::Effect;
use crate::proto::ids::{BridgeId, Id};
use crate::proto::incoming::Incoming;
use crate::proto::json::{unquote, value_at};
use crate::proto::message::Request;
use crate::proto::output::{Note, Out};
use crate::proto::version::{Era, Revision};

/// The bridge's own `initialize`: that of a client without capabilities.
pub fn own_initialize(revision: Revision) -> Request {
    let params = format!(
        r#"{{"protocolVersion":"{revision}","capabilities":{{}},"clientInfo":{{"name":"mcp-bridge","version":"{}"}}}}"#,
        env!("CARGO_PKG_VERSION"),
    );
    Request::own("initialize", &params)
}

/// The bridge's own `initialize` for a child whose clients are of 2026-07-28, or have sessions of their own. It declares all
/// that such clients can be asked: what each of them declares comes by itself, and what it does not is refused then.
pub fn own_initialize_of_all(revision: Revision) -> Request {
    let params = format!(
        r#"{{"protocolVersion":"{revision}","capabilities":{{"elicitation":{{"form":{{}},"url":{{}}}},"sampling":{{"tools":{{}}}},"roots":{{}}}},"clientInfo":{{"name":"mcp-bridge","version":"{}"}}}}"#,
        env!("CARGO_PKG_VERSION"),
    );
    Request::own("initialize", &params)
}

/// The bridge's own `server/discover`: what a child of 2026-07-28 is asked first, in place of a handshake (2026-07-28
/// `server/discover`).
pub fn own_discover() -> Request {
    own_modern("server/discover", "")
}

/// A request of the bridge's own to a child of 2026-07-28: that of a client without capabilities. `more`: what else is in
/// `params`, a comma before each member.
pub fn own_modern(method: &str, more: &str) -> Request {
    let params = format!(
        r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{}","io.modelcontextprotocol/clientInfo":{{"name":"mcp-bridge","version":"{}"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}{more}}}"#,
        Revision::R2026_07_28,
        env!("CARGO_PKG_VERSION"),
    );
    Request::own(method, &params)
}

/// The revision of the session era that an `initialize` asks for; where it names none that is known, the newest.
pub fn wanted_revision(initialize: &Request) -> Revision {
    // The bridge's own has not been read.
    let text = std::str::from_utf8(initialize.text()).unwrap_or_default();
    let named = value_at(text, &["params", "protocolVersion"]).and_then(|span| text.get(span));
    let named = named.and_then(|token| Revision::parse(&unquote(token)));
    named.filter(|revision| !revision.modern()).unwrap_or(Revision::R2025_11_25)
}

/// The era of a child that is told this first.
pub fn era_of(first: &Request) -> Era {
    if first.method() == "server/discover" { Era::Modern } else { Era::Legacy }
}

/// Answers a request of the child for that client: `ping` gets a result, all else an error.
pub fn own_reply(request: &Incoming<'_>, out: &mut Out) {
    let token = request.envelope.id.clone().map_or("null", |span| request.token(span));
    let (member, what) = if request.envelope.method(request.text()) == "ping" {
        (r#""result":{}"#, "ping")
    } else if Id::parse(token).is_none() {
        let error = r#""error":{"code":-32600,"message":"\"id\" must be a string or an integer"}"#;
        (error, "a request without a usable id")
    } else {
        let error = r#""error":{"code":-32601,"message":"no client of this session serves requests"}"#;
        (error, "a request in a shared session")
    };
    out.reply(token, member, Note::Replied(what));
}

/// The phase of a handshake.
#[derive(Debug)]
pub(super) enum Handshake {
    /// `initialize` has no answer yet.
    Starting {
        /// The `initialize` that the child has; `None` while there is no child.
        asked: Option<Asked>,
        /// The client has said `initialized` already, or the bridge will say it.
        initialized: bool,
    },
    /// The child has answered, and has not been told `initialized`.
    Answered,
    /// The child has been told `initialized`.
    Open,
    /// The child has refused `initialize`, or has not answered in time.
    Failed,
}

/// An `initialize` that the child has not answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: BridgeId,
    /// When the child must have answered.
    pub(super) deadline: Duration,
    /// What is remembered of it if it succeeds.
    pub(super) effect: Option<Box<Effect>>,
    /// Whether the child has written it back.
    pub(super) echoed: bool,
}

impl Handshake {
    /// With a child that comes in the place of another: there is no client that could say `initialized`.
    pub(super) const AGAIN: Self = Self::Starting { asked: None, initialized: true };

    /// The `initialize` that the child has not answered.
    pub(super) fn asked(&self) -> Option<&Asked> {
        match self {
            Self::Starting { asked, .. } => asked.as_ref(),
            _ => None,
        }
    }

    /// Whether messages must wait for it.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self, Self::Starting { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_that_an_initialize_asks_for_is_one_of_the_session_era() {
        for (named, wanted) in [
            (r#""2024-11-05""#, "2024-11-05"),
            (r#""2025\u002d06-18""#, "2025-06-18"),
            (r#""2026-07-28""#, "2025-11-25"),
            (r#""1.0""#, "2025-11-25"),
            ("7", "2025-11-25"),
        ] {
            let initialize = Request::own("initialize", &format!(r#"{{"protocolVersion":{named}}}"#));
            assert_eq!(wanted_revision(&initialize).as_str(), wanted, "{named}");
        }
    }
}
