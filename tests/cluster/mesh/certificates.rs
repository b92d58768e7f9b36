//! Pods whose sidecars get their certificates from the kubelet, beside those that ask for them with a token.

use harness::cluster::mesh::SYSTEM;
use harness::cluster::{Mesh, Namespace};
use harness::wait::{self, SOON};
use serde_json::Value;

use super::{client, mesh_alone, meshed, web};
use crate::common::answered;

/// Brings the values of the other tests back, also where this one has failed.
struct Back<'m>(&'m Mesh<'static>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.upgrade(&[]) {
            eprintln!("{error:#}");
        }
        let bundle = "outrigger.example:workload:root";
        let _ = self.0.kubectl().output(&["delete", "clustertrustbundle", bundle]);
    }
}

/// What the sources of a pod's volumes are that are the sidecar's.
fn sources(namespace: &Namespace, pod: &str) -> String {
    let pod = namespace.get(&["pod", pod]).unwrap();
    let volumes = pod["spec"]["volumes"].as_array().unwrap().iter();
    let ours = volumes.filter(|volume| volume["name"].as_str().unwrap().starts_with("outrigger-"));
    ours.map(Value::to_string).collect()
}

fn name_of_a_pod(namespace: &Namespace, app: &str) -> String {
    let pods = namespace
        .get(&["pods", "--selector", &format!("app={app}")])
        .unwrap();
    pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn pods_with_certificates_of_the_kubelet_and_pods_with_a_token_are_one_mesh() {
    let mesh = mesh_alone();
    let namespace = meshed("certificates");
    namespace.apply(&web("by-token")).unwrap();
    namespace.apply(&[client("token", "node-1")]).unwrap();
    namespace
        .wait("deployment/by-token", "condition=Available")
        .unwrap();
    namespace.wait("pod/token", "condition=Ready").unwrap();

    let _back = Back(&mesh);
    mesh.upgrade(&["podCertificates.enabled=true", "proxy.mode=strict"])
        .unwrap();
    namespace.apply(&web("by-kubelet")).unwrap();
    namespace.apply(&[client("kubelet", "node-2")]).unwrap();
    namespace
        .wait("deployment/by-kubelet", "condition=Available")
        .unwrap();
    namespace.wait("pod/kubelet", "condition=Ready").unwrap();
    for (pod, has, has_not) in [
        ("token".to_owned(), "serviceAccountToken", "podCertificate"),
        ("kubelet".to_owned(), "podCertificate", "serviceAccountToken"),
        (
            name_of_a_pod(&namespace, "by-kubelet"),
            "clusterTrustBundle",
            "serviceAccountToken",
        ),
    ] {
        let sources = sources(&namespace, &pod);
        assert!(
            sources.contains(has) && !sources.contains(has_not),
            "{pod}: {sources}"
        );
    }
    let name = namespace.name();
    let identity = format!("spiffe://cluster.local/ns/{name}/sa/default");
    for (from, node) in [("token", "node-1"), ("kubelet", "node-2")] {
        for to in ["by-token", "by-kubelet"] {
            answered(
                &namespace,
                from,
                &["curl", "-sS", "-m", "10", &format!("http://{to}/")],
            );
            let what = format!("the flow from {from} to {to} has both identities");
            wait::until(&what, SOON, || {
                let flows = mesh.flows(node).unwrap();
                flows.iter().any(|flow| {
                    flow["direction"] == "outbound"
                        && flow["pod"] == format!("{name}/{from}")
                        && flow["service"] == format!("{name}/{to}.{name}.svc.cluster.local")
                        && flow["transport"] == "hbone"
                        && flow["sourceIdentity"] == identity.as_str()
                        && flow["destinationIdentity"] == identity.as_str()
                })
            })
            .unwrap();
        }
    }
    // Without its signer a new pod of this kind waits: it has no other way to a certificate.
    let scale = |replicas: &str| {
        let deployment = [
            "--namespace",
            SYSTEM,
            "scale",
            "deployment/outrigger-control",
            replicas,
        ];
        mesh.kubectl().run(&deployment).unwrap();
    };
    scale("--replicas=0");
    wait::until("no replica is left", SOON * 3, || {
        let label = "--selector=app.kubernetes.io/component=control";
        let pods = mesh
            .kubectl()
            .get(&["--namespace", SYSTEM, "pods", label])
            .unwrap();
        pods["items"].as_array().is_some_and(Vec::is_empty)
    })
    .unwrap();
    namespace.apply(&[client("waits", "node-2")]).unwrap();
    wait::until("its certificate is asked for", SOON * 3, || {
        let requests = namespace.get(&["podcertificaterequests"]).unwrap();
        let mut requests = requests["items"].as_array().unwrap().iter();
        requests.any(|request| {
            request["spec"]["podName"] == "waits" && request["status"]["certificateChain"].is_null()
        })
    })
    .unwrap();
    let waiting = namespace.get(&["pod", "waits"]).unwrap();
    assert_ne!(waiting["status"]["phase"], "Running", "{waiting:#}");
    answered(
        &namespace,
        "kubelet",
        &["curl", "-sS", "-m", "10", "http://by-kubelet/"],
    );
    scale("--replicas=2");
    namespace.wait("pod/waits", "condition=Ready").unwrap();
}
