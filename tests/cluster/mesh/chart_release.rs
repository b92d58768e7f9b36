//! The chart as a release of Helm: an upgrade from the version before and the way back, under load; and `helm test`, which fails when
//! control does not sign.

use std::path::PathBuf;
use std::time::Duration;

use harness::chart;
use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Mesh, Namespace};
use harness::wait::{self, SOON};
use serde_json::Value;

use super::load::{Load, served};
use super::{client, mesh_alone};
use crate::chart::published;
use crate::common::{answered, cluster, named_server};

const NODES: [&str; 2] = ["node-1", "node-2"];

/// Every pod of a namespace, with how often its containers have been started again.
fn pods(namespace: &Namespace) -> Vec<String> {
    let list = namespace.get(&["pods"]).unwrap();
    let mut pods: Vec<String> = list["items"].as_array().unwrap().iter().map(started).collect();
    pods.sort();
    pods
}

fn started(pod: &Value) -> String {
    let of = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
    let all = [of("initContainerStatuses"), of("containerStatuses")].concat();
    let restarts: u64 = all.iter().filter_map(|one| one["restartCount"].as_u64()).sum();
    format!("{} {restarts}", pod["metadata"]["uid"])
}

/// The versions of charts in the labels of what is installed.
fn versions(mesh: &Mesh) -> Vec<String> {
    let kinds = "daemonsets,deployments,services,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";
    let label = "--selector=app.kubernetes.io/name=outrigger";
    let list = mesh
        .kubectl()
        .get(&["--namespace", SYSTEM, kinds, label])
        .unwrap();
    let labels = list["items"].as_array().unwrap().iter();
    let mut versions: Vec<String> = labels
        .map(|object| object["metadata"]["labels"]["helm.sh/chart"].to_string())
        .collect();
    versions.sort();
    versions.dedup();
    versions
}

#[test]
fn an_upgrade_from_the_chart_before_and_the_way_back_cost_no_connection_and_no_pod() {
    let mesh = mesh_alone();
    let (before, archive): (String, PathBuf) = published().pop().unwrap();
    mesh.uninstall().unwrap();
    mesh.upgrade_to(&archive).unwrap();
    let (first, installed) = mesh.revision().unwrap();
    assert_eq!(installed, format!("outrigger-{before}"));
    assert_eq!(versions(&mesh), [format!("\"outrigger-{before}\"")]);

    let namespace = served("chart-upgrade", named_server(), &NODES.map(|node| (node, node)));
    let running = pods(&namespace);
    let loads = NODES.map(|pod| Load::start(&namespace, pod));

    let kept = mesh.upgrade_with(&["--reuse-values"]).unwrap_err();
    let why = "these are the values of an older chart";
    assert!(format!("{kept:#}").contains(why), "{kept:#}");
    mesh.upgrade_with(&["--reset-then-reuse-values"]).unwrap();
    let now = format!("outrigger-{}", chart::version().unwrap());
    let (second, installed) = mesh.revision().unwrap();
    assert_eq!(installed, now);
    assert!(second > first, "{second} after {first}");
    assert_eq!(
        versions(&mesh),
        [format!("\"{now}\"")],
        "an object is as it was before"
    );
    loads.iter().for_each(Load::goes_on);
    // A pod that starts now is in the mesh with those of before.
    namespace.apply(&[client("new", "node-2")]).unwrap();
    namespace.wait("pod/new", "condition=Ready").unwrap();
    answered(&namespace, "new", &["curl", "-sS", "--fail", "http://web/"]);

    mesh.rollback(first).unwrap();
    assert_eq!(versions(&mesh), [format!("\"outrigger-{before}\"")]);
    mesh.upgrade(&[]).unwrap();

    for load in loads {
        load.demand_all();
    }
    let still = pods(&namespace);
    let lost: Vec<&String> = running.iter().filter(|pod| !still.contains(pod)).collect();
    assert!(lost.is_empty(), "{lost:?} of {still:?}");
}

fn scale(mesh: &Mesh, replicas: &str) {
    let replicas = format!("--replicas={replicas}");
    let scale = [
        "--namespace",
        SYSTEM,
        "scale",
        "deployment/outrigger-control",
        &replicas,
    ];
    mesh.kubectl().run(&scale).unwrap();
}

fn tested(mesh: &Mesh) -> Option<Value> {
    let pod = ["--namespace", SYSTEM, "pod", "outrigger-test-certificate"];
    mesh.kubectl().get(&pod).ok()
}

#[test]
fn helm_test_succeeds_while_control_signs_and_fails_with_the_reason_while_it_does_not() {
    const ENOUGH: Duration = Duration::from_secs(90);
    let mesh = mesh_alone();
    let good = mesh.test(ENOUGH).unwrap();
    assert!(good.status.success(), "{good:?}");
    assert!(good.stdout.contains("Succeeded"), "{good:?}");
    assert!(tested(&mesh).is_none(), "the pod of a test that succeeds is left");

    scale(&mesh, "0");
    wait::until("control is away", SOON * 3, || {
        let label = "--selector=app.kubernetes.io/component=control";
        let pods = mesh.kubectl().get(&["--namespace", SYSTEM, "pods", label]);
        pods.is_ok_and(|pods| pods["items"].as_array().is_some_and(Vec::is_empty))
    })
    .unwrap();
    let bad = mesh.test(ENOUGH).unwrap();
    scale(&mesh, "2");
    assert!(!bad.status.success(), "{bad:?}");
    let said = format!("{}{}", bad.stdout, bad.stderr);
    assert!(said.contains("cannot reach the authority"), "{said}");
    let failed = tested(&mesh).expect("the pod of a test that fails stays");
    assert_eq!(failed["status"]["phase"], "Failed", "{failed}");

    let status = [
        "--namespace",
        SYSTEM,
        "rollout",
        "status",
        "deployment/outrigger-control",
        "--timeout=100s",
    ];
    mesh.kubectl().run(&status).unwrap();
    // It takes the place of the one that has failed.
    mesh.test(ENOUGH).unwrap().ok().unwrap();
    assert!(tested(&mesh).is_none());
}

/// A drain of two nodes at once asks for just this.
#[test]
fn one_replica_of_control_is_evicted_and_the_other_one_stays() {
    let mesh = mesh_alone();
    let label = "--selector=app.kubernetes.io/component=control";
    let list = mesh
        .kubectl()
        .get(&["--namespace", SYSTEM, "pods", label])
        .unwrap();
    let pods = list["items"].as_array().unwrap().iter();
    let names: Vec<&str> = pods.filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let evicted: Vec<_> = names.iter().map(|name| evict(name)).collect();
    let status = [
        "--namespace",
        SYSTEM,
        "rollout",
        "status",
        "deployment/outrigger-control",
        "--timeout=100s",
    ];
    mesh.kubectl().run(&status).unwrap();
    assert_eq!(evicted[0], Ok(()));
    let refused = evicted[1].as_ref().unwrap_err();
    assert!(
        refused.contains("violate the pod's disruption budget"),
        "{refused}"
    );
}

/// As `kubectl drain` asks for it.
fn evict(pod: &str) -> Result<(), String> {
    let eviction = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod, "namespace": SYSTEM },
    });
    let file = std::env::temp_dir().join(format!("outrigger-eviction-{}", std::process::id()));
    std::fs::write(&file, eviction.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}/eviction");
    let create = [
        "create",
        "--raw",
        &path,
        "--filename",
        &file.display().to_string(),
    ];
    let output = cluster().kubectl().output(&create).unwrap();
    std::fs::remove_file(&file).unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(output.stderr),
    }
}
