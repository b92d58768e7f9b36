//! The end of a pod whose proxy has attached by itself. Pinned links outlive the pod, because nobody is left to remove them: so the last
//! proxy removes them, and closes the pod before it does. What closes it is attached without a link, and goes with the cgroup.
//!
//! Whether the pod ends the caller knows. Where it errs, and containers of the pod start once more, they reach nobody and nobody reaches
//! them until a proxy attaches: [`reopen`] takes the closure off again.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::super::sys::{self, Scope};
use super::super::{Error, PodTarget};
use super::detach;
use super::installed::Installed;

/// `BPF_CGROUP_INET_INGRESS` and `BPF_CGROUP_INET_EGRESS`.
const DIRECTIONS: [u32; 2] = [0, 1];
const NAME: &str = "or_closed";

/// Kept until the end by a thread that may attach then.
pub struct Ending {
    installed: Arc<Installed>,
    closed: OwnedFd,
}

impl Ending {
    pub(super) fn new(installed: Arc<Installed>) -> Result<Self, Error> {
        let closed = sys::load_closed(NAME).map_err(|source| Error::Host {
            what: "the program that closes a pod",
            source,
        })?;
        Ok(Self { installed, closed })
    }

    /// Lets no packet of the pod pass any more, and removes all that is pinned of it. Where the pod cannot be closed nothing is removed,
    /// so that it stays closed by that. False: another proxy has the pod.
    pub fn close(&self) -> Result<bool, Error> {
        let lease = self.installed.lease();
        if lease.is_none() {
            return Ok(false);
        }
        let pod = &self.installed.pod;
        for direction in DIRECTIONS {
            sys::attach_overridably(self.closed.as_fd(), pod.cgroup(), direction).map_err(|source| {
                Error::Attach {
                    program: NAME,
                    target: pod.cgroup_path().into(),
                    source,
                    offender: None,
                }
            })?;
        }
        detach::remove_all(&self.installed.pins)?;
        Ok(true)
    }
}

/// Takes off what an earlier proxy of the pod has closed it by. Nobody else attaches like that: alone, and for descendants to override.
pub(super) fn reopen(pod: &PodTarget) -> Result<(), Error> {
    for direction in DIRECTIONS {
        let Ok(attached) = sys::attached(pod.cgroup(), direction, Scope::Target) else {
            continue;
        };
        if attached.flags == sys::OVERRIDABLE && attached.programs.len() == 1 {
            sys::detach_overridable(pod.cgroup(), direction).map_err(|source| Error::Host {
                what: "what closes the pod's cgroup",
                source,
            })?;
        }
    }
    Ok(())
}
