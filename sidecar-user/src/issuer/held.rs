//! The authority where its state is kept for it, in the memory of this process and by somebody else: a Secret of a cluster, which
//! `control/` reads, makes and follows. No file is written.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tracing::info;
use zeroize::Zeroizing;

use super::root::{RootKey, SigningRoot};
use super::store::{Cache, Files, Store, Times};
use super::{Ca, Error};

/// As somebody keeps it, under the names that the files of a state directory have too.
#[derive(Clone)]
pub struct Material {
    /// `root-cert.pem`: one root, or two of which the first one signs.
    pub roots: String,
    /// `root-key.pem`.
    pub key: Zeroizing<String>,
    /// `next-root-key.pem`, while there are two.
    pub next_key: Option<Zeroizing<String>>,
    /// `rotation.json`. `None`: nobody has noted anything yet.
    pub times: Option<String>,
}

impl Material {
    pub const ROOTS: &str = super::store::ROOTS;
    pub const KEY: &str = super::store::KEY;
    pub const NEXT_KEY: &str = super::store::NEXT_KEY;
    pub const TIMES: &str = super::store::TIMES;

    /// A new root.
    pub fn fresh(trust_domain: &str) -> Result<Self, Error> {
        let key = RootKey::generate()?;
        let pem = key.pem();
        let root = SigningRoot::generate(key, trust_domain, SystemTime::now())?;
        Ok(Self {
            roots: root.cert.pem(),
            key: pem,
            next_key: None,
            times: None,
        })
    }

    pub(super) fn files(&self) -> Result<Files, Error> {
        let parse = |key: &'static str, pem: &str| RootKey::parse(pem).map_err(|reason| bad((key, reason)));
        let elder = parse(Self::KEY, &self.key)?;
        let younger = self.next_key.as_ref().map(|pem| parse(Self::NEXT_KEY, pem));
        let times = self.times.as_deref().map(Times::parse).transpose();
        let times = times.map_err(|reason| bad((Self::TIMES, reason)))?;
        Files::check(
            &self.roots,
            elder,
            younger.transpose()?,
            times.unwrap_or_default(),
        )
        .map_err(bad)
    }

    fn ca(&self, trust_domain: &str, leaf_ttl: Duration) -> Result<Ca, Error> {
        let files = self.files()?;
        let found = &files.roots[0].trust_domain;
        if found != trust_domain {
            let reason =
                format!("it is the root of trust domain `{found}`, and trustDomain is `{trust_domain}`");
            return Err(bad((Self::ROOTS, reason)));
        }
        let noted = super::store::at(files.times.leaves_end);
        Ok(files.into_ca(leaf_ttl).map_err(bad)?.until(noted))
    }
}

fn bad((key, reason): (&str, String)) -> Error {
    Error::Kept {
        key: key.to_owned(),
        reason,
    }
}

impl Store {
    pub fn held(material: &Material, trust_domain: &str, leaf_ttl: Duration) -> Result<Self, Error> {
        let ca = material.ca(trust_domain, leaf_ttl)?;
        Ok(Self {
            dir: None,
            leaf_ttl,
            cache: Mutex::new(Cache {
                ca: Arc::new(ca),
                stamp: None,
                // The authority itself signs nothing beyond what is noted.
                leaves_end: super::store::at(u64::from(u32::MAX)),
            }),
            failures: Default::default(),
        })
    }

    /// What is kept has changed. What cannot be used is refused as a whole: the last good one stays in force.
    pub fn replace(&self, material: &Material) -> Result<(), Error> {
        let domain = self.current().trust_domain().to_owned();
        let ca = match material.ca(&domain, self.leaf_ttl) {
            Ok(ca) => ca,
            Err(error) => {
                self.count_failure();
                return Err(error);
            }
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.ca.bundle() != ca.bundle() {
            info!(
                signer = ca.fingerprint(),
                roots = ca.roots(),
                "the roots have changed"
            );
        }
        cache.ca = Arc::new(ca);
        Ok(())
    }

    /// Whether [`Material::noted`] has something to note about certificates.
    pub fn is_note_due(&self, now: SystemTime) -> bool {
        let ca = self.current();
        ca.latest() < ca.ends() && super::store::is_behind(ca.latest(), self.leaf_ttl, now)
    }

    pub fn leaf_ttl(&self) -> Duration {
        self.leaf_ttl
    }

    /// What is kept could not be read, or what there is to note not be written.
    pub fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn signer(store: &Store) -> String {
        store.current().fingerprint()
    }

    #[test]
    fn two_who_hold_the_same_sign_with_the_same_root() {
        let material = Material::fresh("td.test").unwrap();
        let [a, b] = [(); 2].map(|()| Store::held(&material, "td.test", HOUR).unwrap());
        assert_eq!(signer(&a), signer(&b));
        assert_eq!(a.current().bundle(), material.roots);
    }

    #[test]
    fn another_root_is_taken_up_and_a_damaged_one_is_refused_as_a_whole() {
        let [first, second] = [(); 2].map(|()| Material::fresh("td.test").unwrap());
        let store = Store::held(&first, "td.test", HOUR).unwrap();
        let before = signer(&store);
        let both = format!("{}{}", first.roots, second.roots);
        for (roots, key, reason) in [
            (
                second.roots.clone(),
                &first.key,
                "does not belong to root-key.pem",
            ),
            (both.clone(), &first.key, "belongs to no key"),
            (first.roots.replace('M', "N"), &first.key, "root-cert.pem"),
            (String::new(), &first.key, "no certificate"),
            (
                first.roots.clone(),
                &Zeroizing::new("junk".to_owned()),
                "root-key.pem",
            ),
        ] {
            let damaged = Material {
                roots,
                key: key.clone(),
                next_key: None,
                times: None,
            };
            let error = store.replace(&damaged).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
            assert_eq!(signer(&store), before);
        }
        assert_eq!(store.failures(), 5);
        let other = Material::fresh("other.test").unwrap();
        assert!(store.replace(&other).is_err(), "of another trust domain");
        store.replace(&second).unwrap();
        assert_ne!(signer(&store), before);
        let rotating = Material {
            roots: both,
            key: first.key,
            next_key: Some(second.key),
            times: None,
        };
        store.replace(&rotating).unwrap();
        assert_eq!((signer(&store), store.current().roots()), (before, 2));
    }
}
