//! The steps of a rotation on the Secret, for an operator's command, which is another process than the replicas: they see the Secret
//! change. Prints nothing.

use std::time::SystemTime;

use anyhow::Context;

use super::super::kept::{Kept, NAME, material};
use crate::issuer::rotation::{Status, Step, status_kept, take_kept};

/// How far a rotation has come.
pub(crate) async fn status(kept: &Kept) -> anyhow::Result<Status> {
    let state = kept.read().await?.with_context(|| missing(kept))?;
    material(&state.secret)
        .and_then(|material| status_kept(&material))
        .with_context(|| name(kept))
}

/// Takes a step. Where somebody else is faster, the step is judged again by what that one has made of it.
pub(crate) async fn take(kept: &Kept, step: Step, force: bool) -> anyhow::Result<Status> {
    loop {
        let state = kept.read().await?.with_context(|| missing(kept))?;
        let (next, status) = material(&state.secret)
            .and_then(|material| take_kept(&material, step, force, SystemTime::now()))
            .with_context(|| name(kept))?;
        if kept.change(&state, next).await? {
            return Ok(status);
        }
    }
}

fn name(kept: &Kept) -> String {
    format!("Secret {}/{NAME}", kept.namespace)
}

fn missing(kept: &Kept) -> String {
    let name = name(kept);
    format!(
        "{name} is not there; name the namespace of `outrigger control`, or start it: it makes the Secret"
    )
}
