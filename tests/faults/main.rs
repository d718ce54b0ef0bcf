//! What can go wrong, by who brings it about: a child that starts, runs, writes and answers badly, and a system that has no more to give.

#![allow(unreachable_pub, reason = "its modules are used nowhere else")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "these rules are for the bridge; a test shall fail loudly"
)]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod beside;
mod blame;
mod nearly;
mod process;
mod resources;
mod start;
mod stdout;
mod system;
