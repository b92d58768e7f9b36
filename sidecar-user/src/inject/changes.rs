//! The changes that give a pod its sidecar, as one table with two readers: `apply` for JSON, and `cel.rs` for the API server. A change
//! is an `add` of JSON Patch (RFC 6902).

use serde_json::{Map, Value, json};

use super::pod::{containers, list};
use super::profile::{POD_CERTIFICATES, Profile, TOKEN};
use super::{container, quantity};
use crate::kubernetes::{ANNOTATION_MODE, ANNOTATION_STATUS};

/// By which `kubectl logs` and `kubectl exec` know the application.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub(super) struct Change {
    pub(super) when: When,
    /// A JSON Pointer.
    pub(super) path: String,
    pub(super) value: What,
}

/// Asked of the pod as it was before any change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// As of a template in a file; a pod that reaches the API server has some.
    NoMetadata,
    NoInitContainers,
    NoVolumes,
    NoAnnotations,
    NoDefaultContainer,
    /// It has a mode of its own.
    HasMode,
    /// Its sidecar gets its certificates by this, and the profile says so or not.
    Identity {
        by: &'static str,
        is_so: bool,
    },
    Guaranteed,
    /// Not so, nor does the pod have resources of its own that all its containers share.
    NotGuaranteed,
}

pub(super) enum What {
    This(Value),
    FirstContainersName,
    /// The pod's own mode.
    Mode,
}

/// In their order.
pub(super) fn of(profile: &Profile) -> Vec<Change> {
    let change = |when, path: &str, value| Change {
        when,
        path: path.to_owned(),
        value: What::This(value),
    };
    let annotation = |key: &str| {
        format!(
            "/metadata/annotations/{}",
            key.replace('~', "~0").replace('/', "~1")
        )
    };
    let mut all = vec![
        change(When::NoInitContainers, "/spec/initContainers", json!([])),
        change(
            When::Always,
            "/spec/initContainers/0",
            container::container(profile),
        ),
        change(
            by(profile, POD_CERTIFICATES),
            "/spec/initContainers/0/env",
            container::env_of_files(profile),
        ),
        change(
            by(profile, POD_CERTIFICATES),
            "/spec/initContainers/0/volumeMounts/0/name",
            container::FILES.into(),
        ),
        Change {
            when: When::HasMode,
            path: format!("/spec/initContainers/0/env/{}/value", container::MODE),
            value: What::Mode,
        },
        change(
            When::NotGuaranteed,
            "/spec/initContainers/0/resources",
            container::resources(profile),
        ),
        change(
            When::Guaranteed,
            "/spec/initContainers/0/resources",
            container::guaranteed_resources(profile),
        ),
        change(When::NoVolumes, "/spec/volumes", json!([])),
    ];
    all.extend([
        change(by(profile, TOKEN), "/spec/volumes/-", container::token_volume()),
        change(
            by(profile, POD_CERTIFICATES),
            "/spec/volumes/-",
            container::files_volume(),
        ),
    ]);
    let volumes = container::volumes().map(|volume| change(When::Always, "/spec/volumes/-", volume));
    all.extend(volumes);
    all.push(change(When::NoMetadata, "/metadata", json!({})));
    all.push(change(When::NoAnnotations, "/metadata/annotations", json!({})));
    all.push(Change {
        when: When::NoDefaultContainer,
        path: annotation(DEFAULT_CONTAINER),
        value: What::FirstContainersName,
    });
    all.push(change(
        When::Always,
        &annotation(ANNOTATION_STATUS),
        status(profile),
    ));
    all
}

fn by(profile: &Profile, by: &'static str) -> When {
    let is_so = profile.identity == by;
    When::Identity { by, is_so }
}

/// Which version has injected what, for people and for who looks for sidecars of the past.
fn status(profile: &Profile) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({ "version": version, "profile": profile.digest() })
        .to_string()
        .into()
}

/// The pod with those that hold for it, and they as a patch.
pub(super) fn apply(pod: &Value, changes: &[Change]) -> (Value, Vec<Value>) {
    let mut changed = pod.clone();
    let mut patch = Vec::new();
    for change in changes.iter().filter(|change| change.when.holds(pod)) {
        let value = match &change.value {
            What::This(value) => value.clone(),
            What::FirstContainersName => pod["spec"]["containers"][0]["name"].clone(),
            What::Mode => pod["metadata"]["annotations"][ANNOTATION_MODE].clone(),
        };
        add(&mut changed, &change.path, value.clone());
        patch.push(json!({ "op": "add", "path": change.path, "value": value }));
    }
    (changed, patch)
}

impl When {
    fn holds(self, pod: &Value) -> bool {
        let spec = &pod["spec"];
        match self {
            Self::Always => true,
            Self::NoMetadata => !pod["metadata"].is_object(),
            Self::NoInitContainers => list(spec, "initContainers").is_empty(),
            Self::NoVolumes => list(spec, "volumes").is_empty(),
            Self::NoAnnotations => annotations(pod).is_none(),
            Self::NoDefaultContainer => {
                annotations(pod).is_none_or(|all| !all.contains_key(DEFAULT_CONTAINER))
            }
            Self::HasMode => annotations(pod).is_some_and(|all| all.contains_key(ANNOTATION_MODE)),
            Self::Identity { is_so, .. } => is_so,
            Self::Guaranteed => !has_own_resources(pod) && is_guaranteed(pod),
            Self::NotGuaranteed => !has_own_resources(pod) && !is_guaranteed(pod),
        }
    }
}

fn annotations(pod: &Value) -> Option<&Map<String, Value>> {
    pod["metadata"]["annotations"]
        .as_object()
        .filter(|all| !all.is_empty())
}

/// They hold for all its containers together, and what one asks for is taken from the others.
fn has_own_resources(pod: &Value) -> bool {
    pod["spec"]["resources"]
        .as_object()
        .is_some_and(|all| !all.is_empty())
}

/// As the API server judges it: each container has limits of both, and its requests, where there are any, are the same.
fn is_guaranteed(pod: &Value) -> bool {
    containers(pod).all(|container| {
        let resources = &container["resources"];
        ["cpu", "memory"].iter().all(|name| {
            let (limit, request) = (&resources["limits"][name], &resources["requests"][name]);
            quantity::are_equal(limit, if request.is_null() { limit } else { request })
        })
    })
}

/// The `add` of JSON Patch, for paths of the table: what is on the way is there, or has been added before.
fn add(document: &mut Value, path: &str, value: Value) {
    let Some((parent, last)) = path.rsplit_once('/') else {
        return;
    };
    let last = last.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent) {
        Some(Value::Array(items)) => match last.parse::<usize>() {
            Ok(n) => items.insert(n.min(items.len()), value),
            Err(_) => items.push(value),
        },
        Some(Value::Object(fields)) => {
            fields.insert(last, value);
        }
        _ => {}
    }
}
