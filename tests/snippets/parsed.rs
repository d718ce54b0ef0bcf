//! Blocks that a parser reads. What other languages have is parsed by tests/interop/documents.

use serde_json::Value;

use super::blocks::{Block, block, blocks, documents};

const CLIENTS: &str = "examples/README.md";

#[track_caller]
fn parsed(block: &Block) -> Value {
    let Block { document, line, text, .. } = block;
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{document}:{line}: {error}"))
}

/// The names in `${KIND:NAME}` of a text.
fn placeholders(text: &str, kind: &str) -> Vec<String> {
    let opening = format!("${{{kind}:");
    let rest = text.split(&opening).skip(1);
    rest.map(|rest| rest.split('}').next().unwrap().to_owned()).collect()
}

#[test]
fn each_json_is_json() {
    let mut count = 0;
    for document in documents() {
        for block in blocks(&document).iter().filter(|block| block.language == "json") {
            parsed(block);
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

/// <https://cursor.com/docs/mcp>: `url` makes it a remote server; `${env:NAME}` is resolved in `headers`.
#[test]
fn cursor_s_file_is_shaped_as_its_documentation_says() {
    let file = parsed(&block(CLIENTS, "{\n  \"mcpServers\""));
    let server = &file["mcpServers"]["notebook"];
    assert_eq!(file.as_object().unwrap().len(), 1);
    assert_eq!(server["url"], "http://127.0.0.1:8080/mcp");
    assert!(server.get("command").is_none(), "that is a server on stdio");
    let header = server["headers"]["Authorization"].as_str().unwrap();
    assert_eq!(
        (header, &*placeholders(header, "env")),
        ("Bearer ${env:MCP_TOKEN}", &["MCP_TOKEN".to_owned()][..])
    );
}

/// <https://code.visualstudio.com/docs/copilot/reference/mcp-configuration>: `servers`, each with a `type`; `inputs`,
/// each with `id`, `type`, `description`, named as `${input:ID}`.
#[test]
fn visual_studio_code_s_file_is_shaped_as_its_documentation_says() {
    let file = parsed(&block(CLIENTS, "{\n  \"inputs\""));
    let server = &file["servers"]["notebook"];
    assert_eq!((&server["type"], &server["url"]), (&"http".into(), &"http://127.0.0.1:8080/mcp".into()));
    let header = server["headers"]["Authorization"].as_str().unwrap();
    assert!(header.starts_with("Bearer ${input:"), "{header}");
    let ids = file["inputs"].as_array().unwrap().iter().map(|input| input["id"].as_str().unwrap());
    let inputs: Vec<&str> = ids.collect();
    assert_eq!(inputs, placeholders(header, "input"));
    let input = &file["inputs"][0];
    assert_eq!((&input["type"], &input["password"]), (&"promptString".into(), &true.into()));
    assert!(input["description"].is_string());
}

#[test]
fn a_gateway_s_json_names_the_bridge() {
    let file = parsed(&block("examples/gateways.md", "{\n  \"mcpServers\""));
    let server = &file["mcpServers"]["notebook"];
    assert_eq!((&server["type"], &server["url"]), (&"http".into(), &"http://mcp-bridge:8080/mcp".into()));
    let adapter = parsed(&block("examples/gateways.md", "{\n  \"name\""));
    let variables = adapter["environmentVariables"].as_object().unwrap();
    let finished = crate::support::run_command({
        let mut bridge = crate::support::bridge_command(&["--check"], &["notebook"]);
        bridge.envs(variables.iter().map(|(name, value)| (name, value.as_str().unwrap())));
        bridge
    });
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(!finished.stderr.contains("sets no option"), "{}", finished.stderr);
}

/// A line is `ID[text]`, `ID["text"]`, or two of them with `-->` or `-- text -->` between.
#[test]
fn the_picture_is_a_flowchart() {
    let picture = block("README.md", "flowchart LR\n");
    assert_eq!(picture.language, "mermaid");
    let mut known: Vec<String> = Vec::new();
    for line in picture.text.lines().skip(1) {
        let (from, to) = line.rsplit_once("-->").map_or((line, None), |(from, to)| (from, Some(to)));
        let from = from.split(" -- ").next().unwrap();
        for node in [Some(from), to].into_iter().flatten().map(str::trim) {
            let (id, label) = node.split_once('[').map_or((node, None), |(id, label)| (id, Some(label)));
            assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{line}");
            if let Some(label) = label {
                let text = label.strip_suffix(']').unwrap_or_else(|| panic!("{line}"));
                let plain = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
                assert!(plain == text || !plain.contains('"'), "{line}");
                let special = |c: char| "[](){}<>|\"".contains(c);
                assert!(plain != text || !text.contains(special), "{line}: such a text needs quotes");
            }
            known.push(id.to_owned());
        }
    }
    assert!(known.iter().any(|id| id == "bridge"), "{known:?}");
}
