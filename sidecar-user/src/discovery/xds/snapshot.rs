//! From the resources that a proxy holds to the world that a connection sees. Pure. What a resource says that no connection can
//! honour is told as a warning, as it is of a registry file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::model::authorization::PolicyName;
use crate::model::snapshot::Serves;
use crate::model::{Service, ServiceName, Snapshot, SpiffeId, TunnelProtocol, Workload};
use crate::xds::{
    AuthorizationResource, Kind, NetworkAddress, Port, Resource, ServiceResource, Store, WorkloadResource,
};

/// What an empty field means.
const TRUST_DOMAIN: &str = "cluster.local";
const SERVICE_ACCOUNT: &str = "default";

/// `before` lends its counters and what has not changed.
pub fn snapshot(before: &Snapshot, store: &Store) -> (Snapshot, Vec<String>) {
    let mut made = Made::default();
    // In an order of their own: endpoints of a service stand in it, and two proxies are to say the same.
    let mut held: Vec<_> = [Kind::Address, Kind::Authorization]
        .into_iter()
        .flat_map(|kind| store.of_kind(kind))
        .collect();
    held.sort_unstable_by(|a, b| (a.key.kind, &a.key.name).cmp(&(b.key.kind, &b.key.name)));
    for stored in held {
        match &stored.resource {
            Resource::Workload(workload) => made.workload(workload),
            Resource::Service(service) => made.service(service),
            Resource::Policy(policy) => made.policies.push(policy.clone()),
        }
    }
    made.into_snapshot(before)
}

#[derive(Default)]
struct Made {
    services: Vec<Service>,
    workloads: Vec<(Workload, Serves)>,
    policies: Vec<AuthorizationResource>,
    /// By workload uid.
    selects: HashMap<String, (String, Vec<PolicyName>)>,
    /// Of workloads that share them with their node.
    shared: HashSet<IpAddr>,
    own: HashSet<IpAddr>,
    /// Connections to these are refused.
    closed: Vec<IpAddr>,
    warnings: Vec<String>,
}

impl Made {
    fn workload(&mut self, of: &WorkloadResource) {
        let addresses = || of.addresses.iter().map(IpAddr::to_canonical);
        let identity = SpiffeId::new(
            or(&of.trust_domain, TRUST_DOMAIN),
            &of.namespace,
            or(&of.service_account, SERVICE_ACCOUNT),
        );
        let identity = match identity {
            Ok(identity) => identity,
            Err(error) => {
                // It cannot prove itself, and must not be taken for somebody outside of the mesh.
                self.closed.extend(addresses());
                let warning = format!("{}: {error}; connections to it are refused", of.uid);
                return self.warnings.push(warning);
            }
        };
        match of.host_network {
            true => self.shared.extend(addresses()),
            false => self.own.extend(addresses()),
        }
        if of.waypoint.is_some() {
            if !of.host_network {
                self.closed.extend(addresses());
            }
            let what = "it lies behind a waypoint, which is not acted on: connections to it are refused";
            self.warnings.push(format!("{}: {what}", of.uid));
        }
        if of.network_gateway.is_some() || !of.network.is_empty() {
            let what = "it is on another network, which is taken to be reached directly";
            self.warnings.push(format!("{}: {what}", of.uid));
        }
        if of.addresses.is_empty() && !of.hostname.is_empty() {
            let what = "its host name is not resolved, so it is never chosen";
            self.warnings.push(format!("{}: {what}", of.uid));
        }
        let policies = of
            .authorization_policies
            .iter()
            .filter_map(|name| policy_name(name));
        self.selects
            .insert(of.uid.clone(), (of.namespace.clone(), policies.collect()));
        let serves = of.services.iter().map(|(name, ports)| (name.clone(), map(ports)));
        let workload = Workload {
            uid: of.uid.clone(),
            name: of.name.clone(),
            namespace: of.namespace.clone(),
            identity,
            addresses: addresses().collect(),
            protocol: of.tunnel_protocol,
            healthy: !of.unhealthy,
            capacity: of.capacity.unwrap_or(1),
            locality: of.locality.clone(),
            node: of.node.clone(),
        };
        self.workloads.push((workload, serves.collect()));
    }

    fn service(&mut self, of: &ServiceResource) {
        let name = ServiceName {
            namespace: of.namespace.as_str().into(),
            hostname: of.hostname.as_str().into(),
        };
        let (whole, ranges): (Vec<_>, Vec<_>) = of.addresses.iter().partition(|at| is_whole(at));
        if !ranges.is_empty() {
            self.warnings
                .push(format!("{name}: its ranges of addresses are not matched"));
        }
        let vips: Vec<IpAddr> = whole.iter().map(|at| at.address.to_canonical()).collect();
        if of.waypoint.is_some() || !of.weighted_waypoints.is_empty() {
            self.closed.extend(&vips);
            let what = "it lies behind a waypoint, which is not acted on: connections to it are refused";
            self.warnings.push(format!("{name}: {what}"));
        }
        let names = of.subject_alt_names.iter();
        self.services.push(Service {
            name,
            vips,
            ports: map(&of.ports),
            subject_alt_names: names.filter_map(|name| name.parse().ok()).collect(),
            balancing: of.load_balancing.clone(),
            affinity: of.affinity,
        });
    }

    fn into_snapshot(mut self, before: &Snapshot) -> (Snapshot, Vec<String>) {
        // A later entry of an address wins, and one of its own beats one that is shared with the node.
        let shared = &self.shared;
        let is_shared = |(workload, _): &(Workload, Serves)| {
            workload.protocol == TunnelProtocol::None
                && workload.addresses.iter().any(|ip| shared.contains(ip))
        };
        self.workloads.sort_by_key(|entry| !is_shared(entry));
        let own = &self.own;
        let told_by_nobody: Vec<IpAddr> = shared.iter().copied().filter(|ip| !own.contains(ip)).collect();
        let snapshot = Snapshot::build(before, self.services, self.workloads)
            .without_addresses(told_by_nobody)
            .with_waypoints(self.closed)
            .with_policies(before, self.policies, self.selects);
        (snapshot, self.warnings)
    }
}

fn or<'t>(text: &'t str, default: &'t str) -> &'t str {
    if text.is_empty() { default } else { text }
}

fn map(ports: &[Port]) -> BTreeMap<u16, u16> {
    ports
        .iter()
        .map(|port| (port.service_port, port.target_port))
        .collect()
}

fn is_whole(at: &NetworkAddress) -> bool {
    let whole = if at.address.is_ipv4() { 32 } else { 128 };
    at.length.is_none_or(|length| length == whole)
}

/// `namespace/name`.
fn policy_name(text: &str) -> Option<PolicyName> {
    let (namespace, name) = text.split_once('/')?;
    Some(PolicyName {
        namespace: namespace.into(),
        name: name.into(),
    })
}

#[cfg(test)]
mod tests;
