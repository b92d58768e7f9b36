//! What the service accounts of Outrigger may ask of the API server, and what they may not: the API server itself is asked, of each.

#[path = "rights/plugin.rs"]
mod plugin; // people who run `kubectl outrigger`

use harness::chart::NAMESPACE;
use serde_json::{Value, json};

use self::Where::{Everywhere, Here, In, Named};
use crate::common::cluster;
use crate::mesh::mesh;

/// Of a right: in all namespaces and beyond them, in ours, to one object in ours, or in another namespace.
#[derive(Clone, Copy, Debug)]
enum Where {
    Everywhere,
    Here,
    Named(&'static str),
    In(&'static str),
}

/// A verb, `RESOURCE[.GROUP][/SUBRESOURCE]`, and where.
type Right = (&'static str, &'static str, Where);

const AGENT_MAY: [Right; 9] = [
    ("get", "pods", Everywhere),
    ("list", "pods", Everywhere),
    ("watch", "pods", Everywhere),
    ("create", "events", Everywhere),
    ("create", "tokenreviews.authentication.k8s.io", Everywhere),
    ("create", "subjectaccessreviews.authorization.k8s.io", Everywhere),
    ("get", "endpointslices.discovery.k8s.io", Here),
    ("list", "endpointslices.discovery.k8s.io", Here),
    ("watch", "endpointslices.discovery.k8s.io", Here),
];

const AGENT_MAY_NOT: [Right; 26] = [
    ("create", "pods", Here),
    ("update", "pods", Everywhere),
    ("patch", "pods", Everywhere),
    ("delete", "pods", Everywhere),
    ("patch", "pods/status", Everywhere),
    ("create", "pods/exec", Everywhere),
    ("get", "pods/log", Everywhere),
    ("create", "pods/portforward", Everywhere),
    ("create", "pods/eviction", Everywhere),
    ("patch", "pods/ephemeralcontainers", Everywhere),
    ("list", "endpointslices.discovery.k8s.io", Everywhere),
    ("list", "services", Everywhere),
    ("get", "nodes", Everywhere),
    ("patch", "nodes", Everywhere),
    ("get", "secrets", Here),
    ("list", "secrets", Here),
    ("get", "secrets", Named("outrigger-ca")),
    ("update", "configmaps", Named("outrigger-ca")),
    ("list", "events", Everywhere),
    ("create", "serviceaccounts/token", Here),
    ("create", "serviceaccounts/token", Named("outrigger-viewer")),
    ("get", "flows.outrigger.example", Everywhere),
    ("create", "drains.outrigger.example", Everywhere),
    ("patch", "daemonsets.apps", Here),
    ("impersonate", "users", Everywhere),
    (
        "create",
        "clusterrolebindings.rbac.authorization.k8s.io",
        Everywhere,
    ),
];

const CONTROL_MAY: [Right; 22] = [
    ("list", "services", Everywhere),
    ("watch", "services", Everywhere),
    ("get", "pods", Everywhere),
    ("list", "pods", Everywhere),
    ("watch", "pods", Everywhere),
    ("list", "nodes", Everywhere),
    ("watch", "nodes", Everywhere),
    ("list", "endpointslices.discovery.k8s.io", Everywhere),
    ("watch", "endpointslices.discovery.k8s.io", Everywhere),
    ("list", "authorizationpolicies.security.istio.io", Everywhere),
    ("watch", "authorizationpolicies.security.istio.io", Everywhere),
    ("list", "peerauthentications.security.istio.io", Everywhere),
    ("watch", "peerauthentications.security.istio.io", Everywhere),
    ("create", "tokenreviews.authentication.k8s.io", Everywhere),
    ("create", "secrets", Here),
    ("get", "secrets", Named("outrigger-ca")),
    ("list", "secrets", Named("outrigger-ca")),
    ("watch", "secrets", Named("outrigger-ca")),
    ("patch", "secrets", Named("outrigger-ca")),
    ("create", "configmaps", Here),
    ("get", "configmaps", Named("outrigger-ca")),
    ("patch", "configmaps", Named("outrigger-ca")),
];

const CONTROL_MAY_NOT: [Right; 26] = [
    ("create", "pods", Everywhere),
    ("patch", "pods", Everywhere),
    ("delete", "pods", Everywhere),
    ("create", "pods/exec", Everywhere),
    ("get", "pods/log", Everywhere),
    ("patch", "services", Everywhere),
    ("patch", "services/status", Everywhere),
    ("update", "endpointslices.discovery.k8s.io", Everywhere),
    ("patch", "nodes", Everywhere),
    ("get", "secrets", Everywhere),
    ("list", "secrets", Everywhere),
    ("list", "secrets", Here),
    ("get", "secrets", Here),
    ("get", "secrets", Named("another")),
    ("update", "secrets", Named("outrigger-ca")),
    ("patch", "secrets", Named("another")),
    ("delete", "secrets", Named("outrigger-ca")),
    ("create", "secrets", Everywhere),
    ("list", "configmaps", Here),
    ("update", "configmaps", Named("another")),
    ("create", "configmaps", Everywhere),
    ("create", "serviceaccounts/token", Here),
    ("create", "subjectaccessreviews.authorization.k8s.io", Everywhere),
    ("patch", "deployments.apps", Here),
    ("impersonate", "users", Everywhere),
    (
        "create",
        "clusterrolebindings.rbac.authorization.k8s.io",
        Everywhere,
    ),
];

/// Whoever asks: a name, and the groups that the API server would find it in.
struct Caller {
    user: String,
    groups: Vec<String>,
}

impl Caller {
    /// A service account of Outrigger's namespace.
    fn account(name: &str) -> Self {
        Self {
            user: format!("system:serviceaccount:{NAMESPACE}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{NAMESPACE}"),
                "system:authenticated".to_owned(),
            ],
        }
    }

    fn person(name: &str) -> Self {
        Self {
            user: name.to_owned(),
            groups: vec!["system:authenticated".to_owned()],
        }
    }
}

fn review(caller: &Caller, (verb, what, place): Right) -> Value {
    let (what, subresource) = what.split_once('/').unwrap_or((what, ""));
    let (resource, group) = what.split_once('.').unwrap_or((what, ""));
    let (namespace, name) = match place {
        Everywhere => ("", ""),
        Here => (NAMESPACE, ""),
        Named(name) => (NAMESPACE, name),
        In(namespace) => (namespace, ""),
    };
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": caller.user,
            "groups": caller.groups,
            "resourceAttributes": {
                "verb": verb,
                "group": group,
                "resource": resource,
                "subresource": subresource,
                "namespace": namespace,
                "name": name,
            },
        },
    })
}

/// Those of which the API server says something else.
fn surprises(caller: &Caller, rights: &[Right], allowed: bool) -> Vec<String> {
    let reviews: Vec<Value> = rights.iter().map(|right| review(caller, *right)).collect();
    let answers = cluster().kubectl().create(&reviews).unwrap();
    assert_eq!(answers.len(), rights.len());
    let wrong = rights.iter().zip(answers);
    let wrong = wrong.filter(|(_, answer)| answer["status"]["allowed"] != json!(allowed));
    wrong
        .map(|(right, answer)| format!("{right:?}: {}", answer["status"]))
        .collect()
}

#[test]
fn the_agent_may_look_at_pods_and_write_events_and_review_callers_and_nothing_else() {
    let _installed = mesh();
    assert_eq!(
        surprises(&Caller::account("outrigger-agent"), &AGENT_MAY, true),
        [""; 0]
    );
    assert_eq!(
        surprises(&Caller::account("outrigger-agent"), &AGENT_MAY_NOT, false),
        [""; 0]
    );
}

#[test]
fn control_may_look_at_what_exists_and_keep_its_own_key_and_nothing_else() {
    let _installed = mesh();
    assert_eq!(
        surprises(&Caller::account("outrigger-control"), &CONTROL_MAY, true),
        [""; 0]
    );
    assert_eq!(
        surprises(&Caller::account("outrigger-control"), &CONTROL_MAY_NOT, false),
        [""; 0]
    );
}

/// A token that a sidecar holds is the workload's own: it is good for asking control, and not for anything of Outrigger's.
#[test]
fn a_workload_gets_no_right_by_being_in_the_mesh() {
    let _installed = mesh();
    let rights = [&AGENT_MAY[..], &CONTROL_MAY[..]].concat();
    assert_eq!(surprises(&Caller::account("default"), &rights, false), [""; 0]);
}
