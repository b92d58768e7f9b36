//! What the kernel knows of TCP sockets of other processes: asked by `sock_diag` for one connection at a time, which is a look
//! into a hash table. A dump would walk the connections of every namespace of the node.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, INET_DIAG_INFO, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::sys::socket::SockProtocol;

use super::Error;
use super::netlink::Netlink;
use super::tcp_info::{LEN, parse};
use crate::model::TcpFacts;

/// Asks about the network namespace that it was opened in.
pub struct SocketsByEnds(Netlink);

impl SocketsByEnds {
    pub fn open() -> Result<Self, Error> {
        let opened = Netlink::open(SockProtocol::NetlinkSockDiag);
        opened
            .map(Self)
            .map_err(Error::asking("connections by their ends"))
    }

    /// `device`: that the socket is bound to, or 0. `None`: there is no such connection, or not any more.
    pub fn tcp_facts(
        &mut self,
        own: SocketAddr,
        other: SocketAddr,
        device: u32,
    ) -> Result<Option<TcpFacts>, Error> {
        let socket_id = SocketId {
            source_address: own.ip().to_canonical(),
            source_port: own.port(),
            destination_address: other.ip().to_canonical(),
            destination_port: other.port(),
            interface_id: device,
            cookie: [0xff; 8],
        };
        let request = SockDiagMessage::InetRequest(InetRequest {
            // IPv4 also where the socket is one of IPv6.
            family: if socket_id.source_address.is_ipv4() {
                AF_INET
            } else {
                AF_INET6
            },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            states: StateFlags::all(),
            socket_id,
        });
        match self.0.ask(&request) {
            Ok(answer) => Ok(facts(answer, other.port())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::asking("a connection by its ends")(error)),
        }
    }
}

/// Where the connection is gone the kernel answers with a listener on its port, which has no other end.
fn facts(answer: SockDiagMessage, other_port: u16) -> Option<TcpFacts> {
    let SockDiagMessage::InetResponse(answer) = answer else {
        return None;
    };
    if answer.header.socket_id.destination_port != other_port {
        return None;
    }
    let info = answer.nlas.iter().find(|told| told.kind() == INET_DIAG_INFO)?;
    let mut bytes = vec![0; info.value_len()];
    info.emit_value(&mut bytes);
    bytes.first_chunk::<LEN>().map(parse)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::super::tcp_facts;
    use super::*;

    #[test]
    fn a_connection_is_found_by_its_ends_whatever_the_family_of_its_socket_and_not_once_it_is_gone() {
        let mut sockets = SocketsByEnds::open().unwrap();
        for (at, by) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::]:0", "::ffff:127.0.0.1"),
            ("[::1]:0", "::1"),
        ] {
            let listener = TcpListener::bind(at).unwrap();
            let to = SocketAddr::new(by.parse().unwrap(), listener.local_addr().unwrap().port());
            let mut client = TcpStream::connect(to).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(&[1; 500]).unwrap();
            server.read_exact(&mut [0; 500]).unwrap();
            let own = client.local_addr().unwrap();
            let found = sockets.tcp_facts(own, to, 0).unwrap().unwrap();
            assert_eq!(Some(found), tcp_facts(client.as_raw_fd()), "{at}");
            assert_eq!(found.bytes_sent, Some(500));
            assert_eq!(
                sockets.tcp_facts(to, own, 0).unwrap().unwrap().bytes_received,
                500
            );

            let nobody = SocketAddr::new(own.ip(), 1);
            assert_eq!(sockets.tcp_facts(nobody, to, 0).unwrap(), None);
            assert_eq!(
                sockets.tcp_facts(to, nobody, 0).unwrap(),
                None,
                "a listener is none"
            );
        }
    }
}
