//! Starts that fail because of what one client sends: its trouble, and nobody else's. And a server that fails whoever asks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::Connection;
use crate::support::{
    Bridge, Request, Response, Session, assert_refused, eventually, example, initialize, json,
};

/// Ends when `initialize` has the word `bad`, after `$1` seconds; else it is a good server.
const PICKY: &str = r#"
    read -r line
    case "$line" in *bad*) sleep "$1"; echo "cannot parse that" >&2; exit 3;; esac
    id=${line#*'"id":'}
    result='{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"shell","version":"0"}}'
    echo "{\"jsonrpc\":\"2.0\",\"id\":${id%%[,\}]*},\"result\":$result}"
    exec "$0" good"#;

fn shell(options: &[&str], script: &str, argument: &str) -> Bridge {
    // An answer that takes longer is an event stream, whose status says nothing.
    Bridge::start(
        &[&["--sse-after", "20s"], options].concat(),
        &["sh", "-c", script, &example("hostile"), argument],
    )
}

/// `initialize` of a client with this name.
fn opening(name: &str) -> Request {
    let mut message = initialize(0, "2025-06-18");
    message["params"]["clientInfo"]["name"] = json!(name);
    Request::post("/mcp", message.to_string())
}

fn open(bridge: &Bridge, name: &str) -> Session {
    let mut response = bridge.send(opening(name));
    response.expect(200, "what others send is not this client's trouble");
    Session::from_response(bridge.address, &mut response)
}

fn count(bridge: &Bridge, event: &str) -> usize {
    bridge.log().iter().filter(|line| line.contains(&format!("event=\"{event}\""))).count()
}

/// While one client sends 33 bad ones a second, each with other words and headers, two clients come and go: one of a kind
/// that is new each time and one that is always the same. Returns how many bad ones were sent.
fn under_attack(bridge: &Bridge, for_so_long: Duration, new_ones: bool) -> usize {
    let (over, sent, served) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    thread::scope(|scope| {
        for attacker in 0..8 {
            let (over, sent) = (&over, &sent);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    let request = opening(&format!("bad {number}"))
                        .header("X-Secret", &number.to_string())
                        .header("User-Agent", &format!("agent {attacker} {number}"));
                    let status = request.send(bridge.address).status;
                    assert!(matches!(status, 200 | 502 | 503), "{status}");
                    thread::sleep(Duration::from_millis(240));
                }
            });
        }
        while begun.elapsed() < for_so_long {
            let number = served.fetch_add(1, Ordering::Relaxed);
            let name =
                if new_ones && number % 2 == 0 { format!("new {number}") } else { "regular".to_owned() };
            let session = open(bridge, &name);
            assert_eq!(session.text("echo", json!({ "text": "on" })), "on");
            assert_eq!(session.delete().status, 204);
            bridge.get("/readyz").expect(200, "the server works");
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) >= 5, "{served:?}");
    sent.load(Ordering::Relaxed)
}

#[test]
fn a_client_that_brings_the_server_down_with_other_words_each_time_is_in_nobodys_way() {
    for options in [&["--lazy"] as &[&str], &["--warm", "2"]] {
        let bridge = shell(options, PICKY, "0");
        assert!(under_attack(&bridge, Duration::from_secs(5), true) > 50);
        assert_eq!(count(&bridge, "child.crash_loop"), 0);
        for event in ["session.start", "session.end"] {
            let of_bad = bridge.log().len();
            assert!(count(&bridge, event) < 1100, "{event} of {of_bad} lines");
        }
    }
}

#[test]
fn a_client_whose_starts_fail_slowly_takes_no_places_from_words_that_have_worked() {
    let bridge = shell(&["--lazy", "--max-sessions", "16"], PICKY, "1");
    open(&bridge, "regular").delete();
    under_attack(&bridge, Duration::from_secs(6), false);
    assert_eq!(count(&bridge, "child.crash_loop"), 0);
}

#[test]
fn a_bridge_that_nobody_has_used_yet_finds_out_by_itself_that_the_server_works() {
    let bridge = shell(&["--lazy"], PICKY, "0");
    for number in 0..20 {
        assert_refused(&mut bridge.send(opening(&format!("bad {number}"))), 502, "child_exited");
        bridge.get("/readyz").expect(200, "what clients send proves nothing");
    }
    let line = bridge.logged("a trial", |line| line.contains(r#"event="child.trial""#));
    assert!(line.contains("works=true"), "{line}");
    assert_eq!(count(&bridge, "child.trial"), 1, "one is enough for a while");
    open(&bridge, "good");
    eventually("the trial leaves no process", || bridge.processes().len() == 1);
}

#[test]
fn a_client_that_repeats_what_fails_is_refused_for_a_while_and_others_are_not() {
    let bridge = shell(&["--lazy"], PICKY, "0");
    let mut refused = None;
    eventually("it is refused", || {
        let mut response = bridge.send(opening("bad"));
        if response.status == 503 {
            refused = Some(assert_refused(&mut response, 503, "spawn_backoff"));
            assert!(response.header("retry-after").is_some());
        } else {
            assert_refused(&mut response, 502, "child_exited");
        }
        refused.is_some()
    });
    let message = refused.unwrap()["error"]["message"].to_string();
    assert!(message.contains("this client"), "it is told whose trouble that is: {message}");
    bridge.logged("so is the operator", |line| line.contains(r#"event="client.crash_loop""#));
    bridge.get("/readyz").expect(200, "others are served");
    open(&bridge, "good");
}

/// What `github-mcp-server` does.
const NEEDS_TOKEN: &str = r#"
    if [ -z "$GITHUB_PERSONAL_ACCESS_TOKEN" ]; then echo "token is not set" >&2; exit 1; fi
    exec "$0" good"#;

#[test]
fn clients_without_the_header_that_the_server_needs_are_refused_and_those_with_it_are_served() {
    let options =
        ["--env-from-header", "GITHUB_PERSONAL_ACCESS_TOKEN=X-GitHub-Token", "--on-exit", "respawn"];
    let bridge = shell(&options, NEEDS_TOKEN, "");
    let with = |token: &str| opening("agent").header("X-GitHub-Token", token);
    let send = |request: Request| -> Response { bridge.send(request) };
    let mut statuses = Vec::new();
    eventually("those without it are refused soon", || {
        statuses.push(send(opening("agent")).status);
        send(with("one")).expect(200, "the header is there");
        bridge.get("/readyz").expect(200, "it is the clients");
        statuses.last() == Some(&503)
    });
    assert!(statuses.len() >= 5 && statuses[..5] == [502; 5], "{statuses:?}");
    // None of them is open any more, and nobody of these has been here before.
    for number in 0..40 {
        send(opening(&format!("other {number}")));
        send(with(&format!("two {number}"))).expect(200, "the header is there");
    }
    bridge.get("/readyz").expect(200, "it is the clients");
    assert_eq!(count(&bridge, "child.crash_loop"), 0);
}

#[test]
fn starts_that_fail_end_no_session_of_others_that_is_idle() {
    let bridge = shell(&["--lazy", "--evict", "--max-sessions", "3"], PICKY, "0");
    assert_refused(&mut bridge.send(opening("bad")), 502, "child_exited");
    let idle: Vec<Session> = (0..3).map(|_| open(&bridge, "regular")).collect();
    for number in 0..10 {
        assert_refused(&mut bridge.send(opening(&format!("bad {number}"))), 503, "too_many_sessions");
    }
    assert!(idle.iter().all(|session| session.ping().status == 200));
    let newer = open(&bridge, "regular");
    assert_eq!(newer.ping().status, 200, "whose words have worked gets the place of the longest idle one");
}

#[test]
fn many_starts_of_one_caller_that_hang_do_not_delay_that_of_another() {
    let bridge = shell(&["--lazy", "--max-starting", "2"], PICKY, "60");
    let hang: Vec<Connection> = (0..12)
        .map(|_| {
            let mut connection = Connection::open(bridge.address);
            connection.write(&opening("bad").to_bytes("localhost"));
            connection
        })
        .collect();
    eventually("two of them start", || bridge.processes().len() >= 2);
    let begun = Instant::now();
    open(&bridge, "good");
    assert!(begun.elapsed() < Duration::from_secs(4), "not after a start that hangs: {:?}", begun.elapsed());
    drop(hang);
}
