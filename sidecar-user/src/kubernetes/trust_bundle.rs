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

/// A bundle as it was found, or that there is none.
pub struct FoundBundle(Option<DynamicObject>);

/// An error is words for a message.
pub async fn find_trust_bundle(client: &Client, served: &Served, name: &str) -> Result<FoundBundle, String> {
    let api: Api<DynamicObject> = Api::all_with(client.inner(), served.resource());
    let found = api.get_opt(name).await;
    found.map(FoundBundle).map_err(|error| words(&error))
}

/// Sees to it that the bundle of this name holds these roots, in PEM. `None`: it is not as it was found any more, and nothing was
/// written.
pub async fn publish_trust_bundle(
    client: &Client,
    served: &Served,
    name: &str,
    found: FoundBundle,
    signer: &str,
    roots: &str,
) -> Result<Option<Published>, String> {
    let api: Api<DynamicObject> = Api::all_with(client.inner(), served.resource());
    let spec = json!({ "signerName": signer, "trustBundle": roots });
    let params = PostParams::default();
    let (published, written) = match found.0 {
        Some(found) if is_so(&found, &spec) => return Ok(Some(Published::Unchanged)),
        // With the version in which it was found, which the server compares.
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
        Ok(_) => Ok(Some(published)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(words(&error)),
    }
}

fn is_so(found: &DynamicObject, spec: &Value) -> bool {
    let same = |field: &str| found.data["spec"][field] == spec[field];
    same("signerName") && same("trustBundle")
}
