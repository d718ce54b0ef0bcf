//! A server of the official Rust SDK over stdio, with the tools of `examples/notebook.rs` and those of `../../eras/child.py`:
//! `rmcp-server [--modern]`
//!
//! It speaks 2026-07-28 to whoever says so in its requests, and sessions to whoever begins with `initialize`; with `--modern`
//! it supports no version that has one. Questions are those of 2026-07-28 only.

#![allow(deprecated, reason = "rmcp deprecates what 2026-07-28 removed")]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use std::{env, process};

use rmcp::model::*;
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::transport::stdio;
use rmcp::{ErrorData, ServerHandler, ServiceExt};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::sleep;

#[rustfmt::skip]
const TOOLS: [&str; 15] = [
    "add_note", "list_notes", "read_note", "echo", "confirm_clear", "summarize", "list_roots", "count", "log", "slow",
    "work", "question", "update", "keep", "tell",
];

#[derive(Default)]
struct State {
    notes: Vec<(String, String)>,
    kept: Vec<String>,
    /// The words of calls that wait, and of those that were cancelled.
    running: BTreeSet<String>,
    cancelled: Vec<String>,
}

struct Server {
    modern: bool,
    state: Mutex<State>,
    /// A resource that has changed, and whether it is new.
    updates: broadcast::Sender<(String, bool)>,
    /// For who will listen: the SDK acknowledges a subscription before it calls `listen`, and what comes between must not be
    /// lost.
    listening: Mutex<VecDeque<broadcast::Receiver<(String, bool)>>>,
}

fn uri(title: &str) -> String {
    format!("note:///{title}")
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(internal)
}

fn internal(error: impl ToString) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

fn failed(text: String) -> Result<CallToolResponse, ErrorData> {
    Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into())
}

fn elicitation(message: &str, name: &str, kind: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { name: { "type": kind } }, "required": [name] });
    let params = json!({ "mode": "form", "message": message, "requestedSchema": schema });
    json!({ "method": "elicitation/create", "params": params })
}

/// What a client answered to `question`; without an answer, the result that asks for one.
fn asked(
    request: &CallToolRequestParams,
    question: Value,
    state: Option<&str>,
) -> Result<Result<Value, CallToolResponse>, ErrorData> {
    if let Some(answer) = request.input_responses.as_ref().and_then(|answers| answers.get("q")) {
        return Ok(Ok(json!(answer)));
    }
    let questions = BTreeMap::from([("q".to_owned(), from(question)?)]);
    let wanted = InputRequiredResult::new(Some(questions), state.map(str::to_owned));
    Ok(Err(CallToolResponse::InputRequired(wanted)))
}

fn text(text: impl Into<String>) -> Result<CallToolResponse, ErrorData> {
    Ok(CallToolResult::success(vec![ContentBlock::text(text.into())]).into())
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic with the lock held")
    }

    fn changed(&self, uri: &str, fresh: bool) {
        let _ = self.updates.send((uri.to_owned(), fresh)); // nobody may listen
    }

    /// Whether the call may go on; a cancelled one leaves its word for `tell`.
    async fn waited(&self, pause: f64, word: &str, context: &RequestContext<RoleServer>) -> bool {
        self.state().running.insert(word.to_owned());
        let goes_on = tokio::select! {
            () = sleep(Duration::from_secs_f64(pause)) => true,
            () = context.ct.cancelled() => false,
        };
        let mut state = self.state();
        state.running.remove(word);
        if !goes_on {
            state.cancelled.push(word.to_owned());
        }
        goes_on
    }

    async fn steps(
        &self,
        steps: u64,
        pause: f64,
        word: Option<&str>,
        context: &RequestContext<RoleServer>,
    ) -> Result<bool, ErrorData> {
        for step in 1..=steps {
            if !self.waited(pause, word.unwrap_or_default(), context).await {
                return Ok(false);
            }
            if let Some(token) = context.meta.get_progress_token() {
                let progress = ProgressNotificationParam::new(token, step as f64).with_total(steps as f64);
                let progress = match word {
                    Some(word) => progress.with_message(word.to_owned()),
                    None => progress,
                };
                context.peer.notify_progress(progress).await.map_err(internal)?;
            }
        }
        Ok(true)
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_logging()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("notebook", "3"))
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        let known = ProtocolVersion::KNOWN_VERSIONS.iter().cloned();
        known.filter(|version| !self.modern || *version == ProtocolVersion::V_2026_07_28).collect()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({ "type": "object" }).as_object().cloned().unwrap_or_default();
        Ok(ListToolsResult::with_all_items(TOOLS.map(|name| Tool::new(name, name, schema.clone())).to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.clone().unwrap_or_default();
        let word = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| arguments.get(name).and_then(Value::as_f64);
        match &*request.name {
            "add_note" => {
                let (title, body) = (word("title").to_owned(), word("text").to_owned());
                let mut state = self.state();
                let known = state.notes.iter().position(|note| note.0 == title);
                match known {
                    Some(place) => state.notes[place].1 = body,
                    None => state.notes.push((title.clone(), body)),
                }
                self.changed(&uri(&title), known.is_none());
                text(format!("note saved: {title}"))
            }
            "list_notes" => {
                let state = self.state();
                let titles =
                    state.notes.iter().enumerate().map(|(at, note)| format!("{}. {}", at + 1, note.0));
                let titles = titles.collect::<Vec<_>>().join("\n");
                text(if titles.is_empty() { "no notes yet".to_owned() } else { titles })
            }
            "read_note" => {
                let state = self.state();
                match state.notes.iter().find(|note| note.0 == word("title")) {
                    Some(note) => text(&*note.1),
                    None => failed(format!("there is no note {}", word("title"))),
                }
            }
            "echo" => text(word("text")),
            "confirm_clear" => match asked(&request, elicitation("Delete all?", "confirm", "boolean"), None)?
            {
                Ok(answer) if answer["content"]["confirm"] == true => {
                    text(format!("cleared {} notes", std::mem::take(&mut self.state().notes).len()))
                }
                Ok(_) => text(format!("kept {} notes", self.state().notes.len())),
                Err(asks) => Ok(asks),
            },
            "summarize" => {
                let content = json!({ "type": "text", "text": "Summarize these notes" });
                let params =
                    json!({ "messages": [{ "role": "user", "content": content }], "maxTokens": 200 });
                let question = json!({ "method": "sampling/createMessage", "params": params });
                match asked(&request, question, None)? {
                    Ok(answer) => {
                        let content = &answer["content"];
                        let said = content["text"].as_str().or_else(|| content[0]["text"].as_str());
                        text(format!("summary: {}", said.unwrap_or_default()))
                    }
                    Err(asks) => Ok(asks),
                }
            }
            "list_roots" => match asked(&request, json!({ "method": "roots/list", "params": {} }), None)? {
                Ok(answer) => {
                    let roots = answer["roots"].as_array().into_iter().flatten();
                    let roots: Vec<&str> = roots.filter_map(|root| root["uri"].as_str()).collect();
                    text(roots.join("\n"))
                }
                Err(asks) => Ok(asks),
            },
            "count" => {
                let (to, pause) = (number("to").unwrap_or_default(), number("delay_ms").unwrap_or_default());
                self.steps(to as u64, pause / 1000.0, None, &context).await?;
                text(format!("counted to {to}"))
            }
            "log" => {
                if context.meta.log_level().is_some() {
                    let params =
                        json!({ "level": word("level"), "logger": "notebook", "data": word("message") });
                    context.peer.notify_logging_message(from(params)?).await.map_err(internal)?;
                }
                text("logged")
            }
            "slow" => {
                self.waited(number("seconds").unwrap_or_default(), word("text"), &context).await;
                text(format!("waited {} s: {}", arguments["seconds"], word("text")))
            }
            "work" => {
                let (steps, pause) = (number("steps").unwrap_or(1.0), number("pause").unwrap_or(0.01));
                let goes_on = self.steps(steps as u64, pause, Some(word("word")), &context).await?;
                text(if goes_on { word("word") } else { "cancelled" })
            }
            "question" => {
                let word = word("word");
                match asked(&request, elicitation(word, "word", "string"), Some(word))? {
                    Ok(answer) if answer["action"] == "accept" => {
                        text(format!("{word}: {}", answer["content"]["word"].as_str().unwrap_or_default()))
                    }
                    Ok(_) => failed(format!("not answered: {word}")),
                    Err(asks) => Ok(asks),
                }
            }
            "update" => {
                self.changed(word("word"), false);
                text(word("word"))
            }
            "keep" => {
                let mut state = self.state();
                state.kept.push(word("word").to_owned());
                text(state.kept.join(" "))
            }
            "tell" => {
                let state = self.state();
                let (running, cancelled) = (&state.running, &state.cancelled);
                text(json!({ "pid": process::id(), "running": running, "cancelled": cancelled }).to_string())
            }
            name => Err(ErrorData::invalid_params(format!("no tool {name}"), None)),
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let greet = json!({ "name": "greet", "arguments": [{ "name": "name", "required": true }] });
        Ok(ListPromptsResult::with_all_items(vec![from(greet)?]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name != "greet" {
            return Err(ErrorData::invalid_params(format!("no prompt {}", request.name), None));
        }
        let arguments = request.arguments.unwrap_or_default();
        let name = arguments.get("name").and_then(Value::as_str).unwrap_or_default();
        let message = PromptMessage::new_text(Role::User, format!("Say hello to {name}"));
        Ok(GetPromptResponse::Complete(GetPromptResult::new(vec![message])))
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let state = self.state();
        let notes = state.notes.iter().map(|note| Resource::new(uri(&note.0), note.0.clone()));
        Ok(ListResourcesResult::with_all_items(notes.collect()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let state = self.state();
        let Some(note) = state.notes.iter().find(|note| uri(&note.0) == request.uri) else {
            let about = Some(json!({ "uri": request.uri }));
            // -32002 up to 2025-11-25
            return Err(match context.meta.protocol_version() {
                Some(_) => ErrorData::invalid_params("Resource not found", about),
                None => ErrorData::resource_not_found("Resource not found", about),
            });
        };
        let contents = json!({ "uri": request.uri, "mimeType": "text/plain", "text": note.1 });
        Ok(ReadResourceResponse::Complete(ReadResourceResult::new(vec![from(contents)?])))
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.listening.lock().expect("no panic with the lock held").push_back(self.updates.subscribe());
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let begun = self.listening.lock().expect("no panic with the lock held").pop_front();
        let mut updates = begun.unwrap_or_else(|| self.updates.subscribe());
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                update = updates.recv() => {
                    let Ok((uri, fresh)) = update else { return Ok(()) };
                    let (accepted, sink) = (context.accepted(), context.sink());
                    if accepted.resource_subscriptions.as_ref().is_some_and(|uris| uris.contains(&uri)) {
                        sink.notify_resource_updated(uri).await.map_err(internal)?;
                    }
                    if fresh && accepted.resources_list_changed == Some(true) {
                        sink.notify_resource_list_changed().await.map_err(internal)?;
                    }
                }
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server {
        modern: env::args().any(|argument| argument == "--modern"),
        state: Mutex::default(),
        updates: broadcast::channel(1024).0,
        listening: Mutex::default(),
    };
    server.serve(stdio()).await?.waiting().await?;
    Ok(())
}
