//! System calls that no safe wrapper has in the form that programs use them. Interprets nothing.

use std::io;
use std::mem::size_of_val;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::libc::{self, c_int, c_ulong};
use socket2::SockAddr;

/// getsockopt(2) of any option, as bytes; `room` is how many the caller offers.
pub(crate) fn option(socket: &impl AsFd, level: c_int, name: c_int, room: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; room];
    let mut len = room as libc::socklen_t;
    // SAFETY: `value` is writable for `len` bytes, and the descriptor is borrowed for the call.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &mut len,
        )
    })?;
    value.truncate(len as usize);
    Ok(value)
}

pub(crate) fn int_option(socket: &impl AsFd, level: c_int, name: c_int) -> io::Result<i32> {
    let value = option(socket, level, name, 4)?;
    let value = value.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(i32::from_ne_bytes(value))
}

pub(crate) fn set_option(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    // SAFETY: `value` is readable for its length, and the descriptor is borrowed for the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            size_of_val(value) as libc::socklen_t,
        )
    })
    .map(drop)
}

pub(crate) fn set_int_option(socket: &impl AsFd, level: c_int, name: c_int, value: i32) -> io::Result<()> {
    set_option(socket, level, name, &value.to_ne_bytes())
}

/// Requests that fill one int: FIONREAD, SIOCOUTQ, SIOCATMARK.
pub(crate) fn count(socket: &impl AsFd, request: c_ulong) -> io::Result<i32> {
    let mut value: c_int = 0;
    // SAFETY: these requests write one int, and `value` is one.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request as _, &raw mut value) })?;
    Ok(value)
}

/// connect(2) with AF_UNSPEC: dissolves the association.
pub(crate) fn disconnect(socket: &impl AsFd) -> io::Result<()> {
    let nowhere = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: the address is readable for the length given.
    check(unsafe {
        libc::connect(
            socket.as_fd().as_raw_fd(),
            &raw const nowhere,
            size_of_val(&nowhere) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// connect(2) with an address that is cut off after `len` bytes.
pub(crate) fn connect_cut(socket: &impl AsFd, to: SocketAddr, len: usize) -> io::Result<()> {
    let to = SockAddr::from(to);
    let len = len.min(to.len() as usize) as libc::socklen_t;
    // SAFETY: the address is readable for its own length, and `len` is not more.
    check(unsafe { libc::connect(socket.as_fd().as_raw_fd(), to.as_ptr().cast(), len) }).map(drop)
}

/// poll(2): which events each descriptor has, none after the limit.
pub(crate) fn poll<const N: usize>(fds: [(BorrowedFd<'_>, i16); N], limit: Duration) -> io::Result<[i16; N]> {
    let mut raw = fds.map(|(fd, events)| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    });
    let limit = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: `raw` is writable for its N elements, and the descriptors are borrowed for the call.
    match check(unsafe { libc::poll(raw.as_mut_ptr(), N as libc::nfds_t, limit) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(raw.map(|fd| fd.revents)),
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
