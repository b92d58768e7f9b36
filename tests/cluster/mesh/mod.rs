//! The mesh as it is installed, shared by these tests. Those that take a part of it away have it alone meanwhile.

mod absent;
mod agents;
mod authority;
mod certificates;
mod connections;
mod load;
mod nodes;
mod peer;
mod release;
mod rollout;
mod rotation;
mod sidecars;
mod starting;
mod strict;
mod uninstall;

use std::sync::{LazyLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use harness::cluster::{Mesh, Namespace};
use serde_json::{Value, json};

use crate::common::{cluster, container, idle, named_server, pod};

static MESH: LazyLock<RwLock<Mesh<'static>>> =
    LazyLock::new(|| RwLock::new(Mesh::install(cluster()).expect("Outrigger is installed by its chart")));

/// For a test that takes nothing away.
pub(crate) fn mesh() -> RwLockReadGuard<'static, Mesh<'static>> {
    // A test that failed with the mesh in its hands has brought it back, or the next one says what is missing.
    MESH.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// For a test that does, until it has brought it back.
fn mesh_alone() -> RwLockWriteGuard<'static, Mesh<'static>> {
    MESH.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A namespace whose new pods are in the mesh.
fn meshed(stem: &str) -> Namespace<'static> {
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
fn client(name: &str, node: &str) -> Value {
    pod(name, json!({ "nodeName": node, "containers": [idle("main")] }))
}

/// A Deployment of one replica a node, and its Service.
fn deployment(name: &str, replicas: u32, container: Value, port: u16) -> Vec<Value> {
    let labels = json!({ "app": name });
    vec![
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": {
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": { "matchLabels": labels },
                    }],
                    "containers": [container],
                }},
            },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name },
            "spec": { "selector": labels, "ports": [{ "port": port }] },
        }),
    ]
}

/// nginx on both nodes, behind a Service.
fn web(name: &str) -> Vec<Value> {
    deployment(name, 2, named_server(), 80)
}

fn redis() -> Value {
    let command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"];
    container("redis", "outrigger.example/test/redis:local", &command)
}

/// What a client prints once it is answered.
fn answered(namespace: &Namespace, pod: &str, command: &[&str]) -> String {
    let what = format!("{} is answered", command.join(" "));
    harness::wait::until_some(&what, harness::wait::SOON * 3, || {
        let output = namespace.exec(pod, command)?;
        Ok(output.status.success().then_some(output.stdout))
    })
    .unwrap()
}
