//! Interception over time: whether the kernel programs are seen to work, and the policy, from its file into the kernel and
//! into the meters.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Config;
use crate::datapath::policy::{Error, PolicyFile, Status};
use crate::datapath::{Datapath, Proof};
use crate::observe::{Condition, Observer};
use crate::policy::Mode;

/// Between two looks at programs that did not see this process. It may be moved into the pod's cgroup yet.
const LOOK: Duration = Duration::from_secs(1);

/// The condition is met once the programs are seen to work on sockets of this process, which is looked at again until
/// then. Without programs it is met where nobody relies on them.
pub(super) fn prove(kernel: Option<&Datapath>, mode: Mode, condition: Condition) {
    match kernel {
        Some(kernel) => {
            let proof = kernel.proof();
            if !is_proven(&proof, &condition, true) {
                tokio::spawn(async move {
                    while !is_proven(&proof, &condition, false) {
                        tokio::time::sleep(LOOK).await;
                    }
                });
            }
        }
        None if mode == Mode::Strict => {
            let reason = "nothing is intercepted (`interception: none`), so plaintext passes the proxy by; `mode: strict` \
                          forbids that";
            tracing::warn!("{reason}: this proxy does not become ready");
            condition.unmet(reason);
        }
        None => condition.met(),
    }
}

fn is_proven(proof: &Proof, condition: &Condition, first: bool) -> bool {
    match proof.look() {
        Ok(()) => {
            if !first {
                tracing::info!("the kernel programs see this proxy's own sockets now");
            }
            condition.met();
            true
        }
        Err(unseen) => {
            if first {
                tracing::error!(error = %unseen, "not ready, and every connection of the pod is refused");
            }
            condition.unmet(unseen.reason());
            false
        }
    }
}

/// Reads the policy, which has to be good at start: the datapath is attached with it.
pub(super) fn open(config: &mut Config) -> Result<Option<PolicyFile>, Error> {
    let Some(path) = &config.interception_policy else {
        return Ok(None);
    };
    let file = PolicyFile::open(path)?;
    if let Some(datapath) = &mut config.datapath {
        datapath.policy = file.policy().clone();
    }
    Ok(Some(file))
}

/// Follows the file from now on, in the background, until the answer is dropped. A proxy that drains has to: the next
/// one may be writing the same maps.
#[must_use]
pub(super) fn follow(
    file: Option<PolicyFile>,
    kernel: Option<&Datapath>,
    observer: &Observer,
) -> JoinSet<()> {
    let mut following = JoinSet::new();
    if let (Some(file), Some(kernel)) = (file, kernel) {
        let (status, follow) = file.follow(kernel.policy());
        following.spawn(async {
            follow.await;
        });
        following.spawn(count(observer.clone(), status));
    }
    following
}

async fn count(observer: Observer, mut status: watch::Receiver<Status>) {
    let mut failures = 0;
    loop {
        {
            let status = status.borrow_and_update();
            let meters = observer.meters();
            meters.interception_generation.set(status.generation as i64);
            meters
                .interception_reload_errors
                .inc_by(status.failures - failures);
            failures = status.failures;
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
