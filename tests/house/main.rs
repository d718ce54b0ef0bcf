//! The house itself: which module may know what, what the documents claim, and the example servers by themselves.

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

mod catalogue;
mod documents;
mod examples;
mod layering;
mod options;
