//! The same steps on a state that somebody else keeps, such as a Secret, and what the processes that sign by it note there. Pure:
//! whoever keeps it writes each new state whole, and only over the one that it was made of.
//!
//! Each process signs nothing that outlives what is noted in the state that it has read. So a step need not wait until every
//! process has heard of it: whatever one of them still signs by the state before is over at the end that the step has found there.

use std::time::{Duration, SystemTime};

use super::super::held::Material;
use super::super::store::{Files, Times, at, is_behind, seconds};
use super::{Error, Status, Step, bundle};

/// In which kubelets bring to pods what has changed in a ConfigMap or a ClusterTrustBundle, which they look at once a minute.
const PROJECTED: Duration = Duration::from_secs(120);

pub fn status_kept(material: &Material) -> Result<Status, Error> {
    files(material).map(|files| files.status())
}

/// Takes a step: the next state, and how things stand after it.
pub fn take_kept(
    material: &Material,
    step: Step,
    force: bool,
    now: SystemTime,
) -> Result<(Material, Status), Error> {
    let files = files(material)?;
    let mut next = files.step(step, force, now)?;
    // The processes that sign publish the roots, and say so.
    next.times.unpublished |= step == Step::Begin;
    let (key, next_key) = match next.roots.len() {
        1 => (files.signer.pem(), None),
        _ => (
            material.key.clone(),
            next.key.or_else(|| material.next_key.clone()),
        ),
    };
    let material = Material {
        roots: bundle(&next.roots),
        key,
        next_key,
        times: Some(next.times.text()),
    };
    let status = material.files()?.status();
    Ok((material, status))
}

/// Those who have noted nothing do not sign, or are of a version that does not know how.
fn files(material: &Material) -> Result<Files, Error> {
    match material.times {
        Some(_) => material.files(),
        None => Err(Error::NeverNoted),
    }
}

impl Material {
    /// With what a process that signs has to note, if anything: until when the certificates of the next while may live, and that it
    /// has published these roots.
    pub fn noted(
        &self,
        published: Option<&str>,
        leaf_ttl: Duration,
        now: SystemTime,
    ) -> Result<Option<Self>, Error> {
        let files = self.files()?;
        let mut times = files.times;
        // Twice as far ahead as it has to be, so that not every look is a write.
        if is_behind(at(times.leaves_end), leaf_ttl, now) {
            times.leaves_end = seconds(now + leaf_ttl + leaf_ttl / 8);
        }
        if times.unpublished && published.is_some_and(|published| bundle(&files.roots) == published) {
            let projected = seconds(now + PROJECTED.min(leaf_ttl));
            times = Times {
                unpublished: false,
                bundles_at: times.bundles_at.max(projected),
                ..times
            };
        }
        Ok((times != files.times).then(|| Self {
            times: Some(times.text()),
            ..self.clone()
        }))
    }
}

#[cfg(test)]
mod tests;
