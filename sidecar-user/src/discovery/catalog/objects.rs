//! The objects as they are, with what finds one from the other; says what a change of one makes dirty.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::dirty::Dirty;
use super::endpoints::{Effects, Endpoints};
use super::event::{Counts, Event};
use super::index::Index;
use crate::kubernetes::{Change, Node, ObjectName, Service, Slice, WorkloadPod};

#[derive(Default)]
pub(super) struct Objects {
    nodes: HashMap<Arc<str>, Node>,
    pods: HashMap<ObjectName, WorkloadPod>,
    services: HashMap<ObjectName, Service>,
    slices: HashMap<ObjectName, Arc<Slice>>,
    /// By Service, be it there or not yet.
    endpoints: HashMap<ObjectName, Endpoints>,
    /// The Services with an endpoint at an address.
    serving_at: Index<IpAddr, ObjectName>,
    /// The pods with an address, without those that have their node's.
    pods_at: Index<IpAddr, ObjectName>,
    pods_on: Index<Arc<str>, ObjectName>,
}

impl Objects {
    pub(super) fn take(&mut self, event: Event, dirty: &mut Dirty) {
        match event {
            Event::Nodes(change) => {
                for (name, node) in versions(change, self.nodes.keys(), |node| node.name.clone()) {
                    self.set_node(name, node, dirty);
                }
            }
            Event::Pods(change) => {
                for (name, pod) in versions(change, self.pods.keys(), |pod| pod.name.clone()) {
                    self.set_pod(name, pod.filter(|pod| !pod.finished), dirty);
                }
            }
            Event::Services(change) => {
                for (name, service) in versions(change, self.services.keys(), |service| service.name.clone())
                {
                    self.set_service(name, service, dirty);
                }
            }
            Event::Slices(change) => {
                for (name, slice) in versions(change, self.slices.keys(), |slice| slice.name.clone()) {
                    self.set_slice(name, slice.map(Arc::new), dirty);
                }
            }
            // They say something of pods, and are none of theirs.
            Event::Authorizations(_) | Event::Peers(_) => {}
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            nodes: self.nodes.len(),
            pods: self.pods.len(),
            services: self.services.len(),
            slices: self.slices.len(),
        }
    }

    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &WorkloadPod> {
        self.pods.values()
    }

    pub(super) fn pod(&self, name: &ObjectName) -> Option<&WorkloadPod> {
        self.pods.get(name)
    }

    pub(super) fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    pub(super) fn endpoints(&self, service: &ObjectName) -> Option<&Endpoints> {
        self.endpoints.get(service)
    }

    /// The Services with an endpoint at this address, and their endpoints.
    pub(super) fn serving_at(&self, address: IpAddr) -> impl Iterator<Item = (&Service, &Endpoints)> {
        let services = self.serving_at.of(&address).iter();
        services.filter_map(|name| Some((self.services.get(name)?, self.endpoints.get(name)?)))
    }

    /// The pod whose address this is. When it is given to a new pod, the object of the old one may still be there for a moment.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&ObjectName> {
        let pods = self.pods_at.of(&address).iter();
        pods.min_by_key(|name| !self.pods.get(*name).is_some_and(|pod| pod.ready))
    }

    fn set_node(&mut self, name: Arc<str>, new: Option<Node>, dirty: &mut Dirty) {
        if self.nodes.get(&name) == new.as_ref() {
            return;
        }
        dirty.pods.extend(self.pods_on.of(&name).iter().cloned());
        replace(&mut self.nodes, name, new);
    }

    fn set_pod(&mut self, name: ObjectName, new: Option<WorkloadPod>, dirty: &mut Dirty) {
        let old = self.pods.get(&name);
        if old == new.as_ref() {
            return;
        }
        let own = |pod: Option<&WorkloadPod>| match pod {
            Some(pod) if !pod.host_network => pod.addresses.clone(),
            _ => Vec::new(),
        };
        let on = |pod: Option<&WorkloadPod>| pod.map(|pod| pod.node.clone());
        let (had, has) = (own(old), own(new.as_ref()));
        let (left, came) = (on(old), on(new.as_ref()));
        let moved = had != has || old.map(|pod| pod.ready) != new.as_ref().map(|pod| pod.ready);
        replace(&mut self.pods, name.clone(), new);
        for address in &had {
            self.pods_at.remove(address, &name);
        }
        for address in &has {
            self.pods_at.add(*address, name.clone());
        }
        if left != came {
            if let Some(left) = left {
                self.pods_on.remove(&left, &name);
            }
            if let Some(came) = came {
                self.pods_on.add(came, name.clone());
            }
        }
        // Whose address it is decides what an endpoint is that names no pod.
        for address in had.iter().chain(&has).filter(|_| moved) {
            dirty.pods.extend(self.pods_at.of(address).iter().cloned());
            let services = self.serving_at.of(address).iter();
            dirty
                .endpoints
                .extend(services.map(|service| (service.clone(), *address)));
        }
        dirty.pods.insert(name);
    }

    fn set_service(&mut self, name: ObjectName, new: Option<Service>, dirty: &mut Dirty) {
        let old = self.services.get(&name);
        if old == new.as_ref() {
            return;
        }
        // What endpoints are told of their Service.
        let told = |service: &Service| {
            let ports = service.ports.iter().map(|port| (port.name.clone(), port.port));
            (
                service.external_name,
                service.publish_not_ready,
                ports.collect::<Vec<_>>(),
            )
        };
        if old.map(told) != new.as_ref().map(told) {
            let endpoints = self.endpoints.get(&name);
            let addresses: Vec<IpAddr> = endpoints.into_iter().flat_map(Endpoints::addresses).collect();
            for address in addresses {
                self.touch(&name, address, dirty);
            }
        }
        replace(&mut self.services, name.clone(), new);
        dirty.services.insert(name);
    }

    fn set_slice(&mut self, name: ObjectName, new: Option<Arc<Slice>>, dirty: &mut Dirty) {
        let old = self.slices.get(&name).cloned();
        if old == new {
            return;
        }
        let of = |slice: Option<&Arc<Slice>>| slice.and_then(|slice| slice.service.clone());
        let (left, came) = (of(old.as_ref()), of(new.as_ref()));
        let service = |service: Option<Arc<str>>| {
            service.map(|service| ObjectName {
                namespace: name.namespace.clone(),
                name: service,
            })
        };
        if left == came {
            self.replace_slice(service(came), old.as_ref(), new.as_ref(), dirty);
        } else {
            self.replace_slice(service(left), old.as_ref(), None, dirty);
            self.replace_slice(service(came), None, new.as_ref(), dirty);
        }
        replace(&mut self.slices, name, new);
    }

    fn replace_slice(
        &mut self,
        service: Option<ObjectName>,
        old: Option<&Arc<Slice>>,
        new: Option<&Arc<Slice>>,
        dirty: &mut Dirty,
    ) {
        let Some(service) = service else {
            return;
        };
        let endpoints = self.endpoints.entry(service.clone()).or_default();
        let Effects {
            addresses,
            pods,
            hints,
        } = endpoints.replace(old, new);
        let has: Vec<_> = addresses
            .iter()
            .map(|address| (*address, endpoints.has(*address)))
            .collect();
        if endpoints.is_empty() {
            self.endpoints.remove(&service);
        }
        for (address, has) in has {
            match has {
                true => self.serving_at.add(address, service.clone()),
                false => self.serving_at.remove(&address, &service),
            }
            self.touch(&service, address, dirty);
        }
        dirty.pods.extend(pods.into_iter().map(|pod| ObjectName {
            namespace: service.namespace.clone(),
            name: pod,
        }));
        if hints {
            dirty.services.insert(service);
        }
    }

    /// Whoever is this endpoint of the Service.
    fn touch(&self, service: &ObjectName, address: IpAddr, dirty: &mut Dirty) {
        dirty.endpoints.insert((service.clone(), address));
        dirty.pods.extend(self.pods_at.of(&address).iter().cloned());
        let endpoints = self.endpoints.get(service);
        let names = endpoints
            .into_iter()
            .flat_map(|endpoints| endpoints.names(address));
        dirty.pods.extend(names.map(|name| ObjectName {
            namespace: service.namespace.clone(),
            name,
        }));
    }
}

/// Each object that a change speaks of, as it is now; `None`: it is gone.
fn versions<'k, K, N: Clone + Eq + Hash + 'k>(
    change: Change<K>,
    known: impl Iterator<Item = &'k N>,
    name: impl Fn(&K) -> N,
) -> Vec<(N, Option<K>)> {
    match change {
        Change::All(all) => {
            let mut gone: HashSet<N> = known.cloned().collect();
            let mut versions = Vec::with_capacity(all.len());
            for one in all {
                let name = name(&one);
                gone.remove(&name);
                versions.push((name, Some(one)));
            }
            versions.extend(gone.into_iter().map(|name| (name, None)));
            versions
        }
        Change::Applied(one) => vec![(name(&one), Some(one))],
        Change::Gone(one) => vec![(name(&one), None)],
        Change::Trouble(_) => Vec::new(),
    }
}

fn replace<N: Eq + Hash, K>(known: &mut HashMap<N, K>, name: N, new: Option<K>) {
    match new {
        Some(new) => known.insert(name, new),
        None => known.remove(&name),
    };
}
