//! The authority of a cluster: its roots and key in a Secret (`kept.rs`), which every replica reads and follows. Whichever replica comes
//! first makes it. `keep.rs` has the changes that replicas make of it by themselves, `rotate.rs` those of an operator.

mod keep;
pub(crate) mod rotate;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::sleep;

use super::kept::{Kept, NAME, Trouble, material, secret};
use super::roots::{Elsewhere, Roots};
use crate::error_chain;
use crate::issuer::{self, Material, Service, Store};
use crate::kubernetes::{Secret, SecretChange, follow_secret, make_secret};

/// Before the API server is asked again that could not be asked, and half of it more by chance.
const AGAIN: Duration = Duration::from_secs(2);

impl Kept {
    /// Waits for as long as the API server cannot be asked, or lets nothing be noted. A Secret that cannot be used is an error:
    /// somebody has to look at it.
    pub(super) async fn open(&self, config: &issuer::Config) -> anyhow::Result<Store> {
        loop {
            let error = match self.try_to_open(config).await {
                Ok(store) => return Ok(store),
                Err(Trouble::Use(error)) => {
                    return Err(error).with_context(|| format!("Secret {}/{NAME}", self.namespace));
                }
                Err(trouble) => error_chain(&trouble),
            };
            tracing::warn!(
                namespace = self.namespace,
                error,
                "the authority's Secret cannot be read and written; tried again"
            );
            sleep(AGAIN.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
        }
    }

    async fn try_to_open(&self, config: &issuer::Config) -> Result<Store, Trouble> {
        self.make(&config.trust_domain).await?;
        let material = self.note(None, config.leaf_ttl).await?;
        Store::held(&material, &config.trust_domain, config.leaf_ttl).map_err(Trouble::Use)
    }

    /// Where there is none yet. Where another replica is faster, its root is the one.
    async fn make(&self, trust_domain: &str) -> Result<(), Trouble> {
        let Self { client, namespace } = self;
        if self.read().await?.is_some() {
            return Ok(());
        }
        let fresh = Material::fresh(trust_domain).map_err(Trouble::Use)?;
        let made = make_secret(client, namespace, NAME, &secret(fresh, Secret::default())).await;
        if made.map_err(Trouble::Ask)? {
            tracing::info!(namespace, name = NAME, "a root was made for this cluster");
        }
        Ok(())
    }

    /// Takes changes of the Secret up, publishes the roots, and notes what there is to note. Never ends.
    pub(super) async fn follow(self, roots: Arc<Roots>, elsewhere: watch::Receiver<Elsewhere>) {
        let changes = follow_secret(&self.client, &self.namespace, NAME);
        tokio::join!(
            take_up(changes, &self.namespace, roots.service()),
            keep::run(&self, &roots, elsewhere)
        );
    }
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

#[cfg(test)]
mod tests;
