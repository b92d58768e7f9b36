//! The kinds of Istio's policies, as far as an API server has to know them. Istio's own say more about fields, and take the same
//! objects.

use anyhow::Result;
use serde_json::{Value, json};

use super::Kubectl;

const KINDS: [(&str, &str); 2] = [
    ("AuthorizationPolicy", "authorizationpolicies"),
    ("PeerAuthentication", "peerauthentications"),
];

/// Installs them, and returns when objects of them are taken.
pub fn install(kubectl: Kubectl<'_>) -> Result<()> {
    kubectl.apply(&KINDS.map(|(kind, plural)| definition(kind, plural)))?;
    for (_, plural) in KINDS {
        let kind = format!("crd/{plural}.security.istio.io");
        kubectl.wait("default", &kind, "condition=Established")?;
    }
    Ok(())
}

/// Takes them away, and with them all objects of them.
pub fn remove(kubectl: Kubectl<'_>) -> Result<()> {
    let mut args = vec!["delete".to_owned(), "crd".to_owned()];
    args.extend(KINDS.map(|(_, plural)| format!("{plural}.security.istio.io")));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    kubectl.run(&args).map(drop)
}

fn definition(kind: &str, plural: &str) -> Value {
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.security.istio.io") },
        "spec": {
            "group": "security.istio.io",
            "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        },
    })
}
