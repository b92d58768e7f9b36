//! The system call of this room: how much of what was written has not left yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// `SIOCOUTQNSD` of `linux/sockios.h`.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;

/// Bytes, and an end as one more, that the kernel has not sent a first time. What it has sent counts as received: a
/// peer's window had room for it.
pub(super) fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, to `bytes`, which outlives the call; the fd is borrowed for its duration.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut bytes) };
    match rc {
        0 => Ok(usize::try_from(bytes).unwrap_or_default()),
        _ => Err(io::Error::last_os_error()),
    }
}
