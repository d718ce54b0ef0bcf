//! A stdio MCP server of 2026-07-28, or one that is asked for it: `modern MODE`. It answers `server/discover`, `tools/list` and
//! calls of the tool `echo`, each only with the `_meta` that this revision wants.
//!
//! Appends the first line that it reads to the file that [`FIRST_LINES`] names: which of its processes was told what
//! first is how a test sees what the bridge has asked whom.

#![allow(clippy::indexing_slicing, reason = "`Value[…]` is null for what is missing; it never panics")]

use std::io::{self, BufRead, Write};
use std::time::Duration;
use std::{env, fs, process, thread};

use serde_json::{Value, json};

const USAGE: &str = "\
usage: modern only [MS]   knows 2026-07-28 alone, and takes so long for its first answer
       modern dual [FILE] knows the session era too, and speaks the one in which it is asked first, as the Python SDK
                          does; once there is FILE, only the session era
       modern legacy HOW  knows the session era alone; asked for server/discover it ends, says nothing, answers it with
                          an empty result or refuses it: exit, silent, empty, refuse
";

/// The variable that names the file for first lines.
const FIRST_LINES: &str = "FIRST_LINES";

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

/// UnsupportedProtocolVersion.
const UNSUPPORTED: i32 = -32022;

/// What the Python SDK answers to a request of 2026-07-28 in a session.
const INVALID: i32 = -32600;

#[derive(Clone, Copy, PartialEq)]
enum Era {
    Legacy,
    Modern,
}

fn main() -> process::ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (mut era, pause, discovered) = match words[..] {
        ["only"] => (Some(Era::Modern), 0, ""),
        ["only", ms] => (Some(Era::Modern), ms.parse().unwrap_or(0), ""),
        ["dual"] => (None, 0, ""),
        ["dual", file] => (fs::exists(file).unwrap_or(false).then_some(Era::Legacy), 0, ""),
        ["legacy", how @ ("exit" | "silent" | "empty" | "refuse")] => (Some(Era::Legacy), 0, how),
        _ => {
            let _ = io::stderr().write_all(USAGE.as_bytes());
            return 64.into();
        }
    };
    for (place, line) in io::stdin().lock().lines().map_while(Result::ok).enumerate() {
        if place == 0 {
            note(&line);
            thread::sleep(Duration::from_millis(pause));
        }
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let is_initialize = message["method"] == "initialize";
        let era = *era.get_or_insert(if is_initialize { Era::Legacy } else { Era::Modern });
        // What is no request has no answer.
        if !message["method"].is_string() || message["id"].is_null() {
            continue;
        }
        let result = match (discovered, message["method"].as_str()) {
            ("exit", Some("server/discover")) => return 1.into(),
            ("silent", Some("server/discover")) => continue,
            ("empty", Some("server/discover")) => Ok(json!({})),
            _ => answer(era, &message),
        };
        let mut answer = match result {
            Ok(result) => json!({ "result": result }),
            Err((code, message, data)) => {
                json!({ "error": { "code": code, "message": message, "data": data } })
            }
        };
        answer["jsonrpc"] = "2.0".into();
        answer["id"] = message["id"].clone();
        let _ = io::stdout().write_all(format!("{answer}\n").as_bytes());
    }
    0.into()
}

/// The result, or the error.
fn answer(era: Era, message: &Value) -> Result<Value, (i32, String, Value)> {
    let (method, params) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
    let version = params["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str();
    let supported = match era {
        Era::Legacy => json!([LEGACY]),
        Era::Modern => json!([MODERN]),
    };
    let unsupported = |what: &str| {
        Err((UNSUPPORTED, format!("unsupported protocol version: {what}"), json!({ "supported": supported })))
    };
    let capabilities = json!({ "tools": {} });
    let server = json!({ "name": "modern", "version": "1.0" });
    let mut result = match (era, method) {
        (Era::Legacy, "initialize") => {
            return Ok(
                json!({ "protocolVersion": LEGACY, "capabilities": capabilities, "serverInfo": server }),
            );
        }
        (Era::Legacy, "ping") => return Ok(json!({})),
        (Era::Legacy, _) if version.is_some() => {
            return Err((INVALID, "this is a session".to_owned(), Value::Null));
        }
        (Era::Modern, "initialize") => return unsupported(&params["protocolVersion"].to_string()),
        (Era::Modern, _) if version.is_none() => {
            let why = "_meta has no io.modelcontextprotocol/protocolVersion";
            return Err((-32602, why.to_owned(), Value::Null));
        }
        (Era::Modern, _) if version != Some(MODERN) => return unsupported(version.unwrap_or_default()),
        (Era::Modern, "server/discover") => {
            json!({ "supportedVersions": supported, "capabilities": capabilities })
        }
        (_, "tools/list") => json!({
            "tools": [{ "name": "echo", "description": "the text", "inputSchema": { "type": "object" } }],
        }),
        (_, "tools/call") if params["name"] == "echo" => {
            json!({ "content": [{ "type": "text", "text": params["arguments"]["text"] }] })
        }
        (_, "tools/call") => return Err((-32602, "unknown tool".to_owned(), Value::Null)),
        _ => return Err((-32601, format!("method not found: {method}"), Value::Null)),
    };
    if era == Era::Modern {
        result["resultType"] = "complete".into();
        result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": server });
        if method != "tools/call" {
            (result["ttlMs"], result["cacheScope"]) = (0.into(), "private".into());
        }
    }
    Ok(result)
}

fn note(line: &str) {
    let Some(path) = env::var_os(FIRST_LINES) else { return };
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
}
