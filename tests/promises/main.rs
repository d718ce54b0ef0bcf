//! The seven promises, one file each.

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

mod p1_one_handshake;
mod p2_transparent;
mod p3_exactly_one_end;
mod p4_isolation;
mod p5_bounded;
mod p6_nothing_left_behind;
mod p7_legible;
