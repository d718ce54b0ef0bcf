//! Blocks that are run as they stand, against the debug build. Addresses and the paths of programs are put in.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::blocks::{block, documents, root};
use crate::support::{
    Bridge, Finished, Request, Scratch, bridge_command, eventually, example, initialize, run_command,
};

const FRONT: &str = "README.md";
const REFERENCE: &str = "src/README.md";
const EXAMPLES: &str = "examples/README.md";

/// A folder to run commands in. Its programs are before those of the machine.
struct Place {
    folder: Scratch,
    path: String,
}

impl Place {
    fn new() -> Self {
        let folder = Scratch::new();
        let programs = folder.path("bin");
        fs::create_dir(&programs).unwrap();
        let place = Place { path: format!("{programs}:{}", env::var("PATH").unwrap()), folder };
        symlink(env!("CARGO_BIN_EXE_mcp-bridge"), place.folder.path("bin/mcp-bridge")).unwrap();
        place
    }

    /// Puts the notebook in the place of a program from the network.
    fn notebook_as(self, name: &str) -> Self {
        let text = format!("#!/bin/sh\nexec {}\n", example("notebook"));
        let file = self.folder.write(&format!("bin/{name}"), &text);
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", &format!("set -eu -o pipefail\n{script}")]).env("PATH", &self.path);
        for (option, _) in bridge_command(&[], &[]).get_envs() {
            command.env_remove(option); // what the bridge of a test must not have
        }
        command.current_dir(self.folder.path(""));
        command
    }

    #[track_caller]
    fn run(&self, script: &str) -> Finished {
        run_command(self.bash(script))
    }

    /// Starts the bridge by this command, on a port of its own.
    #[track_caller]
    fn serve(&self, line: &str) -> Bridge {
        let mut bridge = self.bash(&format!("exec {line}"));
        bridge.env("MCP_BRIDGE_LISTEN", "127.0.0.1:0");
        Bridge::spawn(bridge)
    }
}

/// The text with the paths that the build of this test has.
fn with_paths(text: &str) -> String {
    let mut text = text.to_owned();
    for profile in ["debug", "release"] {
        text = text.replace(&format!("target/{profile}/mcp-bridge"), env!("CARGO_BIN_EXE_mcp-bridge"));
        text = text.replace(&format!("target/{profile}/examples/notebook"), &example("notebook"));
    }
    assert!(!text.contains("target/debug/") || text.contains(env!("CARGO_BIN_EXE_mcp-bridge")), "{text}");
    text
}

/// The text with the port of this bridge.
fn with_port(text: &str, bridge: &Bridge) -> String {
    let address = format!("127.0.0.1:{}", bridge.address.port());
    assert!(text.contains("127.0.0.1:8080"), "{text}");
    text.replace("127.0.0.1:8080", &address)
}

/// The line by which the front page starts its first server.
fn first_run() -> String {
    let block = block(FRONT, "cargo build ").text;
    let (build, start) = block.trim().split_once(" && ").expect("a build and a start");
    assert!(build.contains("--example") && start.contains("examples/notebook"), "{block}");
    with_paths(start)
}

fn has_curl() -> bool {
    let there = Command::new("curl").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: curl is not installed");
    }
    there
}

#[test]
fn the_front_page_shows_that_state_is_kept() {
    if !has_curl() {
        return;
    }
    let place = Place::new();
    let bridge = place.serve(&first_run());
    let finished = place.run(&with_port(&block(FRONT, "mcp() { curl").text, &bridge));
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", finished.stdout);
    assert!(lines[0].contains("note 1 saved: milk") && lines[1].contains("1. milk"), "{}", finished.stdout);
}

#[test]
fn a_session_by_hand_keeps_its_state() {
    if !has_curl() {
        return;
    }
    let place = Place::new();
    let bridge = place.serve(&first_run());
    let finished = place.run(&with_port(&block(EXAMPLES, "mcp() { curl").text, &bridge));
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    assert_eq!(finished.stdout, block(EXAMPLES, "{\"id\":2,").text, "what the document prints");
}

#[test]
fn a_shared_session_needs_no_id() {
    if !has_curl() {
        return;
    }
    let place = Place::new();
    let bridge = place.serve(&with_paths(&block(EXAMPLES, "target/debug/mcp-bridge --session-key").text));
    let list = with_port(&block(EXAMPLES, "curl -sS http://127.0.0.1:8080/mcp").text, &bridge);
    for _ in 0..2 {
        let finished = place.run(&list);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
        assert!(finished.stdout.contains("\"isError\":false"), "{}", finished.stdout);
    }
    assert_eq!(bridge.processes().len(), 1, "one server for all");
}

#[test]
fn requests_without_a_session_are_served_and_heard_of() {
    if !has_curl() {
        return;
    }
    let place = Place::new();
    let bridge = place.serve(&with_paths(&block(EXAMPLES, "target/debug/mcp-bridge --share").text));
    let finished = place.run(&with_port(&block(EXAMPLES, "meta=").text, &bridge));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for shown in
        ["note 1 saved: milk", "subscriptions/acknowledged", "resources/list_changed", "cleared 1 notes"]
    {
        assert!(finished.stdout.contains(shown), "{shown}: {}", finished.stdout);
    }
    assert!(finished.stderr.contains("timed out"), "the stream goes on until then: {}", finished.stderr);
}

#[test]
fn a_unit_serves_a_socket_for_its_group() {
    if !has_curl() {
        return;
    }
    let place = Place::new().notebook_as("mcp-server-time");
    let inside = |text: &str| {
        let text = text.replace("/usr/local/bin/", &place.folder.path("bin/"));
        text.replace("/run/mcp-time/", &place.folder.path(""))
    };
    let unit = block("docker/README.md", "[Unit]").text;
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let socket = place.folder.path("mcp.sock");
    let mut bridge = place.bash(&format!("exec {}", inside(command))).stderr(Stdio::null()).spawn().unwrap();
    eventually("it listens", || fs::exists(&socket).unwrap());
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    let finished = place.run(&inside(&block("docker/README.md", "curl -sS --unix-socket").text));
    kill(Pid::from_raw(bridge.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(bridge.wait().unwrap().code(), Some(0));
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
    assert!(finished.stdout.contains("serverInfo"), "{}", finished.stdout);
}

#[test]
fn a_token_is_made_and_asked_for() {
    let place = Place::new().notebook_as("npx").notebook_as("mcp-server-time");
    let text = block(FRONT, "head -c 24 /dev/urandom").text;
    let [make, start] = text.lines().collect::<Vec<_>>()[..] else { panic!("two lines: {text}") };
    assert_eq!(place.run(make).code, Some(0));
    assert!(start.contains("--listen :8080"), "{start}");
    let bridge = place.serve(&start.replace("--listen :8080", "--listen 127.0.0.1:0"));
    let ask = || Request::post("/mcp", initialize(1, "2025-11-25").to_string());
    bridge.send(ask()).expect(401, "no token");
    bridge.send(ask().header("Authorization", "Bearer of-somebody-else")).expect(401, "another token");
    let token = format!("Bearer {}", place.folder.read("token").trim());
    bridge.send(ask().header("Authorization", &token)).expect(200, "the token of the file");
}

/// The text without what differs from run to run and from machine to machine.
fn plain(text: &str, notebook: &str) -> String {
    let mut plain = String::new();
    for line in text.replace(notebook, "/app/notebook").lines() {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match word {
                word if word.ends_with("/python3") => "python3".to_owned(),
                word if word.ends_with("ms") && word.starts_with(|c: char| c.is_ascii_digit()) => {
                    "MS".to_owned()
                }
                word => word.to_owned(),
            })
            .collect();
        plain = format!("{plain}{}\n", words.join(" "));
    }
    plain
}

#[test]
fn a_check_prints_what_the_reference_shows() {
    let place = Place::new();
    let notebook = example("notebook");
    let shown = block(REFERENCE, "$ mcp-bridge --check").text;
    let mut checked = 0;
    for run in shown.split("$ ").skip(1) {
        let (command, output) = run.split_once('\n').unwrap();
        if command.contains("python3") && Command::new("python3").arg("--version").output().is_err() {
            eprintln!("skipped: python3 is not installed");
            continue;
        }
        let finished = place.run(&command.replace("/app/notebook", &notebook));
        assert_eq!(finished.stdout, "", "the report goes to stderr");
        assert_eq!(plain(&finished.stderr, &notebook), plain(output, &notebook), "{command}");
        checked += 1;
    }
    assert!(checked > 0, "{shown}");
}

#[test]
fn the_log_has_the_line_of_the_reference() {
    let bridge = Bridge::start(&["--lazy"], &["notebook"]);
    bridge.session().delete();
    let line = bridge.logged("the session has ended", |line| line.contains("session.end"));
    let shown = block(REFERENCE, "2026-").text;
    let without_time_and_id = |line: &str| {
        let (time, rest) = line.trim_end().split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.len() == 27, "{line}");
        let words = rest.split(' ').map(|word| if word.starts_with("sid=\"") { "sid" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(without_time_and_id(&line), without_time_and_id(&shown));
}

/// Each `mcp-bridge OPTIONS -- CMD` between backticks in a sentence.
fn commands_in_prose() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(root().join(&document)).unwrap();
        let outside = text.split("```").step_by(2); // of the blocks
        for code in outside.flat_map(|part| part.split('`').skip(1).step_by(2)) {
            let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
            let options = code.strip_prefix("mcp-bridge ").and_then(|rest| rest.rsplit_once("-- "));
            found.extend(options.map(|(options, _)| (document.clone(), options.trim().to_owned())));
        }
    }
    found
}

#[test]
fn each_command_line_in_a_sentence_is_accepted() {
    let place = Place::new();
    place.folder.write("token", "a-token-of-this-test\n");
    let found = commands_in_prose();
    assert!(found.len() >= 5, "{found:?}");
    for (document, options) in found {
        let check = if options.contains("--check") { "" } else { "--check" };
        let finished = place.run(&format!("mcp-bridge {options} {check} -- {}", example("notebook")));
        assert_eq!(finished.code, Some(0), "{document}: {options:?}: {}", finished.stderr);
    }
}
