//! Pods as the API server writes them.

use serde_json::{Value, json};

use super::*;

fn read(spec: Value, status: Value) -> WorkloadPod {
    let metadata = json!({"name": "a", "namespace": "demo", "labels": {"app": "echo"}, "ownerReferences": [
        {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "echo-5d4f", "uid": "2", "controller": true}]});
    let object = json!({"metadata": metadata, "spec": spec, "status": status});
    serde_json::from_value::<Object>(object).unwrap().read()
}

#[test]
fn a_pod_is_read_with_what_its_peers_need() {
    let pod = read(
        json!({"nodeName": "n1", "serviceAccountName": "web", "containers": [{"name": "app", "image": "i"}],
               "initContainers": [{"name": "outrigger-proxy", "restartPolicy": "Always"}]}),
        json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
               "conditions": [{"type": "Ready", "status": "True"}]}),
    );
    assert_eq!(pod.name, ObjectName::new("demo", "a"));
    assert_eq!((&*pod.service_account, &*pod.node), ("web", "n1"));
    let addresses: Vec<IpAddr> = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into();
    assert_eq!(pod.addresses, addresses);
    assert!(pod.has_proxy && pod.ready && !pod.finished && !pod.host_network);
    assert_eq!(pod.owner.unwrap().name, "echo-5d4f");
    assert_eq!(pod.labels["app"], "echo");
}

#[test]
fn a_container_of_our_name_that_is_no_init_container_is_no_sidecar() {
    let spec = json!({"containers": [{"name": "outrigger-proxy"}], "hostNetwork": true});
    let pod = read(spec, json!({"phase": "Failed", "podIP": "10.0.0.1"}));
    assert!(!pod.has_proxy && pod.host_network && pod.finished && !pod.ready);
    assert_eq!(
        (pod.addresses.len(), &*pod.service_account, &*pod.node),
        (1, "default", "")
    );
}

#[test]
fn a_pod_that_waits_for_its_network_has_no_address() {
    let pod = read(json!({}), json!({"phase": "Pending"}));
    assert_eq!(pod.addresses, Vec::<IpAddr>::new());
}
