//! A server of the official Rust SDK over stdio, with the tools of `../../eras/child.py`. It speaks 2026-07-28 to whoever
//! says so in its requests, and sessions to whoever begins with `initialize`.

#![allow(deprecated, reason = "rmcp deprecates what 2026-07-28 removed")]

use std::collections::BTreeMap;
use std::process;
use std::sync::Mutex;
use std::time::Duration;

use rmcp::model::*;
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::transport::stdio;
use rmcp::{ErrorData, ServerHandler, ServiceExt};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::sleep;

const TOOLS: [&str; 5] = ["work", "question", "update", "keep", "tell"];

struct Server {
    kept: Mutex<Vec<String>>,
    cancelled: Mutex<Vec<String>>,
    updates: broadcast::Sender<String>,
}

fn text(text: impl Into<String>) -> Result<CallToolResponse, ErrorData> {
    Ok(CallToolResult::success(vec![ContentBlock::text(text.into())]).into())
}

impl Server {
    async fn work(
        &self,
        word: &str,
        arguments: &JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let steps = arguments.get("steps").and_then(Value::as_u64).unwrap_or(1);
        let pause = Duration::from_secs_f64(arguments.get("pause").and_then(Value::as_f64).unwrap_or(0.01));
        for step in 1..=steps {
            tokio::select! {
                () = sleep(pause) => {}
                () = context.ct.cancelled() => {
                    self.cancelled.lock().expect("no panic with the lock held").push(word.to_owned());
                    return text("cancelled");
                }
            }
            if let Some(token) = context.meta.get_progress_token() {
                let progress = ProgressNotificationParam::new(token, step as f64)
                    .with_total(steps as f64)
                    .with_message(word.to_owned());
                let sent = context.peer.notify_progress(progress).await;
                sent.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            }
        }
        text(word)
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("child", "3"))
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
        let arguments = request.arguments.unwrap_or_default();
        let word = arguments.get("word").and_then(Value::as_str).unwrap_or_default();
        match &*request.name {
            "work" => self.work(word, &arguments, &context).await,
            "question" => {
                if let Some(answer) = request.input_responses.as_ref().and_then(|answers| answers.get("q")) {
                    return text(format!(
                        "{word}: {}",
                        answer["content"]["word"].as_str().unwrap_or_default()
                    ));
                }
                let question = json!({
                    "method": "elicitation/create",
                    "params": {
                        "mode": "form",
                        "message": word,
                        "requestedSchema": { "type": "object", "properties": { "word": { "type": "string" } } },
                    },
                });
                let question = serde_json::from_value(question)
                    .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
                let questions = BTreeMap::from([("q".to_owned(), question)]);
                Ok(CallToolResponse::InputRequired(InputRequiredResult::new(
                    Some(questions),
                    Some(word.to_owned()),
                )))
            }
            "update" => {
                let _ = self.updates.send(word.to_owned()); // nobody may listen
                text(word)
            }
            "keep" => {
                let mut kept = self.kept.lock().expect("no panic with the lock held");
                kept.push(word.to_owned());
                text(kept.join(" "))
            }
            "tell" => {
                let cancelled = self.cancelled.lock().expect("no panic with the lock held").clone();
                text(json!({ "pid": process::id(), "cancelled": cancelled }).to_string())
            }
            name => Err(ErrorData::invalid_params(format!("no tool {name}"), None)),
        }
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut updates = self.updates.subscribe();
        loop {
            tokio::select! {
                () = context.cancelled() => return Ok(()),
                update = updates.recv() => {
                    let Ok(uri) = update else { return Ok(()) };
                    let watched = context.accepted().resource_subscriptions.as_ref();
                    if watched.is_some_and(|uris| uris.contains(&uri)) {
                        let sent = context.sink().notify_resource_updated(uri);
                        sent.await.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
                    }
                }
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server =
        Server { kept: Mutex::default(), cancelled: Mutex::default(), updates: broadcast::channel(1024).0 };
    server.serve(stdio()).await?.waiting().await?;
    Ok(())
}
