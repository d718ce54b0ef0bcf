//! What to run: the program, found as execvp(3) finds it, its environment, and the tag that its processes carry.

use std::borrow::Borrow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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

impl Command {
    /// Whether it has a daemon run a container: `docker … run`, with sudo(8), env(1) or a shell before it too.
    pub(super) fn runs_container(&self) -> bool {
        let words = [&self.name].into_iter().chain(&self.arguments).map(|word| word.to_string_lossy());
        let words: Vec<_> = words.collect();
        let words = words.iter().flat_map(|word| word.split_ascii_whitespace());
        let is_client = |word: &&str| {
            let name = word.rsplit('/').next();
            matches!(name, Some("docker" | "podman" | "nerdctl"))
        };
        words.skip_while(|word| !is_client(word)).any(|word| word == "run" || word == "exec")
    }
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
        place: Place,
        hint: Option<Hint>,
    },
    NotExecutable {
        /// The command as the operator wrote it.
        name: OsString,
        why: NotExecutable,
    },
    NoDirectory {
        /// The directory as the operator wrote it.
        directory: PathBuf,
    },
}

/// Where a command was looked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// In the folders of this PATH.
    Path(String),
    /// It is named with a slash: this file.
    File(PathBuf),
}

/// What was most likely meant by a command that is not there.
#[derive(Debug, PartialEq, Eq)]
pub enum Hint {
    /// The name has blanks: a whole command line in one pair of quotes.
    OneWord,
    /// A file of this name is in the working directory, where no shell looks for commands either.
    Here,
}

/// Why a file that is there cannot be run.
#[derive(Debug, PartialEq, Eq)]
pub enum NotExecutable {
    Folder,
    /// Its mode says so.
    Mode,
    /// It begins with `#!` and this file, which is not there.
    NoInterpreter(String),
}

impl fmt::Display for Unrunnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name, place, hint } => {
                let shown = name.display();
                match place {
                    Place::Path(path) => write!(f, "command not found: {shown}, in PATH={path}")?,
                    Place::File(file) if file.as_os_str() == name => {
                        write!(f, "command not found: {shown}")?;
                    }
                    Place::File(file) => {
                        write!(f, "command not found: {shown}, which is {}", file.display())?
                    }
                }
                match hint {
                    Some(Hint::OneWord) => f.write_str(
                        "; write the command as separate words, without quotes around all of them",
                    ),
                    Some(Hint::Here) => write!(f, "; did you mean ./{shown}?"),
                    None => Ok(()),
                }
            }
            Self::NotExecutable { name, why } => {
                let name = name.display();
                match why {
                    NotExecutable::Folder => write!(f, "{name} is a directory, not a program"),
                    NotExecutable::Mode => {
                        write!(f, "{name} is not executable; chmod +x makes it so")
                    }
                    NotExecutable::NoInterpreter(interpreter) => {
                        write!(f, "{name} cannot run: its interpreter {interpreter} was not found")
                    }
                }
            }
            Self::NoDirectory { directory } => write!(f, "--cwd is {}: not a directory", directory.display()),
        }
    }
}

/// Finds the file that `name` stands for, as execvp(3) would in `directory`, which is where the server runs: through
/// `path` unless it has a slash. A file that may not be executed is passed over if a later folder has one that may.
fn resolve(name: &OsStr, path: &str, directory: &Path) -> Result<PathBuf, Unrunnable> {
    let has_slash = name.as_encoded_bytes().contains(&b'/');
    let candidates: Vec<PathBuf> = if has_slash {
        vec![directory.join(name)]
    } else {
        // An empty entry stands for the working directory (POSIX.1-2024, base definitions 8.3).
        std::env::split_paths(path).map(|folder| directory.join(folder).join(name)).collect()
    };
    let mut not_executable = None;
    for candidate in &candidates {
        match executable(candidate) {
            Ok(()) => return Ok(candidate.clone()),
            Err(Some(why)) => not_executable = Some(why),
            Err(None) => {}
        }
    }
    let name = name.to_owned();
    if let Some(why) = not_executable {
        return Err(Unrunnable::NotExecutable { name, why });
    }
    let hint = if name.to_string_lossy().contains(char::is_whitespace) {
        Some(Hint::OneWord)
    } else {
        (!has_slash && directory.join(&name).is_file()).then_some(Hint::Here)
    };
    let place = match candidates.into_iter().next() {
        Some(file) if has_slash => Place::File(file),
        _ => Place::Path(path.to_owned()),
    };
    Err(Unrunnable::NotFound { name, place, hint })
}

/// The longest `#!` line that Linux reads, in bytes (execve(2)).
const MAX_SHEBANG: u64 = 256;

/// Whether this file can be executed.
///
/// # Errors
/// Why not; `None`: it is not there.
fn executable(file: &Path) -> Result<(), Option<NotExecutable>> {
    let metadata = std::fs::metadata(file).map_err(|_| None)?;
    if metadata.is_dir() {
        return Err(Some(NotExecutable::Folder));
    }
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(Some(NotExecutable::Mode));
    }
    let mut head = Vec::new();
    // A program need not be readable to be run.
    let _ = File::open(file).and_then(|file| file.take(MAX_SHEBANG).read_to_end(&mut head));
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if let Some(line) = line.strip_prefix(b"#!") {
        let line = String::from_utf8_lossy(line);
        let interpreter = line.split_ascii_whitespace().next().unwrap_or_default();
        // A relative one is looked for in the working directory of the server; leave that to execve(2).
        if interpreter.starts_with('/') && !Path::new(interpreter).exists() {
            return Err(Some(NotExecutable::NoInterpreter(interpreter.to_owned())));
        }
    }
    Ok(())
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
        if let Some(directory) = directory.clone().filter(|directory| !directory.is_dir()) {
            return Err(Unrunnable::NoDirectory { directory });
        }
        // Absolute, because a server is started from its own working directory.
        let started_in = directory.as_deref().unwrap_or(Path::new(""));
        let program = resolve(&name, &path.to_string_lossy(), started_in)?;
        let program = std::path::absolute(&program).unwrap_or(program);
        Ok(Self { program, name, arguments, directory, environment, tags: Tags::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, path: &str, directory: &Path) -> Result<PathBuf, String> {
        resolve(OsStr::new(name), path, directory).map_err(|why| why.to_string())
    }

    #[test]
    fn a_command_is_found_as_execvp_finds_it() {
        let root = Path::new("/");
        let sentence = |name: &str, path: &str| found(name, path, root).unwrap_err();
        assert_eq!(found("sh", "/nonexistent:/bin", root), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(found("/bin/sh", "", root), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(sentence("no-such-program", "/bin"), "command not found: no-such-program, in PATH=/bin");
        assert_eq!(sentence("/nonexistent/x", "/bin"), "command not found: /nonexistent/x");
        let mode = "is not executable; chmod +x makes it so";
        assert_eq!(sentence("/etc/passwd", ""), format!("/etc/passwd {mode}"));
        assert_eq!(sentence("passwd", "/etc:/nonexistent"), format!("passwd {mode}"));
        assert_eq!(sentence("/etc", ""), "/etc is a directory, not a program");
        assert_eq!(
            sentence("npx -y some-server", "/bin"),
            "command not found: npx -y some-server, in PATH=/bin; write the command as separate words, \
             without quotes around all of them"
        );
    }

    #[test]
    fn a_command_is_looked_for_where_it_will_run() {
        let folder = std::env::temp_dir().join(format!("command-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        let program = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("bin/server", "#!/bin/sh\n");
        program("here", "#!/bin/sh\n");
        program("orphan", "#!/nonexistent/python -u\n");
        let in_folder = |name: &str, path: &str| found(name, path, &folder);
        assert_eq!(in_folder("bin/server", "/bin"), Ok(folder.join("bin/server")));
        assert_eq!(in_folder("./here", "/bin"), Ok(folder.join("./here")));
        assert_eq!(in_folder("server", "bin:/bin"), Ok(folder.join("bin/server")));
        assert_eq!(
            in_folder("here", "/nonexistent:"),
            Ok(folder.join("here")),
            "an empty entry is the folder"
        );
        assert_eq!(
            in_folder("here", "/nonexistent").unwrap_err(),
            "command not found: here, in PATH=/nonexistent; did you mean ./here?"
        );
        assert_eq!(
            in_folder("lost/server", "/bin").unwrap_err(),
            format!("command not found: lost/server, which is {}", folder.join("lost/server").display())
        );
        assert_eq!(
            in_folder("./orphan", "/bin").unwrap_err(),
            "./orphan cannot run: its interpreter /nonexistent/python was not found"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
