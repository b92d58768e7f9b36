//! A MutatingWebhookConfiguration: whom the API server trusts when it asks the webhook. Reads and writes nothing else of it.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Client;

/// One by its name.
#[derive(Clone)]
pub struct WebhookConfiguration {
    api: Api<MutatingWebhookConfiguration>,
    name: String,
}

/// The certificates that the API server trusts, as it stood at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    pub pem: String,
    /// With it whatever else stands in the object.
    object: MutatingWebhookConfiguration,
}

impl WebhookConfiguration {
    pub fn new(client: &Client, name: &str) -> Self {
        Self {
            api: Api::all(client.inner()),
            name: name.to_owned(),
        }
    }

    /// Of its first webhook: all of them are one server's.
    pub async fn bundle(&self) -> Result<Bundle, String> {
        let object = self
            .api
            .get(&self.name)
            .await
            .map_err(|error| crate::error_chain(&error))?;
        let first = object.webhooks.iter().flatten().next();
        let bundle = first.and_then(|webhook| webhook.client_config.ca_bundle.clone());
        let pem = String::from_utf8_lossy(&bundle.unwrap_or_default().0).into_owned();
        Ok(Bundle { pem, object })
    }

    /// An error where somebody else has changed the object since `seen`.
    pub async fn trust(&self, seen: &Bundle, pem: &str) -> Result<(), String> {
        let mut webhooks = seen.object.webhooks.clone().unwrap_or_default();
        for webhook in &mut webhooks {
            webhook.client_config.ca_bundle = Some(ByteString(pem.as_bytes().to_vec()));
        }
        let patch = json!({
            "metadata": { "resourceVersion": seen.object.metadata.resource_version },
            "webhooks": webhooks,
        });
        let patched = self
            .api
            .patch(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.map(drop).map_err(|error| crate::error_chain(&error))
    }
}

/// Bytes as objects of the API server hold them.
pub fn base64(bytes: &[u8]) -> String {
    let text = serde_json::to_value(ByteString(bytes.to_vec()));
    text.ok()
        .and_then(|text| Some(text.as_str()?.to_owned()))
        .unwrap_or_default()
}
