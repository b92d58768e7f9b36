//! Outrigger is taken away again: nothing of it stays on a node.

use harness::cluster::Mesh;
use harness::wait::{self, SOON};
use serde_json::Value;

use super::{client, mesh_alone, meshed};
use crate::common::cluster;

/// Pods with a sidecar, anywhere: those of tests before this one may still be on their way out.
fn meshed_pods(mesh: &Mesh) -> Vec<String> {
    let pods = mesh.kubectl().get(&["pods", "--all-namespaces"]).unwrap();
    let has_sidecar = |pod: &&Value| {
        let containers = pod["spec"]["initContainers"].as_array();
        containers.is_some_and(|all| all.iter().any(|one| one["name"] == "outrigger-proxy"))
    };
    let pods = pods["items"].as_array().unwrap().iter().filter(has_sidecar);
    pods.map(|pod| format!("{}/{}", pod["metadata"]["namespace"], pod["metadata"]["name"]))
        .collect()
}

#[test]
fn uninstalling_leaves_the_nodes_clean_and_pods_that_start_again_are_as_before() {
    let mesh = mesh_alone();
    let remains = |node| cluster().remains(node).unwrap();
    let namespace = meshed("uninstall");
    for node in ["node-1", "node-2"] {
        namespace.apply(&[client(node, node)]).unwrap();
        namespace.wait(&format!("pod/{node}"), "condition=Ready").unwrap();
        // What is looked for is there to be found.
        let there = remains(node);
        for kind in [
            "/bpf/outrigger/node/maps/",
            "/bpf/outrigger/pods/",
            "/run/outrigger/agent.sock",
            "process ",
            "program or_connect4 is attached to Cgroup",
            "program or_sk_lookup is attached to Netns",
        ] {
            assert!(
                there.iter().any(|one| one.contains(kind)),
                "no {kind} on {node}: {there:#?}"
            );
        }
    }
    let delete = [
        "--namespace",
        namespace.name(),
        "delete",
        "pods",
        "--all",
        "--timeout=60s",
    ];
    namespace.kubectl().run(&delete).unwrap();
    wait::until("no pod has a sidecar", SOON * 3, || meshed_pods(&mesh).is_empty()).unwrap();
    // The agents may not even know yet that the pods are gone.
    mesh.uninstall().unwrap();
    for node in ["node-1", "node-2"] {
        wait::until("its processes have ended", SOON * 3, || {
            !remains(node).iter().any(|one| one.starts_with("process "))
        })
        .unwrap();
        let left = remains(node);
        assert!(left.is_empty(), "on {node}: {left:#?}");
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
