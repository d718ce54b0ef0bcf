//! What the bridge says about its options: the manual page, completions. That the reference has each of them is in
//! `documents.rs`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Finished, Scratch, run, run_command};

/// What the bridge prints when it is asked for this.
#[track_caller]
pub(crate) fn printed(question: &[&str]) -> String {
    let finished = run(question, &[]);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{question:?}");
    finished.stdout
}

/// Runs a program if it is installed.
fn run_if_there(program: &str, arguments: &[&str]) -> Option<Finished> {
    let path = std::env::var("PATH").unwrap_or_default();
    let there = path.split(':').any(|directory| Path::new(directory).join(program).exists());
    if !there {
        eprintln!("{program} is not installed");
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments);
    Some(run_command(command))
}

#[test]
fn the_manual_page_is_one() {
    const MACROS: &[&str] = &[".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I", ".BR", ".RI", ".nf", ".fi"];
    let page = printed(&["--man"]);
    for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
        let word = line.split(' ').next().unwrap();
        assert!(MACROS.contains(&word), "{line}");
    }
    let scratch = Scratch::new();
    let file = scratch.write("mcp-bridge.1", &page);
    for (program, arguments) in
        [("groff", &["-man", "-ww", "-z", &file][..]), ("mandoc", &["-T", "lint", "-W", "warning", &file])]
    {
        if let Some(finished) = run_if_there(program, arguments) {
            let said = finished.stdout + &finished.stderr;
            // A date would be that of the build, and two builds would differ.
            let said: Vec<&str> = said.lines().filter(|line| !line.contains("missing date")).collect();
            assert!(said.is_empty(), "{program} finds: {said:?}");
            assert!(matches!((program, finished.code), ("mandoc", Some(0 | 2)) | (_, Some(0))), "{program}");
        }
    }
}

/// What bash offers for the last of these words.
fn offered(script: &str, words: &[&str]) -> Option<String> {
    let last = words.len() - 1;
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let session = format!(
        "set -eu; {script}\nCOMP_WORDS=({}); COMP_CWORD={last}; _mcp_bridge; echo \"${{COMPREPLY[*]}}\"",
        words.join(" ")
    );
    let finished = run_if_there("bash", &["--norc", "-c", &session])?;
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{words:?}");
    Some(finished.stdout.trim().to_owned())
}

#[test]
fn bash_completes_options_and_their_values() {
    let script = printed(&["--completions", "bash"]);
    let scratch = Scratch::new();
    let folder = scratch.path("folder");
    fs::create_dir(&folder).unwrap();
    for (words, expected) in [
        (&["mcp-bridge", "--lis"][..], "--listen"),
        (&["mcp-bridge", "--lazy", "--token-f"], "--token-file"),
        (&["mcp-bridge", "--log", ""], "text json"),
        (&["mcp-bridge", "--on-exit", "r"], "respawn"),
        (&["mcp-bridge", "--max-sessions", ""], ""),
        (&["mcp-bridge", "--session-key", ""], "shared"),
        (&["mcp-bridge", "--cwd", folder.strip_suffix("er").unwrap()], &folder),
        (&["mcp-bridge", "--", "mapfil"], "mapfile"),
        (&["mcp-bridge", "--", "x", "--lis"], ""),
    ] {
        if let Some(offered) = offered(&script, words) {
            assert_eq!(offered, expected, "{words:?}");
        }
    }
}

#[test]
fn scripts_of_shells_are_accepted_by_them() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let file = scratch.write(shell, &printed(&["--completions", shell]));
        if let Some(finished) = run_if_there(shell, &["-n", &file]) {
            assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{shell}");
        }
    }
}
