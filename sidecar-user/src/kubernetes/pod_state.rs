//! One pod as it is at this moment, for whoever is about to give it something.

use std::net::IpAddr;

use kube::Api;
use kube::api::ObjectMeta;
use serde::Deserialize;

use super::object::resource;
use super::{Client, Error};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodState {
    pub uid: String,
    pub node: String,
    pub account: String,
    pub addresses: Vec<IpAddr>,
    /// None of its containers runs any more, nor will.
    pub is_finished: bool,
}

/// `None`: there is none of that name.
pub async fn pod_state(client: &Client, namespace: &str, name: &str) -> Result<Option<PodState>, Error> {
    let api: Api<Pod> = Api::namespaced(client.inner(), namespace);
    let pod = api.get_opt(name).await;
    let pod = pod.map_err(|source| Error::asked("read a pod", source))?;
    Ok(pod.map(|pod| PodState {
        uid: pod.metadata.uid.unwrap_or_default(),
        node: pod.spec.node_name,
        account: pod.spec.service_account_name,
        addresses: pod
            .status
            .pod_ips
            .iter()
            .filter_map(|address| address.ip.parse().ok())
            .collect(),
        is_finished: matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"),
    }))
}

/// Of a pod, what is asked for here: reading all of it costs code for each of its thousand fields.
#[derive(Clone, Debug, Deserialize)]
struct Pod {
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

resource!(Pod, NamespaceResourceScope, "", "v1", "Pod", "pods");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    service_account_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Address>,
}

#[derive(Clone, Debug, Deserialize)]
struct Address {
    ip: String,
}
