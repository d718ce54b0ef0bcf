//! Routes for operators and their platforms, not for clients.

pub(super) mod probes;
