//! The names in `_meta` that 2026-07-28 has reserved (`basic/index`, "`_meta`").

/// What the names in `_meta` begin with that the specification has reserved (2026-07-28 `basic/index`, "`_meta`").
pub const RESERVED: &str = "io.modelcontextprotocol/";
