//! Sessions: their streams, revisions, keys and children, from the first request to the end.

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

mod batches;
mod era;
mod forged;
mod isolation;
mod keys;
mod lifetime;
mod races;
mod ready;
mod respawn;
mod resumption;
mod share;
mod share_load;
mod sse_2024;
mod streams;
mod tasks;
mod versions;
mod warm;
