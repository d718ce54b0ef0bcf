//! The cells: what is measured in each column.

pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
}

#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Calls in flight at all times in each of the sessions, with texts of so many bytes.
    Calls { sessions: usize, in_flight: usize, text: usize },
    /// Whole sessions, so many at a time: `initialize`, `notifications/initialized`, one call, the end.
    Churn { at_once: usize },
    /// What a bridge takes at rest, and for so many sessions at rest.
    Memory { sessions: usize },
}

/// The length of a usual text, in bytes.
pub(crate) const TEXT: usize = 32;

pub(crate) const CELLS: [Cell; 7] = [
    Cell { name: "1x1", work: Work::Calls { sessions: 1, in_flight: 1, text: TEXT } },
    Cell { name: "1x16", work: Work::Calls { sessions: 1, in_flight: 16, text: TEXT } },
    Cell { name: "8x8", work: Work::Calls { sessions: 8, in_flight: 8, text: TEXT } },
    Cell { name: "64x1", work: Work::Calls { sessions: 64, in_flight: 1, text: TEXT } },
    Cell { name: "1MiB", work: Work::Calls { sessions: 1, in_flight: 1, text: 1 << 20 } },
    Cell { name: "churn", work: Work::Churn { at_once: 4 } },
    Cell { name: "memory", work: Work::Memory { sessions: 64 } },
];
