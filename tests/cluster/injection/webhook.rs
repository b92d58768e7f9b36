//! The webhook, asked by the API server at an address: a control process in the network of the control plane's node, with what a pod
//! of a service account is given.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use harness::cluster::Namespace;
use harness::mesh::binaries;
use serde_json::{Value, json};

use super::door::{Door, IMAGE, has_sidecar, kubectl, plain, try_to_create};
use super::{every_case_ends_as_it_says, everything, with_runtime_class};
use crate::common::cluster;
use harness::wait::{self, SOON};

const PORT: u16 = 25017;

/// Killed on drop, and its files removed.
struct Control {
    child: Child,
    dir: PathBuf,
}

impl Control {
    /// With an account that may do what the webhook needs, and nothing else.
    fn start(door: &Door, account: &Namespace) -> Self {
        let dir = std::env::temp_dir().join(format!("outrigger-{}", door.id));
        fs::create_dir_all(&dir).unwrap();
        let token = ["--namespace", account.name(), "create", "token", "webhook"];
        fs::write(dir.join("token"), kubectl().run(&token).unwrap().trim()).unwrap();
        fs::write(dir.join("namespace"), account.name()).unwrap();
        let view = kubectl()
            .run(&["config", "view", "--raw", "--flatten", "--output=json"])
            .unwrap();
        let view: Value = serde_json::from_str(&view).unwrap();
        let server = &view["clusters"][0]["cluster"];
        let root = [
            "get",
            "configmap",
            "kube-root-ca.crt",
            "--output=jsonpath={.data.ca\\.crt}",
        ];
        let root = [&["--namespace", account.name()], root.as_slice()].concat();
        fs::write(dir.join("ca.crt"), kubectl().run(&root).unwrap()).unwrap();
        fs::write(dir.join("profile.yaml"), format!("image: {IMAGE}\n")).unwrap();
        let address = server["server"]
            .as_str()
            .unwrap()
            .strip_prefix("https://")
            .unwrap();
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "443"));

        // A mount namespace of its own has the files where a pod has them.
        let script = "mount -t tmpfs tmpfs /run && cd /run && mkdir -p secrets/kubernetes.io/serviceaccount && \
                      cp \"$1\"/token \"$1\"/namespace \"$1\"/ca.crt secrets/kubernetes.io/serviceaccount && \
                      exec \"$0\" control --state-dir \"$1\"/state --listen 127.0.0.1:25012 --status none \
                      --webhook \"$2\" --webhook-profile \"$1\"/profile.yaml --webhook-configuration \"$3\" \
                      --server-names 127.0.0.1";
        let mut command = cluster()
            .first()
            .network_command(&PathBuf::from("unshare"))
            .unwrap();
        command
            .args(["--mount", "--propagation=private", "sh", "-c", script])
            .arg(binaries::path("outrigger").unwrap())
            .arg(&dir)
            .arg(format!("127.0.0.1:{PORT}"))
            .arg(configuration(door))
            .env("KUBERNETES_SERVICE_HOST", host)
            .env("KUBERNETES_SERVICE_PORT", port)
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).unwrap());
        let child = command.spawn().unwrap();
        Self { child, dir }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn configuration(door: &Door) -> String {
    format!("{}-outrigger-inject", door.id)
}

fn account(door: &mut Door) -> Namespace<'static> {
    let account = Namespace::create(kubectl(), "inject-account").unwrap();
    let subject = json!({ "kind": "ServiceAccount", "name": "webhook", "namespace": account.name() });
    account
        .apply(&[json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "webhook" } })])
        .unwrap();
    let rule = json!({ "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": [configuration(door)], "verbs": ["get", "patch"] });
    let metadata = json!({ "name": format!("{}-webhook", door.id) });
    let role =
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": metadata["name"] });
    door.apply(&[
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": [rule] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata,
            "roleRef": role, "subjects": [subject] }),
    ]);
    account
}

#[test]
fn the_webhook_makes_the_same_pods_and_without_it_none_of_an_enabled_namespace_starts() {
    let mut door = Door::prepare();
    let mut objects = door.objects("--webhook", everything);
    for webhook in objects[0]["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"] = json!({ "url": format!("https://127.0.0.1:{PORT}/inject") });
    }
    with_runtime_class(&mut door);
    let account = account(&mut door);
    door.apply(&objects);
    let mut control = Control::start(&door, &account);
    let (enabled, other) = (door.enabled(&[]), door.namespace(&[], |_| true));
    every_case_ends_as_it_says(&door, &enabled);

    control.kill();
    let error = try_to_create(&enabled, &plain()).unwrap_err();
    assert!(error.contains("failed calling webhook"), "{error}");
    assert!(
        !has_sidecar(&try_to_create(&other, &plain()).unwrap()),
        "nobody asks about it"
    );
    let mut out = plain();
    out["metadata"]["labels"] = json!({ door.label(): "disabled" });
    try_to_create(&enabled, &out).unwrap();

    // The next one has another authority, which stands beside the one before.
    drop(control);
    let control = Control::start(&door, &account);
    wait::until("the webhook injects again", SOON, || {
        try_to_create(&enabled, &plain()).is_ok_and(|pod| has_sidecar(&pod))
    })
    .unwrap_or_else(|error| panic!("{error}:\n{}", control.log()));
    let registered = kubectl()
        .get(&["mutatingwebhookconfiguration", &configuration(&door)])
        .unwrap();
    let webhooks = registered["webhooks"].as_array().unwrap();
    assert_eq!(webhooks[0]["clientConfig"], webhooks[1]["clientConfig"]);
    let bundle = webhooks[0]["clientConfig"]["caBundle"].as_str().unwrap().len();
    assert!(bundle > 1200, "both stand there: {bundle} characters");
}
