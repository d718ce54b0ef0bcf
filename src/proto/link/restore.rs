//! What made a session what it is, so that a new child can be told what the lost one knew.

use std::collections::BTreeMap;

use super::outgoing::Outgoing;
use crate::proto::json::unquote;

/// The most subscriptions that are remembered; a new child is not told of more.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// Bytes of subscriptions that are remembered; a new child is not told of more.
const MAX_SUBSCRIBED: usize = 1024 * 1024;

/// The longest request that is remembered, in bytes. A session whose `initialize` is longer ends with its child.
const MAX_REQUEST: usize = 8 * 1024;

/// The requests that a new child must be sent.
#[derive(Debug, Default)]
pub(super) struct Restore {
    initialize: Option<Outgoing>,
    level: Option<Outgoing>,
    /// By what `params.uri` stands for, however the client spelt it.
    subscriptions: BTreeMap<Box<str>, Outgoing>,
    /// How many bytes these are.
    subscribed: usize,
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
            "initialize" | "server/discover" => Some(Self::Opened(request.detached())),
            "logging/setLevel" => Some(Self::Level(request.detached())),
            "resources/subscribe" => Some(Self::Subscribed(request.detached())),
            "resources/unsubscribe" => Some(Self::Unsubscribed(request.detached())),
            _ => None,
        }
    }
}

impl Restore {
    /// How the session was opened: with `initialize`, or with the `server/discover` of a child of 2026-07-28.
    pub(super) fn initialize(&self) -> Option<&Outgoing> {
        self.initialize.as_ref()
    }

    /// Remembers what has succeeded.
    pub(super) fn note(&mut self, effect: Effect) {
        match effect {
            Effect::Opened(request) => self.initialize = Some(request),
            Effect::Level(request) => self.level = Some(request),
            Effect::Subscribed(request) => {
                let size = request.len();
                if self.subscriptions.len() < MAX_SUBSCRIPTIONS
                    && self.subscribed + size <= MAX_SUBSCRIBED
                    && let Some(uri) = uri(&request)
                {
                    self.subscribed += size;
                    let before = self.subscriptions.insert(uri, request);
                    self.subscribed -= before.map_or(0, |before| before.len());
                }
            }
            Effect::Unsubscribed(request) => {
                if let Some(uri) = uri(&request) {
                    let gone = self.subscriptions.remove(&uri);
                    self.subscribed -= gone.map_or(0, |gone| gone.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::parsed_request;

    fn effect(method: &str, uri: &str) -> Effect {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"uri":"{uri}"}}}}"#);
        Effect::of(&Outgoing { request: parsed_request(&text), token: None }).unwrap()
    }

    #[test]
    fn subscriptions_are_bounded_in_bytes_and_one_that_ends_makes_room() {
        let mut restore = Restore::default();
        let uri = |number: usize| format!("{number:07000}");
        for number in 0..500 {
            restore.note(effect("resources/subscribe", &uri(number)));
            restore.note(effect("resources/subscribe", &uri(number))); // again, which counts once
        }
        let bytes = |restore: &Restore| restore.requests().map(Outgoing::len).sum::<usize>();
        assert!(bytes(&restore) <= MAX_SUBSCRIBED && restore.requests().count() > 100);
        assert_eq!(restore.subscribed, bytes(&restore));
        let before = restore.requests().count();
        restore.note(effect("resources/unsubscribe", &uri(3)));
        restore.note(effect("resources/unsubscribe", &uri(3)));
        restore.note(effect("resources/subscribe", &uri(900)));
        assert_eq!(restore.requests().count(), before);
        assert_eq!(restore.subscribed, bytes(&restore));
    }
}
