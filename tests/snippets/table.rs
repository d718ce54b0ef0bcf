//! Which test has which block. A block that is not in the table, or in no test, fails.

use std::fs;

use super::blocks::{Block, blocks, documents, root};

/// What is done with a block.
enum How {
    /// This test of `run.rs` runs it.
    Run(&'static str),
    /// A test of `parsed.rs` reads it, by its language.
    Parsed,
    /// This script reads it from the document, by its beginning, and runs it.
    By(&'static str),
    /// This script has these commands.
    Has(&'static str),
    /// No test runs it, because …
    NotRun(&'static str),
}
use How::{By, Has, NotRun, Parsed, Run};

const INTEROP: &str = "tests/interop/documents/main.py";
const CLONE: &str = ".ci/fresh_clone";
const PODMAN: &str = "tests/containers/run";
const GATEWAY: &str = "it takes the gateway itself; tests/interop/run gateways does what its source says";

/// The document, the beginning of the block, and what is done with it.
#[rustfmt::skip]
const TABLE: &[(&str, &str, How)] = &[
    ("README.md", "flowchart LR", Parsed),
    ("README.md", "cargo install --locked --path .", By(CLONE)),
    ("README.md", "mcp-bridge -- npx", By(INTEROP)),
    ("README.md", "npx -y @modelcontextprotocol/inspector", By(INTEROP)),
    ("README.md", "cargo build ", By(CLONE)),
    ("README.md", "mcp() { curl", Run("the_front_page_shows_that_state_is_kept")),
    ("README.md", "cargo test\n", Has(".ci/run")),
    ("README.md", "FROM python", By(INTEROP)),
    ("README.md", "docker build -t time", By(PODMAN)), // runs its second line; the base image is in a registry
    ("README.md", "head -c 24 /dev/urandom", Run("a_token_is_made_and_asked_for")),
    ("docker/README.md", "initContainers:", By(INTEROP)),
    ("docker/README.md", "[Unit]", Run("a_unit_serves_a_socket_for_its_group")),
    ("docker/README.md", "curl -sS --unix-socket", Run("a_unit_serves_a_socket_for_its_group")),
    ("examples/README.md", "mcp() { curl", Run("a_session_by_hand_keeps_its_state")),
    ("examples/README.md", "{\"id\":2,", Run("a_session_by_hand_keeps_its_state")),
    ("examples/README.md", "target/debug/mcp-bridge --session-key", Run("a_shared_session_needs_no_id")),
    ("examples/README.md", "curl -sS http://127.0.0.1:8080/mcp", Run("a_shared_session_needs_no_id")),
    ("examples/README.md", "target/debug/mcp-bridge --share", Run("requests_without_a_session_are_served_and_heard_of")),
    ("examples/README.md", "meta=", Run("requests_without_a_session_are_served_and_heard_of")),
    ("examples/README.md", "claude mcp add", By(INTEROP)),
    ("examples/README.md", "codex mcp add", By(INTEROP)),
    ("examples/README.md", "[mcp_servers.notebook]", By(INTEROP)),
    ("examples/README.md", "{\n  \"mcpServers\"", Parsed),
    ("examples/README.md", "{\n  \"inputs\"", Parsed),
    ("examples/README.md", "npx -y @modelcontextprotocol/inspector", By(INTEROP)),
    ("examples/README.md", "import asyncio", By(INTEROP)),
    ("examples/README.md", "const token", By(INTEROP)),
    ("examples/gateways.md", "{\n  \"mcpServers\"", Parsed),
    ("examples/gateways.md", "[servers.notebook]", By(INTEROP)),
    ("examples/gateways.md", "registry:", By(INTEROP)),
    ("examples/gateways.md", "docker mcp gateway run", NotRun(GATEWAY)),
    ("examples/gateways.md", "config:", By(INTEROP)),
    ("examples/gateways.md", "apiVersion: agentgateway.dev", By(INTEROP)),
    ("examples/gateways.md", "{\n  \"name\"", Parsed),
    ("examples/gateways.md", "thv run --transport", NotRun(GATEWAY)),
    ("examples/gateways.md", "thv run http://", NotRun(GATEWAY)),
    ("examples/gateways.md", "apiVersion: toolhive", By(INTEROP)),
    ("src/README.md", "$ mcp-bridge --check", Run("a_check_prints_what_the_reference_shows")),
    ("src/README.md", "2026-", Run("the_log_has_the_line_of_the_reference")),
    ("tests/README.md", "tests/bench/run", Has(".ci/run")),
    ("tests/README.md", "tests/bench/pressure", Has(".ci/run")),
];

#[test]
fn each_block_of_code_is_run_or_parsed() {
    let blocks: Vec<Block> = documents().iter().flat_map(|document| blocks(document)).collect();
    let of = |document: &str, begins: &str| {
        let is_it = |block: &&Block| block.document == document && block.text.starts_with(begins);
        blocks.iter().filter(is_it).count()
    };
    let mut wrong = Vec::new();
    for (document, begins, _) in TABLE {
        match of(document, begins) {
            1 => {}
            count => wrong.push(format!("{document} has {count} blocks that begin with {begins:?}")),
        }
    }
    for Block { document, line, text, .. } in &blocks {
        let first = text.lines().next().unwrap_or_default();
        if !TABLE.iter().any(|(place, begins, _)| place == document && text.starts_with(begins)) {
            wrong.push(format!("{document}:{line}: no test has the block that begins with {first:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_table_names_is_there() {
    let own = include_str!("run.rs");
    let mut wrong = Vec::new();
    for (document, begins, how) in TABLE {
        let found = match how {
            Run(test) => {
                own.contains(&format!("#[test]\nfn {test}() {{")) && own.contains(&document.to_string())
            }
            Parsed => blocks(document).iter().any(|block| {
                block.text.starts_with(begins) && matches!(&*block.language, "json" | "mermaid")
            }),
            By(file) => {
                let script = fs::read_to_string(root().join(file)).unwrap();
                script.contains(document) && script.contains(begins.trim_end())
            }
            Has(file) => fs::read_to_string(root().join(file)).unwrap().contains(begins.trim_end()),
            NotRun(because) => because.len() > 20,
        };
        if !found {
            wrong.push(format!("{document}: {begins:?}"));
        }
    }
    assert!(wrong.is_empty(), "the table has rotted:\n{}", wrong.join("\n"));
}
