//! Keeps a valid certificate in force for as long as the process lives.
//!
//! ```text
//!            ┌─ half-life, refresh, new roots ┐
//!            ▼                                │
//!   ask ─▶ answered ─▶ verified ─▶ published ─┘      published ─▶ expired: None is published
//!    ▲        │            │
//!    └─ pause ┴── failed ──┘   what is in force stays in force
//! ```
//!
//! It does not decide when (`schedule.rs`), ask (`client.rs`) or judge (`answer.rs`). Files that somebody else renews are followed
//! in `follow.rs`.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::client::Authority;
use super::contain::contained;
use super::follow::follow;
use super::schedule::{next_renewal, next_retry};
use super::wait::{chance, sleep_until};
use super::{Config, Error, Key, Source, Status, Svid, Way};
use crate::credentials::Stamp;
use crate::error_chain;

/// How often the file of the authority's roots is looked at. One that has changed is the sign that the authority's root is
/// being replaced: the new bundle of the mesh comes with the next certificate, so that one is asked for at once.
const ROOTS_LOOK: Duration = Duration::from_secs(5);
/// A fleet that shares the file must not ask in the same second.
const ROOTS_SPREAD: Duration = Duration::from_secs(5);

/// Publishes a certificate, then each renewal, and `None` once none is valid. Ends only when `config` can
/// never work; whatever can pass is logged, shown in `status` and tried again.
pub async fn keep(
    config: Config,
    way: Way,
    publish: watch::Sender<Option<Arc<Svid>>>,
    status: watch::Sender<Status>,
) -> Result<Infallible, Error> {
    let Config { id, source } = config;
    let renew = async {
        match source {
            Source::Authority(ask) => Ok(renew(&Authority::new(id, ask, way)?, &publish, &status).await),
            Source::Files(files) => Ok(follow(&id, &files, &publish, &status).await),
        }
    };
    tokio::select! {
        ended = renew => ended,
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
        let roots = Stamp::of(&authority.config().roots);
        let known = publish.borrow().clone();
        let obtained = contained(obtain(authority, known.as_deref())).await;
        let now = SystemTime::now();
        let next = match &obtained {
            Ok(svid) => {
                failures = 0;
                next_renewal(now, svid.not_after(), authority.config().refresh, chance())
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
        status.send_modify(|status| {
            *status = Status {
                failures,
                last_error: obtained.as_ref().err().map(|e| error_chain(e)),
                next_attempt: Some(next),
                obtained: status.after(obtained.as_ref().ok().map(Svid::not_after), now),
            }
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
                identity = %authority.id(),
                error = error_chain(&error),
                failures,
                in_force = publish.borrow().is_some(),
                retry = ?next.duration_since(now).unwrap_or_default(),
                "no certificate obtained"
            ),
        }
        tokio::select! {
            () = sleep_until(next) => {}
            () = changed(&authority.config().roots, roots), if !authority.config().is_agents() => {
                info!(roots = %authority.config().roots.display(), "the authority's roots have changed: asking for a certificate");
                sleep(ROOTS_SPREAD.mul_f64(chance())).await;
            }
        }
    }
}

/// Completes when there is another version of the file than `seen`. One that has gone is none.
async fn changed(path: &Path, seen: Option<Stamp>) {
    loop {
        sleep(ROOTS_LOOK).await;
        let now = Stamp::of(path);
        if now.is_some() && now != seen {
            return;
        }
    }
}

/// A new key for each certificate: a stolen one is worth no more than its certificate's life.
async fn obtain(authority: &Authority, known: Option<&Svid>) -> Result<Svid, Error> {
    let (id, key) = (authority.id(), Key::generate()?);
    let known = known.map(|svid| svid.roots().as_ref());
    let answer = authority.create(key.request(id)?, known).await?;
    Svid::from_answer(id, &key, &answer, SystemTime::now()).map_err(|source| Error::Answer {
        authority: authority.config().authority.clone(),
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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::RootCertStore;
    use rustls::sign::CertifiedKey;

    use super::*;
    use crate::model::SpiffeId;

    const HALF_A_MINUTE: Duration = Duration::from_secs(30);

    /// What it proves plays no part here.
    fn svid(not_after: SystemTime) -> Arc<Svid> {
        let key = Key::generate().unwrap();
        let cert = CertificateParams::default()
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap();
        Arc::new(Svid {
            id: SpiffeId::new("td.test", "demo", "a").unwrap(),
            certified_key: Arc::new(CertifiedKey::new(vec![cert.into()], key.signer().unwrap())),
            roots: Arc::new(RootCertStore::empty()),
            anchors: Vec::new(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after,
            serial: String::new(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_is_withdrawn_at_once_and_what_replaces_it_is_not() {
        let now = SystemTime::now();
        let (publish, mut current) = watch::channel(Some(svid(now)));
        let withdrawing = withdraw_expired(&publish);
        tokio::pin!(withdrawing);
        tokio::select! {
            biased;
            never = &mut withdrawing => match never {},
            gone = current.wait_for(Option::is_none) => drop(gone.unwrap()),
        }
        publish.send_replace(Some(svid(now + Duration::from_secs(3600))));
        // Tokio's clock runs ahead of the real one, by which certificates end.
        tokio::select! {
            biased;
            never = &mut withdrawing => match never {},
            () = sleep(HALF_A_MINUTE * 10) => {}
        }
        assert!(publish.borrow().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_goes_is_no_news_and_another_one_is() {
        let path = std::env::temp_dir().join(format!("outrigger-keep-{}", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        let seen = Stamp::of(&path);
        std::fs::remove_file(&path).unwrap();
        let changed = changed(&path, seen);
        tokio::pin!(changed);
        tokio::select! {
            biased;
            () = &mut changed => panic!("there is none"),
            () = sleep(ROOTS_LOOK * 3) => {}
        }
        std::fs::write(&path, "another").unwrap();
        changed.await;
        std::fs::remove_file(&path).unwrap();
    }
}
