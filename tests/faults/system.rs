//! Faults of the system around the bridge: clocks, addresses, networks, disks, and its own mistakes.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use crate::beside::assert_data;
use crate::support::http::Connection;
use crate::support::{
    self, Bridge, Request, Session, Value, bridge_command, eventually, initialize, json, proc, reason, run,
};

/// The files of the program, without those that are tests alone.
fn sources() -> Vec<(String, String)> {
    fn walk(path: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(path).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]").next().unwrap_or_default().to_owned();
                found.push((path.display().to_string(), code));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the sources are there");
    found
}

// ---------------------------------------------------------------------------------------------- clocks

#[test]
fn no_timer_knows_the_wall_clock() {
    // The stamps of log lines are for people, who live by that clock, and those of files are the kernel's.
    let stamps = ["/log.rs", "/token.rs"];
    for (path, code) in
        sources().into_iter().filter(|(path, _)| !stamps.iter().any(|stamp| path.ends_with(stamp)))
    {
        for word in ["SystemTime", "UNIX_EPOCH", "CLOCK_REALTIME", "gettimeofday", "chrono::"] {
            assert!(!code.contains(word), "{path} names {word}: a clock step must not end sessions");
        }
    }
    let lints = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".clippy.toml")).unwrap();
    assert!(lints.contains("std::time::SystemTime::now"), "clippy says so too");
}

// ---------------------------------------------------------------------------------------------- addresses

#[test]
fn an_address_that_cannot_be_had_is_2_and_one_event_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = taken.local_addr().unwrap().to_string();
    let socket = "unix:/no/such/directory/bridge.sock";
    // 192.0.2.1 is nobody's (RFC 5737).
    for (address, why) in [(&*in_use, "in use"), ("192.0.2.1:0", "assign"), (socket, "No such file")] {
        let finished = run(&["--listen", address], &["notebook"]);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("event=")).collect();
        let bare = address.trim_start_matches("unix:");
        let says = |line: &str| {
            ["ERROR", r#"event="listen.failed""#, bare, why, "--listen"]
                .iter()
                .all(|word| line.contains(word))
        };
        assert!(matches!(lines[..], [line] if says(line)), "{address}: {}", finished.stderr);
    }
}

/// A bridge on an address that is not 127.0.0.1; ended at the end of the test.
struct Elsewhere {
    process: Child,
    port: u16,
}

impl Elsewhere {
    fn start(listen: &str) -> Self {
        let mut command = bridge_command(&["--listen", listen], &["notebook"]);
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = log.find(|line| line.contains("bridge.start")).expect("the bridge starts");
        thread::spawn(move || log.for_each(drop)); // a log that nobody reads is a fault of its own
        let url = line.split("]:").nth(1).expect("an IPv6 address with its port");
        let port = url.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        Elsewhere { process, port }
    }

    fn assert_serves(&self, address: SocketAddr) {
        let mut response = Request::post("/mcp", initialize(0, "2025-06-18").to_string()).send(address);
        response.expect(200, "initialize is answered");
        let session = Session::from_response(address, &mut response);
        assert_eq!(session.text("list_notes", json!({})), "no notes yet");
        session.delete();
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

#[test]
fn a_file_at_the_address_that_is_no_socket_is_2_and_stays() {
    let scratch = support::Scratch::new();
    let (file, link) = (scratch.write("notes", "kept"), scratch.path("link"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &scratch.path("")] {
        let finished = run(&["--listen", &format!("unix:{}", path.trim_end_matches('/'))], &["notebook"]);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        let sentence = "a file that is not a socket is in the way; remove it, or choose another path";
        assert!(finished.stderr.contains(sentence), "{}", finished.stderr);
    }
    assert_eq!(fs::read_to_string(&link).unwrap(), "kept");
}

#[test]
fn an_ending_bridge_leaves_the_socket_file_of_its_successor() {
    let scratch = support::Scratch::new();
    let path = scratch.path("bridge.sock");
    let listen = format!("unix:{path}");
    let start = || bridge_command(&["--listen", &listen], &["notebook"]).spawn().unwrap();
    let end = |mut bridge: Child| {
        let pid = nix::unistd::Pid::from_raw(bridge.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        bridge.wait().unwrap()
    };
    let served = || std::os::unix::net::UnixStream::connect(&path).is_ok();
    let first = start();
    eventually("the first one is there", served);
    fs::remove_file(&path).unwrap();
    let second = start();
    eventually("the second one is there", served);
    end(first);
    assert!(served(), "the path is not the first one's any more");
    end(second);
    assert!(!Path::new(&path).exists(), "the second one's own file goes");
}

#[test]
fn localhost_is_both_loopback_addresses() {
    let mut bridge = bridge_command(&["--listen", "localhost:0"], &["notebook"]);
    bridge.env_remove("PORT");
    let bridge = Bridge::spawn(bridge);
    let port = bridge.address.port();
    bridge.get("/healthz").expect(200, "IPv4");
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped in part: this machine has no IPv6 loopback");
        return;
    }
    Request::new("GET", "/healthz").send((Ipv6Addr::LOCALHOST, port).into()).expect(200, "IPv6");
    let listen = format!("localhost:{port}");
    assert_eq!(run(&["--listen", &listen, "--healthcheck"], &[]).code, Some(0));
}

#[test]
fn several_addresses_are_served_at_once() {
    let scratch = support::Scratch::new();
    let path = scratch.path("bridge.sock");
    let listen = format!("unix:{path}");
    let options = ["--listen", &listen, "--listen", "127.0.0.1:0", "--socket-mode", "600"];
    let bridge = Bridge::spawn(bridge_command(&options, &["notebook"]));
    bridge.get("/healthz").expect(200, "TCP");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(run(&["--listen", &listen, "--healthcheck"], &[]).code, Some(0), "the socket file");
    let first = bridge.log().into_iter().next().unwrap();
    assert!(first.contains("bridge.start") && first.contains(&listen), "{first}");
}

#[test]
fn an_ipv6_address_alone_is_served() {
    if let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        eprintln!("skipped: this machine has no IPv6 loopback: {error}");
        return;
    }
    let only_six = Elsewhere::start("[::1]:0");
    only_six.assert_serves((Ipv6Addr::LOCALHOST, only_six.port).into());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, only_six.port)).is_err(), "nobody asked for IPv4");
}

// ---------------------------------------------------------------------------------------------- time without traffic

#[test]
fn sixty_four_idle_sessions_end_each_by_itself_and_those_in_use_stay() {
    let bridge =
        Bridge::start(&["--idle-timeout", "1s", "--lazy", "--max-sessions", "66"], &["hostile", "good"]);
    let (listening, busy) = (bridge.session(), bridge.session());
    let mut stream = listening.listen();
    let call = busy.begin(support::tool_call(1, "sleep", json!({ "ms": 600_000 })).to_string());
    let idle: Vec<Session> = (0..64).map(|_| bridge.session()).collect();
    eventually("only those in use are left", || bridge.processes().len() == 2);
    for session in &idle {
        let mut response = session.ping();
        response.expect(404, "an idle session has ended");
        let answer = response.json();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32001)));
        assert_eq!(reason(&answer), "session_terminated");
        assert_data(&answer, &json!({ "cause": "idle" }));
        let line = bridge.logged("its end", |line| {
            line.contains(r#"event="session.end""#) && line.contains(&session.id[..8])
        });
        assert!(line.contains("INFO") && line.contains(r#"reason="idle""#), "{line}");
    }
    busy.ping().expect(200, "its call goes on");
    assert_eq!(busy.delete().status, 204);
    assert_eq!(reason(&call.response().answer()), "session_terminated");
    assert_eq!(listening.text("echo", json!({ "text": "a" })), "a");
    assert!(stream.is_silent_for(std::time::Duration::from_millis(50)), "and its stream is open");
}

// ---------------------------------------------------------------------------------------------- networks

/// The timer that the kernel runs for the bridge's end of this connection: its kind, and what is left of it in seconds.
fn timer(bridge: &Bridge, client: SocketAddr) -> Option<(u32, f64)> {
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", bridge.pid())).unwrap();
    let line = table.lines().find(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&*hex(bridge.address)) && fields.next() == Some(&*hex(client))
    })?;
    // proc_net_tcp(5): "tr tm->when" is the sixth field; 2 is the keep-alive timer, counted in hundredths.
    let (kind, left) = line.split_whitespace().nth(5)?.split_once(':')?;
    Some((u32::from_str_radix(kind, 16).ok()?, f64::from(u32::from_str_radix(left, 16).ok()?) / 100.0))
}

#[test]
fn a_peer_that_says_nothing_is_probed_within_half_a_minute() {
    let bridge = Bridge::start(&[], &["notebook"]);
    let silent = TcpStream::connect(bridge.address).unwrap();
    let address = silent.local_addr().unwrap();
    eventually("its keep-alive timer runs", || timer(&bridge, address).is_some_and(|(kind, _)| kind == 2));
    let (_, left) = timer(&bridge, address).unwrap();
    assert!((1.0..=30.0).contains(&left), "the default of Linux is two hours, this is {left} s");
}

#[test]
fn every_stream_says_that_nothing_between_may_hold_it_back() {
    let bridge = Bridge::start(&["--keep-alive", "100ms", "--sse-after", "50ms"], &["hostile", "hang"]);
    let session = bridge.session();
    let waiting = session.post(support::tool_call(1, "echo", json!({})).to_string());
    for mut stream in [session.listen(), waiting] {
        assert_eq!(stream.header("x-accel-buffering"), Some("no"), "nginx");
        let cache = stream.header("cache-control").unwrap_or_default().to_owned();
        assert!(cache.contains("no-cache") && cache.contains("no-transform"), "{cache}");
        stream.wait_for_comments(3);
    }
}

#[test]
fn a_session_of_another_replica_is_404_and_unharmed() {
    let replicas = ["a", "b"].map(|label| Bridge::start(&["--replica", label], &["notebook"]));
    let sessions = replicas.each_ref().map(Bridge::session);
    for (bridge, session) in replicas.iter().rev().zip(&sessions) {
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        let mut response = bridge.send(session.headers(Request::post("/mcp", ping)));
        let refusal = support::assert_refused(&mut response, 404, "session_not_found");
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&Value::Null, &json!(-32001)));
        assert_eq!(session.text("list_notes", json!({})), "no notes yet", "where it lives, it lives on");
    }
}

// ---------------------------------------------------------------------------------------------- disks

#[test]
fn a_bridge_that_may_write_no_file_serves_all_the_same() {
    let inner = bridge_command(&["--listen", "127.0.0.1:0"], &["notebook"]);
    let mut outer = Command::new("sh");
    // The first byte written to any file would end the writer by SIGXFSZ.
    outer.args(["-c", r#"ulimit -f 0; cd /; exec "$0" "$@""#]);
    outer.arg(inner.get_program()).args(inner.get_args());
    let mut bridge = Bridge::spawn(outer);
    let limits = fs::read_to_string(format!("/proc/{}/limits", bridge.pid())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max file size")).unwrap();
    assert_eq!(limit.split_whitespace().nth(3), Some("0"), "{limit}");

    let session = bridge.session();
    let text = "x".repeat(1 << 20);
    session.text("add_note", json!({ "title": "a", "text": text }));
    assert_eq!(session.text("list_notes", json!({})), "1. a");
    let mut cut = Connection::open(bridge.address);
    cut.write(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    drop(cut);
    // Shown to root alone.
    for entry in fs::read_dir(format!("/proc/{}/fd", bridge.pid())).into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let regular = target.is_absolute() && !target.starts_with("/dev") && !target.starts_with("/proc");
        assert!(!regular, "no file is open: {}", target.display());
    }
    assert!(proc::is_alive(bridge.pid()));
    bridge.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 0);
}

// ---------------------------------------------------------------------------------------------- its own mistakes

#[test]
fn what_can_panic_is_a_lint() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let lints = manifest.split("[lints.clippy]").nth(1).expect("there are lints");
    for lint in ["unwrap_used", "expect_used", "indexing_slicing", "panic", "todo"] {
        assert!(lints.lines().any(|line| line.starts_with(&format!("{lint} = "))), "{lint} is a lint");
        for (path, code) in sources() {
            assert!(!code.contains(&format!("allow(clippy::{lint}")), "{path} allows {lint}");
        }
    }
    let ci = fs::read_to_string(root.join(".ci/run")).unwrap();
    assert!(ci.contains("clippy") && ci.contains("-D warnings"), "and a lint that warns fails the run");
}
