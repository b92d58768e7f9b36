//! Listeners: shared, moved, full, closed with callers inside, and on one address only.

use std::net::SocketAddr;

use crate::watch::Events;
use anyhow::Result;
use nix::libc;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::half::Half;
use crate::{names, stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case("listen/on-the-pod-address", ALL, visit_port, one_address),
    case("listen/again-on-the-same-port", ALL, again_client, again_server),
    case(
        "listen/again-while-connected",
        ALL,
        connected_client,
        connected_server,
    ),
    case("listen/shared-port", ALL, shared_client, shared_server),
    case(
        "listen/closed-with-callers-inside",
        ALL,
        inside_client,
        inside_server,
    ),
    case("listen/deferred-accept", ALL, deferred_client, deferred_server),
    case("listen/names", ALL, crate::case::nothing, own_names),
];

fn port_of(socket: &Socket) -> Result<u16> {
    Ok(socket.local_addr()?.as_socket().map_or(0, |at| at.port()))
}

fn visit_port(half: &mut Half) -> Result<()> {
    let at = half.hear_of("port", "listener")?;
    let socket = half.socket()?;
    half.connect(&socket, at)?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn one_address(half: &mut Half) -> Result<()> {
    let listener = half.socket()?;
    listener.bind(&half.at_port(0).into())?;
    listener.listen(8)?;
    half.tell_of("port", &listener)?;
    let (socket, from) = half.accept_from(&listener)?;
    half.facts.address("accept", Ok(from));
    names::tell(half, &socket);
    half.facts.result("send", socket.send(b"hello"));
    Ok(())
}

fn again_client(half: &mut Half) -> Result<()> {
    for round in ["first", "second", "third"] {
        half.peer.hear(round)?;
        let socket = half.dial()?;
        half.facts.result(round, stream::recv_text(&socket));
        drop(socket);
        half.peer.tell(round)?;
        half.peer.hear("closed")?;
        let socket = half.socket()?;
        half.facts
            .done(&format!("after-{round}"), socket.connect(&half.at.into()));
        half.peer.tell("tried")?;
    }
    Ok(())
}

fn again_server(half: &mut Half) -> Result<()> {
    for round in ["first", "second", "third"] {
        if half.listener.is_none() {
            half.listener = Some(half.listen(half.at.port())?);
        }
        half.peer.tell(round)?;
        let socket = half.accept()?;
        half.facts.result(round, socket.send(round.as_bytes()));
        half.peer.hear(round)?;
        half.listener = None;
        half.peer.tell("closed")?;
        half.peer.hear("tried")?;
    }
    Ok(())
}

fn connected_client(half: &mut Half) -> Result<()> {
    let old = half.dial()?;
    half.peer.hear("moved")?;
    let new = half.socket()?;
    half.facts.done("connect", new.connect(&half.at.into()));
    half.facts.result("read-new", stream::recv_text(&new));
    half.peer.tell("read")?;
    half.facts.result("read-old", stream::recv_text(&old));
    Ok(())
}

fn connected_server(half: &mut Half) -> Result<()> {
    let old = half.accept()?;
    half.listener = None;
    half.listener = Some(half.listen(half.at.port())?);
    half.peer.tell("moved")?;
    let new = half.accept()?;
    new.send(b"new")?;
    half.peer.hear("read")?;
    half.facts.result("send", old.send(b"old"));
    Ok(())
}

const CALLS: usize = 64;

fn shared_client(half: &mut Half) -> Result<()> {
    let at = half.hear_of("port", "listener")?;
    let mut answered = 0;
    for _ in 0..CALLS {
        let socket = half.socket()?;
        socket.connect(&at.into())?;
        answered += usize::from(stream::recv_text(&socket).is_ok_and(|text| text == "hello"));
    }
    half.facts.say("answered", answered);
    Ok(())
}

/// SO_REUSEPORT: the kernel spreads the callers.
fn shared_server(half: &mut Half) -> Result<()> {
    let mut listeners = Vec::new();
    let mut port = 0;
    for _ in 0..2 {
        let socket = half.socket()?;
        socket.set_reuse_port(true)?;
        half.bind_any(&socket, port)?;
        socket.listen(128)?;
        port = port_of(&socket)?;
        listeners.push(socket);
    }
    half.peer.tell_number("port", port.into())?;
    let mut calls = [0; 2];
    for _ in 0..CALLS {
        let (first, second) = watch::either(&listeners[0], &listeners[1], half.patience)?;
        let taker = match (first, second) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => break,
        };
        let (socket, _) = listeners[taker].accept()?;
        calls[taker] += 1;
        socket.send(b"hello")?;
    }
    half.facts.say("accepted", calls[0] + calls[1]);
    half.facts.say("by-both", calls[0] > 0 && calls[1] > 0);
    Ok(())
}

fn inside_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    half.facts.result("send", socket.send(b"hello"));
    half.peer.tell("inside")?;
    let ready = watch::until(&socket, Events::RESET, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn inside_server(half: &mut Half) -> Result<()> {
    half.peer.hear("inside")?;
    half.listener = None;
    Ok(())
}

/// TCP_DEFER_ACCEPT: the server wakes up for data, not for a handshake.
fn deferred_client(half: &mut Half) -> Result<()> {
    half.peer.hear("deferring")?;
    let socket = half.dial()?;
    half.peer.tell("connected")?;
    half.peer.hear("looked")?;
    socket.send(b"hello")?;
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn deferred_server(half: &mut Half) -> Result<()> {
    let Some(listener) = half.listener.take() else {
        return Ok(());
    };
    sys::set_int_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 30)?;
    half.peer.tell("deferring")?;
    half.peer.hear("connected")?;
    half.facts
        .say("before-data", watch::words(watch::now(&listener)?));
    half.peer.tell("looked")?;
    let (socket, _) = half.accept_from(&listener)?;
    half.facts
        .say("accepted", watch::words(watch::now(&socket)? & Events::IN));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("send", socket.send(b"late"));
    Ok(())
}

fn own_names(half: &mut Half) -> Result<()> {
    let Some(listener) = half.listener.take() else {
        return Ok(());
    };
    half.facts.address("getsockname", listener.local_addr());
    half.facts.address("getpeername", listener.peer_addr());
    let taken = half.socket()?;
    half.facts.done(
        "bind-taken",
        taken.bind(&SocketAddr::new(half.world.server(half.family), half.at.port()).into()),
    );
    let accepts = sys::int_option(&listener, libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
    half.facts.result("SO_ACCEPTCONN", accepts);
    Ok(())
}
