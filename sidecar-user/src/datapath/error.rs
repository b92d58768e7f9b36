//! What can go wrong at the kernel door. Every message names the program, map or path, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::programs::ProgramError;
use nix::libc;

use super::capabilities;

/// Who holds a lease that was not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Process(u32),
    /// The PID namespace of this process does not show it.
    Hidden,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Hidden => f.write_str("a process of another PID namespace"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {}: {source}", path.display())]
    Path {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "pins: {} belongs to {owner}, which is attached to this pod or about to be; nothing was changed. Stop that proxy \
         first, or name another directory in `interception.pins` if this is another pod",
        pins.display()
    )]
    Owned { pins: PathBuf, owner: Owner },
    #[error(
        "pins: {} belongs to {owner}, which runs; nothing was removed. Stop that proxy first, or say --force: the pod's \
         connections then go out unprotected while that proxy believes to serve them",
        pins.display()
    )]
    InUse { pins: PathBuf, owner: Owner },
    #[error(
        "pins: three earlier proxies of {} still wait for connections on their way to them; try again when one of them has \
         ended (`drain.deadline` bounds that)",
        pins.display()
    )]
    NoGeneration { pins: PathBuf },
    #[error("pins: what was handed over is not the lease of {}; nothing was changed", pins.display())]
    NoLease { pins: PathBuf },
    #[error("another proxy has taken the pod over; this one changes nothing any more")]
    Superseded,
    #[error("{what} cannot be read: {source}")]
    Host { what: &'static str, source: io::Error },
    #[error("the outbound listener of shard {shard}: {source}")]
    Hold { shard: u32, source: io::Error },
    #[error(
        "pins: {} is not on a bpffs; mount one (mount -t bpf bpf /sys/fs/bpf) and name a directory below it",
        path.display()
    )]
    NotBpffs { path: PathBuf },
    #[error(
        "cgroup: {} is not a cgroup2 directory; name the pod's directory below a cgroup2 mount (see /proc/mounts)",
        path.display()
    )]
    NotCgroup2 { path: PathBuf },
    #[error("this node has {most} pods, which is all that its programs have room for")]
    TooManyPods { most: usize },
    #[error("{given} {field}, but the programs have room for {max}; {remedy}")]
    TooMany {
        field: &'static str,
        given: usize,
        max: usize,
        remedy: &'static str,
    },
    #[error(
        "interception.netns: {} cannot be opened: {source}; name a file such as /proc/PID/ns/net or /run/netns/NAME, or \
         leave it out for the network namespace of this process",
        path.display()
    )]
    NoNetns { path: PathBuf, source: io::Error },
    #[error(
        "interception.netns: {} is no network namespace; name a file such as /proc/PID/ns/net or /run/netns/NAME (where \
         nothing is mounted on that any more, the namespace is gone)",
        path.display()
    )]
    NotNetns { path: PathBuf },
    #[error(
        "the network namespace {} cannot be entered: {source}; grant CAP_SYS_ADMIN, or start this process inside of it \
         and leave interception.netns out",
        path.display()
    )]
    Enter { path: PathBuf, source: io::Error },
    #[error("process {pid} cannot be looked at: {source}; name one that runs, and that this one may see")]
    Process { pid: u32, source: io::Error },
    #[error(
        "process {pid} is in no cgroup that can be reached from here; mount the cgroup2 hierarchy, and run in the host's \
         cgroup namespace"
    )]
    NoCgroup { pid: u32 },
    #[error(
        "the cgroup {} and the network namespace {} belong to different pods: task {task} and all others of the cgroup \
         are in another namespace; set interception.netns to /proc/{task}/ns/net, or name the cgroup of the pod whose \
         namespace it is in interception.cgroup",
        cgroup.display(), netns.display()
    )]
    OtherPod {
        cgroup: PathBuf,
        netns: PathBuf,
        task: u32,
    },
    #[error(
        "this is the network namespace of the host itself: the connections of every program of it would be taken; run \
         the proxy in the pod's namespace, name that in `interception.netns`, or say `interception.allowWholeHost: true` if the host is the workload"
    )]
    HostNetwork,
    #[error(
        "cgroup: {} {holds}: system services would be intercepted; name the pod's own directory below it, or say \
         `interception.allowWholeHost: true` if the host is the workload",
        path.display()
    )]
    HostCgroup { path: PathBuf, holds: &'static str },
    #[error(
        "the maps of the BPF object cannot be made: {source}{}",
        capability_hint(source)
    )]
    Object { source: EbpfError },
    #[error(
        "no descriptor of {name} was handed over, or one of another version; let the same version install and serve"
    )]
    NotHandedOver { name: String },
    #[error(
        "the descriptor that was handed over as {name} is of another object `{found}`; nothing was changed"
    )]
    OtherObject { name: &'static str, found: String },
    #[error("the BPF object holds no {kind} {name}; it belongs to another version")]
    Missing { kind: &'static str, name: &'static str },
    #[error("the programs of a pod cannot be linked: {why}; this build of outrigger is broken")]
    Image { why: String },
    /// Not a `source`: the verifier's log comes last, and whoever prints the chain would go on after it.
    #[error("program {program} was not accepted by the kernel{}", explain_load(cause))]
    Load {
        program: &'static str,
        cause: ProgramError,
    },
    #[error(
        "program {program} cannot be attached to {}: {source}{}",
        target.display(),
        offender.as_ref().map(|o| format!("; {o}")).unwrap_or_default()
    )]
    Attach {
        program: &'static str,
        target: PathBuf,
        source: io::Error,
        /// Who is in the way, and the remedy.
        offender: Option<String>,
    },
    #[error(
        "{} is attached to {found}, not to {expected}; run `outrigger detach --pins {}` if that pod is gone, or \
         choose another directory",
        pin.display(),
        pins.display()
    )]
    OtherTarget {
        pin: PathBuf,
        pins: PathBuf,
        expected: String,
        found: String,
    },
    #[error("the pinned link {} cannot be given the new program: {source}", pin.display())]
    Update { pin: PathBuf, source: io::Error },
    #[error(
        "the interception policy of {networks} networks cannot be written to the kernel ({source}), and the one before \
         it stays in force; join networks, or give the node more memory"
    )]
    Policy { networks: usize, source: io::Error },
    #[error("the control path does not {operation}: {source}{}", control_hint(source))]
    Control {
        operation: &'static str,
        source: io::Error,
    },
    #[error("map {map}: {source}")]
    MapIo { map: &'static str, source: io::Error },
    #[error(
        "map {map} cannot be mapped as an array of {bytes} bytes ({source}): it belongs to another version; let the same version install \
         and serve"
    )]
    MapMemory {
        map: &'static str,
        bytes: usize,
        source: io::Error,
    },
    #[error(
        "map {map} has keys and values of {found:?} bytes, not of {wanted:?}: it belongs to another version; run `outrigger \
         detach` with the version that made it"
    )]
    MapShape {
        map: &'static str,
        wanted: [usize; 2],
        found: [usize; 2],
    },
}

impl Error {
    pub(super) fn path(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { what, path, source }
    }
}

fn control_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "; the secret is not the one of this pod (or the kernel is older than Linux 5.18, which is the least for this): \
             ask whoever has installed the programs for another session"
        }
        Some(libc::ENOPROTOOPT) => {
            "; no program answers here: run in the pod's cgroup, and let the installer attach or_setsockopt to it"
        }
        Some(libc::EINVAL | libc::EOPNOTSUPP) => {
            "; the programs are of another version: let the same version install and serve"
        }
        _ => "",
    }
}

/// Enough for the verifier's verdict and the instructions before it.
const VERIFIER_LINES: usize = 20;

fn explain_load(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(VERIFIER_LINES)..];
            // The verifier refuses more of a process without CAP_PERFMON, and says so in other words.
            let is_refused = io_error.kind() == io::ErrorKind::PermissionDenied
                && (tail.is_empty() || capabilities::are_lacking());
            let hint = is_refused.then(capabilities::hint).unwrap_or_default();
            match tail.is_empty() {
                true => format!(": {io_error}{hint}"),
                false => format!(
                    ": {io_error}{hint}; the verifier's last words:\n{}",
                    tail.join("\n")
                ),
            }
        }
        other => format!(": {other}"),
    }
}

fn capability_hint(error: &EbpfError) -> String {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return capabilities::hint();
        }
        source = error.source();
    }
    String::new()
}
