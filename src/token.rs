//! The tokens that open the bridge: a list from a variable, or a file that may change while the bridge runs.
//!
//! A read may wait for ever, on a network file system whose server is gone, say. So a thread of its own reads the file
//! again, and requests are checked against what it has read last.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tracing::{error, info, warn};

use crate::secret::{Digest, Secret};
use crate::sync::lock;

/// The shortest token, in bytes: what is shorter can be guessed.
const MIN_TOKEN: usize = 16;

/// How many tokens there may be: the old and the new one of a rotation, for two callers.
const MAX_TOKENS: usize = 4;

/// The longest file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// How often the thread checks whether the file has changed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The tokens that open the bridge.
#[derive(Debug)]
pub struct Tokens {
    valid: Arc<Valid>,
    /// Asks the thread to read the file; `None`: there is no file. One request may wait.
    reload: Option<SyncSender<()>>,
}

impl Tokens {
    /// The tokens in a file, one per line. Blocks until it is read for the first time.
    ///
    /// # Errors
    /// A sentence for the operator: the file cannot be read, or a line of it is no token.
    pub fn from_file(path: PathBuf) -> Result<Self, String> {
        let at = path.display().to_string();
        let start = || {
            let mut file = TokenFile { path, seen: None };
            let valid = Arc::new(Valid(Mutex::new(file.read()?)));
            let (reload, requests) = sync_channel(1);
            let watched = Arc::clone(&valid);
            let watch = move || file.watch(&watched, &requests);
            thread::Builder::new()
                .name("token file".to_owned())
                .spawn(watch)
                .map_err(|error| error.to_string())?;
            Ok(Self { valid, reload: Some(reload) })
        };
        start().map_err(|why: String| format!("--token-file is {at}: {why}"))
    }

    /// The tokens in a text, one per line.
    pub fn from_text(text: &Secret) -> Result<Self, String> {
        let tokens = parse(text.reveal()).map_err(|why| format!("MCP_BRIDGE_TOKEN: {why}"))?;
        Ok(Self { valid: Arc::new(Valid(Mutex::new(tokens))), reload: None })
    }

    /// Whether they come from a file.
    pub fn can_reload(&self) -> bool {
        self.reload.is_some()
    }

    /// The digest of `token` if it is valid. Takes the same time for each token, valid or not.
    pub fn check(&self, token: &[u8]) -> Option<Digest> {
        let digest = Digest::of(token);
        let mut found = Choice::from(0);
        for known in self.valid.lock().iter() {
            found.conditional_assign(&Choice::from(1), known.as_bytes().ct_eq(digest.as_bytes()));
        }
        bool::from(found).then_some(digest)
    }

    /// Has the file read again, whether it has changed or not. Does not wait for it.
    pub fn reload(&self) {
        if self.reload.as_ref().is_some_and(|reload| reload.try_send(()).is_err()) {
            warn!(
                event = "token.unreadable",
                "the token file is still being read since the last time; the tokens stay as they were"
            );
        }
    }
}

/// Which tokens are valid. Locked for a look or a replacement, never while something is read.
#[derive(Debug)]
struct Valid(Mutex<Vec<Digest>>);

impl Valid {
    fn lock(&self) -> MutexGuard<'_, Vec<Digest>> {
        lock(&self.0)
    }
}

/// The file, as the thread sees it.
#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    /// What was there at the last look; `None`: nothing that can be read.
    seen: Option<Version>,
}

/// What tells one content of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { inode: metadata.ino(), size: metadata.size(), changed })
    }
}

impl TokenFile {
    /// Reads the file when it has changed and when it is asked to, until the [`Tokens`] are gone. What cannot be read
    /// changes nothing: a mistake of the operator must not lock all clients out.
    fn watch(mut self, valid: &Valid, requests: &Receiver<()>) {
        loop {
            match requests.recv_timeout(CHECK_EVERY) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) if Version::of(&self.path).ok() == self.seen => continue,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let file = self.path.display().to_string();
            match self.read() {
                Ok(tokens) => {
                    let count = tokens.len();
                    *valid.lock() = tokens; // before the log says so
                    info!(event = "token.reloaded", file, tokens = count, "the token file was read again");
                }
                Err(why) => error!(
                    event = "token.unreadable",
                    file, why, "the token file cannot be used; the tokens stay as they were"
                ),
            }
        }
    }

    fn read(&mut self) -> Result<Vec<Digest>, String> {
        // The version first: if the file changes in between, the next look sees it.
        self.seen = Version::of(&self.path).ok();
        let mut text = String::new();
        let read = |file: File| file.take(MAX_FILE + 1).read_to_string(&mut text);
        File::open(&self.path).and_then(read).map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_FILE {
            return Err(format!("longer than {MAX_FILE} bytes"));
        }
        parse(&text)
    }
}

/// One token per line. Says where it is wrong, and never what stands there.
fn parse(text: &str) -> Result<Vec<Digest>, String> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let token = line.trim();
        if token.is_empty() {
            continue;
        }
        if token.len() < MIN_TOKEN {
            return Err(format!(
                "line {} has less than {MIN_TOKEN} characters; it could be guessed",
                index + 1
            ));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("line {} has characters that no Authorization header can carry", index + 1));
        }
        tokens.push(Digest::of(token.as_bytes()));
    }
    match tokens.len() {
        0 => Err("there is no token in it".to_owned()),
        1..=MAX_TOKENS => Ok(tokens),
        count => Err(format!(
            "{count} tokens; at most {MAX_TOKENS} are taken, the old and the new one of a rotation"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210";

    fn tokens(text: &str) -> Result<Tokens, String> {
        Tokens::from_text(&Secret::new(text.to_owned()))
    }

    #[test]
    fn each_line_is_a_token_and_nothing_else_is() {
        let tokens = tokens(&format!("{ONE}\n\n  {TWO}\r\n")).expect("two tokens");
        for token in [ONE, TWO] {
            assert_eq!(tokens.check(token.as_bytes()), Some(Digest::of(token.as_bytes())));
        }
        for wrong in
            ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", &format!("{ONE}\n{TWO}")]
        {
            assert_eq!(tokens.check(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_said_without_being_shown() {
        for (text, why) in [
            ("", "no token"),
            ("hunter2", "less than 16"),
            ("hunter2 hunter2 hunter2", "no Authorization header"),
            (&[ONE; 5].join("\n"), "5 tokens"),
        ] {
            let said = tokens(text).expect_err("no tokens");
            assert!(said.contains(why), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    /// Waits until this holds.
    #[track_caller]
    fn eventually(what: &str, holds: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_file_that_has_changed_is_read_again_and_a_bad_one_changes_nothing() {
        let path = std::env::temp_dir().join(format!("mcp-bridge-tokens-{}", std::process::id()));
        fs::write(&path, ONE).expect("written");
        let mut file = TokenFile { path: path.clone(), seen: None };
        let valid = Valid(Mutex::new(file.read().expect("one token")));
        let (reload, requests) = sync_channel(1);
        let is_valid = |token: &str| valid.lock().contains(&Digest::of(token.as_bytes()));
        thread::scope(|scope| {
            let valid = &valid;
            scope.spawn(move || file.watch(valid, &requests));
            fs::write(&path, format!("{TWO}\n")).expect("written");
            eventually("the new token is read", || is_valid(TWO));
            assert!(!is_valid(ONE));
            for broken in [Some("short".to_owned()), Some(ONE.repeat(5000)), None] {
                match broken {
                    Some(text) => fs::write(&path, text).expect("written"),
                    None => fs::remove_file(&path).expect("removed"),
                }
                for _ in 0..3 {
                    reload.send(()).expect("it goes on"); // with one place to wait, the first was served by then
                }
                assert!(is_valid(TWO), "the last good ones stay");
            }
            drop(reload);
        });
    }

    #[test]
    fn a_file_that_cannot_be_read_does_not_hold_up_a_check() {
        let path = std::env::temp_dir().join(format!("mcp-bridge-hanging-tokens-{}", std::process::id()));
        fs::write(&path, ONE).expect("written");
        let tokens = Tokens::from_file(path.clone()).expect("one token");
        fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)
            .expect("a file whose readers wait for a writer");
        for _ in 0..3 {
            tokens.reload();
            assert!(tokens.check(ONE.as_bytes()).is_some());
        }
        fs::write(&path, TWO).expect("written, as soon as the thread reads");
        eventually("what came at last counts", || tokens.check(TWO.as_bytes()).is_some());
        fs::remove_file(&path).expect("removed");
    }
}
