//! Who shares a server, by what the operator has said: what names the server that sessions share, and the session of a
//! request that has none.

use std::ffi::OsString;

use hyper::header::HeaderName;

use super::head::{self, Head};
use super::keyed::{SessionKey, Share, key_value};
use super::problem::Problem;
use crate::proto::version::Era;
use crate::secret::Digest;
use crate::session::Clients;

/// What the operator has said of it.
#[derive(Clone, Debug)]
pub(super) struct Sharing {
    pub(super) share: Share,
    pub(super) session_key: Option<SessionKey>,
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
    /// Whether its clients are served by such a server: [`Era::Legacy`] if it can open sessions.
    pub(super) fn is_served(self, server: Era) -> bool {
        server == Era::Modern || self != Self::Unsaid
    }

    /// The clients of a session whose child is opened in this era.
    pub(super) fn clients(self, child: Era) -> Clients {
        let strangers = self != Self::Own;
        match child {
            Era::Legacy => Clients::Upgraded { strangers },
            Era::Modern => Clients::Modern { strangers },
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

impl Key {
    /// What names the session of its clients of 2026-07-28 where that is not the server's own, but on a lane of it.
    pub(super) fn on_lane(&self) -> Digest {
        Digest::of_all([b"2026-07-28".as_slice(), b"lane", self.digest.as_bytes()])
    }
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

    /// The header whose value is the key, where there is one.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match &self.session_key {
            Some(SessionKey::Header(name)) => Some(name),
            Some(SessionKey::Shared) | None => None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Version;
    use hyper::header::{HeaderMap, HeaderValue};
    use tokio::time::Instant;

    const ADA: &str = "x-user: ada";

    fn sharing(share: Share, session_key: Option<&str>) -> Sharing {
        let session_key = session_key.map(|name| match HeaderName::try_from(name) {
            Ok(name) if name != "shared" => SessionKey::Header(name),
            _ => SessionKey::Shared,
        });
        Sharing { share, session_key }
    }

    /// The key of a request with these headers, of this caller. `X-Tenant` becomes a variable.
    fn key(sharing: &Sharing, list: &[&str], caller: Option<&str>) -> Key {
        let mut headers = HeaderMap::new();
        for (name, value) in list.iter().filter_map(|header| header.split_once(": ")) {
            let name = HeaderName::try_from(name).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let caller = caller.map(|token| Digest::of(token.as_bytes()));
        let head = Head {
            headers: &headers,
            version: Version::HTTP_11,
            query: None,
            caller,
            arrived: Instant::now(),
        };
        let wanted = [("TENANT".to_owned(), HeaderName::from_static("x-tenant"))];
        sharing.key(&head, &wanted).expect("a key")
    }

    #[test]
    fn who_is_served_and_with_whom() {
        use Company::{Own, Strangers, Unsaid};
        type Row<'r> = (Share, Option<&'r str>, &'r [&'r str], Option<&'r str>, Company);
        let table: [Row<'_>; 13] = [
            (Share::None, None, &[ADA], None, Unsaid),
            (Share::None, None, &[ADA], Some("token"), Unsaid),
            (Share::None, Some("x-user"), &[ADA], None, Own),
            (Share::None, Some("x-user"), &[], None, Unsaid),
            (Share::None, Some("x-user"), &["x-user:  "], Some("token"), Unsaid),
            (Share::None, Some("authorization"), &["authorization: Bearer"], None, Unsaid),
            (Share::None, Some("shared"), &[], None, Strangers),
            (Share::Key, None, &[ADA], Some("token"), Own),
            (Share::Key, None, &[ADA], None, Unsaid),
            (Share::Key, Some("x-user"), &[ADA], None, Own),
            (Share::Key, Some("x-user"), &[], Some("token"), Unsaid),
            (Share::Key, Some("shared"), &[], None, Strangers),
            (Share::All, Some("x-user"), &[ADA], Some("token"), Strangers),
        ];
        for (share, session_key, list, caller, want) in table {
            let key = key(&sharing(share, session_key), list, caller);
            assert_eq!(key.company, want, "{share:?} {session_key:?} {list:?} {caller:?}");
        }
        for company in [Own, Strangers, Unsaid] {
            assert!(company.is_served(Era::Modern), "{company:?}: a server without sessions has all clients");
            assert_eq!(company.is_served(Era::Legacy), company != Unsaid, "{company:?}");
        }
        let table = [
            (Own, Era::Legacy, Clients::Upgraded { strangers: false }),
            (Strangers, Era::Legacy, Clients::Upgraded { strangers: true }),
            (Own, Era::Modern, Clients::Modern { strangers: false }),
            (Strangers, Era::Modern, Clients::Modern { strangers: true }),
            (Unsaid, Era::Modern, Clients::Modern { strangers: true }),
        ];
        for (company, era, want) in table {
            assert_eq!(company.clients(era), want, "{company:?} {era:?}");
        }
    }

    #[test]
    fn a_key_is_anothers_wherever_the_operator_has_not_said_that_they_share() {
        let one = |sharing: &Sharing, list: &[&str], caller| key(sharing, list, caller).digest;
        let tenants = [["x-user: ada", "x-tenant: a"], ["x-user: ada", "x-tenant: b"]];
        for sharing in [
            sharing(Share::All, None),
            sharing(Share::Key, None),
            sharing(Share::None, Some("x-user")),
            sharing(Share::None, Some("shared")),
            sharing(Share::None, None),
        ] {
            let [a, b] = tenants.each_ref().map(|list| one(&sharing, list, Some("token")));
            assert!(a != b, "{sharing:?}: a variable of the server is part of every key");
            assert!(a == one(&sharing, &tenants[0], Some("token")), "{sharing:?}");
        }
        let by_header = sharing(Share::None, Some("x-user"));
        let (ada, grace) = (&[ADA][..], &["x-user: grace"][..]);
        assert!(one(&by_header, ada, None) != one(&by_header, grace, None));
        assert!(one(&by_header, ada, Some("a")) != one(&by_header, ada, Some("b")));
        let by_token = sharing(Share::Key, None);
        assert!(one(&by_token, ada, Some("a")) != one(&by_token, ada, Some("b")));
        assert!(one(&by_token, ada, Some("a")) == one(&by_token, grace, Some("a")));
        let all = sharing(Share::All, Some("x-user"));
        assert!(one(&all, ada, Some("a")) == one(&all, grace, Some("b")));
        assert!(one(&all, ada, None) != one(&by_header, ada, None));
    }

    #[test]
    fn a_session_that_callers_share_is_no_callers_own() {
        let owner = |sharing: &Sharing| key(sharing, &[ADA], Some("token")).owner.is_some();
        assert!(!owner(&sharing(Share::All, None)), "one token that is taken away ends no other's calls");
        assert!(!owner(&sharing(Share::None, None)));
        for own in [sharing(Share::Key, None), sharing(Share::Key, Some("x-user"))] {
            assert!(owner(&own), "{own:?}");
        }
    }

    #[test]
    fn no_key_of_the_other_era_is_one_of_these() {
        let by_header = SessionKey::Header(HeaderName::from_static("x-user"));
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-user"),
            HeaderValue::from_static("2026-07-28"),
        )]);
        let head = Head {
            headers: &headers,
            version: Version::HTTP_11,
            query: None,
            caller: None,
            arrived: Instant::now(),
        };
        let given = Sharing { share: Share::None, session_key: Some(by_header) };
        let legacy = crate::http::keyed::Keyed::of(&given, &head, &[]).expect("fine").expect("a key").key;
        for session_key in ["x-user", "shared"] {
            for share in [Share::None, Share::All] {
                let key = sharing(share, Some(session_key)).key(&head, &[]).expect("a key");
                assert!(key.digest != legacy && key.on_lane() != legacy, "{share:?} {session_key}");
                assert!(key.digest != key.on_lane(), "{share:?} {session_key}");
            }
        }
    }
}
