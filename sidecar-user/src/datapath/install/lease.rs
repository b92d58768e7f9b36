//! The lease: one process at a time owns what is pinned below a directory.
//!
//! It is an exclusive flock(2) on the pins directory itself. A bpffs has no ordinary files to lock, but its directories
//! are locked by the VFS like any other's. The kernel gives the lock up with the last descriptor, so it ends with the
//! process, however that ends. A port or an abstract socket name would not do: every program of the pod could take it
//! first, while the directory is made for its owner alone. Being bound to the open file, not to the process, the lease
//! can be handed over with its descriptor.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::Error;
use super::super::error::Owner;
use super::{generation, locks, pins};

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
            if !locks::take(&directory, pins)? {
                return Err(Error::Owned {
                    pins: pins.into(),
                    owner: owner(pins, &directory),
                });
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

    /// The lease that another process hands over by its descriptor. Refuses any other file, and one that does not hold the
    /// lock: nobody can hand over what is not theirs.
    pub fn received(directory: OwnedFd, pins: &Path) -> Result<Self, Error> {
        let lease = Self {
            directory: directory.into(),
            pins: pins.into(),
        };
        // The lock belongs to the open file: taking it again succeeds for whoever has it.
        if lease.is_of_its_path() && lease.directory.try_lock().is_ok() {
            return Ok(lease);
        }
        Err(Error::NoLease { pins: pins.into() })
    }

    /// The directory.
    pub(super) fn pins(&self) -> &Path {
        &self.pins
    }

    /// For handing it over.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.directory.as_fd().try_clone_to_owned()
    }

    /// Whether this descriptor is one of the directory. Whoever has one may open it: it is made for its owner alone.
    pub fn is_of(&self, directory: &OwnedFd) -> bool {
        let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        let own = inode(self.directory.as_fd());
        own.is_ok_and(|own| inode(directory.as_fd()).is_ok_and(|given| given == own))
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
    pub(in super::super) fn share(&self, pins: &Path) -> Option<Self> {
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

/// An agent that leaves its node removes the directory above when it is empty, and so maybe between two steps of this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever may open a directory may lock it, so this one is its owner's alone.
fn make(pins: &Path) -> Result<(), Error> {
    pins::require_bpffs(pins)?;
    let steps = || {
        pins.parent().map_or(Ok(()), fs::create_dir_all)?;
        DirBuilder::new().mode(0o700).create(pins)
    };
    let begun = Instant::now();
    loop {
        match steps() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && pins.is_dir() => return Ok(()),
            Err(error) if begun.elapsed() < PATIENCE && may_pass(&error) => {}
            made => return made.map_err(Error::path("pins", pins)),
        }
    }
}

fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
    )
}

/// A lease that was handed over is listed with the process that took it, which may have ended: the one that serves has a
/// generation of its own.
fn owner(pins: &Path, directory: &File) -> Owner {
    let pid = pins::pinned_settings(pins)
        .and_then(|settings| generation::holder(pins, &settings))
        .or_else(|| locks::holder(directory));
    pid.map_or(Owner::Hidden, Owner::Process)
}
