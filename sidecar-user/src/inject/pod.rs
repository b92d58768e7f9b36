//! What of a pod the tables of this room ask about, as JSON. Changes nothing.

use serde_json::Value;

use crate::kubernetes::{CONTAINER, LABEL_INJECT};

/// The namespace of a pod, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    /// It has the label, or somebody asks for this pod by hand.
    pub is_enabled: bool,
}

/// Whether the labels ask for a sidecar; the pod's word wins.
pub(super) fn is_asked_for(pod: &Value, namespace: &Namespace) -> bool {
    match pod["metadata"]["labels"][LABEL_INJECT].as_str() {
        Some(word) => word == ENABLED,
        None => namespace.is_enabled,
    }
}

/// What the label says.
pub(super) const ENABLED: &str = "enabled";
pub(super) const DISABLED: &str = "disabled";

/// A list of a pod, empty where it is absent or null.
pub(super) fn list<'p>(value: &'p Value, field: &str) -> &'p [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The containers that are not ours, those that start the pod among them.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let spec = &pod["spec"];
    let all = list(spec, "containers")
        .iter()
        .chain(list(spec, "initContainers"));
    all.filter(|container| container["name"] != CONTAINER)
}
