//! What is said of a subscription, whoever says it (2026-07-28 `basic/patterns/subscriptions`, 2025-11-25
//! `server/resources`, "Subscriptions").

use bytes::Bytes;

use super::ids::ClientId;
use super::json::quote;

/// The member of `_meta` that says to which subscription a message belongs: its value is the id of the
/// `subscriptions/listen` that has begun it.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// What a child of the session era says of a resource that has changed.
pub const UPDATED: &str = "notifications/resources/updated";

/// How many URIs all subscriptions of a session may have together, those that several have counted as often, and how many
/// bytes these may be.
pub const MAX_URIS: usize = 1000;
pub const MAX_URI_BYTES: usize = 1024 * 1024;

/// Whether who wants to hear of one resource is to be told of the other: it is the same, or within it (2025-11-25
/// `schema.ts`, `ResourceUpdatedNotification`: "this might be a sub-resource of the one that the client subscribed to").
pub fn covers(wanted: &str, changed: &str) -> bool {
    let rest = changed.strip_prefix(wanted);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || wanted.ends_with('/'))
}

/// The parameters of a `resources/subscribe` or `resources/unsubscribe` of the bridge's own.
pub fn uri_params(uri: &str) -> String {
    format!(r#"{{"uri":{}}}"#, quote(uri))
}

/// The answer to a `subscriptions/listen` that its server ends ("Graceful Closure").
pub fn graceful_end(listen: &ClientId) -> Bytes {
    let id = listen.0.as_json();
    let head = r#"{"jsonrpc":"2.0","id":"#;
    let result = r#","result":{"resultType":"complete","_meta":{""#;
    [head, id, result, SUBSCRIPTION_ID, "\":", id, "}}}"].concat().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::proto::ids::Id;

    #[test]
    fn a_graceful_end_names_its_subscription_twice_and_as_the_client_spelt_it() {
        for id in ["1", r#""1""#, r#""é\u0062""#, "-0"] {
            let end = graceful_end(&ClientId(Id::parse(id).unwrap()));
            let end = std::str::from_utf8(&end).unwrap();
            assert_eq!(end.matches(id).count(), 2, "{end}");
            let value: Value = serde_json::from_str(id).unwrap();
            let meta = json!({ SUBSCRIPTION_ID: value });
            let want =
                json!({"jsonrpc": "2.0", "id": value, "result": {"resultType": "complete", "_meta": meta}});
            assert_eq!(serde_json::from_str::<Value>(end).unwrap(), want);
        }
    }
}
