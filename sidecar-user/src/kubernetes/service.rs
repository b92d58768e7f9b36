//! Services: names, virtual addresses, ports, and how their traffic should be spread.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use serde::Deserialize;

use super::Client;
use super::object::{ObjectName, resource, slim_meta};
use super::watch::{Change, follow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    /// An alias in DNS, without endpoints.
    pub external_name: bool,
    /// None for a headless service.
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// Of its load balancer, without those that want to be reached through it.
    pub ingress_ips: Vec<IpAddr>,
    pub ip_families: Families,
    /// Those for TCP.
    pub ports: Vec<ServicePort>,
    pub publish_not_ready: bool,
    /// How long a client stays with one endpoint.
    pub affinity: Option<Duration>,
    /// Traffic from inside goes to endpoints of the client's node, or nowhere.
    pub internal_local: bool,
    pub distribution: Distribution,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub port: u16,
    /// `None`: the container port of that name, another number for each pod perhaps.
    pub target: Option<u16>,
    pub app_protocol: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

/// Whom a client should reach while there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distribution {
    #[default]
    Any,
    SameZone,
    SameNode,
}

/// All Services of the cluster over time.
pub fn services(client: &Client) -> impl Stream<Item = Change<Service>> + Send + use<> {
    let api: Api<Object> = Api::all(client.inner());
    follow(api, watcher::Config::default()).map(|change| change.map(Object::read))
}

#[derive(Clone, Debug, Deserialize)]
struct Object {
    #[serde(deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

resource!(Object, NamespaceResourceScope, "", "v1", "Service", "services");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    ip_families: Vec<String>,
    ports: Vec<Port>,
    publish_not_ready_addresses: bool,
    session_affinity: String,
    session_affinity_config: AffinityConfig,
    internal_traffic_policy: String,
    traffic_distribution: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    name: String,
    port: u16,
    target_port: Option<IntOrString>,
    #[serde(default)]
    protocol: String,
    app_protocol: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: ClientIp,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: String,
    ip_mode: String,
}

/// What the API server writes where nobody has said how long.
const AFFINITY_SECONDS: u32 = 10_800;

impl Object {
    fn read(self) -> Service {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let cluster_ips = match spec.cluster_ips.is_empty() {
            true => vec![spec.cluster_ip],
            false => spec.cluster_ips,
        };
        // With `Proxy`, the load balancer does something on the way that nobody here would do.
        let through = status.load_balancer.ingress.into_iter();
        let ingress: Vec<String> = through
            .filter(|ingress| ingress.ip_mode != "Proxy")
            .map(|ingress| ingress.ip)
            .collect();
        let timeout = spec.session_affinity_config.client_ip.timeout_seconds;
        let timeout = Duration::from_secs(timeout.unwrap_or(AFFINITY_SECONDS).into());
        Service {
            name: ObjectName::of(&metadata),
            external_name: spec.kind == "ExternalName",
            cluster_ips: addresses(&cluster_ips),
            external_ips: addresses(&spec.external_ips),
            ingress_ips: addresses(&ingress),
            ip_families: Families {
                v4: spec.ip_families.iter().any(|family| family == "IPv4"),
                v6: spec.ip_families.iter().any(|family| family == "IPv6"),
            },
            ports: spec.ports.into_iter().filter_map(Port::read).collect(),
            publish_not_ready: spec.publish_not_ready_addresses,
            affinity: (spec.session_affinity == "ClientIP").then_some(timeout),
            internal_local: spec.internal_traffic_policy == "Local",
            distribution: match &*spec.traffic_distribution {
                "PreferSameNode" => Distribution::SameNode,
                // The older name of the same.
                "PreferSameZone" | "PreferClose" => Distribution::SameZone,
                _ => Distribution::Any,
            },
        }
    }
}

impl Port {
    fn read(self) -> Option<ServicePort> {
        let target = match self.target_port {
            None => Some(self.port),
            Some(IntOrString::Int(number)) => u16::try_from(number).ok().or(Some(self.port)),
            Some(IntOrString::String(_)) => None,
        };
        is_tcp(&self.protocol).then_some(ServicePort {
            name: self.name,
            port: self.port,
            target,
            app_protocol: self.app_protocol,
        })
    }
}

/// The API server's own default is TCP.
pub(super) fn is_tcp(protocol: &str) -> bool {
    protocol.is_empty() || protocol == "TCP"
}

/// Without `None`, which stands where a headless service would have its address.
fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
