//! Resources of discovery as the `Snapshot` that the file makes of its entries. What cannot be used is left out, and a warning
//! says so; that it cannot be read was found out before.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::model::authorization::{Policy, PolicyName};
use crate::model::snapshot::Serves;
use crate::model::{Service, ServiceName, Snapshot, SpiffeId, Workload};
use crate::xds::{Kind, Port, Resource, ServiceResource, Store, WorkloadResource};

/// `namespace` is that of the workload that this is for.
pub(super) fn build(store: &Store, before: &Snapshot, namespace: &str) -> (Snapshot, Vec<String>) {
    let mut warnings = Vec::new();
    let (mut services, mut workloads) = (Vec::new(), Vec::new());
    let (mut shared, mut own) = (HashSet::new(), HashSet::new());
    let mut behind_waypoint = Vec::new();
    let mut selects = HashMap::new();
    for stored in store.of_kind(Kind::Address) {
        match &stored.resource {
            Resource::Service(resource) if resource.private && resource.namespace != namespace => {}
            Resource::Service(resource) => match service(resource) {
                Ok(service) => {
                    if resource.waypoint.is_some() || !resource.weighted_waypoints.is_empty() {
                        behind_waypoint.extend(service.vips.iter().copied());
                    }
                    services.push(service);
                }
                Err(why) => warnings.push(why),
            },
            Resource::Workload(resource) => match workload(resource) {
                Ok(workload) => {
                    if resource.waypoint.is_some() {
                        behind_waypoint.extend(workload.addresses.iter().copied());
                    }
                    let set = match resource.host_network {
                        true => &mut shared,
                        false => &mut own,
                    };
                    set.extend(workload.addresses.iter().copied());
                    let names = resource.authorization_policies.iter();
                    let names = names.filter_map(|name| policy_name(name)).collect();
                    selects.insert(workload.uid.clone(), (workload.namespace.clone(), names));
                    workloads.push((!resource.host_network, workload, serves(resource)));
                }
                Err(why) => warnings.push(why),
            },
            Resource::Policy(_) => {}
        }
    }
    // An address of its own beats one that is shared with the node. The rest is for a stable order.
    workloads.sort_by(|(a_own, a, _), (b_own, b, _)| (a_own, &a.uid).cmp(&(b_own, &b.uid)));
    let workloads = workloads.into_iter();
    let workloads = workloads
        .map(|(_, workload, serves)| (workload, serves))
        .collect();
    let policies = store.of_kind(Kind::Authorization);
    let policies: Vec<Policy> = policies
        .filter_map(|stored| match &stored.resource {
            Resource::Policy(policy) => Some(policy.clone()),
            _ => None,
        })
        .collect();
    let shared: Vec<IpAddr> = shared.difference(&own).copied().collect();
    let world = Snapshot::build(before, services, workloads)
        .without_addresses(shared)
        .with_waypoints(behind_waypoint)
        .with_policies(before, policies, selects);
    (world, warnings)
}

fn service(resource: &ServiceResource) -> Result<Service, String> {
    let name = ServiceName {
        namespace: resource.namespace.as_str().into(),
        hostname: resource.hostname.as_str().into(),
    };
    let names = resource.subject_alt_names.iter().map(|id| id.parse::<SpiffeId>());
    let subject_alt_names = names
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the service {name} is left out: {error}"))?;
    // A range is nobody's virtual address here.
    let bits = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let addresses = resource.addresses.iter();
    let whole = addresses.filter(|a| a.length.is_none_or(|length| length == bits(a.address)));
    Ok(Service {
        vips: whole.map(|address| address.address).collect(),
        ports: ports(&resource.ports),
        subject_alt_names,
        balancing: resource.load_balancing.clone(),
        affinity: resource.affinity,
        name,
    })
}

fn workload(resource: &WorkloadResource) -> Result<Workload, String> {
    let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
    let identity = SpiffeId::new(
        &or(&resource.trust_domain, "cluster.local"),
        &resource.namespace,
        &or(&resource.service_account, "default"),
    );
    Ok(Workload {
        uid: resource.uid.clone(),
        name: resource.name.clone(),
        namespace: resource.namespace.clone(),
        identity: identity.map_err(|error| format!("the workload {} is left out: {error}", resource.uid))?,
        addresses: resource.addresses.clone(),
        protocol: resource.tunnel_protocol,
        healthy: !resource.unhealthy,
        capacity: resource.capacity.unwrap_or(1),
        locality: resource.locality.clone(),
        node: resource.node.clone(),
    })
}

/// A workload without an address is no endpoint: there would be nothing to dial.
fn serves(resource: &WorkloadResource) -> Serves {
    if resource.addresses.is_empty() {
        return Serves::new();
    }
    let services = resource.services.iter();
    services.map(|(name, list)| (name.clone(), ports(list))).collect()
}

fn ports(ports: &[Port]) -> BTreeMap<u16, u16> {
    let ports = ports.iter();
    ports.map(|port| (port.service_port, port.target_port)).collect()
}

fn policy_name(name: &str) -> Option<PolicyName> {
    let (namespace, name) = name.split_once('/')?;
    Some(PolicyName {
        namespace: namespace.into(),
        name: name.into(),
    })
}
