//! What of a pod is not as somebody may expect it to be once it has a sidecar. Refuses nothing.

use serde_json::Value;

use super::container::{ADMIN_PORT, HBONE_PORT, STATUS_PORT};
use super::pod::{containers, list};

pub(super) fn of(pod: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let policy = pod["spec"]["dnsPolicy"].as_str().unwrap_or("ClusterFirst");
    if !policy.starts_with("ClusterFirst") {
        warnings.push(format!(
            "dnsPolicy {policy}: names of Services may not resolve, and only what is dialled by a Service's or a pod's address is \
             secured"
        ));
    }
    for container in containers(pod) {
        let name = container["name"].as_str().unwrap_or_default();
        for port in list(container, "ports") {
            let number = &port["containerPort"];
            if port["protocol"] == "UDP" {
                warnings.push(format!(
                    "container {name}, port {number}: UDP passes the sidecar by, unsecured"
                ));
            } else if number.as_u64().is_some_and(is_ours) {
                warnings.push(format!(
                    "container {name}, port {number}: the sidecar listens there; give it another"
                ));
            }
        }
    }
    warnings
}

fn is_ours(port: u64) -> bool {
    [ADMIN_PORT, HBONE_PORT, STATUS_PORT]
        .map(u64::from)
        .contains(&port)
}
