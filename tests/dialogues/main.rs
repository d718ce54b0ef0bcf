//! Recorded dialogues between clients, a front and its child: files that a person can read and extend. `README.md` says
//! how they are written, and which rule is in which of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "these rules are for the bridge; a test shall fail loudly"
)]

mod names;
mod play;
mod script;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders, one for each front.
const FRONTS: [&str; 4] = ["upgrade", "downgrade", "shared", "modern"];

/// Names a file whose dialogues are printed as they really go.
const PRINT: &str = "DIALOGUE";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues")
}

/// The files of a front, by their names.
fn files(front: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder().join(front)).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn hold(front: &str) {
    let print = std::env::var(PRINT).ok();
    let (mut failures, mut known, mut count) = (Vec::new(), BTreeSet::new(), 0);
    for file in files(front) {
        let name = format!("{front}/{}", file.file_stem().unwrap().to_str().unwrap());
        let mut printed = print.as_deref().filter(|wanted| *wanted == name).map(|_| String::new());
        let dialogues = match script::read(&file) {
            Ok(dialogues) => dialogues,
            Err(why) => {
                failures.push(why);
                continue;
            }
        };
        for dialogue in &dialogues {
            count += 1;
            // What goes wrong in an opening is said once.
            if let Err(why) = play::play(dialogue, printed.as_mut())
                && known.insert(why.clone())
            {
                failures.push(format!("# {}\n{why}", dialogue.rule.join("\n# ")));
            }
            if let Some(printed) = &mut printed {
                printed.push('\n');
            }
        }
        if let Some(printed) = printed {
            eprintln!("{printed}");
        }
    }
    assert!(count > 0, "there are no dialogues of {front}");
    assert!(failures.is_empty(), "{} of {count} go another way:\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn clients_of_2026_07_28_over_a_child_of_sessions() {
    hold("upgrade");
}

#[test]
fn a_client_of_sessions_over_a_child_of_2026_07_28() {
    hold("downgrade");
}

#[test]
fn sessions_that_share_a_child() {
    hold("shared");
}

#[test]
fn clients_of_2026_07_28_over_a_child_of_it() {
    hold("modern");
}

/// What stands between backticks in a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn each_rule_has_its_dialogues_and_each_file_its_rule() {
    let document = fs::read_to_string(folder().join("README.md")).unwrap();
    for front in FRONTS {
        let title = format!("## {front}\n");
        let (_, part) = document.split_once(&title).unwrap_or_else(|| panic!("no part is called {front}"));
        let part = part.split("\n## ").next().unwrap();
        let rows = part.lines().filter(|line| line.starts_with('|')).skip(2);
        let mut named = BTreeSet::new();
        for row in rows {
            let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
            let files: Vec<_> = code(last).map(str::to_owned).collect();
            assert!(!files.is_empty(), "a rule of {front} without a dialogue: {row}");
            named.extend(files);
        }
        let there =
            files(front).into_iter().map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned());
        assert_eq!(named, there.collect(), "the table of {front}, and its files");
    }
}

#[test]
fn each_dialogue_says_its_rule_and_where_that_is_from() {
    for file in FRONTS.iter().flat_map(|front| files(front)) {
        for dialogue in script::read(&file).unwrap_or_else(|why| panic!("{why}")) {
            let at = format!("{}:{}", dialogue.place.file.display(), dialogue.place.line);
            let rule = dialogue.rule.join(" ");
            let sources = ["2026-07-28 ", "2025-11-25 ", "JSON-RPC 2.0, ", "src/README.md, "];
            let source = sources
                .iter()
                .any(|source| rule.contains(&format!("({source}")) || rule.contains(&format!("; {source}")));
            assert!(source, "{at}: the comment before it does not say where its rule is from");
        }
    }
}

#[test]
fn the_example_of_the_document_goes_as_it_is_written() {
    let document = fs::read_to_string(folder().join("README.md")).unwrap();
    let example = document.split("```\n").nth(1).unwrap();
    let dialogues = script::parse(&folder().join("upgrade/example"), example).unwrap();
    assert_eq!(dialogues.len(), 1);
    if let Err(why) = play::play(&dialogues[0], None) {
        panic!("{why}");
    }
}

#[test]
fn a_dialogue_that_goes_another_way_is_told_where() {
    let text = "after opening\nchild> {\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\"}\n";
    let file = folder().join("upgrade/example");
    let answers = [
        ("child< {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}", None),
        ("child< {\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{}}", Some("- 3: child<")),
        ("child< {\"jsonrpc\":\"2.0\", \"id\":3,\"result\":{}}", Some("? the same value")),
        ("1< {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}", Some("- 3: 1<")),
        ("", Some("+ child< {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}")),
    ];
    for (answer, wrong) in answers {
        let dialogues = script::parse(&file, &format!("{text}{answer}\n")).unwrap();
        match (play::play(&dialogues[0], None), wrong) {
            (Ok(()), None) => {}
            (Err(why), Some(wrong)) => {
                assert!(why.contains("upgrade/example:2: child>") && why.contains(wrong), "{why}");
            }
            other => panic!("{answer}: {other:?}"),
        }
    }
}
