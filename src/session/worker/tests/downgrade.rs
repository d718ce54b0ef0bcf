//! Sessions of the session era over a child of 2026-07-28.

use super::*;

const ASKS: &str =
    r#""resultType":"input_required","inputRequests":{"k":{"method":"roots/list"}},"requestState":"s""#;

const QUESTION: &str = r#"{"jsonrpc":"2.0","id":"mcp-bridge-1","method":"roots/list"}"#;

fn child_result(id: &str, members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{{members}}}}}"#)
}

/// A session whose client can be asked for its roots, and whose child has been asked what it is.
async fn starting() -> (Session, Reader, Child, JoinHandle<Ended<DuplexStream>>) {
    let (first, mut child) = pipes(NARROW);
    let params = r#"{"protocolVersion":"2025-06-18","capabilities":{"roots":{}}}"#;
    let initialize = format!(r#"{{"jsonrpc":"2.0","id":"init","method":"initialize","params":{params}}}"#);
    let id = SessionId::from_random(None, [7; 24]);
    let (session, worker, opening) =
        Session::new(CONFIG, id, parsed_request(&initialize), Takes::Events, Era::Modern);
    let worker = tokio::spawn(worker.run(first, |_| pending()));
    assert!(child.line().await.unwrap().contains(r#""id":1,"method":"server/discover""#));
    (session, opening, child, worker)
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_in_the_middle_of_its_call_and_gets_the_answer_last() {
    let (session, opening, mut child, _worker) = starting().await;
    child.send(&child_result("1", r#""supportedVersions":["2026-07-28"],"capabilities":{}"#)).await;
    let greeting = rest(&opening).await;
    assert!(greeting[0].contains(r#""protocolVersion":"2025-06-18""#), "{greeting:?}");
    assert_eq!(child.handshake().await, Some(Ok(())));
    assert_eq!(session.negotiated(), Some("2025-06-18"));
    let initialized = post(&session, &note("notifications/initialized"), true).await.unwrap();
    assert_eq!(rest(&initialized).await, ["accepted", "end"]);
    let reader = post(&session, &request("7", "tools/call"), true).await.unwrap();
    assert!(child.line().await.unwrap().contains(r#""id":2,"method":"tools/call""#), "and no initialized");
    child.send(&child_result("2", ASKS)).await;
    assert_eq!(next(&reader).await, format!("2-1 {QUESTION}"));
    let response = post(&session, &child_result("\"mcp-bridge-1\"", r#""roots":[]"#), true).await.unwrap();
    assert_eq!(rest(&response).await, ["accepted", "end"]);
    let again = child.line().await.unwrap();
    assert!(again.contains(r#""inputResponses":{"k":{"roots":[]}},"requestState":"s""#), "{again}");
    child.send(&child_result("3", r#""resultType":"complete","content":[]"#)).await;
    let answer = child_result("7", r#""content":[]"#);
    assert_eq!(rest(&reader).await, [format!("2-2 {answer}"), "end".into()]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_none_of_that_revision_ends_the_session() {
    let (_session, opening, mut child, worker) = starting().await;
    child.send(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#).await;
    let refusal = r#"{"jsonrpc":"2.0","id":"init","error":{"code":-32601,"message":"no"}}"#;
    assert_eq!(rest(&opening).await[0], format!("1-1 {refusal}"));
    assert_eq!(bounded(worker).await.unwrap().why, End::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_is_asked_ends_with_the_session() {
    let (session, opening, mut child, worker) = starting().await;
    child.send(&child_result("1", r#""supportedVersions":["2026-07-28"]"#)).await;
    rest(&opening).await;
    let reader = post(&session, &request("7", "tools/call"), true).await.unwrap();
    child.line().await.unwrap();
    child.send(&child_result("2", ASKS)).await;
    assert_eq!(next(&reader).await, format!("2-1 {QUESTION}"));
    session.end(End::Deleted);
    let left = rest(&reader).await;
    assert!(left[0].contains(r#""requestId":"mcp-bridge-1""#), "{left:?}");
    assert_eq!(left[1], "2-3 7 Ended(Deleted)");
    assert_eq!(bounded(worker).await.unwrap().why, End::Deleted);
}
