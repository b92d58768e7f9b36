//! Sends the packets that answer held SYNs, on the loopback interface of this network namespace and nowhere else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::packet::Packet;

/// Needs CAP_NET_RAW to be opened, and nothing to be used.
#[derive(Debug)]
pub struct RawSockets {
    v4: Socket,
    /// Absent where the host has no IPv6.
    v6: Option<Socket>,
}

impl RawSockets {
    pub fn open() -> io::Result<Self> {
        let v4 = open(Domain::IPV4)?;
        v4.set_header_included_v4(true)?;
        let v6 = match open(Domain::IPV6) {
            Ok(socket) => Some(socket),
            Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6 })
    }

    /// Those that another process has opened.
    pub fn of(v4: OwnedFd, v6: Option<OwnedFd>) -> Self {
        Self {
            v4: v4.into(),
            v6: v6.map(Socket::from),
        }
    }

    /// By family, for handing them over.
    pub fn named(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
        let v6 = self.v6.iter().map(|socket| ("v6", socket.as_fd()));
        [("v4", self.v4.as_fd())].into_iter().chain(v6).collect()
    }

    pub fn send(&self, packet: &Packet) -> io::Result<()> {
        let to = SockAddr::from(SocketAddr::new(packet.to, 0));
        let socket = match packet.to {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?,
        };
        socket.send_to(&packet.bytes, &to).map(drop)
    }
}

/// Protocol "raw" only sends; an IPv6 socket of that protocol includes the header by itself. Bound to `lo`, so that
/// who gets hold of it cannot forge packets to the outside.
fn open(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(
        domain,
        Type::RAW.nonblocking(),
        Some(Protocol::from(nix::libc::IPPROTO_RAW)),
    )?;
    socket.bind_device(Some(b"lo"))?;
    // Many connections may be answered before the loopback interface has its turn.
    socket.set_send_buffer_size(1 << 20)?;
    Ok(socket)
}
