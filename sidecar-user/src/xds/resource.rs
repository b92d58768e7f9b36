//! What discovery speaks about: workloads, services and authorization policies, with every field that Istio's messages have
//! for them. How they are written on the wire is `message.rs`; what a proxy makes of them is `discovery/xds.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::balancing::{Affinity, Balancing};
use crate::model::workload::Locality;
use crate::model::{ServiceName, TunnelProtocol};

/// Its fields are those of `istio.security.Authorization`.
pub use crate::model::authorization::Policy as AuthorizationResource;

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most resources are workloads, the largest, and a box would be another allocation for each"
)]
pub enum Resource {
    Workload(WorkloadResource),
    Service(ServiceResource),
    Policy(AuthorizationResource),
}

/// The two types that discovery serves, each with a space of names of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Workloads and services.
    Address,
    Authorization,
}

/// The primary name of a resource: a workload's `uid`, a service's `namespace/hostname`, a policy's `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub name: Arc<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadResource {
    /// Unique in the mesh, e.g. `cluster1//Pod/ns/name`.
    pub uid: String,
    /// The name of the pod.
    pub name: String,
    pub namespace: String,
    pub addresses: Vec<IpAddr>,
    /// Resolved by DNS where there are no addresses.
    pub hostname: String,
    /// Empty for the one network that every address is on.
    pub network: String,
    pub tunnel_protocol: TunnelProtocol,
    /// Empty for `cluster.local`.
    pub trust_domain: String,
    /// Empty for `default`.
    pub service_account: String,
    pub waypoint: Option<Gateway>,
    pub network_gateway: Option<Gateway>,
    pub node: String,
    pub canonical_name: String,
    pub canonical_revision: String,
    /// Of the Deployment, Job … that made the pod.
    pub workload_name: String,
    pub workload_type: WorkloadType,
    pub native_tunnel: bool,
    pub application_tunnel: Option<ApplicationTunnel>,
    /// The services that it stands behind, with the ports that it serves for each.
    pub services: BTreeMap<ServiceName, Vec<Port>>,
    /// `namespace/name` of the policies that select single workloads and this one among them.
    pub authorization_policies: Vec<String>,
    pub unhealthy: bool,
    pub cluster_id: String,
    pub locality: Locality,
    /// Its addresses are its node's, so they do not tell it.
    pub host_network: bool,
    /// Load-balancing weight; 1 when absent.
    pub capacity: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkloadType {
    Deployment,
    CronJob,
    #[default]
    Pod,
    Job,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// The PROXY protocol.
    pub proxy: bool,
    pub port: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    pub service_port: u16,
    /// 0 in a service whose target is a named port: only endpoints that map it qualify.
    pub target_port: u16,
    pub app_protocol: AppProtocol,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppProtocol {
    #[default]
    Unknown,
    Http11,
    Http2,
    Grpc,
    Tcp,
    Tls,
}

/// A waypoint, or the gateway of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub destination: GatewayDestination,
    pub hbone_mtls_port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayDestination {
    Hostname(ServiceName),
    Address(NetworkAddress),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkAddress {
    /// Empty for the one network that every address is on.
    pub network: String,
    pub address: IpAddr,
    /// Shorter than the whole address for a service that owns a range.
    pub length: Option<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceResource {
    pub name: String,
    pub namespace: String,
    /// `name.namespace.svc.cluster.local`.
    pub hostname: String,
    /// Virtual addresses; none for a headless service.
    pub addresses: Vec<NetworkAddress>,
    pub ports: Vec<Port>,
    /// Identities accepted beside those of its workloads.
    pub subject_alt_names: Vec<String>,
    pub waypoint: Option<Gateway>,
    pub load_balancing: Balancing,
    pub ip_families: IpFamilies,
    /// Preferred among several services of one hostname.
    pub canonical: bool,
    pub ingress_use_waypoint: bool,
    pub weighted_waypoints: Vec<(Gateway, u32)>,
    /// Known only within its own namespace.
    pub private: bool,
    /// How long one client stays with one endpoint. Istio has no word for it, so it travels as an extension of ours.
    pub affinity: Option<Affinity>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamilies {
    #[default]
    Automatic,
    V4,
    V6,
    Dual,
}

impl Resource {
    pub fn key(&self) -> Key {
        match self {
            Self::Workload(workload) => Key::address(&workload.uid),
            Self::Service(service) => Key::address(&format!("{}/{}", service.namespace, service.hostname)),
            Self::Policy(policy) => Key::authorization(&policy.name.to_string()),
        }
    }

    /// Other names by which it can be asked for.
    pub fn aliases(&self) -> Vec<Arc<str>> {
        match self {
            // The address of a node tells none of the pods that share it.
            Self::Workload(workload) if workload.host_network => Vec::new(),
            Self::Workload(workload) => {
                let alias = |ip: &IpAddr| address_key(&workload.network, *ip);
                workload.addresses.iter().map(alias).collect()
            }
            Self::Service(service) => service.addresses.iter().map(NetworkAddress::alias).collect(),
            Self::Policy(_) => Vec::new(),
        }
    }
}

impl Key {
    pub fn address(name: &str) -> Self {
        Self {
            kind: Kind::Address,
            name: name.into(),
        }
    }

    pub fn authorization(name: &str) -> Self {
        Self {
            kind: Kind::Authorization,
            name: name.into(),
        }
    }

    /// Of the service that `WorkloadResource::services` names.
    pub fn service(name: &ServiceName) -> Self {
        Self::address(&name.to_string())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl NetworkAddress {
    /// One address on the one network that every address is on.
    pub fn of(address: IpAddr) -> Self {
        Self {
            network: String::new(),
            address,
            length: None,
        }
    }

    /// `network/ip`, or `network/ip/length` of a range.
    pub fn alias(&self) -> Arc<str> {
        let whole = if self.address.is_ipv4() { 32 } else { 128 };
        match self.length {
            Some(length) if length < whole => format!("{}/{}/{length}", self.network, self.address).into(),
            _ => address_key(&self.network, self.address),
        }
    }
}

/// How an address is asked for: `network/ip`.
pub fn address_key(network: &str, ip: IpAddr) -> Arc<str> {
    format!("{network}/{}", ip.to_canonical()).into()
}
