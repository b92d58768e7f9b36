//! A pod's cgroup, by a descriptor: attached to by it, and asked by it who is in there, so that another directory that comes to
//! have its path is never taken for it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::O_DIRECTORY;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use super::Error;
use super::path::{PodPath, Qos};
use super::uid::PodUid;
use crate::datapath::{self, Netns, PodTarget};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct PodCgroup {
    directory: Arc<File>,
    path: PathBuf,
    id: u64,
    uid: Option<PodUid>,
    qos: Option<Qos>,
}

/// A process of a pod, by its number in the cgroup that it was found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: u32,
    leaf: PathBuf,
}

impl PodCgroup {
    /// The directory itself, whatever pod its path speaks of.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let directory = open_directory(path).map_err(Error::path("cgroup", path))?;
        Self::of_directory(directory, path.into())
    }

    pub(super) fn of_directory(directory: File, path: PathBuf) -> Result<Self, Error> {
        let looked = || -> io::Result<_> { Ok((fstatfs(&directory)?, directory.metadata()?)) };
        let (file_system, metadata) = looked().map_err(Error::path("cgroup", &path))?;
        if file_system.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(Error::NotCgroup2 { path });
        }
        let said = PodPath::parse(&path.to_string_lossy())?;
        Ok(Self {
            directory: Arc::new(directory),
            path,
            id: metadata.ino(),
            uid: said.uid,
            qos: said.qos,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// By which the kernel names it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// `None` for a pod that Kubernetes does not know.
    pub fn uid(&self) -> Option<&PodUid> {
        self.uid.as_ref()
    }

    pub fn qos(&self) -> Option<Qos> {
        self.qos
    }

    /// Of its directory, by which a pod made by hand is known.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// With the network namespace that somebody has found to be the pod's.
    pub fn target(&self, netns: Netns) -> Result<PodTarget, datapath::Error> {
        let directory = self
            .directory
            .try_clone()
            .map_err(|source| datapath::Error::Path {
                what: "cgroup",
                path: self.path.clone(),
                source,
            })?;
        PodTarget::new(directory, self.path.clone(), netns)
    }

    /// How many of the cgroups right below it have processes: one for each container that runs, and for the sandbox where the runtime
    /// keeps one.
    pub fn populated(&self) -> Result<usize, Error> {
        let mut populated = 0;
        for entry in fs::read_dir(self.inside("")).map_err(Error::path("cgroup", &self.path))? {
            let below = entry.map_err(Error::path("cgroup", &self.path))?.path();
            match fs::read_to_string(below.join("cgroup.events")) {
                Ok(events) => populated += usize::from(events.lines().any(|line| line == "populated 1")),
                // A file of the pod's own, or a container that has just been removed.
                Err(error) if is_removed(&error) || is(&error, Errno::ENOTDIR) => {}
                Err(source) => return Err(Error::path("cgroup", &below)(source)),
            }
        }
        Ok(populated)
    }

    /// Whether a process is in it or below. `None`: it has been removed.
    pub fn is_populated(&self) -> Result<Option<bool>, Error> {
        match fs::read_to_string(self.inside("cgroup.events")) {
            Ok(events) => Ok(Some(events.lines().any(|line| line == "populated 1"))),
            Err(error) if is_removed(&error) => Ok(None),
            Err(source) => Err(Error::path("cgroup", &self.path)(source)),
        }
    }

    /// The processes in it and below.
    pub(super) fn members(&self) -> Result<Vec<Member>, Error> {
        let mut members = Vec::new();
        self.collect(&self.inside(""), &mut members)?;
        Ok(members)
    }

    fn collect(&self, leaf: &Path, members: &mut Vec<Member>) -> Result<(), Error> {
        for pid in self.pids(leaf)? {
            // A process of another PID namespace.
            if pid == 0 {
                return Err(Error::Hidden {
                    path: self.path.clone(),
                });
            }
            members.push(Member {
                pid,
                leaf: leaf.into(),
            });
        }
        for entry in fs::read_dir(leaf).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.collect(&entry.path(), members)?;
            }
        }
        Ok(())
    }

    pub(super) fn still_has(&self, member: &Member) -> Result<bool, Error> {
        Ok(self.pids(&member.leaf)?.contains(&member.pid))
    }

    fn pids(&self, leaf: &Path) -> Result<Vec<u32>, Error> {
        match fs::read_to_string(leaf.join("cgroup.procs")) {
            Ok(pids) => Ok(pids.lines().filter_map(|pid| pid.parse().ok()).collect()),
            // In a threaded cgroup: its processes are listed by the one above, which is none.
            Err(error) if is_removed(&error) || is(&error, Errno::EOPNOTSUPP) => Ok(Vec::new()),
            Err(source) => Err(Error::path("cgroup", &self.path)(source)),
        }
    }

    /// A path to what is in the directory, whatever has the path of the directory by now.
    pub(super) fn inside(&self, name: &str) -> PathBuf {
        inside(&self.directory).join(name)
    }
}

impl AsFd for PodCgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

pub(super) fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(O_DIRECTORY).open(path)
}

pub(super) fn inside(directory: &File) -> PathBuf {
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

/// What was opened before its cgroup was removed answers ENODEV.
pub(super) fn is_removed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || is(error, Errno::ENODEV)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
