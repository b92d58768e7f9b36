//! Istio's policies where their kinds are installed: what they say holds for connections, and without them everything is as before.

use harness::cluster::Namespace;
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use super::{client, mesh_alone, meshed};
use crate::common::{cluster, named_server, pod};
use crate::kinds::Kinds;

/// A client that has a service account of its own.
fn accounted(name: &str) -> [Value; 2] {
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } });
    let mut pod = client(name, "node-1");
    pod["spec"]["serviceAccountName"] = name.into();
    [account, pod]
}

/// `None` where the server's proxy, or nobody, let the connection through.
fn says(namespace: &Namespace, pod: &str, url: &str) -> Option<String> {
    let said = namespace.exec(pod, &["curl", "-sS", "-m", "5", url]).unwrap();
    said.status.success().then_some(said.stdout)
}

fn becomes(namespace: &Namespace, pod: &str, url: &str, answered: bool) {
    let what = format!("{pod} is {}", if answered { "answered" } else { "refused" });
    wait::until(&what, SOON * 6, || {
        says(namespace, pod, url).is_some() == answered
    })
    .unwrap();
}

#[test]
fn an_authorization_policy_lets_in_whom_it_names_and_peer_authentication_refuses_plaintext() {
    let mesh = mesh_alone();
    let namespace = meshed("policies");
    let outside = Namespace::create(cluster().kubectl(), "policies-outside").unwrap();
    let server = pod(
        "server",
        json!({ "nodeName": "node-2", "containers": [named_server()] }),
    );
    namespace.apply(&[server]).unwrap();
    for name in ["friend", "stranger"] {
        namespace.apply(&accounted(name)).unwrap();
    }
    outside.apply(&[client("outside", "node-1")]).unwrap();
    for name in ["server", "friend", "stranger"] {
        namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
    }
    outside.wait("pod/outside", "condition=Ready").unwrap();
    let address = namespace.get(&["pod", "server"]).unwrap()["status"]["podIP"].clone();
    let url = format!("http://{}/", address.as_str().unwrap());
    for name in ["friend", "stranger"] {
        becomes(&namespace, name, &url, true);
    }
    becomes(&outside, "outside", &url, true);

    let kinds = Kinds::install(mesh.kubectl());
    let allow = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": { "name": "friends" },
        "spec": {
            "selector": { "matchLabels": { "app": "server" } },
            "rules": [{ "from": [{ "source": {
                "principals": [format!("cluster.local/ns/{}/sa/friend", namespace.name())],
            }}]}],
        },
    });
    namespace.apply(&[allow]).unwrap();
    becomes(&namespace, "stranger", &url, false);
    // Plaintext has proven nobody.
    becomes(&outside, "outside", &url, false);
    becomes(&namespace, "friend", &url, true);
    // The kubelet's probe goes past the proxy.
    let server = namespace.get(&["pod", "server"]).unwrap();
    assert_eq!(
        server["status"]["containerStatuses"][0]["ready"], true,
        "{server}"
    );

    let strict = json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": { "name": "default" },
        "spec": { "mtls": { "mode": "STRICT" } },
    });
    namespace.apply(&[strict]).unwrap();
    let delete = [
        "--namespace",
        namespace.name(),
        "delete",
        "authorizationpolicy.security.istio.io",
        "friends",
    ];
    namespace.kubectl().run(&delete).unwrap();
    becomes(&namespace, "stranger", &url, true);
    becomes(&outside, "outside", &url, false);

    // Without the kinds there are no policies, once it is sure that they are not merely unknown for a moment.
    drop(kinds);
    wait::until("plaintext is taken again", SOON * 24, || {
        says(&outside, "outside", &url).is_some()
    })
    .unwrap();
    becomes(&namespace, "friend", &url, true);
}
