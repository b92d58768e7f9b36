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

use super::istio::{Changed, IstioPolicies, Problem, Reach};
use crate::kubernetes::{ObjectName, WorkloadPod};
use crate::model::authorization::PolicyName;
use crate::xds::{self, Key, Resource, Update};
use dirty::Dirty;
pub use event::{Counts, Event, Kind};
pub use names::Names;
use objects::Objects;

pub struct Catalog {
    names: Names,
    objects: Objects,
    policies: IstioPolicies,
    dirty: Dirty,
    /// Kinds that have not been listed yet.
    awaited: BTreeSet<Kind>,
    /// What has been put and not removed.
    told: HashSet<Key>,
    /// The policies that pods have been told to be selected by; without those that none selects.
    told_policies: HashMap<ObjectName, Vec<PolicyName>>,
    /// The names under which endpoints that are no pods have been told.
    told_loose: HashMap<(ObjectName, IpAddr), Key>,
}

impl Catalog {
    pub fn new(names: Names) -> Self {
        Self {
            policies: IstioPolicies::new(&names.root_namespace),
            names,
            objects: Objects::default(),
            dirty: Dirty::default(),
            awaited: Kind::ALL.into(),
            told: HashSet::new(),
            told_policies: HashMap::new(),
            told_loose: HashMap::new(),
        }
    }

    /// Removals come first, so that an address is free before it is somebody else's.
    pub fn take(&mut self, event: Event) -> Vec<Update> {
        if event.is_list() {
            self.awaited.remove(&event.kind());
        }
        let changed = match event {
            Event::Authorizations(change) => self.policies.authorization(change),
            Event::Peers(change) => self.policies.peer(change),
            event => {
                self.objects.take(event, &mut self.dirty);
                Changed::default()
            }
        };
        self.take_policies(changed);
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

    /// Pods that other policies select now are told again, and no others.
    fn take_policies(&mut self, changed: Changed) {
        let Changed { put, removed, reach } = changed;
        let policies = &mut self.dirty.policies;
        policies.extend(removed.into_iter().map(|name| (name, None)));
        policies.extend(put.into_iter().map(|policy| (policy.name.clone(), Some(policy))));
        let is_reached = |pod: &&WorkloadPod| match &reach {
            Reach::Nobody => false,
            Reach::Namespace(namespace) => pod.name.namespace == *namespace,
            Reach::Everybody => true,
        };
        if reach == Reach::Nobody {
            return;
        }
        for pod in self.objects.pods().filter(is_reached) {
            let told = self.told_policies.get(&pod.name).map_or(&[][..], Vec::as_slice);
            if self.policies.names_for(&pod.name.namespace, &pod.labels) != told {
                self.dirty.pods.insert(pod.name.clone());
            }
        }
    }

    /// What policies say that does not happen.
    pub fn problems(&self) -> Vec<Problem> {
        self.policies.problems()
    }

    fn settle(&mut self) -> Vec<Update> {
        let Dirty {
            policies,
            services,
            pods,
            endpoints,
        } = std::mem::take(&mut self.dirty);
        let mut updates = Updates::default();
        for (name, policy) in policies {
            let key = Key::authorization(&name.to_string());
            updates.tell(&mut self.told, key, policy.map(Resource::Policy));
        }
        for name in services {
            let resource = service::resource(&self.names, &self.objects, &name).map(Resource::Service);
            let key = Key::service(&self.names.service(&name));
            updates.tell(&mut self.told, key, resource);
        }
        for name in pods {
            let policies = self.select(&name);
            let resource =
                workload::of_pod(&self.names, &self.objects, &policies, &name).map(Resource::Workload);
            updates.tell(&mut self.told, Key::address(&self.names.pod_uid(&name)), resource);
        }
        self.settle_loose(endpoints, &mut updates);
        updates.in_order()
    }

    fn select(&mut self, name: &ObjectName) -> Vec<PolicyName> {
        let pod = self.objects.pod(name);
        let names = pod.map(|pod| self.policies.names_for(&name.namespace, &pod.labels));
        match names {
            Some(names) if !names.is_empty() => {
                self.told_policies.insert(name.clone(), names.clone());
                names
            }
            _ => {
                self.told_policies.remove(name);
                Vec::new()
            }
        }
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
    /// A workload that names a policy that nobody knows lets nobody in, so policies go when nobody names them any more.
    last: Vec<Update>,
}

impl Updates {
    fn tell(&mut self, told: &mut HashSet<Key>, key: Key, resource: Option<Resource>) {
        let removed = match key.kind {
            xds::Kind::Address => &mut self.removed,
            xds::Kind::Authorization => &mut self.last,
        };
        match resource {
            Some(resource) => {
                told.insert(key);
                self.put.push(Update::Put(resource));
            }
            None if told.remove(&key) => removed.push(Update::Remove(key)),
            None => {}
        }
    }

    fn in_order(mut self) -> Vec<Update> {
        self.removed.append(&mut self.put);
        self.removed.append(&mut self.last);
        self.removed
    }
}

#[cfg(test)]
mod tests;
