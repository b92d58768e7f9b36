//! Bootstrap tokens: each stands for exactly one identity. The CA keeps only their SHA-256.
//!
//! A token is 256 random bits, so its plain hash tells nothing, and finding a hash in a map leaks nothing
//! by its timing. Tokens neither expire nor count their uses; removing a line of the file revokes one.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::state::{Readers, StateDir};
use super::{Error, ca, random};
use crate::model::SpiffeId;

const FILE: &str = "tokens.json";
/// Lets secret scanners and readers of a leaked log recognise one.
const PREFIX: &str = "ort_";

/// SHA-256 in hexadecimal to identity.
type Entries = BTreeMap<String, SpiffeId>;

/// Makes a token for `identity`. Works before the CA was first opened, and beside a running one.
pub fn create(state_dir: &Path, identity: &SpiffeId) -> Result<String, Error> {
    let dir = StateDir::open(state_dir)?;
    let locked = dir.lock()?;
    ca::check_domain(&dir, identity)?;
    let mut entries = read(&dir)?;
    let token = format!("{PREFIX}{}", hex(&random::<32>()?));
    entries.insert(hash(&token), identity.clone());
    let mut text = serde_json::to_string_pretty(&entries).expect("strings always serialize");
    text.push('\n');
    locked.write(FILE, Readers::Owner, &text)?;
    Ok(token)
}

/// The tokens of a state directory as they are now: a token made or removed counts at the next question.
#[derive(Debug)]
pub struct Tokens {
    dir: StateDir,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    stamp: Option<Stamp>,
    entries: Entries,
}

/// Tells one version of the file from another. Every version is a new file, so the inode differs even when
/// two are made within one tick of the clock.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Tokens {
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let tokens = Self {
            dir: StateDir::open(state_dir)?,
            cache: Mutex::default(),
        };
        tokens.refresh(&mut Cache::default())?;
        Ok(tokens)
    }

    /// Whom the token stands for. An unreadable file is an error, never an old answer: the token may just
    /// have been revoked.
    pub fn identity(&self, token: &str) -> Result<Option<SpiffeId>, Error> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut cache)?;
        Ok(cache.entries.get(&hash(token)).cloned())
    }

    fn refresh(&self, cache: &mut Cache) -> Result<(), Error> {
        let stamp = self.stamp()?;
        if stamp != cache.stamp {
            cache.entries = read(&self.dir)?;
            cache.stamp = stamp;
        }
        Ok(())
    }

    fn stamp(&self) -> Result<Option<Stamp>, Error> {
        let path = self.dir.path(FILE);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) => Ok(Some(Stamp {
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io {
                action: "read",
                path,
                source,
            }),
        }
    }
}

fn read(dir: &StateDir) -> Result<Entries, Error> {
    let Some(text) = dir.read(FILE, Readers::Owner)? else {
        return Ok(Entries::new());
    };
    serde_json::from_str(&text).map_err(|error| Error::Damaged {
        path: dir.path(FILE),
        reason: error.to_string(),
    })
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::scratch::Scratch;

    fn id(account: &str) -> SpiffeId {
        SpiffeId::new("td.test", "demo", account).unwrap()
    }

    #[test]
    fn a_token_stands_for_its_identity_and_the_file_does_not_hold_it() {
        let scratch = Scratch::new();
        let dir = scratch.join("state");
        let (a, b) = (create(&dir, &id("a")).unwrap(), create(&dir, &id("b")).unwrap());
        let tokens = Tokens::open(&dir).unwrap();
        assert_eq!(tokens.identity(&a).unwrap(), Some(id("a")));
        assert_eq!(tokens.identity(&b).unwrap(), Some(id("b")));
        assert_eq!(tokens.identity("ort_guess").unwrap(), None);
        assert_eq!(tokens.identity("").unwrap(), None);
        let text = std::fs::read_to_string(dir.join(FILE)).unwrap();
        assert!(!text.contains(&a) && !text.contains(a.trim_start_matches(PREFIX)));
        assert_eq!((a.len(), a.starts_with(PREFIX)), (PREFIX.len() + 64, true));
    }

    #[test]
    fn a_token_made_or_revoked_later_counts_at_once() {
        let scratch = Scratch::new();
        let dir = scratch.join("state");
        let tokens = Tokens::open(&dir).unwrap();
        let token = create(&dir, &id("late")).unwrap();
        assert_eq!(tokens.identity(&token).unwrap(), Some(id("late")));
        std::fs::write(dir.join(FILE), "{}").unwrap();
        assert_eq!(tokens.identity(&token).unwrap(), None);
    }

    #[test]
    fn a_damaged_file_answers_nobody_and_names_its_line() {
        let scratch = Scratch::new();
        let dir = scratch.join("state");
        let token = create(&dir, &id("a")).unwrap();
        let tokens = Tokens::open(&dir).unwrap();
        std::fs::write(dir.join(FILE), "{\n  \"x\": \"no-identity\"}").unwrap();
        let error = tokens.identity(&token).unwrap_err().to_string();
        assert!(
            error.contains("tokens.json") && error.contains("line 2"),
            "{error}"
        );
        assert!(
            create(&dir, &id("b")).is_err(),
            "it must not be overwritten either"
        );
    }

    #[test]
    fn tokens_made_at_the_same_time_are_all_kept() {
        let scratch = Scratch::new();
        let dir = scratch.join("state");
        let made: Vec<(String, SpiffeId)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|n| {
                    let (dir, id) = (&dir, id(&format!("sa{n}")));
                    scope.spawn(move || (create(dir, &id).unwrap(), id))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let tokens = Tokens::open(&dir).unwrap();
        for (token, id) in made {
            assert_eq!(tokens.identity(&token).unwrap(), Some(id));
        }
    }
}
