//! What a session remembers, so that a new child can be told what the old one knew of its client.

use std::collections::BTreeMap;

use crate::proto::json::value_at;
use crate::proto::message::Message;

/// The most subscriptions that are remembered; a new child is not told of more.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// The longest request that is remembered, in bytes. A session whose `initialize` is longer ends with its child.
const MAX_MESSAGE: usize = 8 * 1024;

/// The requests that made the session what it is.
#[derive(Debug, Default)]
pub(super) struct Memory {
    initialize: Option<Message>,
    level: Option<Message>,
    /// By the token of `params.uri` as the client wrote it.
    subscriptions: BTreeMap<Box<str>, Message>,
}

/// What a request changes in the child when it succeeds.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Opened(Message),
    Level(Message),
    Subscribed(Message),
    Unsubscribed(Message),
}

impl Effect {
    /// What this request changes, if anything.
    pub(super) fn of(request: &Message) -> Option<Self> {
        if request.text().len() > MAX_MESSAGE {
            return None;
        }
        match &*request.method() {
            "initialize" => Some(Self::Opened(request.detached())),
            "logging/setLevel" => Some(Self::Level(request.detached())),
            "resources/subscribe" => Some(Self::Subscribed(request.detached())),
            "resources/unsubscribe" => Some(Self::Unsubscribed(request.detached())),
            _ => None,
        }
    }
}

impl Memory {
    /// How the session was opened.
    pub(super) fn initialize(&self) -> Option<&Message> {
        self.initialize.as_ref()
    }

    /// Remembers what has succeeded.
    pub(super) fn note(&mut self, effect: Effect) {
        match effect {
            Effect::Opened(request) => self.initialize = Some(request),
            Effect::Level(request) => self.level = Some(request),
            Effect::Subscribed(request) => {
                if self.subscriptions.len() < MAX_SUBSCRIPTIONS
                    && let Some(uri) = uri(&request)
                {
                    self.subscriptions.insert(uri, request);
                }
            }
            Effect::Unsubscribed(request) => {
                if let Some(uri) = uri(&request) {
                    self.subscriptions.remove(&uri);
                }
            }
        }
    }

    /// The requests that a new child must be sent behind the handshake.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Message> {
        self.level.iter().chain(self.subscriptions.values())
    }
}

fn uri(request: &Message) -> Option<Box<str>> {
    let params = request.params();
    value_at(params, &["uri"]).and_then(|span| params.get(span)).map(Into::into)
}
