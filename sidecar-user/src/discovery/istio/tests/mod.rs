//! What objects of Istio's become, against what Istio's own tests expect of them.

mod changes;
mod demands;
mod published;
mod rules;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

/// Where Istio has it unless it is told otherwise.
const ROOT: &str = "istio-system";

fn authorization(object: Value) -> AuthorizationPolicy {
    serde_json::from_value(object).unwrap()
}

fn peer(object: Value) -> PeerAuthentication {
    serde_json::from_value(object).unwrap()
}

fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    of.iter().map(text).collect()
}

fn strings(names: &[PolicyName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn told(policies: &IstioPolicies) -> Vec<String> {
    policies.problems().iter().map(ToString::to_string).collect()
}

/// One AuthorizationPolicy `n/p` with this spec: what it becomes, and what is told.
fn convert(spec: Value) -> (Option<Policy>, Vec<String>) {
    let mut policies = IstioPolicies::new(ROOT);
    let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    let changed = policies.authorization(Change::Applied(authorization(object)));
    (changed.put.into_iter().next(), told(&policies))
}
