//! One Secret by its name: read, made where there is none, changed, and followed. Its values are wiped from memory when they are
//! dropped.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::{Stream, StreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde::Serialize;
use zeroize::{Zeroize, Zeroizing};

use super::{Change, Client, Error, follow};

/// What it holds, by key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub BTreeMap<String, Zeroizing<Vec<u8>>>);

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretChange {
    Now(Secret),
    Gone,
    /// The API server cannot be asked, for this reason.
    Trouble(String),
}

/// Which of its states a Secret was read in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

/// As it is now and not as somebody remembers it. `None`: there is none of that name.
pub async fn read_secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<(Secret, Version)>, Error> {
    let api: Api<v1::Secret> = Api::namespaced(client.inner(), namespace);
    let secret = api.get_opt(name).await;
    let secret = secret.map_err(|source| Error::asked("read a Secret", source))?;
    Ok(secret.map(|mut secret| {
        let version = secret.metadata.resource_version.take().unwrap_or_default();
        (values(secret), Version(version))
    }))
}

/// What is sent to change it: only what differs, `null` for a key that goes, and the state that it was read in.
#[derive(Serialize)]
struct Difference<'a> {
    metadata: ObjectMeta,
    data: BTreeMap<&'a str, Option<ByteString>>,
}

/// Makes `to` of what was read as `from`, in one step. `false`: it is not in that state any more, and nothing was changed.
pub async fn change_secret(
    client: &Client,
    namespace: &str,
    name: &str,
    version: &Version,
    from: &Secret,
    to: &Secret,
) -> Result<bool, Error> {
    let api: Api<v1::Secret> = Api::namespaced(client.inner(), namespace);
    let gone = from.0.keys().filter(|key| !to.0.contains_key(*key));
    let gone = gone.map(|key| (key.as_str(), None));
    let changed = to.0.iter().filter(|(key, value)| from.0.get(*key) != Some(value));
    let changed = changed.map(|(key, value)| (key.as_str(), Some(ByteString(value.to_vec()))));
    let mut difference = Difference {
        metadata: ObjectMeta {
            resource_version: Some(version.0.clone()),
            ..ObjectMeta::default()
        },
        data: gone.chain(changed).collect(),
    };
    let patched = api
        .patch(name, &PatchParams::default(), &Patch::Merge(&difference))
        .await;
    for value in difference.data.values_mut().flatten() {
        value.0.zeroize();
    }
    match patched {
        Ok(changed) => {
            drop(values(changed));
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(source) => Err(Error::asked("change a Secret", source)),
    }
}

/// `false`: somebody else has made one of that name, which stays as it is.
pub async fn make_secret(client: &Client, namespace: &str, name: &str, of: &Secret) -> Result<bool, Error> {
    let api: Api<v1::Secret> = Api::namespaced(client.inner(), namespace);
    let data = of.0.iter();
    let mut secret = v1::Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(
            data.map(|(key, value)| (key.clone(), ByteString(value.to_vec())))
                .collect(),
        ),
        type_: Some("Opaque".into()),
        ..v1::Secret::default()
    };
    let made = api.create(&PostParams::default(), &secret).await;
    // These copies are wiped as well.
    drop(values(std::mem::take(&mut secret)));
    match made {
        Ok(made) => {
            drop(values(made));
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(source) => Err(Error::asked("make a Secret", source)),
    }
}

/// Tells what it holds now, and then each change. Never ends.
pub fn follow_secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> impl Stream<Item = SecretChange> + use<> {
    let api: Api<v1::Secret> = Api::namespaced(client.inner(), namespace);
    // With the name in the selector, the right to this one Secret is enough.
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    follow(api, config).map(|change| match change {
        Change::All(all) => match all.into_iter().next() {
            Some(secret) => SecretChange::Now(values(secret)),
            None => SecretChange::Gone,
        },
        Change::Applied(secret) => SecretChange::Now(values(secret)),
        Change::Gone(secret) => {
            drop(values(secret));
            SecretChange::Gone
        }
        Change::Trouble(error) => SecretChange::Trouble(error),
    })
}

/// Moves them, so that no copy is left behind.
fn values(secret: v1::Secret) -> Secret {
    let data = secret.data.unwrap_or_default().into_iter();
    Secret(data.map(|(key, value)| (key, Zeroizing::new(value.0))).collect())
}

impl fmt::Debug for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_holds_is_never_shown() {
        let value = Zeroizing::new(b"hidden".to_vec());
        let secret = Secret(BTreeMap::from([("root-key.pem".to_owned(), value)]));
        let shown = format!("{secret:?}");
        assert!(
            shown.contains("root-key.pem") && !shown.contains("hidden"),
            "{shown}"
        );
        assert!(!shown.contains("104"), "{shown}");
    }
}
