//! `kubectl outrigger check`, `version`, `intercept status` and `drain`: what is fine is said to be, and what is taken away is named.

use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Mesh, Namespace, Plugin};
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use super::{client, mesh, mesh_alone, meshed};
use crate::common::cluster;

/// A namespace with a pod that has its sidecar.
fn served(stem: &str) -> Namespace<'static> {
    let namespace = meshed(stem);
    namespace.apply(&[client("client", "node-2")]).unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    namespace
}

/// All checks of a report with a result.
fn with_result<'r>(report: &'r Value, result: &str) -> Vec<&'r Value> {
    let categories = report["categories"].as_array().unwrap().iter();
    let checks = categories.flat_map(|category| category["checks"].as_array().unwrap());
    checks.filter(|check| check["result"] == result).collect()
}

/// What a check that fails prints, once it does for this reason.
fn failed(args: &[&str], why: &str) -> String {
    let plugin = cluster().plugin();
    let args = [&["check"], args].concat();
    let mut said = String::new();
    let found = wait::until(why, SOON * 3, || {
        let output = plugin.output(&args).unwrap();
        said = format!("{}{}", output.stdout, output.stderr);
        !output.status.success()
            && said
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(why)
    });
    found.unwrap_or_else(|error| panic!("{error}: {said}"));
    said
}

/// Takes something away, looks, and puts it back whatever was seen.
fn without(mesh: &Mesh, take: impl FnOnce(), args: &[&str], why: &str) -> String {
    take();
    let looked = std::panic::catch_unwind(|| failed(args, why));
    mesh.upgrade(&[]).unwrap();
    looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_mesh_that_works_passes_and_each_node_and_version_is_told() {
    let _mesh = mesh();
    let namespace = served("check-fine");
    let plugin = cluster().plugin();
    let args = ["check", "--wait", "60s", "--namespace", namespace.name()];
    let report = plugin.json(&args).unwrap();
    assert_eq!(report["kind"], "CheckReport");
    assert_eq!(report["succeeded"], true);
    for result in ["failed", "warning"] {
        assert!(with_result(&report, result).is_empty(), "{report:#}");
    }
    assert!(with_result(&report, "ok").len() > 15, "{report:#}");
    // A pipe is no terminal, and the tests' locale may be any.
    let text = plugin.run(&["check", "--namespace", namespace.name()]).unwrap();
    assert!(
        text.contains("an agent is on 2 nodes") && !text.contains('\x1b'),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    // The cluster can have it, though it has it already.
    let pre = plugin.json(&["check", "--pre"]).unwrap();
    assert!(with_result(&pre, "failed").is_empty(), "{pre:#}");

    let version = plugin
        .json(&["version", "--namespace", namespace.name()])
        .unwrap();
    let own = version["client"].as_str().unwrap();
    assert_eq!(version["control"], own, "{version:#}");
    assert_eq!(version["agents"], json!([{ "version": own, "count": 2 }]));
    assert_eq!(version["sidecars"], json!([{ "version": own, "count": 1 }]));
    assert_eq!(version["skew"], json!([]));

    let status = plugin.json(&["intercept", "status"]).unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let names: Vec<&str> = nodes.iter().map(|node| node["node"].as_str().unwrap()).collect();
    assert_eq!(names, ["node-1", "node-2"]);
    let name = format!("{}/client", namespace.name());
    let pods = nodes[1]["intercepted"].as_array().unwrap();
    let pod = pods.iter().find(|pod| pod["pod"] == *name).unwrap();
    assert_eq!(
        (&pod["programs"], &pod["missing"]),
        (&json!(9), &json!([])),
        "{pod:#}"
    );
    assert_eq!(pod["maps"][0]["size"], 8192, "{pod:#}");
    // The agent itself is in the network of its node.
    let unmeshed = nodes[1]["unmeshed"].as_array().unwrap();
    let is_agent = |pod: &&Value| {
        pod["pod"]
            .as_str()
            .unwrap()
            .starts_with("outrigger-system/outrigger-agent-")
    };
    let agent = unmeshed.iter().find(is_agent).unwrap();
    assert!(
        agent["reason"].as_str().unwrap().contains("hostNetwork"),
        "{agent}"
    );
    let one = plugin.run(&["intercept", "status", "node-2"]).unwrap();
    assert!(one.contains(&name) && one.contains("9/9"), "{one}");
    let none = plugin.refused(&["intercept", "status", "node-3"]).unwrap();
    assert!(none.contains("no agent on a node node-3"), "{none}");
}

#[test]
fn a_node_without_an_agent_is_named() {
    let mesh = mesh_alone();
    let take = || {
        // Its pods go first, and then helm is done.
        mesh.upgrade(&["agent.nodeSelector.kubernetes\\.io/hostname=node-1"])
            .unwrap();
    };
    let said = without(&mesh, take, &[], "none is on node-2");
    assert!(said.contains("nodeSelector"), "{said}");
}

#[test]
fn control_that_is_stopped_is_named() {
    let mesh = mesh_alone();
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let deployment = "deployment/outrigger-control";
        mesh.kubectl()
            .run(&["--namespace", SYSTEM, "scale", deployment, &replicas])
            .unwrap();
    };
    let said = without(&mesh, || scale("0"), &[], "it is stopped, at 0 replicas");
    assert!(said.contains("scale deployment outrigger-control"), "{said}");
    // helm changes only what its values change.
    scale("2");
    mesh.upgrade(&[]).unwrap();
}

#[test]
fn injection_that_is_taken_away_is_named_and_a_pod_is_tried() {
    let mesh = mesh_alone();
    let take = || {
        for binding in ["outrigger-inject-namespace", "outrigger-inject-pod"] {
            let kind = "mutatingadmissionpolicybinding";
            mesh.kubectl().run(&["delete", kind, binding]).unwrap();
        }
    };
    // The API server looks for changed policies once a second. Then the guard refuses the pod, which is what it is for.
    let said = without(
        &mesh,
        take,
        &["--output=short"],
        "(tried, not kept) it is refused:",
    );
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let missing = "its binding is missing: outrigger-inject-namespace, outrigger-inject-pod";
    assert!(
        said.contains(missing) && !said.contains("API server answers"),
        "{said}"
    );
}

fn bind(namespace: &str, name: &str, kind: &str, role: &str, account: &Namespace) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": { "name": name, "namespace": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": account.name() }],
    })
}

#[test]
fn a_person_is_told_which_rights_are_missing_and_drains_with_the_right_alone() {
    let _mesh = mesh();
    let namespace = served("check-rights");
    let name = namespace.name();
    let person = Plugin::of_account(cluster(), name, "default").unwrap();
    let output = person.output(&["check", "--output=json"]).unwrap();
    assert!(!output.status.success(), "{}", output.stdout);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let failed = format!("{:?}", with_result(&report, "failed"));
    for right in [
        format!("you may not list pods in the namespace {name}"),
        "you may not create pods/portforward in the namespace outrigger-system".into(),
        format!("you may not get flows.outrigger.example in the namespace {name}"),
    ] {
        assert!(failed.contains(&right), "{right}: {failed}");
    }

    // Who may view a namespace and come to agents: nothing fails, and what could not be looked at is said.
    let connect = bind(SYSTEM, name, "Role", "outrigger-connect", &namespace);
    let view = bind(name, "view", "ClusterRole", "view", &namespace);
    cluster().kubectl().apply(&[connect, view]).unwrap();
    let report = person.json(&["check", "--wait", "60s"]).unwrap();
    let warnings = format!("{:?}", with_result(&report, "warning"));
    assert!(
        warnings.contains("you may not get nodes.outrigger.example"),
        "{warnings}"
    );
    let drain = ["drain", "client"];
    let refused = person.refused(&drain).unwrap();
    assert!(
        refused.contains(&format!(
            "may not create drains.outrigger.example in the namespace {name}"
        )) && refused.contains("--clusterrole edit"),
        "{refused}"
    );
    assert_eq!(restarts(&namespace), 0);
    let refused = person.refused(&["intercept", "status"]).unwrap();
    assert!(
        refused.contains("may not get nodes.outrigger.example"),
        "{refused}"
    );

    let edit = bind(name, "edit", "ClusterRole", "edit", &namespace);
    cluster().kubectl().apply(&[edit]).unwrap();
    // What the agent was told of rights holds for some seconds.
    wait::until("the pod drains", SOON * 3, || {
        let output = person.output(&drain).unwrap();
        output.status.success() && output.stdout.starts_with(&format!("{name}/client is draining"))
    })
    .unwrap();
    wait::until("its sidecar starts anew", SOON * 6, || restarts(&namespace) == 1).unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    let binding = ["--namespace", SYSTEM, "delete", "rolebinding", name];
    cluster().kubectl().run(&binding).unwrap();
}

/// Of the pod's sidecar.
fn restarts(namespace: &Namespace) -> i64 {
    let pod = namespace.get(&["pod", "client"]).unwrap();
    let statuses = pod["status"]["initContainerStatuses"].as_array().unwrap();
    let sidecar = statuses.iter().find(|status| status["name"] == "outrigger-proxy");
    sidecar.unwrap()["restartCount"].as_i64().unwrap()
}
