//! Who asks at a door, by what the kernel knows of the process at the other end: not its user, and not what it says.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::datapath::{PodTarget, Process};
use crate::lifecycle::messages::Messages;

/// Why whoever asks is not the pod's sidecar, for the log and for a person to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stranger {
    #[error("the process that asks cannot be known: {0}")]
    Unknown(String),
    #[error(
        "process {pid} asks from the cgroup {}, and the sidecar of this pod runs in {}; only that one is given a session",
        found.display(), wanted.display()
    )]
    Elsewhere {
        pid: u32,
        found: PathBuf,
        wanted: PathBuf,
    },
}

/// The process, where it is in the sidecar's cgroup or below. A process leaves a cgroup only by the will of whoever may write
/// there, which no container may.
pub(super) fn sidecar(conversation: &Messages, cgroup: &Path) -> Result<u32, Stranger> {
    let unknown = |error: &dyn std::fmt::Display| Stranger::Unknown(error.to_string());
    let pid = conversation.peer().map_err(|error| unknown(&error))?.pid;
    let process = match conversation.peer_pidfd().map_err(|error| unknown(&error))? {
        Some(pidfd) => Some(Process::of_pidfd(pid, pidfd)),
        // Before Linux 6.5: whoever has the number now, which is asked as soon as somebody has connected.
        None => Process::open(pid).map_err(|error| unknown(&error))?,
    };
    let process = process.ok_or_else(|| Stranger::Unknown(format!("process {pid} has ended")))?;
    let found = PodTarget::of_process(pid).map_err(|error| unknown(&error))?;
    if !process.has_its_number() {
        return Err(Stranger::Unknown(format!("process {pid} has ended")));
    }
    let wanted = fs::metadata(cgroup).map_err(|error| unknown(&error))?.ino();
    let found = found.cgroup_path();
    let is_inside = found
        .ancestors()
        .any(|above| fs::metadata(above).is_ok_and(|above| above.ino() == wanted));
    match is_inside {
        true => Ok(pid),
        false => Err(Stranger::Elsewhere {
            pid,
            found: found.into(),
            wanted: cgroup.into(),
        }),
    }
}
