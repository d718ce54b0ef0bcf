//! The tokens that open the bridge: a list from a variable, or a file that may change while the bridge runs.
//!
//! A read may wait for ever, on a network file system whose server is gone, say. So a thread of its own reads the file
//! again, and requests are checked against what it has read last. A file that is being written holds half a token, or lacks
//! the token of somebody whose sessions would end: it counts when it has been left alone for a while.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

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

/// How often the thread checks whether the file has changed, and how often while it has.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const CHECK_CHANGING: Duration = Duration::from_millis(200);

/// For how long a file must have been left alone to be whole.
const QUIET: Duration = Duration::from_secs(1);

/// The same, where its last line has no end and may be half a token.
const QUIET_WITHOUT_END: Duration = Duration::from_secs(5);

/// How long the start waits for a file that never rests, and after how long the log says so.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// What is done with the digests of tokens that have been read again.
type OnChange = Box<dyn Fn(&[Digest]) + Send + Sync>;

/// Why a file is not taken that never rests.
const WRITTEN: &str = "it is still being written";

/// The tokens that open the bridge.
pub struct Tokens {
    valid: Arc<Valid>,
    /// Told which tokens are valid whenever the file was read again.
    changed: Arc<OnceLock<OnChange>>,
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
            let valid = Arc::new(Valid(Mutex::new(file.read_first()?)));
            let changed = Arc::<OnceLock<OnChange>>::default();
            let (reload, requests) = sync_channel(1);
            let (watched, told) = (Arc::clone(&valid), Arc::clone(&changed));
            let tell = move |tokens: &[Digest]| told.get().into_iter().for_each(|told| told(tokens));
            let watch = move || file.watch(&watched, &requests, tell);
            thread::Builder::new()
                .name("token file".to_owned())
                .spawn(watch)
                .map_err(|error| error.to_string())?;
            Ok(Self { valid, changed, reload: Some(reload) })
        };
        start().map_err(|why: String| format!("--token-file is {at}: {why}"))
    }

    /// The tokens in a text, one per line.
    pub fn from_text(text: &Secret) -> Result<Self, String> {
        let tokens = parse(text).map_err(|why| format!("MCP_BRIDGE_TOKEN: {why}"))?;
        Ok(Self { valid: Arc::new(Valid(Mutex::new(tokens))), changed: Arc::default(), reload: None })
    }

    /// Has `tell` called, in another thread, with the digests of all tokens whenever the file was read again. The first
    /// call of this counts.
    pub fn on_change(&self, tell: impl Fn(&[Digest]) + Send + Sync + 'static) {
        let _ = self.changed.set(Box::new(tell));
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

    /// Has the file read again, whether it has changed or not, once it is whole. Does not wait for it.
    pub fn reload(&self) {
        if self.reload.as_ref().is_some_and(|reload| reload.try_send(()).is_err()) {
            warn!(
                event = "token.unreadable",
                "the token file is still being read; the tokens stay as they were"
            );
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("can_reload", &self.can_reload()).finish_non_exhaustive()
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
    /// When its bytes have changed.
    written: (i64, i64),
    /// The same or its name, its owner or its rights: a clock that nobody can set back.
    changed: (i64, i64),
    is_file: bool,
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            is_file: metadata.is_file(),
        })
    }

    /// How long ago it has changed, by the clock that stamps files; zero, where that is in its future.
    #[allow(
        clippy::disallowed_methods,
        reason = "the stamp of a file is of this clock, and no timer depends on it"
    )]
    fn age(&self) -> Duration {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::from_secs(self.changed.0.try_into().unwrap_or_default());
        since_epoch.saturating_sub(changed + Duration::from_secs(1)) // of a stamp the second is taken, rounded up
    }
}

impl TokenFile {
    /// Reads the file when it has changed and when it is asked to, until the [`Tokens`] are gone. What cannot be read
    /// changes nothing: a mistake of the operator must not lock all clients out.
    fn watch(mut self, valid: &Valid, requests: &Receiver<()>, tell: impl Fn(&[Digest])) {
        // Since when the file is as it was at the last look, while it is to be read.
        let mut quiet_since: Option<Instant> = None;
        let mut restless_since = Instant::now();
        loop {
            let pause = if quiet_since.is_some() { CHECK_CHANGING } else { CHECK_EVERY };
            let is_asked = match requests.recv_timeout(pause) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let file = self.path.display().to_string();
            if quiet_since.is_none() {
                restless_since = Instant::now();
            } else if restless_since.elapsed() > MAX_WAIT {
                restless_since = Instant::now();
                error!(
                    event = "token.unreadable",
                    file,
                    why = WRITTEN,
                    "the token file cannot be used; the tokens stay as they were"
                );
            }
            let version = Version::of(&self.path).ok();
            if version != self.seen {
                self.seen = version;
                quiet_since = Some(Instant::now());
            } else if is_asked {
                quiet_since.get_or_insert_with(Instant::now);
            }
            let Some(quiet) = quiet_since.map(|since| since.elapsed()) else { continue };
            let is_file = self.seen.as_ref().is_none_or(|version| version.is_file);
            if is_file && quiet < QUIET {
                continue;
            }
            let read = match self.read(quiet) {
                Ok(None) => continue,
                Ok(Some(text)) => parse(&text),
                Err(why) => Err(why),
            };
            quiet_since = None;
            match read {
                Ok(tokens) => {
                    let count = tokens.len();
                    valid.lock().clone_from(&tokens); // before the log says so
                    tell(&tokens);
                    info!(event = "token.reloaded", file, tokens = count, "the token file was read again");
                }
                Err(why) => error!(
                    event = "token.unreadable",
                    file, why, "the token file cannot be used; the tokens stay as they were"
                ),
            }
        }
    }

    /// Reads the file for the first time. A file whose last line has an end is taken as it is: what is still missing comes
    /// with the next look, and nobody has a session that could end.
    fn read_first(&mut self) -> Result<Vec<Digest>, String> {
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            self.seen = Version::of(&self.path).ok();
            let age = self.seen.as_ref().map_or(QUIET, Version::age);
            if let Some(text) = self.read(if age < QUIET { age } else { QUIET_WITHOUT_END })? {
                return parse(&text);
            }
            if Instant::now() > deadline {
                return Err(WRITTEN.to_owned());
            }
            thread::sleep(CHECK_CHANGING);
        }
    }

    /// The text of the file, which has been left alone for this long; `None`, where it is not whole: it has changed since
    /// it was [seen](Self::seen), or its last line has no end and it may be growing.
    fn read(&self, quiet: Duration) -> Result<Option<Secret>, String> {
        let mut text = String::new();
        let read = |file: File| file.take(MAX_FILE + 1).read_to_string(&mut text);
        let read = File::open(&self.path).and_then(read).map_err(|error| error.to_string());
        let text = Secret::new(text);
        let is_file = self.seen.as_ref().is_none_or(|version| version.is_file);
        if is_file && Version::of(&self.path).ok() != self.seen {
            return Ok(None);
        }
        if read? as u64 > MAX_FILE {
            return Err(format!("longer than {MAX_FILE} bytes"));
        }
        // What comes through a pipe is whole when its writer closes it.
        let is_whole = !is_file || text.reveal().ends_with('\n') || quiet >= QUIET_WITHOUT_END;
        Ok(is_whole.then_some(text))
    }
}

/// One token per line. Says where it is wrong, and never what stands there.
fn parse(text: &Secret) -> Result<Vec<Digest>, String> {
    let mut tokens = Vec::new();
    for (index, line) in text.reveal().lines().enumerate() {
        let token = line.trim();
        if token.is_empty() {
            continue;
        }
        if token.len() < MIN_TOKEN {
            return Err(format!(
                "line {} has fewer than {MIN_TOKEN} characters; it could be guessed",
                index + 1
            ));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "line {} has characters that an Authorization header cannot have",
                index + 1
            ));
        }
        tokens.push(Digest::of(token.as_bytes()));
    }
    match tokens.len() {
        0 => Err("there is no token in it".to_owned()),
        1..=MAX_TOKENS => Ok(tokens),
        count => Err(format!(
            "{count} tokens; at most {MAX_TOKENS} are accepted, such as the old and the new ones of a rotation"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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
            ("hunter2", "fewer than 16"),
            ("hunter2 hunter2 hunter2", "an Authorization header cannot have"),
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

    /// A file of this test's own.
    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mcp-bridge-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_file_that_has_changed_is_read_again_and_a_bad_one_changes_nothing() {
        let path = path("tokens");
        fs::write(&path, format!("{ONE}\n")).expect("written");
        let tokens = Tokens::from_file(path.clone()).expect("one token");
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        tokens.on_change(move |valid| lock(&tell).push(valid.to_vec()));
        let is_valid = |token: &str| tokens.check(token.as_bytes()).is_some();
        fs::write(&path, format!("{TWO}\n")).expect("written");
        eventually("the new token is read", || is_valid(TWO));
        assert!(!is_valid(ONE));
        for broken in [Some("short\n".to_owned()), Some(ONE.repeat(5000)), None] {
            match broken {
                Some(text) => fs::write(&path, text).expect("written"),
                None => fs::remove_file(&path).expect("removed"),
            }
            thread::sleep(QUIET + CHECK_EVERY + CHECK_CHANGING); // nothing else shows that it has been read
            assert!(is_valid(TWO), "the last good ones stay");
        }
        fs::write(&path, format!("{ONE}\n{TWO}\n")).expect("written");
        eventually("the cured file is read", || is_valid(ONE));
        eventually("each change was told", || lock(&told).len() == 2);
        assert_eq!(lock(&told).last(), Some(&[ONE, TWO].map(|token| Digest::of(token.as_bytes())).to_vec()));
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn half_a_token_is_none_while_a_file_grows() {
        const WHOLE: &str = "a-token-that-is-written-in-many-pieces";
        let path = path("growing-tokens");
        fs::write(&path, format!("{ONE}\n")).expect("written");
        let tokens = Tokens::from_file(path.clone()).expect("one token");
        let is_valid = |token: &str| tokens.check(token.as_bytes()).is_some();
        let mut file = File::create(&path).expect("emptied");
        for piece in WHOLE.as_bytes().chunks(8) {
            file.write_all(piece).expect("written");
            let until = Instant::now() + QUIET + CHECK_CHANGING * 2;
            while Instant::now() < until {
                tokens.reload();
                let halves = (MIN_TOKEN..WHOLE.len()).filter_map(|end| WHOLE.get(..end));
                assert!(!halves.into_iter().any(is_valid));
                assert!(is_valid(ONE), "what was read last counts");
                thread::sleep(CHECK_CHANGING / 4);
            }
        }
        eventually("a last line without an end counts when it is left alone", || is_valid(WHOLE));
        assert!(!is_valid(ONE));
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_start_does_not_wait_for_ever_for_a_file_that_never_rests() {
        let path = path("restless-tokens");
        fs::write(&path, ONE).expect("written");
        let (over, is_over) = sync_channel::<()>(0);
        let why = thread::scope(|scope| {
            let file = &path;
            scope.spawn(move || {
                while is_over.recv_timeout(CHECK_CHANGING / 4) == Err(RecvTimeoutError::Timeout) {
                    fs::write(file, ONE).expect("written");
                }
            });
            let why = Tokens::from_file(path.clone()).expect_err("half a token, perhaps");
            drop(over);
            why
        });
        assert!(why.contains(WRITTEN), "{why}");
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_start_waits_for_a_last_line_without_an_end_only_where_it_is_new() {
        const WHOLE: &str = "a-token-that-is-written-in-two-pieces";
        let path = path("new-tokens");
        fs::write(&path, &WHOLE[..20]).expect("written");
        let tokens = thread::scope(|scope| {
            let reader = scope.spawn(|| Tokens::from_file(path.clone()).expect("one token"));
            thread::sleep(CHECK_CHANGING);
            fs::write(&path, WHOLE).expect("written");
            reader.join().expect("it has read")
        });
        assert!(tokens.check(WHOLE.as_bytes()).is_some() && tokens.check(&WHOLE.as_bytes()[..20]).is_none());
        thread::sleep(QUIET * 2);
        let began = Instant::now();
        Tokens::from_file(path.clone()).expect("a mounted secret has often no last line feed");
        assert!(began.elapsed() < QUIET, "{:?}", began.elapsed());
        fs::remove_file(&path).expect("removed");
    }

    #[test]
    fn a_file_that_cannot_be_read_does_not_hold_up_a_check() {
        let path = path("hanging-tokens");
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
