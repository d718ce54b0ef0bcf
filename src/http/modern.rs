//! The era of 2026-07-28, which has no sessions: how its messages are told from the session era's. It is not served yet,
//! and its clients are answered so that they fall back.

use std::sync::Arc;

use hyper::{Response, StatusCode};

use super::head::Kept;
use super::problem::Problem;
use super::response::{Body, Rejection, empty};
use crate::proto::message::Message;
use crate::proto::version::Revision;
use crate::sessions::Sessions;

/// Whether a message is of the modern era (2026-07-28 `basic/versioning`): its method or its revision says so.
pub(super) fn is_modern(head: &Kept, message: &Message) -> bool {
    message.method() == "server/discover"
        || head.revision().is_some_and(Revision::modern)
        || message.names_revision()
}

/// Answers a modern message.
///
/// # Errors
/// [`Problem::Modern`] for a request: its client then begins with `initialize`, once it is known that the server does so.
pub(super) async fn answer(sessions: &Arc<Sessions>, message: &Message) -> Result<Response<Body>, Rejection> {
    match message {
        Message::Request(request) => {
            sessions.era().await;
            Err(Problem::Modern.about(Some(request.id())))
        }
        Message::Notification(_) | Message::Response(_) => Ok(empty(StatusCode::ACCEPTED)),
    }
}
