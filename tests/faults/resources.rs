//! When the system has no more to give: descriptors, processes, memory; and streams of the bridge's own that are
//! closed, full, or read by nobody.
//!
//! System calls are made to fail by strace, attached to the bridge alone: it is one thread, so its calls can be counted
//! and its children keep theirs. Where there is no strace, or it may not trace, those tests say so and pass.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::http::Connection;
use crate::support::{
    Bridge, Request, Response, Scratch, Session, Value, assert_refused, bridge_command, eventually, example,
    initialize, json, proc, run_command,
};

// ---------------------------------------------------------------------------------------------- what fails

/// System calls of a running bridge that fail, until [`Failing::stop`].
struct Failing {
    strace: Child,
    files: Scratch,
}

impl Failing {
    /// `what` as `strace -e inject=` takes it. `None`: this machine does not let us.
    #[track_caller]
    fn start(bridge: &Bridge, what: &str) -> Option<Self> {
        let files = Scratch::new();
        let calls = what.split(':').next().unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-o", &files.path("calls"), "-p", &bridge.pid().to_string()]);
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={what}")]);
        if calls == "execve" {
            strace.arg("-f"); // the one call that a child makes
        }
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(files.path("said")).unwrap());
        let Ok(mut strace) = strace.spawn() else {
            eprintln!("skipped: there is no strace to make system calls fail");
            return None;
        };
        let mut ended = false;
        eventually("strace is attached", || {
            ended = strace.try_wait().unwrap().is_some();
            ended || files.read("said").contains("attached")
        });
        if ended {
            let said = files.read("said");
            assert!(said.contains("ptrace") || said.contains("not permitted"), "{what}: {said}");
            eprintln!("skipped: this machine does not let strace trace: {}", said.trim());
            return None;
        }
        Some(Failing { strace, files })
    }

    /// Lets them succeed again, and tells how many have failed.
    #[track_caller]
    fn stop(mut self) -> usize {
        kill(Pid::from_raw(self.strace.id().cast_signed()), Signal::SIGINT).unwrap();
        eventually("strace lets go", || self.strace.try_wait().unwrap().is_some());
        self.files.read("calls").matches("(INJECTED)").count()
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// The bridge under limits that a shell sets before it becomes the bridge.
fn limited(limit: &str, options: &[&str], command: &[&str]) -> Command {
    let inner = bridge_command(&[&["--listen", "127.0.0.1:0"], options].concat(), command);
    let mut outer = Command::new("sh");
    outer
        .args(["-c", &format!(r#"{limit}; exec "$0" "$@""#)])
        .arg(inner.get_program())
        .args(inner.get_args());
    outer
}

/// The processor time that a process has used. A tick is 10 ms wherever Linux runs (USER_HZ of proc(5)).
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn echo(session: &Session) {
    assert_eq!(session.text("echo", json!({ "text": "on" })), "on");
}

/// The next request on a connection that is there already.
fn ask(mut connection: Connection, request: &Request) -> Response {
    connection.write(&request.to_bytes("localhost"));
    connection.response()
}

fn opening() -> Request {
    Request::post("/mcp", initialize(0, "2025-06-18").to_string())
}

// ---------------------------------------------------------------------------------------------- descriptors

#[test]
fn while_accept_fails_the_bridge_rests_and_whoever_is_in_is_served() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let session = bridge.session();
    let mut inside = ask(Connection::open(bridge.address), &Request::new("GET", "/healthz"));
    inside.text();
    let mut call = session.start_call("sleep", json!({ "ms": 1500 }));
    assert!(call.is_sse(), "its stream has begun");

    let Some(failing) = Failing::start(&bridge, "accept4:error=EMFILE") else { return };
    let (began, used) = (Instant::now(), processor_time(bridge.pid()));
    let mut outside = Connection::open(bridge.address);
    outside.write(&Request::new("GET", "/healthz").to_bytes("localhost"));
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let mut inside = ask(inside.into_connection(), &session.headers(Request::post("/mcp", ping)));
    inside.expect(200, "a connection that is there is served");
    assert_eq!(call.answer()["result"]["content"][0]["text"], "slept", "a call in flight is answered");
    thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed())); // long enough to see it burn
    let (passed, used) = (began.elapsed(), processor_time(bridge.pid()) - used);
    let failed = failing.stop();

    assert!(failed > 0, "accept was tried");
    let most = passed.as_millis() / 50;
    assert!(failed as u128 <= most, "tried {failed} times in {passed:?}: it does not rest");
    assert!(used < passed / 4, "{used:?} of processor time in {passed:?}");
    assert_eq!(outside.response().status, 200, "who waited is served as soon as it is possible");
    echo(&bridge.session());
    bridge.logged("it says what is wanting", |line| {
        line.contains("accept.failed") && line.contains("Too many open files")
    });
}

/// More clients than a bridge with 64 descriptors has room for. They have said something, so they may stay.
fn crowd(bridge: &Bridge) -> Vec<Connection> {
    let connect = |_| {
        let mut connection = Connection::open(bridge.address);
        connection.write(&Request::new("GET", "/healthz").to_bytes("localhost"));
        connection
    };
    let crowd = (0..80).map(connect).collect();
    bridge.logged("no descriptor is left", |line| line.contains("accept.failed"));
    crowd
}

#[test]
fn at_the_limit_of_open_files_a_session_is_refused_politely_and_room_is_used_again() {
    let mut bridge = Bridge::spawn(limited(
        "ulimit -n 64",
        &["--lazy", "--max-connections", "1000"],
        &["hostile", "good"],
    ));
    let session = bridge.session();
    let mut inside = ask(Connection::open(bridge.address), &Request::new("GET", "/healthz"));
    inside.text();
    let crowd = crowd(&bridge);
    let mut refused = ask(inside.into_connection(), &opening());
    assert_refused(&mut refused, 503, "spawn_resource");
    assert!(refused.header("retry-after").is_some(), "a 503 says when to come back");
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let mut inside = ask(refused.into_connection(), &session.headers(Request::post("/mcp", ping)));
    inside.expect(200, "a session that is there goes on");

    drop((crowd, inside));
    eventually("a new session finds room", || bridge.send(opening()).status == 200);
    echo(&session);
    bridge.signal(Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 0);
    bridge.leaves_nothing();
}

#[test]
fn a_limit_of_open_files_that_does_not_fit_the_sessions_is_said_at_the_start() {
    let files = "event=\"limits.too_few_files\" limit=300 wanted=782"; // 3 each for 200, 118 connections, 64 to spare
    let bridge = Bridge::spawn(limited("ulimit -n 300", &["--max-sessions", "200"], &["hostile", "good"]));
    bridge.logged("it says so", |line| line.contains("WARN") && line.contains(files));
    let fitting = Bridge::spawn(limited("ulimit -n 300", &["--max-sessions", "20"], &["hostile", "good"]));
    fitting.session();
    assert!(!fitting.log().iter().any(|line| line.contains("too_few_files")));
}

#[test]
fn at_the_limit_of_open_files_a_bridge_in_a_hurry_leaves_nothing_too() {
    let mut bridge = Bridge::spawn(limited(
        "ulimit -n 64",
        &["--lazy", "--max-connections", "1000"],
        &["hostile", "daemon"],
    ));
    echo(&bridge.session());
    assert_eq!(bridge.processes().len(), 2, "a server and what it left behind");
    let crowd = crowd(&bridge);
    bridge.signal(Signal::SIGQUIT);
    assert_eq!(bridge.exit_code(), 128 + 3);
    bridge.leaves_nothing();
    drop(crowd);
}

#[test]
fn with_too_few_descriptors_to_begin_the_bridge_says_so_and_ends() {
    for limit in 4..=12 {
        let finished = run_command(limited(&format!("ulimit -n {limit}"), &[], &["notebook"]));
        assert!(matches!(finished.code, Some(2 | 126)), "{limit}: {:?} {}", finished.code, finished.stderr);
        assert!(finished.stderr.contains("Too many open files"), "{limit}: {}", finished.stderr);
    }
}

// ---------------------------------------------------------------------------------------------- processes

/// What starting a child takes: three pipes, a pair of sockets on which std hears of a failed exec, a fork, the exec, and
/// three registrations with epoll after the one of the client's own connection.
const WANTING: [&str; 11] = [
    "pipe2:error=EMFILE",
    "pipe2:error=EMFILE:when=2",
    "pipe2:error=ENFILE:when=3",
    "socketpair:error=EMFILE",
    "?fork,?vfork,clone,?clone3:error=EAGAIN",
    "?fork,?vfork,clone,?clone3:error=ENOMEM",
    "execve:error=ENOMEM",
    "execve:error=EAGAIN",
    "epoll_ctl:error=ENOMEM:when=2",
    "epoll_ctl:error=ENOMEM:when=3",
    "epoll_ctl:error=ENOMEM:when=4",
];

#[test]
fn a_session_that_cannot_start_for_want_of_a_resource_leaves_nothing_and_the_next_one_starts() {
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    // Two seats, one taken: a seat that a failure keeps would be missed at once. A child that failed behind its exec
    // must be killed, it does not leave by itself.
    let options = ["--lazy", "--max-sessions", "2", "--stop-grace", "50ms"];
    let bridge = Bridge::start(&options, &["hostile", "ignore_term"]);
    let files = proc::open_files(bridge.pid()) + 3; // the pipes of one child, and no connection any more
    let session = bridge.session();
    let settled = || proc::open_files(bridge.pid()) == files && bridge.processes().len() == 1;
    eventually("one session takes three pipes", settled);
    for (number, what) in WANTING.into_iter().enumerate() {
        let Some(failing) = Failing::start(&bridge, what) else { return };
        let mut refused = bridge.send(opening());
        assert!(failing.stop() > 0, "{what}: something failed");
        let answer = assert_refused(&mut refused, 503, "spawn_resource");
        assert_eq!(answer["id"], 0, "{what}: nothing has happened, so the client may try again");
        assert!(refused.header("retry-after").is_some(), "{what}: a 503 says when to come back");
        assert!(refused.header("mcp-session-id").is_none(), "{what}: there is no session");
        let logged = || bridge.log().iter().filter(|line| line.contains("child.spawn_failed")).count();
        let expected = (number + 1).min(10); // clients can cause these lines
        eventually(&format!("{what} is logged once"), || logged() == expected);
        drop(refused);
        eventually(&format!("{what} leaves no file and no process"), settled);
        eventually(&format!("{what} leaves no zombie"), || bridge.zombies().is_empty());

        echo(&session);
        let next = bridge.session();
        echo(&next);
        next.delete();
        eventually(&format!("after {what} all is as before"), settled);
    }
}

#[test]
fn a_child_kept_warm_serves_while_none_can_be_started_and_another_follows_when_it_can() {
    let bridge = Bridge::start(&["--warm", "1"], &["hostile", "good"]);
    let started = || bridge.log().iter().filter(|line| line.contains("child.warm")).count();
    eventually("one is started ahead", || started() == 1);
    let Some(failing) = Failing::start(&bridge, "?fork,?vfork,clone,?clone3:error=EAGAIN") else { return };
    let session = bridge.session();
    echo(&session);
    bridge.logged("the next one cannot be started", |line| line.contains("child.spawn_failed"));
    assert!(failing.stop() > 0, "fork was tried");
    echo(&bridge.session());
    eventually("another one is started ahead", || started() == 2);
    echo(&session);
}

#[test]
fn a_command_that_vanished_is_a_refusal_and_one_that_is_back_serves() {
    let scratch = Scratch::new();
    let command = scratch.path("server");
    symlink(example("hostile"), &command).unwrap();
    let bridge = Bridge::start(&["--lazy", "--max-sessions", "2"], &[&command, "good"]);
    let session = bridge.session();
    let make: [(&str, &dyn Fn()); 3] = [
        ("No such file", &|| {}),
        ("Permission denied", &|| {
            scratch.write("server", "#!/bin/sh\n");
            fs::set_permissions(&command, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        // Its interpreter is missing, as in an image that was made of another one's files.
        ("No such file", &|| {
            scratch.write("server", "#!/no/such/interpreter\n");
            fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
        }),
    ];
    for (why, make) in make {
        let _ = fs::remove_file(&command);
        make();
        let mut refused = bridge.send(opening());
        assert_refused(&mut refused, 503, "spawn_failed");
        bridge
            .logged("why it cannot be run", |line| line.contains("child.spawn_failed") && line.contains(why));
        echo(&session);
    }
    fs::remove_file(&command).unwrap();
    symlink(example("hostile"), &command).unwrap();
    echo(&bridge.session());
    assert_eq!(bridge.zombies(), []);
}

// ---------------------------------------------------------------------------------------------- memory

#[test]
fn a_quarter_of_a_gigabyte_of_address_space_is_enough() {
    let bridge = Bridge::spawn(limited("ulimit -v 262144", &[], &["hostile", "good"]));
    let sessions: Vec<Session> = (0..3).map(|_| bridge.session()).collect();
    let large = "x".repeat(1 << 20);
    for session in &sessions {
        assert_eq!(session.text("echo", json!({ "text": large })), large);
    }
}

// ---------------------------------------------------------------------------------------------- its own streams

/// A bridge whose own streams belong to the test. Its children die with it.
struct Bare(Child);

impl Bare {
    fn spawn(mut command: Command) -> Self {
        Bare(command.spawn().unwrap())
    }

    /// The kernel knows where it listens; the start line may be lost.
    #[track_caller]
    fn address(&self) -> SocketAddr {
        let mut address = None;
        eventually("the bridge listens", || {
            address = listening(self.0.id());
            address.is_some()
        });
        address.unwrap()
    }

    #[track_caller]
    fn session(&self) -> Session {
        let address = self.address();
        let session = Session::from_response(address, &mut opening().send(address));
        session.notify("notifications/initialized", json!({}));
        session
    }

    #[track_caller]
    fn end(mut self) -> Option<i32> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        let mut status = None;
        eventually("the bridge exits", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a process listens: the local address of a socket of its own in state 0A (proc(5), /proc/net/tcp).
fn listening(pid: u32) -> Option<SocketAddr> {
    let own: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    let port = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields[3] == "0A" && own.contains(&format!("socket:[{}]", fields[9]));
        is_ours.then(|| u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok())?
    })?;
    Some(([127, 0, 0, 1], port).into())
}

#[test]
fn with_any_of_its_own_streams_closed_or_broken_the_bridge_serves() {
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    let streams =
        ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"];
    for streams in streams {
        let inner = bridge_command(&["--listen", "127.0.0.1:0"], &["hostile", "good"]);
        let mut outer = Command::new("sh");
        outer.args(["-c", &format!(r#"exec "$0" "$@" {streams}"#)]);
        outer.arg(inner.get_program()).args(inner.get_args());
        outer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let bridge = Bare::spawn(outer);
        let (one, two) = (bridge.session(), bridge.session());
        echo(&one);
        for number in 0..=2 {
            let file = fs::read_link(format!("/proc/{}/fd/{number}", bridge.0.id())).unwrap();
            let is_device = file.starts_with("/dev");
            assert!(
                is_device,
                "{streams}: {number} is {file:?}; what is logged would go to a client or a child"
            );
        }
        one.delete();
        echo(&two);
        assert_eq!(bridge.end(), Some(0), "{streams}");
    }
}

/// Lines of 8000 bytes that the first child says on stderr before it serves: more than a pipe and what the bridge keeps
/// for a reader that comes back.
const SAID: usize = 300;

/// A bridge of which nobody reads the log, and that has lost lines of it. Its session is served meanwhile.
fn unread(options: &[&str]) -> (Bare, PipeReader, Scratch) {
    let scratch = Scratch::new();
    let say = format!(
        r#"if mkdir "$1" 2>/dev/null; then
               i=0; while [ $i -lt {SAID} ]; do printf 'said %07995d\n' 0 >&2; i=$((i + 1)); done
           fi
           exec "$0" good"#
    );
    let command = ["sh", "-c", &say, &example("hostile"), &scratch.path("first")];
    let mut bridge = bridge_command(&[&["--listen", "127.0.0.1:0", "--lazy"], options].concat(), &command);
    let (log, stderr) = pipe().unwrap();
    bridge.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let bridge = Bare::spawn(bridge);
    // It serves only after the bridge has taken what it had to say.
    let session = bridge.session();
    echo(&session);
    assert_eq!(session.delete().status, 204);
    (bridge, log, scratch)
}

/// Reads the log again, until it says how much was lost.
fn read_again(bridge: &Bare, log: PipeReader) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let read = Arc::clone(&lines);
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            read.lock().unwrap().push(line);
        }
    });
    eventually("it says how much was lost", || {
        bridge.session().delete(); // something to log: what waits is written then
        lines.lock().unwrap().iter().any(|line: &String| line.contains("log.dropped"))
    });
    lines.lock().unwrap().clone()
}

#[test]
fn a_log_that_nobody_reads_stops_nobody_and_loses_no_line_uncounted() {
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    let (bridge, log, _scratch) = unread(&[]);
    let lines = read_again(&bridge, log);
    let told = lines.iter().find(|line| line.contains("log.dropped")).unwrap();
    let lost: usize = told.split("lines=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let kept = lines.iter().filter(|line| line.contains("line=\"said 0")).count();
    assert!(kept < SAID, "a pipe does not hold so much");
    assert!(kept + lost >= SAID, "{kept} of {SAID} lines came and {lost} are told as lost");
    assert!(lines.iter().all(|line| line.len() < 10_000), "no line is cut into another");
    assert_eq!(bridge.end(), Some(0));
}

#[test]
fn with_log_json_the_line_about_lost_lines_is_an_object_too() {
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    let (bridge, log, _scratch) = unread(&["--log", "json"]);
    for line in read_again(&bridge, log) {
        assert!(serde_json::from_str::<Value>(&line).is_ok_and(|line| line.is_object()), "{line}");
    }
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_bridge_from_ending() {
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    let (bridge, mut log, _scratch) = unread(&[]);
    assert_eq!(bridge.end(), Some(0));
    log.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_log_whose_reader_is_gone_stops_nobody() {
    if !proc::shows_files_of_a_bridge() {
        return;
    }
    for gone_when_full in [false, true] {
        let (bridge, log) = if gone_when_full {
            let (bridge, log, _) = unread(&[]);
            (bridge, log)
        } else {
            let mut bridge = bridge_command(&["--listen", "127.0.0.1:0"], &["hostile", "flood_stderr"]);
            let (log, stderr) = pipe().unwrap();
            let (gone, stdout) = pipe().unwrap();
            drop(gone);
            bridge.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            (Bare::spawn(bridge), log)
        };
        let session = bridge.session();
        drop(log);
        for _ in 0..20 {
            echo(&session);
        }
        echo(&bridge.session());
        assert_eq!(bridge.end(), Some(0));
    }
}
