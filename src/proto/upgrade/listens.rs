//! The subscriptions of clients of 2026-07-28 (`basic/patterns/subscriptions`) over a child of the session era, which tells
//! of changes unasked, and of those of a resource where it was asked once with `resources/subscribe`.
//!
//! The child is told of a URI when the first client wants it and when the last one does not any more. Each change goes to
//! all who wanted to know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::proto::ids::{ClientId, StreamId};
use crate::proto::json::{Span, elements, quote, splice, unquote, value_at};
use crate::proto::subscription::{MAX_URI_BYTES, MAX_URIS, SUBSCRIPTION_ID, UPDATED, covers, graceful_end};

/// How many subscriptions there may be.
const MAX_LISTENS: usize = 256;

/// The longest filter that is read, in bytes: the most URIs that there may be, with the escapes that they need.
const MAX_FILTER: usize = 2 * MAX_URI_BYTES;

/// The longest message that each subscription gets as it is, in bytes. In place of a longer one they get what it is about.
const MAX_COPIED: usize = 64 * 1024;

/// The lists whose changes a child tells of, each with the name by which clients ask for it, and with the method.
const LISTS: [(&str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed"),
    ("promptsListChanged", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "notifications/resources/list_changed"),
];

/// What a child tells of, by the capabilities that it has declared (2025-11-25 `server/tools` and its siblings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// `tools.listChanged`.
    pub tools: bool,
    /// `prompts.listChanged`.
    pub prompts: bool,
    /// `resources.listChanged`.
    pub resources: bool,
    /// `resources.subscribe`.
    pub subscribe: bool,
}

/// A subscription that has been taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Added {
    /// The URIs that the child must be asked for with `resources/subscribe`. Its answer to each, or that there is none, is
    /// told with [`Listens::subscribed`].
    pub subscribe: Vec<Box<str>>,
    /// What goes out at once.
    pub events: Vec<(StreamId, Bytes)>,
}

/// Why a subscription has not been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// Its filter is none; how.
    Invalid(&'static str),
    /// There are too many, or they have too many URIs.
    Full,
}

/// The subscriptions of one session.
#[derive(Debug, Default)]
pub struct Listens {
    table: BTreeMap<StreamId, Listen>,
    resources: BTreeMap<Arc<str>, Resource>,
    /// How many URIs the subscriptions have together.
    wanted: usize,
    /// Bytes of the URIs in `resources`.
    bytes: usize,
}

/// One subscription.
#[derive(Debug)]
struct Listen {
    client: ClientId,
    /// Whether the client has been told what it will hear of. Nothing comes before.
    acknowledged: bool,
    /// By [`LISTS`].
    lists: [Wanted; LISTS.len()],
    /// In the client's order; each is in [`Listens::resources`].
    uris: Vec<(Arc<str>, Changed)>,
}

/// Whether it has changed, and the client is to be told when it has been told that it will be.
type Changed = bool;

#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    honoured: bool,
    changed: Changed,
}

/// A resource that some subscription wants, or that the child has been asked for.
#[derive(Debug, Default)]
struct Resource {
    /// How many subscriptions want it.
    listens: usize,
    /// How many times the child has been asked for it and has not answered.
    asked: usize,
}

impl Listens {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Takes the subscription that this client's request on this stream asks for. `wants`: the text of
    /// `params.notifications`; empty, where there is none.
    ///
    /// # Errors
    /// [`NotAdded`]. It has changed nothing then.
    pub fn add(
        &mut self,
        stream: StreamId,
        client: ClientId,
        wants: &str,
        offered: Offered,
    ) -> Result<Added, NotAdded> {
        let Filter { lists, mut uris } = Filter::parse(wants)?;
        if !offered.subscribe {
            uris.clear();
        }
        let new = uris.iter().filter(|uri| !self.resources.contains_key(*uri));
        let (count, bytes) = new.fold((0, 0), |(count, bytes), uri| (count + 1, bytes + uri.len()));
        let is_full = self.table.len() >= MAX_LISTENS
            || self.wanted + uris.len() > MAX_URIS
            || self.resources.len() + count > MAX_URIS
            || self.bytes + bytes > MAX_URI_BYTES;
        if is_full || self.table.contains_key(&stream) {
            return Err(NotAdded::Full);
        }
        self.bytes += bytes;
        self.wanted += uris.len();
        let mut subscribe = Vec::new();
        let uris = uris.into_iter().map(|uri| {
            let uri = self.resources.get_key_value(&uri).map_or(uri, |(known, _)| Arc::clone(known));
            let resource = self.resources.entry(Arc::clone(&uri)).or_default();
            if resource.listens == 0 {
                resource.asked += 1;
                subscribe.push((*uri).into());
            }
            resource.listens += 1;
            (uri, false)
        });
        let uris = uris.collect();
        let offered = [offered.tools, offered.prompts, offered.resources];
        let honoured = |(wanted, offered): (bool, bool)| wanted && offered;
        let mut both = lists.into_iter().zip(offered).map(honoured);
        let lists =
            [(); LISTS.len()].map(|()| Wanted { honoured: both.next().unwrap_or_default(), changed: false });
        self.table.insert(stream, Listen { client, acknowledged: false, lists, uris });
        Ok(Added { subscribe, events: self.acknowledge() })
    }

    /// Takes the child's answer to a `resources/subscribe`; `ok`: a result. There is one for each URI that has been handed
    /// out in [`Added::subscribe`], as often as that was. Returns what goes out.
    pub fn subscribed(&mut self, uri: &str, ok: bool) -> Vec<(StreamId, Bytes)> {
        let Some(resource) = self.resources.get_mut(uri).filter(|resource| resource.asked > 0) else {
            return Vec::new();
        };
        resource.asked -= 1;
        if resource.asked > 0 {
            return Vec::new(); // it was let go of and is wanted again: the last answer counts
        }
        if !ok || resource.listens == 0 {
            self.forget(uri);
            for listen in self.table.values_mut() {
                let before = listen.uris.len();
                listen.uris.retain(|(wanted, _)| **wanted != *uri);
                self.wanted -= before - listen.uris.len();
            }
        }
        self.acknowledge()
    }

    /// Ends a subscription whose client has gone. Returns the URIs that nobody wants any more, for which the child is to be
    /// sent `resources/unsubscribe`; `None`: there is no such subscription.
    pub fn remove(&mut self, stream: StreamId) -> Option<Vec<Box<str>>> {
        let listen = self.table.remove(&stream)?;
        self.wanted -= listen.uris.len();
        let mut unwanted = Vec::new();
        for (uri, _) in listen.uris {
            let Some(resource) = self.resources.get_mut(&uri) else { continue };
            resource.listens -= 1;
            if resource.listens == 0 {
                unwanted.push((*uri).into());
                if resource.asked == 0 {
                    self.forget(&uri);
                }
            }
        }
        Some(unwanted)
    }

    /// Takes a notification of the child: its method, what its `params.uri` stands for, and its text. Returns it for each
    /// subscription that wants it, with the id of that. Of a subscription that has not been acknowledged it is remembered.
    pub fn changed(&mut self, method: &str, uri: Option<&str>, message: &str) -> Vec<(StreamId, Bytes)> {
        let list = LISTS.iter().position(|(_, of_list)| *of_list == method);
        let uri = uri.filter(|_| method == UPDATED);
        if list.is_none() && uri.is_none() {
            return Vec::new();
        }
        let place = if message.len() <= MAX_COPIED { Place::of(message) } else { None };
        let mut events = Vec::new();
        for (stream, listen) in &mut self.table {
            let (wanted, changed) = match (list, uri) {
                (Some(list), _) => match listen.lists.get_mut(list) {
                    Some(wanted) if wanted.honoured => (None, &mut wanted.changed),
                    _ => continue,
                },
                (None, Some(uri)) => match listen.uris.iter_mut().find(|(wanted, _)| covers(wanted, uri)) {
                    Some((wanted, changed)) => (Some(&**wanted), changed),
                    None => continue,
                },
                (None, None) => continue,
            };
            if listen.acknowledged {
                let own = || own_message(method, wanted, &listen.client);
                events.push((*stream, place.as_ref().map_or_else(own, |place| place.with(&listen.client))));
            } else {
                *changed = true;
            }
        }
        events
    }

    /// Ends all, and returns what their clients are told. There are none from then on, and the child need not be told.
    pub fn ends(&mut self) -> Vec<(StreamId, Bytes)> {
        let Self { table, .. } = std::mem::take(self);
        table.into_iter().map(|(stream, listen)| (stream, graceful_end(&listen.client))).collect()
    }

    /// Forgets a resource that no subscription wants and for which no answer is to come.
    fn forget(&mut self, uri: &str) {
        if let Some((uri, _)) = self.resources.remove_entry(uri) {
            self.bytes -= uri.len();
        }
    }

    /// Tells the clients all of whose URIs have been decided what they will hear of, and what has changed since they asked.
    fn acknowledge(&mut self) -> Vec<(StreamId, Bytes)> {
        let mut events = Vec::new();
        for (stream, listen) in self.table.iter_mut().filter(|(_, listen)| !listen.acknowledged) {
            let is_open = |(uri, _): &(Arc<str>, Changed)| {
                self.resources.get(uri).is_some_and(|resource| resource.asked > 0)
            };
            if listen.uris.iter().any(is_open) {
                continue;
            }
            listen.acknowledged = true;
            events.push((*stream, listen.acknowledgement()));
            for ((_, method), wanted) in LISTS.iter().zip(&mut listen.lists) {
                if std::mem::take(&mut wanted.changed) {
                    events.push((*stream, own_message(method, None, &listen.client)));
                }
            }
            for (uri, changed) in &mut listen.uris {
                if std::mem::take(changed) {
                    events.push((*stream, own_message(UPDATED, Some(uri), &listen.client)));
                }
            }
        }
        events
    }

    /// That every sum says what the tables say.
    #[cfg(test)]
    fn check(&self) {
        let uris = || self.table.values().flat_map(|listen| &listen.uris);
        assert_eq!(self.wanted, uris().count());
        assert_eq!(self.bytes, self.resources.keys().map(|uri| uri.len()).sum::<usize>());
        for (uri, resource) in &self.resources {
            assert_eq!(resource.listens, uris().filter(|(wanted, _)| wanted == uri).count(), "{uri}");
            assert!(resource.listens + resource.asked > 0, "{uri}");
        }
        assert!(uris().all(|(uri, _)| self.resources.contains_key(uri)));
        assert!(self.table.len() <= MAX_LISTENS && self.wanted <= MAX_URIS);
        assert!(self.resources.len() <= MAX_URIS && self.bytes <= MAX_URI_BYTES);
    }
}

impl Listen {
    /// What the client is told first.
    fn acknowledgement(&self) -> Bytes {
        let lists = LISTS.iter().zip(&self.lists).filter(|(_, wanted)| wanted.honoured);
        let mut members: Vec<String> = lists.map(|((name, _), _)| format!("\"{name}\":true")).collect();
        if !self.uris.is_empty() {
            let uris: Vec<String> = self.uris.iter().map(|(uri, _)| quote(uri)).collect();
            members.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        let params = format!(",\"notifications\":{{{}}}", members.join(","));
        notification("notifications/subscriptions/acknowledged", &params, &self.client)
    }
}

/// What a client wants to hear of.
struct Filter {
    /// By [`LISTS`].
    lists: [bool; LISTS.len()],
    /// Each of them once.
    uris: Vec<Arc<str>>,
}

impl Filter {
    fn parse(wants: &str) -> Result<Self, NotAdded> {
        const NO_OBJECT: NotAdded = NotAdded::Invalid("\"params.notifications\" must be an object");
        const NO_BOOLEAN: NotAdded =
            NotAdded::Invalid("what \"params.notifications\" says of a list must be true or false");
        const NO_URIS: NotAdded =
            NotAdded::Invalid("\"params.notifications.resourceSubscriptions\" must be an array of URIs");
        if !wants.trim_ascii_start().starts_with('{') {
            return Err(NO_OBJECT);
        }
        if wants.len() > MAX_FILTER {
            return Err(NotAdded::Full);
        }
        let member = |name| value_at(wants, &[name]).and_then(|span| wants.get(span));
        let mut lists = [false; LISTS.len()];
        for (wanted, (name, _)) in lists.iter_mut().zip(LISTS) {
            *wanted = match member(name) {
                Some("true") => true,
                Some("false") | None => false,
                Some(_) => return Err(NO_BOOLEAN),
            };
        }
        let mut uris = Vec::new();
        let mut known = BTreeSet::new();
        for element in member("resourceSubscriptions").map(elements).into_iter().flatten() {
            let uri = element.filter(|token| token.starts_with('"')).map(unquote);
            let uri: Arc<str> = uri.filter(|uri| !uri.is_empty()).ok_or(NO_URIS)?.into();
            if known.insert(Arc::clone(&uri)) {
                uris.push(uri);
            }
            if uris.len() > MAX_URIS {
                return Err(NotAdded::Full);
            }
        }
        Ok(Self { lists, uris })
    }
}

/// A notification of the bridge's own to a subscription; `params`: its further parameters.
fn notification(method: &str, params: &str, client: &ClientId) -> Bytes {
    let head = r#"{"jsonrpc":"2.0","method":""#;
    let meta = r#"","params":{"_meta":{""#;
    let id = client.0.as_json();
    [head, method, meta, SUBSCRIPTION_ID, "\":", id, "}", params, "}}"].concat().into()
}

/// What is told of a change in place of the child's own message.
fn own_message(method: &str, uri: Option<&str>, client: &ClientId) -> Bytes {
    let params = uri.map_or_else(String::new, |uri| format!(",\"uri\":{}", quote(uri)));
    notification(method, &params, client)
}

/// Where in a message of the child the id of a subscription goes, and what goes before and behind it.
struct Place<'t> {
    text: &'t str,
    span: Span,
    before: String,
    behind: &'static str,
}

impl<'t> Place<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let member = format!("\"{SUBSCRIPTION_ID}\":");
        let meta_member = format!("\"_meta\":{{{member}");
        let is_object = |span: &Span| text.get(span.clone()).is_some_and(|value| value.starts_with('{'));
        // The place of a first member, and what follows it.
        let first = |object: &Span, closed: [&'static str; 2]| {
            let inside = text.get(object.start + 1..object.end)?;
            let [last, further] = closed;
            let behind = if inside.trim_ascii_start().starts_with('}') { last } else { further };
            Some((object.start + 1..object.start + 1, behind))
        };
        let Some(params) = value_at(text, &["params"]) else {
            let end = text.trim_ascii_end().len().checked_sub(1)?;
            let before = format!(",\"params\":{{{meta_member}");
            return Some(Self { text, span: end..end, before, behind: "}}" });
        };
        if !is_object(&params) {
            return Some(Self { text, span: params, before: format!("{{{meta_member}"), behind: "}}" });
        }
        let Some(meta) = value_at(text, &["params", "_meta"]) else {
            let (span, behind) = first(&params, ["}", "},"])?;
            return Some(Self { text, span, before: meta_member, behind });
        };
        if !is_object(&meta) {
            return Some(Self { text, span: meta, before: format!("{{{member}"), behind: "}" });
        }
        if let Some(span) = value_at(text, &["params", "_meta", SUBSCRIPTION_ID]) {
            return Some(Self { text, span, before: String::new(), behind: "" });
        }
        let (span, behind) = first(&meta, ["", ","])?;
        Some(Self { text, span, before: member, behind })
    }

    /// The message with this id there.
    fn with(&self, client: &ClientId) -> Bytes {
        let id = [&*self.before, client.0.as_json(), self.behind].concat();
        let mut line = BytesMut::new();
        splice(&mut line, self.text.as_bytes(), self.span.clone(), id.as_bytes());
        line.freeze()
    }
}

#[cfg(test)]
mod tests;
