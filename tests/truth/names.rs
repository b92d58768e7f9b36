//! What sockets say of their ends: getpeername, getsockname, accept, and the doors behind them.

use std::time::Instant;
use std::{fs, thread};

use anyhow::Result;
use nix::libc;
use socket2::{SockAddr, Socket};

use crate::case::{ALL, Case, Family, case};
use crate::half::Half;
use crate::watch::Events;
use crate::world::service_port;
use crate::{stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case("names/connected", ALL, connected_client, connected_server),
    case(
        "names/original-destination",
        ALL,
        original_client,
        original_server,
    ),
    case("names/before-connect", ALL, before, crate::case::nothing),
    case("names/after-the-end", ALL, after_client, after_server),
    case("names/two-clients", ALL, two_client, two_server),
    case("names/service", ALL, service_client, service_server),
    case("names/proc-net-tcp", ALL, proc_client, proc_server),
];

/// The names of both ends, by every call that tells them.
pub(crate) fn tell(half: &mut Half, socket: &Socket) {
    half.facts.address("getsockname", socket.local_addr());
    half.facts.address("getpeername", socket.peer_addr());
}

fn connected_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    tell(half, &socket);
    // The same through the option that systemd and others use.
    let len = SockAddr::from(half.at).len() as usize;
    let name = sys::option(&socket, libc::SOL_SOCKET, libc::SO_PEERNAME, len);
    half.facts
        .result("SO_PEERNAME", name.map(|name| is_address(&name, half)));
    half.peer.hear("told")?;
    tell(half, &socket);
    Ok(())
}

fn connected_server(half: &mut Half) -> Result<()> {
    let (socket, from) = half.accept_named()?;
    half.facts.address("accept", Ok(from));
    tell(half, &socket);
    half.peer.tell("told")
}

/// Whether the bytes are the address that was dialled.
fn is_address(name: &[u8], half: &Half) -> &'static str {
    let ip = match half.at.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let has_ip = name.windows(ip.len()).any(|part| part == ip);
    let has_port = name.get(2..4) == Some(&half.at.port().to_be_bytes()[..]);
    if has_ip && has_port {
        "as-dialled"
    } else {
        "another"
    }
}

/// What a program behind a NAT would ask.
fn original(half: &mut Half, socket: &Socket) {
    const SO_ORIGINAL_DST: libc::c_int = 80;
    for (key, level, room) in [("SOL_IP", libc::SOL_IP, 16), ("SOL_IPV6", libc::SOL_IPV6, 28)] {
        let answer = sys::option(socket, level, SO_ORIGINAL_DST, room);
        half.facts.result(key, answer.map(|bytes| format!("{bytes:?}")));
    }
}

fn original_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    original(half, &socket);
    half.peer.hear("told").map(drop)
}

fn original_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    original(half, &socket);
    half.peer.tell("told")
}

fn before(half: &mut Half) -> Result<()> {
    let socket = half.socket()?;
    tell(half, &socket);
    // Whatever this one is told.
    let refused = half.at_port(crate::refuse::CLOSED_PORT);
    half.facts.done("connect", socket.connect(&refused.into()));
    half.facts.address("getpeername-after", socket.peer_addr());
    Ok(())
}

fn after_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    half.facts.result("read", stream::recv_text(&socket));
    tell(half, &socket);
    half.facts
        .done("shutdown", socket.shutdown(std::net::Shutdown::Both));
    let ready = watch::until(&socket, Events::HUP, half.patience)?;
    half.facts.say("poll", watch::words(ready));
    // The other end still has to acknowledge.
    let end = Instant::now() + half.patience;
    while socket.peer_addr().is_ok() && Instant::now() < end {
        thread::yield_now();
    }
    half.facts.address("getpeername-after", socket.peer_addr());
    Ok(())
}

fn after_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    socket.shutdown(std::net::Shutdown::Write)?;
    half.facts.result("read", stream::recv_text(&socket));
    half.facts.address("getpeername-after", socket.peer_addr());
    Ok(())
}

fn two_client(half: &mut Half) -> Result<()> {
    let one = half.dial()?;
    half.peer.hear("accepted")?;
    let other = half.socket()?;
    other.connect(&half.at.into())?;
    half.own_port(&other, "second-client-port")?;
    half.facts.address("one", one.local_addr());
    half.facts.address("other", other.local_addr());
    half.peer.hear("accepted").map(drop)
}

fn two_server(half: &mut Half) -> Result<()> {
    let (_one, from) = half.accept_named()?;
    half.facts.address("one", Ok(from));
    half.peer.tell("accepted")?;
    let (_other, from) = half.accept_named()?;
    half.facts.address("other", Ok(from));
    half.peer.tell("accepted")
}

fn service_client(half: &mut Half) -> Result<()> {
    half.peer.hear("serving")?;
    let at = half.world.service(half.family);
    let socket = half.socket()?;
    half.connect(&socket, at)?;
    half.facts.address("getsockname", socket.local_addr());
    let peer = socket.peer_addr().map(|peer| peer.as_socket());
    let as_dialled = peer.map(|peer| peer == Some(at));
    half.facts.result("getpeername-is-as-dialled", as_dialled);
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

fn service_server(half: &mut Half) -> Result<()> {
    let listener = half.listen(service_port(half.family))?;
    half.peer.tell("serving")?;
    let (socket, from) = half.accept_from(&listener)?;
    half.facts.address("accept", Ok(from));
    tell(half, &socket);
    socket.send(b"hello")?;
    Ok(())
}

/// The kernel's own table, which `ss` and `netstat` show.
fn table(half: &mut Half, socket: &Socket) -> Result<()> {
    let name = match half.family {
        Family::V4 => "tcp",
        Family::V6 | Family::Mapped => "tcp6",
    };
    let inode = format!(" {} ", nix::sys::stat::fstat(socket)?.st_ino);
    let table = fs::read_to_string(format!("/proc/self/net/{name}"))?;
    let line = table
        .lines()
        .find(|line| line.contains(&inode))
        .unwrap_or_default();
    let remote = line.split_ascii_whitespace().nth(2).unwrap_or("absent");
    let peer = hexadecimal(half.world.client(half.family));
    let server = hexadecimal(half.world.server(half.family));
    let host = match remote.split(':').next() {
        Some(hex) if hex == peer => "client-pod",
        Some(hex) if hex == server => "server-pod",
        _ => "another",
    };
    half.facts.say("remote", host);
    Ok(())
}

/// As the table writes it: 32-bit words in the machine's order.
fn hexadecimal(ip: std::net::IpAddr) -> String {
    let octets = match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets
        .chunks_exact(4)
        .map(|word| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .collect()
}

fn proc_client(half: &mut Half) -> Result<()> {
    let socket = half.dial()?;
    table(half, &socket)?;
    half.peer.hear("told").map(drop)
}

fn proc_server(half: &mut Half) -> Result<()> {
    let socket = half.accept()?;
    table(half, &socket)?;
    half.peer.tell("told")
}
