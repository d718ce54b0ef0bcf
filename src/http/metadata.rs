//! The metadata of a protected resource (RFC 9728): where clients without a token learn how to get one.

use bytes::Bytes;
use hyper::{Response, StatusCode};

use super::response::{Body, json};

/// Where the metadata of a protected resource is looked for (RFC 9728 §3).
const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The metadata of a protected resource (RFC 9728).
#[derive(Clone, Debug)]
pub struct Metadata {
    /// Where it is.
    pub url: String,
    document: Option<Bytes>,
}

impl Metadata {
    /// The metadata to be found at `url`. Without authorization servers the document is expected to be there already.
    ///
    /// # Errors
    /// A sentence for the operator, where the URL does not tell which resource it is about (RFC 9728 §3.1).
    pub fn new(url: String, authorization_servers: &[String]) -> Result<Self, String> {
        if authorization_servers.is_empty() {
            return Ok(Self { url, document: None });
        }
        let Some((origin, path)) = split(&url) else {
            return Err(format!(
                "--resource-metadata is {url:?}: to be served here it must have {WELL_KNOWN} right after the host"
            ));
        };
        let document = serde_json::json!({
            "resource": format!("{origin}{path}"),
            "authorization_servers": authorization_servers,
            "bearer_methods_supported": ["header"],
        });
        let document = Some(document.to_string().into());
        Ok(Self { url, document })
    }

    pub(super) fn document(&self) -> Option<Bytes> {
        self.document.clone()
    }
}

/// Whether the metadata of the resource at `endpoint` is looked for under this path: it has the endpoint's path behind it
/// or not (RFC 9728 §3.1).
pub(super) fn is_at(path: &str, endpoint: &str) -> bool {
    path.strip_prefix(WELL_KNOWN).is_some_and(|rest| rest.is_empty() || rest == endpoint)
}

pub(super) fn answer(document: &Bytes) -> Response<Body> {
    json(StatusCode::OK, Body::full(document.clone()))
}

/// The two halves of the resource's own URL, between which the well-known part stands.
fn split(url: &str) -> Option<(&str, &str)> {
    let host = url.find("://")? + 3;
    let slash = host + url.get(host..)?.find('/')?;
    let (origin, path) = (url.get(..slash)?, url.get(slash..)?);
    let rest = path.strip_prefix(WELL_KNOWN)?;
    let whole = rest.is_empty() || (rest.starts_with('/') && rest.len() > 1);
    (whole && !origin.contains('@')).then_some((origin, rest))
}
