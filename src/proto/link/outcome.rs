//! What a link tells its front: which request has ended, and how. `C` is what the front remembers of each.

use crate::proto::ids::BridgeId;
use crate::proto::output::{Handshake, Unanswered};

/// What an answer of the child has ended.
#[derive(Debug)]
pub enum Answered<C> {
    Call {
        /// The id under which the child knew it.
        id: BridgeId,
        /// What its front knows of it.
        caller: C,
    },
    /// The handshake. A failed one is the session's last.
    Handshake(Handshake),
    /// Nothing: a request that the child refused as not ready has a new id, and is sent again.
    Retried {
        /// The id that has been answered.
        old: BridgeId,
        /// The id that it has now.
        new: BridgeId,
    },
    /// Nothing that a client waits for.
    Nothing,
}

/// Which request ends because its answer cannot be taken: it is too long, or no message.
#[derive(Debug)]
pub enum Untaken<C> {
    /// The request of a client, under this id.
    Call(BridgeId, C),
    /// The handshake: it has failed.
    Handshake,
    Nothing,
    /// It may be one of several.
    Unclear,
}

/// What ends because its deadline has passed.
#[derive(Debug)]
pub enum Expired<C> {
    /// The handshake: it has failed.
    Handshake {
        /// Whether the child has written `initialize` back.
        echoed: bool,
    },
    /// The request of a client, under this id.
    Call(BridgeId, C, Unanswered),
}
