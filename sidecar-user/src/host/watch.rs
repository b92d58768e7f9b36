//! Hears that something has changed about links, addresses, routes or rules. Says not what: whoever wants to know asks
//! again, which also serves where the kernel had too much to tell.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, recv};
use tokio::io::unix::AsyncFd;

use super::{Error, netlink, sys};

const GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
];

pub struct Changes {
    socket: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Hears from now on. Registers with the current tokio runtime.
    pub fn watch() -> Result<Self, Error> {
        let groups = GROUPS.iter().fold(0, |bits, group| bits | 1 << (group - 1));
        let socket = netlink::open(SockProtocol::NetlinkRoute, SockFlag::SOCK_NONBLOCK, groups)
            .and_then(sys::watch)
            .map_err(Error::asking("changes of the network"))?;
        Ok(Self { socket })
    }

    /// Waits for a change. Cancelled, it loses none.
    pub async fn next(&mut self) -> Result<(), Error> {
        let fail = Error::asking("changes of the network");
        loop {
            let mut ready = match self.socket.readable().await {
                Ok(ready) => ready,
                Err(error) => return Err(fail(error)),
            };
            let heard = ready.try_io(|socket| drain(socket.get_ref()));
            match heard {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(fail(error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Takes all that was told. ENOBUFS means that more happened than was told, which is as good.
fn drain(socket: &OwnedFd) -> io::Result<()> {
    let mut heard = false;
    let mut ignored = [0; 512];
    loop {
        match recv(socket.as_raw_fd(), &mut ignored, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENOBUFS) => heard = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if heard => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
