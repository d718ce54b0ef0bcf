//! What is said of a subscription, whoever says it (2026-07-28 `basic/patterns/subscriptions`).

use bytes::Bytes;

use super::ids::ClientId;

/// The member of `_meta` that says to which subscription a message belongs: its value is the id of the
/// `subscriptions/listen` that has begun it.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

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
