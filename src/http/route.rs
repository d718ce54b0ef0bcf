//! What a request is about: its method and its path, looked at once.

use hyper::Method;

use super::metadata;
use super::problem::Problem;

/// What the endpoint offers within a session.
pub(super) const METHODS: &str = "GET, POST, DELETE, OPTIONS";

/// What is offered where the metadata is.
const METADATA_METHODS: &str = "GET, HEAD, OPTIONS";

/// Where a client of the transport of 2024-11-05 opens its stream.
pub(super) const SSE: &str = "/sse";

/// Where it posts.
pub(super) const MESSAGE: &str = "/message";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/healthz`: whether the event loop is alive.
    Health,
    /// `/readyz`: whether new sessions are taken.
    Ready,
    /// OPTIONS of any path: a preflight, or the question what is offered.
    Options,
    Metadata,
    Post,
    Get,
    Delete,
    OpenSse,
    PostMessage,
    /// A method that is not offered at this path; those that are.
    NotAllowed(&'static str),
}

impl Route {
    /// Probes are answered whatever `Host` says, because a kubelet calls the pod by its address.
    pub(super) fn is_probe(self) -> bool {
        matches!(self, Self::Health | Self::Ready)
    }

    /// A preflight carries no credentials (Fetch, "CORS protocol"), and the metadata says how to get some.
    pub(super) fn needs_token(self) -> bool {
        !self.is_probe()
            && !matches!(self, Self::Options | Self::Metadata | Self::NotAllowed(METADATA_METHODS))
    }
}

/// The paths that are served.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The endpoint's, without a trailing slash.
    pub(super) endpoint: String,
    /// Whether there is metadata to be had.
    pub(super) metadata: bool,
    /// Whether the transport of 2024-11-05 is offered.
    pub(super) sse_2024: bool,
}

impl Paths {
    /// The route of a request.
    ///
    /// # Errors
    /// [`Problem::Path`], and [`Problem::Method`] where that is clear without a look at the rest of the head.
    pub(super) fn route(&self, method: &Method, path: &str) -> Result<Route, Problem> {
        if *method == Method::CONNECT || path == "*" {
            return Err(Problem::Method(METHODS)); // neither names a path
        }
        if let Some(probe) = probe(path) {
            return match *method {
                Method::GET | Method::HEAD => Ok(probe),
                _ => Err(Problem::Method("GET, HEAD")),
            };
        }
        let is_metadata = self.metadata && metadata::is_at(path, &self.endpoint);
        let is_sse = self.sse_2024 && path == SSE;
        let is_message = self.sse_2024 && path == MESSAGE;
        if !(is_metadata || is_sse || is_message || self.is_endpoint(path)) {
            return Err(self.absent(path));
        }
        Ok(match *method {
            Method::OPTIONS => Route::Options,
            Method::GET | Method::HEAD if is_metadata => Route::Metadata,
            _ if is_metadata => Route::NotAllowed(METADATA_METHODS),
            Method::GET if is_sse => Route::OpenSse,
            _ if is_sse => Route::NotAllowed("GET"),
            Method::POST if is_message => Route::PostMessage,
            _ if is_message => Route::NotAllowed("POST, OPTIONS"),
            Method::POST => Route::Post,
            Method::GET => Route::Get,
            Method::DELETE => Route::Delete,
            _ => Route::NotAllowed(METHODS),
        })
    }

    /// What is said where nothing is.
    pub(super) fn absent(&self, path: &str) -> Problem {
        let endpoint = if self.endpoint.is_empty() { "/".to_owned() } else { self.endpoint.clone() };
        Problem::Path { endpoint, is_old: !self.sse_2024 && (path == SSE || path == MESSAGE) }
    }

    /// Clients that were told only a host and a port use `/`, and not only to post.
    fn is_endpoint(&self, path: &str) -> bool {
        path == "/" || path == self.endpoint || path.strip_suffix('/') == Some(&*self.endpoint)
    }
}

fn probe(path: &str) -> Option<Route> {
    match path {
        "/healthz" => Some(Route::Health),
        "/readyz" => Some(Route::Ready),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_and_a_path_have_one_route() {
        let all = Paths { endpoint: "/mcp".into(), metadata: true, sse_2024: true };
        let table = [
            ("GET", "/healthz", "Health"),
            ("HEAD", "/readyz", "Ready"),
            ("OPTIONS", "/healthz", "405 GET, HEAD"),
            ("POST", "/mcp", "Post"),
            ("POST", "/mcp/", "Post"),
            ("POST", "/", "Post"),
            ("OPTIONS", "/", "Options"),
            ("GET", "/", "Get"),
            ("DELETE", "/", "Delete"),
            ("PUT", "/", "NotAllowed(\"GET, POST, DELETE, OPTIONS\")"),
            ("GET", "//", "404"),
            ("GET", "/mcp", "Get"),
            ("DELETE", "/mcp/", "Delete"),
            ("PUT", "/mcp", "NotAllowed(\"GET, POST, DELETE, OPTIONS\")"),
            ("POST", "/mcp//", "404"),
            ("POST", "/MCP", "404"),
            ("POST", "/mcpx", "404"),
            ("POST", "mcp", "404"),
            ("OPTIONS", "/else", "404"),
            ("OPTIONS", "*", "405 GET, POST, DELETE, OPTIONS"),
            ("CONNECT", "", "405 GET, POST, DELETE, OPTIONS"),
            ("GET", "/.well-known/oauth-protected-resource", "Metadata"),
            ("HEAD", "/.well-known/oauth-protected-resource/mcp", "Metadata"),
            ("GET", "/.well-known/oauth-protected-resource/else", "404"),
            ("POST", "/.well-known/oauth-protected-resource", "NotAllowed(\"GET, HEAD, OPTIONS\")"),
            ("GET", "/sse", "OpenSse"),
            ("POST", "/sse", "NotAllowed(\"GET\")"),
            ("POST", "/message", "PostMessage"),
            ("GET", "/message", "NotAllowed(\"POST, OPTIONS\")"),
        ];
        for (method, path, want) in table {
            let seen = match all.route(&method.parse().expect("a method"), path) {
                Ok(route) => format!("{route:?}"),
                Err(Problem::Method(allowed)) => format!("405 {allowed}"),
                Err(problem) => problem.row().status.as_str().to_owned(),
            };
            assert_eq!(seen, want, "{method} {path}");
        }
    }

    #[test]
    fn the_root_can_be_the_endpoint() {
        let root = Paths { endpoint: String::new(), metadata: true, sse_2024: false }; // --path /
        for (method, want) in
            [(Method::POST, Route::Post), (Method::GET, Route::Get), (Method::DELETE, Route::Delete)]
        {
            assert!(matches!(root.route(&method, "/"), Ok(route) if route == want), "{method}");
        }
        let metadata = root.route(&Method::GET, "/.well-known/oauth-protected-resource");
        assert!(matches!(metadata, Ok(Route::Metadata)));
        assert!(
            matches!(root.route(&Method::POST, "/mcp"), Err(Problem::Path { endpoint, .. }) if endpoint == "/")
        );
        let slash = Paths { endpoint: "/".into(), metadata: false, sse_2024: false }; // --path //
        assert!(matches!(slash.route(&Method::POST, "//"), Ok(Route::Post)));
    }

    #[test]
    fn what_is_not_offered_has_no_path() {
        let plain = Paths { endpoint: "/mcp".into(), metadata: false, sse_2024: false };
        for (method, path) in [
            (Method::GET, SSE),
            (Method::POST, MESSAGE),
            (Method::GET, "/.well-known/oauth-protected-resource"),
        ] {
            assert!(matches!(plain.route(&method, path), Err(Problem::Path { .. })), "{path}");
        }
    }
}
