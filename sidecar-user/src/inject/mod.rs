//! WHAT DOES A POD LOOK LIKE WITH ITS SIDECAR? Pod in, pod out, or the reasons why not; pure. Speaks to nobody and reads no file.
//!
//! The one table of changes (`changes.rs`) and the one of refusals (`refusals.rs`) are each written once, as values: this room acts on
//! them itself for files and for the webhook, and writes them in the API server's own language for the admission policies
//! (`policies.rs`), so that all ways lead to the same pod. What is not known here of a pod survives, because it stays JSON.

mod cel;
mod changes;
mod container;
mod manifest;
mod pod;
mod policies;
mod ports;
mod profile;
mod quantity;
mod refusals;
mod review;
#[cfg(test)]
mod tests;
mod uninject;
mod warnings;

use serde_json::Value;

pub use manifest::{Wrong, change, documents};
pub use pod::Namespace;
pub use policies::{guards, policies, webhook_configuration};
pub use profile::Profile;
pub use refusals::Refusal;
pub use review::{Answer, BadReview, review};
pub use uninject::uninject;

/// A pod with its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    pub pod: Value,
    /// What has changed, as a JSON Patch (RFC 6902); empty where the pod had its sidecar already.
    pub patch: Vec<Value>,
    /// What of the pod is not as somebody may expect it to be.
    pub warnings: Vec<String>,
}

/// All reasons at once, where there is one.
pub fn inject(pod: &Value, namespace: &Namespace, profile: &Profile) -> Result<Injected, Vec<Refusal>> {
    let refusals = refusals::of(pod, namespace, profile);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let (changed, patch) = match container::is_in(pod) {
        true => (pod.clone(), Vec::new()),
        false => changes::apply(pod, &changes::of(profile)),
    };
    Ok(Injected {
        pod: changed,
        patch,
        warnings: warnings::of(pod),
    })
}
