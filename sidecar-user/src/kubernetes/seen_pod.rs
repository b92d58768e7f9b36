//! Pods as a person names them: by name, by labels, or by what made them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, ObjectMeta};
use kube::core::Selector;
use serde::Deserialize;
use serde_json::Value;

use super::object::resource;
use super::{CONTAINER, Client, Error, LABEL_INJECT};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenPod {
    pub namespace: String,
    pub name: String,
    /// `None`: no node has it yet.
    pub node: Option<String>,
    pub service_account: String,
    pub address: Option<IpAddr>,
    /// Such as `Running`.
    pub phase: String,
    pub is_ready: bool,
    pub is_ending: bool,
    /// Whether it has a container for its sidecar.
    pub is_meshed: bool,
    pub is_host_network: bool,
    /// What its label of the injection says.
    pub inject: Option<String>,
}

/// What stands for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    Service,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
}

/// What is known of one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// There is none of this name.
    Nothing,
    /// It chooses no pods by their labels.
    NoPods,
    Labels(String),
}

/// Those of a namespace, or of all, with these labels.
pub async fn seen_pods(
    client: &Client,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<SeenPod>, Error> {
    let api: Api<Object> = match namespace {
        Some(namespace) => Api::namespaced(client.inner(), namespace),
        None => Api::all(client.inner()),
    };
    let params = labels.map_or_else(ListParams::default, |labels| ListParams::default().labels(labels));
    let listed = api.list(&params).await;
    let listed = listed.map_err(|source| Error::asked("list pods", source))?;
    Ok(listed.items.into_iter().map(SeenPod::of).collect())
}

/// `None`: there is none.
pub async fn seen_pod(client: &Client, namespace: &str, name: &str) -> Result<Option<SeenPod>, Error> {
    let api: Api<Object> = Api::namespaced(client.inner(), namespace);
    let found = api.get_opt(name).await;
    let found = found.map_err(|source| Error::asked("show a pod", source))?;
    Ok(found.map(SeenPod::of))
}

/// What a label of a namespace says.
pub async fn namespace_label(client: &Client, namespace: &str, label: &str) -> Result<Option<String>, Error> {
    let api: Api<Namespace> = Api::all(client.inner());
    let found = api.get_opt(namespace).await;
    let found = found.map_err(|source| Error::asked("show a namespace", source))?;
    Ok(found.and_then(|found| found.metadata.labels?.remove(label)))
}

/// The labels of the pods that it stands for.
pub async fn labels_of(client: &Client, maker: Maker, namespace: &str, name: &str) -> Result<Made, Error> {
    let (group, version, kind, plural) = maker.resource();
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: [group, version].join("/").trim_start_matches('/').into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.inner(), namespace, &resource);
    let found = api.get_opt(name).await;
    let found = found.map_err(|source| Error::asked("show what makes the pods", source))?;
    Ok(match found {
        None => Made::Nothing,
        Some(found) => selector(maker, &found.data).map_or(Made::NoPods, Made::Labels),
    })
}

fn selector(maker: Maker, object: &Value) -> Option<String> {
    let selector = object.get("spec")?.get("selector")?.clone();
    let selector: Selector = match maker {
        Maker::Service => {
            Selector::from_iter(serde_json::from_value::<BTreeMap<String, String>>(selector).ok()?)
        }
        _ => serde_json::from_value::<LabelSelector>(selector)
            .ok()?
            .try_into()
            .ok()?,
    };
    let labels = selector.to_string();
    // Without a label all pods would be meant.
    (!labels.is_empty()).then_some(labels)
}

impl Maker {
    /// Group, version, kind and plural.
    fn resource(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Service => ("", "v1", "Service", "services"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
            Self::DaemonSet => ("apps", "v1", "DaemonSet", "daemonsets"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet", "replicasets"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Object {
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
    node_name: Option<String>,
    host_network: bool,
    service_account_name: String,
    init_containers: Vec<Named>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl SeenPod {
    fn of(object: Object) -> Self {
        let Object {
            metadata,
            spec,
            status,
        } = object;
        let is_ready = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        let inject = metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(LABEL_INJECT).cloned());
        Self {
            inject,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            node: spec.node_name,
            service_account: spec.service_account_name,
            address: status.pod_ip.and_then(|ip| ip.parse().ok()),
            phase: status.phase,
            is_ready: status.conditions.iter().any(is_ready),
            is_ending: metadata.deletion_timestamp.is_some(),
            is_meshed: spec
                .init_containers
                .iter()
                .any(|container| container.name == CONTAINER),
            is_host_network: spec.host_network,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_read_as_far_as_somebody_asks_for_it() {
        let object = json!({
            "metadata": { "namespace": "shop", "name": "web-0", "deletionTimestamp": "2026-01-31T12:00:00Z" },
            "spec": { "nodeName": "node-1", "serviceAccountName": "web", "initContainers": [{ "name": CONTAINER }] },
            "status": { "phase": "Running", "podIP": "10.0.0.9", "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        let pod = SeenPod::of(serde_json::from_value(object).unwrap());
        assert_eq!(
            (&*pod.name, pod.node.as_deref(), &*pod.phase),
            ("web-0", Some("node-1"), "Running")
        );
        assert!(pod.is_meshed && pod.is_ready && pod.is_ending && !pod.is_host_network);
        let bare: Object = serde_json::from_value(json!({ "metadata": { "name": "new" } })).unwrap();
        let bare = SeenPod::of(bare);
        assert!(!bare.is_meshed && bare.node.is_none());
    }

    #[test]
    fn the_labels_of_what_makes_pods_are_never_none_at_all() {
        let of = |maker, spec: Value| selector(maker, &json!({ "spec": spec }));
        assert_eq!(
            of(Maker::Service, json!({ "selector": { "app": "web" } })).as_deref(),
            Some("app=web")
        );
        let expression = json!({ "selector": { "matchLabels": { "a": "b" }, "matchExpressions":
            [{ "key": "c", "operator": "In", "values": ["d", "e"] }] } });
        assert_eq!(
            of(Maker::Deployment, expression).as_deref(),
            Some("a=b,c in (d,e)")
        );
        assert_eq!(of(Maker::Service, json!({})), None);
        assert_eq!(of(Maker::Deployment, json!({ "selector": {} })), None);
    }
}
