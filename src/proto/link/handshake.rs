//! How far the handshake with a child has come.

use std::time::Duration;

use super::restore::Effect;
use crate::proto::ids::BridgeId;

/// The phase of a handshake.
#[derive(Debug)]
pub(super) enum Handshake {
    /// `initialize` has no answer yet.
    Starting {
        /// The `initialize` that the child has; `None` while there is no child.
        asked: Option<Asked>,
        /// The client has said `initialized` already, or the bridge will say it.
        initialized: bool,
    },
    /// The child has answered, and has not been told `initialized`.
    Answered,
    /// The child has been told `initialized`.
    Open,
    /// The child has refused `initialize`, or has not answered in time.
    Failed,
}

/// An `initialize` that the child has not answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: BridgeId,
    /// When the child must have answered.
    pub(super) deadline: Duration,
    /// What is remembered of it if it succeeds.
    pub(super) effect: Option<Effect>,
}

impl Handshake {
    /// With a child that comes in the place of another: there is no client that could say `initialized`.
    pub(super) const AGAIN: Self = Self::Starting { asked: None, initialized: true };

    /// The `initialize` that the child has not answered.
    pub(super) fn asked(&self) -> Option<&Asked> {
        match self {
            Self::Starting { asked, .. } => asked.as_ref(),
            _ => None,
        }
    }

    /// Whether messages must wait for it.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self, Self::Starting { .. })
    }
}
