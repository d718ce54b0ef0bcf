//! The tokens that open the bridge: a list from a variable, or a file that may change while the bridge runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tracing::{error, info};

use crate::secret::{Digest, Secret};

/// The shortest token, in bytes: what is shorter can be guessed.
const MIN_TOKEN: usize = 16;

/// How many tokens there may be: the old and the new one of a rotation, for two callers.
const MAX_TOKENS: usize = 4;

/// How often it is looked whether the file has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The tokens that open the bridge, from a file that may change while it runs or from a variable that may not.
#[derive(Debug)]
pub struct Tokens {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: Vec<Digest>,
    version: Option<Version>,
    looked: Instant,
}

/// What tells one content of a file from another.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(file: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(file)?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { inode: metadata.ino(), size: metadata.size(), changed })
    }
}

impl Tokens {
    /// The tokens in a file, one per line.
    ///
    /// # Errors
    /// A sentence for the operator: the file cannot be read, or what stands there is no token.
    pub fn from_file(file: PathBuf) -> Result<Self, String> {
        let (version, tokens) =
            read(&file).map_err(|why| format!("--token-file is {}: {why}", file.display()))?;
        Ok(Self {
            file: Some(file),
            state: Mutex::new(State { tokens, version: Some(version), looked: Instant::now() }),
        })
    }

    /// The tokens in a text, one per line.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn from_text(text: &Secret) -> Result<Self, String> {
        let tokens = parse(text.reveal()).map_err(|why| format!("MCP_BRIDGE_TOKEN: {why}"))?;
        Ok(Self { file: None, state: Mutex::new(State { tokens, version: None, looked: Instant::now() }) })
    }

    /// Whether they come from a file.
    pub fn can_reload(&self) -> bool {
        self.file.is_some()
    }

    /// The digest of `token` if it is one of ours. Takes the same time whichever it is, or none.
    pub fn check(&self, token: &[u8]) -> Option<Digest> {
        let mut state = self.lock();
        if state.looked.elapsed() >= LOOK_AGAIN {
            self.look(&mut state, false);
        }
        let digest = Digest::of(token);
        let mut found = Choice::from(0);
        for known in &state.tokens {
            found.conditional_assign(&Choice::from(1), known.as_bytes().ct_eq(digest.as_bytes()));
        }
        bool::from(found).then_some(digest)
    }

    /// Reads the file again, whether it has changed or not.
    pub fn reload(&self) {
        self.look(&mut self.lock(), true);
    }

    /// What cannot be read changes nothing: a slip of the operator must not lock everybody out.
    fn look(&self, state: &mut State, always: bool) {
        let Some(file) = &self.file else { return };
        state.looked = Instant::now();
        if !always && Version::of(file).ok() == state.version {
            return;
        }
        match read(file) {
            Ok((version, tokens)) => {
                info!(event = "token.reloaded", file = %file.display(), tokens = tokens.len());
                (state.version, state.tokens) = (Some(version), tokens);
            }
            Err(why) => {
                error!(event = "token.unreadable", file = %file.display(), why, "the tokens stay as they were")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &Path) -> Result<(Version, Vec<Digest>), String> {
    // The version first: if the file changes in between, the next look sees it.
    let version = Version::of(file).map_err(|error| error.to_string())?;
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    Ok((version, parse(&text)?))
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
                "line {} has less than {MIN_TOKEN} characters; anyone could guess it",
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

    #[test]
    fn a_file_that_has_changed_is_read_again_and_a_bad_one_changes_nothing() {
        let file = std::env::temp_dir().join(format!("mcp-bridge-tokens-{}", std::process::id()));
        fs::write(&file, ONE).expect("written");
        let tokens = Tokens::from_file(file.clone()).expect("one token");
        fs::write(&file, format!("{TWO}\n")).expect("written");
        assert!(tokens.check(ONE.as_bytes()).is_some(), "it has just been looked at");
        let ago = Instant::now().checked_sub(LOOK_AGAIN).expect("the machine has been up for so long");
        tokens.lock().looked = ago;
        assert!(tokens.check(TWO.as_bytes()).is_some() && tokens.check(ONE.as_bytes()).is_none());
        fs::write(&file, "short").expect("written");
        tokens.reload();
        assert!(tokens.check(TWO.as_bytes()).is_some(), "the last good ones stay");
        fs::remove_file(&file).expect("removed");
        tokens.reload();
        assert!(tokens.check(TWO.as_bytes()).is_some());
    }
}
