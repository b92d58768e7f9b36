//! The authority's files: roots and keys in the state directory, read again whenever a rotation has changed them.
//!
//! `root-cert.pem` alone says who signs and who is trusted: one root, or two of which the first one signs. Every step of
//! a rotation (`rotation.rs`) takes effect by replacing that file, so a crash leaves the state before or after the step.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::ca::{Ca, Issued};
use super::pod_certificate::{PodCertificate, PodRefusal, PodRequest};
use super::root::{RootCert, RootKey, SigningRoot};
use super::sign::Refusal;
use super::state::{Locked, Readers, Stamp, StateDir};
use super::{Config, Error};
use crate::model::SpiffeId;

/// The roots to trust, the one that signs first.
pub(super) const ROOTS: &str = "root-cert.pem";
/// The key of the elder root, and between rotations of the only one.
pub(super) const KEY: &str = "root-key.pem";
/// The key of the younger root, during a rotation.
pub(super) const NEXT_KEY: &str = "next-root-key.pem";
/// What a rotation waits for.
pub(super) const TIMES: &str = "rotation.json";

/// The authority of a state directory, as it is now.
pub struct Store {
    /// `None`: somebody else keeps the authority (`held.rs`).
    pub(super) dir: Option<StateDir>,
    pub(super) leaf_ttl: Duration,
    pub(super) cache: Mutex<Cache>,
    pub(super) failures: AtomicU64,
}

pub(super) struct Cache {
    pub(super) ca: Arc<Ca>,
    pub(super) stamp: Option<Stamp>,
    /// What is on the disk, or should be.
    pub(super) leaves_end: SystemTime,
}

/// The file that is damaged, and how.
pub(super) type Bad = (&'static str, String);

/// What a rotation waits for, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Times {
    /// No leaf that was ever issued lives longer than this.
    pub(super) leaves_end: u64,
    /// From then on every workload has been told of both roots.
    pub(super) bundles_at: u64,
    /// From then on no leaf of the root that does not sign lives any more.
    pub(super) other_leaves_at: u64,
    /// Where the control process publishes the roots: it has not published both yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unpublished: bool,
}

/// The files, checked.
pub(super) struct Files {
    /// The one that signs first.
    pub(super) roots: Vec<RootCert>,
    pub(super) signer: RootKey,
    /// The key of the other root, if there is one.
    pub(super) other: Option<RootKey>,
    /// The younger root signs.
    pub(super) switched: bool,
    pub(super) times: Times,
}

impl Store {
    /// Loads the root from the state directory, or makes one where there is none.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let dir = StateDir::open(&config.state_dir)?;
        let locked = dir.lock()?;
        let fresh = dir.stamp(ROOTS)?.is_none();
        if fresh {
            make(&dir, &locked, &config.trust_domain)?;
        }
        if dir.stamp(TIMES)?.is_none() {
            // An older version may have signed leaves here until now, and has not noted their end.
            let longest = SystemTime::now() + config.leaf_ttl;
            let leaves_end = if fresh { 0 } else { seconds(longest) };
            let times = Times {
                leaves_end,
                ..Times::default()
            };
            times.write(&locked)?;
        }
        let stamp = dir.stamp(ROOTS)?;
        let files = Files::read(&dir)?;
        files.tidy(&locked)?;
        let first = &files.roots[0];
        if first.trust_domain != config.trust_domain {
            return Err(Error::TrustDomain {
                path: dir.path(ROOTS),
                found: first.trust_domain.clone(),
                wanted: config.trust_domain.clone(),
            });
        }
        let leaves_end = at(files.times.leaves_end);
        let ca = files.into_ca(config.leaf_ttl).map_err(damaged_in(&dir))?;
        let ca = Arc::new(ca);
        drop(locked);
        Ok(Self {
            dir: Some(dir),
            leaf_ttl: config.leaf_ttl,
            cache: Mutex::new(Cache {
                ca,
                stamp,
                leaves_end,
            }),
            failures: AtomicU64::default(),
        })
    }

    /// The authority as the files say. Files that cannot be read change nothing: the last good ones stay in force.
    pub fn current(&self) -> Arc<Ca> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut cache);
        cache.ca.clone()
    }

    /// Signs with the authority of this moment; gives its bundle, too. No leaf leaves before the disk knows how long
    /// leaves may live, because a rotation waits for their end.
    pub fn issue(
        &self,
        csr: &str,
        identity: &SpiffeId,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<(Issued, Arc<Ca>), Refusal> {
        self.sign(|ca| ca.issue(csr, identity, ttl, now), |issued| issued.not_after)
    }

    /// The same for a key that a kubelet has made; `chance` is from 0 to 1.
    pub fn issue_for_pod(
        &self,
        request: &PodRequest<'_>,
        now: SystemTime,
        chance: f64,
    ) -> Result<PodCertificate, PodRefusal> {
        let now = at(seconds(now));
        let signed = self.sign(
            |ca| ca.issue_for_pod(request, now, chance),
            |signed| signed.issued.not_after,
        );
        signed.map(|(signed, _)| signed)
    }

    fn sign<T, E>(
        &self,
        sign: impl Fn(&Ca) -> Result<T, E>,
        end: impl Fn(&T) -> SystemTime,
    ) -> Result<(T, Arc<Ca>), E> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.refresh(&mut cache);
            let signed = sign(&cache.ca)?;
            if end(&signed) <= cache.leaves_end || self.note_end(&mut cache, end(&signed)) {
                return Ok((signed, cache.ca.clone()));
            }
        }
    }

    /// How often the files could not be read or written.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    fn refresh(&self, cache: &mut Cache) {
        let Some(dir) = &self.dir else { return };
        let stamp = match dir.stamp(ROOTS) {
            Ok(stamp) if stamp == cache.stamp => return,
            Ok(stamp) => stamp,
            Err(error) => return self.failed(&error),
        };
        let read = Files::read(dir).and_then(|files| {
            let leaves_end = at(files.times.leaves_end);
            let ca = files.into_ca(self.leaf_ttl).map_err(damaged_in(dir))?;
            Ok((ca, leaves_end))
        });
        // A bad version is told of once, and read again when it changes.
        cache.stamp = stamp;
        match read {
            Ok((ca, leaves_end)) => {
                info!(
                    signer = ca.fingerprint(),
                    roots = ca.roots(),
                    "the roots have changed"
                );
                cache.ca = Arc::new(ca);
                cache.leaves_end = leaves_end.max(cache.leaves_end);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &Error) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        error!(%error, "the roots cannot be read; those that were read last stay in force");
    }

    /// Writes down that leaves live until then, and a while longer, so that not every leaf costs a write. `false`: a
    /// rotation has just changed the roots; sign again.
    fn note_end(&self, cache: &mut Cache, not_after: SystemTime) -> bool {
        let Some(dir) = &self.dir else { return true };
        let end = not_after + self.leaf_ttl / 8;
        let noted = dir.lock().and_then(|locked| {
            if dir.stamp(ROOTS)? != cache.stamp {
                return Ok(false);
            }
            let mut times = Times::read(dir)?;
            times.leaves_end = times.leaves_end.max(seconds(end));
            times.write(&locked)?;
            Ok(true)
        });
        match noted {
            Ok(noted) => {
                if noted {
                    cache.leaves_end = end;
                }
                noted
            }
            // A full disk must not end the mesh: the next leaf tries again.
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                warn!(%error, "the end of the leaves cannot be written down; a rotation could come too early");
                true
            }
        }
    }
}

/// The first root. Its key is written first, so a crash between the two leaves a key that has signed nothing.
fn make(dir: &StateDir, locked: &Locked<'_>, trust_domain: &str) -> Result<(), Error> {
    let key = match dir.read(KEY, Readers::Owner)? {
        Some(pem) => RootKey::parse(&pem).map_err(|reason| damaged(&dir.path(KEY), reason))?,
        None => {
            let key = RootKey::generate()?;
            locked.write(KEY, Readers::Owner, &key.pem())?;
            key
        }
    };
    let root = SigningRoot::generate(key, trust_domain, SystemTime::now())?;
    locked.write(ROOTS, Readers::Everyone, &root.cert.pem())
}

impl Files {
    pub(super) fn read(dir: &StateDir) -> Result<Self, Error> {
        let missing = |name, reason: &str| damaged(&dir.path(name), reason);
        let roots = dir
            .read(ROOTS, Readers::Everyone)?
            .ok_or_else(|| missing(ROOTS, "it is missing, but a key is there"))?;
        let key = |name| match dir.read(name, Readers::Owner)? {
            Some(pem) => RootKey::parse(&pem)
                .map(Some)
                .map_err(|reason| damaged(&dir.path(name), reason)),
            None => Ok(None),
        };
        let (elder, younger) = (key(KEY)?, key(NEXT_KEY)?);
        let elder = elder.ok_or_else(|| missing(KEY, "it is missing, but its certificate is there"))?;
        Self::check(&roots, elder, younger, Times::read(dir)?).map_err(damaged_in(dir))
    }

    /// Of the text of [`ROOTS`] and the keys that are there.
    pub(super) fn check(
        roots: &str,
        elder: RootKey,
        younger: Option<RootKey>,
        times: Times,
    ) -> Result<Self, Bad> {
        let bad = |reason: String| (ROOTS, reason);
        let roots = RootCert::parse_all(roots).map_err(bad)?;
        if roots.len() > 2 {
            return Err(bad(format!("it holds {} roots, at most 2", roots.len())));
        }
        let (signer, other, switched) = match younger {
            Some(younger) if roots[0].belongs_to(&younger) => (younger, Some(elder), true),
            younger if roots[0].belongs_to(&elder) => (elder, younger, false),
            _ => return Err(bad(format!("its first root does not belong to {KEY}"))),
        };
        if let Some(second) = roots.get(1)
            && !other.as_ref().is_some_and(|key| second.belongs_to(key))
        {
            return Err(bad("its second root belongs to no key here".into()));
        }
        if roots[0].ends <= SystemTime::now() {
            return Err(bad("its first root has expired".into()));
        }
        Ok(Self {
            times,
            roots,
            signer,
            other,
            switched,
        })
    }

    /// Finishes what a step began after its root file was in place: with one root there is one key, in its usual place.
    pub(super) fn tidy(&self, locked: &Locked<'_>) -> Result<(), Error> {
        if self.roots.len() > 1 {
            return Ok(());
        }
        if self.switched {
            locked.write(KEY, Readers::Owner, &self.signer.pem())?;
        }
        locked.remove(NEXT_KEY)
    }

    pub(super) fn into_ca(self, leaf_ttl: Duration) -> Result<Ca, Bad> {
        let load = |cert, key| SigningRoot::load(cert, key).map_err(|reason| (ROOTS, reason));
        let mut roots = self.roots.into_iter();
        let first = roots.next().expect("a bundle that was read holds a root");
        let others: Vec<RootCert> = roots.collect();
        let elder = match (self.switched, others.first(), self.other) {
            (true, Some(other), Some(key)) => Some(load(other.clone(), key)?),
            _ => None,
        };
        Ok(Ca::new(load(first, self.signer)?, elder, &others, leaf_ttl))
    }
}

impl Times {
    pub(super) fn read(dir: &StateDir) -> Result<Self, Error> {
        let Some(text) = dir.read(TIMES, Readers::Owner)? else {
            return Err(Error::NeverOpened {
                path: dir.path(TIMES),
            });
        };
        Self::parse(&text).map_err(|reason| damaged(&dir.path(TIMES), reason))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    pub(super) fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers always serialize");
        text.push('\n');
        text
    }

    pub(super) fn write(&self, locked: &Locked<'_>) -> Result<(), Error> {
        locked.write(TIMES, Readers::Owner, &self.text())
    }
}

/// Refuses an identity of another trust domain than that of the root in `dir`, where there is one yet.
pub(super) fn check_domain(dir: &StateDir, identity: &SpiffeId) -> Result<(), Error> {
    let Some(pem) = dir.read(ROOTS, Readers::Everyone)? else {
        return Ok(());
    };
    let path = dir.path(ROOTS);
    let roots = RootCert::parse_all(&pem).map_err(|reason| damaged(&path, reason))?;
    let trust_domain = roots[0].trust_domain.clone();
    if identity.trust_domain() != trust_domain {
        return Err(Error::ForeignIdentity {
            identity: identity.clone(),
            trust_domain,
            path,
        });
    }
    Ok(())
}

/// Whether leaves could soon outlive what is noted of them: it is to be ahead of a whole life by a sixteenth.
pub(super) fn is_behind(noted: SystemTime, leaf_ttl: Duration, now: SystemTime) -> bool {
    noted < now + leaf_ttl + leaf_ttl / 16
}

/// Rounded up, so that no end is taken for earlier than it is.
pub(super) fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() + u64::from(since.subsec_nanos() > 0)
}

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn damaged_in(dir: &StateDir) -> impl FnOnce(Bad) -> Error {
    |(name, reason)| damaged(&dir.path(name), reason)
}

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        reason: reason.into(),
    }
}
