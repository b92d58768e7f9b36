//! A pod that dials itself: both ends in the client's pod. The server's half does nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use crate::case::{ALL, Case, Family, case, nothing};
use crate::half::Half;
use crate::stream;
use crate::world::{service_port, written};

pub(crate) const CASES: &[Case] = &[
    case("selfdial/pod-address", ALL, pod_address, nothing),
    case("selfdial/loopback", ALL, loopback, nothing),
    case("selfdial/another-loopback", ALL, another_loopback, nothing),
    case("selfdial/unspecified", ALL, unspecified, nothing),
    case("selfdial/own-service", ALL, own_service, nothing),
    case("selfdial/refused", ALL, refused, nothing),
];

fn pod_address(half: &mut Half) -> Result<()> {
    let own = half.world.client(half.family);
    visit(half, own, 0, None)
}

fn loopback(half: &mut Half) -> Result<()> {
    let own = written_loopback(half.family, Ipv4Addr::LOCALHOST);
    visit(half, own, 0, None)
}

fn another_loopback(half: &mut Half) -> Result<()> {
    let own = written_loopback(half.family, Ipv4Addr::new(127, 5, 6, 7));
    visit(half, own, 0, None)
}

fn unspecified(half: &mut Half) -> Result<()> {
    let own = half.any(0).ip();
    visit(half, own, 0, None)
}

fn own_service(half: &mut Half) -> Result<()> {
    let service = half.world.own_service(half.family);
    visit(half, service.ip(), service_port(half.family), Some(service))
}

fn written_loopback(family: Family, v4: Ipv4Addr) -> IpAddr {
    written(family, v4, Ipv6Addr::LOCALHOST)
}

/// Listens on any address, dials the given one, and compares what both ends see.
fn visit(half: &mut Half, ip: IpAddr, port: u16, service: Option<SocketAddr>) -> Result<()> {
    let listener = half.listen(port)?;
    let port = listener.local_addr()?.as_socket().map_or(0, |at| at.port());
    half.facts.port(port, "own-listener");
    let at = SocketAddr::new(ip, port);
    let socket = half.socket()?;
    half.connect(&socket, at)?;
    half.facts.address("getsockname", socket.local_addr());
    match service {
        None => half.facts.address("getpeername", socket.peer_addr()),
        // By another address in a network without services.
        Some(service) => {
            let peer = socket.peer_addr()?.as_socket();
            half.facts.say("getpeername-is-as-dialled", peer == Some(service));
        }
    }
    half.impatient(&listener)?;
    let (accepted, from) = listener.accept()?;
    half.impatient(&accepted)?;
    half.facts.address("accept", Ok(from));
    half.facts.address("accepted-getsockname", accepted.local_addr());
    half.facts.address("accepted-getpeername", accepted.peer_addr());
    half.facts.result("send", accepted.send(b"hello"));
    half.facts.result("read", stream::recv_text(&socket));
    drop(accepted);
    half.facts.result("read-end", stream::recv_text(&socket));
    Ok(())
}

fn refused(half: &mut Half) -> Result<()> {
    let own = half.world.client(half.family);
    for (key, ip) in [
        ("pod-address", own),
        ("loopback", written_loopback(half.family, Ipv4Addr::LOCALHOST)),
    ] {
        let socket = half.socket()?;
        half.facts.done(
            key,
            socket.connect(&SocketAddr::new(ip, crate::refuse::CLOSED_PORT).into()),
        );
    }
    Ok(())
}
