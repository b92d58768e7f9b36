//! A network namespace, by a descriptor: nothing at the kernel door means "the namespace of the calling thread" unless it was
//! told so.
//!
//! Most of what concerns a namespace (sockets, netlink, /proc/sys/net, /proc/net) the kernel does for the one that the
//! calling thread is in. [`Netns::within`] lets a thread of its own ask, which ends with the answer. A socket stays in the
//! namespace in which it was made.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use super::{Error, sys};

/// The file by which a thread knows its own.
const OWN: &str = "/proc/thread-self/ns/net";

/// Cheap to clone. The namespace exists for as long as this does.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    /// For messages.
    path: PathBuf,
    inode: u64,
}

impl Netns {
    /// By a file such as `/proc/PID/ns/net` or `/run/netns/NAME`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::NoNetns {
            path: path.into(),
            source,
        })?;
        Self::of_file(file, path.into())
    }

    /// The one of the calling thread.
    pub fn own() -> Result<Self, Error> {
        let file = File::open(OWN).map_err(Error::path("network namespace", OWN))?;
        Self::of_file(file, OWN.into())
    }

    pub(super) fn of_descriptor(netns: OwnedFd) -> Result<Self, Error> {
        let path = path_of(&netns);
        Self::of_file(netns.into(), path)
    }

    pub(super) fn of_file(file: File, path: PathBuf) -> Result<Self, Error> {
        let is_netns = || -> io::Result<bool> {
            // Only there does the question mean what it is meant to.
            let is_namespace = fstatfs(&file)?.filesystem_type() == NSFS_MAGIC;
            Ok(is_namespace && sys::namespace_kind(file.as_fd())? == libc::CLONE_NEWNET)
        };
        if !is_netns().map_err(Error::path("network namespace", &path))? {
            return Err(Error::NotNetns { path });
        }
        let metadata = file.metadata().map_err(Error::path("network namespace", &path))?;
        Ok(Self {
            file: Arc::new(file),
            path,
            inode: metadata.ino(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// By which the kernel names it.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Moves the calling thread there for good, and with it the threads that it starts. Takes CAP_SYS_ADMIN, unless the
    /// thread is there already.
    pub fn enter(&self) -> Result<(), Error> {
        if self.is_entered()? {
            return Ok(());
        }
        setns(&*self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Enter {
            path: self.path.clone(),
            source: errno.into(),
        })
    }

    /// Whether this process may enter others: it takes the same to enter the one that the calling thread is in, which changes
    /// nothing.
    pub fn may_enter_others() -> io::Result<()> {
        let own = File::open(OWN)?;
        Ok(setns(own, CloneFlags::CLONE_NEWNET)?)
    }

    /// Has `ask` done by a thread that is there: by the calling one, or by one of its own.
    pub fn within<T: Send>(&self, ask: impl FnOnce() -> T + Send) -> Result<T, Error> {
        if self.is_entered()? {
            return Ok(ask());
        }
        thread::scope(|scope| {
            let asked = thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || self.enter().map(|()| ask()))
                .map_err(|source| Error::Host {
                    what: "a thread for the network namespace",
                    source,
                })?;
            asked.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The kernel's number of it, which is never given twice, as that of an inode may be.
    pub fn cookie(&self) -> Result<u64, Error> {
        self.within(sys::netns_cookie)?.map_err(|source| Error::Host {
            what: "the cookie of the network namespace",
            source,
        })
    }

    fn is_entered(&self) -> Result<bool, Error> {
        let own = fs::metadata(OWN).map_err(Error::path("network namespace", OWN))?;
        Ok(own.ino() == self.inode)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What a descriptor was opened by, where this process can still see it there.
pub(super) fn path_of(descriptor: &OwnedFd) -> PathBuf {
    let own = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    match fs::read_link(&own) {
        Ok(path) if id(&path).is_some() && id(&path) == id(&own) => path,
        _ => own,
    }
}
