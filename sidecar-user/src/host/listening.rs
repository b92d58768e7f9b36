//! The TCP sockets that listen, from `sock_diag`. Those of MPTCP are among them: each listens as a TCP socket too.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::sys::socket::SockProtocol;

use super::Error;
use super::netlink::Netlink;
use crate::model::network::Listening;

/// Of `linux/inet_diag.h`. Told of every socket, without being asked for, since 5.8.
const INET_DIAG_CGROUP_ID: u16 = 21;

const WHAT: &str = "listening sockets";

/// Asks who listens, of one network namespace: that of the thread which asks first.
#[derive(Default)]
pub struct Listeners {
    kernel: Option<Netlink>,
}

impl Listeners {
    /// All that listen now, in either family. The kernel walks those of every namespace of the node for it.
    pub fn look(&mut self) -> Result<Vec<Listening>, Error> {
        // After a failure another socket is tried the next time.
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Netlink::open(SockProtocol::NetlinkSockDiag).map_err(Error::asking(WHAT))?,
        };
        let found = dump(&mut kernel).map_err(Error::asking(WHAT))?;
        self.kernel = Some(kernel);
        Ok(found)
    }
}

fn dump(kernel: &mut Netlink) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::LISTEN,
            socket_id,
        });
        found.extend(kernel.dump(&request)?.iter().filter_map(socket));
    }
    Ok(found)
}

pub(super) fn socket(answer: &SockDiagMessage) -> Option<Listening> {
    let SockDiagMessage::InetResponse(answer) = answer else {
        return None;
    };
    let id = &answer.header.socket_id;
    // Two words, the low one first, whatever the machine's order of bytes.
    let [a, b, c, d, e, f, g, h] = id.cookie;
    let (low, high) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    Some(Listening {
        cookie: u64::from(high) << 32 | u64::from(low),
        at: SocketAddr::new(id.source_address, id.source_port),
        cgroup: cgroup(&answer.nlas),
    })
}

pub(super) fn cgroup(told: &[Nla]) -> Option<u64> {
    let told = told.iter().find(|told| told.kind() == INET_DIAG_CGROUP_ID)?;
    let mut id = [0; size_of::<u64>()];
    if told.value_len() != id.len() {
        return None;
    }
    told.emit_value(&mut id);
    Some(u64::from_ne_bytes(id))
}
