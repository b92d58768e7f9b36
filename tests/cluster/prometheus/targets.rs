//! Targets as Prometheus' own discovery of pods makes them, for a Prometheus that was built without it, as Debian's is: one for each port of each
//! container, with what is known of it in labels that begin with `__meta_kubernetes_`.

use serde_json::{Map, Value, json};

/// The discovery in `scrape.yaml`, and what stands for it here.
const DISCOVERY: &str = "    kubernetes_sd_configs:\n      - role: pod\n";

/// The jobs of `scrape.yaml` with the targets of this file.
pub(super) fn jobs(scrape: &str, file: &str) -> String {
    assert_eq!(
        scrape.matches("job_name:").count(),
        scrape.matches(DISCOVERY).count()
    );
    scrape.replace(
        DISCOVERY,
        &format!("    file_sd_configs:\n      - files: [{file}]\n"),
    )
}

/// Of pods as the API server lists them, for a file of targets.
pub(super) fn of_pods<'a>(pods: impl IntoIterator<Item = &'a Value>) -> String {
    let targets: Vec<Value> = pods.into_iter().flat_map(of_pod).collect();
    Value::from(targets).to_string()
}

fn of_pod(pod: &Value) -> Vec<Value> {
    let Some(address) = pod["status"]["podIP"].as_str() else {
        return Vec::new();
    };
    let mut known = Map::new();
    let mut say = |name: String, value: &Value| {
        known.insert(format!("__meta_kubernetes_{name}"), value.clone());
    };
    say("namespace".into(), &pod["metadata"]["namespace"]);
    say("pod_name".into(), &pod["metadata"]["name"]);
    say("pod_node_name".into(), &pod["spec"]["nodeName"]);
    say("pod_phase".into(), &pod["status"]["phase"]);
    for (name, value) in pod["metadata"]["labels"].as_object().into_iter().flatten() {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        say(format!("pod_label_{name}"), value);
    }
    let kinds = ["containers", "initContainers"].iter();
    let containers = kinds.filter_map(|kind| pod["spec"][kind].as_array()).flatten();
    let ports = containers.flat_map(|container| {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.map(move |port| (container, port))
    });
    ports
        .map(|(container, port)| {
            let mut labels = known.clone();
            let mut say = |name: &str, value: &Value| {
                // A label is text, and one that is empty is none.
                let value = value.as_str().unwrap_or_default();
                labels.insert(format!("__meta_kubernetes_pod_container_{name}"), value.into());
            };
            say("name", &container["name"]);
            say("port_name", &port["name"]);
            json!({ "targets": [format!("{address}:{}", port["containerPort"])], "labels": labels })
        })
        .collect()
}
