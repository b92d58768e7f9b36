//! Identities by the API server's own requests for certificates of pods: a signer of ours in a pod, and sidecars that hold no token.
//! Nothing is intercepted here.

use harness::cluster::{Kubectl, Namespace};
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use crate::common::{cluster, idle, pod};

const OURS: &str = "outrigger.example/outrigger:local";
const SIGNER: &str = "outrigger.example/workload";
const BUNDLE: &str = "outrigger.example:workload:root";

#[test]
fn a_sidecar_has_the_identity_of_its_pods_account_by_a_key_that_the_kubelet_made() {
    let signer = Signer::start();
    let namespace = &signer.namespace;
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "web" } });
    namespace.apply(&[account, registry()]).unwrap();

    namespace.apply(&[sidecar("web", "web")]).unwrap();
    namespace.wait("pod/web", "condition=Ready").unwrap();
    let identity = format!("spiffe://cluster.local/ns/{}/sa/web", namespace.name());
    let logs = logs(namespace, "web");
    assert!(
        logs.contains("certificate read") && logs.contains(&identity),
        "{logs}"
    );
    let bundle = namespace.kubectl().get(&["clustertrustbundle", BUNDLE]).unwrap();
    assert_eq!(bundle["spec"]["signerName"], SIGNER);

    // One that calls itself somebody else than its pod is.
    namespace.apply(&[sidecar("impostor", "admin")]).unwrap();
    wait::until("the impostor is refused", SOON * 3, || {
        logs_so_far(namespace, "impostor").contains("it names")
    })
    .unwrap();
    let impostor = namespace.get(&["pod", "impostor"]).unwrap();
    // Statuses stand in the order of names, not in that of the pod.
    let mut statuses = impostor["status"]["containerStatuses"].as_array().unwrap().iter();
    let sidecar = statuses.find(|status| status["name"] == "sidecar").unwrap();
    assert_eq!(sidecar["ready"], false, "{impostor}");

    let mut unusual = pod("unusual", json!({ "containers": [idle("main")] }));
    unusual["spec"]["volumes"] = json!([volume("ECDSAP521")]);
    unusual["spec"]["containers"][0]["volumeMounts"] = json!([mount()]);
    namespace.apply(&[unusual]).unwrap();
    wait::until("a key of another kind is denied", SOON * 3, || {
        let requests = namespace.get(&["podcertificaterequests"]).unwrap();
        let mut conditions = requests["items"].as_array().unwrap().iter().flat_map(|request| {
            let conditions = request["status"]["conditions"].as_array();
            conditions.cloned().unwrap_or_default()
        });
        conditions
            .any(|condition| condition["type"] == "Denied" && condition["reason"] == "UnsupportedKeyType")
    })
    .unwrap();
}

/// A control process that signs, with rights of its own, which go with it.
struct Signer<'a> {
    namespace: Namespace<'a>,
}

impl Signer<'_> {
    fn start() -> Self {
        let namespace = Namespace::create(cluster().kubectl(), "podcert").unwrap();
        let signer = Self { namespace };
        let namespace = &signer.namespace;
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "control" } });
        namespace.apply(&[account]).unwrap();
        namespace.kubectl().apply(&rights(namespace.name())).unwrap();
        let control = json!({
            "serviceAccountName": "control",
            "containers": [{
                "name": "control", "image": OURS, "imagePullPolicy": "Never",
                "args": ["control", "--state-dir", "/state/ca", "--pod-certificates", "true"],
                "readinessProbe": { "httpGet": { "path": "/readyz", "port": 15014 }, "periodSeconds": 1 },
                "volumeMounts": [{ "name": "state", "mountPath": "/state" }],
            }],
            "volumes": [{ "name": "state", "emptyDir": {} }],
        });
        namespace.apply(&[pod("control", control)]).unwrap();
        namespace.wait("pod/control", "condition=Ready").unwrap();
        signer
    }
}

impl Drop for Signer<'_> {
    fn drop(&mut self) {
        let kubectl: Kubectl<'_> = self.namespace.kubectl();
        for what in ["clusterrolebinding", "clusterrole"] {
            let _ = kubectl.output(&["delete", what, self.namespace.name()]);
        }
        let _ = kubectl.output(&["delete", "clustertrustbundle", BUNDLE]);
    }
}

/// What the manual asks for, and no more.
fn rights(namespace: &str) -> [Value; 2] {
    let group = ["certificates.k8s.io"];
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": namespace },
        "rules": [
            { "apiGroups": group, "resources": ["podcertificaterequests"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": group, "resources": ["podcertificaterequests/status"], "verbs": ["update"] },
            { "apiGroups": group, "resources": ["signers"], "resourceNames": [SIGNER], "verbs": ["sign", "attest"] },
            { "apiGroups": group, "resources": ["clustertrustbundles"], "verbs": ["create"] },
            { "apiGroups": group, "resources": ["clustertrustbundles"], "resourceNames": [BUNDLE], "verbs": ["get", "update"] },
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace },
        "subjects": [{ "kind": "ServiceAccount", "name": "control", "namespace": namespace }],
    });
    [role, binding]
}

fn registry() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "registry" },
        "data": { "registry.yaml": "workloads: []\nservices: []\n" },
    })
}

/// Of a pod of the account `web`, as which it takes itself for `account`. A user of its own, so that the kubelet makes no file for it.
fn sidecar(name: &str, account: &str) -> Value {
    let of_pod = |field: &str| json!({ "fieldRef": { "fieldPath": field } });
    let said = |name: &str, value: &str| json!({ "name": name, "value": value });
    let mut main = idle("main");
    main["securityContext"] = json!({ "runAsUser": 1000 });
    let spec = json!({
        "serviceAccountName": "web",
        "containers": [{
            "name": "sidecar", "image": OURS, "imagePullPolicy": "Never", "args": ["proxy"],
            "env": [
                said("OUTRIGGER_NAME", name),
                { "name": "OUTRIGGER_NAMESPACE", "valueFrom": of_pod("metadata.namespace") },
                said("OUTRIGGER_SERVICE_ACCOUNT", account),
                said("OUTRIGGER_REGISTRY", "/etc/outrigger/registry.yaml"),
                said("OUTRIGGER_INTERCEPTION", "none"),
                said("OUTRIGGER_IDENTITY_BUNDLE", "/var/run/secrets/outrigger/bundle.pem"),
                said("OUTRIGGER_AUTHORITY_ROOTS", "/var/run/secrets/outrigger/roots.pem"),
            ],
            "securityContext": { "runAsUser": 52008 },
            "readinessProbe": { "httpGet": { "path": "/readyz", "port": 15020 }, "periodSeconds": 1 },
            "volumeMounts": [mount(), { "name": "registry", "mountPath": "/etc/outrigger" }],
        }, main],
        "volumes": [volume("ECDSAP256"), { "name": "registry", "configMap": { "name": "registry" } }],
    });
    pod(name, spec)
}

fn volume(key: &str) -> Value {
    let certificate = json!({ "signerName": SIGNER, "keyType": key, "credentialBundlePath": "bundle.pem" });
    let roots = json!({ "signerName": SIGNER, "labelSelector": {}, "path": "roots.pem" });
    let sources = [
        json!({ "podCertificate": certificate }),
        json!({ "clusterTrustBundle": roots }),
    ];
    json!({ "name": "identity", "projected": { "sources": sources } })
}

fn mount() -> Value {
    json!({ "name": "identity", "mountPath": "/var/run/secrets/outrigger", "readOnly": true })
}

fn logs(namespace: &Namespace<'_>, pod: &str) -> String {
    let args = [
        "--namespace",
        namespace.name(),
        "logs",
        pod,
        "--container",
        "sidecar",
    ];
    namespace.kubectl().run(&args).unwrap()
}

/// Nothing while there is no container yet.
fn logs_so_far(namespace: &Namespace<'_>, pod: &str) -> String {
    let args = [
        "--namespace",
        namespace.name(),
        "logs",
        pod,
        "--container",
        "sidecar",
    ];
    namespace
        .kubectl()
        .output(&args)
        .map(|output| output.stdout)
        .unwrap_or_default()
}
