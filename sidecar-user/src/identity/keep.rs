//! Keeps a valid certificate in force for as long as the process lives.
//!
//! ```text
//!            ┌────────── half-life ───────────┐
//!            ▼                                │
//!   ask ─▶ answered ─▶ verified ─▶ published ─┘      published ─▶ expired: None is published
//!    ▲        │            │
//!    └─ pause ┴── failed ──┘   what is in force stays in force
//! ```
//!
//! It does not decide when (`schedule.rs`), ask (`client.rs`) or judge (`answer.rs`).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::client::Authority;
use super::contain::contained;
use super::schedule::{next_renewal, next_retry};
use super::{Config, Error, Key, Mark, Status, Svid};
use crate::error_chain;

/// Timers stand still while a machine sleeps and ignore a clock that is set, so the clock is looked at again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Publishes a certificate, then each renewal, and `None` once none is valid. Ends only when `config` can
/// never work; whatever can pass is logged, shown in `status` and tried again.
pub async fn keep(
    config: Config,
    mark: Mark,
    publish: watch::Sender<Option<Arc<Svid>>>,
    status: watch::Sender<Status>,
) -> Result<Infallible, Error> {
    let authority = Authority::new(config, mark)?;
    tokio::select! {
        never = renew(&authority, &publish, &status) => match never {},
        never = withdraw_expired(&publish) => match never {},
    }
}

async fn renew(
    authority: &Authority,
    publish: &watch::Sender<Option<Arc<Svid>>>,
    status: &watch::Sender<Status>,
) -> Infallible {
    let mut failures = 0;
    loop {
        let obtained = contained(obtain(authority)).await;
        let now = SystemTime::now();
        let next = match &obtained {
            Ok(svid) => {
                failures = 0;
                next_renewal(now, svid.not_after(), chance())
            }
            Err(error) => {
                failures += 1;
                let left = publish
                    .borrow()
                    .as_ref()
                    .map(|svid| svid.not_after().duration_since(now).unwrap_or_default());
                now + next_retry(failures, error.is_local(), left, chance())
            }
        };
        status.send_replace(Status {
            failures,
            last_error: obtained.as_ref().err().map(|e| error_chain(e)),
            next_attempt: Some(next),
        });
        match obtained {
            Ok(svid) => {
                info!(
                    identity = %svid.id(),
                    serial = svid.serial(),
                    not_after = %humantime::format_rfc3339_seconds(svid.not_after()),
                    renewal = %humantime::format_rfc3339_seconds(next),
                    "certificate obtained"
                );
                publish.send_replace(Some(Arc::new(svid)));
            }
            Err(error) => warn!(
                identity = %authority.config().id,
                error = error_chain(&error),
                failures,
                in_force = publish.borrow().is_some(),
                retry = ?next.duration_since(now).unwrap_or_default(),
                "no certificate obtained"
            ),
        }
        sleep_until(next).await;
    }
}

/// A new key for each certificate: a stolen one is worth no more than its certificate's life.
async fn obtain(authority: &Authority) -> Result<Svid, Error> {
    let config = authority.config();
    let key = Key::generate()?;
    let answer = authority.create(key.request(&config.id)?).await?;
    Svid::from_answer(&config.id, &key, &answer, SystemTime::now()).map_err(|source| Error::Answer {
        authority: config.authority.clone(),
        source,
    })
}

/// Fails closed. It runs beside the renewal, so an attempt that hangs cannot delay it.
async fn withdraw_expired(publish: &watch::Sender<Option<Arc<Svid>>>) -> Infallible {
    let mut current = publish.subscribe();
    loop {
        let end = current.borrow_and_update().as_ref().map(|svid| svid.not_after());
        let expired = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = current.changed() => {}
            () = expired => {
                let now = SystemTime::now();
                publish.send_if_modified(|svid| {
                    let gone = svid.take_if(|svid| svid.not_after() <= now);
                    if let Some(svid) = &gone {
                        error!(
                            identity = %svid.id(),
                            "the certificate expired before it could be renewed: no mesh connection is made or accepted until it is"
                        );
                    }
                    gone.is_some()
                });
            }
        }
    }
}

async fn sleep_until(wake: SystemTime) {
    while let Ok(left) = wake.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// From 0 to 1. Without random bytes everyone waits the middle.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    match random.fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
