//! One waiter for everything: whatever ends, its status reaches who asked for it, and nothing is left of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs, io, process};

use mcp_bridge::child::{Command, EnvPolicy};
use mcp_bridge::exit_status::ExitStatus;
use mcp_bridge::reaper::Reaper;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{self, Bridge, Scratch, Session, eventually, json, proc, reason};

const CHILDREN: usize = 1000;

/// How many of them live at the same time.
const AT_ONCE: usize = 32;

/// As what the body is started, and where it may write.
const AS: &str = "REAPER_TEST_AS";
const IN: &str = "REAPER_TEST_IN";

/// The name of the body for the harness, with its module.
const BODY: &str = "reaper::a_thousand_children";

/// What runs beside the ends of so many children, and how many of these it may have to wait for in one turn.
const STORM: &str = "reaper::three_hundred_ends_at_once";
const ENDS: usize = 300;
const ENDS_PER_TURN: usize = 64;

// ---------------------------------------------------------------------------------------------- a thousand children

#[test]
fn a_subreaper_delivers_a_thousand_statuses_and_leaves_no_zombie_and_no_open_file() {
    let scratch = Scratch::new();
    assert_body_passes(body("subreaper", &scratch));
}

#[test]
fn process_1_delivers_a_thousand_statuses_and_leaves_no_zombie_and_no_open_file() {
    let scratch = Scratch::new();
    let Some(body) = support::as_process_1(&body("process 1", &scratch)) else { return };
    assert_body_passes(body);
}

/// The reaper reaps for its whole process, and to be a subreaper is a matter of the whole process too: neither may be
/// shared with other tests.
fn body(role: &str, scratch: &Scratch) -> process::Command {
    let mut body = alone(BODY);
    body.env(AS, role).env(IN, scratch.path(""));
    body
}

fn alone(test: &str) -> process::Command {
    let mut command = process::Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", test]).env(AS, test);
    command
}

#[test]
fn many_ends_at_once_leave_all_others_their_turns() {
    assert_body_passes(alone(STORM));
}

#[test]
#[ignore = "the body of the claim above, which starts it in a process of its own"]
fn three_hundred_ends_at_once() {
    if env::var(AS).is_ok_and(|test| test == STORM) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(storm());
    }
}

async fn storm() {
    let reaper = Reaper::start().unwrap();
    let exits = command("true", &[]);
    let children: Vec<_> = (0..ENDS).map(|_| exits.spawn(&[], &reaper).unwrap().process.exit).collect();
    // The reaper cannot run before this test gives way.
    eventually("all of them have ended", || {
        proc::children(process::id()).iter().all(|child| child.state == 'Z')
    });
    let reaped = || children.iter().filter(|exit| exit.status().is_some()).count();
    assert_eq!(reaped(), 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut before, mut most) = (0, 0);
    while before < ENDS {
        assert!(Instant::now() < deadline, "{before} of them are reaped");
        tokio::task::yield_now().await;
        most = most.max(reaped() - before);
        before = reaped();
    }
    assert!(most <= ENDS_PER_TURN, "{most} were reaped in one turn");
}

#[track_caller]
fn assert_body_passes(body: process::Command) {
    let finished = support::run_command(body);
    let said = finished.stdout + &finished.stderr;
    assert_eq!(finished.code, Some(0), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "the body of the claims above, which start it in a process of its own"]
fn a_thousand_children() {
    let Ok(role) = env::var(AS) else { return };
    assert_eq!(process::id() == 1, role == "process 1");
    // One thread for everything, as in the bridge: children are killed when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        timeout(Duration::from_secs(60), come_and_go()).await.expect("every status is delivered");
    });
}

async fn come_and_go() {
    let broken = Arc::new(Broken::new(Path::new(&env::var(IN).unwrap())));
    let reaper = Reaper::start().unwrap();
    one_child(0, &reaper, &broken).await;
    let open_files = proc::open_files(process::id());

    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut children = JoinSet::new();
    for index in 0..CHILDREN {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (reaper, broken) = (reaper.clone(), Arc::clone(&broken));
        children.spawn(async move {
            one_child(index, &reaper, &broken).await;
            drop(place);
        });
    }
    while let Some(child) = children.join_next().await {
        child.unwrap();
    }

    let deadline = Instant::now() + Duration::from_secs(5);
    while let left @ [_, ..] = &*proc::children(process::id()) {
        assert!(Instant::now() < deadline, "processes are left: {left:?}");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(proc::open_files(process::id()), open_files, "files are left open");
}

/// What ends a child without anybody's help and writes no core file.
const SIGNALS: [(&str, Signal); 7] = [
    ("HUP", Signal::SIGHUP),
    ("INT", Signal::SIGINT),
    ("KILL", Signal::SIGKILL),
    ("USR1", Signal::SIGUSR1),
    ("PIPE", Signal::SIGPIPE),
    ("ALRM", Signal::SIGALRM),
    ("TERM", Signal::SIGTERM),
];

/// A child whose end nobody can take for that of its neighbours.
async fn one_child(index: usize, reaper: &Reaper, broken: &Broken) {
    let code = i32::try_from(index % 256).unwrap();
    let exited = ExitStatus::Code(code);
    match index % 6 {
        0 => drop(assert_ends(&format!("exit {code}"), exited, reaper).await),
        1 => {
            let (name, signal) = SIGNALS[index % SIGNALS.len()];
            assert_ends(&format!("kill -{name} $$"), ExitStatus::Signal(signal.as_str()), reaper).await;
        }
        // Orphans that end before, with and after their grandparent.
        2 => {
            let script = format!("(exit 1 &); (sleep 0.01 &); (sleep 0.05 & sleep 0.01 &); exit {code}");
            assert_ends(&script, exited, reaper).await;
        }
        // Stragglers of its own group.
        3 => drop(assert_ends(&format!("sleep 600 & sleep 601 & exit {code}"), exited, reaper).await),
        4 => {
            // The substitution ends when the grandchild has let go of the pipe, in its own session by then.
            let script =
                format!(r#"echo "$(setsid sh -c 'echo $$; exec sleep 602 >/dev/null 2>&1' &)"; exit {code}"#);
            let said = assert_ends(&script, exited, reaper).await;
            let grandchild: u32 = said.trim().parse().unwrap_or_else(|_| panic!("no pid: {said:?}"));
            let process = proc::get(grandchild).expect("it lives on");
            assert_eq!(process.parent, process::id(), "an orphan becomes ours: {process:?}");
            kill(Pid::from_raw(grandchild.cast_signed()), Signal::SIGKILL).unwrap();
        }
        _ => broken.assert_cannot_start(index / 6, reaper),
    }
}

/// Starts a shell, waits for it, and returns what it said.
async fn assert_ends(script: &str, expected: ExitStatus, reaper: &Reaper) -> String {
    let mut child = command("sh", &["-c", script]).spawn(&[], reaper).unwrap();
    let mut late = child.process.exit.clone();
    assert_eq!(child.process.exit.wait().await, expected, "{script}");
    // Whoever asks only now hears the same.
    assert_eq!((late.status(), late.wait().await), (Some(expected), expected), "{script}");
    let mut said = String::new();
    child.stdout.read_to_string(&mut said).await.unwrap();
    said
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let words: Vec<_> = [&[program], arguments].concat().into_iter().map(Into::into).collect();
    Command::new(&words, None, EnvPolicy::default()).expect("the program is there")
}

/// Commands that are found, and fail when they are executed.
struct Broken([(Command, i32); 3]);

impl Broken {
    fn new(directory: &Path) -> Self {
        let program = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            command(path.to_str().unwrap(), &[])
        };
        let commands = [
            (program("no interpreter", "#!nonexistent/interpreter\n"), libc::ENOENT),
            (program("a directory as interpreter", "#!/\n"), libc::EACCES),
            (program("gone", "#!/bin/sh\n"), libc::ENOENT),
        ];
        fs::remove_file(directory.join("gone")).unwrap();
        Self(commands)
    }

    fn assert_cannot_start(&self, index: usize, reaper: &Reaper) {
        let (command, expected) = &self.0[index % self.0.len()];
        let error: io::Error = command.spawn(&[], reaper).map(|_| ()).expect_err("it cannot be executed");
        assert_eq!(error.raw_os_error(), Some(*expected), "{command:?}");
    }
}

// ---------------------------------------------------------------------------------------------- ends that are rare

/// Any signal may end a process, those without a name too.
fn end_by_a_real_time_signal(session: &Session) {
    let pid = session.look("pids")["pid"].to_string();
    let sent = process::Command::new("sh").args(["-c", r#"kill -34 "$0""#, &pid]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn the_end_by_a_real_time_signal_is_noticed() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "hang"]);
    let session = bridge.session();
    let mut call = session.start_call("echo", json!({}));
    end_by_a_real_time_signal(&session);
    assert_eq!(reason(&call.answer()), "child_exited");
    bridge.leaves_nothing();
}

#[test]
fn whoever_ends_after_a_child_that_a_real_time_signal_ended_is_reaped_too() {
    let bridge = Bridge::start(&["--lazy"], &["hostile", "good"]);
    let (first, later) = (bridge.session(), bridge.session());
    end_by_a_real_time_signal(&first);
    eventually("the session is over", || first.ping().status == 404);
    later.delete();
    bridge.leaves_nothing();
}
