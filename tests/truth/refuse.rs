//! connect(2) that fails, and with which errno. The addresses are those that the pods' network treats so: see
//! `tests/e2e/truth/place.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::watch::Events;
use anyhow::Result;
use nix::libc;
use socket2::Socket;

use crate::case::{ALL, Case, Family, case, nothing};
use crate::connect::pending;
use crate::half::{Half, fresh_port};
use crate::world::written;
use crate::{stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case("refuse/nobody-on-the-link", ALL, absent, nothing),
    case("refuse/time-out-by-syn-count", ALL, by_syn_count, nothing),
    case("refuse/time-out-by-user-timeout", ALL, by_user_timeout, nothing),
    case("refuse/time-out-by-send-timeout", ALL, by_send_timeout, nothing),
    case("refuse/nobody-listens", ALL, nobody_listens, nothing),
    case("refuse/listener-closed", ALL, closed_client, closed_server),
    case(
        "refuse/listener-on-loopback",
        ALL,
        loopback_client,
        loopback_server,
    ),
    case(
        "refuse/bound-but-not-listening",
        ALL,
        loopback_client,
        bound_server,
    ),
    case("refuse/route-unreachable", ALL, |half| both(half, 98), nothing),
    case("refuse/route-missing", ALL, |half| both(half, 97), nothing),
    case("refuse/route-prohibits", ALL, |half| both(half, 95), nothing),
    case(
        "refuse/route-is-a-black-hole",
        ALL,
        |half| both(half, 91),
        nothing,
    ),
    case(
        "refuse/router-says-unreachable",
        ALL,
        |half| both(half, 93),
        nothing,
    ),
    case(
        "refuse/router-says-prohibited",
        ALL,
        |half| both(half, 92),
        nothing,
    ),
];

/// Nobody listens there, in any pod.
pub(crate) const CLOSED_PORT: u16 = 9;

/// An address of one of the networks that the pods' routing or the router treats in its way.
pub(crate) fn in_network(family: Family, network: u8) -> SocketAddr {
    let v4 = Ipv4Addr::new(10, network, 0, 1);
    // 93 is fd93::
    let v6 = Ipv6Addr::new(
        0xfd00 | u16::from(network / 10 * 16 + network % 10),
        0,
        0,
        0,
        0,
        0,
        0,
        1,
    );
    (written(family, v4, v6), 80).into()
}

/// A router that takes everything and answers nothing.
pub(crate) fn silent(family: Family) -> SocketAddr {
    in_network(family, 94)
}

/// The failure as a blocking and as a non-blocking program sees it.
fn both(half: &mut Half, network: u8) -> Result<()> {
    let at = in_network(half.family, network);
    fail(half, at)
}

fn fail(half: &mut Half, at: SocketAddr) -> Result<()> {
    let socket = half.socket()?;
    half.facts.done("blocking", socket.connect(&at.into()));
    aftermath(half, &socket, "blocking")?;
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    half.facts.done("non-blocking", socket.connect(&at.into()));
    let ready = watch::until(&socket, Events::RESET, half.patience.max(LONG))?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("SO_ERROR", pending(&socket));
    aftermath(half, &socket, "non-blocking")
}

/// Longer than the kernel asks the link for an address before it gives up.
const LONG: Duration = Duration::from_secs(20);

fn aftermath(half: &mut Half, socket: &Socket, kind: &str) -> Result<()> {
    half.facts
        .result(&format!("{kind}-recv"), stream::recv(socket, &mut [0]));
    half.facts.result(&format!("{kind}-send"), socket.send(b"x"));
    half.facts
        .address(&format!("{kind}-getpeername"), socket.peer_addr());
    half.facts
        .say(&format!("{kind}-poll"), watch::words(watch::now(socket)?));
    Ok(())
}

fn absent(half: &mut Half) -> Result<()> {
    let v4 = Ipv4Addr::new(10, 99, 200, 200);
    let v6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0xc8c8);
    let at = SocketAddr::new(written(half.family, v4, v6), 80);
    let socket = half.socket()?;
    half.facts.done("blocking", socket.connect(&at.into()));
    aftermath(half, &socket, "blocking")
}

fn by_syn_count(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    sys::set_int_option(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
    half.facts
        .done("connect", socket.connect(&silent(half.family).into()));
    half.facts.result("SO_ERROR", pending(&socket));
    aftermath(half, &socket, "blocking")
}

fn by_user_timeout(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    sys::set_int_option(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1000)?;
    half.facts
        .done("connect", socket.connect(&silent(half.family).into()));
    aftermath(half, &socket, "blocking")
}

fn by_send_timeout(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    let at = silent(half.family);
    half.facts.done("connect", socket.connect(&at.into()));
    half.facts.say("poll", watch::words(watch::now(&socket)?));
    half.facts.done("again", socket.connect(&at.into()));
    Ok(())
}

fn nobody_listens(half: &mut Half) -> Result<()> {
    let at = half.at_port(CLOSED_PORT);
    fail(half, at)
}

fn closed_client(half: &mut Half) -> Result<()> {
    half.peer.hear("closed")?;
    let at = half.at;
    fail(half, at)
}

fn closed_server(half: &mut Half) -> Result<()> {
    half.listener = None;
    half.peer.tell("closed")
}

fn loopback_client(half: &mut Half) -> Result<()> {
    let at = half.hear_of("port", "another-port")?;
    fail(half, at)?;
    half.peer.tell("failed")
}

fn loopback_server(half: &mut Half) -> Result<()> {
    let loopback: IpAddr = match half.family {
        Family::V4 | Family::Mapped => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let listener = std::net::TcpListener::bind((loopback, fresh_port()))?;
    half.peer
        .tell_number("port", listener.local_addr()?.port().into())?;
    half.peer.hear("failed").map(drop)
}

fn bound_server(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    half.bind_any(&socket, fresh_port())?;
    half.tell_of("port", &socket)?;
    half.peer.hear("failed").map(drop)
}
