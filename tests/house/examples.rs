//! The example servers by themselves, over plain pipes: what the other tests take for granted about them.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::{self, Value, eventually, example, initialize, json, text_of, tool_call};

struct Pipes {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Pipes {
    fn start(name: &str, args: &[&str]) -> Self {
        let mut process = Command::new(example(name))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap()).lines();
        Pipes { stdin: process.stdin.take(), stdout, process }
    }

    fn ready(name: &str, args: &[&str]) -> Self {
        let mut server = Self::start(name, args);
        server.ask(&initialize(0, "2025-06-18"));
        server.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        server
    }

    fn write(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    fn line(&mut self) -> String {
        self.stdout.next().unwrap().unwrap()
    }

    fn read(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn ask(&mut self, message: &Value) -> Value {
        self.write(message);
        self.read()
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask(&tool_call(1, tool, arguments))
    }

    fn end(mut self) -> Option<i32> {
        self.stdin = None;
        self.process.wait().unwrap().code()
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_notebook_refuses_calls_before_the_handshake_is_complete() {
    let mut notebook = Pipes::start("notebook", &[]);
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let refusal = r#"method "tools/list" is invalid during session initialization"#;

    assert_eq!(notebook.ask(&list)["error"], json!({ "code": 0, "message": refusal }));
    notebook.ask(&initialize(2, "2025-06-18"));
    assert_eq!(notebook.ask(&list)["error"], json!({ "code": 0, "message": refusal }));
    assert_eq!(notebook.ask(&json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" }))["result"], json!({}));
    notebook.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    assert!(notebook.ask(&list)["result"]["tools"].is_array());
}

#[test]
fn the_notebook_refuses_a_second_initialize() {
    let mut notebook = Pipes::ready("notebook", &[]);
    let error = &notebook.ask(&initialize(5, "2025-06-18"))["error"];
    assert_eq!(*error, json!({ "code": -32600, "message": r#"duplicate "initialize" received"# }));
}

#[test]
fn the_notebook_answers_in_the_revision_of_the_client_or_the_newest_it_knows() {
    for (asked, answered) in
        [("2024-11-05", "2024-11-05"), ("2025-03-26", "2025-03-26"), ("2099-01-01", "2025-11-25")]
    {
        let greeting = Pipes::start("notebook", &[]).ask(&initialize(0, asked));
        assert_eq!(greeting["result"]["protocolVersion"], answered);
    }
}

#[test]
fn the_notebook_tells_protocol_errors_from_tool_errors() {
    let mut notebook = Pipes::ready("notebook", &[]);
    assert_eq!(notebook.call("fly", json!({}))["error"]["code"], -32602);
    assert_eq!(notebook.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "fly" }))["error"]["code"], -32601);
    let answer = notebook.call("add_note", json!({ "title": "a" }));
    assert_eq!(answer["result"]["isError"], true);
    assert_eq!(text_of(&answer), r#"argument "text" must be of type string"#);
}

#[test]
fn the_notebook_stops_a_cancelled_call_without_an_answer() {
    let mut notebook = Pipes::ready("notebook", &[]);
    notebook.write(&tool_call("x", "slow", json!({ "seconds": 60 })));
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "x" } });
    notebook.write(&cancel);
    assert_eq!(
        notebook.call("echo", json!({ "text": "next" }))["id"],
        1,
        "the next answer is of the next call"
    );
    assert_eq!(notebook.end(), Some(0));
}

#[test]
fn the_notebook_asks_the_client_in_the_middle_of_a_call() {
    let mut notebook = Pipes::ready("notebook", &[]);
    notebook.write(&tool_call(1, "add_note", json!({ "title": "milk", "text": "two litres" })));
    assert_eq!(notebook.read()["method"], "notifications/resources/list_changed");
    assert_eq!(text_of(&notebook.read()), "note 1 saved: milk");

    let question = notebook.call("confirm_clear", json!({}));
    assert_eq!(question["method"], "elicitation/create");
    let yes = json!({ "action": "accept", "content": { "confirm": true } });
    let changed = notebook.ask(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": yes }));
    assert_eq!(changed["method"], "notifications/resources/list_changed");
    assert_eq!(text_of(&notebook.read()), "cleared 1 notes");
}

#[test]
fn a_hostile_server_is_a_good_one_apart_from_its_fault() {
    let mut hostile = Pipes::ready("hostile", &["dup"]);
    assert_eq!(text_of(&hostile.call("echo", json!({ "text": "a" }))), "a");
    assert_eq!(text_of(&hostile.read()), "again");
    let seen: Value = serde_json::from_str(&text_of(&hostile.call("seen", json!({})))).unwrap();
    let methods: Vec<&Value> = seen.as_array().unwrap().iter().map(|entry| &entry["method"]).collect();
    assert_eq!(methods, ["initialize", "notifications/initialized", "tools/call", "tools/call"]);
    assert_eq!(hostile.end(), Some(0));
}

#[test]
fn a_strict_server_refuses_like_the_notebook() {
    let mut hostile = Pipes::start("hostile", &["strict"]);
    assert_eq!(hostile.call("echo", json!({}))["error"]["code"], 0);
    hostile.ask(&initialize(0, "2025-06-18"));
    assert_eq!(hostile.ask(&initialize(1, "2025-06-18"))["error"]["code"], -32600);
}

#[test]
fn a_server_that_ignores_sigterm_outlives_the_end_of_stdin_too() {
    let mut hostile = Pipes::ready("hostile", &["ignore_term"]);
    hostile.stdin = None;
    let pid = nix::unistd::Pid::from_raw(hostile.process.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    eventually("the signal is pending", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().any(|line| line.starts_with("ShdPnd") && !line.ends_with("0000000000000000"))
    });
    assert!(support::proc::is_alive(hostile.process.id()));
}
