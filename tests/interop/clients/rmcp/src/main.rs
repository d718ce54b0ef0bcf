//! The official Rust SDK: `rmcp-client URL NAME auto|legacy|shared|legacy-shared`
//!
//! The claims are those of `../claims.py`, under the same names. `shared` negotiates as `auto` does, with a bridge that serves
//! 2026-07-28; `…shared`: others have the same server.

#![allow(deprecated, reason = "rmcp deprecates what 2026-07-28 removed: sampling, roots, logging, subscribe")]

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_core::stream::BoxStream;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::*;
use rmcp::service::{NotificationContext, RequestContext, RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, ServiceError};
use serde_json::{Value, json};
use sse_stream::Sse;
use tokio::time::{sleep, timeout};

/// In flight at once; rmcp itself sends 16 at a time.
const CALLS: usize = 50;
/// Progress notifications of one call.
const STEPS: u32 = 20;
/// For what arrives unasked.
const ARRIVAL: Duration = Duration::from_secs(5);
/// For a log line of a call that has been answered.
const LOG_ARRIVAL: Duration = Duration::from_secs(1);
/// For what a shared child says while others have calls in flight.
const PATIENCE: Duration = Duration::from_secs(90);
/// For one claim: a hang is a failure with a name.
const DEADLINE: Duration = Duration::from_secs(40);

type Claim = Result<(), String>;

// ------------------------------------------------------------------------------------- what the client notes

#[derive(Default)]
struct Seen {
    logs: Vec<String>,
    updated: Vec<String>,
    list_changed: usize,
    steps: Vec<f64>,
    /// Method and outcome of each HTTP exchange.
    answers: Vec<(&'static str, String)>,
    session: Option<String>,
}

#[derive(Clone)]
struct Notes(Arc<Mutex<Seen>>);

impl Notes {
    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().expect("nothing panics with the lock held"))
    }

    fn answer(&self, method: &str) -> String {
        let last = self.with(|seen| seen.answers.iter().rev().find(|answer| answer.0 == method).cloned());
        last.map_or_else(|| format!("no {method} was sent"), |answer| answer.1)
    }

    async fn eventually(&self, arrived: impl Fn(&Seen) -> bool, what: &str) -> Claim {
        self.within(ARRIVAL, arrived, what).await
    }

    async fn within(&self, limit: Duration, arrived: impl Fn(&Seen) -> bool, what: &str) -> Claim {
        let waiting = async {
            while !self.with(|seen| arrived(seen)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(limit, waiting).await.map_err(|_| format!("not within {limit:?}: {what}"))
    }
}

struct Handler {
    name: String,
    notes: Notes,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientInfo {
        let mut capabilities = ClientCapabilities::default();
        capabilities.sampling = Some(SamplingCapability::default());
        capabilities.elicitation = Some(ElicitationCapability::default());
        capabilities.roots = Some(RootsCapabilities::default());
        ClientInfo::new(capabilities, Implementation::new(self.name.clone(), "1"))
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let text = format!("{} read it", self.name);
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text(text), "none".into()))
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({ "confirm": true })))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new(format!("file:///srv/{}", self.name))]))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.notes.with(|seen| seen.steps.push(params.progress));
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let line = format!("{:?} {}", params.level, params.data.as_str().unwrap_or_default());
        self.notes.with(|seen| seen.logs.push(line));
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.notes.with(|seen| seen.updated.push(params.uri));
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.notes.with(|seen| seen.list_changed += 1);
    }
}

/// rmcp's own HTTP client; it only notes what came back.
#[derive(Clone)]
struct Recorded {
    http: reqwest::Client,
    notes: Notes,
}

impl Recorded {
    fn note<T, E: std::fmt::Display>(
        &self,
        method: &'static str,
        answer: Result<T, E>,
        kind: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, E> {
        let outcome = match &answer {
            Ok(answer) => kind(answer).to_owned(),
            Err(error) => error.to_string(),
        };
        self.notes.with(|seen| seen.answers.push((method, outcome)));
        answer
    }
}

type Headers = HashMap<HeaderName, HeaderValue>;
type HttpResult<T> = Result<T, StreamableHttpError<reqwest::Error>>;

impl StreamableHttpClient for Recorded {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> HttpResult<StreamableHttpPostResponse> {
        let answer = self.http.post_message(uri, message, session, auth, headers).await;
        if let Ok(
            StreamableHttpPostResponse::Json(_, Some(id)) | StreamableHttpPostResponse::Sse(_, Some(id)),
        ) = &answer
        {
            self.notes.with(|seen| seen.session = Some(id.clone()));
        }
        self.note("POST", answer, |answer| match answer {
            StreamableHttpPostResponse::Sse(..) => "event-stream",
            StreamableHttpPostResponse::Json(..) => "json",
            _ => "accepted",
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> HttpResult<()> {
        let answer = self.http.delete_session(uri, session, auth, headers).await;
        self.note("DELETE", answer, |()| "done")
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> HttpResult<BoxStream<'static, Result<Sse, SseError>>> {
        let answer = self.http.get_stream(uri, session, last_event_id, auth, headers).await;
        self.note("GET", answer, |_| "event-stream")
    }
}

// ------------------------------------------------------------------------------------- the claims

fn same<T: PartialEq + std::fmt::Debug>(seen: T, expected: T, what: &str) -> Claim {
    if seen == expected { Ok(()) } else { Err(format!("{what}: {seen:?}, expected {expected:?}")) }
}

fn holds(condition: bool, seen: impl std::fmt::Debug) -> Claim {
    if condition { Ok(()) } else { Err(format!("{seen:?}")) }
}

/// The code of the error that a request must end with.
fn code<T: std::fmt::Debug>(outcome: Result<T, ServiceError>) -> Result<i32, String> {
    match outcome {
        Err(ServiceError::McpError(error)) => Ok(error.code.0),
        other => Err(format!("{other:?}")),
    }
}

struct Run {
    name: String,
    failed: usize,
}

impl Run {
    async fn claim(&mut self, claim: &str, body: impl Future<Output = Claim>) {
        let outcome = timeout(DEADLINE, body).await;
        match outcome.unwrap_or_else(|_| Err(format!("not done within {DEADLINE:?}"))) {
            Ok(()) => println!("ok {} {claim}", self.name),
            Err(seen) => {
                self.failed += 1;
                println!(
                    "FAIL {} {claim}: {}",
                    self.name,
                    seen.split_whitespace().collect::<Vec<_>>().join(" ")
                );
            }
        }
    }
}

struct Session {
    service: RunningService<RoleClient, Handler>,
    modern: bool,
    shared: bool,
}

impl Session {
    /// Where several clients share a child, what it says for no call in particular (a question, a log line) can belong to
    /// any of those that have a call in flight; then nobody gets it, and the call says so or goes without. And they share
    /// the notes, which each of them clears once.
    async fn patiently<T>(&self, attempt: impl AsyncFn() -> Result<T, String>) -> Result<T, String> {
        let start = Instant::now();
        loop {
            match attempt().await {
                Err(_) if self.shared && start.elapsed() < PATIENCE => {
                    let odd = u64::from(start.elapsed().subsec_micros() % 950); // not all at the same time again
                    sleep(Duration::from_millis(50 + odd)).await;
                }
                done => return done,
            }
        }
    }

    async fn text(&self, tool: &'static str, arguments: Value) -> Result<String, String> {
        let mut call = CallToolRequestParams::new(tool);
        if let Value::Object(arguments) = arguments {
            call = call.with_arguments(arguments);
        }
        if self.modern {
            let mut meta = RequestMetaObject::default();
            meta.set_log_level(LoggingLevel::Debug);
            call.meta = Some(meta);
        }
        let result = self.service.call_tool(call).await.map_err(|error| format!("{tool}: {error}"))?;
        let text = result.content.first().and_then(|content| content.as_text());
        match text {
            Some(text) if result.is_error != Some(true) => Ok(text.text.clone()),
            _ => Err(format!("{tool} answered {result:?}")),
        }
    }
}

async fn check(url: &str, name: &str, lifecycle: ClientLifecycleMode, modern: bool, shared: bool) -> usize {
    let notes = Notes(Arc::default());
    let mut run = Run { name: name.to_owned(), failed: 0 };
    let own = format!("{name}-{}", std::process::id());
    let mut session = None;

    run.claim("initialize", async {
        let http = Recorded { http: reqwest::Client::new(), notes: notes.clone() };
        let transport = StreamableHttpClientTransport::with_client(
            http,
            StreamableHttpClientTransportConfig::with_uri(url),
        );
        let handler = Handler { name: name.to_owned(), notes: notes.clone() };
        let service =
            handler.serve_with_lifecycle(transport, lifecycle).await.map_err(|error| error.to_string())?;
        let server = service.peer_info().ok_or("no initialize result")?;
        session = Some(Session { service, modern, shared });
        same(server.server_info.as_ref().map(|info| info.name.as_str()), Some("notebook"), "server name")?;
        same(server.protocol_version.as_str(), if modern { "2026-07-28" } else { "2025-11-25" }, "version")
    })
    .await;
    let Some(mut session) = session else { return run.failed };

    let capabilities =
        session.service.peer_info().map(|server| server.capabilities.clone()).unwrap_or_default();
    run.claim("capabilities", async {
        let resources = capabilities.resources.as_ref();
        let kinds = resources.map(|resources| (resources.subscribe, resources.list_changed));
        same(kinds, Some((Some(true), Some(true))), "capabilities of resources")?;
        holds(capabilities.tools.is_some() && capabilities.logging.is_some(), &capabilities)
    })
    .await;
    let mut tells = false; // of what was cancelled
    run.claim("tools", async {
        let tools = session.service.list_all_tools().await.map_err(|error| error.to_string())?;
        let names: Vec<&str> = tools.iter().map(|tool| &*tool.name).collect();
        tells = names.contains(&"tell");
        holds(names.contains(&"add_note") && names.contains(&"confirm_clear"), names)
    })
    .await;
    run.claim("errors", async {
        let title = format!("no {own}");
        let arguments = json!({ "title": title }).as_object().cloned().unwrap_or_default();
        let call = CallToolRequestParams::new("read_note").with_arguments(arguments);
        let result = session.service.call_tool(call).await.map_err(|error| error.to_string())?;
        let text = result.content.first().and_then(|content| content.as_text());
        let told = text.is_some_and(|text| text.text.contains(&title));
        holds(result.is_error == Some(true) && told, &result)?;
        let unknown = session.service.call_tool(CallToolRequestParams::new("no_such_tool")).await;
        same(code(unknown), Ok(-32602), "code of an unknown tool")
    })
    .await;
    if capabilities.prompts.is_some() {
        run.claim("prompts", async {
            let prompts = session.service.list_all_prompts().await.map_err(|error| error.to_string())?;
            same(prompts.iter().map(|prompt| &*prompt.name).collect(), vec!["greet"], "prompts")?;
            let arguments = json!({ "name": own }).as_object().cloned().unwrap_or_default();
            let get = GetPromptRequestParams::new("greet").with_arguments(arguments);
            let prompt = session.service.get_prompt(get).await.map_err(|error| error.to_string())?;
            let text = prompt.messages.first().and_then(|message| message.content.as_text());
            same(text.map(|text| text.text.clone()), Some(format!("Say hello to {own}")), "the prompt")
        })
        .await;
    } else {
        println!("n/a {name} prompts: the server has none");
    }
    run.claim("state", async {
        let text = format!("kept by {own}");
        let kept = async || {
            session.text("add_note", json!({ "title": own, "text": text })).await?;
            let notes = session.text("list_notes", json!({})).await?;
            if shared {
                holds(notes.contains(&format!(". {own}")), notes)?; // unless another client has just cleared them
            } else {
                same(notes, format!("1. {own}"), "every note of this session")?;
            }
            same(&*session.text("read_note", json!({ "title": own })).await?, &*text, "the note")
        };
        session.patiently(kept).await
    })
    .await;
    run.claim("resources", async {
        let uri = format!("note:///{own}");
        let text = format!("kept by {own}");
        let kept = async || {
            session.text("add_note", json!({ "title": own, "text": text })).await?;
            let found = session.service.list_all_resources().await.map_err(|error| error.to_string())?;
            let uris: Vec<&str> = found.iter().map(|resource| &*resource.uri).collect();
            holds(uris.contains(&&*uri), uris)?;
            let read = session.service.read_resource(ReadResourceRequestParams::new(uri.clone())).await;
            match read.map_err(|error| error.to_string())?.contents.first() {
                Some(ResourceContents::TextResourceContents { text: found, .. }) => {
                    same(found, &text, "the resource")
                }
                other => Err(format!("the resource: {other:?}")),
            }
        };
        session.patiently(kept).await?;
        let unknown = ReadResourceRequestParams::new(format!("note:///no-{own}"));
        let wanted = if modern { -32602 } else { -32002 };
        same(code(session.service.read_resource(unknown).await), Ok(wanted), "code of an unknown resource")
    })
    .await;
    run.claim("concurrent", async {
        let sent: Vec<String> = (0..CALLS).map(|i| format!("{own} {i} {}", "x".repeat(i * 10))).collect();
        let peer = &Arc::new(session.service.peer().clone());
        let mut calls = Vec::new();
        for text in &sent {
            let arguments = json!({ "text": text }).as_object().cloned().unwrap_or_default();
            let call = CallToolRequestParams::new("echo").with_arguments(arguments);
            let peer = Arc::clone(peer);
            calls.push(tokio::spawn(async move { peer.call_tool(call).await }));
        }
        for (call, sent) in calls.into_iter().zip(sent) {
            let result = call.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            let text = result.content.first().and_then(|content| content.as_text()).map(|text| &*text.text);
            same(text, Some(&*sent), "answer")?;
        }
        Ok(())
    })
    .await;
    run.claim("sampling", async {
        let answer = session.patiently(async || session.text("summarize", json!({})).await).await?;
        same(answer, format!("summary: {name} read it"), "answer")
    })
    .await;
    run.claim("elicitation", async {
        let answer = session.patiently(async || session.text("confirm_clear", json!({})).await).await?;
        if shared {
            holds(answer.starts_with("cleared ") && answer.ends_with(" notes"), answer)
        } else {
            same(&*answer, "cleared 1 notes", "answer")
        }
    })
    .await;
    run.claim("roots", async {
        let roots = session.patiently(async || session.text("list_roots", json!({})).await).await?;
        same(roots, format!("file:///srv/{name}"), "roots")
    })
    .await;
    run.claim("progress", async {
        session.text("count", json!({ "to": STEPS, "delay_ms": 5 })).await?;
        notes.eventually(|seen| seen.steps.len() >= STEPS as usize, "every step").await?;
        same(notes.with(|seen| seen.steps.clone()), (1..=STEPS).map(f64::from).collect(), "steps")
    })
    .await;
    run.claim("log", async {
        if !modern {
            let debug = SetLevelRequestParams::new(LoggingLevel::Debug);
            session.service.set_level(debug).await.map_err(|error| error.to_string())?;
        }
        let line = format!("Warning {own} warns");
        session
            .patiently(async || {
                let arguments = json!({ "level": "warning", "message": format!("{own} warns") });
                session.text("log", arguments).await?;
                notes.within(LOG_ARRIVAL, |seen| seen.logs.contains(&line), "the log line").await
            })
            .await?;
        let others: Vec<String> =
            notes.with(|seen| seen.logs.iter().filter(|line| !line.contains(&own)).cloned().collect());
        same(others, vec![], "logs of others")
    })
    .await;
    run.claim("updates", async {
        let title = format!("watched-{own}");
        let uri = format!("note:///{title}");
        let arguments = json!({ "title": title, "text": own });
        if modern {
            // What a subscription receives does not reach the handler.
            let filter = SubscriptionFilter::builder()
                .resources_list_changed()
                .resource_subscriptions([&*uri])
                .build();
            let mut subscription =
                session.service.listen(filter.clone()).await.map_err(|error| error.to_string())?;
            same(subscription.acknowledged(), &filter, "acknowledged")?;
            session.text("add_note", arguments).await?;
            let (mut updated, mut list_changed) = (Vec::new(), 0);
            while updated.is_empty() || list_changed == 0 {
                match timeout(ARRIVAL, subscription.next()).await {
                    Ok(Ok(Some(ServerNotification::ResourceUpdatedNotification(update)))) => {
                        updated.push(update.params.uri);
                    }
                    Ok(Ok(Some(ServerNotification::ResourceListChangedNotification(_)))) => list_changed += 1,
                    other => {
                        return Err(format!(
                            "{other:?} after updated {updated:?}, list_changed {list_changed}"
                        ));
                    }
                }
            }
            return same(updated, vec![uri], "updated");
        }
        same(&*notes.answer("GET"), "event-stream", "GET")?;
        let watched = SubscribeRequestParams::new(uri.clone());
        session.service.subscribe(watched).await.map_err(|error| error.to_string())?;
        session.text("add_note", arguments).await?;
        let arrived = |seen: &Seen| seen.list_changed > 0 && seen.updated.contains(&uri);
        notes.eventually(arrived, "updated and list_changed").await
    })
    .await;
    run.claim("cancel", async {
        let never = format!("never {own}");
        let told = async |of: &str| {
            let start = Instant::now();
            loop {
                let told = session.text("tell", json!({})).await?;
                match serde_json::from_str::<Value>(&told) {
                    Ok(told) if told[of].to_string().contains(&never) => return Ok(()),
                    _ => holds(start.elapsed() < ARRIVAL, told)?,
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let start = async {
            if tells {
                return told("running").await;
            }
            sleep(Duration::from_millis(300)).await;
            Ok(())
        };
        // Dropping the call makes rmcp send the cancellation.
        tokio::select! {
            answer = session.text("slow", json!({ "seconds": 30, "text": never })) => {
                return Err(format!("the cancelled call answered {answer:?}"));
            }
            started = start => started?,
        }
        same(&*session.text("echo", json!({ "text": "after" })).await?, "after", "the next call")?;
        if tells { told("cancelled").await } else { Ok(()) }
    })
    .await;
    run.claim("slow", async {
        let start = Instant::now();
        notes.with(|seen| seen.answers.clear());
        let answer = session.text("slow", json!({ "seconds": 3, "text": own })).await?;
        same(answer, format!("waited 3 s: {own}"), "answer")?;
        holds(start.elapsed() > Duration::from_millis(2_900), start.elapsed())?;
        let answers = notes.with(|seen| seen.answers.clone());
        holds(answers.contains(&("POST", "event-stream".into())), answers)
    })
    .await;
    if modern {
        println!("n/a {name} ping: 2026-07-28 has none");
    } else {
        run.claim("ping", async {
            let ping = ClientRequest::PingRequest(PingRequest::default());
            session.service.send_request(ping).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    run.claim("terminate", async {
        session.service.close().await.map_err(|error| error.to_string())?;
        if modern {
            let others = notes.with(|seen| seen.answers.iter().filter(|answer| answer.0 != "POST").count());
            same((others, notes.with(|seen| seen.session.clone())), (0, None), "what belongs to sessions")?;
            return Ok(());
        }
        same(&*notes.answer("DELETE"), "done", "DELETE")
    })
    .await;
    if modern {
        println!("n/a {name} gone: there is no session");
        return run.failed;
    }
    run.claim("gone", async {
        let old = notes.with(|seen| seen.session.clone()).unwrap_or_default();
        let request = reqwest::Client::new()
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .header("mcp-session-id", old)
            .body(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.text().await.map_err(|error| error.to_string())?;
        let code = serde_json::from_str::<Value>(&body).map(|body| body["error"]["code"].clone());
        holds(status == 404 && code.is_ok_and(|code| code == -32001), (status, body))
    })
    .await;
    run.failed
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, name, mode] = arguments.as_slice() else {
        eprintln!("usage: rmcp-client URL NAME auto|legacy|shared|legacy-shared");
        return ExitCode::from(64);
    };
    let lifecycle = match mode.as_str() {
        "auto" | "shared" => ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        },
        _ => ClientLifecycleMode::Initialize,
    };
    if check(url, name, lifecycle, mode == "shared", mode.ends_with("shared")).await == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
