//! What to run: the program, found as execvp(3) finds it, its environment, and the tag that its processes carry.

use std::borrow::Borrow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The command that every session runs.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, resolved.
    pub program: PathBuf,
    /// `argv[0]` as the operator wrote it.
    pub name: OsString,
    pub arguments: Vec<OsString>,
    /// The working directory; `None`: the bridge's own.
    pub directory: Option<PathBuf>,
    /// The environment of every child; single ones get more.
    pub environment: Vec<(OsString, OsString)>,
    pub(super) tags: Arc<Tags>,
}

/// What a child inherits, and what it gets in addition.
#[derive(Clone, Debug, Default)]
pub struct EnvPolicy {
    /// The variables it inherits if they are there; `None`: all, less what is the bridge's own.
    pub only: Option<Vec<OsString>>,
    /// The variables it does not inherit: they are set only where a client gives them.
    pub never: Vec<OsString>,
    pub set: Vec<(OsString, OsString)>,
}

impl EnvPolicy {
    /// The variables that every program expects and that hold no secret: what the SDKs' own clients give to a server.
    pub const MINIMAL: [&str; 6] = ["HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER"];

    fn of_child(self) -> Vec<(OsString, OsString)> {
        // A value that begins like a shell function is run by an old bash (CVE-2014-6271).
        let harmless = |value: &OsStr| !value.as_encoded_bytes().starts_with(b"()");
        let wanted = |name: &OsStr, value: &OsStr| match &self.only {
            _ if self.never.iter().any(|never| never == name) => false,
            Some(only) => only.iter().any(|one| one == name) && harmless(value),
            None => true,
        };
        let mut environment: Vec<_> =
            std::env::vars_os().filter(|(name, value)| !is_ours(name) && wanted(name, value)).collect();
        environment.extend(self.set);
        environment
    }
}

/// The variable that holds a child's [`Tag`]. Its descendants inherit it, and are recognized by it wherever they have
/// gone.
pub(super) const TAG_VARIABLE: &str = "MCP_BRIDGE_CHILD";

/// The name of a child, which no other child has, of this bridge or of another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag(Arc<str>);

#[cfg(test)]
impl Tag {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<OsStr> for Tag {
    fn as_ref(&self) -> &OsStr {
        OsStr::new(&*self.0)
    }
}

#[derive(Debug)]
pub(super) struct Tags {
    bridge: u64,
    last: AtomicU64,
}

impl Tags {
    fn new() -> Arc<Self> {
        // Without random numbers two bridges in one container might use the same tags; neither sees the other's orphans.
        Arc::new(Self { bridge: getrandom::u64().unwrap_or_default(), last: AtomicU64::new(0) })
    }

    pub(super) fn next(&self) -> Tag {
        Tag(format!("{:016x}.{}", self.bridge, self.last.fetch_add(1, Ordering::Relaxed)).into())
    }
}

/// Why a command cannot be run.
#[derive(Debug, PartialEq, Eq)]
pub enum Unrunnable {
    NotFound {
        /// The command as the operator wrote it.
        name: OsString,
        path: String,
    },
    NotExecutable {
        /// The command as the operator wrote it.
        name: OsString,
    },
    NoDirectory {
        /// The directory as the operator wrote it.
        directory: PathBuf,
    },
}

impl fmt::Display for Unrunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name, path } => {
                write!(f, "{} is not there: no such file, and not in PATH={path}", name.display())
            }
            Self::NotExecutable { name } => write!(f, "{} is there and not executable", name.display()),
            Self::NoDirectory { directory } => write!(f, "--cwd is {}: not a directory", directory.display()),
        }
    }
}

/// Finds the file that `name` stands for, as execvp(3) would: through `path` unless it has a slash. A file that may not
/// be executed is passed over if a later directory has one that may.
fn resolve(name: &OsStr, path: &str) -> Result<PathBuf, Unrunnable> {
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![name.into()]
    } else {
        std::env::split_paths(path).map(|directory| directory.join(name)).collect()
    };
    let mut why = Unrunnable::NotFound { name: name.to_owned(), path: path.to_owned() };
    for candidate in candidates {
        let Ok(metadata) = std::fs::metadata(&candidate) else { continue };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            return Ok(candidate);
        }
        why = Unrunnable::NotExecutable { name: name.to_owned() };
    }
    Err(why)
}

/// Whether a variable is for the bridge and not for its children: its settings, and what a service manager has given to it
/// and to no other process (sd_notify(3), sd_listen_fds(3)).
fn is_ours(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"MCP_BRIDGE_")
        || [&b"NOTIFY_SOCKET"[..], b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES"].contains(&name)
}
impl Command {
    /// The command in `words`, its program found.
    pub fn new(
        words: &[OsString],
        directory: Option<PathBuf>,
        environment: EnvPolicy,
    ) -> Result<Self, Unrunnable> {
        let (name, arguments) =
            words.split_first().map(|(name, rest)| (name.clone(), rest.to_vec())).unwrap_or_default();
        let environment = environment.of_child();
        let path = environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let path = path.unwrap_or_default();
        let program = resolve(&name, &path.to_string_lossy())?;
        if let Some(directory) = directory.clone().filter(|directory| !directory.is_dir()) {
            return Err(Unrunnable::NoDirectory { directory });
        }
        Ok(Self { program, name, arguments, directory, environment, tags: Tags::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_execvp_finds_it() {
        let found = |name: &str, path: &str| resolve(OsStr::new(name), path);
        let not_executable = |name: &str| Err(Unrunnable::NotExecutable { name: name.into() });
        assert_eq!(found("sh", "/nonexistent:/bin"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(found("/bin/sh", ""), Ok(PathBuf::from("/bin/sh")));
        assert!(matches!(found("no-such-program", "/bin"), Err(Unrunnable::NotFound { .. })));
        assert_eq!(found("/etc/passwd", ""), not_executable("/etc/passwd"));
        assert_eq!(found("/etc", ""), not_executable("/etc"));
        assert_eq!(found("passwd", "/etc:/nonexistent"), not_executable("passwd"));
    }
}
