//! A signer's roots in a ClusterTrustBundle, for every pod that projects it.

use kube::Api;
use kube::api::PostParams;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::certificates::words;
use super::{Client, Served};

/// What there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It was so already.
    Unchanged,
    Made,
    Changed,
}

/// Sees to it that the bundle of this name holds these roots, in PEM. An error is words for a message.
pub async fn publish_trust_bundle(
    client: &Client,
    served: &Served,
    name: &str,
    signer: &str,
    roots: &str,
) -> Result<Published, String> {
    let api: Api<DynamicObject> = Api::all_with(client.inner(), served.resource());
    let spec = json!({ "signerName": signer, "trustBundle": roots });
    let found = api.get_opt(name).await.map_err(|error| words(&error))?;
    let params = PostParams::default();
    let (published, written) = match found {
        Some(found) if is_so(&found, &spec) => return Ok(Published::Unchanged),
        Some(mut found) => {
            found.data["spec"] = spec;
            (Published::Changed, api.replace(name, &params, &found).await)
        }
        None => {
            let mut fresh = DynamicObject::new(name, served.resource());
            fresh.data = json!({ "spec": spec });
            (Published::Made, api.create(&params, &fresh).await)
        }
    };
    match written {
        Ok(_) => Ok(published),
        // Another replica was faster; the next look shows whether it wrote the same.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Published::Unchanged),
        Err(error) => Err(words(&error)),
    }
}

fn is_so(found: &DynamicObject, spec: &Value) -> bool {
    let same = |field: &str| found.data["spec"][field] == spec[field];
    same("signerName") && same("trustBundle")
}
