//! How long a child lives, and what is made of one that does not: time that nobody counts while the bridge stands still, the
//! time that a child has at the end of the bridge, starts that come to nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::http::Connection;
use crate::support::{
    Bridge, Request, Scratch, Value, assert_refused, eventually, example, initialize, json, reason, run,
    text_of, tool_call,
};

// ---------------------------------------------------------------------------------------------- standing still

/// The bridge is stopped like a frozen container, and goes on.
fn stand_still(bridge: &Bridge, time: Duration, meanwhile: impl FnOnce()) {
    bridge.signal(Signal::SIGSTOP);
    meanwhile();
    thread::sleep(time);
    bridge.signal(Signal::SIGCONT);
}

#[test]
fn an_answer_that_came_while_the_bridge_stood_still_is_in_time() {
    let bridge = Bridge::start(&["--request-timeout", "2s", "--sse-after", "10s"], &["hostile", "good"]);
    let session = bridge.session();
    for round in 0..4 {
        let call = session.begin(tool_call(round, "sleep", json!({ "ms": 300 })).to_string());
        // Its own read of the connection is over: the child has the call.
        eventually("the child has it", || session.seen_count("tools/call") > 0);
        stand_still(&bridge, Duration::from_millis(2500), || {});
        let answer = call.response().answer();
        assert_eq!(answer["id"], round);
        assert_eq!(text_of(&answer), "slept", "round {round}");
    }
}

#[test]
fn a_call_that_came_while_the_bridge_stood_still_finds_its_session() {
    let options = ["--idle-timeout", "1500ms", "--unclaimed-timeout", "1s"];
    let bridge = Bridge::start(&options, &["hostile", "good"]);
    for round in 0..4 {
        // On a connection that is there, and on one that is not; of a session that is used, and of one that is not yet.
        let session = if round % 2 == 0 { bridge.session() } else { bridge.initialize() };
        let mut connection = Connection::open(bridge.address);
        let post = || {
            let body = tool_call(round, "echo", json!({ "text": "here" })).to_string();
            session.headers(Request::post("/mcp", body)).to_bytes(&bridge.address.to_string())
        };
        let mut late = None;
        stand_still(&bridge, Duration::from_millis(2500), || {
            if round < 2 {
                connection.write(&post());
            } else {
                late = Some(Connection::open(bridge.address));
                late.as_mut().unwrap().write(&post());
            }
        });
        let mut response = late.unwrap_or(connection).response();
        assert_eq!(response.status, 200, "round {round}");
        assert_eq!(text_of(&response.answer()), "here");
    }
}

#[test]
fn the_rest_of_a_head_that_came_while_the_bridge_stood_still_is_in_time() {
    let bridge = Bridge::start(&["--header-timeout", "1s", "--body-timeout", "1s"], &["hostile", "good"]);
    let session = bridge.session();
    let body = tool_call(1, "echo", json!({ "text": "here" })).to_string();
    let bytes = session.headers(Request::post("/mcp", body)).to_bytes(&bridge.address.to_string());
    for cut in [1, 30, bytes.len() - 5] {
        let mut connection = Connection::open(bridge.address);
        connection.write(&bytes[..cut]);
        bridge.get("/healthz").expect(200, "what came before is read before");
        stand_still(&bridge, Duration::from_secs(2), || connection.write(&bytes[cut..]));
        let mut response = connection.response();
        assert_eq!(response.status, 200, "cut at {cut}");
        assert_eq!(text_of(&response.answer()), "here");
    }
}

// ---------------------------------------------------------------------------------------------- the time to save

#[test]
fn a_server_that_saves_at_the_end_of_its_stdin_has_what_is_left_of_the_time() {
    let scratch = Scratch::new();
    let script = r#"trap ': > "$1/term"' TERM; "$0" slow_exit 3000; : > "$1/saved""#;
    let command = ["sh", "-c", script, &example("hostile"), &scratch.path("")];
    // One with a session, one that waits for it, and one that was leaving already.
    let mut bridge = Bridge::start(&["--warm", "1"], &command);
    let (_idle, leaving) = (bridge.session(), bridge.session());
    leaving.delete();
    bridge.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    assert_eq!(bridge.exit_code(), 0);
    assert!(stopped.elapsed() >= Duration::from_millis(2500), "it was waited for");
    assert!(Path::new(&scratch.path("saved")).exists());
    assert!(!Path::new(&scratch.path("term")).exists(), "nobody was hurried");
    assert!(!bridge.log().iter().any(|line| line.contains("child.kill")));
}

#[test]
fn a_server_that_was_told_to_leave_before_the_bridge_stops_has_no_less_time() {
    // Its own grace would be over soon, and the bridge has time.
    let options = ["--lazy", "--stop-grace", "3s", "--shutdown-timeout", "16s"];
    let mut bridge = Bridge::start(&options, &["hostile", "slow_exit", "5000"]);
    bridge.session().delete();
    bridge.signal(Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 0);
    let line = bridge.logged("it leaves", |line| line.contains("session.end"));
    assert!(line.contains(r#"stopped_by="eof""#), "{line}");
}

// ---------------------------------------------------------------------------------------------- starts that come to nothing

#[test]
fn a_server_that_is_broken_is_not_ready_until_one_answers() {
    let scratch = Scratch::new();
    let script = r#"if [ -e "$1/mended" ]; then exec "$0" good; else echo no licence >&2; exit 3; fi"#;
    let command = ["sh", "-c", script, &example("hostile"), &scratch.path("")];
    let bridge = Bridge::start(&[], &command);
    let mut response = bridge.get("/readyz");
    eventually("it is not ready", || {
        response = bridge.get("/readyz");
        response.status == 503
    });
    let said = response.text();
    assert!(said.contains("failed at its start") || said.contains("every start"), "{said}");
    let mut refused = bridge.post(initialize(0, "2025-06-18").to_string());
    assert_refused(&mut refused, 502, "child_exited");
    // Nobody comes, and the bridge tries again.
    bridge.logged("it is tried", |line| line.contains("child.trial") && line.contains("works=false"));
    assert_eq!(bridge.get("/readyz").status, 503, "and stays so");
    scratch.write("mended", "");
    eventually("it is ready", || bridge.get("/readyz").status == 200);
    bridge.session().ping().expect(200, "it works");
}

#[test]
fn a_server_that_refuses_every_initialize_is_not_ready_and_the_log_says_what_it_said() {
    let answer = r#"{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32022,\"message\":\"Unsupported\\u202e protocol version\"}}"#;
    let script = format!(
        r#"while read -r line; do id=${{line#*'"id":'}}; id=${{id%%[,\}}]*}}; printf '%s\n' "{answer}"; done"#
    );
    let bridge = Bridge::start(&[], &["sh", "-c", &script]);
    let mut response = bridge.post(initialize(7, "2025-06-18").to_string());
    assert_eq!(response.answer()["error"]["code"], -32022, "the client is told by the server itself");
    let line = bridge.logged("it is said", |line| line.contains("child.refused_initialize"));
    assert!(line.contains(r#"code="-32022""#) && line.contains(r"Unsupported\u{202e} protocol"), "{line}");
    eventually("it is not ready", || bridge.get("/readyz").status == 503);
    let line = bridge.logged("it was tried", |line| line.contains(r#"event="child.trial""#));
    assert!(line.contains("works=false") && line.contains("error -32022"), "{line}");
}

#[test]
fn a_server_of_2026_07_28_alone_is_not_broken_because_it_refuses_initialize() {
    let discover = "server/discover";
    for (options, told_first) in [
        (&[][..], &["initialize", "initialize", discover, discover][..]),
        (&["--era", "modern"], &[discover]),
        (&["--share", "all"], &["initialize", "initialize", discover, discover]),
    ] {
        let scratch = Scratch::new();
        let bridge = Bridge::start_with(&[&["--lazy"], options].concat(), &["modern", "only"], |bridge| {
            bridge.env("FIRST_LINES", scratch.path("first"));
        });
        let mut response = bridge.post(initialize(7, "2025-06-18").to_string());
        assert!(response.answer()["result"].is_object(), "{options:?}: its client has a session");
        let is_known = options.contains(&"modern");
        if !is_known {
            let line = bridge.logged("it is said", |line| line.contains("child.refused_initialize"));
            assert!(line.contains("it speaks 2026-07-28 alone") && line.contains("--era modern"), "{line}");
        }
        assert_eq!(bridge.get("/readyz").status, 200);
        let log = bridge.log();
        assert!(!log.iter().any(|line| line.contains(r#"event="child.trial""#)), "no start has failed");
        let told: Vec<Value> =
            scratch.read("first").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> = told.iter().map(|line| line["method"].as_str().unwrap()).collect();
        assert_eq!(
            told, told_first,
            "{options:?}: the servers of the session, and those that were asked between"
        );
        let known = |line: &&String| line.contains(r#"event="server.era""#) && line.contains("modern");
        assert_eq!(log.iter().filter(known).count(), usize::from(!is_known));
    }
}

#[test]
fn a_server_that_refuses_one_clients_initialize_stays_ready() {
    let scratch = Scratch::new();
    let script = r#"read -r line; case "$line" in *'"bad"'*)
        id=${line#*'"id":'}; id=${id%%[,\}]*}
        echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32602,\"message\":\"no\"}}"; read -r line; exit;; esac
        { printf '%s\n' "$line"; cat; } | exec "$0" good"#;
    let command = ["sh", "-c", script, &example("hostile"), &scratch.path("")];
    let bridge = Bridge::start(&[], &command);
    let bad = initialize(7, "2025-06-18").to_string().replace("\"test\"", "\"bad\"");
    for _ in 0..6 {
        assert_eq!(bridge.post(&bad).answer()["error"]["code"], -32602);
        assert_eq!(bridge.get("/readyz").status, 200);
    }
    bridge.logged("it was tried", |line| line.contains("child.trial") && line.contains("works=true"));
    assert_eq!(bridge.get("/readyz").status, 200);
}

/// What the log says at the end of a session with a server that does not answer `initialize`, and what `--check` says.
fn said_of(script: &str) -> (String, String) {
    let options = ["--init-timeout", "1500ms", "--stop-grace", "2s"];
    let bridge = Bridge::start(&[&options[..], &["--lazy"]].concat(), &["sh", "-c", script]);
    bridge.post(initialize(7, "2025-06-18").to_string()).bytes();
    let line = bridge.logged("it ends", |line| line.contains("session.end"));
    let finished = run(&[&options[..], &["--check"]].concat(), &["sh", "-c", script]);
    assert_eq!(finished.code, Some(1));
    (line, finished.stderr)
}

#[test]
fn a_server_that_does_not_answer_initialize_is_said_to_be_what_it_most_likely_is() {
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let cases = [
        ("exec sleep 60", "nothing at all"),
        ("echo loading >&2; exec sleep 60", "lines on stderr"),
        ("echo welcome; exec sleep 60", "not messages"),
        ("echo 'Uvicorn running on http://127.0.0.1:8000' >&2; exec sleep 60", "listen on a port itself"),
        ("echo 'listening on http://localhost:3000/mcp'; exec sleep 60", "listen on a port itself"),
        ("printf 'Content-Length: 9\\r\\n\\r\\n{}'; exec sleep 60", "language servers"),
        (&format!("cat > /dev/null; echo '{answer}'"), "PYTHONUNBUFFERED=1"),
        ("exit 0", "docker run needs -i"),
    ];
    thread::scope(|scope| {
        for (script, hint) in cases {
            scope.spawn(move || {
                let (line, check) = said_of(script);
                assert!(line.contains(hint), "{script}: {line}");
                assert!(check.contains(hint), "{script}: {check}");
            });
        }
    });
}

#[test]
fn a_start_that_takes_long_is_told_while_it_does() {
    let bridge = Bridge::start(&["--init-timeout", "40s"], &["hostile", "slow_init", "6500"]);
    let mut response = bridge.post(initialize(7, "2025-06-18").to_string());
    let line = bridge.logged("it is told", |line| line.contains(r#"event="child.slow_start""#));
    assert!(
        line.contains("limit=40.0") && line.contains("pid=") && line.contains("--init-timeout"),
        "{line}"
    );
    assert!(response.answer()["result"].is_object(), "and it comes");
}

// ---------------------------------------------------------------------------------------------- ids that nobody uses

#[test]
fn a_session_whose_id_is_never_used_ends_and_says_why() {
    let bridge = Bridge::start(&["--lazy", "--unclaimed-timeout", "700ms"], &["hostile", "good"]);
    let (used, unused) = (bridge.session(), bridge.initialize());
    let line = bridge.logged("it ends", |line| line.contains(r#"reason="unclaimed""#));
    assert!(line.contains(&unused.id[..8]) && line.contains("--unclaimed-timeout"), "{line}");
    assert_eq!((used.ping().status, unused.ping().status), (200, 404));
    let off = Bridge::start(&["--lazy", "--unclaimed-timeout", "off"], &["hostile", "good"]);
    off.initialize().ping().expect(200, "off is accepted");
}

#[test]
fn sessions_that_nobody_claims_give_their_places_to_others() {
    let bridge = Bridge::start(&["--lazy", "--max-sessions", "3"], &["hostile", "good"]);
    let used = bridge.session();
    let (oldest, younger) = (bridge.initialize(), bridge.initialize());
    let mut full = bridge.post(initialize(0, "2025-06-18").to_string());
    assert_refused(&mut full, 503, "too_many_sessions");
    let began = Instant::now();
    eventually("a place is free", || {
        thread::sleep(Duration::from_millis(500));
        bridge.post(initialize(0, "2025-06-18").to_string()).status == 200
    });
    assert!(began.elapsed() > Duration::from_secs(7), "not before a slow client has had its time");
    assert_eq!((used.ping().status, oldest.ping().status, younger.ping().status), (200, 404, 200));
}

// ---------------------------------------------------------------------------------------------- what is told of the end

#[test]
fn where_only_the_client_of_a_container_is_killed_the_log_says_so() {
    let scratch = Scratch::new();
    let docker = scratch.write("docker", &format!("#!/bin/sh\nexec {} ignore_term\n", example("hostile")));
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    for command in
        [&[&*docker, "run", "-i", "image"][..], &["sh", "-c", &format!("exec {docker} run -i image")]]
    {
        let bridge = Bridge::start(&["--lazy", "--stop-grace", "200ms"], command);
        bridge.session().delete();
        let killed = |line: &str| line.contains("child.kill") && line.contains("SIGKILL");
        let line = bridge.logged("it is killed", killed);
        assert!(line.contains("container may still be running") && line.contains("--init --rm -i"), "{line}");
    }
}

#[test]
fn numbers_in_the_log_are_numbers() {
    let options = ["--log", "json", "--request-timeout", "1500ms", "--lazy"];
    let mut bridge = Bridge::start(&options, &["hostile", "hang"]);
    let session = bridge.session();
    let answer = session.call("echo", json!({ "text": "a" }));
    assert_eq!(reason(&answer), "request_timeout");
    bridge.signal(Signal::SIGTERM);
    bridge.exit_code();
    let lines: Vec<Value> = bridge.log().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let field = |event: &str, name: &str| {
        let line = lines.iter().find(|line| line["event"] == event);
        line.unwrap_or_else(|| panic!("{event} is logged"))[name].clone()
    };
    assert_eq!(field("bridge.options", "request_timeout"), 1.5);
    assert_eq!(field("bridge.options", "idle_timeout"), 1800.0);
    assert_eq!(field("request.timeout", "after"), 1.5);
    assert_eq!(field("bridge.stopping", "within"), 8.0);
    assert!(field("session.end", "seconds").is_u64() && field("session.start", "keyed").is_boolean());
}

/// No value of a log line is what Rust calls a thing: what follows `?` in a tracing macro is written so.
#[test]
fn no_field_of_the_log_has_a_rust_form() {
    fn walk(path: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let is_debug = |line: &&str| {
                    let line = line.trim();
                    line.starts_with('?') || line.contains("= ?") || line.contains(", ?")
                };
                found.extend(text.lines().filter(is_debug).map(|line| format!("{}: {line}", path.display())));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.is_empty(), "{found:#?}");
}
