//! Has the API server trust the webhook: its authority into the configuration, and again where somebody takes it out.

use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::bundle;
use super::certificate::Keys;
use crate::kubernetes::WebhookConfiguration;

/// Between two looks. The API server hears of a change within a second.
const INTERVAL: Duration = Duration::from_secs(60);
/// Until what has failed is tried again: a pod that waits for the webhook waits no longer.
const AGAIN: Duration = Duration::from_secs(5);
/// For each answer of the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Never ends.
pub(super) async fn follow(configuration: &WebhookConfiguration, keys: &Keys, trusted: impl Fn()) {
    let mut is_trusted = None;
    loop {
        let done = publish(configuration, keys, SystemTime::now()).await;
        if is_trusted != Some(done.is_ok()) {
            match &done {
                Ok(()) => tracing::info!("the API server trusts this webhook"),
                Err(error) => tracing::warn!(
                    error,
                    "the webhook configuration cannot be read or written; is it there, and may this account patch it?"
                ),
            }
            is_trusted = Some(done.is_ok());
        }
        let pause = match done {
            Ok(()) => {
                trusted();
                INTERVAL
            }
            Err(_) => AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn publish(configuration: &WebhookConfiguration, keys: &Keys, now: SystemTime) -> Result<(), String> {
    keys.renew(now).map_err(|error| crate::error_chain(&error))?;
    let late = |_| "the API server does not answer in time".to_owned();
    let seen = timeout(PATIENCE, configuration.bundle()).await.map_err(late)??;
    if let Some(pem) = bundle::with(&seen.pem, &keys.authorities(), now) {
        timeout(PATIENCE, configuration.trust(&seen, &pem))
            .await
            .map_err(late)??;
    }
    keys.published(now).map_err(|error| crate::error_chain(&error))
}
