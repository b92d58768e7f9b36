//! Outrigger as a release: where its pods run, that other values start them again, and that it installs without Helm just so.

use std::collections::BTreeSet;
use std::fs;

use harness::cgroup;
use harness::chart::{self, RENDERINGS};
use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Kubectl, Mesh};
use serde_json::Value;

use super::{mesh, mesh_alone};
use crate::common::cluster;

/// Of the pods of a part that are not on their way out: where they run, and their uids.
fn pods(kubectl: Kubectl, component: &str) -> Vec<(String, String)> {
    let label =
        format!("--selector=app.kubernetes.io/name=outrigger,app.kubernetes.io/component={component}");
    let list = kubectl.get(&["--namespace", SYSTEM, "pods", &label]).unwrap();
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let pods = list["items"].as_array().unwrap().iter().filter(stays);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    pods.map(|pod| (text(&pod["spec"]["nodeName"]), text(&pod["metadata"]["uid"])))
        .collect()
}

fn settled(kubectl: Kubectl) {
    for what in ["daemonset/outrigger-agent", "deployment/outrigger-control"] {
        let status = ["--namespace", SYSTEM, "rollout", "status", what, "--timeout=50s"];
        kubectl.run(&status).unwrap();
    }
}

#[test]
fn every_node_has_an_agent_and_control_is_on_both() {
    let mesh = mesh();
    for component in ["agent", "control"] {
        let nodes: Vec<String> = pods(mesh.kubectl(), component)
            .into_iter()
            .map(|(node, _)| node)
            .collect();
        assert_eq!(nodes.len(), 2, "{component}: {nodes:?}");
        let nodes: BTreeSet<String> = nodes.into_iter().collect();
        assert_eq!(nodes.len(), 2, "{component}: {nodes:?}");
    }
}

#[test]
fn an_upgrade_starts_every_pod_again_whose_values_are_others_and_no_other_pod() {
    let mesh = mesh_alone();
    let before = ["agent", "control"].map(|component| pods(mesh.kubectl(), component));
    mesh.upgrade(&["agent.podAnnotations.try=two"]).unwrap();
    settled(mesh.kubectl());
    let after = ["agent", "control"].map(|component| pods(mesh.kubectl(), component));
    for one in &before[0] {
        assert!(!after[0].contains(one), "the agent on {} is the same", one.0);
    }
    assert_eq!(before[1], after[1], "control's values are the same");
    mesh.upgrade(&[]).unwrap();
    settled(mesh.kubectl());
}

/// What is different between anybody's cluster and this one is replaced in the text, as a user does it.
#[test]
fn the_manifests_install_the_same_without_helm() {
    let mesh = mesh_alone();
    let kubectl = mesh.kubectl();
    mesh.uninstall().unwrap();
    let text = fs::read_to_string(RENDERINGS[0].path()).unwrap();
    let version = format!("outrigger.example/outrigger:{}", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version));
    let text = text
        .replace(&version, "outrigger.example/outrigger:local")
        .replace(
            "path: /sys/fs/cgroup\n",
            &format!("path: {}\n", cgroup::mount().unwrap().display()),
        );
    let file = std::env::temp_dir().join(format!("outrigger-manifests-{}.yaml", std::process::id()));
    fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let namespace = chart::root().join("deploy/manifests/namespace.yaml");
    let namespace = namespace.display().to_string();
    kubectl.run(&["apply", "--filename", &namespace]).unwrap();
    let apply = ["apply", "--server-side", "--validate=strict", "--filename", &file];
    kubectl.run(&apply).unwrap();
    settled(kubectl);
    kubectl.run(&["delete", "--wait", "--filename", &file]).unwrap();
    fs::remove_file(&file).unwrap();
    Mesh::install(cluster()).unwrap();
}
