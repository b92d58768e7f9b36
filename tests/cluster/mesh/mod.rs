//! The mesh as it is installed, shared by these tests. Those that take a part of it away have it alone meanwhile.

mod absent;
mod agents;
mod authority;
mod causes;
mod certificates;
mod chart_objects;
mod chart_release;
mod check;
mod connections;
mod dual;
mod late;
mod load;
mod names;
mod nodes;
mod peer;
mod policies;
mod release;
mod rollout;
mod rotation;
mod self_attach;
mod sidecars;
mod sight;
mod starting;
mod strict;
mod uninstall;

use std::sync::{LazyLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use harness::cluster::{Mesh, Namespace};
use serde_json::{Value, json};

use crate::common::{cluster, idle, named_server, pod, service, spread};

static MESH: LazyLock<RwLock<Mesh<'static>>> =
    LazyLock::new(|| RwLock::new(Mesh::install(cluster()).expect("Outrigger is installed by its chart")));

/// For a test that takes nothing away.
pub(crate) fn mesh() -> RwLockReadGuard<'static, Mesh<'static>> {
    // A test that failed with the mesh in its hands has brought it back, or the next one says what is missing.
    MESH.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// For a test that does, until it has brought it back.
pub(crate) fn mesh_alone() -> RwLockWriteGuard<'static, Mesh<'static>> {
    MESH.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A namespace whose new pods are in the mesh.
pub(crate) fn meshed(stem: &str) -> Namespace<'static> {
    let namespace = Namespace::create(cluster().kubectl(), stem).unwrap();
    enable(&namespace);
    namespace
}

fn enable(namespace: &Namespace) {
    let label = "outrigger.example/inject=enabled";
    namespace
        .kubectl()
        .run(&["label", "namespace", namespace.name(), label])
        .unwrap();
}

/// A client that is told what to do by `exec`.
pub(crate) fn client(name: &str, node: &str) -> Value {
    pod(name, json!({ "nodeName": node, "containers": [idle("main")] }))
}

/// A Deployment over the nodes, and its Service.
fn deployment(name: &str, replicas: u32, container: Value, port: u16) -> Vec<Value> {
    // While pods are replaced, there may be two of one on a node.
    let pods = spread(name, replicas, container, "ScheduleAnyway");
    vec![pods, service(name, port)]
}

/// nginx on both nodes, behind a Service.
fn web(name: &str) -> Vec<Value> {
    deployment(name, 2, named_server(), 80)
}
