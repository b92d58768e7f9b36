//! One key of a ConfigMap, for everybody to read.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::{Client, Error};

/// In whose name it is written: other keys of the same ConfigMap stay their owners'.
const OWNER: &str = "outrigger-control";

/// Makes the ConfigMap where there is none.
pub async fn publish(
    client: &Client,
    namespace: &str,
    name: &str,
    key: &str,
    value: &str,
) -> Result<(), Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.inner(), namespace);
    let wanted = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { key: value },
    });
    let params = PatchParams::apply(OWNER).force();
    let published = api.patch(name, &params, &Patch::Apply(&wanted)).await;
    published
        .map(drop)
        .map_err(|source| Error::asked("write a ConfigMap", source))
}
