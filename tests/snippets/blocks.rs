//! Blocks of code as they stand in the documents.

use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between two lines that begin with three backticks.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Its document, as a path from the root.
    pub(super) document: String,
    /// The line of its first backticks, from 1.
    pub(super) line: usize,
    /// What stands behind them.
    pub(super) language: String,
    pub(super) text: String,
}

/// Every document of the clone.
pub(super) fn documents() -> Vec<String> {
    let folders = ["", "src", "docker", "examples", "tests", ".github"];
    let mut found: Vec<String> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(root().join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path: PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

/// The blocks of a document, in order.
pub(super) fn blocks(document: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (line, number) in text.lines().zip(1..) {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let (document, language) = (document.to_owned(), language.to_owned());
                open = Some(Block { document, line: number, language, text: String::new() });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document}: a block without an end: {open:?}");
    found
}

/// The one block of a document whose text begins so.
#[track_caller]
pub(super) fn block(document: &str, begins: &str) -> Block {
    let mut found = blocks(document).into_iter().filter(|block| block.text.starts_with(begins));
    let first = found.next().unwrap_or_else(|| panic!("{document} has no block that begins with {begins:?}"));
    assert!(found.next().is_none(), "{document} has two blocks that begin with {begins:?}");
    first
}
