//! The child is kept apart: it has no terminal, and, unless it is root, no look into the bridge; nor has what it leaves.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::unistd::ttyname;

use crate::support::{Bridge, bridge_command, eventually, example, json, proc, text_of};

/// A user who is nobody's.
const USER: u32 = 65532;

const LISTEN: [&str; 3] = ["--lazy", "--listen", "127.0.0.1:0"];

/// The same command as another user. Where that takes rights we do not have, says so.
fn as_user(command: &Command) -> Option<Command> {
    let user = || {
        let mut user = Command::new("setpriv");
        user.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups", "--"]);
        user
    };
    let mut probe = user();
    let works = probe
        .arg(command.get_program())
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!(
            "skipped: `setpriv --reuid` does not work here, it takes root and a build that others can read"
        );
        return None;
    }
    let mut wrapped = user();
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    Some(wrapped)
}

/// A bridge of that user, whose children run a shell script; `$0` is `hostile`.
#[track_caller]
fn of_a_user(script: &str) -> Option<Bridge> {
    let bridge = bridge_command(&LISTEN, &["sh", "-c", script, &example("hostile")]);
    Some(Bridge::spawn(as_user(&bridge)?))
}

// ---------------------------------------------------------------------------------------------- the terminal

#[test]
fn a_child_has_no_terminal_and_ctrl_c_reaches_the_bridge_alone() {
    let terminal = openpty(None, None).unwrap();
    let device = ttyname(&terminal.slave).unwrap();
    let script = r#"
        if (: > /dev/tty) 2>/dev/null; then echo "a terminal" >&2; else echo "no terminal" >&2; fi
        exec "$0" good"#;
    let inner = bridge_command(&LISTEN, &["sh", "-c", script, &example("hostile")]);
    let mut outer = Command::new("sh");
    let begin = format!(r#"exec setsid -c "$0" "$@" <{}"#, device.display());
    outer.args(["-c", &begin]).arg(inner.get_program()).args(inner.get_args());
    let mut bridge = Bridge::spawn(outer);
    let session = bridge.session();
    assert_ne!(fields(bridge.pid()).0, 0, "the bridge has one");
    bridge.logged("it fails at once", |line| line.contains("child.stderr") && line.contains("no terminal"));
    let child = u32::try_from(session.look("pids")["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(fields(child).0, 0);

    // What the child and others of its group would get from the terminal, it does not.
    let mut call = session.start_call("sleep", json!({ "ms": 500 }));
    let mut keyboard = File::from(terminal.master);
    keyboard.write_all(b"\x03").unwrap();
    bridge.logged("Ctrl-C", |line| line.contains("bridge.stopping") && line.contains("SIGINT"));
    assert_eq!(text_of(&call.answer()), "slept", "a call in flight is answered");
    assert_eq!(bridge.exit_code(), 0);
    bridge.leaves_nothing();
    fcntl(&keyboard, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut screen = Vec::new();
    let _ = keyboard.read_to_end(&mut screen); // EAGAIN, or EIO when nobody has the other side open
    assert!(!String::from_utf8_lossy(&screen).contains("terminal"), "{screen:?}");
}

/// The controlling terminal of a process, 0 if it has none, and the score by which it is killed when memory runs out.
fn fields(pid: u32) -> (u32, i32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let terminal = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(4).unwrap().parse().unwrap();
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    (terminal, score.trim().parse().unwrap())
}

// ---------------------------------------------------------------------------------------------- the bridge's memory and environment

/// Tries to read what the kernel shows of the bridge, and of itself, as what its rights are.
const SPY: &str = r#"
    for file in environ auxv maps mem fd/2 cwd/ root/; do
        if (: < "/proc/$PPID/$file") 2>/dev/null; then echo "open: $file" >&2; fi
    done
    if ls "/proc/$PPID/fd" >/dev/null 2>&1; then echo "open: fd" >&2; fi
    if (: < "/proc/$$/environ") 2>/dev/null; then echo "the spy has looked" >&2; fi
    exec "$0" good"#;

#[test]
fn a_child_reads_neither_the_environment_nor_the_memory_of_the_bridge() {
    let Some(bridge) = of_a_user(SPY) else { return };
    let _session = bridge.session();
    bridge.logged("it could look at itself", |line| {
        line.contains("child.stderr") && line.contains("has looked")
    });
    let is_open = |line: &String| line.contains("child.stderr") && line.contains("open: ");
    let open: Vec<String> = bridge.log().into_iter().filter(is_open).collect();
    assert_eq!(open, Vec::<String>::new());
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    assert_eq!(owner(bridge.pid()), 0, "what is not dumpable is root's");
}

#[test]
fn a_bridge_of_any_user_starts_its_children_as_those_that_go_first_when_memory_runs_out() {
    let Some(bridge) = of_a_user(r#"sleep 60 & exec "$0" good"#) else { return };
    let before = fields(bridge.pid()).1;
    let session = bridge.session();
    let child = u32::try_from(session.look("pids")["pid"].as_u64().unwrap()).unwrap();
    for process in [child, proc::children(child)[0].pid] {
        assert_eq!(fields(process).1, 300);
    }
    assert_eq!(fields(bridge.pid()).1, before, "its own is as it was");
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    assert!(
        status.lines().any(|line| line.starts_with("Uid:") && line.contains(&USER.to_string())),
        "{status}"
    );
}

#[test]
fn a_daemon_that_nobody_may_look_at_goes_with_its_session() {
    let Some(bridge) = of_a_user(r#"exec "$0" secret_daemon"#) else { return };
    let session = bridge.session();
    let all = bridge.processes();
    let child = u32::try_from(session.look("pids")["pid"].as_u64().unwrap()).unwrap();
    let daemon = all.iter().find(|process| process.pid != child).unwrap();
    let environment = fs::metadata(format!("/proc/{}/environ", daemon.pid)).unwrap();
    assert_eq!(environment.uid(), 0, "its tag is not for this user");
    session.delete();
    eventually("it is gone with its session", || !proc::is_alive(daemon.pid));
    bridge.leaves_nothing();
}
