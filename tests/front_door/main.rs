//! HTTP: what a request is, who may send it, how long it may take, and how many of them there may be.

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

mod closing;
mod environment;
mod floods;
mod h2;
mod http;
mod http_details;
mod logs;
mod modern;
mod request_rules;
mod slow_readers;
mod time_limits;
mod token;
mod unread;
