//! Bootstrap tokens: each stands for exactly one identity. The CA keeps only their SHA-256, and beside it what people
//! need to tell one from another.
//!
//! A token is 256 random bits, so its plain hash tells nothing, and finding a hash in a map leaks nothing by its timing.
//! Tokens do not count their uses. `token_file.rs` says how they are written down.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::state::{Stamp, StateDir};
use super::token_file::{self, Entries, Entry, FILE};
use super::{Error, hex, random, store};
use crate::model::SpiffeId;

/// Lets secret scanners and readers of a leaked log recognise one.
const PREFIX: &str = "ort_";
/// Digits of a hash that name a token: a million tokens have two alike with a chance of one in 500.
const ID_DIGITS: usize = 12;
const MAX_LABEL: usize = 63;

/// What a new token is to be.
#[derive(Clone, Debug)]
pub struct Request {
    pub identity: SpiffeId,
    /// By which people know it; its id when they give none.
    pub label: Option<String>,
    /// Without it the token is good until it is revoked.
    pub life: Option<Duration>,
}

/// A token as people see it, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub label: String,
    pub identity: SpiffeId,
    /// Unknown for a token of a version that did not write it down.
    pub created: Option<SystemTime>,
    pub expires: Option<SystemTime>,
}

/// Whom a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub identity: SpiffeId,
    pub label: Arc<str>,
}

/// What a token is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worth {
    Good(Holder),
    Expired,
    /// Never made, or revoked.
    Unknown,
}

/// A token that was just made.
pub struct Made {
    pub id: String,
    /// Shown to nobody but whom it is for.
    pub secret: Zeroizing<String>,
}

/// Makes a token. Works before the CA was first opened, and beside a running one.
pub fn create(state_dir: &Path, request: &Request, now: SystemTime) -> Result<Made, Error> {
    let dir = StateDir::open(state_dir)?;
    let locked = dir.lock()?;
    store::check_domain(&dir, &request.identity)?;
    let mut entries = token_file::read(&dir)?;
    let secret = Zeroizing::new(format!("{PREFIX}{}", hex(&random::<32>()?)));
    let hash = hash(&secret);
    if let Some(label) = &request.label {
        check_label(label)?;
        if entries.iter().any(|(hash, entry)| entry.label(id(hash)) == label) {
            return Err(Error::Label {
                label: label.clone(),
                reason: "another token has it; revoke that one, or choose another",
            });
        }
    }
    let expires = request
        .life
        .map(|life| now.checked_add(life).unwrap_or(store::at(u64::from(u32::MAX))));
    let entry = Entry::new(request.identity.clone(), request.label.clone(), now, expires);
    let id = id(&hash).to_owned();
    entries.insert(hash, entry);
    token_file::write(&locked, &entries)?;
    Ok(Made { id, secret })
}

/// All tokens, those of one identity beside each other.
pub fn list(state_dir: &Path) -> Result<Vec<Listed>, Error> {
    let entries = token_file::read(&StateDir::existing(state_dir)?)?;
    let mut all: Vec<Listed> = entries.iter().map(|(hash, entry)| listed(hash, entry)).collect();
    all.sort_by(|a, b| (&a.identity, &a.label).cmp(&(&b.identity, &b.label)));
    Ok(all)
}

/// Takes a token's worth away, at once: the running CA looks before it signs.
pub fn revoke(state_dir: &Path, label_or_id: &str) -> Result<Listed, Error> {
    let dir = StateDir::existing(state_dir)?;
    let locked = dir.lock()?;
    let mut entries = token_file::read(&dir)?;
    let named = |hash: &str, entry: &Entry| entry.label(id(hash)) == label_or_id || id(hash) == label_or_id;
    let found = entries.iter().find(|(hash, entry)| named(hash, entry));
    let Some((hash, entry)) = found else {
        return Err(Error::NoSuchToken {
            name: label_or_id.to_owned(),
            state_dir: state_dir.to_owned(),
        });
    };
    let (hash, gone) = (hash.clone(), listed(hash, entry));
    entries.remove(&hash);
    token_file::write(&locked, &entries)?;
    Ok(gone)
}

/// A label may not look like an id: `revoke` takes either.
fn check_label(label: &str) -> Result<(), Error> {
    let fail = |reason| {
        Err(Error::Label {
            label: label.to_owned(),
            reason,
        })
    };
    let is_good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if label.is_empty() || label.len() > MAX_LABEL || !label.chars().all(is_good) {
        return fail("write up to 63 letters, digits, `.`, `_` or `-`");
    }
    if label.len() == ID_DIGITS && label.chars().all(|c| c.is_ascii_hexdigit()) {
        return fail("it looks like the id of a token");
    }
    Ok(())
}

fn listed(hash: &str, entry: &Entry) -> Listed {
    Listed {
        id: id(hash).to_owned(),
        label: entry.label(id(hash)).to_owned(),
        identity: entry.identity().clone(),
        created: entry.created(),
        expires: entry.expires(),
    }
}

fn id(hash: &str) -> &str {
    hash.get(..ID_DIGITS).unwrap_or(hash)
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token))
}

/// The tokens of a state directory as they are now: a token made or revoked counts at the next question.
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

impl Tokens {
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let tokens = Self {
            dir: StateDir::open(state_dir)?,
            cache: Mutex::default(),
        };
        tokens.refresh(&mut Cache::default())?;
        Ok(tokens)
    }

    /// Whom the token stands for. An unreadable file is an error, never an old answer: the token may just have been
    /// revoked.
    pub fn worth(&self, token: &str, now: SystemTime) -> Result<Worth, Error> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut cache)?;
        let hash = hash(token);
        Ok(match cache.entries.get(&hash) {
            None => Worth::Unknown,
            Some(entry) if entry.expires().is_some_and(|end| end <= now) => Worth::Expired,
            Some(entry) => Worth::Good(Holder {
                identity: entry.identity().clone(),
                label: entry.label(id(&hash)).into(),
            }),
        })
    }

    /// How many are good, and how many have expired and are still listed.
    pub fn count(&self, now: SystemTime) -> Result<(usize, usize), Error> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut cache)?;
        let has_expired = |entry: &&Entry| entry.expires().is_some_and(|end| end <= now);
        let expired = cache.entries.values().filter(has_expired).count();
        Ok((cache.entries.len() - expired, expired))
    }

    fn refresh(&self, cache: &mut Cache) -> Result<(), Error> {
        let stamp = self.dir.stamp(FILE)?;
        if stamp != cache.stamp {
            cache.entries = token_file::read(&self.dir)?;
            cache.stamp = stamp;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
