//! What a pod's proxy says of itself, asked by the pod's name over the API server: its certificate, a Service as it has it beside the API's
//! view, and who is let in.

use harness::cluster::{Mesh, Namespace, Plugin};
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use super::{client, mesh_alone, meshed, web};
use crate::common::{answered, cluster, named_server, pod};

const SYSTEM: &str = "outrigger-system";

/// The control process, away for as long as this lives.
struct Away<'m>(&'m Mesh<'m>);

impl<'m> Away<'m> {
    fn new(mesh: &'m Mesh<'m>) -> Self {
        scale(mesh, SYSTEM, "outrigger-control", 0);
        let away = Self(mesh);
        let pods = [
            "--namespace",
            SYSTEM,
            "pods",
            "--selector=app.kubernetes.io/component=control",
        ];
        wait::until("control is away", SOON * 6, || {
            let left = mesh.kubectl().get(&pods);
            left.is_ok_and(|pods| pods["items"] == json!([]))
        })
        .unwrap();
        away
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        scale(self.0, SYSTEM, "outrigger-control", 2);
        let _ = self
            .0
            .kubectl()
            .wait(SYSTEM, "deployment/outrigger-control", "condition=Available");
    }
}

fn scale(mesh: &Mesh, namespace: &str, deployment: &str, replicas: u32) {
    let (deployment, replicas) = (
        format!("deployment/{deployment}"),
        format!("--replicas={replicas}"),
    );
    mesh.kubectl()
        .run(&["--namespace", namespace, "scale", &deployment, &replicas])
        .unwrap();
}

fn rows(list: &Value) -> &[Value] {
    list["endpoints"].as_array().unwrap()
}

fn stale(list: &Value) -> usize {
    rows(list).iter().filter(|row| row["stale"] == true).count()
}

#[test]
fn what_a_pod_says_of_itself_is_asked_by_its_name_and_an_old_view_is_stale() {
    let mesh = mesh_alone();
    let namespace = meshed("sight");
    let own = namespace.name();
    let mut strict = pod(
        "strict",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    strict["metadata"]["annotations"] = json!({ "outrigger.example/mode": "strict" });
    namespace.apply(&[strict, client("client", "node-1")]).unwrap();
    namespace.apply(&web("web")).unwrap();
    for what in ["pod/client", "pod/strict"] {
        namespace.wait(what, "condition=Ready").unwrap();
    }
    namespace.wait("deployment/web", "condition=Available").unwrap();
    let plugin = cluster().plugin();

    let told = plugin.json(&["identity", "client", "-n", own]).unwrap();
    assert_eq!(told["pod"], format!("{own}/client"), "{told:#}");
    assert_eq!(told["state"], "valid", "{told:#}");
    let id = format!("spiffe://cluster.local/ns/{own}/sa/default");
    assert_eq!(told["identity"], *id, "{told:#}");
    assert_eq!(told["chain"][0]["names"], json!([id]), "{told:#}");
    let text = plugin
        .run(&["identity", "client", "-n", own, "--columns", "80"])
        .unwrap();
    assert!(text.contains("through the agent of its node"), "{text}");

    let asked = ["endpoints", "svc/web", "-n", own, "--pod", "client"];
    let list = plugin.json(&asked).unwrap();
    assert_eq!(
        (list["knowledge"].as_str(), stale(&list)),
        (Some("not_asked"), 0),
        "{list:#}"
    );
    answered(&namespace, "client", &["curl", "-sS", "http://web/"]);
    let list = plugin.json(&["endpoints", "web", "-n", own]).unwrap();
    assert_eq!(
        list["pod"],
        format!("{own}/client"),
        "the pod that has dialled it: {list:#}"
    );
    let ready = |row: &&Value| row["proxy"] == "ready" && row["api"] == "ready";
    assert_eq!(
        (rows(&list).iter().filter(ready).count(), stale(&list)),
        (2, 0),
        "{list:#}"
    );

    let check = |who: &str| {
        plugin
            .json(&["policy", "check", "strict", "-n", own, "--from", who])
            .unwrap()
    };
    let account = format!("{own}/default");
    assert_eq!(check(&account)["verdict"]["result"], "allowed");
    let refused = check("none");
    assert_eq!(refused["verdict"]["result"], "denied", "{refused:#}");
    let why = refused["verdict"]["reason"].as_str().unwrap();
    assert!(why.contains("strict mode"), "{why}");

    {
        let _away = Away::new(&mesh);
        scale(&mesh, own, "web", 1);
        wait::until("the proxy has what the API has not", SOON * 6, || {
            let list = plugin.json(&asked);
            list.is_ok_and(|list| {
                let gone = |row: &&Value| row["api"].is_null() && row["stale"] == true;
                rows(&list).iter().filter(gone).count() == 1
            })
        })
        .unwrap();
        let text = plugin.run(&[&asked[..], &["--columns", "80"]].concat()).unwrap();
        assert!(
            text.lines().filter(|line| line.contains("STALE")).count() == 1,
            "{text}"
        );
    }
    wait::until("the proxy hears of it", SOON * 6, || {
        plugin
            .json(&asked)
            .is_ok_and(|list| stale(&list) == 0 && rows(&list).len() == 1)
    })
    .unwrap();

    of_somebody_without_rights(&namespace);
}

/// Somebody who may reach agents and see pods, and nothing of what agents know.
fn of_somebody_without_rights(namespace: &Namespace) {
    let own = namespace.name();
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "curious" } });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "curious" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] }],
    });
    let subject = json!([{ "kind": "ServiceAccount", "name": "curious", "namespace": own }]);
    let bind = |role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": format!("{own}-{role}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role },
            "subjects": subject,
        })
    };
    namespace.apply(&[account, role, bind("curious")]).unwrap();
    let mut connect = bind("outrigger-connect");
    connect["metadata"]["namespace"] = SYSTEM.into();
    namespace.kubectl().apply(&[connect]).unwrap();
    let refused = Plugin::of_account(cluster(), own, "curious").and_then(|curious| {
        Ok([
            curious.refused(&["identity", "client"])?,
            curious.refused(&["policy", "check", "strict"])?,
            curious.refused(&["endpoints", "svc/web"])?,
        ])
    });
    let binding = format!("{own}-outrigger-connect");
    namespace
        .kubectl()
        .run(&["--namespace", SYSTEM, "delete", "rolebinding", &binding])
        .unwrap();
    let [identity, policies, endpoints] = refused.unwrap();
    for words in [identity, policies] {
        assert!(words.contains("curious") && words.contains("flows"), "{words}");
    }
    // Services are the API server's own to show.
    assert!(endpoints.contains("services"), "{endpoints}");
}
