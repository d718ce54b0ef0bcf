//! Sessions for clients that carry no `Mcp-Session-Id`: named by a key, opened by the bridge itself.

use std::sync::Arc;

use super::{NoSession, Opening, Sessions};
use crate::secret::Digest;
use crate::session::Session;

/// Who starts the session of a key; the others of the same key wait for it.
pub(super) type StartLock = Arc<tokio::sync::Mutex<()>>;

/// Gives a turn back, so that keys which are not used leave nothing behind.
struct Starting<'s> {
    sessions: &'s Sessions,
    key: Digest,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.sessions.lock().starting.remove(&self.key);
    }
}

impl Sessions {
    /// The live session of this key.
    pub fn find_keyed(&self, key: Digest) -> Option<Session> {
        let session = {
            let registry = self.lock();
            registry.keys.get(&key).and_then(|id| registry.live.get(id)).map(|owned| owned.value.clone())
        }?;
        match session.end_reason() {
            None => Some(session),
            Some(why) => {
                self.retire(session.id(), why); // nobody may have done it yet, and its seat is coming
                None
            }
        }
    }

    /// The session of this key; opens it if there is none. However many ask at once, one is opened.
    ///
    /// # Errors
    /// [`NoSession`].
    pub async fn keyed(self: &Arc<Self>, key: Digest, opening: Opening) -> Result<Session, NoSession> {
        loop {
            if let Some(session) = self.find_keyed(key) {
                return Ok(session);
            }
            let turn = Arc::clone(self.lock().starting.entry(key).or_default());
            let _mine = turn.lock().await;
            // Whoever had the turn before may have given it back, and somebody else may have taken a new one.
            if !self.lock().starting.get(&key).is_some_and(|current| Arc::ptr_eq(current, &turn)) {
                continue;
            }
            let _starting = Starting { sessions: self, key };
            if let Some(session) = self.find_keyed(key) {
                return Ok(session);
            }
            let open = |config, id, initialize| {
                let (session, worker) = Session::shared(config, id, initialize);
                (session, worker, ())
            };
            let (session, ()) = self.launch(opening, Some(key), open).await?;
            return Ok(session);
        }
    }
}
