//! Why a pod is not found. Every message names the culprit and what was found there, and says what to do.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::uid::PodUid;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {}: {source}", path.display())]
    Path {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "no cgroup2 file system is mounted here; mount it (mount -t cgroup2 none /sys/fs/cgroup), or give the agent's \
         container the host's /sys/fs/cgroup"
    )]
    NoMount,
    #[error(
        "cgroup: {} is not a cgroup2 directory; name one below a cgroup2 mount (see /proc/mounts)",
        path.display()
    )]
    NotCgroup2 { path: PathBuf },
    #[error(
        "{culprit} names two pods, {first} and {second}; name the one that is meant by its UID or by its own cgroup"
    )]
    TwoPods {
        culprit: String,
        first: PodUid,
        second: PodUid,
    },
    #[error(
        "{culprit} names two containers, {first} and {second}; the process was moved by hand in some of its hierarchies: name \
         the pod by its UID"
    )]
    TwoContainers {
        culprit: String,
        first: String,
        second: String,
    },
    #[error(
        "the cgroup {} is one container's and not its pod's: the kubelet and the container runtime use different cgroup \
         drivers; set the same one (SystemdCgroup of containerd, cgroupDriver of the kubelet)",
        path.display()
    )]
    OneContainer { path: PathBuf },
    #[error(
        "the cgroup {} holds pods and is none; name that of one pod below it",
        path.display()
    )]
    AbovePods { path: PathBuf },
    #[error(
        "process {pid} is in the cgroup {cgroup}, which no cgroup2 mount shows here; run the agent in the host's cgroup \
         namespace with the host's /sys/fs/cgroup, or name the pod by its UID"
    )]
    Outside { pid: u32, cgroup: String },
    #[error("process {pid} is not there any more; name one that runs")]
    Gone { pid: u32 },
    #[error("process {pid} cannot be looked at: {source}")]
    Process { pid: u32, source: io::Error },
    #[error("process {pid} went from one cgroup to another while it was looked at; try again")]
    Moved { pid: u32 },
    #[error(
        "there is no cgroup of the pod {uid} below {}; the pod has ended, runs on another node, or the kubelet's cgroups \
         are elsewhere",
        list(roots)
    )]
    NoPod { uid: PodUid, roots: Vec<PathBuf> },
    #[error(
        "the pod {uid} has more than one cgroup: {}; name the one that is meant by its path",
        list(candidates)
    )]
    ManyCgroups { uid: PodUid, candidates: Vec<PathBuf> },
    #[error(
        "the cgroup {} has processes of a PID namespace that this one does not show; run the agent in the host's (hostPID: \
         true)",
        path.display()
    )]
    Hidden { path: PathBuf },
    #[error(
        "the cgroup {} is not a pod with a network of its own: process {pid} and all others are in the network namespace of \
         the host; take the pod off the mesh, or run it without hostNetwork",
        path.display()
    )]
    HostNamespace { path: PathBuf, pid: u32 },
    #[error(
        "the processes of the cgroup {} are in different network namespaces: {} in {}, {} in {}; name the cgroup of one pod, and \
         end what has entered the namespace of another",
        path.display(), first.0, first.1, second.0, second.1
    )]
    TwoNamespaces {
        path: PathBuf,
        /// Processes, each with the number of its namespace.
        first: (u32, u64),
        second: (u32, u64),
    },
    #[error(
        "the network namespace of process {pid} of the cgroup {} has none of the pod's addresses {wanted:?} but {found:?}: \
         it is another pod's; end what has entered it, or correct the addresses",
        path.display()
    )]
    OtherAddresses {
        path: PathBuf,
        pid: u32,
        wanted: Vec<IpAddr>,
        found: Vec<IpAddr>,
    },
    #[error("the network namespace of process {pid}: {reason}")]
    Namespace { pid: u32, reason: String },
    #[error(
        "{} cannot be watched: {source}; if there are no watches left, raise fs.inotify.max_user_watches or \
         fs.inotify.max_user_instances",
        path.display()
    )]
    Watch { path: PathBuf, source: io::Error },
}

impl Error {
    /// Whether the answer may be another one soon. A container's first process is in the pod's cgroup before it enters the
    /// pod's network namespace, and the kernel tells nobody when it does.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::HostNamespace { .. }
                | Self::TwoNamespaces { .. }
                | Self::OtherAddresses { .. }
                | Self::Moved { .. }
        )
    }

    pub(super) fn path(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Path { what, path, source }
    }
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "any directory of the kubelet (none was found)".into();
    }
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}
