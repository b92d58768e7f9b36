//! TCP fast open: data in the SYN, asked for by either of the client's two ways.

use anyhow::Result;
use nix::libc;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::half::Half;
use crate::{names, stream, sys};

pub(crate) const CASES: &[Case] = &[
    case("fastopen/sendto", ALL, |half| client(half, send_to), server),
    case("fastopen/option", ALL, |half| client(half, by_option), server),
    case("fastopen/refused", ALL, refused, crate::case::nothing),
];

/// The first connection fetches the cookie, the second one uses it.
const CALLS: [&str; 2] = ["first", "second"];

/// TCPI_OPT_SYN_DATA
const SYN_DATA: u8 = 32;

fn client(half: &mut Half, open: fn(&mut Half, &Socket) -> Result<()>) -> Result<()> {
    half.peer.hear("open")?;
    for call in CALLS {
        let socket = half.socket()?;
        open(half, &socket)?;
        half.facts
            .result(&format!("{call}-read"), stream::recv_text(&socket));
        if call == "second" {
            half.own_port(&socket, "client-port")?;
            names::tell(half, &socket);
            let info = sys::option(&socket, libc::IPPROTO_TCP, libc::TCP_INFO, 8)?;
            half.facts.say("data-in-the-syn", info[5] & SYN_DATA != 0);
        }
    }
    Ok(())
}

fn send_to(half: &mut Half, socket: &Socket) -> Result<()> {
    let sent = socket.send_to_with_flags(b"early", &half.at.into(), libc::MSG_FASTOPEN);
    half.facts.result("sendto", sent);
    Ok(())
}

fn by_option(half: &mut Half, socket: &Socket) -> Result<()> {
    sys::set_int_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    half.facts.done("connect", socket.connect(&half.at.into()));
    half.facts.result("send", socket.send(b"early"));
    Ok(())
}

fn server(half: &mut Half) -> Result<()> {
    let Some(listener) = half.listener.take() else {
        return Ok(());
    };
    sys::set_int_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
    half.peer.tell("open")?;
    for call in CALLS {
        let (socket, from) = half.accept_from(&listener)?;
        if call == "second" {
            half.facts.address("accept", Ok(from));
            let info = sys::option(&socket, libc::IPPROTO_TCP, libc::TCP_INFO, 8)?;
            half.facts.say("data-in-the-syn", info[5] & SYN_DATA != 0);
        }
        half.facts
            .result(&format!("{call}-read"), stream::recv_text(&socket));
        half.facts.result(&format!("{call}-send"), socket.send(b"hello"));
    }
    Ok(())
}

fn refused(half: &mut Half) -> Result<()> {
    let nobody = half.at_port(crate::refuse::CLOSED_PORT);
    let socket = half.socket()?;
    let sent = socket.send_to_with_flags(b"early", &nobody.into(), libc::MSG_FASTOPEN);
    half.facts.result("sendto", sent);
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}
