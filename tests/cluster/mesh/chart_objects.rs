//! What the chart's objects select is there: the ports that a Prometheus is sent to answer with metrics, and the pods that a quota counts.

use std::collections::BTreeSet;
use std::fs;

use harness::chart::RENDERINGS;
use harness::cluster::mesh::SYSTEM;
use harness::wait::{self, SOON};
use serde_json::Value;

use super::{client, mesh, mesh_alone, meshed};
use crate::common::cluster;

/// Of a PodMonitor in rendered text: its name, the component that it selects, if it selects one, and the name of the port.
fn monitors(rendered: &str) -> Vec<(String, Option<String>, String)> {
    let objects = rendered.split("\n---\n");
    let monitors = objects.filter(|object| object.contains("\nkind: PodMonitor\n"));
    let field = |text: &str, name: &str| {
        let mut lines = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(name));
        lines.next().map(|value| value.trim().to_owned())
    };
    let monitor = |object: &str| {
        let (metadata, spec) = object.split_once("\nspec:\n").unwrap();
        (
            field(metadata, "name:").unwrap(),
            field(spec, "app.kubernetes.io/component:"),
            field(spec, "- port:").unwrap(),
        )
    };
    monitors.map(monitor).collect()
}

/// Number and name of each port that the containers of a pod have.
fn ports(pod: &Value) -> Vec<(u64, &str)> {
    let containers = ["initContainers", "containers"].iter();
    let containers = containers
        .filter_map(|list| pod["spec"][list].as_array())
        .flatten();
    let ports = containers.filter_map(|one| one["ports"].as_array()).flatten();
    ports
        .filter_map(|port| Some((port["containerPort"].as_u64()?, port["name"].as_str()?)))
        .collect()
}

#[test]
fn the_pods_that_the_charts_pod_monitors_select_answer_with_their_metrics() {
    let _installed = mesh();
    let namespace = meshed("monitored");
    namespace.apply(&[client("client", "node-1")]).unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    let rendered = fs::read_to_string(RENDERINGS[1].path()).unwrap();
    let monitors = monitors(&rendered);
    let names: BTreeSet<&str> = monitors.iter().map(|(name, ..)| name.as_str()).collect();
    let expected = ["outrigger-agent", "outrigger-control", "outrigger-sidecars"];
    assert_eq!(names, BTreeSet::from(expected));

    for (name, component, port) in &monitors {
        let place = match component {
            Some(_) => SYSTEM,
            None => namespace.name(),
        };
        let label = component
            .as_ref()
            .map(|component| format!("--selector=app.kubernetes.io/component={component}"));
        let mut get = vec!["--namespace", place, "pods"];
        get.extend(label.as_deref());
        let pods = cluster().kubectl().get(&get).unwrap();
        let pods = pods["items"].as_array().unwrap().iter();
        let pods: Vec<&Value> = pods
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .collect();
        assert_eq!(pods.len(), if component.is_some() { 2 } else { 1 }, "{name}");
        for pod in pods {
            let found: Vec<u64> = ports(pod)
                .iter()
                .filter_map(|(number, found)| (found == port).then_some(*number))
                .collect();
            let &[number] = &found[..] else {
                panic!(
                    "{name}: {found:?} are the ports `{port}` of {}",
                    pod["metadata"]["name"]
                );
            };
            let said = scraped(place, pod["metadata"]["name"].as_str().unwrap(), number);
            assert!(said.contains("outrigger_build_info"), "{name}: {said}");
        }
    }
}

/// A quota that named other classes than those of the pods would count none, and let none in where it is asked for.
#[test]
fn the_quota_of_priorities_counts_the_agents_and_control() {
    let mesh = mesh_alone();
    mesh.upgrade(&["resourceQuota.enabled=true"]).unwrap();
    let quota = ["--namespace", SYSTEM, "resourcequota", "outrigger-priorities"];
    let mut status = Value::Null;
    let counted = wait::until("the pods of both are counted", SOON, || {
        status = cluster().kubectl().get(&quota).unwrap()["status"].clone();
        status["used"]["pods"] == "4"
    });
    mesh.upgrade(&[]).unwrap();
    assert!(counted.is_ok(), "{status}");
}

/// By the API server, which asks the pod's address.
fn scraped(namespace: &str, pod: &str, port: u64) -> String {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics");
    let output = cluster().kubectl().output(&["get", "--raw", &path]).unwrap();
    format!("{}{}", output.stdout, output.stderr)
}
