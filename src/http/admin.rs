//! What is asked by those who run the bridge and not by its clients.

pub(super) mod probes;
