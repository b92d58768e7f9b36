//! Kubernetes' objects as resources of workload discovery. A machine without sockets: changes of objects go in, updates of resources
//! come out, and one change costs what depends on it, not the size of the cluster. What has been said holds until the API server
//! says otherwise: trouble with it changes nothing.
//!
//! The order in which kinds and changes arrive makes no difference to the result. It says nothing before it has seen each kind
//! once, because half a world is another one: endpoints without their pods would be dialled in plaintext.

mod dirty;
mod endpoints;
mod event;
mod index;
mod names;
mod objects;
mod service;
mod workload;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use crate::kubernetes::ObjectName;
use crate::xds::{Key, Resource, Update};
use dirty::Dirty;
pub use event::{Counts, Event, Kind};
pub use names::Names;
use objects::Objects;

pub struct Catalog {
    names: Names,
    objects: Objects,
    dirty: Dirty,
    /// Kinds that have not been listed yet.
    awaited: BTreeSet<Kind>,
    /// What has been put and not removed.
    told: HashSet<Key>,
    /// The names under which endpoints that are no pods have been told.
    told_loose: HashMap<(ObjectName, IpAddr), Key>,
}

impl Catalog {
    pub fn new(names: Names) -> Self {
        Self {
            names,
            objects: Objects::default(),
            dirty: Dirty::default(),
            awaited: Kind::ALL.into(),
            told: HashSet::new(),
            told_loose: HashMap::new(),
        }
    }

    /// Removals come first, so that an address is free before it is somebody else's.
    pub fn take(&mut self, event: Event) -> Vec<Update> {
        if event.is_list() {
            self.awaited.remove(&event.kind());
        }
        self.objects.take(event, &mut self.dirty);
        if !self.awaited.is_empty() {
            return Vec::new();
        }
        self.settle()
    }

    /// Kinds of which nothing is known yet. While there is one, nothing is said at all.
    pub fn awaited(&self) -> impl Iterator<Item = Kind> {
        self.awaited.iter().copied()
    }

    pub fn counts(&self) -> Counts {
        self.objects.counts()
    }

    fn settle(&mut self) -> Vec<Update> {
        let Dirty {
            services,
            pods,
            endpoints,
        } = std::mem::take(&mut self.dirty);
        let mut updates = Updates::default();
        for name in services {
            let resource = service::resource(&self.names, &self.objects, &name).map(Resource::Service);
            let key = Key::service(&self.names.service(&name));
            updates.tell(&mut self.told, key, resource);
        }
        for name in pods {
            let resource = workload::of_pod(&self.names, &self.objects, &name).map(Resource::Workload);
            updates.tell(&mut self.told, Key::address(&self.names.pod_uid(&name)), resource);
        }
        self.settle_loose(endpoints, &mut updates);
        updates.in_order()
    }

    /// An endpoint that is no pod is called after the first of its Service's slices that have it, which may be another one now;
    /// and that slice may be another Service's. So every name that is given up is free before one is taken.
    fn settle_loose(&mut self, endpoints: BTreeSet<(ObjectName, IpAddr)>, updates: &mut Updates) {
        let mut put = Vec::new();
        for at in endpoints {
            let workload = workload::of_endpoint(&self.names, &self.objects, &at.0, at.1);
            let key = workload.as_ref().map(|workload| Key::address(&workload.uid));
            let before = match &key {
                Some(key) => self.told_loose.insert(at, key.clone()),
                None => self.told_loose.remove(&at),
            };
            if let Some(before) = before.filter(|before| Some(before) != key.as_ref()) {
                updates.tell(&mut self.told, before, None);
            }
            put.extend(key.zip(workload));
        }
        for (key, workload) in put {
            updates.tell(&mut self.told, key, Some(Resource::Workload(workload)));
        }
    }
}

#[derive(Default)]
struct Updates {
    removed: Vec<Update>,
    put: Vec<Update>,
}

impl Updates {
    fn tell(&mut self, told: &mut HashSet<Key>, key: Key, resource: Option<Resource>) {
        match resource {
            Some(resource) => {
                told.insert(key);
                self.put.push(Update::Put(resource));
            }
            None if told.remove(&key) => self.removed.push(Update::Remove(key)),
            None => {}
        }
    }

    fn in_order(mut self) -> Vec<Update> {
        self.removed.append(&mut self.put);
        self.removed
    }
}

#[cfg(test)]
mod tests;
