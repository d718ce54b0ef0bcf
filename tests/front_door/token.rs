//! A bridge with a token serves nobody else, and nobody else's sessions.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::support::{
    self, Bridge, PATIENCE, Request, Response, Scratch, Session, Value, assert_refused, bridge_command,
    initialize, json, recorded, run, run_command, tool_call, within,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "another-token-of-another-caller";

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

fn open() -> Request {
    Request::post("/mcp", initialize(7, "2025-11-25").to_string())
}

fn with(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

/// A bridge that lets both callers in, and starts no child for anybody else.
#[track_caller]
fn start(options: &[&str]) -> Bridge {
    Bridge::start_with(&[&["--lazy"], options].concat(), &["hostile", "good"], |bridge| {
        bridge.env("MCP_BRIDGE_TOKEN", format!("{TOKEN}\n{OTHER}"));
    })
}

#[track_caller]
fn session(bridge: &Bridge, token: &str) -> Session {
    let mut response = bridge.send(with(open(), token));
    response.expect(200, "the token opens");
    Session::from_response(bridge.address, &mut response)
}

/// Status of an `initialize` with this token.
fn status(bridge: &Bridge, token: &str) -> u16 {
    bridge.send(with(open(), token)).status
}

// ---------------------------------------------------------------------------------------------- who gets in

#[test]
fn with_a_token_nobody_else_is_served() {
    let scratch = Scratch::new();
    let file = scratch.write("token", &format!("{TOKEN}\n"));
    let bridge = Bridge::start(&["--lazy", "--token-file", &file], &["notebook"]);
    let bearer = |token: &str| format!("Bearer {token}");
    for wrong in [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Basic dTpw".to_owned()),
        Some(TOKEN.to_owned()),
        Some(bearer("wrong-wrong-wrong-wrong")),
        Some(bearer(&TOKEN[1..])),
        Some(bearer(&TOKEN[..TOKEN.len() - 1])),
        Some(bearer(&format!("{TOKEN}0"))),
        Some(bearer(&TOKEN.to_uppercase())),
        Some(bearer(&format!("{TOKEN} {TOKEN}"))),
        Some(bearer(&format!("{TOKEN},{TOKEN}"))),
        Some(bearer(&format!("\"{TOKEN}\""))),
        Some(format!("Basic {TOKEN}")),
        Some(format!("Bearer{TOKEN}")),
        Some(format!("Bearers {TOKEN}")),
        Some(format!("Bearer: {TOKEN}")),
        Some(format!("X Bearer {TOKEN}")),
    ] {
        let request = wrong.iter().fold(open(), |request, value| request.header("Authorization", value));
        let mut refused = bridge.send(request);
        let answer = assert_refused(&mut refused, 401, "unauthorized");
        assert_eq!(answer["id"], Value::Null, "{wrong:?}");
        assert_eq!(refused.header("mcp-session-id"), None, "{wrong:?}");
    }
    assert_eq!(bridge.processes(), [], "no child was started for any of them");
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let request = open().header("Authorization", &format!("{scheme} {TOKEN}"));
        bridge.send(request).expect(200, "the token opens, and a scheme has no case");
    }
}

#[test]
fn two_authorization_headers_are_400_even_if_both_are_right() {
    let bridge = start(&[]);
    for second in [TOKEN, OTHER, "wrong-wrong-wrong-wrong"] {
        let mut refused = bridge.send(with(with(open(), TOKEN), second));
        assert_eq!(assert_refused(&mut refused, 400, "invalid_request")["id"], Value::Null);
    }
    assert_eq!(bridge.processes(), []);
}

#[test]
fn a_token_in_the_query_is_none() {
    let bridge = start(&[]);
    for name in ["access_token", "token", "authorization", "bearer"] {
        let request = Request::post(&format!("/mcp?{name}={TOKEN}"), initialize(7, "2025-06-18").to_string());
        let mut refused = bridge.send(request);
        assert_refused(&mut refused, 401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "as if there were none");
    }
}

#[test]
fn only_probes_and_preflights_need_no_token() {
    let bridge = start(&["--sse-compat"]);
    for path in ["/healthz", "/readyz"] {
        bridge.get(path).expect(200, "probes carry no token");
    }
    for path in ["/mcp", "/", "/sse", "/message"] {
        bridge.send(Request::new("OPTIONS", path)).expect(204, "preflights carry no token");
    }
    for (method, path) in [
        ("POST", "/mcp"),
        ("POST", "/mcp/"),
        ("POST", "/"),
        ("GET", "/mcp"),
        ("HEAD", "/mcp"),
        ("DELETE", "/mcp"),
        ("PUT", "/mcp"),
        ("PATCH", "/mcp"),
        ("GET", "/sse"),
        ("POST", "/sse"),
        ("POST", "/message"),
        ("POST", "/message?sessionId=x"),
        ("GET", "/message"),
    ] {
        let request = Request::new(method, path).header("Accept", support::http::BOTH);
        let response = bridge.send(request.header("Content-Type", "application/json"));
        assert_eq!(response.status, 401, "{method} {path}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"), "{method} {path}");
    }
}

// ---------------------------------------------------------------------------------------------- how it is refused

#[test]
fn the_challenge_says_what_is_wrong_and_where_a_token_is_to_be_had() {
    const URL: &str = "https://app.example/.well-known/oauth-protected-resource/mcp";
    let metadata = format!("resource_metadata=\"{URL}\"");
    let plain: &[&str] = &[];
    for (options, none, wrong) in [
        (plain, "Bearer".to_owned(), "Bearer error=\"invalid_token\"".to_owned()),
        (
            &["--resource-metadata", URL],
            format!("Bearer {metadata}"),
            format!("Bearer error=\"invalid_token\", {metadata}"),
        ),
    ] {
        let bridge = start(options);
        for (request, challenge) in [
            (open(), &none),
            (with(open(), "wrong-wrong-wrong-wrong"), &wrong),
            (open().header("Authorization", "Basic dTpw"), &wrong),
        ] {
            let refused = bridge.send(request);
            let challenges: Vec<_> =
                refused.headers.iter().filter(|(name, _)| name == "www-authenticate").collect();
            assert_eq!(challenges, [&("www-authenticate".to_owned(), challenge.clone())], "{options:?}");
        }
        let mut served = bridge.send(with(open(), TOKEN));
        served.expect(200, "the token opens");
        assert_eq!(served.header("www-authenticate"), None);
    }
}

#[test]
fn a_page_of_an_allowed_origin_may_read_the_challenge_and_no_other_page_gets_one() {
    let bridge = start(&["--allow-origin", "https://app.example"]);
    let refused = bridge.send(open().header("Origin", "https://app.example"));
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"));
    let exposed = refused.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
    assert!(exposed.split(", ").any(|name| name == "www-authenticate"), "{exposed}");

    let mut foreign = bridge.send(open().header("Origin", "https://evil.example"));
    assert_refused(&mut foreign, 403, "origin_forbidden");
    assert_eq!(foreign.header("www-authenticate"), None);
    assert_eq!(foreign.header("access-control-allow-origin"), None);
}

#[test]
fn the_token_is_looked_at_behind_path_host_and_origin_and_before_all_else() {
    let bridge = start(&["--max-body", "1KiB"]);
    let long = "x".repeat(2000);
    for (request, expected, why) in [
        (Request::post("/other", PING), 404, "there is nothing to guard"),
        (Request::post("/other", PING).header("Origin", "http://evil.example"), 404, "nor to lend to pages"),
        (open().with("Host", "evil.example"), 403, "a foreign Host"),
        (with(open(), TOKEN).with("Host", "evil.example"), 403, "a foreign Host with a token"),
        (open().header("Origin", "http://evil.example"), 403, "a foreign Origin"),
        (with(open(), TOKEN).header("Origin", "http://evil.example"), 403, "a foreign Origin with a token"),
        (open().without("Content-Type"), 401, "of 415"),
        (open().header("Content-Encoding", "gzip"), 401, "of 415"),
        (open().with("Accept", "image/png"), 401, "of 406"),
        (Request::post("/mcp", &long), 401, "of 413"),
        (Request::post("/mcp", "{"), 401, "of a body that is no JSON"),
        (open().header("Expect", "a miracle"), 401, "of 417"),
        (open().header("Mcp-Session-Id", "not\tvisible"), 401, "of a session id that is none"),
        (
            Request::post("/mcp", PING).header("Mcp-Session-Id", "unknown"),
            401,
            "of a session that is not there",
        ),
        (Request::new("PUT", "/mcp"), 401, "of 405"),
        (with(open(), TOKEN).without("Content-Type"), 415, "with a token the rest is told"),
        (with(Request::post("/mcp", &long), TOKEN), 413, "with a token the rest is told"),
    ] {
        assert_eq!(bridge.send(request).status, expected, "{why}");
    }
}

#[test]
fn who_has_no_token_is_refused_before_the_body_comes_and_never_told_to_go_on() {
    let bridge = start(&[]);
    let upload = || Request::post("/mcp", "").with("Content-Length", "100000");
    for request in [upload(), upload().header("Expect", "100-continue")] {
        let mut socket = TcpStream::connect(bridge.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&request.to_bytes("localhost")).unwrap();
        let mut said = [0; 12];
        socket.read_exact(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said), "HTTP/1.1 401");
    }
}

// ---------------------------------------------------------------------------------------------- the metadata

const SERVED: &[&str] = &[
    "--resource-metadata",
    "https://app.example/.well-known/oauth-protected-resource/tools/mcp",
    "--authorization-server",
    "https://login.example",
    "--authorization-server",
    "https://login2.example/realm",
];
const BARE: &str = "/.well-known/oauth-protected-resource";
const BEHIND: &str = "/.well-known/oauth-protected-resource/mcp";

#[test]
fn the_metadata_is_served_at_both_places_to_who_has_no_token() {
    let bridge = start(SERVED);
    for path in [BARE, BEHIND] {
        let mut response = bridge.get(path);
        response.expect(200, path);
        assert_eq!(response.header("content-type"), Some("application/json"));
        assert_eq!(
            response.json(),
            json!({
                "resource": "https://app.example/tools/mcp",
                "authorization_servers": ["https://login.example", "https://login2.example/realm"],
                "bearer_methods_supported": ["header"],
            })
        );
        bridge.send(Request::new("OPTIONS", path)).expect(204, path);
        assert_eq!(bridge.send(Request::new("HEAD", path)).status, 200, "{path}");
        for method in ["POST", "PUT", "DELETE"] {
            for request in [Request::new(method, path), with(Request::new(method, path), TOKEN)] {
                let refused = bridge.send(request);
                assert_eq!(refused.status, 405, "{method} {path}");
                assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"), "{method} {path}");
            }
        }
        for (name, value) in [("Host", "evil.example"), ("Origin", "http://evil.example")] {
            assert_eq!(bridge.send(Request::new("GET", path).with(name, value)).status, 403, "{path} {name}");
        }
    }
    for path in ["/.well-known/oauth-protected-resource/other", "/.well-known/oauth-authorization-server"] {
        assert_eq!(bridge.get(path).status, 404, "{path}");
    }
    assert_eq!(bridge.processes(), []);
}

#[test]
fn without_an_authorization_server_somebody_else_serves_the_metadata() {
    for options in [&[][..], &SERVED[..2]] {
        let bridge = start(options);
        for path in [BARE, BEHIND] {
            assert_eq!(bridge.get(path).status, 404, "{options:?} {path}");
        }
    }
}

#[test]
fn metadata_that_cannot_be_served_is_a_usage_error() {
    for (options, sentence) in [
        (&SERVED[2..4], "--authorization-server needs --resource-metadata"),
        (
            &[
                "--resource-metadata",
                "https://app.example/meta",
                "--authorization-server",
                "https://login.example",
            ],
            "--resource-metadata is \"https://app.example/meta\": to be served here it must have /.well-known/oauth-protected-resource right after the host",
        ),
    ] {
        assert_unusable(bridge_command(options, &["hostile", "good"]), &[sentence]);
    }
}

#[test]
fn the_well_known_part_of_the_url_is_right_behind_the_host_and_whole() {
    for url in [format!("https://app.example/tools{BARE}"), format!("https://app.example{BARE}ful")] {
        let options =
            ["--resource-metadata", &url, "--authorization-server", "https://login.example", "--check"];
        assert_unusable(bridge_command(&options, &["hostile", "good"]), &["--resource-metadata is", &url]);
    }
}

/// The bridge does not start: exit 64, and one sentence that says all this.
#[track_caller]
fn assert_unusable(mut bridge: Command, words: &[&str]) {
    let finished = run_command({
        bridge.env("RUST_LOG", "debug");
        bridge
    });
    assert_eq!(finished.code, Some(64), "{}", finished.stderr);
    assert!(words.iter().all(|word| finished.stderr.contains(word)), "{words:?}: {}", finished.stderr);
    assert!(!finished.stderr.contains("bridge.start"), "nothing was ever served: {}", finished.stderr);
    assert!(!finished.stderr.contains("hunter2"), "the token is never shown: {}", finished.stderr);
}

// ---------------------------------------------------------------------------------------------- tokens that are none

#[test]
fn a_bridge_does_not_start_with_tokens_that_are_none() {
    let scratch = Scratch::new();
    let long = "hunter2-hunter2-hunter2";
    let five = [long; 5].join("\n");
    let cases = [
        ("", "there is no token in it"),
        ("\n  \n", "there is no token in it"),
        ("hunter2\n", "line 1 has fewer than 16 characters"),
        (&format!("{long}\nhunter2"), "line 2 has fewer than 16 characters"),
        ("hunter2 hunter2 hunter2", "line 1 has characters that an Authorization header cannot have"),
        ("hunter2-hünter2-hunter2", "line 1 has characters that an Authorization header cannot have"),
        (&five, "5 tokens; at most 4"),
    ];
    for (text, sentence) in cases {
        let file = scratch.write("token", text);
        assert_unusable(
            bridge_command(&["--token-file", &file], &["hostile", "good"]),
            &["--token-file", &file, sentence],
        );
        let mut bridge = bridge_command(&[], &["hostile", "good"]);
        bridge.env("MCP_BRIDGE_TOKEN", text);
        assert_unusable(bridge, &["MCP_BRIDGE_TOKEN", sentence]);
    }
    for (file, sentence) in
        [(scratch.path("missing"), "No such file or directory"), (scratch.path(""), "directory")]
    {
        let bridge = bridge_command(&["--token-file", &file], &["hostile", "good"]);
        assert_unusable(bridge, &["--token-file", &file, sentence]);
    }
    let mut both = bridge_command(&["--token-file", &scratch.write("token", long)], &["hostile", "good"]);
    both.env("MCP_BRIDGE_TOKEN", long);
    assert_unusable(both, &["--token-file and MCP_BRIDGE_TOKEN are both set"]);
    let finished = run(&["--check", "--token-file", &scratch.path("missing")], &["hostile", "good"]);
    assert_eq!(finished.code, Some(64), "--check tells it too: {}", finished.stderr);
}

#[test]
fn a_token_that_is_no_text_does_not_open_the_bridge_to_everybody() {
    for variable in ["MCP_BRIDGE_TOKEN", "MCP_BRIDGE_TOKEN_FILE"] {
        let mut bridge = bridge_command(&["--listen", "127.0.0.1:0"], &["hostile", "good"]);
        bridge.env(variable, OsString::from_vec(b"hunter2-hunter2-\xff\xff".to_vec()));
        assert_unusable(bridge, &[variable]);
    }
}

// ---------------------------------------------------------------------------------------------- rotation

#[test]
fn sighup_reads_the_tokens_again_and_the_bridge_goes_on() {
    let scratch = Scratch::new();
    let file = scratch.write("token", TOKEN);
    let bridge = Bridge::start(&["--token-file", &file], &["hostile", "good"]);
    let mine = session(&bridge, TOKEN);
    let ping = |token: &str| bridge.send(with(mine.headers(Request::post("/mcp", PING)), token));
    assert_eq!(status(&bridge, OTHER), 401);

    scratch.write("token", &format!("{TOKEN}\n{OTHER}\n"));
    bridge.signal(Signal::SIGHUP);
    bridge
        .logged("both tokens are read", |line| line.contains("token.reloaded") && line.contains("tokens=2"));
    assert_eq!((status(&bridge, TOKEN), status(&bridge, OTHER)), (200, 200));
    ping(TOKEN).expect(200, "a session outlives the rotation");

    scratch.write("token", OTHER);
    bridge.signal(Signal::SIGHUP);
    bridge
        .logged("the old token is gone", |line| line.contains("token.reloaded") && line.contains("tokens=1"));
    assert_eq!((status(&bridge, TOKEN), status(&bridge, OTHER)), (401, 200));
    assert_eq!(ping(TOKEN).status, 401, "not even to its own session");
    assert_eq!(ping(OTHER).status, 404, "and the new token does not inherit it");
    assert!(!bridge.log().iter().any(|line| line.contains("bridge.stopping")), "it was no reason to end");
}

/// A bridge that lets both callers in from a file.
#[track_caller]
fn rotating(scratch: &Scratch, options: &[&str], command: &[&str]) -> Bridge {
    let file = scratch.write("token", &format!("{TOKEN}\n{OTHER}\n"));
    Bridge::start(&[&["--lazy", "--token-file", &file], options].concat(), command)
}

/// Gives the file this text, and waits until it was read.
#[track_caller]
fn rotate(bridge: &Bridge, scratch: &Scratch, text: &str) {
    let read = || bridge.log().iter().filter(|line| line.contains("token.reloaded")).count();
    let before = read();
    scratch.write("token", text);
    bridge.signal(Signal::SIGHUP);
    support::eventually("the file is read", || read() > before);
}

fn sleep(ms: u32) -> String {
    tool_call("sleep", "sleep", json!({ "ms": ms })).to_string()
}

#[test]
fn what_a_token_has_begun_ends_when_it_is_taken_away_and_nothing_else_does() {
    let scratch = Scratch::new();
    let bridge = rotating(&scratch, &["--sse-after", "0s"], &["hostile", "good"]);
    let [stays, goes] = [TOKEN, OTHER].map(|token| session(&bridge, token));
    let call = |session: &Session, token, ms| {
        bridge.send(with(session.headers(Request::post("/mcp", sleep(ms))), token))
    };
    let mut listening = bridge.send(with(goes.headers(Request::listen("/mcp")), OTHER));
    listening.expect(200, "it listens");
    let (mut cut, mut kept) = (call(&goes, OTHER, 600_000), call(&stays, TOKEN, 4000));
    rotate(&bridge, &scratch, &format!("{TOKEN}\n"));

    let answer = cut.answer();
    assert_eq!(support::reason(&answer), "session_terminated", "{answer}");
    assert_eq!(answer["error"]["data"]["cause"], "token_revoked", "{answer}");
    assert!(listening.event().is_none(), "its stream ends");
    bridge.logged("why", |line| line.contains("session.end") && line.contains(r#"reason="token_revoked""#));
    support::eventually("its child is gone", || bridge.processes().len() == 1);
    let ping =
        |session: &Session, token| bridge.send(with(session.headers(Request::post("/mcp", PING)), token));
    assert_eq!(ping(&goes, OTHER).status, 401);
    assert_eq!(support::text_of(&kept.answer()), "slept", "the other's call goes on");
    ping(&stays, TOKEN).expect(200, "and its session");

    rotate(&bridge, &scratch, &format!("{OTHER}\n{TOKEN}\n"));
    let told = assert_refused(&mut ping(&goes, OTHER), 404, "session_terminated");
    assert_eq!(told["error"]["data"]["cause"], "token_revoked", "who has the token again begins anew");
    ping(&stays, TOKEN).expect(200, "another order of the lines is no other list");
}

/// A request of 2026-07-28, whose clients may share a server.
fn modern(method: &str, name: Option<&str>, mut params: Value, token: &str) -> Request {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({ "jsonrpc": "2.0", "id": token, "method": method, "params": params });
    let request = Request::post("/mcp", body.to_string()).header("MCP-Protocol-Version", "2026-07-28");
    let request = request.header("Mcp-Method", method);
    with(name.into_iter().fold(request, |request, name| request.header("Mcp-Name", name)), token)
}

#[test]
fn of_a_server_that_is_shared_what_a_lost_token_has_begun_ends_and_what_others_have_goes_on() {
    let scratch = Scratch::new();
    let options = ["--share", "all", "--era", "legacy", "--sse-after", "0s"];
    let bridge = rotating(&scratch, &options, &["hostile", "good"]);
    let sleep = |ms: u32, token| {
        bridge.send(modern(
            "tools/call",
            Some("sleep"),
            json!({ "name": "sleep", "arguments": { "ms": ms } }),
            token,
        ))
    };
    let listen = |token| {
        let params = json!({ "notifications": { "toolsListChanged": true } });
        let mut stream = bridge.send(modern("subscriptions/listen", None, params, token));
        assert!(stream.event().is_some(), "it is acknowledged");
        stream
    };
    let (mut goes, stays) = (listen(OTHER), listen(TOKEN));
    let (mut cut, mut kept) = (sleep(600_000, OTHER), sleep(4000, TOKEN));
    rotate(&bridge, &scratch, &format!("{TOKEN}\n"));

    let answer = cut.answer();
    assert_eq!(answer["error"]["data"]["cause"], "token_revoked", "{answer}");
    let last = goes.messages().pop().expect("an end");
    assert_eq!(last["error"]["data"]["cause"], "token_revoked", "{last}");
    assert_eq!(support::text_of(&kept.answer()), "slept", "the other's call goes on");
    assert_eq!(bridge.processes().len(), 1, "with the same server");
    drop(stays);
    assert_eq!(sleep(1, OTHER).status, 401);
    assert_eq!(support::text_of(&sleep(1, TOKEN).answer()), "slept");
}

#[test]
fn sessions_of_keys_and_of_the_old_transport_end_with_their_token_too() {
    let scratch = Scratch::new();
    let bridge = rotating(&scratch, &["--session-key", "shared", "--sse-compat"], &["hostile", "good"]);
    for token in [TOKEN, OTHER] {
        bridge.send(with(Request::post("/mcp", PING), token)).expect(200, "a session of this token's own");
    }
    let mut stream = bridge.send(with(Request::listen("/sse"), OTHER));
    let endpoint = format!("/{}", stream.event().unwrap().data.unwrap()); // relative to /sse
    let begin = Request::post(&endpoint, initialize(0, "2024-11-05").to_string());
    bridge.send(with(begin, OTHER)).expect(202, "begun");
    assert_eq!(stream.message()["id"], 0);
    assert_eq!(bridge.processes().len(), 3);
    rotate(&bridge, &scratch, &format!("{TOKEN}\n"));
    support::eventually("two of them are over", || bridge.processes().len() == 1);
    assert!(stream.event().is_none(), "and so is the stream");
    bridge.send(with(Request::post("/mcp", PING), TOKEN)).expect(200, "the other's is not");
    assert_eq!(bridge.processes().len(), 1);
}

#[test]
fn a_session_whose_token_is_taken_away_while_it_waits_for_its_child_is_none() {
    let scratch = Scratch::new();
    let options = ["--max-starting", "1"];
    let bridge = rotating(&scratch, &options, &["hostile", "slow_init", "4000"]);
    thread::scope(|scope| {
        let first = scope.spawn(|| status(&bridge, TOKEN));
        support::eventually("the first one starts", || bridge.processes().len() == 1);
        let second = scope.spawn(|| bridge.send(with(open(), OTHER)).answer());
        rotate(&bridge, &scratch, &format!("{TOKEN}\n"));
        assert_eq!(first.join().unwrap(), 200);
        let answer = second.join().unwrap();
        assert_eq!(answer["error"]["data"]["cause"], "token_revoked", "{answer}");
    });
    support::eventually("its child is gone", || bridge.processes().len() == 1);
}

#[test]
fn a_token_file_that_changes_is_read_again_within_seconds() {
    let scratch = Scratch::new();
    let file = scratch.write("token", TOKEN);
    let bridge = Bridge::start(&["--token-file", &file], &["hostile", "good"]);
    // As a kubelet does it: by rename, so that nobody reads half of it.
    fs::rename(scratch.write("new", OTHER), &file).unwrap();
    within(Duration::from_secs(10), "the new token opens", || status(&bridge, OTHER) == 200);
    assert_eq!(status(&bridge, TOKEN), 401);
}

#[test]
fn a_token_file_that_became_unreadable_changes_nothing_and_is_not_shown() {
    let scratch = Scratch::new();
    let file = scratch.write("token", TOKEN);
    let bridge = Bridge::start(&["--token-file", &file], &["hostile", "good"]);
    let told = || bridge.log().iter().filter(|line| line.contains("token.unreadable")).count();
    for broken in [Some("hunter2\n"), Some("\n"), Some("hunter2 hunter2 hunter2\n"), None] {
        let before = told();
        match broken {
            Some(text) => drop(scratch.write("token", text)),
            None => fs::remove_file(&file).unwrap(),
        }
        bridge.signal(Signal::SIGHUP);
        support::eventually("the log says so", || told() > before);
        assert_eq!((status(&bridge, TOKEN), status(&bridge, OTHER)), (200, 401), "{broken:?}");
    }
    let log = bridge.log().join("\n");
    assert!(log.contains(&file), "the file is named: {log}");
    assert!(!log.contains("hunter2"), "and its text is not");
    scratch.write("token", &format!("{OTHER}\n"));
    bridge.signal(Signal::SIGHUP);
    bridge.logged("the cured file is read", |line| line.contains("token.reloaded"));
    assert_eq!((status(&bridge, TOKEN), status(&bridge, OTHER)), (401, 200));
}

#[test]
fn a_token_file_that_hangs_holds_up_nobody() {
    let scratch = Scratch::new();
    let file = scratch.write("token", TOKEN);
    let mut bridge = Bridge::start(&["--token-file", &file], &["hostile", "good"]);
    let mine = session(&bridge, TOKEN);
    // Whoever opens a FIFO to read it waits for a writer, as with a file on a file system whose server is gone.
    mkfifo(scratch.path("fifo").as_str(), Mode::S_IRWXU).unwrap();
    fs::rename(scratch.path("fifo"), &file).unwrap();
    within(PATIENCE, "it says that the file is still being read", || {
        bridge.signal(Signal::SIGHUP);
        bridge.log().iter().any(|line| line.contains("token.unreadable"))
    });
    bridge.get("/healthz").expect(200, "the loop is alive");
    assert_eq!((status(&bridge, TOKEN), status(&bridge, OTHER)), (200, 401), "the tokens stay as they were");
    bridge.send(with(mine.headers(Request::post("/mcp", PING)), TOKEN)).expect(200, "and so do sessions");

    fs::write(&file, OTHER).unwrap();
    within(PATIENCE, "what comes at last counts", || status(&bridge, OTHER) == 200);
    bridge.signal(Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 0, "nor does it hold up the end");
}

#[test]
fn sighup_ends_a_bridge_whose_tokens_are_in_no_file() {
    let mut bridge = start(&[]);
    bridge.signal(Signal::SIGHUP);
    assert_eq!(bridge.exit_code(), 0);
    assert!(bridge.log().iter().any(|line| line.contains("bridge.stopping")));
}

// ---------------------------------------------------------------------------------------------- whose session it is

/// All that a client can see of an answer, less the time.
#[track_caller]
fn seen(mut response: Response) -> (u16, Vec<(String, String)>, String) {
    response.headers.retain(|(name, _)| name != "date");
    (response.status, response.headers.clone(), response.text())
}

/// Each way to use a session.
fn uses(id: &str) -> Vec<Request> {
    let named = |request: Request| request.header("Mcp-Session-Id", id);
    vec![
        named(Request::post("/mcp", PING)),
        named(Request::post(
            "/mcp",
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
        )),
        named(Request::post("/mcp", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)),
        named(open()),
        named(Request::post("/mcp", "no JSON")),
        named(Request::post("/mcp", PING)).header("MCP-Protocol-Version", "1999-01-01"),
        named(Request::listen("/mcp")),
        named(Request::listen("/mcp")).header("Last-Event-ID", "1-1"),
        named(Request::listen("/mcp")).header("Last-Event-ID", "nonsense"),
        named(Request::new("DELETE", "/mcp")),
    ]
}

#[test]
fn a_session_looks_to_any_other_caller_as_if_it_were_not_there() {
    let bridge = start(&["--prime"]);
    let (live, ended) = (session(&bridge, TOKEN), session(&bridge, TOKEN));
    bridge.send(with(ended.headers(Request::new("DELETE", "/mcp")), TOKEN)).expect(204, "ended by its owner");

    // An id of the same form that nobody has.
    let unknown: String = live.id.chars().rev().collect();
    let nothing: Vec<_> =
        uses(&unknown).into_iter().map(|request| seen(bridge.send(with(request, OTHER)))).collect();
    for strangers in [&live.id, &ended.id] {
        for (request, nothing) in uses(strangers).into_iter().zip(&nothing) {
            let shown = String::from_utf8_lossy(&request.to_bytes("")).into_owned();
            assert_eq!(&seen(bridge.send(with(request, OTHER))), nothing, "{shown}");
        }
    }
    let mut response = bridge.send(with(live.headers(Request::post("/mcp", PING)), OTHER));
    assert_eq!(assert_refused(&mut response, 404, "session_not_found")["id"], Value::Null);

    let mut own = bridge.send(with(live.headers(Request::post("/mcp", PING)), TOKEN));
    own.expect(200, "the owner noticed nothing");
    let mut own = bridge.send(with(ended.headers(Request::post("/mcp", PING)), TOKEN));
    let told = assert_refused(&mut own, 404, "session_terminated");
    assert_eq!(told["error"]["data"]["cause"], "deleted", "the owner is told the cause");
}

#[test]
fn each_caller_has_sessions_of_its_own_at_the_same_time() {
    let bridge = start(&[]);
    let sessions = [(TOKEN, session(&bridge, TOKEN)), (OTHER, session(&bridge, OTHER))];
    for (caller, _) in &sessions {
        for (owner, session) in &sessions {
            let call = tool_call(1, "echo", json!({ "text": *owner })).to_string();
            let mut response = bridge.send(with(session.headers(Request::post("/mcp", call)), caller));
            if caller == owner {
                response.expect(200, "its own session");
                assert_eq!(support::text_of(&response.answer()), *owner);
            } else {
                assert_refused(&mut response, 404, "session_not_found");
            }
        }
    }
}

#[test]
fn events_of_another_callers_session_cannot_be_resumed() {
    let bridge = start(&["--prime", "--sse-after", "0s"]);
    let session = session(&bridge, TOKEN);
    let call = tool_call(1, "sleep", json!({ "ms": 300 })).to_string();
    let mut stream = bridge.send(with(session.headers(Request::post("/mcp", call)), TOKEN));
    let event = stream.event().unwrap().id.unwrap();
    drop(stream);
    let resume = || session.headers(Request::listen("/mcp")).header("Last-Event-ID", &event);
    let mut refused = bridge.send(with(resume(), OTHER));
    assert_refused(&mut refused, 404, "session_not_found");
    let mut resumed = bridge.send(with(resume(), TOKEN));
    resumed.expect(200, "its owner can");
    assert_eq!(support::text_of(&resumed.message()), "slept", "and nothing was lost to the stranger");
}

#[test]
fn a_stream_of_the_old_transport_belongs_to_the_token_that_opened_it() {
    let bridge = start(&["--sse-compat"]);
    let mut stream = bridge.send(with(Request::listen("/sse"), TOKEN));
    stream.expect(200, "the token opens");
    let endpoint = format!("/{}", stream.event().unwrap().data.unwrap()); // relative to /sse
    let post = |token: &str, body: String| bridge.send(with(Request::post(&endpoint, body), token));
    let unknown = endpoint.replace(|c: char| c.is_ascii_digit(), "x");
    let nothing = seen(bridge.send(with(Request::post(&unknown, PING), OTHER)));
    let initialize = initialize(0, "2024-11-05").to_string();
    assert_eq!(seen(post(OTHER, initialize.clone())), nothing, "before there is a session");
    assert_eq!(bridge.processes(), [], "no child for the stranger");
    post(TOKEN, initialize).expect(202, "the owner begins");
    assert_eq!(stream.message()["id"], 0);
    assert_eq!(seen(post(OTHER, PING.to_owned())), nothing, "and while there is one");
    post(TOKEN, PING.to_owned()).expect(202, "the owner goes on");
    assert_eq!(stream.message(), json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
}

// ---------------------------------------------------------------------------------------------- where a token must not be

#[test]
fn a_token_reaches_no_child() {
    let scratch = Scratch::new();
    let command = recorded(&scratch, "hostile good");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let bridge = Bridge::start_with(&[], &command, |bridge| {
        bridge.env("MCP_BRIDGE_TOKEN", TOKEN);
    });
    let session = session(&bridge, TOKEN);
    let call = tool_call(1, "echo_env", json!({})).to_string();
    let mut answer = bridge.send(with(session.headers(Request::post("/mcp", call)), TOKEN));
    let environment = support::text_of(&answer.answer());
    assert!(environment.contains("BRIDGE_TEST_MARK"), "this is the environment: {environment}");
    assert!(!environment.contains("MCP_BRIDGE_TOKEN") && !environment.contains(TOKEN), "{environment}");
    // tee passes on before it records.
    support::eventually("this is what the child reads", || scratch.read("stdin").contains("echo_env"));
    assert!(!scratch.read("stdin").contains(TOKEN), "a token is for one reader only");
    let processes = bridge.processes();
    assert!(!processes.is_empty());
    for process in processes {
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(TOKEN), "{process:?} {file}");
        }
    }
}

#[test]
fn no_token_is_ever_logged() {
    let scratch = Scratch::new();
    let file = scratch.write("token", &format!("{TOKEN}\n{OTHER}\n"));
    let (from_file, from_variable): (&[&str], &[&str]) = (&["--token-file", &file], &[]);
    for options in [from_file, from_variable] {
        let mut bridge = Bridge::start_with(options, &["hostile", "good"], |bridge| {
            bridge.env("RUST_LOG", "trace");
            if options.is_empty() {
                bridge.env("MCP_BRIDGE_TOKEN", format!("{TOKEN}\n{OTHER}"));
            }
        });
        let session = session(&bridge, TOKEN);
        for request in [
            with(session.headers(Request::post("/mcp", PING)), TOKEN),
            with(session.headers(Request::post("/mcp", PING)), OTHER),
            with(open(), "wrong-wrong-wrong-wrong"),
            with(with(open(), TOKEN), OTHER),
            with(open(), TOKEN).header("Origin", "http://evil.example"),
            Request::post(&format!("/mcp?access_token={TOKEN}"), PING),
            with(Request::new("PUT", "/mcp"), TOKEN),
        ] {
            drop(bridge.send(request));
        }
        if !options.is_empty() {
            bridge.signal(Signal::SIGHUP);
            bridge.logged("reloaded", |line| line.contains("token.reloaded"));
        }
        bridge.signal(Signal::SIGUSR1);
        bridge.signal(Signal::SIGTERM);
        bridge.exit_code();
        bridge.logged("it said all", |line| line.contains("bridge.exit"));
        let log = bridge.log().join("\n");
        assert!(log.contains("http.refused"), "the level is low enough to see refusals: {log}");
        for secret in [TOKEN, OTHER, "wrong-wrong"] {
            assert!(!log.contains(secret), "{secret} is in the log: {log}");
        }
    }
}

// ---------------------------------------------------------------------------------------------- no token at all

/// The log of a bridge from its start to its end; it ends as soon as it has said that it listens.
#[track_caller]
fn log_of_a_start(options: &[&str], token: Option<&str>) -> String {
    let mut command = bridge_command(&[&["--lazy"], options].concat(), &["hostile", "good"]);
    if let Some(token) = token {
        command.env("MCP_BRIDGE_TOKEN", token);
    }
    let mut bridge = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(bridge.id().cast_signed());
    let (ended, end) = mpsc::channel::<()>();
    thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
    });
    let mut log = String::new();
    for line in BufReader::new(bridge.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.contains("bridge.start") {
            nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        }
        log.push_str(&line);
        log.push('\n');
    }
    let status = bridge.wait().unwrap();
    drop(ended);
    assert_eq!(status.code(), Some(0), "{log}");
    log
}

#[test]
fn a_bridge_that_others_can_reach_warns_once_that_it_asks_for_no_token() {
    let scratch = Scratch::new();
    let socket = format!("unix:{}", scratch.path("socket"));
    for (listen, token, warnings) in [
        ("0.0.0.0:0", None, 1),
        ("0.0.0.0:0", Some(TOKEN), 0),
        ("127.0.0.1:0", None, 0),
        ("127.0.0.2:0", None, 0),
        (&*socket, None, 0),
    ] {
        let log = log_of_a_start(&["--listen", listen], token);
        let told: Vec<&str> = log.lines().filter(|line| line.contains("auth.none")).collect();
        assert_eq!(told.len(), warnings, "{listen} {token:?}: {log}");
        assert!(told.iter().all(|line| line.contains("WARN") && line.contains("--token-file")), "{told:?}");
    }
}
