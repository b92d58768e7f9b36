//! The world at one moment: every service and workload, indexed by what a connection asks for.
//!
//! Immutable once built. A connection reads one snapshot, once, and so sees one world. How it is filled is
//! `discovery/`'s business; how an endpoint is chosen is `route/`'s.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::authorization::{Policy, PolicyName, Scope};
use super::service::{Service, ServiceName};
use super::workload::Workload;

/// The services that a workload stands behind, each with its map from service port to target port.
pub type Serves = BTreeMap<ServiceName, BTreeMap<u16, u16>>;

/// One place where a service is served.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub workload: Arc<Workload>,
    /// Service port to target port, as this endpoint maps it.
    pub ports: BTreeMap<u16, u16>,
    /// Connections open to it from this proxy, over all shards. It outlives the snapshot: the next one carries
    /// the same counter on for the same workload.
    pub load: Arc<Load>,
}

/// Open connections towards one workload.
#[derive(Debug, Default)]
pub struct Load(AtomicU32);

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub struct LoadGuard(Arc<Load>);

impl Load {
    pub fn open(&self) -> u32 {
        self.0.load(Relaxed)
    }

    pub fn enter(self: &Arc<Self>) -> LoadGuard {
        self.0.fetch_add(1, Relaxed);
        LoadGuard(self.clone())
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts up by one with each accepted change; 0 is the empty world before the first.
    pub generation: u64,
    services: BTreeMap<ServiceName, (Arc<Service>, Vec<Endpoint>)>,
    by_vip: HashMap<IpAddr, ServiceName>,
    by_hostname: HashMap<Arc<str>, Vec<ServiceName>>,
    by_address: HashMap<IpAddr, (Arc<Workload>, Arc<Load>)>,
    behind_waypoint: HashSet<IpAddr>,
    policies: Policies,
}

/// Authorization policies, indexed by what selects them.
#[derive(Debug, Default)]
struct Policies {
    global: Vec<Arc<Policy>>,
    by_namespace: HashMap<Arc<str>, Vec<Arc<Policy>>>,
    /// By the uid of the workload that names them.
    selected: HashMap<String, Selected>,
}

#[derive(Debug, Default)]
struct Selected {
    found: Vec<Arc<Policy>>,
    missing: Vec<PolicyName>,
}

/// The policies that speak about connections to one workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applicable<'s> {
    pub global: &'s [Arc<Policy>],
    pub namespace: &'s [Arc<Policy>],
    pub selected: &'s [Arc<Policy>],
    /// Named by the workload, but not in the registry: nobody knows what they would forbid.
    pub missing: &'s [PolicyName],
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
                next.by_vip.insert(vip.to_canonical(), name.clone());
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
        next
    }

    /// Adds the policies, and by workload uid the names of those that the workload selects.
    pub fn with_policies(mut self, policies: Vec<Policy>, selects: HashMap<String, Vec<PolicyName>>) -> Self {
        let mut by_name: HashMap<PolicyName, Arc<Policy>> = HashMap::new();
        for policy in policies.into_iter().map(Arc::new) {
            match policy.scope {
                Scope::Global => self.policies.global.push(policy),
                Scope::Namespace => {
                    let namespace = policy.name.namespace.clone();
                    self.policies
                        .by_namespace
                        .entry(namespace)
                        .or_default()
                        .push(policy);
                }
                Scope::WorkloadSelector => {
                    by_name.insert(policy.name.clone(), policy);
                }
            }
        }
        for (uid, names) in selects {
            let mut selected = Selected::default();
            for name in names {
                match by_name.get(&name) {
                    Some(policy) => selected.found.push(policy.clone()),
                    None => selected.missing.push(name),
                }
            }
            self.policies.selected.insert(uid, selected);
        }
        self
    }

    /// Takes these addresses out of the index by address: several workloads share them, so that an address does
    /// not tell which one is meant. As endpoints of services the workloads stay.
    pub fn without_addresses(mut self, shared: impl IntoIterator<Item = IpAddr>) -> Self {
        for address in shared {
            self.by_address.remove(&address.to_canonical());
        }
        self
    }

    /// Marks addresses that may be reached only through a waypoint.
    pub fn with_waypoints(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.behind_waypoint
            .extend(addresses.into_iter().map(|ip| ip.to_canonical()));
        self
    }

    /// Whether traffic to this virtual or workload address has to pass a waypoint. Going around it would go
    /// around the rules it enforces.
    pub fn is_behind_waypoint(&self, ip: IpAddr) -> bool {
        self.behind_waypoint.contains(&ip.to_canonical())
    }

    pub fn policies_for(&self, workload: &Workload) -> Applicable<'_> {
        let namespace = self.policies.by_namespace.get(workload.namespace.as_str());
        let selected = self.policies.selected.get(&workload.uid);
        Applicable {
            global: &self.policies.global,
            namespace: namespace.map_or(&[], Vec::as_slice),
            selected: selected.map_or(&[], |s| &s.found),
            missing: selected.map_or(&[], |s| &s.missing),
        }
    }

    /// The policies that speak about every workload of a namespace: what is left where the workload is not known.
    pub fn policies_in(&self, namespace: &str) -> Applicable<'_> {
        let namespace = self.policies.by_namespace.get(namespace);
        Applicable {
            global: &self.policies.global,
            namespace: namespace.map_or(&[], Vec::as_slice),
            ..Applicable::default()
        }
    }

    pub fn service_by_vip(&self, ip: IpAddr) -> Option<(&Arc<Service>, &[Endpoint])> {
        let (service, endpoints) = self.services.get(self.by_vip.get(&ip.to_canonical())?)?;
        Some((service, endpoints))
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
