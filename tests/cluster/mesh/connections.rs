//! Unmodified programs of a namespace in the mesh reach each other by Service names: spread, encrypted, with both identities.

use std::collections::BTreeSet;

use harness::cluster::LinkCapture;
use serde_json::{Value, json};

use super::{client, deployment, mesh, meshed, web};
use crate::common::{CLIENT, answered, cluster, container, postgres, psql, redis};

/// TLS 1.3 in the field of a ServerHello that says it.
const TLS_1_3: u16 = 0x0304;

const MESH_PORT: u16 = 15008;

#[test]
fn a_service_is_spread_over_both_nodes_in_tls_and_both_ends_are_known_by_name() {
    let mesh = mesh();
    let namespace = meshed("mesh-web");
    namespace.apply(&web("web")).unwrap();
    namespace.apply(&[client("client", "node-1")]).unwrap();
    for ready in ["deployment/web", "pod/client"] {
        let condition = if ready.starts_with("pod") {
            "Ready"
        } else {
            "Available"
        };
        namespace.wait(ready, &format!("condition={condition}")).unwrap();
    }
    let capture = LinkCapture::start(cluster()).unwrap();
    let mut who = BTreeSet::new();
    for _ in 0..40 {
        who.insert(answered(&namespace, "client", &["curl", "-sS", "http://web/"]));
    }
    let recording = capture.stop().unwrap();
    assert_eq!(who.len(), 2, "both replicas answer: {who:?}");
    // Pods of other tests talk in plaintext meanwhile.
    let client = namespace.get(&["pod", "client"]).unwrap();
    let address = client["status"]["podIP"].as_str().unwrap().to_owned();
    let asked = recording.who_sent(b"GET / HTTP/1.1");
    let ours = asked.iter().filter(|(from, _)| from.ip().to_string() == address);
    assert_eq!(ours.count(), 0, "a request crosses the link in plaintext");
    let versions = recording.tls_versions(MESH_PORT);
    assert!(
        !versions.is_empty() && versions.iter().all(|v| *v == TLS_1_3),
        "{versions:?}"
    );

    let name = namespace.name();
    let service = format!("{name}/web.{name}.svc.cluster.local");
    let identity = format!("spiffe://cluster.local/ns/{name}/sa/default");
    let flows = mesh.flows("node-1").unwrap();
    let ours: Vec<&Value> = flows
        .iter()
        .filter(|flow| flow["direction"] == "outbound" && flow["service"] == service.as_str())
        .collect();
    assert!(ours.len() >= 40, "{} of {} flows", ours.len(), flows.len());
    for flow in ours {
        assert_eq!(flow["pod"], format!("{name}/client"), "{flow}");
        assert_eq!(flow["transport"], "hbone", "{flow}");
        assert_eq!(flow["sourceIdentity"], identity.as_str(), "{flow}");
        assert_eq!(flow["destinationIdentity"], identity.as_str(), "{flow}");
    }
}

#[test]
fn redis_and_postgresql_serve_their_clients_through_the_mesh() {
    let _mesh = mesh();
    let namespace = meshed("mesh-databases");
    namespace.apply(&deployment("redis", 1, redis(), 6379)).unwrap();
    namespace
        .apply(&deployment("postgres", 1, postgres(), 5432))
        .unwrap();
    for node in ["node-1", "node-2"] {
        namespace
            .apply(&[client(&format!("client-{node}"), node)])
            .unwrap();
        namespace
            .wait(&format!("pod/client-{node}"), "condition=Ready")
            .unwrap();
        let pod = format!("client-{node}");
        assert_eq!(
            answered(&namespace, &pod, &["redis-cli", "-h", "redis", "PING"]),
            "PONG\n"
        );
        assert_eq!(answered(&namespace, &pod, &psql("postgres")), "42\n");
    }
}

/// Every pod dials every other by its own name, which the headless Service publishes before the pod is ready.
#[test]
fn pods_of_a_stateful_set_dial_each_other_before_they_are_ready() {
    let _mesh = mesh();
    let namespace = meshed("mesh-stateful");
    // iperf3 serves one client after another.
    let script = "iperf3 --server --daemon --logfile /tmp/served && \
        for peer in 0 1 2; do until nc.openbsd -z -w 5 peer-$peer.peers 5201; do sleep 0.2; done; done; \
        touch /tmp/ready; exec sleep infinity";
    let mut main = container("main", CLIENT, &["sh", "-c", script]);
    main["readinessProbe"] =
        json!({ "exec": { "command": ["test", "-e", "/tmp/ready"] }, "periodSeconds": 1 });
    let labels = json!({ "app": "peers" });
    namespace
        .apply(&[
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "peers" },
                "spec": { "clusterIP": "None", "publishNotReadyAddresses": true, "selector": labels, "ports": [{ "port": 5201 }] },
            }),
            json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "peer" },
                "spec": {
                    "serviceName": "peers", "replicas": 3, "podManagementPolicy": "Parallel",
                    "selector": { "matchLabels": labels },
                    "template": { "metadata": { "labels": labels }, "spec": { "containers": [main], "terminationGracePeriodSeconds": 1 } },
                },
            }),
        ])
        .unwrap();
    namespace
        .wait("statefulset/peer", "jsonpath={.status.readyReplicas}=3")
        .unwrap();
}
