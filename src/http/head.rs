//! What a request's head asks for: pure functions over its fields.

use std::ffi::OsString;

use hyper::Version;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue};
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

/// `Mcp-Method` and `Mcp-Name` (2026-07-28 `basic/transports/streamable-http`, "Standard Request Headers").
pub const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

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

/// The headers with one value that the bridge reads. [`guard`](super::guard) looks at `Host`, `Origin` and `Authorization`.
const SINGLE: [HeaderName; 8] = [
    MCP_SESSION_ID,
    MCP_PROTOCOL_VERSION,
    MCP_METHOD,
    MCP_NAME,
    LAST_EVENT_ID,
    CONTENT_TYPE,
    CONTENT_LENGTH,
    EXPECT,
];

/// Checks that no header with one value comes twice: a program in front may have read the other one.
///
/// # Errors
/// [`Problem::HeaderTwice`].
pub fn check_single(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.len() == headers.keys_len() {
        return Ok(()); // none comes twice
    }
    SINGLE.iter().try_for_each(|name| single(headers, name).map(|_| ()))
}

/// The only value of a header.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Problem::HeaderTwice(name.to_string())),
    }
}

/// The only value of a header that an operator has named. An empty one is none: programs in front blank what they have
/// no value for.
///
/// # Errors
/// [`Problem::HeaderTwice`].
pub(super) fn filled<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Problem> {
    let value = single(headers, name)?;
    Ok(value.filter(|value| !value.as_bytes().trim_ascii().is_empty()))
}

impl Head<'_> {
    /// What the request needs of it from now on.
    pub(super) fn keep(&self) -> Kept {
        Kept {
            caller: self.caller,
            arrived: self.arrived,
            is_h2: self.version == Version::HTTP_2,
            asked: Asked::of(self.headers),
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
    pub(super) asked: Asked,
}

impl Kept {
    /// The known revision that `MCP-Protocol-Version` names.
    pub(super) fn revision(&self) -> Option<Revision> {
        if let Asked::Known(revision) = self.asked { Some(revision) } else { None }
    }
}

/// How much of an unknown revision is kept, in bytes. What a child may have negotiated is shorter.
const MAX_VERSION: usize = 1024;

/// What `MCP-Protocol-Version` says.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    Known(Revision),
    Unknown(Box<str>),
}

impl Asked {
    /// The text, or its beginning.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Known(revision) => Some(revision.as_str()),
            Self::Unknown(text) => Some(text),
        }
    }

    /// Whether a client of the session era does not send it, so that its message may be of 2026-07-28 or later.
    pub fn may_be_modern(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Known(revision) => revision.modern(),
            Self::Unknown(_) => true,
        }
    }

    pub fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(MCP_PROTOCOL_VERSION) else { return Self::Nothing };
        let value = value.as_bytes();
        let text = String::from_utf8_lossy(value.get(..MAX_VERSION).unwrap_or(value));
        Revision::parse(&text).map_or_else(|| Self::Unknown(text.into()), Self::Known)
    }

    /// Checks it within a session: any known revision, or what the child negotiated. Clients are known to send another than
    /// the negotiated one.
    ///
    /// # Errors
    /// [`Problem::Version`].
    pub fn check(&self, negotiated: Option<&str>) -> Result<(), Problem> {
        match self {
            Self::Unknown(version) if negotiated != Some(&**version) => {
                Err(Problem::Version(version.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// The longest value that a header may give to a child, in bytes.
const MAX_FROM_HEADER: usize = 8 * 1024;

/// The variables that a child gets from the headers of its client's `initialize`. A header that is not there is a
/// variable that is not set, and neither does an empty one set it.
///
/// # Errors
/// [`Problem::HeaderTwice`], or [`Problem::Header`], where a value is too long or is no text.
pub fn environment(
    headers: &HeaderMap,
    wanted: &[(String, HeaderName)],
) -> Result<Vec<(OsString, OsString)>, Problem> {
    let mut environment = Vec::new();
    for (variable, header) in wanted {
        let Some(value) = filled(headers, header)? else { continue };
        // What begins like a shell function is run by an old bash (CVE-2014-6271).
        let harmless =
            |text: &&str| text.len() <= MAX_FROM_HEADER && !text.contains('\t') && !text.starts_with("()");
        let text = value.to_str().ok().filter(harmless);
        let Some(text) = text else {
            let why = "a header that becomes a variable of the server is longer than 8 KiB or has invisible characters";
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
/// [`Problem::SessionHeader`] for what is no session id at all (spec: visible ASCII only).
pub fn session(headers: &HeaderMap) -> Result<Named, Problem> {
    let Some(value) = headers.get(MCP_SESSION_ID) else { return Ok(Named::None) };
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
    if value.as_bytes().trim_ascii().is_empty() {
        return Ok(None); // the last event id of a stream without one (HTML §9.2.3)
    }
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
        assert!(matches!(session(&headers(&[])), Ok(Named::None)));
    }

    #[test]
    fn a_header_with_one_value_comes_once() {
        for name in SINGLE {
            let name = name.as_str();
            for values in [["a", "b"], ["a", "a"], ["", "a"]] {
                let twice = headers(&[("accept", "*/*"), (name, values[0]), (name, values[1])]);
                let checked = check_single(&twice);
                assert!(matches!(checked, Err(Problem::HeaderTwice(of)) if of == name), "{name} {values:?}");
            }
        }
        let lists = headers(&[("accept", "a/b"), ("accept", "c/d"), ("x-other", "1"), ("x-other", "2")]);
        assert!(check_single(&lists).is_ok());
    }

    #[test]
    fn an_empty_header_sets_no_variable() {
        for empty in ["", " ", "\t "] {
            let wanted = [("TOKEN".to_owned(), HeaderName::from_static("x-token"))];
            let set = environment(&headers(&[("x-token", empty)]), &wanted);
            assert!(set.is_ok_and(|set| set.is_empty()), "{empty:?}");
        }
    }

    #[test]
    fn any_known_version_passes_and_so_does_the_negotiated_one() {
        let check = |value: &str, negotiated| {
            Asked::of(&headers(&[("mcp-protocol-version", value)])).check(negotiated)
        };
        assert!(check("2025-03-26", Some("2025-11-25")).is_ok(), "the conformance suite sends such pairs");
        assert!(check("2026-07-28", Some("2026-07-28")).is_ok(), "rmcp does, where the server echoes it");
        assert!(check("2099-01-01", Some("2099-01-01")).is_ok());
        assert!(matches!(check("2099-01-01", Some("2025-11-25")), Err(Problem::Version(_))));
        assert!(matches!(check("", None), Err(Problem::Version(_))));
        assert!(Asked::of(&headers(&[])).check(None).is_ok());
        let long = Asked::of(&headers(&[("mcp-protocol-version", &"y".repeat(60_000))]));
        assert!(matches!(long, Asked::Unknown(version) if version.len() == MAX_VERSION), "no more is kept");
    }
}
