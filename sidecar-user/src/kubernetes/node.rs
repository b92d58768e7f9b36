//! Nodes: where they stand. Only their metadata is asked for, because each kubelet writes a long status every few minutes.

use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use serde::Deserialize;

use super::Client;
use super::object::{resource, slim_meta};
use super::watch::{Change, follow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: Arc<str>,
    pub region: String,
    pub zone: String,
}

/// All Nodes of the cluster over time.
pub fn nodes(client: &Client) -> impl Stream<Item = Change<Node>> + Send + use<> {
    let api: Api<Object> = Api::all(client.inner());
    follow(api, watcher::Config::default()).map(|change| change.map(Object::read))
}

#[derive(Clone, Debug, Deserialize)]
struct Object {
    #[serde(deserialize_with = "slim_meta")]
    metadata: ObjectMeta,
}

resource!(Object, ClusterResourceScope, "", "v1", "Node", "nodes", true);

impl Object {
    fn read(self) -> Node {
        let mut labels = self.metadata.labels.unwrap_or_default();
        let mut label = |name| labels.remove(name).unwrap_or_default();
        Node {
            region: label("topology.kubernetes.io/region"),
            zone: label("topology.kubernetes.io/zone"),
            name: self.metadata.name.unwrap_or_default().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_stands_where_its_labels_say() {
        let node = json!({"metadata": {"name": "n1", "labels": {
            "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}}});
        let node = serde_json::from_value::<Object>(node).unwrap().read();
        assert_eq!((&*node.name, &*node.region, &*node.zone), ("n1", "r", "z"));
        let bare = json!({"metadata": {"name": "n2"}});
        let bare = serde_json::from_value::<Object>(bare).unwrap().read();
        assert_eq!((&*bare.region, &*bare.zone), ("", ""));
    }
}
