//! The authority of a cluster: its roots and key in a Secret, which every replica reads and follows, and the roots in a ConfigMap for
//! everybody to read. Whichever replica comes first makes the Secret.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{Stream, StreamExt};
use tokio::time::{MissedTickBehavior, interval, sleep};
use zeroize::Zeroizing;

use crate::error_chain;
use crate::issuer::{self, Material, Service, Store};
use crate::kubernetes::{
    self, Client, Secret, SecretChange, follow_secret, make_secret, publish, read_secret,
};

/// Of the Secret and of the ConfigMap.
const NAME: &str = "outrigger-ca";
/// Before the API server is asked again that could not be asked, and half of it more by chance.
const AGAIN: Duration = Duration::from_secs(2);
/// How often the ConfigMap is looked after that somebody may have changed.
const LOOK_AFTER: Duration = Duration::from_secs(300);

/// Waits for as long as the API server cannot be asked. A Secret that cannot be used is an error: somebody has to look at it.
pub(super) async fn open(client: &Client, namespace: &str, config: &issuer::Config) -> anyhow::Result<Store> {
    loop {
        match read_or_make(client, namespace, &config.trust_domain).await {
            Ok(secret) => {
                let opened = material(&secret)
                    .and_then(|material| Store::held(&material, &config.trust_domain, config.leaf_ttl));
                return opened.with_context(|| format!("Secret {namespace}/{NAME}"));
            }
            Err(Trouble::Make(error)) => return Err(error.into()),
            Err(Trouble::Ask(error)) => {
                let error = error_chain(&error);
                tracing::warn!(
                    namespace,
                    error,
                    "the authority's Secret cannot be read; tried again"
                );
            }
        }
        sleep(AGAIN.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
    }
}

enum Trouble {
    Ask(kubernetes::Error),
    Make(issuer::Error),
}

async fn read_or_make(client: &Client, namespace: &str, trust_domain: &str) -> Result<Secret, Trouble> {
    loop {
        let found = read_secret(client, namespace, NAME).await;
        if let Some(secret) = found.map_err(Trouble::Ask)? {
            return Ok(secret);
        }
        let fresh = Material::fresh(trust_domain).map_err(Trouble::Make)?;
        let secret = secret(fresh);
        if make_secret(client, namespace, NAME, &secret)
            .await
            .map_err(Trouble::Ask)?
        {
            tracing::info!(namespace, name = NAME, "a root was made for this cluster");
            return Ok(secret);
        }
        // Another replica was faster: its root is the one.
    }
}

/// Takes changes of the Secret up, and publishes the roots. Never ends.
pub(super) async fn follow(client: Client, namespace: String, service: Arc<Service>) {
    let changes = follow_secret(&client, &namespace, NAME);
    tokio::join!(
        take_up(changes, &namespace, &service),
        publish_roots(&client, &namespace, &service)
    );
}

async fn take_up(changes: impl Stream<Item = SecretChange>, namespace: &str, service: &Service) {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        match change {
            SecretChange::Now(secret) => {
                let replaced = material(&secret).and_then(|material| service.store().replace(&material));
                if let Err(error) = replaced {
                    let error = error_chain(&error);
                    tracing::error!(
                        namespace,
                        name = NAME,
                        error,
                        "the Secret was changed and cannot be used; what was read last stays in force"
                    );
                }
            }
            SecretChange::Gone => tracing::error!(
                namespace,
                name = NAME,
                "the Secret is gone; what was read last stays in force until this process ends: restore it from a backup"
            ),
            SecretChange::Trouble(error) => {
                tracing::warn!(namespace, name = NAME, error, "the Secret cannot be followed")
            }
        }
    }
}

async fn publish_roots(client: &Client, namespace: &str, service: &Service) {
    let mut look = interval(AGAIN);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut published: Option<(String, tokio::time::Instant)> = None;
    loop {
        look.tick().await;
        let roots = service.store().current().bundle().to_owned();
        let is_fresh =
            |(last, at): &(String, tokio::time::Instant)| *last == roots && at.elapsed() < LOOK_AFTER;
        if published.as_ref().is_some_and(is_fresh) {
            continue;
        }
        match publish(client, namespace, NAME, Material::ROOTS, &roots).await {
            Ok(()) => published = Some((roots, tokio::time::Instant::now())),
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(
                    namespace,
                    name = NAME,
                    error,
                    "the roots cannot be published; tried again"
                );
            }
        }
    }
}

fn secret(material: Material) -> Secret {
    let text = |text: Zeroizing<String>| Zeroizing::new(text.as_bytes().to_vec());
    let mut data = BTreeMap::from([
        (
            Material::ROOTS.to_owned(),
            Zeroizing::new(material.roots.into_bytes()),
        ),
        (Material::KEY.to_owned(), text(material.key)),
    ]);
    if let Some(key) = material.next_key {
        data.insert(Material::NEXT_KEY.to_owned(), text(key));
    }
    Secret(data)
}

fn material(secret: &Secret) -> Result<Material, issuer::Error> {
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
    })
}

#[cfg(test)]
mod tests;
