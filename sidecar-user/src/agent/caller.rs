//! Who asks at a door, by what the kernel knows of the process at the other end: not its user, and not what it says.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::datapath::Process;
use crate::kubernetes;
use crate::lifecycle::messages::Messages;
use crate::pods;

/// What is known of a pod of Kubernetes. `None`: nothing yet.
pub(super) type Known = watch::Receiver<Option<Arc<kubernetes::Pod>>>;

/// Where the sidecar of a pod runs.
#[derive(Clone, Debug)]
pub(super) enum Home {
    Cgroup(PathBuf),
    /// The container that the pod's status names, in the cgroup of the pod.
    Container {
        pod: PathBuf,
        known: Known,
    },
}

/// The pod's sidecar.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) pid: u32,
    pub(super) cgroup: PathBuf,
}

/// Why whoever asks is not the pod's sidecar, for the log and for a person to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stranger {
    #[error("the process that asks cannot be known: {0}")]
    Unknown(String),
    #[error(
        "process {pid} asks from the cgroup {found}, and the sidecar of this pod runs in {}; only that one is given a session",
        wanted.display()
    )]
    Elsewhere {
        pid: u32,
        found: String,
        wanted: PathBuf,
    },
    /// It may be the sidecar.
    #[error("{0}")]
    Early(&'static str),
}

/// The process, where it is in the sidecar's cgroup or below. A process leaves a cgroup only by the will of whoever may write
/// there, which no container may.
///
/// Asked are the cgroups whom they hold, and not the process where it is: what `/proc/PID/cgroup` says is relative to the cgroup
/// namespace of the reader, and leads nowhere in a container.
pub(super) fn sidecar(conversation: &Messages, home: &Home) -> Result<Caller, Stranger> {
    let unknown = |error: &dyn std::fmt::Display| Stranger::Unknown(error.to_string());
    let pid = conversation.peer().map_err(|error| unknown(&error))?.pid;
    let process = match conversation.peer_pidfd().map_err(|error| unknown(&error))? {
        Some(pidfd) => Some(Process::of_pidfd(pid, pidfd)),
        // Before Linux 6.5: whoever has the number now, which is asked as soon as somebody has connected.
        None => Process::open(pid).map_err(|error| unknown(&error))?,
    };
    let process = process.ok_or_else(|| Stranger::Unknown(format!("process {pid} has ended")))?;
    let cgroup = home.cgroup()?;
    let is_inside = holds(&cgroup, pid);
    let found = fs::read_to_string(format!("/proc/{pid}/cgroup"));
    if !process.has_its_number() {
        return Err(Stranger::Unknown(format!("process {pid} has ended")));
    }
    let found = found.map_err(|error| unknown(&error))?;
    match is_inside {
        true => Ok(Caller { pid, cgroup }),
        false => Err(Stranger::Elsewhere {
            pid,
            found: found
                .lines()
                .find_map(|line| line.strip_prefix("0::"))
                .unwrap_or_default()
                .into(),
            wanted: cgroup,
        }),
    }
}

impl Home {
    /// Of the pod, as far as they are known.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Cgroup(_) => Vec::new(),
            Self::Container { known, .. } => {
                let known = known.borrow();
                known
                    .as_ref()
                    .map(|pod| pod.addresses.clone())
                    .unwrap_or_default()
            }
        }
    }

    fn cgroup(&self) -> Result<PathBuf, Stranger> {
        let (pod, known) = match self {
            Self::Cgroup(path) => return Ok(path.clone()),
            Self::Container { pod, known } => (pod, known.borrow().clone()),
        };
        let Some(id) = known.and_then(|pod| pod.sidecar.clone()) else {
            return Err(Stranger::Early(
                "the kubelet has not told yet which container is the sidecar of this pod",
            ));
        };
        // The kubelet tells of a container that was started again about a second after that: until then it names one that has
        // ended.
        let leaf = leaves(pod).find(|leaf| is_of(leaf, &id) && has_anybody(leaf));
        leaf.ok_or(Stranger::Early(
            "the container that the kubelet names as the sidecar of this pod has ended, or has not begun",
        ))
    }
}

fn is_of(leaf: &Path, id: &str) -> bool {
    let name = leaf.file_name().unwrap_or_default().to_string_lossy();
    pods::container(&name) == Some(id)
}

fn holds(cgroup: &Path, pid: u32) -> bool {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids = processes.lines().filter_map(|line| line.parse().ok());
    pids.any(|one: u32| one == pid) || leaves(cgroup).any(|below| holds(&below, pid))
}

fn has_anybody(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// The cgroups in it.
fn leaves(cgroup: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_the_cgroup_that_any_runtime_and_driver_makes_for_it() {
        let id = "c0ffee".repeat(11)[..64].to_owned();
        let is_of = |name: &str| is_of(&Path::new("/pod").join(name), &id);
        for name in ["", "cri-containerd-", "crio-", "docker-"] {
            let name = match name {
                "" => id.clone(),
                runtime => format!("{runtime}{id}.scope"),
            };
            assert!(is_of(&name), "{name}");
        }
        let (other, half) = (id.replace('c', "d"), &id[..32]);
        for name in [
            &other,
            half,
            "outrigger",
            "",
            &format!("crio-{other}.scope"),
            &format!("{id}x"),
        ] {
            assert!(!is_of(name), "{name}");
        }
    }
}
