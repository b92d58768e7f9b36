//! A process by a pidfd: what is asked of its number in `/proc` is its own as long as the pidfd says that it has not been waited
//! for, because only then another process can get the number.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::libc::ESRCH;

use super::netns::Netns;
use super::{Error, sys};

pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// `None`: there is no such process.
    pub fn open(pid: u32) -> Result<Option<Self>, Error> {
        match sys::pidfd_open(pid) {
            Ok(pidfd) => Ok(Some(Self { pid, pidfd })),
            Err(error) if has_ended(&error) => Ok(None),
            Err(source) => Err(Error::Process { pid, source }),
        }
    }

    /// The one with that number that a descriptor stands for already.
    pub fn of_pidfd(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd }
    }

    /// The network namespace of its first thread; others may visit other ones. `None`: it has ended.
    pub fn netns(&self) -> Result<Option<Netns>, Error> {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.pid));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if has_ended(&error) => return Ok(None),
            Err(source) => {
                return Err(Error::Process {
                    pid: self.pid,
                    source,
                });
            }
        };
        if !self.has_its_number() {
            return Ok(None);
        }
        Netns::of_file(file, path).map(Some)
    }

    /// Whether nobody else can have been looked at under its number so far.
    pub fn has_its_number(&self) -> bool {
        sys::pidfd_exists(self.pidfd.as_fd()).is_ok()
    }
}

/// A task leaves its namespaces, and then `/proc`, before it leaves its cgroup.
pub(super) fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}
