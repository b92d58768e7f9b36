//! The cluster of these tests and the objects that they make. Asserts nothing.

use std::net::IpAddr;
use std::sync::LazyLock;

use harness::cluster::{Cluster, Namespace};
use harness::wait::{self, SOON};
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

pub(crate) fn redis() -> Value {
    let command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no"];
    container("redis", "outrigger.example/test/redis:local", &command)
}

/// It makes its databases first, as the user that Debian's package has for it.
pub(crate) fn postgres() -> Value {
    let script = "initdb --pgdata=/tmp/data --no-locale --auth=trust --no-sync >/dev/null && \
        echo 'host all all all trust' >>/tmp/data/pg_hba.conf && \
        exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories= -c jit=off";
    let image = "outrigger.example/test/postgres:local";
    let mut container = container("postgres", image, &["sh", "-c", script]);
    container["securityContext"] = json!({ "runAsUser": 102 });
    container["env"] = json!([{ "name": "PATH", "value": "/usr/lib/postgresql/15/bin:/usr/bin:/bin" }]);
    container
}

/// What a client runs to be answered `42` by [`postgres`] there.
pub(crate) fn psql(host: &str) -> [&str; 8] {
    [
        "/usr/lib/postgresql/15/bin/psql",
        "--no-psqlrc",
        "--tuples-only",
        "--no-align",
        "--username=postgres",
        "--command=SELECT 6 * 7",
        "--host",
        host,
    ]
}

/// A Deployment whose replicas are on as many nodes as may be. `otherwise` is what becomes of one that cannot be spread.
pub(crate) fn spread(name: &str, replicas: u32, container: Value, otherwise: &str) -> Value {
    let labels = json!({ "app": name });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "topologySpreadConstraints": [{
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": otherwise,
                    "labelSelector": { "matchLabels": labels },
                }],
                "containers": [container],
            }},
        },
    })
}

/// Of the pods that are labelled with its name.
pub(crate) fn service(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "port": port }] },
    })
}

/// What a client prints once it is answered.
pub(crate) fn answered(namespace: &Namespace, pod: &str, command: &[&str]) -> String {
    let what = format!("{} is answered", command.join(" "));
    wait::until_some(&what, SOON * 3, || {
        let output = namespace.exec(pod, command)?;
        Ok(output.status.success().then_some(output.stdout))
    })
    .unwrap()
}

/// Of a pod that has its addresses, IPv4 first.
pub(crate) fn pod_ips(pod: &Value) -> Vec<IpAddr> {
    let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
    ips.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap())
        .collect()
}
