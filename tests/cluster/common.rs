//! The cluster of these tests and the objects that they make. Asserts nothing.

use std::net::IpAddr;
use std::sync::LazyLock;

use harness::cluster::Cluster;
use serde_json::{Value, json};

pub(crate) const CLIENT: &str = "outrigger.example/test/client:local";
pub(crate) const NGINX: &str = "outrigger.example/test/nginx:local";

pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> =
        LazyLock::new(|| Cluster::demand().expect("the tests of the cluster run on one"));
    &CLUSTER
}

/// A container that runs a program from an image of this machine.
pub(crate) fn container(name: &str, image: &str, command: &[&str]) -> Value {
    json!({ "name": name, "image": image, "imagePullPolicy": "Never", "command": command })
}

/// Does nothing, and ends when it is told to.
pub(crate) fn idle(name: &str) -> Value {
    container(
        name,
        CLIENT,
        &["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"],
    )
}

pub(crate) fn pod(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } }, "spec": spec })
}

/// nginx that answers `GET /` with the name of its pod, on port 80 of IPv4.
pub(crate) fn named_server() -> Value {
    named_server_at("listen 80;")
}

/// The same of both families.
pub(crate) fn dual_stack_server() -> Value {
    named_server_at("listen 80; listen [::]:80;")
}

fn named_server_at(listen: &str) -> Value {
    let configuration = format!(
        "events {{ }} http {{ server {{ {listen} location / {{ return 200 \"$hostname\\n\"; }} }} }}"
    );
    let script =
        format!("echo '{configuration}' >/tmp/nginx.conf; exec nginx -g 'daemon off;' -c /tmp/nginx.conf");
    let mut container = container("nginx", NGINX, &["sh", "-c", &script]);
    container["readinessProbe"] = json!({ "httpGet": { "path": "/", "port": 80 }, "periodSeconds": 1 });
    container
}

/// Of a pod that has its addresses, IPv4 first.
pub(crate) fn pod_ips(pod: &Value) -> Vec<IpAddr> {
    let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
    ips.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap())
        .collect()
}
