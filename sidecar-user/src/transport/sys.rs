//! The system calls of this room: epoll_ctl() by way of the runtime, setsockopt(), which local ports connect() may choose from, and recvmsg() of a socket's error
//! queue.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Of `linux/in.h`, since 6.3.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

/// Lets connect() choose no port but this one. Unlike a port that bind() has taken, it stays free for connections to
/// other destinations while this one lingers in TIME_WAIT. `ENOPROTOOPT` before 6.3.
pub(super) fn choose_port(fd: BorrowedFd<'_>, port: u16) -> io::Result<()> {
    let port = u32::from(port);
    set(fd, IP_LOCAL_PORT_RANGE, port << 16 | port)
}

/// bind() takes an address only; connect() chooses the port, which then has to be free for that destination alone.
pub(super) fn choose_late(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// What an ICMP message said, where it waits in the error queue of an IPv4 socket. Taken from there, it is no longer SO_ERROR
/// either (`sock_dequeue_err_skb`).
pub(super) fn queued_error(fd: BorrowedFd<'_>) -> Option<io::Error> {
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(fd.as_raw_fd(), &mut [], Some(&mut control), flags).ok()?;
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, _) => {
            Some(io::Error::from_raw_os_error(error.ee_errno.cast_signed()))
        }
        _ => None,
    })
}

/// Lets the runtime watch a connection, for urgent bytes, too.
pub(super) fn watch(socket: Socket) -> io::Result<AsyncFd<TcpStream>> {
    let news = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
    // SAFETY: a `TcpStream` owns its one descriptor, gives the same one each time, and closes it only when it is dropped,
    // which `AsyncFd` does after it has told the runtime.
    let watched = unsafe { AsyncFd::register_with_interest(TcpStream::from(socket), news) };
    Ok(watched?)
}

fn set(fd: BorrowedFd<'_>, option: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: the kernel reads `value`, which is as long as it says, and the descriptor is borrowed for the call.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_IP,
            option,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
