//! What a request's head asks for: pure functions over its fields.

use std::ffi::OsString;

use hyper::Version;
use hyper::header::{ACCEPT, HeaderMap, HeaderName};
use tokio::time::Instant;

use super::problem::Problem;
use crate::proto::front::Takes;
use crate::proto::ids::{EventId, SessionId};
use crate::proto::version::Revision;
use crate::secret::Digest;

/// `Mcp-Session-Id` (2025-03-26 `basic/transports`, "Session Management").
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// `MCP-Protocol-Version` (2025-06-18 `basic/transports`).
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// `Last-Event-ID` (HTML, "Server-sent events").
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A request's head that has passed the guard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'r> {
    pub(super) headers: &'r HeaderMap,
    pub(super) version: Version,
    /// The query of the request target.
    pub(super) query: Option<&'r str>,
    /// The digest of its token; `None` where no token is asked for.
    pub(super) caller: Option<Digest>,
    /// When it had been read: from then on the request has its deadline.
    pub(super) arrived: Instant,
}

impl Head<'_> {
    /// What the request needs of it from now on.
    pub(super) fn keep(&self) -> Kept {
        Kept {
            caller: self.caller,
            arrived: self.arrived,
            is_h2: self.version == Version::HTTP_2,
            versions: Versions::of(self.headers),
        }
    }
}

/// What is kept of a head while its request waits: for its body, for a session, for the answer. The head itself may have
/// 64 KiB, and many requests may wait.
#[derive(Debug)]
pub(super) struct Kept {
    /// See [`Head::caller`].
    pub(super) caller: Option<Digest>,
    /// See [`Head::arrived`].
    pub(super) arrived: Instant,
    /// Whether it came over HTTP/2.
    pub(super) is_h2: bool,
    pub(super) versions: Versions,
}

impl Kept {
    /// The known revision that `MCP-Protocol-Version` names.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.versions.known
    }
}

/// How much of an unknown revision is kept, in bytes. What a child may have negotiated is shorter.
const MAX_VERSION: usize = 128;

/// What `MCP-Protocol-Version` says.
#[derive(Debug, Default)]
pub struct Versions {
    /// The first revision, if it is known.
    known: Option<Revision>,
    /// Those that are not known; two of them, because two cannot both be the negotiated one.
    unknown: Vec<Box<str>>,
}

impl Versions {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut versions = Self::default();
        for (place, value) in headers.get_all(MCP_PROTOCOL_VERSION).iter().enumerate() {
            let value = value.as_bytes();
            let text = String::from_utf8_lossy(value.get(..MAX_VERSION).unwrap_or(value));
            match Revision::parse(&text) {
                Some(revision) if place == 0 => versions.known = Some(revision),
                Some(_) => {}
                None if versions.unknown.len() < 2
                    && !versions.unknown.iter().any(|known| **known == *text) =>
                {
                    versions.unknown.push(text.into());
                }
                None => {}
            }
        }
        versions
    }

    /// Checks them within a session: any known revision, or what the child negotiated. Clients are known to send
    /// another than the negotiated one.
    ///
    /// # Errors
    /// [`Problem::Version`].
    pub fn check(&self, negotiated: Option<&str>) -> Result<(), Problem> {
        match self.unknown.iter().find(|version| negotiated != Some(&***version)) {
            Some(version) => Err(Problem::Version(version.to_string())),
            None => Ok(()),
        }
    }
}

/// The longest value that a header may give to a child, in bytes.
const MAX_FROM_HEADER: usize = 8 * 1024;

/// The variables that a child gets from the headers of its client's `initialize`. A header that is not there is a
/// variable that is not set.
///
/// # Errors
/// [`Problem::Header`], where a value is too long, occurs twice or is no text.
pub fn environment(
    headers: &HeaderMap,
    wanted: &[(String, HeaderName)],
) -> Result<Vec<(OsString, OsString)>, Problem> {
    let mut environment = Vec::new();
    for (variable, header) in wanted {
        let mut values = headers.get_all(header).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_some() {
            return Err(Problem::Header("a header that becomes a variable of the server occurs twice"));
        }
        // What begins like a shell function is run by an old bash (CVE-2014-6271).
        let harmless =
            |text: &&str| text.len() <= MAX_FROM_HEADER && !text.contains('\t') && !text.starts_with("()");
        let text = value.to_str().ok().filter(harmless);
        let Some(text) = text else {
            let why = "a header that becomes a variable of the server is longer than 8 KiB or has other than visible characters";
            return Err(Problem::Header(why));
        };
        environment.push((variable.into(), text.into()));
    }
    Ok(environment)
}

/// Which forms of an answer the client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    pub json: bool,
    pub stream: bool,
}

impl Accepts {
    /// What the stream of an answer may carry.
    pub fn takes(self) -> Takes {
        if self.stream { Takes::Events } else { Takes::AnswerOnly }
    }
}

/// Reads `Accept` (RFC 9110 §12.5.1): of the ranges that match a form the most specific one counts, and among equals the
/// last. No `Accept` at all means anything.
pub fn accepts(headers: &HeaderMap) -> Accepts {
    if !headers.contains_key(ACCEPT) {
        return Accepts { json: true, stream: true };
    }
    let (mut json, mut stream) = (Preference::default(), Preference::default());
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parameters = range.split(';').map(str::trim);
        let Some((kind, subtype)) = parameters.next().and_then(|range| range.split_once('/')) else {
            continue;
        };
        let refused = parameters
            .filter_map(|parameter| parameter.split_once('='))
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .any(|(_, weight)| weight.trim().parse().is_ok_and(|weight: f32| weight <= 0.0));
        json.see(specificity((kind, subtype), ("application", "json")), !refused);
        stream.see(specificity((kind, subtype), ("text", "event-stream")), !refused);
    }
    Accepts { json: json.wanted, stream: stream.wanted }
}

/// What the ranges seen so far say of one form.
#[derive(Default)]
struct Preference {
    specificity: Option<u8>,
    wanted: bool,
}

impl Preference {
    fn see(&mut self, specificity: Option<u8>, wanted: bool) {
        if specificity.is_some() && specificity >= self.specificity {
            *self = Self { specificity, wanted };
        }
    }
}

/// How closely a range names a media type; `None` where it does not match.
fn specificity(range: (&str, &str), media_type: (&str, &str)) -> Option<u8> {
    let same = |left: &str, right: &str| left.eq_ignore_ascii_case(right);
    match (same(range.0, media_type.0), same(range.1, media_type.1)) {
        (true, true) => Some(2),
        (true, false) if range.1 == "*" => Some(1),
        _ if range == ("*", "*") => Some(0),
        _ => None,
    }
}

/// Which session a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// None.
    None,
    /// One that cannot be ours: no id of this bridge has this form.
    Impossible,
    Id(SessionId),
}

/// The session that a request names.
///
/// # Errors
/// [`Problem::SessionHeader`] for what is no session id at all (spec: visible ASCII only), or two of them.
pub fn session(headers: &HeaderMap) -> Result<Named, Problem> {
    let mut values = headers.get_all(MCP_SESSION_ID).iter();
    let Some(value) = values.next() else { return Ok(Named::None) };
    if values.next().is_some() {
        return Err(Problem::SessionHeader("occurs twice"));
    }
    let visible = |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    let Some(value) = value.to_str().ok().filter(visible) else {
        return Err(Problem::SessionHeader("must be one or more visible ASCII characters"));
    };
    // Another server's id is well-formed too: its client must get 404 to begin anew.
    Ok(SessionId::parse(value).map_or(Named::Impossible, Named::Id))
}

/// The event behind which a GET resumes.
///
/// # Errors
/// [`Problem::NoReplay`] for what is no event id of ours.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<EventId>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    value.to_str().ok().and_then(EventId::parse).map(Some).ok_or(Problem::NoReplay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder();
        for (name, value) in list {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0.headers
    }

    #[test]
    fn accept_is_read_as_media_ranges() {
        let table = [
            (&[][..], (true, true)),
            (&["application/json, text/event-stream"], (true, true)),
            (&["text/event-stream,application/json;q=0.1"], (true, true)),
            (&["*/*"], (true, true)),
            (&["application/json"], (true, false)),
            (&["Application/JSON; charset=utf-8"], (true, false)),
            (&["text/event-stream"], (false, true)),
            (&["text/*"], (false, true)),
            (&["application/*", "text/event-stream"], (true, true)),
            (&["*/*, text/event-stream;q=0"], (true, false)),
            (&["text/event-stream;q=0, */*"], (true, false)),
            (&["application/json;q=0.0"], (false, false)),
            (&["text/html"], (false, false)),
            (&["application/jsonx"], (false, false)),
            (&[""], (false, false)),
        ];
        for (values, (json, stream)) in table {
            let list: Vec<_> = values.iter().map(|value| ("accept", *value)).collect();
            assert_eq!(accepts(&headers(&list)), Accepts { json, stream }, "{values:?}");
        }
    }

    #[test]
    fn a_foreign_session_id_is_well_formed_and_an_impossible_one_is_not() {
        let read = |value: &str| session(&headers(&[("mcp-session-id", value)]));
        assert!(matches!(read(&"a".repeat(48)), Ok(Named::Id(_))));
        assert!(matches!(read("some_other.server's~id"), Ok(Named::Impossible)), "its client must get 404");
        assert!(matches!(read(&"a".repeat(10_000)), Ok(Named::Impossible)));
        assert!(matches!(read("a b"), Err(Problem::SessionHeader(_))));
        assert!(matches!(read(""), Err(Problem::SessionHeader(_))));
        let twice = headers(&[("mcp-session-id", "a"), ("mcp-session-id", "b")]);
        assert!(matches!(session(&twice), Err(Problem::SessionHeader(_))));
        assert!(matches!(session(&headers(&[])), Ok(Named::None)));
    }

    #[test]
    fn any_known_version_passes_and_so_does_the_negotiated_one() {
        let check = |value: &str, negotiated| {
            Versions::of(&headers(&[("mcp-protocol-version", value)])).check(negotiated)
        };
        assert!(check("2025-03-26", Some("2025-11-25")).is_ok(), "the conformance suite sends such pairs");
        assert!(check("2026-07-28", Some("2026-07-28")).is_ok(), "rmcp does, where the server echoes it");
        assert!(check("2099-01-01", Some("2099-01-01")).is_ok());
        assert!(matches!(check("2099-01-01", Some("2025-11-25")), Err(Problem::Version(_))));
        assert!(matches!(check("", None), Err(Problem::Version(_))));
        assert!(Versions::of(&headers(&[])).check(None).is_ok());
        let several = ["2025-06-18", "x", "x", "2099-01-01", &"y".repeat(60_000)];
        let several = Versions::of(&headers(&several.map(|value| ("mcp-protocol-version", value))));
        assert!(several.check(Some("x")).is_err() && several.check(Some("2099-01-01")).is_err());
        assert!(several.unknown.iter().all(|version| version.len() <= MAX_VERSION), "{:?}", several.unknown);
    }
}
