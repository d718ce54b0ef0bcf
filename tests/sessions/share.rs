//! Sessions that share a server: one process, and all else of each session's own.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Bridge, Request, Response, Scratch, Session, Value, assert_refused, eventually, initialize, json, reason,
    text_of, tool_call, within,
};

const ALL: [&str; 3] = ["--share", "all", "--lazy"];

const BY_USER: [&str; 5] = ["--share", "key", "--session-key", "header:X-User", "--lazy"];

fn start(options: &[&str], more: &[&str], command: &[&str]) -> Bridge {
    Bridge::start(&[options, more].concat(), command)
}

/// How many processes the server has.
fn servers(bridge: &Bridge) -> usize {
    bridge.processes().len()
}

/// Kills the only process of the server.
#[track_caller]
fn kill_server(bridge: &Bridge) {
    let processes = bridge.processes();
    assert_eq!(processes.len(), 1, "there is one server");
    kill(Pid::from_raw(processes[0].pid.cast_signed()), Signal::SIGKILL).unwrap();
}

/// An `initialize` of this user.
fn initialize_as(bridge: &Bridge, user: &str) -> Response {
    bridge.send(Request::post("/mcp", initialize(0, "2025-06-18").to_string()).header("X-User", user))
}

/// A session of this user, whose handshake is complete.
#[track_caller]
fn session_of(bridge: &Bridge, user: &str) -> Session {
    let mut response = initialize_as(bridge, user);
    response.expect(200, "initialize is answered");
    let session = Session::from_response(bridge.address, &mut response);
    session.notify("notifications/initialized", json!({}));
    session
}

/// A call of this user that names no session.
fn call_of(bridge: &Bridge, user: &str, tool: &str, arguments: Value) -> Response {
    bridge.send(Request::post("/mcp", tool_call(1, tool, arguments).to_string()).header("X-User", user))
}

/// A call of a client of 2026-07-28.
fn modern(tool: &str, arguments: Value) -> Request {
    let params = json!({
        "name": tool, "arguments": arguments,
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "0" },
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    Request::post("/mcp", body.to_string())
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", "tools/call")
        .header("Mcp-Name", tool)
}

/// The log lines with all of these words.
fn lines(bridge: &Bridge, words: &[&str]) -> Vec<String> {
    bridge.log().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

// ---------------------------------------------------------------------------------------------- one process

#[test]
fn sessions_that_share_have_one_process_and_ids_of_their_own() {
    let bridge = start(&ALL, &[], &["notebook"]);
    let sessions: Vec<_> = (0..5).map(|_| bridge.session()).collect();
    assert_eq!(servers(&bridge), 1);
    let mut ids: Vec<_> = sessions.iter().map(|session| &session.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5);
    sessions[0].text("add_note", json!({ "title": "a", "text": "b" }));
    for session in &sessions {
        assert_eq!(session.text("list_notes", json!({})), "1. a", "the server keeps one state for all");
    }
    assert_eq!(sessions[0].greeting["result"]["serverInfo"]["name"], "notebook");
}

#[test]
fn sessions_that_come_at_once_open_one_server() {
    let bridge = start(&ALL, &[], &["hostile", "slow_init", "300"]);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = bridge.address;
            thread::spawn(move || {
                let body = initialize(0, "2025-06-18").to_string();
                let mut response = Request::post("/mcp", body).send(address);
                response.expect(200, "initialize is answered");
                Session::from_response(address, &mut response)
            })
        })
        .collect();
    let sessions: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(servers(&bridge), 1);
    for session in &sessions {
        session.notify("notifications/initialized", json!({}));
        assert_eq!(session.text("echo", json!({ "text": &session.id[..8] })), session.id[..8]);
    }
    assert_eq!(sessions[0].seen_count("initialize"), 1, "one handshake");
    assert_eq!(sessions[0].seen_count("notifications/initialized"), 1);
}

#[test]
fn the_server_is_asked_for_the_revision_of_its_first_session() {
    for (wanted, asked) in
        [("2025-03-26", "2025-03-26"), ("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25")]
    {
        let scratch = Scratch::new();
        let bridge = Bridge::start_with(&ALL, &["modern", "legacy", "exit"], |bridge| {
            bridge.env("FIRST_LINES", scratch.path("first"));
        });
        bridge.initialize_as(wanted);
        bridge.initialize_as("2025-06-18");
        let first: Value = serde_json::from_str(scratch.read("first").trim()).unwrap();
        assert_eq!(first["params"]["protocolVersion"], asked);
        assert_eq!(first["params"]["clientInfo"]["name"], "mcp-bridge");
    }
}

#[test]
fn the_end_of_one_session_leaves_the_others() {
    let bridge = start(&ALL, &[], &["hostile", "good"]);
    let [first, second] = [bridge.session(), bridge.session()];
    let call = {
        let second = second.clone();
        thread::spawn(move || second.text("sleep", json!({ "ms": 300 })))
    };
    eventually("the call is there", || first.seen().iter().any(|entry| entry["method"] == "tools/call"));
    first.delete().expect(204, "it ends");
    assert_eq!(first.ping().status, 404);
    assert_eq!(call.join().unwrap(), "slept");
    assert_eq!((second.ping().status, servers(&bridge)), (200, 1));
    bridge.logged("its end", |line| {
        line.contains(r#"event="session.end""#) && line.contains(&first.id[..8]) && line.contains("server=")
    });
}

#[test]
fn the_server_outlasts_its_last_session_until_it_is_idle_itself() {
    let bridge = start(&ALL, &["--idle-timeout", "700ms"], &["hostile", "good"]);
    let session = bridge.session();
    let pid = session.look("pids")["pid"].clone();
    session.delete().expect(204, "it ends");
    let ended = Instant::now();
    let next = bridge.session();
    assert_eq!(next.look("pids")["pid"], pid, "the next session has the same server");
    next.delete().expect(204, "it ends");
    eventually("the server leaves", || servers(&bridge) == 0);
    assert!(ended.elapsed() >= Duration::from_millis(700), "after {:?}", ended.elapsed());
    bridge.logged("why", |line| line.contains(r#"event="session.end""#) && line.contains(r#"reason="idle""#));
}

#[test]
fn a_server_is_not_idle_while_a_session_is_there() {
    let bridge = start(&ALL, &["--idle-timeout", "400ms"], &["hostile", "good"]);
    let session = bridge.session();
    let listening = session.listen(); // the session is not idle
    let other = bridge.session();
    bridge.logged("the other session has been idle", |line| {
        line.contains(r#"reason="idle""#) && line.contains(&other.id[..8])
    });
    assert_eq!(servers(&bridge), 1);
    session.ping().expect(200, "it goes on");
    drop(listening);
}

#[test]
fn the_state_names_the_server_of_each_session() {
    let bridge = start(&ALL, &[], &["notebook"]);
    let sessions = [bridge.session(), bridge.session()];
    let pid = bridge.processes()[0].pid;
    bridge.signal(Signal::SIGUSR1);
    let line = bridge.logged("the server", |line| {
        line.contains(r#"event="session.state""#) && line.contains("sessions=2")
    });
    let sid = line.split("sid=\"").nth(1).unwrap()[..8].to_owned();
    assert!(line.contains(&format!("pid={pid}")), "{line}");
    for session in sessions {
        let line = bridge.logged("a session", |line| {
            line.contains(r#"event="session.state""#) && line.contains(&session.id[..8])
        });
        assert!(
            line.contains(&format!("server=\"{sid}\"")) && line.contains(&format!("pid={pid}")),
            "{line}"
        );
        assert!(line.contains(r#"state="open""#), "{line}");
    }
}

// ---------------------------------------------------------------------------------------------- bounds

#[test]
fn sessions_on_lanes_are_bounded_and_an_idle_one_gives_way_if_that_is_wanted() {
    let bridge = start(&ALL, &["--max-sessions", "2"], &["notebook"]);
    let sessions = [bridge.session(), bridge.session()];
    let mut response = bridge.post(initialize(0, "2025-06-18").to_string());
    assert_refused(&mut response, 503, "too_many_sessions");
    sessions[0].delete().expect(204, "it ends");
    let third = bridge.session();
    assert_eq!((third.ping().status, sessions[1].ping().status), (200, 200));

    let bridge = start(&ALL, &["--max-sessions", "1", "--evict"], &["notebook"]);
    let [first, second] = [bridge.session(), bridge.session()];
    assert_eq!((first.ping().status, second.ping().status), (404, 200));
    assert_eq!(servers(&bridge), 1, "the server has the place of a process, and keeps it");
}

#[test]
fn a_bridge_that_stops_waits_for_calls_of_sessions_that_share() {
    let mut bridge = start(&ALL, &["--sse-after", "0s"], &["hostile", "good"]);
    let [busy, idle] = [bridge.session(), bridge.session()];
    let mut call = busy.start_call("sleep", json!({ "ms": 700 }));
    eventually("it is there", || idle.seen().iter().any(|entry| entry["method"] == "tools/call"));
    bridge.signal(Signal::SIGTERM);
    assert_eq!(text_of(&call.answer()), "slept");
    assert_eq!(bridge.exit_code(), 0);
    bridge.leaves_nothing();
}

#[test]
fn a_token_that_is_taken_away_ends_its_sessions_and_not_the_server() {
    let scratch = Scratch::new();
    let tokens = ["a-token-of-the-caller-who-stays-here", "a-token-of-the-caller-who-goes-away"];
    let file = scratch.write("token", &tokens.join("\n"));
    let bridge = start(&ALL, &["--token-file", &file], &["notebook"]);
    let open = |token: &str| {
        let request = Request::post("/mcp", initialize(0, "2025-06-18").to_string());
        let mut response = bridge.send(request.header("Authorization", &format!("Bearer {token}")));
        response.expect(200, "the token opens");
        Session::from_response(bridge.address, &mut response)
    };
    let ping = |session: &Session, token: &str| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        let request = session.headers(Request::post("/mcp", body));
        bridge.send(request.header("Authorization", &format!("Bearer {token}"))).status
    };
    let [stays, goes] = tokens.map(open);
    assert_eq!(ping(&goes, tokens[0]), 404, "it is there for its owner alone");
    assert_eq!(servers(&bridge), 1);
    scratch.write("token", tokens[0]);
    bridge.signal(Signal::SIGHUP);
    bridge
        .logged("it ends", |line| line.contains(r#"reason="token_revoked""#) && line.contains(&goes.id[..8]));
    assert_eq!((ping(&stays, tokens[0]), servers(&bridge)), (200, 1));
}

// ---------------------------------------------------------------------------------------------- loss of the server

#[test]
fn all_sessions_end_with_their_server_and_each_call_has_its_error() {
    let bridge = start(&ALL, &["--sse-after", "0s"], &["hostile", "good"]);
    let sessions: Vec<_> = (0..3).map(|_| bridge.session()).collect();
    let mut calls: Vec<_> =
        sessions.iter().map(|session| session.start_call("sleep", json!({ "ms": 600_000 }))).collect();
    eventually("the calls are there", || {
        let is_sleep = |entry: &&Value| entry["method"] == "tools/call";
        sessions[0].seen().iter().filter(is_sleep).count() > 3
    });
    let killed = Instant::now();
    kill_server(&bridge);
    for call in &mut calls {
        let answer = call.answer();
        assert_eq!(reason(&answer), "child_exited", "{answer}");
        assert_eq!(answer["error"]["data"]["signal"], "SIGKILL", "{answer}");
    }
    assert!(killed.elapsed() < Duration::from_millis(500), "after {:?}", killed.elapsed());
    for session in &sessions {
        within(Duration::from_secs(1), "the session is gone", || session.ping().status == 404);
    }
    let next = bridge.session();
    assert_eq!((next.text("echo", json!({ "text": "a" })), servers(&bridge)), ("a".to_owned(), 1));
}

#[test]
fn sessions_that_outlive_their_server_go_on_over_one_new_one() {
    let bridge = start(&ALL, &["--on-exit", "respawn", "--sse-after", "0s"], &["hostile", "good"]);
    let sessions: Vec<_> = (0..4).map(|_| bridge.session()).collect();
    let before = sessions[0].look("pids")["pid"].to_string();
    let mut call = sessions[1].start_call("sleep", json!({ "ms": 600_000 }));
    eventually("the call is there", || sessions[0].seen().len() > 4);
    kill_server(&bridge);
    let answer = call.answer();
    assert_eq!(answer["error"]["data"]["respawned"], true, "{answer}");
    eventually("all have noticed", || lines(&bridge, &["child.lost"]).len() == 4);
    let mut pids: Vec<_> = sessions.iter().map(|session| session.look("pids")["pid"].to_string()).collect();
    pids.dedup();
    assert!(pids.len() == 1 && pids[0] != before, "{pids:?} after {before}");
    assert_eq!(servers(&bridge), 1);
    assert_eq!(sessions[0].seen_count("initialize"), 1, "one handshake with it");
}

#[test]
fn a_session_that_does_nothing_does_not_wait_because_another_one_ends_the_server_again_and_again() {
    let bridge = start(&ALL, &["--on-exit", "respawn"], &["hostile", "good"]);
    let bystander = bridge.session();
    for _ in 0..12 {
        let other = bridge.session();
        let ended = other.call("exit", json!({ "code": 3 }));
        assert_eq!(ended["error"]["data"]["reason"], "child_exited", "{ended}");
        assert_eq!(other.delete().status, 204);
    }
    let _next = bridge.session();
    let began = Instant::now();
    assert_eq!(bystander.text("echo", json!({ "text": "still there" })), "still there");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_server_that_does_not_start_is_each_clients_error_and_no_session_is_left() {
    let bridge = start(&ALL, &[], &["hostile", "exit_before_init", "3"]);
    let mut response = bridge.post(initialize(0, "2025-06-18").to_string());
    let refusal = assert_refused(&mut response, 502, "child_exited");
    assert_eq!(refusal["error"]["data"]["exit_code"], 3, "{refusal}");
    eventually("nothing is left", || servers(&bridge) == 0);
    bridge.signal(Signal::SIGUSR1);
    let line = bridge.logged("the state", |line| line.contains("bridge.state"));
    assert!(line.contains("sessions=0"), "{line}");
}

// ---------------------------------------------------------------------------------------------- who shares

#[test]
fn each_key_has_a_server_of_its_own() {
    let bridge = start(&BY_USER, &[], &["notebook"]);
    let [ada, too, grace] = ["ada", "ada", "grace"].map(|user| session_of(&bridge, user));
    assert_eq!(servers(&bridge), 2);
    ada.text("add_note", json!({ "title": "a", "text": "b" }));
    let listed = |session: &Session| session.text("list_notes", json!({}));
    assert_eq!((listed(&too), listed(&grace)), ("1. a".to_owned(), "no notes yet".to_owned()));
    let without = bridge.session();
    assert_eq!((listed(&without), servers(&bridge)), ("no notes yet".to_owned(), 3), "no key: its own");
}

#[test]
fn calls_without_a_session_share_the_server_of_their_key() {
    let bridge = start(&BY_USER, &[], &["notebook"]);
    let mut response = call_of(&bridge, "ada", "add_note", json!({ "title": "a", "text": "b" }));
    response.expect(200, "it is served without a session");
    assert_eq!(response.header("mcp-session-id"), None);
    response.bytes();
    let session = session_of(&bridge, "ada");
    assert_eq!(session.text("list_notes", json!({})), "1. a");
    assert_eq!(text_of(&call_of(&bridge, "ada", "list_notes", json!({})).answer()), "1. a");
    assert_eq!(servers(&bridge), 1);
    session.delete().expect(204, "it ends");
    assert_eq!(session.ping().status, 404);
    let list = |id: &str| {
        let request = Request::post("/mcp", tool_call(1, "list_notes", json!({})).to_string());
        bridge.send(request.header("X-User", "ada").header("Mcp-Session-Id", id))
    };
    assert_eq!(text_of(&list("platform-made-7").answer()), "1. a", "a platform's id is none");
    assert_eq!(list(&"ab".repeat(24)).status, 404, "and one of a bridge has been lost");
}

#[test]
fn without_share_a_key_has_one_session_and_no_id() {
    let bridge = Bridge::start(&["--session-key", "header:X-User", "--lazy"], &["notebook"]);
    let mut response = initialize_as(&bridge, "ada");
    response.expect(200, "initialize");
    assert_eq!(response.header("mcp-session-id"), None);
}

#[test]
fn clients_of_the_old_transport_share_too() {
    let bridge = start(&ALL, &["--sse-compat"], &["notebook"]);
    let session = bridge.session();
    let mut stream = bridge.send(Request::listen("/sse"));
    let endpoint = stream.event().unwrap().data.unwrap();
    let path = format!("/{}", endpoint.trim_start_matches('/'));
    bridge.send(Request::post(&path, initialize(1, "2024-11-05").to_string())).expect(202, "it is taken");
    assert_eq!(stream.message()["result"]["serverInfo"]["name"], "notebook");
    assert_eq!(servers(&bridge), 1);
    session.ping().expect(200, "and the other goes on");
}

#[test]
fn clients_of_both_eras_share_one_process_of_the_session_era() {
    for modern_first in [false, true] {
        let bridge = start(&ALL, &["--era", "legacy"], &["notebook"]);
        let add = |bridge: &Bridge| {
            let mut response = bridge.send(modern("add_note", json!({ "title": "a", "text": "b" })));
            response.expect(200, "it is served");
            assert!(response.answer()["result"].is_object());
        };
        if modern_first {
            add(&bridge);
        }
        let session = bridge.session();
        if !modern_first {
            add(&bridge);
        }
        assert_eq!(session.text("list_notes", json!({})), "1. a");
        assert_eq!(servers(&bridge), 1, "modern first: {modern_first}");
    }
}

// ---------------------------------------------------------------------------------------------- over 2026-07-28

/// Each test from here on needs sessions to be translated for servers of 2026-07-28.
fn echoes(session: &Session, text: &str) {
    assert_eq!(session.text("echo", json!({ "text": text })), text);
}

#[test]
fn clients_of_both_eras_share_one_process_of_2026_07_28() {
    for modern_first in [false, true] {
        let bridge = start(&ALL, &["--era", "modern"], &["modern", "only"]);
        let ask = |bridge: &Bridge| {
            let answer = bridge.send(modern("echo", json!({ "text": "m" }))).answer();
            assert_eq!(text_of(&answer), "m", "{answer}");
        };
        if modern_first {
            ask(&bridge);
        }
        let sessions = [bridge.session(), bridge.session()];
        ask(&bridge);
        for session in &sessions {
            echoes(session, "a");
        }
        assert_eq!(servers(&bridge), 1, "modern first: {modern_first}");
        sessions[0].delete().expect(204, "it ends");
        ask(&bridge);
        echoes(&sessions[1], "b");
    }
}

#[test]
fn a_client_of_the_session_era_is_served_by_a_server_of_2026_07_28_alone() {
    for options in [&["--lazy"][..], &[], &["--share", "all", "--lazy"], &["--max-sessions", "1", "--lazy"]] {
        let bridge = Bridge::start(options, &["modern", "only"]);
        let session = bridge.session();
        echoes(&session, "a");
        let line = bridge.logged("what happened", |line| line.contains("child.refused_initialize"));
        assert!(line.contains("sessions are translated"), "{options:?}: {line}");
        assert_eq!(bridge.get("/readyz").status, 200, "{options:?}");
        assert!(lines(&bridge, &[r#"event="child.trial""#]).is_empty(), "{options:?}: no start has failed");
        let refusals = || lines(&bridge, &["child.refused_initialize"]).len();
        let before = refusals();
        session.delete().expect(204, "it ends");
        echoes(&bridge.session(), "b");
        assert_eq!(refusals(), before, "{options:?}: it is known now");
    }
}

#[test]
fn clients_that_come_one_after_the_other_while_the_era_is_found_out_are_all_served() {
    let bridge = Bridge::start(&ALL, &["modern", "only", "300"]);
    thread::scope(|scope| {
        for number in 0..30 {
            let bridge = &bridge;
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(50 * number));
                bridge.session().ping().expect(200, "it has a session");
            });
        }
    });
    eventually("they share one process", || bridge.processes().len() == 1);
}

#[test]
fn clients_that_come_at_once_to_a_server_of_2026_07_28_alone_are_all_served() {
    let bridge = Bridge::start(&["--lazy"], &["modern", "only", "200"]);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = bridge.address;
            thread::spawn(move || {
                let body = initialize(0, "2025-06-18").to_string();
                let mut response = Request::post("/mcp", body).send(address);
                response.expect(200, "initialize is answered");
                echoes(&Session::from_response(address, &mut response), "a");
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_client_of_the_old_transport_is_served_by_a_server_of_2026_07_28_alone() {
    let bridge = Bridge::start(&["--sse-compat", "--lazy"], &["modern", "only"]);
    let mut stream = bridge.send(Request::listen("/sse"));
    let endpoint = stream.event().unwrap().data.unwrap();
    let path = format!("/{}", endpoint.trim_start_matches('/'));
    bridge.send(Request::post(&path, initialize(1, "2024-11-05").to_string())).expect(202, "it is taken");
    let greeting = stream.message();
    assert_eq!(greeting["id"], 1);
    assert!(greeting["result"]["serverInfo"].is_object(), "one answer, which is a session's: {greeting}");
}

#[test]
fn a_session_of_a_key_has_a_process_of_its_own_beside_one_of_2026_07_28() {
    let bridge = start(&BY_USER, &[], &["modern", "dual"]);
    let answer = bridge.send(modern("echo", json!({ "text": "m" })).header("X-User", "ada")).answer();
    assert_eq!(text_of(&answer), "m", "{answer}");
    echoes(&session_of(&bridge, "ada"), "a");
    eventually("those that were asked have left", || servers(&bridge) == 1);
    assert_eq!(text_of(&call_of(&bridge, "ada", "echo", json!({ "text": "k" })).answer()), "k");
    assert_eq!(servers(&bridge), 2, "nobody translates for it");
}

#[test]
fn sessions_that_outlive_a_server_of_2026_07_28_go_on_over_one_new_one() {
    let bridge = start(&ALL, &["--on-exit", "respawn", "--era", "modern"], &["modern", "only"]);
    let sessions = [bridge.session(), bridge.session()];
    sessions.iter().for_each(|session| echoes(session, "a"));
    kill_server(&bridge);
    eventually("both have noticed", || lines(&bridge, &["child.lost"]).len() == 2);
    sessions.iter().for_each(|session| echoes(session, "b"));
    assert_eq!(servers(&bridge), 1);
}
