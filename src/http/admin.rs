//! What operators and their platforms ask, and clients do not.

pub(super) mod probes;
