//! The requests of kubelets for certificates of pods, to one signer, over time; and the answers to them, of which each request gets
//! one. Decides nothing.
//!
//! That a request speaks of a pod of the node that sent it, and that its sender holds the private key, the API server has checked
//! before it took the request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject, DynamicResourceScope, TypeMeta};
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use super::certificates::words;
use super::{Change, Client, Served, follow};

/// What the API server takes for it where a request says nothing.
const DEFAULT_LIFE: Duration = Duration::from_secs(86_400);

/// A request as a signer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCertificateRequest {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// An answer to an older version of it is not taken.
    resource_version: String,
    pub service_account: String,
    pub pod: String,
    pub node: String,
    /// The longest life that the certificate may have.
    pub longest: Duration,
    pub key: RequestedKey,
    /// The names of what the pod's author says to the signer, which nobody has checked.
    pub annotations: Vec<String>,
    /// It has its answer.
    pub is_settled: bool,
}

/// In DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedKey {
    /// A PKCS#10 request, from kubelets of 1.36 on.
    Request(Vec<u8>),
    /// A SubjectPublicKeyInfo, from those of 1.35.
    Key(Vec<u8>),
}

/// A signer's answer, the last word about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Issued {
        /// In PEM, the leaf first, without the root.
        chain: String,
        not_before: SystemTime,
        not_after: SystemTime,
        refresh_at: SystemTime,
    },
    /// `reason` is one word.
    Denied {
        reason: &'static str,
        message: String,
    },
    Failed {
        reason: &'static str,
        message: String,
    },
}

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    Taken,
    /// Somebody else has changed the request, which is to be looked at again, or it is gone.
    Changed,
    /// The API server will not take it, for this reason.
    Rejected(String),
    /// It could not be asked, or not now.
    Trouble(String),
}

/// Follows the requests to `signer`. Never ends.
pub fn pod_certificate_requests(
    client: &Client,
    served: &Served,
    signer: &str,
) -> impl Stream<Item = Change<PodCertificateRequest>> + use<> {
    let config = watcher::Config::default().fields(&format!("spec.signerName={signer}"));
    let api: Api<Object> = Api::all_with(client.inner(), served.resource());
    follow(api, config).map(|change| change.map(PodCertificateRequest::of))
}

/// Writes the answer.
pub async fn settle(
    client: &Client,
    served: &Served,
    request: &PodCertificateRequest,
    verdict: &Verdict,
    now: SystemTime,
) -> Settled {
    let resource = served.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client.inner(), &request.namespace, resource);
    let answered = api
        .replace_status(
            &request.name,
            &PostParams::default(),
            &answer(resource, request, verdict, now),
        )
        .await;
    match answered {
        Ok(_) => Settled::Taken,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Settled::Changed,
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            Settled::Rejected(status.message)
        }
        Err(error) => Settled::Trouble(words(&error)),
    }
}

fn answer(
    resource: &ApiResource,
    request: &PodCertificateRequest,
    verdict: &Verdict,
    now: SystemTime,
) -> DynamicObject {
    DynamicObject {
        types: Some(TypeMeta {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
        }),
        metadata: ObjectMeta {
            name: Some(request.name.clone()),
            namespace: Some(request.namespace.clone()),
            uid: Some(request.uid.clone()),
            resource_version: Some(request.resource_version.clone()),
            ..ObjectMeta::default()
        },
        data: json!({ "status": status(verdict, now) }),
    }
}

fn status(verdict: &Verdict, now: SystemTime) -> Value {
    let condition = |kind: &str, reason: &str, message: &str| {
        json!([{
            "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": time(now),
        }])
    };
    match verdict {
        Verdict::Issued {
            chain,
            not_before,
            not_after,
            refresh_at,
        } => json!({
            "conditions": condition("Issued", "Issued", "signed by Outrigger"),
            "certificateChain": chain,
            "notBefore": time(*not_before),
            "notAfter": time(*not_after),
            "beginRefreshAt": time(*refresh_at),
        }),
        Verdict::Denied { reason, message } => json!({ "conditions": condition("Denied", reason, message) }),
        Verdict::Failed { reason, message } => json!({ "conditions": condition("Failed", reason, message) }),
    }
}

/// In whole seconds, which is all that the API has.
fn time(time: SystemTime) -> Time {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}

/// As the API has it; what is not named here is not kept.
#[derive(Clone, Debug, Deserialize)]
struct Object {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    pod_name: String,
    service_account_name: String,
    node_name: String,
    max_expiration_seconds: Option<u64>,
    #[serde(rename = "stubPKCS10Request")]
    stub_pkcs10_request: Option<ByteString>,
    #[serde(rename = "pkixPublicKey")]
    pkix_public_key: Option<ByteString>,
    unverified_user_annotations: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    r#type: String,
}

impl PodCertificateRequest {
    fn of(object: Object) -> Self {
        let Object {
            metadata,
            spec,
            status,
        } = object;
        let bytes = |bytes: Option<ByteString>| bytes.unwrap_or_default().0;
        let is_answer = |condition: &Condition| ["Issued", "Denied", "Failed"].contains(&&*condition.r#type);
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            service_account: spec.service_account_name,
            pod: spec.pod_name,
            node: spec.node_name,
            longest: spec
                .max_expiration_seconds
                .map_or(DEFAULT_LIFE, Duration::from_secs),
            key: match spec.stub_pkcs10_request {
                Some(request) => RequestedKey::Request(request.0),
                None => RequestedKey::Key(bytes(spec.pkix_public_key)),
            },
            annotations: spec.unverified_user_annotations.into_keys().collect(),
            is_settled: status.conditions.iter().any(is_answer),
        }
    }

    /// As a test sees it.
    #[cfg(test)]
    pub(crate) fn from_json(object: Value) -> Self {
        Self::of(serde_json::from_value(object).unwrap())
    }
}

impl Resource for Object {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests;
