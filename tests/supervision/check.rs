//! `--check`: the server is really started, asked, and ended, and what is said of it is true.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{self, Finished, Scratch, bridge_command, eventually, example, proc, run_command};

/// Marks every process that descends from one check, however far it ran away.
const MARK: &str = "CHECK_TEST_MARK";

/// A check that is not yet running, and the mark of its processes.
fn marked(scratch: &Scratch, options: &[&str], command: &[&str]) -> (Command, String) {
    let mut bridge = bridge_command(&[&["--check"], options].concat(), command);
    bridge.env(MARK, scratch.path("mark"));
    (bridge, format!("{MARK}={}", scratch.path("mark")))
}

/// What the check says of this server. No process is left of it.
#[track_caller]
fn check(options: &[&str], command: &[&str]) -> Finished {
    let scratch = Scratch::new();
    let (bridge, mark) = marked(&scratch, options, command);
    let finished = run_command(bridge);
    assert_eq!(proc::with_environment(&mark), [], "the check of {command:?} leaves nothing behind");
    assert_eq!(finished.stdout, "", "stdout is not for this");
    finished
}

#[track_caller]
fn assert_says(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    for word in words {
        assert!(finished.stderr.contains(word), "{word:?} is missing: {}", finished.stderr);
    }
}

// ---------------------------------------------------------------------------------------------- servers that work

#[test]
fn a_good_server_is_0_and_named_with_its_tools() {
    let finished = check(&[], &["notebook"]);
    let words = [
        "the server works: notebook 0.1.0, protocol version 2025-11-25\n",
        &format!("command       {}\n", example("notebook")),
        "initialize    answered ",
        "capabilities  logging, resources (listChanged, subscribe), tools (listChanged)\n",
        "tools         13: add_note, list_notes, ",
        "end           exit code 0, when its stdin was closed\n",
    ];
    assert_says(&finished, 0, &words);
    assert_eq!(finished.stderr.lines().count(), 6, "{}", finished.stderr);
}

#[test]
fn a_server_that_knows_no_sessions_works_and_its_tools_are_listed() {
    for options in [&[][..], &["--era", "modern"]] {
        let finished = check(options, &["modern", "only"]);
        let words = [
            "the server works: modern 1.0, protocol version 2026-07-28\n",
            "discover      answered ",
            "capabilities  tools\n",
            "tools         1: echo\n",
            "end           exit code 0, when its stdin was closed\n",
        ];
        assert_says(&finished, 0, &words);
    }
    let finished = check(&["--era", "legacy"], &["modern", "only"]);
    assert_says(&finished, 1, &["refused initialize with error -32022", "knows 2026-07-28 only", "--era"]);
}

#[test]
fn a_server_of_both_eras_is_checked_as_sessions_need_it_unless_they_are_given_up() {
    assert_says(
        &check(&[], &["modern", "dual"]),
        0,
        &["protocol version 2025-11-25\n", "tools         1: echo"],
    );
    let modern = check(&["--era", "modern"], &["modern", "dual"]);
    assert_says(&modern, 0, &["protocol version 2026-07-28\n", "tools         1: echo"]);
    let legacy = check(&["--era", "modern"], &["notebook"]);
    assert_says(&legacy, 1, &["refused server/discover with error", "as --era modern says?"]);
}

#[test]
fn the_server_has_the_arguments_variables_and_directory_of_a_session() {
    let scratch = Scratch::new();
    let directory = scratch.path("");
    let script =
        r#"test "$A" = b && test "$(pwd)/" = "$1" && test -n "$MCP_BRIDGE_CHILD" && exec "$0" strict"#;
    let server = ["sh", "-c", script, &example("hostile"), &directory];
    assert_says(&check(&["--env", "A=b", "--cwd", &directory], &server), 0, &["hostile strict"]);
    assert_says(&check(&["--env", "A=c", "--cwd", &directory], &server), 1, &["exited with code 1"]);
}

#[test]
fn a_server_that_writes_a_banner_to_stdout_works_and_is_told_of_it() {
    let finished = check(&[], &["hostile", "noise"]);
    let words =
        ["the server works", r"not messages, the first: \u{1b}[32mwelcome to hostile 1.0", "logs to stderr"];
    assert_says(&finished, 0, &words);
    assert!(!finished.stderr.contains('\x1b'), "no server steers the terminal: {:?}", finished.stderr);
}

#[test]
fn a_server_that_does_not_leave_is_killed_and_told_of_it() {
    let finished = check(&["--stop-grace", "100ms"], &["hostile", "ignore_term"]);
    assert_says(&finished, 0, &["the server works", "signal SIGKILL, it exited neither", "--stop-grace"]);
}

#[test]
fn a_server_that_writes_without_end_is_read_and_works() {
    for mode in ["flood_stdout", "flood_stderr"] {
        assert_says(
            &check(&[], &["hostile", mode]),
            0,
            &["the server works", "end           exit code 0, when"],
        );
    }
}

#[test]
fn nothing_is_left_of_servers_that_leave_something_behind() {
    for mode in ["wrapper", "grandchild", "daemon", "setsid", "setpgid"] {
        assert_says(&check(&[], &["hostile", mode]), 0, &["the server works"]);
    }
}

// ---------------------------------------------------------------------------------------------- servers that do not

#[test]
fn a_server_that_cannot_be_used_is_1_with_what_happened_and_what_to_do() {
    // What never answers may have a short time, what answers once a long one.
    let short = ["--init-timeout", "300ms", "--stop-grace", "2s"];
    let long = ["--init-timeout", "5s", "--stop-grace", "2s"];
    let table: [(&[&str], &[&str], &[&str]); 12] = [
        (
            &[],
            &["hostile", "exit_at_start", "3"],
            &[
                "exited with code 3 before it answered initialize",
                "stderr        NOTEBOOK_TOKEN is not set",
                "--env",
            ],
        ),
        (&[], &["hostile", "exit_before_init", "0"], &["exited with code 0 before it answered initialize"]),
        (&[], &["hostile", "signal_before_init", "SEGV"], &["killed by signal SIGSEGV before"]),
        (
            &[],
            &["hostile", "refuse_init"],
            &["refused initialize with error -32603: this server cannot start: no licence"],
        ),
        (&short, &["hostile", "hang_init"], &["did not answer initialize within 300ms", "--init-timeout"]),
        (&long, &["hostile", "deaf"], &["did not answer tools/list within 5s", "hostile deaf"]),
        (
            &["--max-message", "600"],
            &["hostile", "good"],
            &["answer to tools/list is longer than 600 bytes", "--max-message"],
        ),
        (&[], &["false"], &["exited with code 1 before it answered initialize", "is the command right"]),
        (&[], &["cat"], &["copies its stdin to its stdout", "not an MCP server"]),
        (
            &short,
            &["sleep", "60"],
            &["did not answer initialize within 300ms", "signal SIGTERM, it did not exit"],
        ),
        (&long, &["sh", "-c", "exec >&-; sleep 60"], &["closed its stdout before it answered initialize"]),
        (
            &long,
            &["sh", "-c", "echo {; echo }; sleep 60"],
            &[
                "did not answer initialize within 5s",
                "that are not messages, the first: {",
                "must be on one line",
            ],
        ),
    ];
    thread::scope(|scope| {
        for (options, command, words) in table {
            scope.spawn(move || {
                let finished = check(options, command);
                assert_says(&finished, 1, words);
                assert_says(&finished, 1, &["the server cannot be used: it", "  what to do    "]);
            });
        }
    });
}

#[test]
fn a_command_that_cannot_be_started_has_the_code_of_a_shell() {
    let scratch = Scratch::new();
    let file = scratch.write("server", "#!no/such/interpreter\n");
    assert_says(&check(&[], &[&file]), 126, &["not executable"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_says(&check(&[], &[&file]), 126, &[&file, "cannot be started: No such file"]);
    assert_says(&check(&[], &["no-such-command-anywhere"]), 127, &["no-such-command-anywhere"]);
}

#[test]
fn a_check_names_variables_that_set_no_option() {
    let mut bridge = bridge_command(&["--check"], &["notebook"]);
    bridge.env("MCP_BRIDGE_MAX_SESSION", "4");
    let finished = run_command(bridge);
    assert_says(&finished, 0, &["the variable MCP_BRIDGE_MAX_SESSION sets no option; see --help"]);
}

// ---------------------------------------------------------------------------------------------- signals, process 1

/// Starts a check whose server does not answer, and waits until that has touched the file `ready`.
#[track_caller]
fn silent(scratch: &Scratch, script: &str) -> (Child, String) {
    let ready = scratch.path("ready");
    let options = ["--stop-grace", "60s"];
    let (mut bridge, mark) =
        marked(scratch, &options, &["sh", "-c", script, "sh", &ready, &scratch.path("eof")]);
    let bridge = bridge.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the server runs", || Path::new(&ready).exists());
    (bridge, mark)
}

#[track_caller]
fn send(bridge: &Child, signal: Signal) {
    kill(Pid::from_raw(bridge.id().cast_signed()), signal).unwrap();
}

#[track_caller]
fn assert_ends(mut bridge: Child, mark: &str, code: i32) {
    let mut status = None;
    eventually("the check ends", || {
        status = bridge.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(code));
    assert_eq!(proc::with_environment(mark), [], "nothing is left");
}

#[test]
fn a_signal_ends_the_check_and_the_server_sees_the_end_of_its_stdin() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 129)] {
        let scratch = Scratch::new();
        let (bridge, mark) = silent(&scratch, r#"touch "$1"; cat >/dev/null; touch "$2""#);
        send(&bridge, signal);
        assert_ends(bridge, &mark, code);
        assert!(Path::new(&scratch.path("eof")).exists(), "the server could leave by itself");
    }
}

#[test]
fn a_second_signal_or_sigquit_ends_the_check_at_once() {
    let stays = r#"trap "" TERM; touch "$1"; cat >/dev/null; touch "$2"; sleep 60"#;
    let scratch = Scratch::new();
    let (bridge, mark) = silent(&scratch, stays);
    send(&bridge, Signal::SIGINT);
    eventually("the server is told to leave", || Path::new(&scratch.path("eof")).exists());
    send(&bridge, Signal::SIGINT);
    assert_ends(bridge, &mark, 130);

    let scratch = Scratch::new();
    let (bridge, mark) = silent(&scratch, stays);
    send(&bridge, Signal::SIGQUIT);
    assert_ends(bridge, &mark, 131);
}

#[test]
fn as_process_1_a_check_reaps_what_the_server_leaves() {
    // Leaves an orphan to process 1, and answers once that has ended and is no zombie any more.
    let script = r#"
        orphan=$(sh -c 'sleep 0.1 >&- & echo $!')
        while test -e "/proc/$orphan"; do sleep 0.05; done
        exec "$0" good"#;
    let bridge = bridge_command(&["--check"], &["sh", "-c", script, &example("hostile")]);
    let Some(bridge) = support::as_process_1(&bridge) else { return };
    assert_says(&run_command(bridge), 0, &["the server works"]);
}
