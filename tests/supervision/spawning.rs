//! How servers are started and what they leave: few start at once, nobody tries without end what fails each time, and
//! daemons of a server go with its session. Also how many connections there may be, and what SIGUSR1 shows.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::http::Connection;
use crate::support::{
    self, Bridge, PATIENCE, Request, Response, Scratch, Session, assert_refused, bridge_command, eventually,
    example, first_is_hostile, initialize, json, proc, text_of, within,
};

/// A bridge whose children run a shell script; `$0` is `hostile`, `$1` a directory.
#[track_caller]
fn shell(options: &[&str], scratch: &Scratch, script: &str) -> Bridge {
    Bridge::start(options, &["sh", "-c", script, &example("hostile"), &scratch.path("")])
}

fn opening() -> Request {
    Request::post("/mcp", initialize(0, "2025-06-18").to_string())
}

/// Sends `initialize` without waiting for any answer.
fn begin(bridge: &Bridge) -> Connection {
    let mut connection = Connection::open(bridge.address);
    connection.write(&opening().to_bytes(&bridge.address.to_string()));
    connection
}

/// What was sent to the bridge before has been read by it afterwards.
fn settle(bridge: &Bridge) {
    for _ in 0..10 {
        bridge.get("/healthz").expect(200, "the bridge lives");
    }
}

fn echo(session: &Session) {
    assert_eq!(session.text("echo", json!({ "text": "on" })), "on");
}

// ---------------------------------------------------------------------------------------------- starts at once

/// Writes down when it starts and when it is about to answer `initialize`, which it does when the file `go` is there.
const NOTED_START: &str = r#"
    echo start >> "$1/log"
    read -r line
    while [ ! -e "$1/go" ]; do sleep 0.02; done
    echo answer >> "$1/log"
    id=${line#*'"id":'}
    result='{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"shell","version":"0"}}'
    echo "{\"jsonrpc\":\"2.0\",\"id\":${id%%[,\}]*},\"result\":$result}"
    exec "$0" good"#;

#[test]
fn so_many_servers_start_at_once_and_whoever_waits_has_a_seat() {
    let scratch = Scratch::new();
    let options = ["--lazy", "--max-starting", "2", "--max-sessions", "6", "--sse-after", "20s"];
    let bridge = shell(&options, &scratch, NOTED_START);
    let clients: Vec<Connection> = (0..6).map(|_| begin(&bridge)).collect();
    let starts = || scratch.read("log").lines().filter(|line| *line == "start").count();
    eventually("two servers start", || starts() == 2);
    settle(&bridge);
    assert_refused(&mut bridge.send(opening()), 503, "too_many_sessions");
    assert_eq!((starts(), proc::children(bridge.pid()).len()), (2, 2), "the others wait");

    scratch.write("go", "");
    for client in clients {
        let mut response = client.response();
        response.expect(200, "each is served in the end");
        echo(&Session::from_response(bridge.address, &mut response));
    }
    let mut starting = 0;
    for line in scratch.read("log").lines() {
        starting = if line == "start" { starting + 1 } else { starting - 1 };
        assert!(starting <= 2, "{starting} at once");
    }
    assert_eq!(starts(), 6);
}

#[test]
fn a_start_that_hangs_gives_its_place_to_others_after_five_seconds() {
    let scratch = Scratch::new();
    let command = first_is_hostile(&scratch, "hang_init");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let bridge = Bridge::start(&["--lazy", "--max-starting", "1"], &command);
    let begun = Instant::now();
    let _hangs = begin(&bridge);
    eventually("the first one starts", || !bridge.processes().is_empty());
    echo(&bridge.session());
    assert!(begun.elapsed() >= Duration::from_secs(5), "it had its time: {:?}", begun.elapsed());
}

#[test]
fn a_client_that_leaves_while_it_waits_for_a_start_leaves_its_seat() {
    let scratch = Scratch::new();
    let options = ["--lazy", "--max-starting", "1", "--max-sessions", "2"];
    let bridge = shell(&options, &scratch, NOTED_START);
    let first = begin(&bridge);
    eventually("the first one starts", || !bridge.processes().is_empty());
    let leaves = begin(&bridge);
    settle(&bridge);
    assert_refused(&mut bridge.send(opening()), 503, "too_many_sessions");
    drop(leaves);
    let mut waiting = None;
    eventually("its seat is free", || {
        let (tell, told) = mpsc::channel();
        let next = begin(&bridge);
        thread::spawn(move || tell.send(next.response()).is_ok());
        match told.recv_timeout(Duration::from_secs(1)) {
            Ok(mut response) => drop(assert_refused(&mut response, 503, "too_many_sessions")),
            Err(_) => waiting = Some(told),
        }
        waiting.is_some()
    });
    scratch.write("go", "");
    first.response().expect(200, "the first one is served");
    let mut next = waiting.unwrap().recv_timeout(support::PATIENCE).unwrap();
    next.expect(200, "there is a seat for another one");
}

#[test]
fn a_client_that_waits_for_a_start_is_told_when_the_bridge_stops() {
    let scratch = Scratch::new();
    let options = ["--lazy", "--max-starting", "1", "--shutdown-timeout", "4s"];
    let mut bridge = shell(&options, &scratch, NOTED_START);
    let first = begin(&bridge);
    eventually("the first one starts", || scratch.read("log").lines().count() == 1);
    let waits = begin(&bridge);
    settle(&bridge);
    bridge.signal(Signal::SIGTERM);
    assert_refused(&mut waits.response(), 503, "shutting_down");
    drop(first);
    assert_eq!(bridge.exit_code(), 0);
    assert_eq!(scratch.read("log").lines().count(), 1, "nothing was started for it");
    assert_eq!(bridge.processes(), []);
}

// ---------------------------------------------------------------------------------------------- starts that fail

/// Good while there is the file `good`.
const FAILS: &str = r#"if [ -e "$1/good" ]; then exec "$0" good; fi; echo >> "$1/starts"; exit 3"#;

#[test]
fn servers_that_fail_at_each_start_are_started_with_pauses_until_one_does_not() {
    let scratch = Scratch::new();
    scratch.write("good", "");
    let bridge = shell(&["--lazy", "--sse-after", "20s"], &scratch, FAILS);
    let live = bridge.session();
    let set_good = |good: bool| match good {
        true => drop(scratch.write("good", "")),
        false => std::fs::remove_file(scratch.path("good")).unwrap(),
    };
    let crash_loops =
        || bridge.log().into_iter().filter(|line| line.contains(r#"event="child.crash_loop""#)).count();

    set_good(false);
    let (mut failed, mut before_the_first_pause) = (0, None);
    let mut open = || {
        let mut response = bridge.send(opening());
        if response.status == 503 {
            before_the_first_pause.get_or_insert(failed);
            assert_refused(&mut response, 503, "spawn_backoff");
            let pause: u64 = response.header("retry-after").unwrap().parse().unwrap();
            return Some(pause);
        }
        assert_refused(&mut response, 502, "child_exited");
        failed += 1;
        None
    };
    // Pauses are anything between nothing and a limit that grows; wait for one that leaves time to look.
    eventually("its client is refused", || open() >= Some(2));
    bridge.get("/readyz").expect(200, "another session serves: its clients must not be sent elsewhere");
    assert_eq!(crash_loops(), 0);
    echo(&live);
    live.delete();
    eventually("it is seen that the server starts for nobody", || {
        open();
        bridge.get("/readyz").status == 503
    });
    bridge.get("/healthz").expect(200, "a restart would not help");
    assert!(before_the_first_pause >= Some(5), "a few failures are no loop: {before_the_first_pause:?}");
    bridge.logged("the pause", |line| line.contains("child.crash_loop") && line.contains("pause="));
    let starts = scratch.read("starts").lines().count();
    assert!(
        (failed..=3 * failed).contains(&starts),
        "a pause is a pause: {failed} and a few trials, {starts}"
    );

    set_good(true);
    eventually("the pause ends", || bridge.get("/readyz").status == 200);
    // Its own pause is anything up to half a minute.
    within(PATIENCE * 2, "that of the client too", || bridge.send(opening()).status == 200);
    let live = bridge.session();
    set_good(false);
    for _ in 0..4 {
        assert_refused(&mut bridge.send(opening()), 502, "child_exited");
    }
    bridge.get("/readyz").expect(200, "the old failures are forgotten");
    echo(&live);
}

#[test]
fn after_a_pause_one_more_failure_is_the_loop_going_on() {
    let scratch = Scratch::new();
    let bridge = shell(&["--lazy", "--sse-after", "20s"], &scratch, FAILS);
    let crash_loops =
        || bridge.log().iter().filter(|line| line.contains(r#"event="child.crash_loop""#)).count();
    let mut failed = 0;
    eventually("three pauses", || {
        failed += usize::from(bridge.send(opening()).status == 502);
        crash_loops() >= 3
    });
    assert_eq!(failed, 7, "the fifth, the sixth and the seventh failure each made one");
}

#[test]
fn failures_that_come_together_are_one_pause() {
    let scratch = Scratch::new();
    // None fails before all ten have begun.
    let script =
        r#"echo >> "$1/starts"; until [ "$(wc -l < "$1/starts")" -ge 10 ]; do sleep 0.01; done; exit 3"#;
    let bridge = shell(&["--lazy", "--max-starting", "10", "--sse-after", "20s"], &scratch, script);
    let clients: Vec<Connection> = (0..10).map(|_| begin(&bridge)).collect();
    for client in clients {
        assert_refused(&mut client.response(), 502, "child_exited");
    }
    bridge.logged("a crash loop", |line| line.contains(r#"event="child.crash_loop""#));
    assert_eq!(
        scratch.read("starts").lines().count(),
        11,
        "each was started once, and one to see whose fault it is"
    );
    let log = bridge.log();
    assert_eq!(log.iter().filter(|line| line.contains(r#"event="child.crash_loop""#)).count(), 1);
}

#[test]
fn servers_kept_warm_that_die_unused_are_started_with_pauses_too() {
    let scratch = Scratch::new();
    let bridge = shell(&["--warm", "5"], &scratch, FAILS);
    bridge.logged("a crash loop", |line| line.contains(r#"event="child.crash_loop""#));
    eventually("it is not ready", || bridge.get("/readyz").status == 503);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        bridge.get("/healthz").expect(200, "the bridge lives");
        thread::sleep(Duration::from_millis(100));
    }
    // Each of the five is tried again after a pause of its own, and they all are started with the first.
    let starts = scratch.read("starts").lines().count();
    assert!((5..=60).contains(&starts), "{starts} starts in three seconds");
}

#[test]
fn servers_kept_warm_are_back_when_their_starts_do_not_fail_any_more() {
    let scratch = Scratch::new();
    let bridge = shell(&["--warm", "5"], &scratch, FAILS);
    scratch.write("good", "");
    eventually("five wait", || proc::children(bridge.pid()).len() == 5);
    echo(&bridge.session());
    eventually("and one more in place of that which was taken", || proc::children(bridge.pid()).len() == 6);
}

// ---------------------------------------------------------------------------------------------- connections

#[test]
fn by_default_half_of_the_descriptors_are_for_connections() {
    for (descriptors, connections) in [(80, 16), (100, 18), (1000, 468), (4000, 1024)] {
        let inner = bridge_command(&["--listen", "127.0.0.1:0", "--lazy"], &["hostile", "good"]);
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &format!(r#"ulimit -n {descriptors} && exec "$0" "$@""#)])
            .arg(inner.get_program())
            .args(inner.get_args());
        let bridge = Bridge::spawn(limited);
        let line = bridge.logged("the limits", |line| line.contains("bridge.options"));
        assert!(line.contains(&format!("max_connections={connections} ")), "{descriptors}: {line}");
    }
}

#[test]
fn a_connection_too_many_waits_until_another_one_is_closed() {
    let bridge = Bridge::start(&["--lazy", "--max-connections", "2"], &["hostile", "good"]);
    let probe = Request::new("GET", "/healthz").to_bytes("localhost");
    let ask = |mut connection: Connection| {
        connection.write(&probe);
        let mut response = connection.response();
        response.expect(200, "it is served");
        response.text();
        response.into_connection()
    };
    let open = || ask(Connection::open(bridge.address));
    let (first, second) = (open(), open());
    let mut third = Connection::open(bridge.address);
    third.write(&probe);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(third.response().status));
    assert_eq!(told.recv_timeout(Duration::from_millis(700)), Err(mpsc::RecvTimeoutError::Timeout));
    let (_first, second) = (ask(first), ask(second));
    drop(second);
    assert_eq!(told.recv_timeout(support::PATIENCE), Ok(200));
}

// ---------------------------------------------------------------------------------------------- SIGUSR1

/// The value of a field in a line of the log.
fn field(line: &str, name: &str) -> u64 {
    let value = line.split(' ').find_map(|word| word.strip_prefix(&format!("{name}=")));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {line}"))
}

#[test]
fn sigusr1_logs_the_state_of_the_bridge_and_of_each_session_and_changes_nothing() {
    let scratch = Scratch::new();
    let command = first_is_hostile(&scratch, "deaf");
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let bridge = Bridge::start(&["--lazy"], &command);
    let deaf = bridge.initialize();
    let (busy, idle) = (bridge.session(), bridge.session());
    let _stuck = deaf.start_call("echo", json!({ "text": "x".repeat(1 << 20) }));
    let mut calls: Vec<Response> = (0..2).map(|_| busy.start_call("sleep", json!({ "ms": 3000 }))).collect();

    bridge.signal(Signal::SIGUSR1);
    let line = bridge.logged("the bridge", |line| line.contains(r#"event="bridge.state""#));
    for (name, value) in [("sessions", 3), ("leaving", 0), ("waiting", 0), ("warm", 0), ("processes", 3)] {
        assert_eq!(field(&line, name), value, "{name}: {line}");
    }
    assert!(line.contains("ready=true") && line.contains("max_sessions=64"), "{line}");
    let of = |session: &Session, wanted: &dyn Fn(&str) -> bool| {
        let sid = format!("sid=\"{}\"", &session.id[..8]);
        let is_it = |line: &str| line.contains(r#"event="session.state""#) && line.contains(&sid);
        bridge.logged("a session", |line| is_it(line) && wanted(line))
    };
    for (session, in_flight, stdin) in [(&deaf, 1, 900_000..(1 << 21)), (&busy, 2, 0..1), (&idle, 0, 0..1)] {
        let line = of(session, &|_| true);
        assert_eq!(field(&line, "in_flight"), in_flight, "{line}");
        let queued = if line.contains(" stdin=") { field(&line, "stdin") } else { 0 };
        assert!(stdin.contains(&queued), "{line}");
        assert!(line.contains(r#"state="open""#) && line.contains("keyed=false"), "{line}");
    }
    let pid = idle.look("pids")["pid"].as_u64();
    assert_eq!(Some(field(&of(&idle, &|_| true), "pid")), pid, "its child");
    assert_eq!(calls.iter_mut().map(|call| text_of(&call.answer())).collect::<Vec<_>>(), ["slept", "slept"]);
    bridge.signal(Signal::SIGUSR1);
    of(&idle, &|line| field(line, "idle") >= 2);
    let states = bridge.log().iter().filter(|line| line.contains("session.state")).count();
    assert!((4..=6).contains(&states), "one line for each session: {states}");
    echo(&idle);
}

#[test]
fn while_the_bridge_stops_sigusr1_is_no_second_signal() {
    let mut bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let mut call = bridge.session().start_call("sleep", json!({ "ms": 1500 }));
    bridge.signal(Signal::SIGTERM);
    eventually("the drain has begun", || bridge.get("/readyz").status == 503);
    bridge.signal(Signal::SIGUSR1);
    let line = bridge.logged("the state", |line| line.contains(r#"event="bridge.state""#));
    assert!(line.contains("ready=false") && line.contains("sessions=1"), "{line}");
    assert_eq!(text_of(&call.answer()), "slept");
    assert_eq!(bridge.exit_code(), 0);
}

// ---------------------------------------------------------------------------------------------- daemons

/// Starts daemons of every kind, none of which holds a pipe: one in a session of its own, a double fork with children
/// of its own, and one that ignores SIGTERM and has a daemon too. Eight processes in all, the server included.
const DAEMONS: &str = r#"
    exec 3>&1 4<&0 >/dev/null 2>&1 </dev/null
    setsid sleep 600 &
    (setsid sh -c 'sleep 601 & sleep 602; :' &)
    (setsid sh -c 'trap "" TERM; setsid sleep 603 & sleep 604; :' &)
    exec "$0" good >&3 <&4 3>&- 4>&-"#;

const ALL: usize = 8;

/// The tag in the environment of a session's child.
fn tag(session: &Session) -> String {
    let environment = session.look("echo_env");
    format!("MCP_BRIDGE_CHILD={}", environment["MCP_BRIDGE_CHILD"].as_str().unwrap())
}

fn pids(tag: &str) -> BTreeSet<u32> {
    proc::with_environment(tag).iter().map(|process| process.pid).collect()
}

/// A session whose daemons have all gone their way, and its tag.
#[track_caller]
fn with_daemons(bridge: &Bridge) -> (Session, String) {
    let session = bridge.session();
    let tag = tag(&session);
    eventually("its daemons have left its group", || {
        let all = proc::with_environment(&tag);
        let away = all.iter().filter(|process| process.group != all[0].group && process.name != "setsid");
        let names = away.clone().filter(|process| process.name == "sleep").count();
        all.len() == ALL && names == 5
    });
    (session, tag)
}

#[test]
fn the_daemons_of_a_session_go_with_its_child_and_those_of_others_stay() {
    type End = fn(&Session);
    let exits: End = |session| drop(session.call("exit", json!({ "code": 3 })));
    let is_killed: End = |session| drop(session.call("exit", json!({ "signal": "KILL" })));
    let cases: [(&[&str], End); 5] = [
        (&[], |session| drop(session.delete())),
        (&["--idle-timeout", "1s"], |_| {}),
        (&[], exits),
        (&[], is_killed),
        (&["--on-exit", "respawn"], exits),
    ];
    for (options, end) in cases {
        let bridge = shell(&[&["--lazy"], options].concat(), &Scratch::new(), DAEMONS);
        let (other, others) = with_daemons(&bridge);
        let _listening = other.listen(); // it is not idle
        let before = pids(&others);
        let (session, tag) = with_daemons(&bridge);
        let child = session.look("pids")["pid"].clone();
        end(&session);
        eventually("all of them are gone", || pids(&tag).is_empty());
        let said = |line: &str| {
            line.contains(r#"event="child.leftover""#) && line.contains(&format!("child={child}"))
        };
        bridge.logged("what was left", said);
        assert_eq!(pids(&others), before, "{options:?}: nobody else's");
        echo(&other);
        eventually("no zombie is left", || bridge.zombies().is_empty());
    }
}

#[test]
fn sessions_that_end_together_take_each_its_own_daemons() {
    let mut bridge = shell(&["--lazy"], &Scratch::new(), DAEMONS);
    let (stay, go): (Vec<_>, Vec<_>) = (0..3).map(|_| (with_daemons(&bridge), with_daemons(&bridge))).unzip();
    let before: Vec<_> = stay.iter().map(|(_, tag)| pids(tag)).collect();
    let deletes: Vec<_> = go
        .iter()
        .map(|(session, _)| session.clone())
        .map(|session| thread::spawn(move || session.delete()))
        .collect();
    for delete in deletes {
        assert_eq!(delete.join().unwrap().status, 204);
    }
    eventually("theirs are gone", || go.iter().all(|(_, tag)| pids(tag).is_empty()));
    assert_eq!(stay.iter().map(|(_, tag)| pids(tag)).collect::<Vec<_>>(), before);
    eventually("no zombie is left", || bridge.zombies().is_empty());
    bridge.signal(Signal::SIGTERM);
    assert_eq!(bridge.exit_code(), 0);
    assert_eq!(bridge.processes(), []);
}

/// Leaves a daemon that has cleared its environment, if it finds the directory `armed`.
const NAMELESS: &str = r#"
    if rmdir "$1/armed" 2>/dev/null; then
        env -i setsid sh -c 'echo $$ > "$0/pid"; exec sleep 60 >/dev/null 2>&1 </dev/null' "$1" &
        while [ ! -s "$1/pid" ]; do sleep 0.02; done
    fi
    exec "$0" good"#;

/// A session is deleted whose child has left such a daemon: its process id.
#[track_caller]
fn nameless_daemon(bridge: &Bridge, scratch: &Scratch) -> u32 {
    std::fs::create_dir(scratch.path("armed")).unwrap();
    let session = bridge.session();
    let daemon = scratch.read("pid").trim().parse().unwrap();
    session.delete();
    bridge.logged("the session has ended", |line| line.contains(r#"event="session.end""#));
    daemon
}

#[test]
fn a_daemon_that_threw_its_environment_away_goes_when_no_child_is_left_that_may_have_started_it() {
    let scratch = Scratch::new();
    let bridge = shell(&["--lazy"], &scratch, NAMELESS);
    let older = bridge.session();
    let daemon = nameless_daemon(&bridge, &scratch);
    assert_eq!(proc::get(daemon).unwrap().parent, bridge.pid(), "it became ours");
    assert!(proc::is_alive(daemon), "the older child may have started it");
    echo(&older);
    let younger = bridge.session();
    older.delete();
    eventually("no child is left that may have started it", || !proc::is_alive(daemon));
    echo(&younger);
    bridge.logged("it is named", |line| {
        line.contains("child.leftover") && line.contains(&format!("pid={daemon}"))
    });
}

#[test]
fn a_daemon_that_threw_its_environment_away_goes_with_the_bridge_that_is_process_1() {
    let scratch = Scratch::new();
    let command = ["sh", "-c", NAMELESS, &example("hostile"), &scratch.path("")];
    let inner = bridge_command(&["--listen", "127.0.0.1:0", "--lazy"], &command);
    let Some(outer) = support::as_process_1(&inner) else { return };
    let bridge = Bridge::spawn(outer);
    let inside = nameless_daemon(&bridge, &scratch);
    let daemon =
        proc::all().into_iter().find(|process| process.name == "sleep" && is_inside(process.pid, inside));
    let daemon = daemon.expect("nobody knows whose it is: it may come from `docker exec`").pid;
    let process_1 = proc::children(bridge.pid())[0].pid;
    kill(Pid::from_raw(process_1.cast_signed()), Signal::SIGTERM).unwrap();
    eventually("it goes with the bridge", || !proc::is_alive(daemon));
}

/// Whether a process has this number in a namespace of its own.
fn is_inside(pid: u32, number: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with(&format!("\t{number}")))
}

// ---------------------------------------------------------------------------------------------- leaving while the bridge stops

#[test]
fn a_child_that_is_leaving_has_less_time_once_the_bridge_stops() {
    let options = ["--lazy", "--stop-grace", "60s", "--shutdown-timeout", "3s"];
    let mut bridge = Bridge::start(&options, &["hostile", "ignore_term"]);
    let session = bridge.session();
    assert_eq!(session.delete().status, 204);
    eventually("it is over", || session.ping().status == 404);
    assert_eq!(bridge.processes().len(), 1, "its child ignores that");
    bridge.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    assert_eq!(bridge.exit_code(), 0, "it has been waited for");
    assert!(stopped.elapsed() < Duration::from_secs(8), "{:?}", stopped.elapsed());
    assert_eq!(bridge.processes(), []);
}

// ---------------------------------------------------------------------------------------------- an end at once

#[test]
fn a_bridge_that_ends_at_once_starts_no_server_any_more() {
    let mut bridge = Bridge::start(&["--warm", "3"], &["hostile", "good"]);
    let _sessions = [bridge.session(), bridge.session(), bridge.session()];
    eventually("three more wait", || proc::children(bridge.pid()).len() == 6);
    bridge.signal(Signal::SIGQUIT);
    assert_eq!(bridge.exit_code(), 131);
    bridge.logged("the end", |line| line.contains(r#"event="bridge.exit""#));
    let log = bridge.log();
    let mut after = log.iter().skip_while(|line| !line.contains(r#"event="bridge.stopping""#));
    assert_eq!(after.find(|line| line.contains(r#"event="child.warm""#)), None);
}

#[test]
fn a_bridge_that_ends_at_once_does_not_panic_where_somebody_holds_a_pipe() {
    // What is queued for a child is written for half a second; a stranger holds the pipe, so the child's end does not
    // cut that short.
    let script = r#"
        exec 5<&0
        env -i setsid sleep 30 <&5 >/dev/null 2>&1 &
        exec 5<&-
        exec "$0" deaf"#;
    let scratch = Scratch::new();
    let mut bridge = shell(&["--lazy"], &scratch, script);
    let session = bridge.session();
    let _stuck = session.start_call("echo", json!({ "text": "x".repeat(1 << 20) }));
    bridge.signal(Signal::SIGQUIT);
    assert_eq!(bridge.exit_code(), 131);
    assert_eq!(bridge.processes(), []);
    // Its last line is read when its stderr ends.
    let mut last = Vec::new();
    eventually("the log is complete", || {
        let now = bridge.log();
        let same = now == last && now.iter().any(|line| line.contains(r#"event="bridge.exit""#));
        last = now;
        same
    });
    assert!(!last.iter().any(|line| line.contains("panicked")));
}
