//! A second proxy of a pod takes it over from the first: what the two say to each other, over a unix socket of the pod's
//! network namespace.
//!
//! ```text
//!   new proxy                                        the pod's owner
//!     ask, a descriptor of the pins directory ──────▶  checks who asks
//!                                             ◀──────  granted: the lease, listeners with fixed addresses
//!     gets its certificate, listens, loads
//!     lay down ─────────────────────────────────────▶  writes no settings any more
//!                                             ◀──────  done
//!     attaches its programs; new connections come to it
//!     taken ────────────────────────────────────────▶  gives up the lease, serves what it has begun, ends
//! ```
//!
//! Where the new one ends before it has said `taken`, the owner puts back what it may have changed and goes on. Where the
//! owner ends, the new one has the lease. So there is one owner after every step.
//!
//! Each proves to the other that it may open the pins directory, which is made for its owner alone: the one by a descriptor
//! of it, the other by the lease. An application of the pod, of whatever user, can do neither. What is said is JSON, of which
//! whoever does not know a field ignores it, so that other versions understand each other.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::datapath::Handover;
use crate::lifecycle::{self, messages::Message};
use crate::observe::{Figure, Observer};

mod owner;
mod successor;

pub(super) use owner::{Offer, offer};
pub(super) use successor::{Former, own};

/// Whether a second proxy may take the pod over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    #[default]
    Allow,
    Refuse,
}

/// Names of what is handed over.
pub(super) mod handed {
    pub(in super::super) const LEASE: &str = "lease";
    pub(in super::super) const STATUS: &str = "status";
    pub(in super::super) const ADMIN: &str = "admin";
    pub(in super::super) const ADMIN_SOCKET: &str = "adminSocket";
    pub(in super::super) const HBONE: &str = "hbone";
}

/// How long each waits for the other's answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long the owner waits for the first word of somebody whom it knows nothing of. Others wait meanwhile.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// How often a look is taken whether proxies before still wait for connections.
const FORMERS_LOOK: Duration = Duration::from_secs(1);

const ASK: &str = "ask";
const GRANTED: &str = "granted";
const REFUSED: &str = "refused";
const LAY_DOWN: &str = "layDown";
const DONE: &str = "done";
const TAKEN: &str = "taken";

/// The pod is this proxy's from here on, and its owner before ends by itself.
pub(super) fn complete(mut former: Former, handover: Handover) {
    former.taken();
    lifecycle::notify::took_over();
    tracing::info!(
        former = former.pid(),
        takeovers = former.takeovers(),
        "this proxy has taken the pod over"
    );
    tokio::spawn(async move {
        former.end().await;
        loop {
            match handover.forget_formers() {
                Ok(true) => return,
                Ok(false) => tokio::time::sleep(FORMERS_LOOK).await,
                Err(error) => {
                    tracing::warn!(%error, "programs of a proxy before stay attached beside these");
                    return;
                }
            }
        }
    });
}

/// Shows among the metrics how often the pod has gone from one proxy to the next.
pub(super) fn show(observer: &Observer, takeovers: u64) {
    observer.figures(move || {
        let help = "Proxies that have handed this pod over, one to the next, up to this one";
        vec![Figure::gauge("outrigger_proxy_takeovers", help).value(takeovers)]
    });
}

/// Where the owner of this directory listens, in its network namespace.
fn name(pins: &Path) -> std::io::Result<String> {
    let directory = fs::metadata(pins)?;
    Ok(format!(
        "outrigger/takeover/{:x}/{:x}",
        directory.dev(),
        directory.ino()
    ))
}

/// Nothing tells when the other process gives up a name or a lock, so both are tried again.
#[expect(
    clippy::disallowed_methods,
    reason = "on a thread of its own, or before anything is served"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A message of one word.
fn word(say: &str) -> Vec<u8> {
    json!({ "say": say }).to_string().into_bytes()
}

/// What a message says, with its fields.
fn said(message: &Message) -> (String, Value) {
    let value: Value = serde_json::from_slice(&message.text).unwrap_or_default();
    (value["say"].as_str().unwrap_or_default().to_owned(), value)
}

/// The descriptors of a message, by the names that stand in it.
fn named(value: &Value, descriptors: Vec<OwnedFd>) -> Vec<(String, OwnedFd)> {
    let names = value["descriptors"].as_array().into_iter().flatten();
    let names = names.map(|name| name.as_str().unwrap_or_default().to_owned());
    names.zip(descriptors).collect()
}
