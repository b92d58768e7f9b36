//! The lease: one process at a time owns what is pinned below a directory.
//!
//! It is an exclusive flock(2) on the pins directory itself. A bpffs has no ordinary files to lock, but its directories
//! are locked by the VFS like any other's. The kernel gives the lock up with the last descriptor, so it ends with the
//! process, however that ends. A port or an abstract socket name would not do: every program of the pod could take it
//! first, while the directory is made for its owner alone. Being bound to the open file, not to the process, the lease
//! can be handed over with its descriptor.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::error::Owner;
use super::{Error, pins};

/// Held by whoever attaches or detaches; dropping it lets the next one come.
#[derive(Debug)]
pub struct Lease {
    directory: File,
    pins: PathBuf,
}

impl Lease {
    /// Makes the directory where it is absent. Does not wait: refuses with [`Error::Owned`] while another has it.
    pub fn take(pins: &Path) -> Result<Self, Error> {
        loop {
            make(pins)?;
            if let Some(lease) = Self::of_existing(pins)? {
                return Ok(lease);
            }
        }
    }

    /// `None`: there is no such directory, and nothing to own.
    pub(super) fn of_existing(pins: &Path) -> Result<Option<Self>, Error> {
        loop {
            let directory = match File::open(pins) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::path("pins", pins)(error)),
            };
            match directory.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Owned {
                        pins: pins.into(),
                        owner: owner(&directory),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(Error::path("the lock of", pins)(error)),
            }
            let lease = Self {
                directory,
                pins: pins.into(),
            };
            if lease.is_of_its_path() {
                return Ok(Some(lease));
            }
        }
    }

    /// False when the directory was removed, or made anew, between opening and locking: such a lock keeps nobody out.
    fn is_of_its_path(&self) -> bool {
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let locked = self.directory.metadata().map(inode);
        locked.is_ok_and(|locked| fs::metadata(&self.pins).map(inode).is_ok_and(|now| now == locked))
    }

    /// The same lease by another descriptor, as one that has been handed over. `None`: it is not of this directory, or the
    /// directory is gone.
    #[cfg(test)]
    pub(super) fn share(&self, pins: &Path) -> Option<Self> {
        (self.pins == pins && self.is_of_its_path()).then(|| Self {
            directory: self.directory.try_clone().expect("a descriptor"),
            pins: self.pins.clone(),
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Only an empty directory goes, one in which nothing was pinned. It goes before the lock does, so that whoever
        // comes next sees that it has locked a directory that is not there any more.
        if self.is_of_its_path() {
            let _ = fs::remove_dir(&self.pins);
        }
    }
}

/// Whoever may open a directory may lock it, so this one is its owner's alone.
fn make(pins: &Path) -> Result<(), Error> {
    pins::require_bpffs(pins)?;
    if let Some(parent) = pins.parent() {
        fs::create_dir_all(parent).map_err(Error::path("pins", parent))?;
    }
    match DirBuilder::new().mode(0o700).create(pins) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::path("pins", pins)(error)),
        _ => Ok(()),
    }
}

fn owner(directory: &File) -> Owner {
    let pid = || {
        let metadata = directory.metadata().ok()?;
        holder(
            &fs::read_to_string("/proc/locks").ok()?,
            metadata.dev(),
            metadata.ino(),
        )
    };
    pid().map_or(Owner::Hidden, Owner::Process)
}

/// Of the lines of proc_locks(5), such as `1: FLOCK  ADVISORY  WRITE 708 00:27:13546 0 EOF`. A process that waits for a
/// lock has `->` in the second field.
fn holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, locked, ..] if locked == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::makedev;

    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 11 00:27:13546 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 708 00:27:13546 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 709 00:27:13546 0 EOF\n\
                         3: FLOCK  ADVISORY  WRITE 710 103:02:13547 0 EOF\n";

    #[test]
    fn the_holder_of_a_lock_is_found_by_device_and_inode() {
        assert_eq!(holder(LOCKS, makedev(0, 0x27), 13546), Some(708));
        assert_eq!(holder(LOCKS, makedev(0x103, 2), 13547), Some(710));
        assert_eq!(holder(LOCKS, makedev(0, 0x28), 13546), None);
        assert_eq!(holder("", makedev(0, 0x27), 13546), None);
    }
}
