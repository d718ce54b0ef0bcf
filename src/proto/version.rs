//! The protocol's revisions and what each of them allows.

/// A revision of the specification, oldest first, so that `<` means "older than".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revision {
    /// 2024-11-05, the first one; its HTTP transport had two endpoints.
    R2024_11_05,
    /// 2025-03-26, the first with Streamable HTTP and the only one with JSON-RPC batches.
    R2025_03_26,
    /// 2025-06-18, which brought the `MCP-Protocol-Version` header.
    R2025_06_18,
    /// 2025-11-25, which brought priming events and tasks.
    R2025_11_25,
    /// 2026-07-28, the modern era: no handshake, no sessions.
    R2026_07_28,
}

use Revision::*;

/// The specification's two eras (2026-07-28 `basic/versioning`, "Backward Compatibility").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// Up to 2025-11-25: a handshake opens a session.
    Legacy,
    /// From 2026-07-28 on: each request carries what a handshake would have said.
    Modern,
}

impl Era {
    /// As it stands in options and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

impl Revision {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [R2024_11_05, R2025_03_26, R2025_06_18, R2025_11_25, R2026_07_28];

    /// The revision that `text` names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// As it stands in `protocolVersion` and in the `MCP-Protocol-Version` header.
    pub fn as_str(self) -> &'static str {
        match self {
            R2024_11_05 => "2024-11-05",
            R2025_03_26 => "2025-03-26",
            R2025_06_18 => "2025-06-18",
            R2025_11_25 => "2025-11-25",
            R2026_07_28 => "2026-07-28",
        }
    }

    /// Whether a message may be an array of messages (2025-03-26 `basic`, "Batching"; removed in 2025-06-18).
    pub fn batches(self) -> bool {
        self == R2025_03_26
    }

    /// Whether a stream may open with an event that has an id and no data (2025-11-25 `basic/transports`).
    ///
    /// Clients of older revisions try to parse the empty data: TypeScript SDK before 1.24, Go SDK before 1.3.
    pub fn priming(self) -> bool {
        self >= R2025_11_25
    }

    /// Whether requests carry their own `_meta` instead of a session (2026-07-28 `basic/versioning`).
    pub fn modern(self) -> bool {
        self >= R2026_07_28
    }
}

/// Whether a request of 2026-07-28 cannot have this method: sessions had it, and they are gone (2026-07-28 `changelog`).
pub fn is_removed(method: &str) -> bool {
    const REMOVED: [&str; 6] = [
        "initialize",
        "notifications/initialized", // some clients give an id to everything
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
    ];
    REMOVED.contains(&method)
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revision_reads_back_as_written_and_nothing_else_reads() {
        for revision in Revision::ALL {
            assert_eq!(Revision::parse(revision.as_str()), Some(revision));
        }
        for text in ["", "2025-11-26", "2025-06-18 ", "DRAFT-2026-v1", "latest"] {
            assert_eq!(Revision::parse(text), None, "{text:?} is no revision");
        }
    }

    #[test]
    fn what_a_revision_allows() {
        let table = [
            (R2024_11_05, (false, false, false)),
            (R2025_03_26, (true, false, false)),
            (R2025_06_18, (false, false, false)),
            (R2025_11_25, (false, true, false)),
            (R2026_07_28, (false, true, true)),
        ];
        for (revision, want) in table {
            assert_eq!((revision.batches(), revision.priming(), revision.modern()), want, "{revision}");
        }
    }
}
