//! Resources by every name that somebody may ask for: what a server serves, and what a client holds.
//!
//! It knows what a name means, and no stream: who is sent what is `server.rs`'s business.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::message;
use super::{Key, Kind, Resource};

/// A change of one resource.
#[derive(Clone, Debug)]
pub enum Update {
    Put(Resource),
    /// As a server has sent it: it is passed on with fields that nobody here knows.
    Received {
        resource: Resource,
        version: Arc<str>,
        encoded: Bytes,
    },
    Remove(Key),
}

/// One resource as it is served.
#[derive(Debug)]
pub struct Stored {
    pub key: Key,
    pub resource: Resource,
    pub aliases: Vec<Arc<str>>,
    /// Of its encoding, so that any replica of a server gives the same resource the same version.
    pub version: Arc<str>,
    /// As `google.protobuf.Any` holds it.
    pub encoded: Bytes,
}

/// What a change touched. Somebody who follows the store looks at these again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Resources that came, changed or went, each with every name it had before or has now.
    pub resources: HashMap<Key, HashSet<Arc<str>>>,
    /// The store can answer for names of this kind since this change for which it could not before.
    pub learnt: BTreeSet<Kind>,
}

#[derive(Debug, Default)]
pub struct Store {
    entries: HashMap<Key, Arc<Stored>>,
    /// Addresses, by alias.
    by_alias: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Workloads, by the name of a service that they stand behind.
    endpoints: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Kinds of which it has everything: what is not here does not exist.
    complete: BTreeSet<Kind>,
    /// Names of addresses for which it can answer, be it that nothing has them.
    known: HashSet<Arc<str>>,
}

impl Store {
    /// Applies changes in their order. A `Put` of what is there already touches nothing.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Update>) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            match change {
                Update::Put(resource) => self.put(resource, &mut touched),
                Update::Received {
                    resource,
                    version,
                    encoded,
                } => self.receive(resource, version, encoded, &mut touched),
                Update::Remove(key) => self.replace(&key, None, &mut touched),
            }
        }
        touched
    }

    /// Everything of this kind is here from now on: what is not does not exist.
    pub fn complete(&mut self, kind: Kind) -> Touched {
        let mut touched = Touched::default();
        if self.complete.insert(kind) {
            touched.learnt.insert(kind);
        }
        touched
    }

    pub fn is_complete(&self, kind: Kind) -> bool {
        self.complete.contains(&kind)
    }

    /// These names of addresses can be answered from now on. What has them has been applied before.
    pub fn learn(&mut self, names: impl IntoIterator<Item = Arc<str>>) -> Touched {
        let mut touched = Touched::default();
        for name in names {
            if self.known.insert(name) {
                touched.learnt.insert(Kind::Address);
            }
        }
        touched
    }

    pub fn forget(&mut self, name: &str) {
        self.known.remove(name);
    }

    /// Whether it can say what has this name, and be it nothing.
    pub fn knows(&self, kind: Kind, name: &str) -> bool {
        self.is_complete(kind) || kind == Kind::Address && self.known.contains(name)
    }

    /// Names that were asked for and answered.
    pub fn known(&self) -> impl Iterator<Item = &Arc<str>> {
        self.known.iter()
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.entries.get(key)
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Stored>> {
        self.entries
            .values()
            .filter(move |stored| stored.key.kind == kind)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What a subscription to this name of an address means: whatever has it, be it as an alias, and of a service every
    /// workload that stands behind it. What has the name comes last, so that whoever has seen it has seen all.
    pub fn related(&self, name: &str) -> Vec<&Arc<Stored>> {
        let named: Vec<_> = self.named(name).collect();
        let mut seen: HashSet<&Key> = named.iter().map(|stored| &stored.key).collect();
        let behind = named.iter().flat_map(|stored| self.behind(&stored.key.name));
        let mut related: Vec<_> = behind.filter(|stored| seen.insert(&stored.key)).collect();
        related.extend(named);
        related
    }

    /// Addresses that have this name, be it as an alias.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Stored>> {
        let direct = self.entries.get(&Key::address(name)).into_iter();
        let by_alias = self.by_alias.get(name).into_iter().flatten();
        direct.chain(by_alias.filter_map(|key| self.entries.get(key)))
    }

    /// Every name of an address whose subscription means this resource.
    pub fn names(&self, stored: &Stored) -> HashSet<Arc<str>> {
        let mut names = HashSet::from([stored.key.name.clone()]);
        names.extend(stored.aliases.iter().cloned());
        if let Resource::Workload(workload) = &stored.resource {
            for service in workload.services.keys() {
                // A service that is not there brings nobody.
                if let Some(service) = self.entries.get(&Key::service(service)) {
                    names.insert(service.key.name.clone());
                    names.extend(service.aliases.iter().cloned());
                }
            }
        }
        names
    }

    fn behind(&self, service: &str) -> impl Iterator<Item = &Arc<Stored>> {
        let keys = self.endpoints.get(service).into_iter().flatten();
        keys.filter_map(|key| self.entries.get(key))
    }

    fn put(&mut self, resource: Resource, touched: &mut Touched) {
        let unchanged = |known: &Arc<Stored>| known.resource == resource;
        if self.entries.get(&resource.key()).is_some_and(unchanged) {
            return;
        }
        let encoded = message::encode(&resource);
        self.insert(resource, version(&encoded), encoded, touched);
    }

    fn receive(&mut self, resource: Resource, version: Arc<str>, encoded: Bytes, touched: &mut Touched) {
        let unchanged = |known: &Arc<Stored>| known.version == version && known.encoded == encoded;
        if !self.entries.get(&resource.key()).is_some_and(unchanged) {
            self.insert(resource, version, encoded, touched);
        }
    }

    fn insert(&mut self, resource: Resource, version: Arc<str>, encoded: Bytes, touched: &mut Touched) {
        let key = resource.key();
        let stored = Stored {
            aliases: resource.aliases(),
            key: key.clone(),
            resource,
            version,
            encoded,
        };
        self.replace(&key, Some(Arc::new(stored)), touched);
    }

    fn replace(&mut self, key: &Key, next: Option<Arc<Stored>>, touched: &mut Touched) {
        let before = self.entries.get(key).cloned();
        let mut names = HashSet::new();
        if let Some(before) = &before {
            names.extend(self.names(before));
            self.unindex(before);
        }
        if let Some(next) = &next {
            self.entries.insert(key.clone(), next.clone());
            self.index(next);
            names.extend(self.names(next));
        }
        // Whoever asked by an address that the service gained or lost is to see its workloads come or go with it.
        let aliases = |stored: &Option<Arc<Stored>>| stored.as_ref().map(|s| s.aliases.clone());
        if key.kind == Kind::Address && aliases(&before) != aliases(&next) {
            let behind: Vec<Key> = self.behind(&key.name).map(|stored| stored.key.clone()).collect();
            for workload in behind {
                touched
                    .resources
                    .entry(workload)
                    .or_default()
                    .extend(names.iter().cloned());
            }
        }
        if before.is_some() || next.is_some() {
            touched.resources.entry(key.clone()).or_default().extend(names);
        }
    }

    fn index(&mut self, stored: &Stored) {
        for alias in &stored.aliases {
            self.by_alias
                .entry(alias.clone())
                .or_default()
                .insert(stored.key.clone());
        }
        if let Resource::Workload(workload) = &stored.resource {
            for service in workload.services.keys() {
                let name = Key::service(service).name;
                self.endpoints.entry(name).or_default().insert(stored.key.clone());
            }
        }
    }

    fn unindex(&mut self, stored: &Stored) {
        self.entries.remove(&stored.key);
        for alias in &stored.aliases {
            take(&mut self.by_alias, alias, &stored.key);
        }
        if let Resource::Workload(workload) = &stored.resource {
            for service in workload.services.keys() {
                take(&mut self.endpoints, &Key::service(service).name, &stored.key);
            }
        }
    }
}

fn take(index: &mut HashMap<Arc<str>, BTreeSet<Key>>, name: &str, key: &Key) {
    if let Some(keys) = index.get_mut(name) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(name);
        }
    }
}

/// Half a digest: two states of one resource have to differ, and nobody is kept from making them not.
fn version(encoded: &[u8]) -> Arc<str> {
    let digest = Sha256::digest(encoded);
    let half: [u8; 8] = std::array::from_fn(|n| digest[n]);
    format!("{:016x}", u64::from_be_bytes(half)).into()
}

impl Touched {
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.learnt.is_empty()
    }

    pub fn merge(&mut self, more: Touched) {
        for (key, names) in more.resources {
            self.resources.entry(key).or_default().extend(names);
        }
        self.learnt.extend(more.learnt);
    }
}
