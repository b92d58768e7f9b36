//! The cluster itself: two nodes that take pods, no netfilter rule, names and the API server within reach of pods.

use harness::cluster::Namespace;
use harness::netfilter;
use harness::netns::Netns;
use serde_json::json;

use crate::common::{cluster, idle, pod};

#[test]
fn two_nodes_are_ready_in_zones_of_their_own() {
    let nodes = cluster().kubectl().get(&["nodes"]).unwrap();
    let mut found: Vec<(&str, &str, bool)> = nodes["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let conditions = node["status"]["conditions"].as_array().unwrap();
            let is_ready = conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            let labels = &node["metadata"]["labels"];
            (
                node["metadata"]["name"].as_str().unwrap(),
                labels["topology.kubernetes.io/zone"].as_str().unwrap(),
                is_ready,
            )
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("node-1", "zone-1", true), ("node-2", "zone-2", true)]);
}

#[test]
fn nodes_and_their_pods_have_an_address_of_each_family_and_ipv4_is_the_first() {
    let families = |ips: Vec<&str>| -> Vec<bool> { ips.iter().map(|ip| ip.contains(':')).collect() };
    let nodes = cluster().kubectl().get(&["nodes"]).unwrap();
    for node in nodes["items"].as_array().unwrap() {
        let ips = node["status"]["addresses"].as_array().unwrap().iter();
        let ips = ips.filter(|address| address["type"] == "InternalIP");
        let ips = ips.map(|address| address["address"].as_str().unwrap()).collect();
        assert_eq!(families(ips), [false, true], "{node}");
    }
    let namespace = Namespace::create(cluster().kubectl(), "families").unwrap();
    for host_network in [false, true] {
        let name = format!("host-network-{host_network}");
        let spec = json!({ "hostNetwork": host_network, "containers": [idle("main")] });
        namespace.apply(&[pod(&name, spec)]).unwrap();
        namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
        let pod = namespace.get(&["pod", &name]).unwrap();
        let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
        let ips = ips.map(|ip| ip["ip"].as_str().unwrap()).collect();
        assert_eq!(families(ips), [false, true], "{pod}");
    }
}

#[test]
fn the_server_says_which_version_it_is() {
    let version = cluster().kubectl().run(&["get", "--raw=/version"]).unwrap();
    assert!(version.contains("\"gitVersion\": \"v1.36.4\""), "{version}");
}

#[test]
fn pods_find_services_by_name_and_the_api_server_by_its_service_address() {
    let namespace = Namespace::create(cluster().kubectl(), "names").unwrap();
    for (name, node) in [("one", "node-1"), ("two", "node-2")] {
        let spec = json!({ "nodeName": node, "containers": [idle("main")] });
        namespace.apply(&[pod(name, spec)]).unwrap();
        namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
        let found = namespace
            .exec(name, &["getent", "hosts", "kubernetes.default"])
            .unwrap()
            .ok()
            .unwrap();
        assert!(found.starts_with("10.96.0.1 "), "on {node}: {found}");
        let url = "https://kubernetes.default.svc/version";
        let root = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        let answer = namespace
            .exec(name, &["curl", "-sS", "--cacert", root, url])
            .unwrap()
            .ok()
            .unwrap();
        assert!(answer.contains("v1.36.4"), "on {node}: {answer}");
    }
}

#[test]
fn no_node_has_a_netfilter_rule() {
    for node in &cluster().nodes {
        let netns = Netns::open(&harness::cluster::netns(&node.name)).unwrap();
        let rules = netfilter::tables(&netns).unwrap();
        assert_eq!(rules, 0, "tables on {}", node.name);
    }
}
