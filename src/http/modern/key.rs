//! Who shares a server: what names the session of a request that has none, by what the operator has said.

use std::ffi::OsString;

use hyper::header::HeaderName;

use crate::http::head::{self, Head};
use crate::http::keyed::{SessionKey, Share, key_value};
use crate::http::problem::Problem;
use crate::proto::version::Era;
use crate::secret::Digest;
use crate::session::Clients;

/// What the operator has said of it.
#[derive(Debug)]
pub(in crate::http) struct Sharing {
    pub(in crate::http) share: Share,
    pub(in crate::http) session_key: Option<SessionKey>,
}

/// Who shares a server with the client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Whoever has the same key: one principal.
    Own,
    /// Others, as the operator has said.
    Strangers,
    /// Nobody has said who. A server that can open sessions is not shared then; another one is by its own word.
    Unsaid,
}

impl Company {
    /// The clients of a session over a server of this era; `None`: they are not served.
    pub(super) fn clients(self, era: Era) -> Option<Clients> {
        let strangers = self != Self::Own;
        match (era, self) {
            (Era::Legacy, Self::Unsaid) => None,
            (Era::Legacy, _) => Some(Clients::Upgraded { strangers }),
            (Era::Modern, _) => Some(Clients::Modern { strangers }),
        }
    }
}

/// The key of a request, and what the server of its session gets from the request's headers.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) digest: Digest,
    pub(super) company: Company,
    /// The only caller to whom the session belongs; `None` where callers share it.
    pub(super) owner: Option<Digest>,
    pub(super) environment: Vec<(OsString, OsString)>,
}

impl Sharing {
    /// The key of a request.
    ///
    /// # Errors
    /// [`Problem::HeaderTwice`], or [`Problem::Header`].
    pub(super) fn key(
        &self,
        head: &Head<'_>,
        env_from_header: &[(String, HeaderName)],
    ) -> Result<Key, Problem> {
        let caller = head.caller;
        // Whose token it is counts only where it says who shares.
        let (mode, company, value, owner): (_, _, &[u8], _) = match (self.share, &self.session_key) {
            (Share::All, _) => ("all", Company::Strangers, b"", None),
            (_, Some(SessionKey::Shared)) => ("shared", Company::Strangers, b"", caller),
            (_, Some(SessionKey::Header(name))) => match key_value(head.headers, name)? {
                Some(value) => ("header", Company::Own, value, caller),
                None => ("none", Company::Unsaid, b"", None),
            },
            (Share::Key, None) if caller.is_some() => ("caller", Company::Own, b"", caller),
            (Share::Key | Share::None, None) => ("none", Company::Unsaid, b"", None),
        };
        let environment = head::environment(head.headers, env_from_header)?;
        let variables =
            environment.iter().flat_map(|(name, value)| [name, value]).map(|text| text.as_encoded_bytes());
        let whose = owner.as_ref().map_or(b"".as_slice(), |owner| owner.as_bytes());
        let parts = [b"2026-07-28", mode.as_bytes(), value, whose];
        let digest = Digest::of_all(parts.into_iter().chain(variables));
        Ok(Key { digest, company, owner, environment })
    }

    /// Who shares a server with a request whose head is not looked at: it lacks a header that all must have, and is taken
    /// for one that has the key.
    pub(super) fn company(&self, caller: Option<Digest>) -> Company {
        match (self.share, &self.session_key) {
            (Share::All, _) | (_, Some(SessionKey::Shared)) => Company::Strangers,
            (_, Some(SessionKey::Header(_))) => Company::Own,
            (Share::Key, None) if caller.is_some() => Company::Own,
            (Share::Key | Share::None, None) => Company::Unsaid,
        }
    }
}
