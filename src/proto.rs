//! The protocol without I/O: bytes and messages in, bytes and decisions out.
//!
//! Nothing here reads a clock, a file, the environment or a random number. What time it is comes in as a
//! [`Duration`](std::time::Duration) since the session began, so that every rule can be tested by a table.

pub mod ids;
pub mod json;
pub mod line;
pub mod machine;
pub mod message;
pub mod replay;
pub mod version;
