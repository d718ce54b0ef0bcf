//! The house: which module may not know what. Imports run one way, so that a reader can begin anywhere and only has
//! to look inwards.

use std::fs;
use std::path::{Path, PathBuf};

/// Small leaves that every room may use.
const COMMON: &[&str] = &[
    "crate::account",
    "crate::exit_status",
    "crate::late",
    "crate::log_limit",
    "crate::printable",
    "crate::sync",
];

/// Each room, and the words that must not occur in it.
const WALLS: &[(&str, &[&str])] = &[
    (
        "proto",
        &[
            "tokio",
            "hyper",
            "nix::",
            "tracing",
            "Instant",
            "SystemTime",
            "std::env",
            "std::fs",
            "std::net",
            "std::process",
            "getrandom",
            "crate::child",
            "crate::cli",
            "crate::drain",
            "crate::http",
            "crate::reaper",
            "crate::server",
            "crate::session",
        ],
    ),
    // A link speaks to a child and knows no client; the fronts above it do not know each other.
    ("proto/link", &["proto::front", "super::front", "StreamId", "ClientId", "Upgrade", "Downgrade"]),
    ("proto/front/single", &["keyed", "modern", "shared", "super::tests"]),
    ("proto/front/keyed", &["single", "modern", "shared", "super::tests"]),
    ("proto/front/modern", &["single", "keyed", "shared::", "upgrade", "downgrade", "super::tests"]),
    // Who has asked what, and neither the link nor the clients over HTTP.
    (
        "proto/front/modern/lanes",
        &["super::", "proto::front", "proto::link", "proto::output", "proto::message"],
    ),
    (
        "proto/front/shared",
        &["single::", "keyed::", "modern::", "proto::upgrade", "proto::downgrade", "super::tests"],
    ),
    // What is counted over all lanes: it says nothing itself.
    ("proto/front/shared/asked", &["proto::front", "proto::link", "proto::output", "super::"]),
    ("proto/front/shared/holders", &["proto::front", "proto::link", "proto::output", "super::"]),
    ("proto/front/shared/levels", &["proto::front", "proto::link", "proto::output", "super::"]),
    ("proto/front/greeting", &["proto::link", "proto::output", "super::"]),
    // What fronts over a child of the session era have in common, where it is unclear whose a message is.
    ("proto/questions", &["super::front", "super::link", "super::upgrade", "StreamId", "ClientId"]),
    ("proto/lingering", &["super::front", "super::upgrade", "StreamId", "ClientId"]),
    ("proto/elicitation", &["super::front", "super::link", "super::output", "super::upgrade"]),
    // What an upgrade is made of: neither part knows the link or the front, nor the other part.
    ("proto/upgrade/listens", &["proto::front", "proto::link", "proto::output", "proto::tools"]),
    // Nor do the translators know each other; what both need has rooms of its own.
    ("proto/upgrade", &["downgrade", "Downgrade"]),
    (
        "proto/downgrade",
        &["upgrade", "Upgrade", "front::single", "front::keyed", "front::modern", "front::shared"],
    ),
    // What a downgrade is made of: no part knows the link or its own front.
    (
        "proto/downgrade/request",
        &[
            "proto::front",
            "proto::link",
            "proto::output",
            "super::answer",
            "super::listens",
            "super::questions",
        ],
    ),
    ("proto/downgrade/answer", &["proto::link", "proto::output", "super::listens", "super::questions"]),
    ("proto/downgrade/questions", &["proto::front", "proto::link", "proto::output::Out", "super::listens"]),
    ("proto/downgrade/listens", &["proto::front", "proto::link", "proto::output", "super::answer"]),
    ("proto/tools", &["super::link", "super::output", "super::upgrade", "proto::link", "proto::output"]),
    ("proto/mirrored", &["super::", "crate::", "serde"]),
    ("proto/subscription", &["super::front", "super::link", "super::output"]),
    ("proto/json", &["super::message", "proto::message", "super::link", "super::front"]),
    ("account", &["crate::", "tokio", "hyper"]),
    ("address", &["crate::", "tokio", "hyper", "nix::"]),
    ("container", &["crate::", "tokio", "hyper"]),
    ("open_files", &["crate::", "tokio", "hyper"]),
    ("oom_score", &["crate::", "tokio", "hyper"]),
    ("dumpable", &["crate::", "tokio", "hyper"]),
    ("reaper", &["crate::"]),
    ("exit_status", &["crate::", "tokio", "hyper", "nix::"]),
    ("sync", &["crate::", "tokio", "hyper"]),
    ("log", &["crate::", "tokio", "hyper"]),
    ("log_limit", &["crate::", "hyper"]),
    ("printable", &["crate::", "tokio", "hyper"]),
    ("assembly", &["serde", "jsonrpc", "std::fs", "nix::", "tokio"]),
    ("shutdown", &["serde", "jsonrpc", "hyper", "nix::", "crate::cli", "crate::server", "crate::session::"]),
    ("heap", &["crate::", "hyper"]),
    ("late", &["crate::", "hyper"]),
    ("first_words", &["crate::", "hyper", "tracing"]),
    ("secret", &["crate::", "tokio", "hyper"]),
    ("token", &["tokio", "hyper", "crate::cli", "crate::http", "crate::server", "crate::session"]),
    ("drain", &["crate::"]),
    ("signals", &["crate::", "hyper"]),
    ("child", &["serde", "json", "crate::proto", "crate::session", "crate::http", "crate::server", "hyper"]),
    (
        "session",
        &[
            "hyper",
            "http::",
            "StatusCode",
            "HeaderMap",
            "text/event-stream",
            "data: ",
            "nix::",
            "Pid",
            "SIGTERM",
            "crate::sessions",
            "crate::child",
            "crate::reaper",
            "crate::server",
            "crate::cli",
            "std::process",
        ],
    ),
    // What one loop may hold several of: it knows neither the child nor the protocol.
    (
        "session/streams",
        &[
            "AsyncRead",
            "AsyncWrite",
            "Pipes",
            "super::core",
            "super::worker",
            "Front",
            "proto::link",
            "BytesMut",
        ],
    ),
    // Two pipes and what goes through them: it knows neither who speaks nor whether a process listens.
    (
        "session/lane",
        &["super::core", "super::worker", "Pipes", "proto::front", "Front", "proto::link", "proto::output"],
    ),
    (
        "session/inbox",
        &["AsyncRead", "AsyncWrite", "Pipes", "super::core", "super::worker", "Front", "proto::link"],
    ),
    (
        "sessions",
        &[
            "serde",
            "jsonrpc",
            "hyper",
            "StatusCode",
            "HeaderMap",
            "crate::http",
            "crate::server",
            "crate::cli",
        ],
    ),
    (
        "http/problem",
        &[
            "http::body",
            "http::head",
            "http::legacy",
            "http::response",
            "super::body",
            "super::head",
            "super::legacy",
            "super::response",
            "Response<",
            "HeaderMap",
            "tokio",
        ],
    ),
    ("sessions/registry", &["tokio", "Mutex", "Instant::now", "tracing", "nix::"]),
    (
        "http",
        &[
            "nix::",
            "Pid",
            "pipe",
            "crate::child",
            "crate::reaper",
            "crate::server",
            "crate::cli",
            "std::process",
        ],
    ),
    (
        "http/problem",
        &["super::", "crate::http", "crate::sessions", "hyper::header", "hyper::Response", "tokio"],
    ),
    // What a request must say is a matter of its head and its text; who shares a server, of its head and the options.
    ("http/modern/mirror", &["tokio", "crate::sessions", "Session,", "super::super", "Response<"]),
    ("http/sharing", &["crate::sessions", "Session,", "super::super", "Response<", "proto::message"]),
    ("proto/mirrored", &["super::", "crate::"]),
    ("http/sse", &["hyper", "StatusCode", "super::response", "super::body", "super::head"]),
    (
        "server",
        &[
            "serde",
            "jsonrpc",
            "crate::child",
            "crate::http",
            "crate::reaper",
            "crate::session",
            "crate::proto",
            "crate::cli",
        ],
    ),
    (
        "probe",
        &["hyper", "Pid", "crate::assembly", "crate::cli", "crate::http", "crate::server", "crate::session"],
    ),
    ("probe/client", &["tokio", "Instant", "crate::child", "crate::reaper"]),
    ("probe/text", &["tokio", "Instant", "crate::proto", "crate::reaper"]),
    (
        "cli",
        &[
            "tokio",
            "hyper",
            "std::fs",
            "std::io",
            "std::env::var",
            "TcpListener",
            "TcpStream",
            "crate::child",
            "crate::drain",
            "crate::http",
            "log::start",
            "crate::proto",
            "crate::reaper",
            "crate::server",
            "crate::session",
        ],
    ),
];

fn files(room: &str) -> Vec<PathBuf> {
    fn walk(path: &Path, found: &mut Vec<PathBuf>) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| walk(&entry.unwrap().path(), found));
        } else {
            found.push(path.to_owned());
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in [src.join(format!("{room}.rs")), src.join(room)] {
        if path.exists() {
            walk(&path, &mut found);
        }
    }
    assert!(!found.is_empty(), "src/{room} is gone: the walls must move with it");
    found
}

/// The code of a file: no comments, and nothing from its tests on.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().take_while(|(_, line)| *line != "#[cfg(test)]");
    let code =
        lines.map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default().to_owned()));
    code.collect()
}

#[test]
fn no_module_names_what_it_may_not_know() {
    let mut broken = Vec::new();
    for (room, words) in WALLS {
        for path in files(room) {
            if path.ends_with("tests.rs") {
                continue;
            }
            for (number, line) in code(&path) {
                let named = COMMON.iter().fold(line.clone(), |line, leaf| line.replace(leaf, ""));
                for word in *words {
                    if named.contains(word) {
                        broken.push(format!("{}:{number} names {word:?}: {}", path.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "walls of the house are broken:\n{}", broken.join("\n"));
}

#[test]
fn every_room_of_the_house_has_its_walls() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let known = WALLS.iter().any(|(room, _)| *room == name) || matches!(name.as_str(), "main" | "lib");
        assert!(known, "src/{name} has no row in the table of walls");
    }
}

#[test]
fn unsafe_stands_between_fork_and_exec_and_where_memory_goes_back_and_nowhere_else() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms: Vec<_> = WALLS.iter().map(|(room, _)| *room).chain(["main", "lib"]).collect();
    let mut places = Vec::new();
    for path in rooms.into_iter().flat_map(files) {
        let relative = path.strip_prefix(&src).unwrap().display().to_string();
        places.extend(
            code(&path).into_iter().filter(|(_, line)| line.contains("unsafe {")).map(|_| relative.clone()),
        );
    }
    places.sort();
    assert_eq!(places, ["child.rs", "heap.rs", "heap.rs"], "malloc_trim and mallopt");
}

#[test]
fn only_the_reaper_waits() {
    for (room, _) in WALLS.iter().filter(|(room, _)| *room != "reaper") {
        for path in files(room) {
            for (number, line) in code(&path) {
                assert!(!line.contains("waitpid") && !line.contains("waitid"), "{}:{number}", path.display());
            }
        }
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let tokio = manifest.lines().find(|line| line.starts_with("tokio = ")).expect("tokio is a dependency");
    assert!(
        !tokio.contains("\"process\"") && !tokio.contains("\"full\""),
        "tokio's own waiter would be compiled in"
    );
}
