//! Waiting for descriptors, and the system calls that nix has no name for: pidfds, capabilities.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that is readable once the process has ended.
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, close-on-exec, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The process that has connected, by a descriptor of itself and not by its number, which may be another's by now. `None`:
/// the kernel does not tell (before Linux 6.5).
pub(super) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut pidfd: RawFd = -1;
    let mut length = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: the kernel writes a number of that length to where it is shown.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut length,
        )
    };
    match io::Error::last_os_error() {
        _ if asked == 0 => Ok(Some(own(pidfd))),
        error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        error => Err(error),
    }
}

/// A descriptor that has just come with a message, or from the kernel.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass what accept4(2) or recvmsg(2) has just made for this process, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Within a tokio runtime: reports when the descriptor has become what interests.
pub(super) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the descriptor, which nobody else can close or replace, until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(|error| error.into_parts().1)
}

/// The capabilities of a thread, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
}

/// As `capget(2)` and `capset(2)` have it. 0 is the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// One half of the bits, of 32.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two halves.
const OF_64_BITS: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

/// Those of the calling thread.
pub(super) fn capabilities() -> io::Result<Capabilities> {
    let (mut header, mut halves) = (OF_64_BITS, [Half::default(); 2]);
    // SAFETY: the kernel reads the header, and writes two halves for its version; both outlive the call.
    let asked = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    let whole = |part: fn(Half) -> u32| u64::from(part(halves[1])) << 32 | u64::from(part(halves[0]));
    Ok(Capabilities {
        effective: whole(|half| half.effective),
        permitted: whole(|half| half.permitted),
        inheritable: whole(|half| half.inheritable),
    })
}

/// Of the calling thread, from now on.
pub(super) fn set_capabilities(wanted: Capabilities) -> io::Result<()> {
    let half = |shift: u32| Half {
        effective: (wanted.effective >> shift) as u32,
        permitted: (wanted.permitted >> shift) as u32,
        inheritable: (wanted.inheritable >> shift) as u32,
    };
    let (mut header, halves) = (OF_64_BITS, [half(0), half(32)]);
    // SAFETY: the kernel reads the header and two halves for its version; both outlive the call.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the calling thread executes cannot have this capability any more.
pub(super) fn leave_bounding_set(capability: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the call takes numbers and touches no memory of ours.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
