//! What the server speaks: who is asked, how often, and what is done until it is known.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Bridge, Request, Response, Scratch, Value, assert_refused, eventually, json};

/// A request of 2026-07-28.
fn modern(method: &str, mut params: Value) -> Request {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "0" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({ "jsonrpc": "2.0", "id": "d", "method": method, "params": params });
    Request::post("/mcp", body.to_string())
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", method)
}

/// What a client of 2026-07-28 says first.
fn discover() -> Request {
    modern("server/discover", json!({}))
}

/// A call of such a client, which shares a server with those that have the same key.
fn echo(key: &str) -> Request {
    let params = json!({ "name": "echo", "arguments": { "text": key } });
    modern("tools/call", params).header("Mcp-Name", "echo").header("X-Key", key)
}

/// It is served.
#[track_caller]
fn assert_echoes(bridge: &Bridge, key: &str) {
    let mut response = bridge.send(echo(key));
    response.expect(200, "it is served");
    let answer = response.answer();
    assert_eq!(answer["result"]["content"][0]["text"], key, "{answer}");
}

/// It is told to begin with `initialize`.
#[track_caller]
fn assert_falls_back(mut response: Response) {
    let refusal = assert_refused(&mut response, 200, "no_modern_era");
    assert_eq!((&refusal["error"]["code"], &refusal["id"]), (&json!(-32601), &json!("d")));
}

/// A bridge around the server `modern`, which keeps the first line of each of its processes.
fn start(scratch: &Scratch, options: &[&str], server: &[&str]) -> Bridge {
    Bridge::start_with(options, &[&["modern"], server].concat(), |bridge| {
        bridge.env("FIRST_LINES", scratch.path("first"));
    })
}

/// What each process of the server was told first.
fn told_first(scratch: &Scratch) -> Vec<String> {
    let method =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["method"].as_str().unwrap().to_owned();
    scratch.read("first").lines().map(method).collect()
}

/// How many servers were started to be asked.
fn asked(bridge: &Bridge) -> usize {
    let is_one =
        |line: &&String| line.contains(r#"event="child.trial_start""#) && line.contains(r#"sid="era""#);
    bridge.log().iter().filter(is_one).count()
}

#[test]
fn a_session_child_is_never_asked_for_its_era() {
    for options in [&[][..], &["--lazy"], &["--warm", "2"]] {
        let scratch = Scratch::new();
        let bridge = start(&scratch, options, &["dual"]);
        assert_falls_back(bridge.send(discover()));
        let sessions: Vec<_> = (0..3).map(|_| bridge.session()).collect();
        assert_falls_back(bridge.send(discover()));
        for session in &sessions {
            assert_eq!(session.text("echo", json!({ "text": "a" })), "a", "{options:?}");
        }
        let told = told_first(&scratch);
        assert_eq!(
            told, ["initialize"; 4],
            "{options:?}: the server that was asked, and those of the sessions"
        );
        let line = bridge.logged("it is known", |line| line.contains(r#"event="server.era""#));
        assert!(line.contains(r#"era="legacy""#), "{line}");
        assert_eq!(asked(&bridge), 1, "{options:?}");
    }
}

#[test]
fn the_era_is_asked_once_however_many_ask() {
    let scratch = Scratch::new();
    let bridge = start(&scratch, &["--lazy"], &["only", "500"]);
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let address = bridge.address;
            thread::spawn(move || discover().send(address).bytes())
        })
        .collect();
    clients.into_iter().for_each(|client| drop(client.join().unwrap()));
    let line = bridge.logged("it is known", |line| line.contains(r#"event="server.era""#));
    assert!(line.contains(r#"era="modern""#), "{line}");
    bridge.send(discover()).bytes();
    assert_eq!(asked(&bridge), 2, "one has refused initialize, and another one has been discovered");
    assert_eq!(told_first(&scratch).iter().filter(|method| *method == "initialize").count(), 1);
}

#[test]
fn a_server_that_answers_initialize_is_not_started_to_be_asked() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    let session = bridge.session();
    let line = bridge.logged("it is known", |line| line.contains(r#"event="server.era""#));
    assert!(line.contains(r#"era="legacy""#), "{line}");
    assert_falls_back(bridge.send(discover()));
    session.delete();
    eventually("the session's server leaves", || bridge.processes().is_empty());
    assert_falls_back(bridge.send(discover()));
    assert_eq!((asked(&bridge), bridge.processes().len()), (0, 0), "no server is started");
}

#[test]
fn what_the_operator_says_is_not_asked() {
    let scratch = Scratch::new();
    let bridge = start(&scratch, &["--lazy", "--era", "legacy"], &["only"]);
    assert_falls_back(bridge.send(discover()));
    assert_eq!((asked(&bridge), told_first(&scratch).len()), (0, 0));

    for (era, first) in [("legacy", "initialize"), ("modern", "server/discover")] {
        let scratch = Scratch::new();
        let bridge = start(&scratch, &["--share", "all", "--era", era], &["dual"]);
        assert_echoes(&bridge, "a");
        assert_eq!((asked(&bridge), told_first(&scratch)), (0, vec![first.to_owned()]));
    }
}

#[test]
fn a_server_that_does_not_say_it_is_taken_for_legacy_and_not_asked_again_at_once() {
    let silent = ["--lazy", "--init-timeout", "500ms", "--stop-grace", "100ms"];
    for (server, why) in [
        (&["hostile", "hang_init"][..], "has not answered initialize within 500ms"),
        (&["hostile", "exit_at_start", "3"], "it exited, or closed its stdout"),
        (&["hostile", "refuse_init"], "it refuses initialize: error -32603: this server cannot start"),
    ] {
        let bridge = Bridge::start(&silent, server);
        assert_falls_back(bridge.send(discover()));
        let line = bridge.logged("it is said", |line| line.contains(r#"event="server.era_unknown""#));
        assert!(line.contains(why) && line.contains("--era"), "{line}");
        let before = asked(&bridge);
        assert_falls_back(bridge.send(discover()));
        assert_eq!(asked(&bridge), before, "{server:?}");
        eventually("no server is left", || bridge.processes().is_empty());
    }
}

#[test]
fn a_server_of_both_eras_is_opened_in_that_of_its_clients() {
    for options in [&[][..], &["--lazy"], &["--lazy", "--max-sessions", "1"], &["--max-sessions", "1"]] {
        let scratch = Scratch::new();
        let bridge = start(&scratch, &[&["--share", "all"], options].concat(), &["dual"]);
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let address = bridge.address;
                thread::spawn(move || echo("a").send(address).answer())
            })
            .collect();
        for client in clients {
            let answer = client.join().unwrap();
            assert_eq!(answer["result"]["content"][0]["text"], "a", "{options:?}: {answer}");
        }
        let line = bridge.logged("both are known", |line| line.contains(r#"era="dual""#));
        assert!(
            line.contains(r#"event="server.era""#) && line.contains("has answered server/discover"),
            "{line}"
        );
        assert_eq!(
            told_first(&scratch),
            ["initialize", "server/discover", "server/discover"],
            "{options:?}: the two servers that were asked, and that of the clients"
        );
        assert_eq!(asked(&bridge), 2, "{options:?}");
    }
}

#[test]
fn a_legacy_client_beside_modern_ones_has_a_child_in_its_own_era() {
    let scratch = Scratch::new();
    let bridge = start(&scratch, &["--lazy", "--session-key", "header:X-Key"], &["dual"]);
    let before = bridge.session();
    assert_echoes(&bridge, "a");
    assert_echoes(&bridge, "b");
    let after = bridge.session();
    assert_eq!(
        told_first(&scratch),
        ["initialize", "server/discover", "server/discover", "server/discover", "initialize"],
        "its session shows one half, a server is asked for the other, and each key has its own"
    );
    for session in [before, after] {
        assert_eq!(session.text("echo", json!({ "text": "c" })), "c");
    }
    assert_echoes(&bridge, "a");
    assert_eq!(asked(&bridge), 1);
}

#[test]
fn a_server_that_does_not_speak_2026_07_28_is_translated_and_asked_once() {
    for (how, why) in [
        ("exit", "it exited, or closed its stdout"),
        ("refuse", "it refuses server/discover: error -32600: this is a session"),
        ("empty", "does not name 2026-07-28"),
    ] {
        let scratch = Scratch::new();
        let options = ["--lazy", "--session-key", "header:X-Key"];
        let bridge = start(&scratch, &options, &["legacy", how]);
        assert_echoes(&bridge, "a");
        assert_echoes(&bridge, "b");
        assert_eq!(
            told_first(&scratch),
            ["initialize", "server/discover", "initialize", "initialize"],
            "{how}: the servers that were asked, and those of the keys"
        );
        let line = bridge.logged("it is known", |line| line.contains(why));
        assert!(line.contains(r#"event="server.era""#) && line.contains(r#"era="legacy""#), "{line}");
    }
}

#[test]
fn a_server_that_is_silent_about_2026_07_28_is_translated_and_not_asked_again_at_once() {
    let scratch = Scratch::new();
    let options =
        ["--lazy", "--session-key", "header:X-Key", "--init-timeout", "1s", "--stop-grace", "100ms"];
    let bridge = start(&scratch, &options, &["legacy", "silent"]);
    assert_echoes(&bridge, "a");
    let line = bridge.logged("it is said", |line| line.contains(r#"event="server.era_unknown""#));
    assert!(
        line.contains("has not answered server/discover within 1s") && line.contains("--era legacy"),
        "{line}"
    );
    assert_echoes(&bridge, "b");
    assert_eq!(told_first(&scratch), ["initialize", "server/discover", "initialize", "initialize"]);
}

#[test]
fn a_server_that_no_longer_speaks_2026_07_28_is_asked_again_and_translated() {
    let scratch = Scratch::new();
    let changed = scratch.path("changed");
    let options = ["--lazy", "--session-key", "header:X-Key"];
    let bridge = start(&scratch, &options, &["dual", &changed]);
    assert_echoes(&bridge, "a");
    scratch.write("changed", "");
    let mut response = bridge.send(echo("b"));
    let refusal = response.json();
    assert!(refusal["error"].is_object(), "its server refuses what it was known to speak: {refusal}");
    bridge.logged("that is forgotten", |line| line.contains("has not answered server/discover"));
    assert_echoes(&bridge, "b");
    assert_echoes(&bridge, "c");
    let discover = "server/discover";
    assert_eq!(
        told_first(&scratch),
        ["initialize", discover, discover, discover, discover, "initialize", "initialize"],
        "asked twice, a, b in vain, asked again, b, c"
    );
    assert_echoes(&bridge, "a");
}

#[test]
fn a_client_does_not_wait_until_the_server_that_was_asked_has_left() {
    let bridge = Bridge::start(&["--lazy", "--stop-grace", "10s"], &["hostile", "slow_exit", "8000"]);
    let began = Instant::now();
    assert_falls_back(bridge.send(discover()));
    assert!(began.elapsed() < Duration::from_secs(6), "after {:?}", began.elapsed());
    assert_eq!(bridge.processes().len(), 1, "it has its time");
}

#[test]
fn the_era_is_found_where_servers_that_wait_have_all_the_seats() {
    let scratch = Scratch::new();
    let bridge = start(&scratch, &["--max-sessions", "1"], &["only"]);
    eventually("one waits", || bridge.processes().len() == 1);
    bridge.send(discover()).bytes();
    let line = bridge.logged("it is known", |line| line.contains(r#"event="server.era""#));
    assert!(line.contains(r#"era="modern""#), "{line}");
    assert_eq!(told_first(&scratch)[..2], ["initialize", "server/discover"]);
}

#[test]
fn a_client_that_falls_back_has_the_only_seat_when_the_server_that_was_asked_has_left() {
    for options in [&["--max-sessions", "1"][..], &["--max-sessions", "1", "--lazy"]] {
        let bridge = Bridge::start(options, &["hostile", "slow_exit", "1500"]);
        assert_falls_back(bridge.send(discover()));
        let began = Instant::now();
        bridge.session().ping().expect(200, "it has a session");
        assert!(began.elapsed() > Duration::from_secs(1), "it has waited for it");
    }
}

#[test]
fn a_bridge_that_stops_does_not_wait_for_the_answer() {
    let scratch = Scratch::new();
    let mut bridge = start(&scratch, &["--lazy", "--stop-grace", "100ms"], &["only", "60000"]);
    let address = bridge.address;
    let client = thread::spawn(move || discover().send(address));
    eventually("it is asked", || !scratch.read("first").is_empty());
    bridge.signal(Signal::SIGTERM);
    assert_falls_back(client.join().unwrap());
    assert_eq!(bridge.exit_code(), 0);
    bridge.leaves_nothing();
    assert!(!bridge.log().iter().any(|line| line.contains("server.era_unknown")), "that is no news then");
}
