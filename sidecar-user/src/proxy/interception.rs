//! The interception policy over time: from its file into the kernel, and into the meters.

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Config;
use crate::datapath::Datapath;
use crate::datapath::policy::{Error, PolicyFile, Status};
use crate::observe::Observer;

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
