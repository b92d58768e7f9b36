//! Why a connection fails, as `kubectl outrigger` alone tells it: each cause is made for real, and the tool's answer has to name it.

use std::time::Duration;

use harness::cluster::{Namespace, Plugin};
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use super::{client, mesh, mesh_alone, meshed};
use crate::common::{answered, cluster, idle, named_server, pod, service};
use crate::kinds::Kinds;

/// Of a certificate of a minute, and what a busy machine adds.
const LIFE: Duration = Duration::from_secs(90);

/// A client on node-1 and nginx on node-2 behind a Service, which has answered once.
fn shop(stem: &str) -> Namespace<'static> {
    let namespace = meshed(stem);
    let server = pod(
        "web",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    let objects = [server, service("web", 80), client("client", "node-1")];
    namespace.apply(&objects).unwrap();
    namespace.wait("pod/web", "condition=Ready").unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    answered(&namespace, "client", &["curl", "-sS", "-m", "5", "http://web/"]);
    namespace
}

fn fails(namespace: &Namespace, url: &str) {
    let done = namespace
        .exec("client", &["curl", "-sS", "-m", "5", url])
        .unwrap();
    assert!(!done.status.success(), "{url} is answered: {}", done.stdout);
}

/// The tool says it of this question, within the time that a flow takes to be remembered.
fn named(namespace: &Namespace, question: &[&str], cause: &str) -> String {
    let plugin = cluster().plugin();
    let args = [question, &["--namespace", namespace.name()]].concat();
    let mut last = String::new();
    let found = wait::until_some(cause, SOON, || {
        let output = plugin.output(&args)?;
        last = format!("{}{}", output.stdout, output.stderr);
        Ok(last.contains(cause).then(|| last.clone()))
    });
    found.unwrap_or_else(|error| panic!("{error}: {args:?}\n{last}"))
}

#[test]
fn a_policy_that_forbids_it_is_named() {
    let _mesh = mesh();
    let _kinds = Kinds::install(cluster().kubectl());
    let namespace = shop("cause-policy");
    let nobody = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "only-bank" },
        "spec": { "action": "ALLOW", "rules": [{ "from": [{ "source": { "namespaces": ["bank"] } }] }] },
    });
    namespace.apply(&[nobody]).unwrap();
    wait::until("the policy holds", SOON * 3, || {
        let asked = namespace.exec("client", &["curl", "-sS", "-m", "5", "http://web/"]);
        asked.is_ok_and(|asked| !asked.status.success())
    })
    .unwrap();
    named(&namespace, &["why", "client", "web:80"], "denied");
    let account = format!("{}/default", namespace.name());
    let check = ["policy", "check", "web", "--port", "80", "--from", &account];
    let told = named(&namespace, &check, "only-bank");
    assert!(
        told.contains("denied") || told.contains("not let in") || told.contains("deny"),
        "{told}"
    );
}

#[test]
fn endpoints_that_are_down_are_named() {
    let _mesh = mesh();
    let namespace = shop("cause-down");
    namespace
        .kubectl()
        .run(&[
            "--namespace",
            namespace.name(),
            "delete",
            "pod",
            "web",
            "--grace-period=0",
            "--force",
        ])
        .unwrap();
    wait::until("nobody answers", SOON * 3, || {
        let asked = namespace.exec("client", &["curl", "-sS", "-m", "5", "http://web/"]);
        asked.is_ok_and(|asked| !asked.status.success())
    })
    .unwrap();
    named(&namespace, &["why", "client", "web:80"], "no_endpoint");
    named(&namespace, &["flows", "client", "--failed"], "no_endpoint");
}

#[test]
fn an_application_that_does_not_listen_is_named() {
    let _mesh = mesh();
    let namespace = meshed("cause-silent");
    let idle = pod(
        "web",
        json!({ "nodeName": "node-2", "containers": [idle("main")] }),
    );
    namespace
        .apply(&[idle, service("web", 80), client("client", "node-1")])
        .unwrap();
    namespace.wait("pod/web", "condition=Ready").unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    wait::until("the refusal comes from the application's port", SOON * 3, || {
        fails(&namespace, "http://web/");
        let told = cluster()
            .plugin()
            .output(&["why", "client", "web:80", "--namespace", namespace.name()]);
        told.is_ok_and(|told| told.stdout.contains("connection_refused by upstream"))
    })
    .unwrap();
    let told = named(
        &namespace,
        &["why", "client", "web:80"],
        "connection_refused by upstream",
    );
    assert!(told.contains("was dialled through the mesh"), "{told}");
}

#[test]
fn a_pod_without_a_sidecar_is_named_with_what_gives_it_one() {
    let _mesh = mesh();
    let namespace = Namespace::create(cluster().kubectl(), "cause-bare").unwrap();
    namespace.apply(&[client("client", "node-1")]).unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    let told = cluster()
        .plugin()
        .refused(&["why", "client", "10.0.0.1:80", "--namespace", namespace.name()])
        .unwrap();
    assert!(told.contains("has no sidecar"), "{told}");
    assert!(told.contains("kubectl label namespace"), "{told}");
    let nobody = cluster()
        .plugin()
        .refused(&["flows", "nobody", "--namespace", namespace.name()])
        .unwrap();
    assert!(nobody.contains("there is no pod nobody"), "{nobody}");
}

#[test]
fn plaintext_in_strict_mode_is_named() {
    let _mesh = mesh();
    let namespace = meshed("cause-strict");
    let mut server = pod(
        "web",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    server["metadata"]["annotations"] = json!({ "outrigger.example/mode": "strict" });
    namespace.apply(&[server]).unwrap();
    namespace.wait("pod/web", "condition=Ready").unwrap();
    let web = namespace.get(&["pod", "web"]).unwrap();
    let at = format!("{}:80", web["status"]["podIP"].as_str().unwrap());
    let question = ["why", "web", &at, "--inbound", "--from", "10.98.1.200"];
    named(&namespace, &question, "strict");
    let check = ["policy", "check", "web", "--port", "80", "--from", "none"];
    named(&namespace, &check, "strict");
}

#[test]
fn a_node_without_an_agent_is_named() {
    let mesh = mesh_alone();
    let namespace = shop("cause-agent");
    mesh.upgrade(&["agent.nodeSelector.kubernetes\\.io/hostname=node-1"])
        .unwrap();
    let told = wait::until_some("the missing agent is named", SOON * 3, || {
        let told = cluster()
            .plugin()
            .output(&["flows", "web", "--namespace", namespace.name()])?;
        Ok(told
            .stderr
            .contains("no agent runs on the node node-2")
            .then_some(told.stderr))
    });
    mesh.upgrade(&[]).unwrap();
    assert!(told.unwrap().contains("get daemonset,pods"));
}

/// The authority signs no more for a pod whose service account is gone. The pod's last certificate ends within a minute, and its agent goes
/// on telling why.
#[test]
fn a_certificate_that_has_expired_is_named() {
    let mesh = mesh_alone();
    mesh.upgrade(&["control.leafTtl=1m"]).unwrap();
    let namespace = meshed("cause-expired");
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "shopper" } });
    let server = pod(
        "web",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    let mut shopper = client("client", "node-1");
    shopper["spec"]["serviceAccountName"] = "shopper".into();
    namespace
        .apply(&[account, server, service("web", 80), shopper])
        .unwrap();
    namespace.wait("pod/web", "condition=Ready").unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    answered(&namespace, "client", &["curl", "-sS", "-m", "5", "http://web/"]);
    namespace
        .kubectl()
        .run(&[
            "--namespace",
            namespace.name(),
            "delete",
            "serviceaccount",
            "shopper",
        ])
        .unwrap();
    let told = wait::until("the certificate has expired", LIFE, || {
        let identity = cluster()
            .plugin()
            .json(&["identity", "client", "--namespace", namespace.name()]);
        identity.is_ok_and(|identity| identity["state"] == "expired" && identity["lastError"].is_string())
    })
    .and_then(|()| {
        wait::until("no connection is opened without it", SOON * 3, || {
            let asked = namespace.exec("client", &["curl", "-sS", "-m", "5", "http://web/"]);
            asked.is_ok_and(|asked| !asked.status.success())
        })
    });
    let question = ["why", "client", "web:80", "--namespace", namespace.name()];
    let why = cluster().plugin().output(&question);
    let identity = cluster()
        .plugin()
        .output(&["identity", "client", "--namespace", namespace.name()]);
    mesh.upgrade(&[]).unwrap();
    let (why, identity) = (why.unwrap().stdout, identity.unwrap().stdout);
    told.unwrap_or_else(|error| panic!("{error}: {identity}{why}"));
    assert!(identity.contains("expired"), "{identity}");
    assert!(why.contains("no_identity"), "{why}");
}

/// Somebody of one namespace sees that one, and is told so where they ask for more; a right that is taken away ends within seconds.
#[test]
fn somebody_of_one_namespace_sees_its_connections_and_no_others() {
    let _mesh = mesh();
    let namespace = shop("cause-rights");
    let name = namespace.name();
    let kubectl = namespace.kubectl();
    let account = format!("{name}:default");
    let bind = |binding: &str, place: &str, kind: &str, role: &str| {
        let (kind, account) = (format!("--{kind}={role}"), format!("--serviceaccount={account}"));
        kubectl
            .run(&[
                "--namespace",
                place,
                "create",
                "rolebinding",
                binding,
                &kind,
                &account,
            ])
            .unwrap();
    };
    bind("sees", name, "clusterrole", "view");
    let asks = Plugin::of_account(cluster(), name, "default").unwrap();
    let told = asks.refused(&["flows"]).unwrap();
    assert!(
        told.contains("you may not do what this takes"),
        "no way to an agent: {told}"
    );
    bind(name, "outrigger-system", "role", "outrigger-connect");
    let flows = wait::until_some("flows of the own namespace", SOON * 2, || {
        let told = asks.output(&["flows", "--output=json"])?;
        Ok(serde_json::from_str::<Value>(&told.stdout).ok())
    })
    .unwrap();
    let of: Vec<&str> = flows["closed"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|flow| flow["pod"].as_str())
        .collect();
    assert!(
        !of.is_empty() && of.iter().all(|pod| pod.starts_with(&format!("{name}/"))),
        "{of:?}"
    );
    for more in [["flows", "-A"], ["flows", "--namespace=kube-system"]] {
        let told = asks.refused(&more).unwrap();
        assert!(
            told.contains("may not") || told.contains("cannot list"),
            "{more:?}: {told}"
        );
    }
    kubectl
        .run(&["--namespace", name, "delete", "rolebinding", "sees"])
        .unwrap();
    kubectl
        .run(&[
            "--namespace",
            name,
            "create",
            "role",
            "lists",
            "--verb=get,list",
            "--resource=pods",
        ])
        .unwrap();
    bind("lists", name, "role", "lists");
    wait::until("the right to see flows is gone", SOON * 3, || {
        let told = asks.output(&["flows"]);
        told.is_ok_and(|told| {
            told.stderr.contains(&format!(
                "may not get flows.outrigger.example in the namespace {name}"
            ))
        })
    })
    .unwrap();
    kubectl
        .run(&["--namespace", "outrigger-system", "delete", "rolebinding", name])
        .unwrap();
}
