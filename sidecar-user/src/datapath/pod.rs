//! The pod, as the kernel knows it: the cgroup whose sockets are intercepted, and the network namespace in which they are. Held by
//! descriptors, so that it stays the same pod, whatever its paths and processes become.
//!
//! Says where programs go; `links.rs` attaches them, `whole_host.rs` refuses what is no pod.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::gettid;

use super::netns::{Netns, path_of};
use super::process::has_ended;
use super::{Config, Error, sys};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct PodTarget {
    cgroup: Arc<File>,
    path: PathBuf,
    inode: u64,
    netns: Netns,
}

impl PodTarget {
    /// The one that the configuration names. Without a namespace it is that of the calling thread.
    pub fn of(config: &Config) -> Result<Self, Error> {
        Self::open(&config.cgroup, config.netns.as_deref())
    }

    pub fn open(cgroup: &Path, netns: Option<&Path>) -> Result<Self, Error> {
        let netns = match netns {
            Some(path) => Netns::open(path)?,
            None => Netns::own()?,
        };
        let file = File::open(cgroup).map_err(Error::path("cgroup", cgroup))?;
        Self::new(file, cgroup.into(), netns)
    }

    /// The cgroup and the network namespace that a process is in. Fails rather than answer those of another process that was
    /// given the number meanwhile.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        let fail = |source| Error::Process { pid, source };
        let process = sys::pidfd_open(pid).map_err(fail)?;
        let netns = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let netns_file = File::open(&netns).map_err(fail)?;
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(fail)?;
        let cgroup = unified(&lines).and_then(mounted).ok_or(Error::NoCgroup { pid })?;
        let cgroup_file = File::open(&cgroup).map_err(Error::path("cgroup", &cgroup))?;
        // A number is given again only when its process has been waited for, and then the pidfd says that it is gone.
        sys::pidfd_exists(process.as_fd()).map_err(fail)?;
        Self::new(cgroup_file, cgroup, Netns::of_file(netns_file, netns)?)
    }

    /// Of descriptors that somebody has handed over.
    pub fn of_descriptors(cgroup: OwnedFd, netns: OwnedFd) -> Result<Self, Error> {
        let path = path_of(&cgroup);
        Self::new(cgroup.into(), path, Netns::of_descriptor(netns)?)
    }

    /// Of a directory that was opened by this path, and a network namespace that was found otherwise.
    pub fn new(cgroup: File, path: PathBuf, netns: Netns) -> Result<Self, Error> {
        let looked = || -> io::Result<_> { Ok((fstatfs(&cgroup)?, cgroup.metadata()?)) };
        let (file_system, metadata) = looked().map_err(Error::path("cgroup", &path))?;
        if file_system.filesystem_type() != CGROUP2_SUPER_MAGIC || !metadata.is_dir() {
            return Err(Error::NotCgroup2 { path });
        }
        Ok(Self {
            cgroup: Arc::new(cgroup),
            path,
            inode: metadata.ino(),
            netns,
        })
    }

    pub fn cgroup(&self) -> BorrowedFd<'_> {
        self.cgroup.as_fd()
    }

    pub fn cgroup_path(&self) -> &Path {
        &self.path
    }

    /// By which the kernel names the cgroup.
    pub fn cgroup_id(&self) -> u64 {
        self.inode
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Refuses a cgroup of one pod with the network namespace of another: its connections would be redirected to where
    /// nobody listens, and the other pod's not at all. Known where every task of the cgroup can be asked; an empty cgroup
    /// goes with any namespace.
    pub(super) fn refuse_mixture(&self) -> Result<(), Error> {
        match self.stranger(&self.path) {
            Ok(Some(task)) => Err(Error::OtherPod {
                cgroup: self.path.clone(),
                netns: self.netns.path().into(),
                task,
            }),
            Ok(None) | Err(Undecided) => Ok(()),
        }
    }

    /// A task of the cgroup or of those below that is in another network namespace. Threads of one process may be in several.
    fn stranger(&self, directory: &Path) -> Result<Option<u32>, Undecided> {
        let mut stranger = None;
        let tasks = fs::read_to_string(directory.join("cgroup.threads")).map_err(|_| Undecided)?;
        for task in tasks.lines() {
            // 0: a task of another PID namespace.
            let task: u32 = task.parse().ok().filter(|task| *task != 0).ok_or(Undecided)?;
            if is_visitor(task) {
                continue;
            }
            match fs::metadata(format!("/proc/{task}/ns/net")) {
                Ok(netns) if netns.ino() == self.netns.inode() => return Err(Undecided),
                Ok(_) => stranger = Some(task),
                Err(error) if has_ended(&error) => {}
                Err(_) => return Err(Undecided),
            }
        }
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                stranger = self.stranger(&entry.path())?.or(stranger);
            }
        }
        Ok(stranger)
    }
}

/// A task is in the namespace, or cannot be asked.
struct Undecided;

/// Threads of this process visit namespaces ([`Netns::within`]), and are in the cgroup for a moment after they were joined. Its
/// first one and the one that asks are where they are.
fn is_visitor(task: u32) -> bool {
    let stays = [std::process::id(), gettid().as_raw().cast_unsigned()];
    !stays.contains(&task) && Path::new(&format!("/proc/self/task/{task}")).exists()
}

/// The directory in the cgroup2 hierarchy.
pub(super) fn unified(lines: &str) -> Option<&str> {
    lines.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Where a cgroup of `/proc/PID/cgroup` is in the file system. `None`: it is outside of this process's cgroup namespace, or of
/// what is mounted.
fn mounted(cgroup: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    mounts.lines().find_map(|line| below(line, cgroup))
}

/// Of a line of proc_pid_mountinfo(5): `36 35 0:30 /root /at rw - cgroup2 cgroup rw`.
fn below(line: &str, cgroup: &str) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    if !file_system.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    let below = Path::new(cgroup).strip_prefix(root).ok()?;
    let is_inside = below
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    is_inside.then(|| Path::new(at).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_below_the_mount_that_shows_it() {
        let line =
            |root: &str| format!("36 35 0:30 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw");
        let at = |root: &str, cgroup: &str| below(&line(root), cgroup);
        assert_eq!(at("/", "/a/b"), Some("/sys/fs/cgroup/a/b".into()));
        assert_eq!(at("/a", "/a/b"), Some("/sys/fs/cgroup/b".into()));
        assert_eq!(at("/", "/"), Some("/sys/fs/cgroup".into()));
        assert_eq!(at("/a", "/ab"), None, "not below what is mounted");
        assert_eq!(at("/", "/../b"), None, "outside of the cgroup namespace");
        assert_eq!(below("36 35 0:30 / /x rw - tmpfs none rw", "/a"), None);
        assert_eq!(below("", "/a"), None);
    }
}
