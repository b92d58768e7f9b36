//! TCP connections that are open, from `sock_diag`, and their end by SOCK_DESTROY.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::NetlinkSerializable;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::sys::socket::SockProtocol;

use super::Error;
use super::listening::cgroup;
use super::netlink::Netlink;

/// One end of a connection that has an owner and may move bytes, or is being opened.
#[derive(Clone, Debug)]
pub struct Connection {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// The cgroup that its socket was made in, by its number, where the kernel tells.
    pub cgroup: Option<u64>,
    /// As `/proc/PID/fd` has it; 0: nobody has accepted it yet.
    pub inode: u32,
    /// With the socket's cookie: never another one that has taken its place.
    request: InetRequest,
}

/// All of this network namespace, in either family.
pub fn connections() -> Result<Vec<Connection>, Error> {
    let dump = || {
        let mut kernel = Netlink::open(SockProtocol::NetlinkSockDiag)?;
        let mut found = Vec::new();
        for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let request = SockDiagMessage::InetRequest(InetRequest {
                states: StateFlags::ESTABLISHED
                    | StateFlags::SYN_SENT
                    | StateFlags::CLOSE_WAIT
                    | StateFlags::FIN_WAIT1
                    | StateFlags::FIN_WAIT2,
                ..of(family, socket_id)
            });
            found.extend(kernel.dump(&request)?.into_iter().filter_map(connection));
        }
        Ok(found)
    };
    dump().map_err(Error::asking("open connections"))
}

/// Ends a connection of this network namespace: its owner gets ECONNABORTED, its far end a reset. One that has ended by
/// itself is no error. Takes CAP_NET_ADMIN, and a kernel with CONFIG_INET_DIAG_DESTROY.
pub fn destroy(connection: &Connection) -> Result<(), Error> {
    let destroy = || {
        let mut kernel = Netlink::open(SockProtocol::NetlinkSockDiag)?;
        let request = Destroy(SockDiagMessage::InetRequest(connection.request.clone()));
        match kernel.order::<_, SockDiagMessage>(&request) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    };
    destroy().map_err(Error::asking("the end of a connection"))
}

fn connection(answer: SockDiagMessage) -> Option<Connection> {
    let SockDiagMessage::InetResponse(answer) = answer else {
        return None;
    };
    let header = answer.header;
    let id = header.socket_id;
    let canonical = |ip: std::net::IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    Some(Connection {
        local: canonical(id.source_address, id.source_port),
        remote: canonical(id.destination_address, id.destination_port),
        cgroup: cgroup(&answer.nlas),
        inode: header.inode,
        request: of(header.family, id),
    })
}

fn of(family: u8, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    }
}

/// A request of this type ends the socket that it names.
#[derive(Clone)]
struct Destroy(SockDiagMessage);

impl NetlinkSerializable for Destroy {
    fn message_type(&self) -> u16 {
        SOCK_DESTROY
    }

    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.0.serialize(buffer);
    }
}
