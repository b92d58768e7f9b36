//! The webhook's question and answer: an AdmissionReview of `admission.k8s.io/v1` about one pod.

use serde_json::{Value, json};

use super::{Namespace, Profile, inject};

/// Longer warnings are cut off by the API server.
const MAX_WARNING: usize = 256;
const VERSION: &str = "admission.k8s.io/v1";

/// What is sent back, and what became of the pod.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub review: Value,
    /// `injected`, `unchanged`, or the rule of a refusal.
    pub result: &'static str,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReview {
    #[error("the body is no JSON")]
    NoJson,
    #[error("it is no AdmissionReview of {VERSION}")]
    OtherKind,
    #[error("it is about no new pod; register the webhook for CREATE of pods only")]
    NoPod,
}

/// The labels have been asked already, by the selectors of the registration. A pod that is refused passes unchanged, with the reason
/// as a warning: whether it may run like that, the guards say.
pub fn review(body: &[u8], profile: &Profile) -> Result<Answer, BadReview> {
    let review: Value = serde_json::from_slice(body).map_err(|_| BadReview::NoJson)?;
    if review["apiVersion"] != VERSION || review["kind"] != "AdmissionReview" {
        return Err(BadReview::OtherKind);
    }
    let request = &review["request"];
    let (uid, pod) = (&request["uid"], &request["object"]);
    let is_pod = request["kind"]["kind"] == "Pod" && request["operation"] == "CREATE";
    if !uid.is_string() || !pod.is_object() || !is_pod {
        return Err(BadReview::NoPod);
    }
    let namespace = Namespace {
        name: request["namespace"].as_str().unwrap_or_default().to_owned(),
        is_enabled: true,
    };
    let mut response = json!({ "uid": uid, "allowed": true });
    let (result, mut warnings) = match inject(pod, &namespace, profile) {
        Ok(injected) if injected.patch.is_empty() => ("unchanged", injected.warnings),
        Ok(injected) => {
            response["patchType"] = "JSONPatch".into();
            let patch = Value::from(injected.patch).to_string();
            response["patch"] = crate::kubernetes::base64(patch.as_bytes()).into();
            ("injected", injected.warnings)
        }
        Err(refusals) => {
            let reasons = refusals
                .iter()
                .map(|refusal| format!("no sidecar is injected: {}", refusal.reason));
            (refusals[0].rule, reasons.collect())
        }
    };
    for warning in &mut warnings {
        let end = (0..=MAX_WARNING).rev().find(|end| warning.is_char_boundary(*end));
        warning.truncate(end.unwrap_or(0));
    }
    if !warnings.is_empty() {
        response["warnings"] = warnings.into();
    }
    let review = json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response });
    Ok(Answer { review, result })
}
