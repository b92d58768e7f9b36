//! The system calls of this room: what of a socket's bytes is still here, on the way in and on the way out.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use bytes::BytesMut;
use nix::libc;

/// `SIOCOUTQNSD` of `linux/sockios.h`.
const SIOCOUTQNSD: libc::Ioctl = 0x894B;

/// Room for one control message that carries an int, in units that are aligned as its header.
const CONTROL: usize = {
    // SAFETY: arithmetic on its argument.
    let bytes = unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as u32) } as usize;
    bytes.div_ceil(size_of::<libc::cmsghdr>())
};

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) bytes: usize,
    /// More is there than was read. False also when the kernel was not asked, see `tell_of_more`.
    pub(super) more: bool,
}

/// From now on reads tell whether they left something. The kernel ends one before an urgent byte, with room to spare.
pub(super) fn tell_of_more(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_INQ, 1)
}

/// Takes the filter off that an accepted socket has inherited. It would be asked about every packet.
pub(super) fn detach_filter(socket: BorrowedFd<'_>) -> io::Result<()> {
    // The kernel wants a value, and ignores it.
    set(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0)
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads one int from `value`, which outlives the call; the fd is borrowed for its duration.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(rc as isize).map(drop)
}

/// Appends what is there, at most `most` bytes and as far as the buffer has room.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut BytesMut, most: usize) -> io::Result<Received> {
    let room = buffer.spare_capacity_mut();
    let most = most.min(room.len());
    let room = &mut room[..most];
    let mut part = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    let mut control = [MaybeUninit::<libc::cmsghdr>::uninit(); CONTROL];
    // SAFETY: all zeros is a message without name, parts and control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message points to `part`, which spans the buffer's spare room, and to `control`; all are writable
    // for the lengths given and outlive the call. The fd is borrowed for its duration.
    let rc = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let bytes = check(rc)?;
    // SAFETY: the kernel has written so many bytes to the spare room.
    unsafe { buffer.set_len(buffer.len() + bytes) };
    // SAFETY: the kernel has set `msg_controllen` to what it has written to `control`, which is aligned as a header,
    // and the macro gives a header only when a whole one is there.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let more = header.is_some_and(|header| {
        let is_left = header.cmsg_level == libc::IPPROTO_TCP && header.cmsg_type == libc::TCP_CM_INQ;
        // SAFETY: a message of this type carries one int, for which `control` has room.
        is_left && unsafe { libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned() } > 0
    });
    Ok(Received { bytes, more })
}

/// Bytes, and an end as one more, that the kernel has not sent a first time. What it has sent counts as received: a
/// peer's window had room for it.
pub(super) fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int, to `bytes`, which outlives the call; the fd is borrowed for its duration.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut bytes) };
    check(rc as isize)?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

fn check(rc: isize) -> io::Result<usize> {
    usize::try_from(rc).map_err(|_| io::Error::last_os_error())
}
