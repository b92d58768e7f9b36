//! Waiting for an inotify instance.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::inotify::Inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(super) struct Queue(pub(super) Inotify);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers an instance with the current tokio runtime.
pub(super) fn watch(queue: Queue) -> io::Result<AsyncFd<Queue>> {
    // SAFETY: the instance owns its descriptor, keeps the same one for life, and closes it when dropped.
    let watched = unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}
