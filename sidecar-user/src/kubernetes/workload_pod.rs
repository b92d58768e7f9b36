//! Pods of the whole cluster, with what their peers have to know of them. Those of one node are `pod.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use serde::Deserialize;

use super::Client;
use super::names::CONTAINER;
use super::object::{ObjectName, resource, slim_meta};
use super::watch::{Change, follow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPod {
    pub name: ObjectName,
    pub service_account: String,
    /// Empty while nobody has chosen one.
    pub node: Arc<str>,
    /// None until it has its network.
    pub addresses: Vec<IpAddr>,
    /// Its addresses are its node's.
    pub host_network: bool,
    /// Our sidecar is among its containers.
    pub has_proxy: bool,
    pub ready: bool,
    /// All its containers have ended for good, and its address may be another pod's already.
    pub finished: bool,
    pub labels: Arc<BTreeMap<String, String>>,
    pub owner: Option<Owner>,
}

/// The object that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: String,
    pub name: String,
}

/// All pods of the cluster that have not finished, over time.
pub fn workload_pods(client: &Client) -> impl Stream<Item = Change<WorkloadPod>> + Send + use<> {
    let api: Api<Object> = Api::all(client.inner());
    let config = watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    follow(api, config).map(|change| change.map(Object::read))
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

resource!(Object, NamespaceResourceScope, "", "v1", "Pod", "pods");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    service_account_name: String,
    node_name: String,
    host_network: bool,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Container {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Object {
    fn read(self) -> WorkloadPod {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let pod_ips = match status.pod_ips.is_empty() {
            true => vec![PodIp { ip: status.pod_ip }],
            false => status.pod_ips,
        };
        let mut owners = metadata.owner_references.iter().flatten();
        let owner = owners.find(|owner| owner.controller == Some(true));
        WorkloadPod {
            name: ObjectName::of(&metadata),
            service_account: match spec.service_account_name.is_empty() {
                true => "default".to_owned(),
                false => spec.service_account_name,
            },
            node: spec.node_name.into(),
            addresses: pod_ips
                .iter()
                .filter_map(|pod_ip| pod_ip.ip.parse().ok())
                .collect(),
            host_network: spec.host_network,
            has_proxy: spec
                .init_containers
                .iter()
                .any(|container| container.name == CONTAINER),
            ready: status
                .conditions
                .iter()
                .any(|condition| condition.kind == "Ready" && condition.status == "True"),
            finished: ["Succeeded", "Failed"].contains(&&*status.phase),
            owner: owner.map(|owner| Owner {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
            }),
            labels: Arc::new(metadata.labels.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests;
