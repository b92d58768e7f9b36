//! Is the target a pod, or all of the host? Hooks on the host's own namespace or root cgroup would take the connections
//! of sshd and the kubelet, and stay there, pinned, when the proxy has ended.
//!
//! Looks at the target only: whether the proxy is in it is `proof.rs`'s question.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::CGROUP2_SUPER_MAGIC;

use super::super::Error;
use super::super::netns::Netns;
use super::super::pod::{PodTarget, unified};
use super::pins;

/// `NET_NS_INIT_INO` and `PID_NS_INIT_INO` of `linux/nsfs.h`. Process namespaces have had theirs since 3.8. The one of the
/// network is fixed since 6.18; before, no namespace had that number.
const INITIAL_NETNS: u64 = 0xefff_fff9;
const INITIAL_PIDNS: u64 = 0xefff_fffc;
/// A parameter that exists once on a machine: the kernel shows it in its initial network namespace and in no other,
/// whatever namespace of processes the reader is in.
const ONLY_IN_INITIAL_NETNS: &str = "/proc/sys/net/core/dev_weight";

/// Refuses a target that is the whole host.
pub(super) fn refuse(pod: &PodTarget) -> Result<(), Error> {
    if is_initial_netns(pod.netns())? {
        return Err(Error::HostNetwork);
    }
    match held(pod.cgroup_path()) {
        Some(holds) => Err(Error::HostCgroup {
            path: pod.cgroup_path().into(),
            holds,
        }),
        None => Ok(()),
    }
}

fn is_initial_netns(netns: &Netns) -> Result<bool, Error> {
    // In a namespace of processes of its own, process 1 is the container's.
    let like_init = is_initial_pidns() && inode("/proc/1/ns/net").is_ok_and(|init| init == netns.inode());
    let shows = || Path::new(ONLY_IN_INITIAL_NETNS).exists();
    Ok(netns.inode() == INITIAL_NETNS || like_init || netns.within(shows)?)
}

fn is_initial_pidns() -> bool {
    inode("/proc/self/ns/pid").is_ok_and(|own| own == INITIAL_PIDNS)
}

fn inode(path: &str) -> io::Result<u64> {
    fs::metadata(path).map(|found| found.ino())
}

/// What of the host is in the cgroup.
fn held(cgroup: &Path) -> Option<&'static str> {
    // The kernel gives this file to every cgroup but the root.
    if !cgroup.join("cgroup.type").exists() {
        return Some("is the root of all cgroups");
    }
    let of_init = fs::read_to_string("/proc/1/cgroup").ok()?;
    let holds_init = is_initial_pidns() && holds(cgroup, &of_init);
    holds_init.then_some("holds process 1, the host's init")
}

/// Whether a process is in the cgroup or below, by the lines of its `/proc/PID/cgroup`, which begin at the root.
fn holds(cgroup: &Path, lines: &str) -> bool {
    let Ok(cgroup) = cgroup.canonicalize() else {
        return false;
    };
    let is_cgroup2 = |path: &&Path| pins::file_system(path).is_ok_and(|kind| kind == CGROUP2_SUPER_MAGIC);
    let Some(mount) = cgroup.ancestors().take_while(is_cgroup2).last() else {
        return false;
    };
    let (Ok(below), Some(place)) = (cgroup.strip_prefix(mount), unified(lines)) else {
        return false;
    };
    place
        .strip_prefix('/')
        .is_some_and(|place| Path::new(place).starts_with(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_in_the_cgroups_above_its_own() {
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = fields
            .find(|fields| fields[2] == "cgroup2")
            .map(|fields| fields[1].to_owned());
        let Some(mount) = mount else { return };
        let of_init = "1:name=systemd:/x\n0::/init.scope\n";
        assert!(holds(Path::new(&mount), of_init), "the root holds everybody");
        assert!(!holds(Path::new("/proc"), of_init), "no cgroup");
        assert!(!holds(Path::new("/nowhere"), of_init));
        assert!(
            !holds(Path::new(&mount), "1:name=systemd:/x\n"),
            "not in this hierarchy"
        );
        assert_eq!(unified(of_init), Some("/init.scope"));
    }
}
