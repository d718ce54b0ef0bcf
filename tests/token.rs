//! A bridge with a token serves nobody else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test shall fail loudly")]

mod support;

use support::{Bridge, Request, Scratch, Value, assert_refused, initialize};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn with_a_token_nobody_else_is_served() {
    let scratch = Scratch::new();
    let file = scratch.write("token", &format!("{TOKEN}\n"));
    let bridge = Bridge::start(&["--token-file", &file], &["notebook"]);
    let request = || Request::post("/mcp", initialize(7, "2025-06-18").to_string());
    for wrong in
        [None, Some("Bearer wrong-wrong-wrong-wrong"), Some("Basic dTpw"), Some(TOKEN), Some("Bearer ")]
    {
        let request = wrong.map_or_else(request, |value| request().header("Authorization", value));
        let mut refused = bridge.send(request);
        let answer = assert_refused(&mut refused, 401, "unauthorized");
        assert_eq!(answer["id"], Value::Null);
        assert!(refused.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        assert_eq!(refused.header("mcp-session-id"), None);
    }
    for right in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}")] {
        bridge.send(request().header("Authorization", &right)).expect(200, "the token opens");
    }
    bridge.get("/healthz").expect(200, "health needs no token");
}

#[test]
fn a_session_belongs_to_the_token_that_opened_it() {
    let scratch = Scratch::new();
    let other = TOKEN.replace('0', "f");
    let file = scratch.write("token", &format!("{TOKEN}\n{other}\n"));
    let bridge = Bridge::start(&["--token-file", &file], &["notebook"]);
    let with = |request: Request, token: &str| request.header("Authorization", &format!("Bearer {token}"));
    let response = bridge.send(with(Request::post("/mcp", initialize(0, "2025-06-18").to_string()), TOKEN));
    let id = response.header("mcp-session-id").unwrap().to_owned();
    let ping =
        || Request::post("/mcp", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).header("Mcp-Session-Id", &id);
    bridge.send(with(ping(), TOKEN)).expect(200, "its own session");
    bridge.send(with(ping(), &other)).expect(404, "as if there were no such session");
}

#[test]
fn the_token_never_reaches_a_child() {
    let bridge = Bridge::start_with(&[], &["hostile", "good"], |bridge| {
        bridge.env("MCP_BRIDGE_TOKEN", TOKEN);
    });
    for process in bridge.processes() {
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&environment).contains(TOKEN));
    }
}
