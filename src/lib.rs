//! `mcp-bridge -- COMMAND` turns a stdio MCP server into an HTTP-native, stateful MCP backend: one initialized
//! protocol session, which is one child process, per `Mcp-Session-Id`.
//!
//! The house, from the door inwards. Imports run one way, and `tests/house/layering.rs` holds them to it:
//!
//! ```text
//! main → cli, server → http → sessions → session → proto
//!                             sessions → child → reaper
//! ```
//!
//! `drain`, `log`, `memory`, `reaper` and `secret` are leaves: they know nothing else of the crate.
//!
//! | module | what it knows |
//! |---|---|
//! | [`cli`] | argv and `MCP_BRIDGE_*` become validated options |
//! | [`server`] | listener, connections and their limits, the graceful end |
//! | [`drain`] | who stops the program, one signal for everyone, and when everyone has stopped |
//! | [`log`] | lines to stderr that nobody has to read |
//! | [`secret`] | tokens and digests: what is compared and never shown |
//! | [`memory`] | free memory goes back to the system |
//! | [`http`] | which request means what; [`http::reply`] is the one table of refusals |
//! | [`sessions`] | which sessions exist; seats, keys, children started ahead; starts and ends them |
//! | [`session`] | one session: a handle, and the one loop that owns machine, pipes and readers |
//! | [`child`] | one process in its own group: pipes, environment, the way out, what it leaves |
//! | [`reaper`] | the only `waitpid` |
//! | [`proto`] | the protocol without I/O; [`proto::machine`] is a session as a state machine |
//!
//! A request's way: [`http::Http::handle`] finds or starts the session, [`session::Session::post`] puts the message
//! into its mailbox, the loop gives it to the machine, which writes it for the child under the bridge's own id. The
//! child's answer comes back through the machine, gets the client's id again, and goes to the reader of the POST.

pub mod child;
pub mod cli;
pub mod drain;
pub mod http;
pub mod log;
pub mod memory;
pub mod proto;
pub mod reaper;
pub mod secret;
pub mod server;
pub mod session;
pub mod sessions;
