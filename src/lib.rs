//! `mcp-bridge -- COMMAND` turns a stdio MCP server into an HTTP-native, stateful MCP backend: one initialized
//! protocol session per `Mcp-Session-Id`, with a child process of its own unless sessions are to share one.
//!
//! The house, from the door inwards. Imports run one way, and `tests/house/layering.rs` holds them to it:
//!
//! ```text
//! main → assembly, shutdown → cli, server → http → sessions → session → proto
//!                                                  sessions → child → reaper
//! main → probe → proto, child
//! ```
//!
//! `account`, `address`, `container`, `drain`, `dumpable`, `exit_status`, `first_words`, `heap`, `late`, `log`, `log_limit`, `oom_score`, `open_files`,
//! `printable`, `reaper`, `secret`, `signals` and `sync` are leaves: they know nothing else of the crate but `exit_status`,
//! `printable` and `sync`; `token` knows `secret`.
//!
//! | module | what it knows |
//! |---|---|
//! | [`assembly`] | options and what the system has become the configurations of the parts |
//! | [`shutdown`] | what a stop signal sets in motion, and how long each step has |
//! | [`cli`] | argv and `MCP_BRIDGE_*` become validated options |
//! | [`server`] | listener, connections and their limits, the graceful end |
//! | [`drain`] | one stop for all tasks, and when all have stopped |
//! | [`signals`] | the signals that the program handles |
//! | [`address`], [`container`] | where to listen, and whether this is a container |
//! | [`open_files`] | the descriptor limit: raised, divided, as it was for children |
//! | [`dumpable`] | other processes of the user do not read this one's memory and environment |
//! | [`oom_score`] | when memory runs out a child goes and not the bridge |
//! | [`log`] | lines to stderr, which need not be read |
//! | [`log_limit`], [`printable`] | how often one thing is logged, and how much of what a peer sent |
//! | [`secret`], [`token`] | what is compared and never shown; the tokens that open the bridge |
//! | [`account`] | how many bytes wait, and where |
//! | [`late`] | deadlines that look at what is there first |
//! | [`first_words`] | what a server that does not answer has written instead, and what that means |
//! | [`heap`] | freed memory goes back to the system |
//! | [`http`] | which request means what; [`http::problem`] is the one table of refusals |
//! | [`probe`] | asks servers: starts one to see whether it works, and whether a bridge is ready |
//! | [`sessions`] | which sessions exist; seats, keys, lanes, warm children, what the server speaks; starts and ends them, and says how they are |
//! | [`session`] | one session: a handle, and the one loop that owns link, front, pipes and streams; its lanes, which are the pipes of other sessions |
//! | [`child`] | one process in a session of its own: pipes, environment, the signals that end it, what it leaves |
//! | [`exit_status`] | how a process ended |
//! | [`sync`] | the lock that no panic poisons |
//! | [`reaper`] | the only `waitpid` |
//! | [`proto`] | the protocol without I/O; [`proto::link`] speaks to one child, [`proto::front`] for its clients |
//!
//! A request's way: [`http::Http::handle`] finds or starts the session, [`session::Session::post`] puts the message
//! into its mailbox, the loop gives it to the front, and the link writes it for the child under the bridge's own id. The
//! child's answer comes back through link and front, gets the client's id again, and goes to the stream of the POST.
//!
//! Where sessions share a child, it goes through two loops. What the session's own link writes goes into a [`session::Lane`],
//! a pair of pipes in memory, and comes out at the shared server: that is a session too, which the bridge has opened, and
//! alone has the process. To its front ([`proto::front::shared`], [`proto::front::modern`]) each lane is a stream.
//!
//! A front for each cell of clients and children:
//!
//! | clients | child of the session era | child of 2026-07-28 |
//! |---|---|---|
//! | one, with a session of its own | [`proto::front::single`] | [`proto::downgrade`] |
//! | without an id, of a session key | [`proto::front::keyed`] | none: they have a child of the session era |
//! | of 2026-07-28 | [`proto::upgrade`] | [`proto::front::modern`] |
//! | other sessions, on lanes | [`proto::front::shared`] | [`proto::front::modern`] |

pub mod account;
pub mod address;
pub mod assembly;
pub mod child;
pub mod cli;
pub mod container;
pub mod drain;
pub mod dumpable;
pub mod exit_status;
pub mod first_words;
pub mod heap;
pub mod http;
pub mod late;
pub mod log;
pub mod log_limit;
pub mod oom_score;
pub mod open_files;
pub mod printable;
pub mod probe;
pub mod proto;
pub mod reaper;
pub mod secret;
pub mod server;
pub mod session;
pub mod sessions;
pub mod shutdown;
pub mod signals;
pub mod sync;
pub mod token;
