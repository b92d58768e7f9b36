//! The world at one moment: every service and workload, indexed by what a connection asks for.
//!
//! Immutable once built. A connection reads one snapshot, once, and so sees one world. How it is filled is
//! `discovery/`'s business; how an endpoint is chosen is `route/`'s.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::authorization::{Policy, PolicyName};
use super::identity::SpiffeId;
use super::policies::Policies;
use super::service::{Service, ServiceName};
use super::workload::{Locality, Location, Own, Workload};

pub use super::endpoint::{DialFailures, Endpoint, Load, LoadGuard};
pub use super::known::Usage;
pub use super::policies::{Applicable, Standing};

/// The services that a workload stands behind, each with its map from service port to target port.
pub type Serves = BTreeMap<ServiceName, BTreeMap<u16, u16>>;

#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up by one with each accepted change; 0 is the empty world before the first.
    pub generation: u64,
    services: BTreeMap<ServiceName, (Arc<Service>, Vec<Endpoint>)>,
    /// Mostly one each.
    by_vip: HashMap<IpAddr, Vec<ServiceName>>,
    by_hostname: HashMap<Arc<str>, Vec<ServiceName>>,
    by_address: HashMap<IpAddr, (Arc<Workload>, Arc<Load>)>,
    /// Workloads that an address of theirs does not tell, because others have it, too.
    sharing: HashMap<IpAddr, Vec<Arc<Workload>>>,
    /// All workloads, by namespace and name.
    by_name: Vec<Arc<Workload>>,
    behind_waypoint: HashSet<IpAddr>,
    policies: Policies,
    /// Addresses that were asked for and answered, where the source of this tells no others; `None`: it tells everything.
    known: Option<HashMap<IpAddr, Arc<Usage>>>,
}

impl Snapshot {
    /// Indexes services with their endpoints, and workloads. `before` lends its load counters, so that balancing
    /// does not forget open connections when the registry changes. Later entries win over earlier ones of the
    /// same key; refusing duplicates is the source's duty, which knows the line to name.
    pub fn build(before: &Snapshot, services: Vec<Service>, workloads: Vec<(Workload, Serves)>) -> Self {
        let endpoints = before.services.values().flat_map(|(_, endpoints)| endpoints);
        let loads: HashMap<&str, &Arc<Load>> = before
            .by_address
            .values()
            .map(|(w, load)| (w.uid.as_str(), load))
            .chain(endpoints.map(|e| (e.workload.uid.as_str(), &e.load)))
            .collect();
        let mut next = Snapshot {
            generation: before.generation + 1,
            ..Snapshot::default()
        };
        for service in services {
            let name = service.name.clone();
            for vip in &service.vips {
                next.by_vip
                    .entry(vip.to_canonical())
                    .or_default()
                    .push(name.clone());
            }
            next.by_hostname
                .entry(name.hostname.clone())
                .or_default()
                .push(name.clone());
            next.services.insert(name, (Arc::new(service), Vec::new()));
        }
        for (workload, serves) in workloads {
            let load = loads
                .get(workload.uid.as_str())
                .map(|l| (*l).clone())
                .unwrap_or_default();
            let workload = Arc::new(workload);
            next.by_name.push(workload.clone());
            for address in &workload.addresses {
                next.by_address
                    .insert(address.to_canonical(), (workload.clone(), load.clone()));
            }
            for (name, ports) in serves {
                if let Some((_, endpoints)) = next.services.get_mut(&name) {
                    endpoints.push(Endpoint {
                        workload: workload.clone(),
                        ports,
                        load: load.clone(),
                    });
                }
            }
        }
        for (service, endpoints) in next.services.values_mut() {
            service.balancing.sort(endpoints);
        }
        next.by_name
            .sort_by(|a, b| (&a.namespace, a.pod()).cmp(&(&b.namespace, b.pod())));
        next
    }

    /// Adds the policies, and by workload uid its namespace and the names of those that it selects. `before` lends those
    /// that have not changed, so that this can be seen by their pointers.
    pub fn with_policies(
        mut self,
        before: &Snapshot,
        policies: Vec<Policy>,
        selects: HashMap<String, (String, Vec<PolicyName>)>,
    ) -> Self {
        self.policies = Policies::new(&before.policies, policies, selects);
        self
    }

    /// Takes these addresses out of the index by address: several workloads share them, so that an address does
    /// not tell which one is meant. As endpoints of services the workloads stay.
    pub fn without_addresses(mut self, shared: impl IntoIterator<Item = IpAddr>) -> Self {
        for address in shared {
            self.by_address.remove(&address.to_canonical());
        }
        for workload in &self.by_name {
            for address in &workload.addresses {
                let address = address.to_canonical();
                let owner = self.by_address.get(&address).map(|(owner, _)| owner);
                if owner.is_none_or(|owner| owner.uid != workload.uid) {
                    self.sharing.entry(address).or_default().push(workload.clone());
                }
            }
        }
        self
    }

    /// Marks addresses that may be reached only through a waypoint.
    pub fn with_waypoints(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.behind_waypoint
            .extend(addresses.into_iter().map(|ip| ip.to_canonical()));
        self
    }

    /// Of a source that is asked for each address: these have been.
    pub fn with_known(mut self, known: HashMap<IpAddr, Arc<Usage>>) -> Self {
        self.known = Some(known);
        self
    }

    /// Whether this world says all that there is to say about the address, which counts as a use of it. Else its source has
    /// to be asked.
    pub fn knows(&self, ip: IpAddr) -> bool {
        let Some(known) = &self.known else {
            return true;
        };
        match known.get(&ip.to_canonical()) {
            Some(usage) => {
                usage.mark();
                true
            }
            None => ip.is_loopback(),
        }
    }

    /// The same, for whoever only looks: it counts as no use.
    pub fn has_heard_of(&self, ip: IpAddr) -> bool {
        let known = self.known.as_ref();
        known.is_none_or(|known| known.contains_key(&ip.to_canonical()))
    }

    /// Whether this world says all that there is to say about every address.
    pub fn knows_everything(&self) -> bool {
        self.known.is_none()
    }

    /// Whether traffic to this virtual or workload address has to pass a waypoint. Going around it would go
    /// around the rules it enforces.
    pub fn is_behind_waypoint(&self, ip: IpAddr) -> bool {
        self.behind_waypoint.contains(&ip.to_canonical())
    }

    pub fn policies_for(&self, workload: &Workload) -> Applicable<'_> {
        self.policies.of(workload)
    }

    /// The policies that speak about every workload of a namespace.
    pub fn policies_in(&self, namespace: &str) -> Applicable<'_> {
        self.policies.within(namespace)
    }

    /// Which policies hold for the workload that asks, on `address`, which is one of its own whether it knows or not.
    ///
    /// The entry of its name that has one of its addresses is its own, beyond doubt. Failing that, every entry counts that
    /// may be: those of its name, those that its addresses tell, and those of its identity that share an address with it.
    /// An entry of another namespace is no way around the policies of its own.
    pub fn standing(&self, own: &Own, address: IpAddr) -> Standing<'_> {
        let addresses = || std::iter::once(address).chain(own.addresses.iter().copied());
        let namespace = own.identity.namespace();
        let named = self.workloads_named(namespace, &own.name);
        let is_ours = |w: &&Arc<Workload>| addresses().any(|ip| w.has(ip));
        let mut entries: Vec<&Workload> = named.iter().filter(is_ours).map(AsRef::as_ref).collect();
        if entries.is_empty() {
            let owned = addresses().filter_map(|ip| Some(&self.by_address.get(&ip.to_canonical())?.0));
            let shared = addresses()
                .filter_map(|ip| self.sharing.get(&ip.to_canonical()))
                .flatten()
                .filter(|w| w.identity == own.identity);
            for entry in named.iter().chain(owned).chain(shared) {
                if entries.iter().all(|known| known.uid != entry.uid) {
                    entries.push(entry);
                }
            }
        }
        if entries.is_empty() {
            return Standing::Unlisted {
                general: self.policies.within(namespace),
                meant: self.policies.meant_for(namespace),
            };
        }
        let mut applicable: Vec<_> = entries.iter().map(|w| self.policies.of(w)).collect();
        if entries.iter().all(|w| w.namespace != namespace) {
            applicable.push(self.policies.within(namespace));
        }
        Standing::Listed(applicable)
    }

    /// Where the workload that asks runs: as its own entry says, and of the node, what it knows itself.
    pub fn location_of<'s>(&'s self, own: &'s Own) -> Location<'s> {
        static NOWHERE: Locality = Locality::unknown();
        let is_ours = |w: &&Arc<Workload>| own.addresses.iter().any(|ip| w.has(*ip));
        let named = self.workloads_named(own.identity.namespace(), &own.name);
        let by_address = || {
            let owners = own.addresses.iter().filter_map(|ip| self.by_address.get(ip));
            owners.map(|(w, _)| w).find(|w| w.identity == own.identity)
        };
        let entry = named.iter().find(is_ours).or_else(by_address);
        let listed = entry.map(|w| w.location());
        Location {
            locality: listed.map_or(&NOWHERE, |listed| listed.locality),
            node: match listed.map(|listed| listed.node) {
                Some(node) if !node.is_empty() => node,
                _ => &own.node,
            },
        }
    }

    /// All addresses of a peer that has proven its identity and comes from `address`: those of the workload that has this
    /// address and this identity. Of any other peer, and of one that has proven nothing, its address is all that is known.
    pub fn addresses_of<'s>(&'s self, peer: Option<&SpiffeId>, address: &'s IpAddr) -> Cow<'s, [IpAddr]> {
        let Some(peer) = peer else {
            return Cow::Borrowed(std::slice::from_ref(address));
        };
        let owner = self.by_address.get(&address.to_canonical()).map(|(w, _)| w);
        if let Some(owner) = owner.filter(|w| w.identity == *peer) {
            // Among them is the one that it comes from.
            return Cow::Borrowed(&owner.addresses);
        }
        let sharing = self.sharing.get(&address.to_canonical()).into_iter().flatten();
        let mut all = vec![*address];
        for workload in sharing.filter(|w| w.identity == *peer) {
            all.extend_from_slice(&workload.addresses);
        }
        Cow::Owned(all)
    }

    /// Does this workload have this address, be it that others have it, too?
    pub fn is_at(&self, uid: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let owner = self.by_address.get(&address).map(|(owner, _)| owner);
        let sharing = self.sharing.get(&address).into_iter().flatten();
        owner.into_iter().chain(sharing).any(|w| w.uid == uid)
    }

    /// Of a namespace; more than one where a registry has several clusters.
    fn workloads_named(&self, namespace: &str, name: &str) -> &[Arc<Workload>] {
        let key = |w: &Arc<Workload>| (w.namespace.as_str(), w.pod()).cmp(&(namespace, name));
        let from = self.by_name.partition_point(|w| key(w).is_lt());
        let (_, rest) = self.by_name.split_at(from);
        let (found, _) = rest.split_at(rest.partition_point(|w| key(w).is_eq()));
        found
    }

    /// Of the services with this virtual address the one that has the port; where none has it, any of them.
    pub fn service_at(&self, dst: SocketAddr) -> Option<(&Arc<Service>, &[Endpoint])> {
        let names = self.by_vip.get(&dst.ip().to_canonical())?;
        let mut found = names.iter().rev().filter_map(|name| self.services.get(name));
        let with_port = || {
            found
                .clone()
                .find(|(service, _)| service.ports.contains_key(&dst.port()))
        };
        let (service, endpoints) = match names.len() {
            1 => found.next()?,
            _ => with_port().or_else(|| found.next())?,
        };
        Some((service, endpoints))
    }

    /// Has any service this virtual address?
    pub fn is_vip(&self, ip: IpAddr) -> bool {
        self.by_vip.contains_key(&ip.to_canonical())
    }

    /// The service of that name; the one in `namespace` when several namespaces have one.
    pub fn service_by_hostname(
        &self,
        namespace: &str,
        hostname: &str,
    ) -> Option<(&Arc<Service>, &[Endpoint])> {
        let names = self.by_hostname.get(hostname)?;
        let name = names
            .iter()
            .find(|n| &*n.namespace == namespace)
            .or(names.first())?;
        let (service, endpoints) = self.services.get(name)?;
        Some((service, endpoints))
    }

    pub fn workload_by_address(&self, ip: IpAddr) -> Option<(&Arc<Workload>, &Arc<Load>)> {
        self.by_address.get(&ip.to_canonical()).map(|(w, l)| (w, l))
    }

    pub fn services(&self) -> impl Iterator<Item = (&Arc<Service>, &[Endpoint])> {
        self.services.values().map(|(s, e)| (s, e.as_slice()))
    }

    /// Each workload once per address.
    pub fn addresses(&self) -> impl Iterator<Item = (&IpAddr, &Arc<Workload>)> {
        self.by_address.iter().map(|(ip, (w, _))| (ip, w))
    }
}

#[cfg(test)]
mod tests;
