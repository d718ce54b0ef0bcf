//! Requests that carry no `Mcp-Session-Id` and have a session all the same.

use std::ffi::OsString;

use hyper::header::{HeaderMap, HeaderName};

use super::guard::{self, MCP_PROTOCOL_VERSION};
use super::reply::Problem;
use super::{Asking, Http, Refused, no_session};
use crate::proto::front::Takes;
use crate::proto::link::own_initialize;
use crate::proto::message::Message;
use crate::proto::version::Revision;
use crate::secret::Digest;
use crate::session::Session;
use crate::sessions::Opening;

/// What names the session of a request that carries no `Mcp-Session-Id`.
#[derive(Clone, Debug)]
pub enum SessionKey {
    /// The value of this header.
    Header(HeaderName),
    /// Nothing: all such requests have one session.
    Shared,
}

/// The name of a session that has no id for its clients, and what its child gets from them.
pub(super) struct Keyed {
    pub(super) key: Digest,
    environment: Vec<(OsString, OsString)>,
}

impl Keyed {
    /// How the bridge opens the session: in its own name, as a client that can do nothing but ask, and with the revision
    /// that its first client speaks.
    fn opening(&self, headers: &HeaderMap, first: &Message, owner: Option<Digest>) -> Opening {
        let wanted = first.param(&["protocolVersion"]).and_then(|span| first.text().get(span));
        let wanted = wanted.and_then(|token| std::str::from_utf8(token).ok());
        let wanted = wanted.filter(|_| first.method() == "initialize").map(|text| text.trim_matches('"'));
        let header = headers.get(MCP_PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
        let revision = wanted.or(header).and_then(Revision::parse).filter(|revision| !revision.modern());
        let initialize = own_initialize(revision.unwrap_or(Revision::R2025_11_25));
        let environment = self.environment.clone();
        Opening { initialize, takes: Takes::AnswerOnly, owner, environment }
    }
}

impl Http {
    /// What names the session of a request that carries no id.
    ///
    /// # Errors
    /// [`Problem::Header`].
    pub(super) fn keyed(&self, asking: &Asking<'_>) -> Result<Option<Keyed>, Problem> {
        let headers = &asking.parts.headers;
        let value = match &self.config.session_key {
            None => return Ok(None),
            Some(SessionKey::Shared) => None,
            Some(SessionKey::Header(name)) => {
                let mut values = headers.get_all(name).iter();
                let Some(value) = values.next() else { return Ok(None) };
                if values.next().is_some() {
                    return Err(Problem::Header("the header that names the session occurs twice"));
                }
                Some(value.as_bytes())
            }
        };
        let environment = guard::environment(headers, &self.config.env_from_header)?;
        // Whoever comes with another token or another value for the child's environment is somebody else.
        let caller = asking.caller.as_ref().map(Digest::as_bytes);
        let variables =
            environment.iter().flat_map(|(name, value)| [name, value]).map(|text| text.as_encoded_bytes());
        let key = Digest::of_all(
            [value.unwrap_or_default(), caller.unwrap_or_default()].into_iter().chain(variables),
        );
        Ok(Some(Keyed { key, environment }))
    }

    /// The session of this key, opened by the bridge if need be; `first` is the request that wants it.
    ///
    /// # Errors
    /// The refusal.
    pub(super) async fn open_keyed(
        &self,
        keyed: &Keyed,
        asking: &Asking<'_>,
        first: &Message,
    ) -> Result<Session, Refused> {
        let opening = keyed.opening(&asking.parts.headers, first, asking.caller);
        let opened = self.sessions.keyed(keyed.key, opening).await;
        opened.map_err(|error| (no_session(&error), first.id().cloned()))
    }
}
