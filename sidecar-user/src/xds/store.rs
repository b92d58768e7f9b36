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
    /// Names that the store can answer for since this change, be it that nothing has them.
    pub answered: Vec<Arc<str>>,
    /// The store can answer for every name since this change.
    pub everything: bool,
}

/// Of which names the store can say that nothing has them.
#[derive(Debug)]
enum Known {
    /// Not before the first complete view of the world.
    Nothing,
    Everything,
    Names(HashSet<Arc<str>>),
}

#[derive(Debug)]
pub struct Store {
    entries: HashMap<Key, Arc<Stored>>,
    /// Addresses, by alias.
    by_alias: HashMap<Arc<str>, BTreeSet<Key>>,
    /// Workloads, by the name of a service that they stand behind.
    endpoints: HashMap<Arc<str>, BTreeSet<Key>>,
    known: Known,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            by_alias: HashMap::new(),
            endpoints: HashMap::new(),
            known: Known::Nothing,
        }
    }
}

impl Store {
    /// Applies changes in their order. A `Put` of what is there already touches nothing.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Update>) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            match change {
                Update::Put(resource) => self.put(resource, &mut touched),
                Update::Remove(key) => self.replace(&key, None, &mut touched),
            }
        }
        touched
    }

    /// Everything is known from now on: what is not here does not exist.
    pub fn complete(&mut self) -> Touched {
        self.known = Known::Everything;
        Touched {
            everything: true,
            ..Touched::default()
        }
    }

    /// These names are known from now on. What has them must have been applied before.
    pub fn learn(&mut self, names: impl IntoIterator<Item = Arc<str>>) -> Touched {
        if let Known::Nothing = self.known {
            self.known = Known::Names(HashSet::new());
        }
        let mut touched = Touched::default();
        if let Known::Names(known) = &mut self.known {
            touched.answered = names
                .into_iter()
                .filter(|name| known.insert(name.clone()))
                .collect();
        }
        touched
    }

    pub fn forget(&mut self, name: &str) {
        if let Known::Names(known) = &mut self.known {
            known.remove(name);
        }
    }

    /// Whether the store can say what has this name, and be it nothing.
    pub fn knows(&self, name: &str) -> bool {
        match &self.known {
            Known::Nothing => false,
            Known::Everything => true,
            Known::Names(known) => known.contains(name),
        }
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
        let direct = self.entries.get(&Key::address(name)).into_iter();
        let by_alias = self.by_alias.get(name).into_iter().flatten();
        let named: Vec<_> = direct
            .chain(by_alias.filter_map(|key| self.entries.get(key)))
            .collect();
        let mut seen: HashSet<&Key> = named.iter().map(|stored| &stored.key).collect();
        let behind = named.iter().flat_map(|stored| self.behind(&stored.key.name));
        let mut related: Vec<_> = behind.filter(|stored| seen.insert(&stored.key)).collect();
        related.extend(named);
        related
    }

    /// Every name of an address whose subscription means this resource.
    pub fn names(&self, stored: &Stored) -> HashSet<Arc<str>> {
        let mut names = HashSet::from([stored.key.name.clone()]);
        names.extend(stored.aliases.iter().cloned());
        if let Resource::Workload(workload) = &stored.resource {
            for service in workload.services.keys() {
                let key = Key::service(service);
                if let Some(service) = self.entries.get(&key) {
                    names.extend(service.aliases.iter().cloned());
                }
                names.insert(key.name);
            }
        }
        names
    }

    fn behind(&self, service: &str) -> impl Iterator<Item = &Arc<Stored>> {
        let keys = self.endpoints.get(service).into_iter().flatten();
        keys.filter_map(|key| self.entries.get(key))
    }

    fn put(&mut self, resource: Resource, touched: &mut Touched) {
        let key = resource.key();
        if self
            .entries
            .get(&key)
            .is_some_and(|known| known.resource == resource)
        {
            return;
        }
        let encoded = message::encode(&resource);
        let stored = Arc::new(Stored {
            aliases: resource.aliases(),
            version: version(&encoded),
            encoded,
            resource,
            key: key.clone(),
        });
        self.replace(&key, Some(stored), touched);
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
        self.resources.is_empty() && self.answered.is_empty() && !self.everything
    }

    pub fn merge(&mut self, more: Touched) {
        for (key, names) in more.resources {
            self.resources.entry(key).or_default().extend(names);
        }
        self.answered.extend(more.answered);
        self.everything |= more.everything;
    }
}
