//! The system calls of this room: `getsockopt(SO_ORIGINAL_DST)`, answered by our own hook.

use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// `SO_ORIGINAL_DST` of `linux/netfilter_ipv4.h`; `IP6T_SO_ORIGINAL_DST` has the same number.
const SO_ORIGINAL_DST: libc::c_int = 80;

pub(super) fn original_dst(fd: BorrowedFd<'_>, v4: bool) -> Option<SocketAddr> {
    if v4 {
        let raw: libc::sockaddr_in = query(fd, libc::SOL_IP)?;
        (raw.sin_family == libc::AF_INET as libc::sa_family_t).then(|| {
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            SocketAddr::from((ip, u16::from_be(raw.sin_port)))
        })
    } else {
        let raw: libc::sockaddr_in6 = query(fd, libc::SOL_IPV6)?;
        (raw.sin6_family == libc::AF_INET6 as libc::sa_family_t).then(|| {
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            SocketAddr::from((ip, u16::from_be(raw.sin6_port)))
        })
    }
}

/// `T` is one of the two plain-data socket addresses above.
fn query<T: Copy>(fd: BorrowedFd<'_>, level: libc::c_int) -> Option<T> {
    let mut raw = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `raw` is writable for `len` bytes, and both outlive the call; the fd is borrowed for its duration.
    let rc = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            SO_ORIGINAL_DST,
            raw.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if rc != 0 || (len as usize) < size_of::<T>() {
        return None;
    }
    // SAFETY: zeroed at first and then filled by the kernel; every bit pattern of a socket address is valid.
    Some(unsafe { raw.assume_init() })
}
