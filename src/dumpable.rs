//! This process is no open book to others of the same user, its own children among them.
//!
//! Of a process that is not dumpable the kernel makes no core file, lets nobody attach to it without CAP_SYS_PTRACE, and
//! gives its files in /proc to root: its environment, with MCP_BRIDGE_TOKEN in it, its memory and its descriptors (prctl(2),
//! PR_SET_DUMPABLE; ptrace(2); proc(5)). execve(2) makes the children dumpable again.

use std::io;

/// Makes this process one that is not dumpable.
///
/// # Errors
/// What prctl(2) said: a sandbox may not know it.
pub fn clear() -> io::Result<()> {
    nix::sys::prctl::set_dumpable(false).map_err(io::Error::from)
}
