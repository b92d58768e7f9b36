//! Nodes as somebody looks at them who asks whether they can serve: what their kubelets say of the machine.

use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use serde::Deserialize;

use super::object::{resource, slim_meta};
use super::{Client, Error};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenNode {
    pub name: String,
    pub is_ready: bool,
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Of uname(2), such as `6.1.0-13-amd64`.
    pub kernel: String,
    /// Such as `containerd://2.1.4`.
    pub runtime: String,
    /// Such as `v1.36.4`.
    pub kubelet: String,
}

pub async fn seen_nodes(client: &Client) -> Result<Vec<SeenNode>, Error> {
    let api: Api<Object> = Api::all(client.inner());
    let listed = api.list(&ListParams::default()).await;
    let listed = listed.map_err(|source| Error::asked("list nodes", source))?;
    Ok(listed.items.into_iter().map(SeenNode::of).collect())
}

#[derive(Clone, Debug, Deserialize)]
struct Object {
    #[serde(deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: Status,
}

resource!(Object, ClusterResourceScope, "", "v1", "Node", "nodes");

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Vec<Condition>,
    node_info: Info,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Info {
    operating_system: String,
    architecture: String,
    kernel_version: String,
    container_runtime_version: String,
    kubelet_version: String,
}

impl SeenNode {
    fn of(object: Object) -> Self {
        let Status {
            conditions,
            node_info,
        } = object.status;
        Self {
            name: object.metadata.name.unwrap_or_default(),
            is_ready: conditions
                .iter()
                .any(|condition| condition.kind == "Ready" && condition.status == "True"),
            os: node_info.operating_system,
            architecture: node_info.architecture,
            kernel: node_info.kernel_version,
            runtime: node_info.container_runtime_version,
            kubelet: node_info.kubelet_version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_what_its_kubelet_says() {
        let object = json!({ "metadata": { "name": "n1" }, "status": {
            "conditions": [{ "type": "MemoryPressure", "status": "True" }, { "type": "Ready", "status": "True" }],
            "nodeInfo": { "operatingSystem": "linux", "architecture": "arm64", "kernelVersion": "6.1.0",
                "containerRuntimeVersion": "containerd://2.1.4", "kubeletVersion": "v1.36.4" } } });
        let node = SeenNode::of(serde_json::from_value(object).unwrap());
        assert!(node.is_ready);
        assert_eq!(
            (&*node.name, &*node.kernel, &*node.architecture),
            ("n1", "6.1.0", "arm64")
        );
        let bare = SeenNode::of(serde_json::from_value(json!({ "metadata": { "name": "n2" } })).unwrap());
        assert!(!bare.is_ready && bare.os.is_empty());
    }
}
