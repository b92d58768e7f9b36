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
//! of it, the other by the lease. An application of the pod, of whatever user, can do neither. A proxy that the agent of its node
//! serves cannot either: the agent, which knows who asks, brings the two together (`handover.rs`), and what the new one writes
//! here by itself the agent writes for it. What is said is JSON, of which whoever does not know a field ignores it, so that other
//! versions understand each other.

use std::time::Duration;

use crate::lifecycle;
use crate::observe::{Figure, Observer, Readiness, SharedSocket};

mod by_agent;
mod handover;
mod owner;
mod successor;
mod wire;

pub(super) use by_agent::{GrantedHandover, Parts};
pub(super) use handover::Handover;
pub(super) use owner::{Offer, offer};
pub(super) use successor::{Asked, Former, ask, own};
pub use wire::Takeover;
pub(super) use wire::handed;

/// The proof that connections get to a proxy takes milliseconds, as does all else that is missing when it takes over.
const READY: Duration = Duration::from_secs(5);

/// How often a look is taken whether proxies before still wait for connections.
const FORMERS_LOOK: Duration = Duration::from_secs(1);

/// Waits until this proxy calls itself ready, but not for ever: connections come to it already.
pub(super) async fn until_ready(readiness: &Readiness) {
    let mut changes = readiness.changes();
    let ready = async { while readiness.missing().is_some() && changes.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(READY, ready).await;
}

/// The pod is this proxy's from here on, and its owner before ends by itself.
pub(super) async fn complete(mut former: Former, handover: Handover, admin_socket: Option<&SharedSocket>) {
    if let Some(socket) = admin_socket {
        socket.goes_on_here();
    }
    former.taken();
    let told = handover.clone();
    // It waits for the agent's answer.
    if tokio::task::spawn_blocking(move || told.taken()).await.is_err() {
        tracing::error!("the agent of this node is not told, for a panic");
    }
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
