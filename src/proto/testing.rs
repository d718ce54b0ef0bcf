//! Messages as tests write them.

use bytes::Bytes;

use super::front::Takes;
use super::message::{Message, Request};

/// What the stream of a POST may carry: events, or the answer alone.
pub(crate) fn takes(events: bool) -> Takes {
    if events { Takes::Events } else { Takes::AnswerOnly }
}

/// The message that this text is.
pub(crate) fn message(text: &str) -> Message {
    Message::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap_or_else(|why| panic!("{text}: {why:?}"))
}

/// The request that this text is.
pub(crate) fn parsed_request(text: &str) -> Request {
    message(text).request().cloned().expect("a request")
}

/// A request without parameters.
pub(crate) fn request(id: &str, method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#)
}

/// A tool call that asks for progress.
pub(crate) fn call(id: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
    )
}

/// A notification without parameters.
pub(crate) fn note(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
}

/// Progress of the call with this token.
pub(crate) fn progress(token: &str, number: u64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{number}}}}}"#
    )
}

/// The cancellation of a request.
pub(crate) fn cancel(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

pub(crate) fn result(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}
