//! The pods of one node over time, with what an agent wants to know of them and nothing else.

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures_util::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher;
use serde::Deserialize;

use super::object::resource;
use super::probe::Container;
use super::{CONTAINER, Change, Client, Error, POD_UID, follow};

/// A pod as an agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub service_account: String,
    pub addresses: Vec<IpAddr>,
    pub is_host_network: bool,
    pub runtime_class: Option<String>,
    /// Of a static pod: the hash of its configuration, which the kubelet takes for the UID.
    pub static_hash: Option<String>,
    /// Whether it has a container for its sidecar, and that one does not attach by itself.
    pub is_meshed: bool,
    /// The id of that container, once the kubelet has told it. Another one after each restart of it.
    pub sidecar: Option<String>,
    /// Where the kubelet asks.
    pub probe_ports: BTreeSet<u16>,
}

/// Written by the kubelet into the object that it makes for a static pod.
const STATIC_HASH: &str = "kubernetes.io/config.hash";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Follows the pods of a node. Never ends.
pub fn on_node(client: &Client, node: &str) -> impl Stream<Item = Change<Pod>> + use<> {
    let config = watcher::Config::default().fields(&selector(node));
    follow::<Object>(Api::all(client.inner()), config).map(|change| change.map(Pod::of))
}

/// Those that are there now: for a pod that the watch has not told of yet.
pub async fn list_on_node(client: &Client, node: &str) -> Result<Vec<Pod>, Error> {
    let api: Api<Object> = Api::all(client.inner());
    let params = ListParams::default().fields(&selector(node));
    let listed = api.list(&params).await;
    let listed = listed.map_err(|source| Error::asked("list the pods of this node", source))?;
    Ok(listed.items.into_iter().map(Pod::of).collect())
}

fn selector(node: &str) -> String {
    format!("spec.nodeName={node}")
}

/// As the API has it; what is not named here is not kept.
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
    host_network: bool,
    service_account_name: String,
    runtime_class_name: Option<String>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

impl Pod {
    fn of(object: Object) -> Self {
        let Object {
            metadata,
            spec,
            status,
        } = object;
        let annotations = metadata.annotations.unwrap_or_default();
        let is_mirror = annotations.contains_key(MIRROR);
        let statuses = status.init_container_statuses.into_iter();
        let of_sidecar = statuses.filter(|status| status.name == CONTAINER);
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            service_account: spec.service_account_name,
            addresses: status
                .pod_ips
                .iter()
                .filter_map(|of| of.ip.as_ref()?.parse().ok())
                .collect(),
            is_host_network: spec.host_network,
            runtime_class: spec.runtime_class_name,
            static_hash: annotations.get(STATIC_HASH).filter(|_| is_mirror).cloned(),
            is_meshed: spec
                .init_containers
                .iter()
                .any(|container| container.name == CONTAINER && !container.has_variable(POD_UID)),
            sidecar: of_sidecar
                .filter_map(|status| id_of(&status.container_id?))
                .next(),
            probe_ports: spec
                .init_containers
                .iter()
                .chain(&spec.containers)
                .flat_map(Container::probe_ports)
                .collect(),
        }
    }
}

/// Of `containerd://<id>`.
fn id_of(container: &str) -> Option<String> {
    let (_, id) = container.split_once("://")?;
    (!id.is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        Pod::of(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn what_an_agent_wants_to_know_is_read_from_a_pod_as_the_api_server_has_it() {
        let found = pod(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "managedFields": [{"manager": "kubelet"}]},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "web", "runtimeClassName": "kata",
                "initContainers": [
                    {"name": "outrigger-proxy", "restartPolicy": "Always", "startupProbe": {"httpGet": {"path": "/startupz", "port": 15021}}},
                    {"name": "migrate", "image": "x"},
                ],
                "containers": [{"name": "app", "image": "x", "readinessProbe": {"tcpSocket": {"port": 80}}}],
            },
            "status": {
                "phase": "Running", "podIP": "10.1.0.4", "podIPs": [{"ip": "10.1.0.4"}, {"ip": "fd00::4"}],
                "initContainerStatuses": [
                    {"name": "migrate", "containerID": "containerd://aa"},
                    {"name": "outrigger-proxy", "containerID": "containerd://bb", "state": {}},
                ],
            },
        }));
        let wanted = Pod {
            namespace: "shop".into(),
            name: "web-1".into(),
            uid: "u1".into(),
            service_account: "web".into(),
            addresses: vec!["10.1.0.4".parse().unwrap(), "fd00::4".parse().unwrap()],
            runtime_class: Some("kata".into()),
            is_meshed: true,
            sidecar: Some("bb".into()),
            probe_ports: [80, 15021].into(),
            ..Pod::default()
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_pod_without_the_container_is_not_meshed_and_one_without_a_status_has_no_sidecar_yet() {
        let plain = serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "outrigger-proxy"}]}});
        assert!(
            !pod(plain).is_meshed,
            "it stands among the init containers, or it is somebody else's"
        );
        for status in [
            serde_json::json!({}),
            serde_json::json!({"initContainerStatuses": [{"name": "outrigger-proxy", "state": {"waiting": {}}}]}),
            serde_json::json!({"initContainerStatuses": [{"name": "outrigger-proxy", "containerID": ""}]}),
        ] {
            let found = pod(serde_json::json!({
                "metadata": {"uid": "u"},
                "spec": {"hostNetwork": true, "containers": [], "initContainers": [{"name": "outrigger-proxy"}]},
                "status": status,
            }));
            assert_eq!(
                (found.is_meshed, found.sidecar, found.is_host_network),
                (true, None, true)
            );
        }
    }

    #[test]
    fn a_sidecar_that_attaches_by_itself_is_no_agents_business() {
        let with = |variable: &str| {
            pod(
                serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": [], "initContainers": [
                {"name": "outrigger-proxy", "env": [{"name": variable, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]}]}}),
            )
        };
        assert!(with("OUTRIGGER_NAME").is_meshed);
        assert!(!with("OUTRIGGER_POD_UID").is_meshed);
    }

    #[test]
    fn a_static_pod_is_known_by_the_hash_that_the_kubelet_takes_for_its_uid() {
        let of = |annotations: serde_json::Value| {
            pod(serde_json::json!({"metadata": {"uid": "u", "annotations": annotations}})).static_hash
        };
        let hash = "kubernetes.io/config.hash";
        assert_eq!(
            of(serde_json::json!({hash: "h", "kubernetes.io/config.mirror": "h"})),
            Some("h".into())
        );
        // Anybody may write an annotation; the kubelet alone makes mirrors, which the API server sees to.
        assert_eq!(of(serde_json::json!({hash: "h"})), None);
    }
}
