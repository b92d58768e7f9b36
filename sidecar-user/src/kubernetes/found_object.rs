//! An object of any kind as it is: for those who look at a few fields of it. And the labels of namespaces.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use serde_json::Value;

use super::{Client, Error};

/// Where objects of a kind are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
}

const fn kind(group: &'static str, kind: &'static str, plural: &'static str) -> ObjectKind {
    ObjectKind {
        group,
        version: "v1",
        kind,
        plural,
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
pub const DEPLOYMENT: ObjectKind = kind("apps", "Deployment", "deployments");
pub const DAEMON_SET: ObjectKind = kind("apps", "DaemonSet", "daemonsets");
pub const INJECTION_POLICY: ObjectKind =
    kind(ADMISSION, "MutatingAdmissionPolicy", "mutatingadmissionpolicies");
pub const INJECTION_BINDING: ObjectKind = kind(
    ADMISSION,
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybindings",
);
pub const INJECTION_WEBHOOK: ObjectKind = kind(
    ADMISSION,
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
);
pub const GUARD: ObjectKind = kind(
    ADMISSION,
    "ValidatingAdmissionPolicy",
    "validatingadmissionpolicies",
);
pub const GUARD_BINDING: ObjectKind = kind(
    ADMISSION,
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
);

/// `None`: there is none of this name, or the API server does not know the kind.
pub async fn find_object(
    client: &Client,
    ObjectKind {
        group,
        version,
        kind,
        plural,
    }: ObjectKind,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, Error> {
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: [group, version].join("/").trim_start_matches('/').into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.inner(), namespace, &resource),
        None => Api::all_with(client.inner(), &resource),
    };
    let found = api.get_opt(name).await;
    let found = found.map_err(|source| Error::asked("show an object of the installation", source))?;
    Ok(found.and_then(|found| serde_json::to_value(found).ok()))
}

/// Of all namespaces by their names, or of the one that is named; nothing where it is not there.
pub async fn namespace_labels(
    client: &Client,
    only: Option<&str>,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
    let api: Api<Namespace> = Api::all(client.inner());
    let found = match only {
        Some(name) => api.get_opt(name).await.map(|found| found.into_iter().collect()),
        None => api.list(&ListParams::default()).await.map(|list| list.items),
    };
    let found: Vec<Namespace> = found.map_err(|source| Error::asked("show namespaces", source))?;
    Ok(found
        .into_iter()
        .map(|namespace| {
            (
                namespace.metadata.name.unwrap_or_default(),
                namespace.metadata.labels.unwrap_or_default(),
            )
        })
        .collect())
}
