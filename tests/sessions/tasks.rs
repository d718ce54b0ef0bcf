//! Tasks (2025-11-25, experimental): the bridge passes them on and knows nothing about them.

use std::time::Duration;

use crate::support::{self, Bridge, Response, Scratch, Session, Value, eventually, json};

/// A child with one task `t`. It keeps what it reads in `$0`.
///
/// A call starts the task. `tasks/result` waits for the file `$0.done`, on the side, as its revision demands; meanwhile
/// `future/ask` makes it ask and `future/tell` makes it talk about the task.
const SERVER: &str = r#"
    related='"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}'
    say() { printf '{"jsonrpc":"2.0",%s}\n' "$1"; }
    while IFS= read -r line; do
        printf '%s\n' "$line" >> "$0"
        id=${line#*\"id\":}; id=${id%%[,\}]*}
        case $line in
            *'"method":"initialize"'*)
                say "\"id\":$id,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tasks\":{\"list\":{},\"cancel\":{},\"requests\":{\"tools\":{\"call\":{}}}}},\"serverInfo\":{\"name\":\"tasks\",\"version\":\"0\"}}" ;;
            *'"method":"tools/call"'*)
                say "\"id\":$id,\"result\":{\"task\":{\"taskId\":\"t\",\"status\":\"working\",\"ttl\":60000,\"pollInterval\":  500}}" ;;
            *'"method":"tasks/result"'*)
                ( while ! [ -e "$0.done" ]; do sleep 0.02; done
                  say "\"id\":$id,\"result\":{\"content\":[],$related}" ) & ;;
            *'"method":"future/ask"'*)
                say "\"id\":\"q\",\"method\":\"elicitation/create\",\"params\":{\"message\":\"sure?\",$related}"
                say "\"id\":$id,\"result\":{}" ;;
            *'"method":"future/tell"'*)
                say "\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"half\",$related}"
                say "\"method\":\"notifications/tasks/status\",\"params\":{\"taskId\":\"t\",\"status\":\"working\"}"
                say "\"method\":\"notifications/progress\",\"params\":{\"progressToken\":\"p\",\"progress\":1,$related}"
                say "\"id\":$id,\"result\":{}" ;;
            *'"method":"notifications/'* | *'"result":'* | *'"error":'*) ;;
            *)
                say "\"id\":$id,\"result\":{\"taskId\":\"t\",\"status\":\"working\",\"saw\": $id,\"unknown\":[1.0e2]}" ;;
        esac
    done"#;

struct Tasks {
    _bridge: Bridge,
    scratch: Scratch,
    session: Session,
}

fn start(options: &[&str]) -> Tasks {
    let scratch = Scratch::new();
    let bridge = Bridge::start(options, &["sh", "-c", SERVER, &scratch.path("log")]);
    let session = bridge.initialize_as("2025-11-25");
    session.notify("notifications/initialized", json!({}));
    Tasks { _bridge: bridge, scratch, session }
}

impl Tasks {
    /// The last line that the child has read.
    fn last_line(&self) -> String {
        self.scratch.read("log").lines().last().unwrap_or_default().to_owned()
    }

    fn wait_for(&self, method: &str) {
        eventually("the child has it", || self.scratch.read("log").contains(method));
    }

    fn start_result(&self, id: &str) -> Response {
        let body =
            json!({ "jsonrpc": "2.0", "id": id, "method": "tasks/result", "params": { "taskId": "t" } });
        let response = self.session.post(body.to_string());
        assert!(response.is_sse(), "it waits");
        response
    }

    fn finish(&self) {
        self.scratch.write("log.done", "");
    }
}

/// What is left of an answer when the id is the client's again.
#[track_caller]
fn assert_passed(tasks: &Tasks, method: &str, params: &str) {
    let text = format!(r#"{{"jsonrpc":"2.0", "id":"mine","method":"{method}",  "params":{params}}}"#);
    let mut response = tasks.session.post(&text);
    response.expect(200, method);
    let answer = response.text();
    let line = tasks.last_line();
    let (before, after) = text.split_once(r#""mine""#).unwrap();
    assert!(line.starts_with(before) && line.ends_with(after), "{line}\nis not\n{text}");
    let id = &line[before.len()..line.len() - after.len()];
    assert!(id.parse::<u64>().is_ok(), "only the id is another one: {line}");
    let expected = format!(
        r#"{{"jsonrpc":"2.0","id":"mine","result":{{"taskId":"t","status":"working","saw": {id},"unknown":[1.0e2]}}}}"#
    );
    assert_eq!(answer, expected);
}

// ---------------------------------------------------------------------------------------------- requests

#[test]
fn requests_about_tasks_and_their_answers_pass_byte_for_byte() {
    let tasks = start(&[]);
    for (method, params) in [
        ("tasks/get", r#"{"taskId":"t"}"#),
        ("tasks/list", r#"{ "cursor":"\u0061" }"#),
        ("tasks/cancel", r#"{"taskId":"t","_meta":{"x":12345678901234567890}}"#),
        ("tasks/update", r#"{"taskId":"t","inputResponses":{}}"#),
    ] {
        assert_passed(&tasks, method, params);
    }
}

#[test]
fn requests_of_a_revision_to_come_pass_byte_for_byte() {
    let tasks = start(&[]);
    for method in ["future/method", "tasks/future", "x", "", "rpc.discover", "日本"] {
        assert_passed(&tasks, method, r#"{"deep":[[{"a":1.0e2}]]}"#);
    }
}

#[test]
fn a_call_that_asks_for_a_task_gets_one_and_is_over() {
    let tasks = start(&[]);
    let call = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"work","arguments":{},"#,
        r#""task":{"ttl": 60000},"_meta":{"progressToken":"p"}}}"#
    );
    let mut response = tasks.session.post(call);
    response.expect(200, "the call is answered at once");
    assert!(!response.is_sse());
    let expected = r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t","status":"working","ttl":60000,"pollInterval":  500}}}"#;
    assert_eq!(response.text(), expected);
    assert!(tasks.last_line().contains(r#""task":{"ttl": 60000}"#), "{}", tasks.last_line());
}

#[test]
fn the_capabilities_for_tasks_pass_in_both_directions() {
    let scratch = Scratch::new();
    let bridge = Bridge::start(&[], &["sh", "-c", SERVER, &scratch.path("log")]);
    let mut initialize = support::initialize(0, "2025-11-25");
    let mine =
        json!({ "requests": { "sampling": { "createMessage": {} }, "elicitation": { "create": {} } } });
    initialize["params"]["capabilities"]["tasks"] = mine.clone();
    let answer = bridge.post(initialize.to_string()).answer();
    assert_eq!(answer["result"]["capabilities"]["tasks"]["requests"]["tools"], json!({ "call": {} }));
    let line: Value = serde_json::from_str(scratch.read("log").lines().next().unwrap()).unwrap();
    assert_eq!(line["params"]["capabilities"]["tasks"], mine);
}

#[test]
fn a_quick_look_at_a_task_is_no_stream() {
    let tasks = start(&[]);
    let mut response =
        tasks.session.post(r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"t"}}"#);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.json()["result"]["status"], "working");
}

// ---------------------------------------------------------------------------------------------- tasks/result

#[test]
fn a_result_that_is_waited_for_is_a_stream_kept_alive_until_it_comes() {
    let tasks = start(&["--sse-after", "50ms", "--keep-alive", "50ms"]);
    let mut response = tasks.start_result("r");
    response.wait_for_comments(3);
    tasks.finish();
    let messages = response.messages();
    assert_eq!(messages.len(), 1, "{messages:?}");
    let meta = &messages[0]["result"]["_meta"]["io.modelcontextprotocol/related-task"];
    assert_eq!((&messages[0]["id"], meta), (&json!("r"), &json!({ "taskId": "t" })));
}

#[test]
fn others_are_served_while_a_result_is_waited_for() {
    let tasks = start(&["--sse-after", "1s"]);
    let mut first = tasks.start_result("a");
    let mut second = tasks.start_result("b");
    assert_passed(&tasks, "tasks/get", r#"{"taskId":"t"}"#);
    tasks.finish();
    assert_eq!((&first.answer()["id"], &second.answer()["id"]), (&json!("a"), &json!("b")));
}

#[test]
fn a_client_may_leave_a_result_and_ask_for_it_again() {
    let tasks = start(&["--sse-after", "20ms"]);
    drop(tasks.start_result("a"));
    drop(tasks.start_result("b"));
    let mut again = tasks.start_result("c");
    tasks.finish();
    assert_eq!(again.answer()["id"], "c");
    assert!(!tasks.scratch.read("log").contains("notifications/cancelled"), "leaving is no cancellation");
}

#[test]
fn a_client_may_leave_a_result_and_resume_its_stream() {
    let tasks = start(&["--sse-after", "20ms", "--prime"]);
    let mut response = tasks.start_result("a");
    let prime = response.event().unwrap().id.unwrap();
    drop(response);
    tasks.finish();
    let mut resumed = tasks.session.resume(&prime);
    resumed.expect(200, "the stream is known");
    assert_eq!(resumed.answer()["id"], "a");
}

#[test]
fn cancelling_a_task_does_not_cancel_the_request_for_its_result() {
    let tasks = start(&["--sse-after", "20ms"]);
    let mut response = tasks.start_result("r");
    assert_passed(&tasks, "tasks/cancel", r#"{"taskId":"t"}"#);
    assert!(response.is_silent_for(Duration::from_millis(100)), "its end is for the child to say");
    tasks.finish();
    assert!(response.answer()["result"].is_object());
}

// ---------------------------------------------------------------------------------------------- what a task says

#[test]
fn what_a_task_says_while_its_result_is_waited_for_reaches_the_client_once() {
    let tasks = start(&["--sse-after", "20ms"]);
    let mut listening = tasks.session.listen();
    let mut result = tasks.start_result("r");
    let mut call = tasks.session.post(r#"{"jsonrpc":"2.0","id":1,"method":"future/tell"}"#);
    let mut heard = call.messages();
    heard.push(listening.message());
    heard.push(listening.message());
    tasks.finish();
    heard.extend(result.messages());
    assert!(listening.is_silent_for(Duration::from_millis(100)));
    let mut methods: Vec<&str> = heard.iter().filter_map(|message| message["method"].as_str()).collect();
    methods.sort_unstable();
    assert_eq!(methods, ["notifications/message", "notifications/progress", "notifications/tasks/status"]);
    let message = heard.iter().find(|message| message["method"] == "notifications/message").unwrap();
    assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/related-task"]["taskId"], "t");
    assert_eq!(heard.len(), 5, "{heard:?}");
}

#[test]
fn what_a_task_says_while_nothing_is_in_flight_waits_for_a_listener() {
    let tasks = start(&[]);
    tasks.session.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"work","task":{},"_meta":{"progressToken":"p"}}}"#).answer();
    tasks.session.post(r#"{"jsonrpc":"2.0","id":2,"method":"future/tell"}"#).messages();
    let mut listening = tasks.session.listen();
    assert_eq!(listening.message()["method"], "notifications/tasks/status");
    let progress = listening.message();
    assert_eq!(
        (&progress["method"], &progress["params"]["progressToken"]),
        (&json!("notifications/progress"), &json!("p")),
        "a task's token outlives the call that made it"
    );
}

#[test]
fn a_question_of_a_task_is_asked_on_the_stream_that_waits_for_its_result() {
    let tasks = start(&["--sse-after", "20ms"]);
    let mut result = tasks.start_result("r");
    tasks.wait_for("tasks/result");
    // The call that makes the child ask takes no events itself.
    let ask = support::Request::post("/mcp", r#"{"jsonrpc":"2.0","id":1,"method":"future/ask"}"#);
    let ask = tasks.session.headers(ask).with("Accept", "application/json");
    assert_eq!(ask.send(tasks.session.address).json()["result"], json!({}));
    let question = result.message();
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"]["_meta"]["io.modelcontextprotocol/related-task"]["taskId"], "t");
    tasks.session.respond(&question["id"], json!({ "action": "accept", "content": {} }));
    tasks.wait_for(r#""action":"accept""#);
    tasks.finish();
    assert_eq!(result.answer()["id"], "r");
}

#[test]
fn a_question_of_a_task_that_nobody_waits_for_is_held_for_a_listener() {
    let tasks = start(&[]);
    let ask = support::Request::post("/mcp", r#"{"jsonrpc":"2.0","id":1,"method":"future/ask"}"#);
    let ask = tasks.session.headers(ask).with("Accept", "application/json");
    assert_eq!(ask.send(tasks.session.address).json()["result"], json!({}));
    let question = tasks.session.listen().message();
    assert_eq!((&question["id"], &question["method"]), (&json!("q"), &json!("elicitation/create")));
    tasks.session.respond(&question["id"], json!({ "action": "decline" }));
    tasks.wait_for(r#""action":"decline""#);
}

#[test]
fn what_a_client_says_about_its_own_tasks_reaches_the_child() {
    let tasks = start(&[]);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"mine",  "status":"completed"}}"#;
    assert_eq!(tasks.session.post(note).status, 202);
    tasks.session.ping().expect(200, "the child has read everything before");
    assert!(tasks.scratch.read("log").lines().any(|line| line == note));
}
