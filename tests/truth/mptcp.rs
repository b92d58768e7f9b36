//! Multipath TCP: as a client, as a server, and as both.

use anyhow::Result;
use nix::libc;
use socket2::{Protocol, Socket};

use crate::case::{ALL, Case, case};
use crate::half::Half;
use crate::{names, stream, sys};

pub(crate) const CASES: &[Case] = &[
    case(
        "mptcp/client",
        ALL,
        |h| client(h, Protocol::MPTCP),
        |h| server(h, Protocol::TCP),
    ),
    case(
        "mptcp/server",
        ALL,
        |h| client(h, Protocol::TCP),
        |h| server(h, Protocol::MPTCP),
    ),
    case(
        "mptcp/both",
        ALL,
        |h| client(h, Protocol::MPTCP),
        |h| server(h, Protocol::MPTCP),
    ),
    case("mptcp/refused", ALL, refused, crate::case::nothing),
];

const SOL_MPTCP: libc::c_int = 284;
const MPTCP_INFO: libc::c_int = 1;

fn tell(half: &mut Half, socket: &Socket) {
    names::tell(half, socket);
    let info = sys::option(socket, SOL_MPTCP, MPTCP_INFO, 64);
    half.facts.result("multipath", info.map(|_| "yes"));
}

fn client(half: &mut Half, protocol: Protocol) -> Result<()> {
    let at = half.hear_of("port", "listener")?;
    let socket = half.socket_of(protocol)?;
    half.connect(&socket, at)?;
    half.facts.result("send", socket.send(b"question"));
    half.facts.result("read", stream::recv_text(&socket));
    tell(half, &socket);
    half.peer.tell("told")?;
    stream::drain(&socket).report(&mut half.facts, "rest");
    Ok(())
}

fn server(half: &mut Half, protocol: Protocol) -> Result<()> {
    let listener = half.socket_of(protocol)?;
    half.bind_any(&listener, 0)?;
    listener.listen(8)?;
    half.tell_of("port", &listener)?;
    let (socket, from) = half.accept_from(&listener)?;
    half.facts.address("accept", Ok(from));
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.result("send", socket.send(b"answer"));
    tell(half, &socket);
    half.peer.hear("told")?;
    half.facts
        .done("send-rest", stream::send_pattern(&socket, 200_000, 50_000).1);
    Ok(())
}

fn refused(half: &mut Half) -> Result<()> {
    let socket = half.socket_of(Protocol::MPTCP)?;
    let nobody = half.at_port(crate::refuse::CLOSED_PORT);
    half.facts.done("connect", socket.connect(&nobody.into()));
    Ok(())
}
