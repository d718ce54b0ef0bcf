//! Whether a request is let in: checks of its head that are made before the body is read, the cheap ones first.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderValue,
    ORIGIN, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::{Uri, Version};
use tracing::warn;

use super::head;
use super::problem::{Given, Problem};
use crate::log_limit::SharedLogLimit;
use crate::secret::Digest;
use crate::token::Tokens;

static FORBIDDEN: SharedLogLimit = SharedLogLimit::new("http.forbidden");
static REFUSED: SharedLogLimit = SharedLogLimit::new("auth.refused");

/// Checks where a request comes from and whose token it carries.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) trust: Trust,
    /// `None`: no token is asked for.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// The URL of the metadata that says how to get a token.
    pub(super) metadata: Option<String>,
}

impl Guard {
    /// The origin of the page that may read the answer, if there is one.
    pub(super) fn page(&self, parts: &Parts) -> Option<HeaderValue> {
        self.check(parts).ok().and_then(|()| parts.headers.get(ORIGIN).cloned())
    }

    fn check(&self, parts: &Parts) -> Result<(), Problem> {
        self.trust.check_host(parts).and_then(|()| self.trust.check_origin(&parts.headers))
    }

    /// Lets a request in by its `Host` and `Origin`, and returns the origin of the page that may read the answer.
    pub(super) fn admit(&self, parts: &Parts) -> Result<Option<HeaderValue>, Problem> {
        head::check_single(&parts.headers)?;
        let checked = self.check(parts);
        if let Err(problem @ (Problem::Host(_) | Problem::Origin(_))) = &checked
            && let Some(count) = FORBIDDEN.take()
        {
            let row = problem.row();
            warn!(
                event = "http.forbidden",
                reason = row.reason,
                count,
                hint = &*row.message,
                "a request is refused because of its Host or Origin"
            );
        }
        // A copy: the value is a part of the whole head's buffer.
        let copy = |origin: &HeaderValue| HeaderValue::from_bytes(origin.as_bytes()).ok();
        checked.map(|()| parts.headers.get(ORIGIN).and_then(copy))
    }

    /// Whose token the request carries; `None` where no token is asked for.
    ///
    /// # Errors
    /// [`Problem::Unauthorized`] or [`Problem::Header`].
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Option<Digest>, Problem> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let given = bearer(headers)?;
        let caller = given.and_then(|token| tokens.check(token));
        if caller.is_none() {
            let given = match given {
                None => Given::Nothing,
                Some(b"") => Given::Other,
                Some(_) => Given::Token,
            };
            if given != Given::Nothing
                && let Some(count) = REFUSED.take()
            {
                warn!(
                    event = "auth.refused",
                    count,
                    "a request is refused: its token is not valid, or Authorization is not Bearer; see --token-file"
                );
            }
            return Err(Problem::Unauthorized { given, metadata: self.metadata.clone() });
        }
        Ok(caller)
    }
}

/// Which pages of browsers, and which names that resolve to this address, are trusted.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Whether the listener is reached through loopback only. Then only loopback names are ours: a page on another
    /// name that resolves here (DNS rebinding) is not.
    pub loopback: bool,
    /// Further origins, `scheme://host[:port]`, lower case; `scheme://*` is every host of a scheme that is none of the
    /// web's.
    pub origins: Vec<String>,
    /// Further names for `Host`, without port, lower case.
    pub hosts: Vec<String>,
}

impl Trust {
    /// Checks `Host`, and that no second one says otherwise (RFC 9112 §3.2).
    ///
    /// # Errors
    /// [`Problem::Header`] or [`Problem::Host`].
    pub fn check_host(&self, parts: &Parts) -> Result<(), Problem> {
        let mut hosts = parts.headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Problem::Header("two Host headers"));
        }
        let host = match host {
            Some(host) => Some(host.to_str().map_err(|_| Problem::Header("Host is not ASCII"))?),
            None => None,
        };
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let host = match (host, authority) {
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(Problem::Header("Host and the request target name different hosts"));
            }
            (Some(host), _) => host,
            (None, Some(authority)) => authority,
            (None, None) if parts.version <= Version::HTTP_10 => return Ok(()),
            (None, None) => return Err(Problem::Header("no Host header")),
        };
        if !self.loopback && self.hosts.is_empty() {
            return Ok(()); // behind a balancer any name may be ours, and browsers are stopped by Origin
        }
        let name = host_name(host).to_ascii_lowercase();
        let known = (self.loopback && is_loopback(&name)) || self.hosts.contains(&name);
        if known { Ok(()) } else { Err(Problem::Host(host.to_owned())) }
    }

    /// Whether an origin, in lower case, is one of [`Trust::origins`].
    fn is_listed(&self, origin: &str) -> bool {
        self.origins.iter().any(|listed| match listed.strip_suffix('*') {
            Some(scheme) => {
                origin.strip_prefix(scheme).is_some_and(|host| !host.is_empty() && !host.contains('/'))
            }
            None => listed == origin,
        })
    }

    /// Checks `Origin`. Absent: the client is no browser. Present: it must be listed, or be of this machine where
    /// only this machine can reach us. That it equals `Host` proves nothing: under DNS rebinding it does.
    ///
    /// # Errors
    /// [`Problem::Origin`].
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else {
            // A page's image or frame makes a GET without Origin; browsers say then how far away the page is (Fetch Metadata).
            let mut sites = headers.get_all("sec-fetch-site").iter().map(HeaderValue::as_bytes);
            return match sites.find(|site| !matches!(*site, b"none" | b"same-origin")) {
                None => Ok(()),
                Some(site) => Err(Problem::Origin(format!("({})", String::from_utf8_lossy(site)))),
            };
        };
        let shown = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        if origins.next().is_some() {
            return Err(Problem::Header("two Origin headers"));
        }
        let origin = shown.to_ascii_lowercase();
        let local = || {
            let uri: Option<Uri> = origin.parse().ok();
            let authority = uri.as_ref().and_then(Uri::authority);
            let bare =
                uri.as_ref().is_some_and(|uri| uri.query().is_none() && matches!(uri.path(), "/" | ""));
            let scheme =
                uri.as_ref().and_then(Uri::scheme_str).is_some_and(|s| matches!(s, "http" | "https"));
            bare && scheme
                && !origin.ends_with('/')
                && !origin.contains('#') // which the parser drops
                && authority.is_some_and(|authority| {
                    !authority.as_str().contains('@') && is_loopback(host_name(authority.as_str()))
                })
        };
        if self.is_listed(&origin) || (self.loopback && local()) {
            Ok(())
        } else {
            Err(Problem::Origin(shown))
        }
    }
}

/// The host of `host[:port]` (RFC 3986 §3.2), without the brackets of an IPv6 address.
fn host_name(authority: &str) -> &str {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((authority, "")),
        None => {
            let colon = authority.find(':').unwrap_or(authority.len());
            authority.split_at(colon)
        }
    };
    let is_port = |port: &str| {
        port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if port.is_empty() || is_port(port) { host } else { authority } // not a valid authority; matches no name
}

/// Whether a name, in lower case, is one of this machine only: `localhost` and all below it never leave it (RFC 6761
/// §6.3), and clients connect to 0.0.0.0 and `::` as to loopback.
fn is_loopback(name: &str) -> bool {
    let bare = name.strip_suffix('.').unwrap_or(name);
    let is_address = |address: IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    };
    let is_name = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    bare == "localhost" || (is_name && bare.ends_with(".localhost")) || name.parse().is_ok_and(is_address)
}

/// The bearer token of a request (RFC 6750 §2.1), where there is one. Never from the query, which other programs log.
///
/// # Errors
/// [`Problem::Header`] for two of them: a gateway in front may have checked the other one.
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::Header("two Authorization headers"));
    }
    let value = value.as_bytes();
    let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(space);
    // Another scheme is a token that is not ours.
    Ok(Some(if scheme.eq_ignore_ascii_case(b"bearer") { token.trim_ascii() } else { b"" }))
}

/// Checks what the head says of the body of a POST: framing, type, coding and announced length.
///
/// A page on another site can send a POST without asking first only as text/plain, form or multipart: the type is
/// what stops it (Fetch, "CORS-safelisted request-header").
pub fn check_body_head(headers: &HeaderMap, max_body: usize) -> Result<(), Problem> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Problem::TransferEncoding);
        }
        if codings.next().is_some() {
            return Err(Problem::Header("two Transfer-Encoding headers"));
        }
    }
    if headers.get(EXPECT).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Problem::Expectation);
    }
    let is_json = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim();
        // Of several types in one line others may take the last.
        essence.eq_ignore_ascii_case("application/json") && !value.contains(',')
    };
    if !headers.get(CONTENT_TYPE).is_some_and(is_json) {
        return Err(Problem::MediaType);
    }
    // RFC 9110 §8.4: a list, and in it each coding that was applied.
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let mut codings =
        codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    if codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::ContentEncoding);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > max_body)) {
        return Err(Problem::BodyTooLarge(max_body));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method("POST").uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        head("/mcp", list).headers
    }

    fn local() -> Trust {
        Trust { loopback: true, ..Trust::default() }
    }

    #[test]
    fn host_on_a_loopback_listener() {
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:80",
            "[::1]",
            "LOCALHOST:1",
            "localhost.",
            "localhost.:80",
            "app.localhost:3000",
            "0.0.0.0:8080",
            "[::]:80",
            "[::ffff:127.0.0.1]:8080",
        ] {
            assert!(local().check_host(&head("/mcp", &[("host", host)])).is_ok(), "{host} is this machine");
        }
        for host in [
            "evil.example.com",
            "localhost.evil.com",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "",
            "[::2]",
            "[::1].evil",
            "[::1",
            "evillocalhost",
            "evil@.localhost",
            "evil/.localhost",
            "localhost..",
            "127.0.0.1.",
            "[::ffff:10.0.0.1]",
        ] {
            let checked = local().check_host(&head("/mcp", &[("host", host)]));
            assert!(matches!(checked, Err(Problem::Host(_))), "{host} is not this machine: {checked:?}");
        }
        let named = Trust { hosts: vec!["bridge.local".into()], ..local() };
        assert!(named.check_host(&head("/mcp", &[("host", "Bridge.Local:80")])).is_ok());
    }

    #[test]
    fn host_in_a_container_is_any_name_unless_names_are_given() {
        let open = Trust::default();
        assert!(open.check_host(&head("/mcp", &[("host", "svc.ns:8080")])).is_ok());
        let named = Trust { hosts: vec!["svc.ns".into()], ..Trust::default() };
        assert!(named.check_host(&head("/mcp", &[("host", "svc.ns:8080")])).is_ok());
        assert!(named.check_host(&head("/mcp", &[("host", "other")])).is_err());
    }

    #[test]
    fn a_scheme_whose_hosts_change_is_allowed_as_a_whole() {
        let trust = Trust { origins: vec!["vscode-webview://*".into()], ..Trust::default() };
        for origin in ["vscode-webview://1b2c3d", "VSCODE-WEBVIEW://A-b"] {
            assert!(trust.check_origin(&headers(&[("origin", origin)])).is_ok(), "{origin}");
        }
        for origin in
            ["vscode-webview://", "vscode-webview://a/b", "vscode-webview2://a", "https://a", "null"]
        {
            assert!(trust.check_origin(&headers(&[("origin", origin)])).is_err(), "{origin}");
        }
    }

    #[test]
    fn missing_doubled_and_contradicting_hosts() {
        let open = Trust::default();
        assert!(matches!(open.check_host(&head("/mcp", &[])), Err(Problem::Header(_))));
        assert!(matches!(
            open.check_host(&head("/mcp", &[("host", "a"), ("host", "a")])),
            Err(Problem::Header(_))
        ));
        let absolute = head("http://evil/mcp", &[("host", "good")]);
        assert!(matches!(open.check_host(&absolute), Err(Problem::Header(_))));
        assert!(open.check_host(&head("http://good/mcp", &[("host", "good")])).is_ok());
    }

    #[test]
    fn origin_on_a_loopback_listener() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5", "HTTP://LOCALHOST"] {
            assert!(
                local().check_origin(&headers(&[("origin", origin)])).is_ok(),
                "{origin} is this machine"
            );
        }
        for origin in [
            "null",
            "",
            "http://evil.example.com",
            "http://localhost.evil.com",
            "http://localhost/",
            "localhost",
            "http://localhost@evil.com",
            "http://evil@localhost",
            "file://localhost",
            "http://127.0.0.1.evil.com",
            "http://localhost:80/x",
            "http://localhost?x",
        ] {
            let checked = local().check_origin(&headers(&[("origin", origin)]));
            assert!(matches!(checked, Err(Problem::Origin(_))), "{origin:?} must be refused");
        }
        assert!(local().check_origin(&headers(&[])).is_ok(), "no browser");
        assert!(
            local()
                .check_origin(&headers(&[("origin", "http://localhost"), ("origin", "http://localhost")]))
                .is_err()
        );
    }

    #[test]
    fn origin_on_an_open_listener_must_be_listed_exactly() {
        let trust = Trust { origins: vec!["https://app.example".into()], ..Trust::default() };
        assert!(trust.check_origin(&headers(&[("origin", "https://app.example")])).is_ok());
        for origin in
            ["https://app.example.evil", "http://app.example", "https://app.example:444", "http://localhost"]
        {
            assert!(trust.check_origin(&headers(&[("origin", origin)])).is_err(), "{origin}");
        }
    }

    #[test]
    fn the_head_of_a_body() {
        let json = ("content-type", "application/json");
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[json], "ok"),
            (&[("content-type", "APPLICATION/JSON;charset=utf-8")], "ok"),
            (&[json, ("content-length", "100")], "ok"),
            (&[json, ("content-length", "101")], "payload_too_large"),
            (&[json, ("content-length", "99999999999999999999")], "ok"), // hyper has refused it already
            (&[json, ("transfer-encoding", "Chunked")], "ok"),
            (&[json, ("transfer-encoding", "gzip, chunked")], "unsupported_coding"),
            (&[json, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], "invalid_request"),
            (&[json, ("content-encoding", "gzip")], "unsupported_media_type"),
            (&[json, ("content-encoding", "identity")], "ok"),
            (&[json, ("expect", "100-Continue")], "ok"),
            (&[json, ("expect", "bogus")], "expectation_failed"),
            (&[], "unsupported_media_type"),
            (&[("content-type", "text/plain")], "unsupported_media_type"),
            (&[("content-type", "application/json-patch+json")], "unsupported_media_type"),
        ];
        for (list, want) in table {
            let seen = match check_body_head(&headers(list), 100) {
                Ok(()) => "ok",
                Err(problem) => problem.row().reason,
            };
            assert_eq!(seen, *want, "{list:?}");
        }
    }
}
