//! CoreDNS on every node, in the node's network, at the service address that pods have in their `resolv.conf`. That address is the
//! node's own, so names are found without anybody who balances services.

use anyhow::Result;
use harness::cluster::Cluster;
use harness::wait;
use serde_json::{Value, json};

use super::images;
use super::node::DNS_SERVICE;
use super::up::LIMIT;

/// What the names of Services end in: as the kubelets have it, and another one, for a mesh that is told that.
const COREFILE: &str = "
.:53 {
    bind ADDRESS
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local corp.example in-addr.arpa ip6.arpa {
        pods verified
    }
    cache 5
}
";

pub(super) fn apply(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    wait::until("the namespace of the system", LIMIT, || {
        kubectl.get(&["namespace", "kube-system"]).is_ok()
    })?;
    kubectl.apply(&objects())
}

pub(super) fn await_ready(cluster: &Cluster) -> Result<()> {
    let rollout = [
        "--namespace=kube-system",
        "rollout",
        "status",
        "daemonset/coredns",
        "--timeout=5s",
    ];
    let kubectl = cluster.kubectl();
    wait::until("CoreDNS is ready on every node", LIMIT, || {
        kubectl
            .output(&rollout)
            .is_ok_and(|output| output.status.success())
    })
}

fn objects() -> Vec<Value> {
    let labels = json!({ "k8s-app": "kube-dns" });
    let name = json!({ "name": "coredns", "namespace": "kube-system" });
    let rule = |groups: &[&str], resources: &[&str]| json!({ "apiGroups": groups, "resources": resources, "verbs": ["list", "watch"] });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": name }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": "system:coredns" },
            "rules": [
                rule(&[""], &["services", "pods", "namespaces"]),
                rule(&["discovery.k8s.io"], &["endpointslices"]),
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": name,
            "data": { "Corefile": COREFILE.replace("ADDRESS", &DNS_SERVICE.to_string()) },
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": labels },
            "spec": {
                "clusterIP": DNS_SERVICE,
                "selector": labels,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP" },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
                ],
            },
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": name,
            "spec": {
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod() },
            },
        }),
    ]
}

fn pod() -> Value {
    json!({
        "serviceAccountName": "coredns",
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "priorityClassName": "system-node-critical",
        "tolerations": [{ "operator": "Exists" }],
        "containers": [{
            "name": "coredns",
            "image": images::COREDNS,
            "imagePullPolicy": "Never",
            "args": ["-conf", "/etc/coredns/Corefile"],
            "readinessProbe": {
                "httpGet": { "path": "/ready", "port": 8181, "host": "127.0.0.1" },
                "periodSeconds": 1,
            },
            "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
        }],
        "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
    })
}
