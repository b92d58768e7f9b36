//! What a client may settle before it connects: its address, its port, its device.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use nix::libc;
use socket2::Socket;

use crate::case::{ALL, Case, Family, case};
use crate::half::{Half, fresh_port};
use crate::{names, stream, sys};

pub(crate) const CASES: &[Case] = &[
    case("bind/pod-address", ALL, |half| bound(half, 0), serve),
    case(
        "bind/pod-address-and-port",
        ALL,
        |half| bound(half, fresh_port()),
        serve,
    ),
    case("bind/port-only", ALL, port_only, serve),
    case("bind/address-without-port", ALL, late_port, serve),
    case("bind/same-port-to-two-servers", ALL, shared_client, shared_server),
    case("bind/same-port-to-one-server-twice", ALL, twice_client, serve),
    case("bind/loopback-address", ALL, loopback, serve_none),
    case("bind/device", ALL, device, serve),
    case("bind/two-binds", ALL, two_binds, serve),
];

fn serve(half: &mut Half) -> Result<()> {
    let (socket, from) = half.accept_named()?;
    half.facts.address("accept", Ok(from));
    names::tell(half, &socket);
    socket.send(b"hello")?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

/// Nobody is expected.
fn serve_none(half: &mut Half) -> Result<()> {
    half.peer.hear("tried").map(drop)
}

fn finish(half: &mut Half, socket: &Socket) -> Result<()> {
    half.own_port(socket, "client-port")?;
    names::tell(half, socket);
    half.facts.result("read", stream::recv_text(socket));
    Ok(())
}

fn bound(half: &mut Half, port: u16) -> Result<()> {
    let socket = half.socket()?;
    let own = SocketAddr::new(half.world.client(half.family), port);
    half.facts.done("bind", socket.bind(&own.into()));
    half.own_port(&socket, "client-port")?;
    half.facts.address("getsockname-before", socket.local_addr());
    half.facts.done("connect", socket.connect(&half.at.into()));
    finish(half, &socket)
}

fn port_only(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    let own = half.any(fresh_port());
    half.facts.done("bind", socket.bind(&own.into()));
    half.facts.done("connect", socket.connect(&half.at.into()));
    finish(half, &socket)
}

/// IP_BIND_ADDRESS_NO_PORT: the kernel chooses the port when the destination is known.
fn late_port(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    sys::set_int_option(&socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    let own = SocketAddr::new(half.world.client(half.family), 0);
    half.facts.done("bind", socket.bind(&own.into()));
    half.facts.address("getsockname-before", socket.local_addr());
    half.facts.done("connect", socket.connect(&half.at.into()));
    finish(half, &socket)
}

fn shared_client(half: &mut Half) -> Result<()> {
    let other = half.hear_of("other", "other-listener")?;
    let own = SocketAddr::new(half.world.client(half.family), fresh_port());
    half.facts.port(own.port(), "client-port");
    let mut open = Vec::new();
    for (key, at) in [("one", half.at), ("other", other)] {
        let socket = half.socket()?;
        socket.set_reuse_address(true)?;
        half.facts.done(&format!("bind-{key}"), socket.bind(&own.into()));
        half.facts
            .done(&format!("connect-{key}"), socket.connect(&at.into()));
        half.facts
            .result(&format!("read-{key}"), stream::recv_text(&socket));
        open.push(socket);
    }
    half.peer.tell("both")
}

fn shared_server(half: &mut Half) -> Result<()> {
    let other = half.listen(fresh_port())?;
    half.tell_of("other", &other)?;
    let (socket, from) = half.accept_named()?;
    half.facts.address("accept-one", Ok(from));
    socket.send(b"one")?;
    let (socket, from) = half.accept_from(&other)?;
    half.facts.address("accept-other", Ok(from));
    socket.send(b"other")?;
    half.peer.hear("both").map(drop)
}

fn twice_client(half: &mut Half) -> Result<()> {
    let own = SocketAddr::new(half.world.client(half.family), fresh_port());
    let mut open = Vec::new();
    for key in ["one", "other"] {
        let socket = half.socket()?;
        socket.set_reuse_address(true)?;
        half.facts.done(&format!("bind-{key}"), socket.bind(&own.into()));
        half.facts
            .done(&format!("connect-{key}"), socket.connect(&half.at.into()));
        open.push(socket);
    }
    finish(half, &open[0])
}

/// A source that cannot leave the pod.
fn loopback(half: &mut Half) -> Result<()> {
    if half.family != Family::V6 {
        let socket = half.socket()?;
        let own = crate::world::written(half.family, Ipv4Addr::LOCALHOST, half.world.client6);
        half.facts
            .done("bind", socket.bind(&SocketAddr::new(own, 0).into()));
        half.facts.done("connect", socket.connect(&half.at.into()));
    }
    half.peer.tell("tried")
}

fn device(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    half.facts.done("bind-device", socket.bind_device(Some(b"eth0")));
    half.facts.done("connect", socket.connect(&half.at.into()));
    let device = socket.device().map(|device| match device {
        Some(name) => String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned(),
        None => "none".into(),
    });
    half.facts.result("SO_BINDTODEVICE", device);
    finish(half, &socket)
}

fn two_binds(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    let own = SocketAddr::new(half.world.client(half.family), 0);
    half.facts.done("bind", socket.bind(&own.into()));
    half.facts.done("bind-again", socket.bind(&own.into()));
    half.facts
        .done("bind-server's", half.socket()?.bind(&half.at.into()));
    half.facts.done("connect", socket.connect(&half.at.into()));
    half.facts.done("bind-connected", socket.bind(&own.into()));
    finish(half, &socket)
}
