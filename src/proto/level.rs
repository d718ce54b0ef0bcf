//! How grave a log line is, as the protocol names it.

use super::json::unquote;

/// How grave a log line is (RFC 5424 §6.2.1), the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    const NAMES: [(Self, &'static str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    /// The level that a JSON string names.
    pub fn parse(token: &str) -> Option<Self> {
        let name = unquote(token);
        Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(level, _)| level)
    }

    pub fn as_str(self) -> &'static str {
        Self::NAMES.into_iter().find(|(level, _)| *level == self).map_or("debug", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_an_order_and_names() {
        for pair in Level::NAMES.windows(2) {
            assert!(pair[0].0 < pair[1].0);
        }
        for (level, name) in Level::NAMES {
            assert_eq!(Level::parse(&format!("\"{name}\"")), Some(level));
            assert_eq!(level.as_str(), name);
        }
        assert_eq!(Level::parse("\"Debug\""), None);
        assert_eq!(Level::parse("7"), None);
    }
}
