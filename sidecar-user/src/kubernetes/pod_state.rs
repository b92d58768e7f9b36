//! One pod as it is at this moment, for whoever is about to give it something.

use std::borrow::Cow;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use kube::Api;
use kube::api::ObjectMeta;
use serde::Deserialize;

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

impl kube::Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
