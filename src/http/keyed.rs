//! Requests that carry no `Mcp-Session-Id` and have a session all the same: a key names it.

use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::head::{self, Head, Kept};
use super::opening::{Place, not_started};
use super::problem::Problem;
use super::response::Rejection;
use super::sharing::Sharing;
use crate::proto::link::{own_initialize, wanted_revision};
use crate::proto::message::Message;
use crate::proto::version::{Era, Revision};
use crate::secret::Digest;
use crate::session::{Clients, Session};
use crate::sessions::{Opening, Sessions};

/// What names the session of a request that carries no `Mcp-Session-Id`.
#[derive(Clone, Debug)]
pub enum SessionKey {
    Header(HeaderName),
    /// Nothing: all such requests have one session.
    Shared,
}

/// Which clients share a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// None of them: those of 2026-07-28 are not served where the server can open sessions.
    None,
    /// Those of the same key: the session key where one is configured, and else the caller's token.
    Key,
    All,
}

/// Whether this is nothing but the name of a usual scheme of `Authorization` (RFC 9110 §11.6.2).
fn is_scheme(value: &[u8]) -> bool {
    ["Bearer", "Basic", "Token", "ApiKey"].iter().any(|scheme| value.eq_ignore_ascii_case(scheme.as_bytes()))
}

/// What the header of a key names; `None` where it is absent or has no value: all clients of a program in front that blanks
/// it would have one session.
///
/// # Errors
/// [`Problem::HeaderTwice`].
pub(super) fn key_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, Problem> {
    let value = head::filled(headers, name)?.map(HeaderValue::as_bytes);
    // A scheme, and credentials that were blanked.
    Ok(value.filter(|value| *name != AUTHORIZATION || !is_scheme(value.trim_ascii())))
}

/// The key of one request, and what the child of its session gets from the request's headers.
pub(super) struct Keyed {
    pub(super) key: Digest,
    /// Where its session is opened, or one with an id.
    pub(super) place: Place,
}

impl Keyed {
    /// The key of a request; `None` where its header names none, or no key is configured.
    ///
    /// # Errors
    /// [`Problem::HeaderTwice`], or [`Problem::Header`].
    pub(super) fn of(
        sharing: &Sharing,
        head: &Head<'_>,
        env_from_header: &[(String, HeaderName)],
    ) -> Result<Option<Self>, Problem> {
        let value = match &sharing.session_key {
            None => return Ok(None),
            Some(SessionKey::Shared) => None,
            Some(SessionKey::Header(name)) => match key_value(head.headers, name)? {
                Some(value) => Some(value),
                None => return Ok(None),
            },
        };
        let place = Place::of(sharing, head, env_from_header)?;
        // A different token or environment value makes a different session.
        let caller = head.caller.as_ref().map(|caller| caller.as_bytes().as_slice());
        let variables = place
            .environment
            .iter()
            .flat_map(|(name, value)| [name, value])
            .map(|text| text.as_encoded_bytes());
        let key = Digest::of_all(
            [value.unwrap_or_default(), caller.unwrap_or_default()].into_iter().chain(variables),
        );
        Ok(Some(Self { key, place }))
    }

    /// The session of this key, opened by the bridge if need be; `first` is the request that wants it.
    pub(super) async fn open(
        &self,
        sessions: &Arc<Sessions>,
        head: &Kept,
        first: &Message,
    ) -> Result<Session, Rejection> {
        let opened = sessions.keyed(self.key, self.opening(head, first), Clients::Keyed).await;
        opened.map_err(|error| not_started(&error).about(first.id()))
    }

    /// How the bridge opens the session: in its own name, as a client without capabilities, and with the revision that its
    /// first client speaks.
    fn opening(&self, head: &Kept, first: &Message) -> Opening {
        let initialize = first.request().filter(|request| request.method() == "initialize");
        let wanted = match (initialize, head.revision()) {
            (Some(initialize), _) if initialize.subject().is_some() => wanted_revision(initialize),
            (_, Some(revision)) if !revision.modern() => revision,
            _ => Revision::R2025_11_25,
        };
        let Place { server, environment } = self.place.clone();
        // Nobody translates for its clients: they cannot be told apart.
        Opening { server, ..Opening::own(own_initialize(wanted), head.caller, environment, Era::Legacy) }
    }
}
