//! The Secret of a cluster's authority: read, changed in one step, and noted in. A change is made of the Secret as it was read and
//! counts only where it is still so.

use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

use crate::error_chain;
use crate::issuer::{self, Material, Service};
use crate::kubernetes::{self, Client, Secret, Version, change_secret, read_secret};

/// Of the Secret and of the ConfigMap.
pub(super) const NAME: &str = "outrigger-ca";

/// Where the Secret is.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// The Secret as it was at one moment.
pub(super) struct State {
    pub(super) secret: Secret,
    version: Version,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Ask(kubernetes::Error),
    #[error(transparent)]
    Use(issuer::Error),
    #[error("it is not there any more")]
    Gone,
}

impl Kept {
    pub(super) async fn read(&self) -> Result<Option<State>, Trouble> {
        let found = read_secret(&self.client, &self.namespace, NAME).await;
        let found = found.map_err(Trouble::Ask)?;
        Ok(found.map(|(secret, version)| State { secret, version }))
    }

    /// `false`: it is not as it was read any more.
    pub(super) async fn change(&self, from: &State, to: Material) -> Result<bool, kubernetes::Error> {
        let to = secret(to, from.secret.clone());
        let Self { client, namespace } = self;
        change_secret(client, namespace, NAME, &from.version, &from.secret, &to).await
    }

    /// Notes what a replica has to, and gives the state after it.
    pub(super) async fn note(
        &self,
        published: Option<&str>,
        leaf_ttl: Duration,
    ) -> Result<Material, Trouble> {
        loop {
            let state = self.read().await?.ok_or(Trouble::Gone)?;
            let material = material(&state.secret).map_err(Trouble::Use)?;
            let noted = material.noted(published, leaf_ttl, SystemTime::now());
            let Some(noted) = noted.map_err(Trouble::Use)? else {
                return Ok(material);
            };
            if self.change(&state, noted.clone()).await.map_err(Trouble::Ask)? {
                return Ok(noted);
            }
        }
    }

    /// The roots as they are now, which `service` takes up. `None`: there is no Secret.
    pub(super) async fn roots(&self, service: &Service) -> Result<Option<String>, String> {
        let words = |trouble: Trouble| error_chain(&trouble);
        let Some(state) = self.read().await.map_err(words)? else {
            return Ok(None);
        };
        let replaced = material(&state.secret).and_then(|material| service.store().replace(&material));
        replaced.map_err(|error| words(Trouble::Use(error)))?;
        Ok(Some(service.store().current().bundle().to_owned()))
    }
}

/// What else it holds stays.
pub(super) fn secret(material: Material, mut into: Secret) -> Secret {
    let text = |text: Zeroizing<String>| Zeroizing::new(text.as_bytes().to_vec());
    let plain = |text: String| Zeroizing::new(text.into_bytes());
    for (key, value) in [
        (Material::ROOTS, Some(plain(material.roots))),
        (Material::KEY, Some(text(material.key))),
        (Material::NEXT_KEY, material.next_key.map(text)),
        (Material::TIMES, material.times.map(plain)),
    ] {
        match value {
            Some(value) => into.0.insert(key.to_owned(), value),
            None => into.0.remove(key),
        };
    }
    into
}

pub(super) fn material(secret: &Secret) -> Result<Material, issuer::Error> {
    let bad = |key: &str, reason: &str| issuer::Error::Kept {
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    let read = |key: &str| match secret.0.get(key) {
        None => Ok(None),
        Some(value) => match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
            Err(_) => Err(bad(key, "it is no text")),
        },
    };
    let required = |key: &str| read(key)?.ok_or_else(|| bad(key, "it is missing"));
    Ok(Material {
        roots: required(Material::ROOTS)?.to_string(),
        key: required(Material::KEY)?,
        next_key: read(Material::NEXT_KEY)?,
        times: read(Material::TIMES)?.map(|text| text.to_string()),
    })
}
