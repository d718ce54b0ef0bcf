//! What made a session what it is, so that a new child can be told what the lost one knew.

use std::collections::BTreeMap;

use super::outgoing::Outgoing;
use crate::proto::json::unquote;

/// The most subscriptions that are remembered; a new child is not told of more.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// The longest request that is remembered, in bytes. A session whose `initialize` is longer ends with its child.
const MAX_REQUEST: usize = 8 * 1024;

/// The requests that a new child must be sent.
#[derive(Debug, Default)]
pub(super) struct Restore {
    initialize: Option<Outgoing>,
    level: Option<Outgoing>,
    /// By what `params.uri` stands for, however the client spelt it.
    subscriptions: BTreeMap<Box<str>, Outgoing>,
}

/// What a request changes in the child when it succeeds.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Opened(Outgoing),
    Level(Outgoing),
    Subscribed(Outgoing),
    Unsubscribed(Outgoing),
}

impl Effect {
    /// What this request changes, if anything.
    pub(super) fn of(request: &Outgoing) -> Option<Self> {
        if request.len() > MAX_REQUEST {
            return None;
        }
        match &*request.request.method() {
            "initialize" => Some(Self::Opened(request.detached())),
            "logging/setLevel" => Some(Self::Level(request.detached())),
            "resources/subscribe" => Some(Self::Subscribed(request.detached())),
            "resources/unsubscribe" => Some(Self::Unsubscribed(request.detached())),
            _ => None,
        }
    }
}

impl Restore {
    /// How the session was opened.
    pub(super) fn initialize(&self) -> Option<&Outgoing> {
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
    pub(super) fn requests(&self) -> impl Iterator<Item = &Outgoing> {
        self.level.iter().chain(self.subscriptions.values())
    }
}

fn uri(request: &Outgoing) -> Option<Box<str>> {
    let token = request.request.subject()?;
    token.starts_with('"').then(|| unquote(token).into())
}
