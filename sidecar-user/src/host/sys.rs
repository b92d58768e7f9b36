//! Waiting for a netlink socket, and getsockopt() of TCP_INFO.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the current tokio runtime.
pub(super) fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, stays the same for life, and is closed when dropped.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

/// How much the kernel has written. Asked of a descriptor that is closed, or another file's, it fails or tells of that file;
/// it changes nothing.
pub(super) fn tcp_info(socket: RawFd, info: &mut [u8]) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(info.len()).unwrap_or_default();
    // SAFETY: the kernel writes at most `len` bytes to `info`, and how many to `len`; both outlive the call.
    let rc = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if rc == 0 {
        Ok(len as usize)
    } else {
        Err(io::Error::last_os_error())
    }
}
