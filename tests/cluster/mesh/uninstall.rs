//! Outrigger is taken away again: nothing of it stays on a node.

use harness::cluster::Mesh;
use harness::wait::{self, SOON};

use super::{client, mesh_alone, meshed};
use crate::common::cluster;

#[test]
fn uninstalling_leaves_the_nodes_clean_and_pods_that_start_again_are_as_before() {
    let mesh = mesh_alone();
    let installed = |node| cluster().installed_pods(node).unwrap();
    let namespace = meshed("uninstall");
    for node in ["node-1", "node-2"] {
        namespace.apply(&[client(node, node)]).unwrap();
        namespace.wait(&format!("pod/{node}"), "condition=Ready").unwrap();
        assert!(!installed(node).is_empty());
    }
    namespace
        .kubectl()
        .run(&[
            "--namespace",
            namespace.name(),
            "delete",
            "pods",
            "--all",
            "--timeout=60s",
        ])
        .unwrap();
    mesh.uninstall().unwrap();
    for node in ["node-1", "node-2"] {
        wait::until("nothing is pinned", SOON, || installed(node).is_empty()).unwrap();
    }
    wait::until("nothing of it is left", SOON * 3, || {
        let kinds =
            "all,mutatingadmissionpolicies,validatingadmissionpolicies,clusterroles,clusterrolebindings";
        let label = "--selector=app.kubernetes.io/name=outrigger";
        let left = ["get", kinds, "--all-namespaces", label, "--output=name"];
        mesh.kubectl().run(&left).unwrap().trim().is_empty()
    })
    .unwrap();
    // A pod of the namespace starts without it.
    namespace.apply(&[client("after", "node-1")]).unwrap();
    namespace.wait("pod/after", "condition=Ready").unwrap();
    let pod = namespace.get(&["pod", "after"]).unwrap();
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
    Mesh::install(cluster()).unwrap();
}
