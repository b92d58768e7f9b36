//! Outrigger is taken away again: nothing of it stays on a node.

use harness::cluster::Mesh;
use harness::cluster::mesh::SYSTEM;
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

/// Objects of every kind that the API server has, anywhere, with our name or our label.
fn objects(mesh: &Mesh) -> Vec<String> {
    let kinds = mesh
        .kubectl()
        .run(&["api-resources", "--verbs=list", "--output=name"])
        .unwrap();
    // What has happened is told for an hour, whatever has become of it.
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let fields =
        "{range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.labels}{\"\\n\"}{end}";
    let output = format!("--output=jsonpath={fields}");
    let get = [
        "get",
        &kinds.join(","),
        "--all-namespaces",
        "--ignore-not-found",
        &output,
    ];
    let listed = mesh.kubectl().run(&get).unwrap();
    let ours = listed.lines().filter_map(|line| {
        let mut words = line.splitn(3, ' ');
        let (kind, name, labels) = (words.next()?, words.next()?, words.next()?);
        let (namespace, plain) = name.split_once('/')?;
        let label = labels.contains(r#""app.kubernetes.io/name":"outrigger""#);
        // The roots are copied into namespaces of tests, which may still be going.
        let is_ours = label || (plain.contains("outrigger") && ["", SYSTEM].contains(&namespace));
        is_ours.then(|| format!("{kind} {name}"))
    });
    let mut ours: Vec<String> = ours.collect();
    ours.sort();
    ours
}

fn until_there_is(mesh: &Mesh, expected: &[&str]) {
    let mut left = Vec::new();
    let waited = wait::until("no more than that is left", SOON * 3, || {
        left = objects(mesh);
        left == expected
    });
    assert!(waited.is_ok(), "{left:#?}");
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
    let there = objects(&mesh);
    for one in [
        "DaemonSet outrigger-system/outrigger-agent",
        "ClusterRole /outrigger-view",
        "ValidatingAdmissionPolicy /outrigger-require",
        "PodDisruptionBudget outrigger-system/outrigger-control",
    ] {
        assert!(there.iter().any(|found| found == one), "no {one}: {there:#?}");
    }
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
    // Helm does not know what control has made: the key stays for a new installation.
    until_there_is(
        &mesh,
        &[
            "ConfigMap outrigger-system/outrigger-ca",
            "Namespace /outrigger-system",
            "Secret outrigger-system/outrigger-ca",
        ],
    );
    for delete in [
        ["delete", "namespace", SYSTEM, "--timeout=60s"],
        // There is one where a test of pod certificates was before this one.
        [
            "delete",
            "clustertrustbundle",
            "outrigger.example:workload:root",
            "--ignore-not-found",
        ],
    ] {
        mesh.kubectl().run(&delete).unwrap();
    }
    until_there_is(&mesh, &[]);
    // A pod of the namespace starts without it.
    namespace.apply(&[client("after", "node-1")]).unwrap();
    namespace.wait("pod/after", "condition=Ready").unwrap();
    let pod = namespace.get(&["pod", "after"]).unwrap();
    assert!(pod["spec"]["initContainers"].is_null(), "{pod}");
    Mesh::install(cluster()).unwrap();
}
