//! cgroup2 directories. Sets no limits: a cgroup is only where eBPF programs hang, and how processes are found.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// Where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup` on a pure host, elsewhere on a hybrid one.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .map(|fields| PathBuf::from(fields[1]))
        .context("no cgroup2 file system is mounted; run: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Makes a cgroup, with those above it.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make the cgroup {}", path.display()))
}

/// The file that moves a process into the cgroup when it writes "0".
pub fn open_procs(path: &Path) -> Result<File> {
    let procs = path.join("cgroup.procs");
    OpenOptions::new()
        .write(true)
        .open(&procs)
        .with_context(|| format!("open {}", procs.display()))
}

/// Processes in this cgroup or below.
pub fn processes(path: &Path) -> Vec<Pid> {
    let here = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<Pid> = here
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect();
    found.extend(children(path).iter().flat_map(|child| processes(child)));
    found
}

/// Kills what runs in a cgroup and below, then removes the directories.
pub fn remove_tree(path: &Path) {
    if !path.exists() {
        return;
    }
    // Without cgroup.kill (before Linux 5.14) a process may fork between list and signal, hence once a round.
    let dead = wait::until("the processes of the cgroup end", Duration::from_secs(5), || {
        if fs::write(path.join("cgroup.kill"), "1").is_err() {
            for pid in processes(path) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        processes(path).is_empty()
    });
    if dead.is_ok() {
        // The last task leaves its cgroup a moment after it has left cgroup.procs: EBUSY until then.
        let _ = wait::until("the cgroup can be removed", Duration::from_secs(5), || {
            remove_dirs(path)
        });
    }
}

fn remove_dirs(path: &Path) -> bool {
    for child in children(path) {
        remove_dirs(&child);
    }
    fs::remove_dir(path).is_ok() || !path.exists()
}

/// The kernel's numbers of this cgroup and of those below.
pub fn numbers(path: &Path) -> Vec<u64> {
    let own = fs::metadata(path).map(|directory| directory.ino());
    let below = children(path);
    own.into_iter()
        .chain(below.iter().flat_map(|child| numbers(child)))
        .collect()
}

fn children(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect()
}
