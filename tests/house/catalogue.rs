//! The table of faults in `tests/README.md`: each fault stands there once, and each test that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn file(name: &str) -> PathBuf {
    let root = if name.starts_with("src/") { PathBuf::from(env!("CARGO_MANIFEST_DIR")) } else { tests() };
    root.join(name)
}

struct Row {
    fault: String,
    /// What stands between backticks in the last column.
    named: Vec<String>,
    text: String,
}

fn rows() -> Vec<Row> {
    let readme = fs::read_to_string(tests().join("README.md")).unwrap();
    let table = readme.lines().filter(|line| {
        let number = line.strip_prefix("| F").unwrap_or_default();
        number.starts_with(|c: char| c.is_ascii_digit())
    });
    table
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [fault, what, text] = cells[..] else { panic!("three columns, not {}: {line}", cells.len()) };
            assert!(!what.is_empty(), "{fault} says what it is");
            let named = text.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Row { fault: fault.to_owned(), named, text: text.to_owned() }
        })
        .collect()
}

/// Whether a function of this name stands behind the attribute of a test.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_it =
        |line: &&str| line.split("fn ").nth(1).is_some_and(|rest| rest.starts_with(&format!("{name}(")));
    let Some(at) = lines.iter().position(is_it) else { return false };
    let attributes = lines.iter().take(at).rev().take_while(|line| !line.ends_with(['}', ';']));
    attributes.take(4).any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
}

#[test]
fn each_fault_stands_in_the_table_once_and_in_order() {
    // Those that were found together have numbers side by side, and a letter where one fell into parts.
    let place = |fault: &str| {
        let number = fault.trim_start_matches('F').trim_end_matches(|c: char| c.is_ascii_lowercase());
        (number.parse::<u32>().unwrap(), fault.to_owned())
    };
    let found: Vec<_> = rows().iter().map(|row| place(&row.fault)).collect();
    assert!(found.len() > 100, "{found:?}");
    assert!(found.is_sorted_by(|one, next| one < next), "{found:?}");
}

#[test]
fn each_test_that_the_table_names_is_there() {
    let mut missing = Vec::new();
    for Row { fault, named, .. } in rows() {
        for name in named {
            let Some((path, claim)) = name.split_once("::") else { continue };
            let Ok(source) = fs::read_to_string(file(path)) else {
                missing.push(format!("{fault}: there is no file {path}"));
                continue;
            };
            let there = if path.ends_with(".rs") { has_test(&source, claim) } else { source.contains(claim) };
            if !there {
                missing.push(format!("{fault}: {path} does not claim {claim:?}"));
            }
        }
    }
    assert!(missing.is_empty(), "the table has rotted:\n{}", missing.join("\n"));
}

#[test]
fn each_fault_has_a_test_or_says_why_it_has_none() {
    let mut silent = Vec::new();
    for Row { fault, named, text } in rows() {
        let mut tested = false;
        for name in &named {
            if name.contains("::") {
                tested = true;
            } else if name.ends_with(".rs") {
                silent.push(format!("{fault}: {name} is named without the test in it"));
            }
        }
        if !tested && !text.starts_with("none: ") {
            silent.push(format!("{fault}: neither a test nor \"none: \" and the reason"));
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn no_test_of_a_fault_is_missing_from_the_table() {
    let readme = fs::read_to_string(tests().join("README.md")).unwrap();
    for entry in fs::read_dir(tests().join("faults")).unwrap() {
        let name = format!("faults/{}", entry.unwrap().file_name().into_string().unwrap());
        let source = fs::read_to_string(file(&name)).unwrap();
        let functions = source.lines().filter_map(|line| line.strip_prefix("fn ")?.split_once("() {"));
        for (function, _) in functions.filter(|(function, _)| has_test(&source, function)) {
            assert!(readme.contains(&format!("`{name}::{function}`")), "{name}::{function} is in no row");
        }
    }
}
