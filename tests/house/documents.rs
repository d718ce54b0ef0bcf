//! The documents: every link in them leads somewhere, every file that they name is there, each fact has one place, and
//! what the program has is in the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::options::printed;

const FRONT: &str = "README.md";
const REFERENCE: &str = "src/README.md";
const FAULTS: &str = "tests/README.md";

/// All of them, as paths from the root.
const DOCUMENTS: &[&str] = &[
    FRONT,
    REFERENCE,
    "docker/README.md",
    "examples/README.md",
    "examples/gateways.md",
    FAULTS,
    "tests/dialogues/README.md",
    ".github/SECURITY.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The lines outside of blocks of code, with their numbers.
fn prose(document: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut inside = false;
    for (line, number) in text(document).lines().zip(1..) {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push((number, line.to_owned()));
        }
    }
    lines
}

/// What stands between backticks in a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> Vec<String> {
    let parts = line.split("](").skip(1);
    parts.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The name by which a heading can be linked to, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(document: &str) -> Vec<String> {
    let headings = prose(document).into_iter().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// The cells of a row of a table. A `\|` stands for a `|` within one.
fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.trim().strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\u{1}");
    Some(row.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect())
}

/// The rows of the tables of a document whose first column has this name.
fn rows(document: &str, first: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut within = None;
    for (_, line) in prose(document) {
        let Some(row) = cells(&line) else {
            within = None;
            continue;
        };
        let is_it = *within.get_or_insert(row.first().is_some_and(|cell| cell == first));
        if is_it {
            found.push(row);
        }
    }
    let rule = |row: &Vec<String>| row.first().is_some_and(|cell| cell.starts_with("---") || cell == first);
    found.retain(|row| !rule(row));
    found
}

/// The names in the first column of these tables, as often as they stand there.
fn named(document: &str, first: &str) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for row in rows(document, first) {
        for name in row.first().into_iter().flat_map(|cell| code(cell)) {
            let name = name.split(' ').next().unwrap_or_default();
            *count.entry(name.to_owned()).or_default() += 1;
        }
    }
    count
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_document_is_among_these() {
    let folders = [".", "src", "docker", "examples", "tests", "tests/dialogues", ".github", ".ci"];
    let mut there = BTreeSet::new();
    for folder in folders {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                there.insert(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let there: BTreeSet<String> = there.iter().map(|path| path.trim_start_matches("./").to_owned()).collect();
    assert_eq!(there, DOCUMENTS.iter().map(|path| (*path).to_owned()).collect());
}

#[test]
fn the_front_page_is_one_page() {
    // Twenty of them are for who has to choose how many processes there are, and what each kind of client can have with
    // each kind of server: nobody looks for that in a reference before he knows of it.
    let lines = text(FRONT).lines().count();
    assert!(lines <= 170, "{FRONT} has {lines} lines; the rest belongs beside what it is about");
}

#[test]
fn no_code_goes_over_the_end_of_a_line() {
    // The tests here read lines.
    for document in DOCUMENTS {
        for (number, line) in prose(document) {
            assert!(line.matches('`').count() % 2 == 0, "{document}:{number}: {line}");
        }
    }
}

#[test]
fn no_two_headings_of_a_document_are_the_same() {
    for document in DOCUMENTS {
        let anchors = anchors(document);
        let twice: Vec<_> =
            anchors.iter().filter(|one| anchors.iter().filter(|other| other == one).count() > 1).collect();
        assert!(twice.is_empty(), "{document}: links cannot tell apart {twice:?}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for document in DOCUMENTS {
        let folder = Path::new(document).parent().unwrap();
        for (number, line) in prose(document) {
            for link in links(&line) {
                if link.starts_with("https://") {
                    continue;
                }
                let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
                let target =
                    if path.is_empty() { PathBuf::from(document) } else { plain(&folder.join(path)) };
                if !root().join(&target).exists() {
                    broken.push(format!("{document}:{number}: {link}: there is no {}", target.display()));
                    continue;
                }
                let target = target.to_str().unwrap();
                let page = if root().join(target).is_dir() {
                    format!("{target}/README.md")
                } else {
                    target.to_owned()
                };
                if !fragment.is_empty() && !anchors(&page).iter().any(|anchor| anchor == fragment) {
                    broken.push(format!("{document}:{number}: {link}: {page} has no such heading"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Whether files fit a name in which `*`, `**` and `{a,b}` may stand.
fn is_there(name: &str) -> bool {
    if let Some((before, rest)) = name.split_once('{')
        && let Some((choices, after)) = rest.split_once('}')
    {
        return choices.split(',').all(|choice| is_there(&format!("{before}{choice}{after}")));
    }
    match name.split_once('*') {
        None => root().join(name).exists(),
        Some((before, after)) => {
            let folder = root().join(before.rsplit_once('/').map_or("", |(folder, _)| folder));
            let last = after.trim_start_matches(['*', '/']);
            folder.is_dir()
                && files(&folder).iter().any(|path| {
                    let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
                    path.starts_with(before) && path.ends_with(last)
                })
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let folders = ["src/", "docker/", "examples/", "tests/", ".github/", ".ci/"];
    let mut missing = Vec::new();
    let mut found = 0;
    for document in DOCUMENTS {
        for (number, line) in prose(document) {
            for name in code(&line) {
                let name = name.split([' ', '#']).next().unwrap_or_default();
                let name = name.split("::").next().unwrap_or_default();
                if folders.iter().any(|folder| name.starts_with(folder)) {
                    found += 1;
                    if !is_there(name) {
                        missing.push(format!("{document}:{number}: {name}"));
                    }
                }
            }
        }
    }
    assert!(found > 100, "only {found} names were found");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_name_with_stars_and_braces_is_a_name_of_files() {
    for name in ["src/lib.rs", "examples/*.Dockerfile", "tests/{house,faults}", "src/**", "tests"] {
        assert!(is_there(name), "{name}");
    }
    for name in ["src/none.rs", "examples/*.none", "tests/{house,none}", "none/**"] {
        assert!(!is_there(name), "{name}");
    }
}

#[test]
fn every_file_beside_a_document_is_named_in_it() {
    let mut missing = Vec::new();
    for document in ["docker/README.md", "examples/README.md"] {
        let folder = Path::new(document).parent().unwrap();
        let text = text(document);
        for path in files(&root().join(folder)) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let is_document = DOCUMENTS.iter().any(|document| path.ends_with(document));
            if !is_document && !text.contains(&format!("`{name}`")) {
                missing.push(format!("{document} does not name {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The options of the bridge, as `--help` lists them.
fn options() -> BTreeSet<String> {
    let help = printed(&["--help"]);
    let options: BTreeSet<String> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .flat_map(|line| line.split([' ', ',']).take(3))
        .filter(|word| word.starts_with("--") && *word != "--") // which is in the example
        .map(str::to_owned)
        .collect();
    assert!(options.len() > 40 && options.contains("--listen") && options.contains("--help"), "{options:?}");
    options
}

#[test]
fn each_option_stands_in_the_reference_once() {
    let options = options();
    let mut known = named(REFERENCE, "option");
    known.retain(|name, _| name.starts_with("--"));
    let twice: Vec<_> = known.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "{REFERENCE} has {twice:?}");
    assert_eq!(known.into_keys().collect::<BTreeSet<_>>(), options, "in {REFERENCE}, and in --help");
}

#[test]
fn every_option_that_is_named_exists() {
    // Those of clients, of docker and of gateways.
    const OF_OTHERS: &[&str] = &[
        "--bearer-token-env-var",
        "--config",
        "--config-stdin",
        "--header",
        "--init",
        "--rm",
        "--requirements",
        "--scope",
        "--session-ttl",
        "--stateless",
        "--stop-timeout",
        "--translated",
        "--user",
    ];
    let options = options();
    let mut unknown = Vec::new();
    for document in DOCUMENTS {
        for (number, line) in prose(document) {
            for name in code(&line).filter(|code| code.starts_with("--") && *code != "--") {
                let name = name.split([' ', '=']).next().unwrap_or_default();
                if !options.contains(name) && !OF_OTHERS.contains(&name) {
                    unknown.push(format!("{document}:{number}: {name}"));
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn every_variable_that_is_named_exists() {
    let flags = options();
    let mut known: BTreeSet<String> =
        flags.iter().map(|flag| flag.trim_start_matches('-').replace('-', "_").to_uppercase()).collect();
    known.extend(["TOKEN", "CHILD"].map(str::to_owned));
    let beside = ["docker", "examples"].into_iter().flat_map(|folder| files(&root().join(folder)));
    let mut found = 0;
    for path in DOCUMENTS.iter().map(|document| root().join(document)).chain(beside) {
        let text = fs::read_to_string(&path).unwrap();
        for rest in text.split("MCP_BRIDGE_").skip(1) {
            let name = rest.split(|c: char| !c.is_ascii_uppercase() && c != '_').next().unwrap_or_default();
            // `MCP_BRIDGE_*` and the like stand for all of them.
            if !name.is_empty() {
                found += 1;
                assert!(known.contains(name), "{} names MCP_BRIDGE_{name}", path.display());
            }
        }
    }
    assert!(found > 15, "only {found} were found");
}

#[test]
fn the_deployment_waits_for_as_long_as_the_bridge_takes() {
    let text = text("docker/kubernetes.yaml");
    let seconds = |before: &str| -> u32 {
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("there is no {before:?}"));
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let stop = seconds("preStop: { sleep: { seconds: ") + seconds("MCP_BRIDGE_SHUTDOWN_TIMEOUT, value: ");
    let grace = seconds("terminationGracePeriodSeconds: ");
    assert!(stop < grace, "SIGKILL would come after {grace} s, and the bridge may take {stop} s");
}

#[test]
fn each_log_event_stands_in_the_reference_once() {
    let sources: Vec<(PathBuf, String)> = files(&root().join("src"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    let reference = text(REFERENCE);
    let mut missing = Vec::new();
    for (path, source) in &sources {
        for event in source.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next()) {
            if !reference.contains(&format!("`{event}`")) {
                missing.push(format!("{event} of {}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{REFERENCE} does not know {missing:?}");
    let known = named(REFERENCE, "event");
    assert!(known.len() > 40, "{known:?}");
    for (event, count) in known {
        assert_eq!(count, 1, "{event} stands in {REFERENCE} more than once");
        assert!(sources.iter().any(|(_, source)| source.contains(&event)), "no source logs {event}");
    }
}

#[test]
fn each_reason_of_a_refusal_is_in_the_reference() {
    let source = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let problem = source("src/http/problem.rs");
    let table = problem.split("#[cfg(test)]").next().unwrap();
    let token = |text: &&str| text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut tokens: BTreeSet<&str> = table.split('"').skip(1).step_by(2).filter(token).collect();
    assert!(tokens.len() > 30, "{tokens:?}");
    // Those of sessions over a server of 2026-07-28, each behind the code of its error.
    let downgrade = source("src/proto/downgrade.rs") + &source("src/proto/downgrade/answer.rs");
    let codes = ["INTERNAL, \"", "INVALID_PARAMS, \"", "NO_METHOD, \"", "code, \""];
    let behind = codes.iter().flat_map(|code| downgrade.split(code).skip(1));
    let own: BTreeSet<&str> = behind.filter_map(|rest| rest.split('"').next()).collect();
    assert!(own.len() > 5 && own.contains("missing_input"), "{own:?}");
    tokens.extend(own);
    let reference = text(REFERENCE);
    let is_missing = |token: &&str| {
        ![format!("`{token}`"), format!("`data.{token}`")].iter().any(|name| reference.contains(name))
    };
    let missing: Vec<_> = tokens.into_iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{REFERENCE} does not know {missing:?}");
}

#[test]
fn each_fact_has_one_place() {
    // The first column of a table of facts, and the one document that has such tables.
    for (first, place) in [
        ("option", REFERENCE),
        ("event", REFERENCE),
        ("status", REFERENCE),
        ("place", REFERENCE),
        ("revision", REFERENCE),
        ("fault", FAULTS),
        ("fact", FAULTS),
        ("gateway", "examples/gateways.md"),
        ("server", "examples/README.md"),
    ] {
        let places: Vec<_> = DOCUMENTS.iter().filter(|document| !rows(document, first).is_empty()).collect();
        assert_eq!(places, [&place], "tables of each {first}");
    }
    // What was copied instead of linked to.
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut twice = Vec::new();
    for document in DOCUMENTS {
        for (number, line) in prose(document) {
            let line = line.trim().trim_start_matches("- ").to_owned();
            let place = format!("{document}:{number}");
            if line.chars().count() >= 60
                && let Some(before) = seen.insert(line, place.clone())
            {
                twice.push(format!("{before} and {place}"));
            }
        }
    }
    assert!(twice.is_empty(), "the same line twice: {}", twice.join(", "));
}

#[test]
fn a_server_is_called_a_server() {
    // In the tables of tests/README.md a child is what it is in the code.
    let mut found = Vec::new();
    for document in DOCUMENTS.iter().filter(|document| **document != FAULTS) {
        for (number, line) in prose(document) {
            let words = without_code(&line).to_lowercase();
            if words.split(|c: char| !c.is_alphabetic()).any(|word| matches!(word, "child" | "upon" | "anew"))
            {
                found.push(format!("{document}:{number}: {line}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
