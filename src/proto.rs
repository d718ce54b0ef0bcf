//! The protocol without I/O: bytes and messages in, bytes and outputs out.
//!
//! A [`link`] speaks to one child and knows one era; a [`front`] speaks for clients and knows which of them each message is
//! from or for. Every cell of clients and children is one front on one link, and a session's loop moves bytes between pipes,
//! front and streams. Two fronts also translate: [`upgrade`] for clients of 2026-07-28 over a child of the session era, and
//! [`downgrade`] the other way. They do not know each other; what both need has modules of its own.
//!
//! Nothing here reads a clock, a file, the environment or a random number. What time it is comes in as a
//! [`Duration`](std::time::Duration) since the session began, so that every rule can be tested by a table.

pub mod capabilities;
pub mod downgrade;
pub mod echo;
pub mod elicitation;
pub mod front;
pub mod ids;
pub mod incoming;
pub mod json;
pub mod level;
pub mod line;
mod lingering;
pub mod link;
pub mod message;
pub mod meta;
pub mod mirrored;
pub mod nearly;
pub mod object;
pub mod output;
mod questions;
pub mod replay;
pub mod subscription;
pub mod tools;
pub mod upgrade;
pub mod version;

#[cfg(test)]
pub(crate) mod testing;
