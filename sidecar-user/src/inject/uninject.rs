//! The way back: a pod without what injection has added. Whatever else it has stays.

use serde_json::Value;

use super::container::{self, VOLUMES};
use super::pod::list;
use crate::kubernetes::{ANNOTATION_STATUS, CONTAINER};

/// `None`: it has no sidecar.
pub fn uninject(pod: &Value) -> Option<Value> {
    if !container::is_in(pod) {
        return None;
    }
    let mut pod = pod.clone();
    let first = pod["spec"]["containers"][0]["name"].clone();
    drop_from(&mut pod["spec"], "initContainers", |name| name == CONTAINER);
    drop_from(&mut pod["spec"], "volumes", |name| VOLUMES.contains(&name));
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        let is_empty = metadata
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
            .is_some_and(|all| {
                all.remove(ANNOTATION_STATUS);
                // The first container is the default one without it, too.
                if all.get(super::changes::DEFAULT_CONTAINER) == Some(&first) {
                    all.remove(super::changes::DEFAULT_CONTAINER);
                }
                all.is_empty()
            });
        if is_empty {
            metadata.remove("annotations");
        }
        if metadata.is_empty()
            && let Some(pod) = pod.as_object_mut()
        {
            pod.remove("metadata");
        }
    }
    Some(pod)
}

fn drop_from(spec: &mut Value, field: &str, is_ours: impl Fn(&str) -> bool) {
    let rest: Vec<Value> = list(spec, field)
        .iter()
        .filter(|item| !item["name"].as_str().is_some_and(&is_ours))
        .cloned()
        .collect();
    if let Some(spec) = spec.as_object_mut() {
        match rest.is_empty() {
            true => spec.remove(field),
            false => spec.insert(field.to_owned(), rest.into()),
        };
    }
}
