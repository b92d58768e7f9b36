//! One key of a ConfigMap, for everybody to read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};

use super::{Client, Error};

/// In whose name it is written: other keys of the same ConfigMap stay their owners'.
const OWNER: &str = "outrigger-control";

/// A ConfigMap as it was found, or that there is none.
pub struct Found(Option<ConfigMap>);

impl Found {
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.as_ref()?.data.as_ref()?.get(key).map(String::as_str)
    }
}

pub async fn find_config_map(client: &Client, namespace: &str, name: &str) -> Result<Found, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.inner(), namespace);
    let found = api.get_opt(name).await;
    found
        .map(Found)
        .map_err(|source| Error::asked("read a ConfigMap", source))
}

/// Writes one key of it, or makes it. `false`: it is not as it was found any more, and nothing was written.
pub async fn publish(
    client: &Client,
    namespace: &str,
    name: &str,
    found: &Found,
    key: &str,
    value: &str,
) -> Result<bool, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.inner(), namespace);
    let version = found.0.as_ref().map(|found| &found.metadata.resource_version);
    let wanted = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: version.cloned().flatten(),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    };
    let published = match version {
        Some(_) => {
            let params = PatchParams::apply(OWNER).force();
            api.patch(name, &params, &Patch::Apply(&wanted)).await
        }
        None => {
            let field_manager = Some(OWNER.to_owned());
            let params = PostParams {
                field_manager,
                ..PostParams::default()
            };
            api.create(&params, &wanted).await
        }
    };
    match published {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(source) => Err(Error::asked("write a ConfigMap", source)),
    }
}
