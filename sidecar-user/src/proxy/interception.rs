//! The interception policy over time: from its file into the kernel, and into the meters.

use tokio::sync::watch;

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

/// Follows the file from now on, in the background.
pub(super) fn follow(file: Option<PolicyFile>, kernel: Option<&Datapath>, observer: &Observer) {
    if let (Some(file), Some(kernel)) = (file, kernel) {
        let (status, follow) = file.follow(kernel.policy());
        tokio::spawn(follow);
        tokio::spawn(count(observer.clone(), status));
    }
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
