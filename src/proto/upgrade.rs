//! Clients of 2026-07-28 over a child of the session era: the parts that are pure and stand for themselves.

pub mod listens;
pub mod tool_params;
