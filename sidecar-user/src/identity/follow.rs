//! Follows a certificate that somebody else renews: files, which a kubelet swaps as a whole.
//!
//! ```text
//!          ┌──────── other files, or the end of the certificate ────────┐
//!          ▼                                                            │
//!   read ─▶ verified ─▶ published ──────────────────────────────────────┤
//!    ▲         │                                                        │
//!    └─ pause ─┴─ failed: what is in force stays in force ──────────────┘
//! ```
//!
//! The files are looked at instead of watched: a user may have 128 inotify instances, all sidecars of a node are one user's, and
//! a certificate is renewed hours before it ends. What is in the files is read and judged in `bundle.rs`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::contain::contained;
use super::schedule::next_retry;
use super::wait::{chance, sleep_until};
use super::{Error, Files, Status, Svid, bundle};
use crate::credentials::Stamp;
use crate::error_chain;
use crate::model::SpiffeId;

/// How often the files are looked at, by their metadata.
const LOOK: Duration = Duration::from_secs(5);

/// Publishes the certificate in the files, and each that takes its place.
pub(super) async fn follow(
    id: &SpiffeId,
    files: &Files,
    publish: &watch::Sender<Option<Arc<Svid>>>,
    status: &watch::Sender<Status>,
) -> Infallible {
    let mut failures = 0;
    loop {
        // Before they are read, so that no change falls between the two.
        let seen = Stamps::of(files);
        let read = contained(read(id, files)).await;
        let now = SystemTime::now();
        let next = match &read {
            Ok(svid) => {
                failures = 0;
                svid.not_after()
            }
            // Another version is noticed at once; time alone may help as well, where a clock was wrong.
            Err(_) => {
                failures += 1;
                let left = publish.borrow().as_ref().map(|svid| svid.left(now));
                now + next_retry(failures, false, left, chance())
            }
        };
        let last_error = read.as_ref().err().map(|error| error_chain(error));
        let is_told = last_error == status.borrow().last_error;
        status.send_modify(|status| {
            *status = Status {
                failures,
                last_error,
                next_attempt: Some(next),
                obtained: status.after(read.as_ref().ok().map(Svid::not_after), now),
            }
        });
        match read {
            Ok(svid) => offer(svid, publish),
            // The same once more fills no log.
            Err(_) if is_told => {}
            Err(error) => warn!(
                identity = %id,
                error = error_chain(&error),
                in_force = publish.borrow().is_some(),
                "the certificate in the files cannot be used"
            ),
        }
        tokio::select! {
            () = sleep_until(next) => {}
            () = changed(files, seen) => {}
        }
    }
}

/// What is in force already is not published again: whoever holds it would take it for another.
fn offer(svid: Svid, publish: &watch::Sender<Option<Arc<Svid>>>) {
    publish.send_if_modified(|current| {
        if current.as_deref().is_some_and(|current| current.is_same(&svid)) {
            return false;
        }
        info!(
            identity = %svid.id(),
            serial = svid.serial(),
            not_after = %humantime::format_rfc3339_seconds(svid.not_after()),
            roots = svid.roots().len(),
            "certificate read"
        );
        *current = Some(Arc::new(svid));
        true
    });
}

/// Beside the runtime: a disk may take its time.
async fn read(id: &SpiffeId, files: &Files) -> Result<Svid, Error> {
    let (id, files) = (id.clone(), files.clone());
    let read = tokio::task::spawn_blocking(move || bundle::read(&id, &files, SystemTime::now()));
    match read.await {
        Ok(read) => read,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// The version of each file, `None` where there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamps([Option<Stamp>; 2]);

impl Stamps {
    fn of(files: &Files) -> Self {
        Self([Stamp::of(&files.bundle), Stamp::of(&files.roots)])
    }
}

/// Completes when there is another version of one of the files than `seen`. One that has gone is none.
async fn changed(files: &Files, seen: Stamps) {
    loop {
        sleep(LOOK).await;
        let now = Stamps::of(files);
        let differs = now
            .0
            .iter()
            .zip(seen.0)
            .any(|(now, seen)| now.is_some() && *now != seen);
        if differs {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
