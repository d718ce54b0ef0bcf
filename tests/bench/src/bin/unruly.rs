//! A stdio MCP server that does its worst, and as fast as it can. Which worst that is, the client says: it stands in the
//! `clientInfo.name` of `initialize` as `MODE [WORD…]`. Any other name makes it an ordinary server, so that one bridge has
//! good sessions beside bad ones. An `initialize` without `params` ends it with an error, as it does many servers.
//!
//! Its tools, in every mode: `echo` {text}; `big` {bytes}, a text of this length; `slow` {ms}, an answer after a while.

use std::error::Error;
use std::io::{self, BufRead, StdoutLock, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

const MIB: usize = 1 << 20;

/// How much of a flood is written at once.
const WRITE: usize = 256 * 1024;

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const NULL_ID: &str = r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#;
const NOTE: &str = r#"{"jsonrpc":"2.0","method":"n"}"#;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "unruly: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Outcome {
    let mut stdout = io::stdout().lock();
    let mut mode = Vec::new();
    for line in io::stdin().lock().split(b'\n') {
        let message: Value = serde_json::from_slice(&line?)?;
        let (id, params) = (&message["id"], &message["params"]);
        match message["method"].as_str() {
            Some("initialize") => {
                let name = params["clientInfo"]["name"].as_str().ok_or("initialize has no params")?;
                mode = name.split(' ').map(str::to_owned).collect();
                initialize(id, params, &words(&mode), &mut stdout)?;
            }
            Some("notifications/initialized") if words(&mode) == ["leaves"] => break,
            Some("notifications/initialized") => initialized(&words(&mode), &mut stdout)?,
            Some("tools/call") => {
                if let ["prints", what] = words(&mode)[..] {
                    print(what, id, &mut stdout)?;
                }
                call(id, params, &mut stdout)?;
            }
            Some("ping") => answer(id, &json!({}), &mut stdout)?,
            _ => {}
        }
    }
    Ok(())
}

fn words(mode: &[String]) -> Vec<&str> {
    mode.iter().map(String::as_str).collect()
}

fn initialize(id: &Value, params: &Value, mode: &[&str], out: &mut StdoutLock<'_>) -> Outcome {
    let version = match mode {
        ["version", length] => json!("v".repeat(length.parse()?)),
        _ => params["protocolVersion"].clone(),
    };
    let about = json!({ "name": "unruly", "version": "0" });
    answer(
        id,
        &json!({ "protocolVersion": version, "capabilities": { "tools": {} }, "serverInfo": about }),
        out,
    )?;
    if mode == ["deaf"] {
        loop {
            sleep(Duration::from_secs(60));
        }
    }
    Ok(())
}

fn initialized(mode: &[&str], out: &mut StdoutLock<'_>) -> Outcome {
    match mode {
        ["floods", what] => flood(what, out),
        ["notes", count, length] => {
            let note = match length.parse()? {
                0 => NOTE.to_owned(),
                length => log_message(length),
            };
            let count: usize = count.parse()?;
            out.write_all(format!("{note}\n").repeat(count).as_bytes())?;
            Ok(out.flush()?)
        }
        _ => Ok(()),
    }
}

fn log_message(length: usize) -> String {
    let params = json!({ "level": "info", "data": "x".repeat(length) });
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params }).to_string()
}

/// One line without end, and nothing is read meanwhile.
fn flood(what: &str, out: &mut StdoutLock<'_>) -> Outcome {
    let line = match what {
        "pings" => PING.to_owned(),
        "null-ids" => NULL_ID.to_owned(),
        "big-ids" => json!({ "jsonrpc": "2.0", "id": "i".repeat(MIB), "method": "ping" }).to_string(),
        "questions" => {
            r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{}}"#.to_owned()
        }
        "strangers" => r#"{"jsonrpc":"2.0","id":"q","method":"no/such/method"}"#.to_owned(),
        "answers" => r#"{"jsonrpc":"2.0","id":987654321,"result":{}}"#.to_owned(),
        "noise" => "x".repeat(100),
        "notes" => log_message(100),
        "stderr" => "line after line of a very chatty server".to_owned(),
        other => return Err(format!("{other:?} is no flood").into()),
    };
    let line = format!("{line}\n");
    let block = line.repeat((WRITE / line.len()).max(1));
    let mut stderr = io::stderr().lock();
    loop {
        if what == "stderr" {
            stderr.write_all(block.as_bytes())?;
        } else {
            out.write_all(block.as_bytes())?;
        }
    }
}

/// One long line.
fn print(what: &str, id: &Value, out: &mut StdoutLock<'_>) -> Outcome {
    let array = |element: &str, bytes: usize| {
        let mut text = String::with_capacity(bytes + 100);
        text.push('[');
        while text.len() < bytes {
            text.push_str(element);
            text.push(',');
        }
        text.push_str(element);
        text.push(']');
        text.into_bytes()
    };
    let envelope = |text: &[u8]| {
        let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"x":""#);
        [head.as_bytes(), text, b"\"}}"].concat()
    };
    let mut line = match what {
        "ones" => array("1", 60 * MIB),
        "objects" => array("{}", 60 * MIB),
        "notes" => array(NOTE, 60 * MIB),
        "null-ids" => array(NULL_ID, 60 * MIB),
        "requests" => array(PING, 60 * MIB),
        "strings" => array(r#""""#, 60 * MIB),
        "arrays" => array("[]", 60 * MIB),
        "vector" => array("0", 10 * MIB),
        "small" => array("1", MIB),
        "invalid" => envelope(&vec![0xff; 60 * MIB]),
        "invalid-noise" => vec![0xff; 60 * MIB],
        "too-long" => envelope(&vec![b'x'; 100_000_000]),
        "brackets" => {
            let nested = ["[".repeat(2_500_000), "]".repeat(2_500_000)].concat();
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"deep":{nested}}}}}"#).into_bytes()
        }
        other => return Err(format!("{other:?} is no line").into()),
    };
    line.push(b'\n');
    out.write_all(&line)?;
    Ok(out.flush()?)
}

fn call(id: &Value, params: &Value, out: &mut StdoutLock<'_>) -> Outcome {
    let arguments = &params["arguments"];
    let number = |name: &str| arguments[name].as_u64().unwrap_or(0);
    let text = match params["name"].as_str() {
        Some("big") => "x".repeat(number("bytes").try_into()?),
        Some("slow") => {
            sleep(Duration::from_millis(number("ms")));
            "slept".to_owned()
        }
        _ => arguments["text"].as_str().unwrap_or_default().to_owned(),
    };
    answer(id, &json!({ "content": [{ "type": "text", "text": text }] }), out)
}

fn answer(id: &Value, result: &Value, out: &mut StdoutLock<'_>) -> Outcome {
    writeln!(out, r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)?;
    Ok(out.flush()?)
}
