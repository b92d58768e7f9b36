//! What the tests look at: addresses, sockets, counters and maps.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use sidecar_ebpf::abi::{Origin, Pending, Tuple, map};
use socket2::{Domain, SockRef, Socket, Type};

use super::super::Datapath;
use super::super::map::Map;
use super::pod::Pod;

/// Nobody has these: only redirection gets a connection anywhere.
pub(super) const FAR4: &str = "203.0.113.7:80";
pub(super) const FAR6: &str = "[2001:db8::7]:80";
pub(super) const FAR_MAPPED: &str = "[::ffff:203.0.113.8]:81";

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// As the proxy asks: both levels, whatever the socket's own family.
pub(super) fn original_dst(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let answer = socket
        .original_dst_v4()
        .or_else(|_| socket.original_dst_v6())
        .ok()?;
    answer.as_socket()
}

pub(super) fn counter(datapath: &Datapath, name: &str) -> u64 {
    let counters = datapath.session().counters();
    counters
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("a known counter")
        .1
}

/// Entries of connections on their way to the proxy.
pub(super) fn pending(pod: &Pod) -> usize {
    entries::<Pending>(pod, map::PENDING)
}

/// Entries of the map of presented clients.
pub(super) fn presented(pod: &Pod) -> usize {
    entries::<Origin>(pod, map::PRESENTED)
}

fn entries<V: bytemuck::Pod>(pod: &Pod, name: &'static str) -> usize {
    let map: Map<Tuple, V> = pod.map(name).expect("the pinned map");
    map.keys().expect("the keys").len()
}

pub(super) fn listener(domain: Domain) -> TcpListener {
    let socket = Socket::new(domain, Type::STREAM, None).expect("socket");
    if domain == Domain::IPV6 {
        socket.set_only_v6(false).expect("dual stack");
    }
    socket
        .bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())
        .expect("bind");
    socket.listen(128).expect("listen");
    socket.into()
}
