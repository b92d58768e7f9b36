//! Strict mode: plaintext from outside of the mesh is refused, and the kubelet's probes tell the truth all the same.

use harness::cluster::Namespace;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{client, mesh, meshed};
use crate::common::{NGINX, answered, cluster, container, named_server, pod};

fn address(namespace: &Namespace, name: &str) -> String {
    let pod = namespace.get(&["pod", name]).unwrap();
    pod["status"]["podIP"].as_str().unwrap().to_owned()
}

#[test]
fn strict_mode_refuses_a_pod_outside_of_the_mesh_and_takes_one_inside() {
    let _mesh = mesh();
    let namespace = meshed("strict");
    let mut server = pod(
        "server",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    server["metadata"]["annotations"] = json!({ "outrigger.example/mode": "strict" });
    let outside = Namespace::create(cluster().kubectl(), "outside").unwrap();
    namespace.apply(&[server, client("inside", "node-1")]).unwrap();
    outside.apply(&[client("outside", "node-1")]).unwrap();
    // It is ready by the kubelet's probe, which comes in plaintext.
    namespace.wait("pod/server", "condition=Ready").unwrap();
    namespace.wait("pod/inside", "condition=Ready").unwrap();
    outside.wait("pod/outside", "condition=Ready").unwrap();
    let url = format!("http://{}/", address(&namespace, "server"));
    assert_eq!(answered(&namespace, "inside", &["curl", "-sS", &url]), "server\n");
    let refused = outside
        .exec("outside", &["curl", "-sS", "-m", "5", &url])
        .unwrap();
    assert!(!refused.status.success(), "{refused:?}");
}

/// nginx beside a shell that lives on without it.
fn mortal_server() -> serde_json::Value {
    let script = "printf '%s' 'pid /tmp/nginx.pid; events { } http { server { listen 80; location / { return 200; } } }' >/tmp/nginx.conf; \
        nginx -c /tmp/nginx.conf; exec sleep infinity";
    container("nginx", NGINX, &["sh", "-c", script])
}

#[test]
fn probes_of_every_kind_fail_once_the_application_is_dead() {
    let _mesh = mesh();
    for mode in ["permissive", "strict"] {
        let namespace = meshed(&format!("probes-{mode}"));
        let probes = [
            ("tcp", json!({ "tcpSocket": { "port": 80 } })),
            ("http", json!({ "httpGet": { "path": "/", "port": 80 } })),
        ];
        for (name, probe) in &probes {
            let mut server = mortal_server();
            server["readinessProbe"] = probe.clone();
            server["readinessProbe"]["periodSeconds"] = 1.into();
            server["readinessProbe"]["failureThreshold"] = 1.into();
            let mut pod = pod(
                name,
                json!({ "containers": [server], "terminationGracePeriodSeconds": 1 }),
            );
            pod["metadata"]["annotations"] = json!({ "outrigger.example/mode": mode });
            namespace.apply(&[pod]).unwrap();
        }
        // etcd answers gRPC's health service at the port of its clients.
        let script = [
            "/etcd",
            "--data-dir=/tmp/data",
            "--listen-client-urls=http://0.0.0.0:2379",
            "--advertise-client-urls=http://0.0.0.0:2379",
        ];
        let mut etcd = container("etcd", "outrigger.example/test/etcd:local", &script);
        etcd["readinessProbe"] =
            json!({ "grpc": { "port": 2379 }, "periodSeconds": 1, "failureThreshold": 1 });
        let mut grpc = pod("grpc", json!({ "containers": [etcd], "restartPolicy": "Never" }));
        grpc["metadata"]["annotations"] = json!({ "outrigger.example/mode": mode });
        namespace.apply(&[grpc]).unwrap();
        namespace.wait("pod/grpc", "condition=Ready").unwrap();
        // Stopped, not ended: its port stays open and nobody answers.
        cluster()
            .signal_in_pod(namespace.name(), "grpc", "etcd", Signal::SIGSTOP)
            .unwrap();
        namespace.wait("pod/grpc", "condition=Ready=false").unwrap();
        cluster()
            .signal_in_pod(namespace.name(), "grpc", "etcd", Signal::SIGCONT)
            .unwrap();
        namespace.wait("pod/grpc", "condition=Ready").unwrap();
        for (name, _) in &probes {
            let ready = format!("pod/{name}");
            namespace.wait(&ready, "condition=Ready").unwrap();
            let kill = ["sh", "-c", "kill $(cat /tmp/nginx.pid)"];
            namespace.exec(name, &kill).unwrap().ok().unwrap();
            namespace.wait(&ready, "condition=Ready=false").unwrap();
        }
    }
}
