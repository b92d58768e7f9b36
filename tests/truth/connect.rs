//! connect(2) that succeeds: blocking, not blocking, again, elsewhere, and to addresses that are none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::watch::Events;
use anyhow::Result;
use socket2::{Protocol, SockAddr, Socket, Type};

use crate::case::{ALL, Case, Family, case, nothing};
use crate::half::{Half, fresh_port};
use crate::refuse::{CLOSED_PORT, silent};
use crate::{stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case("connect/blocking", ALL, blocking, greet),
    case("connect/non-blocking", ALL, non_blocking, greet),
    case("connect/in-progress", ALL, in_progress, nothing),
    case("connect/not-accepted-yet", ALL, early_client, early_server),
    case("connect/given-up", ALL, given_up_client, greet),
    case("connect/after-a-refusal", ALL, after_refusal, greet),
    case(
        "connect/after-a-refusal-non-blocking",
        ALL,
        after_refusal_non_blocking,
        greet,
    ),
    case("connect/unspec-then-again", ALL, unspec_client, unspec_server),
    case("connect/unspec-while-in-progress", ALL, unspec_in_progress, greet),
    case("connect/strange-addresses", ALL, strange, nothing),
    case("connect/send-without-connect", ALL, send_unconnected, nothing),
    case("connect/many", ALL, many_client, many_server),
];

/// Accepts one connection and says hello on it.
fn greet(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    socket.send(b"hello")?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn blocking(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    half.facts.done("connect", socket.connect(&half.at.into()));
    half.facts.done("again", socket.connect(&half.at.into()));
    half.facts.result("SO_ERROR", pending(&socket));
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn non_blocking(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    half.facts.done("connect", socket.connect(&half.at.into()));
    let ready = watch::wait(&socket, Events::OUT, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("SO_ERROR", pending(&socket));
    half.facts.done("again", socket.connect(&half.at.into()));
    half.facts.done("once-more", socket.connect(&half.at.into()));
    socket.set_nonblocking(false)?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

/// What every call says while nobody has answered yet.
fn in_progress(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    let at = silent(half.family);
    half.facts.done("connect", socket.connect(&at.into()));
    half.facts.done("again", socket.connect(&at.into()));
    half.facts.say("poll", watch::words(watch::now(&socket)?));
    half.facts.result("SO_ERROR", pending(&socket));
    half.facts.result("send", socket.send(b"early"));
    half.facts.result("recv", stream::recv(&socket, &mut [0]));
    half.own_port(&socket, "client-port")?;
    half.facts.address("getsockname", socket.local_addr());
    half.facts.address("getpeername", socket.peer_addr());
    half.facts
        .done("shutdown", socket.shutdown(std::net::Shutdown::Write));
    half.facts.say("poll-after", watch::words(watch::now(&socket)?));
    half.facts.done("connect-after", socket.connect(&at.into()));
    Ok(())
}

/// The kernel accepts on behalf of a program that is busy.
fn early_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    half.facts.result("send", socket.send(b"early"));
    half.peer.tell("sent")?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn early_server(half: &mut Half) -> Result<()> {
    half.peer.hear("sent")?;
    let socket = half.accept()?;
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("send", socket.send(b"late"));
    Ok(())
}

/// A client that closes while its connect is in progress leaves nothing that the server could accept later.
fn given_up_client(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    half.facts
        .done("connect", socket.connect(&silent(half.family).into()));
    drop(socket);
    let socket = half.dial()?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn after_refusal(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    let refused = half.at_port(CLOSED_PORT);
    half.facts.done("refused", socket.connect(&refused.into()));
    half.facts.done("connect", socket.connect(&half.at.into()));
    half.facts.address("getpeername", socket.peer_addr());
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn after_refusal_non_blocking(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    let refused = half.at_port(CLOSED_PORT);
    half.facts.done("refused", socket.connect(&refused.into()));
    watch::wait(&socket, Events::OUT, half.patience)?;
    half.facts.result("SO_ERROR", pending(&socket));
    half.facts.result("SO_ERROR-again", pending(&socket));
    half.facts.done("connect", socket.connect(&half.at.into()));
    half.facts.done("again", socket.connect(&half.at.into()));
    let ready = watch::until(&socket, Events::OUT, half.patience)?;
    half.facts.say("poll", watch::words(ready & Events::OUT));
    socket.set_nonblocking(false)?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn unspec_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    half.peer.hear("accepted")?;
    half.facts.done("disconnect", sys::disconnect(&socket));
    half.facts.address("getpeername", socket.peer_addr());
    half.facts.result("send", socket.send(b"nowhere"));
    let other = half.hear_of("other", "other-listener")?;
    half.facts.done("connect", socket.connect(&other.into()));
    half.facts.address("getpeername-other", socket.peer_addr());
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn unspec_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    half.peer.tell("accepted")?;
    half.facts.result("read", stream::recv_text(&socket));
    let other = half.listen(fresh_port())?;
    half.tell_of("other", &other)?;
    let (socket, _) = half.accept_from(&other)?;
    half.facts.result("send", socket.send(b"other"));
    Ok(())
}

fn unspec_in_progress(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    socket.set_nonblocking(true)?;
    half.facts
        .done("connect", socket.connect(&silent(half.family).into()));
    half.facts.done("disconnect", sys::disconnect(&socket));
    socket.set_nonblocking(false)?;
    half.facts.done("connect-other", socket.connect(&half.at.into()));
    half.facts.address("getpeername", socket.peer_addr());
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

/// Addresses that no connection can be made to, and that a program may try all the same.
fn strange(half: &mut Half) -> Result<()> {
    let (multicast, broadcast): (IpAddr, IpAddr) = match half.family {
        Family::V4 => (Ipv4Addr::new(224, 0, 0, 9).into(), Ipv4Addr::BROADCAST.into()),
        Family::V6 => (
            Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 9).into(),
            Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1).into(),
        ),
        Family::Mapped => (
            Ipv4Addr::new(224, 0, 0, 9).to_ipv6_mapped().into(),
            Ipv4Addr::BROADCAST.to_ipv6_mapped().into(),
        ),
    };
    let any = half.any(CLOSED_PORT);
    let nobodys = [
        ("multicast", SocketAddr::new(multicast, 9)),
        ("broadcast", SocketAddr::new(broadcast, 9)),
        ("unspecified", any),
        ("port-0", half.at_port(0)),
    ];
    for (key, at) in nobodys {
        let socket = half.socket()?;
        half.facts.done(key, socket.connect(&at.into()));
    }
    let socket = half.socket()?;
    half.facts.done("cut-off", sys::connect_cut(&socket, half.at, 7));
    let other: SocketAddr = match half.family {
        Family::V4 => (half.world.server6, half.at.port()).into(),
        Family::V6 | Family::Mapped => (half.world.server4, half.at.port()).into(),
    };
    let socket = Socket::new(half.domain(), Type::STREAM, Some(Protocol::TCP))?;
    half.facts
        .done("other-family", socket.connect(&SockAddr::from(other)));
    if half.family == Family::Mapped {
        let socket = half.socket()?;
        socket.set_only_v6(true)?;
        half.facts
            .done("mapped-but-v6-only", socket.connect(&half.at.into()));
    }
    Ok(())
}

fn send_unconnected(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    half.facts.result("send", socket.send(b"nowhere"));
    half.facts.result("recv", stream::recv(&socket, &mut [0]));
    half.facts
        .done("shutdown", socket.shutdown(std::net::Shutdown::Both));
    half.facts.say("poll", watch::words(watch::now(&socket)?));
    Ok(())
}

const MANY: usize = 50;

fn many_client(half: &mut Half) -> Result<()> {
    let mut open = Vec::new();
    for _ in 0..MANY {
        let socket = half.socket()?;
        socket.set_nonblocking(true)?;
        let _ = socket.connect(&half.at.into());
        open.push(socket);
    }
    let mut greeted = 0;
    for socket in &open {
        socket.set_nonblocking(false)?;
        greeted += usize::from(stream::take(socket, 5).is_ok_and(|text| text == b"hello"));
    }
    half.facts.say("greeted", greeted);
    half.peer.tell("greeted")
}

fn many_server(half: &mut Half) -> Result<()> {
    let mut open = Vec::new();
    for _ in 0..MANY {
        let (socket, from) = half.accept_named()?;
        socket.send(b"hello")?;
        open.push((socket, from.as_socket()));
    }
    open.sort_by_key(|(_, from)| *from);
    open.dedup_by_key(|(_, from)| *from);
    half.facts.say("different-clients", open.len());
    half.peer.hear("greeted").map(drop)
}

/// SO_ERROR, which reading clears.
pub(crate) fn pending(socket: &Socket) -> std::io::Result<String> {
    let error = socket.take_error()?;
    Ok(error.map_or("0".into(), |error| crate::facts::errno(&error)))
}
