//! Names, and removal by name: all that a fabric leaves on the machine carries its name, so one function removes it,
//! be it at the end of a test, after Ctrl-C, or for a run that died. Touches nothing that is named otherwise.
//!
//! | what | where |
//! | --- | --- |
//! | network namespaces | `/run/netns/<fabric>` and `/run/netns/<fabric>.<pod>` |
//! | cgroups | `<cgroup2 mount>/<fabric>/<pod>` |
//! | files, and a private bpffs in `bpf/` | `<temporary directory>/<fabric>/` |

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use nix::mount::{MntFlags, umount2};

use crate::cgroup;

pub const NETNS_DIR: &str = "/run/netns";
const PREFIX: &str = "outrigger-";

/// A new name `outrigger-<kind>-<pid>-<n>`, unique among all live processes.
pub fn fresh(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{kind}-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed))
}

/// Where the files of a fabric are.
pub fn scratch(fabric: &str) -> PathBuf {
    std::env::temp_dir().join(fabric)
}

/// Everything on this machine that carries the name of this fabric; empty after [`remove`].
pub fn leftovers(fabric: &str) -> Vec<PathBuf> {
    let mut found = namespaces(fabric);
    found.extend(
        cgroup::mount()
            .map(|root| root.join(fabric))
            .into_iter()
            .chain([scratch(fabric)])
            .filter(|p| p.exists()),
    );
    found.extend(mounts_below(&scratch(fabric)));
    found
}

/// Kills the processes of a fabric and removes its namespaces, cgroups, mounts and files. What is gone already is
/// no error, so it may run twice, or beside the owner's own clean-up.
pub fn remove(fabric: &str) {
    if let Ok(root) = cgroup::mount() {
        cgroup::remove_tree(&root.join(fabric));
    }
    for namespace in namespaces(fabric) {
        // Its veth pairs go with it, once the last process and descriptor in it are gone.
        let _ = umount2(&namespace, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&namespace);
    }
    for mount in mounts_below(&scratch(fabric)) {
        let _ = umount2(&mount, MntFlags::MNT_DETACH);
    }
    let _ = fs::remove_dir_all(scratch(fabric));
}

/// Removes what runs of ours that are dead left behind, once per process.
pub fn sweep() {
    static SWEEP: Once = Once::new();
    let dead = |pid: u32| !Path::new("/proc").join(pid.to_string()).exists();
    SWEEP.call_once(|| remove_where(dead));
}

/// Removes every fabric of this process, for an end without unwinding.
pub fn remove_own() {
    remove_where(|pid| pid == process::id());
}

fn remove_where(owned_by: impl Fn(u32) -> bool) {
    let dirs = [
        Some(NETNS_DIR.into()),
        cgroup::mount().ok(),
        Some(std::env::temp_dir()),
    ];
    let names = dirs.into_iter().flatten().flat_map(|dir: PathBuf| entries(&dir));
    // The namespaces of pods lead to the same fabric.
    let fabrics: BTreeSet<String> = names
        .filter_map(|name| name.split('.').next().map(Into::into))
        .collect();
    for fabric in fabrics {
        if owner(&fabric).is_some_and(&owned_by) {
            remove(&fabric);
        }
    }
}

/// The process that made a fabric, if that is the name of one.
pub fn owner(fabric: &str) -> Option<u32> {
    let mut parts = fabric.strip_prefix(PREFIX)?.rsplitn(3, '-');
    let _n: u32 = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    parts.next().map(|_kind| pid)
}

fn namespaces(fabric: &str) -> Vec<PathBuf> {
    let pods = format!("{fabric}.");
    entries(Path::new(NETNS_DIR))
        .filter(|name| name == fabric || name.starts_with(&pods))
        .map(|name| Path::new(NETNS_DIR).join(name))
        .collect()
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|target| target.starts_with(dir))
        .collect()
}

fn entries(dir: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_pattern_have_an_owner() {
        assert_eq!(owner("outrigger-demo-412-0"), Some(412));
        assert_eq!(owner("outrigger-half-close-412-7"), Some(412));
        for other in [
            "outrigger",
            "outrigger-412-0",
            "outrigger-demo-412",
            "cni-demo-412-0",
            "outrigger-demo-x-0",
        ] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
