//! Sessions for clients that send no `Mcp-Session-Id`: named by a key, opened by the bridge itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lanes::Wanted;
use super::{NoSession, Opening, Server, Sessions};
use crate::proto::version::Era;
use crate::secret::Digest;
use crate::session::{self, Clients, Session};
use crate::sync;

/// One lock for each key whose session is being started: its holder starts the session, the others wait for it.
#[derive(Debug, Default)]
pub(super) struct KeyLocks(Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>);

/// A caller's share in the lock of a key. With the last one the lock is forgotten, so that keys which are not used leave
/// nothing behind.
struct KeyLock<'l> {
    locks: &'l KeyLocks,
    key: Digest,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl KeyLocks {
    fn of(&self, key: Digest) -> KeyLock<'_> {
        let lock = Arc::clone(sync::lock(&self.0).entry(key).or_default());
        KeyLock { locks: self, key, lock }
    }
}

impl Drop for KeyLock<'_> {
    fn drop(&mut self) {
        let mut locks = sync::lock(&self.locks.0);
        if Arc::strong_count(&self.lock) == 2 {
            locks.remove(&self.key); // the map's own, and this one
        }
    }
}

impl Sessions {
    /// The live session of this key.
    pub fn find_keyed(&self, key: Digest) -> Option<Session> {
        let session = self.lock().keyed(&key).cloned()?;
        match session.end_reason() {
            None => Some(session),
            Some(why) => {
                self.retire(session.id(), why); // its supervisor may not have run yet, and its seat is coming
                None
            }
        }
    }

    /// The session of this key, of such clients; opens it if there is none. However many callers ask at once, one is opened.
    ///
    /// Where it is to share a server that turns out to be of 2026-07-28, clients of that revision get the server's own
    /// session; others, for whom nobody translates, get a session with a child of its own.
    pub async fn keyed(
        self: &Arc<Self>,
        key: Digest,
        opening: Opening,
        clients: Clients,
    ) -> Result<Session, NoSession> {
        // Boxed: each connection has room for the largest future that may come on it.
        Box::pin(self.of_key(key, self.open_keyed(key, opening, clients))).await
    }

    async fn open_keyed(
        self: &Arc<Self>,
        key: Digest,
        opening: Opening,
        clients: Clients,
    ) -> Result<Session, NoSession> {
        let open = move |config: session::Config, id, initialize, _| {
            let (session, worker) = Session::shared(config, id, initialize, clients);
            (session, worker, ())
        };
        if let Server::Shared(server) = &opening.server {
            let is_modern = matches!(clients, Clients::Upgraded { .. });
            let wanted = Wanted::of(server.clone(), &opening);
            if is_modern && opening.era == Era::Modern {
                let server = self.server(&wanted).await?;
                if server.clients().is_some_and(|clients| clients.child() == Era::Modern) {
                    return Ok(server);
                }
            }
            let joined = self.join(&wanted).await?;
            match joined.child() {
                Era::Modern if is_modern => return Ok(joined.server),
                Era::Modern => {}
                Era::Legacy => {
                    let launched = self.launch_on_lane(opening, wanted, joined, Some(key), open);
                    return launched.map(|(session, ())| session);
                }
            }
        }
        let (session, ()) = self.launch(opening, Some(key), open).await?;
        Ok(session)
    }

    /// The session of this key; where there is none, what comes of opening it. One of all who ask at once does.
    pub(super) async fn of_key(
        &self,
        key: Digest,
        opened: impl Future<Output = Result<Session, NoSession>>,
    ) -> Result<Session, NoSession> {
        if let Some(session) = self.find_keyed(key) {
            return Ok(session);
        }
        let key_lock = self.key_locks.of(key);
        let _held = key_lock.lock.lock().await;
        if let Some(session) = self.find_keyed(key) {
            return Ok(session);
        }
        opened.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    #[tokio::test]
    async fn callers_of_one_key_share_a_lock_and_the_last_of_them_takes_it_away() {
        let locks = KeyLocks::default();
        let (first, second, other) = (locks.of(key("a")), locks.of(key("a")), locks.of(key("b")));
        let held = first.lock.lock().await;
        assert!(second.lock.try_lock().is_err(), "the same");
        assert!(other.lock.try_lock().is_ok(), "another");
        drop(held);
        drop(first);
        assert!(Arc::ptr_eq(&second.lock, &locks.of(key("a")).lock), "one of them is still there");
        drop((second, other));
        assert!(sync::lock(&locks.0).is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_leaves_while_it_waits_leaves_nothing_behind() {
        let locks = KeyLocks::default();
        let holder = locks.of(key("a"));
        let held = holder.lock.lock().await;
        let waiter = locks.of(key("a"));
        let waited = tokio::time::timeout(std::time::Duration::ZERO, waiter.lock.lock()).await.is_ok();
        assert!(!waited);
        drop(held);
        drop(holder);
        drop(waiter);
        assert!(sync::lock(&locks.0).is_empty());
    }
}
