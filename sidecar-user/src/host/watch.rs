//! Hears that something has changed about links, addresses, routes or rules. Says which prefixes, where only routes have
//! changed; whoever wants to know what they lead to asks again, which also serves where the kernel had too much to tell.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, recv};
use tokio::io::unix::AsyncFd;

use super::{Error, netlink, routes, sys};

const GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
];

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The routes of these prefixes, and nothing else.
    Routes(BTreeSet<IpNet>),
    /// Anything: an address or a link changes what many routes lead to.
    Any,
}

impl Change {
    /// What both say.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Routes(mut these), Self::Routes(those)) => {
                these.extend(those);
                Self::Routes(these)
            }
            _ => Self::Any,
        }
    }
}

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
    pub async fn next(&mut self) -> Result<Change, Error> {
        let fail = Error::asking("changes of the network");
        loop {
            let mut ready = match self.socket.readable().await {
                Ok(ready) => ready,
                Err(error) => return Err(fail(error)),
            };
            let heard = ready.try_io(|socket| drain(socket.get_ref()));
            match heard {
                Ok(Ok(change)) => return Ok(change),
                Ok(Err(error)) => return Err(fail(error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Takes all that was told. ENOBUFS means that more happened than was told.
fn drain(socket: &OwnedFd) -> io::Result<Change> {
    let mut heard: Option<Change> = None;
    let mut datagram = [0; 4096];
    loop {
        let change = match recv(socket.as_raw_fd(), &mut datagram, MsgFlags::MSG_TRUNC) {
            Ok(len) => datagram.get(..len).map_or(Change::Any, change),
            Err(Errno::ENOBUFS) => Change::Any,
            Err(Errno::EINTR) => continue,
            Err(error @ Errno::EAGAIN) => return heard.ok_or_else(|| error.into()),
            Err(error) => return Err(error.into()),
        };
        heard = Some(match heard {
            Some(before) => before.and(change),
            None => change,
        });
    }
}

/// The kernel tells of each change in a datagram of its own.
pub(super) fn change(datagram: &[u8]) -> Change {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram);
    let route = match message.map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        )) => route,
        _ => return Change::Any,
    };
    match routes::changed(&route) {
        Some(prefix) => Change::Routes(prefix.into_iter().collect()),
        None => Change::Any,
    }
}
