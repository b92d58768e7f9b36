//! The images: ours, which holds no more than it must, and those of unmodified third-party programs, which talk from node to node.

use harness::cluster::Namespace;
use serde_json::{Value, json};

use crate::common::{CLIENT, answered, cluster, container, idle, pod, postgres, psql, redis};

const OURS: &str = "outrigger.example/outrigger:local";

/// What the strictest of Kubernetes' pod security standards asks for, and a read-only root.
fn confined(mut container: Value) -> Value {
    container["securityContext"] = json!({
        "runAsNonRoot": true,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    container
}

#[test]
fn our_image_runs_both_programs_without_root_in_a_restricted_namespace() {
    let namespace = Namespace::create(cluster().kubectl(), "ours").unwrap();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let restrict = ["label", "namespace", namespace.name(), label];
    namespace.kubectl().run(&restrict).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for (name, command, said) in [
        (
            "outrigger",
            vec!["outrigger", "--version"],
            format!("outrigger {version}\n"),
        ),
        (
            "plugin",
            vec!["kubectl-outrigger", "--version"],
            format!("kubectl outrigger {version}\n"),
        ),
    ] {
        let main = confined(container("main", OURS, &command));
        let spec = json!({ "restartPolicy": "Never", "containers": [main] });
        namespace.apply(&[pod(name, spec)]).unwrap();
        namespace
            .wait(&format!("pod/{name}"), "jsonpath={.status.phase}=Succeeded")
            .unwrap();
        let logs = ["--namespace", namespace.name(), "logs", name];
        assert_eq!(namespace.kubectl().run(&logs).unwrap(), said);
    }
}

#[test]
fn our_image_has_no_shell() {
    let namespace = Namespace::create(cluster().kubectl(), "shell").unwrap();
    let main = confined(container("main", OURS, &["sh", "-c", "true"]));
    let spec = json!({ "restartPolicy": "Never", "containers": [main] });
    namespace.apply(&[pod("shell", spec)]).unwrap();
    namespace
        .wait("pod/shell", "jsonpath={.status.phase}=Failed")
        .unwrap();
    let pod = namespace.get(&["pod", "shell"]).unwrap();
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let message = ended["message"].as_str().unwrap_or_default();
    assert!(message.contains("executable file not found"), "{ended}");
}

/// A server on the second node and a client on the first.
fn pair<'a>(namespace: &Namespace<'a>, server: Value) -> String {
    let server = json!({ "nodeName": "node-2", "containers": [server], "terminationGracePeriodSeconds": 1 });
    let client = json!({ "nodeName": "node-1", "containers": [idle("main")] });
    namespace
        .apply(&[pod("server", server), pod("client", client)])
        .unwrap();
    for name in ["pod/server", "pod/client"] {
        namespace.wait(name, "condition=Ready").unwrap();
    }
    let server = namespace.get(&["pod", "server"]).unwrap();
    server["status"]["podIP"].as_str().unwrap().to_owned()
}

#[test]
fn redis_answers_from_the_other_node() {
    let namespace = Namespace::create(cluster().kubectl(), "redis").unwrap();
    let address = pair(&namespace, redis());
    assert_eq!(
        answered(&namespace, "client", &["redis-cli", "-h", &address, "PING"]),
        "PONG\n"
    );
}

#[test]
fn postgresql_answers_from_the_other_node() {
    let namespace = Namespace::create(cluster().kubectl(), "postgres").unwrap();
    let address = pair(&namespace, postgres());
    assert_eq!(answered(&namespace, "client", &psql(&address)), "42\n");
}

#[test]
fn iperf3_measures_between_the_nodes() {
    let namespace = Namespace::create(cluster().kubectl(), "iperf3").unwrap();
    let address = pair(&namespace, container("iperf3", CLIENT, &["iperf3", "--server"]));
    let report = answered(
        &namespace,
        "client",
        &["iperf3", "--client", &address, "--bytes", "20M", "--json"],
    );
    let report: Value = serde_json::from_str(&report).unwrap();
    // The server's own count may lack what came after it was told of the end.
    let sent = report["end"]["sum_sent"]["bytes"].as_u64().unwrap();
    assert!(sent >= 20_000_000, "{report}");
}
