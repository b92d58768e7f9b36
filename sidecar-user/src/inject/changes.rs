//! The changes that give a pod its sidecar, as one table with two readers: `apply` for JSON, and `cel.rs` for the API server. A change
//! is an `add` of JSON Patch (RFC 6902).

use serde_json::{Map, Value, json};

use super::pod::{containers, list};
use super::profile::{ATTACH_SELF, POD_CERTIFICATES, Profile, TOKEN};
use super::{container, ports, quantity};
use crate::kubernetes::{ANNOTATION_ATTACH, ANNOTATION_MODE, ANNOTATION_STATUS};

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
    /// Its sidecar gets its certificates by this: by what the profile says, or by its token where it attaches itself, because then it
    /// shows that to control in any case.
    Identity {
        by: &'static str,
        is_of_profile: bool,
        unless_told: bool,
    },
    /// No agent attaches its programs: it says so itself, or it says nothing and this is so of all.
    AttachesItself {
        unless_told: bool,
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
    /// Where the kubelet asks.
    ProbePorts,
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
    ];
    all.extend(of_self_attached(profile));
    all.extend([
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
        change(by(profile, TOKEN), "/spec/volumes/-", container::token_volume()),
        change(
            by(profile, POD_CERTIFICATES),
            "/spec/volumes/-",
            container::files_volume(),
        ),
    ]);
    let volumes = container::volumes().map(|volume| change(When::Always, "/spec/volumes/-", volume));
    all.extend(volumes);
    let volumes = container::own_volumes(profile);
    all.extend(volumes.map(|volume| change(by_itself(profile), "/spec/volumes/-", volume)));
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
    When::Identity {
        by,
        is_of_profile: profile.identity == by,
        unless_told: profile.attaches_itself(),
    }
}

fn by_itself(profile: &Profile) -> When {
    When::AttachesItself {
        unless_told: profile.attaches_itself(),
    }
}

/// In what the container of a sidecar without an agent differs.
fn of_self_attached(profile: &Profile) -> Vec<Change> {
    let change = |field: &str, value| Change {
        when: by_itself(profile),
        path: format!("/spec/initContainers/0/{field}"),
        value,
    };
    vec![
        change("env", What::This(container::own_env(profile))),
        change(&format!("env/{}/value", container::PROBE_PORTS), What::ProbePorts),
        change("securityContext", What::This(container::own_security())),
        change("volumeMounts", What::This(container::own_mounts())),
    ]
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
            What::ProbePorts => ports::of(pod).into(),
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
            Self::Identity {
                by,
                is_of_profile,
                unless_told,
            } => match attaches_itself(pod, unless_told) {
                true => by == TOKEN,
                false => is_of_profile,
            },
            Self::AttachesItself { unless_told } => attaches_itself(pod, unless_told),
            Self::Guaranteed => !has_own_resources(pod) && is_guaranteed(pod),
            Self::NotGuaranteed => !has_own_resources(pod) && !is_guaranteed(pod),
        }
    }
}

fn attaches_itself(pod: &Value, unless_told: bool) -> bool {
    match annotations(pod).and_then(|all| all.get(ANNOTATION_ATTACH)) {
        Some(told) => told == ATTACH_SELF,
        None => unless_told,
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
