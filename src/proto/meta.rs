//! The names in `_meta` that 2026-07-28 has reserved (`basic/index`, "`_meta`").

/// What the names in `_meta` begin with that the specification has reserved (2026-07-28 `basic/index`, "`_meta`").
pub const RESERVED: &str = "io.modelcontextprotocol/";

/// What each request says: the revision, who its client is, and what that can be asked.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// From which level on a request asks for log lines (`server/utilities/logging`).
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// Who has made a result.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
