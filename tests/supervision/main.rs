//! Processes: how they are started, watched, ended and reaped, and how the bridge itself ends.

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

mod apart;
mod check;
mod health;
mod inside;
mod ladder;
mod lives;
mod reaper;
mod shutdown;
mod spawning;
